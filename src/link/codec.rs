//! Bytes to frames and back: flags, escapes and the checksum.
//!
//! ```text
//!   7E | escaped( body ... CRC-32C ) | 7E | escaped( ... ) | 7E
//! ```
//!
//! A flag ends a frame and begins the next, so frames back to back have one between them; behind a
//! pause a frame gets a flag of its own in front, because whatever came before it may be anything.
//! In a frame, the bytes of the escape set are sent as 7D and the byte with bit 5 flipped. The reader
//! undoes any escape, so only the writer has to know the set.
//!
//! The checksum begins with what both ends know from the opening and nobody sends again (the nonces,
//! the sender's first). So a frame of an older epoch, or our own frame reflected by the line, fails
//! it like a damaged one, and costs no byte of header.
//!
//! What does not become a frame is handed out as well: between frames a board may print its boot
//! messages.

pub(crate) use cepa_transports::endpoint::Escapes;
use crc::{CRC_32_ISCSI, Crc, Digest, Table};

/// Ends a frame, and begins the next.
pub(crate) const FLAG: u8 = 0x7e;
const ESCAPE: u8 = 0x7d;
const FLIP: u8 = 0x20;
const XON: u8 = 0x11;
const XOFF: u8 = 0x13;

/// Bytes of the checksum.
pub(crate) const SUM_LEN: usize = 4;

/// Most bytes of a body, checksum included: the largest payload with the largest header.
pub(crate) const BODY_MAX: usize = 1024 + 128;

/// Most bytes on the wire of one frame: each may be escaped.
const RAW_MAX: usize = 2 * BODY_MAX;

static CRC: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

/// A set of escapes as the openings name it.
pub(crate) fn code_of(escapes: Escapes) -> u8 {
    match escapes {
        Escapes::Least => 0,
        Escapes::XonXoff => 1,
        Escapes::Control => 2,
    }
}

/// A set that we do not know is a larger one.
pub(crate) fn escapes_of(code: u8) -> Escapes {
    match code {
        0 => Escapes::Least,
        1 => Escapes::XonXoff,
        _ => Escapes::Control,
    }
}

fn covers(escapes: Escapes, byte: u8) -> bool {
    match byte {
        FLAG | ESCAPE => true,
        XON | XOFF => escapes >= Escapes::XonXoff,
        0..=0x1f | 0x7f => escapes == Escapes::Control,
        _ => false,
    }
}

/// What the line itself may have put among the bytes of a frame.
fn is_intruder(escapes: Escapes, byte: u8) -> bool {
    byte != FLAG && byte != ESCAPE && covers(escapes, byte)
}

/// The checksum of one direction.
#[derive(Clone)]
pub(crate) struct FrameCheck(Digest<'static, u32, Table<16>>);

impl FrameCheck {
    /// For openings, which come before the nonces are known.
    pub(crate) fn opening() -> Self {
        Self(CRC.digest())
    }

    /// For all that this sender sends to this receiver in the epoch that the two nonces name.
    pub(crate) fn epoch(sender: u64, receiver: u64) -> Self {
        let mut digest = CRC.digest();
        digest.update(&sender.to_be_bytes());
        digest.update(&receiver.to_be_bytes());
        Self(digest)
    }

    fn sum(&self, body: &[u8]) -> [u8; SUM_LEN] {
        let mut digest = self.0.clone();
        digest.update(body);
        digest.finalize().to_be_bytes()
    }

    /// The body without its checksum, if that is right.
    pub(crate) fn check<'a>(&self, body: &'a [u8]) -> Option<&'a [u8]> {
        let (body, sum) = body.split_last_chunk::<SUM_LEN>()?;
        (self.sum(body) == *sum).then_some(body)
    }
}

impl std::fmt::Debug for FrameCheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameCheck").finish_non_exhaustive()
    }
}

/// Bytes on the wire that a byte of a body takes.
pub(crate) fn cost(byte: u8, escapes: Escapes) -> usize {
    if covers(escapes, byte) { 2 } else { 1 }
}

/// Appends a frame to `out`, behind a flag of its own where `lead` asks for one.
pub(crate) fn encode(
    body: &[u8],
    seal: &FrameCheck,
    escapes: Escapes,
    lead: bool,
    out: &mut Vec<u8>,
) {
    if lead {
        out.push(FLAG);
    }
    for byte in body.iter().copied().chain(seal.sum(body)) {
        if covers(escapes, byte) {
            out.extend([ESCAPE, byte ^ FLIP]);
        } else {
            out.push(byte);
        }
    }
    out.push(FLAG);
}

