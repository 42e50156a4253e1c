//! Words that newcomers typed, and what the tool says in their place: each names what would have worked.

mod common;

use std::process::Stdio;

use common::{Place, Server, finish, text};

/// A relay for anybody; the process, and its address.
fn relay(place: &Place) -> (Server, String) {
    let words = ["relay", "tcp:127.0.0.1:0", "--allow", "any"];
    let relay = Server::start_at(place, &words, "relaying on ");
    let line = relay.seen().last().unwrap();
    let address = line.split(' ').find(|word| word.starts_with("cepa://"));
    let address = address.unwrap().trim_end_matches([',', ';']).to_owned();
    (relay, address)
}

#[test]
fn what_is_missing_is_said_in_good_grammar() {
    let place = Place::new();
    let line = place.fails(&["cp"], 2);
    assert!(line.contains("<SRC>... and <DST> are missing"), "{line}");
    let line = place.fails(&["cp", "a"], 2);
    assert!(line.contains("is missing"), "{line}");
    let line = place.fails(&["status"], 2);
    for part in ["--control PATH", "cepa status @NAME"] {
        assert!(line.contains(part), "{line}");
    }
}

#[test]
fn a_side_of_a_copy_that_is_no_file_is_said_to_be_so() {
    let place = Place::new();
    place.succeeds(&["id", "show"]);
    let (_, id) = place.identity("other");
    place.succeeds(&["peer", "add", "home", &id, "--at", "tcp:127.0.0.1:1"]);
    let file = place.text("big");
    std::fs::write(&file, "x").unwrap();
    for (word, told) in [
        ("home:up/", "did you mean @home:up/?"),
        ("home:", "did you mean @home:?"),
        (
            "tcp:127.0.0.1:7000:up/",
            "cepa peer add NAME PEERID --at tcp:127.0.0.1:7000`",
        ),
        (
            "tcp:127.0.0.1:7000",
            "cepa://PEERID@tcp:127.0.0.1:7000/SERVICE/PATH",
        ),
        ("host:up/", "@NAME:SERVICE/PATH"),
    ] {
        for words in [["cp", &file, word], ["cp", word, &file]] {
            let line = place.fails(&words, 2);
            assert!(line.contains(told), "{line}");
            assert!(!line.contains("both sides"), "{line}");
        }
    }
    let line = place.fails(&["cp", &file, &place.text("b")], 2);
    assert!(line.contains("both sides are on this machine"), "{line}");
    for (name, told) in [("home:sh", "@home/sh"), ("home:", "@home SERVICE")] {
        let line = place.fails(&["connect", &format!("@{name}")], 2);
        assert!(line.contains(told), "{line}");
    }
}

#[test]
fn a_ticket_for_several_is_for_the_one_that_fits() {
    let (ann, bob) = (Place::new(), Place::new());
    let folder = ann.text("docs");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(ann.path("docs/a"), "of ann").unwrap();
    let docs = format!("docs=files:{folder}");
    let words = [
        "share",
        "up=echo:",
        &docs,
        "run=command:/bin/echo",
        "--listen",
        "tcp:127.0.0.1:0",
    ];
    let mut share = Server::start_at(&ann, &words, "Ctrl-C");
    let ticket = share.output_line();
    bob.succeeds(&["id", "show"]);
    let out = bob.text("a");
    bob.succeeds(&["cp", &format!("{ticket}:/a"), &out]);
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "of ann");
    let printed = bob.succeeds(&["exec", &ticket, "--", "/bin/echo", "x"]);
    assert_eq!(printed, "x\n");
    // A command line in one word.
    let line = bob.fails(&["exec", &ticket, "--", "/bin/echo x"], 7);
    assert!(line.ends_with("cepa exec ADDR -- /bin/echo x"), "{line}");
    // Who opens it as what it is not reads how it is written with a ticket.
    let line = bob.fails(&["connect", &ticket, "docs"], 7);
    assert!(line.contains("TICKET:SERVICE/PATH"), "{line}");
    // Who shares reads what is for who shares.
    let eve = Place::new();
    eve.run(&["connect", &ticket, "up"]);
    let line = share.wait_for("did not get in by the ticket");
    assert!(
        line.contains("another peer has used this ticket first") && !line.contains("ask for"),
        "{line}"
    );
}

