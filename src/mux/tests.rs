//! The engine against itself and against hostile peers: no sockets, and a time that is made up.
#![allow(clippy::cast_possible_truncation)] // patterns of bytes

use std::io;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cepa_transports::Side;
use proptest::prelude::*;

use super::batch::{Batch, MAX_SLICES, RECORD};
use super::config::{Config, StreamTimeouts};
use super::engine::Engine;
use super::error::{GoAwayCode, MuxError, OpenError, StreamError, StreamTimeout, Violation};
use super::frame::{Decoder, Flags, Frame, HEADER_LEN, INITIAL_WINDOW, Item};
use super::priority::Priority;
use super::store::Key;

const SECOND: Duration = Duration::from_secs(1);

fn bytes_of(batch: &mut Batch) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !batch.is_empty() {
        let mut slices = [io::IoSlice::new(&[]); MAX_SLICES];
        let used = batch.slices(&mut slices);
        let part: Vec<u8> = slices[..used]
            .iter()
            .flat_map(|s| s.iter().copied())
            .collect();
        batch.advance(part.len());
        bytes.extend_from_slice(&part);
    }
    bytes
}

/// One engine, with the test as its peer.
struct One {
    engine: Engine,
    now: Instant,
}

impl One {
    fn new(side: Side, config: Config) -> Self {
        let now = Instant::now();
        Self {
            engine: Engine::new(side, config, 1, now),
            now,
        }
    }

    fn server() -> Self {
        Self::new(Side::Server, Config::default())
    }

    fn give(&mut self, frame: Frame) {
        self.engine
            .handle_input(self.now, Bytes::copy_from_slice(&frame.emit()));
    }

    fn give_body(&mut self, len: usize) {
        self.engine.handle_input(self.now, vec![0; len].into());
    }

    fn syn(&mut self, id: u32) -> Key {
        self.give(Frame::Window {
            id,
            flags: Flags::SYN,
            value: 0,
        });
        self.engine.accept().expect("a stream to accept")
    }

