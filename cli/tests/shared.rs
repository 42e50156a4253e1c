//! `--share`: several commands on one connection, over TCP and a serial line; what becomes of them when the first one ends, is killed, or loses
//! its connection; and who may not share it.

mod common;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use cepa::Side;
use cepa::identity::{Identity, KeyKind, Pinned};
use cepa::protocols::sharing;
use cepa::session::Session;
use cepa::stack::StackConfig;
use cepa::transports::testkit::LineSettings;
use common::desk::Desk;
use common::line::join;
use common::proxy::Proxy;
use common::tcp;
use common::{PATIENCE, Place, Server, failed, finish, signal, text};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Notify;

/// The client's `cepa`, whose sockets are in its own folder.
fn cepa(place: &Place, words: &[&str]) -> Command {
    let mut command = place.cepa(words);
    command.env_remove("XDG_RUNTIME_DIR");
    command
}

fn run(place: &Place, words: &[&str]) -> Output {
    finish(cepa(place, words).spawn().unwrap())
}

#[track_caller]
fn succeeds(place: &Place, words: &[&str]) -> String {
    let output = run(place, words);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// A server of an echo, commands and files, and who looks at it.
struct World {
    client: Place,
    there: Place,
    server: Server,
    address: String,
}

impl World {
    fn at(address: &str, dial: impl FnOnce(&Server) -> String, there: Place) -> Self {
        let client = Place::new();
        fs::create_dir(there.path("files")).unwrap();
        let own = succeeds(&client, &["id", "show"]);
        let files = format!("f=files:{}", there.text("files"));
        let words = [
            address,
            "--allow",
            "any",
            "--allow",
            own.trim(),
            "--control",
            &there.text("control"),
            "--service",
            "echo=echo:",
            "--service",
            "three=exec:sh -c 'cat; echo err >&2; exit 3'",
            "--service",
            "sh=exec:sh,pty=yes",
            "--service",
            "run=command:/bin/echo",
            "--service",
            &files,
        ];
        let server = there.serve(&words);
        let address = dial(&server);
        let id = server.id();
        succeeds(&client, &["peer", "add", "srv", &id]);
        Self {
            client,
            there,
            server,
            address,
        }
    }

    fn tcp() -> Self {
        Self::at("tcp:127.0.0.1:0", Server::address, Place::new())
    }

    /// What the server sees.
    fn status(&self) -> Value {
        let json =
            self.there
                .succeeds(&["status", "--control", &self.there.text("control"), "--json"]);
        serde_json::from_str(&json).unwrap()
    }

    fn sessions(&self) -> u64 {
        self.status()["session_count"].as_u64().unwrap()
    }

    /// How many sessions there were at all.
    fn begun(&self) -> u64 {
        let status = self.status();
        let all = status["sessions"].as_array().unwrap().iter();
        all.filter_map(|it| it["id"].as_u64()).max().unwrap()
    }

    fn wait_for_sessions(&self, wanted: u64) {
        let start = Instant::now();
        while self.sessions() != wanted {
            assert!(start.elapsed() < PATIENCE, "{:#}", self.status());
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn words<'a>(&'a self, command: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let mut words = vec![command, &self.address];
        words.extend(more);
        words.extend(["--expect", "@srv", "--share"]);
        words
    }

    fn talk(&self, more: &[&str]) -> Talk {
        Talk::begin(cepa(
            &self.client,
            &self.words("connect", &[&["echo"], more].concat()),
        ))
    }

    /// The sockets where connections are shared.
    fn sockets(&self) -> Vec<PathBuf> {
        let all = fs::read_dir(self.client.path("config/run")).unwrap();
        let all = all.map(|entry| entry.unwrap().path());
        all.filter(|path| path.extension().is_none()).collect()
    }
}

/// `cepa connect` to an echo.
struct Talk {
    child: Child,
    to: Option<ChildStdin>,
    from: ChildStdout,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Talk {
    /// It has a session when this returns.
    fn begin(command: Command) -> Self {
        let mut talk = Self::start(command);
        talk.says_back("hello");
        talk
    }

    fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self {
            to: child.stdin.take(),
            from: child.stdout.take().unwrap(),
            child,
            lines,
            seen: Vec::new(),
        }
    }

    #[track_caller]
    fn says_back(&mut self, words: &str) {
        let mut back = vec![0; words.len()];
        let to = self.to.as_mut().unwrap();
        to.write_all(words.as_bytes()).unwrap();
        if let Err(e) = self.from.read_exact(&mut back) {
            let _ = self.child.wait();
            self.seen.extend(self.lines.iter());
            panic!("{e}: {:#?}", self.seen);
        }
        assert_eq!(text(&back), words);
    }

    fn hang_up(&mut self) {
        self.to = None;
    }

    #[track_caller]
    fn wait_for(&mut self, what: &str) {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|e| panic!("no {what:?} ({e}) in {:#?}", self.seen));
            self.seen.push(line.clone());
            if line.contains(what) {
                return;
            }
        }
    }

    fn signal(&self, name: &str) {
        assert!(signal(&self.child.id().to_string(), name));
    }

    /// Its exit code, and what it said.
    #[track_caller]
    fn ended(mut self) -> (Option<i32>, String) {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "{:#?}", self.seen);
            thread::sleep(Duration::from_millis(5));
        };
        self.seen.extend(self.lines.iter());
        (status.code(), self.seen.join("\n"))
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Every command at once, beside one that has the connection.
fn all_commands_use_one_session(world: &World) {
    let mut first = world.talk(&[]);
    assert_eq!(world.sessions(), 1);
    let mut second = world.talk(&[]);
    let three = run(&world.client, &world.words("connect", &["three"]));
    assert_eq!(three.status.code(), Some(3), "{}", text(&three.stderr));
    assert_eq!(text(&three.stderr), "err\n");
    let output = succeeds(
        &world.client,
        &[
            "exec",
            &world.address,
            "--share",
            "--expect",
            "@srv",
            "--",
            "echo",
            "run",
        ],
    );
    assert_eq!(output, "run\n");
    let services = succeeds(&world.client, &world.words("services", &[]));
    assert!(services.contains("three"), "{services}");
    let pings = succeeds(&world.client, &world.words("ping", &["-c", "2"]));
    assert!(pings.contains("seq=2 time="), "{pings}");
    let seen = succeeds(&world.client, &world.words("status", &["--json"]));
    let seen: Value = serde_json::from_str(&seen).unwrap();
    assert_eq!(seen["session_count"], 1, "{seen:#}");
    // A refusal has the server's words.
    let line = failed(&run(&world.client, &world.words("connect", &["none"])), 7);
    assert!(line.contains("no service of this name"), "{line}");
    second.says_back("still here");
    first.says_back("and I");
    assert_eq!(world.sessions(), 1);
    assert_eq!(world.begun(), world.status()["sessions"][0]["id"]);

    // The first waits for the second, which goes on.
    first.hang_up();
    first.wait_for("waiting for 1 other cepa command on this connection");
    second.says_back("alone");
    let mut third = world.talk(&[]);
    second.hang_up();
    assert_eq!(second.ended(), (Some(0), String::new()));
    third.says_back("the last");
    third.hang_up();
    assert_eq!(third.ended(), (Some(0), String::new()));
    let (code, _) = first.ended();
    assert_eq!(code, Some(0));
    world.wait_for_sessions(0);
    assert!(world.sockets().is_empty(), "{:?}", world.sockets());
}

