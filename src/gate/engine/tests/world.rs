//! A world around the engine, with time of its own: an allowed peer, a relay and 20 strangers' hosts hold as many handshakes
//! as they can and knock again at once, and honest clients that were never here before dial in between.
//!
//! The same world around what OpenSSH's `MaxStartups` does, with the same limit a source, shows what the engine is for.

use std::collections::{BinaryHeap, HashMap};

use super::*;

/// Strangers' hosts. With 8 places each they could fill more than there are.
const HOSTS: u32 = 20;
/// Connections that each of them has or tries to have: those inside, those waiting, and some that are refused all the time.
const TRIES: usize = 24;
/// Between a refusal and the next attempt.
const AGAIN: u64 = 200;
/// Before the first honest client comes, all others have settled down.
const WARM: u64 = 12_000;
const END: u64 = 24_000;
/// Between two honest clients, each of a host of its own.
const BETWEEN: u64 = 100;
/// Within this an honest client is to have its session.
const SOON: u64 = 1000;

/// How strangers do their worst.
#[derive(Clone, Copy, Debug)]
enum Worst {
    /// They say nothing until they are cut.
    Silent,
    /// They leave just before they would be cut, as if they were probes.
    LeaveInTime,
    /// They leave, and come again, before their places could be taken.
    ComeAndGo,
    /// They bring nonsense.
    Nonsense,
}

impl Worst {
    fn holds(self) -> u64 {
        match self {
            Self::Silent => 10_000,
            Self::LeaveInTime => 9_900,
            Self::ComeAndGo => 450,
            Self::Nonsense => 50,
        }
    }
}

/// What stands at the entrance.
trait Door {
    fn enter(&mut self, ms: u64, source: Source) -> Option<Ticket>;
    fn welcome(&mut self, ms: u64, source: Source);
    fn fail(&mut self, ms: u64, ticket: Ticket, source: Source, how: Worst);
    fn leave(&mut self, ms: u64, ticket: Ticket, source: Source);
    /// Lets time pass up to a moment.
    fn pass(&mut self, from: u64, to: u64);
    fn event(&mut self) -> Option<(Ticket, bool)>;
}

impl Door for Engine {
    fn enter(&mut self, ms: u64, source: Source) -> Option<Ticket> {
        Engine::enter(self, at(ms), source).ok()
    }

    fn welcome(&mut self, ms: u64, source: Source) {
        self.let_in(at(ms), source);
    }

    fn fail(&mut self, ms: u64, ticket: Ticket, source: Source, how: Worst) {
        match how {
            Worst::Silent => self.failed(at(ms), ticket, source, Failure::TimedOut),
            Worst::Nonsense => self.failed(at(ms), ticket, source, Failure::Refused),
            Worst::LeaveInTime | Worst::ComeAndGo => drop(self.probe(at(ms), ticket, source)),
        }
    }

    fn leave(&mut self, ms: u64, ticket: Ticket, source: Source) {
        Engine::leave(self, at(ms), ticket, source);
    }

    fn pass(&mut self, from: u64, to: u64) {
        let mut now = at(from);
        while let Some(next) = self.poll_timeout(now).filter(|next| *next <= at(to)) {
            now = next;
            self.handle_timeout(now);
        }
    }

    fn event(&mut self) -> Option<(Ticket, bool)> {
        let (ticket, event) = self.poll_event()?;
        Some((ticket, event == Event::Admitted))
    }
}

/// `MaxStartups 10:30:100`, and `PerSourceMaxStartups 8`.
#[derive(Default)]
struct MaxStartups {
    next: u64,
    inside: HashMap<Source, usize>,
    all: usize,
    admitted: VecDeque<Ticket>,
    random: Random,
}

impl Door for MaxStartups {
    fn enter(&mut self, _: u64, source: Source) -> Option<Ticket> {
        let here = self.inside.entry(source).or_default();
        let percent = match self.all {
            0..10 => 0,
            all => 30 + 70 * (all as u64 - 10) / 90,
        };
        if *here >= 8 || self.random.below(100) < percent {
            return None;
        }
        *here += 1;
        self.all += 1;
        self.next += 1;
        self.admitted.push_back(Ticket(self.next));
        Some(Ticket(self.next))
    }

    fn welcome(&mut self, _: u64, _: Source) {}
    fn fail(&mut self, _: u64, _: Ticket, _: Source, _: Worst) {}

    fn leave(&mut self, _: u64, _: Ticket, source: Source) {
        *self.inside.get_mut(&source).unwrap() -= 1;
        self.all -= 1;
    }

    fn pass(&mut self, _: u64, _: u64) {}

    fn event(&mut self) -> Option<(Ticket, bool)> {
        self.admitted.pop_front().map(|ticket| (ticket, true))
    }
}

/// Numbers that look random and are the same each time.
struct Random(u64);

impl Default for Random {
    fn default() -> Self {
        Self(0x2545_f491_4f6c_dd1d)
    }
}

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    Knock(usize),
    /// Of a client and its ticket, which it may have lost by then.
    Done(usize, Ticket),
}

/// One who connects: again and again, or once and honestly.
#[derive(Clone, Copy, Debug)]
struct Client {
    source: Source,
    honest: bool,
    knocked: u64,
    ticket: Option<Ticket>,
}

struct World<D> {
    door: D,
    worst: Worst,
    now: u64,
    clients: Vec<Client>,
    of: HashMap<Ticket, usize>,
    acts: BinaryHeap<std::cmp::Reverse<(u64, Act)>>,
    random: Random,
    /// How long each honest client took to its session; none where it got none.
    took: Vec<Option<u64>>,
}

