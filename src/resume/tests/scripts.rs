//! The fuzz targets with random input.

use proptest::prelude::*;

use crate::resume::fuzz::{fuzz_engine, fuzz_frame, fuzz_hello};

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..most)
}

/// Frames and hellos begin with small numbers.
fn small(most: usize) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![3 => 0..8_u8, 1 => any::<u8>()];
    prop::collection::vec(byte, 0..most)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 400 } else { 4000 }))]

    #[test]
    fn whatever_comes_is_frames_or_refused(data in prop_oneof![bytes(200), small(200)]) {
        fuzz_frame(&data);
        fuzz_hello(&data);
    }

    /// A peer that says anything.
    #[test]
    fn a_hostile_peer_ends_its_session_at_most(mut script in bytes(600)) {
        script.insert(0, 0);
        fuzz_engine(&script);
    }

    /// Two engines, and a network that loses paths, crosses dials and delays hellos: each byte arrives once and in order.
    #[test]
    fn every_byte_arrives_once_and_in_order(mut script in bytes(1200)) {
        script.insert(0, 1);
        fuzz_engine(&script);
    }
}

/// Found by the fuzz target: a peer that says it keeps the session for no time leaves, with the path lost to the same timer.
#[test]
fn a_path_lost_to_a_peer_that_keeps_nothing_ends_the_session() {
    fuzz_engine(b"\x7eG\x00.\x01\xff\xff\xff\xff\xff\xff\xff\x2b\x2b");
}
