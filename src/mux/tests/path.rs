//! A session whose byte stream goes on over another path.

use super::*;
use crate::mux::Config;

/// Bulk on a path with a delay; what was learned of it is forgotten on the next one, and a ping that waited in between
/// measures nothing and ends nothing.
#[test]
fn a_new_path_is_measured_anew_and_a_ping_that_waited_for_it_is_no_round_trip() {
    let config = Config::default().with_keepalive_interval(None);
    let mut pair = Pair::new(config, Duration::ZERO);
    let (a, b) = pair.open();
    pair.delay = Duration::from_millis(40);
    for _ in 0..100 {
        if let Poll::Ready(Ok(space)) = pair.ends[CLIENT].write_space(a, Waker::noop()) {
            pair.ends[CLIENT].write(a, vec![7; space.min(16 << 10)].into());
        }
        pair.settle();
        let _ = pair.read_all(SERVER, b);
        pair.pass(Duration::from_millis(10));
    }
    assert!(pair.ends[CLIENT].stats().least_round_trip.is_some());
    pair.settle();
    let token = pair.ends[CLIENT].ping().unwrap();
    let mut batch = Batch::default();
    pair.ends[CLIENT].poll_transmit(pair.now, &mut batch);
    let sent = bytes_of(&mut batch);
    pair.ends[CLIENT].path_lost(pair.now);
    for _ in 0..600 {
        pair.pass(SECOND);
    }
    pair.ends[CLIENT].path_changed(pair.now, None);
    let stats = pair.ends[CLIENT].stats();
    assert_eq!((stats.round_trip, stats.least_round_trip), (None, None));
    assert_eq!(stats.in_flight, 0);
    pair.ends[SERVER].handle_input(pair.now, sent.into());
    let mut answered = Vec::new();
    for _ in 0..20 {
        pair.pass(Duration::from_millis(10));
        pair.settle();
        answered.extend(pair.ends[CLIENT].take_notices().pongs);
    }
    assert!(answered.iter().any(|(it, _)| *it == token), "no answer");
    let round_trip = pair.ends[CLIENT].stats().round_trip;
    assert!(round_trip.is_none_or(|it| it < SECOND), "{round_trip:?}");
    assert!(pair.ends[CLIENT].end().is_none());
}

/// What was written, ended and let go of has only to be sent; without a path it can't be.
#[test]
fn a_stream_that_nobody_holds_outlives_the_time_without_a_path() {
    let mut one = One::server();
    let key = one.syn(1);
    assert!(one.write(key, 1000) > 0);
    one.engine.shutdown(key).unwrap();
    one.engine.release(key);
    one.pass(Duration::from_secs(1));
    one.engine.path_lost(one.now);
    for _ in 0..20 {
        one.pass(Duration::from_secs(30));
    }
    one.engine.path_changed(one.now, None);
    one.pass(Duration::from_secs(1));
    let frames = one.take();
    let is_data = |frame: &Frame| matches!(frame, Frame::Data { .. });
    assert!(frames.iter().any(is_data), "it was given up: {frames:?}");
}
