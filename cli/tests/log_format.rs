//! What `-v`, `RUST_LOG` and `--log-format json` show, where the time stands, and what no log ever has in it.

mod common;

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use cepa_transports::text::is_printable;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;

use common::desk::Desk;
use common::proxy::Proxy;
use common::{PATIENCE, Place, Server, finish, is_time, stands_for, text, unstamped};

const PAYLOAD: &str = "payload-that-no-log-has";

/// Lines of the library, which a plain run has none of.
const VERBOSE: [&str; 5] = [
    "cepa::dial: dialling",
    "cepa::session: handshake",
    "cepa::session: session up",
    "cepa::session: session down",
    "cepa::substream: service",
];

fn server(place: &Place, words: &[&str]) -> Server {
    // Made at the first time.
    let id = text(&place.run(&["id", "show"]).stdout);
    let id = id.trim();
    let serve = ["tcp:127.0.0.1:0", "--service", "up=echo:", "--allow", id];
    place.serve(&[&serve, words].concat())
}

/// What both ends said about one request.
fn request(place: &Place, mut server: Server, words: &[&str]) -> [String; 2] {
    let address = server.address();
    let connect = ["connect", &address, "up", "--trust", "any"];
    let output = place.run_with(&[&connect, words].concat(), PAYLOAD.as_bytes());
    let ours = text(&output.stderr);
    assert!(output.status.success(), "{ours}");
    assert_eq!(text(&output.stdout), PAYLOAD);
    server.wait_for("ended");
    server.signal("TERM");
    let (code, theirs) = server.finish();
    assert_eq!(code, Some(0), "{theirs}");
    [ours, theirs]
}

#[test]
fn a_verbose_run_shows_dials_handshakes_sessions_and_services() {
    let place = Place::new();
    let [ours, theirs] = request(&place, server(&place, &["-v"]), &["-v"]);
    for what in VERBOSE {
        assert!(ours.contains(what), "{what} in {ours}");
        // A server dials nobody.
        let there = theirs.contains(what);
        assert_eq!(there, !what.contains("dial"), "{what} in {theirs}");
    }
    for line in ours.lines().filter(|line| line.contains("cepa::")) {
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(
            is_time(time) && rest.contains("DEBUG") | rest.contains("INFO"),
            "{line}"
        );
    }
    let substream = "substream ends";
    assert!(!ours.contains(substream), "{ours}");
    // More of it, before the command; and of a plain run nothing, where all is well.
    let words = ["-vv", "connect", "tcp:127.0.0.1:1", "--trust", "any"];
    let output = place.run(&words);
    assert_eq!(output.status.code(), Some(5));
    let failed = text(&output.stderr);
    assert!(
        failed.contains("the dial failed address=tcp:127.0.0.1:1"),
        "{failed}"
    );
    let last = failed.lines().last().unwrap();
    assert!(last.starts_with("cepa: "), "{failed}");
    let [ours, _] = request(&place, server(&place, &[]), &["-vv"]);
    assert!(ours.contains(substream), "{ours}");
    let [ours, theirs] = request(&place, server(&place, &[]), &[]);
    for said in [ours, theirs] {
        assert!(
            !said.contains("cepa::") && !said.contains("DEBUG"),
            "{said}"
        );
    }
}

#[test]
fn the_environment_chooses_what_is_shown() {
    let place = Place::new();
    let server = server(&place, &[]);
    let run = |filter: &str| {
        let words = ["connect", &server.address(), "up", "--trust", "any"];
        let child = place.cepa(&words).env("RUST_LOG", filter).spawn();
        finish(child.unwrap())
    };
    let output = run("cepa::dial=debug");
    let said = text(&output.stderr);
    assert!(
        said.contains("cepa::dial: dialling") && !said.contains("cepa::session"),
        "{said}"
    );
    assert!(!text(&run("off").stderr).contains("cepa::"));
    assert!(!text(&run("").stderr).contains("cepa::"));
    let line = common::failed(&run("cepa=loud"), 2);
    assert!(
        line.contains("RUST_LOG") && line.contains("cepa=debug"),
        "{line}"
    );
}

