//! How two ends agree on an epoch, and how one notices that the other began anew.
//!
//! Each end draws a number when it starts, its *nonce*. An opening carries the sender's nonce and
//! echoes the one that it has heard. The epoch is the pair, and all other frames are sealed with it.
//!
//! ```text
//!              the client speaks first; a server is silent until it hears a valid opening
//!  Opening --+-- an opening that echoes our nonce -----------------------> Established
//!            +-- a frame that is sealed with both nonces ----------------> Established
//!            |   (whoever is established by an opening sends one at once: it is shorter than an answer)
//!            +-- another opening: note its nonce, answer with ours ------> Opening
//!
//!  Established
//!            +-- an opening of our peer that waits for an answer: answer
//!            +-- an opening with another nonce: it may be years old, or a newcomer. Answer "busy",
//!            |   echoing it; the epoch goes on
//!            +-- ... with another nonce that echoes ours: a newcomer that is alive --> Restarted
//! ```
//!
//! Whoever gets a "busy" echoes the nonce in it, and goes on opening: the other end will have ended the
//! old epoch by then. Each answer is caused by one opening of the same length, and there are at most ten a
//! second, so no flood comes of it. `opening_table.txt` has what every opening does in every state.

use std::time::{Duration, Instant};

use super::frame::Hello;
use super::half_duplex::Random;

/// Between openings without an answer, at first and at most.
const FIRST: Duration = Duration::from_millis(30);
const LAST: Duration = Duration::from_millis(500);

/// Between answers of an established end: whoever floods it with openings, or plays old ones again, gets
/// ten answers a second.
const ANSWERS: Duration = Duration::from_millis(100);

/// What an opening led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Nothing,
    Established,
    Restarted,
}

#[derive(Debug)]
pub(crate) struct Opening {
    /// What we say of ourselves; nonce and parameters are filled in, the rest differs.
    ours: Hello,
    theirs: Option<Hello>,
    established: bool,
    /// We may send openings unasked.
    speaks: bool,
    /// To be sent as soon as the line takes it.
    answer: Option<Hello>,
    /// The other end waits for a sign that we know it, and any frame of the epoch is one.
    proof_due: bool,
    /// When an established end last answered.
    answered_at: Option<Instant>,
    /// When the last one went.
    sent_at: Option<Instant>,
    retry_at: Instant,
    pause: Duration,
    /// Where the line carries one way at a time: keeps two ends from opening at the same time for ever.
    random: Option<Random>,
}

impl Opening {
    pub(crate) fn new(now: Instant, ours: Hello, speaks: bool) -> Self {
        Self {
            ours,
            theirs: None,
            established: false,
            speaks,
            answer: None,
            proof_due: false,
            answered_at: None,
            sent_at: None,
            retry_at: now,
            pause: FIRST,
            random: ours.half.then(|| Random::new(ours.nonce)),
        }
    }

    pub(crate) fn is_established(&self) -> bool {
        self.established
    }

    /// We were told that the line carries one way at a time.
    pub(crate) fn is_half(&self) -> bool {
        self.ours.half
    }

    /// Our nonce, and the one that was heard last.
    pub(crate) fn nonces(&self) -> Option<(u64, u64)> {
        Some((self.ours.nonce, self.theirs?.nonce))
    }

    /// When the last opening went out.
    pub(crate) fn sent_at(&self) -> Option<Instant> {
        self.sent_at
    }

    /// What the other end said of itself.
    pub(crate) fn theirs(&self) -> Option<Hello> {
        self.theirs
    }

    /// A frame was sealed with both nonces, so the other end knows ours.
    pub(crate) fn confirm(&mut self) {
        self.established = true;
    }

    /// Whether it is one of this end, which the line reflects.
    pub(crate) fn is_ours(&self, open: &Hello) -> bool {
        open.nonce == self.ours.nonce
    }

    /// An opening has come.
    pub(crate) fn handle(&mut self, now: Instant, open: Hello) -> Verdict {
        let ours = self.ours.nonce;
        if self.is_ours(&open) {
            // The line reflects what we send.
            return Verdict::Nothing;
        }
        let echoed = open.echo == ours;
        if self.established {
            if self.theirs.is_some_and(|theirs| theirs.nonce == open.nonce) {
                if open.unsure {
                    let answer = self.say(open.nonce, false);
                    self.answer_rarely(now, answer);
                }
                return Verdict::Nothing;
            }
            if echoed {
                return Verdict::Restarted;
            }
            let busy = self.say(open.nonce, false);
            self.answer_rarely(now, Hello { busy: true, ..busy });
            return Verdict::Nothing;
        }
        if open.busy {
            if echoed {
                self.answer = Some(self.say(open.nonce, true));
            }
            return Verdict::Nothing;
        }
        self.theirs = Some(open);
        self.speaks = true;
        self.established = echoed;
        if !echoed {
            self.answer = Some(self.say(open.nonce, true));
        }
        self.proof_due = echoed && open.unsure;
        if echoed {
            Verdict::Established
        } else {
            Verdict::Nothing
        }
    }

