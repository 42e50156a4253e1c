//! Who has a line open now: a serial line is for one peer at a time, and whoever is turned away may want to know whom to ask.
//!
//! A name, an id and a time are told to peers that are known here by name alone; anybody else reads that the line is in use. Of a program of
//! this machine that has the line, nobody knows more.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use cepa::identity::{KnownPeer, PeerId};
use cepa::node::Call;
use cepa::transports::{Endpoint, Target, TransportError, TransportErrorKind};

use crate::accept::UNREACHABLE;
use crate::folder;
use crate::keep::in_words;

/// Those of a server, by the device. As many as it has lines open.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holders(Arc<Mutex<BTreeMap<PathBuf, Holder>>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holder {
    peer: PeerId,
    since: Instant,
}

/// The line is that peer's until this is dropped.
pub(crate) struct Holds {
    holders: Holders,
    path: PathBuf,
    holder: Holder,
}

impl Drop for Holds {
    fn drop(&mut self) {
        let mut all = self.holders.lock();
        // The next one may have it already: the line is closed a moment before this is dropped.
        if all.get(&self.path) == Some(&self.holder) {
            all.remove(&self.path);
        }
    }
}

/// Where a peer is one of those that are told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asks {
    peer: PeerId,
    is_named: bool,
}

impl Asks {
    pub(crate) fn peer(&self) -> PeerId {
        self.peer
    }

    pub(crate) fn is_named(&self) -> bool {
        self.is_named
    }

    pub(crate) fn of(call: &Call) -> Self {
        Self {
            peer: call.peer().id(),
            is_named: call.context().is_named(),
        }
    }
}

impl Holders {
    /// A peer has opened this. Nothing where it is no line.
    pub(crate) fn hold(&self, to: &Endpoint, asks: Asks) -> Option<Holds> {
        let path = line(to)?.to_owned();
        let holder = Holder {
            peer: asks.peer,
            since: Instant::now(),
        };
        self.lock().insert(path.clone(), holder);
        Some(Holds {
            holders: self.clone(),
            path,
            holder,
        })
    }

    /// Why it could not be opened, for who has asked.
    pub(crate) fn why(&self, to: &Endpoint, error: &TransportError, asks: Asks) -> String {
        let Some(path) = line(to).filter(|_| error.kind() == TransportErrorKind::AddressInUse)
        else {
            // What exactly is wrong here is for the operator, not for the peer.
            return UNREACHABLE.to_owned();
        };
        let holder = self.lock().get(path).copied();
        match holder {
            _ if !asks.is_named => "the line is in use".to_owned(),
            None => "the line is in use by a program of the server".to_owned(),
            Some(it) => {
                let time = in_words(it.since.elapsed());
                let who = if it.peer == asks.peer {
                    "another connection of yours".to_owned()
                } else {
                    name(it.peer)
                };
                format!("the line is in use: {who} has had it for {time}")
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Holder>> {
        // It is whole after every statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The device that one stream at a time may have.
fn line(to: &Endpoint) -> Option<&Path> {
    match to.target() {
        Target::Serial { path, .. } | Target::Pty { path } => Some(path),
        _ => None,
    }
}

/// As the owner of this machine calls it.
pub(crate) fn name(peer: PeerId) -> String {
    let known = folder::known_as(peer);
    let short = peer.short();
    match known.first().map(KnownPeer::name) {
        Some(name) => format!("{name} ({short}…)"),
        None => format!("the peer {short}…"),
    }
}
