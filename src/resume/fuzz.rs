//! Entry points for fuzz targets, which are also run with random input by the tests. Not part of
//! the API.
//!
//! [`fuzz_frame`] takes bytes as they come from a path, and [`fuzz_hello`] those in front of them. [`fuzz_engine`] takes a script:
//! either a hostile peer's bytes and claims against one engine, or two engines on paths that come, go, hang and cross each
//! other; then every byte has to arrive, in order and once.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::expect_used
)]
#![allow(clippy::cast_possible_truncation)] // patterns of bytes

use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::{Duration, Instant};

use cepa_transports::Side;

use super::config::Config;
use super::engine::{Engine, Over, SLICES};
use super::error::{AttachError, SessionLost};
use super::frame::{Frame, Input};
use super::hello::{Answer, At, HEAD, Hello};

/// Feeds the reader of frames `data` in pieces, and checks that what it finds is what is there.
pub fn fuzz_frame(data: &[u8]) {
    let Some((cut, mut data)) = data.split_first() else {
        return;
    };
    let cut = usize::from(*cut).max(1);
    let (mut input, mut again) = (Input::default(), Vec::new());
    let all = data;
    while !data.is_empty() {
        let piece = &data[..cut.min(data.len())];
        let n = if input.data() > 0 {
            let n = piece.len().min(input.data() as usize);
            input.data_filled(n);
            again.extend_from_slice(&piece[..n]);
            n
        } else {
            let Ok((n, frame)) = input.take(piece) else {
                break;
            };
            match frame {
                Some(frame) => frame.emit(&mut again),
                None => assert_eq!(n, piece.len(), "left a part of a frame"),
            }
            n
        };
        data = &data[n..];
    }
    assert!(all.starts_with(&again), "something else than was there");
}

/// What decodes as a hello or as an answer encodes to the same bytes again.
pub fn fuzz_hello(data: &[u8]) {
    let Some((head, body)) = data.split_first_chunk::<HEAD>() else {
        return;
    };
    if let Ok(length) = Hello::length(*head)
        && let Some(body) = body.get(..length)
    {
        let hello = Hello::decode(*head, body).expect("as many bytes as it says");
        assert_eq!(&**hello.encode(), &data[..HEAD + length]);
    }
    if let Ok(length) = Answer::length(*head)
        && let Some(body) = body.get(..length)
    {
        let answer = Answer::decode(*head, body).expect("as many bytes as it says");
        assert_eq!(answer.encode(), &data[..HEAD + length]);
    }
}

/// Runs the script `data`.
pub fn fuzz_engine(data: &[u8]) {
    let Some((mode, script)) = data.split_first() else {
        return;
    };
    if mode & 1 == 0 {
        hostile(script);
    } else {
        let mut two = Two::new();
        for op in script.chunks_exact(2) {
            two.step(op[0], op[1]);
        }
        two.heal();
    }
}

fn config(park: Duration) -> Config {
    Config::default().with_replay(20_000).with_park(park)
}

/// The byte of one direction at an offset.
fn pattern(side: Side, at: u64) -> u8 {
    let salt = if side == Side::Client { 0 } else { 0x5a };
    (at ^ (at >> 8) ^ (at >> 16)) as u8 ^ salt
}

/// An engine and what its application has seen.
struct End {
    engine: Engine,
    side: Side,
    got: u64,
    armed: Option<Instant>,
}

impl End {
    fn new(side: Side, now: Instant) -> Self {
        Self {
            engine: Engine::new(side, &config(Duration::MAX), now),
            side,
            got: 0,
            armed: None,
        }
    }

    /// As many bytes as there is room for, `n` at most.
    fn write(&mut self, n: usize) {
        let from = self.engine.given();
        let bytes: Vec<u8> = (0..n as u64)
            .map(|i| pattern(self.side, from + i))
            .collect();
        let (one, two) = bytes.split_at(n / 2);
        self.engine.write(&[IoSlice::new(one), IoSlice::new(two)]);
    }