/// The objects of these lines.
fn objects(said: &str) -> Vec<Value> {
    said.lines()
        .map(|line| {
            assert!(line.chars().all(is_printable), "{line:?}");
            let object: Value =
                serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
            assert!(is_time(object["time"].as_str().unwrap()), "{line}");
            let level = object["level"].as_str().unwrap();
            assert!(
                ["TRACE", "DEBUG", "INFO", "WARN", "ERROR"].contains(&level),
                "{line}"
            );
            let message = object["message"].as_str().unwrap();
            assert!(
                !message.is_empty() && message.chars().all(is_printable),
                "{line}"
            );
            object
        })
        .collect()
}

/// The first of them whose message begins so.
#[track_caller]
fn object<'a>(all: &'a [Value], begin: &str) -> &'a Value {
    let is = |it: &&Value| it["message"].as_str().unwrap().starts_with(begin);
    all.iter()
        .find(is)
        .unwrap_or_else(|| panic!("no {begin:?} in {all:#?}"))
}

#[test]
fn each_line_is_one_json_object_with_its_fields() {
    let place = Place::new();
    let (_, id) = place.identity("config/identity.pem");
    let words = [
        "--log-format",
        "json",
        "serve",
        "tcp:127.0.0.1:0",
        "--allow",
        &id,
        "--service",
        "up=echo:",
        "--service",
        "says=exec:sh -c 'printf \"\\033[2Jred\\n\" >&2; exit 3'",
    ];
    let mut server = Server::start_at(&place, &words, "listening on ");
    let up = objects(&server.seen()[0]).remove(0);
    let address = up["address"].as_str().unwrap().to_owned();
    // A banner that would clear the screen, a service that is not there, a command that fails.
    let mut stream = TcpStream::connect(address.strip_prefix("tcp:").unwrap()).unwrap();
    stream.write_all(b"\x1b[2J\xc2\x9bSSH\r\n").unwrap();
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.read_to_end(&mut Vec::new());
    for (service, code) in [("none", 7), ("says", 3)] {
        let words = [
            "connect",
            &address,
            service,
            "--trust",
            "any",
            "--log-format=json",
            "-v",
        ];
        let output = place.run(&words);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        if service == "none" {
            let all = objects(&said);
            assert_eq!(object(&all, "dialling")["address"], address.as_str());
            assert_eq!(object(&all, "session up")["peer"], id.as_str());
            let error = object(&all, "cepa: ");
            assert_eq!(error["level"], "ERROR");
            assert_eq!(error["exit_code"], 7);
        }
    }
    server.wait_for("exited with status 3");
    server.signal("TERM");
    let (code, said) = server.finish();
    assert_eq!(code, Some(0), "{said}");
    let all = objects(&said);
    let session = object(&all, "session with ");
    assert_eq!(
        (&session["peer"], &session["level"]),
        (&id.as_str().into(), &"INFO".into())
    );
    assert!(
        session["address"]
            .as_str()
            .unwrap()
            .starts_with("tcp 127.0.0.1:")
    );
    let refused = object(&all, "refused ");
    assert_eq!(
        (&refused["service"], &refused["peer"]),
        (&"none".into(), &id.as_str().into())
    );
    assert_eq!(object(&all, "service says ")["service"], "says");
    let command = object(&all, "[says] ");
    assert_eq!(
        (&command["command"], &command["peer"]),
        (&"says".into(), &id.as_str().into())
    );
    assert!(command["message"].as_str().unwrap().contains("red"));
    let nonsense = object(&all, "tcp 127.0.0.1:");
    assert_eq!(nonsense["source"], "tcp 127.0.0.1");
    assert!(!said.contains('\u{1b}') && !said.contains('\u{9b}'));
}

/// A line without what is another each time: ids, times, hosts, ports and other numbers.
fn shape(line: &str) -> String {
    let cut = |c: char| " \"=,{}".contains(c);
    let one = |part: &str| {
        let word = part.trim_end_matches(cut);
        let end = &part[word.len()..];
        let is_id = word.len() == 52 && word.chars().all(|c| c.is_ascii_alphanumeric());
        let port = word
            .rsplit_once(':')
            .filter(|(_, port)| port.parse::<u16>().is_ok());
        let word = match port {
            _ if is_id || word == "7v5…" => "ID".to_owned(),
            _ if is_time(word) => "TIME".to_owned(),
            _ if word.parse::<f64>().is_ok() => "N".to_owned(),
            Some((host, _)) if host.starts_with("tcp:") => "tcp:HOST:PORT".to_owned(),
            Some(_) => "HOST:PORT".to_owned(),
            None => word.to_owned(),
        };
        word + end
    };
    line.trim().split_inclusive(cut).map(one).collect()
}

