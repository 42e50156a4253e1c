//! Two machines that come to know each other by a code, and ids in forms that people compare.

mod common;

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, ChildStderr, Stdio};
use std::time::Instant;

use common::{Place, Server, failed, finish, text};

/// A running invitation.
struct Inviter {
    child: Child,
    code: String,
    /// Where it listens, told on standard error.
    address: String,
    stderr: BufReader<ChildStderr>,
}

impl Inviter {
    fn start(place: &Place, more: &[&str]) -> Self {
        Self::start_at(place, "tcp:127.0.0.1:0", more)
    }

    fn start_at(place: &Place, at: &str, more: &[&str]) -> Self {
        let words = [&["invite", at], more].concat();
        let mut child = place.cepa(&words).stderr(Stdio::piped()).spawn().unwrap();
        let mut code = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut code).unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.starts_with("listening on ") {
            line.clear();
            assert_ne!(stderr.read_line(&mut line).unwrap(), 0);
        }
        Self {
            child,
            code: code.trim().to_owned(),
            address: line.split(' ').nth(2).unwrap().to_owned(),
            stderr,
        }
    }

    fn end(mut self) -> (Option<i32>, String) {
        let mut stderr = String::new();
        self.stderr.read_to_string(&mut stderr).unwrap();
        (self.child.wait().unwrap().code(), stderr)
    }
}

fn known(place: &Place) -> String {
    text(&place.run(&["peer", "ls"]).stdout)
}

fn id(place: &Place) -> String {
    text(&place.run(&["id", "show"]).stdout).trim().to_owned()
}

