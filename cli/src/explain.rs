//! `cepa explain`: what an address means, layer by layer, or what a peer's address, an introduction or an invitation
//! says. The text of an address is the library's; the others are lines of a word and what it stands for, and
//! nothing is dialled to check them.

use std::fmt::Write as _;

use cepa::identity::{Invitation, KnownPeer, PeerId, UnixTime};
use cepa::node::{Hint, PeerAddr};
use cepa::transports::endpoint::hidden;
use cepa::transports::{Endpoint, Target};
use serde_json::json;

use crate::args::{self, Expected};
use crate::columns::beside;
use crate::exit::{self, Code, Failure};
use crate::folder;
use crate::keep::in_words;
use crate::names::To;
use crate::references::{Introduction, Ticket};
use crate::settings::{Options, Trusting};
use crate::stack::few_layers;
use crate::values::Explained;

pub(crate) fn run(args: &args::Explain) -> Result<(), Failure> {
    let (kind, all) = explained(&args.address)?;
    if args.json {
        let all = all.iter();
        let all = all.map(|(word, meaning)| json!({ "word": word, "meaning": meaning }));
        let whole = json!({ "kind": kind, "lines": all.collect::<Vec<_>>() });
        exit::print_json(&format!("{whole}\n"))?;
    } else {
        // The words of layers are short, and the other ones differ from line to line.
        let least = if kind == ADDRESS { 0 } else { 8 };
        exit::print(&lines(&all, least))?;
    }
    is_usable(&args.address)
}

/// What reads well, and no command can dial.
fn is_usable(it: &Explained) -> Result<(), Failure> {
    let place = match it {
        Explained::Place(place) => place,
        Explained::Named(named) => match &named.to {
            To::Place(place) => place,
            To::Peer(_) => return Ok(()),
        },
        _ => return Ok(()),
    };
    match place.target() {
        Target::Quic { settings, .. } if settings.proxy.is_some() => Err(Failure::new(
            Code::Usage,
            "this cannot be dialled: QUIC goes by no proxy; use tcp: or wss:, or leave the proxy out",
        )),
        _ => Ok(()),
    }
}

/// What sort of thing it is, and what is to be said of it.
fn explained(it: &Explained) -> Result<(&'static str, Vec<Line>), Failure> {
    Ok(match it {
        Explained::Named(named) => {
            let mut all = vec![("name", format!("@{}, from {}", named.name, named.from))];
            match &named.to {
                To::Peer(address) => all.extend(of_peer(address, BY_NAME)),
                To::Place(place) => {
                    all.push(("address", place.to_string()));
                    all.push(("at", transport(place)));
                }
            }
            let in_address = matches!(&named.to, To::Peer(it) if !it.service().is_empty());
            if !named.service.is_empty() && !in_address {
                all.retain(|(word, _)| *word != "service");
                all.push(("service", named.service.clone()));
            }
            all.extend(options(&named.options));
            ("name", all)
        }
        Explained::Place(address) => {
            few_layers(address)?;
            let explanation = cepa::stack::explain(address);
            let all = explanation.lines();
            let all = all.map(|(word, meaning)| (word, meaning.to_owned()));
            (ADDRESS, all.collect())
        }
        Explained::Peer(address) => ("peer", of_peer(address, BY_ADDRESS)),
        Explained::Introduction(it) => ("introduction", of_introduction(it)),
        Explained::Invitation(it) => ("invitation", of_invitation(it)),
        Explained::Ticket(it) => ("ticket", of_ticket(it)),
        Explained::Code => ("code", of_code()),
    })
}

/// When hints are followed that are no network connections: those of a name are its owner's own, an address may come from anybody.
const BY_NAME: &str = "for this name";
const BY_ADDRESS: &str = "for its name, or with --local-hints";

/// The address of a place.
const ADDRESS: &str = "address";

