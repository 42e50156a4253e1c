//! Who a node is, whom it lets in, and its limits.

use std::sync::Arc;
use std::time::Duration;

use crate::gate;
use crate::identity::{Identity, TrustPolicy};
use crate::stack::StackConfig;

use super::resolve::Resolver;
use super::shares::ShareLimits;

/// Who a node is, whom it lets in, and its limits. Start from [`NodeConfig::new`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NodeConfig {
    /// Identity, limits of the mux and time limits of every session. Its trust is for peers that dial this
    /// node; a peer that this node dials has to be the one that its address names.
    pub stack: StackConfig,
    /// Who says where a peer is whose address has no hints; default nobody.
    pub resolver: Option<Arc<dyn Resolver>>,
    /// Streams that may be on their way to a session at once, and what those that fail bring upon where they
    /// came from. Each relay is a source of its own.
    pub gate: gate::Config,
    /// What one peer, one host and all peers together may hold: sessions, subprocesses, descriptors, memory.
    pub shares: ShareLimits,
    /// After so long without a substream or data a session is closed; default 15 min, `None` for never. A peer that is needed again is dialled
    /// again.
    pub idle_timeout: Option<Duration>,
    /// Whether hints are followed that open something else than a network connection: `unix:`, `exec:`, `ssh:`, `serial:` and the
    /// like. Default no: an address is data that comes from anywhere, and such a hint runs commands and opens devices here.
    pub local_hints: bool,
    /// How much later than the hint before it a hint is tried, while none has answered; default 250 ms
    /// (RFC 8305, section 8, has the same).
    pub stagger: Duration,
    /// How much later than the last way without a relay a relay is tried, while such a way is under way; default 500 ms. A direct way
    /// takes three round trips where a relay may take one, so this lets one of 160 ms win; go-libp2p's dialler waits as long.
    pub head_start: Duration,
    /// When a direct way is looked for while a session leads through a relay; then at longer and
    /// longer intervals. Default 10 s.
    pub upgrade_after: Duration,
}

setters!(NodeConfig {
    with_stack => stack: StackConfig,
    with_resolver => resolver: Option<Arc<dyn Resolver>>,
    with_gate => gate: gate::Config,
    with_shares => shares: ShareLimits,
    with_idle_timeout => idle_timeout: Option<Duration>,
    with_local_hints => local_hints: bool,
    with_stagger => stagger: Duration,
    with_head_start => head_start: Duration,
    with_upgrade_after => upgrade_after: Duration,
});

impl NodeConfig {
    /// The defaults, for this identity; `trust` decides who may have a session with it.
    #[must_use]
    pub fn new(identity: Identity, trust: Arc<dyn TrustPolicy>) -> Self {
        Self {
            stack: StackConfig::new(identity, trust),
            resolver: None,
            gate: gate::Config::default(),
            shares: ShareLimits::default(),
            idle_timeout: Some(Duration::from_secs(15 * 60)),
            local_hints: false,
            stagger: Duration::from_millis(250),
            head_start: Duration::from_millis(500),
            upgrade_after: Duration::from_secs(10),
        }
    }
}
