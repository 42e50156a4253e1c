//! Protocols: what a node does for its peers besides plain services.
//!
//! A protocol has service names of its own, which begin with `cepa.` and which no service can have, and serves the
//! substreams that peers open for them. The node knows none of them: whoever wants one adds it with
//! [`Node::add_protocol`](super::Node::add_protocol), and leaves out what is not wanted. Who may open what is decided in one place for all
//! (`access.rs`), by what the protocol says of itself.

use std::fmt;
use std::io;
use std::sync::Arc;

use cepa_transports::Stream;
use futures::future::BoxFuture;

use crate::identity::PeerId;
use crate::session::Session;

use super::access::Admission;
use super::addr::Hint;
use super::call::Call;

/// A protocol that peers can speak with a node.
///
/// ```
/// use std::sync::Arc;
/// use cepa::node::{Access, Admission, Call, Protocol};
/// use futures::future::BoxFuture;
///
/// struct Time;
///
/// impl Protocol for Time {
///     fn names(&self) -> &[&'static str] {
///         &["cepa.example.time"]
///     }
///
///     fn admission(&self, _name: &str) -> Admission {
///         Admission::Access(Access::Anyone)
///     }
///
///     fn serve(self: Arc<Self>, call: Call) -> BoxFuture<'static, ()> {
///         Box::pin(async move {
///             let _ = call.refuse("the clock is broken").await;
///         })
///     }
/// }
/// ```
pub trait Protocol: Send + Sync + 'static {
    /// The names that it answers for; asked once, when it is added. One that ends in a dot stands for all that begin with it.
    fn names(&self) -> &[&'static str];

    /// Who may open one of its names. Asked for each substream, in the task that will serve it: a panic resets that substream
    /// and nothing else.
    fn admission(&self, name: &str) -> Admission;

    /// Serves one substream of a peer that may open it, to its end, in a task of its own. A panic in it resets that
    /// substream and nothing else.
    fn serve(self: Arc<Self>, call: Call) -> BoxFuture<'static, ()>;

    /// What a peer reads that may not open it; one line.
    fn refusal(&self) -> &'static str {
        NOT_OPEN
    }

    /// Whether a session is of use as long as one of its substreams is served, and so does not give way to a newcomer when there
    /// is no room for sessions. Default yes. A protocol that strangers may open, and that asks for a proof of its own, says
    /// no, and calls [`CallContext::keep_session`](super::CallContext::keep_session) once it has seen that.
    fn keeps_session(&self) -> bool {
        true
    }

    /// Whether [`Node::shutdown`](super::Node::shutdown) waits for substreams that it serves. What only carries something for
    /// others need not keep a node from shutting down. Default yes.
    fn delays_shutdown(&self) -> bool {
        true
    }
}

/// A service that a peer may not open and one that does not exist are the same to it.
pub(crate) const NOT_OPEN: &str = "no service of this name is open to you";

/// Whether `name` is one that `pattern` stands for.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    if pattern.ends_with('.') {
        name.len() > pattern.len() && name.starts_with(pattern)
    } else {
        name == pattern
    }
}

/// The name is not one that a protocol can have. The text is one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// Names of protocols begin with `cepa.`, so that they are never taken for services.
    #[error("{name:?} cannot be the name of a protocol: it must begin with \"cepa.\"")]
    Name {
        /// Which.
        name: &'static str,
    },
    /// Another protocol has it.
    #[error("the name {name:?} belongs to another protocol of this node")]
    Taken {
        /// Which.
        name: &'static str,
    },
}

/// A way to a peer through another peer with whom there is a session: what hints of the form `relay:…` need.
pub trait Route: Send + Sync + 'static {
    /// A stream to `target` through the peer of `session`. Nothing is proven about who is at its end.
    fn connect<'a>(
        &'a self,
        session: &'a Session,
        target: PeerId,
    ) -> BoxFuture<'a, Result<Stream, RouteError>>;

    /// What else leads to `target` where `relay` is said to, as far as is known. Default nothing.
    fn beside(&self, _relay: PeerId, _target: PeerId) -> Beside {
        Beside::default()
    }
}

/// Peers that lead where another one leads, each with where it is reached: hints of somebody else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beside {
    /// Is tried before it.
    pub first: Option<(PeerId, Vec<Hint>)>,
    /// Are tried in this order when it fails, or does not answer for a while.
    pub others: Vec<(PeerId, Vec<Hint>)>,
}

impl Beside {
    /// Without those who are of no use, and without hints that open more than a network connection.
    pub(super) fn retain(&mut self, is_of_use: impl Fn(&PeerId) -> bool) {
        let keep = |(id, hints): &mut (PeerId, Vec<Hint>)| {
            hints.retain(Hint::is_network);
            is_of_use(id) && !hints.is_empty()
        };
        if self.first.as_mut().is_some_and(|first| !keep(first)) {
            self.first = None;
        }
        self.others.retain_mut(keep);
    }
}

/// Why a route did not lead to the peer, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RouteErrorKind {
    /// The one in between, or the peer, does not let this node in.
    Refused,
    /// The one in between has no room for another one now.
    Full,
    /// The peer is not there, or does not answer.
    Unreachable,
    /// The session with the one in between is lost.
    Lost,
    /// The one in between does not answer.
    TimedOut,
    /// The one in between serves those who dial it, and had dialled this session itself.
    DialInstead,
    /// What came makes no sense, or what was asked for did not.
    Protocol,
}

impl RouteErrorKind {
    /// Whether it may work later, with nothing changed anywhere.
    #[must_use]
    pub fn is_transient(self) -> bool {
        match self {
            Self::Full | Self::Unreachable | Self::Lost | Self::TimedOut => true,
            Self::Refused | Self::DialInstead | Self::Protocol => false,
        }
    }
}

/// Why a route did not lead to the peer.
#[derive(Clone, Debug)]
pub struct RouteError {
    kind: RouteErrorKind,
    source: Arc<dyn std::error::Error + Send + Sync>,
}

impl RouteError {
    /// An error of a route, whose text is that of `source`.
    pub fn new(
        kind: RouteErrorKind,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self {
            kind,
            source: Arc::new(source),
        }
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> RouteErrorKind {
        self.kind
    }

    /// The error of the route itself, where its type is known.
    #[must_use]
    pub fn downcast_ref<E: std::error::Error + 'static>(&self) -> Option<&E> {
        self.source.downcast_ref()
    }
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

impl std::error::Error for RouteError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.source)
    }
}

impl From<RouteError> for io::Error {
    fn from(error: RouteError) -> Self {
        let kind = match error.kind {
            RouteErrorKind::Refused => io::ErrorKind::PermissionDenied,
            RouteErrorKind::Full => io::ErrorKind::QuotaExceeded,
            RouteErrorKind::Unreachable => io::ErrorKind::HostUnreachable,
            RouteErrorKind::Lost => io::ErrorKind::ConnectionAborted,
            RouteErrorKind::TimedOut => io::ErrorKind::TimedOut,
            RouteErrorKind::DialInstead => io::ErrorKind::ConnectionRefused,
            RouteErrorKind::Protocol => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dot_at_the_end_stands_for_whatever_follows() {
        assert!(matches("cepa.a", "cepa.a"));
        assert!(!matches("cepa.a", "cepa.ab"));
        assert!(matches("cepa.a.", "cepa.a.b"));
        assert!(!matches("cepa.a.", "cepa.a."));
        assert!(!matches("cepa.a.", "cepa.a"));
    }
}
