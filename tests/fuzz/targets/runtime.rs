//! What the daemon writes down of the objects that were added at run time: any text loads, or is told in full.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate::fuzzing::runtime(data));
