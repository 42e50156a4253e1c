//! Whether there is room for one more session, asked when the peer has proven who it is and before anything is spent on it.

use std::fmt;
use std::time::Instant;

use futures::future::BoxFuture;

use crate::mux::{GoAwayCode, ReceivePool};
use crate::tls::Peer;

/// Decides on room for sessions: [`StackConfig::admission`](super::StackConfig::admission). Whether the peer is trusted was
/// decided before, in the handshake.
pub trait Admission: fmt::Debug + Send + Sync {
    /// Called once for each session, with the peer of its innermost layer. Must not block.
    ///
    /// # Errors
    /// Why there is no room; the peer gets the code.
    fn admit(&self, peer: &Peer) -> Result<Admitted, NotAdmitted>;
}

/// Room for a session.
#[derive(Default)]
#[non_exhaustive]
pub struct Admitted {
    /// Dropped when the session is over and its memory given back.
    pub hold: Option<Box<dyn Send + Sync>>,
    /// Where its receive memory comes from, unless the mux's own configuration has a pool.
    pub receive_pool: Option<ReceivePool>,
    /// Completes when the room is wanted for another session: this one is ended then, with a code that its peer reads, or without
    /// a word.
    pub until: Option<BoxFuture<'static, Option<GoAwayCode>>>,
    /// Told, where the session outlives its connections, how to ask since when it has none.
    pub(crate) when_kept: Option<Box<dyn FnOnce(ParkedSince) + Send>>,
}

/// Since when a session that is kept has had no connection; none while it has one.
pub(crate) type ParkedSince = Box<dyn Fn() -> Option<Instant> + Send + Sync>;

impl Admitted {
    /// Room that is held by keeping something.
    #[must_use]
    pub fn holding(share: impl Send + Sync + 'static) -> Self {
        Self {
            hold: Some(Box::new(share)),
            receive_pool: None,
            until: None,
            when_kept: None,
        }
    }

    /// The same, with receive memory from a pool.
    #[must_use]
    pub fn with_receive_pool(mut self, pool: ReceivePool) -> Self {
        self.receive_pool = Some(pool);
        self
    }
}

impl Admitted {
    /// The same, until the room is wanted for another session: see [`until`](Self::until).
    #[must_use]
    pub fn until(
        mut self,
        wanted: impl Future<Output = Option<GoAwayCode>> + Send + 'static,
    ) -> Self {
        self.until = Some(Box::pin(wanted));
        self
    }

    /// The same, telling how to ask whether the session is kept without a connection.
    pub(crate) fn when_kept(mut self, notify: impl FnOnce(ParkedSince) + Send + 'static) -> Self {
        self.when_kept = Some(Box::new(notify));
        self
    }
}

impl fmt::Debug for Admitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admitted").finish_non_exhaustive()
    }
}

/// There is no room for a session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct NotAdmitted {
    /// What the peer reads in the go-away that it gets.
    pub code: GoAwayCode,
    /// One line that names the limit, in the words of the [`Admission`]. For programs there is the code.
    pub reason: String,
}
