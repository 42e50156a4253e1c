//! Everything that can be wrong at the other end or on the way to it: exit code, one line, nothing
//! on standard output.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

use common::{Place, Server, text};

/// An id that nobody has.
const STRANGER: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn server(place: &Place) -> Server {
    place.serve(&[
        "tcp:127.0.0.1:0",
        "--service",
        "up=exec:sha256sum",
        "--allow",
        "any",
    ])
}

/// Something else than cepa that answers every connection so.
fn impostor(answer: impl Fn(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp:{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            answer(stream);
        }
    });
    address
}

/// Says this, and then waits for the other end to leave.
fn says(words: &'static [u8]) -> impl Fn(TcpStream) + Send + 'static {
    move |mut stream| {
        thread::spawn(move || {
            let _ = stream.write_all(words);
            let _ = stream.read_to_end(&mut Vec::new());
        });
    }
}

#[test]
fn a_wrong_peer_is_3() {
    let place = Place::new();
    let server = server(&place);
    let line = place.fails_quietly(
        &["connect", &server.address(), "up", "--expect", STRANGER],
        3,
    );
    assert!(line.contains(&server.id()), "it tells who it was: {line}");
    let words = [
        "forward",
        &server.address(),
        "-L",
        "tcp:127.0.0.1:0=up",
        "--expect",
        STRANGER,
    ];
    place.fails_quietly(&words, 3);
}

#[test]
fn an_unknown_peer_is_4_and_the_line_has_the_command_that_works() {
    let place = Place::new();
    let server = server(&place);
    let line = place.fails_quietly(&["connect", &server.address(), "up"], 4);
    let command = line.split("run: ").nth(1).unwrap();
    let words: Vec<&str> = command.split(' ').collect();
    assert_eq!(words[0], "cepa");
    assert!(
        words.contains(&"--expect") && words.contains(&server.id().as_str()),
        "{line}"
    );
    let output = place.run(&words[1..]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn an_expired_certificate_is_3_here_and_7_there() {
    let place = Place::new();
    let expired = place.expired_identity("expired.pem");
    let server = place.serve(&[
        "tcp:127.0.0.1:0",
        "--service",
        "up=echo:",
        "--allow",
        "any",
        "--identity",
        &expired,
    ]);
    let line = place.fails_quietly(&["connect", &server.address(), "--trust", "any"], 3);
    assert!(line.contains("renew"), "{line}");
    // Whose very key is named is not locked out, but it is told.
    let words = ["connect", &server.address(), "--expect", &server.id()];
    let output = place.run_with(&words, b"still here");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "still here");
    let stderr = text(&output.stderr);
    assert!(
        stderr.starts_with("warning: ") && stderr.contains("has expired"),
        "{stderr}"
    );
    let good = self::server(&place);
    let words = [
        "connect",
        &good.address(),
        "--trust",
        "any",
        "--identity",
        &expired,
    ];
    let output = place.run(&words);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{stderr}");
    let lines: Vec<&str> = stderr.lines().collect();
    assert!(
        lines.len() == 2 && lines[0].contains("this machine's certificate has expired"),
        "{stderr}"
    );
    assert!(lines[1].starts_with("cepa: "), "{stderr}");
}

#[test]
fn a_peer_that_does_not_allow_us_is_7_and_says_what_to_do_on_both_sides() {
    let place = Place::new();
    let (client, client_id) = place.identity("client.pem");
    for allow in [&[][..], &["--allow", STRANGER]] {
        let mut server =
            place.serve(&[&["tcp:127.0.0.1:0", "--service", "up=echo:"], allow].concat());
        let words = [
            "connect",
            &server.address(),
            "--expect",
            &server.id(),
            "--identity",
            &client,
        ];
        let line = place.fails_quietly(&words, 7);
        assert!(line.contains(&client_id), "{line}");
        let line = server.wait_for("is not allowed");
        assert!(line.contains(&format!("--allow {client_id}")), "{line}");
        assert!(server.is_running());
    }
}

#[test]
fn an_unknown_service_is_7_and_the_line_names_those_there_are() {
    let place = Place::new();
    let server = place.serve(&[
        "tcp:127.0.0.1:0",
        "--allow",
        "any",
        "--service",
        "up=echo:",
        "--service",
        "db=echo:",
    ]);
    let (address, id) = (server.address(), server.id());
    for name in [&["down"][..], &[]] {
        let words = [&["connect", &address, "--expect", &id][..], name].concat();
        let line = place.fails_quietly(&words, 7);
        assert!(line.contains("up") && line.contains("db"), "{line}");
    }
}

#[test]
fn a_service_that_cannot_be_reached_is_7_and_the_server_lives_on() {
    let place = Place::new();
    let gone = format!("gone=unix:{}", place.text("nothing.sock"));
    let mut server = place.serve(&[
        "tcp:127.0.0.1:0",
        "--allow",
        "any",
        "--service",
        &gone,
        "--service",
        "missing=exec:/nonexistent/program",
        "--service",
        "up=echo:",
    ]);
    for name in ["gone", "missing"] {
        let words = ["connect", &server.address(), name, "--expect", &server.id()];
        place.fails_quietly(&words, 7);
        let line = server.wait_for(&format!("service {name} for "));
        assert!(
            line.contains("nothing.sock") || line.contains("/nonexistent/program"),
            "{line}"
        );
    }
    let words = ["connect", &server.address(), "up", "--expect", &server.id()];
    assert_eq!(place.run_with(&words, b"x").stdout, b"x");
}

#[test]
fn nothing_there_is_5() {
    let place = Place::new();
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let line = place.fails_quietly(&["connect", &format!("tcp:{port}"), "--trust", "any"], 5);
    assert!(line.contains(&port.to_string()), "{line}");
    let missing = format!("unix:{}", place.text("no.sock"));
    place.fails_quietly(&["connect", &missing, "--trust", "any"], 5);
    place.fails_quietly(&["connect", "serial:/dev/cepa-none", "--trust", "any"], 5);
    place.fails_quietly(&["serve", "serial:/dev/cepa-none", "--allow", "any"], 8);
    place.fails_quietly(&["serve", "pty:/cepa-none/x", "--allow", "any"], 8);
    place.fails_quietly(
        &["connect", "exec:/nonexistent/program", "--trust", "any"],
        5,
    );
    place.fails_quietly(&["connect", "tcp:cepa.invalid:1", "--trust", "any"], 5);
    place.fails_quietly(&["pipe", &missing, "stdio:"], 5);
}

#[test]
fn a_taken_port_is_8() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp:{}", taken.local_addr().unwrap());
    let line = place.fails_quietly(&["serve", &address, "--allow", "any"], 8);
    assert!(line.contains(&address), "{line}");
    let server = server(&place);
    let local = format!("{address}=up");
    place.fails_quietly(
        &["forward", &server.address(), "-L", &local, "--trust", "any"],
        8,
    );
}

#[test]
fn no_permission_is_8() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    // Without the x bit even root may not execute it.
    let file = place.text("no-program");
    std::fs::write(&file, "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let line = place.fails_quietly(&["connect", &format!("exec:{file}"), "--trust", "any"], 8);
    assert!(line.contains("chmod"), "{line}");
}

#[test]
fn garbage_instead_of_tls_is_5() {
    let place = Place::new();
    let address = impostor(says(&[
        0xff, 0x00, 0x13, 0x37, 0xde, 0xad, 0xbe, 0xef, 0x01, 0x02,
    ]));
    let line = place.fails_quietly(&["connect", &address, "--trust", "any"], 5);
    assert!(line.contains("TLS"), "{line}");
}

#[test]
fn a_banner_before_tls_is_5_and_quoted() {
    let place = Place::new();
    let address = impostor(says(b"Welcome to \x1b[31mexample\x1b[0m!\r\nlogin: "));
    let line = place.fails_quietly(&["connect", &address, "--trust", "any"], 5);
    assert!(line.contains("Welcome to"), "{line}");
    // The same from a subprocess whose login script is talkative.
    let exec = "exec:sh -c 'echo Welcome back; exec cat >/dev/null'";
    let line = place.fails_quietly(&["connect", exec, "--trust", "any"], 5);
    assert!(line.contains("Welcome back"), "{line}");
}

#[test]
fn a_server_survives_garbage_and_says_so() {
    let place = Place::new();
    let mut server = server(&place);
    let address = server.address();
    let address = address.strip_prefix("tcp:").unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let line = server.wait_for("GET / HTTP");
    assert!(!line.chars().any(char::is_control), "{line:?}");
    drop(TcpStream::connect(address).unwrap());
    let words = ["connect", &server.address(), "--expect", &server.id()];
    assert_eq!(place.run_with(&words, b"").status.code(), Some(0));
}

#[test]
fn a_command_that_dies_first_is_5_and_its_last_words_are_reported() {
    let place = Place::new();
    let exec = "exec:sh -c 'echo first >&2; echo no route to mars >&2; exit 255'";
    let output = place.run(&["connect", exec, "--trust", "any"]);
    assert_eq!(output.status.code(), Some(5));
    let stderr = text(&output.stderr);
    let line = stderr.lines().last().unwrap();
    assert!(line.starts_with("cepa: "), "{line}");
    assert!(
        line.contains("no route to mars") && line.contains("255"),
        "{line}"
    );
    assert!(
        stderr.contains("] first"),
        "what it says is shown as it comes: {stderr}"
    );
    assert!(output.stdout.is_empty());
}

#[test]
fn the_end_of_the_stream_anywhere_in_the_handshake_is_6() {
    let place = Place::new();
    let server = server(&place);
    let target = server.address().strip_prefix("tcp:").unwrap().to_owned();
    // What a whole handshake brings from the server, as an upper bound for the cuts.
    let whole = 1200;
    let steps = (0..24).chain((24..whole).step_by(61));
    for cut in steps {
        let target = target.clone();
        let address = impostor(move |stream| cut_after(stream, &target, cut));
        let line = place.fails_quietly(&["connect", &address, "--trust", "any"], 6);
        assert!(
            ["cut", "ended", "lost", "without a word"]
                .iter()
                .any(|word| line.contains(word)),
            "{line}"
        );
        assert!(line.matches("again").count() <= 1, "one advice: {line}");
    }
    // The server has seen all of these break, and is still there.
    let words = ["connect", &server.address(), "--expect", &server.id()];
    assert_eq!(place.run_with(&words, b"").status.code(), Some(0));
}

/// Carries both ways to `target`, but ends after `cut` bytes from there.
fn cut_after(client: TcpStream, target: &str, cut: usize) {
    let server = TcpStream::connect(target).unwrap();
    let (mut from_client, mut to_server) =
        (client.try_clone().unwrap(), server.try_clone().unwrap());
    thread::spawn(move || {
        let _ = std::io::copy(&mut from_client, &mut to_server);
    });
    thread::spawn(move || {
        let (mut from_server, mut to_client) = (server, client);
        let mut some = vec![0; cut];
        if from_server.read_exact(&mut some).is_ok() {
            let _ = to_client.write_all(&some);
        }
        let _ = to_client.shutdown(Shutdown::Write);
        let _ = from_server.shutdown(Shutdown::Both);
    });
}

#[test]
fn an_unknown_scheme_is_2() {
    let place = Place::new();
    let line = place.fails(&["connect", "udp:127.0.0.1:7", "--trust", "any"], 2);
    assert!(line.contains("udp"), "{line}");
}

#[test]
fn a_slip_in_an_option_is_no_service() {
    let place = Place::new();
    for at in [
        "serial:/dev/ttyUSB0,buad=9600",
        "serial:/dev/ttyUSB0,baud=9600,pairty=even",
        "rfc2217:127.0.0.1:9,buad=9600",
        "unix:/run/a.sock,mood=600",
    ] {
        for words in [
            &["connect", at][..],
            &["console", at],
            &["serve", at, "--service", "sh=echo:"],
            &["share", &format!("sh={at}"), "--listen", "tcp:127.0.0.1:0"],
        ] {
            let line = place.fails(words, 2);
            assert!(line.contains("did you mean"), "{line}");
            assert!(!line.contains("separate word"), "{line}");
        }
    }
    // What is a service is still seen as one.
    let line = place.fails(&["connect", "serial:/dev/ttyUSB0,baud=9600/sh"], 2);
    assert!(line.contains("serial:/dev/ttyUSB0,baud=9600 sh"), "{line}");
}

#[test]
fn a_foreign_certificate_is_3_unless_its_key_is_the_expected_one() {
    let place = Place::new();
    let foreign = foreign_identity(&place);
    let server = place.serve(&[
        "tcp:127.0.0.1:0",
        "--service",
        "up=echo:",
        "--allow",
        "any",
        "--identity",
        &foreign,
    ]);
    let address = server.address();
    place.fails_quietly(&["connect", &address, "--expect", STRANGER], 3);
    // Who issued it and for what name says nothing; the key does.
    let output = place.run_with(&["connect", &address, "--expect", &server.id()], b"x");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

/// An identity whose certificate was issued by a CA for some host.
fn foreign_identity(place: &Place) -> String {
    use std::os::unix::fs::OpenOptionsExt;
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["www.example".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let file = place.text("foreign.pem");
    let mut open = std::fs::OpenOptions::new();
    let mut out = open
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&file)
        .unwrap();
    out.write_all((key.serialize_pem() + &certificate.pem()).as_bytes())
        .unwrap();
    file
}

#[test]
fn a_client_that_ends_anywhere_in_its_hello_does_not_hurt_the_server() {
    let place = Place::new();
    let mut server = server(&place);
    let hello = client_hello(&place);
    let address = server.address();
    let address = address.strip_prefix("tcp:").unwrap();
    for cut in (0..hello.len()).step_by(41) {
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(&hello[..cut]).unwrap();
    }
    // And one that goes on with noise where its certificate is due.
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(&hello).unwrap();
    client.write_all(&[0x17, 3, 3, 0, 64]).unwrap();
    client.write_all(&[0x55; 64]).unwrap();
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer);
    assert!(server.is_running());
    let words = ["connect", &server.address(), "--expect", &server.id()];
    assert_eq!(place.run_with(&words, b"").status.code(), Some(0));
}

/// What `cepa connect` says first.
fn client_hello(place: &Place) -> Vec<u8> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let address = impostor(move |mut stream| {
        let mut head = [0; 5];
        stream.read_exact(&mut head).unwrap();
        let mut body = vec![0; usize::from(head[3]) << 8 | usize::from(head[4])];
        stream.read_exact(&mut body).unwrap();
        let _ = sender.send([&head[..], &body].concat());
    });
    place.fails_quietly(&["connect", &address, "--trust", "any"], 6);
    receiver.recv_timeout(common::PATIENCE).unwrap()
}

