//! A session for a command that dials, and what goes wrong on the way, in the user's words.
//!
//! The library says what failed; only here it is known what the person typed. So this adds the
//! command that would work (unknown peer), the id that the other side has to allow (refused by it),
//! and the last words of a subprocess that died before it could answer.

use cepa::Side;
use cepa::identity::{Identity, Refusal};
use cepa::node::Node;
use cepa::session::{ConnectError, Session};
use cepa::tls::TlsError;
use cepa::transports::{self, Endpoint};

use crate::args::{Trust, Whither};
use crate::child::Watched;
use crate::exit::{self, Code, Failure};
use crate::stack::{self, carries_session};
use crate::{node, trust};

/// A session and, below it, the subprocess that it may run over.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) session: Session,
    child: Option<Watched>,
    /// Of a peer that was reached by its id.
    node: Option<Node>,
}

impl Link {
    /// Dials a place, as [`Trust`] allows it, or a peer, which its address vouches for.
    pub(crate) async fn to(
        whither: &Whither,
        trust: &Trust,
        identity: &Identity,
    ) -> Result<Self, Failure> {
        let address = match whither {
            Whither::Place(address) => return Self::dial(address, trust, identity).await,
            Whither::Peer(address) => address,
        };
        if let Some(expected) = trust.expect.filter(|expected| *expected != address.peer()) {
            return Err(Failure::new(
                Code::Usage,
                format!(
                    "{address} names another peer than --expect {expected}: leave --expect out"
                ),
            ));
        }
        let (session, node) = node::dial(address, identity).await?;
        Ok(Self {
            session,
            child: None,
            node: Some(node),
        })
    }

    /// Dials, as [`Trust`] allows it.
    pub(crate) async fn dial(
        address: &Endpoint,
        trust: &Trust,
        identity: &Identity,
    ) -> Result<Self, Failure> {
        let config = stack::of(identity, trust::of_dialler(trust)).tuned_to(address);
        carries_session(address)?;
        let mut stream = transports::dial(address).await?;
        let child = stream
            .take_child()
            .map(|child| Watched::start(child, "peer".to_owned()));
        match Session::over(stream, address.layers(), Side::Client, &config).await {
            Ok(session) => Ok(Self {
                session,
                child,
                node: None,
            }),
            Err(e) => Err(explained(e, address, identity, child).await),
        }
    }

    /// Why the session is no more, or `None` while it stands.
    ///
    /// A substream's error does not tell whether the session went with it; the session says so
    /// itself, at once or a moment later.
    pub(crate) async fn lost(&self) -> Option<Failure> {
        let end = tokio::time::timeout(LAST_WORDS, self.session.closed())
            .await
            .ok()?;
        Some(end.into())
    }

    /// Ends the session in order, once all that was written has left. A session that breaks before
    /// that has cut something off.
    pub(crate) async fn finish(&self) -> Result<(), Failure> {
        self.session.close().await;
        let end = self.session.closed().await;
        self.close().await;
        if end.is_clean() {
            Ok(())
        } else {
            Err(end.into())
        }
    }

    /// Ends the session in order, but soon. The peer may be gone or stuck, so this waits only so long.
    pub(crate) async fn close(&self) {
        let _ = tokio::time::timeout(GOODBYE, self.session.close()).await;
        if let Some(node) = &self.node {
            node.shutdown(std::time::Duration::ZERO).await;
        }
        if let Some(child) = &self.child {
            let _ = tokio::time::timeout(GOODBYE, child.ended()).await;
        }
    }
}

/// How long a peer may take to answer a goodbye; everything of value has been delivered by then.
const GOODBYE: std::time::Duration = std::time::Duration::from_secs(3);

/// How long to wait for what explains an error that has already happened: longer than a command's
/// standard error may be held open by what it left behind (one second).
const LAST_WORDS: std::time::Duration = std::time::Duration::from_secs(2);

async fn explained(
    e: ConnectError,
    address: &Endpoint,
    identity: &Identity,
    child: Option<Watched>,
) -> Failure {
    let child_may_tell = match exit::tls(&e) {
        Some(TlsError::Refused(Refusal::Unknown { presented })) => {
            let run = exit::command_with("--expect", &presented.to_string());
            return Failure::new(
                Code::UnknownPeer,
                format!(
                    "{address} is answered by peer {presented}, which nobody has vouched for; \
                     if that is the one you mean, run: {run}"
                ),
            );
        }
        Some(TlsError::RefusedByPeer { .. }) => {
            if let Some(child) = child {
                // It is just saying who has to do what.
                let _ = tokio::time::timeout(LAST_WORDS, child.ended()).await;
            }
            return Failure::from(e).with(format_args!("our peer id is {}", identity.peer_id()));
        }
        // The command did its part; that it ends now is because we leave.
        Some(TlsError::Refused(_) | TlsError::NotTls { .. }) => false,
        _ => true,
    };
    if let Some(child) = child.filter(|_| child_may_tell)
        && let Ok(end) = tokio::time::timeout(LAST_WORDS, child.ended()).await
    {
        // It was the command that failed; what TLS saw of that is of no help.
        return Failure::new(
            Code::Connect,
            format!("cannot connect by {address}: {end}; start it by hand to see more"),
        );
    }
    Failure::from(e)
}
