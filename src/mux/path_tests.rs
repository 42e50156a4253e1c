//! Two engines and a path between them that has a rate, a buffer and a delay, in virtual time: what
//! pacing is for. The figures are exact: the same at every run, on every machine.
//!
//! The path takes bytes while its buffer has room, sends them one after the other at its rate, and
//! delivers a TLS record when its last byte has come. Timers fire at whole milliseconds, as tokio's.
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

mod far;
mod late;
mod nagle;
mod slow_start;

use std::collections::VecDeque;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cepa_transports::Side;

use super::batch::{Batch, MAX_SLICES, TLS_RECORD};
use super::config::Config;
use super::engine::Engine;
use super::frame::HEADER_LEN;
use super::store::Key;
use nagle::Nagle;
use slow_start::SlowStart;

/// What a TLS record adds.
const RECORD_EXTRA: usize = 22;
const MS: Duration = Duration::from_millis(1);
const CLIENT: usize = 0;
const SERVER: usize = 1;

#[derive(Clone, Copy, PartialEq)]
enum Pongs {
    AtOnce,
    Late(Duration),
    Never,
}

struct Packet {
    len: usize,
    /// What its arrival completes.
    done: Option<Bytes>,
}

/// One direction of the path.
struct Wire {
    rate: f64,
    buffer: usize,
    delay: Duration,
    /// Handed to the stream below, and not taken by its buffer.
    blocked: VecDeque<Packet>,
    queue: VecDeque<Packet>,
    queued: usize,
    /// When the first of the queue is through.
    through: Option<Instant>,
    flying: VecDeque<(Instant, Bytes)>,
    /// What it ends at, on the way to the other end.
    hop: Option<Nagle>,
    /// What it begins with.
    transport: Option<SlowStart>,
    /// One packet of so many is lost, and comes a round trip later, and what is behind it not before; the state of chance.
    losses: Option<(f64, u64)>,
    held_until: Instant,
}

impl Wire {
    fn is_lost(&mut self, len: usize) -> bool {
        let Some((of, state)) = &mut self.losses else {
            return false;
        };
        *state = chance(*state);
        let packets = len as f64 / 1448.0;
        ((*state >> 11) as f64 / (1_u64 << 53) as f64) < packets / *of
    }

    /// Whether a write is taken now.
    fn takes(&self) -> bool {
        match &self.transport {
            Some(transport) => {
                let waiting: usize = self.blocked.iter().map(|packet| packet.len).sum();
                transport.takes(waiting)
            }
            None => self.blocked.is_empty(),
        }
    }

    fn write(&mut self, mut bytes: Bytes) {
        // About a tenth of a millisecond, or an Ethernet frame.
        let cut = ((self.rate / 1e4) as usize).clamp(256, 64 << 10);
        while !bytes.is_empty() {
            let record = bytes.split_to(bytes.len().min(TLS_RECORD));
            let mut left = record.len() + RECORD_EXTRA;
            while left > 0 {
                let len = left.min(cut);
                left -= len;
                self.blocked.push_back(Packet {
                    len,
                    done: (left == 0).then(|| record.clone()),
                });
            }
        }
    }

    /// Moves what can move by `now`; gives what has arrived.
    fn advance(&mut self, now: Instant) -> Option<Bytes> {
        if let Some(transport) = &mut self.transport {
            transport.grow(now);
        }
        loop {
            while let Some(packet) = self.blocked.front()
                && self.queued + packet.len <= self.buffer
                && self
                    .transport
                    .as_mut()
                    .is_none_or(|it| it.sends(packet.len))
                && let Some(packet) = self.blocked.pop_front()
            {
                self.queued += packet.len;
                self.queue.push_back(packet);
            }
            match (self.through, self.queue.front()) {
                (None, Some(packet)) => {
                    let takes = Duration::from_secs_f64(packet.len as f64 / self.rate);
                    self.through = Some(now + takes);
                }
                (Some(at), _) if at <= now => {
                    let packet = self.queue.pop_front().unwrap();
                    self.queued -= packet.len;
                    if let Some(transport) = &mut self.transport {
                        transport.passed(at + 2 * self.delay, packet.len);
                    }
                    let lost = self.is_lost(packet.len);
                    let again = if lost { 2 * self.delay } else { Duration::ZERO };
                    self.held_until = self.held_until.max(at + self.delay + again);
                    if let Some(done) = packet.done {
                        self.flying.push_back((self.held_until, done));
                    }
                    self.through = None;
                }
                _ => break,
            }
        }
        let Some(hop) = &mut self.hop else {
            return due(&mut self.flying, now);
        };
        while let Some(record) = due(&mut self.flying, now) {
            hop.take(now, &record);
        }
        hop.arrived(now)
    }

