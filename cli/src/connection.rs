//! A session for a command that dials, and what goes wrong on the way, in the user's words.
//!
//! The library says what failed; only here it is known what the person typed. So this adds the
//! command that would work (unknown peer, changed key) or asks the person who would have to run it,
//! the id that the other side has to allow (refused by it), and the last words of a subprocess that
//! died before it could answer.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cepa::Side;
use cepa::identity::{Identity, Origin, PeerId, TrustPolicy};
use cepa::link::{ChatterSink, StatsHandle};
use cepa::mux::Substream;
use cepa::node::Node;
use cepa::onion::Onion;
use cepa::session::{ConnectError, Session, SessionEnd};
use cepa::tls::TlsError;
use cepa::transports::{Endpoint, TransportErrorKind};
use futures::FutureExt as _;
use tokio::time::timeout;

use crate::args::{DialTarget, Expected, Looking, Trust};
use crate::ask;
use crate::child::Watched;
use crate::dial_failure::{LAST_WORDS, explained, refused};
use crate::exit::{Code, Failure, say};
use crate::first_contact::{Meeting, Person};
use crate::folder;
use crate::keep::{self, Keep};
use crate::pausable::Pausable;
use crate::references::{Introduction, Ticket};
use crate::say::Line;
use crate::sharing::{Lending, Turn};
use crate::signal::Signals;
use crate::silent_line::{Heard, Who};
use crate::stack::{self, carries_session};
use crate::{by_mesh, dial, reach, sharing, short_code, trust};

/// The subprocess that a session runs over: another one when it was connected again.
type SharedChild = Arc<Mutex<Option<Watched>>>;

/// A session and, below it, the subprocess that it may run over.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) session: Session,
    child: SharedChild,
    /// Of a peer that was reached by its id.
    node: Option<Node>,
    /// What a ticket is for.
    shared: Option<Vec<String>>,
    /// Others of this machine have the session too.
    lending: Mutex<Option<Lending>>,
}

/// How a session is made, and what becomes of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct How {
    pub(crate) local_hints: bool,
    pub(crate) keep: Keep,
    /// With other commands of this machine (`--share`).
    pub(crate) shares: bool,
}

impl Connected {
    /// Dials a place, as [`Trust`] allows it, or a peer, which its address vouches for. `on_line` hears what a
    /// line says that is not of its link.
    pub(crate) async fn to(
        target: &DialTarget,
        trust: &Trust,
        identity: &Identity,
        on_line: Option<&OnLine>,
        how: How,
    ) -> Result<Self, Failure> {
        match target {
            DialTarget::Place(address) => {
                Self::dial(target, address, trust, identity, on_line, how).await
            }
            _ => Self::to_peer(target, trust, identity, how).await,
        }
    }

    /// The same for who opens no service there: nothing is kept.
    pub(crate) async fn to_look(
        target: &DialTarget,
        looking: &Looking,
        identity: &Identity,
    ) -> Result<Self, Failure> {
        let how = How {
            local_hints: looking.local_hints.allowed,
            keep: Keep::Not,
            shares: looking.sharing.wanted(),
        };
        let mut target = target.clone();
        short_code::redeem(&mut target, &looking.trust, &looking.code_relay, identity).await?;
        Self::to(&target, &looking.trust, identity, None, how).await
    }

    /// The same for who had a session there before: a person was asked then, if at all.
    pub(crate) async fn again(
        target: &DialTarget,
        trust: &Trust,
        identity: &Identity,
        on_line: Option<&OnLine>,
        how: How,
    ) -> Result<Self, Failure> {
        match target {
            DialTarget::Place(address) => {
                let policy = trust::of_dialler(trust, address)?;
                let asked = trust::asked_for(trust);
                let dialled = Dialled {
                    address,
                    identity,
                    on_line,
                    keep: how.keep,
                    shared_at: shared_at(target, identity, how)?,
                };
                let attempt = Self::attempt(&dialled, &policy, asked?, true);
                attempt.await
            }
            _ => Self::to_peer(target, trust, identity, how).await,
        }
    }

