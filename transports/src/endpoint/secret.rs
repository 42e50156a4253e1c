//! What an address must hold and nobody should read over a shoulder or in a log: the password of a proxy, the value of a header.
//!
//! Printing an address, or its parts for debugging, shows `***`. Where it is kept or passed on, its
//! whole text is asked for by name (`Endpoint::revealed`).
use std::fmt;

/// A text that is printed as `***`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(String);

impl Secret {
    /// What is shown in its place; no secret itself, so that an address that was printed is told from one that can be dialled.
    pub const HIDDEN: &'static str = "***";

    /// It, as it is used.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::HIDDEN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::HIDDEN)
    }
}

/// A text that failed to be an address, for a message: what stands where a password or the value of a header would is hidden.
#[must_use]
pub fn hidden(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    // `://user:password@`
    while let Some((before, after)) = rest.split_once("://") {
        out.push_str(before);
        out.push_str("://");
        rest = after;
        let end = after.find([',', '?', '&', '/']).unwrap_or(after.len());
        let (login, _) = after.split_at_checked(end).unwrap_or((after, ""));
        let Some((login, _)) = login.rsplit_once('@') else {
            continue;
        };
        let user = login.split_once(':').map_or("", |(user, _)| user);
        out.push_str(user);
        out.push(':');
        out.push_str(Secret::HIDDEN);
        rest = after.get(login.len()..).unwrap_or("");
    }
    out.push_str(rest);
    let (text, mut rest) = (out, 0);
    let mut out = String::with_capacity(text.len());
    // `header=NAME:VALUE`
    while let Some(found) = text.get(rest..).and_then(|tail| tail.find("header=")) {
        let start = rest + found + "header=".len();
        let tail = text.get(start..).unwrap_or("");
        let end = tail.find([',', '&']).unwrap_or(tail.len());
        let name = tail.get(..end).and_then(|it| it.find(':')).unwrap_or(end);
        out.push_str(text.get(rest..start + name).unwrap_or(""));
        if name < end {
            out.push(':');
            out.push_str(Secret::HIDDEN);
        }
        rest = start + end;
    }
    out.push_str(text.get(rest..).unwrap_or(""));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_to_be_an_address_hides_its_secrets() {
        for (text, shown) in [
            ("tcp:h:1", "tcp:h:1"),
            (
                "tcp:h:1,proxy=socks5://u:pw@p:1,x",
                "tcp:h:1,proxy=socks5://u:***@p:1,x",
            ),
            (
                "tcp:h:1,proxy=http://u:p@w@p:1",
                "tcp:h:1,proxy=http://u:***@p:1",
            ),
            (
                "ws:h:1/,header=A:secret,header=B:x&header=C",
                "ws:h:1/,header=A:***,header=B:***&header=C",
            ),
            ("ws://h:1/a@b", "ws://h:1/a@b"),
        ] {
            assert_eq!(hidden(text), shown);
        }
        assert_eq!(format!("{:?}", Secret::from("x".to_owned())), "***");
    }
}
