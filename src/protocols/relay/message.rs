//! What nodes and relays say to each other before a circuit carries bytes: the codec, without IO.
//!
//! The form is that of all messages of ours (`src/wire/message.rs`). docs/PROTOCOL.md has the table.

use minicbor::{Decode, Encode};

use super::fleet::entry::address;
use crate::identity::PeerId;
use crate::node::Hint;
use crate::session::reserved;
use crate::wire::{Status, VERSION, clean_reason, message};

/// Service at a relay: be registered there.
pub(crate) const REGISTER: &str = reserved::RELAY_REGISTER;

/// Service at a relay: a circuit to a registered peer.
pub(crate) const DIAL: &str = reserved::RELAY_DIAL;

/// Service at a registered peer, opened by its relay: a circuit from somebody.
pub(crate) const CIRCUIT: &str = reserved::RELAY_CIRCUIT;

/// Service at a relay, for another one of its fleet: a circuit to a registered peer.
pub(crate) const MEMBER: &str = reserved::RELAY_MEMBER;

/// Service at a relay, for another one of its fleet: how many registrations a peer has there.
pub(crate) const HOLDS: &str = reserved::RELAY_HOLDS;

/// Former ids that a member tells of a dialler, or a peer; what is more is left out.
const MAX_FORMER: usize = 8;

/// Other relays that an answer names.
pub(crate) const MAX_OTHERS: usize = 6;

/// Addresses of each of them.
const MAX_PLACES: usize = 3;

/// Longest such address in bytes.
const MAX_PLACE: usize = 128;

/// Code of the reset of both ends of a circuit that has carried nothing for too long.
pub(crate) const IDLE: u32 = 10;

/// Code of the reset of both ends of a circuit between two relays that was not read, while others had no room for that.
pub(crate) const UNREAD: u32 = 13;

/// Code of the reset of what a relay takes back for a peer that has none: both ends of a circuit, or a registration.
pub(crate) use crate::protocols::copy::TAKEN_BACK;

/// Node to relay: register me, or renew what I have.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Register {
    #[n(0)]
    version: u8,
    /// Seconds that it should last; the relay may give less.
    #[n(1)]
    pub(crate) lifetime: u32,
}

/// Node to relay (`target`: to whom) and relay to node (`target`: from whom).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Circuit {
    #[n(0)]
    version: u8,
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    target: [u8; 32],
}

/// Relay to another one of its fleet: a circuit for somebody who asked here.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct ForPeer {
    #[n(0)]
    version: u8,
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    target: [u8; 32],
    /// Who asked.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    from: [u8; 32],
    /// Of keys that it held before, which the sender has verified: one after the other.
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    former: Option<Vec<u8>>,
    /// Where it comes from, as far as it helps to tell strangers apart; the same for the same host.
    #[n(4)]
    #[cbor(with = "minicbor::bytes")]
    place: Option<[u8; 16]>,
}

/// Relay to another one of its fleet: how many registrations does this peer have with you?
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Holds {
    #[n(0)]
    version: u8,
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    peer: [u8; 32],
    /// As in [`ForPeer`].
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    former: Option<Vec<u8>>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Held {
    #[n(0)]
    version: u8,
    /// Those of which somebody answers.
    #[n(1)]
    pub(crate) count: u32,
}

/// Another relay of the same fleet.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Elsewhere {
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    relay: [u8; 32],
    /// Where it is reached.
    #[n(1)]
    addresses: Vec<String>,
}

/// The answer to each of them.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Answer {
    #[n(0)]
    version: u8,
    #[n(1)]
    status: u32,
    /// For a person; empty where all is well.
    #[n(2)]
    reason: String,
    /// Seconds that a registration lasts.
    #[n(3)]
    pub(crate) lifetime: Option<u32>,
    /// Other relays that lead to the same peers, or take registrations, the best first.
    #[n(4)]
    others: Option<Vec<Elsewhere>>,
    /// To a dialler: the one of them where the peer is registered.
    #[n(5)]
    nearer: Option<Elsewhere>,
    /// Unasked, to a peer that is registered: the relay is about to end.
    #[n(6)]
    leaving: Option<bool>,
}

