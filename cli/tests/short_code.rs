//! A few words in the place of a ticket: `cepa share --code` and whoever has the code, at a relay that both know.

mod common;

use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;

use common::{Place, Server, text};

/// A relay for anybody; the process, and its address.
fn relay(place: &Place, listen: &str) -> (Server, String) {
    let words = ["relay", listen, "--allow", "any"];
    let relay = Server::start_at(place, &words, "relaying on ");
    let line = relay.seen().last().unwrap();
    let address = line.split(' ').find(|word| word.starts_with("cepa://"));
    let address = address.unwrap().trim_end_matches([',', ';']).to_owned();
    (relay, address)
}

/// How it failed; a new place tells of its identity as well.
#[track_caller]
fn failed(output: &Output, code: i32) -> String {
    let why = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{why}");
    why.lines().last().unwrap().to_owned()
}

/// Writes the relay into the settings of this place.
fn settle(place: &Place, relay: &str) {
    let path = place.succeeds(&["config", "path"]);
    let path = std::path::Path::new(path.trim());
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, format!("relay = \"{relay}\"\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let folder = path.parent().unwrap();
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).unwrap();
}

/// A running `cepa share --code`, and its code.
fn share(place: &Place, more: &[&str]) -> (Server, String) {
    let words = [&["share", "up=exec:cat", "--code"], more].concat();
    let mut share = Server::start_at(place, &words, "Ctrl-C");
    let code = share.output_line();
    (share, code.trim_end().to_owned())
}

/// Another code of the same number, well formed.
fn another(code: &str) -> String {
    let number = code.split('-').next().unwrap();
    // Of all second words one in 256 fits the first.
    let (c, v) = ("bdfghjklmnprstvz", "aiou");
    let mut words = Vec::new();
    for a in c.chars() {
        for i in v.chars() {
            for b in c.chars() {
                words.push(format!("{number}-babab-b{i}{a}a{b}"));
            }
        }
    }
    let place = Place::new();
    let wrong = words.into_iter().find(|word| {
        let output = place.run(&["connect", word]);
        *word != code && !text(&output.stderr).contains("mistyped")
    });
    wrong.unwrap()
}

#[test]
fn a_code_leads_to_a_friend_once() {
    let (host, ann, bob) = (Place::new(), Place::new(), Place::new());
    let (_relay, at) = relay(&host, "tcp:127.0.0.1:0");
    settle(&ann, &at);
    settle(&bob, &at);
    let (mut share, code) = share(&ann, &[]);
    assert!(code.starts_with("1-") && code.len() == 13, "{code}");
    // A slip costs nothing.
    let slip = code
        .replacen('a', "e", 1)
        .replacen('i', "e", 1)
        .replacen('o', "e", 1);
    if slip != code {
        let why = failed(&bob.run(&["connect", &slip]), 2);
        assert!(why.contains("mistyped"), "{why}");
    }
    let output = bob.run_with(&["connect", &code.to_uppercase()], b"hello");
    assert_eq!(text(&output.stdout), "hello", "{output:?}");
    share.wait_for("the code was used");
    // Nobody else's, and whoever has used it can run the same command again.
    let eve = Place::new();
    settle(&eve, &at);
    let why = failed(&eve.run(&["connect", &code]), 7);
    assert!(why.contains("used this code already"), "{why}");
    let output = bob.run_with(&["connect", &code], b"again");
    assert_eq!(text(&output.stdout), "again", "{output:?}");
    let why = failed(&bob.run(&["connect", &another(&format!("77-{}", "x"))]), 7);
    assert!(why.contains("no such code"), "{why}");
    share.signal("INT");
    let (status, rest) = share.finish();
    assert_eq!(status, Some(0), "{rest}");
}

#[test]
fn a_wrong_code_uses_it_up_and_both_ends_read_so() {
    let (host, ann, eve) = (Place::new(), Place::new(), Place::new());
    let (_relay, at) = relay(&host, "tcp:127.0.0.1:0");
    settle(&eve, &at);
    let (share, code) = share(&ann, &["--relay", &at]);
    let why = failed(&eve.run(&["connect", &another(&code)]), 7);
    assert!(why.contains("wrong, and used up"), "{why}");
    let (status, told) = share.finish();
    assert_eq!(status, Some(7), "{told}");
    assert!(told.contains("somebody tried a wrong code"), "{told}");
    let why = failed(&eve.run(&["connect", &code]), 7);
    assert!(why.contains("used this code already"), "{why}");
}

