//! `--reconnect`: what comes back by itself when the other end was killed and started again, and what is told
//! of what was lost.
//!
//! `CEPA_RESTARTS=N` kills each end of the serial line N times (10); `CEPA_BER=P` gives that line a bit error rate (0).

mod common;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use cepa::Side;
use cepa::identity::{AcceptAny, Identity, KeyKind};
use cepa::mux::GoAwayCode;
use cepa::node::{Access, Call, Node, NodeConfig, ShareLimits};
use cepa::session::Session;
use cepa::stack::StackConfig;
use cepa::transports::testkit::{LineSettings, Noise, Rng};
use common::line::join;
use common::proxy::Proxy;
use common::{PATIENCE, Place, Server, finish, text};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Where servers are that come and go: a path is nobody else's meanwhile, as a port would be.
fn socket(place: &Place) -> String {
    format!("unix:{}", place.text("server"))
}

/// The port at which a forward listens.
fn local(forward: &Server) -> u16 {
    let address = forward.address();
    address.rsplit(':').next().unwrap().parse().unwrap()
}

/// A server whose service `talk` says which one it is and then echoes.
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
        thread::yield_now();
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
    let at = socket(&place);
    let server = serve(&place, &at, 1);
    let words = [
        "forward",
        "--no-durable",
        &at,
        "-L",
        "tcp:127.0.0.1:0=talk",
        "--expect",
        &server.id(),
        "--reconnect",
    ];
    let mut forward = Server::start(&place, &words);
    let local = local(&forward);
    let (mut before, word) = connect(local);
    assert_eq!(word, "server 1");
    echoes(&mut before, "hello");
    kill(server);
    is_cut(before);
    forward.wait_for("; reconnecting");
    // Nobody is there: told once, however often it is tried.
    let reported = forward.wait_for("; trying again");
    assert!(reported.contains("nobody answers"), "{reported}");
    // It comes while there is no session, and waits for the next one.
    let early = thread::spawn(move || connect(local));
    let server = serve(&place, &at, 2);
    forward.wait_for(&format!("reconnected to {}", &server.id()[..12]));
    let tries = forward
        .seen()
        .iter()
        .filter(|line| line.contains("; trying again"));
    let tries: Vec<_> = tries.collect();
    assert!(tries.windows(2).all(|two| two[0] != two[1]), "{tries:?}");
    let (mut early, word) = early.join().unwrap();
    assert_eq!(word, "server 2");
    echoes(&mut early, "again");
    // An end in order is one still.
    early.get_mut().shutdown(Shutdown::Write).unwrap();
    assert_eq!(early.read_to_end(&mut Vec::new()).unwrap(), 0);
    // A server that ends in order is gone all the same.
    server.signal("TERM");
    server.finish();
    forward.wait_for("the peer is shutting down: try again later; reconnecting");
    let _server = serve(&place, &at, 3);
    forward.wait_for("reconnected");
    assert_eq!(connect(local).1, "server 3");
    forward.signal("TERM");
    assert_eq!(forward.finish().0, Some(0));
}

/// Without the option, the line that ends the command names it; with it, nobody needs to hear of it.
#[test]
fn a_forward_whose_server_shuts_down_names_the_option() {
    let place = Place::new();
    let server = serve(&place, "tcp:127.0.0.1:0", 1);
    let (at, id) = (server.address(), server.id());
    let words = [
        "forward",
        &at,
        "-L",
        "tcp:127.0.0.1:0=talk",
        "--expect",
        &id,
    ];
    let forward = Server::start(&place, &words);
    server.signal("TERM");
    server.finish();
    let (status, stderr) = forward.finish();
    assert_eq!(status, Some(6), "{stderr}");
    let last = stderr.lines().last().unwrap();
    let said = "the peer is shutting down: try again later; with --reconnect, this command connects again by itself";
    assert!(last.ends_with(said), "{last}");
}

