//! Foreign text on its way to a person: what a peer, a command, a file or an address brought may stand in a message
//! or a log line, and must do nothing there but be read.
//!
//! A terminal obeys control characters: ESC and the C1 controls move the cursor, change colours, rename windows.
//! Marks of writing direction show `exe.txt` where `txt.exe` stands, line separators forge a second line,
//! and characters without any width make two names look like one. So there is one rule for all of them,
//! [`is_printable`], and one function that applies it, [`clean`]. It is to be called where foreign text enters a
//! message, and changes nothing when it is called again on the way.
use std::borrow::Cow;

/// Whether a character does nothing on a terminal but show itself. These do not:
///
/// - control characters: C0 (U+0000 to U+001F), DEL and C1 (U+0080 to U+009F), Unicode's category Cc;
/// - line and paragraph separators (Zl, Zp);
/// - what Unicode calls `Default_Ignorable_Code_Point` (UAX #44, `DerivedCoreProperties.txt` 16.0), which has no
///   shape of its own: marks, embeddings, overrides and isolates of direction, zero-width spaces and joiners, the
///   byte order mark, soft hyphens, fillers, variation selectors, tags;
/// - interlinear annotations (U+FFF9 to U+FFFB).
#[must_use]
pub fn is_printable(c: char) -> bool {
    !(c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'))
}

/// The text as one line that is fit to be shown, of at most `most` bytes: line ends and tabs become spaces, white
/// space at the end is dropped, and each other character that is not [printable](is_printable) is written as
/// its escape (`\u{1b}`). What is longer is cut between two characters, and ends in `…`.
///
/// Text that is clean, and short enough, is borrowed as it is; so cleaning twice is cleaning once.
#[must_use]
pub fn clean(text: &str, most: usize) -> Cow<'_, str> {
    let text = text.trim_end();
    if text.len() <= most && text.chars().all(is_printable) {
        return Cow::Borrowed(text);
    }
    let mut out = String::new();
    // How long `out` is where the mark of a cut would still fit behind it.
    let mut fits = 0;
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => out.push(' '),
            c if is_printable(c) => out.push(c),
            c => out.extend(c.escape_unicode()),
        }
        if out.len() > most {
            out.truncate(fits);
            if most >= CUT.len() {
                out.push_str(CUT);
            }
            break;
        }
        if out.len() + CUT.len() <= most {
            fits = out.len();
        }
    }
    Cow::Owned(out)
}

/// Foreign words in quotation marks, to stand within a sentence: as [`clean`], but white space, quotation marks and
/// backslashes are written as escapes too, so that the end of the words can be told. At most [`QUOTED`] bytes.
#[must_use]
pub fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        let before = out.len();
        match c {
            '"' | '\\' | '\n' | '\r' | '\t' => out.extend(c.escape_default()),
            c if is_printable(c) => out.push(c),
            c => out.extend(c.escape_unicode()),
        }
        if out.len() + CUT.len() + 1 > QUOTED {
            out.truncate(before);
            out.push_str(CUT);
            break;
        }
    }
    out.push('"');
    out
}

/// The most bytes of [`quoted`]: a service's longest name fits, if nothing in it is escaped.
pub const QUOTED: usize = 264;

/// The bytes of a text in which `%XX` stands for one byte (RFC 3986, section 2.1).
///
/// # Errors
/// Where a `%` stands that no two hex digits follow, in bytes.
pub fn percent_decode(text: &str) -> Result<Vec<u8>, usize> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut next = || bytes.next().and_then(|(_, byte)| digit(byte));
        let (high, low) = next().zip(next()).ok_or(at)?;
        // Both are below 16, so this fits.
        out.push(u8::try_from(high * 16 + low).unwrap_or(0));
    }
    Ok(out)
}

/// Stands at the end of a text that was cut.
const CUT: &str = "…";

