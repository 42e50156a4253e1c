//! How sessions end, and what everybody is told.

use std::io;
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use cepa_transports::Side;

use super::super::code::{CLOSED, GoAwayCode, LimitKind, Refusal};
use super::super::config::Config;
use super::super::engine::Engine;
use super::super::error::{MuxError, OpenError, StreamError};
use super::super::frame::{Flags, Frame};
use super::super::store::Key;
use super::{CLIENT, One, Pair, SECOND, SERVER, pair};

#[test]
fn every_abnormal_end_is_distinguished_and_none_reads_as_an_end_of_stream() {
    type End = fn(&mut One, Key);
    let ends: [(&str, End); 8] = [
        ("the peer reset the stream (code 7)", |one, key| {
            one.give(Frame::Window {
                id: key.id,
                flags: Flags::RST,
                value: 7,
            });
        }),
        (
            "the peer ended the session (go-away code 1, protocol error)",
            |one, _| {
                one.give(Frame::GoAway { code: 1 });
            },
        ),
        (
            "the peer ended the session (go-away code 2, internal error)",
            |one, _| {
                one.give(Frame::GoAway { code: 2 });
            },
        ),
        ("the connection failed: connection reset", |one, _| {
            one.engine
                .handle_io_error(io::ErrorKind::ConnectionReset.into());
        }),
        (
            "the connection ended without a go-away, so it was cut",
            |one, _| {
                one.engine.handle_eof();
            },
        ),
        ("the peer has been silent for 30 s", |one, _| {
            // Second by second: an end that did not run itself would ask once more.
            for _ in 0..31 {
                one.pass(SECOND);
            }
        }),
        ("the session was closed at this end", |one, _| {
            one.engine.close(GoAwayCode::Normal);
        }),
        ("the task that drives the session is gone", |one, _| {
            one.engine.handle_driver_gone();
        }),
    ];
    for (text, end) in ends {
        let mut one = One::server();
        let key = one.syn(1);
        one.give(Frame::Data {
            id: 1,
            flags: Flags::NONE,
            len: 3,
        });
        one.give_body(3);
        let finished = one.syn(3);
        one.give(Frame::Data {
            id: 3,
            flags: Flags::FIN,
            len: 3,
        });
        one.give_body(3);
        one.take();
        end(&mut one, key);
        one.take();
        let local = text.contains("closed at this end");
        if !local {
            assert!(
                matches!(one.read(key), Poll::Ready(Ok(Some(_)))),
                "{text}: what came before"
            );
        }
        for _ in 0..2 {
            match one.read(key) {
                Poll::Ready(Err(error)) => assert_eq!(error.to_string(), text),
                other => panic!("{text}: {other:?}"),
            }
        }
        if !local {
            assert!(matches!(one.read(finished), Poll::Ready(Ok(Some(_)))));
            assert!(
                matches!(one.read(finished), Poll::Ready(Ok(None))),
                "{text}: a real end"
            );
        }
    }
}

#[test]
fn a_session_that_ends_in_the_middle_of_a_frame_was_cut_even_after_a_go_away() {
    let mut one = One::server();
    one.give(Frame::GoAway { code: 0 });
    assert!(one.engine.end().is_none());
    one.engine
        .handle_input(one.now, Bytes::from_static(&[0, 0, 0]));
    one.engine.handle_eof();
    assert!(matches!(one.engine.end(), Some(MuxError::Eof)));
}

#[test]
fn after_a_go_away_streams_live_on_and_new_ones_fail() {
    let mut pair = pair();
    let (here, there) = pair.open();
    pair.ends[SERVER].go_away(GoAwayCode::Normal);
    pair.settle();
    assert!(matches!(
        pair.ends[CLIENT].open(pair.now),
        Err(OpenError::PeerGoneAway {
            code: GoAwayCode::Normal
        })
    ));
    assert!(matches!(
        pair.ends[SERVER].open(pair.now),
        Err(OpenError::Closing)
    ));
    pair.ends[CLIENT].write(here, Bytes::from_static(b"still"));
    pair.ends[CLIENT].shutdown(here).unwrap();
    pair.settle();
    assert_eq!(pair.read_all(SERVER, there), (b"still".to_vec(), true));
    assert!(pair.ends[SERVER].end().is_none());
    pair.ends[SERVER].shutdown(there).unwrap();
    pair.settle();
    assert!(
        matches!(pair.ends[SERVER].end(), Some(MuxError::Closed)),
        "the last stream is over"
    );
    pair.ends[CLIENT].handle_eof();
    assert!(pair.ends[CLIENT].end().unwrap().is_clean());
}

