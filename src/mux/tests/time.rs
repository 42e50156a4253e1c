//! What passing time does, in a time that is made up.

use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use cepa_transports::Side;

use super::super::batch::Batch;
use super::super::code;
use super::super::config::{Config, StreamTimeouts};
use super::super::engine::Engine;
use super::super::error::{MuxError, StreamError, StreamTimeout};
use super::super::frame::{Flags, Frame, INITIAL_WINDOW};
use super::{CLIENT, One, Pair, SECOND, bytes_of};

#[test]
fn a_ping_measures_the_round_trip() {
    let mut pair = Pair::new(Config::default(), Duration::from_millis(40));
    let token = pair.ends[CLIENT].ping().unwrap();
    for _ in 0..100 {
        pair.step();
        pair.pass(Duration::from_millis(1));
    }
    let pongs = pair.ends[CLIENT].take_notices().pongs;
    assert_eq!(pongs, [(token, Duration::from_millis(80))]);
}

#[test]
fn ping_values_can_not_be_known_in_advance() {
    let values = |seed| {
        let now = Instant::now();
        let config = Config {
            pacing: false,
            ..Config::default()
        };
        let mut engine = Engine::new(Side::Client, config, seed, now);
        let mut batch = Batch::default();
        for _ in 0..4 {
            engine.ping().unwrap();
        }
        engine.poll_transmit(now, &mut batch);
        bytes_of(&mut batch)
    };
    assert_ne!(values(1), values(2));
    let bytes = values(1);
    let four: std::collections::HashSet<&[u8]> = bytes.chunks(12).collect();
    assert_eq!(four.len(), 4);
}

/// The process was stopped, or its machine: what was due meanwhile was never asked, and an answer may lie unread.
#[test]
fn an_end_that_did_not_run_itself_asks_once_more_before_it_gives_its_peer_up() {
    for asked_before in [false, true] {
        let mut one = One::server();
        one.syn(1);
        one.take();
        if asked_before {
            one.pass(15 * SECOND);
            assert!(matches!(one.take()[..], [Frame::Ping { .. }]));
        }
        one.now += 600 * SECOND;
        let now = one.now;
        one.engine.handle_timeout(now);
        assert!(one.engine.end().is_none(), "{asked_before}");
        let asked = one.take();
        let [Frame::Ping { value }] = asked[..] else {
            panic!("{asked:?}")
        };
        if asked_before {
            one.pass(14 * SECOND);
            one.give(Frame::Pong { value });
            one.pass(10 * SECOND);
            assert!(one.engine.end().is_none(), "it answered");
        } else {
            one.pass(15 * SECOND);
            let end = one.engine.end();
            assert!(
                matches!(end, Some(MuxError::KeepaliveTimeout { .. })),
                "{end:?}"
            );
        }
    }
}

#[test]
fn silence_is_asked_about_after_15_s_and_ends_the_session_after_30() {
    let mut one = One::server();
    let key = one.syn(1);
    one.take();
    assert_eq!(one.engine.poll_timeout(), Some(one.now + 15 * SECOND));
    one.pass(14 * SECOND);
    assert_eq!(one.take(), []);
    one.pass(SECOND);
    let asked = one.take();
    let [Frame::Ping { value }] = asked[..] else {
        panic!("{asked:?}")
    };
    one.pass(10 * SECOND);
    assert_eq!(one.take(), [], "asked once");
    one.give(Frame::Pong { value });
    one.pass(14 * SECOND);
    assert!(one.engine.end().is_none());
    one.pass(SECOND);
    assert!(matches!(one.take()[..], [Frame::Ping { .. }]));
    one.pass(15 * SECOND);
    assert!(matches!(
        one.engine.end(),
        Some(MuxError::KeepaliveTimeout { .. })
    ));
    assert!(matches!(
        one.read(key),
        Poll::Ready(Err(StreamError::Session(MuxError::KeepaliveTimeout { .. })))
    ));
    assert_eq!(one.take(), []);
}

