//! `ws:` and `proxy=` from the command line: the work, and everything that can be wrong on the way: exit code, one line, nothing on
//! standard output. The proxies here are scripts; real ones are in `ways.rs`.

mod common;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;

use common::proxy::Proxy;
use common::{Place, Server, noise, text};

fn serve(place: &Place, at: &str) -> Server {
    place.serve(&[at, "--service", "up=exec:sha256sum", "--allow", "any"])
}

/// The sum of "hello" by way of an address.
fn works(place: &Place, own: &str, address: &str, id: &str) {
    let mut words = vec!["connect", address, "up", "--identity", own];
    if !address.starts_with("cepa://") {
        words.extend(["--expect", id]);
    }
    let output = place.run_with(&words, b"hello");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), common::sha256(b"hello"));
}

#[test]
fn a_service_is_reached_at_its_path() {
    let place = Place::new();
    let server = serve(&place, "ws:127.0.0.1:0/cepa");
    let (at, id) = (server.address(), server.id());
    let (own, _) = place.identity("client");
    assert!(
        at.starts_with("ws:127.0.0.1:") && at.ends_with("/cepa"),
        "{at}"
    );
    works(&place, &own, &at, &id);
    works(&place, &own, &format!("mux+tls+{at}"), &id);
    // As a hint of a peer.
    let hint = at.replace("/cepa", "%2Fcepa");
    works(&place, &own, &format!("cepa://{id}@{hint}"), &id);
    let line = place.fails_quietly(
        &[
            "connect",
            &at.replace("/cepa", "/other"),
            "up",
            "--expect",
            &id,
        ],
        5,
    );
    assert!(line.contains("answered 404 Not Found"), "{line}");
    let tcp = at.replace("ws:", "tcp:").replace("/cepa", "");
    let output = place.run(&["connect", &tcp, "up", "--expect", &id]);
    assert!(matches!(output.status.code(), Some(5 | 6)), "{output:?}");
}

#[test]
fn a_browser_gets_a_page() {
    let place = Place::new();
    let mut server = serve(&place, "ws:127.0.0.1:0/cepa");
    let at = server.address();
    let at = at.trim_start_matches("ws:").trim_end_matches("/cepa");
    let asked = |path: &str| {
        let mut browser = TcpStream::connect(at).unwrap();
        write!(browser, "GET {path} HTTP/1.1\r\nHost: {at}\r\n\r\n").unwrap();
        let mut page = String::new();
        browser.read_to_string(&mut page).unwrap();
        page
    };
    let page = asked("/");
    assert!(page.starts_with("HTTP/1.1 404 Not Found\r\n"), "{page}");
    let line = server.wait_for("ws 127.0.0.1:");
    assert!(line.contains("no WebSocket was asked for"), "{line}");
    let page = asked("/cepa");
    assert!(page.contains("This is cepa"), "{page}");
}

/// A proxy that reads one head and answers so.
fn proxy(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let _ = lines.map_while(Result::ok).find(String::is_empty);
            let _ = stream.write_all(answer);
        }
    });
    at.to_string()
}

#[test]
fn each_refusal_of_a_proxy_is_one_line() {
    let place = Place::new();
    for (answer, code, words) in [
        (
            &b"HTTP/1.1 403 Forbidden\r\n\r\n"[..],
            5,
            "its rules forbid this connection",
        ),
        (
            b"HTTP/1.1 407 Who\r\n\r\n",
            5,
            "it refuses the user or the password",
        ),
        (
            b"HTTP/1.1 502 Bad\r\n\r\n",
            5,
            "it does not reach the target",
        ),
        (b"HTTP/1.1 504 Slow\r\n\r\n", 5, "did not answer it in time"),
        (b"220 mail.example\r\n\r\n", 2, "no HTTP message"),
        (b"", 6, "without an answer"),
    ] {
        let proxy = proxy(answer);
        let at = format!("tcp:far.example:7000,proxy=http://me:sesame@{proxy}");
        let line = place.fails_quietly(&["connect", &at, "up", "--trust", "any"], code);
        assert!(line.contains(words), "{line}");
        assert!(
            line.contains(&format!("the proxy http://me:***@{proxy}: ")),
            "{line}"
        );
        assert!(!line.contains("sesame"), "{line}");
    }
    let closed = common_closed_port();
    let at = format!("ws:far.example:80/,proxy=socks5h://127.0.0.1:{closed}");
    let line = place.fails_quietly(&["connect", &at, "up", "--trust", "any"], 5);
    assert!(
        line.contains("connection refused; is it running?"),
        "{line}"
    );
}

fn common_closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[test]
fn secrets_are_not_shown() {
    let place = Place::new();
    let at = "wss:far.example:443/a,proxy=http://me:sesame@p:1,header=Cookie:sesame";
    let shown = place.succeeds(&["explain", at]);
    assert!(shown.contains("http://me:***@p:1"), "{shown}");
    assert!(!shown.contains("sesame"), "{shown}");
    let wrong = "tcp:far.example,proxy=http://me:sesame@p:1";
    let line = place.fails(&["connect", wrong, "up"], 2);
    assert!(!line.contains("sesame"), "{line}");
    let output = place.run(&[
        "-vv",
        "connect",
        "tcp:a:1,proxy=http://me:sesame@127.0.0.1:1",
        "up",
    ]);
    assert!(!text(&output.stderr).contains("sesame"), "{output:?}");
}

