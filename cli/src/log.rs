//! Lines on standard error that a peer can cause, bounded: whoever connects, fails and connects again as fast as
//! it can fills nobody's disk and hides nobody else's lines.
//!
//! About one peer at most [`PER_SECOND`] lines are shown in any second, and as many again of the comings and goings of its
//! sessions: those are frequent where nothing is wrong, and must not use up the room of what is. The others are counted, and told in one
//! line, `PEER: … and N more lines`, which is one of those of its second. An authenticated peer is known by its id,
//! a stranger by the host that it comes from (an IPv6 host by its /64, since whoever has one address there has
//! all of them). [`Bound`] decides, and is told the time; the rest of this file prints.
//!
//! What befalls each connection alike, as when a backend is down, is said once a minute, with how often it has come since:
//! [`say_once_a_minute`], by [`Repeats`].

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cepa::gate::Source;
use cepa::identity::PeerId;

use crate::called::called;
use crate::columns::count;
use crate::say::{Line, say};

/// Lines about one peer in any second.
const PER_SECOND: usize = 10;
const SECOND: Duration = Duration::from_secs(1);

/// Peers that are counted apart. When so many have been busy within a second, the others share one count:
/// else a crowd of sources could make the table grow.
const PEERS: usize = 1024;

/// The count of those who have none of their own.
const OTHERS: &str = "others";

/// What was shown about one peer, and what was not.
#[derive(Debug, Default)]
struct Shown {
    /// When the last lines were shown: of the last second, and [`PER_SECOND`] at most.
    at: VecDeque<Instant>,
    /// Lines that were held back since.
    held: u64,
}

impl Shown {
    fn forget(&mut self, now: Instant) {
        while self
            .at
            .front()
            .is_some_and(|at| now.saturating_duration_since(*at) >= SECOND)
        {
            self.at.pop_front();
        }
    }

    /// Counts a line as shown, if one more may be.
    fn take(&mut self, now: Instant) -> bool {
        self.forget(now);
        let room = self.at.len() < PER_SECOND;
        if room {
            self.at.push_back(now);
        }
        room
    }

    /// How many lines are to be told as held back, if that may be told now.
    fn take_due(&mut self, now: Instant) -> Option<u64> {
        (self.held > 0 && self.take(now)).then(|| std::mem::take(&mut self.held))
    }

    /// When what was held back can be told.
    fn due(&self) -> Option<Instant> {
        let first = self.at.front().copied();
        (self.held > 0)
            .then(|| first.map(|at| at + SECOND))
            .flatten()
    }
}

/// Decides which lines are shown.
#[derive(Debug, Default)]
struct Bound {
    peers: HashMap<String, Shown>,
}

/// What is to be printed now.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    /// First, that so many lines were not shown.
    more: Option<u64>,
    /// Then, the line.
    show: bool,
}

impl Bound {
    /// A line about `peer` is to be shown.
    fn line(&mut self, peer: &str, now: Instant) -> Verdict {
        let known = self.peers.contains_key(peer);
        if !known && self.peers.len() >= PEERS {
            self.peers.retain(|_, shown| {
                shown.forget(now);
                shown.held > 0 || !shown.at.is_empty()
            });
        }
        let peer = if known || self.peers.len() < PEERS {
            peer
        } else {
            OTHERS
        };
        let shown = self.peers.entry(peer.to_owned()).or_default();
        let more = shown.take_due(now);
        let show = shown.take(now);
        shown.held += u64::from(!show);
        Verdict { more, show }
    }

    /// The peers of whom lines were held back that can be told now, and how many.
    fn take_due(&mut self, now: Instant) -> Vec<(String, u64)> {
        self.peers
            .iter_mut()
            .filter_map(|(peer, shown)| Some((peer.clone(), shown.take_due(now)?)))
            .collect()
    }

    /// When [`Bound::tell`] will next have something; `None` while nothing is held back.
    fn due(&self) -> Option<Instant> {
        self.peers.values().filter_map(Shown::due).min()
    }
}

/// What is said again at the earliest.
const MINUTE: Duration = Duration::from_secs(60);

