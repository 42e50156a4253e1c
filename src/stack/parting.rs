//! Ending a stream that becomes no session, so that its peer learns why.
//!
//! A stream that is closed with unread bytes is reset, and a reset tells nothing. So something is said first, as far as that
//! is possible where the stream has got to: before TLS an alert in the clear, within it what the layer has to say, and above
//! it the mux has its codes. Then our direction is ended, and the peer's is read for a moment.

use std::time::Duration;

use cepa_transports::Stream;
use cepa_transports::meter::Metered;
use tokio::io::{self, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::onion::Onion;
use crate::wire::{drain, linger_close};

/// How long a refused peer gets to read why.
const PARTING: Duration = Duration::from_secs(1);

/// A record with an alert: fatal, `user_canceled`, which is for "some reason unrelated to a protocol failure" (RFC 8446,
/// sections 5.1 and 6.2). Before the first answer of a server it is read in the clear.
const BUSY: [u8; 7] = [21, 3, 3, 0, 2, 2, 90];

/// Tells a client that there is no place for its handshake, which has not begun; it has so long to read that.
///
/// # Cancel safety
/// Dropping the future drops the stream.
pub(super) async fn turn_away(mut stream: Stream, time: Duration) {
    if let Ok(Ok(())) = timeout(time, say_busy(&mut stream)).await {
        linger_close(&mut stream, time).await;
    }
}

async fn say_busy<T: AsyncWrite + Unpin>(wire: &mut T) -> io::Result<()> {
    wire.write_all(&BUSY).await?;
    wire.flush().await
}

/// Ends a stream that failed, so that the peer learns why: the alert is sent, our direction closed, and the peer's direction
/// read for a moment, on the wire, since nothing of it can be read above.
pub(crate) async fn close_lingering(mut onion: Onion<Metered<Stream>>) {
    if let Ok(Ok(())) = timeout(PARTING, onion.shutdown()).await {
        drain(onion.wire_mut(), PARTING).await;
    }
}

/// The same for one whose handshake is given up for want of room: `in_the_clear` where a server has said nothing yet.
pub(super) async fn give_up(mut onion: Onion<Metered<Stream>>, in_the_clear: bool) {
    if !in_the_clear {
        return close_lingering(onion).await;
    }
    let wire = onion.wire_mut();
    if let Ok(Ok(())) = timeout(PARTING, say_busy(wire)).await {
        linger_close(wire, PARTING).await;
    }
}
