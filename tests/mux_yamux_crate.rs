//! The `yamux` crate as the other end, in both roles: it decides whether our wire is yamux.
#![allow(clippy::cast_possible_truncation)] // patterns of bytes

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use cepa::Side;
use cepa::mux::{Config, Mux, MuxError, StreamError, mux};
use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};
use yamux::{Connection, ConnectionError, Mode, Stream};

/// No test waits longer; only a hang reaches it.
const HANG: Duration = Duration::from_secs(60);

type Driven = JoinHandle<Result<(), MuxError>>;
type Opened = Result<Stream, ConnectionError>;

/// The crate's connection in a task of its own.
struct Oracle {
    open: mpsc::UnboundedSender<oneshot::Sender<Opened>>,
    close: mpsc::UnboundedSender<()>,
    inbound: mpsc::UnboundedReceiver<Stream>,
    /// Why its session ended.
    end: JoinHandle<Option<ConnectionError>>,
}

impl Oracle {
    fn new(io: DuplexStream, mode: Mode) -> Self {
        let mut connection: Connection<Compat<DuplexStream>> =
            Connection::new(io.compat(), yamux::Config::default(), mode);
        let (open, mut opens) = mpsc::unbounded_channel::<oneshot::Sender<Opened>>();
        let (close, mut closes) = mpsc::unbounded_channel();
        let (accepted, inbound) = mpsc::unbounded_channel();
        let end = tokio::spawn(async move {
            let mut waiting: Option<oneshot::Sender<Opened>> = None;
            let mut closing = false;
            poll_fn(|cx| {
                use std::task::Poll;
                loop {
                    if closing || closes.poll_recv(cx).is_ready() {
                        closing = true;
                        return connection.poll_close(cx).map(Result::err);
                    }
                    if waiting.is_none()
                        && let Poll::Ready(Some(asked)) = opens.poll_recv(cx)
                    {
                        waiting = Some(asked);
                    }
                    if waiting.is_some()
                        && let Poll::Ready(opened) = connection.poll_new_outbound(cx)
                    {
                        let _ = waiting.take().unwrap().send(opened);
                        continue;
                    }
                    return match connection.poll_next_inbound(cx) {
                        Poll::Ready(Some(Ok(stream))) => {
                            let _ = accepted.send(stream);
                            continue;
                        }
                        Poll::Ready(Some(Err(error))) => Poll::Ready(Some(error)),
                        Poll::Ready(None) => Poll::Ready(None),
                        Poll::Pending => Poll::Pending,
                    };
                }
            })
            .await
        });
        Self {
            open,
            close,
            inbound,
            end,
        }
    }

    async fn open(&self) -> Stream {
        let (ask, opened) = oneshot::channel();
        self.open.send(ask).unwrap();
        opened.await.unwrap().unwrap()
    }
}

fn session(side: Side, config: Config) -> (Mux, Driven, Oracle) {
    let (a, b) = duplex(20_000);
    let (session, driver) = mux(a, side, config);
    let mode = if side == Side::Client {
        Mode::Server
    } else {
        Mode::Client
    };
    (session, tokio::spawn(driver), Oracle::new(b, mode))
}

fn both_roles() -> [(Mux, Driven, Oracle); 2] {
    [Side::Client, Side::Server].map(|side| session(side, Config::default()))
}

fn data(len: usize, seed: usize) -> Vec<u8> {
    (0..len)
        .map(|i| ((i * 17) ^ (i >> 7) ^ seed) as u8)
        .collect()
}

