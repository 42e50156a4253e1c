//! An authenticated, multiplexed session with one peer.
//!
//! [`Session::dial`] opens an address and builds its layers; [`Session::accept_on`] does the same on a
//! stream that a listener accepted, and [`Session::handshake`] on any other. Then both ends are
//! equal: each opens substreams by the name of a service, and accepts or refuses what the other
//! opens. A substream comes as a [`ServiceStream`], so TLS of its own can be put on it at any time.
//!
//! A session is announced, to either end, only after one ping has come back. A TLS 1.3 client has
//! finished its handshake before the server has judged its certificate; the ping's answer is the
//! first thing that tells it that it was let in. Before the mux takes a byte, both ends have shown
//! that they mean the same connection, the same two peers and the same layers (see
//! [`Binding`](crate::stack::Binding)).
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use cepa::identity::{Identity, Pinned};
//! use cepa::session::Session;
//! use cepa::stack::StackConfig;
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! let identity = Identity::load("me.pem")?;
//! let expected = "mfzwi3dbonzgc3tlmvzwi3dbonzgc3tlmvzwi3dbonzgc3tlmvza".parse()?;
//! let config = StackConfig::new(identity, Arc::new(Pinned::one(expected)));
//! let session = Session::dial(&"tcp:host:7000".parse()?, &config).await?;
//! let mut stream = session.open("echo").await?;
//! stream.write_all(b"hello").await?;
//! stream.shutdown().await?; // the end of our direction
//! let mut back = Vec::new();
//! stream.read_to_end(&mut back).await?;
//! session.close().await;
//! # Ok(()) }
//! ```
//!
//! A server accepts streams, makes a session of each in a task of its own, and serves each substream in another:
//!
//! ```
//! # async fn server() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use cepa::Side;
//! use cepa::identity::{AcceptAny, Identity, KeyKind};
//! use cepa::session::{Incoming, Session};
//! use cepa::stack::StackConfig;
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! let identity = Identity::generate(KeyKind::Ed25519)?;
//! // Anybody may come; who it is, `incoming.peer()` says.
//! let config = StackConfig::new(identity, Arc::new(AcceptAny));
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! # tokio::spawn(client(listener.local_addr()?));
//! loop {
//!     let (stream, from) = listener.accept().await?;
//!     let config = config.clone();
//!     # let one =
//!     tokio::spawn(async move {
//!         // Strangers get no further than this, nor hold it for longer than `config.stack_timeout`.
//!         let session = match Session::handshake(stream, &[], Side::Server, &config).await {
//!             Ok(session) => session,
//!             Err(error) => return eprintln!("{from}: {error}"),
//!         };
//!         while let Ok(incoming) = session.accept().await {
//!             tokio::spawn(serve(incoming));
//!         }
//!         eprintln!("{from}: {}", session.closed().await);
//!     });
//!     # break Ok(one.await?);
//! }
//! # }
//!
//! async fn serve(incoming: Incoming) -> std::io::Result<()> {
//!     if incoming.service() != "shout" {
//!         return Ok(incoming.refuse("only shout is here").await?);
//!     }
//!     let mut stream = incoming.accept().await?;
//!     let mut text = String::new();
//!     // Not more than this end wants to hold.
//!     (&mut stream).take(1 << 16).read_to_string(&mut text).await?;
//!     stream.write_all(text.to_uppercase().as_bytes()).await?;
//!     stream.shutdown().await
//! }
//! # async fn client(at: std::net::SocketAddr) {
//! #     let config = StackConfig::new(Identity::generate(KeyKind::Ed25519).unwrap(), Arc::new(AcceptAny));
//! #     let session = Session::dial(&format!("tcp:{at}").parse().unwrap(), &config).await.unwrap();
//! #     let mut stream = session.open("shout").await.unwrap();
//! #     stream.write_all(b"hello").await.unwrap();
//! #     stream.shutdown().await.unwrap();
//! #     let mut answer = String::new();
//! #     stream.read_to_string(&mut answer).await.unwrap();
//! #     assert_eq!(answer, "HELLO");
//! #     assert!(session.open("whisper").await.is_err());
//! #     session.close().await;
//! # }
//! # use {std::sync::Arc, cepa::identity::{AcceptAny, Identity, KeyKind}, cepa::session::{Incoming, Session}, cepa::stack::StackConfig};
//! # use tokio::io::{AsyncReadExt, AsyncWriteExt};
//! # tokio::runtime::Runtime::new().unwrap().block_on(server()).unwrap();
//! ```
//!
//! A [`Node`](crate::node::Node) does all that by itself, with limits on who holds how much.
//!
//! # How a session ends
//! [`Session::close`] says so in the mux (go-away) and in each TLS layer (close_notify), and waits
//! until that has left. The other end reads [`SessionEnd::ClosedByPeer`]. When the stream below is
//! cut, nothing of that comes, and the end is not [clean](SessionEnd::is_clean). When all handles of
//! a session are dropped, substreams that are left go on; the session closes behind the last. [`Session::drain`] lets what is
//! open end before it closes.
//! [`Reconnecting`] dials again when a session has ended, with the pauses of a [`Backoff`].
//!
//! | file | holds |
//! | --- | --- |
//! | `header.rs` | the first bytes of a substream, without IO |
//! | `service.rs` | what a service may be called, and the names that are cepa's own |
//! | `incoming.rs` | substreams that the peer opens: reading what for, accepting, refusing |
//! | `inner.rs` | TLS inside a substream, and what binds it to service and session |
//! | `runtime.rs` | whether there is a runtime |
//! | `announce.rs` | makes a session of a stack of layers |
//! | `opening.rs` | opening a substream |
//! | `early.rs` | opening without waiting for the answer, and the answer |
//! | `options.rs` | how a substream is opened |
//! | `pause.rs` | silence that the peer is told of before |
//! | `substream.rs` | what an open substream can be told |
//! | `borrowed.rs` | a session of another program of this machine, in which this one opens substreams |
//! | `paths.rs` | the connections of a session that outlives them |
//! | `resuming.rs` | the hello on such a connection |
//! | `supervise.rs` | dials the next one when one is lost |
//! | `witness.rs` | finds the alert behind a failed write, while a session is being made |
//! | `backoff.rs` | how long to wait before dialling again |
//! | `reconnecting.rs` | a session that comes back by itself |
//! | `error.rs` | ends and errors |

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cepa_transports::meter::Meter;
use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use crate::mux::{self, Mux};
use crate::onion::LayerInfo;
use crate::stack::{Lasting, StackConfig};
use crate::tls::{Peer, TlsConfig};

