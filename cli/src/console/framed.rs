//! A substream as a console has it: data in and out as from any stream, and messages beside it.
//!
//! The messages that come go to whoever is named at the start; those that are to go wait in an
//! [`Outbox`] and leave with the next write, flush or shutdown. A new window size replaces one that
//! still waits, so that the box stays small however often a window is dragged.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::wire::{self, Decoder, Message};
use crate::columns::count;
use crate::splice::Leaves;

/// Read at once.
const CHUNK: usize = 16 * 1024;
/// Messages that wait; what is more is dropped (breaks, which nobody types so often).
const WAITING: usize = 16;
/// Memory of lines of standard error that wait. As much again is encoded and on its way, so 64 KiB a command.
const LINES: usize = 32 * 1024;
/// What a line costs beside its text.
const LINE: usize = 64;
/// The largest line, where every byte is one that is no UTF-8.
const LONGEST: usize = 3 * 4096 + LINE;
/// How long a full box waits for the peer to take some of it before lines are dropped.
const PATIENCE: Duration = Duration::from_secs(10);
/// An empty buffer that is larger is given back.
const KEPT: usize = 4 * 1024;

/// Takes messages that come.
type Listener = Box<dyn FnMut(Message) + Send>;

pub(crate) struct Framed<S> {
    inner: S,
    decoder: Decoder,
    /// `data[read..]` was received and not taken yet.
    data: Vec<u8>,
    read: usize,
    on_message: Listener,
    /// Encoded, and not written yet.
    out: Vec<u8>,
    written: usize,
    outbox: Outbox,
    /// Most data in one message.
    chunk: usize,
    /// Whether the end of the data is one before the stream ends; and that it has come: the next read without any says so.
    splits_end: bool,
    data_ended: bool,
    /// Lines wait until the data before them is taken; those that do.
    in_order: bool,
    held: Vec<Message>,
    /// Waited for before each read, and being waited for.
    pace: Option<Pace>,
    waits: Option<BoxFuture<'static, ()>>,
}

/// Waits until what comes can be taken.
type Pace = fn() -> BoxFuture<'static, ()>;

/// Where messages wait that are to go.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbox(Arc<Mutex<Waiting>>, Arc<Notify>);

#[derive(Debug, Default)]
struct Waiting {
    messages: Vec<Message>,
    /// Memory of the lines among them.
    lines: usize,
    /// Lines of standard error that there was no room for.
    dropped: u64,
    /// Room was waited for in vain since some was taken.
    stalled: bool,
}

impl Outbox {
    pub(crate) fn push(&self, message: Message) {
        let mut waiting = self.lock();
        if matches!(message, Message::Terminal(_)) {
            let is_other = |other: &Message| !matches!(other, Message::Terminal(_));
            waiting.messages.retain(is_other);
        }
        let line = match &message {
            Message::Stderr(line) => Some(line.capacity() + LINE),
            _ => None,
        };
        let fits = match message {
            // How it ended is never what is dropped, nor that its output has: each comes once.
            Message::Ended(_) | Message::OutputEnded => true,
            _ => match line {
                Some(line) => waiting.lines + line <= LINES,
                None => waiting.messages.len() < WAITING,
            },
        };
        if fits {
            waiting.lines += line.unwrap_or(0);
            waiting.messages.push(message);
        } else if line.is_some() {
            waiting.dropped += 1;
        }
    }