/// Runs the clock in small steps, with bytes from the peer so that the session lives.
fn live(one: &mut One, seconds: u32) -> Vec<Frame> {
    let mut frames = Vec::new();
    for _ in 0..seconds * 4 {
        one.pass(SECOND / 4);
        one.give(Frame::Pong { value: 0 });
        frames.extend(one.take());
    }
    frames
}

/// Limits for streams that are held, which have none by default.
fn strict() -> Config {
    Config {
        stream_timeouts: StreamTimeouts {
            half_closed: Some(60 * SECOND),
            write_stalled: Some(30 * SECOND),
            ..StreamTimeouts::default()
        },
        ..Config::default()
    }
}

#[test]
fn a_stream_whose_opening_is_not_answered_is_given_up() {
    let mut one = One::new(Side::Client, Config::default());
    let key = one.engine.open(one.now).unwrap().unwrap();
    one.take();
    assert_eq!(live(&mut one, 29), []);
    assert_eq!(
        live(&mut one, 2),
        [Frame::Window {
            id: 1,
            flags: Flags::RST,
            value: code::TIMED_OUT
        }]
    );
    assert!(matches!(
        one.read(key),
        Poll::Ready(Err(StreamError::TimedOut(StreamTimeout::Open)))
    ));
    // Answered, or with the limit lifted, it stays.
    let answered = one.engine.open(one.now).unwrap().unwrap();
    let lifted = one.engine.open(one.now).unwrap().unwrap();
    one.engine.set_timeouts(lifted, StreamTimeouts::NONE);
    one.take();
    one.give(Frame::Window {
        id: answered.id,
        flags: Flags::ACK,
        value: 0,
    });
    assert_eq!(live(&mut one, 300), []);
}

#[test]
fn a_half_closed_stream_that_is_silent_is_given_up() {
    let mut one = One::new(Side::Server, strict());
    let key = one.syn(1);
    one.engine.shutdown(key).unwrap();
    one.take();
    live(&mut one, 50);
    one.give(Frame::Data {
        id: 1,
        flags: Flags::NONE,
        len: 1,
    });
    one.give_body(1);
    assert_eq!(
        live(&mut one, 90),
        [],
        "what waits to be read is not the peer's fault"
    );
    assert!(matches!(one.read(key), Poll::Ready(Ok(Some(_)))));
    assert_eq!(
        live(&mut one, 59),
        [],
        "the clock starts when the application has read it"
    );
    assert_eq!(
        live(&mut one, 2),
        [Frame::Window {
            id: 1,
            flags: Flags::RST,
            value: code::TIMED_OUT
        }]
    );
    assert!(matches!(
        one.read(key),
        Poll::Ready(Err(StreamError::TimedOut(StreamTimeout::HalfClosed)))
    ));
    // Nobody waits for this one any more, so its slot is freed in time, whatever the options say.
    let key = one.syn(3);
    one.engine.set_timeouts(key, StreamTimeouts::NONE);
    one.engine.shutdown(key).unwrap();
    one.engine.release(key);
    live(&mut one, 62);
    assert_eq!(
        one.engine.stats().streams,
        1,
        "only the first, which is held"
    );
}

#[test]
fn a_slow_reader_of_a_dropped_stream_still_gets_all_of_it() {
    let mut one = One::server();
    let key = one.syn(1);
    // The limit on stalled writes is the one that this case is for.
    one.engine.set_timeouts(key, StreamTimeouts::NONE);
    while one.write(key, 1 << 20) > 0 {
        one.take();
    }
    one.engine.shutdown(key).unwrap();
    one.give(Frame::Window {
        id: 1,
        flags: Flags::FIN,
        value: 0,
    });
    one.engine.release(key);
    let unsent = one.engine.stats().unsent;
    assert!(unsent > 0);
    let mut frames = Vec::new();
    for value in [1, 1, 1, 1 << 20] {
        // Slower than any limit would be, if somebody held it, and faster than the one where nobody does.
        frames.extend(live(&mut one, 55));
        one.give(Frame::Window {
            id: 1,
            flags: Flags::NONE,
            value,
        });
        frames.extend(one.take());
    }
    let sent: u32 = frames
        .iter()
        .map(|frame| match frame {
            Frame::Data { len, .. } => *len,
            _ => 0,
        })
        .sum();
    assert_eq!(sent as usize, unsent);
    let end = Frame::Window {
        id: 1,
        flags: Flags::FIN,
        value: 0,
    };
    assert_eq!(frames.last(), Some(&end));
}

