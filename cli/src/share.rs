//! `cepa share`: a node that offers its services to whoever uses its ticket first.
//!
//! Strangers may have a session and open nothing. The first that shows the ticket is then the one peer that the services are open
//! to, and each of its sessions has to show the ticket: so the ticket's end and its uses hold for that peer, too. The
//! ticket stands alone on standard output, once somebody could use it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use cepa::identity::{AcceptAny, Identity, KeyKind, PeerId};
use cepa::node::{Access, PeerAddr};
use cepa::protocols::ticket::{MAX_SERVICES, Ticket, Tickets};
use cepa::tls::TlsConfig;
use cepa::transports;
use tokio::time::Instant;

use crate::accept::Asked;
use crate::args::{self, Service, Target};
use crate::by_mesh;
use crate::claims;
use crate::columns::count;
use crate::control::OfNode;
use crate::events::Report;
use crate::exit::{self, Code, Failure, say};
use crate::keep::{Keep, in_words};
use crate::mesh_node::Mesh;
use crate::reach;
use crate::say::{Line, on_screen};
use crate::service::Services;
use crate::service_check;
use crate::signal::Signals;
use crate::stack::{self, carries_session};
use crate::watched::Watched;
use crate::{folder, id, inviting, settings_file, short_code};

/// How long a ticket lasts where nothing else is said.
const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How often it is looked whether what is open is over, once the ticket is.
const LOOK: Duration = Duration::from_secs(1);

pub(crate) async fn run(args: args::Share) -> Result<(), Failure> {
    check(&args)?;
    let since = Instant::now();
    let now = folder::now();
    let lasts = args.lasts.unwrap_or(A_DAY);
    let expires = args.until.unwrap_or_else(|| folder::in_time(lasts));
    let lasts = Duration::from_secs(expires.as_secs().saturating_sub(now.as_secs()));
    if lasts.is_zero() {
        return Err(Failure::new(
            Code::Usage,
            "--until: that time is over; give one that is to come",
        ));
    }
    let relays = relays(&args)?;
    if args.code && relays.is_empty() {
        return Err(short_code::no_relay());
    }
    let (identity, unsaved) = id::load_unsaved(&args.identity)?;
    let passing = in_passing(&args, identity.peer_id(), &relays)?;
    let (identity, unsaved) = match passing {
        None => (identity, Some(unsaved)),
        Some(passing) => (passing, None),
    };
    let own = identity.peer_id();
    for service in &args.services {
        service.leads_elsewhere(&identity)?;
    }
    reach::check_relays(own, &relays, false)?;
    let through = id::through(own, &relays)?;
    for at in &through {
        stack::warn_of_dead_hints(at.hints());
    }
    // Strangers may have a session; who may open something is said once somebody has shown the ticket.
    let mut config = reach::config(&identity, Arc::new(AcceptAny));
    let keep = Keep::For(None);
    config.stack.resume = keep.config();
    reach::room_for_services(&mut config, None);
    if args.uses.is_some() {
        // A forward that nobody uses for a while is the same use.
        config.idle_timeout = None;
    }
    let mesh = Mesh::new(config)?;
    let node = &mesh.node;
    let inner = TlsConfig::new(&identity, Arc::new(AcceptAny))?;
    let services = Services::on(node, inner, mesh.forwarder.clone(), keep.consoles(None))?;
    for service in &args.services {
        service_check::check(service);
        services.offer(node, service, Access::Nobody)?;
    }
    Report::default().start(node);
    let mut direct = Vec::new();
    for endpoint in &args.listen {
        let listening = node.listen(endpoint).await?;
        say(Line::from(format_args!("listening on {listening} as {own}")).bare());
        direct.extend(inviting::places(&listening, args.public.as_deref()));
    }
    if let Some(unsaved) = unsaved {
        unsaved.save(&identity)?;
    }
    let watched = Watched::open(&args.watching, || {
        Arc::new(OfNode::new("share", since, &mesh))
    });
    let watched = watched.await?;
    let address = inviting::hints(direct, &through)
        .into_iter()
        .try_fold(PeerAddr::new(own), PeerAddr::with_hint)?;
    let ticket = Ticket::new(&address, expires)?;
    let text = ticket.text();
    let text = text.map_err(|e| Failure::of(Code::Usage, &e))?;
    let tickets = {
        let (services, all) = (Arc::clone(&services), args.services.clone());
        let (names, on) = (names(&args.services), node.handle());
        Tickets::on(
            node,
            &ticket,
            names,
            args.uses,
            folder::now,
            move |holder| {
                open_to(holder, &services, &all, &on);
            },
        )
        .map_err(|e| Failure::of(Code::Other, &e))?
    };
    services.ask({
        let tickets = tickets.clone();
        move |session, asks| {
            let judged = match asks {
                Asked::First => tickets.admits(session),
                Asked::Opened => tickets.uses(session),
            };
            Some(judged.err()?.to_string())
        }
    });
    let mut signals = Signals::watch();
    tokio::select! {
        registered = by_mesh::register(&mesh, &relays) => registered?,
        () = signals.asked_to_end() => return Ok(()),
    }
    let offer = if args.code {
        let offered = tokio::select! {
            offered = short_code::offer(node, &relays, lasts) => offered,
            () = signals.asked_to_end() => return Ok(()),
        };
        Some(offered?)
    } else {
        None
    };
    if let Some(offer) = &offer {
        let code = offer.code().text();
        exit::hand_over(&format!("{}\n", *code))?;
        let how = format!(", by a code for {}", in_words(offer.lifetime()));
        announce(&args, on_screen(&code, "CODE"), lasts, &how, "code");
    } else {
        exit::hand_over(&format!("{}\n", *text))?;
        announce(&args, on_screen(&text, "TICKET"), lasts, "", "ticket");
    }
    let mut given = pin!(async {
        if let Some(offer) = offer {
            short_code::give(offer, &text, "cepa share").await?;
            let shown = || tickets.holder().is_some();
            short_code::used("the command above", shown).await;
        }
        std::future::pending::<Result<(), Failure>>().await
    });
    let grace = if args.code {
        short_code::GRACE
    } else {
        Duration::ZERO
    };
    let result = tokio::select! {
        () = signals.asked_to_end() => Ok(()),
        ended = &mut given => ended,
        () = tokio::time::sleep(lasts + grace) => {
            tokio::select! {
                ended = expired(&mesh, &tickets) => ended,
                () = signals.asked_to_end() => Ok(()),
            }
        }
    };
    watched.close().await;
    reach::leave(node, &mut signals, false).await;
    services.end().await;
    result
}

