//! How the server ends what it has opened for a substream: a command that is cut never takes that for the end of its input, one
//! that is not cut is let come to its end, and nothing is told to be over that is not.

mod common;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use cepa::Side;
use cepa::identity::{AcceptAny, Identity, KeyKind, Pinned};
use cepa::mux::Substream;
use cepa::onion::Onion;
use cepa::session::Session;
use cepa::stack::StackConfig;
use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use common::{PATIENCE, Place, Server, finish, is_running, text};

/// A server with these services.
fn serve(place: &Place, services: &[(&str, &str)]) -> Server {
    let mut words = vec!["tcp:127.0.0.1:0".to_owned(), "--allow=any".to_owned()];
    for (name, to) in services {
        words.extend(["--service".to_owned(), format!("{name}={to}")]);
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    place.serve(&words)
}

/// A program on the library.
async fn session(server: &Server) -> Session {
    let identity = Identity::generate(KeyKind::Ed25519).unwrap();
    let trust = Arc::new(Pinned::one(server.id().parse().unwrap()));
    let config = StackConfig::new(identity, trust);
    let at = server.address().parse().unwrap();
    Session::dial(&at, &config).await.unwrap()
}

fn message(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[kind], &length[..], content].concat()
}

/// A service on a console of 24 by 80.
async fn console(session: &Session, service: &str) -> Onion<Substream> {
    let name = format!("cepa.console.{service}");
    let mut far = session.open(&name).await.unwrap();
    far.write_all(&message(1, &[0, 24, 0, 80])).await.unwrap();
    far.flush().await.unwrap();
    far
}

/// Waits until this has come.
async fn hear(far: &mut Onion<Substream>, what: &[u8]) {
    let heard = async {
        let mut got = Vec::new();
        while !got.windows(what.len()).any(|window| window == what) {
            assert_ne!(far.read_buf(&mut got).await.unwrap(), 0, "{got:?}");
        }
    };
    tokio::time::timeout(PATIENCE, heard).await.unwrap();
}

#[track_caller]
fn wait_until(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A backend that ends its side at once and goes on reading; what each connection brought.
fn takes_on() -> (String, Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let (sender, heard) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, sender): (TcpStream, _) = (stream.unwrap(), sender.clone());
            thread::spawn(move || {
                stream.shutdown(Shutdown::Write).unwrap();
                let mut all = Vec::new();
                let _ = stream.read_to_end(&mut all);
                let _ = sender.send(all.len());
            });
        }
    });
    (format!("tcp:{at}"), heard)
}

/// A command without a terminal, at somebody's console that is cut.
#[tokio::test(flavor = "multi_thread")]
async fn a_console_that_is_cut_is_no_end_of_input() {
    let place = Place::new();
    let dir = place.path("up");
    fs::create_dir(&dir).unwrap();
    let command = format!(
        "exec:sh -c 'echo $$ >$$.pid; cat >$$.part && mv $$.part $$.done',dir={}",
        dir.display()
    );
    let server = serve(&place, &[("x", &command)]);
    let named = |end: &str| -> Vec<std::path::PathBuf> {
        let all = fs::read_dir(&dir).unwrap().flatten();
        all.map(|entry| entry.path())
            .filter(|path| path.to_string_lossy().ends_with(end))
            .collect()
    };
    let session = session(&server).await;
    for round in 1..=5 {
        let mut far = console(&session, "x").await;
        far.write_all(&message(0, b"half")).await.unwrap();
        far.flush().await.unwrap();
        let is_there = |path: &std::path::PathBuf| fs::read(path).is_ok_and(|got| got == b"half");
        wait_until("it writes", || {
            named(".part").iter().filter(|path| is_there(path)).count() == round
        });
        // Without an end before, that is a reset.
        drop(far);
        for pid in named(".pid") {
            let pid = fs::read_to_string(pid).unwrap();
            wait_until("it is gone", || !is_running(&pid));
        }
        assert_eq!(named(".done").len(), 0, "round {round}");
    }
}

/// What closes its output and goes on: its peer is told of the end after 10 s, and it still has all of its input, though the peer ends
/// that before it was taken. If it fails then, the log tells.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_whose_output_has_ended_takes_all_its_input() {
    let place = Place::new();
    let file = place.text("all");
    let slow = format!("exec:sh -c 'exec >&-; sleep 12; cat >{file}.part; mv {file}.part {file}'");
    let fails = "exec:sh -c 'exec >&-; sleep 12; cat >/dev/null; exit 3'";
    let mut server = serve(&place, &[("slow", &slow), ("fails", fails)]);
    let session = session(&server).await;
    let send = async |service: &str| {
        let mut far = session.open(service).await.unwrap();
        far.write_all(&vec![b'x'; 50_000]).await.unwrap();
        far.flush().await.unwrap();
        let ended = tokio::time::timeout(PATIENCE, far.read(&mut [0])).await;
        assert_eq!(ended.unwrap().unwrap(), 0);
        far.shutdown().await.unwrap();
        far
    };
    let _open = tokio::join!(send("slow"), send("fails"));
    wait_until("it has all", || {
        fs::metadata(&file).is_ok_and(|file| file.len() == 50_000)
    });
    server.wait_for("exited with status 3");
}

