//! The book under attack, and against a model without bounds.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;
use std::time::Duration;

use proptest::prelude::*;

use crate::identity::{Identity, KeyKind, PeerId, UnixTime};
use crate::node::PeerAddr;
use crate::protocols::fair::{Payer, Rank};

use super::book::{Book, Limits};
use super::clock::Reading;
use super::flaw::Flaw;
use super::link::{Bound, Epoch, Name};
use super::party::Party;
use super::statement::{Introduction, Terms};

const EPOCH: Epoch = [7; 16];
/// The wall clock where nothing else is said; books began at 100.
const NOW: u64 = 200;

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The clocks of a machine that began at 100, where nobody has set them.
fn reading(wall: u64) -> Reading {
    showing(wall, wall - 100)
}

fn showing(wall: u64, passed: u64) -> Reading {
    Reading {
        wall: seconds(wall),
        passed: seconds(passed),
    }
}

fn key() -> Identity {
    Identity::generate(KeyKind::Ed25519).unwrap()
}

fn id(number: u8) -> PeerId {
    PeerId::from_bytes([number; 32])
}

fn party(number: u8) -> Party {
    Party::new(id(number))
}

fn of(identity: &Identity) -> Party {
    Party::new(identity.peer_id())
}

/// A service of somebody's.
fn service(owner: PeerId) -> PeerAddr {
    format!("cepa://{owner}/up").parse().unwrap()
}

fn address() -> PeerAddr {
    service(id(99))
}

fn one(issuer: &Identity, terms: Terms) -> Introduction {
    Introduction::new(issuer, &address(), terms, at(150)).unwrap()
}

fn long() -> Terms {
    Terms::until(at(1000))
}

fn book() -> Book {
    Book::new(Some(EPOCH), None, reading(100))
}

fn limits() -> Limits {
    Limits {
        uses: (512, 32),
        below: (1024, 128),
        revoked: (512, 32),
    }
}

fn small() -> Book {
    Book::with_limits(Some(EPOCH), None, reading(100), limits())
}

/// The first issuer, as what it is let in.
fn payer(it: &Introduction, rank: Rank) -> Payer {
    let account = it.issuers()[0];
    Payer { rank, account }
}

fn admit(book: &mut Book, it: &Introduction, who: &Party) -> Result<(), Flaw> {
    book.admit(it, who, payer(it, Rank::Named), reading(NOW))
}

fn revoke(book: &mut Book, it: &Introduction, by: &Party) -> Result<(), Flaw> {
    book.revoke(it, by, payer(it, Rank::Named), reading(NOW))
}

#[test]
fn one_issuer_cannot_fill_the_book_and_what_expires_makes_room() {
    let [greedy, other] = [key(), key()];
    let mut book = small();
    for _ in 0..32 {
        let it = one(&greedy, Terms::until(at(300)));
        admit(&mut book, &it, &party(1)).unwrap();
    }
    let more = one(&greedy, long());
    assert_eq!(admit(&mut book, &more, &party(1)), Err(Flaw::Full));
    admit(&mut book, &one(&other, long()), &party(1)).unwrap();
    let later = book.admit(&more, &party(1), payer(&more, Rank::Named), reading(301));
    assert_eq!(later, Ok(()));
    assert_eq!(book.len(), 2);
}

#[test]
fn what_needs_no_memory_takes_none() {
    let key = key();
    let mut book = book();
    let it = one(&key, long().for_peer(id(1)).uses(None));
    for _ in 0..10 {
        admit(&mut book, &it, &party(1)).unwrap();
    }
    assert_eq!(book.len(), 0);
    let late = book.admit(&it, &party(1), payer(&it, Rank::Named), reading(1001));
    assert_eq!(late, Err(Flaw::Expired));
}

