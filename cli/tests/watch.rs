//! What is seen of a line that somebody else has.

mod common;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use cepa::transports::testkit::LineSettings;
use common::desk::Desk;
use common::line::join;
use common::{Place, Server};

struct Board {
    place: Place,
    server: Server,
    /// The key files of two peers that it knows by name, and of one that it does not.
    keys: [String; 3],
    _plugged: tokio::runtime::Runtime,
}

/// A server with a serial line, at whose other end nobody says anything.
fn board() -> Board {
    let place = Place::new();
    let plugged = join(&place, &LineSettings::new(300_000.0), 1);
    let mut keys = [String::new(), String::new(), String::new()];
    for (key, name) in keys.iter_mut().zip(["ann", "bob", "stranger"]) {
        let (_, id) = place.identity(&format!("{name}.pem"));
        *key = place.text(&format!("{name}.pem"));
        if name != "stranger" {
            place.succeeds(&["peer", "add", name, &id]);
        }
    }
    let line = format!("uart=serial:{},baud=3000000", place.text("a"));
    let words = ["tcp:127.0.0.1:0", "--allow", "@ann", "--allow", "@bob"];
    let server = place.serve(&[&words[..], &["--allow", "any", "--service", &line]].concat());
    Board {
        place,
        server,
        keys,
        _plugged: plugged,
    }
}

fn words(at: &str, key: &str, command: &str) -> Vec<String> {
    let words = [command, at, "uart", "--identity", key, "--trust", "any"];
    words.map(str::to_owned).to_vec()
}

/// A client that has the line, unless somebody else has.
fn held(place: &Place, words: &[String]) -> Option<Child> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut client = place.cepa(&words).stdin(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut said = BufReader::new(client.stderr.take().unwrap());
    said.read_line(&mut line).unwrap();
    // It is said once the service is open.
    if line.contains("(not verified)") {
        return Some(client);
    }
    assert!(line.contains("the line is in use"), "{line}");
    client.wait().unwrap();
    None
}

#[test]
fn a_named_peer_reads_who_has_a_busy_line_and_a_stranger_that_it_is_busy() {
    let board = board();
    let (at, place) = (board.server.address(), &board.place);
    let [ann, bob, stranger] = &board.keys;
    let words = |key: &str, command: &str| self::words(&at, key, command);
    let run = |key: &str| {
        let words = words(key, "connect");
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        place.fails(&words, 7)
    };
    let mut first = held(place, &words(ann, "connect")).expect("nobody has it");
    let said = run(bob);
    assert!(said.contains("in use: ann ("), "{said}");
    assert!(said.contains("…) has had it for "), "{said}");
    let said = run(ann);
    assert!(
        said.contains("another connection of yours has had it for "),
        "{said}"
    );
    let said = run(stranger);
    assert!(said.contains("the line is in use"), "{said}");
    assert!(
        !said.contains("ann") && !said.contains("has had it"),
        "{said}"
    );
    // On a console, too.
    let words = words(bob, "console");
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let desk = Desk::sit_down(place, &words, (33, 101));
    let (code, seen) = desk.leave();
    assert_eq!(code, Some(7), "{seen}");
    assert!(seen.contains("in use: ann ("), "{seen}");
    // It is free once its holder has left.
    first.kill().unwrap();
    first.wait().unwrap();
    let words = self::words(&at, bob, "connect");
    let start = std::time::Instant::now();
    let mut next = loop {
        if let Some(next) = held(place, &words) {
            break next;
        }
        assert!(start.elapsed() < common::PATIENCE, "it is not free");
    };
    next.kill().unwrap();
    next.wait().unwrap();
}
