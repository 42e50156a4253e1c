//! Opens that do not wait for the peer's answer: the bytes behind the request travel with it, and a refusal is told as truly as by an open
//! that waits.
// Two ends in one task.
#![allow(clippy::large_futures)]

mod support;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use cepa::identity::Pinned;
use cepa::mux;
use cepa::session::{OpenError, OpenOptions, ServiceStream, Session};
use cepa::stack::StackConfig;
use cepa::tls::TlsConfig;
use cepa::transports::memory;
use cepa::{Side, transports::ByteStream};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

use support::{by_hand, identity, soon};

fn configs() -> [StackConfig; 2] {
    let [a, b] = [identity(), identity()];
    let [for_a, for_b] = [Pinned::one(b.peer_id()), Pinned::one(a.peer_id())];
    [
        StackConfig::new(a, Arc::new(for_a)),
        StackConfig::new(b, Arc::new(for_b)),
    ]
}

async fn sessions_of([client, server]: &[StackConfig; 2]) -> (Session, Session) {
    let (near, far) = memory::pair();
    let (client, server) = soon(async {
        tokio::join!(
            Session::handshake(near, &[], Side::Client, client),
            Session::handshake(far, &[], Side::Server, server)
        )
    })
    .await;
    (client.unwrap(), server.unwrap())
}

async fn sessions() -> (Session, Session) {
    sessions_of(&configs()).await
}

/// A session, and a peer whose mux is in our hands: what it writes are the bytes of any version that keeps to docs/PROTOCOL.md.
async fn raw_peer() -> (Session, mux::Mux) {
    let [client, server] = configs();
    let (near, far) = memory::pair();
    let (session, raw) = soon(async {
        tokio::join!(
            Session::handshake(near, &[], Side::Client, &client),
            async {
                let onion = by_hand(far, Side::Server, &server).await;
                let (mux, driver) = mux::mux(onion, Side::Server, mux::Config::default());
                tokio::spawn(driver);
                mux
            }
        )
    })
    .await;
    (session.unwrap(), raw)
}

/// The refusal in an error of reading or writing.
fn refusal(error: &io::Error) -> &OpenError {
    OpenError::inside(error).unwrap_or_else(|| panic!("no refusal in {error:?}"))
}

/// One call of a write, which must not wait.
async fn writes_now(stream: &mut ServiceStream, bytes: &[u8]) -> Poll<io::Result<usize>> {
    poll_fn(|cx| Poll::Ready(Pin::new(&mut *stream).poll_write(cx, bytes))).await
}

#[tokio::test]
async fn who_opens_and_accepts_in_one_task_does_not_hang() {
    let (client, server) = sessions().await;
    let mut near = soon(client.open_early("db")).await.unwrap();
    near.write_all(b"question").await.unwrap();
    near.shutdown().await.unwrap();
    // Nobody has polled the opener since.
    let incoming = soon(server.accept()).await.unwrap();
    assert_eq!(incoming.service(), "db");
    let mut far = soon(incoming.accept()).await.unwrap();
    let mut asked = Vec::new();
    soon(far.read_to_end(&mut asked)).await.unwrap();
    assert_eq!(asked, b"question");
    far.write_all(b"answer").await.unwrap();
    far.shutdown().await.unwrap();
    let mut answered = Vec::new();
    soon(near.read_to_end(&mut answered)).await.unwrap();
    assert_eq!(answered, b"answer");
    near.accepted().await.unwrap();
}

#[tokio::test]
async fn the_bytes_are_those_of_an_open_that_waits() {
    let (session, raw) = raw_peer().await;
    let mut near = soon(session.open_early("db")).await.unwrap();
    near.write_all(b"select").await.unwrap();
    let mut far = soon(raw.accept()).await.unwrap();
    let mut came = [0; 11];
    soon(far.read_exact(&mut came)).await.unwrap();
    assert_eq!(&came, b"\x01\x00\x02dbselect");
    // The answer in pieces, with what belongs to the service glued to its end.
    for piece in [&b"\x01"[..], b"\x00", b"\x00one"] {
        far.write_all(piece).await.unwrap();
        session.ping().await.unwrap();
        let polled = poll_fn(|cx| Poll::Ready(near.poll_accepted(cx))).await;
        assert_eq!(polled.is_ready(), piece.len() > 1, "{polled:?}");
    }
    let mut got = [0; 3];
    soon(near.read_exact(&mut got)).await.unwrap();
    assert_eq!(&got, b"one");
    assert!(near.into_wire().is_ok_and(|(_, ahead)| ahead.is_empty()));
}

