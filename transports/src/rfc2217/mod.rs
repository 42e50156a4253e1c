//! `rfc2217:`: a serial line behind a serial server (ser2net, and devices with an Ethernet port and some serial ones), by telnet's
//! COM port control (RFC 2217).
//!
//! ```text
//! dialler:   TCP (perhaps by a proxy)  ->  options of telnet  ->  settings of the port, each answered  ->  `stream::Line`
//! listener:  TCP  ->  `stream::Line`, which is asked for options and settings while it carries bytes
//! ```
//!
//! `telnet` takes commands and data apart, `com_port` has the messages about the port, `engine` and `server` say and understand them, as a
//! client and as a server, and `stream` does the IO. There is no crate for this that is kept and has no IO of its own.
use std::time::Duration;

use tokio::time::timeout;

use crate::endpoint::{Endpoint, Rfc2217Settings, SerialSettings};
use crate::error::{Action, TransportError, TransportErrorKind as Kind, describe, kind_of};
use crate::stream::Stream;
use crate::tcp::{self, TcpSockets};
use crate::terminal::Control;
use crate::text::quoted;

use self::end::Refusal;
use self::engine::{Client, Waits};
use self::server::Server;
use self::stream::{Line, NotOpen};

mod com_port;
mod end;
mod engine;
mod server;
mod stream;
mod telnet;

#[cfg(feature = "fuzzing")]
pub(crate) use self::engine::fuzz;

/// How long the options and the settings may take, beside the connection. A server answers at once, and some open their port first.
const OPENING: Duration = Duration::from_secs(10);

const RAW: &str = "check the port; a raw port of a serial server is mux+tls+link+tcp:HOST:PORT";

pub(crate) async fn dial(
    endpoint: &Endpoint,
    host: &str,
    port: u16,
    settings: &Rfc2217Settings,
) -> Result<Stream, TransportError> {
    let below = tcp::dial(endpoint, host, port, &settings.tcp).await?;
    let (remote, local) = (below.remote().clone(), below.local());
    let label = label(&below);
    let mut line = Line::new(below, Client::new(&settings.line));
    opened(endpoint, &mut line).await?;
    let control = Control::of_line(line.door());
    let remarks = line.engine().take_remarks();
    Ok(Stream::from_wire(line, label)
        .with_remote(remote)
        .with_local(local)
        .with_control(control)
        .with_remarks(remarks))
}

async fn opened(endpoint: &Endpoint, line: &mut Line<Client>) -> Result<(), TransportError> {
    match timeout(OPENING, line.open()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(why)) => Err(not_open(endpoint, why, line.engine())),
        Err(_) => Err(stalled(endpoint, line.engine())),
    }
}

/// Where clients find a serial line.
pub(crate) struct Rfc2217Listener {
    sockets: TcpSockets,
    line: SerialSettings,
}

impl Rfc2217Listener {
    pub(crate) async fn bind(
        endpoint: &Endpoint,
        host: &str,
        port: u16,
        settings: &Rfc2217Settings,
    ) -> Result<(Self, u16), TransportError> {
        let (sockets, port) = tcp::bind(endpoint, host, port, &settings.tcp).await?;
        let line = settings.line.clone();
        Ok((Self { sockets, line }, port))
    }

    /// The next client. Cancel safe.
    pub(crate) async fn accept(&mut self, endpoint: &Endpoint) -> Result<Stream, TransportError> {
        let below = self.sockets.accept(endpoint).await?;
        let (remote, local) = (below.remote().clone(), below.local());
        let label = label(&below);
        let line = Line::new(below, Server::new(&self.line));
        let control = Control::of_line(line.door());
        Ok(Stream::from_wire(line, label)
            .with_remote(remote)
            .with_local(local)
            .with_control(control))
    }
}

/// That of the connection below, under this scheme.
fn label(below: &Stream) -> String {
    let place = below.label().strip_prefix("tcp ").unwrap_or(below.label());
    format!("rfc2217 {place}")
}

fn not_open(endpoint: &Endpoint, why: NotOpen, engine: &Client) -> TransportError {
    let fail = |kind, reason: &str, advice: &str| {
        TransportError::new(Action::Dial, endpoint, kind, reason, advice)
    };
    let words = String::from_utf8_lossy(engine.words());
    match why {
        NotOpen::Refused(Refusal::ComPort) => fail(
            Kind::Invalid,
            "the telnet server there has no control of a serial port (RFC 2217)",
            "switch it on there (ser2net: telnet(rfc2217)); a raw port is mux+tls+link+tcp:HOST:PORT",
        ),
        NotOpen::Refused(Refusal::Binary) => fail(
            Kind::Invalid,
            "the telnet server there does not let all bytes pass (RFC 856)",
            "switch its binary transmission on; a raw port is mux+tls+link+tcp:HOST:PORT",
        ),
        NotOpen::Closed if words.trim().is_empty() => fail(
            Kind::Lost,
            "closed before the line was open",
            "check the port; the server's log may say more",
        ),
        NotOpen::Closed => fail(
            Kind::Rejected,
            &format!(
                "the serial server closed it and said {}",
                quoted(words.trim())
            ),
            "check the device there, and that nobody else has it",
        ),
        NotOpen::Io(error) => {
            fail(kind_of(&error), &describe(&error), "check the port").with_source(error)
        }
    }
}

fn stalled(endpoint: &Endpoint, engine: &Client) -> TransportError {
    let (kind, reason, advice) = match engine.waits() {
        Waits::Telnet if engine.words().is_empty() => (
            Kind::TimedOut,
            "connected, but no telnet server answered within 10 s".to_owned(),
            RAW,
        ),
        Waits::Telnet => (
            Kind::Invalid,
            "what answers there is no telnet server".to_owned(),
            RAW,
        ),
        Waits::Options => (
            Kind::TimedOut,
            "the telnet server did not agree to control of a serial port within 10 s".to_owned(),
            RAW,
        ),
        Waits::Setting(what) => (
            Kind::TimedOut,
            format!("the serial server did not confirm {what} within 10 s"),
            "does the device there answer? its log may say more",
        ),
    };
    TransportError::new(Action::Dial, endpoint, kind, reason, advice)
}

#[cfg(test)]
mod tests;
