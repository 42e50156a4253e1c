//! Requests that a third peer carries: honest carriers, and others, which are written here from docs/PROTOCOL.md alone.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cepa::identity::{AcceptAny, AnyOf, Identity, KeyKind, PeerId, Pinned, TrustPolicy};
use cepa::mux::Substream;
use cepa::node::{Access, Event, PeerAddr};
use cepa::protocols::sealed::{
    CarrierConfig, MAX_BODY, Mailbox, SealFlaw, SealedError, SealedEvent, SealingKey,
};

use cepa::onion::Onion;
use cepa::protocols::relay::Status;
use cepa::session::{OpenError, Session};
use cepa::stack::StackConfig;
use cepa::transports::{self, Endpoint};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, watch};

use crate::support::{
    MeshNode, address, by_hand, config, eventually, listening, node, soon, until, with_new_key,
};

const CANARY: &[u8] = b"the canary sings at dawn";

/// A carrier with the defaults, changed.
async fn carrier(change: impl FnOnce(&mut CarrierConfig)) -> (MeshNode, PeerAddr) {
    let carrier = node();
    let mut config = CarrierConfig::new(Access::Anyone);
    change(&mut config);
    carrier.carry(Some(config));
    let (_, at) = listening(&carrier).await;
    (carrier, at)
}

/// A recipient with a session at a carrier: says who asked, and what.
async fn recipient(at: &PeerAddr) -> (MeshNode, Arc<AtomicUsize>) {
    let recipient = node();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    recipient.serve_sealed("up", Access::Anyone, move |call| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move {
            let mut answer = call.sender().as_bytes().to_vec();
            answer.extend(call.carrier().as_bytes());
            answer.extend(call.body());
            Ok(answer)
        }
    });
    recipient.session(at).await.unwrap();
    (recipient, calls)
}

async fn ask(
    from: &MeshNode,
    by: &PeerAddr,
    to: &MeshNode,
    body: &[u8],
) -> Result<Vec<u8>, SealedError> {
    let key = soon(from.sealing_key(by, to.id())).await?;
    soon(from.ask_sealed(by, &key, "up", body)).await
}

