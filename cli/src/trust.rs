//! Whom the commands take a peer for: the policies behind `--expect`, `--trust`, `--trust-new`, `--ca`
//! and `--allow`.
//!
//! A dialler that is told nothing goes by the known peers: whoever is known at that address must answer
//! there. Where nobody is known, nobody is trusted; the message for that carries the command that
//! would let the peer in, and a person at a terminal is asked (`connection.rs`). A server that is told nothing
//! lets nobody in.

use std::sync::Arc;

use cepa::identity::{
    AcceptAny, AnyOf, Identity, PeerId, Pinned, Refusal, TrustKnown, TrustPolicy, place_of,
};
use cepa::node::{Access, Event};
use cepa::tls::Peer;
use cepa::transports::{Endpoint, Target};
use tokio::task::spawn_blocking;

use crate::args::{AllowArg, Expected, Trust};
use crate::exit::{Code, Failure, say};
use crate::{folder, names};

/// What a dialling command was told about the other end.
pub(crate) fn of_dialler(
    args: &Trust,
    address: &Endpoint,
) -> Result<Arc<dyn TrustPolicy>, Failure> {
    let expect = expected(args)?;
    let known: Arc<dyn TrustPolicy> = match (&expect, args.trust, place(address)) {
        (_, Some(_any), _) => Arc::new(AcceptAny),
        (Some(Expected::Peer(id)), ..) => Arc::new(Pinned::one(*id)),
        (Some(Expected::Named(name)), ..) => named(vec![name.clone()])?,
        // ssh has proven who is there, by its own known hosts.
        (None, None, Some(place)) if is_by_ssh(address, args) && nobody_known(&place)? => {
            Arc::new(AcceptAny)
        }
        (None, None, Some(place)) => {
            let known = reporting(TrustKnown::at(folder::known_peers()?, place));
            Arc::new(if args.trust_new {
                known.trusting_new()
            } else {
                known
            })
        }
        (None, None, None) if args.trust_new => {
            return Err(Failure::new(
                Code::Usage,
                format!("no peer can be remembered for {address}; use --expect"),
            ));
        }
        (None, None, None) => Arc::new(Pinned::default()),
    };
    match &args.ca {
        None => Ok(known),
        Some(roots) => Ok(Arc::new(AnyOf::new([known, authority(roots, address)?]))),
    }
}

fn is_by_ssh(address: &Endpoint, args: &Trust) -> bool {
    !args.trust_new && args.ca.is_none() && matches!(address.target(), Target::Ssh { .. })
}

fn nobody_known(place: &str) -> Result<bool, Failure> {
    let known = folder::known_peers()?.read()?;
    Ok(known.at_place(place).next().is_none())
}

/// Whether a policy takes a peer that another command of this machine has met, as it would one of this command's own handshakes.
pub(crate) async fn judged(peer: &Peer, policy: &Arc<dyn TrustPolicy>) -> Result<(), Refusal> {
    let (peer, policy) = (peer.clone(), Arc::clone(policy));
    let judging = spawn_blocking(move || {
        peer.judged_by(&*policy, folder::now())?;
        policy.proven(&peer.presented(folder::now()))
    });
    // It was stopped by a panic, or the process ends.
    judging.await.unwrap_or(Err(Refusal::NoCertificate))
}

/// Writes down the new key of a known peer that was dialled by its old one, and says so. The file's own trouble is no reason to end.
pub(crate) async fn follow(peer: &Peer) {
    let Ok(file) = folder::known_peers() else {
        return;
    };
    if !peer.former_ids().is_empty() {
        let policy: Arc<dyn TrustPolicy> = Arc::new(reporting(TrustKnown::anyone(file)));
        let _ = judged(peer, &policy).await;
    }
}

/// Whom `--expect` names.
pub(crate) fn expected(args: &Trust) -> Result<Option<Expected>, Failure> {
    Ok(match &args.expect {
        Some(Expected::Named(name)) => Some(names::whom(name)?),
        expect => expect.clone(),
    })
}

