//! The cryptographic provider that is used where none was asked for.
//!
//! A program never has to install a process-wide provider: each configuration carries its own, so
//! two libraries in one process can't disagree about it.

use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;

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
