//! An address in words: what each layer is, top of the stack first, and what stands below them all.

use std::fmt::{self, Write as _};

use cepa_transports::endpoint::{
    DataBits, Duplex, Escapes, FlowControl, ModemLine, Parity, ProxyKind, QuicSettings, Rs485,
    SerialLock, StopBits, TcpSettings, TcpWay, WsSettings,
};
use cepa_transports::text::clean;
use cepa_transports::{Endpoint, Layer, SerialSettings, Target};

use super::layers::default_layers;

/// What an address means; its text has one line a layer, top of the stack first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    lines: Vec<(&'static str, String)>,
}

impl Explanation {
    /// The layers and, last, the transport: the word in the address, and what it stands for.
    pub fn lines(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.lines.iter().map(|(word, text)| (*word, text.as_str()))
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self
            .lines
            .iter()
            .map(|(word, _)| word.len())
            .max()
            .unwrap_or(0);
        for (index, (word, text)) in self.lines.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{word:width$}  {text}")?;
        }
        Ok(())
    }
}

/// Says what an address means, without opening anything.
pub fn explain(endpoint: &Endpoint) -> Explanation {
    let written = endpoint.layers();
    let layers = if written.is_empty() {
        default_layers(endpoint.target())
    } else {
        written
    };
    let mut lines: Vec<_> = layers
        .iter()
        .enumerate()
        .map(|(index, layer)| {
            let inside = index.checked_sub(1).and_then(|above| layers.get(above));
            let note = if written.is_empty() && index == 0 {
                " (no layers are written, so this and what follows is the default)"
            } else {
                ""
            };
            (layer.word(), of_layer(*layer, inside.copied()) + note)
        })
        .collect();
    // Paths and names may be somebody else's.
    let target = clean(&of_target(endpoint.target()), usize::MAX).into_owned();
    lines.push((endpoint.scheme(), target));
    Explanation { lines }
}

fn of_layer(layer: Layer, inside: Option<Layer>) -> String {
    match (layer, inside) {
        (Layer::Mux, _) => {
            "many streams in one, each opened by the name of a service; yamux on the wire".into()
        }
        (tls, inside) if tls.is_tls() => {
            let keys = match tls {
                Layer::TlsRaw => " as a raw public key",
                Layer::TlsX509 => " in a certificate",
                _ => "",
            };
            match inside {
                Some(Layer::Mux) => format!(
                    "TLS 1.3, both sides show their identity{keys} and check the other's; ALPN cepa/2 or cepa/1"
                ),
                Some(_) => format!(
                    "TLS 1.3 around the layer above, both sides show their identity{keys}; ALPN cepa-layer/1"
                ),
                None => {
                    format!("TLS 1.3, both sides show their identity{keys} and check the other's")
                }
            }
        }
        (Layer::Link(link_settings), _) => {
            "a reliable stream over a line that loses or damages bytes: frames with checksums, repeated until they arrive".to_owned()
                + &of_line(link_settings.escape, link_settings.mtu, link_settings.duplex)
        }
        (other, _) => other.word().into(),
    }
}

/// What a link is told of its line.
fn of_line(escape: Escapes, mtu: Option<u16>, duplex: Duplex) -> String {
    let escape = match escape {
        Escapes::Least => "",
        Escapes::XonXoff => "; no bare XON and XOFF",
        Escapes::Control => "; no bare control characters",
    };
    let mtu = mtu.map_or(String::new(), |mtu| {
        format!("; frames of at most {mtu} bytes")
    });
    let duplex = match duplex {
        Duplex::Full => "",
        Duplex::Half => "; the ends take turns",
    };
    format!("{escape}{mtu}{duplex}")
}

