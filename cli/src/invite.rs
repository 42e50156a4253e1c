//! `cepa invite` and `cepa join`: two people bring their machines together without comparing ids by eye.
//!
//! The inviter listens, prints a code and waits. Whoever connects is a stranger, and gets one service
//! only, the pairing; the one who proves to have the code is written into the known peers, and the
//! command ends. The joiner pins the id in the code, and writes it down under the address in it.

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use cepa::identity::{
    AcceptAny, Identity, Invitation, Learned, NotAdmitted, Origin, PeerId, Pinned,
};
use cepa::node::{Hint, Node, PeerAddr};
use cepa::protocols::code::ShortCode;
use cepa::protocols::pairing::{self, PairingError, join as use_invitation};
use cepa::session::Session;
use cepa::transports::endpoint::hidden;
use cepa::transports::{self, Endpoint};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use crate::args::{Invite, Join};
use crate::by_mesh;
use crate::claims;
use crate::columns::count;
use crate::dial_failure;
use crate::events::Report;
use crate::exit::{self, Code, Failure, say};
use crate::keep::Keep;
use crate::mesh_node::Mesh;
use crate::reach::{self, GOODBYE};
use crate::say::on_screen;
use crate::values::ticket_prefix;
use crate::{folder, id, inviting, qr, settings_file, short_code, stack, trust};

/// How long a session may have nothing open. Who has opened the pairing has as long for its proof, by the protocol itself.
const IDLE: Duration = Duration::from_secs(30);

/// Sessions of one host: those of strangers who want nothing keep nobody at another host out.
const OF_ONE_HOST: usize = 8;

pub(crate) async fn invite(args: Invite) -> Result<(), Failure> {
    // What would only fail when somebody has come.
    if let Some(name) = &args.name {
        inviting::is_free(name, None)?;
    }
    if let Some(control) = &args.control {
        return by_control(&args, control).await;
    }
    if let Some(listen) = &args.listen {
        if !listen.is_socket() {
            return Err(Failure::new(
                Code::Usage,
                format!("{listen}: cannot wait for an invitation there; use tcp: or unix:"),
            ));
        }
        stack::carries_session(listen)?;
    }
    let relays = relays(&args)?;
    let meeting = meeting(&args, &relays)?;
    folder::known_peers()?;
    let identity = id::load(&args.identity)?;
    let own = identity.peer_id();
    reach::check_relays(own, &relays, false)?;
    let through = id::through(own, &relays)?;
    for at in &through {
        stack::warn_of_dead_hints(at.hints());
    }
    // The relay would lead its callers here, who want a service; and this id is the one that the other side is to remember.
    if !claims::claim_alone(own, &relays) {
        return Err(Failure::new(
            Code::Local,
            "another cepa command of yours is registered at this relay, and would lose its callers to this one; invite there instead (`cepa serve … --invite NAME`, or `cepa invite --control PATH` for a node), or without the relay: cepa invite tcp:HOST:PORT",
        ));
    }
    let mut config = reach::config(&identity, Arc::new(AcceptAny));
    config.idle_timeout = Some(IDLE);
    config.shares.sessions.host = OF_ONE_HOST;
    let mesh = Mesh::new(config)?;
    let node = &mesh.node;
    let (mut places, mut waits) = (Vec::new(), Vec::new());
    if let Some(listen) = &args.listen {
        let listening = node.listen(listen).await?;
        places = match &args.at {
            Some(at) => vec![at.clone()],
            None => inviting::places(&listening, None),
        };
        waits.push(format!("listening on {listening}"));
    }
    waits.extend(relays.iter().map(|relay| {
        let id = relay.peer();
        format!("waiting at relay {}…", id.short())
    }));
    let made = inviting::make(own, &inviting::hints(places, &through), args.minutes)?;
    let joining = pairing::invite(node, made.open, folder::now)
        .map_err(|e| Failure::new(Code::Other, e.to_string()))?;
    Report::default().start(node);
    by_mesh::register(&mesh, &relays).await?;
    let offer = match &meeting {
        Some(relays) => Some(short_code::offer(node, relays, made.lasts).await?),
        None => None,
    };
    let code = match &offer {
        Some(offer) => offer.code().text(),
        None => made.code.clone(),
    };
    hand_over(&args, &code)?;
    say(format_args!(
        "{} for {}; on the other machine, run:",
        waits.join(", "),
        count(args.minutes.into(), "minute")
    ));
    let relay = short_code::made_at(args.code, &args.relays);
    // What leads to a listener is called by its host; by a relay there would be only an id.
    let name = match inviting::own_name() {
        Some(name) if args.listen.is_none() => format!(" --name {name}"),
        _ => String::new(),
    };
    say(format_args!(
        "cepa join {}{name}{relay}",
        on_screen(&code, "CODE")
    ));
    let (grace, mut given) = (
        if args.code {
            short_code::GRACE
        } else {
            Duration::ZERO
        },
        pin!(async {
            if let Some(offer) = offer {
                short_code::give(offer, &made.code, "cepa invite").await?;
                short_code::used("cepa join", || false).await;
            }
            std::future::pending::<Result<PeerId, Failure>>().await
        }),
    );
    let joined = tokio::select! {
        joined = joining.joined() => {
            joined.ok_or_else(|| Failure::new(Code::Other, "the listener stopped"))
        }
        ended = &mut given => ended,
        () = tokio::time::sleep(made.lasts + grace) => Err(expired()),
    };
    // The answer has been read by then, or its time for that is over.
    node.shutdown(GOODBYE).await;
    let joiner = joined?;
    let name = inviting::remember(args.name.as_deref(), joiner)?;
    let before = inviting::named_before(&name, args.name.as_deref());
    say(format_args!(
        "{joiner} has joined; remembered as {name}{before}"
    ));
    let place = match relays.first() {
        Some(relay) if args.listen.is_none() => format!("--register {relay}"),
        _ => "tcp:HOST:PORT".to_owned(),
    };
    say(format_args!(
        "to offer it a service: cepa serve {place} --service NAME=ADDR --allow @{name}"
    ));
    Ok(())
}

