//! Makes a session of a stack of layers: puts the mux on it, and waits for the first ping.

use std::future::pending;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cepa_transports::meter::{Meter, Metered};
use cepa_transports::{Endpoint, Layer, Stream};
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout, timeout_at};

use crate::Side;
use crate::identity::Refusal;
use crate::mux::{self, Mux};
use crate::observe;
use crate::onion::Onion;
use crate::resume::{self, SessionLost};
use crate::stack::{
    self, Binding, Bound, Built, Lasting, Moved, NoPlace, NotAdmitted, Registered, StackConfig,
    Wire,
};
use crate::tls::TlsError;

use super::error::{self, SessionEnd};
use super::incoming::Arrivals;
use super::paths::redial_at;
use super::resuming::{self, Arrived};
use super::runtime::in_runtime;
use super::supervise::supervise;
use super::witness::{Announced, Witness};
use super::{ConnectError, HelloFault, Inner, Session};

/// Of the next session.
static NUMBERS: AtomicU64 = AtomicU64::new(1);

/// How long a session whose room is wanted may take to end.
const GOODBYE: Duration = Duration::from_secs(1);

impl Session {
    /// Dials an address and makes a session, in the role of the client.
    ///
    /// An address without layers means `mux+tls`. Must be called inside a tokio runtime, which then
    /// drives the session in a task of its own. The peer is told why, where it is refused.
    ///
    /// # Errors
    /// One line that says what to do; [`ConnectError::is_transient`] tells what may work later.
    /// [`ConnectError::NoRuntime`] outside a tokio runtime.
    ///
    /// # Cancel safety
    /// Dropping the future gives the attempt up.
    pub async fn dial(endpoint: &Endpoint, config: &StackConfig) -> Result<Self, ConnectError> {
        Self::dial_with(endpoint, config.clone()).await
    }

    /// The same for whoever has no further use for the configuration.
    pub(crate) async fn dial_with(
        endpoint: &Endpoint,
        mut config: StackConfig,
    ) -> Result<Self, ConnectError> {
        in_runtime()?;
        let watched = observe::dial(endpoint);
        // Handshakes are large while they last, and these are a part of the caller's futures.
        let dialled = Box::pin(watched.span().instrument(async {
            let built = stack::dial(endpoint, &mut config).await?;
            announce(built, Side::Client, &config, pin!(pending())).await
        }));
        let dialled = dialled.await;
        watched.ended(endpoint, dialled.as_ref().err().map(ConnectError::reported));
        let session = dialled?;
        if let Some(lasting) = session.lasting() {
            lasting.set_redial(redial_at(endpoint, &config.untuned()), endpoint);
        }
        Ok(session)
    }

    /// Makes a session on a stream, in either role; the other end must take the other one.
    ///
    /// The stream may be one of tokio's (TCP, Unix, duplex), or any other
    /// [`ByteStream`](crate::ByteStream) with a word on where it leads: [`Stream::from_io`]. `layers` are those of
    /// the address, topmost first; none means `mux+tls`. For a stream that came in at an address, [`accept_on`](Self::accept_on)
    /// takes them from there. Otherwise as [`dial`](Self::dial).
    ///
    /// # Errors
    /// As for [`dial`](Self::dial).
    ///
    /// # Cancel safety
    /// Dropping the future gives the attempt up, and drops the stream.
    pub async fn handshake(
        stream: impl Into<Stream>,
        layers: &[Layer],
        side: Side,
        config: &StackConfig,
    ) -> Result<Self, ConnectError> {
        let never = pin!(pending());
        Self::over_unless(stream.into(), layers, side, config, never).await
    }

    /// Makes a session on a stream that came in at an endpoint, in the role of the server: with the layers that its
    /// address names, and a configuration that is [tuned](StackConfig::for_endpoint) to it, as
    /// [`dial`](Self::dial) does at the other end. For streams of a
    /// [`Listener`](crate::transports::Listener), whose own
    /// [`endpoint`](crate::transports::Listener::endpoint) it is.
    ///
    /// # Errors
    /// As for [`dial`](Self::dial).
    ///
    /// # Cancel safety
    /// Dropping the future gives the attempt up, and drops the stream.
    pub async fn accept_on(
        stream: impl Into<Stream>,
        endpoint: &Endpoint,
        config: &StackConfig,
    ) -> Result<Self, ConnectError> {
        let config = config.for_endpoint(endpoint);
        Self::handshake(stream, endpoint.layers(), Side::Server, &config).await
    }

