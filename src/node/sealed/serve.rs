//! The sides of a carrier and of a recipient: one substream, one message each way.
//!
//! A carrier takes its place in the quota before it reads, asks the recipient in the session that there is with it,
//! and holds nothing once it has answered. It knows from whom, to whom, when and how much.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};

use crate::identity::{PeerId, UnixTime};
use crate::mux::{StreamTimeouts, Substream};
use crate::node::core::Core;
use crate::node::event::Event;
use crate::onion::Onion;
use crate::relay::{Status, fault, receive, send};
use crate::session::{Incoming, OpenError};

use super::flaw::SealFlaw;
use super::state::{Carrier, SealedCall};
use super::wire::{Brought, Carry, DELIVER, Deliver};

/// Time for a peer to say what it wants, and to take what it gets: on a serial line of 9,600 baud the largest takes
/// nearly as long. Who dawdles takes up its own places only.
const PATIENCE: Duration = Duration::from_secs(60);

/// Carries for one substream.
pub(in crate::node) async fn carry(core: &Core, incoming: Incoming) {
    let from = incoming.peer().id();
    let carrier = core.sealed.carrier();
    let Some(carrier) = carrier.filter(|carrier| (carrier.config.allow)(&from)) else {
        let _ = incoming
            .refuse("this peer carries no sealed messages for you")
            .await;
        return;
    };
    let Ok(mut stream) = incoming.accept().await else {
        return;
    };
    // The place is held until the answer was taken: both are in memory that long.
    let (_place, brought) = match carrier.places.enter(from) {
        Err(status) => (None, Brought::refused(status, "")),
        Ok(place) => match fetch(core, &carrier, from, &mut stream).await {
            Some(brought) => (Some(place), brought),
            None => return,
        },
    };
    carrier.count(brought.is_done());
    finish(stream, &brought).await;
}

/// Asks whom the message is for; `None` where nobody is left to be told.
async fn fetch(
    core: &Core,
    carrier: &Carrier,
    from: PeerId,
    stream: &mut Onion<Substream>,
) -> Option<Brought> {
    let carry = match timeout(PATIENCE, receive::<Carry>(stream)).await {
        Ok(Ok(carry)) => carry,
        Ok(Err(error)) => {
            return fault(&error).map(|why| Brought::refused(Status::Malformed, &why));
        }
        Err(_) => return None,
    };
    let to = carry.to();
    if to == core.id || to == from {
        return Some(Brought::refused(Status::Loop, ""));
    }
    let Some((_, _, live)) = core.chosen(to) else {
        return Some(Brought::refused(Status::NotRegistered, ""));
    };
    let asked = async {
        let mut far = match live.session.open(DELIVER).await {
            Ok(far) => far,
            Err(OpenError::Refused { reason, .. }) => {
                return Ok(Brought::refused(Status::Refused, &reason));
            }
            Err(_) => return Ok(Brought::refused(Status::Unreachable, "")),
        };
        send(&mut far, &carry.into_deliver()).await?;
        receive::<Brought>(&mut far).await
    };
    let unreachable = || Brought::refused(Status::Unreachable, "");
    tokio::select! {
        asked = timeout(carrier.config.patience, asked) => {
            Some(asked.map_or_else(|_| unreachable(), |answer| answer.unwrap_or_else(|_| unreachable())))
        }
        () = broken(stream) => None,
    }
}

/// Takes one substream on which a request is brought, or our key is wanted.
pub(in crate::node) async fn deliver(core: &Arc<Core>, incoming: Incoming) {
    let by = incoming.peer().id();
    if !core.sealed.takes_any() {
        let _ = incoming.refuse("this peer takes no sealed messages").await;
        return;
    }
    let Ok(mut stream) = incoming.accept().await else {
        return;
    };
    let _place = match core.sealed.places.enter(by) {
        Ok(place) => place,
        Err(status) => {
            finish(stream, &Brought::refused(status, "")).await;
            return;
        }
    };
    // How long a handler takes is its own affair; the carrier has its patience.
    stream.wire_mut().set_timeouts(StreamTimeouts::NONE);
    let brought = match timeout(PATIENCE, receive::<Deliver>(&mut stream)).await {
        Ok(Ok(deliver)) => answer(core, by, &deliver).await.unwrap_or_else(|flaw| {
            let what = "a sealed message".to_owned();
            core.tell(Event::Refused(by, what, flaw.to_string()));
            Brought::refused(Status::Refused, &flaw.to_string())
        }),
        Ok(Err(error)) => match fault(&error) {
            Some(why) => Brought::refused(Status::Malformed, &why),
            None => return,
        },
        Err(_) => return,
    };
    finish(stream, &brought).await;
}

async fn answer(core: &Arc<Core>, by: PeerId, deliver: &Deliver) -> Result<Brought, SealFlaw> {
    let sealed = &core.sealed;
    let now = UnixTime::now();
    let Some(request) = deliver.request() else {
        let key = sealed.mailbox.key(now)?;
        if !sealed.forgetting.swap(true, Ordering::Relaxed) {
            tokio::spawn(forget(Arc::downgrade(core)));
        }
        return Ok(Brought::done(key.to_bytes()));
    };
    let mut service = None;
    let (opened, reply) = sealed.mailbox.open(request, now, |sender, name| {
        service = sealed.find(sender, name);
        service.is_some()
    })?;
    let service = service.ok_or(SealFlaw::NotServed)?;
    core.tell(Event::Asked(
        opened.sender(),
        by,
        opened.service().to_owned(),
    ));
    let answer = (service.handler)(SealedCall { opened, by }).await;
    let answer = answer.as_deref().map_err(String::as_str);
    reply
        .answer(answer)
        .or_else(|flaw| reply.answer(Err(&flaw.to_string())))
        .map(Brought::done)
}

/// Throws keys away when their time is over, also where nobody asks for another one, until there are none.
async fn forget(core: Weak<Core>) {
    loop {
        let Some(core) = core.upgrade() else { return };
        let sealed = &core.sealed;
        let now = UnixTime::now();
        let Some(next) = sealed.mailbox.forget(now) else {
            // Whoever makes one from here on begins anew; one that was made just now is seen to here.
            sealed.forgetting.store(false, Ordering::Relaxed);
            if sealed.mailbox.forget(now).is_none()
                || sealed.forgetting.swap(true, Ordering::Relaxed)
            {
                return;
            }
            continue;
        };
        drop(core);
        let left = next.as_secs().saturating_sub(now.as_secs());
        sleep(Duration::from_secs(left.saturating_add(1))).await;
    }
}

/// Answers, and leaves it to the peer to end the substream: a reset could overtake the answer.
async fn finish(mut stream: Onion<Substream>, brought: &Brought) {
    let _ = timeout(PATIENCE, async {
        send(&mut stream, brought).await?;
        stream.shutdown().await?;
        let mut scratch = [0; 1024];
        while stream.read(&mut scratch).await? > 0 {}
        std::io::Result::Ok(())
    })
    .await;
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
