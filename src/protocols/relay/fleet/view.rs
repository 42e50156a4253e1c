//! What the store says of the other members, as far as it is believed.
//!
//! Which relays are members is said here, by their ids; the store only says what is with them. An entry that names another relay is
//! ignored and counted, and so is one that makes no sense, and one for which there is no room.
//!
//! A re-sync marks what it sees, and replaces what was known of it, whatever the revisions; what it has not seen is gone at its end.

use std::collections::HashMap;

use crate::identity::PeerId;

use super::entry::{About, Registered, fence_at};

/// After its end an entry counts for so many seconds more: clocks differ.
const GRACE: u64 = 120;

/// What was ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ignored {
    /// Of relays that are no members.
    pub foreign: u64,
    /// No entries of ours: keys and values that make no sense.
    pub garbage: u64,
    /// For which there was no room.
    pub surplus: u64,
}

/// Where a peer is registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ways {
    /// At these members, with the fence of each; the newest first. All by this id itself, or all as this successor of it.
    At(Vec<(PeerId, u64)>, Option<PeerId>),
    /// Peers with different keys claim to be its successor.
    Contested,
}

#[derive(Debug)]
struct Entry {
    /// In `View::ids`.
    member: u16,
    mark: u32,
    fence: u64,
    revision: u64,
    end: u64,
    count: u32,
    heir: Option<Box<PeerId>>,
}

#[derive(Debug)]
struct Member {
    about: About,
    revision: u64,
    mark: u32,
}

/// Whether there is a re-sync, and its mark.
#[derive(Clone, Copy)]
struct Now {
    mark: Option<u32>,
}

impl Now {
    /// What is known stays where it is newer than what comes; for a re-sync nothing of former times is newer.
    fn keeps(self, mark: u32, known: u64, comes: u64) -> bool {
        known > comes && self.mark.is_none_or(|now| now == mark)
    }
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct View {
    ids: Vec<PeerId>,
    index: HashMap<PeerId, u16>,
    members: HashMap<u16, Member>,
    entries: HashMap<PeerId, Vec<Entry>>,
    count: usize,
    most: usize,
    /// Of the re-sync that began last: one that was broken off has marked some.
    mark: u32,
    /// One has begun, and not ended.
    pub(super) syncs: bool,
    pub(super) ignored: Ignored,
    pub(super) revision: u64,
}

impl View {
    /// Of these members; more than 65,535 are cut off.
    pub(super) fn new(members: impl IntoIterator<Item = PeerId>, most: usize) -> Self {
        let mut ids: Vec<PeerId> = members.into_iter().collect();
        ids.sort_unstable();
        ids.dedup();
        ids.truncate(usize::from(u16::MAX));
        let index = (0..).zip(&ids).map(|(at, id)| (*id, at)).collect();
        Self {
            ids,
            index,
            members: HashMap::new(),
            entries: HashMap::new(),
            count: 0,
            most,
            mark: 0,
            syncs: false,
            ignored: Ignored::default(),
            revision: 0,
        }
    }

    pub(super) fn ids(&self) -> &[PeerId] {
        &self.ids
    }

    pub(super) fn put_member(&mut self, relay: PeerId, value: &[u8], revision: u64) {
        let Some(at) = self.index.get(&relay) else {
            self.ignored.foreign += 1;
            return;
        };
        let Some(about) = About::decode(value) else {
            self.ignored.garbage += 1;
            return;
        };
        let mark = self.mark;
        let known = self.members.get(at);
        if !known.is_some_and(|it| self.now().keeps(it.mark, it.revision, revision)) {
            let member = Member {
                about,
                revision,
                mark,
            };
            self.members.insert(*at, member);
        }
    }

    /// What decides whether something known stays.
    fn now(&self) -> Now {
        Now {
            mark: self.syncs.then_some(self.mark),
        }
    }

    pub(super) fn delete_member(&mut self, relay: PeerId, revision: u64) {
        if let Some(at) = self.index.get(&relay)
            && (self.members.get(at))
                .is_some_and(|it| !self.now().keeps(it.mark, it.revision, revision))
        {
            self.members.remove(at);
        }
    }