impl Register {
    pub(crate) fn new(lifetime: u32) -> Self {
        Self {
            version: VERSION,
            lifetime,
        }
    }
}

impl Circuit {
    pub(crate) fn new(target: PeerId) -> Self {
        Self {
            version: VERSION,
            target: *target.as_bytes(),
        }
    }

    pub(crate) fn target(&self) -> PeerId {
        PeerId::from_bytes(self.target)
    }
}

impl ForPeer {
    pub(crate) fn new(
        target: PeerId,
        from: PeerId,
        former: &[PeerId],
        place: Option<[u8; 16]>,
    ) -> Self {
        Self {
            version: VERSION,
            target: *target.as_bytes(),
            from: *from.as_bytes(),
            former: joined(former),
            place,
        }
    }

    pub(crate) fn target(&self) -> PeerId {
        PeerId::from_bytes(self.target)
    }

    pub(crate) fn from(&self) -> PeerId {
        PeerId::from_bytes(self.from)
    }

    pub(crate) fn former(&self) -> Vec<PeerId> {
        split(self.former.as_deref())
    }

    pub(crate) fn place(&self) -> Option<[u8; 16]> {
        self.place
    }
}

/// Former ids, one after the other.
fn joined(former: &[PeerId]) -> Option<Vec<u8>> {
    let former = former.iter().take(MAX_FORMER);
    let former: Vec<u8> = former.flat_map(|id| *id.as_bytes()).collect();
    Some(former).filter(|former| !former.is_empty())
}

fn split(former: Option<&[u8]>) -> Vec<PeerId> {
    let ids = former.unwrap_or_default().chunks_exact(32);
    let ids = ids.take(MAX_FORMER).filter_map(|id| id.try_into().ok());
    ids.map(PeerId::from_bytes).collect()
}

impl Holds {
    pub(crate) fn new(peer: PeerId, former: &[PeerId]) -> Self {
        Self {
            version: VERSION,
            peer: *peer.as_bytes(),
            former: joined(former),
        }
    }

    pub(crate) fn peer(&self) -> PeerId {
        PeerId::from_bytes(self.peer)
    }

    pub(crate) fn former(&self) -> Vec<PeerId> {
        split(self.former.as_deref())
    }
}

impl Held {
    pub(crate) fn new(count: usize) -> Self {
        Self {
            version: VERSION,
            count: u32::try_from(count).unwrap_or(u32::MAX),
        }
    }
}

impl Elsewhere {
    pub(crate) fn new(relay: PeerId, addresses: &[Hint]) -> Self {
        let texts = addresses.iter().map(|hint| hint.for_others().to_string());
        let texts = texts.filter(|text| text.len() <= MAX_PLACE);
        Self {
            relay: *relay.as_bytes(),
            addresses: texts.take(MAX_PLACES).collect(),
        }
    }

    pub(crate) fn relay(&self) -> PeerId {
        PeerId::from_bytes(self.relay)
    }

    /// The relay and where it is reached; nothing without an address that may be followed.
    pub(crate) fn read(&self) -> Option<(PeerId, Vec<Hint>)> {
        let hints = self.addresses.iter().filter_map(|text| address(text));
        let hints: Vec<Hint> = hints.take(MAX_PLACES).collect();
        (!hints.is_empty()).then(|| (self.relay(), hints))
    }
}

impl Answer {
    pub(crate) fn done(lifetime: Option<u32>) -> Self {
        Self {
            version: VERSION,
            status: 0,
            reason: String::new(),
            lifetime,
            others: None,
            nearer: None,
            leaving: None,
        }
    }

    /// With other relays of the same fleet.
    pub(crate) fn with_others(mut self, others: Vec<Elsewhere>) -> Self {
        self.others = Some(others).filter(|others| !others.is_empty());
        self
    }

    /// With the relay where the peer is registered.
    pub(crate) fn with_nearer(mut self, nearer: Option<Elsewhere>) -> Self {
        self.nearer = nearer;
        self
    }

