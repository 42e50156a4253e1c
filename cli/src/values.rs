//! What single words of a command line stand for: peers, services, addresses and what is joined to what.
//!
//! Each parses itself, so that no command sees a bad one, and says what it expected where it can't.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use cepa::identity::{Identity, Invitation, KeyKind, PeerId, UnixTime};
use cepa::node::{self, PeerAddr, PeerAddrError};
use cepa::session::{ServiceName, reserved};
use cepa::transports::{self, Endpoint, ParseError};
use clap::ValueEnum;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::advice::with_advice;
use crate::destination::Destinations;
use crate::exit::{Code, Failure};
use crate::files::served::Shared;
use crate::kinds;
use crate::manager;
use crate::misread::{not_a_place, without_scheme};
use crate::names::{self, Named, To};
use crate::programs::Programs;
use crate::references::{Introduction, ShortCode, Ticket};
#[cfg(feature = "forward")]
pub(crate) use crate::remote_place::Remote;
use crate::words::meant;
pub(crate) use crate::words::{EscapeChar, Expected, TrustWord};

/// The address of a peer: `cepa://PEERID…`, or `@NAME/SERVICE` for one that has a name. A name is looked up
/// here, so that everything behind knows peers by their ids alone; where a known peer is, the known peers tell when
/// it is dialled.
pub(crate) fn peer_addr(word: &str) -> Result<PeerAddr, String> {
    match names::in_word(word) {
        Some(name) => names::peer(name),
        None => word.parse().map_err(|e: PeerAddrError| with_advice(&e)),
    }
}

/// The same for one that is dialled: by the default relay where it has no address.
pub(crate) fn dialled_addr(word: &str) -> Result<PeerAddr, String> {
    names::findable(peer_addr(word)?)
}

/// Seconds, with a fraction if need be; up to a day.
pub(crate) fn seconds(word: &str) -> Result<f64, String> {
    let seconds = word.parse().ok().filter(|s| (0.0..=86_400.0).contains(s));
    seconds.ok_or_else(|| "expected seconds from 0 to 86400, for example 0.5".to_owned())
}

/// The same with where a known peer is in it, as far as that is on the network: for an address that others see.
pub(crate) fn placed_addr(word: &str) -> Result<PeerAddr, String> {
    match names::in_word(word) {
        Some(name) => names::placed(name),
        // A known one is where it is known to be.
        None => names::found(peer_addr(word)?),
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Kind {
    Ed25519,
    P256,
}

impl From<Kind> for KeyKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Ed25519 => Self::Ed25519,
            Kind::P256 => Self::P256,
        }
    }
}

/// What a command dials.
#[derive(Clone, Debug)]
pub(crate) enum DialTarget {
    /// A place, and whoever is there.
    Place(Endpoint),
    /// A peer, wherever it is.
    Peer(PeerAddr),
    /// What somebody gave us a reference to.
    Introduced(Introduction),
    /// A peer that has given us some of its services.
    Ticket(Ticket),
    /// Words that stand for a ticket, at a relay.
    Code(ShortCode),
}

impl FromStr for DialTarget {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        if word == "-" {
            return pasted()?.parse();
        }
        if let Some(name) = names::in_word(word) {
            return Ok(match names::dialled(name)?.to {
                To::Place(address) => Self::Place(address),
                To::Peer(address) => Self::Peer(address),
            });
        }
        if word.starts_with(node::SCHEME) {
            return dialled_addr(word).map(Self::Peer);
        }
        if word.starts_with(INTRODUCTION) {
            return word
                .parse()
                .map(Self::Introduced)
                .map_err(|e| format!("{e}"));
        }
        if ticket_prefix(word).is_some() {
            return word.parse().map(Self::Ticket).map_err(|e| format!("{e}"));
        }
        if ShortCode::is_meant(word) {
            return word.parse().map(Self::Code).map_err(|e| format!("{e}"));
        }
        word.parse()
            .map(Self::Place)
            .map_err(|e| not_a_place(word, &e))
    }
}

/// Longest address that is read.
const PASTED: usize = 8 * 1024;

