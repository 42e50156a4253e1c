//! Sessions that outlive their connection, as a user meets them: real processes, and a proxy between them that cuts.

mod common;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use cepa::transports::testkit::{LineSettings, Noise};
use common::line::join;
use common::proxy::Proxy;
use common::{PATIENCE, Place, Server, finish, noise, sha256, text};

/// A TCP server that sends back what it reads, and gives its address.
fn echo() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || {
                let mut from = stream.unwrap();
                let mut to = from.try_clone().unwrap();
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Write);
            });
        }
    });
    format!("tcp:{at}")
}

/// A server, a proxy in front of it, and a forward through that: the command lines that a user would type.
struct Way {
    server: Server,
    proxy: Proxy,
    forward: Server,
}

impl Way {
    fn new(place: &Place, of_server: &[&str], of_forward: &[&str]) -> Self {
        let server = serve(place, "tcp:127.0.0.1:0", of_server);
        let proxy = Proxy::to(&server.address());
        let forward = forward(place, &proxy.address(), of_forward);
        Self {
            server,
            proxy,
            forward,
        }
    }

    /// The same, and a connection that has carried something.
    fn opened(place: &Place, of_server: &[&str], of_forward: &[&str]) -> (Self, TcpStream) {
        let way = Self::new(place, of_server, of_forward);
        let mut open = dial(&way.local());
        echoes(&mut open, b"before");
        (way, open)
    }

    fn local(&self) -> String {
        self.forward.address()
    }

    /// The connection is gone, and no other one comes.
    fn lose(&mut self) {
        self.proxy.down();
        self.forward.wait_for(LOST);
    }
}

const LOST: &str = "lost; reconnecting (data is kept)";

fn serve(place: &Place, at: &str, more: &[&str]) -> Server {
    let service = format!("web={}", echo());
    let words = [at, "--allow", "any", "--service", &service];
    place.serve(&[&words[..], more].concat())
}

fn forward(place: &Place, at: &str, more: &[&str]) -> Server {
    let words = ["forward", at, "-L", "tcp:127.0.0.1:0=web", "--trust", "any"];
    Server::start(place, &[&words[..], more].concat())
}

