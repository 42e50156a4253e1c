//! What an introduction says, its codec, and whether it holds together. No IO, no clock.
//!
//! An introduction is a chain of one to four links, each a statement and its signature. The first one is by the
//! service's owner, or by whom the owner lets introduce; each later one is by whom the link before it is for, and
//! can only take away: never a later end, never more uses, never another service.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use minicbor::{Decode, Encode};

use crate::backend::random;
use crate::identity::{Identity, PeerId, UnixTime};
use crate::node::PeerAddr;
use crate::protocols::signed::Signed;
use crate::wire::{Message as _, VERSION, message};

use super::flaw::{ChainFlaw, Flaw};
use super::link::{
    Ancestor, Bound, DOMAIN, Link, MAX_ANCESTORS, MAX_BYTES, Name, Statement, Step, at, former,
};

/// Begins an introduction as text.
const TEXT: &str = "cepa-introduction:";
/// Most links: who is introduced may introduce others, and so on. Longer chains are hard to oversee.
pub const MAX_LINKS: usize = 4;

/// What an introduction is limited to. Start from [`Terms::until`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Terms {
    /// Until when it may be used.
    pub expires: UnixTime,
    /// Who may use it. Without one, the first who does is the only one from then on: give such an
    /// introduction away over a way that is private.
    pub recipient: Option<PeerId>,
    /// How many substreams may be opened with it; `None` for any number.
    pub uses: Option<u32>,
    /// How many times it may be passed on, from one recipient to the next; default 0.
    pub further: u8,
}

impl Terms {
    /// For one use by whoever has it.
    #[must_use]
    pub fn until(expires: UnixTime) -> Self {
        Self {
            expires,
            recipient: None,
            uses: Some(1),
            further: 0,
        }
    }

    /// For this recipient only.
    #[must_use]
    pub fn for_peer(mut self, recipient: PeerId) -> Self {
        self.recipient = Some(recipient);
        self
    }

    /// For so many uses; `None` for any number.
    #[must_use]
    pub fn uses(mut self, uses: Option<u32>) -> Self {
        self.uses = uses;
        self
    }

    /// May be passed on so many times.
    #[must_use]
    pub fn further(mut self, further: u8) -> Self {
        self.further = further;
        self
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Wire {
    #[n(0)]
    version: u8,
    #[n(1)]
    links: Vec<Signed>,
}

message!(Wire: MAX_BYTES);

/// A reference to one service of one peer, by someone who may give it: see the head of
/// [`Introduction`]'s module for who checks what. Prints and parses as one line of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// At least one.
    links: Vec<Link>,
}

impl Introduction {
    /// Signs a reference to the service of an address, one's own or another's. Whether the owner lets
    /// `issuer` introduce anybody is the owner's to say, when it is used. It counts as issued at the beginning of the
    /// second `now`; an owner that began within that second refuses it. [`Introductions::introduce`](super::Introductions::introduce)
    /// is more exact.
    ///
    /// # Errors
    /// When the address names no service, or cannot be carried; when the key cannot sign.
    pub fn new(
        issuer: &Identity,
        to: &PeerAddr,
        terms: Terms,
        now: UnixTime,
    ) -> Result<Self, Flaw> {
        let now = Duration::from_secs(now.as_secs());
        Self::bound(issuer, to, terms, now, Bound::default())
    }

    /// As [`new`](Self::new), with what the owner of the service looks at.
    pub(super) fn bound(
        issuer: &Identity,
        to: &PeerAddr,
        terms: Terms,
        now: Duration,
        bound: Bound,
    ) -> Result<Self, Flaw> {
        Self { links: Vec::new() }.and(issuer, to, terms, now, None, bound)
    }

    /// Passes it on to somebody else. The terms can only be narrower than those there are: what is wider is
    /// made as narrow.
    ///
    /// # Errors
    /// When it may not be passed on, or not by `issuer`.
    pub fn pass_on(&self, issuer: &Identity, terms: Terms, now: UnixTime) -> Result<Self, Flaw> {
        self.pass_on_at(issuer, terms, Duration::from_secs(now.as_secs()))
    }

