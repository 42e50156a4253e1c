//! `cepa peer`: the known peers, listed and changed.

mod common;

use std::fs;

use common::desk::Desk;
use common::{Place, failed, text};

const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbba";

/// A line is dialled at the rate that was given, and not twice at two rates.
#[test]
fn an_address_keeps_its_options_and_a_new_one_takes_its_place() {
    let place = Place::new();
    let add = |at: &str| place.succeeds(&["peer", "add", "board", A, "--at", at]);
    add("serial:/dev/ttyUSB0,baud=9600");
    let file = || fs::read_to_string(place.path("config/known_peers")).unwrap();
    assert!(
        file().contains("at=serial:/dev/ttyUSB0,baud=9600\n"),
        "{}",
        file()
    );
    add("serial:/dev/ttyUSB0,baud=19200");
    add("serial:/dev/ttyUSB1,baud=300");
    let places = "at=serial:/dev/ttyUSB0,baud=19200 at=serial:/dev/ttyUSB1,baud=300\n";
    assert!(file().contains(places), "{}", file());
    // So does a proxy, since nobody is dialled around one; its password is kept and not shown.
    add("tcp:a:1,proxy=http://me:secret@p:1");
    let kept = " at=tcp:a:1,proxy=http://me:secret@p:1\n";
    assert!(file().contains(kept), "{}", file());
    let listed = place.succeeds(&["peer", "ls"]);
    assert!(
        listed.ends_with(" at=tcp:a:1,proxy=http://me:***@p:1\n"),
        "{listed}"
    );
}

#[test]
fn peers_are_added_listed_renamed_verified_and_removed() {
    let place = Place::new();
    assert_eq!(
        place.succeeds(&["peer", "ls"]),
        "",
        "none yet, and no file is made"
    );
    assert!(!place.path("config").exists());
    place.succeeds(&[
        "peer",
        "add",
        "ann",
        A,
        "--at",
        "mux+tls+tcp:ann:7",
        "--at",
        "serial:/dev/a,baud=300",
    ]);
    place.succeeds(&["peer", "add", "bob", B]);
    let listed = place.succeeds(&["peer", "ls"]);
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].starts_with(&format!("ann {A} first=")), "{listed}");
    assert!(
        lines[0].ends_with(" how=added at=tcp:ann:7 at=serial:/dev/a,baud=300"),
        "{listed}"
    );

    let line = place.fails(&["peer", "add", "ann", B], 8);
    assert!(
        line.contains(A) && line.contains("--replace") && !line.contains("peer rm"),
        "{line}"
    );
    let line = place.fails(&["peer", "verify", "ann", B], 3);
    assert!(
        line.contains(A) && line.contains(&format!("cepa peer add ann {B} --replace")),
        "{line}"
    );
    assert!(place.succeeds(&["peer", "ls"]).contains("how=added"));
    place.succeeds(&["peer", "verify", "ann", A]);
    assert!(
        place
            .succeeds(&["peer", "ls"])
            .contains("how=verified at=tcp:ann:7")
    );
    // More places of the same id: nothing that was known is lost.
    place.succeeds(&["peer", "add", "ann", A, "--at", "tcp:ann:8"]);
    assert!(
        place
            .succeeds(&["peer", "ls"])
            .contains("how=verified at=tcp:ann:7 at=serial:/dev/a,baud=300 at=tcp:ann:8\n")
    );

    let json = place.succeeds(&["peer", "ls", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let ann = &json[0];
    assert_eq!((&ann["name"], &ann["id"]), (&"ann".into(), &A.into()));
    assert_eq!(ann["how"], "verified");
    let first = ann["first_seen"].as_str().unwrap();
    assert!(
        listed.contains(&format!("first={first} ")),
        "{first} {listed}"
    );
    let addresses = ["tcp:ann:7", "serial:/dev/a,baud=300", "tcp:ann:8"];
    assert_eq!(ann["addresses"], serde_json::json!(addresses));
    assert_eq!(json.as_array().unwrap().len(), 2);

    place.succeeds(&["peer", "rename", "ann", "anna"]);
    place.fails(&["peer", "rename", "ann", "anne"], 2);
    place.fails(&["peer", "rename", "anna", "bob"], 8);
    place.fails(&["peer", "rename", "anna", "any"], 2);
    place.succeeds(&["peer", "add", "anna", B, "--replace"]);
    let listed = place.succeeds(&["peer", "ls"]);
    assert!(listed.starts_with(&format!("anna {B} first=")), "{listed}");
    assert!(
        listed.contains("how=added at=tcp:ann:7 at=serial:/dev/a,baud=300 at=tcp:ann:8\n"),
        "{listed}"
    );
    let output = place.run(&["peer", "rm", "anna"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stderr), format!("forgot anna ({B})\n"));
    place.fails(&["peer", "rm", "anna"], 2);
    place.fails(&["peer", "add", "x", "y"], 2);
    let line = place.fails(&["peer", "add", "x", A, "--at", "stdio:"], 2);
    assert!(line.contains("stdio:"), "{line}");
}

#[test]
fn damaged_lines_are_reported_by_number_and_never_dropped() {
    let place = Place::new();
    place.succeeds(&["peer", "add", "ann", A]);
    let file = place.path("config/known_peers");
    let text_before = fs::read_to_string(&file).unwrap() + "# mine\nbroken\n\x1b[2J evil\n";
    fs::write(&file, &text_before).unwrap();
    let output = place.run(&["peer", "ls"]);
    assert_eq!(output.status.code(), Some(8));
    assert_eq!(text(&output.stdout).lines().count(), 1);
    let stderr = text(&output.stderr);
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!(lines.len(), 3, "{stderr}");
    assert!(
        lines[0].contains("line 5: the peer id is missing"),
        "{stderr}"
    );
    assert!(lines[1].contains("line 6: "), "{stderr}");
    assert!(
        lines[2].starts_with("cepa: ") && lines[2].contains("2 lines"),
        "{stderr}"
    );
    assert!(!stderr.contains('\x1b'), "{stderr:?}");
    place.succeeds(&["peer", "add", "bob", B]);
    place.succeeds(&["peer", "rm", "bob"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), text_before);
}

#[cfg(unix)]
#[test]
fn a_file_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new();
    place.succeeds(&["peer", "add", "ann", A]);
    let file = place.path("config/known_peers");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    for words in [&["peer", "ls"][..], &["peer", "add", "bob", B]] {
        let line = failed(&place.run(words), 8);
        assert!(
            line.contains("chmod 600") && line.contains("0644"),
            "{line}"
        );
    }
}

