//! A machine that has more to do than it can: each end gets its turn when all the others had theirs. The path between the ends is a socket
//! of the same machine, so it is fast and has room; what takes time is to be asked. Pacing has to tell that from a slow path.
//!
//! All sessions do the same here, so one is looked at, and each of its turns takes as long as those of all.

use super::*;

/// What a turn costs, and each write of it, in seconds; and a byte that is sent or read.
const TURN: f64 = 40e-6;
const WRITE: f64 = 8e-6;
const BYTE: f64 = 1e-9;

/// What a socket of this machine holds.
const SOCKET: usize = 2 << 20;

/// Rounds of reading and writing in one turn, and bytes of one read: the driver's.
const ROUNDS: usize = 4;
const READ: usize = 32 << 10;

struct Machine {
    now: Instant,
    start: Instant,
    ends: [Engine; 2],
    /// What is on the way, and when it is there.
    sockets: [VecDeque<(Instant, Bytes)>; 2],
    /// Bytes a second of what is between the ends.
    rate: f64,
    most: usize,
    bulk: (Key, Key),
    both: bool,
    back: (Key, Key),
    sessions: f64,
    piece: Bytes,
    got: u64,
    writes: u64,
    jitter: u64,
}

impl Machine {
    fn new(pacing: bool, seed: u64) -> Self {
        let config = Config {
            pacing,
            ..Config::default()
        };
        let start = Instant::now();
        let mut ends = [
            Engine::new(Side::Client, config.clone(), 1, start),
            Engine::new(Side::Server, config, 2, start),
        ];
        let here = [(); 2].map(|()| ends[CLIENT].open(start).unwrap().unwrap());
        let mut machine = Self {
            now: start,
            start,
            ends,
            sockets: [VecDeque::new(), VecDeque::new()],
            rate: 1e10,
            most: 0,
            bulk: (here[0], here[0]),
            both: false,
            back: (here[1], here[1]),
            sessions: 1.0,
            piece: vec![7; 64 << 10].into(),
            got: 0,
            writes: 0,
            jitter: seed,
        };
        let mut there = Vec::new();
        while there.len() < 2 {
            machine.step();
            there.extend(std::iter::from_fn(|| machine.ends[SERVER].accept()));
        }
        machine.bulk.1 = there[0];
        machine.back = (there[1], here[1]);
        machine
    }

    /// Between half and one and a half.
    fn chance(&mut self) -> f64 {
        self.jitter = self
            .jitter
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        0.5 + (self.jitter >> 40) as f64 / f64::from(1 << 24)
    }

    fn write(&mut self, end: usize, key: Key) {
        while let Poll::Ready(Ok(space)) = self.ends[end].write_space(key, Waker::noop()) {
            let n = space.min(self.piece.len());
            self.ends[end].write(key, self.piece.slice(..n));
        }
    }

    fn read(&mut self, end: usize, key: Key) -> u64 {
        let mut n = 0;
        while let Poll::Ready(Ok(Some(piece))) = self.ends[end].read(key, Waker::noop()) {
            n += piece.len() as u64;
        }
        n
    }

    /// One end's driver and its application; what it cost.
    fn turn(&mut self, end: usize) -> f64 {
        let due = |engine: &Engine, now| engine.poll_timeout().is_some_and(|at| at <= now);
        let now = self.now;
        let is_there =
            |socket: &VecDeque<(Instant, Bytes)>| socket.front().is_some_and(|(at, _)| *at <= now);
        let has_work = is_there(&self.sockets[1 - end])
            || self.ends[end].wants_transmit()
            || due(&self.ends[end], self.now);
        if !has_work {
            return 0.0;
        }
        let mut cost = TURN;
        for _ in 0..ROUNDS {
            let mut read = 0;
            while read < READ
                && is_there(&self.sockets[1 - end])
                && let Some((_, bytes)) = self.sockets[1 - end].pop_front()
            {
                read += bytes.len();
                self.ends[end].handle_input(self.now, bytes);
            }
            if due(&self.ends[end], self.now) {
                self.ends[end].handle_timeout(self.now);
            }
            let mut wrote = 0;
            let full: usize = self.sockets[end].iter().map(|(_, bytes)| bytes.len()).sum();
            self.most = self.most.max(full);
            if full < SOCKET {
                let mut batch = Batch::default();
                self.ends[end].poll_transmit(self.now, &mut batch);
                let mut bytes = written(&mut batch);
                wrote = bytes.len();
                if wrote > 0 {
                    cost += WRITE;
                    self.writes += 1;
                }
                while !bytes.is_empty() {
                    let record = bytes.split_to(bytes.len().min(TLS_RECORD));
                    let free = self.sockets[end].back().map_or(now, |(at, _)| now.max(*at));
                    let takes = Duration::from_secs_f64(record.len() as f64 / self.rate);
                    self.sockets[end].push_back((free + takes, record));
                }
            }
            cost += (read + wrote) as f64 * BYTE;
            if read + wrote == 0 {
                break;
            }
        }
        assert!(self.ends[end].end().is_none(), "{:?}", self.ends[end].end());
        cost
    }

