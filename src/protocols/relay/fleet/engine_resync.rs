//! What a re-sync mends: a store that has lost its memory, entries that are gone or that nobody wants.

use super::*;

/// As an etcd whose data was lost: its revisions begin anew.
fn forget(store: &mut Store) {
    *store = Store::default();
}

#[test]
fn after_the_store_has_lost_its_memory_what_it_says_counts_whatever_its_revisions() {
    let (mut a, mut b, mut c) = (engine(A), engine(B), engine(C));
    let mut store = Store::default();
    b.own.set_about(About::default());
    for n in 10..30 {
        register(&mut b, PeerId::from_bytes([n; 32]));
        flush(&mut b, &mut store);
    }
    register(&mut a, PEER);
    flush(&mut a, &mut store);
    register(&mut b, PEER);
    flush(&mut b, &mut store);
    for engine in [&mut a, &mut b, &mut c] {
        store.sync(engine);
        assert_eq!(found(engine, PEER), [B, A]);
    }
    assert!(a.view.revision > 20);

    forget(&mut store);
    let newer = About {
        version: "newer".to_owned(),
        ..About::default()
    };
    b.own.set_about(newer);
    b.own.renew(PEER, Some(END + 7), 3);
    for engine in [&mut a, &mut b] {
        store.sync(engine);
        flush(engine, &mut store);
    }
    for engine in [&mut a, &mut b, &mut c] {
        store.sync(engine);
        assert_eq!(engine.view.revision, store.revision);
    }
    assert!(
        a.view
            .about(B)
            .is_some_and(|about| about.version == "newer")
    );
    assert_eq!(held(&a), 3);
    // All name them in one order, by the new numbers.
    let order = found(&c, PEER);
    assert_eq!((found(&a, PEER), found(&b, PEER)), (order.clone(), order));
    // And so it goes on: what is deleted is gone, what comes is known, and a newer one is the newer one.
    let at = store.revision;
    b.own.remove(PeerId::from_bytes([10; 32]));
    register(&mut a, PEER);
    flush(&mut a, &mut store);
    flush(&mut b, &mut store);
    for engine in [&mut a, &mut b, &mut c] {
        store.tell(engine, at);
        assert_eq!(found(engine, PEER), [A, B]);
        assert_eq!(found(engine, PeerId::from_bytes([10; 32])), []);
    }
    // Somebody deletes there what is A's, at a revision that is small.
    let at = store.revision;
    store.expire(A);
    store.tell(&mut a, at);
    flush(&mut a, &mut store);
    assert!(store.keys.contains_key(&format!("r/{PEER}/{A}")));
}

/// The first re-sync of the store without a memory is broken off in the middle, too.
#[test]
fn a_resync_after_one_that_was_broken_off_counts_as_well() {
    let (mut a, mut b, mut store) = (engine(A), engine(B), Store::default());
    for end in [END, END + 1, END + 2] {
        b.own.register(PEER, end, None, 1);
        flush(&mut b, &mut store);
    }
    store.sync(&mut a);
    forget(&mut store);
    b.own.lease_lost();
    b.own.renew(PEER, None, 5);
    flush(&mut b, &mut store);
    let known = a.view.revision;
    a.begin_sync();
    assert_eq!(a.view.revision, known, "of a part nobody can go on");
    store.sync(&mut a);
    assert_eq!((held(&a), a.view.revision), (5, 1));
}

#[test]
fn what_is_registered_before_all_is_read_loses_its_number_of_a_former_memory() {
    let (mut a, mut b, mut store) = (engine(A), engine(B), Store::default());
    store.revision = 1000;
    register(&mut b, PEER);
    flush(&mut b, &mut store);
    store.sync(&mut a);
    a.set_reachable(false);
    forget(&mut store);
    register(&mut a, PEER);
    b.own.lease_lost();
    flush(&mut b, &mut store);
    store.sync(&mut a);
    let other = PeerId::from_bytes([8; 32]);
    register(&mut a, other);
    a.set_reachable(true);
    flush(&mut a, &mut store);
    for peer in [PEER, other] {
        assert!(
            a.own
                .fence(peer)
                .is_some_and(|fence| fence <= store.revision)
        );
    }
}

