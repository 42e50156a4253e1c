//! The last line of a terminal while `cepa forward` runs.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use common::desk::Desk;
use common::tcp::closed_port;
use common::{PATIENCE, Place, Server};

/// Takes the status line away.
const EMPTIED: &str = "\r\x1b[K";

fn serve(place: &Place) -> Server {
    place.serve(&[
        "tcp:127.0.0.1:0",
        "--service",
        "web=echo:",
        "--allow",
        "any",
    ])
}

fn echoes(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"fourteen bytes").unwrap();
    let mut back = [0; 14];
    stream.read_exact(&mut back).unwrap();
}

#[test]
fn it_counts_what_passes_and_gives_way_to_other_lines() {
    let place = Place::new();
    let server = serve(&place);
    let (at, local) = (server.address(), closed_port());
    let service = format!("127.0.0.1:{local}=web");
    let words = ["forward", &at, "--trust", "any", "-L", &service];
    let mut desk = Desk::sit_down(&place, &words, (24, 80));
    desk.until("listening on");
    desk.until("; 0 connections");
    let mut open = TcpStream::connect(("127.0.0.1", local)).unwrap();
    echoes(&mut open);
    desk.until("; 1 connection");
    open.shutdown(Shutdown::Write).unwrap();
    drop(open);
    desk.until("; 0 connections");
    // A line of the log stands in a line of its own, and the status behind it.
    let (mut server, at) = (server, at);
    server.signal("KILL");
    assert!(!at.is_empty());
    let start = Instant::now();
    while server.is_running() {
        assert!(start.elapsed() < PATIENCE, "it runs on");
        thread::sleep(Duration::from_millis(5));
    }
    desk.until("reconnecting");
    desk.type_in("\x03");
    let passed = desk.passed.clone();
    let (code, rest) = desk.leave();
    assert_eq!(code, Some(0));
    let all = passed + &rest;
    for line in all.split("\r\n") {
        let shown = line.rsplit(EMPTIED).next().unwrap();
        let shown = shown.trim_start_matches("^C");
        if !shown.starts_with("out ") {
            assert!(!shown.contains("; 0 connections"), "{line:?}");
        }
        for drawn in line.split(EMPTIED).filter(|it| it.starts_with("out ")) {
            assert!(drawn.len() <= 80, "{drawn:?}");
        }
    }
    // It is gone at the end.
    let last = all.rsplit("out ").next().unwrap();
    assert!(last.contains(EMPTIED), "{last:?}");
}

#[test]
fn a_narrow_terminal_gets_as_much_of_it_as_fits() {
    let place = Place::new();
    let server = serve(&place);
    let words = [
        "forward",
        &server.address(),
        "--trust",
        "any",
        "-L",
        "0=web",
    ];
    let mut desk = Desk::sit_down(&place, &words, (24, 20));
    desk.until("out ");
    desk.until("; in");
    desk.type_in("\x03");
    let (code, rest) = desk.leave();
    assert_eq!(code, Some(0));
    assert!(!rest.contains("connections"), "{rest:?}");
}

#[test]
fn there_is_none_where_nobody_wants_it() {
    let place = Place::new();
    let mut server = serve(&place);
    let at = server.address();
    for more in [&["-q"][..], &["--log-format", "json"]] {
        let local = closed_port();
        let service = format!("127.0.0.1:{local}=web");
        let words = ["forward", &at, "--trust", "any", "-L", &service];
        let mut desk = Desk::sit_down(&place, &[&words[..], more].concat(), (24, 80));
        if more[0] == "-q" {
            server.wait_for("session with");
        } else {
            desk.until("listening on");
        }
        let start = Instant::now();
        let mut open = loop {
            if let Ok(open) = TcpStream::connect(("127.0.0.1", local)) {
                break open;
            }
            assert!(start.elapsed() < PATIENCE, "nobody listens");
            thread::sleep(Duration::from_millis(5));
        };
        echoes(&mut open);
        desk.type_in("\x03");
        let passed = desk.passed.clone();
        let (_, rest) = desk.leave();
        assert!(!(passed + &rest).contains(EMPTIED), "{more:?}");
    }
    // Nor in a file.
    let words = ["forward", &at, "--trust", "any", "-L", "0=web"];
    let forward = Server::start(&place, &words);
    forward.signal("TERM");
    let (code, said) = forward.finish();
    assert_eq!(code, Some(0));
    assert!(!said.contains('\x1b') && !said.contains("out "), "{said}");
}