fn status(error: &SealedError) -> Status {
    assert!(!error.to_string().contains('\n'), "{error}");
    match error {
        SealedError::NotBrought { status, .. } => *status,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_request_is_carried_and_so_is_its_answer() {
    let (carrier, at) = carrier(|_| {}).await;
    let (recipient, calls) = recipient(&at).await;
    let sender = node();
    let mut events = recipient.events();
    let body = vec![7; MAX_BODY - 64];
    let answer = ask(&sender, &at, &recipient, &body).await.unwrap();
    let mut expected = sender.id().as_bytes().to_vec();
    expected.extend(carrier.id().as_bytes());
    expected.extend(body);
    assert_eq!(answer, expected);
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    let asked = until(&mut events, |event| {
        event.protocol::<SealedEvent>().cloned()
    });
    let asked = asked.await;
    assert_eq!((asked.sender, asked.carrier), (sender.id(), carrier.id()));
    assert_eq!(asked.service, "up");
    eventually(|| carrier.carrier_stats().unwrap().now == 0).await;
    let stats = carrier.carrier_stats().unwrap();
    assert_eq!(
        (stats.carried, stats.refused),
        (2, 0),
        "the key, and the request"
    );
    // The two have no session.
    assert_eq!(
        (sender.sessions().len(), recipient.sessions().len()),
        (1, 1)
    );
}

#[tokio::test]
async fn a_recipient_that_can_be_reached_needs_no_carrier() {
    let (_carrier, at) = carrier(|_| {}).await;
    let (recipient, _) = recipient(&at).await;
    let (_, at) = listening(&recipient).await;
    let sender = node();
    let answer = ask(&sender, &at, &recipient, b"hi").await.unwrap();
    assert_eq!(answer[..32], *sender.id().as_bytes());
    assert_eq!(answer[32..64], *sender.id().as_bytes(), "it came by itself");
}

#[tokio::test]
async fn every_refusal_has_its_reason() {
    let friend = node();
    let id = friend.id();
    let (carrier, at) = carrier(|config| config.access = Access::peers([id])).await;
    let (recipient, _) = recipient(&at).await;
    let key = friend.sealing_key(&at, recipient.id()).await.unwrap();
    let error = node().sealing_key(&at, recipient.id()).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("carries no sealed messages for you"),
        "{error}"
    );

    let error = friend.sealing_key(&at, node().id()).await.unwrap_err();
    assert_eq!(status(&error), Status::NotRegistered);
    let error = friend.sealing_key(&at, friend.id()).await.unwrap_err();
    assert_eq!(status(&error), Status::Loop);

    // A carrier that takes none itself, and a peer that has no such service.
    let error = friend.sealing_key(&at, carrier.id()).await.unwrap_err();
    assert!(
        matches!(
            error,
            SealedError::NoCarrier {
                error: OpenError::Refused { .. },
                ..
            }
        ),
        "{error}"
    );
    let mute = node();
    mute.session(&at).await.unwrap();
    let error = friend.sealing_key(&at, mute.id()).await.unwrap_err();
    assert_eq!(status(&error), Status::Refused);
    assert!(
        error.to_string().contains("takes no sealed messages"),
        "{error}"
    );
    let error = friend.ask_sealed(&at, &key, "down", b"").await.unwrap_err();
    assert_eq!(status(&error), Status::Refused);
    assert!(
        error.to_string().contains("no service of this name"),
        "{error}"
    );

    // What is too large, or for an old key, does not leave.
    let large = vec![0; MAX_BODY + 1];
    let error = friend
        .ask_sealed(&at, &key, "up", &large)
        .await
        .unwrap_err();
    assert!(matches!(error, SealedError::Flaw(SealFlaw::TooLong { .. })));

    // The recipient's own refusal is proven; so is an answer that does not fit.
    recipient.serve_sealed("no", Access::Anyone, async |_| Err("not today".into()));
    recipient.serve_sealed("long", Access::Anyone, async |_| Ok(vec![0; MAX_BODY + 1]));
    let error = friend.ask_sealed(&at, &key, "no", b"").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{} refused: not today", recipient.id())
    );
    let error = friend.ask_sealed(&at, &key, "long", b"").await.unwrap_err();
    assert!(matches!(error, SealedError::Refused { .. }), "{error}");

    // Who may ask is about the sender, not about who has brought it.
    recipient.serve_sealed("mine", Access::peers([carrier.id()]), async |_| Ok(vec![]));
    let error = friend.ask_sealed(&at, &key, "mine", b"").await.unwrap_err();
    assert_eq!(status(&error), Status::Refused);
    recipient.serve_sealed("mine", Access::peers([friend.id()]), async |_| Ok(vec![1]));
    let answer = friend.ask_sealed(&at, &key, "mine", b"").await.unwrap();
    assert_eq!(answer, [1]);

    assert!(recipient.withdraw_sealed("up") && !recipient.withdraw_sealed("up"));
    carrier.carry(None);
    let error = friend.ask_sealed(&at, &key, "up", b"").await.unwrap_err();
    assert!(matches!(error, SealedError::NoCarrier { .. }), "{error}");
}

#[tokio::test]
async fn who_has_replaced_its_key_is_still_the_sender_that_was_allowed() {
    let (_carrier, at) = carrier(|_| {}).await;
    let (recipient, _) = recipient(&at).await;
    let (_, direct) = listening(&recipient).await;
    let keys = config();
    let old = MeshNode::new(keys.clone());
    let new = with_new_key(&keys);
    let newest = MeshNode::new(with_new_key(&new));
    let new = MeshNode::new(new);
    let allowed = Access::peers([old.id()]);
    let by = old.id();
    recipient.serve_sealed("mine", allowed, move |call| async move {
        // What the heirs of one key hold can be counted to it.
        assert_eq!(call.allowed_as(), by);
        Ok(call.sender().as_bytes().to_vec())
    });
    for way in [&at, &direct] {
        let key = soon(old.sealing_key(way, recipient.id())).await.unwrap();
        for sender in [&old, &new, &newest] {
            let answer = soon(sender.ask_sealed(way, &key, "mine", b"")).await;
            assert_eq!(answer.unwrap(), sender.id().as_bytes());
        }
        let error = soon(node().ask_sealed(way, &key, "mine", b"")).await;
        assert_eq!(status(&error.unwrap_err()), Status::Refused);
    }
    // It does not go the other way round.
    recipient.serve_sealed("mine", Access::peers([new.id()]), async |_| Ok(vec![]));
    let key = soon(old.sealing_key(&at, recipient.id())).await.unwrap();
    assert!(
        soon(newest.ask_sealed(&at, &key, "mine", b""))
            .await
            .is_ok()
    );
    assert!(soon(old.ask_sealed(&at, &key, "mine", b"")).await.is_err());
}

