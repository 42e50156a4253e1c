//! A session of another program of this machine, in which this one opens substreams: it is with that program, by a socket, and stands for the
//! one that the program has with its peer. `protocols/sharing.rs` makes such; here is what is otherwise in one.
//!
//! The peer that it tells of is the far one, as the lender has met it. What is bound to a session (`tls_exporter`, TLS inside a substream
//! that is bound to the session) is bound to this one, so that it fails at the far peer instead of meaning another session.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::tls::Peer;

use super::{OpenError, Session, SessionEnd, reserved};

/// A ping that was not answered is asked for again after so long.
const AGAIN: Duration = Duration::from_secs(1);

impl Session {
    /// The same session, as one that stands for the lender's with `peer`. None where somebody else has a handle on it.
    pub(crate) fn standing_for(self, peer: Peer) -> Option<Self> {
        let mut inner = Arc::into_inner(self.inner)?;
        (inner.peer, inner.borrowed) = (Arc::new(peer), true);
        Some(Self {
            inner: Arc::new(inner),
        })
    }

    /// Whether it runs over the session of another program of this machine
    /// ([`sharing`](crate::protocols::sharing)).
    #[must_use]
    pub fn is_borrowed(&self) -> bool {
        self.inner.borrowed
    }

    /// To the lender and to the peer behind it, one after the other.
    pub(super) async fn ping_through(&self) -> Result<Duration, SessionEnd> {
        let since = Instant::now();
        loop {
            match self.open(reserved::LENT_PING).await {
                Ok(_) => return Ok(since.elapsed()),
                Err(OpenError::Session(end)) => return Err(end),
                // The peer takes its time, as it may with any ping, or there is no room for the question.
                Err(_) => {}
            }
            tokio::select! {
                end = self.closed() => return Err(end),
                () = sleep(AGAIN) => {}
            }
        }
    }
}