/// What was copied is what there was.
fn copies(world: &World) {
    let first = world.talk(&[]);
    let data = common::noise(300_000);
    fs::write(world.client.path("data"), &data).unwrap();
    let id = world.server.id();
    let there = format!("cepa://{id}@{}/f/", world.address);
    let data_here = world.client.text("data");
    succeeds(&world.client, &["cp", "--share", &data_here, &there]);
    assert!(fs::read(world.there.path("files/data")).unwrap() == data);
    drop(first);
}

#[test]
fn all_commands_use_one_session_over_tcp() {
    all_commands_use_one_session(&World::tcp());
}

#[test]
fn a_copy_goes_over_a_shared_session_of_a_peers_own_address() {
    let world = World::tcp();
    let id = world.server.id();
    let address = format!("cepa://{id}@{}", world.address);
    let own = |service: &str| format!("{address}/{service}");
    let echo = own("echo");
    let mut first = Talk::begin(cepa(&world.client, &["connect", &echo, "--share"]));
    let data = common::noise(3_000_000);
    fs::write(world.client.path("data"), &data).unwrap();
    let here = world.client.text("data");
    succeeds(&world.client, &["cp", "--share", &here, &own("f/up")]);
    assert!(fs::read(world.there.path("files/up")).unwrap() == data);
    let back = world.client.text("back");
    succeeds(&world.client, &["cp", "--share", &own("f/up"), &back]);
    assert!(fs::read(&back).unwrap() == data);
    first.says_back("meanwhile");
    assert_eq!(world.sessions(), 1);
    // By another way it is another connection.
    copies(&world);
}

