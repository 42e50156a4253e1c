//! How a command behind a service ended, as whoever opened it sees it; and what a command sees that is cut.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::{PATIENCE, Place, Server, finish, text};

/// A server of commands, each a service by its name.
fn serve(place: &Place, services: &[(&str, &str)]) -> Server {
    let services: Vec<String> = services
        .iter()
        .map(|(name, to)| format!("{name}={to}"))
        .collect();
    let mut words = vec!["tcp:127.0.0.1:0", "--allow", "any"];
    for service in &services {
        words.extend(["--service", service]);
    }
    place.serve(&words)
}

fn sh(script: &str) -> String {
    format!("exec:sh -c '{script}'")
}

fn wait_until(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// No process but a server has this text in its command line.
fn nobody_runs(marker: &str) -> bool {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let mut lines = all.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    !lines.any(|line| line.starts_with(b"sh\0") && text(&line).contains(marker))
}

#[test]
fn the_status_and_the_standard_error_of_a_command_arrive() {
    let place = Place::new();
    let server = serve(
        &place,
        &[
            (
                "short",
                &sh("cat >/dev/null; head -c 1000 /dev/zero; exit 3"),
            ),
            (
                "late",
                &sh("echo out; exec >&-; sleep 1; echo why >&2; exit 4"),
            ),
            (
                "verify",
                &sh("cat >/dev/null; echo verify failed >&2; exit 1"),
            ),
            ("killed", &sh("echo out; kill -9 $$")),
            ("fine", &sh("cat; echo told >&2")),
            ("left", &sh("sleep 1000 & echo out; exit 6")),
            ("tcp", "echo:"),
        ],
    );
    let address = server.address();
    for (service, status, out, err) in [
        ("short", 3, 1000, ""),
        ("late", 4, 4, "why\n"),
        ("verify", 1, 0, "verify failed\n"),
        ("killed", 137, 4, "the command was killed by signal 9\n"),
        ("fine", 0, 5, "told\n"),
        ("left", 6, 4, ""),
        ("tcp", 0, 5, ""),
    ] {
        let words = ["connect", &address, service, "--expect", &server.id()];
        let output = place.run_with(&words, b"hello");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{service}: {said}");
        assert_eq!(output.stdout.len(), out, "{service}");
        assert_eq!(said, err, "{service}");
        // Without it a failure is one all the same.
        let words = [&words[..], &["--no-status"]].concat();
        let output = place.run_with(&words, b"hello");
        let said = text(&output.stderr);
        let failed = i32::from(status != 0);
        assert_eq!(output.status.code(), Some(failed), "{service}: {said}");
        assert_eq!(output.stdout.len(), out, "{service}");
        assert_eq!(said.contains("cepa: "), status != 0, "{service}: {said}");
    }
}

/// The only service is had by no name as well as by its own.
#[test]
fn the_status_arrives_where_the_name_is_left_out() {
    let place = Place::new();
    let server = serve(&place, &[("only", &sh("echo err >&2; exit 7"))]);
    let at = server.address();
    let output = place.run_with(&["connect", &at, "--trust", "any"], b"");
    assert_eq!(output.status.code(), Some(7));
    let said = text(&output.stderr);
    assert!(
        said.contains("err\n") && !said.contains("abnormally"),
        "{said}"
    );
}

#[test]
fn a_burst_on_standard_error_arrives_whole() {
    let place = Place::new();
    let server = serve(&place, &[("burst", &sh("seq 30000 >&2; exit 1"))]);
    let address = server.address();
    let words = ["connect", &address, "burst", "--expect", &server.id()];
    let output = place.run_with(&words, b"");
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    let lost = (1..=30_000).zip(said.lines());
    let lost = lost.filter(|(n, line)| n.to_string() != **line).take(3);
    assert_eq!(lost.collect::<Vec<_>>(), []);
    assert_eq!(said.lines().count(), 30_000);
}

#[test]
fn cepas_own_failures_have_an_exit_status_of_their_own() {
    let place = Place::new();
    let server = serve(&place, &[("seven", &sh("exit 7"))]);
    let address = server.address();
    let id = server.id();
    let words = |service| {
        [
            "connect",
            &address,
            service,
            "--expect",
            &id,
            "--error-status",
            "255",
        ]
        .map(str::to_owned)
    };
    let run = |service| {
        let words = words(service);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        place.run_with(&words, b"")
    };
    assert_eq!(run("seven").status.code(), Some(7));
    let output = run("none");
    assert_eq!(output.status.code(), Some(255));
    assert!(text(&output.stderr).starts_with("cepa: "));
}

/// The service ends with its command, though its input is open and others hold its output.
#[test]
fn a_command_that_has_ended_ends_the_service() {
    let place = Place::new();
    let server = serve(
        &place,
        &[("gone", &sh("(sleep 1000; : cepa-left-behind) & exit 5"))],
    );
    let words = [
        "connect",
        &server.address(),
        "gone",
        "--expect",
        &server.id(),
    ];
    let mut child = place
        .cepa(&words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let input = child.stdin.take();
    let output = finish(child);
    assert_eq!(output.status.code(), Some(5), "{}", text(&output.stderr));
    drop(input);
    wait_until("what it left is hung up", || {
        nobody_runs("cepa-left-behind")
    });
}

/// A dialler that has sent some and goes on.
fn upload(place: &Place, server: &Server, service: &str) -> Child {
    let words = [
        "connect",
        &server.address(),
        service,
        "--expect",
        &server.id(),
    ];
    let mut child = place
        .cepa(&words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut got = [0; 6];
    let mut input = child.stdin.take().unwrap();
    input.write_all(&vec![b'x'; 100_000]).unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut got).unwrap();
    assert_eq!(&got, b"begun\n");
    // Left open: it is the dialler that goes.
    std::mem::forget(input);
    child
}

#[test]
fn a_cut_upload_is_never_committed() {
    let place = Place::new();
    let dir = place.path("up");
    fs::create_dir(&dir).unwrap();
    let at = dir.display();
    let commit = |wrapped: &str| format!("exec:sh -c '{wrapped}',dir={at}");
    let plain = commit("echo begun; cat >$$.part && mv $$.part $$.done");
    let wrapped = commit(
        "echo begun; timeout 1000 sh -c \"cat >\\$\\$.part && mv \\$\\$.part \\$\\$.done\"; :",
    );
    let apart = commit(
        "echo begun; (setsid -w sh -c \"cat >\\$\\$.part && mv \\$\\$.part \\$\\$.done\"); :",
    );
    let session = plain.replace("exec:", "exec:setsid ");
    let server = serve(
        &place,
        &[
            ("plain", &plain),
            ("wrapped", &wrapped),
            ("apart", &apart),
            ("session", &session),
        ],
    );
    let parts = |end: &str| {
        let all = fs::read_dir(&dir).unwrap().flatten();
        all.filter(|entry| entry.file_name().to_string_lossy().ends_with(end))
            .count()
    };
    for round in 0..10 {
        for service in ["plain", "wrapped", "apart", "session"] {
            let before = parts(".part");
            let mut child = upload(&place, &server, service);
            wait_until("it writes", || parts(".part") > before);
            child.kill().unwrap();
            finish(child);
            assert_eq!(parts(".done"), 0, "{service}, round {round}");
        }
    }
    wait_until("none is left", || nobody_runs("mv $$.part"));
    assert_eq!(parts(".done"), 0);
    // One that ends in order is.
    let output = place.run_with(
        &[
            "connect",
            &server.address(),
            "plain",
            "--expect",
            &server.id(),
        ],
        b"all of it",
    );
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(parts(".done"), 1);
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_child(child), signal).unwrap();
}

/// `setsid` forks where it leads a process group, and exits at once: its command has its input all the same.
#[test]
fn a_command_in_a_session_of_its_own_gets_its_whole_input() {
    let place = Place::new();
    let script = "exec:setsid sh -c 'sleep 3; wc -c; exit 4'";
    let server = serve(&place, &[("set", script)]);
    let address = server.address();
    let words = ["connect", &address, "set", "--expect", &server.id()];
    let output = place.run_with(&words, &vec![b'x'; 1_000_000]);
    assert_eq!(text(&output.stdout).trim(), "1000000");
    assert_eq!(output.status.code(), Some(4));
}

/// Whatever ends the server or the pipe, a command takes it for no end of its input.
#[test]
fn a_command_is_killed_before_the_process_that_runs_it_ends_by_a_signal() {
    use rustix::process::Signal;
    let place = Place::new();
    let done = place.text("done");
    let script = format!(
        "exec:sh -c 'echo begun; sh -c \"cat >/dev/null; touch {done}; : cepa-by-signal\"; :'"
    );
    for by in [Signal::HUP, Signal::QUIT, Signal::TERM] {
        let at = place.text("socket");
        let _ = fs::remove_file(&at);
        let at = format!("unix:{at}");
        let service = format!("up={script}");
        let words = ["serve", &at, "--allow", "any", "--service", &service];
        let mut server = place.cepa(&words).stderr(Stdio::null()).spawn().unwrap();
        wait_until("it listens", || place.path("socket").exists());
        let mut connect = place
            .cepa(&["connect", &at, "up", "--trust", "any"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = place
            .cepa(&["pipe", "stdio:", &script])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let (held, also) = (connect.stdin.take(), pipe.stdin.take());
        for child in [&mut connect, &mut pipe] {
            let mut got = [0; 6];
            child.stdout.as_mut().unwrap().read_exact(&mut got).unwrap();
            assert_eq!(&got, b"begun\n");
        }
        signal(&server, by);
        signal(&pipe, by);
        let status = finish(pipe).status.code();
        assert_eq!(status, Some(128 + by.as_raw()), "{by:?}");
        wait_until("the server ends", || server.try_wait().unwrap().is_some());
        assert_eq!(server.wait().unwrap().code(), Some(0), "{by:?}");
        wait_until("its commands end", || nobody_runs("cepa-by-signal"));
        assert!(!place.path("done").exists(), "{by:?}");
        drop((held, also));
        finish(connect);
    }
}

/// Under nohup the commands ignore SIGHUP too.
#[test]
fn what_a_command_leaves_behind_ends_where_sighup_is_ignored() {
    let place = Place::new();
    let at = format!("unix:{}", place.text("socket"));
    let service = "up=exec:sh -c '(sleep 1000; : cepa-left-by-nohup) & exit 5'";
    let bin = common::bin().to_str().unwrap();
    let mut server = std::process::Command::new("nohup")
        .args([bin, "serve", &at, "--allow", "any", "--service", service])
        .env("CEPA_CONFIG_DIR", place.path("config"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("it listens", || place.path("socket").exists());
    signal(&server, rustix::process::Signal::HUP);
    let output = place.run_with(&["connect", &at, "up", "--trust", "any"], b"");
    assert_eq!(output.status.code(), Some(5), "{}", text(&output.stderr));
    wait_until("what it left has ended", || {
        nobody_runs("cepa-left-by-nohup")
    });
    signal(&server, rustix::process::Signal::TERM);
    wait_until("the server ends", || server.try_wait().unwrap().is_some());
}

/// The address of a backend that reads a little, answers, and closes with input unread, so that the system resets it.
fn rude() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream: TcpStream = stream.unwrap();
            let mut some = [0; 1000];
            stream.read_exact(&mut some).unwrap();
            stream.write_all(&[b'y'; 200]).unwrap();
        }
    });
    format!("tcp:127.0.0.1:{port}")
}

/// A service that is reset while input still goes, and one that answers and leaves the rest unread.
#[test]
fn a_reset_of_the_service_is_no_end_and_what_it_said_before_arrives() {
    let place = Place::new();
    let server = serve(&place, &[("rude", &rude())]);
    for form in [&[][..], &["--no-status"]] {
        for _ in 0..20 {
            let address = server.address();
            let id = server.id();
            let words = [&["connect", &address, "rude", "--expect", &id][..], form].concat();
            let output = place.run_with(&words, &vec![b'x'; 3_000_000]);
            assert_eq!(output.stdout.len(), 200, "{}", text(&output.stderr));
            assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        }
    }
}

#[test]
fn a_pipe_ends_with_its_command_and_its_status() {
    let place = Place::new();
    for (command, status) in [
        ("false", 1),
        ("sh -c 'exit 3'", 3),
        ("sh -c 'kill -9 $$'", 137),
        ("true", 0),
        ("cat", 0),
    ] {
        let output = place.run_with(&["pipe", "stdio:", &format!("exec:{command}")], b"");
        assert_eq!(output.status.code(), Some(status), "{command}");
        let output = place.run_with(&["pipe", &format!("exec:{command}"), "stdio:"], b"");
        assert_eq!(output.status.code(), Some(status), "{command}");
    }
    // Though its input goes on.
    let words = ["pipe", "stdio:", "exec:sh -c 'echo why >&2; exit 9'"];
    let mut child = place.cepa(&words).stdin(Stdio::piped()).spawn().unwrap();
    let input = child.stdin.take();
    let output = finish(child);
    assert_eq!(output.status.code(), Some(9));
    assert!(
        text(&output.stderr).contains("why"),
        "{}",
        text(&output.stderr)
    );
    drop(input);
}

/// 4 KiB that nobody reads: what is said there stops neither the services nor the end.
#[test]
fn standard_error_that_nobody_reads_holds_nothing_up() {
    let place = Place::new();
    let at = format!("unix:{}", place.text("socket"));
    let words = [
        "serve",
        &at,
        "--allow",
        "any",
        "--service",
        "up=echo:",
        "--service",
        "noisy=exec:sh -c 'i=0; while [ $i -lt 20 ]; do head -c 4000 /dev/zero | tr \"\\0\" x; echo; i=$((i+1)); done >&2'",
    ];
    let (unread, stderr) = std::io::pipe().unwrap();
    rustix::pipe::fcntl_setpipe_size(&unread, 4096).unwrap();
    let mut server = place.cepa(&words).stderr(stderr).spawn().unwrap();
    wait_until("it listens", || place.path("socket").exists());
    for _ in 0..3 {
        let output = place.run_with(&["connect", &at, "noisy", "--trust", "any"], b"");
        assert_eq!(output.status.code(), Some(0));
        assert!(output.stderr.len() > 20 * 4000);
    }
    let output = place.run_with(&["connect", &at, "up", "--trust", "any"], b"hello");
    assert_eq!(text(&output.stdout), "hello");
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&server),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    let start = Instant::now();
    let code = loop {
        if let Some(status) = server.try_wait().unwrap() {
            break status.code();
        }
        assert!(start.elapsed() < PATIENCE, "it ends");
        thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(code, Some(0));
    drop(unread);
}

/// An answer before the whole request was read, as a server gives that does not want it: through a forward too.
#[test]
fn an_early_answer_is_read_through_a_forward() {
    let place = Place::new();
    let server = serve(&place, &[("rude", &rude())]);
    let (address, id) = (server.address(), server.id());
    let words = [
        "forward",
        &address,
        "-L",
        "tcp:127.0.0.1:0=rude",
        "--expect",
        &id,
    ];
    let forward = Server::start(&place, &words);
    let line = forward
        .seen()
        .iter()
        .find(|l| l.contains("for rude of"))
        .unwrap();
    let at = line.split_whitespace().nth(2).unwrap().replace("tcp:", "");
    for _ in 0..20 {
        let mut client = TcpStream::connect(&at).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut sending = client.try_clone().unwrap();
        let sender = thread::spawn(move || {
            let _ = sending.write_all(&vec![b'x'; 8 << 20]);
        });
        let mut got = Vec::new();
        let _ = client.read_to_end(&mut got);
        assert_eq!(got.len(), 200);
        sender.join().unwrap();
    }
    forward.signal("TERM");
    assert_eq!(forward.finish().0, Some(0));
}

/// Every line of `src/service_end_table.txt` for real, but for consoles (`console.rs`).
#[test]
fn what_an_end_becomes_is_as_the_table_says() {
    let place = Place::new();
    let at = format!("unix:{}", place.text("socket"));
    let reset = TcpListener::bind("127.0.0.1:0").unwrap();
    let closing = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = |listener: &TcpListener| format!("tcp:{}", listener.local_addr().unwrap());
    let services = [
        ("zero", sh("printf out; exit 0")),
        ("three", sh("printf out; exit 3")),
        ("killed", sh("printf out; kill -9 $$")),
        ("ends", address(&closing)),
        ("reset", address(&reset)),
        ("long", sh("printf out; sleep 1000")),
    ];
    for (listener, cut) in [(reset, true), (closing, false)] {
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                stream.write_all(b"out").unwrap();
                if cut {
                    // It has come before it is reset.
                    thread::sleep(Duration::from_millis(300));
                    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
                }
            }
        });
    }
    let start = || {
        let mut words = vec![at.clone(), "--allow".into(), "any".into()];
        for (name, to) in &services {
            words.extend(["--service".to_owned(), format!("{name}={to}")]);
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        place.serve(&words)
    };
    // What `connect` exits with; with a `signal` for the server once it has output.
    let connect = |service: &str, options: &[&str], signal: Option<&str>| {
        let server = start();
        let words = [&["connect", &at, service, "--trust", "any"][..], options].concat();
        let mut child = place
            .cepa(&words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        let mut got = [0; 3];
        child.stdout.as_mut().unwrap().read_exact(&mut got).unwrap();
        assert_eq!(&got, b"out");
        if let Some(signal) = signal {
            server.signal(signal);
            if options == ["--reconnect"] {
                // The service is opened again, and says the same again.
                server.finish();
                let _server = start();
                child.stdout.as_mut().unwrap().read_exact(&mut got).unwrap();
                child.kill().unwrap();
                finish(child);
                return "again".to_owned();
            }
        } else {
            drop(input);
        }
        finish(child).status.code().unwrap().to_string()
    };
    let forward = |service: &str, signal: Option<&str>| {
        let server = start();
        let local = format!("tcp:127.0.0.1:0={service}");
        let mut words = vec!["forward", &at, "-L", &local, "--trust", "any"];
        if signal == Some("KILL") {
            // It would be waited for.
            words.push("--no-durable");
        }
        let forward = Server::start(&place, &words);
        let mut client = TcpStream::connect(forward.address().replace("tcp:", "")).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut got = [0; 3];
        client.read_exact(&mut got).unwrap();
        if let Some(signal) = signal {
            server.signal(signal);
        }
        match client.read(&mut [0]) {
            Ok(0) => "end",
            Ok(_) => "more",
            Err(_) => "reset",
        }
    };
    let table = include_str!("../src/service_end_table.txt");
    let rows = table
        .lines()
        .skip_while(|line| !line.starts_with("what ends"));
    for row in rows.skip(1) {
        let (name, cells) = row.split_at(23);
        let cells: Vec<&str> = cells.split_whitespace().collect();
        let (service, signal) = match name.trim() {
            "command exits with 0" => ("zero", None),
            "command exits with 3" => ("three", None),
            "command is killed by 9" => ("killed", None),
            "socket ends" => ("ends", None),
            "socket is reset" => ("reset", None),
            "session is cut" => ("long", Some("KILL")),
            "server is stopped" => ("long", Some("TERM")),
            // A service of the tool resets its substream as the rows above have it, no server of the tool is silent, and nobody
            // attaches but a console (`attach.rs` has those two).
            "substream is reset" | "ends without a status" | "another one attaches" => continue,
            other => panic!("{other}"),
        };
        let forms = [
            &[][..],
            &["--no-status"],
            &["--error-status", "99"],
            &["--reconnect"],
        ];
        for (form, expected) in forms.into_iter().zip(&cells) {
            assert_eq!(connect(service, form, signal), *expected, "{row} {form:?}");
        }
        assert_eq!(forward(service, signal), cells[6], "{row}");
        if cells[7] != "-" {
            let command = &services
                .iter()
                .find(|(name, _)| *name == service)
                .unwrap()
                .1;
            let output = place.run_with(&["pipe", "stdio:", command], b"");
            let status = output.status.code().unwrap().to_string();
            assert_eq!(status, cells[7], "{row}");
        }
    }
}
