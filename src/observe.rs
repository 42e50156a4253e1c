//! What the library reports of itself: spans and events for subscribers of [tracing] (feature `tracing`), counters, gauges and
//! histograms for recorders of [metrics] (feature `metrics`). Without a feature its part of this file is empty, and a
//! call of it compiles to nothing.
//!
//! All that is ever reported stands here, in one function for each thing that happens, so that the other files only say
//! that it happened, and what may be reported can be checked in one place: addresses, peer ids, names of services,
//! times, counts and the texts of errors. Never payload, keys, tokens or invitation codes, nor the arguments of a command
//! that is dialled. What a peer chose (a service's name, its words in an error) is cleaned and cut first.
//!
//! The engines of link, mux and onion report nothing; their drivers do.
//!
//! [tracing]: https://docs.rs/tracing
//! [metrics]: https://docs.rs/metrics
#![cfg_attr(
    not(all(feature = "tracing", feature = "metrics")),
    allow(
        dead_code,
        unused_imports,
        unused_variables,
        clippy::single_match,
        clippy::single_match_else,
        clippy::unused_async,
        clippy::unused_self,
        clippy::needless_pass_by_value,
        clippy::missing_const_for_fn
    )
)]

use std::fmt::{self, Display};
use std::time::Duration;
#[cfg(any(feature = "tracing", feature = "metrics"))]
use std::time::Instant;

use cepa_transports::text::clean;
use cepa_transports::{Endpoint, Side, Target};

/// Most bytes of a text that a peer may have chosen.
const MOST: usize = 512;

/// An event with its fields, in the words of tracing; its target comes first, its level second.
macro_rules! event {
    ($target:literal, $level:ident, $($rest:tt)*) => {
        #[cfg(feature = "tracing")]
        tracing::event!(target: $target, tracing::Level::$level, $($rest)*);
    };
}

/// A span with its fields, in the words of tracing.
macro_rules! span {
    ($target:literal, $($rest:tt)*) => {
        Span {
            #[cfg(feature = "tracing")]
            span: tracing::info_span!(target: $target, $($rest)*),
        }
    };
}

/// One more of a counter.
macro_rules! count {
    ($($what:tt)*) => {
        #[cfg(feature = "metrics")]
        metrics::counter!($($what)*).increment(1);
    };
}

/// One value of a histogram.
macro_rules! record {
    ($value:expr, $($what:tt)*) => {
        #[cfg(feature = "metrics")]
        metrics::histogram!($($what)*).record($value);
    };
}

/// A gauge goes up or down by one.
macro_rules! gauge {
    ($change:ident, $($what:tt)*) => {
        #[cfg(feature = "metrics")]
        metrics::gauge!($($what)*).$change(1);
    };
}

/// What happens in a future is reported as a part of this.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    #[cfg(feature = "tracing")]
    span: tracing::Span,
}

impl Span {
    pub(crate) fn instrument<F: Future>(self, future: F) -> impl Future<Output = F::Output> {
        #[cfg(feature = "tracing")]
        let future = tracing::Instrument::instrument(future, self.span);
        future
    }
}

/// When something began.
#[derive(Clone, Copy, Debug)]
struct Clock {
    #[cfg(any(feature = "tracing", feature = "metrics"))]
    began: Instant,
}

impl Clock {
    fn start() -> Self {
        Self {
            #[cfg(any(feature = "tracing", feature = "metrics"))]
            began: Instant::now(),
        }
    }

    #[cfg(any(feature = "tracing", feature = "metrics"))]
    fn seconds(self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }
}

/// A text that a peer may have chosen, or that may be long.
fn shown(text: &dyn Display) -> String {
    clean(&text.to_string(), MOST).into_owned()
}

/// An address without the arguments of a command, which may be anything.
struct Place<'a>(&'a Endpoint);

impl Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.target() {
            Target::Exec { .. } => write!(f, "{}:…", self.0.scheme()),
            // What runs there is a command, too.
            Target::Ssh { .. } => {
                f.write_str(shown(self.0.target()).split(',').next().unwrap_or("ssh:"))
            }
            _ => f.write_str(&shown(self.0)),
        }
    }
}

fn role(side: Side) -> &'static str {
    match side {
        Side::Client => "client",
        Side::Server => "server",
    }
}