/// A server that answers nothing until its session ends: the next one has the connection then, with what its client had sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_whose_session_ends_before_the_peer_has_answered_goes_over_the_next_one() {
    let place = Place::new();
    let identity = Identity::generate(KeyKind::Ed25519).unwrap();
    let id = identity.peer_id().to_string();
    let config = StackConfig::new(identity, Arc::new(AcceptAny));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = format!("tcp:{}", listener.local_addr().unwrap());
    let (opened, mut says) = tokio::sync::mpsc::unbounded_channel();
    let serving = tokio::spawn(async move {
        let next = async || {
            let (stream, _) = listener.accept().await.unwrap();
            let stream = stream.into_std().unwrap();
            let wire = stream.try_clone().unwrap();
            let stream = tokio::net::TcpStream::from_std(stream).unwrap();
            let session = Session::handshake(stream, &[], Side::Server, &config);
            (session.await.unwrap(), wire)
        };
        // Cut without a word.
        let (session, wire) = next().await;
        let unanswered = session.accept().await.unwrap();
        wire.shutdown(Shutdown::Both).unwrap();
        session.closed().await;
        drop(unanswered);
        opened.send("cut").unwrap();
        // In order.
        let (session, _wire) = next().await;
        let unanswered = session.accept().await.unwrap();
        session.close_with(GoAwayCode::ShuttingDown).await;
        drop(unanswered);
        opened.send("closed").unwrap();
        let (session, _wire) = next().await;
        let mut stream = session.accept().await.unwrap().accept().await.unwrap();
        let mut word = [0; 5];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut word)
            .await
            .unwrap();
        let answer = format!("you said {}\n", text(&word));
        tokio::io::AsyncWriteExt::write_all(&mut stream, answer.as_bytes())
            .await
            .unwrap();
        tokio::io::AsyncWriteExt::flush(&mut stream).await.unwrap();
        opened.send("served").unwrap();
        session.closed().await;
    });
    let words = [
        "forward",
        "--no-durable",
        &at,
        "-L",
        "tcp:127.0.0.1:0=talk",
        "--expect",
        &id,
        "--reconnect",
    ];
    let forward = Server::start(&place, &words);
    let mut client = TcpStream::connect(("127.0.0.1", local(&forward))).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"hello").unwrap();
    let mut answer = String::new();
    let read = BufReader::new(&mut client).read_line(&mut answer);
    let mut sessions = Vec::new();
    while let Ok(what) = says.try_recv() {
        sessions.push(what);
    }
    assert!(read.is_ok(), "{read:?}, behind {sessions:?}");
    assert_eq!(answer, "you said hello\n", "behind {sessions:?}");
    drop(client);
    forward.signal("TERM");
    assert_eq!(forward.finish().0, Some(0));
    serving.await.unwrap();
}

/// A server of the library: each of its sessions, and the service `talk`, which says the how manieth session it is in and then
/// echoes.
struct Drains {
    runtime: tokio::runtime::Runtime,
    at: String,
    id: String,
    sessions: std::sync::mpsc::Receiver<Session>,
}

impl Drains {
    fn start() -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let identity = Identity::generate(KeyKind::Ed25519).unwrap();
        let id = identity.peer_id().to_string();
        let config = StackConfig::new(identity, Arc::new(AcceptAny));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0");
        let listener = runtime.block_on(listener).unwrap();
        let at = format!("tcp:{}", listener.local_addr().unwrap());
        let (sender, sessions) = std::sync::mpsc::channel();
        runtime.spawn(async move {
            for number in 1.. {
                let (stream, _) = listener.accept().await.unwrap();
                let session = Session::handshake(stream, &[], Side::Server, &config)
                    .await
                    .unwrap();
                sender.send(session.clone()).unwrap();
                tokio::spawn(async move {
                    while let Ok(incoming) = session.accept().await {
                        tokio::spawn(async move {
                            let mut stream = incoming.accept().await.unwrap();
                            let word = format!("server {number}\n");
                            stream.write_all(word.as_bytes()).await.unwrap();
                            let (mut reads, mut writes) = tokio::io::split(stream);
                            let _ = tokio::io::copy(&mut reads, &mut writes).await;
                            let _ = writes.shutdown().await;
                        });
                    }
                });
            }
        });
        Self {
            runtime,
            at,
            id,
            sessions,
        }
    }

    fn forward(&self, place: &Place, more: &[&str]) -> Server {
        let mut words = vec!["forward", &self.at, "-L", "tcp:127.0.0.1:0=talk"];
        words.extend(["--expect", &self.id]);
        words.extend(more);
        Server::start(place, &words)
    }

    /// The next session takes nothing more, as that of a server that drains.
    fn drain(&self) {
        let session = self.sessions.recv_timeout(PATIENCE).unwrap();
        self.runtime.block_on(session.go_away());
    }
}

