//! The configuration: any text loads, or is told in full.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate::fuzzing::configuration(data));
