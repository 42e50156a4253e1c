//! Any cut of the wire, and any order of frames.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::super::batch::Batch;
use super::super::config::Config;
use super::super::store::Key;
use super::{CLIENT, Pair, SERVER, bytes_of};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_cut_of_the_wire_gives_the_same_streams(
        streams in prop::collection::vec((0..60_000usize, any::<bool>()), 1..6),
        cuts in prop::collection::vec(prop_oneof![Just(1usize), 2..30usize, 1000..40_000usize], 1..30),
    ) {
        // The whole wire is taped before any of it arrives, so there is nothing to pace by.
        let config = Config { pacing: false, ..Config::default() };
        let mut pair = Pair::new(config, Duration::ZERO);
        let mut batch = Batch::default();
        let keys: Vec<Key> =
            streams.iter().map(|_| pair.ends[CLIENT].open(pair.now).unwrap().unwrap()).collect();
        for (key, (len, shut)) in keys.iter().zip(&streams) {
            let data: Vec<u8> = (0..*len).map(|i| (i as u32 * key.id) as u8).collect();
            pair.ends[CLIENT].write_copy(*key, &data);
            if *shut { pair.ends[CLIENT].shutdown(*key).unwrap() }
        }
        let mut wire = Vec::new();
        loop {
            pair.ends[CLIENT].poll_transmit(pair.now, &mut batch);
            let bytes = bytes_of(&mut batch);
            if bytes.is_empty() { break }
            wire.extend(bytes);
        }
        let mut cut = cuts.iter().cycle();
        let mut wire = Bytes::from(wire);
        while !wire.is_empty() {
            let n = (*cut.next().unwrap()).min(wire.len());
            let piece = Bytes::copy_from_slice(&wire.split_to(n));
            pair.ends[SERVER].handle_input(pair.now, piece);
        }
        prop_assert!(pair.ends[SERVER].end().is_none());
        for (len, shut) in streams {
            let key = pair.ends[SERVER].accept().unwrap();
            let (got, ended) = pair.read_all(SERVER, key);
            prop_assert_eq!(got.len(), len);
            prop_assert_eq!(ended, shut);
            prop_assert!(got.iter().enumerate().all(|(i, b)| *b == (i as u32 * key.id) as u8));
        }
    }

    #[test]
    fn no_frame_sequence_breaks_the_engine(script in prop::collection::vec(any::<u8>(), 0..2000)) {
        super::super::fuzz::fuzz_frame(&script);
        super::super::fuzz::fuzz_engine(&script);
    }
}

/// The same with longer scripts; `CEPA_ROUNDS=20000` asks for more of them than there is time for.
#[test]
fn no_frame_sequence_breaks_the_engine_long() {
    let mut x = 0x1234_5678_9abc_def1u64;
    let rounds = std::env::var("CEPA_ROUNDS")
        .ok()
        .and_then(|n| n.parse().ok());
    for round in 0..rounds.unwrap_or(200) {
        let script: Vec<u8> = (0..200 + round % 3000)
            .map(|_| {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                x.to_le_bytes()[3]
            })
            .collect();
        super::super::fuzz::fuzz_engine(&script);
    }
}
