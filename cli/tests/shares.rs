//! What one peer can make a server hold, with real processes: sessions, commands, descriptors and memory, while others
//! go on. The figures of the attack are printed (`--nocapture`).
#![cfg(target_os = "linux")] // counts what the kernel says about a process

mod common;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cepa::identity::{Identity, Pinned};
use cepa::mux::{ReceivePool, Substream};
use cepa::onion::Onion;
use cepa::session::Session;
use cepa::stack::StackConfig;
use common::{PATIENCE, Place, Server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tokio::time::timeout;

const MIB: usize = 1 << 20;

type Opened = Onion<Substream>;

/// When nothing has been sent for so long, nothing more goes.
const STUCK: Duration = Duration::from_secs(3);

/// Bytes that the test has sent to be piled up.
static PILED: AtomicUsize = AtomicUsize::new(0);

fn status(pid: u32, field: &str) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Resident memory, bytes.
fn memory(pid: u32) -> usize {
    status(pid, "VmRSS:") * 1024
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Subprocesses of a process.
fn children(pid: u32) -> usize {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of_task = |task: fs::DirEntry| fs::read_to_string(task.path().join("children"));
    let all = tasks.flatten().filter_map(|task| of_task(task).ok());
    all.map(|list| list.split_whitespace().count()).sum()
}

/// A peer, and where it dials.
#[derive(Clone)]
struct Peer {
    config: StackConfig,
    at: cepa::transports::Endpoint,
}

impl Peer {
    fn new(identity: Identity, server: &Server) -> Self {
        let expected = Arc::new(Pinned::one(server.id().parse().unwrap()));
        Self {
            config: StackConfig::new(identity, expected),
            at: server.address().parse().unwrap(),
        }
    }

    async fn dial(&self) -> Result<Session, String> {
        let dialled = timeout(PATIENCE, Session::dial(&self.at, &self.config)).await;
        dialled.unwrap().map_err(|e| e.to_string())
    }

    /// A session, and one answer of the echo.
    async fn round(&self) -> Result<(), String> {
        let session = self.dial().await?;
        let stream = session.open("echo").await;
        let mut stream = stream.map_err(|e| e.to_string())?;
        let mut back = [0; 5];
        stream
            .write_all(b"hello")
            .await
            .map_err(|e| e.to_string())?;
        stream
            .read_exact(&mut back)
            .await
            .map_err(|e| e.to_string())?;
        session.close().await;
        Ok(())
    }

    /// As many sessions as it gets of so many that it wants, and the last refusal.
    async fn greedy(&self, wanted: usize) -> (Vec<Session>, Option<String>) {
        let (mut held, mut refused) = (Vec::new(), None);
        for _ in 0..wanted {
            match self.dial().await {
                Ok(session) => held.push(session),
                Err(error) => refused = Some(error),
            }
        }
        (held, refused)
    }
}

/// Asks every few milliseconds until stopped; how long each round took.
fn honest(
    peer: Peer,
    stop: Arc<AtomicBool>,
) -> tokio::task::JoinHandle<Vec<Result<Duration, String>>> {
    tokio::spawn(async move {
        let mut rounds = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let since = Instant::now();
            rounds.push(peer.round().await.map(|()| since.elapsed()));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        rounds
    })
}

/// Hole 2: an allowed peer that takes whatever it gets, of everything.
#[test]
fn one_allowed_peer_gets_its_share_and_no_more() {
    let place = Place::new();
    let [(greedy, greedy_id), (friend, friend_id)] =
        ["greedy.pem", "friend.pem"].map(|name| place.identity(name));
    let mut server = place.serve(&[
        "tcp:127.0.0.1:0",
        "--service",
        "echo=echo:",
        "--service",
        "sleep=exec:sleep 1000",
        "--allow",
        &greedy_id,
        "--allow",
        &friend_id,
    ]);
    let pid = server.pid();
    let greedy = Peer::new(Identity::load(&greedy).unwrap(), &server);
    let friend = Peer::new(Identity::load(&friend).unwrap(), &server);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        friend.round().await.unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let beside = honest(friend.clone(), Arc::clone(&stop));

        let (sessions, refused) = greedy.greedy(40).await;
        let refused = refused.expect("it got all of them");
        println!("sessions: {} of 40, then: {refused}", sessions.len());
        assert_eq!(sessions.len(), 16);
        assert!(refused.contains("sessions of one peer"), "{refused}");

        // Commands, in all sessions.
        let (mut running, mut refused) = (Vec::new(), None);
        for n in 0..250 {
            let opened = sessions[n % sessions.len()].open("sleep").await;
            match opened {
                Ok(stream) => running.push(stream),
                Err(error) => refused = Some(error.to_string()),
            }
        }
        let refused = refused.expect("it got all of them");
        println!(
            "commands: {} of 250, {} processes, {} descriptors, then: {refused}",
            running.len(),
            children(pid),
            descriptors(pid)
        );
        assert_eq!(running.len(), 32);
        assert!(
            refused.contains("commands of one peer (at most 32)"),
            "{refused}"
        );
        assert!(children(pid) <= 32 && descriptors(pid) < 16 + 32 * 5 + 64);
        drop(running);

        stop.store(true, Ordering::Relaxed);
        let rounds = beside.await.unwrap();
        let mut took: Vec<Duration> = rounds.iter().flatten().copied().collect();
        took.sort();
        let failed: Vec<&String> = rounds.iter().filter_map(|r| r.as_ref().err()).collect();
        println!(
            "beside it: {} rounds of another peer, {} failed, p99 {:?}",
            rounds.len(),
            failed.len(),
            took.get(took.len() * 99 / 100)
        );
        assert!(failed.len() * 10 <= rounds.len(), "{failed:?}");
    });
    server.wait_for("too many sessions of one peer (at most 16)");
}