/// What clap cannot see.
fn check(args: &args::Share) -> Result<(), Failure> {
    let usage = |why: String| Err(Failure::new(Code::Usage, why));
    service_check::distinct(&args.services)?;
    if args.services.len() > MAX_SERVICES {
        return usage(format!("a ticket is for at most {MAX_SERVICES} services"));
    }
    for endpoint in &args.listen {
        if !endpoint.accepts_many() || endpoint.place().is_none() {
            return usage(format!(
                "{endpoint}: a friend cannot connect there; use tcp:HOST:PORT"
            ));
        }
        carries_session(endpoint)?;
    }
    Ok(())
}

/// The relays of the command line, else the default one; there has to be some way to get here.
fn relays(args: &args::Share) -> Result<Vec<PeerAddr>, Failure> {
    if !args.relays.is_empty() {
        return Ok(args.relays.clone());
    }
    match settings_file::read()?.relay {
        Some(relay) => Ok(vec![relay]),
        None if !args.listen.is_empty() => Ok(Vec::new()),
        None => Err(Failure::new(
            Code::Usage,
            "nobody could connect: give --relay cepa://RELAYID@ADDR or --listen tcp:HOST:PORT, or a default relay in config.toml (`cepa config path`)",
        )),
    }
}

/// An identity for this once, where another command is registered as us already: the relay would lead its callers here. Whoever has the ticket
/// goes by the id that stands in it.
fn in_passing(
    args: &args::Share,
    own: PeerId,
    relays: &[PeerAddr],
) -> Result<Option<Identity>, Failure> {
    if claims::claim_alone(own, relays) {
        return Ok(None);
    }
    if let Some(file) = &args.identity.path {
        let why = format!(
            "another command uses {} at this relay, and would lose its callers to this one: share all in one command, or give another --identity",
            file.display()
        );
        return Err(Failure::new(Code::Local, why));
    }
    let identity = Identity::generate(KeyKind::Ed25519)?;
    say(format_args!(
        "another command uses this identity at the relay, so this share has an id of its own, {}; a relay that lists whom it serves has to allow it",
        identity.peer_id()
    ));
    Ok(Some(identity))
}

