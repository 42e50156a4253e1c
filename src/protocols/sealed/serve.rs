//! The sides of a carrier and of a recipient: one substream, one message each way.
//!
//! A carrier takes its place in the quota before it reads, asks the recipient in the session that there is with it,
//! and holds nothing once it has answered. A place whose peer lets us wait, before its request or behind the answer, is another's when
//! places are short. It knows from whom, to whom, when and how much.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};
use tokio::time::{sleep, timeout};

use crate::identity::{PeerId, UnixTime};
use crate::mux::{StreamTimeouts, Substream};
use crate::node::{Call, Node, Refused};
use crate::onion::Onion;
use crate::protocols::places::Place;
use crate::protocols::pool::Holder;
use crate::session::OpenError;
use crate::wire::{Status, fault, linger_close, receive, send};

use super::event::SealedEvent;
use super::flaw::SealFlaw;
use super::state::{Carrier, SealedCall, State};
use super::wire::{Brought, Carry, DELIVER, Deliver};

/// Time for a peer to say what it wants, and to take what it gets: on a serial line of 9,600 baud the largest takes
/// nearly as long. Who dawdles takes up its own places only.
const PATIENCE: Duration = Duration::from_secs(60);

/// Carries for one substream.
pub(super) async fn carry(state: &State, call: Call) {
    let (from, node) = (call.peer().id(), state.node.clone());
    let Some(carrier) = state.carrier() else {
        return;
    };
    let context = call.context();
    let holder = Holder::of(call.peer(), &context);
    let Ok(mut stream) = call.accept().await else {
        return;
    };
    let place = match carrier.quota.enter(holder) {
        Ok(place) => place,
        Err(status) => {
            carrier.count(false);
            return finish(&mut stream, &Brought::refused(status, "")).await;
        }
    };
    let _kept = context.keep_session();
    // The place is held until the answer was taken: both are in memory that long.
    let taken_back = place.taken_back();
    let carried = async {
        let Some(brought) = fetch(&node, &carrier, from, &mut stream, &place).await else {
            return;
        };
        carrier.count(brought.is_done());
        finish(&mut stream, &brought).await;
    };
    tokio::select! {
        () = carried => {}
        () = taken_back => carrier.count(false),
    }
}

/// Asks whom the message is for; `None` where nobody is left to be told.
async fn fetch(
    node: &Node,
    carrier: &Carrier,
    from: PeerId,
    stream: &mut Onion<Substream>,
    place: &Place,
) -> Option<Brought> {
    let arriving = &mut Arriving { stream, place };
    let carry = match timeout(PATIENCE, receive::<Carry>(arriving)).await {
        Ok(Ok(carry)) => carry,
        Ok(Err(error)) => {
            return fault(&error).map(|why| Brought::refused(Status::Malformed, &why.to_string()));
        }
        Err(_) => return None,
    };
    let to = carry.to();
    if node.is_own(&to) || to == from {
        return Some(Brought::refused(Status::Loop, ""));
    }
    let Some(session) = node.session_with(to) else {
        return Some(Brought::refused(Status::NotRegistered, ""));
    };
    let asked = async {
        let delivered = async {
            let mut far = session.open_early(DELIVER).await?;
            // What stands in the way of the message stands in the way of its answer, too.
            let _ = send(&mut far, &carry.into_deliver()).await;
            far.accepted().await.map(|()| far)
        };
        match delivered.await {
            Ok(mut far) => receive::<Brought>(&mut far).await,
            Err(OpenError::Refused { reason, .. }) => {
                Ok(Brought::refused(Status::Refused, &reason))
            }
            Err(_) => Ok(Brought::refused(Status::Unreachable, "")),
        }
    };
    let unreachable = || Brought::refused(Status::Unreachable, "");
    place.at_work();
    let brought = tokio::select! {
        asked = timeout(carrier.config.patience, asked) => {
            Some(asked.map_or_else(|_| unreachable(), |answer| answer.unwrap_or_else(|_| unreachable())))
        }
        () = broken(stream) => None,
    };
    place.used();
    brought
}

/// A stream on which a request comes: as long as something does, its place is of use.
struct Arriving<'a> {
    stream: &'a mut Onion<Substream>,
    place: &'a Place,
}

impl AsyncRead for Arriving<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut *self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.place.used();
        }
        read
    }
}

/// Takes one substream on which a request is brought, or our key is wanted.
pub(super) async fn deliver(state: &Arc<State>, call: Call) {
    let (by, node) = (call.peer().id(), state.node.clone());
    let context = call.context();
    let holder = Holder::of(call.peer(), &context);
    let Ok(mut stream) = call.accept().await else {
        return;
    };
    let place = match state.quota.enter(holder) {
        Ok(place) => place,
        Err(status) => {
            finish(&mut stream, &Brought::refused(status, "")).await;
            return;
        }
    };
    let _kept = context.keep_session();
    let taken_back = place.taken_back();
    tokio::select! {
        () = take(state, &node, by, &mut stream, &place) => {}
        () = taken_back => {}
    }
}

