//! The engine against a store of a few lines: tables of cases, then random ones.

use std::collections::BTreeMap;

use super::super::entry::{About, Load};
use super::super::own::Write;
use super::*;

const A: PeerId = PeerId::from_bytes([1; 32]);
const B: PeerId = PeerId::from_bytes([2; 32]);
const C: PeerId = PeerId::from_bytes([3; 32]);
const STRANGER: PeerId = PeerId::from_bytes([4; 32]);
const PEER: PeerId = PeerId::from_bytes([9; 32]);
const NOW: u64 = 1_000_000;
const END: u64 = NOW + 3600;

/// Keys, with the revision of each, and what every watcher is told.
#[derive(Default)]
struct Store {
    revision: u64,
    keys: BTreeMap<String, (Vec<u8>, u64)>,
    log: Vec<(String, Option<Vec<u8>>, u64)>,
}

impl Store {
    fn write(&mut self, batch: &Batch) -> u64 {
        self.revision += 1;
        for write in &batch.writes {
            match &write.value {
                Some(value) => {
                    let value = (value.clone(), self.revision);
                    self.keys.insert(write.key.clone(), value);
                }
                None => drop(self.keys.remove(&write.key)),
            }
            self.log
                .push((write.key.clone(), write.value.clone(), self.revision));
        }
        self.revision
    }

    /// What was entered under a lease is gone.
    fn expire(&mut self, of: PeerId) {
        self.revision += 1;
        let of = of.to_string();
        let keys: Vec<_> = self.keys.keys().cloned().collect();
        for key in keys.into_iter().filter(|key| key.ends_with(&of)) {
            self.keys.remove(&key);
            self.log.push((key, None, self.revision));
        }
    }

    fn tell(&self, engine: &mut Engine, from: u64) {
        for (key, value, revision) in self.log.iter().filter(|(_, _, at)| *at > from) {
            engine.apply(Change {
                key,
                value: value.as_deref(),
                revision: *revision,
            });
        }
    }

    fn sync(&self, engine: &mut Engine) {
        engine.begin_sync();
        for (key, (value, revision)) in &self.keys {
            engine.apply(Change {
                key,
                value: Some(value),
                revision: *revision,
            });
        }
        engine.end_sync(self.revision);
    }
}

fn engine(id: PeerId) -> Engine {
    Engine::new(id, [A, B, C], 1000)
}

/// A moment when nobody rests any more.
fn later() -> Duration {
    use std::sync::atomic::{AtomicU64, Ordering};
    static SECONDS: AtomicU64 = AtomicU64::new(0);
    Duration::from_secs(SECONDS.fetch_add(10, Ordering::Relaxed))
}

/// Writes all that waits.
fn flush(engine: &mut Engine, store: &mut Store) {
    // Each time as if long after the one before.
    while let Some(batch) = engine.next_batch(4, later()) {
        let revision = store.write(&batch);
        engine.own.written(batch.number, revision);
    }
}

fn register(engine: &mut Engine, peer: PeerId) {
    engine.own.register(peer, END, None, 1);
}

/// How many registrations the peer has elsewhere.
fn held(engine: &Engine) -> u32 {
    let held = engine.view.held_elsewhere(PEER, NOW).into_iter();
    held.map(|(_, count)| count).sum()
}

fn found(engine: &Engine, peer: PeerId) -> Vec<PeerId> {
    let here = engine.own.fence(peer).is_some();
    let routes = engine.routes(peer, here, NOW).unwrap();
    let id = |route| match route {
        Route::Here => engine.id,
        Route::Member(id) => id,
    };
    routes.into_iter().map(id).collect()
}

#[test]
fn a_registration_is_seen_elsewhere_until_it_is_removed() {
    let (mut a, mut b, mut store) = (engine(A), engine(B), Store::default());
    register(&mut a, PEER);
    assert!(a.own.due(later()).is_some());
    flush(&mut a, &mut store);
    assert!(a.own.due(later()).is_none());
    store.tell(&mut b, 0);
    assert_eq!(found(&b, PEER), [A]);
    assert_eq!(found(&a, PEER), [A]);
    a.own.remove(PEER);
    flush(&mut a, &mut store);
    store.tell(&mut b, 1);
    assert_eq!(found(&b, PEER), []);
    assert!(store.keys.is_empty());
    a.own.due(later());
    assert_eq!(a.own.room(), 0, "nothing is kept of who is gone");
}

