//! serve, connect, forward and pipe between real processes.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use common::{PATIENCE, Place, Server, bin, finish, noise, sha256, text};

/// A server that lets anyone in, with these services.
fn serve(place: &Place, listen: &str, services: &[&str]) -> Server {
    let mut words = vec![listen, "--allow", "any"];
    for service in services {
        words.extend(["--service", service]);
    }
    place.serve(&words)
}

#[test]
fn a_command_gets_its_input_to_the_end_and_its_output_comes_back() {
    let place = Place::new();
    let server = serve(&place, "tcp:127.0.0.1:0", &["up=exec:sha256sum"]);
    let output = place.run_with(
        &["connect", &server.address(), "up", "--trust", "any"],
        b"x\n",
    );
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), sha256(b"x\n"));
}

#[test]
fn the_peer_can_be_expected_by_its_id_on_both_sides() {
    let place = Place::new();
    let (client, client_id) = place.identity("client.pem");
    let server = place.serve(&[
        "tcp:127.0.0.1:0",
        "--service",
        "up=echo:",
        "--allow",
        &client_id,
        "--identity",
        &place.identity("server.pem").0,
    ]);
    let words = [
        "connect",
        &server.address(),
        "up",
        "--expect",
        &server.id(),
        "--identity",
        &client,
    ];
    let output = place.run_with(&words, b"hello");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "hello");
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn one_listener_has_several_identities() {
    let place = Place::new();
    let (first, first_id) = place.identity("first.pem");
    let (second, second_id) = place.identity("second.pem");
    let (_, stranger) = place.identity("stranger.pem");
    let words = ["--allow", "any", "--service", "up=echo:"];
    let identities = ["--identity", &first, "--identity", &second];
    let link = place.text("line");
    let pty = format!("pty:{link}");
    let listen = ["tcp:127.0.0.1:0", &pty];
    let mut server = place.serve(&[&listen[..], &words, &identities].concat());
    server.wait_for(&format!("also as {second_id}"));
    let exec = format!(
        "exec:{} serve stdio: --allow any --service up=echo: --identity {first} --identity {second}",
        bin().display()
    );
    for address in [server.address(), format!("serial:{link}"), exec] {
        for id in [&first_id, &second_id] {
            let output = place.run_with(&["connect", &address, "up", "--expect", id], b"hello");
            assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
            assert_eq!(text(&output.stdout), "hello");
        }
    }
    let words = ["connect", &server.address(), "up", "--expect", &stranger];
    let line = place.fails_quietly(&words, 3);
    assert!(
        line.contains(&format!("another peer than {stranger} is at this address")),
        "{line}"
    );
    server.wait_for("no identity here has that name");
}

#[test]
fn large_binary_data_goes_both_ways_uncut() {
    let place = Place::new();
    let server = serve(&place, "tcp:127.0.0.1:0", &["echo=exec:cat"]);
    let data = noise(8 * 1024 * 1024);
    let output = place.run_with(
        &["connect", &server.address(), "echo", "--trust", "any"],
        &data,
    );
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(
        output.stdout == data,
        "{} bytes came back of {}",
        output.stdout.len(),
        data.len()
    );
}

#[test]
fn unix_sockets_and_subprocesses_carry_the_same() {
    let place = Place::new();
    let data = noise(1024 * 1024);
    let socket = format!("unix:{}", place.text("socket"));
    let _server = serve(&place, &socket, &["echo=echo:"]);
    let output = place.run_with(&["connect", &socket, "--trust", "any"], &data);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(output.stdout == data);

    let program = bin().to_str().unwrap();
    let exec = format!("exec:{program} serve stdio: --service echo=exec:cat --allow any");
    let output = place.run_with(&["connect", &exec, "echo", "--trust", "any"], &data);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(output.stdout == data);
}

#[test]
fn a_serial_line_carries_the_same() {
    let place = Place::new();
    let line = place.text("line");
    let _server = serve(&place, &format!("pty:{line}"), &["echo=echo:"]);
    let data = noise(256 * 1024);
    for _ in 0..2 {
        let words = [
            "connect",
            &format!("serial:{line},baud=4000000"),
            "echo",
            "--trust",
            "any",
        ];
        let output = place.run_with(&words, &data);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert!(output.stdout == data);
    }
}

#[test]
fn input_may_end_before_output_begins() {
    let place = Place::new();
    // Reads all, and only then writes.
    let server = serve(&place, "tcp:127.0.0.1:0", &["n=exec:wc -c"]);
    let data = noise(3_000_000);
    let output = place.run_with(
        &["connect", &server.address(), "n", "--trust", "any"],
        &data,
    );
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout).trim(), "3000000");
}

