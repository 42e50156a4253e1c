//! The limits of a gate, why it turns somebody away, and how somebody inside fails.

use std::time::Duration;

/// The limits of a gate, each with what it is for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Streams inside, from everywhere; default 100. Bounds what strangers can make us hold.
    pub all: usize,
    /// From how many inside on far ones are dropped by chance; default 10.
    pub early: usize,
    /// With which chance, at `early`, in percent; default 30. It rises to 100 at `all`.
    pub early_percent: u8,
    /// Streams inside from one far source; default 8. One host can't take every place.
    pub one_source: usize,
    /// What a refused stream adds to its source's penalty; default 5 s.
    pub penalty_refused: Duration,
    /// What a stream that did not finish in time adds; default 10 s, since it held a place.
    pub penalty_timed_out: Duration,
    /// Up to which penalty a source is still let in; default 15 s.
    pub tolerated: Duration,
    /// The longest penalty; default 10 min.
    pub most: Duration,
    /// Sources whose penalty is remembered; default 1,024. Bounds the memory that a crowd can take.
    pub remembered: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            all: 100,
            early: 10,
            early_percent: 30,
            one_source: 8,
            penalty_refused: Duration::from_secs(5),
            penalty_timed_out: Duration::from_secs(10),
            tolerated: Duration::from_secs(15),
            most: Duration::from_secs(600),
            remembered: 1024,
        }
    }
}

/// How a stream that was inside came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failing {
    /// Its peer was refused, or did not speak our protocol.
    Refused,
    /// It did not finish in time.
    TimedOut,
}

/// Why there is no place. Each text is one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Turned {
    /// All places are taken.
    #[error("too many handshakes at once")]
    Full,
    /// Many places are taken, and chance was against this one.
    #[error("many handshakes at once, dropped by chance")]
    EarlyDrop,
    /// Its source has all the places that one source gets.
    #[error("too many handshakes at once from there")]
    Source,
    /// Too many from there have failed.
    #[error("too many failures from there, shut out for {} s", left.as_secs().max(1))]
    Penalty {
        /// For how long.
        left: Duration,
    },
}
