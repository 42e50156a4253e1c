//! What `@NAME` stands for: a target of `config.toml`, else the known peer of that name.
//!
//! A name becomes an address before a command sees it, so that everything behind knows peers by their ids alone. Where a target
//! has no address, the known peer of its name says where it is; where it does not say whom to expect, the known peer of
//! its name has to answer.

use cepa::identity::{KnownPeer, PeerId};
use cepa::node::{Hint, PeerAddr, SCHEME};
use cepa::transports::Endpoint;

use crate::exit::{Code, Failure};
use crate::folder;
use crate::settings::{Address, Options, Settings, Target};
use crate::settings_file;
use crate::words::{Expected, nearest};

/// What is dialled.
#[derive(Clone, Debug)]
pub(crate) enum To {
    Place(Endpoint),
    Peer(PeerAddr),
}

/// A name, and what it stands for.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) name: String,
    /// The file that says so, with the line if there is one.
    pub(crate) from: String,
    pub(crate) to: To,
    /// Named behind the name or by the target; empty where neither does.
    pub(crate) service: String,
    /// Of a target, with the known peer of its name as the one to expect.
    pub(crate) options: Options,
}

/// What stands behind the `@` of a word that is a name: `NAME` or `NAME/SERVICE`.
pub(crate) fn in_word(word: &str) -> Option<&str> {
    word.strip_prefix(SCHEME).unwrap_or(word).strip_prefix('@')
}

fn split(word: &str) -> Result<(&str, &str), String> {
    match word.split_once('/') {
        Some((name, "")) => Err(format!(
            "no service after the `/`; give @{name} or @{name}/SERVICE"
        )),
        Some(parts) => Ok(parts),
        None => Ok((word, "")),
    }
}

/// What a name becomes where it is dialled.
pub(crate) fn dialled(word: &str) -> Result<Named, String> {
    let settings = settings_file::read().map_err(|e| e.message)?;
    let (name, service) = split(word)?;
    let Some(target) = settings.targets.get(name) else {
        let known = known(name, &settings)?;
        let mut options = Options::default();
        return Ok(Named {
            name: name.to_owned(),
            from: known_file()?,
            to: where_known(&known, service, &mut options)?,
            service: service.to_owned(),
            options,
        });
    };
    let mut options = target.options.clone();
    if says_nobody(&options) && folder_has(name) {
        options.expect = Some(Expected::Named(name.to_owned()));
    }
    let to = if let Address::Hints(hints) = &target.address
        && let [Hint::Direct(place)] = hints.as_slice()
    {
        To::Place(place.clone())
    } else {
        // A service that only the file names is none that a command line would contradict.
        let address = of_target_peer(name, service, target, &settings)?;
        // Its id is in the address then. The hints are this user's own words.
        options.expect = None;
        options.local_hints |= !address.hints().iter().all(Hint::is_network);
        To::Peer(findable(address)?)
    };
    let service = service_of(service, target);
    let file = settings_file::path().map_err(|e| e.message)?;
    Ok(Named {
        name: name.to_owned(),
        from: format!("{}:{}", file.display(), target.line),
        to,
        service: service.to_owned(),
        options,
    })
}

/// Where the known peers have somebody. What they say is this user's own words, so it may lead to a device or run a command, as an address
/// that is typed may; without such a place it is left to the node, which asks the known peers itself.
fn where_known(known: &KnownPeer, service: &str, options: &mut Options) -> Result<To, String> {
    let hints = known.places.iter().filter_map(|place| place.parse().ok());
    let hints: Vec<Hint> = hints.collect();
    if hints.iter().all(Hint::is_network) {
        return Ok(To::Peer(findable(address_of(known.id, &[], service)?)?));
    }
    if let [Hint::Direct(place)] = hints.as_slice() {
        options.expect = Some(Expected::Named(known.name().to_owned()));
        return Ok(To::Place(place.clone()));
    }
    options.local_hints = true;
    Ok(To::Peer(address_of(known.id, &hints, service)?))
}

