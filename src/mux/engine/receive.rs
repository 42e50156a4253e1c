//! Bytes in: what each frame of the peer does.
//!
//! A frame is judged by its header alone, before any of its body has arrived: the window is charged
//! for the whole length, so that nothing has to be undone and nothing is allocated for a promise.

use std::time::Instant;

use bytes::Bytes;

use super::super::code::{CLOSED, GoAwayCode, Refusal};
use super::super::error::{MuxError, StreamError, Violation};
use super::super::event::{Event as LogEvent, Limit};
use super::super::frame::{Flags, Frame, Item};
use super::super::moment::Moment;
use super::super::state::{Event, Halves, Handshake, State};
use super::super::store::Key;
use super::super::stream_entry::{Entry, Rst};
use super::Engine;
use cepa_transports::Side;

/// The round trip is measured when so much has come on a stream, so that it is known when its window
/// is first found too small.
const EARLY: u64 = 1 << 10;

impl Engine {
    /// Bytes came from the peer, in memory of their own.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn handle_input(&mut self, now: Instant, chunk: Bytes) {
        let held = chunk.len();
        self.handle_chunk(now, chunk, held);
    }

    /// Bytes came from the peer. Bodies are kept as slices of `chunk`, which takes `held` bytes of memory, where that
    /// saves a copy.
    pub(crate) fn handle_chunk(&mut self, now: Instant, mut chunk: Bytes, held: usize) {
        if self.end.is_some() || chunk.is_empty() {
            return;
        }
        self.start_clocks(now);
        self.chunk_held = held;
        self.received_at = now;
        self.heard_at = now;
        self.keepalive_asked = None;
        self.bytes_in += chunk.len() as u64;
        self.came += chunk.len() as u64;
        while self.end.is_none() {
            let done = match self.decoder.next(&mut chunk) {
                Ok(Some(Item::Body { bytes, last })) => self.on_body(now, bytes, last),
                Ok(Some(Item::Frame(frame))) => self.on_frame(now, frame),
                Ok(None) => break,
                Err(error) => Err(error.into()),
            };
            if let Err(violation) = done {
                self.violated(violation);
            }
        }
        self.look_at_memory(now);
    }

    fn on_frame(&mut self, now: Instant, frame: Frame) -> Result<(), Violation> {
        match frame {
            Frame::Data { id, flags, len } => self.on_data(now, id, flags, len),
            Frame::Window { id, flags, value } => self.on_window(now, id, flags, value),
            Frame::Ping { value } => self.on_ping(now, value),
            Frame::Pong { value } => {
                self.on_pong(now, value);
                Ok(())
            }
            Frame::GoAway { code } => {
                self.on_go_away(code.into());
                Ok(())
            }
        }
    }

    /// "Type Field", 0x0 Data.
    fn on_data(&mut self, now: Instant, id: u32, flags: Flags, len: u32) -> Result<(), Violation> {
        self.body = None;
        let Some(key) = self.stream_of(now, id, flags)? else {
            return self.on_stray(id, len);
        };
        let Some(entry) = self.store.get_mut(key) else {
            return Ok(());
        };
        let fin = flags.has(Flags::FIN);
        let mut unwanted = false;
        if len > 0 {
            entry.state = on(entry, Event::DataReceived)?;
            if !entry.state.can_receive() {
                // Reset here, and the RST has not reached the peer.
                return self.on_stray(id, len);
            }
            entry
                .recv_window
                .take(now, len)
                .ok_or(Violation::WindowExceeded(id))?;
            // Shut down and dropped by the application: nobody will ever read this. What is still
            // to be sent goes first, as it was promised; meanwhile no credit is granted, so that
            // a window is the most that is thrown away.
            entry.unwanted |= !entry.held;
            unwanted = entry.unwanted && !entry.has_output();
        }
        if unwanted {
            self.reset_stream(key, 0, StreamError::ResetHere);
        } else if len > 0 {
            self.body = Some((key, fin));
        } else if fin {
            self.on_fin(key)?;
        }
        self.settle(key);
        Ok(())
    }

    fn on_body(&mut self, now: Instant, bytes: Bytes, last: bool) -> Result<(), Violation> {
        self.data_in += bytes.len() as u64;
        let Some((key, fin)) = self.body else {
            return Ok(());
        };
        if let Some(entry) = self.store.get_mut(key)
            && entry.held
            && entry.state.can_receive()
        {
            entry.data_in += bytes.len() as u64;
            let early = entry.data_in >= EARLY && self.round_trip.is_none();
            let before = entry.recv.held();
            let copied = self.memory.is_crowded();
            entry.recv.push(bytes, self.chunk_held, copied);
            self.memory.change(before, entry.recv.held());
            self.wakes.extend(entry.reader.take());
            if early {
                self.ping_for_ourselves(now);
            }
        }
        if last {
            self.body = None;
            if fin {
                self.on_fin(key)?;
                self.settle(key);
            }
        }
        Ok(())
    }

    /// "Type Field", 0x1 Window Update.
    fn on_window(
        &mut self,
        now: Instant,
        id: u32,
        flags: Flags,
        value: u32,
    ) -> Result<(), Violation> {
        if flags.has(Flags::RST) {
            // Then the value is no credit but the reason, as far as the peer knows one.
            return self.on_rst(now, id, flags, value);
        }
        let Some(key) = self.stream_of(now, id, flags)? else {
            return Ok(());
        };
        let Some(entry) = self.store.get_mut(key) else {
            return Ok(());
        };
        entry
            .send_window
            .grant(value)
            .ok_or(Violation::CreditOverflow(id))?;
        if value > 0 {
            entry.stalled_since = None;
            if entry.has_output() {
                entry.active_at = Moment::new(self.started_at, now);
            }
            // Who grants credit has taken the stream, whether it says so or not.
            entry.state = on(entry, Event::AckReceived)?;
        }
        if flags.has(Flags::FIN) {
            self.on_fin(key)?;
        }
        self.schedule(key);
        self.settle(key);
        Ok(())
    }

    /// Does what SYN, ACK and RST of a frame say, and finds the stream that the rest is for.
    /// `None`: there is none, or none any more.
    fn stream_of(&mut self, now: Instant, id: u32, flags: Flags) -> Result<Option<Key>, Violation> {
        let moment = self.moment(now);
        if flags.has(Flags::RST) {
            self.on_rst(now, id, flags, 0)?;
            return Ok(None);
        }
        if flags.has(Flags::SYN) {
            return self.on_syn(now, id);
        }
        let Some(key) = self.store.find(id) else {
            self.check_was_opened(id)?;
            return Ok(None);
        };
        if let Some(entry) = self.store.get_mut(key) {
            // Where nobody holds the stream, only credit that is needed is progress.
            if entry.held {
                entry.active_at = moment;
            }
            if flags.has(Flags::ACK) {
                entry.state = on(entry, Event::AckReceived)?;
            }
        }
        Ok(Some(key))
    }

    fn check_was_opened(&self, id: u32) -> Result<(), Violation> {
        // Numbers of the peer need not come in order, so only ours can be judged.
        if self.is_ours(id) && self.next_id.is_some_and(|next| id >= next) {
            return Err(Violation::NeverOpened(id));
        }
        Ok(())
    }

    /// "`StreamID` Field": the client has the odd numbers.
    fn is_ours(&self, id: u32) -> bool {
        (id % 2 == 1) == (self.side == Side::Client)
    }

    fn on_syn(&mut self, now: Instant, id: u32) -> Result<Option<Key>, Violation> {
        if self.is_ours(id) {
            return Err(Violation::WrongParity(id));
        }
        if self.store.find(id).is_some() {
            return Err(Violation::DuplicateStream(id));
        }
        if let Some(limit) = self.no_room() {
            self.emit(|| LogEvent::Refused { id, limit });
            self.on_wasted(now)?;
            // At a pace that is allowed, by a peer that does not read, the list would grow for ever.
            if self.control.len() >= self.config.reset_burst as usize {
                return Err(Violation::ResetFlood);
            }
            self.control.push_back(Frame::Window {
                id,
                flags: Flags::RST,
                value: refusal(limit).code(),
            });
            self.strays.allow(id, self.config.first_window);
            return Ok(None);
        }
        if self.is_full() {
            self.emit(|| LogEvent::LimitReached {
                limit: Limit::InboundStreams,
            });
        }
        let (moment, window) = (self.moment(now), self.config.first_window);
        let key = self.store.insert(Entry::opened_there(id, moment, window));
        self.inbound += 1;
        self.budget.admit_inbound();
        self.backlog.push_back(key);
        self.notices.accept = true;
        self.emit(|| LogEvent::Opened { id, by_peer: true });
        Ok(Some(key))
    }

    /// What there is no room in for one more stream of the peer, not even to wait.
    fn no_room(&self) -> Option<Limit> {
        if self.refusing {
            Some(Limit::Closing)
        } else if self.backlog.len() < self.config.accept_backlog {
            None
        } else if self.is_full() {
            Some(Limit::InboundStreams)
        } else {
            Some(Limit::Backlog)
        }
    }

    fn on_rst(&mut self, now: Instant, id: u32, flags: Flags, code: u32) -> Result<(), Violation> {
        if flags.has(Flags::SYN) {
            // Opened and reset in one frame.
            if self.is_ours(id) {
                return Err(Violation::WrongParity(id));
            }
            return self.on_wasted(now);
        }
        let Some(key) = self.store.find(id) else {
            return self.check_was_opened(id);
        };
        let Some(entry) = self.store.get_mut(key) else {
            return Ok(());
        };
        let before = entry.state;
        entry.state = on(entry, Event::RstReceived)?;
        if before.is_over() {
            if entry.rst == Rst::Held {
                // It has nothing to be told any more.
                entry.rst = Rst::None;
                self.settle(key);
            }
            return Ok(());
        }
        // Behind its FIN it only says that it takes no more.
        entry.ended = before.halves == Halves::RecvClosed;
        self.unsent.change(entry.send.len(), 0, &mut self.wakes);
        entry.send.clear();
        entry.fin_wanted = false;
        entry.stalled_since = None;
        entry.failure = Some(Box::new(failure(entry, before, code)));
        self.wakes.extend(entry.reader.take());
        self.wakes.extend(entry.writer.take());
        let waiting = !entry.accepted;
        if waiting {
            // Nobody has seen it, so nobody need see its end.
            self.backlog.retain(|other| *other != key);
            entry.held = false;
        }
        self.settle(key);
        // To leave what was accepted is ordinary use, however often.
        if waiting { self.on_wasted(now) } else { Ok(()) }
    }

    fn on_fin(&mut self, key: Key) -> Result<(), Violation> {
        let Some(entry) = self.store.get_mut(key) else {
            return Ok(());
        };
        entry.state = on(entry, Event::FinReceived)?;
        self.wakes.extend(entry.reader.take());
        self.watch(key);
        Ok(())
    }

    /// Data for a stream that does not exist is skipped, within bounds: some is always on the way
    /// when a stream is reset.
    fn on_stray(&mut self, id: u32, len: u32) -> Result<(), Violation> {
        self.strays.take(id, len).ok_or(Violation::StrayData)
    }

    /// "Type Field", 0x2 Ping.
    fn on_ping(&mut self, now: Instant, value: u32) -> Result<(), Violation> {
        if self.pongs.len() < self.config.queued_pongs {
            self.pongs.push_back(value);
            return Ok(());
        }
        self.emit(|| LogEvent::LimitReached {
            limit: Limit::QueuedPongs,
        });
        self.excess_pings.take(now).ok_or(Violation::PingFlood)
    }

    /// "Type Field", 0x3 Go Away.
    fn on_go_away(&mut self, code: GoAwayCode) {
        self.remote_go_away = Some(code);
        self.notices.open = true;
        self.notices.ended = true;
        if code != GoAwayCode::Normal {
            self.finish(MuxError::GoAway { code });
        }
    }
}

/// The stream's state after `event`, or what the peer did wrong.
fn on(entry: &Entry, event: Event) -> Result<State, Violation> {
    entry
        .state
        .on(event)
        .map_err(|misstep| Violation::from_misstep(misstep, entry.id))
}

/// How the peer is told that there is no room for its stream.
fn refusal(limit: Limit) -> Refusal {
    match limit {
        Limit::Closing => Refusal::GoingAway,
        Limit::InboundStreams => Refusal::Streams,
        _ => Refusal::Backlog,
    }
}

/// What a reset with this code means for a stream that was in the state `before`. A refusal is what it says only where
/// nothing has come that shows that the stream was used, and but for that of an application no answer at all.
fn failure(entry: &Entry, before: State, code: u32) -> StreamError {
    let unused = !entry.inbound && entry.data_in == 0 && before.can_receive();
    match Refusal::from_code(code) {
        _ if code == CLOSED => StreamError::SessionClosedByPeer,
        Some(reason)
            if unused
                && (reason == Refusal::Application
                    || before.handshake == Handshake::AckAwaited) =>
        {
            StreamError::RefusedByPeer { reason }
        }
        _ => StreamError::ResetByPeer { code },
    }
}
