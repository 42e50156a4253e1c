//! The command line of `exec:`, split into words as a POSIX shell splits it (IEEE Std 1003.1-2024, section 2.2
//! "Quoting"): backslashes, single quotes, double quotes, and dollar-single-quotes (`$'…'`), which write any byte
//! as an escape. No shell runs and nothing is expanded, so outside of `$'…'` a dollar sign is a plain character.
//!
//! The words end where the option list of the address begins; see the grammar in `mod.rs`.
use super::keys::keys_of;
use super::options::{Wrong, wrong};

/// The words, and the byte offset where the option list begins (or the text ends).
pub(super) fn split(text: &str, start: usize) -> Result<(Vec<String>, usize), Wrong> {
    let mut words = Words {
        text,
        start,
        at: 0,
        done: Vec::new(),
        word: None,
    };
    let end = words.read()?;
    words.end_word()?;
    Ok((words.done, end))
}

struct Words<'a> {
    text: &'a str,
    /// Where the text begins in the address.
    start: usize,
    /// What was read of the text, in bytes.
    at: usize,
    done: Vec<String>,
    /// The word that has begun, and where; bytes, since an escape stands for one.
    word: Option<(usize, Vec<u8>)>,
}

impl Words<'_> {
    fn read(&mut self) -> Result<usize, Wrong> {
        loop {
            let at = self.at;
            let Some(c) = self.next() else {
                return Ok(at);
            };
            match c {
                ' ' | '\t' | '\n' => self.end_word()?,
                '\\' => match self.next() {
                    None => return wrong(self.start + at, "a character after the backslash"),
                    // A line goes on.
                    Some('\n') => {}
                    Some(c) => self.push(at, c),
                },
                '\'' => self.single(at)?,
                '"' => self.double(at)?,
                '$' if self.rest().starts_with('\'') => {
                    self.next();
                    self.escaped(at)?;
                }
                // A shell would take it for a comment and drop the rest without a word.
                '#' if self.word.is_none() => {
                    return wrong(
                        self.start + at,
                        "no \"#\" at the start of a word unless it is quoted",
                    );
                }
                ',' | '?' if self.options_begin() => return Ok(at),
                c => self.push(at, c),
            }
        }
    }

    /// Whether what follows a comma or a question mark is one of the keys and a `=`.
    fn options_begin(&self) -> bool {
        let begins =
            |key: &&str| matches!(self.rest().strip_prefix(*key), Some(r) if r.starts_with('='));
        keys_of("exec").iter().any(begins)
    }

    /// `'…'`: everything is literal.
    fn single(&mut self, at: usize) -> Result<(), Wrong> {
        self.begin(at);
        loop {
            match self.next() {
                None => return self.open(at),
                Some('\'') => return Ok(()),
                Some(c) => self.push(at, c),
            }
        }
    }

    /// `"…"`: a backslash quotes what would be special there, and is literal before anything else.
    fn double(&mut self, at: usize) -> Result<(), Wrong> {
        self.begin(at);
        loop {
            match self.next() {
                None => return self.open(at),
                Some('"') => return Ok(()),
                Some('\\') => match self.next() {
                    None => return self.open(at),
                    Some('\n') => {}
                    Some(c) => {
                        if !matches!(c, '$' | '`' | '"' | '\\') {
                            self.push(at, '\\');
                        }
                        self.push(at, c);
                    }
                },
                Some(c) => self.push(at, c),
            }
        }
    }

    /// `$'…'`: a backslash begins an escape.
    fn escaped(&mut self, at: usize) -> Result<(), Wrong> {
        self.begin(at);
        loop {
            let here = self.at;
            match self.next() {
                None => return self.open(at),
                Some('\'') => return Ok(()),
                Some('\\') => {
                    let byte = self.escape(here)?;
                    self.begin(at).push(byte);
                }
                Some(c) => self.push(at, c),
            }
        }
    }

    /// What stands behind the backslash at `at`.
    fn escape(&mut self, at: usize) -> Result<u8, Wrong> {
        let byte = match self.next() {
            Some('a') => 0x07,
            Some('b') => 0x08,
            Some('e') => 0x1b,
            Some('f') => 0x0c,
            Some('n') => b'\n',
            Some('r') => b'\r',
            Some('t') => b'\t',
            Some('v') => 0x0b,
            Some('\\') => b'\\',
            Some('\'') => b'\'',
            Some('"') => b'"',
            Some('x') => {
                let digit = |c: Option<char>| c.and_then(|c| c.to_digit(16));
                let (high, low) = (digit(self.next()), digit(self.next()));
                match (high, low) {
                    (Some(0), Some(0)) => return wrong(self.start + at, "no NUL byte"),
                    // Both are below 16, so this fits.
                    (Some(high), Some(low)) => u8::try_from(high * 16 + low).unwrap_or(0),
                    _ => return wrong(self.start + at, "two hex digits after \"\\x\""),
                }
            }
            _ => {
                return wrong(
                    self.start + at,
                    "one of the escapes \\\\ \\' \\\" \\a \\b \\e \\f \\n \\r \\t \\v \\xHH",
                );
            }
        };
        Ok(byte)
    }

    fn open<T>(&self, at: usize) -> Result<T, Wrong> {
        wrong(self.start + at, "the quote that begins here to be closed")
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest().chars().next()?;
        self.at += c.len_utf8();
        Some(c)
    }

    /// The word that has begun, if need be at `at`.
    fn begin(&mut self, at: usize) -> &mut Vec<u8> {
        &mut self.word.get_or_insert_with(|| (at, Vec::new())).1
    }

    fn push(&mut self, at: usize, c: char) {
        let mut utf8 = [0; 4];
        let bytes = c.encode_utf8(&mut utf8).as_bytes();
        self.begin(at).extend_from_slice(bytes);
    }

    fn end_word(&mut self) -> Result<(), Wrong> {
        let Some((at, bytes)) = self.word.take() else {
            return Ok(());
        };
        match String::from_utf8(bytes) {
            Ok(word) => self.done.push(word),
            Err(_) => return wrong(self.start + at, "a word in UTF-8"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(text: &str) -> Vec<String> {
        split(text, 0).map_or_else(|w| panic!("{}", w.expected), |(words, _)| words)
    }

    #[test]
    fn dollar_quotes_write_any_byte() {
        assert_eq!(words(r"$'\x1b[2J' b"), ["\u{1b}[2J", "b"]);
        assert_eq!(words(r"a$'\xe2\x80\xae'b"), ["a\u{202e}b"]);
        assert_eq!(
            words(r#"$'\a\b\e\f\n\r\t\v\\\'\"x'"#),
            ["\u{7}\u{8}\u{1b}\u{c}\n\r\t\u{b}\\'\"x"]
        );
        assert_eq!(words("$''"), [""]);
        assert_eq!(words("$a $ '$'"), ["$a", "$", "$"], "nothing is expanded");
        assert_eq!(words(r#""$'a'""#), ["$'a'"], "not inside of quotes");
    }

    #[test]
    fn wrong_escapes_are_pointed_at() {
        for (text, at, expected) in [
            (r"$'\x00'", 2, "NUL"),
            (r"$'\x1'", 2, "two hex digits"),
            (r"$'\q'", 2, "one of the escapes"),
            (r"a $'\xff'", 2, "UTF-8"),
            (r"$'a\'", 0, "closed"),
            ("$'a", 0, "closed"),
        ] {
            let wrong = split(text, 0).map(|_| ()).unwrap_err();
            assert_eq!(wrong.at, at, "{text}");
            assert!(wrong.expected.contains(expected), "{}", wrong.expected);
        }
    }

    proptest! {
        /// The crate knows no dollar quotes, no options, and drops comments.
        #[test]
        fn words_are_those_of_another_splitter(text in r#"[ab=\\'" \t$%é]{0,16}"#) {
            prop_assume!(!text.contains("$'"));
            let ours = split(&text, 0).ok().map(|(words, _)| words);
            prop_assert_eq!(ours, shlex::split(&text));
        }
    }
}
