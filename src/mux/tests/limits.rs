//! Limits of our own: what waits, and what is refused.

use cepa_transports::Side;

use super::super::code::{GoAwayCode, Refusal};
use super::super::config::Config;
use super::super::error::OpenError;
use super::super::frame::{Flags, Frame};
use super::{One, SECOND};

#[test]
fn opening_waits_while_the_peer_does_not_answer() {
    let mut one = One::new(Side::Client, Config::default());
    let mut keys = Vec::new();
    while let Some(key) = one.engine.open(one.now).unwrap() {
        keys.push(key);
    }
    assert_eq!(keys.len(), 256);
    one.take();
    one.engine.take_notices();
    one.give(Frame::Window {
        id: 5,
        flags: Flags::ACK,
        value: 0,
    });
    assert!(one.engine.take_notices().open);
    assert!(one.engine.open(one.now).unwrap().is_some());
    assert!(one.engine.open(one.now).unwrap().is_none());
}

#[test]
fn a_full_backlog_refuses_and_accepting_makes_room() {
    let config = Config {
        accept_backlog: 2,
        ..Config::default()
    };
    let mut one = One::new(Side::Server, config);
    for id in [1, 3, 5] {
        one.give(Frame::Window {
            id,
            flags: Flags::SYN,
            value: 0,
        });
    }
    assert_eq!(
        one.take(),
        [Frame::Window {
            id: 5,
            flags: Flags::RST,
            value: Refusal::Backlog.code()
        }]
    );
    one.engine.accept().unwrap();
    one.give(Frame::Window {
        id: 7,
        flags: Flags::SYN,
        value: 0,
    });
    assert_eq!(
        one.take(),
        [Frame::Window {
            id: 1,
            flags: Flags::ACK,
            value: 0
        }]
    );
    assert_eq!(one.engine.stats().inbound, 3);
}

#[test]
fn an_opening_that_is_taken_back_unanswered_waits_where_there_were_too_many() {
    let config = Config {
        reset_burst: 4, // of which this end uses three
        reset_rate: 1,
        accept_backlog: 6,
        ..Config::default()
    };
    let mut one = One::new(Side::Client, config);
    let rst = |id| Frame::Window {
        id,
        flags: Flags::RST,
        value: 0,
    };
    let resets = |one: &mut One| {
        let mut frames = one.take();
        frames.retain(|frame| {
            matches!(
                frame,
                Frame::Window {
                    flags: Flags::RST,
                    ..
                }
            )
        });
        frames
    };
    let mut keys = Vec::new();
    while let Some(key) = one.engine.open(one.now).unwrap() {
        keys.push(key);
    }
    assert_eq!(keys.len(), 6);
    one.take();
    for key in keys {
        one.engine.release(key);
    }
    assert_eq!(resets(&mut one), [rst(1), rst(3), rst(5)]);
    // Three are over, and three still count as unanswered.
    for _ in 0..3 {
        assert!(one.engine.open(one.now).unwrap().is_some());
    }
    assert!(one.engine.open(one.now).unwrap().is_none());
    one.take();
    assert_eq!(one.engine.poll_timeout(), Some(one.now + SECOND));
    // Answered, it need not wait; refused, it has nothing to say; whatever comes, it is heard of once.
    for frame in [
        Frame::Window {
            id: 9,
            flags: Flags::NONE,
            value: 0,
        },
        rst(11),
    ] {
        for _ in 0..3 {
            one.give(frame);
        }
    }
    assert_eq!(resets(&mut one), []);
    one.give(Frame::Window {
        id: 9,
        flags: Flags::ACK,
        value: 0,
    });
    assert_eq!(resets(&mut one), [rst(9)]);
    one.pass(SECOND);
    assert_eq!(resets(&mut one), [rst(7)]);
    one.pass(SECOND);
    assert_eq!(resets(&mut one), []);
    assert_eq!(one.engine.stats().streams, 3, "those that are open");
}

#[test]
fn a_session_that_closes_does_not_wait_for_openings_that_it_takes_back() {
    let config = Config {
        reset_burst: 0,
        ..Config::default()
    };
    let mut one = One::new(Side::Client, config);
    let key = one.engine.open(one.now).unwrap().unwrap();
    one.take();
    one.engine.release(key);
    assert_eq!(one.take(), []);
    one.engine.close(GoAwayCode::Normal);
    assert_eq!(one.take(), [Frame::GoAway { code: 0 }]);
}

/// After the last number there is no other: that is said in time, to those who wait as well, and what is open goes on.
#[test]
fn numbers_that_are_used_up_are_an_error_of_their_own() {
    for side in [Side::Client, Side::Server] {
        let mut one = One::new(side, Config::default());
        assert_eq!(
            one.engine.stats().ids_left,
            if side == Side::Client {
                1 << 31
            } else {
                (1 << 31) - 1
            }
        );
        let last = if side == Side::Client {
            u32::MAX
        } else {
            u32::MAX - 1
        };
        one.engine.begin_at(last - 2);
        assert_eq!(one.engine.stats().ids_left, 2);
        let first = one.engine.open(one.now).unwrap().unwrap();
        one.engine.take_notices();
        let key = one.engine.open(one.now).unwrap().unwrap();
        assert_eq!([first.id, key.id], [last - 2, last]);
        assert_eq!(one.engine.stats().ids_left, 0);
        assert!(
            one.engine.take_notices().open,
            "whoever waits is to hear it"
        );
        assert_eq!(one.engine.open_room(), usize::MAX);
        for _ in 0..2 {
            let error = one.engine.open(one.now).unwrap_err();
            assert!(matches!(error, OpenError::Exhausted));
            assert!(error.is_safe_to_retry());
            assert_eq!(
                error.to_string(),
                "all stream numbers of this session are used up; open a new one"
            );
        }
        one.take();
        one.give(Frame::Data {
            id: last,
            flags: Flags::ACK,
            len: 3,
        });
        one.give_body(3);
        assert!(matches!(one.read(key), std::task::Poll::Ready(Ok(Some(_)))));
        assert_eq!(one.write(key, 5), 5);
        assert!(one.engine.end().is_none());
    }
    // A peer that comes to its last is no trouble either.
    let mut one = One::server();
    let key = one.syn(u32::MAX);
    assert_eq!(key.id, u32::MAX);
}
