//! What a service's owner remembers of introductions: how often each was used, by whom, and which are revoked.
//! No IO; the time is an argument.
//!
//! **What is remembered.** A link is remembered from its first use until it expires, and only where that matters: where its
//! uses are counted, where it is for whoever uses it first, or where it was revoked. Each use counts on every step from
//! the beginning on ([`Introduction::steps`]), and what holds for one holds for all behind it: used up, revoked, or
//! somebody else's. So what is behind a step that is dead need not be remembered.
//!
//! **To whom it is charged.** What the first issuer's own links need is charged to it; what was passed on is charged to
//! whoever has passed it on, below the link that it was made from, with room of its own; and revocations by the first
//! issuer and the owner have room of their own again (`../fair.rs` divides each). Where there is none for another
//! revocation by who has passed on, that is noted on the link that it had itself: all that it had passed on so far
//! is revoked then. So a revocation by who has passed on is a fact of a few bytes at worst, and takes no room from others.
//!
//! **What was before.** The book lives as long as its process. What may have been used up or revoked before is refused: what
//! does not name this process's epoch must have been issued after the process began, or after the newest that an earlier
//! one has let in, where that was written down (`record.rs`). For that to hold, nothing is let in before
//! the owner's own clock has come to when it was issued.

use std::collections::HashMap;
use std::time::Duration;

use crate::identity::PeerId;
use crate::node::PeerAddr;
use crate::protocols::fair::{Payer, Pool, Rank};

use super::clock::{Moment, Reading, Time};
use super::flaw::Flaw;
use super::link::{Ancestor, Epoch, Link, Name, Step};
use super::party::Party;
use super::statement::Introduction;

/// How far an issuer's clock may be ahead of ours: what was issued then waits for so long.
pub(super) const MAX_AHEAD: Duration = Duration::from_secs(10);

/// Most links that are remembered. Beyond it no more are let in: to forget one would be to let it in again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Links of first issuers that are in use, and those of one.
    pub(super) uses: (usize, usize),
    /// Links that were passed on, and those that go back to one first issuer; a quarter of that below one link.
    pub(super) below: (usize, usize),
    /// Links that their first issuer, or the owner, has revoked before they were used; and those of one.
    pub(super) revoked: (usize, usize),
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            uses: (32_768, 4096),
            below: (16_384, 4096),
            revoked: (16_384, 4096),
        }
    }
}

/// Who is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Account {
    /// A first issuer, or the owner that revokes.
    Peer(PeerId),
    /// A link, for what was made from it.
    Link(Name),
    /// A link, for what is noted on itself.
    Note(Name),
}

/// Longest path of accounts: a first issuer and three links. What is below is charged to the last.
const MAX_PATH: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    Uses,
    Below,
    Revoked,
}

/// Where an entry has its place.
#[derive(Clone, Debug)]
struct Charge {
    room: Room,
    rank: Rank,
    path: Vec<Account>,
}

#[derive(Debug)]
struct Entry {
    /// None for what a membrane keeps, which has bounds of its own.
    charge: Option<Charge>,
    /// Membranes that keep it.
    kept: u32,
    /// Seconds since 1970.
    expires: u64,
    used: u32,
    uses: Option<u32>,
    /// Whose it is, if it was for whoever came first.
    first: Option<PeerId>,
    revoked: Option<PeerId>,
    /// The step before.
    parent: Option<Name>,
    /// When it was passed on by the recipient of that.
    passed_on: Option<u64>,
    /// What was passed on from it up to then is revoked, by whom.
    below_revoked: Option<(u64, PeerId)>,
}

impl Entry {
    fn new(step: &Step, parent: Option<&Step>, charge: Option<Charge>) -> Self {
        Self {
            charge,
            kept: 0,
            parent: parent.map(|parent| parent.name),
            expires: step.expires,
            used: 0,
            uses: step.uses,
            first: None,
            revoked: None,
            passed_on: step.passed_on,
            below_revoked: None,
        }
    }

    /// What it is behind, as far as its path of accounts goes.
    fn above(&self) -> impl Iterator<Item = Name> {
        let path = self.charge.iter().flat_map(|charge| &charge.path);
        path.filter_map(|account| match account {
            Account::Link(name) => Some(*name),
            Account::Peer(_) | Account::Note(_) => None,
        })
    }

    /// Nothing behind it is let in any more.
    fn is_dead(&self) -> bool {
        self.revoked.is_some() || self.uses.is_some_and(|most| self.used >= most)
    }
}

