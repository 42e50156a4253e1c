//! The splitter reads what strangers send before any key is agreed. It has to end and stay inside its
//! input, and to find the same records however the input is cut (`cepa::tls::fuzz::fuzz_records` says what it checks).
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| cepa::tls::fuzz::fuzz_records(bytes));
