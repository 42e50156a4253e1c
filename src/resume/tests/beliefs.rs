//! What each end may believe of the session while the other believes something else: every pair that two engines can come to, as a
//! table that a change shows in: `beliefs_table.txt`.
//!
//! The world is two engines that keep to the rules, and a network that loses paths, crosses dials and is late with hellos. All that
//! can happen in it is searched, to a depth at which nothing new comes any more; generations are told by how they differ. Then random
//! walks that are much longer, with bytes on the paths, must come to no pair that the table does not have.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::io::IoSlice;
use std::time::Instant;

use cepa_transports::Side;
use proptest::prelude::*;

use crate::resume::engine::{Engine, Over, SLICES};
use crate::resume::error::SessionLost;
use crate::resume::{At, Config};
use crate::table_file::matches_file;

/// What may happen; the number is the end that does it: 0 the client of the first connection, 1 the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It dials.
    Dials(usize),
    /// The hello of what it has dialled arrives at the other end, which answers.
    Hello(usize),
    /// The other end goes on over that.
    Attaches(usize),
    /// The answer arrives.
    Answer(usize),
    /// It gives up what it has dialled.
    Withdraws(usize),
    /// Its path is lost.
    Loses(usize),
    /// It gives the session up.
    GivesUp(usize),
    /// What it wrote arrives, where both are on one path.
    Arrives(usize),
    /// Its program gives it bytes.
    Writes(usize),
}

const KINDS: [fn(usize) -> Step; 9] = [
    Step::Dials,
    Step::Hello,
    Step::Attaches,
    Step::Answer,
    Step::Withdraws,
    Step::Loses,
    Step::GivesUp,
    Step::Arrives,
    Step::Writes,
];

/// How far what an end has dialled has come at the other.
#[derive(Clone, Copy, Debug)]
enum Dial {
    /// The hello is on its way.
    Said(At),
    /// It was answered so; whether that end has attached it, and whether the answer has arrived.
    Answered {
        said: At,
        answer: At,
        attached: bool,
        arrived: bool,
    },
    /// It was refused, and that is on its way.
    Refused,
}