#[test]
fn streams_that_prove_nothing_are_bounded() {
    let place = Place::new();
    let mut server = server(&place);
    let address = server.address();
    let address = address.strip_prefix("tcp:").unwrap();
    let silent: Vec<TcpStream> = (0..101)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    server.wait_for("too many handshakes at once: another one took its place");
    // They keep nobody out.
    let words = ["connect", &server.address(), "--expect", &server.id()];
    assert_eq!(place.run_with(&words, b"").status.code(), Some(0));
    drop(silent);
    // Who leaves without a word may be a load balancer's probe, and is told of once a minute.
    server.wait_for("closed the connection without a word");
    assert_eq!(place.run_with(&words, b"").status.code(), Some(0));
    let probes = server.seen();
    let probes = probes.iter().filter(|it| it.contains("without a word"));
    assert_eq!(probes.count(), 1);
}

#[test]
fn serving_standard_input_that_brings_no_session_reports_why() {
    let place = Place::new();
    let words = ["serve", "stdio:", "--service", "up=echo:", "--allow", "any"];
    for (input, code, says) in [
        (&b""[..], 6, "without a word"),
        (b"hello?\n", 5, "hello?"),
        (&[0x16, 3, 1, 2, 0, 1], 6, "cut"),
    ] {
        let output = place.run_with(&words, input);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        let last = stderr.lines().last().unwrap();
        assert!(
            last.starts_with("cepa: ") && last.contains(says),
            "{stderr}"
        );
        // Standard output is the transport here: at most an alert of TLS.
        assert!(
            output.stdout.is_empty() || output.stdout[0] == 0x15,
            "{:?}",
            output.stdout
        );
    }
    // Whom `serve stdio:` does not know is told where the command was started.
    let program = common::bin().to_str().unwrap();
    let exec = format!("exec:{program} serve stdio: --service up=echo:");
    let output = place.run(&["connect", &exec, "--trust", "any"]);
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    assert!(
        text(&output.stderr).contains("] cepa: refused"),
        "{}",
        text(&output.stderr)
    );
}
