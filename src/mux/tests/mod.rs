//! The engine against itself and against hostile peers: no sockets, and a time that is made up.
//!
//! Here stand the two benches that all files below share: [`One`], an engine whose peer is the test, and
//! [`Pair`], two engines with a path between them.
#![allow(clippy::cast_possible_truncation)] // patterns of bytes

mod cuts;
mod ends;
mod flow;
mod hostile;
mod life;
mod limits;
mod paced;
mod path;
mod pause;
mod quiet;
mod small;
mod time;
mod watching;
mod wire;

use std::io;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cepa_transports::Side;

use super::batch::{Batch, MAX_SLICES};
use super::config::Config;
use super::engine::Engine;
use super::error::{MuxError, StreamError, Violation};
use super::frame::{Decoder, Flags, Frame, Item};
use super::store::Key;

/// A driver would go round in a circle, and its thread do nothing else.
const IN_VAIN: &str = "it wants to send, and has nothing";

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
    fn new(side: Side, mut config: Config) -> Self {
        let now = Instant::now();
        // The test answers no pings, so there is nothing to pace by.
        config.pacing = false;
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
                assert!(!self.engine.wants_transmit(), "{IN_VAIN}");
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

    /// The frames of one write.
    fn take_once(&mut self) -> Vec<Frame> {
        let (mut decoder, mut batch) = (Decoder::default(), Batch::default());
        self.engine.poll_transmit(self.now, &mut batch);
        let mut bytes = Bytes::from(bytes_of(&mut batch));
        let mut frames = Vec::new();
        while let Some(item) = decoder.next(&mut bytes).unwrap() {
            if let Item::Frame(frame) = item {
                frames.push(frame);
            }
        }
        frames
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
                    assert!(!self.ends[from].wants_transmit(), "{IN_VAIN}");
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
