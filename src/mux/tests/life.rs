//! The life of a stream: opening, both directions, dropping, resetting.

use std::task::{Poll, Waker};

use bytes::Bytes;
use cepa_transports::Side;

use super::super::config::Config;
use super::super::error::StreamError;
use super::{CLIENT, One, SERVER, pair};

#[test]
fn bytes_go_both_ways_and_each_direction_ends_on_its_own() {
    let mut pair = pair();
    let (here, there) = pair.open();
    pair.ends[CLIENT].write(here, Bytes::from_static(b"question"));
    pair.ends[CLIENT].shutdown(here).unwrap();
    pair.settle();
    assert_eq!(pair.read_all(SERVER, there), (b"question".to_vec(), true));
    assert!(matches!(
        pair.ends[CLIENT].write_space(here, Waker::noop()),
        Poll::Ready(Err(StreamError::WriteAfterShutdown))
    ));
    pair.ends[SERVER].write(there, Bytes::from_static(b"answer"));
    pair.settle();
    assert_eq!(pair.read_all(CLIENT, here), (b"answer".to_vec(), false));
    pair.ends[SERVER].shutdown(there).unwrap();
    pair.settle();
    assert_eq!(pair.read_all(CLIENT, here), (Vec::new(), true));
    for (end, key) in [(CLIENT, here), (SERVER, there)] {
        assert_eq!(pair.ends[end].stats().streams, 1, "held by the application");
        pair.ends[end].release(key);
        assert_eq!(pair.ends[end].stats().streams, 0);
        assert_eq!(pair.ends[end].stats().windows, 0);
    }
}

#[test]
fn numbers_are_odd_for_the_client_and_even_for_the_server() {
    let mut pair = pair();
    let ids: Vec<u32> = (0..3)
        .map(|_| pair.ends[CLIENT].open(pair.now).unwrap().unwrap().id)
        .collect();
    assert_eq!(ids, [1, 3, 5]);
    let ids: Vec<u32> = (0..3)
        .map(|_| pair.ends[SERVER].open(pair.now).unwrap().unwrap().id)
        .collect();
    assert_eq!(ids, [2, 4, 6]);
    pair.settle();
    let accepted: Vec<u32> = std::iter::from_fn(|| pair.ends[SERVER].accept())
        .map(|key| key.id)
        .collect();
    assert_eq!(accepted, [1, 3, 5]);
}

#[test]
fn a_dropped_stream_is_reset_and_a_finished_one_still_delivers() {
    let mut pair = pair();
    let (here, there) = pair.open();
    pair.ends[CLIENT].write(here, Bytes::from_static(b"never sent"));
    pair.ends[CLIENT].release(here);
    pair.settle();
    assert!(matches!(
        pair.ends[SERVER].read(there, Waker::noop()),
        Poll::Ready(Err(StreamError::ResetByPeer { code: 0 }))
    ));
    // Again, every time; and no clean end.
    assert!(matches!(
        pair.ends[SERVER].write_space(there, Waker::noop()),
        Poll::Ready(Err(StreamError::ResetByPeer { .. }))
    ));
    assert_eq!(pair.ends[CLIENT].stats().streams, 0);

    let (here, there) = pair.open();
    pair.ends[CLIENT].write(here, vec![5; 100_000].into());
    pair.ends[CLIENT].shutdown(here).unwrap();
    pair.ends[CLIENT].release(here);
    pair.settle();
    let (got, ended) = pair.read_all(SERVER, there);
    assert_eq!((got.len(), ended), (100_000, true));
    // Who dropped it does not want what comes now, and says so.
    pair.ends[SERVER].write(there, Bytes::from_static(b"too late"));
    pair.settle();
    assert!(matches!(
        pair.ends[SERVER].write_space(there, Waker::noop()),
        Poll::Ready(Err(StreamError::ResetByPeer { .. }))
    ));
    assert_eq!(pair.ends[CLIENT].stats().streams, 0);
}

#[test]
fn a_reset_carries_its_code_and_what_came_before_can_be_read() {
    let mut pair = pair();
    let (here, there) = pair.open();
    pair.ends[CLIENT].write(here, Bytes::from_static(b"before"));
    pair.settle();
    pair.ends[CLIENT].reset(here, 42);
    assert!(matches!(
        pair.ends[CLIENT].read(here, Waker::noop()),
        Poll::Ready(Err(StreamError::ResetHere))
    ));
    pair.settle();
    let first = pair.ends[SERVER].read(there, Waker::noop());
    assert!(matches!(first, Poll::Ready(Ok(Some(piece))) if piece == "before"));
    assert!(matches!(
        pair.ends[SERVER].read(there, Waker::noop()),
        Poll::Ready(Err(StreamError::ResetByPeer { code: 42 }))
    ));
}

#[test]
fn a_stream_that_is_dropped_before_its_syn_left_is_never_heard_of() {
    let mut one = One::new(Side::Client, Config::default());
    let key = one.engine.open(one.now).unwrap().unwrap();
    one.write(key, 100);
    one.engine.release(key);
    assert_eq!(one.take(), []);
    assert_eq!(one.engine.stats().streams, 0);
}
