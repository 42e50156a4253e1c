//! Whom to tell when this process is about to be stopped (`^Z`, or the escape of a console).

use std::time::Duration;

use cepa::node::Node;
use cepa::session::{Pause, Session};
use tokio::time::timeout;

/// The sessions of a connection: that with its peer, and those with relays on the way.
#[derive(Clone, Debug)]
pub(crate) struct Pausable {
    session: Session,
    node: Option<Node>,
}

impl Pausable {
    pub(crate) fn of(session: &Session, node: Option<&Node>) -> Self {
        Self {
            session: session.clone(),
            node: node.map(Node::handle),
        }
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    /// Whether the session with the peer outlives its connection.
    pub(crate) fn is_durable(&self) -> bool {
        self.session.outlives_connections()
    }

    /// Tells all of them that this process will be silent, and waits a moment for their answers. What this gives keeps
    /// their sessions, for so long as they all grant, or as the peer keeps its own without a connection; zero where one does not
    /// know of that, or does not answer.
    pub(crate) async fn pause(&self) -> (Vec<Pause>, Duration) {
        let answers: Vec<_> = if let Some(node) = &self.node {
            let all = node.pause(SUSPENDED, ANSWER).await;
            all.into_iter().map(|(_, paused)| paused.ok()).collect()
        } else {
            let paused = timeout(ANSWER, self.session.pause(SUSPENDED)).await;
            vec![paused.ok().and_then(Result::ok)]
        };
        let granted =
            |paused: &Option<Pause>| paused.as_ref().map_or(Duration::ZERO, Pause::granted);
        let least = answers.iter().map(granted).min().unwrap_or_default();
        // A session that outlives its connection is kept for so long in any case.
        let parked = self.session.path_stats().map(|stats| stats.park);
        let kept = least.max(parked.unwrap_or_default());
        (answers.into_iter().flatten().collect(), kept)
    }
}

/// How long peers are asked to bear with a process that is suspended: the most that they grant by themselves.
const SUSPENDED: Duration = Duration::from_secs(60 * 60);

/// How long a person who suspends this program waits for their answers, if a peer gives none.
const ANSWER: Duration = Duration::from_secs(3);
