//! An authenticated peer that has turned bad: a script of frames, cuts, local calls and time against one engine.
//! It must not panic, nor hold more than its bounds (`cepa::mux::fuzz::fuzz_engine` says what it checks).
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| cepa::mux::fuzz::fuzz_engine(bytes));