/// Undoes the escapes; `None` when they make no sense. Bytes that the line may have put in are
/// dropped, because a sender that knows of `escapes` never sends them bare.
pub(crate) fn unescape(raw: &[u8], escapes: Escapes) -> Option<Vec<u8>> {
    let mut body = Vec::with_capacity(raw.len());
    let mut bytes = raw
        .iter()
        .copied()
        .filter(|byte| !is_intruder(escapes, *byte));
    while let Some(byte) = bytes.next() {
        body.push(match byte {
            ESCAPE => bytes.next()? ^ FLIP,
            _ => byte,
        });
    }
    Some(body)
}

/// What was found in the input.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Stood between two flags; escapes and checksum are still to be looked at. So many bytes at its beginning were
    /// handed out as chatter already.
    Candidate { raw: Vec<u8>, handed_out: usize },
    /// Can't be a frame.
    Chatter(Vec<u8>),
}

/// Cuts the input at flags.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    raw: Vec<u8>,
    /// Bytes of it that were handed out as chatter, since nothing came behind them for a while. They may still be
    /// the beginning of a frame: how long a line can pause inside of one is known only when its rate is.
    handed_out: usize,
    /// A flag was seen, and what is in `raw` came behind it.
    inside: bool,
    /// Flags right before what is in `raw`.
    flags: usize,
    /// Flags right before the last piece that was given.
    before: usize,
}

impl Decoder {
    /// Takes from `input` up to the next piece; `None` when more is needed.
    pub(crate) fn next(&mut self, input: &mut &[u8]) -> Option<Piece> {
        while !input.is_empty() {
            let Some(at) = input.iter().position(|byte| *byte == FLAG) else {
                self.raw.extend(*input);
                *input = &[];
                break;
            };
            let (before, behind) = input.split_at_checked(at)?;
            self.raw.extend(before);
            *input = behind.get(1..).unwrap_or_default();
            let inside = std::mem::replace(&mut self.inside, true);
            if self.raw.is_empty() {
                self.flags += 1;
            } else {
                let handed_out = self.handed_out;
                let mut raw = self.give(1);
                let whole = inside && raw.len() <= RAW_MAX;
                return Some(if whole {
                    Piece::Candidate { raw, handed_out }
                } else {
                    Piece::Chatter(raw.split_off(handed_out))
                });
            }
        }
        if self.raw.len() > RAW_MAX {
            self.inside = false;
        }
        if !self.inside && !self.raw.is_empty() {
            let handed_out = self.handed_out;
            return Some(Piece::Chatter(self.give(0).split_off(handed_out)));
        }
        // Who reads chatter that stands behind a flag does not wait for the next one.
        (self.handed_out > 0 && self.is_amid()).then(|| Piece::Chatter(self.chatter_so_far()))
    }

    /// Hands out what was collected, which so many flags ended.
    fn give(&mut self, ended_by: usize) -> Vec<u8> {
        self.before = std::mem::replace(&mut self.flags, ended_by);
        self.handed_out = 0;
        std::mem::take(&mut self.raw)
    }

    /// How many flags stood between the last piece that was given and the one before it. Between frames they
    /// are the frames'; in chatter they are a part of it.
    pub(crate) fn flags_before(&self) -> usize {
        self.before
    }

    /// Whether what may be a frame has begun and not ended.
    pub(crate) fn is_amid(&self) -> bool {
        self.raw.len() > self.handed_out
    }

