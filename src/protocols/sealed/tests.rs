//! Two ends and whoever is between them, without IO: what the one in between can do to the bytes.

use std::time::Duration;

use proptest::prelude::*;

use crate::identity::{Identity, KeyKind, PeerId, UnixTime};

use super::{
    Answered, Awaiting, MAX_BODY, MAX_SEALED, Mailbox, Opened, Replier, SealFlaw, SealingKey,
    seal_request,
};

const CANARY: &[u8] = b"the canary sings at dawn";
/// Long enough that it is in no random bytes by chance.
const SERVICE: &str = "a service of that name";
const LIFE: Duration = Duration::from_secs(60);
const HOUR: u64 = 3600;

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

fn identity() -> Identity {
    Identity::generate(KeyKind::Ed25519).unwrap()
}

/// A recipient, its key, and a request to it, all at one moment.
struct Scene {
    sender: Identity,
    mailbox: Mailbox,
    key: SealingKey,
    request: Vec<u8>,
    awaiting: Awaiting,
}

fn scene(now: u64) -> Scene {
    let sender = identity();
    let mailbox = Mailbox::new(identity());
    let key = mailbox.key(at(now)).unwrap();
    let (request, awaiting) = seal_request(&sender, &key, SERVICE, CANARY, LIFE, at(now)).unwrap();
    Scene {
        sender,
        mailbox,
        key,
        request,
        awaiting,
    }
}

fn open(mailbox: &Mailbox, bytes: &[u8], now: u64) -> Result<(Opened, Replier), SealFlaw> {
    mailbox.open(bytes, at(now), |_, _| true)
}

fn refused(mailbox: &Mailbox, bytes: &[u8], now: u64) -> SealFlaw {
    open(mailbox, bytes, now).map(drop).unwrap_err()
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn a_request_and_its_answer_arrive_and_neither_can_be_read_on_the_way() {
    let it = scene(1000);
    let (opened, replier) = open(&it.mailbox, &it.request, 1001).unwrap();
    assert_eq!(opened.sender(), it.sender.peer_id());
    assert_eq!((opened.service(), opened.body()), (SERVICE, CANARY));
    let answer = replier.answer(Ok(CANARY)).unwrap();
    assert_eq!(
        it.awaiting.open(&answer),
        Ok(Answered::Body(CANARY.to_vec()))
    );
    // Twice is no harm: it says the same.
    assert_eq!(
        it.awaiting.open(&answer),
        Ok(Answered::Body(CANARY.to_vec()))
    );
    for carried in [&it.request, &answer] {
        assert!(!holds(carried, CANARY));
        assert!(
            !holds(carried, SERVICE.as_bytes()),
            "nor for which service it is"
        );
        for id in [it.sender.peer_id(), it.key.owner()] {
            assert!(!holds(carried, id.as_bytes()), "nor whose it is");
        }
    }
    let refusal = replier.answer(Err("not\ntoday")).unwrap();
    let refusal = it.awaiting.open(&refusal);
    assert_eq!(refusal, Ok(Answered::Refused("not today".into())));
}

#[test]
fn no_bit_can_be_changed_and_no_byte_left_out() {
    let it = scene(1000);
    let changes = |bytes: &[u8], opens: &dyn Fn(&[u8]) -> bool| {
        for place in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.to_vec();
                changed[place] ^= 1 << bit;
                assert!(!opens(&changed), "{place}, {bit}");
            }
            assert!(!opens(&bytes[..place]));
        }
        assert!(!opens(&[bytes, &[0]].concat()));
    };
    changes(&it.request, &|bytes| open(&it.mailbox, bytes, 1001).is_ok());
    // None of these was taken for it.
    let (_, replier) = open(&it.mailbox, &it.request, 1001).unwrap();
    let answer = replier.answer(Ok(CANARY)).unwrap();
    changes(&answer, &|bytes| it.awaiting.open(bytes).is_ok());
    assert!(it.awaiting.open(&answer).is_ok());
    let owner = it.key.owner();
    changes(&it.key.to_bytes(), &|bytes| {
        SealingKey::from_bytes(bytes, owner, at(1001)).is_ok()
    });
}

#[test]
fn a_request_is_let_in_once() {
    let it = scene(1000);
    open(&it.mailbox, &it.request, 1001).unwrap();
    for now in [1001, 1060] {
        assert_eq!(refused(&it.mailbox, &it.request, now), SealFlaw::Replayed);
    }
    assert_eq!(refused(&it.mailbox, &it.request, 1061), SealFlaw::Expired);
    // Its successor, which does not know what was let in before, has another key: whatever its clock shows, and if it
    // begins in the same second.
    for now in [1000, 1001, 1, 999, 1059, 1000 + 3 * HOUR] {
        let successor = Mailbox::new(it.mailbox_identity());
        successor.key(at(now)).unwrap();
        assert_eq!(refused(&successor, &it.request, now), SealFlaw::UnknownKey);
        assert_eq!(refused(&successor, &it.request, 1001), SealFlaw::UnknownKey);
    }
}

