//! Whose turn it is, on a line that carries one way at a time.
//!
//! ```text
//!   ours    -- said all, or talked for long enough: hand it over ---------------> theirs
//!   theirs  -- the other end hands it over -------------------------------------> ours
//!   theirs  -- silence for longer than it could be an answer's: ask, hand over -> theirs
//!   ours    -- the other end talks: it took the turn that it believed lost -----> theirs
//! ```
//!
//! A turn that is lost is found by silence. The client waits for less than the server, and a random part of
//! each wait keeps two clients apart; whoever hears the other one waits on. So where both have talked at
//! once, and nobody has heard anything, one of them speaks first. Waits double while nothing comes.
//!
//! Who has nothing to say holds its turn for a moment, longer on a line that has been idle for longer: what
//! the application answers goes at once, and an idle line is not full of turns.

use std::time::{Duration, Instant};

/// How long an end talks where the other one may want to; what a keystroke waits for at most.
const TALK: Duration = Duration::from_millis(120);

/// ... longer where each turn costs much by itself: so many times the answer's delay, but not for longer than this.
const TALK_PART: u32 = 3;
const TALK_MOST: Duration = Duration::from_secs(1);

/// Where that delay is at least so long and the other end had nothing to say in its turn: so many times the delay, up to this.
const FAR: Duration = Duration::from_millis(100);
const FAR_PART: u32 = 9;
const FAR_MOST: Duration = Duration::from_secs(3);

/// Between the end of what is heard and the beginning of what is said: the other end has to let go of the
/// wires. Bytes of the line as in Modbus, which has 3.5, and a time for who does it by a timer.
const GAP: Duration = Duration::from_millis(1);
pub(crate) const GAP_BYTES: usize = 4;

/// How long a turn is held with nothing to say, at least and at most; a part of the time without data.
const HOLD: Duration = Duration::from_millis(10);
const HOLD_MOST: Duration = Duration::from_millis(100);
const HOLD_PART: u32 = 8;

/// Silence that timers and adapters make by themselves.
const SILENCE: Duration = Duration::from_millis(30);

/// Doublings of a wait, and what it is not doubled beyond: a new instance at the other end is to be noticed
/// within 3 s.
const DOUBLINGS: u32 = 3;
const WAIT_MOST: Duration = Duration::from_millis(400);

/// Longest answer that is believed.
const REPLY_MOST: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct HalfDuplex {
    ours: bool,
    /// Since when.
    since: Instant,
    /// Wire bytes that we have sent in it.
    sent: usize,
    /// The other end had more to say when it handed over.
    more: bool,
    /// It has said something in its last turn; in the one that it has now.
    has_said: bool,
    says: bool,
    /// When data passed last, in either direction.
    data_at: Instant,
    /// Of the last turn that was handed to us, to be told; 0 for none.
    heard: u8,
    /// Of the last that we handed over.
    number: u8,
    /// When we began the turn that we handed over last, and the bytes we sent in it.
    last: (Instant, usize),
    /// When the other end began to talk since.
    began: Option<Instant>,
    /// How long the other end takes to answer: at most lately, and at least.
    reply: Duration,
    least: Duration,
    /// Times in a row that nothing came.
    tries: u32,
    client: bool,
    random: Random,
    /// Random part of this wait, in 256ths.
    chance: u32,
}

/// What is told with a turn that is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handing {
    pub(crate) number: u8,
    pub(crate) answer: u8,
}

impl HalfDuplex {
    /// `ours`: we have the first one. `reply`: how long an answer to the opening took.
    pub(crate) fn new(now: Instant, ours: bool, client: bool, reply: Duration, seed: u64) -> Self {
        let mut random = Random::new(seed);
        Self {
            ours,
            since: now,
            sent: 0,
            more: false,
            has_said: false,
            says: false,
            data_at: now,
            heard: 0,
            number: 0,
            last: (now, 0),
            began: None,
            reply: reply.min(REPLY_MOST),
            least: reply,
            tries: 0,
            client,
            chance: random.next(),
            random,
        }
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.ours
    }

    /// Nothing was said in it yet.
    pub(crate) fn is_fresh(&self) -> bool {
        self.sent == 0
    }

    /// Wire bytes that we have sent in it.
    pub(crate) fn sent(&self) -> usize {
        self.sent
    }

