//! A substream, as a thread sees it that reads and writes files: messages in, messages out, and both wait where they have to.
//!
//! ```text
//! substream --> pump --> pieces --> Line --> messages   \
//!                                                        thread
//! substream <-- pump <-- pieces <-- Line <-- messages   /
//! ```
//!
//! Files are read and written by a thread of their own, so that a slow disk holds up nobody else. It ends when the substream does,
//! or when it is told to: then the pieces do not come or go any more. While it waits for room for what it sends it goes on
//! taking what comes, up to a bound; otherwise two ends could wait for each other.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::future::poll_fn;
use std::io::{self, Read as _};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use cepa::mux::Substream;
use cepa::onion::Onion;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::engine::Violation;
use super::wire::{Decoder, Item, Message, WireError};

/// A piece that goes in or out. Large enough that handing it over costs nothing beside its bytes.
pub(crate) const PIECE: usize = 256 * 1024;

/// Pieces that wait, each way.
const PIECES: usize = 2;

/// What may come while this end waits for room: the answers to all that is announced, with their reasons.
const INBOX: usize = 2 * 1024 * 1024;

/// Memory of a line: what waits, what is filled, and what is taken, each way.
pub(crate) const MEMORY: usize = 2 * (PIECES + 2) * PIECE;

/// Why a transfer ends early.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The substream has ended, or was cut, or nobody wants the transfer any more.
    Gone,
    /// The other end does not keep to the protocol.
    Protocol(String),
    /// The other end says why it ends.
    Told(String),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("the transfer was cut off"),
            Self::Protocol(why) | Self::Told(why) => f.write_str(why),
        }
    }
}

impl From<WireError> for Broken {
    fn from(e: WireError) -> Self {
        Self::Protocol(e.to_string())
    }
}

impl From<Violation> for Broken {
    fn from(e: Violation) -> Self {
        Self::Protocol(e.to_string())
    }
}

/// The thread's end.
#[derive(Debug)]
pub(crate) struct Line {
    runtime: Handle,
    pieces_in: mpsc::Receiver<Bytes>,
    pieces_out: mpsc::Sender<Vec<u8>>,
    decoder: Decoder,
    inbox: VecDeque<Bytes>,
    in_inbox: usize,
    out: Vec<u8>,
}

/// The other end of that, at a substream.
#[derive(Debug)]
pub(crate) struct Pump {
    pieces_in: mpsc::Sender<Bytes>,
    pieces_out: mpsc::Receiver<Vec<u8>>,
}

/// Both. To be called in a runtime.
pub(crate) fn line() -> (Line, Pump) {
    let (to_thread, pieces_in) = mpsc::channel(PIECES);
    let (pieces_out, from_thread) = mpsc::channel(PIECES);
    let line = Line {
        runtime: Handle::current(),
        pieces_in,
        pieces_out,
        decoder: Decoder::default(),
        inbox: VecDeque::new(),
        in_inbox: 0,
        out: Vec::new(),
    };
    let pump = Pump {
        pieces_in: to_thread,
        pieces_out: from_thread,
    };
    (line, pump)
}

impl Line {
    /// Queues a message; it leaves with [`flush`](Self::flush), or when there is enough for a piece.
    pub(crate) fn push(&mut self, message: &Message) -> Result<(), Broken> {
        message.encode(&mut self.out);
        self.flush_if_full()
    }

    /// Queues the next `len` bytes of a file, and has them seen; nothing where they can't be read.
    pub(crate) fn push_read(
        &mut self,
        len: usize,
        from: &mut File,
        seen: impl FnOnce(&[u8]),
    ) -> io::Result<()> {
        let before = self.out.len();
        Message::Data { len: len as u64 }.encode(&mut self.out);
        let begin = self.out.len();
        self.out.resize(begin + len, 0);
        let read = from.read_exact(self.out.get_mut(begin..).unwrap_or_default());
        match read {
            Ok(()) => seen(self.out.get(begin..).unwrap_or_default()),
            Err(_) => self.out.truncate(before),
        }
        read
    }

