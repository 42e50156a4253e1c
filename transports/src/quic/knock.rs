//! Small datagrams beside QUIC on one UDP socket: with them two ends find out where they reach each other, before either sends a packet of
//! QUIC there, whose first one has 1,200 bytes (RFC 9000, section 14.1).
//!
//! They have a length that no packet of QUIC has that an end has to heed: quinn takes one for a packet of a connection that it does not
//! know, and answers none that is so short (section 10.3).
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::sync::mpsc;

/// Bytes of such a datagram.
pub const KNOCK: usize = 17;

/// The first byte is below this: neither a long header nor the fixed bit (section 17).
const FIRST: u8 = 0x40;

/// Datagrams that wait to be looked at; what comes meanwhile is lost, as any datagram may be.
const WAITING: usize = 32;

/// Such a datagram, and from where it says that it comes.
pub(super) type Heard = (SocketAddr, [u8; KNOCK]);

/// A socket whose small datagrams are heard by somebody else.
#[derive(Debug)]
pub(super) struct Knocking {
    socket: Arc<dyn AsyncUdpSocket>,
    heard: mpsc::Sender<Heard>,
}

impl Knocking {
    pub(super) fn on(socket: Arc<dyn AsyncUdpSocket>) -> (Arc<Self>, mpsc::Receiver<Heard>) {
        let (heard, hears) = mpsc::channel(WAITING);
        (Arc::new(Self { socket, heard }), hears)
    }

    /// Sends one, if there is room for it now.
    pub(super) fn knock(&self, to: SocketAddr, what: &[u8; KNOCK]) {
        // Whoever knocks does it again.
        let _ = self.socket.try_send(&Transmit {
            destination: to,
            ecn: None,
            contents: what,
            segment_size: None,
            src_ip: None,
        });
    }

    fn hear(&self, buf: &[u8], meta: &RecvMeta) {
        let all = buf.get(..meta.len).unwrap_or_default();
        for one in all.chunks(meta.stride.max(1)) {
            if let Ok(knock) = <[u8; KNOCK]>::try_from(one)
                && knock[0] < FIRST
            {
                let _ = self.heard.try_send((meta.addr, knock));
            }
        }
    }
}

impl AsyncUdpSocket for Knocking {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let n = ready!(self.socket.poll_recv(cx, bufs, meta))?;
        for (buf, meta) in bufs.iter().zip(meta.iter()).take(n) {
            self.hear(buf, meta);
        }
        Poll::Ready(Ok(n))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}