#[test]
fn an_unknown_go_away_code_is_kept() {
    let mut one = One::server();
    one.give(Frame::GoAway { code: 77 });
    assert!(matches!(
        one.engine.end(),
        Some(MuxError::GoAway {
            code: GoAwayCode::Other(77)
        })
    ));
    assert_eq!(one.take(), []);
}

#[test]
fn closing_sends_what_was_shut_down_resets_the_rest_and_says_goodbye() {
    let mut one = One::server();
    let done = one.syn(1);
    let open = one.syn(3);
    one.take();
    one.write(done, 1000);
    one.engine.shutdown(done).unwrap();
    one.write(open, 1000);
    one.engine.close(GoAwayCode::Normal);
    let frames = one.take();
    assert!(
        frames.contains(&Frame::Data {
            id: 1,
            flags: Flags::NONE,
            len: 1000
        }),
        "{frames:?}"
    );
    assert!(frames.contains(&Frame::Window {
        id: 1,
        flags: Flags::FIN,
        value: 0
    }));
    assert!(frames.contains(&Frame::Window {
        id: 3,
        flags: Flags::RST,
        value: CLOSED
    }));
    assert_eq!(frames.last(), Some(&Frame::GoAway { code: 0 }));
    assert!(matches!(one.engine.end(), Some(MuxError::Closed)));
    assert_eq!(one.engine.poll_timeout(), None);

    // What the peer does not take is waited for, and not for long.
    let mut one = One::server();
    let done = one.syn(1);
    while one.write(done, 1 << 20) > 0 {
        one.take();
    }
    one.engine.shutdown(done).unwrap();
    one.engine.close(GoAwayCode::Normal);
    assert_eq!(one.take(), []);
    assert_eq!(one.engine.closed_by(), Some(one.now + 2 * SECOND));
    let drained_by = one.now + SECOND * 3 / 2;
    assert_eq!(one.engine.poll_timeout(), Some(drained_by));
    one.pass(SECOND);
    one.engine.close(GoAwayCode::Normal);
    one.pass(SECOND / 2);
    assert_eq!(one.take(), [Frame::GoAway { code: 0 }]);
}

/// Who has read all that a peer sent before it closed the session may end its own direction, which nobody waits for.
#[test]
fn to_end_a_direction_that_a_closed_peer_has_ended_is_no_error() {
    for (code, unsent, ok) in [(0, 0, true), (0, 10, false), (1, 0, false)] {
        let mut one = One::server();
        let key = one.syn(1);
        one.take();
        one.give(Frame::Data {
            id: 1,
            flags: Flags::FIN,
            len: 5,
        });
        one.give_body(5);
        one.write(key, unsent);
        one.give(Frame::GoAway { code });
        one.engine.handle_eof();
        assert!(matches!(one.read(key), Poll::Ready(Ok(Some(_)))));
        assert!(matches!(one.read(key), Poll::Ready(Ok(None))));
        for _ in 0..2 {
            assert_eq!(one.engine.shutdown(key).is_ok(), ok, "{code} {unsent}");
        }
        assert!(matches!(
            one.engine.write_space(key, Waker::noop()),
            Poll::Ready(Err(StreamError::Session(MuxError::GoAway { .. })))
        ));
    }
}

