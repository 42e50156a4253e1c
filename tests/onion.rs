//! TLS as a layer: each promise of the onion, shown over a pipe that cuts bytes as it likes.

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cepa::Side;
use cepa::identity::{
    AcceptAny, Identity, KeyKind, PeerId, Pinned, Presented, Refusal, TrustPolicy,
};
use cepa::onion::{Answer, OfferError, Onion};
use cepa::tls::{TlsConfig, TlsError, Version};
use cepa::transports::ByteStream;
use support::{Cuts, Pair, Random, anyone, onions, soon, wires};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};

const CUTS: [Cuts; 3] = [Cuts::None, Cuts::Single, Cuts::Random(7)];

/// Pushes on both ends at once, the left one as TLS client.
async fn push<A: ByteStream, B: ByteStream>(a: &mut Onion<A>, b: &mut Onion<B>, pair: &Pair) {
    let (left, right) = tokio::join!(
        a.push(Side::Client, &pair.left_tls),
        b.push(Side::Server, &pair.right_tls)
    );
    assert_eq!(left.unwrap().id(), pair.right.peer_id());
    assert_eq!(right.unwrap().id(), pair.left.peer_id());
}

/// Sends `text` from one to the other and checks that just that arrives.
async fn say<A: ByteStream, B: ByteStream>(from: &mut Onion<A>, to: &mut Onion<B>, text: &[u8]) {
    let mut got = vec![0; text.len()];
    let (sent, read) = tokio::join!(
        async {
            from.write_all(text).await?;
            from.flush().await
        },
        to.read_exact(&mut got)
    );
    sent.unwrap();
    read.unwrap();
    assert_eq!(got, text);
}

async fn pop<A: ByteStream, B: ByteStream>(a: &mut Onion<A>, b: &mut Onion<B>) {
    let (left, right) = tokio::join!(a.pop(), b.pop());
    left.unwrap();
    right.unwrap();
}

fn tls_of(error: &std::io::Error) -> &TlsError {
    TlsError::inside(error).expect("an error of a layer").root()
}

#[tokio::test]
async fn layers_go_on_and_off_to_any_depth_and_the_raw_stream_is_left() {
    let pair = Pair::new();
    for cuts in CUTS {
        let (mut a, mut b) = onions(4096, cuts);
        soon(async {
            say(&mut a, &mut b, b"plain").await;
            for depth in 1..=3 {
                push(&mut a, &mut b, &pair).await;
                assert_eq!((a.depth(), b.depth()), (depth, depth));
                say(&mut a, &mut b, b"to the right").await;
                say(&mut b, &mut a, b"to the left").await;
            }
            for depth in (0..3).rev() {
                pop(&mut a, &mut b).await;
                assert_eq!((a.depth(), b.depth()), (depth, depth));
                say(&mut b, &mut a, b"still here").await;
            }
            // Two starts without a stop, and a start after a stop.
            push(&mut a, &mut b, &pair).await;
            say(&mut a, &mut b, b"again").await;
            pop(&mut a, &mut b).await;
            let (mut wire, early) = a.into_wire().expect("no layer is left");
            assert!(early.is_empty());
            wire.write_all(b"raw").await.unwrap();
            let mut raw = [0; 3];
            b.read_exact(&mut raw).await.unwrap();
            assert_eq!(&raw, b"raw");
        })
        .await;
    }
}

#[tokio::test]
async fn without_a_layer_it_hands_bytes_through() {
    let (mut a, mut b) = wires(64, Cuts::None);
    let mut onion = Onion::new(a);
    onion.write_all(b"exactly this").await.unwrap();
    onion.flush().await.unwrap();
    let mut seen = [0; 12];
    b.read_exact(&mut seen).await.unwrap();
    assert_eq!(&seen, b"exactly this");
    b.write_all(b"and back\nrest").await.unwrap();
    let mut line = String::new();
    onion.read_line(&mut line).await.unwrap();
    assert_eq!(line, "and back\n");
    let early;
    (a, early) = onion.into_wire().unwrap();
    assert_eq!(
        early, "rest",
        "what was read ahead comes back with the wire"
    );
    drop(b);
    let mut end = Vec::new();
    a.read_to_end(&mut end).await.unwrap();
    assert!(end.is_empty());
}