/// Whom to ask for, where there may be several behind one address.
pub(crate) fn asked_for(args: &Trust) -> Result<Option<PeerId>, Failure> {
    Ok(match &args.expect {
        Some(Expected::Peer(id)) => Some(*id),
        Some(Expected::Named(name)) => Some(names::id_of(name)?),
        None => None,
    })
}

/// What a server was told with `--allow`.
pub(crate) fn of_server(allow: &[AllowArg]) -> Result<Arc<dyn TrustPolicy>, Failure> {
    if allow.iter().any(|who| matches!(who, AllowArg::Any)) {
        // Whoever is listed beside it is still no stranger. By ids: a policy that minds names could refuse others.
        let listed = allow.iter().filter(|who| !matches!(who, AllowArg::Any));
        let Access::Peers(ids) = access(&listed.cloned().collect::<Vec<_>>())? else {
            return Ok(Arc::new(AcceptAny));
        };
        let listed: Arc<dyn TrustPolicy> = Arc::new(Pinned::new(ids));
        return Ok(Arc::new(AnyOf::new([listed, Arc::new(AcceptAny)])));
    }
    let (mut ids, mut named_so, mut list) = (Vec::new(), Vec::new(), false);
    for who in allow {
        match who {
            AllowArg::Any => {}
            AllowArg::Known => list = true,
            AllowArg::Named(name) => match names::whom(name)? {
                Expected::Peer(id) => ids.push(id),
                Expected::Named(name) => named_so.push(name),
            },
            AllowArg::Peer(id) => ids.push(*id),
        }
    }
    let mut policies: Vec<Arc<dyn TrustPolicy>> = vec![Arc::new(Pinned::new(ids))];
    if list {
        policies.push(Arc::new(reporting(TrustKnown::anyone(
            folder::known_peers()?,
        ))));
    } else if !named_so.is_empty() {
        policies.push(named(named_so)?);
    }
    match policies.as_slice() {
        [only] => Ok(Arc::clone(only)),
        _ => Ok(Arc::new(AnyOf::new(policies))),
    }
}

/// Whether these words let nobody in as things are.
pub(crate) fn nobody(allow: &[AllowArg]) -> bool {
    let known = || folder::known_peers().ok()?.read().ok();
    allow.iter().all(|who| matches!(who, AllowArg::Known))
        && (allow.is_empty() || known().is_some_and(|known| known.peers().next().is_none()))
}

/// Whom words like those of `--allow` name, by their ids: names are looked up now.
pub(crate) fn access(words: &[AllowArg]) -> Result<Access, Failure> {
    let one = |word: &AllowArg| {
        Ok(match word {
            AllowArg::Any => Access::Anyone,
            AllowArg::Peer(id) => Access::peers([*id]),
            AllowArg::Known => {
                let known = folder::known_peers()?.read()?;
                Access::peers(known.peers().map(|peer| peer.id))
            }
            AllowArg::Named(name) => Access::peers([names::id_of(name)?]),
        })
    };
    let all = words.iter().map(one).collect::<Result<Vec<_>, Failure>>();
    all.map(joined)
}

/// All of them together.
pub(crate) fn joined(all: Vec<Access>) -> Access {
    let mut ids = Vec::new();
    for access in all {
        match access {
            Access::Anyone => return Access::Anyone,
            Access::Peers(peers) => ids.extend(peers),
            Access::Nobody => {}
        }
    }
    if ids.is_empty() {
        Access::Nobody
    } else {
        Access::peers(ids)
    }
}

/// What an address is remembered by. With several TLS layers there are several peers behind it, and
/// none of them is the address's own.
pub(crate) fn place(address: &Endpoint) -> Option<String> {
    let tls = address.layers().iter().filter(|layer| layer.is_tls());
    remembered(address).filter(|_| tls.count() <= 1)
}

/// An address with its settings, since it is dialled as it stands there, and without its layers. With its secrets: the file is its
/// user's alone, and without its proxy an address leads around that. So it is shown by `hidden` alone.
pub(crate) fn remembered(address: &Endpoint) -> Option<String> {
    place_of(address)?;
    let bare = Endpoint::new(&[], address.target().clone()).ok()?;
    Some(bare.revealed().to_string())
}

