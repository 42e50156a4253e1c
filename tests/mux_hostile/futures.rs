//! A future may be dropped at any poll, and nothing is lost: no stream, no byte, no wake-up.
//!
//! Every wait is polled a few times, dropped, and made anew: once for each number of polls from 0 on,
//! again and again. The pipe between the two ends holds few bytes, so that there is much to wait for.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};

use cepa::Side;
use cepa::mux::{Config, GoAwayCode, Mux, MuxError, StreamError};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::{Ended, in_virtual_time, start, stream_error};

/// Polls what `make` makes 0, 1, 2, 3, 0, 1, … times, drops it unless it is done, and starts over.
struct Impatient {
    polls: AtomicUsize,
    dropped: AtomicUsize,
}

impl Impatient {
    fn new() -> Self {
        Self {
            polls: AtomicUsize::new(0),
            dropped: AtomicUsize::new(0),
        }
    }

    async fn insist<F: Future>(&self, mut make: impl FnMut() -> F) -> F::Output {
        loop {
            let polls = self.polls.fetch_add(1, Relaxed) % 4;
            if let Some(output) = poll_times(pin!(make()), polls).await {
                return output;
            }
            self.dropped.fetch_add(1, Relaxed);
            // Others go on meanwhile; not woken by what was dropped.
            tokio::task::yield_now().await;
        }
    }
}

impl Impatient {
    /// [`Impatient::insist`], for what borrows a stream: the future is made of nothing but `poll`.
    async fn insist_on<T>(&self, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
        let poll = Mutex::new(&mut poll);
        self.insist(|| poll_fn(|cx| (*poll.lock().unwrap())(cx)))
            .await
    }
}

/// Polls a future so many times, each time when it has woken its task or the task ran anyway.
async fn poll_times<F: Future>(mut future: Pin<&mut F>, polls: usize) -> Option<F::Output> {
    for _ in 0..polls {
        let done = poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => Poll::Ready(None),
        })
        .await;
        if done.is_some() {
            return done;
        }
        tokio::task::yield_now().await;
    }
    None
}

fn pair(buffer: usize, config: &Config) -> ((Mux, Ended), (Mux, Ended)) {
    let (a, b) = tokio::io::duplex(buffer);
    (
        start(a, Side::Client, config.clone()),
        start(b, Side::Server, config.clone()),
    )
}

