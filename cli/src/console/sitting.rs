//! Who sits at this end of a console: what is known of the service, its session and the terminal, and what is told to either.

use std::fmt::Display;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cepa::identity::PeerId;
use cepa::session::Session;
use cepa::transports::Stream;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, WriteHalf};

use super::escapes::Escapes;
use super::framed::Outbox;
use super::log::Log;
use super::raw;
use super::statistics::Counts;
use super::typed::Typed;
use super::wire::Message;
use crate::args;
use crate::pausable::Pausable;
use crate::say::Line;
use crate::service_end::Ending;

/// Who sits here, and where.
pub(super) struct Seat<'a> {
    pub(super) service: &'a str,
    pub(super) peer: PeerId,
    /// What the console is called at the server, where that keeps it.
    pub(super) attach: Option<&'a str>,
    /// Somebody else has it: nothing is sent there.
    pub(super) watches: bool,
    pub(super) escape: Option<u8>,
    pub(super) typed: Typed,
    /// Of the substream that is joined now.
    pub(super) outbox: Mutex<Outbox>,
    /// How the service said that it ended, and whether it was to.
    pub(super) ending: Ending,
    pub(super) says: AtomicBool,
    /// Who bears with this program while it is suspended; nobody while the session is made again.
    pub(super) at: Mutex<Option<Pausable>>,
    /// Output of a service.
    pub(super) came: AtomicBool,
    /// What that has done to the terminal.
    pub(super) modes: Mutex<Escapes>,
    pub(super) log: Log,
    pub(super) counts: Counts,
}

impl<'a> Seat<'a> {
    pub(super) fn new(
        service: &'a str,
        peer: PeerId,
        args: &'a args::Console,
        log: Log,
        counts: Counts,
    ) -> Self {
        Self {
            service,
            peer,
            attach: args.attach.as_deref(),
            watches: args.watch,
            escape: args.escape.byte(),
            typed: Typed::default(),
            outbox: Mutex::default(),
            ending: Ending::default(),
            says: AtomicBool::new(false),
            at: Mutex::default(),
            came: AtomicBool::new(false),
            modes: Mutex::default(),
            log,
            counts,
        }
    }

    /// A line of the tool's own, with what it is about.
    pub(super) fn line(&self, text: impl Display) -> Line {
        let line = Line::from(text).with("peer", self.peer);
        if self.service.is_empty() {
            line
        } else {
            line.with("service", self.service)
        }
    }

    /// Whether what runs is kept at the server for who leaves here.
    pub(super) fn keeps_running(&self) -> bool {
        self.attach.is_some() && !self.watches
    }

    pub(super) fn send_to_other_end(&self, message: Message) {
        if self.watches {
            return;
        }
        lock(&self.outbox).push(message);
        self.typed.has_more();
    }

    /// Its session, unless that is made again.
    pub(super) fn session(&self) -> Option<Session> {
        lock(&self.at).as_ref().map(|at| at.session().clone())
    }
}

/// Shows what the service says, to its end.
pub(super) async fn show(
    mut output: impl AsyncRead + Unpin,
    screen: &mut WriteHalf<Stream>,
    seat: &Seat<'_>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let n = output.read(&mut buffer).await?;
        if n == 0 {
            return Ok(());
        }
        seat.came.store(true, Ordering::Relaxed);
        let some = buffer.get(..n).unwrap_or_default();
        seat.counts.inward.fetch_add(n as u64, Ordering::Relaxed);
        if let Err(why) = seat.log.record(some).await {
            raw::print_line(seat.line(why));
        }
        lock(&seat.modes).follow(some);
        raw::shown(some);
        // A screen that is gone ends the keyboard too.
        let _ = screen.write_all(some).await;
        let _ = screen.flush().await;
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
