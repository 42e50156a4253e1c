//! Where a relay sees a peer: what a NAT on the way has made of its address.
//!
//! A peer asks its relay, and shows the answer to another peer of the same relay. So that this one need not take its word, the relay
//! signs: the asker's id, the address, and a nonce of whoever is to see it, which makes it good for that once. The relay is
//! believed no more than it has to be: it could name any address, and so what a node sends there is little (`../direct/`).

use std::net::SocketAddr;

use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};
use tokio::time::timeout;

use crate::identity::{Identity, PeerId};
use crate::protocols::signed::Signed;
use crate::session::{Session, reserved};
use crate::wire::{Message as _, Status, VERSION, clean_reason, message};

use super::client::{PATIENCE, exchange, open};
use super::error::RelayError;
use crate::transports::Remote;

/// Service at a relay: where it sees the opener.
pub(crate) const SEEN: &str = reserved::RELAY_SEEN;

/// Stands in front of what is signed of a TCP connection.
const TCP: &[u8] = b"cepa seen address 1\0";

/// And of a QUIC connection: a port of the one is none of the other.
const UDP: &[u8] = b"cepa seen UDP address 1\0";

/// Of whoever is to be shown the answer.
pub(crate) type Nonce = [u8; 16];

/// To a relay: where do you see me?
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Seen {
    #[n(0)]
    version: u8,
    #[n(1)]
    nonce: ByteArray<16>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct SeenAt {
    #[n(0)]
    version: u8,
    #[n(1)]
    status: u32,
    /// For a person; empty where all is well.
    #[n(2)]
    reason: String,
    #[n(3)]
    at: Option<Signed>,
    /// At which port the relay listens for `quic:`, if it does.
    #[n(4)]
    quic: Option<u16>,
}

/// Where a relay sees a node.
pub(crate) struct WhereSeen {
    pub(crate) at: SocketAddr,
    /// For whom the nonce is from.
    pub(crate) signed: Signed,
    /// The relay's port for `quic:`, by its word.
    pub(crate) quic: Option<u16>,
}

/// What the relay signs.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Statement {
    #[n(0)]
    version: u8,
    /// The relay's SubjectPublicKeyInfo.
    #[n(1)]
    relay: ByteVec,
    /// Whom it sees.
    #[n(2)]
    peer: ByteArray<32>,
    /// `198.51.100.2:41001`, `[2001:db8::1]:41001`.
    #[n(3)]
    at: String,
    #[n(4)]
    nonce: ByteArray<16>,
}

message!(Seen, SeenAt, Statement);

impl Seen {
    pub(crate) fn new(nonce: Nonce) -> Self {
        Self {
            version: VERSION,
            nonce: nonce.into(),
        }
    }

    pub(crate) fn nonce(&self) -> Nonce {
        *self.nonce
    }
}

impl SeenAt {
    fn refused(status: Status, reason: &str) -> Self {
        Self {
            version: VERSION,
            status: status.number(),
            reason: clean_reason(reason),
            at: None,
            quic: None,
        }
    }

    /// The relay's answer to a peer whose session comes from there; and where else the relay listens.
    pub(super) fn of(
        relay: &Identity,
        peer: PeerId,
        from: &Remote,
        nonce: Nonce,
        quic: Option<u16>,
    ) -> Self {
        let (at, domain) = match from {
            Remote::Tcp(at) => (at, TCP),
            Remote::Quic(at) => (at, UDP),
            _ => {
                let reason = "your session comes neither by TCP nor by QUIC";
                return Self::refused(Status::Unreachable, reason);
            }
        };
        match sign(relay, peer, *at, nonce, domain) {
            Ok(signed) => Self {
                version: VERSION,
                status: Status::Done.number(),
                reason: String::new(),
                at: Some(signed),
                quic,
            },
            Err(_) => Self::refused(Status::Unreachable, "the relay cannot sign"),
        }
    }
}

fn sign(
    relay: &Identity,
    peer: PeerId,
    at: SocketAddr,
    nonce: Nonce,
    domain: &[u8],
) -> Result<Signed, String> {
    let statement = Statement {
        version: VERSION,
        relay: relay.public_key().to_vec().into(),
        peer: (*peer.as_bytes()).into(),
        at: canonical(at).to_string(),
        nonce: nonce.into(),
    };
    Signed::sign(relay, domain, statement.cbor())
}

/// An IPv4 address that came by an IPv6 socket as what it is, and nothing else of what an IPv6 socket says.
fn canonical(at: SocketAddr) -> SocketAddr {
    SocketAddr::new(at.ip().to_canonical(), at.port())
}