/// Who holds one use can't take its issuer's room, nor that of another holder, with what it passes on and revokes.
#[test]
fn who_has_one_use_can_not_fill_its_issuers_room() {
    let [root, holder, honest] = [key(), key(), key()];
    let mut book = small();
    let link =
        |to: &Identity, uses| one(&root, long().for_peer(to.peer_id()).uses(uses).further(1));
    let (theirs, good) = (link(&holder, Some(1)), link(&honest, None));
    let kept = holder_passes_on(&theirs, &holder);
    for number in 0..300 {
        let child = holder_passes_on(&theirs, &holder);
        assert_eq!(revoke(&mut book, &child, &of(&holder)), Ok(()), "{number}");
        assert_eq!(
            admit(&mut book, &child, &party(3)),
            Err(Flaw::Revoked {
                by: holder.peer_id()
            }),
            "{number}"
        );
    }
    // A quarter of what is below one issuer, and what is noted on the link itself; what it had passed on before that is
    // revoked with the rest.
    assert_eq!(book.len(), 33);
    assert!(admit(&mut book, &kept, &party(3)).is_err());
    // The issuer's introductions and revocations have their own room, and so has another holder.
    for number in 0..8 {
        let fresh = one(&root, long());
        assert_eq!(admit(&mut book, &fresh, &party(1)), Ok(()), "{number}");
        let fresh = one(&root, long());
        assert_eq!(revoke(&mut book, &fresh, &of(&root)), Ok(()), "{number}");
        let child = holder_passes_on(&good, &honest);
        assert_eq!(admit(&mut book, &child, &party(3)), Ok(()), "{number}");
        let child = holder_passes_on(&good, &honest);
        assert_eq!(revoke(&mut book, &child, &of(&honest)), Ok(()), "{number}");
    }
    // What was not revoked by anybody is as good as before; and what is used up takes its revoked children along, as soon as
    // there is need for room.
    assert_eq!(admit(&mut book, &theirs, &of(&holder)), Ok(()));
    let before = book.len();
    let later = || reading(NOW + 1);
    while book
        .admit(
            &one(&root, long()),
            &party(1),
            payer(&one(&root, long()), Rank::Named),
            later(),
        )
        .is_ok()
    {}
    let roots = 32 - 8;
    assert_eq!(book.len(), before - 32 + roots);
}

fn holder_passes_on(link: &Introduction, by: &Identity) -> Introduction {
    let terms = long().for_peer(id(3)).uses(Some(1));
    link.pass_on(by, terms, at(160)).unwrap()
}

/// However many of its other holders have filled what is below an issuer, a revocation by one of them has a place: it is
/// noted on what that one has itself.
#[test]
fn a_revocation_by_who_has_passed_on_is_never_refused() {
    let root = key();
    let mut book = small();
    let holders: Vec<_> = (0..12).map(|_| key()).collect();
    let links: Vec<_> = holders
        .iter()
        .map(|to| one(&root, long().for_peer(to.peer_id()).uses(None).further(1)))
        .collect();
    let mut full = 0;
    for _ in 0..16 {
        for (link, holder) in links.iter().zip(&holders) {
            let child = holder_passes_on(link, holder);
            full += usize::from(admit(&mut book, &child, &party(3)).is_err());
        }
    }
    assert!(full > 50, "{full}");
    for (link, holder) in links.iter().zip(&holders) {
        let terms = long().for_peer(id(3)).uses(None);
        let child = link.pass_on(holder, terms, at(165)).unwrap();
        assert_eq!(admit(&mut book, &child, &party(3)), Ok(()));
        assert_eq!(revoke(&mut book, &child, &of(holder)), Ok(()));
        let by = holder.peer_id();
        assert_eq!(
            admit(&mut book, &child, &party(3)),
            Err(Flaw::Revoked { by })
        );
        // What it passes on afterwards is another matter.
        let child = link.pass_on(holder, terms, at(166)).unwrap();
        assert_eq!(admit(&mut book, &child, &party(3)), Ok(()));
    }
}

#[test]
fn sixteen_issuers_leave_room_for_the_next_one_and_for_the_owner() {
    for rank in [Rank::Stranger, Rank::Named] {
        let mut book = small();
        let attackers: Vec<Identity> = (0..16).map(|_| key()).collect();
        // Uses and revocations, in turn, until none of them gets more.
        let mut full = [0; 16];
        for _ in 0..40 {
            for (attacker, full) in attackers.iter().zip(&mut full) {
                let used = one(attacker, long());
                let used = book.admit(&used, &party(1), payer(&used, rank), reading(NOW));
                let taken = one(attacker, long());
                let taken = book.revoke(&taken, &of(attacker), payer(&taken, rank), reading(NOW));
                *full += usize::from(used.is_err()) + usize::from(taken.is_err());
            }
        }
        assert!(
            full.iter().all(|full| *full > 20),
            "they are stopped: {full:?}"
        );
        let honest = key();
        for _ in 0..2 {
            let used = one(&honest, long());
            let used = book.admit(&used, &party(1), payer(&used, rank), reading(NOW));
            assert_eq!(used, Ok(()));
            let taken = one(&honest, long());
            let taken = book.revoke(&taken, &of(&honest), payer(&taken, rank), reading(NOW));
            assert_eq!(taken, Ok(()));
        }
        // The owner takes back whatever leads to it, and introduces by itself.
        for number in 0..48 {
            let theirs = one(&honest, long());
            let taken = book.revoke(
                &theirs,
                &party(99),
                payer(&theirs, Rank::Named),
                reading(NOW),
            );
            assert_eq!(taken, Ok(()), "{number}");
            let own = one(&honest, long());
            let used = book.admit(&own, &party(1), payer(&own, Rank::Owner), reading(NOW));
            assert_eq!(used, Ok(()), "{number}");
        }
    }
}

