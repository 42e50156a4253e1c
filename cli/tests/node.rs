//! Nodes that run by a configuration file, introductions to their services, and looking at them.

mod common;

use std::fs;

use common::{Place, Server, text};

/// Writes a configuration for the identity `NAME.pem`, and starts the node.
fn node(place: &Place, name: &str, config: &str) -> (Server, String) {
    let (_, id) = place.identity(&format!("{name}.pem"));
    let file = place.text(&format!("{name}.toml"));
    fs::write(&file, format!("identity = \"{name}.pem\"\n{config}")).unwrap();
    let server = Server::start(place, &["node", "--config", &file]);
    let address = format!("cepa://{id}@{}", server.address());
    (server, address)
}

#[test]
fn a_node_runs_by_its_file_and_follows_its_changes() {
    let place = Place::new();
    let (friend, friend_id) = place.identity("friend.pem");
    let (other, other_id) = place.identity("other.pem");
    let begin = "control = \"node.sock\"\nlisten = [\"tcp:127.0.0.1:0\"]\n";
    let config = |rest: &str| format!("{begin}{rest}");
    let up = format!("[services.up]\nto = \"echo:\"\nallow = [\"{friend_id}\"]\n");
    let (mut server, at) = node(&place, "node", &config(&up));
    let to = format!("{at}/up");
    let output = place.run_with(&["connect", &to, "--identity", &friend], b"one");
    assert_eq!(text(&output.stdout), "one", "{}", text(&output.stderr));
    place.fails(&["connect", &to, "--identity", &other], 7);

    // A connection that is open stays open through all of this.
    let mut held = place
        .cepa(&["connect", &to, "--identity", &friend])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    server.wait_for("session with");
    let status = |words: &[&str]| {
        let control = place.text("node.sock");
        let output = place.run(&[&["mesh", "status", "--control", &control], words].concat());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let table = status(&[]);
    assert!(table.contains("services    up\n"), "{table}");
    let place_of = at.split_once('@').unwrap().1;
    let listening = format!("listening   {place_of}\n");
    assert!(table.contains(&listening), "{listening:?} in {table}");
    // It may not have been announced at this moment.
    let start = std::time::Instant::now();
    while !status(&[]).contains(&format!("{}…", &friend_id[..12])) {
        assert!(start.elapsed() < common::PATIENCE);
    }
    let json = status(&["--json"]);
    assert!(json.contains("\"version\":1"), "{json}");
    let status: serde_json::Value = serde_json::from_str(&json).unwrap();
    let number = |name: &str| status["metrics"][name].as_f64();
    assert!(number("cepa_sessions") >= Some(1.0), "{json}");
    let opened = number("cepa_requests_total{outcome=\"accepted\"}");
    assert!(opened >= Some(1.0), "{json}");
    assert!(
        json.contains(&format!("\"peer\":\"{friend_id}\"")),
        "{json}"
    );

    // Something wrong changes nothing.
    let file = place.text("node.toml");
    let write = |text: &str| fs::write(&file, format!("identity = \"node.pem\"\n{text}")).unwrap();
    write(&config("[services.up]\nto = 7\n"));
    server.signal("HUP");
    let line = server.wait_for("nothing has changed");
    assert!(line.contains("node.toml:5: "), "{line}");
    let output = place.run_with(&["connect", &to, "--identity", &friend], b"two");
    assert_eq!(text(&output.stdout), "two");

    // Another one may, one may no longer, and there is a new service.
    write(&config(&format!(
        "[services.up]\nto = \"echo:\"\nallow = [\"{other_id}\"]\n\
         [services.sum]\nto = \"exec:sha256sum\"\nallow = [\"{friend_id}\"]\n"
    )));
    server.signal("HUP");
    let line = server.wait_for("reloaded ");
    assert!(!line.contains("restart the node"), "{line}");
    let output = place.run_with(&["connect", &to, "--identity", &other], b"three");
    assert_eq!(text(&output.stdout), "three", "{}", text(&output.stderr));
    let line = place.fails(&["connect", &to, "--identity", &friend], 7);
    assert!(line.contains("open to you"), "{line}");
    let sum = format!("{at}/sum");
    let output = place.run_with(&["connect", &sum, "--identity", &friend], b"x\n");
    assert!(text(&output.stdout).starts_with("73cb3858"));

    // What was open is open still, though its peer may not open it any more.
    let mut input = held.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, b"still here").unwrap();
    drop(input);
    let output = common::finish(held);
    assert_eq!(
        text(&output.stdout),
        "still here",
        "{}",
        text(&output.stderr)
    );

    write(
        "listen = [\"tcp:127.0.0.1:0\", \"unix:x.sock\"]\n"
            .replace("unix:", &format!("unix:{}/", place.text("")))
            .as_str(),
    );
    server.signal("HUP");
    let line = server.wait_for("reloaded ");
    assert!(line.contains("to apply the changes in control"), "{line}");
    place.fails(&["connect", &to, "--identity", &other], 7);
    server.signal("TERM");
    assert_eq!(server.finish().0, Some(0));
    assert!(
        !place.path("node.sock").exists(),
        "the socket goes with the node"
    );
    let line = place.fails(
        &["mesh", "status", "--control", &place.text("node.sock")],
        5,
    );
    assert!(line.contains("is a node running"), "{line}");
}

