//! The yamux wire: a 12-byte header, and for data frames a body behind it.
//!
//! ```text
//!  byte 0        1        2        4               8               12
//!       +--------+--------+--------+---------------+---------------+------ ...
//!       | version|  type  |  flags |   stream id   |    length     | body (type 0 only)
//!       +--------+--------+--------+---------------+---------------+------ ...
//! ```
//!
//! Everything is big-endian. Headers are parsed into [`Frame`] here, at the edge, and emitted from
//! the same type, so that no other file knows an offset or a flag bit. [`Decoder`] cuts a byte
//! stream into frames; it hands a body on in whatever pieces arrived, as slices of the input, and
//! allocates nothing for bytes that a header merely promises.
//!
//! Section names in comments are those of hashicorp/yamux `spec.md`.

use bytes::{Buf, Bytes};

/// Bytes in a frame header.
pub(crate) const HEADER_LEN: usize = 12;

/// What a stream starts with in either direction ("Flow Control").
pub(crate) const INITIAL_WINDOW: u32 = 256 * 1024;

/// The same where both ends are cepa and have said so.
pub(crate) const SMALL_WINDOW: u32 = 64 * 1024;

const TYPE_DATA: u8 = 0;
const TYPE_WINDOW: u8 = 1;
const TYPE_PING: u8 = 2;
const TYPE_GO_AWAY: u8 = 3;

const SYN: u16 = 1;
const ACK: u16 = 2;
const FIN: u16 = 4;
const RST: u16 = 8;

/// The flags of a data or window frame ("Flag Field").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags(u16);

impl Flags {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const SYN: Self = Self(SYN);
    pub(crate) const ACK: Self = Self(ACK);
    pub(crate) const FIN: Self = Self(FIN);
    pub(crate) const RST: Self = Self(RST);

    pub(crate) fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    #[cfg(test)]
    pub(crate) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// One frame, without its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// `len` bytes of stream `id` follow.
    Data { id: u32, flags: Flags, len: u32 },
    /// The sender of this frame will take `value` more bytes on stream `id`. With RST, `value` is
    /// the reason for the reset; peers that know no reasons send 0 and ignore what they get.
    Window { id: u32, flags: Flags, value: u32 },
    /// To be answered by a [`Frame::Pong`] with the same value.
    Ping { value: u32 },
    /// The answer to a ping.
    Pong { value: u32 },
    /// The sender accepts no more streams, or ends the session, for the reason `code`.
    GoAway { code: u32 },
}

/// What can be wrong with a header on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    /// "Version Field": always 0.
    Version(u8),
    /// "Type Field": 0 to 3.
    Type(u8),
    /// Flags that do not exist, or that make no sense for the type.
    Flags(u16),
    /// A stream's frame on stream 0, or a session's frame on a stream ("`StreamID` Field").
    StreamId(u32),
}

impl Frame {
    /// Parses a header.
    pub(crate) fn parse(header: [u8; HEADER_LEN]) -> Result<Self, HeaderError> {
        let [version, kind, f0, f1, i0, i1, i2, i3, l0, l1, l2, l3] = header;
        let flags = u16::from_be_bytes([f0, f1]);
        let id = u32::from_be_bytes([i0, i1, i2, i3]);
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        if version != 0 {
            return Err(HeaderError::Version(version));
        }
        if kind > TYPE_GO_AWAY {
            return Err(HeaderError::Type(kind));
        }
        if flags & !(SYN | ACK | FIN | RST) != 0 {
            return Err(HeaderError::Flags(flags));
        }
        let of_stream = kind == TYPE_DATA || kind == TYPE_WINDOW;
        if of_stream == (id == 0) {
            return Err(HeaderError::StreamId(id));
        }
        Ok(match kind {
            // Nobody both starts and acknowledges the same stream.
            TYPE_DATA | TYPE_WINDOW if flags & (SYN | ACK) == SYN | ACK => {
                return Err(HeaderError::Flags(flags));
            }
            TYPE_DATA => Self::Data {
                id,
                flags: Flags(flags),
                len: length,
            },
            TYPE_WINDOW => Self::Window {
                id,
                flags: Flags(flags),
                value: length,
            },
            // "Type Field" wants SYN on a ping; rust-yamux sends none, so what is no answer is a
            // question.
            TYPE_PING if flags == 0 || flags == SYN => Self::Ping { value: length },
            TYPE_PING if flags == ACK => Self::Pong { value: length },
            TYPE_GO_AWAY if flags == 0 => Self::GoAway { code: length },
            _ => return Err(HeaderError::Flags(flags)),
        })
    }

