//! The consoles that a server keeps, by whose they are and what they are called there: how many, and for how long.
//!
//! A name is one of its peer's, at one service: nobody else finds what is behind it. A peer is whoever has the key that has opened
//! the console, or one that has replaced it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cepa::gate::Source;
use cepa::identity::PeerId;
use cepa::node::Access;
use cepa::tls::Peer;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::kept::{Door, Kept, Label};
use super::seat::Seat;
use super::wire::Found;

/// Most that one peer keeps: each is a command that runs on with nobody there.
const OF_A_PEER: usize = 4;

/// Most that all keep together.
const OF_ALL: usize = 64;

/// Most of them that strangers keep, all together: a quarter is for peers that are known by name.
const OF_STRANGERS: usize = OF_ALL - OF_ALL / 4;

/// Most that strangers of one host keep.
const OF_A_HOST: usize = 16;

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
    /// The latest that nobody came back to: by key, service and name.
    expired: VecDeque<(PeerId, String, String)>,
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
    stranger: Option<Stranger>,
}

/// Somebody who is not known by name, and the host it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stranger(pub(crate) Option<Source>);

impl Entry {
    fn is_of(&self, peer: &Peer) -> bool {
        self.ids.first().is_some_and(|id| peer.is(id))
    }
}

/// What there is under a name.
pub(crate) enum Place {
    /// A console.
    Kept(mpsc::Sender<Seat>),
    /// Nothing; it was taken for a new one.
    Free(Label, Door),
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

    /// What this peer has under this name at this service. `Err` says in one line that there is no place for another one.
    pub(crate) fn place(
        self: &Arc<Self>,
        peer: &Peer,
        service: &str,
        name: &str,
        stranger: Option<Stranger>,
    ) -> Result<Place, String> {
        let mut list = self.list();
        let here = |entry: &&Entry| entry.service == service && entry.name == name;
        let mut own = list.entries.iter().filter(|entry| entry.is_of(peer));
        if let Some(entry) = own.find(here) {
            return Ok(Place::Kept(entry.seats.clone()));
        }
        let ids: Vec<PeerId> = std::iter::once(peer.id())
            .chain(peer.former_ids().iter().copied())
            .collect();
        // Any number of heirs of one key keep together what that key may.
        let related = |entry: &&Entry| entry.ids.iter().any(|id| ids.contains(id));
        let related: Vec<&Entry> = list.entries.iter().filter(related).collect();
        if related.len() >= OF_A_PEER {
            let names = related.iter().filter(|entry| entry.is_of(peer));
            let names: Vec<&str> = names.map(|entry| entry.name.as_str()).collect();
            return Err(format!(
                "{OF_A_PEER} consoles of one peer are kept already ({}): attach to one and end it",
                names.join(", ")
            ));
        }
        if list.entries.len() >= OF_ALL {
            return Err(format!(
                "{OF_ALL} consoles are kept already: try again later, or leave out --attach"
            ));
        }
        if let Some(Stranger(host)) = stranger {
            let strangers = list.entries.iter().filter_map(|entry| entry.stranger);
            let here = strangers.clone().filter(|other| other.0 == host).count();
            if host.is_some() && here >= OF_A_HOST {
                return Err(format!(
                    "{OF_A_HOST} consoles of one host are kept already: have the peer allowed by name"
                ));
            }
            if strangers.count() >= OF_STRANGERS {
                return Err(format!(
                    "{OF_STRANGERS} consoles are kept already: try again later, or leave out --attach"
                ));
            }
        }
        let is_this =
            |it: &(PeerId, String, String)| peer.is(&it.0) && it.1 == service && it.2 == name;
        let expired = list.expired.iter().position(is_this);
        let found = match expired.and_then(|at| list.expired.remove(at)) {
            Some(_) => Found::Expired,
            None => Found::Nothing,
        };
        let (sender, seats) = mpsc::channel(1);
        list.count += 1;
        let number = list.count;
        list.entries.push(Entry {
            number,
            ids,
            service: service.to_owned(),
            name: name.to_owned(),
            seats: sender,
            stranger,
        });
        let this = Arc::clone(self);
        let label = Label {
            peer: peer.id(),
            service: service.to_owned(),
            name: name.to_owned(),
        };
        let it = label.clone();
        let close = move |expired: bool| {
            let mut list = this.list();
            list.entries.retain(|entry| entry.number != number);
            if expired {
                list.expired.truncate(OF_ALL - 1);
                list.expired.push_front((it.peer, it.service, it.name));
            }
        };
        let door = Door {
            seats,
            found,
            expired: false,
            close: Some(Box::new(close)),
        };
        Ok(Place::Free(label, door))
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
                stranger: None,
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
