//! `cepa status`: what long-running commands tell of themselves at their control sockets, each in a process of its own.

mod common;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::Instant;

use cepa::transports::testkit::LineSettings;
use common::desk::Desk;
use common::line::join;
use common::{PATIENCE, Place, Server, failed, finish, text};
use serde_json::Value;

/// What a command tells at this socket.
fn status(place: &Place, control: &str) -> Value {
    let json = place.succeeds(&["status", "--json", "--control", control]);
    assert_eq!(json.lines().count(), 1, "{json}");
    serde_json::from_str(&json).unwrap()
}

/// The same once it is as it should be.
#[track_caller]
fn status_when(place: &Place, control: &str, is: impl Fn(&Value) -> bool) -> Value {
    let start = Instant::now();
    loop {
        let status = status(place, control);
        if is(&status) {
            return status;
        }
        assert!(start.elapsed() < PATIENCE, "{status:#}");
    }
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name]
        .as_array()
        .unwrap_or_else(|| panic!("{name} in {value:#}"))
}

fn number(value: &Value, name: &str) -> f64 {
    value[name]
        .as_f64()
        .unwrap_or_else(|| panic!("{name} in {value:#}"))
}

/// A `connect` to a service that sends everything back, when it has done so once.
fn held(place: &Place, words: &[&str], said: &[u8]) -> Child {
    let mut child = place
        .cepa(&[&["connect"], words].concat())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.as_mut().unwrap().write_all(said).unwrap();
    let mut back = vec![0; said.len()];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut back)
        .unwrap();
    assert_eq!(back, said);
    child
}

