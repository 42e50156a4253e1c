//! What happens at a node, for logs and metrics.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cepa_transports::text::{clean, quoted};
use cepa_transports::{Endpoint, TransportError, TransportErrorKind};
use tokio::sync::broadcast::{self, error::RecvError};

use crate::gate;
use crate::identity::PeerId;
use crate::mux::{GoAwayCode, LimitKind};
use crate::observe;
use crate::session::{ConnectError, PathLostWhy, PathStats, SessionEnd, SessionLost, tls_inside};

use super::live::Path;
use super::shares::Exceeded;

/// Something that happened at a node. Its text is one line.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A listener is up; the address has the real port.
    Listening {
        /// Where.
        at: Endpoint,
    },
    /// A listener failed. A serial line that was unplugged is waited for: [`ListenerBack`](Self::ListenerBack) comes with
    /// the first byte after that.
    ListenerFailed {
        /// Where.
        at: Endpoint,
        /// Why.
        error: TransportError,
        /// It goes on, now or when what it lacks comes back.
        retrying: bool,
    },
    /// A listener that was waited for is there again.
    ListenerBack {
        /// Where.
        at: Endpoint,
    },
    /// A listener has ended: it brings no more streams.
    ListenerEnded {
        /// Where.
        at: Endpoint,
    },
    /// What a listener's device does not do of what its address asks for.
    Remark {
        /// Where.
        at: Endpoint,
        /// What.
        text: String,
    },
    /// The command behind a listener of `exec:` wrote a line to its standard error.
    ChildStderr {
        /// Where.
        at: Endpoint,
        /// Without its line end.
        line: String,
    },
    /// A session with a peer is up.
    SessionUp {
        /// With whom.
        peer: PeerId,
        /// How.
        path: Path,
    },
    /// The connection of a session is lost; the session is kept and goes on over the next one.
    SessionPaused {
        /// With whom.
        peer: PeerId,
        /// What it ran over.
        path: Path,
        /// Why it runs there no more.
        why: PathLostWhy,
        /// The session's counters.
        stats: PathStats,
    },
    /// A session that had no connection goes on.
    SessionResumed {
        /// With whom.
        peer: PeerId,
        /// What it runs over now.
        path: Path,
        /// How long it had none.
        without: Duration,
        /// The session's counters.
        stats: PathStats,
    },
    /// A session goes on over another connection, and was at no time without one.
    SessionMigrated {
        /// With whom.
        peer: PeerId,
        /// What it ran over.
        from: Path,
        /// What it runs over now.
        path: Path,
        /// The session's counters.
        stats: PathStats,
    },
    /// A session with a peer is over.
    SessionDown {
        /// With whom.
        peer: PeerId,
        /// How it came about.
        path: Path,
        /// How it ended.
        end: SessionEnd,
    },
    /// A peer that was let in for its key showed a certificate that had expired: tell its owner.
    CertificateExpired {
        /// Whose.
        peer: PeerId,
    },
    /// A stream that came was turned away.
    TurnedAway {
        /// The listener; none for a circuit of a relay.
        at: Option<Endpoint>,
        /// From where it came, for the gate.
        source: gate::Source,
        /// The same for a person.
        from: String,
        /// Why.
        reason: TurnedAway,
    },
    /// A peer asked for a service that it does not get.
    Refused {
        /// Who.
        peer: PeerId,
        /// Which.
        service: String,
        /// Why.
        reason: Refused,
    },
    /// A handler ended with an error; its substream was reset, unless it had shut it down, and everything else goes on.
    HandlerFailed {
        /// Whom it served.
        peer: PeerId,
        /// Which service.
        service: String,
        /// In the handler's words.
        error: String,
    },
    /// A handler panicked; its substream was reset, everything else goes on.
    HandlerPanicked {
        /// Whom it served.
        peer: PeerId,
        /// Which service.
        service: String,
    },
    /// What happened in a protocol.
    Protocol(Arc<dyn ProtocolEvent>),
}

/// An event of a protocol: its text is one line.
pub trait ProtocolEvent: fmt::Debug + fmt::Display + Any + Send + Sync {
    /// The peer that caused it, if one did: what a log counts the line to.
    fn peer(&self) -> Option<PeerId>;
}

