//! Sessions are bound to their connection, their peers and their layers: every attacker here holds
//! good keys and breaks no cryptography, and is found out all the same.

mod support;

use std::pin::Pin;
use std::sync::Arc;

use cepa::Side;
use cepa::identity::{AcceptAny, Identity, PeerId, Pinned};
use cepa::mux;
use cepa::onion::Onion;
use cepa::session::{AcceptError, ConnectError, OpenError, Session};
use cepa::stack::{ALPN_LAYER, ALPN_MUX, Binding, BindingError, StackConfig};
use cepa::tls::TlsConfig;
use cepa::transports::{Layer, Stream, memory};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use support::{identity, soon};

/// Takes anybody: all that stands between the attackers and a session is the binding.
fn trusting(identity: &Identity) -> StackConfig {
    StackConfig::new(identity.clone(), Arc::new(AcceptAny))
}

async fn push(onion: &mut Onion<Stream>, side: Side, identity: &Identity, alpn: &[u8]) {
    let tls = TlsConfig::new(identity, Arc::new(AcceptAny)).unwrap();
    let tls = tls.to_builder().alpn(&[alpn]).build().unwrap();
    onion.push(side, &tls).await.unwrap();
}

async fn send(onion: &mut Onion<Stream>, bytes: &[u8]) {
    onion.write_all(bytes).await.unwrap();
    onion.flush().await.unwrap();
}

/// What the head of `stack/binding.rs` says, for the case of one layer.
struct Claim {
    version: u8,
    role: u8,
    layers: u8,
    alpn: Vec<u8>,
    client: PeerId,
    server: PeerId,
}

impl Claim {
    fn said(&self, onion: &Onion<Stream>) -> Vec<u8> {
        let mut context = vec![self.version, self.role, self.layers];
        context.push(u8::try_from(self.alpn.len()).unwrap());
        context.extend_from_slice(&self.alpn);
        context.extend_from_slice(self.client.as_bytes());
        context.extend_from_slice(self.server.as_bytes());
        let value = onion.export_keying_material(0, b"EXPERIMENTAL-cepa-session", &context);
        [&[1][..], &value.unwrap()].concat()
    }
}

/// A client's session with a server in our hands, which says what `say` makes of the truth and of
/// what the client has said.
async fn client_meets(
    say: impl FnOnce(Claim, &Onion<Stream>, &[u8]) -> Vec<u8>,
) -> Result<Session, ConnectError> {
    let (client, server) = (identity(), identity());
    let (near, far) = memory::pair();
    let config = trusting(&client);
    let attacker = async {
        let mut onion = Onion::new(far);
        push(&mut onion, Side::Server, &server, ALPN_MUX).await;
        let mut heard = [0; Binding::LENGTH];
        onion.read_exact(&mut heard).await.unwrap();
        let truth = Claim {
            version: 1,
            role: 1,
            layers: 1,
            alpn: ALPN_MUX.to_vec(),
            client: client.peer_id(),
            server: server.peer_id(),
        };
        let said = say(truth, &onion, &heard);
        send(&mut onion, &said).await;
        // Goes on as an honest peer would.
        let (mux, driver) = mux::mux(onion, Side::Server, mux::Config::default());
        tokio::spawn(async move {
            let _ = driver.await;
            drop(mux);
        });
    };
    let met = async {
        tokio::join!(
            Session::handshake(near, &[], Side::Client, &config),
            attacker
        )
    };
    soon(met).await.0
}

