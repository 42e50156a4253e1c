//! The hello of a path, over a byte stream that is authenticated and that nothing else uses yet.
//!
//! None of these has a limit of time: the handshake that they belong to has one.

use std::io;
use std::time::Duration;

use cepa_transports::{ByteStream, Side};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use zeroize::Zeroizing;

use super::error::Refusal;
use super::hello::{Answer, At, BODY_MAX, HEAD, Hello, HelloMalformed, Ticket};

/// Why the hello of a path failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HelloError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Malformed(#[from] HelloMalformed),
    /// The peer said so.
    #[error("{0}")]
    Refused(Refusal),
    /// The answer is not from who has the token.
    #[error("the peer can't prove that it has the session; is somebody between?")]
    Proof,
}

/// Begins a session. What it writes is not flushed: it leaves with the first frames.
pub(crate) async fn client_new(
    io: &mut impl ByteStream,
    ticket: &Ticket,
    park: Duration,
) -> io::Result<()> {
    let hello = Hello::New {
        ticket: ticket.clone(),
        park,
    };
    io.write_all(&hello.encode()).await
}

/// Takes a session up again, as the client of this connection, and waits for the answer. `exporter` is the
/// `tls-exporter` of this connection; `at` is what a [`Proposal`](super::Proposal) says.
pub(crate) async fn client_resume(
    io: &mut impl ByteStream,
    ticket: &Ticket,
    exporter: &[u8; 32],
    at: At,
) -> Result<At, HelloError> {
    let hello = Hello::Resume {
        id: ticket.id,
        at,
        proof: ticket.proof(Side::Client, exporter, at),
    };
    io.write_all(&hello.encode()).await?;
    io.flush().await?;
    let (head, body) = read(io, Answer::length).await?;
    match Answer::decode(head, &body)? {
        Answer::Resumed { at, proof } => {
            if ticket.proves(&proof, Side::Server, exporter, at) {
                Ok(at)
            } else {
                Err(HelloError::Proof)
            }
        }
        Answer::Refused(reason) => Err(HelloError::Refused(reason)),
    }
}

/// Reads what the client of a connection says first. The proof of a `resume` is to be checked with the
/// [`Ticket`] of the session that it names: [`Ticket::proves`] with `Side::Client`.
pub(crate) async fn read_hello(io: &mut impl ByteStream) -> Result<Hello, HelloError> {
    let (head, body) = read(io, Hello::length).await?;
    Ok(Hello::decode(head, &body)?)
}

/// Answers a `resume` that was proven: the session goes on here. It is not flushed, and leaves with the first frames.
pub(crate) async fn answer_resumed(
    io: &mut impl ByteStream,
    ticket: &Ticket,
    exporter: &[u8; 32],
    at: At,
) -> io::Result<()> {
    let proof = ticket.proof(Side::Server, exporter, at);
    io.write_all(&Answer::Resumed { at, proof }.encode()).await
}

/// Answers a `resume` that is not followed, and flushes that.
pub(crate) async fn answer_refused(io: &mut impl ByteStream, reason: Refusal) -> io::Result<()> {
    io.write_all(&Answer::Refused(reason).encode()).await?;
    io.flush().await
}

/// Reads a head and what it says that follows: not a byte more, which would be of a frame.
async fn read(
    io: &mut impl ByteStream,
    length: impl Fn([u8; HEAD]) -> Result<usize, HelloMalformed>,
) -> Result<([u8; HEAD], Zeroizing<Vec<u8>>), HelloError> {
    let mut head = [0; HEAD];
    io.read_exact(&mut head).await?;
    let mut body = Zeroizing::new([0; BODY_MAX]);
    let room = body.get_mut(..length(head)?).unwrap_or_default();
    io.read_exact(room).await?;
    Ok((head, Zeroizing::new(room.to_vec())))
}
