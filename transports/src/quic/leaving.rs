//! How a stream leaves its connection: quinn runs inside this process, so what was written and is not yet acknowledged goes with it,
//! where TCP's would be sent by the system. A stream that is dropped leaves a task behind which waits for that (a bounded while), closes the
//! connection, and ends; a program that is about to end waits for these tasks by [`settled`].
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quinn::{Connection, ConnectionError, VarInt};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::wire::CUT;

/// How long a close may take to be sent, once the rest is: as long as a processor that is busy otherwise lets its task wait.
const SENT: Duration = Duration::from_millis(500);

/// How often it is looked whether it was; quinn does not tell.
const LOOK: Duration = Duration::from_millis(2);

/// The connections of this process whose streams are in use.
static LIVE: LazyLock<Mutex<HashMap<u64, Connection>>> = LazyLock::new(Mutex::default);

/// How many are leaving.
static LEAVING: LazyLock<watch::Sender<usize>> = LazyLock::new(|| watch::Sender::new(0));

fn live() -> MutexGuard<'static, HashMap<u64, Connection>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An entry of those in use.
pub(super) struct Live(u64);

impl Live {
    pub(super) fn new(connection: &Connection) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        live().insert(id, connection.clone());
        Self(id)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        live().remove(&self.0);
    }
}

/// One that leaves.
pub(super) struct Leaving(());

impl Leaving {
    pub(super) fn new() -> Self {
        LEAVING.send_modify(|n| *n = n.saturating_add(1));
        Self(())
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        LEAVING.send_modify(|n| *n = n.saturating_sub(1));
    }
}

/// Closes it, and waits until the packet that says so was sent.
pub(super) async fn close(connection: &Connection, with: VarInt) {
    // Of a connection that is closed no other packet is sent.
    let before = connection.stats().udp_tx.datagrams;
    connection.close(with, b"");
    if connection.close_reason() == Some(ConnectionError::LocallyClosed) {
        sent_more(connection, before).await;
    }
}

/// Waits until more datagrams were sent than so many.
pub(super) async fn sent_more(connection: &Connection, before: u64) {
    let sent = async {
        while connection.stats().udp_tx.datagrams <= before {
            sleep(LOOK).await;
        }
    };
    // Where none is, the other end finds out by the silence.
    let _ = timeout(SENT, sent).await;
}

/// For a program that is about to end: waits until what this process sends by itself, and not the system, is under way; no longer than
/// `most` for what was written to streams that are dropped by now. Streams that are not are cut.
///
/// Only streams of `quic:` have any of it. Must be called inside a tokio runtime with time enabled.
pub async fn settled(most: Duration) {
    let mut leaving = LEAVING.subscribe();
    let _ = timeout(most, leaving.wait_for(|n| *n == 0)).await;
    let rest: Vec<Connection> = live().values().cloned().collect();
    for connection in rest {
        close(&connection, CUT).await;
    }
}
