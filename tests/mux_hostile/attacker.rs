//! A peer made of bytes: it writes any frame that one asks for, and reads only what it is told to.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};

pub(crate) const DATA: u8 = 0;
pub(crate) const WINDOW: u8 = 1;
pub(crate) const PING: u8 = 2;
pub(crate) const GO_AWAY: u8 = 3;

pub(crate) const SYN: u16 = 1;
pub(crate) const ACK: u16 = 2;
pub(crate) const FIN: u16 = 4;
pub(crate) const RST: u16 = 8;

/// What the spec grants every stream.
pub(crate) const INITIAL_WINDOW: u32 = 256 << 10;

pub(crate) fn header(kind: u8, flags: u16, id: u32, length: u32) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[1] = kind;
    bytes[2..4].copy_from_slice(&flags.to_be_bytes());
    bytes[4..8].copy_from_slice(&id.to_be_bytes());
    bytes[8..].copy_from_slice(&length.to_be_bytes());
    bytes
}

/// A data frame with its body.
pub(crate) fn data(flags: u16, id: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = header(DATA, flags, id, body.len() as u32).to_vec();
    bytes.extend_from_slice(body);
    bytes
}

/// One frame as it came: type, flags, stream, length; bodies are skipped.
pub(crate) type Seen = (u8, u16, u32, u32);

/// Reads frames until the stream ends or fails.
pub(crate) async fn read_all(io: &mut (impl tokio::io::AsyncRead + Unpin)) -> Vec<Seen> {
    let mut seen = Vec::new();
    while let Ok(frame) = read_one(io).await {
        seen.push(frame);
    }
    seen
}

pub(crate) async fn read_one(io: &mut (impl tokio::io::AsyncRead + Unpin)) -> io::Result<Seen> {
    let mut bytes = [0; 12];
    io.read_exact(&mut bytes).await?;
    let [_, kind, f0, f1, i0, i1, i2, i3, l0, l1, l2, l3] = bytes;
    let length = u32::from_be_bytes([l0, l1, l2, l3]);
    if kind == DATA {
        let mut body = vec![0; length as usize];
        io.read_exact(&mut body).await?;
    }
    Ok((
        kind,
        u16::from_be_bytes([f0, f1]),
        u32::from_be_bytes([i0, i1, i2, i3]),
        length,
    ))
}

/// Writes what `frame` makes for 0, 1, 2, … until it makes nothing, or the other end takes no more.
/// Says how many frames were taken whole, as far as that can be told here.
pub(crate) async fn flood(
    io: &mut (impl AsyncWrite + Unpin),
    mut frame: impl FnMut(u32, &mut Vec<u8>) -> bool,
) -> u32 {
    let mut wire = Vec::with_capacity(40 << 10);
    let mut made = 0;
    loop {
        wire.clear();
        let from = made;
        let mut more = true;
        while more && wire.len() < 32 << 10 {
            more = frame(made, &mut wire);
            made += u32::from(more);
        }
        if io.write_all(&wire).await.is_err() {
            return from;
        }
        if !more {
            return made;
        }
    }
}

/// The attacker's end of a pipe like a socket's: some tens of KiB each way.
pub(crate) fn pipe() -> (DuplexStream, DuplexStream) {
    tokio::io::duplex(32 << 10)
}
