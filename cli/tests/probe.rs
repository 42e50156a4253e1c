//! `cepa probe` between two processes.

mod common;

use common::{Place, text};

#[test]
fn a_pty_is_clean_in_both_directions() {
    let place = Place::new();
    let line = place.text("line");
    let pty = format!("pty:{line}");
    let words = ["probe", "--answer", &pty];
    let mut other = common::Server::start_at(&place, &words, "answering probes on");
    let serial = format!("serial:{line},baud=115200");
    // A pty knows no RS-485, and works without.
    let output = place.run(&["probe", &format!("{serial},rs485=on")]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.contains("RS-485 is unsupported by this device"),
        "{said}"
    );
    let table = text(&output.stdout);
    for row in [
        "round trip ",
        "there ",
        "rate ",
        "bit errors     none in ",
        "8 bits         clean ",
    ] {
        assert!(table.contains(row), "{row}: {table}");
    }
    other.wait_for("a probe started");
    let output = place.run(&["probe", &serial, "--json"]);
    let json = text(&output.stdout);
    assert!(json.contains("\"kind\":\"answered\""), "{json}");
    assert_eq!(json.matches("\"bits_flipped\":0,").count(), 2, "{json}");
    assert_eq!(json.matches("\"clean\":256,").count(), 2, "{json}");
}

#[test]
fn a_loopback_is_recognised() {
    let place = Place::new();
    let output = place.run(&["probe", "exec:cat"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(
        text(&output.stdout).contains("there and back"),
        "{}",
        text(&output.stdout)
    );
}

#[test]
fn what_cannot_be_probed_is_reported() {
    let place = Place::new();
    let line = place.fails(&["probe", "exec:true"], 6);
    assert!(line.contains("the other end is gone"), "{line}");
    let line = place.fails(&["probe", "tls+tcp:127.0.0.1:1"], 2);
    assert!(line.contains("plain address"), "{line}");
    let line = place.fails(&["probe", "tcp:127.0.0.1:1", "--answer", "--json"], 2);
    assert!(line.contains("--json"), "{line}");
}
