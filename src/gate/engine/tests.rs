//! The rules one by one, the counts under random use, and a world of strangers that do their worst.

use std::net::{IpAddr, Ipv6Addr};

use cepa_transports::Remote;
use proptest::prelude::*;

use super::*;

mod world;

pub(super) fn at(ms: u64) -> Instant {
    use std::sync::LazyLock;
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    *START + Duration::from_millis(ms)
}

pub(super) fn far(n: u32) -> Source {
    let [_, a, b, c] = n.to_be_bytes();
    Source::from(IpAddr::from([10, a, b, c]))
}

fn near() -> Source {
    Source::from(IpAddr::from([127, 0, 0, 1]))
}

pub(super) fn relay(n: u8) -> Source {
    by(n, 0)
}

/// Somebody of whom a relay says that.
fn by(n: u8, says: u8) -> Source {
    Source::from(&Remote::Circuit {
        relay: [n; 32],
        says: [says; 32],
    })
}

/// Two that a relay brings, in parts of their own.
fn two_by(n: u8) -> [Source; 2] {
    let one = by(n, 0);
    let other = (1..=255).map(|says| by(n, says)).find(|it| *it != one);
    [one, other.unwrap()]
}

const SECOND: u64 = 1000;

/// What is known of the streams that came, by their tickets.
#[derive(Debug, Default)]
struct Seen {
    inside: Vec<Ticket>,
    out: Vec<(Ticket, Rejected)>,
}

impl Seen {
    fn of(engine: &mut Engine) -> Self {
        let mut seen = Self::default();
        while let Some((ticket, event)) = engine.poll_event() {
            match event {
                Event::Admitted => seen.inside.push(ticket),
                Event::Out(turned) => seen.out.push((ticket, turned)),
            }
        }
        seen
    }
}

/// A stream that gets in at once.
#[track_caller]
fn gets_in(engine: &mut Engine, ms: u64, source: Source) -> Ticket {
    let ticket = engine.enter(at(ms), source).unwrap();
    assert!(Seen::of(engine).inside.contains(&ticket), "it is not in");
    ticket
}

/// A stream that has to wait.
#[track_caller]
fn waits(engine: &mut Engine, ms: u64, source: Source) -> Ticket {
    let ticket = engine.enter(at(ms), source).unwrap();
    assert!(!Seen::of(engine).inside.contains(&ticket), "it is in");
    ticket
}

/// An engine with so many inside, each of a source of its own.
fn filled(n: u32) -> (Engine, Vec<Ticket>) {
    let mut engine = Engine::new(Config::default());
    let tickets = (0..n).map(|i| gets_in(&mut engine, 0, far(i))).collect();
    (engine, tickets)
}

#[test]
fn one_source_cannot_take_every_place() {
    for source in [
        far(1),
        relay(1),
        Source::from(IpAddr::V6(Ipv6Addr::from(1 << 64))),
    ] {
        let mut engine = Engine::new(Config::default());
        let first = gets_in(&mut engine, 0, source);
        for _ in 1..8 {
            gets_in(&mut engine, 0, source);
        }
        let next = waits(&mut engine, 0, source);
        gets_in(&mut engine, 0, far(2));
        for _ in 0..20 {
            gets_in(&mut engine, 0, near());
        }
        engine.leave(at(0), first, source);
        assert_eq!(Seen::of(&mut engine).inside, [next]);
    }
}

#[test]
fn who_comes_for_the_first_time_takes_the_place_of_who_has_most() {
    let mut engine = Engine::new(Config::default());
    let mut oldest = Vec::new();
    // 12 hosts with 8 places, and one with 4.
    for host in 0..12 {
        oldest.push(gets_in(&mut engine, u64::from(host), far(host)));
        for _ in 1..8 {
            gets_in(&mut engine, 20, far(host));
        }
    }
    for _ in 0..4 {
        gets_in(&mut engine, 20, far(12));
    }
    // Whose handshake has only begun is let be.
    let late = waits(&mut engine, 400, far(99));
    assert_eq!(
        engine.poll_timeout(at(400)),
        Some(at(500)),
        "the oldest is 500 ms old then"
    );
    engine.handle_timeout(at(500));
    let seen = Seen::of(&mut engine);
    assert_eq!(seen.inside, [late]);
    assert_eq!(seen.out, [(oldest[0], Rejected::Evicted)]);
    // From another one with 8, and never from the host with 4.
    for host in 100..140 {
        gets_in(&mut engine, 10 * SECOND, far(host));
    }
    assert_eq!(engine.shares[&far(12)].inside.len(), 4);
    assert_eq!(engine.inside, 100);
}

