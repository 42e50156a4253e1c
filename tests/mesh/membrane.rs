//! Forwarders that wrap the references that pass through them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cepa::identity::{PeerId, UnixTime};
use cepa::mux::Substream;
use cepa::node::{Access, Call, Event, Limits, PeerAddr, ReachError, Resource};
use cepa::onion::Onion;
use cepa::protocols::introduction::{Flaw, IntroducedError, Introduction, Terms};
use cepa::protocols::membrane::{
    Membrane, MembraneEvent, receive_message, reference, references, send_message,
};
use cepa::session::OpenError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{MeshNode, config, eventually, listening, node, reset_code, soon, until};

/// A server in front of which a membrane stands, a client of it, and a third peer that both may refer to. Only the
/// server and the third listen; the client is reached in its session.
struct Scene {
    membrane: Membrane,
    between: MeshNode,
    server: MeshNode,
    client: MeshNode,
    third: MeshNode,
    at_third: PeerAddr,
    /// The membrane's service.
    to: PeerAddr,
    /// What the server was given, and what it gives.
    got: Arc<Mutex<Vec<Vec<u8>>>>,
    gives: Arc<Mutex<Vec<u8>>>,
}

/// Sends messages back, behind one that says who asks.
async fn parrot(call: Call) {
    let peer = *call.peer().id().as_bytes();
    let Ok(mut stream) = call.accept().await else {
        return;
    };
    let hello = [&[0x58, 32][..], &peer].concat();
    let _ = send_message(&mut stream, &hello).await;
    while let Ok(Some(message)) = receive_message(&mut stream).await {
        let _ = send_message(&mut stream, &message).await;
    }
    let _ = stream.shutdown().await;
}

async fn scene() -> Scene {
    let [between, server, client, third] = [node(), node(), node(), node()];
    let (got, gives) = (
        Arc::new(Mutex::new(Vec::new())),
        Arc::new(Mutex::new(vec![0xf6])),
    );
    let (all, answer) = (Arc::clone(&got), Arc::clone(&gives));
    // Every message is kept, and answered with what is there to give.
    server.serve("shop", Access::peers([between.id()]), move |call| {
        let (all, answer) = (Arc::clone(&all), Arc::clone(&answer));
        async move {
            let mut stream = call.accept().await.unwrap();
            while let Ok(Some(message)) = receive_message(&mut stream).await {
                all.lock().unwrap().push(message);
                let answer = answer.lock().unwrap().clone();
                send_message(&mut stream, &answer).await.unwrap();
            }
            let _ = stream.shutdown().await;
        }
    });
    third.serve("vault", Access::Nobody, parrot);
    client.serve("back", Access::Nobody, parrot);
    let (_, at_server) = listening(&server).await;
    let (_, at_third) = listening(&third).await;
    let (_, at) = listening(&between).await;
    let membrane = between.membrane([]);
    let to = at_server.with_service("shop").unwrap();
    membrane.offer("shop", Access::Anyone, to).unwrap();
    Scene {
        to: at.with_service("shop").unwrap(),
        at_third: at_third.with_service("vault").unwrap(),
        membrane,
        between,
        server,
        client,
        third,
        got,
        gives,
    }
}

fn an_hour() -> Terms {
    let now = UnixTime::now().as_secs();
    let then = UnixTime::since_unix_epoch(Duration::from_secs(now + 3600));
    Terms::until(then).uses(None)
}

impl Scene {
    /// A reference to the third peer's service, for whom it says; it may be passed on once.
    fn to_third(&self, to: PeerId) -> Introduction {
        self.third
            .introduce(&self.at_third, an_hour().for_peer(to).further(1))
            .unwrap()
    }

    /// A reference to the client's own service, for the membrane's node.
    fn to_client(&self) -> Introduction {
        let own = format!("cepa://{}/back", self.client.id()).parse().unwrap();
        self.client
            .introduce(&own, an_hour().for_peer(self.between.id()))
            .unwrap()
    }

