//! HPKE (RFC 9180), the one file that names its crate: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256,
//! ChaCha20Poly1305, one message a context.
//!
//! Requests use the base mode. Answers use the mode with a pre-shared key, which is exported from the context of their
//! request: so none but who has opened that request can make one, and it opens nowhere else.

use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, HpkeError, Kem, OpModeR, OpModeS, PskBundle, Serializable as _};
use zeroize::Zeroizing;

/// The numbers of KEM, KDF and AEAD (RFC 9180, section 7).
pub(super) const SUITE: [u16; 3] = [0x0020, 0x0001, 0x0003];

/// A public key, an encapsulated one, and the name of either.
pub(super) type Bytes32 = [u8; 32];

/// What is exported from a context; overwritten when dropped.
pub(super) type Exported = Zeroizing<Bytes32>;

/// A private key; overwritten when dropped.
pub(super) struct Secret(<X25519HkdfSha256 as Kem>::PrivateKey);

/// A new key pair. Panics when the operating system has no random bytes, as nothing weaker would do.
pub(super) fn pair() -> (Secret, Bytes32) {
    let (secret, public) = X25519HkdfSha256::gen_keypair();
    (Secret(secret), public.to_bytes().into())
}

/// What both ends put into the key schedule, and what they take out of it.
#[derive(Clone, Copy)]
pub(super) struct Terms<'a> {
    pub(super) info: &'a [u8],
    /// A secret that both have, and its name.
    pub(super) shared: Option<(&'a Exported, &'a Bytes32)>,
    /// For which use the exported secret is.
    pub(super) export: &'a [u8],
}

/// A message that only one key opens.
pub(super) struct Sealed {
    pub(super) encapsulated: Bytes32,
    pub(super) text: Vec<u8>,
}

fn bundle<'a>((secret, name): (&'a Exported, &'a Bytes32)) -> Result<PskBundle<'a>, HpkeError> {
    PskBundle::new(&secret[..], name)
}

/// Seals for a public key. An error means that the key is none.
pub(super) fn seal(
    to: &Bytes32,
    terms: Terms<'_>,
    plain: &[u8],
) -> Result<(Sealed, Exported), HpkeError> {
    let to = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(to)?;
    let mode = match terms.shared {
        Some(shared) => OpModeS::Psk(bundle(shared)?),
        None => OpModeS::Base,
    };
    let (encapsulated, mut context) =
        hpke::setup_sender::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &mode, &to, terms.info,
        )?;
    let text = context.seal(plain, &[])?;
    let mut exported = Exported::default();
    context.export(terms.export, &mut exported[..])?;
    let encapsulated = encapsulated.to_bytes().into();
    Ok((Sealed { encapsulated, text }, exported))
}

/// Opens what was sealed for a key on the same terms.
pub(super) fn open(
    secret: &Secret,
    terms: Terms<'_>,
    encapsulated: &Bytes32,
    text: &[u8],
) -> Result<(Zeroizing<Vec<u8>>, Exported), HpkeError> {
    let encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(encapsulated)?;
    let mode = match terms.shared {
        Some(shared) => OpModeR::Psk(bundle(shared)?),
        None => OpModeR::Base,
    };
    let mut context = hpke::setup_receiver::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
        &mode,
        &secret.0,
        &encapsulated,
        terms.info,
    )?;
    let plain = Zeroizing::new(context.open(text, &[])?);
    let mut exported = Exported::default();
    context.export(terms.export, &mut exported[..])?;
    Ok((plain, exported))
}
