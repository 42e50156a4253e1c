//! What stands in the store: keys, and the values behind them.
//!
//! | key, below the fleet's prefix | value |
//! | --- | --- |
//! | `m/RELAY` | a member: where it is reached, its version, its load |
//! | `r/PEER/RELAY` | a peer is registered at that relay |
//!
//! Ids are in the text form of [`PeerId`]. Values are CBOR maps with small integers as keys; key 0 is the version, 1; keys that are not
//! known are skipped. Who can write the store can write anything: what is too long, of another version or no such thing is no entry.

use minicbor::{Decode, Encode};

use crate::identity::PeerId;
use crate::node::Hint;
use crate::wire::VERSION;

/// Longest value of a member, in bytes.
pub(super) const MAX_MEMBER: usize = 4096;

/// Longest value of a registration, in bytes.
pub(super) const MAX_REGISTRATION: usize = 128;

/// Addresses of one member; what is more is left out.
pub const MAX_ADDRESSES: usize = 8;

/// Longest address in bytes; what is longer is left out.
pub(super) const MAX_ADDRESS: usize = 255;

/// Of a member's version so many bytes are kept.
const MAX_VERSION: usize = 32;

/// What a key is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Member(PeerId),
    Registration { peer: PeerId, relay: PeerId },
}

impl Key {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once('/')?;
        match kind {
            "m" => Some(Self::Member(rest.parse().ok()?)),
            "r" => {
                let (peer, relay) = rest.split_once('/')?;
                Some(Self::Registration {
                    peer: peer.parse().ok()?,
                    relay: relay.parse().ok()?,
                })
            }
            _ => None,
        }
    }

    pub(super) fn text(self) -> String {
        match self {
            Self::Member(relay) => format!("m/{relay}"),
            Self::Registration { peer, relay } => format!("r/{peer}/{relay}"),
        }
    }
}

/// How much a member holds, and may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Load {
    /// Registrations that it has.
    pub registrations: u32,
    /// Registrations that it may have.
    pub most_registrations: u32,
    /// Circuits that it carries.
    pub circuits: u32,
    /// Circuits that it may carry.
    pub most_circuits: u32,
}

impl Load {
    /// How full it is with registrations, in 1,024ths.
    #[must_use]
    pub fn fullness(&self) -> u32 {
        let most = u64::from(self.most_registrations.max(1));
        let full = u64::from(self.registrations) * 1024 / most;
        u32::try_from(full).unwrap_or(u32::MAX)
    }
}

/// A member as it says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct About {
    /// Where it is reached, the best first. None of them names a command or a device.
    pub addresses: Vec<Hint>,
    /// Of its software.
    pub version: String,
    /// What it holds.
    pub load: Load,
    /// It takes nothing new, and is about to end.
    pub leaving: bool,
}

/// A registration as its relay says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Registered {
    /// When it runs out unless renewed, in seconds of Unix time.
    pub(super) end: u64,
    /// When it was made, as a revision of the store; 0: that of this entry's first writing, which is not known to its writer yet.
    pub(super) fence: u64,
    /// The key is a former id of this peer.
    pub(super) heir: Option<PeerId>,
    /// So many registrations of the peer are at that relay.
    pub(super) count: u32,
}

