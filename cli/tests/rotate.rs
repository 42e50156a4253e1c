//! Keys that are replaced, with real processes at both ends.

mod common;

use std::fs;

use common::tcp::closed_port;
use common::{PATIENCE, Place, Server, text};

fn server(place: &Place, address: &str, more: &[&str]) -> Server {
    place.serve(&[&[address, "--service", "up=echo:"], more].concat())
}

fn known(place: &Place) -> String {
    text(&place.run(&["peer", "ls"]).stdout)
}

/// Replaces the key in that file, and gives the new id.
#[track_caller]
fn rotate(place: &Place, file: &str, more: &[&str]) -> String {
    let output = place.run(&[&["id", "rotate", "--identity", file], more].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout).trim().to_owned()
}

#[test]
fn a_dialler_follows_the_server_to_its_new_key() {
    let place = Place::new();
    let (file, old) = place.identity("server.pem");
    let socket = format!("unix:{}", place.text("socket"));
    let with = |file: &str| server(&place, &socket, &["--allow", "any", "--identity", file]);
    let first = with(&file);
    let output = place.run_with(&["connect", &socket, "--trust-new"], b"1");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    drop(first);

    let new = rotate(&place, &file, &["--kind", "p256"]);
    assert_ne!(old, new);
    let kept = fs::read_dir(place.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().contains("server.old-"))
        .unwrap();
    let second = with(&file);
    assert_eq!(second.id(), new);
    let output = place.run_with(&["connect", &socket], b"2");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "2");
    let reported = text(&output.stderr);
    assert!(
        reported.contains(&old) && reported.contains(&new),
        "it is told: {reported}"
    );
    let listed = known(&place);
    assert!(
        listed.contains(&format!(" {new} ")) && listed.contains(&format!(" was={old}@")),
        "{listed}"
    );
    // Once it is known there is nothing more to tell.
    let output = place.run_with(&["connect", &socket], b"3");
    assert_eq!(text(&output.stderr), "");
    drop(second);

    // The old one is good for the overlap.
    let third = with(kept.to_str().unwrap());
    assert_eq!(third.id(), old);
    assert_eq!(
        place.run_with(&["connect", &socket], b"4").status.code(),
        Some(0)
    );
    assert_eq!(known(&place), listed, "and nothing goes back");
    drop(third);

    // From the old key once more to another one: a fork.
    let forked = rotate(&place, kept.to_str().unwrap(), &[]);
    let fourth = with(kept.to_str().unwrap());
    let line = place.fails(&["connect", &socket], 3);
    assert!(
        line.contains("two successors") && line.contains(&forked),
        "{line}"
    );
    assert_eq!(known(&place), listed);
    drop(fourth);
}

/// A name stands for an id, which vouches for the key as its successor.
#[test]
fn a_peer_that_is_dialled_by_its_name_is_followed_as_well() {
    let place = Place::new();
    let (file, old) = place.identity("server.pem");
    let at = closed_port();
    let address = format!("tcp:127.0.0.1:{at}");
    let output = place.run(&["peer", "add", "ann", &old, "--at", &address]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let new = rotate(&place, &file, &[]);
    let _server = server(&place, &address, &["--allow", "any", "--identity", &file]);
    let output = place.run_with(&["connect", "@ann", "up"], b"1");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let reported = text(&output.stderr);
    assert!(
        reported.contains("ann has replaced its key") && reported.contains(&new),
        "{reported}"
    );
    let listed = known(&place);
    assert!(
        listed.contains(&format!("ann {new} ")) && listed.contains(&format!(" was={old}@")),
        "{listed}"
    );
    let output = place.run_with(&["connect", "@ann", "up"], b"2");
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn a_server_follows_its_clients_and_the_old_key_ends_with_the_overlap() {
    let place = Place::new();
    let (file, old) = place.identity("client.pem");
    assert!(place.run(&["peer", "add", "client", &old]).status.success());
    let mut by_list = server(&place, "tcp:127.0.0.1:0", &["--allow", "known"]);
    let mut by_id = server(&place, "tcp:127.0.0.1:0", &["--allow", &old]);
    let (listed, pinned) = (by_list.address(), by_id.address());
    let connect = |address: &str, file: &str| {
        let id = by_list_id(&place);
        place.run_with(
            &["connect", address, "--expect", &id, "--identity", file],
            b"x",
        )
    };
    for address in [&listed, &pinned] {
        assert_eq!(connect(address, &file).status.code(), Some(0));
    }
    let new = rotate(&place, &file, &["--overlap", "0"]);
    for address in [&listed, &pinned] {
        let output = connect(address, &file);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    }
    let line = by_list.wait_for("has replaced its key");
    assert!(line.contains(&old) && line.contains(&new), "{line}");
    let line = by_id.wait_for("has replaced its key");
    assert!(line.contains(&new), "{line}");
    assert!(known(&place).contains(&format!("client {new} ")));
    // An overlap of no days has ended a second later, on the list; who pins the old key, pins it.
    let kept = place.text(&format!("client.old-{}.pem", &old[..12]));
    let start = std::time::Instant::now();
    while connect(&listed, &kept).status.code() != Some(7) {
        assert!(start.elapsed() < PATIENCE);
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    assert_eq!(connect(&pinned, &kept).status.code(), Some(0));
    // A key that nobody knows has a successor that nobody knows.
    let (stranger, _) = place.identity("stranger.pem");
    rotate(&place, &stranger, &[]);
    for address in [&listed, &pinned] {
        assert_eq!(connect(address, &stranger).status.code(), Some(7));
    }
}

/// The id of the default identity, which both servers have.
fn by_list_id(place: &Place) -> String {
    text(&place.run(&["id", "show"]).stdout).trim().to_owned()
}

#[test]
fn statements_go_by_hand_where_no_certificate_carries_them() {
    let place = Place::new();
    let (file, old) = place.identity("peer.pem");
    let show = ["id", "show", "--statement", "--identity", &file];
    let line = place.fails(&show, 1);
    assert!(line.contains("cepa id rotate"), "{line}");
    assert!(place.run(&["peer", "add", "peer", &old]).status.success());
    let new = rotate(&place, &file, &[]);
    let statement = place.run(&show).stdout;
    let output = place.run_with(&["peer", "follow", "-"], &statement);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(
        known(&place).contains(&format!("peer {new} ")),
        "{}",
        known(&place)
    );
    let path = place.text("statement");
    fs::write(&path, &statement).unwrap();
    place.fails(&["peer", "follow", &path], 1);
    fs::write(&path, "cepa-rotation:AAAA").unwrap();
    place.fails(&["peer", "follow", &path], 2);
    let mut forged = statement;
    let at = forged.len() - 60;
    forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
    fs::write(&path, &forged).unwrap();
    let line = place.fails(&["peer", "follow", &path], 3);
    assert!(line.contains("not signed"), "{line}");
    place.fails(&["peer", "follow", &place.text("nowhere")], 8);
    place.fails(&["id", "rotate", "--identity", &place.text("nowhere")], 8);
}
