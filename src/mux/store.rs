//! The streams of a session in reusable slots, found by number or by key.
//!
//! A [`Key`] names a slot and the stream that was in it when the key was made, so that a stale key
//! finds nothing instead of a stranger.

use std::collections::HashMap;

use super::stream_entry::Entry;

/// Names one stream of one session, for as long as that stream exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    slot: u32,
    pub(crate) id: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Store {
    slots: Vec<Option<Entry>>,
    free: Vec<u32>,
    by_id: HashMap<u32, u32>,
}

impl Store {
    pub(crate) fn insert(&mut self, entry: Entry) -> Key {
        let id = entry.id;
        let slot = self.free.pop().unwrap_or_else(|| {
            if self.slots.is_empty() {
                // Many sessions hold one stream; a Vec would begin with room for four.
                self.slots.reserve_exact(1);
            }
            self.slots.push(None);
            // Limits on streams are far below what the type can say.
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        if let Some(place) = self.slots.get_mut(slot as usize) {
            debug_assert!(place.is_none(), "a free slot is empty");
            *place = Some(entry);
        }
        self.by_id.insert(id, slot);
        Key { slot, id }
    }

    pub(crate) fn find(&self, id: u32) -> Option<Key> {
        self.by_id.get(&id).map(|&slot| Key { slot, id })
    }

    pub(crate) fn get(&self, key: Key) -> Option<&Entry> {
        self.slots
            .get(key.slot as usize)?
            .as_ref()
            .filter(|entry| entry.id == key.id)
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut Entry> {
        self.slots
            .get_mut(key.slot as usize)?
            .as_mut()
            .filter(|entry| entry.id == key.id)
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<Entry> {
        self.get(key)?;
        let entry = self.slots.get_mut(key.slot as usize)?.take();
        self.by_id.remove(&key.id);
        self.free.push(key.slot);
        if self.by_id.is_empty() {
            // A burst of streams must not be paid for until the session ends.
            *self = Self::default();
        }
        entry
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &Entry)> {
        (0..).zip(&self.slots).filter_map(|(slot, entry)| {
            let entry = entry.as_ref()?;
            Some((Key { slot, id: entry.id }, entry))
        })
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut Entry)> {
        (0..).zip(&mut self.slots).filter_map(|(slot, entry)| {
            let entry = entry.as_mut()?;
            Some((Key { slot, id: entry.id }, entry))
        })
    }

    pub(crate) fn keys(&self) -> Vec<Key> {
        self.iter().map(|(key, _)| key).collect()
    }
}
