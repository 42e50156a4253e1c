//! Processes of the tool. The tests of the tool (`cli/tests/load.rs`) use this file too.

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

pub(crate) type Failure = Box<dyn Error + Send + Sync>;
pub(crate) type Outcome<T> = Result<T, Failure>;

/// How long a process may take to say that it listens.
const START: Duration = Duration::from_secs(60);

/// One running command of the tool.
pub(crate) struct Process {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Process {
    pub(crate) fn start(mut command: Command) -> Outcome<Self> {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = child.stderr.take().ok_or("no standard error")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            child,
            lines,
            seen: Vec::new(),
        })
    }

    /// The address in its next line `listening on ADDRESS …`.
    pub(crate) fn listens(&mut self) -> Outcome<String> {
        loop {
            let line = self
                .lines
                .recv_timeout(START)
                .map_err(|_| format!("it does not listen; it said: {:?}", self.seen))?;
            let address = line.strip_prefix("listening on ").and_then(|rest| {
                let address = rest.split(' ').next()?;
                Some(address.to_owned())
            });
            self.seen.push(line);
            if let Some(address) = address {
                return Ok(address);
            }
        }
    }

    /// What it has said so far.
    pub(crate) fn said(&mut self) -> &[String] {
        self.seen.extend(self.lines.try_iter());
        &self.seen
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The tool with these words, and what it keeps in a folder of its own.
pub(crate) fn command(cepa: &Path, home: &Path, words: &[String]) -> Command {
    let mut command = Command::new(cepa);
    configured(&mut command, home, words);
    command
}

pub(crate) fn configured(command: &mut Command, home: &Path, words: &[String]) {
    command
        .args(words)
        .env("CEPA_CONFIG_DIR", home)
        .stdin(Stdio::null());
}

/// An identity of the tool: its file and its id.
pub(crate) fn identity(cepa: &Path, home: &Path, name: &str) -> Outcome<(String, String)> {
    let file = home.join(name).display().to_string();
    let words = ["id", "new", "--identity", &file].map(str::to_owned);
    let made = command(cepa, home, &words).output()?;
    if !made.status.success() {
        return Err(String::from_utf8_lossy(&made.stderr).into_owned().into());
    }
    Ok((file, String::from_utf8(made.stdout)?.trim().to_owned()))
}
