//! What an address must hold and nobody should read over a shoulder or in a log: the password of a proxy, the value of a header.
//!
//! Printing an address, or its parts for debugging, shows `***`. Where it is kept or passed on, its
//! whole text is asked for by name (`Endpoint::revealed`).
use std::fmt;

use super::keys::{BARE, SCHEMES, keys_of, nearest};

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

/// A text for a message or a log that may hold addresses: one that failed to be one, a word of a command line, a line of a file. What
/// stands where a password or the value of a header would is hidden, whatever form it has; rather too much than too little.
#[must_use]
pub fn hidden(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(found) = next_value(rest) {
        let (before, value) = rest.split_at_checked(found.start).unwrap_or((rest, ""));
        let (value, after) = value.split_at_checked(found.length).unwrap_or((value, ""));
        out.push_str(&urls(before));
        out.push_str(&match found.kind {
            Kind::Proxy => hidden_proxy(value),
            Kind::Header => header(value),
            Kind::Word => Secret::HIDDEN.to_owned(),
        });
        rest = after;
    }
    out.push_str(&urls(rest));
    ssh_passwords(&ws_logins(&out))
}

/// `ws:user@`, which is what somebody may make of a URL.
fn ws_logins(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((at, mark)) = next_ws(rest) {
        let (before, place) = (
            rest.get(..at).unwrap_or(""),
            rest.get(at + mark.len()..).unwrap_or(""),
        );
        out.push_str(before);
        out.push_str(mark);
        let end = place.find(['/', ',', '?', '&', ' ']).unwrap_or(place.len());
        let login = place.get(..end).and_then(|place| place.rfind('@'));
        rest = match login.and_then(|at| place.get(at..)) {
            Some(behind) => {
                out.push_str(Secret::HIDDEN);
                behind
            }
            None => place,
        };
    }
    out.push_str(rest);
    out
}

/// `ssh:user:password@`, of which ssh takes no more than the user.
fn ssh_passwords(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, place)) = rest.split_once(SSH) {
        out.push_str(before);
        out.push_str(SSH);
        rest = place;
        let end = place.find([',', '?', ';', ' ']).unwrap_or(place.len());
        let login = place.get(..end).and_then(|place| place.rsplit_once('@'));
        let Some((login, _)) = login else {
            continue;
        };
        if let Some((user, mark, _)) = split_mark(login, ":", "%3a") {
            out.push_str(user);
            out.push_str(mark);
            out.push_str(Secret::HIDDEN);
            rest = place.get(login.len()..).unwrap_or("");
        }
    }
    out.push_str(rest);
    out
}

const SSH: &str = "ssh:";

/// The first of the schemes of WebSockets.
fn next_ws(text: &str) -> Option<(usize, &'static str)> {
    let found = ["ws:", "wss:"].map(|mark| Some((text.find(mark)?, mark)));
    found.into_iter().flatten().min()
}

/// The text of a proxy, or what should have been one, for a message: without what could be its password.
#[must_use]
pub fn hidden_proxy(text: &str) -> String {
    let (scheme, rest) = after_scheme(text);
    let (shown, rest) = match rest.rsplit_once('@') {
        Some((login, place)) => {
            let shown = match split_mark(login, ":", "%3a") {
                Some((user, mark, _)) => format!("{user}{mark}{}@", Secret::HIDDEN),
                // A token, perhaps.
                None => format!("{}@", Secret::HIDDEN),
            };
            (shown, place)
        }
        None if rest.is_empty() || is_place(rest) => (String::new(), rest),
        None => (Secret::HIDDEN.to_owned(), ""),
    };
    format!("{scheme}{shown}{rest}")
}

/// What a key's value hides.
#[derive(Clone, Copy)]
enum Kind {
    Proxy,
    Header,
    Word,
}

/// The value of a key that holds a secret: from a byte on, that many bytes.
struct Value {
    start: usize,
    length: usize,
    kind: Kind,
}

