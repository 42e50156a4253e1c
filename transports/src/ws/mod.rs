//! `ws:` and `wss:`: a byte stream in the binary messages of a WebSocket (RFC 6455), for ways where only the web's ports and proxies lead.
//!
//! ```text
//! dialler:   TCP (perhaps by a proxy)  ->  TLS for wss  ->  request for PATH, 101  ->  `stream::Messages`
//! listener:  TCP  ->  TLS for wss with a certificate  ->  `answer`: 101, or a page  ->  `stream::Messages`
//! ```
//!
//! Frames and the client's handshake are tokio-tungstenite's; a listener reads the request itself, since somebody with a browser
//! gets a page and a wrong path 404. This TLS is the way's own, between us and a front end; that of the peers runs inside.
//!
//! An accepted stream is given away before its handshake, which runs beside it (`opening`): so a stranger who says nothing takes up
//! a place of the gate, as with any other transport, and holds up nobody who comes later.
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request};
use tokio::time::timeout;
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;

use crate::endpoint::{Endpoint, WsSettings};
use crate::error::{Action, TransportError, TransportErrorKind as Kind, describe, kind_of};
use crate::opening::Opening;
use crate::stream::{Stream, Wire};
use crate::tcp::{self, TcpSockets};
use crate::text::clean;

use self::answer::Answer;
use self::failure::Failure;
use self::stream::{Below, Messages};

mod answer;
mod failure;
mod stream;
#[cfg(feature = "wss")]
mod tls;
#[cfg(not(feature = "wss"))]
#[path = "tls_off.rs"]
mod tls;

#[cfg(feature = "fuzzing")]
pub(crate) use self::answer::fuzz;

/// How long TLS and the handshake may take, beside the connection: a front end connects in its turn.
const HANDSHAKE: Duration = Duration::from_secs(15);

pub(crate) async fn dial(
    endpoint: &Endpoint,
    host: &str,
    port: u16,
    path: &str,
    settings: &WsSettings,
) -> Result<Stream, TransportError> {
    let fail = |failure: Failure| {
        let error = TransportError::new(
            Action::Dial,
            endpoint,
            failure.kind,
            failure.reason,
            failure.advice,
        );
        match failure.source {
            Some(source) => error.with_source(source),
            None => error,
        }
    };
    let request = request(host, port, path, settings).map_err(fail)?;
    let tls = match &settings.tls {
        Some(tls) => Some(tls::Dialler::new(host, tls).await.map_err(fail)?),
        None => None,
    };
    let below = tcp::dial(endpoint, host, port, &settings.tcp).await?;
    let (remote, local) = (below.remote().clone(), below.local());
    let label = label(endpoint, &below);
    let wire = open(request, tls, below, settings).await.map_err(fail)?;
    Ok(Stream::from_wire(wire, label)
        .with_remote(remote)
        .with_local(local))
}

/// Over a connection that is there.
async fn open(
    request: Request<()>,
    tls: Option<tls::Dialler>,
    below: Stream,
    settings: &WsSettings,
) -> Result<Box<dyn Wire>, Failure> {
    let opened = async {
        match tls {
            Some(tls) => upgrade(request, tls.handshake(below).await?, settings).await,
            None => upgrade(request, below, settings).await,
        }
    };
    timeout(HANDSHAKE, opened).await.unwrap_or_else(|_| {
        Err(Failure::new(
            Kind::TimedOut,
            "connected, but no answer to the WebSocket handshake within 15 s",
            "check the port, and what the front end passes this path on to",
        ))
    })
}

/// That of the connection below, under this scheme.
fn label(endpoint: &Endpoint, below: &Stream) -> String {
    let place = below.label().strip_prefix("tcp ").unwrap_or(below.label());
    format!("{} {place}", endpoint.scheme())
}

