//! A service manager's side: sockets that it has bound and passes on, and what it is told.

mod common;

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::Command;

use common::{PATIENCE, Place, Server, text};

const ECHO: [&str; 4] = ["--allow", "any", "--service", "echo=echo:"];

fn echoes(place: &Place, address: &str) {
    for said in ["one", "two"] {
        let words = ["connect", address, "echo", "--trust", "any"];
        let output = place.run_with(&words, said.as_bytes());
        assert_eq!(text(&output.stdout), said, "{}", text(&output.stderr));
    }
}

/// As xinetd and inetd pass it on: by number, and nothing is said of it.
#[test]
fn a_socket_that_was_bound_before_is_listened_at() {
    let place = Place::new();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp:{}", socket.local_addr().unwrap());
    let mut command = place.cepa(&[&["serve", "fd:0"][..], &ECHO].concat());
    let server = Server::of(command.stdin(OwnedFd::from(socket)), "listening on ");
    assert_eq!(server.address(), address, "where it is, not what it was");
    drop(command);
    echoes(&place, &address);
    drop(server);

    let path = place.text("socket");
    let socket = UnixListener::bind(&path).unwrap();
    let mut command = place.cepa(&[&["serve", "fd:0"][..], &ECHO].concat());
    let server = Server::of(command.stdin(OwnedFd::from(socket)), "listening on ");
    drop(command);
    echoes(&place, &format!("unix:{path}"));
    server.signal("TERM");
    assert_eq!(server.finish().0, Some(0));
    // Whoever bound it removes it.
    assert!(std::path::Path::new(&path).exists());

    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = place.cepa(&["connect", "fd:0", "echo", "--trust", "any"]);
    let output = command.stdin(OwnedFd::from(socket)).output().unwrap();
    let line = common::failed(&output, 2);
    assert!(line.contains("is a socket that listens"), "{line}");
}

/// With the environment of sd_listen_fds(3), which names the process itself.
fn passed_on(place: &Place, socket: TcpListener, address: &str) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!(
        "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=peers exec {} serve {address} {} 3<&0 </dev/null",
        common::bin().display(),
        ECHO.join(" ")
    ));
    command
        .env("CEPA_CONFIG_DIR", place.path("config"))
        .stdin(OwnedFd::from(socket))
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    command
}

#[test]
fn a_socket_is_known_by_the_name_of_its_unit() {
    let place = Place::new();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp:{}", socket.local_addr().unwrap());
    let mut command = passed_on(&place, socket, "fd:peers");
    let _server = Server::of(&mut command, "listening on ");
    drop(command);
    echoes(&place, &address);

    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let output = passed_on(&place, socket, "fd:pears").output().unwrap();
    let line = common::failed(&output, 2);
    assert!(line.contains("there is peers"), "{line}");
    let line = place.fails(&["serve", "fd:peers", "--allow", "any"], 2);
    assert!(line.contains("no socket was passed on"), "{line}");
}

fn heard(manager: &UnixDatagram) -> String {
    let mut message = [0; 256];
    let len = manager.recv(&mut message).unwrap();
    let said = text(&message[..len]);
    said.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn a_manager_hears_when_it_is_ready_reloads_and_stops() {
    let place = Place::new();
    let manager = UnixDatagram::bind(place.path("notify")).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let file = place.text("node.toml");
    std::fs::write(&file, "listen = [\"tcp:127.0.0.1:0\"]\n").unwrap();
    let long_running: [&[&str]; 3] = [
        &[
            "serve",
            "tcp:127.0.0.1:0",
            "--allow",
            "any",
            "--service",
            "echo=echo:",
        ],
        &["relay", "tcp:127.0.0.1:0", "--allow", "any"],
        &["node", "--config", &file],
    ];
    for words in long_running {
        let mut command = place.cepa(words);
        command.env("NOTIFY_SOCKET", place.path("notify"));
        let server = Server::of(&mut command, "ing on ");
        assert_eq!(heard(&manager), "READY=1", "{words:?}");
        if words[0] == "node" {
            server.signal("HUP");
            assert_eq!(heard(&manager), "RELOADING=1");
            assert_eq!(heard(&manager), "READY=1");
        }
        server.signal("TERM");
        assert_eq!(heard(&manager), "STOPPING=1", "{words:?}");
        assert_eq!(server.finish().0, Some(0));
    }
}

/// The command of a unit in `dist/systemd`, as systemd splits it: by spaces, with its variables, and `%I` for the instance.
fn unit(place: &Place, name: &str, variables: &[(&str, &str)], instance: &str) -> Command {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../dist/systemd/");
    let unit = std::fs::read_to_string(format!("{folder}{name}")).unwrap();
    let start = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="));
    let mut line = start.unwrap().replace("/dev/%I", instance);
    line = line.replace("/etc/cepa/node.toml", &place.text("node.toml"));
    for (variable, value) in variables {
        line = line.replace(&format!("${{{variable}}}"), value);
        line = line.replace(&format!("${variable}"), value);
    }
    assert!(!line.contains(['$', '%']), "{line}");
    let words = line.strip_prefix("/usr/bin/cepa ").unwrap();
    place.cepa(&words.split(' ').collect::<Vec<_>>())
}

/// Each unit's command is one that starts, and is ready.
#[test]
fn the_units_for_systemd_start() {
    let place = Place::new();
    let manager = UnixDatagram::bind(place.path("notify")).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    std::fs::write(place.path("node.toml"), "listen = [\"tcp:127.0.0.1:0\"]\n").unwrap();
    let _line = common::line::join(
        &place,
        &cepa_transports::testkit::LineSettings::new(300_000.0),
        1,
    );
    let (_, friend) = place.identity("friend.pem");
    let allow = format!("--allow {friend}");
    let serve = format!("tcp:127.0.0.1:0 --service web=tcp:127.0.0.1:8080 {allow}");
    let units: [(&str, &[(&str, &str)]); 3] = [
        ("cepa-serve.service", &[("CEPA_OPTIONS", &serve)]),
        ("cepa-node.service", &[]),
        (
            "cepa-getty@.service",
            &[("CEPA_ALLOW", &allow), ("CEPA_LINE", "baud=115200")],
        ),
    ];
    for (name, variables) in units {
        let mut command = unit(&place, name, variables, &place.text("b"));
        command.env("NOTIFY_SOCKET", place.path("notify"));
        let server = Server::of(&mut command, "listening on ");
        assert_eq!(heard(&manager), "READY=1", "{name}");
        server.signal("TERM");
        assert_eq!(heard(&manager), "STOPPING=1", "{name}");
    }
    // Its socket has the name that the command gives.
    let mut relay = unit(
        &place,
        "cepa-relay.service",
        &[("CEPA_OPTIONS", "--allow any")],
        "",
    );
    let socket = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../dist/systemd/cepa-relay.socket"
    );
    let socket = std::fs::read_to_string(socket).unwrap();
    assert!(socket.contains("FileDescriptorName=peers\n"));
    let line = common::failed(&relay.output().unwrap(), 2);
    assert!(line.contains("none is named peers"), "{line}");
}
