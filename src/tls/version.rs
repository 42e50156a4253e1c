//! Versions of TLS, by name and by number.

use std::fmt;

use rustls::SupportedProtocolVersion;

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Version {
    /// TLS 1.2 (RFC 5246), for peers that have nothing better.
    #[cfg(feature = "tls12")]
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

impl Version {
    /// The number on the wire: 0x0303 or 0x0304.
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            #[cfg(feature = "tls12")]
            Self::Tls12 => 0x0303,
            Self::Tls13 => 0x0304,
        }
    }

    /// Whether one of them is older than TLS 1.3.
    pub(super) fn any_before_tls13(versions: &[Self]) -> bool {
        versions.iter().any(|version| *version < Self::Tls13)
    }

    pub(super) fn from_rustls(version: rustls::ProtocolVersion) -> Option<Self> {
        match version {
            #[cfg(feature = "tls12")]
            rustls::ProtocolVersion::TLSv1_2 => Some(Self::Tls12),
            rustls::ProtocolVersion::TLSv1_3 => Some(Self::Tls13),
            _ => None,
        }
    }

    pub(super) fn to_rustls(self) -> &'static SupportedProtocolVersion {
        match self {
            #[cfg(feature = "tls12")]
            Self::Tls12 => &rustls::version::TLS12,
            Self::Tls13 => &rustls::version::TLS13,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            #[cfg(feature = "tls12")]
            Self::Tls12 => "TLS 1.2",
            Self::Tls13 => "TLS 1.3",
        })
    }
}
