//! `cepa relay`: a node whose only service is to carry circuits between others.

use std::sync::Arc;
use std::time::Duration;

use cepa::identity::PeerId;
use cepa::node::Hint;
use cepa::protocols::relay::{Relay, RelayConfig};
use cepa::protocols::sealed::CarrierConfig;
use cepa::transports::Endpoint;
use tokio::time::Instant;

use crate::args;
use crate::by_mesh;
use crate::control::OfNode;
use crate::events::Report;
use crate::exit::{Code, Failure, say};
use crate::fleet::Member;
use crate::manager;
use crate::mesh_node::Mesh;
use crate::reach;
use crate::say::Line;
use crate::signal::Signals;
use crate::stack::{carries_session, for_others, only_to_listen, warn_of_dead_hints};
use crate::status_served;
use crate::watched::Watched;
use crate::{id, trust};

/// How long nodes have to register at another relay of the fleet, when this one ends: some dial, wait, and dial again.
const MOVING: Duration = Duration::from_secs(10);

/// How long circuits have that are still there then.
const CARRYING: Duration = Duration::from_secs(3);

pub(crate) async fn run(mut args: args::Relay) -> Result<(), Failure> {
    let since = Instant::now();
    for endpoint in &args.listen {
        carries_session(endpoint)?;
    }
    let (identity, unsaved) = id::load_unsaved(&args.identity)?;
    let reachable = id::through(identity.peer_id(), &args.register)?;
    reach::check_relays(identity.peer_id(), &args.register, args.local_hints.allowed)?;
    // Whoever comes in is served, since nobody else is let in.
    let access = cepa::node::Access::Anyone;
    let mut relay = RelayConfig::new(access.clone());
    relay.registrations = args.registrations;
    relay.circuits = args.circuits;
    relay.circuits_a_peer = args.circuits_a_peer;
    relay.rate = args.rate;
    // The other relays of a fleet are let in as well, and are nobody whom this relay serves.
    let nobody = trust::nobody(&args.allow);
    let member = Member::join(&args.fleet, identity.peer_id(), &mut args.allow, &mut relay).await?;
    let member = member.map(Arc::new);
    let mut config = reach::config(&identity, trust::of_server(&args.allow)?);
    config.local_hints = args.local_hints.allowed;
    if let Some(gate) = &args.gate.limits {
        gate.apply(&mut config.gate);
    }
    by_mesh::room_for_relay(&mut config, &relay);
    let mesh = Mesh::new(config)?;
    let node = &mesh.node;
    let relay = Relay::on(node, relay).map_err(|e| Failure::new(Code::Other, e.to_string()))?;
    let leaving = relay.clone();
    status_served::on(node, "relay", trust::access(args.watchers.allow_status())?)?;
    if args.carry {
        mesh.sealed.carry(Some(CarrierConfig::new(access)));
    }
    for at in &reachable {
        warn_of_dead_hints(at.hints());
    }
    let report = Report {
        by_option: true,
        pins: trust::pins(&args.allow),
        reachable,
        alone: false,
    };
    report.start(node);
    let mut signals = Signals::watch();
    let mut listening = Vec::new();
    if let Some(member) = &member {
        member.start().await;
    }
    for endpoint in &args.listen {
        listening.push(node.listen(endpoint).await?);
    }
    unsaved.save(&identity)?;
    let watched = Watched::open(&args.watchers.watching, || {
        let of_node = OfNode::new("relay", since, &mesh).with_relay(Some(relay));
        Arc::new(of_node.with_fleet(member.clone()))
    });
    let watched = watched.await?;
    if let Some(member) = &member {
        let places = listening
            .iter()
            .flat_map(|at| others_reach(at, &args.public));
        member.reached_at(places.map(Hint::Direct).collect());
    }
    for at in listening {
        say_relaying(&at, identity.peer_id(), &args.public);
    }
    if nobody {
        say(
            "nobody is allowed yet; give --allow PEERID or --allow any. Refused peers are shown here",
        );
    }
    manager::ready();
    let result = tokio::select! {
        failure = by_mesh::stay_registered(&mesh, &args.register) => Err(failure),
        () = signals.asked_to_end() => Ok(()),
    };
    watched.close().await;
    if let Some(member) = &member {
        // A second signal does not wait for who has not gone yet.
        let hurried = tokio::select! {
            () = leaving.leave(MOVING) => false,
            () = signals.asked_to_end() => true,
        };
        member.leave().await;
        if !hurried {
            // The node would end at once: circuits of others do not keep it.
            tokio::select! {
                () = leaving.carried_out(CARRYING) => {}
                () = signals.asked_to_end() => {}
            }
        }
    }
    reach::leave(node, &mut signals, false).await;
    result
}

/// Where others reach what listens there, the best first.
fn others_reach(at: &Endpoint, public: &[String]) -> Vec<Endpoint> {
    if public.is_empty() {
        return for_others(at, None);
    }
    let named = public.iter().flat_map(|host| for_others(at, Some(host)));
    named.collect()
}

/// Where it listens, and the addresses at which others reach it, the best one first.
fn say_relaying(at: &Endpoint, id: PeerId, public: &[String]) {
    let places = others_reach(at, public);
    let wildcard = only_to_listen(at).is_some();
    let all = if wildcard {
        ", which is every address of this machine"
    } else {
        ""
    };
    let mut places = places.iter();
    if let Some(first) = places.next() {
        let text = format_args!("relaying on {at}{all}; servers register at cepa://{id}@{first}");
        say(Line::from(text).with("address", at).bare());
    }
    for other in places {
        say(Line::from(format_args!("or at cepa://{id}@{other}")).bare());
    }
    if wildcard && public.is_empty() {
        say("if others reach this machine by another name or address, give --public HOST");
    }
}
