//! What can go wrong in a TLS layer, in words that say what to do.
//!
//! Errors are kept (a failed layer stays failed) and handed out again at each use, so they can be
//! cloned.
//!
//! A layer's place in the stack is known to the onion alone. It puts it into the errors that need
//! one ([`TlsError::Truncated`]) and wraps what is reported again later ([`TlsError::Failed`]).

use std::fmt::Write as _;
use std::io;

use cepa_transports::SharedError;
use rustls::{AlertDescription, CertificateError, PeerIncompatible};

use super::verifier::Verdict;
use crate::Side;
use crate::identity::{PeerId, Refusal};

/// Bytes of foreign data that an error quotes.
const QUOTED: usize = 64;

/// Why a TLS layer failed, or could not be put on or taken off.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// We do not talk to this peer.
    #[error("{0}")]
    Refused(#[source] Refusal),

    /// The peer does not talk to us, and sent this alert (RFC 8446 section 6.2).
    #[error("{}", refused_by_peer(*alert))]
    RefusedByPeer {
        /// The alert's number.
        alert: u8,
    },

    /// What came is not TLS: a banner, another protocol, a message of a login shell.
    #[error(
        "the peer does not speak TLS here, it sent {}: {}",
        quote(first),
        not_tls_hint(first)
    )]
    NotTls {
        /// The first bytes of what came, at most 64.
        first: Vec<u8>,
    },

    /// The stream ended without the peer's close_notify: cut off, by accident or by an attacker.
    #[error(
        "the stream was cut inside TLS layer {layer} (it ended without a close): the last data may be missing"
    )]
    Truncated {
        /// The layer's number, the outermost is 1; 0 where it is not known.
        layer: usize,
    },

    /// The peer ended the handshake before it was finished, by a close or as cancelled (RFC 8446 section 6.1): a server that has
    /// no room for one more, or that waited for as long as it waits.
    #[error(
        "the peer ended the handshake early: it is busy, or its time limit passed; try again in a few seconds"
    )]
    GivenUp,

    /// A record that does not authenticate: changed on the way, or bytes lost or added.
    #[error("a TLS record was damaged or forged: on a serial line, check speed and flow control")]
    BadRecord,

    /// The peer breaks the protocol.
    #[error("the peer broke the TLS protocol ({detail}): is its software up to date, and does it expect a {} here?", our_side.other())]
    Protocol {
        /// What it did, in the words of rustls. The set is open: it grows with what rustls checks.
        detail: String,
        /// Our own role.
        our_side: Side,
    },

    /// Both speak TLS, but have no version, cipher suite, key exchange or signature in common.
    #[error(
        "the peer and this end have nothing in common ({lacking}): compare the TLS versions, cipher suites and keys of both sides"
    )]
    Incompatible {
        /// What is lacking.
        lacking: Lacking,
    },

    /// A client asked for a name that none of our identities has.
    #[error(
        "the client asked for {}, and no identity here has that name: its peer id or address is wrong",
        quote(name.as_bytes())
    )]
    UnknownName {
        /// The name (SNI).
        name: String,
    },

    /// The peer that we asked for is not one of those behind this address.
    #[error("another peer than {asked} is at this address: check the id and the address")]
    NotHere {
        /// Whom we asked for.
        asked: PeerId,
    },

    /// The two sides did not agree on the protocol inside this layer.
    #[error("the peer {}: both sides must be set to the same one", alpn(required, got.as_deref()))]
    Alpn {
        /// What would have been right.
        required: Vec<Vec<u8>>,
        /// What the handshake gave; none where it gave none or the peer refused all.
        got: Option<Vec<u8>>,
    },

    /// A layer was to be taken off while bytes wait in it. Nothing is lost: read them, then pop again.
    #[error("the layer has unread bytes: read to its end, then take it off again")]
    Unread,

    /// The layer was closed from our side; nothing can be written into it any more.
    #[error("the layer is closed for writing: finish taking it off")]
    Closed,

    /// The call does not fit the state of the stream.
    #[error("{what}")]
    Misuse {
        /// What does not fit, and what to do.
        what: &'static str,
    },

    /// The handshake, or the taking off, did not finish in time.
    #[error(
        "the peer did not finish the TLS handshake in time: is it running, and does it speak TLS here?"
    )]
    TimedOut,

    /// The stream underneath failed.
    #[error("the stream under the TLS layer failed: {0}")]
    Io(#[source] SharedError),

    /// Our own side can't go on: no random numbers, no time, a configuration that does not work.
    #[error(
        "TLS does not work on this machine ({fault}): check its clock, random source and the layer's configuration"
    )]
    Local {
        /// What does not work.
        fault: LocalFault,
    },

    /// The stream failed earlier, for this reason, and stays failed.
    #[error("the stream failed before, in TLS layer {layer}: {source}")]
    Failed {
        /// The layer's number, the outermost is 1.
        layer: usize,
        /// The reason.
        source: SharedError<TlsError>,
    },
}

