//! What the tests of the tool share: running it with a configuration folder of its own, servers that
//! are gone when the test is, and the one form that every error has.
#![allow(dead_code)] // each test file uses its part

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use cepa_transports::text::is_printable;

pub(crate) mod desk;
pub(crate) mod line;
pub(crate) mod programs;
pub(crate) mod proxy;
pub(crate) mod tcp;
pub(crate) mod waiting;

/// A guard against hanging; the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// A folder with everything one test makes, and the tool run inside it.
pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The path as text, for addresses.
    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// `cepa` with these words, its own configuration folder, and no input.
    pub(crate) fn cepa(&self, words: &[&str]) -> Command {
        let mut command = Command::new(bin());
        command
            .args(words)
            .env("CEPA_CONFIG_DIR", self.path("config"))
            .env_remove("RUST_BACKTRACE")
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs it to its end with this input.
    pub(crate) fn run_with(&self, words: &[&str], input: &[u8]) -> Output {
        let mut child = self.cepa(words).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let feeder = thread::spawn(move || {
            let _ = stdin.write_all(&input);
        });
        let output = finish(child);
        feeder.join().unwrap();
        output
    }

    pub(crate) fn run(&self, words: &[&str]) -> Output {
        finish(self.cepa(words).spawn().unwrap())
    }

    /// Runs it, and checks that it succeeds. Gives its standard output.
    #[track_caller]
    pub(crate) fn succeeds(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Runs it, and checks that it fails as every failure must: this exit code, one line on standard
    /// error that begins with `cepa: `, nothing on standard output. Gives the line.
    #[track_caller]
    pub(crate) fn fails(&self, words: &[&str], code: i32) -> String {
        let output = self.run(words);
        failed(&output, code)
    }

    /// As [`Place::fails`], with the default identity made before, so that making it is not said.
    #[track_caller]
    pub(crate) fn fails_quietly(&self, words: &[&str], code: i32) -> String {
        assert!(self.run(&["id", "show"]).status.success());
        self.fails(words, code)
    }

    /// Makes an identity, and gives its file and its peer id.
    pub(crate) fn identity(&self, name: &str) -> (String, String) {
        let file = self.text(name);
        let output = self.run(&["id", "new", "--identity", &file]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        (file, text(&output.stdout).trim().to_owned())
    }

    /// The file of an identity whose certificate ran out long ago.
    pub(crate) fn expired_identity(&self, name: &str) -> String {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["expired.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
        let certificate = params.self_signed(&key).unwrap();
        // Made by `cepa id`, so that the file is private.
        let (file, _) = self.identity(name);
        std::fs::write(&file, key.serialize_pem() + &certificate.pem()).unwrap();
        file
    }

    /// Starts `cepa serve` and waits until it listens.
    #[track_caller]
    pub(crate) fn serve(&self, words: &[&str]) -> Server {
        Server::start(self, &[&["serve"], words].concat())
    }
}

/// The program under test.
pub(crate) fn bin() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_cepa"))
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Checks the form of a failure; see [`Place::fails`].
#[track_caller]
pub(crate) fn failed(output: &Output, code: i32) -> String {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "stderr: {stderr}");
    assert_eq!(
        text(&output.stdout),
        "",
        "nothing belongs on standard output"
    );
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!(lines.len(), 1, "one line: {stderr}");
    assert!(lines[0].starts_with("cepa: "), "{stderr}");
    assert!(lines[0].chars().all(is_printable), "{stderr:?}");
    lines[0].to_owned()
}

/// Whether a process runs: one that nobody has reaped does not.
pub(crate) fn is_running(pid: &str) -> bool {
    // A zombie has no command line.
    std::fs::read(format!("/proc/{}/cmdline", pid.trim())).is_ok_and(|line| !line.is_empty())
}

/// Waits for the end, and kills what does not come to one.
#[track_caller]
pub(crate) fn finish(mut child: Child) -> Output {
    let mut stdout = child.stdout.take();
    let mut stderr = child.stderr.take();
    let out = thread::spawn(move || read_all(stdout.as_mut()));
    let err = thread::spawn(move || read_all(stderr.as_mut()));
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > PATIENCE {
            let below = waiting::processes();
            child.kill().unwrap();
            child.wait().unwrap();
            panic!(
                "it did not end; standard error: {}\n{below}",
                text(&err.join().unwrap())
            );
        }
        thread::sleep(Duration::from_millis(5));
    };
    Output {
        status,
        stdout: out.join().unwrap(),
        stderr: err.join().unwrap(),
    }
}

fn read_all(from: Option<&mut impl Read>) -> Vec<u8> {
    let mut all = Vec::new();
    if let Some(from) = from {
        from.read_to_end(&mut all).unwrap();
    }
    all
}

/// Sends a signal by name or number, as `kill` takes it; whether the process is there.
pub(crate) fn signal(pid: &str, name: &str) -> bool {
    let mut kill = Command::new("kill");
    kill.args([&format!("-{name}"), pid]).stderr(Stdio::null());
    kill.status().unwrap().success()
}

/// A running command that listens, killed when dropped.
pub(crate) struct Server {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Server {
    #[track_caller]
    pub(crate) fn start(place: &Place, words: &[&str]) -> Self {
        Self::start_at(place, words, "listening on ")
    }

    /// Starts it, and waits for the line that says that it is up.
    #[track_caller]
    pub(crate) fn start_at(place: &Place, words: &[&str], up: &str) -> Self {
        Self::of(&mut place.cepa(words), up)
    }

    /// The same of a command that was made otherwise.
    #[track_caller]
    pub(crate) fn of(command: &mut Command, up: &str) -> Self {
        let mut child = command.spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(unstamped(&line).to_owned()).is_err() {
                    return;
                }
            }
        });
        let mut server = Self {
            child,
            lines,
            seen: Vec::new(),
        };
        server.wait_for(up);
        server
    }

    /// The next line on standard output, of one that prints no more than a pipe holds.
    pub(crate) fn output_line(&mut self) -> String {
        let stdout = self.child.stdout.as_mut().unwrap();
        let (mut line, mut byte) = (Vec::new(), [0]);
        while stdout.read(&mut byte).unwrap() > 0 && byte != [b'\n'] {
            line.push(byte[0]);
        }
        text(&line)
    }

    /// The lines on standard error so far.
    pub(crate) fn seen(&self) -> &[String] {
        &self.seen
    }

    /// The next line on standard error that contains this.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, what: &str) -> String {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(what) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("no line {what:?} in {:#?}", self.seen),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("it ended without a line {what:?}: {:#?}", self.seen)
                }
            }
        }
    }

    /// Waits until so many lines about a peer were shown or counted as not shown, and gives the number
    /// of lines that took.
    #[track_caller]
    pub(crate) fn wait_for_lines(&mut self, peer: &str, all: u64) -> u64 {
        let (mut counted, mut lines) = (0, 0);
        while counted < all {
            counted += stands_for(&self.wait_for(peer), peer);
            lines += 1;
        }
        assert_eq!(counted, all, "each is shown or counted, once");
        lines
    }

    /// The address of the n-th "listening on ADDR …" line seen.
    #[track_caller]
    pub(crate) fn address(&self) -> String {
        let line = self
            .seen
            .iter()
            .find(|l| l.starts_with("listening on "))
            .unwrap();
        line.split(' ').nth(2).unwrap().to_owned()
    }

    /// The peer id in "listening on ADDR as PEERID".
    #[track_caller]
    pub(crate) fn id(&self) -> String {
        let line = self
            .seen
            .iter()
            .find(|l| l.starts_with("listening on "))
            .unwrap();
        line.split(' ').next_back().unwrap().to_owned()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name, as `kill` takes it.
    pub(crate) fn signal(&self, name: &str) {
        assert!(signal(&self.child.id().to_string(), name));
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn finish(mut self) -> (Option<i32>, String) {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "it did not end: {:#?}",
                self.seen
            );
            thread::sleep(Duration::from_millis(5));
        };
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            self.seen.push(line);
        }
        (status.code(), self.seen.join("\n"))
    }

    /// Is it still there?
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The line of a server's log without the time that stands in front of it, if one does.
pub(crate) fn unstamped(line: &str) -> &str {
    match line.split_once(' ') {
        Some((time, rest)) if is_time(time) => rest,
        _ => line,
    }
}

/// Whether it is as `2026-11-29T17:41:15.123Z`.
pub(crate) fn is_time(text: &str) -> bool {
    let form = "0000-00-00T00:00:00.000Z";
    text.len() == form.len()
        && text.chars().zip(form.chars()).all(|(c, of)| match of {
            '0' => c.is_ascii_digit(),
            of => c == of,
        })
}

/// How many lines about a peer this one is: `PEER: … and N more` stands for N.
pub(crate) fn stands_for(line: &str, peer: &str) -> u64 {
    let more = line.strip_prefix(peer).and_then(|rest| {
        let rest = rest.strip_prefix(": … and ")?;
        let (more, what) = rest.split_once(" more ")?;
        what.starts_with("line").then_some(more)
    });
    more.map_or(1, |more| more.parse().unwrap())
}

/// Bytes that no repetition can fake, the same each time.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 56) as u8
        })
        .collect()
}

/// As `sha256sum` prints it.
pub(crate) fn sha256(data: &[u8]) -> String {
    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(data).unwrap();
    text(&finish(child).stdout)
}

/// What a server at this port of loopback answers, to its end.
#[track_caller]
pub(crate) fn asked(port: u16, what: &str) -> String {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(what.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
