//! Peers on the local network: a server or node that announces itself by multicast DNS, and `cepa peer find`. On this machine alone, and
//! (as root, with iproute2) between two network namespaces.

mod common;

use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::programs::skipped;
use common::{PATIENCE, Place, Server, text};
use serde_json::Value;

/// A way to be heard by nobody else.
fn alone() -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    format!("loopback:{}", socket.local_addr().unwrap().port())
}

/// What is heard, as soon as it is as it should be.
#[track_caller]
fn until_heard(place: &Place, at: &str, is_so: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let start = Instant::now();
    loop {
        let words = ["peer", "find", "--for", "0.5", "--mdns", at, "--json"];
        let output = place.run(&words);
        let found: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
        let code = i32::from(found.is_empty());
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
        if is_so(&found) {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "{found:?}");
    }
}

#[test]
fn who_announces_itself_is_found_known_peers_first_until_it_leaves() {
    let place = Place::new();
    let at = alone();
    let (ann, ann_id) = place.identity("ann.pem");
    let (bob, bob_id) = place.identity("bob.pem");
    let announced = format!("--mdns={at}");
    let begin = |key: &str| {
        let words = [
            "tcp:127.0.0.1:0",
            "tcp:127.0.0.1:0",
            &announced,
            "--allow=any",
            "--service=up=echo:",
            "--identity",
            key,
        ];
        place.serve(&words)
    };
    let (first, second) = (begin(&ann), begin(&bob));
    let all = |found: &[Value]| {
        let both = found.len() == 2;
        both && found
            .iter()
            .all(|it| it["addresses"].as_array().unwrap().len() == 2)
    };
    let found = until_heard(&place, &at, all);
    assert!(found.iter().all(|it| it["name"].is_null()), "{found:?}");
    // Whoever is known comes first, and what is printed can be dialled.
    let known = if ann_id < bob_id { &bob_id } else { &ann_id };
    assert!(place.run(&["peer", "add", "zoe", known]).status.success());
    let found = until_heard(&place, &at, all);
    assert_eq!(
        (&found[0]["name"], &found[0]["id"]),
        (&"zoe".into(), &known.as_str().into())
    );
    let to = format!(
        "cepa://{known}@{}",
        found[0]["addresses"][1].as_str().unwrap()
    );
    let output = place.run_with(&["connect", &to, "up"], b"there and back");
    assert_eq!(
        text(&output.stdout),
        "there and back",
        "{}",
        text(&output.stderr)
    );
    let words = ["peer", "find", "--for", "5", "--mdns", &at];
    let output = place.run(&words);
    let lines = text(&output.stdout);
    let lines: Vec<&str> = lines.lines().collect();
    assert!(
        lines[0].starts_with(&format!("zoe {known} tcp:127.0.0.1:")),
        "{lines:?}"
    );
    assert!(lines[1].starts_with("- "), "{lines:?}");
    // One that ends takes its announcement back.
    let (gone, mut stays) = if *known == ann_id {
        (second, first)
    } else {
        (first, second)
    };
    gone.signal("TERM");
    assert_eq!(gone.finish().0, Some(0));
    until_heard(&place, &at, |found| {
        found.len() == 1 && found[0]["name"] == "zoe"
    });
    assert!(stays.is_running());
}

#[test]
fn a_node_announces_itself_where_its_file_says_so() {
    let place = Place::new();
    let at = alone();
    place.identity("node.pem");
    let file = place.text("node.toml");
    let config = |mdns: &str| {
        let listen = "identity = \"node.pem\"\nlisten = [\"tcp:127.0.0.1:0\"]";
        std::fs::write(&file, format!("{listen}\nmdns = \"{mdns}\"\n")).unwrap();
    };
    config(&at);
    let mut node = Server::start(&place, &["node", "--config", &file]);
    let id = node.id();
    let found = until_heard(&place, &at, |found| !found.is_empty());
    assert_eq!(found[0]["id"], id.as_str());
    assert_eq!(found[0]["addresses"][0], node.address().as_str());
    config("loopback:5");
    node.signal("HUP");
    node.wait_for("mdns");
}