#[test]
fn a_session_that_takes_nothing_more_is_replaced_beside_what_goes_on_in_it() {
    let (place, server) = (Place::new(), Drains::start());
    let mut forward = server.forward(&place, &["--reconnect"]);
    let local = local(&forward);
    let (mut before, word) = connect(local);
    assert_eq!(word, "server 1");
    server.drain();
    // Whoever comes waits for the next session, and does not need it for long.
    let (mut after, word) = connect(local);
    assert_eq!(word, "server 2");
    forward.wait_for("takes no more connections");
    for stream in [&mut before, &mut after] {
        echoes(stream, "still there");
        stream.get_mut().shutdown(Shutdown::Write).unwrap();
        assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap(), 0);
    }
    forward.signal("TERM");
    assert_eq!(forward.finish().0, Some(0));
}

#[test]
fn without_reconnect_who_comes_to_a_session_that_takes_nothing_more_is_cut_and_reported() {
    let (place, server) = (Place::new(), Drains::start());
    let mut forward = server.forward(&place, &[]);
    let local = local(&forward);
    let (mut before, _) = connect(local);
    server.drain();
    let late = TcpStream::connect(("127.0.0.1", local)).unwrap();
    late.set_read_timeout(Some(PATIENCE)).unwrap();
    let from = late.local_addr().unwrap();
    is_cut(BufReader::new(late));
    // Here or at the peer, by which of the two was first: the opening or the go-away.
    forward.wait_for(&format!("tcp {from}: "));
    echoes(&mut before, "still there");
    drop(before);
    // The session is over behind the last.
    assert_eq!(forward.finish().0, Some(6));
}

#[test]
fn without_reconnect_a_forward_ends_and_cuts_its_connections() {
    let place = Place::new();
    let server = serve(&place, "tcp:127.0.0.1:0", 1);
    let words = [
        "forward",
        "--no-durable",
        &server.address(),
        "-L",
        "tcp:127.0.0.1:0=talk",
        "--expect",
        &server.id(),
    ];
    let forward = Server::start(&place, &words);
    let (mut before, _) = connect(local(&forward));
    echoes(&mut before, "hello");
    kill(server);
    is_cut(before);
    let (code, seen) = forward.finish();
    assert_eq!(code, Some(6), "{seen}");
    // Killed, it can say nothing itself; the system does.
    let server = serve(&place, "tcp:127.0.0.1:0", 2);
    let words = [
        "forward",
        "--no-durable",
        &server.address(),
        "-L",
        "tcp:127.0.0.1:0=talk",
        "--expect",
        &server.id(),
    ];
    let forward = Server::start(&place, &words);
    let (before, _) = connect(local(&forward));
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
    let at = socket(&place);
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
        "--no-durable",
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
    forward.wait_for("; reconnecting");
    let _second = server(&server_id);
    let (code, seen) = forward.finish();
    assert_eq!(code, Some(7), "{seen}");
    assert!(seen.contains("ask its owner to add: --allow "), "{seen}");
}

