//! What members say of themselves, and what follows from it.

use super::*;

#[test]
fn what_is_registered_at_a_member_that_leaves_takes_no_room_elsewhere() {
    let (mut a, mut b, mut c, mut store) = (engine(A), engine(B), engine(C), Store::default());
    for (member, count) in [(&mut b, 4), (&mut c, 1)] {
        member.own.register(PEER, END, None, count);
        flush(member, &mut store);
    }
    store.sync(&mut a);
    assert_eq!(held(&a), 5);
    for (leaving, left) in [(true, 1), (false, 5)] {
        let about = About::default();
        b.own.set_about(About { leaving, ..about });
        flush(&mut b, &mut store);
        store.sync(&mut a);
        assert_eq!(held(&a), left);
    }
    assert_eq!(
        found(&a, PEER),
        [C, B],
        "it is led there as long as it is there"
    );
}

#[test]
fn the_emptiest_members_are_named_first() {
    let mut a = engine(A);
    let about = |registrations, leaving, there: bool| About {
        addresses: there
            .then(|| "tcp:h:1".parse().unwrap())
            .into_iter()
            .collect(),
        load: Load {
            registrations,
            most_registrations: 100,
            ..Load::default()
        },
        leaving,
        ..About::default()
    };
    let put = |a: &mut Engine, id: PeerId, about: &About| {
        let value = about.encode();
        a.apply(Change {
            key: &format!("m/{id}"),
            value: Some(&value),
            revision: 1,
        });
        let others = a.others(Order::Emptiest, 5);
        others.iter().map(|(id, _)| *id).collect::<Vec<_>>()
    };
    put(&mut a, B, &about(50, false, true));
    assert_eq!(put(&mut a, C, &about(20, false, true)), [C, B]);
    assert_eq!(put(&mut a, C, &about(60, false, true)), [B, C]);
    assert_eq!(put(&mut a, C, &about(100, false, true)), [B], "no room");
    // Each peer has its own order, full or not.
    let of = |peer| {
        let others = a.others(Order::Of(peer), 5);
        others.iter().map(|(id, _)| *id).collect::<Vec<_>>()
    };
    assert_eq!((of(B), of(C)), (vec![B, C], vec![C, B]));
    put(&mut a, C, &about(60, false, true));
    assert_eq!(put(&mut a, B, &about(50, true, true)), [C]);
    assert_eq!(put(&mut a, C, &about(0, false, false)), []);
}

/// Whoever can write the store can write in this member's name.
#[test]
fn what_somebody_else_writes_in_its_name_is_written_again_once_a_second() {
    let (mut a, mut store) = (engine(A), Store::default());
    a.own.set_about(About::default());
    register(&mut a, PEER);
    flush(&mut a, &mut store);
    store.tell(&mut a, 0);
    assert_eq!(a.own.counts(), (1, 0), "its own writings are nobody else's");
    let mut now = later();
    let foreign = |store: &mut Store, key: &str, value: &[u8]| {
        let (key, value) = (key.to_owned(), Some(value.to_vec()));
        let writes = vec![Write { key, value }];
        store.write(&Batch { number: 0, writes })
    };
    let keys = [
        format!("m/{A}"),
        format!("r/{PEER}/{A}"),
        format!("r/{B}/{A}"),
    ];
    for round in 0..3 {
        let at = store.revision;
        for key in &keys {
            foreign(&mut store, key, b"garbage");
        }
        store.tell(&mut a, at);
        assert_eq!(a.own.overwritten, round + 1);
        let at = store.revision;
        let batch = a.next_batch(100, now).unwrap();
        assert_eq!(batch.writes.len(), 3);
        let revision = store.write(&batch);
        store.tell(&mut a, at);
        a.own.written(batch.number, revision);
        let there = |key: &String| store.keys[key].0.clone();
        assert_eq!(there(&keys[0]), About::default().encode());
        let entered = super::super::super::entry::Registered::decode(&there(&keys[1]));
        assert_eq!(entered.map(|it| (it.end, it.fence)), Some((END, 1)));
        assert!(
            !store.keys.contains_key(&keys[2]),
            "nobody is there by that"
        );
        // At once once more: not before a second has passed.
        let at = store.revision;
        for key in &keys[..2] {
            foreign(&mut store, key, b"");
        }
        store.tell(&mut a, at);
        assert_eq!(a.next_batch(100, now), None);
        let due = a.own.due(now).unwrap();
        assert_eq!(due, now + Duration::from_secs(1));
        now = due;
        let batch = a.next_batch(100, now).unwrap();
        // While that is with the store somebody else writes behind it.
        let (at, revision) = (store.revision, store.write(&batch));
        foreign(&mut store, &keys[0], b"");
        foreign(&mut store, &keys[1], b"");
        store.tell(&mut a, at);
        a.own.written(batch.number, revision);
        now += Duration::from_secs(1);
        let batch = a.next_batch(100, now).unwrap();
        assert_eq!(batch.writes.len(), 2);
        let revision = store.write(&batch);
        a.own.written(batch.number, revision);
        now += Duration::from_secs(2);
        a.own.overwritten = round + 1;
    }
}
