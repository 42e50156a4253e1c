//! The typed form of an address. Nothing here knows its text; see `parse` and `print`.
use std::path::PathBuf;

use super::connection::{QuicSettings, SshSettings, TcpSettings, WsSettings};
use crate::rate::Rate;

/// A parsed address: layers, and what carries the bytes below them.
///
/// Made by parsing ([`str::parse`]) or, from parts, by [`Endpoint::new`]; both refuse what could
/// not be printed and parsed again, so that every value of this type round trips.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub(super) layers: Vec<Layer>,
    pub(super) target: Target,
}

impl Endpoint {
    /// The layers as written, top of the stack first; empty when none was written.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The same target under other layers.
    #[must_use]
    pub fn with_layers(mut self, layers: &[Layer]) -> Self {
        self.layers = layers.to_vec();
        self
    }

    /// What is dialled or listened on.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The scheme's word, as in `tcp`, for messages.
    pub fn scheme(&self) -> &'static str {
        self.target.scheme()
    }

    /// The host and the port of a network connection; see [`Target::place`].
    pub fn place(&self) -> Option<(&str, u16)> {
        self.target.place()
    }

    /// See [`Target::accepts_many`].
    pub fn accepts_many(&self) -> bool {
        self.target.accepts_many()
    }

    /// See [`Target::is_line`].
    pub fn is_line(&self) -> bool {
        self.target.is_line()
    }

    /// See [`Target::is_network`].
    pub fn is_network(&self) -> bool {
        self.target.is_network()
    }

    /// See [`Target::is_socket`].
    pub fn is_socket(&self) -> bool {
        self.target.is_socket()
    }

    /// See [`Target::line_settings`].
    pub fn line_settings(&self) -> Option<&SerialSettings> {
        self.target.line_settings()
    }

    /// See [`Target::has_one_stream`].
    pub fn has_one_stream(&self) -> bool {
        self.target.has_one_stream()
    }

    /// The same address with a port filled in, for a listener that asked for any (port 0).
    pub(crate) fn with_port(mut self, real: u16) -> Self {
        if let Target::Tcp { port, .. }
        | Target::Ws { port, .. }
        | Target::Quic { port, .. }
        | Target::Rfc2217 { port, .. } = &mut self.target
        {
            *port = real;
        }
        self
    }

    /// The same layers over what an inherited descriptor turned out to be.
    pub(crate) fn with_target(mut self, target: Target) -> Self {
        self.target = target;
        self
    }
}

/// A layer that an address can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Layer {
    /// Substreams over one pipe, yamux on the wire.
    Mux,
    /// Mutual TLS; keys are shown as suits the transport.
    Tls,
    /// Mutual TLS with raw public keys (RFC 7250).
    TlsRaw,
    /// Mutual TLS with X.509 certificates.
    TlsX509,
    /// A reliable stream over a line that loses or damages bytes.
    Link(LinkSettings),
}

impl Layer {
    /// Every layer there is, for messages and completions.
    pub const ALL: &'static [Self] = &[
        Self::Mux,
        Self::Tls,
        Self::TlsRaw,
        Self::TlsX509,
        Self::LINK,
    ];

    /// A link over a line of which nothing special is known.
    pub const LINK: Self = Self::Link(LinkSettings::DEFAULT);

    /// The word that stands for it in an address; a link's settings follow it there.
    pub fn word(self) -> &'static str {
        match self {
            Self::Mux => "mux",
            Self::Tls => "tls",
            Self::TlsRaw => "tls?key=raw",
            Self::TlsX509 => "tls?key=x509",
            Self::Link(_) => "link",
        }
    }

    /// Whether it is a link, whatever it is told of the line.
    pub fn is_link(self) -> bool {
        matches!(self, Self::Link(_))
    }

    /// Whether it is TLS, however keys are shown in it.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::TlsRaw | Self::TlsX509)
    }
}

/// What a link is told of the line below it. Of what its two ends were told, the stricter counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LinkSettings {
    /// Bytes that the line keeps for itself. Default [`Escapes::Least`]: most lines keep none.
    pub escape: Escapes,
    /// Most bytes on the line of one frame, everything included, [`MTU`]; for radio modems, which lose whole packets.
    /// Default none.
    pub mtu: Option<u16>,
    /// Whether both ends may talk at once. Default [`Duplex::Full`].
    pub duplex: Duplex,
}