    /// Everything that the engine has to send, as frames; bodies are left out.
    fn take(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        let mut decoder = Decoder::default();
        let mut batch = Batch::default();
        loop {
            self.engine.poll_transmit(self.now, &mut batch);
            if batch.is_empty() {
                return frames;
            }
            let mut bytes = Bytes::from(bytes_of(&mut batch));
            while let Some(item) = decoder.next(&mut bytes).unwrap() {
                if let Item::Frame(frame) = item {
                    frames.push(frame);
                }
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.engine.handle_timeout(self.now);
    }

    fn read(&mut self, key: Key) -> Poll<Result<Option<Bytes>, StreamError>> {
        self.engine.read(key, Waker::noop())
    }

    fn write(&mut self, key: Key, n: usize) -> usize {
        match self.engine.write_space(key, Waker::noop()) {
            Poll::Ready(Ok(space)) => {
                let n = n.min(space);
                self.engine.write(key, vec![7; n].into());
                n
            }
            _ => 0,
        }
    }

    fn violation(&self) -> Option<Violation> {
        match self.engine.end() {
            Some(MuxError::Protocol(violation)) => Some(*violation),
            _ => None,
        }
    }
}

/// Two engines and a path between them with a delay.
struct Pair {
    ends: [Engine; 2],
    wires: [std::collections::VecDeque<(Instant, Bytes)>; 2],
    now: Instant,
    delay: Duration,
}

const CLIENT: usize = 0;
const SERVER: usize = 1;

impl Pair {
    fn new(config: Config, delay: Duration) -> Self {
        let now = Instant::now();
        Self {
            ends: [
                Engine::new(Side::Client, config.clone(), 1, now),
                Engine::new(Side::Server, config, 2, now),
            ],
            wires: Default::default(),
            now,
            delay,
        }
    }

    /// Sends what is to be sent, and lets arrive what has arrived by now.
    fn step(&mut self) -> bool {
        let mut moved = false;
        for from in [CLIENT, SERVER] {
            let mut batch = Batch::default();
            loop {
                self.ends[from].poll_transmit(self.now, &mut batch);
                let bytes = bytes_of(&mut batch);
                if bytes.is_empty() {
                    break;
                }
                self.wires[from].push_back((self.now + self.delay, bytes.into()));
            }
            while self.wires[from]
                .front()
                .is_some_and(|(at, _)| *at <= self.now)
            {
                let (_, bytes) = self.wires[from].pop_front().unwrap();
                self.ends[1 - from].handle_input(self.now, bytes);
                moved = true;
            }
        }
        moved
    }

    fn settle(&mut self) {
        while self.step() {}
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        for end in &mut self.ends {
            end.handle_timeout(self.now);
        }
    }

    fn open(&mut self) -> (Key, Key) {
        let here = self.ends[CLIENT].open(self.now).unwrap().unwrap();
        self.settle();
        (here, self.ends[SERVER].accept().unwrap())
    }

    fn read_all(&mut self, end: usize, key: Key) -> (Vec<u8>, bool) {
        let mut all = Vec::new();
        loop {
            match self.ends[end].read(key, Waker::noop()) {
                Poll::Ready(Ok(Some(piece))) => all.extend_from_slice(&piece),
                Poll::Ready(Ok(None)) => return (all, true),
                Poll::Ready(Err(error)) => panic!("{error}"),
                Poll::Pending => return (all, false),
            }
        }
    }
}

fn pair() -> Pair {
    Pair::new(Config::default(), Duration::ZERO)
}

// ---- the life of streams ------------------------------------------------------------------------

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

// ---- what goes on the wire ----------------------------------------------------------------------

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
    assert_eq!(batch.filled(), 4 * RECORD, "four full records a write");
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
            .all(|len| len % RECORD == 0 || *len < 4 * RECORD),
        "{lens:?}"
    );
    assert!(lens.iter().all(|len| *len <= 4 * RECORD), "{lens:?}");
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

// ---- flow control -------------------------------------------------------------------------------

#[test]
fn a_writer_stops_at_the_window_and_goes_on_when_the_peer_reads() {
    let mut pair = pair();
    let (here, there) = pair.open();
    let mut sent = 0;
    while let Poll::Ready(Ok(space)) = pair.ends[CLIENT].write_space(here, Waker::noop()) {
        pair.ends[CLIENT].write(here, vec![1; space].into());
        sent += space;
        pair.settle();
    }
    let limit = Config::default().send_queue;
    assert_eq!(sent, INITIAL_WINDOW as usize + limit);
    assert_eq!(pair.ends[SERVER].stats().data_in, INITIAL_WINDOW.into());
    let (got, _) = pair.read_all(SERVER, there);
    assert_eq!(got.len(), INITIAL_WINDOW as usize);
    pair.settle();
    let (got, _) = pair.read_all(SERVER, there);
    assert_eq!(got.len(), limit);
}

#[test]
fn windows_grow_on_a_far_path_inside_the_budget() {
    let mut pair = Pair::new(Config::default(), Duration::from_millis(25));
    let here = pair.ends[CLIENT].open(pair.now).unwrap().unwrap();
    let mut there = None;
    for _ in 0..1500 {
        while let Poll::Ready(Ok(space)) = pair.ends[CLIENT].write_space(here, Waker::noop()) {
            pair.ends[CLIENT].write(here, vec![1; space].into());
            pair.step();
        }
        pair.pass(Duration::from_millis(1));
        pair.step();
        there = there.or_else(|| pair.ends[SERVER].accept());
        if let Some(there) = there {
            pair.read_all(SERVER, there);
        }
    }
    let stats = pair.ends[SERVER].stats();
    assert_eq!(stats.windows, 16 << 20, "{stats:?}");
    let round_trip = stats.round_trip.unwrap().as_millis();
    assert!((50..=52).contains(&round_trip), "{stats:?}");
    assert!(stats.data_in > 100 << 20, "{stats:?}");
}

#[test]
fn unread_one_byte_frames_cost_about_their_size() {
    let mut one = One::server();
    for id in [1, 3, 5, 7] {
        one.syn(id);
        let mut wire = Vec::new();
        for _ in 0..INITIAL_WINDOW {
            wire.extend_from_slice(
                &Frame::Data {
                    id,
                    flags: Flags::NONE,
                    len: 1,
                }
                .emit(),
            );
            wire.push(1);
            if wire.len() >= 32 << 10 {
                one.engine
                    .handle_input(one.now, std::mem::take(&mut wire).into());
            }
        }
        one.engine.handle_input(one.now, wire.into());
    }
    assert!(one.engine.end().is_none());
    let stats = one.engine.stats();
    assert_eq!(stats.data_in, 4 * u64::from(INITIAL_WINDOW));
    assert!(stats.unread < (1 << 20) + (64 << 10), "{stats:?}");
}

// ---- any cut ------------------------------------------------------------------------------------

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_cut_of_the_wire_gives_the_same_streams(
        streams in prop::collection::vec((0..60_000usize, any::<bool>()), 1..6),
        cuts in prop::collection::vec(prop_oneof![Just(1usize), 2..30usize, 1000..40_000usize], 1..30),
    ) {
        let mut pair = pair();
        let mut batch = Batch::default();
        let keys: Vec<Key> =
            streams.iter().map(|_| pair.ends[CLIENT].open(pair.now).unwrap().unwrap()).collect();
        for (key, (len, shut)) in keys.iter().zip(&streams) {
            let data: Vec<u8> = (0..*len).map(|i| (i as u32 * key.id) as u8).collect();
            pair.ends[CLIENT].write_copy(*key, &data);
            if *shut { pair.ends[CLIENT].shutdown(*key).unwrap() }
        }
        let mut wire = Vec::new();
        loop {
            pair.ends[CLIENT].poll_transmit(pair.now, &mut batch);
            let bytes = bytes_of(&mut batch);
            if bytes.is_empty() { break }
            wire.extend(bytes);
        }
        let mut cut = cuts.iter().cycle();
        let mut wire = Bytes::from(wire);
        while !wire.is_empty() {
            let n = (*cut.next().unwrap()).min(wire.len());
            let piece = Bytes::copy_from_slice(&wire.split_to(n));
            pair.ends[SERVER].handle_input(pair.now, piece);
        }
        prop_assert!(pair.ends[SERVER].end().is_none());
        for (len, shut) in streams {
            let key = pair.ends[SERVER].accept().unwrap();
            let (got, ended) = pair.read_all(SERVER, key);
            prop_assert_eq!(got.len(), len);
            prop_assert_eq!(ended, shut);
            prop_assert!(got.iter().enumerate().all(|(i, b)| *b == (i as u32 * key.id) as u8));
        }
    }

