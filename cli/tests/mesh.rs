//! Relays, nodes without a listener, and addresses of peers, between real processes.

mod common;

use common::{Place, Server, text};

/// A relay for anybody; the process, and its address.
fn relay(place: &Place) -> (Server, String) {
    let (file, _) = place.identity("relay.pem");
    let relay = Server::start_at(
        place,
        &[
            "relay",
            "tcp:127.0.0.1:0",
            "--identity",
            &file,
            "--allow",
            "any",
        ],
        "relaying on ",
    );
    let address = last_word(relay.seen(), "relaying on ");
    (relay, address)
}

/// A server without a listener; the process, and its address through the relay.
fn hidden(place: &Place, at: &str, allow: &str) -> (Server, String) {
    let (file, _) = place.identity("hidden.pem");
    let server = Server::start_at(
        place,
        &[
            "serve",
            "--register",
            at,
            "--service",
            "up=exec:sha256sum",
            "--allow",
            allow,
            "--identity",
            &file,
        ],
        "reachable at ",
    );
    let address = last_word(server.seen(), "reachable at ");
    (server, address)
}

fn last_word(lines: &[String], begin: &str) -> String {
    let line = lines.iter().find(|line| line.starts_with(begin)).unwrap();
    line.split(' ').next_back().unwrap().to_owned()
}

/// What sha256sum prints for "x\n".
const SUM: &str = "73cb3858a687a8494ca3323053016282f3dad39d42cf62ca4e79dda2aac7d9ac  -\n";

#[test]
fn a_server_without_a_listener_is_reached_through_a_relay() {
    let place = Place::new();
    let (mut relay, at) = relay(&place);
    let (mut server, address) = hidden(&place, &at, "any");
    let output = place.run_with(&["connect", &format!("{address}/up")], b"x\n");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), SUM);
    server.wait_for(" via relay ");

    // The same with the service apart from the address; what contradicts itself is refused.
    let output = place.run_with(&["connect", &address, "up"], b"x\n");
    assert_eq!(text(&output.stdout), SUM);
    let line = place.fails(&["connect", &format!("{address}/up"), "down"], 2);
    assert!(line.contains("leave out down"), "{line}");
    let line = place.fails(&["connect", &format!("{address}/down")], 7);
    assert!(line.contains("choose a service: up"), "{line}");

    // Gone, it is nobody that the relay knows; and the relay gone, it is nobody at all.
    server.signal("TERM");
    assert_eq!(server.finish().0, Some(0));
    let line = place.fails(&["connect", &format!("{address}/up")], 5);
    assert!(line.contains("not registered there"), "{line}");
    relay.wait_for("ended");
    relay.signal("TERM");
    assert_eq!(relay.finish().0, Some(0));
    let line = place.fails(&["connect", &format!("{address}/up")], 5);
    assert!(line.contains("connection refused"), "{line}");
}

#[test]
fn who_is_not_allowed_is_refused_behind_a_relay_too() {
    let place = Place::new();
    let (_relay, at) = relay(&place);
    let (friend, friend_id) = place.identity("friend.pem");
    let (mut server, address) = hidden(&place, &at, &friend_id);
    let address = format!("{address}/up");
    let line = place.fails_quietly(&["connect", &address], 7);
    assert!(line.contains("ask its owner to add: --allow "), "{line}");
    server.wait_for("is not allowed; to allow it, run: cepa serve");
    let output = place.run_with(&["connect", &address, "--identity", &friend], b"x\n");
    assert_eq!(text(&output.stdout), SUM);
}

