//! What a file says otherwise than the one before, for who has asked for a reload: a line each.

use super::config::{Config, Offer};

/// Of what takes effect while the node runs; for the rest it says itself that it has to be started anew.
pub(super) fn between(before: &Config, now: &Config) -> Vec<String> {
    let mut changed = Vec::new();
    for (name, offer) in &now.services {
        match before.services.get(name) {
            None => changed.push(format!("service {name}: new")),
            Some(other) if !is_same(offer, other) => {
                changed.push(format!("service {name}: changed"));
            }
            Some(_) => {}
        }
    }
    let gone = before.services.keys();
    let gone = gone.filter(|name| !now.services.contains_key(*name));
    changed.extend(gone.map(|name| format!("service {name}: withdrawn")));
    let new = |at: &&_| !before.listen.contains(at);
    let listens = now.listen.iter().filter(new);
    changed.extend(listens.map(|at| format!("listen {at}: new")));
    let new = |at: &&_| !before.register.contains(at);
    let relays = now.register.iter().filter(new);
    changed.extend(relays.map(|at| format!("register {at}: new")));
    let relay = |config: &Config| config.relay.as_ref().map(|relay| relay.access.clone());
    for (what, differs) in [
        ("who may be relayed", relay(before) != relay(now)),
        ("sealed messages", before.carrier != now.carrier),
        (
            "who sees all sessions",
            before.allow_status != now.allow_status,
        ),
        ("membranes", before.membranes != now.membranes),
        (
            "where peers may have it listen",
            format!("{:?}", places(before)) != format!("{:?}", places(now))
                || !accesses(before).eq(accesses(now)),
        ),
    ] {
        if differs {
            changed.push(format!("{what}: changed"));
        }
    }
    changed
}

fn places(config: &Config) -> Vec<&crate::remote_place::Places> {
    config.remote.iter().map(|(places, _)| places).collect()
}

fn accesses(config: &Config) -> impl Iterator<Item = &cepa::node::Access> {
    config.remote.iter().map(|(_, access)| access)
}

/// Whether both are the same service for the same peers.
fn is_same(one: &Offer, other: &Offer) -> bool {
    // What it leads to is text in the file, and has one form.
    let target = |offer: &Offer| format!("{:?}", offer.service.target);
    one.access == other.access
        && one.introducers == other.introducers
        && one.sealed == other.sealed
        && one.membrane == other.membrane
        && target(one) == target(other)
}