#[test]
fn a_file_is_checked() {
    let place = Place::new();
    let (_, id) = place.identity("node.pem");
    let file = place.text("node.toml");
    let check = ["node", "--config", &file, "--check"];
    let line = place.fails(&check, 8);
    assert!(line.contains("node.toml"), "{line}");
    fs::write(
        &file,
        "identity = \"node.pem\"\nlisten = [\"tcp:127.0.0.1:0\"]\n",
    )
    .unwrap();
    let output = place.run(&check);
    assert!(text(&output.stdout).contains(&format!("valid; the peer id is {id}")));
    fs::write(&file, "listen = [\"tcp:127.0.0.1:0\"]\n\nlisen = 1\n").unwrap();
    let line = place.fails(&check, 2);
    assert!(
        line.contains("node.toml:3: unknown field `lisen`"),
        "{line}"
    );
    fs::write(
        &file,
        "listen = [\"tcp:127.0.0.1:0\"]\n[services.x]\nto = \"echo:\"\nallow = [\n  \"@nobody\"]\n",
    )
    .unwrap();
    let line = place.fails(&check, 2);
    assert!(
        line.contains("node.toml:5: no known peer is named"),
        "{line}"
    );
}

/// What is started is checked, with what only the identity tells.
#[test]
fn a_service_that_leads_to_the_node_itself_is_wrong_before_it_starts() {
    let place = Place::new();
    let (_, id) = place.identity("node.pem");
    let file = place.text("node.toml");
    let to = format!("cepa://{id}@tcp:127.0.0.1:1/x");
    let text = format!(
        "identity = \"node.pem\"\nlisten = [\"tcp:127.0.0.1:0\"]\n[services.up]\nto = \"{to}\"\n"
    );
    fs::write(&file, text).unwrap();
    for words in [
        &["node", "--config", &file, "--check"][..],
        &["node", "--config", &file],
    ] {
        let line = place.fails(words, 2);
        assert!(line.contains("is this machine"), "{line}");
    }
}

