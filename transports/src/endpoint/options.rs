//! The parts that the texts of all schemes are made of: a target, an option list, escapes, numbers. Every function
//! carries the place where its text begins in the whole address, so that an error can name the column.
use std::ffi::OsString;
use std::net::Ipv6Addr;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::str::FromStr;

use super::keys::{BARE, DUPLEX, REPEATED, keys_of, nearest};
use super::secret::Secret;
use super::types::{Duplex, MTU};
use crate::text::percent_decode;

/// An error before the whole input is known: a byte offset instead of a column.
pub(super) struct Wrong {
    pub(super) at: usize,
    pub(super) expected: String,
    pub(super) nearest: Option<String>,
}

pub(super) fn wrong<T>(at: usize, expected: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong {
        at,
        expected: expected.into(),
        nearest: None,
    })
}

pub(super) fn wrong_word<T>(
    at: usize,
    expected: impl Into<String>,
    near: Option<&str>,
) -> Result<T, Wrong> {
    Err(Wrong {
        at,
        expected: expected.into(),
        nearest: near.map(str::to_owned),
    })
}

/// The target and its option list: the list begins at the first comma or question mark.
pub(super) fn split(text: &str, start: usize) -> (&str, &str, usize) {
    let end = text.find([',', '?']).unwrap_or(text.len());
    let (target, options) = text.split_at_checked(end).unwrap_or((text, ""));
    (target, options, start + end)
}

pub(super) fn path_of(text: &str, start: usize, expected: &str) -> Result<PathBuf, Wrong> {
    let bytes = unescape(text, start)?;
    if bytes.is_empty() {
        return wrong(start, expected);
    }
    Ok(PathBuf::from(OsString::from_vec(bytes)))
}

/// One `key=value`, and where its parts stand.
pub(super) struct Opt<'a> {
    pub(super) key: &'a str,
    pub(super) value: &'a str,
    pub(super) value_at: usize,
}

impl Opt<'_> {
    /// The value as one of a few words.
    pub(super) fn word(&self, words: &[&'static str]) -> Result<&'static str, Wrong> {
        match words.iter().find(|w| **w == self.value) {
            Some(word) => Ok(word),
            None => wrong_word(
                self.value_at,
                format!("{}={}", self.key, words.join("|")),
                nearest(self.value, words),
            ),
        }
    }

    pub(super) fn mtu(&self) -> Result<u16, Wrong> {
        let (least, most) = MTU.into_inner();
        match digits(self.value).filter(|mtu| MTU.contains(mtu)) {
            Some(mtu) => Ok(mtu),
            None => wrong(
                self.value_at,
                format!("bytes of a frame, {least} to {most}"),
            ),
        }
    }

    pub(super) fn duplex(&self) -> Result<Duplex, Wrong> {
        Ok(match self.word(DUPLEX)? {
            "half" => Duplex::Half,
            _ => Duplex::Full,
        })
    }
}

pub(super) fn no_options(text: &str, at: usize, scheme: &str) -> Result<(), Wrong> {
    option_list(text, at, scheme).map(|_| ())
}

/// Splits an option list (with its introducing `,` or `?`), and checks its keys.
pub(super) fn option_list<'a>(
    text: &'a str,
    start: usize,
    scheme: &str,
) -> Result<Vec<Opt<'a>>, Wrong> {
    let known = keys_of(scheme);
    let (body, separator) = match text.strip_prefix('?') {
        Some(body) => (body, '&'),
        None => match text.strip_prefix(',') {
            Some(body) => (body, ','),
            None => return Ok(Vec::new()),
        },
    };
    if known.is_empty() {
        return wrong(
            start,
            format!(
                "the end of the address: {scheme} takes no options (\",\" and \"?\" in a path or name are written %2C and %3F)"
            ),
        );
    }
    let mut list: Vec<Opt<'a>> = Vec::new();
    let mut at = start + 1;
    for pair in body.split(separator) {
        let key = pair.split_once('=').map_or(pair, |(k, _)| k);
        let expected = || {
            format!(
                "KEY=VALUE with one of {scheme}'s keys ({})",
                known.join(", ")
            )
        };
        if !known.contains(&key) {
            return wrong_word(at, expected(), nearest(key, known));
        }
        let bare = BARE.contains(&pair).then_some("yes");
        let given = pair.split_once('=').map(|(_, value)| value);
        let Some(value) = given.or(bare) else {
            return wrong_word(
                at + key.len(),
                "\"=\" and a value",
                Some(&format!("{key}=")),
            );
        };
        if list.iter().any(|o| o.key == key) && !REPEATED.contains(&key) {
            return wrong(at, format!("each key once; {key} is there already"));
        }
        list.push(Opt {
            key,
            value,
            value_at: at + key.len() + 1,
        });
        at += pair.len() + 1;
    }
    Ok(list)
}