/// The first line of standard input, and nothing behind it: that may be for a service. Other users of this machine see no input.
fn pasted() -> Result<String, String> {
    let failed = |e: io::Error| format!("cannot read the address from standard input: {e}");
    let input = io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
    let mut input = File::from(input);
    let (mut line, mut byte) = (Vec::new(), [0]);
    while input.read(&mut byte).map_err(failed)? > 0 && byte != *b"\n" {
        line.extend(byte);
        if line.len() > PASTED {
            return Err("the first line of standard input is too long for an address".to_owned());
        }
    }
    let line = String::from_utf8_lossy(&line).trim().to_owned();
    match line.as_str() {
        "" | "-" => Err("expected an address in the first line of standard input".to_owned()),
        _ => Ok(line),
    }
}

/// A time with its zone, as RFC 3339 has it.
pub(crate) fn until(word: &str) -> Result<UnixTime, String> {
    let time = OffsetDateTime::parse(word, &Rfc3339);
    let time = time
        .ok()
        .and_then(|time| u64::try_from(time.unix_timestamp()).ok());
    let seconds = time.ok_or(
        "expected a time with its zone, as `date -Is -d 18:00` prints it: 2026-12-24T18:00:00+01:00",
    )?;
    Ok(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
}

/// Bytes a second, which may be given in K, M or G.
pub(crate) fn rate(word: &str) -> Result<u64, String> {
    let upper = word.to_uppercase();
    let (number, shift) = match upper.char_indices().last() {
        Some((at, 'K')) => (upper.get(..at), 10),
        Some((at, 'M')) => (upper.get(..at), 20),
        Some((at, 'G')) => (upper.get(..at), 30),
        _ => (Some(upper.as_str()), 0),
    };
    let number = number.and_then(|number| number.parse::<u64>().ok());
    number
        .and_then(|number| number.checked_mul(1 << shift))
        .filter(|rate| *rate > 0)
        .ok_or_else(|| {
            "expected bytes per second, 1 or more, for example 500000, 500K or 10M".to_owned()
        })
}

/// Where a server listens.
pub(crate) fn listen_addr(word: &str) -> Result<Endpoint, String> {
    if word.starts_with(node::SCHEME) || word.starts_with('@') || without_scheme(word) {
        return Err(
            "cannot listen at a peer's address; to be reachable through a relay, give --register cepa://RELAYID@ADDR".to_owned()
        );
    }
    manager::numbered(word)?
        .parse()
        .map_err(|e: ParseError| e.to_string())
}

/// What `cepa pipe` joins.
pub(crate) fn piped_addr(word: &str) -> Result<Endpoint, String> {
    let scheme = word.split(':').next().unwrap_or_default();
    if scheme.to_lowercase().ends_with("listen") {
        return Err(format!(
            "{scheme}: use `cepa pipe --listen tcp:HOST:PORT`, or `cepa forward -L` for a peer's service"
        ));
    }
    if word.starts_with(node::SCHEME) || word.starts_with('@') || without_scheme(word) {
        return Err(
            "`cepa pipe` joins plain streams; for a peer's service, use `cepa connect` or `cepa forward -L`".to_owned()
        );
    }
    word.parse().map_err(|e: ParseError| e.to_string())
}

/// What `cepa explain` explains.
#[derive(Clone, Debug)]
pub(crate) enum Explained {
    Named(Box<Named>),
    Place(Endpoint),
    Peer(PeerAddr),
    Introduction(Introduction),
    Invitation(Arc<Invitation>),
    Ticket(Ticket),
    Code,
}

impl FromStr for Explained {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        if word.starts_with(INVITATION) {
            let it = word.parse::<Invitation>().map_err(|e| e.to_string())?;
            return Ok(Self::Invitation(Arc::new(it)));
        }
        if let Some(name) = names::in_word(word) {
            return names::dialled(name).map(|named| Self::Named(Box::new(named)));
        }
        Ok(match word.parse()? {
            DialTarget::Place(address) => Self::Place(address),
            DialTarget::Peer(address) => Self::Peer(address),
            DialTarget::Introduced(it) => Self::Introduction(it),
            DialTarget::Ticket(it) => Self::Ticket(it),
            DialTarget::Code(_) => Self::Code,
        })
    }
}

