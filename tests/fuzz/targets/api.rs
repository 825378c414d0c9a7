//! Objects that requests describe: each is added or told in full, and can be removed again.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate::fuzzing::api(data));
