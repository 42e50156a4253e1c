//! The one stream type that dialling and accepting return.
//!
//! What is inside is boxed: one virtual call per read or write costs far less than the system call
//! behind it, and no signature above has to carry a type parameter for the transport.
use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::child::Child;
use crate::framed::Framed;
use crate::remote::Remote;
use crate::terminal::Control;
use crate::text::clean;

/// Anything that carries bytes both ways. Implemented for every type that fits.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> ByteStream for T {}

/// Bytes of a label: a path of the usual length. It stands in every line about the stream.
const LABEL: usize = 256;

/// A byte stream to somewhere.
///
/// Reads and writes are cancel safe: a dropped read future has taken no byte, a dropped write future
/// has written nothing that it did not report. Dropping the stream closes it in both directions, and
/// kills the command of an `exec:` address unless [`Stream::take_child`] took it over.
pub struct Stream {
    /// Few streams have any of it, and streams are moved often. Dropped first: a command is killed before its pipes close, so that it
    /// does not take the cut for the end of its input.
    aside: Option<Box<Extras>>,
    io: Box<dyn Wire>,
    label: String,
    remote: Remote,
    local: Option<SocketAddr>,
}

/// What some transports have beside the bytes.
#[derive(Default)]
struct Extras {
    child: Option<Child>,
    control: Option<Control>,
    remarks: Vec<String>,
}

impl Stream {
    /// Any byte stream as a `Stream`; the label tells in messages where it leads, and is [cleaned](crate::text::clean)
    /// and cut after 256 bytes. To what decides by where a stream comes from it is [`Remote::Unknown`]; see [`with_remote`](Self::with_remote).
    pub fn from_io(io: impl ByteStream, label: impl Into<String>) -> Self {
        Self::from_wire(Plain(io), label)
    }

    /// As [`from_io`](Self::from_io), for what can be cut.
    pub(crate) fn from_wire(io: impl Wire, label: impl Into<String>) -> Self {
        Self {
            io: Box::new(io),
            label: clean(&label.into(), LABEL).into_owned(),
            remote: Remote::Unknown,
            local: None,
            aside: None,
        }
    }

    /// The same, leading there. For streams that pass on another's bytes (a proxy that knows the client's
    /// address, a layer of a program's own).
    #[must_use]
    pub fn with_remote(mut self, remote: Remote) -> Self {
        self.remote = remote;
        self
    }

    /// The same, with this end's own address.
    #[must_use]
    pub fn with_local(mut self, local: Option<SocketAddr>) -> Self {
        self.local = local;
        self
    }

    /// The same in frames, with an end that a cut can be told from: for who accepts or dials by other means than an address with
    /// `framed`. The other end has to do the same; docs/PROTOCOL.md has the form. From then on only a shutdown ends the
    /// stream, and reading one that was closed without is an error, `UnexpectedEof`; what is no frame is `InvalidData`.
    ///
    /// Up to one frame of 64 KiB may wait in it for a flush.
    #[must_use]
    pub fn framed(mut self) -> Self {
        self.io = Box::new(Framed::new(self.io));
        self
    }

    fn aside(&mut self) -> &mut Extras {
        self.aside.get_or_insert_default()
    }

    pub(crate) fn with_child(mut self, child: Child) -> Self {
        self.aside().child = Some(child);
        self
    }

    pub(crate) fn with_control(mut self, control: Control) -> Self {
        self.aside().control = Some(control);
        self
    }

    #[cfg(any(feature = "serial", feature = "rfc2217"))]
    pub(crate) fn with_remarks(mut self, remarks: Vec<String>) -> Self {
        if !remarks.is_empty() {
            self.aside().remarks = remarks;
        }
        self
    }

    /// What the address asks for and the device does not do, where that is no failure; one line each. Worth
    /// showing to a person.
    pub fn remarks(&self) -> &[String] {
        self.aside.as_ref().map_or(&[], |aside| &aside.remarks)
    }

    /// What can be told to the device below, beside bytes; `None` where there is none that would listen.
    pub fn control(&self) -> Option<Control> {
        self.aside.as_ref()?.control.clone()
    }

    /// Where it leads or comes from, for decisions.
    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    /// This end's own address, where it is a TCP connection.
    pub fn local(&self) -> Option<SocketAddr> {
        self.local
    }

