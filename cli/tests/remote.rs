//! `cepa forward -R`: the server listens, if its owner allows that, and its connections come to an address here.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

use common::proxy::Proxy;
use common::tcp::{closed_port, connect, echo_server, echoes};
use common::{PATIENCE, Place, Server};

/// Cut, and not ended: its program must not take that for all there is.
#[track_caller]
fn is_reset(mut stream: TcpStream) {
    let mut rest = Vec::new();
    let read = stream.read_to_end(&mut rest).map_err(|e| e.kind());
    assert_eq!(read, Err(ErrorKind::ConnectionReset));
}

fn serve(place: &Place, allowed: &[&str]) -> Server {
    let (own, _) = place.identity("server.pem");
    let mut words = vec!["tcp:127.0.0.1:0", "--identity", &own, "--allow", "any"];
    for it in allowed {
        words.extend(["--allow-remote", it]);
    }
    place.serve(&words)
}

fn forward(place: &Place, at: &str, more: &[&str]) -> Server {
    let words = [&["forward", at, "--trust", "any"], more].concat();
    Server::start_at(place, &words, " listens on ")
}

/// Where the server listens, by the line that says so.
fn there(forward: &Server) -> String {
    let line = forward.seen().last().unwrap();
    let at = line.split(" listens on ").nth(1).unwrap();
    let at = at.split([' ', ';']).next().unwrap();
    at.strip_prefix("tcp:").unwrap().to_owned()
}

#[test]
fn the_server_listens_where_it_may_and_its_connections_come_here() {
    let (place, port) = (Place::new(), echo_server());
    let mut server = serve(&place, &["0"]);
    let to = format!("0=127.0.0.1:{port}");
    let forward = forward(&place, &server.address(), &["-R", &to]);
    let at = there(&forward);
    assert!(at.starts_with("127.0.0.1:"), "{at}");
    server.wait_for(&format!("listening on tcp:{at}"));
    // More than may wait unfetched, all at once.
    let all: Vec<_> = (0..40).map(|_| connect(&at)).collect();
    for (n, mut stream) in all.into_iter().enumerate() {
        let said = format!("{n}");
        stream.write_all(said.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut back = String::new();
        stream.read_to_string(&mut back).unwrap();
        assert_eq!(back, said);
    }
    forward.signal("TERM");
    assert_eq!(forward.finish().0, Some(0));
    server.wait_for("no longer listening on");
    assert!(TcpStream::connect(&at).is_err());
}

#[test]
fn a_unix_socket_is_listened_at_where_its_owner_allows_that() {
    let (place, port) = (Place::new(), echo_server());
    let path = place.text("there.sock");
    let server = serve(&place, &[&format!("unix:{path}")]);
    let to = format!("unix:{path}={port}");
    let _forward = forward(&place, &server.address(), &["-R", &to]);
    let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
    stream.write_all(b"hello").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut back = String::new();
    stream.read_to_string(&mut back).unwrap();
    assert_eq!(back, "hello");
}

#[test]
fn what_is_not_allowed_fails_with_the_option_that_allows_it() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().port();
    let allowed = format!("{taken}");
    let server = serve(&place, &[&allowed]);
    let at = server.address();
    let free = closed_port();
    for (asked, why) in [
        (
            format!("{free}"),
            format!("not allowed there (--allow-remote {free})"),
        ),
        (
            format!("0.0.0.0:{taken}"),
            format!("not allowed there (--allow-remote 0.0.0.0:{taken})"),
        ),
        (allowed, "something else listens there".to_owned()),
    ] {
        let to = format!("{asked}=1");
        let words = ["forward", &at, "--expect", &server.id(), "-R", &to];
        let line = place.fails_quietly(&words, 7);
        assert!(
            line.contains(&format!(" does not listen on {asked}: {why}")),
            "{line}"
        );
    }
}

#[test]
fn a_peer_has_so_many_listeners_and_no_more() {
    let place = Place::new();
    let server = serve(&place, &["0"]);
    let (at, id) = (server.address(), server.id());
    let mut words = vec!["forward", &at, "--expect", &id, "-q"];
    words.extend(["-R", "0=1"].iter().cycle().take(2 * 17));
    let line = place.fails_quietly(&words, 7);
    assert!(
        line.contains("you have 16 listeners there already"),
        "{line}"
    );
    // All of them went with it.
    let _next = forward(&place, &at, &["-R", "0=1"]);
}

#[test]
fn a_connection_that_nobody_takes_here_is_reset_there() {
    let place = Place::new();
    let server = serve(&place, &["0"]);
    let to = format!("0=127.0.0.1:{}", closed_port());
    let mut forward = forward(&place, &server.address(), &["-R", &to]);
    let stream = connect(&there(&forward));
    forward.wait_for("-R 0: ");
    is_reset(stream);
}

#[test]
fn a_reset_at_one_side_is_one_at_the_other() {
    let place = Place::new();
    let here = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = serve(&place, &["0"]);
    let to = format!("0={}", here.local_addr().unwrap());
    let forward = forward(&place, &server.address(), &["-R", &to]);
    let cut = |stream: TcpStream| {
        let socket =
            rustix::net::sockopt::set_socket_linger(&stream, Some(std::time::Duration::ZERO));
        socket.unwrap();
    };
    let mut buf = [0; 1];
    for at_server in [true, false] {
        let mut there = connect(&there(&forward));
        there.write_all(b"x").unwrap();
        let (mut accepted, _) = here.accept().unwrap();
        accepted.set_read_timeout(Some(PATIENCE)).unwrap();
        accepted.read_exact(&mut buf).unwrap();
        if at_server {
            cut(there);
            is_reset(accepted);
        } else {
            cut(accepted);
            is_reset(there);
        }
    }
}

