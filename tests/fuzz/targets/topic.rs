//! Topic names and filters: what matches, covers and overlaps, against a matcher that shares no code.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate::fuzzing::topic(data));
