//! Programs of the system that tests talk to: found, started, ended with their test. One that is not installed is said so, loudly, and
//! its test passes; with `CEPA_REQUIRE_INTEROP=1` it fails.

use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::PATIENCE;

/// A program of the system, if it is there.
pub(crate) fn have(program: &str) -> Option<String> {
    let found = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"]
        .map(|folder| format!("{folder}/{program}"));
    let found = found.into_iter().find(|path| Path::new(path).is_file());
    if found.is_none() {
        skipped(&format!("{program} can not be found"));
    }
    found
}

/// Says that a test is left out; fails where that is forbidden.
pub(crate) fn skipped(why: &str) {
    let name = thread::current().name().unwrap_or("test").to_owned();
    assert!(
        std::env::var("CEPA_REQUIRE_INTEROP").as_deref() != Ok("1"),
        "{name} would be skipped, and CEPA_REQUIRE_INTEROP=1 forbids it: {why}"
    );
    // Not eprintln: the test runner swallows that of a test that passes.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {name}: {why}");
}

/// Ports that were free a moment ago; each other than the others.
pub(crate) fn ports<const N: usize>() -> [u16; N] {
    let all = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    all.map(|it| it.local_addr().unwrap().port())
}

/// One that runs in the foreground and is ended with its test.
pub(crate) struct Running(Child);

impl Running {
    /// Waits until it answers at the port.
    pub(crate) fn start(command: &mut Command, log: &Path, port: u16) -> Self {
        let out = fs::File::create(log).unwrap();
        let err = out.try_clone().unwrap();
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err);
        let mut running = Self(child.spawn().unwrap());
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let said = || fs::read_to_string(log).unwrap_or_default();
            let ended = running.0.try_wait().unwrap();
            assert!(ended.is_none(), "it ended: {}", said());
            assert!(start.elapsed() < PATIENCE, "it does not answer: {}", said());
            thread::sleep(Duration::from_millis(10));
        }
        running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // In order, so that it ends the processes that it has started.
        super::signal(&self.0.id().to_string(), "TERM");
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(10) {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
