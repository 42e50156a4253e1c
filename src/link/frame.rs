//! The frames of the link, parsed at the edge and emitted from the same types.
//!
//! ```text
//!   control  kind in the upper three bits, flags in the lower five
//!   OPEN     version, flags, escapes, window, payload(2), nonce(8), [echo(8), [mtu(2)]]
//!   DATA     offset, [acknowledgement], payload
//!   ACK      acknowledgement
//!   PING     id
//!   PONG     id, acknowledgement
//!   RESET
//!   TURN     number, answer, acknowledgement
//!
//!   acknowledgement   offset, [held: varint], [count, count times (gap: varint, length: varint)]
//! ```
//!
//! Offsets are positions in the stream of the data's sender, and only their low 16 or 32 bits are on the
//! wire: 16 where the receiver of the data has a window of at most 32 KiB.

use std::ops::Range;

/// The version of the wire.
pub(crate) const VERSION: u8 = 1;

/// Most ranges in one acknowledgement. More are told by the next ones.
pub(crate) const RANGES_MAX: usize = 16;

/// Largest window whose offsets are sent in 16 bits, as a power of two.
pub(crate) const NARROW: u8 = 15;

/// Least and most of a window, as powers of two.
pub(crate) const WINDOW_BITS: std::ops::RangeInclusive<u8> = 10..=24;

const OPEN: u8 = 1;
const DATA: u8 = 2;
const ACK: u8 = 3;
const PING: u8 = 4;
const PONG: u8 = 5;
const RESET: u8 = 6;
const TURN: u8 = 7;

/// The offset is the end of the stream, behind the payload.
const FIN: u8 = 0x01;
/// A data frame has an acknowledgement.
const ACKED: u8 = 0x02;
/// The acknowledgement tells how much is held unread.
const HELD: u8 = 0x04;
/// The acknowledgement has ranges.
const GAPS: u8 = 0x08;
/// A turn: its sender has more to say.
const MORE: u8 = 0x01;
const FLAGS: u8 = 0x1f;

const BUSY: u8 = 0x01;
const UNSURE: u8 = 0x02;
const HALF: u8 = 0x04;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    Hello(Hello),
    Data {
        offset: u64,
        payload: &'a [u8],
        fin: bool,
        ack: Option<Ack>,
    },
    Ack(Ack),
    Ping(u8),
    Pong(u8, Ack),
    Reset,
    Turn(Handed),
}

/// A turn that is handed over, on a line that carries one way at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Handed {
    /// Of the sender's turns, from 1 on; 0 is left out when it begins again.
    pub(crate) number: u8,
    /// The receiver's last turn that was heard; 0 for none.
    pub(crate) answer: u8,
    /// The sender has more to say.
    pub(crate) more: bool,
    /// What had come when it talked, from the first that is missing on.
    pub(crate) ack: Ack,
}

/// The opening of either end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    /// The sender is in an epoch with somebody else, and asks for a sign of life: an opening that
    /// echoes its nonce.
    pub(crate) busy: bool,
    /// The sender is not in the epoch yet, and waits for an answer.
    pub(crate) unsure: bool,
    /// The line carries one way at a time.
    pub(crate) half: bool,
    /// [`Escapes`](super::codec::Escapes), by number.
    pub(crate) escapes: u8,
    /// Bytes that the sender takes beyond what was read, as a power of two.
    pub(crate) window: u8,
    /// Largest payload that the sender takes.
    pub(crate) payload: u16,
    /// The sender's.
    pub(crate) nonce: u64,
    /// What it has heard from the other end; 0 for nothing.
    pub(crate) echo: u64,
    /// Most bytes of a frame on the wire; 0 for any.
    pub(crate) mtu: u16,
}

/// What has arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ack {
    /// Everything before this.
    pub(crate) next: u64,
    /// Of that, so much is not read yet and takes of the window.
    pub(crate) held: u64,
    /// Beyond it.
    pub(crate) ranges: Vec<Range<u64>>,
}

