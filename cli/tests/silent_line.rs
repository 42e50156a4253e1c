//! A serial line at whose other end no cepa runs: what is said of it while it is silent.

mod common;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::Stdio;

use cepa::transports::testkit::LineSettings;
use common::desk::Desk;
use common::line::join;
use common::{Place, Server, text};

/// A serial line, its address, and the device at its other end.
fn line(place: &Place) -> (tokio::runtime::Runtime, String, File) {
    let runtime = join(place, &LineSettings::new(11_520.0), 1);
    let mut other = File::options();
    let other = other.read(true).write(true).open(place.path("b")).unwrap();
    let address = format!("serial:{},baud=115200", place.text("a"));
    (runtime, address, other)
}

fn started(place: &Place, words: &[&str], up: &str) -> Server {
    Server::of(place.cepa(words).stdin(Stdio::null()), up)
}

#[test]
fn a_line_on_which_nothing_is_heard_says_so_and_then_what_is_heard() {
    for command in ["connect", "forward"] {
        let place = Place::new();
        let (_line, at, mut other) = line(&place);
        place.succeeds(&["id", "show"]);
        let words = [command, &at, "--trust", "any"];
        let more: &[&str] = if command == "forward" {
            &["-L", "0=up"]
        } else {
            &[]
        };
        let mut client = started(
            &place,
            &[&words[..], more].concat(),
            "nothing heard for 5 s: ",
        );
        let said = client.seen().last().unwrap();
        assert!(said.contains("`cepa serve`"), "{said}");
        other.write_all(b"\x80\xff\x00\xfe").unwrap();
        let said = client.wait_for("bytes but no frames: is the rate right?");
        assert!(said.contains("`cepa probe "), "{said}");
        assert!(said.contains(&at), "{said}");
        other.write_all(b"\r\nboard login: ").unwrap();
        client.wait_for("a login prompt is heard, so no cepa runs there: ");
        client.signal("KILL");
    }
}

#[test]
fn a_server_says_what_it_hears_on_its_line() {
    let place = Place::new();
    let (_line, at, mut other) = line(&place);
    let words = ["serve", &at, "--allow", "any", "--service", "up=echo:"];
    let mut server = started(&place, &words, "nothing heard for 5 s: ");
    other.write_all(b"\r\nboard login: ").unwrap();
    server.wait_for("a login prompt is heard, so no cepa runs there: ");
    drop(other);
    // Where somebody comes, nothing more is said, and it works.
    let client = format!("serial:{},baud=115200", place.text("b"));
    let output = place.run_with(&["connect", &client, "up", "--trust", "any"], b"hello");
    assert_eq!(text(&output.stdout), "hello", "{output:?}");
    server.signal("INT");
    let (_, said) = server.finish();
    assert_eq!(said.matches("a login prompt").count(), 1, "{said}");
}

#[test]
fn a_probe_alone_says_the_same() {
    let place = Place::new();
    let (_line, at, mut other) = line(&place);
    let mut probe = started(&place, &["probe", &at], "nothing heard for 5 s: ");
    let said = probe.seen().last().unwrap();
    assert!(said.contains("`cepa probe --answer`"), "{said}");
    other.write_all(b"\x80\xff\x00\xfe").unwrap();
    probe.wait_for("bytes but no frames: is the rate right?");
    other.write_all(b"\r\nboard login: ").unwrap();
    probe.wait_for("a login prompt is heard, so no cepa runs there: ");
    probe.signal("KILL");
}

/// A getty echoes what it gets, and the echo of a link is no text.
#[test]
fn nothing_of_the_link_is_left_on_the_screen() {
    let place = Place::new();
    let (_line, at, mut other) = line(&place);
    place.succeeds(&["id", "show"]);
    let words = ["console", &at, "sh", "--trust", "any"];
    let mut desk = Desk::sit_down(&place, &words, (33, 101));
    std::thread::spawn(move || {
        let mut bytes = [0; 256];
        let mut greeted = false;
        while let Ok(n @ 1..) = other.read(&mut bytes) {
            if !std::mem::replace(&mut greeted, true) {
                other.write_all(b"Welcome\r\nboard login: ").unwrap();
            }
            // As a terminal has it that is not raw: control characters as two, and a line is answered.
            let mut out = Vec::new();
            for byte in &bytes[..n] {
                match byte {
                    b'\r' | b'\n' => out.extend(b"\r\nLogin incorrect\r\nboard login: "),
                    0..32 => out.extend([b'^', byte + 64]),
                    byte => out.push(*byte),
                }
            }
            if other.write_all(&out).is_err() {
                return;
            }
        }
    });
    desk.until("Welcome");
    desk.until("a login prompt is heard");
    desk.type_in("\x03");
    let passed = desk.passed.clone();
    let (_, rest) = desk.leave();
    let seen = passed + &rest;
    let plain = seen.replace("\x1b[2;33m", "").replace("\x1b[0m", "");
    assert!(plain.contains("login: \r\na login prompt"), "{seen:?}");
    assert!(!seen.contains("\\x"), "{seen:?}");
    assert!(!seen.contains('~'), "{seen:?}");
}

/// What an earlier link has left in the line, whole frames and the end of one, is not shown; what the board prints is.
#[test]
fn frames_of_an_earlier_link_are_not_shown() {
    let place = Place::new();
    let (_line, at, mut other) = line(&place);
    place.succeeds(&["id", "show"]);
    let words = ["console", &at, "sh", "--trust", "any"];
    let mut desk = Desk::sit_down(&place, &words, (33, 101));
    // It has opened the line once something comes.
    assert!(other.read(&mut [0; 256]).unwrap() > 0);
    other
        .write_all(b"\x9a\xc3\x00\x17\x7e\x02\x00\x17\xd1\x99\xf3\x02\x7e\x7e\x03\x91\x80\x00\xfe\x7eU-Boot 2026\r\n")
        .unwrap();
    desk.until("U-Boot 2026");
    desk.type_in("\x03");
    let passed = desk.passed.clone();
    let (_, rest) = desk.leave();
    let seen = passed + &rest;
    assert!(!seen.contains("\\x") && !seen.contains('~'), "{seen:?}");
}
