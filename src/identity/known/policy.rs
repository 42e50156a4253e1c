//! Trust by the known-peers file: a place has the key that was met there first, and a peer that is on
//! the list is let in.
//!
//! Everything that goes wrong is a refusal: a file that can't be read, and a damaged line where the
//! answer would otherwise be "never seen", since it may be the line of the very peer that is asked
//! about. What is learned is learned in [`TrustPolicy::proven`], when the peer has shown that it
//! holds the key, and under the file's lock, where the question is put once more: of two programs
//! that meet two keys at one place, the second is refused.

use std::fmt;
use std::sync::Arc;

use rustls_pki_types::UnixTime;

use super::document::{EditError, KnownPeers};
use super::entry::{KnownPeer, Origin};
use super::store::{KnownPeersError, KnownPeersFile};
use cepa_transports::endpoint::hidden;

use crate::identity::peer_id::PeerId;
use crate::identity::rotation::{Rotation, RotationError};
use crate::identity::trust::{Presented, Refusal, TrustPolicy};

/// Trusts whom the known-peers file names.
#[derive(Clone)]
pub struct TrustKnown {
    file: KnownPeersFile,
    scope: Scope,
    new: bool,
    observer: Option<Observer>,
}

/// Who of the list will do.
#[derive(Clone, Debug)]
enum Scope {
    /// The ones that were met there.
    Place(String),
    /// The ones of these names.
    Names(Vec<String>),
    /// All.
    Anyone,
}

type Observer = Arc<dyn Fn(&Learned) + Send + Sync>;

/// What was written into the known-peers file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Learned {
    /// A peer that was not known, or not at this place.
    Met {
        /// What it is called in the file.
        name: String,
        /// Who it is.
        id: PeerId,
        /// Where it was met.
        place: String,
    },
    /// A peer has replaced its key, and the old key has said so.
    Rotated {
        /// What it is called in the file.
        name: String,
        /// The key that was known.
        from: PeerId,
        /// The key that it has now.
        to: PeerId,
        /// Until when the old one is still good.
        until: UnixTime,
    },
}

impl fmt::Display for Learned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Met { name, id, place } => {
                write!(f, "remembered {id} as {name} ({})", hidden(place))
            }
            Self::Rotated {
                name,
                from,
                to,
                until,
            } => write!(
                f,
                "{name} has replaced its key {from}; the new one is {to}, and the old one is valid until {}",
                super::entry::time_text(*until)
            ),
        }
    }
}

impl TrustKnown {
    /// For who dials: whoever answers at this place must have a key that is known for it. What a
    /// place is, is the caller's choice; [`place_of`](super::place_of) makes one of an address.
    pub fn at(file: KnownPeersFile, place: impl Into<String>) -> Self {
        Self::new(file, Scope::Place(place.into()))
    }

    /// Peers by the names that they have in the file.
    pub fn named(file: KnownPeersFile, names: impl IntoIterator<Item = String>) -> Self {
        Self::new(file, Scope::Names(names.into_iter().collect()))
    }

    /// Everyone on the list: for who is dialled.
    #[must_use]
    pub fn anyone(file: KnownPeersFile) -> Self {
        Self::new(file, Scope::Anyone)
    }

    fn new(file: KnownPeersFile, scope: Scope) -> Self {
        Self {
            file,
            scope,
            new: false,
            observer: None,
        }
    }

    /// Trusts whoever answers first at a place where nobody is known, and remembers it: trust on first
    /// use, unseen. A key that changes later is refused all the same.
    #[must_use]
    pub fn trusting_new(mut self) -> Self {
        self.new = true;
        self
    }