#[test]
fn a_serial_line_is_shared_by_consoles_and_all_commands() {
    let there = Place::new();
    let runtime = join(&there, &LineSettings::new(1_000_000.0), 1);
    let port = |name: &str| format!("serial:{},baud=115200", there.text(name));
    let (a, b) = (port("a"), port("b"));
    let world = World::at(&b, |_| a, there);
    all_commands_use_one_session(&world);

    let first = world.talk(&[]);
    let mut words = world.words("connect", &["echo"]);
    words.pop();
    let line = failed(&run(&world.client, &words), 8);
    assert!(line.contains("another program holds it"), "{line}");
    assert!(
        line.ends_with("of yours, start both with --share"),
        "{line}"
    );
    drop(first);
    world.wait_for_sessions(0);

    let words = world.words("console", &["sh"]);
    let sit = || {
        Desk::with(&world.client, &words, (40, 100), |command| {
            command.env_remove("XDG_RUNTIME_DIR");
        })
    };
    let mut one = sit();
    one.type_in("echo o$((1+0))ne\r");
    one.until("o1ne");
    let mut two = sit();
    two.type_in("echo t$((2+0))wo\r");
    two.until("t2wo");
    assert_eq!(world.sessions(), 1);
    // Somebody leaves who is not the first; then the first, who waits.
    two.type_in("exit 4\r");
    assert_eq!(two.leave().0, Some(4));
    let mut talk = world.talk(&[]);
    one.type_in("exit 5\r");
    one.until("waiting for 1 other cepa command");
    talk.says_back("over the line");
    talk.hang_up();
    assert_eq!(talk.ended().0, Some(0));
    assert_eq!(one.leave().0, Some(5));
    drop(world);
    runtime.shutdown_background();
}

