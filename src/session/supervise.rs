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
//! layer below ends it by itself, at either end. A refusal by the peer that no later attempt would change ends it at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::mux::ReceivePool;
use crate::resume::{PathLostWhy, SessionLost};
use crate::stack::{Lasting, NotReached};

use super::backoff::Backoff;

/// How long the peer may take from the claim of a new path to its beginning, before the session counts as paused.
const MOMENT: Duration = Duration::from_secs(1);

/// Runs as long as the session does.
pub(super) async fn supervise(lasting: Arc<Lasting>, pool: Option<ReceivePool>) {
    let mut backoff = Backoff::default();
    let mut since = Instant::now();
    while let Some(lost) = lasting.handle.lost().await {
        if matches!(lost.why, PathLostWhy::Claimed)
            && let Ok(found) = timeout(MOMENT, lasting.handle.found()).await
        {
            if found {
                continue;
            }
            return;
        }
        backoff.reset_after(since.elapsed());
        lasting.paused(&lost);
        // What is kept for a peer that is away counts as what it makes this end hold.
        let held = usize::try_from(lasting.stats().held).unwrap_or(usize::MAX);
        let held = pool.as_ref().map(|pool| pool.hold_anyway(held));
        let over = tokio::select! {
            found = lasting.handle.found() => !found,
            end = dial_again(&lasting, &mut backoff) => match end {},
        };
        drop(held);
        if over {
            return;
        }
        since = Instant::now();
    }
}

/// Dials until there is a path, which whoever calls this waits for.
async fn dial_again(lasting: &Arc<Lasting>, backoff: &mut Backoff) -> std::convert::Infallible {
    let mut first = true;
    loop {
        if !std::mem::take(&mut first) {
            tokio::select! {
                () = sleep(backoff.pause()) => {}
                () = lasting.nudge.notified() => *backoff = Backoff::default(),
            }
        }
        let Some(redial) = lasting.redial() else {
            // Only the peer can come back, until it is said how to reach it.
            lasting.nudge.notified().await;
            first = true;
            continue;
        };
        let attempt = async {
            let _turn = lasting.turn.lock().await;
            redial(Arc::clone(lasting)).await
        };
        let failed = tokio::select! {
            done = attempt => done.err(),
            // The network has changed: what is on its way may never arrive.
            () = lasting.nudge.notified() => {
                *backoff = Backoff::default();
                first = true;
                continue;
            }
        };
        if let Some(NotReached::Refused(why)) = failed {
            lasting.handle.give_up(SessionLost::Refused(why));
        }
    }
}
