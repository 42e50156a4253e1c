//! What the workloads have in common: the threads that they run on, their streams, and the form of their figures.

use std::future::Future;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::Outcome;
use crate::peers::{Io, Joined};

/// What a workload measured.
pub(crate) type Values = Vec<(&'static str, f64)>;

/// Runs `work` on so many workers, as a task, so that the thread that waits for it does none of the work.
pub(crate) fn on_workers<T: Send + 'static>(
    workers: usize,
    work: impl Future<Output = Outcome<T>> + Send + 'static,
) -> Outcome<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()?;
    let done = runtime.block_on(async move { tokio::spawn(work).await });
    // The peers' tasks would go on for ever; the process is at its end.
    runtime.shutdown_background();
    done?
}

/// Opens a stream and takes its other end. It is there for the other end with its first byte.
pub(crate) async fn pair(joined: &mut Joined) -> Outcome<(Io, Io)> {
    let mut near = joined.opener.open().await?;
    near.write_u8(0).await?;
    near.flush().await?;
    let mut far = joined.accepter.accept().await?;
    far.read_u8().await?;
    Ok((near, far))
}
