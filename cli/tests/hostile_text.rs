//! Foreign text on its way to a terminal: whatever way it takes, every character that a terminal would obey, or that
//! nobody sees, arrives as an escape.

mod common;

use cepa_transports::text::{HOSTILE, is_printable};
use common::{Place, text};

/// All of them but NUL, which no address and no command line can hold.
fn all() -> impl Iterator<Item = char> {
    HOSTILE.iter().map(|(_, c)| *c).filter(|c| *c != '\0')
}

/// All of them between letters.
fn raw() -> String {
    all().flat_map(|c| ['x', c]).collect()
}

/// A text with each byte written behind `before`.
fn bytes(text: &str, before: &str) -> String {
    let digits = text.bytes().map(|byte| format!("{before}{byte:02x}"));
    digits.collect::<Vec<_>>().concat()
}

/// As `%XX` has them.
fn percent() -> String {
    bytes(&raw(), "%")
}

/// As `$'…'` has them.
fn dollar() -> String {
    format!("$'{}'", bytes(&raw(), "\\x"))
}

#[track_caller]
fn harmless(what: &str, output: &str) {
    assert!(!output.is_empty(), "{what} says nothing");
    let bad: Vec<char> = output
        .chars()
        .filter(|c| *c != '\n' && !is_printable(*c))
        .collect();
    assert!(bad.is_empty(), "{what}: {bad:?} in {output:?}");
}

#[test]
fn an_explanation_of_any_scheme() {
    let place = Place::new();
    let (percent, dollar) = (percent(), dollar());
    let raw = raw();
    for address in [
        format!("unix:/{percent}"),
        format!("memory:{percent}"),
        format!("serial:/{percent}"),
        format!("pty:/{percent}"),
        format!("exec:{dollar} {dollar}"),
        format!("exec:sh,dir=/{percent}"),
        format!("unix:/{raw}"),
        format!("memory:{raw}"),
        format!("serial:/{raw}"),
        format!("pty:/{raw}"),
        format!("exec:'{raw}' '{raw}',dir=/{raw}"),
    ] {
        let output = place.run(&["explain", &address]);
        assert!(output.status.success(), "{address}: {output:?}");
        harmless(&address, &text(&output.stdout));
    }
}

#[test]
fn an_error_about_any_address() {
    let place = Place::new();
    let raw = raw();
    let (percent, dollar) = (percent(), dollar());
    for address in [
        // That can't be dialled …
        format!("unix:/{percent}"),
        format!("memory:{percent}"),
        format!("serial:/{percent}"),
        format!("pty:/nowhere/{percent}"),
        format!("exec:{dollar}"),
        format!("exec:sh,dir=/{percent}"),
        // … or are none.
        raw.clone(),
        format!("tcp:{raw}:1"),
        format!("unix:{raw},x"),
        format!("exec:a '{raw}"),
        format!("cepa://{raw}"),
    ] {
        let output = place.run(&["pipe", "stdio:", &address]);
        assert!(!output.status.success(), "{address}");
        harmless(&address, &text(&output.stderr));
    }
    // As peers' addresses, hints, services and ids.
    for words in [
        &["connect", &format!("cepa://{raw}")][..],
        &["connect", "tcp:127.0.0.1:9", &raw],
        &["connect", "tcp:127.0.0.1:9", "--expect", &raw],
        &["peer", "add", &raw, "x"],
        &["join", &raw],
    ] {
        let output = place.run(words);
        assert!(!output.status.success(), "{words:?}");
        harmless("an error", &text(&output.stderr));
    }
}

#[test]
fn what_a_command_says_and_its_name() {
    let place = Place::new();
    // The name of the program stands before each of its lines.
    let name: String = all()
        .filter(|c| *c != '\n')
        .flat_map(|c| ['x', c])
        .collect();
    let file = place.path(&name);
    let raw = raw();
    std::fs::write(
        &file,
        format!("#!/bin/sh\ncat >&2 <<'end'\n{raw}\nlast{raw}\nend\nexit 3\n"),
    )
    .unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&file, mode).unwrap();
    let address = format!("exec:'{}'", file.to_str().unwrap());
    let output = place.run(&["connect", &address, "--trust", "any"]);
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    let stderr = text(&output.stderr);
    assert!(stderr.contains("] x"), "{stderr}");
    harmless("a command", &stderr);
}

#[test]
fn what_a_file_says() {
    let place = Place::new();
    assert!(
        place
            .run(&["peer", "add", "ann", &"a".repeat(52)])
            .status
            .success()
    );
    let file = place.path("config/known_peers");
    let raw: String = all()
        .filter(|c| *c != '\n')
        .flat_map(|c| ['x', c])
        .collect();
    let id = "a".repeat(52);
    let good = format!(
        "bob {id} at={}\n",
        format!("unix:/{raw}").replace([' ', '\r', '\u{85}', '\u{2028}', '\u{2029}'], "")
    );
    let text_before = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text_before + &good + &raw + "\n").unwrap();
    let output = place.run(&["peer", "ls"]);
    assert!(text(&output.stdout).contains("bob"), "{output:?}");
    harmless("the list of peers", &text(&output.stdout));
    harmless("a damaged line", &text(&output.stderr));
    // A node's configuration.
    let config = place.path("node.toml");
    std::fs::write(&config, format!("listen = [{raw:?}]\nx = 1\n")).unwrap();
    let output = place.run(&["node", "run", "--config", config.to_str().unwrap()]);
    assert!(!output.status.success());
    harmless("a configuration", &text(&output.stderr));
}

#[test]
fn what_a_service_refuses_with() {
    let place = Place::new();
    let raw = raw();
    // The name that is asked for comes back in what both ends say of it.
    let server = place.serve(&["tcp:127.0.0.1:0", "--allow", "any", "--service", "a=echo:"]);
    let peer = format!("cepa://{}@{}", server.id(), server.address());
    let name: String = raw.chars().filter(|c| !c.is_control()).collect();
    let service = bytes(&name, "%");
    let output = place.run(&["connect", &format!("{peer}/{service}")]);
    assert!(!output.status.success(), "{output:?}");
    harmless("the client", &text(&output.stderr));
    server.signal("TERM");
    let (_, seen) = server.finish();
    harmless("the server", &seen);
}