    pub(crate) fn flush_if_full(&mut self) -> Result<(), Broken> {
        if self.out.len() >= PIECE {
            self.flush()
        } else {
            Ok(())
        }
    }

    /// Hands over all that is queued, and waits for room for that.
    pub(crate) fn flush(&mut self) -> Result<(), Broken> {
        if self.out.is_empty() {
            return Ok(());
        }
        let out = std::mem::take(&mut self.out);
        let out = match self.pieces_out.try_send(out) {
            Ok(()) => return Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(self.gone()),
            Err(mpsc::error::TrySendError::Full(out)) => out,
        };
        let runtime = self.runtime.clone();
        let pieces_out = self.pieces_out.clone();
        loop {
            let piece = runtime.block_on(async {
                tokio::select! {
                    room = pieces_out.reserve() => Err(room),
                    more = self.pieces_in.recv() => Ok(more),
                }
            });
            match piece {
                Err(Ok(room)) => {
                    room.send(out);
                    return Ok(());
                }
                Err(Err(_)) | Ok(None) => return Err(self.gone()),
                Ok(Some(piece)) => {
                    self.in_inbox += piece.len();
                    self.inbox.push_back(piece);
                    if self.in_inbox > INBOX {
                        let why = "the peer sends answers without end and reads nothing";
                        return Err(Broken::Protocol(why.to_owned()));
                    }
                }
            }
        }
    }

    /// Nothing more can be sent; the other end may have said why.
    fn gone(&mut self) -> Broken {
        loop {
            match self.try_next() {
                Ok(Some(_)) => {}
                Ok(None) => match self.pieces_in.blocking_recv() {
                    Some(piece) => self.decoder.feed(piece),
                    None => return Broken::Gone,
                },
                Err(why) => return why,
            }
        }
    }

    fn decoded(&mut self) -> Result<Option<Item>, Broken> {
        match self.decoder.next()? {
            Some(Item::Message(Message::Error { why })) => Err(Broken::Told(why)),
            item => Ok(item),
        }
    }

    /// What has come; `None`: nothing more at the moment.
    pub(crate) fn try_next(&mut self) -> Result<Option<Item>, Broken> {
        loop {
            if let Some(item) = self.decoded()? {
                return Ok(Some(item));
            }
            let piece = match self.inbox.pop_front() {
                Some(piece) => {
                    self.in_inbox -= piece.len();
                    piece
                }
                None => match self.pieces_in.try_recv() {
                    Ok(piece) => piece,
                    Err(mpsc::error::TryRecvError::Empty) => return Ok(None),
                    Err(mpsc::error::TryRecvError::Disconnected) => return Err(Broken::Gone),
                },
            };
            self.decoder.feed(piece);
        }
    }

    /// The next item, whenever it comes. What is queued leaves before this waits.
    pub(crate) fn next(&mut self) -> Result<Item, Broken> {
        loop {
            if let Some(item) = self.try_next()? {
                return Ok(item);
            }
            self.flush()?;
            if let Some(item) = self.try_next()? {
                return Ok(item);
            }
            match self.pieces_in.blocking_recv() {
                Some(piece) => self.decoder.feed(piece),
                None => return Err(Broken::Gone),
            }
        }
    }

    /// The next message, where no bytes of a file belong.
    pub(crate) fn next_message(&mut self) -> Result<Message, Broken> {
        match self.next()? {
            Item::Message(message) => Ok(message),
            Item::Bytes(_) => Err(Violation::Order.into()),
        }
    }

    /// Says why the transfer ends.
    pub(crate) fn fail(&mut self, why: &str) {
        let why = why.to_owned();
        let _ = self
            .push(&Message::Error { why })
            .and_then(|()| self.flush());
    }
}