/// What a machine listens on everywhere is nothing that another one can dial.
#[test]
fn an_address_that_others_cannot_dial_is_not_given_away_unsaid() {
    let place = Place::new();
    let (file, id) = place.identity("relay.pem");
    let relay = Server::start_at(
        &place,
        &["relay", "tcp:0.0.0.0:0", "--identity", &file],
        "relaying on ",
    );
    // This machine's own addresses, each on a line, that of loopback last.
    let line = relay.seen().join("\n");
    assert!(line.contains("relaying on tcp:0.0.0.0:"), "{line}");
    assert!(line.contains("every address of this machine"), "{line}");
    let first = last_word(relay.seen(), "relaying on ");
    assert!(first.starts_with(&format!("cepa://{id}@tcp:")), "{first}");
    assert!(
        !line.contains("@tcp:0.0.0.0") && !line.contains("HOST:"),
        "{line}"
    );
    let mut relay = relay;
    let advice = relay.wait_for("give --public HOST");
    assert!(!advice.contains("cepa://"));
    let addresses = relay
        .seen()
        .iter()
        .filter_map(|line| line.split("@tcp:").nth(1));
    let addresses: Vec<&str> = addresses.collect();
    let loopback = addresses.iter().position(|at| at.starts_with("127."));
    assert_eq!(loopback, Some(addresses.len() - 1), "{addresses:?}");
    let words = ["relay", "tcp:0.0.0.0:0", "--identity", &file];
    let names = ["--public", "r.example", "--public", "192.0.2.1"];
    let mut relay = Server::start_at(&place, &[&words[..], &names].concat(), "relaying on ");
    let first = last_word(relay.seen(), "relaying on ");
    assert!(first.contains("@tcp:r.example:"), "{first}");
    let second = relay.wait_for("or at ");
    assert!(second.contains("@tcp:192.0.2.1:"), "{second}");

    for (words, better) in [
        (
            &["id", "addr", "tcp:0.0.0.0:7000"][..],
            "give tcp:HOST:7000",
        ),
        (
            &["id", "addr", "mux+tls+tcp:[::]:7000"],
            "mux+tls+tcp:HOST:7000",
        ),
        (
            &["id", "addr", "tcp:[fe80::1]:0"],
            "give tcp:[fe80::1]:PORT",
        ),
        (
            &[
                "id",
                "addr",
                "--relay",
                &format!("cepa://{id}@tcp:0.0.0.0:1"),
            ],
            "tcp:HOST:1",
        ),
        (
            &[
                "introduce",
                "@",
                &format!("cepa://{id}@tcp:0.0.0.0:1"),
                "up",
            ],
            "tcp:HOST:1",
        ),
    ] {
        place.run(&["id", "show"]);
        let output = place.run(words);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let reported = text(&output.stderr);
        assert!(
            reported.contains("others cannot connect to"),
            "{words:?}: {reported}"
        );
        assert!(reported.contains(better), "{words:?}: {reported}");
    }
    for words in [
        &["id", "addr", "tcp:127.0.0.1:7000", "unix:/run/x"][..],
        &["id", "addr", "tcp:host:7000"],
    ] {
        assert_eq!(text(&place.run(words).stderr), "", "{words:?}");
    }
}

#[test]
fn hints_that_are_not_followed_are_named() {
    let place = Place::new();
    let (_, id) = place.identity("other.pem");
    place.run(&["id", "show"]);
    let local = format!("cepa://{id}@exec:touch%20%2Ftmp%2Fx;unix:%2Frun%2Fx/up");
    let line = place.fails(&["connect", &local], 2);
    for word in ["exec:touch /tmp/x", "--local-hints", "%2F"] {
        assert!(line.contains(word), "{word} is missing in {line}");
    }
    let it = place.run(&["introduce", "@", &local]);
    let it = text(&it.stdout);
    let line = place.fails(&["connect", it.trim()], 2);
    for word in [
        "exec:touch /tmp/x",
        "not a network address",
        "cepa peer add",
    ] {
        assert!(line.contains(word), "{word} is missing in {line}");
    }
    let line = place.fails(&["connect", it.trim(), "--local-hints"], 2);
    assert!(line.contains("leave out --local-hints"), "{line}");

    // What was not encoded is cut at its first slash: that is said, and nothing else is advised.
    for cut in ["unix:/run/x/up", "exec:touch /tmp/x", "exec:cat /x"] {
        let line = place.fails(&["connect", &format!("cepa://{id}@{cut}")], 2);
        assert!(line.contains("%2F"), "{cut}: {line}");
        assert!(!line.contains("itself with the peer id"), "{line}");
    }
}

