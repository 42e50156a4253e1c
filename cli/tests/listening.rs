//! Listeners of `serve` and `node`: limits of the gate, clients behind a balancer, absent adapters, lock files, permissions.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::thread;
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

mod common;
use common::{PATIENCE, Place, text};

/// 192.0.2.7:40000 to 198.51.100.1:443, by version 2.
fn header() -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
    header.extend([192, 0, 2, 7, 198, 51, 100, 1, 0x9c, 0x40, 0x01, 0xbb]);
    header
}

/// What a server says of somebody who sends this instead of TLS.
fn said_of(words: &str, bytes: &[u8], what: &str) -> String {
    let place = Place::new();
    let mut server = place.serve(&[words, "--service", "e=echo:", "--allow", "any"]);
    let at = server.address();
    let at = at.trim_start_matches("tcp:").split(',').next().unwrap();
    let mut stream = TcpStream::connect(at).unwrap();
    stream.write_all(bytes).unwrap();
    server.wait_for(what)
}

#[test]
fn the_client_behind_a_balancer_is_named() {
    let garbage = [&header()[..], b"no TLS at all\n"].concat();
    let line = said_of("tcp:127.0.0.1:0,proxy-protocol=yes", &garbage, "192.0.2.7");
    assert!(line.contains("tcp 192.0.2.7"), "{line}");
}

#[test]
fn a_header_that_is_none_or_of_nobody_trusted_is_reported() {
    let line = said_of(
        "tcp:127.0.0.1:0,proxy-protocol=yes",
        b"GET / HTTP/1.0\r\n\r\n",
        "PROXY",
    );
    assert!(line.contains("no header of the PROXY protocol"), "{line}");
    let words = "tcp:127.0.0.1:0,proxy-protocol=yes,proxy-from=192.0.2.0/24";
    let line = said_of(words, &header(), "127.0.0.1");
    assert!(line.contains("127.0.0.1 is not a trusted proxy"), "{line}");
}

/// Puts the header in front of each connection, as a balancer does.
fn balancer(to: String) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut server = TcpStream::connect(&to).unwrap();
            server.write_all(&header()).unwrap();
            let (mut back, mut front) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut back, &mut front));
            thread::spawn(move || std::io::copy(&mut client, &mut server));
        }
    });
    format!("tcp:{at}")
}

#[test]
fn a_session_through_a_balancer_is_that_of_the_client() {
    let place = Place::new();
    let listen = "tcp:127.0.0.1:0,proxy-protocol=yes";
    let mut server = place.serve(&[listen, "--service", "e=echo:", "--allow", "any"]);
    let at = server
        .address()
        .trim_start_matches("tcp:")
        .split(',')
        .next()
        .unwrap()
        .to_owned();
    let by = balancer(at);
    let id = server.id();
    let output = place.run_with(&["connect", "--expect", &id, &by, "e"], b"there and back");
    assert_eq!(
        text(&output.stdout),
        "there and back",
        "{}",
        text(&output.stderr)
    );
    let line = server.wait_for("session with");
    assert!(line.contains("192.0.2.7:40000"), "{line}");
}

#[test]
fn the_gate_has_options() {
    let place = Place::new();
    let line = place.fails(&["serve", "tcp:127.0.0.1:0", "--gate", "places=none"], 2);
    assert!(line.contains("places is a number"), "{line}");
    let file = place.path("node.toml");
    fs::write(
        &file,
        "listen = [\"tcp:127.0.0.1:0\"]\ngate = \"per-host=x\"\n",
    )
    .unwrap();
    let line = place.fails(
        &["node", "--check", "--config", &place.text("node.toml")],
        2,
    );
    assert!(line.contains("node.toml:2: per-host is a number"), "{line}");
    // One place, and nobody may wait: a second one is turned away while a first one says nothing. The limits of a host do not
    // hold for this machine, but for one that a balancer names.
    let words = [
        "tcp:127.0.0.1:0,proxy-protocol=yes",
        "--service",
        "e=echo:",
        "--gate",
        "per-host=1,waiting-per-host=0,waiting=0",
    ];
    let mut server = place.serve(&words);
    let at = server
        .address()
        .trim_start_matches("tcp:")
        .split(',')
        .next()
        .unwrap()
        .to_owned();
    let clients: Vec<TcpStream> = (0..3)
        .map(|_| {
            let mut stream = TcpStream::connect(&at).unwrap();
            stream.write_all(&header()).unwrap();
            stream
        })
        .collect();
    let line = server.wait_for("192.0.2.7");
    assert!(line.contains("too many handshakes at once"), "{line}");
    drop(clients);
}

/// A terminal that stands for an adapter.
fn adapter() -> (fs::File, String) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let name = name.to_str().unwrap().to_owned();
    (fs::File::from(master), name)
}

