//! Names instead of ids: `@NAME` on a command line, and `config.toml`, which says what a name stands for.

mod common;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use cepa::transports::testkit::LineSettings;
use common::{Place, Server, failed, text};

const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// Writes `config.toml`, for its owner alone.
fn configure(place: &Place, settings: &str) -> String {
    assert!(place.run(&["id", "show"]).status.success());
    let file = place.path("config/config.toml");
    fs::write(&file, settings).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    file.to_str().unwrap().to_owned()
}

/// A server with the services `up` and `tick`, and the address and the id that it has.
fn server(place: &Place) -> (Server, String, String) {
    let (file, id) = place.identity("server.pem");
    let server = place.serve(&[
        "tcp:127.0.0.1:0",
        "--service",
        "up=exec:cat",
        "--service",
        "tick=exec:printf tick",
        "--allow",
        "any",
        "--sealed",
        "--identity",
        &file,
    ]);
    let at = server.address();
    (server, at, id)
}

/// An address where nobody listens.
fn nowhere() -> String {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("tcp:{}", gone.local_addr().unwrap())
}

#[track_caller]
fn echoed(place: &Place, words: &[&str]) {
    let output = place.run_with(words, b"by name");
    assert_eq!(text(&output.stdout), "by name", "{}", text(&output.stderr));
}

