//! `cepa exec`: programs of a peer that its owner has listed, with arguments as they are.

mod common;

use std::io::{Read as _, Write as _};
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{PATIENCE, Place, Server, finish, is_running, text};

const TOOLS: &str = "run=command:/bin/sh,/usr/bin/printf,/bin/cat,/nowhere/gone";

fn serve(place: &Place, services: &[&str]) -> Server {
    let mut words = vec!["tcp:127.0.0.1:0", "--allow", "any"];
    for service in services {
        words.extend(["--service", service]);
    }
    place.serve(&words)
}

fn exec<'a>(at: &'a str, more: &[&'a str], command: &[&'a str]) -> Vec<&'a str> {
    let words = ["exec", at, "--trust", "any", "-q"];
    [&words[..], more, &["--"], command].concat()
}

#[test]
fn arguments_arrive_as_they_are_and_no_shell_sees_them() {
    let place = Place::new();
    let server = serve(&place, &[TOOLS]);
    let at = server.address();
    let odd = [
        "a b",
        "",
        "$(id)",
        "; ls",
        "*",
        "'\"",
        "--",
        "x,pty=yes",
        "ü\n",
    ];
    let command = [&["printf", "<%s>"][..], &odd].concat();
    let output = place.run(&exec(&at, &[], &command));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let expected = format!("<{}>", odd.join("><"));
    assert_eq!(text(&output.stdout), expected);
    // By its path too, as it is listed.
    let output = place.run(&exec(&at, &[], &["/usr/bin/printf", "hi"]));
    assert_eq!(text(&output.stdout), "hi");
}

#[test]
fn input_output_errors_and_the_status_are_the_programs() {
    let place = Place::new();
    let server = serve(&place, &[TOOLS, "oops=exec:sh -c 'echo oops >&2'"]);
    let at = server.address();
    let input = "x".repeat(300_000);
    let output = place.run_with(&exec(&at, &[], &["cat"]), input.as_bytes());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout) == input);
    let script = "cat; echo oops >&2; exit 3";
    let output = place.run_with(&exec(&at, &[], &["sh", "-c", script]), b"in");
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(text(&output.stdout), "in");
    // It is the program's own, and not for -q to leave out; nor is it with `connect`.
    assert_eq!(text(&output.stderr), "oops\n");
    let output = place.run(&["connect", "-q", &at, "oops", "--trust", "any"]);
    assert_eq!(text(&output.stderr), "oops\n");
    let output = place.run(&exec(&at, &[], &["sh", "-c", "kill -9 $$"]));
    assert_eq!(output.status.code(), Some(137));
    let to = ["--error-status", "99"];
    let output = place.run(&exec(&at, &to, &["sh", "-c", "exit 4"]));
    assert_eq!(output.status.code(), Some(4));
    let output = place.run(&exec(&at, &to, &["dmesg"]));
    assert_eq!(output.status.code(), Some(99));
}

/// As ssh has it: `--` is for a program that begins with a dash.
#[test]
fn the_program_needs_no_dashes_in_front_and_its_options_are_its_own() {
    let place = Place::new();
    let server = serve(&place, &[TOOLS]);
    let at = server.address();
    let words = [
        "exec",
        &at,
        "--trust",
        "any",
        "-q",
        "printf",
        "%s",
        "--service",
    ];
    let output = place.run(&words);
    assert_eq!(
        text(&output.stdout),
        "--service",
        "{}",
        text(&output.stderr)
    );
    // Words that cepa does not understand are cepa's failure, too.
    for words in [
        &["exec", "--error-status", "99", "nowhere", "x"][..],
        &["connect", "--error-status=99", "--no-such-option"],
    ] {
        assert_eq!(place.run(words).status.code(), Some(99), "{words:?}");
    }
}

/// Without a name it is the only one, and the owner reads which that is.
#[test]
fn a_service_that_is_the_only_one_has_its_name_in_the_log() {
    let place = Place::new();
    let mut server = serve(&place, &[TOOLS, "oops=exec:sh -c 'echo oops >&2; exit 3'"]);
    let at = server.address();
    let output = place.run(&exec(&at, &[], &["sh", "-c", "exit 3"]));
    assert_eq!(output.status.code(), Some(3));
    server.wait_for("service run for ");
    let two = serve(&place, &[TOOLS, "more=command:/bin/ls"]);
    let line = place.fails_quietly(&exec(&two.address(), &[], &["ls"]), 7);
    assert!(
        line.contains("has several services of programs: more, run; choose one with --service"),
        "{line}"
    );
}

/// When its session was cut, the advice is of options that it has.
#[test]
fn who_was_cut_reads_what_helps() {
    let place = Place::new();
    let server = serve(&place, &[TOOLS]);
    let at = server.address();
    let script = "echo up; exec sleep 1000";
    let mut child = place
        .cepa(&exec(&at, &[], &["sh", "-c", script]))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut up = [0; 3];
    child.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
    server.signal("KILL");
    let output = finish(child);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{said}");
    assert!(said.contains("Run it again, or use --durable"), "{said}");
    assert!(!said.contains("--reconnect"), "{said}");
}