#[test]
fn the_newest_registration_is_first_and_the_older_ones_follow() {
    let (mut a, mut b, mut c) = (engine(A), engine(B), engine(C));
    let mut store = Store::default();
    for member in [&mut a, &mut b, &mut c] {
        register(member, PEER);
        flush(member, &mut store);
    }
    let mut other = Engine::new(STRANGER, [A, B, C], 10);
    for engine in [&mut a, &mut b, &mut c, &mut other] {
        store.tell(engine, 0);
        assert_eq!(found(engine, PEER), [C, B, A]);
    }
    // A renewal is no newer registration, and a registration is.
    a.own.renew(PEER, Some(END + 60), 1);
    flush(&mut a, &mut store);
    store.tell(&mut other, 3);
    assert_eq!(found(&other, PEER), [C, B, A]);
    register(&mut a, PEER);
    flush(&mut a, &mut store);
    store.tell(&mut other, 4);
    assert_eq!(found(&other, PEER), [A, C, B]);
}

/// A is cut off from the store, and keeps its nodes; one of them goes to B. Its old registration is entered again when A is back.
#[test]
fn a_registration_that_is_entered_again_is_not_the_newer_one() {
    let (mut a, mut b, mut c) = (engine(A), engine(B), engine(C));
    let mut store = Store::default();
    register(&mut a, PEER);
    flush(&mut a, &mut store);
    a.set_reachable(false);
    store.expire(A);
    register(&mut b, PEER);
    flush(&mut b, &mut store);
    // Meanwhile A leads to its own.
    assert_eq!(found(&a, PEER), [A]);
    a.set_reachable(true);
    a.own.lease_lost();
    flush(&mut a, &mut store);
    for engine in [&mut a, &mut b, &mut c] {
        store.sync(engine);
        assert_eq!(found(engine, PEER), [B, A]);
    }
}

#[test]
fn what_is_registered_while_the_store_is_away_loses_to_what_was_entered_meanwhile() {
    let (mut a, mut b, mut c) = (engine(A), engine(B), engine(C));
    let mut store = Store::default();
    let other = PeerId::from_bytes([8; 32]);
    register(&mut b, other);
    flush(&mut b, &mut store);
    store.sync(&mut a);
    // One waited for its number when the store went, and one comes behind.
    register(&mut a, PEER);
    let lost = a.next_batch(10, later()).unwrap();
    a.set_reachable(false);
    a.own.failed(lost.number);
    register(&mut a, other);
    assert_eq!(found(&a, other), [A, B], "newer than all that was known");
    for peer in [PEER, other] {
        b.own.remove(peer);
        flush(&mut b, &mut store);
        register(&mut b, peer);
        flush(&mut b, &mut store);
    }
    a.set_reachable(true);
    a.own.lease_lost();
    flush(&mut a, &mut store);
    for engine in [&mut a, &mut b, &mut c] {
        store.sync(engine);
        assert_eq!(found(engine, PEER), [B, A]);
        assert_eq!(found(engine, other), [B, A]);
    }
    // From then on the store says again.
    register(&mut a, PEER);
    flush(&mut a, &mut store);
    store.sync(&mut c);
    assert_eq!(found(&c, PEER), [A, B]);
}