#[test]
fn a_dropped_stream_sends_its_rest_before_it_resets_a_peer_that_goes_on() {
    let mut one = One::server();
    let key = one.syn(1);
    one.take();
    assert_eq!(one.write(key, 5), 5);
    one.engine.shutdown(key).unwrap();
    one.engine.release(key);
    one.give(Frame::Data {
        id: 1,
        flags: Flags::NONE,
        len: 1000,
    });
    one.give_body(1000);
    let frames = one.take();
    assert!(
        matches!(
            frames.as_slice(),
            [
                Frame::Data { len: 5, .. },
                Frame::Window {
                    flags: Flags::FIN,
                    ..
                },
                Frame::Window {
                    flags: Flags::RST,
                    ..
                },
            ]
        ),
        "{frames:?}"
    );
    assert_eq!(one.engine.stats().streams, 0);
}

#[test]
fn a_reset_behind_a_fin_is_for_the_writer_alone() {
    let mut one = One::server();
    let key = one.syn(1);
    one.take();
    one.give(Frame::Data {
        id: 1,
        flags: Flags::NONE,
        len: 5,
    });
    one.give_body(5);
    for flags in [Flags::FIN, Flags::RST] {
        one.give(Frame::Window {
            id: 1,
            flags,
            value: 0,
        });
    }
    assert!(matches!(one.read(key), Poll::Ready(Ok(Some(data))) if data.len() == 5));
    for _ in 0..2 {
        assert!(matches!(one.read(key), Poll::Ready(Ok(None))));
    }
    assert!(matches!(
        one.engine.write_space(key, Waker::noop()),
        Poll::Ready(Err(StreamError::ResetByPeer { code: 0 }))
    ));
}

#[test]
fn a_peer_that_waits_for_credit_learns_that_the_stream_was_dropped() {
    for fin_sent_before in [false, true] {
        let mut one = One::server();
        let key = one.syn(1);
        one.take();
        one.give(Frame::Data {
            id: 1,
            flags: Flags::NONE,
            len: INITIAL_WINDOW,
        });
        one.give_body(INITIAL_WINDOW as usize);
        assert_eq!(one.write(key, 5), 5);
        one.engine.shutdown(key).unwrap();
        let mut frames = Vec::new();
        if fin_sent_before {
            frames = one.take();
        }
        one.engine.release(key);
        frames.extend(one.take());
        frames.retain(|frame| !matches!(frame, Frame::Ping { .. }));
        assert!(
            matches!(
                frames.as_slice(),
                [
                    Frame::Data { len: 5, .. },
                    Frame::Window {
                        flags: Flags::FIN,
                        ..
                    },
                    Frame::Window {
                        flags: Flags::RST,
                        ..
                    },
                ]
            ),
            "{frames:?}"
        );
        assert_eq!(one.engine.stats().streams, 0);
    }
}

#[test]
fn a_write_without_credit_is_given_up() {
    let mut one = One::new(Side::Server, strict());
    let key = one.syn(1);
    let mut sent = 0;
    loop {
        let n = one.write(key, 1 << 20);
        if n == 0 {
            break;
        }
        sent += n;
        one.take();
    }
    assert!(sent > INITIAL_WINDOW as usize);
    live(&mut one, 29);
    one.give(Frame::Window {
        id: 1,
        flags: Flags::NONE,
        value: 1,
    });
    live(&mut one, 29);
    assert_eq!(one.engine.stats().streams, 1);
    let frames = live(&mut one, 2);
    assert_eq!(
        frames,
        [Frame::Window {
            id: 1,
            flags: Flags::RST,
            value: code::TIMED_OUT
        }]
    );
    assert!(matches!(
        one.engine.write_space(key, Waker::noop()),
        Poll::Ready(Err(StreamError::TimedOut(StreamTimeout::WriteStalled)))
    ));
    assert_eq!(one.engine.stats().unsent, 0);
}

