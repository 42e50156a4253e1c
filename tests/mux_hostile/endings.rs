//! Every way in which a stream can end abnormally reads as an error that says which, and none as an end
//! of stream: `yamux` 0.14.1 gave a clean end of stream for seven of seven, hashicorp/yamux for five.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use cepa::identity::{AcceptAny, Identity, KeyKind};
use cepa::mux::{Config, GoAwayCode, Mux, MuxError, StreamError, Substream, Violation};
use cepa::onion::Onion;
use cepa::tls::TlsConfig;
use cepa::{ByteStream, Side};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};

use crate::attacker::{DATA, FIN, GO_AWAY, RST, SYN, WINDOW, data, header, pipe, read_one};
use crate::{Ended, in_virtual_time, start, stream_error};

/// A stream of ours while it is attacked: the session, a stream that is open and has three bytes to read,
/// and one that the peer has ended properly behind three bytes.
struct Scene {
    session: Mux,
    driven: Ended,
    open: Substream,
    finished: Substream,
}

impl Scene {
    async fn over(us: impl ByteStream, peer: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Self {
        let (session, driven) = start(us, Side::Server, Config::default());
        peer.write_all(&data(SYN, 1, b"abc")).await.unwrap();
        peer.write_all(&data(SYN | FIN, 3, b"def")).await.unwrap();
        peer.flush().await.unwrap();
        let open = session.accept().await.unwrap();
        let finished = session.accept().await.unwrap();
        for _ in 0..2 {
            // The acknowledgements are read, so that a cut below destroys nothing.
            read_one(peer).await.unwrap();
        }
        Self {
            session,
            driven,
            open,
            finished,
        }
    }

    /// Reads both streams to their ends, and returns that of the open one.
    async fn end(mut self, what: &str) -> (io::Error, MuxError) {
        let mut got = Vec::new();
        let error = self
            .open
            .read_to_end(&mut got)
            .await
            .expect_err(&format!("{what} reads as a clean end"));
        if what == "our own close" {
            assert_eq!(got, b"", "{what}: who closes wants nothing any more");
        } else {
            assert_eq!(got, b"abc", "{what}: what came before is not lost");
        }
        for _ in 0..3 {
            let again = self.open.read(&mut [0; 10]).await.unwrap_err();
            assert_eq!(
                again.to_string(),
                error.to_string(),
                "{what}: again at every read"
            );
        }
        self.open
            .write_all(b"x")
            .await
            .expect_err("nor can it be written to");
        if what != "our own close" {
            let mut got = Vec::new();
            self.finished
                .read_to_end(&mut got)
                .await
                .expect("a proper end stays one");
            assert_eq!(got, b"def", "{what}");
        }
        let over = matches!(stream_error(&error), StreamError::ResetByPeer { .. });
        if over {
            // Only the stream has ended.
            self.session.close().await;
        }
        let end = self.session.closed().await;
        let _ = self.driven.await;
        (error, end)
    }
}

/// A pipe that fails as a reset TCP connection does.
struct Resettable {
    io: DuplexStream,
    reset: Arc<AtomicBool>,
}

impl AsyncRead for Resettable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        let eof = matches!(read, Poll::Ready(Ok(()))) && buf.filled().len() == before;
        if eof && self.reset.load(Ordering::SeqCst) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        read
    }
}

impl AsyncWrite for Resettable {
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
}

const ENDINGS: [&str; 13] = [
    "a reset",
    "go-away 0 and the end of the connection, the stream open",
    "go-away 1",
    "go-away 2",
    "go-away 77",
    "the end of the connection between two frames",
    "the end of the connection inside of a frame",
    "a reset connection",
    "a TLS layer below that is cut off",
    "silence",
    "a broken rule",
    "our own close",
    "our own driver dropped",
];