/// Begins what `cepa invite` prints.
const INVITATION: &str = "cepa-invitation:";

/// Begins what `cepa share` prints.
const TICKETS: [&str; 2] = ["ticket:", "cepa-ticket:"];

/// What a word begins with that is a ticket, or an earlier one.
pub(crate) fn ticket_prefix(word: &str) -> Option<&'static str> {
    TICKETS.into_iter().find(|prefix| word.starts_with(prefix))
}

/// Begins what `cepa introduce` prints.
const INTRODUCTION: &str = "cepa-introduction:";

/// What somebody is introduced to.
#[derive(Clone, Debug)]
pub(crate) enum Reference {
    Address(PeerAddr),
    /// One that may be passed on.
    Introduction(Introduction),
}

impl FromStr for Reference {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        if word.starts_with(INTRODUCTION) {
            let it = word.parse().map(Self::Introduction);
            return it.map_err(|e| format!("{e}"));
        }
        placed_addr(word).map(Self::Address)
    }
}

/// A word of `--allow`.
#[derive(Clone, Debug)]
pub(crate) enum AllowArg {
    Any,
    Known,
    Named(String),
    Peer(PeerId),
}

impl FromStr for AllowArg {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match (word, word.strip_prefix('@')) {
            ("any", _) => Ok(Self::Any),
            ("known", _) => Ok(Self::Known),
            (_, Some(name)) => Ok(Self::Named(name.to_owned())),
            ("all" | "anyone" | "everyone" | "everybody" | "*", _) => {
                Err("to allow everyone, give `any`".to_owned())
            }
            _ => word.parse().map(Self::Peer).map_err(|e| {
                let or = meant(word).unwrap_or_else(|| {
                    "or @NAME for a known peer, `known` for all of them, `any` for everyone"
                        .to_owned()
                });
                format!("{} ({or})", with_advice(&e))
            }),
        }
    }
}

/// Begins a service that has a folder's files.
const FILES: &str = "files:";

/// Begins a service that runs programs.
const COMMAND: &str = "command:";

/// Begins a service that connects to what its opener names.
const SOCKS: &str = "socks:";

/// The service that `cepa forward -D` uses where none is named.
pub(crate) const SOCKS_SERVICE: &str = "socks";

/// A named service of `--service`.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) target: Target,
    /// Who may open it may watch who has it open.
    pub(crate) watch: bool,
}

/// What a service is joined to.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// An address, opened anew for each substream.
    Dial(Endpoint),
    /// A service of another peer: all of it is in the clear here.
    Forward(Box<PeerAddr>),
    /// Sends back what it gets.
    Echo,
    /// Wherever its opener wants to be connected, among these.
    Socks(Arc<Destinations>),
    /// The files below a folder.
    Files(Arc<Shared>),
    /// Programs, with arguments that its opener says.
    Command(Arc<Programs>),
    /// The far side of the demo: takes offered TLS layers on and off mid-stream.
    Demo,
}

impl Target {
    /// What it is, as peers are told; where it leads they are not.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Dial(to) => match to.target() {
                transports::Target::Exec { pty: true, .. } => "terminal",
                transports::Target::Exec { .. } => "command",
                transports::Target::Serial { .. } | transports::Target::Rfc2217 { .. } => "serial",
                _ => "stream",
            },
            Self::Forward(_) => "forward",
            Self::Echo => "echo",
            Self::Socks(_) => "socks",
            Self::Files(_) => "files",
            Self::Command(_) => "programs",
            Self::Demo => "demo",
        }
    }
}

impl FromStr for Service {
    type Err = String;