fn mismatch(result: Result<Session, ConnectError>) {
    match result {
        Err(ConnectError::Binding(BindingError::Mismatch)) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_bytes_are_the_documented_ones() {
    let session = client_meets(|truth, onion, _| truth.said(onion)).await;
    assert!(session.is_ok(), "{session:?}");
}

#[tokio::test]
async fn our_own_words_sent_back_are_no_answer() {
    mismatch(client_meets(|_, _, heard| heard.to_vec()).await);
}

#[tokio::test]
async fn a_peer_that_takes_us_for_somebody_else_is_refused() {
    let other = identity().peer_id();
    mismatch(
        client_meets(|truth, onion, _| {
            let client = other;
            Claim { client, ..truth }.said(onion)
        })
        .await,
    );
    mismatch(
        client_meets(|truth, onion, _| {
            let server = other;
            Claim { server, ..truth }.said(onion)
        })
        .await,
    );
    mismatch(
        client_meets(|truth, onion, _| {
            let (client, server) = (truth.server, truth.client);
            Claim {
                client,
                server,
                ..truth
            }
            .said(onion)
        })
        .await,
    );
}

#[tokio::test]
async fn a_peer_that_means_other_layers_is_refused() {
    mismatch(client_meets(|truth, onion, _| Claim { layers: 2, ..truth }.said(onion)).await);
    mismatch(
        client_meets(|truth, onion, _| {
            let alpn = ALPN_LAYER.to_vec();
            Claim { alpn, ..truth }.said(onion)
        })
        .await,
    );
    mismatch(
        client_meets(|truth, onion, _| {
            Claim {
                version: 2,
                ..truth
            }
            .said(onion)
        })
        .await,
    );
    mismatch(client_meets(|truth, onion, _| Claim { role: 0, ..truth }.said(onion)).await);
}

#[tokio::test]
async fn one_wrong_bit_anywhere_is_refused() {
    for byte in 1..Binding::LENGTH {
        mismatch(
            client_meets(|truth, onion, _| {
                let mut said = truth.said(onion);
                said[byte] ^= 1 << (byte % 8);
                said
            })
            .await,
        );
    }
}

#[tokio::test]
async fn a_mux_without_a_binding_is_distinguished() {
    // The first frame of a yamux that begins at once: version 0, a ping.
    let result = client_meets(|_, _, _| {
        let mut frame = vec![0, 2, 0, 1];
        frame.resize(Binding::LENGTH, 0);
        frame
    })
    .await;
    match result {
        Err(ConnectError::Binding(BindingError::Unknown { first: 0 })) => {}
        other => panic!("{other:?}"),
    }
}

/// Two ends with two layers each. In between somebody ends the outer layer, with `relay` as its
/// identity, and carries the inner one through.
async fn relayed(
    relay: &Identity,
    client: &Identity,
    server: &Identity,
) -> [Result<Session, ConnectError>; 2] {
    let layers = [Layer::Mux, Layer::Tls, Layer::Tls];
    let (a, relay_a) = memory::pair();
    let (relay_b, b) = memory::pair();
    let relay = relay.clone();
    let carried = tokio::spawn(async move {
        let (mut to_a, mut to_b) = (Onion::new(relay_a), Onion::new(relay_b));
        tokio::join!(
            push(&mut to_a, Side::Server, &relay, ALPN_LAYER),
            push(&mut to_b, Side::Client, &relay, ALPN_LAYER)
        );
        let _ = tokio::io::copy_bidirectional(&mut to_a, &mut to_b).await;
    });
    let (of_client, of_server) = (trusting(client), trusting(server));
    let met = soon(async {
        tokio::join!(
            Session::handshake(a, &layers, Side::Client, &of_client),
            Session::handshake(b, &layers, Side::Server, &of_server)
        )
    })
    .await;
    carried.abort();
    [met.0, met.1]
}

#[tokio::test]
async fn an_inner_layer_in_two_different_outer_ones_is_no_session() {
    let (client, server) = (identity(), identity());
    for relay in [identity(), server.clone(), client.clone()] {
        // With the key of one of the two, all ids are those that an end expects; it is the outer
        // connection that is another one.
        let ends = relayed(&relay, &client, &server).await;
        // One finds out first and leaves; the other finds out, or finds the line cut.
        assert!(
            ends.iter()
                .any(|end| matches!(end, Err(ConnectError::Binding(BindingError::Mismatch)))),
            "{ends:?}"
        );
        assert!(ends.iter().all(Result::is_err), "{ends:?}");
    }
}

#[tokio::test]
async fn both_ends_share_the_channel_binding_of_rfc_9266_and_no_two_sessions_do() {
    let (client, server) = (trusting(&identity()), trusting(&identity()));
    let mut seen = Vec::new();
    for layers in [&[][..], &[Layer::Mux, Layer::Tls, Layer::Tls]] {
        let (a, b) = memory::pair();
        let (a, b) = soon(async {
            tokio::join!(
                Session::handshake(a, layers, Side::Client, &client),
                Session::handshake(b, layers, Side::Server, &server)
            )
        })
        .await;
        let (a, b) = (a.unwrap(), b.unwrap());
        assert_eq!(a.tls_exporter(), b.tls_exporter());
        assert!(!seen.contains(a.tls_exporter()));
        seen.push(*a.tls_exporter());
    }
}

#[tokio::test]
async fn without_a_layer_there_is_nothing_to_bind_to() {
    let (near, _far) = memory::pair();
    let onion = Onion::new(near);
    assert!(Binding::of(&onion, Side::Client).is_err());
    assert!(onion.export_keying_material(0, b"x", b"").is_err());
}

// ---- TLS inside a substream ------------------------------------------------------------------

/// A peer whose mux is in our hands, with an honest session at the other end.
async fn raw_peer(side: Side, identity: &Identity) -> (mux::Mux, Session) {
    let (near, far) = memory::pair();
    let config = trusting(identity);
    let raw = async {
        let mut onion = Onion::new(near);
        push(&mut onion, side, &support::identity(), ALPN_MUX).await;
        let ours = *Binding::of(&onion, side).unwrap().ours();
        send(&mut onion, &ours).await;
        onion.read_exact(&mut [0; Binding::LENGTH]).await.unwrap();
        let (mux, driver) = mux::mux(onion, side, mux::Config::default());
        tokio::spawn(driver);
        mux
    };
    let session = Session::handshake(far, &[], side.other(), &config);
    let (raw, session) = soon(async { tokio::join!(raw, session) }).await;
    (raw, session.unwrap())
}

/// Two that expect each other inside a substream, and whoever is between them: both have a session with that
/// one, and none with each other.
struct Between {
    a: Session,
    b: Session,
    near: mux::Mux,
    far: mux::Mux,
    inner_a: TlsConfig,
    inner_b: TlsConfig,
}

impl Between {
    async fn new() -> Self {
        let (a, b) = (identity(), identity());
        let (near, session_a) = raw_peer(Side::Server, &a).await;
        let (far, session_b) = raw_peer(Side::Client, &b).await;
        let inner = |own, other: &Identity| {
            TlsConfig::new(own, Arc::new(Pinned::one(other.peer_id()))).unwrap()
        };
        Self {
            a: session_a,
            b: session_b,
            near,
            far,
            inner_a: inner(&a, &b),
            inner_b: inner(&b, &a),
        }
    }

    /// Takes the next request of A for `expected`, accepts it, makes `instead` of it at B, and joins the two.
    async fn join(&self, expected: &[u8], instead: &[u8]) {
        let mut near = self.near.accept().await.unwrap();
        let mut request = vec![0; expected.len()];
        near.read_exact(&mut request).await.unwrap();
        assert_eq!(request, expected);
        let mut far = self.far.open().await.unwrap();
        far.write_all(instead).await.unwrap();
        far.flush().await.unwrap();
        let mut answer = [0; 3];
        far.read_exact(&mut answer).await.unwrap();
        near.write_all(&answer).await.unwrap();
        tokio::spawn(async move {
            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        });
    }
}

/// What A gets by opening and B by accepting, with whoever is in between busy at the same time.
fn both<'a, T, U>(
    opening: impl Future<Output = T> + 'a,
    accepting: impl Future<Output = U> + 'a,
    joining: impl Future<Output = ()> + 'a,
) -> Pin<Box<dyn Future<Output = (T, U)> + 'a>> {
    Box::pin(async {
        let all = async { tokio::join!(opening, accepting, joining) };
        let (opened, accepted, ()) = soon(all).await;
        (opened, accepted)
    })
}