/// See the head of this file.
pub(super) struct Book {
    epoch: Option<Epoch>,
    time: Time,
    /// The newest that earlier processes may have let in, where that is known.
    mark: Option<Duration>,
    links: HashMap<Name, Entry>,
    uses: Pool<Account>,
    below: Pool<Account>,
    revoked: Pool<Account>,
    /// When it was last looked for what can be forgotten, in seconds.
    tidied: u64,
}

impl Book {
    pub(super) fn new(epoch: Option<Epoch>, mark: Option<Duration>, reading: Reading) -> Self {
        Self::with_limits(epoch, mark, reading, Limits::default())
    }

    pub(super) fn with_limits(
        epoch: Option<Epoch>,
        mark: Option<Duration>,
        reading: Reading,
        limits: Limits,
    ) -> Self {
        let pool = |(all, one)| Pool::new(all, one);
        Self {
            epoch,
            time: Time::new(reading),
            mark,
            links: HashMap::new(),
            uses: pool(limits.uses),
            below: pool(limits.below),
            revoked: pool(limits.revoked),
            tidied: 0,
        }
    }

    pub(super) fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    /// The time by which it goes.
    pub(super) fn moment(&mut self, reading: Reading) -> Moment {
        self.time.at(reading)
    }

    /// How long it is until our clock comes to when an introduction was issued; nothing where it has.
    pub(super) fn ahead(&mut self, introduction: &Introduction, reading: Reading) -> Duration {
        let now = self.time.at(reading).now;
        let newest = self.dated(introduction).max().unwrap_or_default();
        newest.saturating_sub(now)
    }

    /// When it was issued, where that has to be written down: none where it names this epoch.
    pub(super) fn dates_from(&self, introduction: &Introduction) -> Option<Duration> {
        let first = introduction.links().first()?;
        (!self.is_of_now(first)).then(|| first.issued())
    }

    /// Whether a link was made while this process lives, whatever the clocks say.
    fn is_of_now(&self, link: &Link) -> bool {
        link.epoch().is_some() && link.epoch() == self.epoch
    }

    /// When its links were issued, but for one that is known to be of this process.
    fn dated(&self, introduction: &Introduction) -> impl Iterator<Item = Duration> {
        let dated = introduction.links().iter();
        dated.filter(|link| !self.is_of_now(link)).map(Link::issued)
    }

    /// Says why a peer may not use an introduction, and counts nothing. Whether there is room is not looked at.
    ///
    /// The introduction has been found to hang together, and to be signed.
    pub(super) fn judge(
        &mut self,
        introduction: &Introduction,
        who: &Party,
        reading: Reading,
    ) -> Result<(), Flaw> {
        self.is_current(introduction, reading)?;
        let last = introduction.last()?;
        if last.recipient().is_some_and(|to| !who.is(&to)) || who.is(&last.issuer) {
            return Err(Flaw::NotYours);
        }
        self.is_alive(&introduction.steps(), Some(who))
    }

    /// Counts one use by a peer, or says why not; then nothing is counted.
    pub(super) fn admit(
        &mut self,
        introduction: &Introduction,
        who: &Party,
        payer: Payer,
        reading: Reading,
    ) -> Result<(), Flaw> {
        self.judge(introduction, who, reading)?;
        let now = self.time.at(reading).now.as_secs();
        let steps = introduction.steps();
        let counted = |step: &Step| step.uses.is_some() || step.bearer;
        let mut new = Vec::new();
        for (at, step) in steps.iter().enumerate() {
            if !counted(step) || self.links.contains_key(&step.name) {
                continue;
            }
            let charge = charge_of(introduction, &steps, at, payer);
            if !self.take(&charge, now) {
                for (_, charge) in &new {
                    self.give_back(charge);
                }
                return Err(Flaw::Full);
            }
            new.push((at, charge));
        }
        for (at, charge) in new {
            if let Some(step) = steps.get(at) {
                let parent = at.checked_sub(1).and_then(|before| steps.get(before));
                let entry = Entry::new(step, parent, Some(charge));
                self.links.insert(step.name, entry);
            }
        }
        for step in steps.iter().filter(|step| counted(step)) {
            if let Some(entry) = self.links.get_mut(&step.name) {
                entry.used = entry.used.saturating_add(1);
                if step.bearer {
                    entry.first.get_or_insert(who.id);
                }
            }
        }
        Ok(())
    }

    /// Says why nobody gets in with it any more; whether uses are left is not looked at.
    pub(super) fn is_standing(
        &mut self,
        introduction: &Introduction,
        reading: Reading,
    ) -> Result<(), Flaw> {
        self.is_current(introduction, reading)?;
        match self.is_alive(&introduction.steps(), None) {
            Err(Flaw::Revoked { by }) => Err(Flaw::Revoked { by }),
            _ => Ok(()),
        }
    }