#[test]
fn whatever_is_dropped_at_any_poll_is_not_lost() {
    for buffer in [7, 500, 20_000] {
        in_virtual_time(async move {
            let mut config = Config::default();
            config.accept_backlog = 3; // so that opening has to wait
            config.send_queue = 5000; // and writing
            let ((client, driven), (server, served)) = pair(buffer, &config);
            let streams = if buffer == 7 { 4 } else { 20 };
            let len = if buffer == 7 { 2000 } else { 30_000 };
            let want: Vec<u8> = (0..len).map(|i: usize| (i * 3 + i / 250) as u8).collect();

            let echo = tokio::spawn(async move {
                let impatient = Impatient::new();
                let mut tasks = tokio::task::JoinSet::new();
                for _ in 0..streams {
                    let mut stream = impatient.insist(|| server.accept()).await.unwrap();
                    tasks.spawn(async move {
                        let impatient = Impatient::new();
                        let mut got = Vec::new();
                        let mut buf = [0; 333];
                        loop {
                            // By chunks and by copies in turn.
                            let n = if got.len() % 2 == 0 {
                                let chunk = impatient
                                    .insist_on(|cx| stream.poll_read_chunk(cx))
                                    .await
                                    .unwrap();
                                let chunk = chunk.unwrap_or_default();
                                got.extend_from_slice(&chunk);
                                chunk.len()
                            } else {
                                let n = impatient
                                    .insist_on(|cx| {
                                        let mut into = ReadBuf::new(&mut buf);
                                        tokio::io::AsyncRead::poll_read(
                                            Pin::new(&mut stream),
                                            cx,
                                            &mut into,
                                        )
                                        .map_ok(|()| into.filled().len())
                                    })
                                    .await
                                    .unwrap();
                                got.extend_from_slice(&buf[..n]);
                                n
                            };
                            if n == 0 {
                                break;
                            }
                        }
                        stream.write_all(&got).await.unwrap();
                        stream.shutdown().await.unwrap();
                        impatient.dropped.load(Relaxed)
                    });
                }
                let dropped: usize = tasks.join_all().await.into_iter().sum();
                impatient.insist(|| server.ping()).await.unwrap();
                (server, dropped + impatient.dropped.load(Relaxed))
            });

            let mut asking = tokio::task::JoinSet::new();
            for _ in 0..streams {
                let (client, want) = (client.clone(), want.clone());
                asking.spawn(async move {
                    let impatient = Impatient::new();
                    let mut stream = impatient.insist(|| client.open()).await.unwrap();
                    impatient.insist(|| client.ping()).await.unwrap();
                    let mut sent = 0;
                    while sent < want.len() {
                        sent += impatient
                            .insist_on(|cx| Pin::new(&mut stream).poll_write(cx, &want[sent..]))
                            .await
                            .unwrap();
                    }
                    impatient
                        .insist_on(|cx| Pin::new(&mut stream).poll_flush(cx))
                        .await
                        .unwrap();
                    impatient
                        .insist_on(|cx| Pin::new(&mut stream).poll_shutdown(cx))
                        .await
                        .unwrap();
                    let mut got = Vec::new();
                    stream.read_to_end(&mut got).await.unwrap();
                    assert!(got == want, "{} of {} bytes", got.len(), want.len());
                    impatient.dropped.load(Relaxed)
                });
            }
            let mut dropped = asking.join_all().await.into_iter().sum::<usize>();
            let (server, more) = echo.await.unwrap();
            dropped += more;
            println!("pipe of {buffer}: {dropped} futures dropped");
            assert!(dropped > 100, "{dropped}: there was something to drop");
            let impatient = Impatient::new();
            for session in [&client, &server] {
                assert_eq!(session.stats().streams, 0, "nothing was opened for nobody");
            }
            impatient
                .insist(|| client.go_away(GoAwayCode::Normal))
                .await;
            impatient.insist(|| client.close()).await;
            assert!(impatient.insist(|| server.closed()).await.is_clean());
            driven.await.unwrap().unwrap();
            served.await.unwrap().unwrap();
        });
    }
}

/// The driver is a future as well. Dropped at any poll, it leaves both ends with an error.
#[test]
fn a_driver_that_is_dropped_at_any_poll_leaves_errors_behind() {
    in_virtual_time(async {
        for polls in 0..40 {
            let (a, b) = tokio::io::duplex(100);
            let (client, driver) = cepa::mux::mux(a, Side::Client, Config::default());
            let (server, served) = start(b, Side::Server, Config::default());
            let accepted = tokio::spawn(async move {
                let mut stream = server.accept().await?;
                let mut got = Vec::new();
                stream
                    .read_to_end(&mut got)
                    .await
                    .map_err(|_| MuxError::Eof)
            });
            let mut here = client.open().await.unwrap();
            here.write_all(&[1; 3000]).await.unwrap();
            {
                let driver = Box::pin(driver);
                let mut driver = driver;
                assert!(poll_times(driver.as_mut(), polls).await.is_none());
            }
            let error = here.read_to_end(&mut Vec::new()).await.unwrap_err();
            assert!(matches!(
                stream_error(&error),
                StreamError::Session(MuxError::DriverGone)
            ));
            assert!(matches!(client.closed().await, MuxError::DriverGone));
            assert!(accepted.await.unwrap().is_err(), "never a clean end there");
            assert!(matches!(served.await.unwrap(), Err(MuxError::Eof)));
        }
    });
}
