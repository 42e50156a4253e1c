//! Opening an address: picks the transport.
use crate::endpoint::{Endpoint, Target};
use crate::error::{Action, TransportError};
use crate::stream::Stream;
use crate::{exec, fd, memory, pty, serial, stdio, tcp, unix};

/// Opens what the address names; its layers are not built here.
///
/// Must be called inside a tokio runtime with IO and time enabled. Cancel safe: dropped early, it
/// leaves nothing open (a command is killed).
///
/// `stdio:` can be opened once in a process, as can each descriptor of `fd:`.
///
/// # Errors
/// One line: what was dialled, why it failed, what to do.
pub async fn dial(endpoint: &Endpoint) -> Result<Stream, TransportError> {
    match endpoint.target() {
        Target::Tcp { host, port } => tcp::dial(endpoint, host, *port).await,
        Target::Unix { path } => unix::dial(endpoint, path).await,
        Target::Stdio => stdio::open(Action::Dial, endpoint),
        Target::Fd { read, write } => fd::open(Action::Dial, endpoint, *read, *write),
        Target::Exec { argv, dir } => exec::start(Action::Dial, endpoint, argv, dir.as_deref()),
        Target::Serial { path, settings } => serial::dial(endpoint, path, settings),
        Target::Pty { path } => pty::dial(endpoint, path),
        Target::Memory { name } => memory::dial(endpoint, name).await,
    }
}
