//! What a membrane has let through: which service stands for which reference, and whether all of it is revoked.
//!
//! A reference that passes is kept here, and the peer that it is given to gets another one: to a service of this node
//! that nobody else can know, signed by this node, for that peer alone, on the terms of the first. Whoever opens that is
//! joined to the service of the reference that is kept, through this membrane again.
//!
//! One that comes back is not taken out of its wrapping: who gets it gets one to the same service. Where another membrane of
//! this node has made it, it is kept like any other, and its service leads through both ([`Passage`]).
//!
//! What stands for a reference stays bound to what it was made from: it says so itself, in a statement that this node
//! has signed, and the book of this node's introductions holds it to that (`../introduction/book.rs`). So uses are counted
//! together, and what is revoked takes along what was made from it.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use data_encoding::BASE32_NOPAD;
use futures::future::select_all;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken as Busy;

use crate::backend::random;
use crate::identity::{PeerId, UnixTime};
use crate::node::{Call, Hint, Node, PeerAddr};
use crate::protocols::forward::{DEFAULT_PLACES, place, places};
use crate::protocols::introduction::{
    Ancestor, ChainFlaw, Flaw, Introduction, Introductions, Name, Party,
};
use crate::protocols::places::{Place, Places};
use crate::protocols::pool::Denied;

use super::event::MembraneEvent;
use super::message::MessageFlaw;

/// Services that stand for references, of one membrane, and those that one peer has given: at up to 24 kB each.
const MOST: usize = 1024;
const MOST_OF_ONE: usize = 256;

/// Most membranes of one node that a service leads through.
const MOST_THROUGH: usize = 8;

/// Begins the names of those services: they are the protocol's own, which no peer opens but with an introduction.
const PREFIX: &str = crate::session::reserved::MEMBRANE_PREFIX;

/// What does not pass a membrane. Each text is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MembraneError {
    /// Nothing passes it any more.
    #[error("this membrane was revoked: ask its owner for another one")]
    Revoked,
    /// Its place was wanted for a peer that had none.
    #[error("this membrane is full, and the stream was idle")]
    TakenBack,
    /// It has as many references as it may have.
    #[error("reference refused: the membrane already has {MOST}, or {MOST_OF_ONE} from this peer")]
    Full,
    /// A reference that is of no use to the membrane's node.
    #[error("reference refused: it is for {recipient}; make it for {node}")]
    NotForUs {
        /// Whom it is for.
        recipient: PeerId,
        /// Whom it has to be for.
        node: PeerId,
    },
    /// It leads through as many membranes as it may.
    #[error("reference refused: it already leads through {MOST_THROUGH} membranes")]
    TooManyMembranes,
    /// A reference to the node itself.
    #[error("reference refused: it is for a service of the membrane's own node")]
    Own,
    /// A reference that does not hold.
    #[error("reference refused: {0}")]
    Flaw(#[from] Flaw),
    /// Not the messages that a membrane understands.
    #[error("{0}; only services that speak in messages can be behind a membrane")]
    Message(#[from] MessageFlaw),
    /// One of the two streams failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl MembraneError {
    /// Whether it may pass later, with nothing changed here.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::TakenBack | Self::Full | Self::Io(_))
    }
}

impl From<MembraneError> for io::Error {
    fn from(error: MembraneError) -> Self {
        use io::ErrorKind as Kind;
        let kind = match &error {
            MembraneError::Revoked
            | MembraneError::NotForUs { .. }
            | MembraneError::TooManyMembranes
            | MembraneError::Own
            | MembraneError::Flaw(_) => Kind::PermissionDenied,
            MembraneError::TakenBack | MembraneError::Full => Kind::QuotaExceeded,
            MembraneError::Message(_) => Kind::InvalidData,
            MembraneError::Io(error) => error.kind(),
        };
        io::Error::new(kind, error)
    }
}

/// What a service of this node stands for.
#[derive(Clone)]
pub(super) enum Upstream {
    Address(PeerAddr),
    Reference(Arc<Introduction>),
}

/// Where a service of this node leads, and through which of its membranes.
pub(super) struct Passage {
    /// At least one; the one that was added last first.
    through: Vec<Arc<State>>,
    pub(super) to: Upstream,
    /// Who has given the reference that it stands for, and so says where this node dials.
    pub(super) given_by: Option<PeerId>,
}

/// The services of one node that stand for references, of all its membranes.
#[derive(Default)]
struct Passages {
    services: Mutex<HashMap<String, Arc<Passage>>>,
}

/// What a service was made for.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    /// The reference of that name.
    Reference(Name),
    /// What the service of another membrane stands for.
    Service(String),
}

/// A reference that was let through.
struct Kept {
    /// The service that stands for it.
    service: String,
    /// The name of the reference, if its uses are counted for this.
    counted: Option<Name>,
    expires: UnixTime,
    /// Who has given it.
    from: PeerId,
}

#[derive(Default)]
struct Inside {
    kept: HashMap<Key, Kept>,
}

