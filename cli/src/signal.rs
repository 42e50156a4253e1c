//! SIGINT and SIGTERM: both ask for an orderly end; SIGHUP, where somebody watches for it, to read the configuration again.

use std::future::pending;

#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    ToEnd,
    #[cfg(unix)]
    ToReload,
}

/// Watches for somebody who wants this process to end, from the moment it is made.
///
/// Where signals cannot be watched their default action stays, which ends the process too.
#[cfg(unix)]
pub(crate) struct Signals {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
    hangup: Option<Signal>,
}

#[cfg(unix)]
impl Signals {
    pub(crate) fn watch() -> Self {
        Self {
            interrupt: signal(SignalKind::interrupt()).ok(),
            terminate: signal(SignalKind::terminate()).ok(),
            hangup: None,
        }
    }

    /// As [`watch`](Self::watch), for who reads its configuration again when the terminal hangs up; for
    /// everybody else SIGHUP is the end that it has always been.
    pub(crate) fn watch_with_reload() -> Self {
        Self {
            hangup: signal(SignalKind::hangup()).ok(),
            ..Self::watch()
        }
    }

    /// Waits for the next SIGHUP and an end alike. Cancel safe.
    pub(crate) async fn next(&mut self) -> Asked {
        tokio::select! {
            () = one(self.interrupt.as_mut()) => Asked::ToEnd,
            () = one(self.terminate.as_mut()) => Asked::ToEnd,
            () = one(self.hangup.as_mut()) => Asked::ToReload,
        }
    }

    /// Waits until one has come. Cancel safe.
    pub(crate) async fn asked_to_end(&mut self) {
        tokio::select! {
            () = one(self.interrupt.as_mut()) => {}
            () = one(self.terminate.as_mut()) => {}
        }
    }
}

#[cfg(unix)]
async fn one(signal: Option<&mut Signal>) {
    if let Some(signal) = signal
        && signal.recv().await.is_some()
    {
        return;
    }
    pending::<()>().await;
}

/// As above, for systems that know Ctrl-C only.
#[cfg(not(unix))]
pub(crate) struct Signals;

#[cfg(not(unix))]
impl Signals {
    pub(crate) fn watch() -> Self {
        Self
    }

    pub(crate) fn watch_with_reload() -> Self {
        Self
    }

    pub(crate) async fn next(&mut self) -> Asked {
        self.asked_to_end().await;
        Asked::ToEnd
    }

    pub(crate) async fn asked_to_end(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            pending::<()>().await;
        }
    }
}
