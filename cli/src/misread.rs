//! What was meant by a word that is no address.

use cepa::identity::PeerId;
use cepa::transports::{Endpoint, ParseError, Target};

use crate::names;

/// Whether it is the address of a peer but for what that begins with.
pub(crate) fn without_scheme(word: &str) -> bool {
    let id = word.split_once('@').map_or("", |(id, _)| id);
    id.parse::<PeerId>().is_ok()
}

/// What else than an endpoint could have stood there, where it begins like none.
pub(crate) fn not_a_place(word: &str, e: &ParseError) -> String {
    if names::has(word) {
        return format!("for the peer of that name, give @{word}");
    }
    if without_scheme(word) {
        return format!("a peer's address begins with cepa://: cepa://{word}");
    }
    if word.starts_with("cepa-invitation:") {
        return "this is an invitation; give it to `cepa join`".to_owned();
    }
    if let Some((place, service)) = word.rsplit_once('/')
        && !service.is_empty()
        // An option that is wrong has what follows a device's last `/`.
        && !service.contains([',', '='])
        && let Ok(at) = place.parse::<Endpoint>()
        // A WebSocket has a path of its own.
        && !matches!(at.target(), Target::Ws { .. })
    {
        return format!("{e}; write the service as a separate word: {place} {service}");
    }
    if e.expected().contains("scheme") && e.nearest().is_none() {
        let by_ssh = format!("ssh:{word}");
        // As `ssh` takes it.
        let ssh = match by_ssh.parse::<Endpoint>() {
            Ok(_) if !word.contains(':') => format!("; with a login there, {by_ssh}"),
            _ => String::new(),
        };
        format!("{e}, or a peer: cepa://PEERID@ADDR/SERVICE or @NAME{ssh}")
    } else {
        e.to_string()
    }
}
