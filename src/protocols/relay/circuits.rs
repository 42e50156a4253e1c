//! A circuit at a relay: the dialler and whom it wants come to an agreement, then bytes are copied.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::identity::PeerId;
use crate::mux::{StreamTimeouts, Substream};
use crate::node::CallContext;
use crate::onion::Onion;
use crate::protocols::copy::{End, copy};
use crate::session::{OpenError, Session};
use crate::wire::{Status, fault, receive, send};

use super::inner::{Inner, Open, Refusal};
use super::message::{Answer, CIRCUIT, Circuit, IDLE, TAKEN_BACK};
use crate::protocols::pool::{Found, Holder};

/// Serves one to its end.
pub(super) async fn serve(
    relay: &Arc<Inner>,
    mut near: Onion<Substream>,
    context: &CallContext,
    from: &Holder,
) -> Result<(), (Onion<Substream>, Refusal)> {
    let open = match place(relay, &mut near, from).await {
        Ok(Some(place)) => place,
        Ok(None) => return Ok(()),
        Err(refusal) => return Err((near, refusal)),
    };
    let (open, target) = open;
    let _kept = context.keep_session();
    let reached = tokio::select! {
        reached = reach(relay, target, from.id) => reached,
        () = open.line.taken_back.cancelled() => Err(Refusal::of(Status::Full)),
    };
    let far = match reached {
        Ok(far) => far,
        Err(refusal) => return Err((near, refusal)),
    };
    // A dialler that does not read its answer holds its place no longer than one that does not ask.
    let done = Answer::done(None);
    let answered = timeout(relay.config.patience, send(&mut near, &done)).await;
    if matches!(answered, Ok(Ok(()))) {
        join(near, far, &open).await;
    }
    Ok(())
}

/// A place for a circuit, and whom it is to lead to; nothing where nobody is left to be told.
async fn place(
    relay: &Arc<Inner>,
    near: &mut Onion<Substream>,
    from: &Holder,
) -> Result<Option<(Open, PeerId)>, Refusal> {
    let asked = timeout(relay.config.patience, receive::<Circuit>(near)).await;
    let target = match asked {
        Ok(Ok(circuit)) => circuit.target(),
        Ok(Err(error)) => {
            return fault(&error).map_or(Ok(None), |fault| {
                let (status, reason) = (Status::Malformed, fault.to_string());
                Err(Refusal { status, reason })
            });
        }
        Err(_) => return Ok(None),
    };
    let is_own = target == relay.id || relay.former.contains(&target);
    if is_own || from.ids().any(|id| id == target) {
        return Err(Refusal::of(Status::Loop));
    }
    Ok(Some((relay.open(from)?, target)))
}

/// Asks the registered peer, by the newest of its registrations first. Each one has its part of the time: a session
/// whose other end was stopped does not answer, and the one before it may.
async fn reach(relay: &Inner, target: PeerId, from: PeerId) -> Result<Onion<Substream>, Refusal> {
    let found = relay.registrations().find(target);
    let ways = match found {
        Found::Peer(ways) => ways,
        Found::Nobody => return Err(elsewhere(relay, target).await),
        Found::Contested => {
            return Err(Refusal {
                status: Status::NotRegistered,
                reason: "two registered peers claim to be its successor: ask for one by its own id"
                    .into(),
            });
        }
    };
    let end = Instant::now() + relay.config.patience;
    let mut last = Refusal::of(Status::Unreachable);
    let mut left = u32::try_from(ways.len()).unwrap_or(u32::MAX);
    for way in ways {
        let part = end.saturating_duration_since(Instant::now()) / left;
        left -= 1;
        match timeout_at(Instant::now() + part, ask(&way.session, from)).await {
            Ok(Ok(far)) => return Ok(far),
            Ok(Err(refusal)) => last = refusal,
            Err(_) => last = Refusal::of(Status::Unreachable),
        }
    }
    Err(last)
}

/// Where a peer is registered that is not registered here.
async fn elsewhere(relay: &Inner, target: PeerId) -> Refusal {
    // The store may be slow, or gone.
    match timeout(relay.config.patience, relay.config.presence.get(target)).await {
        Ok(Ok(relays)) => Refusal {
            status: Status::NotRegistered,
            reason: relays
                .iter()
                .find(|other| **other != relay.id)
                .map(|other| format!("it is registered at the relay {other}"))
                .unwrap_or_default(),
        },
        Ok(Err(_)) | Err(_) => Refusal::of(Status::Unreachable),
    }
}

/// Opens a circuit to a registered peer.
async fn ask(session: &Session, from: PeerId) -> Result<Onion<Substream>, Refusal> {
    let unreachable = || Refusal::of(Status::Unreachable);
    let not_opened = |error| match error {
        OpenError::Refused { reason, .. } => Refusal {
            status: Status::Refused,
            reason,
        },
        _ => unreachable(),
    };
    let mut far = session.open_early(CIRCUIT).await.map_err(not_opened)?;
    // What stands in the way of the request stands in the way of its answer, too.
    let _ = send(&mut far, &Circuit::new(from)).await;
    far.accepted().await.map_err(not_opened)?;
    match receive::<Answer>(&mut far).await {
        Ok(answer) if answer.status() == Status::Done => Ok(far),
        Ok(answer) => Err(Refusal {
            status: Status::Refused,
            reason: answer.reason(),
        }),
        Err(_) => Err(unreachable()),
    }
}

/// Copies, within the rate of whoever dialled, until both have said all, one has failed, nothing has been carried for too
/// long, or the circuit is wanted for another peer.
pub(super) async fn join(near: Onion<Substream>, far: Onion<Substream>, open: &Open) {
    // Nothing was ever pushed onto them.
    let (Ok(near), Ok(far)) = (near.into_wire(), far.into_wire()) else {
        return;
    };
    let counts = &open.relay.counts;
    counts.carried.fetch_add(1, Ordering::Relaxed);
    open.carried();
    let [mut near, mut far] = [near, far];
    for (stream, _) in [&mut near, &mut far] {
        // How long the two may be silent is for them to say, up to the relay's own limit.
        stream.set_timeouts(StreamTimeouts::NONE);
    }
    let over = async {
        tokio::select! {
            () = unused(open) => {
                counts.idle.fetch_add(1, Ordering::Relaxed);
                IDLE
            }
            () = open.line.taken_back.cancelled() => TAKEN_BACK,
        }
    };
    let rate = Arc::new(open.line.rate.clone());
    copy(End::new(near), End::new(far), rate, over, |moved| {
        open.carried();
        counts.bytes.fetch_add(moved as u64, Ordering::Relaxed);
    })
    .await;
}

/// Waits until it has carried nothing for too long.
async fn unused(open: &Open) {
    let most = open.relay.config.idle;
    loop {
        let left = most.saturating_sub(open.unused());
        if left.is_zero() {
            return;
        }
        // The clock of what was carried has milliseconds.
        sleep(left.max(Duration::from_millis(1))).await;
    }
}