/// Asks the relay of a session where it sees this node; what it says, and the same to be shown to whom the nonce is from.
pub(crate) async fn where_seen(
    session: &Session,
    own: PeerId,
    nonce: Nonce,
) -> Result<WhereSeen, RelayError> {
    let relay = session.peer().id();
    let no_sense = |fault: &str| RelayError::Refused {
        relay,
        status: Status::Malformed,
        reason: fault.to_owned(),
    };
    // All of it together.
    let asked = timeout(PATIENCE, async {
        let mut stream = open(session, SEEN).await?;
        exchange(session, &mut stream, &Seen::new(nonce)).await
    });
    let timed_out = Err(RelayError::TimedOut { relay });
    let answer: SeenAt = asked.await.unwrap_or(timed_out)?;
    match Status::of(answer.status) {
        Status::Done => {}
        status => {
            return Err(RelayError::Refused {
                relay,
                status,
                reason: clean_reason(&answer.reason),
            });
        }
    }
    let signed = answer.at.ok_or_else(|| no_sense("it says no address"))?;
    let by_quic = session
        .path()
        .is_some_and(|path| matches!(path.remote, Remote::Quic(_)));
    let at = verify(&signed, by_quic, relay, own, nonce);
    let at = at.ok_or_else(|| no_sense("what it says of this node's address does not hold"))?;
    Ok(WhereSeen {
        at,
        signed,
        quic: answer.quic,
    })
}

/// Where the relay sees the peer, if it has signed that, for this nonce; of a QUIC connection or of a TCP one.
pub(crate) fn verify(
    signed: &Signed,
    by_quic: bool,
    relay: PeerId,
    peer: PeerId,
    nonce: Nonce,
) -> Option<SocketAddr> {
    let domain = if by_quic { UDP } else { TCP };
    let statement = Statement::read(signed.statement()).ok()?;
    let is_so = PeerId::from_spki(&statement.relay) == relay
        && *statement.peer == *peer.as_bytes()
        && *statement.nonce == nonce
        && signed.is_by(&statement.relay, domain);
    // Longer than any address is nothing that we parse.
    let at = (is_so && statement.at.len() <= 64).then_some(statement.at)?;
    at.parse().ok().map(canonical)
}

/// For the fuzz target.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn fuzz(bytes: &[u8]) {
    use crate::wire::fuzz_one;
    fuzz_one::<Seen>(bytes);
    fuzz_one::<SeenAt>(bytes);
    fuzz_one::<Statement>(bytes);
}

/// A relay that signs what it likes.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    pub(crate) fn sign(by: &Identity, peer: PeerId, at: SocketAddr, nonce: Nonce) -> Signed {
        super::sign(by, peer, at, nonce, TCP).unwrap()
    }

    pub(crate) fn sign_udp(by: &Identity, peer: PeerId, at: SocketAddr, nonce: Nonce) -> Signed {
        super::sign(by, peer, at, nonce, UDP).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::KeyKind;

    #[test]
    fn what_a_relay_has_signed_holds_for_one_peer_and_one_nonce() {
        let [relay, other] = [(), ()].map(|()| Identity::generate(KeyKind::Ed25519).unwrap());
        let peer = PeerId::from_bytes([7; 32]);
        let from = Remote::Tcp("[::ffff:198.51.100.2]:41001".parse().unwrap());
        let answer = SeenAt::of(&relay, peer, &from, [1; 16], None);
        let signed = answer.at.unwrap();
        let id = relay.peer_id();
        let at = "198.51.100.2:41001".parse().unwrap();
        assert_eq!(verify(&signed, false, id, peer, [1; 16]), Some(at));
        assert_eq!(verify(&signed, true, id, peer, [1; 16]), None);
        for (who, whom, nonce) in [
            (other.peer_id(), peer, [1; 16]),
            (id, PeerId::from_bytes([8; 32]), [1; 16]),
            (id, peer, [2; 16]),
        ] {
            assert_eq!(verify(&signed, false, who, whom, nonce), None);
        }
        // Somebody else's signature below the relay's key.
        let forged = Statement::read(signed.statement()).unwrap();
        let forged = Signed::sign(&other, TCP, forged.cbor()).unwrap();
        assert_eq!(verify(&forged, false, id, peer, [1; 16]), None);
        // A UDP port is no TCP port.
        let by_quic = Remote::Quic(at);
        let signed = SeenAt::of(&relay, peer, &by_quic, [1; 16], None)
            .at
            .unwrap();
        assert_eq!(verify(&signed, true, id, peer, [1; 16]), Some(at));
        assert_eq!(verify(&signed, false, id, peer, [1; 16]), None);
        let circuit = Remote::Memory;
        let answer = SeenAt::of(&relay, peer, &circuit, [1; 16], Some(7711));
        assert_eq!(
            (answer.at, answer.status),
            (None, Status::Unreachable.number())
        );
    }
}