    #[test]
    fn no_frame_sequence_breaks_the_engine(script in prop::collection::vec(any::<u8>(), 0..2000)) {
        super::fuzz::fuzz_frame(&script);
        super::fuzz::fuzz_engine(&script);
    }
}

/// The same with longer scripts; `CEPA_ROUNDS=20000` asks for more of them than there is time for.
#[test]
fn no_frame_sequence_breaks_the_engine_long() {
    let mut x = 0x1234_5678_9abc_def1u64;
    let rounds = std::env::var("CEPA_ROUNDS")
        .ok()
        .and_then(|n| n.parse().ok());
    for round in 0..rounds.unwrap_or(200) {
        let script: Vec<u8> = (0..200 + round % 3000)
            .map(|_| {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                x.to_le_bytes()[3]
            })
            .collect();
        super::fuzz::fuzz_engine(&script);
    }
}

// ---- hostile peers ------------------------------------------------------------------------------

/// The session ends at the first misdeed, with the code, and sends nothing after that.
#[track_caller]
fn expect(one: &mut One, violation: Violation) {
    assert_eq!(one.violation(), Some(violation));
    assert_eq!(one.take().last(), Some(&Frame::GoAway { code: 1 }));
    one.give(Frame::Ping { value: 1 });
    assert_eq!(one.take(), [], "nothing more");
}