fn of_target(target: &Target) -> String {
    match target {
        Target::Tcp {
            host,
            port,
            settings,
        } => {
            let place = match port {
                0 => format!("TCP at {host}, any free port when listening"),
                port => format!("TCP to {host}, port {port}"),
            };
            format!("{place}{}", of_connection(settings))
        }
        Target::Ws {
            host,
            port,
            path,
            settings,
        } => of_ws(host, *port, path, settings),
        Target::Quic {
            host,
            port,
            settings,
        } => of_quic(host, *port, settings),
        Target::Unix { path, settings } => {
            let mode = settings.mode.map_or(String::new(), |mode| {
                format!("; when listening, with permissions {mode:04o}")
            });
            let group = settings.group.as_ref().map_or(String::new(), |group| {
                format!("; when listening, of the group {group}")
            });
            let framed = if settings.framed {
                "; in frames, so that a cut is told from an end"
            } else {
                ""
            };
            format!("Unix socket {}{framed}{mode}{group}", path.display())
        }
        Target::Stdio => "standard input and output of this process".into(),
        Target::Fd { read, write } if read == write => format!("open descriptor {read}, both ways"),
        Target::Fd { read, write } => {
            format!("open descriptors, {read} to read and {write} to write")
        }
        Target::Exec { argv, dir, pty } => {
            let command = argv
                .iter()
                .map(|word| format!("{word:?}"))
                .collect::<Vec<_>>()
                .join(" ");
            let what = if *pty {
                "a terminal of its own for the command"
            } else {
                "standard input and output of the command"
            };
            match dir {
                None => format!("{what} {command}"),
                Some(dir) => format!("{what} {command} in {}", dir.display()),
            }
        }
        Target::Ssh {
            user, host, port, ..
        } => {
            let user = user
                .as_ref()
                .map_or(String::new(), |user| format!(" as {user}"));
            let port = port.map_or(String::new(), |port| format!(", port {port}"));
            let command = target.ssh_command().and_then(|mut argv| argv.pop());
            let command = command.unwrap_or_default();
            format!("this user's own ssh to {host}{port}{user}; it runs there: {command}")
        }
        Target::Serial { path, settings } => format!(
            "serial line {} at {} baud{}{}{}",
            path.display(),
            settings.baud,
            of_settings(settings),
            of_port(settings),
            of_line(Escapes::Least, settings.mtu, settings.duplex)
        ),
        Target::Rfc2217 {
            host,
            port,
            settings,
        } => format!(
            "serial line at {} baud behind the serial server {host}, port {port} (RFC 2217){}{}{}",
            settings.line.baud,
            of_settings(&settings.line),
            of_line(Escapes::Least, settings.line.mtu, settings.line.duplex),
            of_connection(&settings.tcp)
        ),
        Target::Pty { path } => format!("a new pseudo terminal, linked to {}", path.display()),
        Target::Memory { name } => format!("a stream inside this process, named {name}"),
        _ => "a byte stream".into(),
    }
}

/// What is told of a TCP connection beside its place.
fn of_connection(settings: &TcpSettings) -> String {
    let keepalive = match settings.keepalive {
        Some(TcpSettings::KEEPALIVE) => String::new(),
        Some(seconds) => format!("; asks after {seconds} s of silence"),
        None => "; never asks in a silence".into(),
    };
    let patience = settings.user_timeout.map_or(String::new(), |seconds| {
        format!("; over when nothing is acknowledged for {seconds} s")
    });
    let nodelay = if settings.nodelay {
        ""
    } else {
        "; small writes wait for each other"
    };
    let way = settings.way.as_deref().map_or(String::new(), of_way);
    let from = settings.proxy_from.as_ref().map_or(String::new(), |from| {
        let from: Vec<String> = from.iter().map(ToString::to_string).collect();
        let from = from.join(", ");
        format!("; when listening, behind a proxy at {from} that names its clients")
    });
    let proxy = settings.proxy.as_ref().map_or(String::new(), |proxy| {
        let names = match proxy.kind {
            ProxyKind::Socks5 => "this machine resolves the name",
            _ => "which resolves the name",
        };
        format!("; when dialling, by the proxy {proxy}, {names}")
    });
    format!("{keepalive}{patience}{nodelay}{way}{from}{proxy}")
}

/// The way out of this machine.
fn of_way(way: &TcpWay) -> String {
    let bind = way.bind.map_or(String::new(), |address| {
        format!("; when dialling, from this machine's address {address}")
    });
    let interface = way.interface.as_ref().map_or(String::new(), |name| {
        format!("; by the interface {name} only")
    });
    let mark = way.mark.map_or(String::new(), |mark| {
        format!("; its packets are marked {mark}")
    });
    format!("{bind}{interface}{mark}")
}

