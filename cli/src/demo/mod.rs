//! `cepa demo`: the main job on every transport in turn, between real peers.
//!
//! For each transport a server and a client are set up that know each other by their keys
//! (`peers.rs`), the same work is done over their session (`work.rs`, with `peer.rs` at the other
//! end), and what passed at each layer becomes a row of the table (`table.rs`). In the middle of it the TCP
//! connection is cut (`cut.rs`), and its session goes on over the next one. One difference, in
//! bytes or in who answered, fails the row, and a failed row fails the command.

mod cut;
mod peers;
mod table;
mod work;

use std::pin::pin;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::{Instant, timeout};

use crate::args::{self, Transport};
use crate::exit::{self, Code, Failure, say};
use crate::signal::Signals;
use peers::Peers;
use table::Row;
use work::Work;

/// A transport that moves nothing for so long is broken; the demo must not hang on it. How long all of it takes is up to the size.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(1);

pub(crate) async fn run(args: args::Demo) -> Result<(), Failure> {
    let mut signals = Signals::watch();
    // Dropped at a signal, with the folder and whoever runs in it.
    tokio::select! {
        done = every_transport(args) => done,
        signal = signals.ended_by() => Err(Failure::by_signal(signal)),
    }
}

async fn every_transport(args: args::Demo) -> Result<(), Failure> {
    let place = tempfile::Builder::new()
        .prefix("cepa-demo-")
        .tempdir()
        .map_err(|e| {
            Failure::new(
                Code::Local,
                format!("cannot make a temporary folder: {e}; is TMPDIR right?"),
            )
        })?;
    let work = Work::new(args.size);
    let mut rows = Vec::new();
    let mut failed = 0;
    let transports = args.transports();
    for kind in &transports {
        let progress = progress(*kind, work.total());
        let row =
            while_it_moves(|| progress.position(), one(*kind, &place, &work, &progress)).await;
        progress.finish_and_clear();
        match row {
            Ok(row) => {
                failed += usize::from(!row.equal);
                rows.push(row);
            }
            Err(failure) => {
                failed += 1;
                say(format_args!("{}: {failure}", kind.name()));
            }
        }
    }
    exit::print(&table::render(&rows))?;
    if failed == 0 {
        return exit::print(&format!("\n{}\n", work.summary()));
    }
    Err(Failure::new(
        Code::Other,
        format!(
            "{failed} of {} transports failed; see above",
            transports.len()
        ),
    ))
}

/// Waits for what is done while bytes move; gives it up when none have for [`PATIENCE`].
async fn while_it_moves<T>(
    moved: impl Fn() -> u64,
    doing: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut doing = pin!(doing);
    let (mut last, mut since) = (moved(), Instant::now());
    loop {
        if let Ok(done) = timeout(LOOK, &mut doing).await {
            return done;
        }
        let now = moved();
        if now != last {
            (last, since) = (now, Instant::now());
        } else if since.elapsed() >= PATIENCE {
            let why = format!("nothing moved for {} s", PATIENCE.as_secs());
            return Err(Failure::new(Code::Lost, why));
        }
    }
}

async fn one(
    kind: Transport,
    place: &tempfile::TempDir,
    work: &Work,
    progress: &ProgressBar,
) -> Result<Row, Failure> {
    let mut peers = Peers::meet(kind, place.path()).await?;
    let done = work.run(&peers, progress).await;
    let row = match done {
        Ok(done) => Ok(Row::new(kind, &peers.session, &mut peers.changes, &done)),
        Err(failure) => Err(failure),
    };
    peers.close().await;
    row
}

/// A bar on standard error, where that is a terminal; nothing elsewhere.
fn progress(kind: Transport, total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    if let Ok(style) =
        ProgressStyle::with_template("{msg:11} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}")
    {
        bar.set_style(style);
    }
    bar.set_message(kind.name());
    bar
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_slow_transport_has_its_time_and_one_that_stands_still_has_not() {
        let moved = AtomicU64::new(0);
        let slow = async {
            for _ in 0..100 {
                sleep(PATIENCE / 2).await;
                moved.fetch_add(1, Relaxed);
            }
            Ok(())
        };
        assert!(while_it_moves(|| moved.load(Relaxed), slow).await.is_ok());
        let stands = async {
            moved.fetch_add(1, Relaxed);
            sleep(2 * PATIENCE).await;
            Ok(())
        };
        let failure = while_it_moves(|| moved.load(Relaxed), stands).await;
        assert_eq!(failure.unwrap_err().message, "nothing moved for 60 s");
    }
}