async fn end_by(what: &str) -> (io::Error, MuxError) {
    if what == "a TLS layer below that is cut off" {
        return end_by_truncated_tls(what).await;
    }
    let (us, mut peer) = pipe();
    let reset = Arc::new(AtomicBool::new(what == "a reset connection"));
    let us = Resettable { io: us, reset };
    let scene = Scene::over(us, &mut peer).await;
    let frame = match what {
        "a reset" => header(WINDOW, RST, 1, 0),
        "go-away 1" => header(GO_AWAY, 0, 0, 1),
        "go-away 2" => header(GO_AWAY, 0, 0, 2),
        "go-away 77" => header(GO_AWAY, 0, 0, 77),
        "a broken rule" => header(DATA, 0, 2, 0),
        _ => header(GO_AWAY, 0, 0, 0),
    };
    match what {
        "a reset" | "go-away 1" | "go-away 2" | "go-away 77" | "a broken rule" => {
            peer.write_all(&frame).await.unwrap();
        }
        "go-away 0 and the end of the connection, the stream open" => {
            peer.write_all(&frame).await.unwrap();
            drop(peer);
            return scene.end(what).await;
        }
        "the end of the connection between two frames" | "a reset connection" => {
            drop(peer);
            return scene.end(what).await;
        }
        "the end of the connection inside of a frame" => {
            peer.write_all(&frame[..7]).await.unwrap();
            drop(peer);
            return scene.end(what).await;
        }
        "silence" => tokio::time::sleep(Duration::from_secs(31)).await,
        "our own close" => {
            let session = scene.session.clone();
            tokio::spawn(async move { session.close().await });
            tokio::task::yield_now().await;
        }
        "our own driver dropped" => scene.driven.abort(),
        other => panic!("{other}?"),
    }
    let closes = tokio::spawn(async move {
        crate::attacker::read_all(&mut peer).await;
    });
    let end = scene.end(what).await;
    closes.abort();
    end
}

async fn end_by_truncated_tls(what: &str) -> (io::Error, MuxError) {
    let config = || {
        let identity = Identity::generate(KeyKind::Ed25519).unwrap();
        TlsConfig::new(&identity, Arc::new(AcceptAny)).unwrap()
    };
    let (us, peer) = pipe();
    let (mut us, mut peer) = (Onion::new(us), Onion::new(peer));
    let (server, client) = (config(), config());
    let (a, b) = tokio::join!(
        us.push(Side::Server, &server),
        peer.push(Side::Client, &client)
    );
    a.unwrap();
    b.unwrap();
    let scene = Scene::over(us, &mut peer).await;
    drop(peer); // without a close_notify
    scene.end(what).await
}

#[test]
fn none_reads_as_an_end_of_stream_and_each_says_what_it_was() {
    in_virtual_time(async {
        let mut texts: Vec<(String, &str)> = Vec::new();
        for what in ENDINGS {
            let (error, end) = end_by(what).await;
            println!("{what}: {error}");
            let found = stream_error(&error);
            let named = match what {
                "a reset" => matches!(found, StreamError::ResetByPeer { code: 0 }),
                "a reset connection" => {
                    error.kind() == io::ErrorKind::ConnectionReset
                        && matches!(found, StreamError::Session(MuxError::Io(_)))
                }
                "a TLS layer below that is cut off" => {
                    matches!(found, StreamError::Session(MuxError::Io(_)))
                        && error.kind() == io::ErrorKind::UnexpectedEof
                }
                "silence" => {
                    matches!(
                        found,
                        StreamError::Session(MuxError::KeepaliveTimeout { .. })
                    )
                }
                "a broken rule" => matches!(
                    found,
                    StreamError::Session(MuxError::Protocol(Violation::NeverOpened(2)))
                ),
                "our own close" => matches!(found, StreamError::Session(MuxError::Closed)),
                "our own driver dropped" => {
                    matches!(found, StreamError::Session(MuxError::DriverGone))
                }
                _ if what.starts_with("the end of the connection") => {
                    matches!(found, StreamError::Session(MuxError::Eof))
                }
                _ => {
                    let number: u32 = what.split(' ').nth(1).unwrap().parse().unwrap();
                    matches!(
                        found,
                        StreamError::Session(MuxError::GoAway { code })
                            if *code == GoAwayCode::from(number)
                    )
                }
            };
            assert!(named, "{what}: {error:?}");
            if let StreamError::Session(session) = found {
                assert_eq!(
                    session.to_string(),
                    end.to_string(),
                    "{what}: the session says the same"
                );
            }
            texts.push((error.to_string(), what));
        }
        for (i, (text, what)) in texts.iter().enumerate() {
            for (other, which) in &texts[i + 1..] {
                // Where it was cut makes no difference to anybody.
                let both_cut = [what, which]
                    .iter()
                    .all(|w| w.starts_with("the end of the"));
                assert!(
                    text != other || both_cut,
                    "{what} and {which} both say {text:?}"
                );
            }
        }
    });
}