/// The peer of a name, where the known peers may have to say where it is.
pub(crate) fn peer(word: &str) -> Result<PeerAddr, String> {
    let settings = settings_file::read().map_err(|e| e.message)?;
    let (name, service) = split(word)?;
    match settings.targets.get(name) {
        Some(target) => of_target_peer(name, service_of(service, target), target, &settings),
        None => address_of(known(name, &settings)?.id, &[], service),
    }
}

/// The same with where a known peer is in it, as far as that is on the network: for an address that others see.
pub(crate) fn placed(word: &str) -> Result<PeerAddr, String> {
    let address = found(peer(word)?)?;
    let hints: Vec<Hint> = address.hints().iter().map(Hint::for_others).collect();
    let hints: Vec<Hint> = hints.into_iter().filter(Hint::is_network).collect();
    address_of(address.peer(), &hints, address.service())
}

/// With where the known peers have it, if it does not say that itself.
pub(crate) fn found(address: PeerAddr) -> Result<PeerAddr, String> {
    let hints: Vec<Hint> = if address.hints().is_empty() {
        let known = folder::known_as(address.peer());
        let places = known.iter().flat_map(|peer| &peer.places);
        places.filter_map(|place| place.parse().ok()).collect()
    } else {
        return Ok(address);
    };
    let hints: Vec<Hint> = hints.into_iter().filter(Hint::is_network).collect();
    address_of(address.peer(), &hints, address.service())
}

/// Whom a name stands for where a peer is expected or allowed: a key, or the known peer of a name, which may replace its key.
pub(crate) fn whom(name: &str) -> Result<Expected, Failure> {
    let settings = settings_file::read()?;
    let usage = |why| Failure::new(Code::Usage, why);
    if let Some(target) = settings.targets.get(name) {
        match (&target.options.expect, &target.address) {
            (Some(Expected::Named(name)), _) => {
                known(name, &settings).map_err(usage)?;
                return Ok(Expected::Named(name.clone()));
            }
            (Some(Expected::Peer(id)), _) => return Ok(Expected::Peer(*id)),
            (None, Address::Peer(address)) => return Ok(Expected::Peer(address.peer())),
            (None, _) => {}
        }
    }
    known(name, &settings).map_err(usage)?;
    Ok(Expected::Named(name.to_owned()))
}

/// What is wrong with a target beyond what its file tells: names that nobody has.
pub(crate) fn check(name: &str) -> Result<(), String> {
    let named = dialled(name)?;
    if let Some(Expected::Named(other)) = &named.options.expect {
        let settings = settings_file::read().map_err(|e| e.message)?;
        known(other, &settings).map_err(|why| format!("{}: expect: {why}", named.from))?;
    }
    Ok(())
}

/// All names that there are; a file that is wrong has none.
#[cfg(feature = "completions")]
pub(crate) fn all() -> Vec<String> {
    let settings = settings_file::read().unwrap_or_default();
    let known = folder::known_peers().ok().and_then(|file| file.read().ok());
    let known = known
        .iter()
        .flat_map(|known| known.peers().map(KnownPeer::name));
    let targets = settings.targets.keys().map(String::as_str);
    targets.chain(known).map(str::to_owned).collect()
}

/// Why the files that have the names cannot be read, if they can't.
pub(crate) fn unreadable() -> Option<Failure> {
    let settings = settings_file::read()
        .err()
        .filter(|failure| failure.code == Code::Local);
    settings.or_else(|| {
        let known = folder::known_peers().ok()?.read();
        Some(Failure::new(Code::Local, known.err()?.to_string()))
    })
}

/// Whether a word without its `@` is a name.
pub(crate) fn has(name: &str) -> bool {
    let settings = settings_file::read().unwrap_or_default();
    settings.targets.contains_key(name) || folder_has(name)
}

/// The same as [`whom`], by the key of this moment.
pub(crate) fn id_of(name: &str) -> Result<PeerId, Failure> {
    match whom(name)? {
        Expected::Peer(id) => Ok(id),
        Expected::Named(name) => known(&name, &Settings::default())
            .map(|peer| peer.id)
            .map_err(|why| Failure::new(Code::Usage, why)),
    }
}

