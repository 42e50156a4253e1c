//! What this member has to tell the store: itself, and who is registered here.
//!
//! Each change waits until the store has it. While the store is away they collapse, one a peer: so what waits is bounded by the
//! registrations that there are, and those that there were when the store was last heard of. One batch is with the store at a time;
//! one that failed is tried again before anything else, since nobody knows how much of it the store has.
//!
//! ```text
//!    register, renew            next_batch              written
//!  ------------------> queued -------------> in flight -----------> entered
//!                        ^                      |                      |
//!                        +-------- failed ------+                      |
//!                        +-------- lease_lost, or somebody else has deleted it, or a re-sync has not found it
//! ```
//!
//! What was written of a peer is written again after a second at the earliest: one that registers and leaves without a pause costs the store one
//! write a second, and no other peer waits for it. So what is gone is remembered for that long.
//!
//! **The fence** says which of two registrations of one peer is the newer one: the revision of the store at which it was first written.
//! Whoever enters a registration again, after its lease was lost, writes the old number with it, or what has stood here all the time would pass
//! for newer than what the peer has made elsewhere meanwhile. A registration that was made while the store was away gets the last
//! revision that was known here: it loses against all that was entered elsewhere since.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use crate::identity::PeerId;

use super::entry::{About, Key, Registered, fence_at};

/// Time between two writes for the same peer.
const REST: Duration = Duration::from_secs(1);

/// Entries in this member's name that it does not know, and deletes when it finds them; what is more waits for another re-sync.
const MOST_STRAYS: usize = 1 << 16;

/// Something to put in the store, or to delete from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Below the fleet's prefix.
    pub key: String,
    /// Nothing: the key is to be deleted.
    pub value: Option<Vec<u8>>,
}

/// What is to be written next, all of it under this member's lease.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Batch {
    /// Its number, for [`written`](super::Fleet::written) and [`failed`](super::Fleet::failed).
    pub number: u64,
    /// Each key once.
    pub writes: Vec<Write>,
}

#[derive(Debug, Default)]
struct Own {
    /// None: it is gone, and to be deleted.
    wanted: Option<Wanted>,
    /// 0 while only the store can say.
    fence: u64,
    /// Which registration this is; another one has another fence.
    turn: u64,
    /// Of its last writing that is known.
    revision: u64,
    /// Of the last writing that was seen while one of ours was with the store.
    seen_at: u64,
    queued: bool,
    /// The store has it, or may have.
    entered: bool,
    /// It is not written before.
    free_at: Duration,
    /// It is among those that rest.
    rests: bool,
    /// The re-sync that has seen it in the store.
    seen: u32,
}

#[derive(Clone, Debug)]
struct Wanted {
    end: u64,
    heir: Option<PeerId>,
    count: u32,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct OwnSide {
    registrations: HashMap<PeerId, Own>,
    queue: VecDeque<PeerId>,
    /// Those of which something was written, until each one may be written again.
    resting: BTreeSet<(Duration, PeerId)>,
    about: Option<About>,
    about_queued: bool,
    /// Somebody else has written it: it is written again when this time has come.
    about_heals: bool,
    about_free_at: Duration,
    /// As those of a registration.
    about_revision: u64,
    about_seen_at: u64,
    /// How often somebody else has written it.
    pub(super) overwritten: u64,
    flight: Option<Flight>,
    numbers: u64,
    turns: u64,
    /// What a new registration gets while the store is away.
    away: Option<u64>,
    /// Of the re-sync that began last.
    mark: u32,
    /// What it has seen of `about` is how it should be.
    about_seen: bool,
    /// Those that are gone, with those that it has found.
    strays: usize,
}

#[derive(Debug)]
struct Flight {
    number: u64,
    about: bool,
    peers: Vec<(PeerId, u64)>,
}

impl OwnSide {
    /// A new registration of a peer, or one more.
    pub(super) fn register(&mut self, peer: PeerId, end: u64, heir: Option<PeerId>, count: u32) {
        self.turns += 1;
        let (turn, fence) = (self.turns, self.away.unwrap_or(0));
        let own = self.registrations.entry(peer).or_default();
        (own.fence, own.turn) = (fence, turn);
        own.wanted = Some(Wanted { end, heir, count });
        self.enqueue(peer);
    }