/// The commands and the file of docs/SHARING.md, as they stand there but for the device, the id, and what the server here has.
#[test]
fn what_the_document_shows_is_one_connection() {
    let there = Place::new();
    let runtime = join(&there, &LineSettings::new(1_000_000.0), 1);
    let port = |name: &str| format!("serial:{},baud=115200", there.text(name));
    let (a, b) = (port("a"), port("b"));
    let world = World::at(&b, |_| a, there);
    let id = world.server.id();
    succeeds(
        &world.client,
        &["peer", "add", "srv", &id, "--at", &world.address],
    );
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/SHARING.md");
    let document = fs::read_to_string(document).unwrap();
    let here = document
        .replace("serial:/dev/ttyUSB0,baud=115200", &world.address)
        .replace("ef6…", &id)
        .replace("@board:up/", "@board:f/")
        .replace("-- dmesg", "-- echo hello");
    let block = |mark: &str| {
        here.split(mark)
            .nth(1)
            .unwrap()
            .split("```")
            .next()
            .unwrap()
    };
    let config = world.client.path("config/config.toml");
    fs::write(&config, block("```toml\n")).unwrap();
    fs::set_permissions(&config, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let data = common::noise(20_000);
    fs::write(world.client.path("fw.bin"), &data).unwrap();
    let commands = block("```sh\n").lines().map(|line| {
        let line = line.strip_prefix("bench$ cepa ").unwrap();
        let line = line.split('#').next().unwrap();
        line.split_whitespace().collect::<Vec<_>>()
    });
    let commands: Vec<_> = commands.collect();
    let [console, others @ ..] = commands.as_slice() else {
        panic!("{commands:?}");
    };
    assert!(console[0] == "console" && others.len() == 3, "{commands:?}");
    let mut desk = Desk::with(&world.client, console, (40, 100), |command| {
        command.env_remove("XDG_RUNTIME_DIR");
    });
    desk.type_in("echo o$((1+0))ne\r");
    desk.until("o1ne");
    for words in others {
        let mut command = cepa(&world.client, words);
        command.current_dir(world.client.dir.path());
        let output = finish(command.spawn().unwrap());
        assert_eq!(
            output.status.code(),
            Some(0),
            "{words:?}: {}",
            text(&output.stderr)
        );
    }
    assert!(fs::read(world.there.path("files/fw.bin")).unwrap() == data);
    assert_eq!((world.sessions(), world.begun()), (1, 1));
    desk.type_in("exit 5\r");
    assert_eq!(desk.leave().0, Some(5));
    drop(world);
    runtime.shutdown_background();
}

#[test]
fn of_eight_that_begin_at_once_one_connects() {
    let world = World::tcp();
    let mut all: Vec<Talk> = (0..8)
        .map(|_| Talk::start(cepa(&world.client, &world.words("connect", &["echo"]))))
        .collect();
    for talk in &mut all {
        talk.says_back("hello");
    }
    assert_eq!(world.sessions(), 1);
    assert_eq!(world.begun(), world.status()["sessions"][0]["id"]);
    for talk in &mut all {
        talk.hang_up();
    }
    for talk in all {
        assert_eq!(talk.ended().0, Some(0));
    }
    world.wait_for_sessions(0);
    assert!(world.sockets().is_empty());
}

#[test]
fn who_borrows_reads_that_the_first_was_killed_and_the_next_takes_its_place() {
    let world = World::tcp();
    let first = world.talk(&[]);
    let second = world.talk(&[]);
    let mut stays = world.talk(&["--reconnect"]);
    first.signal("KILL");
    let (code, seen) = second.ended();
    assert_eq!(code, Some(6), "{seen}");
    assert!(
        seen.contains("the program that shared its connection has lost it, or has ended"),
        "{seen}"
    );
    drop(first);
    stays.wait_for("reconnected to ");
    stays.says_back("again");
    // It is the first now, at the socket that was left.
    let mut next = world.talk(&[]);
    next.says_back("next");
    world.wait_for_sessions(1);
}

#[test]
fn a_signal_to_the_first_ends_it_for_all() {
    let world = World::tcp();
    let mut first = world.talk(&[]);
    let second = world.talk(&[]);
    first.hang_up();
    first.wait_for("waiting for 1 other cepa command");
    first.signal("INT");
    assert_eq!(second.ended().0, Some(6));
    first.ended();
    world.wait_for_sessions(0);
}

#[test]
fn what_ends_the_session_ends_it_for_all_in_the_same_words() {
    let world = World::tcp();
    let (first, second) = (world.talk(&[]), world.talk(&[]));
    world.server.signal("TERM");
    let (first, second) = (first.ended(), second.ended());
    assert_eq!(first.0, Some(6), "{}", first.1);
    assert_eq!(first, second);
}

/// What the first one's session outlives, the others hardly notice.
#[test]
fn a_connection_that_comes_back_is_back_for_all() {
    let mut world = World::tcp();
    let proxy = Proxy::to(&world.address);
    world.address = proxy.address();
    let mut first = world.talk(&["--durable"]);
    let mut second = world.talk(&[]);
    proxy.down();
    first.wait_for("lost; reconnecting (data is kept)");
    // Said while there is no connection.
    let to = second.to.as_mut().unwrap();
    to.write_all(b"into the dark").unwrap();
    proxy.up();
    first.wait_for("is back after");
    let mut back = [0; 13];
    second.from.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"into the dark");
    second.hang_up();
    assert_eq!(second.ended(), (Some(0), String::new()));
    first.says_back("and the first");
}

#[test]
fn so_many_share_and_no_more() {
    let world = World::tcp();
    let mut first = world.talk(&[]);
    let [socket] = &world.sockets()[..] else {
        panic!("{:?}", world.sockets());
    };
    let identity = Identity::load(world.client.path("config/identity.pem")).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let borrowed: Vec<_> = (0..32)
        .map(|_| {
            runtime.block_on(async {
                let stream = tokio::net::UnixStream::connect(socket).await.unwrap();
                sharing::borrow(stream, &identity).await.unwrap()
            })
        })
        .collect();
    assert_eq!(borrowed[31].peer().id().to_string(), world.server.id());
    let line = failed(&run(&world.client, &world.words("connect", &["echo"])), 7);
    assert!(line.contains("too many programs share"), "{line}");
    drop(borrowed);
    first.says_back("undisturbed");
}

