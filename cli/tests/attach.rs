//! `cepa console --attach`: a command that goes on at the server while nobody sits at it, and is found again by its name.

mod common;

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use cepa::identity::{AcceptAny, Identity, KeyKind};
use cepa::node::{Access, Admission, Call, Node, NodeConfig, Protocol};
use common::desk::Desk;
use common::proxy::Proxy;
use common::{PATIENCE, Place, Server, text};
use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const SHELL: &str = "sh=exec:env PS1=ready= sh -i,pty=yes";

fn serve(place: &Place, more: &[&str]) -> Server {
    let words = ["tcp:127.0.0.1:0", "--allow", "any", "--service", SHELL];
    place.serve(&[&words[..], more].concat())
}

fn attach_at(place: &Place, address: &str, name: &str, more: &[&str]) -> Desk {
    let words = ["console", address, "sh", "--attach", name];
    Desk::sit_down(place, &[&words[..], more].concat(), (33, 101))
}

fn attach(place: &Place, server: &Server, name: &str) -> Desk {
    attach_at(place, &server.address(), name, &["--trust", "any"])
}

/// Kills the tool as the system does that is short of memory: it says nothing to anybody.
fn kill(mut desk: Desk) {
    // Nothing stands between: setsid(1) forks only as a group's leader.
    desk.child.kill().unwrap();
    desk.child.wait().unwrap();
}

#[track_caller]
fn leave(desk: Desk) {
    let seen = desk.leave_by_escape();
    assert!(
        seen.contains("it runs on at the server for up to "),
        "{seen}"
    );
}

/// Waits until the server knows that the end of a console was told: whoever comes before that is told once more.
#[track_caller]
fn is_over(place: &Place, server: &Server, name: &str) {
    let words = ["console", &server.address(), "--attached", "--trust", "any"];
    until(|| {
        let listed = text(&place.run(&words).stdout);
        !listed.lines().any(|line| line.starts_with(name))
    });
}