#[test]
fn what_ends_a_code_is_said_and_so_is_what_is_missing() {
    let (host, ann, bob) = (Place::new(), Place::new(), Place::new());
    let why = failed(
        &ann.run(&[
            "share",
            "up=exec:cat",
            "--code",
            "--listen",
            "tcp:127.0.0.1:0",
        ]),
        2,
    );
    assert!(why.contains("--code needs a relay"), "{why}");
    let (relay, at) = relay(&host, "tcp:127.0.0.1:0");
    let (gone, left) = share(&ann, &["--relay", &at]);
    let why = failed(&bob.run(&["connect", &left]), 2);
    assert!(why.contains("relay ="), "{why}");
    settle(&bob, &at);
    gone.signal("INT");
    assert_eq!(gone.finish().0, Some(0));
    let why = failed(&bob.run(&["connect", &left]), 7);
    assert!(why.contains("has left"), "{why}");
    // The relay's end is the code's.
    let (share, _code) = share(&ann, &["--relay", &at]);
    relay.signal("INT");
    let _ = relay.finish();
    let (status, told) = share.finish();
    assert_eq!(status, Some(6), "{told}");
    assert!(told.contains("and the code with it"), "{told}");
}

#[test]
fn nobody_counts_through_the_codes_and_a_peer_has_a_few() {
    let (host, ann, eve) = (Place::new(), Place::new(), Place::new());
    let (_relay, at) = relay(&host, "tcp:127.0.0.1:0");
    settle(&eve, &at);
    settle(&ann, &at);
    // At one machine a second one is refused before it gets there.
    let machines: Vec<_> = (0..4).map(|_| same_key(&ann, &at)).collect();
    let invitations: Vec<_> = machines.iter().map(|it| invite(it, &[])).collect();
    let why = failed(&machines[0].run(&["invite", "--code"]), 8);
    assert!(why.contains("another cepa command of yours"), "{why}");
    let numbers: Vec<_> = invitations
        .iter()
        .map(|(_, code)| code.split('-').next().unwrap())
        .collect();
    assert_eq!(numbers, ["1", "2", "3", "4"]);
    let why = failed(&ann.run(&["invite", "--code"]), 7);
    assert!(why.contains("no room for another code"), "{why}");
    let absent = another("99-x");
    for _ in 0..10 {
        let why = failed(&eve.run(&["connect", &absent]), 7);
        assert!(why.contains("no such code"), "{why}");
    }
    let why = failed(&eve.run(&["connect", &absent]), 7);
    assert!(why.contains("try again in"), "{why}");
}

