//! Our mux and the `yamux` crate run the same script, with themselves and with each other; their users have to see
//! the same (`tests/mux_differential/world.rs` says what that is).
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/mux_differential/world.rs"]
mod world;

fuzz_target!(|script: &[u8]| world::run(script));