/// What there is to say about a peer that was let in: that it is not one of those that were named by
/// their ids, if such were named; and that its certificate has expired.
pub(crate) fn remarks(peer: &Peer, pins: &[PeerId]) -> Vec<String> {
    let id = peer.id();
    let mut remarks = Vec::new();
    if !pins.is_empty() && !pins.contains(&id) {
        remarks.push(format!(
            "warning: an expected peer has replaced its key; its new id is {id}, give that one from now on"
        ));
    }
    if folder::now() > peer.not_after() {
        remarks.push(Event::CertificateExpired { peer: id }.to_string());
    }
    remarks
}

/// The ids that were named, where nobody else is let in.
pub(crate) fn pins(allow: &[AllowArg]) -> Vec<PeerId> {
    let ids = allow.iter().map(|who| match who {
        AllowArg::Peer(id) => Some(*id),
        AllowArg::Any | AllowArg::Known | AllowArg::Named(_) => None,
    });
    ids.collect::<Option<_>>().unwrap_or_default()
}

/// Those of our own ids that were named.
pub(crate) fn named_among(allow: &[AllowArg], own: &[Identity]) -> Vec<PeerId> {
    let own: Vec<PeerId> = own.iter().map(Identity::peer_id).collect();
    let ids = allow.iter().filter_map(|who| match who {
        AllowArg::Peer(id) => Some(*id),
        AllowArg::Any | AllowArg::Known | AllowArg::Named(_) => None,
    });
    ids.filter(|id| own.contains(id)).collect()
}

/// By names that somebody has ([`names::whom`]).
fn named(names: Vec<String>) -> Result<Arc<dyn TrustPolicy>, Failure> {
    let file = folder::known_peers()?;
    Ok(Arc::new(reporting(TrustKnown::named(file, names))))
}

/// What is learned is told.
fn reporting(known: TrustKnown) -> TrustKnown {
    known.observed_by(|learned| say(learned))
}

/// An authority vouches for the host that was dialled.
#[cfg(feature = "ca")]
fn authority(roots: &str, address: &Endpoint) -> Result<Arc<dyn TrustPolicy>, Failure> {
    let Some((host, _)) = address.place() else {
        return Err(Failure::new(
            Code::Usage,
            format!(
                "{address}: --ca needs an address with tcp:, ws:, wss: or quic:, since certificates name hosts"
            ),
        ));
    };
    let failed =
        |e: cepa::identity::CaError| Failure::new(Code::Local, format!("--ca {roots}: {e}"));
    if roots == "system" {
        return system(host);
    }
    Ok(Arc::new(
        cepa::identity::CaRoots::load(roots, &[host]).map_err(failed)?,
    ))
}

#[cfg(feature = "ca")]
fn system(host: &str) -> Result<Arc<dyn TrustPolicy>, Failure> {
    cepa::identity::PlatformRoots::new(host)
        .map(|roots| Arc::new(roots) as Arc<dyn TrustPolicy>)
        .map_err(|e| Failure::new(Code::Local, format!("--ca system: {e}")))
}

#[cfg(not(feature = "ca"))]
fn authority(_roots: &str, _address: &Endpoint) -> Result<Arc<dyn TrustPolicy>, Failure> {
    let why =
        "--ca: this cepa was built without it (feature `ca`); give the peer's id with --expect";
    Err(Failure::new(Code::Usage, why))
}

#[cfg(test)]
mod tests {
    use cepa::Side;
    use cepa::identity::{Presented, UnixTime};

    use super::*;

    #[test]
    fn whoever_is_listed_beside_any_is_no_stranger() {
        let listed = PeerId::from_bytes([1; 32]);
        let trust = of_server(&[AllowArg::Peer(listed), AllowArg::Any]).unwrap();
        let now = UnixTime::now();
        for (id, named) in [(listed, true), (PeerId::from_bytes([2; 32]), false)] {
            let peer = Presented::new(id, None, &[], (now, now), now, Side::Client);
            assert!(trust.decide(&peer).is_ok());
            assert_eq!(trust.names(&peer), named);
        }
    }
}