#[tokio::test]
async fn a_recipient_that_has_replaced_its_key_is_reached_by_its_old_id() {
    let (_carrier, at) = carrier(|_| {}).await;
    let keys = config();
    let old = keys.stack.identity.peer_id();
    let recipient = MeshNode::new(with_new_key(&keys));
    recipient.serve_sealed("up", Access::Anyone, async |_| Ok(b"here".to_vec()));
    recipient.session(&at).await.unwrap();
    let (endpoint, _) = listening(&recipient).await;
    let direct = address(&format!("cepa://{old}@{endpoint}"));
    for way in [&at, &direct] {
        let sender = node();
        let key = soon(sender.sealing_key(way, old)).await.unwrap();
        assert_eq!(key.owner(), recipient.id());
        let answer = soon(sender.ask_sealed(way, &key, "up", b"")).await;
        assert_eq!(answer.unwrap(), b"here");
    }
}

#[tokio::test]
async fn a_refusal_names_who_refused_whose_message_and_which_service() {
    let (carrier, at) = carrier(|_| {}).await;
    let (recipient, _) = recipient(&at).await;
    let (_, direct) = listening(&recipient).await;
    let mut events = recipient.events();
    let sender = node();
    for (way, by) in [(&at, Some(carrier.id())), (&direct, None)] {
        let key = soon(sender.sealing_key(way, recipient.id())).await.unwrap();
        let error = soon(sender.ask_sealed(way, &key, "mine", b"")).await;
        let line = error.unwrap_err().to_string();
        assert!(
            line.contains(&format!("{} refused", recipient.id())),
            "{line}"
        );
        // What to do about it.
        assert!(line.contains("its owner has to allow you"), "{line}");
        // The owner sees the sender, and who has brought it apart from that.
        let seen = until(&mut events, |event| match event {
            Event::Refused { peer, service, .. } => {
                Some((*peer, service.clone(), event.to_string()))
            }
            _ => None,
        });
        let (peer, service, reported) = seen.await;
        assert_eq!((peer, service.as_str()), (sender.id(), "mine"));
        if let Some(by) = by {
            let says = format!("says the carrier {by}");
            assert!(line.contains(&says), "{line}");
            assert!(reported.contains(&format!("brought by {by}")), "{reported}");
        } else {
            assert!(!line.contains("carrier"), "{line}");
            assert!(!reported.contains("brought"), "{reported}");
        }
    }
    // One that takes none at all, and is no carrier: it is the recipient that has to be set up.
    let mute = node();
    mute.session(&at).await.unwrap();
    let (_, direct) = listening(&mute).await;
    for way in [&at, &direct] {
        let error = soon(sender.sealing_key(way, mute.id())).await;
        let line = error.unwrap_err().to_string();
        assert!(line.contains("takes no sealed messages"), "{line}");
        assert!(
            line.contains("its owner has to offer a service to them"),
            "{line}"
        );
        assert_eq!(line.contains("carrier"), way == &at, "{line}");
    }
}

