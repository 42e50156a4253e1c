//! What two peers say to each other, up to the moment at which both begin.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use cepa_transports::{Network, PortListener, QuicPort, Remote, SharedPort};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::backend::random;
use crate::identity::PeerId;
use crate::session::{ServiceStream, Session, reserved};
use crate::wire::{Message, linger_close, receive, send};

use super::super::relay::{Nonce, WhereSeen, verify, where_seen};
use super::event::NotDirect;
use super::gateway::gateway;
use super::knock::{self, Words};
use super::mapping::Mapped;
use super::message::{Begin, Offer, Place, Word};
use super::policy::{self, Here};
use super::state::Direct;
use super::udp::Udp;

/// For one answer of the peer, which may have to ask its relay.
const PATIENCE: Duration = Duration::from_secs(20);

/// For all that is said and asked until both are ready: what a peer and a relay that are slow on purpose can make this end keep, in time.
const TALK: Duration = Duration::from_secs(40);

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
    pub(super) tcp: ByTcp,
    pub(super) quic: Option<ByQuic>,
    /// Kept as long as it may be of use.
    pub(super) mapped: Option<Mapped>,
}

/// From where and to where by TCP.
pub(super) struct ByTcp {
    pub(super) port: SharedPort,
    pub(super) listener: PortListener,
    pub(super) to: Vec<SocketAddr>,
}

/// And by QUIC.
pub(super) struct ByQuic {
    pub(super) port: QuicPort,
    pub(super) to: Vec<SocketAddr>,
    pub(super) words: Words,
}

/// Where the relay sees the ports of this end.
struct Own {
    tcp: IpAddr,
    mapped: Option<Mapped>,
    udp: Option<(QuicPort, IpAddr, knock::Word)>,
}

/// Where the peer may be.
struct Theirs {
    tcp: Vec<SocketAddr>,
    /// Of this end.
    mapped: Option<Mapped>,
    udp: Option<ByQuic>,
}

