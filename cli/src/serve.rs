//! `cepa serve`: a node with listeners and services, by its command line.
//!
//! What happens to sessions is printed on standard error. A listener of a stream that there is only once (`stdio:`, `exec:`) ends the command
//! with its session.

use std::sync::Arc;

use cepa::identity::{AcceptAny, Identity, PeerId, TrustPolicy};
use cepa::node::{Access, Listening};
use cepa::protocols::pairing::{self, Joining};
use cepa::tls::TlsConfig;
use cepa::transports::{Endpoint, Target, is_inherited_listener};
use tokio::task::JoinSet;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::args;
use crate::by_mesh;
use crate::columns::count;
use crate::control::OfNode;
use crate::events::Report;
use crate::exit::{self, Code, Failure, say};
use crate::keep::{INVITE_MINUTES, Keep};
use crate::manager;
use crate::mesh_node::Mesh;
use crate::on_network::OnNetwork;
use crate::reach::{self, Bound};
use crate::remote_served;
use crate::say::{Line, on_screen};
use crate::send;
use crate::service::Services;
use crate::service_check;
use crate::signal::Signals;
use crate::silent_line::{Heard, Who};
use crate::stack::{carries_session, warn_of_dead_hints};
use crate::status_served;
use crate::watched::Watched;
use crate::{folder, id, inviting, trust};