#[test]
fn a_relay_serves_whom_it_is_configured_to() {
    let place = Place::new();
    let (file, _) = place.identity("relay.pem");
    let relay = Server::start_at(
        &place,
        &["relay", "tcp:127.0.0.1:0", "--identity", &file],
        "relaying on ",
    );
    let at = last_word(relay.seen(), "relaying on ");
    let words = ["serve", "--register", &at, "--allow", "any"];
    let words = [&words[..], &["--service", "up=echo:"]].concat();
    // Whoever runs the relay may come to allow it: it starts, says so, and asks again.
    let mut server = Server::start_at(&place, &words, "not registered at relay");
    let said = server.seen().join("\n");
    assert!(said.contains("trying again"), "{said}");
    assert!(said.contains("does not allow this machine"), "{said}");
    assert!(server.is_running());
    server.signal("TERM");
    let (code, rest) = server.finish();
    assert_eq!(code, Some(0), "{rest}");
    assert_eq!(rest.matches("not registered").count(), 1, "{rest}");
}

#[test]
fn an_address_with_a_direct_hint_needs_no_relay_and_no_trust() {
    let place = Place::new();
    let (file, _) = place.identity("server.pem");
    let server = place.serve(&[
        "tcp:127.0.0.1:0",
        "--service",
        "up=echo:",
        "--allow",
        "any",
        "--identity",
        &file,
    ]);
    let address = format!("cepa://{}@{}/up", server.id(), server.address());
    let output = place.run_with(&["connect", &address], b"direct");
    assert_eq!(text(&output.stdout), "direct", "{}", text(&output.stderr));

    // Somebody else at that place is not talked to.
    let (_, other) = place.identity("other.pem");
    let wrong = address.replace(&server.id(), &other);
    let line = place.fails(&["connect", &wrong], 3);
    assert!(line.contains("not the expected one"), "{line}");
    let line = place.fails(&["connect", &address, "--expect", &other], 2);
    assert!(line.contains("already names the peer"), "{line}");
}

#[test]
fn a_known_peer_is_dialled_by_its_name() {
    let place = Place::new();
    let (file, id) = place.identity("server.pem");
    let server = place.serve(&[
        "tcp:127.0.0.1:0",
        "--service",
        "up=exec:cat",
        "--sealed",
        "--allow",
        "any",
        "--identity",
        &file,
    ]);
    let line = place.fails(&["connect", "cepa://@phone/up"], 2);
    assert!(line.contains("no known peer is named \"phone\""), "{line}");
    let line = place.fails(&["connect", "@phone"], 2);
    assert!(line.contains("no known peer is named \"phone\""), "{line}");

    // By name and without an address: what to run gives it one.
    assert!(place.run(&["peer", "add", "phone", &id]).status.success());
    for words in [
        &["connect", "cepa://@phone/up"][..],
        &["send", "cepa://@phone/up"],
        &["forward", "cepa://@phone", "-L", "tcp:127.0.0.1:0=up"],
    ] {
        let line = place.fails_quietly(words, 5);
        let run = format!("cepa peer add phone {id} --at tcp:HOST:PORT");
        assert!(line.contains(&run), "{line}");
    }
    let at = server.address();
    let added = place.run(&["peer", "add", "phone", &id, "--at", &at]);
    assert_eq!(
        text(&added.stderr),
        format!("phone is {id}, at {at}\n"),
        "what was done"
    );
    for words in [
        &["connect", "cepa://@phone/up"][..],
        &["connect", "cepa://@phone", "up"],
        &["send", "cepa://@phone/up"],
    ] {
        let output = place.run_with(words, b"by name");
        assert_eq!(text(&output.stdout), "by name", "{}", text(&output.stderr));
    }
    let forward = ["forward", "cepa://@phone", "-L", "tcp:127.0.0.1:0=up"];
    Server::start_at(&place, &forward, "listening on ");

    // Where others have to know the place, it stands in the address.
    let output = place.run(&["id", "addr", "--relay", "cepa://@phone"]);
    let printed = text(&output.stdout);
    assert!(
        printed.ends_with(&format!("@relay:{id}@{at}\n")),
        "{printed}"
    );
    let line = place.fails(&["connect", "cepa://@phone/"], 2);
    assert!(line.contains("no service after"), "{line}");
}