/// Of what kind the value of this key is, if it is or should have been one of those with secrets.
fn kind_of(key: &str) -> Option<Kind> {
    let key = key.to_ascii_lowercase();
    if matches!(key.as_str(), "proxy-protocol" | "proxy-from") {
        return None;
    }
    let misspelt = nearest(&key, &["proxy", "header"]).filter(|_| !is_key(&key));
    if key.contains("proxy") || misspelt == Some("proxy") {
        Some(Kind::Proxy)
    } else if key.contains("header") || misspelt == Some("header") {
        Some(Kind::Header)
    } else {
        let word = [
            "password",
            "passwd",
            "secret",
            "token",
            "cookie",
            "authorization",
        ];
        word.iter()
            .any(|word| key.contains(word))
            .then_some(Kind::Word)
    }
}

fn is_key(word: &str) -> bool {
    let mut schemes = SCHEMES.iter().chain(&["link"]);
    schemes.any(|scheme| keys_of(scheme).contains(&word))
}

/// The first value that holds a secret.
fn next_value(text: &str) -> Option<Value> {
    let mut at = 0;
    loop {
        let tail = text.get(at..)?;
        let (before, mark, value) = split_mark(tail, "=", "%3d")?;
        let start = at + before.len() + mark.len();
        // The escape of what stands in front of the key belongs to no key: `%2Cheader`.
        let is_letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let key = before.trim_end().rsplit(|c| !is_letter(c)).next()?;
        let front = before.trim_end().strip_suffix(key)?;
        let (key, front) = match key.split_at_checked(2) {
            Some((code, rest)) if front.ends_with('%') => (rest, format!("{front}{code}")),
            _ => (key, front.to_owned()),
        };
        if let Some(kind) = kind_of(key) {
            let length = extent(value, &front.to_ascii_lowercase());
            return Some(Value {
                start,
                length,
                kind,
            });
        }
        at = start;
    }
}

/// How far a value reaches, whose key has this in front: to the next option, and over whatever is none, since a value may hold the
/// separator where it should not.
fn extent(value: &str, front: &str) -> usize {
    let marks: &[&str] = if front.ends_with(['?', '&']) {
        &["&"]
    } else if front.ends_with("%3f") || front.ends_with("%26") {
        &["&", "%26", ","]
    } else if front.ends_with("%2c") {
        &["%2c", ","]
    } else {
        &[","]
    };
    let lower = value.to_ascii_lowercase();
    let mut at = 0;
    while let Some(tail) = lower.get(at..) {
        let next = marks
            .iter()
            .filter_map(|mark| Some((tail.find(mark)?, mark)));
        let Some((found, mark)) = next.min_by_key(|(found, _)| *found) else {
            break;
        };
        let behind = at + found + mark.len();
        if lower.get(behind..).is_some_and(begins_option) {
            return at + found;
        }
        at = behind;
    }
    value.len()
}

/// Whether an option begins here, or the next address of a list.
fn begins_option(text: &str) -> bool {
    let key = text.split('=').next().unwrap_or(text);
    let key = key.split("%3d").next().unwrap_or(key);
    let word = text.split([',', '&', '%']).next().unwrap_or(text);
    let scheme = text.split([':', '%']).next().unwrap_or(text);
    (key.len() < text.len() && (is_key(key) || kind_of(key).is_some() && !key.contains([' ', ':'])))
        || BARE.contains(&word)
        || (scheme.len() < text.len() && (SCHEMES.contains(&scheme) || scheme == "relay"))
}

/// `NAME:VALUE`.
fn header(text: &str) -> String {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$&'*+-.^_`|~".contains(c);
    match split_mark(text, ":", "%3a") {
        Some((name, mark, _)) if name.chars().all(is_token) => {
            format!("{name}{mark}{}", Secret::HIDDEN)
        }
        _ => Secret::HIDDEN.to_owned(),
    }
}