    /// The client's, on a connection on which the peer has proven its key already.
    #[cfg(feature = "nat")]
    pub(crate) async fn over_built(
        built: Built,
        config: &StackConfig,
    ) -> Result<Self, ConnectError> {
        Box::pin(announce(built, Side::Client, config, pin!(pending()))).await
    }

    /// As [`handshake`](Self::handshake), until somebody else's stream needs the place: the peer is told then.
    pub(crate) async fn over_unless(
        stream: Stream,
        layers: &[Layer],
        side: Side,
        config: &StackConfig,
        mut unwanted: Pin<&mut impl Future<Output = NotAdmitted>>,
    ) -> Result<Self, ConnectError> {
        in_runtime()?;
        let (watched, span) = observe::handshake(stream.label(), side);
        let session = Box::pin(span.instrument(async {
            let built = stack::build(stream, layers, side, config, unwanted.as_mut()).await?;
            announce(built, side, config, unwanted).await
        }));
        let session = session.await;
        match &session {
            Err(ConnectError::Resumed(_)) => watched.resumed(),
            session => watched.ended(session.as_ref().err().map(ConnectError::reported)),
        }
        session
    }
}

/// The stream that the mux is put on; moved once.
#[allow(clippy::large_enum_variant)]
enum Carried {
    /// It ends with its connection.
    Once(Witness<Bound<Onion<Metered<Stream>>>>),
    /// It outlives it.
    Lasting(resume::Durable<Wire>, Arc<Lasting>),
}

