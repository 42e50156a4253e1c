//! Invitations: a code that says who we are, where we are, and a secret that works once.
//!
//! The code carries the inviter's whole peer id, so the joiner pins it and no name, no network and no
//! eye has to be trusted for that direction. The other direction is the secret: 128 random bits, of
//! which nothing is sent. The joiner shows an HMAC over what makes this connection the only one of its
//! kind (the TLS exporter, and both peer ids), so a proof is of no use on any other connection, and the
//! inviter knows that this very key was held by whoever had the code. There is nothing to guess at
//! leisure, as the secret is no password: no PAKE is needed.
//!
//! ```text
//! proof = HMAC-SHA-256(secret, "cepa invitation 1" 0 | who | tls-exporter | inviter's id | joiner's id)
//! ```
//!
//! `who` is `j` for the joiner's proof and `i` for the inviter's answer, by which the joiner knows that
//! it was let in. Who gets hold of the code before the joiner can join in its place; then the joiner is
//! told that the invitation was used. So the code goes over a way that is private, or is read aloud, and
//! it does not live long.
//!
//! Wrong proofs do not use a code up: 128 bits are not found by trying, and whoever could void a code by showing
//! nonsense would have a way to keep two peers apart. They are counted for each who shows them, so that one that
//! errs, or plays, is slowed down, and nobody else is.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use cepa_transports::text::is_printable;
use data_encoding::BASE32_NOPAD;
use hmac::{Hmac, Mac as _};
use rustls::crypto::SecureRandom;
use rustls_pki_types::UnixTime;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::error::IdentityError;
use super::peer_id::PeerId;
use crate::backend::default_provider;

/// What a code begins with.
const PREFIX: &str = "cepa-invitation:";
const VERSION: u8 = 1;
const DOMAIN: &[u8] = b"cepa invitation 1\0";
/// Longest address in bytes: a code is still one that can be pasted.
const MAX_ADDRESS: usize = 512;
/// Wrong proofs that one peer may show at once. A joiner that has the code needs none; who has pasted the wrong code
/// needs a few.
const TRIES: u32 = 5;
/// Seconds until a peer that has shown wrong proofs may show one more.
const ANOTHER: u64 = 60;
/// Peers whose wrong proofs are remembered, of 48 bytes each; beyond that the one who was wrong the longest ago is
/// forgotten. Keys cost nothing, so this is no defence against guessing: the 128 bits are.
const REMEMBERED: usize = 256;

/// A secret that works once, with who made it and where it is waited for.
pub struct Invitation {
    id: PeerId,
    secret: Zeroizing<[u8; 16]>,
    expires: UnixTime,
    address: String,
}

/// What is no code. Each text is one line and says what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvitationError {
    /// Something else, or a part of one.
    #[error("this is not a complete invitation code: copy it from `cepa-invitation:` to its end")]
    Malformed,
    /// A version that is not known here.
    #[error(
        "this invitation has version {version}, but this release supports only version 1: update cepa"
    )]
    Version {
        /// The version.
        version: u8,
    },
    /// An address that no code can carry.
    #[error("the address does not fit an invitation: use one line of 1 to 512 bytes")]
    Address,
}

/// Why somebody is not let in. Each text is one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAdmitted {
    /// It has expired.
    #[error("the invitation has expired: ask for another one")]
    Expired,
    /// Somebody was let in by it.
    #[error(
        "the invitation has already been used: if not by you, tell whoever invited you, and ask for another one"
    )]
    Used,
    /// The proof is not that of this secret on this connection.
    #[error("the invitation's secret is wrong: copy the whole code")]
    Wrong,
    /// Too many wrong proofs by this peer; another one may come after that time. The proof was not looked at.
    #[error(
        "the secret was wrong too often: copy the whole code, and try again in {} s",
        wait.as_secs()
    )]
    TooManyTries {
        /// How long to wait.
        wait: Duration,
    },
    /// It was made by the one who wants to use it.
    #[error("this invitation is your own: give its code to the peer that you invite")]
    Own,
}

/// Who shows a proof.
#[derive(Clone, Copy)]
enum Who {
    Joiner,
    Inviter,
}

impl Invitation {
    /// A new secret. Fails when the random source does.
    pub fn new(id: PeerId, address: &str, expires: UnixTime) -> Result<Self, IdentityError> {
        Self::new_from(id, address, expires, default_provider().secure_random)
    }