/// One membrane. See the head of this file.
pub(super) struct State {
    introductions: Introductions,
    passages: Arc<Passages>,
    places: Places,
    hints: Vec<Hint>,
    inside: Mutex<Inside>,
    revoked: CancellationToken,
    /// Streams that are joined, or about to be.
    busy: TaskTracker,
}

/// Offers a service that stands for a reference.
pub(super) type Serve = fn(&str, Arc<Passage>);

impl State {
    pub(super) fn new(introductions: Introductions, hints: Vec<Hint>) -> Self {
        Self {
            passages: introductions.beside(),
            introductions,
            places: places(DEFAULT_PLACES),
            hints,
            inside: Mutex::default(),
            revoked: CancellationToken::new(),
            busy: TaskTracker::new(),
        }
    }

    pub(super) fn node(&self) -> &Node {
        self.introductions.node()
    }

    /// A place for a stream, unless nothing passes any more.
    fn enter(&self) -> Option<Busy> {
        // The lock is held while both are done, so that who revokes counts it or keeps it out.
        let _inside = self.inside();
        (!self.is_revoked()).then(|| self.busy.token())
    }

    /// Cuts everything, and lets nothing in any more. Does not wait.
    pub(super) fn cut(&self) {
        let _inside = self.inside();
        self.revoked.cancel();
        self.busy.close();
    }

    pub(super) fn is_revoked(&self) -> bool {
        self.revoked.is_cancelled()
    }

    /// Waits until no stream is joined; none comes behind [`cut`](Self::cut).
    pub(super) async fn idle(&self) {
        self.busy.wait().await;
    }

    /// How many references were let through, and have not expired.
    pub(super) fn references(&self) -> usize {
        let now = self.introductions.now();
        let inside = self.inside();
        let kept = inside.kept.values();
        kept.filter(|kept| kept.expires >= now).count()
    }

    /// Takes its services away that stand for references.
    pub(super) fn clear(&self) {
        let mut inside = self.inside();
        for (_, kept) in inside.kept.drain() {
            self.let_go(&kept);
        }
    }

    /// Nobody else offers a service of this name.
    fn let_go(&self, kept: &Kept) {
        self.node().withdraw(&kept.service);
        self.passages.of_node().remove(&kept.service);
        if let Some(name) = kept.counted {
            self.introductions.release(name);
        }
    }

