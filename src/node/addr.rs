//! `cepa://PEERID@HINT,HINT/SERVICE`: who, then where that peer may be found, then what is wanted.
//!
//! The peer id is the address; everything else may be wrong or missing without anybody else being
//! reached by mistake. A hint is an endpoint (`tcp:host:7000`), or a relay that the peer is registered
//! at: `relay:RELAYID@HINT`, where the inner hint says how to get to the relay, and may be a relay again.
//!
//! Hints and the service are percent-encoded (RFC 3986, section 2.1) where a byte would end them, and
//! where it would not survive being pasted: `%`, `/`, `;`, white space, control characters and everything
//! outside of ASCII; in hints `,` as well. A hint of `tcp:` without options has nothing of that but the `%` of a zone, and stands as it is:
//! `cepa://PEERID@tcp:[fe80::1%eth0]:7000`. What is printed parses to the same value, and prints the same again.
//!
//! Between hints a `;` is read as well, which is what stood there first, and stands there on the wire; a shell takes it for the end of a
//! command. And a `,` that was not encoded belongs to its hint (`tcp:h:1,keepalive=no`), unless another hint begins behind it.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use cepa_transports::endpoint::{SCHEMES, hidden};
use cepa_transports::text::{percent_decode, quoted};
use cepa_transports::{Endpoint, Target};

use crate::identity::PeerId;
use crate::session::ServiceName;

/// Begins every address of a peer.
pub const SCHEME: &str = "cepa://";

/// Most hints of one address.
pub const MAX_HINTS: usize = 16;

/// Longest address in bytes.
pub const MAX_LEN: usize = 4096;

/// Most relays on the way to one peer.
pub const MAX_RELAYS: usize = 3;

/// What a hint may begin with, in front of its scheme.
const LAYERS: [&str; 3] = ["mux", "tls", "link"];

/// The address of a peer, or of one service of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PeerAddr {
    peer: PeerId,
    hints: Vec<Hint>,
    service: String,
}

/// Where a peer may be found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Hint {
    /// The peer itself listens here.
    Direct(Endpoint),
    /// The peer is registered at a relay.
    Relay {
        /// Who the relay is.
        relay: PeerId,
        /// How to get to it.
        at: Box<Hint>,
    },
}

impl PeerAddr {
    /// A peer, without hints and without a service.
    #[must_use]
    pub fn new(peer: PeerId) -> Self {
        Self {
            peer,
            hints: Vec::new(),
            service: String::new(),
        }
    }

    /// The same with one more hint, which is tried after those that are there.
    ///
    /// # Errors
    /// [`PeerAddrError::TooMany`] beyond [`MAX_HINTS`] hints or [`MAX_RELAYS`] relays in one, and
    /// [`PeerAddrError::TooLong`] where the address would be printed with more than [`MAX_LEN`] bytes.
    pub fn with_hint(mut self, hint: Hint) -> Result<Self, PeerAddrError> {
        if self.hints.len() >= MAX_HINTS {
            return Err(PeerAddrError::TooMany {
                what: "hints",
                most: MAX_HINTS,
            });
        }
        hint.check()?;
        self.hints.push(hint);
        self.short_enough()
    }

    /// The same for a service of that name; empty means whichever the peer has by default.
    ///
    /// # Errors
    /// [`PeerAddrError::Service`] for a name that could not be sent, and [`PeerAddrError::TooLong`] where
    /// the address would be printed with more than [`MAX_LEN`] bytes.
    pub fn with_service(mut self, service: &str) -> Result<Self, PeerAddrError> {
        if !service.is_empty() && ServiceName::check(service).is_err() {
            return Err(PeerAddrError::Service {
                service: service.to_owned(),
            });
        }
        service.clone_into(&mut self.service);
        self.short_enough()
    }

    /// What is printed has to parse, and printing may encode what came without.
    fn short_enough(self) -> Result<Self, PeerAddrError> {
        let found = self.to_string().len();
        if found > MAX_LEN {
            return Err(PeerAddrError::TooLong { found });
        }
        Ok(self)
    }

    fn write_service(&self, out: &mut impl fmt::Write) -> fmt::Result {
        if !self.service.is_empty() {
            out.write_char('/')?;
            encode(out, &self.service, is_plain)?;
        }
        Ok(())
    }

