//! The PROXY protocol: for whom a balancer has opened a connection, in front of its bytes. By HAProxy's
//! `doc/proxy-protocol.txt`, version 1 (text, section 2.1) and 2 (binary, section 2.2).
//!
//! Such a header is believed of those alone who are named as trusted, and they must send one: "The receiver MUST be configured to only
//! receive the protocol described in this specification and MUST not try to guess" (section 2). Not a byte behind it is read. It has a
//! bound and a time; its checksum and other extensions (TLVs) are passed over.
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::timeout;

use crate::network::Network;

/// Section 2.2: the 12 bytes that begin a header of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Section 2.1: what begins one of version 1, and its longest line with its end ("107 chars" with room for a zero).
const WORD: &[u8; 6] = b"PROXY ";
const LINE: usize = 107;
/// Bytes behind the first 16 of version 2 that are read; with all extensions there are, balancers send some hundreds.
const BODY: u16 = 4096;
/// "At least 3 seconds to cover a TCP retransmit" (section 2).
const PATIENCE: Duration = Duration::from_secs(5);

/// For whom a connection stands: `None` for the proxy itself (a health check, or somebody without an IP address), or for one that
/// was closed before its first byte.
pub(crate) async fn source(
    stream: &mut (impl AsyncRead + Unpin),
    at: SocketAddr,
    trusted: &[Network],
) -> io::Result<Option<SocketAddr>> {
    if !trusted.iter().any(|network| network.contains(at.ip())) {
        let why = format!("{} is not a trusted proxy (proxy-from=)", at.ip());
        return Err(refused(&why));
    }
    match timeout(PATIENCE, read(stream)).await {
        Ok(read) => read,
        Err(_) => Err(refused("no header of the PROXY protocol within 5 s")),
    }
}

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn wrong(what: &str) -> io::Error {
    refused(&format!("invalid PROXY protocol header: {what}"))
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let mut start = [0; 16];
    let (word, rest) = start.split_at_mut(WORD.len());
    if stream.read(word.get_mut(..1).unwrap_or_default()).await? == 0 {
        return Ok(None);
    }
    exact(stream, word.get_mut(1..).unwrap_or_default()).await?;
    if word == WORD {
        return read_line(stream).await;
    }
    if !SIGNATURE.starts_with(word) {
        return Err(refused(
            "no header of the PROXY protocol: does the proxy send one?",
        ));
    }
    exact(stream, rest).await?;
    let (head, length) = Head::parse(&start)?;
    if length > BODY {
        return Err(wrong("it is longer than 4096 bytes"));
    }
    let mut body = vec![0; usize::from(length)];
    exact(stream, &mut body).await?;
    head.source(&body)
}

async fn exact(stream: &mut (impl AsyncRead + Unpin), into: &mut [u8]) -> io::Result<()> {
    match stream.read_exact(into).await {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(wrong("it is cut short")),
        Err(e) => Err(e),
    }
}

/// Byte by byte, since what is behind the line is not ours.
async fn read_line(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let mut line = Vec::with_capacity(LINE);
    while !line.ends_with(b"\r\n") {
        if WORD.len() + line.len() >= LINE {
            return Err(wrong("its line is too long"));
        }
        let mut byte = [0];
        exact(stream, &mut byte).await?;
        line.extend(byte);
    }
    line.truncate(line.len() - 2);
    line_source(&line)
}

/// What stands between `PROXY ` and the end of the line (section 2.1).
fn line_source(line: &[u8]) -> io::Result<Option<SocketAddr>> {
    let line = std::str::from_utf8(line).map_err(|_| wrong("it is not text"))?;
    let words: Vec<&str> = line.split(' ').collect();
    let source = match words.as_slice() {
        // "The receiver must ignore anything presented before the CRLF".
        ["UNKNOWN", ..] => return Ok(None),
        ["TCP4", source, destination, ports @ ..] => {
            let [source, destination] = [source, destination].map(|ip| ip.parse::<Ipv4Addr>());
            source
                .ok()
                .zip(destination.ok())
                .map(|(ip, _)| (IpAddr::from(ip), ports))
        }
        ["TCP6", source, destination, ports @ ..] => {
            let [source, destination] = [source, destination].map(|ip| ip.parse::<Ipv6Addr>());
            source
                .ok()
                .zip(destination.ok())
                .map(|(ip, _)| (IpAddr::from(ip), ports))
        }
        _ => None,
    };
    let Some((ip, &[port, other])) = source else {
        return Err(wrong("its line is not for a TCP connection"));
    };
    match (port.parse(), other.parse::<u16>()) {
        (Ok(port), Ok(_)) => Ok(Some(SocketAddr::new(ip, port))),
        _ => Err(wrong("its ports are invalid")),
    }
}

/// The 13th and 14th byte of version 2 (section 2.2).
struct Head {
    /// LOCAL: the proxy opened the connection for itself.
    local: bool,
    family: u8,
}

impl Head {
    /// With the length of what follows.
    fn parse(start: &[u8; 16]) -> io::Result<(Self, u16)> {
        let Some((&[command, family, high, low], _)) = start
            .strip_prefix(SIGNATURE)
            .and_then(|rest| rest.split_first_chunk())
        else {
            return Err(refused(
                "no header of the PROXY protocol: does the proxy send one?",
            ));
        };
        // "The highest four bits contains the version. As of this specification, it must always be sent as \x2".
        if command >> 4 != 2 {
            return Err(wrong("its version is unknown"));
        }
        let local = match command & 0xf {
            0 => true,
            1 => false,
            // "Receivers must drop connections presenting unexpected values here".
            _ => return Err(wrong("its command is unknown")),
        };
        Ok((Self { local, family }, u16::from_be_bytes([high, low])))
    }

    fn source(&self, body: &[u8]) -> io::Result<Option<SocketAddr>> {
        // "The receiver must accept this connection as valid and must use the real connection endpoints and discard the
        // protocol block".
        if self.local {
            return Ok(None);
        }
        let short = || wrong("its addresses are cut short");
        match self.family {
            // TCP over IPv4: source, destination, ports.
            0x11 => {
                let addresses: &[u8; 12] = body.first_chunk().ok_or_else(short)?;
                let [a, b, c, d, _, _, _, _, high, low, _, _] = *addresses;
                let ip = Ipv4Addr::new(a, b, c, d);
                Ok(Some((ip, u16::from_be_bytes([high, low])).into()))
            }
            // The same over IPv6.
            0x21 => {
                let addresses: &[u8; 36] = body.first_chunk().ok_or_else(short)?;
                let (ip, rest) = addresses.split_first_chunk::<16>().ok_or_else(short)?;
                let ports = rest.last_chunk::<4>().ok_or_else(short)?;
                let [high, low, _, _] = *ports;
                Ok(Some(
                    (Ipv6Addr::from(*ip), u16::from_be_bytes([high, low])).into(),
                ))
            }
            // Unspecified, or a Unix socket: nobody with an address that would help. Of others "the receiver should ignore the
            // protocol block", or refuse; what comes over TCP can't be a datagram.
            0x00 | 0x31 => Ok(None),
            _ => Err(wrong("it is not for a TCP connection")),
        }
    }
}

/// The stream of a connection that was refused.
pub(crate) struct Refused(Option<io::Error>);

impl Refused {
    pub(crate) fn new(error: io::Error) -> Self {
        Self(Some(error))
    }
}

impl AsyncRead for Refused {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let error = self.0.take();
        Poll::Ready(Err(error.unwrap_or_else(|| wrong("read again"))))
    }
}

/// Nobody is there to write to.
impl AsyncWrite for Refused {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
