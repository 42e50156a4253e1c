//! What a console says of itself: its help, and what becomes of the session or the command while nobody is there.

use std::time::Duration;

use cepa::transports::OutLine;

use crate::keep::in_words;

/// What becomes of a console when somebody leaves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stays {
    Ends,
    Kept,
    /// It is somebody else's.
    Watched,
}

/// The text of `~?`, with the escape character as it is.
pub(super) fn help(escape: &str, stays: Stays) -> Vec<String> {
    let leave = match stays {
        Stays::Ends => "leave; a command in a terminal on the other end gets SIGHUP",
        Stays::Kept => "leave; the command runs on, and --attach finds it again",
        Stays::Watched => "leave; the console is somebody else's, and goes on",
    };
    let rows = [
        (".", leave),
        ("B", "send a break, if the service is a serial line"),
        (
            "D",
            "lower DTR of a serial line, and raise it again next time",
        ),
        ("T", "the same with RTS"),
        ("^Z", "suspend this program"),
        ("l", "switch the log on or off"),
        (
            "s",
            "show the path, its round trip, and the bytes of this session",
        ),
        ("R", "if the connection is lost, dial again at once"),
        (escape, "send the character itself"),
        ("?", "show this text"),
    ];
    let mut lines = vec!["Escapes at the start of a line:".to_owned()];
    let width = escape.len() + 2.max(escape.len());
    let sends = |word: &str| matches!(word, "B" | "D" | "T") || word == escape;
    let rows = rows.into_iter();
    for (word, text) in rows.filter(|(word, _)| stays != Stays::Watched || !sends(word)) {
        lines.push(format!("  {:width$}  {text}", format!("{escape}{word}")));
    }
    lines
}

/// A modem line was set.
pub(super) fn line_set(line: OutLine, on: bool) -> &'static str {
    match (line, on) {
        (OutLine::Dtr, true) => "DTR is on",
        (OutLine::Dtr, false) => "DTR is off",
        (OutLine::Rts, true) => "RTS is on",
        (OutLine::Rts, false) => "RTS is off",
    }
}

/// What came of dialling again. `state`: whether the session outlives its connection, and has one; none while it is made again.
pub(super) fn redialled(state: Option<(bool, bool)>, attached: bool) -> &'static str {
    match (state, attached) {
        (None, _) => "a new session is being made already",
        (Some((true, false)), _) => "dialling again now",
        (Some((true, true)), _) => "the connection stands; there is nothing to dial",
        (Some((false, _)), true) => {
            "this session ends with its connection; leave, and the same command line attaches again"
        }
        (Some((false, _)), false) => {
            "this session ends with its connection; there is nothing to dial"
        }
    }
}

/// What becomes of the session while this program is suspended. `durable`: it outlives its connection.
pub(super) fn suspended(granted: Duration, durable: bool) -> String {
    let time = in_words(granted);
    match (granted.as_secs(), durable) {
        (0, _) => "suspended; the peer ends the session after 30 s without an answer".to_owned(),
        (_, true) => format!("suspended; the peer keeps the session for {time}"),
        (_, false) => {
            format!("suspended; the peer waits {time} for this program, if the connection holds")
        }
    }
}

/// Somebody has left; `attached`: the server keeps the command, for so long where it has said that.
pub(super) fn left(service: &str, attached: bool, keep: Option<Duration>) -> String {
    match (attached, keep) {
        (false, _) => format!("left {service}"),
        (true, None) => format!("left {service}; it runs on at the server"),
        (true, Some(keep)) => {
            let keep = in_words(keep);
            format!("left {service}; it runs on at the server for up to {keep}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A session that ends with its connection is not kept, however long the peer waits for an answer.
    #[test]
    fn only_a_session_that_outlives_its_connection_is_said_to_be_kept() {
        let hour = Duration::from_secs(3600);
        assert!(suspended(hour, true).ends_with("keeps the session for 60 min"));
        assert!(suspended(hour, false).ends_with("if the connection holds"));
        assert!(suspended(Duration::ZERO, true).contains("after 30 s"));
    }
}
