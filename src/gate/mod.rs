//! How many strangers may be on their way to a session at once.
//!
//! Whoever can connect can hold a handshake open until it times out, and a handshake costs us more
//! than it costs them. So a stream takes a place in the [`Gate`] before anything is spent on it, waits for one if need be, and
//! gives it back when its peer has proven who it is, or has failed to:
//!
//! ```
//! use cepa::gate::{Failure, Gate, Source};
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! # let (stream, _) = cepa::transports::memory::pair();
//! # async fn handshake() {}
//!
//! let gate = Gate::default();
//! match gate.enter(Source::from(stream.remote())).await {
//!     Ok(mut pass) => tokio::select! {
//!         // Then, as it went: Pass::let_in(), Pass::failed(Failure::Refused), Pass::failed(Failure::Lost), Pass::failed(Failure::TimedOut),
//!         // or Pass::probe(), where the peer left before it said anything.
//!         () = handshake() => pass.let_in(),
//!         turned = pass.evicted() => println!("{turned}"),
//!     },
//!     Err(turned) => println!("{turned}"),
//! }
//! # });
//! ```
//!
//! The aim is that nobody honest is kept out, whatever strangers do. Places are shared by source: an IPv4 address, an IPv6
//! network of 64 bits, a relay that brings circuits, and this machine, whose streams count only all together
//! ([`Source::is_far`]). When all are taken, the source that holds the most gives up its oldest for one that would have fewer;
//! `engine.rs` has the rules, and its tests a world in which one allowed peer, one relay and 20 hosts do their worst,
//! and nine of ten who come then are in within a second.
//!
//! OpenSSH's `MaxStartups` (10:30:100), which stood here before, drops newcomers by chance, more often as places fill. It
//! bounds the cost, as this does, but it can't tell who holds the places: once strangers hold them all, everybody else is turned
//! away until one of theirs ends, and to hold them all takes 13 hosts with 8 each. A burst of honest clients is dropped by the
//! same chance although it would be over in a moment; here it [waits](Config::patience). In the same world, with the same
//! limit a source, an early drop lets in fewer than one in ten: that is measured in the same test. What
//! `MaxStartups` has for itself, that it needs no memory of who is inside, matters for a process that forks for each connection.
//!
//! What limits one handshake in time is [`StackConfig`](crate::stack::StackConfig)'s.
//!
//! | file | holds |
//! | --- | --- |
//! | `engine.rs` | places, the queue, and what is remembered of sources, without a clock |
//! | `rules.rs` | the limits, and the answers |
//! | `source.rs` | who counts as one stranger |

use std::collections::HashMap;
use std::fmt;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, watch};

mod engine;
mod rules;
mod source;

pub use rules::{Config, Failure, Rejected};
pub use source::Source;

use engine::{Engine, Event, Ticket};

/// Counts the strangers; see the [module](self). Clones are the same gate.
#[derive(Clone)]
pub struct Gate {
    shared: Arc<Mutex<Shared>>,
    /// [`Shared::set_for`] has become earlier.
    earlier: Arc<Notify>,
}

struct Shared {
    engine: Engine,
    /// How it stands with each stream; gone when the stream is.
    standing: HashMap<Ticket, watch::Sender<Place>>,
    /// For when the task is set that calls the engine when it is time; it lives as long as somebody waits.
    set_for: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Waiting,
    Inside,
    Out(Rejected),
}

