//! Substreams that the peer opens: reading what they are for, accepting and refusing them.
//!
//! Headers are read while somebody waits in `Session::accept`, all of them at once, so that a
//! substream that dawdles holds up no other. How many may dawdle is bounded here, for how long by
//! the header's time limit; beyond that the mux's own backlog holds the peer back.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::error::{AcceptError, SessionEnd};
use super::header::{ACCEPTED, Answer, HeaderError, InnerTls, Progress, Request, Status};
use super::inner::{self, Bounds};
use super::runtime::in_runtime;
use super::substream::ServiceStream;
use crate::mux::{Begun, Mux, MuxError};
use crate::observe;
use crate::onion::Onion;
use crate::tls::{Peer, TlsConfig};
use crate::wire::linger_close;

/// Substreams whose header may be on its way at once. A conformant peer sends it with the opening,
/// so that hardly any ever is.
const DAWDLING: usize = 64;

/// How long a refused peer gets to read why, before its substream is reset.
const PARTING: Duration = Duration::from_secs(5);

/// Substreams whose header is being read.
pub(super) struct Arrivals {
    header_timeout: Duration,
    pending: FuturesUnordered<BoxFuture<'static, Option<Arrived>>>,
}

/// A substream, and what it is for.
pub(super) struct Arrived {
    onion: ServiceStream,
    request: Request,
}

impl Arrivals {
    pub(super) fn new(header_timeout: Duration) -> Self {
        Self {
            header_timeout,
            pending: FuturesUnordered::new(),
        }
    }

    /// The next substream whose header is complete. Cancel safe: what was read stays here.
    pub(super) async fn next(&mut self, mux: &Mux) -> Result<Arrived, MuxError> {
        loop {
            tokio::select! {
                // Those that came first, first.
                biased;
                Some(arrived) = self.pending.next(), if !self.pending.is_empty() => {
                    if let Some(arrived) = arrived {
                        return Ok(arrived);
                    }
                }
                accepted = mux.accept_begun(request_at_hand), if self.pending.len() < DAWDLING => {
                    let (substream, request) = accepted?;
                    let onion = Onion::new(substream);
                    // As a rule it is there, and nothing to wait for.
                    if let Some((service, inner_tls)) = request {
                        let request = Request { service, inner_tls };
                        return Ok(Arrived { onion, request });
                    }
                    let arriving = arrive(onion, self.header_timeout);
                    self.pending.push(Box::pin(arriving));
                }
            }
        }
    }
}

impl Arrived {
    #[cfg(feature = "mesh")]
    /// The next header on a substream that was accepted for something that came before it.
    pub(super) async fn on(onion: ServiceStream, header_timeout: Duration) -> Option<Self> {
        arrive(onion, header_timeout).await
    }

    /// `exporter` is the session's.
    pub(super) fn into_incoming(
        self,
        peer: Arc<Peer>,
        exporter: [u8; 32],
        time: Duration,
    ) -> Incoming {
        Incoming {
            it: Box::new(Waiting {
                onion: self.onion,
                request: self.request,
                peer,
                exporter,
                time,
            }),
        }
    }
}

/// The header of a new substream, where it has come whole and in one piece.
fn request_at_hand(came: &[u8]) -> Option<Begun<'_, InnerTls>> {
    let Ok(Progress::Done((label, what), size)) = Request::look(came) else {
        return None;
    };
    Some(Begun { label, size, what })
}

/// Reads the header of a new substream. None when it does not come, or makes no sense.
async fn arrive(mut onion: ServiceStream, limit: Duration) -> Option<Arrived> {
    match timeout(limit, read_header(&mut onion, Request::decode)).await {
        Ok(Ok(request)) => {
            onion.wire_mut().set_label(&request.service);
            Some(Arrived { onion, request })
        }
        Ok(Err(error)) => {
            if let Some(fault) = HeaderError::inside(&error) {
                let answer = Answer::refused(Status::NotUnderstood, &fault.to_string());
                let _ = timeout(limit, say(&mut onion, &answer.encode())).await;
                tokio::spawn(close_lingering(onion));
            }
            None
        }
        // Dropped unfinished, which resets it.
        Err(_) => None,
    }
}