    /// Takes what has begun for chatter, as nothing has come for a while. Should the rest come after all, it is a
    /// candidate all the same.
    pub(crate) fn chatter_so_far(&mut self) -> Vec<u8> {
        self.before = std::mem::take(&mut self.flags);
        let handed_out = std::mem::replace(&mut self.handed_out, self.raw.len());
        self.raw.get(handed_out..).unwrap_or_default().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pieces(input: &[u8], chunk: usize) -> Vec<Piece> {
        let mut decoder = Decoder::default();
        let mut found = Vec::new();
        for mut part in input.chunks(chunk.max(1)) {
            while let Some(piece) = decoder.next(&mut part) {
                found.push(piece);
            }
        }
        found
    }

    #[test]
    fn the_checksum_is_crc_32c() {
        // The check value of CRC-32C (RFC 3720, B.4, has others of the same polynomial).
        assert_eq!(
            FrameCheck::opening().sum(b"123456789"),
            [0xe3, 0x06, 0x92, 0x83]
        );
        // RFC 3720, B.4: 32 bytes of zeros, whose sum is sent there least byte first.
        assert_eq!(
            FrameCheck::opening().sum(&[0; 32]),
            [0x8a, 0x91, 0x36, 0xaa]
        );
    }

    #[test]
    fn another_epoch_or_our_own_echo_fails() {
        let (a, b, c) = (1, 2, 3);
        let mut wire = Vec::new();
        encode(
            b"body",
            &FrameCheck::epoch(a, b),
            Escapes::Least,
            true,
            &mut wire,
        );
        let body = unescape(&wire[1..wire.len() - 1], Escapes::Least).unwrap();
        assert_eq!(FrameCheck::epoch(a, b).check(&body), Some(&b"body"[..]));
        for wrong in [
            FrameCheck::epoch(b, a),
            FrameCheck::epoch(a, c),
            FrameCheck::epoch(c, b),
            FrameCheck::opening(),
        ] {
            assert_eq!(wrong.check(&body), None);
        }
    }

    #[test]
    fn chatter_around_frames_costs_at_most_one() {
        let mut wire = b"U-Boot 2026\r\n".to_vec();
        let seal = FrameCheck::opening();
        encode(b"one", &seal, Escapes::Least, true, &mut wire);
        encode(b"two", &seal, Escapes::Least, false, &mut wire);
        wire.extend(b"panic");
        encode(b"lost", &seal, Escapes::Least, false, &mut wire);
        encode(b"three", &seal, Escapes::Least, false, &mut wire);
        let (mut good, mut chatter) = (Vec::new(), 0);
        for piece in pieces(&wire, 5) {
            match piece {
                Piece::Candidate { raw, .. } => {
                    let body = unescape(&raw, Escapes::Least).unwrap();
                    good.extend(seal.check(&body).map(<[u8]>::to_vec));
                }
                Piece::Chatter(raw) => chatter += raw.len(),
            }
        }
        assert_eq!(good, [&b"one"[..], b"two", b"three"]);
        assert_eq!(chatter, 13);
    }

    #[test]
    fn a_frame_that_stands_still_in_its_middle_is_one() {
        let (mut decoder, mut wire) = (Decoder::default(), Vec::new());
        encode(
            b"body",
            &FrameCheck::opening(),
            Escapes::Least,
            true,
            &mut wire,
        );
        let (mut first, rest) = wire.split_at(4);
        assert_eq!(decoder.next(&mut first), None);
        assert!(decoder.is_amid());
        assert_eq!(decoder.chatter_so_far(), b"bod");
        assert_eq!(decoder.flags_before(), 1);
        assert!(!decoder.is_amid());
        let (mut more, mut rest) = rest.split_at(2);
        let next = decoder.next(&mut more);
        assert_eq!(next, Some(Piece::Chatter(wire[4..6].to_vec())));
        assert_eq!(decoder.flags_before(), 0);
        assert_eq!(decoder.next(&mut more), None);
        let raw = wire[1..wire.len() - 1].to_vec();
        let whole = Piece::Candidate { raw, handed_out: 5 };
        assert_eq!(decoder.next(&mut rest), Some(whole));
        assert_eq!(decoder.flags_before(), 0);
        // The flag that ended it begins the next.
        assert_eq!(
            decoder
                .next(&mut &b"x~"[..])
                .map(|_| decoder.flags_before()),
            Some(1)
        );
    }

    #[test]
    fn what_never_ends_is_chatter_and_is_not_kept() {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.next(&mut &[FLAG, b'x'][..]), None);
        let mut given = decoder.chatter_so_far().len();
        for _ in 0..1000 {
            let text = [b'x'; 1000];
            let mut input = &text[..];
            while let Some(Piece::Chatter(raw)) = decoder.next(&mut input) {
                given += raw.len();
            }
            assert!(decoder.raw.len() <= RAW_MAX);
        }
        assert_eq!(given, 1_000_001);
    }

    proptest! {
        #[test]
        fn frames_come_back_whatever_is_in_them(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 1..8),
            code in 0u8..3,
            chunk in 1usize..64,
            intruders in any::<bool>(),
        ) {
            let (seal, escapes) = (FrameCheck::epoch(7, 9), escapes_of(code));
            let mut wire = Vec::new();
            for body in &bodies {
                encode(body, &seal, escapes, false, &mut wire);
            }
            let sent = wire.len();
            wire.retain(|byte| *byte == FLAG || !is_intruder(escapes, *byte));
            prop_assert_eq!(wire.len(), sent, "a byte of the set was sent bare");
            if intruders && escapes >= Escapes::XonXoff {
                wire = wire.into_iter().flat_map(|byte| [XOFF, byte, XON]).collect();
            }
            wire.insert(0, FLAG);
            let back: Vec<_> = pieces(&wire, chunk)
                .into_iter()
                .filter_map(|piece| match piece {
                    Piece::Candidate { raw, .. } => {
                        seal.check(&unescape(&raw, escapes)?).map(<[u8]>::to_vec)
                    }
                    Piece::Chatter(_) => None,
                })
                .collect();
            prop_assert_eq!(back, bodies);
        }
    }
}