#[tokio::test]
async fn one_sender_has_its_share_of_a_carrier() {
    let (carrier, at) = carrier(|config| {
        // Half is for the strangers of one host, which this machine is.
        config.at_once = 4;
        config.at_once_a_peer = 1;
    })
    .await;
    let recipient = node();
    let go = Arc::new(Notify::new());
    let wait = Arc::clone(&go);
    recipient.serve_sealed("up", Access::Anyone, move |_| {
        let wait = Arc::clone(&wait);
        async move {
            wait.notified().await;
            Ok(Vec::new())
        }
    });
    recipient.session(&at).await.unwrap();
    let senders = [node(), node(), node()];
    let mut waiting = Vec::new();
    for sender in &senders[..2] {
        let key = soon(sender.sealing_key(&at, recipient.id())).await.unwrap();
        eventually(|| carrier.carrier_stats().unwrap().now == waiting.len()).await;
        let (sender, at) = (sender.clone(), at.clone());
        waiting.push(tokio::spawn(async move {
            sender.ask_sealed(&at, &key, "up", b"").await
        }));
        eventually(|| carrier.carrier_stats().unwrap().now == waiting.len()).await;
    }
    for (sender, why) in [(0, Status::Quota), (2, Status::Quota)] {
        let key = senders[sender].sealing_key(&at, recipient.id()).await;
        assert_eq!(status(&key.unwrap_err()), why);
    }
    waiting.remove(1).abort();
    eventually(|| carrier.carrier_stats().unwrap().now == 1).await;
    let error = senders[0]
        .sealing_key(&at, recipient.id())
        .await
        .unwrap_err();
    assert_eq!(status(&error), Status::Quota);
    soon(senders[2].sealing_key(&at, recipient.id()))
        .await
        .unwrap();
    // One for each that has begun: who has given up is not waited for, and has been carried out.
    go.notify_one();
    go.notify_one();
    soon(waiting.remove(0)).await.unwrap().unwrap();
}

/// Substreams of strangers that say nothing: as many as each gets, until one is refused.
async fn silent(at: &PeerAddr, service: &str, keys: usize, each: usize) -> Vec<Onion<Substream>> {
    let mut held = Vec::new();
    for _ in 0..keys {
        let (session, _) = by_hand(at).await;
        for _ in 0..each {
            held.extend(soon(session.open(service)).await);
        }
        session.ping().await.unwrap();
    }
    held
}

/// Whoever says nothing keeps out neither the carrier that a recipient has dialled itself, nor a sender that the carrier knows.
#[tokio::test]
async fn silent_strangers_keep_nobody_out_who_is_known() {
    let sender = node();
    let mut config = config();
    let friend = Pinned::one(sender.id());
    config.stack.trust = Arc::new(AnyOf::new([
        Arc::new(friend) as Arc<dyn TrustPolicy>,
        Arc::new(AcceptAny),
    ]));
    let carrier = MeshNode::new(config);
    carrier.carry(Some(CarrierConfig::new(Access::Anyone)));
    let (_, at) = listening(&carrier).await;
    let (recipient, _) = recipient(&at).await;
    let (_, at_recipient) = listening(&recipient).await;
    let _held = (
        silent(&at_recipient, "cepa.sealed.deliver", 4, 16).await,
        silent(&at, "cepa.sealed.carry", 16, 4).await,
    );
    eventually(|| carrier.carrier_stats().unwrap().now >= 32).await;
    assert!(ask(&sender, &at, &recipient, b"x").await.is_ok());
}

#[tokio::test]
async fn a_rate_is_kept() {
    let (_carrier, at) = carrier(|config| config.a_minute = 10).await;
    let (recipient, _) = recipient(&at).await;
    let sender = node();
    sender.sealing_key(&at, recipient.id()).await.unwrap();
    let error = sender.sealing_key(&at, recipient.id()).await.unwrap_err();
    assert_eq!(status(&error), Status::Quota);
    node().sealing_key(&at, recipient.id()).await.unwrap();
}

/// What a carrier does with what it is given.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Deed {
    None,
    /// One bit of the request, or of the answer, at this place from its end.
    FlipRequest(usize),
    FlipAnswer(usize),
    /// Brings every request twice, and the second answer back.
    Replay,
    /// Answers with what the request before got.
    Swap,
    /// Brings a key of its own.
    OwnKey,
    /// Says that the recipient has refused, or gives nonsense.
    Lie,
    Nonsense,
}

