//! SIGINT and SIGTERM: both ask for an orderly end.

use std::future::pending;

/// Waits until somebody wants this process to end. Where signals cannot be watched, the default
/// action stays, which ends the process too.
#[cfg(unix)]
pub(crate) async fn asked_to_end() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return pending().await;
    };
    tokio::select! {
        Some(()) = interrupt.recv() => {}
        Some(()) = terminate.recv() => {}
        else => pending().await,
    }
}

/// As above, for systems that know Ctrl-C only.
#[cfg(not(unix))]
pub(crate) async fn asked_to_end() {
    if tokio::signal::ctrl_c().await.is_err() {
        pending().await
    }
}
