//! The two ends of a probe, without IO: time is an argument.
//!
//! ```text
//!   asker                                        answerer
//!   hello, ping 0..9         -- question -->     the same words as answer
//!   arm                      -- question -->     forgets what it has seen
//!   alphabet, blocks         == test data ==>    counts
//!   row 0..15, count         -- question -->     what it has seen
//!   alphabet, blocks N       -- question -->     test data, then the answer
//! ```
//!
//! Questions go again until they are answered, for any may be lost; all can be asked twice. Where the asker
//! hears its own questions and nobody answers, there is a loopback plug: then it counts its own test data,
//! and what it finds is true of both directions together.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::meter::Meter;
use super::wire::{self, BLOCK, Fate, Finder, Item, Line};

/// How long somebody must be silent until an own question that came back means a loopback plug.
const LOOPBACK: Duration = Duration::from_secs(2);
/// How often a question is asked.
const TRIES: u32 = 25;
const PINGS: u16 = 10;
/// Most blocks in one direction: their numbers have 16 bits, and nobody waits for more.
pub(crate) const BLOCKS_MAX: u16 = 8192;
/// What a driver may hold: the answer to a question behind test data comes only after that.
const DRIVER: f64 = 8192.0;

/// What was found out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Findings {
    pub(crate) loopback: bool,
    /// Round trips, in order of length.
    pub(crate) round_trips: Vec<Duration>,
    pub(crate) there: Meter,
    pub(crate) back: Meter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Hello,
    Ping(u16),
    Arm,
    /// Of a loopback: all that was sent is waited for.
    Listen,
    Row(u16),
    Count,
    AskAlphabet,
    AskBlocks,
    Done,
}

/// The end that asks.
#[derive(Debug)]
pub(crate) struct Asker {
    id: u16,
    blocks: u16,
    /// Bytes a second that are expected of the line.
    rate: f64,
    step: Step,
    tries: u32,
    begun: Instant,
    asked: Option<Instant>,
    deadline: Instant,
    echoed: bool,
    finder: Finder,
    meter: Meter,
    /// Test data that is to be sent yet: pieces, so that little waits below.
    out: VecDeque<Out>,
    findings: Findings,
    failed: bool,
}

/// Something to send.
#[derive(Debug)]
enum Out {
    Bytes(Vec<u8>),
    Blocks(std::ops::Range<u16>),
}

/// Bytes that wait in a queue.
#[cfg(test)]
fn waiting(out: &VecDeque<Out>) -> usize {
    let bytes = out.iter().map(|out| match out {
        Out::Bytes(bytes) => bytes.capacity(),
        Out::Blocks(_) => size_of::<Out>(),
    });
    bytes.sum()
}

/// The next piece, a few hundred bytes at most but for an alphabet.
fn next_piece(out: &mut VecDeque<Out>) -> Option<Vec<u8>> {
    loop {
        match out.front_mut()? {
            Out::Bytes(bytes) => {
                let bytes = std::mem::take(bytes);
                out.pop_front();
                return Some(bytes);
            }
            Out::Blocks(numbers) => {
                let some: Vec<u8> = numbers.take(8).flat_map(wire::block).collect();
                if !some.is_empty() {
                    return Some(some);
                }
                out.pop_front();
            }
        }
    }
}

impl Asker {
    pub(crate) fn new(id: u16, blocks: u16, rate: f64, now: Instant) -> Self {
        let findings = Findings {
            loopback: false,
            round_trips: Vec::new(),
            there: Meter::default(),
            back: Meter::default(),
        };
        let mut asker = Self {
            id,
            blocks: blocks.clamp(16, BLOCKS_MAX),
            rate: rate.max(1.0),
            step: Step::Hello,
            tries: 0,
            begun: now,
            asked: None,
            deadline: now,
            echoed: false,
            finder: Finder::default(),
            meter: Meter::default(),
            out: VecDeque::new(),
            findings,
            failed: false,
        };
        asker.ask(now);
        asker
    }

    /// The findings, once all is known.
    pub(crate) fn findings(&self) -> Option<&Findings> {
        (self.step == Step::Done).then_some(&self.findings)
    }

    /// Nobody answers (any more).
    pub(crate) fn has_failed(&self) -> bool {
        self.failed
    }

    /// Whether anybody has answered anything.
    pub(crate) fn has_heard(&self) -> bool {
        self.step != Step::Hello
    }

