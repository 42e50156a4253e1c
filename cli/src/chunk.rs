//! What is in hand between a read and a write: the bytes that one stream gave and the other has not taken.
//!
//! A stream that rests has none, and no memory for any. One that moves little is read in pieces of 4 KiB, and one that fills
//! such a piece in larger ones, for as long as there is more. Where the bytes are a peer's, the large pieces are counted to
//! that peer's share of memory ([`ReceivePool`]); when that is used up they stay small, so that a peer with many streams
//! that it does not read makes no more of them. The small ones are counted with the substream itself.

use std::io;
use std::pin::pin;
use std::task::{Context, Poll};

use cepa::mux::{Held, ReceivePool};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Most bytes of a stream that moves little.
const SMALL: usize = 4 * 1024;

/// The same of one that moves much: enough to fill several records.
const LARGE: usize = 64 * 1024;

#[derive(Debug, Default)]
pub(crate) struct Chunk {
    /// `bytes[start..]` was read and is not written yet.
    bytes: Vec<u8>,
    start: usize,
    /// Whose memory large pieces are; nobody's in particular where it is none.
    memory: Option<ReceivePool>,
    held: Option<Held>,
    /// The last one was filled to its end.
    full: bool,
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
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// So many bytes of what waits were written.
    pub(crate) fn advance(&mut self, n: usize) {
        self.start += n;
    }

    /// Reads the next piece where none waits; it is empty at the end of the stream. Cancel safe.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
    ) -> Poll<io::Result<()>> {
        if !self.waiting().is_empty() {
            return Poll::Ready(Ok(()));
        }
        (self.start, self.full) = (0, self.full && self.may_be_large());
        self.bytes.clear();
        let size = if self.full { LARGE } else { SMALL };
        if self.bytes.capacity() != size {
            self.bytes = Vec::with_capacity(size);
        }
        if let Poll::Ready(read) = pin!(from.read_buf(&mut self.bytes)).poll(cx) {
            self.full = read? >= SMALL;
            return Poll::Ready(Ok(()));
        }
        self.rest();
        Poll::Pending
    }

    /// Gives back what a stream that rests does not need.
    fn rest(&mut self) {
        (self.bytes, self.held, self.full) = (Vec::new(), None, false);
    }

    fn may_be_large(&mut self) -> bool {
        if let Some(memory) = &self.memory
            && self.held.is_none()
        {
            self.held = memory.hold(LARGE);
            return self.held.is_some();
        }
        true
    }
}

/// Sends back what comes, until it ends.
pub(crate) async fn echo<S>(far: &mut S, mut piece: Chunk) -> io::Result<()>
where
    S: AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    use tokio::io::AsyncWriteExt as _;
    loop {
        std::future::poll_fn(|cx| piece.poll_fill(cx, far)).await?;
        if piece.waiting().is_empty() {
            return Ok(());
        }
        while !piece.waiting().is_empty() {
            match far.write(piece.waiting()).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => piece.advance(n),
            }
        }
        far.flush().await?;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt as _, duplex};

    use super::*;

    async fn fill(piece: &mut Chunk, from: &mut (impl AsyncRead + Unpin)) -> usize {
        std::future::poll_fn(|cx| piece.poll_fill(cx, from))
            .await
            .unwrap();
        let n = piece.waiting().len();
        piece.advance(n);
        n
    }

    fn rests(piece: &mut Chunk, from: &mut (impl AsyncRead + Unpin)) {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(piece.poll_fill(&mut cx, from).is_pending());
        assert_eq!(piece.bytes.capacity(), 0);
    }

    #[tokio::test]
    async fn pieces_grow_while_much_comes_and_are_gone_when_nothing_does() {
        let pool = ReceivePool::new(LARGE);
        let mut piece = Chunk::counted(pool.clone());
        let (mut near, mut far) = duplex(1 << 20);
        near.write_all(&vec![7; SMALL + LARGE + 1]).await.unwrap();
        assert_eq!(fill(&mut piece, &mut far).await, SMALL);
        assert_eq!(pool.used(), 0);
        assert_eq!(fill(&mut piece, &mut far).await, LARGE);
        assert_eq!(pool.used(), LARGE);
        assert_eq!(fill(&mut piece, &mut far).await, 1);
        rests(&mut piece, &mut far);
        assert_eq!(pool.used(), 0);
    }

    #[tokio::test]
    async fn pieces_stay_small_where_the_peer_has_its_share() {
        let pool = ReceivePool::new(2 * LARGE);
        let _rest = pool.hold(LARGE + 1).unwrap();
        let mut piece = Chunk::counted(pool.clone());
        let (mut near, mut far) = duplex(1 << 20);
        near.write_all(&vec![7; 10 * SMALL]).await.unwrap();
        for _ in 0..10 {
            assert_eq!(fill(&mut piece, &mut far).await, SMALL);
            assert!(piece.bytes.capacity() <= SMALL);
        }
        rests(&mut piece, &mut far);
        assert_eq!(pool.used(), LARGE + 1);
    }
}