/// Everything that a carrier has had in its hands.
type Seen = Arc<Mutex<Vec<Vec<u8>>>>;

/// A carrier for one recipient, the first peer that has a session with it and sends nothing.
async fn dishonest(deed: Deed) -> (PeerAddr, Seen, watch::Receiver<Option<Session>>) {
    let identity = Identity::generate(KeyKind::Ed25519).unwrap();
    let id = identity.peer_id();
    let any: Endpoint = "tcp:127.0.0.1:0".parse().unwrap();
    let mut listener = transports::listen(&any).await.unwrap();
    let at = address(&format!("cepa://{id}@{}", listener.endpoint()));
    let own = Mailbox::new(identity.clone());
    let config = StackConfig::new(identity, Arc::new(AcceptAny));
    let (first, recipient) = watch::channel(None::<Session>);
    let seen = Seen::default();
    let (all, found) = (Arc::clone(&seen), recipient.clone());
    tokio::spawn(async move {
        while let Ok(Some(stream)) = listener.accept().await {
            let session = Session::handshake(stream, &[], cepa::Side::Server, &config).await;
            let session = session.unwrap();
            first.send_if_modified(|first| {
                let is_first = first.is_none();
                first.get_or_insert(session.clone());
                is_first
            });
            let own = own.key(cepa::identity::UnixTime::now()).unwrap().to_bytes();
            tokio::spawn(carry(session, found.clone(), Arc::clone(&all), deed, own));
        }
    });
    (at, seen, recipient)
}

async fn carry(
    session: Session,
    recipient: watch::Receiver<Option<Session>>,
    seen: Seen,
    deed: Deed,
    own_key: Vec<u8>,
) {
    let mut before = Vec::new();
    while let Ok(incoming) = session.accept().await {
        assert_eq!(incoming.service(), "cepa.sealed.carry");
        let mut near = incoming.accept().await.unwrap();
        let asked = message(&mut near).await;
        // {0: 1, 1: peer id, 2: request}, or without the last.
        assert_eq!(asked[1..6], [0, 1, 1, 0x58, 0x20]);
        let recipient = recipient.borrow().clone().expect("nobody is there");
        let mut request = asked.get(39..).unwrap_or_default().to_vec();
        seen.lock().unwrap().push(request.clone());
        if let (Deed::FlipRequest(place), false) = (deed, request.is_empty()) {
            let end = request.len();
            request[end - 1 - place] ^= 4;
        }
        let mut answer = deliver(&recipient, &request).await;
        seen.lock().unwrap().push(answer.clone());
        if !request.is_empty() {
            match deed {
                Deed::Replay => answer = deliver(&recipient, &request).await,
                Deed::FlipAnswer(place) => {
                    let end = answer.len();
                    answer[end - 1 - place] ^= 4;
                }
                Deed::Swap if !before.is_empty() => answer.clone_from(&before),
                Deed::Lie => answer = [&[0xa3, 0, 1, 1, 6, 2, 0x62][..], b"no"].concat(),
                Deed::Nonsense => answer = vec![0xff],
                _ => {}
            }
            before.clone_from(&answer);
        } else if deed == Deed::OwnKey {
            let length = u16::try_from(own_key.len()).unwrap().to_be_bytes();
            answer = [&[0xa4, 0, 1, 1, 0, 2, 0x60, 3, 0x59][..], &length, &own_key].concat();
        }
        let length = u16::try_from(answer.len()).unwrap();
        near.write_u16(length).await.unwrap();
        near.write_all(&answer).await.unwrap();
        near.shutdown().await.unwrap();
    }
}

/// Brings a request, a byte string as in CBOR, or asks for the key where there is none.
async fn deliver(recipient: &Session, request: &[u8]) -> Vec<u8> {
    let mut far = recipient.open("cepa.sealed.deliver").await.unwrap();
    let mut body = vec![0xa1, 0, 1];
    if !request.is_empty() {
        body[0] = 0xa2;
        body.push(1);
        body.extend(request);
    }
    far.write_u16(u16::try_from(body.len()).unwrap())
        .await
        .unwrap();
    far.write_all(&body).await.unwrap();
    far.flush().await.unwrap();
    message(&mut far).await
}