    fn next(&self) -> Option<Instant> {
        let arrival = self.flying.front().map(|(at, _)| *at);
        let acknowledged = self.hop.as_ref().and_then(Nagle::next);
        let grows = self.transport.as_ref().and_then(SlowStart::next);
        [self.through, arrival, acknowledged, grows]
            .into_iter()
            .flatten()
            .min()
    }
}

fn due(queue: &mut VecDeque<(Instant, Bytes)>, now: Instant) -> Option<Bytes> {
    queue.front().filter(|(at, _)| *at <= now)?;
    Some(queue.pop_front()?.1)
}

struct Path {
    start: Instant,
    now: Instant,
    ends: [Engine; 2],
    /// From the client, from the server.
    wires: [Wire; 2],
    pongs: Pongs,
    late: VecDeque<(Instant, Bytes)>,
    /// Bulk from each end: where it is written, and where it is read.
    bulk: [Option<(Key, Key)>; 2],
    piece: Bytes,
    got: [u64; 2],
    got_at: [Instant; 2],
    longest_gap: Duration,
    probe: (Key, Key),
    gap: Duration,
    jitter: u64,
    next_probe: Option<Instant>,
    probed_at: Instant,
    answer: usize,
    trips: Vec<Duration>,
}

/// What a run reached.
#[derive(Debug)]
struct Reached {
    p50: f64,
    p99: f64,
    /// Bulk over what the path could carry.
    share: [f64; 2],
    longest_gap: f64,
}

impl Path {
    fn new(rate: f64, buffer: usize, delay: Duration, config: Config) -> Self {
        let start = Instant::now();
        let wire = || Wire {
            rate,
            buffer,
            delay,
            blocked: VecDeque::new(),
            queue: VecDeque::new(),
            queued: 0,
            through: None,
            flying: VecDeque::new(),
            hop: None,
            transport: None,
            losses: None,
            held_until: start,
        };
        let mut ends = [
            Engine::new(Side::Client, config.clone(), 1, start),
            Engine::new(Side::Server, config, 2, start),
        ];
        let keys: Vec<Key> = (0..2)
            .map(|_| ends[CLIENT].open(start).unwrap().unwrap())
            .collect();
        let mut path = Self {
            start,
            now: start,
            ends,
            wires: [wire(), wire()],
            pongs: Pongs::AtOnce,
            late: VecDeque::new(),
            bulk: [None, None],
            piece: vec![7; 64 << 10].into(),
            got: [0; 2],
            got_at: [start; 2],
            longest_gap: Duration::ZERO,
            probe: (keys[0], keys[0]),
            gap: 300 * MS,
            jitter: 1,
            next_probe: None,
            probed_at: start,
            answer: 0,
            trips: Vec::new(),
        };
        let mut accepted = Vec::new();
        while accepted.len() < keys.len() {
            path.step();
            accepted.extend(std::iter::from_fn(|| path.ends[SERVER].accept()));
        }
        path.probe = (keys[0], accepted[0]);
        path.bulk[CLIENT] = Some((keys[1], accepted[1]));
        path.next_probe = Some(path.now + 50 * MS);
        path
    }

    fn both_ways(mut self) -> Self {
        let here = self.ends[CLIENT].open(self.now).unwrap().unwrap();
        let there = loop {
            self.step();
            if let Some(key) = self.ends[SERVER].accept() {
                break key;
            }
        };
        self.bulk[SERVER] = Some((there, here));
        self
    }

    fn nagle(mut self, read: usize) -> Self {
        for wire in &mut self.wires {
            wire.hop = Some(Nagle::new(read));
        }
        self
    }

    fn pongs(mut self, pongs: Pongs) -> Self {
        self.pongs = pongs;
        self
    }

    fn gap(mut self, gap: Duration) -> Self {
        self.gap = gap;
        self
    }

    /// Between half and one and a half of the usual gap.
    fn next_gap(&mut self) -> Duration {
        self.jitter = chance(self.jitter);
        self.gap
            .mul_f64(0.5 + (self.jitter >> 40) as f64 / f64::from(1 << 24))
    }