#[track_caller]
fn ended(mut child: Child) {
    drop(child.stdin.take());
    let output = finish(child);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

/// What the two ends of a line tell of it is the same.
#[test]
fn the_link_of_a_serial_line_stands_among_the_layers() {
    let place = Place::new();
    let runtime = join(&place, &LineSettings::new(1_000_000.0), 1);
    let port = |name: &str| format!("serial:{},baud=115200", place.text(name));
    let control = place.text("serve.sock");
    let words = ["--allow", "any", "--service", "up=echo:", "--control"];
    let server = place.serve(&[&[&port("b")[..]], &words[..], &[&control]].concat());
    let id = server.id();
    let said = common::noise(20_000);
    let child = held(&place, &[&port("a"), "up", "--expect", &id], &said);
    let fits = |seen: &Value| {
        let [session] = list(seen, "sessions") else {
            return false;
        };
        let layers = list(session, "layers");
        let names: Vec<_> = layers.iter().map(|it| &it["layer"]).collect();
        assert_eq!(names, ["mux", "tls", "link", "serial"]);
        let [_, tls, link, serial] = layers else {
            panic!("{layers:#?}")
        };
        let all_of = |way: &str| {
            let of = |layer: &Value, what: &str| number(layer, &format!("{what}_{way}"));
            // All that TLS has sealed went through it, and more than that onto the line.
            of(link, "data") >= of(tls, "bytes")
                && of(link, "bytes") > of(link, "data")
                && of(link, "data") > 20_000.0
                && of(serial, "bytes") >= of(link, "bytes")
        };
        let frames = |what: &str| number(link, &format!("frames_{what}"));
        all_of("in") && all_of("out") && frames("sent") > 20.0 && frames("received") > 20.0
    };
    status_when(&place, &control, fits);
    let shown = place.succeeds(&["status", "--control", &control]);
    let shown: Vec<_> = shown.split_whitespace().collect();
    assert!(shown.join(" ").contains(", link "), "{shown:?}");
    ended(child);
    drop(server);
    runtime.shutdown_background();
}

#[test]
fn a_server_shows_its_sessions_and_what_is_open_in_them() {
    let place = Place::new();
    let (friend, friend_id) = place.identity("friend.pem");
    place.succeeds(&["peer", "add", "ann", &friend_id]);
    let control = place.text("serve.sock");
    let server = place.serve(&[
        "tcp:127.0.0.1:0",
        "--allow",
        "@ann",
        "--service",
        "up=echo:",
        "--control",
        &control,
    ]);
    let mode = std::fs::metadata(&control).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "it is its owner's alone");
    let empty = status(&place, &control);
    assert_eq!(empty["version"], 2);
    assert_eq!(empty["command"], "serve");
    assert_eq!(empty["peer"], server.id());
    assert_eq!(empty["pid"], server.pid());
    assert_eq!(list(&empty, "listening"), [server.address()]);
    assert_eq!(list(&empty, "services"), ["up"]);
    assert_eq!(list(&empty, "sessions"), [] as [Value; 0]);
    assert_eq!(empty["session_count"], 0);
    assert_eq!(empty["relay"], Value::Null);

    let (address, id) = (server.address(), server.id());
    let words = [&address, "up", "--expect", &id, "--identity", &friend];
    let said = common::noise(20_000);
    let child = held(&place, &words, &said);
    let seen = status_when(&place, &control, |it| it["session_count"] == 1);
    let [session] = list(&seen, "sessions") else {
        panic!("{seen:#}")
    };
    assert_eq!(session["peer"], friend_id);
    assert_eq!(session["name"], "ann");
    assert_eq!(session["direction"], "in");
    assert_eq!(session["state"], "connected");
    let path = session["path"].as_str().unwrap();
    assert!(path.starts_with("tcp 127.0.0.1:"), "{path}");
    assert!(number(session, "round_trip_ms") > 0.0);
    assert!(number(session, "age_s") > 0.0);
    let [stream] = list(session, "streams") else {
        panic!("{session:#}")
    };
    assert_eq!(session["stream_count"], 1);
    // With its standard error and its exit status.
    assert_eq!(stream["service"], "cepa.exec.up");
    assert_eq!(stream["direction"], "in");
    assert_eq!(
        (&stream["priority"], &stream["weight"]),
        (&3.into(), &8.into())
    );
    assert_eq!(stream["queued"], 0);
    // Nothing passes while it is looked at.
    assert_eq!(
        (number(stream, "rate_in"), number(stream, "rate_out")),
        (0.0, 0.0)
    );
    // From the top down, each carries what is above it.
    let names: Vec<_> = list(session, "layers")
        .iter()
        .map(|it| &it["layer"])
        .collect();
    assert_eq!(names, ["mux", "tls", "tcp"]);
    for way in ["in", "out"] {
        let bytes = format!("bytes_{way}");
        let mut below = number(stream, &bytes);
        assert!(below > 20_000.0, "{stream:#}");
        for layer in list(session, "layers") {
            let passed = number(layer, &bytes);
            assert!(passed >= below, "{way}: {session:#}");
            below = passed;
        }
        assert!(number(session, &bytes) > 20_000.0);
    }

    let table = place.succeeds(&["status", "--control", &control]);
    for line in table.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    for part in [
        "command     cepa serve, process ",
        "sessions    1, with 1 stream\n",
        &format!("\nann ({}…) in tcp 127.0.0.1:", &friend_id[..12]),
        "round trip",
        "  cepa.exec.up          3",
    ] {
        assert!(table.contains(part), "{part:?} in\n{table}");
    }
    ended(child);
    status_when(&place, &control, |it| it["session_count"] == 0);
}

/// Bytes that pass have a rate; who watches gets a line each second, and hears of the end.
#[test]
fn who_watches_sees_what_passes_until_the_command_ends() {
    let place = Place::new();
    let control = place.text("serve.sock");
    let server = place.serve(&[
        "tcp:127.0.0.1:0",
        "--allow",
        "any",
        "--service",
        "flow=exec:cat /dev/zero",
        "--control",
        &control,
    ]);
    let (address, id) = (server.address(), server.id());
    let mut client = place
        .cepa(&["connect", &address, "flow", "--expect", &id])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut watching = place
        .cepa(&["status", "--json", "--watch", "--control", &control])
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    let flows = |status: &Value| {
        list(status, "sessions").iter().any(|session| {
            let mut streams = list(session, "streams").iter();
            number(session, "rate_out") > 0.0 && streams.any(|it| number(it, "rate_out") > 0.0)
        })
    };
    while !flows(&next()) {}
    assert!(flows(&next()));
    server.signal("TERM");
    let (code, _) = server.finish();
    assert_eq!(code, Some(0));
    for line in lines {
        line.unwrap();
    }
    let output = finish(watching);
    let said = failed(&output, 6);
    assert!(said.contains("the command has ended"), "{said}");
    client.kill().unwrap();
    client.wait().unwrap();
    assert!(
        !place.path("serve.sock").exists(),
        "the socket goes with it"
    );
}

