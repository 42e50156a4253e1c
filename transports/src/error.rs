//! Why a transport could not be dialled, listened on or accepted from, in one line: what was
//! tried, why it failed, and what to do.
use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

use crate::endpoint::Endpoint;
use crate::text::clean;

/// What was being done when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// [`dial`](crate::dial)
    Dial,
    /// [`listen`](crate::listen)
    Listen,
    /// [`Listener::accept`](crate::Listener::accept)
    Accept,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dial => "cannot dial",
            Self::Listen => "cannot listen on",
            Self::Accept => "cannot accept on",
        })
    }
}

/// The kinds of failure that a program may want to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TransportErrorKind {
    /// The address is right, but nothing answers there.
    Refused,
    /// A file, device, command, host name or in-process listener does not exist.
    NotFound,
    /// The operating system forbids it.
    PermissionDenied,
    /// Somebody on the way, a proxy or a front end, does not let us through.
    Rejected,
    /// Somebody else holds it.
    AddressInUse,
    /// No answer in time.
    TimedOut,
    /// Not built in, or not possible on this system.
    Unsupported,
    /// It was there and went away.
    Lost,
    /// It is there, but is not what the address says.
    Invalid,
    /// Anything else; the source tells.
    Other,
}

impl TransportErrorKind {
    /// Whether the same may work later with nothing changed on this machine: the other end is away, the
    /// adapter is not plugged in, somebody else holds the device, or udev has yet to say who may open it.
    #[must_use]
    pub fn is_transient(self) -> bool {
        !matches!(self, Self::Invalid | Self::Unsupported)
    }
}

/// Why a dial, a listen or an accept failed.
#[derive(Clone, Debug)]
pub struct TransportError {
    endpoint: String,
    action: Action,
    kind: TransportErrorKind,
    reason: String,
    advice: String,
    source: Option<Arc<io::Error>>,
}

impl TransportError {
    pub(crate) fn new(
        action: Action,
        endpoint: &Endpoint,
        kind: TransportErrorKind,
        reason: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            endpoint: endpoint.to_string(),
            action,
            kind,
            reason: reason.into(),
            advice: advice.into(),
            source: None,
        }
    }

    /// An address that this build understands and can't use: the program was built without `what`.
    #[cfg(not(all(
        feature = "quic",
        feature = "rfc2217",
        feature = "serial",
        feature = "ws"
    )))]
    pub(crate) fn left_out(action: Action, endpoint: &Endpoint, what: &str, advice: &str) -> Self {
        let reason = format!("this program was built without {what}");
        Self::new(
            action,
            endpoint,
            TransportErrorKind::Unsupported,
            reason,
            advice,
        )
    }

    /// From an error of the operating system; the kind is read from it, the advice is the caller's.
    pub(crate) fn io(
        action: Action,
        endpoint: &Endpoint,
        error: io::Error,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            kind: kind_of(&error),
            reason: describe(&error),
            source: Some(Arc::new(error)),
            ..Self::new(action, endpoint, TransportErrorKind::Other, "", advice)
        }
    }

    #[cfg(feature = "serial")]
    #[must_use]
    pub(crate) fn with_kind(mut self, kind: TransportErrorKind) -> Self {
        self.kind = kind;
        self
    }

    #[must_use]
    pub(crate) fn with_source(mut self, error: io::Error) -> Self {
        self.source = Some(Arc::new(error));
        self
    }

    /// The address as text, in its canonical form.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// What was tried.
    pub fn action(&self) -> Action {
        self.action
    }

    /// What went wrong, for a program.
    pub fn kind(&self) -> TransportErrorKind {
        self.kind
    }

    /// Whether the same may work later with nothing changed on this machine, as [`TransportErrorKind::is_transient`].
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.kind.is_transient()
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = format!("{} \"{}\": {}", self.action, self.endpoint, self.reason);
        if !self.advice.is_empty() {
            line.push_str("; ");
            line.push_str(&self.advice);
        }
        // A reason may name a file or a folder.
        f.write_str(&clean(&line, usize::MAX))
    }
}

impl Error for TransportError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|e| e as _)
    }
}

impl From<TransportError> for io::Error {
    fn from(error: TransportError) -> Self {
        use TransportErrorKind as Kind;
        let system = error.source.as_deref().map(io::Error::kind);
        let kind = match error.kind {
            Kind::Refused => io::ErrorKind::ConnectionRefused,
            Kind::NotFound => io::ErrorKind::NotFound,
            Kind::PermissionDenied | Kind::Rejected => io::ErrorKind::PermissionDenied,
            Kind::AddressInUse => io::ErrorKind::AddrInUse,
            Kind::TimedOut => io::ErrorKind::TimedOut,
            Kind::Unsupported => io::ErrorKind::Unsupported,
            Kind::Invalid => io::ErrorKind::InvalidInput,
            // How it was lost, or what else it is, the system says more exactly.
            Kind::Lost => system.unwrap_or(io::ErrorKind::ConnectionAborted),
            Kind::Other => system.unwrap_or(io::ErrorKind::Other),
        };
        io::Error::new(kind, error)
    }
}