#[test]
fn a_first_session_that_does_not_come_about_is_not_tried_again() {
    let place = Place::new();
    let nobody = socket(&place);
    let line = place.fails_quietly(
        &["connect", &nobody, "up", "--trust", "any", "--reconnect"],
        5,
    );
    assert!(line.contains("cannot dial"), "{line}");
}

#[test]
fn a_server_with_another_key_is_no_server_of_ours() {
    let place = Place::new();
    let at = socket(&place);
    let server = |key: &str| {
        let words = [
            &at,
            "--identity",
            key,
            "--allow",
            "any",
            "--service",
            "up=echo:",
        ];
        place.serve(&words)
    };
    let ((one, id), (other, stranger)) = (place.identity("one.pem"), place.identity("other.pem"));
    let first = server(&one);
    let words = [
        "forward",
        "--no-durable",
        &at,
        "-L",
        "tcp:127.0.0.1:0=up",
        "--expect",
        &id,
        "--reconnect",
    ];
    let mut forward = Server::start(&place, &words);
    kill(first);
    forward.wait_for("; reconnecting");
    let _second = server(&other);
    let (code, seen) = forward.finish();
    assert_eq!(code, Some(3), "{seen}");
    assert!(seen.contains(&stranger), "{seen}");
}

#[test]
fn an_introduction_is_not_used_again() {
    let place = Place::new();
    let (_, id) = place.identity("owner.pem");
    let to = format!("cepa://{id}@tcp:127.0.0.1:1");
    let output = place.run(&["introduce", "@", &to, "up"]);
    let it = text(&output.stdout);
    let line = place.fails(&["connect", it.trim(), "--reconnect"], 2);
    assert!(line.contains("leave out --reconnect"), "{line}");
}

#[test]
fn connect_opens_the_service_anew_and_says_what_is_gone() {
    let place = Place::new();
    let at = socket(&place);
    let (key, _) = place.identity("client.pem");
    let by_id = |server: &Server| format!("cepa://{}@{}", server.id(), at.replace('/', "%2F"));
    for is_peer in [false, true] {
        let server = serve(&place, &at, 1);
        let (peer, id) = (by_id(&server), server.id());
        let words = if is_peer {
            vec![
                "connect",
                &peer,
                "talk",
                "--reconnect",
                "--local-hints",
                "--identity",
                &key,
            ]
        } else {
            vec!["connect", &at, "talk", "--expect", &id, "--reconnect"]
        };
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
        // What was said to the first one is no part of what the second one has, so its end is no end.
        drop(input);
        let mut rest = String::new();
        output.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "");
        let mut said = String::new();
        let mut stderr = client.stderr.take().unwrap();
        stderr.read_to_string(&mut said).unwrap();
        assert_eq!(client.wait().unwrap().code(), Some(6), "{said}");
        assert!(
            said.contains("data in transit was lost; reconnecting\n"),
            "{said}"
        );
        assert!(said.contains("its end is not passed on"), "{said}");
        assert!(said.contains("reconnected to "), "{said}");
        server.signal("TERM");
        server.finish();
    }
}

/// A server that stops in order ends its sessions, and no service: what was open is opened anew as after a cut.
#[test]
fn reconnects_after_a_graceful_shutdown_of_the_server() {
    let place = Place::new();
    let at = socket(&place);
    for (signal, service) in [("TERM", "talk"), ("INT", "talk")] {
        let server = serve(&place, &at, 1);
        let id = server.id();
        let words = ["connect", &at, service, "--expect", &id, "--reconnect"];
        let mut client = place.cepa(&words).stdin(Stdio::piped()).spawn().unwrap();
        let mut input = client.stdin.take().unwrap();
        let mut output = BufReader::new(client.stdout.take().unwrap());
        let mut line = || {
            let mut line = String::new();
            output.read_line(&mut line).unwrap();
            line
        };
        assert_eq!(line(), "server 1\n");
        server.signal(signal);
        assert_eq!(server.finish().0, Some(0));
        let server = serve(&place, &at, 2);
        assert_eq!(line(), "server 2\n");
        input.write_all(b"two\n").unwrap();
        assert_eq!(line(), "two\n");
        drop(input);
        assert_eq!(finish(client).status.code(), Some(0));
        server.signal(signal);
        server.finish();
    }
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
    let mut client = place.cepa(&words).stdin(Stdio::piped()).spawn().unwrap();
    client.stdin.take().unwrap().write_all(b"all\n").unwrap();
    let mut output = BufReader::new(client.stdout.take().unwrap());
    let mut lines = String::new();
    while !lines.ends_with("got\n") {
        assert_ne!(output.read_line(&mut lines).unwrap(), 0);
    }
    kill(server);
    let output = finish(client);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{said}");
    assert!(
        said.contains("standard input cannot be read twice"),
        "{said}"
    );
}

