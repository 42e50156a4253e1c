//! What a probe sends, and what it makes of what comes: the codec, without IO. docs/PROTOCOL.md has it.
//!
//! The line is what is to be found out about, so nothing is relied on: questions and answers are lines of
//! printable ASCII with a checksum, which even a line of 7 bits with flow control carries, and both kinds of
//! test data mark themselves in the same characters.
//!
//! - A **cell** tests one byte value: `<hh:` value, three times, `>`. What stands between the marks tells
//!   whether it was eaten or changed.
//! - A **block** tests for noise: `@` and its number, 32 printable characters that follow from the number,
//!   and a line feed. Flipped bits are counted in blocks whose marks are whole; the others are lost.

use crc::{CRC_32_ISCSI, Crc};

const CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

const MARK: &[u8] = b"#cp1 ";
/// Longest question or answer.
const LINE_MAX: usize = 96;
const CELL: usize = 8;
/// Bytes of a block.
pub(crate) const BLOCK: usize = 38;
const PAYLOAD: usize = 32;
/// More flipped bits than this in a payload of 256 are no noise, but another place in the stream.
const FLIPS_MAX: u32 = 40;
/// Behind test data, so that a reader who waits for the rest of it gets something. Spaces mean nothing.
pub(crate) const PADDING: &[u8] = &[b' '; BLOCK];

/// A question or an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Of the probe that asks; the answer has the same.
    pub(crate) id: u16,
    pub(crate) is_answer: bool,
    pub(crate) words: Vec<String>,
}

impl Line {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let kind = if self.is_answer { 'a' } else { 'q' };
        let text = format!("{kind} {:04x} {}", self.id, self.words.join(" "));
        let sum = CRC32C.checksum(text.as_bytes());
        // The first line feed ends whatever garbage is before it.
        let mut out = b"\n".to_vec();
        out.extend(MARK);
        out.extend(format!("{text} {sum:08x}\n").bytes());
        out
    }

    /// Of a line without its mark and its end.
    fn decode(line: &[u8]) -> Option<Self> {
        let (text, sum) = std::str::from_utf8(line).ok()?.rsplit_once(' ')?;
        if u32::from_str_radix(sum, 16).ok()? != CRC32C.checksum(text.as_bytes()) {
            return None;
        }
        let mut words = text.split(' ').map(str::to_owned);
        let is_answer = match words.next()?.as_str() {
            "a" => true,
            "q" => false,
            _ => return None,
        };
        Some(Self {
            id: u16::from_str_radix(&words.next()?, 16).ok()?,
            is_answer,
            words: words.collect(),
        })
    }
}

/// What became of a byte value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Unknown,
    Clean,
    Eaten,
    /// It came without its upper bit.
    Stripped,
    Changed,
}

impl Fate {
    const LETTERS: [(Self, char); 5] = [
        (Self::Unknown, '?'),
        (Self::Clean, '.'),
        (Self::Eaten, 'x'),
        (Self::Stripped, '7'),
        (Self::Changed, '!'),
    ];

    pub(crate) fn letter(self) -> char {
        let found = Self::LETTERS.iter().find(|(fate, _)| *fate == self);
        found.map_or('?', |(_, letter)| *letter)
    }

    pub(crate) fn of_letter(letter: char) -> Option<Self> {
        let found = Self::LETTERS.iter().find(|(_, other)| *other == letter);
        found.map(|(fate, _)| *fate)
    }
}

/// All cells. XOFF is followed by XON, so that a driver that obeys it goes on.
pub(crate) fn alphabet() -> Vec<u8> {
    // XOFF has three bytes of XON behind it.
    let mut out = Vec::with_capacity(256 * CELL + 3 + PADDING.len());
    for value in 0..=u8::MAX {
        out.extend(format!("<{value:02x}:").bytes());
        out.extend([value; 3]);
        out.push(b'>');
        if value == 0x13 {
            out.extend([0x11; 3]);
        }
    }
    out.extend(PADDING);
    out
}