#[test]
fn headers_that_no_peer_may_send_end_the_session() {
    let cases: [([u8; 12], Violation); 7] = [
        ([1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0], Violation::Version(1)),
        (*b"HTTP/1.1 400", Violation::Version(b'H')),
        (
            [0, 9, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0],
            Violation::FrameType(9),
        ),
        ([0, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0, 0], Violation::Flags(16)),
        ([0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0], Violation::Flags(3)),
        ([0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], Violation::StreamId(0)),
        ([0, 2, 0, 1, 0, 0, 0, 5, 0, 0, 0, 0], Violation::StreamId(5)),
    ];
    for (header, violation) in cases {
        let mut one = One::server();
        one.engine
            .handle_input(one.now, Bytes::copy_from_slice(&header));
        expect(&mut one, violation);
    }
}

#[test]
fn a_stream_with_our_parity_or_opened_twice_ends_the_session() {
    let mut one = One::server();
    one.give(Frame::Window {
        id: 2,
        flags: Flags::SYN,
        value: 0,
    });
    expect(&mut one, Violation::WrongParity(2));
    let mut one = One::server();
    one.syn(1);
    one.give(Frame::Data {
        id: 1,
        flags: Flags::SYN,
        len: 0,
    });
    expect(&mut one, Violation::DuplicateStream(1));
    let mut one = One::server();
    one.give(Frame::Data {
        id: 2,
        flags: Flags::NONE,
        len: 10,
    });
    expect(&mut one, Violation::NeverOpened(2));
}

#[test]
fn more_than_the_window_ends_the_session_before_a_byte_of_it_is_read() {
    let mut one = One::server();
    let key = one.syn(1);
    one.give(Frame::Data {
        id: 1,
        flags: Flags::NONE,
        len: INITIAL_WINDOW,
    });
    one.give_body(INITIAL_WINDOW as usize);
    one.give(Frame::Data {
        id: 1,
        flags: Flags::NONE,
        len: 1,
    });
    assert_eq!(one.violation(), Some(Violation::WindowExceeded(1)));
    // What was within the window can be read, and then comes the error, not an end.
    let mut got = 0;
    let end = loop {
        match one.read(key) {
            Poll::Ready(Ok(Some(piece))) => got += piece.len(),
            other => break other,
        }
    };
    assert_eq!(got, INITIAL_WINDOW as usize);
    assert!(matches!(
        end,
        Poll::Ready(Err(StreamError::Session(MuxError::Protocol(_))))
    ));
    expect(&mut one, Violation::WindowExceeded(1));

    let mut one = One::server();
    one.give(Frame::Data {
        id: 1,
        flags: Flags::SYN,
        len: INITIAL_WINDOW + 1,
    });
    expect(&mut one, Violation::WindowExceeded(1));
}

#[test]
fn credit_beyond_the_protocol_ends_the_session() {
    let mut one = One::server();
    one.syn(1);
    one.give(Frame::Window {
        id: 1,
        flags: Flags::NONE,
        value: u32::MAX - INITIAL_WINDOW,
    });
    assert!(one.engine.end().is_none());
    one.give(Frame::Window {
        id: 1,
        flags: Flags::NONE,
        value: 1,
    });
    expect(&mut one, Violation::CreditOverflow(1));
    let mut one = One::server();
    one.give(Frame::Window {
        id: 1,
        flags: Flags::SYN,
        value: u32::MAX,
    });
    expect(&mut one, Violation::CreditOverflow(1));
}