/// Opens streams, as many as it gets.
async fn open(session: Session, streams: usize) -> (Session, Vec<Opened>) {
    let mut held = Vec::new();
    for _ in 0..streams {
        if let Ok(Ok(stream)) = timeout(PATIENCE, session.open("echo")).await {
            held.push(stream);
        }
    }
    (session, held)
}

/// Sends into a stream what the server can't get rid of, since the echo is not read. Goes on until it is dropped.
async fn fill(mut stream: Opened) {
    let chunk = vec![7; 16 * 1024];
    for _ in 0..48 {
        if stream.write_all(&chunk).await.is_err() {
            break;
        }
        PILED.fetch_add(chunk.len(), Ordering::Relaxed);
    }
    // Held for as long as somebody looks.
    std::future::pending::<()>().await;
}

/// Hole 2: what a peer sends and what it does not take, of one peer and of many. Counted is all that they make the process
/// grow by: sessions, streams and what serves them as well.
#[test]
fn data_that_one_peer_and_many_pile_up_has_a_bound() {
    const PEERS: usize = 16;
    let place = Place::new();
    let mut server = place.serve(&[
        "tcp:127.0.0.1:0",
        "--service",
        "echo=echo:",
        "--allow",
        "any",
    ]);
    let pid = server.pid();
    let peers: Vec<Peer> = (0..=PEERS)
        .map(|n| {
            let (file, _) = place.identity(&format!("{n}.pem"));
            let mut peer = Peer::new(Identity::load(&file).unwrap(), &server);
            // It soon stops to read its wire, so the server gets rid of nothing.
            peer.config.mux.receive_pool = Some(ReceivePool::new(64 << 10));
            peer
        })
        .collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (friend, peers) = peers.split_last().unwrap();
        friend.round().await.unwrap();
        let before = memory(pid);
        let mut filling = JoinSet::new();
        let mut sessions = Vec::new();
        // The first one with all that it can get, the others with what is more than their part.
        for (n, peer) in peers.iter().enumerate() {
            let wanted = if n == 0 { 16 } else { 2 };
            let mut opening = JoinSet::new();
            for session in peer.greedy(wanted).await.0 {
                opening.spawn(open(session, 60));
            }
            for (session, streams) in opening.join_all().await {
                sessions.push(session);
                for stream in streams {
                    filling.spawn(fill(stream));
                }
            }
            if n == 0 {
                let streams = filling.len();
                let of_one = settled(pid, before, 28).await;
                println!("one peer, {wanted} sessions, {streams} streams: {of_one} MiB");
                assert!(streams > 16 * 50, "{streams}");
                assert!(of_one <= 64, "{of_one} MiB");
            }
        }
        let streams = filling.len();
        let of_all = settled(pid, before, 100).await;
        println!(
            "{PEERS} peers, {} sessions, {streams} streams: {of_all} MiB",
            sessions.len()
        );
        assert!(of_all <= 256, "{of_all} MiB");
        // Another one is served as ever.
        timeout(PATIENCE, friend.round()).await.unwrap().unwrap();
    });
    assert!(server.is_running());
}

