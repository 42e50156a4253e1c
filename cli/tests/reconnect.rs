//! `--reconnect`: what comes back by itself when the other end was killed and started again, and what is told
//! of what was lost.

mod common;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Stdio;

use common::{PATIENCE, Place, Server, text};

/// A port that nobody has; whoever listens on it twice needs one number.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A server at a port, whose service `talk` says which one it is and then echoes.
fn serve(place: &Place, listen: &str, number: u32) -> Server {
    let talk = format!("talk=exec:sh -c 'echo server {number}; exec cat'");
    place.serve(&[
        listen,
        "--allow",
        "any",
        "--service",
        &talk,
        "--service",
        "up=exec:sha256sum",
    ])
}

fn kill(mut server: Server) {
    server.signal("KILL");
    while server.is_running() {
        std::thread::yield_now();
    }
}

/// A local connection through a forward; the server's first word is read.
fn connect(port: u16) -> (BufReader<TcpStream>, String) {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream = BufReader::new(stream);
    let mut word = String::new();
    stream.read_line(&mut word).unwrap();
    (stream, word.trim().to_owned())
}

fn echoes(stream: &mut BufReader<TcpStream>, word: &str) {
    stream.get_mut().write_all(word.as_bytes()).unwrap();
    let mut back = vec![0; word.len()];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(text(&back), word);
}

