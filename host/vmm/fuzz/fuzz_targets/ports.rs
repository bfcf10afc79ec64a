#![no_main]

libfuzzer_sys::fuzz_target!(|input: roost_vmm::fuzz::Ports| input.run());
