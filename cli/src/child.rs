//! Subprocesses under `exec:` streams: what they say on standard error, and how they end.
//!
//! Each line a child writes there is shown behind its name. Where none is shown, the last one is kept: when the command
//! ends early (`ssh: connect to host …`), it is the best explanation there is.

use std::fmt;
use std::process::ExitStatus;
use std::time::Duration;

use cepa::identity::PeerId;
use cepa::transports::{Child, Killer};
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::columns::count;
use crate::exit::say;
use crate::log::say_of;
use crate::say::Line;
use crate::stderr;

/// Takes lines of standard error. The next one waits for what it gives.
pub(crate) type Lines = Box<dyn Fn(&str) -> Option<BoxFuture<'static, ()>> + Send + Sync>;

/// A child whose standard error is being read. Dropping this kills it.
#[derive(Debug)]
pub(crate) struct Watched {
    end: watch::Receiver<Option<End>>,
    killer: Killer,
    /// With all that it has started.
    whole: bool,
    task: JoinHandle<()>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        // Now, and not when the runtime gets to the task: the pipes may close with the next statement.
        if self.whole {
            self.killer.kill_all();
        } else {
            self.killer.kill();
        }
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
    /// That stands on standard error already.
    shown: bool,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the command {}", self.status)?;
        if let Some(line) = self.last_line.as_ref().filter(|_| !self.shown) {
            write!(f, "; its last line was: {line}")?;
        }
        Ok(())
    }
}

impl End {
    /// The last that it said, whether it was shown or not.
    pub(crate) fn last_line(&self) -> &str {
        self.last_line.as_deref().unwrap_or_default()
    }
}

impl Watched {
    /// Shows the child's lines as `[name] …` until it ends.
    pub(crate) fn start(child: Child, name: String) -> Self {
        let show = move |line: &str| {
            say(of_child(&name, line));
            Some(stderr::room())
        };
        Self::follow(child, true, Box::new(show))
    }

    /// The same for a command that runs for a peer: it may make it say as much as it likes, and is not
    /// shown more often than other lines about that peer. Each line goes to `lines` as well.
    pub(crate) fn serving(child: Child, name: String, peer: PeerId, lines: Lines) -> Self {
        let show = move |line: &str| {
            say_of(peer, of_child(&name, line));
            lines(line)
        };
        Self::follow(child, true, Box::new(show))
    }

    /// Keeps the last line and shows none.
    pub(crate) fn quiet(child: Child) -> Self {
        Self::follow(child, false, Box::new(|_| None))
    }

    /// `shown`: the lines stand on standard error already.
    fn follow(child: Child, shown: bool, show: Lines) -> Self {
        let (sender, end) = watch::channel(None);
        let killer = child.killer();
        let task = tokio::spawn(async move {
            let mut end = follow(child, show).await;
            end.shown = shown;
            let _ = sender.send(Some(end));
        });
        Self {
            end,
            killer,
            whole: false,
            task,
        }
    }

    /// Dropping this kills what it has started too: that must not take a cut for an end.
    pub(crate) fn whole(mut self) -> Self {
        self.whole = true;
        self
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
                    status: "ended with an unknown status".to_owned(),
                    exit: None,
                    failed: true,
                    last_line: None,
                    shown: false,
                })
        }
    }
}

fn of_child(name: &str, line: &str) -> Line {
    Line::from(format_args!("[{name}] {line}")).with("command", name)
}

/// What the command did at its end, as a verb: "exited with status 4".
fn in_words(status: ExitStatus) -> String {
    let text = status.to_string();
    if let Some(code) = text.strip_prefix("exit status: ") {
        format!("exited with status {code}")
    } else if let Some(signal) = text.strip_prefix("signal: ") {
        format!("was killed by signal {signal}")
    } else {
        format!("ended with {text}")
    }
}

async fn follow(mut child: Child, show: Lines) -> End {
    let stderr = child.stderr();
    let reading = async {
        let (mut last, mut lost) = (None, 0);
        while let Some(line) = stderr.next_line().await {
            let dropped = stderr.lost() - lost;
            if dropped > 0 {
                lost += dropped;
                show(&format!("({} dropped)", count(dropped, "line")));
            }
            if let Some(room) = show(&line) {
                room.await;
            }
            if !line.trim().is_empty() {
                last = Some(line);
            }
        }
        last
    };
    let (status, last_line) = tokio::join!(child.wait(), reading);
    match status {
        Ok(status) => End {
            status: in_words(status),
            exit: Some(status),
            failed: !status.success(),
            last_line,
            shown: false,
        },
        Err(e) => End {
            status: format!("ended with an unknown status ({e})"),
            exit: None,
            failed: true,
            last_line,
            shown: false,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn an_end_is_reported_as_a_sentence() {
        // As wait(2) has them: the status in the second byte, the signal in the first.
        for (raw, words) in [
            (4 << 8, "exited with status 4"),
            (9, "was killed by signal 9 (SIGKILL)"),
        ] {
            assert_eq!(in_words(ExitStatus::from_raw(raw)), words);
        }
    }
}