// ---- dials and handshakes -------------------------------------------------------------------------------------------

/// An address is dialled: its transport, then the handshakes.
pub(crate) struct Dial {
    clock: Clock,
    span: Span,
}

pub(crate) fn dial(address: &Endpoint) -> Dial {
    let span = span!("cepa::dial", "dial", address = %Place(address));
    event!("cepa::dial", DEBUG, address = %Place(address), "dialling");
    let clock = Clock::start();
    Dial { clock, span }
}

impl Dial {
    pub(crate) fn span(&self) -> Span {
        self.span.clone()
    }

    /// The session stands, or why not.
    pub(crate) fn ended(self, address: &Endpoint, error: Option<impl Display>) {
        let outcome = outcome(error.is_none());
        count!("cepa_dials_total", "outcome" => outcome);
        if let Some(error) = error {
            event!("cepa::dial", DEBUG, address = %Place(address), error = shown(&error),
                seconds = self.clock.seconds(), "the dial failed");
        }
    }
}

fn outcome(ok: bool) -> &'static str {
    if ok { "ok" } else { "failed" }
}

/// The handshakes of a stream that is open, up to the announced session.
pub(crate) struct Handshake {
    clock: Clock,
    side: Side,
}

pub(crate) fn handshake(address: &str, side: Side) -> (Handshake, Span) {
    let span = span!("cepa::session", "connection", address, side = role(side));
    event!(
        "cepa::session",
        DEBUG,
        address,
        side = role(side),
        "handshake begins"
    );
    let clock = Clock::start();
    (Handshake { clock, side }, span)
}

impl Handshake {
    /// A session that was there already goes on over the stream.
    pub(crate) fn resumed(self) {
        let side = role(self.side);
        count!("cepa_handshakes_total", "side" => side, "outcome" => outcome(true));
        event!(
            "cepa::session",
            DEBUG,
            side,
            seconds = self.clock.seconds(),
            "a session goes on over this connection"
        );
    }

    pub(crate) fn ended(self, error: Option<impl Display>) {
        let (side, outcome) = (role(self.side), outcome(error.is_none()));
        count!("cepa_handshakes_total", "side" => side, "outcome" => outcome);
        match error {
            Some(error) => {
                event!(
                    "cepa::session",
                    DEBUG,
                    side,
                    error = shown(&error),
                    seconds = self.clock.seconds(),
                    "the handshake failed"
                );
            }
            None => {
                event!(
                    "cepa::session",
                    DEBUG,
                    side,
                    seconds = self.clock.seconds(),
                    "handshake done"
                );
            }
        }
    }
}

/// A stream that a node's listener or relay brought became no session.
pub(crate) fn turned_away(from: &str, reason: &'static str, error: &dyn Display) {
    count!("cepa_turned_away_total", "reason" => reason);
    event!(
        "cepa::node",
        DEBUG,
        address = from,
        reason,
        error = shown(error),
        "turned away"
    );
}

// ---- sessions -------------------------------------------------------------------------------------------------------

/// A session that is being made: for who announces it.
pub(crate) struct SessionUp {
    #[cfg(any(feature = "tracing", feature = "metrics"))]
    sender: tokio::sync::oneshot::Sender<Clock>,
    span: Span,
    side: Side,
}

/// The same for the task that drives it, which may end before it is announced.
pub(crate) struct SessionDown {
    #[cfg(any(feature = "tracing", feature = "metrics"))]
    receiver: tokio::sync::oneshot::Receiver<Clock>,
}

pub(crate) fn session(peer: &dyn Display, address: &str, side: Side) -> (SessionUp, SessionDown) {
    #[cfg(any(feature = "tracing", feature = "metrics"))]
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let up = SessionUp {
        #[cfg(any(feature = "tracing", feature = "metrics"))]
        sender,
        span: span!("cepa::session", "session", peer = %peer, address, side = role(side)),
        side,
    };
    let down = SessionDown {
        #[cfg(any(feature = "tracing", feature = "metrics"))]
        receiver,
    };
    (up, down)
}

/// What happened to the connection of a session that outlives it.
pub(crate) fn path_changed(change: &'static str) {
    count!("cepa_path_changes_total", "change" => change);
}