fn dial(local: &str) -> TcpStream {
    let stream = TcpStream::connect(local.strip_prefix("tcp:").unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[track_caller]
fn echoes(stream: &mut TcpStream, word: &[u8]) {
    stream.write_all(word).unwrap();
    let mut back = vec![0; word.len()];
    stream.read_exact(&mut back).unwrap();
    assert!(back == word, "what comes back is what was sent");
}

/// All of it goes there and comes back, and then there is an end on both sides.
fn whole(local: &str, data: &Arc<Vec<u8>>) {
    let mut from = dial(local);
    let mut to = from.try_clone().unwrap();
    let sent = Arc::clone(data);
    let sending = thread::spawn(move || {
        to.write_all(&sent).unwrap();
        to.shutdown(Shutdown::Write).unwrap();
    });
    let mut back = Vec::new();
    from.read_to_end(&mut back).unwrap();
    sending.join().unwrap();
    assert!(back == **data, "{} of {} bytes", back.len(), data.len());
}

/// The connection ends with an error, and not as if that were all.
#[track_caller]
fn is_cut(mut stream: TcpStream) {
    let end = stream.read_to_end(&mut Vec::new());
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn connections_through_a_forward_survive_cuts_byte_for_byte() {
    let place = Place::new();
    let mut way = Way::new(&place, &[], &[]);
    let local = way.local();
    // One that rests, some that are busy, and one whose chunks say when it is cut: in the middle of each.
    let mut resting = dial(&local);
    echoes(&mut resting, b"before");
    let data = Arc::new(noise(2 << 20));
    let busy: Vec<_> = (0..4)
        .map(|_| {
            let (local, data) = (local.clone(), Arc::clone(&data));
            thread::spawn(move || whole(&local, &data))
        })
        .collect();
    let mut chunks = dial(&local);
    for chunk in data.chunks(64 << 10).take(10) {
        let (one, other) = chunk.split_at(chunk.len() / 2);
        chunks.write_all(one).unwrap();
        way.proxy.cut();
        chunks.write_all(other).unwrap();
        let mut back = vec![0; chunk.len()];
        chunks.read_exact(&mut back).unwrap();
        assert!(back == chunk);
    }
    for one in busy {
        one.join().unwrap();
    }
    echoes(&mut resting, b"behind");
    way.forward.wait_for(LOST);
    way.forward.wait_for(" is back after ");
    let reported = way.server.wait_for("has lost its connection");
    assert!(reported.ends_with("; it is kept for 10 min"), "{reported}");
    assert!(!reported.contains("missing"), "{reported}");
    way.server.wait_for("goes on");
    // A new one is as any other.
    echoes(&mut dial(&local), b"new");
    way.forward.signal("TERM");
    assert_eq!(way.forward.finish().0, Some(0));
}

#[test]
fn new_connections_wait_for_the_path_and_then_go_on() {
    let place = Place::new();
    let (mut way, mut open) = Way::opened(&place, &[], &[]);
    let local = way.local();
    way.lose();
    let waiting: Vec<_> = (0..20)
        .map(|n: u32| {
            let local = local.clone();
            thread::spawn(move || echoes(&mut dial(&local), &n.to_be_bytes()))
        })
        .collect();
    open.write_all(b"meanwhile").unwrap();
    way.proxy.up();
    for one in waiting {
        one.join().unwrap();
    }
    let mut back = [0; 9];
    open.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"meanwhile");
    way.forward.wait_for(" is back after ");
}

#[test]
fn a_path_that_falls_silent_is_found_out() {
    let place = Place::new();
    let (mut way, mut open) = Way::opened(&place, &[], &[]);
    way.proxy.fall_silent();
    echoes(&mut open, &noise(1 << 20));
    way.forward.wait_for(LOST);
    way.forward.wait_for(" is back after ");
}

#[test]
fn without_it_at_either_end_a_cut_is_the_end() {
    for (of_server, of_forward) in [(&["--no-durable"][..], &[][..]), (&[], &["--no-durable"])] {
        let place = Place::new();
        let (way, open) = Way::opened(&place, of_server, of_forward);
        way.proxy.cut();
        is_cut(open);
        let (code, said) = way.forward.finish();
        assert_eq!(code, Some(6), "{said}");
        assert!(
            said.contains("the connection to the peer was cut; the last"),
            "{said}"
        );
        assert!(!said.contains("data is kept"), "{said}");
    }
}

#[test]
fn whoever_asks_for_it_by_name_reads_that_the_peer_does_not_keep_sessions() {
    let place = Place::new();
    let says = "warning: the peer keeps no sessions; this one ends with its connection";
    let server = serve(&place, "tcp:127.0.0.1:0", &["--no-durable"]);
    // Before it listens.
    let asked = forward(&place, &server.address(), &["--durable"]);
    let seen = asked.seen();
    assert!(seen.iter().any(|line| line.ends_with(says)), "{seen:?}");
    let silent = forward(&place, &server.address(), &[]);
    silent.signal("TERM");
    let (code, said) = silent.finish();
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("keeps no sessions"), "{said}");
}

#[test]
fn a_server_that_was_restarted_does_not_know_the_session() {
    let place = Place::new();
    let (mut way, open) = Way::opened(&place, &[], &[]);
    way.server.signal("KILL");
    way.forward.wait_for(LOST);
    let mut again = serve(&place, "tcp:127.0.0.1:0", &[]);
    way.proxy.lead_to(&again.address());
    is_cut(open);
    let (code, said) = way.forward.finish();
    assert_eq!(code, Some(6), "{said}");
    assert!(said.contains("no longer knows the session"), "{said}");
    // And its log says who asked.
    let reported = again.wait_for("a session that is not here any more");
    let own = text(&place.run(&["id", "show"]).stdout);
    assert!(
        reported.contains(&format!("peer {} wants", own.trim())),
        "{reported}"
    );
}

#[test]
fn with_reconnect_a_session_that_is_lost_for_good_is_followed_by_a_new_one() {
    let place = Place::new();
    let (mut way, mut open) = Way::opened(&place, &[], &["--reconnect"]);
    let local = way.local();
    // A cut is none of that.
    way.proxy.cut();
    echoes(&mut open, b"behind");
    way.forward.wait_for(" is back after ");
    way.server.signal("KILL");
    way.forward.wait_for(LOST);
    let again = serve(&place, "tcp:127.0.0.1:0", &[]);
    way.proxy.lead_to(&again.address());
    let reported = way.forward.wait_for("; reconnecting with a new session");
    assert!(
        reported.contains("no longer knows the session"),
        "{reported}"
    );
    is_cut(open);
    way.forward.wait_for("reconnected to ");
    echoes(&mut dial(&local), b"new");
}

#[test]
fn a_session_is_given_up_when_its_time_without_a_path_is_over() {
    for (of_server, of_forward) in [(&["--park", "1s"][..], &[][..]), (&[], &["--park", "1s"])] {
        let place = Place::new();
        let (mut way, open) = Way::opened(&place, of_server, of_forward);
        way.lose();
        is_cut(open);
        let (code, said) = way.forward.finish();
        assert_eq!(code, Some(6), "{said}");
        assert!(said.contains("no path for 1 s"), "{said}");
        if !of_server.is_empty() {
            way.server.wait_for(" ended: ");
        }
    }
}

#[test]
fn who_is_asked_to_end_while_the_path_is_away_ends() {
    for signal in ["TERM", "INT"] {
        let place = Place::new();
        let (mut way, _open) = Way::opened(&place, &[], &[]);
        way.lose();
        way.forward.signal(signal);
        let (code, said) = way.forward.finish();
        assert_eq!(code, Some(0), "{said}");
        assert!(
            said.contains("could not be told, and keeps what runs in the session for up to 10 min"),
            "{said}"
        );
        way.server.wait_for("has lost its connection");
        way.server.signal(signal);
        let (code, said) = way.server.finish();
        assert_eq!(code, Some(0), "{said}");
        assert!(!said.contains("waiting"), "nobody can answer: {said}");
    }
}

#[test]
fn connect_that_is_asked_to_end_takes_leave_so_that_nothing_is_kept() {
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let place = Place::new();
        let service = "sh=exec:sh -c 'echo $$; exec sleep 600'";
        let mut server = serve(&place, "tcp:127.0.0.1:0", &["--service", service]);
        let at = server.address();
        let words = ["connect", &at, "sh", "--trust", "any", "--durable"];
        let mut client = place.cepa(&words).stdin(Stdio::piped()).spawn().unwrap();
        let _stdin = client.stdin.take();
        let mut stdout = BufReader::new(client.stdout.take().unwrap());
        let mut pid = String::new();
        stdout.read_line(&mut pid).unwrap();
        let pid = pid.trim();
        assert!(common::signal(pid, "0"));
        assert!(common::signal(&client.id().to_string(), signal));
        let output = finish(client);
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
        server.wait_for(" ended: the peer closed the session");
        let lost = server.seen().iter().find(|line| line.contains("has lost"));
        assert_eq!(lost, None);
        let start = Instant::now();
        while common::signal(pid, "0") {
            assert!(start.elapsed() < PATIENCE, "the command is still there");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn a_process_that_is_stopped_for_longer_than_a_dead_path_may_be_silent_goes_on() {
    for stop_server in [true, false] {
        let place = Place::new();
        let (mut way, mut open) = Way::opened(&place, &[], &[]);
        let stopped = if stop_server {
            &way.server
        } else {
            &way.forward
        };
        stopped.signal("STOP");
        open.write_all(b"meanwhile").unwrap();
        // With bytes under way, a path is dead after three seconds.
        thread::sleep(Duration::from_secs(5));
        stopped.signal("CONT");
        let mut back = [0; 9];
        open.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"meanwhile");
        echoes(&mut open, b"behind");
        if stop_server {
            way.forward.wait_for(LOST);
        }
    }
}

#[test]
fn a_forward_that_is_killed_again_and_again_finds_room() {
    let place = Place::new();
    let mut server = serve(&place, "tcp:127.0.0.1:0", &["--sessions-a-peer", "4"]);
    let proxy = Proxy::to(&server.address());
    for _ in 0..10 {
        let mut one = forward(&place, &proxy.address(), &[]);
        echoes(&mut dial(&one.address()), b"here");
        one.signal("KILL");
        while one.is_running() {
            thread::yield_now();
        }
    }
    server.wait_for(" ended: it made room for another session");
}

/// A service never takes a client that is gone for one that has said all.
#[test]
fn an_upload_whose_client_was_killed_never_ends_in_order() {
    let place = Place::new();
    let done = place.path("done");
    let upload = format!(
        "up=exec:sh -c 'cat >{0}.new && mv {0}.new {0}'",
        done.display()
    );
    let more = ["--service", &upload, "--park", "2s"];
    let mut server = serve(&place, "tcp:127.0.0.1:0", &more);
    let at = server.address();
    let words = ["connect", &at, "up", "--trust", "any", "--durable"];
    let mut client = place.cepa(&words).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = client.stdin.take().unwrap();
    stdin.write_all(&noise(100_000)).unwrap();
    server.wait_for("session with ");
    let new = place.path("done.new");
    let start = Instant::now();
    while !new.exists() {
        assert!(start.elapsed() < PATIENCE, "the command has not begun");
        thread::sleep(Duration::from_millis(5));
    }
    client.kill().unwrap();
    client.wait().unwrap();
    server.wait_for("has lost its connection");
    server.wait_for(" ended: ");
    thread::sleep(Duration::from_millis(500));
    assert!(!done.exists());
}

#[test]
fn connect_goes_on_if_it_was_asked_to() {
    let place = Place::new();
    let sum = "sum=exec:sha256sum";
    let server = serve(&place, "tcp:127.0.0.1:0", &["--service", sum]);
    let proxy = Proxy::to(&server.address());
    let at = proxy.address();
    for (more, code) in [(&["--durable"][..], 0), (&[], 6)] {
        let words = [&["connect", &at, "sum", "--trust", "any"][..], more].concat();
        let mut client = place.cepa(&words).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = client.stdin.take().unwrap();
        let data = noise(4 << 20);
        let (one, other) = data.split_at(data.len() / 2);
        stdin.write_all(one).unwrap();
        proxy.cut();
        // Without it nobody reads this.
        let _ = stdin.write_all(other);
        drop(stdin);
        let output = finish(client);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        if code == 0 {
            assert_eq!(text(&output.stdout), sha256(&data));
            assert!(said.contains(LOST), "{said}");
        }
    }
}

/// What goes in at one end of a session over a command comes out at the other, though each command is another one.
#[test]
fn a_command_that_leads_to_the_peer_is_run_again() {
    let place = Place::new();
    let server = serve(&place, "tcp:127.0.0.1:0", &[]);
    let proxy = Proxy::to(&server.address());
    let via = format!(
        "exec:{} pipe stdio: {}",
        common::bin().display(),
        proxy.address()
    );
    let mut forward = forward(&place, &via, &[]);
    let mut open = dial(&forward.address());
    echoes(&mut open, b"before");
    for _ in 0..3 {
        // Of losses that follow each other at once one is told.
        thread::sleep(Duration::from_millis(1100));
        proxy.cut();
        echoes(&mut open, &noise(1 << 20));
        forward.wait_for(LOST);
        forward.wait_for(" is back after ");
    }
}

/// Both adapters are pulled out, which closes the devices, and put back later.
#[test]
fn serial_adapters_that_are_pulled_out_and_put_back_lose_nothing() {
    let place = Place::new();
    let plug = || join(&place, &LineSettings::new(300_000.0), 1);
    let plugged = plug();
    let line = |end: &str| format!("serial:{},baud=3000000", place.text(end));
    let mut server = serve(&place, &line("b"), &[]);
    let near = line("a");
    let mut forward = forward(&place, &near, &[]);
    let mut open = dial(&forward.address());
    echoes(&mut open, b"before");
    plugged.shutdown_timeout(PATIENCE);
    forward.wait_for(LOST);
    server.wait_for("; waiting for it to come back");
    let data = noise(100_000);
    open.write_all(&data).unwrap();
    let plugged = plug();
    let mut back = vec![0; data.len()];
    open.read_exact(&mut back).unwrap();
    assert!(back == data);
    forward.wait_for(" is back after ");
    echoes(&mut open, b"behind");
    plugged.shutdown_background();
}

/// The cable between two adapters is pulled out, of which neither hears.
#[test]
fn a_cable_that_is_pulled_out_for_a_while_loses_nothing() {
    let place = Place::new();
    let settings = LineSettings {
        noise: Noise {
            cuts: vec![(Duration::from_secs(4), Duration::from_secs(12))],
            ..Noise::default()
        },
        ..LineSettings::new(300_000.0)
    };
    let plugged = join(&place, &settings, 1);
    let begun = Instant::now();
    let line = |end: &str| format!("serial:{},baud=3000000", place.text(end));
    let _server = serve(&place, &line("b"), &[]);
    let near = line("a");
    let forward = forward(&place, &near, &[]);
    let mut open = dial(&forward.address());
    while begun.elapsed() < Duration::from_secs(20) {
        echoes(&mut open, &noise(1000));
        thread::sleep(Duration::from_millis(100));
    }
    plugged.shutdown_background();
}

/// The relay is killed, and another one has its key and its place: the circuit is gone, and the session is not.
#[test]
fn a_session_through_a_relay_outlives_the_relay() {
    let place = Place::new();
    let (key, id) = place.identity("relay.pem");
    let words = [
        "relay",
        "tcp:127.0.0.1:0",
        "--identity",
        &key,
        "--allow",
        "any",
    ];
    let relay = || {
        let relay = Server::start_at(&place, &words, "relaying on ");
        let said = relay.seen().last().unwrap();
        let at = said.rsplit('@').next().unwrap().to_owned();
        (relay, at)
    };
    let (mut first, at) = relay();
    let proxy = Proxy::to(&at);
    let (register, service) = (
        format!("cepa://{id}@{}", proxy.address()),
        format!("web={}", echo()),
    );
    let words = [
        "serve",
        "--register",
        &register,
        "--allow",
        "any",
        "--service",
        &service,
    ];
    let server = Server::start_at(&place, &words, "reachable at ");
    let last = server.seen().last().unwrap();
    let reachable = last.split_whitespace().last().unwrap();
    let (client, _) = place.identity("client.pem");
    let words = ["-L", "tcp:127.0.0.1:0=web", "--identity", &client];
    let mut forward = Server::start(&place, &[&["forward", reachable], &words[..]].concat());
    let mut open = dial(&forward.address());
    echoes(&mut open, b"before");
    first.signal("KILL");
    while first.is_running() {
        thread::yield_now();
    }
    forward.wait_for(LOST);
    open.write_all(b"meanwhile").unwrap();
    let (_second, at) = relay();
    proxy.lead_to(&at);
    let mut back = [0; 9];
    open.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"meanwhile");
    forward.wait_for(" is back after ");
}