/// What two ends that both speak TLS do not have in common: [`TlsError::Incompatible`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Lacking {
    /// A cipher suite.
    #[error("no cipher suite")]
    CipherSuite,
    /// A group for the key exchange.
    #[error("no key exchange")]
    KeyExchange,
    /// A signature scheme for the key that one of them has.
    #[error("no signature scheme for the key we use")]
    SignatureScheme,
    /// A version of TLS.
    #[error("no TLS version")]
    Version,
    /// The form of keys.
    #[error("one side takes raw public keys (RFC 7250) only, the other certificates only")]
    KeyForm,
    /// Something else that this end requires, by the name that rustls has for it.
    #[error("{0}")]
    Other(String),
}

impl Lacking {
    fn of(what: &PeerIncompatible) -> Self {
        match what {
            PeerIncompatible::NoCipherSuitesInCommon => Self::CipherSuite,
            PeerIncompatible::NoKxGroupsInCommon => Self::KeyExchange,
            PeerIncompatible::NoSignatureSchemesInCommon
            | PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon => {
                Self::SignatureScheme
            }
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled => Self::Version,
            PeerIncompatible::IncorrectCertificateTypeExtension
            | PeerIncompatible::UnsolicitedCertificateTypeExtension => Self::KeyForm,
            other => Self::Other(format!("{other:?}")),
        }
    }
}

/// What does not work on this machine: [`TlsError::Local`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LocalFault {
    /// The clock can't be read.
    #[error("failed to get current time")]
    Clock,
    /// The system gives no random bytes.
    #[error("failed to get random bytes")]
    Random,
    /// The thread that asks the trust policy is gone, for the reason that the runtime gives: the runtime ends.
    #[error("the thread that asks the trust policy is gone, {0}")]
    PolicyThread(String),
    /// The layer's configuration can't work, in the words of rustls.
    #[error("{0}")]
    Configuration(String),
}

impl TlsError {
    /// What an error of rustls means to us.
    ///
    /// `verdict` is the one that came with the connection's configuration: a refusal that our own
    /// policy caused is in there, whatever alert it became.
    pub(crate) fn from_rustls(error: &rustls::Error, verdict: &Verdict, our_side: Side) -> Self {
        if let Some(refusal) = verdict.refusal() {
            return Self::Refused(refusal);
        }
        match error {
            rustls::Error::AlertReceived(AlertDescription::UnrecognisedName) => {
                match verdict.asks().asked {
                    Some(asked) => Self::NotHere { asked },
                    None => Self::from_alert(u8::from(AlertDescription::UnrecognisedName)),
                }
            }
            // In a handshake alone: behind it, rustls takes a close as the end that it is.
            rustls::Error::AlertReceived(
                AlertDescription::UserCanceled | AlertDescription::CloseNotify,
            ) => Self::GivenUp,
            rustls::Error::AlertReceived(alert) => Self::from_alert(u8::from(*alert)),
            rustls::Error::NoCertificatesPresented => Self::Refused(Refusal::NoCertificate),
            rustls::Error::DecryptError | rustls::Error::PeerSentOversizedRecord => Self::BadRecord,
            rustls::Error::InvalidCertificate(reason) => Self::Protocol {
                detail: match reason {
                    CertificateError::BadSignature => {
                        "it does not hold the key of the certificate it shows".into()
                    }
                    reason => reason.to_string(),
                },
                our_side,
            },
            rustls::Error::PeerIncompatible(what) => Self::Incompatible {
                lacking: Lacking::of(what),
            },
            // rustls means here: of the protocols offered to us we speak none. Which ones they were
            // it does not tell.
            rustls::Error::NoApplicationProtocol => Self::Alpn {
                required: verdict.asks().alpn.to_vec(),
                got: None,
            },
            rustls::Error::FailedToGetCurrentTime => Self::Local {
                fault: LocalFault::Clock,
            },
            rustls::Error::FailedToGetRandomBytes => Self::Local {
                fault: LocalFault::Random,
            },
            rustls::Error::EncryptError
            | rustls::Error::BadMaxFragmentSize
            | rustls::Error::UnsupportedNameType
            | rustls::Error::InconsistentKeys(_) => Self::Local {
                fault: LocalFault::Configuration(error.to_string()),
            },
            other => Self::Protocol {
                detail: other.to_string(),
                our_side,
            },
        }
    }