impl SessionUp {
    /// What is reported of its task belongs to it.
    pub(crate) fn span(&self) -> Span {
        self.span.clone()
    }

    pub(crate) fn announced(self, layers: usize, handshake: Duration) {
        let side = role(self.side);
        record!(handshake.as_secs_f64(), "cepa_handshake_seconds", "side" => side);
        count!("cepa_sessions_total", "side" => side);
        gauge!(increment, "cepa_sessions");
        #[cfg(feature = "tracing")]
        self.span
            .span
            .in_scope(|| tracing::info!(target: "cepa::session", layers, "session up"));
        // The task may be gone by now, with its runtime.
        #[cfg(any(feature = "tracing", feature = "metrics"))]
        if let Err(clock) = self.sender.send(Clock::start()) {
            SessionDown::report(clock, None);
        }
    }
}

impl SessionDown {
    /// The session is over, for this reason where it was not wished. Nothing is reported of one that never stood.
    pub(crate) async fn ended(self, error: Option<impl Display>) {
        #[cfg(any(feature = "tracing", feature = "metrics"))]
        {
            let mut this = self;
            if let Ok(clock) = (&mut this.receiver).await {
                let error = error.map(|error| shown(&error));
                Self::report(clock, error.as_deref());
            }
        }
    }

    #[cfg(any(feature = "tracing", feature = "metrics"))]
    fn report(clock: Clock, error: Option<&str>) {
        gauge!(decrement, "cepa_sessions");
        record!(clock.seconds(), "cepa_session_seconds");
        event!(
            "cepa::session",
            INFO,
            error,
            seconds = clock.seconds(),
            "session down"
        );
    }
}

/// A runtime that ends drops the tasks of its sessions.
#[cfg(any(feature = "tracing", feature = "metrics"))]
impl Drop for SessionDown {
    fn drop(&mut self) {
        if let Ok(clock) = self.receiver.try_recv() {
            Self::report(clock, None);
        }
    }
}

/// What a session's mux reads and writes, below it TLS and the wire.
#[derive(Debug)]
pub(crate) struct Traffic {
    /// Found once: these are counted with every piece.
    #[cfg(feature = "metrics")]
    sent: metrics::Counter,
    #[cfg(feature = "metrics")]
    received: metrics::Counter,
}

impl Traffic {
    pub(crate) fn new() -> Self {
        Self {
            #[cfg(feature = "metrics")]
            sent: metrics::counter!("cepa_sent_bytes_total"),
            #[cfg(feature = "metrics")]
            received: metrics::counter!("cepa_received_bytes_total"),
        }
    }

    pub(crate) fn sent(&self, bytes: usize) {
        #[cfg(feature = "metrics")]
        self.sent.increment(bytes as u64);
    }

    pub(crate) fn received(&self, bytes: usize) {
        #[cfg(feature = "metrics")]
        self.received.increment(bytes as u64);
    }
}

// ---- substreams -----------------------------------------------------------------------------------------------------

/// A service is asked for at a peer. Dropped before it has ended, it was given up at this end.
pub(crate) struct Opening {
    clock: Clock,
    reported: bool,
}

pub(crate) fn opening() -> Opening {
    Opening {
        clock: Clock::start(),
        reported: false,
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if !self.reported {
            count!("cepa_opens_total", "outcome" => "dropped");
            event!(
                "cepa::substream",
                DEBUG,
                "given up before the peer's answer"
            );
        }
    }
}

impl Opening {
    /// Something else reports it.
    pub(crate) fn goes_on(mut self) {
        self.reported = true;
    }

    pub(crate) fn ended(mut self, peer: &dyn Display, service: &str, error: Option<impl Display>) {
        self.reported = true;
        // In words, so that the counter's name is made once: of an expression it would be made anew each time.
        if let Some(error) = error {
            count!("cepa_opens_total", "outcome" => "failed");
            event!("cepa::substream", DEBUG, peer = %peer, service = shown(&service),
                    error = shown(&error), "the service was not opened");
        } else {
            count!("cepa_opens_total", "outcome" => "ok");
            event!("cepa::substream", DEBUG, peer = %peer, service = shown(&service),
                    seconds = self.clock.seconds(), "service opened");
            record!(self.clock.seconds(), "cepa_open_seconds");
        }
    }
}