pub(crate) async fn run(args: args::Serve) -> Result<(), Failure> {
    check(&args)?;
    let since = Instant::now();
    let (identity, unsaved, more) = id::load_all(&args.identities)?;
    for service in &args.services {
        service.leads_elsewhere(&identity)?;
    }
    if !more.is_empty() && !args.mesh.register().is_empty() {
        say(format_args!(
            "warning: relays know this server only as {}, the first --identity; for another one, run another `cepa serve`",
            identity.peer_id()
        ));
    }
    // Before anything is begun: a relay without an address could be found, but not be named to anybody.
    let reachable = id::through(identity.peer_id(), args.mesh.register())?;
    reach::check_relays(
        identity.peer_id(),
        args.mesh.register(),
        args.local_hints.allowed,
    )?;
    for at in &reachable {
        warn_of_dead_hints(at.hints());
    }
    // Who is invited is a stranger at first, and opens nothing.
    let introduced = !args.mesh.introducers().is_empty() || args.mesh.invite().is_some();
    let trust: Arc<dyn TrustPolicy> = if introduced {
        // Strangers may have a session; what they may open is each service's own question.
        Arc::new(AcceptAny)
    } else {
        trust::of_server(&args.allow)?
    };
    // Whom the trust lets in may open what there is; where it lets strangers in, those who are named.
    let access = if introduced {
        trust::access(&args.allow)?
    } else {
        Access::Anyone
    };
    let inner = TlsConfig::builder(&identity, Arc::clone(&trust))
        .more_identities(&more)
        .build()?;
    let mut config = reach::config(&identity, trust);
    config.stack.more_identities.clone_from(&more);
    config.local_hints = args.local_hints.allowed;
    // To what there is only once nobody can come back.
    let one_stream = |at: &Endpoint| at.has_one_stream() && !is_inherited_listener(at);
    let once = args.mesh.register().is_empty() && args.listen.iter().all(one_stream);
    let keep = if once { Keep::Not } else { args.parking.keep() };
    config.stack.resume = keep.config();
    let consoles = keep.consoles(args.keep_consoles).filter(|_| !once);
    reach::shares_of_a_peer(&mut config, args.sessions_a_peer, args.commands_a_peer);
    reach::room_for_services(&mut config, args.connections_a_session.map(|n| n as usize));
    if let Some(gate) = &args.gate.limits {
        gate.apply(&mut config.gate);
    }
    let heard = Heard::on(&mut config.stack.link, None);
    let network = OnNetwork::start_if(args.mesh.mdns(), identity.peer_id())?;
    let mesh = Mesh::with_state(config, args.mesh.state())?;
    let node = &mesh.node;
    let services = Services::on(node, inner, mesh.forwarder.clone(), consoles)?;
    let remote = remote_served::on(node)?;
    status_served::on(node, "serve", trust::access(args.watchers.allow_status())?)?;
    let places = args.remote.allowed().iter().cloned();
    remote.allow(places.map(|it| (it, access.clone())).collect());
    let introducers = trust::access(args.mesh.introducers())?;
    for service in &args.services {
        services.offer(node, service, access.clone())?;
        if introduced {
            let who = introducers.clone();
            mesh.introducers(&service.name, who);
        }
        if args.mesh.sealed() {
            send::serve(&mesh, service, trust::access(&args.allow)?);
        }
    }
    let report = Report {
        by_option: true,
        pins: if introduced {
            Vec::new()
        } else {
            trust::pins(&args.allow)
        },
        reachable,
        alone: args.mesh.register().is_empty() && args.listen.iter().all(on_stdio),
    };
    report.clone().start(node);
    let alone = args.listen.len() + args.mesh.register().len() == 1;
    let mut bound = Vec::new();
    for endpoint in &args.listen {
        bound.push(reach::bind(node, endpoint, alone).await?);
    }
    unsaved.save(&identity)?;
    let watched = Watched::open(&args.watchers.watching, || {
        Arc::new(OfNode::new("serve", since, &mesh))
    });
    let watched = watched.await?;
    let joining = match args.mesh.invite() {
        Some(name) => Some(invite(&args, name, &mesh, &bound, &identity)?),
        None => None,
    };
    let mut signals = Signals::watch();
    let id = identity.peer_id();
    for bound in &bound {
        // Whoever has started it for one session sees by that session that it is there.
        if let (Bound::Listening(listener), false) = (bound, report.alone) {
            say_listening(listener, id);
        }
        if let (Bound::Listening(listener), Some(network)) = (bound, &network) {
            network.announce(listener.endpoint());
        }
    }
    for other in &more {
        say(format_args!(
            "also as {}, for peers that ask for it",
            other.peer_id()
        ));
    }
    if trust::nobody(&args.allow) && !introduced {
        say(
            "nobody is allowed yet; give --allow PEERID or --allow any. Refused peers are shown here",
        );
    }
    if args.services.is_empty() && args.remote.allowed().is_empty() {
        say(
            "warning: no service is offered; give --service NAME=ADDR, for example --service up=exec:sha256sum",
        );
    }
    args.services.iter().for_each(service_check::check);
    for own in trust::named_among(
        &args.allow,
        &[std::slice::from_ref(&identity), more.as_slice()].concat(),
    ) {
        say(format_args!(
            "note: --allow names this machine's own id, {own}; give the ids of the machines that connect"
        ));
    }
    let mut lines = args.listen.iter().filter(|at| at.is_line());
    if let (Some(line), None) = (lines.next().cloned(), lines.next()) {
        // Of several nobody could tell which one is meant.
        tokio::spawn(async move { heard.tell_why_silent(&line, Who::Serves).await });
    }
    manager::ready();
    if let Some((joining, code)) = joining {
        let (services, node, all) = (Arc::clone(&services), node.handle(), args.services.clone());
        let (name, access) = (args.mesh.invite().map(str::to_owned), access.clone());
        tokio::spawn(async move {
            if let Some(joiner) = joining.joined().await {
                let open = trust::joined(vec![access, Access::peers([joiner])]);
                for service in &all {
                    // It was offered before, so this can't fail.
                    let _ = services.offer(&node, service, open.clone());
                }
                joined(name.as_deref(), joiner);
            }
        });
        exit::hand_over(&format!("{}\n", *code))?;
        let minutes = count(INVITE_MINUTES.into(), "minute");
        say(format_args!(
            "to join within {minutes}, run on the other machine:"
        ));
        say(format_args!("cepa join {}", on_screen(&code, "CODE")));
    }
    let result = tokio::select! {
        ended = all_ended(bound, id, &report), if args.mesh.register().is_empty() => ended,
        failure = by_mesh::stay_registered(&mesh, args.mesh.register()) => Err(failure),
        () = signals.asked_to_end() => Ok(()),
    };
    watched.close().await;
    if let Some(network) = network {
        network.leave().await;
    }
    reach::leave(node, &mut signals, report.alone).await;
    services.end().await;
    result
}

