//! The one suite that every stream type passes.
//!
//! A check gets two ends of a fresh connection, `a` and `b`, and tells in a sentence what is wrong.
//! Data is a pattern known by position, so a lost, doubled or misplaced byte is named. The only
//! waits on a clock are guards against hanging, and the question whether a writer is blocked, which
//! is asked until the answer stays the same.
use std::fmt;
use std::future::poll_fn;
use std::io::IoSlice;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

use super::pattern::{Rng, fill, verify};
use crate::stream::{ByteStream, Stream};

/// What a kind of stream can do, and how hard it is tried.
#[derive(Clone, Debug)]
pub struct Options {
    /// Shutting down one end is seen as end of file at the other, which can go on writing. Serial
    /// lines and ptys cannot.
    pub half_close: bool,
    /// When one end is dropped the other gets an end or an error, not silence.
    pub notices_drop: bool,
    /// Bytes each way in the bulk checks.
    pub volume: usize,
    /// A writer must be blocked before it has got rid of so many bytes that nobody read.
    pub max_buffered: usize,
    /// A guard against hanging, for each check.
    pub limit: Duration,
    /// Sizes and data follow from it.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            half_close: true,
            notices_drop: true,
            // More than 1 MiB: more than every buffer on the way.
            volume: 1_300_000,
            // What Linux lets a loopback connection grow to, twice.
            max_buffered: 64 << 20,
            limit: Duration::from_secs(120),
            seed: 1,
        }
    }
}

/// A check that a stream did not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The check's name.
    pub check: &'static str,
    /// What was wrong.
    pub reason: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.reason)
    }
}

impl std::error::Error for Failure {}

type Outcome = Result<(), String>;
type Running<'a> = Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;

/// What a check needs a stream to be able to do.
enum Needs {
    Nothing,
    HalfClose,
    Notice,
}

struct Check {
    name: &'static str,
    needs: Needs,
    run: for<'a> fn(Stream, Stream, &'a Options) -> Running<'a>,
}

macro_rules! checks {
    ($($name:ident: $needs:ident),* $(,)?) => {
        &[$(Check {
            name: stringify!($name),
            needs: Needs::$needs,
            run: |a, b, o| Box::pin($name(a, b, o)),
        }),*]
    };
}

const CHECKS: &[Check] = checks![
    echo: Nothing,
    small_messages: Nothing,
    vectored: Nothing,
    empty_buffers: Nothing,
    back_pressure: Nothing,
    both_directions: Nothing,
    split_tasks: Nothing,
    cancelled_reads: Nothing,
    half_close: HalfClose,
    end_of_file_repeats: HalfClose,
    write_after_shutdown: Nothing,
    dropped_peer: Notice,
];

/// Runs every check on fresh pairs from `connect`, once each way round.
///
/// Must run on a tokio runtime with IO and time, on the real clock.
///
/// # Errors
/// The first check that failed, and why.
pub async fn check_streams<A, B, F, Fut>(options: &Options, mut connect: F) -> Result<(), Failure>
where
    A: ByteStream,
    B: ByteStream,
    F: FnMut() -> Fut,
    Fut: Future<Output = (A, B)>,
{
    for swapped in [false, true] {
        for check in CHECKS {
            let possible = match check.needs {
                Needs::Nothing => true,
                Needs::HalfClose => options.half_close,
                Needs::Notice => options.notices_drop,
            };
            if !possible {
                continue;
            }
            let (a, b) = connect().await;
            let (a, b) = (Stream::from_io(a, "a"), Stream::from_io(b, "b"));
            let (a, b) = if swapped { (b, a) } else { (a, b) };
            let round = if swapped { " (ends swapped)" } else { "" };
            let outcome = match timeout(options.limit, (check.run)(a, b, options)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(format!("hung for {} s", options.limit.as_secs())),
            };
            outcome.map_err(|r| Failure {
                check: check.name,
                reason: format!("{r}{round}"),
            })?;
        }
    }
    Ok(())
}

/// Gives an IO error the sentence that it stands in.
trait Because<T> {
    fn because(self, what: &str) -> Result<T, String>;
}

impl<T> Because<T> for std::io::Result<T> {
    fn because(self, what: &str) -> Result<T, String> {
        self.map_err(|e| format!("{what}: {e} ({:?})", e.kind()))
    }
}

fn ensure(fine: bool, otherwise: impl Into<String>) -> Outcome {
    if fine { Ok(()) } else { Err(otherwise.into()) }
}

