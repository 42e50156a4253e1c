//! Any bytes as what a serial server sends: never a panic, and what comes of them is bounded.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cepa_transports::fuzz_rfc2217(data));
