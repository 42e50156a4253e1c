//! What goes on the wire, frame by frame, and in which order.

use bytes::Bytes;
use cepa_transports::Side;

use super::super::batch::{Batch, TLS_RECORD};
use super::super::config::Config;
use super::super::frame::{Decoder, Flags, Frame, HEADER_LEN, INITIAL_WINDOW, Item};
use super::super::priority::Priority;
use super::super::store::Key;
use super::{One, bytes_of};

#[test]
fn opening_with_data_is_one_frame_and_the_end_is_a_frame_of_its_own() {
    let mut one = One::new(Side::Client, Config::default());
    let key = one.engine.open(one.now).unwrap().unwrap();
    one.write(key, 64);
    one.engine.shutdown(key).unwrap();
    assert_eq!(
        one.take(),
        [
            Frame::Data {
                id: 1,
                flags: Flags::SYN,
                len: 64
            },
            Frame::Window {
                id: 1,
                flags: Flags::FIN,
                value: 0
            },
        ]
    );
}

#[test]
fn a_larger_first_window_is_announced_with_syn_and_ack() {
    let config = Config {
        receive_window: 1 << 20,
        ..Config::default()
    };
    let mut one = One::new(Side::Server, config);
    let extra = (1 << 20) - INITIAL_WINDOW;
    one.engine.open(one.now).unwrap().unwrap();
    assert_eq!(
        one.take(),
        [Frame::Window {
            id: 2,
            flags: Flags::SYN,
            value: extra
        }]
    );
    one.syn(1);
    assert_eq!(
        one.take(),
        [Frame::Window {
            id: 1,
            flags: Flags::ACK,
            value: extra
        }]
    );
    one.give(Frame::Data {
        id: 1,
        flags: Flags::NONE,
        len: 1 << 20,
    });
    assert!(one.engine.end().is_none(), "the announced window holds");
}

#[test]
fn frames_fill_tls_records_and_never_exceed_what_peers_take() {
    let config = Config {
        send_queue: 1 << 20,
        ..Config::default()
    };
    let mut one = One::new(Side::Client, config);
    let key = one.engine.open(one.now).unwrap().unwrap();
    one.take();
    one.give(Frame::Window {
        id: 1,
        flags: Flags::ACK,
        value: 1 << 24,
    });
    one.write(key, 1 << 20);
    let mut batch = Batch::default();
    one.engine.poll_transmit(one.now, &mut batch);
    assert_eq!(batch.filled(), 4 * TLS_RECORD, "four full records a write");
    bytes_of(&mut batch);
    // With what a layer below puts in front of it.
    let mut batch = Batch::behind(16);
    one.engine.poll_transmit(one.now, &mut batch);
    assert_eq!(batch.filled(), 4 * TLS_RECORD - 16, "with its lead");
    bytes_of(&mut batch);
    let lens: Vec<usize> = one
        .take()
        .iter()
        .map(|frame| match frame {
            Frame::Data { len, .. } => *len as usize + HEADER_LEN,
            other => panic!("{other:?}"),
        })
        .collect();
    // The peer has read nothing, as far as one can know: few large frames instead of many.
    assert!(
        lens.iter()
            .all(|len| len % TLS_RECORD == 0 || *len < 4 * TLS_RECORD),
        "{lens:?}"
    );
    assert!(lens.iter().all(|len| *len <= 4 * TLS_RECORD), "{lens:?}");
    assert!(lens.len() <= 17, "{lens:?}");
}

#[test]
fn an_unread_window_is_at_most_eight_frames() {
    // tokio-yamux stops its whole session at the tenth.
    let mut one = One::new(Side::Client, Config::default());
    let key = one.engine.open(one.now).unwrap().unwrap();
    let mut frames = Vec::new();
    let mut sent = 0;
    one.write(key, 10);
    frames.extend(one.take());
    loop {
        let n = one.write(key, 64 << 10);
        if n == 0 {
            break;
        }
        sent += n;
        frames.extend(one.take());
        assert!(sent < 1 << 20, "the window holds it");
    }
    assert!(frames.len() <= 9, "{frames:?}");
}