    fn applications(&mut self) {
        let (here, there) = self.bulk;
        self.write(CLIENT, here);
        self.got += self.read(SERVER, there);
        if self.both {
            let (here, there) = self.back;
            self.write(SERVER, here);
            self.read(CLIENT, there);
        }
    }

    /// Both ends have their turn, as those of all the others.
    fn step(&mut self) {
        let mut idle = true;
        for end in [CLIENT, SERVER] {
            self.applications();
            let cost = self.turn(end);
            idle &= cost == 0.0;
            let all = cost * self.sessions * self.chance();
            self.now += Duration::from_secs_f64(all);
        }
        if idle {
            let deadlines = self.ends.iter().filter_map(Engine::poll_timeout);
            let sockets = self.sockets.iter().filter_map(|it| it.front());
            let arrivals = sockets.map(|(at, _)| *at);
            let next = deadlines
                .chain(arrivals)
                .min()
                .expect("something to happen");
            let since = next.max(self.now + Duration::from_nanos(1)) - self.start;
            let tick = u32::try_from(since.as_nanos().div_ceil(1_000_000)).unwrap();
            self.now = self.start + tick * MS;
        }
    }

    /// Bytes a second that arrive within so long, and bytes of a write.
    fn measure(&mut self, time: Duration) -> (f64, f64) {
        let (from, got, writes) = (self.now, self.got, self.writes);
        while self.now < from + time {
            self.step();
        }
        let bytes = (self.got - got) as f64;
        let seconds = (self.now - from).as_secs_f64();
        (bytes / seconds, bytes / (self.writes - writes) as f64)
    }
}

/// Rates of the whole machine in MB/s, unpaced and paced, for so many sessions after a moment alone.
fn crowd(sessions: f64, both: bool, alone: Duration, seed: u64) -> [f64; 2] {
    [false, true].map(|pacing| {
        let mut machine = Machine::new(pacing, seed);
        machine.both = both;
        machine.measure(alone);
        machine.sessions = sessions;
        machine.measure(40 * SECOND);
        let (rate, write) = machine.measure(20 * SECOND);
        println!(
            "{sessions} sessions, both {both}, alone {alone:?}, paced {pacing}: {:.1} MB/s, {write:.0} B a write; {:?}",
            rate * sessions / 1e6,
            machine.ends[CLIENT].stats().flight_limit
        );
        rate * sessions / 1e6
    })
}

#[test]
fn a_machine_that_is_late_is_no_slow_path() {
    let mut slow = Vec::new();
    for sessions in [20.0, 200.0, 2000.0] {
        for both in [false, true] {
            for alone in [0, 10, 1000] {
                let [unpaced, paced] = crowd(sessions, both, alone * MS, 2);
                if paced < 0.6 * unpaced {
                    slow.push(format!(
                        "{sessions} sessions, both {both}, {alone} ms alone: {paced:.1} of {unpaced:.1} MB/s"
                    ));
                }
            }
        }
    }
    assert!(slow.is_empty(), "{slow:#?}");
}

/// Both at once: the line is used, and not filled with what waits.
#[test]
fn a_slow_path_stays_one_on_a_machine_that_is_late() {
    for (sessions, share) in [(100.0, 0.9), (1000.0, 0.5), (5000.0, 0.25)] {
        let mut machine = Machine::new(true, 1);
        machine.rate = SERIAL;
        machine.measure(5 * SECOND);
        machine.sessions = sessions;
        machine.measure(30 * SECOND);
        machine.most = 0;
        let (rate, _) = machine.measure(60 * SECOND);
        let most = machine.most;
        println!("{sessions} sessions: {rate:.0} B/s, {most} B in flight at most");
        assert!(rate >= share * SERIAL, "{sessions} sessions: {rate:.0} B/s");
        // What the line takes in two turns of both ends, and as much again.
        let turns = 4.0 * sessions * TURN * SERIAL;
        let bound = (2.0 * turns) as usize + (4 << 10);
        assert!(most <= bound, "{sessions} sessions: {most} of {bound} B");
    }
}