#[test]
fn where_all_have_one_only_the_very_slow_give_theirs_up() {
    let (mut engine, tickets) = filled(100);
    let next = waits(&mut engine, 3999, far(999));
    assert_eq!(engine.poll_timeout(at(3999)), Some(at(4000)));
    engine.handle_timeout(at(4000));
    let seen = Seen::of(&mut engine);
    assert_eq!(seen.inside, [next]);
    assert_eq!(seen.out.len(), 1);
    assert!(tickets.contains(&seen.out[0].0));
    // So too among those of one source.
    let mut engine = Engine::new(Config::default());
    let first = gets_in(&mut engine, 0, far(1));
    for _ in 1..8 {
        gets_in(&mut engine, 1, far(1));
    }
    let next = waits(&mut engine, 2, far(1));
    engine.handle_timeout(at(3999));
    assert!(Seen::of(&mut engine).inside.is_empty());
    engine.handle_timeout(at(4000));
    let seen = Seen::of(&mut engine);
    assert_eq!(
        (seen.inside, seen.out),
        (vec![next], vec![(first, Rejected::Evicted)])
    );
}

#[test]
fn a_free_place_goes_to_whose_source_has_fewest_and_then_to_who_waited_longest() {
    let mut engine = Engine::new(Config {
        all: 3,
        ..Config::default()
    });
    let one = gets_in(&mut engine, 0, far(1));
    let two = gets_in(&mut engine, 0, far(1));
    let three = gets_in(&mut engine, 0, far(2));
    let greedy = waits(&mut engine, 1, far(1));
    let fourth = waits(&mut engine, 2, far(4));
    let fifth = waits(&mut engine, 3, far(5));
    engine.leave(at(10), three, far(2));
    assert_eq!(Seen::of(&mut engine).inside, [fourth]);
    engine.leave(at(10), one, far(1));
    assert_eq!(Seen::of(&mut engine).inside, [fifth]);
    engine.leave(at(10), two, far(1));
    assert_eq!(Seen::of(&mut engine).inside, [greedy]);
}

#[test]
fn a_burst_of_one_far_host_waits_and_one_of_this_machine_too() {
    for (source, burst, at_once) in [(far(1), 40, 8), (near(), 250, 100), (near(), 356, 100)] {
        let mut engine = Engine::new(Config::default());
        let tickets: Vec<_> = (0..burst)
            .map(|_| engine.enter(at(0), source).unwrap())
            .collect();
        let mut got_in = Seen::of(&mut engine).inside;
        assert_eq!(got_in.len(), at_once);
        // Each handshake takes 100 ms.
        for round in 1..20 {
            for ticket in std::mem::take(&mut got_in) {
                engine.leave(at(round * 100), ticket, source);
            }
            let seen = Seen::of(&mut engine);
            assert!(seen.out.is_empty(), "{:?}", seen.out);
            got_in = seen.inside;
        }
        assert!(
            engine.shares.is_empty(),
            "nobody of {} is left",
            tickets.len()
        );
    }
}