/// `://user:password@`, but for `cepa://PEERID@`.
fn urls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, mark, after)) = split_mark(rest, "://", ":%2f%2f") {
        out.push_str(before);
        out.push_str(mark);
        rest = after;
        let end = after.find([',', '?', '&', ' ']).unwrap_or(after.len());
        let (whole, _) = after.split_at_checked(end).unwrap_or((after, ""));
        let place = whole.split('/').next().unwrap_or(whole);
        // A slash may stand in a password, where what is before it is no place.
        let login = if place.contains('@') || is_place(place) {
            place
        } else {
            whole
        };
        let Some((login, _)) = login.rsplit_once('@').filter(|_| !before.ends_with("cepa")) else {
            continue;
        };
        if let Some((user, mark, _)) = split_mark(login, ":", "%3a") {
            out.push_str(user);
            out.push_str(mark);
        }
        // Without a password the user may be one: a token.
        out.push_str(Secret::HIDDEN);
        rest = after.get(login.len()..).unwrap_or("");
    }
    out.push_str(rest);
    out
}

/// What is before the scheme's end, with that, and what is behind it.
fn after_scheme(text: &str) -> (&str, &str) {
    match split_mark(text, "://", ":%2f%2f") {
        Some((scheme, mark, _)) if scheme.chars().all(|c| c.is_ascii_alphanumeric()) => {
            let end = scheme.len() + mark.len();
            text.split_at_checked(end).unwrap_or(("", text))
        }
        // None, or within a password, perhaps.
        _ => ("", text),
    }
}

/// A host and a port, and nothing else.
fn is_place(text: &str) -> bool {
    let text = text.strip_suffix('/').unwrap_or(text);
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    // In front of the port there is no other colon, but in brackets: `user:1234` would be a place, and `user:pw:1` is none.
    (host.starts_with('[') || !host.contains(':'))
        && host.chars().all(fits)
        && port.bytes().all(|b| b.is_ascii_digit())
}