/// What is printed is what the page shows.
#[test]
fn the_examples_of_the_page_are_what_is_printed() {
    let place = Place::new();
    let mut printed = Vec::new();
    for form in [&[][..], &["--log-format", "json"]] {
        let id = text(&place.run(&["id", "show"]).stdout);
        let service = ["--service", "up=exec:cat", "--allow", "any"];
        let words = [&["serve", "tcp:127.0.0.1:0"], &service[..], form].concat();
        let mut command = place.cepa(&words);
        let mut server = Killed(command.spawn().unwrap());
        let mut log = BufReader::new(server.0.stderr.take().unwrap()).lines();
        let up = log.next().unwrap().unwrap();
        let at = up
            .split([' ', '"'])
            .find(|word| word.starts_with("tcp:"))
            .unwrap();
        for at in [at, "tcp:127.0.0.1:1"] {
            let words = ["-v", "connect", at, "up", "--expect", id.trim()];
            printed.push(text(&place.run(&words).stderr));
        }
        let session = log.find(|line| line.as_ref().unwrap().contains("session with "));
        printed.push(session.unwrap().unwrap());
    }
    let mut shapes = HashSet::new();
    for line in printed.iter().flat_map(|lines| lines.lines()) {
        shapes.insert(shape(line));
        shapes.insert(shape(unstamped(line)));
    }
    let page = include_str!("../../docs/WATCHING.md");
    // What stands in a fence is something else than lines of a log.
    let outside = page.split("\n```").step_by(2).flat_map(str::lines);
    let examples = outside.filter_map(|line| line.strip_prefix("    "));
    let mut seen = 0;
    for line in examples.filter(|line| !line.starts_with("$ ")) {
        assert!(shapes.contains(&shape(line)), "{line}: {shapes:#?}");
        seen += 1;
    }
    assert!(seen > 9, "{seen}");
}

/// A forward has one peer, and its lines say which.
#[test]
fn the_lines_of_a_forward_name_its_peer() {
    let place = Place::new();
    let server = server(&place, &[]);
    let id = server.id();
    let proxy = Proxy::to(&server.address());
    let at = proxy.address();
    let words = [
        "--log-format",
        "json",
        "forward",
        &at,
        "-L",
        "tcp:127.0.0.1:0=up",
        "--trust",
        "any",
    ];
    let mut forward = Server::start_at(&place, &words, "listening on ");
    proxy.cut();
    forward.wait_for(" is back after ");
    server.signal("KILL");
    proxy.down();
    forward.wait_for("reconnecting");
    forward.signal("TERM");
    let (code, said) = forward.finish();
    assert_eq!(code, Some(0), "{said}");
    let all = objects(&said);
    assert!(all.len() >= 5, "{said}");
    for line in all {
        assert_eq!(line["peer"], id.as_str(), "{line}");
    }
}

/// A console's lines are the tool's own, at a raw terminal too.
#[test]
fn the_lines_of_a_console_are_objects() {
    let place = Place::new();
    let service = "sh=exec:env PS1=ready= sh -i,pty=yes";
    let words = ["tcp:127.0.0.1:0", "--allow", "any", "--service", service];
    let server = place.serve(&words);
    let proxy = Proxy::to(&server.address());
    let at = proxy.address();
    let words = ["--log-format", "json", "console", &at, "sh"];
    let words = [&words[..], &["--trust", "any", "--attach", "work"]].concat();
    let path = place.path("said");
    let file = File::create(&path).unwrap();
    let mut desk = Desk::with(&place, &words, (33, 101), |command| {
        command.stderr(file);
    });
    desk.until("ready=");
    proxy.down();
    let said = || std::fs::read_to_string(&path).unwrap();
    let start = Instant::now();
    while !said().contains("reconnecting") {
        assert!(start.elapsed() < PATIENCE, "{}", said());
        std::thread::sleep(Duration::from_millis(5));
    }
    proxy.up();
    desk.type_in("exit 3\r");
    assert_eq!(desk.leave().0, Some(3));
    let all = objects(&said());
    for begin in ["connected to sh", "a new console", "connection to "] {
        assert_eq!(object(&all, begin)["peer"], server.id(), "{begin}");
    }
    assert_eq!(object(&all, "a new console")["service"], "sh");
    let last = object(&all, "the command exited with status 3");
    assert_eq!(
        (&last["exit_code"], &last["service"]),
        (&3.into(), &"sh".into())
    );
}

