//! A ticket and its text: `ticket:` and base64url of the bytes below. People paste it, so every byte counts. No IO, no clock.
//!
//! ```text
//! peer id(32), secret(16), expires(3), hints, sum(2)
//! hint   04, address(4), port(2)          tcp:, IPv4
//!        06, address(16), port(2)         tcp:, IPv6
//!        01, length(1), name, port(2)     tcp:, a name
//!        80 + length, name, port(2)       the same, of up to 31 bytes
//!        02, relay's id(32), hint         registered at that relay
//!        00, length(1), text              any other
//! + 20   with the port 7711, which is left out
//! + 40   registered at the relay that is there, whose id(32) comes right behind this byte
//! ```
//!
//! `expires` are minutes since the beginning of 2020, rounded up: whoever has made the ticket knows better. The sum is the beginning of the
//! SHA-256 of all before it: it tells a slip in copying from a peer that is not there.
//!
//! Earlier a ticket was `cepa-ticket:` and these bytes with a version(1) = 01 in front, `expires(4)` in seconds since 1970 and `sum(4)`, its hints
//! without what is added to their first bytes. Such a text is still read.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use cepa_transports::{Endpoint, Target};
use data_encoding::BASE64URL_NOPAD;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::identity::{IdentityError, Invitation, PeerId, UnixTime};
use crate::node::{Hint, MAX_RELAYS, PeerAddr, PeerAddrError};

/// What the text begins with, and what it once began with.
const PREFIX: &str = "ticket:";
const OLD_PREFIX: &str = "cepa-ticket:";
const OLD_VERSION: u8 = 1;

/// 2020-01-01T00:00:00Z, in seconds since 1970.
const EPOCH: u64 = 1_577_836_800;
/// Where relays usually listen: `cepa relay` in all documents.
const USUAL_PORT: u16 = 7711;

/// What is added to the first byte of a hint.
const WITH_USUAL_PORT: u8 = 0x20;
const AT_RELAY: u8 = 0x40;
/// The name's length is in the first byte.
const SHORT_NAME: u8 = 0x80;
const LENGTH: u8 = 0x1f;
/// Longest ticket in bytes: still one that can be pasted.
const MAX_BYTES: usize = 2048;
/// How deep a hint is read; what is wrong with one relay too many, the parse of its text says.
const MOST_RELAYS: usize = MAX_RELAYS + 1;

/// Some services of a peer, for whoever uses it first. The text is the secret: it goes over a way that is private.
#[derive(Clone)]
pub struct Ticket {
    /// The secret, with whose it is and until when.
    pub(super) secret: Arc<Invitation>,
    address: PeerAddr,
}

/// What is no ticket. Each text is one line and says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TicketTextError {
    /// Something else, or a part of one.
    #[error("this is not a complete ticket: copy it from `ticket:` to its end")]
    Malformed,
    /// A version that is not known here.
    #[error(
        "this ticket has version {version}, but this release supports only version 1: update cepa"
    )]
    Version {
        /// The version.
        version: u8,
    },
    /// It says where its peer is in a way that leads nowhere, in the words of addresses.
    #[error("the ticket's address: {0}")]
    Address(#[from] PeerAddrError),
    /// What it says of where its peer is takes too much room.
    #[error("the addresses do not fit a ticket: give fewer or shorter ones")]
    TooLong,
}

impl Ticket {
    /// A new secret for the peer of this address, which is found by the address's hints, as they are for others
    /// ([`PeerAddr::for_others`]). Fails when the random source does.
    ///
    /// # Errors
    /// [`IdentityError::Generate`].
    pub fn new(address: &PeerAddr, expires: UnixTime) -> Result<Self, IdentityError> {
        Ok(Self {
            secret: Arc::new(Invitation::new(address.peer(), "", expires)?),
            address: address.for_others(),
        })
    }

    /// Whose services it is for.
    pub fn peer(&self) -> PeerId {
        self.address.peer()
    }