    /// Bytes that it keeps.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        waiting(&self.out) + self.finder.held()
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        next_piece(&mut self.out)
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        (self.step != Step::Done && !self.failed).then_some(self.deadline)
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if now < self.deadline || self.step == Step::Done || self.failed {
            return;
        }
        if !self.out.is_empty() {
            // The line has not taken it all yet.
            self.deadline = now + Duration::from_millis(500);
            return;
        }
        match self.step {
            Step::Hello if self.echoed && now >= self.begun + LOOPBACK => {
                self.findings.loopback = true;
                self.go(now, Step::Ping(0));
            }
            Step::Listen => {
                self.meter.sent = u64::from(self.blocks);
                self.findings.there = self.meter.clone();
                self.findings.back = self.meter.clone();
                self.step = Step::Done;
            }
            _ if self.tries >= TRIES => self.failed = true,
            _ => self.ask(now),
        }
    }

    pub(crate) fn handle_input(&mut self, now: Instant, bytes: &[u8]) {
        for item in self.finder.read(bytes) {
            match &item {
                Item::Line(line) => self.hear(now, line),
                item => {
                    self.meter.take(now, item);
                    if matches!(
                        self.step,
                        Step::Listen | Step::AskAlphabet | Step::AskBlocks
                    ) {
                        self.deadline = self.deadline.max(now + Duration::from_secs(1));
                    }
                }
            }
        }
    }

    fn hear(&mut self, now: Instant, line: &Line) {
        if line.id != self.id {
            return;
        }
        if !line.is_answer {
            self.echoed = true;
        }
        // With a loopback plug one's own question is the answer.
        if line.is_answer == self.findings.loopback {
            return;
        }
        let words: Vec<&str> = line.words.iter().map(String::as_str).collect();
        let number = |word: &str| u64::from_str_radix(word, 16).ok();
        match (self.step, &words[..]) {
            (Step::Hello, ["hello", ..]) => self.go(now, Step::Ping(0)),
            (Step::Ping(n), ["ping", k]) if number(k) == Some(u64::from(n)) => {
                // One that was asked twice may have been answered late.
                if let (Some(asked), 1) = (self.asked, self.tries) {
                    self.findings
                        .round_trips
                        .push(now.saturating_duration_since(asked));
                }
                self.findings.round_trips.sort();
                let next = if n + 1 < PINGS {
                    Step::Ping(n + 1)
                } else {
                    Step::Arm
                };
                self.go(now, next);
            }
            (Step::Arm, ["arm"]) => {
                self.meter = Meter::default();
                self.out.push_back(Out::Bytes(wire::alphabet()));
                self.out.push_back(Out::Bytes(wire::alphabet()));
                self.out.push_back(Out::Blocks(0..self.blocks));
                self.out.push_back(Out::Bytes(wire::PADDING.to_vec()));
                let next = if self.findings.loopback {
                    Step::Listen
                } else {
                    Step::Row(0)
                };
                self.go(now, next);
                let bytes = usize::from(self.blocks) * BLOCK + 4400;
                self.deadline = now + self.time_for(bytes);
            }
            (Step::Row(row), ["row", k, fates]) if number(k) == Some(u64::from(row)) => {
                let known = self
                    .findings
                    .there
                    .fates
                    .chunks_mut(16)
                    .nth(usize::from(row));
                for (known, letter) in known.into_iter().flatten().zip(fates.chars()) {
                    *known = Fate::of_letter(letter).unwrap_or(Fate::Unknown);
                }
                self.go(
                    now,
                    if row < 15 {
                        Step::Row(row + 1)
                    } else {
                        Step::Count
                    },
                );
            }
            (Step::Count, ["count", seen, flips, micros]) => {
                let there = &mut self.findings.there;
                there.sent = u64::from(self.blocks);
                there.seen = number(seen).unwrap_or(0).min(there.sent);
                there.flips = number(flips).unwrap_or(0).min(there.bits());
                there.span = Duration::from_micros(number(micros).unwrap_or(0));
                self.meter = Meter::default();
                self.go(now, Step::AskAlphabet);
            }
            (Step::AskAlphabet, ["alphabet"]) => self.go(now, Step::AskBlocks),
            (Step::AskBlocks, ["blocks", _]) => {
                self.meter.sent = u64::from(self.blocks);
                self.findings.back = self.meter.clone();
                self.step = Step::Done;
            }
            _ => {}
        }
    }

    fn go(&mut self, now: Instant, step: Step) {
        self.step = step;
        self.tries = 0;
        self.ask(now);
    }

    fn ask(&mut self, now: Instant) {
        let words = match self.step {
            Step::Hello => "hello 1".to_owned(),
            Step::Ping(n) => format!("ping {n:x}"),
            Step::Arm => "arm".to_owned(),
            Step::Row(row) => format!("row {row:x}"),
            Step::Count => "count".to_owned(),
            Step::AskAlphabet => "alphabet".to_owned(),
            Step::AskBlocks => format!("blocks {:x}", self.blocks),
            Step::Listen | Step::Done => return,
        };
        let line = Line {
            id: self.id,
            is_answer: false,
            words: words.split(' ').map(str::to_owned).collect(),
        };
        self.out.push_back(Out::Bytes(line.encode()));
        self.asked = Some(now);
        self.tries += 1;
        let answer = match self.step {
            Step::AskAlphabet => 4400,
            Step::AskBlocks => usize::from(self.blocks) * BLOCK,
            _ => 0,
        };
        let more = Duration::from_millis(200) * self.tries.min(10);
        self.deadline = now + self.time_for(answer) + more;
    }

    /// How long so many bytes, a question and an answer may take.
    fn time_for(&self, bytes: usize) -> Duration {
        #[allow(clippy::cast_precision_loss)]
        let bytes = bytes as f64;
        let driver = if bytes > 0.0 { DRIVER } else { 0.0 };
        let seconds = (bytes + driver + 200.0) / self.rate * 1.2;
        Duration::from_millis(300) + Duration::from_secs_f64(seconds.min(3600.0))
    }
}

