//! SOCKS 5 (RFC 1928) as `cepa forward -D` speaks it to the programs of its machine, and what it asks the far end then.
//!
//! Only CONNECT, and no authentication: who reaches the port may use it, as with `-L`. The destination goes on as it was written, so
//! that a name is looked up at the far end, which decides, too. It answers with SOCKS's own codes.
//!
//! ```text
//! program                    cepa forward                    cepa serve
//!    | 05 methods               |                               |
//!    | <------------ 05 00      |                               |
//!    | 05 01 00 destination     | opens cepa.socks.NAME         |
//!    |                          | length(2) "HOST:PORT" ------> | judged, looked up, judged, dialled
//!    | <--- 05 code 00 …        | <------------------- code(1)  |
//!    | <===================== bytes both ways =================> |
//! ```
//!
//! It reads byte for byte what a message has and no more: what stands behind is the program's own.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::destination::{Destination, Host};

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const NO_METHOD: u8 = 0xff;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// Longest destination: a name of 253 bytes, a colon, and five digits.
const DESTINATION_MAX: usize = 259;

/// How a request ends (RFC 1928, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Connected,
    Failed,
    NotAllowed,
    NetworkUnreachable,
    /// Also a name that has no address.
    HostUnreachable,
    Refused,
    /// "TTL expired", which is what others say where nobody answers.
    TimedOut,
    CommandUnknown,
    AddressUnknown,
}

const REPLIES: [Reply; 9] = [
    Reply::Connected,
    Reply::Failed,
    Reply::NotAllowed,
    Reply::NetworkUnreachable,
    Reply::HostUnreachable,
    Reply::Refused,
    Reply::TimedOut,
    Reply::CommandUnknown,
    Reply::AddressUnknown,
];

impl Reply {
    fn code(self) -> u8 {
        self as u8
    }

    /// One that is not known is a failure.
    fn of(code: u8) -> Self {
        let known = REPLIES.get(usize::from(code));
        known.copied().unwrap_or(Self::Failed)
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connected => "connected",
            Self::Failed | Self::CommandUnknown | Self::AddressUnknown => {
                "it failed there; the server's log says why"
            }
            Self::NotAllowed => "the server does not allow this destination",
            Self::NetworkUnreachable => "the server has no way to this network",
            Self::HostUnreachable => {
                "the server cannot reach the host, or its name has no address there"
            }
            Self::Refused => "the host refuses connections at this port",
            Self::TimedOut => "the host has not answered the server in time",
        })
    }
}

/// Why a program's request is none; each text says what to do.
#[derive(Debug)]
pub(crate) enum BadRequest {
    /// It left, or was cut.
    Io(io::Error),
    Not(&'static str),
}

impl fmt::Display for BadRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(e) => write!(f, "it broke off before its request was whole: {e}"),
            Self::Not(why) => f.write_str(why),
        }
    }
}

impl From<io::Error> for BadRequest {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

/// Reads what a program wants. What it can't have is answered here.
pub(crate) async fn request<S>(near: &mut S) -> Result<Destination, BadRequest>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let not = |why| Err(BadRequest::Not(why));
    match near.read_u8().await? {
        VERSION => {}
        4 => return not("it speaks SOCKS 4, which has no IPv6; set it to SOCKS 5 (socks5h://)"),
        byte if byte.is_ascii_uppercase() => {
            return not("it speaks to an HTTP proxy; set it to SOCKS 5 (socks5h://)");
        }
        _ => return not("it does not speak SOCKS 5; set it to socks5h://"),
    }
    let mut methods = vec![0; usize::from(near.read_u8().await?)];
    near.read_exact(&mut methods).await?;
    if !methods.contains(&NO_AUTHENTICATION) {
        write(near, &[VERSION, NO_METHOD]).await?;
        return not("it insists on a password; set it to none");
    }
    write(near, &[VERSION, NO_AUTHENTICATION]).await?;
    let mut head = [0; 4];
    near.read_exact(&mut head).await?;
    let [version, command, _, kind] = head;
    if version != VERSION {
        return not("it does not speak SOCKS 5 behind its greeting");
    }
    let host = match kind {
        IPV4 => {
            let mut octets = [0; 4];
            near.read_exact(&mut octets).await?;
            Some(Host::Address(Ipv4Addr::from(octets).into()))
        }
        IPV6 => {
            let mut octets = [0; 16];
            near.read_exact(&mut octets).await?;
            Some(Host::Address(Ipv6Addr::from(octets).to_canonical()))
        }
        NAME => {
            let mut name = vec![0; usize::from(near.read_u8().await?)];
            near.read_exact(&mut name).await?;
            std::str::from_utf8(&name).ok().and_then(Host::named)
        }
        _ => {
            reply(near, Reply::AddressUnknown).await?;
            return not("it names its destination in a form that SOCKS 5 does not have");
        }
    };
    let port = near.read_u16().await?;
    if command != CONNECT {
        reply(near, Reply::CommandUnknown).await?;
        return not("it asks for BIND or UDP; only connections (CONNECT) are carried");
    }
    let Some(host) = host else {
        reply(near, Reply::HostUnreachable).await?;
        return not("what it asks for is no host name; international names go in their xn-- form");
    };
    Ok(Destination { host, port })
}