#[test]
fn addresses_of_peers_are_made_and_checked() {
    let place = Place::new();
    let (file, id) = place.identity("me.pem");
    let (_, relay) = place.identity("relay.pem");
    let relay = format!("cepa://{relay}@unix:%2Frun%2Fr.sock");
    let output = place.run(&[
        "id",
        "addr",
        "tcp:host:7000",
        "--relay",
        &relay,
        "--service",
        "up",
        "--identity",
        &file,
    ]);
    let hint = relay.replace("cepa://", "relay:");
    assert_eq!(
        text(&output.stdout),
        format!("cepa://{id}@tcp:host:7000,{hint}/up\n")
    );
    let line = place.fails(&["connect", "cepa://nobody"], 2);
    assert!(line.contains("52 characters"), "{line}");
    let line = place.fails_quietly(&["connect", &format!("cepa://{id}")], 5);
    assert!(
        line.contains(&format!("no address is known for {id}")),
        "{line}"
    );
    assert!(
        line.contains(&format!("cepa://{id}@tcp:HOST:PORT")),
        "{line}"
    );
    assert!(
        line.contains(&format!("cepa peer add NAME {id} --at ")),
        "{line}"
    );
    let own = format!("cepa://{id}@tcp:127.0.0.1:1");
    let line = place.fails(&["connect", &own, "--identity", &file], 2);
    assert!(line.contains("this node itself"), "{line}");
}

#[test]
fn a_relay_without_an_address_is_refused_before_anything_is_begun() {
    let place = Place::new();
    let at = format!("cepa://{}", "a".repeat(52));
    let words = ["serve", "--register", &at, "--allow", "any"];
    let line = place.fails_quietly(&words, 2);
    assert!(line.contains("where the relay is"), "{line}");
}

