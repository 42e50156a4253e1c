//! What a long-running command does, as the document that `cepa status --json` prints. docs/WATCHING.md names every field; scripts rely on
//! them, so that a name stays what it is, and a change of meaning gets another one.

use std::time::Duration;

use cepa::identity::PeerId;
use cepa::link::LinkInfo;
use cepa::mux::StreamInfo;
use cepa::node::{Node, Resource};
use cepa::onion::LayerInfo;
use cepa::protocols::relay::{Relay, RelayStats};
use cepa::protocols::sealed::CarrierStats;
use cepa::session::Session;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::called;
use crate::fleet::FleetLook;
use crate::mesh_node::Mesh;
use crate::numbers;

use super::rates::{Both, Counting, Rates};

/// The most that a document has of each.
#[derive(Clone, Copy)]
pub(super) struct Most {
    /// One takes about 1 KiB.
    sessions: usize,
    /// Of one session, and of all together; one takes about 350 bytes.
    streams: usize,
    streams_of_all: usize,
}

/// For the owner: some MiB.
pub(super) const FOR_OWNER: Most = Most {
    sessions: 4000,
    streams: 1000,
    streams_of_all: 8000,
};

/// For a peer: what `status_served.rs` counts for it.
pub(super) const FOR_PEER: Most = Most {
    sessions: 256,
    streams: 128,
    streams_of_all: 1000,
};

/// What there is at a command.
pub(crate) struct Look {
    /// Its word.
    pub(crate) command: &'static str,
    /// Since when it runs.
    pub(crate) since: Instant,
    pub(crate) own: PeerId,
    pub(crate) listening: Vec<String>,
    pub(crate) services: Vec<String>,
    /// The relays that it is registered at.
    pub(crate) registered: Vec<PeerId>,
    pub(crate) sessions: Vec<Seen>,
    pub(crate) relay: Option<RelayStats>,
    pub(crate) carrier: Option<CarrierStats>,
    /// None where it is not one of a fleet.
    pub(crate) fleet: Option<FleetLook>,
    /// None where nobody can come in.
    pub(crate) shares: Vec<Held>,
}

/// How much of a resource all peers hold together.
pub(crate) struct Held {
    pub(crate) resource: &'static str,
    pub(crate) used: usize,
    pub(crate) limit: usize,
}

fn shares(node: &Node) -> Vec<Held> {
    let limits = node.share_limits();
    let mut all: Vec<Held> = [
        ("sessions", Resource::Sessions, limits.sessions),
        ("substreams", Resource::Substreams, limits.substreams),
        ("commands", Resource::Children, limits.children),
        ("descriptors", Resource::Descriptors, limits.descriptors),
        ("consoles", Resource::Consoles, limits.consoles),
    ]
    .map(|(resource, which, limits)| Held {
        resource,
        used: node.held(which, None),
        limit: limits.all,
    })
    .into();
    all.push(Held {
        resource: "memory",
        used: node.receive_memory(),
        limit: limits.receive_memory,
    });
    all
}

/// One session.
pub(crate) struct Seen {
    pub(crate) peer: PeerId,
    /// Where the stream goes or came from.
    pub(crate) path: String,
    pub(crate) relays: Vec<PeerId>,
    pub(crate) dialled: bool,
    pub(crate) session: Session,
}

impl Look {
    /// Of a node.
    pub(crate) fn at(
        command: &'static str,
        since: Instant,
        mesh: &Mesh,
        relay: Option<&Relay>,
    ) -> Self {
        let node = &mesh.node;
        Self {
            command,
            since,
            own: node.id(),
            listening: node.listeners().iter().map(ToString::to_string).collect(),
            services: node.services(),
            registered: mesh.relays.registered(),
            sessions: seen_at(node).collect(),
            relay: relay.map(Relay::stats),
            carrier: mesh.sealed.carrier_stats(),
            fleet: None,
            shares: shares(node),
        }
    }
}

/// The sessions of a node.
pub(crate) fn seen_at(node: &Node) -> impl Iterator<Item = Seen> + use<> {
    let all = node.standing_sessions().into_iter();
    all.map(|(peer, path, session)| Seen {
        peer,
        path: path.to_string(),
        relays: path.via,
        dialled: path.dialled,
        session,
    })
}

/// Which form of the document.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The one that `cepa mesh status` has had from the first: a session has the number of its substreams.
    First,
    Whole,
}