// ---- clocks and restarts -----------------------------------------------------------------------------

fn issued(at: u64) -> Introduction {
    Introduction::new(&key(), &address(), long(), self::at(at)).unwrap()
}

fn bound(issuer: &Identity, to: &PeerAddr, terms: Terms, epoch: Epoch) -> Introduction {
    let bound = Bound {
        epoch: Some(epoch),
        made_from: None,
    };
    Introduction::bound(issuer, to, terms, seconds(150), bound).unwrap()
}

fn get_in(book: &mut Book, it: &Introduction, reading: Reading) -> Result<(), Flaw> {
    book.admit(it, &party(1), payer(it, Rank::Named), reading)
}

#[test]
fn what_was_issued_before_the_process_began_is_refused_to_the_nanosecond() {
    let mut book = book();
    assert_eq!(
        get_in(&mut book, &issued(100), reading(110)),
        Err(Flaw::Forgotten)
    );
    let just = Introduction::bound(
        &key(),
        &address(),
        long(),
        Duration::new(100, 1),
        Bound::default(),
    );
    assert_eq!(get_in(&mut book, &just.unwrap(), reading(110)), Ok(()));
}

/// So that a process which begins afterwards knows that it was before, whatever its issuer's clock showed.
#[test]
fn nothing_is_let_in_before_the_owners_clock_has_come_to_it() {
    let mut book = book();
    let it = issued(120);
    assert_eq!(book.ahead(&it, reading(115)), seconds(5));
    assert_eq!(get_in(&mut book, &it, reading(119)), Err(Flaw::NotYet));
    let by = Party::new(it.issuers()[0]);
    let taken = book.revoke(&it, &by, payer(&it, Rank::Named), reading(119));
    assert_eq!(taken, Err(Flaw::NotYet));
    assert_eq!(book.ahead(&it, reading(120)), seconds(0));
    assert_eq!(get_in(&mut book, &it, reading(120)), Ok(()));
}

/// A board whose clock begins in the past: what its last process let in is in the future, until the clock is put right.
#[test]
fn a_clock_that_begins_in_the_past_brings_nothing_back() {
    let mut first = book();
    let used = issued(150);
    assert_eq!(get_in(&mut first, &used, reading(180)), Ok(()));
    // The next process begins at 200, and thinks that it is 3.
    let mut second = Book::new(Some([8; 16]), None, showing(3, 0));
    assert_eq!(
        get_in(&mut second, &used, showing(13, 10)),
        Err(Flaw::NotYet)
    );
    // At 220 the clock is put right.
    assert_eq!(
        get_in(&mut second, &used, showing(220, 20)),
        Err(Flaw::Forgotten)
    );
    assert_eq!(get_in(&mut second, &issued(210), showing(220, 20)), Ok(()));
    // And set back again.
    assert_eq!(
        get_in(&mut second, &used, showing(160, 21)),
        Err(Flaw::Forgotten)
    );
}

/// With a state file the clock has no part in it.
#[test]
fn what_was_written_down_holds_whatever_the_clock_shows() {
    let mut first = book();
    let used = issued(150);
    assert_eq!(first.dates_from(&used), Some(seconds(150)));
    assert_eq!(get_in(&mut first, &used, reading(180)), Ok(()));
    // It began at 140 by its clock, which is right behind the next one's time, and wrong.
    let begin = || Book::new(Some([8; 16]), Some(seconds(150)), showing(140, 0));
    for wall in [151, 160, 1000] {
        assert_eq!(
            get_in(&mut begin(), &used, showing(wall, 11)),
            Err(Flaw::Forgotten),
            "{wall}"
        );
    }
    // Without it this is what happens: the clock would have to be right.
    let mut without = Book::new(Some([8; 16]), None, showing(140, 0));
    assert_eq!(get_in(&mut without, &used, showing(151, 11)), Ok(()));
    // What is newer is good, though it was issued before this process began.
    assert_eq!(get_in(&mut begin(), &issued(151), showing(210, 0)), Ok(()));
}