#[test]
fn a_sealed_request_is_carried_and_answered() {
    let place = Place::new();
    let (relay_file, _) = place.identity("relay.pem");
    let words = ["relay", "tcp:127.0.0.1:0", "--identity", &relay_file];
    let words = [&words[..], &["--allow", "any", "--carry"]].concat();
    let relay = Server::start_at(&place, &words, "relaying on ");
    let at = last_word(relay.seen(), "relaying on ");
    let (_, id) = place.identity("node.pem");
    let (friend, friend_id) = place.identity("friend.pem");
    let config = format!(
        "identity = \"node.pem\"\nregister = [\"{at}\"]\n\
         [services.up]\nto = \"exec:sha256sum\"\nallow = [\"{friend_id}\"]\nsealed = true\n\
         [services.fail]\nto = \"exec:false\"\nallow = [\"{friend_id}\"]\nsealed = true\n\
         [services.open]\nto = \"echo:\"\nallow = [\"{friend_id}\"]\n"
    );
    std::fs::write(place.path("node.toml"), config).unwrap();
    let file = place.text("node.toml");
    let mut node = Server::start_at(&place, &["node", "--config", &file], "reachable at ");
    let send = |service: &str, input: &[u8], more: &[&str]| {
        let to = format!("cepa://{id}/{service}");
        let words = ["send", &to, "--by", &at, "--identity", &friend];
        place.run_with(&[&words[..], more].concat(), input)
    };
    let output = send("up", b"x\n", &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), SUM);
    // A command that fails has no answer; its recipient says so, and tells its operator more.
    let line = common::failed(&send("fail", b"", &[]), 7);
    assert!(
        line.contains(&format!("{id} refused: the service failed")),
        "{line}"
    );
    node.wait_for("service fail: the command exited with");
    let line = common::failed(&send("open", b"", &[]), 7);
    assert!(line.contains(&format!("{id} refused (")), "{line}");
    assert!(
        line.contains("--sealed") && line.contains("says the carrier"),
        "{line}"
    );
    // The operator sees the sender and the service, and who has brought it.
    node.wait_for(&format!("refused {friend_id} the service \"open\": "));
    let line = common::failed(&send("up", &vec![7; 49_153], &[]), 2);
    assert!(line.contains("49152 bytes"), "{line}");
    // Another one may not; nobody of that id is there; no service; and no way.
    let to = format!("cepa://{id}/up");
    let line = place.fails_quietly(&["send", &to, "--by", &at], 7);
    assert!(
        line.contains("no service of this name takes your sealed messages"),
        "{line}"
    );
    let nobody = format!("cepa://{friend_id}/up");
    let line = place.fails(&["send", &nobody, "--by", &at], 5);
    assert!(line.contains("registered there?"), "{line}");
    let line = place.fails(&["send", &format!("cepa://{id}"), "--by", &at], 2);
    assert!(line.contains("names no service"), "{line}");
    let line = place.fails(&["send", &to], 5);
    assert!(line.contains("no address is known for"), "{line}");

    // The same by `cepa serve`, through the relay and directly; and one without the option.
    for (option, code) in [(&["--sealed"][..], 0), (&[], 7)] {
        let (file, id) = place.identity(&format!("serve{code}.pem"));
        let words = [
            "serve",
            "tcp:127.0.0.1:0",
            "--register",
            &at,
            "--identity",
            &file,
        ];
        let more = ["--service", "up=exec:sha256sum", "--allow", &friend_id];
        let words = [&words[..], &more, option].concat();
        let server = Server::start_at(&place, &words, "reachable at ");
        let direct = format!("cepa://{id}@{}/up", server.address());
        let carried = format!("cepa://{id}/up");
        for way in [&[&direct[..]][..], &[&carried[..], "--by", &at]] {
            let words = [&["send", "--identity", &friend][..], way].concat();
            let output = place.run_with(&words, b"x\n");
            assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
            assert_eq!(text(&output.stdout) == SUM, code == 0);
            let line = text(&output.stderr);
            assert_eq!(line.contains("--sealed"), code != 0, "{line}");
            assert!(way.len() > 1 || !line.contains("carrier"), "{line}");
        }
        let output = place.run_with(&["connect", &direct, "--identity", &friend], b"x\n");
        assert_eq!(text(&output.stdout), SUM, "{}", text(&output.stderr));
    }
}

/// A command that has exited has answered, whatever it left behind that holds its output; so has one that has closed its output.
#[test]
fn a_sealed_request_is_answered_when_its_command_has_ended() {
    let place = Place::new();
    let (friend, friend_id) = place.identity("friend.pem");
    let (file, _) = place.identity("server.pem");
    for (service, script) in [
        ("left", "cat >/dev/null; sleep 100 & echo ok"),
        ("deaf", "echo ok; exec >&-; sleep 100"),
    ] {
        let offer = format!("{service}=exec:sh -c '{script}'");
        let server = place.serve(&[
            "tcp:127.0.0.1:0",
            "--service",
            &offer,
            "--sealed",
            "--allow",
            &friend_id,
            "--identity",
            &file,
        ]);
        let to = format!("cepa://{}@{}/{service}", server.id(), server.address());
        let request = vec![b'x'; 48_000];
        let short: &[u8] = if service == "deaf" { &request } else { b"x" };
        let output = place.run_with(&["send", &to, "--identity", &friend], short);
        assert_eq!(text(&output.stdout), "ok\n", "{}", text(&output.stderr));
    }
}