/// Runs it to a good end, and gives what it prints.
#[track_caller]
fn printed(place: &Place, words: &[&str]) -> String {
    let output = place.run(words);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn a_known_peer_is_dialled_by_its_name_alone_at_any_of_its_addresses() {
    let place = Place::new();
    let (_server, at, id) = server(&place);
    let (_, other) = place.identity("other.pem");
    printed(
        &place,
        &["peer", "add", "ann", &id, "--at", &nowhere(), "--at", &at],
    );
    printed(&place, &["peer", "add", "bob", &other]);
    echoed(&place, &["connect", "@ann", "up"]);
    echoed(&place, &["connect", "@ann/up"]);
    echoed(&place, &["send", "@ann/up"]);
    Server::start_at(
        &place,
        &["forward", "@ann", "-L", "tcp:127.0.0.1:0=up"],
        "listening on ",
    );
    let line = place.fails(&["connect", "ann", "up"], 2);
    assert!(line.contains("give @ann"), "{line}");
    let line = place.fails(&["console", "@ann/tick"], 2);
    assert!(line.contains("needs a terminal"), "{line}");
    let explained = printed(&place, &["explain", "@ann/up"]);
    assert!(explained.contains("@ann, from"), "{explained}");
    assert!(
        explained.contains("known_peers") && explained.contains("up"),
        "{explained}"
    );

    // A service of a peer that has a name is offered by another one.
    let between = Place::new();
    printed(&between, &["peer", "add", "ann", &id, "--at", &at]);
    let words = [
        "tcp:127.0.0.1:0",
        "--service",
        "far=@ann/up",
        "--allow",
        "any",
    ];
    let second = between.serve(&words);
    let (at, expect) = (second.address(), second.id());
    echoed(&place, &["connect", &at, "far", "--expect", &expect]);

    let line = place.fails(&["connect", "@bob", "up"], 5);
    assert!(line.contains("bob is known, but no address is"), "{line}");
    assert!(
        line.contains(&format!("cepa peer add bob {other} --at")),
        "{line}"
    );
    for words in [
        &["connect", "@amn"][..],
        &["send", "@amn/up"],
        &["explain", "@amn"],
        &["forward", "@amn", "-L", "tcp:127.0.0.1:0=up"],
        &["connect", "tcp:127.0.0.1:1", "--expect", "@amn"],
        &[
            "serve",
            "tcp:127.0.0.1:0",
            "--service",
            "x=echo:",
            "--allow",
            "@amn",
        ],
    ] {
        let line = place.fails(words, 2);
        assert!(line.contains("did you mean @ann?"), "{line}");
    }
}

#[test]
fn a_target_has_addresses_and_options_and_the_command_line_wins() {
    let place = Place::new();
    let (_server, at, id) = server(&place);
    let words = printed(
        &place,
        &[
            "id",
            "show",
            "--words",
            "--identity",
            &place.text("server.pem"),
        ],
    );
    let words = words.trim();
    let file = configure(
        &place,
        &format!(
            "[targets.board]\naddress = \"{at}\"\nexpect = \"{words}\"\nservice = \"up\"\n\
             [targets.two]\naddress = [\"{}\", \"{at}\"]\nexpect = \"{id}\"\n\
             [targets.wrong]\naddress = \"{at}\"\nexpect = \"{A}\"\nservice = \"up\"\n\
             [targets.any]\naddress = \"{at}\"\ntrust = \"any\"\nservice = \"up\"\n\
             [targets.new]\naddress = \"{at}\"\nservice = \"up\"\n",
            nowhere()
        ),
    );
    let checked = printed(&place, &["config", "check"]);
    assert_eq!(checked, format!("{file}: valid; 5 targets\n"));
    assert_eq!(printed(&place, &["config", "path"]), format!("{file}\n"));

    echoed(&place, &["connect", "@board"]);
    assert_eq!(printed(&place, &["connect", "@board", "tick"]), "tick");
    assert_eq!(printed(&place, &["connect", "@board/tick"]), "tick");
    echoed(&place, &["connect", "@two", "up"]);
    let line = place.fails(&["connect", "@wrong"], 3);
    assert!(line.contains(A), "{line}");
    echoed(&place, &["connect", "@wrong", "--expect", words]);
    let output = place.run_with(&["connect", "@any"], b"");
    assert!(text(&output.stderr).contains("not verified"), "{output:?}");
    let line = place.fails(&["connect", "@any", "--expect", A], 3);
    assert!(line.contains(A), "{line}");
    // Nobody is known there, and the file does not say whom to trust.
    place.fails(&["connect", "@new"], 4);

    // A name of the file counts more than a known peer's, and that says whom to expect where the file does not.
    printed(&place, &["peer", "add", "board", A, "--at", &nowhere()]);
    echoed(&place, &["connect", "@board"]);
    echoed(&place, &["connect", "@new", "--expect", "@board"]);
    let explained = printed(&place, &["explain", "@board"]);
    assert!(
        explained.contains(&format!("@board, from {file}:1")),
        "{explained}"
    );
    let flat = explained.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        flat.contains(&at) && flat.contains(&format!("expect {id}")),
        "{explained}"
    );
    assert!(
        explained.lines().all(|line| line.len() <= 80),
        "{explained}"
    );
    printed(
        &place,
        &[
            "peer",
            "add",
            "new",
            &format!("{}a", "b".repeat(51)),
            "--at",
            &nowhere(),
        ],
    );
    place.fails(&["connect", "@new"], 3);
}

#[test]
fn a_peer_without_an_address_is_looked_for_at_the_default_relay() {
    let place = Place::new();
    let (relay_file, _) = place.identity("relay.pem");
    let words = [
        "relay",
        "tcp:127.0.0.1:0",
        "--identity",
        &relay_file,
        "--allow",
        "any",
    ];
    let relay = Server::start_at(&place, &words, "relaying on ");
    let line = relay
        .seen()
        .iter()
        .find(|line| line.starts_with("relaying on "));
    let at = line.unwrap().split(' ').next_back().unwrap().to_owned();
    let (file, id) = place.identity("server.pem");
    let words = ["serve", "--register", &at, "--service", "up=exec:cat"];
    let words = [&words[..], &["--allow", "any", "--identity", &file]].concat();
    let _server = Server::start_at(&place, &words, "reachable at ");
    printed(&place, &["peer", "add", "ann", &id]);
    let line = place.fails_quietly(&["connect", "@ann", "up"], 5);
    assert!(line.contains("no address"), "{line}");
    configure(&place, &format!("relay = \"{at}\"\n"));
    echoed(&place, &["connect", "@ann", "up"]);
    echoed(&place, &["connect", &format!("cepa://{id}/up")]);
    let explained = printed(&place, &["explain", "@ann"]);
    assert!(explained.contains("the relay "), "{explained}");
}