/// The relays of the command line, else the default one where nothing else is said.
fn relays(args: &Invite) -> Result<Vec<PeerAddr>, Failure> {
    if !args.relays.is_empty() || args.listen.is_some() {
        return Ok(args.relays.clone());
    }
    let default = settings_file::read()?.relay;
    let default = default.ok_or_else(|| {
        Failure::new(
            Code::Usage,
            "give where to listen (tcp:HOST:PORT), --relay cepa://RELAYID@ADDR, or --control PATH for a running node",
        )
    })?;
    Ok(vec![default])
}

/// The relays where a short code can be made, if one is asked for.
fn meeting(args: &Invite, relays: &[PeerAddr]) -> Result<Option<Vec<PeerAddr>>, Failure> {
    if !args.code {
        return Ok(None);
    }
    if !relays.is_empty() {
        return Ok(Some(relays.to_vec()));
    }
    let default = settings_file::read()?
        .relay
        .ok_or_else(short_code::no_relay)?;
    Ok(Some(vec![default]))
}

fn expired() -> Failure {
    Failure::new(
        Code::Lost,
        "the invitation expired, and nobody joined; run cepa invite again",
    )
}

fn hand_over(args: &Invite, code: &str) -> Result<(), Failure> {
    let picture = if args.qr {
        qr::of(code)?
    } else {
        String::new()
    };
    exit::hand_over(&format!("{picture}{code}\n"))
}

/// A running node invites: it gives the code, and says who has joined. It stops inviting when this ends.
async fn by_control(args: &Invite, control: &Path) -> Result<(), Failure> {
    let at = control.display();
    let ended = || {
        let why = format!("{at}: the node said nothing more; is it still running?");
        Failure::new(Code::Lost, why)
    };
    let endpoint = format!("unix:{at}").parse();
    let endpoint: Endpoint = endpoint.map_err(|e| Failure::new(Code::Usage, format!("{e}")))?;
    let stream = transports::dial(&endpoint).await.map_err(|e| {
        Failure::from(e).with(format_args!("is a node running with `control = \"{at}\"`?"))
    })?;
    let (answers, mut asking) = tokio::io::split(stream);
    let wanted = json!({ "name": args.name, "minutes": args.minutes, "short": args.code });
    let asked = json!({ "invite": wanted });
    let sent = asking.write_all(format!("{asked}\n").as_bytes()).await;
    sent.map_err(|_| ended())?;
    let mut answers = BufReader::new(answers).lines();
    while let Ok(Some(line)) = answers.next_line().await {
        let answer: Value = serde_json::from_str(&line).map_err(|_| ended())?;
        let text = |key: &str| answer[key].as_str().map(str::to_owned);
        if let Some(error) = text("error") {
            let status = answer["code"].as_u64().and_then(|n| u8::try_from(n).ok());
            let failure = Failure::new(Code::Refused, error);
            return Err(match status {
                Some(status @ 1..) => failure.exiting(status),
                _ => failure,
            });
        }
        if answer["expired"] == Value::Bool(true) {
            return Err(expired());
        }
        if let Some(code) = text("code") {
            if args.code && answer["short"] != Value::Bool(true) {
                let why = format!("{at}: that node makes no short codes; update it");
                return Err(Failure::new(Code::Refused, why));
            }
            hand_over(args, &code)?;
            say(format_args!(
                "the node invites for {}; on the other machine, run:",
                count(args.minutes.into(), "minute")
            ));
            say(format_args!("cepa join {}", on_screen(&code, "CODE")));
        }
        if let (Some(joined), Some(name)) = (text("joined"), text("name")) {
            let before = inviting::named_before(&name, args.name.as_deref());
            say(format_args!(
                "{joined} has joined; remembered as {name}{before}"
            ));
            say(format_args!(
                "to offer it a service: allow = [\"@{name}\"] in the node's file, then run: cepa reload --control {at}"
            ));
            return Ok(());
        }
        if answer.get("version").is_some() {
            let why = format!("{at}: that node knows no invitations; update it");
            return Err(Failure::new(Code::Refused, why));
        }
    }
    Err(ended())
}

