//! The streams of a session in reusable slots, found by number or by key.
//!
//! A [`Key`] names a slot and the stream that was in it when the key was made, so that a stale key
//! finds nothing instead of a stranger.

use std::collections::HashMap;

use slab::Slab;

use super::stream_entry::Entry;

/// Names one stream of one session, for as long as that stream exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    slot: u32,
    pub(crate) id: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Store {
    slots: Slab<Entry>,
    by_id: HashMap<u32, u32>,
}

/// Limits on streams are far below what the type can say.
fn short(slot: usize) -> u32 {
    u32::try_from(slot).unwrap_or(u32::MAX)
}

impl Store {
    pub(crate) fn insert(&mut self, entry: Entry) -> Key {
        if self.slots.is_empty() {
            // Many sessions hold one stream; a Vec would begin with room for four.
            self.slots.reserve_exact(1);
        }
        let id = entry.id;
        let slot = short(self.slots.insert(entry));
        self.by_id.insert(id, slot);
        Key { slot, id }
    }

    pub(crate) fn find(&self, id: u32) -> Option<Key> {
        self.by_id.get(&id).map(|&slot| Key { slot, id })
    }

    pub(crate) fn get(&self, key: Key) -> Option<&Entry> {
        let entry = self.slots.get(key.slot as usize)?;
        (entry.id == key.id).then_some(entry)
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut Entry> {
        let entry = self.slots.get_mut(key.slot as usize)?;
        (entry.id == key.id).then_some(entry)
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<Entry> {
        self.get(key)?;
        let entry = self.slots.try_remove(key.slot as usize);
        self.by_id.remove(&key.id);
        if self.slots.is_empty() {
            // A burst of streams must not be paid for until the session ends.
            *self = Self::default();
        }
        entry
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &Entry)> {
        self.slots
            .iter()
            .map(|(slot, entry)| (key(slot, entry), entry))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut Entry)> {
        self.slots
            .iter_mut()
            .map(|(slot, entry)| (key(slot, entry), entry))
    }

    pub(crate) fn keys(&self) -> Vec<Key> {
        self.iter().map(|(key, _)| key).collect()
    }
}

fn key(slot: usize, entry: &Entry) -> Key {
    Key {
        slot: short(slot),
        id: entry.id,
    }
}
