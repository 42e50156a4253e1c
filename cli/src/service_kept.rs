//! Consoles that are kept, for the peers that they are for: attach to one, list them, end one.
//!
//! ```text
//!   cepa.attach.KEPT.NAME   the console of that name at the service; a new one where there is none
//!   cepa.kept               what the peer has, at whichever service
//!   cepa.hangup.KEPT.NAME   its command is hung up, and that is waited for
//! ```

use std::sync::Arc;
use std::time::Duration;

use cepa::node::Call;
use cepa::tls::TlsConfig;
use cepa::transports::{self, Endpoint};
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use crate::accept::{Asked, Gate, ONE, UNREACHABLE, accept, cost, held, refuse};
use crate::args::Target;
use crate::console::framed::Framed;
use crate::console::keeper::{Keeper, Place};
use crate::console::kept::{Kept, Takes};
use crate::console::ring::RING;
use crate::console::seat::{Left, Seat};
use crate::console::served::Served;
use crate::console::watched::{Sources, What};
use crate::console::wire::{self, Message, Status};
use crate::limits::HANG_UP;
use crate::upstream::leave;

/// What a peer reads where consoles are not kept, at all or of this service.
const NONE_KEPT: &str = "this server keeps no consoles (--keep-consoles); leave out --attach";
pub(crate) const NOT_KEPT: &str =
    "only a command on a terminal can be kept (exec:…,pty=yes); leave out --attach";
pub(crate) const NO_MEMORY: &str =
    "your share of the server's memory is used up; close something first";

/// And where it wants to end one that is not there.
const NO_SUCH: &str = "no console of this name is kept for you; --attached lists those that are";

/// How long the end of a command is waited for: what does not end by itself is killed.
const ENDING: Duration = Duration::from_secs(HANG_UP.as_secs() + 5);

/// A service at somebody's terminal, which goes on without them and is there under this name when they are back.
pub(crate) async fn attach(
    (keeper, sources, inner, gate): (&Arc<Keeper>, &Sources, &TlsConfig, &Gate),
    kept: &str,
    name: &str,
    target: &Target,
    mut call: Call,
) -> Result<(), String> {
    let refused = async |call: Call, why: &str| {
        let _ = call.refuse(why).await;
        Err(format!("console {kept}: {why}"))
    };
    let Some(time) = keeper.time() else {
        return refused(call, NONE_KEPT).await;
    };
    let Some(to) = on_terminal(target) else {
        return refused(call, NOT_KEPT).await;
    };
    // Before it is accepted, so that a limit is a refusal.
    let place = match keeper.place(&call, name, kept) {
        Ok(Place::Kept(seats)) => Ok(seats),
        Ok(Place::Free(label, door)) => {
            let (held, share) = held(call, cost(to)).await?;
            call = held;
            let Some(memory) = call.memory().hold(RING) else {
                refuse(call, NO_MEMORY).await;
                return Err(NO_MEMORY.to_owned());
            };
            Err((label, door, Takes { share, memory }))
        }
        Err(full) => {
            refuse(call, &full).await;
            return Err(full);
        }
    };
    let Some(call) = gate.passed(call, Asked::Opened).await else {
        return Ok(());
    };
    let (session, is_named) = (call.session().clone(), call.context().is_named());
    let mut served = Box::new(Served::new(accept(call, inner).await?));
    let terminal = served.terminal().await.map_err(|e| e.to_string())?;
    let (seat, left) = Seat::new(served, &session);
    let mut failed = None;
    match place {
        Ok(seats) => {
            if let Err(late) = seats.send(seat).await {
                late.0.late();
            }
        }
        Err((label, door, takes)) => {
            let what = What {
                service: name.to_owned(),
                kept: Some(kept.to_owned()),
                peer: label.peer,
                is_named,
            };
            let door = (door, sources.open(what, true));
            match Kept::start(to, &terminal, label, takes, door, time).await {
                Ok(kept) => keeper.run(kept, seat),
                Err(e) => {
                    // What exactly is wrong here is for the operator, not for the peer.
                    seat.ends(Status::Failed(UNREACHABLE.to_owned()));
                    failed = Some(e.to_string());
                }
            }
        }
    }
    if let Ok(Left::Ends(mut far, status)) = left.await {
        far.outbox().push(Message::Ended(status));
        leave(&mut far.far, |far| far.inner_mut().wire_mut(), true).await;
    }
    failed.map_or(Ok(()), Err)
}

/// Tells a peer which consoles are kept for it.
pub(crate) async fn list(
    keeper: &Arc<Keeper>,
    inner: &TlsConfig,
    call: Call,
) -> Result<(), String> {
    let (call, _share) = held(call, ONE).await?;
    let mut all: Vec<Message> = keeper.list_of(call.peer());
    all.push(Message::Ended(Status::Exited(0)));
    let mut bytes = Vec::new();
    for message in &all {
        wire::put(message, &mut bytes);
    }
    let mut far = accept(call, inner).await?;
    far.write_all(&bytes).await.map_err(|e| e.to_string())?;
    leave(&mut far, |far| far.wire_mut(), true).await;
    Ok(())
}

/// Ends one of them, and tells when it has.
pub(crate) async fn hang_up(
    keeper: &Arc<Keeper>,
    inner: &TlsConfig,
    kept: &str,
    name: &str,
    call: Call,
) -> Result<(), String> {
    let (call, _share) = held(call, ONE).await?;
    let Some(gone) = keeper.hang_up(call.peer(), name, kept) else {
        let _ = call.refuse(NO_SUCH).await;
        return Ok(());
    };
    let mut far = Framed::new(accept(call, inner).await?, Box::new(|_| ()));
    // It says nothing: it is dropped.
    let _ = timeout(ENDING, gone).await;
    far.outbox().push(Message::Ended(Status::Exited(0)));
    leave(&mut far, |far| far.inner_mut().wire_mut(), true).await;
    Ok(())
}

/// The address of a service that is a command on a terminal.
fn on_terminal(target: &Target) -> Option<&Endpoint> {
    let Target::Dial(to) = target else {
        return None;
    };
    let on_terminal = matches!(to.target(), transports::Target::Exec { pty: true, .. });
    on_terminal.then_some(to)
}
