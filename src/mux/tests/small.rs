//! Two ends that have agreed on a small first window: what it costs when nobody reads, and that nobody who reads is slowed down.

use std::task::{Poll, Waker};
use std::time::Duration;

use cepa_transports::Side;

use super::super::config::Config;
use super::super::error::Violation;
use super::super::frame::{Flags, Frame, INITIAL_WINDOW, SMALL_WINDOW};
use super::super::store::Key;
use super::{CLIENT, One, Pair, SERVER};

fn small() -> Config {
    Config {
        first_window: SMALL_WINDOW,
        ..Config::default()
    }
}

/// Writes all that is taken while nobody reads, and says how much that is.
fn fill(pair: &mut Pair, from: usize, key: Key) -> usize {
    let mut sent = 0;
    while let Poll::Ready(Ok(space)) = pair.ends[from].write_space(key, Waker::noop()) {
        pair.ends[from].write(key, vec![1; space].into());
        sent += space;
        pair.settle();
    }
    sent
}

#[test]
fn a_stream_that_nobody_reads_costs_a_small_window_and_as_much_in_the_queue() {
    let mut pair = Pair::new(small(), Duration::ZERO);
    let (here, there) = pair.open();
    for (from, to, key) in [(CLIENT, SERVER, here), (SERVER, CLIENT, there)] {
        assert_eq!(fill(&mut pair, from, key), 2 * SMALL_WINDOW as usize);
        let stats = pair.ends[to].stats();
        assert_eq!(stats.data_in, u64::from(SMALL_WINDOW));
        assert!(stats.unread <= 2 * SMALL_WINDOW as usize, "{stats:?}");
        assert_eq!(stats.windows, u64::from(SMALL_WINDOW));
    }
}

#[test]
fn nothing_of_it_is_on_the_wire_and_a_byte_more_is_an_offence() {
    let mut one = One::new(Side::Server, small());
    one.syn(1);
    assert_eq!(
        one.take(),
        [Frame::Window {
            id: 1,
            flags: Flags::ACK,
            value: 0
        }]
    );
    one.give(Frame::Data {
        id: 1,
        flags: Flags::NONE,
        len: SMALL_WINDOW,
    });
    one.give_body(SMALL_WINDOW as usize);
    assert!(one.engine.end().is_none());
    one.give(Frame::Data {
        id: 1,
        flags: Flags::NONE,
        len: 1,
    });
    assert_eq!(one.violation(), Some(Violation::WindowExceeded(1)));
    let mut one = One::new(Side::Server, small());
    one.give(Frame::Data {
        id: 1,
        flags: Flags::SYN,
        len: SMALL_WINDOW + 1,
    });
    assert_eq!(one.violation(), Some(Violation::WindowExceeded(1)));
}

#[test]
fn what_this_end_sends_before_any_credit_is_no_more_than_the_small_window() {
    let mut one = One::new(Side::Client, small());
    let key = one.engine.open(one.now).unwrap().unwrap();
    one.take();
    one.give(Frame::Window {
        id: 1,
        flags: Flags::ACK,
        value: 0,
    });
    while one.write(key, 1 << 20) > 0 {
        one.take();
    }
    assert_eq!(one.engine.stats().data_out, u64::from(SMALL_WINDOW));
    assert!(!one.engine.is_taken(key));
    one.give(Frame::Window {
        id: 1,
        flags: Flags::NONE,
        value: 1,
    });
    assert!(one.engine.is_taken(key), "somebody reads there");
}

/// A larger one is announced as ever.
#[test]
fn what_is_above_it_is_announced() {
    let config = Config {
        receive_window: INITIAL_WINDOW,
        ..small()
    };
    let mut one = One::new(Side::Server, config);
    one.syn(1);
    assert_eq!(
        one.take(),
        [Frame::Window {
            id: 1,
            flags: Flags::ACK,
            value: INITIAL_WINDOW - SMALL_WINDOW
        }]
    );
}