/// More at once than a peer may have sessions: they wait for each other.
#[test]
fn a_burst_of_short_commands_waits_for_room() {
    let place = Place::new();
    let words = ["tcp:127.0.0.1:0", "--allow", "any", "--service", TOOLS];
    let server = place.serve(&[&words[..], &["--sessions-a-peer", "2"]].concat());
    let at = server.address();
    let all: Vec<_> = (0..12)
        .map(|_| {
            let mut command = place.cepa(&exec(&at, &[], &["printf", "hi"]));
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    for child in all {
        let output = finish(child);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout), "hi");
    }
}

#[test]
fn what_is_not_listed_is_refused_and_nobody_reads_what_is() {
    let place = Place::new();
    let mut server = serve(&place, &[TOOLS]);
    let at = server.address();
    for other in [
        "dmesg",
        "/usr/bin/sh",
        "/bin/../bin/sh",
        "./sh",
        "command:/bin/sh",
    ] {
        let line = place.fails(&exec(&at, &[], &[other]), 7);
        let said = format!(
            "cepa: {other}: the owner does not allow this program; it lists programs there with --service "
        );
        let rest = line.strip_prefix(&said);
        let rest = rest.unwrap_or_else(|| panic!("{line}"));
        assert!(!rest.contains("printf") && !rest.contains("/bin"), "{line}");
    }
    server.wait_for("\"dmesg\" was asked for: this service does not list it");
    // It is listed, and is not there: that is the owner's business, too.
    let line = place.fails(&exec(&at, &[], &["gone"]), 1);
    assert!(line.contains("not available right now"), "{line}");
    assert!(!line.contains("nowhere"), "{line}");
    // Bounds are this end's to say.
    let many = ["x"; 300];
    let line = place.fails(&exec(&at, &[], &[&["printf"][..], &many].concat()), 2);
    assert!(line.contains("at most 256 words"), "{line}");
    let long = "x".repeat(40_000);
    let line = place.fails(&exec(&at, &[], &["printf", &long]), 2);
    assert!(line.contains("standard input"), "{line}");
}

#[test]
fn the_service_is_found_by_its_kind_or_by_its_name() {
    let place = Place::new();
    let two = ["a=command:/bin/sh", "b=command:/bin/cat", "c=exec:cat"];
    let server = serve(&place, &two);
    let at = server.address();
    let line = place.fails(&exec(&at, &[], &["cat"]), 7);
    assert!(line.contains("--service NAME"), "{line}");
    let output = place.run_with(&exec(&at, &["--service", "b"], &["cat"]), b"in");
    assert_eq!(text(&output.stdout), "in");
    let line = place.fails(&exec(&at, &["--service", "a"], &["cat"]), 7);
    assert!(line.contains("does not allow"), "{line}");
    let line = place.fails(&exec(&at, &["--service", "c"], &["cat"]), 7);
    assert!(line.contains("runs no programs"), "{line}");
    let line = place.fails(&["connect", &at, "a", "--trust", "any"], 7);
    assert!(line.contains("use it with `cepa exec"), "{line}");
    let output = place.run(&["services", &at, "--trust", "any"]);
    assert_eq!(
        text(&output.stdout),
        "a  programs\nb  programs\nc  command\n"
    );
    let line = place.fails(&["exec", &at], 2);
    assert!(line.contains("CMD"), "{line}");
    for wrong in ["a=command:", "a=command:cat", "a=command:/bin/a,/usr/bin/a"] {
        place.fails(&["serve", "tcp:127.0.0.1:0", "--service", wrong], 2);
    }
}

#[test]
fn only_peers_that_may_open_the_service_get_that_far() {
    let place = Place::new();
    let (_, friend) = place.identity("friend.pem");
    let words = ["tcp:127.0.0.1:0", "--allow", &friend, "--service", TOOLS];
    let server = place.serve(&words);
    let at = server.address();
    let key = place.text("friend.pem");
    let output = place.run(&exec(&at, &["--identity", &key], &["printf", "hi"]));
    assert_eq!(text(&output.stdout), "hi", "{}", text(&output.stderr));
    let output = place.run(&exec(&at, &[], &["printf", "hi"]));
    assert_ne!(output.status.code(), Some(0));
    assert_eq!(text(&output.stdout), "");
}

/// An upload that is cut must not look like a whole one.
#[test]
fn a_program_whose_input_is_cut_is_killed_with_all_that_it_has_started() {
    let place = Place::new();
    let server = serve(&place, &[TOOLS]);
    let at = server.address();
    let (note, pids) = (place.text("note"), place.text("pids"));
    let script = format!(
        "sleep 1000 & echo $! $$ > {pids}.new; mv {pids}.new {pids}; cat >/dev/null; echo whole > {note}"
    );
    let mut client = place
        .cepa(&exec(&at, &[], &["sh", "-c", &script]))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    client.stdin.as_mut().unwrap().write_all(b"half").unwrap();
    let start = Instant::now();
    let until = |is: &dyn Fn() -> bool| {
        while !is() {
            assert!(start.elapsed() < PATIENCE, "it did not happen");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    until(&|| std::fs::exists(&pids).unwrap());
    client.kill().unwrap();
    client.wait().unwrap();
    let pids = std::fs::read_to_string(&pids).unwrap();
    for pid in pids.split_whitespace() {
        until(&|| !is_running(pid));
    }
    assert!(!std::fs::exists(&note).unwrap());
}
