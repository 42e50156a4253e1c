//! Hellos in both roles, certificates, raw keys and server names, from somebody who has proven nothing
//! (`cepa::tls::fuzz_handshake` says what has to hold).
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| cepa::tls::fuzz_handshake::fuzz_handshake(bytes));