    fn write(&mut self, end: usize, key: Key, most: usize) {
        let mut left = most;
        while left > 0
            && let Poll::Ready(Ok(space)) = self.ends[end].write_space(key, Waker::noop())
        {
            let n = space.min(self.piece.len()).min(left);
            self.ends[end].write(key, self.piece.slice(..n));
            left -= n;
        }
    }

    fn read(&mut self, end: usize, key: Key) -> usize {
        let mut n = 0;
        while let Poll::Ready(Ok(Some(piece))) = self.ends[end].read(key, Waker::noop()) {
            n += piece.len();
        }
        n
    }

    fn applications(&mut self) {
        for from in [CLIENT, SERVER] {
            if let Some((here, there)) = self.bulk[from] {
                self.write(from, here, usize::MAX);
                let n = self.read(1 - from, there);
                if n > 0 {
                    self.got[from] += n as u64;
                    let gap = self.now - self.got_at[from];
                    self.longest_gap = self.longest_gap.max(gap);
                    self.got_at[from] = self.now;
                }
            }
        }
        let (here, there) = self.probe;
        if self.next_probe.is_some_and(|at| at <= self.now) {
            self.next_probe = None;
            self.probed_at = self.now;
            self.write(CLIENT, here, 64);
        }
        let n = self.read(SERVER, there);
        self.write(SERVER, there, n);
        self.answer += self.read(CLIENT, here);
        if self.answer == 64 {
            self.answer = 0;
            self.trips.push(self.now - self.probed_at);
            self.next_probe = Some(self.now + self.next_gap());
        }
    }

    /// Holds back the answers to pings.
    fn without_pongs(&mut self, bytes: &Bytes) -> Bytes {
        let mut kept = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let len = u32::from_be_bytes(rest[8..12].try_into().unwrap()) as usize;
            let body = if rest[1] == 0 { len } else { 0 };
            let (frame, after) = rest.split_at(HEADER_LEN + body);
            rest = after;
            if is_pong(frame) {
                if let Pongs::Late(by) = self.pongs {
                    self.late
                        .push_back((self.now + by, Bytes::copy_from_slice(frame)));
                }
            } else {
                kept.extend_from_slice(frame);
            }
        }
        kept.into()
    }

    fn settle(&mut self) {
        loop {
            let mut moved = false;
            for from in [CLIENT, SERVER] {
                if self.wires[from].takes() {
                    let mut batch = Batch::default();
                    self.ends[from].poll_transmit(self.now, &mut batch);
                    let mut bytes = written(&mut batch);
                    moved |= !bytes.is_empty();
                    let in_vain = bytes.is_empty() && self.ends[from].wants_transmit();
                    assert!(!in_vain, "it wants to send, and has nothing");
                    if from == SERVER && self.pongs != Pongs::AtOnce {
                        bytes = self.without_pongs(&bytes);
                    }
                    if !bytes.is_empty()
                        && let Some(hop) = &mut self.wires[1 - from].hop
                    {
                        hop.acknowledge(self.now);
                    }
                    self.wires[from].write(bytes);
                }
                while let Some(bytes) = self.wires[from].advance(self.now) {
                    self.ends[1 - from].handle_input(self.now, bytes);
                    moved = true;
                }
            }
            while let Some(pong) = due(&mut self.late, self.now) {
                self.wires[SERVER].write(pong);
                moved = true;
            }
            if !moved {
                return;
            }
            self.applications();
        }
    }

    /// On to the next thing that happens.
    fn step(&mut self) {
        self.applications();
        self.settle();
        let mut next = [
            self.wires[CLIENT].next(),
            self.wires[SERVER].next(),
            self.next_probe,
            self.late.front().map(|(at, _)| *at),
        ]
        .into_iter()
        .flatten()
        .min();
        for end in &self.ends {
            if let Some(at) = end.poll_timeout() {
                let since = at.max(self.now + Duration::from_nanos(1)) - self.start;
                let tick = u32::try_from(since.as_nanos().div_ceil(1_000_000)).unwrap();
                let at = self.start + tick * MS;
                next = Some(next.map_or(at, |next| next.min(at)));
            }
        }
        self.now = next.expect("something to happen").max(self.now);
        for end in &mut self.ends {
            if end.poll_timeout().is_some_and(|at| at <= self.now) {
                end.handle_timeout(self.now);
            }
            assert!(end.end().is_none(), "{:?}", end.end());
        }
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.step();
        }
    }

    /// Runs for a while, and measures that while.
    fn measure(&mut self, time: Duration) -> Reached {
        self.trips.clear();
        self.longest_gap = Duration::ZERO;
        let (from, got) = (self.now, self.got);
        self.run(time);
        let time = (self.now - from).as_secs_f64();
        self.trips.sort();
        let at = |part: f64| {
            let at = (self.trips.len() as f64 * part) as usize;
            self.trips
                .get(at)
                .map_or(0.0, |trip| trip.as_secs_f64() * 1e3)
        };
        let share = |end: usize| (self.got[end] - got[end]) as f64 / time / self.wires[end].rate;
        Reached {
            p50: at(0.5),
            p99: at(0.99),
            share: [share(CLIENT), share(SERVER)],
            longest_gap: self.longest_gap.as_secs_f64() * 1e3,
        }
    }

    fn set_rate(&mut self, rate: f64) {
        for wire in &mut self.wires {
            wire.rate = rate;
        }
    }
}

