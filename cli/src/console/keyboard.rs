//! What whoever sits at a console does: keys, a window of another size, and signals.

use std::future::pending;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cepa::transports::{OutLine, Stream};
use tokio::io::{AsyncReadExt as _, ReadHalf};
use tokio::signal::unix::{SignalKind, signal};

use super::keys::{Key, Keys};
use super::raw::{self, Raw};
use super::sitting::{Seat, lock};
use super::wire::Message;
use super::words::{self, Stays};
use crate::say::Line;
use crate::signal::Signals;
use crate::stderr;

/// How long the terminal may take for what is said before.
pub(super) const SAID: Duration = Duration::from_millis(200);

impl Seat<'_> {
    /// Minds the keyboard, the window and signals; ends when somebody wants to leave, with the signal that told so.
    pub(super) async fn leaving(
        &self,
        keyboard: ReadHalf<Stream>,
        raw: &Raw,
        mut signals: Signals,
    ) -> Option<u8> {
        tokio::select! {
            () = self.type_in(keyboard, raw) => None,
            signal = signals.ended_by() => Some(signal),
            () = self.watch_window() => None,
        }
    }

    /// Ends when somebody wants to leave, or the keyboard is gone.
    async fn type_in(&self, mut keyboard: ReadHalf<Stream>, raw: &Raw) {
        let mut keys = Keys::new(self.escape);
        // As they are once a port is open, as a rule.
        let (mut dtr, mut rts) = (true, true);
        let mut buffer = [0; 4096];
        loop {
            self.typed.wait_for_room().await;
            let n = match keyboard.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(n) => n,
            };
            for key in keys.read(buffer.get(..n).unwrap_or_default()) {
                match key {
                    // What is typed is for who has the console.
                    Key::Bytes(_) | Key::Break | Key::Dtr | Key::Rts if self.watches => {}
                    Key::Bytes(bytes) => {
                        let n = bytes.len() as u64;
                        self.counts.outward.fetch_add(n, Ordering::Relaxed);
                        self.typed.push(&bytes);
                    }
                    Key::Leave => return,
                    Key::Dtr => {
                        dtr = !dtr;
                        self.set_line(OutLine::Dtr, dtr);
                    }
                    Key::Rts => {
                        rts = !rts;
                        self.set_line(OutLine::Rts, rts);
                    }
                    Key::Break => self.send_to_other_end(Message::Break),
                    Key::Suspend => {
                        self.suspend(raw).await;
                        self.send_to_other_end(Message::Terminal(raw::describe()));
                    }
                    Key::Log => raw::print_line(self.line(self.log.switch()).asked_for()),
                    Key::Statistics => {
                        let session = self.session();
                        Self::print(self.counts.lines(session.as_ref()).await);
                    }
                    Key::Redial => self.redial(),
                    Key::Help => {
                        let escape = self.escape.map(crate::words::key).unwrap_or_default();
                        Self::print(words::help(&escape, self.stays()));
                    }
                }
            }
        }
    }

    fn stays(&self) -> Stays {
        match (self.watches, self.attach) {
            (true, _) => Stays::Watched,
            (false, Some(_)) => Stays::Kept,
            (false, None) => Stays::Ends,
        }
    }

    /// Lines of the tool's own, amid the output.
    fn print(lines: impl IntoIterator<Item = String>) {
        raw::print_lines(lines.into_iter().map(|line| Line::from(line).asked_for()));
    }

    fn set_line(&self, line: OutLine, on: bool) {
        self.send_to_other_end(Message::Line(line, on));
        raw::print_line(self.line(words::line_set(line, on)).asked_for());
    }

    /// Dials at once, where the connection is lost and the session goes on over another one.
    fn redial(&self) {
        let session = self.session();
        let state = session.as_ref().map(|session| {
            session.reconnect_now();
            (session.outlives_connections(), session.path().is_some())
        });
        let line = words::redialled(state, self.keeps_running());
        raw::print_line(self.line(line).asked_for());
    }

    /// Stops this process until somebody lets it go on. A peer that knows of it keeps the session; one that does not ends it
    /// soon, and that is said.
    async fn suspend(&self, raw: &Raw) {
        let at = lock(&self.at).clone();
        let paused = match at {
            Some(at) => {
                let (paused, granted) = at.pause().await;
                raw::print_line(self.line(words::suspended(granted, at.is_durable())));
                paused
            }
            None => Vec::new(),
        };
        stderr::flush(SAID);
        raw.suspend();
        // We are back, and may be missed again.
        drop(paused);
    }

    /// Tells the other end of each new size of the window. Never ends.
    async fn watch_window(&self) {
        let Ok(mut changes) = signal(SignalKind::window_change()) else {
            return pending().await;
        };
        while changes.recv().await.is_some() {
            self.send_to_other_end(Message::Terminal(raw::describe()));
        }
        pending::<()>().await;
    }
}
