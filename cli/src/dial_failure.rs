//! Why no session came of dialling a place, in the user's words: who would have to do what, or what the command says that was to lead there.

use std::time::Duration;

use cepa::identity::{Identity, KnownPeer, PeerId, Refusal};
use cepa::session::ConnectError;
use cepa::tls::TlsError;
use cepa::transports::endpoint::hidden;
use cepa::transports::{Endpoint, Target};
use tokio::time::timeout;

use crate::child::{End, Watched};
use crate::exit::{self, Code, Failure};
use crate::{ask, folder, trust};

/// How long to wait for what explains an error that has already happened: longer than a command's
/// standard error may be held open by what it left behind (one second).
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(2);

/// A refusal of ours in the user's words, with the command that would mend it; `own`: our id, where that could be who answered.
pub(crate) fn refused(refusal: &Refusal, address: &Endpoint, own: Option<PeerId>) -> Failure {
    if let Some(failure) = somebody_else(refusal, address, own) {
        return failure;
    }
    match refusal {
        Refusal::Unknown { presented } => {
            if let Some(peer) = folder::known_as(*presented).first() {
                return elsewhere(peer, address);
            }
            let run = exit::command_with("--expect", &presented.to_string());
            Failure::new(
                Code::UnknownPeer,
                format!(
                    "at {address}, peer {presented} answered, which you have not trusted yet; \
                     if that is the right peer, run: {run}"
                ),
            )
        }
        Refusal::Changed {
            name, presented, ..
        } => Failure::new(Code::Identity, format!("{address}: {refusal}")).with(format_args!(
            "to accept the new key, run: cepa peer add {} {presented} --replace",
            exit::quoted(name)
        )),
        refusal => Failure::from(TlsError::Refused(refusal.clone())),
    }
}

/// Another one answered than the one that was to, and we know who it is: its key is no new one of anybody's.
pub(crate) fn somebody_else(
    refusal: &Refusal,
    address: &Endpoint,
    own: Option<PeerId>,
) -> Option<Failure> {
    let (presented, meant) = match refusal {
        Refusal::Changed {
            name, presented, ..
        } => (*presented, format!("{name} is known there")),
        Refusal::WrongPeer {
            expected,
            presented,
        } => (
            *presented,
            match expected.as_slice() {
                [one] if folder::known_as(*one).is_empty() => format!("{one} was expected"),
                [one] => format!("{} was expected", folder::known_as(*one).first()?.name()),
                _ => "others were expected".to_owned(),
            },
        ),
        _ => return None,
    };
    if own == Some(presented) {
        return Some(Failure::new(
            Code::Identity,
            format!(
                "at {address}, this machine answered with your own key, {presented}, and {meant}: \
                 the address leads back here; give the one of the other machine"
            ),
        ));
    }
    let known = folder::known_as(presented);
    let (other, place) = (known.first()?, trust::place(address)?);
    let shown = hidden(&place);
    let secrets = if shown == place { "" } else { exit::SECRETS };
    Some(Failure::new(
        Code::Identity,
        format!(
            "at {address}, your known peer {name} answered, and {meant}: no key has changed, the address leads to {name}; \
             if {name} has that address now, run: cepa peer add {quoted} {presented} --at {at}{secrets}",
            name = other.name(),
            quoted = exit::quoted(other.name()),
            at = exit::quoted(&shown),
        ),
    ))
}

/// A known peer answers at a place that it is not known at.
fn elsewhere(peer: &KnownPeer, address: &Endpoint) -> Failure {
    let name = exit::quoted(peer.name());
    let run = match trust::place(address) {
        Some(place) => {
            let shown = hidden(&place);
            let secrets = if shown == place { "" } else { exit::SECRETS };
            format!(
                "to add this address, run: cepa peer add {name} {} --at {}{secrets}",
                peer.id,
                exit::quoted(&shown)
            )
        }
        None => format!(
            "to connect, run: {}",
            exit::command_with("--expect", &format!("@{name}"))
        ),
    };
    Failure::new(
        Code::UnknownPeer,
        format!(
            "at {address}, your known peer {} answered, which is {}; {run}",
            peer.name(),
            ask::places(peer)
        ),
    )
}

