//! Subprocesses under `exec:` streams: what they say on standard error, and how they end.
//!
//! Each line a child writes there is shown behind its name. Where none is shown, the last one is kept: when the command
//! ends early (`ssh: connect to host …`), it is the best explanation there is.

use std::fmt;
use std::process::ExitStatus;
use std::time::Duration;

use cepa::identity::PeerId;
use cepa::transports::{Child, Killer};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::exit::say;
use crate::log::say_of;

/// Takes lines of standard error.
pub(crate) type Lines = Box<dyn Fn(&str) + Send + Sync>;

/// A child whose standard error is being read. Dropping this kills it.
#[derive(Debug)]
pub(crate) struct Watched {
    end: watch::Receiver<Option<End>>,
    killer: Killer,
    task: JoinHandle<()>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        // Now, and not when the runtime gets to the task: the pipes may close with the next statement.
        self.killer.kill();
        self.task.abort();
    }
}

/// How long a killed child may take to be gone: longer than its standard error is waited for.
const GONE: Duration = Duration::from_secs(3);

/// How a child ended.
#[derive(Clone, Debug)]
pub(crate) struct End {
    /// Exit status as the system words it, or why it is not known.
    status: String,
    /// The same for a program; None where it is not known.
    pub(crate) exit: Option<ExitStatus>,
    /// Ended by a signal or with a status other than 0.
    pub(crate) failed: bool,
    last_line: Option<String>,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the command ended with {}", self.status)?;
        if let Some(line) = &self.last_line {
            write!(f, ", having said: {line}")?;
        }
        Ok(())
    }
}

impl Watched {
    /// Shows the child's lines as `[name] …` until it ends.
    pub(crate) fn start(child: Child, name: String) -> Self {
        Self::follow(child, true, move |line| {
            say(format_args!("[{name}] {line}"));
        })
    }

    /// The same for a command that runs for a peer: it may make it say as much as it likes, and is not
    /// shown more often than other lines about that peer. Each line goes to `lines` as well.
    pub(crate) fn serving(child: Child, name: String, peer: PeerId, lines: Lines) -> Self {
        Self::follow(child, true, move |line| {
            say_of(peer, format_args!("[{name}] {line}"));
            lines(line);
        })
    }

    /// Keeps the last line and shows none.
    pub(crate) fn quiet(child: Child) -> Self {
        Self::follow(child, false, |_| ())
    }

    /// `shown`: the lines stand on standard error already, and the last one is not said again.
    fn follow(child: Child, shown: bool, show: impl Fn(&str) + Send + Sync + 'static) -> Self {
        let (tell, end) = watch::channel(None);
        let killer = child.killer();
        let task = tokio::spawn(async move {
            let mut end = follow(child, show).await;
            if shown {
                end.last_line = None;
            }
            let _ = tell.send(Some(end));
        });
        Self { end, killer, task }
    }

    /// Kills it, and what belongs to it, and waits until it is gone.
    pub(crate) async fn kill(&self) {
        self.killer.kill();
        let _ = tokio::time::timeout(GONE, self.ended()).await;
    }

    /// Waits for the child's end; its standard error has been read to the end then.
    pub(crate) async fn ended(&self) -> End {
        self.end().await
    }

    /// The same, for somebody who does not hold this.
    pub(crate) fn end(&self) -> impl Future<Output = End> + use<> {
        let mut end = self.end.clone();
        async move {
            let seen = end.wait_for(Option::is_some).await;
            seen.ok()
                .and_then(|end| end.clone())
                .unwrap_or_else(|| End {
                    status: "an unknown status".to_owned(),
                    exit: None,
                    failed: true,
                    last_line: None,
                })
        }
    }
}

async fn follow(mut child: Child, show: impl Fn(&str)) -> End {
    let stderr = child.stderr();
    let lines = async {
        let mut last = None;
        while let Some(line) = stderr.next_line().await {
            show(&line);
            if !line.trim().is_empty() {
                last = Some(line);
            }
        }
        last
    };
    let (status, last_line) = tokio::join!(child.wait(), lines);
    match status {
        Ok(status) => End {
            status: status.to_string(),
            exit: Some(status),
            failed: !status.success(),
            last_line,
        },
        Err(e) => End {
            status: format!("an unknown status ({e})"),
            exit: None,
            failed: true,
            last_line,
        },
    }
}
