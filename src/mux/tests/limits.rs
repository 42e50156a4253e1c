//! Limits of our own: what waits, and what is refused.

use cepa_transports::Side;

use super::super::code::{GoAwayCode, Refusal};
use super::super::config::Config;
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
