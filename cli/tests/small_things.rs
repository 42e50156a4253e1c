//! What a person meets first, or only once: a stranger behind a command, Ctrl-C, a terminal that is closed, a device that is not there.

mod common;

use std::fs;

use common::desk::Desk;
use common::{Place, Server, bin, text};

/// A command that leads to a server of its own place, counts its runs in `runs`, and says what the server says in `said`.
fn command(server: &Place, client: &str) -> String {
    let script = server.text("remote.sh");
    let words = format!(
        "echo run >> {runs}\nexport CEPA_CONFIG_DIR={config}\nexec {cepa} serve stdio: --allow {client} --service up=echo: 2>> {said}\n",
        runs = server.text("runs"),
        config = server.text("config"),
        cepa = bin().display(),
        said = server.text("said"),
    );
    fs::write(&script, words).unwrap();
    format!("exec:sh {script}")
}

fn read(place: &Place, name: &str) -> String {
    fs::read_to_string(place.path(name)).unwrap_or_default()
}

/// At a terminal, with this answer to the question.
fn answering(place: &Place, address: &str, answer: &str) -> (Option<i32>, String) {
    let words = ["connect", address, "up"];
    let mut desk = Desk::sit_down(place, &words, (33, 101));
    desk.until("[yes/no, or paste its id] ");
    desk.type_in(&format!("{answer}\r"));
    desk.until("\r\n");
    // The end of the input.
    desk.type_in("\x04");
    desk.leave()
}

#[test]
fn at_first_contact_a_command_runs_once_and_its_server_is_not_alarmed() {
    let (client, server) = (Place::new(), Place::new());
    let own = client.succeeds(&["id", "show"]);
    let id = server.succeeds(&["id", "show"]);
    let words = server.succeeds(&["id", "show", "--words"]);
    let address = command(&server, own.trim());
    let (code, seen) = answering(&client, &address, "no");
    assert_eq!(code, Some(4), "{seen}");
    assert_eq!(client.succeeds(&["peer", "ls"]), "");
    let all = [
        "YES".to_owned(),
        "y".to_owned(),
        id,
        words.replace('\n', " "),
    ];
    for (n, answer) in all.iter().enumerate() {
        let (code, seen) = answering(&client, &address, answer.trim());
        assert_eq!(code, Some(0), "{answer}: {seen}");
        assert!(client.succeeds(&["peer", "ls"]).contains(" how=asked "));
        assert_eq!(read(&server, "runs").lines().count(), n + 2, "{answer}");
        let known = client.succeeds(&["peer", "ls"]);
        let name = known.split(' ').next().unwrap();
        client.succeeds(&["peer", "rm", name]);
    }
    let said = read(&server, "said");
    assert!(!said.contains("alert"), "{said}");
    // Another one's id is no yes.
    let (code, seen) = answering(&client, &address, own.trim());
    assert_eq!(code, Some(4), "{seen}");
}

/// The same key ends the command that leads to the peer, and that may be noticed first.
#[test]
fn ctrl_c_ends_a_forward_through_a_command_without_a_word_about_its_session() {
    for durable in ["--durable", "--no-durable"] {
        let (client, server) = (Place::new(), Place::new());
        let own = client.succeeds(&["id", "show"]);
        server.succeeds(&["id", "show"]);
        // As ssh: what is killed is the way there.
        let serving = format!(
            "env CEPA_CONFIG_DIR={} setsid --wait {} serve stdio: --allow {} --service up=echo:",
            server.text("config"),
            bin().display(),
            own.trim()
        );
        let script = server.text("way.sh");
        fs::write(&script, format!("cat | {serving} 2>/dev/null | cat\n")).unwrap();
        let address = format!("exec:sh {script}");
        let words = ["forward", &address, "-L", "0=up", "--trust", "any", durable];
        for _ in 0..5 {
            let mut desk = Desk::sit_down(&client, &words, (33, 101));
            desk.until("listening on ");
            desk.until("\r\n");
            desk.type_in("\x03");
            let (code, seen) = desk.leave();
            assert_eq!(code, Some(0), "{durable}: {seen}");
            assert!(!seen.contains(" lost"), "{durable}: {seen}");
            assert!(
                !seen.contains("was cut") && !seen.contains("the peer"),
                "{durable}: {seen}"
            );
        }
    }
}

