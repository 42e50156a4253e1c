//! The suite finds what it is there to find: each of these streams breaks one promise.
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use cepa_transports::memory;
use cepa_transports::testkit::{
    Fault, Faulty, LineSettings, Medium, Noise, Options, Rng, cable, check_streams, fill, verify,
};
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex,
};

/// Which promise is broken.
#[derive(Clone, Copy, PartialEq)]
enum Flaw {
    None,
    /// A byte in ten thousand is dropped.
    Drops,
    /// Two bytes in ten thousand change places.
    Swaps,
    /// Bytes taken by a read are lost when that read is dropped.
    NotCancelSafe,
    /// Shutdown says yes and does nothing.
    NoShutdown,
    /// Writes after shutdown are accepted.
    TakesLateWrites,
    /// The end of file is seen once, then it waits.
    EndsOnce,
    /// Nothing is written before 64 bytes have come together, flush or not.
    HoldsBack,
    /// An empty write ends the stream.
    EmptyEnds,
}

struct Flawed {
    inner: DuplexStream,
    flaw: Flaw,
    seen: u64,
    stash: Vec<u8>,
    taken: Option<(Vec<u8>, usize)>,
    ended: bool,
    shut: bool,
}

fn flawed(inner: DuplexStream, flaw: Flaw) -> Flawed {
    Flawed {
        inner,
        flaw,
        seen: 0,
        stash: Vec::new(),
        taken: None,
        ended: false,
        shut: false,
    }
}