/// A reload goes by what runs: what has failed is tried again, what runs is not begun again, and a permission that is gone is gone
/// whatever else is wrong with its service.
#[test]
fn a_reload_goes_by_what_runs() {
    let place = Place::new();
    let (friend, friend_id) = place.identity("friend.pem");
    let (other, other_id) = place.identity("other.pem");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let second = format!("tcp:{}", taken.local_addr().unwrap());
    let config = |listen: &str, to: &str, allow: &str| {
        format!(
            "identity = \"node.pem\"\nlisten = [\"tcp:127.0.0.1:0\"{listen}]\n\
             [services.up]\nto = \"{to}\"\nallow = [{allow}]\n"
        )
    };
    let both = format!("\"{friend_id}\", \"{other_id}\"");
    let first = config("", "echo:", &both);
    let (mut server, at) = node(&place, "node", first.split_once('\n').unwrap().1);
    let to = format!("{at}/up");
    let file = place.text("node.toml");
    let with = format!(", \"{second}\"");
    fs::write(&file, config(&with, "echo:", &both)).unwrap();
    server.signal("HUP");
    server.wait_for("in use");
    server.wait_for("reloaded ");
    drop(taken);
    server.signal("HUP");
    server.wait_for(&format!("listening on {second}"));
    server.wait_for("reloaded ");
    // Taken out, it listens still, which is said; put back, there is nothing to do.
    fs::write(&file, &first).unwrap();
    server.signal("HUP");
    server.wait_for("to apply the changes in listen");
    fs::write(&file, config(&with, "echo:", &both)).unwrap();
    server.signal("HUP");
    let line = server.wait_for("reloaded ");
    assert!(!line.contains("restart the node"), "{line}");
    let all = server.seen().join("\n");
    assert_eq!(all.matches("in use").count(), 1, "{all}");
    // One may no longer, in a file that is wrong about where the service leads.
    let own = format!("{}/x", at.split_once('@').unwrap().0);
    let own = format!("{}@tcp:127.0.0.1:1/x", own.trim_end_matches("/x"));
    let only_other = format!("\"{other_id}\"");
    fs::write(&file, config(&with, &own, &only_other)).unwrap();
    server.signal("HUP");
    server.wait_for("the service up");
    server.wait_for("reloaded ");
    let line = place.fails(&["connect", &to, "--identity", &friend], 7);
    assert!(!line.is_empty());
    let output = place.run_with(&["connect", &to, "--identity", &other], b"x");
    assert_eq!(text(&output.stdout), "x", "{}", text(&output.stderr));
}

#[test]
fn a_peer_is_introduced_to_a_service_of_a_third_one() {
    let place = Place::new();
    let (alice, alice_id) = place.identity("alice.pem");
    let (bob, bob_id) = place.identity("bob.pem");
    let (carol, carol_id) = place.identity("carol.pem");
    let (_, dave_id) = place.identity("dave.pem");
    let config = format!(
        "listen = [\"tcp:127.0.0.1:0\"]\n[services.up]\nto = \"exec:sha256sum\"\n\
         introducers = [\"{alice_id}\"]\n[services.private]\nto = \"echo:\"\nallow = [\"{alice_id}\"]\n"
    );
    let (mut server, at) = node(&place, "owner", &config);
    let introduce = |words: &[&str]| {
        let output = place.run(&[&["introduce"], words].concat());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout).trim().to_owned()
    };
    let up = [&bob_id[..], &at, "up"];
    let it = introduce(
        &[
            &up[..],
            &["--uses", "2", "--further", "1", "--identity", &alice],
        ]
        .concat(),
    );
    let output = place.run_with(&["connect", &it, "--identity", &bob], b"x\n");
    assert!(
        text(&output.stdout).starts_with("73cb3858"),
        "{}",
        text(&output.stderr)
    );
    server.wait_for(&format!("introduced by {alice_id}"));

    // Theft, and what else does not work; each says which step.
    let line = place.fails(&["connect", &it, "--identity", &carol], 7);
    assert!(line.contains("for another peer"), "{line}");
    let line = place.fails(&["connect", &format!("{at}/up"), "--identity", &bob], 7);
    assert!(line.contains("open to you"), "{line}");
    let line = place.fails(&["introduce", &dave_id, &it, "--identity", &carol], 2);
    assert!(line.contains("not for"), "{line}");
    let private = introduce(&[&bob_id, &at, "private", "--identity", &alice]);
    let line = place.fails(&["connect", &private, "--identity", &bob], 7);
    assert!(line.contains("may not introduce"), "{line}");
    let line = place.fails(&["connect", &it[..it.len() - 3], "--identity", &bob], 2);
    assert!(line.contains("introduction"), "{line}");

    // Passed on, and used up with the second use.
    let on = introduce(&[&carol_id, &it, "--identity", &bob]);
    let output = place.run_with(&["connect", &on, "--identity", &carol], b"x\n");
    assert!(
        text(&output.stdout).starts_with("73cb3858"),
        "{}",
        text(&output.stderr)
    );
    server.wait_for(&format!(
        "introduced by {bob_id}, who was introduced by {alice_id}"
    ));
    let line = place.fails(&["connect", &it, "--identity", &bob], 7);
    assert!(line.contains("has been used up"), "{line}");

    // Taken back, by who issued it and nobody else.
    let it = introduce(&[&up[..], &["--uses", "0", "--identity", &alice]].concat());
    let line = place.fails(&["introduce", "--revoke", &it, "--identity", &bob], 7);
    assert!(
        line.contains("only its issuer") && line.contains(&alice_id),
        "{line}"
    );
    let output = place.run(&["introduce", "--revoke", &it, "--identity", &alice]);
    assert!(
        text(&output.stderr).starts_with("revoked the introduction to "),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let line = place.fails(&["connect", &it, "--identity", &bob], 7);
    assert!(line.contains(&format!("revoked by {alice_id}")), "{line}");

    // Nobody there: the step that failed is the connection.
    server.signal("TERM");
    assert_eq!(server.finish().0, Some(0));
    let it = introduce(&[&up[..], &["--identity", &alice]].concat());
    let line = place.fails(&["connect", &it, "--identity", &bob], 5);
    assert!(line.contains("not connected"), "{line}");
}