#[test]
fn an_adapter_that_is_absent_at_the_start_is_waited_for_beside_other_listeners() {
    let place = Place::new();
    let path = place.text("adapter");
    let serial = format!("serial:{path}");
    let words = [
        "tcp:127.0.0.1:0",
        &serial,
        "--service",
        "e=echo:",
        "--allow",
        "any",
    ];
    let mut server = place.serve(&words);
    let seen = server.seen().join("\n");
    assert!(
        seen.contains("there is no such device") && seen.contains("waiting for it"),
        "{seen}"
    );
    let (at, id) = (server.address(), server.id());
    let output = place.run_with(&["connect", "--expect", &id, &at, "e"], b"there and back");
    assert_eq!(
        text(&output.stdout),
        "there and back",
        "{}",
        text(&output.stderr)
    );
    let (_master, name) = adapter();
    symlink(name, place.path("adapter")).unwrap();
    server.wait_for(&format!("listening on serial:{path}"));
    let reported = server
        .seen()
        .iter()
        .filter(|line| line.contains("no such device"))
        .count();
    assert_eq!(reported, 1, "{:?}", server.seen());
    // The same in a node.
    let other = Place::new();
    let path = other.text("adapter");
    let text = format!("listen = [\"tcp:127.0.0.1:0\", \"serial:{path}\"]\n");
    fs::write(other.path("n.toml"), text).unwrap();
    let config = other.text("n.toml");
    let mut node = common::Server::start(&other, &["node", "--config", &config]);
    node.wait_for("waiting for it");
    let (_master, name) = adapter();
    symlink(name, other.path("adapter")).unwrap();
    node.wait_for(&format!("listening on serial:{path}"));
    // Where there is nothing else, it is an error as before.
    place.fails_quietly(
        &["serve", "serial:/dev/no-such-thing", "--service", "e=echo:"],
        8,
    );
}

#[test]
fn a_lock_file_is_made_minded_and_removed() {
    let place = Place::new();
    let (_master, name) = adapter();
    let lock = place.path("LCK..x");
    let serial = format!("serial:{name},lock={}", place.text("LCK..x"));
    fs::write(&lock, "         1\n").unwrap();
    let line = place.fails_quietly(&["pipe", "exec:true", &serial], 8);
    assert!(
        line.contains("process 1 holds it, according to the lock file"),
        "{line}"
    );
    // One that is dead: its number is taken again only after all others were.
    let mut dead = std::process::Command::new("true").spawn().unwrap();
    dead.wait().unwrap();
    fs::write(&lock, format!("{:10}\n", dead.id())).unwrap();
    let server = place.serve(&[&serial, "--service", "e=echo:"]);
    let made = fs::read_to_string(&lock).unwrap();
    assert_eq!(made, format!("{:>10}\n", server.pid()));
    server.signal("TERM");
    server.finish();
    assert!(!lock.exists());
}

#[test]
fn a_unix_socket_has_the_permissions_and_the_group_that_were_asked_for() {
    let place = Place::new();
    let path = place.path("s");
    for (options, mode) in [("", 0o600), (",mode=0666", 0o666), (",mode=0660", 0o660)] {
        let listen = format!("unix:{}{options}", place.text("s"));
        let server = place.serve(&[&listen, "--service", "e=echo:"]);
        let meta = fs::symlink_metadata(&path).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, mode, "{options}");
        drop(server);
        let _ = fs::remove_file(&path);
    }
    let own = fs::metadata(place.dir.path()).unwrap().gid();
    let listen = format!("unix:{},group={own}", place.text("s"));
    let server = place.serve(&[&listen, "--service", "e=echo:"]);
    let meta = fs::symlink_metadata(&path).unwrap();
    assert_eq!(
        (meta.permissions().mode() & 0o777, meta.gid()),
        (0o660, own)
    );
    drop(server);
    let _ = fs::remove_file(&path);
    let listen = format!("unix:{},group=no-such-group", place.text("s"));
    let line = place.fails_quietly(&["serve", &listen, "--service", "e=echo:"], 8);
    assert!(line.contains("no group no-such-group"), "{line}");
}

#[test]
fn a_pipe_to_a_line_ends_after_a_silence_where_that_was_asked_for() {
    let place = Place::new();
    let (mut master, name) = adapter();
    thread::spawn(move || {
        let mut line = Vec::new();
        let mut byte = [0];
        while line.last() != Some(&b'\n') && line.last() != Some(&b'\r') {
            master.read_exact(&mut byte).unwrap();
            line.extend(byte);
        }
        for _ in 0..5 {
            thread::sleep(Duration::from_millis(200));
            master.write_all(b"answer\n").unwrap();
        }
        thread::sleep(PATIENCE * 2);
    });
    let serial = format!("serial:{name}");
    let start = Instant::now();
    let output = place.run_with(&["pipe", "-t", "5", "stdio:", &serial], b"show version\n");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout).matches("answer").count(), 5);
    assert!(start.elapsed() < PATIENCE);
    let line = place.fails(&["pipe", "-t", "soon", "stdio:", &serial], 2);
    assert!(line.contains("seconds from 0 to 86400"), "{line}");
}
