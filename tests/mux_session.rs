//! Sessions of two of our own ends over real drivers: what needs tasks, wakers and IO to go wrong.
#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)] // patterns and counts of bytes

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use cepa::mux::{
    Config, Event, GoAwayCode, LimitKind, Mux, MuxError, OpenError, ReceivePool, Refusal,
    StreamError, StreamTimeouts, Substream, mux,
};
use cepa::{ByteStream, Side};
use tokio::io::{
    AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf,
    duplex,
};
use tokio::task::JoinHandle;
use tokio::time::timeout;

type Ended = JoinHandle<Result<(), MuxError>>;

/// No test waits longer; only a hang reaches it.
const HANG: Duration = Duration::from_secs(60);

fn start(io: impl ByteStream, side: Side) -> (Mux, Ended) {
    let (session, driver) = mux(io, side, Config::default());
    (session, tokio::spawn(driver))
}

fn pair_over(a: impl ByteStream, b: impl ByteStream) -> ((Mux, Ended), (Mux, Ended)) {
    (start(a, Side::Client), start(b, Side::Server))
}

/// Where what goes into a write is looked at: nothing is held back.
fn pair_unpaced(a: impl ByteStream, b: impl ByteStream) -> ((Mux, Ended), (Mux, Ended)) {
    let one = |session: (Mux, cepa::mux::Driver)| (session.0, tokio::spawn(session.1));
    let mut config = Config::default();
    config.pacing = false;
    (
        one(mux(a, Side::Client, config.clone())),
        one(mux(b, Side::Server, config)),
    )
}

fn pair() -> ((Mux, Ended), (Mux, Ended)) {
    let (a, b) = duplex(64 << 10);
    pair_over(a, b)
}

fn serve_echo(session: Mux) {
    tokio::spawn(async move {
        while let Ok(stream) = session.accept().await {
            tokio::spawn(echo(stream));
        }
    });
}

async fn echo(mut stream: Substream) -> io::Result<()> {
    while let Some(chunk) = stream.read_chunk().await? {
        stream.write_chunk(chunk).await?;
    }
    stream.shutdown().await
}

fn data(len: usize, seed: usize) -> Vec<u8> {
    (0..len)
        .map(|i| ((i * 31) ^ (i >> 8) ^ seed) as u8)
        .collect()
}

async fn ask(session: &Mux, question: Vec<u8>) -> io::Result<()> {
    let (mut read, mut write) = tokio::io::split(session.open().await?);
    let want = question.clone();
    let writer = tokio::spawn(async move {
        write.write_all(&question).await?;
        write.shutdown().await
    });
    let mut got = Vec::new();
    read.read_to_end(&mut got).await?;
    writer.await??;
    assert!(got == want, "{} of {} bytes", got.len(), want.len());
    Ok(())
}

fn stream_error(error: &io::Error) -> &StreamError {
    error
        .get_ref()
        .and_then(|inner| inner.downcast_ref())
        .expect("a StreamError inside")
}

#[test]
fn handles_go_wherever_they_are_wanted() {
    fn check<T: Send + Unpin + 'static>() {}
    fn shared<T: Send + Sync + Clone + 'static>() {}
    check::<Substream>();
    check::<cepa::mux::Driver>();
    shared::<Mux>();
}