/// Around the first of a mark or its escape, which is in small letters here.
fn split_mark<'a>(text: &'a str, plain: &str, escape: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let lower = text.to_ascii_lowercase();
    let ends = [plain, escape].map(|mark| Some((lower.find(mark)?, mark.len())));
    let (at, length) = ends.into_iter().flatten().min()?;
    let (before, rest) = text.split_at_checked(at)?;
    let (mark, behind) = rest.split_at_checked(length)?;
    Some((before, mark, behind))
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
                "ws:h:1/,header=A:***,header=B:***",
            ),
            ("ws://h:1/a@b", "ws://h:1/a@b"),
            ("ws://u:pw@h:1/", "ws://u:***@h:1/"),
            ("ws://token@h:1/", "ws://***@h:1/"),
            ("wss:token@h:1/ ws:u:p@h:1", "wss:***@h:1/ ws:***@h:1"),
            ("ssh:me@h ssh:me:p@w@h:2", "ssh:me@h ssh:me:***@h:2"),
            ("exec:ssh host: ssh:h", "exec:ssh host: ssh:h"),
            ("cepa://ID@ws:h:1/a@b", "cepa://ID@ws:h:1/a@b"),
            (
                "tcp:h:1,proxy=http://token@p:1",
                "tcp:h:1,proxy=http://***@p:1",
            ),
            ("wss://token@h/a,b wss://h/", "wss://***@h/a,b wss://h/"),
            ("ws://u:p/w@h:1/", "ws://u:***@h:1/"),
            ("ws://h/a@b", "ws://h/a@b"),
        ] {
            assert_eq!(hidden(text), shown);
        }
        assert_eq!(format!("{:?}", Secret::from("x".to_owned())), "***");
    }

    /// By the name of the key, in whatever form the value is, and by what was meant where that is misspelt.
    #[test]
    fn a_value_that_is_wrong_is_hidden_as_well() {
        for (text, shown) in [
            ("tcp:h:1,proxy=me:SECRET@p:1", "tcp:h:1,proxy=me:***@p:1"),
            ("tcp:h:1,proxy=me:SECRET", "tcp:h:1,proxy=***"),
            (
                "tcp:h:1,proxy=http://me:SE,CRET@p:1,mark=1",
                "tcp:h:1,proxy=http://me:***@p:1,mark=1",
            ),
            (
                "tcp:h:1,proxy=http://me:SE/CR?ET@p:1",
                "tcp:h:1,proxy=http://me:***@p:1",
            ),
            ("tcp:h:1,prox=a:SECRET@p:1", "tcp:h:1,prox=a:***@p:1"),
            ("tcp:h:1,PROXY=a:SECRET@p:1", "tcp:h:1,PROXY=a:***@p:1"),
            ("tcp:h:1,proxy=socks://p:1", "tcp:h:1,proxy=socks://p:1"),
            (
                "tcp:h:1,proxy=socks://[::1]:1",
                "tcp:h:1,proxy=socks://[::1]:1",
            ),
            ("ws:h:1/,header=Authorization=SECRET", "ws:h:1/,header=***"),
            ("ws:h:1/,header=SECRET", "ws:h:1/,header=***"),
            ("ws:h:1/,Header=A:SECRET", "ws:h:1/,Header=A:***"),
            ("ws:h:1/,headers=A:SECRET", "ws:h:1/,headers=A:***"),
            ("ws:h:1/,heder=A:SECRET", "ws:h:1/,heder=A:***"),
            ("ws:h:1/ header = A:SECRET", "ws:h:1/ header =***"),
            (
                "ws:h:1/,header=Cookie:a=SECRET, b=SECRET,ping=5",
                "ws:h:1/,header=Cookie:***,ping=5",
            ),
            (
                "ws:h:1/?header=A:SECRET,x&ping=5",
                "ws:h:1/?header=A:***&ping=5",
            ),
            ("ws:h:1/,header=A:SE%2CCRET", "ws:h:1/,header=A:***"),
            ("ws:h:1/,password=SECRET", "ws:h:1/,password=***"),
            (
                "ws:h:1/,host=x,header=A:SECRET,proxy=http://me:SECRET@p:1,nodelay=no",
                "ws:h:1/,host=x,header=A:***,proxy=http://me:***@p:1,nodelay=no",
            ),
            // Within an address of a peer.
            ("cepa://ID@relay:ID@tcp:h:1", "cepa://ID@relay:ID@tcp:h:1"),
            (
                "cepa://ID@ws:h:1%2F%2Cheader=A:SECRET%2Cping=5,tcp:h:1/up",
                "cepa://ID@ws:h:1%2F%2Cheader=A:***%2Cping=5,tcp:h:1/up",
            ),
            (
                "cepa://ID@tcp:h:1%2cproxy%3Dhttp%3A%2F%2Fme%3ASECRET@p:1/up",
                "cepa://ID@tcp:h:1%2cproxy%3Dhttp%3A***@p:1/up",
            ),
            (
                "cepa://ID@tcp:h:1%2Cproxy=http:%2F%2Fme:SECRET@p:1/up",
                "cepa://ID@tcp:h:1%2Cproxy=http:%2F%2Fme:***@p:1/up",
            ),
            // Words of a command line.
            (
                "db=tcp:127.0.0.1:1,proxy=http://me:SECRET@p:1",
                "db=tcp:127.0.0.1:1,proxy=http://me:***@p:1",
            ),
            ("--proxy=http://me:SE/CRET@p:1", "--proxy=http://me:***@p:1"),
            (
                "sh=exec:cepa connect ws:h:1/,header=A:SECRET x",
                "sh=exec:cepa connect ws:h:1/,header=A:***",
            ),
            ("x=exec:env A=b true", "x=exec:env A=b true"),
            (
                "tcp:h:1,proxy-protocol=yes,proxy-from=10.0.0.0/8",
                "tcp:h:1,proxy-protocol=yes,proxy-from=10.0.0.0/8",
            ),
        ] {
            let found = hidden(text);
            assert!(!found.contains("SE"), "{found}");
            assert_eq!(found, shown);
        }
        assert_eq!(hidden_proxy("me:SECRET@p:1"), "me:***@p:1");
        assert_eq!(hidden_proxy("token@p:1"), "***@p:1");
        assert_eq!(hidden_proxy("env"), "env");
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_hidden_no_text_panics(text in "\\PC{0,30}", more in "[a-z:,&?%=/@23cdfCDF]{0,60}") {
            let _ = hidden(&format!("{text}{more}"));
            let shown = hidden(&format!("{more},header=A:\u{e9}SECRET{more}"));
            proptest::prop_assert!(!shown.contains("SECRET"), "{}", shown);
        }
    }
}