fn not_bound<T: std::fmt::Debug>(opened: Result<T, OpenError>, accepted: Result<T, AcceptError>) {
    assert!(
        matches!(&opened, Err(OpenError::InnerBinding { service }) if service == "x"),
        "{opened:?}"
    );
    assert!(
        matches!(&accepted, Err(AcceptError::InnerBinding)),
        "{accepted:?}"
    );
    for text in [
        opened.unwrap_err().to_string(),
        accepted.unwrap_err().to_string(),
    ] {
        assert!(!text.contains('\n'), "{text}");
    }
}

#[tokio::test]
async fn a_peer_in_between_can_not_join_a_substream_to_one_of_another_session() {
    let world = Between::new().await;
    // For another service, and for the very same one.
    for instead in [&b"\x01\x01\x01y"[..], b"\x01\x01\x01x"] {
        let (opened, accepted) = both(
            world.a.open_secured("x", &world.inner_a),
            async {
                let incoming = world.b.accept().await.unwrap();
                assert!(incoming.wants_inner_tls() && !incoming.wants_inner_tls_through());
                incoming.accept_secured(&world.inner_b).await
            },
            world.join(b"\x01\x01\x01x", instead),
        )
        .await;
        not_bound(opened, accepted);
    }
    soon(world.a.ping()).await.unwrap();
    soon(world.b.ping()).await.unwrap();
}

