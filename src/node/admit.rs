//! Who the peer of a session is to this node, and whether there is room for the session.

use std::sync::Arc;

use crate::gate::Source;
use crate::mux::{GoAwayCode, LimitKind};
use crate::session::Session;
use crate::stack::{self, Admission, Admitted, NotAdmitted};
use crate::tls::Peer;

use super::access::Who;
use super::core::Core;
use super::live::Path;
use super::shares::{self, Holder, Resource, SESSION_MEMORY, Scope, Shares};

/// A session costs one descriptor.
pub(super) const SESSION: [(Resource, usize); 2] =
    [(Resource::Sessions, 1), (Resource::Descriptors, 1)];

/// What a session needs that this node dials: memory, from the pool of its peer. That it is made is this node's own doing, or that of
/// whoever pays for it (`dial.rs`).
pub(super) fn outbound(shares: &Shares) -> Arc<dyn Admission> {
    Arc::new(Outbound(shares.clone()))
}

#[derive(Debug)]
struct Outbound(Shares);

impl stack::Admission for Outbound {
    fn admit(&self, peer: &Peer) -> Result<Admitted, NotAdmitted> {
        let memory = self.0.memory_of(shares::ids(peer.id(), peer.former_ids()));
        let pool = memory.pool.clone();
        let own = pool.hold_anyway(SESSION_MEMORY);
        Ok(Admitted::holding((memory, own)).with_receive_pool(pool))
    }
}

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
            ids: shares::ids(peer.id(), peer.former_ids()),
            host: self.host,
            named: peer.is_named(),
        };
        let ids = Arc::clone(&holder.ids);
        match self.shares.take(holder, &SESSION) {
            Ok(share) => {
                let memory = self.shares.memory_of(ids);
                let pool = memory.pool.clone();
                let own = pool.hold_anyway(SESSION_MEMORY);
                Ok(Admitted::holding((share, memory, own)).with_receive_pool(pool))
            }
            Err(exceeded) => Err(NotAdmitted {
                code: GoAwayCode::Limit(match exceeded.scope {
                    Scope::Peer => LimitKind::PeerSessions,
                    Scope::Host => LimitKind::HostSessions,
                    Scope::All => LimitKind::Sessions,
                }),
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
