//! A session that comes back by itself.
//!
//! ```text
//!            session ends or is spent         attempt fails, and may pass
//!   Up -----------------------> Down -----+<---------+
//!    ^                           |        | pause    |
//!    +---------------------------+--------+----------+
//!            attempt succeeds             | fails for good, or closed here
//!                                         v
//!                                        Terminated
//! ```
//!
//! A task of its own dials. What a substream of the old session had in flight is lost with it, and its
//! reader and its writer get the session's error: a new session is another connection, with other keys, and
//! no byte passes from one to the other. Whoever wants to go on opens the service again, and knows best from
//! where.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use cepa_transports::{Endpoint, SharedError};
use futures::FutureExt as _;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use super::backoff::Backoff;
use super::runtime::in_runtime;
use super::{ConnectError, Session, SessionEnd};
use crate::stack::StackConfig;

/// How things stand with a [`Reconnecting`] session.
#[derive(Clone, Debug)]
pub enum ReconnectStatus {
    /// This session stands.
    Up(Session),
    /// None stands; one is dialled. The text is one line: how the last session ended, or why the last
    /// attempt failed.
    Down(Arc<str>),
    /// There will be none any more.
    Terminated(Terminated),
}

/// Why a [`Reconnecting`] session is given up. Each text is one line and says what to do.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Terminated {
    /// It was closed here.
    #[error("this end closed the session for good")]
    Closed,
    /// No other attempt would do better: one of the two ends does not want the other.
    #[error("cannot reconnect: {0}")]
    Failed(#[source] SharedError<ConnectError>),
    /// The task that dials again is gone.
    #[error("the task that reconnects is gone: it panicked, or its runtime ended")]
    Gone,
}

impl From<Terminated> for io::Error {
    fn from(error: Terminated) -> Self {
        let kind = match &error {
            Terminated::Closed | Terminated::Gone => io::ErrorKind::NotConnected,
            Terminated::Failed(error) => io::Error::from(ConnectError::clone(error)).kind(),
        };
        io::Error::new(kind, error)
    }
}

/// A session with one place that is dialled again whenever it is lost, with the pauses of a [`Backoff`].
///
/// ```no_run
/// # async fn example(config: cepa::stack::StackConfig) -> Result<(), Box<dyn std::error::Error>> {
/// use cepa::session::Reconnecting;
/// use tokio::io::AsyncReadExt;
///
/// let line = Reconnecting::dial(&"serial:/dev/ttyUSB0".parse()?, &config).await?;
/// loop {
///     // Waits while the board restarts.
///     let mut sensor = line.session().await?.open("sensor").await?;
///     let mut reading = Vec::new();
///     match sensor.read_to_end(&mut reading).await {
///         Ok(_) => println!("{}", String::from_utf8_lossy(&reading)),
///         Err(lost) => eprintln!("{lost}"), // half a reading: not to be used
///     }
/// }
/// # }
/// ```
///
/// Clones are handles on the same one. When the last is dropped nothing is dialled any more, and the session
/// lives on as long as anybody holds it.
#[derive(Clone)]
pub struct Reconnecting {
    status: watch::Receiver<ReconnectStatus>,
    shared: Arc<Shared>,
}

struct Shared {
    sender: watch::Sender<ReconnectStatus>,
    task: AbortHandle,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Reconnecting {
    /// Dials an address as [`Session::dial`] does, and again by [`Backoff::for_endpoint`] whenever the
    /// session is lost, was closed by either end, or takes no more substreams ([`Session::spent`]). Whom an attempt may lead to, `config.trust` says each time.
    ///
    /// # Errors
    /// Those of the first attempt, which is made before this returns and is not repeated: a wrong address
    /// should not look like a peer that is away.
    ///
    /// # Cancel safety
    /// Dropping the future gives the attempt up.
    pub async fn dial(endpoint: &Endpoint, config: &StackConfig) -> Result<Self, ConnectError> {
        let (endpoint, config) = (endpoint.clone(), config.clone());
        let backoff = Backoff::for_endpoint(&endpoint).with_network(&config.network);
        Self::with(backoff, move || {
            let (endpoint, config) = (endpoint.clone(), config.clone());
            async move { Session::dial_with(&endpoint, config).await }
        })
        .await
    }

    /// The same for sessions that `connect` makes, on streams of one's own. Which of its errors end it all,
    /// [`ConnectError::is_transient`] says.
    ///
    /// # Errors
    /// Those of the first attempt, as for [`dial`](Self::dial).
    ///
    /// # Cancel safety
    /// Dropping the future drops the attempt.
    pub async fn with<F, A>(backoff: Backoff, mut connect: F) -> Result<Self, ConnectError>
    where
        F: FnMut() -> A + Send + 'static,
        A: Future<Output = Result<Session, ConnectError>> + Send + 'static,
    {
        in_runtime()?;
        // A handshake's future is large, and this one is a part of the caller's.
        let session = Box::pin(connect()).await?;
        let (sender, status) = watch::channel(ReconnectStatus::Up(session.clone()));
        let task = tokio::spawn(keep(
            session,
            backoff,
            connect,
            TerminatesOnDrop(sender.clone()),
        ));
        let shared = Shared {
            sender,
            task: task.abort_handle(),
        };
        Ok(Self {
            status,
            shared: Arc::new(shared),
        })
    }

    /// The session that stands; waits for one where none does.
    ///
    /// # Errors
    /// When there will be none any more.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn session(&self) -> Result<Session, Terminated> {
        let mut status = self.status.clone();
        loop {
            let now = status.borrow_and_update().clone();
            match now {
                // One that is over or takes nothing more, which the task has not been told yet, is none.
                ReconnectStatus::Up(session) if !session.is_spent() => {
                    return Ok(session);
                }
                ReconnectStatus::Terminated(over) => return Err(over),
                ReconnectStatus::Up(_) | ReconnectStatus::Down(_) => {}
            }
            // The sender lives as long as we do.
            if status.changed().await.is_err() {
                return Err(Terminated::Closed);
            }
        }
    }