#[test]
fn what_makes_no_sense_is_said() {
    let place = Place::new();
    let at = alone();
    let line = place.fails(&["peer", "find", "--for", "0.1", "--mdns", &at], 1);
    assert!(line.contains("nobody was heard in 0.1 s"), "{line}");
    // A script gets its list, and the same exit code.
    let output = place.run(&["peer", "find", "--for", "0.1", "--mdns", &at, "--json"]);
    assert_eq!(
        (output.status.code(), &*text(&output.stdout)),
        (Some(1), "[]\n")
    );
    let output = place.run(&["peer", "find", "--mdns", "net"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("network, loopback or loopback:PORT"));
    let file = place.text("node.toml");
    std::fs::write(&file, "listen = [\"tcp:127.0.0.1:0\"]\nmdns = \"yes\"\n").unwrap();
    let line = place.fails(&["node", "--config", &file, "--check"], 2);
    assert!(
        line.contains("node.toml:2: expected network, loopback"),
        "{line}"
    );
}

/// Two hosts with a cable between them.
struct Hosts(String);

impl Hosts {
    /// None where this user may not.
    fn new() -> Option<Self> {
        let it = Self(format!("cepa-{}", std::process::id()));
        let hosts = it.0.clone();
        let made = ip(&format!("netns add {hosts}a"))
            && ip(&format!("netns add {hosts}b"))
            && ip(&format!(
                "link add v0 netns {hosts}a type veth peer name v0 netns {hosts}b"
            ));
        if !made {
            return None;
        }
        for (host, n) in [("a", 1), ("b", 2)] {
            let on = format!("-n {hosts}{host}");
            assert!(ip(&format!("{on} addr add 10.77.0.{n}/24 dev v0")));
            assert!(ip(&format!("{on} addr add fd77::{n}/64 dev v0 nodad")));
            assert!(ip(&format!("{on} link set lo up")) && ip(&format!("{on} link set v0 up")));
        }
        Some(it)
    }

    /// The tool at one of them.
    fn cepa(&self, place: &Place, host: &str, words: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &format!("{}{host}", self.0)])
            .arg(common::bin())
            .args(words)
            .env("CEPA_CONFIG_DIR", place.path("config"));
        command
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for host in ["a", "b"] {
            ip(&format!("netns del {}{host}", self.0));
        }
    }
}

fn ip(words: &str) -> bool {
    let mut command = Command::new("ip");
    command.args(words.split(' ')).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn two_hosts_on_one_cable_find_each_other_over_both_families() {
    let place = Place::new();
    let Some(hosts) = Hosts::new() else {
        skipped("two hosts take root and iproute2");
        return;
    };
    let (key, id) = place.identity("server.pem");
    let words = [
        "serve",
        "tcp:[::]:7000",
        "tcp:127.0.0.1:7001",
        "--mdns",
        "--allow=any",
        "--service=up=echo:",
        "--identity",
        &key,
    ];
    let log = std::fs::File::create(place.path("log")).unwrap();
    let mut serve = hosts.cepa(&place, "a", &words);
    let _serve = Ended(serve.stderr(log).stdin(Stdio::null()).spawn().unwrap());
    let start = Instant::now();
    let found = loop {
        let output = hosts
            .cepa(&place, "b", &["peer", "find", "--for", "1", "--json"])
            .output()
            .unwrap();
        let found: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
        if let Some(it) = found
            .iter()
            .find(|it| it["addresses"].as_array().unwrap().len() >= 2)
        {
            break it.clone();
        }
        assert!(
            start.elapsed() < PATIENCE,
            "{found:?} {}",
            text(&output.stderr)
        );
        thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(found["id"], id.as_str());
    let at: Vec<&str> = found["addresses"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    for expected in ["tcp:10.77.0.1:7000", "tcp:[fd77::1]:7000"] {
        assert!(at.contains(&expected), "{at:?}");
        let to = format!("cepa://{id}@{expected}");
        let output = hosts
            .cepa(&place, "b", &["ping", &to, "-c", "1"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    }
    let log = std::fs::read_to_string(place.path("log")).unwrap();
    assert!(
        log.contains("--mdns does not announce tcp:127.0.0.1:7001: only this machine can dial it"),
        "{log}"
    );
}