/// What the owner issues itself names its process, and needs no clock.
#[test]
fn what_names_an_epoch_is_good_in_that_one_alone() {
    let owner = key();
    let to = service(owner.peer_id());
    let it = bound(&owner, &to, long(), EPOCH);
    let mut book = book();
    // Issued at 150 by a clock that was wrong.
    assert_eq!(book.dates_from(&it), None);
    assert_eq!(get_in(&mut book, &it, reading(101)), Ok(()));
    assert_eq!(get_in(&mut book, &it, reading(101)), Err(Flaw::UsedUp));
    for (epoch, mark, began) in [
        (Some([8; 16]), None, 3),
        (Some([8; 16]), Some(seconds(3)), 3),
        (None, None, 3),
    ] {
        let mut next = Book::new(epoch, mark, showing(began, 0));
        for wall in [140, 150, 151, 300] {
            let found = get_in(&mut next, &it, showing(wall, 1));
            assert_eq!(found, Err(Flaw::Forgotten), "{epoch:?} {wall}");
        }
    }
    // It goes for what is passed on from it as well.
    let holder = key();
    let terms = long().for_peer(holder.peer_id()).further(1);
    let it = bound(&owner, &to, terms, EPOCH);
    let it = it
        .pass_on(&holder, long().for_peer(id(1)), at(160))
        .unwrap();
    assert_eq!(get_in(&mut self::book(), &it, reading(170)), Ok(()));
    let mut next = Book::new(Some([8; 16]), None, showing(3, 0));
    assert_eq!(
        get_in(&mut next, &it, showing(170, 1)),
        Err(Flaw::Forgotten)
    );
}

/// What has expired and was forgotten for that does not come back when the clock is set back.
#[test]
fn a_clock_that_is_set_back_brings_nothing_back() {
    let issuer = key();
    // With a state file, so that the beginning of the process has no part in it.
    let mut book = Book::with_limits(Some(EPOCH), Some(seconds(100)), reading(100), limits());
    let used = one(&issuer, Terms::until(at(300)));
    get_in(&mut book, &used, reading(NOW)).unwrap();
    // The clock jumps ahead, and the room of the issuer is needed for others.
    for _ in 0..32 {
        let other = one(&issuer, long());
        get_in(&mut book, &other, showing(400, NOW - 100)).unwrap();
    }
    let back = get_in(&mut book, &used, showing(NOW + 1, NOW - 99));
    assert_eq!(back, Err(Flaw::Expired));
}

#[test]
fn who_has_another_key_now_is_still_who_it_was() {
    let issuer = key();
    let mut book = book();
    let (old, new) = (party(1), party(2).replacing(id(1)));
    let it = one(&issuer, long().for_peer(id(1)).uses(Some(2)));
    admit(&mut book, &it, &old).unwrap();
    admit(&mut book, &it, &new).unwrap();
    assert_eq!(admit(&mut book, &it, &new), Err(Flaw::UsedUp));
    // The new one's are not the old one's.
    let bearer = one(&issuer, long().uses(Some(3)));
    admit(&mut book, &bearer, &new).unwrap();
    assert_eq!(admit(&mut book, &bearer, &old), Err(Flaw::NotYours));
    admit(&mut book, &bearer, &new).unwrap();
    // Nor can an issuer use its own by another key.
    let own = party(3).replacing(issuer.peer_id());
    let bearer = one(&issuer, long());
    assert_eq!(admit(&mut book, &bearer, &own), Err(Flaw::NotYours));
    revoke(&mut book, &bearer, &own).unwrap();
    assert_eq!(
        admit(&mut book, &bearer, &old),
        Err(Flaw::Revoked { by: id(3) })
    );
}

// ---- what a membrane makes -------------------------------------------------------------------------------