#[test]
fn a_peer_that_is_known_needs_no_hint() {
    let place = Place::new();
    let (file, id) = place.identity("server.pem");
    let server = place.serve(&[
        "tcp:127.0.0.1:0",
        "--service",
        "up=exec:sha256sum",
        "--allow",
        "any",
        "--identity",
        &file,
    ]);
    let to = format!("cepa://{id}/up");
    let sum = || {
        let output = place.run_with(&["connect", &to], b"x\n");
        assert_eq!(text(&output.stdout), SUM, "{}", text(&output.stderr));
    };
    let added = place.run(&["peer", "add", "server", &id, "--at", &server.address()]);
    assert!(added.status.success(), "{}", text(&added.stderr));
    sum();

    // The same by a relay, which is no place to be met at in any other way.
    let (_relay, at) = relay(&place);
    let (_hidden, address) = hidden(&place, &at, "any");
    let (who, way) = address.split_once('@').unwrap();
    let hidden_id = who.strip_prefix("cepa://").unwrap();
    let added = place.run(&["peer", "add", "hidden", hidden_id, "--at", way]);
    assert!(added.status.success(), "{}", text(&added.stderr));
    let output = place.run_with(&["connect", &format!("cepa://{hidden_id}/up")], b"x\n");
    assert_eq!(text(&output.stdout), SUM, "{}", text(&output.stderr));

    // Somebody else at the place that the file names is not talked to.
    let (_, other) = place.identity("other.pem");
    let words = ["peer", "add", "wrong", &other, "--at", &server.address()];
    assert!(place.run(&words).status.success());
    let line = place.fails(&["connect", &format!("cepa://{other}/up")], 3);
    assert!(
        line.contains("your known peer server answered, and wrong was expected"),
        "{line}"
    );
    // A file that can't be read is told.
    let known = place.path("config").join("known_peers");
    std::fs::remove_file(&known).unwrap();
    std::fs::create_dir(&known).unwrap();
    let line = place.fails(&["connect", &to], 5);
    assert!(
        line.contains("no address is known") && line.contains("known_peers"),
        "{line}"
    );
}

/// Signs an introduction, and gives it.
fn introduce(place: &Place, words: &[&str]) -> String {
    let output = place.run(&[&["introduce"], words].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout).trim().to_owned()
}

#[test]
fn serve_takes_introductions_at_its_listener_and_through_relays() {
    let place = Place::new();
    let (_relay, at) = relay(&place);
    let (alice, alice_id) = place.identity("alice.pem");
    let (carol, carol_id) = place.identity("carol.pem");
    let (file, id) = place.identity("server.pem");
    let mut server = place.serve(&[
        "tcp:127.0.0.1:0",
        "--register",
        &at,
        "--service",
        "up=exec:sha256sum",
        "--service",
        "back=echo:",
        "--allow",
        &carol_id,
        "--introducer",
        &alice_id,
        "--identity",
        &file,
    ]);
    let direct = format!("cepa://{id}@{}", server.address());
    let relayed = format!("cepa://{id}@{}", at.replace("cepa://", "relay:"));
    server.wait_for("reachable at");
    for (address, recipient) in [(&direct, "bob.pem"), (&relayed, "dave.pem")] {
        // One that the log has not heard much of.
        let (bob, bob_id) = place.identity(recipient);
        let it = introduce(&place, &[&bob_id, address, "up", "--identity", &alice]);
        let output = place.run_with(&["connect", &it, "--identity", &bob], b"x\n");
        assert_eq!(text(&output.stdout), SUM, "{}", text(&output.stderr));
        server.wait_for(&format!("introduced by {alice_id}"));
        // It was for one use; and for that service alone.
        let line = place.fails(&["connect", &it, "--identity", &bob], 7);
        assert!(line.contains("has been used up"), "{line}");
        for service in ["up", "back"] {
            let words = ["connect", address, service, "--identity", &bob];
            let line = place.fails(&words, 7);
            assert!(line.contains("open to you"), "{line}");
        }
        // The server itself may introduce too, and others may not.
        let own = introduce(&place, &[&bob_id, address, "up", "--identity", &file]);
        let output = place.run_with(&["connect", &own, "--identity", &bob], b"x\n");
        assert_eq!(text(&output.stdout), SUM, "{}", text(&output.stderr));
        let it = introduce(&place, &[&bob_id, address, "up", "--identity", &carol]);
        let line = place.fails(&["connect", &it, "--identity", &bob], 7);
        assert!(line.contains("may not introduce"), "{line}");
        // Who is allowed needs nobody.
        let words = ["connect", address, "up", "--identity", &carol];
        let output = place.run_with(&words, b"x\n");
        assert_eq!(text(&output.stdout), SUM, "{}", text(&output.stderr));
    }
}

