//! What is in hand between a read and a write: the bytes that one stream gave and the other has not taken.
//!
//! A stream that rests has none, and no memory for any. One that moves little is read in pieces of 4 KiB, and one that fills
//! such a piece in larger ones, for as long as there is more: those of a substream are taken as they are, several at once, and what is
//! for a substream is read into memory that it can keep, two pieces at once, so that nothing is copied here. Where the bytes are a peer's, the large pieces are counted to
//! that peer's share of memory ([`ReceivePool`]); when that is used up they stay small, so that a peer with many streams
//! that it does not read makes no more of them. The small ones are counted with the substream itself.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use cepa::ServiceStream;
use cepa::mux::{self, Held, ReceivePool};
use cepa::onion::Onion;
use cepa::transports::Stream;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};

/// Most bytes of a stream that moves little.
const SMALL: usize = 4 * 1024;

/// The same of one that moves much: enough to fill several records.
const LARGE: usize = 64 * 1024;

/// Most memory of what is in hand of a stream that moves much.
const LARGE_TAKEN: usize = 2 * LARGE;

/// Pieces that are taken at once, and written in one call.
const TAKEN: usize = 8;

/// A stream that may take and hand out memory of its own. As a rule it does not, and is read and written as any other.
pub(crate) trait Pieces {
    /// What has come; empty at its end. None: it is to be read.
    fn poll_take(&mut self, _: &mut Context<'_>) -> Option<Poll<io::Result<Bytes>>> {
        None
    }

    /// Whether [`Pieces::poll_keep`] keeps anything.
    fn keeps(&self) -> bool {
        false
    }

    /// Takes from the front of `piece` what there is room for. None: it is to be written.
    fn poll_keep(&mut self, _: &mut Context<'_>, _: &mut Bytes) -> Option<Poll<io::Result<usize>>> {
        None
    }
}

impl Pieces for Stream {}

impl Pieces for Onion<Stream> {}

impl Pieces for ServiceStream {
    fn poll_take(&mut self, cx: &mut Context<'_>) -> Option<Poll<io::Result<Bytes>>> {
        let taken = self.poll_read_chunk(cx);
        Some(taken.map_ok(Option::unwrap_or_default))
    }

    fn keeps(&self) -> bool {
        self.depth() == 0
    }

    fn poll_keep(
        &mut self,
        cx: &mut Context<'_>,
        piece: &mut Bytes,
    ) -> Option<Poll<io::Result<usize>>> {
        Some(self.poll_write_chunk(cx, piece))
    }
}

#[derive(Debug, Default)]
pub(crate) struct Chunk {
    /// `bytes[start..]` was read and is not written yet.
    bytes: Vec<u8>,
    start: usize,
    /// What was taken instead, or is to be kept by who takes it. None of it is empty.
    pieces: VecDeque<Bytes>,
    /// Whose memory large pieces are; nobody's in particular where it is none.
    memory: Option<ReceivePool>,
    held: Option<Held>,
    /// The last one was filled to its end.
    full: bool,
    /// What stands behind the pieces, and is told once: the end of the stream, or why it could not be read.
    behind: Option<io::Result<()>>,
}

impl Chunk {
    /// Large pieces are counted to this.
    pub(crate) fn counted(memory: ReceivePool) -> Self {
        Self {
            memory: Some(memory),
            ..Self::default()
        }
    }

    /// What waits to be written.
    pub(crate) fn waiting(&self) -> &[u8] {
        match self.pieces.front() {
            Some(piece) => piece,
            None => self.bytes.get(self.start..).unwrap_or_default(),
        }
    }

    /// All that waits to be written, in bytes.
    pub(crate) fn len(&self) -> usize {
        let taken: usize = self.pieces.iter().map(Bytes::len).sum();
        taken + self.bytes.len() - self.start
    }

    /// Drops what waits: it is for nobody.
    pub(crate) fn clear(&mut self) {
        self.pieces.clear();
        self.start = self.bytes.len();
    }

    /// So many bytes of what waits were written.
    fn advance(&mut self, mut n: usize) {
        while n > 0
            && let Some(piece) = self.pieces.front_mut()
        {
            let now = n.min(piece.len());
            piece.advance(now);
            n -= now;
            if piece.is_empty() {
                self.pieces.pop_front();
            }
        }
        self.start += n;
    }

