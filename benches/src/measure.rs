//! One measurement: the time by the clock, and the processor time of the whole process.

use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::Outcome;
use crate::peers::{Peer, join};

/// One write of the application.
const WRITE: usize = 64 * 1024;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) seconds: f64,
    pub(crate) cpu: f64,
}

/// Sends `bytes` one way, and waits until the far end has read them all.
pub(crate) fn bulk(peer: Peer, bytes: usize, workers: usize) -> Outcome<Run> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()?;
    runtime.block_on(async move {
        let (mut near, mut far) = join(peer).await?;
        let (start, cpu) = (Instant::now(), cpu_seconds());
        let writer = tokio::spawn(async move {
            let data = vec![0x5A; WRITE];
            let mut left = bytes;
            while left > 0 {
                let n = left.min(WRITE);
                near.write_all(&data[..n]).await?;
                left -= n;
            }
            near.flush().await?;
            // The far end's word that all has come.
            near.read_u8().await
        });
        let reader = tokio::spawn(async move {
            let mut buffer = vec![0; WRITE];
            let mut left = bytes;
            while left > 0 {
                let n = far.read(&mut buffer).await?;
                if n == 0 {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
                left -= n;
            }
            far.write_u8(1).await?;
            far.flush().await?;
            std::io::Result::Ok(far)
        });
        let far = reader.await??;
        writer.await??;
        let run = Run {
            seconds: start.elapsed().as_secs_f64(),
            cpu: cpu_seconds() - cpu,
        };
        drop(far);
        Ok(run)
    })
}

pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// User and system time of this process, all its threads.
#[allow(clippy::cast_precision_loss)] // a bench runs for minutes, not for years
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
