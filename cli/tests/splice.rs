//! Every line of `src/splice_table.txt` with real sockets, processes and substreams: what is told at the other end of a splice, for every pair
//! of kinds. `cepa pipe` joins sockets, commands and standard input and output; `cepa serve` any of them to a substream, and two
//! substreams; `cepa connect` a substream to standard input and output.

mod common;

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use cepa::identity::{AcceptAny, Identity, KeyKind};
use cepa::mux::Substream;
use cepa::node::{Access, Call, Node, NodeConfig};
use cepa::onion::Onion;
use common::{PATIENCE, Place, Server, finish, text};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;

/// Said by who ends, where it is to be heard before; and where it is to be on its way.
const LITTLE: usize = 20;
const MUCH: usize = 200_000;
/// Said to who ends: more than all buffers on the way hold.
const FLOOD: usize = 16 << 20;

#[derive(Clone, Debug)]
struct Row {
    who: String,
    how: String,
    flight: String,
    /// What an end of the kind is told.
    reported: Vec<(String, String)>,
    exit: String,
}

fn table() -> Vec<Row> {
    let text = include_str!("../src/splice_table.txt");
    let mut lines = text.lines().skip_while(|line| !line.starts_with("who "));
    let split = |line: &str| {
        let at = [0, 11, 25, 34, 44, 54, 64, 74, 84, 94, line.len().max(94)];
        at.windows(2)
            .map(|w| {
                line.get(w[0]..w[1].min(line.len()))
                    .unwrap_or("")
                    .trim()
                    .to_owned()
            })
            .collect::<Vec<_>>()
    };
    let head = split(lines.next().unwrap());
    assert_eq!(head.last().unwrap(), "pipe exits");
    lines
        .map(|line| {
            let cells = split(line);
            Row {
                who: cells[0].clone(),
                how: cells[1].clone(),
                flight: cells[2].clone(),
                reported: head[3..9]
                    .iter()
                    .cloned()
                    .zip(cells[3..9].iter().cloned())
                    .collect(),
                exit: cells[9].clone(),
            }
        })
        .collect()
}

/// A stream whose other end is the splice's.
enum Live {
    Tcp(TcpStream),
    Unix(UnixStream),
    Framed(UnixStream),
    Stdio(Option<ChildStdin>, Option<ChildStdout>),
    Substream(Box<Onion<Substream>>),
    /// Its script does everything.
    Exec(PathBuf),
}

/// Where a stream comes from.
enum Offered {
    Tcp(TcpListener),
    Unix(UnixListener),
    Framed(UnixListener),
    Exec(PathBuf),
    Nothing,
}

fn offer(place: &Place, name: &str, kind: &str, script: &str) -> (String, Offered) {
    let dir = place.path(name);
    fs::create_dir_all(&dir).unwrap();
    match kind {
        "tcp" => {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = format!("tcp:{}", listener.local_addr().unwrap());
            (address, Offered::Tcp(listener))
        }
        "unix" => {
            let path = dir.join("socket");
            let listener = UnixListener::bind(&path).unwrap();
            (format!("unix:{}", path.display()), Offered::Unix(listener))
        }
        "framed" => {
            let path = dir.join("socket");
            let listener = UnixListener::bind(&path).unwrap();
            let address = format!("unix:{},framed", path.display());
            (address, Offered::Framed(listener))
        }
        "exec" => {
            fs::write(
                dir.join("script"),
                script.replace("DIR", dir.to_str().unwrap()),
            )
            .unwrap();
            (
                format!("exec:sh {}/script", dir.display()),
                Offered::Exec(dir),
            )
        }
        "stdio" => ("stdio:".to_owned(), Offered::Nothing),
        _ => (String::new(), Offered::Nothing),
    }
}