    /// Lets the server give something, and says what the client gets.
    async fn given(&self, stream: &mut Onion<Substream>, message: Vec<u8>) -> Vec<u8> {
        *self.gives.lock().unwrap() = message;
        send_message(stream, &[0x01]).await.unwrap();
        soon(receive_message(stream)).await.unwrap().unwrap()
    }

    /// Gives the server something, and says what it gets.
    async fn taken(&self, stream: &mut Onion<Substream>, message: &[u8]) -> Vec<u8> {
        *self.gives.lock().unwrap() = vec![0xf6];
        send_message(stream, message).await.unwrap();
        soon(receive_message(stream)).await.unwrap().unwrap();
        self.got.lock().unwrap().last().unwrap().clone()
    }
}

fn only(message: &[u8]) -> Introduction {
    let mut found = references(message).unwrap();
    assert_eq!(found.len(), 1);
    found.remove(0)
}

/// Whether anything of a peer's id is in a message, in bytes or as text.
fn names(message: &[u8], peer: PeerId) -> bool {
    let holds = |part: &[u8]| message.windows(part.len()).any(|window| window == part);
    holds(peer.as_bytes()) || holds(peer.to_string().as_bytes())
}

/// Uses a service that sends messages back; gives who it thinks that asks.
async fn use_it(stream: &mut Onion<Substream>) -> PeerId {
    let hello = soon(receive_message(stream)).await.unwrap().unwrap();
    send_message(stream, b"\x43abc").await.unwrap();
    assert_eq!(
        soon(receive_message(stream)).await.unwrap().unwrap(),
        b"\x43abc"
    );
    PeerId::from_bytes(hello[2..].try_into().unwrap())
}

#[tokio::test]
async fn what_the_server_gives_leads_through_the_membrane() {
    let it = scene().await;
    let mut stream = it.client.open(&it.to).await.unwrap();
    let secret = it.to_third(it.between.id());
    let message = [&[0x82, 0x61, b'x'][..], &reference(&secret)].concat();
    let got = it.given(&mut stream, message).await;
    let wrapped = only(&got);
    assert_eq!(wrapped.address().unwrap().peer(), it.between.id());
    assert_eq!(wrapped.recipient(), Some(it.client.id()));
    assert_eq!(wrapped.issuers(), [it.between.id()]);
    assert_eq!(wrapped.expires(), secret.expires());
    assert!(!names(&got, it.third.id()), "nothing of what is behind");
    let mut through = soon(it.client.open_introduced(&wrapped)).await.unwrap();
    assert_eq!(use_it(&mut through).await, it.between.id());
    // It is for the client, and for nobody who steals it.
    let stolen = soon(node().open_introduced(&wrapped)).await.unwrap_err();
    assert!(matches!(stolen, IntroducedError::Flaw(Flaw::NotYours)));
    // And the one inside is of no use to the client.
    let inside = soon(it.client.open_introduced(&secret)).await.unwrap_err();
    assert!(matches!(inside, IntroducedError::Flaw(Flaw::NotYours)));
    // The same once more is the same service.
    let again = it.given(&mut stream, reference(&secret)).await;
    assert_eq!(only(&again).address(), wrapped.address());
    assert_eq!(it.membrane.references(), 1);
    // The service that stands for it is no service of the node's own, and opens for nobody without it.
    assert_eq!(it.between.services(), ["shop"]);
    let named = it
        .to
        .clone()
        .with_service(wrapped.address().unwrap().service());
    assert!(it.client.open(&named.unwrap()).await.is_err());
}

