//! `--share`: several commands of one user on one connection. Who comes first dials, and lends its session to the others by a Unix socket
//! (`cepa::protocols::sharing`); who comes later borrows it.
//!
//! A lock says who is first. It is held from before the socket is there until after the session has ended, so that two commands never dial
//! at once, and a serial line is free when the next one opens it. The socket is there before the session: who comes meanwhile waits at it.
//!
//! ```text
//! come: connect to the socket ── lent ──────────────────────────────> borrowed
//!         ^     │ nobody there, or it went away
//!         │     v
//!         │  take the lock ── taken ── listen at the socket ── dial ─> first, and lends
//!         └─── somebody has it: it is about to listen, or to end
//! ```
//!
//! A process that was killed leaves its socket and the file of its lock, which hold up nobody: the lock went with the process, and a
//! socket at which nobody answers is replaced.
//!
//! The first stays until the others are done ([`Lending::end`]). A session that takes no more substreams is not lent any more, so that
//! another one can take its place.

mod place;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use cepa::identity::Identity;
use cepa::protocols::sharing::{self, BorrowError};
use cepa::session::Session;
use cepa::transports::{self, Listener, Stream};
use futures::FutureExt as _;
use rustix::fs::{FlockOperation, flock};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::columns::count;
use crate::control::{address, is_ours, own_user};
use crate::exit::{Code, Failure, say};
use crate::log::{OURS, say_once_a_minute};
use crate::signal::{self, Signals};

pub(crate) use place::Place;

/// Commands that borrow one connection at once: each has a mux with its windows here.
const AT_ONCE: usize = 32;
/// How soon to look again for somebody who is about to listen, or to end.
const AGAIN: Duration = Duration::from_millis(50);
/// Pause after a failed accept.
const PAUSE: Duration = Duration::from_millis(500);
/// How long to wait for somebody who is connecting without a word.
const UNSAID: Duration = Duration::from_secs(1);
/// How long who borrows may take to read that the session is over.
const TELLING: Duration = Duration::from_secs(2);
/// Lenders that break off in the handshake, before that is an error.
const ATTEMPTS: u32 = 10;

/// What somebody finds who comes to a place.
pub(crate) enum Turn {
    /// A session of another command.
    Borrowed(Session),
    /// Nobody: it is for this one to dial.
    First(Box<First>),
}

/// Who dials. Others wait until it lends, or is dropped.
pub(crate) struct First {
    // In this order: the socket is gone before somebody else has the lock.
    listener: Listener,
    lock: Lock,
}

/// Comes to a place where a connection may be shared.
pub(crate) async fn come(place: &Place, identity: &Identity) -> Result<Turn, Failure> {
    let socket = address(&place.socket)?;
    let (mut attempts, mut is_told) = (0, false);
    loop {
        if let Ok(stream) = transports::dial(&socket).await {
            if !is_ours(stream.peer_user(), own_user()) {
                let why = format!(
                    "the socket {} is of another user: remove it",
                    place.socket.display()
                );
                return Err(Failure::new(Code::Local, why));
            }
            match borrowed(stream, identity, &mut is_told).await {
                Ok(session) => return Ok(Turn::Borrowed(session)),
                Err(BorrowError::Gone(_)) => {}
                Err(BorrowError::Connect(e)) if e.is_transient() && attempts < ATTEMPTS => {
                    attempts += 1;
                }
                Err(e @ BorrowError::Full) => return Err(Failure::of(Code::Refused, &e)),
                Err(e) => return Err(Failure::of(Code::Local, &e).with("or use --no-share")),
            }
        }
        if let Some(lock) = Lock::take(&place.lock)? {
            let listener = transports::listen(&socket).await?;
            return Ok(Turn::First(Box::new(First { listener, lock })));
        }
        sleep(AGAIN).await;
    }
}

/// Waits as long as the other one needs to connect: somebody may have to answer a question first.
async fn borrowed(
    stream: Stream,
    identity: &Identity,
    is_told: &mut bool,
) -> Result<Session, BorrowError> {
    let mut borrowing = pin!(sharing::borrow(stream, identity));
    if let Ok(borrowed) = timeout(UNSAID, &mut borrowing).await {
        return borrowed;
    }
    if !std::mem::replace(is_told, true) {
        say("another cepa command is connecting there; waiting for it");
    }
    borrowing.await
}

impl First {
    /// Lends a session to whoever comes.
    pub(crate) fn lend(self, session: &Session, identity: &Identity) -> Lending {
        let (asks, asked) = mpsc::channel(1);
        let (counts, borrowers) = watch::channel(0);
        let lender = Lender {
            first: self,
            session: session.clone(),
            identity: identity.clone(),
            asked,
            counts,
        };
        tokio::spawn(lender.run());
        Lending { asks, borrowers }
    }
}

/// Lends, as long as this is there.
#[derive(Debug)]
pub(crate) struct Lending {
    asks: mpsc::Sender<Ask>,
    borrowers: watch::Receiver<usize>,
}

/// Lends no more: at once, or if nobody borrows. Answered with the lock, if so.
#[derive(Debug)]
struct Ask {
    at_once: bool,
    answer: oneshot::Sender<Lock>,
}