/// Reads one header and not a byte more: what follows it may belong to a TLS layer.
///
/// A [`HeaderError`] comes inside the [`io::Error`].
pub(super) async fn read_header<T>(
    onion: &mut ServiceStream,
    decode: impl Fn(&[u8]) -> Result<Progress<T>, HeaderError>,
) -> io::Result<T> {
    let mut bytes = Vec::new();
    loop {
        let fault = |fault| io::Error::new(io::ErrorKind::InvalidData, fault);
        let needed = match decode(&bytes).map_err(fault)? {
            Progress::Done(header, _) => return Ok(header),
            Progress::Need(needed) => needed,
        };
        let start = bytes.len();
        bytes.resize(needed, 0);
        if let Some(room) = bytes.get_mut(start..) {
            onion.read_exact(room).await?;
        }
    }
}

async fn say(onion: &mut ServiceStream, answer: &[u8]) -> io::Result<()> {
    onion.write_all(answer).await?;
    onion.flush().await
}

/// As far as that takes no waiting; what is left to do then is to say the rest, which may be nothing.
fn say_now<'a>(onion: &mut ServiceStream, answer: &'a [u8]) -> io::Result<Option<&'a [u8]>> {
    let cx = &mut Context::from_waker(Waker::noop());
    let said = match Pin::new(&mut *onion).poll_write(cx, answer) {
        Poll::Ready(said) => said?,
        Poll::Pending => 0,
    };
    let rest = answer.get(said..).unwrap_or_default();
    if !rest.is_empty() {
        return Ok(Some(rest));
    }
    match Pin::new(onion).poll_flush(cx) {
        Poll::Ready(flushed) => flushed.map(|()| None),
        Poll::Pending => Ok(Some(rest)),
    }
}

/// Ends a refused substream so that the peer can read why.
async fn close_lingering(mut onion: ServiceStream) {
    linger_close(&mut onion, PARTING).await;
}

/// A substream that the peer has opened, and that waits for an answer.
///
/// Dropped without one, it is reset, and the peer learns that it was dropped.
pub struct Incoming {
    /// Apart: what is moved from function to function has its place in the future of each.
    it: Box<Waiting>,
}

struct Waiting {
    onion: ServiceStream,
    request: Request,
    peer: Arc<Peer>,
    /// The session's `tls-exporter`.
    exporter: [u8; 32],
    time: Duration,
}

impl Incoming {
    /// The service that the peer asks for; empty leaves the choice to us.
    pub fn service(&self) -> &str {
        &self.it.request.service
    }

    /// Who asks: the peer of the session.
    pub fn peer(&self) -> &Peer {
        &self.it.peer
    }

    /// Whether it asks for TLS inside the substream, of either kind.
    pub fn wants_inner_tls(&self) -> bool {
        self.it.request.inner_tls != InnerTls::Without
    }

    /// Whether it asks for TLS inside the substream that is not bound to this session, since it may end, or may have
    /// begun, at a third host: for [`accept_secured_through`](Self::accept_secured_through) and
    /// [`accept_to_join`](Self::accept_to_join).
    pub fn wants_inner_tls_through(&self) -> bool {
        self.it.request.inner_tls == InnerTls::Through
    }

    /// Accepts. Where the peer asked for inner TLS it is refused instead, and told so.
    ///
    /// # Cancel safety
    /// Dropping the future resets the substream.
    pub async fn accept(self) -> Result<ServiceStream, AcceptError> {
        self.accept_as(InnerTls::Without).await
    }

    /// Accepts, and puts TLS inside, as its server; identity and trust are those of `inner`. Where
    /// the peer did not ask for inner TLS it is refused instead, and told so.
    ///
    /// The layer is bound to this session and to the service's name: whoever is at its other end has opened this
    /// service in this session, and no peer in between has joined two substreams.
    ///
    /// # Cancel safety
    /// Dropping the future resets the substream.
    pub async fn accept_secured(self, inner: &TlsConfig) -> Result<ServiceStream, AcceptError> {
        self.secure(inner, InnerTls::Here).await
    }

    /// Accepts TLS inside that may have begun beyond the peer, on a third host that the peer joins to us, as its
    /// server. Where the peer did not ask for such it is refused instead, and told so.
    ///
    /// The layer is bound to the service's name, and not to this session: the peer of the session and the one at the
    /// other end of the layer need not be the same, so `inner` has to say whom to trust.
    ///
    /// # Cancel safety
    /// Dropping the future resets the substream.
    pub async fn accept_secured_through(
        self,
        inner: &TlsConfig,
    ) -> Result<ServiceStream, AcceptError> {
        self.secure(inner, InnerTls::Through).await
    }