#[tokio::test]
async fn what_the_client_gives_leads_through_the_membrane_too() {
    let it = scene().await;
    let mut events = it.between.events();
    let mut stream = it.client.open(&it.to).await.unwrap();
    let got = it.taken(&mut stream, &reference(&it.to_client())).await;
    let wrapped = only(&got);
    assert_eq!(wrapped.address().unwrap().peer(), it.between.id());
    assert_eq!(wrapped.recipient(), Some(it.server.id()));
    assert!(!names(&got, it.client.id()), "nothing of who gave it");
    let reported = until(&mut events, |event| {
        event.protocol::<MembraneEvent>().cloned()
    });
    let reported = reported.await;
    assert_eq!(
        (reported.from, reported.to),
        (it.client.id(), it.server.id())
    );
    assert_eq!(
        (reported.service.as_str(), reported.owner),
        ("back", it.client.id())
    );
    let mut through = soon(it.server.open_introduced(&wrapped)).await.unwrap();
    assert_eq!(use_it(&mut through).await, it.between.id());

    // What passes in there is wrapped as well: the client's service sends back what it gets.
    let inner = reference(&it.to_third(it.between.id()));
    send_message(&mut through, &inner).await.unwrap();
    let back = soon(receive_message(&mut through)).await.unwrap().unwrap();
    // Wrapped for the client on its way there, and for the server on its way back.
    let twice = only(&back);
    assert_eq!(twice.recipient(), Some(it.server.id()));
    assert!(!names(&back, it.third.id()));
    let mut vault = soon(it.server.open_introduced(&twice)).await.unwrap();
    assert_eq!(use_it(&mut vault).await, it.between.id());
}

#[tokio::test]
async fn a_reference_that_comes_back_stays_wrapped() {
    let it = scene().await;
    let mut stream = it.client.open(&it.to).await.unwrap();
    let wrapped = only(
        &it.given(&mut stream, reference(&it.to_third(it.between.id())))
            .await,
    );
    let got = it.taken(&mut stream, &reference(&wrapped)).await;
    let back = only(&got);
    assert_eq!(back.recipient(), Some(it.server.id()));
    assert_eq!(back.address(), wrapped.address());
    assert!(!names(&got, it.third.id()));
    let mut through = soon(it.server.open_introduced(&back)).await.unwrap();
    assert_eq!(use_it(&mut through).await, it.between.id());
}

#[tokio::test]
async fn revoked_nothing_works_and_that_is_said() {
    let it = scene().await;
    let mut stream = it.client.open(&it.to).await.unwrap();
    let to_third = only(
        &it.given(&mut stream, reference(&it.to_third(it.between.id())))
            .await,
    );
    let to_client = only(&it.taken(&mut stream, &reference(&it.to_client())).await);
    let mut at_third = soon(it.client.open_introduced(&to_third)).await.unwrap();
    let mut at_client = soon(it.server.open_introduced(&to_client)).await.unwrap();
    use_it(&mut at_third).await;
    use_it(&mut at_client).await;
    let mut plain = it.client.session(&it.to).await.unwrap();

    soon(it.membrane.revoke()).await;
    assert!(it.membrane.is_revoked());
    for open in [&mut stream, &mut at_third, &mut at_client] {
        let error = soon(open.read_u8()).await.unwrap_err();
        assert_eq!(reset_code(&error), 8);
    }
    let again = soon(it.client.open(&it.to)).await.unwrap_err();
    assert!(matches!(
        &again,
        ReachError::Open {
            error: OpenError::Refused { .. },
            ..
        }
    ));
    assert!(
        again.to_string().contains("this membrane was revoked"),
        "{again}"
    );
    for (peer, it) in [(&it.client, &to_third), (&it.server, &to_client)] {
        let error = soon(peer.open_introduced(it)).await.unwrap_err();
        assert!(
            error.to_string().contains("this membrane was revoked"),
            "{error}"
        );
    }
    // The session is another thing, and so is a membrane that is made anew.
    plain = it.client.session(&it.to.clone()).await.unwrap_or(plain);
    plain.ping().await.unwrap();
    let anew = it.between.membrane([]);
    let (_, at_server) = listening(&it.server).await;
    anew.offer(
        "shop",
        Access::Anyone,
        at_server.with_service("shop").unwrap(),
    )
    .unwrap();
    let mut stream = it.client.open(&it.to).await.unwrap();
    assert_eq!(it.given(&mut stream, vec![0x07]).await, [0x07]);
    let error = soon(it.client.open_introduced(&to_third))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("revoked"), "{error}");
    // A membrane that is dropped is revoked.
    drop(anew);
    let error = soon(stream.read_u8()).await.unwrap_err();
    assert_eq!(reset_code(&error), 8);
}

