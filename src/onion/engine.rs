//! The stack of layers without IO: records in at the bottom, plaintext out at the top, and back.
//!
//! ```text
//!              application
//!   buffers[2] ───┐    ▲ plaintext of layer 1
//!              [ layer 1 ]          the innermost: pushed last, popped first
//!   buffers[1] ───┘    ▲ plaintext of layer 0 = records of layer 1
//!              [ layer 0 ]          the outermost
//!   buffers[0] ───┘    ▲ bytes of the wire = records of layer 0
//!                 wire
//! ```
//!
//! n layers have n + 1 buffers. Buffer i is the input of layer i; the last one belongs to the
//! reader, or to the layer that is pushed next. So a ClientHello that came glued to the command
//! that announced it is already where the new layer looks for it, and what came behind a
//! close_notify is already where the reader looks once the layer is gone: a push adds an empty
//! buffer, a pop drops one, and no byte ever moves back.
//!
//! Layers do not call each other. [`Engine::advance`] walks: it asks the innermost layer for one
//! record; a layer that starves sends the walk one layer down, and one that was fed sends it up
//! again. Each layer's session sees exactly one record at a time (see `tls/connection.rs`).
//!
//! Outward, each chunk is sealed through all layers at once, cut so that it fills one record of
//! every layer exactly. Only the outermost session holds what the wire has not taken.

use std::io::{self, IoSlice, Write};

use bytes::{Buf, BytesMut};

use super::buffer::Buffer;
use super::info::Counters;
use super::writers::{BelowWriter, Sealer};
use crate::tls::TlsError;
use crate::tls::connection::{Connection, Fed};
use crate::tls::record::{self, Front, MAX_PLAINTEXT, MAX_RECORD};

/// How much is read ahead from the wire: a record and what a socket has ready.
const READ_AHEAD: usize = 64 * 1024 + MAX_RECORD;

/// How much may wait for the wire before no further write is taken. Demanding an empty queue first
/// costs up to 1.3 times the time on small writes; more than this only adds delay.
pub(super) const UNSENT: usize = 64 * 1024;

/// So much behind that is taken with it, since it would else leave in a write of its own: a ping behind a batch of the mux.
const TAIL: usize = 1024;

/// What one call of [`Engine::advance`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advance {
    /// The innermost layer took a record, or there is something to read.
    Progress,
    /// The innermost layer's peer has closed it, and all before that was read.
    Closed,
    /// Nothing can be done before more bytes come from the wire.
    NeedWire,
    /// The wire has ended where it may end: below all layers.
    EndOfWire,
    /// The innermost layer is to take a record that may keep it busy; see [`Engine::take_apart`].
    Apart,
}

/// The innermost session, out of the engine together with a record for it.
pub(super) struct Taken {
    session: Connection,
    record: Vec<u8>,
    fed: Result<Option<Fed>, TlsError>,
}

impl Taken {
    /// Gives the session its record, once; this is what may take its time.
    pub(super) fn feed(&mut self) {
        self.fed = self.session.feed(&std::mem::take(&mut self.record));
    }
}

struct Layer {
    session: Connection,
    counters: Counters,
}

/// See the head of this file.
#[derive(Default)]
pub(super) struct Engine {
    layers: Vec<Layer>,
    /// Buffer 0.
    wire_input: Buffer,
    /// Buffers 1 to n: as many as there are layers. They stand apart from the layers so that a
    /// layer's input and the plaintext of the layer below can be borrowed at once.
    inputs: Vec<Buffer>,
    /// Bytes that stand on the wire before all that the outermost session has to say.
    raw: BytesMut,
    /// What the application wrote while corked, not yet sealed.
    held: BytesMut,
    wire_ended: bool,
    failed: Option<Box<TlsError>>,
}

impl Engine {
    // ---- what is there ----

    pub(super) fn depth(&self) -> usize {
        self.layers.len()
    }

    /// The error that ended everything, for ever.
    pub(super) fn failed(&self) -> Option<&TlsError> {
        self.failed.as_deref()
    }

