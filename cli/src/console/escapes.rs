//! What a terminal's output does beside showing text: the modes that it has switched on, and the parts that must not reach a
//! terminal twice.
//!
//! A console that is attached again shows output that a terminal has read before. Text and colours may come again; a question
//! may not: the terminal would answer it now, and the answer would be typed at whatever runs by then. Nor may a bell, a
//! clipboard, or an image. So sequences are taken apart as far as it needs to tell them from each other (ECMA-48 section 5.4; what
//! xterm adds is in its `ctlseqs`).
//!
//! ```text
//!   GROUND --ESC--> ESCAPE --[--> CSI -----final byte-----> GROUND
//!                         \--]PX^_--> STRING --BEL, ESC \--> GROUND
//! ```

use std::collections::BTreeSet;

const ESC: u8 = 0x1b;
const BEL: u8 = 0x07;
const ENQ: u8 = 0x05;
const CAN: u8 = 0x18;
const SUB: u8 = 0x1a;

/// A longer sequence is none, and a longer string (a title, a link) is dropped.
const LONGEST: usize = 1024;

/// Modes that a program switches on for itself and off at its end: keys of the cursor, the cursor's sight, the other screen, the
/// mouse, focus, and pasting.
const MODES: [u16; 13] = [
    1, 25, 47, 1000, 1002, 1003, 1004, 1005, 1006, 1015, 1047, 1049, 2004,
];

/// The one of them that is on at first.
const CURSOR: u16 = 25;

/// Those of the other screen.
const OTHER_SCREEN: [u16; 3] = [47, 1047, 1049];

/// Strings of these numbers may come again: titles, the folder, links, and the marks of prompts.
const STRINGS: [&[u8]; 6] = [b"0", b"1", b"2", b"7", b"8", b"133"];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Ground,
    Escape,
    Csi,
    String,
    /// In a string, an escape: the end of the string, or of all sequences before.
    StringEscape,
}

/// Reads output.
#[derive(Clone, Debug, Default)]
pub(crate) struct Escapes {
    state: State,
    /// The sequence so far.
    held: Vec<u8>,
    /// The modes that are not as at first.
    modes: BTreeSet<u16>,
    /// Keys of the number pad are sequences.
    keypad: bool,
}

/// What becomes of what is held.
enum Becomes {
    Held,
    Shown,
    Dropped,
}

impl Escapes {
    /// Whether no sequence is begun.
    pub(crate) fn is_between(&self) -> bool {
        self.state == State::Ground
    }

