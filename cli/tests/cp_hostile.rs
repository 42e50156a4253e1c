//! `cepa cp` and services of files with an other end that means harm, made on the library.
#![cfg_attr(not(target_os = "linux"), allow(dead_code, unused_imports))] // what is open is seen in /proc

mod common;

use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use cepa::identity::{AcceptAny, Identity, KeyKind};
use cepa::node::{Access, Admission, Call, Node, NodeConfig, Protocol};
use cepa::session::{ServiceStream, Session};
use common::{PATIENCE, Place, Server, finish, text};
use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Runtime;

// Messages as in docs/PROTOCOL.md.

fn number(mut n: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while n >= 0x80 {
        out.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    out.push((n & 0x7f) as u8);
    out
}

fn name(name: &str) -> Vec<u8> {
    [number(name.len() as u64), name.as_bytes().to_vec()].concat()
}

/// The time of every file here.
const SECONDS: u64 = 1_700_000_000;

fn meta(mode: u64) -> Vec<u8> {
    [number(mode), number(SECONDS * 2), number(0)].concat()
}

fn put(to: &str) -> Vec<u8> {
    [vec![2, 1, 0], name(to)].concat()
}

fn get(paths: &[&str]) -> Vec<u8> {
    let names = paths.iter().flat_map(|path| name(path)).collect();
    [vec![1, 1, 0], number(paths.len() as u64), names].concat()
}

fn file(called: &str, size: u64) -> Vec<u8> {
    [vec![0x12], name(called), meta(0o644), number(size)].concat()
}

fn folder(called: &str) -> Vec<u8> {
    [vec![0x10], name(called), meta(0o755)].concat()
}

const UP: &[u8] = &[0x11];
const DONE: &[u8] = &[0x18];

/// The bytes of the next file.
fn hello() -> Vec<u8> {
    let hash = blake3::hash(b"hello");
    [&[0x13, 0, 0x14, 5][..], b"hello", &[0x15], hash.as_bytes()].concat()
}

fn problem(why: &str) -> Vec<u8> {
    [vec![0x31], name(why)].concat()
}

/// A server that says this to whoever fetches files.
struct Odd(Vec<u8>);

impl Protocol for Odd {
    fn names(&self) -> &[&'static str] {
        &["cepa.files."]
    }

    fn admission(&self, _name: &str) -> Admission {
        Admission::Access(Access::Anyone)
    }

    fn serve(self: Arc<Self>, call: Call) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let mut far = call.accept().await.unwrap();
            far.write_all(&self.0).await.unwrap();
            far.flush().await.unwrap();
            // Until the client has left.
            let _ = far.read_to_end(&mut Vec::new()).await;
        })
    }
}

/// How `cepa cp SRC… DST` ends at such a server, what it says, and what is there then.
fn fetched(sources: &[&str], to: &str, says: &[Vec<u8>]) -> (i32, String, Vec<String>) {
    let runtime = Runtime::new().unwrap();
    let identity = Identity::generate(KeyKind::Ed25519).unwrap();
    let node = Node::new(NodeConfig::new(identity, Arc::new(AcceptAny)));
    node.add_protocol(Arc::new(Odd(says.concat()))).unwrap();
    let at = runtime.block_on(node.listen(&"tcp:127.0.0.1:0".parse().unwrap()));
    let base = format!("cepa://{}@{}/up/", node.id(), at.unwrap());
    let place = Place::new();
    let here = place.path("here");
    fs::create_dir_all(&here).unwrap();
    fs::write(here.join(".bashrc"), "mine").unwrap();
    let sources: Vec<String> = sources.iter().map(|path| format!("{base}{path}")).collect();
    let mut words = vec!["cp", "--no-durable"];
    words.extend(sources.iter().map(String::as_str));
    words.push(to);
    let output = finish(place.cepa(&words).current_dir(&here).spawn().unwrap());
    assert_eq!(fs::read(here.join(".bashrc")).unwrap(), b"mine");
    let mut names: Vec<String> = fs::read_dir(&here)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != ".bashrc")
        .collect();
    names.sort();
    let code = output.status.code().unwrap();
    (code, text(&output.stderr), names)
}

const NOTHING: &[&str] = &[];