    /// The same, with where that peer may be found.
    pub fn address(&self) -> &PeerAddr {
        &self.address
    }

    /// Until when it can be used.
    pub fn expires(&self) -> UnixTime {
        self.secret.expires()
    }

    /// The text that is given to somebody. It is the secret: show it to nobody else.
    ///
    /// # Errors
    /// [`TicketTextError::TooLong`].
    pub fn text(&self) -> Result<Zeroizing<String>, TicketTextError> {
        let bytes = self.bytes()?;
        let text = Zeroizing::new(BASE64URL_NOPAD.encode(&bytes));
        Ok(Zeroizing::new(format!("{PREFIX}{}", *text)))
    }

    fn bytes(&self) -> Result<Zeroizing<Vec<u8>>, TicketTextError> {
        let mut bytes = Zeroizing::new(Vec::new());
        bytes.extend(self.peer().as_bytes());
        bytes.extend(self.secret.secret());
        let minutes = self.expires().as_secs().saturating_sub(EPOCH).div_ceil(60);
        let [a, rest @ ..] = u32::try_from(minutes).unwrap_or(u32::MAX).to_be_bytes();
        bytes.extend(if a == 0 { rest } else { [0xff; 3] });
        for hint in self.address.hints() {
            write_hint(&mut bytes, hint)?;
        }
        let [a, b, ..] = checksum(&bytes);
        bytes.extend([a, b]);
        if bytes.len() > MAX_BYTES {
            return Err(TicketTextError::TooLong);
        }
        Ok(bytes)
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, TicketTextError> {
        let malformed = || TicketTextError::Malformed;
        let (body, sum) = bytes.split_last_chunk::<2>().ok_or_else(malformed)?;
        if !checksum(body).starts_with(sum) {
            return Err(malformed());
        }
        let mut rest = body;
        let (id, secret) = (take::<32>(&mut rest)?, take::<16>(&mut rest)?);
        let [a, b, c] = take::<3>(&mut rest)?;
        let minutes = u64::from(u32::from_be_bytes([0, a, b, c]));
        Self::read(id, secret, EPOCH + minutes * 60, rest)
    }

    fn from_old_bytes(bytes: &[u8]) -> Result<Self, TicketTextError> {
        let malformed = || TicketTextError::Malformed;
        let (version, _) = bytes.split_first().ok_or_else(malformed)?;
        if *version != OLD_VERSION {
            return Err(TicketTextError::Version { version: *version });
        }
        let (body, sum) = bytes.split_last_chunk::<4>().ok_or_else(malformed)?;
        if checksum(body) != *sum {
            return Err(malformed());
        }
        let (_, mut rest) = body.split_first().ok_or_else(malformed)?;
        let (id, secret) = (take::<32>(&mut rest)?, take::<16>(&mut rest)?);
        let seconds = u32::from_be_bytes(take(&mut rest)?);
        Self::read(id, secret, seconds.into(), rest)
    }

    /// `expires` in seconds since 1970.
    fn read(
        id: [u8; 32],
        secret: [u8; 16],
        expires: u64,
        mut hints: &[u8],
    ) -> Result<Self, TicketTextError> {
        let id = PeerId::from_bytes(id);
        let mut address = PeerAddr::new(id);
        while !hints.is_empty() {
            let text = read_hint(&mut hints, MOST_RELAYS)?;
            address = address.with_hint(text.parse()?)?;
        }
        let expires = UnixTime::since_unix_epoch(Duration::from_secs(expires));
        let secret = Invitation::of(id, secret, expires, String::new());
        Ok(Self {
            secret: Arc::new(secret),
            address,
        })
    }
}

fn checksum(bytes: &[u8]) -> [u8; 4] {
    let [a, b, c, d, ..]: [u8; 32] = Sha256::digest(bytes).into();
    [a, b, c, d]
}

fn write_hint(bytes: &mut Vec<u8>, hint: &Hint) -> Result<(), TicketTextError> {
    let (relay, place) = match hint {
        Hint::Relay { relay, at } => match &**at {
            Hint::Direct(endpoint) => (Some(relay), endpoint),
            Hint::Relay { .. } => {
                bytes.push(2);
                bytes.extend(relay.as_bytes());
                return write_hint(bytes, at);
            }
        },
        Hint::Direct(endpoint) => (None, endpoint),
    };
    let mut first = if relay.is_some() { AT_RELAY } else { 0 };
    let mut rest = Vec::new();
    if let Some((host, port)) = plain_tcp(place) {
        match host.parse() {
            Ok(IpAddr::V4(ip)) => {
                first |= 4;
                rest.extend(ip.octets());
            }
            Ok(IpAddr::V6(ip)) => {
                first |= 6;
                rest.extend(ip.octets());
            }
            Err(_) => {
                if let Ok(len @ 1..=LENGTH) = u8::try_from(host.len()) {
                    first |= SHORT_NAME | len;
                    rest.extend(host.as_bytes());
                } else {
                    first |= 1;
                    write_text(&mut rest, host)?;
                }
            }
        }
        if port == USUAL_PORT {
            first |= WITH_USUAL_PORT;
        } else {
            rest.extend(port.to_be_bytes());
        }
    } else {
        write_text(&mut rest, &place.revealed().to_string())?;
    }
    bytes.push(first);
    if let Some(relay) = relay {
        bytes.extend(relay.as_bytes());
    }
    bytes.extend(rest);
    Ok(())
}

/// The host and the port of an address that says nothing else, as it would be printed again.
fn plain_tcp(endpoint: &Endpoint) -> Option<(&str, u16)> {
    let Target::Tcp { host, port, .. } = endpoint.target() else {
        return None;
    };
    (endpoint.to_string() == tcp(host, *port)).then_some((host, *port))
}

fn tcp(host: &str, port: u16) -> String {
    match host.parse() {
        Ok(IpAddr::V6(ip)) => format!("tcp:[{ip}]:{port}"),
        _ => format!("tcp:{host}:{port}"),
    }
}

fn write_text(bytes: &mut Vec<u8>, text: &str) -> Result<(), TicketTextError> {
    bytes.push(u8::try_from(text.len()).map_err(|_| TicketTextError::TooLong)?);
    bytes.extend(text.as_bytes());
    Ok(())
}

/// The text of the hint that is next.
fn read_hint(bytes: &mut &[u8], relays: usize) -> Result<String, TicketTextError> {
    let [first] = take::<1>(bytes)?;
    let relay = match first & AT_RELAY {
        0 => String::new(),
        _ if relays == 0 => return Err(TicketTextError::Malformed),
        _ => format!("relay:{}@", PeerId::from_bytes(take(bytes)?)),
    };
    let (is_short, usual) = (first & SHORT_NAME > 0, first & WITH_USUAL_PORT > 0);
    let host = match first & LENGTH {
        length if is_short => text_of(bytes, length.into())?,
        0 if !usual => return Ok(relay + &read_text(bytes)?),
        1 => read_text(bytes)?,
        2 if relays > 0 && !usual && relay.is_empty() => {
            let relay = PeerId::from_bytes(take(bytes)?);
            let at = read_hint(bytes, relays - 1)?;
            return Ok(format!("relay:{relay}@{at}"));
        }
        4 => Ipv4Addr::from(take::<4>(bytes)?).to_string(),
        6 => Ipv6Addr::from(take::<16>(bytes)?).to_string(),
        _ => return Err(TicketTextError::Malformed),
    };
    let port = if usual {
        USUAL_PORT
    } else {
        u16::from_be_bytes(take(bytes)?)
    };
    Ok(relay + &tcp(&host, port))
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], TicketTextError> {
    let (taken, rest) = bytes
        .split_first_chunk::<N>()
        .ok_or(TicketTextError::Malformed)?;
    *bytes = rest;
    Ok(*taken)
}

fn read_text(bytes: &mut &[u8]) -> Result<String, TicketTextError> {
    let [length] = take::<1>(bytes)?;
    text_of(bytes, length.into())
}

fn text_of(bytes: &mut &[u8], length: usize) -> Result<String, TicketTextError> {
    let (text, rest) = bytes
        .split_at_checked(length)
        .ok_or(TicketTextError::Malformed)?;
    *bytes = rest;
    let text = std::str::from_utf8(text).map_err(|_| TicketTextError::Malformed)?;
    Ok(text.to_owned())
}

impl FromStr for Ticket {
    type Err = TicketTextError;

