//! In place of `sharing/` in a build without the feature `mesh`: no connection is shared.

use cepa::identity::Identity;
use cepa::session::Session;

use crate::args::DialTarget;
use crate::exit::Failure;

/// Nothing is shared anywhere.
#[derive(Debug)]
pub(crate) enum Place {}

impl Place {
    // As in `sharing/place.rs`, where it can fail.
    #[allow(clippy::unnecessary_wraps)]
    pub(crate) fn of(_target: &DialTarget, _identity: &Identity) -> Result<Option<Self>, Failure> {
        Ok(None)
    }
}

/// Nobody has one.
pub(crate) enum First {}

/// Whose turn it is to dial.
pub(crate) enum Turn {
    #[allow(dead_code)]
    Borrowed(Session),
    #[allow(dead_code)]
    First(Box<First>),
}

#[allow(clippy::unused_async)]
pub(crate) async fn come(place: &Place, _identity: &Identity) -> Result<Turn, Failure> {
    match *place {}
}

impl First {
    pub(crate) fn lend(self, _session: &Session, _identity: &Identity) -> Lending {
        match self {}
    }
}

/// Nobody borrows.
#[derive(Debug)]
pub(crate) enum Lending {}

impl Lending {
    pub(crate) fn is_lent(&self) -> bool {
        match *self {}
    }

    #[allow(clippy::unused_async)]
    pub(crate) async fn end(self, _session: &Session) -> Option<Lock> {
        match self {}
    }
}

/// Nobody holds one.
#[derive(Debug)]
pub(crate) enum Lock {}