#[test]
fn a_server_does_not_choose_what_a_client_writes() {
    let both = |one: &str, other: &str| vec![file(one, 5), file(other, 5), hello(), hello()];
    let rows = [
        (&["f"][..], "./", vec![file(".bashrc", 5), hello()]),
        (&["f"], "new", vec![file(".bashrc", 5), hello()]),
        (&["f"], "./", both(".bashrc", "f")),
        (&["f"], "./", vec![folder("f.d"), UP.to_vec()]),
        (
            &["f"],
            "./",
            vec![folder(""), file(".bashrc", 5), UP.to_vec(), hello()],
        ),
        (&["d/."], "./", vec![file(".bashrc", 5), hello()]),
        (&["d/."], "./", vec![folder("d"), UP.to_vec()]),
        (&["f", "g"], "./", vec![file("h", 5), hello()]),
    ];
    for (sources, to, mut says) in rows {
        says.push(DONE.to_vec());
        let (code, said, names) = fetched(sources, to, &says);
        assert_eq!(code, 1, "{sources:?} {says:?}: {said}");
        let line = said.lines().last().unwrap();
        assert!(line.contains("something that was not asked for"), "{said}");
        assert_eq!(names, NOTHING, "{sources:?} {says:?}");
    }
    // What comes before is what was asked for, and nothing behind it.
    for (sources, says) in [
        (&["f"][..], [file("f", 5), hello(), file(".bashrc", 5)]),
        (&["f"], [file("f", 5), hello(), file("f", 5)]),
        (&["f"], [file("f", 5), hello(), folder("")]),
        (&["g", "f"], [file("f", 5), hello(), file("g", 5)]),
    ] {
        let (code, said, names) = fetched(sources, "./", &says);
        assert_eq!(code, 1, "{sources:?} {says:?}: {said}");
        assert_eq!(names, ["f"]);
    }
}

#[test]
fn what_was_asked_for_and_does_not_come_is_an_error() {
    let nothing = "the peer sent nothing for it";
    let rows = [
        (&["f"][..], vec![], 10, "f: the peer sent nothing", NOTHING),
        (&["d/."], vec![], 10, nothing, NOTHING),
        (
            &["f", "g"],
            vec![file("f", 5), hello()],
            10,
            "g: the peer sent nothing",
            &["f"],
        ),
        (
            &["f", "g"],
            vec![file("g", 5), hello()],
            10,
            "f: the peer sent nothing",
            &["g"],
        ),
        // An error in a folder is not one of a source.
        (
            &["d", "g"],
            vec![folder("d"), problem("d/x: no"), UP.to_vec()],
            10,
            "g: the peer sent nothing",
            &["d"],
        ),
        (
            &["f", "g"],
            vec![problem("f: no such file"), file("g", 5), hello()],
            10,
            "f: no such file",
            &["g"],
        ),
        (&["x/f"], vec![file("f", 5), hello()], 0, "1 file", &["f"]),
        (
            &["d/.", "f", "f"],
            vec![
                folder(""),
                file("x", 5),
                UP.to_vec(),
                hello(),
                file("f", 5),
                hello(),
                file("f", 5),
                // It is there by now.
                [&[0x13, 5, 0x15][..], blake3::hash(b"hello").as_bytes()].concat(),
            ],
            0,
            "3 files",
            &["f", "x"],
        ),
    ];
    for (sources, mut says, expected, line, there) in rows {
        says.push(DONE.to_vec());
        let (code, said, names) = fetched(sources, "./", &says);
        assert_eq!(code, expected, "{sources:?} {says:?}: {said}");
        assert!(said.contains(line), "{said}");
        assert_eq!(
            said.contains(nothing),
            line.contains("sent nothing"),
            "{said}"
        );
        assert_eq!(names, there, "{said}");
    }
}

/// A server of the folder `srv`, and a client of it that says what it likes.
struct Served {
    place: Place,
    server: Server,
    runtime: Runtime,
    identity: Identity,
}

/// Copies at once.
const COPIES: usize = 3;

fn served() -> Served {
    let place = Place::new();
    fs::create_dir_all(place.path("srv")).unwrap();
    let up = format!("up=files:{}", place.text("srv"));
    let server = place.serve(&[
        "tcp:127.0.0.1:0",
        "--allow",
        "any",
        "--commands-a-peer",
        &COPIES.to_string(),
        "--service",
        &up,
    ]);
    Served {
        place,
        server,
        runtime: Runtime::new().unwrap(),
        identity: Identity::generate(KeyKind::Ed25519).unwrap(),
    }
}

