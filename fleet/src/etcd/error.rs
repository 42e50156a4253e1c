//! Why etcd did not do what it was asked: the words for an operator, and what the fleet does about it.

use std::io;

use rustls::CertificateError;
use tonic::{Code, Status};

/// Why a call of etcd failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EtcdError {
    /// Nothing answers there.
    #[error("{endpoint} does not answer: {reason}")]
    Unreachable {
        /// Which one, HOST:PORT.
        endpoint: String,
        /// What the system says.
        reason: String,
    },
    /// TLS was not agreed on: another authority's certificate, another name, or no TLS at all.
    #[error("TLS with {endpoint} failed: {reason}")]
    Tls {
        /// Which one, HOST:PORT.
        endpoint: String,
        /// What rustls says.
        reason: String,
    },
    /// Its certificate is good for nothing here, whoever has signed it.
    #[error("the certificate of {endpoint} {why}")]
    Certificate {
        /// Which one, HOST:PORT.
        endpoint: String,
        /// What is wrong with it.
        why: BadCertificate,
    },
    /// The user is unknown, or the password is wrong, or etcd wants a user and none is given.
    #[error("the user or password is refused ({0})")]
    Login(String),
    /// A user is given, and etcd knows none.
    #[error("it asks nobody for a user and password")]
    NoLogin,
    /// The user may not read or write these keys.
    #[error("that user may not use these keys ({0})")]
    Denied(String),
    /// The history that was asked for is gone: everything has to be read again.
    #[error("the revision that was asked for is compacted")]
    Compacted,
    /// The lease is over, and with it what was entered under it.
    #[error("the lease has ended")]
    LeaseLost,
    /// No answer in time.
    #[error("no answer within {0} s")]
    Slow(u64),
    /// An answer was longer than we take.
    #[error("an answer is longer than {0} bytes")]
    TooLarge(usize),
    /// What came is not what etcd answers.
    #[error("what answers there is no etcd: {0}")]
    Malformed(String),
    /// It has no leader, is overloaded, or ends.
    #[error("it is not ready: {0}")]
    NotReady(String),
    /// Another error that it answered.
    #[error("it answers: {0}")]
    Answer(String),
}

/// What is wrong with a server's certificate. The text goes behind "the certificate of HOST:PORT".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadCertificate {
    /// It says of itself that it signs others, as one that `openssl req -x509` makes does.
    #[error("is an authority's own (CA:TRUE), which no server may show")]
    OfAuthority,
    /// It names others.
    #[error("is for another name or address")]
    Name,
    /// Its time is over.
    #[error("has expired")]
    Expired,
    /// Its time has not come.
    #[error("is not valid yet")]
    Early,
}

impl BadCertificate {
    fn of(error: &io::Error) -> Option<Self> {
        let error = error.get_ref()?.downcast_ref()?;
        let rustls::Error::InvalidCertificate(why) = error else {
            return None;
        };
        Some(match why {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Self::Early
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Self::Name
            }
            // It has no name there.
            CertificateError::Other(why) if format!("{why:?}").contains("CaUsedAsEndEntity") => {
                Self::OfAuthority
            }
            _ => return None,
        })
    }
}

impl EtcdError {
    /// Whether it is for an operator to mend, and waiting is of no use.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        matches!(
            self,
            Self::Tls { .. }
                | Self::Certificate { .. }
                | Self::Login(_)
                | Self::NoLogin
                | Self::Denied(_)
        )
    }

    /// From a status, whose text is etcd's: cut, since it may be anybody's.
    pub(super) fn of(status: &Status, most: usize) -> Self {
        let text = short(status.message());
        match status.code() {
            // One that is not used for some minutes ends; the next connection has another one.
            Code::Unauthenticated if text.contains("invalid auth token") => Self::NotReady(text),
            Code::Unauthenticated => Self::Login(text),
            Code::PermissionDenied => Self::Denied(text),
            Code::InvalidArgument | Code::FailedPrecondition
                if text.contains("authentication is not enabled") =>
            {
                Self::NoLogin
            }
            Code::InvalidArgument | Code::FailedPrecondition if is_login(&text) => {
                Self::Login(text)
            }
            Code::OutOfRange if text.contains("compacted") => Self::Compacted,
            Code::OutOfRange if text.contains("decoded message length too large") => {
                Self::TooLarge(most)
            }
            Code::NotFound if text.contains("lease") => Self::LeaseLost,
            Code::Unavailable | Code::ResourceExhausted | Code::Aborted | Code::Cancelled => {
                Self::NotReady(text)
            }
            // First: gRPC's library calls a connection that ends in a body an error of the protocol, or does not, as it comes.
            _ if is_lost(&text) => Self::NotReady("the connection is lost".to_owned()),
            Code::Unimplemented | Code::Internal | Code::Unknown if is_foreign(status) => {
                Self::Malformed(text)
            }
            _ => Self::Answer(text),
        }
    }

    pub(super) fn unreachable(endpoint: &str, error: &io::Error) -> Self {
        Self::Unreachable {
            endpoint: endpoint.to_owned(),
            reason: short(&error.to_string()),
        }
    }

    pub(super) fn tls(endpoint: &str, error: &io::Error) -> Self {
        let endpoint = endpoint.to_owned();
        if let Some(why) = BadCertificate::of(error) {
            return Self::Certificate { endpoint, why };
        }
        let reason = match error.get_ref().and_then(|it| it.downcast_ref()) {
            Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
                "its certificate is another authority's".to_owned()
            }
            Some(rustls::Error::InvalidMessage(_)) => {
                let why = "it speaks no TLS; write etcd: in place of etcds:";
                return Self::Malformed(why.to_owned());
            }
            _ => short(&error.to_string()),
        };
        Self::Tls { endpoint, reason }
    }
}

/// etcd answers a wrong password with INVALID_ARGUMENT, and a missing one as well.
fn is_login(text: &str) -> bool {
    ["authentication failed", "user name is empty"]
        .iter()
        .any(|words| text.contains(words))
}

/// Whether the connection ended within an answer.
fn is_lost(text: &str) -> bool {
    [
        "error reading a body",
        "stream closed because of a broken pipe",
    ]
    .iter()
    .any(|words| text.contains(words))
}

/// Whether it comes from below gRPC: bytes that are no HTTP/2, no protobuf, or another server's answer.
fn is_foreign(status: &Status) -> bool {
    let text = status.message();
    [
        "h2 protocol error",
        "http2 error",
        "failed to decode",
        "Missing response message",
        "invalid compression flag",
        "transport error",
        "grpc-status header missing",
        "Unexpected EOF",
    ]
    .iter()
    .any(|words| text.contains(words))
        || status.code() == Code::Unimplemented
}

/// At most so much of what somebody else wrote, without what moves a cursor.
fn short(text: &str) -> String {
    const MOST: usize = 160;
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    clean.take(MOST).collect()
}
