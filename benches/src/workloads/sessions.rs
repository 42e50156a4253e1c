//! W4: what a session adds to a substream of its mux: the name of the service, and the answer to it.
//!
//! The work is that of `churn.rs`: open, 64 bytes there and back, close. Both kinds run in turns in one process, over connections of the
//! same kind, so that the machine's moods are in both figures and not in their ratio.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cepa::Side;
use cepa::identity::{Identity, KeyKind, Pinned};
use cepa::session::Session;
use cepa::stack::StackConfig;
use cepa::transports::Stream;
use clap::Args;
use serde::Serialize;
use tokio::task::JoinSet;

use super::churn::{answer, exchange};
use super::pingpong::MESSAGE;
use super::shared::{Values, on_workers};
use crate::Outcome;
use crate::measure::{Stopwatch, median, number};
use crate::peers::{Between, Credentials, Opener, Peer, join, tcp};

const WARM_UP: Duration = Duration::from_millis(200);

#[derive(Args, Debug, Serialize)]
pub(crate) struct Sessions {
    #[arg(long)]
    peer: Peer,
    /// Substreams that are open at once
    #[arg(long, default_value_t = 1)]
    in_flight: usize,
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// How often the two take turns
    #[arg(long, default_value_t = 9)]
    turns: u32,
    /// Threads of the runtime that both ends share
    #[arg(long, default_value_t = 1)]
    workers: usize,
}

/// Who opens.
#[derive(Clone)]
enum End {
    Mux(Opener),
    Session(Session),
    /// It waits for the peer's answer first.
    Waiting(Session),
}

impl Sessions {
    pub(crate) fn run(&self) -> Outcome<Values> {
        if self.peer != Peer::Cepa {
            return Err("a session is cepa's: take --peer cepa".into());
        }
        let (in_flight, turns) = (self.in_flight, self.turns);
        let time = Duration::from_secs_f64(self.seconds / f64::from(3 * turns));
        on_workers(self.workers, async move {
            let joined = join(
                Peer::Cepa,
                Between::Loopback,
                in_flight,
                &Credentials::new()?,
            )
            .await?;
            let mut accepter = joined.accepter;
            tokio::spawn(async move {
                while let Ok(io) = accepter.accept().await {
                    tokio::spawn(answer(io));
                }
            });
            let (near, far) = sessions().await?;
            tokio::spawn(async move {
                while let Ok(incoming) = far.accept().await {
                    tokio::spawn(async move { answer(Box::new(incoming.accept().await?)).await });
                }
            });
            let ends = [
                End::Mux(joined.opener),
                End::Session(near.clone()),
                End::Waiting(near),
            ];
            let mut ratios = [Vec::new(), Vec::new()];
            let mut rates = [Vec::new(), Vec::new(), Vec::new()];
            let mut times = Vec::new();
            for turn in 0..=turns {
                let mut found = [0.0; 3];
                let mut cpu = [0.0; 3];
                for ((rate, cpu), end) in found.iter_mut().zip(&mut cpu).zip(&ends) {
                    (*rate, *cpu) = measured(end, in_flight, time).await?;
                }
                // The first is there to warm up.
                if turn > 0 {
                    let [mux, early, waiting] = found;
                    times.push(cpu[1] / cpu[0]);
                    ratios[0].push(early / mux);
                    ratios[1].push(waiting / mux);
                    for (all, rate) in rates.iter_mut().zip(found) {
                        all.push(rate);
                    }
                }
            }
            let [early, waiting] = ratios.map(|all| median(&all));
            let [of_mux, of_early, of_waiting] = rates.map(|all| median(&all));
            Ok(vec![
                ("mux_per_second", of_mux),
                ("early_per_second", of_early),
                ("waiting_per_second", of_waiting),
                ("early_to_mux", early),
                ("early_to_mux_cpu", median(&times)),
                ("waiting_to_mux", waiting),
            ])
        })
    }
}

/// A session over loopback.
async fn sessions() -> Outcome<(Session, Session)> {
    let one = || Identity::generate(KeyKind::P256);
    let (a, b) = (one()?, one()?);
    let (for_a, for_b) = (Pinned::one(b.peer_id()), Pinned::one(a.peer_id()));
    let client = StackConfig::new(a, Arc::new(for_a));
    let server = StackConfig::new(b, Arc::new(for_b));
    let (near, far) = tcp().await?;
    let (near, far) = (Stream::from_io(near, "near"), Stream::from_io(far, "far"));
    let (near, far) = tokio::join!(
        Session::handshake(near, &[], Side::Client, &client),
        Session::handshake(far, &[], Side::Server, &server),
    );
    Ok((near?, far?))
}

/// Streams a second, and the processor time of one.
async fn measured(end: &End, in_flight: usize, time: Duration) -> Outcome<(f64, f64)> {
    let done = Arc::new(AtomicU64::new(0));
    let over = Arc::new(AtomicBool::new(false));
    let mut askers = JoinSet::new();
    for _ in 0..in_flight {
        askers.spawn(ask(end.clone(), Arc::clone(&done), Arc::clone(&over)));
    }
    tokio::time::sleep(WARM_UP.min(time / 4)).await;
    let (watch, before) = (Stopwatch::start()?, done.load(Ordering::Relaxed));
    tokio::time::sleep(time).await;
    let (run, after) = (watch.stop()?, done.load(Ordering::Relaxed));
    over.store(true, Ordering::Relaxed);
    while let Some(asker) = askers.join_next().await {
        asker??;
    }
    let streams = number(usize::try_from(after - before)?);
    Ok((streams / run.seconds, run.cpu_seconds / streams))
}

async fn ask(end: End, done: Arc<AtomicU64>, over: Arc<AtomicBool>) -> Outcome<()> {
    let mut back = Vec::with_capacity(MESSAGE + 1);
    while !over.load(Ordering::Relaxed) {
        let io = match &end {
            End::Mux(opener) => opener.open().await?,
            End::Session(session) => Box::new(session.open_early("bench").await?),
            End::Waiting(session) => Box::new(session.open("bench").await?),
        };
        exchange(io, &mut back).await?;
        done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
