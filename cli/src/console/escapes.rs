//! What a terminal's output does beside showing text: the modes that it has switched on, and the parts that may reach a
//! terminal twice.
//!
//! A console that is attached again shows output that a terminal has read before. Text and colours may come again; a question
//! may not: the terminal would answer it now, and the answer would be typed at whatever runs by then. Nor may a bell, a
//! clipboard, a printer or an image. Terminals know too many questions to list them, so it is the other way round: what is known to
//! draw and to do nothing else is written anew, and everything else is dropped. A sequence is never passed on in pieces, with
//! control characters in it, or with C1 controls, so a terminal that reads it another way than this does finds no other one in it.
//! (ECMA-48 section 5.4; what xterm adds is in its `ctlseqs`.)
//!
//! ```text
//!   GROUND --ESC--> ESCAPE --[--> CSI -----final byte-----> GROUND
//!                         \--]PX^_--> STRING --BEL, ESC \--> GROUND
//! ```

use std::collections::BTreeSet;

const ESC: u8 = 0x1b;
const BEL: u8 = 0x07;
const CAN: u8 = 0x18;
const SUB: u8 = 0x1a;
const DEL: u8 = 0x7f;

/// A longer sequence or string (a title, a link) is dropped.
const LONGEST: usize = 1024;

/// Modes that a program switches on for itself and off at its end: keys of the cursor, the cursor's sight, the other screen, and
/// pasting.
const MODES: [u16; 6] = [1, 25, 47, 1047, 1049, 2004];

/// The same, of modes in which a terminal writes unasked: the mouse, and focus, which some report as this is switched on. They are
/// not shown again where they come, but once at the end (`reports_on`).
const REPORTS: [u16; 9] = [9, 1000, 1002, 1003, 1004, 1005, 1006, 1015, 1016];

/// Modes that change what is seen, and are not followed: the screen's colours, where the cursor may go, wrapping, blinking, and the
/// cursor's place.
const LOOKS: [u16; 5] = [5, 6, 7, 12, 1048];

/// The one of them that is on at first.
const CURSOR: u16 = 25;

/// Those of the other screen.
const OTHER_SCREEN: [u16; 3] = [47, 1047, 1049];

/// Strings of these numbers may come again: titles and links.
const STRINGS: [&str; 4] = ["0;", "1;", "2;", "8;"];

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
    /// The sequence so far, or a character's first bytes.
    held: Vec<u8>,
    /// The modes that are not as at first.
    modes: BTreeSet<u16>,
    /// Keys of the number pad are sequences.
    keypad: bool,
}

impl Escapes {
    /// Whether no sequence and no character is begun.
    pub(crate) fn is_between(&self) -> bool {
        self.state == State::Ground && self.held.is_empty()
    }

    /// Reads output; nothing is kept of it but the modes.
    pub(crate) fn follow(&mut self, bytes: &[u8]) {
        let mut dropped = Vec::new();
        self.show(bytes, &mut dropped);
    }

    /// The same, and appends what may be shown again.
    pub(crate) fn show(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for byte in bytes {
            self.take(*byte, out);
        }
    }

    /// Whether a program fills the screen, and not one line after the other.
    pub(crate) fn on_other_screen(&self) -> bool {
        OTHER_SCREEN.iter().any(|mode| self.modes.contains(mode))
    }

    /// What brings a terminal as it is at first into these modes, but for those of `reports_on`.
    pub(crate) fn on(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if self.keypad {
            out.extend(b"\x1b=");
        }
        out.extend(self.switches(|mode| !REPORTS.contains(&mode), true));
        out
    }

    /// What has it report the mouse and focus as it should, behind all that is shown again.
    pub(crate) fn reports_on(&self) -> Vec<u8> {
        self.switches(|mode| REPORTS.contains(&mode), true)
    }

    /// What takes it out of them all again; nothing where all is as at first.
    pub(crate) fn off(&self) -> Vec<u8> {
        let mut out = self.switches(|_| true, false);
        if self.keypad {
            out.extend(b"\x1b>");
        }
        if !out.is_empty() {
            out.extend(b"\x1b[0m");
        }
        out
    }

    /// Switches those modes that are not as at first.
    fn switches(&self, which: impl Fn(u16) -> bool, into: bool) -> Vec<u8> {
        let mut out = Vec::new();
        for mode in self.modes.iter().filter(|mode| which(**mode)) {
            let word = if (*mode == CURSOR) == into { 'l' } else { 'h' };
            out.extend(format!("\x1b[?{mode}{word}").bytes());
        }
        out
    }

