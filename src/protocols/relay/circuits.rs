//! A circuit at a relay: the dialler and whom it wants come to an agreement, then bytes are copied.
//!
//! In a fleet the far end may be another member (`across.rs`), which asks its registered peer as if the dialler had come there; and a
//! member may ask here. What a member asks for ends here: it goes to a peer that is registered at this relay, or nowhere.

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

use super::across;
use super::error::LOOKUPS_LIMITED;
use super::fleet::{Order, Route};
use super::inner::{Inner, Joined, OfMember, Open, Reach, Refusal};
use super::message::{Answer, CIRCUIT, Circuit, Elsewhere, ForPeer, IDLE, TAKEN_BACK, UNREAD};
use super::unread::Looked;
use crate::protocols::pool::{Found, Holder, Who};

/// Other relays that a dialler is told of.
const OTHERS: usize = 3;

/// Who wants a circuit.
pub(super) enum Asker<'a> {
    /// The peer of the session.
    Peer(&'a Holder),
    /// Somebody at another member of the fleet, which is the peer of the session.
    Member(PeerId),
}

/// A circuit that is to be.
struct Asked {
    open: Open,
    target: PeerId,
    from: Holder,
    /// The place of the member that asks; one that asks for a member's peer leads through no other one.
    of_member: Option<OfMember>,
}

/// The other end of one.
struct Reached {
    far: Onion<Substream>,
    /// The session with the member that it leads through.
    through: Option<Session>,
}

/// Serves one to its end.
pub(super) async fn serve(
    relay: &Arc<Inner>,
    mut near: Onion<Substream>,
    context: &CallContext,
    asker: Asker<'_>,
) -> Result<(), (Onion<Substream>, Refusal)> {
    let asked = match place(relay, &mut near, asker).await {
        Ok(Some(asked)) => asked,
        Ok(None) => return Ok(()),
        Err(refusal) => return Err((near, refusal)),
    };
    let _kept = context.keep_session();
    let reached = tokio::select! {
        reached = reach(relay, &asked) => reached,
        () = asked.open.line.taken_back.cancelled() => Err(Refusal::of(Status::Full)),
    };
    let onward = asked.of_member.is_none();
    let Reached { far, through } = match reached {
        Ok(reached) => reached,
        Err(refusal) => return Err((near, refusal)),
    };
    let (open, _of_member) = (asked.open, asked.of_member);
    // A dialler that does not read its answer holds its place no longer than one that does not ask.
    let mut done = Answer::done(None);
    if let (Some(through), Some(Joined { fleet, .. })) = (&through, &relay.fleet) {
        let through = through.peer().id();
        done = done.with_nearer(Some(Elsewhere::new(through, &fleet.addresses(through))));
    }
    if onward {
        done = done.with_others(relay.others(Order::Of(asked.from.id), OTHERS));
    }
    let answered = timeout(relay.config.patience, send(&mut near, &done)).await;
    let of_members = match through {
        Some(session) => Some(relay.unread.add(session, far.wire().id())),
        None if !onward => {
            let session = context.session().clone();
            Some(relay.unread.add(session, near.wire().id()))
        }
        None => None,
    };
    if matches!(answered, Ok(Ok(()))) {
        join(near, far, &open, of_members.as_ref()).await;
    }
    Ok(())
}