/// What a membrane of an owner makes of another one, for somebody.
fn made(owner: &Identity, of: &Introduction, to: PeerId, further: u8) -> Introduction {
    let bound = Bound {
        epoch: Some(EPOCH),
        made_from: Some(of.ancestry().unwrap()),
    };
    let mut terms = of.terms().unwrap().further(further);
    terms.recipient = Some(to);
    let to = service(owner.peer_id());
    Introduction::bound(owner, &to, terms, seconds(170), bound).unwrap()
}

#[test]
fn a_use_counts_on_all_that_it_was_made_from() {
    let [owner, bob, carol] = [key(), key(), key()];
    let mut book = book();
    let original = one(
        &key(),
        long().for_peer(owner.peer_id()).uses(Some(3)).further(2),
    );
    // By two membranes of the node.
    book.keep(&original).unwrap();
    book.keep(&original).unwrap();
    let to_bob = made(&owner, &original, bob.peer_id(), 2);
    let to_carol = long().for_peer(carol.peer_id()).uses(Some(1)).further(1);
    let to_carol = to_bob.pass_on(&bob, to_carol, at(175)).unwrap();
    let copies: Vec<_> = (1..=3).map(|n| made(&owner, &to_carol, id(n), 0)).collect();
    let mut admit =
        |it: &Introduction, who: &Party| book.admit(it, who, payer(it, Rank::Owner), reading(NOW));
    assert_eq!(admit(&copies[0], &party(2)), Err(Flaw::NotYours));
    assert_eq!(admit(&copies[0], &party(1)), Ok(()));
    for (copy, n) in copies.iter().zip(1..) {
        assert_eq!(admit(copy, &party(n)), Err(Flaw::UsedUp));
    }
    assert_eq!(admit(&to_carol, &of(&carol)), Err(Flaw::UsedUp));
    assert_eq!(admit(&to_bob, &of(&bob)), Ok(()));
    assert_eq!(admit(&to_bob, &of(&bob)), Ok(()));
    assert_eq!(admit(&to_bob, &of(&bob)), Err(Flaw::UsedUp), "three in all");
    // Kept by none, it is forgotten; what was made from it is for services that are gone.
    book.release(original.name().unwrap());
    let mut admit =
        |it: &Introduction, who: &Party| book.admit(it, who, payer(it, Rank::Owner), reading(NOW));
    let used = admit(&to_bob, &of(&bob));
    assert_eq!(used, Err(Flaw::UsedUp), "another membrane keeps it");
    book.release(original.name().unwrap());
    assert_eq!(book.len(), 1, "what was passed on");
}

#[test]
fn what_is_revoked_takes_along_what_was_made_from_it() {
    let [owner, bob, carol] = [key(), key(), key()];
    let original = one(
        &key(),
        long().for_peer(owner.peer_id()).uses(None).further(3),
    );
    let to_bob = made(&owner, &original, bob.peer_id(), 3);
    let to_carol = long().for_peer(carol.peer_id()).uses(None).further(2);
    let to_carol = to_bob.pass_on(&bob, to_carol, at(175)).unwrap();
    let last = made(&owner, &to_carol, id(1), 1);
    let again = made(&owner, &last, id(2), 0);
    for (revoked, by) in [(&to_bob, &owner), (&to_carol, &bob), (&last, &owner)] {
        let mut book = book();
        let admit = |book: &mut Book| {
            book.admit(&again, &party(2), payer(&again, Rank::Owner), reading(NOW))
        };
        assert_eq!(admit(&mut book), Ok(()));
        book.revoke(revoked, &of(by), payer(revoked, Rank::Owner), reading(NOW))
            .unwrap();
        let by = by.peer_id();
        assert_eq!(admit(&mut book), Err(Flaw::Revoked { by }));
        let rank = book.is_standing(&again, reading(NOW));
        assert_eq!(rank, Err(Flaw::Revoked { by }));
    }
    // And where so many were revoked that the link of who did it says so.
    let mut book = small();
    let admit =
        |book: &mut Book| book.admit(&again, &party(2), payer(&again, Rank::Owner), reading(NOW));
    for _ in 0..100 {
        let other = to_bob
            .pass_on(&bob, long().for_peer(id(5)), at(175))
            .unwrap();
        book.revoke(&other, &of(&bob), payer(&other, Rank::Owner), reading(NOW))
            .unwrap();
    }
    let by = bob.peer_id();
    assert_eq!(admit(&mut book), Err(Flaw::Revoked { by }));
    let bobs = book.admit(
        &to_bob,
        &of(&bob),
        payer(&to_bob, Rank::Owner),
        reading(NOW),
    );
    assert_eq!(bobs, Ok(()), "what it has itself is as before");
    let own = made(&owner, &to_bob, id(6), 0);
    let made = book.admit(&own, &party(6), payer(&own, Rank::Owner), reading(NOW));
    assert_eq!(
        made,
        Ok(()),
        "it has not passed that on: it has given it through the membrane"
    );
}