async fn message(stream: &mut Onion<Substream>) -> Vec<u8> {
    let length = stream.read_u16().await.unwrap();
    let mut body = vec![0; length.into()];
    stream.read_exact(&mut body).await.unwrap();
    body
}

/// A dishonest carrier, and a recipient there.
async fn scene(deed: Deed) -> (PeerAddr, Seen, MeshNode, Arc<AtomicUsize>) {
    let (at, seen, mut first) = dishonest(deed).await;
    let (recipient, calls) = recipient(&at).await;
    soon(first.wait_for(Option::is_some)).await.unwrap();
    (at, seen, recipient, calls)
}

/// One that is written from the same page and does nothing works, so it is the deeds that others fail for; and it has
/// nothing in its hands of what was said, or whom it came from.
#[tokio::test]
async fn a_carrier_can_not_read() {
    let (at, seen, recipient, _) = scene(Deed::None).await;
    let sender = node();
    let answer = ask(&sender, &at, &recipient, CANARY).await.unwrap();
    assert_eq!(answer[64..], *CANARY);
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 4);
    let holds = |part: &[u8]| {
        seen.iter()
            .any(|bytes| bytes.windows(part.len()).any(|window| window == part))
    };
    assert!(!holds(CANARY) && !holds(sender.id().as_bytes()));
    assert!(holds(&seen[3][10..]), "the search finds what is there");
}

#[tokio::test]
async fn a_carrier_can_not_alter() {
    // In the tag, the text, the encapsulated key, and the name of the key.
    for place in [0, 40, 310, 340] {
        let (at, _, recipient, calls) = scene(Deed::FlipRequest(place)).await;
        let mut events = recipient.events();
        let error = ask(&node(), &at, &recipient, CANARY).await.unwrap_err();
        assert_eq!(status(&error), Status::Refused, "{place}");
        let reported = until(&mut events, |event| match event {
            Event::Refused { service, .. } => Some(service.clone()),
            _ => None,
        });
        let reported = reported.await;
        assert_eq!(reported, "cepa.sealed.deliver");
        assert_eq!(calls.load(Ordering::Relaxed), 0);
    }
    for place in [0, 40, 290, 360, 380] {
        let (at, _, recipient, calls) = scene(Deed::FlipAnswer(place)).await;
        let error = ask(&node(), &at, &recipient, CANARY).await.unwrap_err();
        assert!(
            matches!(error, SealedError::Altered { .. }),
            "{place}: {error}"
        );
        assert!(error.to_string().contains("is invalid ("));
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    }
}