#[test]
fn a_batch_that_failed_is_tried_again_first_and_the_changes_collapse() {
    let (mut a, mut store) = (engine(A), Store::default());
    let peers: Vec<_> = (10..20).map(|n| PeerId::from_bytes([n; 32])).collect();
    for peer in &peers {
        register(&mut a, *peer);
    }
    let first = a.next_batch(4, later()).unwrap();
    assert_eq!(first.writes.len(), 4);
    assert_eq!(a.next_batch(4, later()), None, "one at a time");
    a.own.failed(first.number);
    // Two of them come and go many times, and leave in the end.
    for _ in 0..1000 {
        for peer in &peers[..2] {
            a.own.remove(*peer);
            register(&mut a, *peer);
        }
    }
    for peer in &peers[..2] {
        a.own.remove(*peer);
    }
    assert!(a.own.room() < 200, "{}", a.own.room());
    let again = a.next_batch(4, later()).unwrap();
    let keys =
        |batch: &Batch| -> Vec<String> { batch.writes.iter().map(|it| it.key.clone()).collect() };
    assert_eq!(keys(&again), keys(&first));
    assert_eq!(
        again.writes.iter().filter(|it| it.value.is_none()).count(),
        2
    );
    // What is said of a batch that is not with the store says nothing.
    a.own.written(first.number, 7);
    assert_eq!(a.next_batch(4, later()), None);
    let revision = store.write(&again);
    a.own.written(again.number, revision);
    flush(&mut a, &mut store);
    assert_eq!(store.keys.len(), 8);
    assert_eq!(a.own.counts(), (8, 0));
}

/// A peer that registers and leaves as fast as it can.
#[test]
fn one_peer_is_written_once_a_second_and_holds_nobody_up() {
    let (mut a, mut store) = (engine(A), Store::default());
    let start = later();
    let (mut writes, mut others) = (0, 0);
    for millis in 0..10_000_u64 {
        let now = start + Duration::from_millis(millis);
        register(&mut a, PEER);
        if millis % 2 == 0 {
            a.own.remove(PEER);
        }
        if millis % 100 == 0 {
            let n = u8::try_from(millis / 100).unwrap();
            register(&mut a, PeerId::from_bytes([100 + n % 100; 32]));
        }
        while let Some(batch) = a.next_batch(10, now) {
            let of_peer = |write: &&Write| write.key.contains(&PEER.to_string());
            writes += batch.writes.iter().filter(of_peer).count();
            others += batch.writes.iter().filter(|it| !of_peer(it)).count();
            let revision = store.write(&batch);
            a.own.written(batch.number, revision);
        }
        assert!(a.own.room() < 500, "{}", a.own.room());
    }
    assert_eq!((writes, others), (10, 100));
    // It is told when the next one is due, and what counts in the end is how it is.
    a.own.remove(PEER);
    let now = start + Duration::from_millis(9_999);
    let due = a.own.due(now).unwrap();
    assert!(due > now && due < now + Duration::from_secs(1));
    // So that the next moment is one behind that.
    later();
    flush(&mut a, &mut store);
    assert!(!store.keys.contains_key(&format!("r/{PEER}/{A}")));
    assert_eq!(a.own.due(later()), None);
    for n in 100..200 {
        a.own.remove(PeerId::from_bytes([n; 32]));
    }
    flush(&mut a, &mut store);
    a.own.due(later());
    assert_eq!(a.own.room(), 0);
}

/// An hour without a store: peers that were never entered leave nothing behind.
#[test]
fn peers_that_come_and_go_while_the_store_is_away_leave_nothing_behind() {
    let mut a = engine(A);
    a.set_reachable(false);
    for n in 0_u32..20_000 {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&n.to_be_bytes());
        let peer = PeerId::from_bytes(id);
        register(&mut a, peer);
        if n % 50 == 0 {
            // The store is asked now and then, and does not answer.
            let batch = a.next_batch(128, later()).unwrap();
            a.own.failed(batch.number);
        }
        a.own.remove(peer);
    }
    assert!(a.own.room() < 1000, "{}", a.own.room());
}

#[test]
fn a_lost_lease_enters_everything_again_and_forgets_what_was_to_be_deleted() {
    let (mut a, mut store) = (engine(A), Store::default());
    let peers: Vec<_> = (10..20).map(|n| PeerId::from_bytes([n; 32])).collect();
    a.own.set_about(About::default());
    for peer in &peers {
        register(&mut a, *peer);
    }
    flush(&mut a, &mut store);
    assert_eq!(store.keys.len(), 11);
    a.own.remove(peers[0]);
    let flying = a.next_batch(10, later()).unwrap();
    store.expire(A);
    assert!(store.keys.is_empty());
    a.own.lease_lost();
    a.own.written(flying.number, 99);
    flush(&mut a, &mut store);
    assert_eq!(store.keys.len(), 10);
    assert!(!store.keys.contains_key(&format!("r/{}/{A}", peers[0])));
}