    /// `NAME=ADDR`, or a port or a folder without a name; the name ends at the first `=`, an address may have more of them.
    fn from_str(word: &str) -> Result<Self, String> {
        let (name, address) = match (unnamed(word), word.split_once('=')) {
            (Some(name), _) => (name, word),
            (None, Some((name, address))) => (name.to_owned(), address),
            (None, None) => return Err("expected NAME=ADDR, for example up=exec:sha256sum".into()),
        };
        let (address, watch) = watched(address)?;
        let target = match address {
            "echo:" => Target::Echo,
            "demo:" => Target::Demo,
            _ if address.starts_with(SOCKS) => {
                let allowed = address.strip_prefix(SOCKS).unwrap_or_default().parse()?;
                Target::Socks(Arc::new(allowed))
            }
            _ if address.starts_with(FILES) => {
                let shared = address.strip_prefix(FILES).unwrap_or_default().parse()?;
                Target::Files(Arc::new(shared))
            }
            _ if address.starts_with(COMMAND) => {
                let programs = address.strip_prefix(COMMAND).unwrap_or_default().parse()?;
                Target::Command(Arc::new(programs))
            }
            _ if address.starts_with(node::SCHEME) || address.starts_with('@') => {
                let to = peer_addr(address)?;
                if to.hints().is_empty() && names::in_word(address).is_none() {
                    return Err("the address does not say where the peer is; give cepa://PEERID@ADDR/SERVICE".into());
                }
                Target::Forward(Box::new(to))
            }
            _ => {
                let port = own_port(address);
                let place = port.as_deref().unwrap_or(address);
                let endpoint: Endpoint = place.parse().map_err(|e| kinds::unknown(place, &e))?;
                if !endpoint.layers().is_empty() {
                    return Err(
                        "a service's address cannot have layers; give the plain address".into(),
                    );
                }
                Target::Dial(endpoint)
            }
        };
        Ok(Self {
            name: service_name(&name)?,
            target,
            watch,
        })
    }
}

/// What a service is called that has no name of its own: a port by its number, files by what they are, a command by its program, a
/// socket and a device by their file.
fn unnamed(word: &str) -> Option<String> {
    if own_port(word).is_some() {
        return Some(word.to_owned());
    }
    if word.starts_with(FILES) {
        return Some(FILES.trim_end_matches(':').to_owned());
    }
    // `NAME=ADDR`, unless what stands in front of the first `=` begins like an address.
    let address = watched(word).map_or(word, |(address, _)| address);
    let place: Endpoint = address.parse().ok()?;
    let stem = |path: &Path| Some(path.file_stem()?.to_str()?.to_owned());
    let name = match place.target() {
        transports::Target::Tcp { port, .. } => Some(port.to_string()),
        transports::Target::Exec { argv, .. } => stem(Path::new(argv.first()?)),
        transports::Target::Unix { path, .. } | transports::Target::Serial { path, .. } => {
            stem(path)
        }
        _ => None,
    };
    name.filter(|name| service_name(name).is_ok())
}

/// A port alone is at this machine.
fn own_port(address: &str) -> Option<String> {
    let digits = address.bytes().all(|c| c.is_ascii_digit());
    let port: NonZeroU16 = address.parse().ok().filter(|_| digits)?;
    Some(format!("tcp:127.0.0.1:{port}"))
}

/// An address without what is said of watching behind it, where it is one of those that can be watched.
fn watched(address: &str) -> Result<(&str, bool), String> {
    let said = [(",watch=no", false), (",watch=yes", true)];
    let said = said
        .into_iter()
        .find_map(|(option, yes)| Some((address.strip_suffix(option)?, yes)));
    let Some((plain, yes)) = said else {
        return Ok((address, true));
    };
    let Ok(endpoint) = plain.parse::<Endpoint>() else {
        return Ok((address, true));
    };
    match endpoint.target() {
        transports::Target::Serial { .. }
        | transports::Target::Rfc2217 { .. }
        | transports::Target::Pty { .. }
        | transports::Target::Exec { pty: true, .. } => Ok((plain, yes)),
        _ => Err(
            "watch= is for a serial line and a command with a terminal (pty=yes); leave it out"
                .to_owned(),
        ),
    }
}