#[tokio::test]
async fn a_hello_that_came_with_its_command_goes_to_the_new_layer() {
    let pair = Pair::new();
    for cuts in CUTS {
        let (mut a, mut b) = onions(65_536, cuts);
        soon(async {
            for _ in 0..3 {
                a.cork();
                a.write_all(b"START\n").await.unwrap();
                let client = a.push(Side::Client, &pair.left_tls);
                let server = async {
                    let mut line = String::new();
                    b.read_line(&mut line).await.unwrap();
                    assert_eq!(line, "START\n");
                    b.push(Side::Server, &pair.right_tls).await
                };
                let (client, server) = tokio::join!(client, server);
                client.unwrap();
                server.unwrap();
                say(&mut b, &mut a, b"inside").await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn bytes_read_by_the_caller_can_be_given_to_the_new_layer() {
    let pair = Pair::new();
    let (mut a, mut b) = onions(65_536, Cuts::None);
    soon(async {
        let client = a.push(Side::Client, &pair.left_tls);
        let server = async {
            // A caller with a buffer of its own has read part of the ClientHello.
            let mut early = [0; 20];
            b.read_exact(&mut early).await.unwrap();
            b.push_after(
                Bytes::copy_from_slice(&early),
                Side::Server,
                &pair.right_tls,
            )
            .await
        };
        let (client, server) = tokio::join!(client, server);
        client.unwrap();
        server.unwrap();
        say(&mut a, &mut b, b"whole").await;
    })
    .await;
}

#[tokio::test]
async fn what_stands_behind_a_close_belongs_to_the_layer_below() {
    let pair = Pair::new();
    for cuts in CUTS {
        for depth in 1..=3 {
            let (mut a, mut b) = onions(65_536, cuts);
            soon(async {
                for _ in 0..depth {
                    push(&mut a, &mut b, &pair).await;
                }
                // The one that closes first writes on at once, below; the other answers the close
                // and writes on too. Both must read every byte of it.
                let left = async {
                    a.write_all(b"last inside").await.unwrap();
                    a.pop().await.unwrap();
                    a.write_all(b"first outside").await.unwrap();
                    a.flush().await.unwrap();
                    let mut got = [0; 8];
                    a.read_exact(&mut got).await.unwrap();
                    assert_eq!(&got, b"below it");
                };
                let right = async {
                    let mut inside = Vec::new();
                    b.read_to_end(&mut inside).await.unwrap();
                    assert_eq!(inside, b"last inside");
                    // The end of a layer is told again as often as it is asked for.
                    assert_eq!(b.read(&mut [0; 4]).await.unwrap(), 0);
                    b.cork();
                    b.pop().await.unwrap();
                    b.write_all(b"below it").await.unwrap();
                    b.flush().await.unwrap();
                    let mut got = [0; 13];
                    b.read_exact(&mut got).await.unwrap();
                    assert_eq!(&got, b"first outside");
                };
                tokio::join!(left, right);
                assert_eq!((a.depth(), b.depth()), (depth - 1, depth - 1));
            })
            .await;
        }
    }
}

#[tokio::test]
async fn a_close_and_what_follows_it_may_come_in_one_read() {
    let pair = Pair::new();
    // Everything that A sends is collected before B sees any of it.
    let (mut a, mut b) = onions(1 << 20, Cuts::None);
    soon(async {
        push(&mut a, &mut b, &pair).await;
        push(&mut a, &mut b, &pair).await;
        // B closes both layers first, so that A's closes wait for nothing.
        for _ in 0..2 {
            let closing = async {
                tokio::time::timeout(Duration::from_millis(20), b.pop())
                    .await
                    .ok();
            };
            let answering = async {
                a.read_to_end(&mut Vec::new()).await.unwrap();
                a.cork();
                a.write_all(b"bye").await.unwrap();
                a.pop().await.unwrap();
                a.write_all(b"hi").await.unwrap();
                a.flush().await.unwrap();
            };
            tokio::join!(closing, answering);
            let mut bye = Vec::new();
            b.read_to_end(&mut bye).await.unwrap();
            assert_eq!(bye, b"bye");
            b.pop().await.unwrap();
            let mut hi = [0; 2];
            b.read_exact(&mut hi).await.unwrap();
            assert_eq!(&hi, b"hi");
        }
        assert_eq!((a.depth(), b.depth()), (0, 0));
    })
    .await;
}

#[tokio::test]
async fn both_may_pop_at_once_and_pending_writes_leave_first() {
    let pair = Pair::new();
    for cuts in CUTS {
        let (mut a, mut b) = onions(4096, cuts);
        soon(async {
            push(&mut a, &mut b, &pair).await;
            let end = |mut onion: Onion<support::Cut>, text: &'static [u8]| async move {
                onion.write_all(text).await.unwrap();
                // Crossing closes: each finds the other's last words unread.
                let mut heard = Vec::new();
                loop {
                    match onion.pop().await {
                        Ok(()) => break,
                        Err(TlsError::Unread) => {
                            onion.read_to_end(&mut heard).await.unwrap();
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
                (onion, heard)
            };
            let ((mut a, by_a), (mut b, by_b)) =
                tokio::join!(end(a, b"from the left"), end(b, b"from the right"));
            assert_eq!(by_a, b"from the right");
            assert_eq!(by_b, b"from the left");
            say(&mut a, &mut b, b"below").await;
            say(&mut b, &mut a, b"below").await;
        })
        .await;
    }
}

#[tokio::test]
async fn a_pop_reports_unread_data_and_loses_none_of_it() {
    let pair = Pair::new();
    let (mut a, mut b) = onions(65_536, Cuts::Random(3));
    soon(async {
        push(&mut a, &mut b, &pair).await;
        b.write_all(b"you have not read this").await.unwrap();
        b.flush().await.unwrap();
        let left = async {
            assert!(matches!(a.pop().await, Err(TlsError::Unread)));
            assert!(
                matches!(a.pop().await, Err(TlsError::Unread)),
                "it can be asked again"
            );
            let refused = a.write(b"no").await.unwrap_err();
            assert!(matches!(tls_of(&refused), TlsError::Closed));
            let mut text = Vec::new();
            a.read_to_end(&mut text).await.unwrap();
            assert_eq!(text, b"you have not read this");
            a.pop().await.unwrap();
        };
        let right = async {
            assert_eq!(b.read(&mut [0; 9]).await.unwrap(), 0);
            b.pop().await.unwrap();
        };
        tokio::join!(left, right);
        say(&mut a, &mut b, b"fine").await;
    })
    .await;
}

#[tokio::test]
async fn popping_nothing_is_the_callers_slip_and_breaks_nothing() {
    let (mut a, mut b) = onions(1024, Cuts::None);
    assert!(matches!(a.pop().await, Err(TlsError::Misuse { .. })));
    say(&mut a, &mut b, b"unharmed").await;
}

#[tokio::test]
async fn a_dropped_push_and_a_dropped_pop_are_gone_on_with() {
    let pair = Pair::new();
    let (mut a, mut b) = onions(1 << 20, Cuts::Random(11));
    soon(async {
        // Polls `step` a few times at most, then drops it, over and over.
        macro_rules! in_pieces {
            ($step:expr) => {
                loop {
                    let mut polls = 0;
                    let step = $step;
                    tokio::pin!(step);
                    let done = std::future::poll_fn(|cx| {
                        polls += 1;
                        match step.as_mut().poll(cx) {
                            std::task::Poll::Ready(done) => std::task::Poll::Ready(Some(done)),
                            std::task::Poll::Pending if polls > 2 => std::task::Poll::Ready(None),
                            std::task::Poll::Pending => std::task::Poll::Pending,
                        }
                    })
                    .await;
                    match done {
                        Some(done) => break done,
                        None => tokio::task::yield_now().await,
                    }
                }
            };
        }
        for _ in 0..3 {
            let (left, right) = tokio::join!(
                async { in_pieces!(a.push(Side::Server, &pair.left_tls)) },
                async { in_pieces!(b.push(Side::Client, &pair.right_tls)) }
            );
            left.unwrap();
            right.unwrap();
            say(&mut a, &mut b, b"kept").await;
        }
        for _ in 0..3 {
            let (left, right) =
                tokio::join!(async { in_pieces!(a.pop()) }, async { in_pieces!(b.pop()) });
            left.unwrap();
            right.unwrap();
            say(&mut b, &mut a, b"kept").await;
        }
    })
    .await;
}

#[tokio::test]
async fn nothing_is_half_usable_while_a_push_is_under_way() {
    let pair = Pair::new();
    let (mut a, _b) = onions(65_536, Cuts::None);
    let dropped = tokio::time::timeout(
        Duration::from_millis(5),
        a.push(Side::Client, &pair.left_tls),
    );
    assert!(dropped.await.is_err(), "nobody answers");
    let error = a.write(b"x").await.unwrap_err();
    assert!(matches!(tls_of(&error), TlsError::Misuse { .. }));
    let error = a.read(&mut [0; 1]).await.unwrap_err();
    assert!(matches!(tls_of(&error), TlsError::Misuse { .. }));
    assert!(matches!(a.pop().await, Err(TlsError::Misuse { .. })));
    let other_role = a.push(Side::Server, &pair.left_tls).await;
    assert!(matches!(other_role, Err(TlsError::Misuse { .. })));
}

#[tokio::test]
async fn a_cut_inside_a_layer_is_an_error_for_ever_and_what_came_before_is_read() {
    let pair = Pair::new();
    for depth in 1..=3 {
        let (mut a, mut b) = onions(65_536, Cuts::Random(5));
        soon(async {
            for _ in 0..depth {
                push(&mut a, &mut b, &pair).await;
            }
            a.write_all(b"the last words").await.unwrap();
            a.flush().await.unwrap();
            drop(a);
            let mut text = vec![0; 14];
            b.read_exact(&mut text).await.unwrap();
            assert_eq!(text, b"the last words");
            for _ in 0..3 {
                let error = b.read(&mut [0; 1]).await.unwrap_err();
                assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
                assert!(
                    matches!(tls_of(&error), TlsError::Truncated { layer: 1 }),
                    "{error}"
                );
            }
            assert!(b.pop().await.is_err());
            assert!(b.write(b"x").await.is_err());
        })
        .await;
    }
}

#[tokio::test]
async fn a_failed_handshake_says_why_on_both_ends_and_stays_failed() {
    let pair = Pair::new();
    let stranger = Identity::generate(KeyKind::P256).unwrap();
    let (mut a, mut b) = onions(65_536, Cuts::Random(9));
    soon(async {
        push(&mut a, &mut b, &pair).await;
        let strange = anyone(&stranger);
        let (left, right) = tokio::join!(
            async {
                // As TLS 1.3 has it, the client learns of the refusal from its first read.
                a.push(Side::Client, &strange).await?;
                let error = a.read(&mut [0; 1]).await.unwrap_err();
                Err::<(), _>(tls_of(&error).clone())
            },
            async {
                let refused = b.push(Side::Server, &pair.right_tls).await;
                let _ = b.shutdown().await;
                refused
            }
        );
        assert!(matches!(
            left.unwrap_err().root(),
            TlsError::RefusedByPeer { .. }
        ));
        assert!(matches!(right.unwrap_err().root(), TlsError::Refused(_)));
        for onion in [&mut a, &mut b] {
            assert!(onion.push(Side::Client, &pair.left_tls).await.is_err());
            assert!(onion.read(&mut [0; 1]).await.is_err());
            assert!(onion.write(b"x").await.is_err());
        }
    })
    .await;
}

#[tokio::test]
async fn an_end_that_gives_up_after_the_handshake_does_not_look_like_a_clean_one() {
    // The server demands a protocol, the client names none; TLS itself has no quarrel with that.
    let pair = Pair::new();
    let demanding = pair
        .right_tls
        .to_builder()
        .alpn(&["wanted/1"])
        .build()
        .unwrap();
    let (mut a, mut b) = onions(65_536, Cuts::Random(8));
    soon(async {
        let (client, server) = tokio::join!(a.push(Side::Client, &pair.left_tls), async {
            let pushed = b.push(Side::Server, &demanding).await;
            b.shutdown().await.unwrap();
            pushed
        });
        client.unwrap();
        assert!(matches!(server.unwrap_err().root(), TlsError::Alpn { .. }));
        let error = a.read(&mut [0; 1]).await.unwrap_err();
        assert!(
            matches!(tls_of(&error), TlsError::Truncated { .. }),
            "{error}"
        );
    })
    .await;
}

#[tokio::test]
async fn garbage_and_banners_are_quoted() {
    let pair = Pair::new();
    for (text, quoted) in [
        (&b"SSH-2.0-OpenSSH_9.2\r\n"[..], "SSH-2.0-OpenSSH_9.2"),
        (b"hi\n", "hi"),
        (b"\x00\x01\x02", "\\x00\\x01\\x02"),
    ] {
        for side in [Side::Client, Side::Server] {
            let (mut a, mut b) = onions(65_536, Cuts::None);
            b.write_all(text).await.unwrap();
            b.flush().await.unwrap();
            let error = soon(a.push(side, &pair.left_tls)).await.unwrap_err();
            assert!(matches!(error, TlsError::NotTls { .. }), "{error:?}");
            assert!(error.to_string().contains(quoted), "{error}");
        }
    }
}

#[tokio::test]
async fn an_end_at_any_byte_of_the_handshake_is_an_error() {
    let pair = Pair::new();
    // What a server says first, recorded.
    let (mut a, mut b) = onions(65_536, Cuts::None);
    let recorded = soon(async {
        let client = tokio::time::timeout(Duration::from_millis(50), async {
            a.push(Side::Client, &pair.left_tls).await.unwrap();
        });
        let mut hello = vec![0; 65_536];
        let (_, n) = tokio::join!(client, b.read(&mut hello));
        hello.truncate(n.unwrap());
        hello
    })
    .await;
    for end in 0..recorded.len() {
        let (mut c, d) = wires(65_536, Cuts::None);
        c.write_all(&recorded[..end]).await.unwrap();
        drop(c);
        let mut server = Onion::new(d);
        let error = soon(server.push(Side::Server, &pair.right_tls))
            .await
            .unwrap_err();
        assert!(
            matches!(error.root(), TlsError::Truncated { .. } | TlsError::Io(_)),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn each_layer_has_its_own_role_key_trust_version_and_suite() {
    let outer = Pair::new();
    let inner = Pair::new();
    let (mut a, mut b) = onions(65_536, Cuts::Random(2));
    soon(async {
        push(&mut a, &mut b, &outer).await;
        // The other way round, TLS 1.2 with one suite, another key.
        let narrow = |config: &TlsConfig| {
            let config = config
                .to_builder()
                .versions(&[Version::Tls12])
                .build()
                .unwrap();
            config.to_builder().suites(&[0xcca9]).build().unwrap()
        };
        let (left, right) = (narrow(&inner.left_tls), narrow(&inner.right_tls));
        let (l, r) = tokio::join!(a.push(Side::Server, &left), b.push(Side::Client, &right));
        assert_eq!(l.unwrap().id(), inner.right.peer_id());
        assert_eq!(r.unwrap().suite(), 0xcca9);
        // And the outer key once more.
        push(&mut a, &mut b, &outer).await;
        say(&mut a, &mut b, b"three deep").await;
        let layers = a.layers();
        assert_eq!(layers.len(), 3);
        assert_eq!(layers[0].peer().id(), outer.right.peer_id());
        assert_eq!(layers[1].peer().id(), inner.right.peer_id());
        assert_eq!(layers[1].peer().version(), Version::Tls12);
        assert_eq!(layers[1].side(), Side::Server);
        assert_eq!(layers[2].peer().id(), outer.right.peer_id());
        for _ in 0..3 {
            pop(&mut a, &mut b).await;
        }
        say(&mut b, &mut a, b"and back").await;
    })
    .await;
}

#[tokio::test]
async fn an_inner_layer_can_end_on_a_third_host() {
    let outer = Pair::new();
    let inner = Pair::new();
    let (mut a, mut near) = onions(65_536, Cuts::Random(21));
    let (mut far, mut c) = onions(65_536, Cuts::Random(22));
    soon(async {
        push(&mut a, &mut near, &outer).await;
        // The host in the middle copies what it finds inside its layer, and can't read it.
        let middle = tokio::spawn(async move {
            tokio::io::copy_bidirectional(&mut near, &mut far)
                .await
                .unwrap()
        });
        push(&mut a, &mut c, &inner).await;
        assert_eq!(a.layers()[1].peer().id(), inner.right.peer_id());
        say(&mut a, &mut c, b"past the middle").await;
        pop(&mut a, &mut c).await;
        say(&mut c, &mut a, b"what the middle can read").await;
        a.shutdown().await.unwrap();
        c.shutdown().await.unwrap();
        middle.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn it_stacks_over_somebody_elses_tls() {
    let pair = Pair::new();
    // tokio-rustls below, with a certificate of its own.
    let made = rcgen_certificate();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.0.clone()], made.1)
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.0).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (left, right) = wires(65_536, Cuts::Random(4));
    soon(async {
        let (left, right) = tokio::join!(
            tokio_rustls::TlsConnector::from(Arc::new(client))
                .connect("localhost".try_into().unwrap(), left),
            tokio_rustls::TlsAcceptor::from(Arc::new(server)).accept(right)
        );
        let (mut a, mut b) = (Onion::new(left.unwrap()), Onion::new(right.unwrap()));
        push(&mut a, &mut b, &pair).await;
        say(&mut a, &mut b, &vec![7; 100_000]).await;
        pop(&mut a, &mut b).await;
        say(&mut b, &mut a, b"their layer is whole").await;
    })
    .await;
}

fn rcgen_certificate() -> (
    rustls::pki_types::CertificateDer<'static>,
    rustls::pki_types::PrivateKeyDer<'static>,
) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
    (certificate.der().clone(), key.into())
}

#[tokio::test]
async fn whoever_holds_the_object_holds_it_after_a_push_too() {
    let pair = Pair::new();
    let (a, mut b) = onions(65_536, Cuts::None);
    let registered = Arc::new(tokio::sync::Mutex::new(a));
    let elsewhere = Arc::clone(&registered);
    soon(async {
        push(&mut *registered.lock().await, &mut b, &pair).await;
        say(&mut *elsewhere.lock().await, &mut b, b"the same object").await;
        assert_eq!(elsewhere.lock().await.depth(), 1);
    })
    .await;
}

#[tokio::test]
async fn an_offered_layer_switches_at_the_answer_or_not_at_all() {
    let pair = Pair::new();
    for cuts in CUTS {
        for side in [Side::Client, Side::Server] {
            let (mut a, mut b) = onions(65_536, cuts);
            soon(async {
                let (offered, answered) = tokio::join!(
                    a.offer(side, "nothing good", &pair.left_tls),
                    b.answer(|offer| {
                        assert_eq!(offer.purpose(), "nothing good");
                        assert_eq!(offer.side(), side.other());
                        Answer::Refuse("I would rather not".into())
                    })
                );
                assert!(answered.unwrap().is_none());
                match offered.unwrap_err() {
                    OfferError::Refused { reason } => assert_eq!(reason, "I would rather not"),
                    other => panic!("{other}"),
                }
                say(&mut a, &mut b, b"as before").await;
                let config = pair.right_tls.clone();
                let (offered, answered) = tokio::join!(
                    a.offer(side, "secrets", &pair.left_tls),
                    b.answer(|_| Answer::Accept(config))
                );
                assert_eq!(offered.unwrap().id(), pair.right.peer_id());
                assert_eq!(answered.unwrap().unwrap().id(), pair.left.peer_id());
                say(&mut b, &mut a, b"inside").await;
            })
            .await;
        }
    }
}

#[tokio::test]
async fn something_else_than_an_offer_is_reported() {
    let pair = Pair::new();
    let (mut a, mut b) = onions(1024, Cuts::None);
    b.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    b.flush().await.unwrap();
    let answered = soon(a.answer(|_| Answer::Accept(pair.left_tls.clone()))).await;
    assert!(matches!(answered, Err(OfferError::Unexpected { .. })));
    let long = "x".repeat(256);
    let offered = b.offer(Side::Client, &long, &pair.left_tls).await;
    assert!(matches!(offered, Err(OfferError::TooLong(256))));
}

#[tokio::test]
async fn half_close_passes_all_layers() {
    let pair = Pair::new();
    for depth in 0..=3 {
        let (mut a, mut b) = onions(4096, Cuts::Random(depth));
        soon(async {
            for _ in 0..depth {
                push(&mut a, &mut b, &pair).await;
            }
            let (up, down) = (Random::new(1).bytes(100_000), Random::new(2).bytes(50_000));
            let left = async {
                a.write_all(&up).await.unwrap();
                a.shutdown().await.unwrap();
                assert!(a.write(b"x").await.is_err());
                let mut got = Vec::new();
                a.read_to_end(&mut got).await.unwrap();
                assert!(got == down);
            };
            let right = async {
                let mut got = Vec::new();
                b.read_to_end(&mut got).await.unwrap();
                assert!(got == up);
                b.write_all(&down).await.unwrap();
                b.shutdown().await.unwrap();
            };
            tokio::join!(left, right);
        })
        .await;
    }
}

#[tokio::test]
async fn two_ends_that_write_before_they_read_get_through() {
    let pair = Pair::new();
    for depth in 0..=3 {
        let (mut a, mut b) = onions(2048, Cuts::Random(depth + 40));
        for _ in 0..depth {
            soon(push(&mut a, &mut b, &pair)).await;
        }
        let data = Random::new(5).bytes(1 << 20);
        let run = |onion, data: Vec<u8>| async move {
            let (mut read, mut write) = tokio::io::split(onion);
            let expected = data.clone();
            let writer = tokio::spawn(async move {
                write.write_all(&data).await.unwrap();
                write.flush().await.unwrap();
                write
            });
            let mut got = vec![0; expected.len()];
            read.read_exact(&mut got).await.unwrap();
            assert!(got == expected);
            writer.await.unwrap();
        };
        let both = async {
            tokio::join!(
                tokio::spawn(run(a, data.clone())),
                tokio::spawn(run(b, data))
            )
        };
        let (left, right) = soon(both).await;
        left.unwrap();
        right.unwrap();
    }
}

#[tokio::test]
async fn layers_count_the_bytes_above_and_below_them() {
    let pair = Pair::new();
    let (mut a, mut b) = onions(1 << 20, Cuts::None);
    soon(async {
        push(&mut a, &mut b, &pair).await;
        push(&mut a, &mut b, &pair).await;
        let before: Vec<_> = a
            .layers()
            .iter()
            .map(cepa::onion::LayerInfo::bytes)
            .collect();
        let unit = a.write_unit();
        assert_eq!(unit, 16_384 - 22);
        say(&mut a, &mut b, &vec![1; unit]).await;
        let after: Vec<_> = a
            .layers()
            .iter()
            .map(cepa::onion::LayerInfo::bytes)
            .collect();
        assert_eq!(after[1].plain_out - before[1].plain_out, unit as u64);
        assert_eq!(after[1].sealed_out - before[1].sealed_out, unit as u64 + 22);
        // One record of the inner layer is one record of the outer.
        assert_eq!(after[0].plain_out - before[0].plain_out, unit as u64 + 22);
        assert_eq!(after[0].sealed_out - before[0].sealed_out, unit as u64 + 44);
        let far = b.layers()[1].bytes();
        assert_eq!(far.plain_in, after[1].plain_out);
        assert_eq!(far.sealed_in, after[1].sealed_out);
    })
    .await;
}

#[tokio::test]
async fn more_layers_than_the_bound_are_refused() {
    let pair = Pair::new();
    let (mut a, mut b) = onions(65_536, Cuts::None);
    soon(async {
        for _ in 0..cepa::onion::MAX_LAYERS {
            push(&mut a, &mut b, &pair).await;
        }
        let more = a.push(Side::Client, &pair.left_tls).await;
        assert!(matches!(more, Err(TlsError::Misuse { .. })));
        say(&mut a, &mut b, b"eight deep").await;
    })
    .await;
}

#[tokio::test]
async fn a_policy_that_takes_anybody_reports_whom_it_took() {
    let (left, right) = (
        Identity::generate(KeyKind::Ed25519).unwrap(),
        Identity::generate(KeyKind::P256).unwrap(),
    );
    let (mut a, mut b) = onions(65_536, Cuts::None);
    let pinned = TlsConfig::new(&left, Arc::new(Pinned::one(right.peer_id()))).unwrap();
    let open = TlsConfig::new(&right, Arc::new(AcceptAny)).unwrap();
    let (server, client) =
        soon(async { tokio::join!(a.push(Side::Server, &pinned), b.push(Side::Client, &open)) })
            .await;
    assert_eq!(server.unwrap().id(), right.peer_id());
    let seen = client.unwrap();
    assert_eq!(seen.id(), left.peer_id());
    assert_eq!(seen.certificate_sha256(), Some(left.certificate_sha256()));
}

// ---- policies that block ---------------------------------------------------------------------

/// A policy that is asked on a thread of its own.
#[derive(Debug)]
struct Apart<P>(P);

impl<P: TrustPolicy> TrustPolicy for Apart<P> {
    fn decide(&self, peer: &Presented<'_>) -> Result<(), Refusal> {
        self.0.decide(peer)
    }

    fn proven(&self, peer: &Presented<'_>) -> Result<(), Refusal> {
        self.0.proven(peer)
    }

    fn overlooks_dates(&self, peer: &Presented<'_>) -> bool {
        self.0.overlooks_dates(peer)
    }

    fn names(&self, peer: &Presented<'_>) -> bool {
        self.0.names(peer)
    }

    fn may_block(&self) -> bool {
        true
    }
}

/// What each pins, asked apart.
fn apart() -> Pair {
    let mut pair = Pair::new();
    let pinned = |id| Arc::new(Apart(Pinned::one(id)));
    let (left, right) = (pair.left.peer_id(), pair.right.peer_id());
    pair.left_tls = pair
        .left_tls
        .to_builder()
        .trust(pinned(right))
        .build()
        .unwrap();
    pair.right_tls = pair
        .right_tls
        .to_builder()
        .trust(pinned(left))
        .build()
        .unwrap();
    pair
}

#[tokio::test]
async fn layers_whose_policy_is_asked_apart_are_layers_as_any() {
    for seed in 0..10 {
        let pair = apart();
        let cuts = if seed == 0 {
            Cuts::Single
        } else {
            Cuts::Random(seed)
        };
        let (mut a, mut b) = onions(65_536, cuts);
        soon(async {
            for depth in 1..=3 {
                push(&mut a, &mut b, &pair).await;
                assert_eq!((a.depth(), b.depth()), (depth, depth));
                say(&mut a, &mut b, b"inwards").await;
                say(&mut b, &mut a, b"and back").await;
            }
            for _ in 0..3 {
                pop(&mut a, &mut b).await;
                say(&mut b, &mut a, b"outwards").await;
            }
            a.shutdown().await.unwrap();
            assert_eq!(b.read(&mut [0; 1]).await.unwrap(), 0);
        })
        .await;
    }
}

#[tokio::test]
async fn a_policy_that_is_asked_apart_changes_no_message() {
    let pair = Pair::new();
    let mut sizes = Vec::new();
    for blocks in [false, true] {
        for versions in [&[Version::Tls12][..], &[Version::Tls13]] {
            let with = |config: &TlsConfig, id| {
                let config = config.to_builder().versions(versions).build().unwrap();
                if blocks {
                    let pinned = Apart(Pinned::one(id));
                    config.to_builder().trust(Arc::new(pinned)).build().unwrap()
                } else {
                    config
                }
            };
            let pair = Pair {
                left_tls: with(&pair.left_tls, pair.right.peer_id()),
                right_tls: with(&pair.right_tls, pair.left.peer_id()),
                left: pair.left.clone(),
                right: pair.right.clone(),
            };
            let (mut a, mut b) = onions(65_536, Cuts::None);
            soon(push(&mut a, &mut b, &pair)).await;
            let bytes = a.layers()[0].bytes();
            sizes.push((bytes.sealed_out, bytes.sealed_in));
        }
    }
    assert_eq!(sizes[..2], sizes[2..]);
}

/// Refuses in the policy's own way, or panics.
#[derive(Debug)]
enum Refuses {
    Says(fn(PeerId) -> Refusal),
    Late(fn(PeerId) -> Refusal),
    Panics,
}

impl TrustPolicy for Refuses {
    fn decide(&self, peer: &Presented<'_>) -> Result<(), Refusal> {
        match self {
            Self::Says(refusal) => Err(refusal(peer.id)),
            Self::Late(_) => Ok(()),
            Self::Panics => panic!("the policy failed"),
        }
    }

    fn proven(&self, peer: &Presented<'_>) -> Result<(), Refusal> {
        match self {
            Self::Late(refusal) => Err(refusal(peer.id)),
            _ => Ok(()),
        }
    }
}

#[tokio::test]
async fn a_refusal_that_was_found_apart_is_the_same_at_both_ends() {
    fn not_authorised(presented: PeerId) -> Refusal {
        let reason = "no".into();
        Refusal::NotAuthorised { presented, reason }
    }
    fn unknown(presented: PeerId) -> Refusal {
        Refusal::Unknown { presented }
    }
    let pair = Pair::new();
    let cases = [
        || Refuses::Says(unknown),
        || Refuses::Says(not_authorised),
        || Refuses::Late(not_authorised),
        || Refuses::Panics,
    ];
    for case in cases {
        for judge_is in [Side::Server, Side::Client] {
            let mut ends = Vec::new();
            for blocks in [false, true] {
                let policy: Arc<dyn TrustPolicy> = if blocks {
                    Arc::new(Apart(case()))
                } else {
                    Arc::new(case())
                };
                let judge_tls = pair.left_tls.to_builder().trust(policy).build().unwrap();
                let shown_tls = anyone(&pair.right);
                let (mut judge, mut shown) = onions(65_536, Cuts::Random(7));
                let (judged, refused) = soon(async {
                    tokio::join!(
                        async {
                            let judged = judge.push(judge_is, &judge_tls).await;
                            let _ = judge.shutdown().await;
                            judged.unwrap_err()
                        },
                        async {
                            match shown.push(judge_is.other(), &shown_tls).await {
                                Ok(_) => {
                                    let error = shown.read(&mut [0; 1]).await.unwrap_err();
                                    tls_of(&error).root().clone()
                                }
                                Err(error) => error.root().clone(),
                            }
                        }
                    )
                })
                .await;
                assert!(matches!(judged, TlsError::Refused(_)), "{judged}");
                assert!(
                    matches!(refused, TlsError::RefusedByPeer { .. }),
                    "{refused}"
                );
                // It stays so.
                assert!(judge.push(judge_is, &judge_tls).await.is_err());
                assert!(judge.read(&mut [0; 1]).await.is_err());
                ends.push((judged.to_string(), refused.to_string()));
            }
            assert_eq!(ends[0], ends[1]);
        }
    }
}

/// Holds every question until it is let go.
#[derive(Debug)]
struct Held {
    begun: tokio::sync::mpsc::UnboundedSender<()>,
    go: std::sync::Mutex<std::sync::mpsc::Receiver<()>>,
}

impl TrustPolicy for Held {
    fn decide(&self, _: &Presented<'_>) -> Result<(), Refusal> {
        let _ = self.begun.send(());
        // An error means that nobody will let it go any more.
        let _ = self.go.lock().unwrap().recv();
        Ok(())
    }

    fn may_block(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn a_push_that_was_dropped_while_the_policy_was_asked_is_gone_on_with() {
    let pair = Pair::new();
    for gone_on_with in [true, false] {
        let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
        let (let_go, go) = std::sync::mpsc::channel();
        let go = std::sync::Mutex::new(go);
        let held = pair
            .left_tls
            .to_builder()
            .trust(Arc::new(Held { begun, go }))
            .build();
        let held = held.unwrap();
        let (mut a, mut b) = onions(65_536, Cuts::None);
        let other = anyone(&pair.right);
        let other = tokio::spawn(async move { b.push(Side::Client, &other).await.map(|_| b) });
        soon(async {
            tokio::select! {
                biased;
                _ = a.push(Side::Server, &held) => panic!("nobody has answered"),
                begun = begins.recv() => begun.unwrap(),
            }
            // It is as it is with any push under way.
            assert!(a.read(&mut [0; 1]).await.is_err() && a.write(b"x").await.is_err());
            let wrong_role = a.push(Side::Client, &held).await;
            assert!(matches!(wrong_role, Err(TlsError::Misuse { .. })));
            if gone_on_with {
                let_go.send(()).unwrap();
                let peer = a.push(Side::Server, &held).await.unwrap();
                assert_eq!(peer.id(), pair.right.peer_id());
                let mut b = other.await.unwrap().unwrap();
                say(&mut a, &mut b, b"kept").await;
                say(&mut b, &mut a, b"kept").await;
                assert!(begins.try_recv().is_err(), "asked once");
            } else {
                // Nobody waits for the thread; it ends when it is let go.
                a.shutdown().await.unwrap();
                drop(a);
                let_go.send(()).unwrap();
                let mut b = other.await.unwrap().unwrap();
                let error = b.read(&mut [0; 1]).await.unwrap_err();
                assert!(matches!(tls_of(&error).root(), TlsError::Truncated { .. }));
            }
        })
        .await;
    }
}

/// A policy that blocks is no reason to need a runtime.
#[test]
fn without_a_runtime_the_policy_is_asked_where_the_handshake_is() {
    let pair = apart();
    let (mut a, mut b) = onions(65_536, Cuts::None);
    futures::executor::block_on(push(&mut a, &mut b, &pair));
    assert_eq!((a.depth(), b.depth()), (1, 1));
}
