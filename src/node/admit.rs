//! Who the peer of a session is to this node, and whether there is room for the session.

use std::sync::{Arc, OnceLock};

use crate::gate::Source;
use crate::mux::{GoAwayCode, LimitKind};
use crate::session::Session;
use crate::stack::{self, Admission, Admitted, NotAdmitted};
use crate::tls::Peer;

use super::access::Who;
use super::core::Core;
use super::live::Path;
use super::seats::{Seat, Seats};
use super::shares::{self, Holder, SESSION_MEMORY, Scope, Shares};

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

/// Room for a session that comes in.
#[derive(Debug)]
pub(super) struct Inbound {
    shares: Shares,
    seats: Seats,
    host: Source,
    seat: OnceLock<Arc<Seat>>,
}

impl Inbound {
    pub(super) fn new(shares: &Shares, seats: &Seats, host: Source) -> Arc<Self> {
        Arc::new(Self {
            shares: shares.clone(),
            seats: seats.clone(),
            host,
            seat: OnceLock::new(),
        })
    }

    /// The place of the session that was let in.
    pub(super) fn seat(&self) -> Option<Arc<Seat>> {
        self.seat.get().cloned()
    }
}

impl stack::Admission for Inbound {
    fn admit(&self, peer: &Peer) -> Result<Admitted, NotAdmitted> {
        let holder = Holder {
            ids: shares::ids(peer.id(), peer.former_ids()),
            host: Some(self.host),
            named: peer.is_named(),
        };
        let ids = Arc::clone(&holder.ids);
        match self.seats.take(&self.shares, holder) {
            Ok(held) => {
                let memory = self.shares.memory_of(ids);
                let pool = memory.pool.clone();
                let own = pool.hold_anyway(SESSION_MEMORY);
                let seat = Arc::clone(self.seat.get_or_init(|| Arc::clone(&held.seat)));
                let kept = Arc::clone(&seat);
                let wanted = async move {
                    let code = GoAwayCode::Limit(LimitKind::Sessions);
                    seat.given_away().await.then_some(code)
                };
                let room = Admitted::holding((held, memory, own)).with_receive_pool(pool);
                let room = room.when_kept(move |since| kept.is_parked_if(since));
                Ok(room.until(wanted))
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cepa_transports::testkit::{LineSettings, cable};
    use cepa_transports::{Side, Stream};

    use super::*;
    use crate::identity::{AcceptAny, Identity, KeyKind};
    use crate::node::ShareLimits;
    use crate::resume::Config;
    use crate::stack::StackConfig;

    /// Before anybody has taken the session in: its place is known for one that waits as soon as it is kept.
    #[tokio::test]
    async fn the_place_of_a_session_that_waits_may_be_given_away_from_the_beginning() {
        let config = || {
            let own = Identity::generate(KeyKind::Ed25519).unwrap();
            StackConfig::new(own, Arc::new(AcceptAny)).with_resume(Some(Config::default()))
        };
        let (shares, seats) = (Shares::new(ShareLimits::default()), Seats::default());
        let room = Inbound::new(&shares, &seats, Source::HERE);
        let (client, mut server) = (config(), config());
        server.admission = Some(Arc::<Inbound>::clone(&room));
        let line = LineSettings::new(1e6);
        let (near, far) = cable(&line, &line, 1);
        let plug = near.watch();
        let (near, far) = (Stream::from_io(near, "near"), Stream::from_io(far, "far"));
        let (near, far) = tokio::join!(
            Box::pin(Session::handshake(near, &[], Side::Client, &client)),
            Box::pin(Session::handshake(far, &[], Side::Server, &server)),
        );
        let (_near, far) = (near.unwrap(), far.unwrap());
        plug.cut_off();
        while far.path().is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        seats.relief()(&[client.identity.peer_id()]);
        let seat = room.seat().unwrap();
        let given_away = tokio::time::timeout(Duration::from_secs(60), seat.given_away());
        given_away.await.expect("nobody knew that it waits");
    }
}