#[test]
fn a_session_without_handles_lives_as_long_as_its_streams() {
    let mut one = One::server();
    let key = one.syn(1);
    one.give(Frame::Window {
        id: 3,
        flags: Flags::SYN,
        value: 0,
    });
    one.take();
    one.engine.abandon();
    assert_eq!(
        one.take(),
        [Frame::Window {
            id: 3,
            flags: Flags::RST,
            value: Refusal::GoingAway.code()
        }]
    );
    one.give(Frame::Window {
        id: 5,
        flags: Flags::SYN,
        value: 0,
    });
    assert_eq!(
        one.take(),
        [Frame::Window {
            id: 5,
            flags: Flags::RST,
            value: Refusal::GoingAway.code()
        }]
    );
    assert_eq!(one.write(key, 10), 10);
    one.engine.shutdown(key).unwrap();
    one.engine.release(key);
    one.give(Frame::Window {
        id: 1,
        flags: Flags::FIN,
        value: 0,
    });
    assert_eq!(one.take().last(), Some(&Frame::GoAway { code: 0 }));
    assert!(matches!(one.engine.end(), Some(MuxError::Closed)));
    assert_eq!(one.engine.stats().streams, 0);
}

#[test]
fn what_came_whole_before_the_end_can_still_be_accepted() {
    let mut one = One::server();
    one.give(Frame::Data {
        id: 1,
        flags: Flags::SYN,
        len: 4,
    });
    one.give_body(4);
    one.give(Frame::Window {
        id: 1,
        flags: Flags::FIN,
        value: 0,
    });
    one.give(Frame::GoAway { code: 0 });
    one.engine.handle_eof();
    let key = one.engine.accept().expect("it came before the end");
    assert!(matches!(one.read(key), Poll::Ready(Ok(Some(piece))) if piece.len() == 4));
    assert!(matches!(one.read(key), Poll::Ready(Ok(None))));
    one.engine.release(key);
    assert_eq!(one.engine.stats().streams, 0);
}

/// What each end reads of a stream of the client that the server refuses in some way, before or after it was accepted.
#[test]
fn a_refusal_says_why_and_that_nothing_was_used() {
    type Refuse = fn(&mut Pair);
    let full = Config {
        max_inbound_streams: 0,
        accept_backlog: 0,
        ..Config::default()
    };
    let crowded = Config {
        accept_backlog: 0,
        ..Config::default()
    };
    let cases: [(Config, Refuse, Refusal, &str); 5] = [
        (
            Config::default(),
            |pair| pair.ends[SERVER].go_away(GoAwayCode::Normal),
            Refusal::GoingAway,
            "the peer refused the stream: it takes no more streams in this session; open it in a new one",
        ),
        (
            Config::default(),
            |pair| {
                // It came before the go-away, and nobody had accepted it.
                pair.settle();
                pair.ends[SERVER].go_away(GoAwayCode::Normal);
            },
            Refusal::GoingAway,
            "the peer refused the stream: it takes no more streams in this session; open it in a new one",
        ),
        (
            Config::default(),
            |pair| {
                pair.settle();
                let key = pair.ends[SERVER].accept().unwrap();
                // Answered, but not with data.
                pair.settle();
                pair.ends[SERVER].refuse(key, Refusal::Application);
            },
            Refusal::Application,
            "the peer refused the stream: its application does not want it",
        ),
        (
            full,
            |_| {},
            Refusal::Streams,
            "the peer refused the stream: too many streams are open; end some, or try again later",
        ),
        (
            crowded,
            |_| {},
            Refusal::Backlog,
            "the peer refused the stream: too many streams wait to be accepted; try again later",
        ),
    ];
    for (config, refuse, reason, text) in cases {
        let mut pair = Pair::new(Config::default(), Duration::ZERO);
        pair.ends[SERVER] = Engine::new(Side::Server, config, 2, pair.now);
        let key = pair.ends[CLIENT].open(pair.now).unwrap().unwrap();
        pair.ends[CLIENT].write(key, Bytes::from_static(b"once only"));
        refuse(&mut pair);
        pair.settle();
        let failure = match pair.ends[CLIENT].read(key, Waker::noop()) {
            Poll::Ready(Err(failure)) => failure,
            other => panic!("{reason:?}: {other:?}"),
        };
        assert!(
            matches!(failure, StreamError::RefusedByPeer { reason: found } if found == reason),
            "{failure}"
        );
        assert_eq!(failure.to_string(), text);
        assert!(failure.is_safe_to_retry());
    }
}

