//! The onion against CPython's ssl (OpenSSL) over memory BIOs, a peer that shares no code with cepa:
//! `onion_peer` of this build and `tests/interop/onion_peer.py` push and pop TLS layers in every way that
//! OLP/1 has, in both roles, over TCP, a pty and a child's standard input and output.

mod interop;

use std::path::Path;
use std::process::Command;

use interop::{PEER_LIMIT, PortFile, Running, both_pass, certificates, example, have, ours, start};

fn tools() -> bool {
    have(&["python3", "openssl"])
}

fn python(certificates: &Path, role: &str, transport: &[&str]) -> Command {
    let mut command = Command::new("python3");
    command.arg(ours("onion_peer.py")).arg(role).args(transport);
    command
        .arg("--certs")
        .arg(certificates)
        .args(["--limit", PEER_LIMIT]);
    command
}

fn cepa(certificates: &Path, role: &str, transport: &[&str]) -> Command {
    let mut command = Command::new(example("onion_peer"));
    command.arg(role).args(transport);
    command
        .arg("--certs")
        .arg(certificates)
        .args(["--limit", PEER_LIMIT]);
    command
}

/// A command as one word for `--exec`.
fn quoted(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<String> = words
        .map(|word| format!("'{}'", word.to_str().expect("text").replace('\'', r"'\''")))
        .collect();
    words.join(" ")
}

/// Starts who listens (or opens a pty), then the other one with what the first has told.
fn joined(
    mut first: Command,
    opening: &[&str],
    second: impl Fn(&str) -> Command,
) -> (Running, Running) {
    let file = PortFile::new();
    let mut first = start(first.args(opening).arg("--portfile").arg(file.path()));
    let place = file.text(&mut first);
    let second = start(&mut second(&place));
    (first, second)
}

#[test]
fn tcp_python_drives_and_dials() {
    if !tools() {
        return;
    }
    let certs = certificates();
    let (one, other) = joined(cepa(certs, "respond", &[]), &["--listen", "0"], |port| {
        python(certs, "drive", &["--connect", port])
    });
    both_pass(one, other);
}

#[test]
fn tcp_python_drives_and_listens() {
    if !tools() {
        return;
    }
    let certs = certificates();
    let (one, other) = joined(python(certs, "drive", &[]), &["--listen", "0"], |port| {
        cepa(certs, "respond", &["--connect", port])
    });
    both_pass(one, other);
}

#[test]
fn tcp_cepa_drives_and_dials() {
    if !tools() {
        return;
    }
    let certs = certificates();
    let (one, other) = joined(python(certs, "respond", &[]), &["--listen", "0"], |port| {
        cepa(certs, "drive", &["--connect", port])
    });
    both_pass(one, other);
}

#[test]
fn tcp_cepa_drives_and_listens() {
    if !tools() {
        return;
    }
    let certs = certificates();
    let (one, other) = joined(cepa(certs, "drive", &[]), &["--listen", "0"], |port| {
        python(certs, "respond", &["--connect", port])
    });
    both_pass(one, other);
}

#[test]
fn the_suite_of_each_profile_is_kept() {
    if !tools() {
        return;
    }
    let certs = certificates();
    let (one, other) = joined(
        cepa(certs, "respond", &["--strict"]),
        &["--listen", "0"],
        |port| {
            python(
                certs,
                "drive",
                &["--strict", "--seed", "2", "--connect", port],
            )
        },
    );
    both_pass(one, other);
    let (one, other) = joined(
        cepa(certs, "drive", &["--strict"]),
        &["--listen", "0"],
        |port| python(certs, "respond", &["--strict", "--connect", port]),
    );
    both_pass(one, other);
}

#[test]
fn reads_of_few_bytes_lose_nothing() {
    if !tools() {
        return;
    }
    let certs = certificates();
    let (one, other) = joined(cepa(certs, "respond", &[]), &["--listen", "0"], |port| {
        python(
            certs,
            "drive",
            &["--chop", "7", "--seed", "3", "--connect", port],
        )
    });
    both_pass(one, other);
}

#[test]
fn pty_python_drives() {
    if !tools() {
        return;
    }
    let certs = certificates();
    let (one, other) = joined(python(certs, "drive", &[]), &["--open-pty"], |path| {
        cepa(certs, "respond", &["--tty", path])
    });
    both_pass(one, other);
}

#[test]
fn pty_cepa_drives() {
    if !tools() {
        return;
    }
    let certs = certificates();
    let (one, other) = joined(python(certs, "respond", &[]), &["--open-pty"], |path| {
        cepa(certs, "drive", &["--tty", path])
    });
    both_pass(one, other);
}

/// The child's verdict goes to standard error, which the parent hands on.
fn parent_and_child_pass(parent: Running) {
    let ended = parent.ended();
    assert!(ended.passed(), "{ended:#?}");
    assert!(
        ended.stderr.lines().any(|line| line.starts_with("PASS")),
        "no verdict of the child: {ended:#?}"
    );
}

#[test]
fn stdio_python_starts_cepa() {
    if !tools() {
        return;
    }
    let certs = certificates();
    let child = quoted(&cepa(certs, "respond", &["--stdio"]));
    parent_and_child_pass(start(&mut python(certs, "drive", &["--exec", &child])));
    let child = quoted(&cepa(certs, "drive", &["--stdio"]));
    parent_and_child_pass(start(&mut python(certs, "respond", &["--exec", &child])));
}

#[test]
fn stdio_cepa_starts_python() {
    if !tools() {
        return;
    }
    let certs = certificates();
    let child = quoted(&python(certs, "respond", &["--stdio"]));
    parent_and_child_pass(start(&mut cepa(certs, "drive", &["--exec", &child])));
    let child = quoted(&python(certs, "drive", &["--stdio"]));
    parent_and_child_pass(start(&mut cepa(certs, "respond", &["--exec", &child])));
}

/// What the others rest on: with keys that were not pinned both ends fail, and say so.
#[test]
fn a_foreign_certificate_fails_at_both_ends() {
    if !tools() {
        return;
    }
    let (certs, foreign) = (certificates(), interop::foreign_certificates());
    for (ours, theirs) in [(certs, foreign), (foreign, certs)] {
        let (one, other) = joined(cepa(ours, "respond", &[]), &["--listen", "0"], |port| {
            python(theirs, "drive", &["--connect", port])
        });
        let (one, other) = (one.ended(), other.ended());
        for end in [&one, &other] {
            assert!(!end.success, "{one:#?} {other:#?}");
            assert!(
                end.verdict()
                    .is_some_and(|verdict| verdict.starts_with("FAIL")),
                "{one:#?} {other:#?}"
            );
        }
    }
}
