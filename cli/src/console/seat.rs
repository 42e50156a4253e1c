//! Somebody who is attached to a kept console: their substream, and what of the output they have had.
//!
//! They have a place in the ring (`ring.rs`) and get what is behind it, as far as it is kept. What somebody has been shown before comes
//! only as far as a terminal draws it (`escapes.rs`). How the command ended comes last, and counts as told when they have closed
//! their direction behind that: a client that is gone may have a session that waits for it, and takes all without reading it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use cepa::mux::{StreamError, Substream};
use cepa::onion::Onion;
use cepa::session::{PathChanges, Session};
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use super::escapes::Escapes;
use super::ring::Ring;
use super::served::Served;
use super::wire::{Message, Status};
use crate::columns::count;

/// Read, and passed on, at once.
pub(super) const PIECE: usize = 4096;

/// The substream of who is attached.
pub(crate) type Far = Box<Served<Onion<Substream>>>;

/// Somebody who is attached, or wants to be.
pub(crate) struct Seat {
    pub(super) served: Far,
    pub(super) session: Session,
    pub(super) left: oneshot::Sender<Left>,
    lost: BoxFuture<'static, ()>,
    /// Whether it has a connection may have changed.
    moved: BoxFuture<'static, Option<PathChanges>>,
    /// Up to where in the output it has come, and up to where it has been shown to somebody before.
    pub(super) at: u64,
    pub(super) again_until: u64,
    /// Output that it has missed, and is told of when it has had all that there was then.
    missed: u64,
    missed_until: u64,
    escapes: Escapes,
    /// The modes at that place, until those that come last are switched on.
    pub(super) modes: Option<Escapes>,
    /// On its way there.
    pub(super) piece: Vec<u8>,
    written: usize,
    unflushed: bool,
    pub(super) reported: bool,
    shut: bool,
}

/// Why nobody sits there any more.
pub(crate) enum Left {
    /// It has left, or knows how the command ended.
    Gone,
    /// It is told this at the end.
    Ends(Far, Status),
}

/// What somebody reads who came just as the console ended.
const LATE: &str = "not now: the console has just ended; run the command again";

impl Seat {
    /// For who has opened the substream, and has told its terminal. What becomes of it is told.
    pub(crate) fn new(served: Far, session: &Session) -> (Self, oneshot::Receiver<Left>) {
        let (left, reported) = oneshot::channel();
        let over = session.clone();
        let seat = Self {
            served,
            session: session.clone(),
            left,
            lost: Box::pin(async move {
                over.closed().await;
            }),
            moved: next(session.path_changes()),
            at: 0,
            again_until: 0,
            missed: 0,
            missed_until: 0,
            escapes: Escapes::default(),
            modes: None,
            piece: Vec::new(),
            written: 0,
            unflushed: true,
            reported: false,
            shut: false,
        };
        (seat, reported)
    }

    /// It is told this, and nothing else any more.
    pub(crate) fn ends(self, status: Status) {
        // Whoever waits for that may be gone with its session.
        let _ = self.left.send(Left::Ends(self.served, status));
    }

    /// It has come as the console ended.
    pub(crate) fn late(self) {
        self.ends(Status::Failed(LATE.to_owned()));
    }

    /// It is told a line, amid the output.
    pub(super) fn tell(&mut self, line: String) {
        self.served.outbox().push(Message::Stderr(line));
        self.unflushed = true;
    }

    /// Whether it has a connection, and so is waited for.
    pub(super) fn is_there(&self) -> bool {
        has_connection(&self.session)
    }

    /// Whether its session is over.
    pub(super) fn poll_lost(&mut self, cx: &mut Context<'_>) -> bool {
        while let Poll::Ready(changes) = self.moved.as_mut().poll(cx) {
            self.moved = match changes {
                Some(changes) => next(changes),
                None => Box::pin(std::future::pending()),
            };
        }
        self.lost.as_mut().poll(cx).is_ready()
    }