/// Puts the mux on a stack, and waits for the first ping.
async fn announce(
    built: Built,
    side: Side,
    config: &StackConfig,
    mut unwanted: Pin<&mut impl Future<Output = NotAdmitted>>,
) -> Result<Session, ConnectError> {
    let first = built.path(side);
    let is_lasting = built.is_lasting();
    let first_window = built.first_window();
    let Built {
        mut onion,
        meter,
        started,
        deadline,
        line_rate,
        ..
    } = built;
    let layers = &first.layers;
    let Some(peer) = layers.last().map(|layer| layer.peer().clone()) else {
        return Err(TlsError::Misuse {
            what: "a session needs a TLS layer",
        }
        .into());
    };
    // Who a session is with is never open, whatever a layer's configuration allows.
    if layers.iter().any(|layer| layer.peer().is_anonymous()) {
        return Err(TlsError::Refused(Refusal::NoCertificate).into());
    }
    let announced = Announced::default();
    let (binding, tls_exporter) = (Binding::of(&onion, side)?, stack::tls_exporter(&onion)?);
    // Held back until the mux flushes its first frames, so that both leave as one.
    onion.cork();
    let said = onion.write_all(binding.ours()).await;
    said.map_err(|error| match error::tls_inside(&error) {
        Some(tls) => ConnectError::Tls(tls),
        None => ConnectError::Mux(mux::MuxError::Io(error.into())),
    })?;
    let io = Witness::new(Bound::new(onion, binding), announced.clone());
    let carried = if let (true, Some(settings)) = (is_lasting, &config.resume) {
        let lasts = begin(
            Arrived {
                wire: Box::new(io),
                peer: peer.id(),
                exporter: &tls_exporter,
                path: first.clone(),
                line_rate,
            },
            side,
            (config, settings),
            (meter.clone(), &announced),
        );
        tokio::select! {
            lasts = timeout_at(deadline, lasts) => match lasts {
                Ok(lasts) => lasts?,
                Err(_) => return Err(ConnectError::TimedOut {
                    during: "the hello of the session".into(),
                }),
            },
            refused = unwanted.as_mut() => return Err(refused.into()),
        }
    } else {
        Carried::Once(io)
    };
    let mut limits = config.mux.clone();
    limits.line_rate = limits.line_rate.or(line_rate);
    limits.first_window = first_window;
    let admitted = config.admission.as_ref().map(|it| it.admit(&peer));
    if let Some(Ok(admitted)) = &admitted {
        let pool = || admitted.receive_pool.clone();
        limits.receive_pool = limits.receive_pool.or_else(pool);
    }
    let pool = limits.receive_pool.clone();
    let (lasting, (mux, driver)) = match carried {
        Carried::Once(io) => (None, mux::mux(io, side, limits)),
        Carried::Lasting(mut stream, lasting) => {
            // What is kept for a peer, it makes this end hold.
            if let Some(pool) = pool {
                stream.pay_from(Box::new(Kept(pool.hold_anyway(0))));
            }
            // The layer below asks whether the peer is there, and what its silence means is for it to say.
            limits.keepalive_interval = None;
            let lead = resume::LEAD;
            (Some(lasting), mux::mux_behind(stream, side, limits, lead))
        }
    };
    let (hold, until, when_kept) = match admitted {
        Some(Err(refused)) => {
            // The close is asked for first, so that the peer reads the code in place of an answer to its ping. It is part of
            // the handshake: whoever bounds how many of those there are bounds these too.
            let goodbye = futures::future::join(mux.close_with(refused.code), driver);
            let _ = timeout_at(deadline, Box::pin(goodbye)).await;
            return Err(refused.into());
        }
        Some(Ok(admitted)) => (admitted.hold, admitted.until, admitted.when_kept),
        None => (None, None, None),
    };
    let registered = match &lasting {
        Some(lasting) => keep(lasting, &mux, side, config)?,
        None => None,
    };
    if let (Some(lasting), Some(_), Some(notify)) = (&lasting, &registered, when_kept) {
        let handle = lasting.handle.clone();
        notify(Box::new(move || handle.pathless_since()));
    }
    let closer = until.is_some().then(|| mux.closer());
    let (up, down) = observe::session(&peer.id(), &first.label, side);
    let looked_after = lasting.clone();
    let network = config.network.clone();
    // Owned by the task, which drops it in front of the rest.
    let mut driver = Box::pin(driver);
    tokio::spawn(up.span().instrument(async move {
        let wanted = async {
            match until {
                Some(until) => until.await,
                None => pending().await,
            }
        };
        // Polled when it is woken, and not whenever the driver is, which is twice for each message. In a box, since an empty place
        // of the same size is kept beside it.
        let mut looked_after: FuturesUnordered<_> = looked_after
            .map(|lasting| Box::pin(supervise(lasting, &network)))
            .into_iter()
            .collect();
        let looked_after = async move {
            while looked_after.next().await.is_some() {}
            pending::<()>().await;
        };
        // Whoever holds the mux learns how it ended.
        let ended = tokio::select! {
            // Nearly always it is the driver that was woken, twice for each message: it need not be drawn by lot.
            biased;
            ended = &mut driver => ended,
            () = looked_after => Ok(()),
            code = wanted => {
                let said = if let (Some(code), Some(closer)) = (code, closer) {
                    closer.close_with(code);
                    timeout(GOODBYE, &mut driver).await.is_ok()
                } else {
                    false
                };
                if let Some(registered) = &registered {
                    registered.makes_room();
                    if !said {
                        // Once, so that a peer that is there reads why.
                        let _ = (&mut driver).now_or_never();
                    }
                }
                Ok(())
            }
        };
        // The place is free when the memory of what was in it is.
        drop(driver);
        drop((registered, hold));
        down.ended(ended.err()).await;
    }));
    let pinged = timeout_at(deadline, async {
        let answered = mux.ping().await;
        // A peer that has no room says so in front of its answer.
        mux.over().map_or(answered, Err)
    });
    let pinged = tokio::select! {
        pinged = pinged => pinged,
        refused = unwanted => {
            let _ = timeout(GOODBYE, mux.close_with(refused.code)).await;
            never_established(lasting.as_ref());
            return Err(refused.into());
        }
    };
    let failed = match pinged {
        Ok(Ok(_)) => None,
        // What the driver was told is what counts; the ping only hears that there is no more.
        Ok(Err(error)) => Some(unannounced(error)),
        Err(_) => Some(ConnectError::TimedOut {
            during: "the first ping of the session".into(),
        }),
    };
    if let Some(error) = failed {
        never_established(lasting.as_ref());
        return Err(error);
    }
    announced.set();
    if let Some(lasting) = &lasting {
        lasting.handle.endure();
    }
    let handshake_time = started.elapsed();
    up.announced(first.layers.len(), handshake_time);
    Ok(Session {
        inner: Arc::new(Inner {
            mux,
            peer: Arc::new(peer),
            first,
            untuned: lasting.is_some().then(|| config.untuned()),
            lasting,
            meter,
            tls_exporter,
            handshake_time,
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            since: Instant::now(),
            open_timeout: config.open_timeout,
            arrivals: Mutex::new(Arrivals::new(config.header_timeout)),
            borrowed: false,
            bearing: std::sync::Mutex::default(),
        }),
    })
}