#[test]
fn anything_after_a_fin_but_credit_ends_the_session() {
    let fin = |one: &mut One| {
        let key = one.syn(1);
        one.give(Frame::Window {
            id: 1,
            flags: Flags::FIN,
            value: 0,
        });
        one.give(Frame::Window {
            id: 1,
            flags: Flags::NONE,
            value: 1000,
        });
        assert!(
            one.engine.end().is_none(),
            "a half-closed peer still grants credit"
        );
        key
    };
    let mut one = One::server();
    fin(&mut one);
    one.give(Frame::Data {
        id: 1,
        flags: Flags::NONE,
        len: 5,
    });
    expect(&mut one, Violation::DataAfterFin(1));
    let mut one = One::server();
    fin(&mut one);
    one.give(Frame::Data {
        id: 1,
        flags: Flags::FIN,
        len: 0,
    });
    expect(&mut one, Violation::FinAfterFin(1));
    // FIN on a data frame takes effect behind its body, however the body is cut.
    let mut one = One::server();
    let key = one.syn(1);
    one.give(Frame::Data {
        id: 1,
        flags: Flags::FIN,
        len: 4,
    });
    one.give_body(3);
    assert!(matches!(one.read(key), Poll::Ready(Ok(Some(piece))) if piece.len() == 3));
    assert!(one.read(key).is_pending(), "not the end yet");
    one.give_body(1);
    assert!(matches!(one.read(key), Poll::Ready(Ok(Some(_)))));
    assert!(matches!(one.read(key), Poll::Ready(Ok(None))));
}

#[test]
fn data_for_streams_that_do_not_exist_is_skipped_up_to_a_bound() {
    let mut one = One::server();
    for _ in 0..16 {
        one.give(Frame::Data {
            id: 77,
            flags: Flags::NONE,
            len: 64 << 10,
        });
        one.give_body(64 << 10);
    }
    assert!(one.engine.end().is_none());
    one.give(Frame::Data {
        id: 79,
        flags: Flags::NONE,
        len: 1,
    });
    expect(&mut one, Violation::StrayData);
}

#[test]
fn what_was_on_the_way_to_streams_that_we_reset_is_no_offence() {
    let mut one = One::server();
    let keys: Vec<Key> = (0..64).map(|i| one.syn(2 * i + 1)).collect();
    for key in &keys {
        one.engine.release(*key);
    }
    let resets = one.take();
    assert_eq!(
        resets
            .iter()
            .filter(|f| matches!(
                f,
                Frame::Window {
                    flags: Flags::RST,
                    ..
                }
            ))
            .count(),
        64
    );
    for key in keys {
        one.give(Frame::Data {
            id: key.id,
            flags: Flags::NONE,
            len: INITIAL_WINDOW,
        });
        one.give_body(INITIAL_WINDOW as usize);
    }
    assert!(one.engine.end().is_none());
    assert_eq!(one.engine.stats().unread, 0);
}

#[test]
fn a_syn_flood_is_refused_and_then_ends_the_session() {
    let mut one = One::server();
    let mut refused = 0;
    for i in 0..100_000u32 {
        one.give(Frame::Window {
            id: 2 * i + 1,
            flags: Flags::SYN,
            value: 0,
        });
        if one.engine.end().is_some() {
            break;
        }
        assert!(one.engine.stats().streams <= 256);
        if i % 100 == 0 {
            refused += one.take().len();
        }
    }
    assert!((900..=1000).contains(&refused), "{refused}");
    expect(&mut one, Violation::ResetFlood);
}

#[test]
fn rapid_reset_ends_the_session_and_kept_handles_keep_slots() {
    let mut one = One::server();
    let mut kept = Vec::new();
    for i in 0..1_000_000u32 {
        let id = 2 * i + 1;
        one.give(Frame::Window {
            id,
            flags: Flags::SYN,
            value: 0,
        });
        kept.extend(one.engine.accept());
        one.give(Frame::Window {
            id,
            flags: Flags::RST,
            value: 0,
        });
        if one.engine.end().is_some() {
            break;
        }
        assert!(one.engine.stats().streams <= 256);
    }
    assert_eq!(one.violation(), Some(Violation::ResetFlood));
    assert_eq!(kept.len(), 256, "then no slot was free");
    // At a slower pace it goes on for ever.
    let mut one = One::server();
    for i in 0..20_000u32 {
        let id = 2 * i + 1;
        let key = one.syn(id);
        one.give(Frame::Window {
            id,
            flags: Flags::RST,
            value: 0,
        });
        one.engine.release(key);
        one.pass(SECOND / 30);
    }
    assert!(one.engine.end().is_none());
}