impl LinkSettings {
    /// Nothing special.
    pub const DEFAULT: Self = Self {
        escape: Escapes::Least,
        mtu: None,
        duplex: Duplex::Full,
    };
}

/// The values of `mtu=`, bytes. A link's longest greeting has 60, and its longest frame less than the upper end.
pub const MTU: std::ops::RangeInclusive<u16> = 64..=4096;

/// Bytes that a line keeps for itself, so that a link sends others in their place. Each set holds the one before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Escapes {
    /// None.
    #[default]
    Least,
    /// XON and XOFF (0x11, 0x13).
    XonXoff,
    /// All control characters (0x00 to 0x1f and 0x7f).
    Control,
}

/// Which ways a line carries bytes at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Duplex {
    /// Both.
    #[default]
    Full,
    /// One, as on the two wires of RS-485 and on most radios: the ends of a link take turns.
    Half,
}

/// What carries the bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Target {
    /// A TCP connection.
    Tcp {
        /// A name or an address; IPv6 without its brackets.
        host: String,
        /// 0 lets a listener take any free port.
        port: u16,
        /// Its settings.
        settings: TcpSettings,
    },
    /// A WebSocket (RFC 6455), under TLS where its settings have it.
    Ws {
        /// A name or an address; IPv6 without its brackets.
        host: String,
        /// 0 lets a listener take any free port.
        port: u16,
        /// What is asked for there, with its query; as HTTP sends it.
        path: String,
        /// Its settings.
        settings: Box<WsSettings>,
    },
    /// One stream of a QUIC connection (RFC 9000).
    Quic {
        /// A name or an address; IPv6 without its brackets.
        host: String,
        /// A UDP port; 0 lets a listener take any free one.
        port: u16,
        /// Its settings.
        settings: Box<QuicSettings>,
    },
    /// A Unix stream socket.
    Unix {
        /// Where the socket is bound.
        path: PathBuf,
        /// Its settings.
        settings: UnixSettings,
    },
    /// Standard input and output of this process.
    Stdio,
    /// Descriptors that this process inherited.
    Fd {
        /// The descriptor read from.
        read: u32,
        /// The descriptor written to; may be the same.
        write: u32,
    },
    /// A command's standard input and output.
    Exec {
        /// The program and its arguments; never empty.
        argv: Vec<String>,
        /// The directory it is started in; this process's own when absent.
        dir: Option<PathBuf>,
        /// It gets a terminal of its own (a pty) instead of pipes.
        pty: bool,
    },
    /// The stdio of the user's own `ssh`, which has `cepa serve stdio:` run at the far end.
    Ssh {
        /// The user there; as `ssh_config` says where absent.
        user: Option<String>,
        /// A name as `ssh` takes it, or an address; IPv6 without its brackets.
        host: String,
        /// As `ssh_config` says where absent.
        port: Option<u16>,
        /// What is served there.
        settings: Box<SshSettings>,
    },
    /// A serial line.
    Serial {
        /// The device.
        path: PathBuf,
        /// Its settings.
        settings: SerialSettings,
    },
    /// A serial line behind a serial server (RFC 2217).
    Rfc2217 {
        /// A name or an address; IPv6 without its brackets.
        host: String,
        /// The server's port for this line.
        port: u16,
        /// Those of the connection and of the line.
        settings: Box<Rfc2217Settings>,
    },
    /// A new pseudo terminal, whose other end is found at `path`.
    Pty {
        /// The symbolic link that is made to it.
        path: PathBuf,
    },
    /// A listener inside this process.
    Memory {
        /// Its name, process-wide.
        name: String,
    },
}

impl Target {
    /// Whether a listener there gives a stream for each who connects, as many at a time as come.
    pub fn accepts_many(&self) -> bool {
        match self {
            Self::Tcp { .. }
            | Self::Ws { .. }
            | Self::Quic { .. }
            | Self::Rfc2217 { .. }
            | Self::Unix { .. }
            | Self::Memory { .. } => true,
            Self::Stdio
            | Self::Fd { .. }
            | Self::Exec { .. }
            | Self::Ssh { .. }
            | Self::Serial { .. }
            | Self::Pty { .. } => false,
        }
    }

    /// Whether it is a serial line, here or behind a serial server, or a pseudo terminal, which stands for one: one stream at a
    /// time and another after it, no connections, and bytes that may be lost or damaged.
    pub fn is_line(&self) -> bool {
        matches!(
            self,
            Self::Serial { .. } | Self::Rfc2217 { .. } | Self::Pty { .. }
        )
    }