    /// Reads output; nothing is kept of it but the modes.
    pub(crate) fn follow(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.take(*byte);
        }
    }

    /// The same, and appends what may be shown again.
    pub(crate) fn show(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for byte in bytes {
            if self.state == State::Ground && !matches!(*byte, ESC | BEL | ENQ) {
                out.push(*byte);
                continue;
            }
            if let Some(shown) = self.take(*byte) {
                out.extend(shown);
            }
        }
    }

    /// Whether a program fills the screen, and not one line after the other.
    pub(crate) fn on_other_screen(&self) -> bool {
        OTHER_SCREEN.iter().any(|mode| self.modes.contains(mode))
    }

    /// What brings a terminal as it is at first into these modes.
    pub(crate) fn on(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if self.keypad {
            out.extend(b"\x1b=");
        }
        for mode in &self.modes {
            let word = if *mode == CURSOR { 'l' } else { 'h' };
            out.extend(format!("\x1b[?{mode}{word}").bytes());
        }
        out
    }

    /// What takes it out of them again; nothing where all is as at first.
    pub(crate) fn off(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for mode in &self.modes {
            let word = if *mode == CURSOR { 'h' } else { 'l' };
            out.extend(format!("\x1b[?{mode}{word}").bytes());
        }
        if self.keypad {
            out.extend(b"\x1b>");
        }
        if !out.is_empty() {
            out.extend(b"\x1b[0m");
        }
        out
    }

    /// Takes one byte; gives a whole sequence that may be shown.
    fn take(&mut self, byte: u8) -> Option<Vec<u8>> {
        if self.state == State::Ground {
            if byte == ESC {
                self.begin();
            }
            return None;
        }
        match self.become_of(byte) {
            Becomes::Held => None,
            Becomes::Dropped => {
                self.end();
                None
            }
            Becomes::Shown => Some(self.end()),
        }
    }

    fn begin(&mut self) {
        self.held.clear();
        self.held.push(ESC);
        self.state = State::Escape;
    }

    fn end(&mut self) -> Vec<u8> {
        self.state = State::Ground;
        std::mem::take(&mut self.held)
    }

    fn become_of(&mut self, byte: u8) -> Becomes {
        if matches!(byte, CAN | SUB) {
            return Becomes::Dropped;
        }
        match self.state {
            State::Ground => Becomes::Dropped,
            State::Escape => self.in_escape(byte),
            State::Csi => self.in_csi(byte),
            State::String if byte == BEL => self.string(byte),
            State::String => {
                if byte == ESC {
                    self.state = State::StringEscape;
                }
                self.hold(byte)
            }
            State::StringEscape if byte == b'\\' => self.string(byte),
            State::StringEscape => {
                self.begin();
                self.in_escape(byte)
            }
        }
    }

    /// One more byte of what is held. Of a string that is too long no more is.
    fn hold(&mut self, byte: u8) -> Becomes {
        if self.held.len() < LONGEST {
            self.held.push(byte);
        }
        Becomes::Held
    }

    fn in_escape(&mut self, byte: u8) -> Becomes {
        let first = self.held.len() == 1;
        self.hold(byte);
        match byte {
            ESC => self.begin(),
            b'[' if first => self.state = State::Csi,
            b']' | b'P' | b'X' | b'^' | b'_' if first => self.state = State::String,
            // It asks what kind of terminal this is.
            b'Z' if first => return Becomes::Dropped,
            b'=' | b'>' if first => {
                self.keypad = byte == b'=';
                return Becomes::Shown;
            }
            b'c' if first => {
                self.modes.clear();
                self.keypad = false;
                return Becomes::Shown;
            }
            0x20..=0x2f if self.held.len() < LONGEST => {}
            _ => return Becomes::Shown,
        }
        Becomes::Held
    }

    fn in_csi(&mut self, byte: u8) -> Becomes {
        match byte {
            ESC => {
                self.begin();
                Becomes::Held
            }
            0x20..=0x3f if self.held.len() < LONGEST => self.hold(byte),
            0x40..=0x7e => {
                self.hold(byte);
                self.csi(byte)
            }
            _ => Becomes::Dropped,
        }
    }

    /// A whole control sequence.
    fn csi(&mut self, last: u8) -> Becomes {
        let inner = self.held.get(2..self.held.len() - 1).unwrap_or_default();
        let (first, behind) = (inner.first().copied(), inner.last().copied());
        match (last, first) {
            (b'h' | b'l', Some(b'?')) => {
                let numbers = String::from_utf8_lossy(inner.get(1..).unwrap_or_default());
                let numbers = numbers.split(';').filter_map(|n| n.parse().ok());
                for mode in numbers.filter(|mode| MODES.contains(mode)) {
                    if (last == b'h') == (mode == CURSOR) {
                        self.modes.remove(&mode);
                    } else {
                        self.modes.insert(mode);
                    }
                }
                Becomes::Shown
            }
            // Questions about the terminal, its place, its modes and its keys; and what is done to its window.
            (b'c' | b'n' | b't', _) | (b'q', Some(b'>')) | (b'u', Some(b'?')) => Becomes::Dropped,
            (b'p', _) if behind == Some(b'$') => Becomes::Dropped,
            _ => Becomes::Shown,
        }
    }

    /// A whole string.
    fn string(&mut self, last: u8) -> Becomes {
        let whole = self.held.len() < LONGEST;
        self.hold(last);
        let number = self.held.get(2..).unwrap_or_default();
        let number = number.split(|byte| *byte == b';').next();
        let may = self.held.get(1) == Some(&b']') && number.is_some_and(|n| STRINGS.contains(&n));
        if whole && may {
            Becomes::Shown
        } else {
            Becomes::Dropped
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(bytes: &[u8], piece: usize) -> String {
        let (mut escapes, mut out) = (Escapes::default(), Vec::new());
        for bytes in bytes.chunks(piece) {
            escapes.show(bytes, &mut out);
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_comes_again_and_what_would_be_answered_does_not() {
        for (output, again) in [
            ("plain ü\r\n", "plain ü\r\n"),
            ("\x1b[1;31mred\x1b[0m", "\x1b[1;31mred\x1b[0m"),
            ("\x1b(B\x1b7\x1b8", "\x1b(B\x1b7\x1b8"),
            ("\x1b]0;title\x07x", "\x1b]0;title\x07x"),
            (
                "\x1b]8;;http://a\x1b\\x\x1b]8;;\x1b\\",
                "\x1b]8;;http://a\x1b\\x\x1b]8;;\x1b\\",
            ),
            // A cursor's shape, and a soft reset.
            ("\x1b[2 q\x1b[!p", "\x1b[2 q\x1b[!p"),
            // Who are you, where is the cursor, which keys and modes, which colour, which capability.
            (
                "a\x1b[c\x1b[>c\x1b[=c\x1bZ\x1b[5n\x1b[6n\x1b[?6n\x1b[>q\x1b[?u\x1b[?2026$pb",
                "ab",
            ),
            (
                "a\x1b]11;?\x07\x1b]4;1;?\x1b\\\x1bP+q544e\x1b\\\x1bP$qm\x1b\\b",
                "ab",
            ),
            // A window, a clipboard, a notice, bells.
            (
                "a\x1b[8;50;132t\x1b]52;c;QQ==\x07\x1b]9;hi\x07\x07\x05b",
                "ab",
            ),
            // Broken off.
            ("a\x1b[12\x18b\x1b]0;t\x1ac\x1b\x1b[1md", "abc\x1b[1md"),
        ] {
            for piece in [1, 2, 3, 1000] {
                assert_eq!(shown(output.as_bytes(), piece), again, "{output:?}");
            }
        }
        let long = format!("a\x1b]0;{}\x07b", "x".repeat(LONGEST));
        assert_eq!(shown(long.as_bytes(), 7), "ab");
    }

    #[test]
    fn modes_are_followed_and_taken_back() {
        let mut escapes = Escapes::default();
        escapes.follow(b"\x1b[?1049h\x1b[?25l\x1b=\x1b[?1000;1006h\x1b[?12h text");
        assert!(escapes.on_other_screen());
        let on = escapes.on();
        assert_eq!(
            String::from_utf8_lossy(&on),
            "\x1b=\x1b[?25l\x1b[?1000h\x1b[?1006h\x1b[?1049h"
        );
        let off = escapes.off();
        assert_eq!(
            String::from_utf8_lossy(&off),
            "\x1b[?25h\x1b[?1000l\x1b[?1006l\x1b[?1049l\x1b>\x1b[0m"
        );
        // What switches them on and off is read as such.
        let mut other = Escapes::default();
        other.follow(&on);
        assert_eq!(other.on(), on);
        other.follow(&off);
        assert!(other.on().is_empty() && other.off().is_empty());
        escapes.follow(b"\x1bc");
        assert!(escapes.off().is_empty() && !escapes.on_other_screen());
    }
}
