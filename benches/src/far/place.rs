//! A network namespace without a name: a thread is in it, and what else wants to be there runs on that thread. It goes with its last
//! thread and socket, however the process ends, so nothing is left behind.

use std::process::Command;
use std::sync::mpsc::{Sender, channel};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Pid, gettid};

use crate::Outcome;

type Job = Box<dyn FnOnce() + Send>;

pub(super) struct Place {
    jobs: Sender<Job>,
    thread: Pid,
}

impl Place {
    pub(super) fn new() -> Outcome<Self> {
        let (jobs, to_do) = channel::<Job>();
        let (entered, enters) = channel();
        std::thread::spawn(move || {
            let thread = unshare(CloneFlags::CLONE_NEWNET).map(|()| gettid());
            if entered.send(thread).is_ok() {
                for job in &to_do {
                    job();
                }
            }
        });
        let thread = enters.recv()?;
        let thread = thread.map_err(|error| format!("no network namespace: {error}"))?;
        Ok(Self { jobs, thread })
    }

    /// Runs something there.
    pub(super) fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Outcome<T> + Send + 'static,
    ) -> Outcome<T> {
        let (done, ends) = channel();
        let job = move || {
            // Who asked waits for it.
            let _ = done.send(job());
        };
        let sent = self.jobs.send(Box::new(job));
        sent.map_err(|_| "the namespace's thread is gone")?;
        ends.recv()?
    }

    /// A command with its words, split at blanks.
    pub(super) fn command(&self, line: &str) -> Outcome<()> {
        let line = line.to_owned();
        self.run(move || {
            let mut words = line.split(' ');
            let program = words.next().unwrap_or_default();
            let output = Command::new(program).args(words).output();
            let output = output.map_err(|error| format!("no {program} ({error})"))?;
            if output.status.success() {
                return Ok(());
            }
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("{line}: {}", said.trim()).into())
        })
    }

    /// A setting below `net.ipv4`.
    pub(super) fn set(&self, name: &'static str, value: &str) -> Outcome<()> {
        let (file, value) = (format!("/proc/sys/net/ipv4/{name}"), value.to_owned());
        self.run(move || {
            let written = std::fs::write(&file, &value);
            written.map_err(|error| format!("{file} = {value}: {error}").into())
        })
    }

    /// By which a command elsewhere knows this namespace.
    pub(super) fn id(&self) -> Pid {
        self.thread
    }
}