#[test]
fn a_membrane_is_revoked_by_the_file() {
    let place = Place::new();
    let (front, front_id) = place.identity("front.pem");
    let server = place.serve(&[
        "tcp:127.0.0.1:0",
        "--service",
        "say=echo:",
        "--allow",
        &front_id,
        "--identity",
        &place.identity("server.pem").0,
    ]);
    let config = |revoked: bool| {
        format!(
            "identity = \"{front}\"\nlisten = [\"tcp:127.0.0.1:0\"]\n\
             [services.say]\nto = \"cepa://{}@{}/say\"\nallow = [\"any\"]\nmembrane = \"friends\"\n\
             [membranes.friends]\nrevoked = {revoked}\n",
            server.id(),
            server.address(),
        )
    };
    let file = place.text("front.toml");
    fs::write(&file, config(false)).unwrap();
    let mut node = Server::start(&place, &["node", "--config", &file]);
    let to = format!("cepa://{front_id}@{}/say", node.address());
    // A message is two bytes of length and a CBOR item, here a text.
    let message = b"\x00\x03\x62hi";
    let output = place.run_with(&["connect", &to], message);
    assert_eq!(output.stdout, message, "{}", text(&output.stderr));
    let output = place.run_with(&["connect", &to], b"hello");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    node.wait_for("its end is missing");
    let text_of = "cepa-introduction:ogAB";
    let smuggled = [&[0, 23, 0x76][..], text_of.as_bytes()].concat();
    let output = place.run_with(&["connect", &to], &smuggled);
    assert_eq!((output.status.code(), output.stdout), (Some(1), Vec::new()));
    node.wait_for("outside of the tag");

    fs::write(&file, config(true)).unwrap();
    node.signal("HUP");
    node.wait_for("revoked the membrane friends");
    node.wait_for("reloaded ");
    let line = place.fails(&["connect", &to], 7);
    assert!(line.contains("this membrane was revoked"), "{line}");
    // Made anew, it is another one.
    fs::write(&file, config(false)).unwrap();
    node.signal("HUP");
    node.wait_for("reloaded ");
    let output = place.run_with(&["connect", &to], message);
    assert_eq!(output.stdout, message, "{}", text(&output.stderr));
}

