//! The wire behind the hello: frames with a header of four bytes, read as they come and never held.
//!
//! ```text
//! header   type u8, length u24
//! 00 data  any bytes, at least one         01 ack   u64       02 ping  u32       03 pong  u32
//! 04 end   nothing                         05 park  u32       06 over  u8
//! ```
//!
//! Only the bytes of data are of any length, and they are passed on as they arrive: what a peer declares makes nothing grow.

use super::error::Violation;

/// Bytes of a header.
pub(crate) const HEADER: usize = 4;

/// Bytes of the longest frame but data.
const LONGEST: usize = HEADER + 8;

/// A header, and an acknowledgement that travels with it: what stands in front of a batch of data at most, mostly.
pub(crate) const LEAD: usize = LONGEST + HEADER;

const DATA: u8 = 0;
const ACK: u8 = 1;
const PING: u8 = 2;
const PONG: u8 = 3;
const END: u8 = 4;
const PARK: u8 = 5;
const OVER: u8 = 6;

/// A frame, of data the header alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// So many bytes follow; 1 to 2^24-1.
    Data(u32),
    /// All bytes below this offset have been received.
    Ack(u64),
    Ping(u32),
    Pong(u32),
    /// No more data of this direction.
    End,
    /// Seconds that the sender keeps the session without a path.
    Park(u32),
    /// The sender gives the session up, and why.
    Over(u8),
}

impl Frame {
    pub(crate) fn emit(self, to: &mut Vec<u8>) {
        let (kind, length) = match self {
            Self::Data(length) => (DATA, length),
            Self::Ack(_) => (ACK, 8),
            Self::Ping(_) => (PING, 4),
            Self::Pong(_) => (PONG, 4),
            Self::End => (END, 0),
            Self::Park(_) => (PARK, 4),
            Self::Over(_) => (OVER, 1),
        };
        debug_assert!(length < 1 << 24, "a length that has no room");
        to.extend_from_slice(&(u32::from(kind) << 24 | length).to_be_bytes());
        match self {
            Self::Data(_) | Self::End => {}
            Self::Ack(offset) => to.extend_from_slice(&offset.to_be_bytes()),
            Self::Ping(value) | Self::Pong(value) | Self::Park(value) => {
                to.extend_from_slice(&value.to_be_bytes());
            }
            Self::Over(reason) => to.push(reason),
        }
    }
}

/// Bytes behind a header, or why there is no such frame.
fn length(kind: u8, length: u32) -> Result<usize, Violation> {
    let fits = match kind {
        DATA => length > 0,
        ACK => length == 8,
        PING | PONG | PARK => length == 4,
        END => length == 0,
        OVER => length == 1,
        _ => return Err(Violation::Type(kind)),
    };
    if fits {
        Ok(if kind == DATA { 0 } else { length as usize })
    } else {
        Err(Violation::Length(kind, length))
    }
}

/// Where reading stands: at a frame that is no data, or in the bytes of one that is.
#[derive(Debug, Default)]
pub(crate) struct Input {
    head: [u8; LONGEST],
    got: usize,
    /// Bytes of a data frame that have not come.
    data: u32,
}

impl Input {
    /// Bytes of data that are to come before the next header.
    pub(crate) fn data(&self) -> u32 {
        self.data
    }

    /// Bytes up to the end of a header, or of the frame where that is known and no data.
    pub(crate) fn missing(&self) -> usize {
        self.due().unwrap_or(HEADER).saturating_sub(self.got).max(1)
    }

    /// The header says how many bytes the frame has.
    fn due(&self) -> Result<usize, Violation> {
        let [kind, a, b, c, ..] = self.head;
        if self.got < HEADER {
            return Ok(HEADER);
        }
        Ok(HEADER + length(kind, u32::from_be_bytes([0, a, b, c]))?)
    }

