//! Connecting and listening at once, from one port, until it is given up.
//!
//! A connection that both ends begin at one moment opens the NATs of both. One whose SYN comes before the other end's has left is
//! dropped there, and repeated by the system after a second; or it is refused, and tried again after a pause that differs each time, so that
//! two that miss each other do not do so for ever.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use cepa_transports::{PortListener, SharedPort, Stream};
use futures::future::join_all;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::backend;

/// Connections that are tried to one address. One sends two SYNs at most.
const TRIES: u32 = 8;

/// How long one of them waits: its SYN is repeated after 1 s (RFC 6298), and not again within this.
const ONE_TRY: Duration = Duration::from_millis(2500);

/// The shortest pause between two tries, and how much longer it may be.
const PAUSE: (u64, u64) = (50, 400);

/// Connections that are accepted in one attempt: the peer comes over a few ways, and others do not know the port.
const ACCEPTED: usize = 8;

/// Tries all of these addresses, and hands over each connection that comes about. Goes on until every try is made; never ends
/// by itself while the listener has not had its share.
pub(super) async fn punch(
    port: SharedPort,
    listener: PortListener,
    addresses: Vec<SocketAddr>,
    found: mpsc::Sender<Stream>,
) {
    let knocking = addresses.into_iter().map(|at| knock(port, at, &found));
    tokio::join!(join_all(knocking), accept(listener, &found));
}

async fn accept(listener: PortListener, found: &mpsc::Sender<Stream>) {
    let mut accepted = 0;
    while accepted < ACCEPTED {
        match listener.accept().await {
            Ok(stream) => {
                accepted += 1;
                if found.send(stream).await.is_err() {
                    return;
                }
            }
            // It was gone again, or there are no descriptors.
            Err(_) => sleep(Duration::from_millis(PAUSE.1)).await,
        }
    }
}

async fn knock(port: SharedPort, to: SocketAddr, found: &mpsc::Sender<Stream>) {
    for _ in 0..TRIES {
        match timeout(ONE_TRY, port.connect(to)).await {
            Ok(Ok(stream)) => {
                let _ = found.send(stream).await;
                return;
            }
            // There is one already: the listener has it.
            Ok(Err(error)) if error.kind() == io::ErrorKind::AddrNotAvailable => return,
            Ok(Err(_)) | Err(_) => {}
        }
        sleep(pause(backend::seed())).await;
    }
}

fn pause(seed: u64) -> Duration {
    let (least, more) = PAUSE;
    Duration::from_millis(least + seed % more)
}