/// The fence of an entry that was written at this revision: nobody can have made a registration later than that.
pub(super) fn fence_at(fence: u64, revision: u64) -> u64 {
    match fence {
        0 => revision,
        fence => fence.min(revision),
    }
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct MemberValue {
    #[n(0)]
    version: u8,
    #[n(1)]
    addresses: Vec<String>,
    #[n(2)]
    software: String,
    #[n(3)]
    registrations: u32,
    #[n(4)]
    most_registrations: u32,
    #[n(5)]
    circuits: u32,
    #[n(6)]
    most_circuits: u32,
    #[n(7)]
    leaving: Option<bool>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct RegistrationValue {
    #[n(0)]
    version: u8,
    #[n(1)]
    end: u64,
    #[n(2)]
    fence: Option<u64>,
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    heir: Option<[u8; 32]>,
    #[n(4)]
    count: Option<u32>,
}

fn decode<'b, T: Decode<'b, ()>>(value: &'b [u8], most: usize) -> Option<T> {
    if value.len() > most {
        return None;
    }
    let mut decoder = minicbor::Decoder::new(value);
    let found = decoder.decode().ok()?;
    (decoder.position() == value.len()).then_some(found)
}

/// An address of a relay as it may stand in an entry or a message.
pub(in crate::protocols::relay) fn address(text: &str) -> Option<Hint> {
    if text.len() > MAX_ADDRESS {
        return None;
    }
    let hint: Hint = text.parse().ok()?;
    // A way through other relays is one that others would have to follow for each circuit.
    (hint.is_network() && !hint.is_relay()).then_some(hint)
}

impl About {
    pub(super) fn encode(&self) -> Vec<u8> {
        let texts = self.addresses.iter().map(ToString::to_string);
        let value = MemberValue {
            version: VERSION,
            addresses: texts
                .filter(|text| text.len() <= MAX_ADDRESS)
                .take(MAX_ADDRESSES)
                .collect(),
            software: cepa_transports::text::clean(&self.version, MAX_VERSION).into_owned(),
            registrations: self.load.registrations,
            most_registrations: self.load.most_registrations,
            circuits: self.load.circuits,
            most_circuits: self.load.most_circuits,
            leaving: self.leaving.then_some(true),
        };
        // Writing into a `Vec` can not fail.
        minicbor::to_vec(value).unwrap_or_default()
    }

    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let value: MemberValue = decode(value, MAX_MEMBER)?;
        if value.version != VERSION {
            return None;
        }
        let hints = value.addresses.iter().filter_map(|text| address(text));
        Some(Self {
            addresses: hints.take(MAX_ADDRESSES).collect(),
            version: cepa_transports::text::clean(&value.software, MAX_VERSION).into_owned(),
            load: Load {
                registrations: value.registrations,
                most_registrations: value.most_registrations,
                circuits: value.circuits,
                most_circuits: value.most_circuits,
            },
            leaving: value.leaving.unwrap_or(false),
        })
    }
}

impl Registered {
    pub(super) fn encode(&self) -> Vec<u8> {
        let value = RegistrationValue {
            version: VERSION,
            end: self.end,
            fence: Some(self.fence).filter(|fence| *fence > 0),
            heir: self.heir.map(|heir| *heir.as_bytes()),
            count: Some(self.count).filter(|count| *count != 1),
        };
        minicbor::to_vec(value).unwrap_or_default()
    }

    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let value: RegistrationValue = decode(value, MAX_REGISTRATION)?;
        (value.version == VERSION).then(|| Self {
            end: value.end,
            fence: value.fence.unwrap_or(0),
            heir: value.heir.map(PeerId::from_bytes),
            count: value.count.unwrap_or(1),
        })
    }
}

