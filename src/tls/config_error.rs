//! Why a layer's configuration can't work.

use cepa_transports::text::quoted;

use super::version::Version;

/// A layer's configuration that can't work. Each text is one line and says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsConfigError {
    /// No version at all.
    #[error("a TLS layer needs a version: name TLS 1.3, or TLS 1.2 for old peers")]
    NoVersion,
    /// A cipher suite that the provider lacks.
    #[error(
        "cipher suite 0x{code:04x} is not available: choose another one, or another cryptographic backend"
    )]
    UnknownSuite {
        /// Its IANA code.
        code: u16,
    },
    /// A cipher suite of a version that is not enabled.
    #[error(
        "cipher suite 0x{code:04x} belongs to a TLS version that this layer does not enable: name that version as well, or leave the suite out"
    )]
    SuiteVersion {
        /// Its IANA code.
        code: u16,
    },
    /// A version for which no suite is left.
    #[error("no cipher suite is left for {version}: name one, or leave that version out")]
    NoSuite {
        /// The version.
        version: Version,
    },
    /// A key exchange group that the provider lacks.
    #[error(
        "key exchange group 0x{code:04x} is not available: choose another one, or another cryptographic backend"
    )]
    UnknownGroup {
        /// Its IANA code.
        code: u16,
    },
    /// No key exchange group at all.
    #[error("a TLS layer needs a key exchange group: name one, 0x001d is X25519")]
    NoGroup,
    /// A protocol name of a length that ALPN can't carry.
    #[error("an ALPN name has 1 to 255 bytes, this has {length}")]
    Alpn {
        /// Its length in bytes.
        length: usize,
    },
    /// Neither a host name nor an IP address.
    #[error(
        "{} cannot be a server name: use a host name or an IP address",
        quoted(name)
    )]
    ServerName {
        /// What was given.
        name: String,
    },
    /// Raw public keys in a layer that also takes TLS 1.2.
    #[error("raw public keys need TLS 1.3 alone: leave TLS 1.2 out, or use certificates")]
    RawKeyVersion,
    /// A fragment size out of range.
    #[error("a record carries 32 to 16384 bytes, not {bytes}")]
    Fragment {
        /// What was given.
        bytes: usize,
    },
    /// The cryptographic provider does not take the settings or the key.
    #[error(
        "the cryptographic backend does not take these settings ({reason}): use another key, suite or backend"
    )]
    Backend {
        /// What it says.
        reason: String,
    },
}