/// A peer that opens what it may and then says nothing: what serves a substream is small, since its peer may have thousands.
#[test]
fn quiet_substreams_cost_little() {
    const STREAMS: usize = 1000;
    let place = Place::new();
    let mut server = place.serve(&[
        "tcp:127.0.0.1:0",
        "--service",
        "echo=echo:",
        "--allow",
        "any",
    ]);
    let pid = server.pid();
    let (file, _) = place.identity("quiet.pem");
    let peer = Peer::new(Identity::load(&file).unwrap(), &server);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        peer.round().await.unwrap();
        let before = memory(pid);
        let (_session, mut streams) = open(peer.dial().await.unwrap(), STREAMS).await;
        assert_eq!(streams.len(), STREAMS);
        for stream in &mut streams {
            let mut back = [0; 5];
            stream.write_all(b"hello").await.unwrap();
            let answered = timeout(PATIENCE, stream.read_exact(&mut back)).await;
            answered.unwrap().unwrap();
        }
        let each = memory(pid).saturating_sub(before) / STREAMS;
        println!("{STREAMS} quiet streams: {each} bytes each");
        assert!(each <= 10 << 10, "{each} bytes each");
    });
    assert!(server.is_running());
}

/// By how many MiB a process has grown at most, until nothing has been sent to it for a while. It is at least so much that there
/// was an attack at all.
async fn settled(pid: u32, before: usize, least: usize) -> usize {
    let (mut most, mut piled, mut since) = (0, 0, Instant::now());
    let began = Instant::now();
    while since.elapsed() < STUCK || (most < least && began.elapsed() < PATIENCE) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        most = most.max(memory(pid).saturating_sub(before) / MIB);
        let now = PILED.load(Ordering::Relaxed);
        if now != piled {
            (piled, since) = (now, Instant::now());
        }
    }
    println!("{} MiB were sent", piled / MIB);
    assert!(most >= least, "only {most} MiB");
    most
}

/// Both limits are this server's to say, and its log tells by which option.
#[test]
fn the_sessions_and_the_commands_of_a_peer_are_as_many_as_the_options_say() {
    let place = Place::new();
    let words = [
        "tcp:127.0.0.1:0",
        "--allow",
        "any",
        "--sessions-a-peer",
        "2",
        "--commands-a-peer",
        "1",
        "--service",
        "cat=exec:cat",
        "--service",
        "echo=echo:",
    ];
    let mut server = place.serve(&words);
    let (address, id) = (server.address(), server.id());
    let words = |service| ["connect", &address, service, "--expect", &id].map(str::to_owned);
    let held = |service| {
        let words = words(service);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut child = place
            .cepa(&words)
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut input, b"x").unwrap();
        let mut got = [0; 1];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut got).unwrap();
        (child, input)
    };
    let refused = |service| {
        let words = words(service);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let output = place.run_with(&words, b"");
        assert_eq!(output.status.code(), Some(7));
        String::from_utf8(output.stderr).unwrap()
    };
    let first = held("cat");
    let said = refused("cat");
    assert!(said.contains("at most 1"), "{said}");
    server.wait_for("--commands-a-peer N");
    let second = held("echo");
    refused("echo");
    let line = server.wait_for("--sessions-a-peer N");
    assert!(line.contains("at most 2"), "{line}");
    for (child, input) in [first, second] {
        drop(input);
        common::finish(child);
    }
}
