//! The far end of `cepa exec`: a substream whose opener says which program it wants with which arguments, judged by the list of the
//! service (`programs.rs`), and joined to that as to a service `exec:` with its status.
//!
//! Whoever asks is answered with a status in any case, and the owner's log has what it asked for.

use std::time::Duration;

use cepa::mux::{ReceivePool, Substream};
use cepa::onion::Onion;
use cepa::session::Session;
use cepa::transports::Terminal;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use crate::accept::UNREACHABLE;
use crate::console::framed::{Framed, Outbox};
use crate::console::wire::{self, Message, Status};
use crate::programs::{self, NOT_ALLOWED, Programs};
use crate::upstream::Near;

/// How long the opener may take to say what it wants: it sends that with its request.
const ASKING: Duration = Duration::from_secs(30);

/// How long a last message may take to leave.
const PARTING: Duration = Duration::from_millis(500);

/// What is shown in the log of a name that a peer made up.
const SHOWN: usize = 100;

/// Serves one substream to its end. `Err` is for the log.
pub(crate) async fn serve(
    name: &str,
    allowed: &Programs,
    mut far: Onion<Substream>,
    peer: &(Session, ReceivePool),
) -> Result<(), String> {
    let words = match timeout(ASKING, programs::asked(&mut far)).await {
        Ok(Ok(words)) => words,
        Ok(Err(e)) => return Err(format!("the request was not understood: {e}")),
        Err(_) => return Err("the peer has not said what it wants to run".to_owned()),
    };
    let outbox = Outbox::default();
    let mut far = Framed::new(far, Box::new(|_| ()))
        .with_chunk(wire::BULK_MAX)
        .with_outbox(outbox.clone());
    let opened = match allowed.command(&words) {
        Err(reason) => {
            let asked = words.first().map(String::as_str).unwrap_or_default();
            let asked: String = asked.chars().take(SHOWN).collect();
            // Advice for the peer is none for who owns this.
            let why = match reason {
                NOT_ALLOWED => "this service does not list it",
                reason => reason,
            };
            Err((reason, format!("{asked:?} was asked for: {why}")))
        }
        Ok(to) => {
            let terminal = Terminal::default();
            match Near::open(name, &to, &terminal, peer, Some(outbox.clone())).await {
                Ok(near) => Ok((near, to)),
                // What exactly is wrong here is for the operator, not for the peer.
                Err(e) => Err((UNREACHABLE, e.to_string())),
            }
        }
    };
    match opened {
        Ok((near, to)) => {
            Box::new(near)
                .serve(&to, Box::new(far), |far| far.inner_mut().wire_mut())
                .await
        }
        Err((reason, why)) => {
            outbox.push(Message::Ended(Status::Failed(reason.to_owned())));
            let _ = timeout(PARTING, far.shutdown()).await;
            Err(why)
        }
    }
}