#[tokio::test]
async fn what_can_not_be_wrapped_does_not_pass() {
    let it = scene().await;
    let mut events = it.between.events();
    let secret = it.to_third(it.between.id());
    let text = secret.to_string();
    let length = u16::try_from(text.len()).unwrap().to_be_bytes();
    let bytes = reference(&secret)[5..].to_vec();
    let now = UnixTime::now().as_secs();
    let old = UnixTime::since_unix_epoch(Duration::from_secs(now - 10));
    let old = Terms::until(old).for_peer(it.between.id());
    let own: PeerAddr = format!("cepa://{}/shop", it.between.id()).parse().unwrap();
    let mut altered = reference(&secret);
    *altered.last_mut().unwrap() ^= 1;
    for (message, why) in [
        (reference(&it.to_third(it.client.id())), "make it for"),
        (
            reference(&it.third.introduce(&it.at_third, old).unwrap()),
            "expired",
        ),
        (altered, "not signed by"),
        (
            reference(&it.third.introduce(&own, an_hour()).unwrap()),
            "own node",
        ),
        (
            [&[0x79][..], &length, text.as_bytes()].concat(),
            "outside of the tag",
        ),
        (bytes, "outside of the tag"),
        (
            b"\xda\x63\x65\x70\x61\x41a".to_vec(),
            "an invalid reference",
        ),
        (b"\x82\x01".to_vec(), "not one CBOR item"),
        (b"\x5f\x41a\xff".to_vec(), "one piece"),
    ] {
        // From either side, both ends are cut, and the operator is told.
        for given in [true, false] {
            let mut stream = it.client.open(&it.to).await.unwrap();
            let before = it.got.lock().unwrap().len();
            *it.gives.lock().unwrap() = if given { message.clone() } else { vec![0xf6] };
            let sent = if given { vec![0x01] } else { message.clone() };
            send_message(&mut stream, &sent).await.unwrap();
            let error = soon(receive_message(&mut stream)).await.unwrap_err();
            assert_eq!(reset_code(&error), 9, "{why}");
            let reported = until(&mut events, |event| match event {
                Event::Refused {
                    peer,
                    service,
                    reason,
                } => Some((*peer, service.clone(), reason.to_string())),
                _ => None,
            });
            let (peer, name, said) = reported.await;
            assert_eq!((peer, name.as_str()), (it.client.id(), "shop"));
            assert!(said.contains(why), "{said}");
            let got = it.got.lock().unwrap()[before..].to_vec();
            assert!(
                got.iter().all(|got| *got == [0x01]),
                "nothing has passed: {why}"
            );
        }
    }
    assert_eq!(it.membrane.references(), 0);
}

/// Whoever is not the one it was given to can't have a wrapped one exchanged for one of its own.
#[tokio::test]
async fn a_wrapped_reference_passes_from_its_owner_only() {
    let it = scene().await;
    let mut stream = it.client.open(&it.to).await.unwrap();
    let wrapped = only(
        &it.given(&mut stream, reference(&it.to_third(it.between.id())))
            .await,
    );
    let mut events = it.between.events();
    let thief = node();
    let mut theirs = thief.open(&it.to).await.unwrap();
    send_message(&mut theirs, &reference(&wrapped))
        .await
        .unwrap();
    let error = soon(receive_message(&mut theirs)).await.unwrap_err();
    assert_eq!(reset_code(&error), 9);
    // Nor one that the thief has made up itself.
    let made_up = thief.introduce(wrapped.address().unwrap(), an_hour());
    let mut theirs = thief.open(&it.to).await.unwrap();
    send_message(&mut theirs, &reference(&made_up.unwrap()))
        .await
        .unwrap();
    let error = soon(receive_message(&mut theirs)).await.unwrap_err();
    assert_eq!(reset_code(&error), 9);
    // Nor the owner, once it was taken back.
    it.between.revoke(&wrapped).await.unwrap();
    send_message(&mut stream, &reference(&wrapped))
        .await
        .unwrap();
    let error = soon(receive_message(&mut stream)).await.unwrap_err();
    assert_eq!(reset_code(&error), 9);
    for why in ["another peer", "own node", "revoked by"] {
        let reported = until(&mut events, |event| match event {
            Event::Refused { reason, .. } => Some(reason.to_string()),
            _ => None,
        });
        let reported = reported.await;
        assert!(reported.contains(why), "{reported}");
    }
}