    /// It lasts longer, or there are more or fewer of them.
    pub(super) fn renew(&mut self, peer: PeerId, end: Option<u64>, count: u32) {
        let Some(own) = self.registrations.get_mut(&peer) else {
            return;
        };
        let Some(wanted) = &mut own.wanted else {
            return;
        };
        let end = end.unwrap_or(wanted.end);
        if (wanted.end, wanted.count) != (end, count) {
            (wanted.end, wanted.count) = (end, count);
            self.enqueue(peer);
        }
    }

    /// Nobody is registered by this id any more.
    pub(super) fn remove(&mut self, peer: PeerId) {
        let Some(own) = self.registrations.get_mut(&peer) else {
            return;
        };
        own.wanted = None;
        if own.entered {
            self.enqueue(peer);
        } else if own.rests {
            own.queued = false;
        } else {
            // It leaves the queue when its turn comes.
            self.registrations.remove(&peer);
        }
    }

    pub(super) fn set_about(&mut self, about: About) {
        if self.about.as_ref() != Some(&about) {
            self.about = Some(about);
            self.about_queued = true;
        }
    }

    fn enqueue(&mut self, peer: PeerId) {
        if let Some(own) = self.registrations.get_mut(&peer)
            && !own.queued
        {
            own.queued = true;
            // One that rests is in the queue as soon as it does not.
            if !own.rests {
                self.queue.push_back(peer);
            }
        }
        self.tidy();
    }

    /// Those whose rest is over.
    fn wake(&mut self, now: Duration) {
        while let Some((at, peer)) = self.resting.first().copied() {
            if at > now {
                return;
            }
            self.resting.pop_first();
            let Some(own) = self.registrations.get_mut(&peer) else {
                continue;
            };
            own.rests = false;
            if own.queued {
                self.queue.push_back(peer);
            } else if own.wanted.is_none() && !own.entered {
                self.registrations.remove(&peer);
            }
        }
    }

    /// Ids in the queue whose registrations went before they were written take no more room than those that are there.
    fn tidy(&mut self) {
        if self.queue.len() > 64 + 2 * self.registrations.len() {
            let all = &self.registrations;
            let mut seen = std::collections::HashSet::new();
            self.queue
                .retain(|peer| all.get(peer).is_some_and(|own| own.queued) && seen.insert(*peer));
        }
    }

    /// When there will be something to write; nothing, where something has to happen first.
    pub(super) fn due(&mut self, now: Duration) -> Option<Duration> {
        self.wake(now);
        if self.flight.is_some() {
            return None;
        }
        let free = |own: &Own| own.queued && !own.rests;
        let queued = |peer| self.registrations.get(peer).is_some_and(free);
        if self.about_queued || self.queue.iter().any(queued) {
            return Some(now);
        }
        let heals = Some(self.about_free_at.max(now)).filter(|_| self.about_heals);
        let rests = self.resting.first().map(|(at, _)| *at);
        heals.into_iter().chain(rests).min()
    }

    /// At most so many writes; nothing while one is in flight.
    pub(super) fn next_batch(
        &mut self,
        own_id: PeerId,
        most: usize,
        now: Duration,
    ) -> Option<Batch> {
        self.wake(now);
        if self.flight.is_some() {
            return None;
        }
        let mut writes = Vec::new();
        let heals = self.about_heals && now >= self.about_free_at;
        let about = self.about.as_ref().filter(|_| self.about_queued || heals);
        if let Some(about) = about {
            writes.push(Write {
                key: Key::Member(own_id).text(),
                value: Some(about.encode()),
            });
        }
        let about = about.is_some();
        if about {
            (self.about_heals, self.about_free_at) = (false, now + REST);
        }
        let mut peers = Vec::new();
        while writes.len() < most.max(1) {
            let Some(peer) = self.queue.pop_front() else {
                break;
            };
            // Gone before it was written, or here twice.
            let Some(own) = self
                .registrations
                .get_mut(&peer)
                .filter(|own| own.queued && !own.rests)
            else {
                continue;
            };
            own.queued = false;
            own.entered = true;
            (own.free_at, own.rests) = (now + REST, true);
            self.resting.insert((own.free_at, peer));
            let value = own.wanted.as_ref().map(|wanted| Registered {
                end: wanted.end,
                fence: own.fence,
                heir: wanted.heir,
                count: wanted.count,
            });
            peers.push((peer, own.turn));
            let relay = own_id;
            writes.push(Write {
                key: Key::Registration { peer, relay }.text(),
                value: value.map(|value| value.encode()),
            });
        }
        if writes.is_empty() {
            return None;
        }
        self.about_queued = false;
        self.numbers += 1;
        let number = self.numbers;
        self.flight = Some(Flight {
            number,
            about,
            peers,
        });
        Some(Batch { number, writes })
    }