    /// The same, at a moment since 1970.
    pub(super) fn pass_on_at(
        &self,
        issuer: &Identity,
        terms: Terms,
        now: Duration,
    ) -> Result<Self, Flaw> {
        let last = self.last()?;
        let Some(further) = last.said.further.checked_sub(1) else {
            return Err(Flaw::Chain(ChainFlaw::NoFurther));
        };
        let narrower = Terms {
            expires: terms.expires.min(last.expires()),
            uses: match (terms.uses, last.uses()) {
                (Some(ours), Some(theirs)) => Some(ours.min(theirs)),
                (ours, theirs) => ours.or(theirs),
            },
            further: terms.further.min(further),
            ..terms
        };
        let (address, parent) = (last.address.clone(), Some(last.name()));
        let bound = Bound::default();
        self.clone()
            .and(issuer, &address, narrower, now, parent, bound)
    }

    fn and(
        mut self,
        issuer: &Identity,
        to: &PeerAddr,
        terms: Terms,
        now: Duration,
        parent: Option<Name>,
        bound: Bound,
    ) -> Result<Self, Flaw> {
        if bound
            .made_from
            .as_ref()
            .is_some_and(|it| it.len() > MAX_ANCESTORS)
        {
            return Err(Flaw::Chain(ChainFlaw::TooManyMembranes));
        }
        if self.links.len() >= MAX_LINKS {
            return Err(Flaw::Chain(ChainFlaw::NoFurther));
        }
        let nonce: [u8; 16] = random().map_err(|_| Flaw::Sign("no random bytes".into()))?;
        let said = Statement {
            version: VERSION,
            issuer: issuer.public_key().to_vec().into(),
            address: to.to_wire(),
            issued: now.as_secs(),
            expires: terms.expires.as_secs(),
            nonce: nonce.into(),
            recipient: terms.recipient.map(|id| (*id.as_bytes()).into()),
            uses: terms.uses,
            further: terms.further,
            // Whoever passes on does so with the key that the link before names.
            former: parent.is_none().then(|| former(issuer)).flatten(),
            parent: parent.map(Into::into),
            nanos: Some(now.subsec_nanos()).filter(|nanos| *nanos > 0),
            epoch: bound.epoch.map(Into::into),
            made_from: bound.made_from,
        };
        self.links.push(Link::sign(issuer, &said)?);
        self.hangs_together()?;
        Ok(self)
    }

    /// Reads one; nothing may stand behind it. Whether it holds is not looked at.
    ///
    /// # Errors
    /// [`Flaw::Malformed`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Flaw> {
        let malformed = |why: String| Flaw::Malformed(why);
        if bytes.len() > MAX_BYTES {
            return Err(malformed(format!("it has more than {MAX_BYTES} bytes")));
        }
        let wire = Wire::read(bytes).map_err(|e| malformed(e.to_string()))?;
        if !(1..=MAX_LINKS).contains(&wire.links.len()) {
            return Err(malformed(format!("it has one to {MAX_LINKS} links")));
        }
        let links = wire.links.into_iter().map(Link::read);
        let links = links.collect::<Result<_, _>>()?;
        Ok(Self { links })
    }

