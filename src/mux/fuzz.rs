//! Entry points for fuzz targets, which are also run with random input by the tests. Not part of
//! the API.
//!
//! [`fuzz_frame`] takes bytes as they come from a wire. [`fuzz_engine`] takes a script: either a
//! hostile peer's frames against one engine and a moody application, or two engines that are used
//! as an application would, over a wire that cuts at will; then every byte has to arrive.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::expect_used
)]
#![allow(clippy::cast_possible_truncation)] // patterns of bytes

use std::collections::{HashMap, VecDeque};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use cepa_transports::Side;

use super::batch::{Batch, MAX_SLICES};
use super::code::GoAwayCode;
use super::config::{Config, StreamTimeouts};
use super::engine::Engine;
use super::error::MuxError;
use super::frame::{Decoder, Frame, INITIAL_WINDOW, Item, SMALL_WINDOW};
use super::store::Key;

/// A driver would go round in a circle, and its thread do nothing else.
const IN_VAIN: &str = "it wants to send, and has nothing";

/// Feeds the decoder `data` in pieces, and checks that what it finds is what is there.
pub fn fuzz_frame(data: &[u8]) {
    let (cut, data) = match data.split_first() {
        Some((cut, rest)) => (usize::from(*cut).max(1), rest),
        None => return,
    };
    let mut decoder = Decoder::default();
    let mut again = Vec::new();
    let mut promised = 0u64;
    for piece in data.chunks(cut) {
        let mut input = Bytes::copy_from_slice(piece);
        loop {
            match decoder.next(&mut input) {
                Ok(Some(Item::Frame(frame))) => {
                    assert_eq!(promised, 0, "a header in the middle of a body");
                    if let Frame::Data { len, .. } = frame {
                        promised = len.into();
                    }
                    assert_eq!(Frame::parse(frame.emit()), Ok(frame));
                    again.extend_from_slice(&frame.emit());
                }
                Ok(Some(Item::Body { bytes, last })) => {
                    promised -= bytes.len() as u64;
                    assert_eq!(last, promised == 0);
                    again.extend_from_slice(&bytes);
                }
                Ok(None) => {
                    assert!(input.is_empty());
                    break;
                }
                Err(_) => return,
            }
        }
    }
    assert!(again.len() <= data.len());
}

/// Runs the script `data`.
pub fn fuzz_engine(data: &[u8]) {
    let Some((mode, script)) = data.split_first() else {
        return;
    };
    if mode & 1 == 0 {
        hostile(script, small_config(*mode));
    } else {
        two_ends(script, small_config(*mode));
    }
}

fn small_config(mode: u8) -> Config {
    Config {
        first_window: if mode & 4 == 0 {
            INITIAL_WINDOW
        } else {
            SMALL_WINDOW
        },
        max_inbound_streams: 4,
        accept_backlog: 3,
        receive_budget: 8 * INITIAL_WINDOW as usize,
        max_receive_window: 4 * INITIAL_WINDOW,
        send_queue: 3000,
        reset_burst: 10,
        stray_bytes: 2000,
        pacing: mode & 2 != 0,
        ..Config::default()
    }
}

fn written(batch: &mut Batch) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !batch.is_empty() {
        let mut slices = [std::io::IoSlice::new(&[]); MAX_SLICES];
        let used = batch.slices(&mut slices);
        let part: Vec<u8> = slices[..used]
            .iter()
            .flat_map(|slice| slice.iter().copied())
            .collect();
        bytes.extend_from_slice(&part);
        batch.advance(part.len());
    }
    bytes
}