    pub(super) fn new_from(
        id: PeerId,
        address: &str,
        expires: UnixTime,
        random: &dyn SecureRandom,
    ) -> Result<Self, IdentityError> {
        let mut secret = Zeroizing::new([0; 16]);
        let filled = random.fill(&mut *secret);
        filled.map_err(|_| IdentityError::Generate {
            reason: "no random bytes for the invitation".into(),
        })?;
        Ok(Self {
            id,
            secret,
            expires,
            address: address.to_owned(),
        })
    }

    /// One with a secret that there is.
    #[cfg(feature = "mesh")]
    pub(crate) fn of(id: PeerId, secret: [u8; 16], expires: UnixTime, address: String) -> Self {
        Self {
            id,
            secret: Zeroizing::new(secret),
            expires,
            address,
        }
    }

    #[cfg(feature = "mesh")]
    pub(crate) fn secret(&self) -> &[u8; 16] {
        &self.secret
    }

    /// Who made it.
    pub fn id(&self) -> PeerId {
        self.id
    }

    /// Where it is waited for.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Until when.
    pub fn expires(&self) -> UnixTime {
        self.expires
    }

    /// The text that is given to the one who is invited. It is the secret: show it to nobody else.
    pub fn code(&self) -> Result<Zeroizing<String>, InvitationError> {
        let fits = (1..=MAX_ADDRESS).contains(&self.address.len());
        if !fits || !self.address.chars().all(is_printable) {
            return Err(InvitationError::Address);
        }
        let mut bytes = Zeroizing::new(vec![VERSION]);
        bytes.extend(self.id.as_bytes());
        bytes.extend(&*self.secret);
        bytes.extend(self.expires.as_secs().to_be_bytes());
        bytes.extend(self.address.as_bytes());
        let sum = checksum(&bytes);
        bytes.extend(sum);
        let text = BASE32_NOPAD.encode(&bytes).to_ascii_lowercase();
        Ok(Zeroizing::new(format!("{PREFIX}{text}")))
    }

    /// What the joiner shows, and what it waits for as the answer.
    #[must_use]
    pub fn joiner_proof(&self, exporter: &[u8; 32], joiner: PeerId) -> [u8; 32] {
        self.mac(Who::Joiner, exporter, joiner)
            .finalize()
            .into_bytes()
            .into()
    }

    /// Whether the inviter has answered so, and so let us in.
    #[must_use]
    pub fn is_answer(&self, answer: &[u8; 32], exporter: &[u8; 32], joiner: PeerId) -> bool {
        let mac = self.mac(Who::Inviter, exporter, joiner);
        mac.verify_slice(answer).is_ok()
    }

    fn mac(&self, who: Who, exporter: &[u8; 32], joiner: PeerId) -> Hmac<Sha256> {
        // A key of any length is one; this has sixteen bytes.
        let mut key = hmac::digest::generic_array::GenericArray::default();
        for (to, from) in key.iter_mut().zip(&*self.secret) {
            *to = *from;
        }
        let mut mac = <Hmac<Sha256> as hmac::digest::KeyInit>::new(&key);
        mac.update(DOMAIN);
        mac.update(match who {
            Who::Joiner => b"j",
            Who::Inviter => b"i",
        });
        mac.update(exporter);
        mac.update(self.id.as_bytes());
        mac.update(joiner.as_bytes());
        mac
    }
}

/// The four bytes by which a slip of the pen is told from a stranger.
fn checksum(bytes: &[u8]) -> [u8; 4] {
    let [a, b, c, d, ..]: [u8; 32] = Sha256::digest(bytes).into();
    [a, b, c, d]
}

impl FromStr for Invitation {
    type Err = InvitationError;