/// A node knows its peer by id, and dials it again by itself.
#[test]
fn dials_that_take_a_session_up_again_are_shown() {
    let place = Place::new();
    let (key, _) = place.identity("client.pem");
    let words = ["-v", "serve", "tcp:127.0.0.1:0", "--allow", "any"];
    let words = [&words[..], &["--service", "up=echo:"]].concat();
    let mut server = Server::start_at(&place, &words, "listening on ");
    let proxy = Proxy::to(&server.address());
    let at = format!("cepa://{}@{}", server.id(), proxy.address());
    let local = ["-L", "tcp:127.0.0.1:0=up", "--identity", &key];
    let words = [&["-v", "forward", &at], &local[..]].concat();
    let mut forward = Server::start_at(&place, &words, "listening on ");
    proxy.down();
    forward.wait_for("lost; reconnecting");
    forward.wait_for("cepa::dial: the dial failed");
    proxy.up();
    forward.wait_for("cepa::dial: dialling");
    forward.wait_for(" is back after ");
    // No handshake has failed.
    server.wait_for("cepa::session: a session goes on over this connection");
    server.signal("TERM");
    let said = server.finish().1;
    assert!(!said.contains("the handshake failed"), "{said}");
    // What a line of the server says, no other says again.
    assert!(!said.contains(" cepa::node: "), "{said}");
}

#[test]
fn what_is_wrong_with_the_words_is_an_object_too() {
    let place = Place::new();
    for words in [
        &["--log-format", "json", "frobnicate"][..],
        &["connect", "--log-format=json", "tcp:"],
    ] {
        let output = place.run(words);
        assert_eq!(output.status.code(), Some(2));
        let all = objects(&text(&output.stderr));
        assert_eq!((all.len(), &all[0]["exit_code"]), (1, &2.into()));
    }
    let line = place.fails(&["ports", "--log-format", "xml"], 2);
    assert!(
        line.contains("--log-format") && line.contains("json"),
        "{line}"
    );
}