#[tokio::test]
async fn ends_and_resets_pass() {
    let it = scene().await;
    // The end of one way, with the other still going.
    let mut stream = it.client.open(&it.to).await.unwrap();
    *it.gives.lock().unwrap() = vec![0x05];
    send_message(&mut stream, &[0x01]).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(
        soon(receive_message(&mut stream)).await.unwrap(),
        Some(vec![0x05])
    );
    assert_eq!(soon(receive_message(&mut stream)).await.unwrap(), None);
    // An end inside of a message is no end.
    let mut stream = it.client.open(&it.to).await.unwrap();
    stream.write_all(&[0, 9, 1]).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(reset_code(&soon(stream.read_u8()).await.unwrap_err()), 9);
    // A reset keeps its code.
    let heard = Arc::new(Mutex::new(0));
    let reported = Arc::clone(&heard);
    it.server.serve("shop", Access::Anyone, move |call| {
        let reported = Arc::clone(&reported);
        async move {
            let mut stream = call.accept().await.unwrap();
            let error = receive_message(&mut stream).await.unwrap_err();
            *reported.lock().unwrap() = reset_code(&error);
        }
    });
    let mut stream = it.client.open(&it.to).await.unwrap();
    stream.wire_mut().reset(4321);
    eventually(|| *heard.lock().unwrap() == 4321).await;
}

/// One side can not fill a membrane for the others.
#[tokio::test]
async fn references_of_one_peer_have_a_bound() {
    let it = scene().await;
    let mut stream = it.client.open(&it.to).await.unwrap();
    for _ in 0..256 {
        it.taken(&mut stream, &reference(&it.to_client())).await;
    }
    assert_eq!(it.membrane.references(), 256);
    send_message(&mut stream, &reference(&it.to_client()))
        .await
        .unwrap();
    assert_eq!(
        reset_code(&soon(receive_message(&mut stream)).await.unwrap_err()),
        9
    );
    let mut stream = it.client.open(&it.to).await.unwrap();
    it.given(&mut stream, reference(&it.to_third(it.between.id())))
        .await;
}

// ---- what crosses a membrane stays bound to what it was made from ----------------------------------------

/// A service behind a second membrane of the same node: like `shop`, and who is there.
struct Behind {
    peer: MeshNode,
    to: PeerAddr,
    got: Arc<Mutex<Vec<Vec<u8>>>>,
}

async fn behind(between: &MeshNode, membrane: &Membrane, name: &str) -> Behind {
    let peer = node();
    let got = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&got);
    peer.serve(name, Access::peers([between.id()]), move |call| {
        let all = Arc::clone(&all);
        async move {
            let mut stream = call.accept().await.unwrap();
            while let Ok(Some(message)) = receive_message(&mut stream).await {
                all.lock().unwrap().push(message);
                send_message(&mut stream, &[0xf6]).await.unwrap();
            }
            let _ = stream.shutdown().await;
        }
    });
    let (_, at) = listening(&peer).await;
    let to = at.with_service(name).unwrap();
    membrane.offer(name, Access::Anyone, to).unwrap();
    let (_, at) = listening(between).await;
    Behind {
        peer,
        to: at.with_service(name).unwrap(),
        got,
    }
}

impl Behind {
    /// Gives it something, and says what it gets.
    async fn taken(&self, stream: &mut Onion<Substream>, message: &[u8]) -> Vec<u8> {
        send_message(stream, message).await.unwrap();
        soon(receive_message(stream)).await.unwrap().unwrap();
        self.got.lock().unwrap().last().unwrap().clone()
    }
}

