//! What an owner of services knows of introductions: who may introduce others, and what became of those that were used.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::identity::{PeerId, UnixTime};
use crate::node::{Access, Node};

use super::book::Book;

/// What an owner knows of introductions.
pub(super) struct State {
    pub(super) node: Node,
    introducers: Mutex<HashMap<String, Access>>,
    book: Mutex<Book>,
}

impl State {
    pub(super) fn new(node: Node) -> Self {
        Self {
            node,
            introducers: Mutex::default(),
            book: Mutex::new(Book::new(UnixTime::now())),
        }
    }

    pub(super) fn set_introducers(&self, service: &str, who: Access) {
        lock(&self.introducers).insert(service.to_owned(), who);
    }

    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.book)
    }

    pub(super) fn may_introduce(&self, service: &str, issuer: &PeerId) -> bool {
        let introducers = lock(&self.introducers);
        introducers
            .get(service)
            .is_some_and(|who| who.lists(issuer))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is whole after the one statement that makes it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
