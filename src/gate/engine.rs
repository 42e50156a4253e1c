//! Who gets a place in the gate: places, those who wait for one, and what is remembered of sources; without a clock,
//! randomness or locks.
//!
//! ```text
//!   enter ──> waits ──────────────> inside ──> leave (let in, failed, a probe)
//!               │                      │
//!               └─> turned away        └─> evicted
//! ```
//!
//! **Places are shared by source.** When a place is free, it goes to the source that has the fewest, and among those to
//! who has waited longest. When none is free, the source that has the most gives up its oldest handshake, if it
//! has more than the newcomer's source would have then ([`Config::grace`] protects one that has just begun). So a source
//! that comes for the first time gets in at once as long as fewer than [`Config::all`] others are inside, whatever
//! those do: 20 hosts that hold all they can have five places each, and the next who knocks takes one. Where every source has
//! one, a place is given up only when its handshake is very slow ([`Config::stale`]).
//!
//! **Who waits is shared by source, too.** When the queue is full, the source with the most waiting loses its last.
//!
//! **A source is proven** for a while when a peer from there was let in: it goes before strangers, has no penalty, and is
//! evicted after them.
//!
//! **A penalty** is a moment in the future. Each failure moves it away, time brings it near, and while it is further off
//! than `tolerated`, its source is turned away: a few failures are a typing error, many in a row are not. It is
//! OpenSSH's `PerSourcePenalties`. It saves work (a handshake costs us more than it costs them); the places need no such help.
//!
//! **A relay** is one source for all whom it brings: it has no more places and no longer a queue than a host, and as good or bad a right to
//! them. Within that it is divided into parts, by who it says that they are: a free place of its own goes to the part that has
//! the fewest, the part that has the most gives up one and loses its last in the queue, and a penalty is that of a part alone, so
//! one who fails shuts out few of the others. There are 64 parts, so a relay that invents a name for each failure has so many
//! penalties and no more.
//!
//! Streams of this machine are one source, since there is nobody to tell apart: it may have all places, and has no penalty.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::rules::{Config, Failure, Rejected};
use super::source::{PARTS, Source};

/// Of one source at most so often a probe is worth a line in a log.
const A_LINE_FOR_PROBES: Duration = Duration::from_secs(60);

/// Stands for one stream from its [`Engine::enter`] to its [`Engine::leave`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Ticket(u64);

/// What happened to a stream that waits or is inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Admitted,
    /// It waits no longer, or lost its place.
    Out(Rejected),
}

/// One stream of a source.
#[derive(Clone, Copy, Debug)]
struct One {
    ticket: Ticket,
    /// Since when it is inside, or waits.
    since: Instant,
    /// In which part of its source it is.
    part: u8,
}

/// The streams of one source, the oldest first.
#[derive(Debug, Default)]
struct Share {
    inside: VecDeque<One>,
    waiting: VecDeque<One>,
}

/// How many of these are in each part.
fn by_part(all: &VecDeque<One>) -> impl Fn(&One) -> usize {
    let mut parts = [0; PARTS as usize + 1];
    for one in all {
        if let Some(part) = parts.get_mut(usize::from(one.part)) {
            *part += 1;
        }
    }
    move |one| parts.get(usize::from(one.part)).copied().unwrap_or(0)
}

impl Share {
    /// Who is next of those that wait: one of the part that has the fewest inside, and has waited longest.
    fn next(&self, source: Source) -> Option<usize> {
        if !source.has_parts() {
            return (!self.waiting.is_empty()).then_some(0);
        }
        let inside = by_part(&self.inside);
        let waiting = self.waiting.iter().enumerate();
        let next = waiting.min_by_key(|(at, one)| (inside(one), *at));
        next.map(|(at, _)| at)
    }

    /// Who gives up a place first: the oldest of the part that has the most inside.
    fn first_out(&self, source: Source) -> Option<usize> {
        if !source.has_parts() {
            return (!self.inside.is_empty()).then_some(0);
        }
        let inside = by_part(&self.inside);
        let all = self.inside.iter().enumerate();
        let out = all.max_by_key(|(at, one)| (inside(one), Reverse(*at)));
        out.map(|(at, _)| at)
    }

    /// Who leaves the queue first: the last of the part that has the most waiting.
    fn last_in(&self, source: Source) -> Option<usize> {
        if !source.has_parts() {
            return self.waiting.len().checked_sub(1);
        }
        let waiting = by_part(&self.waiting);
        let all = self.waiting.iter().enumerate();
        let last = all.max_by_key(|(at, one)| (waiting(one), *at));
        last.map(|(at, _)| at)
    }