/// With the default relay as its address, where it has none and the known peers have none.
pub(crate) fn findable(address: PeerAddr) -> Result<PeerAddr, String> {
    let known = || {
        let known = folder::known_as(address.peer());
        known.iter().any(|peer| !peer.places.is_empty())
    };
    if !address.hints().is_empty() || known() {
        return Ok(address);
    }
    let settings = settings_file::read().map_err(|e| e.message)?;
    let Some(relay) = settings
        .relay
        .filter(|relay| relay.peer() != address.peer())
    else {
        return Ok(address);
    };
    let through = relay.hints().iter().map(|at| {
        let hint = format!("relay:{}@{at}", relay.peer());
        hint.parse().map_err(|e| format!("{e}"))
    });
    let through: Vec<Hint> = through.collect::<Result<_, String>>()?;
    address_of(address.peer(), &through, address.service())
}

/// The service behind the name, else the target's own.
fn service_of<'a>(given: &'a str, target: &'a Target) -> &'a str {
    match (given, &target.service, &target.address) {
        ("", Some(service), _) => service,
        ("", None, Address::Peer(address)) => address.service(),
        _ => given,
    }
}

fn says_nobody(options: &Options) -> bool {
    options.expect.is_none() && options.trust.is_none() && options.ca.is_none()
}

fn of_target_peer(
    name: &str,
    service: &str,
    target: &Target,
    settings: &Settings,
) -> Result<PeerAddr, String> {
    let hints: &[Hint] = match &target.address {
        Address::Peer(address) => {
            return address_of(address.peer(), address.hints(), service);
        }
        Address::Hints(hints) => hints,
        Address::Known => &[],
    };
    let id = match &target.options.expect {
        Some(Expected::Peer(id)) => *id,
        Some(Expected::Named(other)) => known(other, settings)?.id,
        None if folder_has(name) => known(name, settings)?.id,
        None => {
            let file = settings_file::path().map_err(|e| e.message)?;
            return Err(format!(
                "{}:{}: no peer id is known for @{name}; give `expect = \"PEERID\"` here, or run: cepa peer add {name} PEERID",
                file.display(),
                target.line
            ));
        }
    };
    address_of(id, hints, service)
}

/// The grammar is the library's.
fn address_of(id: PeerId, hints: &[Hint], service: &str) -> Result<PeerAddr, String> {
    let service = match service {
        "" => String::new(),
        service => format!("/{service}"),
    };
    let address = format!("{SCHEME}{id}{service}").parse();
    let address: PeerAddr = address.map_err(|e| format!("{e}"))?;
    let with = |address: PeerAddr, hint: &Hint| {
        address.with_hint(hint.clone()).map_err(|e| format!("{e}"))
    };
    hints.iter().try_fold(address, with)
}

fn known_file() -> Result<String, String> {
    let file = folder::known_peers().map_err(|e| e.message)?;
    Ok(file.path().display().to_string())
}

fn folder_has(name: &str) -> bool {
    let known = folder::known_peers().ok().and_then(|file| file.read().ok());
    known.is_some_and(|known| known.named(name).is_some())
}

/// The known peer of a name, or what may have been meant.
fn known(name: &str, settings: &Settings) -> Result<KnownPeer, String> {
    let file = folder::known_peers().map_err(|e| e.message)?;
    let known = file.read().map_err(|e| e.to_string())?;
    if let Some(peer) = known.named(name) {
        return Ok(peer.clone());
    }
    if let Some((peer, service)) = name.split_once(':')
        && (settings.targets.contains_key(peer) || known.named(peer).is_some())
    {
        let word = |text: &str| {
            if text.is_empty() {
                "SERVICE".to_owned()
            } else {
                text.to_owned()
            }
        };
        let service = word(service);
        return Err(format!(
            "a colon is for files (`cepa cp`); give @{peer}/{service}, or the service as a word of its own: @{peer} {service}"
        ));
    }
    let names = settings.targets.keys().map(String::as_str);
    let all = names.chain(known.peers().map(KnownPeer::name));
    Err(match nearest(name, all) {
        Some(meant) => format!(
            "no known peer is named {name:?}; did you mean @{meant}? `cepa peer ls` lists them"
        ),
        None => format!(
            "no known peer is named {name:?}; `cepa peer ls` lists them, and `cepa peer add NAME PEERID --at ADDR` adds one"
        ),
    })
}
