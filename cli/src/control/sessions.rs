//! A command that makes its sessions one after the other, as its control socket knows it.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use cepa::identity::PeerId;
use futures::FutureExt as _;
use tokio::time::Instant;

use super::Daemon;
use super::look::{Look, Seen, seen_at};
use crate::connection::Connected;

/// All sessions of a command that makes them one after the other: one that takes nothing more may go on beside the next.
#[derive(Clone, Default)]
pub(crate) struct Sessions(Arc<Mutex<Vec<Weak<Connected>>>>);

impl Sessions {
    pub(crate) fn add(&self, connection: &Arc<Connected>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|it| it.strong_count() > 0);
        all.push(Arc::downgrade(connection));
    }

    /// Those that stand, and those with relays on the way.
    fn seen(&self) -> Vec<Seen> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: Vec<_> = all.iter().filter_map(Weak::upgrade).collect();
        let mut seen = Vec::new();
        for connection in all {
            let session = &connection.session;
            if let Some(node) = connection.node() {
                seen.extend(seen_at(node));
            } else if session.closed().now_or_never().is_none() {
                let path = session.path().map(|path| path.label);
                seen.push(Seen {
                    peer: session.peer().id(),
                    path: path.unwrap_or_else(|| session.label().to_owned()),
                    relays: Vec::new(),
                    dialled: true,
                    session: session.clone(),
                });
            }
        }
        seen
    }
}

/// Such a command, as its control socket knows it.
pub(crate) struct OfSessions {
    command: &'static str,
    since: Instant,
    own: PeerId,
    listening: Vec<String>,
    sessions: Sessions,
}

impl OfSessions {
    pub(crate) fn new(
        command: &'static str,
        since: Instant,
        own: PeerId,
        listening: Vec<String>,
        sessions: &Sessions,
    ) -> Self {
        Self {
            command,
            since,
            own,
            listening,
            sessions: sessions.clone(),
        }
    }
}

impl Daemon for OfSessions {
    fn look(&self) -> Look {
        Look {
            command: self.command,
            since: self.since,
            own: self.own,
            listening: self.listening.clone(),
            services: Vec::new(),
            registered: Vec::new(),
            sessions: self.sessions.seen(),
            relay: None,
            carrier: None,
            fleet: None,
            shares: Vec::new(),
        }
    }
}