#[tokio::test]
async fn a_carrier_can_not_replay() {
    let (at, _, recipient, calls) = scene(Deed::Replay).await;
    let error = ask(&node(), &at, &recipient, CANARY).await.unwrap_err();
    // The refusal of the second is the carrier's word: the first was carried out.
    assert_eq!(status(&error), Status::Refused);
    assert!(error.to_string().contains("it is a duplicate"), "{error}");
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_carrier_can_not_swap_answers() {
    let (at, _, recipient, calls) = scene(Deed::Swap).await;
    let sender = node();
    ask(&sender, &at, &recipient, b"one").await.unwrap();
    let error = ask(&sender, &at, &recipient, b"two").await.unwrap_err();
    assert!(
        matches!(
            error,
            SealedError::Altered {
                flaw: SealFlaw::Unopened,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(calls.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_carrier_can_not_put_itself_in_between() {
    let (at, _, recipient, _) = scene(Deed::OwnKey).await;
    let error = node().sealing_key(&at, recipient.id()).await.unwrap_err();
    // Which may be no fault of the carrier's, where an id is out of date.
    let line = error.to_string();
    assert!(line.contains("give the recipient's current id"), "{line}");
    assert!(
        matches!(
            error,
            SealedError::Altered {
                flaw: SealFlaw::OtherOwner { .. },
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn what_a_carrier_says_is_not_taken_for_the_recipients_word() {
    let (at, _, recipient, _) = scene(Deed::Lie).await;
    let error = ask(&node(), &at, &recipient, CANARY).await.unwrap_err();
    assert!(!matches!(error, SealedError::Refused { .. }));
    assert!(
        error
            .to_string()
            .contains(&format!("{} refused", recipient.id())),
        "{error}"
    );
    let (at, _, recipient, _) = scene(Deed::Nonsense).await;
    let error = ask(&node(), &at, &recipient, CANARY).await.unwrap_err();
    assert!(matches!(error, SealedError::Protocol { .. }), "{error}");
}

/// A third peer that has got hold of a request can do with it what a carrier can, and no more.
#[tokio::test]
async fn a_stolen_request_is_of_no_use() {
    let (at, seen, recipient, calls) = scene(Deed::None).await;
    let (sender, thief) = (node(), node());
    ask(&sender, &at, &recipient, CANARY).await.unwrap();
    let stolen = seen.lock().unwrap()[2].clone();
    let (_, direct) = listening(&recipient).await;
    let to_recipient = soon(thief.session(&direct)).await.unwrap();
    let again = deliver(&to_recipient, &stolen).await;
    assert!(String::from_utf8_lossy(&again).contains("it is a duplicate"));
    // To somebody else, who has a key as well.
    let other = node();
    other.serve_sealed("up", Access::Anyone, async |_| Ok(vec![]));
    let (_, direct) = listening(&other).await;
    let to_other = soon(thief.session(&direct)).await.unwrap();
    deliver(&to_other, &[]).await;
    let elsewhere = deliver(&to_other, &stolen).await;
    assert!(String::from_utf8_lossy(&elsewhere).contains("not in use"));
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

/// What was sealed for a process that has ended does not open for the next one.
#[tokio::test]
async fn a_recipient_that_starts_anew_has_another_key() {
    let (_carrier, at) = carrier(|_| {}).await;
    let keys = crate::support::config();
    let first = MeshNode::new(keys.clone());
    first.serve_sealed("up", Access::Anyone, async |_| Ok(vec![]));
    first.session(&at).await.unwrap();
    let sender = node();
    let key: SealingKey = sender.sealing_key(&at, first.id()).await.unwrap();
    soon(first.shutdown(Duration::ZERO)).await;
    let second = MeshNode::new(keys);
    second.serve_sealed("up", Access::Anyone, async |_| Ok(vec![]));
    second.session(&at).await.unwrap();
    let error = sender.ask_sealed(&at, &key, "up", b"").await.unwrap_err();
    assert!(error.to_string().contains("not in use"), "{error}");
    let key = sender.sealing_key(&at, second.id()).await.unwrap();
    sender.ask_sealed(&at, &key, "up", b"").await.unwrap();
}

/// Nodes that check nothing themselves are told what they did wrong.
#[tokio::test]
async fn nonsense_is_refused_with_its_reason() {
    let (_carrier, at) = carrier(|_| {}).await;
    let (recipient, _) = recipient(&at).await;
    let (_, direct) = listening(&recipient).await;
    let client = node();
    for (at, service) in [(&at, "cepa.sealed.carry"), (&direct, "cepa.sealed.deliver")] {
        let session = client.session(at).await.unwrap();
        for (bytes, why) in [
            (&[0xff, 0xff][..], "65535 bytes, at most 61504"),
            (&[0, 3, 0xa1, 0, 2], ""),
            (&[0, 3, 1, 2, 3], "not valid CBOR"),
        ] {
            let mut stream = session.open(service).await.unwrap();
            stream.write_all(bytes).await.unwrap();
            stream.flush().await.unwrap();
            let answer = soon(message(&mut stream)).await;
            assert_eq!(answer[1..5], [0, 1, 1, 1], "{answer:?}");
            let said = String::from_utf8_lossy(&answer).into_owned();
            assert!(said.contains(why), "{said}");
        }
        session.ping().await.unwrap();
    }
    let id: PeerId = recipient.id();
    client.sealing_key(&at, id).await.unwrap();
}