    /// As it stands in messages to other peers, which a release that knows only this form reads. It is for others
    /// ([`PeerAddr::for_others`]).
    #[cfg(feature = "mesh")]
    pub(crate) fn to_wire(&self) -> String {
        let mut text = format!("{SCHEME}{}", self.peer);
        for (at, hint) in self.hints.iter().map(Hint::for_others).enumerate() {
            text.push(if at == 0 { '@' } else { ';' });
            if hint.is_network() {
                text += &hint.to_string();
            } else {
                // Writing to a text does not fail.
                let _ = encode(&mut text, &hint.to_string(), is_plain);
            }
        }
        let _ = self.write_service(&mut text);
        text
    }

    /// The same for somebody else; see [`Endpoint::for_others`].
    #[must_use]
    pub fn for_others(&self) -> Self {
        Self {
            peer: self.peer,
            hints: self.hints.iter().map(Hint::for_others).collect(),
            service: self.service.clone(),
        }
    }

    /// Who.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Where, in the order in which to try.
    pub fn hints(&self) -> &[Hint] {
        &self.hints
    }

    /// What for; empty leaves the choice to the peer.
    pub fn service(&self) -> &str {
        &self.service
    }
}

impl Hint {
    /// Its whole text, with what is shown as `***`; see [`Endpoint::revealed`]. For what keeps it, not for messages.
    #[must_use]
    pub fn revealed(&self) -> String {
        match self {
            Self::Direct(endpoint) => endpoint.revealed().to_string(),
            Self::Relay { relay, at } => format!("relay:{relay}@{}", at.revealed()),
        }
    }

    /// The same for somebody else; see [`Endpoint::for_others`].
    #[must_use]
    pub fn for_others(&self) -> Self {
        match self {
            Self::Direct(endpoint) => Self::Direct(endpoint.for_others()),
            Self::Relay { relay, at } => Self::Relay {
                relay: *relay,
                at: Box::new(at.for_others()),
            },
        }
    }

    /// Whether the way leads through a relay.
    pub fn is_relay(&self) -> bool {
        matches!(self, Self::Relay { .. })
    }

    /// Whether following the hint only opens connections over a network ([`Endpoint::is_network`]). A hint that came
    /// from somebody else must not be able to start a command or open a device of this machine.
    pub fn is_network(&self) -> bool {
        match self {
            Self::Direct(endpoint) => endpoint.is_network(),
            Self::Relay { at, .. } => at.is_network(),
        }
    }

    /// Whether its text has nothing that an address of a peer has to encode, but the `%` of a zone: `tcp:` or `quic:`, and no proxy.
    fn is_plain(&self) -> bool {
        match self {
            Self::Direct(endpoint) => match endpoint.target() {
                Target::Tcp { settings, .. } => settings.proxy.is_none(),
                Target::Quic { settings, .. } => settings.proxy.is_none(),
                _ => false,
            },
            Self::Relay { at, .. } => at.is_plain(),
        }
    }

    fn relays(&self) -> usize {
        match self {
            Self::Direct(_) => 0,
            Self::Relay { at, .. } => 1 + at.relays(),
        }
    }

    fn check(&self) -> Result<(), PeerAddrError> {
        if self.relays() > MAX_RELAYS {
            return Err(PeerAddrError::TooMany {
                what: "relays on one way",
                most: MAX_RELAYS,
            });
        }
        Ok(())
    }
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.peer)?;
        for (at, hint) in self.hints.iter().enumerate() {
            f.write_char(if at == 0 { '@' } else { ',' })?;
            let text = hint.to_string();
            if hint.is_plain() && !text.contains(',') {
                f.write_str(&text)?;
            } else {
                encode(f, &text, |byte| is_plain(byte) && byte != b',')?;
            }
        }
        self.write_service(f)
    }
}

impl fmt::Display for Hint {
    /// Without the percent-encoding that an address needs around it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(endpoint) => endpoint.fmt(f),
            Self::Relay { relay, at } => write!(f, "relay:{relay}@{at}"),
        }
    }
}

impl FromStr for Hint {
    type Err = PeerAddrError;

    fn from_str(text: &str) -> Result<Self, PeerAddrError> {
        let hint = parse_hint(text, MAX_RELAYS)?;
        hint.check()?;
        Ok(hint)
    }
}

