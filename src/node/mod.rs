//! A peer among peers: an identity with listeners, named services, and one session with each peer.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use cepa::identity::{AcceptAny, Identity};
//! use cepa::node::{Access, Node, NodeConfig, PeerAddr};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! let identity = Identity::load("me.pem")?;
//! // Who may have a session at all; what it may open is each service's own question.
//! let node = Node::new(NodeConfig::new(identity, Arc::new(AcceptAny)));
//! node.listen(&"tcp:127.0.0.1:7000".parse()?).await?;
//! node.serve("hello", Access::Anyone, async |call| {
//!     if let Ok(mut stream) = call.accept().await {
//!         let _ = stream.write_all(b"hello").await;
//!         let _ = stream.shutdown().await;
//!     }
//! })?;
//!
//! let address: PeerAddr = std::env::args().nth(1).unwrap().parse()?;
//! let mut stream = node.open(&address).await?;
//! let mut answer = String::new();
//! stream.read_to_string(&mut answer).await?;
//! node.shutdown(std::time::Duration::from_secs(3)).await;
//! # Ok(()) }
//! ```
//!
//! However many dial at once, and from either side, a node uses one session with a peer. Which
//! one that is when there are several for a moment, `table.rs` says; both ends choose the same.
//!
//! What else a node does for its peers (relaying, introductions, sealed messages, membranes) are
//! [`Protocol`]s that are added to it: see [`protocols`](crate::protocols).
//!
//! A node lives until [`Node::shutdown`], or until the last handle on it is dropped: its listeners and sessions run in tasks
//! of their own.
//!
//! | file | holds |
//! | --- | --- |
//! | `addr.rs` | `cepa://PEERID@HINT,HINT/SERVICE` |
//! | `access.rs` | who may open what: the one decision |
//! | `shares.rs` | how much one peer may hold |
//! | `admit.rs` | who a peer is to this node, and whether there is room for its session |
//! | `protocol.rs` | what protocols and routes are |
//! | `table.rs` | the sessions, and which of several is used |
//! | `dials.rs` | dials under way, and what those who want the same peer share |
//! | `config.rs` | who a node is, and its limits |
//! | `core.rs` | what all tasks of a node share |
//! | `listeners.rs` | listeners, and the streams that come |
//! | `listening.rs` | which listeners there are |
//! | `handler.rs` | what handlers end with; calls as a stream |
//! | `sessions.rs` | a session's life, from a stream that came to its end |
//! | `serving.rs` | the substreams that peers open, each in a task of its own |
//! | `dial.rs`, `follow.rs` | racing hints, upgrading to a direct way; which hints are followed |
//! | `beside.rs` | what is tried beside a relay that does not answer |
//! | `direct.rs` | going on over a connection with the peer that was made elsewhere |
//! | `resolve/` | where a peer is, for addresses that do not say it |
//! | `live.rs` | a session that is up: with whom, and how it came to be |
//! | `looking.rs` | what is there now, for who looks |
//! | `moves.rs` | a session that goes from one connection to the next |
//! | `call.rs`, `event.rs`, `error.rs` | what handlers, watchers and callers get |

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cepa_transports::{ByteStream, Endpoint, Layer, Remote, Stream};

use crate::identity::{Identity, PeerId};
use crate::session::{
    Incoming, OpenError, Pause, ServiceName, ServiceNameError, ServiceStream, Session, reserved,
};
use crate::stack::DEFAULT_LAYERS;

mod access;
mod addr;
mod admit;
mod beside;
mod call;
mod config;
#[cfg(feature = "tower")]
mod connector;
mod core;
mod dial;
mod dials;
#[cfg(feature = "nat")]
mod direct;
mod error;
mod event;
mod farewells;
mod follow;
mod handler;
mod listeners;
mod listening;
mod live;
mod looking;
mod moves;
mod offers;
mod on_session;
mod pace;
mod protocol;
mod resolve;
mod seats;
mod serving;
mod sessions;
mod shares;
mod table;