impl Served {
    /// A file of the folder, whose bytes are all zero.
    fn has(&self, path: &str, size: u64) {
        let path = self.place.path("srv").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = fs::File::create(path).unwrap();
        file.set_len(size).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(SECONDS))
            .unwrap();
    }

    fn session(&self) -> (Node, Session) {
        let config = NodeConfig::new(self.identity.clone(), Arc::new(AcceptAny));
        let address = format!("cepa://{}@{}", self.server.id(), self.server.address());
        self.runtime.block_on(async {
            let node = Node::new(config);
            let session = node.session(&address.parse().unwrap()).await;
            (node, session.unwrap())
        })
    }

    fn says(&self, session: &Session, says: &[Vec<u8>]) -> ServiceStream {
        self.runtime.block_on(async {
            let mut stream = session.open("cepa.files.up").await.unwrap();
            stream.write_all(&says.concat()).await.unwrap();
            stream.flush().await.unwrap();
            stream
        })
    }

    fn hears(&self, stream: &mut ServiceStream, len: usize) -> Vec<u8> {
        let mut heard = vec![0; len];
        self.runtime
            .block_on(stream.read_exact(&mut heard))
            .unwrap();
        heard
    }

    /// What the server has open.
    fn open(&self) -> Vec<String> {
        fs::read_dir(format!("/proc/{}/fd", self.server.pid()))
            .unwrap()
            .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
            .map(|path| path.to_string_lossy().into_owned())
            .collect()
    }

    fn waits(&self, mut is_so: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < PATIENCE, "open: {:?}", self.open());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Descriptors that a copy is charged (docs/FILES.md).
const CHARGED: usize = 8;

#[cfg(target_os = "linux")]
#[test]
fn a_copy_has_no_more_open_than_it_is_charged_whatever_is_announced() {
    let served = served();
    served.has("f", 5);
    served.has("d/f", 5);
    let (_node, session) = served.session();
    let before = served.open().len();
    let mut streams = Vec::new();
    for copies in 1..=2 {
        let mut says = vec![put(".")];
        says.resize(256, file("f", 5));
        let mut stream = served.says(&session, &says);
        // All of them are there: each `Have` has a size and a hash.
        served.hears(&mut stream, 255 * 34);
        streams.push(stream);
        let open = served.open();
        assert!(open.len() <= before + copies * CHARGED, "{open:?}");
    }
    // The other way: a folder that is named again and again.
    let mut stream = served.says(&session, &[get(&["d"; 100])]);
    let announced = [folder("d"), file("f", 5), UP.to_vec()].concat();
    // Its time and permissions are its own.
    let heard = served.hears(&mut stream, 1);
    assert_eq!(heard[0], announced[0]);
    let open = served.open();
    assert!(open.len() <= before + 3 * CHARGED, "{open:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_peer_that_is_gone_leaves_no_hashing_behind() {
    // Sparse; one hash of it takes longer than anybody here waits.
    const HUGE: u64 = 1 << 40;
    let has = [&[0x21][..], &number(HUGE), &[0; 32]].concat();
    let announced = 250 * file("big", HUGE).len();
    let mut puts = vec![put(".")];
    puts.resize(251, file("big", HUGE));
    let gets = vec![get(&["big"; 250])];
    for (says, heard, answers, ends, resets) in [
        (&puts, 0, 0, true, true),
        (&puts, 0, 0, true, false),
        (&puts, 0, 0, false, true),
        (&gets, announced, 250, true, true),
    ] {
        let served = served();
        served.has("big", HUGE);
        let (node, session) = served.session();
        let mut streams: Vec<_> = (0..COPIES).map(|_| served.says(&session, says)).collect();
        for stream in &mut streams {
            // Of any permissions, which have two bytes.
            served.hears(stream, heard);
            served.runtime.block_on(async {
                stream.write_all(&has.repeat(answers)).await.unwrap();
                stream.flush().await.unwrap();
            });
        }
        let hashed = || served.open().iter().filter(|p| p.ends_with("big")).count();
        served.waits(|| hashed() == COPIES);
        served.runtime.block_on(async {
            for stream in &mut streams {
                if ends {
                    stream.shutdown().await.unwrap();
                    stream.flush().await.unwrap();
                }
                if resets {
                    stream.wire_mut().drained(None).await.unwrap();
                    stream.wire_mut().reset(0);
                }
            }
            if !resets {
                node.shutdown(Duration::ZERO).await;
            }
        });
        // Its part of the commands is its own again.
        let (_node, session) = served.session();
        let mut free = Vec::new();
        served.waits(|| {
            served.runtime.block_on(async {
                if let Ok(stream) = session.open("cepa.files.up").await {
                    free.push(stream);
                }
            });
            free.len() == COPIES
        });
        assert_eq!(hashed(), 0, "{:?}", served.open());
    }
}
