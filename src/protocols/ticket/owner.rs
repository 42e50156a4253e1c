//! The side of whoever has made a ticket: judging who shows it, and which sessions may open the services.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::timeout;

use crate::identity::{Invitation, NotAdmitted, OpenInvitation, PeerId, UnixTime};
use crate::node::{Admission, Call, Node, Protocol, ProtocolError, ProtocolEvent};
use crate::session::{Session, reserved};
use crate::wire::{linger_close, receive, send};

use super::text::Ticket;
use super::wire::{MAX_SERVICES, Shown, TicketRefusal, Verdict};

/// Time for a peer to show what it has, and to take the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sessions that have shown the ticket and are remembered; beyond that the first is forgotten, and has to show it again: one that has
/// used nothing, if there is one. More than one peer may have at once.
const SESSIONS: usize = 64;

/// What became of somebody who showed a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TicketEvent {
    /// It has shown the ticket, whose uses are counted, and has used none yet.
    Shown {
        /// Who.
        peer: PeerId,
        /// How many uses there are.
        left: u32,
    },
    /// It was let in; where uses are counted, to a service.
    Used {
        /// Who.
        peer: PeerId,
        /// How many more uses there are, if they are counted.
        left: Option<u32>,
    },
    /// It was not.
    Refused {
        /// Who.
        peer: PeerId,
        /// Why.
        why: TicketRefusal,
    },
}

impl ProtocolEvent for TicketEvent {
    fn peer(&self) -> Option<PeerId> {
        match self {
            Self::Shown { peer, .. } | Self::Used { peer, .. } | Self::Refused { peer, .. } => {
                Some(*peer)
            }
        }
    }
}

impl fmt::Display for TicketEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shown { peer, left } => write!(f, "{peer} shows the ticket; uses left: {left}"),
            Self::Used { peer, left: None } => write!(f, "{peer} uses the ticket"),
            Self::Used {
                peer,
                left: Some(left),
            } => write!(f, "{peer} uses the ticket; uses left: {left}"),
            Self::Refused { peer, why } => {
                write!(f, "{peer} did not get in by the ticket: {}", why.to_owner())
            }
        }
    }
}

/// A ticket that a node takes. Clones are the same.
#[derive(Clone)]
pub struct Tickets {
    inner: Arc<Inner>,
}

struct Inner {
    node: Node,
    services: Vec<String>,
    expires: UnixTime,
    now: fn() -> UnixTime,
    state: Mutex<State>,
    /// Told of the first peer, before that is let in.
    bound: Box<dyn Fn(PeerId) + Send + Sync>,
}

struct State {
    open: OpenInvitation,
    holder: Option<PeerId>,
    left: Option<u32>,
    sessions: VecDeque<Shower>,
}

impl State {
    fn shower(&mut self, key: &[u8; 32]) -> Option<&mut Shower> {
        self.sessions.iter_mut().find(|it| it.key == *key)
    }
}

/// A session that has shown the ticket.
struct Shower {
    /// What makes it the only one of its kind.
    key: [u8; 32],
    /// It has opened a service, which is a use of the ticket; more of them are the same use.
    has_used: bool,
}

impl Tickets {
    /// Lets a node take a ticket, for these services, as often as `uses` says. The node's trust has to let strangers in; `bound`
    /// is told of the first peer that shows the ticket, before that peer is answered, and is where the
    /// services are opened to it. Each of them has to ask [`admits`](Self::admits), and [`uses`](Self::uses) where those are counted. `now` is the clock that the ticket's end goes by.
    ///
    /// At most [`MAX_SERVICES`]; what is beyond that is not named to who shows the ticket.
    ///
    /// # Errors
    /// The node takes a ticket already.
    pub fn on(
        node: &Node,
        ticket: &Ticket,
        services: impl IntoIterator<Item = String>,
        uses: Option<u32>,
        now: fn() -> UnixTime,
        bound: impl Fn(PeerId) + Send + Sync + 'static,
    ) -> Result<Self, ProtocolError> {
        let (id, expires) = (ticket.peer(), ticket.expires());
        let secret = Invitation::of(id, *ticket.secret.secret(), expires, String::new());
        let inner = Arc::new(Inner {
            node: node.handle(),
            services: services.into_iter().take(MAX_SERVICES).collect(),
            expires,
            now,
            state: Mutex::new(State {
                open: OpenInvitation::new(secret),
                holder: None,
                left: uses,
                sessions: VecDeque::new(),
            }),
            bound: Box::new(bound),
        });
        node.add_protocol(Arc::new(Owner(Arc::clone(&inner))))?;
        Ok(Self { inner })
    }