    /// Whether one part has so many more inside than the part of who is next that it gives up one for it.
    fn is_unequal(&self, source: Source) -> bool {
        let next = self.next(source).and_then(|at| self.waiting.get(at));
        let out = self.first_out(source).and_then(|at| self.inside.get(at));
        let inside = by_part(&self.inside);
        next.zip(out)
            .is_some_and(|(next, out)| inside(out) > inside(next) + 1)
    }
}

/// See the head of this file. Verbs: `enter`, `leave`, `let_in`, `failed`, `probe` for streams, `handle_timeout` for time;
/// after each of them take what `poll_event` has, then ask `poll_timeout`.
#[derive(Debug)]
pub(super) struct Engine {
    config: Config,
    next: u64,
    /// Those with a stream inside or waiting; never an empty one.
    shares: HashMap<Source, Share>,
    inside: usize,
    /// Of far sources.
    waiting: usize,
    /// Of this machine.
    waiting_here: usize,
    events: VecDeque<(Ticket, Event)>,
    /// Until when a source is under a penalty. Bounded by `config.remembered`, as the two below.
    penalties: HashMap<Source, Instant>,
    /// When a peer from there was last let in.
    proven: HashMap<Source, Instant>,
    /// When a probe from there was last worth a line.
    probes: HashMap<Source, Instant>,
}

impl Engine {
    pub(super) fn new(config: Config) -> Self {
        Self {
            config,
            next: 0,
            shares: HashMap::new(),
            inside: 0,
            waiting: 0,
            waiting_here: 0,
            events: VecDeque::new(),
            penalties: HashMap::new(),
            proven: HashMap::new(),
            probes: HashMap::new(),
        }
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// A stream comes: it gets a place, or waits; [`poll_event`](Self::poll_event) tells.
    pub(super) fn enter(&mut self, now: Instant, source: Source) -> Result<Ticket, Rejected> {
        let penalty = self.penalty(now, source);
        if penalty > self.config.tolerated {
            return Err(Rejected::Penalty {
                left: penalty.saturating_sub(self.config.tolerated),
            });
        }
        let ticket = Ticket(self.next);
        self.next += 1;
        let (source, part) = (counted(source), source.part());
        let share = self.shares.entry(source).or_default();
        share.waiting.push_back(One {
            ticket,
            since: now,
            part,
        });
        *self.queue(source) += 1;
        self.settle(now);
        match self.overflow(source) {
            Some((last, turned)) if last == ticket => Err(turned),
            Some((last, turned)) => {
                self.events.push_back((last, Event::Out(turned)));
                Ok(ticket)
            }
            None => Ok(ticket),
        }
    }

    /// A stream is gone, from the queue or from its place, whatever became of it.
    pub(super) fn leave(&mut self, now: Instant, ticket: Ticket, source: Source) {
        let source = counted(source);
        let Some(share) = self.shares.get_mut(&source) else {
            return;
        };
        if let Some(at) = share.inside.iter().position(|one| one.ticket == ticket) {
            share.inside.remove(at);
            self.inside -= 1;
        } else if let Some(at) = share.waiting.iter().position(|one| one.ticket == ticket) {
            share.waiting.remove(at);
            *self.queue(source) -= 1;
        }
        self.forget_empty(source);
        self.settle(now);
    }

    /// What is inside has proven who it is, and is welcome.
    pub(super) fn let_in(&mut self, now: Instant, source: Source) {
        if !source.is_far() {
            return;
        }
        self.penalties.remove(&source);
        let most = self.config.remembered;
        // Of a relay the part is proven, whose penalties do not count then, and the whole of it, which has the places.
        for source in [source, source.whole()] {
            note(&mut self.proven, most, source, now, self.config.proven, now);
        }
    }

    /// What is inside has failed. One that was evicted has not.
    pub(super) fn failed(&mut self, now: Instant, ticket: Ticket, source: Source, how: Failure) {
        if self.inside_since(ticket, source).is_some() {
            self.punish(now, source, how);
        }
    }

    /// The peer of what is inside left before it said anything; whether that is worth a line in a log.
    pub(super) fn probe(&mut self, now: Instant, ticket: Ticket, source: Source) -> bool {
        // Silence that is ended just before it is cut is still silence.
        let since = self.inside_since(ticket, source);
        if since.is_some_and(|since| now.saturating_duration_since(since) >= self.config.stale) {
            self.punish(now, source, Failure::TimedOut);
        }
        let source = source.whole();
        let last = self.probes.get(&source);
        if last.is_some_and(|at| now.saturating_duration_since(*at) < A_LINE_FOR_PROBES) {
            return false;
        }
        let most = self.config.remembered;
        note(&mut self.probes, most, source, now, A_LINE_FOR_PROBES, now)
    }

    /// The time is now `now`: to be called when [`poll_timeout`](Self::poll_timeout) says.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.settle(now);
        let patience = self.config.patience;
        let mut out = Vec::new();
        for (source, share) in &mut self.shares {
            let waited = |since: Instant| now.saturating_duration_since(since);
            while let Some(one) = share.waiting.front().copied()
                && waited(one.since) >= patience
            {
                share.waiting.pop_front();
                out.push((*source, one.ticket, waited(one.since)));
            }
        }
        for (source, ticket, waited) in out {
            *self.queue(source) -= 1;
            self.forget_empty(source);
            self.events
                .push_back((ticket, Event::Out(Rejected::Waited { waited })));
        }
    }