    /// When we may begin to talk; `gap` is what [`GAP_BYTES`] take.
    pub(crate) fn talk_at(&self, gap: Duration) -> Instant {
        self.since + GAP.max(gap)
    }

    /// How long we may talk.
    pub(crate) fn talk(&self) -> Duration {
        let waits = self.has_said || self.more;
        if self.is_far() && !waits {
            return (self.least * FAR_PART).min(FAR_MOST);
        }
        TALK.max((self.least * TALK_PART).min(TALK_MOST))
    }

    /// Whether the answer takes long, whatever is said.
    pub(crate) fn is_far(&self) -> bool {
        self.least >= FAR
    }

    /// When to hand over with nothing said.
    pub(crate) fn held_until(&self) -> Instant {
        if self.more {
            self.since
        } else {
            self.since + self.hold(self.since)
        }
    }

    fn hold(&self, at: Instant) -> Duration {
        let idle = at.saturating_duration_since(self.data_at);
        (idle / HOLD_PART).clamp(HOLD, HOLD_MOST)
    }

    /// When the other end's turn is taken to be lost, with nothing on the line since `quiet`. `fifo`: what
    /// a UART holds back.
    pub(crate) fn lost_at(&self, quiet: Instant, fifo: Duration) -> Instant {
        // The other end may hold it, and believe that the line has been idle for longer.
        let hold = self.hold(quiet) * 5 / 4;
        let wait = SILENCE + fifo + self.reply * 3 / 2 + hold;
        let first = wait * if self.client { 1 } else { 2 };
        let doubled = first * (1 << self.tries.min(DOUBLINGS));
        quiet + doubled.min(WAIT_MOST).max(first) + wait * self.chance / 512
    }

    /// We have sent data.
    pub(crate) fn said(&mut self, now: Instant, len: usize) {
        self.sent += len;
        self.data_at = now;
    }

    /// The other end is there.
    pub(crate) fn is_answered(&mut self) {
        self.tries = 0;
    }

    /// A valid frame of the other end's has come, which took so long on the line.
    pub(crate) fn hears(&mut self, now: Instant, took: Duration, data: bool) {
        self.tries = 0;
        if data {
            self.data_at = now;
            self.says = true;
        }
        self.ours = false;
        self.began
            .get_or_insert(now.checked_sub(took).unwrap_or(now));
    }

    /// The other end hands over, and what it says answers a turn of ours that left the line then. Gives bytes and
    /// seconds of that turn, if it was the last.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        handing: Handing,
        more: bool,
        left: Option<Instant>,
    ) -> Option<(usize, Duration)> {
        let began = self.began.take().unwrap_or(now);
        if let Some(left) = left {
            let sample = began.saturating_duration_since(left).min(REPLY_MOST);
            self.reply = sample.max(self.reply * 7 / 8);
        }
        self.ours = true;
        self.since = now;
        self.sent = 0;
        self.more = more;
        self.has_said = std::mem::take(&mut self.says);
        self.heard = handing.number;
        let (start, bytes) = self.last;
        if handing.answer != self.number || handing.answer == 0 {
            return None;
        }
        let took = began.saturating_duration_since(start);
        if bytes == 0 {
            self.least = self.least.min(took);
        }
        // Nearly all of it may be the answer's delay, of which little is known.
        Some((bytes, took.saturating_sub(self.least).max(took / 4)))
    }

    /// Hands our turn over.
    pub(crate) fn hand_over(&mut self) -> Handing {
        self.last = (self.since, self.sent);
        self.ask()
    }

    /// Takes the turn for as long as it takes to hand it over: nothing has come.
    pub(crate) fn take(&mut self, now: Instant) -> Handing {
        self.last = (now, 0);
        self.missed();
        self.ask()
    }

    /// Nothing has come, once more.
    pub(crate) fn missed(&mut self) {
        self.tries += 1;
        self.chance = self.random.next();
    }

    fn ask(&mut self) -> Handing {
        // 0 is none.
        self.number = self.number.checked_add(1).unwrap_or(1);
        self.ours = false;
        self.sent = 0;
        self.began = None;
        Handing {
            number: self.number,
            answer: self.heard,
        }
    }
}

/// Keeps two ends from doing the same at the same time; xorshift (Marsaglia, 2003).
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.max(1))
    }

    /// 0 to 255.
    pub(crate) fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::from(self.0.to_be_bytes()[0])
    }
}
