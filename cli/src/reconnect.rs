//! `--reconnect`: a session that is made again when it is lost.
//!
//! The first session is made as without the option: what is wrong with an address, or with who answers, is
//! told at once and ends the command. Once a session has stood, only what no other attempt would mend does:
//! one of the two ends does not want the other. A peer that has no room at the moment is waited for from the first. Everything else is waited for, with the pauses of
//! [`Backoff`], and told once; it is told again only when the reason is another.
//!
//! Nothing of the old session gets into the new one. What a command had in flight is lost, and it is the
//! command that says so.

use std::pin::pin;
use std::time::Duration;

use cepa::identity::{Identity, PeerId};
use cepa::network::NetworkChanges;
use cepa::session::Backoff;
use tokio::time::{Instant, timeout};

use crate::args::{DialTarget, Dialling, Trust};
use crate::connection::{Connected, How, OnLine};
use crate::exit::{Failure, say};
use crate::keep::{self, Keep};
use crate::log::{OURS, say_of_session};
use crate::say::Line;

/// How long room at the peer is waited for, and how long without a word.
const FULL: Duration = Duration::from_secs(30);
const UNSAID: Duration = Duration::from_secs(1);

/// Nothing if it takes too long; a line where somebody would notice.
async fn patiently<T>(again: impl Future<Output = T>, failure: &Failure) -> Option<T> {
    let mut again = pin!(again);
    if let Ok(made) = timeout(UNSAID, &mut again).await {
        return Some(made);
    }
    say(format_args!("{failure}; trying again"));
    timeout(FULL, again).await.ok()
}

/// Makes a session, and makes it again.
pub(crate) struct Reconnect<'a> {
    target: &'a DialTarget,
    trust: &'a Trust,
    identity: &'a Identity,
    on_line: Option<OnLine>,
    how: How,
    /// Nothing is lost while a session has no connection.
    whole: bool,
    /// Takes a line on a connection that is lost or back.
    notify: fn(PeerId, &str),
    backoff: Backoff,
    /// When the last session came to stand.
    since: Instant,
}

impl<'a> Reconnect<'a> {
    /// For sessions with this peer or place.
    pub(crate) fn new(
        target: &'a DialTarget,
        dialling: &'a Dialling,
        identity: &'a Identity,
        on_line: Option<OnLine>,
    ) -> Self {
        let backoff = match target {
            DialTarget::Place(address) => Backoff::for_endpoint(address),
            DialTarget::Peer(_)
            | DialTarget::Introduced(_)
            | DialTarget::Ticket(_)
            | DialTarget::Code(_) => Backoff::default(),
        };
        Self {
            target,
            trust: &dialling.trust,
            identity,
            on_line,
            how: How {
                local_hints: dialling.local_hints.allowed,
                keep: Keep::Not,
                shares: dialling.sharing.wanted(),
            },
            whole: true,
            notify: |peer, line| say_of_session(OURS, Line::from(line).with("peer", peer)),
            backoff: backoff.with_network(&NetworkChanges::system()),
            since: Instant::now(),
        }
    }

    /// Keeps a session whose connection is lost.
    pub(crate) fn keeping(mut self, keep: Keep) -> Self {
        self.how.keep = keep;
        self
    }

    /// What goes on at the peer while a session has no connection may be lost.
    pub(crate) fn going_on_without_us(mut self, yes: bool) -> Self {
        self.whole = !yes;
        self
    }

    /// Says otherwise than by a line on standard error that a connection is lost or back.
    pub(crate) fn notifying(mut self, notify: fn(PeerId, &str)) -> Self {
        self.notify = notify;
        self
    }

    /// The first session. A peer that has no room for it at the moment is asked again: for a while, since sessions of short commands
    /// are soon over; with `reconnect` until there is some.
    pub(crate) async fn first(&mut self, reconnect: bool) -> Result<Connected, Failure> {
        let (target, trust, identity) = (self.target, self.trust, self.identity);
        let (on_line, how) = (self.on_line.as_ref(), self.how);
        let first = Connected::to(target, trust, identity, on_line, how);
        let connection = match first.await {
            Err(failure) if failure.is_full() => {
                let again = self.backoff.again(
                    || Connected::again(target, trust, identity, on_line, how),
                    Failure::is_full,
                );
                if reconnect {
                    say(format_args!("{failure}; trying again"));
                    again.await?
                } else {
                    match patiently(again, &failure).await {
                        Some(connection) => connection?,
                        None => return Err(failure),
                    }
                }
            }
            connection => connection?,
        };
        keep::notify_paths(&connection.session, self.whole, self.notify);
        self.since = Instant::now();
        Ok(connection)
    }

    /// Another session in place of one that is lost for the reason `why`. What happens meanwhile is told, a
    /// line each. Cancel safe.
    pub(crate) async fn after(
        &mut self,
        lost: &Connected,
        why: Failure,
        notify: impl Fn(&str),
    ) -> Result<Connected, Failure> {
        let reported = why.while_reconnecting().message;
        if lost.is_lent() {
            // It is not the session that failed, and others go on in it.
            notify(&format!("{reported}; trying again"));
            self.backoff.reset_after(self.since.elapsed());
            self.backoff.wait().await;
            self.since = Instant::now();
            if let Some(same) = lost.going_on() {
                return Ok(same);
            }
        }
        // Where a connection that is lost is only a pause, this is something else.
        let how = if lost.session.outlives_connections() {
            " with a new session"
        } else {
            ""
        };
        notify(&format!("{reported}; reconnecting{how}"));
        lost.close().await;
        self.another(reported, notify).await
    }

    /// Another session beside one that takes nothing more, and in which something goes on: that is left as it is. Otherwise
    /// as [`after`](Self::after).
    pub(crate) async fn beside(&mut self, notify: impl Fn(&str)) -> Result<Connected, Failure> {
        let reported = "the session takes no more connections";
        notify(&format!("{reported}; open ones go on; reconnecting"));
        self.another(reported.to_owned(), notify).await
    }

    async fn another(
        &mut self,
        mut reported: String,
        notify: impl Fn(&str),
    ) -> Result<Connected, Failure> {
        self.backoff.reset_after(self.since.elapsed());
        let (target, trust, identity) = (self.target, self.trust, self.identity);
        let (on_line, how) = (self.on_line.as_ref(), self.how);
        let again = self.backoff.again(
            || Connected::again(target, trust, identity, on_line, how),
            |failure: &Failure| {
                if failure.is_transient() && failure.message != reported {
                    reported.clone_from(&failure.message);
                    notify(&format!("{reported}; trying again"));
                }
                failure.is_transient()
            },
        );
        let connection = again.await?;
        self.since = Instant::now();
        keep::notify_paths(&connection.session, self.whole, self.notify);
        let peer = connection.session.peer().id();
        notify(&format!("reconnected to {}…", peer.short()));
        Ok(connection)
    }
}