    /// Whether a session may open the services now. It uses nothing up: what can't be opened is no use of the ticket, and no more is a
    /// look at what there is.
    ///
    /// # Errors
    /// [`TicketRefusal::NotShown`], [`TicketRefusal::Expired`] or [`TicketRefusal::UsedUp`].
    pub fn admits(&self, session: &Session) -> Result<(), TicketRefusal> {
        self.inner.admits(session, false)
    }

    /// The same, and the session opens one now: the first that it opens is a use of the ticket.
    ///
    /// # Errors
    /// As there.
    pub fn uses(&self, session: &Session) -> Result<(), TicketRefusal> {
        self.inner.admits(session, true)
    }

    /// Who was the first, if anybody was.
    pub fn holder(&self) -> Option<PeerId> {
        self.inner.state().holder
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets")
            .field("node", &self.inner.node.id())
            .finish_non_exhaustive()
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is whole once the lock is given back.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a session may open a service; and that it does so.
    fn admits(&self, session: &Session, opens: bool) -> Result<(), TicketRefusal> {
        let mut state = self.state();
        let left = state.left;
        let shower = state.shower(session.tls_exporter());
        let shower = shower.ok_or(TicketRefusal::NotShown)?;
        if (self.now)() >= self.expires {
            return Err(TicketRefusal::Expired);
        }
        let Some(left) = left.filter(|_| !shower.has_used) else {
            return Ok(());
        };
        let left = left.checked_sub(1).ok_or(TicketRefusal::UsedUp)?;
        if opens {
            shower.has_used = true;
            state.left = Some(left);
            drop(state);
            self.node.emit(TicketEvent::Used {
                peer: session.peer().id(),
                left: Some(left),
            });
        }
        Ok(())
    }

    /// Judges a proof; gives our answer, and how many uses are left to a session that has had none.
    fn judge(
        &self,
        session: &Session,
        proof: &[u8; 32],
    ) -> Result<([u8; 32], Option<u32>), TicketRefusal> {
        let (peer, now) = (session.peer(), (self.now)());
        let key = *session.tls_exporter();
        let mut state = self.state();
        let proven = state.open.prove(proof, &key, peer.id(), now);
        // Only who has the secret learns more.
        let answer = proven.map_err(|e| match e {
            NotAdmitted::TooManyTries { wait } => TicketRefusal::TooManyTries { wait },
            NotAdmitted::Own => TicketRefusal::Own,
            _ => TicketRefusal::Wrong,
        })?;
        if now >= self.expires {
            return Err(TicketRefusal::Expired);
        }
        if state.holder.is_some_and(|holder| !peer.is(&holder)) {
            return Err(TicketRefusal::Taken);
        }
        let left = state.left;
        if state.shower(&key).is_some() {
            return Ok((answer, left));
        }
        if left == Some(0) {
            return Err(TicketRefusal::UsedUp);
        }
        if state.holder.is_none() {
            state.holder = Some(peer.id());
            (self.bound)(peer.id());
        }
        if state.sessions.len() == SESSIONS {
            let idle = state.sessions.iter().position(|it| !it.has_used);
            state.sessions.remove(idle.unwrap_or(0));
        }
        let has_used = false;
        state.sessions.push_back(Shower { key, has_used });
        Ok((answer, left))
    }
}

/// The protocol.
struct Owner(Arc<Inner>);

impl Protocol for Owner {
    fn names(&self) -> &[&'static str] {
        &[reserved::TICKET]
    }

    // Who shows a ticket proves to have it.
    fn admission(&self, _name: &str) -> Admission {
        Admission::OwnProof
    }

    // Until it has proven something, a stranger's session gives way to others.
    fn keeps_session(&self) -> bool {
        false
    }

    fn serve(self: Arc<Self>, call: Call) -> BoxFuture<'static, ()> {
        Box::pin(async move { serve(&self.0, call).await })
    }
}

async fn serve(inner: &Inner, call: Call) {
    let (incoming, context) = call.into_parts();
    let session = context.session();
    let peer = session.peer().id();
    let Ok(mut stream) = incoming.accept().await else {
        return;
    };
    let Ok(Ok(shown)) = timeout(PATIENCE, receive::<Shown>(&mut stream)).await else {
        return;
    };
    let judged = inner.judge(session, &shown.proof);
    let _kept = judged.is_ok().then(|| context.keep_session());
    let verdict = match judged {
        Ok((answer, left)) => {
            inner.node.emit(match left {
                Some(left) => TicketEvent::Shown { peer, left },
                None => TicketEvent::Used { peer, left },
            });
            Verdict::granted(answer, inner.services.clone())
        }
        Err(why) => {
            inner.node.emit(TicketEvent::Refused { peer, why });
            Verdict::refused(why)
        }
    };
    if let Ok(Ok(())) = timeout(PATIENCE, send(&mut stream, &verdict)).await {
        linger_close(&mut stream, PATIENCE).await;
    }
}