/// Our stream carries `len` bytes each way at once, and ends cleanly.
async fn use_ours(stream: cepa::mux::Substream, len: usize, seed: usize) {
    let (mut read, mut write) = tokio::io::split(stream);
    let writer = tokio::spawn(async move {
        write.write_all(&data(len, seed)).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut got = Vec::new();
    AsyncReadExt::read_to_end(&mut read, &mut got)
        .await
        .unwrap();
    assert!(got == data(len, seed + 1));
    writer.await.unwrap();
}

async fn use_theirs(stream: Stream, len: usize, seed: usize) {
    let (mut read, mut write) = futures::AsyncReadExt::split(stream);
    let writer = tokio::spawn(async move {
        write.write_all(&data(len, seed + 1)).await.unwrap();
        write.close().await.unwrap();
    });
    let mut got = Vec::new();
    read.read_to_end(&mut got).await.unwrap();
    assert!(got == data(len, seed));
    writer.await.unwrap();
}

#[tokio::test]
async fn streams_opened_by_either_end_carry_bytes_both_ways() {
    for (session, _driven, mut oracle) in both_roles() {
        for len in [0, 1, 5000, 300_000, 2_000_000] {
            let ours = session.open().await.unwrap();
            let id = usize::try_from(ours.id()).unwrap();
            let ours = tokio::spawn(use_ours(ours, len, id));
            // Its stream is there when the first frame has come.
            let theirs = timeout(HANG, oracle.inbound.recv()).await.unwrap().unwrap();
            timeout(HANG, use_theirs(theirs, len, id)).await.unwrap();
            timeout(HANG, ours).await.unwrap().unwrap();

            if len == 0 {
                continue; // it says nothing of a stream that nothing was written to
            }
            let theirs = oracle.open().await;
            let theirs = tokio::spawn(use_theirs(theirs, len, 9));
            let ours = timeout(HANG, session.accept()).await.unwrap().unwrap();
            timeout(HANG, use_ours(ours, len, 9)).await.unwrap();
            timeout(HANG, theirs).await.unwrap().unwrap();
        }
        assert_eq!(session.stats().streams, 0);
    }
}

#[tokio::test]
async fn many_streams_at_once() {
    for (session, _driven, mut oracle) in both_roles() {
        let mut tasks = tokio::task::JoinSet::new();
        for i in 0..100 {
            let ours = session.open().await.unwrap();
            tasks.spawn(use_ours(ours, 20_000 + i, 3));
        }
        for _ in 0..100 {
            let theirs = timeout(HANG, oracle.inbound.recv()).await.unwrap().unwrap();
            tasks.spawn(async move {
                // Lengths differ by stream; send back as much as came.
                let (mut read, mut write) = futures::AsyncReadExt::split(theirs);
                let mut got = Vec::new();
                read.read_to_end(&mut got).await.unwrap();
                assert!(got == data(got.len(), 3));
                write.write_all(&data(got.len(), 4)).await.unwrap();
                write.close().await.unwrap();
            });
        }
        while let Some(done) = timeout(HANG, tasks.join_next()).await.unwrap() {
            done.unwrap();
        }
    }
}

#[tokio::test]
async fn resets_are_understood_both_ways() {
    for (session, _driven, mut oracle) in both_roles() {
        // Ours, dropped: it sees no clean end of what was promised.
        let mut ours = session.open().await.unwrap();
        AsyncWriteExt::write_all(&mut ours, b"hello").await.unwrap();
        let mut theirs = timeout(HANG, oracle.inbound.recv()).await.unwrap().unwrap();
        let mut got = [0; 5];
        theirs.read_exact(&mut got).await.unwrap();
        drop(ours);
        let error = timeout(HANG, async {
            loop {
                if let Err(error) = theirs.write_all(&[0; 1000]).await {
                    break error;
                }
                tokio::task::yield_now().await;
            }
        });
        assert_eq!(error.await.unwrap().kind(), io::ErrorKind::WriteZero);

        // Its own, dropped: an error here.
        let mut theirs = oracle.open().await;
        theirs.write_all(b"hello").await.unwrap();
        theirs.flush().await.unwrap();
        let mut ours = timeout(HANG, session.accept()).await.unwrap().unwrap();
        let mut got = [0; 5];
        AsyncReadExt::read_exact(&mut ours, &mut got).await.unwrap();
        drop(theirs);
        let error = timeout(HANG, ours.read_chunk()).await.unwrap().unwrap_err();
        assert!(matches!(
            error.get_ref().unwrap().downcast_ref(),
            Some(StreamError::ResetByPeer { code: 0 })
        ));
        // The session lives on.
        timeout(HANG, session.ping()).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_larger_window_is_used_by_it() {
    let mut config = Config::default();
    config.receive_window = 1 << 20;
    let (session, _driven, mut oracle) = session(Side::Client, config);
    let mut ours = session.open().await.unwrap();
    AsyncWriteExt::write_all(&mut ours, b"x").await.unwrap();
    let mut theirs = timeout(HANG, oracle.inbound.recv()).await.unwrap().unwrap();
    // Nobody reads here, and yet 1 MiB can be written.
    timeout(HANG, theirs.write_all(&vec![7; 1 << 20]))
        .await
        .unwrap()
        .unwrap();
    timeout(HANG, theirs.close()).await.unwrap().unwrap();
    let mut got = Vec::new();
    AsyncReadExt::read_to_end(&mut ours, &mut got)
        .await
        .unwrap();
    assert_eq!(got.len(), 1 << 20);
}

#[tokio::test]
async fn either_end_closes_the_session_cleanly() {
    for (session, driven, oracle) in both_roles() {
        session.ping().await.unwrap();
        timeout(HANG, session.close()).await.unwrap();
        driven.await.unwrap().unwrap();
        // The crate knows one word for every end of a session, and gives it as none here.
        let _ = timeout(HANG, oracle.end).await.unwrap().unwrap();
    }
    for (session, driven, oracle) in both_roles() {
        session.ping().await.unwrap();
        oracle.close.send(()).unwrap();
        let end = timeout(HANG, session.closed()).await.unwrap();
        assert!(end.is_clean(), "{end}");
        driven.await.unwrap().unwrap();
        assert!(timeout(HANG, oracle.end).await.unwrap().unwrap().is_none());
    }
}