/// One that was made from another one, by a membrane or by who has passed it on.
struct Made {
    it: Introduction,
    to: Identity,
    /// What it was made from, itself included, and how many uses are counted on each.
    bound_by: Vec<usize>,
    uses: Option<u32>,
    /// Who may take it back.
    by: PeerId,
}

/// A reference, and what was made from it; at each step by the membrane, or passed on.
fn made_from(
    original_uses: Option<u32>,
    steps: &[(prop::sample::Index, bool, Option<u32>)],
) -> Vec<Made> {
    static KEYS: LazyLock<Vec<Identity>> = LazyLock::new(|| (0..14).map(|_| key()).collect());
    let mut keys = KEYS.iter().cloned();
    let [third, owner] = [(); 2].map(|()| keys.next().unwrap());
    let terms = long()
        .for_peer(owner.peer_id())
        .uses(original_uses)
        .further(200);
    let mut all = vec![Made {
        it: one(&third, terms),
        to: owner.clone(),
        bound_by: vec![0],
        uses: original_uses,
        by: third.peer_id(),
    }];
    for ((from, membrane, uses), to) in steps.iter().zip(keys) {
        let from = &all[from.index(all.len())];
        let terms = long().for_peer(to.peer_id()).uses(*uses).further(200);
        let passed = from.it.pass_on(&from.to, terms, at(175));
        // The original is the membrane's own, which gives it away in its own way alone.
        let passed = passed.ok().filter(|_| !membrane && from.bound_by.len() > 1);
        let (it, uses, by) = match passed {
            Some(it) => {
                let uses = it.terms().unwrap().uses;
                (it, uses, from.to.peer_id())
            }
            None => (
                made(&owner, &from.it, to.peer_id(), 200),
                None,
                owner.peer_id(),
            ),
        };
        let mut bound_by = from.bound_by.clone();
        bound_by.push(all.len());
        all.push(Made {
            it,
            to,
            bound_by,
            uses,
            by,
        });
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever way it went: what was made from a reference has no use more than that, and dies with it.
    #[test]
    fn what_was_made_is_never_more_than_what_it_was_made_from(
        original in prop::option::of(1..6_u32),
        steps in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>(), prop::option::of(1..4_u32)), 1..12),
        acts in prop::collection::vec((any::<prop::sample::Index>(), 0..10_u8), 0..60),
    ) {
        let all = made_from(original, &steps);
        let mut book = book();
        book.keep(&all[0].it).unwrap();
        let mut used = vec![0; all.len()];
        let mut revoked = vec![false; all.len()];
        for (which, act) in acts {
            // The original itself is used elsewhere.
            let at = 1 + which.index(all.len() - 1);
            let it = &all[at];
            if act == 0 {
                let by = Party::new(it.by);
                let taken = book.revoke(&it.it, &by, payer(&it.it, Rank::Owner), reading(NOW));
                prop_assert_eq!(taken, Ok(()));
                revoked[at] = true;
                continue;
            }
            let may = it.bound_by.iter().all(|at| {
                !revoked[*at] && all[*at].uses.is_none_or(|most| used[*at] < most)
            });
            let found = book.admit(&it.it, &of(&it.to), payer(&it.it, Rank::Owner), reading(NOW));
            prop_assert_eq!(found.is_ok(), may, "{:?}", found);
            if may {
                it.bound_by.iter().for_each(|at| used[*at] += 1);
            }
        }
    }
}

// ---- the model ----------------------------------------------------------------------------------------

/// What somebody holds, who has issued it, and in whose name it counts.
struct Held {
    it: Introduction,
    by: PeerId,
    issuers: Vec<PeerId>,
    rank: Rank,
    honest: bool,
    /// Those that do the same at once.
    gang: usize,
}

struct World {
    all: Vec<Held>,
    gangs: usize,
}