/// Opens an invitation at the node, for who is to have this name; gives its code.
fn invite(
    args: &args::Serve,
    name: &str,
    mesh: &Mesh,
    bound: &[Bound],
    identity: &Identity,
) -> Result<(Joining, Zeroizing<String>), Failure> {
    inviting::is_free(name, None)?;
    let own = identity.peer_id();
    let listening = bound.iter().filter_map(|bound| match bound {
        Bound::Listening(listener) => Some(listener.endpoint()),
        Bound::Absent(_) => None,
    });
    let places = inviting::network_places(listening, args.mesh.public());
    let places = inviting::hints(places, &id::through(own, args.mesh.register())?);
    if places.is_empty() {
        let why =
            "--invite needs a way to get here: listen at tcp:HOST:PORT, or --register at a relay";
        return Err(Failure::new(Code::Usage, why));
    }
    let made = inviting::make(own, &places, INVITE_MINUTES)?;
    let joining = pairing::invite(&mesh.node, made.open, folder::now);
    let joining = joining.map_err(|e| Failure::new(Code::Other, e.to_string()))?;
    Ok((joining, made.code))
}

/// Writes down who has joined, and says how that peer is allowed the next time.
fn joined(name: Option<&str>, joiner: PeerId) {
    let wanted = name;
    match inviting::remember(wanted, joiner) {
        Ok(name) => {
            let before = inviting::named_before(&name, wanted);
            say(format_args!(
                "{joiner} has joined, and may open the services; remembered as {name}{before}"
            ));
            say(format_args!(
                "the next time, give --allow @{name} in place of --invite"
            ));
        }
        Err(failure) => say(format_args!(
            "warning: {joiner} has joined, but cannot be remembered: {failure}"
        )),
    }
}

fn say_listening(listener: &Listening, id: PeerId) {
    let line = Line::from(format_args!("listening on {} as {id}", listener.endpoint()));
    say(line.with("address", listener.endpoint()).bare());
}

fn on_stdio(at: &Endpoint) -> bool {
    matches!(at.target(), Target::Stdio)
}

/// Waits for the end of the last listener; the first failure is the command's.
async fn all_ended(bound: Vec<Bound>, id: PeerId, report: &Report) -> Result<(), Failure> {
    let mut ends = JoinSet::new();
    for bound in bound {
        ends.spawn(async move {
            let mut listener = match bound {
                Bound::Listening(listener) => *listener,
                Bound::Absent(coming) => match coming.await {
                    Ok(listener) => {
                        say_listening(&listener, id);
                        listener
                    }
                    // That is passed on.
                    Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
                    // Only of a node that is shut down.
                    Err(_) => return Ok(()),
                },
            };
            listener.ended().await
        });
    }
    let mut result = Ok(());
    while let Some(end) = ends.join_next().await {
        let failure = match exit::joined(end) {
            Ok(Ok(())) => continue,
            Ok(Err(end)) => report.ended(end),
            Err(failure) => failure,
        };
        if !ends.is_empty() {
            say(format_args!("cepa: {failure}"));
        }
        result = result.and(Err(failure));
    }
    result
}

/// What clap cannot see: addresses that a server has no use for, and names given twice.
fn check(args: &args::Serve) -> Result<(), Failure> {
    let usage = |message: String| Err(Failure::new(Code::Usage, message));
    for endpoint in &args.listen {
        if matches!(endpoint.target(), Target::Memory { .. }) {
            return usage(format!(
                "{endpoint}: nobody outside this process can reach memory:"
            ));
        }
        carries_session(endpoint)?;
    }
    service_check::distinct(&args.services)
}