#[track_caller]
fn until(what: impl Fn() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(start.elapsed() < PATIENCE, "it does not happen");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Has the shell wait for a file, then say something and make another file.
fn later(place: &Place, says: &str) -> String {
    let (go, done) = (place.text("go"), place.text("done"));
    format!("while [ ! -e {go} ]; do sleep 0.05; done; {says}; touch {done}\r")
}

fn go_on(place: &Place) {
    std::fs::write(place.path("go"), "").unwrap();
    until(|| place.path("done").exists());
}

/// The process id of a shell that is asked for it.
fn pid(desk: &mut Desk) -> u32 {
    desk.type_in("echo \"pid=$$;\"\r");
    desk.until("\r\npid=");
    desk.until(";");
    let pid = desk.passed.rsplit("pid=").next().unwrap();
    pid.trim_end_matches(';').parse().unwrap()
}

/// Makes a script of the shell that does this at a hang-up, and nothing else: at its prompt it reads an end as well.
fn trapped(place: &Place, desk: &mut Desk, does: &str) {
    let script = place.text("script");
    let words = format!("trap '{does}' HUP; echo set; while :; do sleep 0.05; done");
    std::fs::write(&script, words).unwrap();
    desk.type_in(&format!("exec sh {script}\r"));
    desk.until("set\r\n");
}

fn is_there(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// A client that is killed, and one whose user leaves.
#[test]
fn whoever_comes_back_finds_the_same_shell_and_what_it_said_meanwhile() {
    let place = Place::new();
    let server = serve(&place, &[]);
    let mut desk = attach(&place, &server, "work");
    // In one line of 80 columns.
    let at = format!(
        "connected to sh at {}… (Enter, then ~. to leave it running)",
        &server.id()[..12]
    );
    desk.until(&at);
    desk.until("a new console, kept for 10 min after you leave");
    desk.until("ready=");
    desk.type_in("mine=kept; echo fi''rst\r");
    desk.until("first\r\nready=");
    desk.type_in(&later(&place, "echo mean''while"));
    desk.until("touch ");
    kill(desk);
    go_on(&place);
    let words = ["console", &server.address(), "sh", "--attach", "work"];
    let words = [&words[..], &["--trust", "any"]].concat();
    let mut desk = Desk::sit_down(&place, &words, (50, 132));
    desk.until("attached again");
    desk.until("first\r\n");
    desk.until("meanwhile\r\nready=");
    desk.type_in("echo $mine-1-; while [ \"$(stty size)\" != '50 132' ]; do sleep 0.05; done; echo wi''der\r");
    desk.until("kept-1-\r\n");
    desk.until("wider\r\n");
    leave(desk);
    let mut desk = attach(&place, &server, "work");
    desk.until("attached again");
    desk.until("kept-1-\r\n");
    desk.type_in("echo $mine-2-; exit 3\r");
    desk.until("kept-2-\r\n");
    let (code, seen) = desk.leave();
    assert_eq!(code, Some(3), "{seen}");
    // That was its end.
    is_over(&place, &server, "work");
    let mut desk = attach(&place, &server, "work");
    desk.until("a new console, kept for 10 min after you leave");
    desk.type_in("exit 0\r");
    assert_eq!(desk.leave().0, Some(0));
}

/// A window of the same size is no news to a program, but one that fills the screen has to draw it anew.
#[test]
fn an_attach_redraws_the_screen_and_leaving_restores_the_terminal() {
    let place = Place::new();
    let server = serve(&place, &[]);
    let mut desk = attach(&place, &server, "work");
    desk.until("ready=");
    // One process group: with one for each of its commands the shell would not be in the foreground.
    let script = place.text("script");
    let words = "trap 'echo drawn; stty size' WINCH; printf '\\033[?1049h\\033[?25l\\033[6n'; echo set; \
        while sleep 0.05; do :; done";
    std::fs::write(&script, words).unwrap();
    desk.type_in(&format!("sh {script}\r"));
    desk.until("\x1b[?1049h\x1b[?25l\x1b[6n");
    desk.until("set\r\n");
    desk.type_in("\r~.");
    let (code, seen) = desk.leave();
    assert_eq!(code, Some(0), "{seen}");
    assert!(seen.contains("\x1b[?25h\x1b[?1049l\x1b[0m"), "{seen:?}");
    let mut desk = attach(&place, &server, "work");
    desk.until("\x1b[?1049h\x1b[?25l");
    desk.until("drawn\r\n");
    desk.until("33 101\r\n");
    // What a terminal would answer is not asked twice.
    assert!(!desk.passed.contains("\x1b[6n"), "{:?}", desk.passed);
    leave(desk);
}

#[test]
fn the_second_one_takes_over_and_the_first_one_ends_with_a_status_of_its_own() {
    let place = Place::new();
    let server = serve(&place, &[]);
    // One that would come back by itself does not, or the two would take turns.
    let words = ["--trust", "any", "--reconnect"];
    let mut first = attach_at(&place, &server.address(), "work", &words);
    first.until("ready=");
    first.type_in("mine=kept; echo s''et\r");
    first.until("set\r\n");
    let mut second = attach(&place, &server, "work");
    second.until("attached again");
    let (code, seen) = first.leave();
    assert_eq!(code, Some(9), "{seen}");
    assert!(
        seen.contains("\ncepa: another console with your key was attached"),
        "{seen}"
    );
    second.type_in("echo $mine-\r");
    second.until("kept-\r\n");
    // Another name is another console.
    let mut other = attach(&place, &server, "other");
    other.until("ready=");
    other.type_in("echo x$mine-; exit 0\r");
    other.until("\r\nx-\r\n");
    assert_eq!(other.leave().0, Some(0));
    second.type_in("exit 0\r");
    assert_eq!(second.leave().0, Some(0));
}

#[test]
fn a_command_that_ends_alone_is_reported_with_its_last_words_once() {
    let place = Place::new();
    let mut server = serve(&place, &[]);
    let mut desk = attach(&place, &server, "work");
    desk.until("ready=");
    let shell = pid(&mut desk);
    desk.type_in(&later(&place, "echo last''words; sleep 0.1; kill -9 $$"));
    desk.until("touch ");
    kill(desk);
    std::fs::write(place.path("go"), "").unwrap();
    until(|| !is_there(shell));
    let mut desk = attach(&place, &server, "work");
    desk.until("lastwords\r\n");
    let (code, seen) = desk.leave();
    assert_eq!(code, Some(137), "{seen}");
    is_over(&place, &server, "work");
    // Left first: then the log tells as well.
    let mut desk = attach(&place, &server, "work");
    desk.until("a new console, kept for 10 min after you leave");
    desk.until("ready=");
    std::fs::remove_file(place.path("go")).unwrap();
    desk.type_in(&later(&place, "echo gone''again").replace('\r', "; exit 5\r"));
    desk.until("touch ");
    desk.until("\r\n");
    leave(desk);
    server.wait_for("left; kept for 10 min");
    std::fs::write(place.path("go"), "").unwrap();
    server.wait_for("exited with status 5; the next attach is told");
    let mut desk = attach(&place, &server, "work");
    desk.until("goneagain\r\n");
    let (code, seen) = desk.leave();
    assert_eq!(code, Some(5), "{seen}");
    is_over(&place, &server, "work");
    let mut desk = attach(&place, &server, "work");
    desk.until("a new console, kept for 10 min after you leave");
    leave(desk);
}

/// The end of its substream and that of its session come to the server at once.
#[test]
fn whoever_has_read_the_end_and_is_gone_at_once_is_told_it_once() {
    let place = Place::new();
    let server = serve(&place, &[]);
    let proxy = Proxy::to(&server.address());
    for _ in 0..3 {
        let mut desk = attach_at(&place, &proxy.address(), "work", &["--trust", "any"]);
        desk.until("a new console, kept for 10 min after you leave");
        desk.until("ready=");
        desk.type_in(&later(&place, "echo near''ly").replace('\r', "; exit 3\r"));
        desk.until("touch ");
        proxy.hold(true);
        std::fs::write(place.path("go"), "").unwrap();
        desk.until("nearly");
        let (code, seen) = desk.leave();
        assert_eq!(code, Some(3), "{seen}");
        proxy.hold(false);
        is_over(&place, &server, "work");
        std::fs::remove_file(place.path("go")).unwrap();
    }
}

#[test]
fn another_key_finds_nothing_under_the_same_name() {
    let place = Place::new();
    let server = serve(&place, &[]);
    let mut desk = attach(&place, &server, "work");
    desk.until("ready=");
    desk.type_in("mine=kept; echo sec''ret\r");
    desk.until("secret\r\n");
    leave(desk);
    let (key, _) = place.identity("other.pem");
    let words = ["--trust", "any", "--identity", &key];
    let mut other = attach_at(&place, &server.address(), "work", &words);
    other.until("a new console, kept for 10 min after you leave");
    other.until("ready=");
    other.type_in("echo x$mine-; exit 0\r");
    other.until("\r\nx-\r\n");
    assert!(!other.passed.contains("secret"), "{}", other.passed);
    assert_eq!(other.leave().0, Some(0));
    let mut desk = attach(&place, &server, "work");
    desk.until("attached again");
    desk.type_in("echo $mine-; exit 0\r");
    desk.until("kept-\r\n");
    assert_eq!(desk.leave().0, Some(0));
}

#[test]
fn one_peer_keeps_a_few_and_is_reported_which() {
    let place = Place::new();
    let server = serve(&place, &[]);
    for name in ["one", "two", "three", "four"] {
        let mut desk = attach(&place, &server, name);
        desk.until("ready=");
        leave(desk);
    }
    let (code, seen) = attach(&place, &server, "five").leave();
    assert_eq!(code, Some(7), "{seen}");
    assert!(
        seen.contains("(one, two, three, four): attach to one"),
        "{seen}"
    );
    // One that is there is found, and the place of one that ends is free.
    let mut desk = attach(&place, &server, "two");
    desk.until("attached again");
    desk.type_in("exit 0\r");
    assert_eq!(desk.leave().0, Some(0));
    is_over(&place, &server, "two");
    let mut desk = attach(&place, &server, "five");
    desk.until("a new console, kept for 10 min after you leave");
    leave(desk);
}

#[test]
fn what_cannot_be_kept_is_refused_in_one_line() {
    let place = Place::new();
    let services = ["--service", "cat=exec:cat", "--service", "echo=echo:"];
    let server = serve(&place, &services);
    let off = serve(&place, &["--keep-consoles", "off"]);
    let short = serve(&place, &["--no-durable"]);
    for (server, service, says) in [
        (&server, "cat", "only a command on a terminal can be kept"),
        (&server, "echo", "only a command on a terminal can be kept"),
        // As of a server that knows no such form.
        (&server, "none", "the server's cepa is older"),
        (&off, "sh", "keeps no consoles (--keep-consoles)"),
        (&short, "sh", "keeps no consoles (--keep-consoles)"),
    ] {
        let address = server.address();
        let words = ["console", &address, service, "--attach", "work"];
        let words = [&words[..], &["--trust", "any"]].concat();
        let (code, seen) = Desk::sit_down(&place, &words, (33, 101)).leave();
        assert_eq!(code, Some(7), "{seen}");
        assert!(seen.contains(says), "{seen}");
        let last = seen.trim_end().rsplit('\n').next().unwrap();
        assert!(last.starts_with("cepa: "), "{seen}");
    }
    for name in ["", "a.b", "two words", &"x".repeat(33)] {
        let words = ["console", "tcp:127.0.0.1:1", "sh", "--attach", name];
        let line = place.fails(&words, 2);
        assert!(line.contains("letters, digits"), "{line}");
    }
    let words = ["console", "tcp:127.0.0.1:1", "--attach", "work"];
    let line = place.fails_quietly(&words, 2);
    assert!(line.contains("needs the name of the service"), "{line}");
    let words = ["serve", "tcp:127.0.0.1:0", "--keep-consoles", "2m"];
    let line = place.fails(&words, 2);
    assert!(line.contains("or `off`"), "{line}");
}

/// One that ends when it is hung up, and one that does not.
#[test]
fn a_server_that_is_stopped_takes_its_commands_with_it() {
    let place = Place::new();
    let server = serve(&place, &[]);
    let note = place.text("note");
    let mut desk = attach(&place, &server, "deaf");
    desk.until("ready=");
    let deaf = pid(&mut desk);
    trapped(&place, &mut desk, "");
    leave(desk);
    let mut desk = attach(&place, &server, "polite");
    desk.until("ready=");
    let polite = pid(&mut desk);
    trapped(&place, &mut desk, &format!("echo hung up > {note}; exit"));
    assert!(is_there(deaf) && is_there(polite));
    // This one has somebody: the server tells them, and both end.
    server.signal("TERM");
    let (code, said) = server.finish();
    assert_eq!(code, Some(0), "{said}");
    let (code, seen) = desk.leave();
    assert_eq!(code, Some(6), "{seen}");
    let says = "cepa: the server was stopped, and the console ended with it";
    assert!(seen.contains(says), "{seen}");
    until(|| !is_there(deaf) && !is_there(polite));
    assert_eq!(std::fs::read_to_string(&note).unwrap(), "hung up\n");
}

#[test]
fn nobody_is_waited_for_longer_than_the_server_says() {
    let place = Place::new();
    let mut server = serve(&place, &["--keep-consoles", "1s"]);
    let note = place.text("note");
    let mut desk = attach(&place, &server, "work");
    desk.until("ready=");
    let shell = pid(&mut desk);
    trapped(&place, &mut desk, &format!("echo hung up > {note}; exit"));
    leave(desk);
    server.wait_for("left; kept for 1 s");
    server.wait_for("nobody came back");
    until(|| !is_there(shell));
    assert_eq!(std::fs::read_to_string(&note).unwrap(), "hung up\n");
    let mut desk = attach(&place, &server, "work");
    desk.until("the earlier console was ended, since nobody came back within 1 s\r\n");
    desk.until("a new console, kept for 1 s after you leave");
    leave(desk);
}

/// The session is kept, and waits for its client; the command does not.
#[test]
fn a_command_goes_on_while_its_client_has_no_connection() {
    let place = Place::new();
    let server = serve(&place, &[]);
    let proxy = Proxy::to(&server.address());
    let at = proxy.address();
    let mut desk = attach_at(&place, &at, "work", &["--trust", "any"]);
    desk.until("ready=");
    desk.type_in("mine=kept; echo s''et\r");
    desk.until("set\r\n");
    // More than both ends keep on the way, and a mode that is switched on in the middle.
    let lines = "head -c 8000000 /dev/zero | tr '\\0' '\\n'";
    let says = format!("{lines}; printf '\\033[?1000h'; {lines}; echo la''st");
    desk.type_in(&later(&place, &says));
    desk.until("touch ");
    desk.until("\r\n");
    proxy.down();
    // Nobody promises that no output is lost.
    desk.until("lost; reconnecting\r\n");
    go_on(&place);
    proxy.up();
    desk.until(" is back after ");
    // The middle is not kept, and the terminal gets the mode all the same.
    desk.until("\x1b[?1000h");
    // Behind what is kept, which would scroll it away.
    desk.until("last\r\n");
    desk.until("bytes of output came meanwhile and are not kept");
    desk.type_in("echo $mine-; exit 0\r");
    desk.until("kept-\r\n");
    let (code, seen) = desk.leave();
    assert_eq!(code, Some(0), "{}", seen.len());
}

/// What was said of the session would be false of the console.
#[test]
fn whoever_leaves_while_the_connection_is_away_reads_how_long_the_console_is_kept() {
    let place = Place::new();
    let server = serve(&place, &["--keep-consoles", "1d"]);
    let proxy = Proxy::to(&server.address());
    let at = proxy.address();
    let mut desk = attach_at(&place, &at, "work", &["--trust", "any"]);
    desk.until("a new console, kept for 24 h after you leave");
    desk.until("ready=");
    proxy.down();
    desk.until("lost; reconnecting\r\n");
    desk.type_in("\r~.");
    let (code, seen) = desk.leave();
    assert_eq!(code, Some(0), "{seen}");
    // At once, for the rest takes its time.
    let tries = "trying to tell the server that you leave, for 3 s at most\r\n";
    assert!(
        seen.ends_with(&format!(
            "left sh; it runs on at the server for up to 24 h\r\n{tries}"
        )),
        "{seen}"
    );
    assert!(!seen.contains("the peer"), "{seen}");
}

/// Whoever has lost the session has not lost the console.
#[test]
fn a_lost_session_is_followed_by_the_advice_to_attach_again() {
    let place = Place::new();
    let server = serve(&place, &["--no-durable", "--keep-consoles", "1d"]);
    let proxy = Proxy::to(&server.address());
    let at = proxy.address();
    let mut desk = attach_at(&place, &at, "work", &["--trust", "any"]);
    desk.until("ready=");
    proxy.down();
    let (code, seen) = desk.leave();
    assert_eq!(code, Some(6), "{seen}");
    assert!(
        seen.contains("\r\ncepa: the connection to the peer was cut; run the same command line to attach again"),
        "{seen}"
    );
}

/// Who has a connection misses nothing, however slowly it reads: here it is stopped for a while.
#[test]
fn whoever_is_there_gets_every_byte() {
    let place = Place::new();
    let server = serve(&place, &[]);
    let mut desk = attach(&place, &server, "work");
    desk.until("ready=");
    let lines = 300_000;
    desk.type_in(&format!("seq {lines}; echo e''nd\r"));
    desk.until("\r\n1\r\n");
    let child = rustix::process::Pid::from_child(&desk.child);
    rustix::process::kill_process(child, rustix::process::Signal::STOP).unwrap();
    thread::sleep(Duration::from_secs(1));
    rustix::process::kill_process(child, rustix::process::Signal::CONT).unwrap();
    desk.until("\r\nend\r\n");
    let seen: Vec<&str> = desk
        .passed
        .rsplit("\r\n1\r\n")
        .next()
        .unwrap()
        .split("\r\n")
        .collect();
    let mut expected = 2;
    for line in &seen[..seen.len() - 2] {
        assert_eq!(line.parse(), Ok(expected), "in order");
        expected += 1;
    }
    assert_eq!(expected, lines + 1);
    leave(desk);
}

/// Behind a relay, at a node that runs by a file.
#[test]
fn a_killed_client_attaches_again_through_a_relay() {
    let place = Place::new();
    let (relay_key, relay_id) = place.identity("relay.pem");
    let words = ["relay", "tcp:127.0.0.1:0", "--identity", &relay_key];
    let words = [&words[..], &["--allow", "any"]].concat();
    let relay = Server::start_at(&place, &words, "relaying on ");
    let at = relay.seen()[0].rsplit('@').next().unwrap().to_owned();
    let (_, id) = place.identity("node.pem");
    let file = place.text("node.toml");
    let config = format!(
        "identity = \"node.pem\"\nregister = [\"cepa://{relay_id}@{at}\"]\nkeep_consoles = \"1d\"\n\
        [services.sh]\nto = \"exec:env PS1=ready= sh -i,pty=yes\"\nallow = [\"any\"]\n"
    );
    std::fs::write(&file, config).unwrap();
    let node = Server::start_at(&place, &["node", "--config", &file], "reachable at ");
    let address = format!("cepa://{id}@relay:{relay_id}@{at}");
    let mut desk = attach_at(&place, &address, "work", &[]);
    desk.until("ready=");
    let shell = pid(&mut desk);
    desk.type_in("mine=kept; echo s''et\r");
    desk.until("set\r\n");
    kill(desk);
    let mut desk = attach_at(&place, &address, "work", &[]);
    desk.until("attached again");
    desk.type_in("echo $mine-\r");
    desk.until("kept-\r\n");
    leave(desk);
    // A service that is gone takes what is kept of it along.
    let config = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, config.replace("PS1=ready=", "PS1=other=")).unwrap();
    node.signal("HUP");
    until(|| !is_there(shell));
    let mut desk = attach_at(&place, &address, "work", &[]);
    desk.until("a new console, kept for 24 h after you leave");
    desk.until("other=");
    leave(desk);
}

/// A server of another make, which says this to whoever attaches, and then ends or resets.
struct Odd {
    says: Vec<u8>,
    ends: bool,
}

impl Protocol for Odd {
    fn names(&self) -> &[&'static str] {
        &["cepa.attach."]
    }

    fn admission(&self, _name: &str) -> Admission {
        Admission::Access(Access::Anyone)
    }

    fn serve(self: Arc<Self>, call: Call) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let mut far = call.accept().await.unwrap();
            far.write_all(&self.says).await.unwrap();
            far.flush().await.unwrap();
            if self.ends {
                far.shutdown().await.unwrap();
            }
            // Until the client has left.
            let _ = far.read_to_end(&mut Vec::new()).await;
        })
    }
}