/// Where it is waited for at every address of the machine, the code has those, and never the wildcard.
#[test]
fn a_code_for_every_address_of_the_machine_names_them() {
    let (ann, bob) = (Place::new(), Place::new());
    let inviter = Inviter::start_at(&ann, "tcp:0.0.0.0:0", &[]);
    let explained = bob.succeeds(&["explain", &inviter.code]);
    assert!(!explained.contains("0.0.0.0"), "{explained}");
    let output = bob.run(&["join", &inviter.code]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(!text(&output.stderr).contains("warning"));
    let (status, reported) = inviter.end();
    assert_eq!(status, Some(0), "{reported}");
    assert!(!reported.contains("warning"), "{reported}");

    let inviter = Inviter::start_at(&ann, "tcp:0.0.0.0:0", &["--at", "tcp:127.0.0.1:1"]);
    let at = inviter.address.replace("0.0.0.0", "127.0.0.1");
    let output = bob.run(&["join", &inviter.code, "--at", &at]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    inviter.end();
}

/// A relay for anybody, and its address.
fn relay(place: &Place) -> (Server, String) {
    let words = ["relay", "tcp:127.0.0.1:0", "--allow", "any"];
    let relay = Server::start_at(place, &words, "relaying on ");
    let address = relay.seen().last().unwrap().split(' ').next_back();
    let address = address.unwrap().to_owned();
    (relay, address)
}

/// The code, which stands in no log.
#[track_caller]
fn pasted(server: &mut Server) -> String {
    server.wait_for("cepa join CODE");
    server.output_line()
}

#[test]
fn an_invitation_needs_no_open_port_where_there_is_a_relay() {
    let (host, ann, bob) = (Place::new(), Place::new(), Place::new());
    let (_relay, at) = relay(&host);
    ann.succeeds(&["id", "show"]);
    let words = ["invite", "--relay", &at, "--name", "bob"];
    let mut inviter = Server::start_at(&ann, &words, "waiting at relay ");
    let code = pasted(&mut inviter);
    // One's own is recognised.
    let line = ann.fails(&["join", &code], 2);
    assert!(line.contains("your own"), "{line}");
    let output = bob.run(&["join", &code, "--name", "ann"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let (status, said) = inviter.finish();
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("remembered as bob"), "{said}");
    let next = format!("cepa serve --register {at} --service NAME=ADDR --allow @bob");
    assert!(said.contains(&next), "{said}");
    assert!(known(&bob).contains("at=relay:"), "{}", known(&bob));

    // What is said next works, with the names alone.
    let words = [
        "serve",
        "--register",
        &at,
        "--service",
        "up=echo:",
        "--allow",
        "@bob",
    ];
    let server = Server::start_at(&ann, &words, "reachable at ");
    let output = bob.run_with(&["connect", "@ann", "up"], b"hello");
    assert_eq!(text(&output.stdout), "hello", "{}", text(&output.stderr));
    // The server's callers are not taken by who invites another one meanwhile.
    let line = ann.fails(&["invite", "--relay", &at], 8);
    assert!(line.contains("would lose its callers"), "{line}");
    let output = bob.run_with(&["connect", "@ann", "up"], b"hello");
    assert_eq!(text(&output.stdout), "hello", "{}", text(&output.stderr));
    // Nobody waits for that code any more.
    let line = Place::new().run(&["join", &code]);
    assert_eq!(line.status.code(), Some(7), "{}", text(&line.stderr));

    // Without an address, the default relay is where it is waited for; without one, that is said.
    let line = bob.fails(&["invite"], 2);
    assert!(
        line.contains("--relay") && line.contains("--control"),
        "{line}"
    );
    let file = ann.path("config/config.toml");
    std::fs::write(&file, format!("relay = \"{at}\"\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let line = ann.fails(&["invite"], 8);
    assert!(line.contains("--control"), "{line}");
    drop(server);
    Server::start_at(&ann, &["invite"], "waiting at relay ");
}

#[test]
fn a_running_server_invites_on_its_own_port_and_who_joins_may_open_its_services() {
    let (ann, bob, eve) = (Place::new(), Place::new(), Place::new());
    for place in [&ann, &bob, &eve] {
        id(place);
    }
    let words = ["tcp:0.0.0.0:0", "--service", "up=echo:", "--invite", "bob"];
    let mut server = ann.serve(&words);
    let code = pasted(&mut server);
    let explained = bob.succeeds(&["explain", &code]);
    assert!(!explained.contains("0.0.0.0"), "{explained}");
    let at = server.address().replace("0.0.0.0", "127.0.0.1");
    // Strangers have a session, and open nothing.
    let words = ["connect", &at, "up", "--trust", "any"];
    failed(&eve.run(&words), 7);
    let output = bob.run(&["join", &code, "--name", "ann"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = server.wait_for("has joined");
    assert!(
        said.contains("may open the services; remembered as bob"),
        "{said}"
    );
    assert!(server.wait_for("the next time").contains("--allow @bob"));
    let output = bob.run_with(&["connect", "@ann", "up"], b"hello");
    assert_eq!(text(&output.stdout), "hello", "{}", text(&output.stderr));
    failed(&eve.run(&words), 7);
    let line = failed(&eve.run(&["join", &code]), 7);
    assert!(line.contains("used"), "{line}");

    let line = ann.fails(&["serve", "tcp:127.0.0.1:0", "--invite", "bob"], 2);
    assert!(line.contains("already the name"), "{line}");
}

#[test]
fn a_running_node_invites_when_it_is_asked_at_its_control_socket() {
    let (ann, bob) = (Place::new(), Place::new());
    ann.succeeds(&["id", "new"]);
    id(&bob);
    let control = ann.text("node.sock");
    let file = ann.text("node.toml");
    let settings = format!(
        "control = \"{control}\"\nlisten = [\"tcp:127.0.0.1:0\"]\n\
         [services.up]\nto = \"echo:\"\nallow = [\"known\"]\n"
    );
    std::fs::write(&file, settings).unwrap();
    let mut node = Server::start(&ann, &["node", "--config", &file]);
    // The address alone: nobody knows bob there.
    let words = ["connect", &node.address(), "up", "--trust", "any"];
    failed(&bob.run(&words), 7);
    let invite = ["invite", "--control", &control, "--name", "bob"];
    let mut inviter = Server::start_at(&ann, &invite, "the node invites for 10 minutes");
    let code = pasted(&mut inviter);
    // One at a time.
    let line = failed(&ann.run(&["invite", "--control", &control]), 7);
    assert!(line.contains("invites somebody already"), "{line}");
    let output = bob.run(&["join", &code, "--name", "ann"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let (status, said) = inviter.finish();
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("remembered as bob"), "{said}");
    assert!(said.contains("allow = [\"@bob\"]"), "{said}");
    node.wait_for("has joined; remembered as bob");
    node.signal("HUP");
    node.wait_for("reloaded");
    let output = bob.run_with(&["connect", "@ann", "up"], b"hello");
    assert_eq!(text(&output.stdout), "hello", "{}", text(&output.stderr));
    // The status is had as before.
    let status = ann.succeeds(&["mesh", "status", "--control", &control]);
    assert!(status.contains("listening"), "{status}");

    // Whoever leaves invites nobody any more.
    let mut inviter =
        Server::start_at(&ann, &["invite", "--control", &control], "the node invites");
    let code = pasted(&mut inviter);
    inviter.signal("TERM");
    inviter.finish();
    let eve = Place::new();
    id(&eve);
    let start = Instant::now();
    loop {
        let refused = eve.run(&["join", &code]);
        assert_ne!(refused.status.code(), Some(0));
        if refused.status.code() == Some(7) {
            break;
        }
        assert!(start.elapsed() < common::PATIENCE);
    }
}

#[test]
fn a_code_makes_two_peers_known_to_each_other_once() {
    let (ann, bob, eve) = (Place::new(), Place::new(), Place::new());
    let ids = [&ann, &bob, &eve].map(id);
    let inviter = Inviter::start(&ann, &["--name", "bob"]);
    let code = inviter.code.clone();
    assert!(code.starts_with("cepa-invitation:"), "{code}");
    // A slip in the code, or a secret that somebody made up, lets nobody in.
    let mut typo = code.clone();
    typo.truncate(code.len() - 1);
    failed(&eve.run(&["join", &typo]), 2);
    // By standard input, where nobody sees it in a list of processes.
    let output = bob.run_with(&["join", "-"], format!("{code}\n").as_bytes());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let (status, reported) = inviter.end();
    assert_eq!(status, Some(0), "{reported}");
    assert!(
        reported.contains(&ids[1]) && reported.contains("remembered as bob"),
        "{reported}"
    );
    assert_eq!(reported.matches("has joined").count(), 1, "{reported}");
    assert!(
        reported.contains("--allow @bob"),
        "what to do next: {reported}"
    );
    assert!(
        known(&ann).starts_with(&format!("bob {} first=", ids[1])),
        "{}",
        known(&ann)
    );
    assert!(known(&ann).contains("how=invited"));
    let of_bob = known(&bob);
    assert!(
        of_bob.contains(&ids[0]) && of_bob.contains("how=invited at=tcp:127.0.0.1:"),
        "{of_bob}"
    );

    // Each now serves the other, and nobody else, without an id that was typed.
    let at = of_bob.split("at=").nth(1).unwrap().trim().to_owned();
    let server = ann.serve(&[&at, "--service", "up=echo:", "--allow", "@bob"]);
    let output = bob.run_with(&["connect", &server.address()], b"hello");
    assert_eq!(text(&output.stdout), "hello", "{}", text(&output.stderr));
    let words = ["connect", &server.address(), "--trust", "any"];
    failed(&eve.run(&words), 7);
    drop(server);
    // The code is of no use any more.
    let line = failed(&eve.run(&["join", &code]), 5);
    assert!(
        line.contains("code was used") && line.contains("cepa invite"),
        "{line}"
    );
    assert_eq!(known(&eve), "");
}

#[test]
fn a_code_that_is_used_or_expired_is_said_to_be_so_once_the_inviter_has_left() {
    let (host, ann, bob, eve) = (Place::new(), Place::new(), Place::new(), Place::new());
    let (_relay, at) = relay(&host);
    let mut inviter = Server::start_at(&ann, &["invite", "--relay", &at], "waiting at relay ");
    let code = pasted(&mut inviter);
    bob.succeeds(&["join", &code, "--name", "ann"]);
    assert_eq!(inviter.finish().0, Some(0));
    eve.succeeds(&["id", "show"]);
    let line = eve.fails(&["join", &code], 5);
    assert!(line.contains("the code was used or has expired"), "{line}");
    let line = bob.fails(&["join", &code], 5);
    assert!(
        line.contains("the code was used, but you know this peer already, as ann"),
        "{line}"
    );
    // Its time stands in the code.
    let owner = id(&ann).parse().unwrap();
    let past = cepa::identity::UnixTime::since_unix_epoch(std::time::Duration::from_secs(1));
    let old = cepa::identity::Invitation::new(owner, "tcp:127.0.0.1:1", past).unwrap();
    let line = eve.fails(&["join", &old.code().unwrap()], 7);
    assert!(line.contains("expired"), "{line}");
}

#[test]
fn who_has_no_code_gets_nothing_and_who_answers_for_another_is_refused() {
    let (ann, bob, eve) = (Place::new(), Place::new(), Place::new());
    let _ = [&ann, &bob, &eve].map(id);
    let inviter = Inviter::start(&ann, &[]);
    let other = Inviter::start(&eve, &[]);
    // Another inviter's code at this one's address: another key answers.
    let line = failed(
        &bob.run(&["join", &other.code, "--at", &inviter.address]),
        3,
    );
    assert!(
        line.contains(&id(&ann)) && line.contains(&id(&eve)),
        "{line}"
    );
    assert_eq!(known(&bob), "");
    // Whoever comes for something else is told so, and nothing is used up.
    let words = ["connect", &inviter.address, "up", "--trust", "any"];
    let line = failed(&bob.run(&words), 7);
    assert!(line.contains("no service of this name is open"), "{line}");
    failed(&bob.run(&["join", &other.code, "--at", "exec:true"]), 2);
    failed(&bob.run(&["join", "x"]), 2);
    let output = bob.run(&["join", &inviter.code]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let (status, _) = inviter.end();
    assert_eq!(status, Some(0));
    let mut child = other.child;
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Whoever connects and keeps silent holds a place for as long as a handshake may take, and keeps nobody out.
#[test]
fn silent_strangers_do_not_block_an_invitation() {
    let (ann, bob) = (Place::new(), Place::new());
    let inviter = Inviter::start(&ann, &[]);
    let at = inviter.address.strip_prefix("tcp:").unwrap();
    let strangers: Vec<TcpStream> = (0..48).map(|_| TcpStream::connect(at).unwrap()).collect();
    let output = bob.run(&["join", &inviter.code]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    drop(strangers);
    assert_eq!(inviter.end().0, Some(0));
}

#[test]
fn an_id_is_shown_in_forms_that_people_compare() {
    let place = Place::new();
    let id = id(&place);
    let show = |form: &str| {
        let output = finish(place.cepa(&["id", "show", form]).spawn().unwrap());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let words = show("--words");
    assert_eq!(
        words
            .split_whitespace()
            .filter(|word| word.len() == 5)
            .count(),
        16,
        "{words}"
    );
    assert_eq!(words, show("--words"));
    let art = show("--art");
    assert!(
        art.starts_with(&format!("{id}\n+---")) && art.lines().count() == 12,
        "{art}"
    );
    let qr = show("--qr");
    assert!(
        qr.starts_with(&id) && qr.lines().count() > 12 && qr.contains('█'),
        "{qr}"
    );
    place.fails(&["id", "show", "--words", "--art"], 2);
}

/// Whoever made the code does not say what is opened here.
#[test]
fn a_code_leads_through_the_network_alone() {
    let (ann, bob) = (Place::new(), Place::new());
    let socket = format!("unix:{}", ann.text("socket"));
    let inviter = Inviter::start_at(&ann, &socket, &[]);
    let said = bob.fails(&["join", &inviter.code], 2);
    assert!(said.contains(&format!("give --at {socket}")), "{said}");
    let joined = bob.run(&["join", &inviter.code, "--at", &socket]);
    assert_eq!(joined.status.code(), Some(0), "{}", text(&joined.stderr));
    assert_eq!(inviter.end().0, Some(0));
}

/// Whoever is found by a relay is called by its own id, not by that of the relay.
#[test]
fn an_inviter_behind_a_relay_has_a_name_of_its_own() {
    let (host, ann, bob) = (Place::new(), Place::new(), Place::new());
    let (_relay, at) = relay(&host);
    ann.succeeds(&["id", "show"]);
    let mut inviter = Server::start_at(&ann, &["invite", "--relay", &at], "waiting at relay ");
    let code = pasted(&mut inviter);
    bob.succeeds(&["join", &code]);
    let id = id(&ann);
    let line = format!("{} {id} ", &id[..12]);
    assert!(known(&bob).starts_with(&line), "{}", known(&bob));
}

/// The joiner names who invited, and is told how to go on.
#[test]
fn who_joins_chooses_a_name_and_learns_what_comes_next() {
    let (ann, bob) = (Place::new(), Place::new());
    let inviter = Inviter::start(&ann, &[]);
    assert!(
        bob.run(&["peer", "add", "carl", &id(&bob)])
            .status
            .success()
    );
    // A name that can't be had costs no code.
    for name in ["carl", "any", "a b"] {
        let line = failed(&bob.run(&["join", &inviter.code, "--name", name]), 2);
        assert!(line.contains(name), "{line}");
    }
    let output = bob.run(&["join", &inviter.code, "--name", "ann"]);
    let reported = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{reported}");
    for next in [
        &format!("remembered {} as ann", id(&ann)),
        "to use its services: cepa connect @ann SERVICE",
        &format!("cepa peer add ann {} --at tcp:HOST:PORT", id(&ann)),
    ] {
        assert!(reported.contains(next), "{next}: {reported}");
    }
    assert!(known(&bob).contains(&format!("ann {} first=", id(&ann))));
    assert_eq!(inviter.end().0, Some(0));
    // The words that it says do it, once the peer serves where it is said to.
    let words = ["tcp:127.0.0.1:0", "--service=up=echo:", "--allow=known"];
    let server = ann.serve(&words);
    bob.succeeds(&["peer", "add", "ann", &id(&ann), "--at", &server.address()]);
    let output = bob.run_with(&["connect", "@ann", "up"], b"as said");
    assert_eq!(text(&output.stdout), "as said", "{}", text(&output.stderr));
}

/// Joining again goes by the name that is given, and who has used a code before reads what to do without one.
#[test]
fn who_joins_again_keeps_or_changes_the_name() {
    let (host, ann, bob) = (Place::new(), Place::new(), Place::new());
    let inviter = Inviter::start(&ann, &["--name", "rob"]);
    bob.succeeds(&["join", &inviter.code]);
    let told = inviter.end().1;
    assert!(told.contains("remembered as rob"), "{told}");
    let name = known(&bob).split(' ').next().unwrap().to_owned();
    // The same name is free for the same peer, and another one is taken on.
    for wanted in [name.as_str(), "ann", "ann"] {
        let inviter = Inviter::start(&ann, &[]);
        let output = bob.run(&["join", &inviter.code, "--name", wanted]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let all = known(&bob);
        assert!(all.starts_with(&format!("{wanted} {}", id(&ann))), "{all}");
        assert_eq!(all.lines().count(), 1, "{all}");
        assert!(inviter.end().1.contains("remembered as rob"));
    }
    // A name that somebody has chosen is not changed by who joins; what to run is said.
    let inviter = Inviter::start(&ann, &["--name", "bob"]);
    bob.succeeds(&["join", &inviter.code]);
    let told = inviter.end().1;
    assert!(told.contains("run: cepa peer rename rob bob"), "{told}");
    assert!(known(&ann).starts_with("rob "), "{}", known(&ann));
    // One that nobody has chosen is.
    let other = Place::new();
    let inviter = Inviter::start(&ann, &[]);
    other.succeeds(&["join", &inviter.code]);
    assert!(inviter.end().1.contains("remembered as invited"));
    let inviter = Inviter::start(&ann, &["--name", "other"]);
    other.succeeds(&["join", &inviter.code]);
    let told = inviter.end().1;
    assert!(told.contains("remembered as other"), "{told}");
    // A code twice: it was oneself.
    let words = [
        "serve",
        "tcp:127.0.0.1:0",
        "--service",
        "up=echo:",
        "--invite",
        "host",
    ];
    let mut server = Server::start_at(&host, &words, "cepa join ");
    let code = server.output_line();
    bob.succeeds(&["join", &code, "--name", "host"]);
    for words in [&["join", &code][..], &["join", &code, "--name", "host"]] {
        let line = bob.fails(words, 7);
        assert!(line.ends_with("run: cepa connect @host SERVICE"), "{line}");
        assert!(!line.contains("if not by you"), "{line}");
    }
    // By a relay there is no host to be called by.
    let (_relay, at) = relay(&host);
    for (user, line) in [
        ("ann", "cepa join CODE --name ann --relay"),
        ("root", "cepa join CODE --relay"),
    ] {
        let mut command = ann.cepa(&["invite", "--code", "--relay", &at]);
        let inviter = Server::of(command.env("USER", user), "cepa join ");
        let seen = inviter.seen().last().unwrap();
        assert!(seen.starts_with(line), "{seen}");
    }
}

/// A code that nobody reads is waited for by nobody.
#[test]
fn a_code_that_goes_nowhere_is_an_error_at_once() {
    let place = Place::new();
    id(&place);
    let mut null = place.cepa(&["invite", "tcp:127.0.0.1:0"]);
    let line = failed(&finish(null.stdout(Stdio::null()).spawn().unwrap()), 8);
    assert!(line.contains("nobody can read the code"), "{line}");
    let program = common::bin().display();
    let mut closed = std::process::Command::new("sh");
    closed
        .args(["-c", &format!("{program} invite tcp:127.0.0.1:0 >&-")])
        .env("CEPA_CONFIG_DIR", place.path("config"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let line = failed(&finish(closed.spawn().unwrap()), 8);
    assert!(line.contains("nobody can read the code"), "{line}");
}

/// Strangers with fresh keys, who only hold sessions, or show half a proof, for as long as they are let.
#[test]
fn strangers_who_hold_sessions_keep_nobody_from_joining() {
    use cepa::identity::{Identity, KeyKind, Pinned};
    use cepa::session::Session;
    use cepa::stack::StackConfig;
    use tokio::io::AsyncWriteExt as _;

    let (ann, bob) = (Place::new(), Place::new());
    let inviter = Inviter::start(&ann, &[]);
    let at: cepa::transports::Endpoint = inviter.address.parse().unwrap();
    let pinned = std::sync::Arc::new(Pinned::one(id(&ann).parse().unwrap()));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut held = Vec::new();
    // More than there is room for.
    for n in 0..260 {
        let stranger = Identity::generate(KeyKind::Ed25519).unwrap();
        let config = StackConfig::new(stranger, pinned.clone());
        let comes = async {
            let session = Session::dial(&at, &config).await.ok()?;
            let mut stream = None;
            if n % 2 == 0
                && let Ok(mut opened) = session.open("cepa.pair").await
            {
                let _ = opened.write_all(b"half").await;
                let _ = opened.flush().await;
                stream = Some(opened);
            }
            Some((session, stream))
        };
        held.extend(runtime.block_on(comes));
    }
    let output = bob.run(&["join", &inviter.code]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    drop(held);
    let (status, reported) = inviter.end();
    assert_eq!(status, Some(0), "{reported}");
    assert!(known(&ann).contains(&id(&bob)));
}

#[test]
fn one_minute_is_said_in_the_singular() {
    let place = Place::new();
    let words = ["invite", "tcp:127.0.0.1:0", "--minutes", "1"];
    let mut child = place.cepa(&words).stderr(Stdio::piped()).spawn().unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let mut lines = stderr.lines().map(Result::unwrap);
    let line = lines.find(|line| line.starts_with("listening on "));
    child.kill().unwrap();
    child.wait().unwrap();
    let line = line.expect("it says where it listens");
    assert!(line.contains(" for 1 minute; on the other"), "{line}");
}