fn chance(state: u64) -> u64 {
    let state = state.wrapping_mul(6_364_136_223_846_793_005);
    state.wrapping_add(1_442_695_040_888_963_407)
}

fn is_pong(frame: &[u8]) -> bool {
    frame[1] == 2 && frame[3] == 2
}

fn written(batch: &mut Batch) -> Bytes {
    let mut bytes = Vec::with_capacity(batch.filled());
    while !batch.is_empty() {
        let mut slices = [std::io::IoSlice::new(&[]); MAX_SLICES];
        let used = batch.slices(&mut slices);
        let before = bytes.len();
        for slice in &slices[..used] {
            bytes.extend_from_slice(slice);
        }
        batch.advance(bytes.len() - before);
    }
    bytes.into()
}

const SERIAL: f64 = 11_520.0;
const SECOND: Duration = Duration::from_secs(1);

fn config() -> Config {
    Config {
        pacing: true,
        ..Config::default()
    }
}

fn serial(buffer: usize) -> Path {
    Path::new(SERIAL, buffer, Duration::ZERO, config())
}

#[test]
fn a_keystroke_beside_bulk_on_a_serial_line() {
    for buffer in [4 << 10, 16 << 10, 64 << 10] {
        let mut path = serial(buffer);
        path.run(10 * SECOND);
        let reached = path.measure(120 * SECOND);
        assert!(reached.p50 <= 90.0, "{buffer}: {reached:?}");
        assert!(reached.p99 <= 160.0, "{buffer}: {reached:?}");
        assert!(reached.share[CLIENT] >= 0.92, "{buffer}: {reached:?}");
    }
}

#[test]
fn a_message_beside_bulk_at_one_megabyte_a_second() {
    for buffer in [16 << 10, 64 << 10, 1 << 20] {
        let mut path = Path::new(1e6, buffer, Duration::ZERO, config()).gap(30 * MS);
        path.run(3 * SECOND);
        let reached = path.measure(20 * SECOND);
        assert!(reached.p50 <= 7.7, "{buffer}: {reached:?}");
        assert!(reached.p99 <= 10.0, "{buffer}: {reached:?}");
        assert!(reached.share[CLIENT] >= 0.96, "{buffer}: {reached:?}");
    }
}

#[test]
fn without_pacing_a_keystroke_waits_for_the_whole_buffer() {
    let config = Config {
        pacing: false,
        ..Config::default()
    };
    let mut path = Path::new(SERIAL, 64 << 10, Duration::ZERO, config);
    path.run(10 * SECOND);
    let reached = path.measure(60 * SECOND);
    assert!(reached.p50 > 4000.0, "{reached:?}");
}

#[test]
fn both_directions_of_a_serial_line_loaded() {
    let mut path = serial(16 << 10).both_ways();
    path.run(10 * SECOND);
    let reached = path.measure(120 * SECOND);
    assert!(reached.p50 <= 250.0, "{reached:?}");
    assert!(
        reached.share[CLIENT].min(reached.share[SERVER]) >= 0.7,
        "{reached:?}"
    );
}

#[test]
fn a_rate_that_falls_and_rises_tenfold() {
    let mut path = Path::new(1e6, 64 << 10, 25 * MS, config()).gap(100 * MS);
    path.run(5 * SECOND);
    let before = path.measure(5 * SECOND);
    path.set_rate(1e5);
    let fallen = path.measure(10 * SECOND);
    path.set_rate(1e7);
    let rising = path.measure(5 * SECOND);
    let risen = path.measure(5 * SECOND);
    assert!(before.share[CLIENT] >= 0.9, "{before:?}");
    assert!(
        fallen.share[CLIENT] >= 0.9 && fallen.longest_gap <= 120.0,
        "{fallen:?}"
    );
    assert!(rising.longest_gap <= 120.0, "{rising:?}");
    assert!(risen.share[CLIENT] >= 0.85, "{risen:?}");
}