#[test]
fn a_relay_a_node_and_a_forward_show_what_they_do() {
    let place = Place::new();
    let (relay_file, relay_id) = place.identity("relay.pem");
    let relay_control = place.text("relay.sock");
    let relay = Server::start_at(
        &place,
        &[
            "relay",
            "tcp:127.0.0.1:0",
            "--identity",
            &relay_file,
            "--allow",
            "any",
            "--control",
            &relay_control,
        ],
        "relaying on ",
    );
    let line = relay.seen().iter().find(|line| line.contains("cepa://"));
    let at = line.unwrap().split(' ').next_back().unwrap().to_owned();

    let (_, node_id) = place.identity("node.pem");
    let config = format!(
        "identity = \"node.pem\"\nregister = [\"{at}\"]\n\
         [services.up]\nto = \"echo:\"\nallow = [\"any\"]\n"
    );
    std::fs::write(place.path("node.toml"), config).unwrap();
    // The option counts, whatever the file says.
    let node_control = place.text("node.sock");
    let file = place.text("node.toml");
    let node = Server::start_at(
        &place,
        &["node", "--config", &file, "--control", &node_control],
        "reachable at ",
    );
    let line = node.seen().last().unwrap();
    let to = line.split(' ').next_back().unwrap().to_owned();

    let control = place.text("forward.sock");
    let forward = Server::start(
        &place,
        &[
            "forward",
            &to,
            "-L",
            "tcp:127.0.0.1:0=up",
            "--control",
            &control,
        ],
    );
    let local = forward.address();
    let local = local.strip_prefix("tcp:").unwrap();
    let mut open = std::net::TcpStream::connect(local).unwrap();
    open.write_all(b"hello").unwrap();
    open.read_exact(&mut [0; 5]).unwrap();

    let seen = status(&place, &control);
    assert_eq!(seen["command"], "forward");
    assert_eq!(list(&seen, "listening"), [forward.address()]);
    let sessions = list(&seen, "sessions");
    let to_node = sessions.iter().find(|it| it["peer"] == node_id).unwrap();
    assert_eq!(to_node["direction"], "out");
    assert_eq!(list(to_node, "relays"), [&relay_id[..]]);
    let layers = list(to_node, "layers");
    let names: Vec<_> = layers.iter().map(|it| &it["layer"]).collect();
    assert_eq!(names, ["mux", "resume", "tls", "relay"]);
    assert_eq!(layers[1]["connections"], 1);
    let [stream] = list(to_node, "streams") else {
        panic!("{to_node:#}")
    };
    assert_eq!(
        (&stream["service"], &stream["direction"]),
        (&"up".into(), &"out".into())
    );
    assert!(sessions.iter().any(|it| it["peer"] == relay_id), "{seen:#}");

    let seen = status(&place, &node_control);
    assert_eq!(seen["command"], "node");
    assert_eq!(list(&seen, "registered"), [&relay_id[..]]);
    let sessions = list(&seen, "sessions");
    let from = sessions.iter().find(|it| it["direction"] == "in").unwrap();
    assert_eq!(list(from, "streams")[0]["service"], "up");

    let seen = status(&place, &relay_control);
    assert_eq!(seen["command"], "relay");
    assert_eq!(seen["relay"]["circuits"], 1);
    assert_eq!(seen["relay"]["registrations"], 1);
    assert_eq!(seen["session_count"], 2);
    let table = place.succeeds(&["status", "--control", &relay_control]);
    assert!(table.contains("1 circuits, "), "{table}");
    drop(open);
}