/// This end of a session through a relay.
pub(super) struct End<'a> {
    direct: &'a Direct,
    session: &'a Session,
    /// The peer may know where this node is in its own network.
    trusted: bool,
    /// The session with the relay, where it leads, and from where it leaves.
    relay: Session,
    relay_at: IpAddr,
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
        let (Remote::Tcp(relay_at), Some(local), true) = (below.remote, below.local, dialled)
        else {
            return Err(NotDirect::NoPort);
        };
        Ok(Self {
            direct,
            session,
            trusted,
            relay,
            relay_at: relay_at.ip(),
            port: SharedPort::of(local),
        })
    }

    /// The end that has dialled. Returns when it is time to begin.
    pub(super) async fn ask(&self) -> Result<Plan<'a>, NotDirect> {
        let agreed = timeout(TALK, self.agree()).await;
        let (mut stream, theirs) = agreed.map_err(|_| silent())??;
        let until = Instant::now() + READY;
        let mut half = Duration::MAX;
        for _ in 0..PINGS {
            let ping = timeout_at(until, self.session.ping()).await;
            let round_trip = ping.map_err(|_| silent())?.map_err(talk)?;
            half = half.min(round_trip / 2);
        }
        // Only now, that the peer is ready: whoever makes a node wait for its answers keeps nobody else from trying.
        let plan = match self.take_turn(theirs, until).await {
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
        let agreed = async {
            let nonce = nonce()?;
            let seen = self.where_seen(begin.nonce()).await?;
            let udp = self.udp_by(seen.quic).await;
            let (own, offer) = self.offer(begin.nonce(), Some(nonce), seen, udp).await;
            say(stream, &offer).await?;
            let theirs: Offer = hear(stream).await?;
            refused(theirs.refusal())?;
            Ok((nonce, own, theirs))
        };
        let agreed = timeout(TALK, agreed).await;
        let (nonce, own, theirs) = agreed.map_err(|_| silent())??;
        let planned = match self.to_try(&theirs, nonce, own) {
            Ok(theirs) => self.take_turn(theirs, Instant::now() + TURN).await,
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

    /// What the two say until the peer is ready, and what is tried then.
    async fn agree(&self) -> Result<(ServiceStream, Theirs), NotDirect> {
        let begun = self.begin();
        let udp = async { Ok(self.udp().await) };
        // Neither waits for the other, as long as both can come to something.
        let ((mut stream, nonce, theirs), udp) = tokio::try_join!(begun, udp)?;
        let for_them = theirs.nonce().ok_or_else(no_sense)?;
        let seen = self.where_seen(for_them).await?;
        let (own, offer) = self.offer(for_them, None, seen, udp).await;
        let theirs = match self.to_try(&theirs, nonce, own) {
            Ok(theirs) => theirs,
            Err(why) => {
                let word = Offer::refused(&why.to_string());
                if let Ok(Ok(())) = timeout(PATIENCE, send(&mut stream, &word)).await {
                    linger_close(&mut stream, GOODBYE).await;
                }
                return Err(why);
            }
        };
        say(&mut stream, &offer).await?;
        let ready: Word = hear(&mut stream).await?;
        refused(ready.refusal())?;
        Ok((stream, theirs))
    }

    /// The first word, and the peer's offer with the nonce that it is for.
    async fn begin(&self) -> Result<(ServiceStream, Nonce, Offer), NotDirect> {
        let opened = timeout(PATIENCE, self.session.open(reserved::NAT)).await;
        let mut stream = opened
            .map_err(|_| silent())?
            .map_err(|error| NotDirect::NotOffered(error.into()))?;
        let nonce = nonce()?;
        say(&mut stream, &Begin::new(nonce)).await?;
        let theirs: Offer = hear(&mut stream).await?;
        refused(theirs.refusal())?;
        Ok((stream, nonce, theirs))
    }

    /// Where the relay sees this end's connection with it.
    async fn where_seen(&self, for_them: Nonce) -> Result<WhereSeen, NotDirect> {
        let seen = where_seen(&self.relay, self.direct.node.id(), for_them).await;
        seen.map_err(|error| NotDirect::NotSeen(error.into()))
    }

    /// A UDP port, before the peer has said anything.
    async fn udp(&self) -> Option<Udp> {
        if !self.direct.config.quic {
            return None;
        }
        // Only the relay's port is of use of the answer.
        let seen = self.where_seen(nonce().ok()?).await.ok()?;
        self.udp_by(seen.quic).await
    }

    /// A UDP port, by the relay's port for `quic:`.
    async fn udp_by(&self, relay_port: Option<u16>) -> Option<Udp> {
        let relay_at = SocketAddr::new(self.relay_at, relay_port?);
        if !self.direct.config.quic {
            return None;
        }
        let (node, own) = (&self.direct.node, self.port.address().ip());
        Udp::open(node, self.relay.peer().id(), relay_at, own).await
    }

    /// A port of the router, where it is time for that.
    async fn map(&self, seen: IpAddr) -> Option<Mapped> {
        if !self.direct.is_to_map(self.session.peer().id()) {
            return None;
        }
        let (node, local) = (&self.direct.node, self.port.address());
        let local = SocketAddr::new(local.ip().to_canonical(), local.port());
        Mapped::new(node, gateway()?, local, seen).await
    }

    /// What the peer is told: where the relay sees this end, and local addresses.
    async fn offer(
        &self,
        for_them: Nonce,
        nonce: Option<Nonce>,
        seen: WhereSeen,
        udp: Option<Udp>,
    ) -> (Own, Offer) {
        let udp = match udp {
            Some(udp) => udp.where_seen(&self.direct.node, for_them).await,
            None => None,
        };
        let mapped = self.map(seen.at.ip()).await;
        let place = |local: SocketAddr, seen: WhereSeen, mapped: Option<&Mapped>| {
            let here = self.here([seen.at.ip(); 2]);
            let told = self.trusted && policy::may_tell(local, seen.at, &here);
            Place {
                seen: seen.signed,
                local: told.then_some(local),
                mapped: mapped.map(Mapped::at),
            }
        };
        let tcp = seen.at.ip();
        let told = place(self.port.address(), seen, mapped.as_ref());
        let (udp, udp_told) = match (udp, random()) {
            (Some((port, seen)), Ok(word)) => {
                let (at, local) = (seen.at.ip(), port.address());
                (
                    Some((port, at, word)),
                    Some((place(local, seen, None), word)),
                )
            }
            _ => (None, None),
        };
        (Own { tcp, mapped, udp }, Offer::new(nonce, told, udp_told))
    }

    /// What this end does with what the peer has offered.
    fn to_try(&self, theirs: &Offer, nonce: Nonce, own: Own) -> Result<Theirs, NotDirect> {
        let (relay, peer) = (self.relay.peer().id(), self.session.peer().id());
        let signed = theirs.seen.as_ref().ok_or_else(no_sense)?;
        let at = verify(signed, false, relay, peer, nonce).ok_or_else(no_sense)?;
        let here = self.here([own.tcp, at.ip()]);
        let mut tcp = policy::to_try(at, theirs.mapped(), theirs.local(), &here);
        if !self.direct.config.tcp {
            tcp.clear();
        }
        let udp = match (own.udp, theirs.udp()) {
            (Some((port, seen, ours)), Some((signed, theirs_is))) => {
                let at = verify(signed, true, relay, peer, nonce).ok_or_else(no_sense)?;
                let here = self.here([seen, at.ip()]);
                let to = policy::to_try(at, None, theirs.local_udp(), &here);
                let words = Words {
                    ours,
                    theirs: theirs_is,
                };
                (!to.is_empty()).then_some(ByQuic { port, to, words })
            }
            _ => None,
        };
        if tcp.is_empty() && udp.is_none() {
            return Err(NotDirect::NoAddress);
        }
        Ok(Theirs {
            tcp,
            udp,
            mapped: own.mapped,
        })
    }

    /// Waits until no other attempt is under way, and listens.
    async fn take_turn(&self, theirs: Theirs, until: Instant) -> Result<Plan<'a>, NotDirect> {
        let turn = timeout_at(until, self.direct.turn.acquire()).await;
        let turn = turn.map_err(|_| NotDirect::Busy)?;
        let no_port = |error: std::io::Error| NotDirect::Port(error.to_string());
        let listener = self.port.listen().map_err(no_port)?;
        if let Some(quic) = &theirs.udp {
            quic.port.listen().map_err(no_port)?;
        }
        Ok(Plan {
            turn: turn.map_err(|_| NotDirect::Busy)?,
            tcp: ByTcp {
                port: self.port,
                listener,
                to: theirs.tcp,
            },
            quic: theirs.udp,
            mapped: theirs.mapped,
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