#[test]
fn an_introduction_to_no_service_says_what_to_give() {
    let place = Place::new();
    let (_, id) = place.identity("b.pem");
    let to = format!("cepa://{id}@tcp:127.0.0.1:7");
    for words in [&["@", &to][..], &["@", &to, ""]] {
        let words = [&["introduce"], words].concat();
        let line = place.fails_quietly(&words, 2);
        assert!(line.contains("cepa introduce A B SERVICE"), "{line}");
        assert!(!line.contains("read"), "{line}");
    }
}

#[test]
fn serve_without_introducers_takes_no_introductions() {
    let place = Place::new();
    let (_relay, at) = relay(&place);
    let (_hidden, address) = hidden(&place, &at, "any");
    let (alice, _) = place.identity("alice.pem");
    let (bob, bob_id) = place.identity("bob.pem");
    let it = introduce(&place, &[&bob_id, &address, "up", "--identity", &alice]);
    let line = place.fails(&["connect", &it, "--identity", &bob], 7);
    assert!(line.contains("may not introduce"), "{line}");
}

#[test]
fn a_service_of_another_peer_is_offered_as_ones_own() {
    let place = Place::new();
    let (file, id) = place.identity("server.pem");
    let (front, front_id) = place.identity("front.pem");
    let server = place.serve(&[
        "tcp:127.0.0.1:0",
        "--service",
        "sum=exec:sha256sum",
        "--allow",
        &front_id,
        "--identity",
        &file,
    ]);
    let up = format!("up=cepa://{id}@{}/sum", server.address());
    let down = format!("down=cepa://{id}@{}/none", server.address());
    let words = ["tcp:127.0.0.1:0", "--service", &up, "--service", &down];
    let mut forwarder =
        place.serve(&[&words[..], &["--allow", "any", "--identity", &front]].concat());
    let to = |service: &str| format!("cepa://{front_id}@{}/{service}", forwarder.address());
    let (to_up, to_down) = (to("up"), to("down"));
    let output = place.run_with(&["connect", &to_up], b"x\n");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), SUM);
    let line = place.fails(&["connect", &to_down], 7);
    assert!(line.contains("refused behind a forwarder"), "{line}");
    forwarder.wait_for("service down for ");

    // By a node's file as well; and what leads back here is refused at once.
    let config = format!(
        "identity = \"front.pem\"\nlisten = [\"tcp:127.0.0.1:0\"]\n\
         [services.up]\nto = \"{}\"\nallow = [\"any\"]\nsealed = true\n",
        up.strip_prefix("up=").unwrap()
    );
    std::fs::write(place.path("node.toml"), config).unwrap();
    let node = Server::start(&place, &["node", "--config", &place.text("node.toml")]);
    let to = format!("cepa://{front_id}@{}/up", node.address());
    for command in ["connect", "send"] {
        let output = place.run_with(&[command, &to], b"x\n");
        assert_eq!(text(&output.stdout), SUM, "{}", text(&output.stderr));
    }
    let own = format!("up=cepa://{front_id}@tcp:127.0.0.1:1/up");
    let words = [
        "serve",
        "tcp:127.0.0.1:0",
        "--identity",
        &front,
        "--service",
        &own,
    ];
    let line = place.fails(&words, 2);
    assert!(line.contains("this machine"), "{line}");
    let nowhere = format!("up=cepa://{id}/up");
    let line = place.fails(&["serve", "tcp:127.0.0.1:0", "--service", &nowhere], 2);
    assert!(line.contains("say where the peer is"), "{line}");
}

