//! What is sealed: the key of a recipient, requests to it and answers, and their codec. No IO, no clock.
//!
//! ```text
//! sealing key   signed by its owner: suite, public key, from when until when, former keys
//! request       name of that key, encapsulated key, sealed( signed by the sender: recipient, key, id, times,
//!               service, key for the answer, body, former keys )
//! answer        name of the request, encapsulated key, sealed( signed by the recipient: sender, request, body )
//! ```
//!
//! A sender's signature names the recipient and its key, so who has opened a request can't seal it anew for
//! somebody else. Who has replaced its key gives the statements of its former keys along, as its certificate does, so that it
//! is known by its former ids to those with whom it has no session. The name of a request is the SHA-256 of its bytes as they are carried. Whoever carries both sees
//! names, keys that are used once, and sizes.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};
use sha2::{Digest as _, Sha256};

use crate::backend::random;
use crate::identity::{Identity, Lineage, PeerId, UnixTime};
use crate::protocols::signed::Signed;
use crate::session::ServiceName;
use crate::wire::{Message as _, VERSION, clean_reason, message};

use super::bounds::{MAX_BODY, MAX_FORMER, MAX_KEY, MAX_SEALED};
use super::flaw::SealFlaw;
use super::seal::{self, Bytes32, Exported, SUITE, Sealed, Secret, Terms};

/// Begins a sealing key as text.
const TEXT: &str = "cepa-sealing-key:";
const KEY: &[u8] = b"cepa sealing key\0";
const REQUEST: &[u8] = b"cepa sealed request\0";
const ANSWER: &[u8] = b"cepa sealed answer\0";

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct KeySaid {
    #[n(0)]
    version: u8,
    /// SubjectPublicKeyInfo (DER) of whose it is.
    #[n(1)]
    owner: ByteVec,
    /// KEM, KDF, AEAD.
    #[n(2)]
    suite: [u16; 3],
    #[n(3)]
    key: ByteArray<32>,
    /// Seconds since 1970.
    #[n(4)]
    issued: u64,
    #[n(5)]
    expires: u64,
    /// Statements of the owner's former keys, as in a certificate.
    #[n(6)]
    former: Option<ByteVec>,
}

/// What is sealed of a request.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct RequestSaid {
    #[n(0)]
    version: u8,
    /// SubjectPublicKeyInfo (DER).
    #[n(1)]
    sender: ByteVec,
    #[n(2)]
    recipient: ByteArray<32>,
    /// The name of the key that it is sealed for.
    #[n(3)]
    key: ByteArray<32>,
    #[n(4)]
    id: ByteArray<16>,
    #[n(5)]
    issued: u64,
    #[n(6)]
    expires: u64,
    #[n(7)]
    service: String,
    /// Public key for the answer.
    #[n(8)]
    reply: ByteArray<32>,
    #[n(9)]
    body: ByteVec,
    /// Statements of the sender's former keys, as in a certificate.
    #[n(10)]
    former: Option<ByteVec>,
}

/// What is sealed of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct AnswerSaid {
    #[n(0)]
    version: u8,
    /// SubjectPublicKeyInfo (DER) of who answers.
    #[n(1)]
    by: ByteVec,
    #[n(2)]
    sender: ByteArray<32>,
    /// The name of the request.
    #[n(3)]
    request: ByteArray<32>,
    /// 0 answered, 1 refused.
    #[n(4)]
    status: u8,
    /// The answer, or the reason in words.
    #[n(5)]
    body: ByteVec,
}

/// What is carried of either: `of` is the name of the recipient's key, or of the request.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Carried {
    #[n(0)]
    version: u8,
    #[n(1)]
    of: ByteArray<32>,
    #[n(2)]
    encapsulated: ByteArray<32>,
    #[n(3)]
    text: ByteVec,
}

message!(KeySaid: MAX_KEY, RequestSaid: MAX_SEALED, AnswerSaid: MAX_SEALED, Carried: MAX_SEALED);

