//! The words of `cepa cp`: a path of this machine, or one of a peer's service.
//!
//! `@NAME:SERVICE/PATH` for a peer that has a name, `TICKET:SERVICE/PATH` for what somebody shares, and `cepa://PEERID@HINT/SERVICE/PATH` for any. A path is taken as it was typed,
//! byte for byte: it may have `%`, spaces and what is no text in it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use cepa::node::SCHEME;

use crate::references::{CodeTextError, ShortCode};
use crate::values::{DialTarget, ticket_prefix};

/// A source or a destination.
#[derive(Clone, Debug)]
pub(crate) enum Side {
    Local(PathBuf),
    Remote(Remote),
}

/// A path below a service of a peer.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    /// What was typed for the peer.
    pub(crate) word: String,
    pub(crate) peer: DialTarget,
    /// Empty: the only one that the peer has.
    pub(crate) service: String,
    pub(crate) path: Vec<u8>,
}

impl Side {
    pub(crate) fn remote(&self) -> Option<&Remote> {
        match self {
            Self::Local(_) => None,
            Self::Remote(remote) => Some(remote),
        }
    }

    /// What one word is.
    pub(crate) fn parse(word: OsString) -> Result<Self, String> {
        let bytes = word.as_bytes();
        let scheme = SCHEME.as_bytes();
        if bytes.is_empty() {
            return Err("a path cannot be empty".to_owned());
        }
        if let Some(rest) = bytes.strip_prefix(b"@") {
            let at = rest.iter().position(|b| matches!(b, b':' | b'/'));
            return match at.map(|at| rest.split_at(at)) {
                Some((name, rest)) if rest.first() == Some(&b':') => {
                    named("@", name, rest.get(1..).unwrap_or_default())
                }
                _ => Err(format!(
                    "give the service behind a colon, as in @NAME:SERVICE/PATH; for a file here, ./{}",
                    word.to_string_lossy()
                )),
            };
        }
        if let Some(side) = given(bytes)? {
            return Ok(side);
        }
        let Some(rest) = bytes.strip_prefix(scheme) else {
            return Ok(Self::Local(PathBuf::from(word)));
        };
        let (who, rest) = split(rest);
        if who.first() == Some(&b'@') {
            return named(SCHEME, who, rest);
        }
        let (service, path) = split(rest);
        let mut word = String::from(SCHEME) + text(who)?;
        if !service.is_empty() {
            word = format!("{word}/{}", text(service)?);
        }
        let peer: DialTarget = word.parse()?;
        let service = match &peer {
            DialTarget::Peer(address) => address.service().to_owned(),
            _ => String::new(),
        };
        Ok(Self::Remote(Remote {
            word,
            peer,
            service,
            path: path.to_vec(),
        }))
    }
}

/// A ticket or a short code, a colon and what is meant there; or a ticket alone. What looks like a code and is none is a file.
fn given(bytes: &[u8]) -> Result<Option<Side>, String> {
    let Ok(word) = std::str::from_utf8(bytes) else {
        return Ok(None);
    };
    let begins = ticket_prefix(word).map_or(0, str::len);
    let is_ticket = begins > 0;
    let end = word.get(begins..).and_then(|rest| rest.find([':', '/']));
    let (peer, rest) = match end.and_then(|end| word.split_at_checked(begins + end)) {
        Some((peer, rest)) if rest.starts_with(':') => (peer, rest.get(1..).unwrap_or_default()),
        Some(_) if is_ticket => {
            return Err(
                "write the service of a ticket behind a colon, as in TICKET:SERVICE/PATH"
                    .to_owned(),
            );
        }
        None if is_ticket => (word, ""),
        _ => return Ok(None),
    };
    if !is_ticket && matches!(peer.parse::<ShortCode>(), Err(e) if e != CodeTextError::Sum) {
        return Ok(None);
    }
    let peer_of = peer.parse()?;
    let (service, path) = split(rest.as_bytes());
    Ok(Some(Side::Remote(Remote {
        word: peer.to_owned(),
        peer: peer_of,
        service: text(service)?.to_owned(),
        path: path.to_vec(),
    })))
}

/// What stands before the first slash, and behind it.
fn split(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.iter().position(|b| *b == b'/') {
        Some(at) => (
            bytes.get(..at).unwrap_or_default(),
            bytes.get(at + 1..).unwrap_or_default(),
        ),
        None => (bytes, &[]),
    }
}

fn text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| {
        let word = OsString::from_vec(bytes.to_vec());
        format!("{} is no text", OsStr::to_string_lossy(&word))
    })
}

fn named(before: &str, name: &[u8], rest: &[u8]) -> Result<Side, String> {
    let word = format!("{before}{}", text(name)?);
    let peer = word.parse()?;
    let (service, path) = split(rest);
    Ok(Side::Remote(Remote {
        peer,
        word,
        service: text(service)?.to_owned(),
        path: path.to_vec(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(word: &[u8]) -> Result<Side, String> {
        Side::parse(OsString::from_vec(word.to_vec()))
    }

    #[test]
    fn what_begins_like_a_peer_is_one_and_all_else_is_a_path() {
        for word in [&b"a"[..], b"./@a", b"/x/y", b"a:b", b"tcp:h:1", b"\xff"] {
            assert!(matches!(parsed(word), Ok(Side::Local(_))), "{word:?}");
        }
        for word in [
            &b""[..],
            b"@",
            b"@a",
            b"@a/b",
            b"@a/b:c",
            b"cepa://",
            b"cepa://x/y",
        ] {
            let error = parsed(word).unwrap_err();
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn an_address_has_a_service_and_a_path_of_any_bytes() {
        for (rest, service, path) in [
            (&b""[..], "", &b""[..]),
            (b"/up", "up", b""),
            (b"/up/", "up", b""),
            (b"/up/a/b%20\xff", "up", b"a/b%20\xff"),
            (b"/a%20b//c", "a b", b"/c"),
        ] {
            let id = cepa::identity::PeerId::from_bytes([7; 32]);
            let word = [format!("cepa://{id}@tcp:h:1").as_bytes(), rest].concat();
            let side = parsed(&word).unwrap();
            let remote = side.remote().unwrap();
            assert_eq!(
                (remote.service.as_str(), remote.path.as_slice()),
                (service, path)
            );
        }
    }
}