/// Things that are counted apart, in all and of one peer, since it may make up new ones; beyond that they are said as they come,
/// within [`PER_SECOND`].
const KINDS: usize = 1024;
const KINDS_OF_A_PEER: usize = 16;

/// Decides which lines are no news: what was said about the same peer less than a minute ago.
#[derive(Debug, Default)]
struct Repeats {
    /// By peer and kind: when it was said, and how often it has come since.
    kinds: HashMap<(String, String), (Instant, u64)>,
}

impl Repeats {
    /// Whether this is news.
    fn is_new(&mut self, peer: &str, kind: &str, now: Instant) -> bool {
        if let Some((_, more)) = self.kinds.get_mut(&(peer.to_owned(), kind.to_owned())) {
            *more += 1;
            return false;
        }
        let of_peer = self.kinds.keys().filter(|(other, _)| other == peer);
        if self.kinds.len() < KINDS && of_peer.count() < KINDS_OF_A_PEER {
            let kind = (peer.to_owned(), kind.to_owned());
            self.kinds.insert(kind, (now, 0));
        }
        true
    }

    /// What has come since it was said a minute ago, and how often. What has not is forgotten.
    fn take_due(&mut self, now: Instant) -> Vec<(String, String, u64)> {
        let mut reported = Vec::new();
        self.kinds.retain(|(peer, kind), (since, more)| {
            if now.saturating_duration_since(*since) < MINUTE {
                return true;
            }
            if *more == 0 {
                return false;
            }
            reported.push((peer.clone(), kind.clone(), std::mem::take(more)));
            *since = now;
            true
        });
        reported
    }

    /// When [`Repeats::tell`] has something to do.
    fn due(&self) -> Option<Instant> {
        self.kinds.values().map(|(since, _)| *since + MINUTE).min()
    }
}

/// The one of this process, and whether somebody waits for its next [`Repeats::due`].
static REPEATS: LazyLock<Mutex<(Repeats, bool)>> = LazyLock::new(Mutex::default);

fn repeats() -> MutexGuard<'static, (Repeats, bool)> {
    // Counts are whole after every statement.
    REPEATS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As [`say_of`], for what many connections of a peer may meet alike: lines of one `kind` are said once a minute. To be called
/// inside the runtime.
pub(crate) fn say_once_a_minute(
    peer: impl fmt::Display,
    kind: impl fmt::Display,
    line: impl Into<Line>,
) {
    let (peer, kind) = (peer.to_string(), kind.to_string());
    let mut repeats = repeats();
    let is_new = repeats.0.is_new(&peer, &kind, Instant::now());
    let watch = repeats.0.due().is_some() && !std::mem::replace(&mut repeats.1, true);
    drop(repeats);
    if watch {
        tokio::spawn(report_repeats());
    }
    if is_new {
        say_of(peer, line);
    }
}

/// Tells what has come again, each minute, until nothing has.
async fn report_repeats() {
    loop {
        let due = {
            let mut repeats = repeats();
            let due = repeats.0.due();
            repeats.1 = due.is_some();
            due
        };
        let Some(due) = due else { return };
        tokio::time::sleep_until(due.into()).await;
        let reported = repeats().0.take_due(Instant::now());
        for (peer, kind, more) in reported {
            say_of(peer, again(&kind, more));
        }
    }
}

fn again(kind: &str, more: u64) -> String {
    format!("{kind} (and {})", count(more, "more time"))
}

/// The one of this process, and whether somebody waits for its next [`Bound::due`].
static LOG: LazyLock<Mutex<(Bound, bool)>> = LazyLock::new(Mutex::default);

fn log() -> MutexGuard<'static, (Bound, bool)> {
    // Counts are whole after every statement.
    LOG.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the lines about sessions are counted under, beside all else about that peer.
const SESSIONS: &str = "sessions of ";

/// What the lines about this command's own connection are counted under: they come from nobody else.
pub(crate) const OURS: &str = "connection";

/// As [`say_of`], for a session that came or went as sessions do.
pub(crate) fn say_of_session(peer: impl fmt::Display, line: impl Into<Line>) {
    say_of(format_args!("{SESSIONS}{peer}"), line);
}