    /// As bytes, to be passed on in a request or an answer of a program's own.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let wire = Wire {
            version: VERSION,
            links: self.links.iter().map(|link| link.signed.clone()).collect(),
        };
        wire.cbor()
    }

    pub(super) fn links(&self) -> &[Link] {
        &self.links
    }

    pub(super) fn last(&self) -> Result<&Link, Flaw> {
        let none = || Flaw::Malformed("it has no links".into());
        self.links.last().ok_or_else(none)
    }

    /// Whose service it is for, where that peer may be found, and which service.
    pub fn address(&self) -> Option<&PeerAddr> {
        self.links.last().map(|link| &link.address)
    }

    /// For whom it is, if it is for one peer.
    pub fn recipient(&self) -> Option<PeerId> {
        self.links.last().and_then(Link::recipient)
    }

    /// Until when it may be used, by the narrowest of its links.
    pub fn expires(&self) -> UnixTime {
        let ends = self.links.iter().map(Link::expires);
        ends.min().unwrap_or_else(|| at(0))
    }

    /// How many connections it is for, by the narrowest of its links; `None` for any number. What was used of them, its owner knows.
    pub fn uses(&self) -> Option<u32> {
        self.links.iter().filter_map(Link::uses).min()
    }

    /// Who introduced: the first link's issuer first.
    pub fn issuers(&self) -> Vec<PeerId> {
        self.links.iter().map(|link| link.issuer).collect()
    }

    /// Whether it holds together, is signed, and in time: what can be seen without asking its owner.
    pub(in crate::protocols) fn holds(&self, now: UnixTime) -> Result<(), Flaw> {
        self.hangs_together()?;
        self.is_signed()?;
        if now > self.expires() {
            return Err(Flaw::Expired);
        }
        Ok(())
    }

    /// What it is limited to, all links together.
    pub(in crate::protocols) fn terms(&self) -> Result<Terms, Flaw> {
        let last = self.last()?;
        Ok(Terms {
            expires: self.expires(),
            recipient: last.recipient(),
            uses: last.uses(),
            further: last.said.further,
        })
    }

    /// The name of its last link: two with one name are the same.
    pub(in crate::protocols) fn name(&self) -> Result<Name, Flaw> {
        self.last().map(Link::name)
    }

    /// How many times it may be passed on.
    pub fn further(&self) -> u8 {
        self.links.last().map_or(0, |link| link.said.further)
    }

    /// Whether a membrane has made it.
    pub(super) fn is_made(&self) -> bool {
        let first = self.links.first();
        first.is_some_and(|first| first.said.made_from.is_some())
    }

    /// All that holds for it, from the beginning on: what it was made from, then its links.
    pub(super) fn steps(&self) -> Vec<Step> {
        let made_from = self
            .links
            .first()
            .and_then(|first| first.said.made_from.as_ref());
        let ancestors = made_from.into_iter().flatten().map(Ancestor::step);
        let links = self.links.iter().map(|link| Step {
            bearer: link.said.recipient.is_none(),
            ..link.ancestor(link.counted_uses()).step()
        });
        ancestors.chain(links).collect()
    }

    /// What another one is made from that stands for this one: this as a whole where it is for a service of another peer,
    /// whose owner counts its links; else all its steps.
    pub(in crate::protocols) fn ancestry(&self) -> Result<Vec<Ancestor>, Flaw> {
        if !self.is_made() {
            let last = self.last()?;
            return Ok(vec![Ancestor {
                expires: self.expires().as_secs(),
                passed_on: None,
                ..last.ancestor(last.said.uses)
            }]);
        }
        let made_from = self
            .links
            .first()
            .and_then(|first| first.said.made_from.clone());
        let links = self.links.iter();
        let links = links.map(|link| link.ancestor(link.counted_uses()));
        Ok(made_from
            .unwrap_or_default()
            .into_iter()
            .chain(links)
            .collect())
    }

    /// Whether its links follow from each other.
    pub(super) fn hangs_together(&self) -> Result<(), Flaw> {
        let mut before: Option<&Link> = None;
        for (at, link) in self.links.iter().enumerate() {
            let owner = link.address.peer();
            // The owner may begin, and comes nowhere else; and nobody comes twice.
            let again = self
                .links
                .iter()
                .skip(at + 1)
                .any(|l| l.issuer == link.issuer);
            let recipient = link.recipient();
            let back = recipient.is_some_and(|to| {
                to == owner || self.links.iter().take(at + 1).any(|l| l.issuer == to)
            });
            if again || back {
                return Err(Flaw::Chain(ChainFlaw::LeadsBack));
            }
            let parent = link.said.parent.as_ref().map(|name| **name);
            let begins = link.said.epoch.is_some() || link.said.made_from.is_some();
            if begins && before.is_some() || link.said.made_from.is_some() && link.issuer != owner {
                return Err(Flaw::Chain(ChainFlaw::OwnersWord));
            }
            match before {
                None if parent.is_some() => return Err(Flaw::Chain(ChainFlaw::NoBeginning)),
                None => {}
                Some(before) => {
                    if parent != Some(before.name()) {
                        return Err(Flaw::Chain(ChainFlaw::OtherChain));
                    }
                    if before.recipient() != Some(link.issuer) {
                        return Err(Flaw::Chain(ChainFlaw::NotTheirs));
                    }
                    if link.said.further >= before.said.further {
                        return Err(Flaw::Chain(ChainFlaw::NoFurther));
                    }
                    let same = owner == before.address.peer()
                        && link.address.service() == before.address.service();
                    let wider = link.expires() > before.expires()
                        || before
                            .uses()
                            .is_some_and(|most| link.uses().is_none_or(|n| n > most));
                    if !same || wider {
                        return Err(Flaw::Chain(ChainFlaw::GivesMore));
                    }
                }
            }
            before = Some(link);
        }
        Ok(())
    }

    /// Whether every link is signed by its issuer.
    pub(super) fn is_signed(&self) -> Result<(), Flaw> {
        for link in &self.links {
            if !link.signed.is_by(&link.said.issuer, DOMAIN) {
                return Err(Flaw::Signature {
                    issuer: link.issuer,
                });
            }
        }
        Ok(())
    }
}