impl Carried {
    fn new(of: Bytes32, sealed: Sealed) -> Self {
        Self {
            version: VERSION,
            of: of.into(),
            encapsulated: sealed.encapsulated.into(),
            text: sealed.text.into(),
        }
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, SealFlaw> {
        let found = bytes.len();
        if found > MAX_SEALED {
            return Err(SealFlaw::TooLongSealed { found });
        }
        Self::read(bytes).map_err(|e| SealFlaw::Malformed(e.to_string()))
    }
}

/// The statements of an identity's former keys, where it has any.
fn former(identity: &Identity) -> Option<ByteVec> {
    let statements = identity.statements(MAX_FORMER);
    (!statements.is_empty()).then(|| statements.into())
}

/// Who has this id, and by these statements others.
fn lineage(id: PeerId, former: Option<&ByteVec>, now: UnixTime) -> Lineage {
    let statements = former.map(|former| former.as_slice());
    Lineage::of_statements(id, statements.unwrap_or_default(), now)
}

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

fn of(domain: &[u8], name: &Bytes32) -> Vec<u8> {
    [domain, name].concat()
}

fn name(bytes: &[u8]) -> Bytes32 {
    Sha256::digest(bytes).into()
}

/// A statement inside of a seal: it is read as a whole, or not at all.
fn unsigned<T: crate::wire::Message>(plain: &[u8]) -> Result<(Signed, T), SealFlaw> {
    let malformed = |what: String| SealFlaw::Malformed(what);
    let mut decoder = minicbor::Decoder::new(plain);
    let signed: Signed = decoder.decode().map_err(|e| malformed(e.to_string()))?;
    if decoder.position() != plain.len() {
        return Err(malformed("bytes behind it".into()));
    }
    let said = T::read(signed.statement()).map_err(|e| malformed(e.to_string()))?;
    Ok((signed, said))
}

fn checked_service(service: &str) -> Result<(), SealFlaw> {
    if ServiceName::check(service).is_err() {
        let service = service.to_owned();
        return Err(SealFlaw::Service { service });
    }
    Ok(())
}

fn checked_body(body: &[u8]) -> Result<(), SealFlaw> {
    let found = body.len();
    if found > MAX_BODY {
        return Err(SealFlaw::TooLong { found });
    }
    Ok(())
}

/// The public key that messages to a peer are sealed for, as that peer has signed it. Prints and parses as one line
/// of text; whoever brings it can withhold it or bring an old one, and can't bring another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealingKey {
    signed: Signed,
    said: KeySaid,
    owner: PeerId,
}

impl SealingKey {
    pub(super) fn sign(
        owner: &Identity,
        key: &Bytes32,
        issued: UnixTime,
        expires: UnixTime,
    ) -> Result<Self, SealFlaw> {
        let said = KeySaid {
            version: VERSION,
            owner: owner.public_key().to_vec().into(),
            suite: SUITE,
            key: (*key).into(),
            issued: issued.as_secs(),
            expires: expires.as_secs(),
            former: former(owner),
        };
        let signed = Signed::sign(owner, KEY, said.cbor()).map_err(SealFlaw::Sign)?;
        Ok(Self {
            signed,
            said,
            owner: owner.peer_id(),
        })
    }

    /// Reads one that has to be of this peer ([`is_of`](Self::is_of)); nothing may stand behind it.
    ///
    /// # Errors
    /// [`SealFlaw::MalformedKey`], [`SealFlaw::Suite`], [`SealFlaw::KeySignature`], [`SealFlaw::OtherOwner`].
    pub fn from_bytes(bytes: &[u8], owner: PeerId, now: UnixTime) -> Result<Self, SealFlaw> {
        let key = Self::read(bytes)?;
        if key.is_of(&owner, now) {
            Ok(key)
        } else {
            let found = key.owner;
            Err(SealFlaw::OtherOwner { owner, found })
        }
    }

    /// Whether it is of the peer of this id: by its present key, or by one that it held before, as statements in it prove that
    /// are good now.
    #[must_use]
    pub fn is_of(&self, peer: &PeerId, now: UnixTime) -> bool {
        lineage(self.owner, self.said.former.as_ref(), now).is(peer)
    }

