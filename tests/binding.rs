//! Sessions are bound to their connection, their peers and their layers: every attacker here holds
//! good keys and breaks no cryptography, and is found out all the same.

mod support;

use std::sync::Arc;

use cepa::Side;
use cepa::identity::{AcceptAny, Identity, PeerId};
use cepa::mux;
use cepa::onion::Onion;
use cepa::session::{ConnectError, Session};
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
    let tls = tls.with_alpn(&[alpn]).unwrap();
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
    let met = async { tokio::join!(Session::over(near, &[], Side::Client, &config), attacker) };
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
async fn a_mux_without_a_binding_is_told_apart() {
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
            Session::over(a, &layers, Side::Client, &of_client),
            Session::over(b, &layers, Side::Server, &of_server)
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
                Session::over(a, layers, Side::Client, &client),
                Session::over(b, layers, Side::Server, &server)
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