    /// Takes back the link that `by` has issued, and with it all that was made from it. The owner may take back any.
    pub(super) fn revoke(
        &mut self,
        introduction: &Introduction,
        by: &Party,
        payer: Payer,
        reading: Reading,
    ) -> Result<(), Flaw> {
        let Some((index, by_owner)) = self.what_to_revoke(introduction, by, reading)? else {
            return Ok(());
        };
        let steps = introduction.steps();
        let (before, rest) = steps.split_at(index.min(steps.len()));
        let Some(step) = rest.first() else {
            return Err(Flaw::NotYours);
        };
        let step_and_before = steps.get(..=index).unwrap_or_default();
        let is_revoked = matches!(
            self.is_alive(step_and_before, None),
            Err(Flaw::Revoked { .. })
        );
        if is_revoked || self.is_alive(before, None).is_err() {
            // It is, or what it was made from is dead, and remembered for as long.
            return Ok(());
        }
        if let Some(entry) = self.links.get_mut(&step.name) {
            entry.revoked.get_or_insert(by.id);
            return Ok(());
        }
        let now = self.time.at(reading).now.as_secs();
        if by_owner || index == 0 {
            let (rank, account) = if by_owner {
                (Rank::Owner, by.id)
            } else {
                (payer.rank, payer.account)
            };
            let charge = Charge {
                room: Room::Revoked,
                rank,
                path: vec![Account::Peer(account)],
            };
            if !self.take(&charge, now) {
                return Err(Flaw::Full);
            }
            self.enter_revoked(step, before.last(), charge, by.id);
            return Ok(());
        }
        // Whoever has passed it on. There is always room for a note on what it had itself.
        self.note(before, payer, now)?;
        let charge = charge_of(introduction, &steps, index, payer);
        if self.take(&charge, now) {
            self.enter_revoked(step, before.last(), charge, by.id);
        } else if let (Some(parent), Some(when)) = (before.last(), step.passed_on)
            && let Some(noted) = self.links.get_mut(&parent.name)
        {
            let until = noted.below_revoked.map_or(0, |(until, _)| until);
            noted.below_revoked = Some((until.max(when), by.id));
        } else {
            return Err(Flaw::Full);
        }
        Ok(())
    }

    /// Says why a peer may not take it back.
    pub(super) fn may_revoke(
        &mut self,
        introduction: &Introduction,
        by: &Party,
        reading: Reading,
    ) -> Result<(), Flaw> {
        self.what_to_revoke(introduction, by, reading).map(drop)
    }

    /// Which step is to be revoked, and whether it is the owner that does; none where nobody gets in with it anyway.
    fn what_to_revoke(
        &mut self,
        introduction: &Introduction,
        by: &Party,
        reading: Reading,
    ) -> Result<Option<(usize, bool)>, Flaw> {
        match self.is_current(introduction, reading) {
            Err(Flaw::Forgotten) => return Ok(None),
            other => other?,
        }
        let owner = introduction.address().map(PeerAddr::peer);
        let by_owner = owner.is_some_and(|owner| by.is(&owner));
        let links = introduction.links();
        let index = links
            .iter()
            .position(|link| by_owner || by.is(&link.issuer))
            .ok_or(Flaw::NotYours)?;
        let made_from = introduction.steps().len().saturating_sub(links.len());
        Ok(Some((made_from + index, by_owner)))
    }

    fn enter_revoked(&mut self, step: &Step, parent: Option<&Step>, charge: Charge, by: PeerId) {
        let mut entry = Entry::new(step, parent, Some(charge));
        entry.revoked = Some(by);
        self.links.insert(step.name, entry);
    }

    /// Makes sure that something can be noted on the last of these.
    fn note(&mut self, steps: &[Step], payer: Payer, now: u64) -> Result<(), Flaw> {
        let Some((step, before)) = steps.split_last() else {
            return Ok(());
        };
        if self.links.contains_key(&step.name) {
            return Ok(());
        }
        let charge = Charge {
            room: Room::Below,
            rank: payer.rank,
            path: vec![Account::Peer(payer.account), Account::Note(step.name)],
        };
        if !self.take(&charge, now) {
            return Err(Flaw::Full);
        }
        let entry = Entry::new(step, before.last(), Some(charge));
        self.links.insert(step.name, entry);
        Ok(())
    }

    /// Remembers what a membrane has let through, for as long as it keeps it.
    pub(super) fn keep(&mut self, introduction: &Introduction) -> Result<(), Flaw> {
        let ancestry = introduction.ancestry()?;
        for step in ancestry.iter().map(Ancestor::step) {
            let entry = self.links.entry(step.name);
            let entry = entry.or_insert_with(|| Entry::new(&step, None, None));
            entry.kept = entry.kept.saturating_add(1);
        }
        Ok(())
    }