    fn from_str(text: &str) -> Result<Self, TicketTextError> {
        let malformed = || TicketTextError::Malformed;
        let text = text.trim();
        let (text, is_old) = match text.strip_prefix(PREFIX) {
            Some(text) => (text, false),
            None => (text.strip_prefix(OLD_PREFIX).ok_or_else(malformed)?, true),
        };
        // Before it is decoded: nobody writes more.
        if text.len() > MAX_BYTES / 3 * 4 + 4 {
            return Err(malformed());
        }
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes());
        let bytes = Zeroizing::new(bytes.map_err(|_| malformed())?);
        if is_old {
            Self::from_old_bytes(&bytes)
        } else {
            Self::from_bytes(&bytes)
        }
    }
}

/// Without the secret.
impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// What is read is written the same again, in as few bytes or fewer.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn fuzz(bytes: &[u8]) {
    let sum = checksum(bytes);
    let old = Ticket::from_old_bytes(&[bytes, &sum].concat());
    let new = Ticket::from_bytes(&[bytes, &sum[..2]].concat());
    for ticket in [old, new].into_iter().flatten() {
        let Ok(again) = ticket.bytes() else { continue };
        let again = Ticket::from_bytes(&again).map(|it| it.address);
        assert_eq!(again, Ok(ticket.address));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: &str = "mfzwi3dbonzgc3tlmvzwi3dbonzgc3tlmvzwi3dbonzgc3tlmvza";

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    fn ticket(hints: &str) -> Ticket {
        let address = format!("cepa://{ID}{hints}").parse().unwrap();
        Ticket::new(&address, at(2_000_000_000)).unwrap()
    }

    /// A proxy of mine is nothing to a friend, and its password less than nothing.
    #[test]
    fn a_ticket_has_nothing_of_its_maker_s_own_way() {
        for (hint, left) in [
            ("tcp:r:1,proxy=http://me:pw@p:1", "tcp:r:1"),
            (
                "tcp:r:1,proxy=socks5h://p:1,nodelay=no",
                "tcp:r:1,nodelay=no",
            ),
            ("tcp:r:1,bind=192.0.2.1,mark=3", "tcp:r:1"),
            (
                "quic:r:1,bind=192.0.2.1,mark=3,keepalive=20,proxy=socks5h://u:p@h:1",
                "quic:r:1,keepalive=20",
            ),
            ("tcp:r:1,interface=tun0", "tcp:r:1"),
            ("ws:r:1/x,header=A:pw", "ws:r:1/x"),
            ("wss:r:1/x,cert=/c,key=/k", "wss:r:1/x"),
        ] {
            for relay in [String::new(), format!("relay:{ID}@")] {
                let hint: Hint = format!("{relay}{hint}").parse().unwrap();
                let address = PeerAddr::new(ID.parse().unwrap()).with_hint(hint).unwrap();
                let text = Ticket::new(&address, at(2_000_000_000)).unwrap().text();
                let pasted: Ticket = text.unwrap().parse().unwrap();
                let found = pasted.address().hints();
                assert_eq!(found, [format!("{relay}{left}").parse().unwrap()]);
                #[cfg(feature = "mesh")]
                assert_eq!(address.to_wire(), pasted.address().to_wire());
            }
        }
    }

    #[test]
    fn a_ticket_says_the_same_once_it_was_pasted() {
        for hints in [
            String::new(),
            "@tcp:192.0.2.1:7711".to_owned(),
            "@tcp:[2001:db8::1]:7711;tcp:host.example:7000".to_owned(),
            format!("@tcp:{}.example:7711;tcp:h:1", "a".repeat(60)),
            format!("@relay:{ID}@unix:/run/relay;tcp:h:7711"),
            "@tcp:[fe80::1%eth0]:7000".to_owned(),
            "@mux+tls+tcp:host:7000,nodelay=no".to_owned(),
            format!("@relay:{ID}@tcp:relay.example:7711"),
            format!("@relay:{ID}@relay:{ID}@relay:{ID}@tcp:192.0.2.1:1"),
        ] {
            let Ok(address) = format!("cepa://{ID}{hints}").parse::<PeerAddr>() else {
                continue;
            };
            let ours = ticket(&hints);
            let theirs: Ticket = ours.text().unwrap().parse().unwrap();
            assert_eq!(theirs.address(), &address, "{hints}");
            assert_eq!(theirs.expires(), at(2_000_000_040), "the next minute");
            assert_eq!(theirs.secret.secret(), ours.secret.secret());
            assert!(!format!("{theirs:?}").contains("secret: ["));
        }
    }

    /// Two lines of a terminal, with a relay.
    #[test]
    fn a_ticket_is_short() {
        let text = ticket(&format!("@relay:{ID}@tcp:203.0.113.7:7711"));
        assert_eq!(text.text().unwrap().len(), 127);
        let text = ticket(&format!("@relay:{ID}@tcp:relay.example:7711"));
        assert_eq!(text.text().unwrap().len(), 139);
        let text = ticket("@tcp:203.0.113.7:7711");
        assert_eq!(text.text().unwrap().len(), 85);
    }

    /// As tickets were before.
    #[test]
    fn an_old_ticket_is_read() {
        let old = "cepa-ticket:AQvQJDTNFoNxBbN_NDxCFoBHaad-wYpvz_FDVAvb5hgvQo_lqeTm94s4pLxxumEU1msOKbYEfwAAAR5hQuSXBQ";
        let ticket: Ticket = old.parse().unwrap();
        let text = ticket.text().unwrap();
        assert!(text.len() < old.len() && text.starts_with(PREFIX));
        let again: Ticket = text.parse().unwrap();
        assert_eq!(again.address(), ticket.address());
        assert_eq!(again.secret.secret(), ticket.secret.secret());
        let late = again.expires().as_secs() - ticket.expires().as_secs();
        assert!(late < 60, "{late}");
        let slip = old.replacen("QvQ", "QwQ", 1).parse::<Ticket>();
        assert_eq!(slip.unwrap_err(), TicketTextError::Malformed);
        let other = old.replacen(":AQ", ":Ag", 1).parse::<Ticket>();
        assert_eq!(other.unwrap_err(), TicketTextError::Version { version: 2 });
    }

    #[test]
    fn what_is_no_ticket_is_none() {
        let text = ticket("@tcp:h:1").text().unwrap();
        for wrong in [
            "",
            "ticket:",
            "ticket:AQ",
            "ticket:%%",
            "cepa-ticket:",
            "cepa-ticket:AQ",
            &text[..text.len() - 1],
            &text[1..],
            &text.replace(&text[20..22], "__"),
            &format!("{}AAAA", *text),
        ] {
            let error = wrong.parse::<Ticket>().unwrap_err();
            assert_eq!(error, TicketTextError::Malformed, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_what_is_read_is_written(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            fuzz(&bytes);
            if let Some(first) = bytes.first_mut() {
                *first = OLD_VERSION;
            }
            fuzz(&bytes);
            let _ = String::from_utf8_lossy(&bytes).parse::<Ticket>();
        }
    }
}
