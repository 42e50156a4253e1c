//! What an owner knows of introductions: who may introduce, the book, and what is written down.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::sleep;

use crate::backend::random;
use crate::identity::{PeerId, UnixTime};
use crate::node::{Access, Node, PeerAddr};
use crate::protocols::fair::{Payer, Rank};

use super::book::{Book, MAX_AHEAD};
use super::clock::{Clocks, Reading};
use super::flaw::Flaw;
use super::link::{Bound, Link};
use super::party::Party;
use super::record::{Record, StateFileError};
use super::statement::{Introduction, Terms};

/// See the head of this file.
pub(super) struct State {
    pub(super) node: Node,
    clocks: Clocks,
    introducers: Mutex<HashMap<String, Access>>,
    book: Mutex<Book>,
    record: Option<Arc<Record>>,
    /// What rooms above keep for this node.
    beside: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
}

impl State {
    pub(super) fn new(node: Node, file: Option<&Path>) -> Result<Self, StateFileError> {
        let clocks = Clocks::new();
        let reading = clocks.read();
        let (record, mark) = match file {
            Some(path) => {
                let (record, mark) = Record::open(path, reading.wall)?;
                (Some(Arc::new(record)), mark)
            }
            None => (None, None),
        };
        // Without random bytes there is none, and what names one is of another process.
        let epoch = random().ok();
        Ok(Self {
            node,
            clocks,
            introducers: Mutex::default(),
            book: Mutex::new(Book::new(epoch, mark, reading)),
            record,
            beside: Mutex::default(),
        })
    }

    pub(super) fn set_introducers(&self, service: &str, who: Access) {
        lock(&self.introducers).insert(service.to_owned(), who);
    }

    /// Whether it is the id of this node, or one that it had before.
    pub(super) fn is_own(&self, id: &PeerId) -> bool {
        self.node.is_own(id)
    }

    /// As what the issuer of a first link may introduce others to a service of this node, if at all. Its former keys count, as
    /// long as it proves them; those of this node do not, since a key that was replaced may be in other hands.
    pub(super) fn rank(&self, service: &str, first: &Link) -> Option<Payer> {
        let account = first.issuer;
        if account == self.node.id() {
            let rank = Rank::Owner;
            return Some(Payer { rank, account });
        }
        let introducers = lock(&self.introducers).get(service).cloned()?;
        Payer::among(&introducers, &first.issued_by(UnixTime::now()))
    }

    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.book)
    }

    pub(super) fn reading(&self) -> Reading {
        self.clocks.read()
    }

    /// The time by which the book goes.
    pub(super) fn now(&self) -> UnixTime {
        let reading = self.reading();
        UnixTime::since_unix_epoch(self.book().moment(reading).now)
    }

    /// Signs an introduction; one to a service that this node offers names the epoch of its process.
    pub(super) fn introduce(&self, to: &PeerAddr, terms: Terms) -> Result<Introduction, Flaw> {
        let node = &self.node;
        // Another process of the same owner, such as a command that only issues, has another epoch, and offers nothing.
        let is_own = node.is_own(&to.peer()) && node.offers(to.service());
        let bound = Bound {
            epoch: self.book().epoch().filter(|_| is_own),
            made_from: None,
        };
        Introduction::bound(node.identity(), to, terms, self.reading().wall, bound)
    }

    /// Writes down, where a file was given, that an introduction was let in or revoked; the file says so when this returns.
    pub(super) async fn record(&self, introduction: &Introduction) -> Result<(), Flaw> {
        let Some(record) = self.record.as_ref() else {
            return Ok(());
        };
        let issued = self.book().dates_from(introduction);
        let Some(issued) = issued.filter(|issued| !record.covers(*issued)) else {
            return Ok(());
        };
        let (record, passed) = (Arc::clone(record), self.reading().passed);
        let written = tokio::task::spawn_blocking(move || record.raise(issued, passed));
        let written = written.await.map_err(|error| error.to_string());
        written.and_then(|done| done).map_err(Flaw::NotRecorded)
    }

    /// Waits until our own clock comes to when an introduction was issued. Nothing is let in before, so that a process which
    /// begins later, and knows no more than that, knows what was before it.
    ///
    /// # Errors
    /// It is further ahead than can be waited for.
    pub(super) async fn wait_for(&self, introduction: &Introduction) -> Result<(), Flaw> {
        let reading = self.reading();
        let ahead = self.book().ahead(introduction, reading);
        if ahead > MAX_AHEAD {
            return Err(Flaw::NotYet);
        }
        if !ahead.is_zero() {
            sleep(ahead).await;
        }
        Ok(())
    }

    /// Takes back, as the peer that has issued it or as the owner.
    pub(super) async fn revoke(
        &self,
        introduction: &Introduction,
        by: &Party,
        payer: Payer,
    ) -> Result<(), Flaw> {
        self.wait_for(introduction).await?;
        // First whether it may be taken back, and when it was issued may be written down.
        let reading = self.reading();
        self.book().may_revoke(introduction, by, reading)?;
        self.record(introduction).await?;
        let reading = self.reading();
        self.book().revoke(introduction, by, payer, reading)
    }

    /// What a room above keeps for this node, one of each type.
    pub(super) fn beside<T: Any + Default + Send + Sync>(&self) -> Arc<T> {
        let mut beside = lock(&self.beside);
        let there = beside.entry(TypeId::of::<T>());
        let there = Arc::clone(there.or_insert_with(|| Arc::new(T::default())));
        // It was made of this type.
        there.downcast().unwrap_or_default()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is whole after the one statement that makes it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