/// A place inside. Dropped without a word, it is given back and nothing is noted.
#[derive(Debug)]
#[must_use = "the place is given back when this is dropped"]
pub struct Pass {
    gate: Gate,
    ticket: Ticket,
    source: Source,
    standing: watch::Receiver<Place>,
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
            shared: Arc::new(Mutex::new(Shared {
                engine: Engine::new(config),
                standing: HashMap::new(),
                set_for: None,
            })),
            earlier: Arc::default(),
        }
    }

    /// Asks for a place, and waits for one: [`Config::patience`] at most. To be called inside a tokio runtime with time
    /// enabled.
    ///
    /// # Errors
    /// Why there is none; at once where it can't be waited for.
    ///
    /// # Cancel safety
    /// Dropping the future gives the attempt up, and the place in the queue.
    pub async fn enter(&self, source: Source) -> Result<Pass, Rejected> {
        let mut pass = self.knock(source)?;
        let standing = pass.standing.wait_for(|it| *it != Place::Waiting).await;
        match standing.map(|it| *it) {
            Ok(Place::Out(turned)) => Err(turned),
            // The sender lives as long as the pass.
            Ok(Place::Waiting | Place::Inside) | Err(_) => Ok(pass),
        }
    }

    /// A stream that waits, or is inside already.
    fn knock(&self, source: Source) -> Result<Pass, Rejected> {
        let mut shared = self.shared();
        let entered = shared.engine.enter(now(), source);
        let (sender, standing) = watch::channel(Place::Waiting);
        if let Ok(ticket) = entered {
            shared.standing.insert(ticket, sender);
        }
        let alone = shared.set_for.is_none();
        // Others may have got a place meanwhile, also where there is none for this one.
        self.deliver_events(&mut shared);
        if alone && shared.set_for.is_some() {
            tokio::spawn(self.clone().keep_time());
        }
        drop(shared);
        let ticket = entered?;
        Ok(Pass {
            gate: self.clone(),
            ticket,
            source,
            standing,
        })
    }

    /// Calls the engine when it is time, as long as somebody waits.
    async fn keep_time(self) {
        // Also where its runtime ends before the gate does.
        let mut set = Set(Some(self));
        loop {
            let Some(gate) = &set.0 else { return };
            let at = {
                let mut shared = gate.shared();
                shared.engine.handle_timeout(now());
                shared.set_for = None;
                gate.deliver_events(&mut shared);
                shared.set_for
            };
            let Some(at) = at else {
                // The lock is free again: who knocks now sets the time anew, and that stays.
                set.0 = None;
                return;
            };
            tokio::select! {
                () = tokio::time::sleep_until(at.into()) => {}
                () = gate.earlier.notified() => {}
            }
        }
    }

    /// Passes on what the engine has decided, and sets the time for it.
    fn deliver_events(&self, shared: &mut Shared) {
        while let Some((ticket, event)) = shared.engine.poll_event() {
            let standing = match event {
                Event::Admitted => Place::Inside,
                Event::Out(turned) => Place::Out(turned),
            };
            if let Some(sender) = shared.standing.get(&ticket) {
                sender.send_replace(standing);
            }
        }
        let Some(at) = shared.engine.poll_timeout(now()) else {
            return;
        };
        match shared.set_for {
            Some(set) if set <= at => return,
            Some(_) => self.earlier.notify_one(),
            // Who keeps the time looks for itself, and begins to where nobody waited.
            None => {}
        }
        shared.set_for = Some(at);
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        // The counts are right after every call.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody keeps the time; dropped while it holds a gate, nobody does any more.
struct Set(Option<Gate>);

impl Drop for Set {
    fn drop(&mut self) {
        if let Some(gate) = &self.0 {
            gate.shared().set_for = None;
        }
    }
}

/// By tokio's clock, so that a test can pause it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Pass {
    /// Waits until the place is taken away for another stream, and says so: drop the stream then. Never ends where it is
    /// not.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn evicted(&mut self) -> Rejected {
        let out = |it: &Place| matches!(it, Place::Out(_));
        match self.standing.wait_for(out).await.map(|it| *it) {
            Ok(Place::Out(turned)) => turned,
            _ => pending().await,
        }
    }

    /// The peer has proven who it is, and is welcome: its source's penalty is lifted, and for a while ([`Config::proven`]) its
    /// source is no stranger.
    pub fn let_in(self) {
        self.gate.shared().engine.let_in(now(), self.source);
    }

    /// It came to nothing: its source gets a penalty, unless it is proven, or of this machine.
    pub fn failed(self, failing: Failure) {
        let mut shared = self.gate.shared();
        let engine = &mut shared.engine;
        engine.failed(now(), self.ticket, self.source, failing);
    }

    /// The peer left before it had said anything, as a load balancer does that looks whether we are alive: no failure.
    /// Whether this is worth a line in a log: the first from its source for a minute is.
    pub fn probe(self) -> bool {
        let mut shared = self.gate.shared();
        shared.engine.probe(now(), self.ticket, self.source)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut shared = self.gate.shared();
        shared.standing.remove(&self.ticket);
        shared.engine.leave(now(), self.ticket, self.source);
        self.gate.deliver_events(&mut shared);
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("config", self.shared().engine.config())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