    /// The header of this frame as bytes.
    pub(crate) fn emit(self) -> [u8; HEADER_LEN] {
        let (kind, flags, id, length) = match self {
            Self::Data { id, flags, len } => (TYPE_DATA, flags.0, id, len),
            Self::Window { id, flags, value } => (TYPE_WINDOW, flags.0, id, value),
            Self::Ping { value } => (TYPE_PING, SYN, 0, value),
            Self::Pong { value } => (TYPE_PING, ACK, 0, value),
            Self::GoAway { code } => (TYPE_GO_AWAY, 0, 0, code),
        };
        let [f0, f1] = flags.to_be_bytes();
        let [i0, i1, i2, i3] = id.to_be_bytes();
        let [l0, l1, l2, l3] = length.to_be_bytes();
        [0, kind, f0, f1, i0, i1, i2, i3, l0, l1, l2, l3]
    }
}

/// What [`Decoder::next`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// A header. After one of a data frame with a body, the body's pieces come next.
    Frame(Frame),
    /// A piece of the body of the last data frame; `last` when nothing of it is missing any more.
    Body { bytes: Bytes, last: bool },
}

/// Cuts a byte stream into frames, however it was cut before.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    /// The header being collected; the first `have` bytes are set.
    header: [u8; HEADER_LEN],
    have: usize,
    /// Bytes of the present body that have not arrived.
    body_left: u32,
}

impl Decoder {
    /// Takes the next item off the front of `input`; `None` when `input` is used up.
    pub(crate) fn next(&mut self, input: &mut Bytes) -> Result<Option<Item>, HeaderError> {
        if self.body_left > 0 {
            if input.is_empty() {
                return Ok(None);
            }
            let n = input.len().min(self.body_left as usize);
            let bytes = input.split_to(n);
            // n is at most body_left, which is a u32.
            self.body_left -= u32::try_from(n).unwrap_or(self.body_left);
            return Ok(Some(Item::Body {
                bytes,
                last: self.body_left == 0,
            }));
        }
        let n = input.len().min(HEADER_LEN - self.have);
        if let Some(space) = self.header.get_mut(self.have..self.have + n) {
            input.copy_to_slice(space);
        }
        self.have += n;
        if self.have < HEADER_LEN {
            return Ok(None);
        }
        self.have = 0;
        let frame = Frame::parse(self.header)?;
        if let Frame::Data { len, .. } = frame {
            self.body_left = len;
        }
        Ok(Some(Item::Frame(frame)))
    }

