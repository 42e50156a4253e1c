//! A model of the wake-ups: real sessions, drivers and substreams, run by a scheduler that decides at
//! every step of every task who goes next, and tries many such schedules.
//!
//! What can lose a wake-up is the order of "look, find nothing, leave a waker" and "change, find the
//! waker, wake". Both happen under the one lock of [`Shared`](super::shared::Shared), so the steps
//! that matter are those around the lock: [`step`] stands before it is taken and after it is let go,
//! and there the scheduler may switch. Each task has a stack of its own, so it can be
//! interrupted in the middle of a poll, as a thread can. A task that waits for a wake-up that never
//! comes leaves nobody to run, which the scheduler reports with the schedule that led there.
//!
//! Timers never fire here, so none of them can hide a lost wake-up. The seed is fixed: `CEPA_MODEL_RUNS`
//! and `CEPA_MODEL_SEED` try more, and others.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use shuttle::future::{block_on, spawn};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::sync::Mutex;
use shuttle::sync::atomic::{AtomicBool, Ordering};
use tokio::io::AsyncWrite;

use super::{Config, Mux, MuxError, StreamTimeouts, Substream, mux};
use cepa_transports::Side;

thread_local! {
    /// All tasks of a model run on the thread that started it.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Lets the scheduler of a model switch tasks; does nothing outside of a model.
pub(crate) fn step() {
    if INSIDE.get() {
        // Any operation of an atomic of the scheduler's is a place to switch. Not `yield_now`: it wakes
        // the task that calls it, and so would hide what is looked for here.
        AtomicBool::new(false).load(Ordering::SeqCst);
    }
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

fn try_schedules(model: impl Fn() + Send + Sync + 'static) {
    let runs = usize::try_from(from_environment("CEPA_MODEL_RUNS", 300)).unwrap();
    let seed = from_environment("CEPA_MODEL_SEED", 1);
    // Timers have to belong to somebody, but nobody drives this runtime.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let _entered = runtime.enter();
    let model = Arc::new(model);
    // Fair ones, and ones that let few tasks run for long.
    let schedulers: [Box<dyn Scheduler + Send>; 2] = [
        Box::new(RandomScheduler::new_from_seed(seed, runs)),
        Box::new(PctScheduler::new_from_seed(seed, 3, runs)),
    ];
    for scheduler in schedulers {
        let model = Arc::clone(&model);
        let mut config = shuttle::Config::new();
        config.stack_size = 512 << 10;
        INSIDE.set(true);
        shuttle::Runner::new(scheduler, config).run(move || model());
        INSIDE.set(false);
    }
}

/// Two ends with little room everywhere, so that everybody has to wait for everybody.
fn pair(
    buffer: usize,
) -> (
    Mux,
    Mux,
    Vec<shuttle::future::JoinHandle<Result<(), MuxError>>>,
) {
    let config = Config {
        send_queue: 5,
        accept_backlog: 1,
        keepalive_interval: None,
        stream_timeouts: StreamTimeouts::NONE,
        ..Config::default()
    };
    let (a, b) = tokio::io::duplex(buffer);
    let (client, driver) = mux(a, Side::Client, config.clone());
    let mut drivers = vec![spawn(driver)];
    let (server, driver) = mux(b, Side::Server, config);
    drivers.push(spawn(driver));
    (client, server, drivers)
}

/// A stream whose halves are in two tasks. (tokio's own `split` blocks the thread.)
type Split = Arc<Mutex<Substream>>;

async fn read_some(stream: &Split) -> std::io::Result<Option<Bytes>> {
    poll_fn(|cx| stream.lock().unwrap().poll_read_chunk(cx)).await
}

async fn write_all(stream: &Split, mut data: Bytes) -> std::io::Result<()> {
    while !data.is_empty() {
        poll_fn(|cx| stream.lock().unwrap().poll_write_chunk(cx, &mut data)).await?;
    }
    Ok(())
}

async fn shutdown(stream: &Split) -> std::io::Result<()> {
    poll_fn(|cx| Pin::new(&mut *stream.lock().unwrap()).poll_shutdown(cx)).await
}

const TEXT: &[u8] = b"every byte of this";

#[test]
fn halves_in_two_tasks_get_every_byte() {
    try_schedules(|| {
        block_on(async {
            let (client, server, drivers) = pair(20);
            let echo = spawn(async move {
                let stream = server.accept().await.unwrap();
                let stream = Arc::new(Mutex::new(stream));
                while let Some(chunk) = read_some(&stream).await.unwrap() {
                    write_all(&stream, chunk).await.unwrap();
                }
                shutdown(&stream).await.unwrap();
                // The other end closes.
                server.closed().await
            });
            let stream = Arc::new(Mutex::new(client.open().await.unwrap()));
            let writing = Arc::clone(&stream);
            let writer = spawn(async move {
                write_all(&writing, Bytes::from_static(TEXT)).await.unwrap();
                shutdown(&writing).await.unwrap();
            });
            let mut got = Vec::new();
            while let Some(chunk) = read_some(&stream).await.unwrap() {
                got.extend_from_slice(&chunk);
            }
            assert_eq!(got, TEXT);
            writer.await.unwrap();
            client.close().await;
            assert!(echo.await.unwrap().is_clean());
            for driver in drivers {
                driver.await.unwrap().unwrap();
            }
        });
    });
}

#[test]
fn those_who_open_accept_and_ping_at_once_all_get_their_turn() {
    try_schedules(|| {
        block_on(async {
            let (client, server, drivers) = pair(64);
            let mut tasks = Vec::new();
            for _ in 0..2 {
                let (client, server) = (client.clone(), server.clone());
                // One opening at a time may be unanswered, so the second waits for the first.
                tasks.push(spawn(async move { Some(client.open().await.unwrap()) }));
                tasks.push(spawn(async move { Some(server.accept().await.unwrap()) }));
            }
            let pinging = server.clone();
            tasks.push(spawn(async move {
                pinging.ping().await.unwrap();
                None
            }));
            // Kept until all are there: a stream that is dropped before its opening has left is never
            // heard of at the other end.
            let mut streams = Vec::new();
            for task in tasks {
                streams.extend(task.await.unwrap());
            }
            let mut ids: Vec<u32> = streams.iter().map(Substream::id).collect();
            ids.sort_unstable();
            assert_eq!(ids, [1, 1, 3, 3]);
            drop(streams);
            client.close().await;
            server.closed().await;
            for driver in drivers {
                driver.await.unwrap().unwrap();
            }
        });
    });
}

#[test]
fn the_end_of_a_session_reaches_everybody_who_waits() {
    try_schedules(|| {
        block_on(async {
            let (client, server, drivers) = pair(64);
            let here = Arc::new(Mutex::new(client.open().await.unwrap()));
            let there = server.accept().await.unwrap();
            let mut tasks = Vec::new();
            let reading = Arc::clone(&here);
            tasks.push(spawn(async move { read_some(&reading).await.is_err() }));
            let writing = Arc::clone(&here);
            tasks.push(spawn(async move {
                // Nobody reads there. Much more than the queue holds, and less than the window.
                for _ in 0..3 {
                    if write_all(&writing, Bytes::from_static(TEXT)).await.is_err() {
                        break;
                    }
                }
                true
            }));
            let accepting = client.clone();
            tasks.push(spawn(async move { accepting.accept().await.is_err() }));
            let ending = server.clone();
            tasks.push(spawn(async move {
                drop(there);
                ending.close().await;
                true
            }));
            for task in tasks {
                assert!(task.await.unwrap());
            }
            drop(client);
            drop(here);
            for driver in drivers {
                // Whoever was faster: an end on purpose, or what that looks like from there.
                let _ = driver.await.unwrap();
            }
        });
    });
}