    /// What a path takes, `n` bytes at most.
    fn transmit(&mut self, now: Instant, n: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < n && self.engine.stage(|| now) {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let used = self.engine.output(&mut slices);
            let before = bytes.len();
            for slice in &slices[..used] {
                let room = n - bytes.len();
                bytes.extend_from_slice(&slice[..room.min(slice.len())]);
            }
            assert!(bytes.len() > before, "it wants to write, and has nothing");
            self.engine.wrote(bytes.len() - before);
        }
        keep_time(&mut self.engine, &mut self.armed);
        self.engine.assert_invariants();
        bytes
    }

    /// What came on the path, in the order in which it was written, in one piece.
    fn receive(&mut self, now: Instant, bytes: &mut VecDeque<u8>, n: usize) {
        if self.engine.over().is_some() || !self.engine.has_path() {
            return;
        }
        let mut piece: Vec<u8> = bytes.drain(..n.min(bytes.len())).collect();
        let came = self.engine.handle_bytes(now, &mut piece);
        for byte in &piece[..came.data] {
            let of_peer = pattern(self.side.other(), self.got);
            assert_eq!(*byte, of_peer, "byte {}", self.got);
            self.got += 1;
        }
        let over = self.engine.over();
        let kept = !matches!(over, Some(Over::Lost(SessionLost::Violation(_))));
        assert!(kept, "an end that keeps to the rules: {over:?}");
        keep_time(&mut self.engine, &mut self.armed);
        self.engine.assert_invariants();
    }

    fn pass(&mut self, now: Instant) {
        keep_time(&mut self.engine, &mut self.armed);
        run_timers(&mut self.engine, now);
        self.engine.assert_invariants();
    }
}

/// Sets a timer as the driver does: only when the engine says that its deadline may have come nearer.
fn keep_time(engine: &mut Engine, armed: &mut Option<Instant>) {
    let next = engine.poll_timeout();
    if std::mem::take(&mut engine.hurried) {
        *armed = next;
    } else if let Some(next) = next {
        let late = armed.is_none_or(|armed| armed > next);
        assert!(!late, "{armed:?} is set, and {next:?} was not told of");
    }
}

/// Does what is due at `now`. A path that is lost to a peer that keeps nothing makes one more timer due at once.
fn run_timers(engine: &mut Engine, now: Instant) {
    let mut rounds = 0;
    loop {
        if engine.handle_timeout(now).is_some() {
            engine.handle_path_lost(now);
        }
        if engine.poll_timeout().is_none_or(|next| next > now) {
            return;
        }
        rounds += 1;
        assert!(rounds < 4, "a timer that never stops");
    }
}