/// A part of an upload must not look like a whole one to the command that has only the rest.
#[test]
fn an_upload_that_was_cut_in_the_middle_is_not_committed_by_the_next_command() {
    let place = Place::new();
    let server = |at: &str| {
        let note = place.text("note");
        let up = format!(
            "up=exec:sh -c 'echo up; cat > {note}.$$; echo done; mv {note}.$$ {note}.done'"
        );
        place.serve(&[at, "--allow", "any", "--service", &up])
    };
    let first = server("tcp:127.0.0.1:0");
    let proxy = Proxy::to(&first.address());
    let at = proxy.address();
    let words = ["connect", &at, "up", "--trust", "any", "--reconnect"];
    let mut client = place.cepa(&words).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = client.stdin.take().unwrap();
    let mut output = BufReader::new(client.stdout.take().unwrap());
    let mut line = || {
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        line
    };
    assert_eq!(line(), "up\n");
    input.write_all(&vec![b'x'; 100_000]).unwrap();
    proxy.cut();
    assert_eq!(line(), "up\n");
    input.write_all(&vec![b'y'; 100_000]).unwrap();
    drop(input);
    let mut stderr = client.stderr.take().unwrap();
    let mut said = String::new();
    stderr.read_to_string(&mut said).unwrap();
    assert_eq!(client.wait().unwrap().code(), Some(6), "{said}");
    assert_eq!(line(), "");
    // The service is over before its server is.
    first.signal("TERM");
    first.finish();
    assert!(!place.path("note.done").exists());
}

/// As under cron, systemd or `&`, whose standard input is empty.
#[test]
fn an_empty_input_loses_nothing_and_the_service_is_opened_again() {
    let place = Place::new();
    let at = socket(&place);
    let serve = |number| {
        let talk = format!("talk=exec:sh -c 'cat; echo server {number}; exec sleep 1000'");
        place.serve(&[&at, "--allow", "any", "--service", &talk])
    };
    let server = serve(1);
    let words = [
        "connect",
        &at,
        "talk",
        "--expect",
        &server.id(),
        "--reconnect",
    ];
    let mut client = place.cepa(&words).stdin(Stdio::null()).spawn().unwrap();
    let mut output = BufReader::new(client.stdout.take().unwrap());
    let mut line = || {
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        line
    };
    assert_eq!(line(), "server 1\n");
    kill(server);
    let _server = serve(2);
    let said = line();
    client.kill().unwrap();
    let ended = finish(client);
    assert_eq!(said, "server 2\n", "{}", text(&ended.stderr));
}

/// What stands behind a service may be away for a while, though its server is there.
#[test]
fn a_service_that_cannot_be_reached_at_the_moment_is_asked_for_again() {
    let place = Place::new();
    let at = socket(&place);
    let behind = place.text("behind");
    let server = place.serve(&[
        &at,
        "--allow",
        "any",
        "--service",
        &format!("talk=unix:{behind}"),
    ]);
    let words = [
        "connect",
        &at,
        "talk",
        "--expect",
        &server.id(),
        "--reconnect",
    ];
    let mut client = place.cepa(&words).stdin(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(client.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("is not available right now") {
        line.clear();
        assert_ne!(said.read_line(&mut line).unwrap(), 0, "it has given up");
    }
    let listener = UnixListener::bind(&behind).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            stream.unwrap().write_all(b"back\n").unwrap();
        }
    });
    let mut word = [0; 5];
    client.stdout.take().unwrap().read_exact(&mut word).unwrap();
    assert_eq!(&word, b"back\n");
    client.kill().unwrap();
    client.wait().unwrap();
}

