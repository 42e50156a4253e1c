//! A recipient: its keys, and opening what is sealed for them. No IO; the time is an argument.
//!
//! Keys are made here, never stored, and replaced every hour; one is good for two. So what was recorded can't be opened
//! later by whoever takes the machine, and what was sealed for a process that has ended opens nowhere: nothing that its
//! successor would have to know was let in already.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::identity::{Identity, Lineage, PeerId, UnixTime};
use crate::protocols::fair::{Payer, Rank};

use super::flaw::SealFlaw;
use super::letter::{Arrived, Reply, SealingKey};
use super::seal::{self, Secret};
use super::window::Window;

/// How long a key is given out, and how long it is good.
const FRESH: Duration = Duration::from_secs(3600);
const LIFE: Duration = Duration::from_secs(2 * 3600);

/// Most keys; there are more than two only where the clock was set back.
const MOST: usize = 4;

struct Own {
    key: SealingKey,
    secret: Secret,
}

/// A recipient of sealed requests.
pub struct Mailbox {
    identity: Identity,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The newest last.
    keys: Vec<Arc<Own>>,
    window: Window,
}

impl Mailbox {
    /// A recipient of this identity. It has no key until it is asked for one.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            state: Mutex::default(),
        }
    }

    /// The key to seal requests for, good for at least an hour from now.
    ///
    /// # Errors
    /// [`SealFlaw::Sign`].
    pub fn key(&self, now: UnixTime) -> Result<SealingKey, SealFlaw> {
        if let Some(own) = self.with(|state| state.fresh(now)) {
            return Ok(own.key.clone());
        }
        // Made outside of the lock; where two were made at once, one is thrown away.
        let (secret, public) = seal::pair();
        let expires = now.as_secs().saturating_add(LIFE.as_secs());
        let expires = UnixTime::since_unix_epoch(Duration::from_secs(expires));
        let key = SealingKey::sign(&self.identity, &public, now, expires)?;
        Ok(self.with(|state| {
            if let Some(own) = state.fresh(now) {
                return own.key.clone();
            }
            state.keys.retain(|own| own.key.expires() >= now);
            if state.keys.len() >= MOST {
                state.keys.remove(0);
            }
            let own = Own {
                key: key.clone(),
                secret,
            };
            state.keys.push(Arc::new(own));
            key
        }))
    }

    /// Throws away the keys that have expired, so that nothing that was sealed for them can be opened any more; says until
    /// when the first of the others is good. A node does that by itself.
    pub fn forget(&self, now: UnixTime) -> Option<UnixTime> {
        self.with(|state| {
            state.keys.retain(|own| own.key.expires() >= now);
            state.keys.iter().map(|own| own.key.expires()).min()
        })
    }

    /// Opens a request, and lets it in: once, in time, and where `serves` says that its sender may ask for the
    /// service that it names. What comes of a request that was let in is told by [`Replier::answer`] alone; a refusal
    /// from here proves nothing to its sender, who can't tell it from the carrier's.
    ///
    /// # Errors
    /// Why it is not let in; then it was not carried out, unless it came before.
    pub fn open(
        &self,
        bytes: &[u8],
        now: UnixTime,
        serves: impl FnOnce(&Sender, &str) -> bool,
    ) -> Result<(Opened, Replier), SealFlaw> {
        self.open_as(bytes, now, |sender, service| {
            serves(sender, service).then(|| Payer {
                account: sender.id(),
                rank: Rank::Stranger,
            })
        })
    }

    /// The same, where `serves` says as what the sender may ask for the service, and to whom that is charged.
    pub(super) fn open_as(
        &self,
        bytes: &[u8],
        now: UnixTime,
        serves: impl FnOnce(&Sender, &str) -> Option<Payer>,
    ) -> Result<(Opened, Replier), SealFlaw> {
        let arrived = Arrived::read(bytes)?;
        let name = arrived.key();
        let own = self.with(|state| {
            let mut keys = state.keys.iter();
            keys.find(|own| own.key.name() == name).cloned()
        });
        let own = own.filter(|own| own.key.expires() >= now);
        let own = own.ok_or(SealFlaw::UnknownKey)?;
        let it = arrived.open(&own.key, &own.secret)?;
        let sender = Sender {
            lineage: Arc::new(it.lineage(now)),
        };
        let payer = serves(&sender, &it.service).ok_or(SealFlaw::NotServed)?;
        // No request outlives its key, whatever it says.
        let expires = it.expires.min(own.key.expires());
        self.with(|state| {
            let window = &mut state.window;
            window.admit((it.sender, payer), it.id, it.issued, expires, now)
        })?;
        let opened = Opened {
            sender,
            service: it.service,
            body: it.body,
        };
        let replier = Replier {
            reply: it.reply,
            by: self.identity.clone(),
        };
        Ok((opened, replier))
    }

    #[cfg(test)]
    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    #[cfg(test)]
    pub(super) fn keys(&self) -> usize {
        self.with(|state| state.keys.len())
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        // Each change is whole after the one statement that makes it.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        f(&mut state)
    }
}

impl State {
    /// The newest key, unless it is time for another one, or the clock was set back behind it.
    fn fresh(&self, now: UnixTime) -> Option<Arc<Own>> {
        let own = self.keys.last()?;
        let issued = own.key.issued().as_secs();
        let fresh = issued..issued.saturating_add(FRESH.as_secs());
        fresh.contains(&now.as_secs()).then(|| Arc::clone(own))
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox")
            .field("owner", &self.identity.peer_id())
            .finish_non_exhaustive()
    }
}

/// Who has sent a request, as its signature proves: by its present key, and by those that it held before.
#[derive(Clone, Debug)]
pub struct Sender {
    lineage: Arc<Lineage>,
}

impl Sender {
    /// By its present key.
    #[must_use]
    pub fn id(&self) -> PeerId {
        self.lineage.id()
    }

    pub(super) fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// Whether it is the peer of this id, present or former, as [`Peer::is`](crate::tls::Peer::is) says it of a session's.
    #[must_use]
    pub fn is(&self, id: &PeerId) -> bool {
        self.lineage.is(id)
    }

    /// The ids of the keys that it held before, oldest first, at most eight: those that statements in the request
    /// prove, each signed by the older and the newer key, and good when it was opened.
    #[must_use]
    pub fn former_ids(&self) -> &[PeerId] {
        self.lineage.former()
    }
}

/// A request that was let in.
pub struct Opened {
    sender: Sender,
    service: String,
    body: Vec<u8>,
}

impl Opened {
    /// Who has sent it, as its signature proves.
    pub fn sender(&self) -> PeerId {
        self.sender.id()
    }

    /// The same, with the keys that it held before.
    pub fn who(&self) -> &Sender {
        &self.sender
    }

    /// What it is for.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// What it says.
    pub fn body(&self) -> &[u8] {
        &self.body
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("sender", &self.sender())
            .field("service", &self.service)
            .field("body", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Answers one request.
pub struct Replier {
    reply: Reply,
    by: Identity,
}

impl Replier {
    /// Seals the answer, which only the sender opens, or why there is none, of which 255 bytes are shown.
    ///
    /// # Errors
    /// [`SealFlaw::TooLong`] beyond [`MAX_BODY`](super::MAX_BODY); [`SealFlaw::Sign`]; and
    /// [`SealFlaw::Unopened`] where the sender has given no key for it.
    pub fn answer(&self, answer: Result<&[u8], &str>) -> Result<Vec<u8>, SealFlaw> {
        self.reply.seal(&self.by, answer)
    }
}

impl fmt::Debug for Replier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replier").finish_non_exhaustive()
    }
}
