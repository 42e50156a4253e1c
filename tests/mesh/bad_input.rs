//! What makes no sense is refused with its reason, to nodes that check nothing themselves. The wire is written from
//! docs/PROTOCOL.md.

use std::time::Duration;

use cepa::identity::PeerId;
use cepa::node::{DialError, ReachError};

use cepa::session::Session;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{
    MeshNode, address, by_hand, eventually, listening, node, offer_echo, relay, soon, through,
};

fn circuit(to: PeerId) -> Vec<u8> {
    let mut message = vec![0, 38, 0xa2, 0, 1, 1, 0x58, 0x20];
    message.extend(to.as_bytes());
    message
}

/// Sends bytes to a service, and gives the status of the answer, and its words.
async fn ask(session: &Session, service: &str, bytes: &[u8]) -> (u8, String) {
    let mut stream = session.open(service).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
    let length = soon(stream.read_u16()).await.unwrap();
    let mut answer = vec![0; length.into()];
    soon(stream.read_exact(&mut answer)).await.unwrap();
    // {0: 1, 1: status, 2: reason, …}
    assert_eq!(answer[1..4], [0, 1, 1], "{answer:?}");
    (
        answer[4],
        String::from_utf8_lossy(&answer[5..]).into_owned(),
    )
}

#[tokio::test]
async fn a_relay_reports_what_it_does_not_understand() {
    let relay = relay(|_| {});
    let (_, at) = listening(&relay).await;
    let (session, own) = by_hand(&at).await;
    for service in ["cepa.relay.dial", "cepa.relay.register"] {
        let (status, said) = ask(&session, service, &[0xff, 0xff]).await;
        assert_eq!(status, 1, "{said}");
        assert!(said.contains("65535 bytes, at most 4096"), "{said}");
        let (status, said) = ask(&session, service, &[0, 5, 0xa2, 0, 2, 1, 10]).await;
        assert_eq!(status, 1, "{said}");
        let (status, said) = ask(&session, service, &[0, 3, 1, 2, 3]).await;
        assert_eq!(status, 1, "{said}");
        assert!(said.contains("not valid CBOR"), "{said}");
    }
    let (_, said) = ask(&session, "cepa.relay.register", &[0, 5, 0xa2, 0, 2, 1, 10]).await;
    assert!(said.contains("version 2"), "{said}");
    // Through the relay to itself, and to who asks.
    let (status, _) = ask(&session, "cepa.relay.dial", &circuit(relay.id())).await;
    assert_eq!(status, 8);
    let (status, _) = ask(&session, "cepa.relay.dial", &circuit(own)).await;
    assert_eq!(status, 8);
    let (status, _) = ask(&session, "cepa.relay.dial", &circuit(node().id())).await;
    assert_eq!(status, 5);
    assert_eq!(relay.relay_stats().unwrap().circuits, 0);
    // None of that has cost the session.
    session.ping().await.unwrap();
}

#[tokio::test]
async fn a_registration_that_is_stale_is_no_way_to_a_peer() {
    let relay = relay(|config| config.patience = Duration::from_secs(1));
    let (_, at) = listening(&relay).await;
    let (session, id) = by_hand(&at).await;
    let register = async |message: &[u8]| {
        let mut registration = session.open("cepa.relay.register").await.unwrap();
        registration.write_all(message).await.unwrap();
        registration.flush().await.unwrap();
        assert!(registration.read_u16().await.unwrap() > 0);
        registration
    };
    let registered = || relay.relay_stats().unwrap().registrations;
    // For an hour, and takes no circuit.
    let hour = register(&[0, 7, 0xa2, 0, 1, 1, 0x19, 0x0e, 0x10]).await;
    let to = through(id, &at, "echo");
    let error = soon(node().open(&to)).await.unwrap_err();
    assert!(error.to_string().contains("got no answer"), "{error}");
    assert_eq!(registered(), 1);
    drop(hour);
    eventually(|| registered() == 0).await;
    // For a second, and is not renewed.
    let _second = register(&[0, 5, 0xa2, 0, 1, 1, 1]).await;
    eventually(|| registered() == 0).await;
    let error = soon(node().open(&to)).await.unwrap_err();
    assert!(
        error.to_string().contains("not registered there"),
        "{error}"
    );
}

#[tokio::test]
async fn another_relay_than_the_named_one_is_not_used() {
    let relay = relay(|_| {});
    let (endpoint, at) = listening(&relay).await;
    let hidden = node();
    offer_echo(&hidden);
    hidden.register(&at).await.unwrap();
    let other = node().id();
    let wrong = format!("cepa://{}@relay:{other}@{endpoint}/echo", hidden.id());
    let client: MeshNode = node();
    let error = client.open(&address(&wrong)).await.unwrap_err();
    assert!(matches!(error, ReachError::Dial(DialError::Failed { .. })));
    let said = error.to_string();
    assert!(
        said.contains(&format!("cannot reach relay {}…", other.short())),
        "{said}"
    );
    assert!(
        said.contains(&relay.id().to_string()),
        "it says who is there: {said}"
    );
    assert_eq!(relay.relay_stats().unwrap().carried, 0);
    let registered = client
        .register(&address(&format!("cepa://{other}@{endpoint}")))
        .await;
    assert!(
        registered
            .unwrap_err()
            .to_string()
            .contains("not the expected one")
    );
}