/// Writes `total` bytes of the pattern from position `from` on, in pieces of random size, and flushes.
async fn send(
    to: &mut (impl AsyncWrite + Unpin),
    seed: u64,
    from: usize,
    total: usize,
    largest: usize,
) -> Outcome {
    let mut rng = Rng::new(seed ^ 0x5eed);
    let mut buf = vec![0; largest];
    let mut at = from;
    while at < from + total {
        let n = rng.between(1, largest).min(from + total - at);
        let piece = buf.get_mut(..n).unwrap_or_default();
        fill(seed, at as u64, piece);
        to.write_all(piece).await.because("a write")?;
        at += n;
    }
    to.flush().await.because("a flush")
}

/// Reads exactly `total` bytes and compares them.
async fn receive(from: &mut (impl AsyncRead + Unpin), seed: u64, total: usize) -> Outcome {
    let mut rng = Rng::new(seed ^ 0x4ead);
    let mut buf = vec![0; 40_000];
    let mut at = 0;
    while at < total {
        let n = rng.between(1, buf.len()).min(total - at);
        let space = buf.get_mut(..n).unwrap_or_default();
        let n = from.read(space).await.because("a read")?;
        ensure(n > 0, format!("end of file after {at} of {total} bytes"))?;
        verify(seed, at as u64, space.get(..n).unwrap_or_default())?;
        at += n;
    }
    Ok(())
}

/// Polls once, and drops what is pending.
async fn once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

async fn expect_end(from: &mut (impl AsyncRead + Unpin)) -> Outcome {
    let mut buf = [0; 64];
    let n = from.read(&mut buf).await.because("reading the end")?;
    ensure(n == 0, format!("{n} bytes too many before the end"))
}

/// Random sizes there and back, many under way at once.
async fn echo(a: Stream, mut b: Stream, o: &Options) -> Outcome {
    let total = o.volume / 4;
    let (mut read, mut write) = split(a);
    let echo = async {
        let mut buf = vec![0; 9000];
        let mut done = 0;
        while done < total {
            let n = b.read(&mut buf).await.because("the echo's read")?;
            ensure(n > 0, "end of file at the echo")?;
            let part = buf.get(..n).unwrap_or_default();
            b.write_all(part).await.because("the echo's write")?;
            b.flush().await.because("the echo's flush")?;
            done += n;
        }
        // Kept open until the other end has read everything.
        Ok::<_, String>(b)
    };
    tokio::try_join!(
        send(&mut write, o.seed, 0, total, 20_000),
        echo,
        receive(&mut read, o.seed, total)
    )
    .map(drop)
}

/// What was flushed arrives although nothing follows.
async fn small_messages(mut a: Stream, mut b: Stream, o: &Options) -> Outcome {
    let mut rng = Rng::new(o.seed);
    let mut at = 0;
    for _ in 0..100 {
        let n = rng.between(1, 40);
        let (mut out, mut back) = ([0; 40], [0; 40]);
        let out = out.get_mut(..n).unwrap_or_default();
        let back = back.get_mut(..n).unwrap_or_default();
        fill(o.seed, at, out);
        a.write_all(out).await.because("a write")?;
        a.flush().await.because("a flush")?;
        b.read_exact(back).await.because("a read")?;
        verify(o.seed, at, back)?;
        b.write_all(back).await.because("the answer")?;
        b.flush().await.because("the answer's flush")?;
        a.read_exact(back).await.because("reading the answer")?;
        verify(o.seed, at, back)?;
        at += n as u64;
    }
    Ok(())
}

/// Vectored writes keep the order of the slices, empty ones included.
async fn vectored(mut a: Stream, mut b: Stream, o: &Options) -> Outcome {
    let total = o.volume / 8;
    let mut data = vec![0; total];
    fill(o.seed, 0, &mut data);
    let writing = async {
        let mut rng = Rng::new(o.seed);
        let mut at = 0;
        while at < total {
            let mut slices = vec![IoSlice::new(&[])];
            let mut end = at;
            for _ in 0..rng.between(1, 30) {
                let n = if rng.percent(10) {
                    0
                } else {
                    rng.between(1, 700)
                };
                let next = (end + n).min(total);
                slices.push(IoSlice::new(data.get(end..next).unwrap_or_default()));
                end = next;
            }
            let n = a
                .write_vectored(&slices)
                .await
                .because("a vectored write")?;
            ensure(
                n > 0 || end == at,
                "a vectored write of some bytes took none",
            )?;
            ensure(n <= end - at, "a vectored write took more than there was")?;
            at += n;
        }
        a.flush().await.because("a flush")?;
        Ok::<_, String>(a)
    };
    tokio::try_join!(writing, receive(&mut b, o.seed, total)).map(drop)
}