#[test]
fn it_goes_on_over_a_pause_of_the_session() {
    let (place, port) = (Place::new(), echo_server());
    let server = serve(&place, &["0"]);
    let proxy = Proxy::to(&server.address());
    let to = format!("0=127.0.0.1:{port}");
    let mut forward = forward(&place, &proxy.address(), &["-R", &to]);
    let at = there(&forward);
    let mut open = connect(&at);
    open.write_all(b"a").unwrap();
    let mut buf = [0; 1];
    open.read_exact(&mut buf).unwrap();
    proxy.down();
    forward.wait_for("lost; reconnecting (data is kept)");
    // Who comes meanwhile waits.
    let mut waits = connect(&at);
    waits.write_all(b"b").unwrap();
    open.write_all(b"c").unwrap();
    proxy.up();
    open.read_exact(&mut buf).unwrap();
    assert_eq!(buf, *b"c");
    waits.read_exact(&mut buf).unwrap();
    assert_eq!(buf, *b"b");
    echoes(&at);
}

#[test]
fn a_new_session_asks_again_and_takes_over_what_the_old_one_had() {
    let (place, port) = (Place::new(), echo_server());
    let there = closed_port();
    let server = serve(&place, &[&format!("{there}")]);
    let at = server.address();
    let to = format!("{there}=127.0.0.1:{port}");
    let first = forward(&place, &at, &["-R", &to]);
    echoes(&format!("127.0.0.1:{there}"));
    // Killed, it tells nobody: the server keeps its session, and the listener in it.
    first.signal("KILL");
    first.finish();
    let second = forward(&place, &at, &["-R", &to]);
    echoes(&format!("127.0.0.1:{there}"));
    // And one that lives hears who has it now.
    let _third = forward(&place, &at, &["-R", &to]);
    let (code, said) = second.finish();
    assert_eq!(code, Some(9), "{said}");
    assert!(said.contains("with the same key listens on"), "{said}");
    echoes(&format!("127.0.0.1:{there}"));
}

#[test]
fn with_reconnect_a_server_that_was_restarted_is_asked_again() {
    let (place, port) = (Place::new(), echo_server());
    let there = closed_port();
    let allowed = format!("{there}");
    let server = serve(&place, &[&allowed]);
    let at = server.address();
    let to = format!("{there}=127.0.0.1:{port}");
    let mut forward = forward(&place, &at, &["-R", &to, "--reconnect"]);
    echoes(&format!("127.0.0.1:{there}"));
    server.signal("TERM");
    server.finish();
    let own = place.text("server.pem");
    let words = [
        &at,
        "--identity",
        &own,
        "--allow",
        "any",
        "--allow-remote",
        &allowed,
    ];
    let _server = place.serve(&words);
    forward.wait_for("; its connections go to");
    echoes(&format!("127.0.0.1:{there}"));
}

#[test]
fn a_node_allows_each_place_to_those_of_its_own_list_until_it_is_reloaded() {
    let (place, port) = (Place::new(), echo_server());
    let (friend, friend_id) = place.identity("friend.pem");
    let (other, other_id) = place.identity("other.pem");
    let (own, _) = place.identity("server.pem");
    let there = closed_port();
    let file = place.text("node.toml");
    let config = |allowed: &str| {
        let config = format!(
            "identity = \"{own}\"\nlisten = [\"tcp:127.0.0.1:0\"]\n\
             [services.up]\nto = \"echo:\"\nallow = [\"{other_id}\"]\n\
             [remote.web]\nlisten = [\"{there}\"]\nallow = [{allowed}]\n"
        );
        std::fs::write(&file, config).unwrap();
    };
    config(&format!("\"{friend_id}\""));
    let mut node = Server::start(&place, &["node", "--config", &file]);
    let (at, id) = (node.address(), node.id());
    let to = format!("{there}=127.0.0.1:{port}");
    let words = ["forward", &at, "--expect", &id, "-R", &to, "--identity"];
    let line = place.fails(&[&words[..], &[&other]].concat(), 7);
    assert!(line.contains("not allowed there"), "{line}");
    let words = [&words[..], &[&friend]].concat();
    let allowed = Server::start_at(&place, &words, " listens on ");
    echoes(&format!("127.0.0.1:{there}"));
    config("");
    node.signal("HUP");
    node.wait_for("no longer listening on");
    let (code, said) = allowed.finish();
    assert_eq!(code, Some(7), "{said}");
    assert!(said.contains("no longer listens on"), "{said}");
}

#[test]
fn a_node_that_names_no_place_allows_none() {
    let place = Place::new();
    let config = place.text("node.toml");
    let (own, _) = place.identity("server.pem");
    let text = format!(
        "identity = \"{own}\"\nlisten = [\"tcp:127.0.0.1:0\"]\n[relay]\nallow = [\"any\"]\n"
    );
    std::fs::write(&config, text).unwrap();
    let node = Server::start(&place, &["node", "--config", &config]);
    let words = [
        "forward",
        &node.address(),
        "--expect",
        &node.id(),
        "-R",
        "80=1",
    ];
    let line = place.fails_quietly(&words, 7);
    assert!(
        line.contains("not allowed there (--allow-remote 80)"),
        "{line}"
    );
}
