//! One stream through a membrane: opening what is behind it, and carrying messages both ways.
//!
//! Each way holds one message at a time, and reads the next when the other end has taken it, so back-pressure passes. The
//! end of a way between two messages is passed on as one, inside of a message as a reset, and a reset with its code.

use std::io;
use std::sync::Arc;

use futures::future::{select_all, try_join};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, split};

use crate::identity::PeerId;
use crate::mux::{StreamTimeouts, Substream};
use crate::node::{Access, Call, Node, PeerAddr, ReachError, Refused};
use crate::onion::Onion;
use crate::protocols::copy::{TAKEN_BACK, code_of};
use crate::protocols::forward::{ForwardError, away, behind, for_peer};
use crate::protocols::introduction::{IntroducedError, Party};
use crate::protocols::places::Place;

use super::message::{MessageFlaw, exchange, receive_message, send_message};
use super::state::{MembraneError, Passage, Upstream};

/// Code of the reset where the membrane was revoked.
pub(super) const REVOKED: u32 = 8;
/// Code of the reset where a message or a reference does not pass.
pub(super) const REFUSED: u32 = 9;

/// Offers a service that leads through a membrane.
pub(super) fn offer(node: &Node, name: &str, access: Access, passage: Arc<Passage>) {
    let of = node.handle();
    let serve = move |call| {
        let (node, passage) = (of.clone(), Arc::clone(&passage));
        async move { pass(&node, &passage, call).await }
    };
    node.serve_reserved(name.to_owned(), access, serve);
}

/// For a reference that was let through: nobody may open it, but whom this node introduces.
fn offer_reference(name: &str, passage: Arc<Passage>) {
    if let Some(introductions) = passage.introductions().cloned() {
        offer(introductions.node(), name, Access::Nobody, passage);
    }
}

/// One call, to its end.
async fn pass(node: &Node, passage: &Passage, call: Call) {
    let (peer, name) = (call.peer().id(), call.service().to_owned());
    if let Err(error) = joined(node, passage, call).await {
        // A stream that failed at one of its ends is nothing to report.
        if !matches!(error, MembraneError::Io(_)) {
            let reason = Refused::Other(error.to_string());
            node.emit_refused(peer, name, reason);
        }
    }
}

async fn joined(node: &Node, passage: &Passage, call: Call) -> Result<(), MembraneError> {
    let Some(busy) = passage.enter() else {
        let _ = call.refuse(&MembraneError::Revoked.to_string()).await;
        return Err(MembraneError::Revoked);
    };
    let places = match passage.places(&call) {
        Ok(places) => places,
        Err(denied) => {
            drop(busy);
            let error = ForwardError::from(denied);
            let (peer, service) = (call.peer().id(), call.service());
            node.emit_refused(peer, service, Refused::Other(error.to_string()));
            let _ = call.refuse(&for_peer(&error)).await;
            return Ok(());
        }
    };
    if call.wants_inner_tls() {
        drop(busy);
        // Refuses, and says that there is none.
        let _ = call.accept().await;
        return Ok(());
    }
    let opened = tokio::select! {
        biased;
        () = passage.revoked() => Err(MembraneError::Revoked.to_string()),
        () = wanted(&places) => Err(for_peer(&ForwardError::Full)),
        opened = open(passage, node) => opened,
    };
    let (far, far_peer) = match opened {
        Ok(opened) => opened,
        Err(why) => {
            drop(busy);
            let (peer, service) = (call.peer().id(), call.service());
            let reason = Refused::Other(why.clone());
            node.emit_refused(peer, service, reason);
            let _ = call.refuse(&why).await;
            return Ok(());
        }
    };
    let near_peer = Party::of(call.peer());
    let far_peer = Party::at(node, far_peer);
    let near = tokio::select! {
        biased;
        () = passage.revoked() => return Err(MembraneError::Revoked),
        near = call.accept() => match near {
            Ok(near) => near,
            Err(_) => return Ok(()),
        },
    };
    let done = join(passage, &places, (near, near_peer), (far, far_peer)).await;
    drop(busy);
    done
}