    /// The peer sent this alert.
    pub(crate) fn from_alert(alert: u8) -> Self {
        Self::RefusedByPeer { alert }
    }

    /// The stream underneath failed.
    pub(crate) fn from_io(error: io::Error) -> Self {
        // An error of ours that came up through a stream below stays what it was.
        match Self::inside(&error) {
            Some(ours) => ours.clone(),
            None => Self::Io(error.into()),
        }
    }

    /// Whether it is that the stream underneath ended, by a close or a reset.
    pub(crate) fn is_end(&self) -> bool {
        match self.root() {
            Self::Truncated { .. } => true,
            Self::Io(error) => matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::BrokenPipe
            ),
            _ => false,
        }
    }

    /// Whether it is that the peer went no further, and did not say what it minds.
    pub(crate) fn is_given_up(&self) -> bool {
        matches!(self.root(), Self::GivenUp)
    }

    /// What came first is not a TLS record.
    pub(crate) fn not_tls(first: &[u8]) -> Self {
        Self::NotTls {
            first: first.get(..QUOTED).unwrap_or(first).to_vec(),
        }
    }

    /// The error of a TLS layer inside an [`io::Error`], when it is one.
    #[must_use]
    pub fn inside(error: &io::Error) -> Option<&Self> {
        error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Self>())
    }

    /// The first cause: what made the stream fail, without the wrapping that later uses put on.
    #[must_use]
    pub fn root(&self) -> &Self {
        match self {
            Self::Failed { source, .. } => source.root(),
            other => other,
        }
    }

    /// Whether another attempt, on a new stream, may do better with nothing changed here: the stream was
    /// cut, disturbed, or still held bytes of something else (an old session, a login prompt).
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self.root() {
            Self::NotTls { .. }
            | Self::Truncated { .. }
            | Self::GivenUp
            | Self::BadRecord
            | Self::Protocol { .. }
            | Self::TimedOut
            | Self::Io(_) => true,
            // What the peer says to bytes that were disturbed, or were none of ours.
            Self::RefusedByPeer { alert } => matches!(
                AlertDescription::from(*alert),
                AlertDescription::UnexpectedMessage
                    | AlertDescription::BadRecordMac
                    | AlertDescription::RecordOverflow
                    | AlertDescription::DecodeError
                    | AlertDescription::DecryptError
                    | AlertDescription::InternalError
            ),
            _ => false,
        }
    }

    /// Whether the peer does not want the key or the certificate of this end: its owner would have to allow this end's peer id. These
    /// alerts are those of RFC 8446, section 6.2, that speak of a certificate or of access, but for one that has expired or was
    /// revoked.
    #[must_use]
    pub fn is_identity_refused(&self) -> bool {
        let Self::RefusedByPeer { alert } = self.root() else {
            return false;
        };
        matches!(
            AlertDescription::from(*alert),
            AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnknownCA
                | AlertDescription::AccessDenied
        )
    }

    /// This error as it is told again at each later use of the stream.
    pub(crate) fn again(&self, layer: usize) -> Self {
        match self {
            Self::Failed { .. } => self.clone(),
            first => Self::Failed {
                layer,
                source: first.clone().into(),
            },
        }
    }

    /// Does the stream stay usable? True for the caller's own slips alone.
    #[must_use]
    pub fn is_recoverable(&self) -> bool {
        matches!(self, Self::Unread | Self::Closed | Self::Misuse { .. })
    }
}

impl From<TlsError> for io::Error {
    fn from(error: TlsError) -> Self {
        let kind = match error.root() {
            TlsError::Refused(_)
            | TlsError::RefusedByPeer { .. }
            | TlsError::UnknownName { .. }
            | TlsError::NotHere { .. } => io::ErrorKind::PermissionDenied,
            TlsError::Truncated { .. } => io::ErrorKind::UnexpectedEof,
            TlsError::GivenUp => io::ErrorKind::ConnectionAborted,
            TlsError::TimedOut => io::ErrorKind::TimedOut,
            TlsError::Closed => io::ErrorKind::BrokenPipe,
            TlsError::Io(error) => error.kind(),
            TlsError::Misuse { .. } | TlsError::Unread => io::ErrorKind::InvalidInput,
            TlsError::Local { .. } | TlsError::Failed { .. } => io::ErrorKind::Other,
            TlsError::NotTls { .. }
            | TlsError::BadRecord
            | TlsError::Protocol { .. }
            | TlsError::Incompatible { .. }
            | TlsError::Alpn { .. } => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, error)
    }
}

