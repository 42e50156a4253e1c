//! Who the peer of a session is to this node, and whether there is room for the session.

use std::sync::Arc;

use crate::gate::Source;
use crate::session::Session;
use crate::stack::{self, Admission, Admitted, NotAdmitted};
use crate::tls::Peer;

use super::access::Who;
use super::call::Path;
use super::core::Core;
use super::shares::{Holder, Resource, Shares};

/// A session costs one descriptor.
const SESSION: [(Resource, usize); 2] = [(Resource::Sessions, 1), (Resource::Descriptors, 1)];

/// Room for sessions that come in.
pub(super) fn inbound(shares: &Shares, host: Option<Source>) -> Arc<dyn Admission> {
    Arc::new(Inbound {
        shares: shares.clone(),
        host,
    })
}

#[derive(Debug)]
struct Inbound {
    shares: Shares,
    host: Option<Source>,
}

impl stack::Admission for Inbound {
    fn admit(&self, peer: &Peer) -> Result<Admitted, NotAdmitted> {
        let holder = Holder {
            peer: peer.id(),
            host: self.host,
            named: peer.is_named(),
        };
        match self.shares.take(holder, &SESSION) {
            Ok(share) => Ok(Admitted::holding(share)),
            Err(exceeded) => Err(NotAdmitted {
                code: 0,
                reason: exceeded.to_string(),
            }),
        }
    }
}

/// Who the peer of a session is to this node.
pub(super) async fn who(core: &Core, session: &Session, path: &Path) -> Who {
    let peer = session.peer();
    Who {
        id: peer.id(),
        former: peer.former_ids().to_vec(),
        named: if path.dialled {
            core.names(peer).await
        } else {
            peer.is_named()
        },
    }
}
