//! The node of a command, with everything that peers do with each other.

use std::path::Path;

use cepa::node::{Access, Node, NodeConfig};
#[cfg(feature = "nat")]
use cepa::protocols::direct::{self as paths, DirectConfig};
use cepa::protocols::forward::Forwarder;
use cepa::protocols::introduction::{Introductions, IntroductionsError};
use cepa::protocols::relay::Relays;
use cepa::protocols::sealed::Sealed;

use crate::direct::{self, DirectChoice};
use crate::exit::{Code, Failure};

/// A node with everything that peers do with each other.
#[derive(Clone)]
pub(crate) struct Mesh {
    pub(crate) node: Node,
    pub(crate) relays: Relays,
    pub(crate) introductions: Introductions,
    pub(crate) sealed: Sealed,
    pub(crate) forwarder: Forwarder,
}

impl Mesh {
    pub(crate) fn new(config: NodeConfig) -> Result<Self, Failure> {
        Self::with_state(config, None)
    }

    /// The same, with a file that says across restarts which introductions of others are used up or revoked.
    pub(crate) fn with_state(config: NodeConfig, state: Option<&Path>) -> Result<Self, Failure> {
        Self::with_direct(config, state, direct::choice(None))
    }

    /// The same, with what is to be done about direct paths, where the node's configuration has its ports for that.
    pub(crate) fn with_direct(
        config: NodeConfig,
        state: Option<&Path>,
        choice: DirectChoice,
    ) -> Result<Self, Failure> {
        #[cfg(feature = "nat")]
        let wants_direct = config.stack.shared_port;
        let node = Node::new(config);
        #[cfg(feature = "nat")]
        if let (true, DirectChoice::Yes(means)) = (wants_direct, choice) {
            let wanted = DirectConfig::default()
                .with_private(means.private)
                .with_map(means.map);
            paths::on(&node, wanted).map_err(|e| Failure::new(Code::Other, e.to_string()))?;
        }
        // Without that feature it makes no difference.
        let _ = choice;
        let introductions = match state {
            Some(file) => Introductions::on_with_state(&node, file),
            None => Introductions::on(&node),
        };
        Ok(Self {
            relays: Relays::on(&node).map_err(|e| Failure::new(Code::Other, e.to_string()))?,
            introductions: introductions.map_err(|e| {
                let code = match e {
                    IntroductionsError::StateFile(_) => Code::Local,
                    _ => Code::Other,
                };
                Failure::of(code, &e)
            })?,
            sealed: Sealed::on(&node).map_err(|e| Failure::new(Code::Other, e.to_string()))?,
            forwarder: Forwarder::new(&node),
            node,
        })
    }

    /// Who may introduce others to the service of this name.
    pub(crate) fn introducers(&self, service: &str, who: Access) {
        self.introductions.introducers(service, who);
    }
}