    /// Keeps a reference that `from` has given; the service that stands for it here.
    fn keep(
        &self,
        key: Key,
        passage: Passage,
        from: PeerId,
        now: UnixTime,
        serve: Serve,
    ) -> Result<String, MembraneError> {
        let random: [u8; 16] = random().map_err(|_| Flaw::Sign("no random bytes".into()))?;
        let random = BASE32_NOPAD.encode(&random).to_lowercase();
        let service = format!("{PREFIX}{random}");
        let Upstream::Reference(it) = &passage.to else {
            return Err(MembraneError::Own);
        };
        let mut inside = self.inside();
        if self.is_revoked() {
            return Err(MembraneError::Revoked);
        }
        if let Some(kept) = inside.kept.get(&key) {
            return Ok(kept.service.clone());
        }
        let full = |inside: &Inside| {
            let of_one = inside.kept.values().filter(|kept| kept.from == from);
            inside.kept.len() >= MOST || of_one.count() >= MOST_OF_ONE
        };
        if full(&inside) {
            inside.kept.retain(|_, kept| {
                let good = kept.expires >= now;
                if !good {
                    self.let_go(kept);
                }
                good
            });
        }
        if full(&inside) {
            return Err(MembraneError::Full);
        }
        let counted = match &key {
            Key::Reference(name) => {
                self.introductions.keep(it)?;
                Some(*name)
            }
            Key::Service(_) => None,
        };
        let kept = Kept {
            service: service.clone(),
            counted,
            expires: it.expires(),
            from,
        };
        inside.kept.insert(key, kept);
        let passage = Arc::new(passage);
        let mut services = self.passages.of_node();
        services.insert(service.clone(), Arc::clone(&passage));
        drop(services);
        serve(&service, passage);
        Ok(service)
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        // Each change is whole after the one statement that makes it.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Passages {
    fn of_node(&self) -> MutexGuard<'_, HashMap<String, Arc<Passage>>> {
        // Each change is whole after the one statement that makes it.
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is to be wrapped.
struct Source {
    /// What stands for it already, and through which membranes that leads.
    service: Option<String>,
    through: Vec<Arc<State>>,
    to: Upstream,
    given_by: Option<PeerId>,
    /// How many times it may be passed on from there.
    further: u8,
    made_from: Vec<Ancestor>,
}

impl Passage {
    /// Through this membrane alone.
    pub(super) fn new(state: &Arc<State>, to: Upstream) -> Self {
        let through = vec![Arc::clone(state)];
        Self {
            through,
            to,
            given_by: None,
        }
    }

    fn node(&self) -> Option<&Node> {
        self.through.first().map(|state| state.node())
    }

    pub(super) fn introductions(&self) -> Option<&Introductions> {
        self.through.first().map(|state| &state.introductions)
    }

    /// A place for a stream in all that it leads through, unless one of them is revoked.
    pub(super) fn enter(&self) -> Option<Vec<Busy>> {
        self.through.iter().map(|state| state.enter()).collect()
    }

    /// Places for a stream that is joined, if each has one.
    pub(super) fn places(&self, call: &Call) -> Result<Vec<Place>, Denied> {
        let through = self.through.iter();
        through.map(|state| place(&state.places, call)).collect()
    }

    /// Waits until one that it leads through is revoked.
    pub(super) async fn revoked(&self) {
        let each = self
            .through
            .iter()
            .map(|state| Box::pin(state.revoked.cancelled()));
        select_all(each).await;
    }

    /// What `getter` gets where `giver` gives it a reference in a stream that leads here.
    pub(super) fn wrap(
        &self,
        it: &Introduction,
        giver: &Party,
        getter: &Party,
        serve: Serve,
    ) -> Result<Introduction, MembraneError> {
        let (Some(node), Some(introductions)) = (self.node(), self.introductions()) else {
            return Err(MembraneError::Revoked);
        };
        let now = introductions.now();
        it.holds(now)?;
        let address = it
            .address()
            .ok_or_else(|| Flaw::Malformed("it has no links".into()))?;
        let source = if node.is_own(&address.peer()) {
            self.made_here(introductions, it, address.service(), giver, getter)?
        } else {
            let recipient = it.recipient();
            if let Some(recipient) = recipient.filter(|to| !introductions.own().is(to)) {
                let node = node.id();
                return Err(MembraneError::NotForUs { recipient, node });
            }
            // To whom it was meant for: whoever gives it takes this node for its peer.
            Source {
                service: None,
                through: Vec::new(),
                to: Upstream::Reference(Arc::new(it.clone())),
                given_by: Some(giver.id),
                further: it.further(),
                made_from: it.ancestry()?,
            }
        };
        let mut terms = it.terms()?;
        (terms.recipient, terms.further) = (Some(getter.id), source.further);
        let made_from = source.made_from.clone();
        let service = self.lead_through(source, it.name()?, giver.id, now, serve)?;
        let hints = self.through.first().map(|state| state.hints.as_slice());
        let mut hints = hints.unwrap_or_default().iter().cloned();
        let own = hints.try_fold(PeerAddr::new(node.id()), PeerAddr::with_hint);
        let own = own.and_then(|own| own.with_service(&service));
        let own = own.map_err(|e| Flaw::Malformed(e.to_string()))?;
        let wrapped = introductions.make(&own, terms, made_from)?;
        node.emit(MembraneEvent {
            from: giver.id,
            to: getter.id,
            service: address.service().to_owned(),
            owner: address.peer(),
        });
        Ok(wrapped)
    }

    /// A reference that a membrane of this node has made, and that `giver` was given.
    fn made_here(
        &self,
        introductions: &Introductions,
        it: &Introduction,
        service: &str,
        giver: &Party,
        getter: &Party,
    ) -> Result<Source, MembraneError> {
        // Anybody can sign one to a service of this node; here as there it counts from this node alone.
        if !introductions.is_made_here(it)? {
            return Err(MembraneError::Own);
        }
        if !it.recipient().is_some_and(|to| giver.is(&to)) {
            return Err(Flaw::NotYours.into());
        }
        let known = self.through.first().and_then(|state| {
            let services = state.passages.of_node();
            services.get(service).cloned()
        });
        let known = known.ok_or(MembraneError::Own)?;
        let Upstream::Reference(original) = &known.to else {
            return Err(MembraneError::Own);
        };
        // Who has issued the original, or has the service, gets back what is its own.
        let mut theirs = original.issuers();
        theirs.extend(original.address().map(PeerAddr::peer));
        let is_theirs = theirs.iter().any(|id| getter.is(id)) || getter.is(&giver.id);
        let further = match it.further().checked_sub(1) {
            _ if is_theirs => it.further(),
            Some(further) => further,
            None => return Err(Flaw::Chain(ChainFlaw::NoFurther).into()),
        };
        Ok(Source {
            service: Some(service.to_owned()),
            through: known.through.clone(),
            to: known.to.clone(),
            given_by: known.given_by,
            further,
            made_from: it.ancestry()?,
        })
    }

    /// The service that stands for it and leads through all of these as well.
    fn lead_through(
        &self,
        source: Source,
        name: Name,
        from: PeerId,
        now: UnixTime,
        serve: Serve,
    ) -> Result<String, MembraneError> {
        let (mut service, mut through) = (source.service, source.through);
        for state in self.through.iter().rev() {
            if through.iter().any(|there| Arc::ptr_eq(there, state)) {
                continue;
            }
            if through.len() >= MOST_THROUGH {
                return Err(MembraneError::TooManyMembranes);
            }
            through.insert(0, Arc::clone(state));
            let key = service.map_or(Key::Reference(name), Key::Service);
            let passage = Self {
                through: through.clone(),
                to: source.to.clone(),
                given_by: source.given_by,
            };
            service = Some(state.keep(key, passage, from, now, serve)?);
        }
        if through.iter().any(|state| state.is_revoked()) {
            return Err(MembraneError::Revoked);
        }
        service.ok_or(MembraneError::Own)
    }
}
