//! `cepa serve`: a node with listeners and services, by its command line.
//!
//! What happens to sessions is printed on standard error. A listener of a stream that there is only once (`stdio:`, `exec:`) ends the command
//! with its session.

use std::collections::HashSet;
use std::sync::Arc;

use cepa::identity::{AcceptAny, PeerId, TrustPolicy};
use cepa::node::{Access, Listening};
use cepa::tls::TlsConfig;
use cepa::transports::{Endpoint, Target};
use tokio::task::JoinSet;

use crate::args;
use crate::events::Report;
use crate::exit::{self, Code, Failure, say};
use crate::id;
use crate::keep::Keep;
use crate::reach::{self, Bound, Mesh};
use crate::say::Line;
use crate::send;
use crate::service::Services;
use crate::service_cost;
use crate::signal::Signals;
use crate::stack::{carries_session, warn_of_dead_hints};
use crate::trust;

pub(crate) async fn run(args: args::Serve) -> Result<(), Failure> {
    check(&args)?;
    let (identity, unsaved, more) = id::load_all(&args.identities)?;
    for service in &args.services {
        service.leads_elsewhere(&identity)?;
    }
    if !more.is_empty() && !args.register.is_empty() {
        say(format_args!(
            "warning: relays know this server only as {}, the first --identity; for another one, run another `cepa serve`",
            identity.peer_id()
        ));
    }
    // Before anything is begun: a relay without an address could be found, but not be named to anybody.
    let reachable = id::through(identity.peer_id(), &args.register)?;
    reach::check_relays(identity.peer_id(), &args.register, args.local_hints.allowed)?;
    for at in &reachable {
        warn_of_dead_hints(at.hints());
    }
    let introduced = !args.introducers.is_empty();
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
    let once = args.register.is_empty() && args.listen.iter().all(Endpoint::has_one_stream);
    let keep = if once { Keep::Not } else { args.parking.keep() };
    config.stack.resume = keep.config();
    let consoles = keep.consoles(args.keep_consoles).filter(|_| !once);
    reach::shares_of_a_peer(&mut config, args.sessions_a_peer, args.commands_a_peer);
    reach::room_for_services(&mut config, args.connections_a_session.map(|n| n as usize));
    if let Some(gate) = &args.gate.limits {
        gate.apply(&mut config.gate);
    }
    let mesh = Mesh::with_state(config, args.state.as_deref())?;
    let node = &mesh.node;
    let services = Services::on(node, inner, mesh.forwarder.clone(), consoles)?;
    let introducers = trust::access(&args.introducers)?;
    for service in &args.services {
        services.offer(node, service, access.clone())?;
        if introduced {
            let who = introducers.clone();
            mesh.introductions.introducers(&service.name, who);
        }
        if args.sealed {
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
        alone: args.register.is_empty() && args.listen.iter().all(on_stdio),
    };
    report.clone().start(node);
    let alone = args.listen.len() + args.register.len() == 1;
    let mut bound = Vec::new();
    for endpoint in &args.listen {
        bound.push(reach::bind(node, endpoint, alone).await?);
    }
    unsaved.save(&identity)?;
    let mut signals = Signals::watch();
    let id = identity.peer_id();
    for bound in &bound {
        // Whoever has started it for one session sees by that session that it is there.
        if let (Bound::Listening(listener), false) = (bound, report.alone) {
            say_listening(listener, id);
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
    if args.services.is_empty() {
        say(
            "warning: no service is offered; give --service NAME=ADDR, for example --service up=exec:sha256sum",
        );
    }
    args.services.iter().for_each(service_cost::check);
    for own in trust::named_among(
        &args.allow,
        &[std::slice::from_ref(&identity), more.as_slice()].concat(),
    ) {
        say(format_args!(
            "note: --allow names this machine's own id, {own}; give the ids of the machines that connect"
        ));
    }
    let result = tokio::select! {
        ended = all_ended(bound, id, &report), if args.register.is_empty() => ended,
        failure = mesh.stay_registered(&args.register) => Err(failure),
        () = signals.asked_to_end() => Ok(()),
    };
    reach::leave(node, &mut signals, report.alone).await;
    services.end().await;
    result
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
    let mut names = HashSet::new();
    for service in &args.services {
        if !names.insert(&service.name) {
            return usage(format!(
                "two services are named {}; give each its own name",
                service.name
            ));
        }
    }
    Ok(())
}
