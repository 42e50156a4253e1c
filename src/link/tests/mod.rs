//! Two engines and a line between them, in virtual time. Every run is the same, on every machine.
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

mod chatter;
mod disturbed;
mod goodput;
mod half;
mod line_settings;
mod restarts;
mod seeds;
mod table;
mod vectors;

use std::time::{Duration, Instant};

use cepa_transports::testkit::{LineSettings, Medium, Noise, fill, verify};
use cepa_transports::{Rate, Side};

use super::codec::FLAG;
use super::config::Config;
use super::engine::{End, Engine, Waits};

/// A line with both its directions, and an engine at each end.
pub(super) struct Bench {
    pub(super) start: Instant,
    pub(super) now: Instant,
    pub(super) ends: [Engine; 2],
    pub(super) wires: Medium,
    /// Wire bytes that the driver has not taken.
    pub(super) out: [Vec<u8>; 2],
    /// Timers fire at multiples of this, as a runtime's do.
    pub(super) tick: Duration,
    /// This end is dead, and what comes for it is lost.
    pub(super) dead: Option<usize>,
    /// No write is longer, and each is one frame.
    pub(super) mtu: Option<usize>,
    /// Bytes of the longest write so far.
    pub(super) longest: usize,
    /// Steps in a row that took no time.
    hurried: u32,
}

impl Bench {
    pub(super) fn new(settings: &LineSettings, config: &Config, seed: u64) -> Self {
        Self::between(settings, [config, config], seed)
    }

    /// The ends were told different things.
    pub(super) fn between(settings: &LineSettings, configs: [&Config; 2], seed: u64) -> Self {
        let start = Instant::now();
        let end = |side, nonce| {
            let config = configs[usize::from(side == Side::Server)];
            Engine::new(side, config, nonce, start)
        };
        let configured = configs.iter().filter_map(|config| config.mtu);
        Self {
            start,
            now: start,
            ends: [
                end(Side::Client, 2 * seed + 1),
                end(Side::Server, 2 * seed + 2),
            ],
            wires: Medium::two_way(settings, settings, seed, start),
            out: [Vec::new(), Vec::new()],
            tick: Duration::from_millis(1),
            dead: None,
            mtu: configured.min().map(usize::from),
            longest: 0,
            hurried: 0,
        }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Moves bytes at this moment, until nothing moves.
    pub(super) fn settle(&mut self) {
        let now = self.now;
        for end in [1, 0] {
            let bytes = self.wires.read(now, end);
            if !bytes.is_empty() && self.dead != Some(end) {
                self.ends[end].handle_input(now, &bytes);
            }
        }
        for end in 0..2 {
            if self.dead != Some(end) {
                self.settle_end(now, end);
            }
        }
    }

    /// What one end has to do at this moment by itself.
    fn settle_end(&mut self, now: Instant, end: usize) {
        let (engine, out) = (&mut self.ends[end], &mut self.out[end]);
        engine.handle_timeout(now);
        loop {
            let taken = self.wires.write(now, end, out);
            out.drain(..taken);
            if !out.is_empty() || !engine.poll_transmit(now, out) {
                break;
            }
            self.longest = out.len().max(self.longest);
            if let Some(mtu) = self.mtu {
                // The first opening may come before it is known that the other end wants this.
                let inside = out.strip_prefix(&[FLAG]).unwrap_or(out);
                let inside = inside.strip_suffix(&[FLAG]).unwrap();
                assert!(!inside.contains(&FLAG), "two frames at once");
                assert!(
                    out.len() <= mtu,
                    "a frame of {} bytes, mtu {mtu}",
                    out.len()
                );
            }
        }
    }

    /// Goes on to the next moment at which something happens.
    pub(super) fn step(&mut self) {
        let living = (0..2).filter(|end| self.dead != Some(*end));
        let waits = Waits {
            room: true,
            flush: false,
        };
        let timers = living.filter_map(|end| {
            let at = self.ends[end].poll_timeout(self.now, waits, !self.out[end].is_empty())?;
            Some(self.whole(at))
        });
        let next = timers.chain(self.wires.next()).min();
        let before = self.now;
        self.now = next.map_or(self.now + self.tick, |at| {
            at.max(self.now + Duration::from_micros(1))
        });
        self.hurried = if self.now - before > Duration::from_micros(2) {
            0
        } else {
            self.hurried + 1
        };
        assert!(
            self.hurried < 1000,
            "a deadline that is always past: it spins"
        );
    }

    fn whole(&self, at: Instant) -> Instant {
        let tick = self.tick.as_nanos();
        let after = at.saturating_duration_since(self.start).as_nanos();
        let ticks = u32::try_from(after.div_ceil(tick)).unwrap();
        self.start + self.tick * ticks
    }
}

/// What a transfer came to.
#[derive(Debug)]
pub(super) struct Transfer {
    /// From the first byte written to the last byte read, the opening included.
    pub(super) took: Duration,
    /// Share of the line's rate.
    pub(super) share: f64,
    /// The longest time without progress.
    pub(super) gap: Duration,
}

/// Sends so many bytes from the first end to the second, and checks each.
pub(super) fn transfer(bench: &mut Bench, rate: f64, bytes: u64, limit: Duration) -> Transfer {
    let (mut written, mut read) = (0, 0);
    let mut last = bench.now;
    let mut gap = Duration::ZERO;
    while read < bytes {
        bench.settle();
        let now = bench.now;
        let left = usize::try_from(bytes - written).unwrap_or(usize::MAX);
        let room = bench.ends[0].room(now).min(left);
        if room > 0 {
            let mut piece = vec![0; room];
            fill(9, written, &mut piece);
            written += bench.ends[0].write(now, &piece) as u64;
            bench.settle();
        }
        let mut got = Vec::new();
        if bench.ends[1].read(usize::MAX, |part| got.extend(part)) > 0 {
            verify(9, read, &got).unwrap();
            read += got.len() as u64;
            gap = gap.max(now - last);
            last = now;
        }
        for end in &bench.ends {
            assert!(end.end().is_none(), "{:?}", end.end());
        }
        assert!(
            bench.elapsed() < limit,
            "{read} of {bytes} bytes after {limit:?}; {:?}",
            bench.ends[0].stats()
        );
        bench.step();
    }
    let took = bench.elapsed();
    Transfer {
        took,
        share: bytes as f64 / took.as_secs_f64() / rate,
        gap,
    }
}

pub(super) fn noisy(rate: f64, noise: Noise) -> LineSettings {
    LineSettings {
        noise,
        ..LineSettings::new(rate)
    }
}

pub(super) fn known(rate: f64) -> Config {
    Config {
        line_rate: Some(Rate::bytes_per_second(rate)),
        ..Config::default()
    }
}
