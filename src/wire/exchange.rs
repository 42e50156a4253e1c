//! Sending and reading messages on a stream.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::message::{Message, MessageError};

/// Room that is made before any byte of a message has arrived.
const FIRST_ROOM: usize = 1024;

/// Sends one message.
pub(crate) async fn send<S>(stream: &mut S, message: &impl Message) -> io::Result<()>
where
    S: AsyncWrite + Unpin,
{
    stream.write_all(&message.framed()).await?;
    stream.flush().await
}

/// Reads one message and not a byte more. Not cancel safe.
///
/// A [`MessageError`] comes inside the [`io::Error`].
pub(crate) async fn receive<M: Message>(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<M> {
    let fault = |fault: MessageError| io::Error::new(io::ErrorKind::InvalidData, fault);
    let mut head = [0; 2];
    stream.read_exact(&mut head).await?;
    let length = M::length(head).map_err(fault)?;
    // Memory grows with what arrives, not with what was announced.
    let mut body = Vec::with_capacity(length.min(FIRST_ROOM));
    stream.take(length as u64).read_to_end(&mut body).await?;
    if body.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    M::read(&body).map_err(fault)
}

/// What does not fit, where the other end is at fault and not the way to it.
pub(crate) fn fault(error: &io::Error) -> Option<MessageError> {
    error.get_ref()?.downcast_ref::<MessageError>().cloned()
}