struct World {
    now: Instant,
    ends: [Engine; 2],
    /// The path that each has: by its generation, and who dialled it.
    on: [Option<(u32, usize)>; 2],
    dials: [Option<(u64, Dial)>; 2],
    /// What each wrote on its path and did not arrive.
    wires: [VecDeque<u8>; 2],
    numbers: u64,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let end = |side| Engine::new(side, &Config::default(), now);
        Self {
            now,
            ends: [end(Side::Client), end(Side::Server)],
            on: [Some((0, 0)); 2],
            dials: [None, None],
            wires: [VecDeque::new(), VecDeque::new()],
            numbers: 0,
        }
    }

    /// An end that has another path, or none, neither reads nor writes on the one before.
    fn settle(&mut self, end: usize) {
        if !self.ends[end].has_path() {
            self.leaves(end);
        }
    }

    fn leaves(&mut self, end: usize) {
        self.on[end] = None;
        self.wires = [VecDeque::new(), VecDeque::new()];
    }

    fn joins(&mut self, end: usize, path: (u32, usize)) {
        self.leaves(end);
        self.on[end] = Some(path);
    }

    /// False where it can't happen now.
    fn step(&mut self, step: Step) -> bool {
        let now = self.now;
        match step {
            Step::Dials(by) => {
                if self.dials[by].is_some() {
                    return false;
                }
                self.numbers += 1;
                let Some(at) = self.ends[by].propose(self.numbers) else {
                    return false;
                };
                self.dials[by] = Some((self.numbers, Dial::Said(at)));
            }
            Step::Hello(by) => {
                let Some((_, dial)) = &mut self.dials[by] else {
                    return false;
                };
                let Dial::Said(said) = *dial else {
                    return false;
                };
                *dial = match self.ends[1 - by].claim(now, said) {
                    Ok(answer) => Dial::Answered {
                        said,
                        answer,
                        attached: false,
                        arrived: false,
                    },
                    Err(_) => Dial::Refused,
                };
                self.settle(1 - by);
            }
            Step::Attaches(by) => {
                let Some((_, dial)) = &mut self.dials[by] else {
                    return false;
                };
                let Dial::Answered {
                    said,
                    answer,
                    attached,
                    arrived,
                } = dial
                else {
                    return false;
                };
                if std::mem::replace(attached, true) {
                    return false;
                }
                let (said, answer) = (*said, *answer);
                if *arrived {
                    self.dials[by] = None;
                }
                if self.ends[1 - by]
                    .attach_claimed(now, said, answer, None)
                    .is_ok()
                {
                    self.joins(1 - by, (said.generation, by));
                }
            }
            Step::Answer(by) => {
                let Some((number, dial)) = &mut self.dials[by] else {
                    return false;
                };
                let number = *number;
                match dial {
                    Dial::Said(_) => return false,
                    Dial::Refused => {
                        self.ends[by].withdraw(number);
                        self.dials[by] = None;
                    }
                    Dial::Answered {
                        answer,
                        attached,
                        arrived,
                        ..
                    } => {
                        if std::mem::replace(arrived, true) {
                            return false;
                        }
                        let answer = *answer;
                        if *attached {
                            self.dials[by] = None;
                        }
                        if self.ends[by]
                            .attach_proposed(now, number, answer, None)
                            .is_ok()
                        {
                            self.joins(by, (answer.generation, by));
                        }
                    }
                }
            }
            Step::Withdraws(by) => {
                if !self.is_dialling(by) {
                    return false;
                }
                if let Some((number, _)) = self.dials[by].take() {
                    self.ends[by].withdraw(number);
                }
            }
            Step::Loses(end) => {
                if !self.ends[end].has_path() {
                    return false;
                }
                self.ends[end].handle_path_lost(now);
                self.leaves(end);
            }
            Step::GivesUp(end) => {
                if self.ends[end].over().is_some() {
                    return false;
                }
                self.ends[end].give_up(SessionLost::GivenUp);
            }
            Step::Writes(end) => {
                if self.ends[end].over().is_some() {
                    return false;
                }
                self.ends[end].write(&[IoSlice::new(b"some")]);
            }
            Step::Arrives(from) => {
                if self.on[0].is_none() || self.on[0] != self.on[1] {
                    return false;
                }
                self.transmit(from);
                self.receive(1 - from);
            }
        }
        for end in &self.ends {
            end.assert_invariants();
        }
        true
    }

    fn transmit(&mut self, from: usize) {
        let engine = &mut self.ends[from];
        while engine.stage(|| self.now) {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let used = engine.output(&mut slices);
            let mut n = 0;
            for slice in &slices[..used] {
                self.wires[from].extend(slice.iter());
                n += slice.len();
            }
            engine.wrote(n);
        }
    }

    fn receive(&mut self, to: usize) {
        let (engine, wire) = (&mut self.ends[to], &mut self.wires[1 - to]);
        if engine.over().is_none() && engine.has_path() {
            engine.handle_bytes(self.now, wire.make_contiguous());
            wire.clear();
            let over = engine.over();
            let kept = !matches!(over, Some(Over::Lost(SessionLost::Violation(_))));
            assert!(kept, "the other end keeps to the rules: {over:?}");
        }
    }

    /// What an end believes.
    fn belief(&self, end: usize) -> String {
        let engine = &self.ends[end];
        let path = match engine.over() {
            Some(Over::Lost(SessionLost::GivenUp)) => return "gave it up".to_owned(),
            Some(Over::Lost(SessionLost::GivenUpByPeer { .. })) => {
                return "knows that the peer gave it up".to_owned();
            }
            Some(over) => panic!("between two ends that keep to the rules: {over:?}"),
            None if engine.has_path() => "has a path",
            None => "has none",
        };
        if self.is_dialling(end) {
            format!("{path}, dials")
        } else {
            path.to_owned()
        }
    }

    /// What it has dialled is not answered, as far as it knows.
    fn is_dialling(&self, end: usize) -> bool {
        match self.dials[end] {
            Some((_, Dial::Answered { arrived, .. })) => !arrived,
            Some(_) => true,
            None => false,
        }
    }

    /// What both believe, and how that differs.
    fn beliefs(&self) -> String {
        let [client, server] = [0, 1].map(|end| self.belief(end));
        let ahead = i64::from(self.ends[0].generation()) - i64::from(self.ends[1].generation());
        let apart = match (self.on[0], self.on[1]) {
            (Some(one), Some(two)) if one == two => "the same path",
            (Some(_), Some(_)) => "different paths",
            _ => "no common path",
        };
        let ahead = match ahead {
            0 => "the same generation",
            1.. => "the client is ahead",
            _ => "the server is ahead",
        };
        format!("client {client}; server {server}; {apart}, {ahead}")
    }

    /// The same, and all that decides what can come of it.
    fn whole(&self) -> String {
        let base = i64::from(self.ends[0].generation());
        let beyond = |generation: u32| (i64::from(generation) - base).clamp(-3, 3);
        let dials = self.dials.map(|dial| {
            dial.map(|(_, dial)| match dial {
                Dial::Said(at) => (0, beyond(at.generation)),
                Dial::Answered {
                    said,
                    attached,
                    arrived,
                    ..
                } => (
                    1 + i32::from(attached) + 2 * i32::from(arrived),
                    beyond(said.generation),
                ),
                Dial::Refused => (5, 0),
            })
        });
        let on = self.on.map(|on| on.map(|(at, by)| (beyond(at), by)));
        let ahead = beyond(self.ends[1].generation());
        format!("{} {dials:?} {on:?} {ahead}", self.beliefs())
    }

    fn run(steps: &[Step]) -> Option<Self> {
        let mut world = Self::new();
        steps.iter().all(|step| world.step(*step)).then_some(world)
    }
}