impl AsyncRead for Flawed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.ended && this.flaw == Flaw::EndsOnce {
            return Poll::Pending;
        }
        if this.flaw == Flaw::NotCancelSafe {
            // Taken, and delivered when the same read polls again.
            let room = buf.remaining();
            match this.taken.take() {
                Some((bytes, same)) if same == room => {
                    buf.put_slice(&bytes);
                    return Poll::Ready(Ok(()));
                }
                _ => {}
            }
            let mut bytes = vec![0; room];
            let mut part = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut part))?;
            let n = part.filled().len();
            bytes.truncate(n);
            this.taken = Some((bytes, room));
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        let n = buf.filled().len() - before;
        this.ended |= n == 0 && buf.remaining() > 0;
        this.seen += n as u64;
        let bytes = &mut buf.filled_mut()[before..];
        match this.flaw {
            Flaw::Drops if n > 1 && this.seen > 10_000 => {
                this.seen = 0;
                bytes.copy_within(1.., 0);
                buf.set_filled(before + n - 1);
            }
            Flaw::Swaps if n > 1 && this.seen > 10_000 => {
                this.seen = 0;
                bytes.swap(0, n - 1);
            }
            _ => {}
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Flawed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        match this.flaw {
            Flaw::TakesLateWrites if this.shut => Poll::Ready(Ok(buf.len())),
            Flaw::HoldsBack if this.stash.len() + buf.len() < 64 => {
                this.stash.extend(buf);
                Poll::Ready(Ok(buf.len()))
            }
            Flaw::HoldsBack if !this.stash.is_empty() => {
                let n = ready!(Pin::new(&mut this.inner).poll_write(cx, &this.stash))?;
                this.stash.drain(..n);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Flaw::EmptyEnds if buf.is_empty() => {
                ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
                Poll::Ready(Ok(0))
            }
            _ => Pin::new(&mut this.inner).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.flaw == Flaw::TakesLateWrites && self.shut {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shut = true;
        if self.flaw == Flaw::NoShutdown {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// The check that fails for a flaw at both ends, if any does.
async fn judged(flaw: Flaw) -> Option<String> {
    let options = Options {
        volume: 200_000,
        limit: Duration::from_secs(5),
        ..Options::default()
    };
    let make = || async move {
        let (a, b) = duplex(4096);
        (flawed(a, flaw), flawed(b, flaw))
    };
    check_streams(&options, make)
        .await
        .err()
        .map(|failure| failure.to_string())
}

async fn fails(flaw: Flaw, parts: &[&str]) {
    let failure = judged(flaw).await.expect("the suite finds nothing");
    for part in parts {
        assert!(failure.contains(part), "{failure}");
    }
}

#[tokio::test]
async fn each_flaw_is_found() {
    assert_eq!(judged(Flaw::None).await, None);
    // All at once, because some show only by a guard's running out.
    let late = ["write_after_shutdown: a write after shutdown was taken"];
    tokio::join!(
        fails(Flaw::Drops, &["echo: byte ", "not 0x"]),
        fails(Flaw::Swaps, &["byte ", "not 0x"]),
        fails(Flaw::NotCancelSafe, &["cancelled_reads: "]),
        fails(Flaw::TakesLateWrites, &late),
        fails(Flaw::EndsOnce, &["end_of_file_repeats: hung"]),
        fails(Flaw::HoldsBack, &["hung"]),
        fails(Flaw::EmptyEnds, &["empty_buffers: "]),
        fails(Flaw::NoShutdown, &["split_tasks: hung"]),
    );
}

#[tokio::test]
async fn missing_back_pressure_is_found() {
    let options = Options {
        volume: 50_000,
        max_buffered: 500_000,
        ..Options::default()
    };
    let failure = check_streams(&options, || async { duplex(1 << 20) })
        .await
        .unwrap_err();
    assert_eq!(failure.check, "back_pressure");
}

#[tokio::test]
async fn faults_come_at_their_byte() {
    let (a, mut b) = memory::pair();
    let mut a = Faulty::new(a)
        .with_read(1000, Fault::Error(ErrorKind::ConnectionReset))
        .with_write(10, Fault::Cut);
    let mut data = [0; 2000];
    fill(1, 0, &mut data);
    b.write_all(&data).await.unwrap();
    let mut got = Vec::new();
    assert_eq!(
        a.read_to_end(&mut got).await.unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    assert_eq!(got.len(), 1000);
    verify(1, 0, &got).unwrap();
    assert!(verify(2, 0, &got).is_err());
    assert_eq!(
        a.read(&mut data).await.unwrap_err().kind(),
        ErrorKind::ConnectionReset,
        "again"
    );
    assert_eq!(a.write(b"0123456789abc").await.unwrap(), 10);
    assert_eq!(
        a.write(b"abc").await.unwrap_err().kind(),
        ErrorKind::BrokenPipe
    );

    let (a, mut b) = memory::pair();
    let mut a = Faulty::new(a)
        .with_read(3, Fault::Cut)
        .with_write(2, Fault::Swallow);
    b.write_all(b"12345").await.unwrap();
    let mut text = String::new();
    a.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "123");
    a.write_all(b"abcdef").await.unwrap();
    let mut two = [0; 2];
    b.read_exact(&mut two).await.unwrap();
    assert_eq!(&two, b"ab");
    let more = tokio::time::timeout(Duration::from_millis(20), b.read(&mut two)).await;
    assert!(more.is_err(), "the rest is gone, and no end is told");
}

#[tokio::test]
async fn a_seed_repeats_its_faults() {
    let mut kinds = std::collections::BTreeSet::new();
    for seed in 0..50 {
        let mut outcome = Vec::new();
        for _ in 0..2 {
            let (a, mut b) = memory::pair();
            let mut a = Faulty::random(a, seed, 5000);
            b.write_all(&[1; 6000]).await.unwrap();
            let mut got = Vec::new();
            let reading = a.read_to_end(&mut got);
            let end = match tokio::time::timeout(Duration::from_millis(10), reading).await {
                Ok(end) => format!("{:?}", end.map(drop).map_err(|e| e.kind())),
                Err(_) => "stalled".to_owned(),
            };
            assert!(got.len() <= 5000);
            outcome.push((got.len(), end));
        }
        assert_eq!(outcome[0], outcome[1]);
        kinds.insert(outcome.remove(0).1);
    }
    assert!(kinds.len() >= 4, "{kinds:?}");
    let mut rng = Rng::new(3);
    assert!((0..1000).all(|_| (5..=9).contains(&rng.between(5, 9))));
    assert_eq!(rng.between(9, 5), 9);
}

#[tokio::test(start_paused = true)]
async fn a_cable_has_a_rate_a_driver_and_no_end() {
    let settings = LineSettings {
        buffer: 100,
        delay: Duration::from_millis(50),
        ..LineSettings::new(1000.0)
    };
    let (mut near, mut far) = cable(&settings, &settings, 1);
    let watch = near.watch();
    let started = tokio::time::Instant::now();
    let writing = tokio::spawn(async move {
        near.write_all(&[7; 1000]).await.unwrap();
        // All but what the driver holds has gone.
        let took = started.elapsed();
        assert!(took >= Duration::from_millis(890), "{took:?}");
        near
    });
    let mut got = vec![0; 1000];
    far.read_exact(&mut got).await.unwrap();
    assert_eq!(got, [7; 1000]);
    let took = started.elapsed().as_millis();
    assert!((1050..1060).contains(&took), "{took}");
    let near = writing.await.unwrap();
    assert_eq!((watch.queued(), watch.carried()), (0, 1000));
    let silent = tokio::time::timeout(Duration::from_secs(60), far.read(&mut got));
    assert!(silent.await.is_err(), "nothing is no end");
    near.cut_off();
    assert_eq!(far.read(&mut got).await.unwrap(), 0);
    assert!(far.write_all(b"x").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_cable_is_as_noisy_as_configured_and_a_seed_repeats_it() {
    let run = async |seed| {
        let noise = Noise {
            bit_errors: 1e-3,
            drops: 1e-3,
            ..Noise::default()
        };
        let noisy = LineSettings {
            noise,
            ..LineSettings::new(1e6)
        };
        let (mut near, mut far) = cable(&noisy, &LineSettings::new(1e6), seed);
        tokio::spawn(async move {
            near.write_all(&vec![0; 50_000]).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
            near.cut_off();
        });
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        got
    };
    let got = run(1).await;
    assert!(got == run(1).await && got != run(2).await);
    let flipped: u32 = got.iter().map(|byte| byte.count_ones()).sum();
    assert!((300..500).contains(&flipped), "{flipped} bits");
    assert!((49_920..49_980).contains(&got.len()), "{}", got.len());
}

#[test]
fn what_both_ends_send_at_once_on_shared_wires_is_garbage() {
    let start = std::time::Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let settings = LineSettings {
        fifo: 1,
        ..LineSettings::new(1000.0)
    };
    for echo in [false, true] {
        let mut wires = Medium::one_way(&settings, echo, 1, start);
        assert_eq!(wires.write(at(0), 0, &[7; 100]), 100);
        // One after the other: whole, and heard by who sent it where there is an echo.
        assert_eq!(wires.read(at(101), 1), [7; 100]);
        let own = if echo { vec![7; 100] } else { Vec::new() };
        assert_eq!(wires.read(at(101), 0), own);
        assert_eq!(wires.collided(), 0);
        // The first 50 of one end meet the last 50 of the other.
        wires.write(at(200), 0, &[7; 100]);
        wires.write(at(250), 1, &[9; 100]);
        let (one, other) = (wires.read(at(400), 0), wires.read(at(400), 1));
        assert!(
            (100..=102).contains(&wires.collided()),
            "{}",
            wires.collided()
        );
        let count = |bytes: &[u8], value| {
            let same: Vec<_> = bytes.iter().filter(|byte| **byte == value).collect();
            same.len()
        };
        // A random byte may be the right one.
        assert!((49..=54).contains(&count(&one, 9)), "{one:?}");
        assert!((49..=54).contains(&count(&other, 7)), "{other:?}");
        assert_eq!(
            (one.len(), other.len()),
            if echo { (200, 200) } else { (100, 100) }
        );
        assert_eq!(wires.next(), None);
    }
    // Wires of their own do not care.
    let mut wires = Medium::two_way(&settings, &settings, 1, start);
    wires.write(at(0), 0, &[7; 100]);
    wires.write(at(0), 1, &[9; 100]);
    assert_eq!(wires.read(at(200), 0), [9; 100]);
    assert_eq!(wires.read(at(200), 1), [7; 100]);
}
