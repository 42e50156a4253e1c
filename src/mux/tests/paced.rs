//! What pacing holds back is asked for again when it may go, and not before.

use std::time::Duration;

use cepa_transports::{Rate, Side};

use super::super::code::GoAwayCode;
use super::super::config::{Config, StreamTimeouts};
use super::super::engine::Engine;
use super::super::error::MuxError;
use super::{CLIENT, Flags, Frame, One, Pair, SECOND, SERVER};

fn quiet() -> Config {
    Config {
        keepalive_interval: None,
        stream_timeouts: StreamTimeouts::NONE,
        ..Config::default()
    }
}

/// Lets time go on to where something happens, until nothing does any more; how long it took until the last of it arrived.
fn until_nothing_happens(pair: &mut Pair) -> Duration {
    let begun = pair.now;
    let mut arrived = begun;
    loop {
        while pair.step() {
            arrived = pair.now;
        }
        let arrivals = pair.wires.iter().filter_map(|wire| wire.front());
        let deadlines = pair.ends.iter().filter_map(Engine::poll_timeout);
        let next = arrivals.map(|(at, _)| *at).chain(deadlines).min();
        let Some(next) = next else {
            return arrived - begun;
        };
        assert!(next > pair.now, "a deadline that has passed");
        assert!(next < begun + 60 * SECOND, "for ever");
        pair.pass(next - pair.now);
    }
}

/// Each one is small, together they are more than may go at once. Nothing is known of the path yet, and
/// nothing else is sent that a ping could ride on.
#[test]
fn a_burst_of_small_messages_waits_for_the_path_and_not_for_ever() {
    for delay in [1, 10, 300] {
        let delay = Duration::from_millis(delay);
        let mut pair = Pair::new(quiet(), delay);
        let streams: Vec<_> = (0..100)
            .map(|_| pair.ends[CLIENT].open(pair.now).unwrap().unwrap())
            .collect();
        until_nothing_happens(&mut pair);
        while pair.ends[SERVER].accept().is_some() {}
        until_nothing_happens(&mut pair);
        for key in &streams {
            pair.ends[CLIENT].write(*key, vec![1; 700].into());
        }
        // Here it is also seen that an engine that holds something back does not ask to be polled at once.
        pair.settle();
        let sent = pair.ends[CLIENT].stats().data_out;
        assert!(sent < 50_000, "{sent}: it waits");
        let took = until_nothing_happens(&mut pair);
        assert_eq!(pair.ends[SERVER].stats().data_in, 70_000);
        assert!(took <= 12 * delay + Duration::from_millis(500), "{took:?}");
    }
}

/// Streams that were reset while they were held back are no reason to go on.
#[test]
fn a_session_ends_though_something_was_held_back() {
    for close in [true, false] {
        let mut pair = Pair::new(quiet(), Duration::from_millis(10));
        let bulk = pair.ends[CLIENT].open(pair.now).unwrap().unwrap();
        until_nothing_happens(&mut pair);
        pair.ends[CLIENT].write(bulk, vec![1; 100_000].into());
        pair.settle();
        assert!(pair.ends[CLIENT].stats().unsent > 0, "held back");
        pair.ends[CLIENT].release(bulk);
        if close {
            pair.ends[CLIENT].close(GoAwayCode::Normal);
        } else {
            pair.ends[CLIENT].go_away(GoAwayCode::Normal);
        }
        pair.settle();
        assert!(pair.ends[CLIENT].end().is_some_and(MuxError::is_clean));
        assert!(pair.ends[CLIENT].go_away_sent());
    }
}

/// On a line, records are long as long as bulk is all there is, and short beside small messages: on a slow one as short as headers
/// let them be, and for longer.
#[test]
fn records_on_a_line_are_short_while_small_messages_come() {
    for (rate, short, long, seconds) in [
        (11_520.0, 900, 3456, 1),
        (960.0, 451, 900, 6),
        (480.0, 450, 900, 12),
    ] {
        let config = Config {
            line_rate: Some(Rate::bytes_per_second(rate)),
            ..Config::default()
        };
        let mut one = One::new(Side::Server, config);
        let (bulk, small) = (one.syn(1), one.syn(3));
        for id in [1, 3] {
            one.give(Frame::Window {
                id,
                flags: Flags::NONE,
                value: 1 << 24,
            });
        }
        // What is next of the long one.
        let next = |one: &mut One| loop {
            let frame = one.take_once().into_iter().find_map(|frame| match frame {
                Frame::Data { id: 1, len, .. } => Some(len),
                _ => None,
            });
            if let Some(len) = frame {
                break len + 12;
            }
        };
        assert_eq!(one.write(bulk, 100_000), 100_000);
        for begins in ["a session begins with messages", "another may come"] {
            for second in 0..seconds {
                assert_eq!(next(&mut one), short, "{rate}, {second} s: {begins}");
                one.pass(SECOND);
            }
            assert_eq!(next(&mut one), long, "{rate}");
            one.write(small, 64);
        }
    }
}
