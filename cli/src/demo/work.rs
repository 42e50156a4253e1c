//! What the demo does over a session, and how it knows that nothing differs.
//!
//! At once: several substreams to an echo, each carrying its own pseudo-random bytes both ways; one
//! more whose bytes are under TLS of its own, between two other identities than the session's; and
//! one on which a TLS layer is put on and taken off while data flows before, inside and behind it.
//! Every byte that leaves and every byte that comes back goes into a SHA-256; the two must be equal
//! on each substream.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cepa::Side;
use cepa::mux::Substream;
use cepa::onion::Onion;
use indicatif::ProgressBar;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::peers::{ECHO, LAYERS, Peers};
use crate::exit::{Code, Failure};
use crate::layer_echo::SEGMENT;

/// Substreams without TLS of their own.
const PLAIN: u64 = 4;
const CHUNK: usize = 64 * 1024;

/// The work to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    /// Bytes that each echoed substream carries, each way.
    size: u64,
}

/// What was done.
#[derive(Debug)]
pub(super) struct Done {
    /// Application bytes, both ways.
    pub(super) bytes: u64,
    pub(super) took: Duration,
    /// All that came back is what was sent.
    pub(super) equal: bool,
}

impl Work {
    pub(super) fn new(mib: u32) -> Self {
        Self {
            size: u64::from(mib) * 1024 * 1024,
        }
    }

    /// Application bytes of one run, both ways.
    pub(super) fn total(self) -> u64 {
        2 * ((PLAIN + 1) * self.size + 3 * SEGMENT as u64)
    }

    pub(super) fn summary(self) -> String {
        let mib = self.size / (1024 * 1024);
        format!(
            "Each column: mutual TLS 1.3 between two new identities that know only each\n\
             other; {PLAIN} substreams and one with inner TLS of its own, {mib} MiB each way each,\n\
             at once; one substream on which a TLS layer is pushed and popped. Bytes are\n\
             those of both directions. The TCP connection is cut in the middle of it, and\n\
             the session goes on over the next one."
        )
    }

    pub(super) async fn run(self, peers: &Peers, progress: &ProgressBar) -> Result<Done, Failure> {
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        for seed in 0..PLAIN {
            let stream = peers.session.open(ECHO).await?;
            let cut = peers.cutter.as_ref().filter(|_| seed == 0);
            let cut = cut.map(|cutter| Arc::clone(&cutter.cut));
            tasks.spawn(echoed(stream, seed, self.size, cut, progress.clone()));
        }
        let stream = peers.session.open_secured(ECHO, &peers.inner).await?;
        tasks.spawn(echoed(stream, PLAIN, self.size, None, progress.clone()));
        let stream = peers.session.open(LAYERS).await?;
        let inner = peers.inner.clone();
        let bar = progress.clone();
        tasks.spawn(async move { layered(stream, &inner, &bar).await });

        let (mut bytes, mut equal) = (0, true);
        while let Some(task) = tasks.join_next().await {
            let one =
                task.map_err(|e| Failure::new(Code::Other, format!("a task failed: {e}")))??;
            bytes += one.bytes;
            equal &= one.equal;
        }
        Ok(Done {
            bytes,
            took: start.elapsed(),
            equal,
        })
    }
}

/// What one substream came to.
struct One {
    bytes: u64,
    equal: bool,
}

#[allow(clippy::needless_pass_by_value)] // for map_err
fn lost(e: std::io::Error) -> Failure {
    Failure::new(Code::Lost, format!("a substream broke: {e}"))
}

/// Sends and takes back `size` bytes, both at the same time. In the middle of that, `cut` is told.
async fn echoed(
    stream: Onion<Substream>,
    seed: u64,
    size: u64,
    cut: Option<Arc<Notify>>,
    progress: ProgressBar,
) -> Result<One, Failure> {
    let (from, to) = tokio::io::split(stream);
    let (sent, got) =
        tokio::try_join!(send(to, seed, size, cut, &progress), take(from, &progress))?;
    Ok(One {
        bytes: size + got.1,
        equal: sent == got.0 && size == got.1,
    })
}

async fn send(
    mut to: WriteHalf<Onion<Substream>>,
    seed: u64,
    size: u64,
    mut cut: Option<Arc<Notify>>,
    progress: &ProgressBar,
) -> Result<[u8; 32], Failure> {
    let mut source = Source::new(seed);
    let mut hash = Sha256::new();
    let mut left = size;
    let mut chunk = vec![0; CHUNK];
    while left > 0 {
        if left <= size / 2
            && let Some(cut) = cut.take()
        {
            cut.notify_one();
        }
        let n = left.min(CHUNK as u64);
        let part = chunk
            .get_mut(..usize::try_from(n).unwrap_or(CHUNK))
            .unwrap_or_default();
        source.fill(part);
        hash.update(&*part);
        to.write_all(part).await.map_err(lost)?;
        progress.inc(n);
        left -= n;
    }
    to.shutdown().await.map_err(lost)?;
    Ok(hash.finalize().into())
}

async fn take(
    mut from: ReadHalf<Onion<Substream>>,
    progress: &ProgressBar,
) -> Result<([u8; 32], u64), Failure> {
    let mut hash = Sha256::new();
    let mut got = 0;
    let mut chunk = vec![0; CHUNK];
    loop {
        let n = from.read(&mut chunk).await.map_err(lost)?;
        if n == 0 {
            return Ok((hash.finalize().into(), got));
        }
        hash.update(chunk.get(..n).unwrap_or_default());
        got += n as u64;
        progress.inc(n as u64);
    }
}

/// Three segments on one substream: plain, under a layer that is put on for it, and plain again.
async fn layered(
    mut stream: Onion<Substream>,
    config: &cepa::tls::TlsConfig,
    progress: &ProgressBar,
) -> Result<One, Failure> {
    let mut source = Source::new(PLAIN + 1);
    let mut one = One {
        bytes: 0,
        equal: true,
    };
    segment(&mut stream, &mut source, &mut one, progress).await?;
    stream
        .offer(Side::Client, "demo", config)
        .await
        .map_err(|e| Failure::new(Code::Other, format!("the offered layer failed: {e}")))?;
    segment(&mut stream, &mut source, &mut one, progress).await?;
    stream.pop().await?;
    segment(&mut stream, &mut source, &mut one, progress).await?;
    stream.shutdown().await.map_err(lost)?;
    Ok(one)
}

/// One segment there and back; both ends know its length.
async fn segment(
    stream: &mut Onion<Substream>,
    source: &mut Source,
    one: &mut One,
    progress: &ProgressBar,
) -> Result<(), Failure> {
    let mut sent = vec![0; SEGMENT];
    source.fill(&mut sent);
    let mut got = vec![0; SEGMENT];
    let (mut from, mut to) = tokio::io::split(&mut *stream);
    tokio::try_join!(
        async {
            to.write_all(&sent).await?;
            to.flush().await
        },
        async { from.read_exact(&mut got).await.map(|_| ()) },
    )
    .map_err(lost)?;
    one.bytes += 2 * SEGMENT as u64;
    one.equal &= Sha256::digest(&sent) == Sha256::digest(&got);
    progress.inc(2 * SEGMENT as u64);
    Ok(())
}

/// Bytes that no compression and no repetition can fake, the same for the same seed (xorshift64*).
struct Source(u64);

impl Source {
    fn new(seed: u64) -> Self {
        Self((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn fill(&mut self, out: &mut [u8]) {
        for part in out.chunks_mut(8) {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            let word = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes();
            part.copy_from_slice(word.get(..part.len()).unwrap_or_default());
        }
    }
}