#[test]
fn a_stream_that_was_used_is_reset_and_not_refused_whatever_the_code() {
    let refused = |config: Config, code: u32, before: &[Frame]| {
        let mut one = One::new(Side::Client, config);
        let key = one.engine.open(one.now).unwrap().unwrap();
        one.take();
        for frame in before {
            one.give(*frame);
            if let Frame::Data { len, .. } = frame {
                one.give_body(*len as usize);
                let _ = one.read(key);
            }
        }
        one.give(Frame::Window {
            id: 1,
            flags: Flags::RST,
            value: code,
        });
        match one.engine.write_space(key, Waker::noop()) {
            Poll::Ready(Err(failure)) => failure.is_safe_to_retry(),
            other => panic!("{other:?}"),
        }
    };
    let refused = |code, before: &[Frame]| refused(Config::default(), code, before);
    let ack = Frame::Window {
        id: 1,
        flags: Flags::ACK,
        value: 0,
    };
    let data = Frame::Data {
        id: 1,
        flags: Flags::ACK,
        len: 3,
    };
    let fin = Frame::Window {
        id: 1,
        flags: Flags::FIN,
        value: 0,
    };
    for reason in [Refusal::GoingAway, Refusal::Streams, Refusal::Backlog] {
        assert!(refused(reason.code(), &[]));
        assert!(!refused(reason.code(), &[ack]), "it was accepted");
    }
    let application = Refusal::Application.code();
    assert!(refused(application, &[]));
    assert!(refused(application, &[ack]));
    for before in [data, fin] {
        assert!(!refused(application, &[before]), "it was answered");
    }
    assert!(!refused(0, &[]));
    assert!(!refused(7, &[]));
}

#[test]
fn a_close_with_a_reason_is_read_at_the_other_end() {
    for (code, text, clean) in [
        (
            GoAwayCode::Limit(LimitKind::PeerSessions),
            "the peer ended the session (go-away code 0x63657001, limit of sessions of one peer): \
             use or close one that is open, or ask its owner to allow more",
            false,
        ),
        (
            GoAwayCode::Idle,
            "the peer closed the session, for nothing was open in it: \
             open a new one when there is something to send",
            true,
        ),
        (
            GoAwayCode::ShuttingDown,
            "the peer is shutting down: try again later",
            true,
        ),
    ] {
        let mut pair = pair();
        let (_, there) = pair.open();
        pair.ends[SERVER].shutdown(there).unwrap();
        pair.ends[SERVER].release(there);
        pair.settle();
        pair.ends[SERVER].close(code);
        pair.settle();
        pair.pass(2 * SECOND);
        pair.settle();
        let here = pair.ends[CLIENT].end().unwrap();
        assert_eq!(here.to_string(), text);
        assert_eq!(here.is_clean(), clean);
        let there = pair.ends[SERVER].end().unwrap();
        assert!(matches!(there, MuxError::GaveUp { code: found } if *found == code));
        assert_eq!(there.is_clean(), clean);
        let error = pair.ends[CLIENT].open(pair.now).unwrap_err();
        assert!(error.is_safe_to_retry());
        assert_eq!(error.to_string(), text, "and so does who opens then");
    }
}

#[test]
fn what_waited_when_the_peer_closed_is_accepted_beyond_the_limit_but_not_of_a_peer_that_broke_a_rule()
 {
    for (broken, accepted) in [(false, 5), (true, 2)] {
        let config = Config {
            max_inbound_streams: 2,
            ..Config::default()
        };
        let mut one = One::new(Side::Server, config);
        for i in 0..5 {
            one.give(Frame::Data {
                id: 2 * i + 1,
                flags: Flags::SYN.with(Flags::FIN),
                len: 4,
            });
            one.give_body(4);
        }
        if broken {
            one.give(Frame::Data {
                id: 2,
                flags: Flags::NONE,
                len: 0,
            });
        } else {
            one.give(Frame::GoAway { code: 0 });
            one.engine.handle_eof();
        }
        let keys: Vec<Key> = std::iter::from_fn(|| one.engine.accept()).collect();
        assert_eq!(keys.len(), accepted);
        for key in keys {
            assert!(matches!(one.read(key), Poll::Ready(Ok(Some(piece))) if piece.len() == 4));
            assert!(matches!(one.read(key), Poll::Ready(Ok(None))));
        }
    }
}
