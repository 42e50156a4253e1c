//! `cepa forward` as a person types it: ports of this machine, and a SOCKS proxy whose destinations the server allows.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;

use common::proxy::Proxy;
use common::tcp::{closed_port, echo_server, echoes};
use common::{PATIENCE, Place, Server, finish, text};

#[test]
fn a_port_alone_is_at_the_loopback_addresses_that_there_are() {
    let place = Place::new();
    let server = place.serve(&[
        "tcp:127.0.0.1:0",
        "--service",
        "web=echo:",
        "--allow",
        "any",
    ]);
    let words = [
        "forward",
        &server.address(),
        "-L",
        "0=web",
        "--trust",
        "any",
    ];
    let mut forward = Server::start(&place, &words);
    let at = forward.address();
    let port = at.strip_prefix("tcp:127.0.0.1:").unwrap();
    echoes(&format!("127.0.0.1:{port}"));
    if std::net::TcpListener::bind("[::1]:0").is_ok() {
        forward.wait_for(&format!("listening on tcp:[::1]:{port} for web"));
        echoes(&format!("[::1]:{port}"));
    }
    forward.signal("TERM");
    assert_eq!(forward.finish().0, Some(0));
}

/// A server with these services, and `cepa forward` to it.
fn pair(services: &[&str], locals: &[&str]) -> (Place, Server, Server) {
    let place = Place::new();
    let mut words = vec!["tcp:127.0.0.1:0", "--allow", "any"];
    for service in services {
        words.extend(["--service", service]);
    }
    let server = place.serve(&words);
    let at = server.address();
    let words = [&["forward", &at, "--trust", "any"], locals].concat();
    let forward = Server::start(&place, &words);
    (place, server, forward)
}

/// The address of the first listener, for `connect`.
fn at(forward: &Server) -> String {
    forward.address().strip_prefix("tcp:").unwrap().to_owned()
}

/// Asks a SOCKS proxy for a destination; the reply's code, and the connection.
fn socks(proxy: &str, host: &str, port: u16) -> (u8, TcpStream) {
    let mut stream = TcpStream::connect(proxy).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&[5, 1, 0]).unwrap();
    let mut chosen = [0; 2];
    stream.read_exact(&mut chosen).unwrap();
    assert_eq!(chosen, [5, 0]);
    let mut request = vec![5, 1, 0, 3, u8::try_from(host.len()).unwrap()];
    request.extend(host.as_bytes());
    request.extend(port.to_be_bytes());
    stream.write_all(&request).unwrap();
    let mut reply = [0; 10];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!((reply[0], &reply[2..]), (5, &[0, 1, 0, 0, 0, 0, 0, 0][..]));
    (reply[1], stream)
}

#[test]
fn a_socks_client_is_connected_where_the_server_allows_it() {
    let port = echo_server();
    let allowed = format!("socks=socks:localhost:{port},127.0.0.0/8:{port}");
    let (_place, _server, mut forward) = pair(&[&allowed], &["-D", "0"]);
    for host in ["localhost", "LOCALHOST.", "127.0.0.1"] {
        let (code, mut stream) = socks(&at(&forward), host, port);
        assert_eq!(code, 0, "{host}");
        stream.write_all(b"there and back").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut back = String::new();
        stream.read_to_string(&mut back).unwrap();
        assert_eq!(back, "there and back");
    }
    assert!(forward.is_running());
}

#[test]
fn a_socks_connection_survives_a_cut_and_a_new_one_waits_for_the_next_path() {
    let (place, port) = (Place::new(), echo_server());
    let allowed = format!("socks=socks:127.0.0.1:{port}");
    let words = ["tcp:127.0.0.1:0", "--service", &allowed, "--allow", "any"];
    let server = place.serve(&words);
    let proxy = Proxy::to(&server.address());
    let via = proxy.address();
    let words = ["forward", &via, "-D", "127.0.0.1:0", "--trust", "any"];
    let mut forward = Server::start(&place, &words);
    let local = at(&forward);
    let says = |stream: &mut TcpStream, word: &[u8]| {
        stream.write_all(word).unwrap();
        let mut back = vec![0; word.len()];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(back, word);
    };
    let (code, mut open) = socks(&local, "127.0.0.1", port);
    assert_eq!(code, 0);
    says(&mut open, b"before");
    proxy.down();
    forward.wait_for("lost; reconnecting (data is kept)");
    let new = thread::spawn(move || socks(&local, "127.0.0.1", port));
    proxy.up();
    says(&mut open, b"behind");
    let (code, mut new) = new.join().unwrap();
    assert_eq!(code, 0);
    says(&mut new, b"new");
}

