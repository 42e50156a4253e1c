//! Any bytes as the request of a stranger at `ws:` and as the answer of a proxy: never a panic, and bounded.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cepa_transports::fuzz_http(data));
