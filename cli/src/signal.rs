//! SIGINT, SIGTERM, SIGQUIT and SIGHUP: all ask for an orderly end, in which commands are killed before their pipes close; SIGHUP,
//! where somebody watches for it, to read the configuration again. Where it is ignored, as under nohup, it stays so.

use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
#[cfg(unix)]
use std::{future::poll_fn, task::Poll};

#[cfg(unix)]
use cepa::transports::hang_up_is_ignored;
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
    ends: Vec<(u8, Signal)>,
    reload: Option<Signal>,
    /// There is a terminal whose end is a SIGHUP, too.
    at_terminal: bool,
}

/// Whether this process has a terminal that is there.
#[cfg(unix)]
fn has_terminal() -> bool {
    std::fs::File::open("/dev/tty").is_ok()
}

#[cfg(unix)]
fn watched(kind: SignalKind) -> Option<(u8, Signal)> {
    let number = u8::try_from(kind.as_raw_value()).ok()?;
    Some((number, signal(kind).ok()?))
}

#[cfg(unix)]
impl Signals {
    pub(crate) fn watch() -> Self {
        let mut signals = Self::with(None);
        if !hang_up_is_ignored() {
            signals.ends.extend(watched(SignalKind::hangup()));
        }
        signals
    }

    /// As [`watch`](Self::watch), for who reads its configuration again at SIGHUP; unless that says that its terminal is gone.
    pub(crate) fn watch_with_reload() -> Self {
        // Under nohup a terminal may go.
        let at_terminal = !hang_up_is_ignored() && has_terminal();
        Self {
            at_terminal,
            ..Self::with(signal(SignalKind::hangup()).ok())
        }
    }

    fn with(reload: Option<Signal>) -> Self {
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::quit(),
        ];
        Self {
            ends: kinds.into_iter().filter_map(watched).collect(),
            reload,
            at_terminal: false,
        }
    }

    /// Waits for the next SIGHUP and an end alike. Cancel safe.
    pub(crate) async fn next(&mut self) -> Asked {
        let Self {
            ends,
            reload,
            at_terminal,
        } = self;
        tokio::select! {
            _ = one_of(ends) => Asked::ToEnd,
            () = one(reload.as_mut()) => if *at_terminal && !has_terminal() {
                Asked::ToEnd
            } else {
                Asked::ToReload
            },
        }
    }

    /// Waits until one has come. Cancel safe.
    pub(crate) async fn asked_to_end(&mut self) {
        self.ended_by().await;
    }

    /// The same; gives its number.
    pub(crate) async fn ended_by(&mut self) -> u8 {
        one_of(&mut self.ends).await
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

/// Whether somebody has asked this process to end, and was heard.
pub(crate) fn has_come() -> bool {
    CAME.load(Ordering::Relaxed)
}

static CAME: AtomicBool = AtomicBool::new(false);

#[cfg(unix)]
async fn one_of(signals: &mut [(u8, Signal)]) -> u8 {
    poll_fn(|cx| {
        for (number, signal) in &mut *signals {
            if let Poll::Ready(Some(())) = signal.poll_recv(cx) {
                CAME.store(true, Ordering::Relaxed);
                return Poll::Ready(*number);
            }
        }
        Poll::Pending
    })
    .await
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

    pub(crate) async fn ended_by(&mut self) -> u8 {
        self.asked_to_end().await;
        CAME.store(true, Ordering::Relaxed);
        2
    }
}