    /// How a serial line is set up, whether it is one of this machine or behind a serial server.
    pub fn line_settings(&self) -> Option<&SerialSettings> {
        match self {
            Self::Serial { settings, .. } => Some(settings),
            Self::Rfc2217 { settings, .. } => Some(&settings.line),
            _ => None,
        }
    }

    /// Whether dialling it opens a connection over a network, and nothing else: no command is started, no
    /// device opened, no socket of this machine's own services reached by its path.
    ///
    /// A WebSocket with a `Host` or headers of its own is more than that: who writes them decides what a server of this
    /// network is asked for. So is a connection by a way of this machine that the address names (`bind`, `interface`, `mark`), and a serial line behind a server, which is set up and whose device may be reset.
    pub fn is_network(&self) -> bool {
        match self {
            Self::Tcp { settings, .. } => settings.way.is_none(),
            Self::Ws { settings, .. } => {
                settings.tcp.way.is_none() && settings.host.is_none() && settings.headers.is_empty()
            }
            Self::Quic { settings, .. } => settings.way.is_none(),
            _ => false,
        }
    }

    /// The host and the port of what is a network connection, dialled or listened on.
    pub fn place(&self) -> Option<(&str, u16)> {
        match self {
            Self::Tcp { host, port, .. }
            | Self::Ws { host, port, .. }
            | Self::Quic { host, port, .. }
            | Self::Rfc2217 { host, port, .. } => Some((host, *port)),
            _ => None,
        }
    }

    /// Whether it is a socket of the operating system, at which other processes connect.
    pub fn is_socket(&self) -> bool {
        matches!(
            self,
            Self::Tcp { .. } | Self::Ws { .. } | Self::Quic { .. } | Self::Unix { .. }
        )
    }

    /// Whether there is one stream and, when it is over, never another.
    pub fn has_one_stream(&self) -> bool {
        !self.accepts_many() && !self.is_line()
    }

    /// The scheme's word, for messages; what an address can do is asked by the methods above.
    pub fn scheme(&self) -> &'static str {
        match self {
            Self::Tcp { .. } => "tcp",
            Self::Ws { settings, .. } if settings.tls.is_some() => "wss",
            Self::Ws { .. } => "ws",
            Self::Quic { .. } => "quic",
            Self::Unix { .. } => "unix",
            Self::Stdio => "stdio",
            Self::Fd { .. } => "fd",
            Self::Exec { .. } => "exec",
            Self::Ssh { .. } => "ssh",
            Self::Serial { .. } => "serial",
            Self::Rfc2217 { .. } => "rfc2217",
            Self::Pty { .. } => "pty",
            Self::Memory { .. } => "memory",
        }
    }
}

/// What a Unix socket carries, and who may connect where it is listened on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct UnixSettings {
    /// The socket's permissions. Default 0600, its owner alone; 0660 where a group is named.
    pub mode: Option<u16>,
    /// The socket's group, a name or a number. Default that of the process.
    pub group: Option<String>,
    /// Bytes go in frames, so that a cut is told from an end ([`Stream::framed`](crate::Stream::framed)). Default no.
    pub framed: bool,
}

/// Whether a serial line has a lock file, as UUCP, minicom and picocom make and mind them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum SerialLock {
    /// One is minded and made in [`SerialLock::FOLDER`]; where none can be made there, that is a remark. None for a pty, a shared line, and
    /// where there is no such folder.
    #[default]
    Usual,
    /// The same, and where it can't be made the line is not opened.
    Yes,
    /// None.
    No,
    /// This file, or one in this folder. Boxed: few lines have it, and addresses stand in errors.
    At(Box<PathBuf>),
}

impl SerialLock {
    /// Where lock files are (FHS 3.0, section 5.9).
    pub const FOLDER: &'static str = "/var/lock";
}