#[test]
fn pings_are_answered_first_and_a_flood_of_them_ends_the_session() {
    let mut one = One::server();
    for value in 0..32 {
        one.give(Frame::Ping { value });
    }
    let answers: Vec<Frame> = (0..32).map(|value| Frame::Pong { value }).collect();
    assert_eq!(one.take(), answers);
    let mut given = 0;
    while one.engine.end().is_none() {
        one.give(Frame::Ping { value: given });
        given += 1;
        assert!(given < 2000);
    }
    assert_eq!(given, 32 + 1000 + 1);
    expect(&mut one, Violation::PingFlood);
}

#[test]
fn answers_to_nothing_are_ignored() {
    let mut one = One::server();
    one.give(Frame::Pong { value: 3 });
    one.give(Frame::Window {
        id: 99,
        flags: Flags::NONE,
        value: 5,
    });
    one.give(Frame::Window {
        id: 99,
        flags: Flags::RST,
        value: 5,
    });
    one.give(Frame::Data {
        id: 99,
        flags: Flags::FIN,
        len: 0,
    });
    assert!(one.engine.end().is_none());
    assert_eq!(one.take(), []);
}

// ---- limits of our own --------------------------------------------------------------------------

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
            value: 0
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

// ---- time ---------------------------------------------------------------------------------------

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
fn ping_values_can_not_be_told_in_advance() {
    let values = |seed| {
        let now = Instant::now();
        let mut engine = Engine::new(Side::Client, Config::default(), seed, now);
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
            value: 0
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
    let mut one = One::server();
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
            value: 0
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
    assert_eq!(live(&mut one, 300), []);
    one.give(Frame::Window {
        id: 1,
        flags: Flags::NONE,
        value: 1 << 20,
    });
    let frames = one.take();
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
fn a_peer_that_waits_for_credit_is_told_that_the_stream_was_dropped() {
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
    let mut one = One::server();
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
            value: 0
        }]
    );
    assert!(matches!(
        one.engine.write_space(key, Waker::noop()),
        Poll::Ready(Err(StreamError::TimedOut(StreamTimeout::WriteStalled)))
    ));
    assert_eq!(one.engine.stats().unsent, 0);
}

// ---- ends of sessions ---------------------------------------------------------------------------

#[test]
fn every_abnormal_end_is_told_apart_and_none_reads_as_an_end_of_stream() {
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
        ("the peer has been silent for 31 s", |one, _| {
            one.pass(31 * SECOND);
        }),
        ("the session was closed at this end", |one, _| {
            one.engine.close();
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
    one.engine.close();
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
        value: 0
    }));
    assert!(
        one.engine.end().is_none(),
        "the peer may still answer on stream 1"
    );
    one.give(Frame::Window {
        id: 1,
        flags: Flags::FIN,
        value: 0,
    });
    assert_eq!(one.take(), [Frame::GoAway { code: 0 }]);
    assert!(matches!(one.engine.end(), Some(MuxError::Closed)));

    // A peer that does not answer is not waited for long.
    let mut one = One::server();
    let done = one.syn(1);
    one.engine.shutdown(done).unwrap();
    one.engine.close();
    one.take();
    assert_eq!(one.engine.poll_timeout(), Some(one.now + 2 * SECOND));
    one.pass(2 * SECOND);
    assert_eq!(one.take(), [Frame::GoAway { code: 0 }]);
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
            value: 0
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
            value: 0
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