/// Who ends its input and closes its session at once wants it carried out.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_goes_on_whose_peer_has_ended_its_input_and_left() {
    let place = Place::new();
    let file = place.text("done");
    let command = format!("exec:sh -c 'cat >/dev/null; sleep 1; touch {file}'");
    let server = serve(&place, &[("x", &command)]);
    let session = session(&server).await;
    let mut far = session.open("x").await.unwrap();
    far.write_all(b"all of it").await.unwrap();
    far.shutdown().await.unwrap();
    session.close().await;
    drop(far);
    wait_until("it was carried out", || fs::exists(&file).unwrap());
}

#[test]
fn a_socket_that_has_ended_its_side_takes_all_the_rest() {
    let place = Place::new();
    let (backend, heard) = takes_on();
    let server = serve(&place, &[("s", &backend)]);
    let all = vec![b'x'; 10_000_000];
    for form in [&[][..], &["--no-status"]] {
        let (address, id) = (server.address(), server.id());
        let words = [&["connect", &address, "s", "--expect", &id][..], form].concat();
        let output = place.run_with(&words, &all);
        let said = text(&output.stderr);
        assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), all.len(), "{said}");
        assert_eq!(output.status.code(), Some(0), "{said}");
    }
}

/// Nobody has to end their input for that: at a terminal there is nothing more to say.
#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_ends_ends_its_console() {
    let place = Place::new();
    let (backend, _heard) = takes_on();
    let server = serve(&place, &[("s", &backend)]);
    let session = session(&server).await;
    let mut far = console(&session, "s").await;
    hear(&mut far, &message(3, &[0, 0])).await;
}

/// Nor does a person at a terminal, who has nothing more to say either.
#[test]
fn a_socket_that_ends_ends_who_is_at_a_terminal() {
    let place = Place::new();
    let (backend, _heard) = takes_on();
    let server = serve(&place, &[("s", &backend)]);
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    let keyboard = fs::File::options()
        .read(true)
        .write(true)
        .custom_flags(OFlags::NOCTTY.bits().cast_signed())
        .open(name.to_str().unwrap())
        .unwrap();
    let (address, id) = (server.address(), server.id());
    let mut connect = place.cepa(&["connect", &address, "s", "--expect", &id]);
    let output = finish(connect.stdin(keyboard).spawn().unwrap());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

/// The wait for its status is no silence: what is lost by a failure is told to the other end, however long it takes.
#[test]
fn the_end_of_a_command_is_held_for_longer_than_a_pipes_patience() {
    let place = Place::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = format!("tcp:{}", listener.local_addr().unwrap());
    let fails = "exec:sh -c 'printf out; exec >&-; sleep 4; exit 3'";
    for ends in [[&at, fails], [fails, &at]] {
        let pipe = place.cepa(&[&["pipe", "-t", "1"][..], &ends].concat());
        let pipe = { pipe }.spawn().unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        let mut got = Vec::new();
        let end = peer.read_to_end(&mut got).map_err(|e| e.kind());
        assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset), "{ends:?}");
        assert_eq!(finish(pipe).status.code(), Some(3));
    }
}

/// A process that writes on for ever and has left its parent's group holds nothing open, though its pipe is never empty.
#[test]
fn what_a_command_leaves_behind_that_writes_on_ends_with_it() {
    const COMMAND: &str = "exec:sh -c 'setsid yes & exit 0'";
    let place = Place::new();
    let server = serve(&place, &[("x", COMMAND)]);
    let (address, id) = (server.address(), server.id());
    let connect = ["connect", &address, "x", "--expect", &id];
    let plain = [&connect[..], &["--no-status"]].concat();
    // `cepa pipe` has the same rule.
    for words in [&connect[..], &plain, &["pipe", "stdio:", COMMAND]] {
        let mut child = place.cepa(words).spawn().unwrap();
        // Slower than it writes.
        let mut output = child.stdout.take().unwrap();
        let (mut some, mut all) = (vec![0; 64 << 10], 0);
        loop {
            match output.read(&mut some).unwrap() {
                0 => break,
                n => all += n,
            }
            assert!(all < 100 << 20, "{words:?} does not end");
            thread::sleep(Duration::from_millis(5));
        }
        let output = finish(child);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
    }
}

