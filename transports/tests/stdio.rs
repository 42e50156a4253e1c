//! `stdio:` and `fd:` in processes of their own. Without libtest, because this program is its own child:
//! with `CEPA_ROLE` set it plays that role instead of testing.
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use cepa_transports::{Endpoint, Remote, Target, dial};
use rustix::fs::{Mode, OFlags, fcntl_getfl};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};

fn main() -> ExitCode {
    if let Ok(role) = std::env::var("CEPA_ROLE") {
        return play(&role);
    }
    // A hang guard: this process alone, and with it, by kill on drop or closed pipes, its children.
    std::thread::spawn(|| {
        std::thread::sleep(Duration::from_secs(300));
        eprintln!("hung for 300 s");
        std::process::exit(1);
    });
    let cases: &[(&str, fn())] = &[
        ("pipes", pipes),
        ("files", files),
        ("sockets", sockets),
        ("terminal", terminal),
        ("null", null),
        ("half close is real", half_close_is_real),
        ("the reader is told", the_reader_is_notified),
        ("stray prints do not reach the stream", stray_prints),
        ("a pending read does not keep the process", pending_read),
        ("stdio once", stdio_once),
        ("fd both ways", fd_both_ways),
        ("fd read and write", fd_read_and_write),
        ("fd the wrong way", fd_the_wrong_way),
    ];
    for (name, case) in cases {
        println!("stdio: {name}");
        // A panic ends the program with its message and a failure.
        case();
    }
    println!("stdio: {} cases passed", cases.len());
    ExitCode::SUCCESS
}

// ---- the roles ------------------------------------------------------------------------------

#[tokio::main]
async fn play(role: &str) -> ExitCode {
    let mut addresses = std::env::args()
        .skip(1)
        .map(|a| a.parse::<Endpoint>().unwrap());
    let first = addresses.next().unwrap();
    let mut stream = match dial(&first).await {
        Ok(stream) => stream,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(5);
        }
    };
    let remote = match first.target() {
        Target::Stdio => Remote::Stdio,
        _ => Remote::Fd,
    };
    assert_eq!(stream.remote(), &remote);
    let mut buf = [0; 100];
    match role {
        "join" => {
            let mut other = dial(&addresses.next().unwrap()).await.unwrap();
            copy_bidirectional(&mut stream, &mut other).await.unwrap();
        }
        "close-then-wait" => {
            stream.write_all(b"bye").await.unwrap();
            stream.shutdown().await.unwrap();
            while stream.read(&mut buf).await.unwrap() > 0 {}
        }
        "drop-then-wait" => {
            drop(stream);
            // Ends when the test says so, by a signal.
            tokio::time::sleep(Duration::from_secs(600)).await;
        }
        "print" => {
            print!("stray");
            println!(" line");
            stream.write_all(b"data").await.unwrap();
            println!("stray line");
            stream.shutdown().await.unwrap();
        }
        "leave-while-reading" => {
            stream.write_all(b"x").await.unwrap();
            stream.flush().await.unwrap();
            let reading = tokio::spawn(async move { stream.read(&mut buf).await.map(|_| ()) });
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert!(!reading.is_finished());
        }
        "twice" => {
            let error = dial(&first).await.unwrap_err();
            eprintln!("{error}");
            stream.shutdown().await.unwrap();
        }
        other => panic!("no role {other}"),
    }
    ExitCode::SUCCESS
}

// ---- the tests ------------------------------------------------------------------------------

/// This program in a role.
fn child(role: &str, addresses: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env("CEPA_ROLE", role).args(addresses);
    command
}

/// This program in a role, under a shell that arranges descriptors.
fn child_by_shell(role: &str, address: &str, redirections: &str) -> Command {
    let mut command = Command::new("sh");
    let script = format!("exec \"$0\" \"$@\" {redirections}");
    command
        .arg("-c")
        .arg(script)
        .arg(std::env::current_exe().unwrap());
    command.env("CEPA_ROLE", role).arg(address).arg("exec:cat");
    command
}

fn data(n: usize) -> Vec<u8> {
    let mut data = vec![0; n];
    cepa_transports::testkit::fill(7, 0, &mut data);
    data
}

fn succeeds(mut child: Child) {
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}");
}

/// Writes everything and ends its direction while reading everything back.
fn there_and_back(
    mut to: impl Write + Send + 'static,
    mut from: impl Read,
    end: impl FnOnce() + Send + 'static,
) {
    let sent = data(3_000_000);
    let copy = sent.clone();
    let writer = std::thread::spawn(move || {
        to.write_all(&copy).unwrap();
        drop(to);
        end();
    });
    let mut got = Vec::new();
    from.read_to_end(&mut got).unwrap();
    writer.join().unwrap();
    assert!(
        got == sent,
        "{} bytes came back of {}",
        got.len(),
        sent.len()
    );
}