#[test]
fn two_processes_with_one_key_are_reported_at_the_relay_and_at_the_one_that_lost() {
    let place = Place::new();
    let (mut relay, at) = relay(&place);
    let (mut first, _) = hidden(&place, &at, "any");
    let file = place.text("hidden.pem");
    let words = [
        "serve",
        "--register",
        &at,
        "--allow",
        "any",
        "--identity",
        &file,
    ];
    let words = [&words[..], &["--service", "up=echo:"]].concat();
    let _second = Server::start_at(&place, &words, "reachable at ");
    let line = first.wait_for("another process with our key");
    assert!(line.contains("two processes share one key"), "{line}");
    relay.wait_for("another process with the same key");
}

#[test]
fn addresses_of_relays_are_checked_before_anything_is_said() {
    let place = Place::new();
    let at = format!("cepa://{}@exec:cat", "a".repeat(52));
    let all = ["--register", &at, "--allow", "any"];
    for command in ["relay", "serve"] {
        let words = [&[command, "tcp:127.0.0.1:0"][..], &all[..]].concat();
        let line = place.fails_quietly(&words, 2);
        assert!(line.contains("--local-hints"), "{line}");
    }
}

#[test]
fn a_relay_that_is_down_is_named_once() {
    let place = Place::new();
    let (_, id) = place.identity("relay.pem");
    let at = format!("cepa://{id}@tcp:127.0.0.1:1");
    let words = ["serve", "--register", &at, "--allow", "any"];
    let words = [&words[..], &["--service", "up=echo:"]].concat();
    let server = Server::start_at(&place, &words, "not registered at relay");
    let line = server.seen().last().unwrap();
    assert_eq!(line.matches(&id).count(), 1, "{line}");
    assert_eq!(line.matches("relay").count(), 1, "{line}");
}

/// A state file from before the clock was set back by an hour: what is as old is refused, by the restarted process too.
#[test]
fn a_state_file_outlives_the_process() {
    let place = Place::new();
    let (alice, alice_id) = place.identity("alice.pem");
    let (bob, bob_id) = place.identity("bob.pem");
    let (file, id) = place.identity("server.pem");
    let state = place.text("server.state");
    let words = [
        ["tcp:127.0.0.1:0", "--service", "up=exec:sha256sum"].as_slice(),
        &["--introducer", &alice_id, "--identity", &file],
    ]
    .concat();
    let with_state = [&words[..], &["--state", &state]].concat();
    let try_at = |words: &[&str]| {
        let mut server = place.serve(words);
        let at = format!("cepa://{id}@{}", server.address());
        let it = introduce(&place, &[&bob_id, &at, "up", "--identity", &alice]);
        let output = place.run_with(&["connect", &it, "--identity", &bob], b"x\n");
        if output.status.success() {
            server.wait_for("introduced by");
        }
        (output.status.code(), text(&output.stderr))
    };
    let (status, reported) = try_at(&with_state);
    assert_eq!(status, Some(0), "{reported}");
    let kept = std::fs::read_to_string(&state).unwrap();
    let (head, mark) = kept.trim_end().rsplit_once(' ').unwrap();
    let (seconds, rest) = mark.split_once('.').unwrap();
    let later = seconds.parse::<u64>().unwrap() + 3600;
    std::fs::write(&state, format!("{head} {later}.{rest}\n")).unwrap();
    let (status, reported) = try_at(&with_state);
    assert_eq!(status, Some(7), "{reported}");
    // Without the file nothing tells.
    assert_eq!(try_at(&words).0, Some(0));
    // A node's file names one too, beside itself; one that is something else ends it.
    let config = format!(
        "identity = \"server.pem\"\nstate = \"server.state\"\nlisten = [\"tcp:127.0.0.1:0\"]\n\
         [services.up]\nto = \"exec:sha256sum\"\nintroducers = [\"{alice_id}\"]\n"
    );
    std::fs::write(place.path("node.toml"), config).unwrap();
    std::fs::write(&state, "something else\n").unwrap();
    let line = place.fails(&["node", "--config", &place.text("node.toml")], 8);
    assert!(line.contains("server.state"), "{line}");
    let line = place.fails(&[&["serve"], &with_state[..]].concat(), 8);
    assert!(line.contains("not a state file of introductions"), "{line}");
    place.fails(&["serve", "tcp:127.0.0.1:0", "--state", &state], 2);
}
