//! The examples that run by themselves do what their header comments say.
//!
//! Each is run by the very command line of its header, and has to end by itself with exit code 0 and to
//! have told what it did. `cargo test` builds the examples; `cargo test --test examples` alone does
//! not, and then a test says so. The other examples are peers of the interop tests, and run there.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// A guard against hanging; all of them need well under a second.
const LIMIT: Duration = Duration::from_secs(120);

/// The program of this build: it lies beside the folder of the test programs.
fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let profile = test.ancestors().nth(2).expect("target/PROFILE/deps/test");
    let path = profile.join("examples").join(name);
    assert!(
        path.is_file(),
        "{} is missing: run `cargo build --examples` first",
        path.display()
    );
    path
}

/// The arguments that the header's command line has for it.
fn arguments(name: &str) -> Vec<String> {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let (file, folder) = (format!("{name}.rs"), format!("{name}/main.rs"));
    let file = [file, folder].map(|file| examples.join(file));
    let file = file.into_iter().find(|file| file.is_file()).unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    let command = format!("//! cargo run --example {name}");
    let mut lines = text.lines().take_while(|line| line.starts_with("//!"));
    let line = lines
        .find_map(|line| line.strip_prefix(&command))
        .unwrap_or_else(|| panic!("{}: no line {command:?}", file.display()));
    let words = line.trim().trim_start_matches("-- ");
    words.split_whitespace().map(str::to_owned).collect()
}

/// Runs it as its header says, and returns the lines that it printed.
async fn run(name: &str) -> Vec<String> {
    let mut command = Command::new(program(name));
    command
        .args(arguments(name))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let ended = tokio::time::timeout(LIMIT, command.output()).await;
    let output = ended
        .unwrap_or_else(|_| panic!("{name} has not ended after {LIMIT:?}"))
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert!(
        output.status.success(),
        "{name}: {}\n--- stdout\n{out}\n--- stderr\n{err}",
        output.status
    );
    assert_eq!(err, "", "{name} complains");
    out.lines().map(str::to_owned).collect()
}

/// Fails unless each of these is a line, in whatever order.
fn expect(lines: &[String], expected: &[&str]) {
    for line in expected {
        assert!(
            lines.iter().any(|l| l == line),
            "no line {line:?} in {lines:#?}"
        );
    }
}

/// The words behind the line's beginning; the line must be there once.
fn only<'a>(lines: &'a [String], beginning: &str) -> &'a str {
    let mut found = lines.iter().filter_map(|l| l.strip_prefix(beginning));
    match (found.next(), found.next()) {
        (Some(rest), None) => rest,
        _ => panic!("not one line {beginning:?} in {lines:#?}"),
    }
}

/// The first number of these words.
fn number(words: &str) -> u64 {
    let mut numbers = words.split_whitespace().filter_map(|w| w.parse().ok());
    numbers
        .next()
        .unwrap_or_else(|| panic!("no number in {words:?}"))
}

#[tokio::test]
async fn tcp_echo() {
    let lines = run("tcp_echo").await;
    expect(
        &lines,
        &[
            "client: one came back",
            "client: two came back",
            "client: three came back",
            "client: no time: there is only an echo here",
            "server: the peer closed the session",
        ],
    );
    // Each names the other's key, the client the one that the server is known by.
    let (server, _) = only(&lines, "server ").split_once(' ').unwrap();
    expect(&lines, &[&format!("client: {server} answers")]);
    // Two certificates and a handshake at least.
    assert!(number(only(&lines, "client: closed after ")) > 1000);
}

#[tokio::test]
async fn subprocess() {
    let lines = run("subprocess").await;
    expect(
        &lines,
        &[
            "parent: upper: PEEL BY PEEL",
            "parent: reverse: onion",
            "parent: count: 1048576",
            "child's stderr: upper of 12 bytes",
            "child's stderr: reverse of 5 bytes",
            "child's stderr: count of 1048576 bytes",
            "child's stderr: the peer closed the session",
        ],
    );
    // Known only when everything else is over.
    assert_eq!(
        lines.last().unwrap(),
        "parent: the child ended with exit status: 0"
    );
}

