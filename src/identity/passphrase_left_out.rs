//! In place of `passphrase.rs` in a build without the feature `passphrase`: no key is put under one, or read from under one.

use rustls::crypto::SecureRandom;
use zeroize::Zeroizing;

use super::error::IdentityError;

pub(super) fn encrypt(
    _key: &[u8],
    _passphrase: &[u8],
    _random: &dyn SecureRandom,
) -> Result<Vec<u8>, IdentityError> {
    Err(IdentityError::NoPassphrases)
}

pub(super) fn decrypt(
    _der: &[u8],
    _passphrase: &[u8],
) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
    Err(IdentityError::NoPassphrases)
}