#[test]
fn a_queue_has_its_bound_and_the_source_with_most_in_it_gives_way() {
    let mut engine = Engine::new(Config::default());
    for host in 0..13 {
        for _ in 0..40 {
            let _ = engine.enter(at(0), far(host));
        }
        assert_eq!(
            engine.enter(at(0), far(host)),
            Err(if host < 8 {
                Rejected::Source
            } else {
                Rejected::Full
            })
        );
    }
    assert_eq!((engine.inside, engine.waiting), (100, 256));
    Seen::of(&mut engine);
    // Somebody else gets to wait, in the place of the last of the longest.
    let next = waits(&mut engine, 0, far(99));
    assert_eq!((engine.inside, engine.waiting), (100, 256));
    let waiting: Vec<_> = (0..13)
        .map(|h| engine.shares[&far(h)].waiting.len())
        .collect();
    assert_eq!(waiting.iter().sum::<usize>(), 255, "{waiting:?}");
    engine.leave(at(0), next, far(99));
    // This machine's queue is its own.
    for _ in 0..256 {
        waits(&mut engine, 0, near());
    }
    assert_eq!(engine.enter(at(0), near()), Err(Rejected::Full));
    assert_eq!(engine.waiting, 255);
}

#[test]
fn patience_has_an_end() {
    let (mut engine, _) = filled(100);
    engine.config.stale = Duration::from_secs(60);
    let ticket = waits(&mut engine, 100, far(999));
    engine.handle_timeout(at(6099));
    assert!(Seen::of(&mut engine).out.is_empty());
    assert_eq!(engine.poll_timeout(at(6099)), Some(at(6100)));
    engine.handle_timeout(at(6100));
    let waited = Duration::from_secs(6);
    assert_eq!(
        Seen::of(&mut engine).out,
        [(ticket, Rejected::Waited { waited })]
    );
    assert_eq!(engine.poll_timeout(at(6100)), None);
    engine.leave(at(6100), ticket, far(999));
    assert_eq!((engine.inside, engine.waiting), (100, 0));
}

/// One that gets in, and fails.
fn fails(engine: &mut Engine, ms: u64, source: Source, how: Failure) {
    let ticket = gets_in(engine, ms, source);
    engine.failed(at(ms), ticket, source, how);
    engine.leave(at(ms), ticket, source);
}

#[test]
fn failures_in_a_row_shut_a_source_out_for_a_while() {
    for source in [far(3), relay(3)] {
        let mut engine = Engine::new(Config::default());
        // Three refusals are tolerated.
        for _ in 0..4 {
            fails(&mut engine, 0, source, Failure::Refused);
        }
        let left = Duration::from_secs(5);
        assert_eq!(engine.enter(at(0), source), Err(Rejected::Penalty { left }));
        gets_in(&mut engine, 0, far(4));
        gets_in(&mut engine, 0, relay(4));
        // A silent one counts twice.
        fails(&mut engine, 5 * SECOND, source, Failure::TimedOut);
        let left = Duration::from_secs(10);
        assert_eq!(
            engine.enter(at(5 * SECOND), source),
            Err(Rejected::Penalty { left })
        );
        // Who proves to be welcome is forgiven.
        engine.let_in(at(5 * SECOND), source);
        gets_in(&mut engine, 5 * SECOND, source);
    }
}

#[test]
fn who_was_evicted_has_not_failed() {
    let mut engine = Engine::new(Config {
        all: 2,
        ..Config::default()
    });
    for _ in 0..10 {
        let old = gets_in(&mut engine, 0, far(1));
        let new = gets_in(&mut engine, 0, far(1));
        let newcomer = gets_in(&mut engine, SECOND, far(2));
        // As a caller may say before it knows.
        engine.failed(at(SECOND), old, far(1), Failure::Refused);
        for (ticket, source) in [(old, far(1)), (new, far(1)), (newcomer, far(2))] {
            engine.leave(at(SECOND), ticket, source);
        }
    }
    assert!(engine.penalties.is_empty());
}

#[test]
fn a_penalty_has_an_end_and_this_machine_has_none() {
    let mut engine = Engine::new(Config::default());
    let (away, here) = (
        gets_in(&mut engine, 0, far(1)),
        gets_in(&mut engine, 0, near()),
    );
    for _ in 0..10_000 {
        engine.failed(at(0), away, far(1), Failure::TimedOut);
        engine.failed(at(0), here, near(), Failure::TimedOut);
    }
    assert_eq!(engine.penalty(at(0), far(1)), engine.config.most);
    gets_in(&mut engine, 600 * SECOND, far(1));
    gets_in(&mut engine, 0, near());
    assert_eq!(engine.penalties.len(), 1);
}