/// What a client says and ends with that attaches at such a server.
fn attached_at(says: &[&[u8]], ends: bool) -> (Option<i32>, String) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let identity = Identity::generate(KeyKind::Ed25519).unwrap();
    let says = says.concat();
    let at = runtime.block_on(async {
        let node = Node::new(NodeConfig::new(identity, Arc::new(AcceptAny)));
        node.add_protocol(Arc::new(Odd { says, ends })).unwrap();
        let at = node.listen(&"tcp:127.0.0.1:0".parse().unwrap()).await;
        // It lives as long as the runtime does.
        tokio::spawn(async move {
            let _node = node;
            std::future::pending::<()>().await;
        });
        at.unwrap().to_string()
    });
    attach_at(&Place::new(), &at, "work", &["--trust", "any"]).leave()
}

/// Found nothing, begun now, kept for ten minutes.
const NEW: &[u8] = &[6, 0, 9, 0, 0, 0, 0, 0, 0, 0, 2, 0x58];
const DATA: &[u8] = b"\x00\x00\x05hello";

#[test]
fn a_server_that_does_not_say_that_it_keeps_the_console_breaks_the_protocol() {
    for says in [&[DATA][..], &[NEW, DATA, NEW]] {
        let (code, seen) = attached_at(says, false);
        assert_eq!(code, Some(1), "{says:?}: {seen}");
        let line = "the other end does not understand the console protocol";
        assert!(seen.contains(line), "{says:?}: {seen}");
    }
}