/// Opens what is behind, or says what its peer may know of why not.
async fn open(passage: &Passage, node: &Node) -> Result<(Onion<Substream>, PeerId), String> {
    let lost = || "what is behind this membrane does not answer: try later".to_owned();
    match &passage.to {
        Upstream::Address(to) => match node.open(to).await {
            Ok(far) => Ok((far, to.peer())),
            Err(ReachError::Open { error, .. }) => Err(behind(&error)),
            Err(ReachError::Dial(error)) => Err(away(&error).to_owned()),
        },
        Upstream::Reference(it) => {
            let introductions = passage.introductions().ok_or_else(lost)?;
            match introductions.open_for(it, passage.given_by).await {
                Ok(far) => Ok((far, it.address().map_or(node.id(), PeerAddr::peer))),
                Err(IntroducedError::Refused { flaw, .. } | IntroducedError::Flaw(flaw)) => {
                    Err(format!("refused behind a membrane: {flaw}"))
                }
                Err(IntroducedError::Open(error) | IntroducedError::Show { error, .. }) => {
                    Err(behind(&error))
                }
                Err(IntroducedError::Dial(error)) => Err(away(&error).to_owned()),
                Err(
                    IntroducedError::Protocol { .. }
                    | IntroducedError::TimedOut { .. }
                    | IntroducedError::Io { .. }
                    | IntroducedError::LocalHints { .. },
                ) => Err(lost()),
            }
        }
    }
}

/// Waits until one of these places is wanted for another peer.
async fn wanted(places: &[Place]) {
    let each = places.iter().map(|place| Box::pin(place.taken_back()));
    select_all(each).await;
}

async fn join(
    passage: &Passage,
    places: &[Place],
    near: (Onion<Substream>, Party),
    far: (Onion<Substream>, Party),
) -> Result<(), MembraneError> {
    let ((mut near, near_peer), (mut far, far_peer)) = (near, far);
    for stream in [&mut near, &mut far] {
        // How long the two may be silent is for them to say.
        stream.wire_mut().set_timeouts(StreamTimeouts::NONE);
    }
    let (mut from_near, mut to_near) = split(near);
    let (mut from_far, mut to_far) = split(far);
    let there = way(
        &mut from_near,
        &mut to_far,
        passage,
        places,
        &near_peer,
        &far_peer,
    );
    let back = way(
        &mut from_far,
        &mut to_near,
        passage,
        places,
        &far_peer,
        &near_peer,
    );
    let done = tokio::select! {
        biased;
        () = passage.revoked() => Err(MembraneError::Revoked),
        () = wanted(places) => Err(MembraneError::TakenBack),
        done = try_join(there, back) => done.map(drop),
    };
    if let Err(error) = &done {
        let code = match error {
            MembraneError::Revoked => REVOKED,
            MembraneError::TakenBack => TAKEN_BACK,
            MembraneError::Io(error) => code_of(error),
            _ => REFUSED,
        };
        from_near.unsplit(to_near).wire_mut().reset(code);
        from_far.unsplit(to_far).wire_mut().reset(code);
    }
    done
}

/// Hands messages on until there are no more.
async fn way(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    passage: &Passage,
    places: &[Place],
    giver: &Party,
    getter: &Party,
) -> Result<(), MembraneError> {
    loop {
        let message = match receive_message(from).await {
            Ok(Some(message)) => message,
            Ok(None) => break,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(MessageFlaw::Malformed("its end is missing".into()).into());
            }
            Err(error) => return Err(error.into()),
        };
        let message = exchange(&message, |it| {
            passage.wrap(&it, giver, getter, offer_reference)
        })?;
        places.iter().for_each(Place::used);
        send_message(to, &message).await?;
        places.iter().for_each(Place::used);
    }
    to.shutdown().await?;
    Ok(())
}