    /// Reads the next piece where none waits; it is empty at the end of the stream. `kept`: who takes it can keep its memory. Cancel safe.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Pieces + Unpin),
        kept: bool,
    ) -> Poll<io::Result<()>> {
        if !self.waiting().is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.start = 0;
        self.bytes.clear();
        if let Some(behind) = self.behind.take() {
            return Poll::Ready(behind);
        }
        self.full = self.full && self.may_be_large();
        if self.full
            && let Some(taken) = from.poll_take(cx)
        {
            return self.poll_take(cx, from, taken);
        }
        if self.full && kept {
            if self.bytes.capacity() != mux::CHUNK {
                self.bytes = mux::take_chunk();
            }
        } else {
            let size = if self.full { LARGE } else { SMALL };
            if self.bytes.capacity() != size {
                self.bytes = Vec::with_capacity(size);
            }
        }
        if let Poll::Ready(read) = pin!(from.read_buf(&mut self.bytes)).poll(cx) {
            let read = read?;
            if self.full && kept && read >= mux::CHUNK / 2 {
                let whole = mux::share_chunk(std::mem::take(&mut self.bytes));
                self.pieces.push_back(whole);
                if read == mux::CHUNK {
                    self.read_on(cx, from);
                }
            }
            self.full = read >= SMALL;
            return Poll::Ready(Ok(()));
        }
        self.rest();
        Poll::Pending
    }

    /// Reads a second piece where the first was full: the two leave in one write of the session. With one at a time its driver, on
    /// another worker, sends each by itself.
    fn read_on(&mut self, cx: &mut Context<'_>, from: &mut (impl AsyncRead + Unpin)) {
        let mut next = mux::take_chunk();
        let read = pin!(from.read_buf(&mut next)).poll(cx);
        let next = mux::share_chunk(next);
        match read {
            Poll::Ready(Ok(0)) => self.behind = Some(Ok(())),
            Poll::Ready(Ok(n)) if n < mux::CHUNK / 2 => {
                self.pieces.push_back(Bytes::copy_from_slice(&next));
            }
            Poll::Ready(Ok(_)) => self.pieces.push_back(next),
            Poll::Ready(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
            Poll::Ready(Err(e)) => self.behind = Some(Err(e)),
            Poll::Pending => {}
        }
    }

    /// Takes what is there, beginning with `first`: as much as is counted, whatever each piece keeps in memory.
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl Pieces,
        first: Poll<io::Result<Bytes>>,
    ) -> Poll<io::Result<()>> {
        self.bytes = Vec::new();
        let Poll::Ready(first) = first else {
            self.rest();
            return Poll::Pending;
        };
        let (mut next, mut bytes, mut memory) = (first?, 0, 0);
        while !next.is_empty() {
            bytes += next.len();
            // A part of a chunk keeps all of it.
            memory += next.len().max(mux::CHUNK);
            self.pieces.push_back(next);
            if self.pieces.len() == TAKEN || memory + mux::CHUNK > LARGE_TAKEN {
                break;
            }
            match from.poll_take(cx) {
                Some(Poll::Ready(Ok(more))) => next = more,
                // An end or an error is there again at the next call.
                _ => break,
            }
        }
        self.full = bytes >= SMALL;
        Poll::Ready(Ok(()))
    }

    /// Writes of what waits as much as is taken in one call, and says how much.
    pub(crate) fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut (impl AsyncWrite + Pieces + Unpin),
    ) -> Poll<io::Result<usize>> {
        if let Some(front) = self.pieces.front_mut()
            && let Some(kept) = to.poll_keep(cx, front)
        {
            let n = ready!(kept)?;
            if front.is_empty() {
                self.pieces.pop_front();
            }
            return Poll::Ready(Ok(n));
        }
        let n = if self.pieces.len() > 1 && to.is_write_vectored() {
            let mut slices = [IoSlice::new(&[]); TAKEN];
            for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
                *slice = IoSlice::new(piece);
            }
            let slices = slices.get(..self.pieces.len()).unwrap_or_default();
            ready!(Pin::new(to).poll_write_vectored(cx, slices))?
        } else {
            ready!(Pin::new(to).poll_write(cx, self.waiting()))?
        };
        self.advance(n);
        Poll::Ready(Ok(n))
    }

    /// Gives back what a stream that rests does not need.
    fn rest(&mut self) {
        if self.bytes.capacity() == mux::CHUNK {
            drop(mux::share_chunk(std::mem::take(&mut self.bytes)));
        }
        (self.bytes, self.held, self.full) = (Vec::new(), None, false);
        self.pieces = VecDeque::new();
    }

    fn may_be_large(&mut self) -> bool {
        if let Some(memory) = &self.memory
            && self.held.is_none()
        {
            self.held = memory.hold(LARGE_TAKEN);
            return self.held.is_some();
        }
        true
    }
}