/// Two honest issuers, one named and one not, with an honest holder each who passes on; and around them issuers and holders
/// that are not. Made once, since all of it is signed.
static WORLD: LazyLock<World> = LazyLock::new(|| {
    let mut all = Vec::new();
    let mut gang = 0;
    let mut enter = |it: Introduction, by, rank, honest, gang| {
        let issuers = it.issuers();
        all.push(Held {
            it,
            by,
            issuers,
            rank,
            honest,
            gang,
        });
    };
    for rank in [Rank::Named, Rank::Stranger] {
        let root = key();
        for n in 0..3 {
            let uses = [Some(1), Some(2), None][n];
            enter(one(&root, long().uses(uses)), id(1), rank, true, 0);
        }
        let good = key();
        let link = one(&root, long().for_peer(good.peer_id()).uses(None).further(2));
        enter(link.clone(), good.peer_id(), rank, true, 0);
        for n in 0..4 {
            let terms = long().for_peer(id(3)).uses([Some(1), None][n % 2]);
            let child = link.pass_on(&good, terms, at(160 + n as u64)).unwrap();
            enter(child, id(3), rank, true, 0);
        }
        // Holders of the same issuer that do what they can: with one use, and with any number.
        for n in 0..6 {
            let bad = key();
            gang += 1;
            let uses = [None, Some(1)][n % 2];
            let link = one(&root, long().for_peer(bad.peer_id()).uses(uses).further(2));
            enter(link.clone(), bad.peer_id(), rank, false, gang);
            let below = key();
            let to_below = long().for_peer(below.peer_id()).uses(None).further(1);
            let to_below = link.pass_on(&bad, to_below, at(165)).unwrap();
            for m in 0..30 {
                let terms = long().for_peer(id(4)).uses([Some(1), None, Some(2)][m % 3]);
                // The later ones come first: so a note on the link says less than what is remembered by itself.
                let when = at(199 - m as u64);
                let child = link.pass_on(&bad, terms, when).unwrap();
                enter(child, id(4), rank, false, gang);
                let child = to_below.pass_on(&below, terms, when).unwrap();
                enter(child, id(4), rank, false, gang);
            }
        }
        for _ in 0..6 {
            let bad = key();
            gang += 1;
            for _ in 0..80 {
                enter(one(&bad, long()), id(5), rank, false, gang);
            }
        }
    }
    World {
        all,
        gangs: gang + 1,
    }
});

/// The same without bounds.
#[derive(Default)]
struct Model {
    used: HashMap<Name, u32>,
    first: HashMap<Name, PeerId>,
    revoked: HashSet<Name>,
}

impl Model {
    fn may(&self, held: &Held, who: PeerId) -> bool {
        held.it.links().iter().all(|link| {
            let name = link.name();
            let used = self.used.get(&name).copied().unwrap_or(0);
            link.uses().is_none_or(|most| used < most)
                && self.first.get(&name).is_none_or(|first| *first == who)
                && !self.revoked.contains(&name)
        })
    }