    /// Waits for room for another line, unless the peer takes none for long.
    pub(crate) fn room(&self) -> BoxFuture<'static, ()> {
        let this = self.clone();
        Box::pin(async move {
            loop {
                let taken = this.1.notified();
                {
                    let waiting = this.lock();
                    if waiting.lines + LONGEST <= LINES || waiting.stalled {
                        return;
                    }
                }
                if timeout(PATIENCE, taken).await.is_err() {
                    this.lock().stalled = true;
                }
            }
        })
    }

    fn take(&self) -> Vec<Message> {
        let mut waiting = self.lock();
        let mut messages = std::mem::take(&mut waiting.messages);
        waiting.lines = 0;
        if !messages.is_empty() {
            waiting.stalled = false;
            self.1.notify_one();
        }
        let dropped = std::mem::take(&mut waiting.dropped);
        if dropped > 0 {
            let lines = count(dropped, "line");
            let line = format!("({lines} of standard error dropped: the peer does not read it)");
            let last = messages
                .iter()
                .rposition(|m| matches!(m, Message::Stderr(_)));
            messages.insert(last.map_or(0, |at| at + 1), Message::Stderr(line));
        }
        messages
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is rarely used is not kept.
fn empty(buffer: &mut Vec<u8>) {
    buffer.clear();
    if buffer.capacity() > KEPT {
        *buffer = Vec::new();
    }
}

impl<S> Framed<S> {
    pub(crate) fn new(inner: S, on_message: Listener) -> Self {
        Self {
            inner,
            decoder: Decoder::default(),
            data: Vec::new(),
            read: 0,
            on_message,
            out: Vec::new(),
            written: 0,
            outbox: Outbox::default(),
            chunk: wire::DATA_MAX,
            splits_end: false,
            data_ended: false,
            in_order: false,
            held: Vec::new(),
            pace: None,
            waits: None,
        }
    }

    /// Waits for this before each read.
    pub(crate) fn paced(mut self, pace: Pace) -> Self {
        self.pace = Some(pace);
        self
    }

    /// Passes a line on when the data before it is taken, and not as soon as it comes.
    pub(crate) fn in_order(mut self) -> Self {
        self.in_order = true;
        self
    }

    /// Of a console that is kept: it is an error that the other end does not say so first.
    pub(crate) fn of_kept(mut self) -> Self {
        self.decoder = Decoder::of_kept();
        self
    }

    /// Sends up to so much data in one message.
    pub(crate) fn with_chunk(mut self, chunk: usize) -> Self {
        self.chunk = chunk;
        self
    }

    /// Reads an end where the data ends, though messages may still come.
    pub(crate) fn splitting_the_end(mut self) -> Self {
        self.splits_end = true;
        self
    }

    /// Sends messages from this box.
    pub(crate) fn with_outbox(mut self, outbox: Outbox) -> Self {
        self.outbox = outbox;
        self
    }

    /// What is below.
    pub(crate) fn inner_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    pub(crate) fn outbox(&self) -> Outbox {
        self.outbox.clone()
    }
}

impl<S> crate::chunk::Pieces for Framed<S> {}

impl<S: Leaves> Leaves for Framed<S> {
    fn poll_left(&mut self, cx: &mut Context<'_>, reading: bool) -> Poll<io::Error> {
        self.inner.poll_left(cx, reading)
    }
}

impl<S: AsyncWrite + Unpin> Framed<S> {
    /// Writes what is encoded.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.out.get(self.written..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.inner).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.written += n,
            }
        }
        empty(&mut self.out);
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    /// Writes all that waits.
    fn poll_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_out(cx))?;
            let messages = self.outbox.take();
            if messages.is_empty() {
                return Poll::Ready(Ok(()));
            }
            for message in &messages {
                wire::put(message, &mut self.out);
            }
        }
    }
}

impl<S: AsyncRead + Unpin> Framed<S> {
    /// Reads once from below, whatever it brings: data is kept, messages are passed on. False when there
    /// is nothing to wait for: the stream has ended, or data came first. Cancel safe.
    pub(crate) async fn fill(&mut self) -> io::Result<bool> {
        if self.read < self.data.len() {
            return Ok(false);
        }
        poll_fn(|cx| self.poll_fill(cx)).await
    }