/// Reading into nothing and writing nothing neither wait nor end anything.
async fn empty_buffers(mut a: Stream, mut b: Stream, o: &Options) -> Outcome {
    for _ in 0..3 {
        let n = a.write(&[]).await.because("an empty write")?;
        ensure(n == 0, "an empty write took bytes")?;
        let n = a
            .write_vectored(&[])
            .await
            .because("an empty vectored write")?;
        ensure(n == 0, "an empty vectored write took bytes")?;
    }
    send(&mut a, o.seed, 0, 100, 100).await?;
    let mut one = [0; 1];
    b.read_exact(&mut one).await.because("a read")?;
    verify(o.seed, 0, &one)?;
    let n = b.read(&mut []).await.because("a read into nothing")?;
    ensure(n == 0, "a read into nothing gave bytes")?;
    let mut rest = [0; 99];
    b.read_exact(&mut rest)
        .await
        .because("a read after one into nothing")?;
    verify(o.seed, 1, &rest)
}

/// A writer that nobody reads from is blocked at some time; then nothing is lost.
async fn back_pressure(mut a: Stream, mut b: Stream, o: &Options) -> Outcome {
    let mut sent = 0;
    let mut blocked = 0;
    let mut buf = vec![0; 8192];
    // Pending ten times with pauses between: bytes on their way through the kernel have settled.
    while blocked < 10 {
        fill(o.seed, sent as u64, &mut buf);
        // A dropped write that was pending has taken nothing, so the same bytes are tried again.
        match once(a.write(&buf)).await {
            Some(Ok(0)) => return Err("a write took nothing".to_owned()),
            Some(n) => {
                sent += n.because("a write")?;
                blocked = 0;
            }
            None => {
                blocked += 1;
                // Some streams hold bytes back until they are told.
                let _ = timeout(Duration::from_millis(20), a.flush()).await;
                sleep(Duration::from_millis(5)).await;
            }
        }
        ensure(
            sent <= o.max_buffered,
            format!("{sent} bytes were taken although nobody reads"),
        )?;
    }
    let more = 300_000.min(o.volume);
    tokio::try_join!(
        send(&mut a, o.seed, sent, more, 8192),
        receive(&mut b, o.seed, sent + more)
    )
    .map(drop)
    .map_err(|e| format!("after {sent} bytes of back-pressure: {e}"))
}

/// Full volume both ways at once, in one task.
async fn both_directions(a: Stream, b: Stream, o: &Options) -> Outcome {
    let (mut a_read, mut a_write) = split(a);
    let (mut b_read, mut b_write) = split(b);
    tokio::try_join!(
        send(&mut a_write, o.seed, 0, o.volume, 30_000),
        send(&mut b_write, o.seed + 1, 0, o.volume, 30_000),
        receive(&mut b_read, o.seed, o.volume),
        receive(&mut a_read, o.seed + 1, o.volume),
    )
    .map(drop)
}

/// The same with each half of each end in a task of its own.
async fn split_tasks(a: Stream, b: Stream, o: &Options) -> Outcome {
    let (mut a_read, mut a_write) = split(a);
    let (mut b_read, mut b_write) = split(b);
    let (volume, seed, end) = (o.volume, o.seed, o.half_close);
    let writing = [
        tokio::spawn(async move {
            send(&mut a_write, seed, 0, volume, 5000).await?;
            if end {
                a_write.shutdown().await.because("a shutdown")?;
            }
            Ok::<_, String>(a_write)
        }),
        tokio::spawn(async move {
            send(&mut b_write, seed + 1, 0, volume, 5000).await?;
            if end {
                b_write.shutdown().await.because("a shutdown")?;
            }
            Ok(b_write)
        }),
    ];
    let reading = [
        tokio::spawn(async move {
            receive(&mut b_read, seed, volume).await?;
            if end {
                expect_end(&mut b_read).await
            } else {
                Ok(())
            }
        }),
        tokio::spawn(async move {
            receive(&mut a_read, seed + 1, volume).await?;
            if end {
                expect_end(&mut a_read).await
            } else {
                Ok(())
            }
        }),
    ];
    let panicked = |e: tokio::task::JoinError| e.to_string();
    for task in reading {
        task.await.map_err(panicked)??;
    }
    for task in writing {
        task.await.map_err(panicked)??;
    }
    Ok(())
}