/// A peer that sends any frame at any time.
fn hostile(script: &[u8], config: Config) {
    let mut now = Instant::now();
    let first_window = u64::from(config.first_window);
    let budget = config.receive_budget as u64;
    let mut engine = Engine::new(Side::Server, config, 1, now);
    let mut keys: Vec<Key> = Vec::new();
    let mut decoder = Decoder::default();
    let mut batch = Batch::default();
    // Pings of ours, which the script may answer in any order and at any time.
    let mut asked = VecDeque::new();
    let mut ops = script.chunks_exact(4);
    for op in &mut ops {
        let [what, id, flags, value] = *op else { break };
        let stream = u32::from(id % 12);
        let size = u32::from(value) << (flags >> 4);
        let flags_low = u16::from(flags & 0x0f);
        let header = |kind: u8, length: u32| {
            let mut header = [
                0,
                kind,
                0,
                flags_low as u8,
                0,
                0,
                0,
                stream as u8,
                0,
                0,
                0,
                0,
            ];
            header[8..].copy_from_slice(&length.to_be_bytes());
            header
        };
        let mut wire = BytesMut::new();
        let key = keys.get(usize::from(id) % keys.len().max(1)).copied();
        match what % 16 {
            0..=3 => {
                let len = size.min(300_000);
                wire.extend_from_slice(&header(0, len));
                wire.resize(wire.len() + len as usize, value);
            }
            4..=5 => wire.extend_from_slice(&header(1, size << (what >> 4))),
            6 => wire.extend_from_slice(&Frame::Ping { value: size }.emit()),
            7 => {
                let answered = match id % 3 {
                    0 => asked.pop_front(),
                    1 => asked.pop_back(),
                    _ => None,
                };
                let value = answered.unwrap_or(size);
                wire.extend_from_slice(&Frame::Pong { value }.emit());
            }
            8 if what > 0xf0 => wire.extend_from_slice(&Frame::GoAway { code: size }.emit()),
            8 => wire.extend_from_slice(op),
            9 => keys.extend(engine.open(now).ok().flatten()),
            10 => keys.extend(engine.accept()),
            11 => {
                if let Some(key) = key {
                    let _ = engine.read(key, Waker::noop());
                }
            }
            12 => {
                if let Some(key) = key
                    && let Poll::Ready(Ok(space)) = engine.write_space(key, Waker::noop())
                {
                    engine.write(key, vec![0; space.min(size as usize)].into());
                }
            }
            13 => {
                if let Some(key) = key {
                    let _ = engine.shutdown(key);
                }
            }
            14 => {
                if let Some(key) = key {
                    keys.retain(|other| *other != key);
                    engine.release(key);
                }
            }
            _ => {
                now += Duration::from_millis(u64::from(size));
                engine.handle_timeout(now);
                match value {
                    0 => engine.close(GoAwayCode::Normal),
                    1 => engine.go_away(GoAwayCode::Normal),
                    2 => engine.abandon(),
                    3 => engine.handle_eof(),
                    4 => drop(engine.ping()),
                    _ => {}
                }
            }
        }
        if !wire.is_empty() {
            engine.handle_input(now, wire.freeze());
        }
        if flags & 1 == 0 {
            engine.poll_transmit(now, &mut batch);
            let mut sent = Bytes::from(written(&mut batch));
            assert!(!sent.is_empty() || !engine.wants_transmit(), "{IN_VAIN}");
            while let Some(item) = decoder
                .next(&mut sent)
                .expect("the engine sends what it would take")
            {
                if let Item::Frame(Frame::Ping { value }) = item {
                    asked.push_back(value);
                }
            }
        }
        let stats = engine.stats();
        assert!(
            stats.inbound <= 4 + 3 + 3 && stats.waiting <= 3,
            "{stats:?}"
        );
        assert!(stats.unread as u64 <= stats.windows + 256 * 64, "{stats:?}");
        let outbound = (stats.streams - stats.inbound) as u64;
        let first_windows = (outbound + stats.waiting as u64) * first_window;
        assert!(stats.windows <= budget + first_windows, "{stats:?}");
        let _ = engine.poll_timeout();
        engine.take_wakes();
        engine.take_notices();
    }
    engine.handle_eof();
    engine.abandon();
    for key in keys {
        engine.release(key);
    }
    assert_eq!(
        engine.stats().streams,
        0,
        "nothing is left when nobody holds anything"
    );
    assert_eq!(engine.stats().windows, 0);
}

/// What one end has done with one stream.
#[derive(Default)]
struct Used {
    written: Vec<u8>,
    read: Vec<u8>,
    shut: bool,
    reset: bool,
    dropped: bool,
    saw_end: bool,
}

struct End {
    engine: Engine,
    batch: Batch,
    /// What it sent and the other end has not been given.
    wire: VecDeque<u8>,
    streams: Vec<Key>,
    used: HashMap<u32, Used>,
}

impl End {
    fn new(side: Side, config: Config, now: Instant) -> Self {
        Self {
            // Two ends that obey the protocol never send a byte too much, whatever their users do.
            engine: Engine::new(
                side,
                Config {
                    reset_burst: 1000,
                    stray_bytes: 0,
                    keepalive_interval: None,
                    stream_timeouts: StreamTimeouts::NONE,
                    ..config
                },
                7,
                now,
            ),
            batch: Batch::default(),
            wire: VecDeque::new(),
            streams: Vec::new(),
            used: HashMap::new(),
        }
    }

    fn transmit(&mut self, now: Instant) {
        self.engine.poll_transmit(now, &mut self.batch);
        let sent = written(&mut self.batch);
        let in_vain = sent.is_empty() && self.engine.wants_transmit();
        assert!(!in_vain, "{IN_VAIN}");
        self.wire.extend(sent);
    }

    fn pick(&self, n: u8) -> Option<Key> {
        self.streams
            .get(usize::from(n) % self.streams.len().max(1))
            .copied()
    }

    fn add(&mut self, key: Option<Key>) {
        if let Some(key) = key {
            self.streams.push(key);
            self.used.insert(key.id, Used::default());
        }
    }