fn payload(number: u16) -> [u8; PAYLOAD] {
    // Any mixing will do that has no short repetition.
    let mut state = u32::from(number).wrapping_mul(0x9e37_79b9) | 1;
    std::array::from_fn(|_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        // Between "A" and "`", so that it contains no mark.
        0x41 + u8::try_from(state % 32).unwrap_or(0)
    })
}

pub(crate) fn block(number: u16) -> Vec<u8> {
    let mut out = format!("@{number:04x}").into_bytes();
    out.extend(payload(number));
    out.push(b'\n');
    out
}

/// What stands in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Line(Line),
    Cell(u8, Fate),
    /// A block, with so many flipped bits in its payload.
    Block(u16, u32),
}

/// Finds items in what comes.
#[derive(Debug, Default)]
pub(crate) struct Finder {
    bytes: Vec<u8>,
}

/// What the bytes at one place are.
enum Here {
    /// More is needed to tell.
    Short,
    Nothing,
    Item(usize, Item),
}

impl Finder {
    /// Bytes that may still become an item.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn read(&mut self, bytes: &[u8]) -> Vec<Item> {
        self.bytes.extend(bytes);
        let (mut items, mut at) = (Vec::new(), 0);
        while let Some(rest) = self.bytes.get(at..).filter(|rest| !rest.is_empty()) {
            match here(rest) {
                Here::Short => break,
                Here::Nothing => at += 1,
                Here::Item(length, item) => {
                    at += length;
                    items.push(item);
                }
            }
        }
        // Never more than the longest item stays.
        self.bytes.drain(..at);
        items
    }
}

fn here(bytes: &[u8]) -> Here {
    match bytes.first() {
        Some(b'#') => line(bytes),
        Some(b'<') => cell(bytes),
        Some(b'@') => a_block(bytes),
        _ => Here::Nothing,
    }
}

fn line(bytes: &[u8]) -> Here {
    let Some(rest) = bytes.strip_prefix(MARK) else {
        return if MARK.starts_with(bytes) {
            Here::Short
        } else {
            Here::Nothing
        };
    };
    let end = rest
        .iter()
        .take(LINE_MAX)
        .position(|b| matches!(b, b'\n' | b'\r'));
    match end.and_then(|end| rest.get(..end)) {
        Some(text) => match Line::decode(text) {
            Some(found) => Here::Item(MARK.len() + text.len() + 1, Item::Line(found)),
            None => Here::Nothing,
        },
        None if rest.len() < LINE_MAX => Here::Short,
        None => Here::Nothing,
    }
}

