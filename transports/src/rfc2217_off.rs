//! `rfc2217:` in a build without that feature: the address is understood, and refused.
use crate::endpoint::{Endpoint, Rfc2217Settings};
use crate::error::{Action, TransportError, TransportErrorKind};
use crate::stream::Stream;

fn refused(action: Action, endpoint: &Endpoint) -> TransportError {
    let reason = "this program was built without serial servers";
    let advice = "build it with the feature `rfc2217`";
    TransportError::new(
        action,
        endpoint,
        TransportErrorKind::Unsupported,
        reason,
        advice,
    )
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

pub(crate) fn listen(endpoint: &Endpoint) -> TransportError {
    refused(Action::Listen, endpoint)
}
