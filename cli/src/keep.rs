//! Sessions that outlive their connection, and consoles that outlive who sits at them: whether a command keeps them and for how long, and what it says of one whose
//! connection is lost.
//!
//! Both ends have to want it; what the two keep a session for is bounded by the shorter time. `--reconnect` is another thing: it
//! makes a new session when one is lost for good.

use std::time::Duration;

use cepa::identity::PeerId;
#[cfg(feature = "nat")]
use cepa::protocols::direct::now_direct;
use cepa::resume;
use cepa::session::{PathChange, PathChanges, Session};
#[cfg(feature = "nat")]
use cepa::transports::Remote;
use cepa::transports::{Endpoint, Target};
use tokio::time::{Instant, timeout_at};

use crate::columns::count;
use crate::say::{Line, say};

/// The shortest and the longest time that can be given.
const PARK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30 * 86_400));

/// How long an invitation is open where nothing else is said.
pub(crate) const INVITE_MINUTES: u32 = 10;

/// Whether sessions are kept while they have no connection, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// They end with it.
    Not,
    /// For so long; by default as the library does.
    For(Option<Duration>),
}

impl Keep {
    pub(crate) fn config(self) -> Option<resume::Config> {
        match self {
            Self::Not => None,
            Self::For(None) => Some(resume::Config::default()),
            Self::For(Some(time)) => Some(resume::Config::default().with_park(time)),
        }
    }

    /// How long consoles are kept: as it is said, else as long as sessions are.
    pub(crate) fn consoles(self, said: Option<Consoles>) -> Option<Duration> {
        let sessions = self.config().map(|config| config.park);
        said.map_or(sessions, |Consoles(time)| time)
    }

    /// The same for who dials an address. Standard input and output are there only once, so nothing comes after them.
    pub(crate) fn at(self, address: &Endpoint) -> Option<resume::Config> {
        match address.target() {
            Target::Stdio | Target::Fd { .. } => None,
            _ => self.config(),
        }
    }
}

/// How long a session is kept, as it is written: a number with its unit.
pub(crate) fn park(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a time from 1s to 30d, for example 90s, 10min, 8h or 2d".to_owned();
    let at = text.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = at
        .and_then(|at| text.split_at_checked(at))
        .ok_or_else(wrong)?;
    let seconds = match unit {
        "s" => 1,
        "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number = number.parse::<u64>().ok();
    let time = number.and_then(|n| n.checked_mul(seconds));
    let time = time.map(Duration::from_secs);
    time.filter(|time| (PARK.0..=PARK.1).contains(time))
        .ok_or_else(wrong)
}

/// How long consoles are kept that nobody is attached to, as it is written: a time, or `off` for not at all.
pub(crate) fn consoles(text: &str) -> Result<Consoles, String> {
    match text {
        "off" => Ok(Consoles(None)),
        time => park(time).map(|time| Consoles(Some(time))).map_err(|_| {
            "expected a time from 1s to 30d, for example 10min, 8h or 2d, or `off`".to_owned()
        }),
    }
}

/// See [`consoles`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Consoles(pub(crate) Option<Duration>);

/// What a kept console is called.
pub(crate) fn console_name(text: &str) -> Result<String, String> {
    let wrong = || "expected up to 32 letters, digits, `-` and `_`, for example work".to_owned();
    let name = is_console_name(text).then(|| text.to_owned());
    name.ok_or_else(wrong)
}

/// Whether a console can be kept under this name: one word of a service's name on the wire, which a dot ends.
pub(crate) fn is_console_name(name: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    (1..=32).contains(&name.len()) && name.chars().all(fine)
}

/// A time for people.
pub(crate) fn in_words(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => {
            let tenths = format!("{:.1}", time.as_secs_f64());
            format!("{} s", tenths.strip_suffix(".0").unwrap_or(&tenths))
        }
        60..600 if seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        60..600 => format!("{} min {} s", seconds / 60, seconds % 60),
        600..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => match seconds / 3600 % 24 {
            0 => format!("{} days", seconds / 86400),
            hours => format!("{} days {hours} h", seconds / 86400),
        },
    }
}

/// A connection that is lost again so soon after that was said is not spoken of, unless it stays away.
const PAUSE: Duration = Duration::from_secs(1);