#[tokio::test]
async fn tls_through_a_third_host_is_bound_to_the_service_and_taken_only_where_it_was_asked_for() {
    let world = Between::new().await;
    let through = b"\x01\x03\x01x";
    let accept = async || {
        let incoming = world.b.accept().await.unwrap();
        assert!(incoming.wants_inner_tls() && incoming.wants_inner_tls_through());
        incoming.accept_secured_through(&world.inner_b).await
    };
    // The same service: they have each other, past the one in between.
    let opening = || world.a.open_secured_through("x", &world.inner_a);
    let (opened, accepted) = both(opening(), accept(), world.join(through, through)).await;
    let (mut opened, mut accepted) = (opened.unwrap(), accepted.unwrap());
    assert_eq!(
        opened.layers()[0].peer().id(),
        world.inner_b.identity().peer_id()
    );
    opened.write_all(b"past the middle").await.unwrap();
    opened.shutdown().await.unwrap();
    let mut got = Vec::new();
    soon(accepted.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got, b"past the middle");
    // Another one.
    let other = b"\x01\x03\x01y";
    let (opened, accepted) = both(opening(), accept(), world.join(through, other)).await;
    not_bound(opened, accepted);
    // One of the two asked for the other kind, and the one in between covers it up.
    let here = b"\x01\x01\x01x";
    let (opened, accepted) = both(
        opening(),
        async {
            let incoming = world.b.accept().await.unwrap();
            incoming.accept_secured(&world.inner_b).await
        },
        world.join(through, here),
    )
    .await;
    not_bound(opened, accepted);
    let (opened, accepted) = both(
        world.a.open_secured("x", &world.inner_a),
        accept(),
        world.join(here, through),
    )
    .await;
    not_bound(opened, accepted);
}

#[tokio::test]
async fn each_kind_of_inner_tls_is_refused_where_the_other_is_meant() {
    let (a, b) = (identity(), identity());
    let (near, far) = memory::pair();
    let (of_a, of_b) = (trusting(&a), trusting(&b));
    let (client, server) = soon(async {
        tokio::join!(
            Session::handshake(near, &[], Side::Client, &of_a),
            Session::handshake(far, &[], Side::Server, &of_b)
        )
    })
    .await;
    let (client, server) = (client.unwrap(), server.unwrap());
    let inner = TlsConfig::new(&a, Arc::new(AcceptAny)).unwrap();
    let incoming = async || server.accept().await.unwrap();
    let nothing = async {};

    let (opened, accepted) = both(
        client.open_secured_through("x", &inner),
        async { incoming().await.accept_secured(&inner).await },
        nothing,
    )
    .await;
    assert!(matches!(accepted, Err(AcceptError::WantsInnerTlsThrough)));
    assert!(matches!(opened, Err(OpenError::InnerTlsEndsHere { .. })));

    for joins in [false, true] {
        let (opened, accepted) = both(
            client.open_secured("x", &inner),
            async {
                let incoming = incoming().await;
                if joins {
                    incoming.accept_to_join().await
                } else {
                    incoming.accept_secured_through(&inner).await
                }
            },
            async {},
        )
        .await;
        assert!(matches!(accepted, Err(AcceptError::WantsInnerTlsHere)));
        assert!(matches!(opened, Err(OpenError::InnerTlsEndsBeyond { .. })));
    }

    let (opened, accepted) = both(
        client.open_secured_through("x", &inner),
        async { incoming().await.accept().await },
        async {},
    )
    .await;
    assert!(matches!(accepted, Err(AcceptError::WantsInnerTls)));
    assert!(matches!(opened, Err(OpenError::NoInnerTls { .. })));

    for joins in [false, true] {
        let (opened, accepted) = both(
            client.open("x"),
            async {
                let incoming = incoming().await;
                if joins {
                    incoming.accept_to_join().await
                } else {
                    incoming.accept_secured_through(&inner).await
                }
            },
            async {},
        )
        .await;
        assert!(matches!(accepted, Err(AcceptError::WantsNoInnerTls)));
        assert!(matches!(opened, Err(OpenError::InnerTlsRequired { .. })));
    }
    // Both mean the same, without anybody in between.
    let (opened, accepted) = both(
        client.open_secured_through("x", &inner),
        async { incoming().await.accept_secured_through(&inner).await },
        async {},
    )
    .await;
    assert!(opened.is_ok() && accepted.is_ok());
}