/// Most ranges in an acknowledgement whose frame has to fit in so many bytes on the wire, for a receiver with
/// this window. Both ends reckon alike, since a list that is not full tells of all that has come.
pub(crate) fn ranges_max(mtu: Option<usize>, window: u8) -> usize {
    let Some(mtu) = mtu else {
        return RANGES_MAX;
    };
    // Two flags; then, as if each byte were escaped: checksum, control, two numbers, offset, held and count.
    let varint = usize::from(window) / 7 + 1;
    let before = 2 + 2 * (4 + 1 + 2 + 4 + varint + 1);
    let range = 2 * 2 * varint;
    (mtu.saturating_sub(before) / range).clamp(1, RANGES_MAX)
}

/// How offsets of one direction are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Width {
    wide: bool,
}

impl Width {
    /// For a direction whose receiver has this window.
    pub(crate) fn of_window(bits: u8) -> Self {
        Self {
            wide: bits > NARROW,
        }
    }

    /// Bytes of an offset.
    pub(crate) fn len(self) -> usize {
        if self.wide { 4 } else { 2 }
    }

    fn put(self, offset: u64, out: &mut Vec<u8>) {
        let bytes = offset.to_be_bytes();
        out.extend(bytes.iter().skip(bytes.len() - self.len()));
    }

    fn take(self, bytes: &mut &[u8]) -> Option<u64> {
        if self.wide {
            take(bytes).map(|b| u64::from(u32::from_be_bytes(b)))
        } else {
            take(bytes).map(|b| u64::from(u16::from_be_bytes(b)))
        }
    }

    fn span(self) -> u64 {
        1 << (8 * self.len())
    }

    /// The position at or behind `from` with these low bits.
    fn forward(self, low: u64, from: u64) -> Option<u64> {
        let ahead = low.wrapping_sub(from) & (self.span() - 1);
        from.checked_add(ahead)
    }

    /// The position nearest to `to` with these low bits.
    fn nearest(self, low: u64, to: u64) -> Option<u64> {
        let half = self.span() / 2;
        match to.checked_sub(half) {
            Some(from) => self.forward(low, from),
            // Near the beginning: nothing lies before it.
            None if low < to + half => Some(low),
            None => None,
        }
    }
}

/// What is needed to read or write offsets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The next byte that is expected here.
    pub(crate) receive_next: u64,
    pub(crate) receive_width: Width,
    /// The first byte that the other end has not acknowledged.
    pub(crate) send_base: u64,
    pub(crate) send_width: Width,
}

impl<'a> Frame<'a> {
    /// Reads a body whose checksum was right. `None`: not of this protocol, or of a later version.
    pub(crate) fn parse(body: &'a [u8], place: Place) -> Option<Self> {
        let (control, mut rest) = body.split_first()?;
        let flags = control & FLAGS;
        let frame = match control >> 5 {
            OPEN => return Hello::parse(rest).map(Self::Hello),
            DATA => {
                let low = place.receive_width.take(&mut rest)?;
                let offset = place.receive_width.nearest(low, place.receive_next)?;
                let ack = match flags & ACKED {
                    0 => None,
                    _ => Some(Ack::parse(&mut rest, flags, place)?),
                };
                return Some(Self::Data {
                    offset,
                    payload: rest,
                    fin: flags & FIN != 0,
                    ack,
                });
            }
            ACK => Self::Ack(Ack::parse(&mut rest, flags, place)?),
            PING => Self::Ping(u8::from_be_bytes(take(&mut rest)?)),
            PONG => {
                let id = u8::from_be_bytes(take(&mut rest)?);
                Self::Pong(id, Ack::parse(&mut rest, flags, place)?)
            }
            RESET => Self::Reset,
            TURN => {
                let [number, answer] = take(&mut rest)?;
                Self::Turn(Handed {
                    number,
                    answer,
                    more: flags & MORE != 0,
                    ack: Ack::parse(&mut rest, flags, place)?,
                })
            }
            _ => return None,
        };
        rest.is_empty().then_some(frame)
    }

