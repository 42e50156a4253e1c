//! Changes of this machine's network: an address, a route or a link that came or went.
//!
//! ```text
//!   the system (rtnetlink.rs) --+
//!                               +--> NetworkChanges --> NetworkWatch: at most one a second, each 200 ms old
//!   a program (NetworkSignal) --+
//! ```
//!
//! What has changed is not told, and would not help: whether a peer can be reached only an attempt shows. So whoever waits to
//! try again tries now, and whoever has a connection asks whether it still carries. A change brings several messages (a link,
//! its address, its routes), and an interface that comes and goes any number; a watch gathers those.

use std::net::{SocketAddr, UdpSocket};
use std::sync::OnceLock;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

#[cfg(target_os = "linux")]
mod rtnetlink;

/// What belongs to one change comes within so long.
const GATHER: Duration = Duration::from_millis(200);

/// An interface that comes and goes all the time moves nobody more often.
const SPACE: Duration = Duration::from_secs(1);

/// Tells when the network of this machine changes. Clones tell the same.
#[derive(Clone, Debug)]
pub struct NetworkChanges(Source);

#[derive(Clone, Debug)]
enum Source {
    Never,
    System,
    Manual(watch::Receiver<()>),
}

/// Tells [`NetworkChanges`] of a change; clones tell the same.
#[derive(Clone, Debug)]
pub struct NetworkSignal(watch::Sender<()>);

impl NetworkSignal {
    /// The network has changed.
    pub fn changed(&self) {
        self.0.send_replace(());
    }
}

impl NetworkChanges {
    /// Those that the system tells of: on Linux addresses, routes and links of the process's network namespace. Elsewhere, and
    /// where the system does not allow it, none ever comes.
    ///
    /// A thread listens, from the first [`watch`](Self::watch) to the end of the process.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// None.
    #[must_use]
    pub fn never() -> Self {
        Self(Source::Never)
    }

    /// Those that the program tells of, which has heard of them in its own way. None comes any more once all signals are dropped.
    #[must_use]
    pub fn manual() -> (NetworkSignal, Self) {
        let (sender, changes) = watch::channel(());
        (NetworkSignal(sender), Self(Source::Manual(changes)))
    }

    /// Watches for changes from now on.
    #[must_use]
    pub fn watch(&self) -> NetworkWatch {
        let changes = match &self.0 {
            Source::Never => None,
            Source::System => Some(of_system().clone()),
            Source::Manual(changes) => Some(changes.clone()),
        };
        let mut watch = NetworkWatch {
            changes,
            not_before: None,
        };
        watch.forget();
        watch
    }
}

/// The one listener of the process.
fn of_system() -> &'static watch::Receiver<()> {
    static SYSTEM: OnceLock<watch::Receiver<()>> = OnceLock::new();
    SYSTEM.get_or_init(|| {
        let (sender, changes) = watch::channel(());
        #[cfg(target_os = "linux")]
        rtnetlink::listen(move || sender.send_replace(()));
        #[cfg(not(target_os = "linux"))]
        drop(sender);
        changes
    })
}

/// Waits for changes of the network.
#[derive(Clone, Debug)]
pub struct NetworkWatch {
    changes: Option<watch::Receiver<()>>,
    /// The last change, or what was done without one, is not followed sooner.
    not_before: Option<Instant>,
}

impl NetworkWatch {
    /// Waits for the next change. It is told 200 ms later, together with what else changed in that time, and 1 s after the one
    /// before at the earliest.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn changed(&mut self) {
        self.stirred().await;
        let gathered = Instant::now() + GATHER;
        sleep_until(self.not_before.map_or(gathered, |at| at.max(gathered))).await;
        self.forget();
        self.spaced();
    }

    /// Waits until something has changed, and leaves it to [`changed`](Self::changed) to be told.
    pub(crate) async fn stirred(&mut self) {
        if let Some(changes) = &mut self.changes
            && changes.changed().await.is_ok()
        {
            // Who drops the wait that follows hears of it again.
            changes.mark_changed();
            return;
        }
        std::future::pending::<()>().await;
    }

    /// What has changed so far is not told.
    pub(crate) fn forget(&mut self) {
        if let Some(changes) = &mut self.changes {
            changes.mark_unchanged();
        }
    }

    /// What a change would bring is done now, without one: the next is told in a second at the earliest.
    pub(crate) fn spaced(&mut self) {
        self.not_before = Some(Instant::now() + SPACE);
    }
}

/// Whether this machine would still send from `local` to `remote`. Nothing is sent; only the routes are asked.
pub(crate) fn leads(local: SocketAddr, remote: SocketAddr) -> bool {
    let any = match remote {
        SocketAddr::V4(_) => SocketAddr::from(([0; 4], 0)),
        SocketAddr::V6(_) => SocketAddr::from(([0; 16], 0)),
    };
    let from = UdpSocket::bind(any).and_then(|socket| {
        socket.connect(remote)?;
        socket.local_addr()
    });
    from.is_ok_and(|from| from.ip().to_canonical() == local.ip().to_canonical())
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[tokio::test(start_paused = true)]
    async fn a_change_is_reported_once_and_soon() {
        let (signal, changes) = NetworkChanges::manual();
        signal.changed();
        let mut watch = changes.watch();
        assert!(timeout(MS(60_000), watch.changed()).await.is_err());
        let began = Instant::now();
        for _ in 0..5 {
            signal.changed();
        }
        // A wait that is given up loses nothing.
        assert!(timeout(MS(100), watch.changed()).await.is_err());
        watch.changed().await;
        assert!(began.elapsed() <= MS(400), "{:?}", began.elapsed());
        assert!(timeout(MS(60_000), watch.changed()).await.is_err());
        drop(signal);
        assert!(timeout(MS(60_000), watch.changed()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn an_interface_that_comes_and_goes_is_reported_once_a_second() {
        let (signal, changes) = NetworkChanges::manual();
        let mut watch = changes.watch();
        let flaps = tokio::spawn(async move {
            for _ in 0..1000 {
                tokio::time::sleep(MS(10)).await;
                signal.changed();
            }
        });
        let (began, mut count) = (Instant::now(), 0);
        while timeout(MS(60_000), watch.changed()).await.is_ok() {
            count += 1;
        }
        flaps.await.unwrap();
        assert!(began.elapsed() > MS(10_000));
        assert!((9..=11).contains(&count), "{count} in 10 s");
    }

    #[tokio::test(start_paused = true)]
    async fn none_comes_where_there_is_none() {
        let mut watch = NetworkChanges::never().watch();
        assert!(timeout(MS(1_000_000), watch.changed()).await.is_err());
    }

    #[test]
    fn what_leads_is_known_without_a_packet() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert!(leads(at("127.0.0.1:5"), at("127.0.0.1:9")));
        // As a listener for both families tells it.
        assert!(leads(at("[::ffff:127.0.0.1]:5"), at("127.0.0.1:9")));
        // An address for examples (RFC 5737), which no machine has.
        assert!(!leads(at("192.0.2.7:5"), at("127.0.0.1:9")));
    }
}
