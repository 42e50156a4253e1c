//! The cryptographic provider that is used where none was asked for, and its random numbers.
//!
//! A program never has to install a process-wide provider: each configuration carries its own, so
//! two libraries in one process can't disagree about it.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, OnceLock};

use rustls::crypto::{CryptoProvider, GetRandomFailed};

#[cfg(not(any(feature = "aws-lc-rs", feature = "ring")))]
compile_error!(
    "cepa needs a cryptographic backend: enable the feature `aws-lc-rs` (the default) or `ring`"
);

/// The provider of the enabled feature: aws-lc-rs, or ring where that alone is enabled.
#[must_use]
pub fn default_provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(make())))
}

#[cfg(feature = "aws-lc-rs")]
fn make() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

#[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
fn make() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

/// Random numbers that nobody can foretell, for what a peer must not guess.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], GetRandomFailed> {
    let mut bytes = [0; N];
    fill(&mut bytes)?;
    Ok(bytes)
}

/// The same where they are to lie, for a secret that is wiped there.
pub(crate) fn fill(bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
    default_provider().secure_random.fill(bytes)
}

/// The same as a number. Without the provider's, which no system in use withholds, it is what the standard library
/// seeds its hash tables with: an engine can start without an error of its own.
pub(crate) fn seed() -> u64 {
    random().map_or_else(|_| RandomState::new().hash_one(0), u64::from_be_bytes)
}