/// What to make of an alert, by its number (RFC 8446 section 6.2, RFC 7301 section 3.2).
fn refused_by_peer(alert: u8) -> String {
    let alert = AlertDescription::from(alert);
    let (number, name) = (u8::from(alert), alert_name(alert));
    let (says, hint) = match alert {
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied => {
            return format!("the peer does not allow this machine (alert {number}, {name})");
        }
        AlertDescription::CertificateExpired => (
            "this machine's certificate has expired or is not valid yet",
            "renew it with the same key, and check both clocks",
        ),
        AlertDescription::CertificateRevoked => (
            "this machine's certificate was revoked",
            "ask the peer's owner for access with a new identity",
        ),
        AlertDescription::CertificateRequired => {
            ("it requires a certificate", "connect with an identity")
        }
        AlertDescription::NoApplicationProtocol => (
            "it does not speak this protocol inside TLS",
            "is it cepa of the same version, with the same layers?",
        ),
        AlertDescription::UnrecognisedName => {
            ("it has no identity of that name", "check the server name")
        }
        AlertDescription::HandshakeFailure => (
            "it shares no cipher suite or kind of key with this machine",
            "compare the layers on both sides; a peer without raw public keys (RFC 7250) needs certificates (`tls?key=x509`)",
        ),
        AlertDescription::ProtocolVersion | AlertDescription::InsufficientSecurity => (
            "it shares no TLS version, cipher suite or key with this machine",
            "compare the layers on both sides",
        ),
        AlertDescription::DecryptError | AlertDescription::BadRecordMac => (
            "it could not authenticate this machine's data",
            "bytes were changed in transit, or the layers differ",
        ),
        AlertDescription::InternalError => ("it had an internal error", "see its log"),
        _ => (
            "it found an error in this machine's data",
            "do both sides have the same layers, one as client and one as server?",
        ),
    };
    format!("the peer refused: {says}, alert {number} ({name}); {hint}")
}

/// The alert's name as the RFCs write it.
fn alert_name(alert: AlertDescription) -> String {
    let mut name = String::new();
    let debug = match alert {
        AlertDescription::UnknownCA => "UnknownCa".into(),
        AlertDescription::UnrecognisedName => "UnrecognizedName".into(),
        AlertDescription::Unknown(_) => return "not assigned".into(),
        known => format!("{known:?}"),
    };
    for c in debug.chars() {
        if c.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(c.to_ascii_lowercase());
    }
    name
}

fn alpn(required: &[Vec<u8>], got: Option<&[u8]>) -> String {
    let mut text = match got {
        Some(got) => format!("agreed on the protocol {} inside TLS", quote(got)),
        None => "does not agree on a protocol inside TLS (ALPN)".into(),
    };
    for (index, name) in required.iter().enumerate() {
        let _ = write!(
            text,
            "{}{}",
            if index == 0 { ", ours is " } else { " or " },
            quote(name)
        );
    }
    text
}

/// What bytes that are not TLS hint at.
fn not_tls_hint(first: &[u8]) -> &'static str {
    if first.starts_with(b"SSH-") {
        "that is an SSH server, check the port"
    } else if first.starts_with(b"HTTP/") || first.starts_with(b"<") {
        "that is a web server without TLS, check the port"
    } else if first.starts_with(b"GET ")
        || first.starts_with(b"POST ")
        || first.starts_with(b"HEAD ")
    {
        "that is a web client without TLS"
    } else if begins_with_text(first) {
        "is it a message of the program or shell there? Silence it: nothing may be printed before TLS"
    } else {
        "check the address, the layers on both sides, and a serial line's speed"
    }
}

/// A line of text, or all text: a banner, whatever may follow it (an echo of our own hello, say).
fn begins_with_text(bytes: &[u8]) -> bool {
    let is_text = |byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    let text = bytes.iter().take_while(|byte| is_text(byte)).count();
    text > 0 && (text == bytes.len() || bytes.iter().take(text).any(|byte| *byte == b'\n'))
}

/// Foreign bytes as printable text on one line, bounded.
pub(crate) fn quote(bytes: &[u8]) -> String {
    let shown = bytes.get(..QUOTED).unwrap_or(bytes);
    let mut text = String::from("\"");
    for byte in shown {
        match byte {
            b'"' | b'\\' => {
                text.push('\\');
                text.push(char::from(*byte));
            }
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\t' => text.push_str("\\t"),
            0x20..=0x7e => text.push(char::from(*byte)),
            other => {
                let _ = write!(text, "\\x{other:02x}");
            }
        }
    }
    text.push('"');
    if bytes.len() > shown.len() {
        text.push_str("...");
    }
    text
}
