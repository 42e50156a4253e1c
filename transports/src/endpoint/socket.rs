//! The options of TCP, QUIC and Unix sockets: text to settings.
use super::connection::{QuicSettings, TcpSettings, TcpWay};
use super::keys::YES_NO;
use super::options::{Opt, Wrong, digits, option_list, unescape, wrong, wrong_word};
use super::proxy::proxy;
use super::types::UnixSettings;
use crate::network::Network;

/// Sources that an address names; it stays one line.
const SOURCES: usize = 64;

pub(super) fn tcp(options: &str, at: usize) -> Result<TcpSettings, Wrong> {
    let mut tcp = TcpOptions::default();
    for option in option_list(options, at, "tcp")? {
        tcp.take(&option)?;
    }
    tcp.finish()
}

/// The options of a TCP connection, which those that are made of one have too.
#[derive(Default)]
pub(super) struct TcpOptions {
    settings: TcpSettings,
    proxied: bool,
    /// With where they stand.
    from: Option<(Vec<Network>, usize)>,
}

impl TcpOptions {
    /// False for one that is none of these.
    pub(super) fn take(&mut self, option: &Opt<'_>) -> Result<bool, Wrong> {
        let s = &mut self.settings;
        match option.key {
            "keepalive" if option.value == "no" => s.keepalive = None,
            "keepalive" => {
                let fits = |n: &u16| (1..=32_767).contains(n);
                let Some(seconds) = digits(option.value).filter(fits) else {
                    let expected = "keepalive=no, or seconds of silence, 1 to 32767";
                    return wrong(option.value_at, expected);
                };
                s.keepalive = Some(seconds);
            }
            "user-timeout" => {
                let fits = |n: &u32| (1..=86_400).contains(n);
                let Some(seconds) = digits(option.value).filter(fits) else {
                    return wrong(option.value_at, "seconds, 1 to 86400");
                };
                s.user_timeout = Some(seconds);
            }
            "nodelay" => s.nodelay = option.word(YES_NO)? == "yes",
            "bind" | "interface" | "mark" => way(s.way.get_or_insert_default(), option)?,
            "proxy-protocol" => self.proxied = option.word(YES_NO)? == "yes",
            "proxy-from" => self.from = Some((networks(option)?, option.value_at)),
            "proxy" => s.proxy = Some(Box::new(proxy(option)?)),
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(super) fn finish(self) -> Result<TcpSettings, Wrong> {
        let proxy_from = match self.from {
            Some((_, at)) if !self.proxied => {
                return wrong_word(
                    at,
                    "proxy-protocol=yes beside proxy-from, which says who may use it",
                    Some("proxy-protocol=yes"),
                );
            }
            Some((from, _)) => Some(from.into()),
            None => self.proxied.then(|| Network::loopback().into()),
        };
        Ok(TcpSettings {
            proxy_from,
            ..self.settings
        })
    }
}

/// One of the options that say which way out of this machine a connection takes.
fn way(way: &mut TcpWay, option: &Opt<'_>) -> Result<(), Wrong> {
    match option.key {
        "bind" => match option.value.parse() {
            Ok(address) => way.bind = Some(address),
            Err(_) => {
                return wrong(
                    option.value_at,
                    "an IP address of this machine, as in bind=192.0.2.1",
                );
            }
        },
        "interface" => way.interface = Some(interface(option)?),
        _ => match mark(option.value) {
            Some(mark) => way.mark = Some(mark),
            None => {
                return wrong(
                    option.value_at,
                    "a mark, 0 to 4294967295, or in hex, as in 0x2a",
                );
            }
        },
    }
    Ok(())
}

pub(super) fn quic(options: &str, at: usize) -> Result<QuicSettings, Wrong> {
    let mut s = QuicSettings::default();
    for option in option_list(options, at, "quic")? {
        match option.key {
            "keepalive" => {
                // Three times as much has to be counted, too.
                let fits = |n: &u16| (1..=21_845).contains(n);
                match digits(option.value).filter(fits) {
                    Some(seconds) => s.keepalive = seconds,
                    None => return wrong(option.value_at, "seconds of silence, 1 to 21845"),
                }
            }
            "proxy" => s.proxy = Some(Box::new(proxy(&option)?)),
            _ => way(s.way.get_or_insert_default(), &option)?,
        }
    }
    Ok(s)
}

/// Bytes of an interface's name (`IFNAMSIZ` of Linux, with the NUL at its end).
const INTERFACE: usize = 15;

fn interface(option: &Opt<'_>) -> Result<String, Wrong> {
    let fits = |c: char| c.is_ascii_graphic() && !"/,&%?".contains(c);
    let name = option.value;
    if name.is_empty() || name.len() > INTERFACE || !name.chars().all(fits) {
        return wrong(
            option.value_at,
            "the name of a network interface, as in interface=eth0",
        );
    }
    Ok(name.to_owned())
}

fn mark(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(hex) if hex.bytes().all(|b| b.is_ascii_hexdigit()) => {
            u32::from_str_radix(hex, 16).ok()
        }
        Some(_) => None,
        None => digits(text),
    }
}

fn networks(option: &Opt<'_>) -> Result<Vec<Network>, Wrong> {
    let parsed: Option<Vec<Network>> = option.value.split('+').map(Network::parse).collect();
    match parsed {
        Some(list) if list.len() <= SOURCES => Ok(list),
        _ => wrong(
            option.value_at,
            "addresses or networks with \"+\" between them, as in 10.0.0.0/8+fd00::/8",
        ),
    }
}

pub(super) fn unix(options: &str, at: usize) -> Result<UnixSettings, Wrong> {
    let mut s = UnixSettings::default();
    for option in option_list(options, at, "unix")? {
        if option.key == "framed" {
            s.framed = option.word(YES_NO)? == "yes";
            continue;
        }
        if option.key == "mode" {
            let octal = option.value.bytes().all(|b| (b'0'..=b'7').contains(&b));
            let mode = u16::from_str_radix(option.value, 8);
            let Some(mode) = mode.ok().filter(|mode| octal && *mode <= 0o777) else {
                return wrong(option.value_at, "permissions in octal, as in mode=0660");
            };
            s.mode = Some(mode);
            continue;
        }
        let group = String::from_utf8(unescape(option.value, option.value_at)?);
        match group.ok().filter(|group| !group.is_empty()) {
            Some(group) => s.group = Some(group),
            None => return wrong(option.value_at, "the name or the number of a group"),
        }
    }
    Ok(s)
}
