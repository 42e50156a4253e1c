//! The link against hostile bytes, forged frames, calls and time: its decoder, and one engine
//! (`cepa::link::fuzz::fuzz_link` says what it checks).
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| cepa::link::fuzz::fuzz_link(bytes));
