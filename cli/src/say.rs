//! A line that the tool says on standard error: as text, or with `--log-format json` as one JSON object; with the time in
//! front where a server's log goes to a file.
//!
//! All lines come through [`say`], so the form is decided here alone. What a peer, a child or an address wrote may be part
//! of a line; it is cleaned ([`clean`]), and so does nothing to a terminal in either form.
//!
//! As text a line is what it always was. In front of it stands the time where a command serves for long and standard error is
//! no terminal ([`stamp`]), but not where scripts read the line: at `listening on …` and `cepa: …` ([`Line::bare`]).

use std::fmt::{self, Display, Write as _};
use std::io::{self, IsTerminal as _};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cepa::transports::endpoint::{hidden, hidden_proxy};
use cepa::transports::text::{clean, is_printable};
use serde_json::{Map, Value};
use time::OffsetDateTime;

use crate::stderr;

/// Most bytes of a line: the longest that a child may write, or that a peer's address has, with room for escapes.
const LINE: usize = 16 * 1024;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Info,
    Warn,
    Error,
}

/// So much of an id stands for it ([`PeerId::short`](cepa::identity::PeerId::short)).
const SHORT: usize = 12;

/// What such lines begin with, as text.
const WARNING: &str = "warning: ";

/// One line, and what a program would want to know of it without reading its text.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    text: String,
    level: Level,
    fields: Vec<(&'static str, Value)>,
    bare: bool,
    /// An id in the text, and what a person reads in its place.
    called: Option<(String, String)>,
    asked: bool,
}

impl<T: Display> From<T> for Line {
    fn from(text: T) -> Self {
        let text = text.to_string();
        let level = if text.starts_with(WARNING) {
            Level::Warn
        } else {
            Level::Info
        };
        Self {
            text,
            level,
            fields: Vec::new(),
            bare: false,
            called: None,
            asked: false,
        }
    }
}

impl Line {
    /// With a field, unless it has one of that name. Only JSON shows it.
    pub(crate) fn with(self, name: &'static str, value: impl Display) -> Self {
        self.field(name, value.to_string().into())
    }

    /// The same with a number, which JSON has as one.
    pub(crate) fn number(self, name: &'static str, value: impl Into<serde_json::Number>) -> Self {
        self.field(name, Value::Number(value.into()))
    }

    /// The same with a time in seconds, to the millisecond.
    pub(crate) fn seconds(self, name: &'static str, time: Duration) -> Self {
        self.field(name, ((time.as_secs_f64() * 1e3).round() / 1e3).into())
    }

    fn field(mut self, name: &'static str, value: Value) -> Self {
        if self.fields.iter().all(|(other, _)| *other != name) {
            self.fields.push((name, value));
        }
        self
    }

    /// The same with another text.
    pub(crate) fn saying(mut self, text: &str) -> Self {
        text.clone_into(&mut self.text);
        self
    }

    /// With `name` where the text has `id`. JSON keeps that, and so does a warning: somebody may have to type it.
    pub(crate) fn calling(mut self, id: &impl Display, name: String) -> Self {
        if self.level == Level::Info {
            self.called = Some((id.to_string(), name));
        }
        self
    }

    /// Something failed, and the command goes on.
    pub(crate) fn of_error(mut self) -> Self {
        self.level = Level::Error;
        self
    }

    /// The end of a command that failed, with its exit code.
    pub(crate) fn error(mut self, exit_code: u8) -> Self {
        self.level = Level::Error;
        self.fields.push(("exit_code", exit_code.into()));
        self
    }

    /// Without the time in front of its text, for a script that reads it.
    pub(crate) fn bare(mut self) -> Self {
        self.bare = true;
        self
    }

    /// Also where lines that only inform are left out: a command's own, or what somebody has asked for with a key.
    pub(crate) fn asked_for(mut self) -> Self {
        self.asked = true;
        self
    }

    fn json(self) -> String {
        let level = match self.level {
            Level::Info => "INFO",
            Level::Warn => "WARN",
            Level::Error => "ERROR",
        };
        json(level, &self.text, self.fields)
    }

    fn text(self, stamped: bool) -> String {
        let text = match &self.called {
            Some((id, name)) if self.text.contains(id) => &self.text.replace(id, name),
            Some((id, name)) => {
                let short: String = id.chars().take(SHORT).chain(['…']).collect();
                &self.text.replace(&short, name)
            }
            None => &self.text,
        };
        let text = clean(text, LINE);
        if stamped && !self.bare {
            format!("{Now} {text}")
        } else {
            text.into_owned()
        }
    }
}