impl Service {
    /// Whether it leads to another peer than this one, if it leads to a peer.
    pub(crate) fn leads_elsewhere(&self, own: &Identity) -> Result<(), Failure> {
        match &self.target {
            Target::Forward(to) if own.is(&to.peer()) => {
                let (name, own) = (&self.name, to.peer());
                let why = format!(
                    "the service {name} leads to {own}, which is this machine; offer the address behind it"
                );
                Err(Failure::new(Code::Usage, why))
            }
            _ => Ok(()),
        }
    }
}

/// A listener of `cepa forward`, and the service it leads to.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    /// One, or the same port in both families, as far as this machine has them.
    pub(crate) listen: Vec<Endpoint>,
    /// Empty for the only service of a ticket.
    pub(crate) service: String,
}

impl FromStr for Local {
    type Err = String;

    /// `LISTEN[=SERVICE]`; the address ends at the last `=`, it may have options of its own.
    fn from_str(word: &str) -> Result<Self, String> {
        let Some((listen, service)) = word.rsplit_once('=') else {
            let listen = listener(word, true);
            return Ok(Self {
                listen: listen.map_err(|_| {
                    let why = "expected LISTEN=SERVICE, for example 5433=db";
                    kinds::no_port(word).unwrap_or_else(|| why.to_owned())
                })?,
                service: String::new(),
            });
        };
        let listen = listener(listen, true)?;
        Ok(Self {
            listen,
            service: service_name(service)?,
        })
    }
}

/// A SOCKS listener of `cepa forward`, and the service that connects it.
#[derive(Clone, Debug)]
pub(crate) struct Dynamic(pub(crate) Local);

impl FromStr for Dynamic {
    type Err = String;

    /// `LISTEN[=SERVICE]`.
    fn from_str(word: &str) -> Result<Self, String> {
        let (listen, service) = word.rsplit_once('=').unwrap_or((word, SOCKS_SERVICE));
        Ok(Self(Local {
            listen: local_listener(listen)?,
            service: service_name(service)?,
        }))
    }
}

/// Where `cepa forward` listens. A port alone is at this machine only, in both families.
fn local_listener(word: &str) -> Result<Vec<Endpoint>, String> {
    listener(word, false)
}

/// The same; `lines`: also where programs look for a serial line.
fn listener(word: &str, lines: bool) -> Result<Vec<Endpoint>, String> {
    let tcp = |rest: String| format!("tcp:{rest}").parse::<Endpoint>();
    let listen = if word.parse::<u16>().is_ok() {
        // Not `localhost`: that name is often of one family only.
        let both = ["127.0.0.1", "[::1]"].map(|at| tcp(format!("{at}:{word}")));
        both.into_iter().collect()
    } else if word.parse::<SocketAddr>().is_ok() || word.starts_with("localhost:") {
        tcp(word.to_owned()).map(|at| vec![at])
    } else if let Some(port) = word.strip_prefix("*:") {
        return Err(format!(
            "to listen at all addresses of this machine, give 0.0.0.0:{port}"
        ));
    } else {
        word.parse().map(|at| vec![at])
    };
    let listen =
        listen.map_err(|e| kinds::no_port(word).unwrap_or_else(|| format!("{e}, or a port")))?;
    for at in &listen {
        let is_line = matches!(at.target(), transports::Target::Rfc2217 { .. });
        if !(at.is_socket() || lines && is_line) {
            return Err(format!(
                "cannot listen on {}: here; use tcp: or unix:",
                at.scheme()
            ));
        }
        if !at.layers().is_empty() {
            return Err("a local listener cannot have layers; give the plain address".into());
        }
    }
    Ok(listen)
}

/// Where `--metrics` listens, at one port. A port alone, with or without a colon, is at this machine only, in both families.
pub(crate) fn metrics_listener(word: &str) -> Result<Vec<Endpoint>, String> {
    local_listener(word.strip_prefix(':').unwrap_or(word))
}