#[test]
fn a_peer_can_not_keep_a_stream_that_nobody_holds_by_frames_without_effect() {
    let mut one = One::new(Side::Client, Config::default());
    let key = one.engine.open(one.now).unwrap().unwrap();
    one.engine.shutdown(key).unwrap();
    one.take();
    one.give(Frame::Window {
        id: 1,
        flags: Flags::ACK,
        value: 0,
    });
    one.engine.release(key);
    for round in 0.. {
        assert!(round < 3, "still there");
        live(&mut one, 50);
        if one.engine.stats().streams == 0 {
            break;
        }
        for (flags, len) in [(Flags::ACK, 0), (Flags::NONE, 0)] {
            one.give(Frame::Data { id: 1, flags, len });
        }
        one.give(Frame::Window {
            id: 1,
            flags: Flags::NONE,
            value: 1,
        });
    }
}

/// A reader that pauses and an answer that takes its time are no faults; windows bound what they cost.
#[test]
fn a_stream_that_is_held_has_no_limit_of_its_own_by_default() {
    let mut one = One::server();
    // The peer reads nothing for long.
    let unread = one.syn(1);
    while one.write(unread, 1 << 20) > 0 {
        one.take();
    }
    // It answers late.
    let unanswered = one.syn(3);
    one.engine.shutdown(unanswered).unwrap();
    // It has asked, and is answered late.
    let late = one.syn(5);
    one.give(Frame::Window {
        id: 5,
        flags: Flags::FIN,
        value: 0,
    });
    one.take();
    assert_eq!(live(&mut one, 1000), []);
    one.give(Frame::Window {
        id: 1,
        flags: Flags::NONE,
        value: 1 << 20,
    });
    one.give(Frame::Data {
        id: 3,
        flags: Flags::FIN,
        len: 2,
    });
    one.give_body(2);
    assert!(matches!(one.read(unanswered), Poll::Ready(Ok(Some(_)))));
    assert!(matches!(one.read(unanswered), Poll::Ready(Ok(None))));
    assert_eq!(one.write(late, 5), 5);
    one.engine.shutdown(late).unwrap();
    one.take();
    assert_eq!(one.engine.stats().unsent, 0);
}

/// Streams that nobody holds end in time, whatever limits there are, and whatever keeps them.
#[test]
fn a_stream_that_nobody_holds_ends_after_60_s_without_progress() {
    let long = Some(1000 * SECOND);
    let long = StreamTimeouts {
        open: long,
        half_closed: long,
        write_stalled: long,
    };
    for limits in [StreamTimeouts::default(), StreamTimeouts::NONE, long] {
        let config = Config {
            stream_timeouts: limits,
            ..Config::default()
        };
        let mut one = One::new(Side::Server, config);
        // The peer takes nothing; it takes all and never ends its direction; it does not even answer.
        let stalled = one.syn(1);
        while one.write(stalled, 1 << 20) > 0 {
            one.take();
        }
        let ended = one.syn(3);
        let unanswered = one.engine.open(one.now).unwrap().unwrap();
        one.engine.set_timeouts(
            unanswered,
            StreamTimeouts {
                open: None,
                ..limits
            },
        );
        one.take();
        // The clock does not start before they are dropped.
        live(&mut one, 500);
        for key in [stalled, ended, unanswered] {
            one.engine.shutdown(key).unwrap();
            one.engine.release(key);
        }
        one.take();
        assert_eq!(live(&mut one, 58), []);
        let mut reset: Vec<u32> = live(&mut one, 4)
            .iter()
            .map(|frame| match frame {
                Frame::Window {
                    id,
                    flags: Flags::RST,
                    value: code::TIMED_OUT,
                } => *id,
                other => panic!("{other:?}"),
            })
            .collect();
        reset.sort_unstable();
        assert_eq!(reset, [1, 2, 3]);
        assert_eq!(one.engine.stats().streams, 0);
        assert_eq!(one.engine.stats().unsent, 0);
    }
}
