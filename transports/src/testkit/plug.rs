//! Plugs an end of a [`cable`](super::cable) into a listener, a `pty:` above all: whoever opens the other end of
//! that has a serial line with the cable's rate, noise and driver.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::cable::CableEnd;
use crate::error::TransportError;
use crate::listen::Listener;

/// Bytes that are between the stream and the cable: whatever is here is in no driver.
const PIECE: usize = 64;

/// Joins one stream after the other to the cable, until the listener ends or fails. While nobody is there,
/// what the cable brings is lost, as it is where no port is open.
///
/// # Cancel safety
/// Dropping the future loses what it is just moving.
pub async fn plug(mut listener: Listener, mut end: CableEnd) -> Result<(), TransportError> {
    let mut lost = [0; PIECE];
    loop {
        let stream = loop {
            tokio::select! {
                stream = listener.accept() => break stream?,
                _ = end.read(&mut lost) => {}
            }
        };
        let Some(stream) = stream else {
            return Ok(());
        };
        let (from_stream, to_stream) = tokio::io::split(stream);
        let (from_cable, to_cable) = tokio::io::split(&mut end);
        // Either one ends with the stream: a cable has no end.
        tokio::select! {
            _ = carry(from_stream, to_cable) => {}
            _ = carry(from_cable, to_stream) => {}
        }
    }
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    let mut piece = [0; PIECE];
    loop {
        let n = from.read(&mut piece).await?;
        if n == 0 {
            return Ok(());
        }
        to.write_all(piece.get(..n).unwrap_or_default()).await?;
        to.flush().await?;
    }
}