/// A peer that says anything, on paths that come and go: it ends the session at most, and holds what it may.
fn hostile(script: &[u8]) {
    let mut now = Instant::now();
    let mut engine = Engine::new(Side::Server, &config(Duration::from_secs(60)), now);
    let (mut proposals, mut number, mut armed) = (VecDeque::new(), 0, None);
    for op in script.chunks_exact(4) {
        let [what, a, b, c] = *op else { break };
        let size = usize::from(a) << (b % 8);
        // Mostly near to what is true.
        let offset = match c % 4 {
            0 => u64::from(a),
            1 => engine
                .given()
                .wrapping_add(u64::from(a % 3))
                .wrapping_sub(1),
            2 => engine.given() / 2,
            _ => u64::MAX - u64::from(a),
        };
        let at = At {
            generation: engine.generation().wrapping_add(u32::from(b % 3)),
            received: offset,
        };
        let mut wire = Vec::new();
        match what % 16 {
            0..=2 => {
                let n = size.clamp(1, 5000);
                Frame::Data(n as u32).emit(&mut wire);
                wire.resize(wire.len() + n / (1 + usize::from(c & 1)), c);
            }
            3..=4 => Frame::Ack(offset).emit(&mut wire),
            5 => Frame::Ping(size as u32).emit(&mut wire),
            6 => Frame::Pong(u32::from(a % 4)).emit(&mut wire),
            7 if c > 0xe0 => Frame::End.emit(&mut wire),
            7 => Frame::Park(size as u32).emit(&mut wire),
            8 if c > 0xf0 => Frame::Over(a).emit(&mut wire),
            8 => wire.extend_from_slice(op),
            9 => {
                let before = engine.held();
                let taken = engine.write(&[IoSlice::new(&vec![a; size])]);
                assert_eq!(engine.held(), before + taken);
            }
            10 => {
                let mut slices = [IoSlice::new(&[]); SLICES];
                if engine.stage(|| now) {
                    let used = engine.output(&mut slices);
                    let there: usize = slices[..used].iter().map(|slice| slice.len()).sum();
                    assert!(there > 0, "it wants to write, and has nothing");
                    engine.wrote(there.min(size.max(1)));
                }
            }
            11 => {
                if let Ok(ours) = engine.claim(now, at)
                    && c & 8 == 0
                {
                    let _ = engine.attach_claimed(now, at, ours, None);
                }
            }
            12 if c & 16 == 0 && proposals.len() < 4 => {
                number += 1;
                proposals.extend(engine.propose(number).map(|at| (number, at)));
            }
            12 => {
                if let Some((number, ours)) = proposals.pop_front() {
                    let generation = ours.generation;
                    let theirs = At { generation, ..at };
                    if engine.attach_proposed(now, number, theirs, None).is_err() {
                        assert!(engine.over().is_some() || engine.generation() >= generation);
                    }
                }
            }
            13 => engine.handle_path_lost(now),
            14 if c > 0xf0 => engine.end(now),
            14 if c & 1 == 0 => engine.handle_stopped(now),
            14 => engine.handle_reading(|| now),
            _ => {
                now += Duration::from_millis(size as u64);
                run_timers(&mut engine, now);
            }
        }
        if engine.over().is_none() {
            engine.handle_bytes(now, &mut wire);
        }
        keep_time(&mut engine, &mut armed);
        engine.assert_invariants();
        if engine.over().is_some() {
            assert_eq!(engine.propose(u64::MAX), None);
            return;
        }
    }
}

/// Bytes under way in both directions of a path: to the client, and to the server.
#[derive(Default)]
struct Wire {
    to: [VecDeque<u8>; 2],
}

/// One end has dialled.
struct Dial {
    by: usize,
    number: u64,
    at: At,
    /// What the other end has answered, and on which wire the session goes on.
    answer: Option<(At, usize)>,
}

/// Two ends that keep to the rules, and a network that does not.
struct Two {
    now: Instant,
    ends: [End; 2],
    /// Which wire each end reads and writes.
    on: [usize; 2],
    wires: Vec<Wire>,
    dials: Vec<Dial>,
    number: u64,
}