impl Offered {
    fn live(self, process: Option<&mut Child>) -> Live {
        match self {
            Self::Tcp(listener) => {
                let stream = listener.accept().unwrap().0;
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                Live::Tcp(stream)
            }
            Self::Unix(listener) => {
                let stream = listener.accept().unwrap().0;
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                Live::Unix(stream)
            }
            Self::Framed(listener) => {
                let stream = listener.accept().unwrap().0;
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                Live::Framed(stream)
            }
            Self::Exec(dir) => Live::Exec(dir),
            Self::Nothing => {
                let process = process.unwrap();
                Live::Stdio(process.stdin.take(), process.stdout.take())
            }
        }
    }
}

fn frame(data: &[u8]) -> Vec<u8> {
    [&u32::try_from(data.len()).unwrap().to_be_bytes(), data].concat()
}

/// Reads frames; says whether they ended with the frame for that.
fn all_frames(mut from: impl Read, heard: &AtomicUsize) -> String {
    loop {
        let mut length = [0; 4];
        if from.read_exact(&mut length).is_err() {
            return "cut".to_owned();
        }
        let mut left = u32::from_be_bytes(length) as usize;
        if left == 0 {
            return "end".to_owned();
        }
        while left > 0 {
            let mut part = vec![0; left.min(64 << 10)];
            match from.read(&mut part) {
                Ok(n @ 1..) => {
                    heard.fetch_add(n, Ordering::SeqCst);
                    left -= n;
                }
                _ => return "cut".to_owned(),
            }
        }
    }
}

/// What a command does that ends so.
fn ending_script(how: &str, flight: &str) -> String {
    let said = if flight == "from it" { MUCH } else { LITTLE };
    let wait = match flight {
        "nothing" => "while [ ! -e DIR/go ]; do sleep 0.02; done",
        "to it" => "head -c 1 >/dev/null",
        _ => ":",
    };
    let end = match how {
        "ends" => "exec >&-; cat >/dev/null",
        "exits with 0" => "exit 0",
        "exits with 3" => "exit 3",
        _ => unreachable!("{how}"),
    };
    format!("head -c {said} /dev/zero\n{wait}\n{end}\n")
}

fn hearing_script(flight: &str) -> String {
    let flood = match flight {
        "to it" => format!("head -c {FLOOD} /dev/zero &\n"),
        _ => String::new(),
    };
    format!("{flood}cat >DIR/got\necho end >DIR/told\n")
}

/// Ends as the table says; `go` waits until what was said has been heard.
fn end(runtime: &Runtime, live: Live, row: &Row, go: &dyn Fn()) {
    let said = vec![
        0;
        if row.flight == "from it" {
            MUCH
        } else {
            LITTLE
        }
    ];
    let wait = |mut read: &mut dyn Read| match row.flight.as_str() {
        "nothing" => go(),
        "to it" => (&mut read).read_exact(&mut [0]).unwrap(),
        _ => {}
    };
    match live {
        Live::Tcp(mut stream) => {
            stream.write_all(&said).unwrap();
            wait(&mut stream);
            match row.how.as_str() {
                "ends" => {
                    stream.shutdown(Shutdown::Write).unwrap();
                    stream.read_to_end(&mut Vec::new()).unwrap();
                }
                "is reset" => {
                    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
                }
                _ => {}
            }
        }
        Live::Unix(mut stream) => {
            stream.write_all(&said).unwrap();
            wait(&mut stream);
            if row.how == "ends" {
                stream.shutdown(Shutdown::Write).unwrap();
                stream.read_to_end(&mut Vec::new()).unwrap();
            }
        }
        Live::Framed(mut stream) => {
            stream.write_all(&frame(&said)).unwrap();
            wait(&mut stream);
            if row.how == "ends" {
                stream.write_all(&frame(&[])).unwrap();
                stream.read_to_end(&mut Vec::new()).unwrap();
            }
        }
        Live::Stdio(mut stdin, mut stdout) => {
            stdin.as_mut().unwrap().write_all(&said).unwrap();
            wait(stdout.as_mut().unwrap());
            // First its input: what is cut there is no end.
            drop(stdin);
            if row.how == "ends" {
                stdout.unwrap().read_to_end(&mut Vec::new()).unwrap();
            }
        }
        Live::Substream(mut stream) => {
            runtime.block_on(stream.write_all(&said)).unwrap();
            match row.flight.as_str() {
                "nothing" => go(),
                "to it" => drop(runtime.block_on(stream.read_u8()).unwrap()),
                _ => {}
            }
            if row.how == "ends" {
                runtime.block_on(stream.shutdown()).unwrap();
                runtime
                    .block_on(stream.read_to_end(&mut Vec::new()))
                    .unwrap();
            } else {
                stream.wire_mut().reset(7);
            }
        }
        Live::Exec(dir) => {
            if row.flight == "nothing" {
                go();
                fs::write(dir.join("go"), "").unwrap();
            }
        }
    }
}

