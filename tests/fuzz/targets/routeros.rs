//! The import of RouterOS' exports: what it makes of any bytes is a configuration.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate::fuzzing::routeros(data));
