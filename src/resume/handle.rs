//! What the rest of a session does with its durable stream: knows of its paths, and gives it new ones.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cepa_transports::Rate;
use tokio::sync::oneshot;

use super::error::{AttachError, PathLost, Refusal, SessionLost};
use super::hello::At;
use super::shared::{Letter, Shared, Status, now};

/// A handle on a [`Durable`](super::Durable). What it asks is answered by whoever polls the stream; all of it is cancel safe.
pub(crate) struct Handle<P> {
    shared: Arc<Shared<P>>,
}

impl<P> Clone for Handle<P> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

/// Counters and gauges of a durable stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stats {
    /// Paths so far, the first one included.
    pub(crate) paths: u64,
    /// Bytes that were sent again on a new path.
    pub(crate) replayed: u64,
    /// Bytes that the peer sent again and that were known.
    pub(crate) doubled: u64,
    /// Acknowledgements that came.
    pub(crate) acks: u64,
    /// Bytes that are kept for sending again now.
    pub(crate) held: u64,
    /// Bytes received so far.
    pub(crate) received: u64,
    /// Time without a path, all together.
    pub(crate) pathless: Duration,
    /// For how long the peer said that it keeps the session without a path; none where it did not say so.
    pub(crate) peer_park: Option<Duration>,
    /// For how long the session is kept without a path: the shorter time of the two ends.
    pub(crate) park: Duration,
    /// The shortest round trip of the path, where it is known.
    pub(crate) round_trip: Option<Duration>,
}

impl<P> Handle<P> {
    pub(super) fn new(shared: Arc<Shared<P>>) -> Self {
        Self { shared }
    }

    /// From now on the stream outlives its path. Before, the failure or the end of its path is its own, as if it were not there.
    pub(crate) fn endure(&self) {
        self.shared.post(Letter::Endure);
    }

    /// Bytes received so far, for information: what to tell the peer is in a proposal or a claim.
    pub(crate) fn received(&self) -> u64 {
        self.shared.received.load(Ordering::Relaxed)
    }

    /// What to tell the peer on a connection that this end has dialled. Keep it until the peer has answered: as long as it
    /// lives nothing beyond what it tells is acknowledged. An error when the session is over.
    pub(crate) async fn propose(&self) -> Result<Proposal<P>, SessionLost> {
        let (to, answer) = oneshot::channel();
        let number = self.shared.number();
        // From here on, so that it is withdrawn where nobody waits for it any more.
        let mut proposal = Proposal {
            shared: Arc::clone(&self.shared),
            number,
            at: At {
                generation: 0,
                received: 0,
            },
            done: false,
        };
        self.shared.post(Letter::Propose(number, to));
        proposal.at = answer.await.map_err(|_| {
            let over = self.shared.status().over;
            over.and_then(Result::err)
                .unwrap_or(SessionLost::DriverGone)
        })?;
        Ok(proposal)
    }

    /// The peer has proven that it may take the session up on a connection that it has dialled, with what it told there. The
    /// path that is there is dropped. An error is the answer to give instead.
    pub(crate) async fn claim(&self, theirs: At) -> Result<Claim<P>, Refusal> {
        let (to, answer) = oneshot::channel();
        self.shared.post(Letter::Claim(theirs, to));
        let ours = answer.await.unwrap_or_else(|_| {
            // Nobody is left to ask.
            Err(match self.how_over() {
                _ if self.is_complete() => Refusal::Over,
                Some(Err(SessionLost::NoRoom)) => Refusal::NoRoom,
                _ => Refusal::Unknown,
            })
        })?;
        Ok(Claim {
            shared: Arc::clone(&self.shared),
            theirs,
            ours,
        })
    }

    /// Waits until there is no path, and says why; none when the session is over.
    pub(crate) async fn lost(&self) -> Option<PathLost> {
        self.wait(|status| match (&status.over, &status.lost) {
            (Some(_), _) => Some(None),
            (None, Some(lost)) => Some(Some(lost.clone())),
            (None, None) => None,
        })
        .await
    }

    /// Waits until there is another path than the one that was lost, or there was one since; false when the session is over.
    pub(crate) async fn found(&self, lost: &PathLost) -> bool {
        self.wait(|status| match status.over {
            Some(_) => Some(false),
            None => (status.counters.paths > lost.number).then_some(true),
        })
        .await
    }