    fn read(bytes: &[u8]) -> Result<Self, SealFlaw> {
        if bytes.len() > MAX_KEY {
            return Err(SealFlaw::MalformedKey(format!("more than {MAX_KEY} bytes")));
        }
        let (signed, said) = unsigned::<KeySaid>(bytes).map_err(|flaw| match flaw {
            SealFlaw::Malformed(what) => SealFlaw::MalformedKey(what),
            other => other,
        })?;
        let owner = PeerId::from_spki(&said.owner);
        if said.suite != SUITE {
            return Err(SealFlaw::Suite);
        }
        if !signed.is_by(&said.owner, KEY) {
            return Err(SealFlaw::KeySignature { owner });
        }
        Ok(Self {
            signed,
            said,
            owner,
        })
    }

    /// As bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // Writing into a `Vec` can not fail.
        minicbor::to_vec(&self.signed).unwrap_or_default()
    }

    /// Whose it is, by its present key.
    pub fn owner(&self) -> PeerId {
        self.owner
    }

    /// Until when messages can be sealed for it.
    pub fn expires(&self) -> UnixTime {
        at(self.said.expires)
    }

    pub(super) fn issued(&self) -> UnixTime {
        at(self.said.issued)
    }

    pub(super) fn name(&self) -> Bytes32 {
        self.signed.name(KEY)
    }
}

impl fmt::Display for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{TEXT}{}", BASE64URL_NOPAD.encode(&self.to_bytes()))
    }
}

impl FromStr for SealingKey {
    type Err = SealFlaw;

    /// Says nothing about whose it should be: compare [`owner`](Self::owner).
    fn from_str(text: &str) -> Result<Self, SealFlaw> {
        let malformed = |what: &str| SealFlaw::MalformedKey(what.into());
        let text = text.trim().strip_prefix(TEXT);
        let text = text.ok_or_else(|| malformed("it begins with cepa-sealing-key:"))?;
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes());
        Self::read(&bytes.map_err(|_| malformed("what follows is base64url: copy it to its end"))?)
    }
}

/// Seals a request to the owner of `key`, for so long as `life` and the key last. The bytes may go any way; what opens
/// the answer stays here.
///
/// # Errors
/// [`SealFlaw::TooLong`] beyond [`MAX_BODY`], [`SealFlaw::Service`], [`SealFlaw::KeyExpired`]; and where
/// nothing can be signed.
pub fn seal_request(
    sender: &Identity,
    key: &SealingKey,
    service: &str,
    body: &[u8],
    life: Duration,
    now: UnixTime,
) -> Result<(Vec<u8>, Awaiting), SealFlaw> {
    checked_service(service)?;
    checked_body(body)?;
    let owner = key.owner;
    if now > key.expires() {
        return Err(SealFlaw::KeyExpired { owner });
    }
    let id: [u8; 16] = random().map_err(|_| SealFlaw::Sign("no random bytes".into()))?;
    let (secret, reply) = seal::pair();
    let expires = now.as_secs().saturating_add(life.as_secs());
    let said = RequestSaid {
        version: VERSION,
        sender: sender.public_key().to_vec().into(),
        recipient: (*owner.as_bytes()).into(),
        key: key.name().into(),
        id: id.into(),
        issued: now.as_secs(),
        expires: expires.min(key.said.expires),
        service: service.to_owned(),
        reply: reply.into(),
        body: body.to_vec().into(),
        former: former(sender),
    };
    seal_said(sender, key, &said).map(|(bytes, exported)| {
        let awaiting = Awaiting {
            secret,
            exported,
            request: name(&bytes),
            sender: sender.peer_id(),
            recipient: owner,
        };
        (bytes, awaiting)
    })
}

fn seal_said(
    sender: &Identity,
    key: &SealingKey,
    said: &RequestSaid,
) -> Result<(Vec<u8>, Exported), SealFlaw> {
    let signed = Signed::sign(sender, REQUEST, said.cbor()).map_err(SealFlaw::Sign)?;
    let plain = minicbor::to_vec(&signed).unwrap_or_default();
    let terms = Terms {
        info: &of(REQUEST, &key.name()),
        shared: None,
        export: ANSWER,
    };
    let owner = key.owner;
    let (sealed, exported) =
        seal::seal(&key.said.key, terms, &plain).map_err(|_| SealFlaw::KeySignature { owner })?;
    Ok((Carried::new(key.name(), sealed).cbor(), exported))
}