    /// The innermost session.
    pub(super) fn top(&self) -> Option<&Connection> {
        self.layers.last().map(|layer| &layer.session)
    }

    /// Keying material of one layer, counted from the outermost; none where there is no such layer.
    pub(super) fn export(
        &self,
        layer: usize,
        label: &[u8],
        context: &[u8],
    ) -> Option<Result<[u8; 32], TlsError>> {
        let layer = self.layers.get(layer)?;
        Some(layer.session.export(label, context))
    }

    /// The counters of the innermost layer.
    pub(super) fn top_counters(&self) -> Option<&Counters> {
        self.layers.last().map(|layer| &layer.counters)
    }

    /// What the reader can have now, the first piece of it.
    pub(super) fn readable(&mut self) -> &[u8] {
        let input = self.inputs.last().unwrap_or(&self.wire_input);
        match self.layers.last_mut() {
            Some(top) if input.is_empty() => top.session.plaintext(),
            _ => input.filled(),
        }
    }

    /// Marks the first `n` bytes of [`readable`](Self::readable) as read.
    pub(super) fn consume(&mut self, n: usize) {
        let input = self.inputs.last_mut().unwrap_or(&mut self.wire_input);
        match self.layers.last_mut() {
            Some(top) if input.is_empty() => top.session.consume(n),
            _ => input.consume(n),
        }
    }

    /// Puts bytes that the reader already has before all that it has not.
    pub(super) fn unread(&mut self, early: &[u8]) {
        if early.is_empty() {
            return;
        }
        let input = self.inputs.last_mut().unwrap_or(&mut self.wire_input);
        let behind = input.filled().to_vec();
        input.consume(behind.len());
        input.extend(early);
        input.extend(&behind);
    }

    /// How many bytes of the application fill one record of every layer exactly.
    pub(super) fn write_unit(&self) -> usize {
        let below = self.layers.split_last().map_or(&[][..], |(_, rest)| rest);
        MAX_PLAINTEXT - below.iter().map(|l| l.session.overhead()).sum::<usize>()
    }

    // ---- inward ----

    /// Where bytes from the wire are to be put; [`wire_filled`](Self::wire_filled) counts them.
    pub(super) fn wire_room(&mut self) -> &mut [u8] {
        self.wire_input.room(READ_AHEAD)
    }

    pub(super) fn wire_filled(&mut self, n: usize) {
        self.wire_input.fill(n);
    }

    /// Whether nothing read from the wire is waiting here.
    pub(super) fn wire_drained(&self) -> bool {
        self.wire_input.is_empty()
    }

    /// The wire has no more bytes.
    pub(super) fn wire_end(&mut self) {
        self.wire_ended = true;
    }

    /// Gives back the memory of the read-ahead, when the wire has nothing at the moment.
    pub(super) fn idle(&mut self) {
        self.wire_input.shrink();
    }

    /// Brings one more record to the innermost layer, as far as the bytes at hand reach.
    pub(super) fn advance(&mut self) -> Result<Advance, TlsError> {
        if !self.readable().is_empty() {
            return Ok(Advance::Progress);
        }
        if let Some(error) = self.failed() {
            return Err(error.clone());
        }
        let Some(top) = self.layers.len().checked_sub(1) else {
            return Ok(if self.wire_ended {
                Advance::EndOfWire
            } else {
                Advance::NeedWire
            });
        };
        let mut at = top;
        loop {
            match self.step(at)? {
                Step::Fed if at == top => return Ok(Advance::Progress),
                Step::Fed => at += 1,
                Step::Apart => return Ok(Advance::Apart),
                Step::Closed if at == top => return Ok(Advance::Closed),
                // An outer layer's end takes the inner ones with it.
                Step::Closed => return Err(self.truncated(at + 1)),
                Step::Starved if at > 0 => at -= 1,
                Step::Starved if self.wire_ended => return Err(self.truncated(0)),
                Step::Starved => return Ok(Advance::NeedWire),
            }
        }
    }