    /// Takes one byte; appends what is whole by it and may be shown.
    fn take(&mut self, byte: u8, out: &mut Vec<u8>) {
        match (self.state, byte) {
            (State::Ground, _) => self.in_ground(byte, out),
            (_, CAN | SUB) => self.end(),
            (State::String, BEL) => self.string(b"\x07", out),
            (State::String, ESC) => self.state = State::StringEscape,
            (State::StringEscape, b'\\') => self.string(b"\x1b\\", out),
            (State::StringEscape, _) => {
                self.begin();
                self.take(byte, out);
            }
            (State::Escape | State::Csi, ESC) => self.begin(),
            // A terminal would do them and go on.
            (State::Escape | State::Csi, ..=0x1f | DEL) => {}
            (State::Escape | State::Csi, 0x80..) => {
                self.end();
                self.in_ground(byte, out);
            }
            (State::Escape, _) => self.in_escape(byte, out),
            (State::Csi, 0x40..) => self.csi(byte, out),
            (State::Csi | State::String, _) => self.hold(byte),
        }
    }

    fn begin(&mut self) {
        self.held.clear();
        self.state = State::Escape;
    }

    fn end(&mut self) {
        self.held.clear();
        self.state = State::Ground;
    }

    /// One more byte of what is held. Of what is too long no more is, and it is dropped at its end.
    fn hold(&mut self, byte: u8) {
        if self.held.len() <= LONGEST {
            self.held.push(byte);
        }
    }

    fn in_ground(&mut self, byte: u8, out: &mut Vec<u8>) {
        if byte < 0x80 {
            if !self.held.is_empty() {
                self.held.clear();
                push_unknown(out);
            }
            match byte {
                ESC => self.begin(),
                // Backspace to carriage return, and the shifts to the other character set and back.
                0x08..=0x0f | 0x20..=0x7e => out.push(byte),
                _ => {}
            }
            return;
        }
        let begun = !self.held.is_empty();
        self.held.push(byte);
        match std::str::from_utf8(&self.held) {
            Ok(whole) => {
                // C1 controls are sequences to some.
                if !whole.chars().all(char::is_control) {
                    out.extend(&self.held);
                }
                self.held.clear();
            }
            Err(e) if e.error_len().is_none() => {}
            Err(_) => {
                self.held.clear();
                push_unknown(out);
                if begun {
                    self.in_ground(byte, out);
                }
            }
        }
    }

    fn in_escape(&mut self, byte: u8, out: &mut Vec<u8>) {
        match (self.held.as_slice(), byte) {
            ([], b'[') => {
                self.state = State::Csi;
                return;
            }
            ([], b']' | b'P' | b'X' | b'^' | b'_') => {
                // Only the first of them has strings that may come again.
                if byte != b']' {
                    self.hold(byte);
                }
                self.state = State::String;
                return;
            }
            (_, 0x20..=0x2f) => {
                self.hold(byte);
                return;
            }
            ([], b'=' | b'>') => {
                self.keypad = byte == b'=';
                out.extend([ESC, byte]);
            }
            ([], b'c') => {
                self.modes.clear();
                self.keypad = false;
                out.extend([ESC, byte]);
            }
            // The cursor's place, lines, and a tab stop.
            ([], b'7' | b'8' | b'D' | b'E' | b'M' | b'H') => out.extend([ESC, byte]),
            // A character set.
            ([set @ (b'(' | b')' | b'*' | b'+' | b'-' | b'.' | b'/')], _) => {
                out.extend([ESC, *set, byte]);
            }
            _ => {}
        }
        self.end();
    }

    /// A whole control sequence.
    fn csi(&mut self, last: u8, out: &mut Vec<u8>) {
        let held = std::mem::take(&mut self.held);
        self.state = State::Ground;
        if held.len() > LONGEST {
            return;
        }
        let plain = |numbers: &[u8]| numbers.iter().all(|b| matches!(b, b'0'..=b'9' | b';'));
        match (held.as_slice(), last) {
            ([b'?', numbers @ ..], b'h' | b'l') if plain(numbers) => {
                self.switch(numbers, last, out);
                return;
            }
            // A soft reset.
            (b"!", b'p') => {
                self.modes.remove(&1);
                self.modes.remove(&CURSOR);
                self.keypad = false;
            }
            // The cursor's shape.
            ([numbers @ .., b' '], b'q') if plain(numbers) => {}
            // Colours, whose parts may be joined by colons.
            (numbers, b'm') if numbers.iter().all(|b| matches!(b, b'0'..=b';')) => {}
            // Inserting, and not what locks the keyboard or has Enter type more.
            (b"4", b'h' | b'l') => {}
            // With more numbers it is about the mouse.
            (numbers, b'T') if plain(numbers) && !numbers.contains(&b';') => {}
            // The cursor's place, what is erased, inserted, deleted, scrolled and repeated, and tab stops.
            (
                numbers,
                b'@'..=b'M'
                | b'P'
                | b'S'
                | b'X'
                | b'Z'
                | b'`'
                | b'a'
                | b'b'
                | b'd'..=b'g'
                | b'r'
                | b's'
                | b'u',
            ) if plain(numbers) => {}
            _ => return,
        }
        out.extend(b"\x1b[");
        out.extend(held);
        out.push(last);
    }