    /// Takes the rest of a frame, or of a header, from the front of what came; not to be called while data is due. Says how
    /// many bytes that were, and gives the frame when it is whole, of data when its header is.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<(usize, Option<Frame>), Violation> {
        debug_assert!(self.data == 0, "a header in the middle of data");
        // Most are this, and whole.
        if let (0, [DATA, a, b, c, ..]) = (self.got, bytes)
            && let length @ 1.. = u32::from_be_bytes([0, *a, *b, *c])
        {
            self.data = length;
            return Ok((HEADER, Some(Frame::Data(length))));
        }
        let mut taken = 0;
        loop {
            let due = self.due()?;
            let room = self.head.get_mut(self.got..due).unwrap_or_default();
            if room.is_empty() {
                break;
            }
            let rest = bytes.get(taken..).unwrap_or_default();
            let n = room.len().min(rest.len());
            if n == 0 {
                return Ok((taken, None));
            }
            for (to, byte) in room.iter_mut().zip(rest) {
                *to = *byte;
            }
            self.got += n;
            taken += n;
        }
        self.got = 0;
        let [kind, l0, l1, l2, b @ ..] = self.head;
        let [b0, b1, b2, b3, ..] = b;
        let word = u32::from_be_bytes([b0, b1, b2, b3]);
        let frame = match kind {
            DATA => {
                self.data = u32::from_be_bytes([0, l0, l1, l2]);
                Frame::Data(self.data)
            }
            ACK => Frame::Ack(u64::from_be_bytes(b)),
            PING => Frame::Ping(word),
            PONG => Frame::Pong(word),
            END => Frame::End,
            PARK => Frame::Park(word),
            OVER => Frame::Over(b0),
            other => return Err(Violation::Type(other)),
        };
        Ok((taken, Some(frame)))
    }

    /// So many bytes of data have come.
    pub(crate) fn data_filled(&mut self, n: usize) {
        let n = u32::try_from(n).unwrap_or(u32::MAX);
        debug_assert!(n <= self.data, "more bytes than were due");
        self.data = self.data.saturating_sub(n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frames() -> impl Strategy<Value = Frame> {
        prop_oneof![
            (1..1_u32 << 24).prop_map(Frame::Data),
            any::<u64>().prop_map(Frame::Ack),
            any::<u32>().prop_map(Frame::Ping),
            any::<u32>().prop_map(Frame::Pong),
            Just(Frame::End),
            any::<u32>().prop_map(Frame::Park),
            any::<u8>().prop_map(Frame::Over),
        ]
    }

    /// Reads one frame, `cut` bytes at a time, and says how many it took.
    fn read(bytes: &[u8], cut: usize) -> Result<(Frame, usize), Violation> {
        let (mut input, mut all) = (Input::default(), 0);
        for piece in bytes.chunks(cut) {
            let (n, frame) = input.take(piece)?;
            all += n;
            if let Some(frame) = frame {
                return Ok((frame, all));
            }
            assert_eq!(
                n,
                piece.len(),
                "left something of a frame that is not whole"
            );
        }
        panic!("not a whole frame");
    }

    proptest! {
        #[test]
        fn what_is_emitted_is_read(frame in frames(), cut in 1..20_usize, behind in 0..30_usize) {
            let mut bytes = Vec::new();
            frame.emit(&mut bytes);
            let length = bytes.len();
            bytes.resize(length + behind, 0xff);
            prop_assert_eq!(read(&bytes, cut), Ok((frame, length)));
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        for (bytes, why) in [
            ([7, 0, 0, 0], Violation::Type(7)),
            ([0xff, 1, 2, 3], Violation::Type(0xff)),
            ([0, 0, 0, 0], Violation::Length(0, 0)),
            ([1, 0, 0, 7], Violation::Length(1, 7)),
            ([1, 0xff, 0xff, 0xff], Violation::Length(1, 0xff_ffff)),
            ([2, 0, 1, 4], Violation::Length(2, 0x104)),
            ([4, 0, 0, 1], Violation::Length(4, 1)),
            ([6, 0, 0, 0], Violation::Length(6, 0)),
        ] {
            assert_eq!(read(&bytes, 4), Err(why));
        }
    }
}