/// Sockets and timers are tokio's: without its runtime they panic.
pub(crate) fn in_runtime(action: Action, endpoint: &Endpoint) -> Result<(), TransportError> {
    match tokio::runtime::Handle::try_current() {
        Ok(_) => Ok(()),
        Err(_) => Err(TransportError::new(
            action,
            endpoint,
            TransportErrorKind::Unsupported,
            "there is no tokio runtime here",
            "call it inside one",
        )),
    }
}

/// The kind that an error of the operating system stands for.
pub(crate) fn kind_of(error: &io::Error) -> TransportErrorKind {
    use TransportErrorKind as Kind;
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Kind::Refused,
        io::ErrorKind::NotFound => Kind::NotFound,
        io::ErrorKind::PermissionDenied => Kind::PermissionDenied,
        io::ErrorKind::AddrInUse | io::ErrorKind::ResourceBusy => Kind::AddressInUse,
        io::ErrorKind::TimedOut => Kind::TimedOut,
        io::ErrorKind::Unsupported => Kind::Unsupported,
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => Kind::Lost,
        io::ErrorKind::InvalidInput
        | io::ErrorKind::InvalidFilename
        | io::ErrorKind::InvalidData
        | io::ErrorKind::AddrNotAvailable
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::IsADirectory => Kind::Invalid,
        _ => Kind::Other,
    }
}

/// An error's text in lower case and without the number, which says nothing to a user.
pub(crate) fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => "unknown error".to_owned(),
    }
}

/// Errors of accept that pass: a connection that was lost while it waited, or a lack of resources.
pub(crate) fn transient(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let passing = [
        Errno::CONNABORTED,
        Errno::CONNRESET,
        Errno::INTR,
        Errno::PROTO,
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOBUFS,
        Errno::NOMEM,
        Errno::NETDOWN,
        Errno::NETUNREACH,
        Errno::HOSTUNREACH,
    ];
    passing
        .iter()
        .any(|e| error.raw_os_error() == Some(e.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the system said, the kind that a program sees, whether it may pass, and the kind of the `io::Error` that it becomes.
    #[test]
    fn every_error_of_the_system_keeps_its_kind() {
        use TransportErrorKind as Kind;
        use io::ErrorKind as Io;
        let at: Endpoint = "tcp:127.0.0.1:1".parse().unwrap();
        for (system, kind, transient, becomes) in [
            (
                Io::ConnectionRefused,
                Kind::Refused,
                true,
                Io::ConnectionRefused,
            ),
            (Io::NotFound, Kind::NotFound, true, Io::NotFound),
            (
                Io::PermissionDenied,
                Kind::PermissionDenied,
                true,
                Io::PermissionDenied,
            ),
            (Io::AddrInUse, Kind::AddressInUse, true, Io::AddrInUse),
            (Io::ResourceBusy, Kind::AddressInUse, true, Io::AddrInUse),
            (Io::TimedOut, Kind::TimedOut, true, Io::TimedOut),
            (Io::Unsupported, Kind::Unsupported, false, Io::Unsupported),
            (Io::ConnectionReset, Kind::Lost, true, Io::ConnectionReset),
            (
                Io::ConnectionAborted,
                Kind::Lost,
                true,
                Io::ConnectionAborted,
            ),
            (Io::BrokenPipe, Kind::Lost, true, Io::BrokenPipe),
            (Io::UnexpectedEof, Kind::Lost, true, Io::UnexpectedEof),
            (Io::InvalidInput, Kind::Invalid, false, Io::InvalidInput),
            (Io::InvalidData, Kind::Invalid, false, Io::InvalidInput),
            (Io::HostUnreachable, Kind::Other, true, Io::HostUnreachable),
            (
                Io::NetworkUnreachable,
                Kind::Other,
                true,
                Io::NetworkUnreachable,
            ),
        ] {
            let error = TransportError::io(Action::Dial, &at, system.into(), "");
            assert_eq!(
                (error.kind(), error.is_transient()),
                (kind, transient),
                "{system:?}"
            );
            let source = error.source().and_then(|e| e.downcast_ref::<io::Error>());
            assert_eq!(source.map(io::Error::kind), Some(system));
            assert_eq!(io::Error::from(error).kind(), becomes, "{system:?}");
        }
        // Without the system, by its kind alone.
        let lost = TransportError::new(Action::Dial, &at, Kind::Lost, "", "");
        assert_eq!(io::Error::from(lost).kind(), Io::ConnectionAborted);
    }
}