/// Whether lines are JSON, and whether text has the time in front.
static JSON: AtomicBool = AtomicBool::new(false);
static STAMPED: AtomicBool = AtomicBool::new(false);

/// Whether lines that only inform are left out.
static QUIET: AtomicBool = AtomicBool::new(false);

/// Whether there are colours, where somebody has said so.
static COLOURS: OnceLock<bool> = OnceLock::new();

/// From now on lines are JSON.
pub(crate) fn use_json() {
    JSON.store(true, Ordering::Relaxed);
    let _ = stderr::NOTES.set(|note| json("WARN", note, []));
}

pub(crate) fn is_json() -> bool {
    JSON.load(Ordering::Relaxed)
}

/// From now on text has the time in front, unless a person reads it at a terminal.
pub(crate) fn stamp() {
    STAMPED.store(!io::stderr().is_terminal(), Ordering::Relaxed);
}

/// From now on only warnings and errors are said.
pub(crate) fn be_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

/// Has colours on standard error, or has none, whatever it is.
pub(crate) fn colour(yes: bool) {
    let _ = COLOURS.set(yes);
}

/// Whether standard error has colours: as [`colour`] says; else on a terminal that knows them, unless `NO_COLOR` is set to
/// anything (no-color.org).
pub(crate) fn has_colours() -> bool {
    COLOURS.get().copied().unwrap_or_else(|| {
        io::stderr().is_terminal()
            && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|value| value != "dumb")
    })
}

/// Whether a person sits at a terminal that can show a status line, and wants to read more than errors.
pub(crate) fn has_status_line() -> bool {
    io::stderr().is_terminal()
        && !is_json()
        && !QUIET.load(Ordering::Relaxed)
        && std::env::var_os("TERM").is_none_or(|value| value != "dumb")
}

/// One line on standard error, soon; see [`stderr`].
pub(crate) fn say(line: impl Into<Line>) {
    say_together("", [line.into()]);
}

/// Lines that nothing else comes between, as they go in one write, behind what takes the cursor to its place.
pub(crate) fn say_together(before: &str, lines: impl IntoIterator<Item = Line>) {
    let form = |line: Line| {
        if line.level == Level::Info && !line.asked && QUIET.load(Ordering::Relaxed) {
            None
        } else if is_json() {
            Some(line.json())
        } else {
            Some(line.text(STAMPED.load(Ordering::Relaxed)))
        }
    };
    let lines: Vec<String> = lines.into_iter().filter_map(form).collect();
    if !lines.is_empty() {
        put(format!("{before}{}", lines.join("\n")));
    }
}

/// A ticket or a code in a line: whole on a terminal, from where it is pasted; elsewhere a word for it, because a log is kept and read
/// by others. Standard output has it in any case.
pub(crate) fn on_screen<'a>(secret: &'a str, word: &'a str) -> &'a str {
    if io::stderr().is_terminal() {
        secret
    } else {
        word
    }
}

/// Writes a line that has its form.
pub(crate) fn put(mut line: String) {
    line.push('\n');
    stderr::write(line.into_bytes());
}

/// The time by the clock, in UTC, as RFC 3339 has it.
pub(crate) struct Now;

impl Display for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let now = OffsetDateTime::now_utc();
        let (hour, minute, second, milli) = now.to_hms_milli();
        write!(
            f,
            "{:04}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z",
            now.year(),
            u8::from(now.month()),
            now.day()
        )
    }
}

/// One JSON object: `time`, `level`, `message`, and the fields, of which none can take the place of those.
pub(crate) fn json(
    level: &str,
    message: &str,
    fields: impl IntoIterator<Item = (&'static str, Value)>,
) -> String {
    let mut object = Map::new();
    object.insert("time".to_owned(), Now.to_string().into());
    object.insert("level".to_owned(), level.into());
    object.insert("message".to_owned(), clean(message, LINE).into());
    for (name, value) in fields {
        let value = match value {
            Value::String(text) => clean(&text, LINE).into(),
            value => value,
        };
        object.entry(name).or_insert(value);
    }
    safe_json(&Value::Object(object).to_string())
}

/// JSON in which what a terminal would obey stands as an escape; there is none outside of strings but line ends.
pub(crate) fn safe_json(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if c == '\n' || is_printable(c) {
            text.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(text, "\\u{unit:04x}");
            }
        }
    }
    text
}