    /// Is told what was written into the file, so that it can be logged.
    #[must_use]
    pub fn observed_by(mut self, observer: impl Fn(&Learned) + Send + Sync + 'static) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// The whole question, on one state of the list.
    fn judge(&self, known: &KnownPeers, peer: &Presented<'_>) -> Result<Answer, Refusal> {
        let in_scope = || known.peers().filter(|known| self.scope.has(known));
        if in_scope().any(|known| known.has_key(peer.id, peer.now)) {
            return Ok(Answer::Known);
        }
        let mut problem = None;
        match peer.path_from(|id| in_scope().any(|known| known.id == id)) {
            Ok(path) => {
                let from = path.first().map(Rotation::old);
                if let Some(known) = in_scope().find(|known| Some(known.id) == from) {
                    let name = known.name().to_owned();
                    return Ok(Answer::Rotated { name, path });
                }
            }
            Err(error) => problem = Some(error),
        }
        // Whom it says to succeed: the one that is known, or a key of it that was replaced before.
        let named: Vec<_> = peer.rotations().unwrap_or_default();
        let claimed = in_scope().find(|known| {
            let had = |id| known.id == id || known.previous.iter().any(|old| old.id == id);
            named.iter().any(|step| had(step.old()))
        });
        if problem.is_none()
            && let Some(known) = claimed
        {
            problem = fork(known, peer);
        }
        let changed = in_scope().next().filter(|_| self.scope.expects());
        if let Some(changed) = claimed.filter(|_| problem.is_some()).or(changed) {
            return Err(Refusal::Changed {
                name: changed.name().to_owned(),
                expected: match claimed {
                    Some(known) => vec![known.id],
                    None => in_scope().map(|known| known.id).collect(),
                },
                presented: peer.id,
                note: problem.map(Box::new),
            });
        }
        if let Some(line) = known.damaged().next() {
            return Err(failed(
                peer.id,
                &format!(
                    "{}: line {}: {}; it may be about this peer",
                    self.file.path().display(),
                    line.number,
                    line.problem
                ),
            ));
        }
        match &self.scope {
            Scope::Place(place) if self.new => Ok(Answer::New {
                place: place.clone(),
            }),
            _ => Err(Refusal::Unknown { presented: peer.id }),
        }
    }

    fn notify(&self, learned: Option<Learned>) {
        if let (Some(learned), Some(observer)) = (learned, &self.observer) {
            observer(&learned);
        }
    }
}

/// What is to be done with a peer that will do.
enum Answer {
    Known,
    New { place: String },
    Rotated { name: String, path: Vec<Rotation> },
}

impl Scope {
    fn has(&self, peer: &KnownPeer) -> bool {
        match self {
            Self::Place(place) => peer.is_at(place),
            Self::Names(names) => names.iter().any(|name| name == peer.name()),
            Self::Anyone => true,
        }
    }

    /// Whether another key than the known ones is a changed key, and not just somebody else.
    fn expects(&self) -> bool {
        !matches!(self, Self::Anyone)
    }
}

/// A second successor of a key that was replaced before. An old key that comes back is none.
fn fork(known: &KnownPeer, peer: &Presented<'_>) -> Option<RotationError> {
    let replaced = |id| known.previous.iter().any(|old| old.id == id);
    if replaced(peer.id) {
        return None;
    }
    match peer.path_from(replaced) {
        Ok(path) if path.is_empty() => None,
        Ok(_) => Some(RotationError::Fork {
            first: known.id,
            second: peer.id,
        }),
        Err(problem) => Some(problem),
    }
}

impl TrustPolicy for TrustKnown {
    fn decide(&self, peer: &Presented<'_>) -> Result<(), Refusal> {
        let known = self
            .file
            .read()
            .map_err(|e| failed(peer.id, &e.to_string()))?;
        self.judge(&known, peer).map(|_| ())
    }

    fn overlooks_dates(&self, peer: &Presented<'_>) -> bool {
        self.file.read().is_ok_and(|known| {
            let mut peers = known.peers().filter(|known| self.scope.has(known));
            peers.any(|known| known.has_key(peer.id, peer.now))
        })
    }

    /// It reads the file, and may wait for its lock.
    fn may_block(&self) -> bool {
        true
    }

    /// One that is met for the first time is not listed yet.
    fn names(&self, peer: &Presented<'_>) -> bool {
        let listed = |answer| matches!(answer, Answer::Known | Answer::Rotated { .. });
        let known = self.file.read();
        known.is_ok_and(|known| self.judge(&known, peer).is_ok_and(listed))
    }

    fn proven(&self, peer: &Presented<'_>) -> Result<(), Refusal> {
        let known = self
            .file
            .read()
            .map_err(|e| failed(peer.id, &e.to_string()))?;
        if matches!(self.judge(&known, peer)?, Answer::Known) {
            return Ok(());
        }
        let learned = self.file.update(|known| {
            let learned = match self.judge(known, peer)? {
                // Another process was first, and learned the same.
                Answer::Known => None,
                Answer::New { place } => {
                    Some(meet(known, &place, peer.id, Origin::FirstUse, peer.now)?)
                }
                Answer::Rotated { name, path } => follow(known, &name, &path)?,
            };
            Ok::<_, Trouble>(learned)
        });
        match learned {
            Ok(learned) => {
                self.notify(learned);
                Ok(())
            }
            Err(Trouble::Refusal(refusal)) => Err(*refusal),
            Err(Trouble::Store(reason)) => Err(failed(peer.id, &reason)),
        }
    }
}

impl fmt::Debug for TrustKnown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustKnown")
            .field("file", &self.file.path())
            .field("scope", &self.scope)
            .field("new", &self.new)
            .finish_non_exhaustive()
    }
}