    fn from_str(text: &str) -> Result<Self, InvitationError> {
        let malformed = || InvitationError::Malformed;
        let text = text.trim().strip_prefix(PREFIX).ok_or_else(malformed)?;
        // Before it is decoded: nobody writes more.
        if text.len() > (MAX_ADDRESS + 64) * 2 || text.chars().any(|c| c.is_ascii_uppercase()) {
            return Err(malformed());
        }
        let text = Zeroizing::new(text.to_ascii_uppercase());
        let bytes = BASE32_NOPAD
            .decode(text.as_bytes())
            .map_err(|_| malformed())?;
        let bytes = Zeroizing::new(bytes);
        let (version, rest) = bytes.split_first().ok_or_else(malformed)?;
        if *version != VERSION {
            return Err(InvitationError::Version { version: *version });
        }
        let (body, sum) = bytes.split_last_chunk::<4>().ok_or_else(malformed)?;
        if checksum(body) != *sum {
            return Err(malformed());
        }
        let (id, rest) = rest.split_first_chunk::<32>().ok_or_else(malformed)?;
        let (secret, rest) = rest.split_first_chunk::<16>().ok_or_else(malformed)?;
        let (expires, rest) = rest.split_first_chunk::<8>().ok_or_else(malformed)?;
        let (address, _) = rest.split_last_chunk::<4>().ok_or_else(malformed)?;
        let address = std::str::from_utf8(address).map_err(|_| malformed())?;
        let fits = (1..=MAX_ADDRESS).contains(&address.len());
        if !fits || !address.chars().all(is_printable) {
            return Err(malformed());
        }
        let seconds = u64::from_be_bytes(*expires);
        Ok(Self {
            id: PeerId::from_bytes(*id),
            secret: Zeroizing::new(*secret),
            expires: UnixTime::since_unix_epoch(Duration::from_secs(seconds)),
            address: address.to_owned(),
        })
    }
}

/// Without the secret.
impl fmt::Debug for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invitation")
            .field("id", &self.id)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// An invitation that is waited for: lets one in, once, in its time.
#[derive(Debug)]
pub struct OpenInvitation {
    invitation: Invitation,
    wrong: Wrong,
    used: bool,
}

impl OpenInvitation {
    /// Waits for that invitation.
    #[must_use]
    pub fn new(invitation: Invitation) -> Self {
        Self {
            invitation,
            wrong: Wrong::default(),
            used: false,
        }
    }

    /// The invitation.
    pub fn invitation(&self) -> &Invitation {
        &self.invitation
    }

    /// Whether a proof by this joiner would be looked at now.
    ///
    /// # Errors
    /// [`NotAdmitted::TooManyTries`].
    pub fn may_try(&mut self, joiner: PeerId, now: UnixTime) -> Result<(), NotAdmitted> {
        match self.wrong.wait(joiner, now) {
            Some(wait) => Err(NotAdmitted::TooManyTries { wait }),
            None => Ok(()),
        }
    }

    /// Judges a joiner's proof; gives the answer for it when it is let in, which it is once only. A wrong proof
    /// changes nothing for anybody but that joiner.
    pub fn admit(
        &mut self,
        proof: &[u8; 32],
        exporter: &[u8; 32],
        joiner: PeerId,
        now: UnixTime,
    ) -> Result<[u8; 32], NotAdmitted> {
        if joiner == self.invitation.id {
            return Err(NotAdmitted::Own);
        }
        if self.used {
            return Err(NotAdmitted::Used);
        }
        if now > self.invitation.expires {
            return Err(NotAdmitted::Expired);
        }
        let answer = self.prove(proof, exporter, joiner, now)?;
        self.used = true;
        Ok(answer)
    }

    /// Judges the proof alone, whatever the invitation was used for and whenever it ends; gives the answer for it.
    pub(crate) fn prove(
        &mut self,
        proof: &[u8; 32],
        exporter: &[u8; 32],
        joiner: PeerId,
        now: UnixTime,
    ) -> Result<[u8; 32], NotAdmitted> {
        self.may_try(joiner, now)?;
        let expected = self.invitation.mac(Who::Joiner, exporter, joiner);
        if expected.verify_slice(proof).is_err() {
            self.wrong.note(joiner, now);
            return Err(NotAdmitted::Wrong);
        }
        let answer = self.invitation.mac(Who::Inviter, exporter, joiner);
        Ok(answer.finalize().into_bytes().into())
    }
}

/// Who has shown wrong proofs lately, the latest last.
#[derive(Debug, Default)]
struct Wrong {
    shown: VecDeque<Shown>,
}

/// Wrong proofs of one peer. They are forgotten one by one, each after its time.
#[derive(Clone, Copy, Debug)]
struct Shown {
    by: PeerId,
    count: u32,
    /// Since when the oldest of them waits to be forgotten, in seconds since 1970.
    since: u64,
}