    /// The membrane keeps it no longer, and offers nothing that was made from it.
    pub(super) fn release(&mut self, name: Name) {
        let Some(entry) = self.links.get_mut(&name) else {
            return;
        };
        entry.kept = entry.kept.saturating_sub(1);
        if entry.kept == 0 && entry.charge.is_none() {
            self.links.remove(&name);
        }
    }

    fn is_current(&mut self, introduction: &Introduction, reading: Reading) -> Result<(), Flaw> {
        let Moment { now, began } = self.time.at(reading);
        if now.as_secs() > introduction.expires().as_secs() {
            return Err(Flaw::Expired);
        }
        let Some(first) = introduction.links().first() else {
            return Err(Flaw::Malformed("it has no links".into()));
        };
        // Whatever names an epoch is of that process, and of no other.
        let is_dated = first.epoch().is_none() && first.issued() > self.mark.unwrap_or(began);
        if !is_dated && !self.is_of_now(first) {
            return Err(Flaw::Forgotten);
        }
        if self.dated(introduction).any(|issued| issued > now) {
            return Err(Flaw::NotYet);
        }
        Ok(())
    }

    /// Whether nothing that it was made from is used up, revoked, or somebody else's.
    fn is_alive(&self, steps: &[Step], who: Option<&Party>) -> Result<(), Flaw> {
        let mut before: Option<&Entry> = None;
        for step in steps {
            let below = before.and_then(|before| before.below_revoked);
            if let (Some((until, by)), Some(when)) = (below, step.passed_on)
                && when <= until
            {
                return Err(Flaw::Revoked { by });
            }
            before = self.links.get(&step.name);
            let Some(entry) = before else {
                if step.uses == Some(0) {
                    return Err(Flaw::UsedUp);
                }
                continue;
            };
            if let Some(by) = entry.revoked {
                return Err(Flaw::Revoked { by });
            }
            let taken = entry.first.zip(who);
            if taken.is_some_and(|(first, who)| !who.is(&first)) {
                return Err(Flaw::NotYours);
            }
            if step.uses.is_some_and(|most| entry.used >= most) {
                return Err(Flaw::UsedUp);
            }
        }
        Ok(())
    }

    /// Whether an entry that is behind this link is refused for the link's sake.
    fn is_over(&self, entry: &Entry, above: Name) -> bool {
        let Some(link) = self.links.get(&above) else {
            return false;
        };
        let noted = link.below_revoked.filter(|_| entry.parent == Some(above));
        let noted = entry.passed_on.zip(noted);
        link.is_dead() || noted.is_some_and(|(when, (until, _))| when <= until)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.links.len()
    }

    fn room(&mut self, room: Room) -> &mut Pool<Account> {
        match room {
            Room::Uses => &mut self.uses,
            Room::Below => &mut self.below,
            Room::Revoked => &mut self.revoked,
        }
    }

    fn take(&mut self, charge: &Charge, now: u64) -> bool {
        if self.room(charge.room).take(charge.rank, &charge.path) {
            return true;
        }
        // Once a second at most, since it looks at all of them.
        if self.tidied >= now {
            return false;
        }
        self.tidied = now;
        self.tidy(now);
        self.room(charge.room).take(charge.rank, &charge.path)
    }

    fn give_back(&mut self, charge: &Charge) {
        self.room(charge.room).give_back(charge.rank, &charge.path);
    }

    /// Forgets what is refused without being remembered: what has expired, and what was made from something that is dead.
    fn tidy(&mut self, now: u64) {
        let gone = |entry: &Entry| {
            entry.kept == 0
                && (entry.expires < now || entry.above().any(|name| self.is_over(entry, name)))
        };
        let gone: Vec<Name> = self
            .links
            .iter()
            .filter(|(_, entry)| gone(entry))
            .map(|(name, _)| *name)
            .collect();
        for name in gone {
            if let Some(charge) = self.links.remove(&name).and_then(|entry| entry.charge) {
                self.give_back(&charge);
            }
        }
    }
}

/// Who pays for remembering a step.
fn charge_of(introduction: &Introduction, steps: &[Step], at: usize, payer: Payer) -> Charge {
    let is_root = at == 0 && !introduction.is_made();
    let above = steps.iter().take(at).map(|step| Account::Link(step.name));
    let path = std::iter::once(Account::Peer(payer.account)).chain(above);
    let path = path.take(MAX_PATH).collect();
    Charge {
        room: if is_root { Room::Uses } else { Room::Below },
        rank: payer.rank,
        path,
    }
}