#[tokio::test]
async fn chunks_and_halves_begin_behind_the_answer() {
    let (session, raw) = raw_peer().await;
    let answered = async |text: &[u8]| {
        let near = soon(session.open_early("x")).await.unwrap();
        let mut far = soon(raw.accept()).await.unwrap();
        far.write_all(&[b"\x01\x00\x00", text].concat())
            .await
            .unwrap();
        (near, far)
    };
    let (near, _far) = answered(b"chunk").await;
    let (mut wire, _) = near.into_wire().unwrap();
    let chunk = soon(wire.read_chunk()).await.unwrap().unwrap();
    assert_eq!(chunk, &b"chunk"[..]);

    let (near, mut far) = answered(b"half").await;
    let (mut reader, mut writer) = near.into_split();
    let reads = tokio::spawn(async move {
        let mut got = [0; 4];
        reader.read_exact(&mut got).await.unwrap();
        got
    });
    writer.write_all(b"other half").await.unwrap();
    writer.shutdown().await.unwrap();
    assert_eq!(&soon(reads).await.unwrap(), b"half");
    let mut came = Vec::new();
    soon(far.read_to_end(&mut came)).await.unwrap();
    assert_eq!(came, b"\x01\x00\x01xother half");
}

#[tokio::test]
async fn a_refusal_is_told_by_each_call_from_then_on() {
    let (client, server) = sessions().await;
    let mut near = soon(client.open_early("nope")).await.unwrap();
    near.write_all(b"early").await.unwrap();
    let incoming = soon(server.accept()).await.unwrap();
    soon(incoming.refuse("not here")).await.unwrap();
    let read = soon(near.read_u8()).await.unwrap_err();
    assert_eq!(read.kind(), io::ErrorKind::ConnectionRefused);
    let said = "the peer refused the service \"nope\": not here";
    assert_eq!(read.to_string(), said);
    let write = near.write_all(b"more").await.unwrap_err();
    let shut = near.shutdown().await.unwrap_err();
    let again = soon(near.read_u8()).await.unwrap_err();
    for error in [read, write, shut, again] {
        let refused = refusal(&error);
        assert!(
            matches!(refused, OpenError::Refused { service, reason } if service == "nope" && reason == "not here"),
            "{refused:?}"
        );
    }
    assert_eq!(near.accepted().await.unwrap_err().to_string(), said);
    soon(client.ping()).await.unwrap();
}

#[tokio::test]
async fn who_only_writes_learns_of_a_refusal_and_is_not_left_waiting() {
    let (client, server) = sessions().await;
    let mut near = soon(client.open_early("nope")).await.unwrap();
    let writing = tokio::spawn(async move {
        // More than any window takes.
        let error = near.write_all(&vec![7; 16 << 20]).await.unwrap_err();
        assert!(
            matches!(refusal(&error), OpenError::Refused { .. }),
            "{error}"
        );
    });
    let incoming = soon(server.accept()).await.unwrap();
    soon(incoming.refuse("not here")).await.unwrap();
    soon(writing).await.unwrap();
}