/// Why a stream that came did not become a session.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TurnedAway {
    /// Too many handshakes, or too many failures, from there.
    #[error("{0}")]
    Gate(#[source] gate::Rejected),
    /// Its handshake failed, or its peer is not trusted.
    #[error("{0}")]
    Connect(#[source] ConnectError),
    /// The accepting itself failed; others may follow.
    #[error("{0}")]
    Transport(#[source] TransportError),
    /// The node is shutting down.
    #[error("the node is shutting down")]
    ShutDown,
}

/// Why a peer did not get a service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// There is no such service, or it is not for this peer: both are the same to the peer.
    #[error("no service of this name is open to it")]
    NotOpen,
    /// It named none, and there are several.
    #[error("it named no service, and several are open to it")]
    Unnamed,
    /// The session was dialled from here, and the service is for those who come in.
    #[error(
        "this node dialled the session, and offers the service only to peers that dial it; allow the peer by name"
    )]
    Dialled,
    /// A limit.
    #[error("{0}")]
    Limit(#[source] Exceeded),
    /// Another reason, of a handler or a protocol, in its words: a node knows none of theirs. What a program matches on is in
    /// their own events and errors.
    #[error("{0}")]
    Other(String),
}

/// Of a listener that is well.
const NO_ERROR: Option<TransportErrorKind> = None;

impl Event {
    /// Who caused it, if a peer did.
    #[must_use]
    pub fn peer(&self) -> Option<PeerId> {
        match self {
            Self::SessionUp { peer, .. }
            | Self::SessionPaused { peer, .. }
            | Self::SessionResumed { peer, .. }
            | Self::SessionMigrated { peer, .. }
            | Self::SessionDown { peer, .. }
            | Self::CertificateExpired { peer }
            | Self::Refused { peer, .. }
            | Self::HandlerFailed { peer, .. }
            | Self::HandlerPanicked { peer, .. } => Some(*peer),
            Self::Protocol(event) => event.peer(),
            _ => None,
        }
    }

    /// Reports what no other place does. Sessions and requests report themselves; what a command writes is nobody's but its
    /// owner's.
    pub(super) fn observe(&self) {
        match self {
            Self::TurnedAway { from, reason, .. } => match reason {
                TurnedAway::Gate(error) => observe::turned_away(from, "gate", error),
                TurnedAway::Connect(error) => {
                    observe::turned_away(from, "handshake", &error.reported());
                }
                TurnedAway::Transport(error) => observe::turned_away(from, "transport", error),
                TurnedAway::ShutDown => observe::turned_away(from, "shutdown", reason),
            },
            Self::HandlerFailed { peer, service, .. } => {
                observe::handler_failed(peer, service, false);
            }
            Self::HandlerPanicked { peer, service } => observe::handler_failed(peer, service, true),
            Self::Listening { at } => observe::listener(at, "listening", NO_ERROR),
            Self::ListenerFailed { at, error, .. } => {
                observe::listener(at, "listener failed", Some(error.kind()));
            }
            Self::ListenerBack { at } => observe::listener(at, "listener is back", NO_ERROR),
            Self::ListenerEnded { at } => observe::listener(at, "listener ended", NO_ERROR),
            Self::SessionPaused { .. }
            | Self::SessionResumed { .. }
            | Self::SessionMigrated { .. }
            | Self::Remark { .. }
            | Self::Protocol(_) => observe::remark(self),
            Self::SessionUp { .. }
            | Self::SessionDown { .. }
            | Self::CertificateExpired { .. }
            | Self::Refused { .. }
            | Self::ChildStderr { .. } => {}
        }
    }

    /// The event of a protocol, if it is one of this type.
    #[must_use]
    pub fn protocol<E: ProtocolEvent>(&self) -> Option<&E> {
        match self {
            Self::Protocol(event) => (&**event as &dyn Any).downcast_ref(),
            _ => None,
        }
    }
}

/// The longest text of an event; what a peer can make longer is cut.
const MAX_TEXT: usize = 4096;

impl fmt::Display for Event {
    /// Whatever a peer, a command or a file has written into it, the line does nothing to a terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&clean(&Line(self).to_string(), MAX_TEXT))
    }
}

