//! `serial:` in a build without the feature `serial`: the address is understood, and refused.
use std::path::Path;

use crate::endpoint::{Endpoint, SerialSettings};
use crate::error::{Action, TransportError};
use crate::stream::Stream;

fn refused(action: Action, endpoint: &Endpoint) -> TransportError {
    let advice = "build it with the feature `serial`";
    TransportError::left_out(action, endpoint, "serial ports", advice)
}

pub(crate) fn dial(
    endpoint: &Endpoint,
    _: &Path,
    _: &SerialSettings,
) -> Result<Stream, TransportError> {
    Err(refused(Action::Dial, endpoint))
}

pub(crate) enum SerialListener {}

impl SerialListener {
    pub(crate) fn new(
        endpoint: &Endpoint,
        _: &Path,
        _: &SerialSettings,
    ) -> Result<Self, TransportError> {
        Err(refused(Action::Listen, endpoint))
    }

    pub(crate) fn remarks(&self) -> &[String] {
        match *self {}
    }

    #[allow(
        clippy::unused_async,
        reason = "the same signature as with the feature"
    )]
    pub(crate) async fn accept(&mut self, _: &Endpoint) -> Result<Stream, TransportError> {
        match *self {}
    }
}