pub(crate) async fn join(args: Join) -> Result<(), Failure> {
    let code = if args.code == "-" {
        let mut line = String::new();
        std::io::stdin()
            .read_line(&mut line)
            .map_err(|e| Failure::new(Code::Local, format!("cannot read the code: {e}")))?;
        line
    } else {
        args.code
    };
    let usage = |e: String| Failure::new(Code::Usage, e);
    // What would only fail when the code is used up.
    if let Some(name) = &args.name {
        inviting::can_be(name)?;
    }
    let (identity, unsaved) = id::load_unsaved(&args.identity)?;
    let short = code.trim();
    let invitation = if ShortCode::is_meant(short) {
        let short: ShortCode = short.parse().map_err(|e| usage(format!("{e}")))?;
        short_code::invitation(&short, &args.code_relay, &identity).await?
    } else {
        args.code_relay.is_for_a_code()?;
        if ticket_prefix(short).is_some() {
            let why = "this is a ticket, and there is nothing to join; give it to `cepa forward` or `cepa connect`";
            return Err(Failure::new(Code::Usage, why));
        }
        code.parse::<Invitation>()
            .map_err(|e| usage(format!("{e}")))?
    };
    if let Some(name) = &args.name {
        inviting::is_free(name, Some(invitation.id()))?;
    }
    // What the inviter may not be there any more to say.
    if identity.is(&invitation.id()) {
        return Err(usage(NotAdmitted::Own.to_string()));
    }
    if folder::now() > invitation.expires() {
        return Err(Failure::new(
            Code::Refused,
            NotAdmitted::Expired.to_string(),
        ));
    }
    let places = places(&invitation, args.at)?;
    unsaved.save(&identity)?;
    let (session, node) = reached(&places, &invitation, &identity)
        .await
        .map_err(|failure| match failure.code {
            // The inviter listens until somebody has joined, or its time is over.
            Code::Connect => failure.with(known_already(&invitation).unwrap_or_else(|| {
                "or the code was used or has expired; then the other side has to run cepa invite again"
                    .to_owned()
            })),
            _ => failure,
        })?;
    let joined = use_invitation(&session, &invitation).await;
    session.close().await;
    if let Some(node) = node {
        node.shutdown(Duration::ZERO).await;
    }
    joined.map_err(|e| match (e, known_already(&invitation)) {
        (PairingError::NotAdmitted(NotAdmitted::Used) | PairingError::NoAnswer, Some(why)) => {
            Failure::new(Code::Refused, why)
        }
        (PairingError::Open(e), _) => Failure::from(e),
        (e, _) => Failure::of(Code::Refused, &e),
    })?;
    // Where it is served later is another matter; known by name it is from now on.
    let (address, rest) = places.split_first().ok_or_else(nowhere)?;
    let place = place_of(address);
    let met = folder::known_peers()?.meet(&place, invitation.id(), Origin::Invited, folder::now());
    also_at(invitation.id(), rest)?;
    match met {
        Ok(Some(Learned::Met { name, id, .. })) => {
            let name = match args.name {
                Some(new) if new != name => {
                    folder::known_peers()?.edit(|known| known.rename(&name, &new))?;
                    new
                }
                _ => name,
            };
            let place = hidden(&place);
            say(format_args!("remembered {id} as {name} ({place})"));
            say(format_args!(
                "to use its services: cepa connect @{name} SERVICE"
            ));
            say(format_args!(
                "if it serves at another address, first run: cepa peer add {name} {id} --at tcp:HOST:PORT"
            ));
        }
        Ok(Some(learned)) => say(learned),
        Ok(None) => {
            let known = folder::known_as(invitation.id());
            let name = known.first().map_or("", |peer| peer.name()).to_owned();
            let name = match args.name {
                Some(new) if new != name => {
                    folder::known_peers()?.edit(|known| known.rename(&name, &new))?;
                    format!("{new} now; it was {name}")
                }
                _ => name,
            };
            say(format_args!(
                "{address} is peer {}, which you already know; it is called {name}",
                invitation.id()
            ));
        }
        Err(refusal) => {
            return Err(match address {
                Hint::Direct(address) => dial_failure::refused(&refusal, address, None),
                relay @ Hint::Relay { .. } => {
                    Failure::new(Code::Identity, format!("{relay}: {refusal}"))
                }
            });
        }
    }
    Ok(())
}