    fn count(&mut self, held: &Held, who: PeerId) {
        for link in held.it.links() {
            *self.used.entry(link.name()).or_default() += 1;
            if link.recipient().is_none() {
                self.first.entry(link.name()).or_insert(who);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Act {
    Use(usize),
    /// By the issuer of the link of that number.
    Revoke(usize, usize),
    OwnerRevokes(usize),
    /// All of a gang's, used and then taken back, or the other way round.
    Attack(usize, bool),
    Wait(u64),
}

fn act() -> impl Strategy<Value = Act> {
    let honest: Vec<usize> = (0..WORLD.all.len())
        .filter(|at| WORLD.all[*at].honest)
        .collect();
    let which = prop_oneof![
        2 => prop::sample::select(honest),
        1 => 0..WORLD.all.len(),
    ];
    prop_oneof![
        6 => which.clone().prop_map(Act::Use),
        4 => (which.clone(), 0..3_usize).prop_map(|(it, link)| Act::Revoke(it, link)),
        1 => which.prop_map(Act::OwnerRevokes),
        4 => (1..WORLD.gangs, any::<bool>()).prop_map(|(gang, uses)| Act::Attack(gang, uses)),
        1 => (0..3_u64).prop_map(Act::Wait),
    ]
}

const MODEL_BELOW: (usize, usize) = (4096, 512);

/// The two side by side.
struct Run {
    book: Book,
    model: Model,
    now: u64,
    /// How often somebody was refused for want of room.
    full: usize,
}

impl Run {
    fn uses(&mut self, held: &Held) -> Result<(), TestCaseError> {
        let may = self.model.may(held, held.by);
        let who = Party::new(held.by);
        let found = self.book.admit(
            &held.it,
            &who,
            payer(&held.it, held.rank),
            reading(self.now),
        );
        self.full += usize::from(found == Err(Flaw::Full));
        if found.is_ok() {
            prop_assert!(may, "what was used up or revoked was let in");
            self.model.count(held, held.by);
        } else if may {
            prop_assert!(!held.honest, "{found:?}");
        }
        Ok(())
    }

    fn revokes(&mut self, held: &Held, link: usize, by: PeerId) -> Result<(), TestCaseError> {
        let by = Party::new(by);
        let found = self
            .book
            .revoke(&held.it, &by, payer(&held.it, held.rank), reading(self.now));
        self.full += usize::from(found == Err(Flaw::Full));
        match found {
            Ok(()) => {
                self.model.revoked.insert(held.it.links()[link].name());
            }
            Err(Flaw::Full) => {
                let (rank, links) = (held.rank, held.issuers.len());
                prop_assert!(!held.honest, "{rank:?}, {link} of {links}");
            }
            Err(_) => prop_assert!(false, "{found:?}"),
        }
        Ok(())
    }

    fn act(&mut self, act: &Act) -> Result<(), TestCaseError> {
        let all = &WORLD.all;
        match *act {
            Act::Use(it) => self.uses(&all[it])?,
            Act::Revoke(it, link) => {
                let held = &all[it];
                // The honest holder's own link is left alone, so that what it passes on is looked at.
                let is_link = held.honest && link == 0 && held.issuers.len() > 1;
                let is_link = is_link || held.honest && held.it.further() > 0;
                if let Some(by) = held.issuers.get(link).filter(|_| !is_link) {
                    self.revokes(held, link, *by)?;
                }
            }
            Act::OwnerRevokes(it) => {
                let held = &all[it];
                let is_link = held.honest && (held.it.further() > 0 || held.issuers.len() > 1);
                if !is_link {
                    let was = self.full;
                    self.revokes(held, 0, id(99))?;
                    prop_assert_eq!(was, self.full, "the owner's word has room");
                }
            }
            Act::Attack(gang, uses) => {
                for held in all.iter().filter(|held| held.gang == gang) {
                    let last = held.issuers.len() - 1;
                    if uses {
                        self.uses(held)?;
                    }
                    // What they hold themselves is not theirs to take back.
                    if held.it.further() > 0 {
                        continue;
                    }
                    self.revokes(held, last, held.issuers[last])?;
                    if !uses {
                        self.uses(held)?;
                    }
                }
            }
            Act::Wait(seconds) => self.now += seconds,
        }
        prop_assert!(self.book.len() <= 512 + MODEL_BELOW.0 + 512);
        Ok(())
    }
}

impl Run {
    fn new() -> Self {
        // So small that they can fill it, and so large that the honest need less than is left for whoever comes next.
        let limits = Limits {
            below: MODEL_BELOW,
            ..limits()
        };
        Self {
            book: Book::with_limits(Some(EPOCH), None, reading(100), limits),
            model: Model::default(),
            now: NOW,
            full: 0,
        }
    }
}

/// All of the attackers, one after the other and again, and then the honest.
#[test]
fn the_worst_that_they_can_do_is_not_enough() {
    let mut run = Run::new();
    for uses in [true, false] {
        for gang in 1..WORLD.gangs {
            run.act(&Act::Attack(gang, uses)).unwrap();
        }
    }
    assert!(run.full > 500, "they are stopped: {}", run.full);
    for it in (0..WORLD.all.len()).filter(|it| WORLD.all[*it].honest) {
        run.act(&Act::Use(it)).unwrap();
        run.act(&Act::Revoke(it, WORLD.all[it].issuers.len() - 1))
            .unwrap();
        run.act(&Act::Use(it)).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Nothing that was revoked or used up is ever let in, who is honest is never refused for what others do, and
    /// there is an end to it, while the others do their worst and the honest what they like.
    #[test]
    fn it_is_as_strict_as_one_without_bounds(acts in prop::collection::vec(act(), 0..200)) {
        let mut run = Run::new();
        for act in &acts {
            run.act(act)?;
        }
    }
}
