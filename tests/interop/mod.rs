//! What the interop tests share: finding tools and example programs, certificates made by openssl,
//! and child processes that can not outlive or outwait their test.
//!
//! Without the tools of a test it says so on the real standard error and passes, since `cargo test`
//! has to work where only Rust is; with `CEPA_REQUIRE_INTEROP=1`, as in `.ci/run`, it fails.
#![allow(dead_code, reason = "each test uses its part")]

use std::fs;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A guard against hanging, far above what any of these takes; the peers are told a little less.
const LIMIT: Duration = Duration::from_secs(240);
pub(crate) const PEER_LIMIT: &str = "200";

/// Whether all of `tools` can be run; says loudly what is missing.
pub(crate) fn have(tools: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let missing: Vec<&str> = tools
        .iter()
        .copied()
        .filter(|tool| !std::env::split_paths(&path).any(|folder| folder.join(tool).is_file()))
        .collect();
    missing.is_empty() || skip(&format!("{} can not be found", missing.join(" and ")))
}

/// Says that the running test is skipped and why; always `false`.
pub(crate) fn skip(reason: &str) -> bool {
    let name = thread::current().name().unwrap_or("test").to_owned();
    assert!(
        std::env::var("CEPA_REQUIRE_INTEROP").as_deref() != Ok("1"),
        "{name} would be skipped, and CEPA_REQUIRE_INTEROP=1 forbids it: {reason}"
    );
    // Not eprintln: the test runner swallows that of a test that passes.
    let _ = writeln!(io::stderr(), "SKIPPED: {name}: {reason}");
    false
}

/// An example program of this build: it lies beside the folder of the test programs.
pub(crate) fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let profile = test.ancestors().nth(2).expect("target/PROFILE/deps/test");
    let path = profile.join("examples").join(name);
    assert!(
        path.is_file(),
        "{} is missing: run `cargo build --examples` first",
        path.display()
    );
    path
}

/// A file of `tests/interop`.
pub(crate) fn ours(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/interop")
        .join(name)
}

/// A folder for this test program's files, under the build's own.
pub(crate) fn scratch() -> &'static Path {
    static SCRATCH: OnceLock<PathBuf> = OnceLock::new();
    SCRATCH.get_or_init(|| {
        let all = Path::new(env!("CARGO_TARGET_TMPDIR"));
        // A static is never dropped, so each run clears away those whose process is gone.
        for entry in fs::read_dir(all).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(process) = name.strip_prefix("interop-")
                && !Path::new("/proc").join(process).exists()
            {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let folder = all.join(format!("interop-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a temporary folder");
        folder
    })
}

/// `{driver,responder}-{A,B,C,O}.{crt,key}.pem`, self-signed, as both test protocols want them.
pub(crate) fn certificates() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| make_certificates("certs"))
}

/// The same names with other keys: what a stranger would show.
pub(crate) fn foreign_certificates() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| make_certificates("foreign"))
}

const KEYS: [(&str, &[&str]); 4] = [
    ("A", &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]),
    ("B", &["rsa:2048"]),
    ("C", &["ed25519"]),
    ("O", &["ec", "-pkeyopt", "ec_paramgen_curve:P-384"]),
];

fn make_certificates(folder: &str) -> PathBuf {
    let folder = scratch().join(folder);
    fs::create_dir(&folder).expect("a new folder");
    for side in ["driver", "responder"] {
        for (profile, key) in KEYS {
            let name = format!("{side}-{profile}");
            let made = Command::new("openssl")
                .args(["req", "-x509", "-nodes", "-days", "2", "-newkey"])
                .args(key)
                .args(["-subj", &format!("/CN={name}")])
                .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
                .args(["-addext", "basicConstraints=critical,CA:FALSE"])
                .arg("-keyout")
                .arg(folder.join(format!("{name}.key.pem")))
                .arg("-out")
                .arg(folder.join(format!("{name}.crt.pem")))
                .output()
                .expect("openssl runs");
            let reported = String::from_utf8_lossy(&made.stderr);
            assert!(
                made.status.success(),
                "openssl made no certificate: {reported}"
            );
        }
    }
    folder
}

