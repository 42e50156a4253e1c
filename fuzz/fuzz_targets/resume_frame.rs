//! Bytes of a peer in place of the hello and the frames of a durable stream: what is read is what was there, and nothing grows.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    cepa::resume::fuzz::fuzz_frame(bytes);
    cepa::resume::fuzz::fuzz_hello(bytes);
});
