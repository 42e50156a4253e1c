//! What is seen of a line that somebody else has.

mod common;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
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
    let mut desk = Desk::sit_down(place, &words, (33, 101));
    desk.until("in use: ann (");
    assert!(!desk.passed.contains("connected to"), "{}", desk.passed);
    let (code, seen) = desk.leave();
    assert_eq!(code, Some(7), "{seen}");
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

/// `cepa console` of this peer at this service.
fn sit(place: &Place, at: &str, key: &str, more: &[&str]) -> Desk {
    let words = ["console", at, "--identity", key, "--trust", "any"];
    Desk::sit_down(place, &[&words[..], more].concat(), (33, 101))
}

#[track_caller]
fn leave(mut desk: Desk) -> String {
    desk.type_in("\r~.");
    let passed = desk.passed.clone();
    let (code, seen) = desk.leave();
    assert_eq!(code, Some(0), "{seen}");
    passed + &seen
}

#[test]
fn a_line_that_somebody_has_can_be_watched_and_nothing_typed_there_gets_to_it() {
    let board = board();
    let (at, place) = (board.server.address(), &board.place);
    let [ann, bob, stranger] = &board.keys;
    // Nobody has it.
    let mut desk = sit(place, &at, bob, &["uart", "--watch"]);
    desk.until("nothing to watch: nobody has");
    let (code, seen) = desk.leave();
    assert_eq!(code, Some(7), "{seen}");
    let device = place.path("b");
    let mut device = std::fs::File::options()
        .read(true)
        .write(true)
        .open(device)
        .unwrap();
    let mut holder = sit(place, &at, ann, &["uart"]);
    holder.until("connected to uart");
    let mut watcher = sit(place, &at, bob, &["uart", "--watch"]);
    watcher.until("watching uart at ");
    holder.until("bob (");
    holder.until("…) watches\r\n");
    device.write_all(b"from the board\r\n").unwrap();
    holder.until("from the board");
    watcher.until("from the board");
    watcher.type_in("not-for-the-board\r~B");
    // A second one is another peer, and this holder is told names; the same one again is not said again.
    let mut again = sit(place, &at, bob, &["uart", "--watch"]);
    again.until("watching uart at ");
    let mut other = sit(place, &at, stranger, &["uart", "--watch"]);
    other.until("watching uart at ");
    holder.until(" watches\r\n");
    assert!(
        !holder.passed.contains("…) watches\r\nbob ("),
        "{}",
        holder.passed
    );
    assert_eq!(holder.passed.matches("bob (").count(), 1);
    holder.type_in("typed\r");
    let mut heard = [0; 6];
    device.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"typed\r");
    device.write_all(b"second\r\n").unwrap();
    for desk in [&mut again, &mut other, &mut watcher] {
        desk.until("second");
        assert!(!desk.passed.contains("not-for"), "{}", desk.passed);
    }
    assert!(!again.passed.contains("from the board"), "{}", again.passed);
    leave(watcher);
    holder.type_in("more\r");
    device.read_exact(&mut heard[..5]).unwrap();
    assert_eq!(&heard[..5], b"more\r");
    // Whoever watches reads that the holder has left.
    leave(holder);
    again.until("what you watched has ended");
    let (code, seen) = again.leave();
    assert_eq!(code, Some(0), "{seen}");
    other.until("what you watched has ended");
}

const SHELL: &str = "sh=exec:env PS1=ready= sh -i,pty=yes";

/// A server with a shell for two peers, and their keys.
fn shells(place: &Place, service: &str) -> (Server, [String; 2]) {
    let keys = ["ann", "bob"].map(|name| {
        let (key, id) = place.identity(&format!("{name}.pem"));
        place.succeeds(&["peer", "add", name, &id]);
        key
    });
    let words = ["tcp:127.0.0.1:0", "--allow", "@ann", "--allow", "@bob"];
    let server = place.serve(&[&words[..], &["--service", service]].concat());
    (server, keys)
}