async fn opens(peer: &MeshNode, it: &Introduction) -> bool {
    soon(peer.open_introduced(it)).await.is_ok()
}

async fn refusal(peer: &MeshNode, it: &Introduction) -> Flaw {
    match soon(peer.open_introduced(it)).await {
        Err(IntroducedError::Refused { flaw, .. } | IntroducedError::Flaw(flaw)) => flaw,
        other => panic!("{other:?}"),
    }
}

impl Scene {
    /// A reference of the third peer for the membrane's node, on these terms.
    fn secret(&self, terms: Terms) -> Introduction {
        self.third
            .introduce(&self.at_third, terms.for_peer(self.between.id()))
            .unwrap()
    }

    /// What the client gets where the server gives it that.
    async fn to_client_side(
        &self,
        stream: &mut Onion<Substream>,
        it: &Introduction,
    ) -> Introduction {
        only(&self.given(stream, reference(it)).await)
    }

    /// What the server gets where somebody gives it that.
    async fn to_server_side(
        &self,
        stream: &mut Onion<Substream>,
        it: &Introduction,
    ) -> Introduction {
        only(&self.taken(stream, &reference(it)).await)
    }
}

#[tokio::test]
async fn uses_of_what_was_made_of_one_are_counted_together() {
    let it = scene().await;
    let carol = node();
    let mut stream = it.client.open(&it.to).await.unwrap();
    let first = it
        .to_client_side(&mut stream, &it.secret(an_hour().further(3)))
        .await;
    // The client gives Carol one use of it, and Carol gives that away five times.
    let one = an_hour().for_peer(carol.id()).uses(Some(1)).further(2);
    let one = it.client.pass_on(&first, one).unwrap();
    let mut theirs = carol.open(&it.to).await.unwrap();
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(it.to_server_side(&mut theirs, &one).await);
    }
    let mut used = 0;
    for made in &made {
        used += u32::from(opens(&it.server, made).await);
    }
    used += u32::from(opens(&carol, &one).await);
    assert_eq!(used, 1, "one use, however often it is given away");
    assert_eq!(refusal(&it.server, &made[4]).await, Flaw::UsedUp);
    assert_eq!(refusal(&carol, &one).await, Flaw::UsedUp);
    // What it was made from is not bound by what the client has narrowed.
    assert!(opens(&it.client, &first).await);
}

/// The uses of the reference that was let through are one number, for all that stand for it.
#[tokio::test]
async fn uses_of_the_original_are_counted_on_all_its_copies() {
    let it = scene().await;
    let mut stream = it.client.open(&it.to).await.unwrap();
    let secret = it.secret(an_hour().uses(Some(3)).further(3));
    let first = it.to_client_side(&mut stream, &secret).await;
    let again = it.to_client_side(&mut stream, &secret).await;
    let back = it.to_server_side(&mut stream, &first).await;
    assert!(opens(&it.client, &first).await);
    assert!(opens(&it.client, &again).await);
    assert!(opens(&it.server, &back).await);
    for (peer, made) in [
        (&it.client, &first),
        (&it.client, &again),
        (&it.server, &back),
    ] {
        assert_eq!(refusal(peer, made).await, Flaw::UsedUp);
    }
}

#[tokio::test]
async fn a_reference_crosses_as_often_as_it_may_be_passed_on() {
    let it = scene().await;
    let mut stream = it.client.open(&it.to).await.unwrap();
    let secret = it.secret(an_hour().further(2));
    // To whom it was meant for, on the terms that it has; then one less each time.
    let mut last = it.to_client_side(&mut stream, &secret).await;
    let mut from_client = true;
    for _ in 0..2 {
        last = if from_client {
            it.to_server_side(&mut stream, &last).await
        } else {
            it.to_client_side(&mut stream, &last).await
        };
        assert!(last.expires() <= secret.expires());
        from_client = !from_client;
    }
    assert!(opens(&it.client, &last).await, "the last one works");
    // Now with the client, and not to be given away any more.
    send_message(&mut stream, &reference(&last)).await.unwrap();
    let error = soon(receive_message(&mut stream)).await.unwrap_err();
    assert_eq!(reset_code(&error), 9);
    assert!(
        opens(&it.client, &last).await,
        "it is the client's all the same"
    );
}

