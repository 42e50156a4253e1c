//! Typed address to text: the one canonical form. It is fit to be shown as it is: what is not printable is
//! written as an escape.
use std::fmt;

use super::escape::{escape, escape_path};
use super::print_connection::{self, place};
use super::ssh;
use super::types::{
    DataBits, Duplex, Endpoint, Escapes, FlowControl, Layer, LinkSettings, ModemLine, Parity,
    Rs485, Rs485Mode, SerialLock, SerialSettings, StopBits, Target,
};
use crate::text::is_printable;

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())?;
        match self {
            Self::Link(settings) => link(f, *settings),
            _ => Ok(()),
        }
    }
}

fn link(f: &mut fmt::Formatter<'_>, s: LinkSettings) -> fmt::Result {
    let escape = match s.escape {
        Escapes::Least => None,
        Escapes::XonXoff => Some("xonxoff".to_owned()),
        Escapes::Control => Some("control".to_owned()),
    };
    let mtu = s.mtu.map(|mtu| mtu.to_string());
    let duplex = (s.duplex == Duplex::Half).then(|| "half".to_owned());
    let all = [("escape", escape), ("mtu", mtu), ("duplex", duplex)];
    for (key, value) in all {
        if let Some(value) = value {
            write!(f, ",{key}={value}")?;
        }
    }
    Ok(())
}

/// Its secrets are hidden.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, false)
    }
}

/// An address with its secrets; see [`Endpoint::revealed`].
#[derive(Clone, Copy)]
pub struct Revealed<'a>(&'a Endpoint);

impl fmt::Display for Revealed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write(f, true)
    }
}

impl Endpoint {
    /// The whole text, which parses to the same address: with the password of its proxy and its headers, which [`fmt::Display`] shows as
    /// `***`. For what keeps an address or passes it on; not for messages.
    pub fn revealed(&self) -> Revealed<'_> {
        Revealed(self)
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, reveal: bool) -> fmt::Result {
        for layer in &self.layers {
            write!(f, "{layer}+")?;
        }
        self.target.write(f, reveal)
    }
}

/// Its secrets are hidden.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, false)
    }
}

impl Target {
    fn write(&self, f: &mut fmt::Formatter<'_>, reveal: bool) -> fmt::Result {
        write!(f, "{}:", self.scheme())?;
        match self {
            Self::Tcp {
                host,
                port,
                settings,
            } => {
                place(f, host, *port)?;
                print_connection::tcp(f, settings, reveal)
            }
            Self::Ws {
                host,
                port,
                path,
                settings,
            } => {
                place(f, host, *port)?;
                print_connection::ws(f, path, settings, reveal)
            }
            Self::Quic {
                host,
                port,
                settings,
            } => {
                place(f, host, *port)?;
                print_connection::quic(f, settings, reveal)
            }
            Self::Unix { path, settings } => {
                escape_path(f, path)?;
                if let Some(mode) = settings.mode {
                    write!(f, ",mode={mode:04o}")?;
                }
                if let Some(group) = &settings.group {
                    f.write_str(",group=")?;
                    escape(f, group)?;
                }
                if settings.framed {
                    f.write_str(",framed")?;
                }
                Ok(())
            }
            Self::Pty { path } => escape_path(f, path),
            Self::Stdio => Ok(()),
            Self::Fd { read, write } if read == write => write!(f, "{read}"),
            Self::Fd { read, write } => write!(f, "{read},{write}"),
            Self::Exec { argv, dir, pty } => {
                for (i, word) in argv.iter().enumerate() {
                    if i > 0 {
                        f.write_str(" ")?;
                    }
                    quote(f, word)?;
                }
                if let Some(dir) = dir {
                    f.write_str(",dir=")?;
                    escape_path(f, dir)?;
                }
                if *pty {
                    f.write_str(",pty=yes")
                } else {
                    Ok(())
                }
            }
            Self::Ssh {
                user,
                host,
                port,
                settings,
            } => ssh::print(f, user.as_deref(), host, *port, settings),
            Self::Serial { path, settings } => {
                escape_path(f, path)?;
                serial(f, settings)
            }
            Self::Rfc2217 {
                host,
                port,
                settings,
            } => {
                place(f, host, *port)?;
                print_connection::tcp(f, &settings.tcp, reveal)?;
                serial(f, &settings.line)
            }
            Self::Memory { name } => escape(f, name),
        }
    }
}

