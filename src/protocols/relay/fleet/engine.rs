//! What the members of a fleet share, as one of them has it: no IO, no clock. What is here stands in `own.rs`, what is elsewhere in
//! `view.rs`; this joins the two.
//!
//! `register`, `renew`, `remove`, `set_about` say what is here. `next_batch` gives what the store has to be told, `written` and `failed` what
//! came of it. `apply` takes what the store says, in its order; `begin_sync` and `end_sync` are around all that it has, and are
//! believed against all that was known before: a store that has lost its memory counts its revisions anew. `routes` and `others` answer.

use std::time::Duration;

use crate::identity::PeerId;

use super::entry::{About, Key};
use super::own::{Batch, OwnSide};
use super::view::{View, Ways};

/// Something that the store says.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// Below the fleet's prefix.
    pub key: &'a str,
    /// Nothing: the key was deleted.
    pub value: Option<&'a [u8]>,
    /// Of the store, when it was changed.
    pub revision: u64,
}

/// Where a circuit for a peer may go, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::protocols::relay) enum Route {
    /// At this relay.
    Here,
    /// At another member.
    Member(PeerId),
}

/// In which order other members are named.
#[derive(Clone, Copy, Debug)]
pub(in crate::protocols::relay) enum Order {
    /// Those that have most room first; none that has no room.
    Emptiest,
    /// For this peer.
    Of(PeerId),
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) id: PeerId,
    pub(super) own: OwnSide,
    pub(super) view: View,
}

impl Engine {
    pub(super) fn new(
        id: PeerId,
        members: impl IntoIterator<Item = PeerId>,
        most_entries: usize,
    ) -> Self {
        let members = members.into_iter().filter(|member| *member != id);
        Self {
            id,
            own: OwnSide::default(),
            view: View::new(members, most_entries),
        }
    }

    /// At `now` of any clock that goes on; the other time here is that of the world, in which entries end.
    pub(super) fn next_batch(&mut self, most: usize, now: Duration) -> Option<Batch> {
        self.own.next_batch(self.id, most, now)
    }

    /// Takes in what the store says.
    pub(super) fn apply(&mut self, change: Change<'_>) {
        let Change {
            key,
            value,
            revision,
        } = change;
        // Of a part of what there is nobody can go on.
        if !self.view.syncs {
            self.view.revision = self.view.revision.max(revision);
        }
        let Some(key) = Key::parse(key) else {
            self.view.ignored.garbage += 1;
            return;
        };
        match (key, value) {
            // What this member has entered is known here, and is compared once all is known; then nobody else may write it.
            (Key::Member(relay), Some(value)) if relay == self.id => {
                if self.view.syncs {
                    self.own.stands_about(value);
                } else {
                    self.own.changed_about(revision);
                }
            }
            (Key::Registration { peer, relay }, Some(value)) if relay == self.id => {
                if self.view.syncs {
                    self.own.stands(peer, value, revision);
                } else {
                    self.own.changed(peer, revision);
                }
            }
            (Key::Member(relay), None) if relay == self.id => self.own.deleted_about(),
            (Key::Registration { peer, relay }, None) if relay == self.id => {
                self.own.deleted(peer, revision);
            }
            (Key::Member(relay), Some(value)) => self.view.put_member(relay, value, revision),
            (Key::Member(relay), None) => self.view.delete_member(relay, revision),
            (Key::Registration { peer, relay }, Some(value)) => {
                self.view.put(peer, relay, value, revision);
            }
            (Key::Registration { peer, relay }, None) => self.view.delete(peer, relay, revision),
        }
    }

    pub(super) fn begin_sync(&mut self) {
        self.view.begin_sync();
        self.own.begin_sync();
    }

    /// What of this member's own was not there as it should be is written then.
    pub(super) fn end_sync(&mut self, revision: u64) {
        self.view.end_sync();
        self.view.revision = revision;
        self.own.end_sync(revision);
    }

    /// The store is heard of, or not.
    pub(super) fn set_reachable(&mut self, reachable: bool) {
        let known = self.view.revision;
        self.own.set_away((!reachable).then_some(known));
    }

    /// Where to try for a peer, the newest of its registrations first. `here`: whether this relay has one. Nothing: several peers claim
    /// to be its successor.
    pub(super) fn routes(&self, peer: PeerId, here: bool, now: u64) -> Option<Vec<Route>> {
        let own_heir = self.own.heir(peer);
        let ways = match self.view.find(peer, now) {
            Ways::At(ways, heir) if !here || ways.is_empty() || heir == own_heir => ways,
            // Who has the id itself is nobody's successor.
            Ways::At(ways, None) => return Some(members(ways).collect()),
            _ if here && own_heir.is_none() => Vec::new(),
            _ => return None,
        };
        // One that the engine does not know of yet was made just now.
        let own = here.then(|| self.own.fence(peer).unwrap_or(u64::MAX));
        let newer = |fence: u64| own.is_some_and(|own| fence > own);
        let (before, after): (Vec<_>, Vec<_>) =
            ways.into_iter().partition(|(_, fence)| newer(*fence));
        let all = members(before)
            .chain(own.map(|_| Route::Here))
            .chain(members(after));
        Some(all.collect())
    }

    /// Other members that take registrations, with where they are reached.
    pub(super) fn others(&self, order: Order, most: usize) -> Vec<(PeerId, About)> {
        let mut all: Vec<_> = self
            .view
            .present()
            .filter(|(_, about)| !about.leaving && !about.addresses.is_empty())
            .collect();
        match order {
            Order::Emptiest => {
                all.retain(|(_, about)| about.load.fullness() < 1024);
                all.sort_by_key(|(id, about)| (about.load.fullness(), *id));
            }
            // The members of which each one comes first for its part of the peers.
            Order::Of(peer) => all.sort_by_key(|(id, _)| {
                let mut distance = *id.as_bytes();
                (distance.iter_mut().zip(peer.as_bytes())).for_each(|(one, other)| *one ^= other);
                distance
            }),
        }
        let all = all.into_iter().take(most);
        all.map(|(id, about)| (id, about.clone())).collect()
    }
}

fn members(all: Vec<(PeerId, u64)>) -> impl Iterator<Item = Route> {
    all.into_iter().map(|(id, _)| Route::Member(id))
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