impl Shown {
    /// Forgets what has had its time. A clock that was set back does not make that time longer.
    fn pass(&mut self, now: UnixTime) {
        self.since = self.since.min(now.as_secs());
        let forgotten = (now.as_secs() - self.since) / ANOTHER;
        let less = u32::try_from(forgotten).unwrap_or(u32::MAX);
        self.count = self.count.saturating_sub(less);
        self.since += forgotten * ANOTHER;
    }
}

impl Wrong {
    /// How long a peer has to wait before another proof of it is looked at, if it has to.
    fn wait(&mut self, joiner: PeerId, now: UnixTime) -> Option<Duration> {
        let shown = self.shown.iter_mut().find(|shown| shown.by == joiner)?;
        shown.pass(now);
        let waited = now.as_secs() - shown.since;
        (shown.count >= TRIES).then(|| Duration::from_secs(ANOTHER - waited))
    }

    /// One more wrong proof.
    fn note(&mut self, joiner: PeerId, now: UnixTime) {
        let known = self.shown.iter().position(|shown| shown.by == joiner);
        let before = known.and_then(|at| self.shown.remove(at));
        let fresh = Shown {
            by: joiner,
            count: 0,
            since: now.as_secs(),
        };
        let mut shown = before.unwrap_or(fresh);
        shown.pass(now);
        if shown.count == 0 {
            shown = fresh;
        }
        shown.count += 1;
        if self.shown.len() >= REMEMBERED {
            self.shown.pop_front();
        }
        self.shown.push_back(shown);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    fn id(byte: u8) -> PeerId {
        PeerId::from_bytes([byte; 32])
    }

    fn invitation() -> Invitation {
        Invitation::new(id(1), "tcp:host:7000", at(100)).unwrap()
    }

    /// Both ends of one, as the code carries it over.
    fn pair() -> (OpenInvitation, Invitation) {
        let ours = invitation();
        let theirs = ours.code().unwrap().parse().unwrap();
        (OpenInvitation::new(ours), theirs)
    }

    #[test]
    fn a_code_lets_one_in_once() {
        let (mut open, joiner) = pair();
        assert_eq!((joiner.id(), joiner.address()), (id(1), "tcp:host:7000"));
        assert_eq!(joiner.expires(), at(100));
        let exporter = [7; 32];
        let proof = joiner.joiner_proof(&exporter, id(2));
        let answer = open.admit(&proof, &exporter, id(2), at(100)).unwrap();
        assert!(joiner.is_answer(&answer, &exporter, id(2)));
        assert!(
            !joiner.is_answer(&proof, &exporter, id(2)),
            "not our own proof, sent back"
        );
        assert!(!joiner.is_answer(&answer, &[8; 32], id(2)));
        assert_eq!(
            open.admit(&proof, &exporter, id(2), at(1)),
            Err(NotAdmitted::Used)
        );
    }

    #[test]
    fn a_proof_is_for_one_connection_and_one_key() {
        let (mut open, joiner) = pair();
        let exporter = [7; 32];
        let proof = joiner.joiner_proof(&exporter, id(2));
        assert_eq!(
            open.admit(&proof, &[8; 32], id(2), at(1)),
            Err(NotAdmitted::Wrong)
        );
        assert_eq!(
            open.admit(&proof, &exporter, id(3), at(1)),
            Err(NotAdmitted::Wrong)
        );
        let other = invitation().joiner_proof(&exporter, id(2));
        assert_eq!(
            open.admit(&other, &exporter, id(2), at(1)),
            Err(NotAdmitted::Wrong)
        );
        assert_eq!(
            open.admit(&proof, &exporter, id(2), at(101)),
            Err(NotAdmitted::Expired)
        );
        assert!(
            open.admit(&proof, &exporter, id(2), at(1)).is_ok(),
            "and still good"
        );
    }

    #[test]
    fn no_number_of_wrong_proofs_voids_a_code_that_nobody_can_guess() {
        let (mut open, joiner) = pair();
        // By whom ever they are shown, and were they one for each stranger.
        for round in 0..10_000_u32 {
            let mut stranger = [9; 32];
            stranger[..4].copy_from_slice(&(round / 3).to_be_bytes());
            let stranger = PeerId::from_bytes(stranger);
            assert!(open.admit(&[0; 32], &[7; 32], stranger, at(1)).is_err());
        }
        assert_eq!(open.wrong.shown.len(), REMEMBERED, "and no more memory");
        let proof = joiner.joiner_proof(&[7; 32], id(2));
        assert!(open.admit(&proof, &[7; 32], id(2), at(1)).is_ok());
    }

    #[test]
    fn who_is_wrong_too_often_has_to_wait_and_nobody_else_has_to() {
        let (mut open, joiner) = pair();
        let (good, exporter) = (joiner.joiner_proof(&[7; 32], id(2)), [7; 32]);
        let mut ask = |proof: &[u8; 32], who, now| open.admit(proof, &exporter, id(who), at(now));
        let wait = |seconds| {
            let wait = Duration::from_secs(seconds);
            Err(NotAdmitted::TooManyTries { wait })
        };
        for _ in 0..TRIES {
            assert_eq!(ask(&[0; 32], 2, 10), Err(NotAdmitted::Wrong));
        }
        // The right one is not looked at either: else it would be no limit.
        assert_eq!(ask(&good, 2, 10), wait(60));
        assert_eq!(ask(&[0; 32], 3, 10), Err(NotAdmitted::Wrong));
        assert_eq!(ask(&good, 2, 40), wait(30));
        assert_eq!(ask(&good, 2, 69), wait(1));
        // Waiting costs nothing more, and one try comes back at a time.
        assert_eq!(ask(&[0; 32], 2, 70), Err(NotAdmitted::Wrong));
        assert_eq!(ask(&[0; 32], 2, 70), wait(60));
        assert!(!wait(60).unwrap_err().to_string().contains('\n'));
        // A clock that was set back.
        assert_eq!(ask(&good, 2, 20), wait(60));
        assert_eq!(ask(&good, 2, 79), wait(1));
        assert!(ask(&good, 2, 80).is_ok());
    }

    #[test]
    fn after_a_while_there_are_all_tries_again_and_not_more() {
        let mut wrong = Wrong::default();
        for now in [0, 10_000] {
            for _ in 0..TRIES {
                assert_eq!(wrong.wait(id(2), at(now)), None);
                wrong.note(id(2), at(now));
            }
            let all = Duration::from_secs(ANOTHER);
            assert_eq!(wrong.wait(id(2), at(now)), Some(all));
        }
    }

    #[test]
    fn ones_own_invitation_is_not_for_oneself() {
        let (mut open, joiner) = pair();
        let proof = joiner.joiner_proof(&[7; 32], id(1));
        assert_eq!(
            open.admit(&proof, &[7; 32], id(1), at(1)),
            Err(NotAdmitted::Own)
        );
        let proof = joiner.joiner_proof(&[7; 32], id(2));
        assert!(open.admit(&proof, &[7; 32], id(2), at(1)).is_ok());
    }

    #[test]
    fn a_slip_of_the_pen_is_no_code() {
        let code = invitation().code().unwrap();
        let start = PREFIX.len();
        for index in start..code.len() {
            let letter = if code.as_bytes()[index] == b'a' {
                "b"
            } else {
                "a"
            };
            let mut changed = code.to_string();
            changed.replace_range(index..=index, letter);
            assert!(changed.parse::<Invitation>().is_err(), "{index}");
            assert!(
                code[..index].parse::<Invitation>().is_err(),
                "cut at {index}"
            );
        }
        assert!(format!(" {}\n", *code).parse::<Invitation>().is_ok());
        let long = Invitation::new(id(1), &"x".repeat(513), at(1)).unwrap();
        assert_eq!(long.code().unwrap_err(), InvitationError::Address);
        let lines = Invitation::new(id(1), "a\nb", at(1)).unwrap();
        assert_eq!(lines.code().unwrap_err(), InvitationError::Address);
        let text = BASE32_NOPAD.encode(&[2; 70]).to_ascii_lowercase();
        let error = format!("{PREFIX}{text}").parse::<Invitation>().unwrap_err();
        assert_eq!(error, InvitationError::Version { version: 2 });
        assert!(!format!("{:?}", invitation()).contains("secret"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(cepa-invitation:)?[a-z2-7]{0,200}") {
            let _ = text.parse::<Invitation>();
        }
    }
}