    /// Feeds layer `at` one record, if a whole one is at hand.
    fn step(&mut self, at: usize) -> Result<Step, TlsError> {
        let (below, above) = self.layers.split_at_mut_checked(at).unwrap_or_default();
        let Some(layer) = above.first_mut() else {
            return Ok(Step::Starved);
        };
        if layer.session.peer_closed() {
            return Ok(Step::Closed);
        }
        let (input, below) = match at.checked_sub(1) {
            None => (&mut self.wire_input, None),
            Some(i) => match (self.inputs.get_mut(i), below.last_mut()) {
                (Some(input), Some(below)) => (input, Some(&mut below.session)),
                _ => return Ok(Step::Starved),
            },
        };
        let fed = match below {
            // Straight from the plaintext of the layer below, when that holds a whole record.
            Some(below) if input.is_empty() && !layer.session.feeds_apart() => {
                let fed = layer.session.feed(below.plaintext());
                match &fed {
                    Ok(Some(fed)) => below.consume(fed.record),
                    Ok(None) => keep_plaintext(below, input),
                    Err(_) => {}
                }
                fed
            }
            below => {
                if let Some(below) = below {
                    keep_plaintext(below, input);
                }
                if layer.session.takes_apart(input.filled()) {
                    return Ok(Step::Apart);
                }
                let fed = layer.session.feed(input.filled());
                if let Ok(Some(fed)) = &fed {
                    input.consume(fed.record);
                }
                fed
            }
        };
        match fed {
            Ok(None) => Ok(Step::Starved),
            Ok(Some(fed)) => {
                layer.counters.inward(fed.record, fed.plaintext);
                self.settle(at);
                Ok(Step::Fed)
            }
            Err(error) => {
                self.settle(at);
                Err(self.fail(at, error))
            }
        }
    }

    /// Takes the innermost session out, with the record that it is to have. Until it is [put back](Self::put_back)
    /// there is nothing to be had from its layer; those below go on.
    pub(super) fn take_apart(&mut self) -> Option<Taken> {
        let top = self.layers.len().checked_sub(1)?;
        let input = match top.checked_sub(1) {
            None => &mut self.wire_input,
            Some(below) => self.inputs.get_mut(below)?,
        };
        let Front::Whole(length) = record::front(input.filled()) else {
            return None;
        };
        let record = input.filled().get(..length)?.to_vec();
        input.consume(length);
        Some(Taken {
            session: self.layers.get_mut(top)?.session.take(),
            record,
            fed: Ok(None),
        })
    }

    /// Goes on with what came of the record.
    pub(super) fn put_back(&mut self, taken: Taken) -> Result<(), TlsError> {
        let top = self.layers.len().saturating_sub(1);
        let Some(layer) = self.layers.last_mut() else {
            return Ok(());
        };
        layer.session = taken.session;
        if let Ok(Some(fed)) = &taken.fed {
            layer.counters.inward(fed.record, fed.plaintext);
        }
        self.settle(top);
        match taken.fed {
            Ok(_) => Ok(()),
            Err(error) => Err(self.fail(top, error)),
        }
    }

    // ---- outward ----