/// Both happen while the program stands still, so either may be noticed first.
#[test]
fn a_forward_whose_way_ends_with_the_same_signal_ends_in_order() {
    let (client, server) = (Place::new(), Place::new());
    let own = client.succeeds(&["id", "show"]);
    server.succeeds(&["id", "show"]);
    let address = command(&server, own.trim());
    let words = ["forward", &address, "-L", "0=up", "--trust", "any"];
    for _ in 0..8 {
        let forward = Server::start(&client, &words);
        let pid = forward.pid().to_string();
        let mut children = std::process::Command::new("ps");
        let children = children.args(["-o", "pid=", "--ppid", &pid]).output();
        let way = text(&children.unwrap().stdout).trim().to_owned();
        forward.signal("STOP");
        assert!(common::signal(&way, "KILL"));
        forward.signal("INT");
        forward.signal("CONT");
        let (status, said) = forward.finish();
        assert_eq!(status, Some(0), "{said}");
        assert!(
            !said.contains(" lost") && !said.contains("was cut"),
            "{said}"
        );
    }
}

fn node(place: &Place) -> String {
    let file = place.text("node.toml");
    let text = "listen = [\"tcp:127.0.0.1:0\"]\n[services.up]\nto = \"echo:\"\nallow = [\"any\"]\n";
    fs::write(&file, text).unwrap();
    file
}

#[test]
fn a_node_ends_with_its_terminal_and_reloads_at_a_hang_up_that_somebody_sends() {
    let place = Place::new();
    let file = node(&place);
    let mut desk = Desk::sit_down(&place, &["node", "--config", &file], (33, 101));
    desk.until("listening on ");
    let pid = desk.child.id().to_string();
    assert!(common::signal(&pid, "HUP"));
    desk.until("reloaded ");
    // The terminal is closed.
    let Desk {
        master,
        slave,
        mut child,
        screen,
        ..
    } = desk;
    drop((master, slave));
    // Who reads the screen holds it open until it reads something: what is said of this.
    drop(screen);
    assert!(common::signal(&pid, "HUP"));
    let start = std::time::Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > common::PATIENCE {
            child.kill().unwrap();
            panic!("it goes on without its terminal");
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_node_without_a_terminal_reloads_at_every_hang_up() {
    let place = Place::new();
    let file = node(&place);
    let mut command = std::process::Command::new("setsid");
    let mut of = place.cepa(&["node", "--config", &file]);
    command
        .arg("--wait")
        .arg(of.get_program())
        .args(of.get_args())
        .env("CEPA_CONFIG_DIR", place.path("config"))
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    of.stdin(std::process::Stdio::null());
    let mut node = Server::of(&mut command, "listening on ");
    node.signal("HUP");
    node.wait_for("reloaded ");
    node.signal("TERM");
    assert_eq!(node.finish().0, Some(0));
}

#[test]
fn a_device_that_is_not_there_leads_to_the_list_of_those_that_are() {
    let place = Place::new();
    let at = format!("serial:{}", place.text("none"));
    // Dialled, it is not reached; listened at, it is this machine's own fault.
    for (code, words) in [
        (5, &["connect", &at, "up", "--trust", "any"][..]),
        (
            8,
            &["serve", &at, "--allow", "any", "--service", "up=echo:"],
        ),
        (5, &["probe", &at]),
    ] {
        let line = place.fails_quietly(words, code);
        assert!(line.contains("`cepa ports` shows"), "{line}");
    }
}

#[test]
fn what_is_missing_or_meant_is_said_at_once() {
    let place = Place::new();
    let id = place.succeeds(&["id", "show"]);
    let id = id.trim();
    let other = Place::new().succeeds(&["id", "show"]);
    let other = other.trim();
    let at = format!("cepa://{other}@{id}@tcp:127.0.0.1:1/up");
    let line = place.fails(&["connect", &at], 2);
    assert!(
        line.contains(&format!("relay:{id}@tcp:127.0.0.1:1")),
        "{line}"
    );
    let owner = format!("cepa://{id}@tcp:127.0.0.1:1");
    let line = place.fails(&["introduce", other, &owner], 2);
    assert!(line.contains("cepa introduce A B SERVICE"), "{line}");
    let mut server = Server::start_at(
        &place,
        &["serve", "tcp:127.0.0.1:0", "--allow", "any"],
        "listening on ",
    );
    server.wait_for("no service is offered; give --service NAME=ADDR");
    let server = place.serve(&["tcp:127.0.0.1:0", "--allow", "any", "--service", "up=echo:"]);
    let words = [
        "forward",
        &server.address(),
        "-L",
        "0=nope",
        "--trust",
        "any",
    ];
    let output = place.run(&words);
    assert_eq!(output.status.code(), Some(7));
    assert!(text(&output.stderr).contains("offers no service nope; you may open: up"));
}