    fn read(&mut self, key: Key) -> bool {
        let used = self.used.get_mut(&key.id).unwrap();
        match self.engine.read(key, Waker::noop()) {
            Poll::Ready(Ok(Some(piece))) => {
                used.read.extend_from_slice(&piece);
                true
            }
            Poll::Ready(Ok(None)) => {
                used.saw_end = true;
                false
            }
            _ => false,
        }
    }
}

fn two_ends(script: &[u8], config: Config) {
    let mut now = Instant::now();
    let mut ends = [
        End::new(Side::Client, config.clone(), now),
        End::new(Side::Server, config, now),
    ];
    for op in script.chunks_exact(3) {
        let [what, which, value] = *op else { break };
        let this = usize::from(what >> 7);
        let end = &mut ends[this];
        match what % 10 {
            0 => {
                let key = end.engine.open(now).expect("the session is up");
                end.add(key);
            }
            1 => {
                let key = end.engine.accept();
                end.add(key);
            }
            2..=3 => {
                if let Some(key) = end.pick(which) {
                    let space = end.engine.write_space(key, Waker::noop());
                    if let Poll::Ready(Ok(space)) = space {
                        let used = end.used.get_mut(&key.id).unwrap();
                        let n = space.min(usize::from(value) << (which & 7));
                        let start = used.written.len();
                        let data: Vec<u8> = (start..start + n)
                            .map(|i| (i % 251) as u8 ^ which)
                            .collect();
                        used.written.extend_from_slice(&data);
                        if value & 1 == 0 {
                            end.engine.write(key, data.into());
                        } else {
                            end.engine.write_copy(key, &data);
                        }
                    }
                }
            }
            4 => {
                if let Some(key) = end.pick(which) {
                    end.read(key);
                }
            }
            5 => {
                if let Some(key) = end.pick(which) {
                    end.used.get_mut(&key.id).unwrap().shut = true;
                    let _ = end.engine.shutdown(key);
                }
            }
            6 if value < 40 => {
                if let Some(key) = end.pick(which) {
                    let used = end.used.get_mut(&key.id).unwrap();
                    used.dropped = true;
                    used.reset = !used.shut;
                    end.streams.retain(|other| *other != key);
                    end.engine.release(key);
                }
            }
            7 => now += Duration::from_millis(value.into()),
            _ => {
                end.transmit(now);
                let n = end.wire.len().min(usize::from(value) << (which & 7));
                let chunk: Vec<u8> = end.wire.drain(..n).collect();
                ends[1 - this].engine.handle_input(now, chunk.into());
            }
        }
        for end in &ends {
            assert!(end.engine.end().is_none(), "{:?}", end.engine.end());
        }
    }
    // Everybody accepts and reads until nothing moves.
    let mut overdue = 0;
    for _ in 0..10_000 {
        let mut moved = false;
        for this in 0..2 {
            ends[this].transmit(now);
            let chunk: Vec<u8> = ends[this].wire.drain(..).collect();
            moved |= !chunk.is_empty();
            ends[1 - this].engine.handle_input(now, chunk.into());
            let end = &mut ends[this];
            while let Some(key) = end.engine.accept() {
                moved = true;
                end.add(Some(key));
            }
            for key in end.streams.clone() {
                while end.read(key) {
                    moved = true;
                }
            }
        }
        if !moved {
            // Pacing may hold bulk back for as long as a slow path takes; nothing else looks at the clock.
            let wake = ends
                .iter()
                .filter_map(|end| end.engine.poll_timeout())
                .min();
            let Some(wake) = wake else {
                break;
            };
            // The script moves the time on without a look at deadlines, so the first ones may be past.
            overdue = if wake > now { 0 } else { overdue + 1 };
            assert!(
                overdue < 10,
                "a driver would be woken for nothing, for ever"
            );
            now = now.max(wake);
            for end in &mut ends {
                end.engine.handle_timeout(now);
            }
        }
    }
    let [client, server] = &ends;
    for end in &ends {
        match end.engine.end() {
            None => {}
            Some(error @ MuxError::Protocol(_)) => panic!("{error}"),
            Some(error) => panic!("{error:?}"),
        }
    }
    for (from, to) in [(client, server), (server, client)] {
        for (id, used) in &from.used {
            let Some(other) = to.used.get(id) else {
                continue;
            };
            assert!(
                used.written.starts_with(&other.read),
                "stream {id}: other bytes came"
            );
            if other.saw_end {
                assert!(used.shut, "stream {id}: an end that nobody sent");
                assert_eq!(other.read.len(), used.written.len(), "stream {id}: cut");
            }
            if !used.reset && !other.reset && !other.dropped && !used.dropped {
                assert_eq!(
                    other.read.len(),
                    used.written.len(),
                    "stream {id}: bytes missing"
                );
                assert_eq!(other.saw_end, used.shut, "stream {id}");
            }
        }
    }
}