    /// What it says of other relays.
    pub(crate) fn others(&self) -> Vec<(PeerId, Vec<Hint>)> {
        let others = self.others.iter().flatten().take(MAX_OTHERS);
        others.filter_map(Elsewhere::read).collect()
    }

    /// What it says of the relay where the peer is registered.
    pub(crate) fn nearer(&self) -> Option<(PeerId, Vec<Hint>)> {
        self.nearer.as_ref()?.read()
    }

    /// Unasked, to a peer that is registered: it is to go to one of these.
    pub(crate) fn leaving(lifetime: u32, others: Vec<Elsewhere>) -> Self {
        let mut answer = Self::done(Some(lifetime)).with_others(others);
        answer.leaving = Some(true);
        answer
    }

    /// Whether this is that.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving == Some(true)
    }

    /// Unasked, to a peer that is registered: another process with its key is now, too, and gets its circuits.
    pub(crate) fn taken_over(lifetime: u32) -> Self {
        Self {
            reason: "another process with your key has registered".into(),
            ..Self::done(Some(lifetime))
        }
    }

    /// Whether this is that.
    pub(crate) fn is_taken_over(&self) -> bool {
        self.status() == Status::Done && !self.reason.is_empty()
    }

    /// A refusal; of a long reason the first 255 bytes.
    pub(crate) fn refused(status: Status, reason: &str) -> Self {
        Self {
            version: VERSION,
            status: status.number(),
            reason: clean_reason(reason),
            ..Self::done(None)
        }
    }

    pub(crate) fn status(&self) -> Status {
        Status::of(self.status)
    }

    /// The reason, fit to be shown.
    pub(crate) fn reason(&self) -> String {
        clean_reason(&self.reason)
    }
}

message!(Register, Circuit, ForPeer, Holds, Held, Answer);

/// For the fuzz target: decodes as each message; what decodes must encode to the same message again.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn fuzz(bytes: &[u8]) {
    use crate::wire::fuzz_one;
    fuzz_one::<Register>(bytes);
    fuzz_one::<Circuit>(bytes);
    fuzz_one::<ForPeer>(bytes);
    fuzz_one::<Holds>(bytes);
    fuzz_one::<Held>(bytes);
    fuzz_one::<Answer>(bytes);
}

#[cfg(test)]
mod tests {
    use cepa_transports::text::{HOSTILE, is_printable};

    use super::*;
    use crate::wire::{Message as _, MessageError};
    use proptest::prelude::*;

    #[test]
    fn the_wire_is_as_documented() {
        // docs/PROTOCOL.md quotes these.
        assert_eq!(
            Register::new(3600).framed(),
            [0, 7, 0xa2, 0, 1, 1, 0x19, 0x0e, 0x10]
        );
        let circuit = Circuit::new(PeerId::from_bytes([7; 32])).framed();
        assert_eq!(circuit[..8], [0, 38, 0xa2, 0, 1, 1, 0x58, 0x20]);
        assert_eq!(circuit[8..], [7; 32]);
        assert_eq!(
            Answer::refused(Status::NotRegistered, "no").framed(),
            [0, 9, 0xa3, 0, 1, 1, 5, 2, 0x62, b'n', b'o']
        );
        assert_eq!(
            Answer::done(Some(60)).framed(),
            [0, 10, 0xa4, 0, 1, 1, 0, 2, 0x60, 3, 0x18, 60]
        );
    }