#[test]
fn answers_and_small_things_go_before_bulk() {
    let config = Config {
        send_queue: 1 << 20,
        ..Config::default()
    };
    let mut one = One::new(Side::Client, config);
    let bulk = one.engine.open(one.now).unwrap().unwrap();
    let small = one.engine.open(one.now).unwrap().unwrap();
    one.take();
    one.write(bulk, 250_000);
    one.write(small, 64);
    one.give(Frame::Ping { value: 9 });
    let mut batch = Batch::default();
    one.engine.poll_transmit(one.now, &mut batch);
    let mut bytes = Bytes::from(bytes_of(&mut batch));
    let mut decoder = Decoder::default();
    let mut frames = Vec::new();
    while let Some(item) = decoder.next(&mut bytes).unwrap() {
        if let Item::Frame(frame) = item {
            frames.push(frame);
        }
    }
    assert_eq!(frames[0], Frame::Pong { value: 9 });
    assert_eq!(
        frames[1],
        Frame::Data {
            id: small.id,
            flags: Flags::NONE,
            len: 64
        }
    );
    assert!(matches!(frames[2], Frame::Data { id, .. } if id == bulk.id));
}

#[test]
fn bulk_streams_take_turns() {
    let config = Config {
        send_queue: 1 << 20,
        ..Config::default()
    };
    let mut one = One::new(Side::Client, config);
    let keys: Vec<Key> = (0..4)
        .map(|_| one.engine.open(one.now).unwrap().unwrap())
        .collect();
    one.take();
    for key in &keys {
        one.write(*key, 60_000);
    }
    let ids: Vec<u32> = one
        .take()
        .iter()
        .filter_map(|frame| match frame {
            Frame::Data { id, .. } => Some(*id),
            _ => None,
        })
        .collect();
    assert_eq!(ids[..8], [1, 3, 5, 7, 1, 3, 5, 7]);
}

#[test]
fn priorities_order_what_is_queued_and_can_change_under_way() {
    let config = Config {
        send_queue: 1 << 20,
        ..Config::default()
    };
    let mut one = One::new(Side::Client, config);
    let keys: Vec<Key> = (0..3)
        .map(|_| one.engine.open(one.now).unwrap().unwrap())
        .collect();
    one.take();
    one.engine.set_priority(keys[2], Priority::HIGHEST);
    for key in &keys {
        one.write(*key, 60_000);
    }
    // Changed while it waits in a lane.
    one.engine.set_priority(keys[0], Priority::LOWEST);
    let ids: Vec<u32> = one
        .take()
        .iter()
        .filter_map(|frame| match frame {
            Frame::Data { id, .. } => Some(*id),
            _ => None,
        })
        .collect();
    let mut order = ids.clone();
    order.dedup();
    assert_eq!(order, [5, 3, 1], "{ids:?}");
    let stats = one.engine.stream_stats(keys[0]);
    assert_eq!(stats.priority, Priority::LOWEST);
    assert_eq!((stats.data_out, stats.unsent), (60_000, 0));
    assert_eq!(stats.send_window, INITIAL_WINDOW - 60_000);
}

#[test]
fn what_can_wait_still_gets_its_share_beside_what_can_not() {
    let config = Config {
        send_queue: 8 << 20,
        ..Config::default()
    };
    let mut one = One::new(Side::Client, config);
    let keys: Vec<Key> = (0..2)
        .map(|_| one.engine.open(one.now).unwrap().unwrap())
        .collect();
    one.take();
    for key in &keys {
        one.give(Frame::Window {
            id: key.id,
            flags: Flags::ACK,
            value: 8 << 20,
        });
        one.write(*key, 6 << 20);
    }
    one.engine.set_priority(keys[1], Priority::LOWEST);
    let mut batch = Batch::default();
    while one.engine.stream_stats(keys[0]).unsent > 0 {
        one.engine.poll_transmit(one.now, &mut batch);
        bytes_of(&mut batch);
    }
    let sent = one.engine.stream_stats(keys[1]).data_out;
    assert!((6 << 20) / 24 < sent && sent < (6 << 20) / 12, "{sent}");
}