/// Reads as much as there is, up to a piece.
fn poll_piece<S: AsyncRead + Unpin>(
    cx: &mut Context<'_>,
    from: &mut S,
    buf: &mut BytesMut,
) -> Poll<io::Result<Bytes>> {
    // What is left of it is used up first: small pieces share one.
    if buf.len() < PIECE / 4 {
        *buf = BytesMut::zeroed(PIECE);
    }
    let mut got = ReadBuf::new(buf);
    loop {
        let before = got.filled().len();
        match Pin::new(&mut *from).poll_read(cx, &mut got) {
            Poll::Pending if before == 0 => return Poll::Pending,
            Poll::Ready(Err(e)) if before == 0 => return Poll::Ready(Err(e)),
            Poll::Ready(Ok(())) if got.filled().len() > before && got.remaining() > 0 => {}
            // An end or an error comes again.
            _ => break,
        }
    }
    let len = got.filled().len();
    Poll::Ready(Ok(buf.split_to(len).freeze()))
}

/// A stream that can tell that it is lost though its end was read; see [`Substream::poll_lost`].
pub(crate) trait Losable {
    fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<io::Error>;
}

impl Losable for Onion<Substream> {
    fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.wire_mut().poll_lost(cx)
    }
}

/// A stream that both ways of a pump use, in one task.
struct Both<'a, S>(Mutex<&'a mut S>);

impl<S> Both<'_, S> {
    fn with<T>(&self, does: impl FnOnce(&mut S) -> T) -> T {
        does(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The way out.
impl<S: AsyncWrite + Unpin> AsyncWrite for &Both<'_, S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.with(|stream| Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| Pin::new(stream).poll_shutdown(cx))
    }
}

impl Pump {
    /// Carries pieces both ways until the thread has ended and what it left has gone, or the stream is lost.
    ///
    /// `lost` is called as soon as nobody is there any more who could read what the thread says, though it may be busy then and what had
    /// come may wait for it; also where the other end had ended its direction long before.
    ///
    /// # Cancel safety
    /// Dropping the future ends the thread.
    pub(crate) async fn run<S: AsyncRead + AsyncWrite + Losable + Unpin>(
        self,
        stream: &mut S,
        lost: impl Fn(),
    ) -> io::Result<()> {
        let Self {
            pieces_in,
            pieces_out,
        } = self;
        let both = Both(Mutex::new(stream));
        let inward = async {
            // Dropped at its end, so that the thread sees that nothing more comes.
            let pieces_in = pieces_in;
            let mut buf = BytesMut::new();
            loop {
                let Ok(room) = pieces_in.reserve().await else {
                    return Ok(());
                };
                let read = |cx: &mut Context<'_>| both.with(|s| poll_piece(cx, s, &mut buf));
                let piece = poll_fn(read).await?;
                if piece.is_empty() {
                    return Ok::<_, io::Error>(());
                }
                room.send(piece);
            }
        };
        let outward = async {
            // Dropped at its end, so that the thread sees that.
            let mut pieces_out = pieces_out;
            let mut writer = &both;
            while let Some(piece) = pieces_out.recv().await {
                writer.write_all(&piece).await?;
                if pieces_out.is_empty() {
                    writer.flush().await?;
                }
            }
            writer.shutdown().await
        };
        let left = poll_fn(|cx| both.with(|stream| stream.poll_lost(cx)));
        tokio::pin!(inward, outward, left);
        let (mut read, mut gone) = (None, None);
        loop {
            tokio::select! {
                sent = &mut outward => {
                    if sent.is_err() && read.is_none() {
                        // The other end may have said why.
                        let _ = inward.await;
                    }
                    return sent;
                }
                ended = &mut inward, if read.is_none() => {
                    if ended.is_err() {
                        lost();
                    }
                    read = Some(ended);
                }
                why = &mut left, if gone.is_none() => {
                    lost();
                    gone = Some(why);
                }
            }
            // What had come before is read to its end.
            if read.is_some()
                && let Some(why) = gone.take()
            {
                return Err(why);
            }
        }
    }
}
