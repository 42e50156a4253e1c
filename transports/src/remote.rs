//! Where a stream leads or comes from, as a type: what rules go by. A stream's label is text for people, and
//! nothing reads it back.
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The other end of a [`Stream`](crate::Stream), as far as the transport knows it.
///
/// Every transport sets it, dialling and accepting alike. It tells where bytes come from, not who sends
/// them: only a handshake proves that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Remote {
    /// A TCP connection: the address and port of the other end.
    Tcp(SocketAddr),
    /// A QUIC connection: the address and port that the other end had when it began, which it has proven to be reached at.
    Quic(SocketAddr),
    /// A Unix socket: the path that was dialled or is listened on. Whoever dials has no path of its own.
    Unix(PathBuf),
    /// A line, serial or pseudo terminal: the device, or the link to the terminal's other end.
    Line(PathBuf),
    /// The command of an `exec:` address.
    Child,
    /// Standard input and output of this process.
    Stdio,
    /// Descriptors that this process inherited.
    Fd,
    /// Another place in this process.
    Memory,
    /// A circuit through a relay.
    Circuit {
        /// The 32 bytes of the relay's peer id. Proven: the circuit came inside a session with it.
        relay: [u8; 32],
        /// Those of the peer that the relay says is at the other end. That is its word alone, and proves nothing: of use
        /// only to tell those apart that one relay brings.
        says: [u8; 32],
    },
    /// Made of a program's own IO ([`Stream::from_io`](crate::Stream::from_io)), which did not say.
    #[default]
    Unknown,
}

impl fmt::Display for Remote {
    /// `tcp 127.0.0.1:7000`, in the way of a stream's label. A path comes as it is: clean it before it is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp {address}"),
            Self::Quic(address) => write!(f, "quic {address}"),
            Self::Unix(path) => write!(f, "unix {}", path.display()),
            Self::Line(path) => write!(f, "line {}", path.display()),
            Self::Child => f.write_str("exec"),
            Self::Stdio => f.write_str("stdio"),
            Self::Fd => f.write_str("fd"),
            Self::Memory => f.write_str("memory"),
            Self::Circuit { .. } => f.write_str("circuit"),
            Self::Unknown => f.write_str("a stream of this program"),
        }
    }
}
