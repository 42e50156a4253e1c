//! Why a WebSocket was not opened or listened for; `ws/mod.rs` makes the error of an address of it.
use std::io;

use crate::error::TransportErrorKind as Kind;

/// Why a WebSocket was not opened.
pub(super) struct Failure {
    pub(super) kind: Kind,
    pub(super) reason: String,
    pub(super) advice: &'static str,
    pub(super) source: Option<io::Error>,
}

impl Failure {
    pub(super) fn new(kind: Kind, reason: impl Into<String>, advice: &'static str) -> Self {
        Self {
            kind,
            reason: reason.into(),
            advice,
            source: None,
        }
    }
}
