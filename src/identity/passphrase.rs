//! A private key under a passphrase: PKCS#8 EncryptedPrivateKeyInfo (RFC 5958 section 3), by PBES2
//! (RFC 8018 section 6.2) with scrypt and AES-256-CBC, which OpenSSL reads.
//!
//! scrypt gets N = 2^14, r = 8, p = 5: each guess takes 16 MiB and some hundred milliseconds, as much
//! work as the customary N = 2^17 with p = 1, but in memory that OpenSSL is willing to give. What is
//! read may ask for more, up to 1 GiB; a file that asks for all memory there is must not end us.

use pkcs8::EncryptedPrivateKeyInfoRef;
use pkcs8::der::Encode as _;
use pkcs8::pkcs5::pbes2::Parameters;
use pkcs8::pkcs5::{EncryptionScheme, scrypt};
use rustls::crypto::SecureRandom;
use zeroize::Zeroizing;

use super::error::IdentityError;

const LOG_N: u8 = 14;
const R: u32 = 8;
const P: u32 = 5;

/// Bytes that the derivation of a key may take.
const MAX_MEMORY: u128 = 1 << 30;
/// Rounds of it, counted in those of one scrypt block or one PBKDF2 iteration.
const MAX_ROUNDS: u128 = 1 << 26;

/// Puts a PKCS#8 key under a passphrase.
pub(super) fn encrypt(
    key: &[u8],
    passphrase: &[u8],
    random: &dyn SecureRandom,
) -> Result<Vec<u8>, IdentityError> {
    let failed = |reason: String| IdentityError::Generate { reason };
    let (mut salt, mut iv) = ([0; 16], [0; 16]);
    for bytes in [&mut salt, &mut iv] {
        let filled = random.fill(bytes);
        filled.map_err(|_| failed("no random bytes for the passphrase's salt".into()))?;
    }
    let cost = scrypt::Params::new(LOG_N, R, P).map_err(|error| failed(error.to_string()))?;
    let scheme = Parameters::generate_scrypt_aes256cbc(cost, &salt, iv)
        .map_err(|error| failed(error.to_string()))?;
    let sealed = scheme
        .encrypt(passphrase, key)
        .map_err(|error| failed(error.to_string()))?;
    let info = pkcs8::EncryptedPrivateKeyInfoOwned {
        encryption_algorithm: scheme.into(),
        encrypted_data: pkcs8::der::asn1::OctetString::new(sealed)
            .map_err(|error| failed(error.to_string()))?,
    };
    info.to_der().map_err(|error| failed(error.to_string()))
}

/// The PKCS#8 key that was put under a passphrase.
pub(super) fn decrypt(der: &[u8], passphrase: &[u8]) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
    let info = EncryptedPrivateKeyInfoRef::try_from(der).map_err(|error| IdentityError::Pem {
        reason: format!("the encrypted key can't be read: {error}"),
    })?;
    if costs_too_much(&info.encryption_algorithm) {
        return Err(IdentityError::Pem {
            reason: "its passphrase asks for more memory or time than is sensible".into(),
        });
    }
    let key = info
        .decrypt(passphrase)
        .map_err(|_| IdentityError::Passphrase)?;
    Ok(Zeroizing::new(key.as_bytes().to_vec()))
}

fn costs_too_much(scheme: &EncryptionScheme) -> bool {
    let EncryptionScheme::Pbes2(parameters) = scheme else {
        return true;
    };
    if let Some(scrypt) = parameters.kdf.scrypt() {
        let n = u128::from(scrypt.cost_parameter);
        let block = u128::from(scrypt.block_size);
        let p = u128::from(scrypt.parallelization);
        // RFC 7914 section 2: 128 * r bytes for each of N blocks.
        return 128 * block * n > MAX_MEMORY || block * n * p > MAX_ROUNDS;
    }
    match parameters.kdf.pbkdf2() {
        Some(pbkdf2) => u128::from(pbkdf2.iteration_count) > MAX_ROUNDS,
        None => true,
    }
}
