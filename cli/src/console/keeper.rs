//! The consoles that a server keeps, by whose they are and what they are called there, and for how long.
//!
//! How many they may be is the node's question, as for everything that peers make grow (`Resource::Consoles`). An entry here holds the
//! part of whoever it is for. Where a peer that is known by name finds no place, strangers' consoles that nobody sits at give way: of
//! the host that has most, the one that was left first.
//!
//! A name is one of its peer's, at one service: nobody else finds what is behind it. A peer is whoever has the key that has opened
//! the console, or one that has replaced it.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cepa::gate::Source;
use cepa::identity::PeerId;
use cepa::node::{Access, Call, Exceeded, Resource, Scope, Share};
use cepa::tls::Peer;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::kept::{Door, Kept, Label};
use super::presence::{Presence, Why};
use super::seat::Seat;
use super::wire::{Found, Listed, Message, in_seconds};

/// Names of consoles that are gone, for whoever comes back to them.
const REMEMBERED: usize = 64;

/// How long commands may take to end once they are hung up, where the server ends.
const GOODBYE: Duration = Duration::from_secs(2);

/// The list.
#[derive(Debug)]
pub(crate) struct Keeper {
    /// How long a console is kept that nobody is attached to; none are kept without it.
    time: Option<Duration>,
    list: Mutex<List>,
    stop: watch::Sender<bool>,
    running: Mutex<JoinSet<()>>,
}

#[derive(Debug, Default)]
struct List {
    entries: Vec<Entry>,
    /// What became of the latest that are not for whoever comes back: by key, service and name.
    gone: VecDeque<(PeerId, String, String, Found)>,
    count: u64,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    /// The key that has opened it, then those that it had replaced.
    ids: Vec<PeerId>,
    service: String,
    name: String,
    seats: mpsc::Sender<Seat>,
    presence: Presence,
    whose: Whose,
    /// Its place in the node's pool, which is free as soon as nobody finds it here.
    _share: Option<Share>,
}

/// Whether a console may have to give way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Named,
    /// From this host, if it came in.
    Stranger(Option<Source>),
}

impl Entry {
    fn is_of(&self, peer: &Peer) -> bool {
        self.ids.first().is_some_and(|id| peer.is(id))
    }
}

impl List {
    /// Strangers' consoles that nobody sits at, in the order in which they give way.
    fn spare(&self) -> Vec<u64> {
        let at = |host| {
            let there = self.entries.iter().filter(|it| it.whose == host);
            there.count()
        };
        let alone = self.entries.iter().filter_map(|it| {
            let since = it.presence.alone_since()?;
            (it.whose != Whose::Named).then(|| (Reverse(at(it.whose)), since, it.number))
        });
        let mut alone: Vec<_> = alone.collect();
        alone.sort_unstable();
        alone.into_iter().map(|(_, _, number)| number).collect()
    }

    /// Nobody finds it any more, and it ends.
    fn end(&mut self, number: u64, why: Why) {
        self.entries.retain(|entry| {
            let stays = entry.number != number;
            if !stays {
                entry.presence.ends(why);
            }
            stays
        });
    }

    /// Why there is no place, with what a peer at its own limit has.
    fn full(&self, peer: &Peer, exceeded: &Exceeded) -> String {
        let own = self.entries.iter().filter(|entry| entry.is_of(peer));
        let names: Vec<&str> = own.map(|entry| entry.name.as_str()).collect();
        match exceeded.scope {
            Scope::Peer if !names.is_empty() => format!(
                "{} consoles of one peer are kept already ({}): attach to one and end it",
                exceeded.limit,
                names.join(", ")
            ),
            _ => exceeded.to_string(),
        }
    }
}

/// What there is under a name.
pub(crate) enum Place {
    /// A console.
    Kept(mpsc::Sender<Seat>),
    /// Nothing; it was taken for a new one.
    Free(Label, Box<Door>),
}

impl Keeper {
    /// Keeps consoles for so long, or none.
    pub(crate) fn new(time: Option<Duration>) -> Arc<Self> {
        Arc::new(Self {
            time,
            list: Mutex::default(),
            stop: watch::Sender::new(false),
            running: Mutex::default(),
        })
    }

    pub(crate) fn time(&self) -> Option<Duration> {
        self.time
    }

