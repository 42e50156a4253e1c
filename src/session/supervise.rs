//! Looks after a session that outlives its connections: notices that one is lost, and dials the next.
//!
//! ```text
//!   a path --- lost ---> dial at once --- fails ---> pause, longer each time ---+
//!     ^                     |    ^------------- time is up, or a nudge ---------+
//!     |                     v
//!     +--- attached (by us, or the peer came by itself)        time to keep it is up ---> over
//! ```
//!
//! A change of the network is a nudge that keeps the time: no more than one try a second comes of it, and an attempt that is on its way
//! has some seconds left. While there is a path it is asked whether it still carries, where this machine would not send that way any more.
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

use cepa_transports::Remote;
use tokio::time::{Instant, sleep, timeout};

use crate::network::{NetworkChanges, leads};
use crate::resume::{PathLost, PathLostWhy, Refusal, SessionLost};
use crate::stack::{Lasting, NotReached};

use super::backoff::Backoff;

/// How long it may take from the end of a path that gives way to the beginning of the next, before the session counts as paused.
const MOMENT: Duration = Duration::from_secs(1);

/// How long a refusal has to be the only answer: by all that may lead to the peer, and by some of them.
const REFUSED_BY_ALL: Duration = Duration::from_secs(1);
const REFUSED_BY_SOME: Duration = Duration::from_secs(60);

/// The longest pause while a refusal is the only answer.
const AGAIN: Duration = Duration::from_secs(5);

/// An attempt that began before the network changed may still arrive, so long; longer each time that it was not enough.
const OVERTAKEN: Duration = Duration::from_secs(3);

/// Since when a refusal is the only answer: of all that may lead to the peer, and of any of them.
#[derive(Default)]
struct Refused {
    by_all: Option<Instant>,
    at_all: Option<Instant>,
}

impl Refused {
    /// One more; whether it has been the only answer for long enough.
    fn is_final(&mut self, by_all: bool) -> bool {
        let now = Instant::now();
        let at_all = now - *self.at_all.get_or_insert(now) >= REFUSED_BY_SOME;
        let by_all = by_all && now - *self.by_all.get_or_insert(now) >= REFUSED_BY_ALL;
        at_all || by_all
    }
}

/// Runs as long as the session does.
pub(super) async fn supervise(lasting: Arc<Lasting>, network: &NetworkChanges) {
    let mut backoff = Backoff::default().with_network(network);
    let mut received = None;
    while let Some(lost) = lost(&lasting, &mut backoff).await {
        // Another one is about to be attached: by the peer, or by this end, whose peer has answered and let go of the old one.
        let is_near = matches!(lost.why, PathLostWhy::Claimed) || lasting.hello.try_lock().is_err();
        if is_near && let Ok(found) = timeout(MOMENT, lasting.handle.found(&lost)).await {
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
            backoff.begin_anew();
        }
        dial_again(&lasting, &lost, &mut backoff, at_once).await;
    }
}

/// Waits until the path is lost, and doubts it where the network has changed below it.
async fn lost(lasting: &Lasting, backoff: &mut Backoff) -> Option<PathLost> {
    loop {
        tokio::select! {
            biased;
            lost = lasting.handle.lost() => return lost,
            () = backoff.network_changed() => if let Some(path) = lasting.path()
                && let (Some(local), Remote::Tcp(remote) | Remote::Quic(remote)) = (path.local, path.remote)
                && !leads(local, remote)
            {
                lasting.handle.probe();
            },
        }
    }
}

/// Dials until there is another path than the lost one, by this end or the peer, or the session is over. A path that came and is lost
/// again is one too: that is to be told.
async fn dial_again(
    lasting: &Arc<Lasting>,
    lost: &PathLost,
    backoff: &mut Backoff,
    mut at_once: bool,
) {
    let mut refused = Refused::default();
    let mut overtaken = OVERTAKEN;
    loop {
        if lasting.handle.was_found(lost) || lasting.handle.is_over() {
            return;
        }
        let redial = lasting.redial();
        backoff.suit(lasting.redials_at().as_ref());
        let pause = async {
            match &redial {
                Some(_) if at_once => {}
                Some(_) if refused.at_all.is_some() => {
                    sleep(backoff.pause().clamp(REFUSED_BY_ALL, AGAIN)).await;
                }
                Some(_) => backoff.wait().await,
                // Only the peer can come back, until it is said how to reach it.
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            () = pause => {}
            () = lasting.nudge.notified() => {
                backoff.begin_anew();
                (at_once, refused) = (true, Refused::default());
                continue;
            }
            _ = lasting.handle.found(lost) => return,
        }
        if std::mem::take(&mut at_once) {
            backoff.tries_now();
        }
        let Some(redial) = redial else {
            continue;
        };
        let attempt = redial(Arc::clone(lasting));
        let found_and_settled = async {
            if lasting.handle.found(lost).await {
                sleep(MOMENT).await;
            }
        };
        let failed = tokio::select! {
            done = attempt => done.err(),
            () = lasting.nudge.notified() => {
                backoff.begin_anew();
                (at_once, refused) = (true, Refused::default());
                continue;
            }
            // The network has changed: what is on its way may never arrive.
            () = backoff.overtaken(overtaken) => {
                overtaken = overtaken.saturating_mul(2);
                (at_once, refused) = (true, Refused::default());
                continue;
            }
            // The peer came by itself, and what was on its way to it had its time to say so.
            () = found_and_settled => return,
        };
        match failed {
            Some(NotReached::Refused { why, by_all })
                if refused.is_final(by_all) || why == Refusal::Over =>
            {
                lasting.handle.give_up(SessionLost::Refused(why));
            }
            Some(NotReached::NotNow) => refused = Refused::default(),
            Some(NotReached::Refused { .. }) | None => {}
        }
    }
}