    /// Answers unless that was done just before.
    fn answer_rarely(&mut self, now: Instant, answer: Hello) {
        if self.answered_at.is_none_or(|at| now >= at + ANSWERS) {
            self.answered_at = Some(now);
            self.answer = Some(answer);
        }
    }

    /// Whether the other end has to hear something of the epoch, to know that it has begun. Said once; if
    /// that is lost, the other end's next opening gets an answer.
    pub(crate) fn take_proof_due(&mut self) -> bool {
        std::mem::take(&mut self.proof_due)
    }

    /// Asks the other end of an epoch whether it is still the same.
    pub(crate) fn probe(&mut self) {
        if let Some(theirs) = self.theirs {
            self.answer = Some(self.say(theirs.nonce, true));
        }
    }

    /// The opening to be sent now, if one is due. `takes`: how long the line is busy with it. `listen`:
    /// something is coming that may be an answer.
    pub(crate) fn poll(&mut self, now: Instant, takes: Duration, listen: bool) -> Option<Hello> {
        let unasked = !listen && self.next().is_some_and(|at| at <= now);
        let echo = self.theirs.map_or(0, |theirs| theirs.nonce);
        let open = match self.answer.take() {
            Some(answer) => answer,
            None if unasked => self.say(echo, true),
            None => return None,
        };
        self.sent_at = Some(now);
        // An answer is as good as an opening of our own accord.
        self.retry_at = now + self.pause + takes * 3;
        if let Some(random) = &mut self.random {
            self.retry_at += (self.pause + takes) * random.next() / 256;
        }
        self.pause = (self.pause * 2).min(LAST);
        Some(open)
    }

    /// When an opening is due that nobody asked for.
    pub(crate) fn next(&self) -> Option<Instant> {
        (self.speaks && !self.established).then_some(self.retry_at)
    }

    fn say(&self, echo: u64, unsure: bool) -> Hello {
        Hello {
            unsure,
            echo,
            ..self.ours
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    const OURS: u64 = 1;
    const PEER: u64 = 2;
    const STRANGER: u64 = 3;

    fn open(nonce: u64, echo: u64, unsure: bool, busy: bool) -> Hello {
        Hello {
            busy,
            unsure,
            half: false,
            escapes: 0,
            window: 15,
            payload: 1024,
            nonce,
            echo,
            mtu: 0,
        }
    }

    fn name(nonce: u64) -> &'static str {
        match nonce {
            0 => "nobody",
            OURS => "ours",
            PEER => "peer",
            _ => "stranger",
        }
    }

    /// Every state, reached from the start.
    fn states(now: Instant) -> Vec<(&'static str, Opening)> {
        let new = |speaks| Opening::new(now, open(OURS, 0, true, false), speaks);
        let mut heard = new(false);
        heard.handle(now, open(PEER, 0, true, false));
        heard.poll(now, Duration::ZERO, false);
        let mut established = new(true);
        established.handle(now, open(PEER, OURS, false, false));
        established.poll(now, Duration::ZERO, false);
        vec![
            ("speaking", new(true)),
            ("silent", new(false)),
            ("heard peer", heard),
            ("established with peer", established),
        ]
    }

    #[test]
    fn what_an_opening_does_is_what_the_table_says() {
        let now = Instant::now();
        let mut table = String::new();
        for state in 0..states(now).len() {
            writeln!(table, "{}", states(now)[state].0).unwrap();
            for nonce in [OURS, PEER, STRANGER] {
                for echo in [0, OURS, PEER] {
                    for (unsure, busy) in [(true, false), (false, false), (true, true)] {
                        let mut opening = states(now).swap_remove(state).1;
                        let verdict = opening.handle(now, open(nonce, echo, unsure, busy));
                        let answer = opening.answer.map_or("no answer".to_owned(), |answer| {
                            format!(
                                "answer{}{} to {}",
                                if answer.busy { " busy" } else { "" },
                                if answer.unsure { " unsure" } else { "" },
                                name(answer.echo)
                            )
                        });
                        writeln!(
                            table,
                            "    {} echoes {}{}{}: {verdict:?}, {answer}{}; {}",
                            name(nonce),
                            name(echo),
                            if unsure { ", unsure" } else { "" },
                            if busy { ", busy" } else { "" },
                            if opening.proof_due { ", proof" } else { "" },
                            match opening.theirs {
                                Some(theirs) if opening.established =>
                                    format!("established with {}", name(theirs.nonce)),
                                Some(theirs) => format!("heard {}", name(theirs.nonce)),
                                None => "heard nobody".to_owned(),
                            }
                        )
                        .unwrap();
                    }
                }
            }
        }
        assert_eq!(
            table,
            include_str!("opening_table.txt"),
            "the table that was made is:\n{table}"
        );
    }

    #[test]
    fn a_flood_of_openings_gets_ten_answers_a_second() {
        let start = Instant::now();
        let mut opening = states(start).swap_remove(3).1;
        let mut answers = 0;
        for step in 0..2000 {
            let now = start + Duration::from_millis(step);
            for nonce in [PEER, STRANGER, 4 + step] {
                let _ = opening.handle(now, open(nonce, 0, true, false));
                answers += u32::from(opening.poll(now, Duration::ZERO, false).is_some());
            }
        }
        assert_eq!(answers, 20);
    }
}
