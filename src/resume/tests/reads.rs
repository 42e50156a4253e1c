//! How often a path is read and written for what goes over it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use cepa_transports::Side;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::io::{DuplexStream, ReadBuf, duplex};

use crate::resume::*;

/// Counts the reads that bring something, and the writes.
struct Counted {
    io: DuplexStream,
    reads: Arc<AtomicUsize>,
    writes: Arc<AtomicUsize>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        if polled.is_ready() {
            self.reads.fetch_add(1, Ordering::Relaxed);
        }
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn a_small_message_is_one_write_and_one_read() {
    let (reads, writes) = (Arc::default(), Arc::default());
    let counted = |io| Counted {
        io,
        reads: Arc::clone(&reads),
        writes: Arc::clone(&writes),
    };
    let (near, far) = duplex(1 << 20);
    let (mut client, _at_client) = durable(counted(near), Side::Client, &Config::default());
    let (mut server, _at_server) = durable(counted(far), Side::Server, &Config::default());
    let mut got = [0; 300];
    // What is said at its start has passed behind the first few.
    for round in 0..20_u8 {
        let before =
            [&reads, &writes].map(|count: &Arc<AtomicUsize>| count.load(Ordering::Relaxed));
        client.write_all(&[round; 64]).await.unwrap();
        client.flush().await.unwrap();
        assert_eq!(server.read(&mut got).await.unwrap(), 64);
        assert_eq!(got[..64], [round; 64]);
        if round >= 4 {
            let after = [&reads, &writes].map(|count| count.load(Ordering::Relaxed));
            assert_eq!(after, before.map(|n| n + 1), "message {round}");
        } else {
            server.write_all(&[round; 64]).await.unwrap();
            server.flush().await.unwrap();
            client.read_exact(&mut got[..64]).await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn bulk_is_read_in_the_pieces_that_the_reader_has_room_for() {
    const ROOM: usize = 8 << 10;
    let (reads, writes) = (Arc::default(), Arc::default());
    let counted = |io| Counted {
        io,
        reads: Arc::clone(&reads),
        writes: Arc::clone(&writes),
    };
    let (near, far) = duplex(1 << 20);
    let (mut client, _at_client) = durable(counted(near), Side::Client, &Config::default());
    let (mut server, _at_server) = durable(counted(far), Side::Server, &Config::default());
    let bulk: Vec<u8> = (0..=250).cycle().take(512 << 10).collect();
    client.write_all(&bulk).await.unwrap();
    client.flush().await.unwrap();
    let (mut got, mut pieces) = (Vec::new(), 0);
    while got.len() < bulk.len() {
        let mut piece = [0; ROOM];
        let n = server.read(&mut piece).await.unwrap();
        got.extend_from_slice(&piece[..n]);
        pieces += 1;
    }
    assert!(got == bulk);
    // Frames are 128 KiB at most, and each has a header, and an end that may fill no piece.
    let frames = bulk.len() / (128 << 10) + 1;
    let most = bulk.len() / ROOM + 2 * frames;
    assert!(pieces <= most, "{pieces} pieces, {most} at most");
    let read: usize = reads.load(Ordering::Relaxed);
    assert!(read <= most + 2 * frames, "{read} reads of the path");
}
