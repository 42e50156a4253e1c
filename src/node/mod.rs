//! A peer among peers: an identity with listeners, named services, one session with each peer, and introductions.
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
//! });
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
//! A node lives until [`Node::shutdown`]: its listeners and sessions run in tasks of their own.
//!
//! | file | holds |
//! | --- | --- |
//! | `addr.rs` | `cepa://PEERID@HINT;HINT/SERVICE` |
//! | `access.rs` | who may open a service |
//! | `table.rs` | the sessions, and which of several is used |
//! | `turns.rs` | who of several dials a peer |
//! | `config.rs` | who a node is, and its limits |
//! | `core.rs` | what all tasks of a node share |
//! | `inbound.rs` | listeners |
//! | `live.rs` | a session's life, from a stream that came to its end; circuits that a relay brings |
//! | `dial.rs` | racing hints, upgrading to a direct way |
//! | `forward.rs` | services of other peers, offered as one's own |
//! | `introduction/` | references to services that peers give each other |
//! | `membrane/` | forwarders that wrap what passes through them |
//! | `resolve/` | where a peer is, for addresses that do not say it |
//! | `sealed/` | messages that a third peer carries and can't read |
//! | `signed.rs` | statements and their signatures |
//! | `register.rs` | staying registered at relays |
//! | `call.rs`, `event.rs`, `error.rs` | what handlers, watchers and callers get |

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cepa_transports::{Endpoint, TransportError};

use crate::identity::{PeerId, UnixTime};
use crate::mux::Substream;
use crate::onion::Onion;
use crate::relay::{Relay, RelayConfig, RelayStats};
use crate::session::{Incoming, Session};

mod access;
mod addr;
mod call;
mod config;
mod core;
mod dial;
mod error;
mod event;
mod forward;
mod inbound;
mod introduction;
mod live;
pub mod membrane;
mod register;
mod resolve;
pub mod sealed;
mod signed;
mod table;
mod turns;

pub use access::Access;
pub use addr::{Hint, MAX_HINTS, MAX_LEN, MAX_RELAYS, PeerAddr, PeerAddrError, SCHEME};
pub use call::{Call, Path};
pub use config::NodeConfig;
pub use error::{AttemptError, DialError, ReachError, RegisterError};
pub use event::{Event, Events};
pub use forward::ForwardError;
pub use introduction::{Flaw, IntroducedError, Introduction, MAX_LINKS, Terms};
#[cfg(feature = "mdns")]
pub use resolve::{Announcement, Mdns, MdnsConfig};
pub use resolve::{InOrder, KnownPlaces, ResolveError, Resolver};

use self::core::Core;
use self::membrane::Membrane;
use self::sealed::{CarrierConfig, CarrierStats, SealedCall, SealedError, SealingKey};

/// A node. Clones are handles on the same one.
#[derive(Clone)]
pub struct Node {
    core: Arc<Core>,
}

impl Node {
    /// A node without listeners and services. Must be used inside a tokio runtime.
    #[must_use]
    pub fn new(config: NodeConfig) -> Self {
        Self {
            core: Arc::new(Core::new(config, None)),
        }
    }

    /// A node that is also a relay, for the peers that `relay` allows.
    #[must_use]
    pub fn with_relay(config: NodeConfig, relay: RelayConfig) -> Self {
        let relay = Relay::new(config.stack.identity.peer_id(), relay);
        Self {
            core: Arc::new(Core::new(config, Some(relay))),
        }
    }

    /// Who it is.
    #[must_use]
    pub fn id(&self) -> PeerId {
        self.core.id
    }

    /// Listens at an address, and serves whoever comes and is trusted. Returns the address with its real
    /// port.
    ///
    /// # Errors
    /// One line, when the address cannot be listened on, or carries no session.
    pub async fn listen(&self, endpoint: &Endpoint) -> Result<Endpoint, TransportError> {
        inbound::listen(&self.core, endpoint).await
    }