#[test]
fn what_checks_or_fails_to_listen_makes_no_identity() {
    let place = Place::new();
    let file = place.text("node.toml");
    fs::write(&file, "listen = [\"tcp:127.0.0.1:0\"]\n").unwrap();
    let output = place.run(&["node", "--config", &file, "--check"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("valid"));
    // An address of nobody's machine (RFC 5737).
    place.fails(&["serve", "tcp:192.0.2.1:7", "--service", "up=echo:"], 8);
    place.fails(&["relay", "tcp:192.0.2.1:7", "--allow", "any"], 8);
    assert!(!place.path("config").exists());
    fs::write(&file, "listen = [\"tcp:192.0.2.1:7\"]\n").unwrap();
    place.fails(&["node", "--config", &file], 8);
    assert!(!place.path("config").exists());
    // And who listens has one.
    let _server = place.serve(&["tcp:127.0.0.1:0", "--service", "up=echo:"]);
    assert!(place.path("config").join("identity.pem").exists());
}

#[test]
fn the_status_of_a_relay_has_its_idle_and_taken_back_circuits() {
    let place = Place::new();
    let config =
        "listen = [\"tcp:127.0.0.1:0\"]\ncontrol = \"it.sock\"\n[relay]\nallow = [\"any\"]\n";
    let (_server, _) = node(&place, "relay", config);
    let status = ["mesh", "status", "--control", &place.text("it.sock")];
    let table = text(&place.run(&status).stdout);
    assert!(
        table.contains("0 idle") && table.contains("0 taken_back"),
        "{table}"
    );
}

/// It must not outlive a test that fails.
struct Killed(std::process::Child);
impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// SIGHUP means its file, unless the terminal is gone that it runs at.
#[test]
fn a_node_at_a_terminal_ends_with_it_and_reads_its_file_at_a_plain_signal() {
    use std::io::Read as _;
    let place = Place::new();
    place.identity("node.pem");
    let file = place.text("node.toml");
    fs::write(
        &file,
        "identity = \"node.pem\"\nlisten = [\"tcp:127.0.0.1:0\"]\ncontrol = \"node.sock\"\n",
    )
    .unwrap();
    let flags = rustix::pty::OpenptFlags::RDWR
        | rustix::pty::OpenptFlags::NOCTTY
        | rustix::pty::OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags).unwrap();
    rustix::pty::grantpt(&master).unwrap();
    rustix::pty::unlockpt(&master).unwrap();
    let name = rustix::pty::ptsname(&master, Vec::new()).unwrap();
    let slave = fs::File::options()
        .read(true)
        .write(true)
        .open(name.to_str().unwrap())
        .unwrap();
    // The session's leader, so that it is its controlling terminal; setsid becomes the node.
    let mut command = std::process::Command::new("setsid");
    command
        .arg("--ctty")
        .arg(common::bin())
        .args(["node", "--config", &file])
        .env("CEPA_CONFIG_DIR", place.path("config"))
        .stdin(slave.try_clone().unwrap())
        .stdout(slave.try_clone().unwrap())
        .stderr(slave);
    let mut child = Killed(command.spawn().unwrap());
    // The command has ends of its own of it.
    drop(command);
    let mut master = fs::File::from(master);
    let mut seen = String::new();
    let mut until = |what: &str| {
        while !seen.contains(what) {
            let mut bytes = [0; 1024];
            let n = master.read(&mut bytes).unwrap();
            seen += &text(&bytes[..n]);
        }
    };
    until("listening on ");
    let control = place.text("node.sock");
    let start = std::time::Instant::now();
    while !place.path("node.sock").exists() {
        assert!(start.elapsed() < common::PATIENCE);
    }
    let status = place.succeeds(&["status", "--json", "--control", &control]);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert!(common::signal(&status["pid"].to_string(), "HUP"));
    until("reloaded ");
    assert!(child.0.try_wait().unwrap().is_none());
    // The window is closed.
    drop(master);
    let start = std::time::Instant::now();
    while child.0.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < common::PATIENCE, "it goes on");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(!place.path("node.sock").exists(), "it has ended in order");
}