/// Tells a person when the session's connection is lost, and when it is back, until the session is over. `whole`: nothing is lost
/// meanwhile, which a console that goes on without its client can't promise.
pub(crate) fn notify_paths(
    session: &Session,
    whole: bool,
    notify: impl Fn(PeerId, &str) + Send + 'static,
) {
    if !session.outlives_connections() {
        return;
    }
    let (changes, peer) = (session.path_changes(), session.peer().id());
    let (short, kept) = (peer.short(), if whole { " (data is kept)" } else { "" });
    tokio::spawn(async move {
        let mut paths = Paths {
            changes,
            last_loss: None,
            short: 0,
        };
        while let Some(notice) = paths.next().await {
            match notice {
                PathNotice::Lost => notify(
                    peer,
                    &format!("connection to {short}… lost; reconnecting{kept}"),
                ),
                #[cfg(feature = "nat")]
                PathNotice::Direct { at } => {
                    notify(peer, &now_direct(format_args!("{short}…"), &at));
                }
                PathNotice::Back { after, brief } => {
                    let after = in_words(after);
                    let before = match brief {
                        0 => String::new(),
                        n => format!(" ({} before that)", count(n, "brief cut")),
                    };
                    notify(
                        peer,
                        &format!("connection to {short}… is back after {after}{before}"),
                    );
                }
            }
        }
    });
}

/// What is worth a line.
#[derive(Debug, PartialEq, Eq)]
enum PathNotice {
    Lost,
    Back {
        after: Duration,
        brief: u64,
    },
    /// A relay is no longer on the way.
    #[cfg(feature = "nat")]
    Direct {
        at: Remote,
    },
}

/// See [`notify_paths`].
struct Paths {
    changes: PathChanges,
    /// When a loss was told last.
    last_loss: Option<Instant>,
    /// Losses that were not told.
    short: u64,
}

impl Paths {
    async fn next(&mut self) -> Option<PathNotice> {
        loop {
            match self.changes.next().await? {
                PathChange::Paused { .. } => {}
                PathChange::Resumed { without, .. } => {
                    return Some(PathNotice::Back {
                        after: without,
                        brief: std::mem::take(&mut self.short),
                    });
                }
                #[cfg(feature = "nat")]
                PathChange::Migrated { from, path, .. } => match (from.remote, path.remote) {
                    (Remote::Circuit { .. }, at @ (Remote::Tcp(_) | Remote::Quic(_))) => {
                        return Some(PathNotice::Direct { at });
                    }
                    _ => continue,
                },
                _ => continue,
            }
            let now = Instant::now();
            let until = self
                .last_loss
                .map_or(now, |last_loss| (last_loss + PAUSE).max(now));
            if until > now {
                match timeout_at(until, self.changes.next()).await {
                    Ok(None) => return None,
                    Ok(Some(_)) => {
                        self.short += 1;
                        continue;
                    }
                    Err(_) => {}
                }
            }
            self.last_loss = Some(Instant::now());
            return Some(PathNotice::Lost);
        }
    }
}

/// Says that the session ends with its connection, though something else was asked for.
pub(crate) fn warn_if_not(session: &Session) {
    // Of another command's, that one has said it.
    if !session.outlives_connections() && !session.is_borrowed() {
        let line = "warning: the peer keeps no sessions; this one ends with its connection";
        say(Line::from(line).with("peer", session.peer().id()));
    }
}

/// Waits until the session has a connection, or is over.
pub(crate) async fn connected(session: &Session) {
    let mut changes = session.path_changes();
    while session.outlives_connections() && session.path().is_none() {
        if changes.next().await.is_none() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit_and_bounds() {
        for (text, seconds) in [("1s", 1), ("90s", 90), ("10min", 600), ("30d", 2_592_000)] {
            assert_eq!(park(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in [
            "",
            "0s",
            "31d",
            "10",
            "s",
            "1.5h",
            "1 h",
            "-1s",
            "99999999999999999999d",
            "2m",
        ] {
            assert!(park(text).is_err(), "{text}");
            assert!(consoles(text).is_err(), "{text}");
        }
        assert_eq!(consoles("off"), Ok(Consoles(None)));
        let day = Duration::from_secs(86_400);
        assert_eq!(consoles("1d"), Ok(Consoles(Some(day))));
        let minute = Duration::from_secs(60);
        for (keep, said, time) in [
            (Keep::Not, None, None),
            (Keep::For(None), None, Some(10 * minute)),
            (Keep::For(Some(minute)), None, Some(minute)),
            (Keep::For(None), Some(Consoles(None)), None),
            (Keep::Not, Some(Consoles(Some(day))), Some(day)),
        ] {
            assert_eq!(keep.consoles(said), time, "{keep:?} {said:?}");
        }
    }

    #[test]
    fn a_kept_console_has_a_plain_name() {
        for name in ["work", "a", "A-1_b", &"x".repeat(32)] {
            assert!(is_console_name(name), "{name}");
        }
        for name in ["", "a.b", "a b", "ü", "../x", &"x".repeat(33)] {
            assert!(console_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn times_are_reported_in_the_unit_that_fits() {
        for (ms, words) in [
            (340, "0.3 s"),
            (5_000, "5 s"),
            (59_900, "59.9 s"),
            (120_000, "2 min"),
            (61_000, "1 min 1 s"),
            (600_000, "10 min"),
            (90_000_000, "25 h"),
            (172_800_000, "2 days"),
            (180_000_000, "2 days 2 h"),
        ] {
            assert_eq!(in_words(Duration::from_millis(ms)), words);
        }
    }
}