mod announce;
mod backoff;
mod borrowed;
mod early;
mod error;
mod header;
mod incoming;
mod inner;
mod opening;
mod options;
pub(crate) mod paths;
mod pause;
mod reconnecting;
#[cfg(test)]
mod resume_tests;
mod resuming;
mod runtime;
mod service;
mod substream;
mod supervise;
mod witness;

pub use crate::resume::{PathLostWhy, SessionLost};
pub use crate::stack::{ConnectError, HelloFault, PathChange, PathInfo, PathStats, Resumed};
pub use backoff::Backoff;
pub use error::{AcceptError, AnswerFault, OpenError, SessionEnd};
pub use incoming::Incoming;
pub use options::OpenOptions;
pub use paths::PathChanges;
pub use pause::Pause;
pub use reconnecting::{ReconnectStatus, Reconnecting, Terminated};
pub use service::{ServiceName, ServiceNameError, reserved};
pub use substream::ServiceStream;

pub(crate) use error::tls_inside;

use header::InnerTls;
use incoming::{Arrivals, Arrived};
use inner::Bounds;
use options::Stage;
use runtime::in_runtime;

/// A session with one peer. Clones are handles on the same session.
#[derive(Clone)]
pub struct Session {
    inner: Arc<Inner>,
}

struct Inner {
    mux: Mux,
    /// Shared with what the peer opens.
    peer: Arc<Peer>,
    /// What it ran over first.
    first: PathInfo,
    /// Of a session that outlives its connections.
    lasting: Option<Arc<Lasting>>,
    /// Of such a session: how this end connects to another address than the first.
    untuned: Option<Arc<StackConfig>>,
    meter: Meter,
    tls_exporter: [u8; 32],
    handshake_time: Duration,
    number: u64,
    since: Instant,
    open_timeout: Duration,
    arrivals: Mutex<Arrivals>,
    /// It runs over the session of another program.
    borrowed: bool,
    /// Who bears with the pause that the peer asked for last.
    bearing: std::sync::Mutex<Option<AbortHandle>>,
}

impl Session {
    /// Whether both are handles on the same session.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Who is at the other end: the peer of the innermost layer, the one that the mux is in.
    pub fn peer(&self) -> &Peer {
        &self.inner.peer
    }

