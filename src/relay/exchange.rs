//! Sending and reading the messages of this protocol on a substream.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::mux::Substream;
use crate::onion::Onion;

use super::message::{Message, MessageError};

/// Sends one message.
pub(crate) async fn send(stream: &mut Onion<Substream>, message: &impl Message) -> io::Result<()> {
    stream.write_all(&message.framed()).await?;
    stream.flush().await
}

/// Reads one message and not a byte more. Not cancel safe.
///
/// A [`MessageError`] comes inside the [`io::Error`].
pub(crate) async fn receive<M: Message>(stream: &mut Onion<Substream>) -> io::Result<M> {
    let fault = |fault: MessageError| io::Error::new(io::ErrorKind::InvalidData, fault);
    let mut head = [0; 2];
    stream.read_exact(&mut head).await?;
    let length = M::length(head).map_err(fault)?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    M::read(&body).map_err(fault)
}

/// What does not fit, where the other end is at fault and not the way to it.
pub(crate) fn fault(error: &io::Error) -> Option<String> {
    let fault = error.get_ref()?.downcast_ref::<MessageError>()?;
    Some(fault.to_string())
}