    /// How things stand.
    #[must_use]
    pub fn status(&self) -> ReconnectStatus {
        self.status.borrow().clone()
    }

    /// Waits until things stand otherwise than this handle was told last. Steps that follow each other
    /// quickly may be told as one.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn changed(&mut self) -> ReconnectStatus {
        // The sender lives as long as we do; an error could only mean that nothing changes any more.
        let _ = self.status.changed().await;
        self.status.borrow_and_update().clone()
    }

    /// Ends it for good: nothing is dialled any more, and the session is [closed](Session::close).
    ///
    /// # Cancel safety
    /// Dropping the future does not take the close back.
    pub async fn close(&self) {
        let mut status = None;
        self.shared.sender.send_if_modified(|now| {
            let before = step(now, ReconnectStatus::Terminated(Terminated::Closed));
            let changed = before.is_some();
            status = before;
            changed
        });
        self.shared.task.abort();
        if let Some(ReconnectStatus::Up(session)) = status {
            session.close().await;
        }
    }
}

/// Things stand otherwise now; gives what was before. What is over stays so.
fn step(now: &mut ReconnectStatus, next: ReconnectStatus) -> Option<ReconnectStatus> {
    match now {
        ReconnectStatus::Terminated(_) => None,
        now => Some(std::mem::replace(now, next)),
    }
}

impl fmt::Debug for Reconnecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reconnecting")
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

/// How long a session that takes nothing more may take to be over, before it is taken for one that goes on behind its last
/// substream.
const MOMENT: Duration = Duration::from_millis(500);

impl Session {
    /// Gives up a session that is [spent](Self::spent): how it ended, as most do a moment later, or `None` where what is open in it
    /// goes on. Then it ends behind the last substream, for which the peer is asked: it need not keep it for this end.
    /// Waits for half a second at most.
    ///
    /// # Cancel safety
    /// Dropping the future before it is ready changes nothing.
    pub async fn retire(&self) -> Option<SessionEnd> {
        if let Ok(end) = timeout(MOMENT, self.closed()).await {
            return Some(end);
        }
        // Polled once it has been asked for.
        let _ = self.go_away().now_or_never();
        None
    }
}

/// Tells that it is over when the task ends before it has said so.
struct TerminatesOnDrop(watch::Sender<ReconnectStatus>);

impl Drop for TerminatesOnDrop {
    fn drop(&mut self) {
        let gone = ReconnectStatus::Terminated(Terminated::Gone);
        self.0.send_if_modified(|now| step(now, gone).is_some());
    }
}

/// Watches over the session, and dials when it is lost.
async fn keep<F, A>(
    mut session: Session,
    mut backoff: Backoff,
    mut connect: F,
    // Made before the task: one that its runtime drops before it is polled is gone, too.
    sender: TerminatesOnDrop,
) where
    F: FnMut() -> A,
    A: Future<Output = Result<Session, ConnectError>>,
{
    let set = |next| sender.0.send_if_modified(|now| step(now, next).is_some());
    let down = |why: &dyn fmt::Display| set(ReconnectStatus::Down(why.to_string().into()));
    loop {
        let since = Instant::now();
        session.spent().await;
        backoff.reset_after(since.elapsed());
        match session.retire().await {
            Some(end) => down(&end),
            None => down(&"the session takes no more substreams"),
        };
        let again = backoff.again(&mut connect, |error: &ConnectError| {
            let passes = error.is_transient();
            if passes {
                down(error);
            }
            passes
        });
        match again.await {
            Ok(fresh) => session = fresh,
            Err(error) => {
                set(ReconnectStatus::Terminated(Terminated::Failed(
                    error.into(),
                )));
                return;
            }
        }
        set(ReconnectStatus::Up(session.clone()));
    }
}