    /// Where it leads or comes from, for messages: `tcp 127.0.0.1:7000`. One line, fit to be shown.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// From now on, whether closing the stream cuts it: what was written and not sent is thrown away, and the
    /// other end reads an error instead of an end. So it learns that something is missing where a program of
    /// ours passes on a stream that broke elsewhere, also when that program is killed.
    ///
    /// TCP can do this, by a reset (RFC 9293 section 3.10.7.4, `SO_LINGER` of 0 s), and a [framed](Self::framed) stream does it
    /// unasked; nothing happens on any other transport. Take it back before a stream that has ended in order is dropped.
    pub fn cut_when_dropped(&mut self, yes: bool) {
        self.io.cut_when_dropped(yes);
    }

    /// Ready once whatever is at the other end is gone altogether, and takes nothing any more: for who waits for something else
    /// and would not notice. `BrokenPipe` where it left in order, another kind where not. What it wrote before can still be read.
    ///
    /// `reading` says that the caller waits for [`AsyncRead`] as well, which tells of that by itself where both directions are one
    /// connection. Sockets, and pipes at standard output, can tell; nothing else is ever ready.
    pub fn poll_left(&mut self, cx: &mut Context<'_>, reading: bool) -> Poll<io::Error> {
        self.io.poll_left(cx, reading)
    }

    /// Ready once all that was written and flushed has been sent by the system, or cannot be any more: for who is about to drop a
    /// stream that is [cut](Self::cut_when_dropped), which would take it back. A reader may take as long as it likes, so bound
    /// the wait; nothing is to be written any more. Only TCP and QUIC have something to
    /// wait for.
    pub fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.io.poll_drained(cx)
    }

    /// The number of the user whose process is at the other end, as the system knew it when the connection was made: of a Unix
    /// socket. `None` where the system does not tell.
    pub fn peer_user(&self) -> Option<u32> {
        self.io.peer_user()
    }

    /// Takes over the command of an `exec:` address: its diagnostics, its exit status, its life.
    ///
    /// From then on dropping the stream only closes the pipes; dropping the [`Child`] kills the
    /// command. `None` for any other transport, and the second time.
    pub fn take_child(&mut self) -> Option<Child> {
        self.aside.as_mut()?.child.take()
    }
}

/// A stream that may know a way to end that is no clean one.
pub(crate) trait Wire: ByteStream {
    /// What it runs over: that answers for whatever this one says nothing of itself.
    fn below(&mut self) -> Option<&mut dyn Wire> {
        None
    }

    /// See [`Stream::cut_when_dropped`].
    fn cut_when_dropped(&mut self, yes: bool) {
        if let Some(below) = self.below() {
            below.cut_when_dropped(yes);
        }
    }

    /// See [`Stream::peer_user`].
    fn peer_user(&self) -> Option<u32> {
        None
    }

    /// See [`Stream::poll_left`].
    fn poll_left(&mut self, cx: &mut Context<'_>, reading: bool) -> Poll<io::Error> {
        match self.below() {
            Some(below) => below.poll_left(cx, reading),
            None => Poll::Pending,
        }
    }

    /// See [`Stream::poll_drained`].
    fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.below() {
            Some(below) => below.poll_drained(cx),
            None => Poll::Ready(()),
        }
    }
}

#[cfg(any(feature = "rfc2217", feature = "ws"))]
impl Wire for Stream {
    fn below(&mut self) -> Option<&mut dyn Wire> {
        Some(&mut *self.io)
    }

    fn peer_user(&self) -> Option<u32> {
        self.io.peer_user()
    }
}

#[cfg(any(feature = "quic", feature = "ws"))]
impl Wire for Box<dyn Wire> {
    fn below(&mut self) -> Option<&mut dyn Wire> {
        Some(&mut **self)
    }

    fn peer_user(&self) -> Option<u32> {
        (**self).peer_user()
    }
}

impl Wire for Framed<Box<dyn Wire>> {
    fn below(&mut self) -> Option<&mut dyn Wire> {
        Some(&mut **self.inner_mut())
    }

    fn peer_user(&self) -> Option<u32> {
        self.inner().peer_user()
    }
}

/// One end of a pipe inside this process.
impl From<tokio::io::DuplexStream> for Stream {
    fn from(stream: tokio::io::DuplexStream) -> Self {
        Self::from_io(stream, "memory").with_remote(Remote::Memory)
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("label", &self.label)
            .field("remote", &self.remote)
            .finish_non_exhaustive()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// Any stream, which knows one way to end.
struct Plain<T>(T);

impl<T: ByteStream> Wire for Plain<T> {}

impl<T: ByteStream> AsyncRead for Plain<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<T: ByteStream> AsyncWrite for Plain<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}
