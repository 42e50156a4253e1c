//! What the connections of a long-running command share: the session that they go over, while it may be replaced by
//! another one, and places for as many of them as there are descriptors for. And listening at several addresses as at one.

use std::sync::Arc;

use cepa::transports::{self, Endpoint, Listener, TransportError, TransportErrorKind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::connection::Connected;
use crate::log::{OURS, say_once_a_minute};
use crate::stack;

/// The session that connections go over; none while it is being made again.
pub(crate) type Current = watch::Receiver<Option<Arc<Connected>>>;

/// The session that comes after this one; none if the command ends.
pub(crate) async fn next(standing: &mut Current, gone: &Arc<Connected>) -> Option<Arc<Connected>> {
    loop {
        let now = standing.borrow_and_update().clone();
        if let Some(connection) = now.filter(|connection| !Arc::ptr_eq(connection, gone)) {
            return Some(connection);
        }
        standing.changed().await.ok()?;
    }
}

/// A place for one connection more; while there is none, who comes waits in the system's queue.
pub(crate) async fn place_in(room: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    if let Ok(place) = Arc::clone(room).try_acquire_owned() {
        return Some(place);
    }
    let kind = format!(
        "{} connections are open, as many as this process may have (ulimit -n); further ones wait",
        stack::connections()
    );
    say_once_a_minute(OURS, &kind, &kind);
    // It is never closed.
    Arc::clone(room).acquire_owned().await.ok()
}

/// Listens at each of them, all on one port; an address that this machine does not have is left out, if there is another one.
pub(crate) async fn bind(places: &[Endpoint]) -> Result<Vec<Listener>, TransportError> {
    let mut bound: Vec<Listener> = Vec::new();
    let mut absent = None;
    for at in places {
        let at = bound
            .first()
            .and_then(|first| at_its_port(at, first.endpoint()))
            .unwrap_or_else(|| at.clone());
        match transports::listen(&at).await {
            Ok(listener) => bound.push(listener),
            // A name of this machine leads there, too: nobody else may have that port.
            Err(e) if is_own(e.kind()) => return Err(e),
            Err(e) => absent = absent.or(Some(e)),
        }
    }
    match absent {
        Some(e) if bound.is_empty() => Err(e),
        _ => Ok(bound),
    }
}

/// The address with the port of another one, where it asks for any.
fn at_its_port(at: &Endpoint, other: &Endpoint) -> Option<Endpoint> {
    let (_, port) = other.place()?;
    let text = at.to_string();
    format!("{}:{port}", text.strip_suffix(":0")?).parse().ok()
}

/// Whether an address can be listened at, but not by this process.
fn is_own(kind: TransportErrorKind) -> bool {
    matches!(
        kind,
        TransportErrorKind::AddressInUse | TransportErrorKind::PermissionDenied
    )
}