#[test]
fn what_somebody_else_deletes_is_entered_again() {
    let (mut a, mut store) = (engine(A), Store::default());
    a.own.set_about(About::default());
    register(&mut a, PEER);
    flush(&mut a, &mut store);
    store.expire(A);
    store.tell(&mut a, 0);
    flush(&mut a, &mut store);
    assert_eq!(store.keys.len(), 2);
    // The same word again, as of a watch that begins anew, says nothing new.
    store.tell(&mut a, 1);
    let about_only = a.next_batch(10, later()).unwrap();
    assert_eq!(about_only.writes.len(), 1, "{about_only:?}");
}

#[test]
fn a_resync_drops_what_it_has_not_seen() {
    let (mut a, mut b, mut store) = (engine(A), engine(B), Store::default());
    let gone = PeerId::from_bytes([8; 32]);
    b.own.set_about(About::default());
    for peer in [PEER, gone] {
        register(&mut b, peer);
    }
    flush(&mut b, &mut store);
    store.sync(&mut a);
    assert_eq!((found(&a, gone), a.view.counts()), (vec![B], (2, 2)));
    // Deleted while nobody watched.
    b.own.remove(gone);
    flush(&mut b, &mut store);
    store.sync(&mut a);
    assert_eq!((found(&a, gone), a.view.counts()), (vec![], (1, 1)));
    assert_eq!(found(&a, PEER), [B]);
    store.expire(B);
    store.sync(&mut a);
    assert_eq!((a.view.counts(), a.view.present().count()), ((0, 0), 0));
}

/// The store is lost in the middle, and the next one begins from the beginning.
#[test]
fn a_resync_that_is_broken_off_keeps_nothing_alive() {
    let (mut a, mut b, mut store) = (engine(A), engine(B), Store::default());
    let other = PeerId::from_bytes([8; 32]);
    for peer in [PEER, other] {
        register(&mut b, peer);
    }
    flush(&mut b, &mut store);
    store.sync(&mut a);
    a.begin_sync();
    let key = format!("r/{PEER}/{B}");
    let (value, revision) = store.keys[&key].clone();
    a.apply(Change {
        key: &key,
        value: Some(&value),
        revision,
    });
    // Both are known until one was whole.
    assert_eq!(a.view.counts(), (2, 2));
    store.expire(B);
    store.sync(&mut a);
    assert_eq!(a.view.counts(), (0, 0));
}

#[test]
fn a_change_that_comes_late_changes_nothing() {
    let (mut a, mut b, mut store) = (engine(A), engine(B), Store::default());
    register(&mut b, PEER);
    flush(&mut b, &mut store);
    b.own.renew(PEER, Some(END + 1), 3);
    flush(&mut b, &mut store);
    store.tell(&mut a, 0);
    // The watch begins anew with what was told already.
    let (key, value, revision) = store.log[0].clone();
    a.apply(Change {
        key: &key,
        value: value.as_deref(),
        revision,
    });
    assert_eq!(held(&a), 3);
    a.apply(Change {
        key: &key,
        value: None,
        revision,
    });
    assert_eq!(found(&a, PEER), [B]);
}

#[test]
fn an_entry_runs_out_by_itself() {
    let (mut a, mut b, mut store) = (engine(A), engine(B), Store::default());
    register(&mut b, PEER);
    flush(&mut b, &mut store);
    store.tell(&mut a, 0);
    let ways = |now| a.routes(PEER, false, now).unwrap().len();
    assert_eq!((ways(END), ways(END + 119), ways(END + 120)), (1, 1, 0));
}

#[test]
fn entries_of_strangers_and_garbage_are_ignored_and_counted() {
    let (mut a, mut stranger, mut store) = (engine(A), engine(STRANGER), Store::default());
    stranger.own.set_about(About::default());
    register(&mut stranger, PEER);
    flush(&mut stranger, &mut store);
    store.tell(&mut a, 0);
    assert_eq!(found(&a, PEER), []);
    assert_eq!((a.view.ignored.foreign, a.view.counts()), (2, (0, 0)));
    let key = format!("r/{PEER}/{B}");
    for (key, value) in [
        (key.as_str(), &b"nonsense"[..]),
        (&key, &[]),
        (&key, &[0xa2, 0, 2, 1, 1]),
        (&format!("m/{B}"), &[0xff; 5000]),
        ("what/is/this", &[]),
        ("", &[]),
    ] {
        let value = Some(value);
        a.apply(Change {
            key,
            value,
            revision: 9,
        });
    }
    assert_eq!((a.view.ignored.garbage, a.view.counts()), (6, (0, 0)));
}

