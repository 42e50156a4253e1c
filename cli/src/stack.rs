//! How the commands set up a stack, and which addresses can carry a session.

use std::sync::Arc;

use cepa::identity::{Identity, TrustPolicy};
use cepa::stack::StackConfig;
use cepa::transports::{Endpoint, Layer};

use crate::exit::{Code, Failure};

/// The library's defaults, but for two of a substream's time limits. A command may think for hours
/// between the end of its input and its first word of output, and a reader may stop for as long
/// (a pager); neither is a fault that data should be cut for. Whether the peer still lives, the
/// session's own keepalive finds out.
pub(crate) fn of(identity: &Identity, trust: Arc<dyn TrustPolicy>) -> StackConfig {
    let mut config = StackConfig::new(identity.clone(), trust);
    config.mux.stream_timeouts.half_closed = None;
    config.mux.stream_timeouts.write_stalled = None;
    config
}

/// An address whose layers can carry a session: none written, or the mux above TLS, which may
/// stand on a link. The library
/// checks this too, but only once the stream is open.
pub(crate) fn carries_session(address: &Endpoint) -> Result<(), Failure> {
    match address.layers() {
        [] => Ok(()),
        [Layer::Mux, tls @ .., Layer::Link(_)] | [Layer::Mux, tls @ ..]
            if !tls.is_empty() && tls.iter().all(|l| l.is_tls()) =>
        {
            Ok(())
        }
        _ => Err(Failure::new(
            Code::Usage,
            format!(
                "{address}: these layers carry no session; write mux+tls+ in front, or no layers"
            ),
        )),
    }
}