/// Begins a session that outlives its connection, or takes one up, which is told as an error.
async fn begin(
    mut arrived: Arrived<'_>,
    side: Side,
    (config, settings): (&StackConfig, &resume::Config),
    (meter, announced): (Meter, &Announced),
) -> Result<Carried, ConnectError> {
    let (ticket, peer_park) = match side {
        Side::Client => {
            let ticket = resuming::new_ticket()?;
            let said = resume::client_new(&mut arrived.wire, &ticket, settings.park).await;
            said.map_err(resuming::io_failed)?;
            (ticket, None)
        }
        Side::Server => {
            let hello = resuming::heard(&mut arrived.wire).await?;
            // The client has let us in, and what comes from now on belongs to the session, whatever happens to the connection.
            announced.set();
            match hello {
                resume::Hello::New { ticket, park } => (ticket, Some(park)),
                resume::Hello::Resume { id, at, proof } => {
                    return Err(resuming::taken_up(arrived, (id, at, proof), config).await);
                }
            }
        }
    };
    let (mut stream, handle) = resume::durable(arrived.wire, side, settings);
    stream.set_line_rate(arrived.line_rate);
    if let Some(park) = peer_park {
        stream.peer_keeps(park);
    }
    let lasting = Lasting::new((ticket, handle), meter, arrived.path);
    let lasting = Arc::new(lasting.ok_or(ConnectError::NotKept)?);
    Ok(Carried::Lasting(stream, lasting))
}

/// What a session keeps until its peer has it, as a part of the peer's memory.
struct Kept(mux::Held);

impl resume::Memory for Kept {
    fn take(&mut self, bytes: usize) -> bool {
        self.0.grow(bytes)
    }

    fn give(&mut self, bytes: usize) {
        self.0.shrink(bytes);
    }
}

/// Nobody has such a session, so nobody is waited for who might take it up again.
fn never_established(lasting: Option<&Arc<Lasting>>) {
    if let Some(lasting) = lasting {
        lasting.handle.give_up(SessionLost::GivenUp);
    }
}

/// Makes a session known to those who may take it up again.
fn keep(
    lasting: &Arc<Lasting>,
    mux: &Mux,
    side: Side,
    config: &StackConfig,
) -> Result<Option<Registered>, ConnectError> {
    let (closer, fixed) = (mux.closer(), config.mux.line_rate);
    lasting.when_moved(move |moved| match moved {
        Moved::Nowhere => closer.path_lost(),
        Moved::To { line_rate } => closer.path_changed(fixed.or(line_rate)),
    });
    if side == Side::Server {
        // The client may take it for announced before this end does: it has proven who it is.
        lasting.handle.endure();
    }
    let entered = if side == Side::Server && config.begins_nothing {
        Err(NoPlace::Full)
    } else {
        config.registry.enter(lasting)
    };
    match entered {
        Ok(registered) => {
            if let Some(settings) = &config.resume {
                lasting.keep(settings.park);
            }
            Ok(Some(registered))
        }
        Err(NoPlace::Full) => {
            lasting.keep_not();
            Ok(None)
        }
        Err(NoPlace::Taken) => Err(ConnectError::Hello(HelloFault::NameTaken)),
    }
}

/// Why the session did not come to stand, which the mux ended so.
fn unannounced(error: mux::MuxError) -> ConnectError {
    match SessionEnd::from_mux(error) {
        SessionEnd::Tls(error) => ConnectError::Tls(error),
        // The layer below was closed in order: as who gives a handshake up does, that this end took for finished.
        SessionEnd::Lost(mux::MuxError::Eof) => ConnectError::Tls(TlsError::GivenUp),
        SessionEnd::Lost(error) => match error::binding_inside(&error) {
            Some(reason) => ConnectError::Binding(reason),
            None => ConnectError::Mux(error),
        },
        SessionEnd::GivenUp(lost) => {
            ConnectError::Mux(mux::MuxError::Io(std::io::Error::from(lost).into()))
        }
        SessionEnd::Closed | SessionEnd::ClosedUnheard => ConnectError::Mux(mux::MuxError::Closed),
        SessionEnd::GaveUp { code } => ConnectError::Mux(mux::MuxError::GaveUp { code }),
        SessionEnd::ClosedByPeer => ConnectError::GoneAway {
            code: mux::GoAwayCode::Normal,
        },
        SessionEnd::GoneAway { code } => ConnectError::GoneAway { code },
        SessionEnd::NoRuntime => ConnectError::NoRuntime,
        // Known only behind this.
        SessionEnd::LenderGone => ConnectError::Over,
    }
}
