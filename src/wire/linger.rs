//! Closing a stream so that the peer can read what was written last.
//!
//! A reset can overtake data on its way: closing a TCP socket that has unread bytes sends one, and so does dropping a
//! substream that is not finished. So the end of our direction is sent, and the peer's direction is read until it
//! ends, for so long and for so many bytes. It is `SO_LINGER` as RFC 9112, section 9.6, wants it from servers.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Bytes that are read and dropped at most: a peer that goes on sending is not waited for.
const MOST_BYTES: usize = 256 * 1024;

/// Ends our direction, then waits for the end of the peer's, at most for `time`.
///
/// # Cancel safety
/// Dropping the future gives the wait up.
pub(crate) async fn linger_close<S>(stream: &mut S, time: Duration)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if let Ok(Ok(())) = timeout(time, stream.shutdown()).await {
        drain(stream, time).await;
    }
}

/// Reads and drops what the peer still sends, until it ends; at most for `time`, and as much as is patient.
///
/// # Cancel safety
/// Dropping the future gives the wait up.
pub(crate) async fn drain<S: AsyncRead + Unpin>(stream: &mut S, time: Duration) {
    // On the heap: whoever waits for this should not be larger for it.
    let (mut scratch, mut total) = (vec![0; 1024], 0);
    let read = async {
        while let Ok(n @ 1..) = stream.read(&mut scratch).await {
            total += n;
            if total > MOST_BYTES {
                return;
            }
        }
    };
    let _ = timeout(time, read).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_written_last_arrives_though_the_peer_goes_on_sending() {
        let (mut near, mut far) = tokio::io::duplex(64);
        near.write_all(b"no").await.unwrap();
        let peer = tokio::spawn(async move {
            // Does not read before it has sent a lot.
            far.write_all(&[7; 1000]).await.unwrap();
            let mut text = String::new();
            far.read_to_string(&mut text).await.unwrap();
            text
        });
        linger_close(&mut near, Duration::from_secs(60)).await;
        drop(near);
        assert_eq!(peer.await.unwrap(), "no");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_never_ends_is_not_waited_for() {
        let (mut near, far) = tokio::io::duplex(64);
        linger_close(&mut near, Duration::from_secs(5)).await;
        drop(far);
        let (mut near, mut far) = tokio::io::duplex(64);
        let flood = tokio::spawn(async move { while far.write_all(&[0; 64]).await.is_ok() {} });
        linger_close(&mut near, Duration::from_secs(1 << 30)).await;
        drop(near);
        flood.await.unwrap();
    }
}