    async fn to_peer(
        target: &DialTarget,
        trust: &Trust,
        identity: &Identity,
        how: How,
    ) -> Result<Self, Failure> {
        if let DialTarget::Ticket(ticket) = target {
            return Self::by_ticket(ticket, trust, identity, how.keep).await;
        }
        let usage = |why: &str| Err(Failure::new(Code::Usage, why));
        if matches!(target, DialTarget::Code(_)) {
            return usage(
                "a short code leads to a ticket; give it to `cepa forward`, `connect`, `console`, `exec`, `cp`, `services` or `ping`",
            );
        }
        let DialTarget::Peer(address) = target else {
            return usage("an introduction opens one service: use it with `cepa connect`");
        };
        if trust.says_something() {
            return Err(Failure::new(
                Code::Usage,
                format!(
                    "{address} already names the peer; leave out --expect, --trust, --trust-new and --ca"
                ),
            ));
        }
        let first = match shared_at(target, identity, how)? {
            None => None,
            Some(place) => match sharing::come(&place, identity).await? {
                Turn::Borrowed(session) if session.peer().is(&address.peer()) => {
                    return Ok(Self::of(session, None));
                }
                Turn::Borrowed(_) => {
                    let why = format!(
                        "the connection that another cepa command shares is not with {}; use --no-share",
                        address.peer()
                    );
                    return Err(Failure::new(Code::Identity, why));
                }
                Turn::First(first) => Some(first),
            },
        };
        let dialled = reach::dial(address, identity, how.local_hints, how.keep).await;
        let (session, node) = dialled?;
        trust::follow(session.peer()).await;
        let link = Self::of(session, Some(node));
        Ok(link.lent(first, identity))
    }

    /// Whoever has made a ticket, to whom it was shown.
    async fn by_ticket(
        ticket: &Ticket,
        trust: &Trust,
        identity: &Identity,
        keep: Keep,
    ) -> Result<Self, Failure> {
        if trust.says_something() {
            let why = "a ticket already names the peer; leave out --expect, --trust, --trust-new and --ca";
            return Err(Failure::new(Code::Usage, why));
        }
        let (session, node, services) = by_mesh::show_ticket(ticket, identity, keep).await?;
        let shared = Some(services);
        Ok(Self {
            shared,
            ..Self::of(session, Some(node))
        })
    }

    /// What the ticket is for, where there is one.
    pub(crate) fn shared(&self) -> Option<&[String]> {
        self.shared.as_deref()
    }

    /// The service of an introduction, which says itself who has it.
    pub(crate) async fn introduced(
        it: &Introduction,
        trust: &Trust,
        identity: &Identity,
    ) -> Result<(Self, Onion<Substream>), Failure> {
        if trust.says_something() {
            let why = "an introduction already names the peer; leave out --expect, --trust, --trust-new and --ca";
            return Err(Failure::new(Code::Usage, why));
        }
        let (stream, session, node) = by_mesh::open_introduced(it, identity).await?;
        Ok((Self::of(session, Some(node)), stream))
    }

    fn of(session: Session, node: Option<Node>) -> Self {
        Self {
            session,
            child: SharedChild::default(),
            node,
            shared: None,
            lending: Mutex::default(),
        }
    }

    /// Lends the session, where this is the command that was to dial.
    fn lent(self, first: Option<Box<sharing::First>>, identity: &Identity) -> Self {
        let lending = first.map(|first| first.lend(&self.session, identity));
        Self {
            lending: Mutex::new(lending),
            ..self
        }
    }

    /// Dials, as [`Trust`] allows it.
    async fn dial(
        target: &DialTarget,
        address: &Endpoint,
        trust: &Trust,
        identity: &Identity,
        on_line: Option<&OnLine>,
        how: How,
    ) -> Result<Self, Failure> {
        carries_session(address)?;
        let dialled = Dialled {
            address,
            identity,
            on_line,
            keep: how.keep,
            shared_at: shared_at(target, identity, how)?,
        };
        let policy = trust::of_dialler(trust, address)?;
        let asked = trust::asked_for(trust)?;
        let link = match Person::at_terminal(trust, address) {
            None => Self::attempt(&dialled, &policy, asked, false).await?,
            Some(person) => {
                let meeting = Meeting::new(Arc::clone(&policy));
                let taken: Arc<dyn TrustPolicy> = Arc::clone(&meeting) as _;
                let link = Self::attempt(&dialled, &taken, asked, false).await?;
                match meeting.met() {
                    None => link,
                    Some(id) => {
                        if let Err(failure) = met(person, address, id).await {
                            link.close_silently().await;
                            return Err(failure);
                        }
                        if link.session.closed().now_or_never().is_none() {
                            link
                        } else {
                            // It took long. Whoever answers now must be the one that the person was shown.
                            link.close_silently().await;
                            Self::attempt(&dialled, &policy, asked, true).await?
                        }
                    }
                }
            }
        };
        let pins: Vec<PeerId> = match trust::expected(trust)? {
            Some(Expected::Peer(id)) if trust.ca.is_none() => vec![id],
            _ => Vec::new(),
        };
        for remark in trust::remarks(link.session.peer(), &pins) {
            say(remark);
        }
        Ok(link)
    }