/// Sends back what comes, until it ends.
pub(crate) async fn echo<S>(far: &mut S, mut piece: Chunk) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Pieces + Unpin,
{
    use tokio::io::AsyncWriteExt as _;
    loop {
        let kept = far.keeps();
        std::future::poll_fn(|cx| piece.poll_fill(cx, far, kept)).await?;
        if piece.waiting().is_empty() {
            return Ok(());
        }
        while !piece.waiting().is_empty() {
            if std::future::poll_fn(|cx| piece.poll_drain(cx, far)).await? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        far.flush().await?;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt as _, duplex};

    use super::*;

    impl Pieces for tokio::io::DuplexStream {}

    async fn fill(piece: &mut Chunk, from: &mut (impl AsyncRead + Pieces + Unpin)) -> usize {
        std::future::poll_fn(|cx| piece.poll_fill(cx, from, false))
            .await
            .unwrap();
        let n = piece.len();
        piece.clear();
        n
    }

    fn rests(piece: &mut Chunk, from: &mut (impl AsyncRead + Pieces + Unpin)) {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(piece.poll_fill(&mut cx, from, false).is_pending());
        assert_eq!(piece.bytes.capacity(), 0);
    }

    #[tokio::test]
    async fn pieces_grow_while_much_comes_and_are_gone_when_nothing_does() {
        let pool = ReceivePool::new(LARGE_TAKEN);
        let mut piece = Chunk::counted(pool.clone());
        let (mut near, mut far) = duplex(1 << 20);
        near.write_all(&vec![7; SMALL + LARGE + 1]).await.unwrap();
        assert_eq!(fill(&mut piece, &mut far).await, SMALL);
        assert_eq!(pool.used(), 0);
        assert_eq!(fill(&mut piece, &mut far).await, LARGE);
        assert_eq!(pool.used(), LARGE_TAKEN);
        assert_eq!(fill(&mut piece, &mut far).await, 1);
        rests(&mut piece, &mut far);
        assert_eq!(pool.used(), 0);
    }

    /// Two ends of a substream.
    async fn substream() -> (ServiceStream, ServiceStream) {
        let (near, far) = duplex(1 << 20);
        let config = mux::Config::default;
        let (near, driver) = mux::mux(near, cepa::Side::Client, config());
        tokio::spawn(driver);
        let (far, driver) = mux::mux(far, cepa::Side::Server, config());
        tokio::spawn(driver);
        let mut opened = Onion::new(near.open().await.unwrap());
        opened.write_all(b"x").await.unwrap();
        let mut accepted = Onion::new(far.accept().await.unwrap());
        assert_eq!(accepted.read_u8().await.unwrap(), b'x');
        (opened, accepted)
    }

    #[tokio::test]
    async fn of_a_substream_pieces_are_taken_and_kept_by_another_and_counted() {
        const ALL: usize = 1 << 20;
        let data: Vec<u8> = (0..=250).cycle().take(ALL).collect();
        let (mut source, mut from) = substream().await;
        let (mut to, mut sink) = substream().await;
        let sent = data.clone();
        tokio::spawn(async move {
            source.write_all(&sent).await.unwrap();
            source.shutdown().await.unwrap();
        });
        let pool = ReceivePool::new(LARGE_TAKEN);
        let mut piece = Chunk::counted(pool.clone());
        let carried = tokio::spawn(async move {
            let (mut taken, mut copied) = (0, 0);
            loop {
                let fill = std::future::poll_fn(|cx| piece.poll_fill(cx, &mut from, to.keeps()));
                fill.await.unwrap();
                if piece.waiting().is_empty() {
                    break;
                }
                let counter = if piece.pieces.is_empty() {
                    &mut copied
                } else {
                    &mut taken
                };
                *counter += piece.len();
                assert!(piece.len() <= LARGE_TAKEN);
                assert!(piece.pieces.is_empty() || piece.held.is_some());
                while !piece.waiting().is_empty() {
                    let drained = std::future::poll_fn(|cx| piece.poll_drain(cx, &mut to));
                    assert!(drained.await.unwrap() > 0);
                }
            }
            to.shutdown().await.unwrap();
            (taken, copied)
        });
        let mut got = Vec::new();
        sink.read_to_end(&mut got).await.unwrap();
        assert!(got == data);
        let (taken, copied) = carried.await.unwrap();
        assert_eq!(taken + copied, ALL);
        assert!(taken > ALL / 2, "{taken} of {ALL}");
        assert_eq!(pool.used(), 0);
    }

    #[tokio::test]
    async fn what_a_substream_can_keep_is_read_into_memory_for_it() {
        const ALL: usize = 1 << 20;
        let data: Vec<u8> = (0..=250).cycle().take(ALL).collect();
        let (mut near, mut from) = duplex(ALL);
        near.write_all(&data).await.unwrap();
        drop(near);
        let (mut to, mut sink) = substream().await;
        let mut piece = Chunk::default();
        let carried = tokio::spawn(async move {
            let mut kept = 0;
            loop {
                let fill = std::future::poll_fn(|cx| piece.poll_fill(cx, &mut from, to.keeps()));
                fill.await.unwrap();
                if piece.waiting().is_empty() {
                    to.shutdown().await.unwrap();
                    return kept;
                }
                kept += piece.pieces.iter().map(Bytes::len).sum::<usize>();
                while !piece.waiting().is_empty() {
                    let drained = std::future::poll_fn(|cx| piece.poll_drain(cx, &mut to));
                    drained.await.unwrap();
                }
            }
        });
        let mut got = Vec::new();
        sink.read_to_end(&mut got).await.unwrap();
        assert!(got == data);
        assert!(carried.await.unwrap() >= ALL - mux::CHUNK);
    }

    /// Gives so much in full pieces, then `last` once, and nothing more ever.
    struct Once(usize, Option<io::Result<()>>);

    impl Pieces for Once {}

    impl AsyncRead for Once {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut tokio::io::ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if self.0 == 0 {
                return self.1.take().map_or(Poll::Pending, Poll::Ready);
            }
            let n = buf.remaining().min(self.0);
            buf.put_slice(&vec![7; n]);
            self.0 -= n;
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn an_end_or_an_error_behind_a_full_piece_is_told_behind_it() {
        for error in [None, Some(io::ErrorKind::ConnectionReset)] {
            for all in [SMALL + mux::CHUNK, SMALL + 2 * mux::CHUNK] {
                let mut from = Once(all, Some(error.map_or(Ok(()), |kind| Err(kind.into()))));
                let mut cx = Context::from_waker(std::task::Waker::noop());
                let (mut piece, mut came) = (Chunk::default(), 0);
                let told = loop {
                    let Poll::Ready(filled) = piece.poll_fill(&mut cx, &mut from, true) else {
                        panic!("it waits, though the end was read");
                    };
                    match filled {
                        Ok(()) if !piece.waiting().is_empty() => came += piece.len(),
                        told => break told.err().map(|e| e.kind()),
                    }
                    piece.clear();
                };
                assert_eq!((told, came), (error, all));
            }
        }
    }

    #[tokio::test]
    async fn pieces_stay_small_where_the_peer_has_its_share() {
        let pool = ReceivePool::new(2 * LARGE_TAKEN);
        let _rest = pool.hold(LARGE_TAKEN + 1).unwrap();
        let mut piece = Chunk::counted(pool.clone());
        let (mut near, mut far) = duplex(1 << 20);
        near.write_all(&vec![7; 10 * SMALL]).await.unwrap();
        for _ in 0..10 {
            assert_eq!(fill(&mut piece, &mut far).await, SMALL);
            assert!(piece.bytes.capacity() <= SMALL);
        }
        rests(&mut piece, &mut far);
        assert_eq!(pool.used(), LARGE_TAKEN + 1);
    }
}