/// Behind a shell's prompt the terminal is somebody else's.
#[test]
fn it_is_shown_in_front_only() {
    let place = Place::new();
    let server = serve(&place);
    let (at, local) = (server.address(), closed_port());
    let mut desk = Desk::of(&place, &["sh", "-i"], (24, 80), |shell| {
        shell.env("PS1", "ready=");
    });
    desk.until("ready=");
    let tool = common::bin().display();
    desk.type_in(&format!(
        "{tool} forward {at} --trust any -L 127.0.0.1:{local}=web &\r"
    ));
    desk.until("listening on");
    let mut open = TcpStream::connect(("127.0.0.1", local)).unwrap();
    echoes(&mut open);
    thread::sleep(Duration::from_secs(1));
    desk.type_in("fg\r");
    desk.until("fg\r\n");
    assert!(!desk.passed.contains(" connection"), "{:?}", desk.passed);
    desk.until("; 1 connection");
    desk.type_in("\x03");
    desk.until("ready=");
    desk.type_in("exit\r");
    desk.leave();
}

/// A way to the server at which as much passes in a second as the bar needs to be drawn twice.
fn slow_way(to: &str) -> (String, Receiver<()>) {
    let to = to.strip_prefix("tcp:").unwrap().to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = format!("tcp:{}", listener.local_addr().unwrap());
    let (sender, passed) = channel();
    thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            let far = TcpStream::connect(&to).unwrap();
            let (mut back, mut front) = (far.try_clone().unwrap(), near.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut back, &mut front));
            let (mut near, mut far, sender) = (near, far, sender.clone());
            thread::spawn(move || {
                let (mut piece, mut all) = ([0; 16 << 10], 0);
                while let Ok(n @ 1..) = near.read(&mut piece) {
                    if far.write_all(&piece[..n]).is_err() {
                        return;
                    }
                    all += n;
                    if all > 128 << 10 {
                        let _ = sender.send(());
                        thread::sleep(Duration::from_millis(100));
                    }
                }
            });
        }
    });
    (at, passed)
}

/// The bar of a copy is one as well.
#[test]
fn the_bar_of_a_copy_is_shown_in_front_only() {
    let (host, place) = (Place::new(), Place::new());
    std::fs::create_dir(host.path("docs")).unwrap();
    std::fs::write(place.path("longfile"), vec![7; 8 << 20]).unwrap();
    let docs = format!("docs=files:{}", host.text("docs"));
    let server = host.serve(&["tcp:127.0.0.1:0", "--service", &docs, "--allow", "any"]);
    let (at, passed) = slow_way(&server.address());
    place.succeeds(&["peer", "add", "host", &server.id(), "--at", &at]);
    let mut desk = Desk::of(&place, &["sh", "-i"], (24, 80), |shell| {
        shell.env("PS1", "ready=");
    });
    desk.until("ready=");
    let (tool, file) = (common::bin().display(), place.text("longfile"));
    desk.type_in(&format!("{tool} cp {file} @host:docs/ &\r"));
    desk.until("ready=");
    let begun = desk.passed.len();
    for _ in 0..20 {
        passed.recv_timeout(PATIENCE).unwrap();
    }
    desk.type_in("fg\r");
    desk.until("fg\r\n");
    assert!(!desk.passed[begun..].contains(EMPTIED), "{:?}", desk.passed);
    desk.until(EMPTIED);
    desk.until("MiB");
    desk.type_in("\x03");
    desk.until("ready=");
    desk.type_in("exit\r");
    desk.leave();
}