impl Two {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            now,
            ends: [End::new(Side::Client, now), End::new(Side::Server, now)],
            on: [0, 0],
            wires: vec![Wire::default()],
            dials: Vec::new(),
            number: 0,
        }
    }

    fn step(&mut self, what: u8, value: u8) {
        let (who, size) = (usize::from(what & 1), usize::from(value) * 40);
        let now = self.now;
        match (what >> 1) % 16 {
            0 | 1 => self.ends[who].write(size),
            2 | 3 => self.transmit(who, size),
            4 | 5 => self.deliver(who, size),
            6 => self.ends[who].engine.handle_path_lost(now),
            7 if self.dials.len() < 4 => self.dial(who),
            8 | 9 => self.hello(usize::from(value)),
            10 | 11 => self.answer(usize::from(value)),
            12 => {
                if let Some(at) = usize::from(value).checked_rem(self.dials.len()) {
                    let dial = self.dials.swap_remove(at);
                    self.ends[dial.by].engine.withdraw(dial.number);
                }
            }
            13 if value > 0xf0 => self.ends[who].engine.end(now),
            13 | 14 => {
                let near = |next: &Instant| *next < now + Duration::from_secs(3600);
                let timeout = self.ends[who].engine.poll_timeout().filter(near);
                let soon = now + Duration::from_millis(value.into());
                self.now = timeout.filter(|_| value & 1 == 0).unwrap_or(soon).max(now);
                for end in &mut self.ends {
                    end.pass(self.now);
                }
            }
            _ if value & 1 == 0 => self.ends[who].engine.handle_stopped(now),
            _ => self.ends[who].engine.handle_reading(|| now),
        }
        for end in &self.ends {
            end.engine.assert_invariants();
        }
    }

    fn transmit(&mut self, who: usize, n: usize) {
        let bytes = self.ends[who].transmit(self.now, n);
        let wire = &mut self.wires[self.on[who]];
        wire.to[1 - who].extend(bytes);
    }

    fn deliver(&mut self, who: usize, n: usize) {
        let wire = &mut self.wires[self.on[who]];
        self.ends[who].receive(self.now, &mut wire.to[who], n);
    }

    fn dial(&mut self, by: usize) {
        self.number += 1;
        let number = self.number;
        if let Some(at) = self.ends[by].engine.propose(number) {
            let answer = None;
            self.dials.push(Dial {
                by,
                number,
                at,
                answer,
            });
        }
    }

    /// The other end reads the hello of a dial, and answers.
    fn hello(&mut self, which: usize) {
        let Some(at) = which.checked_rem(self.dials.len()) else {
            return;
        };
        let dial = &mut self.dials[at];
        if dial.answer.is_some() {
            return;
        }
        let other = 1 - dial.by;
        let engine = &mut self.ends[other].engine;
        if let Ok(ours) = engine.claim(self.now, dial.at) {
            let attached = engine.attach_claimed(self.now, dial.at, ours, None);
            assert!(attached.is_ok(), "{attached:?}");
            self.wires.push(Wire::default());
            self.on[other] = self.wires.len() - 1;
            dial.answer = Some((ours, self.on[other]));
        } else {
            let dial = self.dials.swap_remove(at);
            self.ends[dial.by].engine.withdraw(dial.number);
        }
    }

    /// Who has dialled reads the answer.
    fn answer(&mut self, which: usize) {
        let Some(at) = which.checked_rem(self.dials.len()) else {
            return;
        };
        let Some((theirs, wire)) = self.dials[at].answer else {
            return;
        };
        let dial = self.dials.swap_remove(at);
        let engine = &mut self.ends[dial.by].engine;
        match engine.attach_proposed(self.now, dial.number, theirs, None) {
            Ok(_) => self.on[dial.by] = wire,
            Err(AttachError::Stale | AttachError::Over) => {}
            Err(AttachError::Violation(violation)) => {
                panic!("an end that keeps to the rules: {violation}")
            }
        }
    }

    /// The network is whole again: all that was given arrives, and both ends end in order.
    fn heal(&mut self) {
        for dial in std::mem::take(&mut self.dials) {
            self.ends[dial.by].engine.withdraw(dial.number);
        }
        for end in &mut self.ends {
            end.engine.handle_reading(|| self.now);
            end.engine.end(self.now);
        }
        for end in &self.ends {
            assert!(end.engine.over().is_none(), "ends that keep to the rules");
        }
        for by in [0, 1, 0] {
            self.dial(by);
            self.hello(0);
            self.answer(0);
            for dial in std::mem::take(&mut self.dials) {
                self.ends[dial.by].engine.withdraw(dial.number);
            }
        }
        for _ in 0..100 {
            for who in [0, 1] {
                self.transmit(who, usize::MAX);
                self.deliver(1 - who, usize::MAX);
            }
        }
        let given = [1, 0].map(|who: usize| self.ends[who].engine.given() - 1);
        let got = [0, 1].map(|who: usize| self.ends[who].got);
        assert_eq!(got, given, "all that was given");
        for end in &self.ends {
            assert!(end.engine.read_ended() && end.engine.all_arrived());
        }
    }
}