    /// One connection, or another command's.
    async fn attempt(
        dialled: &Dialled<'_>,
        policy: &Arc<dyn TrustPolicy>,
        asked: Option<PeerId>,
        again: bool,
    ) -> Result<Self, Failure> {
        let Dialled {
            address, identity, ..
        } = *dialled;
        let Some(place) = &dialled.shared_at else {
            return Self::own(dialled, policy, asked, again).await;
        };
        match sharing::come(place, identity).await? {
            Turn::First(first) => {
                let link = Self::own(dialled, policy, asked, again).await?;
                Ok(link.lent(Some(first), identity))
            }
            Turn::Borrowed(session) => match trust::judged(session.peer(), policy).await {
                Ok(()) => Ok(Self::of(session, None)),
                Err(refusal) => {
                    let e = ConnectError::Tls(TlsError::Refused(refusal));
                    Err(explained(e, address, identity, None).await)
                }
            },
        }
    }

    /// One connection. What a device does not do is told the first time.
    async fn own(
        how: &Dialled<'_>,
        policy: &Arc<dyn TrustPolicy>,
        asked: Option<PeerId>,
        again: bool,
    ) -> Result<Self, Failure> {
        let Dialled {
            address,
            identity,
            on_line,
            keep,
            ..
        } = *how;
        let mut config = stack::of(identity, Arc::clone(policy));
        config.ask_for = asked;
        config.resume = keep.at(address);
        let mut config = config.for_endpoint(address);
        let heard = Heard::on(&mut config.link, on_line.map(|it| (&it.chatter, &it.stats)));
        let dialled = dial::dial(address).await;
        let mut stream = dialled.map_err(|e| {
            let is_busy = e.kind() == TransportErrorKind::AddressInUse && address.is_line();
            let failure = Failure::from(e);
            if is_busy && how.shared_at.is_none() {
                failure.with("or, if that is a cepa command of yours, start both with --share")
            } else {
                failure
            }
        })?;
        if !again {
            stream.remarks().iter().for_each(say);
        }
        let child = stream
            .take_child()
            .map(|child| Watched::start(child, "peer".to_owned()));
        let handshake = Session::handshake(stream, address.layers(), Side::Client, &config);
        // Below another transport than a line nothing but the link would be heard.
        let silence = async {
            if address.is_line() && !again {
                heard.tell_why_silent(address, Who::Dials).await;
            }
        };
        match Heard::meanwhile(silence, handshake).await {
            Ok(session) => {
                let child = Arc::new(Mutex::new(child));
                dial_again(&session, address, &child);
                Ok(Self {
                    child,
                    ..Self::of(session, None)
                })
            }
            Err(e) => Err(explained(e, address, identity, child).await),
        }
    }

    /// Who there is to be told when this process is about to be stopped.
    pub(crate) fn pausable(&self) -> Pausable {
        Pausable::of(&self.session, self.node.as_ref())
    }

    /// Of a peer that was reached by its id: what has the session, and others on the way.
    pub(crate) fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// A line about the peer.
    fn say(&self, text: fmt::Arguments<'_>) {
        say(Line::from(text).with("peer", self.session.peer().id()));
    }

    /// Tells the peer that the session ends, over another connection where there is none at the moment; whether it knows. Of a
    /// session that is over it does. `tells`: what ends with it has not been told yet.
    async fn goodbye(&self, tells: bool) -> bool {
        let is_over = self.session.closed().now_or_never().is_some();
        if !is_over && self.session.outlives_connections() && self.session.path().is_none() {
            let (most, what) = (
                GOODBYE.as_secs(),
                if tells {
                    "the peer that the session ends"
                } else {
                    "the server that you leave"
                },
            );
            self.say(format_args!("trying to tell {what}, for {most} s at most"));
            self.session.reconnect_now();
            keep::connected(&self.session).await;
        }
        self.session.close().await;
        !matches!(self.session.closed().await, SessionEnd::ClosedUnheard)
    }

    /// Why the session is no more, or `None` while it stands.
    ///
    /// A substream's error does not tell whether the session went with it; the session says so
    /// itself, at once or a moment later.
    pub(crate) async fn lost(&self) -> Option<Failure> {
        let end = timeout(LAST_WORDS, self.session.closed()).await.ok()?;
        Some(end.into())
    }

    /// Ends the session in order, once all that was written has left. A session that breaks before
    /// that has cut something off.
    pub(crate) async fn finish(&self) -> Result<(), Failure> {
        // While it has no connection the peer would not hear of it, nor get what it has not got yet.
        keep::connected(&self.session).await;
        let _lock = self.end_lending().await;
        self.session.close().await;
        let end = self.session.closed().await;
        self.close().await;
        if end.is_clean() {
            Ok(())
        } else {
            Err(end.into())
        }
    }

    /// Ends the session in order, but soon. The peer may be gone or stuck, so this waits only so long, and not for who asks again
    /// for an end. Of a session that a peer then still keeps, with all that runs in it, the person is told.
    pub(crate) async fn close(&self) {
        self.close_telling(true).await;
    }

