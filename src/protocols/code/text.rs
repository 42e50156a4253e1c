//! A short code and its text, `NAMEPLATE-WORD-WORD`. No IO, no clock.
//!
//! The words are those of peer ids ([`PeerId::words`](crate::identity::PeerId::words)): sixteen bits in five letters. Of their 32 bits
//! 24 are random, and the last eight are a CRC of the nameplate and those. It finds every wrong letter and nearly every other slip
//! before the code's one guess is spent, and helps nobody to guess: whoever guesses knows it, and has 2²⁴ codes to choose from.

use std::fmt;
use std::str::FromStr;

use crc::{CRC_8_SMBUS, Crc};
use zeroize::Zeroizing;

use crate::backend;
use crate::identity::{IdentityError, number_of, word};

const SUM: Crc<u8> = Crc::<u8>::new(&CRC_8_SMBUS);

/// Largest nameplate.
pub(in crate::protocols) const MAX_NAMEPLATE: u32 = 9999;

/// A code. Its text is a secret until it was used; so it is not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct ShortCode {
    nameplate: u32,
    words: Zeroizing<[u8; 4]>,
}

/// What is no short code. Each text is one line and says what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodeTextError {
    /// Another form.
    #[error("not a short code: it is a number and two words of five letters, as in 7-lusab-badaf")]
    Malformed,
    /// Words of which there are none such; which one, counted from 1.
    #[error(
        "word {0} of the code is mistyped: each has five letters, b d f g h j k l m n p r s t v z taking turns with a i o u"
    )]
    Word(usize),
    /// The sum says that something is wrong.
    #[error("the code is mistyped: compare its number and its words, and try again")]
    Sum,
}

impl ShortCode {
    /// New words for this nameplate.
    pub(super) fn new(nameplate: u32) -> Result<Self, IdentityError> {
        let mut words = Zeroizing::new([0; 4]);
        if let Some(random) = words.first_chunk_mut::<3>() {
            backend::fill(random).map_err(|_| IdentityError::Generate {
                reason: "no random numbers".into(),
            })?;
        }
        let [a, b, c, _] = *words;
        *words = [a, b, c, sum(nameplate, *words)];
        Ok(Self { nameplate, words })
    }

    /// Whether a text is meant as one: digits and a dash in front.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        text.split_once('-').is_some_and(|(number, _)| {
            !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
        })
    }

    /// The number, which the relay knows.
    #[must_use]
    pub fn nameplate(&self) -> u32 {
        self.nameplate
    }

    /// The text that is given to somebody.
    #[must_use]
    pub fn text(&self) -> Zeroizing<String> {
        let [a, b, c, d] = *self.words;
        let (one, two) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let words = Zeroizing::new((word(one), word(two)));
        Zeroizing::new(format!("{}-{}-{}", self.nameplate, words.0, words.1))
    }
}

fn sum(nameplate: u32, [a, b, c, _]: [u8; 4]) -> u8 {
    let mut digest = SUM.digest();
    digest.update(&nameplate.to_be_bytes());
    digest.update(&[a, b, c]);
    digest.finalize()
}

impl FromStr for ShortCode {
    type Err = CodeTextError;

    fn from_str(text: &str) -> Result<Self, CodeTextError> {
        let malformed = CodeTextError::Malformed;
        if !Self::is_meant(text) {
            return Err(malformed);
        }
        let mut parts = text.split('-');
        let nameplate = parts.next().and_then(|number| number.parse().ok());
        let nameplate = nameplate.filter(|it| (1..=MAX_NAMEPLATE).contains(it));
        let (Some(nameplate), Some(one), Some(two), None) =
            (nameplate, parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed);
        };
        let [a, b] = number_of(one).ok_or(CodeTextError::Word(1))?.to_be_bytes();
        let [c, d] = number_of(two).ok_or(CodeTextError::Word(2))?.to_be_bytes();
        let words = Zeroizing::new([a, b, c, d]);
        if sum(nameplate, *words) != d {
            return Err(CodeTextError::Sum);
        }
        Ok(Self { nameplate, words })
    }
}

impl fmt::Debug for ShortCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShortCode")
            .field("nameplate", &self.nameplate)
            .finish_non_exhaustive()
    }
}

/// For the fuzz target: what is read is written the same again.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn fuzz(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(code) = text.parse::<ShortCode>() {
        assert_eq!(code.text().parse(), Ok(code));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(nameplate: u32, random: [u8; 3]) -> ShortCode {
        let [a, b, c] = random;
        let mut words = [a, b, c, 0];
        words[3] = sum(nameplate, words);
        ShortCode {
            nameplate,
            words: Zeroizing::new(words),
        }
    }

    #[test]
    fn the_text_is_as_documented() {
        // docs/PROTOCOL.md quotes it.
        assert_eq!(*of(7, [0x7f, 0x00, 0x00]).text(), EXPECTED);
    }

    const EXPECTED: &str = "7-lusab-badaf";

    #[test]
    fn every_wrong_letter_and_digit_is_found() {
        for random in [[0, 0, 0], [0x7f, 0, 1], [0xff; 3], [0x12, 0x34, 0x56]] {
            let code = of(42, random);
            let text = code.text();
            assert_eq!(text.to_uppercase().parse(), Ok(code));
            for (at, old) in text.char_indices() {
                for new in ('a'..='z').chain('0'..='9').filter(|new| *new != old) {
                    let mut wrong = text.to_string();
                    wrong.replace_range(at..=at, &new.to_string());
                    assert!(wrong.parse::<ShortCode>().is_err(), "{wrong} for {}", *text);
                }
            }
        }
        for (text, error) in [
            ("", CodeTextError::Malformed),
            ("7", CodeTextError::Malformed),
            ("7-lusab", CodeTextError::Malformed),
            ("7-lusab-badaf-babad", CodeTextError::Malformed),
            ("0-lusab-babad", CodeTextError::Malformed),
            ("99999999999-lusab-babad", CodeTextError::Malformed),
            ("7-crossover-babad", CodeTextError::Word(1)),
            ("7-lusab-clockwork", CodeTextError::Word(2)),
        ] {
            assert_eq!(text.parse::<ShortCode>(), Err(error), "{text}");
        }
    }

    #[test]
    fn codes_are_random_and_not_shown_by_accident() {
        let (one, two) = (ShortCode::new(7).unwrap(), ShortCode::new(7).unwrap());
        assert_ne!(one, two);
        assert_eq!(one.text().parse(), Ok(one.clone()));
        assert_eq!(format!("{one:?}"), "ShortCode { nameplate: 7, .. }");
    }
}