fn of_quic(host: &str, port: u16, settings: &QuicSettings) -> String {
    let place = match port {
        0 => format!("QUIC at {host}, any free UDP port when listening"),
        port => format!("QUIC to {host}, UDP port {port}"),
    };
    let keepalive = match settings.keepalive {
        QuicSettings::KEEPALIVE => String::new(),
        seconds => format!("; asks after {seconds} s of silence"),
    };
    let way = settings.way.as_deref().map_or(String::new(), of_way);
    let proxy = settings.proxy.as_ref().map_or(String::new(), |proxy| {
        format!("; by the proxy {proxy}, which can't be: it is refused")
    });
    format!(
        "{place}, encrypted for the way alone: its certificate proves nothing, who the peer is says the TLS above{keepalive}{way}{proxy}"
    )
}

fn of_ws(host: &str, port: u16, path: &str, settings: &WsSettings) -> String {
    let place = match port {
        0 => format!("{host}, any free port when listening"),
        port => format!("{host}, port {port}"),
    };
    let (what, tls) = match &settings.tls {
        None => ("WebSocket", String::new()),
        Some(tls) => {
            let trusted = match tls.pin {
                Some(_) => "must have the pinned key",
                None => "must be known to the platform's authorities",
            };
            let tls = format!("; when dialling, the front end {trusted}");
            ("WebSocket under the way's own TLS", tls)
        }
    };
    let named = settings.host.as_ref().map_or(String::new(), |host| {
        format!("; when dialling, asks for the host {host}")
    });
    let headers = match settings.headers.as_slice() {
        [] => String::new(),
        headers => {
            let names: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
            format!("; when dialling, with the headers {}", names.join(", "))
        }
    };
    let ping = match settings.ping {
        Some(WsSettings::PING) => String::new(),
        Some(seconds) => format!("; pings after {seconds} s of silence"),
        None => "; never pings".into(),
    };
    let below = of_connection(&settings.tcp);
    format!("{what} at {place}, path {path}{tls}{named}{headers}{ping}{below}")
}

/// All that a line is told but its speed; of modem lines, RS-485 and lock files what is unusual only.
fn of_settings(settings: &SerialSettings) -> String {
    let data = match settings.data {
        DataBits::Five => ", 5 data bits",
        DataBits::Six => ", 6 data bits",
        DataBits::Seven => ", 7 data bits",
        DataBits::Eight => ", 8 data bits",
    };
    let parity = match settings.parity {
        Parity::None => ", no parity",
        Parity::Odd => ", odd parity",
        Parity::Even => ", even parity",
    };
    let stop = match settings.stop {
        StopBits::One => ", 1 stop bit",
        StopBits::Two => ", 2 stop bits",
    };
    let flow = match settings.flow {
        FlowControl::None => ", no flow control",
        FlowControl::Hardware => ", flow control by RTS and CTS",
        FlowControl::Software => ", flow control by XON and XOFF",
    };
    let modem_line = |name: &str, line: ModemLine| match line {
        ModemLine::Keep => String::new(),
        ModemLine::On => format!(", {name} raised"),
        ModemLine::Off => format!(", {name} low"),
    };
    format!(
        "{data}{parity}{stop}{flow}{}{}",
        modem_line("DTR", settings.dtr),
        modem_line("RTS", settings.rts),
    )
}

/// What only a port of this machine has.
fn of_port(settings: &SerialSettings) -> String {
    let exclusive = if settings.exclusive {
        ", locked for this process"
    } else {
        ", open to other programs too"
    };
    let lock = match &settings.lock {
        SerialLock::Usual => String::new(),
        SerialLock::Yes => format!(", with a lock file in {}", SerialLock::FOLDER),
        SerialLock::No => ", without a lock file".to_owned(),
        SerialLock::At(path) => format!(", with the lock file at {}", path.display()),
    };
    format!("{}{exclusive}{lock}", of_rs485(settings.rs485))
}

fn of_rs485(rs485: Rs485) -> String {
    let mode = match rs485 {
        Rs485::Keep => return String::new(),
        Rs485::Off => return ", not in RS-485 mode".to_owned(),
        Rs485::On(mode) => mode,
    };
    let mut text = String::from(", in RS-485 mode where the driver knows it");
    if !mode.rts_on_send {
        text.push_str(", RTS low while sending");
    }
    for (delay, when) in [
        (mode.rts_before, "before the first bit"),
        (mode.rts_after, "behind the last"),
    ] {
        if delay > 0 {
            let _ = write!(text, ", {delay} ms {when}");
        }
    }
    if mode.rx_during_tx {
        text.push_str(", hearing while sending");
    }
    text
}
