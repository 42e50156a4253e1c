//! Either end is killed and started again, at any moment: nothing of an old stream gets into a new one,
//! and the end that lived on learns it soon.

use super::super::error::LinkError;
use super::*;
use cepa_transports::endpoint::Duplex;
use cepa_transports::testkit::Rng;

const RATE: f64 = 2880.0;

/// What the application at one end does: it says who it is, and then bytes that only it says.
struct App {
    id: u64,
    written: u64,
    /// Who the other end said it is, and how many bytes came behind that.
    peer: Option<u64>,
    head: Vec<u8>,
    read: u64,
    /// Instances at the other end that had died before this one began.
    dead: Vec<u64>,
}

impl App {
    fn new(id: u64, dead: &[u64]) -> Self {
        Self {
            id,
            written: 0,
            peer: None,
            head: Vec::new(),
            read: 0,
            dead: dead.to_vec(),
        }
    }

    fn write(&mut self, engine: &mut Engine, now: Instant, most: usize) {
        let mut piece = vec![0; most.min(engine.room(now))];
        if self.written == 0 && piece.len() >= 8 {
            engine.write(now, &self.id.to_be_bytes());
            self.written = 8;
        } else if self.written > 0 {
            fill(self.id, self.written, &mut piece);
            self.written += engine.write(now, &piece) as u64;
        }
    }

    fn read(&mut self, engine: &mut Engine) {
        let mut got = Vec::new();
        engine.read(usize::MAX, |part| got.extend(part));
        if self.peer.is_none() {
            let lacks = got.len().min(8 - self.head.len());
            self.head.extend(got.drain(..lacks));
            if let Ok(head) = <[u8; 8]>::try_from(self.head.as_slice()) {
                let peer = u64::from_be_bytes(head);
                assert!(!self.dead.contains(&peer), "bytes of a dead end came");
                self.peer = Some(peer);
                self.read = 8;
            }
        }
        if let Some(peer) = self.peer {
            verify(peer, self.read, &got).unwrap();
            self.read += got.len() as u64;
        }
    }
}

struct World {
    bench: Bench,
    apps: [App; 2],
    config: Config,
    next: u64,
    rng: Rng,
}

impl World {
    fn new(noise: Noise, seed: u64) -> Self {
        Self::on(&known(RATE), noise, seed)
    }

    /// On a line that carries one way at a time, where the configuration says so.
    fn on(config: &Config, noise: Noise, seed: u64) -> Self {
        let settings = LineSettings {
            fifo: 64,
            ..noisy(RATE, noise)
        };
        let bench = if config.duplex == Duplex::Half {
            half::shared(&settings, [config, config], seed.is_multiple_of(2), seed)
        } else {
            Bench::new(&settings, config, seed)
        };
        Self {
            bench,
            apps: [App::new(1, &[]), App::new(2, &[])],
            config: config.clone(),
            next: 3,
            rng: Rng::new(seed),
        }
    }

    fn start(&mut self, end: usize) {
        let side = [Side::Client, Side::Server][end];
        let id = self.next;
        self.next += 1;
        let nonce = self.rng.next_u64() | 1;
        self.bench.ends[end] = Engine::new(side, &self.config, nonce, self.bench.now);
        self.bench.out[end].clear();
        // Whoever lives at the other end lives on, until it hears of us.
        let other = self.apps[1 - end].id;
        let mut dead: Vec<u64> = (1..id).collect();
        dead.retain(|old| *old != other);
        self.apps[end] = App::new(id, &dead);
    }

    /// Runs for a while, both ends talking.
    fn run(&mut self, time: Duration, most: usize) {
        let until = self.bench.now + time;
        while self.bench.now < until {
            self.turn(most);
        }
    }

    fn turn(&mut self, most: usize) {
        let now = self.bench.now;
        self.bench.settle();
        for end in 0..2 {
            self.apps[end].write(&mut self.bench.ends[end], now, most);
        }
        self.bench.settle();
        for end in 0..2 {
            self.apps[end].read(&mut self.bench.ends[end]);
        }
        self.bench.step();
    }

