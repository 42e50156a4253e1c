//! What all have in common that invite: `cepa invite`, `cepa serve --invite` and a running node. The name that is free, the code with
//! where it leads, what the other side has to run, and writing down who has joined.

use std::time::Duration;

use cepa::identity::{
    EditError, Invitation, KnownPeer, KnownPeers, OpenInvitation, Origin, PeerId,
};
use cepa::node::{Hint, PeerAddr};
use cepa::transports::Endpoint;
use zeroize::Zeroizing;

use crate::exit::{Code, Failure};
use crate::folder;
use crate::stack;

/// Most addresses of one listener in a code, which each make longer.
const ADDRESSES: usize = 3;

/// An invitation, and the text of its code.
pub(crate) struct Made {
    pub(crate) open: OpenInvitation,
    pub(crate) code: Zeroizing<String>,
    pub(crate) lasts: Duration,
}

/// A new invitation of this peer, who is to be found there.
pub(crate) fn make(own: PeerId, places: &[Hint], minutes: u32) -> Result<Made, Failure> {
    let lasts = Duration::from_secs(u64::from(minutes) * 60);
    let expires = folder::in_time(lasts);
    let places: Vec<String> = places.iter().map(Hint::to_string).collect();
    let invitation = Invitation::new(own, &places.join(";"), expires)?;
    let code = invitation
        .code()
        .map_err(|e| Failure::new(Code::Usage, e.to_string()))?;
    Ok(Made {
        open: OpenInvitation::new(invitation),
        code,
        lasts,
    })
}

/// What leads to a peer: places where it listens, then the relays where it is registered.
pub(crate) fn hints(places: Vec<Endpoint>, through: &[PeerAddr]) -> Vec<Hint> {
    let places = places.into_iter().map(Hint::Direct);
    let relays = through.iter().flat_map(|at| at.hints().to_vec());
    let all = places.chain(relays);
    all.map(|hint| hint.for_others()).collect()
}

/// Where others reach those of the listeners that a network leads to.
pub(crate) fn network_places<'a>(
    listening: impl Iterator<Item = &'a Endpoint>,
    public: Option<&str>,
) -> Vec<Endpoint> {
    let listening = listening.filter(|at| at.accepts_many() && at.place().is_some());
    listening.flat_map(|at| places(at, public)).collect()
}

/// Where others reach a listener: loopback only where there is nothing else.
pub(crate) fn places(listening: &Endpoint, public: Option<&str>) -> Vec<Endpoint> {
    let mut all = stack::for_others(listening, public);
    if !all.iter().all(stack::is_loopback) {
        all.retain(|at| !stack::is_loopback(at));
    }
    all.truncate(ADDRESSES);
    all
}

/// Whether somebody can be called so.
pub(crate) fn can_be(name: &str) -> Result<(), Failure> {
    let named = KnownPeer::new(name, PeerId::from_bytes([0; 32]));
    named
        .map(drop)
        .map_err(|e| Failure::new(Code::Usage, e.to_string()))
}

/// What others may call us: this user's name, where it is one of a person.
pub(crate) fn own_name() -> Option<String> {
    let user = std::env::var("USER").ok().filter(|name| name != "root")?;
    let is_plain = user
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    (is_plain && can_be(&user).is_ok()).then_some(user)
}

/// Whether a peer can get this name: one that is meant, where that is known.
pub(crate) fn is_free(name: &str, for_peer: Option<PeerId>) -> Result<(), Failure> {
    let usage = |e: String| Failure::new(Code::Usage, e);
    can_be(name)?;
    match folder::known_peers()?.read()?.named(name) {
        None => Ok(()),
        Some(it) if for_peer == Some(it.id) => Ok(()),
        Some(other) => Err(usage(format!(
            "{name} is already the name of peer {}; choose another name{}",
            other.id,
            match for_peer {
                Some(_) => "",
                None => ": the same peer that joins again keeps this one",
            }
        ))),
    }
}

/// How the names begin that this gives to who has none.
const UNNAMED: &str = "invited";

/// What to say of a peer that is known by another name than it was to get, which others' permissions may go by.
pub(crate) fn named_before(name: &str, wanted: Option<&str>) -> String {
    match wanted {
        Some(wanted) if wanted != name => format!(
            ", as you know it already; to call it {wanted}, run: cepa peer rename {name} {wanted}"
        ),
        _ => String::new(),
    }
}

/// Writes the joiner down, under a name that is free; gives the name. One that is known keeps its own, unless nobody has chosen that.
pub(crate) fn remember(name: Option<&str>, joiner: PeerId) -> Result<String, Failure> {
    let file = folder::known_peers()?;
    Ok(file.edit(|known| written(known, name, joiner))?)
}

fn written(
    known: &mut KnownPeers,
    name: Option<&str>,
    joiner: PeerId,
) -> Result<String, EditError> {
    let there = known.peers().find(|peer| peer.id == joiner);
    if let Some(there) = there.map(|peer| peer.name().to_owned()) {
        known.change(&there, |peer| peer.how = Some(Origin::Invited))?;
        return match name {
            Some(name) if is_unnamed(&there) => {
                known.rename(&there, name)?;
                Ok(name.to_owned())
            }
            _ => Ok(there),
        };
    }
    let name = name.map_or_else(|| known.free_name(UNNAMED), str::to_owned);
    let mut peer = KnownPeer::new(&name, joiner)?;
    peer.first_seen = Some(folder::now());
    peer.how = Some(Origin::Invited);
    known.add(peer)?;
    Ok(name)
}

/// `invited`, `invited-2`, …
fn is_unnamed(name: &str) -> bool {
    let number = name
        .strip_prefix(UNNAMED)
        .map(|rest| rest.strip_prefix('-').unwrap_or(rest));
    number.is_some_and(|number| number.chars().all(|c| c.is_ascii_digit()))
}