    /// Ends it in order for a signal that ends this process: a peer that were not told would take the session for a lost one, and wait
    /// for us if it keeps it.
    pub(crate) async fn ended_by(&self, signal: u8) -> Failure {
        self.close().await;
        Failure::by_signal(signal)
    }

    /// The same for who has been told already what goes on.
    pub(crate) async fn close_silently(&self) {
        self.close_telling(false).await;
    }

    /// Whether other commands have the session too, and it takes more.
    pub(crate) fn is_lent(&self) -> bool {
        let lending = self.lending.lock();
        let lending = lending.unwrap_or_else(PoisonError::into_inner);
        let is_lent = lending.as_ref().is_some_and(Lending::is_lent);
        is_lent && self.session.spent().now_or_never().is_none()
    }

    /// The same session once more, where it is lent: for another attempt in it.
    pub(crate) fn going_on(&self) -> Option<Self> {
        if !self.is_lent() {
            return None;
        }
        let lending = self.lending.lock();
        let lending = lending.unwrap_or_else(PoisonError::into_inner).take();
        Some(Self {
            session: self.session.clone(),
            child: Arc::clone(&self.child),
            node: self.node.clone(),
            shared: self.shared.clone(),
            lending: Mutex::new(lending),
        })
    }

    /// Waits for other commands that have the session too. What this gives is kept until it is closed.
    async fn end_lending(&self) -> Option<sharing::Lock> {
        let lending = self.lending.lock();
        let lending = lending.unwrap_or_else(PoisonError::into_inner).take();
        lending?.end(&self.session).await
    }

    async fn close_telling(&self, tells: bool) {
        let _lock = self.end_lending().await;
        let mut signals = Signals::watch();
        let knows = tokio::select! {
            knows = timeout(GOODBYE, self.goodbye(tells)) => knows == Ok(true),
            () = signals.asked_to_end() => false,
        };
        if let (false, true, Some(stats)) = (knows, tells, self.session.path_stats())
            && !stats.park.is_zero()
        {
            let kept = keep::in_words(stats.park);
            self.say(format_args!(
                "the peer could not be told, and keeps what runs in the session for up to {kept}"
            ));
        }
        if let Some(node) = &self.node {
            node.shutdown(Duration::ZERO).await;
        }
        let child = lock(&self.child).as_ref().map(Watched::end);
        if let Some(end) = child {
            let _ = timeout(GOODBYE, end).await;
        }
    }
}

/// Who is told of the line below a session, where there is one.
#[derive(Clone)]
pub(crate) struct OnLine {
    /// Hears what the line says that is not of its link.
    pub(crate) chatter: ChatterSink,
    /// Reads the link's counters.
    pub(crate) stats: StatsHandle,
}

/// What is dialled, and as whom.
struct Dialled<'a> {
    address: &'a Endpoint,
    identity: &'a Identity,
    on_line: Option<&'a OnLine>,
    keep: Keep,
    /// With other commands.
    shared_at: Option<sharing::Place>,
}

/// Where the session is shared with other commands of this machine, where it is.
fn shared_at(
    target: &DialTarget,
    identity: &Identity,
    how: How,
) -> Result<Option<sharing::Place>, Failure> {
    if how.shares {
        sharing::Place::of(target, identity)
    } else {
        Ok(None)
    }
}

/// Asks a person about a stranger, who is known from then on.
async fn met(person: Person, address: &Endpoint, id: PeerId) -> Result<(), Failure> {
    if !ask::first_contact(person.terminal, address, id).await? {
        let message = format!("at {address}, peer {id} answered; you did not trust it");
        return Err(Failure::new(Code::UnknownPeer, message));
    }
    let known = folder::known_peers()?;
    let met = known.meet(&person.place, id, Origin::Asked, folder::now());
    if let Some(learned) = met.map_err(|e| refused(&e, address, None))? {
        say(learned);
    }
    Ok(())
}

/// A session that outlives its connection is dialled again at the same address; a subprocess takes the place of the one before.
fn dial_again(session: &Session, address: &Endpoint, child: &SharedChild) {
    let (at, child) = (address.clone(), Arc::clone(child));
    session.redial_with(address, move || {
        let (at, child) = (at.clone(), Arc::clone(&child));
        Box::pin(async move {
            // It may hold the device, or whatever else the next one needs.
            drop(lock(&child).take());
            let mut stream = dial::dial(&at).await?;
            let next = stream.take_child();
            *lock(&child) = next.map(|child| Watched::start(child, "peer".to_owned()));
            Ok(stream)
        })
    });
}

fn lock(child: &SharedChild) -> std::sync::MutexGuard<'_, Option<Watched>> {
    // It is whole at all times.
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long a peer may take to answer a goodbye; everything of value has been delivered by then.
const GOODBYE: Duration = Duration::from_secs(3);
