//! What is tried beside a relay: other relays of its fleet, of which somebody has told.
//!
//! One that is said to be nearer goes first, and the relay that the address names has its turn a moment later. The others come when that
//! has failed, or is silent for a while. What is told is a hint of somebody else: it opens network connections and nothing else.

use std::collections::VecDeque;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, sleep};

use crate::identity::PeerId;

use super::addr::Hint;
use super::error::AttemptError;
use super::protocol::Beside;

/// How long a relay may take to answer before the next one is tried beside it.
const SILENT: Duration = Duration::from_secs(2);

/// The same for one that is only said to be nearer.
const NEARER: Duration = Duration::from_millis(300);

/// What `open` gives first, for a relay or for what is beside it, and which of them that was. The error is that of the relay itself; once
/// it has one with which nobody leads there, no other is asked.
pub(super) async fn first_of<T, F>(
    relay: (PeerId, Vec<Hint>),
    beside: Beside,
    open: impl Fn(PeerId, Vec<Hint>) -> F,
) -> Result<(PeerId, T), AttemptError>
where
    F: Future<Output = Result<T, AttemptError>>,
{
    let itself = relay.0;
    let mut pause = match beside.first {
        Some(_) => NEARER,
        None => SILENT,
    };
    let mut ways: VecDeque<_> = beside.first.into_iter().collect();
    ways.push_back(relay);
    ways.extend(beside.others);
    let mut running = FuturesUnordered::new();
    let mut failed = None;
    let next_at = sleep(Duration::ZERO);
    tokio::pin!(next_at);
    loop {
        tokio::select! {
            biased;
            Some((id, result)) = running.next(), if !running.is_empty() => {
                let error = match result {
                    Ok(opened) => return Ok((id, opened)),
                    Err(error) => error,
                };
                if id == itself {
                    if !AttemptError::may_lead_elsewhere(&error) {
                        ways.clear();
                    }
                    failed = Some(error);
                }
                next_at.as_mut().reset(Instant::now());
            }
            () = &mut next_at, if !ways.is_empty() => {
                if let Some((id, hints)) = ways.pop_front() {
                    let opening = open(id, hints);
                    running.push(async move { (id, opening.await) });
                    next_at.as_mut().reset(Instant::now() + pause);
                    pause = SILENT;
                }
            }
            // The relay itself was one of them.
            else => return Err(failed.unwrap_or(AttemptError::NoRoute { relay: itself })),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::Mutex;

    use super::*;
    use crate::node::{RouteError, RouteErrorKind};

    const RELAY: PeerId = PeerId::from_bytes([1; 32]);
    const NEAR: PeerId = PeerId::from_bytes([2; 32]);
    const OTHER: PeerId = PeerId::from_bytes([3; 32]);
    const LAST: PeerId = PeerId::from_bytes([4; 32]);

    #[derive(Clone, Copy)]
    enum Does {
        Opens,
        Fails,
        Refuses,
        Nothing,
    }

    fn error(kind: RouteErrorKind) -> AttemptError {
        AttemptError::Relay(RouteError::new(kind, std::io::Error::other("no")))
    }

    fn way(id: PeerId) -> (PeerId, Vec<Hint>) {
        (id, vec!["tcp:h:1".parse().unwrap()])
    }

    /// Who opened it, after how long, and who was asked in which order.
    async fn run(first: bool, does: [Does; 4]) -> (Option<PeerId>, u128, Vec<PeerId>) {
        let asked = Mutex::new(Vec::new());
        let beside = Beside {
            first: first.then(|| way(NEAR)),
            others: vec![way(OTHER), way(LAST)],
        };
        let start = Instant::now();
        let opened = first_of(way(RELAY), beside, |id, _| {
            asked.lock().unwrap().push(id);
            async move {
                match does[usize::from(id.as_bytes()[0]) - 1] {
                    Does::Opens => Ok(()),
                    Does::Fails => Err(error(RouteErrorKind::Unreachable)),
                    Does::Refuses => Err(error(RouteErrorKind::Refused)),
                    Does::Nothing => pending().await,
                }
            }
        });
        let opened = opened.await.ok().map(|(id, ())| id);
        let asked = asked.lock().unwrap().clone();
        (opened, start.elapsed().as_millis(), asked)
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_of_what_is_tried_when() {
        use Does::{Fails, Nothing, Opens, Refuses};
        let (relay, near, other, last) = (RELAY, NEAR, OTHER, LAST);
        for (first, does, wanted) in [
            (
                false,
                [Opens, Opens, Opens, Opens],
                (Some(relay), 0, vec![relay]),
            ),
            (
                true,
                [Opens, Opens, Opens, Opens],
                (Some(near), 0, vec![near]),
            ),
            (
                true,
                [Opens, Fails, Opens, Opens],
                (Some(relay), 0, vec![near, relay]),
            ),
            (
                true,
                [Opens, Nothing, Opens, Opens],
                (Some(relay), 300, vec![near, relay]),
            ),
            (
                true,
                [Opens, Refuses, Opens, Opens],
                (Some(relay), 0, vec![near, relay]),
            ),
            (
                false,
                [Fails, Opens, Fails, Opens],
                (Some(last), 0, vec![relay, other, last]),
            ),
            (
                false,
                [Nothing, Opens, Nothing, Opens],
                (Some(last), 4000, vec![relay, other, last]),
            ),
            // The peer's own no, and a relay that does not serve us.
            (
                false,
                [Refuses, Opens, Opens, Opens],
                (None, 0, vec![relay]),
            ),
            (
                false,
                [Fails, Opens, Fails, Fails],
                (None, 0, vec![relay, other, last]),
            ),
        ] {
            assert_eq!(run(first, does).await, wanted);
        }
    }

    #[test]
    fn nothing_but_network_connections_comes_of_it() {
        let local = |id| (id, vec!["exec:reboot".parse().unwrap()]);
        let mut beside = Beside {
            first: Some(local(NEAR)),
            others: vec![way(OTHER), local(LAST), way(RELAY)],
        };
        beside.retain(|id| *id != RELAY);
        assert_eq!((beside.first, beside.others), (None, vec![way(OTHER)]));
    }
}