    /// The TLS layers of the connection that the session was made on, the outermost first. Those of another one that it goes on
    /// over, [`path`](Self::path) has.
    pub fn layers(&self) -> &[LayerInfo] {
        &self.inner.first.layers
    }

    /// What has passed the wire, all layers included, and all connections together.
    pub fn meter(&self) -> &Meter {
        &self.inner.meter
    }

    /// Where the stream that the session was made on goes or came from, for messages. Where it runs now,
    /// [`path`](Self::path) tells.
    pub fn label(&self) -> &str {
        &self.inner.first.label
    }

    /// The channel binding `tls-exporter` of RFC 9266, of the innermost layer: 32 bytes that both ends
    /// share and nobody else knows, to bind a proof of the application's own (a password, a token)
    /// to this session. That of the connection which the session was made on, over whatever it goes on.
    pub fn tls_exporter(&self) -> &[u8; 32] {
        &self.inner.tls_exporter
    }

    /// How long it took from the open stream to the announced session: all handshakes and one ping.
    pub fn handshake_time(&self) -> Duration {
        self.inner.handshake_time
    }

    /// Tells whether a substream is there that this end has opened, without keeping the session.
    pub(crate) fn use_here(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let mux = self.inner.mux.closer();
        move || mux.is_used_here()
    }

    /// A number that no other session of this process has had, the older the lesser: to know it again without keeping it.
    pub fn number(&self) -> u64 {
        self.inner.number
    }

    /// How long ago it was made.
    pub fn age(&self) -> Duration {
        self.inner.since.elapsed()
    }

    /// The substreams that exist now, opened by either end: at most so many, the oldest first. The label of each is the service
    /// that was asked for, which a peer may have chosen: [clean](cepa_transports::text::clean) it where it is shown.
    pub fn streams(&self, most: usize) -> Vec<mux::StreamInfo> {
        self.inner.mux.streams(most)
    }

    /// Counters and gauges of the mux.
    pub fn mux_stats(&self) -> mux::Stats {
        self.inner.mux.stats()
    }

    /// Opens a service at the peer; an empty name leaves the choice to the peer.
    ///
    /// Returns when the peer has accepted, which takes a round trip; [`open_early`](Self::open_early) does not wait for that.
    /// Neither side has TLS inside the substream, beyond the session's own.
    ///
    /// # Errors
    /// Why not; [`OpenError::is_limit`] and [`OpenError::is_safe_to_retry`] tell what to do about it.
    ///
    /// # Cancel safety
    /// Dropping the future resets the substream.
    pub async fn open(&self, service: &str) -> Result<ServiceStream, OpenError> {
        self.open_with(service, &OpenOptions::default()).await
    }

    /// As [`open`](Self::open), with a priority and time limits of its own from the first byte on.
    ///
    /// # Errors
    /// As for `open`.
    ///
    /// # Cancel safety
    /// As for `open`.
    pub async fn open_with(
        &self,
        service: &str,
        options: &OpenOptions,
    ) -> Result<ServiceStream, OpenError> {
        let stage = Stage::default();
        let asking = self.asking(service, InnerTls::Without)?;
        let accepted = async {
            let mut onion = self.start(asking, options, &stage).await?;
            onion.accepted().await?;
            Ok(onion)
        };
        self.within(service, options.patience, &stage, accepted)
            .await
    }

    /// Opens a service at the peer with TLS inside the substream, as its client; identity and trust
    /// are those of `inner`, and need not be the session's.
    ///
    /// Returns when the peer has accepted our certificate as well. A refusal leaves the session
    /// as it was.
    ///
    /// The layer is bound to this session and to the service's name: whoever is at its other end means both, and
    /// the peer can not have joined it to another one.
    ///
    /// # Cancel safety
    /// Dropping the future resets the substream.
    pub async fn open_secured(
        &self,
        service: &str,
        inner: &TlsConfig,
    ) -> Result<ServiceStream, OpenError> {
        let bounds = Bounds {
            service,
            session: Some(&self.inner.tls_exporter),
        };
        self.secure(InnerTls::Here, inner, bounds).await
    }