/// In one process: a clock that jumps ahead, and is put right.
#[test]
fn a_clock_that_is_set_back_lets_nothing_in_again() {
    let it = scene(1000);
    open(&it.mailbox, &it.request, 1001).unwrap();
    for jump in [1061, 1000 + HOUR, 1001 + 2 * HOUR, 1000 + 24 * HOUR] {
        // A request of that time, for the key of that time, as if the clock were right.
        let key = it.mailbox.key(at(jump)).unwrap();
        let sealed = seal_request(&it.sender, &key, SERVICE, b"", LIFE, at(jump));
        open(&it.mailbox, &sealed.unwrap().0, jump).unwrap();
        it.mailbox.forget(at(jump));
        let again = refused(&it.mailbox, &it.request, 1002);
        assert!(
            matches!(again, SealFlaw::Replayed | SealFlaw::UnknownKey),
            "{jump}: {again}"
        );
        // And it goes on.
        let key = it.mailbox.key(at(1002)).unwrap();
        let sealed = seal_request(&it.sender, &key, SERVICE, b"", LIFE, at(1002));
        open(&it.mailbox, &sealed.unwrap().0, 1002).unwrap();
    }
}

impl Scene {
    /// The recipient's identity, as its next process has it.
    fn mailbox_identity(&self) -> Identity {
        self.mailbox.identity().clone()
    }
}

#[test]
fn time_is_the_recipients() {
    let it = scene(1000);
    assert_eq!(refused(&it.mailbox, &it.request, 1061), SealFlaw::Expired);
    let fast = identity();
    let (early, _) = seal_request(&fast, &it.key, "up", b"", LIFE, at(1100)).unwrap();
    assert_eq!(refused(&it.mailbox, &early, 1000), SealFlaw::NotYet);
    open(&it.mailbox, &early, 1040).unwrap();
    // However long it says that it is good, it does not outlive its key.
    let forever = Duration::from_secs(u64::MAX);
    let (long, _) = seal_request(&fast, &it.key, "up", b"", forever, at(1000)).unwrap();
    assert_eq!(it.key.expires(), at(1000 + 2 * HOUR));
    let late = refused(&it.mailbox, &long, 1001 + 2 * HOUR);
    assert_eq!(late, SealFlaw::UnknownKey);
    let late = seal_request(&fast, &it.key, "up", b"", LIFE, at(1001 + 2 * HOUR));
    let owner = it.key.owner();
    assert_eq!(late.map(drop), Err(SealFlaw::KeyExpired { owner }));
}

#[test]
fn keys_are_replaced_and_the_one_before_is_good_for_a_while() {
    let it = scene(1000);
    assert_eq!(it.mailbox.key(at(999 + HOUR)), Ok(it.key.clone()));
    let next = it.mailbox.key(at(1000 + HOUR)).unwrap();
    assert_ne!(next, it.key);
    let long = Duration::from_secs(2 * HOUR);
    let (request, _) = seal_request(&it.sender, &it.key, "up", b"", long, at(1000)).unwrap();
    open(&it.mailbox, &request, 1000 + 2 * HOUR).unwrap();
    // One that has expired is thrown away, and not only refused.
    assert_eq!(it.mailbox.keys(), 2);
    assert_eq!(
        it.mailbox.forget(at(1000 + 2 * HOUR)),
        Some(it.key.expires())
    );
    assert_eq!(it.mailbox.forget(at(1001 + 2 * HOUR)), Some(next.expires()));
    assert_eq!(it.mailbox.keys(), 1);
    assert_eq!(it.mailbox.forget(at(1001 + 3 * HOUR)), None);
    assert_eq!(it.mailbox.keys(), 0);
    // A clock that is set back and forth makes no more than a few.
    for n in 0..20 {
        it.mailbox.key(at(1000 - n)).unwrap();
    }
    assert!(it.mailbox.keys() <= 4);
}

#[test]
fn it_opens_for_its_recipient_alone() {
    let it = scene(1000);
    let other = Mailbox::new(identity());
    other.key(at(1000)).unwrap();
    assert_eq!(refused(&other, &it.request, 1000), SealFlaw::UnknownKey);
    // A key that somebody else has signed is no key of the recipient.
    let theirs = other.key(at(1000)).unwrap().to_bytes();
    let owner = it.key.owner();
    assert_eq!(
        SealingKey::from_bytes(&theirs, owner, at(1000)),
        Err(SealFlaw::OtherOwner {
            owner,
            found: other.key(at(1000)).unwrap().owner()
        })
    );
    // Who may not ask for a service is not let in, and is not remembered.
    let denied = it.mailbox.open(&it.request, at(1000), |sender, service| {
        assert_eq!((sender.id(), service), (it.sender.peer_id(), SERVICE));
        false
    });
    assert_eq!(denied.map(drop), Err(SealFlaw::NotServed));
    open(&it.mailbox, &it.request, 1000).unwrap();
}