/// How a process ended, and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) success: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// The peers' and the examples' verdict, whichever stream it went to.
    pub(crate) fn verdict(&self) -> Option<&str> {
        let mut lines = self.stdout.lines().chain(self.stderr.lines());
        lines.rfind(|line| line.starts_with("PASS") || line.starts_with("FAIL"))
    }

    pub(crate) fn passed(&self) -> bool {
        self.success
            && self
                .verdict()
                .is_some_and(|verdict| verdict.starts_with("PASS"))
    }
}

/// A child of this test: its output is collected as it comes, and it ends with the test.
pub(crate) struct Running {
    name: String,
    child: Child,
    stdout: Listener,
    stderr: Listener,
}

/// A thread that collects what comes out of a pipe.
struct Listener {
    heard: Arc<Mutex<Vec<u8>>>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    fn new(mut pipe: impl Read + Send + 'static) -> Self {
        let heard: Arc<Mutex<Vec<u8>>> = Arc::default();
        let into = Arc::clone(&heard);
        let thread = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                into.lock()
                    .expect("no panic inside")
                    .extend_from_slice(&buffer[..count]);
            }
        });
        Self {
            heard,
            thread: Some(thread),
        }
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock().expect("no panic inside")).into_owned()
    }

    fn whole(&mut self) -> String {
        if let Some(thread) = self.thread.take() {
            thread.join().expect("no panic inside");
        }
        self.so_far()
    }
}

/// Starts a program; standard input stays open until `close_input`.
pub(crate) fn start(command: &mut Command) -> Running {
    let name = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{name} can not be started: {error}"));
    let stdout = Listener::new(child.stdout.take().expect("a pipe"));
    let stderr = Listener::new(child.stderr.take().expect("a pipe"));
    Running {
        name,
        child,
        stdout,
        stderr,
    }
}

impl Running {
    pub(crate) fn say(&mut self, text: &str) {
        let input = self.child.stdin.as_mut().expect("standard input is open");
        // A child that is gone shows in its verdict, not here.
        let _ = input
            .write_all(text.as_bytes())
            .and_then(|()| input.flush());
    }

    pub(crate) fn close_input(&mut self) {
        self.child.stdin = None;
    }

    /// Waits until `text` has come on standard output or standard error.
    pub(crate) fn hear(&mut self, text: &str) {
        let name = self.name.clone();
        wait_for(&format!("{name} to say {text:?}"), || {
            let ended = matches!(self.child.try_wait(), Ok(Some(_)));
            let (stdout, stderr) = if ended {
                (self.stdout.whole(), self.stderr.whole())
            } else {
                (self.stdout.so_far(), self.stderr.so_far())
            };
            let found = stdout.contains(text) || stderr.contains(text);
            assert!(
                found || !ended,
                "{name} ended and never said {text:?}: {stdout}{stderr}"
            );
            found.then_some(())
        });
    }

    /// What has come on standard output so far.
    pub(crate) fn said(&self) -> String {
        self.stdout.so_far()
    }

    /// Waits for its end.
    pub(crate) fn ended(mut self) -> Ended {
        let name = self.name.clone();
        let status = wait_for(&format!("the end of {name}"), || {
            self.child.try_wait().expect("a child")
        });
        Ended {
            success: status.success(),
            stdout: self.stdout.whole(),
            stderr: self.stderr.whole(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Looks again and again until there is something, or fails when nothing comes for minutes.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            started.elapsed() < LIMIT,
            "waited {LIMIT:?} in vain for {what}"
        );
        thread::sleep(Duration::from_millis(10));
    }
}

/// A file name for `--portfile`, and the text in it once the peer has written it.
pub(crate) struct PortFile(PathBuf);

impl PortFile {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir_in(scratch())
            .expect("a temporary folder")
            .keep();
        Self(folder.join("port"))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn text(&self, writer: &mut Running) -> String {
        let name = writer.name.clone();
        wait_for(&format!("the port file of {name}"), || {
            let text = fs::read_to_string(&self.0)
                .ok()
                .map(|text| text.trim().to_owned());
            let text = text.filter(|text| !text.is_empty());
            let ended = matches!(writer.child.try_wait(), Ok(Some(_)));
            assert!(text.is_some() || !ended, "{name} ended before it listened");
            text
        })
    }
}

/// Both have to end with PASS; says what each said when one did not.
pub(crate) fn both_pass(one: Running, other: Running) {
    let (one, other) = (one.ended(), other.ended());
    assert!(
        one.passed() && other.passed(),
        "one: {one:#?}\nother: {other:#?}"
    );
}
