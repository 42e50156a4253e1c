//! Who may take a session up on another connection, and who may not: with the token and without the key, with the key and
//! without the token.

use std::sync::Arc;
use std::time::Duration;

use cepa_transports::meter::Meter;
use cepa_transports::{Layer, Side, memory};

use super::resuming;
use super::{ConnectError, Session};
use crate::identity::{AcceptAny, Identity, KeyKind, RotationTimes, UnixTime};
use crate::resume::{Config, Refusal};
use crate::stack::{self, Lasting, StackConfig};

const MUX_TLS: &[Layer] = &[Layer::Mux, Layer::Tls];

fn config(identity: &Identity) -> StackConfig {
    StackConfig::new(identity.clone(), Arc::new(AcceptAny)).with_resume(Some(Config::default()))
}

fn identity() -> Identity {
    Identity::generate(KeyKind::Ed25519).unwrap()
}

async fn meet(client: &StackConfig, server: &StackConfig) -> (Session, Session) {
    let (near, far) = memory::pair();
    let (client, server) = tokio::join!(
        Box::pin(Session::handshake(near, MUX_TLS, Side::Client, client)),
        Box::pin(Session::handshake(far, MUX_TLS, Side::Server, server)),
    );
    (client.unwrap(), server.unwrap())
}

/// Whoever has `lasting` tries to take it up as `client`; what came of it at either end.
async fn take_up(
    lasting: &Arc<Lasting>,
    client: &StackConfig,
    server: &StackConfig,
) -> (Result<(), ConnectError>, Result<Session, ConnectError>) {
    let (near, far) = memory::pair();
    let dials = async {
        let never = std::pin::pin!(std::future::pending());
        let built = stack::build(near, MUX_TLS, Side::Client, client, never).await?;
        resuming::go_on(lasting, built, client, false).await
    };
    let accepts = Session::handshake(far, MUX_TLS, Side::Server, server);
    tokio::join!(Box::pin(dials), Box::pin(accepts))
}

/// A copy of a session's name and token, held by somebody who believes to be the same peer.
fn stolen(from: &Session, thief: &Session) -> Arc<Lasting> {
    let (lasting, own) = (from.lasting().unwrap(), thief.lasting().unwrap());
    let parts = (lasting.ticket.clone(), own.handle.clone());
    let first = thief.path().unwrap();
    Arc::new(Lasting::new(parts, Meter::default(), first).unwrap())
}

#[tokio::test]
async fn the_token_is_worth_nothing_without_the_key() {
    let (a, b, thief) = (identity(), identity(), identity());
    let server = config(&b);
    let (client, far) = meet(&config(&a), &server).await;
    let (own, _keeps) = meet(&config(&thief), &server).await;
    let (tried, accepted) = take_up(&stolen(&client, &own), &config(&thief), &server).await;
    let refused = ConnectError::NotResumed(Refusal::NotYours).to_string();
    assert_eq!(tried.unwrap_err().to_string(), refused);
    let ConnectError::NotTakenUp { peer, why } = accepted.unwrap_err() else {
        panic!("it is told who asked");
    };
    assert_eq!((peer, why), (thief.peer_id(), Refusal::NotYours));
    assert_eq!(
        far.path().unwrap().generation,
        0,
        "the session runs where it ran"
    );
    far.ping().await.unwrap();
    client.ping().await.unwrap();
}

#[tokio::test]
async fn the_key_is_worth_nothing_without_the_token() {
    let (a, b) = (identity(), identity());
    let server = config(&b);
    let (client, far) = meet(&config(&a), &server).await;
    let (other, _keeps) = meet(&config(&a), &server).await;
    // The name of one, the token of another session of the same peer.
    let (mut ticket, own) = (
        other.lasting().unwrap().ticket.clone(),
        other.lasting().unwrap(),
    );
    ticket.id = client.lasting().unwrap().ticket.id;
    let parts = (ticket, own.handle.clone());
    let forged = Lasting::new(parts, Meter::default(), other.path().unwrap());
    let (tried, accepted) = take_up(&Arc::new(forged.unwrap()), &config(&a), &server).await;
    assert!(matches!(
        tried,
        Err(ConnectError::NotResumed(Refusal::NotYours))
    ));
    assert!(accepted.is_err());
    assert_eq!(far.path().unwrap().generation, 0);
    // The holder of both may, and its session goes on.
    let (taken, accepted) = take_up(client.lasting().unwrap(), &config(&a), &server).await;
    taken.unwrap();
    assert!(matches!(accepted, Err(ConnectError::Resumed(_))));
    far.ping().await.unwrap();
    assert_eq!(far.path().unwrap().generation, 1);
}

#[tokio::test]
async fn another_server_is_told_nothing_of_the_session() {
    let (a, b, other) = (identity(), identity(), identity());
    let (client, far) = meet(&config(&a), &config(&b)).await;
    let (tried, _) = take_up(client.lasting().unwrap(), &config(&a), &config(&other)).await;
    assert!(matches!(tried, Err(ConnectError::OtherPeer(id)) if id == other.peer_id()));
    client.ping().await.unwrap();
    far.ping().await.unwrap();
}

#[tokio::test]
async fn the_heir_of_a_key_may_take_its_session_up() {
    let (a, b) = (identity(), identity());
    let server = config(&b);
    let (client, far) = meet(&config(&a), &server).await;
    let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let times = RotationTimes {
        issued: at(0),
        expires: at(u64::MAX),
        overlap: at(0),
    };
    let heir = a.rotate(KeyKind::Ed25519, times).unwrap();
    let (taken, accepted) = take_up(client.lasting().unwrap(), &config(&heir), &server).await;
    taken.unwrap();
    assert!(matches!(accepted, Err(ConnectError::Resumed(_))));
    far.ping().await.unwrap();
    client.ping().await.unwrap();
    assert_eq!(far.path().unwrap().layers[0].peer().id(), heir.peer_id());
}
