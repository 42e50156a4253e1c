//! Opening an address: picks the transport.
use crate::endpoint::{Endpoint, Target};
use crate::error::{Action, TransportError, in_runtime};
use crate::stream::Stream;
use crate::terminal::Terminal;
use crate::{exec, fd, memory, pty, quic, rfc2217, serial, ssh, stdio, tcp, unix, ws};

/// Opens what the address names; its layers are not built here.
///
/// Must be called inside a tokio runtime with IO and time enabled; outside of any it is an error. Cancel safe: dropped early, it
/// leaves nothing open (a command is killed).
///
/// `stdio:` can be opened once in a process, as can each descriptor of `fd:`.
///
/// # Errors
/// One line: what was dialled, why it failed, what to do.
pub async fn dial(endpoint: &Endpoint) -> Result<Stream, TransportError> {
    dial_for(endpoint, &Terminal::default()).await
}

/// As [`dial`], for somebody at a terminal: a command that gets a pty (`exec:…,pty=yes`) is told what
/// that terminal is and how large. Other addresses have no use for it.
///
/// # Errors
/// As for [`dial`].
pub async fn dial_for(endpoint: &Endpoint, terminal: &Terminal) -> Result<Stream, TransportError> {
    open(endpoint, terminal, false).await
}

/// As [`dial_for`], for a peer: a command leads a process group of its own. It is killed whole, and before its pipes close, so that a cut
/// never looks to it like the end of its input. Other addresses are opened as by [`dial`].
///
/// # Errors
/// As for [`dial`].
pub async fn dial_for_peer(
    endpoint: &Endpoint,
    terminal: &Terminal,
) -> Result<Stream, TransportError> {
    open(endpoint, terminal, true).await
}

async fn open(
    endpoint: &Endpoint,
    terminal: &Terminal,
    for_peer: bool,
) -> Result<Stream, TransportError> {
    in_runtime(Action::Dial, endpoint)?;
    match endpoint.target() {
        Target::Tcp {
            host,
            port,
            settings,
        } => tcp::dial(endpoint, host, *port, settings).await,
        Target::Ws {
            host,
            port,
            path,
            settings,
        } => Box::pin(ws::dial(endpoint, host, *port, path, settings)).await,
        Target::Quic {
            host,
            port,
            settings,
        } => Box::pin(quic::dial(endpoint, host, *port, settings)).await,
        Target::Unix { path, settings } => unix::dial(endpoint, path, settings).await,
        Target::Stdio => stdio::open(Action::Dial, endpoint),
        Target::Fd { read, write } => fd::open(endpoint, *read, *write),
        Target::Exec { argv, dir, pty } => {
            let command = exec::Command {
                argv,
                dir: dir.as_deref(),
                terminal: pty.then_some(terminal),
                for_peer,
            };
            exec::start(Action::Dial, endpoint, &command)
        }
        Target::Ssh { .. } => ssh::dial(endpoint, for_peer),
        Target::Serial { path, settings } => serial::dial(endpoint, path, settings),
        Target::Rfc2217 {
            host,
            port,
            settings,
        } => Box::pin(rfc2217::dial(endpoint, host, *port, settings)).await,
        Target::Pty { path } => pty::dial(endpoint, path),
        Target::Memory { name } => memory::dial(endpoint, name).await,
    }
}