/// RFC 6455, section 4.1.
fn request(
    host: &str,
    port: u16,
    path: &str,
    settings: &WsSettings,
) -> Result<Request<()>, Failure> {
    let usual = if settings.tls.is_some() { 443 } else { 80 };
    // A zone is this machine's own word (RFC 6874, section 1).
    let host = host.split_once('%').map_or(host, |(host, _)| host);
    let mut named = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    if port != usual {
        named = format!("{named}:{port}");
    }
    let mut request = Request::builder()
        // The library looks at the path alone.
        .uri(format!("ws://localhost{path}"))
        .header("Host", settings.host.as_ref().unwrap_or(&named))
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", generate_key())
        .header("User-Agent", "cepa");
    for (name, value) in &settings.headers {
        if let Ok(mut value) = HeaderValue::from_str(value.reveal()) {
            value.set_sensitive(true);
            request = request.header(name.as_str(), value);
        }
    }
    request.body(()).map_err(|error| {
        let reason = format!("the request cannot be written: {error}");
        Failure::new(Kind::Invalid, reason, "check the path and the headers")
    })
}

async fn upgrade<S: Below>(
    request: Request<()>,
    below: S,
    settings: &WsSettings,
) -> Result<Box<dyn Wire>, Failure> {
    let config = Some(stream::config());
    match client_async_with_config(request, below, config).await {
        // RFC 6455, section 4.1: "the use of an extension that was not present in the client's handshake".
        Ok((_, answer)) if answer.headers().contains_key("sec-websocket-extensions") => {
            let reason = "it answers with WebSocket extensions, and none was asked for";
            Err(Failure::new(Kind::Invalid, reason, NO_FRONT_END))
        }
        Ok((socket, _)) => Ok(Box::new(Messages::new(socket, settings.ping))),
        Err(error) => Err(refused(error)),
    }
}

const NO_FRONT_END: &str = "check the host and the port: is it a web server, and ws: or wss:?";

fn refused(error: WsError) -> Failure {
    match error {
        WsError::Http(answer) => of_status(&answer),
        WsError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => closed(),
        WsError::Io(error) => Failure {
            source: Some(io::Error::from(error.kind())),
            ..Failure::new(kind_of(&error), describe(&error), NO_FRONT_END)
        },
        WsError::Protocol(
            tokio_tungstenite::tungstenite::error::ProtocolError::HandshakeIncomplete,
        ) => closed(),
        other => {
            let reason = format!(
                "no WebSocket answers there: {}",
                clean(&other.to_string(), 200)
            );
            Failure::new(Kind::Invalid, reason, NO_FRONT_END)
        }
    }
}

fn closed() -> Failure {
    Failure::new(
        Kind::Lost,
        "closed without an answer to the WebSocket handshake",
        NO_FRONT_END,
    )
}

fn of_status(answer: &http::Response<Option<Vec<u8>>>) -> Failure {
    let status = answer.status();
    let said = |what: &str| format!("answered {status}: {what}");
    let place = answer.headers().get("location").map(HeaderValue::as_bytes);
    match status.as_u16() {
        300..=399 => {
            let place = String::from_utf8_lossy(place.unwrap_or_default()).into_owned();
            Failure::new(
                Kind::Invalid,
                said(&format!("it is elsewhere, at \"{}\"", clean(&place, 200))),
                "give the address that it leads to",
            )
        }
        401 | 403 | 407 => Failure::new(
            Kind::Rejected,
            said("who asks is not allowed there"),
            "a front end may want a header: header=NAME:VALUE",
        ),
        404 | 410 => Failure::new(
            Kind::NotFound,
            said("there is nothing at that path"),
            "check the path",
        ),
        502 | 503 => Failure::new(
            Kind::Refused,
            said("the front end does not reach what is behind it"),
            "is the listener running?",
        ),
        504 => Failure::new(
            Kind::TimedOut,
            said("what is behind the front end did not answer it in time"),
            "is the listener running?",
        ),
        500..=599 | 429 => Failure::new(
            Kind::Refused,
            said("the server can not do that now"),
            "try again later",
        ),
        _ => Failure::new(
            Kind::Invalid,
            said("no WebSocket there"),
            "check the path, and that the front end passes on Upgrade and Connection",
        ),
    }
}

