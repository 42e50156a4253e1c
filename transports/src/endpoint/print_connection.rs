//! Network connections to text: what stands behind the scheme of `tcp:`, `ws:`, `wss:` and `quic:`. Secrets are hidden unless they are asked for.
use std::fmt;

use data_encoding::BASE64;

use super::connection::{Proxy, QuicSettings, TcpSettings, TcpWay, WsSettings};
use super::escape::{escape, escape_path, escape_with};
use super::secret::Secret;
use crate::network::Network;

/// How a pin begins, as curl writes it (`--pinnedpubkey`).
pub(super) const PIN: &str = "sha256//";

pub(super) fn place(f: &mut fmt::Formatter<'_>, host: &str, port: u16) -> fmt::Result {
    if host.contains(':') {
        write!(f, "[{host}]:{port}")
    } else {
        write!(f, "{host}:{port}")
    }
}

pub(super) fn tcp(f: &mut fmt::Formatter<'_>, s: &TcpSettings, reveal: bool) -> fmt::Result {
    match s.keepalive {
        Some(TcpSettings::KEEPALIVE) => {}
        Some(seconds) => write!(f, ",keepalive={seconds}")?,
        None => f.write_str(",keepalive=no")?,
    }
    if let Some(seconds) = s.user_timeout {
        write!(f, ",user-timeout={seconds}")?;
    }
    if !s.nodelay {
        f.write_str(",nodelay=no")?;
    }
    way(f, s.way.as_deref())?;
    if let Some(from) = &s.proxy_from {
        f.write_str(",proxy-protocol=yes")?;
        if **from != *Network::loopback() {
            for (i, network) in from.iter().enumerate() {
                f.write_str(if i == 0 { ",proxy-from=" } else { "+" })?;
                write!(f, "{network}")?;
            }
        }
    }
    by_proxy(f, s.proxy.as_deref(), reveal)
}

fn way(f: &mut fmt::Formatter<'_>, way: Option<&TcpWay>) -> fmt::Result {
    let Some(way) = way else {
        return Ok(());
    };
    if let Some(address) = way.bind {
        write!(f, ",bind={address}")?;
    }
    if let Some(interface) = &way.interface {
        write!(f, ",interface={interface}")?;
    }
    if let Some(mark) = way.mark {
        write!(f, ",mark={mark}")?;
    }
    Ok(())
}

fn by_proxy(f: &mut fmt::Formatter<'_>, it: Option<&Proxy>, reveal: bool) -> fmt::Result {
    let Some(it) = it else {
        return Ok(());
    };
    f.write_str(",proxy=")?;
    proxy(f, it, reveal)
}

pub(super) fn quic(f: &mut fmt::Formatter<'_>, s: &QuicSettings, reveal: bool) -> fmt::Result {
    if s.keepalive != QuicSettings::KEEPALIVE {
        write!(f, ",keepalive={}", s.keepalive)?;
    }
    way(f, s.way.as_deref())?;
    by_proxy(f, s.proxy.as_deref(), reveal)
}

/// What follows the host and the port.
pub(super) fn ws(
    f: &mut fmt::Formatter<'_>,
    path: &str,
    s: &WsSettings,
    reveal: bool,
) -> fmt::Result {
    escape(f, path)?;
    tcp(f, &s.tcp, reveal)?;
    if let Some(host) = &s.host {
        f.write_str(",host=")?;
        escape(f, host)?;
    }
    for (name, value) in &s.headers {
        write!(f, ",header={name}:")?;
        if reveal {
            escape(f, value.reveal())?;
        } else {
            f.write_str(Secret::HIDDEN)?;
        }
    }
    match s.ping {
        Some(WsSettings::PING) => {}
        Some(seconds) => write!(f, ",ping={seconds}")?,
        None => f.write_str(",ping=no")?,
    }
    let Some(tls) = &s.tls else {
        return Ok(());
    };
    if let Some(pin) = &tls.pin {
        write!(f, ",pin={PIN}{}", BASE64.encode(pin))?;
    }
    for (key, path) in [("cert", &tls.cert), ("key", &tls.key)] {
        if let Some(path) = path {
            write!(f, ",{key}=")?;
            escape_path(f, path)?;
        }
    }
    Ok(())
}

/// The text, with the password or with `***` in its place; or in that of the user, where there is no password.
fn proxy(f: &mut fmt::Formatter<'_>, it: &Proxy, reveal: bool) -> fmt::Result {
    write!(f, "{}://", it.kind.word())?;
    if let Some(login) = &it.login {
        // One without a password may be one itself: a token.
        if reveal || !login.password.reveal().is_empty() {
            escape_with(f, &login.user, USERINFO)?;
        } else {
            f.write_str(Secret::HIDDEN)?;
        }
        if !login.password.reveal().is_empty() {
            f.write_str(":")?;
            if reveal {
                escape_with(f, login.password.reveal(), USERINFO)?;
            } else {
                f.write_str(Secret::HIDDEN)?;
            }
        }
        f.write_str("@")?;
    }
    if it.host.contains(':') {
        write!(f, "[{}]:{}", it.host, it.port)
    } else {
        write!(f, "{}:{}", it.host, it.port)
    }
}

/// `socks5h://user:***@host:1080`
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        proxy(f, self, false)
    }
}

/// What is escaped in a user and in a password: what ends them, what ends an option, and the escape itself.
const USERINFO: &[char] = &['%', ',', '?', '&', ':', '@', '/', '#'];