/// One a second is what load balancers do.
#[test]
fn a_probe_is_no_failure_and_worth_a_line_a_minute() {
    let mut engine = Engine::new(Config::default());
    let mut lines = 0;
    for second in 0..600 {
        let ticket = gets_in(&mut engine, second * SECOND, far(1));
        lines += usize::from(engine.probe(at(second * SECOND), ticket, far(1)));
        engine.leave(at(second * SECOND), ticket, far(1));
    }
    assert_eq!(lines, 10);
    assert!(engine.penalties.is_empty());
    // But to hold a place until shortly before it would be taken is none.
    let held = [(); 2].map(|()| gets_in(&mut engine, 1000 * SECOND, far(2)));
    for ticket in held {
        engine.probe(at(1009 * SECOND), ticket, far(2));
        engine.leave(at(1009 * SECOND), ticket, far(2));
    }
    assert!(engine.enter(at(1009 * SECOND), far(2)).is_err());
}

/// Behind one address are a load balancer's probe, somebody who tries keys, and somebody honest.
#[test]
fn a_source_whose_peers_succeed_is_never_turned_away() {
    for failing in [None, Some(Failure::Refused), Some(Failure::TimedOut)] {
        let mut engine = Engine::new(Config::default());
        for second in 0..7200 {
            let now = second * SECOND;
            if second % 9 == 0 {
                let honest = gets_in(&mut engine, now, far(1));
                engine.let_in(at(now), far(1));
                engine.leave(at(now), honest, far(1));
            }
            let other = gets_in(&mut engine, now, far(1));
            match failing {
                None => drop(engine.probe(at(now), other, far(1))),
                Some(how) => engine.failed(at(now), other, far(1), how),
            }
            engine.leave(at(now), other, far(1));
        }
    }
}

#[test]
fn who_is_proven_goes_before_strangers_for_an_hour() {
    let (mut engine, _) = filled(100);
    engine.let_in(at(0), far(999));
    let strange = waits(&mut engine, SECOND, far(998));
    // Not even where all have one does it wait.
    let known = gets_in(&mut engine, SECOND, far(999));
    engine.leave(at(SECOND), known, far(999));
    assert_eq!(Seen::of(&mut engine).inside, [strange]);
    // Now the place of a stranger's is taken, not its own.
    let known = gets_in(&mut engine, 2 * SECOND, far(999));
    for host in 200..250 {
        let _ = engine.enter(at(7 * SECOND), far(host));
    }
    assert!(
        Seen::of(&mut engine)
            .out
            .iter()
            .all(|(ticket, _)| *ticket != known)
    );
    let hour = 3600 * SECOND;
    assert!(engine.is_proven(at(hour - 1), far(999)));
    assert!(!engine.is_proven(at(hour), far(999)));
}

#[test]
fn what_is_remembered_is_bounded_and_keeps_the_worst() {
    let mut engine = Engine::new(Config::default());
    let worst = gets_in(&mut engine, 0, far(0));
    for _ in 0..50 {
        engine.failed(at(0), worst, far(0), Failure::TimedOut);
    }
    engine.leave(at(0), worst, far(0));
    for i in 1..5000 {
        fails(&mut engine, 0, far(i), Failure::Refused);
        engine.let_in(at(u64::from(i)), relay(1));
        engine.let_in(at(u64::from(i)), far(i + 10_000));
        let probe = gets_in(&mut engine, 0, far(i + 20_000));
        engine.probe(at(0), probe, far(i + 20_000));
        engine.leave(at(0), probe, far(i + 20_000));
    }
    let remembered = engine.config.remembered;
    let lens = [
        engine.penalties.len(),
        engine.proven.len(),
        engine.probes.len(),
    ];
    assert_eq!(lens, [remembered; 3]);
    assert!(engine.enter(at(0), far(0)).is_err());
    assert!(engine.is_proven(at(5000), relay(1)), "the last are kept");
    // Those that are over make room.
    fails(&mut engine, 400 * SECOND, far(9999), Failure::Refused);
    assert_eq!(engine.penalties.len(), 2);
}

