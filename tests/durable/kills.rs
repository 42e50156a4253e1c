//! The other end is a process that is killed (SIGKILL), or stopped for a while (SIGSTOP): the session that is left is lost, and
//! says so within its limits; the one that is stopped goes on.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cepa::identity::{Identity, PeerId};
use cepa::session::{Session, SessionEnd, SessionLost};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};

use crate::children::{Process, saved, say};
use crate::crowd::{config, exchange, impatient, quick, scaled, serve};
use crate::support::soon;

/// How long the sessions here are kept without a connection.
const PARK: Duration = Duration::from_secs(2);

/// And how much later a busy machine may say so.
const LATE: Duration = Duration::from_secs(30);

/// Killed at a time.
const AT_ONCE: usize = 4;

fn kept() -> cepa::resume::Config {
    quick().with_park(PARK)
}

// ---- the other process -------------------------------------------------------------------------

/// Sends back what comes.
pub(crate) async fn server(own: &Identity, peer: PeerId, at: &str) {
    let mut server = serve(at, &config(own, peer, &kept())).await;
    say(&format!("at {}", server.at));
    while let Some(session) = server.sessions.recv().await {
        tokio::spawn(echo(session));
    }
}

async fn echo(session: Session) {
    while let Ok(incoming) = session.accept().await {
        tokio::spawn(async move {
            let stream = incoming.accept().await.unwrap();
            let (mut from, mut to) = tokio::io::split(stream);
            let _ = tokio::io::copy(&mut from, &mut to).await;
            let _ = to.shutdown().await;
        });
    }
}