/// Reads what is brought, does it, and answers. A place is not taken back while a handler is at work: once begun that goes on.
async fn take(
    state: &Arc<State>,
    node: &Node,
    by: PeerId,
    stream: &mut Onion<Substream>,
    place: &Place,
) {
    // How long a handler takes is its own affair; the carrier has its patience.
    stream.wire_mut().set_timeouts(StreamTimeouts::NONE);
    let arriving = &mut Arriving { stream, place };
    let brought = match timeout(PATIENCE, receive::<Deliver>(arriving)).await {
        Ok(Ok(deliver)) => {
            place.at_work();
            let brought = answer(state, node, by, &deliver).await;
            place.used();
            brought
        }
        Ok(Err(error)) => match fault(&error) {
            Some(why) => Brought::refused(Status::Malformed, &why.to_string()),
            None => return,
        },
        Err(_) => return,
    };
    finish(stream, &brought).await;
}

async fn answer(state: &Arc<State>, node: &Node, by: PeerId, deliver: &Deliver) -> Brought {
    // From whom it is, and for which service, once that is proven.
    let mut asked = None;
    match let_in(state, node, by, deliver, &mut asked).await {
        Ok(brought) => brought,
        Err(flaw) => {
            if let Some((sender, service)) = asked {
                let reason = Refused::Other(refusal(&flaw, sender, by));
                node.emit_refused(sender, service, reason);
            } else {
                let reason = format!("of a sealed message that it brought: {flaw}");
                node.emit_refused(by, DELIVER, Refused::Other(reason));
            }
            Brought::refused(Status::Refused, &flaw.to_string())
        }
    }
}

/// Why a request was refused, for its recipient's owner.
fn refusal(flaw: &SealFlaw, sender: PeerId, by: PeerId) -> String {
    let what = match flaw {
        SealFlaw::NotServed => "no service of this name is open to sealed messages of it".into(),
        flaw => format!("its sealed message was not let in, {flaw}"),
    };
    if sender == by {
        what
    } else {
        format!("{what}; brought by {by}")
    }
}

async fn let_in(
    state: &Arc<State>,
    node: &Node,
    by: PeerId,
    deliver: &Deliver,
    asked: &mut Option<(PeerId, String)>,
) -> Result<Brought, SealFlaw> {
    let now = UnixTime::now();
    let Some(request) = deliver.request() else {
        let key = state.mailbox.key(now)?;
        if !state.forgetting.swap(true, Ordering::Relaxed) {
            let state = Arc::clone(state);
            node.spawn(async move { forget(&state).await });
        }
        return Ok(Brought::done(key.to_bytes()));
    };
    let mut service = None;
    let (opened, reply) = state.mailbox.open_as(request, now, |sender, name| {
        *asked = Some((sender.id(), name.to_owned()));
        let (found, payer) = state.find(sender, name)?;
        service = Some((found, payer.account));
        Some(payer)
    })?;
    let (service, allowed_as) = service.ok_or(SealFlaw::NotServed)?;
    node.emit(SealedEvent {
        sender: opened.sender(),
        carrier: by,
        service: opened.service().to_owned(),
    });
    let answer = (service.handler)(SealedCall {
        opened,
        by,
        allowed_as,
    })
    .await;
    let answer = answer.as_deref().map_err(String::as_str);
    reply
        .answer(answer)
        .or_else(|flaw| reply.answer(Err(&flaw.to_string())))
        .map(Brought::done)
}

/// Throws keys away when their time is over, also where nobody asks for another one, until there are none.
async fn forget(state: &State) {
    loop {
        let now = UnixTime::now();
        let Some(next) = state.mailbox.forget(now) else {
            // Whoever makes one from here on begins anew; one that was made just now is seen to here.
            state.forgetting.store(false, Ordering::Relaxed);
            if state.mailbox.forget(now).is_none() || state.forgetting.swap(true, Ordering::Relaxed)
            {
                return;
            }
            continue;
        };
        let left = next.as_secs().saturating_sub(now.as_secs());
        sleep(Duration::from_secs(left.saturating_add(1))).await;
    }
}

/// Answers, and leaves it to the peer to end the substream: a reset could overtake the answer.
async fn finish(stream: &mut Onion<Substream>, brought: &Brought) {
    if matches!(timeout(PATIENCE, send(stream, brought)).await, Ok(Ok(()))) {
        linger_close(stream, PATIENCE).await;
    }
}

/// Waits until the substream is reset. What else comes on it means nothing.
async fn broken(stream: &mut Onion<Substream>) {
    let mut scratch = [0; 64];
    loop {
        match stream.read(&mut scratch).await {
            Ok(0) => std::future::pending().await,
            Ok(_) => {}
            Err(_) => return,
        }
    }
}