    fn landed(&mut self, number: u64) -> Option<Flight> {
        self.flight.take_if(|flight| flight.number == number)
    }

    /// The store has a batch, at this revision.
    pub(super) fn written(&mut self, number: u64, revision: u64) {
        let Some(flight) = self.landed(number) else {
            return;
        };
        if flight.about {
            self.about_revision = revision;
            let seen_at = std::mem::take(&mut self.about_seen_at);
            if seen_at > revision {
                self.heal_about(seen_at);
            }
        }
        for (peer, turn) in flight.peers {
            let Some(own) = self.registrations.get_mut(&peer) else {
                continue;
            };
            own.revision = revision;
            if std::mem::take(&mut own.seen_at) > revision && !own.queued {
                own.queued = true;
                if !own.rests {
                    self.queue.push_back(peer);
                }
            }
            if own.turn == turn {
                own.fence = fence_at(own.fence, revision);
            }
            if own.turn == turn && own.wanted.is_none() && !own.queued {
                own.entered = false;
                if !own.rests {
                    self.registrations.remove(&peer);
                }
            }
        }
    }

    /// Nobody knows what of a batch the store has.
    pub(super) fn failed(&mut self, number: u64) {
        let Some(flight) = self.landed(number) else {
            return;
        };
        self.about_queued |= flight.about;
        self.about_seen_at = 0;
        for (peer, _) in flight.peers.into_iter().rev() {
            if let Some(own) = self.registrations.get_mut(&peer) {
                if std::mem::take(&mut own.rests) {
                    self.resting.remove(&(own.free_at, peer));
                }
                (own.queued, own.seen_at) = (true, 0);
                self.queue.push_front(peer);
            }
        }
    }

    /// The store has forgotten all that this member has entered.
    pub(super) fn lease_lost(&mut self) {
        self.flight = None;
        self.about_queued = self.about.is_some();
        self.about_seen_at = 0;
        self.queue.clear();
        self.resting.clear();
        self.registrations.retain(|_, own| own.wanted.is_some());
        for (peer, own) in &mut self.registrations {
            (own.queued, own.entered, own.rests) = (true, false, false);
            own.seen_at = 0;
            self.queue.push_back(*peer);
        }
    }

    /// The store is not heard of, and what it knew last had this revision; or it is heard of again.
    pub(super) fn set_away(&mut self, away: Option<u64>) {
        if let (None, Some(known)) = (self.away, away) {
            // Those that wait for a number were made before this moment.
            for own in self.registrations.values_mut() {
                if own.fence == 0 {
                    own.fence = known.max(1);
                }
            }
        }
        self.away = away.map(|known| known.max(1));
    }

    /// All that the store has comes next.
    pub(super) fn begin_sync(&mut self) {
        self.mark = self.mark.wrapping_add(1);
        self.about_seen = false;
        let all = self.registrations.values();
        self.strays = all.filter(|own| own.wanted.is_none()).count();
    }