/// A name that stands on a command line and in messages: one word.
fn service_name(name: &str) -> Result<String, String> {
    let checked = ServiceName::new(name).map_err(|e| e.to_string())?;
    if checked.is_reserved() {
        let prefix = reserved::PREFIX;
        return Err(format!(
            "names that begin with {prefix} are reserved; choose another one"
        ));
    }
    if name.contains(char::is_whitespace) {
        return Err("a service's name cannot contain spaces here; leave them out".into());
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_given_in_bytes_or_more() {
        for (word, bytes) in [
            ("1", 1),
            ("500k", 512_000),
            ("10M", 10 << 20),
            ("2G", 2 << 30),
        ] {
            assert_eq!(rate(word), Ok(bytes), "{word}");
        }
        for word in [
            "",
            "0",
            "M",
            "0K",
            "-1",
            "10 M",
            "1.5M",
            "10MB",
            "99999999999G",
            "é",
        ] {
            assert!(rate(word).is_err(), "{word}");
        }
    }

    #[test]
    fn a_port_to_listen_at_is_at_this_machine_only() {
        for (word, at) in [
            ("8080=web", "tcp:127.0.0.1:8080 tcp:[::1]:8080"),
            ("0=web", "tcp:127.0.0.1:0 tcp:[::1]:0"),
            ("localhost:8080=web", "tcp:localhost:8080"),
            ("127.0.0.1:8080=web", "tcp:127.0.0.1:8080"),
            ("0.0.0.0:8080=web", "tcp:0.0.0.0:8080"),
            ("[::1]:8080=web", "tcp:[::1]:8080"),
            ("tcp:127.0.0.1:8080=web", "tcp:127.0.0.1:8080"),
            ("unix:/run/web.sock=web", "unix:/run/web.sock"),
        ] {
            let alone: Local = word.strip_suffix("=web").unwrap().parse().unwrap();
            assert_eq!(alone.service, "", "{word}");
            let local: Local = word.parse().unwrap();
            let listen: Vec<_> = local.listen.iter().map(Endpoint::to_string).collect();
            assert_eq!(listen.join(" "), at, "{word}");
            assert_eq!(local.service, "web");
        }
        for (word, advice) in [
            ("x", "LISTEN=SERVICE"),
            ("65536=web", "65535"),
            ("x=web", "or a port"),
            ("*:8080=web", "0.0.0.0:8080"),
            ("8080:host:80", "LISTEN=SERVICE"),
            ("stdio:=web", "unix:"),
        ] {
            let error = word.parse::<Local>().unwrap_err();
            assert!(error.contains(advice), "{word}: {error}");
        }
    }

    #[test]
    fn a_socks_listener_has_a_service_of_its_name_unless_another_one_is_named() {
        for (word, at, service) in [
            ("1080", "tcp:127.0.0.1:1080", "socks"),
            ("1080=web", "tcp:127.0.0.1:1080", "web"),
            ("0.0.0.0:1080", "tcp:0.0.0.0:1080", "socks"),
            ("unix:/run/s", "unix:/run/s", "socks"),
            ("unix:/run/s=web", "unix:/run/s", "web"),
        ] {
            let Dynamic(local) = word.parse().unwrap();
            assert_eq!(local.listen.first().unwrap().to_string(), at, "{word}");
            assert_eq!(local.service, service, "{word}");
        }
        assert!("x=y".parse::<Dynamic>().is_err());
    }

    #[test]
    fn a_service_has_any_name_of_one_word_that_the_wire_can_carry() {
        let longest = "x".repeat(255);
        for name in ["db", "größer", &longest] {
            let service: Service = format!("{name}=echo:").parse().unwrap();
            assert_eq!(service.name, name);
            let local: Local = format!("tcp:127.0.0.1:0={name}").parse().unwrap();
            assert_eq!(local.service, name);
        }
        let too_long = "x".repeat(256);
        for name in [
            "",
            "two words",
            "d\u{202e}b",
            "a\nb",
            "cepa.pair",
            "cepa.new",
            &too_long,
        ] {
            let error = format!("{name}=echo:").parse::<Service>().unwrap_err();
            assert!(!error.chars().any(char::is_control), "{error}");
            assert!(format!("tcp:127.0.0.1:0={name}").parse::<Local>().is_err());
        }
    }
}
