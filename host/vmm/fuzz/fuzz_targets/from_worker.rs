#![no_main]

libfuzzer_sys::fuzz_target!(|input: roost_worker::fuzz::FromWorker| input.run());