pub use access::{Access, Admission, Admitted};
pub use addr::{Hint, MAX_HINTS, MAX_LEN, MAX_RELAYS, PeerAddr, PeerAddrError, SCHEME};
pub use call::{Call, CallContext};
pub use config::NodeConfig;
#[cfg(feature = "tower")]
pub use connector::Connector;
pub use error::{AttemptError, Attempts, DialError, Mend, OnSession, OnSessionError, ReachError};
pub use event::{Event, Events, ProtocolEvent, Refused, TurnedAway};
pub use handler::{Calls, HandlerOutput};
pub use listeners::{ListenError, ListenerEnd, Listening};
pub use live::Path;
#[cfg(feature = "nat")]
pub(crate) use protocol::NOT_OPEN;
pub use protocol::{Beside, Protocol, ProtocolError, Route, RouteError, RouteErrorKind};
#[cfg(feature = "mdns")]
pub use resolve::{Announcement, Mdns, MdnsConfig};
pub use resolve::{InOrder, KnownPlaces, ResolveError, Resolver};
pub use seats::Kept;
pub use serving::Open;
pub use shares::{Exceeded, Limits, Resource, Scope, Share, ShareLimits};

use self::core::{Core, Service};
use self::shares::Holder;

/// A node. Clones are handles on the same one, and equal.
#[derive(Clone)]
pub struct Node {
    core: Arc<Core>,
    /// None for a handle that does not keep the node alive.
    #[cfg_attr(not(feature = "tower"), allow(dead_code))] // it counts by being held
    owner: Option<Arc<Owner>>,
}

/// Shuts the node down when its last handle is dropped.
struct Owner(Arc<Core>);

impl Drop for Owner {
    fn drop(&mut self) {
        if self.0.is_over() {
            return;
        }
        // A drop can't wait. Each session closes in its own task, in order.
        self.0.end();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let core = Arc::clone(&self.0);
            runtime.spawn(async move { core.shutdown(Duration::ZERO).await });
        }
    }
}

impl Node {
    /// A node without listeners, services and protocols. What listens, dials or waits has to be called inside a tokio runtime,
    /// and gives an error outside.
    #[must_use]
    pub fn new(config: NodeConfig) -> Self {
        let core = Arc::new(Core::new(config));
        let owner = Some(Arc::new(Owner(Arc::clone(&core))));
        Self { core, owner }
    }

    /// A handle that does not keep the node alive: for what the node itself holds or runs, which would keep it for ever else.
    #[must_use]
    pub fn handle(&self) -> Self {
        Self {
            core: Arc::clone(&self.core),
            owner: None,
        }
    }

    /// Who it is.
    #[must_use]
    pub fn id(&self) -> PeerId {
        self.core.id
    }

    /// Whether it is the id of this node, or one that it had before, which statements in its certificate prove.
    #[must_use]
    pub fn is_own(&self, id: &PeerId) -> bool {
        self.core.is_own(id)
    }