/// Every pair of beliefs, and one of the shortest ways to it.
fn search() -> BTreeMap<String, Vec<Step>> {
    let mut seen = BTreeSet::from([World::new().whole()]);
    let mut found = BTreeMap::from([(World::new().beliefs(), Vec::new())]);
    let mut ahead = VecDeque::from([Vec::new()]);
    while let Some(steps) = ahead.pop_front() {
        // Bytes change nothing in what is believed of paths.
        for kind in &KINDS[..8] {
            for end in [0, 1] {
                let mut steps: Vec<Step> = steps.clone();
                steps.push(kind(end));
                let Some(world) = World::run(&steps) else {
                    continue;
                };
                if seen.insert(world.whole()) {
                    found
                        .entry(world.beliefs())
                        .or_insert_with(|| steps.clone());
                    ahead.push_back(steps);
                }
            }
        }
    }
    found
}

fn reported(step: &Step) -> String {
    let name = |end: &usize| ["client", "server"][*end];
    match step {
        Step::Dials(by) => format!("{} dials", name(by)),
        Step::Hello(by) => format!("hello of {}", name(by)),
        Step::Attaches(by) => format!("attached at {}", name(&(1 - by))),
        Step::Answer(by) => format!("answer to {}", name(by)),
        Step::Withdraws(by) => format!("{} hangs up", name(by)),
        Step::Loses(end) => format!("{} loses its path", name(end)),
        Step::GivesUp(end) => format!("{} gives up", name(end)),
        Step::Arrives(from) => format!("frames of {}", name(from)),
        Step::Writes(end) => format!("{} writes", name(end)),
    }
}

const TABLE: &str = include_str!("../beliefs_table.txt");

#[test]
fn what_each_end_may_believe_is_what_the_table_says() {
    let mut table = String::new();
    for (beliefs, steps) in search() {
        let steps: Vec<String> = steps.iter().map(reported).collect();
        writeln!(table, "{beliefs}\n    {}", steps.join(", ")).unwrap();
    }
    matches_file("resume/beliefs_table.txt", "resume::tests", &table, TABLE);
}

fn steps() -> impl Strategy<Value = Vec<(usize, usize)>> {
    // That the session is given up ends the walk, nearly.
    let kind = prop_oneof![
        30 => prop::sample::select(vec![0_usize, 1, 2, 3, 4, 5, 7, 8]),
        1 => Just(6_usize),
    ];
    prop::collection::vec((kind, 0..2_usize), 0..120)
}

proptest! {
    #[test]
    fn a_long_walk_comes_to_nothing_that_the_table_does_not_have(walk in steps()) {
        let mut world = World::new();
        for (kind, end) in walk {
            world.step(KINDS[kind](end));
            let beliefs = world.beliefs();
            prop_assert!(TABLE.lines().any(|line| line == beliefs), "{beliefs}");
            // What one end let go of, the other has.
            for end in [0, 1] {
                let (here, there) = (&world.ends[end], &world.ends[1 - end]);
                let acknowledged = here.given() - here.held() as u64;
                prop_assert!(acknowledged <= there.received());
            }
        }
    }
}
