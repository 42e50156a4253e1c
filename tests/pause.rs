//! An end that says that it will be silent, and one that does not, in a time that is made up.

mod support;

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use cepa::Side;
use cepa::identity::Pinned;
use cepa::mux::MuxError;
use cepa::session::{Session, SessionEnd};
use cepa::stack::StackConfig;
use cepa::transports::{Stream, memory};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::sleep;

use support::identity;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Whether the process at an end is stopped, and who waits for it to go on.
#[derive(Clone, Default)]
struct Process(Arc<Mutex<(bool, Vec<Waker>)>>);

impl Process {
    fn stop(&self) {
        self.0.lock().unwrap().0 = true;
    }

    fn go_on(&self) {
        let mut state = self.0.lock().unwrap();
        state.0 = false;
        state.1.drain(..).for_each(Waker::wake);
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.0.lock().unwrap();
        if !state.0 {
            return Poll::Ready(());
        }
        state.1.push(cx.waker().clone());
        Poll::Pending
    }
}

/// The end of a stream that nobody reads or writes while the process is stopped.
struct End(Stream, Process);

impl AsyncRead for End {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        std::task::ready!(self.1.poll(cx));
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for End {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.1.poll(cx));
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// A process that can be stopped, and its session with a server, which sends everything back and tells what it was asked for.
struct Case {
    process: Process,
    client: Session,
    server: Session,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Case {
    async fn new(limit: Duration) -> Self {
        let (a, b) = (identity(), identity());
        let (for_a, for_b) = (Pinned::one(b.peer_id()), Pinned::one(a.peer_id()));
        let mut client = StackConfig::new(a, Arc::new(for_a));
        // The clock of a process that is stopped does not run.
        client.mux.keepalive_interval = None;
        let mut server = StackConfig::new(b, Arc::new(for_b));
        server.mux.pause_limit = limit;
        let (near, far) = memory::pair();
        let process = Process::default();
        let near = Stream::from_io(End(near, process.clone()), "a process that can be stopped");
        let (client, server) = tokio::join!(
            Session::handshake(near, &[], Side::Client, &client),
            Session::handshake(far, &[], Side::Server, &server)
        );
        let (client, server) = (client.unwrap(), server.unwrap());
        let (serving, asked) = (server.clone(), Arc::<Mutex<Vec<String>>>::default());
        let heard = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok(incoming) = serving.accept().await {
                heard.lock().unwrap().push(incoming.service().to_owned());
                tokio::spawn(async move {
                    let (mut from, mut to) = tokio::io::split(incoming.accept().await.unwrap());
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        Self {
            process,
            client,
            server,
            asked,
        }
    }

    async fn is_given_up(&self) -> bool {
        // Ended, if at all, by the time that its timers have run.
        let end = tokio::time::timeout(SECOND / 10, self.server.closed()).await;
        match end {
            Ok(SessionEnd::Lost(MuxError::KeepaliveTimeout { .. })) => true,
            Ok(end) => panic!("{end}"),
            Err(_) => false,
        }
    }
}

async fn says_it_back(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    stream.write_all(b"hello").await.unwrap();
    stream.flush().await.unwrap();
    let mut back = [0; 5];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"hello");
}

#[tokio::test(start_paused = true)]
async fn a_stopped_process_that_said_so_keeps_its_session_and_one_that_did_not_loses_it() {
    for says_so in [true, false] {
        let case = Case::new(HOUR).await;
        let mut stream = case.client.open("echo").await.unwrap();
        says_it_back(&mut stream).await;
        let pause = if says_so {
            Some(case.client.pause(HOUR).await.unwrap())
        } else {
            None
        };
        case.process.stop();
        sleep(3000 * SECOND).await;
        assert_ne!(case.is_given_up().await, says_so);
        if let Some(pause) = pause {
            assert_eq!(pause.granted(), HOUR);
            case.process.go_on();
            says_it_back(&mut stream).await;
            drop(pause);
            sleep(SECOND).await;
            assert!(!case.server.mux_stats().peer_pauses);
            // It has to say so again.
            case.process.stop();
            sleep(31 * SECOND).await;
            assert!(case.is_given_up().await);
            // And the application has heard nothing of it.
            assert_eq!(*case.asked.lock().unwrap(), ["echo"]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_peer_grants_what_it_likes_and_no_more() {
    for (wanted, limit, granted) in [
        (HOUR, 60 * SECOND, 60 * SECOND),
        (SECOND / 2, HOUR, SECOND),
        (Duration::MAX, HOUR, HOUR),
        (HOUR, Duration::ZERO, Duration::ZERO),
    ] {
        let case = Case::new(limit).await;
        let pause = case.client.pause(wanted).await.unwrap();
        assert_eq!(pause.granted(), granted, "{wanted:?}");
        case.process.stop();
        sleep(granted.max(29 * SECOND)).await;
        assert!(!case.is_given_up().await, "{wanted:?}");
        sleep(17 * SECOND).await;
        assert!(case.is_given_up().await, "{wanted:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn another_pause_takes_the_place_of_the_one_before() {
    let case = Case::new(HOUR).await;
    let first = case.client.pause(HOUR).await.unwrap();
    let second = case.client.pause(600 * SECOND).await.unwrap();
    sleep(SECOND).await;
    assert_eq!(case.server.mux_stats().streams, 1, "one is held");
    drop(first);
    sleep(SECOND).await;
    assert!(case.server.mux_stats().peer_pauses);
    case.process.stop();
    sleep(590 * SECOND).await;
    assert!(!case.is_given_up().await);
    sleep(30 * SECOND).await;
    assert!(case.is_given_up().await);
    drop(second);
}

/// It asks for ever, and holds one substream and no more time than the limit.
#[tokio::test(start_paused = true)]
async fn a_peer_that_asks_without_end_holds_one_pause() {
    let case = Case::new(60 * SECOND).await;
    let mut held = Vec::new();
    for _ in 0..300 {
        held.push(case.client.pause(Duration::MAX).await.unwrap());
    }
    sleep(SECOND).await;
    assert_eq!(case.server.mux_stats().streams, 1);
    case.process.stop();
    sleep(76 * SECOND).await;
    assert!(case.is_given_up().await);
}
