//! What two peers say to each other, up to the moment at which both begin.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use cepa_transports::{Network, PortListener, Remote, SharedPort};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::backend::random;
use crate::identity::PeerId;
use crate::session::{Session, reserved};
use crate::wire::{Message, linger_close, receive, send};

use super::super::relay::{Nonce, verify, where_seen};
use super::event::NotDirect;
use super::message::{Begin, Offer, Word};
use super::policy::{self, Here};
use super::state::Direct;

/// For one answer of the peer, which may have to ask its relay.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long an attempt waits for another one to end; less than the peer waits for that.
const TURN: Duration = Duration::from_secs(15);

/// From when the end that was dialled is ready until the other one begins: some round trips. Meanwhile it has its turn.
const GO: Duration = Duration::from_secs(10);

/// The part of that in which the end that has dialled measures, and waits for its turn.
const READY: Duration = Duration::from_secs(8);

/// For the last word to be sent, and for the peer to read why not.
const GOODBYE: Duration = Duration::from_secs(3);

/// Round trips that are measured; the quickest counts, since bulk may stand before the others.
const PINGS: usize = 3;

/// What is tried, when it is begun.
pub(super) struct Plan<'a> {
    /// Nobody else listens there until this is dropped.
    pub(super) turn: SemaphorePermit<'a>,
    pub(super) port: SharedPort,
    pub(super) listener: PortListener,
    pub(super) addresses: Vec<SocketAddr>,
}

/// This end of a session through a relay.
pub(super) struct End<'a> {
    direct: &'a Direct,
    session: &'a Session,
    /// The peer may know where this node is in its own network.
    trusted: bool,
    /// The session with the relay, and from where it leaves.
    relay: Session,
    port: SharedPort,
}

impl<'a> End<'a> {
    /// None where the session's way to the relay is of no use for this.
    pub(super) fn of(
        direct: &'a Direct,
        session: &'a Session,
        trusted: bool,
    ) -> Result<Self, NotDirect> {
        let path = session.path().ok_or(NotDirect::NoPort)?;
        let Remote::Circuit { relay, .. } = path.remote else {
            return Err(NotDirect::NoPort);
        };
        let relay = direct.node.session_with(PeerId::from_bytes(relay));
        let relay = relay.ok_or(NotDirect::NoPort)?;
        let below = relay.path().ok_or(NotDirect::NoPort)?;
        // What came in came to the port of a listener.
        let dialled = below.side == crate::Side::Client;
        let (Remote::Tcp(_), Some(local), true) = (below.remote, below.local, dialled) else {
            return Err(NotDirect::NoPort);
        };
        Ok(Self {
            direct,
            session,
            trusted,
            relay,
            port: SharedPort::of(local),
        })
    }