/// The text as it stands.
struct Line<'a>(&'a Event);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Event::Listening { at } => write!(f, "listening on {at}"),
            Event::ListenerFailed {
                error,
                retrying: true,
                ..
            } => write!(f, "{error}; waiting for it to come back"),
            Event::ListenerFailed { at, error, .. } => {
                write!(f, "no longer listening on {at}: {error}")
            }
            Event::ListenerBack { at } => write!(f, "{at} is back"),
            Event::ListenerEnded { at } => write!(f, "{at} has ended"),
            Event::Remark { text, .. } => f.write_str(text),
            Event::ChildStderr { line, .. } => write!(f, "[peer] {line}"),
            Event::SessionUp { peer, path } => write!(f, "session with {peer} {}", path.phrase()),
            Event::SessionPaused {
                peer,
                path,
                why,
                stats,
            } => write!(
                f,
                "session with {peer} {} has lost its connection ({}); it is kept for {}",
                path.phrase(),
                lost(why),
                in_words(stats.park)
            ),
            Event::SessionResumed {
                peer,
                path,
                without,
                ..
            } => write!(
                f,
                "session with {peer} goes on {} after {:.1} s",
                path.phrase(),
                without.as_secs_f64()
            ),
            Event::SessionMigrated {
                peer, from, path, ..
            } => {
                let (now, before) = (path.phrase(), from.phrase());
                write!(f, "session with {peer} goes on {now}, ")?;
                if now == before {
                    f.write_str("on another connection")
                } else {
                    write!(f, "no longer {before}")
                }
            }
            Event::SessionDown { peer, path, end } => {
                write!(
                    f,
                    "session with {peer} {} ended: {}",
                    path.phrase(),
                    end_text(end, path.dialled)
                )
            }
            Event::CertificateExpired { peer } => write!(
                f,
                "warning: the certificate of peer {peer} has expired; it is trusted for its key, but its owner should renew it (with the same key, so that its id stays)"
            ),
            Event::TurnedAway { from, reason, .. } => write!(f, "turned {from} away: {reason}"),
            Event::Refused {
                peer,
                service,
                reason,
            } => write!(
                f,
                "refused {peer} the service {}: {reason}",
                quoted(service)
            ),
            Event::HandlerFailed {
                peer,
                service,
                error,
            } => write!(
                f,
                "the service {} failed for {peer}: {}",
                quoted(service),
                clean(error, usize::MAX)
            ),
            Event::HandlerPanicked { peer, service } => write!(
                f,
                "the service {} panicked while it served {peer}; report this to who wrote it",
                quoted(service)
            ),
            Event::Protocol(event) => event.fmt(f),
        }
    }
}

/// Events that a slow watcher may be behind.
const EVENTS: usize = 1024;

/// The events of a node, on their way to who watches.
///
/// The channel drops an event under its own lock when a newer one takes its place, and an event of a protocol may do anything then,
/// even emit another one. So what it drops goes to the `over` of the queue, which is emptied where no lock is held.
#[derive(Debug)]
pub(super) struct Queue {
    queue: broadcast::Sender<Queued>,
    over: Over,
}

/// Events that nobody is behind any more.
type Over = Arc<Mutex<Vec<Event>>>;

/// An event in the channel.
#[derive(Clone, Debug)]
struct Queued {
    /// There until it is taken out.
    event: Option<Event>,
    over: Over,
}

impl Drop for Queued {
    fn drop(&mut self) {
        if let Some(event) = self.event.take() {
            let mut over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
            over.push(event);
        }
    }
}

/// Drops the events that are over. What that emits is over later.
fn empty(over: &Over) {
    let gone = std::mem::take(&mut *over.lock().unwrap_or_else(PoisonError::into_inner));
    drop(gone);
}

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            queue: broadcast::Sender::new(EVENTS),
            over: Over::default(),
        }
    }

    pub(super) fn emit(&self, event: Event) {
        // Nobody watching is nobody's error.
        let _ = self.queue.send(Queued {
            event: Some(event),
            over: Arc::clone(&self.over),
        });
        empty(&self.over);
    }

    pub(super) fn watch(&self) -> Events {
        Events {
            queue: Some(self.queue.subscribe()),
            over: Arc::clone(&self.over),
            missed: 0,
        }
    }
}