#[cfg(feature = "serial")]
#[tokio::test]
async fn serial_pair() {
    let lines = run("serial_pair").await;
    expect(
        &lines,
        &[
            "host: sensor says 20.5 °C",
            "host: sensor says 20.7 °C",
            "host: sensor says 20.6 °C",
            "host: 3 readings while 262144 bytes came back",
            "board: the peer closed the session",
        ],
    );
    let line = only(&lines, "line: serial:");
    assert!(line.ends_with("/line,baud=921600"), "{line}");
    let bytes = lines.iter().find(|l| l.ends_with(" out on the line"));
    assert!(number(bytes.unwrap()) > 262_144);
    // The folder with the link is gone again.
    let link = line.trim_end_matches(",baud=921600");
    assert!(!Path::new(link).parent().unwrap().exists());
}

#[tokio::test]
async fn plugin() {
    let lines = run("plugin").await;
    let all = [
        "host: call 2 gives \"QUICK\"",
        "host: call 1 gives \"SLOW\"",
        "host: the plugin has had 2 calls",
        "host: the plugin ended with exit status: 0",
    ];
    assert_eq!(lines, all);
}

#[tokio::test]
async fn http_client() {
    let lines = run("http_client").await;
    assert_eq!(lines.len(), 3, "{lines:#?}");
    for path in ["/one", "/two", "/three"] {
        let who = only(&lines, &format!("{path} says "));
        assert!(who.ends_with(" wants it"), "{who}");
    }
}

#[tokio::test]
async fn http2() {
    let lines = run("http2").await;
    // What waits for the other is answered behind it, over the same substream.
    let all = [
        "200 OK: /quick got 10 bytes",
        "200 OK: /slow got 1048576 bytes",
        "all of that on 1 substream",
    ];
    assert_eq!(lines, all);
}

#[tokio::test]
async fn language_server() {
    let lines = run("language_server").await;
    assert_eq!(lines.len(), 4, "{lines:#?}");
    for (line, part) in lines.iter().zip([
        "\"id\":0,",
        "\"params\":11",
        "\"id\":2,",
        "editor: the server ended with exit status: 0",
    ]) {
        assert!(line.contains(part), "no {part} in {line}");
    }
}

#[cfg(feature = "serial")]
#[tokio::test]
async fn serial_console() {
    let lines = run("serial_console").await;
    let all = [
        "console: onion 1.0 ttyS0",
        "console: login: ",
        "console: ann",
        "console: welcome",
        "console: # ",
        "board: 0 bytes more, and nobody has the line",
    ];
    expect(&lines, &all);
    let second = only(&lines, "a second one: ");
    assert!(second.contains("another program holds it"), "{second}");
}

#[tokio::test]
async fn http_over_substream() {
    let lines = run("http_over_substream").await;
    expect(
        &lines,
        &[
            "client: GET /nothing: 404 Not Found: no /nothing here",
            "client: POST /length: 200 OK: 10 bytes",
            "client: POST /length: 200 OK: 1048576 bytes",
            "server: the peer closed the session",
        ],
    );
    let greeted = "client: GET /: 200 OK: hello, ";
    assert_eq!(lines.iter().filter(|l| l.starts_with(greeted)).count(), 2);
}

/// The server only introduces: what clients say is in their memory, and not in its own.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn chat() {
    let lines = run("chat").await;
    expect(
        &lines,
        &[
            "bartholomew: introduced to ann, directly",
            "cat: introduced to ann, directly",
            "cat: introduced to bartholomew, through the relay",
            "ann: bartholomew says, directly: …",
            "cat: bartholomew says, through the relay: …",
            "the line is in a client's memory: true",
            "bartholomew is in the server's memory: true",
            "the line is in the server's memory: false",
        ],
    );
}

#[tokio::test]
async fn mesh() {
    let lines = run("mesh").await;
    expect(
        &lines,
        &[
            "both relays carry: 1 and 1",
            "ann: it broke off: true",
            "bob: goes on",
            "ann: goes on through relay two, which carries 2",
            "relay one is back, and the worker is registered there again",
        ],
    );
    let called = lines.iter().filter(|line| *line == "worker: called via");
    assert_eq!(called.count(), 3, "{lines:#?}");
}