    /// Its identity.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.core.config.stack.identity
    }

    // ---- listeners -----------------------------------------------------------------------------

    /// Listens at an address, and serves whoever comes and is trusted. Returns the address with its real
    /// port.
    ///
    /// # Errors
    /// One line, when the address cannot be listened on, or carries no session, or the node is shut down.
    pub async fn listen(&self, endpoint: &Endpoint) -> Result<Endpoint, ListenError> {
        let listening = self.bind(endpoint).await?;
        Ok(listening.endpoint().clone())
    }

    /// As [`listen`](Self::listen), with a handle to end the listener or to wait for its end.
    ///
    /// # Errors
    /// As there.
    pub async fn bind(&self, endpoint: &Endpoint) -> Result<Listening, ListenError> {
        listeners::bind(&self.core, endpoint).await
    }

    /// The addresses that are listened on, each with its real port, in the order in which they came.
    #[must_use]
    pub fn listeners(&self) -> Vec<Endpoint> {
        self.core.listeners.endpoints()
    }

    /// Ends the listener at an address as [`listen`](Self::listen) returned it, and returns whether there was one. The address
    /// is free then; sessions that came through it go on.
    ///
    /// # Cancel safety
    /// Dropping the future does not take it back.
    pub async fn unlisten(&self, endpoint: &Endpoint) -> bool {
        self.core.listeners.close(endpoint).await
    }

    /// Makes a session of a stream that came in another way than through a listener, as its server, and serves it. Where it
    /// came from decides whose place it takes at the [gate](NodeConfig::gate), and stands in events.
    ///
    /// # Errors
    /// Why it was turned away. Where a session goes on there that is there already, it is that one.
    ///
    /// # Cancel safety
    /// Dropping the future gives the handshake up.
    pub async fn accept(
        &self,
        stream: impl ByteStream,
        origin: Remote,
    ) -> Result<Session, TurnedAway> {
        let stream = Stream::from_io(stream, origin.to_string()).with_remote(origin);
        self.accept_via(stream, &[], Vec::new()).await
    }

    /// As [`accept`](Self::accept), for a stream that says itself where it comes from. `layers` as in an address, none for the
    /// default; `via` are the relays on the way, the nearest first.
    ///
    /// # Errors
    /// Why it was turned away.
    ///
    /// # Cancel safety
    /// Dropping the future gives the handshake up.
    pub async fn accept_via(
        &self,
        stream: Stream,
        layers: &[Layer],
        via: Vec<PeerId>,
    ) -> Result<Session, TurnedAway> {
        let layers = if layers.is_empty() {
            DEFAULT_LAYERS
        } else {
            layers
        };
        let config = &self.core.config.stack;
        let accepted = sessions::accept(&self.core, stream, layers, via, config, None);
        accepted.await?.session(&self.core)
    }

    // ---- services ------------------------------------------------------------------------------

    /// Offers a service. The handler runs in a task of its own for each substream that is opened for
    /// it, and is dropped when the node shuts down and its time is up; a panic in it resets that substream, and so does an error
    /// that it returns ([`HandlerOutput`]). A name that is there already is replaced.
    ///
    /// Each call gets a clone of the handler, so an `async move` closure may capture what can be cloned, an [`Arc`] for
    /// instance:
    ///
    /// ```
    /// # use std::sync::{Arc, atomic::{AtomicU64, Ordering}};
    /// # use cepa::node::{Access, Node};
    /// # use tokio::io::AsyncWriteExt;
    /// # fn example(node: &Node) -> Result<(), cepa::session::ServiceNameError> {
    /// let visitors = Arc::new(AtomicU64::new(0));
    /// node.serve("counter", Access::Anyone, async move |call| {
    ///     let mut stream = call.accept().await?;
    ///     stream.write_u64(visitors.fetch_add(1, Ordering::Relaxed)).await?;
    ///     stream.shutdown().await
    /// })
    /// # }
    /// ```
    ///
    /// # Errors
    /// The name can't be one of a service: names that begin with `cepa.` belong to [`Protocol`]s.
    pub fn serve<H, F>(
        &self,
        name: &str,
        access: Access,
        handler: H,
    ) -> Result<(), ServiceNameError>
    where
        H: FnOnce(Call) -> F + Clone + Send + Sync + 'static,
        F: Future<Output: HandlerOutput> + Send + 'static,
    {
        let name = ServiceName::unreserved(name)?;
        let service = Service::new(access, handler);
        self.core.serve(name.as_str().to_owned(), service);
        Ok(())
    }

    /// Offers whatever has no service of its own: the handler looks at [`Call::service`] itself. Otherwise
    /// as [`serve`](Self::serve).
    pub fn serve_rest<H, F>(&self, access: Access, handler: H)
    where
        H: FnOnce(Call) -> F + Clone + Send + Sync + 'static,
        F: Future<Output: HandlerOutput> + Send + 'static,
    {
        self.core.serve_rest(Service::new(access, handler));
    }

    /// Offers a service whose calls come as a stream, for a loop of the application's own. Whoever opens it waits while
    /// nobody reads. A shutdown does not wait for what is done with the calls. Must be used inside a tokio runtime.
    ///
    /// # Errors
    /// As for [`serve`](Self::serve).
    pub fn incoming(&self, name: &str, access: Access) -> Result<Calls, ServiceNameError> {
        let (sender, calls) = Calls::new();
        self.serve(name, access, async move |call| {
            if let Err(unread) = sender.send(call).await {
                let _ = unread.0.refuse("nobody serves it any more").await;
            }
        })?;
        Ok(calls)
    }

    /// Takes a service back; returns whether there was one of that name. Substreams that are open go on.
    pub fn withdraw(&self, name: &str) -> bool {
        self.core.withdraw(name)
    }

    /// The names of the services, in order.
    #[must_use]
    pub fn services(&self) -> Vec<String> {
        let all = self.core.offered().into_iter();
        let plain = all.filter(|(name, _)| !reserved::is_reserved(name));
        plain.map(|(name, _)| name).collect()
    }

    /// Changes who may open a service; returns whether there is one of that name. Substreams that are open
    /// go on.
    pub fn allow(&self, name: &str, access: Access) -> bool {
        self.core.allow(name, access)
    }

    /// Adds a protocol. It stays until the node is gone.
    ///
    /// # Errors
    /// One of its names can't be had, or belongs to another one.
    pub fn add_protocol(&self, protocol: Arc<dyn Protocol>) -> Result<(), ProtocolError> {
        self.core.add_protocol(protocol)
    }

    /// Sets how peers are reached through others: what hints of the form `relay:…` need.
    pub fn set_route(&self, route: Arc<dyn Route>) {
        self.core.set_route(route);
    }

    // ---- peers ---------------------------------------------------------------------------------

    /// A session with the peer of an address: the one there is, or a new one.
    ///
    /// # Errors
    /// Every hint that was tried, and what came of it.
    ///
    /// # Cancel safety
    /// Dropping the future gives the attempt up.
    pub async fn session(&self, address: &PeerAddr) -> Result<Session, DialError> {
        dial::session(&self.core, address).await
    }

    /// As [`session`](Self::session), because of another peer, such as one whose reference leads there: a session that has to be
    /// made, and those with relays on the way, are counted to that peer as its own are.
    ///
    /// # Errors
    /// As for `session`, and [`DialError::Share`].
    ///
    /// # Cancel safety
    /// As for `session`.
    pub async fn session_for(
        &self,
        payer: PeerId,
        address: &PeerAddr,
    ) -> Result<Session, DialError> {
        dial::session_for(&self.core, address, Some(self.holder(payer))).await
    }

    /// As [`session`](Self::session), but one that this node has dialled. Some services and protocols are for those who dial
    /// ([`OpenError::DialInstead`]).
    ///
    /// # Errors
    /// As for `session`.
    ///
    /// # Cancel safety
    /// As for `session`.
    pub async fn own_session(&self, address: &PeerAddr) -> Result<Session, DialError> {
        dial::own_session(&self.core, address).await
    }

    /// The session that there is with a peer, if there is one.
    #[must_use]
    pub fn session_with(&self, peer: PeerId) -> Option<Session> {
        self.core
            .chosen(peer)
            .map(|(_, _, live)| live.session.clone())
    }

    /// Opens the service of an address.
    ///
    /// # Errors
    /// Why the peer is not reached, or why it did not open the service.
    ///
    /// # Cancel safety
    /// Dropping the future resets the substream.
    pub async fn open(&self, address: &PeerAddr) -> Result<ServiceStream, ReachError> {
        dial::open(&self.core, address).await
    }

    /// The service of an address for HTTP clients, as hyper's and tonic's, that make their connections by a
    /// [`tower_service::Service`]. It keeps the node alive as this handle does.
    #[cfg(feature = "tower")]
    #[must_use]
    pub fn connector(&self, address: PeerAddr) -> Connector {
        let owner = self.owner.clone().map(|owner| owner as _);
        Connector::new(Arc::clone(&self.core), owner, address)
    }

    /// Closes every session with a peer, in order, and returns how many there were.
    ///
    /// # Cancel safety
    /// Dropping the future does not take it back.
    pub async fn disconnect(&self, peer: PeerId) -> usize {
        // Those too that are no longer used: whoever wants a peer gone wants all of them gone.
        let mut of_peer = self.core.table().standing();
        of_peer.retain(|live| live.session.peer().is(&peer));
        let closing = of_peer.iter().map(|live| live.session.close());
        futures::future::join_all(closing).await;
        of_peer.len()
    }

    /// Tells the peers of all sessions that this process will be silent for up to `time`, since it is about to be stopped, and waits
    /// for each answer for `patience` at most. They do not end those sessions for that, as long as what this gives lives
    /// and as [`Pause::granted`] says; see [`Session::pause`].
    ///
    /// # Errors
    /// For each peer: why it does not bear with it.
    ///
    /// # Cancel safety
    /// Dropping the future takes it back.
    pub async fn pause(
        &self,
        time: Duration,
        patience: Duration,
    ) -> Vec<(PeerId, Result<Pause, OpenError>)> {
        let standing = self.core.table().standing();
        let pausing = standing.iter().map(async |live| {
            let paused = live.session.pause_within(time, patience).await;
            (live.session.peer().id(), paused)
        });
        futures::future::join_all(pausing).await
    }

    /// A part of the pools for work that is done for a peer otherwise than by a [`Call`]; see [`Call::hold`]. It is counted as the
    /// peer's sessions are, where there is one.
    ///
    /// # Errors
    /// [`Exceeded`] names the limit.
    pub fn hold(&self, peer: PeerId, wanted: &[(Resource, usize)]) -> Result<Share, Exceeded> {
        let holder = self.holder(peer);
        self.core.shares.take(holder, wanted)
    }

    /// Bytes that may wait of one peer.
    #[cfg(feature = "mesh")]
    pub(crate) fn receive_memory_a_peer(&self) -> usize {
        self.core.config.shares.receive_memory_a_peer
    }

    /// Who a peer is to the pools.
    fn holder(&self, peer: PeerId) -> Holder {
        let live = self.core.chosen(peer);
        live.map_or_else(
            || Holder {
                ids: shares::ids(peer, &[]),
                host: None,
                named: false,
            },
            |(_, _, live)| live.holder(),
        )
    }

    // ---- events and the end --------------------------------------------------------------------

    /// What happens from now on.
    #[must_use]
    pub fn events(&self) -> Events {
        self.core.events()
    }

    /// Reports an event of a protocol to whoever watches [`events`](Self::events).
    pub fn emit(&self, event: impl ProtocolEvent) {
        self.core.emit(Event::Protocol(Arc::new(event)));
    }

    /// Reports that a peer did not get a service.
    pub fn emit_refused(&self, peer: PeerId, service: impl Into<String>, reason: Refused) {
        let service = service.into();
        self.core.emit(Event::Refused {
            peer,
            service,
            reason,
        });
    }

    /// Runs something for a protocol until it is over or the node shuts down, in a task that the shutdown waits for.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let core = Arc::clone(&self.core);
        self.core.tasks.spawn(async move {
            tokio::select! {
                () = task => {}
                () = core.stopping() => {}
            }
        });
    }

    /// Serves what the peer of a call asks for next on its substream, for a protocol that has found that the peer may have
    /// that service; its [`Access`] is not looked at. `by` is what the handler reads as [`Call::introduced_by`].
    ///
    /// # Cancel safety
    /// Dropping the future drops the handler, and with it the substream.
    pub async fn serve_introduced(
        &self,
        context: CallContext,
        incoming: Incoming,
        by: Vec<PeerId>,
    ) {
        serving::serve_introduced(&self.core, context, incoming, by).await;
    }

    /// As [`serve`](Self::serve), for a protocol that offers services of its own: the name is taken as it is. One that begins with
    /// `cepa.` is not listed, and leads to the service only for whom [`serve_introduced`](Self::serve_introduced) is called; any other
    /// is a service like all.
    pub fn serve_reserved<H, F>(&self, name: String, access: Access, handler: H)
    where
        H: FnOnce(Call) -> F + Clone + Send + Sync + 'static,
        F: Future<Output: HandlerOutput> + Send + 'static,
    {
        self.core.serve(name, Service::new(access, handler));
    }

    /// Ends the node: takes nothing new, waits up to `patience` for handlers that are at work, then closes
    /// every session in order, each within 3 s, and drops the handlers that are left. What it listened on is free when this
    /// returns, after `patience` and 6 s at the latest.
    ///
    /// # Cancel safety
    /// Dropping the future does not take it back: nothing new is taken, and once `patience` is over all else ends. Dropped
    /// before that, sessions and handlers stay until this is called again or the last handle on the node is dropped.
    pub async fn shutdown(&self, patience: Duration) {
        self.core.shutdown(patience).await;
    }
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.core, &other.core)
    }
}

impl Eq for Node {}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("id", &self.core.id)
            .field("sessions", &self.core.sessions().len())
            .finish_non_exhaustive()
    }
}