/// Moves `n` bytes to the server, which reads what comes.
fn carry(pair: &mut Pair, here: Key, there: Key, n: usize) {
    let (mut sent, mut got) = (0, 0);
    while got < n {
        if let Poll::Ready(Ok(space)) = pair.ends[CLIENT].write_space(here, Waker::noop()) {
            let part = space.min(n - sent).min(10_000);
            pair.ends[CLIENT].write(here, vec![1; part].into());
            sent += part;
        }
        if !pair.step() {
            pair.pass(Duration::from_millis(1));
        }
        got += pair.read_all(SERVER, there).0.len();
    }
    pair.settle();
}

#[test]
fn a_stream_that_has_carried_as_much_has_the_window_and_the_queue_of_yamux() {
    let mut pair = Pair::new(small(), Duration::ZERO);
    let (here, there) = pair.open();
    carry(&mut pair, here, there, INITIAL_WINDOW as usize - 1);
    assert_eq!(pair.ends[SERVER].stats().windows, u64::from(SMALL_WINDOW));
    carry(&mut pair, here, there, INITIAL_WINDOW as usize);
    let windows = pair.ends[SERVER].stats().windows;
    assert!(windows >= u64::from(INITIAL_WINDOW), "{windows}");
    let filled = fill(&mut pair, CLIENT, here);
    let least = INITIAL_WINDOW as usize / 2 + Config::default().send_queue;
    assert!(filled >= least, "{filled}");
}

/// The first flight of a sender is 4 KiB, and its second one a usual window, which must be there then.
#[test]
fn far_away_the_first_flight_is_enough_for_the_usual_window() {
    for (delay, grown) in [(Duration::from_millis(25), true), (Duration::ZERO, false)] {
        let mut pair = Pair::new(small(), delay);
        let opened = |pair: &mut Pair| {
            let here = pair.ends[CLIENT].open(pair.now).unwrap().unwrap();
            while pair.ends[SERVER].stats().waiting == 0 {
                pair.settle();
                pair.pass(Duration::from_millis(1));
            }
            (here, pair.ends[SERVER].accept().unwrap())
        };
        // So that the round trip is known.
        let (here, there) = opened(&mut pair);
        carry(&mut pair, here, there, 20_000);
        let before = pair.ends[SERVER].stats().windows;
        let (here, there) = opened(&mut pair);
        carry(&mut pair, here, there, 4000);
        let more = pair.ends[SERVER].stats().windows - before;
        let wanted = if grown { INITIAL_WINDOW } else { SMALL_WINDOW };
        assert_eq!(more, u64::from(wanted));
    }
}

/// Far away a window grows ahead of what starts, unless it is held.
#[test]
fn a_window_that_is_held_stays_small_on_a_far_path() {
    for (held, grown) in [(false, true), (true, false)] {
        let mut pair = Pair::new(small(), Duration::from_millis(25));
        let here = pair.ends[CLIENT].open(pair.now).unwrap().unwrap();
        pair.pass(Duration::from_millis(1));
        while pair.ends[SERVER].stats().waiting == 0 {
            pair.settle();
            pair.pass(Duration::from_millis(1));
        }
        let there = pair.ends[SERVER].accept().unwrap();
        pair.ends[SERVER].hold_window(there, held);
        // So that the round trip is known.
        carry(&mut pair, here, there, 20_000);
        carry(&mut pair, here, there, 100_000);
        let windows = pair.ends[SERVER].stats().windows;
        assert_eq!(windows > u64::from(SMALL_WINDOW), grown, "{windows}");
        // And goes on as ever when it is not.
        pair.ends[SERVER].hold_window(there, false);
        carry(&mut pair, here, there, 4 << 20);
        let windows = pair.ends[SERVER].stats().windows;
        assert!(windows > u64::from(INITIAL_WINDOW), "{windows}");
    }
}
