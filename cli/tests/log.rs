//! What peers can cause to be said, they can not cause without end.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use common::{Place, stands_for, text};

/// Connections that bring nonsense, one after the other, as fast as they are answered.
#[test]
fn a_flood_of_failures_is_counted_and_not_all_of_it_shown() {
    const ALL: u64 = 300;
    let place = Place::new();
    let mut server = place.serve(&["tcp:127.0.0.1:0", "--allow", "any"]);
    let address = server.address();
    let to = address.strip_prefix("tcp:").unwrap();
    let begun = Instant::now();
    for _ in 0..ALL {
        let mut stream = TcpStream::connect(to).unwrap();
        // It may be gone before it has all of it.
        let _ = stream.write_all(b"SSH-2.0-nonsense\r\n");
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    let lines = server.wait_for_lines("tcp 127.0.0.1", ALL);
    // However long that took.
    let most = 10 * (begun.elapsed().as_secs() + 1);
    assert!(lines <= most, "{lines} lines, {most} at most");
}

/// What is held back when the command ends is told then.
#[test]
fn nothing_is_left_uncounted_at_the_end() {
    const ALL: u64 = 40;
    let place = Place::new();
    let server = place.serve(&["tcp:127.0.0.1:0", "--allow", "any"]);
    let address = server.address();
    let to = address.strip_prefix("tcp:").unwrap();
    for _ in 0..ALL {
        let mut stream = TcpStream::connect(to).unwrap();
        let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n");
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    server.signal("TERM");
    let (code, seen) = server.finish();
    assert_eq!(code, Some(0), "{seen}");
    let all: u64 = seen
        .lines()
        .filter(|line| line.contains("tcp 127.0.0.1"))
        .map(|line| stands_for(line, "tcp 127.0.0.1"))
        .sum();
    assert_eq!(all, ALL, "{seen}");
}

/// What went wrong is shown, however many sessions came and went before it in the same second; and it names who and what.
#[test]
fn a_crowd_of_sessions_hides_no_refusal_and_no_failed_command() {
    let place = Place::new();
    let (_, id) = place.identity("config/identity.pem");
    let mut server = place.serve(&[
        "tcp:127.0.0.1:0",
        "--allow",
        &id,
        "--service",
        "up=echo:",
        "--service",
        "five=exec:sh -c 'exit 5'",
    ]);
    let address = server.address();
    let words = ["connect", &address, "up", "--trust", "any"];
    for _ in 0..4 {
        let all: Vec<_> = (0..6)
            .map(|_| place.cepa(&words).spawn().unwrap())
            .collect();
        for child in all {
            let output = common::finish(child);
            assert!(output.status.success(), "{}", text(&output.stderr));
        }
        let failed = place.run(&["connect", &address, "five", "--trust", "any"]);
        assert_eq!(failed.status.code(), Some(5), "{}", text(&failed.stderr));
        let line = server.wait_for("service five for ");
        assert!(
            line.contains(&id[..12]) && line.contains("exited with status 5"),
            "{line}"
        );
    }
    let mistyped = place.run(&["connect", &address, "ups", "--trust", "any"]);
    assert_eq!(mistyped.status.code(), Some(7));
    server.wait_for("refused");
    server.signal("TERM");
    let (_, seen) = server.finish();
    let refused = seen.lines().filter(|line| line.starts_with("refused"));
    let refused: Vec<_> = refused.collect();
    assert_eq!(refused.len(), 1, "{seen}");
    assert!(refused[0].contains("the service \"ups\""), "{seen}");
    assert!(!seen.contains("cepa.exec"), "{seen}");
}