/// One line on standard error about what `peer` did. To be called inside the runtime.
pub(crate) fn say_of(peer: impl fmt::Display, line: impl Into<Line>) {
    let peer = peer.to_string();
    let mut log = log();
    let verdict = log.0.line(&peer, Instant::now());
    let watch = log.0.due().is_some() && !std::mem::replace(&mut log.1, true);
    drop(log);
    if watch {
        tokio::spawn(report_later());
    }
    if let Some(more) = verdict.more {
        say(about(held_back(&peer, more).into(), &peer));
    }
    if verdict.show {
        say(about(line.into(), &peer));
    }
}

/// The line with whom it is counted for.
fn about(line: Line, peer: &str) -> Line {
    let peer = peer.strip_prefix(SESSIONS).unwrap_or(peer);
    if peer == OURS {
        return line;
    }
    match peer.parse::<PeerId>() {
        Ok(peer) => match called(&peer) {
            Some(name) => line.calling(&peer, name).with("peer", peer),
            None => line.with("peer", peer),
        },
        Err(_) => line.with("source", peer),
    }
}

/// Tells what was held back, until nothing is.
async fn report_later() {
    loop {
        let due = {
            let mut log = log();
            let due = log.0.due();
            log.1 = due.is_some();
            due
        };
        let Some(due) = due else { return };
        tokio::time::sleep_until(due.into()).await;
        let reported = log().0.take_due(Instant::now());
        for (peer, more) in reported {
            say(about(held_back(&peer, more).into(), &peer));
        }
    }
}

fn held_back(peer: &str, more: u64) -> String {
    let more = count(more, "more line");
    match peer.strip_prefix(SESSIONS) {
        Some(peer) => format!("{peer}: … and {more} about its sessions"),
        None => format!("{peer}: … and {more} about it"),
    }
}

/// That events came faster than they could be written.
pub(crate) fn not_logged(events: u64) -> String {
    let were = if events == 1 { "was" } else { "were" };
    let events = count(events, "event");
    format!("{events} {were} not logged: more came at once than could be")
}

/// Tells what is still held back when the command ends.
pub(crate) fn last_words() {
    for ((peer, kind), (_, more)) in repeats().0.kinds.drain() {
        if more > 0 {
            say(about(again(&kind, more).into(), &peer));
        }
    }
    for (peer, shown) in log().0.peers.drain() {
        if shown.held > 0 {
            say(about(held_back(&peer, shown.held).into(), &peer));
        }
    }
}