/// A peer has asked for a service here, and has this answer.
pub(crate) fn answered(peer: &dyn Display, service: &str, accepted: bool) {
    let outcome = if accepted { "accepted" } else { "refused" };
    if accepted {
        count!("cepa_requests_total", "outcome" => "accepted");
    } else {
        count!("cepa_requests_total", "outcome" => "refused");
    }
    event!("cepa::substream", DEBUG, peer = %peer, service = shown(&service), outcome, "service asked for");
}

/// A handler of a node serves a substream.
pub(crate) fn serving(peer: &dyn Display, service: &str) -> Span {
    span!("cepa::substream", "substream", peer = %peer, service = shown(&service))
}

/// A substream is there, opened by either end.
pub(crate) fn substream_up(id: u32) {
    gauge!(increment, "cepa_substreams");
    event!("cepa::substream", TRACE, id, "substream begins");
}

/// Nobody here holds it any more.
pub(crate) fn substream_down(id: u32) {
    gauge!(decrement, "cepa_substreams");
    event!("cepa::substream", TRACE, id, "substream ends");
}

// ---- nodes ----------------------------------------------------------------------------------------------------------

/// A node looks for a way to a peer.
pub(crate) fn reaching(peer: &dyn Display) -> Span {
    span!("cepa::dial", "reach", peer = %peer)
}

/// A handler has failed, or panicked. Its words are the application's, and not reported here.
pub(crate) fn handler_failed(peer: &dyn Display, service: &str, panicked: bool) {
    count!("cepa_handler_failures_total");
    event!("cepa::node", DEBUG, peer = %peer, service = shown(&service), panicked, "a handler failed");
}

/// What becomes of a listener; with an error, if it failed.
pub(crate) fn listener(at: &Endpoint, what: &'static str, error: Option<impl fmt::Debug>) {
    let error = error.map(|error| format!("{error:?}"));
    event!("cepa::node", DEBUG, address = %Place(at), error, "{what}");
}

/// A protocol, or a device, has something to say.
pub(crate) fn remark(text: &dyn Display) {
    event!("cepa::node", DEBUG, "{}", shown(text));
}

/// Tells the recorder of the `metrics` crate what each of cepa's numbers counts, and in which unit. To be called once, when the
/// recorder is installed, and before the first session: what a session counts goes to the recorder that was there when it
/// began. The repository's `docs/WATCHING.md` has the same as a table.
#[cfg(feature = "metrics")]
pub fn describe_metrics() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    for (name, unit, text) in [
        ("cepa_dials_total", Unit::Count, "addresses dialled"),
        (
            "cepa_handshakes_total",
            Unit::Count,
            "handshakes on streams that were not dialled by address",
        ),
        (
            "cepa_turned_away_total",
            Unit::Count,
            "streams that became no session at a node",
        ),
        ("cepa_sessions_total", Unit::Count, "sessions that stood"),
        (
            "cepa_path_changes_total",
            Unit::Count,
            "connections that sessions lost and outlived, and those they went on over",
        ),
        (
            "cepa_sent_bytes_total",
            Unit::Bytes,
            "bytes that sessions sent, below TLS not counted",
        ),
        (
            "cepa_received_bytes_total",
            Unit::Bytes,
            "bytes that sessions received, below TLS not counted",
        ),
        (
            "cepa_opens_total",
            Unit::Count,
            "services asked for at peers",
        ),
        (
            "cepa_requests_total",
            Unit::Count,
            "services that peers asked for here",
        ),
        (
            "cepa_handler_failures_total",
            Unit::Count,
            "handlers of a node that failed or panicked",
        ),
    ] {
        describe_counter!(name, unit, text);
    }
    describe_gauge!("cepa_sessions", Unit::Count, "sessions that stand");
    describe_gauge!(
        "cepa_substreams",
        Unit::Count,
        "substreams that this end holds"
    );
    for (name, text) in [
        (
            "cepa_handshake_seconds",
            "from the open stream to the announced session",
        ),
        ("cepa_session_seconds", "how long a session stood"),
        (
            "cepa_open_seconds",
            "from asking for a service to the peer's answer",
        ),
    ] {
        describe_histogram!(name, Unit::Seconds, text);
    }
}