    pub(super) fn put(&mut self, peer: PeerId, relay: PeerId, value: &[u8], revision: u64) {
        let Some(member) = self.index.get(&relay).copied() else {
            self.ignored.foreign += 1;
            return;
        };
        let Some(value) = Registered::decode(value) else {
            self.ignored.garbage += 1;
            return;
        };
        let entry = Entry {
            member,
            mark: self.mark,
            fence: fence_at(value.fence, revision),
            revision,
            end: value.end,
            count: value.count,
            heir: value.heir.filter(|heir| *heir != peer).map(Box::new),
        };
        let now = self.now();
        let known = self.entries.get_mut(&peer);
        let same = known.and_then(|all| all.iter_mut().find(|it| it.member == member));
        match same {
            Some(same) if now.keeps(same.mark, same.revision, revision) => {}
            Some(same) => *same = entry,
            None if self.count >= self.most => self.ignored.surplus += 1,
            None => {
                self.count += 1;
                // Nearly all have one.
                let all = self.entries.entry(peer);
                all.or_insert_with(|| Vec::with_capacity(1)).push(entry);
            }
        }
    }

    pub(super) fn delete(&mut self, peer: PeerId, relay: PeerId, revision: u64) {
        let Some(member) = self.index.get(&relay) else {
            return;
        };
        let now = self.now();
        let Some(all) = self.entries.get_mut(&peer) else {
            return;
        };
        let before = all.len();
        all.retain(|it| it.member != *member || now.keeps(it.mark, it.revision, revision));
        self.count -= before - all.len();
        if all.is_empty() {
            self.entries.remove(&peer);
        }
    }

    pub(super) fn begin_sync(&mut self) {
        self.mark = self.mark.wrapping_add(1);
        self.syncs = true;
    }

    /// What has not been seen since the beginning is gone.
    pub(super) fn end_sync(&mut self) {
        self.syncs = false;
        let mark = self.mark;
        self.members.retain(|_, member| member.mark == mark);
        let mut count = 0;
        self.entries.retain(|_, all| {
            all.retain(|it| it.mark == mark);
            count += all.len();
            !all.is_empty()
        });
        self.count = count;
        // What a large re-sync has dropped is given back.
        if self.entries.capacity() > 4 * self.entries.len() + 1024 {
            self.entries.shrink_to_fit();
        }
    }

    /// Where a peer is registered now: under its present id, else as the successor of this one.
    pub(super) fn find(&self, peer: PeerId, now: u64) -> Ways {
        let all = self.entries.get(&peer).into_iter().flatten();
        let mut all: Vec<&Entry> = all.filter(|it| it.lasts(now)).collect();
        if all.iter().any(|it| it.heir.is_none()) {
            all.retain(|it| it.heir.is_none());
        } else if (all.iter().zip(all.iter().skip(1))).any(|(one, next)| one.heir != next.heir) {
            return Ways::Contested;
        }
        all.sort_by_key(|it| std::cmp::Reverse(it.fence));
        let heir = all.first().and_then(|it| it.heir.as_deref().copied());
        let way = |it: &Entry| Some((*self.ids.get(usize::from(it.member))?, it.fence));
        Ways::At(all.into_iter().filter_map(way).collect(), heir)
    }

    /// How many registrations a peer has by one of its ids, at each other member where it has some. Those at one that is leaving do not
    /// count, or a peer that has as many as it may could not go elsewhere before they are gone.
    pub(super) fn held_elsewhere(&self, peer: PeerId, now: u64) -> Vec<(PeerId, u32)> {
        let all = self.entries.get(&peer).into_iter().flatten();
        let leaves = |at| (self.members.get(&at)).is_some_and(|it: &Member| it.about.leaving);
        let counted = all.filter(|it| it.count > 0 && it.lasts(now) && !leaves(it.member));
        let of = |it: &Entry| Some((*self.ids.get(usize::from(it.member))?, it.count));
        counted.filter_map(of).collect()
    }

    pub(super) fn about(&self, relay: PeerId) -> Option<&About> {
        let at = self.index.get(&relay)?;
        self.members.get(at).map(|member| &member.about)
    }

    /// The members that are there.
    pub(super) fn present(&self) -> impl Iterator<Item = (PeerId, &About)> {
        let of = |(at, member): (&u16, _)| Some((*self.ids.get(usize::from(*at))?, member));
        let all = self.members.iter().filter_map(of);
        all.map(|(id, member): (PeerId, &Member)| (id, &member.about))
    }

    /// Entries of registrations, and the peers that they are of.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.count, self.entries.len())
    }
}

impl Entry {
    fn lasts(&self, now: u64) -> bool {
        now < self.end.saturating_add(GRACE)
    }
}