#[tokio::test]
async fn what_is_sent_early_is_bounded_and_dropped_when_it_is_refused() {
    let configs = configs();
    let most = configs[1].mux.receive_window as usize;
    let (client, server) = sessions_of(&configs).await;
    for _ in 0..20 {
        let mut near = soon(client.open_early("nope")).await.unwrap();
        let mut sent = 0;
        // The queue here, and the window there.
        let bound = most + configs[0].mux.send_queue + (1 << 16);
        for _ in 0..10 {
            while let Poll::Ready(n) = writes_now(&mut near, &[7; 1 << 14]).await {
                sent += n.unwrap();
                assert!(sent <= bound, "{sent} bytes of {bound} were taken");
            }
            client.ping().await.unwrap();
        }
        assert!(sent >= most, "{sent} of {most}");
        let incoming = soon(server.accept()).await.unwrap();
        soon(incoming.refuse("no")).await.unwrap();
        assert!(near.accepted().await.is_err());
        // The reset comes in front of the ping's answer.
        client.ping().await.unwrap();
    }
    soon(async {
        while server.mux_stats().streams > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(
        (server.mux_stats().unread, client.mux_stats().unsent),
        (0, 0)
    );
    assert_eq!(client.mux_stats().streams, 0);
    // An honest opener has all of it.
    let mut near = soon(client.open_early("yes")).await.unwrap();
    let mut far = soon(server.accept()).await.unwrap().accept().await.unwrap();
    let (wrote, read) = soon(async {
        tokio::join!(
            async {
                near.write_all(&vec![1; 2 << 20]).await?;
                near.shutdown().await
            },
            async {
                let mut all = Vec::new();
                far.read_to_end(&mut all).await.map(|_| all.len())
            }
        )
    })
    .await;
    wrote.unwrap();
    assert_eq!(read.unwrap(), 2 << 20);
}

#[tokio::test]
async fn an_answer_that_is_none_is_told_as_by_an_open_that_waits() {
    let (session, raw) = raw_peer().await;
    for answer in [&b"\x02\x00\x00"[..], b"\x01\x09\x00", b"HTTP/1.1 200 OK"] {
        let mut near = soon(session.open_early("x")).await.unwrap();
        let mut far = soon(raw.accept()).await.unwrap();
        far.write_all(answer).await.unwrap();
        let error = soon(near.read_u8()).await.unwrap_err();
        assert!(
            matches!(refusal(&error), OpenError::Protocol { .. }),
            "{error}"
        );
    }
    // Cut in the middle, dropped without a word, and refused unseen.
    let mut near = soon(session.open_early("x")).await.unwrap();
    let mut far = soon(raw.accept()).await.unwrap();
    far.write_all(b"\x01\x01\x20half").await.unwrap();
    far.shutdown().await.unwrap();
    assert!(matches!(
        soon(near.accepted()).await,
        Err(OpenError::Dropped { .. })
    ));
    let mut near = soon(session.open_early("x")).await.unwrap();
    drop(soon(raw.accept()).await.unwrap());
    assert!(matches!(
        soon(near.accepted()).await,
        Err(OpenError::Dropped { .. })
    ));
    let mut near = soon(session.open_early("x")).await.unwrap();
    soon(raw.accept()).await.unwrap().refuse();
    let refused = soon(near.accepted()).await.unwrap_err();
    assert!(refused.is_safe_to_retry(), "{refused:?}");
}

#[tokio::test]
async fn names_and_ends_stand_in_the_way_at_once() {
    let (client, server) = sessions().await;
    let error = client.open_early("a\nb").await.unwrap_err();
    assert!(matches!(error, OpenError::Name { .. }), "{error}");
    let mut near = soon(client.open_early("x")).await.unwrap();
    soon(server.close()).await;
    let lost = soon(near.read_u8()).await.unwrap_err();
    assert!(refusal(&lost).needs_new_session(), "{lost}");
    soon(client.closed()).await;
    let error = client.open_early("x").await.unwrap_err();
    assert!(error.needs_new_session(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_answer_is_given_up_by_who_waits_for_it() {
    let (client, server) = sessions().await;
    let options = OpenOptions::new().patience(Duration::from_secs(5));
    let begun = tokio::time::Instant::now();
    let mut first = soon(client.open_early_with("x", &options)).await.unwrap();
    let mut second = soon(client.open_early_with("x", &options)).await.unwrap();
    first.write_all(b"early").await.unwrap();
    let held = [soon(server.accept()).await, soon(server.accept()).await];
    let read = soon(first.read_u8()).await.unwrap_err();
    assert!(
        matches!(refusal(&read), OpenError::TimedOut { .. }),
        "{read}"
    );
    assert_eq!(read.kind(), io::ErrorKind::TimedOut);
    let waited = soon(second.accepted()).await.unwrap_err();
    assert!(matches!(waited, OpenError::TimedOut { .. }), "{waited}");
    assert!(begun.elapsed() >= Duration::from_secs(5));
    drop(held);
    // As long as it takes, without a timer that could overflow.
    let options = OpenOptions::new().patience(Duration::MAX);
    let mut third = soon(client.open_early_with("x", &options)).await.unwrap();
    let _held = soon(server.accept()).await.unwrap();
    let waits = tokio::time::timeout(Duration::from_secs(3600), third.accepted());
    assert!(waits.await.is_err());
}

#[tokio::test(start_paused = true)]
async fn who_only_writes_gives_a_peer_up_that_does_not_answer() {
    let (client, server) = sessions().await;
    let options = OpenOptions::new().patience(Duration::from_secs(5));
    let begun = tokio::time::Instant::now();
    let mut near = soon(client.open_early_with("x", &options)).await.unwrap();
    let held = soon(server.accept()).await.unwrap();
    // Nobody reads it, and it takes what it is given until nobody takes that from it.
    let written = tokio::time::timeout(Duration::from_secs(3600), async {
        loop {
            if let Err(error) = near.write_all(&[7; 1000]).await {
                return error;
            }
        }
    });
    let error = written.await.expect("it is given up");
    assert!(
        matches!(refusal(&error), OpenError::TimedOut { .. }),
        "{error}"
    );
    assert!(begun.elapsed() >= Duration::from_secs(5));
    drop(held);

    // Who is answered has all the time, and so has who leaves it behind ended.
    let mut answered = soon(client.open_early_with("x", &options)).await.unwrap();
    let mut left = soon(client.open_early_with("x", &options)).await.unwrap();
    left.write_all(b"all of it").await.unwrap();
    left.shutdown().await.unwrap();
    drop(left);
    let mut far = soon(server.accept()).await.unwrap().accept().await.unwrap();
    let later = soon(server.accept()).await.unwrap();
    soon(answered.accepted()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    answered.write_all(b"x").await.unwrap();
    assert_eq!(soon(far.read_u8()).await.unwrap(), b'x');
    let mut came = Vec::new();
    let mut later = later.accept().await.unwrap();
    soon(later.read_to_end(&mut came)).await.unwrap();
    assert_eq!(came, b"all of it");
}

#[tokio::test(start_paused = true)]
async fn a_part_of_an_answer_is_none() {
    let (client, raw) = raw_peer().await;
    for part in 1..=2 {
        let options = OpenOptions::new().patience(Duration::from_secs(5));
        let begun = tokio::time::Instant::now();
        let mut near = soon(client.open_early_with("x", &options)).await.unwrap();
        let mut far = soon(raw.accept()).await.unwrap();
        far.write_all(&[1, 0][..part]).await.unwrap();
        let read = tokio::time::timeout(Duration::from_secs(3600), near.read_u8()).await;
        let read = read.expect("it is given up").unwrap_err();
        let late = matches!(refusal(&read), OpenError::TimedOut { .. });
        assert!(late, "{read}");
        assert!(begun.elapsed() >= Duration::from_secs(5));
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_came_in_time_may_be_read_at_any_time() {
    let (client, server) = sessions().await;
    let options = OpenOptions::new().patience(Duration::from_secs(5));
    let mut near = soon(client.open_early_with("x", &options)).await.unwrap();
    near.write_all(b"x").await.unwrap();
    near.flush().await.unwrap();
    let mut far = soon(server.accept()).await.unwrap().accept().await.unwrap();
    far.write_all(b"hello").await.unwrap();
    far.flush().await.unwrap();
    assert_eq!(soon(far.read_u8()).await.unwrap(), b'x');
    tokio::time::sleep(Duration::from_secs(60)).await;
    // Both are there still, and go on.
    near.write_all(b"y").await.unwrap();
    near.flush().await.unwrap();
    let mut hello = [0; 5];
    soon(near.read_exact(&mut hello)).await.unwrap();
    assert_eq!(&hello, b"hello");
    assert_eq!(soon(far.read_u8()).await.unwrap(), b'y');
}

#[tokio::test]
async fn who_drops_it_before_the_answer_takes_it_back_unless_it_was_ended() {
    let (client, server) = sessions().await;
    let mut near = soon(client.open_early("x")).await.unwrap();
    near.write_all(b"all of it").await.unwrap();
    near.shutdown().await.unwrap();
    drop(near);
    let mut far = soon(server.accept()).await.unwrap().accept().await.unwrap();
    let mut came = Vec::new();
    soon(far.read_to_end(&mut came)).await.unwrap();
    assert_eq!(came, b"all of it");

    drop(soon(client.open_early("x")).await.unwrap());
    client.ping().await.unwrap();
    if let Ok(Ok(incoming)) =
        tokio::time::timeout(Duration::from_millis(100), server.accept()).await
        && let Ok(mut far) = incoming.accept().await
    {
        assert!(soon(far.read_u8()).await.is_err());
    }
    soon(client.ping()).await.unwrap();
}

#[tokio::test]
async fn tls_inside_begins_behind_the_request() {
    let (session, raw) = raw_peer().await;
    let own = identity();
    let tls = TlsConfig::new(&own, Arc::new(Pinned::one(identity().peer_id()))).unwrap();
    let (opened, ()) = soon(async {
        tokio::join!(session.open_secured("db", &tls), async {
            let mut far = raw.accept().await.unwrap();
            let mut came = [0; 6];
            far.read_exact(&mut came).await.unwrap();
            // A handshake record of TLS, before anything was said to the request.
            assert_eq!(&came, b"\x01\x01\x02db\x16");
            far.write_all(b"\x01\x01\x02no").await.unwrap();
            let _ = far.shutdown().await;
            let _ = far.read_to_end(&mut Vec::new()).await;
        })
    })
    .await;
    let refused = opened.unwrap_err();
    assert!(
        matches!(&refused, OpenError::Refused { reason, .. } if reason == "no"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_layer_can_be_pushed_before_the_answer() {
    let (client, server) = sessions().await;
    let [ours, theirs] = [identity(), identity()];
    let tls = TlsConfig::new(&ours, Arc::new(Pinned::one(theirs.peer_id()))).unwrap();
    let far_tls = TlsConfig::new(&theirs, Arc::new(Pinned::one(ours.peer_id()))).unwrap();
    let mut near = soon(client.open_early("x")).await.unwrap();
    let (pushed, far) = soon(async {
        tokio::join!(near.push(Side::Client, &tls), async {
            let mut far = server.accept().await.unwrap().accept().await.unwrap();
            far.push(Side::Server, &far_tls).await.unwrap();
            far
        })
    })
    .await;
    pushed.unwrap();
    talks(near, far).await;

    let mut near = soon(client.open_early("x")).await.unwrap();
    let (pushed, ()) = soon(async {
        tokio::join!(near.push(Side::Client, &tls), async {
            let incoming = server.accept().await.unwrap();
            incoming.refuse("no").await.unwrap();
        })
    })
    .await;
    assert!(pushed.is_err());
    let refused = near.accepted().await.unwrap_err();
    assert!(matches!(refused, OpenError::Refused { .. }), "{refused:?}");
}

async fn talks(mut near: impl ByteStream, mut far: impl ByteStream) {
    near.write_all(b"ping").await.unwrap();
    near.flush().await.unwrap();
    let mut got = [0; 4];
    soon(far.read_exact(&mut got)).await.unwrap();
    far.write_all(&got).await.unwrap();
    far.flush().await.unwrap();
    soon(near.read_exact(&mut got)).await.unwrap();
    assert_eq!(&got, b"ping");
}