    /// Whether the input so far ended between two frames.
    pub(crate) fn at_boundary(&self) -> bool {
        self.have == 0 && self.body_left == 0
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)] // patterns of bytes
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_frame() -> impl Strategy<Value = Frame> {
        let flags = || {
            prop::sample::select(vec![0, SYN, ACK, FIN, RST, SYN | FIN, ACK | FIN, ACK | RST])
                .prop_map(Flags)
        };
        prop_oneof![
            (1..=u32::MAX, flags(), 0..2000u32).prop_map(|(id, flags, len)| Frame::Data {
                id,
                flags,
                len
            }),
            (1..=u32::MAX, flags(), any::<u32>()).prop_map(|(id, flags, value)| Frame::Window {
                id,
                flags,
                value
            }),
            any::<u32>().prop_map(|value| Frame::Ping { value }),
            any::<u32>().prop_map(|value| Frame::Pong { value }),
            any::<u32>().prop_map(|code| Frame::GoAway { code }),
        ]
    }

    #[test]
    fn the_header_is_laid_out_as_the_spec_says() {
        let frame = Frame::Data {
            id: 0x0102_0304,
            flags: Flags::SYN.with(Flags::FIN),
            len: 5,
        };
        assert_eq!(frame.emit(), [0, 0, 0, 5, 1, 2, 3, 4, 0, 0, 0, 5]);
        let frame = Frame::Window {
            id: 3,
            flags: Flags::ACK,
            value: 0x0004_0000,
        };
        assert_eq!(frame.emit(), [0, 1, 0, 2, 0, 0, 0, 3, 0, 4, 0, 0]);
        assert_eq!(
            Frame::Ping { value: 7 }.emit(),
            [0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7]
        );
        assert_eq!(
            Frame::Pong { value: 7 }.emit(),
            [0, 2, 0, 2, 0, 0, 0, 0, 0, 0, 0, 7]
        );
        assert_eq!(
            Frame::GoAway { code: 2 }.emit(),
            [0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]
        );
    }

    #[test]
    fn what_no_peer_may_send_is_named() {
        let ok = [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
        assert!(Frame::parse(ok).is_ok());
        let with = |at: usize, value: u8| {
            let mut header = ok;
            header[at] = value;
            Frame::parse(header)
        };
        assert_eq!(with(0, 1), Err(HeaderError::Version(1)));
        assert_eq!(with(1, 4), Err(HeaderError::Type(4)));
        assert_eq!(with(3, 0x10), Err(HeaderError::Flags(0x10)));
        assert_eq!(with(2, 0x01), Err(HeaderError::Flags(0x100)));
        assert_eq!(with(3, 0x03), Err(HeaderError::Flags(3)));
        assert_eq!(with(7, 0), Err(HeaderError::StreamId(0)));
        assert_eq!(with(1, 2), Err(HeaderError::StreamId(1)));
        // A ping that asks and answers, a go-away with flags.
        assert_eq!(
            Frame::parse([0, 2, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0]),
            Err(HeaderError::Flags(3))
        );
        assert_eq!(
            Frame::parse([0, 3, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
            Err(HeaderError::Flags(1))
        );
    }

    proptest! {
        #[test]
        fn frames_survive_any_cut(frames in prop::collection::vec(any_frame(), 1..20),
                                  cuts in prop::collection::vec(1..40usize, 1..50)) {
            let mut wire = Vec::new();
            for frame in &frames {
                wire.extend_from_slice(&frame.emit());
                if let Frame::Data { id, len, .. } = frame {
                    wire.extend((0..*len).map(|i| (i + id) as u8));
                }
            }
            let mut decoder = Decoder::default();
            let (mut got, mut bodies) = (Vec::new(), Vec::new());
            let mut cut = cuts.iter().cycle();
            let mut rest = Bytes::from(wire);
            while !rest.is_empty() {
                let n = (*cut.next().unwrap()).min(rest.len());
                let mut piece = rest.split_to(n);
                while let Some(item) = decoder.next(&mut piece).unwrap() {
                    match item {
                        Item::Frame(frame) => {
                            got.push(frame);
                            if let Frame::Data { len: 1.., .. } = frame {
                                bodies.push((Vec::new(), false));
                            }
                        }
                        Item::Body { bytes, last } => {
                            let (body, done) = bodies.last_mut().unwrap();
                            body.extend_from_slice(&bytes);
                            assert!(!*done);
                            *done = last;
                        }
                    }
                }
                prop_assert!(piece.is_empty());
            }
            prop_assert!(decoder.at_boundary());
            prop_assert_eq!(&got, &frames);
            let mut bodies = bodies.into_iter();
            for frame in &frames {
                if let Frame::Data { id, len: len @ 1.., .. } = frame {
                    let (body, done) = bodies.next().unwrap();
                    prop_assert!(done);
                    prop_assert!(body.into_iter().eq((0..*len).map(|i| (i + id) as u8)));
                }
            }
        }

        #[test]
        fn what_parses_is_emitted_unchanged(mut header in any::<[u8; 12]>()) {
            header[0] = 0;
            header[1] &= 3;
            if let Ok(frame) = Frame::parse(header) {
                if matches!(frame, Frame::Ping { .. }) {
                    header[3] = 1; // emitted with SYN, also when it came without
                }
                prop_assert_eq!(frame.emit(), header);
            }
        }
    }
}
