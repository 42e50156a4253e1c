//! Joins over streams in memory: who is told what, who is waited for, and for how long.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use tokio::io::ReadBuf;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

#[tokio::test]
async fn both_ways_are_carried_and_half_close_is_passed_on() {
    let (mut near, user) = duplex(1000);
    let (mut far, mut peer) = duplex(100);
    let joined = tokio::spawn(async move {
        let mut join = Join::new(&mut near, &mut far);
        let ended = join.step().await;
        (format!("{ended:?}"), join.carried())
    });
    let data: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
    let sent = data.clone();
    let (mut from_user, mut to_user) = tokio::io::split(user);
    let sender = tokio::spawn(async move {
        to_user.write_all(&sent).await.unwrap();
        to_user.shutdown().await.unwrap();
    });
    let mut got = Vec::new();
    peer.read_to_end(&mut got).await.unwrap();
    assert!(got == data);
    sender.await.unwrap();
    // The other way is still open after the first has ended.
    peer.write_all(b"late").await.unwrap();
    peer.shutdown().await.unwrap();
    let mut late = Vec::new();
    from_user.read_to_end(&mut late).await.unwrap();
    assert_eq!(late, b"late");
    let (ended, carried) = joined.await.unwrap();
    assert_eq!(ended, "Over(Both { near_left: None, far_left: None })");
    assert_eq!(carried, (300_000, 4));
}

#[tokio::test]
async fn a_taker_that_leaves_ends_its_way_only() {
    let (mut near, user) = duplex(64);
    let (mut far, mut peer) = duplex(64);
    let joined =
        tokio::spawn(async move { format!("{:?}", Join::new(&mut near, &mut far).run().await) });
    drop(user); // takes nothing, and its writing side has ended
    peer.write_all(b"into the void").await.unwrap();
    let mut rest = Vec::new();
    peer.read_to_end(&mut rest).await.unwrap();
    assert!(joined.await.unwrap().starts_with("Both { near_left: Some("));
}

#[tokio::test]
async fn a_taker_that_leaves_ends_everything_where_asked() {
    let (mut near, user) = duplex(64);
    let (mut far, mut peer) = duplex(64);
    drop(user);
    peer.write_all(b"x").await.unwrap();
    let ended = Join::new(&mut near, &mut far).end_with_near().run().await;
    assert!(matches!(ended, Ended::NearLeft(_)), "{ended:?}");
}

#[tokio::test]
async fn a_stream_that_cannot_be_read_ends_everything() {
    let mut near = Broken;
    let (mut far, _peer) = duplex(64);
    let ended = Join::new(&mut near, &mut far).run().await;
    assert!(matches!(ended, Ended::Near(_)), "{ended:?}");
}

/// A stream whose other end has left: it gives so many bytes (or zeros for ever), takes nothing, and tells `why`.
struct HasLeft {
    gives: Option<usize>,
    why: fn() -> io::Error,
}

impl HasLeft {
    /// A pipe without a reader, and an input that never ends.
    const ENDLESS: Self = Self {
        gives: None,
        why: || rustix::io::Errno::PIPE.into(),
    };
}

impl Pieces for HasLeft {}

impl Leaves for HasLeft {
    fn poll_left(&mut self, _: &mut Context<'_>, _: bool) -> Poll<io::Error> {
        Poll::Ready((self.why)())
    }
}