/// A request that was opened, and found to be by who it says; not yet that it is in time, and came once.
pub(super) struct Unsealed {
    pub(super) sender: PeerId,
    pub(super) id: [u8; 16],
    pub(super) issued: UnixTime,
    pub(super) expires: UnixTime,
    pub(super) service: String,
    pub(super) body: Vec<u8>,
    pub(super) reply: Reply,
    former: Option<ByteVec>,
}

impl Unsealed {
    /// Its sender, also by former keys whose statements are good now.
    pub(super) fn lineage(&self, now: UnixTime) -> Lineage {
        lineage(self.sender, self.former.as_ref(), now)
    }
}

/// What an answer is sealed for.
pub(super) struct Reply {
    key: Bytes32,
    exported: Exported,
    request: Bytes32,
    sender: PeerId,
}

/// For which key of its recipient a request is, and where it is sealed.
pub(super) struct Arrived {
    carried: Carried,
    request: Bytes32,
}

impl Arrived {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, SealFlaw> {
        Ok(Self {
            carried: Carried::from_bytes(bytes)?,
            request: name(bytes),
        })
    }

    pub(super) fn key(&self) -> Bytes32 {
        *self.carried.of
    }

    /// Opens it with the secret of that key.
    pub(super) fn open(self, key: &SealingKey, secret: &Secret) -> Result<Unsealed, SealFlaw> {
        let terms = Terms {
            info: &of(REQUEST, &key.name()),
            shared: None,
            export: ANSWER,
        };
        let opened = seal::open(
            secret,
            terms,
            &self.carried.encapsulated,
            &self.carried.text,
        );
        let (plain, exported) = opened.map_err(|_| SealFlaw::Unopened)?;
        let (signed, said) = unsigned::<RequestSaid>(&plain)?;
        let sender = PeerId::from_spki(&said.sender);
        if !signed.is_by(&said.sender, REQUEST) {
            return Err(SealFlaw::Signature { sender });
        }
        if *said.recipient != *key.owner.as_bytes() || *said.key != key.name() {
            return Err(SealFlaw::WrongRecipient);
        }
        checked_service(&said.service)?;
        checked_body(&said.body)?;
        Ok(Unsealed {
            sender,
            id: *said.id,
            issued: at(said.issued),
            expires: at(said.expires),
            service: said.service,
            body: said.body.into(),
            former: said.former,
            reply: Reply {
                key: *said.reply,
                exported,
                request: self.request,
                sender,
            },
        })
    }
}

impl Reply {
    /// Seals the answer, or why there is none.
    pub(super) fn seal(
        &self,
        by: &Identity,
        answer: Result<&[u8], &str>,
    ) -> Result<Vec<u8>, SealFlaw> {
        let (status, body) = match answer {
            Ok(body) => (0, body),
            Err(reason) => (1, reason.as_bytes()),
        };
        checked_body(body)?;
        let said = AnswerSaid {
            version: VERSION,
            by: by.public_key().to_vec().into(),
            sender: (*self.sender.as_bytes()).into(),
            request: self.request.into(),
            status,
            body: body.to_vec().into(),
        };
        let signed = Signed::sign(by, ANSWER, said.cbor()).map_err(SealFlaw::Sign)?;
        let plain = minicbor::to_vec(&signed).unwrap_or_default();
        let terms = Terms {
            info: &of(ANSWER, &self.request),
            shared: Some((&self.exported, &self.request)),
            export: &[],
        };
        // The key is the sender's to choose, and may be none.
        let (sealed, _) = seal::seal(&self.key, terms, &plain).map_err(|_| SealFlaw::Unopened)?;
        Ok(Carried::new(self.request, sealed).cbor())
    }
}

/// What a recipient has said to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answered {
    /// The answer.
    Body(Vec<u8>),
    /// It has not been carried out, or not to its end, for this reason.
    Refused(String),
}

/// Opens the answer to one request. The keys in it are overwritten when it is dropped.
pub struct Awaiting {
    secret: Secret,
    exported: Exported,
    request: Bytes32,
    sender: PeerId,
    recipient: PeerId,
}