/// What ends a port.
const END: [char; 3] = [',', '?', '/'];

/// A host and a port, and what follows them: a path, options.
pub(super) fn host_port<'a>(
    text: &'a str,
    start: usize,
    example: &str,
) -> Result<(&'a str, u16, &'a str, usize), Wrong> {
    let (host, port, port_at) = if let Some(rest) = text.strip_prefix('[') {
        let Some((host, after)) = rest.split_once(']') else {
            return wrong(start, "\"]\" after an IPv6 address");
        };
        let address = host.split_once('%').map_or(host, |(a, _)| a);
        let zone = host.split_once('%').map(|(_, z)| z);
        let zone_fits = |z: &str| {
            !z.is_empty()
                && z.chars()
                    .all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
        };
        // As in URIs (RFC 6874), where a percent sign is escaped. Here it is not, and no interface is meant whose name
        // begins with 25; the number of one may.
        let escaped = zone.and_then(|z| z.strip_prefix("25"));
        if let Some(zone) = escaped.filter(|z| z.contains(|c: char| !c.is_ascii_digit())) {
            let at = start + 1 + address.len();
            let near = format!("%{zone}");
            return wrong_word(
                at,
                "a zone behind a plain \"%\", which is not escaped here",
                Some(&near),
            );
        }
        if address.parse::<Ipv6Addr>().is_err() || !zone.is_none_or(zone_fits) {
            return wrong(start + 1, "an IPv6 address between \"[\" and \"]\"");
        }
        let after_at = start + host.len() + 2;
        let Some(port) = after.strip_prefix(':') else {
            return wrong(after_at, "\":PORT\" after the address");
        };
        (host, port, after_at + 1)
    } else {
        let Some((host, port)) = text.split_once(':') else {
            return wrong(start, format!("HOST:PORT, as in {example}"));
        };
        if let Some(bad) = host.find(|c: char| !(c.is_ascii_alphanumeric() || "-._".contains(c))) {
            return wrong(
                start + bad,
                "a host name or an address (letters, digits, \".\", \"-\")",
            );
        }
        if host.is_empty() {
            return wrong(
                start,
                "a host before \":PORT\" (127.0.0.1 for this machine alone, 0.0.0.0 or [::] for every interface)",
            );
        }
        let end = port.find(END).unwrap_or(port.len());
        if port.get(..end).is_some_and(|port| port.contains(':')) {
            return wrong(start, "an IPv6 address in brackets, as in [::1]:7000");
        }
        (host, port, start + host.len() + 1)
    };
    let end = port.find(END).unwrap_or(port.len());
    let (port, rest) = port.split_at_checked(end).unwrap_or((port, ""));
    match digits(port) {
        Some(port) => Ok((host, port, rest, port_at + end)),
        None => wrong(port_at, "a port, 0 to 65535"),
    }
}

/// Resolves `%XX`.
pub(super) fn unescape(text: &str, start: usize) -> Result<Vec<u8>, Wrong> {
    match (percent_decode(text), text.find("%00")) {
        (Ok(_), Some(at)) => wrong(start + at, "no NUL byte"),
        (Ok(bytes), None) => Ok(bytes),
        (Err(at), _) => wrong(
            start + at,
            "two hex digits after \"%\" (a plain \"%\" is written %25)",
        ),
    }
}

/// A secret from the text of an address.
pub(super) fn secret(text: String, at: usize) -> Result<Secret, Wrong> {
    if text == Secret::HIDDEN {
        return wrong(at, "the secret itself: *** stands where one was hidden");
    }
    Ok(Secret::from(text))
}

/// A number written in decimal digits alone (no sign, no space).
pub(super) fn digits<T: FromStr>(text: &str) -> Option<T> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}