    /// Seals from `parts`, chunk by chunk through all layers; returns how many bytes were taken.
    pub(super) fn write(&mut self, parts: &[IoSlice<'_>]) -> Result<usize, TlsError> {
        if let Some(error) = self.failed() {
            return Err(error.clone());
        }
        let unit = self.write_unit();
        let all: usize = parts.iter().map(|part| part.len()).sum();
        let most = if all <= UNSENT + TAIL { all } else { UNSENT };
        let mut taken = 0;
        let mut chunk: Vec<IoSlice<'_>> = Vec::with_capacity(parts.len().min(64));
        let mut room = unit;
        for part in parts {
            let mut part: &[u8] = part;
            while !part.is_empty() && taken < most {
                let (now, rest) = part.split_at_checked(room).unwrap_or((part, &[]));
                part = rest;
                room -= now.len();
                taken += now.len();
                chunk.push(IoSlice::new(now));
                if room == 0 {
                    self.seal_top(&chunk)?;
                    chunk.clear();
                    room = unit;
                }
            }
        }
        if !chunk.is_empty() {
            self.seal_top(&chunk)?;
        }
        Ok(taken)
    }

    fn seal_top(&mut self, chunk: &[IoSlice<'_>]) -> Result<(), TlsError> {
        let Some(at) = self.layers.len().checked_sub(1) else {
            for part in chunk {
                self.raw.extend_from_slice(part);
            }
            return Ok(());
        };
        self.seal(at, chunk)?;
        self.settle(at);
        Ok(())
    }

    fn seal(&mut self, at: usize, chunk: &[IoSlice<'_>]) -> Result<(), TlsError> {
        let Some(layer) = self.layers.get_mut(at) else {
            return Ok(());
        };
        let n: usize = chunk.iter().map(|part| part.len()).sum();
        match layer.session.seal(chunk) {
            Ok(_) => {
                layer.counters.outward_plain(n);
                Ok(())
            }
            Err(error) => Err(self.fail(at, TlsError::from_io(error))),
        }
    }

    /// Moves what layer `at` has to say down into the layer below, and so on to the outermost.
    fn settle(&mut self, at: usize) {
        self.settle_behind(at, &mut BytesMut::new());
    }

    /// The same, with `first` in one record with the first bytes of layer `at`.
    fn settle_behind(&mut self, at: usize, first: &mut BytesMut) {
        for i in (1..=at).rev() {
            let (below, above) = self.layers.split_at_mut_checked(i).unwrap_or_default();
            let (Some(below), Some(layer)) = (below.last_mut(), above.first_mut()) else {
                return;
            };
            while layer.session.wants_write() {
                let Layer { session, counters } = below;
                let mut sealer = Sealer {
                    session,
                    counters,
                    first,
                };
                match layer.session.emit(&mut sealer) {
                    Ok(n) => layer.counters.outward_sealed(n),
                    // The layer below has failed and says so itself when it is read or written.
                    Err(_) => break,
                }
            }
        }
    }

    /// Whether there is no layer, and nothing of the application waits for the wire.
    pub(super) fn is_clear(&self) -> bool {
        self.layers.is_empty() && self.raw.is_empty() && self.held.is_empty()
    }

    /// Whether bytes wait for the wire.
    pub(super) fn wants_write(&self) -> bool {
        !self.raw.is_empty() || self.layers.first().is_some_and(|l| l.session.wants_write())
    }

    /// About how many bytes wait for the wire, the corked ones included.
    pub(super) fn unsent(&self) -> usize {
        let sealed = self.layers.first().map_or(0, |l| l.session.queued());
        self.raw.len() + self.held.len() + sealed
    }

    /// Writes once to the wire; returns how many bytes it took.
    pub(super) fn emit(&mut self, wire: &mut dyn Write) -> io::Result<usize> {
        let Some(outermost) = self.layers.first_mut().filter(|l| l.session.wants_write()) else {
            let n = wire.write(&self.raw)?;
            self.raw.advance(n.min(self.raw.len()));
            return Ok(n);
        };
        let before = self.raw.len();
        let sealed = if before == 0 {
            outermost.session.emit(wire)?
        } else {
            let raw = &mut self.raw;
            outermost.session.emit(&mut BelowWriter { raw, wire })?
        };
        outermost.counters.outward_sealed(sealed);
        Ok(sealed + before - self.raw.len())
    }

    /// The wire takes no more: what waits for it is dropped.
    pub(super) fn discard_unsent(&mut self) {
        self.raw.clear();
        self.held.clear();
        if let Some(outermost) = self.layers.first_mut() {
            while outermost.session.wants_write() {
                if !matches!(outermost.session.emit(&mut io::sink()), Ok(1..)) {
                    break;
                }
            }
        }
    }

    // ---- corked bytes ----

    /// Keeps bytes of the application until what comes behind them; see `Onion::cork`.
    pub(super) fn hold(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// Seals what was held.
    pub(super) fn release(&mut self) -> Result<(), TlsError> {
        if self.held.is_empty() {
            return Ok(());
        }
        let mut held = self.held.split().freeze();
        while !held.is_empty() {
            let n = self.write(&[IoSlice::new(&held)])?;
            held.advance(n);
        }
        Ok(())
    }

    // ---- layers on and off ----

    /// Puts `session` next to the application.
    pub(super) fn push(&mut self, session: Connection, counters: Counters) {
        let mut held = self.held.split();
        if self.layers.is_empty() {
            self.raw.extend_from_slice(&held);
            held.clear();
        }
        // One layer is usual; the four that a Vec begins with would be most of an idle onion.
        self.layers.reserve_exact(1);
        self.inputs.reserve_exact(1);
        self.layers.push(Layer { session, counters });
        self.inputs.push(Buffer::default());
        let top = self.layers.len() - 1;
        if self.top().is_some_and(Connection::wants_write) {
            self.settle_behind(top, &mut held);
        }
        if let (false, Some(below)) = (held.is_empty(), top.checked_sub(1)) {
            // A server says nothing at first: the corked bytes leave alone.
            if self.seal(below, &[IoSlice::new(&held)]).is_ok() {
                self.settle(below);
            }
        }
    }

    /// Seals a close_notify behind all that was written to the innermost layer.
    pub(super) fn close_top(&mut self) -> Result<(), TlsError> {
        self.release()?;
        self.close_layer(self.layers.len());
        Ok(())
    }

    /// Closes all layers, the innermost first. One that has failed is left as it is: a close would
    /// make the peer believe that all went well.
    pub(super) fn close_all(&mut self) -> Result<(), TlsError> {
        if let Some(error) = self.failed() {
            return Err(error.clone());
        }
        self.release()?;
        for depth in (1..=self.layers.len()).rev() {
            self.close_layer(depth);
        }
        Ok(())
    }

    fn close_layer(&mut self, depth: usize) {
        let Some(at) = depth.checked_sub(1) else {
            return;
        };
        if let Some(layer) = self.layers.get_mut(at) {
            layer.session.close();
            self.settle(at);
        }
    }

    /// Takes the innermost layer off, once both closes have passed. What it has not yet handed to
    /// the wire stands before all that follows.
    pub(super) fn pop(&mut self) {
        let Some(mut layer) = self.layers.pop() else {
            return;
        };
        if self.layers.is_empty() {
            let mut raw = bytes::BufMut::writer(&mut self.raw);
            while layer.session.wants_write() {
                match layer.session.emit(&mut raw) {
                    Ok(n @ 1..) => layer.counters.outward_sealed(n),
                    _ => break,
                }
            }
        }
        let left = self.inputs.pop();
        debug_assert!(
            left.is_none_or(|input| input.is_empty()),
            "only a layer that was read to its end is popped"
        );
    }

    /// What was read ahead from the wire; for an engine that is given up at depth 0.
    pub(super) fn into_read_ahead(self) -> Vec<u8> {
        self.wire_input.filled().to_vec()
    }

    /// Remembers the first error, which came from layer `at`, and returns it.
    pub(super) fn fail(&mut self, at: usize, error: TlsError) -> TlsError {
        self.failed
            .get_or_insert_with(|| Box::new(error.again(at + 1)));
        error
    }

    /// The end came before layer `at` was closed.
    pub(super) fn truncated(&mut self, at: usize) -> TlsError {
        self.fail(at, TlsError::Truncated { layer: at + 1 })
    }
}

/// Moves the plaintext of the layer below to where the rest of the record is waited for.
fn keep_plaintext(below: &mut Connection, input: &mut Buffer) {
    let part = below.plaintext();
    let n = part.len();
    input.extend(part);
    below.consume(n);
}

enum Step {
    Fed,
    Closed,
    Starved,
    Apart,
}