/// What fails is the first one's service, and not its session: that stays for the others, and the first tries again in it.
#[test]
fn a_first_one_that_tries_again_takes_nothing_from_the_others() {
    let client = Place::new();
    let own = succeeds(&client, &["id", "show"]);
    let identity = Identity::generate(KeyKind::Ed25519).unwrap();
    let id = identity.peer_id().to_string();
    let trust = Arc::new(Pinned::one(own.trim().parse().unwrap()));
    let config = StackConfig::new(identity, trust);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
    let listener = listener.unwrap();
    let address = format!("tcp:{}", listener.local_addr().unwrap());
    let sessions = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sessions);
    runtime.spawn(async move {
        // Somebody else is there; and how often the late service was asked for.
        let (there, late) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let session = Session::handshake(stream, &[], Side::Server, &config).await;
            let session = session.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            let (there, late) = (Arc::clone(&there), Arc::clone(&late));
            tokio::spawn(async move {
                while let Ok(incoming) = session.accept().await {
                    let (there, late) = (Arc::clone(&there), Arc::clone(&late));
                    tokio::spawn(async move {
                        if incoming.service() == "late" {
                            if late.fetch_add(1, Ordering::SeqCst) == 0 {
                                there.notified().await;
                                incoming.refuse("not now: later").await.unwrap();
                                return;
                            }
                        } else {
                            there.notify_one();
                        }
                        let stream = incoming.accept().await.unwrap();
                        let (mut from, mut to) = tokio::io::split(stream);
                        let _ = tokio::io::copy(&mut from, &mut to).await;
                        let _ = to.shutdown().await;
                    });
                }
            });
        }
    });
    let connect = |service: &str, more: &[&str]| {
        let words = ["connect", &address, service, "--share", "--no-status"];
        let words = [&words[..], &["--expect", &id], more].concat();
        Talk::start(cepa(&client, &words))
    };
    let mut first = connect("late", &["--reconnect"]);
    // Before that nobody has the lock.
    let start = Instant::now();
    while sessions.load(Ordering::SeqCst) == 0 {
        assert!(start.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(5));
    }
    let mut second = connect("echo", &[]);
    second.says_back("here");
    first.wait_for("later; trying again");
    first.says_back("at last");
    second.says_back("still here");
    assert_eq!(sessions.load(Ordering::SeqCst), 1);
    second.hang_up();
    assert_eq!(second.ended().0, Some(0));
    first.hang_up();
    let (code, seen) = first.ended();
    assert_eq!(code, Some(0), "{seen}");
}

/// Many connections beside each other, and one that is closed in one direction.
#[test]
fn a_forward_shares_and_is_shared() {
    let world = World::tcp();
    let mut first = Server::of(
        &mut cepa(&world.client, &world.words("forward", &["-L", "0=echo"])),
        "listening on ",
    );
    let second = Server::of(
        &mut cepa(&world.client, &world.words("forward", &["-L", "0=echo"])),
        "listening on ",
    );
    let port = |forward: &Server| forward.address().strip_prefix("tcp:").unwrap().to_owned();
    let at = port(&second);
    let all: Vec<_> = (0..50)
        .map(|n| {
            let at = at.clone();
            thread::spawn(move || {
                let mut stream = tcp::connect(&at);
                let said = vec![n; 20_000];
                stream.write_all(&said).unwrap();
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                let mut back = Vec::new();
                stream.read_to_end(&mut back).unwrap();
                assert_eq!(back, said);
            })
        })
        .collect();
    for one in all {
        one.join().unwrap();
    }
    tcp::echoes(&port(&first));
    assert_eq!(world.sessions(), 1);
    // Ctrl-C ends the one that borrows, and the first goes on.
    second.signal("INT");
    assert_eq!(second.finish().0, Some(0));
    tcp::echoes(&port(&first));
    assert!(first.is_running());
    // And Ctrl-C ends the first, with whoever borrows.
    let talk = world.talk(&[]);
    first.signal("INT");
    assert_eq!(first.finish().0, Some(0));
    assert_eq!(talk.ended().0, Some(6));
    world.wait_for_sessions(0);
}

/// It leads nowhere for the first, who is killed; who waits at its socket takes its place, and connects.
#[test]
fn who_waits_for_one_that_is_killed_while_it_connects_connects_itself() {
    let mut world = World::tcp();
    let gate = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = world.address.strip_prefix("tcp:").unwrap().to_owned();
    world.address = format!("tcp:{}", gate.local_addr().unwrap());
    let mut first = Talk::start(cepa(&world.client, &world.words("connect", &["echo"])));
    let (nowhere, _) = gate.accept().unwrap();
    let mut second = Talk::start(cepa(&world.client, &world.words("connect", &["echo"])));
    second.wait_for("another cepa command is connecting there; waiting for it");
    first.signal("KILL");
    first.hang_up();
    let (here, _) = gate.accept().unwrap();
    let there = TcpStream::connect(to).unwrap();
    for (mut from, mut to) in [(&here, &there), (&there, &here)]
        .map(|(from, to)| (from.try_clone().unwrap(), to.try_clone().unwrap()))
    {
        thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Write);
        });
    }
    second.says_back("hello");
    drop(nowhere);
    second.hang_up();
    assert_eq!(second.ended().0, Some(0));
}