#[test]
fn answers_can_not_be_swapped_or_made_up() {
    let it = scene(1000);
    let request = |body: &[u8]| {
        let sealed = seal_request(&it.sender, &it.key, "up", body, LIFE, at(1000));
        let (request, awaiting) = sealed.unwrap();
        let (_, replier) = open(&it.mailbox, &request, 1000).unwrap();
        (awaiting, replier.answer(Ok(body)).unwrap())
    };
    let (first, to_first) = request(b"one");
    let (second, to_second) = request(b"two");
    assert_eq!(first.open(&to_second), Err(SealFlaw::Unopened));
    assert_eq!(second.open(&to_first), Err(SealFlaw::Unopened));
    assert_eq!(first.open(&to_first), Ok(Answered::Body(b"one".to_vec())));
    // With the name of the other request on it.
    let mut renamed = to_second.clone();
    let name = 6..38;
    renamed[name.clone()].copy_from_slice(&to_first[name]);
    assert_eq!(first.open(&renamed), Err(SealFlaw::Unopened));
    assert!(first.open(&it.request).is_err());
}

#[test]
fn sizes_have_their_bounds() {
    let it = scene(1000);
    let whole = vec![7; MAX_BODY];
    let seal = |body: &[u8]| seal_request(&it.sender, &it.key, "up", body, LIFE, at(1000));
    let (request, awaiting) = seal(&whole).unwrap();
    assert!(request.len() <= MAX_SEALED);
    let (opened, replier) = open(&it.mailbox, &request, 1000).unwrap();
    assert_eq!(opened.body(), whole);
    let answer = replier.answer(Ok(&whole)).unwrap();
    assert_eq!(awaiting.open(&answer), Ok(Answered::Body(whole.clone())));
    let found = MAX_BODY + 1;
    let more = vec![7; found];
    assert_eq!(seal(&more).map(drop), Err(SealFlaw::TooLong { found }));
    assert_eq!(replier.answer(Ok(&more)), Err(SealFlaw::TooLong { found }));
    let found = MAX_SEALED + 1;
    let more = vec![7; found];
    let flaw = SealFlaw::TooLongSealed { found };
    assert_eq!(refused(&it.mailbox, &more, 1000), flaw);
    assert_eq!(awaiting.open(&more), Err(flaw));
    for service in ["", "a\nb", &"x".repeat(256), &"x".repeat(40_000)] {
        let sealed = seal_request(&it.sender, &it.key, service, b"", LIFE, at(1000));
        let flaw = sealed.map(drop).unwrap_err();
        assert!(matches!(flaw, SealFlaw::Service { .. }));
        assert!(flaw.to_string().len() < 400, "a peer's text is cut");
    }
}

/// The largest keys and signatures that identities have fit beside the largest body.
#[test]
fn keys_survive_their_text() {
    let it = scene(1000);
    let text = it.key.to_string();
    assert_eq!(format!(" {text}\n").parse().as_ref(), Ok(&it.key));
    assert!("cepa-sealing-key:!".parse::<SealingKey>().is_err());
    assert!(
        text.replace("sealing", "ceiling")
            .parse::<SealingKey>()
            .is_err()
    );
    let p256 = Mailbox::new(Identity::generate(KeyKind::P256).unwrap());
    let key = p256.key(at(0)).unwrap();
    assert_eq!(key.to_string().parse(), Ok(key));
}

proptest! {
    /// What comes from anybody, and what is nearly right.
    #[test]
    fn no_bytes_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..80),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        super::fuzz(&bytes);
        let it = scene(1000);
        for whole in [it.request.clone(), it.key.to_bytes()] {
            let mut changed = whole;
            for (place, byte) in &changes {
                *place.get_mut(&mut changed) = *byte;
            }
            super::fuzz(&changed);
            let _ = open(&it.mailbox, &changed, 1000);
            let _ = it.awaiting.open(&changed);
        }
    }
}

#[test]
fn every_flaw_is_one_line() {
    let peer = PeerId::from_bytes([5; 32]);
    for flaw in [
        SealFlaw::Malformed("x".into()),
        SealFlaw::KeyExpired { owner: peer },
        SealFlaw::Service {
            service: "a\nb".into(),
        },
        SealFlaw::Replayed,
    ] {
        assert!(!flaw.to_string().contains('\n'));
    }
}