/// The command line of this process as a shell would take it, with two more words.
///
/// The words go before a `--`, behind which they would be read as addresses; and right behind the name of `exec`, whose program takes
/// all that follows it.
pub(crate) fn command_with(option: &str, value: &str) -> String {
    let mut words: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|a| a.to_string_lossy().into_owned())
        .collect();
    let at = match words.iter().position(|w| !w.starts_with('-')) {
        Some(at) if words.get(at).is_some_and(|w| w == "exec") => at + 1,
        _ => words.iter().position(|w| w == "--").unwrap_or(words.len()),
    };
    words.splice(at..at, [option.to_owned(), value.to_owned()]);
    shown(&words)
}

/// The command line with these words, to be run again: a secret in them is hidden, and what to put there is said.
fn shown(words: &[String]) -> String {
    let mut line = String::from("cepa");
    let (mut before, mut hides) = ("", false);
    for word in words {
        let shown = match before {
            "--proxy" => hidden_proxy(word),
            _ => hidden(word),
        };
        hides |= shown != *word;
        before = word;
        line.push(' ');
        line.push_str(&quoted(&shown));
    }
    if hides {
        line.push_str(SECRETS);
    }
    line
}

/// Behind a command line with `***` in it.
pub(crate) const SECRETS: &str = " (put your own secret in where *** stands)";

/// One word in the quotes that a POSIX shell needs, and none where it needs none.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=:/.,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use cepa_transports::text::HOSTILE;

    use super::*;

    #[test]
    fn a_command_to_run_again_hides_its_secrets_and_says_so() {
        let line =
            |words: &[&str]| shown(&words.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(
            line(&["serve", "tcp:[::]:1", "--service", "a=tcp:1"]),
            "cepa serve 'tcp:[::]:1' --service a=tcp:1"
        );
        for (words, hidden) in [
            (
                ["--proxy", "http://me:pw@p:1", "connect", "tcp:h:1"],
                "cepa --proxy 'http://me:***@p:1' connect tcp:h:1",
            ),
            (
                ["serve", "tcp:h:1", "--service", "wx=ws:h:1/,header=A:pw"],
                "cepa serve tcp:h:1 --service 'wx=ws:h:1/,header=A:***'",
            ),
            (
                [
                    "connect",
                    "tcp:h:1,proxy=http://me:pw@p:1",
                    "--proxy",
                    "me:p/w@x",
                ],
                "cepa connect 'tcp:h:1,proxy=http://me:***@p:1' --proxy 'me:***@x'",
            ),
        ] {
            assert_eq!(line(&words), format!("{hidden}{SECRETS}"));
        }
    }

    #[test]
    fn json_means_the_same_and_does_nothing_to_a_terminal() {
        let all: String = HOSTILE.iter().map(|(_, c)| c).collect();
        let value = serde_json::json!({ "a": all, &all: [1] });
        let text = safe_json(&format!("{value:#}\n"));
        assert!(text.chars().all(|c| c == '\n' || is_printable(c)), "{text}");
        let again: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(again, value);
    }

    #[test]
    fn a_line_is_text_or_one_object_and_clean_in_either_form() {
        for (name, c) in HOSTILE {
            let line = || Line::from(format!("warning: a{c}b")).with("peer", format!("p{c}"));
            let text = line().text(false);
            assert!(text.starts_with("warning: a"), "{text}");
            let json = line().json();
            assert!(text.chars().chain(json.chars()).all(is_printable), "{name}");
            let object: Value = serde_json::from_str(&json).unwrap();
            assert_eq!(object["level"], "WARN");
            assert!(object["peer"].as_str().unwrap().starts_with('p'));
        }
    }

    #[test]
    fn a_field_replaces_nothing_and_the_first_of_its_name_counts() {
        let line = Line::from("m").with("time", 1).number("a", 1).with("a", 2);
        let line = line.seconds("b", Duration::from_micros(1_234_567));
        let object: Value = serde_json::from_str(&line.error(5).json()).unwrap();
        assert_eq!((&object["a"], &object["exit_code"]), (&1.into(), &5.into()));
        assert_eq!(object["b"], 1.235);
        assert_eq!(object["level"], "ERROR");
        assert!(object["time"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn the_time_is_in_front_of_a_line_but_of_a_bare_one() {
        let stamped = Line::from("a b").text(true);
        let (time, rest) = stamped.split_once(' ').unwrap();
        assert_eq!(
            (time.len(), rest),
            ("2026-01-02T03:04:05.678Z".len(), "a b")
        );
        assert_eq!(Line::from("a b").bare().text(true), "a b");
    }
}
