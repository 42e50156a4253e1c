//! Looks after a session that outlives its connections: notices that one is lost, and dials the next.
//!
//! ```text
//!   a path --- lost ---> dial at once --- fails ---> pause, longer each time ---+
//!     ^                     |    ^------------- time is up, or a nudge ---------+
//!     |                     v
//!     +--- attached (by us, or the peer came by itself)        time to keep it is up ---> over
//! ```
//!
//! An end that can't dial (it was dialled, or was given a stream) waits for the peer. When the time to keep the session is up the
//! layer below ends it by itself, at either end.
//!
//! A refusal ends it sooner, but not at once: another process may run with the peer's key, and answer in its place. It has to be
//! the answer of everybody again when asked once more; where others gave none, it has to stay the only one for a while. Only
//! that the session ended in order is taken at its word.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::resume::{PathLostWhy, Refusal, SessionLost};
use crate::stack::{Lasting, NotReached};

use super::backoff::Backoff;

/// How long it may take from the end of a path that gives way to the beginning of the next, before the session counts as paused.
const MOMENT: Duration = Duration::from_secs(1);

/// How long a refusal has to be the only answer: by all that may lead to the peer, and by some of them.
const REFUSED_BY_ALL: Duration = Duration::from_secs(1);
const REFUSED_BY_SOME: Duration = Duration::from_secs(60);

/// The longest pause while a refusal is the only answer.
const AGAIN: Duration = Duration::from_secs(5);

/// Runs as long as the session does.
pub(super) async fn supervise(lasting: Arc<Lasting>) {
    let mut backoff = Backoff::default();
    let mut received = None;
    while let Some(lost) = lasting.handle.lost().await {
        // Another one is about to be attached: by the peer, or by this end, whose peer has answered and let go of the old one.
        let is_near = matches!(lost.why, PathLostWhy::Claimed) || lasting.hello.try_lock().is_err();
        if is_near && let Ok(found) = timeout(MOMENT, lasting.handle.found()).await {
            if found {
                continue;
            }
            return;
        }
        lasting.paused(&lost);
        // A peer that lets this end in and drops it at once is not dialled as fast as it can do that.
        let came = lasting.handle.received();
        let at_once = received.replace(came) != Some(came);
        if at_once {
            backoff = Backoff::default();
        }
        dial_again(&lasting, &mut backoff, at_once).await;
    }
}

/// Dials until there is a path, by this end or the peer, or the session is over.
async fn dial_again(lasting: &Arc<Lasting>, backoff: &mut Backoff, mut at_once: bool) {
    let mut refused_since: Option<Instant> = None;
    loop {
        if lasting.handle.pathless_since().is_none() || lasting.handle.is_over() {
            return;
        }
        let redial = lasting.redial();
        let pause = async {
            match &redial {
                Some(_) if at_once => {}
                Some(_) if refused_since.is_some() => {
                    sleep(backoff.pause().clamp(REFUSED_BY_ALL, AGAIN)).await;
                }
                Some(_) => sleep(backoff.pause()).await,
                // Only the peer can come back, until it is said how to reach it.
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            () = pause => {}
            () = lasting.nudge.notified() => {
                *backoff = Backoff::default();
                at_once = true;
                continue;
            }
            _ = lasting.handle.found() => return,
        }
        at_once = false;
        let Some(redial) = redial else {
            continue;
        };
        let attempt = redial(Arc::clone(lasting));
        let found_and_settled = async {
            if lasting.handle.found().await {
                sleep(MOMENT).await;
            }
        };
        let failed = tokio::select! {
            done = attempt => done.err(),
            // The network has changed: what is on its way may never arrive.
            () = lasting.nudge.notified() => {
                *backoff = Backoff::default();
                at_once = true;
                continue;
            }
            // The peer came by itself, and what was on its way to it had its time to say so.
            () = found_and_settled => return,
        };
        match failed {
            Some(NotReached::Refused { why, by_all }) => {
                let now = Instant::now();
                let since = *refused_since.get_or_insert(now);
                let enough = if by_all {
                    REFUSED_BY_ALL
                } else {
                    REFUSED_BY_SOME
                };
                if why == Refusal::Over || now - since >= enough {
                    lasting.handle.give_up(SessionLost::Refused(why));
                }
            }
            Some(NotReached::NotNow) => refused_since = None,
            None => {}
        }
    }
}