impl Awaiting {
    /// Opens the answer; what is none leaves this as it was.
    ///
    /// # Errors
    /// [`SealFlaw::Unopened`] where it was altered, or answers another request; [`SealFlaw::Signature`] where it is not by
    /// the recipient.
    pub fn open(&self, bytes: &[u8]) -> Result<Answered, SealFlaw> {
        let carried = Carried::from_bytes(bytes)?;
        if *carried.of != self.request {
            return Err(SealFlaw::Unopened);
        }
        let terms = Terms {
            info: &of(ANSWER, &self.request),
            shared: Some((&self.exported, &self.request)),
            export: &[],
        };
        let opened = seal::open(&self.secret, terms, &carried.encapsulated, &carried.text);
        let (plain, _) = opened.map_err(|_| SealFlaw::Unopened)?;
        let (signed, said) = unsigned::<AnswerSaid>(&plain)?;
        let sender = self.recipient;
        if PeerId::from_spki(&said.by) != sender || !signed.is_by(&said.by, ANSWER) {
            return Err(SealFlaw::Signature { sender });
        }
        if *said.sender != *self.sender.as_bytes() || *said.request != self.request {
            return Err(SealFlaw::WrongRecipient);
        }
        let body = Vec::from(said.body);
        match said.status {
            0 => Ok(Answered::Body(body)),
            1 => {
                let text = String::from_utf8_lossy(&body);
                Ok(Answered::Refused(clean_reason(&text)))
            }
            other => Err(SealFlaw::Malformed(format!("status {other}"))),
        }
    }

    /// Who has to answer.
    pub fn recipient(&self) -> PeerId {
        self.recipient
    }
}

impl fmt::Debug for Awaiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Awaiting")
            .field("recipient", &self.recipient)
            .finish_non_exhaustive()
    }
}

