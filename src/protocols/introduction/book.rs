//! What a service's owner remembers of introductions: how often each was used, by whom, and which are revoked.
//! No IO; the time is an argument.
//!
//! A link is remembered from its first use until it expires, and only where that matters: where its uses are
//! counted, where it is for whoever uses it first, or where it was revoked. The book lives as long as
//! its process. So what was issued before it began is refused: that it was used up or revoked may
//! have been forgotten.

use std::collections::HashMap;
use std::time::Duration;

use crate::identity::{PeerId, UnixTime};
use crate::node::PeerAddr;

use super::flaw::Flaw;
use super::statement::Introduction;

/// Most links that are remembered, and most of one first issuer. Beyond it no more are admitted: to forget
/// one would be to let it in again.
const MOST: usize = 65_536;
const MOST_OF_ONE: usize = 4096;

/// How far an issuer's clock may be ahead of ours.
const SKEW: Duration = Duration::from_secs(60);

struct Entry {
    /// Who began the chain; what it fills is counted to them.
    root: PeerId,
    expires: UnixTime,
    used: u32,
    /// Whose it is, if it was for whoever came first.
    first: Option<PeerId>,
    revoked: Option<PeerId>,
}

/// See the head of this file.
pub(super) struct Book {
    since: UnixTime,
    links: HashMap<[u8; 32], Entry>,
    of_one: HashMap<PeerId, usize>,
}

impl Book {
    pub(super) fn new(now: UnixTime) -> Self {
        Self {
            since: now,
            links: HashMap::new(),
            of_one: HashMap::new(),
        }
    }

    /// Counts one use by a peer, or says why not; then nothing is counted.
    ///
    /// The introduction has been found to hang together, and to be signed.
    pub(super) fn admit(
        &mut self,
        introduction: &Introduction,
        peer: PeerId,
        now: UnixTime,
    ) -> Result<(), Flaw> {
        self.is_current(introduction, now)?;
        let last = introduction.last()?;
        if last.recipient().is_some_and(|recipient| recipient != peer) || last.issuer == peer {
            return Err(Flaw::NotYours);
        }
        for link in introduction.links() {
            let Some(entry) = self.links.get(&link.name()) else {
                if link.uses() == Some(0) {
                    return Err(Flaw::UsedUp);
                }
                continue;
            };
            if let Some(by) = entry.revoked {
                return Err(Flaw::Revoked { by });
            }
            if entry.first.is_some_and(|first| first != peer) {
                return Err(Flaw::NotYours);
            }
            if link.uses().is_some_and(|most| entry.used >= most) {
                return Err(Flaw::UsedUp);
            }
        }
        let counted =
            |uses: Option<u32>, recipient: Option<PeerId>| uses.is_some() || recipient.is_none();
        self.make_room(introduction, now, counted)?;
        for link in introduction.links() {
            if counted(link.uses(), link.recipient()) {
                let entry = self.entry(introduction, link.name(), link.expires());
                entry.used = entry.used.saturating_add(1);
                if link.recipient().is_none() {
                    entry.first = Some(peer);
                }
            }
        }
        Ok(())
    }

    /// Who has taken it, or one that it was passed on from, back.
    pub(super) fn revoked(&self, introduction: &Introduction) -> Option<PeerId> {
        let links = introduction.links().iter();
        let mut entries = links.filter_map(|link| self.links.get(&link.name()));
        entries.find_map(|entry| entry.revoked)
    }

    /// Takes back the link that `by` has issued, and with it all that was passed on from it.
    pub(super) fn revoke(
        &mut self,
        introduction: &Introduction,
        by: PeerId,
        now: UnixTime,
    ) -> Result<(), Flaw> {
        if now > introduction.expires() {
            return Err(Flaw::Expired);
        }
        // The owner may take back whatever leads to it.
        let owner = introduction.address().map(PeerAddr::peer);
        let mut links = introduction.links().iter();
        let link = links.find(|link| link.issuer == by || Some(by) == owner);
        let link = link.ok_or(Flaw::NotYours)?;
        let (name, expires) = (link.name(), link.expires());
        self.make_room(introduction, now, |_, _| true)?;
        self.entry(introduction, name, expires).revoked = Some(by);
        Ok(())
    }