    /// Switches modes; appends those of them that may come again.
    fn switch(&mut self, numbers: &[u8], last: u8, out: &mut Vec<u8>) {
        let numbers = String::from_utf8_lossy(numbers);
        let mut again = Vec::new();
        for mode in numbers.split(';').filter_map(|n| n.parse().ok()) {
            if MODES.contains(&mode) || REPORTS.contains(&mode) {
                if (last == b'h') == (mode == CURSOR) {
                    self.modes.remove(&mode);
                } else {
                    self.modes.insert(mode);
                }
            }
            if MODES.contains(&mode) || LOOKS.contains(&mode) {
                again.push(mode.to_string());
            }
        }
        if !again.is_empty() {
            out.extend(format!("\x1b[?{}{}", again.join(";"), char::from(last)).bytes());
        }
    }

    /// A whole string.
    fn string(&mut self, ending: &[u8], out: &mut Vec<u8>) {
        let held = std::mem::take(&mut self.held);
        self.state = State::Ground;
        let Ok(text) = std::str::from_utf8(&held) else {
            return;
        };
        let may = STRINGS.iter().any(|number| text.starts_with(number));
        let asks = text.ends_with(";?");
        if may && !asks && text.len() <= LONGEST && !text.contains(char::is_control) {
            out.extend(b"\x1b]");
            out.extend(text.bytes());
            out.extend(ending);
        }
    }
}