/// The same of any failure to meet.
pub(crate) async fn explained(
    e: ConnectError,
    address: &Endpoint,
    identity: &Identity,
    child: Option<Watched>,
) -> Failure {
    let child_may_explain = match exit::tls(&e) {
        Some(refusal @ TlsError::RefusedByPeer { .. }) => {
            let for_our_id = refusal.is_identity_refused();
            if let Some(child) = child {
                // It is just saying who has to do what.
                let _ = timeout(LAST_WORDS, child.ended()).await;
            }
            let failure = Failure::from(e);
            return if for_our_id {
                failure.asking_to_allow(identity.peer_id())
            } else {
                failure
            };
        }
        Some(TlsError::Refused(Refusal::WrongPeer {
            expected,
            presented,
        })) if expected.contains(&identity.peer_id()) => {
            return Failure::new(
                Code::Identity,
                format!(
                    "at {address}, peer {presented} answered, but --expect names this machine's own id; give the other machine's id"
                ),
            );
        }
        Some(TlsError::Refused(mendable @ (Refusal::Unknown { .. } | Refusal::Changed { .. }))) => {
            return refused(mendable, address, Some(identity.peer_id()));
        }
        Some(TlsError::Refused(wrong)) => {
            match somebody_else(wrong, address, Some(identity.peer_id())) {
                Some(failure) => return failure,
                None => false,
            }
        }
        // The command did its part; that it ends now is because we leave.
        Some(TlsError::NotTls { .. }) => false,
        _ => true,
    };
    if let Some(child) = child.filter(|_| child_may_explain)
        && let Ok(end) = timeout(LAST_WORDS, child.ended()).await
    {
        if let Target::Ssh {
            user, host, port, ..
        } = address.target()
        {
            return of_ssh(user.as_deref(), host, *port, &end);
        }
        // It was the command that failed; what TLS saw of that is of no help.
        return Failure::new(
            Code::Connect,
            format!("cannot connect to {address}: {end}; run the command by hand to see more"),
        );
    }
    Failure::from(e)
}

/// What ssh, or the shell at the far end, had to say. Its own words stand above.
fn of_ssh(user: Option<&str>, host: &str, port: Option<u16>, end: &End) -> Failure {
    let user = user.map_or(String::new(), |user| format!("{user}@"));
    let port = port.map_or(String::new(), |port| format!(" -p {port}"));
    let ssh = format!("ssh{port} {user}{host}");
    let line = end.last_line();
    let status = end.exit.and_then(|exit| exit.code());
    // Whether the same may work later, with nothing changed.
    let (why, later) = match status {
        Some(127) => (
            format!(
                "there is no cepa on {host}, or not where ssh finds it; it has to be in the PATH of `{ssh} cepa --version` (for example /usr/local/bin)"
            ),
            false,
        ),
        Some(126) => (
            format!("cepa on {host} may not be executed; see `{ssh} cepa --version`"),
            false,
        ),
        Some(255) if line.contains("resolve hostname") => (
            format!("ssh knows no host {host}; check the name, or name it in ~/.ssh/config"),
            true,
        ),
        Some(255) if line.contains("Permission denied") => (
            format!("ssh is not let in on {host}; first make `{ssh}` work"),
            false,
        ),
        Some(255) if line.contains("Host key verification failed") => (
            format!("ssh does not know the key of {host}, or it has changed; first run `{ssh}`"),
            false,
        ),
        Some(255) => (format!("ssh does not get to {host}; see `{ssh}`"), true),
        _ => (
            format!("{end}; run by hand to see more: {ssh} cepa serve stdio:"),
            true,
        ),
    };
    Failure::new(Code::Connect, format!("cannot connect by ssh: {why}")).passing(later)
}