/// A read future that is dropped while pending has taken no byte.
async fn cancelled_reads(mut a: Stream, mut b: Stream, o: &Options) -> Outcome {
    let total = 20_000;
    let mut dropped = 0;
    let mut buf = [0; 500];
    // Nothing was written yet: this one is pending for certain.
    match once(b.read(&mut buf)).await {
        Some(got) => {
            let got = got.map_err(|e| e.kind());
            return Err(format!("a read gave {got:?} before anything was written"));
        }
        None => dropped += 1,
    }
    let seed = o.seed;
    let writer = tokio::spawn(async move {
        let mut rng = Rng::new(seed);
        let mut at = 0;
        while at < total {
            let n = rng.between(1, 300).min(total - at);
            send(&mut a, seed, at, n, 300).await?;
            at += n;
            if rng.percent(30) {
                sleep(Duration::from_millis(1)).await;
            } else {
                yield_now().await;
            }
        }
        Ok::<_, String>(a)
    });
    let mut rng = Rng::new(seed + 1);
    let mut at = 0;
    while at < total {
        let n = rng.between(1, 500).min(total - at);
        let space = buf.get_mut(..n).unwrap_or_default();
        let Some(n) = once(b.read(space)).await else {
            dropped += 1;
            yield_now().await;
            continue;
        };
        let n = n.because("a read")?;
        ensure(n > 0, format!("end of file after {at} bytes"))?;
        verify(seed, at as u64, space.get(..n).unwrap_or_default())
            .map_err(|e| format!("{e} ({dropped} reads were dropped)"))?;
        at += n;
    }
    writer.await.map_err(|e| e.to_string())?.map(drop)
}

/// One direction ends; the other goes on until it is ended too.
async fn half_close(mut a: Stream, mut b: Stream, o: &Options) -> Outcome {
    let total = o.volume / 10;
    let first = async {
        send(&mut a, o.seed, 0, total, 9000).await?;
        a.shutdown().await.because("a shutdown")
    };
    tokio::try_join!(first, async {
        receive(&mut b, o.seed, total).await?;
        expect_end(&mut b).await
    })?;
    let second = async {
        send(&mut b, o.seed + 1, 0, total, 9000).await?;
        b.shutdown().await.because("the second shutdown")
    };
    tokio::try_join!(second, async {
        receive(&mut a, o.seed + 1, total).await?;
        expect_end(&mut a).await
    })
    .map(drop)
    .map_err(|e| format!("after the other direction was closed: {e}"))
}

async fn end_of_file_repeats(mut a: Stream, mut b: Stream, o: &Options) -> Outcome {
    send(&mut a, o.seed, 0, 10, 10).await?;
    a.shutdown().await.because("a shutdown")?;
    receive(&mut b, o.seed, 10).await?;
    for _ in 0..3 {
        expect_end(&mut b).await?;
    }
    // Also after writing, and after the other end is gone.
    send(&mut b, o.seed, 0, 10, 10).await?;
    expect_end(&mut b).await?;
    receive(&mut a, o.seed, 10).await?;
    drop(a);
    expect_end(&mut b).await
}

async fn write_after_shutdown(mut a: Stream, mut b: Stream, o: &Options) -> Outcome {
    send(&mut a, o.seed, 0, 10, 10).await?;
    receive(&mut b, o.seed, 10).await?;
    a.shutdown().await.because("a shutdown")?;
    let outcome = async {
        a.write_all(b"too late").await?;
        a.flush().await
    }
    .await;
    ensure(outcome.is_err(), "a write after shutdown was taken")?;
    // Shutting down again is either fine or an error, but does not hang.
    let _ = a.shutdown().await;
    Ok(())
}

/// What was sent before an end was closed and dropped is read; then comes an end or an error, and writing
/// fails sooner or later.
async fn dropped_peer(mut a: Stream, mut b: Stream, o: &Options) -> Outcome {
    let total = 3000;
    let closing = async {
        send(&mut a, o.seed, 0, total, 1000).await?;
        let result = a.shutdown().await.because("a shutdown");
        drop(a);
        result
    };
    tokio::try_join!(closing, receive(&mut b, o.seed, total))?;
    let mut buf = vec![0; 8192];
    match b.read(&mut buf).await {
        Ok(n) => ensure(n == 0, "bytes that nobody sent")?,
        Err(_) => ensure(!o.half_close, "an error instead of the end of file")?,
    }
    let mut sent = 0;
    while sent <= o.max_buffered {
        match b.write(&buf).await {
            Ok(n) => sent += n,
            Err(_) => return Ok(()),
        }
        yield_now().await;
    }
    Err(format!(
        "{sent} bytes were taken although nobody is there any more"
    ))
}
