//! A substream as tonic's server takes it: bytes, and who is at the other end, which a handler finds in the extensions of its
//! request.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use cepa::identity::PeerId;
use cepa::mux::Substream;
use cepa::node::Call;
use cepa::onion::Onion;
use cepa::session::AcceptError;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

pub(crate) struct Connection {
    stream: Onion<Substream>,
    peer: PeerId,
}

impl Connection {
    /// The connection of a call; an error is that of this one alone, and the server goes on.
    pub(crate) async fn accept(call: Call) -> Result<Self, AcceptError> {
        let peer = call.peer().id();
        let stream = call.accept().await?;
        Ok(Self { stream, peer })
    }
}

impl Connected for Connection {
    type ConnectInfo = PeerId;

    fn connect_info(&self) -> PeerId {
        self.peer
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