/// Only counts, for the rates of the next look.
pub(super) fn count(look: &Look, rates: &mut Rates, most: Most) {
    let (mut counting, mut room) = (rates.begin(), most.streams_of_all);
    for seen in look.sessions.iter().take(most.sessions) {
        let session = &seen.session;
        counting.session(session);
        let streams = session.streams(most.streams.min(room));
        room = room.saturating_sub(streams.len());
        for stream in streams {
            let stats = stream.stats;
            counting.stream(session, stream.id, (stats.data_in, stats.data_out));
        }
    }
    counting.end();
}

pub(super) fn document(look: &Look, rates: &mut Rates, form: Form, most: Most) -> Value {
    let all = look.sessions.len();
    let mut counting = rates.begin();
    let mut room = most.streams_of_all;
    let sessions = look.sessions.iter().take(most.sessions);
    let sessions: Vec<Value> = sessions
        .map(|seen| match form {
            Form::First => first(seen),
            Form::Whole => session(seen, &mut counting, &mut room, most),
        })
        .collect();
    counting.end();
    let relay = look.relay.map(|stats| {
        json!({
            "registrations": stats.registrations,
            "circuits": stats.circuits,
            "carried": stats.carried,
            "refused": stats.refused,
            "idle": stats.idle,
            "unread": stats.unread,
            "taken_back": stats.taken_back,
            "bytes": stats.bytes,
        })
    });
    let carrier = look.carrier.map(|stats| {
        json!({
            "now": stats.now,
            "carried": stats.carried,
            "refused": stats.refused,
        })
    });
    let mut whole = json!({
        "version": if form == Form::First { 1 } else { 2 },
        "peer": look.own.to_string(),
        "listening": look.listening,
        "services": look.services,
        "registered": ids(&look.registered),
        "sessions": sessions,
        "relay": relay,
        "carrier": carrier,
        "metrics": numbers::values(),
    });
    if let (Form::Whole, Some(fields)) = (form, whole.as_object_mut()) {
        fields.insert("command".into(), look.command.into());
        fields.insert("pid".into(), std::process::id().into());
        fields.insert("age_s".into(), seconds(look.since.elapsed()));
        fields.insert("session_count".into(), all.into());
        let shares = look.shares.iter().map(|it| {
            let value = json!({ "used": it.used, "limit": it.limit });
            (it.resource.to_owned(), value)
        });
        fields.insert("shares".into(), Value::Object(shares.collect()));
        let fleet = look.fleet.as_ref().map(FleetLook::json);
        fields.insert("fleet".into(), fleet.unwrap_or_default());
    }
    whole
}

/// The same for a peer: without what is only this machine's business.
pub(super) fn document_for_peer(look: &Look, rates: &mut Rates) -> Value {
    let mut value = document(look, rates, Form::Whole, FOR_PEER);
    if let Some(fields) = value.as_object_mut() {
        let shown = [
            "version",
            "command",
            "age_s",
            "peer",
            "sessions",
            "session_count",
        ];
        fields.retain(|name, _| shown.contains(&name.as_str()));
    }
    let sessions = value["sessions"].as_array_mut().into_iter().flatten();
    for session in sessions {
        session["name"] = Value::Null;
    }
    value
}

fn ids(all: &[PeerId]) -> Vec<String> {
    all.iter().map(PeerId::to_string).collect()
}

/// To the millisecond.
fn seconds(time: Duration) -> Value {
    rounded(time.as_secs_f64())
}

fn milliseconds(time: Duration) -> Value {
    rounded(time.as_secs_f64() * 1000.0)
}

fn rounded(number: f64) -> Value {
    ((number * 1000.0).round() / 1000.0).into()
}

fn first(seen: &Seen) -> Value {
    json!({
        "peer": seen.peer.to_string(),
        "path": seen.path,
        "relays": ids(&seen.relays),
        "dialled": seen.dialled,
        "streams": seen.session.mux_stats().streams,
    })
}

fn direction(outward: bool) -> &'static str {
    if outward { "out" } else { "in" }
}

/// The fields of a rate.
fn put_rate(fields: &mut Map<String, Value>, rate: Option<Both<f64>>) {
    fields.insert("rate_in".into(), rate.map(|it| it.inward).into());
    fields.insert("rate_out".into(), rate.map(|it| it.outward).into());
}