impl Lending {
    /// Whether somebody borrows now.
    pub(crate) fn is_lent(&self) -> bool {
        *self.borrowers.borrow() > 0
    }

    /// Waits for those who borrow, unless a signal has asked this process to end, then lends no more. Where the session is over, they have
    /// a moment to be told. What this gives is kept until the session has ended here.
    pub(crate) async fn end(mut self, session: &Session) -> Option<Lock> {
        let mut signals = Signals::watch();
        if !signal::has_come() {
            tokio::select! {
                biased;
                _ = session.closed() => {
                    let told = timeout(TELLING, self.none_left(false)).await;
                    if let Ok(Some(lock)) = told {
                        return Some(lock);
                    }
                }
                () = signals.asked_to_end() => {}
                lock = self.none_left(true) => return lock,
            }
        }
        self.asked(true).await
    }

    /// Waits until nobody borrows.
    async fn none_left(&mut self, mut tells: bool) -> Option<Lock> {
        loop {
            // Before asking: who leaves meanwhile is a change.
            let others = *self.borrowers.borrow_and_update();
            if let Some(lock) = self.asked(false).await {
                return Some(lock);
            }
            if others > 0 && std::mem::take(&mut tells) {
                let others = count(others as u64, "other cepa command");
                say(format_args!(
                    "waiting for {others} on this connection; ^C ends it for all"
                ));
            }
            // Nobody lends any more.
            self.borrowers.changed().await.ok()?;
        }
    }

    async fn asked(&self, at_once: bool) -> Option<Lock> {
        let (answer, answered) = oneshot::channel();
        // None where nobody lends any more.
        self.asks.send(Ask { at_once, answer }).await.ok()?;
        answered.await.ok()
    }
}

struct Lender {
    first: First,
    session: Session,
    identity: Identity,
    asked: mpsc::Receiver<Ask>,
    counts: watch::Sender<usize>,
}

impl Lender {
    async fn run(self) {
        let Self {
            first: First { mut listener, lock },
            session,
            identity,
            mut asked,
            counts,
        } = self;
        // Who borrows is cut off with this task.
        let mut borrowers = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                Some(_) = borrowers.join_next() => {}
                ask = asked.recv() => match ask {
                    Some(ask) if !ask.at_once && !borrowers.is_empty() => continue,
                    ask => {
                        drop((borrowers, listener));
                        return give(lock, ask);
                    }
                },
                () = session.spent() => break,
                accepted = listener.accept() => match accepted {
                    Ok(Some(stream)) if is_ours(stream.peer_user(), own_user()) => {
                        let (session, identity) = (session.clone(), identity.clone());
                        let room = borrowers.len() < AT_ONCE;
                        borrowers.spawn(async move {
                            if room {
                                let _ = sharing::lend(&session, stream, &identity).await;
                            } else {
                                sharing::refuse(stream).await;
                            }
                        });
                    }
                    Ok(Some(_)) => {
                        let kind = "the shared connection: somebody of another user was turned away";
                        say_once_a_minute(OURS, kind, kind);
                    }
                    Ok(None) => break,
                    Err(e) => {
                        say(e);
                        sleep(PAUSE).await;
                    }
                },
            }
            counts.send_replace(borrowers.len());
        }
        drop(listener);
        // Another session may take the place of one that goes on for those who have it. One that is over has to be closed first.
        let is_over = session.closed().now_or_never().is_some();
        let lock = Some(lock).filter(|_| is_over);
        let mut last = None;
        while last.is_none() {
            tokio::select! {
                biased;
                Some(_) = borrowers.join_next() => {}
                ask = asked.recv() => match ask {
                    Some(ask) if !ask.at_once && !borrowers.is_empty() => {}
                    ask => last = Some(ask),
                },
            }
            counts.send_replace(borrowers.len());
        }
        drop(borrowers);
        if let Some(lock) = lock {
            give(lock, last.flatten());
        }
    }
}

/// To who has asked, if somebody did.
fn give(lock: Lock, ask: Option<Ask>) {
    if let Some(ask) = ask {
        let _ = ask.answer.send(lock);
    }
}

/// Who is first at a place. The file is gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// None where another command has it.
    fn take(path: &Path) -> Result<Option<Self>, Failure> {
        let failed = |e: io::Error| {
            Failure::new(Code::Local, format!("cannot lock {}: {e}", path.display()))
        };
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path);
        let file = file.map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(e) => return Err(failed(e.into())),
        }
        // Whoever had it before may have removed the file that was opened here, and a third one have made another.
        let there = std::fs::metadata(path).ok();
        let same = there.zip(file.metadata().ok());
        let is_same = same.is_some_and(|(a, b)| (a.dev(), a.ino()) == (b.dev(), b.ino()));
        Ok(is_same.then(|| Self {
            file,
            path: path.to_owned(),
        }))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While it is held: nobody else has locked this file.
        let _ = std::fs::remove_file(&self.path);
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_the_lock_and_a_file_that_was_left_is_no_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        std::fs::write(&path, "").unwrap();
        let first = Lock::take(&path).unwrap().unwrap();
        assert!(Lock::take(&path).unwrap().is_none());
        drop(first);
        assert!(!path.exists());
        assert!(Lock::take(&path).unwrap().is_some());
    }
}