#[test]
fn each_reason_has_a_code_and_a_line_of_its_own_at_both_ends() {
    let (open, closed) = (echo_server(), closed_port());
    let allowed = format!("web=socks:127.0.0.1:{closed},no-such-host.invalid,localhost:*");
    let (_place, mut server, mut forward) = pair(&[&allowed], &["-D", "127.0.0.1:0=web"]);
    for (host, port, code, here, there) in [
        (
            "127.0.0.1",
            open,
            2,
            "does not allow this destination",
            "not among the allowed destinations",
        ),
        (
            "example.com",
            443,
            2,
            "does not allow this destination",
            "not among the allowed destinations",
        ),
        (
            "localhost",
            open,
            2,
            "does not allow this destination",
            "the name is allowed, but it leads to",
        ),
        (
            "no-such-host.invalid",
            443,
            4,
            "its name has no address there",
            "the name",
        ),
        (
            "127.0.0.1",
            closed,
            5,
            "refuses connections",
            "connection refused",
        ),
    ] {
        let (found, mut stream) = socks(&at(&forward), host, port);
        assert_eq!(found, code, "{host}:{port}");
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty(), "an end behind the reply");
        let line = forward.wait_for(&format!("web: {host}:{port}: "));
        assert!(line.contains(here), "{line}");
        let line = server.wait_for(&format!("{host}:{port}: "));
        assert!(line.contains(there), "{line}");
        assert!(line.starts_with("service web for "), "{line}");
    }
}

#[test]
fn a_service_of_the_other_kind_is_refused_at_the_start_with_the_option_that_fits() {
    let place = Place::new();
    let services = ["--service", "up=echo:", "--service", "way=socks:*"];
    let server = place.serve(&[&["tcp:127.0.0.1:0", "--allow", "any"], &services[..]].concat());
    let (at, id) = (server.address(), server.id());
    let fails = |words: &[&str]| {
        let words = [&["forward", &at, "--expect", &id], words].concat();
        place.fails_quietly(&words, 7)
    };
    let line = fails(&["-D", "127.0.0.1:0=up"]);
    assert!(
        line.contains("leads to one address; use it with -L [ADDR:]PORT=up"),
        "{line}"
    );
    let line = fails(&["-L", "127.0.0.1:0=way"]);
    assert!(
        line.contains("is a SOCKS service; use it with -D [ADDR:]PORT=way"),
        "{line}"
    );
}

#[test]
fn a_service_that_is_not_there_is_noticed_at_the_start_with_what_there_is() {
    let place = Place::new();
    let services = ["--service", "web=echo:", "--service", "sh=exec:cat"];
    let (own, _) = place.identity("server.pem");
    let words = ["tcp:127.0.0.1:0", "--allow", "any", "--identity", &own];
    let server = place.serve(&[&words[..], &services[..]].concat());
    let (at, id) = (server.address(), server.id());
    place.succeeds(&["peer", "add", "ann", &id, "--at", &at]);
    for more in [&[][..], &["--reconnect"]] {
        let words = [&["forward", "@ann", "-L", "127.0.0.1:0=wbe"], more].concat();
        let line = place.fails_quietly(&words, 7);
        let said = "cepa: ann offers no service wbe; you may open: sh, web";
        assert_eq!(line, said, "{more:?}");
        // One that is there does not hide one that is not.
        let words = [&["forward", "@ann", "-L", "0=web", "-D", "0"], more].concat();
        let line = place.fails_quietly(&words, 7);
        assert!(line.contains("no service socks;"), "{line}");
    }
}

#[test]
fn what_speaks_something_else_to_the_proxy_is_told_in_the_log() {
    let (_place, _server, mut forward) = pair(&["socks=socks:*"], &["-D", "127.0.0.1:0"]);
    for (bytes, line) in [
        (&b"GET http://example.com/ HTTP/1.1\r\n"[..], "HTTP proxy"),
        (b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00", "SOCKS 4"),
    ] {
        let mut stream = TcpStream::connect(at(&forward)).unwrap();
        stream.write_all(bytes).unwrap();
        forward.wait_for(line);
    }
}

/// An HTTP server that answers one request.
fn web_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            request.push(byte[0]);
        }
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
        stream.write_all(answer.as_bytes()).unwrap();
    });
    port
}

#[test]
fn curl_goes_through_it_with_names_that_the_far_end_resolves() {
    if Command::new("curl").arg("--version").output().is_err() {
        assert!(std::env::var_os("CEPA_REQUIRE_INTEROP").is_none());
        eprintln!("SKIPPED: no curl");
        return;
    }
    let port = web_server();
    let allowed = format!("socks=socks:localhost:{port},127.0.0.1:{port},[::1]:{port}");
    let (_place, _server, forward) = pair(&[&allowed], &["-D", "127.0.0.1:0"]);
    let curl = |url: &str| {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--max-time", "60"])
            .args(["--noproxy", "", "--socks5-hostname", &at(&forward), url])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        finish(curl.spawn().unwrap())
    };
    let got = curl(&format!("http://localhost:{port}/"));
    assert_eq!(text(&got.stdout), "hi", "{}", text(&got.stderr));
    let refused = curl("http://example.com/");
    // curl's code for what its proxy refuses.
    assert_eq!(refused.status.code(), Some(97), "{}", text(&refused.stderr));
}
