//! The page: each number with what it means and of which kind it is, in Prometheus's text format 0.0.4.
//!
//! The library's own numbers come first, then what the command knows beside them. No label holds what a peer chose, so that a peer
//! can't make the page grow.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use cepa::session::Session;

use crate::control::Look;
use crate::fleet::FleetLook;
use crate::numbers::{self, Kind};

/// All of it.
pub(super) fn of(look: &Look) -> String {
    let mut page = Page(String::new());
    numbers::put(&mut page.0);
    page.gauge(
        "cepa_build_info",
        "1, with the version and the command",
        &[(
            &[
                ("version", env!("CARGO_PKG_VERSION")),
                ("command", look.command),
            ],
            1.0,
        )],
    );
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let since = now.unwrap_or_default().saturating_sub(look.since.elapsed());
    page.one(
        Kind::Gauge,
        "process_start_time_seconds",
        "when the command was started, in seconds since 1970",
        since.as_secs_f64().floor(),
    );
    let sessions = look.sessions.iter().map(|it| &it.session);
    let parked = sessions.clone().filter(|it| it.path().is_none()).count();
    page.size(
        "cepa_parked_sessions",
        "sessions that wait for another connection of their peer",
        parked,
    );
    let stats = sessions.map(Session::mux_stats);
    let (unsent, unread) = stats.fold((0, 0), |(unsent, unread), it| {
        (unsent + it.unsent, unread + it.unread)
    });
    page.size(
        "cepa_unsent_bytes",
        "bytes that wait to be sent, of all sessions",
        unsent,
    );
    page.size(
        "cepa_unread_bytes",
        "bytes that arrived and that nobody has read, of all sessions",
        unread,
    );
    shares(&mut page, look);
    relay(&mut page, look);
    for (name, kind, help, value) in look.fleet.iter().flat_map(FleetLook::numbers) {
        page.one(kind, name, help, value);
    }
    page.0
}

/// What peers hold of what there is.
fn shares(page: &mut Page, look: &Look) {
    #[allow(clippy::cast_precision_loss)] // counts of things that there are
    let each = |of: fn(&crate::control::Held) -> usize| -> Vec<_> {
        let all = look.shares.iter();
        all.map(|it| ([("resource", it.resource)], of(it) as f64))
            .collect()
    };
    let (used, limits) = (each(|it| it.used), each(|it| it.limit));
    if used.is_empty() {
        return;
    }
    page.gauge(
        "cepa_shares_used",
        "what peers hold of each resource",
        &labelled(&used),
    );
    page.gauge(
        "cepa_shares_limit",
        "how much all peers may hold of it",
        &labelled(&limits),
    );
}

fn labelled<'a>(all: &'a [([(&'a str, &'a str); 1], f64)]) -> Vec<(Labels<'a>, f64)> {
    all.iter()
        .map(|(labels, value)| (&labels[..], *value))
        .collect()
}

fn relay(page: &mut Page, look: &Look) {
    if let Some(stats) = look.relay {
        page.size(
            "cepa_relay_registrations",
            "registrations at this relay",
            stats.registrations,
        );
        page.size(
            "cepa_relay_circuits",
            "circuits through this relay",
            stats.circuits,
        );
        for (name, help, value) in [
            (
                "cepa_relay_carried_total",
                "circuits that came about",
                stats.carried,
            ),
            (
                "cepa_relay_refused_total",
                "registrations and circuits that were refused",
                stats.refused,
            ),
            (
                "cepa_relay_idle_total",
                "circuits that were ended since they carried nothing for too long",
                stats.idle,
            ),
            (
                "cepa_relay_unread_total",
                "circuits between two relays that were ended since they were not read",
                stats.unread,
            ),
            (
                "cepa_relay_taken_back_total",
                "circuits and registrations that were ended for other peers",
                stats.taken_back,
            ),
            (
                "cepa_relay_bytes_total",
                "bytes that were copied, both ways",
                stats.bytes,
            ),
        ] {
            page.count(name, help, value);
        }
    }
    if let Some(stats) = look.carrier {
        page.size(
            "cepa_carrier_messages",
            "sealed messages that are being delivered",
            stats.now,
        );
        page.count(
            "cepa_carrier_carried_total",
            "sealed messages that were delivered",
            stats.carried,
        );
        page.count(
            "cepa_carrier_refused_total",
            "sealed messages that were refused",
            stats.refused,
        );
    }
}

type Labels<'a> = &'a [(&'a str, &'a str)];

struct Page(String);

impl Page {
    #[allow(clippy::cast_precision_loss)] // below 2^53
    fn size(&mut self, name: &str, help: &str, value: usize) {
        self.one(Kind::Gauge, name, help, value as f64);
    }

    #[allow(clippy::cast_precision_loss)] // below 2^53
    fn count(&mut self, name: &str, help: &str, value: u64) {
        self.one(Kind::Counter, name, help, value as f64);
    }

    fn one(&mut self, kind: Kind, name: &str, help: &str, value: f64) {
        numbers::put_head(&mut self.0, name, kind, help);
        let _ = writeln!(self.0, "{name} {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, all: &[(Labels<'_>, f64)]) {
        numbers::put_head(&mut self.0, name, Kind::Gauge, help);
        for (labels, value) in all {
            // None of them has a quote, a backslash or a line end in it.
            let labels = labels
                .iter()
                .map(|(key, value)| format!("{key}=\"{value}\""));
            let labels: Vec<String> = labels.collect();
            let _ = writeln!(self.0, "{name}{{{}}} {value}", labels.join(","));
        }
    }
}
