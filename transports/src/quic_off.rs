//! `quic:` in a build without the feature `quic`: the address is understood, and refused.
use std::time::Duration;

use crate::endpoint::{Endpoint, QuicSettings};
use crate::error::{Action, TransportError};
use crate::stream::Stream;

fn refused(action: Action, endpoint: &Endpoint) -> TransportError {
    let advice = "build it with the feature `quic`";
    TransportError::left_out(action, endpoint, "QUIC", advice)
}

#[allow(
    clippy::unused_async,
    reason = "the same signature as with the feature"
)]
pub(crate) async fn dial(
    endpoint: &Endpoint,
    _: &str,
    _: u16,
    _: &QuicSettings,
) -> Result<Stream, TransportError> {
    Err(refused(Action::Dial, endpoint))
}

pub(crate) enum QuicListener {}

#[allow(
    clippy::unused_async,
    reason = "the same signatures as with the feature"
)]
impl QuicListener {
    pub(crate) async fn bind(
        endpoint: &Endpoint,
        _: &str,
        _: u16,
        _: &QuicSettings,
    ) -> Result<(Self, u16), TransportError> {
        Err(refused(Action::Listen, endpoint))
    }

    pub(crate) async fn accept(&mut self, _: &Endpoint) -> Result<Stream, TransportError> {
        match *self {}
    }
}

/// For a program that is about to end: waits until what this process sends by itself, and not the system, is under way. Only streams of
/// `quic:` have any of it, and this build has none.
#[allow(
    clippy::unused_async,
    reason = "the same signature as with the feature"
)]
pub async fn settled(_: Duration) {}