fn number<const N: usize>(digits: &[u8; N]) -> Option<u16> {
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

fn cell(bytes: &[u8]) -> Here {
    let Some((cell, _)) = bytes.split_first_chunk::<CELL>() else {
        return Here::Short;
    };
    let [_, high, low, b':', inside @ ..] = cell else {
        return Here::Nothing;
    };
    let Some(value) = number(&[*high, *low]).and_then(|n| u8::try_from(n).ok()) else {
        return Here::Nothing;
    };
    let item = |inside: usize, fate| Here::Item(5 + inside, Item::Cell(value, fate));
    match inside {
        [a, b, c, b'>'] if [a, b, c] == [&value; 3] => item(3, Fate::Clean),
        [a, b, c, b'>'] if a == b && b == c && *a == value & 0x7f => item(3, Fate::Stripped),
        [a, b, c, b'>'] if a == b && b == c => item(3, Fate::Changed),
        [b'>', ..] => item(0, Fate::Eaten),
        // Noise inside; one that came through is enough.
        inside if inside.contains(&value) => item(0, Fate::Clean),
        _ => Here::Nothing,
    }
}

fn a_block(bytes: &[u8]) -> Here {
    let Some((whole, _)) = bytes.split_first_chunk::<BLOCK>() else {
        return Here::Short;
    };
    let [_, a, b, c, d, came @ .., b'\n'] = whole else {
        return Here::Nothing;
    };
    let Some(number) = number(&[*a, *b, *c, *d]) else {
        return Here::Nothing;
    };
    let flips = came
        .iter()
        .zip(payload(number))
        .map(|(a, b)| (a ^ b).count_ones())
        .sum();
    if flips > FLIPS_MAX {
        return Here::Nothing;
    }
    Here::Item(BLOCK, Item::Block(number, flips))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(bytes: &[u8], piece: usize) -> Vec<Item> {
        let mut finder = Finder::default();
        bytes.chunks(piece).flat_map(|p| finder.read(p)).collect()
    }

    fn question() -> Line {
        Line {
            id: 0xbeef,
            is_answer: false,
            words: vec!["ping".to_owned(), "3".to_owned()],
        }
    }

    #[test]
    fn a_clean_line_carries_all_items_however_they_are_cut() {
        let mut bytes = b"login: #cp1 <1 @000".to_vec();
        bytes.extend(question().encode());
        bytes.extend(alphabet());
        for n in [0, 1, u16::MAX] {
            bytes.extend(block(n));
        }
        bytes.extend(question().encode());
        for piece in [1, 7, bytes.len()] {
            let mut items = found(&bytes, piece).into_iter();
            assert_eq!(items.next(), Some(Item::Line(question())));
            for value in 0..=u8::MAX {
                assert_eq!(items.next(), Some(Item::Cell(value, Fate::Clean)));
            }
            for n in [0, 1, u16::MAX] {
                assert_eq!(items.next(), Some(Item::Block(n, 0)));
            }
            assert_eq!(items.next(), Some(Item::Line(question())));
            assert_eq!(items.next(), None);
        }
    }

    #[test]
    fn what_happened_to_a_value_is_reported() {
        let eaten: Vec<u8> = alphabet()
            .into_iter()
            .filter(|b| !matches!(b, 0x11 | 0x13))
            .collect();
        let stripped: Vec<u8> = alphabet().into_iter().map(|b| b & 0x7f).collect();
        let changed: Vec<u8> = alphabet()
            .into_iter()
            .map(|b| if b == b'\r' { b'\n' } else { b })
            .collect();
        for item in found(&eaten, 64) {
            let Item::Cell(value, fate) = item else {
                panic!("{item:?}")
            };
            let lost = matches!(value, 0x11 | 0x13);
            assert_eq!(
                fate,
                if lost { Fate::Eaten } else { Fate::Clean },
                "{value:02x}"
            );
        }
        for item in found(&stripped, 64) {
            let Item::Cell(value, fate) = item else {
                panic!("{item:?}")
            };
            assert_eq!(
                fate,
                if value < 0x80 {
                    Fate::Clean
                } else {
                    Fate::Stripped
                }
            );
        }
        for item in found(&changed, 64) {
            let Item::Cell(value, fate) = item else {
                panic!("{item:?}")
            };
            assert_eq!(
                fate,
                if value == b'\r' {
                    Fate::Changed
                } else {
                    Fate::Clean
                }
            );
        }
    }

    #[test]
    fn damage_is_counted_or_not_believed() {
        let mut bytes = block(7);
        bytes[20] ^= 0b101;
        assert_eq!(found(&bytes, 5), [Item::Block(7, 2)]);
        bytes[2] = b'z';
        assert_eq!(found(&bytes, 5), []);
        let mut bytes = question().encode();
        bytes[9] ^= 1;
        assert_eq!(found(&bytes, 5), []);
    }

    #[test]
    fn the_documented_example_is_what_is_sent() {
        let line = Line {
            id: 0x2a,
            is_answer: false,
            words: vec!["ping".into(), "0".into()],
        };
        let text = String::from_utf8(line.encode()).unwrap();
        let documented = include_str!("../../../docs/PROTOCOL.md");
        assert!(documented.contains(text.trim()), "{text}");
        let block = String::from_utf8(block(1)).unwrap();
        assert!(documented.contains(block.trim()), "{block}");
    }
}
