//! What two peers say to each other before they try: the codec, without IO. docs/PROTOCOL.md has the table.

use std::net::SocketAddr;

use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};

use super::super::relay::Nonce;
use super::super::signed::Signed;
use super::knock;
use crate::wire::{Status, VERSION, clean_reason, message};

/// Local addresses that are heard; what is more is skipped.
const MOST_LOCAL: usize = 7;

/// The first word: the nonce is for the other end's relay to sign.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Begin {
    #[n(0)]
    version: u8,
    #[n(1)]
    nonce: ByteArray<16>,
}

/// Where the sender is; or why it does not want to.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Offer {
    #[n(0)]
    version: u8,
    #[n(1)]
    status: u32,
    /// For a person; empty where all is well.
    #[n(2)]
    reason: String,
    /// Of the end that was asked: for the other end's relay to sign.
    #[n(3)]
    nonce: Option<ByteArray<16>>,
    /// Where the relay sees the sender.
    #[n(4)]
    pub(super) seen: Option<Signed>,
    /// Addresses in its own network.
    #[n(5)]
    local: Vec<String>,
    /// Where the relay sees a UDP port of the sender.
    #[n(6)]
    seen_udp: Option<Signed>,
    /// UDP ports in its own network.
    #[n(7)]
    local_udp: Option<Vec<String>>,
    /// What the sender wants to read in datagrams before it answers them.
    #[n(8)]
    knock: Option<ByteArray<8>>,
    /// A TCP port that the sender's router has mapped to it.
    #[n(9)]
    mapped: Option<String>,
}

/// Where the sender of an offer can be reached by TCP, or by UDP.
pub(super) struct Place {
    pub(super) seen: Signed,
    /// In its own network.
    pub(super) local: Option<SocketAddr>,
    /// By a port of its router; of TCP.
    pub(super) mapped: Option<SocketAddr>,
}

/// Ready; and the other end's answer to that, at which both begin.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Word {
    #[n(0)]
    version: u8,
    #[n(1)]
    status: u32,
    #[n(2)]
    reason: String,
}

message!(Begin, Offer, Word);

impl Begin {
    pub(super) fn new(nonce: Nonce) -> Self {
        Self {
            version: VERSION,
            nonce: nonce.into(),
        }
    }

    pub(super) fn nonce(&self) -> Nonce {
        *self.nonce
    }
}

impl Offer {
    pub(super) fn new(nonce: Option<Nonce>, tcp: Place, udp: Option<(Place, knock::Word)>) -> Self {
        let text = |local: Option<SocketAddr>| local.iter().map(ToString::to_string).collect();
        let (seen_udp, local_udp, knock) = match udp {
            Some((place, word)) => (Some(place.seen), Some(text(place.local)), Some(word.into())),
            None => (None, None, None),
        };
        Self {
            version: VERSION,
            status: Status::Done.number(),
            reason: String::new(),
            nonce: nonce.map(Into::into),
            seen: Some(tcp.seen),
            local: text(tcp.local),
            mapped: tcp.mapped.map(|at| at.to_string()),
            seen_udp,
            local_udp,
            knock,
        }
    }

    pub(super) fn refused(reason: &str) -> Self {
        Self {
            version: VERSION,
            status: Status::Refused.number(),
            reason: clean_reason(reason),
            nonce: None,
            seen: None,
            local: Vec::new(),
            seen_udp: None,
            local_udp: None,
            knock: None,
            mapped: None,
        }
    }

    /// Why the other end does not want to, fit to be shown.
    pub(super) fn refusal(&self) -> Option<String> {
        (Status::of(self.status) != Status::Done).then(|| clean_reason(&self.reason))
    }

    pub(super) fn nonce(&self) -> Option<Nonce> {
        self.nonce.map(|nonce| *nonce)
    }

    /// The addresses that are some.
    pub(super) fn local(&self) -> impl Iterator<Item = SocketAddr> {
        addresses(&self.local)
    }

    /// The port that its router has mapped.
    pub(super) fn mapped(&self) -> Option<SocketAddr> {
        self.mapped.as_ref()?.parse().ok()
    }

    /// Where the relay sees its UDP port, and its word for datagrams.
    pub(super) fn udp(&self) -> Option<(&Signed, knock::Word)> {
        Some((self.seen_udp.as_ref()?, *self.knock?))
    }

    /// Those for UDP.
    pub(super) fn local_udp(&self) -> impl Iterator<Item = SocketAddr> {
        addresses(self.local_udp.as_deref().unwrap_or_default())
    }
}

fn addresses(words: &[String]) -> impl Iterator<Item = SocketAddr> {
    let heard = words.iter().take(MOST_LOCAL);
    heard.filter_map(|at| at.parse().ok())
}

impl Word {
    pub(super) fn done() -> Self {
        Self {
            version: VERSION,
            status: Status::Done.number(),
            reason: String::new(),
        }
    }

    pub(super) fn refused(reason: &str) -> Self {
        Self {
            status: Status::Refused.number(),
            reason: clean_reason(reason),
            ..Self::done()
        }
    }

    pub(super) fn refusal(&self) -> Option<String> {
        (Status::of(self.status) != Status::Done).then(|| clean_reason(&self.reason))
    }
}

/// For the fuzz target.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn fuzz(bytes: &[u8]) {
    use crate::wire::fuzz_one;
    fuzz_one::<Begin>(bytes);
    fuzz_one::<Offer>(bytes);
    fuzz_one::<Word>(bytes);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_more_addresses_are_heard_than_are_tried() {
        let mut offer = Offer::refused("no");
        offer.local = (0..200).map(|n| format!("10.0.0.{n}:4000")).collect();
        offer.local.insert(0, "no address".into());
        assert_eq!(offer.local().count(), MOST_LOCAL - 1);
        assert_eq!(offer.local_udp().count(), 0);
        offer.local_udp = Some(offer.local.clone());
        assert_eq!(offer.local_udp().count(), MOST_LOCAL - 1);
        assert_eq!(offer.refusal().as_deref(), Some("no"));
        assert_eq!(Word::done().refusal(), None);
    }

    #[test]
    fn the_wire_is_as_documented() {
        use crate::wire::Message as _;
        let begin = Begin::new([3; 16]).framed();
        assert_eq!(begin[..7], [0, 21, 0xa2, 0, 1, 1, 0x50]);
        assert_eq!(begin[7..], [3; 16]);
        let word = Word::refused("no").framed();
        assert_eq!(word, [0, 9, 0xa3, 0, 1, 1, 6, 2, 0x62, b'n', b'o']);
        let offer = Offer::refused("no").framed();
        assert_eq!(
            offer,
            [0, 11, 0xa4, 0, 1, 1, 6, 2, 0x62, b'n', b'o', 5, 0x80]
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            fuzz(&bytes);
        }
    }
}