/// Whom a line about a stream counts for: its source (a host, without the port); the label, where that is a path, a
/// command or the like.
pub(crate) fn source(source: Source, label: &str) -> String {
    if source == Source::HERE {
        return label.to_owned();
    }
    let host = source.to_string();
    // A host is one for all that brings it, and is said as this stream is.
    match (host.strip_prefix("tcp "), label.starts_with("quic ")) {
        (Some(host), true) => format!("quic {host}"),
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    const SHOWN: Verdict = Verdict {
        more: None,
        show: true,
    };
    const HELD: Verdict = Verdict {
        more: None,
        show: false,
    };

    #[test]
    fn no_second_has_more_than_ten_lines_about_one_peer_and_none_goes_uncounted() {
        let mut bound = Bound::default();
        let start = Instant::now();
        let mut printed = Vec::new();
        let (mut shown, mut held) = (0, 0);
        // A flood of two seconds, in which somebody tells what is due.
        for ms in 0..4000 {
            let now = start + Duration::from_millis(ms);
            if bound.due().is_some_and(|due| due <= now) {
                for (peer, more) in bound.take_due(now) {
                    assert_eq!(peer, "p");
                    printed.push(ms);
                    held += more;
                }
            }
            if ms < 2000 {
                let verdict = bound.line("p", now);
                held += verdict.more.unwrap_or(0);
                shown += u64::from(verdict.show);
                let lines = usize::from(verdict.show) + usize::from(verdict.more.is_some());
                printed.extend(std::iter::repeat_n(ms, lines));
            }
        }
        assert_eq!(bound.due(), None, "nothing is left untold");
        assert_eq!(shown + held, 2000);
        for (i, from) in printed.iter().enumerate() {
            let within = printed[i..].iter().filter(|ms| **ms < from + 1000).count();
            assert!(within <= PER_SECOND, "{within} lines from {from} ms on");
        }
        assert!(printed.len() > 20, "and it goes on: {}", printed.len());
    }

    #[test]
    fn what_comes_again_is_said_once_a_minute_with_how_often() {
        let mut repeats = Repeats::default();
        let start = Instant::now();
        let (mut said, mut reported) = (0, 0);
        // 400 a second for three minutes.
        for n in 0..72_000_u64 {
            let now = start + Duration::from_micros(2500 * n);
            if repeats.due().is_some_and(|due| due <= now) {
                for (peer, kind, more) in repeats.take_due(now) {
                    assert_eq!((peer.as_str(), kind.as_str()), ("p", "refused"));
                    said += 1;
                    reported += more;
                }
            }
            if repeats.is_new("p", "refused", now) {
                said += 1;
                reported += 1;
            }
        }
        assert_eq!(said, 3, "at 0, 60 and 120 s");
        assert!(repeats.is_new("q", "refused", start));
        assert!(repeats.is_new("p", "lost", start));
        // And none goes uncounted.
        let later = start + 10 * MINUTE;
        reported += repeats
            .take_due(later)
            .iter()
            .map(|(.., more)| more)
            .sum::<u64>();
        assert_eq!(reported, 72_000);
        assert_eq!(repeats.take_due(later + MINUTE), []);
        assert_eq!(repeats.due(), None, "what does not come again is forgotten");
        // A crowd of kinds is not kept, and hides nobody else's.
        for n in 0..10_000 {
            assert!(repeats.is_new("p", &n.to_string(), later));
        }
        assert_eq!(repeats.kinds.len(), KINDS_OF_A_PEER);
        assert!(repeats.is_new("q", "refused", later));
        assert!(!repeats.is_new("q", "refused", later));
        for n in 0..10_000 {
            repeats.is_new(&n.to_string(), "refused", later);
        }
        assert_eq!(repeats.kinds.len(), KINDS);
    }

    #[test]
    fn one_peer_does_not_hide_another() {
        let mut bound = Bound::default();
        let now = Instant::now();
        for _ in 0..PER_SECOND {
            assert_eq!(bound.line("loud", now), SHOWN);
        }
        for _ in 0..1000 {
            assert_eq!(bound.line("loud", now), HELD);
        }
        assert_eq!(bound.line("quiet", now), SHOWN);
        let later = now + SECOND;
        let verdict = Verdict {
            more: Some(1000),
            show: true,
        };
        assert_eq!(bound.line("loud", later), verdict, "told before it goes on");
        assert_eq!(bound.take_due(later), []);
    }

    #[test]
    fn a_crowd_does_not_make_the_table_grow() {
        let mut bound = Bound::default();
        let now = Instant::now();
        let mut shown = 0;
        for i in 0..100_000 {
            shown += usize::from(bound.line(&format!("tcp 10.0.{i}"), now).show);
            assert!(bound.peers.len() <= PEERS + 1);
        }
        assert_eq!(shown, PEERS + PER_SECOND);
        // Those of whom there is nothing to say any more make room.
        assert_eq!(bound.line("late", now + 2 * SECOND), SHOWN);
        assert!(bound.peers.contains_key("late"));
        assert!(bound.peers.len() <= 3, "{}", bound.peers.len());
    }

    #[test]
    fn a_line_counts_for_a_host_or_a_label() {
        let of = |address: &str| Source::from(address.parse::<IpAddr>().unwrap());
        assert_eq!(
            source(of("192.0.2.1"), "tcp 192.0.2.1:4711"),
            "tcp 192.0.2.1"
        );
        assert_eq!(source(of("127.0.0.1"), "tcp 127.0.0.1:9"), "tcp 127.0.0.1");
        assert_eq!(
            source(of("192.0.2.1"), "quic 192.0.2.1:4711"),
            "quic 192.0.2.1"
        );
        assert_eq!(source(Source::HERE, "unix /run/a:b"), "unix /run/a:b");
    }
}