impl KnownPeersFile {
    /// Writes down who was met at a place where nobody was known: after a person was asked, or had an
    /// invitation. Fails, as a refusal, when somebody else is known there by now, or when the list has
    /// a line that can't be read.
    pub fn meet(
        &self,
        place: &str,
        id: PeerId,
        how: Origin,
        now: UnixTime,
    ) -> Result<Option<Learned>, Refusal> {
        let done = self.update(|known| {
            let at: Vec<_> = known.at_place(place).collect();
            if at.iter().any(|peer| peer.has_key(id, now)) {
                return Ok(None);
            }
            if let Some(other) = at.first() {
                return Err(Trouble::from(Refusal::Changed {
                    name: other.name().to_owned(),
                    expected: at.iter().map(|peer| peer.id).collect(),
                    presented: id,
                    note: None,
                }));
            }
            if let Some(line) = known.damaged().next() {
                return Err(Trouble::Store(format!(
                    "line {} of the known peers can't be read: {}",
                    line.number, line.problem
                )));
            }
            Ok(Some(meet(known, place, id, how, now)?))
        });
        done.map_err(|trouble| match trouble {
            Trouble::Refusal(refusal) => *refusal,
            Trouble::Store(reason) => failed(id, &reason),
        })
    }
}

impl KnownPeers {
    /// Follows a statement that came by other means than a handshake: it is checked, and the peer that
    /// has the old key gets the new one. None where no peer has it, or it was followed before.
    pub fn rotate(
        &mut self,
        rotation: &Rotation,
        now: UnixTime,
    ) -> Result<Option<Learned>, FollowError> {
        rotation.check(now)?;
        let (from, to) = (rotation.old(), rotation.new_id());
        let had = |peer: &KnownPeer, id| peer.previous.iter().any(|old| old.id == id);
        let name = {
            let mut peers = self.peers();
            peers
                .find(|peer| peer.id == from)
                .map(|peer| peer.name().to_owned())
        };
        if let Some(name) = name {
            return Ok(follow(self, &name, std::slice::from_ref(rotation))?);
        }
        match self.peers().find(|peer| had(peer, from)) {
            Some(peer) if peer.id != to && !had(peer, to) => Err(RotationError::Fork {
                first: peer.id,
                second: to,
            }
            .into()),
            _ => Ok(None),
        }
    }
}

/// A statement that was not followed. Each text is one line and says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FollowError {
    /// It does not count.
    #[error("{0}")]
    Rotation(#[from] RotationError),
    /// The list can't be changed so.
    #[error("{0}")]
    Edit(#[from] EditError),
    /// The list can't be read or written.
    #[error("{0}")]
    Store(#[from] KnownPeersError),
}

fn meet(
    known: &mut KnownPeers,
    place: &str,
    id: PeerId,
    how: Origin,
    now: UnixTime,
) -> Result<Learned, EditError> {
    let old = known
        .peers()
        .find(|peer| peer.id == id)
        .map(|peer| peer.name().to_owned());
    let name = if let Some(name) = old {
        known.change(&name, |peer| peer.add_place(place))?;
        name
    } else {
        // A relay leads to many peers, and its id is not this one's.
        let name = if place.starts_with("relay:") {
            known.free_name(&id.short())
        } else {
            known.free_name(place)
        };
        let mut peer = KnownPeer::new(&name, id)?;
        peer.first_seen = Some(now);
        peer.how = Some(how);
        peer.add_place(place);
        known.add(peer)?;
        name
    };
    Ok(Learned::Met {
        name,
        id,
        place: place.to_owned(),
    })
}

fn follow(
    known: &mut KnownPeers,
    name: &str,
    path: &[Rotation],
) -> Result<Option<Learned>, EditError> {
    let (Some(first), Some(last)) = (path.first(), path.last()) else {
        return Ok(None);
    };
    known.change(name, |peer| {
        for step in path {
            peer.replace_key(step.new_id(), step.times().overlap);
        }
    })?;
    Ok(Some(Learned::Rotated {
        name: name.to_owned(),
        from: first.old(),
        to: last.new_id(),
        until: last.times().overlap,
    }))
}

/// What stops a change of the list: an answer, or that there could be none.
enum Trouble {
    Refusal(Box<Refusal>),
    Store(String),
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        Self::Refusal(Box::new(refusal))
    }
}

impl From<KnownPeersError> for Trouble {
    fn from(error: KnownPeersError) -> Self {
        Self::Store(error.to_string())
    }
}

impl From<EditError> for Trouble {
    fn from(error: EditError) -> Self {
        Self::Store(error.to_string())
    }
}

fn failed(presented: PeerId, reason: &str) -> Refusal {
    Refusal::PolicyFailed {
        presented,
        reason: reason.to_owned(),
    }
}
