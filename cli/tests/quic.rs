//! `quic:` from the command line: sessions, files, consoles of nobody, and what is told where UDP leads nowhere.

mod common;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream, UdpSocket};
use std::thread;

use common::tcp::echo_server;
use common::{PATIENCE, Place, Server, noise, sha256, text};

fn serve(place: &Place, at: &str) -> Server {
    place.serve(&[at, "--service", "up=exec:sha256sum", "--allow", "any"])
}

/// The sum of "hello" by way of an address.
fn works(place: &Place, own: &str, address: &str, id: &str) {
    let mut words = vec!["connect", address, "up", "--identity", own];
    if !address.starts_with("cepa://") {
        words.extend(["--expect", id]);
    }
    let output = place.run_with(&words, b"hello");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), sha256(b"hello"));
}

#[test]
fn a_service_is_reached_and_peers_are_known_by_their_keys() {
    let place = Place::new();
    let server = serve(&place, "quic:127.0.0.1:0");
    let (at, id) = (server.address(), server.id());
    let (own, other) = place.identity("client");
    assert!(at.starts_with("quic:127.0.0.1:"), "{at}");
    works(&place, &own, &at, &id);
    works(&place, &own, &format!("mux+tls+{at},keepalive=5"), &id);
    works(&place, &own, &format!("cepa://{id}@{at}"), &id);
    // Whatever the certificate of QUIC says, somebody else's key is nobody's.
    let line = place.fails_quietly(&["connect", &at, "up", "--expect", &other], 3);
    assert!(line.contains(&id), "{line}");
}

#[test]
fn files_go_both_ways() {
    let place = Place::new();
    fs::create_dir(place.path("srv")).unwrap();
    let files = format!("files=files:{}", place.text("srv"));
    let server = place.serve(&["quic:127.0.0.1:0", "--service", &files, "--allow", "any"]);
    let at = format!("cepa://{}@{}", server.id(), server.address());
    let (own, _) = place.identity("client");
    let copies = |from: &str, to: &str| {
        place.succeeds(&["cp", "--identity", &own, from, to]);
    };
    let data = noise(3 << 20);
    fs::write(place.path("a"), &data).unwrap();
    copies(&place.text("a"), &format!("{at}/files/b"));
    assert!(fs::read(place.path("srv").join("b")).unwrap() == data);
    copies(&format!("{at}/files/b"), &place.text("c"));
    assert!(fs::read(place.path("c")).unwrap() == data);
}

/// A server that is killed says nothing; its silence tells, and the next one at its port is dialled.
#[test]
fn a_server_that_was_killed_is_dialled_again() {
    let place = Place::new();
    let web = format!("web=tcp:127.0.0.1:{}", echo_server());
    let (key, id) = place.identity("server.pem");
    let start =
        |at: &str| place.serve(&[at, "--identity", &key, "--service", &web, "--allow", "any"]);
    let mut server = start("quic:127.0.0.1:0,keepalive=1");
    let at = server.address();
    let mut forward = Server::start(
        &place,
        &[
            "forward",
            &at,
            "-L",
            "tcp:127.0.0.1:0=web",
            "--expect",
            &id,
            "--reconnect",
            "--no-durable",
        ],
    );
    let local = forward.address();
    let echoes = |word: &[u8]| {
        let mut stream = TcpStream::connect(local.strip_prefix("tcp:").unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(word).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut back = Vec::new();
        let read = stream.read_to_end(&mut back);
        read.is_ok() && back == word
    };
    assert!(echoes(b"before"));
    server.signal("KILL");
    while server.is_running() {
        thread::yield_now();
    }
    forward.wait_for("lost");
    let _server = start(&at);
    forward.wait_for("reconnected to");
    assert!(echoes(b"after"));
}

#[test]
fn a_stream_without_a_session_is_carried_and_its_end_is_known() {
    let place = Place::new();
    let listening = Server::start(
        &place,
        &[
            "pipe",
            "--listen",
            "quic:127.0.0.1:0",
            "exec:sh -c 'echo welcome; cat'",
        ],
    );
    let at = listening.address();
    let output = place.run_with(&["pipe", &at, "stdio:"], b"hello\n");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "welcome\nhello\n");
}

#[test]
fn where_udp_leads_nowhere_it_is_one_line() {
    let place = Place::new();
    // Somebody who says nothing.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = format!("quic:{}", silent.local_addr().unwrap());
    let line = place.fails_quietly(&["connect", &at, "up", "--trust", "any"], 5);
    assert!(line.contains("no answer in time"), "{line}");
    assert!(line.contains("use tcp: or wss:"), "{line}");
    // A proxy, by the address and by what else says so.
    let by = format!("{at},proxy=socks5h://127.0.0.1:9");
    let line = place.fails_quietly(&["connect", &by, "up", "--trust", "any"], 2);
    assert!(line.contains("QUIC goes by no proxy"), "{line}");
    let words = [
        "connect",
        &at,
        "up",
        "--trust",
        "any",
        "--proxy",
        "http://127.0.0.1:9",
    ];
    let line = place.fails_quietly(&words, 2);
    assert!(line.contains("QUIC goes by no proxy"), "{line}");
    // A port of UDP that is taken.
    let line = place.fails_quietly(
        &["serve", &at, "--service", "up=exec:cat", "--allow", "any"],
        8,
    );
    assert!(line.contains("choose another port"), "{line}");
}

#[test]
fn what_quic_proves_is_explained() {
    let place = Place::new();
    let said = place.succeeds(&["explain", "quic:192.0.2.1:7000"]);
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("QUIC to 192.0.2.1, UDP port 7000"), "{said}");
    assert!(
        said.contains("its certificate proves nothing, who the peer is says the TLS above"),
        "{said}"
    );
}