fn session(seen: &Seen, counting: &mut Counting<'_>, room: &mut usize, most: Most) -> Value {
    let it = &seen.session;
    let (stats, meter) = (it.mux_stats(), it.meter());
    let path = it.path();
    let streams = it.streams(most.streams.min(*room));
    *room = room.saturating_sub(streams.len());
    let streams: Vec<Value> = streams
        .into_iter()
        .map(|info| stream(it, &info, counting))
        .collect();
    let mut value = json!({
        "id": it.number(),
        "peer": seen.peer.to_string(),
        "name": called::name(&seen.peer),
        "direction": direction(seen.dialled),
        "dialled": seen.dialled,
        "path": seen.path,
        "relays": ids(&seen.relays),
        "state": if path.is_some() { "connected" } else { "parked" },
        "age_s": seconds(it.age()),
        "path_age_s": path.as_ref().map(|path| seconds(path.since.elapsed())),
        "round_trip_ms": stats.round_trip.map(milliseconds),
        "bytes_in": meter.bytes_in(),
        "bytes_out": meter.bytes_out(),
        "queued": stats.unsent,
        "unread": stats.unread,
        "layers": match &path {
            Some(path) => layers(seen, &path.layers, path.link.as_ref()),
            None => layers(seen, it.layers(), None),
        },
        "stream_count": stats.streams,
        "streams": streams,
    });
    if let Some(fields) = value.as_object_mut() {
        put_rate(fields, counting.session(it));
    }
    value
}

fn stream(session: &Session, info: &StreamInfo, counting: &mut Counting<'_>) -> Value {
    let stats = info.stats;
    let rate = counting.stream(session, info.id, (stats.data_in, stats.data_out));
    let mut value = json!({
        "id": info.id,
        "service": info.label,
        "direction": direction(!info.by_peer),
        "priority": stats.priority.class(),
        "weight": stats.priority.weight(),
        "age_s": seconds(info.age),
        "quiet_s": seconds(info.quiet),
        "bytes_in": stats.data_in,
        "bytes_out": stats.data_out,
        "queued": stats.unsent,
        "unread": stats.unread,
        "send_window": stats.send_window,
    });
    if let Some(fields) = value.as_object_mut() {
        put_rate(fields, rate);
    }
    value
}

/// From the top to the wire, each with what has passed it.
fn layers(seen: &Seen, tls: &[LayerInfo], link: Option<&LinkInfo>) -> Vec<Value> {
    let it = &seen.session;
    let stats = it.mux_stats();
    let mut all = vec![json!({
        "layer": "mux",
        "data_in": stats.data_in,
        "data_out": stats.data_out,
        "bytes_in": stats.bytes_in,
        "bytes_out": stats.bytes_out,
    })];
    if let Some(stats) = it.path_stats() {
        all.push(json!({
            "layer": "resume",
            "connections": stats.paths,
            "replayed": stats.replayed,
            "held": stats.held,
            "without_s": seconds(stats.without),
            "park_s": seconds(stats.park),
        }));
    }
    // The innermost first.
    all.extend(tls.iter().rev().map(|layer| {
        let (bytes, peer) = (layer.bytes(), layer.peer());
        json!({
            "layer": "tls",
            "version": peer.version().to_string(),
            "cipher_suite": suite(peer.suite()),
            "data_in": bytes.plain_in,
            "data_out": bytes.plain_out,
            "bytes_in": bytes.sealed_in,
            "bytes_out": bytes.sealed_out,
        })
    }));
    if let Some(link) = link {
        let frames = link.stats().unwrap_or_default();
        all.push(json!({
            "layer": "link",
            "data_in": link.data_in(),
            "data_out": link.data_out(),
            "bytes_in": link.bytes_in(),
            "bytes_out": link.bytes_out(),
            "frames_sent": frames.sent,
            "frames_lost": frames.lost,
            "frames_received": frames.received,
            "frames_invalid": frames.invalid,
        }));
    }
    let wire = match seen.path.split_once(' ') {
        _ if !seen.relays.is_empty() => "relay",
        Some((scheme, _)) => scheme,
        None => &seen.path,
    };
    all.push(json!({
        "layer": wire,
        "bytes_in": it.meter().bytes_in(),
        "bytes_out": it.meter().bytes_out(),
    }));
    all
}

/// By its name in RFC 8446, appendix B.4; else by its number.
fn suite(number: u16) -> String {
    match number {
        0x1301 => "TLS_AES_128_GCM_SHA256".to_owned(),
        0x1302 => "TLS_AES_256_GCM_SHA384".to_owned(),
        0x1303 => "TLS_CHACHA20_POLY1305_SHA256".to_owned(),
        other => format!("0x{other:04x}"),
    }
}