#[tokio::test]
async fn many_streams_at_once_over_a_narrow_pipe() {
    for size in [1, 13, 1000, 100_000] {
        let (a, b) = duplex(size);
        let ((client, _), (server, _)) = pair_over(a, b);
        serve_echo(server.clone());
        serve_echo(client.clone());
        let len = if size < 100 { 3000 } else { 200_000 };
        let mut tasks = tokio::task::JoinSet::new();
        for i in 0..20 {
            let session = if i % 2 == 0 {
                client.clone()
            } else {
                server.clone()
            };
            tasks.spawn(async move { ask(&session, data(len, i)).await });
        }
        while let Some(done) = timeout(HANG, tasks.join_next()).await.unwrap() {
            done.unwrap().unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn split_halves_in_many_tasks_lose_no_wake_up() {
    // Races need many tries: a lost wake-up hangs one of them. Set the variable to try for longer.
    let rounds = std::env::var("CEPA_ROUNDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(5);
    for round in 0..rounds {
        let (a, b) = duplex(1 + (round * 7919) % 70_000);
        let ((client, driven), (server, _)) = pair_over(a, b);
        serve_echo(server);
        let mut tasks = tokio::task::JoinSet::new();
        for i in 0..16 {
            let session = client.clone();
            let len = (round * 131 + i * 7177) % 20_000;
            tasks.spawn(async move { ask(&session, data(len, i)).await });
        }
        while let Some(done) = timeout(HANG, tasks.join_next()).await.expect("a hang") {
            done.unwrap().unwrap();
        }
        assert_eq!(client.stats().streams, 0);
        timeout(HANG, client.close()).await.expect("a hang");
        driven.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn both_ends_write_before_they_read_and_nothing_locks_up() {
    let ((client, _), (server, _)) = pair();
    let here = client.open().await.unwrap();
    let write_then_read = |mut stream: Substream, seed: usize| async move {
        // More than windows, queues and pipes hold together can not be written by both; up to that,
        // nobody may wait for the other to read first.
        stream.write_all(&data(300_000, seed)).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await.unwrap();
        assert!(got == data(300_000, 1 - seed));
    };
    let there = async { server.accept().await.unwrap() };
    let both = async {
        let one = tokio::spawn(write_then_read(here, 0));
        write_then_read(there.await, 1).await;
        one.await.unwrap();
    };
    timeout(HANG, both).await.unwrap();
}

#[tokio::test]
async fn an_unread_stream_does_not_hold_up_the_others() {
    let ((client, _), (server, _)) = pair();
    let mut unread = client.open().await.unwrap();
    let blocked = tokio::spawn(async move {
        let _ = unread.write_all(&data(2 << 20, 3)).await;
        unread
    });
    let _kept = server.accept().await.unwrap();
    serve_echo(server);
    timeout(HANG, ask(&client, data(4 << 20, 1)))
        .await
        .unwrap()
        .unwrap();
    assert!(!blocked.is_finished(), "back-pressure reaches the writer");
    blocked.abort();
}

#[tokio::test]
async fn every_way_to_read_and_write_gives_the_same_bytes() {
    let ((client, _), (server, _)) = pair();
    serve_echo(server);
    let mut stream = client.open().await.unwrap();
    assert_eq!(stream.id(), 1);
    assert!(stream.is_write_vectored());
    let parts = [&b"one "[..], b"", b"two ", b"three\n"].map(io::IoSlice::new);
    assert_eq!(stream.write_vectored(&parts).await.unwrap(), 14);
    let big = data(70_000, 5);
    let halves = [&big[..30_000], &big[30_000..]].map(io::IoSlice::new);
    assert_eq!(stream.write_vectored(&halves).await.unwrap(), 70_000);
    stream
        .write_chunk(Bytes::from_static(b"four"))
        .await
        .unwrap();
    stream.shutdown().await.unwrap();
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    assert_eq!(line, "one two three\n");
    let mut back = vec![0; 70_000];
    stream.read_exact(&mut back).await.unwrap();
    assert!(back == big);
    let mut rest = Vec::new();
    while let Some(chunk) = stream.read_chunk().await.unwrap() {
        rest.extend_from_slice(&chunk);
    }
    assert_eq!(rest, b"four");
    let error = stream.write_all(b"more").await.unwrap_err();
    assert!(matches!(
        stream_error(&error),
        StreamError::WriteAfterShutdown
    ));
    stream
        .shutdown()
        .await
        .expect("shutting down twice is no error");
}

#[cfg(feature = "futures-io")]
#[tokio::test]
async fn the_traits_of_futures_work_too() {
    let ((client, _), (server, _)) = pair();
    serve_echo(server);
    let stream = client.open().await.unwrap();
    let (mut read, mut write) = futures::AsyncReadExt::split(stream);
    futures::AsyncWriteExt::write_all(&mut write, b"hello")
        .await
        .unwrap();
    futures::AsyncWriteExt::close(&mut write).await.unwrap();
    let mut got = Vec::new();
    futures::AsyncReadExt::read_to_end(&mut read, &mut got)
        .await
        .unwrap();
    assert_eq!(got, b"hello");
}

#[tokio::test]
async fn dropped_futures_lose_nothing() {
    let ((client, _), (server, _)) = pair();
    let mut here = client.open().await.unwrap();
    // Accepting, reading and pinging that are given up on at every poll.
    let mut there = loop {
        tokio::select! {
            biased;
            stream = server.accept() => break stream.unwrap(),
            () = tokio::task::yield_now() => {}
        }
    };
    let want = data(100_000, 2);
    let sent = want.clone();
    tokio::spawn(async move {
        for part in sent.chunks(777) {
            here.write_all(part).await.unwrap();
            tokio::task::yield_now().await;
        }
        here.shutdown().await.unwrap();
        here.read_chunk().await.ok();
    });
    let mut got = Vec::new();
    loop {
        tokio::select! {
            biased;
            chunk = there.read_chunk() => match chunk.unwrap() {
                Some(chunk) => got.extend_from_slice(&chunk),
                None => break,
            },
            _ = server.ping() => {}
            () = tokio::task::yield_now() => {}
        }
    }
    assert!(got == want);
    timeout(HANG, server.ping()).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_ends_the_session() {
    let (a, _silent) = duplex(1000);
    let (session, driven) = start(a, Side::Client);
    let mut stream = session.open().await.unwrap();
    stream.set_timeouts(StreamTimeouts::NONE);
    let error = stream.read_chunk().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(matches!(
        stream_error(&error),
        StreamError::Session(MuxError::KeepaliveTimeout { silent }) if silent.as_secs() == 30
    ));
    assert!(matches!(
        driven.await.unwrap(),
        Err(MuxError::KeepaliveTimeout { .. })
    ));
    assert!(matches!(session.open().await, Err(OpenError::Session(_))));
    assert!(matches!(
        session.ping().await,
        Err(MuxError::KeepaliveTimeout { .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn a_time_limit_that_is_set_later_is_kept() {
    let (a, b) = duplex(1000);
    let config = Config::default();
    let config = {
        let mut config = config;
        config.keepalive_interval = None; // no other timer wakes the driver
        config.stream_timeouts = StreamTimeouts::NONE;
        config
    };
    let (client, driver) = mux(a, Side::Client, config.clone());
    tokio::spawn(driver);
    let (server, driver) = mux(b, Side::Server, config);
    tokio::spawn(driver);
    let mut stream = client.open().await.unwrap();
    stream.write_all(b"x").await.unwrap();
    stream.shutdown().await.unwrap();
    let _held = server.accept().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1000)).await;
    let begun = tokio::time::Instant::now();
    stream.set_timeouts(StreamTimeouts {
        half_closed: Some(Duration::from_secs(1005)),
        ..StreamTimeouts::NONE
    });
    let error = timeout(Duration::from_secs(3600), stream.read_chunk())
        .await
        .unwrap()
        .unwrap_err();
    assert!(
        matches!(stream_error(&error), StreamError::TimedOut(_)),
        "{error}"
    );
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_lives_on() {
    let ((client, _), (server, _)) = pair();
    serve_echo(server);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    ask(&client, data(10, 0)).await.unwrap();
    let sent = client.stats().bytes_out;
    assert!(
        sent < 3600 / 15 * 24 + 100,
        "{sent} bytes: more than one ping in 15 s"
    );
}

#[tokio::test]
async fn a_session_that_is_cut_is_an_error_everywhere() {
    let ((client, driven), (server, gone)) = pair();
    let mut here = client.open().await.unwrap();
    here.write_all(b"x").await.unwrap();
    let mut there = server.accept().await.unwrap();
    there.write_all(b"half an ans").await.unwrap();
    let mut part = [0; 11];
    here.read_exact(&mut part).await.unwrap();
    gone.abort(); // drops the byte stream, without a go-away
    let error = timeout(HANG, here.read_chunk()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert!(matches!(
        stream_error(&error),
        StreamError::Session(MuxError::Eof)
    ));
    assert!(matches!(driven.await.unwrap(), Err(MuxError::Eof)));
    let error = timeout(HANG, there.read_to_end(&mut Vec::new()))
        .await
        .unwrap();
    // `there` has read nothing but the byte, and its end was killed.
    assert!(matches!(
        stream_error(&error.unwrap_err()),
        StreamError::Session(MuxError::DriverGone)
    ));
    assert!(matches!(server.accept().await, Err(MuxError::DriverGone)));
}

#[tokio::test]
async fn what_was_written_arrives_before_close_returns() {
    for len in [0, 10, 100_000, 3_000_000] {
        let ((client, driven), (server, served)) = pair();
        let reader = tokio::spawn(async move {
            let mut stream = server.accept().await.unwrap();
            let mut got = Vec::new();
            stream.read_to_end(&mut got).await.unwrap();
            stream.shutdown().await.unwrap();
            drop(stream);
            let end = server.accept().await.unwrap_err();
            assert!(end.is_clean(), "{end}");
            got.len()
        });
        let mut stream = client.open().await.unwrap();
        stream.write_all(&vec![1; len]).await.unwrap();
        stream.shutdown().await.unwrap();
        drop(stream);
        timeout(HANG, client.close()).await.unwrap();
        assert_eq!(reader.await.unwrap(), len);
        driven.await.unwrap().unwrap();
        served.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn drivers_end_by_themselves_when_nobody_holds_anything() {
    let ((client, driven), (server, served)) = pair();
    let mut here = client.open().await.unwrap();
    here.write_all(b"last words").await.unwrap();
    let mut there = server.accept().await.unwrap();
    drop(client);
    drop(server);
    // The streams live on without the handles.
    let mut got = [0; 10];
    there.read_exact(&mut got).await.unwrap();
    there.shutdown().await.unwrap();
    here.shutdown().await.unwrap();
    assert_eq!(here.read_chunk().await.unwrap(), None);
    assert_eq!(there.read_chunk().await.unwrap(), None);
    drop((here, there));
    timeout(HANG, driven).await.unwrap().unwrap().unwrap();
    timeout(HANG, served).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_go_away_is_seen_and_its_code_kept() {
    let ((client, driven), (server, _)) = pair();
    timeout(HANG, server.go_away(GoAwayCode::Other(9)))
        .await
        .unwrap();
    let end = timeout(HANG, client.closed()).await.unwrap();
    assert!(matches!(
        end,
        MuxError::GoAway {
            code: GoAwayCode::Other(9)
        }
    ));
    assert!(driven.await.unwrap().is_err());

    let ((client, _), (server, _)) = pair();
    serve_echo(server.clone());
    let mut old = client.open().await.unwrap();
    old.write_all(b"a").await.unwrap();
    old.read_u8().await.unwrap();
    timeout(HANG, server.go_away(GoAwayCode::Normal))
        .await
        .unwrap();
    client.ping().await.unwrap(); // behind the go-away
    assert!(matches!(
        client.open().await,
        Err(OpenError::PeerGoneAway { .. })
    ));
    old.write_all(b"b").await.unwrap();
    assert_eq!(old.read_u8().await.unwrap(), b'b');
    old.shutdown().await.unwrap();
    assert_eq!(old.read_chunk().await.unwrap(), None);
    assert!(timeout(HANG, server.closed()).await.unwrap().is_clean());
    assert!(timeout(HANG, client.closed()).await.unwrap().is_clean());
}

#[tokio::test]
async fn garbage_instead_of_a_peer_is_answered_and_named() {
    let (a, mut b) = duplex(1000);
    let (session, driven) = start(a, Side::Server);
    b.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await.unwrap();
    let end = timeout(HANG, session.accept()).await.unwrap().unwrap_err();
    assert_eq!(
        end.to_string(),
        "the peer broke the multiplexing protocol: version 83 instead of 0 (is the other end a yamux peer?)"
    );
    let mut answer = [0; 12];
    b.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, [0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    drop(b);
    assert!(driven.await.unwrap().is_err());
}

/// Counts writes and flushes, fails when told to, and may take vectored writes.
struct Watched {
    io: DuplexStream,
    vectored: bool,
    writes: Arc<AtomicUsize>,
    flushes: Arc<AtomicUsize>,
    broken: Arc<AtomicBool>,
    wrote: Arc<Mutex<Vec<usize>>>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.broken.load(Ordering::SeqCst) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        assert!(
            self.vectored || bufs.len() == 1,
            "{} slices at once",
            bufs.len()
        );
        let poll = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        if let Poll::Ready(Ok(n)) = poll {
            self.writes.fetch_add(1, Ordering::SeqCst);
            self.wrote.lock().unwrap().push(n);
        }
        poll
    }

    fn is_write_vectored(&self) -> bool {
        self.vectored
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

fn watched(io: DuplexStream, vectored: bool) -> Watched {
    Watched {
        io,
        vectored,
        writes: Arc::default(),
        flushes: Arc::default(),
        broken: Arc::default(),
        wrote: Arc::default(),
    }
}

#[tokio::test]
async fn small_frames_of_many_streams_share_one_write_and_one_flush() {
    for vectored in [false, true] {
        let (a, b) = duplex(1 << 20);
        let a = watched(a, vectored);
        let (writes, flushes) = (Arc::clone(&a.writes), Arc::clone(&a.flushes));
        let ((client, _), (server, _)) = pair_unpaced(a, b);
        // Nothing runs between these: the test is on one thread and does not wait.
        let mut streams = Vec::new();
        for i in 0..100 {
            let mut stream = client.open().await.unwrap();
            stream.write_all(&[i; 50]).await.unwrap();
            streams.push(stream);
        }
        assert_eq!(writes.load(Ordering::SeqCst), 0);
        for i in 0..100 {
            let mut there = server.accept().await.unwrap();
            let mut got = [0; 50];
            there.read_exact(&mut got).await.unwrap();
            assert_eq!(got, [i; 50]);
        }
        assert_eq!(writes.load(Ordering::SeqCst), 1, "one write for 100 frames");
        assert_eq!(
            flushes.load(Ordering::SeqCst),
            1,
            "one flush for 100 frames"
        );
    }
}

#[tokio::test]
async fn bulk_goes_out_in_writes_that_fill_tls_records() {
    let (a, b) = duplex(1 << 20);
    let a = watched(a, true);
    let wrote = Arc::clone(&a.wrote);
    let ((client, _), (server, _)) = pair_unpaced(a, b);
    let mut stream = client.open().await.unwrap();
    stream.write_all(b"x").await.unwrap();
    let mut there = server.accept().await.unwrap();
    there.read_u8().await.unwrap();
    wrote.lock().unwrap().clear();
    stream.write_chunk(data(128 << 10, 1).into()).await.unwrap();
    let mut got = vec![0; 128 << 10];
    there.read_exact(&mut got).await.unwrap();
    assert!(got == data(128 << 10, 1));
    assert_eq!(wrote.lock().unwrap()[0], 64 << 10, "four full records");
}

#[tokio::test]
async fn an_error_of_the_byte_stream_reaches_everybody() {
    let (a, b) = duplex(1000);
    let a = watched(a, true);
    let broken = Arc::clone(&a.broken);
    let ((client, driven), (server, _)) = pair_over(a, b);
    let mut here = client.open().await.unwrap();
    here.write_all(b"x").await.unwrap();
    let mut there = server.accept().await.unwrap();
    broken.store(true, Ordering::SeqCst);
    there.write_all(b"wakes the reader").await.unwrap();
    let error = timeout(HANG, here.read_to_end(&mut Vec::new()))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert!(matches!(
        stream_error(&error),
        StreamError::Session(MuxError::Io(_))
    ));
    assert!(matches!(driven.await.unwrap(), Err(MuxError::Io(_))));
    assert!(matches!(client.accept().await, Err(MuxError::Io(_))));
}

#[tokio::test]
async fn ten_thousand_closes_under_load_leave_nothing_behind() {
    let ((client, _), (server, _)) = pair();
    serve_echo(server.clone());
    let busy = {
        let client = client.clone();
        tokio::spawn(async move {
            for _ in 0..8 {
                ask(&client, data(1 << 20, 4)).await.unwrap();
            }
        })
    };
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..16 {
        let client = client.clone();
        tasks.spawn(async move {
            for j in 0..625 {
                let stream = client.open().await.unwrap();
                match (i + j) % 4 {
                    0 => drop(stream),
                    1 => {
                        let mut stream = stream;
                        stream.write_all(b"some").await.unwrap();
                        if j % 50 == 1 {
                            stream.reset(1);
                        } else {
                            stream.shutdown().await.unwrap();
                        }
                    }
                    _ => {
                        let mut stream = stream;
                        stream.write_all(b"question").await.unwrap();
                        stream.shutdown().await.unwrap();
                        let mut answer = Vec::new();
                        stream.read_to_end(&mut answer).await.unwrap();
                        assert_eq!(answer, b"question");
                    }
                }
            }
        });
    }
    while let Some(done) = timeout(HANG, tasks.join_next()).await.unwrap() {
        done.unwrap();
    }
    timeout(HANG, busy).await.unwrap().unwrap();
    let empty = async {
        while client.stats().streams + server.stats().streams > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(HANG, empty).await.expect("no stream is left");
    assert_eq!(client.stats().windows + server.stats().windows, 0);
    timeout(HANG, client.close()).await.unwrap();
    assert!(timeout(HANG, server.closed()).await.unwrap().is_clean());
}

/// A watcher sees everything in order, keeps nothing alive, and is done when there is nothing left.
#[tokio::test]
async fn whoever_watches_gets_everything_and_then_that_it_is_over() {
    let (a, b) = duplex(64 << 10);
    let mut config = Config::default();
    config.events = 100;
    let (server, driver) = mux(b, Side::Server, config);
    let served = tokio::spawn(driver);
    let (client, driven) = start(a, Side::Client);
    let mut events = server.events();
    let watcher = tokio::spawn(async move {
        let mut reported = Vec::new();
        while let Some(event) = events.next().await {
            reported.push(match event {
                Event::Opened { id, by_peer } => format!("opened {id} {by_peer}"),
                Event::Accepted { id } => format!("accepted {id}"),
                Event::Closed { id, stats, .. } => format!("closed {id} {}", stats.data_in),
                Event::Ended { reason } => format!("ended {}", reason.is_clean()),
                other => format!("{other:?}"),
            });
        }
        reported
    });
    serve_echo(server.clone());
    ask(&client, data(5000, 1)).await.unwrap();
    let kept = client.open().await.unwrap();
    timeout(HANG, client.ping()).await.unwrap().unwrap();
    // Nobody but the echo and the watcher knows the session now.
    drop(server);
    client.close().await;
    drop(kept);
    driven.await.unwrap().unwrap();
    served.await.unwrap().unwrap();
    let reported = timeout(HANG, watcher).await.unwrap().unwrap();
    let end = reported
        .iter()
        .position(|line| line == "ended true")
        .unwrap();
    assert_eq!(
        reported[..6],
        [
            "opened 1 true",
            "accepted 1",
            "closed 1 5000",
            "opened 3 true",
            "accepted 3",
            reported[5].as_str(),
        ]
    );
    assert_eq!(reported.len(), 7, "{reported:?}");
    // Which of the two comes first is a race between the echo and the end.
    assert!(
        end >= 5 && reported.contains(&"closed 3 0".to_owned()),
        "{reported:?}"
    );
}

/// Without room for events a watcher is told nothing, and still learns that the session is over.
#[tokio::test]
async fn whoever_watches_what_is_not_recorded_waits_for_the_end() {
    let ((client, driven), (server, served)) = pair();
    let mut events = client.events();
    let watcher = tokio::spawn(async move { events.next().await.is_none() });
    let kept = client.open().await.unwrap();
    client.close().await;
    driven.await.unwrap().unwrap();
    served.await.unwrap().unwrap();
    tokio::task::yield_now().await;
    assert!(!watcher.is_finished(), "a stream is held");
    drop(kept);
    assert!(timeout(HANG, watcher).await.unwrap().unwrap());
    drop(server);
}

/// Sessions that share far too little memory, on several threads: each gets its turn, nothing is lost, and nothing is
/// left in use.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sessions_that_wait_for_memory_all_get_their_turn() {
    let rounds = std::env::var("CEPA_ROUNDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(3);
    for round in 0..rounds {
        let pool = ReceivePool::new(1 << 20);
        let shares = [pool.share(100 << 10), pool.share(200 << 10)];
        let mut tasks = tokio::task::JoinSet::new();
        for i in 0..8 {
            let share = shares[i % 2].clone();
            tasks.spawn(async move {
                let (a, b) = duplex(10_000 + round * 7919 % 50_000);
                let (client, _) = start(a, Side::Client);
                let mut config = Config::default();
                config.receive_pool = Some(share);
                let (server, driver) = mux(b, Side::Server, config);
                tokio::spawn(driver);
                let mut transfers = tokio::task::JoinSet::new();
                let mut pairs = Vec::new();
                for _ in 0..4 {
                    let here = client.open().await.unwrap();
                    pairs.push((here, server.accept().await.unwrap()));
                }
                for (j, (mut here, mut there)) in pairs.into_iter().enumerate() {
                    let sent = data(100_000 + 7177 * i, i + j);
                    let want = sent.clone();
                    transfers.spawn(async move {
                        here.write_all(&sent).await.unwrap();
                        here.shutdown().await.unwrap();
                    });
                    transfers.spawn(async move {
                        let mut got = Vec::new();
                        there.read_to_end(&mut got).await.unwrap();
                        assert!(got == want, "{} of {} bytes", got.len(), want.len());
                    });
                }
                while let Some(done) = transfers.join_next().await {
                    done.unwrap();
                }
            });
        }
        while let Some(done) = timeout(HANG, tasks.join_next()).await.expect("a hang") {
            done.unwrap();
        }
        let empty = async {
            while pool.used() + pool.waiting() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(HANG, empty).await.expect("nothing is left in use");
    }
}

#[tokio::test]
async fn a_refused_stream_and_a_closed_session_say_why() {
    let ((client, driven), (server, served)) = pair();
    let refusing = {
        let server = server.clone();
        tokio::spawn(async move {
            server.accept().await.unwrap().refuse();
            let code = GoAwayCode::Limit(LimitKind::Memory);
            timeout(HANG, server.close_with(code)).await.unwrap();
            // It is over, whatever is said then.
            timeout(HANG, server.close()).await.unwrap();
            server.closed().await
        })
    };
    let mut stream = client.open().await.unwrap();
    let error = timeout(HANG, stream.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    let found = stream_error(&error);
    assert!(found.is_safe_to_retry());
    assert!(
        matches!(
            found,
            StreamError::RefusedByPeer {
                reason: Refusal::Application
            }
        ),
        "{found}"
    );
    let code = GoAwayCode::Limit(LimitKind::Memory);
    let end = timeout(HANG, client.closed()).await.unwrap();
    assert!(
        matches!(end, MuxError::GoAway { code: found } if found == code),
        "{end}"
    );
    assert!(!end.is_clean());
    assert!(matches!(refusing.await.unwrap(), MuxError::GaveUp { code: found } if found == code));
    assert!(matches!(
        driven.await.unwrap(),
        Err(MuxError::GoAway { .. })
    ));
    assert!(matches!(
        served.await.unwrap(),
        Err(MuxError::GaveUp { .. })
    ));
}

/// Counts how often its task was woken.
struct Counted<F> {
    future: Pin<Box<F>>,
    polls: Arc<AtomicUsize>,
}

impl<F: Future> Future for Counted<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.polls.fetch_add(1, Ordering::SeqCst);
        self.future.as_mut().poll(cx)
    }
}

/// As many are woken as there is room for, and in the order in which they came.
#[tokio::test]
async fn those_who_wait_to_open_are_woken_one_for_each_that_may() {
    const WAITING: usize = 4000;
    let (a, b) = duplex(64 << 10);
    let mut config = Config::default();
    config.max_outbound_streams = 5;
    let (client, driver) = mux(a, Side::Client, config);
    tokio::spawn(driver);
    let (server, _) = start(b, Side::Server);
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok(stream) = server.accept().await {
            kept.push(stream);
            if kept.len() == 5 {
                kept.clear();
            }
        }
    });
    let polls = Arc::new(AtomicUsize::new(0));
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..WAITING {
        let (client, order) = (client.clone(), Arc::clone(&order));
        let opening = Counted {
            future: Box::pin(async move { client.open().await }),
            polls: Arc::clone(&polls),
        };
        tasks.spawn(async move {
            // Every tenth gives up while it waits.
            if i % 10 == 9 {
                let _ = timeout(Duration::ZERO, opening).await;
                return;
            }
            let stream = opening.await.unwrap();
            order.lock().unwrap().push((stream.id(), i));
            tokio::task::yield_now().await;
        });
    }
    while let Some(done) = timeout(HANG, tasks.join_next()).await.expect("a hang") {
        done.unwrap();
    }
    let polls = polls.load(Ordering::SeqCst);
    assert!(polls < 3 * WAITING, "{polls} polls for {WAITING} openings");
    let order = order.lock().unwrap();
    assert!(order.len() >= WAITING * 9 / 10);
    assert!(order.is_sorted(), "first come, first served");
}

/// One acceptor is woken for each stream, and all of them when the session ends.
#[tokio::test]
async fn those_who_accept_are_woken_one_for_each_stream() {
    const WAITING: usize = 500;
    let ((client, _), (server, _)) = pair();
    let polls = Arc::new(AtomicUsize::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..WAITING {
        let server = server.clone();
        tasks.spawn(Counted {
            future: Box::pin(async move { server.accept().await.map(|_| ()) }),
            polls: Arc::clone(&polls),
        });
    }
    let mut kept = Vec::new();
    for _ in 0..100 {
        kept.push(client.open().await.unwrap());
        client.ping().await.unwrap();
    }
    let mut accepted = 0;
    while accepted < 100 {
        let done = timeout(HANG, tasks.join_next()).await.expect("a hang");
        done.unwrap().unwrap().unwrap();
        accepted += 1;
    }
    let before = polls.load(Ordering::SeqCst);
    assert!(before <= WAITING + 110, "{before} polls");
    client.close().await;
    while let Some(done) = timeout(HANG, tasks.join_next()).await.expect("a hang") {
        assert!(done.unwrap().unwrap_err().is_clean());
    }
}

/// Fills what a stream takes while its peer does not read.
async fn fill(stream: &mut Substream) -> usize {
    let mut taken = 0;
    while let Ok(n) = timeout(Duration::from_secs(1), stream.write(&[7; 10_000])).await {
        taken += n.unwrap();
    }
    taken
}

#[tokio::test(start_paused = true)]
async fn an_empty_write_waits_for_nothing() {
    let ((client, _), (server, _)) = pair();
    let mut here = client.open().await.unwrap();
    let there = server.accept().await.unwrap();
    fill(&mut here).await;
    let limit = Duration::from_secs(10);
    assert_eq!(timeout(limit, here.write(b"")).await.unwrap().unwrap(), 0);
    let nothing = [io::IoSlice::new(b""), io::IoSlice::new(b"")];
    let written = timeout(limit, here.write_vectored(&nothing)).await;
    assert_eq!(written.unwrap().unwrap(), 0);
    timeout(limit, here.write_all(b"")).await.unwrap().unwrap();
    timeout(limit, here.write_chunk(Bytes::new()))
        .await
        .unwrap()
        .unwrap();
    timeout(limit, here.flush()).await.unwrap().unwrap();
    drop(there);
}

/// A write that is dropped before it is done has written nothing: what the stream took before is all that arrives.
#[tokio::test(start_paused = true)]
async fn a_cancelled_write_has_written_nothing() {
    let ((client, _), (server, _)) = pair();
    let mut here = client.open().await.unwrap();
    let mut there = server.accept().await.unwrap();
    let mut taken = fill(&mut here).await;
    for _ in 0..20 {
        // The one is short and copied under the lock, the other long and copied before.
        for data in [vec![1; 100], vec![2; 20_000]] {
            let write = timeout(Duration::from_millis(10), here.write(&data)).await;
            assert!(write.is_err(), "there is no room");
        }
    }
    let reading = tokio::spawn(async move {
        let mut got = Vec::new();
        there.read_to_end(&mut got).await.unwrap();
        got
    });
    here.write_all(&[7; 10]).await.unwrap();
    taken += 10;
    here.shutdown().await.unwrap();
    let got = reading.await.unwrap();
    assert_eq!(got.len(), taken);
    assert!(
        got.iter().all(|byte| *byte == 7),
        "not a byte of what was given up"
    );
}

/// A half that is dropped says nothing: the stream ends with `shutdown`, or with the drop of both halves, which is no clean end.
#[tokio::test(start_paused = true)]
async fn a_dropped_half_of_a_split_stream_is_no_end() {
    let ((client, _), (server, _)) = pair();
    let (mut read, mut write) = tokio::io::split(client.open().await.unwrap());
    let mut there = server.accept().await.unwrap();
    write.write_all(b"half").await.unwrap();
    drop(write);
    let mut got = [0; 4];
    there.read_exact(&mut got).await.unwrap();
    let limit = Duration::from_secs(1000);
    assert!(
        timeout(limit, there.read_u8()).await.is_err(),
        "it is not over"
    );
    // The other direction goes on meanwhile.
    there.write_all(b"still").await.unwrap();
    let mut got = [0; 5];
    read.read_exact(&mut got).await.unwrap();
    drop(read);
    let error = there.read_u8().await.unwrap_err();
    assert!(
        matches!(stream_error(&error), StreamError::ResetByPeer { code: 0 }),
        "{error}"
    );
    // Shut down before it is dropped, the write half ends the direction, and the answer can be read.
    let (mut read, mut write) = tokio::io::split(client.open().await.unwrap());
    let mut there = server.accept().await.unwrap();
    write.write_all(b"whole").await.unwrap();
    write.shutdown().await.unwrap();
    drop(write);
    let mut got = Vec::new();
    there.read_to_end(&mut got).await.unwrap();
    there.write_all(&got).await.unwrap();
    there.shutdown().await.unwrap();
    got.clear();
    read.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"whole");
}

/// Without a handle a session goes on for its streams, and takes no others: the peer is told that it may open them elsewhere.
#[tokio::test]
async fn a_kept_stream_outlives_the_handles_of_its_session() {
    let ((client, driven), (server, served)) = pair();
    let mut here = client.open().await.unwrap();
    let mut there = server.accept().await.unwrap();
    let waiting = client.open().await.unwrap();
    client.ping().await.unwrap();
    drop(server);
    // One that came before, and one that comes then.
    for mut refused in [waiting, client.open().await.unwrap()] {
        let error = timeout(HANG, refused.read_u8()).await.unwrap().unwrap_err();
        let found = stream_error(&error);
        assert!(
            matches!(
                found,
                StreamError::RefusedByPeer {
                    reason: Refusal::GoingAway
                }
            ),
            "{found}"
        );
    }
    for _ in 0..3 {
        here.write_u8(1).await.unwrap();
        assert_eq!(there.read_u8().await.unwrap(), 1);
        there.write_u8(2).await.unwrap();
        assert_eq!(here.read_u8().await.unwrap(), 2);
    }
    assert!(!served.is_finished());
    there.shutdown().await.unwrap();
    drop(there);
    // That was the last one.
    timeout(HANG, served).await.unwrap().unwrap().unwrap();
    assert!(timeout(HANG, client.closed()).await.unwrap().is_clean());
    timeout(HANG, driven).await.unwrap().unwrap().unwrap();
    assert_eq!(here.read_chunk().await.unwrap(), None);
}

/// [`Substream::drained`] returns when all has left, the end too; is cancel safe; and knows a peer that takes nothing.
#[tokio::test(start_paused = true)]
async fn drained_reports_when_all_has_left() {
    let ((client, _), (server, _)) = pair();
    let mut here = client.open().await.unwrap();
    here.write_all(&data(10, 0)).await.unwrap();
    let mut there = server.accept().await.unwrap();
    let minute = Some(Duration::from_secs(60));
    here.drained(minute).await.unwrap();
    assert_eq!(here.stats().unsent, 0);
    // More than the peer's window takes.
    let long = data(250_000 + 100_000, 0);
    here.write_all(&long).await.unwrap();
    here.shutdown().await.unwrap();
    let stalled = here.drained(minute).await.unwrap_err();
    assert_eq!(stalled.kind(), std::io::ErrorKind::TimedOut);
    assert!(here.stats().unsent > 0);
    // A future that is dropped has changed nothing; one that waits is woken by the peer's reading.
    let cancelled = tokio::time::timeout(Duration::from_secs(1), here.drained(None)).await;
    assert!(cancelled.is_err());
    let reading = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let mut got = Vec::new();
        there.read_to_end(&mut got).await.unwrap();
        got.len()
    };
    let (drained, got) = tokio::join!(here.drained(None), reading);
    drained.unwrap();
    assert_eq!(got, 10 + long.len());
    // What is lost has not left.
    let mut here = client.open().await.unwrap();
    here.write_all(&long).await.unwrap();
    let mut there = server.accept().await.unwrap();
    there.reset(5);
    assert!(here.drained(None).await.is_err());
}

/// Twenty streams that always have more to send get the same, whatever a stream may queue: when the first of them has all of its own, none is
/// far behind. On one thread, so what decides is the order of turns, and no clock.
#[tokio::test]
async fn streams_share_a_session_evenly_whatever_they_may_queue() {
    const STREAMS: usize = 20;
    // What lies unread at the end differs by a window.
    const SHARE: usize = 20 << 20;
    for queue in [16 << 10, 64 << 10, 128 << 10, 1 << 20] {
        let (near, far) = duplex(256 << 10);
        let mut config = Config::default();
        config.send_queue = queue;
        let (near, driver) = mux(near, Side::Client, config.clone());
        tokio::spawn(driver);
        let (far, driver) = mux(far, Side::Server, config);
        tokio::spawn(driver);
        let got: Arc<[AtomicUsize; STREAMS]> = Arc::new([const { AtomicUsize::new(0) }; STREAMS]);
        let mut readers = tokio::task::JoinSet::new();
        let mut writers = Vec::new();
        for i in 0..STREAMS {
            let mut stream = near.open().await.unwrap();
            stream.write_u8(0).await.unwrap();
            stream.flush().await.unwrap();
            let mut read = far.accept().await.unwrap();
            read.read_u8().await.unwrap();
            writers.push(stream);
            let got = Arc::clone(&got);
            readers.spawn(async move {
                let mut space = vec![0; 64 << 10];
                while got[i].load(Ordering::Relaxed) < SHARE {
                    let n = read.read(&mut space).await.unwrap();
                    got[i].fetch_add(n, Ordering::Relaxed);
                }
                read
            });
        }
        for mut stream in writers {
            tokio::spawn(async move {
                let piece = vec![7; 64 << 10];
                while stream.write_all(&piece).await.is_ok() {}
            });
        }
        let first = timeout(HANG, readers.join_next()).await.expect("hangs");
        first.unwrap().unwrap();
        let got = got.each_ref().map(|got| got.load(Ordering::Relaxed));
        let (least, most) = (got.iter().min().unwrap(), got.iter().max().unwrap());
        let fairness = *least as f64 / *most as f64;
        println!("{queue} bytes: {fairness:.4}");
        assert!(fairness >= 0.97, "{queue} bytes: {got:?}");
    }
}
