//! Limits of our own: what waits, and what is refused.

use cepa_transports::Side;

use super::super::code::Refusal;
use super::super::config::Config;
use super::super::frame::{Flags, Frame};
use super::One;

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