#[test]
fn what_is_wrong_with_the_file_is_told_in_one_line() {
    let place = Place::new();
    let nothing = printed(&place, &["config", "check"]);
    assert!(nothing.contains("not there"), "{nothing}");
    let file = configure(&place, "[targets.board]\nadress = \"tcp:h:1\"\n");
    for words in [&["config", "check"][..], &["connect", "@board"]] {
        let line = place.fails(words, 2);
        assert!(
            line.contains(&format!("{file}:2: unknown field `adress`")),
            "{line}"
        );
        assert!(line.contains("did you mean `address`?"), "{line}");
    }
    configure(
        &place,
        "[targets.board]\npark = \"5\"\naddress = \"tcp:h:1\"\n",
    );
    let line = place.fails(&["config", "check"], 2);
    assert!(
        line.contains(&format!("{file}:2: park: expected a time")),
        "{line}"
    );
    configure(
        &place,
        "[targets.board]\naddress = \"tcp:h:1\"\nexpect = \"@nobody\"\n",
    );
    let line = place.fails(&["config", "check"], 2);
    assert!(
        line.contains(":1: expect: no known peer is named \"nobody\""),
        "{line}"
    );
    configure(&place, "[targets.board]\nreconnect = true\n");
    let line = place.fails(&["config", "check"], 2);
    assert!(line.contains("no peer id is known for @board"), "{line}");

    // Whoever can write to it can have commands run.
    configure(&place, "[targets.board]\naddress = \"exec:true\"\n");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    let line = failed(&place.run(&["config", "check"]), 8);
    assert!(line.contains("chmod 600"), "{line}");
    for words in [
        &["connect", "@board"][..],
        &["cp", "@board:a", "."],
        &["forward", "@board", "-L", "0=up"],
        &["connect", "tcp:127.0.0.1:1", "--expect", "@board"],
    ] {
        let line = place.fails(words, 8);
        assert!(line.contains("chmod 600"), "{line}");
    }
    fs::remove_file(&file).unwrap();
    let known = place.path("config/known_peers");
    fs::write(&known, "").unwrap();
    fs::set_permissions(&known, fs::Permissions::from_mode(0o644)).unwrap();
    let line = place.fails(&["connect", "@board"], 8);
    assert!(line.contains("known_peers"), "{line}");
    // Without a name nobody asks for the file.
    place.fails(&["connect", &nowhere(), "--trust", "any"], 5);
}

#[test]
fn the_options_of_a_target_are_those_of_its_command() {
    let place = Place::new();
    let (server_file, id) = place.identity("server.pem");
    let (_, friend) = place.identity("friend.pem");
    let server = place.serve(&[
        "tcp:127.0.0.1:0",
        "--service",
        "up=exec:cat",
        "--allow",
        &friend,
        "--identity",
        &server_file,
    ]);
    let at = server.address();
    configure(
        &place,
        &format!(
            "[targets.me]\naddress = \"cepa://{id}@{at}/up\"\n\
             [targets.friend]\naddress = \"cepa://{id}@{at}/up\"\nidentity = \"../friend.pem\"\n\
             [targets.local]\naddress = [\"unix:/nowhere\", \"{at}\"]\nexpect = \"{id}\"\n\
             service = \"up\"\nidentity = \"../friend.pem\"\n"
        ),
    );
    place.fails(&["connect", "@me"], 7);
    echoed(&place, &["connect", "@friend"]);
    let other = place.text("server.pem");
    place.fails(&["connect", "@friend", "--identity", &other], 2);
    // The file is the user's own words, so hints that are no network are followed.
    echoed(&place, &["connect", "@local"]);
    // A port alone is for the target's service.
    let mut forward = Server::start(&place, &["forward", "@local", "-L", "tcp:127.0.0.1:0"]);
    assert!(forward.seen().last().unwrap().contains(" for up of "));
    assert!(forward.is_running());
    drop(forward);
    let line = place.fails(&["forward", "@friend/up", "-L", "tcp:127.0.0.1:0=up"], 2);
    assert!(line.contains("leave /up out"), "{line}");
}