impl<D: Door> World<D> {
    fn new(mut door: D, worst: Worst) -> Self {
        let allowed = far(1_000_000);
        door.welcome(0, allowed);
        let mut sources: Vec<_> = (0..HOSTS).map(far).collect();
        sources.extend([allowed, relay(1)]);
        let bad = sources
            .into_iter()
            .flat_map(|source| std::iter::repeat_n(source, TRIES).map(|source| (source, false, 0)));
        let honest = (WARM..END - 2 * SOON).step_by(usize::try_from(BETWEEN).unwrap());
        let honest = honest
            .zip(2_000_000..)
            .map(|(ms, host)| (far(host), true, ms));
        let mut world = Self {
            door,
            worst,
            now: 0,
            clients: Vec::new(),
            of: HashMap::new(),
            acts: BinaryHeap::new(),
            random: Random::default(),
            took: Vec::new(),
        };
        for (source, honest, ms) in bad.chain(honest).collect::<Vec<_>>() {
            let ms = ms + world.random.below(BETWEEN);
            world.act(ms, Act::Knock(world.clients.len()));
            world.clients.push(Client {
                source,
                honest,
                knocked: ms,
                ticket: None,
            });
        }
        world
    }

    fn act(&mut self, ms: u64, act: Act) {
        self.acts.push(std::cmp::Reverse((ms, act)));
    }

    /// The share of honest clients that had their sessions soon, in percent; and the time that the slowest of nine of ten took.
    fn run(mut self) -> (usize, u64) {
        while let Some(std::cmp::Reverse((ms, act))) = self.acts.pop() {
            if ms > END {
                break;
            }
            self.door.pass(self.now, ms);
            self.heard(ms);
            self.now = ms;
            match act {
                Act::Knock(i) => self.knock(i),
                Act::Done(i, ticket) if self.clients[i].ticket == Some(ticket) => {
                    self.done(i, ticket);
                }
                Act::Done(..) => {}
            }
            self.heard(ms);
        }
        let mut took: Vec<u64> = self
            .took
            .iter()
            .map(|took| took.unwrap_or(u64::MAX))
            .collect();
        took.sort_unstable();
        let soon = took.iter().filter(|took| **took <= SOON).count();
        (100 * soon / took.len(), took[took.len() * 9 / 10])
    }

    fn knock(&mut self, i: usize) {
        let source = self.clients[i].source;
        let Some(ticket) = self.door.enter(self.now, source) else {
            return self.turned(i, AGAIN);
        };
        self.clients[i].ticket = Some(ticket);
        self.of.insert(ticket, i);
    }

    fn turned(&mut self, i: usize, again: u64) {
        self.clients[i].ticket = None;
        if self.clients[i].honest {
            self.took.push(None);
        } else {
            self.act(self.now + again, Act::Knock(i));
        }
    }

    fn done(&mut self, i: usize, ticket: Ticket) {
        let Client {
            source,
            honest,
            knocked,
            ..
        } = self.clients[i];
        if honest {
            self.door.welcome(self.now, source);
            self.took.push(Some(self.now - knocked));
        } else {
            self.door.fail(self.now, ticket, source, self.worst);
        }
        self.clients[i].ticket = None;
        self.of.remove(&ticket);
        self.door.leave(self.now, ticket, source);
        if !honest {
            self.act(self.now + 1, Act::Knock(i));
        }
    }

    /// Who got in, and who was put out.
    fn heard(&mut self, ms: u64) {
        while let Some((ticket, inside)) = self.door.event() {
            let Some(i) = self.of.get(&ticket).copied() else {
                continue;
            };
            if inside {
                // An honest handshake takes 10 to 100 ms.
                let takes = if self.clients[i].honest {
                    10 + self.random.below(91)
                } else {
                    self.worst.holds()
                };
                self.act(ms + takes, Act::Done(i, ticket));
            } else {
                self.of.remove(&ticket);
                let source = self.clients[i].source;
                self.door.leave(ms, ticket, source);
                self.now = ms;
                self.turned(i, 1);
            }
        }
    }
}

const ALL: [Worst; 4] = [
    Worst::Silent,
    Worst::LeaveInTime,
    Worst::ComeAndGo,
    Worst::Nonsense,
];

#[test]
fn nine_of_ten_honest_clients_are_in_within_a_second_whatever_strangers_do() {
    for worst in ALL {
        let (soon, nine_of_ten) = World::new(Engine::new(Config::default()), worst).run();
        assert!(
            soon >= 90,
            "{worst:?}: {soon} % in within a second, nine of ten in {nine_of_ten} ms"
        );
    }
}

/// Without penalties, which strangers that leave in time do not get anyway.
#[test]
fn nor_does_that_take_penalties() {
    for worst in [Worst::Silent, Worst::Nonsense] {
        let config = Config {
            tolerated: Duration::MAX,
            ..Config::default()
        };
        let (soon, nine_of_ten) = World::new(Engine::new(config), worst).run();
        assert!(
            soon >= 90,
            "{worst:?}: {soon} % in within a second, nine of ten in {nine_of_ten} ms"
        );
    }
}

#[test]
fn an_early_drop_would_not_do() {
    let (soon, _) = World::new(MaxStartups::default(), Worst::LeaveInTime).run();
    assert!(soon < 10, "{soon} % in within a second");
}