/// A refusal for now: by its name alone the service might be had, and its status would be lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_is_refused_for_now_is_not_given_up() {
    let place = Place::new();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = format!("tcp:{}", closed.local_addr().unwrap());
    drop(closed);
    let server = serve(&place, &[("s", &at)]);
    let session = session(&server).await;
    let refused = session.open("cepa.exec.s").await.unwrap_err().to_string();
    assert!(refused.contains(": not now: the service"), "{refused}");
    let refused = session.open("s").await.unwrap_err().to_string();
    assert!(refused.contains(": not now: the service"), "{refused}");

    // A server that has room a moment later.
    let mut listener = cepa::transports::listen(&"tcp:127.0.0.1:0".parse().unwrap())
        .await
        .unwrap();
    let at = listener.endpoint().to_string();
    let refuses = tokio::spawn(async move {
        let identity = Identity::generate(KeyKind::Ed25519).unwrap();
        let config = StackConfig::new(identity, Arc::new(AcceptAny));
        let stream = listener.accept().await.unwrap().unwrap();
        let session = Session::handshake(stream, &[], Side::Server, &config)
            .await
            .unwrap();
        let mut asked = Vec::new();
        while let Ok(incoming) = session.accept().await {
            asked.push(incoming.service().to_owned());
            if asked.len() == 1 {
                incoming.refuse("not now: too many").await.unwrap();
            } else {
                drop(incoming.accept().await);
            }
        }
        asked
    });
    let output = tokio::task::spawn_blocking(move || {
        place.run_with(&["connect", &at, "s", "--trust", "any"], b"")
    });
    let output = output.await.unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{said}");
    assert!(said.contains(": too many"), "{said}");
    assert!(!said.contains("cepa.exec"), "{said}");
    assert_eq!(refuses.await.unwrap(), ["cepa.exec.s"]);
}

/// Whoever ends a client by a signal ends the session in order: the server does not take it for a lost one.
#[test]
fn a_client_that_is_ended_by_a_signal_closes_its_session() {
    let place = Place::new();
    place.succeeds(&["id", "show"]);
    for (words, more) in [
        (&["connect", "up"][..], &[][..]),
        (&["connect", "up"], &["--no-status"]),
        (&["connect", "up"], &["--reconnect"]),
        (&["connect", "up"], &["--durable"]),
        (&["exec", "--service=run"], &["--", "/bin/cat"]),
        (&["exec", "--service=run"], &["--durable", "--", "/bin/cat"]),
    ] {
        // One shows so many sessions of one peer a second, and no more.
        let mut server = serve(&place, &[("up", "echo:"), ("run", "command:/bin/cat")]);
        let (at, id) = (server.address(), server.id());
        let words = [&words[..1], &[&at], &words[1..], &["--expect", &id], more].concat();
        for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
            let mut client = place.cepa(&words).stdin(Stdio::piped()).spawn().unwrap();
            let mut stdin = client.stdin.take().unwrap();
            stdin.write_all(b"x").unwrap();
            let mut back = [0];
            let stdout = client.stdout.as_mut().unwrap();
            stdout.read_exact(&mut back).unwrap();
            assert!(common::signal(&client.id().to_string(), signal));
            let line = server.wait_for(" ended: ");
            let said = "ended: the peer closed the session";
            assert!(line.ends_with(said), "{words:?}: {line}");
            let output = finish(client);
            let stderr = text(&output.stderr);
            assert_eq!(output.status.code(), Some(code), "{words:?}: {stderr}");
            drop(stdin);
        }
    }
}

#[test]
fn a_client_without_a_session_ends_by_a_signal_too() {
    let place = Place::new();
    let server = serve(&place, &[("up", "echo:")]);
    let (at, id) = (server.address(), server.id());
    let words = ["connect", &at, "up", "--reconnect", "--expect", &id];
    let mut client = place.cepa(&words).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = client.stdin.take().unwrap();
    stdin.write_all(b"x").unwrap();
    let stdout = client.stdout.as_mut().unwrap();
    stdout.read_exact(&mut [0]).unwrap();
    server.signal("TERM");
    assert_eq!(server.finish().0, Some(0));
    // It has closed the session that is lost, and dialled again in vain.
    let stderr = BufReader::new(client.stderr.take().unwrap());
    let mut lines = stderr.lines().map_while(Result::ok);
    assert!(lines.any(|line| line.ends_with("trying again")));
    assert!(common::signal(&client.id().to_string(), "INT"));
    assert_eq!(finish(client).status.code(), Some(130));
    drop(stdin);
}