fn names(services: &[Service]) -> Vec<String> {
    services
        .iter()
        .map(|service| service.name.clone())
        .collect()
}

/// The ticket has found its one peer.
fn open_to(holder: PeerId, services: &Arc<Services>, all: &[Service], node: &cepa::node::Node) {
    for service in all {
        // It was offered to nobody before, so this can't fail.
        let _ = services.offer(node, service, Access::peers([holder]));
    }
}

/// What the friend has to run, and how it ends.
fn announce(args: &args::Share, word: &str, lasts: Duration, how: &str, what: &str) {
    let names = names(&args.services).join(", ");
    let uses = match args.uses {
        Some(n) => format!(", {}", count(n.into(), "use")),
        None => String::new(),
    };
    say(Line::from(format_args!(
        "sharing {names} for {}{uses}{how}",
        in_words(lasts)
    ))
    .bare());
    say(Line::from(format_args!(
        "with whoever uses the {what} first; there, run:"
    ))
    .bare());
    let relay = short_code::made_at(args.code, &args.relays);
    for command in commands(&args.services, word, &relay) {
        say(Line::from(command).bare());
    }
    say(Line::from("Ctrl-C here ends it").bare());
}

/// What a friend does with each service: one `forward` for all that have a port, and a command for each of the others.
fn commands(services: &[Service], ticket: &str, relay: &str) -> Vec<String> {
    let alone = services.len() == 1;
    let (mut forward, mut others, mut files) = (String::new(), Vec::new(), Vec::new());
    let mut taken = BTreeSet::new();
    let mut free = |port: u16| {
        let mut ports = (unprivileged(port)..).chain(unprivileged(80)..);
        let port = ports.find(|port| !taken.contains(port));
        port.inspect(|port| {
            taken.insert(*port);
        })
        .unwrap_or_default()
    };
    for service in services {
        let (name, target) = (&service.name, &service.target);
        let of = if alone { "" } else { name };
        let equals = if alone { "" } else { "=" };
        match target {
            Target::Dial(to) => match to.target() {
                transports::Target::Tcp { port, .. } => {
                    let _ = write!(forward, " -L {}{equals}{of}", free(*port));
                }
                transports::Target::Unix { .. } => {
                    let _ = write!(forward, " -L {}{equals}{of}", free(80));
                }
                transports::Target::Exec { pty: true, .. }
                | transports::Target::Serial { .. }
                | transports::Target::Rfc2217 { .. }
                | transports::Target::Pty { .. } => others.push(("console", of.to_owned())),
                _ => others.push(("connect", of.to_owned())),
            },
            Target::Socks(_) => {
                let _ = write!(forward, " -D 1080={name}");
            }
            Target::Files(_) => files.push(format!("cepa cp{relay} {ticket}:{of}/ .")),
            Target::Command(_) => others.push(("exec", format!("--service {name} -- CMD"))),
            _ => others.push(("connect", of.to_owned())),
        }
    }
    let forward = (!forward.is_empty()).then(|| format!("cepa forward{relay} {ticket}{forward}"));
    let others = others.iter().map(|(command, service)| {
        let line = format!("cepa {command}{relay} {ticket} {service}");
        line.trim_end().to_owned()
    });
    forward.into_iter().chain(others).chain(files).collect()
}

/// A port that any user can listen at.
fn unprivileged(port: u16) -> u16 {
    if port < 1024 { port + 8000 } else { port }
}

/// The ticket's time is over: what is open goes on to its end.
async fn expired(mesh: &Mesh, tickets: &Tickets) -> Result<(), Failure> {
    if tickets.holder().is_none() {
        return Err(Failure::new(
            Code::Lost,
            "the ticket expired, and nobody used it; run cepa share again",
        ));
    }
    say("the ticket has expired; this ends when nothing is open any more");
    loop {
        let sessions = mesh.node.sessions();
        // Sessions with relays have substreams of their own.
        let holder = tickets.holder();
        let open = sessions.iter().filter(|(peer, ..)| Some(*peer) == holder);
        if open.map(|(_, _, stats)| stats.streams).sum::<usize>() == 0 {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}
