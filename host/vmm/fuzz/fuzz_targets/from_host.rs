#![no_main]

libfuzzer_sys::fuzz_target!(|input: roost_worker::fuzz::FromHost| input.run());