#[test]
fn an_end_without_a_word_of_how_is_a_cut() {
    for says in [&[][..], &[NEW, DATA]] {
        let (code, seen) = attached_at(says, true);
        assert_eq!(code, Some(6), "{says:?}: {seen}");
        assert!(seen.contains("ended without a status"), "{says:?}: {seen}");
    }
    let exited = b"\x03\x00\x02\x00\x00";
    let (code, seen) = attached_at(&[NEW, DATA, exited], true);
    assert_eq!(code, Some(0), "{seen}");
}

#[test]
fn ones_own_consoles_are_listed_and_one_of_them_is_ended() {
    let place = Place::new();
    let mut server = serve(&place, &["--keep-consoles", "1d"]);
    let at = server.address();
    let list = |more: &[&str]| {
        let words = ["console", &at, "--attached", "--trust", "any"];
        let output = place.run(&[&words[..], more].concat());
        let said = common::text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        (common::text(&output.stdout), said)
    };
    let (listed, said) = list(&[]);
    assert_eq!(listed, "");
    assert!(said.contains("no consoles are kept for you"), "{said}");
    let mut desk = attach(&place, &server, "work");
    desk.until("ready=");
    let shell = pid(&mut desk);
    leave(desk);
    server.wait_for("left; kept for 24 h");
    let mut there = attach(&place, &server, "b");
    there.until("ready=");
    let (listed, _) = list(&[]);
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines.len(), 2, "{listed}");
    assert!(lines[0].starts_with("work  sh  begun "), "{listed}");
    assert!(lines[0].contains(" ago, kept for 23 h more"), "{listed}");
    assert!(lines[1].starts_with("b     sh  begun "), "{listed}");
    assert!(lines[1].ends_with(" ago, attached"), "{listed}");
    // Another key has none.
    let (key, _) = place.identity("other.pem");
    assert_eq!(list(&["--identity", &key]).0, "");
    assert!(is_there(shell));
    let end = |name| {
        let words = ["console", &at, "sh", "--attach", name, "--end"];
        place.run(&[&words[..], &["--trust", "any"]].concat())
    };
    let output = end("work");
    let said = common::text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("ended the console work of sh"), "{said}");
    assert!(!is_there(shell), "it is waited for");
    // Nor does it matter that somebody is attached.
    assert_eq!(end("b").status.code(), Some(0));
    let (code, seen) = there.leave();
    assert_eq!(code, Some(1), "{seen}");
    assert!(seen.contains("the console was ended by --end"), "{seen}");
    assert_eq!(list(&[]).0, "");
    let output = end("work");
    let said = common::text(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{said}");
    assert!(
        said.contains("no console of this name is kept for you"),
        "{said}"
    );
    let line = place.fails(&["console", &at, "sh", "--end"], 2);
    assert!(line.contains("--attach"), "{line}");
}