    fn is_current(&self, introduction: &Introduction, now: UnixTime) -> Result<(), Flaw> {
        if now > introduction.expires() {
            return Err(Flaw::Expired);
        }
        for link in introduction.links() {
            if seconds(link.issued()) > seconds(now).saturating_add(SKEW.as_secs()) {
                return Err(Flaw::NotYet);
            }
            if link.issued() < self.since {
                return Err(Flaw::Forgotten);
            }
        }
        Ok(())
    }

    fn entry(&mut self, whole: &Introduction, name: [u8; 32], expires: UnixTime) -> &mut Entry {
        let root = whole
            .links()
            .first()
            .map_or(PeerId::from_bytes([0; 32]), |l| l.issuer);
        let of_one = &mut self.of_one;
        self.links.entry(name).or_insert_with(|| {
            *of_one.entry(root).or_default() += 1;
            Entry {
                root,
                expires,
                used: 0,
                first: None,
                revoked: None,
            }
        })
    }

    /// Makes sure that the links which will be remembered find room.
    fn make_room(
        &mut self,
        introduction: &Introduction,
        now: UnixTime,
        remembered: impl Fn(Option<u32>, Option<PeerId>) -> bool,
    ) -> Result<(), Flaw> {
        let new = introduction
            .links()
            .iter()
            .filter(|link| remembered(link.uses(), link.recipient()))
            .filter(|link| !self.links.contains_key(&link.name()))
            .count();
        let root = introduction.links().first().map(|link| link.issuer);
        let fits = |book: &Self| {
            let of_one = root.and_then(|root| book.of_one.get(&root)).copied();
            book.links.len() + new <= MOST && of_one.unwrap_or(0) + new <= MOST_OF_ONE
        };
        if new == 0 || fits(self) {
            return Ok(());
        }
        // Those that have expired are refused for that.
        let of_one = &mut self.of_one;
        self.links.retain(|_, entry| {
            let keep = entry.expires >= now;
            if !keep && let Some(count) = of_one.get_mut(&entry.root) {
                *count -= 1;
            }
            keep
        });
        of_one.retain(|_, count| *count > 0);
        if fits(self) { Ok(()) } else { Err(Flaw::Full) }
    }
}

fn seconds(time: UnixTime) -> u64 {
    time.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Identity, KeyKind};
    use crate::protocols::introduction::Terms;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    fn one(issuer: &Identity, terms: Terms) -> Introduction {
        let to = format!("cepa://{}/up", PeerId::from_bytes([9; 32]));
        Introduction::new(issuer, &to.parse().unwrap(), terms, at(61)).unwrap()
    }

    fn id(byte: u8) -> PeerId {
        PeerId::from_bytes([byte; 32])
    }

    #[test]
    fn one_issuer_cannot_fill_the_book_and_what_expires_makes_room() {
        let [one_key, other] = [(); 2].map(|()| Identity::generate(KeyKind::Ed25519).unwrap());
        let mut book = Book::new(at(0));
        for _ in 0..MOST_OF_ONE {
            let it = one(&one_key, Terms::until(at(100)));
            book.admit(&it, id(1), at(60)).unwrap();
        }
        let more = one(&one_key, Terms::until(at(200)));
        assert_eq!(book.admit(&more, id(1), at(60)), Err(Flaw::Full));
        let others = one(&other, Terms::until(at(200)));
        book.admit(&others, id(1), at(60)).unwrap();
        book.admit(&more, id(1), at(101)).unwrap();
        assert_eq!((book.links.len(), book.of_one[&one_key.peer_id()]), (2, 1));
    }

    #[test]
    fn what_needs_no_memory_takes_none() {
        let key = Identity::generate(KeyKind::Ed25519).unwrap();
        let mut book = Book::new(at(0));
        let it = one(&key, Terms::until(at(100)).for_peer(id(1)).uses(None));
        for _ in 0..10 {
            book.admit(&it, id(1), at(100)).unwrap();
        }
        assert!(book.links.is_empty());
        assert_eq!(book.admit(&it, id(1), at(101)), Err(Flaw::Expired));
    }

    #[test]
    fn clocks_and_restarts() {
        let key = Identity::generate(KeyKind::Ed25519).unwrap();
        let it = one(&key, Terms::until(at(1000)));
        let mut early = Book::new(at(0));
        assert_eq!(early.admit(&it, id(1), at(0)), Err(Flaw::NotYet));
        let mut late = Book::new(at(62));
        assert_eq!(late.admit(&it, id(1), at(70)), Err(Flaw::Forgotten));
    }
}
