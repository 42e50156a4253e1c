//! The form of a framed stream, without IO: what is read of it, and what goes in front of what is written.
//!
//! ```text
//! direction = *( length 1*OCTET ) end      length: 32 bits, big endian, 1 to 1,048,576
//! end       = %x00.00.00.00
//! ```
//!
//! docs/PROTOCOL.md says the same to who writes another implementation.

/// Most bytes of one frame. The first byte of a length is 0 therefore, and text from a program that knows no frames is seen at its
/// fourth byte. Nothing is allocated by it: bytes are passed on as they come.
pub(crate) const MOST: u32 = 1 << 20;

/// The bytes in front of a frame.
pub(crate) const HEAD: usize = 4;

/// What a frame of no bytes is: the end of its direction.
pub(crate) const END: [u8; HEAD] = [0; HEAD];

/// What is in front of so many bytes, of which at most [`MOST`] are in one frame; and how many are.
pub(crate) fn head(bytes: usize, most: usize) -> ([u8; HEAD], usize) {
    let most = u32::try_from(most).unwrap_or(MOST).min(MOST);
    let length = u32::try_from(bytes).unwrap_or(MOST).min(most);
    (length.to_be_bytes(), length as usize)
}

/// ```text
/// Head --[four bytes: 1 to MOST]--> Body --[so many bytes]--> Head
///   `--[0]--> Ended     `--[more than MOST]--> Wrong
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// `have` bytes of a length have come, and are worth `value`.
    Head {
        have: usize,
        value: u32,
    },
    /// So many bytes of the frame are still to come; never none.
    Body(u32),
    Ended,
    /// A length that is none.
    Wrong(u32),
}

const NEXT: State = State::Head { have: 0, value: 0 };

/// Takes the frames off what comes.
#[derive(Debug)]
pub(crate) struct Decoder {
    state: State,
}

/// Where a stream is, behind all that was decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// More is to come: an end here is a cut.
    Within,
    /// The end frame has come; what may be behind it is not looked at.
    End,
    /// This is no length of a frame.
    Wrong(u32),
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self { state: NEXT }
    }

    pub(crate) fn at(&self) -> At {
        match self.state {
            State::Head { .. } | State::Body(_) => At::Within,
            State::Ended => At::End,
            State::Wrong(length) => At::Wrong(length),
        }
    }

    /// Moves the data among `bytes` to their beginning, and tells how much it is. In place, so that nothing is copied twice.
    pub(crate) fn take(&mut self, bytes: &mut [u8]) -> usize {
        let (mut read, mut kept) = (0, 0);
        while let Some(&byte) = bytes.get(read) {
            self.state = match self.state {
                State::Body(left) => {
                    let there = bytes.len() - read;
                    let n = there.min(left as usize);
                    bytes.copy_within(read..read + n, kept);
                    read += n;
                    kept += n;
                    // It is at most `left`.
                    match left.saturating_sub(u32::try_from(n).unwrap_or(left)) {
                        0 => NEXT,
                        left => State::Body(left),
                    }
                }
                State::Head { have, value } => {
                    read += 1;
                    let value = value << 8 | u32::from(byte);
                    match (have + 1, value) {
                        (HEAD, 0) => State::Ended,
                        (HEAD, 1..=MOST) => State::Body(value),
                        (HEAD, _) => State::Wrong(value),
                        (have, _) => State::Head { have, value },
                    }
                }
                State::Ended | State::Wrong(_) => break,
            };
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a sender makes of these writes.
    fn encoded(writes: &[Vec<u8>], most: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for mut rest in writes.iter().map(Vec::as_slice) {
            while !rest.is_empty() {
                let (length, n) = head(rest.len(), most);
                out.extend(length);
                out.extend(&rest[..n]);
                rest = &rest[n..];
            }
        }
        out.extend(END);
        out
    }

    /// What is read of them when they come in pieces of these sizes.
    fn decoded(mut bytes: Vec<u8>, pieces: &[usize]) -> (Vec<u8>, At) {
        let (mut decoder, mut out) = (Decoder::new(), Vec::new());
        let mut sizes = pieces.iter().copied().cycle();
        let mut rest = bytes.as_mut_slice();
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at_mut(sizes.next().unwrap_or(7).min(rest.len()));
            let n = decoder.take(piece);
            out.extend(&piece[..n]);
            rest = behind;
        }
        (out, decoder.at())
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_however_it_is_split(
            writes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..10),
            most in 1..400_usize,
            pieces in prop::collection::vec(1..90_usize, 1..10),
            cut in any::<prop::sample::Index>(),
        ) {
            let wire = encoded(&writes, most);
            let all = writes.concat();
            let (read, at) = decoded(wire.clone(), &pieces);
            prop_assert_eq!(&read, &all);
            prop_assert_eq!(at, At::End);
            // Cut anywhere it is a beginning, and never an end.
            let (read, at) = decoded(wire[..cut.index(wire.len())].to_vec(), &pieces);
            prop_assert!(all.starts_with(&read));
            prop_assert_eq!(at, At::Within);
        }

        #[test]
        fn whatever_comes_is_read_the_same_in_one_piece(
            wire in prop::collection::vec(prop_oneof![Just(0_u8), 0..4_u8, any::<u8>()], 0..200),
            pieces in prop::collection::vec(1..20_usize, 1..10),
        ) {
            prop_assert_eq!(decoded(wire.clone(), &pieces), decoded(wire, &[1000]));
        }
    }

    #[test]
    fn lengths_have_a_bound() {
        let after = |length: u32| {
            let mut decoder = Decoder::new();
            let mut bytes = [length.to_be_bytes().as_slice(), b"xyz"].concat();
            (decoder.take(&mut bytes), decoder.at())
        };
        assert_eq!(after(MOST), (3, At::Within));
        assert_eq!(after(MOST + 1), (0, At::Wrong(MOST + 1)));
        assert_eq!(after(u32::MAX), (0, At::Wrong(u32::MAX)));
        // What is behind the end is not read.
        assert_eq!(after(0), (0, At::End));
        assert_eq!(head(usize::MAX, usize::MAX), (MOST.to_be_bytes(), 1 << 20));
    }
}
