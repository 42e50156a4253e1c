//! A proxy to dial through: its parts, its text in an option, and its text as programs know it (`ALL_PROXY`).
//!
//! ```text
//! proxy  =  ( "socks5" / "socks5h" ) "://" [ login "@" ] host [ ":" port ]
//!        /  "http://" [ login "@" ] host ":" port
//! login  =  user [ ":" password ]
//! ```
//!
//! SOCKS has a port of its own, 1080. Programs disagree about that of an HTTP proxy (80, 1080, 3128), so nobody has to guess here.
//!
//! It is split where it is written, and its user and password are unescaped after that; so an `@` or `:` in them is
//! written `%40` or `%3A`, as in URLs (RFC 3986, section 3.2.1), and no escape is resolved twice.
use super::connection::{Proxy, ProxyKind, ProxyLogin};
use super::options::{Opt, Wrong, host_port, secret, unescape, wrong, wrong_word};

/// Bytes of a name or of a password (RFC 1929, section 2).
const WORD: usize = 255;

/// Where a SOCKS proxy is (IANA's registry of ports has it for `socks`).
const SOCKS_PORT: u16 = 1080;

impl Proxy {
    /// From the value of a variable such as `ALL_PROXY`, which may leave the scheme and the port out: then it is an HTTP proxy, at port
    /// 80 (`socks5`: 1080).
    ///
    /// # Errors
    /// One line, without the text: it may hold a password.
    pub fn from_variable(text: &str) -> Result<Self, String> {
        let text = text.strip_suffix('/').unwrap_or(text);
        let mut full = if text.contains("://") {
            text.to_owned()
        } else {
            format!("http://{text}")
        };
        let host = full.rsplit_once(['@', '/']).map_or("", |(_, host)| host);
        if !has_port(host) && !full.starts_with("socks") {
            full.push_str(":80");
        }
        parse(&full, 0).map_err(|wrong| format!("expected {}", wrong.expected))
    }
}

pub(super) fn proxy(option: &Opt<'_>) -> Result<Proxy, Wrong> {
    parse(option.value, option.value_at)
}

fn parse(text: &str, at: usize) -> Result<Proxy, Wrong> {
    let expected = "a proxy, socks5://, socks5h:// or http://, as in socks5h://127.0.0.1:1080";
    let Some((word, rest)) = text.split_once("://") else {
        let word = text.split_once(':').map_or("", |(word, _)| word);
        let near = match ProxyKind::ALL.into_iter().find(|kind| kind.word() == word) {
            Some(kind) => Some(format!("{}://", kind.word())),
            None => (word == "socks").then(|| "socks5h://".to_owned()),
        };
        return wrong_word(at, expected, near.as_deref());
    };
    let Some(kind) = ProxyKind::ALL.into_iter().find(|kind| kind.word() == word) else {
        let near = match word {
            "socks" => Some("socks5h://"),
            "https" => Some("http://"),
            _ => None,
        };
        return wrong_word(at, expected, near);
    };
    let mut place_at = at + word.len() + "://".len();
    let (login, place) = match rest.rsplit_once('@') {
        Some((login, place)) => (Some(login), place),
        None => (None, rest),
    };
    let login = match login {
        None => None,
        Some(text) => {
            let login = login_of(text, place_at, kind)?;
            place_at += text.len() + 1;
            Some(login)
        }
    };
    let bare = place.strip_suffix('/').unwrap_or(place);
    let place = match kind {
        _ if has_port(bare) || bare.is_empty() => place.to_owned(),
        ProxyKind::Socks5 | ProxyKind::Socks5h => format!("{bare}:{SOCKS_PORT}"),
        ProxyKind::Http => {
            let expected = "\":PORT\" behind an HTTP proxy (often 3128 or 8080)";
            return wrong(place_at + bare.len(), expected);
        }
    };
    let (host, port, rest, rest_at) = host_port(&place, place_at, "127.0.0.1:1080")?;
    if !rest.is_empty() && rest != "/" {
        return wrong(rest_at, "the end of the proxy behind its port");
    }
    if port == 0 {
        return wrong(rest_at, "the proxy's port, 1 to 65535");
    }
    Ok(Proxy {
        kind,
        host: host.to_owned(),
        port,
        login,
    })
}

/// Whether a port stands behind the host.
fn has_port(place: &str) -> bool {
    let behind = place.rsplit_once(']').map_or(place, |(_, rest)| rest);
    behind.contains(':')
}

fn login_of(text: &str, at: usize, kind: ProxyKind) -> Result<ProxyLogin, Wrong> {
    let (user, password) = text.split_once(':').unwrap_or((text, ""));
    let word = |text, at| match String::from_utf8(unescape(text, at)?) {
        Ok(word) if word.len() <= WORD => Ok(word),
        _ => wrong(at, "a user and a password of at most 255 bytes each"),
    };
    let password_at = at + user.len() + 1;
    // What was hidden is none.
    let user = secret(word(user, at)?, at)?.reveal().to_owned();
    if user.is_empty() || (kind == ProxyKind::Http && user.contains(':')) {
        return wrong(at, "a user before \"@\", as in user:password@");
    }
    let password = word(password, password_at)?;
    Ok(ProxyLogin {
        user,
        password: secret(password, password_at)?,
    })
}