fn parse_hint(text: &str, relays: usize) -> Result<Hint, PeerAddrError> {
    let wrong = |reason: String| PeerAddrError::Hint {
        hint: hidden(text),
        reason,
    };
    let Some(rest) = text.strip_prefix("relay:") else {
        if let Some((relay, _)) = text.split_once('@')
            && relay.parse::<PeerId>().is_ok()
        {
            return Err(wrong(format!("a relay is written relay:{text}")));
        }
        let endpoint = text.parse::<Endpoint>().map_err(|e| wrong(e.to_string()))?;
        return Ok(Hint::Direct(endpoint));
    };
    if relays == 0 {
        return Err(PeerAddrError::TooMany {
            what: "relays on one way",
            most: MAX_RELAYS,
        });
    }
    let (relay, at) = rest
        .split_once('@')
        .ok_or_else(|| wrong("expected relay:PEERID@ENDPOINT".into()))?;
    Ok(Hint::Relay {
        relay: relay.parse().map_err(|e| wrong(format!("{e}")))?,
        at: Box::new(parse_hint(at, relays - 1)?),
    })
}

impl FromStr for PeerAddr {
    type Err = PeerAddrError;

    fn from_str(text: &str) -> Result<Self, PeerAddrError> {
        if text.len() > MAX_LEN {
            return Err(PeerAddrError::TooLong { found: text.len() });
        }
        let rest = text.strip_prefix(SCHEME).ok_or(PeerAddrError::Scheme)?;
        let (who, service) = match rest.split_once('/') {
            Some((_, "")) => return Err(PeerAddrError::NoService),
            Some((who, service)) => (who, decode(service)?),
            None => (rest, String::new()),
        };
        let (peer, hints) = match who.split_once('@') {
            Some((peer, hints)) => (peer, Some(hints)),
            None => (who, None),
        };
        let peer = peer.parse().map_err(PeerAddrError::Peer)?;
        let mut address = Self::new(peer).with_service(&service)?;
        for hint in hints.into_iter().flat_map(separate) {
            let plain = hint.parse::<Hint>().ok().filter(Hint::is_plain);
            let hint = match plain {
                Some(hint) => hint,
                None => decode(hint)?.parse()?,
            };
            address = address.with_hint(hint)?;
        }
        // The path of a socket or a command, cut at its first slash: what is behind it is no service.
        let raw = rest.split_once('/').map_or("", |(_, service)| service);
        if raw.contains('/') && !address.hints.iter().all(Hint::is_plain) {
            return Err(PeerAddrError::Slash);
        }
        Ok(address)
    }
}

/// Why a text is not the address of a peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerAddrError {
    /// It does not begin with `cepa://`.
    #[error("a peer's address begins with cepa://, as in cepa://PEERID@tcp:HOST:PORT/SERVICE")]
    Scheme,
    /// Longer than [`MAX_LEN`].
    #[error("a peer's address has at most {MAX_LEN} bytes, this has {found}: give fewer hints")]
    TooLong {
        /// Bytes found.
        found: usize,
    },
    /// The peer id is none.
    #[error("after cepa://: {0}")]
    Peer(#[source] crate::identity::PeerIdError),
    /// A hint is neither an endpoint nor a relay.
    #[error(
        "the hint {} of a peer's address: {reason}{}",
        quoted(hint),
        slash(hint)
    )]
    Hint {
        /// The hint, decoded.
        hint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A service with a `/` in it behind a hint that is a path or a command.
    #[error(
        "the service in a peer's address begins at the first /: in a hint or a service's name, write / as %2F"
    )]
    Slash,
    /// More of something than an address can have.
    #[error("a peer's address has at most {most} {what}: leave some out")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        most: usize,
    },
    /// A `/` with nothing behind it.
    #[error("no service after the last / of a peer's address: name one, or leave out the /")]
    NoService,
    /// A service's name that could not be sent.
    #[error(
        "{} can't be the name of a service: at most 255 bytes, no control or invisible characters",
        quoted(service)
    )]
    Service {
        /// The name, decoded.
        service: String,
    },
    /// A `%` without two digits, or bytes that are no UTF-8.
    #[error(
        "bad escape {} in a peer's address: %XX is one byte of UTF-8; write a percent sign as %25",
        quoted(part)
    )]
    Escape {
        /// The part where it stands.
        part: String,
    },
}

/// What is missing in a hint that ends where its path would begin.
fn slash(hint: &str) -> &'static str {
    if hint.ends_with(':') {
        "; write %2F for a / in it"
    } else {
        ""
    }
}

/// Whether a byte stands for itself in a hint or a service.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'%' | b'/' | b';')
}