    /// Accepts TLS inside without taking part in it, for who joins this substream to one of
    /// [`Session::open_to_join`](super::Session::open_to_join), of the same service name, on another session.
    /// Where the peer did not ask for such it is refused instead, and told so.
    ///
    /// # Cancel safety
    /// Dropping the future resets the substream.
    pub async fn accept_to_join(self) -> Result<ServiceStream, AcceptError> {
        self.accept_as(InnerTls::Through).await
    }

    /// Accepts, if that is what was asked for.
    async fn accept_as(mut self, inner_tls: InnerTls) -> Result<ServiceStream, AcceptError> {
        let wants = self.it.request.inner_tls;
        if wants == inner_tls {
            self.answer(true, &ACCEPTED).await?;
            return Ok(self.it.onion);
        }
        let (status, error) = match (wants, inner_tls) {
            (InnerTls::Without, _) => (Status::InnerTlsRequired, AcceptError::WantsNoInnerTls),
            (_, InnerTls::Without) => (Status::NoInnerTls, AcceptError::WantsInnerTls),
            (InnerTls::Here, _) => (Status::OtherInnerTls, AcceptError::WantsInnerTlsHere),
            (InnerTls::Through, _) => (Status::OtherInnerTls, AcceptError::WantsInnerTlsThrough),
        };
        Box::pin(self.turn_down(status)).await?;
        Err(error)
    }

    async fn secure(
        self,
        config: &TlsConfig,
        inner_tls: InnerTls,
    ) -> Result<ServiceStream, AcceptError> {
        let (time, exporter) = (self.it.time, self.it.exporter);
        let service = self.it.request.service.clone();
        let bounds = Bounds {
            service: &service,
            session: (inner_tls == InnerTls::Here).then_some(&exporter),
        };
        let mut onion = self.accept_as(inner_tls).await?;
        let secured = inner::accept(&mut onion, config, &bounds);
        let done = timeout(time, secured)
            .await
            .unwrap_or(Err(AcceptError::TimedOut));
        match done {
            Ok(()) => Ok(onion),
            Err(error) => {
                // The alert must not be overtaken by a reset either.
                tokio::spawn(close_lingering(onion));
                Err(error)
            }
        }
    }

    /// Refuses, and says why; of a long reason the first 255 bytes.
    ///
    /// # Cancel safety
    /// Dropping the future resets the substream.
    pub async fn refuse(mut self, reason: &str) -> Result<(), AcceptError> {
        let answer = Answer::refused(Status::Refused, reason).encode();
        self.answer(false, &answer).await?;
        tokio::spawn(close_lingering(self.it.onion));
        Ok(())
    }

    /// Refuses, and tells the peer that the service is open to those who dial us: for a session that we have
    /// dialled ourselves, with a peer that was not named for the service.
    ///
    /// # Cancel safety
    /// Dropping the future resets the substream.
    pub async fn refuse_dial_instead(self) -> Result<(), AcceptError> {
        self.turn_down(Status::DialInstead).await
    }

    async fn turn_down(self, status: Status) -> Result<(), AcceptError> {
        let mut this = self;
        let answer = Answer::refused(status, "").encode();
        this.answer(false, &answer).await?;
        tokio::spawn(close_lingering(this.it.onion));
        Ok(())
    }

    async fn answer(&mut self, accepted: bool, answer: &[u8]) -> Result<(), AcceptError> {
        // It may have come inside a runtime, and be answered outside.
        if in_runtime().is_err() {
            return Err(SessionEnd::NoRuntime.into());
        }
        observe::answered(&self.it.peer.id(), &self.it.request.service, accepted);
        let Waiting { onion, time, .. } = &mut *self.it;
        // There is room for it on a new substream, so that it takes no timer, nor place for one in each caller's future.
        let said = match say_now(onion, answer) {
            Ok(None) => return Ok(()),
            Ok(Some(rest)) => Box::pin(timeout(*time, say(onion, rest))).await,
            Err(error) => Ok(Err(error)),
        };
        let said = said.map_err(|_| AcceptError::TimedOut)?;
        said.map_err(|error| AcceptError::from_io(&error))
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("service", &self.service())
            .field("peer", &self.it.peer.id())
            .field("wants_inner_tls", &self.wants_inner_tls())
            .finish_non_exhaustive()
    }
}