    /// As [`open_secured`](Self::open_secured), for TLS that may end beyond the peer: on a third host, to which the
    /// peer joins the substream ([`Incoming::accept_to_join`] and [`open_to_join`](Self::open_to_join)), and which
    /// takes it by [`Incoming::accept_secured_through`].
    ///
    /// The layer is bound to the service's name, and not to this session: the peer chooses whom to join us to, so
    /// `inner` has to say whom to trust. The peer sees when bytes pass, and how many.
    ///
    /// # Cancel safety
    /// Dropping the future resets the substream.
    pub async fn open_secured_through(
        &self,
        service: &str,
        inner: &TlsConfig,
    ) -> Result<ServiceStream, OpenError> {
        let bounds = Bounds {
            service,
            session: None,
        };
        self.secure(InnerTls::Through, inner, bounds).await
    }

    /// Opens a service with TLS inside for somebody else, whose substream of [`Incoming::accept_to_join`] is to be
    /// joined to this one. What comes of it is that one's handshake; the name has to be the one that was asked for,
    /// as the two ends are bound to it.
    ///
    /// # Cancel safety
    /// Dropping the future resets the substream.
    pub async fn open_to_join(&self, service: &str) -> Result<ServiceStream, OpenError> {
        let (options, stage) = (OpenOptions::default(), Stage::default());
        let asking = self.asking(service, InnerTls::Through)?;
        let accepted = async {
            let mut onion = self.start(asking, &options, &stage).await?;
            onion.accepted().await?;
            Ok(onion)
        };
        self.within(service, None, &stage, accepted).await
    }

    async fn secure(
        &self,
        inner_tls: InnerTls,
        config: &TlsConfig,
        bounds: Bounds<'_>,
    ) -> Result<ServiceStream, OpenError> {
        let (options, stage) = (OpenOptions::default(), Stage::default());
        let asking = self.asking(bounds.service, inner_tls)?;
        let secured = async {
            let mut onion = self.start(asking, &options, &stage).await?;
            // The handshake begins behind the request. Where the peer refuses that, it is no fault of the handshake.
            let secured = inner::open(&mut onion, config, &bounds).await;
            secured.map_err(|error| onion.refusal().unwrap_or(error))?;
            Ok(onion)
        };
        self.within(bounds.service, None, &stage, secured).await
    }

    /// Waits for the next substream that the peer opens. [`incoming`](Self::incoming) is the same as a stream.
    ///
    /// Several tasks may accept. A substream that is slow to say what it is for delays no other
    /// one; one that says nothing in time, or nonsense, is reset and not reported.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// How the session ended, if it has; [`SessionEnd::NoRuntime`] outside a tokio runtime.
    pub async fn accept(&self) -> Result<Incoming, SessionEnd> {
        self.without_runtime().map_or(Ok(()), Err)?;
        let mut arrivals = match self.inner.arrivals.try_lock() {
            Ok(arrivals) => arrivals,
            Err(_) => self.inner.arrivals.lock().await,
        };
        loop {
            let arrived = arrivals
                .next(&self.inner.mux)
                .await
                .map_err(|error| self.ended(error))?;
            let incoming = self.arrived(arrived);
            if incoming.service() != reserved::PAUSE {
                return Ok(incoming);
            }
            self.bear_with(incoming);
        }
    }

    /// The substreams that the peer opens, one after the other, until the session is over, as a stream of the futures
    /// crate. How it ended, [`closed`](Self::closed) tells. It keeps the session.
    pub fn incoming(&self) -> impl futures::Stream<Item = Incoming> + Send + Unpin + use<> {
        let session = self.clone();
        let next = async |session: Self| Some((session.accept().await.ok()?, session));
        Box::pin(futures::stream::unfold(session, next))
    }

