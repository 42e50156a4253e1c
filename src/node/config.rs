//! Who a node is, whom it lets in, and its limits.

use std::sync::Arc;
use std::time::Duration;

use crate::gate;
use crate::identity::{Identity, TrustPolicy};
use crate::stack::StackConfig;

use super::resolve::Resolver;

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
    /// came from. A circuit of a relay counts as one from this machine: its bytes do not say from where.
    pub gate: gate::Config,
    /// Sessions at once; default 256. Each may use the mux's receive budget.
    pub sessions: usize,
    /// Substreams forwarded at once, to services of other peers; default 64. Each is one on either side, and has two
    /// windows; and forwarders that lead in a ring come to an end here.
    pub forwards: usize,
    /// How much later than the hint before it a hint is tried, while none has answered; default 250 ms
    /// (RFC 8305, section 8, has the same).
    pub stagger: Duration,
    /// When a direct way is looked for while a session leads through a relay; then at longer and
    /// longer intervals. Default 10 s.
    pub upgrade_after: Duration,
    /// Lifetime that is asked for when registering at a relay; default 1 h.
    pub registration: Duration,
}

impl NodeConfig {
    /// The defaults, for this identity; `trust` decides who may have a session with it.
    #[must_use]
    pub fn new(identity: Identity, trust: Arc<dyn TrustPolicy>) -> Self {
        Self {
            stack: StackConfig::new(identity, trust),
            resolver: None,
            gate: gate::Config::default(),
            sessions: 256,
            forwards: 64,
            stagger: Duration::from_millis(250),
            upgrade_after: Duration::from_secs(10),
            registration: Duration::from_secs(3600),
        }
    }
}