#[test]
fn a_name_stands_where_one_is_known() {
    let place = Place::new();
    place.succeeds(&["id", "show"]);
    let (file, id) = place.identity("other");
    let words = [
        "tcp:127.0.0.1:0",
        "--service",
        "up=echo:",
        "--allow",
        "any",
        "--identity",
        &file,
    ];
    let server = place.serve(&words);
    place.succeeds(&["peer", "add", "home", &id, "--at", &server.address()]);
    let forward = Server::start(&place, &["forward", "@home", "-L", "0=up"]);
    let line = forward.seen().last().unwrap();
    assert!(line.contains("for up of home ("), "{line}");
    drop((forward, server));
    let line = place.fails(&["connect", "@home", "up"], 5);
    assert!(line.contains("cannot reach home ("), "{line}");
}

#[test]
fn a_relay_that_is_known_needs_no_address() {
    let (host, ann, bob) = (Place::new(), Place::new(), Place::new());
    let (_relay, at) = relay(&host);
    ann.succeeds(&["id", "show"]);
    let id = &at["cepa://".len()..at.find('@').unwrap()];
    let place = &at[at.find('@').unwrap() + 1..];
    ann.succeeds(&["peer", "add", "post", id, "--at", place]);
    let words = ["share", "up=echo:", "--relay", &format!("cepa://{id}")];
    let mut share = Server::start_at(&ann, &words, "Ctrl-C");
    let ticket = share.output_line();
    let output = bob.run_with(&["connect", &ticket], b"x");
    assert_eq!(text(&output.stdout), "x", "{}", text(&output.stderr));
}

#[test]
fn what_cannot_be_dialled_is_explained_and_refused() {
    let place = Place::new();
    let address = "quic:127.0.0.1:1,proxy=socks5://127.0.0.1:9";
    for more in [&[][..], &["--json"]] {
        let output = place.run(&[&["explain", address], more].concat());
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stdout).contains("QUIC"));
        assert!(text(&output.stderr).contains("goes by no proxy"));
    }
    let cut = place.fails(&["explain", "cepa-introduction:o2FhYWI"], 2);
    assert!(cut.contains("it is cut off, or was changed"), "{cut}");
    assert!(!cut.contains("CBOR"), "{cut}");
}

/// One line a file in a log of objects has no exit code: that is the last one's.
#[test]
fn only_the_last_line_has_an_exit_code() {
    let (ann, bob) = (Place::new(), Place::new());
    std::fs::create_dir(ann.path("docs")).unwrap();
    let docs = format!("docs=files:{}", ann.text("docs"));
    let words = ["share", &docs, "--listen", "tcp:127.0.0.1:0"];
    let mut share = Server::start_at(&ann, &words, "Ctrl-C");
    let ticket = share.output_line();
    bob.succeeds(&["id", "show"]);
    let missing = [bob.text("a"), bob.text("b")];
    let to = format!("{ticket}:/");
    let words = ["cp", &missing[0], &missing[1], &to, "--log-format", "json"];
    let output = finish(bob.cepa(&words).stdin(Stdio::null()).spawn().unwrap());
    assert_eq!(output.status.code(), Some(10));
    let lines = text(&output.stderr);
    let lines: Vec<serde_json::Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let codes: Vec<_> = lines
        .iter()
        .filter_map(|line| line["exit_code"].as_u64())
        .collect();
    assert_eq!(codes, [10], "{lines:#?}");
    assert_eq!(
        lines.iter().filter(|line| line["level"] == "ERROR").count(),
        3,
        "{lines:#?}"
    );
}

#[test]
fn what_there_is_one_of_needs_no_name() {
    let (ann, bob) = (Place::new(), Place::new());
    for (services, works) in [
        (&["--service", "exec:/bin/cat"][..], true),
        (
            &["--service", "exec:/bin/cat", "--service", "up=echo:"],
            false,
        ),
    ] {
        let words = ["tcp:127.0.0.1:0", "--allow", "any"];
        let server = ann.serve(&[&words[..], services].concat());
        let at = server.address();
        bob.succeeds(&["id", "show"]);
        let words = ["forward", &at, "-L", "0", "--trust", "any"];
        if works {
            let forward = Server::start(&bob, &words);
            let line = forward.seen().last().unwrap();
            assert!(line.contains("for cat of"), "{line}");
            let listed = bob.succeeds(&["services", &at, "--trust", "any"]);
            assert!(listed.contains("cat"), "{listed}");
        } else {
            let line = bob.fails(&words, 2);
            assert!(line.contains("-L needs its name"), "{line}");
        }
    }
    // Two of one program are two names.
    let words = [
        "serve",
        "tcp:127.0.0.1:0",
        "--service",
        "exec:cat",
        "--service",
        "exec:cat -u",
    ];
    let line = ann.fails(&words, 2);
    assert!(line.contains("cat"), "{line}");
}