    /// Offers a service. The handler runs in a task of its own for each substream that is opened for
    /// it, and is dropped when the node shuts down and its time is up. A name that is there already is replaced.
    ///
    /// Names that begin with `cepa.` are the protocol's own: such a service is never called. (`cepa.console.NAME` is
    /// how `cepa console` asks for NAME, and is for whoever knows that protocol; it does not count among
    /// [`services`](Self::services), nor as the one that is meant where none is named.)
    pub fn serve<H, F>(&self, name: &str, access: Access, handler: H)
    where
        H: Fn(Call) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        self.core.serve(name, access, handler);
    }

    /// Offers whatever has no service of its own: the handler looks at [`Call::service`] itself. Otherwise
    /// as [`serve`](Self::serve).
    pub fn serve_rest<H, F>(&self, access: Access, handler: H)
    where
        H: Fn(Call) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        self.core.serve_rest(access, handler);
    }

    /// Serves a substream to its end, of a session that was made without this node: services, introductions and the
    /// relay are as for the node's own sessions. The session stays its owner's, who goes on accepting.
    ///
    /// # Cancel safety
    /// Dropping the future drops the handler, or what else serves the substream, with it.
    pub async fn take(&self, incoming: Incoming, session: &Session) {
        let path = Path {
            via: Vec::new(),
            dialled: false,
            label: session.label().to_owned(),
        };
        live::serve(&self.core, incoming, session.clone(), path).await;
    }

    /// Offers a service of another peer as one of this node: a plaintext forwarder. It sees and can change
    /// every byte, and the other peer sees this node and not its caller. Half close, resets and back-pressure pass from end to end.
    pub fn forward(&self, name: &str, access: Access, to: PeerAddr) {
        let core = Arc::downgrade(&self.core);
        let to = Arc::new(to);
        self.serve(name, access, move |call| {
            let (core, to) = (core.upgrade(), Arc::clone(&to));
            async move {
                if let Some(core) = core {
                    let (peer, name) = (call.peer().id(), call.service().to_owned());
                    let done = forward::forward(&core, call.into_incoming(), &to).await;
                    if let Err(error) = done {
                        core.tell(Event::Refused(peer, name, error.to_string()));
                    }
                }
            }
        });
    }

    /// Forwards one substream to a service of another peer, to its end, as [`forward`](Self::forward) does.
    ///
    /// # Errors
    /// Why it was refused; the peer has been told, but for what concerns this node alone.
    ///
    /// # Cancel safety
    /// Dropping the future resets both substreams.
    pub async fn forward_one(&self, incoming: Incoming, to: &PeerAddr) -> Result<(), ForwardError> {
        forward::forward(&self.core, incoming, to).await
    }

    /// A new [`Membrane`]: a forwarder that also wraps the references that pass through it. `hints` say where this node is
    /// reached, for those to whom it gives wrapped ones; they have a session with it already, and need them once
    /// that is lost.
    #[must_use]
    pub fn membrane(&self, hints: impl IntoIterator<Item = Hint>) -> Membrane {
        Membrane::new(Arc::downgrade(&self.core), hints.into_iter().collect())
    }

    /// Takes a service back; says whether there was one of that name. Substreams that are open go on.
    pub fn withdraw(&self, name: &str) -> bool {
        self.core.withdraw(name)
    }

    /// The names of the services, in order.
    #[must_use]
    pub fn services(&self) -> Vec<String> {
        self.core.service_names()
    }

    /// Changes who may open a service; says whether there is one of that name. Substreams that are open
    /// go on.
    pub fn allow(&self, name: &str, access: Access) -> bool {
        self.core.allow(name, access)
    }

    /// Sets who may introduce others to a service: nobody, until said otherwise, but this node itself.
    ///
    /// Whoever is introduced must be able to have a session: the node's trust has to let strangers in
    /// ([`AcceptAny`](crate::identity::AcceptAny)), who can then open nothing but what they are introduced to, and
    /// what is open to [`Access::Anyone`].
    pub fn introducers(&self, name: &str, who: Access) {
        self.core.introducers(name, who);
    }

    /// Signs an introduction to a service, this node's own or another's.
    ///
    /// # Errors
    /// [`Flaw`]: the address names no service or is too long, or the key cannot sign.
    pub fn introduce(&self, to: &PeerAddr, terms: Terms) -> Result<Introduction, Flaw> {
        let identity = &self.core.config.stack.identity;
        Introduction::new(identity, to, terms, UnixTime::now())
    }

    /// Passes an introduction on that this node was given.
    ///
    /// # Errors
    /// [`Flaw::Chain`] when it was not given to this node, or may not be passed on.
    pub fn pass_on(&self, it: &Introduction, terms: Terms) -> Result<Introduction, Flaw> {
        it.pass_on(&self.core.config.stack.identity, terms, UnixTime::now())
    }

    /// Opens the service that an introduction is for. Of its hints only those are followed that open
    /// network connections.
    ///
    /// # Errors
    /// Which step failed: the introduction itself, the way to the owner, the owner's verdict, or the service.
    ///
    /// # Cancel safety
    /// Dropping the future resets the substream; a use may have been counted.
    pub async fn open_introduced(
        &self,
        introduction: &Introduction,
    ) -> Result<Onion<Substream>, IntroducedError> {
        introduction::recipient::open(&self.core, introduction).await
    }

    /// Takes an introduction back that this node has issued, or that is for a service of its own; and with it
    /// all that was passed on from it. What is open goes on.
    ///
    /// # Errors
    /// As [`open_introduced`](Self::open_introduced): the owner of the service has to be told.
    ///
    /// # Cancel safety
    /// Dropping the future gives the attempt up; it may have been taken back all the same.
    pub async fn revoke(&self, introduction: &Introduction) -> Result<(), IntroducedError> {
        introduction::recipient::revoke(&self.core, introduction).await
    }

    /// Offers a service to sealed requests: what a carrier brings, and no carrier can read. `access` is about the sender,
    /// whose signature is in the request; a service of the same name for substreams is another one. The handler's answer
    /// is sealed for that sender; an error is told to it as the reason. It runs once for each request, and once begun it
    /// goes on when the carrier is gone.
    pub fn serve_sealed<H, F>(&self, name: &str, access: Access, handler: H)
    where
        H: Fn(SealedCall) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Vec<u8>, String>> + Send + 'static,
    {
        let handler = Arc::new(move |call| -> futures::future::BoxFuture<'static, _> {
            Box::pin(handler(call))
        });
        self.core.sealed.serve(name, access, handler);
    }

    /// Takes a service for sealed requests back; says whether there was one of that name.
    pub fn withdraw_sealed(&self, name: &str) -> bool {
        self.core.sealed.withdraw(name)
    }

    /// Carries sealed messages for others to peers that have a session with this node; `None` ends that.
    pub fn carry(&self, config: Option<CarrierConfig>) {
        self.core.sealed.carry(config);
    }

    /// The carrier's counters, if the node is one.
    #[must_use]
    pub fn carrier_stats(&self) -> Option<CarrierStats> {
        self.core.sealed.carrier_stats()
    }

    /// Has the present sealing key of a peer fetched, by a carrier or by that peer itself. It is good for an hour at
    /// least, or until the peer starts anew.
    ///
    /// # Errors
    /// [`SealedError`]; a key that is not signed by the peer is [`SealedError::Altered`].
    ///
    /// # Cancel safety
    /// Dropping the future gives the attempt up.
    pub async fn sealing_key(
        &self,
        carrier: &PeerAddr,
        of: PeerId,
    ) -> Result<SealingKey, SealedError> {
        sealed::ask::key(&self.core, carrier, of).await
    }

    /// Sends a sealed request to the owner of `key` by a carrier, and opens the answer. Both have at most
    /// [`MAX_BODY`](sealed::MAX_BODY) bytes. The request is good for two minutes; nothing is sent twice.
    ///
    /// # Errors
    /// [`SealedError`] says which of them leave it open whether the request was carried out.
    ///
    /// # Cancel safety
    /// Dropping the future gives the answer up; the request may be carried out.
    pub async fn ask_sealed(
        &self,
        carrier: &PeerAddr,
        key: &SealingKey,
        service: &str,
        body: &[u8],
    ) -> Result<Vec<u8>, SealedError> {
        sealed::ask::ask(&self.core, carrier, key, service, body).await
    }

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

    /// Opens the service of an address.
    ///
    /// # Errors
    /// Why the peer is not reached, or why it did not open the service.
    ///
    /// # Cancel safety
    /// Dropping the future resets the substream.
    pub async fn open(&self, address: &PeerAddr) -> Result<Onion<Substream>, ReachError> {
        dial::open(&self.core, address).await
    }

    /// Registers at a relay, and stays registered until the node shuts down: renews in time, and dials the
    /// relay again when the session with it is lost.
    ///
    /// # Errors
    /// When the first attempt fails; then nothing is tried again.
    ///
    /// # Cancel safety
    /// Dropping the future gives the attempt up.
    pub async fn register(&self, relay: &PeerAddr) -> Result<(), RegisterError> {
        register::register(&self.core, relay).await
    }

    /// The peers with whom there are sessions, how each came to be, and its mux's counters.
    #[must_use]
    pub fn sessions(&self) -> Vec<(PeerId, Path, crate::mux::Stats)> {
        let all = self.core.sessions();
        let one = |(peer, live): (PeerId, core::Live)| (peer, live.path, live.session.mux_stats());
        all.into_iter().map(one).collect()
    }

    /// The relay's counters, if the node is one.
    #[must_use]
    pub fn relay_stats(&self) -> Option<RelayStats> {
        self.core.relay.as_ref().map(Relay::stats)
    }

    /// What happens from now on.
    #[must_use]
    pub fn events(&self) -> Events {
        self.core.events()
    }

    /// Ends the node: takes nothing new, waits up to `patience` for handlers that are at work, then closes
    /// every session in order.
    pub async fn shutdown(&self, patience: Duration) {
        self.core.shutdown(patience).await;
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("id", &self.core.id)
            .field("sessions", &self.core.sessions().len())
            .finish_non_exhaustive()
    }
}

/// For the fuzz target.
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    introduction::fuzz(bytes);
    membrane::fuzz(bytes);
    sealed::fuzz(bytes);
}