    /// What whoever calls has under this name at this service. `Err` says in one line that there is no place for another one.
    pub(crate) fn place(
        self: &Arc<Self>,
        call: &Call,
        service: &str,
        name: &str,
    ) -> Result<Place, String> {
        let (peer, context) = (call.peer(), call.context());
        let mut list = self.list();
        let here = |entry: &&Entry| entry.service == service && entry.name == name;
        let mut own = list.entries.iter().filter(|entry| entry.is_of(peer));
        if let Some(entry) = own.find(here) {
            return Ok(Place::Kept(entry.seats.clone()));
        }
        let spare = list.spare();
        let (share, displaced) = call
            .hold_displacing((Resource::Consoles, 1), spare.len())
            .map_err(|exceeded| list.full(peer, &exceeded))?;
        for number in spare.iter().take(displaced) {
            list.end(*number, Why::Displaced);
        }
        let ids: Vec<PeerId> = std::iter::once(peer.id())
            .chain(peer.former_ids().iter().copied())
            .collect();
        let is_this = |it: &(PeerId, String, String, Found)| {
            peer.is(&it.0) && it.1 == service && it.2 == name
        };
        let gone = list.gone.iter().position(is_this);
        let gone = gone.and_then(|at| list.gone.remove(at));
        let found = gone.map_or(Found::Nothing, |(.., found)| found);
        let (sender, seats) = mpsc::channel(1);
        list.count += 1;
        let number = list.count;
        let presence = Presence::of(call.session());
        list.entries.push(Entry {
            number,
            ids,
            service: service.to_owned(),
            name: name.to_owned(),
            seats: sender,
            presence: presence.clone(),
            whose: if context.is_named() {
                Whose::Named
            } else {
                Whose::Stranger(context.source())
            },
            _share: Some(share),
        });
        let this = Arc::clone(self);
        let label = Label {
            peer: peer.id(),
            service: service.to_owned(),
            name: name.to_owned(),
        };
        let it = label.clone();
        let close = move |gone: Option<Found>| {
            let mut list = this.list();
            list.entries.retain(|entry| entry.number != number);
            if let Some(found) = gone {
                list.gone.truncate(REMEMBERED - 1);
                list.gone.push_front((it.peer, it.service, it.name, found));
            }
        };
        let door = Door {
            seats,
            found,
            gone: None,
            presence,
            close: Some(Box::new(close)),
        };
        Ok(Place::Free(label, Box::new(door)))
    }

    /// What is kept for a peer, the oldest first.
    pub(crate) fn list_of(&self, peer: &Peer) -> Vec<Message> {
        let keep = self.time.unwrap_or_default();
        let list = self.list();
        let own = list.entries.iter().filter(|entry| entry.is_of(peer));
        let all = own.map(|entry| {
            let state = entry.presence.state();
            let left = match state.alone {
                None => keep,
                Some(alone) => keep.saturating_sub(alone),
            };
            Message::Console(Listed {
                attached: state.alone.is_none(),
                seconds: in_seconds(state.there),
                left: in_seconds(left),
                name: entry.name.clone(),
                service: entry.service.clone(),
            })
        });
        all.collect()
    }

    /// Ends what a peer has under this name at this service; what this gives ends with the command. Nothing if there is no such one.
    pub(crate) fn hang_up(
        &self,
        peer: &Peer,
        service: &str,
        name: &str,
    ) -> Option<oneshot::Receiver<()>> {
        let mut list = self.list();
        let mut own = list.entries.iter().filter(|entry| entry.is_of(peer));
        let it = own.find(|entry| entry.service == service && entry.name == name)?;
        let (number, gone) = (it.number, it.presence.gone());
        list.end(number, Why::Asked);
        Some(gone)
    }

    /// Runs a console from here on.
    pub(crate) fn run(&self, kept: Kept, first: Seat) {
        let mut running = self.running();
        while running.try_join_next().is_some() {}
        running.spawn(kept.run(first, self.stop.subscribe()));
    }

    /// The service is gone, or is another one: nobody finds its consoles any more, and each ends.
    pub(crate) fn withdraw(&self, service: &str) {
        let mut list = self.list();
        list.entries.retain(|entry| entry.service != service);
    }

    /// Other peers may open the service now: the consoles of those end who might before. Whoever was introduced is no such one.
    pub(crate) fn restrict(&self, service: &str, before: &Access, now: &Access) {
        let may = |access: &Access, ids: &[PeerId]| ids.iter().any(|id| access.lists(id));
        let mut list = self.list();
        list.entries.retain(|entry| {
            entry.service != service || !may(before, &entry.ids) || may(now, &entry.ids)
        });
    }

    /// Hangs all of them up, gives them a moment, and kills what is left.
    pub(crate) async fn end(&self) {
        self.stop.send_replace(true);
        let mut running = std::mem::take(&mut *self.running());
        let all = async { while running.join_next().await.is_some() {} };
        let _ = timeout(GOODBYE, all).await;
        // Dropped, they are killed before this returns.
        running.shutdown().await;
    }

    fn list(&self) -> MutexGuard<'_, List> {
        // Each change is whole after the one statement that makes it.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consoles_of_a_peer_that_may_not_any_more_end_and_others_stay() {
        let keeper = Keeper::new(Some(Duration::from_secs(60)));
        let id = |n| PeerId::from_bytes([n; 32]);
        let mut doors = Vec::new();
        for (n, service) in [(1, "sh"), (2, "sh"), (3, "sh"), (1, "other")] {
            let (sender, seats) = mpsc::channel(1);
            doors.push(seats);
            keeper.list().entries.push(Entry {
                number: u64::from(n),
                ids: vec![id(n)],
                service: service.to_owned(),
                name: "work".to_owned(),
                seats: sender,
                presence: Presence::default(),
                whose: Whose::Named,
                _share: None,
            });
        }
        // The third was introduced.
        let (before, now) = (Access::peers([id(1), id(2)]), Access::peers([id(2)]));
        keeper.restrict("sh", &before, &now);
        let ended: Vec<bool> = doors.iter().map(mpsc::Receiver::is_closed).collect();
        assert_eq!(ended, [true, false, false, false]);
        keeper.withdraw("sh");
        let ended: Vec<bool> = doors.iter().map(mpsc::Receiver::is_closed).collect();
        assert_eq!(ended, [true, true, true, false]);
    }
}
