//! What a membrane has let through: which service stands for which reference, and whether all of it is revoked.
//!
//! A reference that passes is kept here, and the peer that it is given to gets another one: to a service of this node
//! that nobody else can know, signed by this node, for that peer alone, on the terms of the first. Whoever opens that is
//! joined to the service of the reference that is kept, through this membrane again.
//!
//! One that comes back is not taken out of its wrapping: who gave it away gets one to the same service.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use data_encoding::BASE32_NOPAD;
use tokio::sync::watch;

use crate::identity::{PeerId, UnixTime, default_provider};
use crate::node::{Hint, Node, PeerAddr};
use crate::protocols::forward::{DEFAULT_PLACES, Places};
use crate::protocols::introduction::{Flaw, Introduction, Introductions};

use super::event::MembraneEvent;
use super::message::MessageFlaw;

/// Services that stand for references, of one membrane, and those that one peer has given: at up to 24 kB each.
const MOST: usize = 1024;
const MOST_OF_ONE: usize = 256;

/// Begins the names of those services: they are the protocol's own, which no peer opens but with an introduction.
const PREFIX: &str = crate::session::reserved::MEMBRANE_PREFIX;

/// What does not pass a membrane. Each text is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MembraneError {
    /// Nothing passes it any more.
    #[error("this membrane was revoked: ask who runs it for another way")]
    Revoked,
    /// It has as many references as it may have.
    #[error(
        "a reference that does not pass: the membrane has {MOST} already, or {MOST_OF_ONE} of this peer"
    )]
    Full,
    /// A reference that is of no use to the membrane's node.
    #[error("a reference that does not pass, since it is for {recipient}: make it for {node}")]
    NotForUs {
        /// Whom it is for.
        recipient: PeerId,
        /// Whom it has to be for.
        node: PeerId,
    },
    /// A reference to the node itself.
    #[error("a reference that does not pass: it is to a service of the membrane's own node")]
    Own,
    /// A reference that does not hold.
    #[error("a reference that does not pass: {0}")]
    Flaw(#[from] Flaw),
    /// Not the messages that a membrane understands.
    #[error("{0}; only services that speak in messages can be behind a membrane")]
    Message(#[from] MessageFlaw),
    /// One of the two streams failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// A reference that was let through.
struct Kept {
    /// The service that stands for it.
    service: String,
    it: Introduction,
    /// Who has given it.
    from: PeerId,
}

#[derive(Default)]
struct Inside {
    revoked: bool,
    /// By the names of the references.
    kept: HashMap<[u8; 32], Kept>,
}

/// See the head of this file.
pub(super) struct State {
    introductions: Introductions,
    places: Places,
    hints: Vec<Hint>,
    inside: Mutex<Inside>,
    revoked: watch::Sender<bool>,
    /// Streams that are joined, or about to be.
    busy: watch::Sender<usize>,
}

/// One stream more, until dropped.
pub(super) struct Busy(Arc<State>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.send_modify(|busy| *busy -= 1);
    }
}

/// Makes the handler of a service that stands for a reference.
pub(super) type Serve = fn(&Arc<State>, &str, Introduction);

impl State {
    pub(super) fn new(introductions: Introductions, hints: Vec<Hint>) -> Self {
        Self {
            introductions,
            places: Places::new(DEFAULT_PLACES),
            hints,
            inside: Mutex::default(),
            revoked: watch::Sender::new(false),
            busy: watch::Sender::new(0),
        }
    }

    pub(super) fn node(&self) -> &Node {
        self.introductions.node()
    }

    pub(super) fn introductions(&self) -> &Introductions {
        &self.introductions
    }

    /// Places for streams that are joined at once.
    pub(super) fn places(&self) -> &Places {
        &self.places
    }

    /// A place for a stream, unless nothing passes any more.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Busy> {
        let inside = self.inside();
        if inside.revoked {
            return None;
        }
        // Under the lock, so that who revokes counts it or keeps it out.
        self.busy.send_modify(|busy| *busy += 1);
        Some(Busy(Arc::clone(self)))
    }

    /// Cuts everything, and lets nothing in any more. Does not wait.
    pub(super) fn cut(&self) {
        let mut inside = self.inside();
        inside.revoked = true;
        self.revoked.send_replace(true);
    }

    pub(super) fn is_revoked(&self) -> bool {
        self.inside().revoked
    }

    /// Waits until it is revoked.
    pub(super) async fn revoked(&self) {
        let mut revoked = self.revoked.subscribe();
        // What it gives holds a lock, and must not live on in the caller's task.
        let _ = revoked.wait_for(|revoked| *revoked).await;
    }

    /// Waits until no stream is joined.
    pub(super) async fn idle(&self) {
        let mut busy = self.busy.subscribe();
        let _ = busy.wait_for(|busy| *busy == 0).await;
    }

    /// How many references were let through, and have not expired.
    pub(super) fn references(&self) -> usize {
        let now = UnixTime::now();
        let inside = self.inside();
        let kept = inside.kept.values();
        kept.filter(|kept| kept.it.expires() >= now).count()
    }

    /// The services that stand for references.
    pub(super) fn services(&self) -> Vec<String> {
        let inside = self.inside();
        inside
            .kept
            .values()
            .map(|kept| kept.service.clone())
            .collect()
    }

    /// What `to` gets where `from` gives it a reference.
    pub(super) fn wrap(
        self: &Arc<Self>,
        it: &Introduction,
        from: PeerId,
        to: PeerId,
        serve: Serve,
    ) -> Result<Introduction, MembraneError> {
        let own_id = self.node().id();
        let now = UnixTime::now();
        it.holds(now)?;
        let address = it
            .address()
            .ok_or_else(|| Flaw::Malformed("it has no links".into()))?;
        let service = if address.peer() == own_id {
            self.ours(it, address.service(), from)?
        } else {
            let node = own_id;
            if let Some(recipient) = it.recipient().filter(|recipient| *recipient != node) {
                return Err(MembraneError::NotForUs { recipient, node });
            }
            self.keep(it, from, now, serve)?
        };
        let mut terms = it.terms()?;
        terms.recipient = Some(to);
        let mut own = self.hints.iter().cloned();
        let own = own.try_fold(PeerAddr::new(own_id), PeerAddr::with_hint);
        let own = own.and_then(|own| own.with_service(&service));
        let own = own.map_err(|e| Flaw::Malformed(e.to_string()))?;
        let wrapped = Introduction::new(self.node().identity(), &own, terms, now)?;
        self.node().emit(MembraneEvent {
            from,
            to,
            service: address.service().to_owned(),
            owner: address.peer(),
        });
        Ok(wrapped)
    }

    /// The service of a reference that this membrane has made, and that `from` was given.
    fn ours(
        &self,
        it: &Introduction,
        service: &str,
        from: PeerId,
    ) -> Result<String, MembraneError> {
        // Anybody can sign one to a service of this node; here as there it counts from this node alone.
        if it.issuers().first() != Some(&self.node().id()) {
            return Err(MembraneError::Own);
        }
        if it.recipient() != Some(from) {
            return Err(Flaw::NotYours.into());
        }
        if let Some(by) = self.introductions.revoked_by(it) {
            return Err(Flaw::Revoked { by }.into());
        }
        let inside = self.inside();
        if inside.revoked {
            return Err(MembraneError::Revoked);
        }
        let mut kept = inside.kept.values();
        let known = kept.any(|kept| kept.service == service);
        known.then(|| service.to_owned()).ok_or(MembraneError::Own)
    }

    /// Keeps a reference; the service that stands for it.
    fn keep(
        self: &Arc<Self>,
        it: &Introduction,
        from: PeerId,
        now: UnixTime,
        serve: Serve,
    ) -> Result<String, MembraneError> {
        let name = it.name()?;
        let mut random = [0; 16];
        let filled = default_provider().secure_random.fill(&mut random);
        filled.map_err(|_| Flaw::Sign("no random bytes".into()))?;
        let random = BASE32_NOPAD.encode(&random).to_lowercase();
        let service = format!("{PREFIX}{random}");
        let mut inside = self.inside();
        if inside.revoked {
            return Err(MembraneError::Revoked);
        }
        if let Some(kept) = inside.kept.get(&name) {
            return Ok(kept.service.clone());
        }
        let full = |inside: &Inside| {
            let of_one = inside.kept.values().filter(|kept| kept.from == from);
            inside.kept.len() >= MOST || of_one.count() >= MOST_OF_ONE
        };
        if full(&inside) {
            inside.kept.retain(|_, kept| {
                let good = kept.it.expires() >= now;
                if !good {
                    self.node().withdraw(&kept.service);
                }
                good
            });
        }
        if full(&inside) {
            return Err(MembraneError::Full);
        }
        let kept = Kept {
            service: service.clone(),
            it: it.clone(),
            from,
        };
        inside.kept.insert(name, kept);
        serve(self, &service, it.clone());
        Ok(service)
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        // Each change is whole after the one statement that makes it.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