/// Characters that would do something to whoever reads them, for tests of every way out. Each is named.
#[cfg(any(test, feature = "testkit"))]
pub const HOSTILE: &[(&str, char)] = &[
    ("NUL", '\0'),
    ("BEL", '\u{7}'),
    ("BS", '\u{8}'),
    ("LF", '\n'),
    ("CR", '\r'),
    ("ESC", '\u{1b}'),
    ("DEL", '\u{7f}'),
    ("NEL", '\u{85}'),
    ("CSI", '\u{9b}'),
    ("soft hyphen", '\u{ad}'),
    ("Arabic letter mark", '\u{61c}'),
    ("zero-width space", '\u{200b}'),
    ("zero-width joiner", '\u{200d}'),
    ("right-to-left mark", '\u{200f}'),
    ("line separator", '\u{2028}'),
    ("paragraph separator", '\u{2029}'),
    ("right-to-left override", '\u{202e}'),
    ("word joiner", '\u{2060}'),
    ("left-to-right isolate", '\u{2066}'),
    ("Hangul filler", '\u{3164}'),
    ("byte order mark", '\u{feff}'),
    ("tag", '\u{e0041}'),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_hostile_character_is_left() {
        for (name, c) in HOSTILE {
            assert!(!is_printable(*c), "{name}");
            let shown = clean(&format!("a{c}b"), 100).into_owned();
            assert!(shown.chars().all(is_printable), "{name}: {shown:?}");
            assert!(shown.starts_with('a') && shown.ends_with('b'), "{shown}");
            assert!(shown.len() > 2, "{name} left no trace");
        }
    }

    #[test]
    fn text_stays_as_it_is() {
        for text in [
            "",
            "zwölf",
            "日本",
            "שלום",
            "a\u{301}",
            "100 % \\ \"x\"",
            "🧅",
        ] {
            assert!(matches!(clean(text, 100), Cow::Borrowed(same) if same == text));
        }
        assert_eq!(clean("login:\r\nroot\n", 100), "login:  root");
        assert_eq!(clean("\u{1b}[2Jhi", 100), "\\u{1b}[2Jhi");
    }

    #[test]
    fn a_cut_is_between_two_characters_and_shows() {
        assert_eq!(clean("abcdef", 6), "abcdef");
        assert_eq!(clean("abcdef", 5), "ab…");
        assert_eq!(clean("ääää", 7), "ää…");
        assert_eq!(clean("ääää", 6), "ä…");
        assert_eq!(clean("abcdef", 3), "…");
        assert_eq!(clean("abcdef", 2), "");
        assert_eq!(clean("abcdef", 0), "");
        // An escape is not cut in two.
        assert_eq!(clean("a\u{1b}bcd", 9), "a…");
        assert_eq!(clean("a\u{1b}bcd", 10), "a\\u{1b}bcd");
        assert_eq!(clean("a\u{1b}bcde", 10), "a\\u{1b}…");
    }

    #[test]
    fn quoted_words_end_where_they_end() {
        assert_eq!(quoted("db"), r#""db""#);
        assert_eq!(quoted(""), r#""""#);
        assert_eq!(quoted("a\" \\\n\u{1b}"), r#""a\" \\\n\u{1b}""#);
        assert_eq!(quoted("zwölf"), r#""zwölf""#);
        assert_eq!(quoted(&"x".repeat(255)).len(), 257);
        let long = quoted(&"x".repeat(1000));
        assert!(long.len() <= QUOTED && long.ends_with("…\""), "{long}");
    }

    proptest! {
        #[test]
        fn whatever_comes_is_bounded_and_printable_and_clean_is_clean(text in any::<String>(), most in 0..60_usize) {
            let once = clean(&text, most);
            prop_assert!(once.len() <= most);
            prop_assert!(once.chars().all(is_printable));
            prop_assert!(matches!(clean(&once, most), Cow::Borrowed(same) if same == once.trim_end()));
            let quoted = quoted(&text);
            prop_assert!(quoted.len() <= QUOTED && quoted.chars().all(is_printable));
        }
    }
}