/// How a serial line is set up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SerialSettings {
    /// Bits a second on the line, 50 to 20,000,000. Default 115,200: what most boards and adapters speak.
    pub baud: u32,
    /// Data bits a character. Default 8; anything less cannot carry arbitrary bytes.
    pub data: DataBits,
    /// Parity bit. Default none.
    pub parity: Parity,
    /// Stop bits. Default 1.
    pub stop: StopBits,
    /// Flow control. Default none, because hardware lines are often not wired and a set `hw` then
    /// blocks for ever; `sw` cannot carry the bytes 0x11 and 0x13, which a link sends others for.
    pub flow: FlowControl,
    /// Refuse to share the device (`TIOCEXCL` and a lock). Default yes: two readers of one line
    /// steal each other's bytes.
    pub exclusive: bool,
    /// The lock file, for programs that know no other lock.
    pub lock: SerialLock,
    /// The DTR line. Default keep: on many boards an edge of it is a reset.
    pub dtr: ModemLine,
    /// The RTS line. Default keep. Hardware flow control has it for itself.
    pub rts: ModemLine,
    /// RS-485 by the system's driver, which turns the transceiver round for each transmission. Default keep:
    /// many a board's device tree has set it already.
    pub rs485: Rs485,
    /// As [`LinkSettings::mtu`], for the link above. Default none.
    pub mtu: Option<u16>,
    /// As [`LinkSettings::duplex`], for the link above. Default both ways at once.
    pub duplex: Duplex,
}

impl SerialSettings {
    /// What the line carries one way: the baud rate by the bits of a character, start bit included.
    #[must_use]
    pub fn line_rate(&self) -> Rate {
        let parity = u32::from(self.parity != Parity::None);
        let stop = if self.stop == StopBits::Two { 2 } else { 1 };
        Rate::bytes_per_second(f64::from(self.baud) / f64::from(1 + 8 + parity + stop))
    }
}

impl Default for SerialSettings {
    fn default() -> Self {
        Self {
            baud: 115_200,
            data: DataBits::Eight,
            parity: Parity::None,
            stop: StopBits::One,
            flow: FlowControl::None,
            exclusive: true,
            lock: SerialLock::Usual,
            dtr: ModemLine::Keep,
            rts: ModemLine::Keep,
            rs485: Rs485::Keep,
            mtu: None,
            duplex: Duplex::Full,
        }
    }
}

/// How a serial line behind a serial server is reached and set up (RFC 2217).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rfc2217Settings {
    /// Those of the connection with the server.
    pub tcp: TcpSettings,
    /// Those that the server is told of the line. What only a port of this machine has (`exclusive`, `lock`, `rs485`) is as by default.
    pub line: SerialSettings,
}

/// What becomes of a port's RS-485 mode when it is opened (on Linux `TIOCSRS485`, see
/// `Documentation/driver-api/serial/serial-rs485.rst` of the kernel).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rs485 {
    /// It stays as the device has it.
    Keep,
    /// Off: RS-232, or whatever the port is without it.
    Off,
    /// On.
    On(Rs485Mode),
}

/// How an RS-485 transceiver is turned round. A driver may know less than all of this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rs485Mode {
    /// RTS is high while sending, and low afterwards; or the other way round. Default high, as most
    /// transceivers have it.
    pub rts_on_send: bool,
    /// Milliseconds from the turn to the first bit, up to [`MAX_DELAY`](Self::MAX_DELAY). Default 0.
    pub rts_before: u8,
    /// Milliseconds from the last bit to the turn back, up to [`MAX_DELAY`](Self::MAX_DELAY). Default 0.
    pub rts_after: u8,
    /// The receiver stays on while sending: on four wires, where the two directions do not meet. Default
    /// no, for on two wires everything that is sent would be heard.
    pub rx_during_tx: bool,
}

impl Rs485Mode {
    /// The longest delay in milliseconds: Linux makes 100 ms of anything longer (`RS485_MAX_RTS_DELAY`).
    pub const MAX_DELAY: u8 = 100;
}

impl Default for Rs485Mode {
    fn default() -> Self {
        Self {
            rts_on_send: true,
            rts_before: 0,
            rts_after: 0,
            rx_during_tx: false,
        }
    }
}

/// Data bits a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DataBits {
    /// 5
    Five,
    /// 6
    Six,
    /// 7
    Seven,
    /// 8
    Eight,
}

/// The parity bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Parity {
    /// No parity bit.
    None,
    /// Odd.
    Odd,
    /// Even.
    Even,
}

/// Stop bits a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StopBits {
    /// 1
    One,
    /// 2
    Two,
}

/// What becomes of an outgoing modem line when a port is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ModemLine {
    /// The system raises it where it was low, and closing leaves it as it is, so that a port that is opened
    /// again shows no edge.
    Keep,
    /// Raised.
    On,
    /// Lowered. The system raises it for a moment first: that is how Linux opens a port.
    Off,
}

/// Who holds a sender back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlowControl {
    /// Nobody.
    None,
    /// RTS and CTS.
    Hardware,
    /// XON and XOFF.
    Software,
}