#[test]
fn what_a_resync_does_not_find_of_ones_own_is_entered_again() {
    let (mut a, mut store) = (engine(A), Store::default());
    let other = PeerId::from_bytes([8; 32]);
    a.own.set_about(About::default());
    for peer in [PEER, other] {
        register(&mut a, peer);
    }
    flush(&mut a, &mut store);
    let whole = store.keys.clone();
    store.sync(&mut a);
    assert!(a.own.due(later()).is_none(), "all is there");
    // Somebody deletes them, and no watch ever tells of it.
    for key in [format!("r/{PEER}/{A}"), format!("m/{A}")] {
        store.keys.remove(&key);
    }
    store.sync(&mut a);
    assert_eq!(a.own.counts(), (2, 1));
    flush(&mut a, &mut store);
    assert!(store.keys.keys().eq(whole.keys()), "{:?}", store.keys);
    // It is no newer registration for that.
    store.sync(&mut a);
    assert!(a.own.due(later()).is_none());
    assert_eq!(a.own.fence(PEER), Some(1));
}

#[test]
fn what_a_resync_finds_changed_is_written_as_it_should_be() {
    let (mut a, mut b, mut store) = (engine(A), engine(B), Store::default());
    a.own.set_about(About::default());
    register(&mut a, PEER);
    flush(&mut a, &mut store);
    for (value, revision) in store.keys.values_mut() {
        (*value, *revision) = (vec![0xa0], 5);
    }
    store.revision = 5;
    store.sync(&mut b);
    assert_eq!((found(&b, PEER), b.view.present().count()), (vec![], 0));
    store.sync(&mut a);
    flush(&mut a, &mut store);
    store.sync(&mut b);
    assert_eq!((found(&b, PEER), b.view.present().count()), (vec![A], 1));
}

#[test]
fn what_a_resync_finds_in_ones_own_name_and_nobody_wants_is_deleted() {
    let (mut a, mut store) = (engine(A), Store::default());
    let (gone, stray) = (PeerId::from_bytes([8; 32]), PeerId::from_bytes([7; 32]));
    for peer in [PEER, gone] {
        register(&mut a, peer);
    }
    flush(&mut a, &mut store);
    a.own.remove(gone);
    let value = store.keys[&format!("r/{gone}/{A}")].clone();
    flush(&mut a, &mut store);
    // A store that was put back to what it was an hour ago, and a former process of this relay.
    for peer in [gone, stray] {
        store.keys.insert(format!("r/{peer}/{A}"), value.clone());
    }
    store.sync(&mut a);
    assert_eq!((found(&a, gone), found(&a, stray)), (vec![], vec![]));
    flush(&mut a, &mut store);
    assert_eq!(
        store.keys.keys().collect::<Vec<_>>(),
        [&format!("r/{PEER}/{A}")]
    );
    a.own.remove(PEER);
    flush(&mut a, &mut store);
    a.own.due(later());
    assert_eq!(a.own.room(), 0);
}

/// Whoever writes the store can't have a member hold as much as it likes.
#[test]
fn there_is_an_end_to_the_strays_that_are_held() {
    let mut a = engine(A);
    let value = super::super::super::entry::Registered {
        end: END,
        fence: 0,
        heir: None,
        count: 1,
    };
    let value = value.encode();
    for _ in 0..2 {
        a.begin_sync();
        for n in 0..70_000_u32 {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&n.to_be_bytes());
            a.apply(Change {
                key: &format!("r/{}/{A}", PeerId::from_bytes(id)),
                value: Some(&value),
                revision: 3,
            });
        }
        a.end_sync(3);
        assert_eq!(a.own.counts(), (0, 1 << 16));
    }
}
