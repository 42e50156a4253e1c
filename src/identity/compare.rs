//! A peer id in forms that people compare: words to read aloud, and a picture to look at.
//!
//! Words: each 16 bits are five letters, consonant vowel consonant vowel consonant, four bits of the
//! number for each consonant and two for each vowel, highest first; 256 bits are sixteen words. All of
//! the id is in them, so words that agree are ids that agree.
//!
//! Picture: a walk over a field of 17 by 9 whose edges are joined. Each two bits of the id, lowest first
//! in each byte, are a diagonal step, and a field is the darker the more often it was trodden. All of
//! the id goes into it, but pictures that look alike are easily found: it shows that something has
//! changed, and never that nothing has.

use std::fmt::Write as _;

use super::peer_id::PeerId;

const CONSONANTS: [char; 16] = [
    'b', 'd', 'f', 'g', 'h', 'j', 'k', 'l', 'm', 'n', 'p', 'r', 's', 't', 'v', 'z',
];
const VOWELS: [char; 4] = ['a', 'i', 'o', 'u'];

const WIDTH: usize = 17;
const HEIGHT: usize = 9;
/// From untrodden to often trodden.
const SHADES: [char; 9] = [' ', '.', ':', '-', '+', 'x', '%', '#', '@'];

/// The word of sixteen bits.
pub(crate) fn word(number: u16) -> String {
    let number = usize::from(number);
    let letters = [
        CONSONANTS.get(number >> 12 & 15),
        VOWELS.get(number >> 10 & 3),
        CONSONANTS.get(number >> 6 & 15),
        VOWELS.get(number >> 4 & 3),
        CONSONANTS.get(number & 15),
    ];
    letters.into_iter().flatten().collect()
}

/// The sixteen bits of a word, in any case; none where it is no such word.
pub(crate) fn number_of(word: &str) -> Option<u16> {
    let (mut number, mut letters) = (0_usize, 0);
    for (at, letter) in word.chars().enumerate() {
        let (among, bits): (&[char], _) = match at % 2 {
            0 => (&CONSONANTS, 4),
            _ => (&VOWELS, 2),
        };
        let value = among
            .iter()
            .position(|c| *c == letter.to_ascii_lowercase())?;
        number = (number << bits | value) & 0xffff;
        letters += 1;
    }
    (letters == 5).then(|| u16::try_from(number).ok()).flatten()
}

impl PeerId {
    /// Sixteen words of five letters; ids are the same where all of them are.
    #[must_use]
    pub fn words(&self) -> String {
        let mut text = String::with_capacity(16 * 6);
        for pair in self.as_bytes().chunks(2) {
            let number = pair.iter().fold(0, |n, byte| n << 8 | u16::from(*byte));
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(&word(number));
        }
        text
    }

    /// The id that has these [`words`](Self::words), in any case and with any white space between them; none where they
    /// are no such words.
    #[must_use]
    pub fn from_words(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        let mut words = text.split_whitespace();
        for pair in bytes.chunks_mut(2) {
            let number = number_of(words.next()?)?;
            pair.copy_from_slice(&number.to_be_bytes());
        }
        match words.next() {
            None => Some(Self::from_bytes(bytes)),
            Some(_) => None,
        }
    }

    /// A picture of eleven lines of nineteen characters. Another picture is another id; the same
    /// picture proves nothing.
    #[must_use]
    pub fn picture(&self) -> String {
        let mut trodden = [[0_usize; WIDTH]; HEIGHT];
        let (mut x, mut y) = (WIDTH / 2, HEIGHT / 2);
        for byte in self.as_bytes() {
            for step in [0, 2, 4, 6].map(|shift| byte >> shift & 3) {
                x = (x + if step & 1 == 0 { WIDTH - 1 } else { 1 }) % WIDTH;
                y = (y + if step & 2 == 0 { HEIGHT - 1 } else { 1 }) % HEIGHT;
                if let Some(count) = trodden.get_mut(y).and_then(|row| row.get_mut(x)) {
                    *count += 1;
                }
            }
        }
        let mut text = String::new();
        let edge = "-".repeat(WIDTH);
        let _ = writeln!(text, "+{edge}+");
        for row in trodden {
            let shades = row.map(|count| SHADES.get(count).copied().unwrap_or('@'));
            let _ = writeln!(text, "|{}|", shades.iter().collect::<String>());
        }
        let _ = writeln!(text, "+{edge}+");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn words_are_all_of_the_id() {
        let mut bytes = [0; 32];
        assert_eq!(PeerId::from_bytes(bytes).words(), ["babab"; 16].join(" "));
        // 127.0.0.1, as others write it in such words.
        bytes[..4].copy_from_slice(&[127, 0, 0, 1]);
        let words = PeerId::from_bytes(bytes).words();
        assert!(words.starts_with("lusab babad babab"), "{words}");
        assert_eq!(
            PeerId::from_bytes([255; 32]).words(),
            ["zuzuz"; 16].join(" ")
        );
        // Each bit counts.
        let mut seen = BTreeSet::from([PeerId::from_bytes([0; 32]).words()]);
        for bit in 0..256 {
            let mut bytes = [0; 32];
            bytes[bit / 8] = 1 << (bit % 8);
            assert!(seen.insert(PeerId::from_bytes(bytes).words()), "bit {bit}");
        }
    }

    #[test]
    fn an_id_is_read_from_its_words_and_from_no_others() {
        let id = PeerId::from_spki(b"any");
        let words = id.words();
        assert_eq!(PeerId::from_words(&words), Some(id));
        let shouted = words.to_uppercase().replace(' ', "\n  ");
        assert_eq!(PeerId::from_words(&shouted), Some(id));
        let (first, _) = words.rsplit_once(' ').unwrap();
        for wrong in [
            String::new(),
            first.to_owned(),
            format!("{words} babab"),
            format!("{first} baba"),
            format!("{first} bababa"),
            format!("{first} babac"),
            format!("{first} ababa"),
        ] {
            assert_eq!(PeerId::from_words(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_picture_shows_every_bit() {
        let any = PeerId::from_spki(b"any");
        let mut seen = BTreeSet::from([any.picture()]);
        for bit in 0..256 {
            let mut bytes = *any.as_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let picture = PeerId::from_bytes(bytes).picture();
            assert!(picture.lines().all(|line| line.chars().count() == 19));
            assert_eq!(picture.lines().count(), 11);
            seen.insert(picture);
        }
        assert!(seen.len() > 250, "{} of 257 differ", seen.len());
    }
}
