//! `--metrics`: numbers for Prometheus, over HTTP, of each command that runs for long.
#![allow(clippy::float_cmp)] // counts

mod common;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Instant;

use common::{PATIENCE, Place, Server, text};

/// Where the metrics of a command are that said so: HOST:PORT.
#[track_caller]
fn metrics_at(server: &Server) -> String {
    let line = server
        .seen()
        .iter()
        .find(|it| it.starts_with("metrics at http://"));
    let at = line.unwrap_or_else(|| panic!("{:#?}", server.seen()));
    let at = at.strip_prefix("metrics at http://").unwrap();
    at.strip_suffix("/metrics").unwrap().to_owned()
}

/// What is answered to a request.
fn ask(at: &str, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    text(&answer)
}

/// Each sample by its name and labels; and that each has its head, once, and its form.
#[track_caller]
fn scrape(at: &str) -> BTreeMap<String, f64> {
    let answer = ask(at, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let (head, page) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(
        head.contains("Content-Type: text/plain; version=0.0.4"),
        "{head}"
    );
    assert!(page.ends_with('\n'));
    let (mut samples, mut kinds, mut now) = (BTreeMap::new(), BTreeMap::new(), String::new());
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').unwrap();
            assert!(!text.is_empty(), "{line}");
            name.clone_into(&mut now);
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, now, "{line}");
            assert!(
                kinds.insert(now.clone(), kind.to_owned()).is_none(),
                "{line}"
            );
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
        } else {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let bare = name.split('{').next().unwrap();
            let fits = match kinds[&now].as_str() {
                "summary" => {
                    [format!("{now}_sum"), format!("{now}_count")].contains(&bare.to_owned())
                }
                _ => bare == now,
            };
            assert!(fits, "{line} below {now}");
            let value = value.parse().unwrap();
            assert!(samples.insert(name.to_owned(), value).is_none(), "{line}");
        }
    }
    samples
}

#[track_caller]
fn scrape_until(at: &str, is: impl Fn(&BTreeMap<String, f64>) -> bool) -> BTreeMap<String, f64> {
    let start = Instant::now();
    loop {
        let samples = scrape(at);
        if is(&samples) {
            return samples;
        }
        assert!(start.elapsed() < PATIENCE, "{samples:#?}");
    }
}

#[test]
fn a_server_counts_sessions_streams_bytes_and_what_failed() {
    let place = Place::new();
    let words = ["tcp:127.0.0.1:0", "--allow", "any", "--service", "up=echo:"];
    let server = place.serve(&[&words[..], &["--metrics", ":0"]].concat());
    let at = metrics_at(&server);
    assert!(
        at.starts_with("127.0.0.1:"),
        "a port alone is this machine's: {at}"
    );
    let port = at.rsplit_once(':').unwrap().1;
    let first = scrape(&at);
    assert_eq!(first["cepa_sessions"], 0.0);
    assert_eq!(
        first["cepa_handshakes_total{side=\"server\",outcome=\"failed\"}"],
        0.0
    );
    assert_eq!(first["cepa_shares_used{resource=\"sessions\"}"], 0.0);
    assert!(first["cepa_shares_limit{resource=\"sessions\"}"] > 0.0);
    let version = env!("CARGO_PKG_VERSION");
    let build = format!("cepa_build_info{{version=\"{version}\",command=\"serve\"}}");
    assert_eq!(first[&build], 1.0);
    assert!(first["process_start_time_seconds"] > 1.7e9);

    let (address, id) = (server.address(), server.id());
    let mut child = place
        .cepa(&["connect", &address, "up", "--expect", &id])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.as_mut().unwrap().write_all(b"hello").unwrap();
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut [0; 5])
        .unwrap();
    let open = scrape_until(&at, |it| it["cepa_sessions"] == 1.0);
    assert_eq!(open["cepa_sessions_total{side=\"server\"}"], 1.0);
    assert_eq!(
        open["cepa_handshakes_total{side=\"server\",outcome=\"ok\"}"],
        1.0
    );
    assert_eq!(open["cepa_requests_total{outcome=\"accepted\"}"], 1.0);
    assert_eq!(open["cepa_shares_used{resource=\"substreams\"}"], 1.0);
    assert!(open["cepa_sent_bytes_total"] > 5.0 && open["cepa_received_bytes_total"] > 5.0);
    assert_eq!(open["cepa_handshake_seconds_count{side=\"server\"}"], 1.0);
    drop(child.stdin.take());
    assert!(common::finish(child).status.success());

    // No TLS.
    let mut stream = TcpStream::connect(address.strip_prefix("tcp:").unwrap()).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let _ = stream.read_to_end(&mut Vec::new());
    scrape_until(&at, |it| {
        it["cepa_handshakes_total{side=\"server\",outcome=\"failed\"}"] == 1.0
            && it["cepa_sessions"] == 0.0
    });

    // In the other family, too, where this machine has it.
    if let Ok(stream) = TcpStream::connect(format!("[::1]:{port}")) {
        drop(stream);
        scrape(&format!("[::1]:{port}"));
    }
    // The address is taken.
    let line = place.fails(&[&["serve"], &words[..], &["--metrics", &at]].concat(), 8);
    assert!(
        line.contains("in use") || line.contains("already"),
        "{line}"
    );
}