    /// Sends what it has not had yet; `modes` are those of all output. Ready only with an error.
    pub(super) fn poll_show(
        &mut self,
        cx: &mut Context<'_>,
        ring: &Ring,
        modes: &Escapes,
    ) -> Poll<io::Error> {
        loop {
            let rest = self.piece.get(self.written..).unwrap_or_default();
            if !rest.is_empty() {
                match ready!(Pin::new(&mut self.served.far).poll_write(cx, rest)) {
                    Ok(n) => self.written += n,
                    Err(e) => return Poll::Ready(e),
                }
                self.unflushed = true;
                continue;
            }
            self.piece.clear();
            self.written = 0;
            if self.at < ring.start() {
                self.miss(ring, modes);
                continue;
            }
            if self.missed > 0 && self.at >= self.missed_until {
                self.tell_missed();
            }
            if self.at >= self.again_until
                && self.escapes.is_between()
                && let Some(modes) = self.modes.take()
            {
                self.piece.extend(modes.reports_on());
                continue;
            }
            let fresh = ring.from(self.at);
            let fresh = fresh.get(..PIECE).unwrap_or(fresh);
            if !fresh.is_empty() {
                let again = self.again_until.saturating_sub(self.at);
                if again > 0 || !self.escapes.is_between() {
                    // A sequence that has begun is read to its end, byte by byte.
                    let n = if again > 0 { again } else { 1 };
                    let n = usize::try_from(n).unwrap_or(PIECE).min(fresh.len());
                    let some = fresh.get(..n).unwrap_or_default();
                    if let Some(modes) = self.modes.as_mut().filter(|_| again == 0) {
                        modes.follow(some);
                    }
                    self.escapes.show(some, &mut self.piece);
                    self.at += n as u64;
                } else {
                    self.piece.extend(fresh);
                    self.at += fresh.len() as u64;
                }
                continue;
            }
            if self.unflushed {
                match ready!(Pin::new(&mut self.served.far).poll_flush(cx)) {
                    Ok(()) => self.unflushed = false,
                    Err(e) => return Poll::Ready(e),
                }
            }
            return Poll::Pending;
        }
    }

    /// It was without a connection for so long that some is not kept any more.
    fn miss(&mut self, ring: &Ring, modes: &Escapes) {
        self.missed += ring.first_line() - self.at;
        self.at = ring.first_line();
        // The end of what had begun is not kept, and what switched the modes on may not be.
        self.escapes = Escapes::default();
        self.piece = modes.on();
        self.piece.extend(modes.reports_on());
        self.missed_until = ring.total();
    }

    /// Behind what is kept, which would scroll it away.
    fn tell_missed(&mut self) {
        let missed = count(std::mem::take(&mut self.missed), "byte");
        let text = format!("({missed} of output came meanwhile and are not kept)");
        self.served.outbox().push(Message::Stderr(text));
        self.unflushed = true;
    }

    /// Whether all that there is has left for it.
    pub(super) fn has_all(&self, ring: &Ring) -> bool {
        self.at == ring.total() && self.written == self.piece.len() && !self.unflushed
    }

    /// Tells how the command ended, behind all output. Ready when that is known there, or with an error.
    pub(super) fn poll_tell(
        &mut self,
        cx: &mut Context<'_>,
        status: &Status,
    ) -> Poll<io::Result<()>> {
        if !self.reported {
            self.reported = true;
            self.served.outbox().push(Message::Ended(status.clone()));
        }
        if !self.shut {
            ready!(Pin::new(&mut self.served.far).poll_shutdown(cx))?;
            self.shut = true;
        }
        loop {
            let mut space = [0; PIECE];
            let mut space = ReadBuf::new(&mut space);
            match ready!(Pin::new(&mut self.served.far).poll_read(cx, &mut space)) {
                // What is typed now is for nobody.
                Ok(()) if !space.filled().is_empty() => {}
                Ok(()) => return Poll::Ready(Ok(())),
                Err(e) => {
                    let by_it = e.get_ref().and_then(|e| e.downcast_ref::<StreamError>());
                    let closed = matches!(
                        by_it,
                        Some(StreamError::ResetByPeer { .. } | StreamError::SessionClosedByPeer)
                    );
                    return Poll::Ready(if closed { Ok(()) } else { Err(e) });
                }
            }
        }
    }
}

/// Whether who has this session can be spoken to now.
pub(super) fn has_connection(session: &Session) -> bool {
    session.path().is_some()
}

fn next(mut changes: PathChanges) -> BoxFuture<'static, Option<PathChanges>> {
    Box::pin(async move {
        changes.next().await?;
        Some(changes)
    })
}
