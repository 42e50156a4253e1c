//! Those who come through a listener.

use std::sync::Arc;
use std::time::Duration;

use cepa_transports::{self as transports, Endpoint, Listener, TransportError};
use tokio::time::sleep;

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
    tokio::spawn(accept(Arc::clone(core), listener));
    Ok(real)
}

async fn accept(core: Arc<Core>, mut listener: Listener) {
    let endpoint = listener.endpoint().clone();
    let many = matches!(endpoint.scheme(), "tcp" | "unix" | "memory");
    let config = core.config.stack.tuned_to(&endpoint);
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
                core.tell(Event::TurnedAway(endpoint.to_string(), error.to_string()));
                sleep(PAUSE).await;
                continue;
            }
            Err(error) => break error.to_string(),
        };
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