/// Whose service it is has no need of a permission to get it back, and gets no more than it has.
#[tokio::test]
async fn whoever_issued_it_may_have_it_back() {
    let it = scene().await;
    let mut stream = it.client.open(&it.to).await.unwrap();
    let own = it.to_client();
    let at_server = it.to_server_side(&mut stream, &own).await;
    let back = it.to_client_side(&mut stream, &at_server).await;
    assert_eq!(back.recipient(), Some(it.client.id()));
    // And from there to nobody else.
    send_message(&mut stream, &reference(&back)).await.unwrap();
    let error = soon(receive_message(&mut stream)).await.unwrap_err();
    assert_eq!(reset_code(&error), 9);
}

#[tokio::test]
async fn what_is_revoked_takes_all_with_it_that_was_made_of_it() {
    let it = scene().await;
    let carol = node();
    let mut stream = it.client.open(&it.to).await.unwrap();
    let mut theirs = carol.open(&it.to).await.unwrap();
    let secret = it.secret(an_hour().further(3));
    let first = it.to_client_side(&mut stream, &secret).await;
    let other = it.to_client_side(&mut stream, &secret).await;
    let to_carol = an_hour().for_peer(carol.id()).further(2);
    let to_carol = it.client.pass_on(&first, to_carol).unwrap();
    let at_server = it.to_server_side(&mut theirs, &to_carol).await;
    let at_client = it.to_client_side(&mut stream, &at_server).await;
    for (peer, made) in [
        (&it.client, &first),
        (&carol, &to_carol),
        (&it.server, &at_server),
        (&it.client, &at_client),
    ] {
        assert!(opens(peer, made).await);
    }
    // By who has passed it on, in the middle.
    it.client.revoke(&to_carol).await.unwrap();
    let by = it.client.id();
    for (peer, made) in [
        (&carol, &to_carol),
        (&it.server, &at_server),
        (&it.client, &at_client),
    ] {
        assert_eq!(refusal(peer, made).await, Flaw::Revoked { by });
    }
    assert!(opens(&it.client, &first).await);
    // By the membrane's own node, at the beginning.
    let from_first = it.to_server_side(&mut stream, &first).await;
    assert!(opens(&it.server, &from_first).await);
    it.between.revoke(&first).await.unwrap();
    let by = it.between.id();
    for (peer, made) in [(&it.client, &first), (&it.server, &from_first)] {
        assert_eq!(refusal(peer, made).await, Flaw::Revoked { by });
    }
    assert!(opens(&it.client, &other).await, "the same, given twice");
    // By who has issued the original.
    let from_other = it.to_server_side(&mut stream, &other).await;
    assert!(opens(&it.server, &from_other).await);
    it.third.revoke(&secret).await.unwrap();
    for (peer, made) in [(&it.client, &other), (&it.server, &from_other)] {
        let error = soon(peer.open_introduced(made)).await.unwrap_err();
        assert!(error.to_string().contains("revoked by"), "{error}");
    }
}