/// Another machine with a copy of this one's key.
fn same_key(of: &Place, relay: &str) -> Place {
    of.succeeds(&["id", "show"]);
    let place = Place::new();
    settle(&place, relay);
    let folder = |place: &Place| {
        let path = place.succeeds(&["config", "path"]);
        std::path::Path::new(path.trim())
            .parent()
            .unwrap()
            .to_owned()
    };
    let (from, to) = (folder(of), folder(&place));
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_file() {
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
    place
}

/// A running `cepa invite --code`, and its code.
fn invite(place: &Place, more: &[&str]) -> (Server, String) {
    let words = [&["invite", "--code"], more].concat();
    let mut invite = Server::start_at(place, &words, "cepa join CODE");
    let code = invite.output_line();
    (invite, code.trim_end().to_owned())
}

#[test]
fn an_invitation_goes_by_a_code_as_well() {
    let (host, ann, bob) = (Place::new(), Place::new(), Place::new());
    let (_relay, at) = relay(&host, "tcp:127.0.0.1:0");
    let (invite, code) = invite(&ann, &["--relay", &at, "--name", "bob"]);
    assert_eq!(code.len(), 13, "{code}");
    let why = failed(&bob.run(&["join", &code]), 2);
    assert!(why.contains("--relay cepa://"), "{why}");
    let words = ["join", &code, "--relay", &at, "--name", "ann"];
    let output = bob.run(&words);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let (status, told) = invite.finish();
    assert_eq!(status, Some(0), "{told}");
    assert!(told.contains("the code was used"), "{told}");
    assert!(told.contains("remembered as bob"), "{told}");
    // It was oneself, and nobody else.
    for words in [&words[..], &words[..4]] {
        let why = failed(&bob.run(words), 5);
        assert!(why.contains("you know this peer already, as ann"), "{why}");
        assert!(!why.contains("somebody"), "{why}");
    }
    let eve = Place::new();
    let why = failed(&eve.run(&words[..4]), 7);
    assert!(why.contains("used this code already"), "{why}");
}

#[test]
fn a_running_node_invites_by_a_code() {
    let (host, ann, bob) = (Place::new(), Place::new(), Place::new());
    let (_relay, at) = relay(&host, "tcp:127.0.0.1:0");
    ann.succeeds(&["id", "show"]);
    let (control, file) = (ann.text("node.sock"), ann.text("node.toml"));
    let settings = format!(
        "control = \"{control}\"\nlisten = [\"tcp:127.0.0.1:0\"]\n\
         [services.up]\nto = \"echo:\"\nallow = [\"known\"]\n"
    );
    std::fs::write(&file, &settings).unwrap();
    let node = Server::start(&ann, &["node", "--config", &file]);
    let words = ["invite", "--control", &control, "--code"];
    let why = failed(&ann.run(&words), 2);
    assert!(why.contains("--code needs a relay"), "{why}");
    drop(node);

    std::fs::write(&file, format!("register = [\"{at}\"]\n{settings}")).unwrap();
    let mut node = Server::start(&ann, &["node", "--config", &file]);
    let more = ["--control", &control, "--name", "bob"];
    let (invite, code) = invite(&ann, &more);
    assert_eq!(code.len(), 13, "{code}");
    let words = ["join", &code, "--relay", &at, "--name", "ann"];
    let output = bob.run(&words);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let (status, told) = invite.finish();
    assert_eq!(status, Some(0), "{told}");
    assert!(told.contains("remembered as bob"), "{told}");
    node.wait_for("the code was used");

    // Somebody guesses: the code is used up, and whoever invites reads that.
    let (invite, code) = self::invite(&ann, &["--control", &control]);
    let why = failed(&bob.run(&["join", &another(&code), "--relay", &at]), 7);
    assert!(why.contains("wrong, and used up"), "{why}");
    let (status, told) = invite.finish();
    assert_eq!(status, Some(7), "{told}");
    assert!(told.contains("run cepa invite again"), "{told}");
}

#[test]
fn a_wrong_code_uses_an_invitation_up_too() {
    let (host, ann, eve) = (Place::new(), Place::new(), Place::new());
    let (_relay, at) = relay(&host, "tcp:127.0.0.1:0");
    settle(&ann, &at);
    let (invite, code) = invite(&ann, &["tcp:127.0.0.1:0"]);
    let why = failed(&eve.run(&["join", &another(&code), "--relay", &at]), 7);
    assert!(why.contains("wrong, and used up"), "{why}");
    let (status, told) = invite.finish();
    assert_eq!(status, Some(7), "{told}");
    assert!(told.contains("run cepa invite again"), "{told}");
}

#[test]
fn a_code_for_something_else_says_what_it_is_for_and_is_of_use_there() {
    let (host, ann, bob) = (Place::new(), Place::new(), Place::new());
    let (_relay, at) = relay(&host, "tcp:127.0.0.1:0");
    let (mut share, code) = share(&ann, &["--relay", &at]);
    let why = failed(&bob.run(&["join", &code, "--relay", &at]), 2);
    assert!(
        why.contains("give the same code here to `cepa forward`"),
        "{why}"
    );
    share.wait_for("nothing came of it yet");
    let output = bob.run_with(&["connect", &code, "--relay", &at], b"hello");
    assert_eq!(text(&output.stdout), "hello", "{output:?}");
    drop(share);

    let (mut invite, code) = invite(&ann, &["--relay", &at]);
    let why = failed(&bob.run(&["connect", &code, "--relay", &at]), 2);
    assert!(
        why.contains("give the same code here to `cepa join`"),
        "{why}"
    );
    let told = invite.wait_for("nothing came of it yet");
    assert!(told.contains("for cepa join"), "{told}");
    bob.succeeds(&["join", &code, "--relay", &at]);
    assert_eq!(invite.finish().0, Some(0));
}

/// Both ends read that a command was the wrong one, and the same code works with the right one; it goes on from an interruption, too.
#[test]
fn a_code_that_was_given_to_the_wrong_command_copies_afterwards() {
    let (host, ann, bob) = (Place::new(), Place::new(), Place::new());
    let (_relay, at) = relay(&host, "tcp:127.0.0.1:0");
    std::fs::create_dir(ann.path("docs")).unwrap();
    std::fs::write(ann.path("docs/a"), b"hello").unwrap();
    let (docs, out) = (format!("files:{}", ann.text("docs")), bob.text("out"));
    let words = ["share", &docs, "--code", "--relay", &at];
    let mut share = Server::start_at(&ann, &words, "Ctrl-C");
    let code = share.output_line();
    let code = code.trim_end();
    let why = failed(&bob.run(&["connect", code, "--relay", &at]), 7);
    assert!(why.contains("use it with `cepa cp`"), "{why}");
    share.wait_for("the peer was told: this service has files");
    for _ in 0..2 {
        bob.succeeds(&["cp", &format!("{code}:/a"), &out, "--relay", &at]);
        assert_eq!(std::fs::read(&out).unwrap(), b"hello");
    }
}

/// To look costs the code nothing.
#[test]
fn what_a_code_is_for_can_be_looked_at_before() {
    let (host, ann, bob) = (Place::new(), Place::new(), Place::new());
    let (_relay, at) = relay(&host, "tcp:127.0.0.1:0");
    let (_share, code) = share(&ann, &["--relay", &at, "--uses", "1"]);
    let explained = bob.succeeds(&["explain", &code]);
    assert!(
        explained.contains("leads to") && !explained.contains(&code),
        "{explained}"
    );
    let listed = bob.succeeds(&["services", &code, "--relay", &at]);
    assert!(listed.contains("up"), "{listed}");
    bob.succeeds(&["ping", "-c", "1", &code, "--relay", &at]);
    let output = bob.run_with(&["connect", &code, "--relay", &at], b"hello");
    assert_eq!(text(&output.stdout), "hello", "{output:?}");
}

#[test]
fn the_relay_of_a_code_is_given_or_the_default_one() {
    let (host, ann, bob) = (Place::new(), Place::new(), Place::new());
    let (_relay, at) = relay(&host, "tcp:127.0.0.1:0");
    settle(&bob, &format!("{}1", at.trim_end_matches(char::is_numeric)));
    let (_share, code) = share(&ann, &["--relay", &at]);
    // What is given goes before what is set.
    let output = bob.run_with(&["connect", &code, "--relay", &at], b"hello");
    assert_eq!(text(&output.stdout), "hello", "{output:?}");
    for words in [
        &["connect", "tcp:127.0.0.1:1", "--relay", &at][..],
        &["forward", "tcp:127.0.0.1:1", "-L", "0=up", "--relay", &at],
        &["join", "cepa-invitation:x", "--relay", &at],
    ] {
        let why = failed(&bob.run(words), 2);
        assert!(why.contains("where a short code was made"), "{why}");
    }
}

#[test]
fn a_code_expires_and_both_ends_read_so() {
    let (host, ann, bob) = (Place::new(), Place::new(), Place::new());
    let (_relay, at) = relay(&host, "tcp:127.0.0.1:0");
    let (share, code) = share(&ann, &["--relay", &at, "--for", "1s"]);
    let (status, told) = share.finish();
    assert_eq!(status, Some(6), "{told}");
    assert!(
        told.contains("the code expired, and nobody used it"),
        "{told}"
    );
    let why = failed(&bob.run(&["connect", &code, "--relay", &at]), 7);
    assert!(why.contains("the code has expired"), "{why}");
}

#[test]
fn a_relay_that_starts_again_knows_no_code_any_more() {
    for end in ["INT", "KILL"] {
        let (host, ann, bob) = (Place::new(), Place::new(), Place::new());
        let (first, at) = relay(&host, "tcp:127.0.0.1:0");
        let (share, code) = share(&ann, &["--relay", &at]);
        first.signal(end);
        let _ = first.finish();
        let (_, place) = at.split_once('@').unwrap();
        let (_second, again) = relay(&host, place);
        assert_eq!(at, again);
        let (status, told) = share.finish();
        assert_eq!(status, Some(6), "{end}: {told}");
        let said = "and the code with it; run cepa share again";
        assert!(told.contains(said), "{end}: {told}");
        let why = failed(&bob.run(&["connect", &code, "--relay", &at]), 7);
        assert!(why.contains("no such code"), "{end}: {why}");
    }
}

#[test]
fn codes_are_for_whom_the_relay_serves() {
    let (host, ann, eve) = (Place::new(), Place::new(), Place::new());
    let id = ann.succeeds(&["id", "show"]);
    let words = ["relay", "tcp:127.0.0.1:0", "--allow", id.trim()];
    let relay = Server::start_at(&host, &words, "relaying on ");
    let at = relay.seen().last().unwrap();
    let at = at.split(' ').find(|word| word.starts_with("cepa://"));
    let at = at.unwrap().trim_end_matches([',', ';']).to_owned();
    let (_share, code) = share(&ann, &["--relay", &at]);
    let output = eve.run(&["connect", &code, "--relay", &at]);
    assert_ne!(output.status.code(), Some(0));
    let output = eve.run(&["share", "up=exec:cat", "--code", "--relay", &at]);
    assert_ne!(output.status.code(), Some(0));
    // Neither has used the code up.
    let output = ann.run(&["connect", &another(&code), "--relay", &at]);
    assert!(
        text(&output.stderr).contains("wrong, and used up"),
        "{output:?}"
    );
}