/// For the fuzz target: what is read is written the same again.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn fuzz(bytes: &[u8]) {
    use crate::wire::{Message, fuzz_one};

    fn one<M: Message + PartialEq + fmt::Debug>(bytes: &[u8]) {
        fuzz_one::<M>(bytes);
        // The same inside of a seal.
        let _ = unsigned::<M>(bytes);
    }
    one::<Carried>(bytes);
    one::<KeySaid>(bytes);
    one::<RequestSaid>(bytes);
    one::<AnswerSaid>(bytes);
    let _ = Arrived::read(bytes);
    if let Ok(key) = SealingKey::read(bytes) {
        assert_eq!(SealingKey::read(&key.to_bytes()).as_ref(), Ok(&key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::KeyKind;

    struct Recipient {
        identity: Identity,
        key: SealingKey,
        secret: Secret,
    }

    fn identity() -> Identity {
        Identity::generate(KeyKind::Ed25519).unwrap()
    }

    fn recipient() -> Recipient {
        let identity = identity();
        let (secret, public) = seal::pair();
        let key = SealingKey::sign(&identity, &public, at(0), at(2_000_000_000)).unwrap();
        Recipient {
            identity,
            key,
            secret,
        }
    }

    fn said(from: &Identity, to: &Recipient) -> RequestSaid {
        RequestSaid {
            version: VERSION,
            sender: from.public_key().to_vec().into(),
            recipient: (*to.key.owner.as_bytes()).into(),
            key: to.key.name().into(),
            id: [1; 16].into(),
            issued: 0,
            expires: 9,
            service: "up".into(),
            reply: seal::pair().1.into(),
            body: b"body".to_vec().into(),
            former: None,
        }
    }

    fn opened(bytes: &[u8], by: &Recipient) -> Result<Unsealed, SealFlaw> {
        Arrived::read(bytes)?.open(&by.key, &by.secret)
    }

    /// Sealed for a key, whatever is inside.
    fn sealed(key: &SealingKey, plain: &[u8]) -> Vec<u8> {
        let terms = Terms {
            info: &of(REQUEST, &key.name()),
            shared: None,
            export: ANSWER,
        };
        let (sealed, _) = seal::seal(&key.said.key, terms, plain).unwrap();
        Carried::new(key.name(), sealed).cbor()
    }

    /// Who has opened a request has what its sender signed, and seals that for somebody else.
    #[test]
    fn what_was_opened_can_not_be_sealed_anew_for_another() {
        let (sender, mallory, bob) = (identity(), recipient(), recipient());
        let signed = Signed::sign(&sender, REQUEST, said(&sender, &mallory).cbor()).unwrap();
        let plain = minicbor::to_vec(&signed).unwrap();
        assert!(opened(&sealed(&mallory.key, &plain), &mallory).is_ok());
        let stolen = opened(&sealed(&bob.key, &plain), &bob);
        assert_eq!(stolen.map(drop), Err(SealFlaw::WrongRecipient));
        // Nor for another key of the same recipient, where it would not be known any more.
        let (secret, public) = seal::pair();
        let key = SealingKey::sign(&mallory.identity, &public, at(0), at(200)).unwrap();
        let again = Recipient {
            key,
            secret,
            ..mallory
        };
        let replayed = opened(&sealed(&again.key, &plain), &again);
        assert_eq!(replayed.map(drop), Err(SealFlaw::WrongRecipient));
    }

    #[test]
    fn nobody_sends_in_the_name_of_another() {
        let (sender, mallory, bob) = (identity(), identity(), recipient());
        // In the sender's name, signed by another one; and signed by the sender for something else.
        for (by, domain) in [(&mallory, REQUEST), (&sender, ANSWER), (&sender, KEY)] {
            let signed = Signed::sign(by, domain, said(&sender, &bob).cbor()).unwrap();
            let plain = minicbor::to_vec(&signed).unwrap();
            let flaw = opened(&sealed(&bob.key, &plain), &bob).map(drop);
            let sender = sender.peer_id();
            assert_eq!(flaw, Err(SealFlaw::Signature { sender }));
        }
        assert!(opened(&sealed(&bob.key, b"\xa0"), &bob).is_err());
    }

    /// Somebody who knows a request's secret, as its recipient does, and not the recipient's identity.
    #[test]
    fn an_answer_is_signed_by_the_recipient() {
        let (sender, bob) = (identity(), recipient());
        let life = Duration::from_secs(9);
        let (bytes, awaiting) = seal_request(&sender, &bob.key, "up", b"", life, at(0)).unwrap();
        let reply = opened(&bytes, &bob).unwrap().reply;
        let forged = reply.seal(&identity(), Ok(b"yes")).unwrap();
        let recipient = bob.key.owner;
        let flaw = SealFlaw::Signature { sender: recipient };
        assert_eq!(awaiting.open(&forged), Err(flaw));
        assert!(
            awaiting
                .open(&reply.seal(&bob.identity, Ok(b"yes")).unwrap())
                .is_ok()
        );
    }

    #[test]
    fn keys_for_what_is_not_known_are_refused() {
        let bob = recipient();
        let mut said = bob.key.said.clone();
        said.suite[0] = 0x0021;
        let signed = Signed::sign(&bob.identity, KEY, said.cbor()).unwrap();
        let bytes = minicbor::to_vec(&signed).unwrap();
        assert_eq!(
            SealingKey::from_bytes(&bytes, bob.key.owner, at(0)),
            Err(SealFlaw::Suite)
        );
        // A point of small order: what would be sealed for it anybody could open.
        let weak = SealingKey::sign(&bob.identity, &[0; 32], at(0), at(100)).unwrap();
        let life = Duration::from_secs(9);
        assert!(seal_request(&bob.identity, &weak, "up", b"", life, at(0)).is_err());
    }

    /// docs/PROTOCOL.md quotes the beginnings.
    #[test]
    fn the_wire_is_as_documented() {
        let (sender, bob) = (identity(), recipient());
        let life = Duration::from_secs(9);
        // Times of this century, which take five bytes.
        let now = at(1_800_000_000);
        let (bytes, _) = seal_request(&sender, &bob.key, "up", b"", life, now).unwrap();
        assert_eq!(bytes[..6], [0xa4, 0, 1, 1, 0x58, 0x20]);
        assert_eq!(bytes[6..38], bob.key.name());
        assert_eq!(bytes[38..41], [2, 0x58, 0x20]);
        assert_eq!(bytes[73..75], [3, 0x59]);
        // Ed25519: what is around a body in a request, and in an answer.
        assert_eq!(bytes.len(), 359);
        let reply = opened(&bytes, &bob).unwrap().reply;
        assert_eq!(reply.seal(&bob.identity, Ok(b"")).unwrap().len(), 291);
    }
}
