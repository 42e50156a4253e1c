//! `ssh:`: a machine that is reached with the user's own `ssh`, and what `cepa` serves there; its text.
//!
//! Whoever writes an address decides what ssh is given, so a host or a user is made of the characters that a host of `ssh_config` has: none
//! that begins an option, and none that a shell reads, since `ssh_config` may put them into commands (`ProxyCommand`, `Match exec`).
use std::fmt;
use std::net::Ipv6Addr;

use super::connection::SshSettings;
use super::escape::escape;
use super::options::{Wrong, digits, option_list, unescape, wrong};
use super::types::Target;

/// Most of each that an address names.
const MOST: usize = 16;

/// Bytes of one.
const LONGEST: usize = 1024;

/// Bytes of a user, and of a host (RFC 1035, section 2.3.4).
const NAME: usize = 255;

pub(super) fn ssh(text: &str, start: usize) -> Result<Target, Wrong> {
    let end = text.find([',', '?']).unwrap_or(text.len());
    let (place, options) = text.split_at_checked(end).unwrap_or((text, ""));
    if place.starts_with("//") {
        return wrong(start, "[USER@]HOST[:PORT] without \"//\"");
    }
    let (user, rest, at) = match place.rsplit_once('@') {
        Some((user, rest)) => (Some(user), rest, start + user.len() + 1),
        None => (None, place, start),
    };
    let user = user.map(|user| name(user, start, "a user before \"@\""));
    let user = user.transpose()?;
    let (host, port, port_at) = if let Some(inner) = rest.strip_prefix('[') {
        in_brackets(inner, at)?
    } else {
        named(rest, at)?
    };
    let port = match port.map(digits::<u16>) {
        None => None,
        Some(Some(port)) if port > 0 => Some(port),
        Some(_) => return wrong(port_at, "a port, 1 to 65535"),
    };
    Ok(Target::Ssh {
        user,
        host,
        port,
        settings: Box::new(settings(options, start + end)?),
    })
}

/// A host, and a port with its place.
type Host<'a> = (String, Option<&'a str>, usize);

fn in_brackets(inner: &str, at: usize) -> Result<Host<'_>, Wrong> {
    let Some((host, after)) = inner.split_once(']') else {
        return wrong(at, "\"]\" after an IPv6 address");
    };
    let (address, zone) = host.split_once('%').unwrap_or((host, "0"));
    let fits = !zone.is_empty() && zone.chars().all(is_plain);
    if address.parse::<Ipv6Addr>().is_err() || !fits {
        return wrong(at + 1, "an IPv6 address between \"[\" and \"]\"");
    }
    let behind = at + host.len() + 2;
    match after.strip_prefix(':') {
        Some(port) => Ok((host.to_owned(), Some(port), behind + 1)),
        None if after.is_empty() => Ok((host.to_owned(), None, behind)),
        None => wrong(behind, "\":PORT\", or the end of the host"),
    }
}

fn named(rest: &str, at: usize) -> Result<Host<'_>, Wrong> {
    let (host, port) = match rest.split_once(':') {
        Some((_, port)) if port.contains(':') => {
            return wrong(
                at,
                "[USER@]HOST[:PORT], with an IPv6 address in brackets; ssh asks for a password itself",
            );
        }
        Some((host, port)) => (host, Some(port)),
        None => (rest, None),
    };
    let port_at = at + host.len() + 1;
    Ok((name(host, at, "a host, as `ssh` takes it")?, port, port_at))
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._".contains(c)
}

fn name(text: &str, at: usize, what: &str) -> Result<String, Wrong> {
    if text.is_empty() {
        return wrong(at, what);
    }
    if text.starts_with('-') {
        return wrong(at, format!("{what}, which cannot begin with \"-\""));
    }
    if let Some(bad) = text.find(|c| !is_plain(c)) {
        return wrong(
            at + bad,
            format!("{what} (letters, digits, \".\", \"-\", \"_\")"),
        );
    }
    if text.len() > NAME {
        return wrong(at, format!("{what} of at most {NAME} bytes"));
    }
    Ok(text.to_owned())
}

fn settings(options: &str, at: usize) -> Result<SshSettings, Wrong> {
    let mut s = SshSettings::default();
    for option in option_list(options, at, "ssh")? {
        let (list, example) = match option.key {
            "service" => (
                &mut s.services,
                "service=[NAME=]ADDR, for example service=5432",
            ),
            _ => (&mut s.allow_remote, "allow-remote=[ADDR:]PORT"),
        };
        if list.len() == MOST {
            return wrong(option.value_at, format!("at most {MOST} of each key"));
        }
        let value = String::from_utf8(unescape(option.value, option.value_at)?);
        let fits = |text: &String| {
            !text.is_empty() && text.len() <= LONGEST && !text.chars().any(char::is_control)
        };
        match value.ok().filter(fits) {
            Some(value) => list.push(value),
            None => {
                return wrong(
                    option.value_at,
                    format!("{example}, of at most {LONGEST} bytes and without control characters"),
                );
            }
        }
    }
    Ok(s)
}

/// Everything behind the scheme.
pub(super) fn print(
    f: &mut fmt::Formatter<'_>,
    user: Option<&str>,
    host: &str,
    port: Option<u16>,
    settings: &SshSettings,
) -> fmt::Result {
    if let Some(user) = user {
        write!(f, "{user}@")?;
    }
    if host.contains(':') {
        write!(f, "[{host}]")?;
    } else {
        f.write_str(host)?;
    }
    if let Some(port) = port {
        write!(f, ":{port}")?;
    }
    for (key, values) in [
        ("service", &settings.services),
        ("allow-remote", &settings.allow_remote),
    ] {
        for value in values {
            write!(f, ",{key}=")?;
            escape(f, value)?;
        }
    }
    Ok(())
}
