//! A durable stream whose peer says anything, or two of them on a network that loses, delays and crosses their paths: each byte
//! arrives once and in order (`cepa::resume::fuzz::fuzz_engine` says what it checks).
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| cepa::resume::fuzz::fuzz_engine(bytes));