/// What to do without the code, where its inviter is known.
fn known_already(invitation: &Invitation) -> Option<String> {
    let known = folder::known_as(invitation.id());
    let name = exit::quoted(known.first()?.name());
    Some(format!(
        "the code was used, but you know this peer already, as {name}, and need none; run: cepa connect @{name} SERVICE"
    ))
}

fn nowhere() -> Failure {
    let why = "the code does not say where to join; ask for another one";
    Failure::new(Code::Usage, why)
}

/// Where the inviter waits: there at `at`, or as the code says it, as far as that leads through the network.
fn places(invitation: &Invitation, at: Option<Endpoint>) -> Result<Vec<Hint>, Failure> {
    let usage = |e: String| Failure::new(Code::Usage, e);
    let places = if let Some(at) = at {
        vec![Hint::Direct(at)]
    } else {
        let all = invitation.address().split(';').map(str::parse);
        let all: Vec<Hint> = all
            .collect::<Result<_, _>>()
            .map_err(|e| usage(format!("the invitation's address: {e}")))?;
        // A code is somebody else's words: it leads through the network alone, as an address of a peer does.
        if let Some(local) = all.iter().find(|place| !place.is_network()) {
            return Err(usage(format!(
                "the code leads to {local}, which is not a network address; to use it anyway, give --at {}",
                exit::quoted(&local.to_string())
            )));
        }
        all
    };
    for place in &places {
        let Hint::Direct(address) = place else {
            continue;
        };
        if !address.is_socket() {
            return Err(usage(format!(
                "{address}: an invitation needs an address with tcp: or unix:"
            )));
        }
        stack::carries_session(address)?;
        if let Some(better) = stack::only_to_listen(address) {
            say(format_args!(
                "warning: the code's address {address} leads to this machine itself; give --at {better} with the other machine's address"
            ));
        }
    }
    Ok(places)
}

/// A session with the inviter, and the node that it belongs to, where several ways, or a relay, lead there.
async fn reached(
    places: &[Hint],
    invitation: &Invitation,
    identity: &Identity,
) -> Result<(Session, Option<Node>), Failure> {
    if let [Hint::Direct(address)] = places {
        let pinned = Arc::new(Pinned::one(invitation.id()));
        let config = stack::of(identity, pinned).for_endpoint(address);
        let session = Session::dial(address, &config).await;
        return Ok((session.map_err(Failure::from)?, None));
    }
    let all = places.iter().cloned();
    let address = all
        .into_iter()
        .try_fold(PeerAddr::new(invitation.id()), PeerAddr::with_hint)?;
    let (session, node) = reach::dial(&address, identity, false, Keep::Not).await?;
    Ok((session, Some(node)))
}

/// What a place is remembered by.
fn place_of(place: &Hint) -> String {
    match place {
        Hint::Direct(address) => trust::place(address).unwrap_or_default(),
        Hint::Relay { .. } => place.revealed(),
    }
}

/// Writes further places down, where the peer is known.
fn also_at(peer: PeerId, places: &[Hint]) -> Result<(), Failure> {
    let known = folder::known_as(peer);
    let Some(name) = known.first().map(|peer| peer.name().to_owned()) else {
        return Ok(());
    };
    if places.is_empty() {
        return Ok(());
    }
    folder::known_peers()?.edit(|known| {
        known.change(&name, |peer| {
            for place in places.iter().map(place_of) {
                if !peer.places.contains(&place) {
                    peer.places.push(place);
                }
            }
        })
    })?;
    Ok(())
}
