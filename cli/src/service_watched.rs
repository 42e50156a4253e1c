//! Watching at a server: `cepa.watch.KEPT.NAME`. Whoever may open the service sees what somebody else's console there says, unless its
//! owner lets nobody (`watch=no`). What a watcher sends is read and thrown away.

use cepa::node::Call;
use cepa::tls::TlsConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::accept::{Asked, Gate, ONE, accept, held, refuse};
use crate::columns::count;
use crate::console::framed::Framed;
use crate::console::ring::RING;
use crate::console::watched::{Piece, Sources, What};
use crate::console::wire::{Message, Status};
use crate::line_holders::name;
use crate::service_kept::NO_MEMORY;
use crate::upstream::leave;

/// What a watcher reads whom the owner does not let.
const NOT_WATCHED: &str = "the owner of this service lets nobody watch it (watch=no)";

/// Shows a peer what the service says to who has it open.
pub(crate) async fn watch(
    (sources, inner, gate): (&Sources, &TlsConfig, &Gate),
    allowed: bool,
    kept: &str,
    service: &str,
    call: Call,
) -> Result<(), String> {
    if !allowed {
        let _ = call.refuse(NOT_WATCHED).await;
        return Ok(());
    }
    let (call, _share) = held(call, ONE).await?;
    let Some(_memory) = call.memory().hold(RING) else {
        refuse(call, NO_MEMORY).await;
        return Err(NO_MEMORY.to_owned());
    };
    let peer = call.peer().id();
    let called = |what: &What| match what {
        what if what.peer == peer => "another connection of yours watches".to_owned(),
        what if what.is_named => format!("{} watches", name(peer)),
        _ => "somebody watches".to_owned(),
    };
    let kept = Some(kept).filter(|kept| !kept.is_empty());
    let mut watcher = match sources.watch(service, kept, peer, called) {
        Ok(watcher) => watcher,
        Err(why) => {
            let _ = call.refuse(why).await;
            return Ok(());
        }
    };
    let Some(call) = gate.passed(call, Asked::Opened).await else {
        return Ok(());
    };
    let mut far = Framed::new(accept(call, inner).await?, Box::new(|_| ()));
    let mut typed = [0; 1024];
    loop {
        let piece = tokio::select! {
            piece = watcher.next() => piece,
            read = far.read(&mut typed) => match read {
                Ok(1..) => continue,
                // It leaves, or is gone.
                _ => return Ok(()),
            },
        };
        let ends = match piece {
            Piece::Bytes(bytes) => {
                if far.write_all(&bytes).await.is_err() {
                    return Ok(());
                }
                None
            }
            Piece::Skipped(bytes) => {
                let line = format!("[{} skipped]", count(bytes, "byte"));
                far.outbox().push(Message::Stderr(line));
                None
            }
            Piece::Over => Some(("what you watched has ended", Status::Exited(0))),
            Piece::SentAway => {
                let why = "the service was changed, or is for others now";
                Some((why, Status::Failed(why.to_owned())))
            }
        };
        if let Some((line, status)) = ends {
            if status == Status::Exited(0) {
                far.outbox().push(Message::Stderr(line.to_owned()));
            }
            far.outbox().push(Message::Ended(status));
            leave(&mut far, |far| far.inner_mut().wire_mut(), true).await;
            return Ok(());
        }
        if far.flush().await.is_err() {
            return Ok(());
        }
    }
}