/// What one does at random.
#[derive(Clone, Debug)]
enum Deed {
    Enter(u8),
    Leave(usize),
    Fail(usize, bool),
    Probe(usize),
    LetIn(usize),
    Wait(u16),
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        6 => (0..12u8).prop_map(Deed::Enter),
        3 => any::<usize>().prop_map(Deed::Leave),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(i, late)| Deed::Fail(i, late)),
        1 => any::<usize>().prop_map(Deed::Probe),
        1 => any::<usize>().prop_map(Deed::LetIn),
        2 => (0..3000u16).prop_map(Deed::Wait),
    ]
}

proptest! {
    #[test]
    fn counts_are_right_whatever_is_done(deeds in prop::collection::vec(deed(), 0..200)) {
        let config = Config {
            all: 6,
            one_source: 3,
            waiting: 8,
            waiting_one_source: 4,
            remembered: 4,
            ..Config::default()
        };
        let mut engine = Engine::new(config.clone());
        let mut ms = 0;
        // Those that came and have not left: their source, and whether they are inside.
        let mut known: Vec<(Ticket, Source, bool)> = Vec::new();
        for deed in deeds {
            let picked = |i: usize| (!known.is_empty()).then(|| i % known.len());
            match deed {
                Deed::Enter(n) => {
                    let source = match n {
                        0..3 => near(),
                        3 => relay(1),
                        n => far(u32::from(n)),
                    };
                    if let Ok(ticket) = engine.enter(at(ms), source) {
                        known.push((ticket, source, false));
                    }
                }
                Deed::Leave(i) => if let Some(i) = picked(i) {
                    let (ticket, source, _) = known.swap_remove(i);
                    engine.leave(at(ms), ticket, source);
                    engine.leave(at(ms), ticket, source);
                }
                Deed::Fail(i, late) => if let Some(i) = picked(i) {
                    let how = if late { Failure::TimedOut } else { Failure::Refused };
                    engine.failed(at(ms), known[i].0, known[i].1, how);
                }
                Deed::Probe(i) => if let Some(i) = picked(i) {
                    engine.probe(at(ms), known[i].0, known[i].1);
                }
                Deed::LetIn(i) => if let Some(i) = picked(i) {
                    engine.let_in(at(ms), known[i].1);
                }
                Deed::Wait(more) => {
                    let until = ms + u64::from(more);
                    while let Some(next) = engine.poll_timeout(at(ms)).filter(|next| *next <= at(until)) {
                        prop_assert!(next > at(ms), "it would spin");
                        ms = u64::try_from(next.duration_since(at(0)).as_millis()).unwrap();
                        engine.handle_timeout(at(ms));
                    }
                    ms = until;
                    engine.handle_timeout(at(ms));
                }
            }
            while let Some((ticket, event)) = engine.poll_event() {
                let i = known.iter().position(|(it, ..)| *it == ticket);
                let Some(i) = i else { continue };
                match event {
                    Event::Admitted => {
                        prop_assert!(!known[i].2, "in twice");
                        known[i].2 = true;
                    }
                    Event::Out(Rejected::Evicted) => {
                        prop_assert!(known[i].2);
                        known.swap_remove(i);
                    }
                    Event::Out(_) => {
                        prop_assert!(!known[i].2);
                        known.swap_remove(i);
                    }
                }
            }
            // What the engine counts is what there is.
            let inside = known.iter().filter(|it| it.2).count();
            prop_assert_eq!(engine.inside, inside);
            prop_assert_eq!(engine.waiting + engine.waiting_here, known.len() - inside);
            prop_assert!(inside <= config.all && engine.waiting <= config.waiting && engine.waiting_here <= config.waiting);
            let mut all = (0, 0);
            for (source, share) in &engine.shares {
                prop_assert!(!share.inside.is_empty() || !share.waiting.is_empty());
                all = (all.0 + share.inside.len(), all.1 + share.waiting.len());
                if source.is_far() {
                    prop_assert!(share.inside.len() <= config.one_source);
                    prop_assert!(share.waiting.len() <= config.waiting_one_source);
                }
                // Nobody waits beside a free place that may be its own.
                prop_assert!(
                    share.waiting.is_empty()
                        || engine.inside == config.all
                        || share.inside.len() == engine.most_of(*source)
                );
            }
            prop_assert_eq!(all, (engine.inside, engine.waiting + engine.waiting_here));
            for map in [&engine.penalties, &engine.proven, &engine.probes] {
                prop_assert!(map.len() <= config.remembered);
            }
        }
        // And nothing is left behind.
        for (ticket, source, _) in known {
            engine.leave(at(ms), ticket, source);
        }
        prop_assert!(engine.shares.is_empty() && engine.poll_timeout(at(ms)).is_none());
        prop_assert_eq!((engine.inside, engine.waiting, engine.waiting_here), (0, 0, 0));
    }
}