    /// The end that has dialled. Returns when it is time to begin.
    pub(super) async fn ask(&self) -> Result<Plan<'a>, NotDirect> {
        let opened = timeout(PATIENCE, self.session.open(reserved::NAT)).await;
        let mut stream = opened
            .map_err(|_| silent())?
            .map_err(|error| NotDirect::NotOffered(error.into()))?;
        let nonce = nonce()?;
        say(&mut stream, &Begin::new(nonce)).await?;
        let theirs: Offer = hear(&mut stream).await?;
        refused(theirs.refusal())?;
        let for_them = theirs.nonce().ok_or_else(no_sense)?;
        let (seen, offer) = self.offer(for_them, None).await?;
        let addresses = match self.to_try(&theirs, nonce, seen) {
            Ok(addresses) => addresses,
            Err(why) => {
                if let Ok(Ok(())) = timeout(
                    PATIENCE,
                    send(&mut stream, &Offer::refused(&why.to_string())),
                )
                .await
                {
                    linger_close(&mut stream, GOODBYE).await;
                }
                return Err(why);
            }
        };
        say(&mut stream, &offer).await?;
        let ready: Word = hear(&mut stream).await?;
        refused(ready.refusal())?;
        let until = Instant::now() + READY;
        let mut half = Duration::MAX;
        for _ in 0..PINGS {
            let ping = timeout_at(until, self.session.ping()).await;
            let round_trip = ping.map_err(|_| silent())?.map_err(talk)?;
            half = half.min(round_trip / 2);
        }
        // Only now, that the peer is ready: whoever makes a node wait for its answers keeps nobody else from trying.
        let plan = match self.take_turn(addresses, until).await {
            Ok(plan) => plan,
            Err(why) => {
                let word = Word::refused(&why.to_string());
                if let Ok(Ok(())) = timeout(GOODBYE, send(&mut stream, &word)).await {
                    linger_close(&mut stream, GOODBYE).await;
                }
                return Err(why);
            }
        };
        let said = timeout(GOODBYE, send(&mut stream, &Word::done())).await;
        said.map_err(|_| silent())?.map_err(talk)?;
        sleep(half).await;
        Ok(plan)
    }

    /// The end that was dialled. Returns when it is time to begin.
    pub(super) async fn answer<S>(
        &self,
        stream: &mut S,
        begin: &Begin,
    ) -> Result<Plan<'a>, NotDirect>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let nonce = nonce()?;
        let (seen, offer) = self.offer(begin.nonce(), Some(nonce)).await?;
        say(stream, &offer).await?;
        let theirs: Offer = hear(stream).await?;
        refused(theirs.refusal())?;
        let planned = match self.to_try(&theirs, nonce, seen) {
            Ok(addresses) => self.take_turn(addresses, Instant::now() + TURN).await,
            Err(why) => Err(why),
        };
        let plan = match planned {
            Ok(plan) => plan,
            Err(why) => {
                let _ = timeout(PATIENCE, send(stream, &Word::refused(&why.to_string()))).await;
                return Err(why);
            }
        };
        // A peer that does not read this keeps others from trying no longer than one that does not answer.
        let go = timeout(GO, async {
            say(stream, &Word::done()).await?;
            hear::<Word>(stream).await
        });
        let go = go.await.map_err(|_| silent())??;
        refused(go.refusal())?;
        Ok(plan)
    }

    /// Where the relay sees this end; and that, with its local address, for the peer.
    async fn offer(
        &self,
        for_them: Nonce,
        nonce: Option<Nonce>,
    ) -> Result<(SocketAddr, Offer), NotDirect> {
        let seen = where_seen(&self.relay, self.direct.node.id(), for_them).await;
        let (seen, signed) = seen.map_err(|error| NotDirect::NotSeen(error.into()))?;
        let local = self.port.address();
        let here = self.here([seen.ip(); 2]);
        let told = self.trusted && policy::may_tell(local, seen, &here);
        let local = told.then_some(local);
        Ok((seen, Offer::new(nonce, signed, local.as_slice())))
    }

    /// What this end does with what the peer has offered.
    fn to_try(
        &self,
        theirs: &Offer,
        nonce: Nonce,
        seen: SocketAddr,
    ) -> Result<Vec<SocketAddr>, NotDirect> {
        let signed = theirs.seen.as_ref().ok_or_else(no_sense)?;
        let (relay, peer) = (self.relay.peer().id(), self.session.peer().id());
        let at = verify(signed, relay, peer, nonce).ok_or_else(no_sense)?;
        let here = self.here([seen.ip(), at.ip()]);
        let addresses = policy::to_try(at, theirs.local(), &here);
        if addresses.is_empty() {
            return Err(NotDirect::NoAddress);
        }
        Ok(addresses)
    }

    /// Waits until no other attempt is under way, and listens.
    async fn take_turn(
        &self,
        addresses: Vec<SocketAddr>,
        until: Instant,
    ) -> Result<Plan<'a>, NotDirect> {
        let turn = timeout_at(until, self.direct.turn.acquire()).await;
        let turn = turn.map_err(|_| NotDirect::Busy)?;
        let listener = self.port.listen();
        Ok(Plan {
            turn: turn.map_err(|_| NotDirect::Busy)?,
            port: self.port,
            listener: listener.map_err(|error| NotDirect::Port(error.to_string()))?,
            addresses,
        })
    }

    fn here(&self, seen: [IpAddr; 2]) -> Here {
        let own = self.port.address().ip().to_canonical();
        Here {
            private: self.direct.config.private,
            own,
            network: network_of(own),
            seen,
            loopback: self.direct.config.loopback,
        }
    }
}

/// The network of one of this machine's addresses. One that has no prefix to speak of is none.
fn network_of(own: IpAddr) -> Option<Network> {
    let interfaces = if_addrs::get_if_addrs().ok()?;
    let it = interfaces.into_iter().find(|it| it.ip() == own)?;
    let (bits, least) = match it.addr {
        if_addrs::IfAddr::V4(v4) => (v4.prefixlen, 8),
        if_addrs::IfAddr::V6(v6) => (v6.prefixlen, 48),
    };
    (bits >= least).then(|| Network::new(own, bits)).flatten()
}

fn nonce() -> Result<Nonce, NotDirect> {
    random().map_err(|_| NotDirect::Talk("the system has no random numbers".into()))
}

async fn say(stream: &mut (impl AsyncWrite + Unpin), it: &impl Message) -> Result<(), NotDirect> {
    match timeout(PATIENCE, send(stream, it)).await {
        Ok(said) => said.map_err(talk),
        Err(_) => Err(silent()),
    }
}

pub(super) async fn hear<M: Message>(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<M, NotDirect> {
    match timeout(PATIENCE, receive::<M>(stream)).await {
        Ok(heard) => heard.map_err(talk),
        Err(_) => Err(silent()),
    }
}

fn refused(refusal: Option<String>) -> Result<(), NotDirect> {
    refusal.map_or(Ok(()), |why| Err(NotDirect::Refused(why)))
}

fn talk(error: impl std::fmt::Display) -> NotDirect {
    NotDirect::Talk(error.to_string())
}

fn silent() -> NotDirect {
    NotDirect::Talk("nothing came in time".into())
}

fn no_sense() -> NotDirect {
    NotDirect::Talk(
        "where it says that the relay sees it is nothing that the relay has signed".into(),
    )
}
