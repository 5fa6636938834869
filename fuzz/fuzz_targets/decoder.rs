#![no_main]

#[path = "../../tests/fuzz_targets/mod.rs"]
#[allow(dead_code, reason = "one target of several")]
mod fuzz_targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_targets::decoder(bytes));