/// From the client through one membrane to the server, and through another one of the same node further on.
#[tokio::test]
async fn two_membranes_of_one_node_in_a_row() {
    for revoked in 0..4 {
        let it = scene().await;
        let inner = it.between.membrane([]);
        let far = behind(&it.between, &inner, "cellar").await;
        let mut stream = it.client.open(&it.to).await.unwrap();
        let own: PeerAddr = format!("cepa://{}/back", it.client.id()).parse().unwrap();
        let terms = an_hour().for_peer(it.between.id()).uses(Some(4)).further(1);
        let own = it.client.introduce(&own, terms).unwrap();
        let at_server = it.to_server_side(&mut stream, &own).await;
        let mut further = it.server.open(&far.to).await.unwrap();
        let got = far.taken(&mut further, &reference(&at_server)).await;
        assert!(!names(&got, it.client.id()) && !names(&got, it.server.id()));
        let at_far = only(&got);
        assert_ne!(at_far.address(), at_server.address(), "a way of its own");
        let mut open = soon(far.peer.open_introduced(&at_far)).await.unwrap();
        assert_eq!(use_it(&mut open).await, it.between.id());
        // What passes there is wrapped for both: the client's service sends back what it gets.
        let gift = it
            .third
            .introduce(&it.at_third, an_hour().for_peer(it.between.id()).further(1))
            .unwrap();
        send_message(&mut open, &reference(&gift)).await.unwrap();
        let back = soon(receive_message(&mut open)).await.unwrap().unwrap();
        let back = only(&back);
        assert!(opens(&far.peer, &back).await);
        match revoked {
            0 => it.membrane.revoke().await,
            1 => inner.revoke().await,
            2 => it.between.revoke(&at_server).await.unwrap(),
            _ => {
                // Three more, by either of the two: they are four together.
                assert!(opens(&it.server, &at_server).await);
                assert!(opens(&far.peer, &at_far).await);
                assert!(opens(&it.server, &at_server).await);
                assert_eq!(refusal(&it.server, &at_server).await, Flaw::UsedUp);
            }
        }
        assert!(!opens(&far.peer, &at_far).await, "{revoked}");
        if revoked < 2 {
            let gone = soon(open.read_u8()).await.unwrap_err();
            assert_eq!(reset_code(&gone), 8);
            assert!(!opens(&far.peer, &back).await, "{revoked}");
        }
        if revoked == 1 {
            assert!(opens(&it.server, &at_server).await, "the outer one stands");
        }
    }
}

/// A reference says where the membrane's node dials: what that costs is its giver's.
#[tokio::test]
async fn whoever_gives_references_pays_for_the_sessions_that_they_need() {
    let between = {
        let mut config = config();
        config.shares.sessions = Limits {
            all: 64,
            peer: 4,
            host: 64,
        };
        MeshNode::new(config)
    };
    let (giver, getter) = (node(), node());
    let (_, at_getter) = listening(&getter).await;
    getter.serve("shop", Access::Anyone, |call| async move {
        let mut stream = call.accept().await.unwrap();
        while let Ok(Some(message)) = receive_message(&mut stream).await {
            send_message(&mut stream, &message).await.unwrap();
        }
    });
    // What the giver gives comes back wrapped twice, for the giver.
    let (_, at) = listening(&between).await;
    let membrane = between.membrane([]);
    let to = at_getter.with_service("shop").unwrap();
    membrane.offer("shop", Access::Anyone, to).unwrap();
    let at = at.with_service("shop").unwrap();
    let mut stream = giver.open(&at).await.unwrap();
    let mut opened = Vec::new();
    let mut owners = Vec::new();
    let refused = loop {
        assert!(opened.len() <= 4, "as many as it likes");
        let owner = node();
        owner.serve("vault", Access::Nobody, parrot);
        let (_, at_owner) = listening(&owner).await;
        let at_owner = at_owner.with_service("vault").unwrap();
        let terms = an_hour().for_peer(between.id()).further(1);
        let it = owner.introduce(&at_owner, terms).unwrap();
        send_message(&mut stream, &reference(&it)).await.unwrap();
        let back = soon(receive_message(&mut stream)).await.unwrap().unwrap();
        match soon(giver.open_introduced(&only(&back))).await {
            Ok(stream) => opened.push(stream),
            Err(error) => break error,
        }
        owners.push(owner);
    };
    assert!(refused.to_string().contains("later"), "{refused}");
    // Its own session, and those that it has caused.
    assert_eq!(opened.len(), 3);
    assert_eq!(between.held(Resource::Sessions, Some(giver.id())), 4);
    // The node's own are nobody's but its own.
    let other = node();
    let (_, at) = listening(&other).await;
    between.session(&at).await.unwrap();
    drop((opened, owners));
    eventually(|| between.held(Resource::Sessions, Some(giver.id())) == 1).await;
}