/// A proxy that connects wherever it is asked to, and tells where that was.
fn honest_proxy() -> (String, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let (asked, all) = std::sync::mpsc::channel();
    thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte).unwrap_or(0) == 1 {
                head.extend(byte);
            }
            let head = text(&head);
            let to = head.split(' ').nth(1).unwrap().to_owned();
            // A name that only the proxy knows.
            let real = to.replace("inside.example", "127.0.0.1");
            let mut server = TcpStream::connect(&real).unwrap();
            let _ = asked.send(to);
            client.write_all(b"HTTP/1.1 200 Fine\r\n\r\n").unwrap();
            let (mut back, mut front) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut back, &mut front));
            thread::spawn(move || std::io::copy(&mut client, &mut server));
        }
    });
    (at.to_string(), all)
}

#[test]
fn the_environment_and_the_configuration_name_a_proxy_where_that_is_wanted() {
    let place = Place::new();
    let (plain, web) = (
        serve(&place, "tcp:127.0.0.1:0"),
        serve(&place, "ws:127.0.0.1:0/x"),
    );
    let (proxy, asked) = honest_proxy();
    let (own, _) = place.identity("client");
    let connect = |words: &[&str], at: &str, id: &str, environment: &[(&str, &str)]| {
        let at = at.replace("127.0.0.1", "inside.example");
        let hint = format!("cepa://{id}@{}", at.replace('/', "%2F"));
        let mut command = place.cepa(words);
        command.args(["connect", &hint, "up", "--identity", &own]);
        for name in ["ALL_PROXY", "HTTPS_PROXY", "NO_PROXY"] {
            command.env_remove(name).env_remove(name.to_lowercase());
        }
        command.envs(environment.iter().copied());
        common::finish(command.spawn().unwrap())
    };
    let url = format!("http://me:sesame@{proxy}");
    let through = |words: &[&str], server: &Server, environment: &[(&str, &str)]| {
        let output = connect(words, &server.address(), &server.id(), environment);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let to = asked.recv_timeout(common::PATIENCE).unwrap();
        assert!(to.starts_with("inside.example:"), "{to}");
    };
    through(&["--proxy", "env"], &plain, &[("ALL_PROXY", &url)]);
    through(&["--proxy", "env"], &web, &[("https_proxy", &proxy)]);
    through(&["--proxy", &url], &plain, &[]);
    // What is not wanted is not done; the name is known to nobody else.
    for (words, environment) in [
        (&[][..], &[("ALL_PROXY", &*url)][..]),
        (&["--proxy", "none"], &[("ALL_PROXY", &url)]),
        (
            &["--proxy", "env"],
            &[("ALL_PROXY", &url), ("NO_PROXY", ".example")],
        ),
        (&["--proxy", "env"], &[]),
    ] {
        let output = connect(words, &plain.address(), &plain.id(), environment);
        common::failed(&output, 5);
    }
    let output = connect(
        &["--proxy", "env"],
        &plain.address(),
        &plain.id(),
        &[("ALL_PROXY", "ftp://me:sesame@x")],
    );
    let line = common::failed(&output, 2);
    assert!(
        line.contains("ALL_PROXY: expected a proxy") && !line.contains("sesame"),
        "{line}"
    );
    let output = connect(&["--proxy", "yes"], &plain.address(), &plain.id(), &[]);
    assert!(common::failed(&output, 2).contains("expected env, none or a proxy"));
    // By the configuration, which the command line overrules.
    let file = place.path("config/config.toml");
    std::fs::write(&file, "proxy = \"env\"\n").unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    through(&[], &plain, &[("ALL_PROXY", &url)]);
    let output = connect(
        &["--proxy", "none"],
        &plain.address(),
        &plain.id(),
        &[("ALL_PROXY", &url)],
    );
    common::failed(&output, 5);
    // One that is wrong lets nothing past the proxy that it may have meant.
    std::fs::write(&file, "proxy = \"maybe\"\n").unwrap();
    let output = connect(&[], &plain.address(), &plain.id(), &[("ALL_PROXY", &url)]);
    common::failed(&output, 2);
    let line = place.fails(&["config", "check"], 2);
    assert!(
        line.contains("config.toml:1: proxy: expected env"),
        "{line}"
    );
    assert!(asked.try_recv().is_err());
}

/// A session goes on over the next WebSocket, byte for byte.
#[test]
fn a_session_outlives_its_websocket() {
    let place = Place::new();
    let words = [
        "ws:127.0.0.1:0/cepa",
        "--service",
        "e=echo:",
        "--allow",
        "any",
    ];
    let mut server = place.serve(&words);
    let at = server.address();
    let front = Proxy::to(&at.replace("ws:", "tcp:").replace("/cepa", ""));
    let dialled = format!("{}/cepa", front.address().replace("tcp:", "ws:"));
    let mut command = place.cepa(&[
        "connect",
        &dialled,
        "e",
        "--durable",
        "--expect",
        &server.id(),
    ]);
    let mut client = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
    let (mut input, mut output) = (client.stdin.take().unwrap(), client.stdout.take().unwrap());
    // There is a session to keep.
    input.write_all(b"x").unwrap();
    output.read_exact(&mut [0]).unwrap();
    let data = noise(640 << 10);
    for chunk in data.chunks(64 << 10) {
        let (one, other) = chunk.split_at(chunk.len() / 2);
        input.write_all(one).unwrap();
        front.cut();
        input.write_all(other).unwrap();
        let mut back = vec![0; chunk.len()];
        if output.read_exact(&mut back).is_err() {
            let ended = common::finish(client);
            panic!("{:?}: {}", ended.status, text(&ended.stderr));
        }
        assert!(back == chunk);
    }
    drop(input);
    let mut rest = Vec::new();
    output.read_to_end(&mut rest).unwrap();
    let ended = common::finish(client);
    assert_eq!(ended.status.code(), Some(0), "{}", text(&ended.stderr));
    assert!(rest.is_empty());
    server.wait_for("goes on");
}