fn encode(out: &mut impl fmt::Write, text: &str, is_plain: impl Fn(u8) -> bool) -> fmt::Result {
    for byte in text.bytes() {
        if is_plain(byte) {
            out.write_char(char::from(byte))?;
        } else {
            write!(out, "%{byte:02X}")?;
        }
    }
    Ok(())
}

/// The hints of an address, still encoded.
fn separate(hints: &str) -> Vec<&str> {
    let (mut all, mut start) = (Vec::new(), 0);
    for (at, c) in hints.char_indices() {
        let (hint, rest) = hints.split_at(at);
        let ends = match c {
            ';' => true,
            ',' => begins(rest.strip_prefix(',').unwrap_or(rest)),
            _ => false,
        };
        if ends {
            all.extend(hint.get(start..));
            start = at + 1;
        }
    }
    all.extend(hints.get(start..));
    all
}

/// Whether a hint begins here, and not an option of the one before: layers, if any, then a scheme, all of them known.
fn begins(text: &str) -> bool {
    let Some((head, _)) = text.split_once(':') else {
        return false;
    };
    let mut words = head.split('+');
    let scheme = words.next_back().unwrap_or_default();
    let is_layer = |word: &str| {
        // Its options may follow.
        let end = word.find(|c: char| !c.is_ascii_lowercase());
        let name = word.get(..end.unwrap_or(word.len()));
        name.is_some_and(|name| LAYERS.contains(&name))
    };
    (scheme == "relay" || SCHEMES.contains(&scheme)) && words.all(is_layer)
}

