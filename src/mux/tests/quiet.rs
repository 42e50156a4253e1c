//! What a session gives back when nothing moves any more.

use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use cepa_transports::Side;

use super::super::config::Config;
use super::super::frame::{Flags, Frame};
use super::{One, SECOND};

/// A read chunk with parts for several streams.
fn chunk(one: &mut One, ids: &[u32], len: u32) {
    let mut bytes = Vec::new();
    for id in ids {
        let frame = Frame::Data {
            id: *id,
            flags: Flags::NONE,
            len,
        };
        bytes.extend_from_slice(&frame.emit());
        bytes.resize(bytes.len() + len as usize, 7);
    }
    one.engine.handle_input(one.now, bytes.into());
}

#[test]
fn unread_data_takes_its_own_memory_and_no_more_once_nothing_comes() {
    let mut one = One::server();
    let keys: Vec<_> = [1, 3, 5].into_iter().map(|id| one.syn(id)).collect();
    one.take();
    chunk(&mut one, &[1, 3, 5], 10_000);
    assert_eq!(
        one.engine.stats().unread,
        3 * 3 * 10_012,
        "each keeps the chunk"
    );
    let at = one.engine.poll_timeout().unwrap();
    assert_eq!(at, one.now + SECOND);
    one.pass(Duration::from_millis(999));
    assert!(!one.engine.take_quiet(), "too early");
    one.pass(Duration::from_millis(1));
    assert!(one.engine.take_quiet() && !one.engine.take_quiet());
    assert_eq!(one.engine.stats().unread, 3 * 10_000);
    for key in keys {
        assert!(matches!(one.read(key), Poll::Ready(Ok(Some(piece))) if piece.len() == 10_000));
    }
    assert_eq!(one.engine.stats().unread, 0);
    // Nothing came since, so there is no more to give back.
    assert!(one.engine.poll_timeout().unwrap() > one.now + 2 * SECOND);
}

#[test]
fn a_little_is_no_reason_to_wake() {
    let mut one = One::server();
    one.syn(1);
    one.take();
    chunk(&mut one, &[1], 1000);
    assert!(one.engine.poll_timeout().unwrap() > one.now + 2 * SECOND);
}

#[test]
fn while_something_comes_nothing_is_copied() {
    let mut one = One::server();
    one.syn(1);
    one.syn(3);
    one.take();
    for _ in 0..4 {
        chunk(&mut one, &[1, 3], 10_000);
        one.pass(SECOND / 2);
        assert!(!one.engine.take_quiet());
    }
    assert!(one.engine.stats().unread > 100_000);
}

/// What is handed on keeps the chunk in which it came, until it has waited for long.
#[test]
fn what_waits_to_be_sent_keeps_no_chunks_once_nothing_comes() {
    let mut one = One::new(Side::Client, Config::default());
    let key = one.engine.open(one.now).unwrap().unwrap();
    one.take();
    one.give(Frame::Window {
        id: 1,
        flags: Flags::ACK,
        value: 0,
    });
    // The window is used up.
    while one.write(key, 1 << 20) > 0 {
        one.take();
    }
    one.give(Frame::Window {
        id: 1,
        flags: Flags::NONE,
        value: 100_000,
    });
    one.take();
    let shared = Bytes::from(vec![9; 32 << 10]);
    let Poll::Ready(Ok(space)) = one.engine.write_space(key, Waker::noop()) else {
        panic!("there is room");
    };
    assert!(space >= 20_000);
    one.engine.write(key, shared.slice(..10_000));
    one.engine.write(key, shared.slice(10_000..20_000));
    assert!(!shared.is_unique());
    // Something else comes, so that there is a time at which nothing comes any more.
    for _ in 0..1000 {
        one.give(Frame::Pong { value: 1 });
    }
    one.pass(SECOND);
    assert!(one.engine.take_quiet());
    assert!(shared.is_unique(), "it is copied by now");
}