/// What stays in a node's file stays, with all that runs; and what does not, ends.
#[test]
fn a_reload_keeps_sessions_and_consoles_of_services_that_stay() {
    let place = Place::new();
    place.identity("node.pem");
    let file = place.text("node.toml");
    let shell = |name: &str| {
        format!(
            "[services.{name}]\nto = \"exec:env PS1=ready= sh -i,pty=yes\"\nallow = [\"any\"]\n"
        )
    };
    let head = "identity = \"node.pem\"\nlisten = [\"tcp:127.0.0.1:0\"]\n";
    std::fs::write(&file, [head, &shell("sh"), &shell("old")].concat()).unwrap();
    let words = ["node", "--config", &file];
    let mut node = Server::start_at(&place, &words, "listening on ");
    let proxy = Proxy::to(&node.address());
    let at = proxy.address();
    let sit = |service: &str, name: Option<&str>| {
        let attach: &[&str] = match &name {
            Some(name) => &["--attach", name],
            None => &[],
        };
        let words = ["console", &at, service, "--trust", "any"];
        let mut desk = Desk::sit_down(&place, &[&words[..], attach].concat(), (33, 101));
        desk.until("ready=");
        let shell = pid(&mut desk);
        (desk, shell)
    };
    let (attached, stays) = sit("sh", Some("stays"));
    let (left, waits) = sit("sh", Some("waits"));
    let (gone, ends) = sit("old", Some("gone"));
    let (away, too) = sit("old", Some("away"));
    let (mut plain, durable) = sit("sh", None);
    plain.type_in("mine=kept; echo s''et\r");
    plain.until("set\r\n");
    leave(left);
    leave(away);
    // One more service, and one less.
    std::fs::write(&file, [head, &shell("sh"), &shell("new")].concat()).unwrap();
    node.signal("HUP");
    node.wait_for("reloaded ");
    let (code, seen) = gone.leave();
    assert_eq!(code, Some(1), "{seen}");
    assert!(
        seen.contains("the service was withdrawn or changed"),
        "{seen}"
    );
    until(|| !is_there(ends) && !is_there(too));
    assert!(is_there(stays) && is_there(waits) && is_there(durable));
    // Sessions go on over the next connection.
    proxy.down();
    plain.until("lost; reconnecting");
    proxy.up();
    plain.until(" is back after ");
    plain.type_in("echo $mine-; exit 0\r");
    plain.until("kept-\r\n");
    assert_eq!(plain.leave().0, Some(0));
    let mut attached = attached;
    attached.until(" is back after ");
    attached.type_in("echo x$$-; exit 0\r");
    attached.until(&format!("\r\nx{stays}-\r\n"));
    assert_eq!(attached.leave().0, Some(0));
    let (desk, again) = sit("sh", Some("waits"));
    assert_eq!(again, waits);
    leave(desk);
}
