//! What servers and clients say of themselves on standard error: what there is to wait for, who is let in, and nothing twice.

mod common;

use std::io::Read as _;
use std::process::Stdio;

use common::{Place, Server, bin, finish, text};

/// A server that was asked to end tells what it waits for, and who asks again waits no longer.
#[test]
fn an_end_that_takes_its_time_says_for_what() {
    let place = Place::new();
    let words = [
        "tcp:127.0.0.1:0",
        "--allow",
        "any",
        "--service",
        "slow=exec:sleep 1000",
    ];
    for again in [false, true] {
        let mut server = place.serve(&words);
        let address = server.address();
        let client = place
            .cepa(&["connect", &address, "slow", "--trust", "any"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        server.wait_for("session with");
        // Until the command runs, there may be nothing to wait for.
        let start = std::time::Instant::now();
        while !sleeps(server.pid()) {
            assert!(
                start.elapsed() < common::PATIENCE,
                "the command has not begun"
            );
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        server.signal("INT");
        // Which key to press is for somebody at a terminal.
        let line = server.wait_for("waiting ");
        assert!(
            line.ends_with("waiting 3 s for what is open in 1 session"),
            "{line}"
        );
        if again {
            server.signal("INT");
        }
        let (code, seen) = server.finish();
        assert_eq!(code, Some(0), "{seen}");
        finish(client);
    }
    // Where there is nothing to wait for, nothing is said.
    let server = place.serve(&words);
    server.signal("INT");
    let (code, seen) = server.finish();
    assert_eq!(code, Some(0), "{seen}");
    assert!(!seen.contains("waiting"), "{seen}");
}

/// Whether this process has a child.
fn sleeps(parent: u32) -> bool {
    let children = format!("/proc/{parent}/task");
    let tasks = std::fs::read_dir(children).unwrap();
    let mut lists =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
    lists.any(|list| !list.trim().is_empty())
}

#[test]
fn a_server_that_lets_nobody_in_says_so_however_it_was_configured() {
    let place = Place::new();
    let listen = ["tcp:127.0.0.1:0", "--service", "up=echo:"];
    for allow in [&[][..], &["--allow", "known"]] {
        place
            .serve(&[&listen[..], allow].concat())
            .wait_for("nobody is allowed yet");
        let words = [&["relay", "tcp:127.0.0.1:0"][..], allow].concat();
        Server::start_at(&place, &words, "nobody is allowed yet");
    }
    let file = place.path("node.toml");
    let config = "listen = [\"tcp:127.0.0.1:0\"]\n[services.up]\nto = \"echo:\"\n";
    std::fs::write(&file, config).unwrap();
    let words = ["node", "--config", file.to_str().unwrap()];
    Server::start_at(&place, &words, "nobody is allowed yet");
    std::fs::write(&file, format!("{config}allow = [\"known\"]\n")).unwrap();
    Server::start_at(&place, &words, "nobody is allowed yet");
    let added = place.run(&["peer", "add", "ann", &"a".repeat(52)]);
    assert!(added.status.success());
    let server = place.serve(&[&listen[..], &["--allow", "known"]].concat());
    server.signal("INT");
    let (_, seen) = server.finish();
    assert!(!seen.contains("nobody"), "{seen}");
}

/// A peer that is started for one session says nothing of that session, and of what failed nothing twice.
#[test]
fn a_command_that_leads_to_a_peer_is_quiet_where_all_is_well() {
    let place = Place::new();
    assert!(place.run(&["id", "show"]).status.success());
    let program = bin().to_str().unwrap();
    let exec = format!("exec:{program} serve stdio: --service up=echo: --allow any");
    let output = place.run_with(&["connect", &exec, "up", "--trust", "any"], b"hello");
    assert_eq!(text(&output.stdout), "hello");
    let said = text(&output.stderr);
    assert!(!said.contains("[peer]"), "{said}");
    let fails = "exec:sh -c 'echo no such host >&2; exit 255'";
    let output = place.run(&["connect", fails, "up", "--trust", "any"]);
    assert_eq!(output.status.code(), Some(5));
    let said = text(&output.stderr);
    assert!(said.contains("[peer] no such host"), "{said}");
    assert!(!said.contains("its last line was"), "{said}");
}

#[test]
fn a_service_in_the_address_of_a_forward_is_not_left_out_unsaid() {
    let place = Place::new();
    let address = format!("cepa://{}@tcp:127.0.0.1:1/echo", "a".repeat(52));
    let words = ["forward", &address, "-L", "tcp:127.0.0.1:0=db"];
    let line = place.fails(&words, 2);
    assert!(line.contains("leave /echo out"), "{line}");
}

/// What does not work is said by who knows why.
#[test]
fn a_service_whose_program_is_missing_points_to_the_log_that_explains() {
    let place = Place::new();
    let none = "bad=exec:/no/such/program";
    let mut server = place.serve(&["tcp:127.0.0.1:0", "--allow", "any", "--service", none]);
    let line = place.fails_quietly(&["connect", &server.address(), "--expect", &server.id()], 7);
    assert!(line.contains("the server's log says why"), "{line}");
    let reported = server.wait_for("service bad for ");
    assert!(reported.contains("/no/such/program"), "{reported}");
    // It was asked for without a name, and that is nobody's fault.
    server.signal("TERM");
    let said = server.finish().1;
    assert!(!said.contains("refused"), "{said}");
}

/// Its lines would be read at the other end, as if they were for who is there.
#[test]
fn a_server_of_one_session_says_nothing_of_its_own_end() {
    let place = Place::new();
    let (script, pid) = (place.path("serve"), place.path("pid"));
    let service = "s=exec:sh -c 'echo up; exec sleep 600'";
    let serve = format!(
        "echo $$ >'{}'\nexec '{}' serve stdio: --allow any --service \"{service}\"\n",
        pid.display(),
        common::bin().display(),
    );
    std::fs::write(&script, serve).unwrap();
    let at = format!("exec:sh {}", script.display());
    let words = ["connect", &at, "s", "--trust", "any"];
    let mut client = place.cepa(&words).stdin(Stdio::piped()).spawn().unwrap();
    client
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut [0; 3])
        .unwrap();
    let pid = std::fs::read_to_string(pid).unwrap();
    assert!(common::signal(pid.trim(), "TERM"));
    let output = finish(client);
    let said = text(&output.stderr);
    assert_ne!(output.status.code(), Some(0), "{said}");
    for wrong in ["waiting", "^C"] {
        assert!(!said.contains(wrong), "{said}");
    }
}
