//! As process 1 (of a container, or of any pid namespace) the tool is a small init, and does its work in a child.
//!
//! The system treats process 1 differently in two ways: a signal without a handler does nothing to it, SIGTERM and SIGINT among
//! them; and every process that loses its parent becomes its child, to be reaped. So process 1 here does nothing but pass signals on
//! and reap, and ends as its child does, with all that is left in the namespace.

use std::future::pending;
use std::process::ExitCode;

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};
use tokio::signal::unix::{self, SignalKind};

use crate::exit::{Code, Failure};

/// What is passed on. The terminal sends its own to the child itself.
const PASSED: [(i32, Signal); 6] = [
    (15, Signal::TERM),
    (2, Signal::INT),
    (1, Signal::HUP),
    (3, Signal::QUIT),
    (10, Signal::USR1),
    (12, Signal::USR2),
];

/// Stands in as process 1 until the child has ended; `None` for any other process, which is to do its work.
pub(crate) fn stand_in() -> Option<ExitCode> {
    if std::process::id() != 1 {
        return None;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(run()),
        Err(e) => Err(e),
    };
    Some(match ended {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            let why = format!("cannot start as process 1: {e}");
            ExitCode::from(Failure::new(Code::Other, why).report())
        }
    })
}

async fn run() -> std::io::Result<u8> {
    // Watched before there is anything to miss.
    let mut children = unix::signal(SignalKind::child())?;
    let mut passed = Vec::new();
    for (number, signal) in PASSED {
        // Those that are free to a program have other numbers elsewhere than on Linux, where there are no such namespaces.
        passed.push((unix::signal(SignalKind::from_raw(number))?, signal));
    }
    let mut words = std::env::args_os();
    let mut command = std::process::Command::new(std::env::current_exe()?);
    if let Some(name) = words.next() {
        std::os::unix::process::CommandExt::arg0(&mut command, name);
    }
    let child = command.args(words).spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    loop {
        if let Some(status) = reap(pid) {
            return Ok(code(status));
        }
        tokio::select! {
            _ = children.recv() => {}
            signal = first(&mut passed) => {
                if let Some(pid) = pid {
                    // It may have ended just now.
                    let _ = kill_process(pid, signal);
                }
            }
        }
    }
}

/// Takes leave of all that have ended; the child's status, if it is among them.
fn reap(child: Option<Pid>) -> Option<WaitStatus> {
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if Some(pid) == child {
            return Some(status);
        }
    }
    None
}

/// As a shell has it.
fn code(status: WaitStatus) -> u8 {
    let code = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        _ => 1,
    };
    u8::try_from(code).unwrap_or(1)
}

async fn first(signals: &mut [(unix::Signal, Signal)]) -> Signal {
    let came = std::future::poll_fn(|cx| {
        for (signal, which) in &mut *signals {
            if signal.poll_recv(cx) == std::task::Poll::Ready(Some(())) {
                return std::task::Poll::Ready(Some(*which));
            }
        }
        std::task::Poll::<Option<Signal>>::Pending
    });
    match came.await {
        Some(signal) => signal,
        None => pending().await,
    }
}