/// A key that is replaced moves one name only, so it has only one.
#[test]
fn an_id_has_one_name() {
    let place = Place::new();
    place.succeeds(&["peer", "add", "ann", A]);
    let line = place.fails(&["peer", "add", "anna", A], 8);
    assert!(
        line.contains("known as ann") && line.contains("cepa peer rename ann anna"),
        "{line}"
    );
    place.succeeds(&["peer", "add", "ann", A, "--at", "tcp:h:1"]);
}

/// What is read aloud can be typed.
#[test]
fn an_id_is_verified_by_its_words() {
    let place = Place::new();
    let (file, id) = place.identity("ann.pem");
    let words = place.succeeds(&["id", "show", "--words", "--identity", &file]);
    let words: Vec<&str> = words.split_whitespace().collect();
    place.succeeds(&["peer", "add", "ann", &id]);
    let mut other = words.clone();
    other.swap(0, 1);
    let line = place.fails(&[&["peer", "verify", "ann"][..], &other].concat(), 3);
    assert!(
        line.contains("the words differ") && line.contains(&words.join(" ")),
        "{line}"
    );
    let line = place.fails(&["peer", "verify", "ann", &words[1..].join(" ")], 2);
    assert!(line.contains("16 words"), "{line}");
    assert!(!place.succeeds(&["peer", "ls"]).contains("how=verified"));
    for typed in [
        [&["peer", "verify", "ann"][..], &words].concat(),
        vec!["peer", "verify", "ann", &words.join(" ").to_uppercase()],
    ] {
        place.succeeds(&typed);
        assert!(place.succeeds(&["peer", "ls"]).contains("how=verified"));
    }
}

#[test]
fn at_a_terminal_a_peer_has_lines_that_a_person_reads() {
    let place = Place::new();
    let far = format!("tcp:{}.example:7000", "a".repeat(50));
    place.succeeds(&["peer", "add", "ann", A, "--at", "tcp:ann:7", "--at", &far]);
    place.succeeds(&["peer", "add", "bobby", B]);
    let mut desk = Desk::sit_down(&place, &["peer", "ls"], (24, 80));
    desk.until("bobby");
    let passed = desk.passed.clone();
    let (code, rest) = desk.leave();
    assert_eq!(code, Some(0));
    let all = passed + &rest;
    let lines: Vec<&str> = all.lines().collect();
    assert_eq!(lines[0], format!("ann    {A}"));
    assert!(
        lines[1].starts_with("       added by its id, since 20"),
        "{all}"
    );
    assert_eq!(lines[2], "       at tcp:ann:7");
    assert!(lines[3].contains("at tcp:aaa"), "{all}");
    assert!(lines.contains(&format!("bobby  {B}").as_str()), "{all}");
    assert!(lines.iter().all(|line| line.len() <= 80), "{all}");
}

/// A name that was made of a long address takes a line of its own, and the columns stay in place.
#[test]
fn a_long_name_moves_no_column() {
    let place = Place::new();
    let long = "a-very-long-host-name.example-7000";
    place.succeeds(&["peer", "add", "ann", &place.identity("ann.pem").1]);
    place.succeeds(&["peer", "add", long, &place.identity("bob.pem").1]);
    let mut desk = Desk::sit_down(&place, &["peer", "ls"], (24, 80));
    desk.until(long);
    let passed = desk.passed.clone();
    let (_, rest) = desk.leave();
    let all = passed + &rest;
    assert!(all.lines().all(|line| line.trim_end().len() <= 80), "{all}");
    let ids = all.lines().filter_map(|line| {
        let (begin, id) = line.trim_end().rsplit_once(' ')?;
        (id.len() == 52).then_some(begin.len())
    });
    let ids: Vec<usize> = ids.collect();
    assert!(ids.len() == 2 && ids[0] == ids[1], "{ids:?} {all}");
}

/// The address of a relay is longer than a line: a person reads whose relay it is, and a program all of it.
#[test]
fn a_relay_fits_the_line() {
    let place = Place::new();
    let relay = format!("relay:{B}@tcp:relay.example:7711");
    place.succeeds(&["peer", "add", "ann", A, "--at", &relay]);
    for whom in ["bbbbbbbbbbbb…", "post (bbbbbbbbbbbb…)"] {
        let mut desk = Desk::sit_down(&place, &["peer", "ls"], (24, 80));
        desk.until("relay.example");
        let passed = desk.passed.clone();
        let (_, rest) = desk.leave();
        let all = passed + &rest;
        let line = format!("by relay {whom} at tcp:relay.example:7711");
        assert!(all.contains(&line), "{all}");
        assert!(
            all.lines()
                .all(|line| line.trim_end().chars().count() <= 80),
            "{all}"
        );
        place.succeeds(&["peer", "add", "post", B]);
    }
    for words in [&["peer", "ls"][..], &["peer", "ls", "--json"]] {
        assert!(place.succeeds(words).contains(&relay));
    }
}