#[test]
fn another_identity_has_a_connection_of_its_own() {
    let world = World::tcp();
    let (other, _) = world.client.identity("other.pem");
    let mut first = world.talk(&[]);
    let mut second = world.talk(&["--identity", &other]);
    first.says_back("one");
    second.says_back("two");
    assert_eq!(world.sessions(), 2);
    assert_eq!(world.sockets().len(), 2);
    // Nor does anybody share who does not say so.
    let mut words = world.words("connect", &["echo"]);
    words.pop();
    let mut third = Talk::begin(cepa(&world.client, &words));
    third.says_back("three");
    assert_eq!(world.sessions(), 3);
}

#[test]
fn whoever_borrows_judges_the_peer_itself() {
    let world = World::tcp();
    let server = world.server.id();
    let mut first = world.talk(&[]);
    let connect = |more: &[&str]| {
        let words = [&["connect", &world.address, "echo", "--share"], more].concat();
        run(&world.client, &words)
    };
    let (_, other) = world.client.identity("x.pem");
    failed(&connect(&["--expect", &other]), 3);
    // Known by its name, not at this place.
    let line = failed(&connect(&[]), 4);
    assert!(line.contains(&server), "{line}");
    let output = connect(&["--trust-new"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(connect(&[]).status.code(), Some(0));
    assert_eq!(world.sessions(), 1);
    first.says_back("undisturbed");
}

#[test]
fn the_configuration_says_it_for_all_commands_or_for_one_target() {
    let world = World::tcp();
    let config = |text: &str| {
        let path = world.client.path("config/config.toml");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    };
    let target = format!(
        "[targets.t]\naddress = '{}'\nexpect = '@srv'\n",
        world.address
    );
    config(&format!("control = true\n{target}"));
    let talk = |more: &[&str]| {
        Talk::begin(cepa(
            &world.client,
            &[&["connect", "@t", "echo"], more].concat(),
        ))
    };
    let (_one, _two) = (talk(&[]), talk(&[]));
    assert_eq!(world.sessions(), 1);
    let own = talk(&["--no-share"]);
    assert_eq!(world.sessions(), 2);
    drop(own);
    config(&format!("control = true\n{target}control = false\n"));
    let own = talk(&[]);
    world.wait_for_sessions(2);
    drop(own);
    config(&format!("{target}control = true\n"));
    let _three = talk(&[]);
    world.wait_for_sessions(1);
}

/// Another user is stopped by the folder. Were it not, nothing would be lent to it, and this user would borrow nothing from it.
#[test]
fn another_user_is_turned_away_whatever_the_modes_say() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can be another user");
        return;
    }
    let world = World::tcp();
    let mut first = world.talk(&[]);
    let [socket] = &world.sockets()[..] else {
        panic!("{:?}", world.sockets());
    };
    let mode = |path: &std::path::Path, mode| {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    let private = fs::metadata(socket).unwrap();
    assert_eq!(
        std::os::unix::fs::MetadataExt::mode(&private) & 0o777,
        0o600
    );
    // This user is let in: the first byte says that a session is lent.
    let mut greeting = [0];
    let mut own = UnixStream::connect(socket).unwrap();
    own.read_exact(&mut greeting).unwrap();
    assert_eq!(greeting, [1]);

    for path in socket.ancestors().skip(1).take(3) {
        mode(path, 0o755);
    }
    mode(socket, 0o666);
    let script = format!(
        "import os, socket\nos.setuid(65534)\ns = socket.socket(socket.AF_UNIX)\ns.connect({:?})\nprint(len(s.recv(1)))",
        socket.to_str().unwrap()
    );
    let Ok(python) = Command::new("python3").args(["-c", &script]).output() else {
        eprintln!("SKIPPED: python3 is missing");
        return;
    };
    assert_eq!(text(&python.stdout), "0\n", "{}", text(&python.stderr));
    first.says_back("undisturbed");
    // And a folder that others can use is not used.
    let line = failed(&run(&world.client, &world.words("connect", &["echo"])), 8);
    assert!(line.contains("chmod 700"), "{line}");
}
