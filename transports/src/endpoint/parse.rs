//! Text to typed address. Every function carries the place where its text begins in the whole
//! address, so that an error can name the column.
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::str::FromStr;

use super::command;
use super::keys::{ESCAPE, SCHEMES, YES_NO, nearest};
use super::options::{
    Wrong, digits, host_port, no_options, option_list, path_of, split, unescape, wrong, wrong_word,
};
use super::secret::hidden;
use super::serial::{rfc2217, serial};
use super::socket;
use super::ssh::ssh;
use super::types::{Endpoint, Escapes, Layer, LinkSettings, Target};
use super::ws::ws;
use crate::text::clean;

/// Bytes of an address that a message shows.
const SHOWN: usize = 200;

/// Why a text is no address. Printed as one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    input: String,
    position: usize,
    expected: String,
    nearest: Option<String>,
}

impl ParseError {
    /// The column where the error is, in characters, counted from 1.
    pub fn position(&self) -> usize {
        self.position
    }

    /// What should have stood there.
    pub fn expected(&self) -> &str {
        &self.expected
    }

    /// The valid scheme, key, value or address nearest to what stands there, if one is near.
    pub fn nearest(&self) -> Option<&str> {
        self.nearest.as_deref()
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The address may be hostile or huge; a message stays one line of bearable length.
        write!(
            f,
            "invalid address \"{}\": column {}: expected {}",
            clean(&hidden(&self.input), SHOWN),
            self.position,
            self.expected
        )?;
        match &self.nearest {
            Some(word) => write!(f, "; did you mean \"{}\"?", clean(&hidden(word), SHOWN)),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ParseError {}

impl FromStr for Endpoint {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        parse(text).map_err(|w| ParseError {
            input: text.to_owned(),
            position: 1 + text.get(..w.at).map_or(0, |before| before.chars().count()),
            expected: w.expected,
            nearest: w.nearest,
        })
    }
}

impl Endpoint {
    /// An address from its parts.
    ///
    /// # Errors
    /// When no text stands for such a target: a host with a space in it, an empty path or command, a
    /// baud rate of 0. The error shows the text that was tried.
    pub fn new(layers: &[Layer], target: Target) -> Result<Self, ParseError> {
        let made = Self {
            layers: layers.to_vec(),
            target,
        };
        let text = made.revealed().to_string();
        let again: Self = text.parse()?;
        if again == made {
            return Ok(again);
        }
        Err(ParseError {
            input: text,
            position: 1,
            expected: "a target that its own text stands for".to_owned(),
            nearest: Some(again.revealed().to_string()),
        })
    }
}

/// What begins so is a serial line.
const DEVICES: &str = "/dev/";

fn parse(text: &str) -> Result<Endpoint, Wrong> {
    if text.contains('\0') {
        return wrong(text.find('\0').unwrap_or(0), "no NUL byte");
    }
    if text.starts_with(DEVICES) {
        // As every terminal program takes a line. Columns are those of what was written.
        let parsed = parse(&format!("serial:{text}"));
        return parsed.map_err(|wrong| Wrong {
            at: wrong.at.saturating_sub("serial:".len()),
            ..wrong
        });
    }
    let Some((head, target)) = text.split_once(':') else {
        return wrong_word(
            0,
            format!(
                "SCHEME:TARGET with one of the schemes {}",
                SCHEMES.join(", ")
            ),
            guess(text)
                .or_else(|| nearest(text, SCHEMES).map(|s| format!("{s}:")))
                .as_deref(),
        );
    };
    let mut layers = Vec::new();
    let mut at = 0;
    let mut words = head.split('+').peekable();
    let mut scheme = "";
    while let Some(word) = words.next() {
        if words.peek().is_none() {
            scheme = word;
            break;
        }
        layers.push(layer(word, at)?);
        at += word.len() + 1;
    }
    let start = head.len() + 1;
    let target = match scheme {
        "tcp" => tcp(target, start)?,
        "ws" | "wss" => ws(target, start, scheme)?,
        "quic" => quic(target, start)?,
        "unix" => {
            let (path, options, end) = split(target, start);
            Target::Unix {
                settings: socket::unix(options, end)?,
                path: path_of(path, start, "the path of a socket")?,
            }
        }
        "stdio" => {
            if !target.is_empty() {
                return wrong(start, "nothing after \"stdio:\"");
            }
            Target::Stdio
        }
        "fd" => fd(target, start)?,
        "exec" => exec(target, start)?,
        "ssh" => ssh(target, start)?,
        "serial" => serial(target, start)?,
        "rfc2217" => rfc2217(target, start)?,
        "pty" => {
            let (path, options, end) = split(target, start);
            no_options(options, end, "pty")?;
            Target::Pty {
                path: path_of(path, start, "the path of the link to make")?,
            }
        }
        "memory" => {
            let (name, options, end) = split(target, start);
            no_options(options, end, "memory")?;
            let Ok(name) = String::from_utf8(unescape(name, start)?) else {
                return wrong(start, "a name in UTF-8");
            };
            if name.is_empty() {
                return wrong(start, "the name of a listener in this process");
            }
            Target::Memory { name }
        }
        other => {
            return wrong_word(
                at,
                format!("a scheme ({})", SCHEMES.join(", ")),
                nearest(other, SCHEMES)
                    .map(str::to_owned)
                    .or_else(|| guess(text))
                    .as_deref(),
            );
        }
    };
    Ok(Endpoint { layers, target })
}

fn layer(word: &str, at: usize) -> Result<Layer, Wrong> {
    let options = word.strip_prefix("link");
    if let Some(options) = options.filter(|o| o.starts_with(['?', ','])) {
        return link(options, at + "link".len()).map(Layer::Link);
    }
    if let Some(layer) = Layer::ALL.iter().find(|l| l.word() == word) {
        return Ok(*layer);
    }
    let known: Vec<_> = Layer::ALL.iter().map(|l| l.word()).collect();
    wrong_word(
        at,
        format!("a layer ({}) before \"+\"", known.join(", ")),
        nearest(word, &known),
    )
}

fn link(options: &str, at: usize) -> Result<LinkSettings, Wrong> {
    let mut s = LinkSettings::DEFAULT;
    for option in option_list(options, at, "link")? {
        match option.key {
            "escape" => {
                s.escape = match option.word(ESCAPE)? {
                    "xonxoff" => Escapes::XonXoff,
                    "control" => Escapes::Control,
                    _ => Escapes::Least,
                }
            }
            "mtu" => s.mtu = Some(option.mtu()?),
            _ => s.duplex = option.duplex()?,
        }
    }
    Ok(s)
}

/// What somebody meant who left the scheme out.
fn guess(text: &str) -> Option<String> {
    if text.starts_with('/') || text.starts_with("./") {
        return Some(format!("unix:{text}"));
    }
    let (host, port) = text.rsplit_once(':')?;
    // A URL, or a scheme of another program's, is no host.
    if host.contains([':', '/', '@']) {
        return None;
    }
    let scheme = host.split_once('-').map_or(host, |(first, _)| first);
    if SCHEMES.contains(&scheme) {
        return None;
    }
    (!host.is_empty() && digits::<u16>(port).is_some()).then(|| format!("tcp:{text}"))
}

fn tcp(text: &str, start: usize) -> Result<Target, Wrong> {
    let (host, port, options, at) = host_port(text, start, "127.0.0.1:7000")?;
    if !options.is_empty() && !options.starts_with([',', '?']) {
        return wrong(at, "the end of the address, or \",\" before options");
    }
    Ok(Target::Tcp {
        host: host.to_owned(),
        port,
        settings: socket::tcp(options, at)?,
    })
}

fn quic(text: &str, start: usize) -> Result<Target, Wrong> {
    let (host, port, options, at) = host_port(text, start, "127.0.0.1:7000")?;
    if !options.is_empty() && !options.starts_with([',', '?']) {
        return wrong(at, "the end of the address, or \",\" before options");
    }
    Ok(Target::Quic {
        host: host.to_owned(),
        port,
        settings: Box::new(socket::quic(options, at)?),
    })
}

fn fd(text: &str, start: usize) -> Result<Target, Wrong> {
    let expected = "a descriptor N for both directions, or R,W (read from R, write to W)";
    // Descriptors are ints in the kernel; what does not fit one is a typing error.
    let number = |t: &str| digits::<u32>(t).filter(|n| i32::try_from(*n).is_ok());
    let (read, write) = text.split_once(',').unwrap_or((text, text));
    let Some(read) = number(read) else {
        return wrong(start, expected);
    };
    let Some(write) = number(write) else {
        return wrong(start + text.find(',').map_or(0, |i| i + 1), expected);
    };
    Ok(Target::Fd { read, write })
}

fn exec(text: &str, start: usize) -> Result<Target, Wrong> {
    let (argv, end) = command::split(text, start)?;
    let options = text.get(end..).unwrap_or("");
    if argv.first().is_none_or(String::is_empty) {
        return wrong(start, "a command, as in exec:ssh host cepa serve stdio:");
    }
    let (mut dir, mut pty) = (None, false);
    for option in option_list(options, start + end, "exec")? {
        if option.key == "pty" {
            pty = option.word(YES_NO)? == "yes";
            continue;
        }
        let value = unescape(option.value, option.value_at)?;
        if value.is_empty() {
            return wrong(option.value_at, "a directory");
        }
        dir = Some(PathBuf::from(OsString::from_vec(value)));
    }
    Ok(Target::Exec { argv, dir, pty })
}
