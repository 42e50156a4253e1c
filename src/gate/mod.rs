//! How many strangers may be on their way to a session at once.
//!
//! Whoever can connect can hold a handshake open until it times out, and a handshake costs us more
//! than it costs them. So a stream takes a place in the [`Gate`] before anything is spent on it, and
//! gives it back when its peer has proven who it is, or has failed to:
//!
//! ```
//! use cepa::gate::{Failing, Gate, Source};
//! # let (stream, _) = cepa::transports::memory::pair();
//!
//! let gate = Gate::default();
//! match gate.enter(Source::from(stream.remote())) {
//!     // … the handshake; then one of these:
//!     Ok(pass) => pass.let_in(),
//!     // Pass::failed(Failing::Refused), Pass::failed(Failing::TimedOut)
//!     Err(turned) => println!("{turned}"),
//! }
//! ```
//!
//! Streams of this machine count only all together; see [`Source::is_far`]. What limits one handshake
//! in time is [`StackConfig`](crate::stack::StackConfig)'s.
//!
//! | file | holds |
//! | --- | --- |
//! | `engine.rs` | the counts and the rules, without a clock |
//! | `rules.rs` | the limits, and the answers |
//! | `source.rs` | who counts as one stranger |

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

mod engine;
mod rules;
mod source;

pub use rules::{Config, Failing, Turned};
pub use source::Source;

use engine::Engine;

/// Counts the strangers; see the [module](self). Clones are the same gate.
#[derive(Clone)]
pub struct Gate {
    engine: Arc<Mutex<Engine>>,
    random: RandomState,
    drawn: Arc<AtomicU64>,
}

/// A place inside. Dropped without a word, it is given back and nothing is noted.
#[derive(Debug)]
#[must_use = "the place is given back when this is dropped"]
pub struct Pass {
    gate: Gate,
    source: Source,
}

impl Default for Gate {
    fn default() -> Self {
        Self::new(Config::default())
    }
}

impl Gate {
    /// A gate with nobody inside.
    pub fn new(config: Config) -> Self {
        Self {
            engine: Arc::new(Mutex::new(Engine::new(config))),
            random: RandomState::new(),
            drawn: Arc::default(),
        }
    }

    /// Asks for a place.
    pub fn enter(&self, source: Source) -> Result<Pass, Turned> {
        // A keyed hash of a counter: nobody outside can tell what comes next.
        let draw = self
            .random
            .hash_one(self.drawn.fetch_add(1, Ordering::Relaxed));
        let draw = u32::try_from(draw >> 32).unwrap_or(u32::MAX);
        self.engine().enter(Instant::now(), source, draw)?;
        Ok(Pass {
            gate: self.clone(),
            source,
        })
    }

    fn engine(&self) -> MutexGuard<'_, Engine> {
        // The counts are right after every call.
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass {
    /// The peer has proven who it is, and is welcome: its source's penalty is lifted.
    pub fn let_in(self) {
        self.gate.engine().let_in(self.source);
    }

    /// It came to nothing: its source gets a penalty.
    pub fn failed(self, failing: Failing) {
        self.gate
            .engine()
            .failed(Instant::now(), self.source, failing);
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.gate.engine().leave(self.source);
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("config", self.engine().config())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use super::*;

    fn far_source(host: u8) -> Source {
        Source::from(IpAddr::from([192, 0, 2, host]))
    }

    #[test]
    fn a_pass_gives_its_place_back_however_it_ends() {
        let config = Config {
            all: 1,
            ..Config::default()
        };
        let gate = Gate::new(config);
        let far = || gate.enter(far_source(1));
        let first = far().unwrap();
        assert_eq!(far().unwrap_err(), Turned::Full);
        drop(first);
        far().unwrap().let_in();
        for _ in 0..4 {
            far().unwrap().failed(Failing::Refused);
        }
        match far().unwrap_err() {
            Turned::Penalty { left } => assert!(left <= Duration::from_secs(5)),
            other => panic!("{other:?}"),
        }
        // A source apart is none the worse.
        drop(gate.enter(far_source(2)).unwrap());
    }

    #[test]
    fn chance_is_on_nobody_s_side() {
        let gate = Gate::default();
        let held: Vec<_> = (0..10)
            .map(|i| gate.enter(far_source(i)).unwrap())
            .collect();
        let dropped = (0..2000)
            .filter(|_| gate.enter(far_source(77)).is_err())
            .count();
        // 30 % of 2,000 is 600; twelve standard deviations either way.
        assert!((350..850).contains(&dropped), "{dropped}");
        drop(held);
    }
}
