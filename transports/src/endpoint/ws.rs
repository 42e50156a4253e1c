//! WebSockets: what an address says of one, and its text.
//!
//! The path is sent as it is written once its escapes are resolved, so it is made of the visible characters that a request line
//! can have (RFC 9112, section 3.2); one that is escaped there has its `%` escaped here.
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use data_encoding::BASE64;

use super::connection::{WsSettings, WsTls};
use super::options::{
    Wrong, digits, host_port, option_list, secret, split, unescape, wrong, wrong_word,
};
use super::print_connection::PIN;
use super::secret::Secret;
use super::socket;
use super::types::Target;

/// Bytes of a path, and of a header's value.
const PATH: usize = 2048;

/// Headers that an address names.
const HEADERS: usize = 16;

/// What the handshake says itself (RFC 6455, section 4.1), and what `host` says.
const OURS: &[&str] = &[
    "host",
    "upgrade",
    "connection",
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-extensions",
    "sec-websocket-protocol",
    "content-length",
    "transfer-encoding",
];

pub(super) fn ws(text: &str, start: usize, scheme: &str) -> Result<Target, Wrong> {
    if let Some(rest) = text.strip_prefix("//") {
        // Who logs in by a URL needs a header here; what it has is no host.
        let end = rest.find('/').unwrap_or(rest.len());
        let place = rest.get(..end).unwrap_or(rest);
        let login = place.rfind('@').map_or(0, |at| at + 1);
        let near = format!("{scheme}:{}", rest.get(login..).unwrap_or(""));
        return wrong_word(start, "HOST:PORT/PATH without \"//\"", Some(&near));
    }
    let example = "127.0.0.1:8080/cepa";
    let (host, port, rest, rest_at) = host_port(text, start, example)?;
    let (path, options, options_at) = split(rest, rest_at);
    let path = match path {
        "" => "/".to_owned(),
        path => request_path(path, rest_at)?,
    };
    Ok(Target::Ws {
        host: host.to_owned(),
        port,
        path,
        settings: Box::new(settings(options, options_at, scheme)?),
    })
}

fn request_path(text: &str, at: usize) -> Result<String, Wrong> {
    // RFC 3986, sections 3.3 and 3.4.
    let fits = |c: &u8| c.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:@/?".contains(c);
    match String::from_utf8(unescape(text, at)?) {
        Ok(path)
            if path.len() <= PATH && path.starts_with('/') && path.bytes().all(|c| fits(&c)) =>
        {
            Ok(path)
        }
        _ => wrong(
            at,
            "a path in the characters of a URL that begins with \"/\" (%25XX for what a URL writes %XX)",
        ),
    }
}

fn settings(options: &str, at: usize, scheme: &str) -> Result<WsSettings, Wrong> {
    let mut tcp = socket::TcpOptions::default();
    let mut s = WsSettings::default();
    let mut tls = WsTls::default();
    for option in option_list(options, at, scheme)? {
        if tcp.take(&option)? {
            continue;
        }
        let at = option.value_at;
        match option.key {
            "host" => s.host = Some(header_value(&unescape(option.value, at)?, at)?),
            "header" => {
                if s.headers.len() == HEADERS {
                    return wrong(at, "at most 16 headers");
                }
                s.headers.push(header(option.value, at)?);
            }
            "ping" if option.value == "no" => s.ping = None,
            "ping" => match digits(option.value).filter(|n| (1..=32_767).contains(n)) {
                Some(seconds) => s.ping = Some(seconds),
                None => return wrong(at, "ping=no, or seconds of silence, 1 to 32767"),
            },
            "pin" => tls.pin = Some(pin(option.value, at)?),
            // option_list lets only the scheme's keys through.
            key => {
                let path = unescape(option.value, at)?;
                if path.is_empty() {
                    return wrong(at, "the path of a file in PEM");
                }
                let path = PathBuf::from(std::ffi::OsString::from_vec(path));
                match key {
                    "cert" => tls.cert = Some(path),
                    _ => tls.key = Some(path),
                }
            }
        }
    }
    s.tcp = tcp.finish()?;
    s.tls = (scheme == "wss").then_some(tls);
    Ok(s)
}

fn pin(text: &str, at: usize) -> Result<[u8; 32], Wrong> {
    let hash = text
        .strip_prefix(PIN)
        .map(|hash| BASE64.decode(hash.as_bytes()));
    match hash.and_then(Result::ok).map(<[u8; 32]>::try_from) {
        Some(Ok(pin)) => Ok(pin),
        _ => wrong(at, "sha256// and the SHA-256 of the public key in base64"),
    }
}

fn header(text: &str, at: usize) -> Result<(String, Secret), Wrong> {
    let Some((name, value)) = text.split_once(':') else {
        return wrong(at, "header=NAME:VALUE");
    };
    // RFC 9110, section 5.6.2: a token.
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$&'*+-.^_`|~".contains(c);
    if name.is_empty() || name.len() > 64 || !name.chars().all(token) {
        return wrong(at, "the name of a header before \":\"");
    }
    if OURS.iter().any(|ours| ours.eq_ignore_ascii_case(name)) {
        return wrong(
            at,
            "a header that the handshake does not set itself (for Host there is host=)",
        );
    }
    let at = at + name.len() + 1;
    let value = header_value(&unescape(value, at)?, at)?;
    Ok((name.to_owned(), secret(value, at)?))
}

/// RFC 9110, section 5.5, in ASCII.
fn header_value(bytes: &[u8], at: usize) -> Result<String, Wrong> {
    let fits = |c: &u8| c.is_ascii_graphic() || *c == b' ';
    let trimmed = bytes.trim_ascii();
    if bytes.is_empty()
        || trimmed.len() != bytes.len()
        || bytes.len() > PATH
        || !bytes.iter().all(fits)
    {
        return wrong(at, "a header's value in visible ASCII characters");
    }
    Ok(String::from_utf8_lossy(bytes).into_owned())
}
