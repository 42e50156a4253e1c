//! Two commands to a friend: `cepa share`, and what the ticket is good for on another machine, which has nothing set up.

mod common;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, ChildStdout, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use common::desk::Desk;
use common::{PATIENCE, Place, Server, asked, failed, finish, text};

/// A relay for anybody; the process, and its address.
fn relay(place: &Place) -> (Server, String) {
    let words = ["relay", "tcp:127.0.0.1:0", "--allow", "any"];
    let relay = Server::start_at(place, &words, "relaying on ");
    let line = relay.seen().last().unwrap();
    let address = line.split(' ').find(|word| word.starts_with("cepa://"));
    let address = address.unwrap().trim_end_matches([',', ';']).to_owned();
    (relay, address)
}

/// A running `cepa share`, killed when dropped.
struct Share {
    child: Child,
    ticket: String,
    stdout: BufReader<ChildStdout>,
    lines: Receiver<String>,
}

impl Share {
    #[track_caller]
    fn start(place: &Place, words: &[&str]) -> Self {
        let words = [&["share"], words].concat();
        let mut child = place.cepa(&words).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(common::unstamped(&line).to_owned()).is_err() {
                    return;
                }
            }
        });
        let mut ticket = String::new();
        stdout.read_line(&mut ticket).unwrap();
        let ticket = ticket.trim_end().to_owned();
        assert!(ticket.starts_with("ticket:"), "{ticket:?}");
        Self {
            child,
            ticket,
            stdout,
            lines,
        }
    }

    /// The next line on standard error with this in it, and all before.
    #[track_caller]
    fn wait_for(&self, what: &str) -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|e| panic!("no line {what:?} ({e}) in {seen:#?}"));
            let found = line.contains(what);
            seen.push(line);
            if found {
                return seen;
            }
        }
    }

    /// Asked to end; how it ended, and what else was on standard output.
    fn end(mut self) -> (Option<i32>, String) {
        assert!(common::signal(&self.child.id().to_string(), "INT"));
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Answers each connection with what it got first, in capitals.
fn web() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut got = [0; 64];
                let n = stream.read(&mut got).unwrap_or(0);
                let _ = stream.write_all(&got[..n].to_ascii_uppercase());
            });
        }
    });
    port
}

/// Starts a forward with this ticket; the process, and its first port.
#[track_caller]
fn forward(place: &Place, ticket: &str, local: &str) -> (Server, u16) {
    let server = Server::start(place, &["forward", ticket, "-L", local]);
    let address = server.address();
    let port = address.rsplit(':').next().unwrap().parse().unwrap();
    (server, port)
}

#[test]
fn two_commands_reach_a_friend_through_a_relay_with_no_port_and_no_setup() {
    let (host, ann, bob, eve) = (Place::new(), Place::new(), Place::new(), Place::new());
    let (_relay, at) = relay(&host);
    let web = format!("web=tcp:127.0.0.1:{}", web());
    let share = Share::start(&ann, &[&web, "--relay", &at]);
    assert!(share.ticket.len() < 160, "{}", share.ticket.len());
    let told = share.wait_for("Ctrl-C");
    let command = told.iter().find(|line| line.starts_with("cepa forward "));
    // Whole on a terminal only: what is written elsewhere is a log.
    assert!(command.unwrap().contains(" TICKET -L "), "{told:#?}");
    for line in &told {
        assert!(!line.contains(&share.ticket), "{told:#?}");
        // What tells of the identity and of the relay has ids in it.
        let has_id = line.split([' ', ',']).any(|word| word.len() >= 40);
        assert!(line.chars().count() <= 80 || has_id, "{line}");
    }

    // Bob has nothing, not even an identity, and is not asked anything.
    let output = bob.run_with(&["connect", &share.ticket], b"hello");
    assert_eq!(text(&output.stdout), "HELLO", "{}", text(&output.stderr));
    share.wait_for("uses the ticket");
    let (server, port) = forward(&bob, &share.ticket, "0");
    assert_eq!(asked(port, "one"), "ONE");
    assert_eq!(asked(port, "two"), "TWO");
    drop(server);
    let (_server, port) = forward(&bob, &share.ticket, "0=web");
    assert_eq!(asked(port, "three"), "THREE");

    // It is bob's now, and nobody else's; the sharer reads who came.
    eve.succeeds(&["id", "show"]);
    let line = eve.fails(&["connect", &share.ticket], 7);
    assert!(
        line.contains("another peer has used this ticket first"),
        "{line}"
    );
    share.wait_for("did not get in by the ticket: another peer");
    let ticket = share.ticket.clone();
    let (status, rest) = share.end();
    assert_eq!((status, rest.as_str()), (Some(0), ""));
    // Once the sharer has left, that is said as well as it can be.
    let line = bob.fails(&["connect", &ticket], 5);
    assert!(line.contains("sharing has ended"), "{line}");
}

