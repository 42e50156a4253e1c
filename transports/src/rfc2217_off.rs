//! `rfc2217:` in a build without that feature: the address is understood, and refused.
use crate::endpoint::{Endpoint, Rfc2217Settings};
use crate::error::{Action, TransportError};
use crate::stream::Stream;

fn refused(action: Action, endpoint: &Endpoint) -> TransportError {
    let advice = "build it with the feature `rfc2217`";
    TransportError::left_out(action, endpoint, "serial servers", advice)
}

#[allow(
    clippy::unused_async,
    reason = "the same signature as with the feature"
)]
pub(crate) async fn dial(
    endpoint: &Endpoint,
    _: &str,
    _: u16,
    _: &Rfc2217Settings,
) -> Result<Stream, TransportError> {
    Err(refused(Action::Dial, endpoint))
}

pub(crate) enum Rfc2217Listener {}

#[allow(
    clippy::unused_async,
    reason = "the same signatures as with the feature"
)]
impl Rfc2217Listener {
    pub(crate) async fn bind(
        endpoint: &Endpoint,
        _: &str,
        _: u16,
        _: &Rfc2217Settings,
    ) -> Result<(Self, u16), TransportError> {
        Err(refused(Action::Listen, endpoint))
    }

    pub(crate) async fn accept(&mut self, _: &Endpoint) -> Result<Stream, TransportError> {
        match *self {}
    }
}