#[test]
fn output_may_end_before_input_does() {
    let place = Place::new();
    let kept = place.text("kept");
    // Closes its output at once, and goes on taking input.
    let script = place.text("script");
    std::fs::write(&script, format!("exec 1>&-\nexec cat > {kept}\n")).unwrap();
    let server = serve(
        &place,
        "tcp:127.0.0.1:0",
        &[&format!("sink=exec:sh {script}")],
    );
    let mut child = place
        .cepa(&["connect", &server.address(), "sink", "--trust", "any"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut nothing = Vec::new();
    stdout.read_to_end(&mut nothing).unwrap();
    assert!(nothing.is_empty());
    // Standard output has ended, and input still gets through.
    let data = noise(500_000);
    stdin.write_all(&data).unwrap();
    drop(stdin);
    let output = finish(child);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let start = std::time::Instant::now();
    while std::fs::read(&kept).unwrap_or_default() != data {
        assert!(start.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_command_that_stops_reading_still_gives_its_output() {
    let place = Place::new();
    let server = serve(&place, "tcp:127.0.0.1:0", &["first=exec:head -c 5"]);
    let data = noise(2_000_000);
    let output = place.run_with(
        &["connect", &server.address(), "first", "--trust", "any"],
        &data,
    );
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(output.stdout, data[..5]);
}

#[test]
fn input_for_a_command_that_has_ended_is_no_error() {
    let place = Place::new();
    let server = serve(&place, "tcp:127.0.0.1:0", &["hello=exec:echo hello"]);
    let mut child = place
        .cepa(&["connect", &server.address(), "hello", "--trust", "any"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut said = String::new();
    stdout.read_to_string(&mut said).unwrap();
    assert_eq!(said, "hello\n");
    let feeder = thread::spawn(move || while stdin.write_all(b"more\n").is_ok() {});
    let output = finish(child);
    feeder.join().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn a_command_that_is_killed_is_no_clean_end() {
    let place = Place::new();
    let mut server = serve(
        &place,
        "tcp:127.0.0.1:0",
        &["die=exec:sh -c 'echo partial; kill -9 $$'"],
    );
    let output = place.run(&["connect", &server.address(), "die", "--trust", "any"]);
    assert_eq!(output.status.code(), Some(137), "{}", text(&output.stderr));
    server.wait_for("signal 9");
}

#[test]
fn the_reader_of_standard_output_may_leave_first() {
    let place = Place::new();
    let server = serve(&place, "tcp:127.0.0.1:0", &["yes=exec:yes"]);
    let mut child = place
        .cepa(&["connect", &server.address(), "yes", "--trust", "any"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let stdin = child.stdin.take();
    let mut stdout = child.stdout.take().unwrap();
    let mut some = [0; 4];
    stdout.read_exact(&mut some).unwrap();
    drop(stdout);
    let output = finish(child);
    drop(stdin);
    assert_eq!(&some, b"y\ny\n");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(
        !text(&output.stderr).contains("cepa: "),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn many_clients_are_served_at_once() {
    let place = Place::new();
    let server = serve(&place, "tcp:127.0.0.1:0", &["echo=echo:"]);
    let address = server.address();
    place.run(&["id", "show"]); // the default identity is there before all use it
    thread::scope(|scope| {
        for n in 0..4 {
            let (place, address) = (&place, &address);
            scope.spawn(move || {
                let data = noise(300_000 + n);
                let output = place.run_with(&["connect", address, "--trust", "any"], &data);
                assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
                assert!(output.stdout == data);
            });
        }
    });
}

#[test]
fn services_are_dialled_anew_over_tcp_and_unix() {
    let place = Place::new();
    let socket = place.text("db.sock");
    let database = UnixListener::bind(&socket).unwrap();
    thread::spawn(move || {
        for mut stream in database.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut all = Vec::new();
                stream.read_to_end(&mut all).unwrap();
                all.reverse();
                stream.write_all(&all).unwrap();
            });
        }
    });
    let server = serve(
        &place,
        "tcp:127.0.0.1:0",
        &[&format!("db=unix:{socket}"), "other=echo:"],
    );
    for word in ["abc", "defg"] {
        let words = ["connect", &server.address(), "db", "--trust", "any"];
        let output = place.run_with(&words, word.as_bytes());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout), word.chars().rev().collect::<String>());
    }
}

#[test]
fn forward_carries_local_connections_over_one_session() {
    let place = Place::new();
    let program = bin().to_str().unwrap();
    let exec = format!("exec:{program} serve stdio: --service db=echo: --allow any");
    let local = place.text("local.sock");
    let unix = format!("unix:{local}=db");
    let mut forward = Server::start(
        &place,
        &[
            "forward",
            &exec,
            "-L",
            "tcp:127.0.0.1:0=db",
            "-L",
            &unix,
            "--trust",
            "any",
        ],
    );
    forward.wait_for("listening on unix:");
    let address = forward.address();
    let port = address.strip_prefix("tcp:").unwrap().to_owned();
    thread::scope(|scope| {
        for n in 0..4 {
            let port = &port;
            scope.spawn(move || {
                let data = noise(200_000 + n);
                let stream = TcpStream::connect(port).unwrap();
                assert!(there_and_back(&stream, &stream, &data, |s| s.shutdown(Shutdown::Write)));
            });
        }
    });
    let stream = UnixStream::connect(&local).unwrap();
    assert!(there_and_back(&stream, &stream, b"by unix", |s| s
        .shutdown(Shutdown::Write)));
    forward.signal("TERM");
    let (code, lines) = forward.finish();
    assert_eq!(code, Some(0), "{lines}");
    assert!(
        !std::path::Path::new(&local).exists(),
        "the socket is gone with its listener"
    );
}

/// Sends all, half-closes, and reads all back.
fn there_and_back<S>(
    to: S,
    from: S,
    data: &[u8],
    end: impl FnOnce(&S) -> std::io::Result<()> + Send,
) -> bool
where
    S: Read + Write + Send,
{
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut to = to;
            to.write_all(data).unwrap();
            end(&to).unwrap();
        });
        let mut from = from;
        let mut back = Vec::new();
        from.read_to_end(&mut back).unwrap();
        back == data
    })
}

#[test]
fn forward_ends_with_6_when_its_session_is_lost() {
    let place = Place::new();
    let server = serve(&place, "tcp:127.0.0.1:0", &["db=echo:"]);
    let forward = Server::start(
        &place,
        &[
            "forward",
            &server.address(),
            "-L",
            "tcp:127.0.0.1:0=db",
            "--trust",
            "any",
            "--no-durable",
        ],
    );
    server.signal("KILL");
    let (code, lines) = forward.finish();
    assert_eq!(code, Some(6), "{lines}");
    assert!(
        lines.lines().last().unwrap().starts_with("cepa: "),
        "{lines}"
    );
}

#[test]
fn connect_ends_with_6_when_its_session_is_lost() {
    let place = Place::new();
    let server = serve(&place, "tcp:127.0.0.1:0", &["echo=echo:"]);
    let mut child = place
        .cepa(&["connect", &server.address(), "echo", "--trust", "any"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdin.write_all(b"ping").unwrap();
    let mut pong = [0; 4];
    stdout.read_exact(&mut pong).unwrap();
    server.signal("KILL");
    let output = finish(child);
    drop(stdin);
    assert_eq!(output.status.code(), Some(6), "{}", text(&output.stderr));
    assert_eq!(
        text(&output.stderr).lines().last().unwrap(),
        "cepa: the connection to the peer was cut; the last output may be missing. \
         Connect again, or use --durable or --reconnect"
    );
}

#[test]
fn a_server_ends_in_order_when_asked_to() {
    let place = Place::new();
    for signal in ["TERM", "INT"] {
        let server = serve(&place, "tcp:127.0.0.1:0", &["echo=echo:"]);
        server.signal(signal);
        let (code, lines) = server.finish();
        assert_eq!(code, Some(0), "{lines}");
    }
}

#[test]
fn serving_standard_input_and_output_ends_with_the_session() {
    let place = Place::new();
    // Both directions of `serve stdio:` through two fifos would do too; a pipe of ours is simpler.
    let program = bin().to_str().unwrap();
    let code = place.text("code");
    let script = place.text("script");
    std::fs::write(
        &script,
        format!("{program} serve stdio: --service e=echo: --allow any\necho $? > {code}\n"),
    )
    .unwrap();
    let exec = format!("exec:sh {script}");
    let output = place.run_with(&["connect", &exec, "e", "--trust", "any"], b"once");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "once");
    assert_eq!(std::fs::read_to_string(&code).unwrap().trim(), "0");
}

#[test]
fn serve_says_nothing_on_standard_output() {
    let place = Place::new();
    let mut server = place
        .cepa(&["serve", "tcp:127.0.0.1:0", "--service", "e=echo:"])
        .spawn()
        .unwrap();
    let pid = server.id().to_string();
    // It tells how to allow somebody, which is the last that it says by itself.
    let mut lines = BufReader::new(server.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("--allow")));
    assert!(
        std::process::Command::new("kill")
            .arg(&pid)
            .status()
            .unwrap()
            .success()
    );
    let output = finish(server);
    assert_eq!(text(&output.stdout), "");
}