    /// Measures a round trip to the peer's mux.
    ///
    /// # Errors
    /// How the session ended, if it has.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn ping(&self) -> Result<Duration, SessionEnd> {
        if self.inner.borrowed {
            return self.ping_through().await;
        }
        self.inner
            .mux
            .ping()
            .await
            .map_err(|error| self.ended(error))
    }

    /// Tells the peer that this end takes no more substreams and opens none, and returns when that has left. Those that
    /// are open go on; [`accept`](Self::accept) still brings what had come before. When the last is over the session
    /// ends in order: [`closed`](Self::closed) waits for that, [`drain`](Self::drain) does both.
    ///
    /// What the peer opens before it reads this is refused unseen ([`OpenError::is_safe_to_retry`]); what it would
    /// open later fails at its end ([`OpenError::Mux`]).
    ///
    /// # Cancel safety
    /// Dropping the future does not take it back.
    pub async fn go_away(&self) {
        self.inner.mux.go_away(mux::GoAwayCode::Normal).await;
    }

    /// Ends the session when nothing is open any more: [`go_away`](Self::go_away), then as long as `patience` for the
    /// open substreams to end, then [`close`](Self::close), which resets what is left. Tells how the session ended; whether
    /// anything was cut is for the substreams' own ends to tell. Outside a tokio runtime it does nothing and gives
    /// [`SessionEnd::NoRuntime`], where the session is not over already.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the session as after `go_away`.
    pub async fn drain(&self, patience: Duration) -> SessionEnd {
        if let Some(end) = self.without_runtime() {
            return end;
        }
        let drained = async {
            self.go_away().await;
            self.closed().await
        };
        if let Ok(end) = timeout(patience, drained).await {
            return end;
        }
        self.close().await;
        self.closed().await
    }

    /// Ends the session: says so to the peer, in the mux and in every TLS layer, and waits until
    /// that has left. Substreams whose end was written still send what is queued, all others are
    /// reset.
    ///
    /// # Cancel safety
    /// Dropping the future does not take the close back.
    pub async fn close(&self) {
        self.inner.mux.close().await;
    }

    /// As [`close`](Self::close), with a reason that the peer reads.
    ///
    /// # Cancel safety
    /// As for `close`.
    pub async fn close_with(&self, code: mux::GoAwayCode) {
        self.inner.mux.close_with(code).await;
    }

    /// Outside a runtime: how the session ended, or that there is no runtime. Timers would panic, those of a runtime that has
    /// ended as well.
    fn without_runtime(&self) -> Option<SessionEnd> {
        in_runtime().err()?;
        let end = self.inner.mux.over().map(|error| self.ended(error));
        Some(end.unwrap_or(SessionEnd::NoRuntime))
    }

    /// How the session ended, which the mux ended so. It does not know whether what it said at its end has left: where there was no
    /// connection at the moment, it has not.
    fn ended(&self, error: mux::MuxError) -> SessionEnd {
        match (SessionEnd::from_mux(error), &self.inner.lasting) {
            (SessionEnd::Lost(_) | SessionEnd::Tls(_), _) if self.inner.borrowed => {
                SessionEnd::LenderGone
            }
            (SessionEnd::Closed, Some(lasting)) if lasting.is_unheard() => {
                SessionEnd::ClosedUnheard
            }
            (end, _) => end,
        }
    }

    /// Waits until the session is over, and tells why.
    pub async fn closed(&self) -> SessionEnd {
        self.ended(self.inner.mux.closed().await)
    }

    /// Waits until nothing can be opened in this session any more: it is over, one of its ends
    /// [goes away](Self::go_away), or its numbers of substreams are used up. Substreams that are open may go on, for which
    /// [`closed`](Self::closed) waits.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn spent(&self) {
        self.inner.mux.spent().await;
    }

    /// See [`spent`](Self::spent).
    pub(crate) fn is_spent(&self) -> bool {
        self.inner.mux.is_spent()
    }

    #[cfg(feature = "mesh")]
    /// Opens a service on a substream that the peer has accepted already, for something that came before it.
    pub(crate) async fn open_on(
        &self,
        onion: ServiceStream,
        service: &str,
    ) -> Result<ServiceStream, OpenError> {
        let asking = self.asking(service, InnerTls::Without)?;
        let asked = self.ask(onion, asking);
        self.within(service, None, &Stage::opened(), asked).await
    }

    #[cfg(feature = "mesh")]
    /// Waits for the peer to ask for a service on a substream that was accepted for something that came
    /// before it. None when it does not, in time, or speaks nonsense.
    pub(crate) async fn accept_behind(&self, onion: ServiceStream) -> Option<Incoming> {
        let arrived = Arrived::on(onion, self.inner.open_timeout).await?;
        Some(self.arrived(arrived))
    }

    fn arrived(&self, arrived: Arrived) -> Incoming {
        let Inner {
            peer,
            tls_exporter,
            open_timeout,
            ..
        } = &*self.inner;
        arrived.into_incoming(Arc::clone(peer), *tls_exporter, *open_timeout)
    }
}

/// Whether both are handles on the same session.
impl PartialEq for Session {
    fn eq(&self, other: &Self) -> bool {
        self.is_same(other)
    }
}

impl Eq for Session {}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("peer", &self.inner.peer.id())
            .field("label", &self.inner.first.label)
            .field("layers", &self.inner.first.layers.len())
            .finish_non_exhaustive()
    }
}