/// The end that answers.
#[derive(Debug, Default)]
pub(crate) struct Answerer {
    finder: Finder,
    meter: Meter,
    out: VecDeque<Out>,
    /// Of who asks now.
    asker: Option<u16>,
    askers: u64,
}

impl Answerer {
    /// How many probes have begun.
    pub(crate) fn askers(&self) -> u64 {
        self.askers
    }

    /// Bytes that it keeps.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        waiting(&self.out) + self.finder.held()
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        next_piece(&mut self.out)
    }

    pub(crate) fn handle_input(&mut self, now: Instant, bytes: &[u8]) {
        for item in self.finder.read(bytes) {
            match &item {
                Item::Line(line) if !line.is_answer => self.answer(line),
                item => self.meter.take(now, item),
            }
        }
    }

    fn answer(&mut self, line: &Line) {
        // What is being sent is waited for; who asks again meanwhile is impatient.
        if !self.out.is_empty() {
            return;
        }
        if self.asker != Some(line.id) {
            self.asker = Some(line.id);
            self.askers += 1;
            self.meter = Meter::default();
        }
        let mut words = line.words.clone();
        let word = |n: usize| line.words.get(n).map_or("", String::as_str);
        match word(0) {
            "hello" | "ping" => {}
            "arm" => self.meter = Meter::default(),
            "row" => {
                let row = usize::from_str_radix(word(1), 16).unwrap_or(usize::MAX);
                let Some(fates) = self.meter.fates.chunks(16).nth(row) else {
                    return;
                };
                words.push(fates.iter().map(|fate| fate.letter()).collect());
            }
            "count" => {
                let Meter {
                    seen, flips, span, ..
                } = &self.meter;
                words.extend([
                    format!("{seen:x}"),
                    format!("{flips:x}"),
                    format!("{:x}", span.as_micros()),
                ]);
            }
            "alphabet" => {
                // Twice, for noise may hide a value.
                self.out.push_back(Out::Bytes(wire::alphabet()));
                self.out.push_back(Out::Bytes(wire::alphabet()));
            }
            "blocks" => {
                let blocks = u16::from_str_radix(word(1), 16)
                    .unwrap_or(0)
                    .min(BLOCKS_MAX);
                self.out.push_back(Out::Blocks(0..blocks));
                self.out.push_back(Out::Bytes(wire::PADDING.to_vec()));
            }
            _ => return,
        }
        let answer = Line {
            id: line.id,
            is_answer: true,
            words,
        };
        self.out.push_back(Out::Bytes(answer.encode()));
    }
}

/// Which numbers of a list are neighbours: `0-3, 7`.
pub(crate) fn ranges(values: &[u8]) -> String {
    let values: BTreeSet<u8> = values.iter().copied().collect();
    let mut runs: Vec<(u8, u8)> = Vec::new();
    for value in values {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(value) => *last = value,
            _ => runs.push((value, value)),
        }
    }
    let texts = runs.iter().map(|(first, last)| {
        if first == last {
            format!("{first:02x}")
        } else {
            format!("{first:02x}-{last:02x}")
        }
    });
    texts.collect::<Vec<_>>().join(" ")
}
