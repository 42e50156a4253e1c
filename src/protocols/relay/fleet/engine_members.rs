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
    assert_eq!(a.view.held_elsewhere(PEER, NOW), 5);
    for (leaving, held) in [(true, 1), (false, 5)] {
        let about = About::default();
        b.own.set_about(About { leaving, ..about });
        flush(&mut b, &mut store);
        store.sync(&mut a);
        assert_eq!(a.view.held_elsewhere(PEER, NOW), held);
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