#[test]
fn who_fails_by_a_relay_has_a_penalty_of_its_own() {
    let mut engine = Engine::new(Config::default());
    let [bad, good] = two_by(1);
    for _ in 0..4 {
        let ticket = gets_in(&mut engine, 0, bad);
        engine.failed(at(0), ticket, bad, Failure::Refused);
        engine.leave(at(0), ticket, bad);
    }
    let refused = engine.enter(at(0), bad).unwrap_err();
    assert!(matches!(refused, Rejected::Penalty { .. }), "{refused}");
    let ticket = gets_in(&mut engine, 0, good);
    engine.let_in(at(0), good);
    engine.leave(at(0), ticket, good);
    engine.enter(at(1), bad).unwrap_err();
}

/// Whatever a relay says of those whom it brings.
#[test]
fn a_relay_that_invents_names_is_shut_out_in_the_end() {
    let mut engine = Engine::new(Config::default());
    let mut failed = 0;
    for says in (0..20).flat_map(|_| 0..=255) {
        let source = by(1, says);
        if let Ok(ticket) = engine.enter(at(0), source) {
            engine.failed(at(0), ticket, source, Failure::Refused);
            engine.leave(at(0), ticket, source);
            failed += 1;
        }
    }
    assert!(failed <= 4 * usize::from(PARTS), "{failed}");
}

#[test]
fn a_part_of_a_relay_that_has_more_gives_up_a_place_for_one_that_has_none() {
    let mut engine = Engine::new(Config::default());
    let [many, few] = two_by(1);
    let first = gets_in(&mut engine, 0, many);
    for _ in 1..8 {
        gets_in(&mut engine, 1, many);
    }
    for _ in 0..4 {
        waits(&mut engine, 2, many);
    }
    let next = waits(&mut engine, 3, few);
    // Nobody has had much time yet.
    engine.handle_timeout(at(500));
    let seen = Seen::of(&mut engine);
    assert_eq!(seen.inside, [next]);
    assert_eq!(seen.out, [(first, Rejected::Evicted)]);
    // It is the relay's own affair.
    gets_in(&mut engine, 501, far(1));
}

#[test]
fn a_part_of_a_relay_that_fills_the_queue_loses_its_last() {
    let mut engine = Engine::new(Config::default());
    let [many, few] = two_by(1);
    for _ in 0..8 {
        gets_in(&mut engine, 0, many);
    }
    let mut last = None;
    for _ in 0..32 {
        last = Some(waits(&mut engine, 1, many));
    }
    assert_eq!(engine.enter(at(2), many), Err(Rejected::Source));
    engine.enter(at(2), few).unwrap();
    let seen = Seen::of(&mut engine);
    assert_eq!(seen.out, [(last.unwrap(), Rejected::Source)]);
}