/// Reads to the end, floods the other one where that is wanted, and ends too. Gives what the end was.
fn hear(runtime: &Runtime, live: Live, flood: bool, heard: &Arc<AtomicUsize>) -> String {
    fn all(mut from: impl Read, heard: &AtomicUsize) -> String {
        let mut bytes = vec![0; 64 << 10];
        loop {
            match from.read(&mut bytes) {
                Ok(0) => return "end".to_owned(),
                Ok(n) => heard.fetch_add(n, Ordering::SeqCst),
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return "cut".to_owned(),
                Err(e) => return format!("{e}"),
            };
        }
    }
    let flooding = |mut to: Box<dyn Write + Send>| {
        thread::spawn(move || {
            let flooded = if flood {
                to.write_all(&vec![0; FLOOD])
            } else {
                Ok(())
            };
            // The system tells of a reset once, to whoever asks first.
            let cut = flooded.is_err_and(|e| e.kind() == io::ErrorKind::ConnectionReset);
            drop(to);
            cut
        })
    };
    match live {
        Live::Tcp(stream) => {
            let flood = flooding(Box::new(stream.try_clone().unwrap()));
            let saw = all(&stream, heard);
            if flood.join().unwrap() {
                "cut".to_owned()
            } else {
                saw
            }
        }
        Live::Unix(stream) => {
            let flood = flooding(Box::new(stream.try_clone().unwrap()));
            let saw = all(&stream, heard);
            if flood.join().unwrap() {
                "cut".to_owned()
            } else {
                saw
            }
        }
        Live::Framed(mut stream) => {
            let mut to = stream.try_clone().unwrap();
            let flooding = thread::spawn(move || {
                let frames = if flood { FLOOD >> 20 } else { 0 };
                (0..frames).all(|_| to.write_all(&frame(&vec![0; 1 << 20])).is_ok())
            });
            let saw = all_frames(&stream, heard);
            flooding.join().unwrap();
            // Whoever it is may have left.
            let _ = stream.write_all(&frame(&[]));
            saw
        }
        Live::Stdio(stdin, stdout) => {
            let flood = flooding(Box::new(stdin.unwrap()));
            let saw = all(stdout.unwrap(), heard);
            flood.join().unwrap();
            saw
        }
        Live::Substream(stream) => {
            let heard = Arc::clone(heard);
            runtime.block_on(async move {
                let (mut read, mut write) = tokio::io::split(*stream);
                let flooding = async {
                    if flood {
                        let _ = write.write_all(&vec![0; FLOOD]).await;
                    }
                };
                let hearing = async {
                    let mut bytes = vec![0; 64 << 10];
                    loop {
                        match read.read(&mut bytes).await {
                            Ok(0) => return "end".to_owned(),
                            Ok(n) => heard.fetch_add(n, Ordering::SeqCst),
                            Err(_) => return "cut".to_owned(),
                        };
                    }
                };
                let both = async { tokio::join!(flooding, hearing).1 };
                let saw = tokio::time::timeout(PATIENCE, both).await;
                let _ = write.shutdown().await;
                saw.unwrap_or("nothing".to_owned())
            })
        }
        Live::Exec(_) => unreachable!("its script hears"),
    }
}