    /// As [`Framed::fill`], with all data taken.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        empty(&mut self.data);
        self.read = 0;
        for line in std::mem::take(&mut self.held) {
            (self.on_message)(line);
        }
        if let Some(pace) = self.pace {
            ready!(self.waits.get_or_insert_with(pace).as_mut().poll(cx));
            self.waits = None;
        }
        let mut space = [0; CHUNK];
        let mut space = ReadBuf::new(&mut space);
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut space))?;
        if space.filled().is_empty() {
            return Poll::Ready(if self.decoder.is_between() {
                Ok(false)
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            });
        }
        for message in self.decoder.take(space.filled(), &mut self.data)? {
            match message {
                Message::OutputEnded => self.data_ended = self.splits_end,
                line @ Message::Stderr(_) if self.in_order => self.held.push(line),
                message => (self.on_message)(message),
            }
        }
        Poll::Ready(Ok(true))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Framed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            let waiting = this.data.get(this.read..).unwrap_or_default();
            if !waiting.is_empty() || buf.remaining() == 0 {
                let n = waiting.len().min(buf.remaining());
                buf.put_slice(waiting.get(..n).unwrap_or_default());
                this.read += n;
                return Poll::Ready(Ok(()));
            }
            // Once; who reads on waits for the messages behind it, to the end of the stream.
            if std::mem::take(&mut this.data_ended) || !ready!(this.poll_fill(cx))? {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Framed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.poll_all(cx))?;
        let n = wire::put_data(buf, this.chunk, &mut this.out);
        // What does not leave now does with the next call; it is taken either way.
        match this.poll_out(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(n)),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_all(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_all(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use cepa::transports::{Terminal, WindowSize};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::super::wire::Status;
    use super::*;

    #[tokio::test]
    async fn data_and_messages_pass_in_order_through_small_pipes() {
        let (near, far) = duplex(7);
        let (outgoing, received) = channel();
        let mut near = Framed::new(near, Box::new(|_| ()));
        let mut far = Framed::new(
            far,
            Box::new(move |message| outgoing.send(message).unwrap()),
        );
        let outbox = near.outbox();
        let data: Vec<u8> = (0..50_000u32).map(|i| (i % 253) as u8).collect();
        for rows in 1..=3 {
            let size = WindowSize { rows, columns: 80 };
            outbox.push(Message::Terminal(Terminal { kind: None, size }));
        }
        let sent = data.clone();
        let sender = tokio::spawn(async move {
            near.write_all(&sent).await.unwrap();
            near.outbox().push(Message::Ended(Status::Exited(0)));
            near.shutdown().await.unwrap();
        });
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        sender.await.unwrap();
        assert!(got == data);
        let size = WindowSize {
            rows: 3,
            columns: 80,
        };
        let messages: Vec<Message> = received.try_iter().collect();
        assert_eq!(
            messages,
            [
                Message::Terminal(Terminal { kind: None, size }),
                Message::Ended(Status::Exited(0))
            ]
        );
    }

    /// Whoever pushes lines waits for a peer that takes them, and not for one that takes none.
    #[tokio::test(start_paused = true)]
    async fn room_is_waited_for_while_the_peer_takes_some() {
        let outbox = Outbox::default();
        let line = "x".repeat(4096);
        let start = tokio::time::Instant::now();
        let push = |n| {
            let (outbox, line) = (outbox.clone(), line.clone());
            async move {
                for _ in 0..n {
                    outbox.push(Message::Stderr(line.clone()));
                    outbox.room().await;
                }
            }
        };
        let peer = async {
            let mut taken = 0;
            while taken < 100 {
                tokio::time::sleep(PATIENCE * 9 / 10).await;
                taken += outbox.take().len();
            }
            taken
        };
        let ((), taken) = tokio::join!(push(100), peer);
        assert_eq!((taken, outbox.lock().dropped), (100, 0));
        assert!(start.elapsed() > PATIENCE * 10, "{:?}", start.elapsed());
        // Nobody takes any: it is waited for once, and what is more is counted.
        let start = tokio::time::Instant::now();
        push(100).await;
        assert!(start.elapsed() < PATIENCE * 2, "{:?}", start.elapsed());
        let dropped = outbox.lock().dropped;
        let last = outbox.take();
        assert_eq!(last.len() as u64 - 1 + dropped, 100, "one line tells of it");
        let received =
            format!("({dropped} lines of standard error dropped: the peer does not read it)");
        assert_eq!(last.last(), Some(&Message::Stderr(received)));
    }

    /// A command that says more than its peer takes: what waits has a bound in bytes, the rest is counted, and how it ended
    /// still comes.
    #[tokio::test]
    async fn lines_that_nobody_takes_are_bounded_by_their_bytes_and_counted() {
        let (near, far) = duplex(100);
        let mut near = Framed::new(near, Box::new(|_| ()));
        let outbox = near.outbox();
        let line = "x".repeat(4096);
        let say = || (0..1000).for_each(|_| outbox.push(Message::Stderr(line.clone())));
        let waits = || {
            let messages = &outbox.lock().messages;
            let text = |m: &Message| match m {
                Message::Stderr(line) => line.capacity(),
                _ => 0,
            };
            messages.iter().map(text).sum::<usize>()
        };
        say();
        assert!((1..=LINES).contains(&waits()), "{}", waits());
        // Encoded, and the peer does not take it: no more is, however often somebody tries.
        for _ in 0..10 {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            assert!(Pin::new(&mut near).poll_flush(&mut cx).is_pending());
            say();
            assert!(waits() <= LINES, "{}", waits());
            let unsent = near.out.len() - near.written;
            assert!(unsent <= LINES + 256, "{unsent}");
        }
        outbox.push(Message::Ended(Status::Exited(3)));
        let (outgoing, received) = channel();
        let mut far = Framed::new(
            far,
            Box::new(move |message| outgoing.send(message).unwrap()),
        );
        let (sent, got) = tokio::join!(near.shutdown(), async {
            far.read_to_end(&mut Vec::new()).await
        });
        sent.unwrap();
        assert_eq!(got.unwrap(), 0);
        let messages: Vec<Message> = received.try_iter().collect();
        assert_eq!(messages.last(), Some(&Message::Ended(Status::Exited(3))));
        let (mut lines, mut dropped) = (0, 0);
        for message in &messages {
            match message {
                Message::Stderr(text) if *text == line => lines += 1,
                Message::Stderr(text) => {
                    let number = text.trim_start_matches('(').split(' ').next().unwrap();
                    dropped += number.parse::<usize>().unwrap();
                }
                _ => {}
            }
        }
        assert_eq!(lines + dropped, 11_000);
    }
}