    /// The store has this in this member's name: written again if it is another one, deleted if there should be none.
    pub(super) fn stands(&mut self, peer: PeerId, value: &[u8], revision: u64) {
        let is_known = self.registrations.contains_key(&peer);
        if !is_known && self.strays >= MOST_STRAYS {
            return;
        }
        self.strays += usize::from(!is_known);
        let own = self.registrations.entry(peer).or_default();
        (own.seen, own.entered) = (self.mark, true);
        let is_right = own.wanted.as_ref().is_some_and(|wanted| {
            Registered::decode(value).is_some_and(|it| {
                (it.end, it.heir, it.count) == (wanted.end, wanted.heir, wanted.count)
                    && (own.fence == 0 || fence_at(it.fence, revision) == own.fence)
            })
        });
        if !is_right {
            self.enqueue(peer);
        }
    }

    /// The same for what it says of itself.
    pub(super) fn stands_about(&mut self, value: &[u8]) {
        self.about_seen = (self.about.as_ref()).is_some_and(|about| about.encode() == value);
    }

    /// That was all, at this revision: what did not come is written again. No number of a former memory of the store's counts.
    pub(super) fn end_sync(&mut self, revision: u64) {
        self.about_queued |= self.about.is_some() && !self.about_seen;
        if let Some(known) = &mut self.away {
            *known = revision.max(1);
        }
        self.about_revision = self.about_revision.min(revision);
        for (peer, own) in &mut self.registrations {
            own.revision = own.revision.min(revision);
            if own.fence > revision {
                own.fence = 0;
            }
            if own.wanted.is_some() && own.seen != self.mark && !own.queued {
                own.queued = true;
                if !own.rests {
                    self.queue.push_back(*peer);
                }
            }
        }
    }

    /// Something was written in this member's name, by it or by somebody else: what is not its own is written again. What waits to be
    /// written is in any case, and of what is with the store its answer says which one was the last.
    pub(super) fn changed(&mut self, peer: PeerId, revision: u64) {
        let flies = |it: &Flight| it.peers.iter().any(|(flying, _)| *flying == peer);
        let flies = self.flight.as_ref().is_some_and(flies);
        let is_known = self.registrations.contains_key(&peer);
        if !is_known && self.registrations.len() >= MOST_STRAYS {
            return;
        }
        let own = self.registrations.entry(peer).or_default();
        if flies {
            own.seen_at = own.seen_at.max(revision);
        } else if revision > own.revision {
            own.entered = true;
            self.enqueue(peer);
        }
        // What is older than its own last write was there, and is there no more.
    }

    /// The same of what it says of itself.
    pub(super) fn changed_about(&mut self, revision: u64) {
        if self.flight.as_ref().is_some_and(|it| it.about) {
            self.about_seen_at = self.about_seen_at.max(revision);
        } else if revision > self.about_revision && !self.about_queued {
            self.heal_about(revision);
        }
    }

    fn heal_about(&mut self, revision: u64) {
        if self.about.is_some() {
            (self.about_heals, self.about_revision) = (true, revision);
            self.overwritten += 1;
        }
    }

    /// Somebody has deleted what this member has entered: it is entered again.
    pub(super) fn deleted(&mut self, peer: PeerId, revision: u64) {
        if let Some(own) = self.registrations.get(&peer)
            && own.wanted.is_some()
            && own.revision < revision
        {
            self.enqueue(peer);
        }
    }

    pub(super) fn deleted_about(&mut self) {
        self.about_queued = self.about.is_some();
    }

    /// The fence of a registration here; the highest there is while the store has not said.
    pub(super) fn fence(&self, peer: PeerId) -> Option<u64> {
        let own = self.registrations.get(&peer)?;
        own.wanted.as_ref()?;
        Some(if own.fence == 0 { u64::MAX } else { own.fence })
    }

    /// Whose former id this is, as registered here; none where it is a peer's own.
    pub(super) fn heir(&self, peer: PeerId) -> Option<PeerId> {
        let own = self.registrations.get(&peer)?;
        own.wanted.as_ref()?.heir
    }

    /// Registrations here by each id, and changes that the store does not have yet.
    pub(super) fn counts(&self) -> (usize, usize) {
        let there = self.registrations.values();
        let there = there.filter(|own| own.wanted.is_some()).count();
        let waiting = self.registrations.values().filter(|own| own.queued).count();
        let flying = self.flight.as_ref().map_or(0, |flight| flight.peers.len());
        (there, waiting + flying)
    }

    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.registrations.len() + self.queue.len() + self.resting.len()
    }
}
