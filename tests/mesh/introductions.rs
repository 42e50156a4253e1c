//! References that peers give each other: who gets in, and which step keeps the others out.

use std::time::Duration;

use cepa::identity::{Identity, KeyKind, UnixTime};
use cepa::node::{Access, DialError, Event, Node, PeerAddr};
use cepa::protocols::introduction::{
    Flaw, IntroducedError, Introduction, IntroductionEvent, Introductions, IntroductionsError,
    StateFileProblem, Terms,
};
use cepa::session::OpenError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{
    MeshNode, address, ask, config, echo, eventually, listening, node, relay, soon, through, until,
    with_new_key,
};

fn in_seconds(seconds: u64) -> UnixTime {
    let now = UnixTime::now().as_secs();
    UnixTime::since_unix_epoch(Duration::from_secs(now + seconds))
}

fn an_hour() -> Terms {
    Terms::until(in_seconds(3600))
}

/// An owner of a service that nobody may open, and its address.
async fn owner() -> (MeshNode, PeerAddr) {
    let owner = node();
    owner.serve("echo", Access::Nobody, echo);
    owner.serve("other", Access::Nobody, echo);
    let (_, at) = listening(&owner).await;
    (owner, at.with_service("echo").unwrap())
}

async fn flaw(node: &MeshNode, introduction: &Introduction) -> Flaw {
    match soon(node.open_introduced(introduction)).await {
        Err(IntroducedError::Refused { flaw, .. } | IntroducedError::Flaw(flaw)) => flaw,
        other => panic!("{other:?}"),
    }
}

async fn gets_in(node: &MeshNode, introduction: &Introduction) -> String {
    let stream = soon(node.open_introduced(introduction)).await;
    soon(ask(stream.unwrap(), b"hello")).await.unwrap()
}

#[tokio::test]
async fn a_third_party_introduces_and_the_owner_sees_who() {
    let (owner, at) = owner().await;
    let (alice, bob, carol) = (node(), node(), node());
    owner.introducers("echo", Access::peers([alice.id()]));
    let mut events = owner.events();
    let to_bob = an_hour().for_peer(bob.id()).uses(None).further(1);
    let to_bob = alice.introduce(&at, to_bob).unwrap();
    gets_in(&bob, &to_bob).await;
    gets_in(&bob, &to_bob).await;
    let introduced = |event: &Event| match event.protocol::<IntroductionEvent>() {
        Some(IntroductionEvent::Introduced { peer, service, by }) => {
            Some((*peer, service.clone(), by.clone()))
        }
        _ => None,
    };
    let seen = until(&mut events, introduced).await;
    assert_eq!(seen, (bob.id(), "echo".into(), vec![alice.id()]));
    until(&mut events, introduced).await;

    // And Bob introduces Carol, by text.
    let to_carol = bob
        .pass_on(&to_bob, an_hour().for_peer(carol.id()))
        .unwrap();
    let to_carol: Introduction = to_carol.to_string().parse().unwrap();
    gets_in(&carol, &to_carol).await;
    let seen = until(&mut events, introduced).await;
    assert_eq!(
        seen,
        (carol.id(), "echo".into(), vec![alice.id(), bob.id()])
    );

    // It is for this service and for nothing else: not by its name, and not by another introduction.
    for service in ["echo", "other"] {
        let plain = at.clone().with_service(service).unwrap();
        assert!(carol.open(&plain).await.is_err());
    }
    let other = at.clone().with_service("other").unwrap();
    let other = alice.introduce(&other, an_hour()).unwrap();
    let found = flaw(&bob, &other).await;
    assert_eq!(found, Flaw::NotPermitted { issuer: alice.id() });
}

