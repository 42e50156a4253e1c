//! `ws:` and `wss:` in a build without the feature `ws`: the address is understood, and refused.
use crate::endpoint::{Endpoint, WsSettings};
use crate::error::{Action, TransportError};
use crate::stream::Stream;

fn refused(action: Action, endpoint: &Endpoint) -> TransportError {
    let advice = "build it with the feature `ws`, or `wss` for those under TLS";
    TransportError::left_out(action, endpoint, "WebSockets", advice)
}

#[allow(
    clippy::unused_async,
    reason = "the same signature as with the feature"
)]
pub(crate) async fn dial(
    endpoint: &Endpoint,
    _: &str,
    _: u16,
    _: &str,
    _: &WsSettings,
) -> Result<Stream, TransportError> {
    Err(refused(Action::Dial, endpoint))
}

pub(crate) enum WsListener {}

#[allow(
    clippy::unused_async,
    reason = "the same signatures as with the feature"
)]
impl WsListener {
    pub(crate) async fn bind(
        endpoint: &Endpoint,
        _: &str,
        _: u16,
        _: &str,
        _: &WsSettings,
    ) -> Result<(Self, u16), TransportError> {
        Err(refused(Action::Listen, endpoint))
    }

    pub(crate) async fn accept(&mut self, _: &Endpoint) -> Result<Stream, TransportError> {
        match *self {}
    }
}
