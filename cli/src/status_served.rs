//! `cepa.status`: a peer asks what this end sees of the session with it; and how it is told.
//!
//! Only peers that are known by name may ask, and each sees its own session alone: what passes there it knows anyway, and how it looks from
//! here (what is queued, what nobody reads) is what it wants to know. Whom the owner names (`--allow-status`) sees all sessions. Neither
//! sees what this machine calls its peers, its process or its numbers.
//!
//! | who | sends |
//! | --- | --- |
//! | opener | nothing: the service header asks for [`STATUS`] |
//! | acceptor | one JSON object in UTF-8, and the end |
//!
//! An answer has a bound, and is charged to the memory of the peer until it has left.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cepa::mux::Held;
use cepa::node::{Access, Admission, Call, Node, Protocol, Refused};
use cepa::session::reserved::STATUS;
use cepa::session::{OpenOptions, Session};
use futures::future::BoxFuture;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};

use crate::control::{self, Look, seen_at};
use crate::exit::{Code, Failure};
use crate::offered;

/// How long a peer may take to fetch it.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long an answer is waited for: the longest one takes its time on a slow line.
const ANSWER: Duration = Duration::from_secs(60);

/// Longest answer that is read, in bytes: more than twice what this end sends at most.
const MOST: u64 = 4 << 20;

/// What an answer takes at most, in bytes, where all names of services are as long as they may be and have to be escaped: of one session,
/// and of all.
const MOST_OF_ONE: usize = 128 << 10;
const MOST_OF_ALL: usize = 1280 << 10;

/// What who may not ask reads: as for a name that is not there.
const NOT_OPEN: &str = "no service of this name is open to you";

const NO_MEMORY: &str = "too much waits for you already; read that first";

/// Tells peers.
pub(crate) struct Teller {
    command: &'static str,
    since: Instant,
    node: Node,
    /// Who sees all sessions.
    all: Mutex<Access>,
}

/// Lets peers of a node ask. `all`: who sees the sessions of everybody.
pub(crate) fn on(node: &Node, command: &'static str, all: Access) -> Result<Arc<Teller>, Failure> {
    let teller = Arc::new(Teller {
        command,
        since: Instant::now(),
        node: node.handle(),
        all: Mutex::new(all),
    });
    let added = node.add_protocol(Arc::<Teller>::clone(&teller));
    added.map_err(|e| Failure::new(Code::Other, e.to_string()))?;
    Ok(teller)
}

impl Teller {
    /// Changes who sees all sessions.
    pub(crate) fn allow(&self, all: Access) {
        *self.all.lock().unwrap_or_else(PoisonError::into_inner) = all;
    }

    async fn answer(&self, session: &Session, sees_all: bool) -> Value {
        let look = || {
            let sessions = seen_at(&self.node);
            let sessions = sessions.filter(|seen| sees_all || seen.session == *session);
            Look {
                command: self.command,
                since: self.since,
                own: self.node.id(),
                listening: Vec::new(),
                services: Vec::new(),
                registered: Vec::new(),
                sessions: sessions.collect(),
                relay: None,
                carrier: None,
                fleet: None,
                shares: Vec::new(),
            }
        };
        control::for_peer(look).await
    }

    async fn serve(&self, call: Call) -> Result<(), io::Error> {
        let context = call.context();
        let all = self
            .all
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let sees_all = context.may(&all);
        if !context.is_named() && !sees_all {
            let peer = call.peer().id();
            self.node.emit_refused(peer, STATUS, Refused::NotOpen);
            return call.refuse(NOT_OPEN).await.map_err(io::Error::from);
        }
        // Before it is made.
        let most = if sees_all { MOST_OF_ALL } else { MOST_OF_ONE };
        let Some(held) = call.memory().hold(most) else {
            return call.refuse(NO_MEMORY).await.map_err(io::Error::from);
        };
        let mut answer = self.answer(call.session(), sees_all).await;
        if let Some(fields) = answer.as_object_mut() {
            fields.insert("shows".into(), if sees_all { "all" } else { "own" }.into());
        }
        let answer = answer.to_string();
        told(call, &answer, held).await
    }
}

async fn told(call: Call, answer: &str, _held: Held) -> io::Result<()> {
    let mut stream = call.accept().await?;
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    // Dropped before all has left, it would be reset.
    stream.wire_mut().drained(None).await
}

impl Protocol for Teller {
    fn names(&self) -> &[&'static str] {
        &[STATUS]
    }

    // Whether a peer is known by name is asked for each.
    fn admission(&self, _name: &str) -> Admission {
        Admission::OwnProof
    }

    // Whoever only asks is in nobody's way.
    fn keeps_session(&self) -> bool {
        false
    }

    fn delays_shutdown(&self) -> bool {
        false
    }

    fn serve(self: Arc<Self>, call: Call) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let _ = timeout(PATIENCE, Teller::serve(&self, call)).await;
        })
    }
}

/// Asks the peer of a session.
pub(crate) async fn ask(session: &Session) -> Result<Value, Failure> {
    let asked = async {
        let options = OpenOptions::new().patience(ANSWER);
        let mut stream = session.open_with(STATUS, &options).await.map_err(|e| {
            let failure = Failure::from(e);
            if failure.code == Code::Refused {
                let why = format!(
                    "{} does not show you its status: it shows it to peers that it allows by name (ask its owner for --allow with your id), and an older cepa has no such service (ask its owner to update it)",
                    offered::name(session)
                );
                return Failure::new(Code::Refused, why);
            }
            failure
        })?;
        let lost = |e: io::Error| Failure::new(Code::Lost, format!("the answer was cut: {e}"));
        stream.shutdown().await.map_err(lost)?;
        let mut bytes = Vec::new();
        let read = (&mut stream).take(MOST).read_to_end(&mut bytes).await;
        read.map_err(lost)?;
        serde_json::from_slice(&bytes)
            .ok()
            .filter(Value::is_object)
            .ok_or_else(|| Failure::new(Code::Other, "what the peer answers is no status"))
    };
    let late = || Failure::new(Code::Lost, "no answer in time");
    timeout(ANSWER, asked).await.map_err(|_| late())?
}
