//! What a console says of itself: its help, and what becomes of the session or the command while nobody is there.

use std::time::Duration;

use crate::keep::in_words;

const HANGS_UP: &str = "  ~.   leave; a command in a terminal on the other end gets SIGHUP";
const RUNS_ON: &str = "  ~.   leave; the command runs on, and --attach finds it again";

/// The text of `~?`; `attached`: the command runs on when somebody leaves.
pub(super) fn help(attached: bool) -> [&'static str; 6] {
    [
        "Escapes at the start of a line (with the default escape character):",
        if attached { RUNS_ON } else { HANGS_UP },
        "  ~B   send a break, if the service is a serial line",
        "  ~^Z  suspend this program",
        "  ~~   send the character itself",
        "  ~?   show this text",
    ]
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