/// Sends for ever.
pub(crate) async fn client(own: &Identity, peer: PeerId, at: &str) {
    let session = Session::dial(&at.parse().unwrap(), &config(own, peer, &kept())).await;
    let mut stream = session.unwrap().open("echo").await.unwrap();
    loop {
        stream.write_all(&[7; 4096]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

// ---- killed ------------------------------------------------------------------------------------

/// What the end that is left reads.
async fn is_lost(session: &Session, killed: Instant, dialled: bool) {
    let end = soon(session.closed()).await;
    let after = killed.elapsed();
    assert!(!end.is_clean(), "a clean end: {end}");
    let SessionEnd::GivenUp(lost) = &end else {
        panic!("{end:?}");
    };
    match lost {
        SessionLost::Expired { .. } => assert!(after >= PARK, "{after:?}: {end}"),
        SessionLost::Refused(_) => assert!(dialled, "{end}"),
        _ => panic!("{end:?}"),
    }
    assert!(after < PARK + LATE, "{after:?}: {end}");
}

/// Kills several at a time, until there were enough of them.
async fn killed<F>(one: fn(u64) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut all = JoinSet::new();
    for number in 0..scaled("CEPA_KILLS", 8) {
        let places = Arc::clone(&places);
        all.spawn(async move {
            let _place = places.acquire().await.unwrap();
            one(number).await;
        });
    }
    all.join_all().await;
}

/// Kills the other end's process some milliseconds into a transfer. `restart` comes behind that, and gives what is to live until
/// the end that is left has said what it knows: its session is lost, and what it was reading has not ended.
async fn lost_to_a_kill<R: Send + 'static>(
    number: u64,
    mut process: Process,
    (session, dialled): (Session, bool),
    reading: JoinHandle<io::Result<()>>,
    restart: impl Future<Output = R>,
) {
    tokio::time::sleep(Duration::from_millis(number % 50)).await;
    let killed = Instant::now();
    spawn_blocking(move || process.kill()).await.unwrap();
    let restarted = restart.await;
    is_lost(&session, killed, dialled).await;
    let read = soon(reading).await.unwrap();
    assert!(read.is_err(), "the end of a stream that was not ended");
    spawn_blocking(move || drop(restarted)).await.unwrap();
}

/// Reads until there is no more.
async fn read_to_end(mut from: impl AsyncRead + Unpin) -> io::Result<()> {
    let mut space = vec![0; 4096];
    while from.read(&mut space).await? > 0 {}
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_dialled_a_process_that_is_killed_reads_that_the_session_is_lost() {
    killed(server_killed).await;
}

async fn server_killed(number: u64) {
    let folder = tempfile::tempdir().unwrap();
    let (key, far) = saved(folder.path(), "far.pem");
    let near = crate::support::identity();
    let (key, id) = (key.to_str().unwrap().to_owned(), near.peer_id().to_string());
    let start = move |at: String| {
        let (key, id) = (key.clone(), id.clone());
        spawn_blocking(move || {
            let process = Process::start(&["server", &key, &id, &at]);
            let at = process.hears("at ");
            (process, at)
        })
    };
    let (process, at) = start("tcp:127.0.0.1:0".into()).await.unwrap();
    let config = config(&near, far.peer_id(), &kept());
    let session = Session::dial(&at.parse().unwrap(), &config).await.unwrap();
    assert!(session.outlives_connections());
    let mut stream = session.open("echo").await.unwrap();
    stream.write_all(&[7; 4096]).await.unwrap();
    stream.read_exact(&mut [0; 4096]).await.unwrap();
    let reading = tokio::spawn(async move {
        let (mut from, mut to) = tokio::io::split(stream);
        let writing = tokio::spawn(async move {
            while to.write_all(&[7; 4096]).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        let end = read_to_end(&mut from).await;
        writing.await.unwrap();
        end
    });
    let dialled = session.clone();
    let restart = async move {
        // Every other one is there again soon, and knows nothing of the session.
        if !number.is_multiple_of(2) {
            return None;
        }
        let restarted = start(at).await.unwrap();
        session.reconnect_now();
        Some(restarted)
    };
    lost_to_a_kill(number, process, (dialled, true), reading, restart).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_dialled_by_a_process_that_is_killed_reads_that_the_session_is_lost() {
    killed(client_killed).await;
}

async fn client_killed(number: u64) {
    let folder = tempfile::tempdir().unwrap();
    let (key, far) = saved(folder.path(), "far.pem");
    let near = crate::support::identity();
    let mut server = serve("tcp:127.0.0.1:0", &config(&near, far.peer_id(), &kept())).await;
    let (key, id) = (key.to_str().unwrap().to_owned(), near.peer_id().to_string());
    let at = server.at.to_string();
    let starting = spawn_blocking(move || Process::start(&["client", &key, &id, &at]));
    let process = starting.await.unwrap();
    let session = soon(server.sessions.recv()).await.unwrap();
    let mut stream = soon(session.accept())
        .await
        .unwrap()
        .accept()
        .await
        .unwrap();
    stream.read_exact(&mut [0; 4096]).await.unwrap();
    let reading = tokio::spawn(read_to_end(stream));
    lost_to_a_kill(number, process, (session, false), reading, async {}).await;
}

// ---- stopped -----------------------------------------------------------------------------------

/// Longer than all limits of silence, and shorter than sessions are kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_stopped_for_a_while_goes_on_with_its_session() {
    use rustix::process::Signal;

    let folder = tempfile::tempdir().unwrap();
    let (key, far) = saved(folder.path(), "far.pem");
    let near = crate::support::identity();
    let (key, id) = (key.to_str().unwrap().to_owned(), near.peer_id().to_string());
    let starting = spawn_blocking(move || {
        let process = Process::start(&["server", &key, &id, "tcp:127.0.0.1:0"]);
        let at = process.hears("at ");
        (process, at)
    });
    let (process, at) = starting.await.unwrap();
    let config = config(&near, far.peer_id(), &quick());
    let session = Session::dial(&at.parse().unwrap(), &config).await.unwrap();
    let impatient = impatient(&session);
    let stream = session.open("echo").await.unwrap();
    let begun = Instant::now();
    let moving = tokio::spawn(exchange(stream, 1, 1 << 20, move || {
        begun.elapsed() < Duration::from_secs(3)
    }));
    tokio::time::sleep(Duration::from_millis(300)).await;
    process.signal(Signal::STOP);
    // The other end keeps it for `PARK`; what counts is when its own clock goes on.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    process.signal(Signal::CONT);
    let exchanged = soon(moving).await.unwrap();
    // What comes back is what was sent.
    assert!(exchanged.sent == exchanged.got, "{exchanged:?}");
    let stats = session.path_stats().unwrap();
    assert!(stats.paths > 1, "nobody noticed: {stats:?}");
    impatient.abort();
    session.close().await;
    spawn_blocking(move || drop(process)).await.unwrap();
}