#[test]
fn a_kept_console_is_watched_from_what_is_kept_on() {
    let place = Place::new();
    let (server, [ann, bob]) = shells(&place, SHELL);
    let at = server.address();
    let mut holder = sit(&place, &at, &ann, &["sh", "--attach", "work"]);
    holder.until("ready=");
    holder.type_in("echo fi''rst\r");
    holder.until("first\r\nready=");
    let mut watcher = sit(&place, &at, &bob, &["sh", "--watch", "--attach", "work"]);
    watcher.until("watching sh at ");
    watcher.until("first\r\nready=");
    holder.until("bob (");
    holder.until(" watches\r\n");
    watcher.type_in("echo from-b''ob\r");
    holder.type_in("echo seco''nd\r");
    holder.until("second\r\n");
    watcher.until("second\r\n");
    // It goes on without its holder, who is told of who came meanwhile.
    leave(holder);
    let mut late = sit(&place, &at, &bob, &["sh", "--watch"]);
    late.until("second\r\n");
    let seen = leave(late);
    assert!(!seen.contains("runs on at the server"), "{seen}");
    let mut holder = sit(&place, &at, &ann, &["sh", "--attach", "work"]);
    holder.until("attached again");
    holder.type_in("echo thi''rd\r");
    watcher.until("third\r\n");
    holder.until("third\r\n");
    assert!(!holder.passed.contains("from-bob"), "{}", holder.passed);
    assert!(!watcher.passed.contains("from-bob"), "{}", watcher.passed);
    // With a name that nobody has, and of what is over.
    let mut none = sit(&place, &at, &bob, &["sh", "--watch", "--attach", "none"]);
    none.until("no console of this name");
    let (code, seen) = none.leave();
    assert_eq!(code, Some(7), "{seen}");
    holder.type_in("exit 3\r");
    let (code, seen) = holder.leave();
    assert_eq!(code, Some(3), "{seen}");
    watcher.until("what you watched has ended");
    let (code, seen) = watcher.leave();
    assert_eq!(code, Some(0), "{seen}");
}

#[test]
fn a_watcher_that_stands_still_holds_nobody_up_and_reads_what_it_has_missed() {
    let place = Place::new();
    let (server, [ann, bob]) = shells(&place, SHELL);
    let at = server.address();
    let mut holder = sit(&place, &at, &ann, &["sh", "--attach", "work"]);
    holder.until("ready=");
    let mut watcher = sit(&place, &at, &bob, &["sh", "--watch"]);
    watcher.until("ready=");
    let pid = watcher.child.id();
    let pid = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .ok()
        .and_then(|children| children.split_whitespace().next().map(str::to_owned))
        .unwrap_or_else(|| pid.to_string());
    assert!(common::signal(&pid, "STOP"));
    holder.type_in("seq 1 600000; echo do''ne\r");
    holder.until("done\r\nready=");
    assert!(common::signal(&pid, "CONT"));
    // A thread of its own prints what the tool says, which may come behind the output that follows.
    watcher.until_all(&[" bytes skipped]\r\n", "done\r\nready="]);
    leave(watcher);
    leave(holder);
}

#[test]
fn an_owner_may_let_nobody_watch() {
    let place = Place::new();
    let (server, [ann, bob]) = shells(&place, &format!("{SHELL},watch=no"));
    let at = server.address();
    let mut holder = sit(&place, &at, &ann, &["sh", "--attach", "work"]);
    holder.until("ready=");
    let mut desk = sit(&place, &at, &bob, &["sh", "--watch"]);
    desk.until("watch=no");
    let (code, seen) = desk.leave();
    assert_eq!(code, Some(7), "{seen}");
    leave(holder);
    let words = [
        "tcp:127.0.0.1:0",
        "--allow",
        "@ann",
        "--service",
        "up=echo:",
    ];
    let echo = place.serve(&words);
    let mut desk = sit(&place, &echo.address(), &ann, &["up", "--watch"]);
    desk.until("only a serial line or a kept");
    let (code, seen) = desk.leave();
    assert_eq!(code, Some(7), "{seen}");
    let stranger = place.identity("stranger.pem").0;
    let desk = sit(&place, &at, &stranger, &["sh", "--watch"]);
    assert_ne!(desk.leave().0, Some(0));
    let words = [
        "serve",
        "tcp:127.0.0.1:0",
        "--service",
        "x=tcp:h:1,watch=no",
    ];
    let line = place.fails_quietly(&words, 2);
    assert!(line.contains("watch= is for"), "{line}");
    let words = ["console", &at, "--watch", "--trust", "any"];
    let mut desk = Desk::sit_down(&place, &words, (33, 101));
    desk.until("--watch needs the name");
    let (code, seen) = desk.leave();
    assert_eq!(code, Some(2), "{seen}");
}
