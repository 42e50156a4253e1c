//! Other processes of a test: this program, run again for one "test" that does what it is told by its environment.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use cepa::identity::{Identity, PeerId};

use crate::{kills, namespaces};

/// What a process is to be; words.
const ROLE: &str = "CEPA_TEST_ROLE";

/// Begins a line that is meant for whoever started the process.
const SAYS: &str = "says: ";

/// A process waits for a test as long as the slowest machine takes.
const PATIENCE: Duration = Duration::from_secs(180);

/// The other process. Without a role it is a test that has nothing to do.
#[test]
#[ignore = "run by other tests, as a process of their own"]
fn child() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    // It does not outlive who started it.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(3);
    });
    let words: Vec<&str> = role.split(' ').collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match words[..] {
        ["server", key, peer, at] => runtime.block_on(kills::server(&load(key), id(peer), at)),
        ["client", key, peer, at] => runtime.block_on(kills::client(&load(key), id(peer), at)),
        ["node-server", key, ref at @ ..] => runtime.block_on(namespaces::server(&load(key), at)),
        ["node-client", key, address] => runtime.block_on(namespaces::client(&load(key), address)),
        ["node-idle", key, address] => runtime.block_on(namespaces::idle(&load(key), address)),
        _ => panic!("no such role: {role}"),
    }
}

fn load(key: &str) -> Identity {
    Identity::load(key).unwrap()
}

fn id(text: &str) -> PeerId {
    text.parse().unwrap()
}

/// Tells whoever started this process.
pub(crate) fn say(words: &str) {
    eprintln!("{SAYS}{words}");
}

/// A key in a file.
pub(crate) fn saved(folder: &Path, name: &str) -> (PathBuf, Identity) {
    let (path, identity) = (folder.join(name), crate::support::identity());
    identity.save(&path).unwrap();
    (path, identity)
}

/// A process; killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    says: Receiver<String>,
}

impl Process {
    pub(crate) fn start(role: &[&str]) -> Self {
        Self::start_by(&[] as &[&str], role)
    }

    /// By a command that runs what follows it.
    pub(crate) fn start_by(before: &[impl AsRef<OsStr>], role: &[&str]) -> Self {
        let this = std::env::current_exe().unwrap();
        let mut words: Vec<&OsStr> = before.iter().map(AsRef::as_ref).collect();
        words.push(this.as_os_str());
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .args(["children::child", "--exact", "--ignored", "--nocapture"])
            .env(ROLE, role.join(" "))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, says) = channel();
        let from = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in from.lines().map_while(Result::ok) {
                eprintln!("child: {line}");
                if let Some(words) = line.strip_prefix(SAYS) {
                    let _ = sender.send(words.to_owned());
                }
            }
        });
        Self { child, says }
    }

    /// What it says next that begins with these words; the rest of that.
    pub(crate) fn hears(&self, beginning: &str) -> String {
        loop {
            let line = self.says.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("the process did not say {beginning:?}"));
            if let Some(rest) = line.strip_prefix(beginning) {
                return rest.trim().to_owned();
            }
        }
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, signal).unwrap();
    }

    /// As kill -9 does.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