    /// When something may happen by time alone; `None` while nobody waits.
    pub(super) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let waiting = self
            .shares
            .values()
            .filter_map(|share| share.waiting.front());
        let impatient = waiting.map(|one| one.since + self.config.patience).min()?;
        let ages = self
            .shares
            .iter()
            .filter_map(|(source, share)| share.inside.get(share.first_out(*source)?))
            .flat_map(|one| [one.since + self.config.grace, one.since + self.config.stale])
            .filter(|at| *at > now);
        Some(ages.min().map_or(impatient, |at| at.min(impatient)))
    }

    pub(super) fn poll_event(&mut self) -> Option<(Ticket, Event)> {
        self.events.pop_front()
    }

    /// Gives out places until nobody has a right to another one.
    fn settle(&mut self, now: Instant) {
        while let Some((to, from)) = self.transfer(now) {
            if let Some(from) = from {
                self.evict(from);
            }
            self.admit(now, to);
        }
    }

    /// The source that gets the next place, and the one that gives it up, where none is free.
    fn transfer(&self, now: Instant) -> Option<(Source, Option<Source>)> {
        // Of those that are proven, and of strangers, the one with the best right: in each of the two who has no right to
        // another's place has the best of all who have none.
        let mut best: [Option<(usize, Ticket, Source)>; 2] = [None; 2];
        let mut renewed = None;
        for (source, share) in &self.shares {
            let next = share.next(*source).and_then(|at| share.waiting.get(at));
            let Some(One { ticket, .. }) = next else {
                continue;
            };
            // A new one in the place of an old one of its own is at nobody's cost.
            let old = if share.is_unequal(*source) {
                self.config.grace
            } else {
                self.config.stale
            };
            if Self::age(now, *source, share) >= Some(old) {
                renewed = Some((*source, Some(*source)));
            }
            if share.inside.len() >= self.most_of(*source) {
                continue;
            }
            let [proven, stranger] = &mut best;
            let best = if self.is_proven(now, *source) {
                proven
            } else {
                stranger
            };
            let rank = (share.inside.len(), *ticket, *source);
            if best.is_none_or(|(inside, ticket, _)| (rank.0, rank.1) < (inside, ticket)) {
                *best = Some(rank);
            }
        }
        let mut best = best.into_iter().flatten().map(|(_, _, source)| source);
        if self.inside < self.config.all {
            return best.next().map(|to| (to, None)).or(renewed);
        }
        best.find_map(|to| Some((to, Some(self.victim(now, to)?))))
            .or(renewed)
    }

    /// Who gives up a place for a stream of `to`, all places being taken.
    fn victim(&self, now: Instant, to: Source) -> Option<Source> {
        let own = self.shares.get(&to).map_or(0, |share| share.inside.len());
        let to_proven = self.is_proven(now, to);
        let mut worst = None;
        for (source, share) in &self.shares {
            let (has, age) = (share.inside.len(), Self::age(now, *source, share));
            if has <= own || *source == to {
                continue;
            }
            let stranger = !self.is_proven(now, *source);
            let fair = has > own + 1 || (to_proven && stranger);
            let old = if fair {
                self.config.grace
            } else {
                self.config.stale
            };
            let rank = (stranger, has, age);
            if age >= Some(old) && worst.is_none_or(|(most, _)| rank > most) {
                worst = Some((rank, *source));
            }
        }
        worst.map(|(_, source)| source)
    }

    fn admit(&mut self, now: Instant, source: Source) {
        let share = self.shares.entry(source).or_default();
        let next = share.next(source).and_then(|at| share.waiting.remove(at));
        if let Some(one) = next {
            share.inside.push_back(One { since: now, ..one });
            self.inside += 1;
            *self.queue(source) -= 1;
            self.events.push_back((one.ticket, Event::Admitted));
        }
        debug_assert!(
            self.inside <= self.config.all,
            "no more than there are places"
        );
    }

    fn evict(&mut self, source: Source) {
        let Some(share) = self.shares.get_mut(&source) else {
            return;
        };
        let out = share
            .first_out(source)
            .and_then(|at| share.inside.remove(at));
        if let Some(one) = out {
            self.inside -= 1;
            self.events
                .push_back((one.ticket, Event::Out(Rejected::Evicted)));
        }
        self.forget_empty(source);
    }

    /// Takes out of the queue what is too much after a stream of this source has come.
    fn overflow(&mut self, came: Source) -> Option<(Ticket, Rejected)> {
        let config = &self.config;
        let own = self
            .shares
            .get(&came)
            .map_or(0, |share| share.waiting.len());
        let (source, turned) = if came.is_far() && own > config.waiting_one_source {
            (came, Rejected::Source)
        } else if came.is_far() && self.waiting > config.waiting {
            let far = self.shares.iter().filter(|(it, _)| it.is_far());
            let most = far.max_by_key(|(it, share)| (share.waiting.len(), **it == came));
            (*most?.0, Rejected::Full)
        } else if self.waiting_here > config.waiting {
            (Source::HERE, Rejected::Full)
        } else {
            return None;
        };
        let share = self.shares.get_mut(&source)?;
        let last = share.last_in(source)?;
        let ticket = share.waiting.remove(last)?.ticket;
        *self.queue(source) -= 1;
        self.forget_empty(source);
        Some((ticket, turned))
    }

    /// How many wait beside those of this source.
    fn queue(&mut self, source: Source) -> &mut usize {
        if source.is_far() {
            &mut self.waiting
        } else {
            &mut self.waiting_here
        }
    }

    fn forget_empty(&mut self, source: Source) {
        let empty = |share: &Share| share.inside.is_empty() && share.waiting.is_empty();
        if self.shares.get(&source).is_some_and(empty) {
            self.shares.remove(&source);
        }
    }

    /// How old the handshake of a source is that gives up its place first.
    fn age(now: Instant, source: Source, share: &Share) -> Option<Duration> {
        let one = share.inside.get(share.first_out(source)?)?;
        Some(now.saturating_duration_since(one.since))
    }

    fn inside_since(&self, ticket: Ticket, source: Source) -> Option<Instant> {
        let share = self.shares.get(&counted(source))?;
        let found = share.inside.iter().find(|one| one.ticket == ticket);
        found.map(|one| one.since)
    }

    fn most_of(&self, source: Source) -> usize {
        if source.is_far() {
            self.config.one_source
        } else {
            self.config.all
        }
    }

    fn is_proven(&self, now: Instant, source: Source) -> bool {
        let last = self.proven.get(&source);
        last.is_some_and(|at| now.saturating_duration_since(*at) < self.config.proven)
    }

    fn penalty(&self, now: Instant, source: Source) -> Duration {
        self.penalties
            .get(&source)
            .map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    fn punish(&mut self, now: Instant, source: Source, how: Failure) {
        if !source.is_far() || self.is_proven(now, source) {
            return;
        }
        let more = match how {
            Failure::Refused => self.config.penalty_refused,
            Failure::Lost => self.config.penalty_lost,
            Failure::TimedOut => self.config.penalty_timed_out,
        };
        let until = now + (self.penalty(now, source) + more).min(self.config.most);
        // A crowd of sources can't wash away the penalties of the worst.
        let most = self.config.remembered;
        note(
            &mut self.penalties,
            most,
            source,
            until,
            Duration::ZERO,
            now,
        );
    }
}

/// The source that has the places of a stream: all parts of a relay together; on this machine there is one.
fn counted(source: Source) -> Source {
    if source.is_far() {
        source.whole()
    } else {
        Source::HERE
    }
}

/// Remembers a moment of a source. Where there is no room for more, what is over by `now` (`lasts` behind its moment) is
/// forgotten first, then the earliest; a moment that would be the earliest is not remembered, which is told.
fn note(
    map: &mut HashMap<Source, Instant>,
    most: usize,
    source: Source,
    moment: Instant,
    lasts: Duration,
    now: Instant,
) -> bool {
    if !map.contains_key(&source) && map.len() >= most {
        map.retain(|_, at| *at + lasts > now);
    }
    if !map.contains_key(&source) && map.len() >= most {
        let earliest = map.iter().min_by_key(|(_, at)| **at);
        match earliest.map(|(source, at)| (*source, *at)) {
            Some((earliest, at)) if at <= moment => map.remove(&earliest),
            _ => return false,
        };
    }
    map.insert(source, moment);
    true
}

#[cfg(test)]
mod tests;