/// Who writes in the store what this member has not written changes nothing here.
#[test]
fn what_others_write_in_a_members_name_does_not_move_its_own() {
    let (mut a, mut store) = (engine(A), Store::default());
    register(&mut a, PEER);
    flush(&mut a, &mut store);
    let forged = Change {
        key: &format!("r/{PEER}/{A}"),
        value: Some(&[0xa2, 0, 1, 1, 1]),
        revision: 50,
    };
    a.apply(forged);
    let other = PeerId::from_bytes([8; 32]);
    a.apply(Change {
        key: &format!("r/{other}/{A}"),
        ..forged
    });
    assert_eq!((found(&a, PEER), found(&a, other)), (vec![A], vec![]));
    // It is put right there.
    let batch = a.next_batch(10, later()).unwrap();
    let right: Vec<_> = batch.writes.iter().map(|it| it.value.is_some()).collect();
    assert_eq!(right, [true, false]);
}

#[test]
fn a_fence_is_no_later_than_its_writing() {
    let (mut a, mut b, mut store) = (engine(A), engine(B), Store::default());
    register(&mut b, PEER);
    flush(&mut b, &mut store);
    store.tell(&mut a, 0);
    let forged = super::super::entry::Registered {
        end: END,
        fence: u64::MAX,
        heir: None,
        count: 1,
    };
    a.apply(Change {
        key: &format!("r/{PEER}/{C}"),
        value: Some(&forged.encode()),
        revision: 2,
    });
    register(&mut b, PEER);
    store.revision = 2;
    flush(&mut b, &mut store);
    store.tell(&mut a, 2);
    assert_eq!(found(&a, PEER), [B, C]);
}

#[test]
fn there_is_an_end_to_what_is_remembered() {
    let (mut a, mut b, mut store) = (Engine::new(A, [B], 3), engine(B), Store::default());
    for n in 10..20 {
        register(&mut b, PeerId::from_bytes([n; 32]));
    }
    flush(&mut b, &mut store);
    store.tell(&mut a, 0);
    assert_eq!((a.view.counts(), a.view.ignored.surplus), ((3, 3), 7));
    store.expire(B);
    store.tell(&mut a, 0);
    assert_eq!(a.view.counts(), (0, 0));
}

#[test]
fn a_former_id_leads_to_its_one_successor() {
    let (mut a, mut b, mut c) = (engine(A), engine(B), engine(C));
    let mut store = Store::default();
    let (heir, thief) = (PeerId::from_bytes([7; 32]), PeerId::from_bytes([6; 32]));
    b.own.register(PEER, END, Some(heir), 1);
    flush(&mut b, &mut store);
    store.sync(&mut a);
    assert_eq!(found(&a, PEER), [B]);
    c.own.register(PEER, END, Some(thief), 1);
    flush(&mut c, &mut store);
    store.sync(&mut a);
    assert_eq!(
        a.routes(PEER, false, NOW),
        None,
        "one of the two is a thief"
    );
    // Here and elsewhere.
    store.sync(&mut b);
    assert_eq!(b.routes(PEER, true, NOW), None);
    // Who has the id itself is that peer, wherever the others are.
    register(&mut a, PEER);
    flush(&mut a, &mut store);
    assert_eq!(found(&a, PEER), [A]);
    for engine in [&mut b, &mut c] {
        store.sync(engine);
        assert_eq!(found(engine, PEER), [A]);
    }
    a.own.remove(PEER);
    flush(&mut a, &mut store);
    register(&mut c, PEER);
    flush(&mut c, &mut store);
    store.sync(&mut a);
    assert_eq!(found(&a, PEER), [C], "its own id comes first");
}

#[path = "engine_members.rs"]
mod members_say;
#[path = "engine_random.rs"]
mod random;
#[path = "engine_resync.rs"]
mod resync;
