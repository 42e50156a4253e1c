//! Flow control: windows, credit, and what unread data costs.

use std::task::{Poll, Waker};
use std::time::Duration;

use super::super::config::Config;
use super::super::frame::{Flags, Frame, INITIAL_WINDOW};
use super::{CLIENT, One, Pair, SERVER, pair};

#[test]
fn a_writer_stops_at_the_window_and_goes_on_when_the_peer_reads() {
    let mut pair = pair();
    let (here, there) = pair.open();
    let mut sent = 0;
    while let Poll::Ready(Ok(space)) = pair.ends[CLIENT].write_space(here, Waker::noop()) {
        pair.ends[CLIENT].write(here, vec![1; space].into());
        sent += space;
        pair.settle();
    }
    let limit = Config::default().send_queue;
    assert_eq!(sent, INITIAL_WINDOW as usize + limit);
    assert_eq!(pair.ends[SERVER].stats().data_in, u64::from(INITIAL_WINDOW));
    let (got, _) = pair.read_all(SERVER, there);
    assert_eq!(got.len(), INITIAL_WINDOW as usize);
    pair.settle();
    let (got, _) = pair.read_all(SERVER, there);
    assert_eq!(got.len(), limit);
}

#[test]
fn windows_grow_on_a_far_path_inside_the_budget() {
    let mut pair = Pair::new(Config::default(), Duration::from_millis(25));
    let here = pair.ends[CLIENT].open(pair.now).unwrap().unwrap();
    let mut there = None;
    for _ in 0..1500 {
        while let Poll::Ready(Ok(space)) = pair.ends[CLIENT].write_space(here, Waker::noop()) {
            pair.ends[CLIENT].write(here, vec![1; space].into());
            pair.step();
        }
        pair.pass(Duration::from_millis(1));
        pair.step();
        there = there.or_else(|| pair.ends[SERVER].accept());
        if let Some(there) = there {
            pair.read_all(SERVER, there);
        }
    }
    let stats = pair.ends[SERVER].stats();
    assert_eq!(stats.windows, 16 << 20, "{stats:?}");
    let round_trip = stats.round_trip.unwrap().as_millis();
    assert!((50..=52).contains(&round_trip), "{stats:?}");
    assert!(stats.data_in > 100 << 20, "{stats:?}");
}

#[test]
fn unread_one_byte_frames_cost_about_their_size() {
    let mut one = One::server();
    for id in [1, 3, 5, 7] {
        one.syn(id);
        let mut wire = Vec::new();
        for _ in 0..INITIAL_WINDOW {
            wire.extend_from_slice(
                &Frame::Data {
                    id,
                    flags: Flags::NONE,
                    len: 1,
                }
                .emit(),
            );
            wire.push(1);
            if wire.len() >= 32 << 10 {
                one.engine
                    .handle_input(one.now, std::mem::take(&mut wire).into());
            }
        }
        one.engine.handle_input(one.now, wire.into());
    }
    assert!(one.engine.end().is_none());
    let stats = one.engine.stats();
    assert_eq!(stats.data_in, 4 * u64::from(INITIAL_WINDOW));
    assert!(stats.unread < (1 << 20) + (64 << 10), "{stats:?}");
}