#[test]
fn a_log_names_whom_it_knows_and_follows_the_list() {
    let place = Place::new();
    let (mine, id) = place.identity("mine.pem");
    printed(&place, &["peer", "add", "ann", &id]);
    let words = ["tcp:127.0.0.1:0", "--service", "up=exec:cat"];
    let mut server = place.serve(&[&words[..], &["--allow", &id]].concat());
    let (at, to) = (server.address(), server.id());
    let connect = ["connect", "--expect", &to, "--identity", &mine, &at];
    let short = &id[..12];
    echoed(&place, &[&connect[..], &["up"]].concat());
    server.wait_for(&format!("session with ann ({short}…) over tcp "));
    server.wait_for("ended");
    printed(&place, &["peer", "rename", "ann", "anna"]);
    place.fails(&[&connect[..], &["down"]].concat(), 7);
    server.wait_for(&format!("session with anna ({short}…) over tcp "));
    server.wait_for(&format!("refused anna ({short}…) the service \"down\""));
    assert!(server.seen().iter().all(|line| !line.contains(&id)));
}

/// A place is the same one whatever the settings behind it, and its name dials it with those.
#[test]
fn a_known_peer_is_at_its_line_with_and_without_settings() {
    let place = Place::new();
    let _runtime = common::line::join(&place, &LineSettings::new(11_520.0), 1);
    let line = |end: &str| format!("serial:{}", place.text(end));
    let (file, id) = place.identity("server.pem");
    let allowed = [
        "--allow",
        "any",
        "--service",
        "up=exec:cat",
        "--identity",
        &file,
    ];
    let _server = place.serve(&[&[line("b").as_str()][..], &allowed].concat());
    let at = format!("{},baud=115200", line("a"));
    place.succeeds(&["peer", "add", "board", &id, "--at", &at]);
    for dialled in [at.as_str(), &line("a"), "@board"] {
        echoed(&place, &["connect", dialled, "up"]);
    }
    place.succeeds(&["peer", "add", "board", A, "--replace"]);
    let line = place.fails(&["connect", &at, "up"], 3);
    assert!(line.contains(A), "{line}");
}

/// Whoever adds a peer says where it is in their own words, as in `config.toml`: a device or a command as well as the network.
#[test]
fn a_known_peer_is_dialled_at_a_place_that_is_not_on_the_network() {
    let place = Place::new();
    let (_server, at, id) = server(&place);
    let command = format!("exec:{} pipe stdio: {at}", common::bin().display());
    place.succeeds(&["peer", "add", "board", &id, "--at", &command]);
    echoed(&place, &["connect", "@board", "up"]);
    // The same words of somebody else stay words.
    let line = place.fails(&["connect", &format!("cepa://{id}/up")], 2);
    assert!(line.contains("is not a network address"), "{line}");
    // Nobody answers at the first of two.
    place.succeeds(&["peer", "add", "board", &id, "--at", &nowhere()]);
    echoed(&place, &["connect", "@board", "up"]);
    // Who is there has to be the one that was added.
    place.succeeds(&["peer", "add", "wrong", A, "--at", &command]);
    let line = place.fails(&["connect", "@wrong", "up"], 3);
    assert!(
        line.contains("your known peer board answered") && line.contains("wrong is known there"),
        "{line}"
    );
}