fn pipes() {
    let mut command = child("join", &["stdio:", "exec:cat"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    there_and_back(
        child.stdin.take().unwrap(),
        child.stdout.take().unwrap(),
        || {},
    );
    succeeds(child);
}

fn files() {
    let mut input = tempfile::tempfile().unwrap();
    input.write_all(&data(3_000_000)).unwrap();
    input.seek(SeekFrom::Start(0)).unwrap();
    let mut output = tempfile::tempfile().unwrap();
    output.write_all(b"before ").unwrap();
    let shared = output.try_clone().unwrap();
    succeeds(
        child("join", &["stdio:", "exec:cat"])
            .stdin(input)
            .stdout(shared)
            .spawn()
            .unwrap(),
    );
    output.write_all(b" after").unwrap();
    output.seek(SeekFrom::Start(0)).unwrap();
    let mut got = Vec::new();
    output.read_to_end(&mut got).unwrap();
    assert!(got == [&b"before "[..], &data(3_000_000), b" after"].concat());
}

fn sockets() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let theirs = OwnedFd::from(theirs);
    let mut command = child("join", &["stdio:", "exec:cat"]);
    let child = command
        .stdin(theirs.try_clone().unwrap())
        .stdout(theirs)
        .spawn()
        .unwrap();
    drop(command);
    let end = ours.try_clone().unwrap();
    there_and_back(ours.try_clone().unwrap(), ours, move || {
        end.shutdown(std::net::Shutdown::Write).unwrap();
    });
    succeeds(child);
}

/// A terminal that parent and child share, as a shell and its programs do.
fn terminal() {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let slave = rustix::fs::open(name.as_c_str(), flags, Mode::empty()).unwrap();
    let mut mode = rustix::termios::tcgetattr(&slave).unwrap();
    mode.local_modes.remove(rustix::termios::LocalModes::ECHO);
    rustix::termios::tcsetattr(&slave, rustix::termios::OptionalActions::Now, &mode).unwrap();
    let mut command = child("join", &["stdio:", "exec:cat"]);
    let (stdin, stdout) = (slave.try_clone().unwrap(), slave.try_clone().unwrap());
    let child = command.stdin(stdin).stdout(stdout).spawn().unwrap();
    drop(command);
    let mut screen = File::from(master);
    screen.write_all(b"hello\n").unwrap();
    let mut shown = [0; 7];
    screen.read_exact(&mut shown).unwrap();
    assert_eq!(&shown, b"hello\r\n");
    // The child runs, and what is shared is as it was.
    assert!(!fcntl_getfl(&slave).unwrap().contains(OFlags::NONBLOCK));
    // Ctrl-D ends its input, and with that the child.
    screen.write_all(b"\x04").unwrap();
    succeeds(child);
    assert!(!fcntl_getfl(&slave).unwrap().contains(OFlags::NONBLOCK));
}

fn null() {
    let mut command = child("join", &["stdio:", "exec:cat"]);
    succeeds(
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap(),
    );
}

fn half_close_is_real() {
    let mut command = child("close-then-wait", &["stdio:"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = String::new();
    // Comes to its end although the child lives on.
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "bye");
    assert!(child.try_wait().unwrap().is_none());
    drop(child.stdin.take());
    succeeds(child);
}

fn the_reader_is_notified() {
    let mut command = child("drop-then-wait", &["stdio:"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut end = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut end).unwrap();
    assert!(end.is_empty());
    // Its input has no reader either: written until that shows. (Rust programs ignore the signal.)
    let mut stdin = child.stdin.take().unwrap();
    let broken = (0..1000).find_map(|_| stdin.write_all(&[0; 8192]).err());
    assert_eq!(broken.unwrap().kind(), std::io::ErrorKind::BrokenPipe);
    child.kill().unwrap();
    child.wait().unwrap();
}

fn stray_prints() {
    let mut command = child("print", &["stdio:"]);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "data");
    succeeds(child);
}

fn pending_read() {
    // A pipe that stays open and silent.
    let mut command = child("leave-while-reading", &["stdio:"]);
    let mut silent = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdin = silent.stdin.take();
    succeeds(silent);
    drop(stdin);
    // The master of a pty can only be read by a thread.
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    let mut command = child("leave-while-reading", &["stdio:"]);
    succeeds(command.stdin(master).stdout(Stdio::null()).spawn().unwrap());
}

fn stdio_once() {
    let mut command = child("twice", &["stdio:"]);
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("cannot dial \"stdio:\": standard input and output are in use"),
        "{text}"
    );
    assert_eq!(text.lines().count(), 1);
}

fn fd_both_ways() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut command = child_by_shell("join", "fd:7", "7<&0 </dev/null >/dev/null");
    let child = command.stdin(OwnedFd::from(theirs)).spawn().unwrap();
    drop(command);
    let end = ours.try_clone().unwrap();
    there_and_back(ours.try_clone().unwrap(), ours, move || {
        end.shutdown(std::net::Shutdown::Write).unwrap();
    });
    succeeds(child);
}

fn fd_read_and_write() {
    let mut command = child_by_shell("join", "fd:7,8", "7<&0 8>&1 </dev/null >/dev/null");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    there_and_back(
        child.stdin.take().unwrap(),
        child.stdout.take().unwrap(),
        || {},
    );
    succeeds(child);
    // The writing end is closed, not only shut: the end comes while the child lives on.
    let mut command = child_by_shell(
        "close-then-wait",
        "fd:7,8",
        "7<&0 8>&1 </dev/null >/dev/null",
    );
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "bye");
    assert!(child.try_wait().unwrap().is_none());
    drop(child.stdin.take());
    succeeds(child);
}

fn fd_the_wrong_way() {
    let mut command = child_by_shell("join", "fd:7,8", "7>/dev/null 8</dev/null");
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(5));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("descriptor 7 is open for writing only"),
        "{text}"
    );
}
