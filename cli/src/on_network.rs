//! Peers on the local network, by multicast DNS: a node that announces itself, and who is heard.
//!
//! What is announced is a peer id and where it listens, and nothing else. Nobody has to believe it: whoever dials such an address has the
//! peer prove its key.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cepa::identity::{KnownPeers, PeerId};
use cepa::node::{Announcement, Hint, Mdns, MdnsConfig, ResolveError};
use cepa::transports::{Endpoint, Target};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::args::{IdentityFile, Multicast, PeerFind};
use crate::columns::beside;
use crate::exit::{self, Code, Failure, say};
use crate::stack::is_loopback;
use crate::{folder, id};

/// A node's announcements: one for each port.
#[derive(Debug)]
pub(crate) struct OnNetwork {
    mdns: Mdns,
    own: PeerId,
    scope: Multicast,
    announced: Mutex<BTreeMap<u16, Announced>>,
}

#[derive(Debug)]
struct Announced {
    /// None stand for all of this machine's.
    addresses: Vec<IpAddr>,
    announcement: Announcement,
}

impl OnNetwork {
    /// Begins to listen, where that is wanted.
    pub(crate) fn start_if(
        scope: Option<Multicast>,
        own: PeerId,
    ) -> Result<Option<Arc<Self>>, Failure> {
        let start = |scope| {
            Ok(Arc::new(Self {
                mdns: listen(scope, true)?,
                own,
                scope,
                announced: Mutex::default(),
            }))
        };
        scope.map(start).transpose()
    }

    /// Announces a listener that others can dial; says why where they can't.
    pub(crate) fn announce(&self, at: &Endpoint) {
        let why = match self.scope {
            _ if !matches!(at.target(), Target::Tcp { .. }) => return,
            _ if !at.layers().is_empty() => "its layers are not announced",
            Multicast::Network if is_loopback(at) => "only this machine can dial it",
            Multicast::Network | Multicast::Loopback(_) => {
                if let Err(e) = self.announced_at(at) {
                    let e = failure(&e);
                    say(format_args!("warning: {at} is not announced: {e}"));
                }
                return;
            }
        };
        say(format_args!("note: --mdns does not announce {at}: {why}"));
    }

    fn announced_at(&self, at: &Endpoint) -> Result<(), ResolveError> {
        let Some((host, port)) = at.place() else {
            return Ok(());
        };
        let address = host.trim_matches(['[', ']']).parse().ok();
        let address = address.filter(|ip: &IpAddr| !ip.is_unspecified());
        let mut addresses: Vec<IpAddr> = address.into_iter().collect();
        let mut all = self.all();
        if let Some(other) = all.get(&port) {
            if other.addresses.is_empty() {
                return Ok(());
            }
            if !addresses.is_empty() {
                addresses.extend(&other.addresses);
                addresses.sort_unstable();
                addresses.dedup();
            }
        }
        // Taken back first: it has the same name.
        all.remove(&port);
        let announcement = self.mdns.announce_at(self.own, port, &addresses)?;
        let announced = Announced {
            addresses,
            announcement,
        };
        all.insert(port, announced);
        Ok(())
    }

    /// Takes all of it back.
    pub(crate) async fn leave(&self) {
        let all = std::mem::take(&mut *self.all());
        for announced in all.into_values() {
            announced.announcement.withdraw().await;
        }
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<u16, Announced>> {
        self.announced
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn listen(scope: Multicast, announce_only: bool) -> Result<Mdns, Failure> {
    let mut config = MdnsConfig::default().with_announce_only(announce_only);
    if let Multicast::Loopback(port) = scope {
        config.loopback_only = true;
        config.port = port.unwrap_or(config.port);
    }
    Mdns::new(config).map_err(|e| Failure::new(Code::Local, failure(&e)))
}

fn failure(e: &ResolveError) -> String {
    format!("multicast DNS (UDP port 5353) does not work here: {e}")
}

/// Somebody who was heard.
struct Found {
    name: Option<String>,
    id: PeerId,
    at: Vec<String>,
}

/// `cepa peer find`.
pub(crate) async fn find(args: PeerFind) -> Result<(), Failure> {
    let mdns = listen(args.mdns, false)?;
    sleep(Duration::from_secs_f64(args.time)).await;
    let known = folder::known_peers()?.read()?;
    let own = id::load_unsaved(&IdentityFile { path: None });
    let own = own.ok().filter(|(_, unsaved)| !unsaved.is_new());
    let found = sorted(mdns.heard(), &known, own.map(|(own, _)| own.peer_id()));
    if args.json {
        let all = found
            .iter()
            .map(|it| json!({ "name": it.name, "id": it.id.to_string(), "addresses": it.at }));
        exit::print_json(&format!("{}\n", Value::Array(all.collect())))?;
    }
    if found.is_empty() {
        let why = format!(
            "nobody was heard in {} s; peers announce themselves with `cepa serve --mdns`, on the same network",
            args.time
        );
        return Err(Failure::new(Code::Other, why));
    }
    if args.json {
        return Ok(());
    }
    exit::print(&in_text(&found, io::stdout().is_terminal()))
}

/// Who is known comes first, then by name and id.
fn sorted(heard: Vec<(PeerId, Vec<Hint>)>, known: &KnownPeers, own: Option<PeerId>) -> Vec<Found> {
    let mut found: Vec<Found> = heard
        .into_iter()
        .filter(|(id, _)| own != Some(*id))
        .map(|(id, hints)| {
            let peer = known.peers().find(|peer| peer.id == id);
            Found {
                name: peer.map(|peer| peer.name().to_owned()),
                id,
                at: hints.iter().map(Hint::to_string).collect(),
            }
        })
        .collect();
    found.sort_by(|a, b| (a.name.is_none(), &a.name, a.id).cmp(&(b.name.is_none(), &b.name, b.id)));
    found
}

/// A line for each of them, or for a person a line for each address.
fn in_text(found: &[Found], for_person: bool) -> String {
    let name = |it: &Found| it.name.clone().unwrap_or_else(|| "-".to_owned());
    let width = found
        .iter()
        .map(|it| name(it).len())
        .max()
        .unwrap_or(0)
        .min(26);
    let mut text = String::new();
    for it in found {
        let _ = if for_person {
            let at = format!("at {}", it.at.join(", "));
            let at = beside(&format!("{:width$}  ", ""), &at);
            writeln!(text, "{:width$}  {}\n{at}", name(it), it.id)
        } else {
            writeln!(text, "{} {} {}", name(it), it.id, it.at.join(" "))
        };
    }
    text
}