/// Where WebSockets are waited for.
pub(crate) struct WsListener {
    sockets: TcpSockets,
    shared: Arc<Shared>,
}

/// What every handshake of a listener needs.
struct Shared {
    path: String,
    ping: Option<u16>,
    tls: Option<tls::Acceptor>,
}

impl WsListener {
    pub(crate) async fn bind(
        endpoint: &Endpoint,
        host: &str,
        port: u16,
        path: &str,
        settings: &WsSettings,
    ) -> Result<(Self, u16), TransportError> {
        let fail =
            |f: Failure| TransportError::new(Action::Listen, endpoint, f.kind, f.reason, f.advice);
        if settings.host.is_some() || !settings.headers.is_empty() {
            let reason = "host= and header= are for dialling";
            return Err(fail(Failure::new(Kind::Invalid, reason, "leave them out")));
        }
        let tls = match &settings.tls {
            Some(tls) => Some(tls::Acceptor::new(tls).map_err(fail)?),
            None => None,
        };
        let (sockets, port) = tcp::bind(endpoint, host, port, &settings.tcp).await?;
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            ping: settings.ping,
            tls,
        });
        Ok((Self { sockets, shared }, port))
    }

    /// The next connection. Cancel safe.
    pub(crate) async fn accept(&mut self, endpoint: &Endpoint) -> Result<Stream, TransportError> {
        let below = self.sockets.accept(endpoint).await?;
        let (remote, local) = (below.remote().clone(), below.local());
        let label = label(endpoint, &below);
        let shared = Arc::clone(&self.shared);
        Ok(Stream::from_wire(shared.accepted(below), label)
            .with_remote(remote)
            .with_local(local))
    }
}

impl Shared {
    fn accepted(self: Arc<Self>, below: Stream) -> Opening {
        Opening::beside(async move {
            let opened = timeout(HANDSHAKE, self.open(below));
            opened.await.unwrap_or_else(|_| {
                let why = "no WebSocket handshake within 15 s";
                Err(io::Error::new(io::ErrorKind::TimedOut, why))
            })
        })
    }

    async fn open(&self, below: Stream) -> io::Result<Box<dyn Wire>> {
        match &self.tls {
            Some(tls) => self.answered(tls.handshake(below).await?).await,
            None => self.answered(below).await,
        }
    }

    async fn answered<S: Below>(&self, mut below: S) -> io::Result<Box<dyn Wire>> {
        match answer::answer(&mut below, &self.path).await? {
            Answer::WebSocket => {
                let messages = Messages::accepted(below, self.ping).await;
                Ok(Box::new(messages))
            }
            // No end of a stream: whoever wanted to send nothing opens a WebSocket and closes that.
            Answer::Nothing => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "closed before a WebSocket was asked for",
            )),
            Answer::Page(status) => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("no WebSocket was asked for, or not at this path (answered {status})"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::time::Instant;

    use super::*;

    /// In virtual time.
    #[tokio::test(start_paused = true)]
    async fn a_front_end_that_stalls_is_given_up() {
        let settings = WsSettings::default();
        for some in [&b""[..], b"HTTP/1.1 101 Switching Protocols\r\n"] {
            let (near, mut far) = duplex(1 << 16);
            far.write_all(some).await.unwrap();
            let request = request("h", 80, "/", &settings).ok().unwrap();
            let start = Instant::now();
            let opened = open(request, None, Stream::from(near), &settings).await;
            let failure = opened.err().unwrap();
            assert_eq!(failure.kind, Kind::TimedOut, "{}", failure.reason);
            assert_eq!(start.elapsed(), HANDSHAKE);
        }
    }

    /// In virtual time.
    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_to_a_listener_is_given_up() {
        let shared = Arc::new(Shared {
            path: "/".to_owned(),
            ping: None,
            tls: None,
        });
        let (near, far) = duplex(1 << 16);
        let start = Instant::now();
        let mut stream = shared.accepted(Stream::from(far));
        let error = stream.read(&mut [0; 9]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed(), HANDSHAKE);
        drop(near);
    }
}