/// How a session ended, for a log: an end that one side wished asks nobody to do anything.
fn end_text(end: &SessionEnd, dialled: bool) -> String {
    match end {
        SessionEnd::GoneAway {
            code: GoAwayCode::ShuttingDown,
        } => "the peer has stopped".to_owned(),
        SessionEnd::GoneAway {
            code: GoAwayCode::Idle,
        } => "nothing was open in it".to_owned(),
        SessionEnd::Tls(error) if !dialled && error.is_end() => {
            "the session is lost: the peer left without closing it".to_owned()
        }
        SessionEnd::GaveUp {
            code: GoAwayCode::Limit(LimitKind::Memory),
        } => "this node is short of memory".to_owned(),
        SessionEnd::GaveUp {
            code: GoAwayCode::Limit(_),
        }
        | SessionEnd::GivenUp(SessionLost::GivenUp | SessionLost::NoRoom) => {
            "it made room for another session".to_owned()
        }
        SessionEnd::GivenUp(SessionLost::Expired { after }) if !dialled => {
            format!("the peer did not come back within {}", in_words(*after))
        }
        end => end.to_string(),
    }
}

/// Why a connection is lost, for a log. The session that it carried goes on, so nothing is missing.
fn lost(why: &PathLostWhy) -> String {
    if let PathLostWhy::Io(error) = why
        && tls_inside(error).is_some_and(|tls| tls.is_end())
    {
        return "it was cut".to_owned();
    }
    why.to_string()
}

/// A time for people: whole, in the largest unit that it has two of.
fn in_words(time: Duration) -> String {
    let seconds = time.as_secs();
    let (number, unit) = match seconds {
        0..120 => (seconds, "s"),
        120..7200 => (seconds / 60, "min"),
        7200..172_800 => (seconds / 3600, "h"),
        _ => (seconds / 86_400, "d"),
    };
    format!("{number} {unit}")
}

/// The events of a node from the moment on at which it was made.
#[derive(Debug)]
pub struct Events {
    /// There until this is dropped.
    queue: Option<broadcast::Receiver<Queued>>,
    over: Over,
    missed: u64,
}

impl Drop for Events {
    fn drop(&mut self) {
        self.queue = None;
        empty(&self.over);
    }
}

impl Events {
    /// The next one; `None` once the node is gone. A slow watcher misses the oldest ones.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            let received = self.queue.as_mut()?.recv().await;
            empty(&self.over);
            match received {
                Ok(mut queued) => return queued.event.take(),
                Err(RecvError::Lagged(missed)) => self.missed += missed,
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// How many were missed so far.
    pub fn missed(&self) -> u64 {
        self.missed
    }
}

#[cfg(test)]
mod tests {
    use cepa_transports::text::{HOSTILE, is_printable};

    use super::*;

    /// Nothing is wrong, and nobody has to do anything.
    #[test]
    fn an_end_that_was_wished_is_no_alarm() {
        let line = |end: SessionEnd, dialled| {
            let path = Path {
                via: vec![],
                dialled,
                label: "tcp h:1".into(),
            };
            let peer = PeerId::from_bytes([1; 32]);
            Event::SessionDown { peer, path, end }.to_string()
        };
        let cut = || SessionEnd::Tls(crate::tls::TlsError::Truncated { layer: 0 });
        let gone = |code| SessionEnd::GoneAway { code };
        let lost = || SessionEnd::Lost(crate::mux::MuxError::DriverGone);
        for (end, dialled) in [
            (gone(GoAwayCode::ShuttingDown), false),
            (gone(GoAwayCode::ShuttingDown), true),
            (gone(GoAwayCode::Idle), false),
            (SessionEnd::Closed, false),
            (SessionEnd::ClosedByPeer, false),
            (cut(), false),
            (lost(), false),
        ] {
            let text = line(end, dialled);
            for alarm in ["again", "try", "missing"] {
                assert!(!text.contains(alarm), "{text}");
            }
        }
        assert!(line(cut(), true).contains("the last data may be missing"));
    }

    /// A session without a connection is kept with all that is in it, and a log says for how long.
    #[test]
    fn a_session_without_a_connection_is_reported_in_plain_words() {
        let peer = PeerId::from_bytes([1; 32]);
        let path = Path {
            via: vec![],
            dialled: false,
            label: "tcp h:1".into(),
        };
        let cut = crate::tls::TlsError::Truncated { layer: 1 };
        let paused = Event::SessionPaused {
            peer,
            path: path.clone(),
            why: PathLostWhy::Io(Arc::new(std::io::Error::other(cut))),
            stats: PathStats {
                park: Duration::from_secs(600),
                ..PathStats::default()
            },
        };
        assert_eq!(
            paused.to_string(),
            format!(
                "session with {peer} over tcp h:1 has lost its connection (it was cut); it is kept for 10 min"
            )
        );
        let room = "it made room for another session";
        for (end, words) in [
            (
                SessionEnd::GaveUp {
                    code: GoAwayCode::Limit(LimitKind::Sessions),
                },
                room,
            ),
            (SessionEnd::GivenUp(SessionLost::GivenUp), room),
            (SessionEnd::GivenUp(SessionLost::NoRoom), room),
            (
                SessionEnd::GivenUp(SessionLost::Expired {
                    after: Duration::from_secs(90),
                }),
                "the peer did not come back within 90 s",
            ),
        ] {
            let path = path.clone();
            let line = Event::SessionDown { peer, path, end }.to_string();
            assert!(line.ends_with(&format!(" ended: {words}")), "{line}");
        }
    }