/// As a value in an answer, and with no hint but a relay.
#[tokio::test]
async fn a_server_introduces_its_guests_to_each_other_through_its_relay() {
    let server = relay(|_| {});
    let (_, at) = listening(&server).await;
    let (hidden, guest) = (node(), node());
    hidden.serve("echo", Access::Nobody, echo);
    hidden.introducers("echo", Access::peers([server.id()]));
    hidden.register(&at).await.unwrap();
    let way = through(hidden.id(), &at, "echo");
    let introducer = server.clone();
    server.serve("who", Access::Anyone, move |call| {
        let terms = an_hour().for_peer(call.peer().id());
        let answer = introducer.introduce(&way, terms).unwrap().to_bytes();
        async move {
            let mut stream = call.accept().await.unwrap();
            stream.write_all(&answer).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    let mut answer = Vec::new();
    let asked = guest.open(&at.with_service("who").unwrap()).await;
    soon(asked.unwrap().read_to_end(&mut answer)).await.unwrap();
    let introduction = Introduction::from_bytes(&answer).unwrap();
    let path = gets_in(&guest, &introduction).await;
    assert_eq!(path, format!("via relay {}", server.id()));
}

#[tokio::test]
async fn uses_are_counted_and_thieves_get_nothing() {
    let (owner, at) = owner().await;
    let (bob, thief) = (node(), node());
    // The owner itself may always introduce.
    let bound = owner
        .introduce(&at, an_hour().for_peer(bob.id()).uses(Some(2)))
        .unwrap();
    assert_eq!(flaw(&thief, &bound).await, Flaw::NotYours);
    gets_in(&bob, &bound).await;
    gets_in(&bob, &bound).await;
    assert_eq!(flaw(&bob, &bound).await, Flaw::UsedUp);

    // Without a recipient it is the first one's.
    let bearer = owner.introduce(&at, an_hour().uses(Some(2))).unwrap();
    gets_in(&bob, &bearer).await;
    assert_eq!(flaw(&thief, &bearer).await, Flaw::NotYours);
    gets_in(&bob, &bearer).await;
    assert_eq!(flaw(&bob, &bearer).await, Flaw::UsedUp);

    // Two links: what is passed on counts as a use of what it came from.
    let carol = node();
    let root = an_hour().for_peer(bob.id()).uses(Some(2)).further(1);
    let root = owner.introduce(&at, root).unwrap();
    let passed = bob
        .pass_on(&root, an_hour().for_peer(carol.id()).uses(None))
        .unwrap();
    gets_in(&bob, &root).await;
    gets_in(&carol, &passed).await;
    assert_eq!(flaw(&carol, &passed).await, Flaw::UsedUp);
    assert_eq!(flaw(&bob, &root).await, Flaw::UsedUp);
}

/// A recipient that does not check anything itself is kept out by the owner, which names the step.
#[tokio::test]
async fn a_thief_that_skips_its_own_checks_is_refused_by_the_owner() {
    let (owner, at) = owner().await;
    let (bob, thief) = (node(), node());
    let bound = owner.introduce(&at, an_hour().for_peer(bob.id())).unwrap();
    let session = thief.session(&at).await.unwrap();
    let present = async |bytes: &[u8]| {
        let mut stream = session.open("cepa.introduction").await.unwrap();
        // {0: 1, 1: 0, 2: bytes}
        let mut message = vec![0xa3, 0, 1, 1, 0, 2, 0x59];
        message.extend(u16::try_from(bytes.len()).unwrap().to_be_bytes());
        message.extend(bytes);
        stream
            .write_u16(u16::try_from(message.len()).unwrap())
            .await
            .unwrap();
        stream.write_all(&message).await.unwrap();
        let mut answer = Vec::new();
        soon(stream.read_to_end(&mut answer)).await.unwrap();
        // {0: 1, 1: status, …}
        assert_eq!(answer[3..6], [0, 1, 1], "{answer:?}");
        answer[6]
    };
    let bytes = bound.to_bytes();
    assert_eq!(present(&bytes).await, 6, "not yours");
    let mut altered = bytes.clone();
    *altered.last_mut().unwrap() ^= 1;
    assert_eq!(present(&altered).await, 4, "signature");
    assert_eq!(present(&bytes[..40]).await, 1, "malformed");
    let (_, elsewhere) = self::owner().await;
    let wrong = owner.introduce(&elsewhere, an_hour()).unwrap();
    assert_eq!(present(&wrong.to_bytes()).await, 2, "of another owner");
    let stranger = thief.introduce(&at, an_hour()).unwrap();
    assert_eq!(present(&stranger.to_bytes()).await, 5, "not permitted");
    // Who says to have issued it is looked at before what that costs to check.
    let mut altered = stranger.to_bytes();
    *altered.last_mut().unwrap() ^= 1;
    assert_eq!(
        present(&altered).await,
        5,
        "not permitted, not the signature"
    );
    let late = owner.introduce(&at, Terms::until(in_seconds(0))).unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(present(&late.to_bytes()).await, 7, "expired");
    assert_eq!(flaw(&bob, &late).await, Flaw::Expired);
    // A message that claims more than it may have.
    let mut stream = session.open("cepa.introduction").await.unwrap();
    stream.write_all(&[0xff; 2]).await.unwrap();
    let mut answer = Vec::new();
    soon(stream.read_to_end(&mut answer)).await.unwrap();
    assert!(String::from_utf8_lossy(&answer).contains("65535 bytes"));
    gets_in(&bob, &bound).await;
}

#[tokio::test]
async fn what_is_revoked_is_over_for_all_whom_it_was_passed_on_to() {
    let (owner, at) = owner().await;
    let (alice, bob, carol) = (node(), node(), node());
    owner.introducers("echo", Access::peers([alice.id()]));
    let to_bob = an_hour().for_peer(bob.id()).uses(None).further(1);
    let to_bob = alice.introduce(&at, to_bob).unwrap();
    let to_carol = bob
        .pass_on(&to_bob, an_hour().for_peer(carol.id()).uses(None))
        .unwrap();
    gets_in(&carol, &to_carol).await;
    // Nobody but an issuer, or the owner, can.
    let refused = carol.revoke(&to_carol).await.unwrap_err();
    assert!(matches!(
        refused,
        IntroducedError::Refused {
            flaw: Flaw::NotYours,
            ..
        }
    ));
    gets_in(&carol, &to_carol).await;
    bob.revoke(&to_carol).await.unwrap();
    assert_eq!(
        flaw(&carol, &to_carol).await,
        Flaw::Revoked { by: bob.id() }
    );
    gets_in(&bob, &to_bob).await;
    let again = bob
        .pass_on(&to_bob, an_hour().for_peer(carol.id()))
        .unwrap();
    alice.revoke(&to_bob).await.unwrap();
    assert_eq!(flaw(&bob, &to_bob).await, Flaw::Revoked { by: alice.id() });
    assert_eq!(flaw(&carol, &again).await, Flaw::Revoked { by: alice.id() });
    // The owner's own word.
    let own = alice.introduce(&at, an_hour().for_peer(bob.id())).unwrap();
    owner.revoke(&own).await.unwrap();
    assert_eq!(flaw(&bob, &own).await, Flaw::Revoked { by: owner.id() });
    // An introducer that is one no longer.
    let own = alice.introduce(&at, an_hour().for_peer(bob.id())).unwrap();
    owner.introducers("echo", Access::Nobody);
    assert_eq!(
        flaw(&bob, &own).await,
        Flaw::NotPermitted { issuer: alice.id() }
    );
}

#[tokio::test]
async fn each_step_that_fails_says_which_it_is() {
    let (owner, at) = owner().await;
    let bob = node();
    let nowhere = format!("cepa://{}@tcp:127.0.0.1:1/echo", owner.id());
    let it = owner.introduce(&address(&nowhere), an_hour()).unwrap();
    let error = bob.open_introduced(&it).await.unwrap_err();
    assert!(matches!(error, IntroducedError::Dial(_)), "{error}");
    assert!(error.to_string().contains("not connected"), "{error}");
    // A hint that would run a command here is not followed.
    let marker = std::env::temp_dir().join(format!("cepa-hint-{}", bob.id().short()));
    let command = format!("exec:touch {}", marker.display()).parse().unwrap();
    let trap = PeerAddr::new(owner.id()).with_hint(cepa::node::Hint::Direct(command));
    let trap = trap.unwrap().with_service("echo").unwrap();
    let it = owner.introduce(&trap, an_hour()).unwrap();
    let error = bob.open_introduced(&it).await.unwrap_err();
    assert!(
        matches!(error, IntroducedError::LocalHints { .. }),
        "{error}"
    );
    assert!(!marker.exists());

    let gone = at.clone().with_service("gone").unwrap();
    let it = owner.introduce(&gone, an_hour()).unwrap();
    assert_eq!(flaw(&bob, &it).await, Flaw::NoService);
    // The service itself may refuse.
    owner.serve("shy", Access::Nobody, async |call| {
        let _ = call.refuse("not today").await;
    });
    let shy = at.clone().with_service("shy").unwrap();
    let it = owner.introduce(&shy, an_hour()).unwrap();
    let error = bob.open_introduced(&it).await.unwrap_err();
    assert!(
        matches!(&error, IntroducedError::Open(OpenError::Refused { reason, .. }) if reason == "not today"),
        "{error}"
    );
}

/// A limited introduction can't be used more often by many at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uses_are_counted_however_many_come_at_once() {
    let (owner, at) = owner().await;
    let bob = node();
    let it = owner
        .introduce(&at, an_hour().for_peer(bob.id()).uses(Some(3)))
        .unwrap();
    bob.session(&at).await.unwrap();
    let opening = (0..12).map(|_| bob.open_introduced(&it));
    let opened = soon(futures::future::join_all(opening)).await;
    assert_eq!(opened.iter().filter(|opened| opened.is_ok()).count(), 3);
}

/// An owner that starts anew, within the same second, with the same key: what was used up before, and what was revoked,
/// stays so, whoever has issued it.
#[tokio::test]
async fn a_restart_within_a_second_brings_nothing_back() {
    let (alice, bob) = (node(), node());
    // At the beginning of a second, so that all of it is in one.
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let rest = 1_000_000_000 - now().unwrap().subsec_nanos();
    tokio::time::sleep(Duration::from_nanos(rest.into())).await;
    let keys = config();
    let start = async || {
        let owner = MeshNode::new(keys.clone());
        owner.serve("echo", Access::Nobody, echo);
        owner.introducers("echo", Access::peers([alice.id()]));
        let (_, at) = listening(&owner).await;
        (owner, at.with_service("echo").unwrap())
    };
    let (owner, at) = start().await;
    let used = alice.introduce(&at, an_hour().for_peer(bob.id())).unwrap();
    let revoked = alice.introduce(&at, an_hour().for_peer(bob.id())).unwrap();
    let own = owner.introduce(&at, an_hour().for_peer(bob.id())).unwrap();
    gets_in(&bob, &used).await;
    gets_in(&bob, &own).await;
    alice.revoke(&revoked).await.unwrap();
    soon(owner.shutdown(Duration::ZERO)).await;
    let (owner, at) = start().await;
    // The recipient finds it at its new port.
    bob.session(&at).await.unwrap();
    for (name, it) in [("used", &used), ("revoked", &revoked), ("own", &own)] {
        assert_eq!(flaw(&bob, it).await, Flaw::Forgotten, "{name}");
    }
    // And what is issued now is good at once.
    let own = owner.introduce(&at, an_hour().for_peer(bob.id())).unwrap();
    gets_in(&bob, &own).await;
    let theirs = alice.introduce(&at, an_hour().for_peer(bob.id())).unwrap();
    gets_in(&bob, &theirs).await;
}

#[tokio::test]
async fn who_has_replaced_its_key_has_the_uses_that_it_had() {
    let (owner, at) = owner().await;
    let keys = config();
    let (old, new) = (
        MeshNode::new(keys.clone()),
        MeshNode::new(with_new_key(&keys)),
    );
    let carol = node();
    let bound = an_hour().for_peer(old.id()).uses(Some(2)).further(1);
    let bound = owner.introduce(&at, bound).unwrap();
    let bearer = owner.introduce(&at, an_hour().uses(Some(2))).unwrap();
    for it in [&bound, &bearer] {
        gets_in(&old, it).await;
        assert_eq!(flaw(&carol, it).await, Flaw::NotYours);
        gets_in(&new, it).await;
        assert_eq!(flaw(&new, it).await, Flaw::UsedUp);
        assert_eq!(flaw(&old, it).await, Flaw::UsedUp);
    }
    // It takes back what it has issued with its old key.
    let more = an_hour().for_peer(old.id()).uses(None).further(1);
    let more = owner.introduce(&at, more).unwrap();
    let to_carol = old.pass_on(&more, an_hour().for_peer(carol.id()).uses(None));
    let to_carol = to_carol.unwrap();
    gets_in(&carol, &to_carol).await;
    new.revoke(&to_carol).await.unwrap();
    assert!(matches!(
        flaw(&carol, &to_carol).await,
        Flaw::Revoked { .. }
    ));
    gets_in(&new, &more).await;
}

#[tokio::test]
async fn an_introducer_that_has_replaced_its_key_still_introduces() {
    let (owner, at) = owner().await;
    let keys = config();
    let alice = MeshNode::new(with_new_key(&with_new_key(&keys)));
    let (bob, thief) = (node(), node());
    owner.introducers("echo", Access::peers([keys.stack.identity.peer_id()]));
    // The owner has no session with her.
    let it = alice.introduce(&at, an_hour().for_peer(bob.id()).uses(None));
    let it: Introduction = it.unwrap().to_string().parse().unwrap();
    gets_in(&bob, &it).await;
    alice.revoke(&it).await.unwrap();
    assert_eq!(flaw(&bob, &it).await, Flaw::Revoked { by: alice.id() });
    // Nobody else, and it does not go the other way round.
    let stolen = thief.introduce(&at, an_hour().for_peer(bob.id())).unwrap();
    let issuer = thief.id();
    assert_eq!(flaw(&bob, &stolen).await, Flaw::NotPermitted { issuer });
    owner.introducers("echo", Access::peers([alice.id()]));
    let old = MeshNode::new(keys);
    let late = old.introduce(&at, an_hour().for_peer(bob.id())).unwrap();
    let issuer = old.id();
    assert_eq!(flaw(&bob, &late).await, Flaw::NotPermitted { issuer });
}

#[tokio::test]
async fn an_introduction_to_an_owner_that_has_replaced_its_key_is_good() {
    let keys = config();
    let old = keys.stack.identity.peer_id();
    let owner = MeshNode::new(with_new_key(&keys));
    owner.serve("echo", Access::Nobody, echo);
    let (endpoint, _) = listening(&owner).await;
    let (alice, bob) = (node(), node());
    owner.introducers("echo", Access::peers([alice.id()]));
    let at = address(&format!("cepa://{old}@{endpoint}/echo"));
    let it = alice.introduce(&at, an_hour().for_peer(bob.id())).unwrap();
    gets_in(&bob, &it).await;
    // The old key, which may be in other hands, issues nothing any more.
    let it = MeshNode::new(keys).introduce(&at, an_hour().for_peer(bob.id()));
    let issuer = old;
    assert_eq!(
        flaw(&bob, &it.unwrap()).await,
        Flaw::NotPermitted { issuer }
    );
}

/// An id that it had before is an owner's own: it needs no network to take back what names that, and is not dialled by it.
#[tokio::test]
async fn an_owner_that_has_replaced_its_key_knows_its_old_id_for_its_own() {
    let keys = config();
    let old = keys.stack.identity.peer_id();
    let owner = MeshNode::new(with_new_key(&keys));
    owner.serve("echo", Access::Nobody, echo);
    let (endpoint, _) = listening(&owner).await;
    let bob = node();
    let at = address(&format!("cepa://{old}@{endpoint}/echo"));
    let it = owner.introduce(&at, an_hour().for_peer(bob.id()).uses(None));
    let it = it.unwrap();
    gets_in(&bob, &it).await;
    owner.revoke(&it).await.unwrap();
    assert!(matches!(flaw(&bob, &it).await, Flaw::Revoked { .. }));
    for dialled in [owner.session(&at).await, owner.own_session(&at).await] {
        assert!(matches!(dialled, Err(DialError::Own { .. })), "{dialled:?}");
    }
}

/// A peer that this node has dialled did not come in; an introduction is its own proof, and opens what it is for.
#[tokio::test]
async fn a_peer_that_was_dialled_shows_an_introduction_and_gets_nothing_else() {
    let (owner, bob) = (node(), node());
    owner.serve("echo", Access::Nobody, echo);
    owner.serve("open", Access::Anyone, echo);
    let (_, at_bob) = listening(&bob).await;
    owner.session(&at_bob).await.unwrap();
    // Bob knows no way to it but that session.
    let own: PeerAddr = format!("cepa://{}/echo", owner.id()).parse().unwrap();
    let open = own.clone().with_service("open").unwrap();
    let it = owner
        .introduce(&own, an_hour().for_peer(bob.id()).uses(Some(2)))
        .unwrap();
    for _ in 0..2 {
        gets_in(&bob, &it).await;
        for plain in [&own, &open] {
            assert!(soon(bob.open(plain)).await.is_err());
        }
    }
    assert_eq!(flaw(&bob, &it).await, Flaw::UsedUp);
    assert_eq!(owner.sessions().len(), 1, "all of it in the one session");
    // Nor another service by it.
    let other = owner.introduce(&own, an_hour().for_peer(bob.id())).unwrap();
    let session = bob.session_with(owner.id()).unwrap();
    let mut stream = session.open("cepa.introduction").await.unwrap();
    let bytes = other.to_bytes();
    let mut message = vec![0xa3, 0, 1, 1, 0, 2, 0x59];
    message.extend(u16::try_from(bytes.len()).unwrap().to_be_bytes());
    message.extend(bytes);
    let length = u16::try_from(message.len()).unwrap();
    stream.write_u16(length).await.unwrap();
    stream.write_all(&message).await.unwrap();
    let mut verdict = [0; 7];
    soon(stream.read_exact(&mut verdict)).await.unwrap();
    assert_eq!(verdict, [0, 5, 0xa2, 0, 1, 1, 0], "admitted");
    // The header of a service: another one than the introduction is for.
    stream.write_all(b"\x01\x00\x04open").await.unwrap();
    let mut answer = [0; 2];
    soon(stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer, [1, 1], "refused");
}

/// With a state file the next process of an owner knows what the one before has let in at latest, to the nanosecond: what is
/// newer is good, though it was issued before that process began.
#[tokio::test]
async fn what_is_written_down_outlives_the_owner() {
    let (alice, bob) = (node(), node());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("introductions");
    let keys = config();
    let start = async || {
        let owner = Node::new(keys.clone());
        // The one before lets go of it with its last substream.
        let mut found = None;
        eventually(|| {
            found = Introductions::on_with_state(&owner, &file).ok();
            found.is_some()
        })
        .await;
        let introductions = found.unwrap();
        owner.serve("echo", Access::Nobody, echo).unwrap();
        introductions.introducers("echo", Access::peers([alice.id()]));
        let at = owner.listen(&"tcp:127.0.0.1:0".parse().unwrap()).await;
        let at = format!("cepa://{}@{}/echo", owner.id(), at.unwrap());
        (owner, introductions, address(&at))
    };
    let (owner, introductions, at) = start().await;
    let issue = |at| alice.introduce(at, an_hour().for_peer(bob.id())).unwrap();
    let [used, taken] = [issue(&at), issue(&at)];
    let before = std::fs::read_to_string(&file).unwrap();
    let own = introductions.introduce(&at, an_hour().for_peer(bob.id()));
    gets_in(&bob, &own.unwrap()).await;
    let after = std::fs::read_to_string(&file).unwrap();
    assert_eq!(
        before, after,
        "its own names its process, and needs no line"
    );
    gets_in(&bob, &used).await;
    assert_ne!(std::fs::read_to_string(&file).unwrap(), before);
    // By the owner itself, which asks nobody.
    introductions.revoke(&taken).await.unwrap();
    // The line may run ahead a second.
    eventually(|| is_later_than_line(&std::fs::read_to_string(&file).unwrap())).await;
    let newest = issue(&at);
    soon(owner.shutdown(Duration::ZERO)).await;
    drop(introductions);
    let (_owner, introductions, at) = start().await;
    bob.session(&at).await.unwrap();
    for it in [&used, &taken] {
        assert_eq!(flaw(&bob, it).await, Flaw::Forgotten);
    }
    gets_in(&bob, &newest).await;
    let fresh = introductions.introduce(&at, an_hour().for_peer(bob.id()));
    gets_in(&bob, &fresh.unwrap()).await;
    // Nobody else can use it; and a file that is none is no reason to go on without one.
    let other = Node::new(config());
    let error = Introductions::on_with_state(&other, &file).unwrap_err();
    let problem = match &error {
        IntroductionsError::StateFile(error) => error.problem(),
        _ => panic!("{error}"),
    };
    assert!(matches!(problem, StateFileProblem::InUse));
    let none = folder.path().join("none");
    std::fs::write(&none, "no").unwrap();
    let error = Introductions::on_with_state(&other, &none).unwrap_err();
    assert!(matches!(error, IntroductionsError::StateFile(_)), "{error}");
}

/// Whether what is issued from now on is later than what a state file says.
fn is_later_than_line(line: &str) -> bool {
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap();
    let (seconds, nanos) = line.trim().split_once('.').unwrap();
    let seconds = seconds.rsplit(' ').next().unwrap();
    now > Duration::new(seconds.parse().unwrap(), nanos.parse().unwrap())
}

/// Where an owner can't write down what it lets in, it lets nothing in that would have to be.
#[tokio::test]
async fn what_can_not_be_written_down_is_not_let_in() {
    let (alice, bob) = (node(), node());
    let folder = tempfile::tempdir().unwrap();
    let owner = Node::new(config());
    let file = folder.path().join("introductions");
    let introductions = Introductions::on_with_state(&owner, &file).unwrap();
    owner.serve("echo", Access::Nobody, echo).unwrap();
    introductions.introducers("echo", Access::peers([alice.id()]));
    let at = owner.listen(&"tcp:127.0.0.1:0".parse().unwrap()).await;
    let at = address(&format!("cepa://{}@{}/echo", owner.id(), at.unwrap()));
    folder.close().unwrap();
    let mut events = owner.events();
    let theirs = alice.introduce(&at, an_hour().for_peer(bob.id())).unwrap();
    let refused = flaw(&bob, &theirs).await;
    assert_eq!(
        refused,
        Flaw::NotRecorded(String::new()),
        "not where, nor why"
    );
    let seen = until(&mut events, |event| match event {
        Event::Refused { reason, .. } => Some(reason.to_string()),
        _ => None,
    });
    let seen = seen.await;
    assert!(seen.contains("can't be written"), "{seen}");
    let own = introductions.introduce(&at, an_hour().for_peer(bob.id()));
    gets_in(&bob, &own.unwrap()).await;
}

/// An issuer's clock may be a little ahead: the owner lets nothing in before its own has come to that.
#[tokio::test]
async fn what_was_issued_in_the_future_has_to_wait_for_it() {
    let (owner, at) = owner().await;
    let bob = node();
    let alice = Identity::generate(KeyKind::Ed25519).unwrap();
    owner.introducers("echo", Access::peers([alice.peer_id()]));
    let ahead = |seconds| {
        let terms = an_hour().for_peer(bob.id());
        Introduction::new(&alice, &at, terms, in_seconds(seconds)).unwrap()
    };
    let soon_good = in_seconds(2);
    gets_in(&bob, &ahead(2)).await;
    assert!(UnixTime::now() >= soon_good);
    assert_eq!(flaw(&bob, &ahead(30)).await, Flaw::NotYet);
}
