//! Staying registered at a relay.

use std::sync::Arc;

use tokio::time::{Instant, sleep};

use crate::relay::Registration;
use crate::session::{Backoff, Session};

use super::addr::PeerAddr;
use super::core::Core;
use super::dial;
use super::error::RegisterError;
use super::event::Event;

/// The first registration; what follows runs in a task of its own.
pub(super) async fn register(core: &Arc<Core>, relay: &PeerAddr) -> Result<(), RegisterError> {
    let registered = once(core, relay).await?;
    let (core, relay) = (Arc::clone(core), relay.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = stay(&core, &relay, registered) => {}
            () = core.stopping() => {}
        }
        core.take_no_circuits_of(relay.peer());
    });
    Ok(())
}

async fn once(
    core: &Arc<Core>,
    relay: &PeerAddr,
) -> Result<(Session, Registration), RegisterError> {
    let session = dial::session(core, relay).await?;
    // Before it is asked: a circuit may come right behind its answer.
    core.take_circuits_of(relay.peer());
    let registration = Registration::at(&session, core.config.registration).await?;
    core.tell(Event::Registered(relay.peer()));
    Ok((session, registration))
}

/// Renews, and begins anew whenever that fails.
async fn stay(core: &Arc<Core>, relay: &PeerAddr, mut now: (Session, Registration)) {
    let mut backoff = Backoff::default();
    loop {
        let since = Instant::now();
        let why = keep(core, &mut now.0, &mut now.1).await;
        core.tell(Event::Unregistered(relay.peer(), why));
        backoff.stood_for(since.elapsed());
        let tell = |error: &RegisterError| {
            core.tell(Event::Unregistered(relay.peer(), error.to_string()));
            // A relay may come to allow what it refuses now.
            true
        };
        match backoff.again(|| once(core, relay), tell).await {
            Ok(registered) => now = registered,
            Err(_) => return,
        }
    }
}

/// Renews in time until that fails, or the session is over; says why.
async fn keep(core: &Core, session: &mut Session, registration: &mut Registration) -> String {
    loop {
        tokio::select! {
            () = sleep(registration.lifetime() / 2) => {}
            end = session.closed() => return end.to_string(),
        }
        if let Err(error) = registration.renew(session, core.config.registration).await {
            return error.to_string();
        }
    }
}