/// The connection ends with an error, and not as if that were all.
#[track_caller]
fn is_cut(mut stream: BufReader<TcpStream>) {
    let mut rest = Vec::new();
    let end = stream.read_to_end(&mut rest);
    assert_eq!(rest, b"", "nothing else comes");
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_forward_goes_on_over_a_new_session_and_cuts_what_was_in_the_old_one() {
    let place = Place::new();
    let at = format!("tcp:127.0.0.1:{}", free_port());
    let server = serve(&place, &at, 1);
    let local = free_port();
    let listen = format!("tcp:127.0.0.1:{local}=talk");
    let words = [
        "forward",
        &at,
        "-L",
        &listen,
        "--expect",
        &server.id(),
        "--reconnect",
    ];
    let mut forward = Server::start(&place, &words);
    let (mut before, word) = connect(local);
    assert_eq!(word, "server 1");
    echoes(&mut before, "hello");
    kill(server);
    is_cut(before);
    forward.wait_for("; connecting again");
    // Nobody is there: told once, however often it is tried.
    let told = forward.wait_for("; trying again");
    assert!(told.contains("refused"), "{told}");
    // It comes while there is no session, and waits for the next one.
    let early = std::thread::spawn(move || connect(local));
    let server = serve(&place, &at, 2);
    forward.wait_for(&format!("connected again to {}", server.id()));
    let lines = forward.seen().iter();
    assert_eq!(
        lines.filter(|line| line.contains("; trying again")).count(),
        1
    );
    let (mut early, word) = early.join().unwrap();
    assert_eq!(word, "server 2");
    echoes(&mut early, "again");
    // An end in order is one still.
    early.get_mut().shutdown(Shutdown::Write).unwrap();
    assert_eq!(early.read_to_end(&mut Vec::new()).unwrap(), 0);
    // A server that ends in order is gone all the same.
    server.signal("TERM");
    server.finish();
    forward.wait_for("the peer closed the session; connecting again");
    let _server = serve(&place, &at, 3);
    forward.wait_for("connected again");
    assert_eq!(connect(local).1, "server 3");
    forward.signal("TERM");
    assert_eq!(forward.finish().0, Some(0));
}

#[test]
fn without_reconnect_a_forward_ends_and_cuts_its_connections() {
    let place = Place::new();
    let server = serve(&place, "tcp:127.0.0.1:0", 1);
    let local = free_port();
    let listen = format!("tcp:127.0.0.1:{local}=talk");
    let words = [
        "forward",
        &server.address(),
        "-L",
        &listen,
        "--expect",
        &server.id(),
    ];
    let forward = Server::start(&place, &words);
    let (mut before, _) = connect(local);
    echoes(&mut before, "hello");
    kill(server);
    is_cut(before);
    let (code, seen) = forward.finish();
    assert_eq!(code, Some(6), "{seen}");
    // Killed, it can say nothing itself; the system does.
    let server = serve(&place, "tcp:127.0.0.1:0", 2);
    let words = [
        "forward",
        &server.address(),
        "-L",
        &listen,
        "--expect",
        &server.id(),
    ];
    let forward = Server::start(&place, &words);
    let (before, _) = connect(local);
    kill(forward);
    is_cut(before);
}

#[test]
fn a_service_learns_that_the_client_was_lost_and_not_that_it_had_said_all() {
    let place = Place::new();
    let service = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = format!("store=tcp:{}", service.local_addr().unwrap());
    let server = place.serve(&["tcp:127.0.0.1:0", "--allow", "any", "--service", &to]);
    let words = ["connect", &server.address(), "store", "--trust", "any"];
    let mut client = place.cepa(&words).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = client.stdin.take().unwrap();
    input.write_all(b"half").unwrap();
    let (mut stored, _) = service.accept().unwrap();
    stored.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut half = [0; 4];
    stored.read_exact(&mut half).unwrap();
    client.kill().unwrap();
    client.wait().unwrap();
    let end = stored.read(&mut half).unwrap_err();
    assert_eq!(end.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_server_that_no_longer_wants_us_ends_it() {
    let place = Place::new();
    let (client, _) = place.identity("client.pem");
    let (server_key, server_id) = place.identity("server.pem");
    let at = format!("tcp:127.0.0.1:{}", free_port());
    let server = |allow: &str| {
        place.serve(&[
            &at,
            "--identity",
            &server_key,
            "--service",
            "up=echo:",
            "--allow",
            allow,
        ])
    };
    let first = server("any");
    let words = [
        "forward",
        &at,
        "-L",
        "tcp:127.0.0.1:0=up",
        "--expect",
        &server_id,
        "--identity",
        &client,
        "--reconnect",
    ];
    let mut forward = Server::start(&place, &words);
    kill(first);
    forward.wait_for("; connecting again");
    let _second = server(&server_id);
    let (code, seen) = forward.finish();
    assert_eq!(code, Some(7), "{seen}");
    assert!(seen.contains("our peer id is"), "{seen}");
}

#[test]
fn a_first_session_that_does_not_come_about_is_not_tried_again() {
    let place = Place::new();
    let nobody = format!("tcp:127.0.0.1:{}", free_port());
    let line = place.fails_quietly(
        &["connect", &nobody, "up", "--trust", "any", "--reconnect"],
        5,
    );
    assert!(line.contains("refused"), "{line}");
}

#[test]
fn connect_opens_the_service_anew_and_says_what_is_gone() {
    let place = Place::new();
    let at = format!("tcp:127.0.0.1:{}", free_port());
    let server = serve(&place, &at, 1);
    let words = [
        "connect",
        &at,
        "talk",
        "--expect",
        &server.id(),
        "--reconnect",
    ];
    let mut client = place.cepa(&words).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = client.stdin.take().unwrap();
    let mut output = BufReader::new(client.stdout.take().unwrap());
    let mut line = || {
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        line
    };
    assert_eq!(line(), "server 1\n");
    input.write_all(b"one\n").unwrap();
    assert_eq!(line(), "one\n");
    kill(server);
    let server = serve(&place, &at, 2);
    assert_eq!(line(), "server 2\n");
    input.write_all(b"two\n").unwrap();
    assert_eq!(line(), "two\n");
    drop(input);
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
    let mut said = String::new();
    client
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert_eq!(client.wait().unwrap().code(), Some(0), "{said}");
    assert!(
        said.contains("what was on its way is gone; connecting again\n"),
        "{said}"
    );
    assert!(said.contains("connected again to "), "{said}");
    drop(server);
}

#[test]
fn input_that_was_given_away_cannot_be_given_again() {
    let place = Place::new();
    let server = place.serve(&[
        "tcp:127.0.0.1:0",
        "--allow",
        "any",
        "--service",
        "slow=exec:sh -c 'cat; echo got; sleep 1000'",
    ]);
    let words = [
        "connect",
        &server.address(),
        "slow",
        "--trust",
        "any",
        "--reconnect",
    ];
    let mut client = place.cepa(&words).spawn().unwrap();
    let mut output = BufReader::new(client.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "got\n");
    kill(server);
    let output = common::finish(client);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{said}");
    assert!(
        said.contains("standard input has been given away already"),
        "{said}"
    );
}
