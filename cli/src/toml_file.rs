//! What the configuration files have in common: an error names its line, and what was meant.
//!
//! TOML's own errors say what was expected. A person who left out quotes or brackets, or misspelt a key, is told the line
//! as it should stand.

use std::ops::Range;

use cepa::transports::endpoint::hidden;

use crate::words::nearest;

/// The number of the line around a byte, from 1.
pub(crate) fn line_number(text: &str, at: usize) -> usize {
    let before = text.get(..at).unwrap_or_default();
    before.matches('\n').count() + 1
}

/// The line around a byte.
fn line_at(text: &str, at: usize) -> Option<&str> {
    let from = text.get(..at)?.rfind('\n').map_or(0, |end| end + 1);
    text.get(from..)?.lines().next()
}

/// An error of TOML with what was meant, and the place that it is about. No secret of the line is shown.
pub(crate) fn explained(text: &str, e: &toml::de::Error) -> (Option<Range<usize>>, String) {
    let (at, why) = with_line(text, e);
    (at, hidden(&why))
}

fn with_line(text: &str, e: &toml::de::Error) -> (Option<Range<usize>>, String) {
    let at = e.span();
    let message = e.message();
    if let Some(key) = key_meant(message) {
        return (at, format!("{message}; did you mean `{key}`?"));
    }
    let line = at.as_ref().and_then(|at| line_at(text, at.start));
    match line.and_then(|line| as_meant(line, message)) {
        Some(meant) => (at, format!("{message}: write {meant}")),
        None => (at, message.to_owned()),
    }
}

/// Of the keys that an error lists behind the unknown one, the nearest to that.
fn key_meant(message: &str) -> Option<&str> {
    let rest = message.strip_prefix("unknown field `")?;
    let (found, rest) = rest.split_once('`')?;
    // Every second piece stands between backquotes.
    let keys = rest.split('`').skip(1).step_by(2);
    nearest(found, keys)
}

/// Keys whose values are lists.
const LISTS: [&str; 4] = ["listen", "register", "allow", "introducers"];

/// The line as it should have been, where a word has no quotes or stands outside of a list.
fn as_meant(line: &str, message: &str) -> Option<String> {
    let (key, value) = line.split_once('=')?;
    let (key, value) = (key.trim(), value.trim());
    let plain = |c: char| c.is_alphanumeric() || c == '@';
    let bare = value.starts_with(plain)
        && !matches!(value, "true" | "false")
        && !value.starts_with(|c: char| c.is_ascii_digit());
    let listless = message.contains("expected a sequence") && value.starts_with('"');
    let word = match (bare, listless) {
        (true, _) => format!("{:?}", value.split(" #").next().unwrap_or(value).trim()),
        (_, true) => value.split(" #").next().unwrap_or(value).trim().to_owned(),
        _ => return None,
    };
    Some(if LISTS.contains(&key) {
        format!("{key} = [{word}]")
    } else {
        format!("{key} = {word}")
    })
}
