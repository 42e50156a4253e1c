//! `cepa pipe`: raw streams, and streams with the TLS layers that their addresses name.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::sync::Arc;
use std::thread;

use cepa::Side;
use cepa::identity::{AcceptAny, Identity, KeyKind};
use cepa::onion::Onion;
use cepa::tls::TlsConfig;
use common::{Place, finish, noise, text};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[test]
fn both_ends_and_all_bytes_are_passed_on() {
    let place = Place::new();
    let data = noise(8 * 1024 * 1024);
    let output = place.run_with(&["pipe", "stdio:", "exec:cat"], &data);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(
        output.stdout == data,
        "{} bytes came back",
        output.stdout.len()
    );
    // Output that only begins when input has ended.
    let output = place.run_with(&["pipe", "exec:wc -c", "stdio:"], &data);
    assert_eq!(text(&output.stdout).trim(), data.len().to_string());
}

#[test]
fn a_tcp_peer_sees_the_half_close_and_can_still_answer() {
    let place = Place::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp:{}", listener.local_addr().unwrap());
    let peer = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(b"got ").unwrap();
        stream.write_all(&all).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    });
    let output = place.run_with(&["pipe", &address, "stdio:"], b"this");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "got this");
    peer.join().unwrap();
}

#[test]
fn the_reader_of_standard_output_may_leave_first() {
    let place = Place::new();
    let mut child = place
        .cepa(&["pipe", "exec:yes", "stdio:"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut some = [0; 2];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut some).unwrap();
    drop(stdout);
    drop(child.stdin.take());
    let output = finish(child);
    assert_eq!(&some, b"y\n");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn a_burst_on_a_commands_standard_error_is_shown_whole() {
    let place = Place::new();
    let output = place.run_with(&["pipe", "exec:sh -c 'seq 30000 >&2'", "exec:true"], b"");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stderr);
    assert_eq!(said.lines().count(), 30_000);
    assert!(said.ends_with("] 30000\n"));
}

/// As `cepa connect` has it.
#[test]
fn an_output_that_cannot_be_written_is_no_lost_link() {
    let place = Place::new();
    let full = std::fs::File::options().write(true).open("/dev/full");
    let child = place
        .cepa(&["pipe", "exec:echo lost", "stdio:"])
        .stdout(full.unwrap())
        .spawn()
        .unwrap();
    let output = finish(child);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
}

/// A TLS server with this many layers that sends back what it gets; gives its address and peer id.
fn tls_echo(layers: usize) -> (String, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = format!(
        "{}tcp:{}",
        "tls+".repeat(layers),
        listener.local_addr().unwrap()
    );
    let identity = Identity::generate(KeyKind::Ed25519).unwrap();
    let id = identity.peer_id().to_string();
    let config = TlsConfig::new(&identity, Arc::new(AcceptAny)).unwrap();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let mut onion = Onion::new(stream);
                let mut fine = true;
                for _ in 0..layers {
                    fine &= onion.push(Side::Server, &config).await.is_ok();
                }
                let mut all = Vec::new();
                if fine && onion.read_to_end(&mut all).await.is_ok() {
                    onion.write_all(&all).await.unwrap();
                    onion.shutdown().await.unwrap();
                }
            }
        });
    });
    (address, id)
}

#[test]
fn tls_layers_are_put_on_as_the_address_says() {
    let place = Place::new();
    assert!(place.run(&["id", "show"]).status.success());
    let data = noise(300_000);
    for layers in 1..=2 {
        let (address, id) = tls_echo(layers);
        let output = place.run_with(&["pipe", &address, "stdio:", "--expect", &id], &data);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert!(output.stdout == data);
    }
    let (address, id) = tls_echo(1);
    let line = place.fails(&["pipe", &address, "stdio:"], 4);
    assert!(line.contains(&id), "{line}");
    let wrong = "a".repeat(52);
    place.fails(&["pipe", &address, "stdio:", "--expect", &wrong], 3);
}

/// A peer that answers and closes, however much is still said to it: the answer arrives whole, though the pipe has lost something.
#[test]
fn an_answer_arrives_whole_where_its_giver_takes_no_more() {
    let place = Place::new();
    let giver = UnixListener::bind(place.path("socket")).unwrap();
    let taker = TcpListener::bind("127.0.0.1:0").unwrap();
    let words = [
        "pipe",
        &format!("unix:{}", place.text("socket")),
        &format!("tcp:{}", taker.local_addr().unwrap()),
    ];
    let pipe = place.cepa(&words).spawn().unwrap();
    let (mut giver, mut taker) = (giver.accept().unwrap().0, taker.accept().unwrap().0);
    let data = noise(2 << 20);
    let said = data.clone();
    let giving = thread::spawn(move || giver.write_all(&said).unwrap());
    let mut got = vec![0; data.len() - 250_000];
    taker.read_exact(&mut got).unwrap();
    giving.join().unwrap();
    // This finds nobody; the rest of the answer is on its way meanwhile.
    taker.write_all(&[1; 10]).unwrap();
    let mut rest = Vec::new();
    taker.read_to_end(&mut rest).unwrap();
    got.extend(rest);
    assert!(got == data, "{} of {}", got.len(), data.len());
    drop(taker);
    finish(pipe);
}
