//! The loads: what a crowd of local clients does to a `cepa forward`, and what each of them saw.
//!
//! Every client has a limit of time, so that one that waits for ever is counted and does not stop the run.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

use super::rig::{Outcome, round};

/// How often each thing happened to a client.
pub(crate) type Counts = BTreeMap<String, usize>;

/// What came of a load.
#[derive(Debug, Default)]
pub(crate) struct Came {
    pub(crate) counts: Counts,
    /// How long each client took, in milliseconds.
    pub(crate) took: Vec<f64>,
}

/// All at once, each with a round trip, and all of them held until every one has had it; then one more each.
pub(crate) async fn crowd(at: SocketAddr, clients: usize, limit: Duration) -> Outcome<Came> {
    let all_here = Arc::new(Barrier::new(clients));
    let mut tasks = JoinSet::new();
    for n in 0..clients as u64 {
        let all_here = Arc::clone(&all_here);
        tasks.spawn(async move {
            let since = Instant::now();
            let first = timeout(limit, async {
                let mut stream = TcpStream::connect(at).await?;
                round(&mut stream, n).await?;
                Ok::<_, super::rig::Failure>(stream)
            });
            let first = first.await;
            let took = since.elapsed();
            all_here.wait().await;
            let what = match first {
                Err(_) => "no answer in time".to_owned(),
                Ok(Err(e)) => format!("failed: {e}"),
                Ok(Ok(mut stream)) => match timeout(limit, round(&mut stream, n + 1)).await {
                    Err(_) => "no second answer in time".to_owned(),
                    Ok(Err(e)) => format!("failed later: {e}"),
                    Ok(Ok(())) => "answered twice".to_owned(),
                },
            };
            (what, took)
        });
    }
    collect(tasks).await
}

/// All at once, each of which has a round trip, stays for a while, and ends: where there is room for a part of them, the others
/// wait for theirs.
pub(crate) async fn turns(
    at: SocketAddr,
    clients: usize,
    stay: Duration,
    limit: Duration,
) -> Outcome<Came> {
    let mut tasks = JoinSet::new();
    for n in 0..clients as u64 {
        tasks.spawn(async move {
            let since = Instant::now();
            let turn = async {
                let mut stream = TcpStream::connect(at).await?;
                round(&mut stream, n).await?;
                tokio::time::sleep(stay).await;
                stream.shutdown().await?;
                Ok::<_, super::rig::Failure>(stream.read_to_end(&mut Vec::new()).await?)
            };
            let what = match timeout(limit, turn).await {
                Err(_) => "no turn in time".to_owned(),
                Ok(Err(e)) => format!("failed: {e}"),
                Ok(Ok(_)) => "had its turn".to_owned(),
            };
            (what, since.elapsed())
        });
    }
    collect(tasks).await
}

/// So many a second, each of which sends a byte and resets.
pub(crate) async fn leave(at: SocketAddr, clients: usize, a_second: u32) -> Outcome<Came> {
    let mut tasks = JoinSet::new();
    let mut clock = every(a_second);
    for _ in 0..clients {
        clock.tick().await;
        tasks.spawn(async move {
            let since = Instant::now();
            let left = async {
                let mut stream = TcpStream::connect(at).await?;
                stream.write_all(b"x").await?;
                stream.set_zero_linger()
            };
            let what = match timeout(Duration::from_secs(60), left).await {
                Err(_) => "not connected in time".to_owned(),
                Ok(Err(e)) => format!("failed: {e}"),
                Ok(Ok(())) => "left".to_owned(),
            };
            (what, since.elapsed())
        });
    }
    collect(tasks).await
}

/// So many a second, each of which waits for its end; says whether that was a reset.
pub(crate) async fn knock(at: SocketAddr, clients: usize, a_second: u32) -> Outcome<Came> {
    let mut tasks = JoinSet::new();
    let mut clock = every(a_second);
    for _ in 0..clients {
        clock.tick().await;
        tasks.spawn(async move {
            let since = Instant::now();
            let ended = async {
                let mut stream = TcpStream::connect(at).await?;
                stream.read_to_end(&mut Vec::new()).await
            };
            let what = match timeout(Duration::from_secs(60), ended).await {
                Err(_) => "no end in time".to_owned(),
                Ok(Err(e)) if e.kind() == std::io::ErrorKind::ConnectionReset => "reset".to_owned(),
                Ok(Err(e)) => format!("failed: {e}"),
                Ok(Ok(0)) => "ended".to_owned(),
                Ok(Ok(n)) => format!("{n} bytes"),
            };
            (what, since.elapsed())
        });
    }
    collect(tasks).await
}

/// A tick that catches up, so that the rate is kept.
fn every(a_second: u32) -> Interval {
    let mut clock = interval(Duration::from_secs(1) / a_second);
    clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
    clock
}

async fn collect(mut tasks: JoinSet<(String, Duration)>) -> Outcome<Came> {
    let mut came = Came::default();
    while let Some(done) = tasks.join_next().await {
        let (what, took) = done?;
        *came.counts.entry(what).or_default() += 1;
        came.took.push(took.as_secs_f64() * 1e3);
    }
    Ok(came)
}