#[test]
fn where_nothing_answers_it_is_said_what_to_start() {
    let place = Place::new();
    let nowhere = place.text("none.sock");
    let line = place.fails(&["status", "--control", &nowhere], 5);
    assert!(line.contains("none.sock"), "{line}");
    assert!(line.contains("running with `--control`"), "{line}");
    // Something else is there.
    let other = place.text("other.sock");
    let listener = std::os::unix::net::UnixListener::bind(&other).unwrap();
    let other_end = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        assert!(stream.read(&mut [0; 100]).unwrap() > 0);
        stream.write_all(b"220 mail.example\r\n").unwrap();
    });
    let line = place.fails(&["status", "--control", &other], 5);
    assert!(line.contains("is not cepa"), "{line}");
    other_end.join().unwrap();
    // What is in the place of the socket stays.
    let file = place.text("file");
    std::fs::write(&file, "mine").unwrap();
    let words = ["serve", "tcp:127.0.0.1:0", "--control", &file];
    let line = place.fails_quietly(&words, 8);
    assert!(line.contains("something other than a socket"), "{line}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
}

/// Bad requests are answered with an error or not at all, and cost no more than their time.
#[test]
fn nonsense_and_idlers_at_the_socket_hold_nobody_up() {
    let place = Place::new();
    let control = place.text("serve.sock");
    let mut server = place.serve(&["tcp:127.0.0.1:0", "--allow", "any", "--control", &control]);
    let ask = |line: &[u8]| {
        let mut stream = UnixStream::connect(&control).unwrap();
        // It may have been closed in the middle of that.
        let _ = stream.write_all(line);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    let answer: Value = serde_json::from_str(&ask(b"{\"what\":1}\n")).unwrap();
    assert!(answer["error"].as_str().unwrap().contains("update it"));
    assert_eq!(answer["code"], 7);
    let answer: Value = serde_json::from_str(&ask(b"{\"reload\":{}}\n")).unwrap();
    assert!(answer["error"].as_str().unwrap().contains("command line"));
    // No request at all is the one of old.
    let answer: Value = serde_json::from_str(&ask(b"nonsense\n")).unwrap();
    assert_eq!(answer["version"], 1);
    ask(&vec![b'x'; 1 << 20]);

    // As many as there may be, who watch and read nothing; one more is told so.
    let mut watching = Vec::new();
    let mut refused = String::new();
    while refused.is_empty() {
        assert!(watching.len() < 100);
        let mut stream = UnixStream::connect(&control).unwrap();
        stream
            .write_all(b"{\"status\":{\"every_ms\":3600000}}\n")
            .unwrap();
        let mut lines = BufReader::new(stream);
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        if line.contains("error") {
            refused = line;
        } else {
            watching.push(lines);
        }
    }
    assert!(refused.contains("too many"), "{refused}");
    assert_eq!(watching.len(), 32);
    let line = place.fails(&["status", "--control", &control], 7);
    assert!(line.contains("too many"), "{line}");
    watching.clear();
    let start = Instant::now();
    while place.run(&["status", "--control", &control]).status.code() != Some(0) {
        assert!(start.elapsed() < PATIENCE);
    }
    assert!(server.is_running());
}

#[test]
fn a_reload_is_asked_for_and_says_what_came_of_it() {
    let place = Place::new();
    let (_, friend_id) = place.identity("friend.pem");
    place.identity("node.pem");
    let (file, control) = (place.text("node.toml"), place.text("node.sock"));
    let write = |rest: &str| {
        let begin =
            "identity = \"node.pem\"\ncontrol = \"node.sock\"\nlisten = [\"tcp:127.0.0.1:0\"]\n";
        std::fs::write(&file, format!("{begin}{rest}")).unwrap();
    };
    write("[services.up]\nto = \"echo:\"\n[services.old]\nto = \"echo:\"\n");
    let mut node = Server::start(&place, &["node", "--config", &file]);
    status_when(&place, &control, |it| list(it, "services") == ["old", "up"]);
    let words = ["reload", "--control", &control];
    assert!(
        place
            .succeeds(&words)
            .ends_with("node.toml\n  nothing has changed\n")
    );
    node.wait_for("reloaded ");

    write(&format!(
        "[services.up]\nto = \"echo:\"\nallow = [\"{friend_id}\"]\n[services.new]\nto = \"echo:\"\n"
    ));
    let said = place.succeeds(&words);
    let lines: Vec<&str> = said.lines().skip(1).collect();
    assert_eq!(
        lines,
        [
            "  service new: new",
            "  service up: changed",
            "  service old: withdrawn"
        ]
    );
    let now = status(&place, &control);
    assert_eq!(list(&now, "services"), ["new", "up"]);

    write("sessions_a_peer = 7\n");
    let output = place.run(&words);
    let why = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{why}");
    let expected = "cepa: restart the node to apply sessions_a_peer; the rest was taken over\n";
    assert_eq!(why, expected);
    assert!(text(&output.stdout).contains("  service up: withdrawn\n"));

    // Nothing of a wrong file is taken over.
    write("[services.up]\nto = 7\n");
    let line = place.fails(&words, 2);
    assert!(
        line.contains("node.toml:5: ") && line.ends_with("nothing has changed"),
        "{line}"
    );
    assert_eq!(
        list(&status(&place, &control), "services"),
        [] as [Value; 0]
    );

    // Of one that is right, what can be done is.
    let blocker = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = blocker.local_addr().unwrap();
    let begin = "identity = \"node.pem\"\ncontrol = \"node.sock\"\n";
    let config = format!(
        "{begin}listen = [\"tcp:127.0.0.1:0\", \"tcp:{taken}\"]\n[services.up]\nto = \"echo:\"\n"
    );
    std::fs::write(&file, config).unwrap();
    let output = place.run(&words);
    assert_eq!(output.status.code(), Some(1));
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(out.contains("  service up: new\n"), "{out}");
    assert!(
        err.starts_with("cepa: ") && err.contains("the rest was taken over"),
        "{err}"
    );
    assert_eq!(list(&status(&place, &control), "services"), ["up"]);
    drop(blocker);

    node.signal("TERM");
    assert_eq!(node.finish().0, Some(0));
    place.fails(&words, 5);
}

#[test]
fn what_has_no_file_says_that_it_has_nothing_to_reload() {
    let place = Place::new();
    let control = place.text("serve.sock");
    let mut server = place.serve(&["tcp:127.0.0.1:0", "--allow", "any", "--control", &control]);
    let line = place.fails(&["reload", "--control", &control], 7);
    assert!(line.contains("start it anew"), "{line}");
    assert!(server.is_running());
}

/// On a terminal what is watched stands in one place, and fits.
#[test]
fn on_a_terminal_who_watches_sees_one_screen() {
    let place = Place::new();
    let control = place.text("serve.sock");
    let services: Vec<String> = (0..40).map(|n| format!("service-{n}=echo:")).collect();
    let mut words = vec!["tcp:127.0.0.1:0", "--allow", "any", "--control", &control];
    for service in &services {
        words.extend(["--service", service]);
    }
    let _server = place.serve(&words);
    let words = ["status", "--watch", "--control", &control];
    let mut desk = Desk::sit_down(&place, &words, (8, 80));
    // Twice, so that it was drawn again.
    for _ in 0..2 {
        desk.until("\x1b[Hcommand     cepa serve");
        desk.until("more line");
        desk.until("\x1b[J");
    }
    desk.type_in("\x03");
    let (code, rest) = desk.leave();
    assert_eq!(code, Some(0), "{rest}");
}

/// A peer that is allowed by name sees its own session, as it looks from the other end, and nothing of anybody else; whom the owner
/// names sees all.
#[test]
fn a_peer_is_shown_its_own_session_and_all_if_its_owner_says_so() {
    let place = Place::new();
    let (ann, ann_id) = place.identity("ann.pem");
    let (bob, bob_id) = place.identity("bob.pem");
    place.succeeds(&["peer", "add", "secret-name", &ann_id]);
    let words = ["tcp:127.0.0.1:0", "--allow", &ann_id, "--allow", &bob_id];
    let more = ["--service", "up=echo:", "--allow-status", &bob_id];
    let server = place.serve(&[&words[..], &more].concat());
    let (address, id) = (server.address(), server.id());
    let as_peer = |identity: &str, first: &[&str]| -> Vec<String> {
        let rest = ["--expect", &id, "--identity", identity];
        let all = first.iter().chain(&rest);
        all.map(|word| (*word).to_owned()).collect()
    };
    let words = as_peer(&bob, &[&address, "up"]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let child = held(&place, &words, b"of bob");

    let ask = |identity: &str, more: &[&str]| -> String {
        let words = as_peer(identity, &[&["status", &address], more].concat());
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        place.succeeds(&words)
    };
    let seen: Value = serde_json::from_str(&ask(&ann, &["--json"])).unwrap();
    let [own] = list(&seen, "sessions") else {
        panic!("{seen:#}")
    };
    assert_eq!(
        (&own["peer"], &own["direction"]),
        (&ann_id.into(), &"in".into())
    );
    assert_eq!(
        own["name"],
        Value::Null,
        "what it is called here is not told"
    );
    assert_eq!(list(own, "streams")[0]["service"], "cepa.status");
    assert_eq!(
        (&seen["peer"], &seen["command"]),
        (&id.clone().into(), &"serve".into())
    );
    for hidden in ["pid", "listening", "services", "metrics", "shares", "relay"] {
        assert!(seen.get(hidden).is_none(), "{hidden}: {seen:#}");
    }
    let text = seen.to_string();
    assert!(
        !text.contains(&bob_id) && !text.contains("secret-name"),
        "{seen:#}"
    );

    assert_eq!(seen["shows"], "own");
    let table = ask(&ann, &[]);
    let words = table.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        words.contains("; your own alone: whom its owner names with --allow-status"),
        "{table}"
    );
    assert!(
        table.lines().all(|line| line.chars().count() <= 80),
        "{table}"
    );

    let seen: Value = serde_json::from_str(&ask(&bob, &["--json"])).unwrap();
    assert_eq!(seen["shows"], "all");
    let peers: Vec<_> = list(&seen, "sessions")
        .iter()
        .map(|it| &it["peer"])
        .collect();
    assert!(
        peers.len() >= 2 && peers.iter().all(|it| **it == bob_id),
        "{seen:#}"
    );
    let table = ask(&bob, &[]);
    assert!(!table.contains("your own alone"), "{table}");
    assert!(table.starts_with("command     cepa serve, up "), "{table}");
    assert!(
        table.lines().all(|line| line.chars().count() <= 80),
        "{table}"
    );
    ended(child);
}

#[test]
fn who_is_not_allowed_by_name_is_shown_nothing() {
    let place = Place::new();
    let mut server = place.serve(&["tcp:127.0.0.1:0", "--allow", "any", "--service", "up=echo:"]);
    let words = ["status", &server.address(), "--expect", &server.id()];
    let line = place.fails_quietly(&words, 7);
    assert!(line.contains("does not show you its status"), "{line}");
    assert!(line.contains("ask its owner to update it"), "{line}");
    server.wait_for("cepa.status");
    // Neither an address nor a socket, and both.
    place.fails(&["status"], 2);
    place.fails(&["status", "tcp:127.0.0.1:1", "--control", "x"], 2);
}

/// Through a relay, and what the node's file says is followed.
#[test]
fn a_node_says_in_its_file_who_sees_all() {
    let place = Place::new();
    let (_, friend) = place.identity("friend.pem");
    let (_, other) = place.identity("other.pem");
    place.identity("node.pem");
    let (file, control) = (place.text("node.toml"), place.text("node.sock"));
    let write = |rest: &str| {
        let text = format!(
            "identity = \"node.pem\"\ncontrol = \"node.sock\"\nlisten = [\"tcp:127.0.0.1:0\"]\n{rest}\
             [services.up]\nto = \"echo:\"\nallow = [\"{friend}\", \"{other}\"]\n"
        );
        std::fs::write(&file, text).unwrap();
    };
    write("");
    let node = Server::start(&place, &["node", "--config", &file]);
    let (address, id) = (node.address(), node.id());
    let (friend_file, other_file) = (place.text("friend.pem"), place.text("other.pem"));
    let words = [&address, "up", "--expect", &id, "--identity", &other_file];
    let child = held(&place, &words, b"of another");
    let sees = || {
        let words = [
            "status",
            &address,
            "--json",
            "--expect",
            &id,
            "--identity",
            &friend_file,
        ];
        let seen: Value = serde_json::from_str(&place.succeeds(&words)).unwrap();
        list(&seen, "sessions").iter().any(|it| it["peer"] == other)
    };
    status_when(&place, &control, |it| it["session_count"] == 1);
    assert!(!sees());
    write(&format!("allow_status = [\"{friend}\"]\n"));
    let said = place.succeeds(&["reload", "--control", &control]);
    assert!(said.contains("who sees all sessions: changed"), "{said}");
    assert!(sees());
    ended(child);
}