/// Tells a program how its request has ended. Where the far end is bound there is nobody's business here.
pub(crate) async fn reply<S: AsyncWrite + Unpin>(near: &mut S, reply: Reply) -> io::Result<()> {
    write(near, &[VERSION, reply.code(), 0, IPV4, 0, 0, 0, 0, 0, 0]).await
}

/// Asks the far end for a destination.
pub(crate) async fn ask<S: AsyncWrite + Unpin>(far: &mut S, to: &Destination) -> io::Result<()> {
    let text = to.to_string();
    let length = u16::try_from(text.len()).map_err(io::Error::other)?;
    let mut message = length.to_be_bytes().to_vec();
    message.extend_from_slice(text.as_bytes());
    write(far, &message).await
}

/// What the far end has answered.
pub(crate) async fn answer<S: AsyncRead + Unpin>(far: &mut S) -> io::Result<Reply> {
    far.read_u8().await.map(Reply::of)
}

/// The destination that the opener of a substream asks for.
pub(crate) async fn asked<S: AsyncRead + Unpin>(far: &mut S) -> io::Result<Destination> {
    let bad = |why| io::Error::new(io::ErrorKind::InvalidData, why);
    let length = usize::from(far.read_u16().await?);
    if length > DESTINATION_MAX {
        return Err(bad("a destination that is too long"));
    }
    let mut text = vec![0; length];
    far.read_exact(&mut text).await?;
    let text = std::str::from_utf8(&text).ok().and_then(|t| t.parse().ok());
    text.ok_or_else(|| bad("a destination that is not HOST:PORT"))
}

/// Answers it.
pub(crate) async fn answered<S: AsyncWrite + Unpin>(far: &mut S, reply: Reply) -> io::Result<()> {
    write(far, &[reply.code()]).await
}

async fn write<S: AsyncWrite + Unpin>(to: &mut S, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes).await?;
    to.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of the bytes of a program, what it is sent, and what is left to read.
    async fn from(bytes: &[u8]) -> (Result<Destination, BadRequest>, Vec<u8>, Vec<u8>) {
        let (mut near, mut program) = tokio::io::duplex(1024);
        program.write_all(bytes).await.unwrap();
        program.shutdown().await.unwrap();
        let wanted = request(&mut near).await;
        let mut rest = Vec::new();
        near.read_to_end(&mut rest).await.unwrap();
        drop(near);
        let mut sent = Vec::new();
        program.read_to_end(&mut sent).await.unwrap();
        (wanted, sent, rest)
    }

    #[tokio::test]
    async fn a_request_is_read_to_its_last_byte_and_no_further() {
        for (request, wanted) in [
            (
                &b"\x05\x01\x00\x01\x7f\0\0\x01\x1f\x90"[..],
                "127.0.0.1:8080",
            ),
            (b"\x05\x01\x00\x03\x05A.com\x00\x50", "a.com:80"),
            (b"\x05\x01\x00\x03\x071.2.3.4\x00\x50", "1.2.3.4:80"),
            (
                b"\x05\x01\x00\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x50",
                "[2001:db8::1]:80",
            ),
        ] {
            let bytes = [b"\x05\x02\x02\x00", request, b"GET /"].concat();
            let (to, sent, rest) = from(&bytes).await;
            assert_eq!(to.unwrap().to_string(), wanted);
            assert_eq!((&sent[..], &rest[..]), (&b"\x05\x00"[..], &b"GET /"[..]));
        }
    }

    #[tokio::test]
    async fn what_is_no_request_is_answered_as_the_standard_says() {
        for (bytes, sent, why) in [
            (&b"\x04\x01"[..], &b""[..], "SOCKS 4"),
            (b"GET / HTTP/1.1", b"", "HTTP proxy"),
            (b"\x16\x03", b"", "does not speak SOCKS 5"),
            (b"\x05\x01\x02", b"\x05\xff", "password"),
            (
                b"\x05\x01\x00\x05\x02\x00\x01\x7f\0\0\x01\0\x50",
                b"\x05\x00\x05\x07\0\x01\0\0\0\0\0\0",
                "BIND",
            ),
            (
                b"\x05\x01\x00\x05\x01\x00\x09",
                b"\x05\x00\x05\x08\0\x01\0\0\0\0\0\0",
                "form",
            ),
            (
                b"\x05\x01\x00\x05\x01\x00\x03\x03a b\0\x50",
                b"\x05\x00\x05\x04\0\x01\0\0\0\0\0\0",
                "no host name",
            ),
            (b"\x05\x01\x00\x05\x01", b"\x05\x00", "broke off"),
        ] {
            let (wanted, got, _) = from(bytes).await;
            let error = wanted.unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
            assert_eq!(got, sent, "{why}");
        }
    }

    #[tokio::test]
    async fn the_far_end_reads_what_is_asked() {
        let (mut near, mut far) = tokio::io::duplex(1024);
        let to: Destination = "example.com:443".parse().unwrap();
        ask(&mut near, &to).await.unwrap();
        assert_eq!(asked(&mut far).await.unwrap(), to);
        for reply in REPLIES {
            answered(&mut far, reply).await.unwrap();
            assert_eq!(answer(&mut near).await.unwrap(), reply);
        }
        for bad in [&b"\xff\xff"[..], b"\x00\x03a:b", b"\x00\x02\xff\xff"] {
            near.write_all(bad).await.unwrap();
            let error = asked(&mut far).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
        assert_eq!(Reply::of(200), Reply::Failed);
    }
}