    #[derive(Debug)]
    struct Foreign(String);

    impl ProtocolEvent for Foreign {
        fn peer(&self) -> Option<PeerId> {
            None
        }
    }

    impl fmt::Display for Foreign {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(&self.0)
        }
    }

    #[test]
    fn a_line_about_an_event_does_nothing_to_a_terminal() {
        let peer = PeerId::from_bytes([1; 32]);
        for (name, c) in HOSTILE.iter().filter(|(_, c)| *c != '\0') {
            let text = format!("a{c}b");
            let at: Endpoint = format!("unix:/{text}").parse().unwrap();
            let path = Path {
                via: vec![],
                dialled: false,
                label: text.clone(),
            };
            for event in [
                Event::Listening { at: at.clone() },
                Event::ListenerBack { at: at.clone() },
                Event::ListenerEnded { at: at.clone() },
                Event::Remark {
                    at: at.clone(),
                    text: text.clone(),
                },
                Event::ChildStderr {
                    at: at.clone(),
                    line: text.clone(),
                },
                Event::SessionUp {
                    peer,
                    path: path.clone(),
                },
                Event::SessionPaused {
                    peer,
                    path: path.clone(),
                    why: PathLostWhy::Io(Arc::new(std::io::Error::other(text.clone()))),
                    stats: PathStats::default(),
                },
                Event::SessionResumed {
                    peer,
                    path: path.clone(),
                    without: Duration::from_secs(1),
                    stats: PathStats::default(),
                },
                Event::SessionMigrated {
                    peer,
                    from: path.clone(),
                    path: path.clone(),
                    stats: PathStats::default(),
                },
                Event::SessionDown {
                    peer,
                    path,
                    end: SessionEnd::Closed,
                },
                Event::TurnedAway {
                    at: Some(at),
                    source: gate::Source::HERE,
                    from: text.clone(),
                    reason: TurnedAway::ShutDown,
                },
                Event::Refused {
                    peer,
                    service: text.clone(),
                    reason: Refused::Other(text.clone()),
                },
                Event::HandlerFailed {
                    peer,
                    service: text.clone(),
                    error: text.clone(),
                },
                Event::HandlerPanicked {
                    peer,
                    service: text.clone(),
                },
                Event::Protocol(Arc::new(Foreign(text.clone()))),
            ] {
                let line = event.to_string();
                assert!(line.chars().all(is_printable), "{name}: {line:?}");
            }
        }
    }

    /// An event whose drop emits another one, as application code may.
    #[derive(Debug)]
    struct Emits(Arc<Queue>, bool);

    impl ProtocolEvent for Emits {
        fn peer(&self) -> Option<PeerId> {
            None
        }
    }

    impl fmt::Display for Emits {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("emits")
        }
    }

    impl Drop for Emits {
        fn drop(&mut self) {
            if self.1 {
                let last = Self(Arc::clone(&self.0), false);
                self.0.emit(Event::Protocol(Arc::new(last)));
            }
        }
    }

    /// Events that a slow watcher misses are dropped while others are sent.
    #[test]
    fn what_an_event_does_when_it_is_dropped_stops_nobody() {
        let (done, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let queue = Arc::new(Queue::new());
            let mut watcher = queue.watch();
            let slow = queue.watch();
            for _ in 0..3 * EVENTS {
                let event = Emits(Arc::clone(&queue), true);
                queue.emit(Event::Protocol(Arc::new(event)));
            }
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            let first = runtime.unwrap().block_on(watcher.next());
            assert!(first.is_some() && watcher.missed() > 0);
            drop((watcher, slow));
            let _ = done.send(());
        });
        let in_time = ended.recv_timeout(std::time::Duration::from_secs(60));
        in_time.expect("it stands still");
    }
}
