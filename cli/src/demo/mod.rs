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

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::args;
use crate::exit::{self, Code, Failure, say};
use peers::{Kind, Peers};
use table::Row;
use work::Work;

/// Far more than any transport needs; the demo must not hang on a broken one.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn run(args: args::Demo) -> Result<(), Failure> {
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
    for kind in Kind::ALL {
        let progress = progress(*kind, work.total());
        let row = tokio::time::timeout(PATIENCE, one(*kind, &place, &work, &progress)).await;
        progress.finish_and_clear();
        match row.unwrap_or_else(|_| {
            Err(Failure::new(
                Code::Lost,
                format!("not done within {} s", PATIENCE.as_secs()),
            ))
        }) {
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
            Kind::ALL.len()
        ),
    ))
}

async fn one(
    kind: Kind,
    place: &tempfile::TempDir,
    work: &Work,
    progress: &ProgressBar,
) -> Result<Row, Failure> {
    let peers = Peers::meet(kind, place.path()).await?;
    let done = work.run(&peers, progress).await;
    let row = match done {
        Ok(done) => Ok(Row::new(kind, &peers.session, &done)),
        Err(failure) => Err(failure),
    };
    peers.close().await;
    row
}

/// A bar on standard error, where that is a terminal; nothing elsewhere.
fn progress(kind: Kind, total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    if let Ok(style) =
        ProgressStyle::with_template("{msg:11} {bar:40} {bytes}/{total_bytes} {bytes_per_sec}")
    {
        bar.set_style(style);
    }
    bar.set_message(kind.name());
    bar
}