#[tokio::test]
async fn an_honest_peer_in_between_joins_two_substreams_whose_tls_it_is_no_part_of() {
    let (a, m, b) = (identity(), identity(), identity());
    let session = async |one: &Identity, other: &Identity| {
        let (near, far) = memory::pair();
        let (of_one, of_other) = (trusting(one), trusting(other));
        let (one, other) = soon(async {
            tokio::join!(
                Session::handshake(near, &[], Side::Client, &of_one),
                Session::handshake(far, &[], Side::Server, &of_other)
            )
        })
        .await;
        (one.unwrap(), other.unwrap())
    };
    let (at_a, near) = session(&a, &m).await;
    let (far, at_b) = session(&m, &b).await;
    let inner = |own: &Identity, other: &Identity| {
        TlsConfig::new(own, Arc::new(Pinned::one(other.peer_id()))).unwrap()
    };
    let (inner_a, inner_b) = (inner(&a, &b), inner(&b, &a));
    let (opened, accepted) = both(
        at_a.open_secured_through("x", &inner_a),
        async {
            let incoming = at_b.accept().await.unwrap();
            incoming.accept_secured_through(&inner_b).await
        },
        async {
            let incoming = near.accept().await.unwrap();
            let mut far = far.open_to_join(incoming.service()).await.unwrap();
            let mut near = incoming.accept_to_join().await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
        },
    )
    .await;
    let (mut opened, mut accepted) = (opened.unwrap(), accepted.unwrap());
    accepted.write_all(b"hello").await.unwrap();
    accepted.shutdown().await.unwrap();
    let mut got = Vec::new();
    soon(opened.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got, b"hello");
}

/// The opener of a service with inner TLS meets an acceptor in our hands, which says what `say` makes of the layer and
/// of what the opener has said.
async fn opener_meets(
    say: impl FnOnce(&Onion<mux::Substream>, &[u8], &Inner) -> Vec<u8>,
) -> Result<Onion<mux::Substream>, OpenError> {
    let (a, b) = (identity(), identity());
    let (raw, session) = raw_peer(Side::Server, &a).await;
    let inner_a = TlsConfig::new(&a, Arc::new(AcceptAny)).unwrap();
    let acceptor = async {
        let mut onion = Onion::new(raw.accept().await.unwrap());
        let mut request = [0; 5];
        onion.read_exact(&mut request).await.unwrap();
        assert_eq!(&request, b"\x01\x01\x02db");
        onion.write_all(&[1, 0, 0]).await.unwrap();
        onion.flush().await.unwrap();
        let tls = TlsConfig::new(&b, Arc::new(AcceptAny)).unwrap();
        onion.push(Side::Server, &tls).await.unwrap();
        let mut heard = [0; 33];
        onion.read_exact(&mut heard).await.unwrap();
        let truth = Inner {
            role: 1,
            form: 0,
            service: b"db".to_vec(),
            client: a.peer_id(),
            server: b.peer_id(),
            session: session.tls_exporter().to_vec(),
        };
        let said = say(&onion, &heard, &truth);
        let _ = onion.write_all(&said).await;
        let _ = onion.flush().await;
        onion
    };
    let (opened, _held) =
        soon(async { tokio::join!(session.open_secured("db", &inner_a), acceptor) }).await;
    opened
}

/// What docs/PROTOCOL.md says of the context of an inner layer's binding.
#[derive(Clone)]
struct Inner {
    role: u8,
    form: u8,
    service: Vec<u8>,
    client: PeerId,
    server: PeerId,
    session: Vec<u8>,
}

