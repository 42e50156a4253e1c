//! An error that is kept, and reported to everybody who is concerned: a clone is a reference to the same one.
//!
//! It is not an error itself. It stands in a field of one, where it is the source: so a program that walks the chain of
//! [`source`](std::error::Error::source) finds the error and not the reference, and can downcast it. (An `Arc` of an error is an
//! error, which hides the one inside from `downcast_ref`.)

use std::fmt;
use std::io;
use std::ops::Deref;
use std::sync::Arc;

/// A reference to an error. It has the error's text, and clones cost nothing.
#[derive(Debug)]
pub struct SharedError<E = io::Error>(Arc<E>);

impl<E> SharedError<E> {
    /// Keeps an error.
    pub fn new(error: E) -> Self {
        Self(Arc::new(error))
    }
}

impl<E> From<E> for SharedError<E> {
    fn from(error: E) -> Self {
        Self::new(error)
    }
}

impl<E> Clone for SharedError<E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<E> Deref for SharedError<E> {
    type Target = E;

    fn deref(&self) -> &E {
        &self.0
    }
}

impl<E: fmt::Display> fmt::Display for SharedError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
