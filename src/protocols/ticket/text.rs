//! A ticket and its text: `cepa-ticket:` and base64url of the bytes below. People paste it, so every byte counts. No IO, no clock.
//!
//! ```text
//! version(1) = 01, peer id(32), secret(16), expires(4), hints, sum(4)
//! hint   04, address(4), port(2)          tcp:, IPv4
//!        06, address(16), port(2)         tcp:, IPv6
//!        01, length(1), name, port(2)     tcp:, a name
//!        02, relay's id(32), hint         registered at that relay
//!        00, length(1), text              any other
//! ```
//!
//! `expires` are seconds since 1970. The sum is the beginning of the SHA-256 of all before it: it tells a slip in copying from a
//! peer that is not there.

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

/// What the text begins with.
const PREFIX: &str = "cepa-ticket:";
const VERSION: u8 = 1;
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
    #[error("this is not a complete ticket: copy it from `cepa-ticket:` to its end")]
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
        let mut bytes = Zeroizing::new(vec![VERSION]);
        bytes.extend(self.peer().as_bytes());
        bytes.extend(self.secret.secret());
        let expires = u32::try_from(self.expires().as_secs()).unwrap_or(u32::MAX);
        bytes.extend(expires.to_be_bytes());
        for hint in self.address.hints() {
            write_hint(&mut bytes, hint)?;
        }
        let sum = checksum(&bytes);
        bytes.extend(sum);
        if bytes.len() > MAX_BYTES {
            return Err(TicketTextError::TooLong);
        }
        Ok(bytes)
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, TicketTextError> {
        let malformed = || TicketTextError::Malformed;
        let (version, rest) = bytes.split_first().ok_or_else(malformed)?;
        if *version != VERSION {
            return Err(TicketTextError::Version { version: *version });
        }
        let (body, sum) = bytes.split_last_chunk::<4>().ok_or_else(malformed)?;
        if checksum(body) != *sum {
            return Err(malformed());
        }
        let (id, rest) = rest.split_first_chunk::<32>().ok_or_else(malformed)?;
        let (secret, rest) = rest.split_first_chunk::<16>().ok_or_else(malformed)?;
        let (expires, rest) = rest.split_first_chunk::<4>().ok_or_else(malformed)?;
        let (mut hints, _) = rest.split_last_chunk::<4>().ok_or_else(malformed)?;
        let id = PeerId::from_bytes(*id);
        let mut address = PeerAddr::new(id);
        while !hints.is_empty() {
            let text = read_hint(&mut hints, MOST_RELAYS)?;
            address = address.with_hint(text.parse()?)?;
        }
        let seconds = u64::from(u32::from_be_bytes(*expires));
        let expires = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let secret = Invitation::of(id, *secret, expires, String::new());
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
    let endpoint = match hint {
        Hint::Relay { relay, at } => {
            bytes.push(2);
            bytes.extend(relay.as_bytes());
            return write_hint(bytes, at);
        }
        Hint::Direct(endpoint) => endpoint,
    };
    let Some((host, port)) = plain_tcp(endpoint) else {
        bytes.push(0);
        return write_text(bytes, &hint.revealed());
    };
    match host.parse() {
        Ok(IpAddr::V4(ip)) => {
            bytes.push(4);
            bytes.extend(ip.octets());
        }
        Ok(IpAddr::V6(ip)) => {
            bytes.push(6);
            bytes.extend(ip.octets());
        }
        Err(_) => {
            bytes.push(1);
            write_text(bytes, host)?;
        }
    }
    bytes.extend(port.to_be_bytes());
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
    let [kind] = take::<1>(bytes)?;
    match kind {
        0 => read_text(bytes),
        1 => {
            let host = read_text(bytes)?;
            Ok(tcp(&host, u16::from_be_bytes(take(bytes)?)))
        }
        2 if relays > 0 => {
            let relay = PeerId::from_bytes(take(bytes)?);
            let at = read_hint(bytes, relays - 1)?;
            Ok(format!("relay:{relay}@{at}"))
        }
        4 => {
            let host = Ipv4Addr::from(take::<4>(bytes)?).to_string();
            Ok(tcp(&host, u16::from_be_bytes(take(bytes)?)))
        }
        6 => {
            let host = Ipv6Addr::from(take::<16>(bytes)?).to_string();
            Ok(tcp(&host, u16::from_be_bytes(take(bytes)?)))
        }
        _ => Err(TicketTextError::Malformed),
    }
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
    let (text, rest) = bytes
        .split_at_checked(usize::from(length))
        .ok_or(TicketTextError::Malformed)?;
    *bytes = rest;
    let text = std::str::from_utf8(text).map_err(|_| TicketTextError::Malformed)?;
    Ok(text.to_owned())
}

impl FromStr for Ticket {
    type Err = TicketTextError;

    fn from_str(text: &str) -> Result<Self, TicketTextError> {
        let malformed = || TicketTextError::Malformed;
        let text = text.trim().strip_prefix(PREFIX).ok_or_else(malformed)?;
        // Before it is decoded: nobody writes more.
        if text.len() > MAX_BYTES / 3 * 4 + 4 {
            return Err(malformed());
        }
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes());
        Self::from_bytes(&Zeroizing::new(bytes.map_err(|_| malformed())?))
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
    let mut whole = bytes.to_vec();
    whole.extend(checksum(bytes));
    if let Ok(ticket) = Ticket::from_bytes(&whole) {
        let Ok(again) = ticket.bytes() else { return };
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
            assert_eq!(theirs.expires(), at(2_000_000_000));
            assert_eq!(theirs.secret.secret(), ours.secret.secret());
            assert!(!format!("{theirs:?}").contains("secret: ["));
        }
    }

    /// Two lines of a terminal, with a relay.
    #[test]
    fn a_ticket_is_short() {
        let text = ticket(&format!("@relay:{ID}@tcp:203.0.113.7:7711"));
        assert_eq!(text.text().unwrap().len(), 142);
        let text = ticket("@tcp:203.0.113.7:7711");
        assert_eq!(text.text().unwrap().len(), 98);
    }

    #[test]
    fn what_is_no_ticket_is_told_from_what_is_one_of_another_version() {
        let text = ticket("@tcp:h:1").text().unwrap();
        for wrong in [
            "",
            "cepa-ticket:",
            "cepa-ticket:AQ",
            "cepa-ticket:%%",
            &text[..text.len() - 1],
            &text[1..],
            &text.replace(&text[20..22], "__"),
            &format!("{}AAAA", *text),
        ] {
            let error = wrong.parse::<Ticket>().unwrap_err();
            assert_eq!(error, TicketTextError::Malformed, "{wrong}");
        }
        let other = format!("{PREFIX}Ag{}", &text[PREFIX.len() + 2..]);
        let error = other.parse::<Ticket>().unwrap_err();
        assert_eq!(error, TicketTextError::Version { version: 2 });
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_what_is_read_is_written(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            fuzz(&bytes);
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            fuzz(&bytes);
            let _ = String::from_utf8_lossy(&bytes).parse::<Ticket>();
        }
    }
}