/// Where there was no character.
fn push_unknown(out: &mut Vec<u8>) {
    out.extend(char::REPLACEMENT_CHARACTER.to_string().bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
        assert_eq!(String::from_utf8_lossy(&on), "\x1b=\x1b[?25l\x1b[?1049h");
        let reports = escapes.reports_on();
        assert_eq!(String::from_utf8_lossy(&reports), "\x1b[?1000h\x1b[?1006h");
        let off = escapes.off();
        assert_eq!(
            String::from_utf8_lossy(&off),
            "\x1b[?25h\x1b[?1000l\x1b[?1006l\x1b[?1049l\x1b>\x1b[0m"
        );
        // What switches them on and off is read as such.
        let mut other = Escapes::default();
        other.follow(&on);
        other.follow(&reports);
        assert_eq!((other.on(), other.reports_on()), (on, reports));
        other.follow(&off);
        assert!(other.on().is_empty() && other.off().is_empty());
        escapes.follow(b"\x1bc");
        assert!(escapes.off().is_empty() && !escapes.on_other_screen());
    }

    /// Takes one thing off the front that a terminal only draws; written apart from the filter, as a grammar.
    fn drawn(text: &str) -> Option<&str> {
        let mut chars = text.chars();
        let first = chars.next()?;
        let rest = chars.as_str();
        if first != '\x1b' {
            let may = !first.is_control() || "\x08\t\n\x0b\x0c\r\x0e\x0f".contains(first);
            return may.then_some(rest);
        }
        let kind = chars.next()?;
        let rest = chars.as_str();
        match kind {
            '7' | '8' | 'D' | 'E' | 'M' | 'H' | '=' | '>' | 'c' => Some(rest),
            '(' | ')' | '*' | '+' | '-' | '.' | '/' => {
                let set = chars.next()?;
                ('0'..='~').contains(&set).then_some(chars.as_str())
            }
            ']' => {
                let end = rest.find(char::is_control)?;
                let (body, rest) = rest.split_at(end);
                assert!(["0;", "1;", "2;", "8;"].iter().any(|n| body.starts_with(n)));
                let ended = rest.strip_prefix('\x07');
                ended.or_else(|| rest.strip_prefix("\x1b\\"))
            }
            '[' => {
                let end = rest.find(|c: char| !(' '..='?').contains(&c))?;
                let (inner, rest) = rest.split_at(end);
                let last = rest.chars().next()?;
                let numbers = |s: &str| s.chars().all(|c| c.is_ascii_digit() || c == ';');
                let may = match last {
                    'h' | 'l' if inner == "4" => true,
                    'h' | 'l' => inner.strip_prefix('?').is_some_and(|modes| {
                        let known = [1, 5, 6, 7, 12, 25, 47, 1047, 1048, 1049, 2004];
                        modes
                            .split(';')
                            .all(|m| known.contains(&m.parse().unwrap()))
                    }),
                    'm' => numbers(&inner.replace(':', ";")),
                    'p' => inner == "!",
                    'q' => inner.strip_suffix(' ').is_some_and(numbers),
                    'T' => numbers(inner) && !inner.contains(';'),
                    c => "@ABCDEFGHIJKLMPSXZ`abdefgrsu".contains(c) && numbers(inner),
                };
                may.then(|| &rest[last.len_utf8()..])
            }
            _ => None,
        }
    }

    fn is_only_drawn(bytes: &[u8]) -> bool {
        let Ok(mut text) = std::str::from_utf8(bytes) else {
            return false;
        };
        while !text.is_empty() {
            let Some(rest) = drawn(text) else {
                return false;
            };
            text = rest;
        }
        true
    }

    /// Each has some terminal write, ring, print, or do something else than draw.
    const QUESTIONS: [&[u8]; 34] = [
        b"\x1b\x07[6n",
        b"\x1b\x07P$qm\x1b\\",
        b"\x1b\x7f[6n",
        b"\x1b\x00]11;?\x07",
        b"\x1b[\x076n",
        b"\x9b6n",
        b"\x9d11;?\x07",
        b"\x90$qm\x9c",
        b"\x9a",
        b"\xc2\x9b6n",
        b"\xc2\x9d11;?\x07",
        b"\xc2\x90$qm\xc2\x9c",
        b"\xc2\x9a",
        b"\x1b[x",
        b"\x1b[?4m",
        b"\x1b[?1g",
        b"\x1b[1$w",
        b"\x1b[1$u",
        b"\x1b[&u",
        b"\x1b[\"v",
        b"\x1b['|",
        b"\x1b[#R",
        b"\x1b[#|",
        b"\x1b[1;1;1;1;1;1*y",
        b"\x1b[?1;1;0S",
        b"\x1b[5i",
        b"\x1b[?5i",
        b"\x05",
        b"\x1b[?1004h",
        b"\x1b[?1000;1006h",
        b"\x1b[?1049r",
        b"\x1b[1;2;3;4;5T",
        b"\x1b]2;?\x07",
        b"\x1b]0;a\xc2\x9c\x07",
    ];

    #[test]
    fn no_question_comes_again_however_it_is_written() {
        for question in QUESTIONS {
            for piece in [1, 2, 3, 1000] {
                let (mut escapes, mut out) = (Escapes::default(), Vec::new());
                for bytes in question.chunks(piece) {
                    escapes.show(bytes, &mut out);
                }
                let text = question.escape_ascii();
                // What is left of one that a terminal might read otherwise is text.
                assert!(is_only_drawn(&out), "{text}: {}", out.escape_ascii());
                assert!(!out.contains(&ESC), "{text}: {}", out.escape_ascii());
            }
        }
    }

    #[test]
    fn the_mouse_and_focus_are_switched_on_once_at_the_end() {
        let mut escapes = Escapes::default();
        let mut out = Vec::new();
        escapes.show(b"\x1b[?1000;25;1004l\x1b[?1002;2004;1004hx", &mut out);
        assert_eq!(out, b"\x1b[?25l\x1b[?2004hx");
        assert_eq!(escapes.on(), b"\x1b[?25l\x1b[?2004h");
        assert_eq!(escapes.reports_on(), b"\x1b[?1002h\x1b[?1004h");
    }

    fn pieces() -> impl Strategy<Value = Vec<u8>> {
        let some = proptest::sample::select(vec![
            &b"\x1b"[..],
            b"\x1b[",
            b"\x1b]",
            b"\x1bP",
            b"\x1b\\",
            b"\x07",
            b"\x18",
            b"?",
            b"$",
            b";",
            b"6n",
            b"h",
            b"1049",
            b"1004",
            b"0;",
            b"8;;",
            b"m",
            b" q",
            b"!p",
            b"c",
            b"(",
            b"\xc2",
            b"\x9b",
            b"\x9c",
            b"\xc4\x9b",
            b"\x7f",
            b"\0",
            b"T",
        ]);
        let piece = prop_oneof![
            some.prop_map(<[u8]>::to_vec),
            proptest::sample::select(QUESTIONS.to_vec()).prop_map(<[u8]>::to_vec),
            proptest::collection::vec(any::<u8>(), 0..4),
        ];
        proptest::collection::vec(piece, 0..40).prop_map(|all| all.concat())
    }

    proptest! {
        #[test]
        fn whatever_there_was_is_only_drawn_and_comes_again_as_it_is(
            output in pieces(),
            cut in 0_usize..200,
        ) {
            let (mut escapes, mut out) = (Escapes::default(), Vec::new());
            let (first, second) = output.split_at(cut.min(output.len()));
            escapes.show(first, &mut out);
            escapes.show(second, &mut out);
            prop_assert!(is_only_drawn(&out), "{}", out.escape_ascii());
            let mut again = Vec::new();
            Escapes::default().show(&out, &mut again);
            prop_assert_eq!(out, again);
        }
    }
}