/// A place for a circuit, and whom it is to lead to; nothing where nobody is left to be told.
async fn place(
    relay: &Arc<Inner>,
    near: &mut Onion<Substream>,
    asker: Asker<'_>,
) -> Result<Option<Asked>, Refusal> {
    let member = match asker {
        Asker::Peer(_) => None,
        Asker::Member(member) => Some(member),
    };
    let asked = timeout(relay.config.patience, async {
        Ok(match asker {
            Asker::Peer(from) => (receive::<Circuit>(near).await?.target(), from.clone()),
            Asker::Member(_) => {
                let asked = receive::<ForPeer>(near).await?;
                (asked.target(), across::caller(relay, &asked))
            }
        })
    });
    let (target, from) = match asked.await {
        Ok(Ok(asked)) => asked,
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
    if member.is_some() && !across::serves(relay, &from) {
        return Err(Refusal::of(Status::NotAllowed));
    }
    let of_member = member.map(|member| relay.open_for_member(member));
    let of_member = of_member.transpose()?;
    let open = relay.open(&from)?;
    Ok(Some(Asked {
        open,
        target,
        from,
        of_member,
    }))
}

/// One way to a peer.
enum Way {
    Here(Reach),
    Member(PeerId),
}

/// Asks the registered peer, by the newest of its registrations first. Each one has its part of the time: a session
/// whose other end was stopped does not answer, and the one before it may.
async fn reach(relay: &Inner, asked: &Asked) -> Result<Reached, Refusal> {
    let target = asked.target;
    let ways = ways(relay, asked)?;
    if ways.is_empty() {
        return Err(elsewhere(relay, target).await);
    }
    let end = Instant::now() + relay.config.patience;
    let mut last = Refusal::of(Status::Unreachable);
    let mut left = u32::try_from(ways.len()).unwrap_or(u32::MAX);
    for way in ways {
        let part = end.saturating_duration_since(Instant::now()) / left;
        left -= 1;
        let attempt = async {
            match &way {
                Way::Here(here) => {
                    let reached = ask(&here.session, asked.from.id).await;
                    reached.map(|far| (far, None))
                }
                Way::Member(member) => {
                    let reached = across::ask(relay, *member, target, &asked.from).await;
                    reached.map(|(session, far)| (far, Some(session)))
                }
            }
        };
        match timeout_at(Instant::now() + part, attempt).await {
            Ok(Ok((far, through))) => return Ok(Reached { far, through }),
            Ok(Err(refusal)) => last = refusal,
            Err(_) => last = Refusal::of(Status::Unreachable),
        }
    }
    Err(last)
}

/// All the ways to a peer, the newest of its registrations first.
fn ways(relay: &Inner, asked: &Asked) -> Result<Vec<Way>, Refusal> {
    let Asked {
        target,
        from,
        of_member,
        ..
    } = asked;
    let (target, onward) = (*target, of_member.is_none());
    let contested = || Refusal {
        status: Status::NotRegistered,
        reason: "two registered peers claim to be its successor: ask for one by its own id".into(),
    };
    let found = relay.registrations().find(target);
    let mut here = match found {
        Found::Peer(here) => here,
        Found::Nobody => Vec::new(),
        Found::Contested => return Err(contested()),
    };
    let Some(Joined { fleet, .. }) = relay.fleet.as_ref().filter(|_| onward) else {
        return Ok(here.into_iter().map(Way::Here).collect());
    };
    let (who, now, is_here) = (Who::of(from), relay.now(), !here.is_empty());
    if !is_here && !fleet.may_look(who, now) {
        return Err(Refusal {
            status: Status::Quota,
            reason: LOOKUPS_LIMITED.into(),
        });
    }
    let routes = fleet.routes(target, is_here).ok_or_else(contested)?;
    if routes.is_empty() {
        fleet.missed(who, now);
    }
    let mut ways = Vec::new();
    for route in routes {
        match route {
            Route::Here => ways.extend(here.drain(..).map(Way::Here)),
            Route::Member(member) => ways.push(Way::Member(member)),
        }
    }
    Ok(ways)
}

/// Where a peer is registered that is not registered here.
async fn elsewhere(relay: &Inner, target: PeerId) -> Refusal {
    if let Some(Joined { fleet, .. }) = &relay.fleet {
        let mut refusal = Refusal::of(Status::NotRegistered);
        if !fleet.stats().reachable {
            refusal.reason =
                "the store of its fleet is away: who is registered at another relay may be unknown"
                    .into();
        }
        return refusal;
    }
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
/// long, or the circuit is wanted for another peer; between two members also until it is in the way of others.
pub(super) async fn join(
    near: Onion<Substream>,
    far: Onion<Substream>,
    open: &Open,
    of_members: Option<&Looked>,
) {
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
    let not_read = async {
        match of_members {
            Some(looked) => looked.unread.cancelled().await,
            None => std::future::pending().await,
        }
    };
    let over = async {
        tokio::select! {
            () = unused(open) => {
                counts.idle.fetch_add(1, Ordering::Relaxed);
                IDLE
            }
            () = open.line.taken_back.cancelled() => TAKEN_BACK,
            () = not_read => {
                counts.unread.fetch_add(1, Ordering::Relaxed);
                UNREAD
            }
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
