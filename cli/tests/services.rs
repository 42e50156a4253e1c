//! The kinds of services that `cepa serve` joins a peer to, beyond commands and sockets.

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use common::{PATIENCE, Place, finish, text};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

/// Opens the other end of a pty as a program would that expects a raw line.
fn open(path: &std::path::Path) -> File {
    let start = Instant::now();
    loop {
        if let Ok(file) = File::options().read(true).write(true).open(path) {
            let mut mode = tcgetattr(&file).unwrap();
            mode.make_raw();
            tcsetattr(&file, OptionalActions::Now, &mode).unwrap();
            return file;
        }
        assert!(start.elapsed() < PATIENCE, "no {}", path.display());
        thread::sleep(Duration::from_millis(5));
    }
}

fn expect(file: &mut File, what: &str) {
    let mut got = vec![0; what.len()];
    file.read_exact(&mut got).unwrap();
    assert_eq!(text(&got), what);
}

#[test]
fn what_a_line_does_not_do_is_reported_before_anybody_comes() {
    let place = Place::new();
    let line = place.text("line");
    let device = place.cepa(&["pipe", &format!("pty:{line}"), "exec:cat"]);
    let mut device = { device }.spawn().unwrap();
    let start = Instant::now();
    while !place.path("line").exists() {
        assert!(start.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(5));
    }
    drop(open(line.as_ref()));
    let words = [&format!("serial:{line},rs485=on"), "--allow", "any"];
    let mut server = place.serve(&words);
    let remark = "RS-485 is unsupported by this device or its driver";
    // Before the line that the server is up, or behind it.
    if !server.seen().iter().any(|line| line.contains(remark)) {
        server.wait_for(remark);
    }
    device.kill().unwrap();
    device.wait().unwrap();
}

/// What nobody will get is told before anybody comes; it may still be installed, so the server runs.
#[test]
fn a_server_without_a_service_or_without_its_program_is_warned_of() {
    let place = Place::new();
    let at = ["tcp:127.0.0.1:0", "--allow", "any"];
    let mut none = place.serve(&at);
    none.wait_for("warning: no service is offered");

    let program = place.text("tool");
    std::fs::write(&program, "#!/bin/sh\n").unwrap();
    let good = |name: &str, command: &str| format!("{name}=exec:{command}");
    let folder = place.path("").display().to_string();
    let services = [
        good("a", "sh -c true"),
        good("b", "/bin/sh"),
        good("c", "no-such-program -x"),
        good("d", &program),
        good("e", &format!("./tool,dir={folder}")),
        good("f", "cat"),
    ];
    let words = |more: &[&str]| {
        let services = services.iter().flat_map(|it| ["--service", it]);
        at.iter()
            .copied()
            .chain(services)
            .chain(more.iter().copied())
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    // The last warning is of a name of our own, so that all are there.
    let words_of = |more: &[&str]| {
        let words = words(more);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut server = place.serve(&words);
        server.wait_for("warning: service last: ");
        let seen = server.seen().join("\n");
        let warned = seen
            .lines()
            .filter(|line| line.starts_with("warning: service "));
        let names = warned.map(|line| line.split([' ', ':']).nth(3).unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    let last = ["--service", "last=exec:/no/such/file"];
    assert_eq!(words_of(&last), ["c", "d", "e", "last"]);
    // It may be executed now.
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(words_of(&last), ["c", "last"]);
}

#[test]
fn a_pty_and_a_serial_line_can_be_services() {
    let place = Place::new();
    let (pty, line) = (place.text("tty"), place.text("line"));
    let server = place.serve(&[
        "tcp:127.0.0.1:0",
        "--allow",
        "any",
        "--service",
        &format!("tty=pty:{pty}"),
        "--service",
        &format!("line=serial:{line},baud=115200"),
    ]);
    // The program at the pty's other end, and the device at the line's.
    let device = place.cepa(&["pipe", &format!("pty:{line}"), "exec:sed -u s/in/out/"]);
    let mut device = { device }.spawn().unwrap();
    let start = Instant::now();
    while !place.path("line").exists() {
        assert!(start.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(5));
    }
    for service in ["tty", "line"] {
        let words = ["connect", &server.address(), service, "--trust", "any"];
        let mut child = place
            .cepa(&words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        let mut output = child.stdout.take().unwrap();
        let mut got = [0; 4];
        if service == "tty" {
            input.write_all(b"in\n").unwrap();
            let mut there = open(&place.path("tty"));
            expect(&mut there, "in\n");
            there.write_all(b"out\n").unwrap();
            output.read_exact(&mut got).unwrap();
        } else {
            input.write_all(b"in\n").unwrap();
            output.read_exact(&mut got).unwrap();
        }
        assert_eq!(text(&got), "out\n");
        drop((input, output));
        child.kill().unwrap();
        finish(child);
    }
    device.kill().unwrap();
    device.wait().unwrap();
}

#[test]
fn a_command_on_a_terminal_is_a_service_for_pipes_too() {
    let place = Place::new();
    let server = place.serve(&[
        "tcp:127.0.0.1:0",
        "--allow",
        "any",
        "--service",
        "tty=exec:sh -c 'stty -echo; tty >/dev/null && sort',pty=yes",
    ]);
    let words = ["connect", &server.address(), "tty", "--trust", "any"];
    let output = place.run_with(&words, b"b\na\n");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    assert!(shown.ends_with("a\r\nb\r\n"), "{shown:?}");
}

#[test]
fn a_server_on_a_serial_line_outlives_its_adapter() {
    let place = Place::new();
    let line = place.text("line");
    let pty = format!("pty:{line}");
    let mut device = place.cepa(&["pipe", &pty, "exec:cat"]).spawn().unwrap();
    drop(open(&place.path("line")));
    let serial = format!("serial:{line}");
    let mut server = place.serve(&[&serial, "--allow", "any", "--service", "up=echo:"]);
    device.kill().unwrap();
    device.wait().unwrap();
    server.wait_for("waiting for it to come back");
    // The adapter is there again, and somebody dials over it.
    let output = place.run_with(&["connect", &pty, "up", "--trust", "any"], b"hello");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "hello");
    server.wait_for("session with");
}
