//! The limits of a gate, why it turns somebody away, and how somebody inside fails.

use std::time::Duration;

/// The limits of a gate, each with what it is for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Handshakes at once, from everywhere; default 100. Bounds what strangers can make us hold.
    pub all: usize,
    /// Handshakes at once from one far source; default 8. One host, one /64 or one relay can't take every place.
    pub one_source: usize,
    /// Streams that wait for a place, of all far sources together, and as many of this machine; default 256. What waits costs
    /// a descriptor.
    pub waiting: usize,
    /// Streams that wait, of one far source; default 32: a script that starts so many commands at once gets all of them in.
    pub waiting_one_source: usize,
    /// How long a stream waits for a place at most; default 6 s. A client gives up after 10 s, and its handshake has to
    /// fit behind that.
    pub patience: Duration,
    /// A handshake older than this gives its place to a source that has fewer places; default 500 ms. Most have ended by then.
    pub grace: Duration,
    /// A handshake older than this gives its place to whoever waits, also of its own source; default 4 s: six round trips on
    /// a slow path, and less than `patience`, so that whoever holds all places with silence can't keep others out.
    pub stale: Duration,
    /// What a refused stream adds to its source's penalty; default 5 s.
    pub penalty_refused: Duration,
    /// What a stream adds that its peer cut, or gave up, in the middle; default 1 s: bad lines and busy clients do that, and
    /// many may share one address.
    pub penalty_lost: Duration,
    /// What a stream that did not finish in time adds; default 10 s, since it held a place.
    pub penalty_timed_out: Duration,
    /// Up to which penalty a source is still let in; default 15 s.
    pub tolerated: Duration,
    /// The longest penalty; default 10 min.
    pub most: Duration,
    /// For how long a peer that was let in speaks for its source; default 1 h. Until then the source has no penalties, and goes
    /// before strangers.
    pub proven: Duration,
    /// Sources that are remembered for their penalties, for their successes and for their probes, each; default 1,024.
    /// Bounds the memory that a crowd can take.
    pub remembered: usize,
}

setters!(Config {
    with_all => all: usize,
    with_one_source => one_source: usize,
    with_waiting => waiting: usize,
    with_waiting_one_source => waiting_one_source: usize,
    with_patience => patience: Duration,
    with_grace => grace: Duration,
    with_stale => stale: Duration,
    with_penalty_refused => penalty_refused: Duration,
    with_penalty_lost => penalty_lost: Duration,
    with_penalty_timed_out => penalty_timed_out: Duration,
    with_tolerated => tolerated: Duration,
    with_most => most: Duration,
    with_proven => proven: Duration,
    with_remembered => remembered: usize,
});

impl Default for Config {
    fn default() -> Self {
        Self {
            all: 100,
            one_source: 8,
            waiting: 256,
            waiting_one_source: 32,
            patience: Duration::from_secs(6),
            grace: Duration::from_millis(500),
            stale: Duration::from_secs(4),
            penalty_refused: Duration::from_secs(5),
            penalty_lost: Duration::from_secs(1),
            penalty_timed_out: Duration::from_secs(10),
            tolerated: Duration::from_secs(15),
            most: Duration::from_secs(600),
            proven: Duration::from_secs(3600),
            remembered: 1024,
        }
    }
}

/// How a stream that was inside came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// Its peer was refused, or did not speak our protocol.
    Refused,
    /// Its connection was lost, or given up by its peer, before that had proven anything.
    Lost,
    /// It did not finish in time.
    TimedOut,
}

/// Why a stream got no place, or lost it. Each text is one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejected {
    /// All places are taken, and as many wait as may.
    #[error("too many handshakes at once")]
    Full,
    /// Its source has all the places that one source gets, and as many wait as may.
    #[error("too many handshakes at once from there")]
    Source,
    /// It waited for a place, and got none in time.
    #[error("too many handshakes at once: waited {} s for a place", waited.as_secs())]
    Waited {
        /// For how long.
        waited: Duration,
    },
    /// It had a place, and a source that had fewer needed it; or it took very long, and somebody waited.
    #[error("too many handshakes at once: another one took its place")]
    Evicted,
    /// Too many from there have failed.
    #[error("too many failures from there, shut out for {} s", left.as_secs().max(1))]
    Penalty {
        /// For how long.
        left: Duration,
    },
}
