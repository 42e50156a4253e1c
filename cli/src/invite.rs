//! `cepa invite` and `cepa join`: two people bring their machines together without comparing ids by eye.
//!
//! The inviter listens, prints a code and waits. Whoever connects is a stranger, and gets one service
//! only, the pairing; the one who proves to have the code is written into the known peers, and the
//! command ends. The joiner pins the id in the code, and writes it down under the address in it.

use std::sync::Arc;
use std::time::Duration;

use cepa::identity::{
    AcceptAny, EditError, Invitation, KnownPeer, Learned, NotAdmitted, OpenInvitation, Origin,
    PeerId, Pinned, UnixTime,
};
use cepa::node::Node;
use cepa::protocols::pairing::{self, PairingError, join as use_invitation};
use cepa::session::Session;
use cepa::transports::Endpoint;

use crate::args::{Invite, Join};
use crate::columns::count;
use crate::connection;
use crate::events::Report;
use crate::exit::{self, Code, Failure, say};
use crate::folder;
use crate::id;
use crate::qr;
use crate::reach::{self, GOODBYE};
use crate::stack;
use crate::trust;

/// How long a session may have nothing open. Who has opened the pairing has as long for its proof, by the protocol itself.
const IDLE: Duration = Duration::from_secs(30);

/// Sessions of one host: those of strangers who want nothing keep nobody at another host out.
const OF_ONE_HOST: usize = 8;

pub(crate) async fn invite(args: Invite) -> Result<(), Failure> {
    if !args.listen.is_socket() {
        return Err(Failure::new(
            Code::Usage,
            format!(
                "{}: cannot wait for an invitation there; use tcp: or unix:",
                args.listen
            ),
        ));
    }
    stack::carries_session(&args.listen)?;
    let name = args.name.clone();
    let file = folder::known_peers()?;
    // What would only fail when somebody has come.
    if let Some(name) = &name {
        is_free(name)?;
    }
    let identity = id::load(&args.identity)?;
    let mut config = reach::config(&identity, Arc::new(AcceptAny));
    config.idle_timeout = Some(IDLE);
    config.shares.sessions.host = OF_ONE_HOST;
    let node = Node::new(config);
    let listening = node.listen(&args.listen).await?;
    let lasts = Duration::from_secs(u64::from(args.minutes) * 60);
    let expires = UnixTime::since_unix_epoch(Duration::from_secs(
        folder::now().as_secs() + lasts.as_secs(),
    ));
    let address = args.at.as_ref().unwrap_or(&listening);
    let invitation = Invitation::new(identity.peer_id(), &address.to_string(), expires)?;
    let code = invitation
        .code()
        .map_err(|e| Failure::new(Code::Usage, e.to_string()))?;
    let picture = if args.qr {
        qr::of(&code)?
    } else {
        String::new()
    };
    exit::hand_over(&format!("{picture}{}\n", *code))?;
    say(format_args!(
        "listening on {listening} for {}; on the other machine, run: cepa join CODE",
        count(args.minutes.into(), "minute")
    ));
    stack::warn_if_only_to_listen(address, "--at ");
    let joining = pairing::invite(&node, OpenInvitation::new(invitation), folder::now)
        .map_err(|e| Failure::new(Code::Other, e.to_string()))?;
    Report::default().start(&node);
    let joined = match tokio::time::timeout(lasts, joining.joined()).await {
        Ok(joined) => joined.ok_or_else(|| Failure::new(Code::Other, "the listener stopped")),
        Err(_) => Err(Failure::new(
            Code::Lost,
            "the invitation expired, and nobody joined; run cepa invite again",
        )),
    };
    // The answer has been read by then, or its time for that is over.
    node.shutdown(GOODBYE).await;
    let joiner = joined?;
    let name = file.edit(|known| remember(known, name.as_deref(), joiner))?;
    say(format_args!("{joiner} has joined; remembered as {name}"));
    say(format_args!(
        "to offer it a service: cepa serve tcp:HOST:PORT --service NAME=ADDR --allow @{name}"
    ));
    Ok(())
}