    /// Kills one end and starts it anew; the other one has to notice.
    fn restart(&mut self, end: usize, down: Duration) {
        // Half a frame may be in the driver, and what a board says when it starts.
        let cut = self.rng.between(0, self.bench.out[end].len());
        let mut left = self.bench.out[end][..cut].to_vec();
        let boot: &[&[u8]] = &[
            b"",
            b"\r\nU-Boot 2026.01\r\nHit any key ~ ",
            &[0x7e, 0, 0xff, 0x7d],
        ];
        left.extend(boot[self.rng.between(0, boot.len() - 1)]);
        self.start(end);
        let now = self.bench.now;
        self.bench.wires.write(now, end, &left);
        // Nobody is there meanwhile.
        let until = now + down;
        self.bench.dead = Some(end);
        while self.bench.now < until {
            self.bench.settle();
            self.bench.step();
        }
        self.bench.dead = None;
        let began = self.bench.now;
        while self.bench.ends[1 - end].end().is_none() {
            self.turn(100);
            let took = self.bench.now - began;
            assert!(took <= Duration::from_secs(3), "not noticed for {took:?}");
        }
        let how = self.bench.ends[1 - end].end();
        assert!(
            matches!(how, Some(End::Failed(LinkError::Restarted))),
            "{how:?}"
        );
        // As a stack does that is told to connect again.
        self.start(1 - end);
        let began = self.bench.now;
        while self.apps.iter().any(|app| app.read < 60) {
            self.turn(100);
            let took = self.bench.now - began;
            assert!(took <= Duration::from_secs(3), "no new link for {took:?}");
        }
        for end in 0..2 {
            assert_eq!(self.apps[end].peer, Some(self.apps[1 - end].id));
        }
    }
}

fn restarts(noise: Noise, times: usize, seed: u64) {
    restarts_on(&known(RATE), noise, times, seed);
}

fn restarts_on(config: &Config, noise: Noise, times: usize, seed: u64) {
    let ms = Duration::from_millis;
    let mut world = World::on(config, noise, seed);
    world.run(ms(400), 100);
    for _ in 0..times {
        for end in 0..2 {
            let pause = ms(world.rng.between(0, 300) as u64);
            let most = world.rng.between(8, 400);
            world.run(pause, most);
            let down = ms([0, 0, 1, 40, 700][world.rng.between(0, 4)]);
            world.restart(end, down);
        }
    }
}

#[test]
fn two_hundred_restarts_of_each_end() {
    restarts(Noise::default(), 200, 1);
}

#[test]
fn restarts_where_ends_take_turns() {
    for (seed, times) in [(4, 100), (5, 50)] {
        restarts_on(&half::half(RATE), Noise::default(), times, seed);
    }
    let noise = Noise {
        bit_errors: 1e-5,
        drops: 1e-5,
        ..Noise::default()
    };
    restarts_on(&half::half(RATE), noise, 20, 6);
}

#[test]
fn restarts_on_a_noisy_line() {
    let noise = Noise {
        bit_errors: 1e-5,
        drops: 1e-5,
        ..Noise::default()
    };
    restarts(noise, 20, 2);
}

#[test]
fn a_damaged_start_of_both_ends_at_once() {
    let mut world = World::new(Noise::default(), 3);
    for _ in 0..50 {
        let pause = world.rng.between(0, 200) as u64;
        world.run(Duration::from_millis(pause), 100);
        for end in 0..2 {
            world.bench.wires.flush(end);
            world.start(end);
        }
        world.run(Duration::from_millis(800), 100);
        for end in 0..2 {
            assert_eq!(world.apps[end].peer, Some(world.apps[1 - end].id));
        }
    }
}

#[test]
fn a_silent_other_end_is_given_up() {
    let mut bench = Bench::new(&LineSettings::new(RATE), &known(RATE), 1);
    transfer(&mut bench, RATE, 1000, Duration::from_secs(2));
    let gone = bench.now;
    bench.dead = Some(1);
    while bench.ends[0].end().is_none() {
        bench.settle();
        bench.step();
        assert!(bench.now < gone + Duration::from_secs(62));
    }
    let how = bench.ends[0].end();
    assert!(
        matches!(how, Some(End::Failed(LinkError::Silent { seconds: 60 }))),
        "{how:?}"
    );
    assert!(bench.now >= gone + Duration::from_secs(58));
}

#[test]
fn a_foreign_opening_ends_nothing_and_is_answered_once() {
    // The openings of a dead instance, as a buffer may hold them, come again and again.
    let mut bench = Bench::new(&LineSettings::new(RATE), &known(RATE), 1);
    let mut stale = Vec::new();
    Engine::new(Side::Client, &known(RATE), 77, bench.now).poll_transmit(bench.now, &mut stale);
    transfer(&mut bench, RATE, 1000, Duration::from_secs(2));
    for _ in 0..10 {
        let now = bench.now;
        bench.ends[1].handle_input(now, &stale);
        let before = bench.wires.carried(1) + bench.wires.queued(now, 1) as u64;
        bench.settle();
        let after = bench.wires.carried(1) + bench.wires.queued(now, 1) as u64;
        assert!(
            after - before <= 2 * stale.len() as u64,
            "{}",
            after - before
        );
        for _ in 0..50 {
            bench.settle();
            bench.step();
        }
    }
    assert!(bench.ends.iter().all(|end| end.end().is_none()));
}