impl Inner {
    fn said(&self, onion: &Onion<mux::Substream>) -> Vec<u8> {
        let mut context = vec![2, self.role, self.form];
        context.push(u8::try_from(self.service.len()).unwrap());
        context.extend_from_slice(&self.service);
        context.extend_from_slice(self.client.as_bytes());
        context.extend_from_slice(self.server.as_bytes());
        context.extend_from_slice(&self.session);
        let value = onion.export_keying_material(0, b"EXPERIMENTAL-cepa-substream", &context);
        [&[2][..], &value.unwrap()].concat()
    }
}

#[tokio::test]
async fn the_bytes_inside_a_substream_are_the_documented_ones() {
    let opened = opener_meets(|onion, heard, truth| {
        let opener = Inner {
            role: 0,
            ..truth.clone()
        };
        assert_eq!(heard, opener.said(onion));
        [truth.said(onion), vec![1]].concat()
    })
    .await;
    assert!(opened.is_ok(), "{opened:?}");
}

#[tokio::test]
async fn an_acceptor_that_means_anything_else_is_refused() {
    let other = identity().peer_id();
    let changes: [fn(&mut Inner, PeerId); 7] = [
        |inner, _| inner.role = 0,
        |inner, _| inner.form = 1,
        |inner, _| inner.service = b"dc".to_vec(),
        |inner, other| inner.client = other,
        |inner, other| inner.server = other,
        |inner, _| inner.session[31] ^= 1,
        |inner, _| inner.session.clear(),
    ];
    for change in changes {
        let opened = opener_meets(|onion, _, truth| {
            let mut claim = truth.clone();
            change(&mut claim, other);
            [claim.said(onion), vec![1]].concat()
        })
        .await;
        assert!(
            matches!(&opened, Err(OpenError::InnerBinding { .. })),
            "{opened:?}"
        );
    }
    let reflected = opener_meets(|_, heard, _| [heard, &[1]].concat()).await;
    assert!(matches!(reflected, Err(OpenError::InnerBinding { .. })));
    for bit in 0..32 * 8 {
        if bit % 37 != 0 {
            continue;
        }
        let opened = opener_meets(|onion, _, truth| {
            let mut said = [truth.said(onion), vec![1]].concat();
            said[1 + bit / 8] ^= 1 << (bit % 8);
            said
        })
        .await;
        assert!(matches!(opened, Err(OpenError::InnerBinding { .. })));
    }
    // An acceptor of a time before there was a binding, one that lets nobody in, and one that says nonsense.
    let old = opener_meets(|_, _, _| vec![1]).await;
    assert!(matches!(old, Err(OpenError::Protocol { .. })), "{old:?}");
    let opened = opener_meets(|onion, _, truth| [truth.said(onion), vec![0]].concat()).await;
    assert!(matches!(opened, Err(OpenError::Protocol { .. })));
}

#[tokio::test]
async fn an_opener_that_shows_no_certificate_is_bound_as_nobody() {
    let (a, b) = (identity(), identity());
    let (near, far) = memory::pair();
    let (of_a, of_b) = (trusting(&a), trusting(&b));
    let (client, server) = soon(async {
        tokio::join!(
            Session::handshake(near, &[], Side::Client, &of_a),
            Session::handshake(far, &[], Side::Server, &of_b)
        )
    })
    .await;
    let (client, server) = (client.unwrap(), server.unwrap());
    let tls = |own| TlsConfig::new(own, Arc::new(AcceptAny)).unwrap();
    let nobody = tls(&a)
        .to_builder()
        .without_client_certificate()
        .build()
        .unwrap();
    let anybody = tls(&b)
        .to_builder()
        .optional_client_certificate()
        .build()
        .unwrap();
    let (opened, accepted) = both(
        client.open_secured("x", &nobody),
        async {
            let incoming = server.accept().await.unwrap();
            incoming.accept_secured(&anybody).await
        },
        async {},
    )
    .await;
    let (opened, accepted) = (opened.unwrap(), accepted.unwrap());
    assert!(accepted.layers()[0].peer().is_anonymous());
    assert_eq!(
        opened.layers()[0].peer().local_id(),
        accepted.layers()[0].peer().id()
    );
}
