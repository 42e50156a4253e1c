//! What `~s` shows of the session that a console has now.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cepa::link::StatsHandle;
use cepa::session::Session;
use tokio::time::{Instant, timeout};

use crate::keep::in_words;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a console counts itself.
pub(super) struct Counts {
    since: Instant,
    /// Of the service.
    pub(super) inward: AtomicU64,
    /// Typed.
    pub(super) outward: AtomicU64,
    /// Of the line below, if there is one.
    link: StatsHandle,
}

impl Counts {
    pub(super) fn new(link: StatsHandle) -> Self {
        Self {
            since: Instant::now(),
            inward: AtomicU64::default(),
            outward: AtomicU64::default(),
            link,
        }
    }

    /// As it is now, a line each; without a session where it is made again.
    pub(super) async fn lines(&self, session: Option<&Session>) -> Vec<String> {
        let up = in_words(Duration::from_secs(self.since.elapsed().as_secs()));
        let (inward, outward) = (
            self.inward.load(Ordering::Relaxed),
            self.outward.load(Ordering::Relaxed),
        );
        let mut lines = vec![format!(
            "up {up}; the service has sent {inward} bytes, you have typed {outward}"
        )];
        let Some(session) = session else {
            lines.push("path: none; a new session is being made".to_owned());
            return lines;
        };
        match session.path() {
            None => lines.push("path: none; the connection is lost, and dialled again".to_owned()),
            Some(path) => {
                let since = in_words(Duration::from_secs(path.since.elapsed().as_secs()));
                let trip = match timeout(PATIENCE, session.ping()).await {
                    Ok(Ok(time)) => format!("{:.1} ms", time.as_secs_f64() * 1000.0),
                    _ => format!("no answer within {}", in_words(PATIENCE)),
                };
                lines.push(format!(
                    "path: {}, for {since}; round trip {trip}",
                    path.label
                ));
            }
        }
        let meter = session.meter();
        lines.push(format!(
            "wire: {} bytes in, {} bytes out",
            meter.bytes_in(),
            meter.bytes_out()
        ));
        if let Some(stats) = session.path_stats()
            && stats.paths > 1
        {
            lines.push(format!(
                "connections: {}; {} without one in all; {} bytes sent again",
                stats.paths,
                in_words(stats.without),
                stats.replayed
            ));
        }
        if let Some(link) = self.link.stats() {
            lines.push(format!(
                "line: {} frames sent, {} of them lost; {} received, {} damaged or not of the link",
                link.sent, link.lost, link.received, link.invalid
            ));
        }
        lines
    }
}