/// For the fuzz target.
#[cfg(any(test, feature = "fuzzing"))]
pub(in crate::protocols::relay) fn fuzz(bytes: &[u8]) {
    if let Some(about) = About::decode(bytes) {
        assert!(about.addresses.len() <= MAX_ADDRESSES);
        assert_eq!(About::decode(&about.encode()), Some(about));
    }
    if let Some(registered) = Registered::decode(bytes) {
        assert_eq!(Registered::decode(&registered.encode()), Some(registered));
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Some(key) = Key::parse(text)
    {
        assert_eq!(key.text(), text);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PEER: PeerId = PeerId::from_bytes([7; 32]);
    const RELAY: PeerId = PeerId::from_bytes([9; 32]);

    #[test]
    fn keys_are_read_as_they_are_written() {
        for key in [
            Key::Member(RELAY),
            Key::Registration {
                peer: PEER,
                relay: RELAY,
            },
        ] {
            assert_eq!(Key::parse(&key.text()), Some(key));
        }
        assert_eq!(Key::Member(RELAY).text(), format!("m/{RELAY}"));
        for bad in [
            String::new(),
            "m".into(),
            "m/".into(),
            format!("x/{RELAY}"),
            format!("m/{RELAY}/"),
            format!("m/{}", RELAY.to_string().to_uppercase()),
            format!("r/{PEER}"),
            format!("r/{PEER}/{RELAY}/{PEER}"),
            format!("/m/{RELAY}"),
        ] {
            assert_eq!(Key::parse(&bad), None, "{bad}");
        }
    }

    #[test]
    fn the_values_are_as_documented() {
        // docs/FLEET.md quotes these.
        let one = Registered {
            end: 60,
            fence: 0,
            heir: None,
            count: 1,
        };
        assert_eq!(one.encode(), [0xa2, 0, 1, 1, 0x18, 60]);
        let heir = Some(PEER);
        let full = Registered {
            fence: 5,
            heir,
            count: 2,
            ..one
        };
        let bytes = full.encode();
        assert_eq!(bytes[..10], [0xa5, 0, 1, 1, 0x18, 60, 2, 5, 3, 0x58]);
        assert_eq!(Registered::decode(&bytes), Some(full));
        let about = About {
            addresses: vec!["tcp:192.0.2.1:7000".parse().unwrap()],
            version: "0.1.0".into(),
            load: Load {
                registrations: 1,
                most_registrations: 2,
                circuits: 3,
                most_circuits: 4,
            },
            leaving: true,
        };
        let bytes = about.encode();
        assert_eq!(bytes[..5], [0xa8, 0, 1, 1, 0x81]);
        assert_eq!(bytes[bytes.len() - 10..], [3, 1, 4, 2, 5, 3, 6, 4, 7, 0xf5]);
        assert_eq!(About::decode(&bytes), Some(about));
    }

    #[test]
    fn what_is_no_entry_is_none() {
        let good = Registered {
            end: u64::MAX,
            fence: u64::MAX,
            heir: Some(PEER),
            count: u32::MAX,
        };
        let good = good.encode();
        assert!(good.len() <= MAX_REGISTRATION && Registered::decode(&good).is_some());
        let mut other = good.clone();
        other[2] = 2;
        assert_eq!(Registered::decode(&other), None, "another version");
        let behind = [&good[..], &[0]].concat();
        assert_eq!(Registered::decode(&behind), None, "bytes behind it");
        assert_eq!(Registered::decode(&good[..good.len() - 1]), None);
        assert_eq!(Registered::decode(&[]), None);
        assert_eq!(About::decode(&vec![0xa0; MAX_MEMBER + 1]), None);
        // Arrays that say they are longer than what is there.
        assert_eq!(
            About::decode(&[0xa1, 1, 0x9b, 0xff, 0, 0, 0, 0, 0, 0, 0]),
            None
        );
    }

    #[test]
    fn an_address_names_no_command_no_device_and_no_other_relay() {
        let text = |text: &str| address(text).map(|hint| hint.to_string());
        assert_eq!(text("tcp:h:1").as_deref(), Some("tcp:h:1"));
        for bad in [
            "exec:reboot".to_owned(),
            "unix:/run/x".into(),
            format!("relay:{RELAY}@tcp:h:1"),
            format!("tcp:{}:1", "h".repeat(300)),
            "nonsense".into(),
            String::new(),
        ] {
            assert_eq!(text(&bad), None, "{bad}");
        }
        // They are left out one by one.
        let value = MemberValue {
            version: 1,
            addresses: ["exec:reboot".to_owned(), "tcp:h:1".into()]
                .into_iter()
                .chain((2..20).map(|n| format!("tcp:h:{n}")))
                .collect(),
            software: "\u{1b}[2J".into(),
            registrations: 0,
            most_registrations: 0,
            circuits: 0,
            most_circuits: 0,
            leaving: None,
        };
        let about = About::decode(&minicbor::to_vec(value).unwrap()).unwrap();
        assert_eq!(about.addresses.len(), MAX_ADDRESSES);
        assert_eq!(about.addresses[0].to_string(), "tcp:h:1");
        assert!(!about.version.contains('\u{1b}'));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            fuzz(&bytes);
        }

        #[test]
        fn a_registration_is_read_as_it_is_written(
            end in any::<u64>(), fence in any::<u64>(), count in any::<u32>(),
            heir in any::<Option<[u8; 32]>>(),
        ) {
            let heir = heir.map(PeerId::from_bytes);
            let one = Registered { end, fence, heir, count };
            prop_assert_eq!(Registered::decode(&one.encode()), Some(one));
        }
    }
}