/// A server that has no room for the session is asked again, also for the first one.
#[test]
fn a_server_that_is_full_is_waited_for() {
    let place = Place::new();
    let (key, _) = place.identity("client.pem");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut shares = ShareLimits::default();
    shares.sessions.peer = 1;
    let identity = Identity::generate(KeyKind::Ed25519).unwrap();
    let node = NodeConfig::new(identity, Arc::new(AcceptAny)).with_shares(shares);
    let (node, at) = runtime.block_on(async {
        let node = Node::new(node);
        let hello = |call: Call| async move {
            let mut stream = call.accept().await.unwrap();
            stream.write_all(b"hello\n").await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        };
        node.serve("hello", Access::Anyone, hello).unwrap();
        let at = node
            .listen(&"tcp:127.0.0.1:0".parse().unwrap())
            .await
            .unwrap();
        (node, at.to_string())
    });
    let id = node.id().to_string();
    let connect = || {
        let words = ["connect", &at, "hello", "--expect", &id, "--identity", &key];
        let mut command = place.cepa(&words);
        command.arg("--reconnect").stdin(Stdio::piped());
        command.spawn().unwrap()
    };
    let hears = |client: &mut Child| {
        let mut word = [0; 6];
        let output = client.stdout.as_mut().unwrap();
        output.read_exact(&mut word).map(|()| word)
    };
    let (mut one, mut two) = (connect(), None);
    assert_eq!(&hears(&mut one).unwrap(), b"hello\n");
    let two = two.insert(connect());
    let mut said = BufReader::new(two.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(line.contains("limit of sessions"), "{line}");
    assert!(line.ends_with("; trying again\n"), "{line}");
    one.kill().unwrap();
    one.wait().unwrap();
    assert_eq!(&hears(two).unwrap(), b"hello\n");
    two.kill().unwrap();
    two.wait().unwrap();
}

#[test]
fn an_adapter_that_is_pulled_out_and_put_back_is_used_again() {
    let place = Place::new();
    let plug = || join(&place, &LineSettings::new(300_000.0), 1);
    let plugged = plug();
    let line = |end: &str| format!("serial:{},baud=3000000", place.text(end));
    let mut server = serve(&place, &line("b"), 1);
    let near = line("a");
    let words = [
        "forward",
        "--no-durable",
        &near,
        "-L",
        "tcp:127.0.0.1:0=talk",
        "--expect",
        &server.id(),
        "--reconnect",
    ];
    let mut forward = Server::start(&place, &words);
    let port = local(&forward);
    let (before, _) = connect(port);
    // The ptys are closed, and the links to them gone.
    plugged.shutdown_timeout(PATIENCE);
    is_cut(before);
    forward.wait_for("or the other end of the pty was closed; reconnecting");
    forward.wait_for("there is no such device; is it plugged in?");
    server.wait_for("; waiting for it to come back");
    let plugged = plug();
    forward.wait_for("reconnected to ");
    server.wait_for(" is back");
    let (mut after, word) = connect(port);
    assert_eq!(word, "server 1");
    echoes(&mut after, "hello");
    plugged.shutdown_background();
}

/// Somebody who connects whenever they can, and asks the server which one it is.
struct Caller {
    port: u16,
    stream: Option<BufReader<TcpStream>>,
    words: u32,
}

impl Caller {
    /// Talks with the server of this number; none of another one answers, and nothing of what was said before.
    fn talk(&mut self, server: u32) {
        let start = Instant::now();
        loop {
            assert!(start.elapsed() < PATIENCE, "nobody answers");
            let Ok(stream) = TcpStream::connect(("127.0.0.1", self.port)) else {
                thread::sleep(Duration::from_millis(5));
                continue;
            };
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut stream = BufReader::new(stream);
            let mut word = String::new();
            match stream.read_line(&mut word) {
                Ok(n @ 1..) => assert_eq!(word, format!("server {server}\n"), "{n} bytes"),
                // Of a session that was just being lost.
                other => {
                    assert!(other.is_err(), "a loss is no end");
                    continue;
                }
            }
            self.words += 1;
            echoes(&mut stream, &format!("word {} for {server}\n", self.words));
            self.stream = Some(stream);
            return;
        }
    }

    /// Says something that no answer is waited for: it is on its way when somebody is killed.
    fn mutter(&mut self) {
        if let Some(stream) = &mut self.stream {
            let _ = stream.get_mut().write_all(b"nobody may hear this\n");
        }
    }

    /// The connection breaks with an error; of what was muttered only the echo may still come.
    fn is_cut(&mut self) {
        let Some(mut stream) = self.stream.take() else {
            return;
        };
        let mut rest = Vec::new();
        let end = stream.read_to_end(&mut rest);
        let rest = text(&rest);
        assert!("nobody may hear this\n".starts_with(&rest), "{rest:?}");
        assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn either_end_of_a_serial_line_is_killed_and_started_again() {
    let times = std::env::var("CEPA_RESTARTS").map_or(10, |n| n.parse().unwrap());
    let bit_errors = std::env::var("CEPA_BER").map_or(0.0, |p| p.parse().unwrap());
    let place = Place::new();
    let (key, id) = place.identity("server.pem");
    // A fast line: it is restarts that are waited for.
    let settings = LineSettings {
        noise: Noise {
            bit_errors,
            ..Noise::default()
        },
        ..LineSettings::new(300_000.0)
    };
    let runtime = join(&place, &settings, 1);
    let line = |end: &str| format!("serial:{},baud=3000000", place.text(end));
    let (near, far) = (line("a"), line("b"));
    let start_server = |number: u32| {
        let talk = format!("talk=exec:sh -c 'echo server {number}; exec cat'");
        place.serve(&[
            &far,
            "--identity",
            &key,
            "--allow",
            "any",
            "--service",
            &talk,
        ])
    };
    let start_forward = || {
        // Until there is a first session: that one is not tried again.
        let words = [
            "forward",
            "--no-durable",
            &near,
            "-L",
            "tcp:127.0.0.1:0=talk",
            "--expect",
            &id,
            "--reconnect",
        ];
        Server::start(&place, &words)
    };
    let mut rng = Rng::new(1);
    let (mut number, mut server, mut forward) = (1, start_server(1), start_forward());
    let mut caller = Caller {
        port: local(&forward),
        stream: None,
        words: 0,
    };
    for _ in 0..times {
        for end in ["server", "forward"] {
            if rng.percent(70) {
                caller.talk(number);
            }
            thread::sleep(Duration::from_millis(rng.between(0, 50) as u64));
            caller.mutter();
            if end == "server" {
                kill(server);
                number += 1;
                server = start_server(number);
                forward.wait_for("reconnected to ");
            } else {
                let had_session = server
                    .seen()
                    .iter()
                    .any(|line| line.starts_with("session with"));
                kill(forward);
                forward = start_forward();
                caller.port = local(&forward);
                // The server learns it as well: the session did not end in order.
                if had_session || caller.stream.is_some() {
                    let reported = server.wait_for(" ended: ");
                    let lost = ["the session is lost", "the connection to the peer was cut"];
                    assert!(lost.iter().any(|it| reported.contains(it)), "{reported}");
                }
            }
            caller.is_cut();
        }
    }
    caller.talk(number);
    println!("{times} restarts of each end");
    runtime.shutdown_background();
}