    /// Appends the body to `out`; the payload of a data frame goes behind it.
    pub(crate) fn emit(&self, place: Place, out: &mut Vec<u8>) {
        match self {
            Self::Hello(open) => open.emit(out),
            Self::Data {
                offset,
                payload,
                fin,
                ack,
            } => {
                let fin = if *fin { FIN } else { 0 };
                let acked = ack.as_ref().map_or(0, |ack| ACKED | ack.flags());
                out.push(DATA << 5 | fin | acked);
                place.send_width.put(*offset, out);
                if let Some(ack) = ack {
                    ack.emit(place, out);
                }
                out.extend(*payload);
            }
            Self::Ack(ack) => {
                out.push(ACK << 5 | ack.flags());
                ack.emit(place, out);
            }
            Self::Ping(id) => out.extend([PING << 5, *id]),
            Self::Pong(id, ack) => {
                out.extend([PONG << 5 | ack.flags(), *id]);
                ack.emit(place, out);
            }
            Self::Reset => out.push(RESET << 5),
            Self::Turn(turn) => {
                let more = if turn.more { MORE } else { 0 };
                out.extend([
                    TURN << 5 | more | turn.ack.flags(),
                    turn.number,
                    turn.answer,
                ]);
                turn.ack.emit(place, out);
            }
        }
    }
}

impl Hello {
    /// Whether a body is an opening, of any version.
    pub(crate) fn is_one(body: &[u8]) -> bool {
        body.first().is_some_and(|control| control >> 5 == OPEN)
    }

    /// The version of an opening.
    pub(crate) fn version(body: &[u8]) -> Option<u8> {
        body.get(1).copied()
    }

    fn parse(mut rest: &[u8]) -> Option<Self> {
        let [version, flags, escapes, window] = take(&mut rest)?;
        let payload = u16::from_be_bytes(take(&mut rest)?);
        let nonce = u64::from_be_bytes(take(&mut rest)?);
        let echo = if rest.is_empty() {
            0
        } else {
            u64::from_be_bytes(take(&mut rest)?)
        };
        let mtu = take(&mut rest).map_or(0, u16::from_be_bytes);
        // Later versions may append; this one reads what it knows.
        let known = version == VERSION && nonce != 0 && WINDOW_BITS.contains(&window);
        known.then_some(Self {
            busy: flags & BUSY != 0,
            unsure: flags & UNSURE != 0,
            half: flags & HALF != 0,
            escapes,
            window,
            payload,
            nonce,
            echo,
            mtu,
        })
    }

    fn emit(&self, out: &mut Vec<u8>) {
        let busy = if self.busy { BUSY } else { 0 };
        let unsure = if self.unsure { UNSURE } else { 0 };
        let flags = busy | unsure | if self.half { HALF } else { 0 };
        out.extend([OPEN << 5, VERSION, flags, self.escapes, self.window]);
        out.extend(self.payload.to_be_bytes());
        out.extend(self.nonce.to_be_bytes());
        if self.echo != 0 || self.mtu != 0 {
            out.extend(self.echo.to_be_bytes());
        }
        if self.mtu != 0 {
            out.extend(self.mtu.to_be_bytes());
        }
    }
}

impl Ack {
    fn flags(&self) -> u8 {
        let held = if self.held > 0 { HELD } else { 0 };
        let gaps = if self.ranges.is_empty() { 0 } else { GAPS };
        held | gaps
    }

    fn parse(rest: &mut &[u8], flags: u8, place: Place) -> Option<Self> {
        let low = place.send_width.take(rest)?;
        let next = place.send_width.forward(low, place.send_base)?;
        let held = match flags & HELD {
            0 => 0,
            _ => varint(rest)?,
        };
        let mut ranges = Vec::new();
        if flags & GAPS != 0 {
            let count = u8::from_be_bytes(take(rest)?);
            let mut at = next;
            for _ in 0..usize::from(count).min(RANGES_MAX) {
                let start = at.checked_add(varint(rest)?)?;
                at = start.checked_add(varint(rest)?)?;
                ranges.push(start..at);
            }
        }
        Some(Self { next, held, ranges })
    }

    fn emit(&self, place: Place, out: &mut Vec<u8>) {
        place.receive_width.put(self.next, out);
        if self.held > 0 {
            put_varint(self.held, out);
        }
        let count = self.ranges.len().min(RANGES_MAX);
        if count > 0 {
            out.push(u8::try_from(count).unwrap_or(0));
            let mut at = self.next;
            for range in self.ranges.iter().take(count) {
                put_varint(range.start.saturating_sub(at), out);
                put_varint(range.end.saturating_sub(range.start), out);
                at = range.end;
            }
        }
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*head)
}

/// Seven bits a byte, the least first; the upper bit says that more follow. At most 35 bits.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..35).step_by(7) {
        let [byte] = take(bytes)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    loop {
        let low = value.to_be_bytes().last().copied().unwrap_or(0) & 0x7f;
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}
