//! The paths of a session that outlives them: which it runs over now, told to the table and to who watches; and how the peer is
//! reached again, over everything that is known to lead there.

use std::convert::Infallible;
use std::future::pending;
use std::sync::{Arc, Mutex};

use cepa_transports::Remote;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};

use crate::identity::PeerId;
use crate::resume::Refusal;
use crate::session::{PathChange, PathInfo};
use crate::stack::{Lasting, NotReached, Redial};

use super::addr::Hint;
use super::config::NodeConfig;
use super::core::{Core, lock};
use super::event::Event;
use super::live::{Live, Path};
use super::pace::Pace;

/// Keeps the node's own record of a session true as it goes from path to path, and tells of each step.
pub(super) async fn follow(core: &Core, live: &Live, number: u64) -> Infallible {
    let (peer, mut changes) = (live.who.id, live.session.path_changes());
    // What has changed before this could watch.
    if let Some(path) = live.session.path()
        && path.generation > 0
    {
        moved(core, live, number, &path);
    }
    let is_parked = || live.session.path().is_none();
    core.table().parked(peer, number, is_parked());
    while let Some(change) = changes.next().await {
        let parked = is_parked();
        core.table().parked(peer, number, parked);
        core.emit(match change {
            PathChange::Paused { why, stats, .. } => Event::SessionPaused {
                peer,
                path: live.current(),
                why,
                stats,
            },
            PathChange::Resumed {
                path,
                without,
                stats,
            } => Event::SessionResumed {
                peer,
                path: moved(core, live, number, &path),
                without,
                stats,
            },
            PathChange::Migrated { path, stats, .. } => Event::SessionMigrated {
                peer,
                from: live.current(),
                path: moved(core, live, number, &path),
                stats,
            },
        });
        if !parked {
            // It may be the one that is used again.
            let others = core.table().others(peer);
            for other in others {
                other.superseded.notify_one();
            }
        }
    }
    pending().await
}

/// The session runs over this now.
fn moved(core: &Core, live: &Live, number: u64, path: &PathInfo) -> Path {
    let via = match path.remote {
        Remote::Circuit { relay, .. } => {
            let relay = PeerId::from_bytes(relay);
            let before = core.chosen(relay).map(|(_, _, it)| it.current().via);
            std::iter::once(relay)
                .chain(before.unwrap_or_default())
                .collect()
        }
        _ => Vec::new(),
    };
    let now = Path {
        via,
        // Who may open what goes by how the session came to be.
        dialled: live.path.dialled,
        label: path.label.clone(),
    };
    live.set_current(now.clone());
    core.table().moved(live.who.id, number, now.is_direct());
    now
}

/// Takes a session up over one hint.
pub(super) type Attempt =
    Arc<dyn Fn(Arc<Lasting>, Hint) -> BoxFuture<'static, Result<(), NotReached>> + Send + Sync>;

/// How a peer is reached again: over each of the hints, the one that led there last first, each a little later than the one
/// before it. Who refuses the session may not be the process that has it, so the others are asked nonetheless.
pub(super) fn redial(hints: Vec<Hint>, config: &NodeConfig, attempt: Attempt) -> Redial {
    let hints = Arc::new(Mutex::new(hints));
    let (stagger, head_start) = (config.stagger, config.head_start);
    Arc::new(move |lasting| {
        let (hints, attempt) = (Arc::clone(&hints), Arc::clone(&attempt));
        Box::pin(async move {
            let pace = Pace::new(stagger, head_start);
            race(&lasting, &hints, pace, &attempt).await
        })
    })
}

async fn race(
    lasting: &Arc<Lasting>,
    hints: &Mutex<Vec<Hint>>,
    mut pace: Pace,
    attempt: &Attempt,
) -> Result<(), NotReached> {
    let mut waiting = lock(hints).clone().into_iter().peekable();
    let mut running = FuturesUnordered::new();
    let (mut refused, mut all_answered) = (None, true);
    loop {
        let next_at = waiting.peek().map(|next| pace.due(next));
        if running.is_empty() && next_at.is_none() {
            return Err(
                refused.map_or(NotReached::NotNow, |why| NotReached::Refused {
                    why,
                    by_all: all_answered,
                }),
            );
        }
        tokio::select! {
            Some((hint, reached)) = running.next(), if !running.is_empty() => match reached {
                Ok(()) => {
                    let mut hints = lock(hints);
                    if let Some(at) = hints.iter().position(|it| *it == hint)
                        && let Some(first) = hints.get_mut(..=at)
                    {
                        first.rotate_right(1);
                    }
                    return Ok(());
                }
                Err(error) => {
                    match error {
                        // It had the session to its end.
                        NotReached::Refused { why: Refusal::Over, .. } => return Err(error),
                        NotReached::Refused { why, .. } => refused = Some(why),
                        NotReached::NotNow => all_answered = false,
                    }
                    pace.failed(&hint);
                }
            },
            () = sleep_until(next_at.unwrap_or_else(Instant::now)), if next_at.is_some() => {
                if let Some(hint) = waiting.next() {
                    pace.begins(&hint);
                    let reaching = attempt(Arc::clone(lasting), hint.clone());
                    running.push(async move { (hint, reaching.await) });
                }
            }
        }
    }
}