/// A word, and what it stands for.
type Line = (&'static str, String);

fn lines(all: &[Line], least: usize) -> String {
    let words = all.iter().map(|(word, _)| word.len());
    let width = words.max().unwrap_or(0).max(least);
    let mut text = String::new();
    for (word, meaning) in all {
        let _ = writeln!(text, "{}", beside(&format!("{word:width$}  "), meaning));
    }
    text
}

/// `local` says when hints are followed that are no network connections.
fn of_peer(address: &PeerAddr, local: &str) -> Vec<Line> {
    let service = match address.service() {
        "" => "the only one that the peer offers, unless the command names one".to_owned(),
        service => service.to_owned(),
    };
    let mut all = vec![("service", service), ("peer", who(address.peer()))];
    all.extend(address.hints().iter().map(|hint| ("at", at(hint, local))));
    if address.hints().is_empty() {
        let known = folder::known_as(address.peer());
        let places = known.iter().flat_map(|peer| &peer.places);
        let before = all.len();
        all.extend(places.map(|place| {
            let place = place
                .parse()
                .map_or_else(|_| hidden(place), |hint| at(&hint, local));
            ("at", format!("{place}; as the known peers have it"))
        }));
        if all.len() == before {
            let why = "not given, and not known: `cepa peer add NAME PEERID --at ADDR` adds it";
            all.push(("at", why.to_owned()));
        }
    }
    all
}

/// What a target of `config.toml` says beside its address.
fn options(options: &Options) -> Vec<Line> {
    let expect = options.expect.as_ref().map(|expect| match expect {
        Expected::Peer(id) => who(*id),
        Expected::Named(name) => format!("the known peer {name}"),
    });
    let trust = options.trust.map(|trust| match trust {
        Trusting::Any => "any peer".to_owned(),
        Trusting::New => "whoever answers first, and later only that peer".to_owned(),
    });
    let durable = match (options.durable, options.park) {
        (Some(false), _) => Some("no".to_owned()),
        (_, Some(time)) => Some(format!("for up to {}", in_words(time))),
        (Some(true), None) => Some("yes".to_owned()),
        (None, None) => None,
    };
    let escape = options.escape.map(|escape| match escape.byte() {
        Some(byte) => crate::words::key(byte),
        None => "none".to_owned(),
    });
    let identity = options.identity.as_ref();
    let log = options.log.as_ref();
    let all = [
        ("expect", expect),
        ("trust", trust),
        ("ca", options.ca.clone()),
        ("kept", durable),
        ("again", options.reconnect.then(|| "reconnects".to_owned())),
        (
            "shared",
            options.control.map(|yes| yes_or_no(yes).to_owned()),
        ),
        ("escape", escape),
        ("log", log.map(|file| file.display().to_string())),
        ("identity", identity.map(|file| file.display().to_string())),
    ];
    let said = all.into_iter().filter_map(|(word, it)| Some((word, it?)));
    said.collect()
}

fn yes_or_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

fn of_introduction(it: &Introduction) -> Vec<Line> {
    let all = it.address();
    let mut all = all.map(|to| of_peer(to, "never")).unwrap_or_default();
    let recipient = match it.recipient() {
        Some(id) => who(id),
        None => "whoever uses it first".to_owned(),
    };
    all.push(("for", recipient));
    all.extend(it.issuers().into_iter().map(|id| ("from", who(id))));
    all.push(("uses", uses(it.uses())));
    all.push(("further", further(it.further())));
    all.push(("until", time(it.expires())));
    all.push((
        "checked",
        "not checked here; the owner of the service checks it when it is used".to_owned(),
    ));
    all
}

/// How many connections there are in it.
pub(crate) fn uses(uses: Option<u32>) -> String {
    match uses {
        None => "any number of times".to_owned(),
        Some(1) => "once".to_owned(),
        Some(n) => format!("{n} times"),
    }
}

/// Whether it can be passed on.
pub(crate) fn further(further: u8) -> String {
    match further {
        0 => "may not be passed on".to_owned(),
        1 => "may be passed on once".to_owned(),
        n => format!("may be passed on {n} times in a row"),
    }
}

fn of_invitation(it: &Invitation) -> Vec<Line> {
    let place = match it.address().parse::<Endpoint>() {
        Ok(endpoint) => transport(&endpoint),
        Err(_) => it.address().to_owned(),
    };
    vec![
        ("peer", who(it.id())),
        ("at", place),
        ("until", time(it.expires())),
        ("secret", "lets whoever has the code join, once".to_owned()),
    ]
}

fn of_ticket(it: &Ticket) -> Vec<Line> {
    let mut all = of_peer(it.address(), "never");
    all.retain(|(word, _)| *word != "service");
    all.push(("until", time(it.expires())));
    let secret = "opens what the peer shares, to whoever uses the ticket first";
    all.push(("secret", secret.to_owned()));
    all
}

/// A code has nothing in it but what it is found by.
fn of_code() -> Vec<Line> {
    [
        ("number", "where it waits at the relay that it was made at"),
        ("words", "its secret, which the relay does not learn; it is good for one peer"),
        ("leads to", "a ticket (connect, forward, console, exec, cp, services, ping), or an invitation (join)"),
    ]
    .map(|(word, meaning)| (word, meaning.to_owned()))
    .into()
}

/// A peer, with the names that it has here.
fn who(id: PeerId) -> String {
    let known = folder::known_as(id);
    let names: Vec<&str> = known.iter().map(KnownPeer::name).collect();
    if names.is_empty() {
        id.to_string()
    } else {
        format!("{id}, known here as {}", names.join(" and "))
    }
}

/// The transport of a hint, then the relays on the way to it.
fn at(hint: &Hint, local: &str) -> String {
    match hint {
        Hint::Direct(endpoint) => {
            let note = if endpoint.is_network() {
                String::new()
            } else {
                format!(" (no network connection: followed {local})")
            };
            format!("{}{note}", transport(endpoint))
        }
        Hint::Relay { relay, at: before } => {
            format!("the relay {}, at: {}", who(*relay), at(before, local))
        }
    }
}

/// What an address leads to, below its layers.
fn transport(endpoint: &Endpoint) -> String {
    let explanation = cepa::stack::explain(endpoint);
    let transport = explanation.lines().last();
    transport.map_or_else(String::new, |(_, text)| text.to_owned())
}

/// How long there is until then.
fn time(until: UnixTime) -> String {
    match left(until) {
        left if left.is_empty() => "expired".to_owned(),
        left => format!("{left} from now"),
    }
}

/// The same as a length; empty where it has passed.
pub(crate) fn left(until: UnixTime) -> String {
    let left = until.as_secs().saturating_sub(folder::now().as_secs());
    let (days, hours, minutes) = (left / 86_400, left / 3600 % 24, left / 60 % 60);
    match (left, days, hours) {
        (0, ..) => String::new(),
        (_, 0, 0) => format!("{minutes} min"),
        (_, 0, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}
