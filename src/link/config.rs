//! What a link can be told, each with its reason.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cepa_transports::Rate;
use cepa_transports::endpoint::{Duplex, LinkSettings};

use super::codec::Escapes;
use super::stats::StatsHandle;

/// Takes what is not of the link: boot messages, a login prompt, garbage.
///
/// Called with the bytes as they came, in order, by the link's driver; it must not block.
pub type ChatterSink = Arc<dyn Fn(&[u8]) + Send + Sync>;

/// How a link behaves.
#[derive(Clone)]
#[non_exhaustive]
pub struct Config {
    /// What the line carries one way, where that is known: a serial line's
    /// [`line_rate`](cepa_transports::SerialSettings::line_rate). Default unknown; then it is measured, and up to 50 ms more wait in the
    /// buffers below.
    pub line_rate: Option<Rate>,
    /// Bytes that the line does not carry as they are; the larger set of the two ends is used. Default
    /// [`Escapes::Least`].
    pub escapes: Escapes,
    /// Largest payload of a frame in either direction, 24 to 1,024 bytes. Default 1,024.
    pub payload_max: u16,
    /// Most bytes on the line of any one frame in either direction, flags, escapes and all, 64 or more; the
    /// lesser of the two ends' counts. For radio modems, which carry packets of so many bytes and lose them whole: each
    /// write to the stream below is one frame then. Default none.
    pub mtu: Option<u16>,
    /// Whether both ends may talk at once; where either end says that they may not, they take turns. The rate
    /// should be known then. Default [`Duplex::Full`].
    pub duplex: Duplex,
    /// Bytes that are kept for a reader, as a power of two from 10 to 24. Default 15 (32 KiB), the
    /// largest whose positions fit in two bytes; a path that is fast and far needs more.
    pub window: u8,
    /// The link is given up when nothing valid was heard for so long. Default 60 s.
    pub give_up: Duration,
    /// Where bytes go that are not of the link. Default nowhere.
    pub chatter: Option<ChatterSink>,
    /// What reads the link's counters from outside. Default nothing.
    pub stats: Option<StatsHandle>,
}

setters!(Config {
    with_line_rate => line_rate: Option<Rate>,
    with_escapes => escapes: Escapes,
    with_payload_max => payload_max: u16,
    with_mtu => mtu: Option<u16>,
    with_duplex => duplex: Duplex,
    with_window => window: u8,
    with_give_up => give_up: Duration,
    with_chatter => chatter: Option<ChatterSink>,
    with_stats => stats: Option<StatsHandle>,
});

impl Default for Config {
    fn default() -> Self {
        Self {
            line_rate: None,
            escapes: Escapes::Least,
            payload_max: 1024,
            mtu: None,
            duplex: Duplex::Full,
            window: 15,
            give_up: Duration::from_secs(60),
            chatter: None,
            stats: None,
        }
    }
}

impl Config {
    /// The same with what an address tells of the line; where both say something, the stricter counts.
    #[must_use]
    pub fn with_line_settings(mut self, line: LinkSettings) -> Self {
        self.escapes = self.escapes.max(line.escape);
        self.mtu = self.mtu.into_iter().chain(line.mtu).min();
        self.duplex = self.duplex.max(line.duplex);
        self
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("line_rate", &self.line_rate)
            .field("escapes", &self.escapes)
            .field("payload_max", &self.payload_max)
            .field("mtu", &self.mtu)
            .field("duplex", &self.duplex)
            .field("window", &self.window)
            .field("give_up", &self.give_up)
            .field("chatter", &self.chatter.is_some())
            .field("stats", &self.stats.is_some())
            .finish()
    }
}
