//! Three engines and a store, whatever happens to them in whatever order.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Register(usize, u8),
    Remove(usize, u8),
    Write(usize),
    Fail(usize),
    /// The store had it, and its answer was lost.
    FailWritten(usize),
    Lease(usize),
    Away(usize),
    Back(usize),
    Watch(usize),
    Resync(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0_usize..3;
    prop_oneof![
        4 => (who.clone(), 0_u8..6).prop_map(|(who, peer)| Step::Register(who, peer)),
        3 => (who.clone(), 0_u8..6).prop_map(|(who, peer)| Step::Remove(who, peer)),
        4 => who.clone().prop_map(Step::Write),
        1 => who.clone().prop_map(Step::Fail),
        1 => who.clone().prop_map(Step::FailWritten),
        1 => who.clone().prop_map(Step::Lease),
        1 => who.clone().prop_map(Step::Away),
        1 => who.clone().prop_map(Step::Back),
        3 => who.clone().prop_map(Step::Watch),
        1 => who.prop_map(Step::Resync),
    ]
}

proptest! {
    /// Whatever happens: when all is written and read, each member finds exactly who is registered at the others, and in one order.
    #[test]
    fn in_the_end_all_know_the_same(steps in prop::collection::vec(step(), 0..120)) {
        let ids = [A, B, C];
        let mut all = ids.map(engine);
        let mut seen = [0; 3];
        let mut there = std::collections::BTreeSet::<(usize, u8)>::new();
        let mut store = Store::default();
        let peer = |n: u8| PeerId::from_bytes([100 + n; 32]);
        for step in steps {
            match step {
                Step::Register(who, n) => {
                    register(&mut all[who], peer(n));
                    there.insert((who, n));
                }
                Step::Remove(who, n) => {
                    all[who].own.remove(peer(n));
                    there.remove(&(who, n));
                }
                Step::Write(who) => flush(&mut all[who], &mut store),
                Step::Fail(who) => if let Some(batch) = all[who].next_batch(2) {
                    all[who].own.failed(batch.number);
                },
                Step::FailWritten(who) => if let Some(batch) = all[who].next_batch(2) {
                    store.write(&batch);
                    all[who].own.failed(batch.number);
                },
                Step::Lease(who) => {
                    store.expire(ids[who]);
                    all[who].own.lease_lost();
                }
                Step::Away(who) => all[who].set_reachable(false),
                Step::Back(who) => all[who].set_reachable(true),
                Step::Watch(who) => {
                    store.tell(&mut all[who], seen[who]);
                    seen[who] = store.revision;
                }
                Step::Resync(who) => {
                    store.sync(&mut all[who]);
                    seen[who] = store.revision;
                }
            }
        }
        // Twice: what a watch finds deleted is entered again.
        for _ in 0..2 {
            for (engine, seen) in all.iter_mut().zip(&mut seen) {
                store.tell(engine, *seen);
                *seen = store.revision;
                flush(engine, &mut store);
            }
        }
        for (engine, seen) in all.iter_mut().zip(seen) {
            store.tell(engine, seen);
        }
        for n in 0..6 {
            let mut wanted: Vec<_> = (0..3).filter(|who| there.contains(&(*who, n))).collect();
            let mut orders = Vec::new();
            for engine in &all {
                let mut order = found(engine, peer(n));
                orders.push(order.clone());
                order.sort_unstable();
                let wanted: Vec<_> = wanted.iter().map(|who| ids[*who]).collect();
                prop_assert_eq!(order, wanted);
            }
            wanted.clear();
            let fences: Vec<_> = all.iter().filter_map(|it| it.own.fence(peer(n))).collect();
            let mut different = fences.clone();
            different.sort_unstable();
            different.dedup();
            if different.len() == fences.len() {
                prop_assert!(orders.windows(2).all(|two| two[0] == two[1]), "{:?}", orders);
            }
        }
        prop_assert_eq!(store.keys.len(), there.len());
    }
}