#[test]
fn only_the_one_page_is_served_and_nobody_is_held_up() {
    let place = Place::new();
    let words = ["tcp:127.0.0.1:0", "--allow", "any", "--metrics", "0"];
    let mut server = place.serve(&words);
    let at = metrics_at(&server);
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "404"),
        (
            "POST /metrics HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi",
            "405",
        ),
        ("nonsense\r\n\r\n", "400"),
    ] {
        let answer = ask(&at, request.as_bytes());
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
    }
    let long = format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(40_000));
    let answer = ask(&at, long.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    // Who says nothing is left behind in its time, however many they are.
    let idle: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(&at).unwrap()).collect();
    scrape(&at);
    drop(idle);
    // One that leaves at once costs nothing.
    for _ in 0..40 {
        drop(TcpStream::connect(&at).unwrap());
    }
    scrape(&at);
    assert!(server.is_running());
}

#[test]
fn an_address_that_is_open_to_others_is_taken_with_a_warning() {
    let place = Place::new();
    let words = [
        "tcp:127.0.0.1:0",
        "--allow",
        "any",
        "--metrics",
        "0.0.0.0:0",
    ];
    let mut server = place.serve(&words);
    let has = |server: &Server| {
        server
            .seen()
            .iter()
            .any(|it| it.contains("can read the metrics"))
    };
    if !has(&server) {
        server.wait_for("can read the metrics");
    }
    let at = metrics_at(&server);
    scrape(&at.replace("0.0.0.0", "127.0.0.1"));
    place.fails_quietly(&["serve", "tcp:127.0.0.1:0", "--metrics", "exec:true"], 2);
}

#[test]
fn a_relay_a_node_and_a_forward_have_them_too() {
    let place = Place::new();
    let (relay_file, _) = place.identity("relay.pem");
    let words = [
        "relay",
        "tcp:127.0.0.1:0",
        "--identity",
        &relay_file,
        "--allow",
        "any",
    ];
    let words = [&words[..], &["--carry", "--metrics", "0"]].concat();
    let relay = Server::start_at(&place, &words, "relaying on ");
    let line = relay.seen().iter().find(|line| line.contains("cepa://"));
    let at = line.unwrap().split(' ').next_back().unwrap().to_owned();

    place.identity("node.pem");
    let config = format!(
        "identity = \"node.pem\"\nmetrics = \"0\"\nregister = [\"{at}\"]\n\
         [services.up]\nto = \"echo:\"\nallow = [\"any\"]\n"
    );
    std::fs::write(place.path("node.toml"), config).unwrap();
    let file = place.text("node.toml");
    let node = Server::start_at(&place, &["node", "--config", &file], "reachable at ");
    let line = node.seen().last().unwrap();
    let to = line.split(' ').next_back().unwrap().to_owned();
    let words = ["forward", &to, "-L", "tcp:127.0.0.1:0=up", "--metrics", "0"];
    let mut forward = Server::start(&place, &words);
    if !forward
        .seen()
        .iter()
        .any(|it| it.starts_with("metrics at "))
    {
        forward.wait_for("metrics at ");
    }
    let local = forward.address();
    let mut open = TcpStream::connect(local.strip_prefix("tcp:").unwrap()).unwrap();
    open.write_all(b"hello").unwrap();
    open.read_exact(&mut [0; 5]).unwrap();

    let of_relay = scrape(&metrics_at(&relay));
    assert_eq!(of_relay["cepa_relay_circuits"], 1.0);
    assert_eq!(of_relay["cepa_relay_registrations"], 1.0);
    assert_eq!(of_relay["cepa_relay_carried_total"], 1.0);
    assert!(of_relay["cepa_relay_bytes_total"] > 0.0);
    assert_eq!(of_relay["cepa_carrier_messages"], 0.0);
    let of_node = scrape(&metrics_at(&node));
    // A circuit, what there is, and `up`.
    assert!(of_node["cepa_requests_total{outcome=\"accepted\"}"] >= 2.0);
    assert!(!of_node.contains_key("cepa_relay_circuits"));
    let of_forward = scrape(&metrics_at(&forward));
    assert_eq!(of_forward["cepa_sessions"], 2.0);
    assert_eq!(of_forward["cepa_parked_sessions"], 0.0);
    drop(open);

    // A scraper of its own reads it as well.
    let curl = Command::new("curl")
        .args(["-sS", "--noproxy", "*"])
        .arg(format!("http://{}/metrics", metrics_at(&node)))
        .output();
    match curl {
        Ok(output) => {
            assert!(output.status.success(), "{}", text(&output.stderr));
            assert!(text(&output.stdout).contains("\ncepa_sessions "));
        }
        Err(_) => println!("SKIPPED: no curl"),
    }
}