/// Whether a peer can get this name.
fn is_free(name: &str) -> Result<(), Failure> {
    let usage = |e: String| Failure::new(Code::Usage, e);
    KnownPeer::new(name, PeerId::from_bytes([0; 32])).map_err(|e| usage(e.to_string()))?;
    match folder::known_peers()?.read()?.named(name) {
        None => Ok(()),
        Some(other) => Err(usage(format!(
            "{name} is already the name of peer {}; choose another name",
            other.id
        ))),
    }
}

/// Writes the joiner down, under a name that is free.
fn remember(
    known: &mut cepa::identity::KnownPeers,
    name: Option<&str>,
    joiner: PeerId,
) -> Result<String, EditError> {
    let there = known.peers().find(|peer| peer.id == joiner);
    if let Some(there) = there.map(|peer| peer.name().to_owned()) {
        known.change(&there, |peer| peer.how = Some(Origin::Invited))?;
        return Ok(there);
    }
    let name = name.map_or_else(|| known.free_name("invited"), str::to_owned);
    let mut peer = KnownPeer::new(&name, joiner)?;
    peer.first_seen = Some(folder::now());
    peer.how = Some(Origin::Invited);
    known.add(peer)?;
    Ok(name)
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
        is_free(name)?;
    }
    let invitation: Invitation = code.parse().map_err(|e| usage(format!("{e}")))?;
    if folder::now() > invitation.expires() {
        return Err(Failure::new(
            Code::Refused,
            NotAdmitted::Expired.to_string(),
        ));
    }
    let address: Endpoint = if let Some(address) = args.at {
        address
    } else {
        let address: Endpoint = invitation
            .address()
            .parse()
            .map_err(|e| usage(format!("the invitation's address: {e}")))?;
        // A code is somebody else's words: it leads through the network alone, as an address of a peer does.
        if !address.is_network() {
            return Err(usage(format!(
                "the code leads to {address}, which is not a network address; to use it anyway, give --at {}",
                exit::quoted(&address.to_string())
            )));
        }
        address
    };
    if !address.is_socket() {
        return Err(usage(format!(
            "{address}: an invitation needs an address with tcp: or unix:"
        )));
    }
    stack::carries_session(&address)?;
    if let Some(better) = stack::only_to_listen(&address) {
        say(format_args!(
            "warning: the code's address {address} leads to this machine itself; give --at {better} with the other machine's address"
        ));
    }
    let identity = id::load(&args.identity)?;
    let pinned = Arc::new(Pinned::one(invitation.id()));
    let config = stack::of(&identity, pinned).for_endpoint(&address);
    let session = Session::dial(&address, &config).await;
    let session = session.map_err(|error| match Failure::from(error) {
        // The inviter listens until somebody has joined, or its time is over.
        gone if gone.code == Code::Connect => gone.with(
            "or the code was used or has expired; then the other side has to run cepa invite again",
        ),
        other => other,
    })?;
    let joined = use_invitation(&session, &invitation).await;
    session.close().await;
    joined.map_err(|e| match e {
        PairingError::Open(e) => Failure::from(e),
        e => Failure::of(Code::Refused, &e),
    })?;
    // Where it is served later is another matter; known by name it is from now on.
    let place = trust::place(&address).unwrap_or_default();
    let met = folder::known_peers()?.meet(&place, invitation.id(), Origin::Invited, folder::now());
    match met {
        Ok(Some(Learned::Met { name, id, .. })) => {
            let name = match args.name {
                Some(new) if new != name => {
                    folder::known_peers()?.edit(|known| known.rename(&name, &new))?;
                    new
                }
                _ => name,
            };
            say(format_args!("remembered {id} as {name} ({place})"));
            say(format_args!(
                "to use its services: cepa connect cepa://@{name}/SERVICE"
            ));
            say(format_args!(
                "if it serves at another address, first run: cepa peer add {name} {id} --at tcp:HOST:PORT"
            ));
        }
        Ok(Some(learned)) => say(learned),
        Ok(None) => say(format_args!(
            "{address} is peer {}, which you already know",
            invitation.id()
        )),
        Err(refusal) => return Err(connection::refused(&refusal, &address)),
    }
    Ok(())
}
