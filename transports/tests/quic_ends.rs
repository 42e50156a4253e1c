//! Ends of a QUIC stream that are none: whoever wrote is told what did not arrive; and whoever asks again has an answer.
#![cfg(feature = "quic")]
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use cepa_transports::{Endpoint, Stream, dial, listen};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// A guard against hanging.
const LONG: Duration = Duration::from_secs(60);

fn endpoint(text: &str) -> Endpoint {
    text.parse().unwrap_or_else(|e| panic!("{e}"))
}

fn plain(address: &str) -> &str {
    address.split(',').next().unwrap()
}

/// A dialled stream and the one that was accepted for it.
async fn pair() -> (Stream, Stream) {
    let mut listener = listen(&endpoint("quic:127.0.0.1:0")).await.unwrap();
    let at = endpoint(&listener.endpoint().to_string());
    let (dialled, accepted) = tokio::join!(dial(&at), listener.accept());
    (dialled.unwrap(), accepted.unwrap().unwrap())
}

async fn rest(stream: &mut Stream) -> (usize, io::Result<()>) {
    let (mut buf, mut all) = (vec![0; 40_000], 0);
    loop {
        match timeout(LONG, stream.read(&mut buf)).await.unwrap() {
            Ok(0) => return (all, Ok(())),
            Ok(n) => all += n,
            Err(error) => return (all, Err(error)),
        }
    }
}

/// One whose packets come to nothing is no clean end.
#[tokio::test]
async fn a_way_that_is_gone_is_a_lost_connection() {
    let (mut a, there) = {
        let mut listener = listen(&endpoint("quic:127.0.0.1:0,keepalive=1"))
            .await
            .unwrap();
        let real: SocketAddr = plain(&listener.endpoint().to_string())[5..]
            .parse()
            .unwrap();
        let way = Way::to(real).await;
        let at = endpoint(&format!("quic:{},keepalive=1", way.at));
        let (dialled, accepted) = tokio::join!(dial(&at), listener.accept());
        let (mut a, mut b) = (dialled.unwrap(), accepted.unwrap().unwrap());
        // Both are known to be there.
        a.write_all(b"x").await.unwrap();
        assert_eq!(b.read_u8().await.unwrap(), b'x');
        way.cut.abort();
        (a, b)
    };
    let mut b = there;
    let (one, other) = tokio::join!(rest(&mut a), rest(&mut b));
    for (n, end) in [one, other] {
        let error = end.unwrap_err();
        assert_eq!((n, error.kind()), (0, ErrorKind::TimedOut), "{error}");
    }
}

/// A way for UDP to one place, which can be cut.
struct Way {
    at: SocketAddr,
    cut: tokio::task::JoinHandle<()>,
}

impl Way {
    async fn to(place: SocketAddr) -> Self {
        let here = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let there = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let at = here.local_addr().unwrap();
        let cut = tokio::spawn(async move {
            let (mut one, mut other) = (vec![0; 65_536], vec![0; 65_536]);
            let mut client = None;
            loop {
                tokio::select! {
                    Ok((n, from)) = here.recv_from(&mut one) => {
                        client = Some(from);
                        let _ = there.send_to(&one[..n], place).await;
                    }
                    Ok((n, _)) = there.recv_from(&mut other) => if let Some(client) = client {
                        let _ = here.send_to(&other[..n], client).await;
                    }
                }
            }
        });
        Self { at, cut }
    }
}

/// Nothing of it was read: what quinn says of a connection that nobody holds any more is no end.
#[tokio::test]
async fn an_accepted_stream_that_is_dropped_unread_is_no_end_for_who_writes() {
    let (mut a, b) = pair().await;
    // Nothing runs between these, so that none of it was acknowledged before.
    a.write_all(&[7; 1000]).await.unwrap();
    drop(b);
    let error = timeout(LONG, a.shutdown()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
}

/// What was written is lost, maybe: that is no success, however long the connection is held to be there.
#[tokio::test]
async fn a_shutdown_that_is_never_acknowledged_is_an_error() {
    let options = ",keepalive=1000";
    let mut listener = listen(&endpoint(&format!("quic:127.0.0.1:0{options}")))
        .await
        .unwrap();
    let real = plain(&listener.endpoint().to_string())[5..]
        .parse()
        .unwrap();
    let way = Way::to(real).await;
    let at = endpoint(&format!("quic:{}{options}", way.at));
    let (dialled, accepted) = tokio::join!(dial(&at), listener.accept());
    let (mut a, mut b) = (dialled.unwrap(), accepted.unwrap().unwrap());
    a.write_all(b"x").await.unwrap();
    assert_eq!(b.read_u8().await.unwrap(), b'x');
    way.cut.abort();
    let _ = way.cut.await;
    a.write_all(&[7; 1000]).await.unwrap();
    let mut shutdown = pin!(a.shutdown());
    tokio::time::pause();
    assert!(futures::poll!(shutdown.as_mut()).is_pending());
    tokio::time::advance(Duration::from_secs(29)).await;
    assert!(futures::poll!(shutdown.as_mut()).is_pending());
    tokio::time::advance(Duration::from_secs(2)).await;
    let error = shutdown.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    drop(b);
}

#[tokio::test]
async fn whether_it_is_drained_can_be_asked_again() {
    let (mut a, mut b) = pair().await;
    a.write_all(&[7; 1000]).await.unwrap();
    let ((), (n, end)) = tokio::join!(
        async {
            a.shutdown().await.unwrap();
            for _ in 0..3 {
                timeout(LONG, poll_fn(|cx| a.poll_drained(cx)))
                    .await
                    .unwrap();
            }
        },
        rest(&mut b)
    );
    assert_eq!((n, end.is_ok()), (1000, true));
}
