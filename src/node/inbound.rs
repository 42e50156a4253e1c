//! Those who come through a listener.

use std::sync::Arc;
use std::time::Duration;

use cepa_transports::{self as transports, Endpoint, Listener, TransportError};
use tokio::time::sleep;

use crate::gate::Source;
use crate::session::Backoff;

use super::core::Core;
use super::event::Event;
use super::live::come;

/// Pause after a failed accept, and after a failed session on a line that has only one.
const PAUSE: Duration = Duration::from_millis(500);

/// Listens in a task of its own.
pub(super) async fn listen(
    core: &Arc<Core>,
    endpoint: &Endpoint,
) -> Result<Endpoint, TransportError> {
    let listener = transports::listen(endpoint).await?;
    let real = listener.endpoint().clone();
    core.tell(Event::Listening(real.clone()));
    remark(core, &listener);
    tokio::spawn(accept(Arc::clone(core), listener));
    Ok(real)
}

fn remark(core: &Core, listener: &Listener) {
    for remark in listener.remarks() {
        core.tell(Event::Remark(remark.clone()));
    }
}

async fn accept(core: Arc<Core>, mut listener: Listener) {
    let endpoint = listener.endpoint().clone();
    let many = endpoint.accepts_many();
    let config = core.config.stack.tuned_to(&endpoint);
    let mut absent: Option<Backoff> = None;
    let why = loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = core.stopping() => return,
        };
        let stream = match accepted {
            Ok(Some(stream)) => stream,
            Ok(None) => break String::new(),
            // Out of descriptors, or a connection that was gone again: others may follow.
            Err(error) if many => {
                let (at, why) = (endpoint.to_string(), error.to_string());
                core.tell(Event::TurnedAway(Source::HERE, at, why));
                sleep(PAUSE).await;
                continue;
            }
            // An adapter that was unplugged comes back, by a path under by-id the same one.
            Err(error) if endpoint.is_line() => {
                if absent.is_none() {
                    let why = format!("{error}; waiting for it to come back");
                    core.tell(Event::ListenerGone(endpoint.clone(), why));
                }
                let backoff = absent.get_or_insert_with(|| Backoff::for_endpoint(&endpoint));
                tokio::select! {
                    () = sleep(backoff.pause()) => continue,
                    () = core.stopping() => return,
                }
            }
            Err(error) => break error.to_string(),
        };
        if absent.take().is_some() {
            core.tell(Event::Listening(endpoint.clone()));
            remark(&core, &listener);
        }
        let layers = endpoint.layers().to_vec();
        let (core, config) = (Arc::clone(&core), config.clone());
        let come = async move { come(&core, stream, &layers, Vec::new(), &config).await };
        if many {
            tokio::spawn(come);
        } else if let Some(session) = come.await {
            // One line, one peer: the next begins when this one is over.
            session.closed().await;
        } else {
            sleep(PAUSE).await;
        }
    };
    core.tell(Event::ListenerGone(endpoint, why));
}