/// The bound on lines about one peer counts objects as it counts lines.
#[test]
fn a_flood_is_counted_in_json_as_well() {
    const ALL: u64 = 60;
    let place = Place::new();
    let begun = Instant::now();
    let words = [
        "serve",
        "tcp:127.0.0.1:0",
        "--allow",
        "any",
        "--log-format",
        "json",
    ];
    let server = Server::start_at(&place, &words, "listening on ");
    let up = objects(server.seen().last().unwrap()).remove(0);
    let to = up["address"]
        .as_str()
        .unwrap()
        .strip_prefix("tcp:")
        .unwrap();
    for _ in 0..ALL {
        let mut stream = TcpStream::connect(to).unwrap();
        let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n");
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    server.signal("TERM");
    let (_, said) = server.finish();
    let all = objects(&said);
    let about: Vec<&str> = all
        .iter()
        .filter(|it| it["source"] == "tcp 127.0.0.1")
        .map(|it| it["message"].as_str().unwrap())
        .collect();
    let reported: u64 = about.iter().map(|it| stands_for(it, "tcp 127.0.0.1")).sum();
    // The signal may come before what is said of the last one.
    assert!((ALL - 1..=ALL).contains(&reported), "{reported}: {said}");
    let most = 10 * (begun.elapsed().as_secs() + 1) + 1;
    assert!(
        about.len() as u64 <= most,
        "{} lines, {most} at most",
        about.len()
    );
}

/// A server whose standard error is this, until it has said that a session ended.
fn served(place: &Place, words: &[&str], stderr: Stdio, mut log: impl Read) -> String {
    let child = place.cepa(words).stderr(stderr).spawn().unwrap();
    let server = Killed(child);
    let mut said = String::new();
    let start = Instant::now();
    let mut asked = false;
    let mut bytes = [0; 4096];
    while !said.contains(" ended") {
        assert!(start.elapsed() < PATIENCE, "{said}");
        let n = log.read(&mut bytes).unwrap();
        assert!(n > 0, "it ended: {said}");
        said.push_str(&text(&bytes[..n]));
        let up = said.lines().find(|line| line.starts_with("listening on "));
        if let (false, Some(up), true) = (asked, up, said.contains('\n')) {
            asked = true;
            let address = up.split(' ').nth(2).unwrap();
            let output = place.run(&["connect", address, "up", "--trust", "any"]);
            assert!(output.status.success(), "{}", text(&output.stderr));
        }
    }
    drop(server);
    said
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// In front of a server's lines in a file, and nowhere else: not at a terminal, not where scripts look.
#[test]
fn the_time_stands_in_a_servers_log_but_not_at_a_terminal() {
    let place = Place::new();
    let (_, id) = place.identity("config/identity.pem");
    let words = [
        "serve",
        "tcp:127.0.0.1:0",
        "--service",
        "up=echo:",
        "--allow",
        &id,
    ];
    let (reader, writer) = std::io::pipe().unwrap();
    let said = served(&place, &words, writer.into(), reader);
    assert!(said.contains("session with"), "{said}");
    for line in said.lines() {
        let bare = line.starts_with("listening on ");
        assert_eq!(unstamped(line) == line, bare, "{line}");
    }
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let slave: OwnedFd = File::options()
        .read(true)
        .write(true)
        .open(name.to_str().unwrap())
        .unwrap()
        .into();
    let verbose = [&words[..], &["-v"]].concat();
    let said = served(&place, &verbose, slave.into(), File::from(master));
    assert!(
        said.contains("session with") && said.contains("cepa::session: "),
        "{said}"
    );
    for line in said.lines() {
        assert_eq!(unstamped(line), line);
    }
    // A command that ends says its lines as ever; so does a server whose one session is its standard input and output.
    let output = place.run(&["id", "new", "--identity", &place.text("new.pem")]);
    assert!(text(&output.stderr).starts_with("created "), "{output:?}");
    let output = place.run(&["serve", "stdio:", "--allow", "any"]);
    let said = text(&output.stderr);
    assert!(
        said.contains("no service") && said.lines().all(|line| unstamped(line) == line),
        "{said}"
    );
}

/// With all that can be shown, at both ends of what has secrets.
#[test]
fn no_log_has_a_key_a_payload_or_an_invitation_code_in_it() {
    let place = Place::new();
    let mut said = Vec::new();
    let [ours, theirs] = request(&place, server(&place, &["-vv"]), &["-vv"]);
    said.extend([ours, theirs]);
    // An invitation, with keys of its own for who joins.
    let (joiner, _) = place.identity("joiner.pem");
    let (_, inviter) = place.identity("inviter.pem");
    let file = place.text("inviter.pem");
    let words = ["-vv", "invite", "tcp:127.0.0.1:0", "--identity", &file];
    let mut child = place.cepa(&words).spawn().unwrap();
    let mut code = String::new();
    let mut stdout = child.stdout.take().unwrap();
    while !code.ends_with('\n') {
        let mut byte = [0];
        stdout.read_exact(&mut byte).unwrap();
        code.push(char::from(byte[0]));
    }
    let code = code.trim();
    let output = place.run(&[
        "-vv",
        "join",
        code,
        "--identity",
        &joiner,
        "--log-format",
        "json",
    ]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    objects(&text(&output.stderr));
    said.push(text(&output.stderr));
    said.push(text(&finish(child).stderr));
    let mut secrets = vec![PAYLOAD.to_owned(), code.to_owned()];
    secrets.push(code[code.len() - 20..].to_owned());
    for pem in ["config/identity.pem", "joiner.pem", "inviter.pem"] {
        let pem = std::fs::read_to_string(place.path(pem)).unwrap();
        let (_, key) = pem.split_once("PRIVATE KEY-----").unwrap();
        let (key, _) = key.split_once("-----END").unwrap();
        secrets.extend(key.split_whitespace().map(str::to_owned));
    }
    for said in &said {
        assert!(
            said.contains("TRACE") && said.contains("session up"),
            "{said}"
        );
        for secret in &secrets {
            assert!(
                secret.len() >= 8 && !said.contains(secret),
                "{secret} in {said}"
            );
        }
    }
    assert!(said.iter().any(|said| said.contains(&inviter)));
}
