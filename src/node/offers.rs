//! What a node offers, for protocols that tell peers of it.

use super::Node;
use super::access::Access;
use super::call::CallContext;
use super::serving::{self, Open};

impl CallContext {
    /// Whether the peer may open what is offered to these, in its session: for a protocol that offers several things under one name.
    pub fn may(&self, access: &Access) -> bool {
        serving::may(self, access)
    }
}

impl Node {
    /// Whether there is a service of that very name.
    pub fn offers(&self, name: &str) -> bool {
        self.core.named_service(name).is_some()
    }

    /// Which services the peer of a call may open in its session, in its own right: by introductions it may have others.
    pub fn open_to(&self, context: &CallContext) -> Open {
        serving::open_to(&self.core, context)
    }
}