/// How a command has heard: from its folder, once the splice is over.
fn heard_by_command(dir: &std::path::Path, heard: &AtomicUsize) -> String {
    let got = fs::metadata(dir.join("got")).map_or(0, |meta| meta.len());
    heard.store(usize::try_from(got).unwrap(), Ordering::SeqCst);
    let reported = dir.join("told").exists();
    if reported { "end" } else { "cut" }.to_owned()
}

/// A peer of the tool, with a service whose substreams come here.
struct Peer {
    runtime: Runtime,
    node: Node,
    address: String,
    calls: Mutex<Receiver<Onion<Substream>>>,
}

impl Peer {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        let identity = Identity::generate(KeyKind::Ed25519).unwrap();
        let (sender, calls) = channel();
        let (node, at) = runtime.block_on(async {
            let node = Node::new(NodeConfig::new(identity, Arc::new(AcceptAny)));
            let serve = move |call: Call| {
                let sender = sender.clone();
                async move {
                    sender.send(call.accept().await.unwrap()).unwrap();
                }
            };
            node.serve("there", Access::Anyone, serve).unwrap();
            let at = node
                .listen(&"tcp:127.0.0.1:0".parse().unwrap())
                .await
                .unwrap();
            (node, at)
        });
        let address = format!("cepa://{}@{at}/there", node.id());
        Self {
            runtime,
            node,
            address,
            calls: Mutex::new(calls),
        }
    }

    fn called(&self) -> Live {
        let call = self.calls.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        Live::Substream(Box::new(call))
    }

    fn open(&self, server: &Server, service: &str) -> Live {
        let address = format!("cepa://{}@{}/{service}", server.id(), server.address());
        let opened = self
            .runtime
            .block_on(self.node.open(&address.parse().unwrap()));
        Live::Substream(Box::new(opened.unwrap()))
    }
}