#[test]
fn of_several_services_the_friend_names_one_and_nothing_else_opens() {
    let (ann, bob) = (Place::new(), Place::new());
    bob.succeeds(&["id", "show"]);
    let web = format!("web=tcp:127.0.0.1:{}", web());
    let fails = "fails=exec:sh -c 'echo of the command >&2; exit 3'";
    let words = [&web, fails, "up=echo:", "--listen", "tcp:127.0.0.1:0"];
    let share = Share::start(&ann, &words);
    let line = bob.fails(&["connect", &share.ticket], 2);
    assert!(line.ends_with("name one of them: web, fails, up"), "{line}");
    let line = bob.fails(&["connect", &share.ticket, "down"], 7);
    assert!(
        line.ends_with("not for down, but for: web, fails, up"),
        "{line}"
    );
    let line = bob.fails(&["forward", &share.ticket, "-L", "0"], 2);
    assert!(line.ends_with("name one of them: web, fails, up"), "{line}");
    let line = bob.fails(&["forward", &share.ticket, "-L", "0=down"], 7);
    assert!(line.contains("not for down"), "{line}");
    let output = bob.run_with(&["connect", &share.ticket, "up"], b"up");
    assert_eq!(text(&output.stdout), "up", "{}", text(&output.stderr));
    // A command's exit status and standard error arrive.
    let output = bob.run(&["connect", &share.ticket, "fails"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("of the command"));
    let (_server, port) = forward(&bob, &share.ticket, "0=web");
    assert_eq!(asked(port, "x"), "X");

    // Bob's id alone opens nothing: the ticket has to be shown.
    let explained = bob.succeeds(&["explain", &share.ticket]);
    let id = explained.split_whitespace().find(|word| word.len() == 52);
    let told = share.wait_for("Ctrl-C");
    let at = told.iter().find(|line| line.starts_with("listening on "));
    let at = at.unwrap().split(' ').nth(2).unwrap();
    let address = format!("cepa://{}@{at}/up", id.unwrap());
    let line = bob.fails(&["connect", &address], 7);
    assert!(line.contains("has not shown its ticket"), "{line}");
}

#[test]
fn who_shares_looks_at_who_uses_the_ticket() {
    let (ann, bob) = (Place::new(), Place::new());
    let bob_id = bob.succeeds(&["id", "show"]);
    let control = ann.text("share.sock");
    let share = Share::start(
        &ann,
        &[
            "up=echo:",
            "--listen",
            "tcp:127.0.0.1:0",
            "--control",
            &control,
            "--metrics",
            "0",
        ],
    );
    let look = || -> serde_json::Value {
        let json = ann.succeeds(&["status", "--control", &control, "--json"]);
        assert!(!json.contains(&share.ticket));
        serde_json::from_str(&json).unwrap()
    };
    let before = look();
    assert_eq!(before["command"], "share");
    assert_eq!(before["services"], serde_json::json!(["up"]));
    let mut bobs = bob
        .cepa(&["connect", &share.ticket, "up"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    bobs.stdin.as_mut().unwrap().write_all(b"x").unwrap();
    bobs.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    assert_eq!(look()["sessions"][0]["peer"], bob_id.trim());
    drop(bobs.stdin.take());
    assert!(finish(bobs).status.success());
    let told = share
        .wait_for("metrics at http://127.0.0.1:")
        .pop()
        .unwrap();
    let at = told.strip_prefix("metrics at http://").unwrap();
    let mut page = TcpStream::connect(at.strip_suffix("/metrics").unwrap()).unwrap();
    page.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    page.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("\ncepa_sessions_total"), "{answer}");
    assert_eq!(share.end().0, Some(0));
    assert!(!std::path::Path::new(&control).exists());
}

#[test]
fn uses_and_time_run_out_and_ones_own_ticket_is_recognised_each_in_its_own_words() {
    let (ann, bob) = (Place::new(), Place::new());
    bob.succeeds(&["id", "show"]);
    let here = ["up=echo:", "--listen", "tcp:127.0.0.1:0"];
    let share = Share::start(&ann, &[&here[..], &["--uses", "1"]].concat());
    let line = ann.fails(&["connect", &share.ticket], 2);
    assert!(line.contains("this ticket is your own"), "{line}");
    let output = bob.run_with(&["connect", &share.ticket], b"once");
    assert_eq!(text(&output.stdout), "once", "{}", text(&output.stderr));
    let line = bob.fails(&["connect", &share.ticket], 7);
    assert!(line.contains("used up"), "{line}");
    drop(share);

    // Whoever used it goes on, and opens nothing more; the sharer ends behind that.
    let mut share = Share::start(&ann, &[&here[..], &["--for", "15s"]].concat());
    let (server, port) = forward(&bob, &share.ticket, "0");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut echoed = |what: &[u8; 2]| {
        stream.write_all(what).unwrap();
        let mut got = [0; 2];
        stream.read_exact(&mut got).unwrap();
        assert_eq!(&got, what);
    };
    echoed(b"ab");
    share.wait_for("the ticket has expired");
    echoed(b"cd");
    let line = bob.fails(&["connect", &share.ticket], 7);
    assert!(line.contains("the ticket has expired"), "{line}");
    let mut late = TcpStream::connect(("127.0.0.1", port)).unwrap();
    late.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(matches!(late.read(&mut [0; 1]), Ok(0) | Err(_)));
    drop(stream);
    let ended = share.child.wait().unwrap();
    assert_eq!(ended.code(), Some(0));
    drop(server);

    // Nobody came.
    let words = [&["share"], &here[..], &["--for", "1s"]].concat();
    let output = finish(ann.cepa(&words).stdout(Stdio::piped()).spawn().unwrap());
    assert_eq!(output.status.code(), Some(6));
    assert!(text(&output.stderr).contains("nobody used it"));
    let words = [&["share"], &here[..], &["--until", "2001-01-01T00:00:00Z"]].concat();
    assert!(ann.fails(&words, 2).contains("that time is over"));
    let words = [&["share"], &here[..], &["--until", "noon"]].concat();
    assert!(ann.fails(&words, 2).contains("date -Is"));
}

#[test]
fn what_one_shares_at_a_relay_does_not_take_the_callers_of_what_one_has_there() {
    let (host, ann, bob, eve) = (Place::new(), Place::new(), Place::new(), Place::new());
    let (_relay, at) = relay(&host);
    bob.succeeds(&["id", "show"]);
    eve.succeeds(&["id", "show"]);
    let own = ann.succeeds(&["id", "show"]);
    let words_of_server = [
        "serve",
        "--register",
        &at,
        "--service",
        "up=echo:",
        "--allow",
        "any",
    ];
    let server = Server::start_at(&ann, &words_of_server, "reachable at ");
    let served = format!("cepa://{}@relay:{}", own.trim(), &at["cepa://".len()..]);
    let first = Share::start(&ann, &["up=echo:", "--relay", &at]);
    let second = Share::start(&ann, &["other=echo:", "--relay", &at]);
    for to in [
        [&served, "up"],
        [&first.ticket, "up"],
        [&second.ticket, "other"],
    ] {
        let output = bob.run_with(&["connect", to[0], to[1]], b"x");
        assert_eq!(text(&output.stdout), "x", "{}", text(&output.stderr));
    }
    second.wait_for("an id of its own");
    // Who says which identity is to be used reads why not.
    let file = ann.text("config/identity.pem");
    let words = ["share", "up=echo:", "--relay", &at, "--identity", &file];
    let line = ann.fails(&words, 8);
    assert!(line.contains("give another --identity"), "{line}");
    // Two commands may well use it, if that is their users' wish: it is taken until both have ended.
    let later = Server::start_at(&ann, &words_of_server, "reachable at ");
    drop((server, first, second));
    let line = ann.fails(&words, 8);
    assert!(line.contains("give another --identity"), "{line}");
    drop(later);
    let third = Share::start(&ann, &["up=echo:", "--relay", &at]);
    let explained = eve.succeeds(&["explain", &third.ticket]);
    assert!(explained.contains(own.trim()), "{explained}");
}

#[test]
fn only_a_service_that_was_opened_is_a_use_of_the_ticket() {
    let (ann, bob) = (Place::new(), Place::new());
    bob.succeeds(&["id", "show"]);
    let words = [
        "up=echo:",
        "shut=tcp:127.0.0.1:1",
        "--listen",
        "tcp:127.0.0.1:0",
    ];
    let share = Share::start(&ann, &[&words[..], &["--uses", "1"]].concat());
    let ticket = &share.ticket;
    // To look, to mistype, and to find nobody behind a service is none.
    for _ in 0..2 {
        bob.succeeds(&["ping", ticket, "--count", "1"]);
        bob.succeeds(&["services", ticket]);
        bob.fails(&["connect", ticket, "ub"], 7);
        bob.fails(&["connect", ticket, "shut"], 7);
    }
    // A forward that has no connection yet has used nothing, and all its connections are one use.
    let (server, port) = forward(&bob, ticket, "0=up");
    for what in ["one", "two"] {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(what.as_bytes()).unwrap();
        let mut got = [0; 3];
        stream.read_exact(&mut got).unwrap();
        assert_eq!(&got, what.as_bytes());
    }
    for words in [&["connect", ticket, "up"][..], &["services", ticket]] {
        let line = bob.fails(words, 7);
        assert!(line.contains("used up"), "{line}");
    }
    drop(server);
}

#[test]
fn a_ticket_never_leads_to_a_wildcard_and_a_slip_in_it_is_noticed() {
    let (ann, bob) = (Place::new(), Place::new());
    bob.succeeds(&["id", "show"]);
    let share = Share::start(&ann, &["up=echo:", "--listen", "tcp:0.0.0.0:0"]);
    let explained = bob.succeeds(&["explain", &share.ticket]);
    assert!(!explained.contains("0.0.0.0"), "{explained}");
    let output = bob.run_with(&["connect", &share.ticket], b"x");
    assert_eq!(text(&output.stdout), "x", "{}", text(&output.stderr));
    let cut = &share.ticket[..share.ticket.len() - 1];
    let line = bob.fails(&["connect", cut], 2);
    assert!(line.contains("not a complete ticket"), "{line}");
    // A name of one's own choice stands in it as it is.
    let words = [
        "up=echo:",
        "--listen",
        "tcp:0.0.0.0:0",
        "--public",
        "ann.example",
    ];
    let share = Share::start(&ann, &words);
    let explained = bob.succeeds(&["explain", &share.ticket]);
    assert!(explained.contains("ann.example"), "{explained}");

    // No way to get here is said at once; the default relay is one.
    ann.succeeds(&["id", "show"]);
    let line = failed(&ann.run(&["share", "up=echo:"]), 2);
    assert!(
        line.contains("--relay") && line.contains("config.toml"),
        "{line}"
    );
}

#[test]
fn the_default_relay_is_the_one_that_is_shared_over() {
    let (host, ann, bob) = (Place::new(), Place::new(), Place::new());
    let (_relay, at) = relay(&host);
    ann.succeeds(&["id", "show"]);
    let file = ann.path("config/config.toml");
    std::fs::write(&file, format!("relay = \"{at}\"\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let share = Share::start(&ann, &["up=echo:"]);
    let output = bob.run_with(&["connect", &share.ticket], b"x");
    assert_eq!(text(&output.stdout), "x", "{}", text(&output.stderr));
}

#[test]
fn on_a_terminal_the_whole_command_is_there_to_paste() {
    let place = Place::new();
    let words = ["share", "echo=echo:", "--listen", "tcp:127.0.0.1:0"];
    let mut desk = Desk::sit_down(&place, &words, (24, 200));
    desk.until("cepa connect ticket:");
    desk.until("Ctrl-C here ends it\r\n");
    desk.type_in("\x03");
    let (code, seen) = desk.leave();
    assert_eq!(code, Some(0), "{seen}");
}

#[test]
fn a_folder_is_shared_and_its_files_go_both_ways() {
    let (host, ann, bob) = (Place::new(), Place::new(), Place::new());
    let (_relay, at) = relay(&host);
    std::fs::create_dir(ann.path("docs")).unwrap();
    std::fs::write(ann.path("docs/a.txt"), "from ann").unwrap();
    let folder = format!("docs=files:{}", ann.text("docs"));
    let share = Share::start(&ann, &[&folder, "--relay", &at]);
    let ticket = &share.ticket;
    bob.succeeds(&["id", "show"]);
    let cp = |words: &[&str]| {
        let mut command = bob.cepa(&[&["cp"], words].concat());
        let output = finish(command.current_dir(bob.dir.path()).spawn().unwrap());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{words:?}: {said}");
    };
    cp(&[&format!("{ticket}:docs/a.txt"), "."]);
    let got = std::fs::read_to_string(bob.path("a.txt")).unwrap();
    assert_eq!(got, "from ann");
    std::fs::write(bob.path("b.txt"), "from bob").unwrap();
    // The only service needs no name.
    cp(&["b.txt", &format!("{ticket}:/")]);
    cp(&["b.txt", &format!("{ticket}:docs/c.txt")]);
    for name in ["docs/b.txt", "docs/c.txt"] {
        let got = std::fs::read_to_string(ann.path(name)).unwrap();
        assert_eq!(got, "from bob");
    }
    std::fs::create_dir(bob.path("all")).unwrap();
    cp(&[&format!("{ticket}:docs/."), "all"]);
    assert!(bob.path("all/a.txt").exists() && bob.path("all/c.txt").exists());
    let line = bob.fails(&["cp", &format!("{ticket}/docs/a.txt"), "."], 2);
    assert!(line.contains("behind a colon"), "{line}");
    let line = bob.fails(&["cp", &format!("{ticket}:other/a.txt"), "."], 7);
    assert!(
        line.contains("the ticket is not for other, but for: docs"),
        "{line}"
    );
}

#[test]
fn files_go_by_a_short_code_too() {
    let (host, ann, bob) = (Place::new(), Place::new(), Place::new());
    let (_relay, at) = relay(&host);
    std::fs::create_dir(ann.path("docs")).unwrap();
    std::fs::write(ann.path("docs/a.txt"), "from ann").unwrap();
    let folder = format!("docs=files:{}", ann.text("docs"));
    let words = ["share", &folder, "--relay", &at, "--code"];
    let mut share = Server::start_at(&ann, &words, &format!("cepa cp --relay {at} CODE:/ ."));
    share.wait_for("Ctrl-C");
    let code = share.output_line();
    let to = bob.text("a.txt");
    let from = format!("{}:docs/a.txt", code.trim_end());
    let output = bob.run(&["cp", &from, &to, "--relay", &at]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_eq!(std::fs::read_to_string(to).unwrap(), "from ann");
    // What looks like a code and is none is a file of this machine.
    std::fs::write(bob.path("2026-11-30:x"), "").unwrap();
    let line = bob.fails(&["cp", &bob.text("2026-11-30:x"), &bob.text("y")], 2);
    assert!(line.contains("both sides are on this machine"), "{line}");
}

#[test]
fn a_ticket_is_read_from_standard_input_and_what_is_behind_it_is_for_the_service() {
    let (host, ann, bob) = (Place::new(), Place::new(), Place::new());
    let (_relay, at) = relay(&host);
    let share = Share::start(&ann, &["up=exec:cat", "--relay", &at]);
    let input = format!("{}\nfor the service\nand more", share.ticket);
    let output = bob.run_with(&["connect", "-"], input.as_bytes());
    assert_eq!(
        text(&output.stdout),
        "for the service\nand more",
        "{output:?}"
    );
    let file = bob.text("input");
    std::fs::write(&file, &input).unwrap();
    let mut command = bob.cepa(&["connect", "-"]);
    let opened = std::fs::File::open(&file).unwrap();
    let output = finish(command.stdin(Stdio::from(opened)).spawn().unwrap());
    assert_eq!(
        text(&output.stdout),
        "for the service\nand more",
        "{output:?}"
    );
    for (input, why) in [
        ("", "expected an address"),
        ("\n", "expected an address"),
        ("-\n", "expected an address"),
        ("nonsense\n", "expected SCHEME"),
    ] {
        let output = bob.run_with(&["connect", "-"], input.as_bytes());
        let line = failed(&output, 2);
        assert!(line.contains(why), "{input:?}: {line}");
    }
    let long = "x".repeat(9000);
    let line = failed(&bob.run_with(&["connect", "-"], long.as_bytes()), 2);
    assert!(line.contains("too long"), "{line}");
}

#[test]
fn a_console_whose_device_is_not_there_is_no_use_of_the_ticket() {
    let (ann, bob) = (Place::new(), Place::new());
    bob.succeeds(&["id", "show"]);
    let missing = format!("uart=serial:{}", ann.text("none"));
    let words = [
        missing.as_str(),
        "up=echo:",
        "--listen",
        "tcp:127.0.0.1:0",
        "--uses",
        "2",
    ];
    let share = Share::start(&ann, &words);
    let ticket = &share.ticket;
    let console = |more: &[&str]| {
        let words = [&["console", ticket.as_str()], more].concat();
        let mut desk = Desk::sit_down(&bob, &words, (24, 80));
        desk.until("cepa: ");
        desk.leave();
    };
    for _ in 0..2 {
        console(&["uart"]);
        console(&["uart", "--attach", "work"]);
        console(&["uart", "--watch"]);
    }
    // Two that are there are.
    let mut desk = Desk::sit_down(&bob, &["console", ticket, "up"], (24, 80));
    desk.until("connected to up");
    let lines = share.wait_for("uses the ticket; uses left: 1");
    let uses = lines
        .iter()
        .filter(|line| line.contains("uses the ticket; "));
    assert_eq!(uses.count(), 1, "{lines:#?}");
    desk.type_in("\r~.");
    desk.leave();
    let output = bob.run_with(&["connect", ticket, "up"], b"once");
    assert_eq!(text(&output.stdout), "once", "{}", text(&output.stderr));
    let line = bob.fails(&["connect", ticket, "up"], 7);
    assert!(line.contains("used up"), "{line}");
}