impl AsyncRead for HasLeft {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let n = self.gives.unwrap_or(usize::MAX).min(buf.remaining());
        buf.put_slice(&vec![0; n]);
        self.gives = self.gives.map(|all| all - n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for HasLeft {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err((self.why)()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

const DAY: Duration = Duration::from_secs(24 * 3600);

/// What a join to such a standard input and output comes to.
async fn to_a_reader_that_left(mut near: HasLeft, far: &mut tokio::io::DuplexStream) -> Ended {
    let mut join = Join::new(&mut near, far).end_with_near().end_with_reader();
    let over = tokio::time::timeout(DAY, join.run()).await;
    over.expect("it does not end")
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_left_ends_an_endless_input_where_the_service_says_more() {
    // A service that echoes, as long as somebody takes that.
    let (mut far, peer) = duplex(64);
    tokio::spawn(async move {
        let (mut from, mut to) = tokio::io::split(peer);
        let _ = tokio::io::copy(&mut from, &mut to).await;
    });
    let start = tokio::time::Instant::now();
    let ended = to_a_reader_that_left(HasLeft::ENDLESS, &mut far).await;
    assert!(matches!(ended, Ended::NearLeft(_)), "{ended:?}");
    assert!(start.elapsed() <= QUIET * 2, "{:?}", start.elapsed());
}

/// The two pipes of a process that is gone: its output cannot be written to, and its input ends a moment later.
struct TwoPipes(Pin<Box<Sleep>>);

impl AsyncRead for TwoPipes {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        _: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.as_mut().poll(cx).map(Ok)
    }
}

impl AsyncWrite for TwoPipes {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::Error::from_raw_os_error(32)))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Pieces for TwoPipes {}

impl Leaves for TwoPipes {
    fn poll_left(&mut self, _: &mut Context<'_>, _: bool) -> Poll<io::Error> {
        Poll::Pending
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_of_input_right_behind_the_end_of_its_reader_is_one() {
    let moments = [(CLOSING / 2, true), (CLOSING * 2, false)];
    // A service that says how it ended decides the end, but not before its reader does.
    for ((after, passed), says) in moments.into_iter().flat_map(|m| [(m, false), (m, true)]) {
        let (mut far, mut peer) = duplex(64);
        peer.write_all(b"more").await.unwrap();
        let mut near = TwoPipes(Box::pin(sleep(after)));
        let mut join = Join::new(&mut near, &mut far)
            .end_with_near()
            .end_with_reader()
            .end_with_far(says);
        let ended = join.run().await;
        assert!(matches!(ended, Ended::NearLeft(_)), "{ended:?}, {says}");
        assert_eq!(join.near_end_passed(), passed, "{after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_left_is_why_it_ends_where_the_service_takes_nothing() {
    let (mut far, _peer) = duplex(64);
    let ended = to_a_reader_that_left(HasLeft::ENDLESS, &mut far).await;
    assert!(matches!(ended, Ended::NearLeft(_)), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_service_gets_all_of_the_input_though_nobody_reads_its_output() {
    let (mut far, mut peer) = duplex(64);
    let near = HasLeft {
        gives: Some(100_000),
        ..HasLeft::ENDLESS
    };
    let service = tokio::spawn(async move {
        let (mut all, mut some) = (0, [0; 1000]);
        loop {
            // Slowly, so that nothing is taken for a while each time.
            sleep(QUIET * 2).await;
            match peer.read(&mut some).await.unwrap() {
                0 => return all,
                n => all += n,
            }
        }
    });
    let ended = to_a_reader_that_left(near, &mut far).await;
    assert!(matches!(ended, Ended::NearLeft(_)), "{ended:?}");
    drop(far);
    assert_eq!(service.await.unwrap(), 100_000);
}

/// Gives so many bytes; a write fails, and from then on it seems to have left in order: the system tells of a reset once.
struct WasReset(rustix::io::Errno, usize);

impl Pieces for WasReset {}

impl Leaves for WasReset {
    fn poll_left(&mut self, _: &mut Context<'_>, _: bool) -> Poll<io::Error> {
        Poll::Ready(io::ErrorKind::BrokenPipe.into())
    }
}

impl AsyncRead for WasReset {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let now = buf.remaining().min(self.1);
        buf.put_slice(&vec![0; now]);
        self.1 -= now;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WasReset {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(self.0.into()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_gone_does_not_wait_for_a_service_that_waits_for_it() {
    use rustix::io::Errno;
    for (why, end_with_near) in [
        (Errno::CONNRESET, false),
        (Errno::CONNRESET, true),
        (Errno::PIPE, true),
    ] {
        // It says something, and takes no more until that is taken.
        let (mut far, mut peer) = duplex(64);
        peer.write_all(b"an answer").await.unwrap();
        let mut near = WasReset(why, usize::MAX);
        let mut join = Join::new(&mut near, &mut far);
        join.end_with_near = end_with_near;
        let ended = tokio::time::timeout(DAY, join.run()).await;
        let ended = ended.unwrap_or_else(|_| panic!("{why}, {end_with_near}: it stays"));
        assert!(matches!(ended, Ended::Near(_)), "{ended:?}");
    }
}

/// A service that says something all the time and takes something only where `takes`; how much it was.
fn talking(takes: bool) -> (DuplexStream, tokio::task::JoinHandle<usize>) {
    let (far, mut peer) = duplex(64);
    let service = tokio::spawn(async move {
        let (mut taken, mut some) = (0, [0; 64]);
        while peer.write_all(b"an answer").await.is_ok() {
            if takes {
                match peer.read(&mut some).await {
                    Ok(0) | Err(_) => break,
                    Ok(n) => taken += n,
                }
            }
        }
        taken
    });
    (far, service)
}

#[tokio::test(start_paused = true)]
async fn a_client_that_was_cut_is_missed_at_once_by_a_service_that_talks_on() {
    let (mut far, _service) = talking(false);
    let begun = tokio::time::Instant::now();
    let mut near = WasReset(rustix::io::Errno::CONNRESET, usize::MAX);
    let mut join = Join::new(&mut near, &mut far).end_with_near();
    let ended = join.run().await;
    assert!(matches!(ended, Ended::NearLeft(_)), "{ended:?}");
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn all_that_a_client_wrote_that_left_in_order_is_passed_on_whatever_its_service_says() {
    const ALL: usize = 64 << 15;
    let (mut far, service) = talking(true);
    let mut near = WasReset(rustix::io::Errno::PIPE, ALL);
    let mut join = Join::new(&mut near, &mut far).end_with_near();
    let ended = join.run().await;
    assert!(matches!(ended, Ended::NearLeft(_)), "{ended:?}");
    assert!(join.near_end_passed());
    drop(far);
    assert_eq!(service.await.unwrap(), ALL);
}

#[tokio::test(start_paused = true)]
async fn what_somebody_wrote_who_left_in_order_waits_as_long_as_its_reader_does() {
    let (mut far, mut peer) = duplex(64);
    let mut near = HasLeft {
        gives: Some(100_000),
        why: || io::ErrorKind::BrokenPipe.into(),
    };
    let reader = tokio::spawn(async move {
        sleep(Duration::from_secs(600)).await;
        let mut all = Vec::new();
        peer.read_to_end(&mut all).await.map(|_| all.len())
    });
    let ended = Join::new(&mut near, &mut far).run().await;
    assert!(matches!(ended, Ended::Both { .. }), "{ended:?}");
    drop(far);
    assert_eq!(reader.await.unwrap().unwrap(), 100_000);
}

#[tokio::test(start_paused = true)]
async fn what_came_of_a_session_that_is_over_waits_for_the_reader_of_standard_output() {
    let mut far = HasLeft {
        gives: Some(100_000),
        why: || io::ErrorKind::NotConnected.into(),
    };
    let (mut near, user) = duplex(64);
    let (mut from_user, _to_user) = tokio::io::split(user);
    let reader = tokio::spawn(async move {
        sleep(Duration::from_secs(600)).await;
        let mut all = Vec::new();
        from_user.read_to_end(&mut all).await.map(|_| all.len())
    });
    let mut join = Join::new(&mut near, &mut far)
        .end_with_near()
        .end_with_reader()
        .end_with_far(true);
    let ended = join.run().await;
    assert!(matches!(ended, Ended::Both { .. }), "{ended:?}");
    drop(near);
    assert_eq!(reader.await.unwrap().unwrap(), 100_000);
}

#[tokio::test]
async fn an_end_in_order_is_one_though_the_session_ends_with_it() {
    // In one poll the far stream ends, and its session tells that it is over.
    let mut far = HasLeft {
        gives: Some(3),
        why: || io::ErrorKind::NotConnected.into(),
    };
    let (mut near, _user) = duplex(64);
    let ended = Join::new(&mut near, &mut far)
        .end_with_far(true)
        .run()
        .await;
    let clean = matches!(
        ended,
        Ended::Both {
            near_left: None,
            far_left: None
        }
    );
    assert!(clean, "{ended:?}");
}

/// A stream that counts how often it is asked whether its other end is gone.
struct Asked(tokio::io::DuplexStream, Arc<AtomicUsize>);

impl Pieces for Asked {}

impl Leaves for Asked {
    fn poll_left(&mut self, _: &mut Context<'_>, reading: bool) -> Poll<io::Error> {
        if !reading {
            self.1.fetch_add(1, Ordering::Relaxed);
        }
        Poll::Pending
    }
}

impl AsyncRead for Asked {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Asked {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, data)
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn whether_a_writer_is_gone_is_asked_only_where_nothing_moves() {
    let (near, mut user) = duplex(1 << 20);
    let (mut far, mut peer) = duplex(1000);
    let asked = Arc::new(AtomicUsize::new(0));
    let mut near = Asked(near, Arc::clone(&asked));
    user.write_all(&vec![7; 200_000]).await.unwrap();
    let joined = tokio::spawn(async move { Join::new(&mut near, &mut far).run().await });
    let mut some = [0; 1000];
    for _ in 0..100 {
        sleep(ASKED / 4).await;
        peer.read_exact(&mut some).await.unwrap();
    }
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    sleep(ASKED * 3).await;
    assert!(asked.load(Ordering::Relaxed) > 0);
    joined.abort();
}

impl Leaves for tokio::io::DuplexStream {
    fn poll_left(&mut self, _: &mut Context<'_>, _: bool) -> Poll<io::Error> {
        Poll::Pending
    }
}

impl Pieces for Broken {}

impl Leaves for Broken {
    fn poll_left(&mut self, _: &mut Context<'_>, _: bool) -> Poll<io::Error> {
        Poll::Pending
    }
}

/// A stream whose reads fail.
struct Broken;

impl AsyncRead for Broken {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
    }
}

impl AsyncWrite for Broken {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(data.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