#[test]
fn answers_that_come_late() {
    let mut path = serial(16 << 10).pongs(Pongs::Late(200 * MS));
    path.run(10 * SECOND);
    let reached = path.measure(60 * SECOND);
    assert!(
        reached.share[CLIENT] >= 0.9 && reached.p50 <= 200.0,
        "{reached:?}"
    );
    let mut path = Path::new(1e6, 1 << 20, Duration::ZERO, config())
        .pongs(Pongs::Late(200 * MS))
        .gap(30 * MS);
    path.run(5 * SECOND);
    let reached = path.measure(20 * SECOND);
    assert!(
        reached.share[CLIENT] >= 0.94 && reached.p50 <= 60.0,
        "{reached:?}"
    );
}

#[test]
fn answers_that_never_come() {
    for rate in [SERIAL, 1e6, 1e8] {
        let mut path = Path::new(rate, 16 << 10, Duration::ZERO, config()).pongs(Pongs::Never);
        path.run(3 * SECOND);
        let reached = path.measure(20 * SECOND);
        assert!(reached.share[CLIENT] >= 0.92, "{rate}: {reached:?}");
    }
}

#[test]
fn answers_that_stop_and_come_again() {
    let mut path = serial(16 << 10);
    path.run(10 * SECOND);
    path.pongs = Pongs::Never;
    path.run(20 * SECOND);
    let silent = path.measure(20 * SECOND);
    assert!(silent.share[CLIENT] >= 0.92, "{silent:?}");
    path.pongs = Pongs::AtOnce;
    path.run(10 * SECOND);
    let again = path.measure(60 * SECOND);
    assert!(
        again.share[CLIENT] >= 0.92 && again.p50 <= 90.0,
        "{again:?}"
    );
}

/// Whoever writes less than the path could take has no queue in it, and is not to be held back by a bound
/// that was never tried.
#[test]
fn a_near_and_fast_path_is_let_go_though_it_is_not_full() {
    let mut path = Path::new(1e9, 1 << 20, MS / 100, config());
    let (here, there) = path.bulk[CLIENT].take().unwrap();
    let until = path.now + 300 * MS;
    while path.now < until {
        path.write(CLIENT, here, 100 << 10);
        let mut got = 0;
        while got < 100 << 10 {
            path.step();
            got += path.read(SERVER, there);
        }
    }
    assert_eq!(path.ends[CLIENT].stats().flight_limit, None);
}

/// A thousand echoes are ten times what may go before an answer teaches something.
#[test]
fn echoes_without_bulk_go_on() {
    for (rate, delay) in [(SERIAL, Duration::ZERO), (1e6, MS / 10), (1e9, MS / 100)] {
        let mut path = Path::new(rate, 64 << 10, delay, config()).gap(MS / 100);
        path.bulk = [None, None];
        while path.trips.len() < 1000 {
            path.step();
        }
        let whole = 2.0 * (64 + HEADER_LEN + RECORD_EXTRA) as f64 / rate;
        let least = Duration::from_secs_f64(whole) + 2 * delay;
        let longest = path.trips.iter().max().unwrap();
        // A mark and its answer may be on the way before it.
        assert!(*longest < 2 * least, "{longest:?} of {least:?} at {rate}");
    }
}

/// Many small messages are bulk, but not for longer than a round trip.
#[test]
fn a_burst_of_small_messages_without_bulk() {
    let mut path = Path::new(1e8, 64 << 10, MS / 10, config());
    path.bulk = [None, None];
    path.next_probe = None;
    path.run(SECOND);
    let mut pairs = Vec::new();
    for _ in 0..200 {
        let here = path.ends[CLIENT].open(path.now).unwrap().unwrap();
        let there = loop {
            path.step();
            if let Some(key) = path.ends[SERVER].accept() {
                break key;
            }
        };
        pairs.push((here, there));
    }
    let from = path.now;
    for _ in 0..50 {
        for (here, _) in &pairs {
            path.write(CLIENT, *here, 500);
        }
        let mut got = 0;
        loop {
            path.settle();
            for (_, there) in &pairs {
                got += path.read(SERVER, *there);
            }
            if got == 200 * 500 {
                break;
            }
            path.step();
        }
    }
    // 1 ms each on the wire.
    let took = path.now - from;
    assert!(took < 50 * 3 * MS, "{took:?}");
}
