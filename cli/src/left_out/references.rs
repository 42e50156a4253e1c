//! In place of `references.rs` in a build without the feature `mesh`: there are none of them, and a word that is one says so.

use std::fmt;
use std::str::FromStr;

use cepa::node::PeerAddr;

/// Nobody has one.
#[derive(Clone, Debug)]
pub(crate) enum Introduction {}

impl Introduction {
    pub(crate) fn address(&self) -> Option<&PeerAddr> {
        match *self {}
    }
}

/// Nobody has one.
#[derive(Clone, Debug)]
pub(crate) enum Ticket {}

/// Nobody has one.
#[derive(Clone, Debug)]
pub(crate) enum ShortCode {}

impl ShortCode {
    pub(crate) fn is_meant(_word: &str) -> bool {
        false
    }
}

/// Why a word is none of them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum CodeTextError {
    /// Nothing is a code here, so none has a wrong sum.
    #[allow(dead_code)]
    Sum,
    LeftOut,
}

impl fmt::Display for CodeTextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "this cepa was built without tickets, short codes and introductions (feature `mesh`)",
        )
    }
}

macro_rules! left_out {
    ($($name:ident)*) => {$(
        impl FromStr for $name {
            type Err = CodeTextError;

            fn from_str(_word: &str) -> Result<Self, CodeTextError> {
                Err(CodeTextError::LeftOut)
            }
        }
    )*};
}

left_out!(Introduction Ticket ShortCode);