fn decode(text: &str) -> Result<String, PeerAddrError> {
    let wrong = || PeerAddrError::Escape {
        part: text.to_owned(),
    };
    let bytes = percent_decode(text).map_err(|_| wrong())?;
    String::from_utf8(bytes).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: &str = "mfzwi3dbonzgc3tlmvzwi3dbonzgc3tlmvzwi3dbonzgc3tlmvza";

    #[test]
    fn addresses_print_as_they_parse() {
        for text in [
            format!("cepa://{A}"),
            format!("cepa://{A}/up"),
            format!("cepa://{A}@tcp:127.0.0.1:7000"),
            format!("cepa://{A}@tcp:[::1]:7000,tcp:host:1/up"),
            format!("cepa://{A}@tcp:h:1%2Ckeepalive=no,relay:{A}@tcp:r:1%2Ckeepalive=no/a,b"),
            format!("cepa://{A}@tcp:[fe80::1%eth0]:7000,tcp:[fe80::1%3]:1/up"),
            format!("cepa://{A}@relay:{A}@tls+tls?key=raw+tcp:[fe80::1%eb0]:7000/up"),
            format!("cepa://{A}@relay:{A}@tcp:127.0.0.1:7000/up"),
            format!("cepa://{A}@relay:{A}@relay:{A}@tcp:h:1"),
            format!("cepa://{A}@unix:%2Frun%2Fcepa.sock/a%20b%2Fc"),
            format!("cepa://{A}@exec:ssh%20host%20cepa%20serve%20stdio:"),
            format!("cepa://{A}@ws:h:80%2Fa%252520b,tcp:h:1/up"),
            format!("cepa://{A}@relay:{A}@wss:h:443%2Fa%2Fb%2Cping=5"),
            format!("cepa://{A}@tcp:h:1%2Cproxy=socks5h:%2F%2F[::1]:1080"),
        ] {
            let address: PeerAddr = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
        }
    }

    /// A shell takes what is printed as it is.
    #[test]
    fn hints_are_read_with_either_mark_between_them_and_printed_with_the_one() {
        let read = |hints: &str| format!("cepa://{A}@{hints}/up").parse::<PeerAddr>();
        let hints = |address: &PeerAddr| -> Vec<String> {
            address.hints().iter().map(ToString::to_string).collect()
        };
        let relay = format!("relay:{A}@tcp:r:7711");
        for (text, all) in [
            (
                "tcp:a:1;tcp:b:2,tcp:c:3",
                vec!["tcp:a:1", "tcp:b:2", "tcp:c:3"],
            ),
            // Of old, and as a person types it: a comma belongs to its hint.
            (
                "tcp:a:1,keepalive=no;tcp:b:2",
                vec!["tcp:a:1,keepalive=no", "tcp:b:2"],
            ),
            (
                "tcp:a:1,keepalive=no,tcp:b:2",
                vec!["tcp:a:1,keepalive=no", "tcp:b:2"],
            ),
            (
                "mux+tls+link,escape=xonxoff,mtu=240+tcp:a:1,mux+tls+link,mtu=99+tcp:b:2",
                vec![
                    "mux+tls+link,escape=xonxoff,mtu=240+tcp:a:1",
                    "mux+tls+link,mtu=99+tcp:b:2",
                ],
            ),
            (
                "mux+tls+link%2Cmtu=240+tcp:a:1,mux+tls+link%2Cmtu=99+tcp:b:2",
                vec![
                    "mux+tls+link,mtu=240+tcp:a:1",
                    "mux+tls+link,mtu=99+tcp:b:2",
                ],
            ),
            ("fd:3,4,stdio:", vec!["fd:3,4", "stdio:"]),
            (
                "unix:a%252Cb,mode=0660,serial:x,baud=9600",
                vec!["unix:a%2Cb,mode=0660", "serial:x,baud=9600"],
            ),
            (&format!("tcp:a:1,{relay}"), vec!["tcp:a:1", &relay]),
            (&format!("{relay};tcp:a:1"), vec![&relay, "tcp:a:1"]),
        ] {
            let address = read(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(hints(&address), all, "{text}");
            let printed = address.to_string();
            assert_eq!(printed.matches(',').count(), all.len() - 1, "{printed}");
            assert!(!printed.contains(';'), "{printed}");
            assert_eq!(printed.parse::<PeerAddr>().unwrap(), address);
            #[cfg(feature = "mesh")]
            {
                // A release that knows only `;` ends a hint nowhere else.
                let wire = address.to_wire();
                assert_eq!(wire.matches(';').count(), all.len() - 1, "{wire}");
                assert_eq!(wire.parse::<PeerAddr>().unwrap(), address);
            }
        }
        for wrong in [
            "tcp:a:1,",
            "tcp:a:1;",
            ",tcp:a:1",
            "tcp:a:1,,tcp:b:1",
            "tcp:a:1,smtp:b:1",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    /// The same text, zone and all, in both kinds of addresses.
    #[test]
    fn a_zone_is_written_plainly() {
        for zone in ["eth0", "3", "251", "eb0", "25", "wlan0.1"] {
            let text = format!("tcp:[fe80::1%{zone}]:7000");
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), text);
            let address: PeerAddr = format!("cepa://{A}@{text}").parse().unwrap();
            assert_eq!(address.hints(), [Hint::Direct(endpoint)]);
            assert_eq!(address.to_string(), format!("cepa://{A}@{text}"));
        }
        // Whoever encodes the percent sign all the same, as a URI's, is understood; and no zone is made of it.
        let text = format!("cepa://{A}@tcp:[fe80::1%25eth0]:7000");
        let address: PeerAddr = text.parse().unwrap();
        assert_eq!(address.to_string(), text.replace("%25", "%"));
        assert!("tcp:[fe80::1%25eth0]:7000".parse::<Endpoint>().is_err());
    }

    #[test]
    fn parts_come_out_decoded() {
        let address: PeerAddr = format!("cepa://{A}@unix:%2Frun%2Fa%2525b;tcp:h:1/z%C3%A4h")
            .parse()
            .unwrap();
        assert_eq!(address.peer().to_string(), A);
        assert_eq!(address.service(), "zäh");
        assert_eq!(address.hints().len(), 2);
        assert_eq!(address.hints()[0].to_string(), "unix:/run/a%25b");
    }

    #[test]
    fn wrong_addresses_say_what_is_wrong() {
        let error = |text: &str| text.parse::<PeerAddr>().unwrap_err().to_string();
        assert!(error("tcp:host:1").contains("begins with cepa://"));
        assert!(error("cepa://short").contains("52 characters"));
        assert!(error(&format!("cepa://{A}@")).contains("hint"));
        assert!(error(&format!("cepa://{A}@tcp:host")).contains("tcp:host"));
        assert!(error(&format!("cepa://{A}@relay:{A}")).contains("relay:PEERID@ENDPOINT"));
        assert!(error(&format!("cepa://{A}/")).contains("no service after"));
        assert!(error(&format!("cepa://{A}/%0a")).contains("control"));
        assert!(error(&format!("cepa://{A}/%z1")).contains("%25"));
        assert!(error(&format!("cepa://{A}/%ff")).contains("UTF-8"));
        let hints = vec!["tcp:h:1"; MAX_HINTS + 1].join(";");
        assert!(error(&format!("cepa://{A}@{hints}")).contains("16 hints"));
        let relays = format!("relay:{A}@").repeat(MAX_RELAYS + 1);
        assert!(error(&format!("cepa://{A}@{relays}tcp:h:1")).contains("3 relays"));
        let long = "x".repeat(MAX_LEN);
        assert!(error(&format!("cepa://{A}/{long}")).contains("4096"));
        // A path or a command that was not encoded is cut, and said to be.
        for text in [
            "unix:/run/x.sock/up",
            "exec:touch /tmp/x",
            "serial:/dev/ttyUSB0",
            "unix:x/y/up",
            "ws:h:80/path/up",
            "tcp:h:1,proxy=http://p:1/up",
        ] {
            let why = error(&format!("cepa://{A}@{text}"));
            assert!(why.contains("%2F"), "{text}: {why}");
        }
        assert!(
            format!("cepa://{A}@tcp:h:1/a/b")
                .parse::<PeerAddr>()
                .is_ok()
        );
        assert!(
            format!("cepa://{A}@unix:%2Frun%2Fx/a%2Fb")
                .parse::<PeerAddr>()
                .is_ok()
        );
        // Short enough as it stands, and too long as it would be printed.
        let hints = vec![format!("unix:{}", "\u{e4}".repeat(100)); 10].join(";");
        let unencoded = format!("cepa://{A}@{hints}/up");
        assert!(unencoded.len() < MAX_LEN && error(&unencoded).contains("4096"));
    }

    #[test]
    fn only_what_opens_connections_is_network() {
        let network = |text: &str| text.parse::<Hint>().unwrap().is_network();
        assert!(network("tcp:h:1"));
        assert!(network(&format!("relay:{A}@tcp:h:1")));
        assert!(network("ws:h:80/path"));
        assert!(network("tcp:h:1,proxy=http://p:1"));
        // What is asked for in whose name is for who dials to say.
        assert!(!network("ws:h:80/,header=A:b"));
        assert!(!network("wss:h:80/,host=router"));
        // Which way of this machine is taken, too.
        assert!(!network("tcp:h:1,bind=192.0.2.1"));
        assert!(!network("tcp:h:1,interface=tun0"));
        assert!(!network("ws:h:80/,mark=1"));
        assert!(!network("rfc2217:h:1"));
        assert!(network("quic:h:1,keepalive=5"));
        assert!(!network("quic:h:1,bind=192.0.2.1"));
        assert!(network("tcp:h:1,nodelay=no"));
        assert!(!network("exec:reboot"));
        assert!(!network("ssh:h"));
        assert!(!network("unix:/run/docker.sock"));
        assert!(!network(&format!("relay:{A}@exec:reboot")));
    }

    proptest! {
        #[test]
        fn every_value_survives_its_print(
            service in "\\PC{0,40}"
                .prop_filter("a name", |s| s.is_empty() || ServiceName::check(s).is_ok()),
            paths in prop::collection::vec("[ -~]{1,30}", 0..4),
            zones in prop::collection::vec("[a-z0-9]{1,6}", 0..3),
            relayed in any::<bool>(),
        ) {
            let mut address = PeerAddr::new(A.parse().unwrap()).with_service(&service).unwrap();
            let paths = paths.iter().map(|path| format!("unix:/{}", path.replace(['%', '?'], "_").replace(',', "%2C")));
            for text in paths.chain(zones.iter().map(|zone| format!("tcp:[fe80::1%{zone}]:1"))) {
                let Ok(endpoint) = text.parse() else { continue };
                let mut hint = Hint::Direct(endpoint);
                if relayed {
                    hint = Hint::Relay { relay: A.parse().unwrap(), at: Box::new(hint) };
                }
                address = address.with_hint(hint).unwrap();
            }
            let text = address.to_string();
            prop_assert_eq!(&text.parse::<PeerAddr>().unwrap(), &address);
            prop_assert!(!text.contains(';'));
            #[cfg(feature = "mesh")]
            prop_assert_eq!(&address.to_wire().parse::<PeerAddr>().unwrap(), &address);
            prop_assert!(text.bytes().all(|b| b.is_ascii_graphic()));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,80}", tail in "[a-z0-9@;,+:/%]{0,60}") {
            let _ = text.parse::<PeerAddr>();
            if let Ok(address) = format!("cepa://{A}{tail}").parse::<PeerAddr>() {
                prop_assert_eq!(address.to_string().parse::<PeerAddr>().unwrap(), address);
            }
        }
    }
}