fn serial(f: &mut fmt::Formatter<'_>, s: &SerialSettings) -> fmt::Result {
    let default = SerialSettings::default();
    write!(f, ",baud={}", s.baud)?;
    if s.data != default.data {
        let bits = match s.data {
            DataBits::Five => "5",
            DataBits::Six => "6",
            DataBits::Seven => "7",
            DataBits::Eight => "8",
        };
        write!(f, ",data={bits}")?;
    }
    if s.parity != default.parity {
        let parity = match s.parity {
            Parity::None => "none",
            Parity::Odd => "odd",
            Parity::Even => "even",
        };
        write!(f, ",parity={parity}")?;
    }
    if s.stop != default.stop {
        let stop = match s.stop {
            StopBits::One => "1",
            StopBits::Two => "2",
        };
        write!(f, ",stop={stop}")?;
    }
    if s.flow != default.flow {
        let flow = match s.flow {
            FlowControl::None => "none",
            FlowControl::Hardware => "hw",
            FlowControl::Software => "sw",
        };
        write!(f, ",flow={flow}")?;
    }
    if s.exclusive != default.exclusive {
        write!(f, ",exclusive={}", if s.exclusive { "yes" } else { "no" })?;
    }
    match &s.lock {
        SerialLock::Usual => {}
        SerialLock::Yes => f.write_str(",lock=yes")?,
        SerialLock::No => f.write_str(",lock=no")?,
        SerialLock::At(path) => {
            f.write_str(",lock=")?;
            escape_path(f, path)?;
        }
    }
    for (name, line, usual) in [("dtr", s.dtr, default.dtr), ("rts", s.rts, default.rts)] {
        if line != usual {
            let word = match line {
                ModemLine::Keep => "keep",
                ModemLine::On => "on",
                ModemLine::Off => "off",
            };
            write!(f, ",{name}={word}")?;
        }
    }
    match s.rs485 {
        Rs485::Keep => {}
        Rs485::Off => f.write_str(",rs485=off")?,
        Rs485::On(mode) => write!(f, ",{mode}")?,
    }
    if let Some(mtu) = s.mtu {
        write!(f, ",mtu={mtu}")?;
    }
    if s.duplex != default.duplex {
        f.write_str(",duplex=half")?;
    }
    Ok(())
}

/// As an address writes it: `rs485=on,rts-on-send=low`.
impl fmt::Display for Rs485Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("rs485=on")?;
        if !self.rts_on_send {
            f.write_str(",rts-on-send=low")?;
        }
        for (name, ms) in [("before", self.rts_before), ("after", self.rts_after)] {
            if ms != 0 {
                write!(f, ",rts-{name}={ms}")?;
            }
        }
        if self.rx_during_tx {
            f.write_str(",rx-during-tx=yes")?;
        }
        Ok(())
    }
}

/// A word of a command line. Quoted unless every character is known to be plain, so that no comma
/// or question mark ever stands outside of quotes. What is not fit to be shown is written as an escape.
fn quote(f: &mut fmt::Formatter<'_>, word: &str) -> fmt::Result {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@=+%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return f.write_str(word);
    }
    if !word.chars().all(is_printable) {
        f.write_str("$'")?;
        for c in word.chars() {
            match c {
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                '\\' | '\'' => write!(f, "\\{c}")?,
                c if is_printable(c) => write!(f, "{c}")?,
                c => {
                    for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                        write!(f, "\\x{byte:02x}")?;
                    }
                }
            }
        }
        return f.write_str("'");
    }
    // Inside single quotes everything is literal; a single quote itself is put between two of them.
    write!(f, "'{}'", word.replace('\'', r"'\''"))
}
