#![no_main]

libfuzzer_sys::fuzz_target!(|input: roost_vmm::fuzz::Transport| input.run());
