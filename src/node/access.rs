//! Who may open what: the one place where that is decided.
//!
//! Three things count: who the peer is (its proven id, the ids of keys that it held before, whether the node's
//! trust policy knows it by name), how its session came about (it dialled this node, or this node dialled it),
//! and how what it opens is offered. The relays on the way never count: whoever is behind them has proven its
//! key end to end.
//!
//! A session that this node dialled proves only that the peer is the one that was dialled. It was never asked whether it
//! may come in; so it gets what it was given by name, and nothing that is for everyone who comes in. `access_table.txt` has
//! every case, and a test holds it to this file.

use std::any::Any;
use std::collections::HashSet;
use std::sync::Arc;

use crate::identity::PeerId;

/// Who may open a service; nobody unless said otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Nobody; but whom the node introduces gets in.
    #[default]
    Nobody,
    /// These peers, on whichever session. A peer that has replaced its key is still the one that was named, as long as
    /// its old key vouches for the new one ([`Peer::former_ids`](crate::tls::Peer::former_ids)).
    Peers(HashSet<PeerId>),
    /// Every peer that comes in, which is every peer that the node's trust lets in. A peer that this node has dialled did not
    /// come in: it counts only where the node's trust knows it by name (as
    /// [`Pinned`](crate::identity::Pinned) and [`TrustKnown`](crate::identity::TrustKnown) do, and
    /// [`AcceptAny`](crate::identity::AcceptAny) does not).
    Anyone,
}

impl Access {
    /// These peers and no other.
    pub fn peers(peers: impl IntoIterator<Item = PeerId>) -> Self {
        Self::Peers(peers.into_iter().collect())
    }

    /// Whether this very id is among those who may, however it comes.
    #[must_use]
    pub fn lists(&self, peer: &PeerId) -> bool {
        match self {
            Self::Nobody => false,
            Self::Peers(peers) => peers.contains(peer),
            Self::Anyone => true,
        }
    }

    /// Whether who may is listed one by one, and one of these is among them.
    pub(super) fn names_one_of(&self, ids: &[PeerId]) -> bool {
        match self {
            Self::Peers(peers) => ids.iter().any(|id| peers.contains(id)),
            Self::Nobody | Self::Anyone => false,
        }
    }
}

/// How a protocol admits peers: see [`Protocol`](super::Protocol).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Admission {
    /// As a service does.
    Access(Access),
    /// Whoever has a session: the protocol asks for a proof of its own before it does anything.
    OwnProof,
    /// As the node's service of this name, of which the protocol is another form.
    Service(String),
    /// As a service does, and what that decision was about goes with the call ([`Call::admitted`](super::Call::admitted)), for a
    /// protocol whose services come and go: what is served is what was allowed, whatever has taken its place since.
    With(Access, Admitted),
}

/// What a peer was admitted to: anything. Equal are clones.
#[derive(Clone, Debug)]
pub struct Admitted(Arc<dyn Any + Send + Sync>);

impl Admitted {
    /// Of any type.
    pub fn to(what: impl Any + Send + Sync) -> Self {
        Self(Arc::new(what))
    }

    /// The same, if it is of this type.
    #[must_use]
    pub fn get<T: Any>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }
}

impl PartialEq for Admitted {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Admitted {}

/// Who opens something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Who {
    pub(super) id: PeerId,
    /// Of keys that it held before, each verified.
    pub(super) former: Vec<PeerId>,
    /// The node's trust policy lists it, rather than letting anybody in.
    pub(super) named: bool,
}

impl Who {
    fn is_one_of(&self, peers: &HashSet<PeerId>) -> bool {
        peers.contains(&self.id) || self.former.iter().any(|id| peers.contains(id))
    }
}

/// How the session came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct How {
    /// This node dialled it; else the peer came in.
    pub(super) dialled: bool,
    /// It leads through relays.
    pub(super) relayed: bool,
}

/// What is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What<'a> {
    /// A service, or a protocol that is offered like one.
    Offered(&'a Access),
    /// A service that an introduction is for, which was found to hold for this peer.
    Introduced,
    /// A protocol that asks for a proof of its own.
    OwnProof,
}

/// Why a peer may not open something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// It is not for this peer.
    NotAllowed,
    /// It is for everyone who comes in, and this session was dialled from here.
    DialInstead,
}

/// The decision.
pub(super) fn decide(who: &Who, how: How, what: What<'_>) -> Result<(), Denied> {
    match what {
        What::Introduced | What::OwnProof => Ok(()),
        What::Offered(Access::Nobody) => Err(Denied::NotAllowed),
        What::Offered(Access::Peers(peers)) => {
            if who.is_one_of(peers) {
                Ok(())
            } else {
                Err(Denied::NotAllowed)
            }
        }
        What::Offered(Access::Anyone) => {
            if who.named || !how.dialled {
                Ok(())
            } else {
                Err(Denied::DialInstead)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    const LISTED: PeerId = PeerId::from_bytes([1; 32]);
    const OTHER: PeerId = PeerId::from_bytes([2; 32]);

    fn who(id: PeerId, former: &[PeerId], named: bool) -> Who {
        Who {
            id,
            former: former.to_vec(),
            named,
        }
    }

    /// Every who × how × what, as text for review.
    fn table() -> String {
        let peers = Access::peers([LISTED]);
        let whats = [
            ("nobody", What::Offered(&Access::Nobody)),
            ("these peers", What::Offered(&peers)),
            ("anyone", What::Offered(&Access::Anyone)),
            ("introduced", What::Introduced),
            ("own proof", What::OwnProof),
        ];
        let whos = [
            ("one of these", who(LISTED, &[], false)),
            ("one of these, known by name", who(LISTED, &[], true)),
            ("one with a new key", who(OTHER, &[LISTED], false)),
            ("another", who(OTHER, &[], false)),
            ("another, known by name", who(OTHER, &[], true)),
        ];
        let how = |dialled, relayed| How { dialled, relayed };
        let hows = [
            ("came in", how(false, false)),
            ("came in by relay", how(false, true)),
            ("dialled", how(true, false)),
            ("dialled by relay", how(true, true)),
        ];
        let mut out = String::from(
            "Who may open what: see src/node/access.rs. Services and protocols go by the same table.\n\
             \"Known by name\": the node's trust policy lists the peer. \"By relay\": the session leads through relays.\n\n",
        );
        let _ = writeln!(out, "{:12} {:28} {:16} verdict", "offered to", "who", "how");
        for (what_name, what) in whats {
            for (who_name, who) in &whos {
                for (how_name, how) in hows {
                    let verdict = match decide(who, how, what) {
                        Ok(()) => "allowed",
                        Err(Denied::NotAllowed) => "-",
                        Err(Denied::DialInstead) => "- (may dial)",
                    };
                    let _ = writeln!(out, "{what_name:12} {who_name:28} {how_name:16} {verdict}");
                }
            }
        }
        out
    }

    #[test]
    fn the_whole_table_is_as_reviewed() {
        let expected = include_str!("access_table.txt");
        // What stands behind it is held by `tests/mesh/access.rs`.
        let (expected, _) = expected.split_once("\nprotocol ").unwrap();
        let found = table();
        assert!(
            found == expected,
            "src/node/access_table.txt is not what access.rs decides; if the change is meant, replace the file by:\n{found}"
        );
    }

    #[test]
    fn nobody_is_the_default() {
        assert_eq!(Access::default(), Access::Nobody);
        assert!(!Access::default().lists(&LISTED) && Access::Anyone.lists(&LISTED));
    }
}
