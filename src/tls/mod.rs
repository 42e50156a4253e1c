//! TLS as a layer: its configuration, whom the handshake accepts, and what can go wrong.
//!
//! | file | holds |
//! |---|---|
//! | `builder.rs` | `TlsConfig::new`, `TlsConfigBuilder`: how a configuration is made |
//! | `config.rs` | `TlsConfig`: identity, trust, versions, suites, ALPN, and the hardening that is not optional |
//! | `made.rs` | configurations that connections of a stack share |
//! | `seen.rs` | certificates that connections of a configuration share |
//! | `shown.rs` | `KeyForm`, and which identity a client's hello gets to see, in which form |
//! | `verifier.rs` | where rustls asks about the peer's certificate and we ask the trust policy |
//! | `peer.rs` | `Peer`: what a finished handshake tells |
//! | `error.rs` | `TlsError`, and the alert or the bytes behind it in words |
//! | `record.rs` | where one TLS record ends and the next begins; `fuzz.rs` holds its promises against any input |
//! | `session.rs` | one TLS connection, fed one record at a time; the only file that names rustls's connections |

mod builder;
mod config;
mod config_error;
pub(crate) mod connection;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzz;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzz_handshake;
mod made;
mod peer;
pub(crate) mod record;
mod seen;
mod shown;
mod verifier;
mod version;

pub use builder::TlsConfigBuilder;
pub use config::TlsConfig;
pub use config_error::TlsConfigError;
pub use error::{Lacking, LocalFault, TlsError};
pub use peer::Peer;
pub use shown::KeyForm;
pub use version::Version;

pub(crate) use made::Made;

/// What [`TlsConfigBuilder::provider`] and [`TlsConfigBuilder::clock`] take, and all of rustls beside it: for who has no
/// dependency on it, or must have the same version.
pub use rustls;
pub use rustls::crypto::CryptoProvider;
pub use rustls::time_provider::TimeProvider;
pub use rustls_pki_types::UnixTime;

#[cfg(test)]
mod tests;
