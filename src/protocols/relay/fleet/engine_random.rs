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
    /// The store loses its memory, and counts its revisions anew.
    Forget,
    /// An entry of this member's is gone, or one is there that it never made, and no watch tells of it.
    Lose(usize, u8),
    Stray(usize, u8),
    /// Nobody who rests is free after one of them, and somebody after a few.
    Tick,
}

const TICK: Duration = Duration::from_millis(300);

/// As [`flush`], at a time.
fn flush_at(engine: &mut Engine, store: &mut Store, now: Duration) {
    while let Some(batch) = engine.next_batch(4, now) {
        let revision = store.write(&batch);
        engine.own.written(batch.number, revision);
    }
}

/// As who speaks with the store does: it reads all where it can't go on.
fn connect(engine: &mut Engine, store: &Store, seen: &mut (u32, u64), memory: u32) {
    if seen.0 == memory {
        store.tell(engine, seen.1);
    } else {
        store.sync(engine);
    }
    *seen = (memory, store.revision);
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
        1 => who.clone().prop_map(Step::Resync),
        1 => Just(Step::Forget),
        1 => (who.clone(), 0_u8..6).prop_map(|(who, peer)| Step::Lose(who, peer)),
        1 => (who, 0_u8..6).prop_map(|(who, peer)| Step::Stray(who, peer)),
        6 => Just(Step::Tick),
    ]
}

proptest! {
    /// Whatever happens: when all is written and read, each member finds exactly who is registered at the others, and in one order.
    #[test]
    fn in_the_end_all_know_the_same(steps in prop::collection::vec(step(), 0..120)) {
        let ids = [A, B, C];
        let mut all = ids.map(engine);
        let mut seen = [(0_u32, 0_u64); 3];
        // Goes up whenever there is something that no watch tells of.
        let mut memory = 0;
        let mut there = std::collections::BTreeSet::<(usize, u8)>::new();
        let mut store = Store::default();
        let mut now = Duration::ZERO;
        let peer = |n: u8| PeerId::from_bytes([100 + n; 32]);
        for step in steps {
            if let Step::Write(who) | Step::FailWritten(who) = step
                && seen[who].0 != memory
            {
                connect(&mut all[who], &store, &mut seen[who], memory);
            }
            match step {
                Step::Register(who, n) => {
                    register(&mut all[who], peer(n));
                    there.insert((who, n));
                }
                Step::Remove(who, n) => {
                    all[who].own.remove(peer(n));
                    there.remove(&(who, n));
                }
                Step::Write(who) => flush_at(&mut all[who], &mut store, now),
                Step::Fail(who) => if let Some(batch) = all[who].next_batch(2, now) {
                    all[who].own.failed(batch.number);
                },
                Step::FailWritten(who) => if let Some(batch) = all[who].next_batch(2, now) {
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
                    connect(&mut all[who], &store, &mut seen[who], memory);
                }
                Step::Tick => now += TICK,
                Step::Resync(who) => {
                    store.sync(&mut all[who]);
                    seen[who] = (memory, store.revision);
                }
                Step::Forget => {
                    store = Store::default();
                    memory += 1;
                }
                Step::Lose(who, n) => {
                    store.keys.remove(&format!("r/{}/{}", peer(n), ids[who]));
                    memory += 1;
                }
                Step::Stray(who, n) => {
                    let value = super::super::super::entry::Registered {
                        end: END + 1,
                        fence: u64::from(n),
                        heir: None,
                        count: 1,
                    };
                    store.revision += 1;
                    let entry = (value.encode(), store.revision);
                    store.keys.insert(format!("r/{}/{}", peer(n), ids[who]), entry);
                    memory += 1;
                }
            }
        }
        // Twice: what a watch finds deleted is entered again.
        for _ in 0..2 {
            now += 10 * TICK;
            for (engine, seen) in all.iter_mut().zip(&mut seen) {
                connect(engine, &store, seen, memory);
                flush_at(engine, &mut store, now);
            }
        }
        for (engine, seen) in all.iter_mut().zip(&mut seen) {
            connect(engine, &store, seen, memory);
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
        // Nothing is kept of who is gone.
        now += 10 * TICK;
        for (who, engine) in all.iter_mut().enumerate() {
            prop_assert_eq!(engine.own.due(now), None);
            let there = there.iter().filter(|(at, _)| *at == who).count();
            prop_assert_eq!(engine.own.room(), there);
        }
    }
}
