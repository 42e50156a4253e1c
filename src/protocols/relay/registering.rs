//! A registration at a relay: it lasts as long as its stream is open and its peer renews it on that in time.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, timeout};

use crate::mux::Substream;
use crate::node::{CallContext, Node};
use crate::onion::Onion;
use crate::session::Session;
use crate::wire::{Status, fault, receive, send};

use super::event::RelayEvent;
use super::fleet::Order;
use super::holding::{self, Elsewhere};
use super::inner::{Inner, Refusal, Registered};
use super::message::{Answer, MAX_OTHERS, Register, TAKEN_BACK};
use crate::protocols::pool::{Denied, Holder};

/// Serves one to its end.
pub(super) async fn serve(
    relay: &Arc<Inner>,
    node: &Node,
    stream: &mut Onion<Substream>,
    context: &CallContext,
    holder: &Holder,
) -> Result<(), Refusal> {
    let session = context.session();
    let Some(mut lifetime) = wanted(relay, stream, relay.config.patience).await? else {
        return Ok(());
    };
    if relay.leaving.is_cancelled() {
        return Err(leaving());
    }
    let registered = register(relay, session, holder).await?;
    let _kept = context.keep_session();
    let shared = find_sharers(
        Arc::clone(relay),
        node.clone(),
        &registered,
        session,
        holder,
    );
    node.spawn(shared);
    let mut told_to_go = false;
    loop {
        if !registered.announce(lifetime).await {
            return Err(Refusal::of(Status::Full));
        }
        let seconds = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX);
        // What a peer does not read is no reason to wait longer than the registration lasts.
        let others = relay.others(Order::Of(holder.id), MAX_OTHERS);
        let done = Answer::done(Some(seconds)).with_others(others);
        if !say(stream, &done, lifetime, &registered).await {
            return Ok(());
        }
        let until = Instant::now() + lifetime;
        let renewed = loop {
            let left = until.saturating_duration_since(Instant::now());
            tokio::select! {
                renewed = wanted(relay, stream, left) => break renewed?,
                () = registered.taken_back.cancelled() => {
                    stream.wire_mut().reset(TAKEN_BACK);
                    return Ok(());
                }
                () = relay.leaving.cancelled(), if !told_to_go => {
                    told_to_go = true;
                    let others = relay.others(Order::Of(holder.id), MAX_OTHERS);
                    let go = Answer::leaving(seconds, others);
                    if !say(stream, &go, left, &registered).await {
                        return Ok(());
                    }
                }
                () = registered.taken_over.notified() => {
                    if !say(stream, &Answer::taken_over(seconds), left, &registered).await {
                        return Ok(());
                    }
                }
            }
        };
        match renewed {
            Some(_) if relay.leaving.is_cancelled() => return Err(leaving()),
            Some(_) if !relay.serves(holder) => return Err(Refusal::of(Status::NotAllowed)),
            Some(wanted) => lifetime = wanted,
            None => return Ok(()),
        }
    }
}

fn leaving() -> Refusal {
    Refusal {
        status: Status::Full,
        reason: "it is about to end".into(),
    }
}

/// Says something in time; false if that was not taken, or the registration is taken back meanwhile.
async fn say(
    stream: &mut Onion<Substream>,
    answer: &Answer,
    time: Duration,
    registered: &Registered,
) -> bool {
    tokio::select! {
        said = timeout(time, send(stream, answer)) => return matches!(said, Ok(Ok(()))),
        () = registered.taken_back.cancelled() => {}
    }
    stream.wire_mut().reset(TAKEN_BACK);
    false
}

/// Tells of other processes that are registered with the key of this peer, on sessions that are alive: they get no circuits any more.
fn find_sharers(
    relay: Arc<Inner>,
    node: Node,
    registered: &Registered,
    session: &Session,
    holder: &Holder,
) -> impl Future<Output = ()> + Send + use<> {
    let (number, session, holder) = (registered.number, session.clone(), holder.clone());
    async move {
        let mut others = relay.registrations().held_by(&holder);
        // A newer key of one peer is no key that is shared.
        others.retain(|(other, reach)| {
            *other < number
                && reach.session.peer().id() == holder.id
                && !reach.session.is_same(&session)
        });
        let looks = others.into_iter().map(|(_, reach)| async move {
            let answers = holding::answers(&reach).await;
            answers.then(|| reach.taken_over.notify_one())
        });
        if join_all(looks).await.into_iter().flatten().next().is_some() {
            let peer = holder.id;
            node.emit(RelayEvent::KeyShared { peer });
        }
    }
}

/// How long the peer wants to be registered from now on, as far as it may; nothing if it does not say, in time.
async fn wanted(
    relay: &Inner,
    stream: &mut Onion<Substream>,
    patience: Duration,
) -> Result<Option<Duration>, Refusal> {
    match timeout(patience, receive::<Register>(stream)).await {
        Ok(Ok(register)) => {
            let wanted = Duration::from_secs(register.lifetime.into());
            let most = relay.config.lifetime;
            Ok(Some(wanted.min(most).max(Duration::from_secs(1))))
        }
        Ok(Err(error)) => fault(&error).map_or(Ok(None), |fault| {
            let (status, reason) = (Status::Malformed, fault.to_string());
            Err(Refusal { status, reason })
        }),
        Err(_) => Ok(None),
    }
}

/// A place; where the peer gets no other one, that of a registration which nobody is behind any more. Nobody is refused by the word of the
/// store alone.
async fn register(
    relay: &Arc<Inner>,
    session: &Session,
    holder: &Holder,
) -> Result<Registered, Refusal> {
    let mut elsewhere = Elsewhere::by_store(relay, holder);
    match alone(relay, session, holder, elsewhere.count()).await {
        Err(Denied::Peer(_)) if elsewhere.count() > 0 => {}
        other => return other.map_err(Refusal::from),
    }
    elsewhere.ask(relay, holder).await;
    let registered = relay.register(holder, session, elsewhere.count());
    registered.map_err(|denied| elsewhere.refusal(denied))
}

/// The same, as this relay has it.
async fn alone(
    relay: &Arc<Inner>,
    session: &Session,
    holder: &Holder,
    elsewhere: usize,
) -> Result<Registered, Denied> {
    match relay.register(holder, session, elsewhere) {
        Err(Denied::Peer(_) | Denied::Scarce) => {}
        other => return other,
    }
    let theirs = relay.registrations().held_by(holder);
    let looks = theirs.into_iter().map(|(number, reach)| async move {
        // One whose session is over is about to be given back.
        (!holding::answers(&reach).await).then_some(number)
    });
    let dead = join_all(looks).await.into_iter().flatten().next();
    if let Some(oldest) = dead {
        let lost = relay.registrations().give_back(oldest);
        relay.end(lost.map(|reach| reach.taken_back));
    }
    relay.register(holder, session, elsewhere)
}
