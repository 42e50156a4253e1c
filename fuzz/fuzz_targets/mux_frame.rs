//! The decoder of mux headers: any twelve bytes are a frame or an error, and a frame encodes to the bytes it came
//! from (`cepa::mux::fuzz::fuzz_frame` says what it checks).
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| cepa::mux::fuzz::fuzz_frame(bytes));