/// One cell for real. Gives what is wrong.
fn tried(row: &Row, to: &str, cell: &str) -> Result<(), String> {
    let (place, peer) = (Place::new(), Peer::new());
    let exec = row.who == "exec";
    let script = if exec {
        ending_script(&row.how, &row.flight)
    } else {
        String::new()
    };
    let (one_address, one_offered) = offer(&place, "one", &row.who, &script);
    let (other_address, other_offered) = offer(&place, "other", to, &hearing_script(&row.flight));
    let other_dir = place.path("other");
    let substreams = (row.who == "substream", to == "substream");
    let mut process = None;
    let mut server = None;
    let piped = |words: &[&str]| {
        place
            .cepa(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let serve = |address: &str| {
        let service = format!("it={address}");
        place.serve(&["tcp:127.0.0.1:0", "--allow", "any", "--service", &service])
    };
    let connect = || {
        let (at, _) = peer.address.rsplit_once('/').unwrap();
        piped(&["connect", at, "there"])
    };
    let (one, other) = match substreams {
        (false, false) => {
            let process = process.insert(piped(&["pipe", &one_address, &other_address]));
            (
                one_offered.live(Some(process)),
                other_offered.live(Some(process)),
            )
        }
        (true, true) => {
            let server = server.insert(serve(&peer.address));
            let one = peer.open(server, "it");
            (one, peer.called())
        }
        (true, false) if to == "stdio" => {
            let process = process.insert(connect());
            (peer.called(), other_offered.live(Some(process)))
        }
        (false, true) if row.who == "stdio" => {
            let process = process.insert(connect());
            let one = one_offered.live(Some(process));
            (one, peer.called())
        }
        (true, false) => {
            let server = server.insert(serve(&other_address));
            (peer.open(server, "it"), other_offered.live(None))
        }
        (false, true) => {
            let server = server.insert(serve(&one_address));
            let other = peer.open(server, "it");
            (one_offered.live(None), other)
        }
    };
    let heard = Arc::new(AtomicUsize::new(0));
    let runtime = &peer.runtime;
    let go = || {
        let start = Instant::now();
        let so_far = || match to {
            "exec" => fs::metadata(other_dir.join("got"))
                .map_or(0, |meta| usize::try_from(meta.len()).unwrap()),
            _ => heard.load(Ordering::SeqCst),
        };
        while so_far() < LITTLE {
            assert!(start.elapsed() < PATIENCE, "{row:?} {to}: it is not heard");
            thread::sleep(Duration::from_millis(2));
        }
    };
    let flood = row.flight == "to it";
    let mut saw = thread::scope(|scope| {
        let hearing = match other {
            Live::Exec(_) => None,
            live => Some(scope.spawn(|| hear(runtime, live, flood, &heard))),
        };
        end(runtime, one, row, &go);
        hearing.map(|hearing| hearing.join().unwrap())
    });
    let output = process.map(finish);
    if to == "exec" {
        // Served to a substream, it ends when it does.
        let start = Instant::now();
        while server.is_some() && cell != "cut" && !other_dir.join("told").exists() {
            assert!(start.elapsed() < PATIENCE, "{row:?} {to}: it is not told");
            thread::sleep(Duration::from_millis(2));
        }
        if server.is_some() && cell == "cut" {
            thread::sleep(Duration::from_millis(200));
        }
        saw = Some(heard_by_command(&other_dir, &heard));
    }
    let (saw, heard) = (saw.unwrap(), heard.load(Ordering::SeqCst));
    let said = if row.flight == "from it" {
        MUCH
    } else {
        LITTLE
    };
    let mut wrong = Vec::new();
    let fits = match cell {
        // Where what it had said was unread, its first call after the end fails.
        "(end)" => saw == "end" || to == "unix" && flood,
        // Its end; a socket may have the reset behind it first.
        "left" => saw == "end" || saw == "cut" && matches!(to, "tcp" | "unix"),
        cell => saw == cell,
    };
    if !fits {
        wrong.push(format!("told {saw}"));
    }
    let whole = cell == "end" || row.flight != "from it" && saw == "end";
    if heard > said || whole && heard != said {
        wrong.push(format!("heard {heard} of {said}"));
    }
    if let Some(output) = output {
        let status = output.status.code().map(|code| code.to_string());
        let said = text(&output.stderr);
        let fits = match substreams {
            (false, false) => status.as_deref() == Some(row.exit.as_str()),
            // What `connect` makes of it stands in another table: it fails if anybody was cut.
            _ => (status.as_deref() != Some("0")) == matches!(cell, "cut" | "(end)"),
        };
        if !fits {
            wrong.push(format!("status {status:?}, {said}"));
        }
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(wrong.join("; "))
    }
}

/// Tries the cells of the rows of one kind, some at once.
fn try_all(who: &str) {
    let rows: Vec<Row> = table().into_iter().filter(|row| row.who == who).collect();
    assert!(rows.len() >= 6);
    let cells = rows
        .iter()
        .flat_map(|row| row.reported.iter().map(move |(to, cell)| (row, to, cell)));
    // Standard input and output there are once.
    let cells: Vec<_> = cells
        .filter(|(_, to, _)| !(who == "stdio" && *to == "stdio"))
        .collect();
    let next = AtomicUsize::new(0);
    let wrong = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((row, to, cell)) = cells.get(next.fetch_add(1, Ordering::SeqCst)) {
                    if let Err(why) = tried(row, to, cell) {
                        let (how, flight) = (&row.how, &row.flight);
                        let line =
                            format!("{who} {how}, {flight}: {to} is to be told {cell}: {why}");
                        wrong.lock().unwrap().push(line);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(
        wrong.is_empty(),
        "{} of {} cells:\n{}",
        wrong.len(),
        cells.len(),
        wrong.join("\n")
    );
}

#[test]
fn the_table_holds_where_tcp_ends() {
    try_all("tcp");
}

#[test]
fn the_table_holds_where_a_unix_socket_ends() {
    try_all("unix");
}

#[test]
fn the_table_holds_where_a_framed_unix_socket_ends() {
    try_all("framed");
}

#[test]
fn the_table_holds_where_a_command_ends() {
    try_all("exec");
}

#[test]
fn the_table_holds_where_standard_input_and_output_end() {
    try_all("stdio");
}

#[test]
fn the_table_holds_where_a_substream_ends() {
    try_all("substream");
}
