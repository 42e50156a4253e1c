//! The exchange behind a short code. No IO, no clock.
//!
//! ```text
//! fetcher -> offerer   B = SPAKE2 side B
//! offerer -> fetcher   A = SPAKE2 side A
//! fetcher -> offerer   HMAC-SHA-256(K, "cepa code fetcher")
//! offerer -> fetcher   HMAC-SHA-256(K, "cepa code offerer"), sealed
//! ```
//!
//! K is SPAKE2's key: a hash of the password (the code's text), both names, A, B and the shared element. The names are
//! `cepa code offerer` and `cepa code fetcher`, each with the relay's id (32 bytes) and the nameplate (4 bytes) behind it: what is said at one
//! relay, or for another nameplate, fits nowhere else. `sealed` is ChaCha20-Poly1305 under HMAC-SHA-256(K, "cepa code seal") with a
//! nonce of zeros (the key seals once) and the offerer's proof as associated data. The proof stands beside the seal since that does not
//! commit to its key.

use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _, Nonce};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use spake2::{Ed25519Group, Identity, Password, Spake2};
use zeroize::Zeroizing;

use crate::identity::PeerId;

use super::text::ShortCode;

const OFFERER: &[u8] = b"cepa code offerer";
const FETCHER: &[u8] = b"cepa code fetcher";
const SEAL: &[u8] = b"cepa code seal";
const PROOF: usize = 32;

/// The other end does not have the same code, or what came was changed on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wrong;

/// Which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Offerer,
    Fetcher,
}

/// One end that has sent its first message.
pub(super) struct Begun(Spake2<Ed25519Group>);

/// The key that both ends have, if they have the same code.
pub(super) struct Key(Zeroizing<Vec<u8>>);

/// Begins, with the message for the other end.
pub(super) fn begin(role: Role, code: &ShortCode, relay: PeerId) -> (Begun, Vec<u8>) {
    let name = |role: &[u8]| {
        let nameplate = code.nameplate().to_be_bytes();
        Identity::new(&[role, relay.as_bytes(), &nameplate].concat())
    };
    let password = Password::new(code.text().as_bytes());
    let (offerer, fetcher) = (name(OFFERER), name(FETCHER));
    let (state, message) = match role {
        Role::Offerer => Spake2::start_a(&password, &offerer, &fetcher),
        Role::Fetcher => Spake2::start_b(&password, &offerer, &fetcher),
    };
    (Begun(state), message)
}

impl Begun {
    /// The key, from the other end's message.
    pub(super) fn finish(self, message: &[u8]) -> Result<Key, Wrong> {
        let key = self.0.finish(message).map_err(|_| Wrong)?;
        Ok(Key(Zeroizing::new(key)))
    }
}

impl Key {
    fn mac(&self, label: &[u8]) -> Result<Hmac<Sha256>, Wrong> {
        let mut mac = <Hmac<Sha256> as hmac::Mac>::new_from_slice(&self.0).map_err(|_| Wrong)?;
        mac.update(label);
        Ok(mac)
    }

    fn cipher(&self) -> Result<ChaCha20Poly1305, Wrong> {
        let key = self.mac(SEAL)?.finalize().into_bytes();
        ChaCha20Poly1305::new_from_slice(&key).map_err(|_| Wrong)
    }

    /// The fetcher's proof.
    pub(super) fn proof(&self) -> Result<Vec<u8>, Wrong> {
        Ok(self.mac(FETCHER)?.finalize().into_bytes().to_vec())
    }

    /// Judges it, in constant time.
    pub(super) fn check(&self, proof: &[u8]) -> Result<(), Wrong> {
        self.mac(FETCHER)?.verify_slice(proof).map_err(|_| Wrong)
    }

    /// The offerer's proof, and what it gives.
    pub(super) fn seal(&self, given: &[u8]) -> Result<Vec<u8>, Wrong> {
        let mut message = self.mac(OFFERER)?.finalize().into_bytes().to_vec();
        let payload = Payload {
            msg: given,
            aad: &message,
        };
        let sealed = self.cipher()?.encrypt(&Nonce::default(), payload);
        message.extend(sealed.map_err(|_| Wrong)?);
        Ok(message)
    }

    /// What is in such a message.
    pub(super) fn open(&self, message: &[u8]) -> Result<Zeroizing<Vec<u8>>, Wrong> {
        let (proof, sealed) = message.split_at_checked(PROOF).ok_or(Wrong)?;
        self.mac(OFFERER)?.verify_slice(proof).map_err(|_| Wrong)?;
        let payload = Payload {
            msg: sealed,
            aad: proof,
        };
        let given = self.cipher()?.decrypt(&Nonce::default(), payload);
        given.map(Zeroizing::new).map_err(|_| Wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELAY: PeerId = PeerId::from_bytes([7; 32]);

    fn keys(one: &ShortCode, two: &ShortCode, at: PeerId) -> (Key, Key) {
        let (offerer, a) = begin(Role::Offerer, one, RELAY);
        let (fetcher, b) = begin(Role::Fetcher, two, at);
        (offerer.finish(&b).unwrap(), fetcher.finish(&a).unwrap())
    }

    #[test]
    fn the_same_code_at_the_same_relay_opens_and_nothing_else_does() {
        let right = ShortCode::new(7).unwrap();
        let (offerer, fetcher) = keys(&right, &right, RELAY);
        offerer.check(&fetcher.proof().unwrap()).unwrap();
        let sealed = offerer.seal(b"ticket").unwrap();
        assert_eq!(*fetcher.open(&sealed).unwrap(), b"ticket");
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(fetcher.open(&changed).err(), Some(Wrong), "byte {at}");
            assert_eq!(fetcher.open(&sealed[..at]).err(), Some(Wrong));
        }
        let other_words = ShortCode::new(7).unwrap();
        let other_relay = PeerId::from_bytes([8; 32]);
        for (two, at) in [(&other_words, RELAY), (&right, other_relay)] {
            let (offerer, fetcher) = keys(&right, two, at);
            assert_eq!(offerer.check(&fetcher.proof().unwrap()), Err(Wrong));
            assert_eq!(fetcher.open(&sealed).err(), Some(Wrong));
        }
    }

    #[test]
    fn nonsense_and_an_echo_are_refused() {
        let right = ShortCode::new(7).unwrap();
        for message in [&b""[..], b"B", &[0; 33], &[0xff; 33], &[b'B'; 64]] {
            let (offerer, _) = begin(Role::Offerer, &right, RELAY);
            assert!(offerer.finish(message).is_err(), "{message:?}");
        }
        let (offerer, a) = begin(Role::Offerer, &right, RELAY);
        assert!(offerer.finish(&a).is_err());
        let (offerer, fetcher) = keys(&right, &right, RELAY);
        // What one end proves is no proof of the other.
        let sealed = offerer.seal(b"").unwrap();
        assert_eq!(fetcher.check(&sealed[..PROOF]), Err(Wrong));
    }

    #[test]
    fn what_follows_from_a_key_is_as_documented() {
        let key = Key(Zeroizing::new(vec![7; 32]));
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        assert_eq!(hex(&key.proof().unwrap()), FETCHER_PROOF);
        assert_eq!(hex(&key.seal(b"ticket").unwrap()), SEALED);
    }

    const FETCHER_PROOF: &str = "55f19b74b866a0df7fb15b9e2b284402dd09c4a6771ce44f16b050796a07cb57";
    const SEALED: &str = "a0ab5248e6ec5f14e392752805434150c6d952cf9e5d33d8599b1e3f2f50ac1a\
         9b20cf83fff19ae3274dcf99df4d621611c9f9db4302";
}