    /// The same, asked now.
    pub(crate) fn was_found(&self, lost: &PathLost) -> bool {
        self.shared.status().counters.paths > lost.number
    }

    /// Waits until the session is over: in order, or why not.
    pub(crate) async fn over(&self) -> Result<(), SessionLost> {
        self.wait(|status| status.over.clone()).await
    }

    async fn wait<T>(&self, until: impl Fn(&Status) -> Option<T>) -> T {
        loop {
            let mut changed = std::pin::pin!(self.shared.changed.notified());
            changed.as_mut().enable();
            if let Some(found) = until(&self.shared.status()) {
                return found;
            }
            changed.await;
        }
    }

    /// How it ended, once it is over.
    pub(crate) fn how_over(&self) -> Option<Result<(), SessionLost>> {
        self.shared.status().over
    }

    pub(crate) fn is_over(&self) -> bool {
        self.how_over().is_some()
    }

    /// Whether it is over, and all that this end said has arrived.
    pub(crate) fn is_heard(&self) -> bool {
        self.shared.status().heard
    }

    /// The same, and all that the peer said is here as well.
    pub(crate) fn is_complete(&self) -> bool {
        self.shared.status().complete
    }

    /// Ends the session; the peer is told where there is a path.
    pub(crate) fn give_up(&self, why: SessionLost) {
        self.shared.post(Letter::GiveUp(why));
    }

    /// How long this end keeps the session without a path; the peer is told. Zero where it can't be kept.
    pub(crate) fn set_park(&self, park: Duration) {
        self.shared.post(Letter::SetPark(park));
    }

    /// There is reason to believe that the path carries nothing any more: the peer is asked now, and it is lost soon if nothing comes.
    pub(crate) fn probe(&self) {
        self.shared.post(Letter::Probe);
    }

    pub(crate) fn stats(&self) -> Stats {
        let status = self.shared.status();
        let counters = status.counters;
        let lasting = status.pathless_since.map(|since| {
            let now = now();
            now.saturating_duration_since(since)
        });
        Stats {
            paths: counters.paths,
            replayed: counters.replayed,
            doubled: counters.doubled,
            acks: counters.acks,
            held: self.shared.held.load(Ordering::Relaxed),
            received: self.received(),
            pathless: counters.pathless + lasting.unwrap_or_default(),
            peer_park: status.peer_park,
            park: status.park,
            round_trip: status.round_trip,
        }
    }

    /// Since when there is no path.
    pub(crate) fn pathless_since(&self) -> Option<Instant> {
        self.shared.status().pathless_since
    }
}

/// What this end tells on a connection that it has dialled.
pub(crate) struct Proposal<P> {
    shared: Arc<Shared<P>>,
    number: u64,
    at: At,
    done: bool,
}

impl<P> Proposal<P> {
    /// What to tell.
    pub(crate) fn at(&self) -> At {
        self.at
    }

    /// The peer has answered `theirs`, proven: the session goes on here. The line's rate where it is known. Gives the number of
    /// the path.
    pub(crate) async fn attach(
        mut self,
        path: P,
        theirs: At,
        line_rate: Option<Rate>,
    ) -> Result<u64, AttachError> {
        self.done = true;
        let (done, answer) = oneshot::channel();
        self.shared.post(Letter::AttachProposed {
            path,
            line_rate,
            proposal: self.number,
            theirs,
            done,
        });
        answer.await.unwrap_or(Err(AttachError::Over))
    }
}

impl<P> Drop for Proposal<P> {
    fn drop(&mut self) {
        if !self.done {
            self.shared.post(Letter::Withdraw(self.number));
        }
    }
}

/// A connection that the peer has dialled is to be the path.
pub(crate) struct Claim<P> {
    shared: Arc<Shared<P>>,
    theirs: At,
    ours: At,
}

impl<P> Claim<P> {
    /// What to answer.
    pub(crate) fn at(&self) -> At {
        self.ours
    }

    /// It was answered (or the answer is about to leave): the session goes on here. The line's rate where it is known.
    pub(crate) async fn attach(self, path: P, line_rate: Option<Rate>) -> Result<u64, AttachError> {
        let (done, answer) = oneshot::channel();
        self.shared.post(Letter::AttachClaimed {
            path,
            line_rate,
            theirs: self.theirs,
            ours: self.ours,
            done,
        });
        answer.await.unwrap_or(Err(AttachError::Over))
    }
}