impl fmt::Display for Introduction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{TEXT}{}", BASE64URL_NOPAD.encode(&self.to_bytes()))
    }
}

impl FromStr for Introduction {
    type Err = Flaw;

    fn from_str(text: &str) -> Result<Self, Flaw> {
        let text = text.trim().strip_prefix(TEXT);
        let text = text.ok_or_else(|| Flaw::Malformed(format!("it begins with {TEXT}")))?;
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes());
        let bytes = bytes
            .map_err(|_| Flaw::Malformed("what follows is base64url: copy it to its end".into()))?;
        // In a decoder's words nobody sees what to do.
        Self::from_bytes(&bytes).map_err(|flaw| match flaw {
            Flaw::Malformed(_) => Flaw::Malformed("it is cut off, or was changed".into()),
            flaw => flaw,
        })
    }
}

/// For the fuzz target: what is read is written the same again.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn fuzz(bytes: &[u8]) {
    if let Ok(read) = Introduction::from_bytes(bytes) {
        assert_eq!(
            Introduction::from_bytes(&read.to_bytes()).as_ref(),
            Ok(&read),
            "a print that reads differently"
        );
        let _ = read.hangs_together();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::KeyKind;

    fn key() -> Identity {
        Identity::generate(KeyKind::Ed25519).unwrap()
    }

    fn address() -> PeerAddr {
        let owner = PeerId::from_bytes([9; 32]);
        format!("cepa://{owner}@tcp:h:1/up").parse().unwrap()
    }

    /// From A to B to C.
    fn chain() -> Introduction {
        let [a, b, c] = [key(), key(), key()];
        let terms = Terms::until(at(100)).for_peer(b.peer_id()).further(2);
        let first = Introduction::new(&a, &address(), terms, at(1)).unwrap();
        let terms = Terms::until(at(90)).for_peer(c.peer_id()).uses(None);
        first.pass_on(&b, terms, at(2)).unwrap()
    }

    fn holds(read: &Introduction) -> Result<(), Flaw> {
        read.hangs_together().and_then(|()| read.is_signed())
    }

    #[test]
    fn what_is_written_is_read() {
        let it = chain();
        assert_eq!(holds(&it), Ok(()));
        assert_eq!(Introduction::from_bytes(&it.to_bytes()).as_ref(), Ok(&it));
        let text = it.to_string();
        assert_eq!(format!(" {text}\n").parse().as_ref(), Ok(&it));
        assert_eq!(it.expires(), at(90));
        assert_eq!(it.links[1].uses(), Some(1), "as few as the link before");
        assert_eq!(it.issuers().len(), 2);
    }

    #[test]
    fn no_bit_can_be_changed_and_no_byte_left_out() {
        let it = chain();
        let bytes = it.to_bytes();
        for place in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[place] ^= 1 << bit;
                let read = Introduction::from_bytes(&changed);
                assert!(read.and_then(|it| holds(&it)).is_err(), "{place}, {bit}");
            }
            assert!(Introduction::from_bytes(&bytes[..place]).is_err());
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(Introduction::from_bytes(&longer).is_err());
    }

    #[test]
    fn links_can_not_be_taken_apart() {
        let (one, other) = (chain(), chain());
        let with = |links: &[&Link]| {
            let links = links.iter().copied().cloned().collect();
            Introduction { links }.hangs_together()
        };
        assert_eq!(with(&[&one.links[0], &one.links[1]]), Ok(()));
        for links in [
            vec![&one.links[1]],
            vec![&one.links[0], &other.links[1]],
            vec![&one.links[1], &one.links[0]],
            vec![&one.links[0], &one.links[0]],
        ] {
            assert!(matches!(with(&links), Err(Flaw::Chain(_))));
        }
    }

    /// Whoever passes on does not need this code for it: each widening is refused when it is read.
    #[test]
    fn nothing_can_be_widened() {
        let (a, b, c) = (key(), key(), key());
        let terms = Terms::until(at(100)).for_peer(b.peer_id()).further(1);
        let first = Introduction::new(&a, &address(), terms, at(1)).unwrap();
        let honest = Statement {
            version: VERSION,
            issuer: b.public_key().to_vec().into(),
            address: address().to_string(),
            issued: 2,
            expires: 100,
            nonce: [0; 16].into(),
            recipient: Some((*c.peer_id().as_bytes()).into()),
            uses: Some(1),
            further: 0,
            parent: Some(first.links[0].name().into()),
            nanos: None,
            epoch: None,
            made_from: None,
            former: None,
        };
        let second = |by: &Identity, said: Statement| {
            let mut links = first.links.clone();
            links.push(Link::sign(by, &said).unwrap());
            Introduction { links }.hangs_together()
        };
        assert_eq!(second(&b, honest.clone()), Ok(()));
        let other = "cepa://".to_owned() + &PeerId::from_bytes([8; 32]).to_string() + "/up";
        let id = |peer: PeerId| Some((*peer.as_bytes()).into());
        let wide: [fn(&mut Statement, (String, _, _)); 8] = [
            |said, _| said.expires = 101,
            |said, _| said.uses = Some(2),
            |said, _| said.uses = None,
            |said, _| said.further = 1,
            |said, _| said.address = said.address.replace("/up", "/down"),
            |said, (other, ..)| said.address = other,
            // Loops: back to the issuer, and to the owner.
            |said, (_, a, _)| said.recipient = a,
            |said, (_, _, owner)| said.recipient = owner,
        ];
        for (at, widen) in wide.into_iter().enumerate() {
            let mut said = honest.clone();
            widen(
                &mut said,
                (other.clone(), id(a.peer_id()), id(address().peer())),
            );
            assert!(matches!(second(&b, said), Err(Flaw::Chain(_))), "{at}");
        }
        let stolen = Statement {
            issuer: c.public_key().to_vec().into(),
            recipient: None,
            ..honest
        };
        assert!(matches!(second(&c, stolen), Err(Flaw::Chain(_))));
        // The same where it is made here.
        let terms = Terms::until(at(100));
        assert!(matches!(
            first.pass_on(&c, terms, at(2)),
            Err(Flaw::Chain(_))
        ));
        let last = first.pass_on(&b, terms.for_peer(c.peer_id()), at(2));
        assert!(matches!(
            last.unwrap().pass_on(&c, terms, at(3)),
            Err(Flaw::Chain(_))
        ));
    }

    /// docs/PROTOCOL.md quotes this.
    #[test]
    fn the_wire_is_as_documented() {
        let said = Statement {
            version: VERSION,
            issuer: vec![9].into(),
            address: "cepa://x/up".into(),
            issued: 10,
            expires: 20,
            nonce: [1; 16].into(),
            recipient: None,
            uses: Some(1),
            further: 0,
            parent: None,
            nanos: Some(5),
            epoch: Some([2; 16].into()),
            made_from: Some(vec![Ancestor {
                name: [3; 32].into(),
                expires: 20,
                uses: None,
                passed_on: Some(11),
            }]),
            former: None,
        };
        let mut expected = vec![0xab, 0, 1, 1, 0x41, 9, 2, 0x6b];
        expected.extend(b"cepa://x/up");
        expected.extend([3, 10, 4, 20, 5, 0x50]);
        expected.extend([1; 16]);
        expected.extend([7, 1, 8, 0, 10, 5, 11, 0x50]);
        expected.extend([2; 16]);
        expected.extend([12, 0x81, 0x84, 0x58, 0x20]);
        expected.extend([3; 32]);
        expected.extend([20, 0xf6, 11]);
        assert_eq!(said.cbor(), expected);
        assert_eq!(Statement::read(&expected), Ok(said));
    }

    #[test]
    fn what_the_owner_says_is_said_by_nobody_else() {
        let [owner, other, holder] = [key(), key(), key()];
        let to: PeerAddr = format!("cepa://{}/up", owner.peer_id()).parse().unwrap();
        let terms = Terms::until(at(100)).for_peer(holder.peer_id()).further(1);
        let now = Duration::new(1, 7);
        let of = Introduction::new(&other, &address(), terms, at(1)).unwrap();
        let made = |by: &Identity, of: &Introduction, count: usize| {
            let ancestry = of.ancestry().unwrap();
            let ancestry = ancestry.into_iter().cycle().take(count).collect();
            let bound = Bound {
                epoch: Some([4; 16]),
                made_from: Some(ancestry),
            };
            Introduction::bound(by, &to, terms, now, bound)
        };
        let it = made(&owner, &of, 1).unwrap();
        assert_eq!(Introduction::from_bytes(&it.to_bytes()).as_ref(), Ok(&it));
        assert_eq!(holds(&it), Ok(()));
        assert_eq!(it.links[0].issued(), now);
        assert_eq!(it.steps().len(), 2);
        assert!(matches!(made(&other, &of, 1), Err(Flaw::Chain(_))));
        let most = made(&owner, &of, MAX_ANCESTORS).unwrap();
        assert!(most.to_bytes().len() < MAX_BYTES / 4);
        let more = made(&owner, &of, MAX_ANCESTORS + 1);
        assert!(matches!(more, Err(Flaw::Chain(_))));
        // Nor by who passes it on: what stands in a later link is none of the owner's.
        let passed = it.pass_on(&holder, Terms::until(at(90)), at(2)).unwrap();
        for changed in [
            |said: &mut Statement| said.epoch = Some([4; 16].into()),
            |said: &mut Statement| said.made_from = Some(Vec::new()),
        ] {
            let mut links = passed.links.clone();
            let mut said = links[1].said.clone();
            changed(&mut said);
            links[1] = Link::sign(&holder, &said).unwrap();
            assert!(matches!(
                Introduction { links }.hangs_together(),
                Err(Flaw::Chain(_))
            ));
        }
        let mut said = passed.links[1].said.clone();
        said.nanos = Some(1_000_000_000);
        assert!(matches!(
            Link::sign(&holder, &said),
            Err(Flaw::Malformed(_))
        ));
    }

    #[test]
    fn what_can_not_be_used_is_not_made() {
        let no_service = PeerAddr::new(PeerId::from_bytes([1; 32]));
        let made = Introduction::new(&key(), &no_service, Terms::until(at(1)), at(0));
        assert!(matches!(made, Err(Flaw::Malformed(_))));
        let far = format!("tcp:{}:1", "h".repeat(1000)).parse().unwrap();
        let long = address().with_hint(crate::node::Hint::Direct(far)).unwrap();
        let made = Introduction::new(&key(), &long, Terms::until(at(1)), at(0));
        assert!(matches!(made, Err(Flaw::Malformed(_))));
        assert!("cepa-introduction:!".parse::<Introduction>().is_err());
        assert!("".parse::<Introduction>().is_err());
    }
}