    #[test]
    fn what_is_said_of_other_relays_is_as_documented_and_fits() {
        let (relay, peer) = (PeerId::from_bytes([9; 32]), PeerId::from_bytes([7; 32]));
        let asked = ForPeer::new(peer, relay, &[], None).framed();
        assert_eq!(asked[..8], [0, 73, 0xa3, 0, 1, 1, 0x58, 0x20]);
        assert_eq!(asked[40..43], [2, 0x58, 0x20]);
        let former: Vec<_> = (0..20).map(|n| PeerId::from_bytes([n; 32])).collect();
        let asked = ForPeer::new(peer, relay, &former, Some([1; 16]));
        assert_eq!(asked.former(), former[..MAX_FORMER]);
        assert_eq!(Held::new(4).framed(), [0, 5, 0xa2, 0, 1, 1, 4]);
        let asked = Holds::new(peer, &[]).framed();
        assert_eq!(asked[..8], [0, 38, 0xa2, 0, 1, 1, 0x58, 0x20]);
        assert_eq!(asked[8..], [7; 32]);
        let asked = Holds::new(peer, &former);
        assert_eq!(asked.former(), former[..MAX_FORMER]);
        let hint = |n: usize| -> Hint { format!("tcp:{}:{n}", "h".repeat(110)).parse().unwrap() };
        let hints: Vec<Hint> = (1..9).map(hint).collect();
        let all = vec![Elsewhere::new(relay, &hints); MAX_OTHERS];
        let answer = Answer::refused(Status::Full, &"x".repeat(300))
            .with_others(all)
            .with_nearer(Some(Elsewhere::new(relay, &hints)));
        let bytes = answer.framed();
        assert!(bytes.len() < 4096, "{}", bytes.len());
        let read = Answer::read(&bytes[2..]).unwrap();
        assert_eq!(read.others().len(), MAX_OTHERS);
        assert_eq!(
            read.nearer().unwrap(),
            (relay, hints[..MAX_PLACES].to_vec())
        );
        let go = Answer::leaving(60, Vec::new());
        assert_eq!(go.framed()[9..], [3, 0x18, 60, 6, 0xf5]);
        assert!(go.is_leaving() && !go.is_taken_over());
    }

    #[test]
    fn a_relay_that_names_a_command_or_a_device_names_nothing() {
        let elsewhere = |addresses: &[&str]| Elsewhere {
            relay: [9; 32],
            addresses: addresses.iter().map(ToString::to_string).collect(),
        };
        for bad in ["exec:reboot", "unix:/run/x", "serial:/dev/ttyS0", "x", ""] {
            assert_eq!(elsewhere(&[bad]).read(), None, "{bad}");
            let (_, hints) = elsewhere(&[bad, "tcp:h:1"]).read().unwrap();
            assert_eq!(hints.len(), 1);
        }
        let mut answer = Answer::done(None);
        answer.others = Some(vec![elsewhere(&["tcp:h:1"]); 100]);
        assert_eq!(answer.others().len(), MAX_OTHERS);
    }

    #[test]
    fn what_is_not_known_is_skipped() {
        // Key 9 with an array of two maps.
        let bytes = [0xa3, 0, 1, 1, 0x0a, 9, 0x82, 0xa1, 1, 2, 0xa0];
        assert_eq!(Register::read(&bytes).unwrap().lifetime, 10);
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(
            Register::read(&[0xa2, 0, 2, 1, 0x0a]),
            Err(MessageError::Version(2))
        );
        assert!(matches!(
            Register::read(&[0xa2, 0, 1, 1, 0x0a, 0]),
            Err(MessageError::Cbor(_))
        ));
        assert!(matches!(
            Circuit::read(&[0xa2, 0, 1, 1, 0x42, 1, 2]),
            Err(MessageError::Cbor(_))
        ));
        assert_eq!(
            Register::length([0x10, 0x01]),
            Err(MessageError::TooLong(4097, 4096))
        );
        assert_eq!(Register::length([0x10, 0x00]), Ok(4096));
    }

    #[test]
    fn reasons_are_cut_and_cleaned() {
        let answer = Answer::refused(Status::Refused, &"ä".repeat(200));
        assert_eq!(answer.reason(), "ä".repeat(126) + "…");
        let answer = Answer::refused(Status::Refused, "a\x1b[2Jb\n");
        assert_eq!(answer.reason(), "a\\u{1b}[2Jb");
        for (name, c) in HOSTILE {
            // As a peer may send it.
            let raw = Answer {
                reason: format!("a{c}b"),
                ..answer.clone()
            };
            assert!(raw.reason().chars().all(is_printable), "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            fuzz(&bytes);
        }

        #[test]
        fn numbers_of_states_are_distinguished(number in any::<u32>()) {
            prop_assert_eq!(Status::of(number).number(), number);
        }
    }
}
