//! `cepa peer`: the known peers, listed and changed. The file is `known_peers` in the configuration
//! folder; the commands do nothing that an editor could not do as well, but lock it meanwhile.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _};
use std::path::Path;

use cepa::identity::{
    EditError, FollowError, KnownPeer, KnownPeers, KnownPeersError, KnownPeersFile,
    KnownPeersProblem, Origin, PeerId, UnixTime, rotations_from_text,
};
use cepa::node::Hint;
use cepa::transports::endpoint::hidden;
use cepa::transports::text::clean;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::args::{Peer, PeerAdd, PeerVerify};
use crate::called;
use crate::columns::{WIDTH, beside};
use crate::exit::{self, Code, Failure, say};
use crate::folder;
#[cfg(feature = "completions")]
use crate::remembered;
use crate::trust;
use crate::words::{WORDS, peer_id};

pub(crate) fn run(args: Peer) -> Result<(), Failure> {
    let file = folder::known_peers()?;
    match args {
        Peer::Ls(args) => list(&file, args.json),
        Peer::Add(args) => add(&file, &args),
        Peer::Rm(args) => {
            let gone = file.edit(|known| known.remove(&args.name))?;
            #[cfg(feature = "completions")]
            remembered::forget(gone.id);
            say(format_args!("forgot {} ({})", gone.name(), gone.id));
            Ok(())
        }
        Peer::Rename(args) => {
            file.edit(|known| known.rename(&args.name, &args.new))?;
            say(format_args!("renamed {} to {}", args.name, args.new));
            Ok(())
        }
        Peer::Verify(args) => verify(&file, &args),
        Peer::Follow(args) => follow(&file, &args.file),
        // Takes a runtime, and is done before this.
        #[cfg(feature = "mdns")]
        Peer::Find(_) => Ok(()),
    }
}

impl From<KnownPeersError> for Failure {
    fn from(e: KnownPeersError) -> Self {
        let code = match e.problem() {
            KnownPeersProblem::Edit(EditError::NoSuchPeer { .. } | EditError::Entry(_)) => {
                Code::Usage
            }
            _ => Code::Local,
        };
        Self::of(code, &e)
    }
}

/// The peers as they stand in the file; lines that name none are told on standard error.
fn list(file: &KnownPeersFile, in_json: bool) -> Result<(), Failure> {
    let known = file.read()?;
    if in_json {
        let all = known.peers().map(json).collect();
        exit::print_json(&format!("{}\n", Value::Array(all)))?;
    } else {
        list_as_text(&known)?;
    }
    let damaged: Vec<_> = known.damaged().collect();
    for line in &damaged {
        say(format_args!(
            "{}: line {}: {}",
            file.path().display(),
            line.number,
            line.problem
        ));
    }
    match damaged.as_slice() {
        [] => Ok(()),
        lines => Err(Failure::new(
            Code::Local,
            format!(
                "{}: {} {} be read; until you fix or remove them, no new peer is trusted",
                file.path().display(),
                lines.len(),
                if lines.len() == 1 {
                    "line can't"
                } else {
                    "lines can't"
                }
            ),
        )),
    }
}

/// As they stand in the file for a program, but for secrets, and in columns for a person.
fn list_as_text(known: &KnownPeers) -> Result<(), Failure> {
    let mut text = String::new();
    if io::stdout().is_terminal() {
        let width = known.peers().map(|peer| peer.name().len()).max();
        // An id has 52 columns.
        let width = width.unwrap_or(0).min(WIDTH - 2 - 52);
        for peer in known.peers() {
            text.push_str(&in_columns(peer, width));
        }
    } else {
        for peer in known.peers() {
            let mut peer = peer.clone();
            for place in &mut peer.places {
                *place = hidden(place);
            }
            let _ = writeln!(text, "{peer}");
        }
    }
    exit::print(&text)
}

/// Longest address that is shown, in bytes.
const MOST_PLACE: usize = 4096;

/// A peer for a person: its name beside what is known of it.
fn in_columns(peer: &KnownPeer, width: usize) -> String {
    let met = peer.how.map(|how| match how {
        Origin::Added => "added by its id",
        Origin::Asked => "trusted at first contact, when you were asked",
        Origin::FirstUse => "trusted at first contact, unseen",
        Origin::Verified => "verified: its id was compared",
        Origin::Invited => "met by an invitation",
        _ => how.word(),
    });
    let since = peer
        .first_seen
        .map(|first| format!("since {}", date(first)));
    let met = met.map(str::to_owned);
    let met: Vec<String> = met.into_iter().chain(since).collect();
    let previous = peer.previous.iter();
    let previous = previous.map(|old| format!("was {} until {}", old.id, date(old.until)));
    let rest = [met.join(", ")].into_iter().filter(|it| !it.is_empty());
    let rest = rest.chain(
        peer.places
            .iter()
            .map(|place| clean(&at(place), MOST_PLACE).into_owned()),
    );
    // A name that is longer than its column stands in a line of its own: what is below it stays in place.
    let mut text = match peer.name() {
        name if name.len() > width => format!("{name}\n{:width$}  {}\n", "", peer.id),
        name => format!("{name:width$}  {}\n", peer.id),
    };
    for line in rest.chain(previous) {
        let _ = writeln!(text, "{}", beside(&format!("{:width$}  ", ""), &line));
    }
    text
}

/// A place. That of a relay is longer than a line, and where its peer is known, no id is needed; the whole of it is in `--json`.
fn at(place: &str) -> String {
    match place.parse() {
        Ok(Hint::Relay { relay, at }) => {
            let whom = called::called(&relay).unwrap_or_else(|| format!("{}…", relay.short()));
            format!("by relay {whom} at {}", hidden(&at.to_string()))
        }
        _ => format!("at {}", hidden(place)),
    }
}

/// The day, in UTC.
fn date(time: UnixTime) -> String {
    let time = moment(time);
    time.split('T').next().unwrap_or_default().to_owned()
}

/// As RFC 3339 has it, in UTC.
fn moment(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let time = OffsetDateTime::from_unix_timestamp(seconds);
    let time = time.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (hour, minute, second) = time.to_hms();
    format!(
        "{:04}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z",
        time.year(),
        u8::from(time.month()),
        time.day()
    )
}

fn json(peer: &KnownPeer) -> Value {
    let previous = peer.previous.iter();
    let previous =
        previous.map(|old| json!({ "id": old.id.to_string(), "until": moment(old.until) }));
    json!({
        "name": peer.name(),
        "id": peer.id.to_string(),
        "first_seen": peer.first_seen.map(moment),
        "how": peer.how.map(Origin::word),
        "addresses": peer.places.iter().map(|place| hidden(place)).collect::<Vec<_>>(),
        "previous": previous.collect::<Vec<_>>(),
    })
}

fn add(file: &KnownPeersFile, args: &PeerAdd) -> Result<(), Failure> {
    let id = given(&args.id)?;
    let mut places = Vec::new();
    for hint in &args.at {
        let place = match hint {
            Hint::Direct(address) => trust::remembered(address),
            Hint::Relay { .. } => Some(hint.revealed()),
        };
        places.push(place.ok_or_else(|| {
            Failure::new(
                Code::Usage,
                format!("{hint} cannot be remembered as a peer's address; leave it out"),
            )
        })?);
    }
    // A new key of the peer would be learned under one of two names alone.
    let same = folder::known_as(id);
    let is_new = file.read()?.named(&args.name).is_none();
    if let Some(other) = same.first()
        && is_new
    {
        let (other, name) = (exit::quoted(other.name()), exit::quoted(&args.name));
        return Err(Failure::new(
            Code::Local,
            format!(
                "this id is already known as {other}; to add an address, use that name; to rename it: cepa peer rename {other} {name}"
            ),
        ));
    }
    let peer = file.edit(|known| {
        let there = known.named(&args.name).map(|peer| peer.id);
        if there == Some(id) {
            // More places of the same peer: what else is known of it stays.
            known.change(&args.name, |peer| {
                for place in &places {
                    peer.add_place(place);
                }
            })?;
        } else if there.is_some() && args.replace {
            known.change(&args.name, |peer| {
                peer.id = id;
                peer.how = Some(Origin::Added);
                // What the old key has signed or was good for says nothing about this one.
                peer.previous.clear();
                for place in &places {
                    peer.add_place(place);
                }
            })?;
        } else {
            let mut peer = KnownPeer::new(&args.name, id)?;
            peer.first_seen = Some(folder::now());
            peer.how = Some(Origin::Added);
            peer.places.append(&mut places);
            known.add(peer)?;
        }
        let missing = || EditError::NoSuchPeer {
            name: args.name.clone(),
        };
        known.named(&args.name).cloned().ok_or_else(missing)
    })?;
    if let Some(other) = same.iter().find(|peer| peer.name() != args.name) {
        say(format_args!(
            "note: {} is also known as {}; `cepa peer rm` removes a name",
            id,
            other.name()
        ));
    }
    let at = if peer.places.is_empty() {
        "without an address".to_owned()
    } else {
        let places: Vec<String> = peer.places.iter().map(|place| hidden(place)).collect();
        format!("at {}", places.join(", "))
    };
    say(format_args!("{} is {}, {at}", peer.name(), peer.id));
    Ok(())
}

/// One of the ways to give an id, in one word or several.
fn given(words: &[String]) -> Result<PeerId, Failure> {
    peer_id(&words.join(" ")).map_err(|e| Failure::new(Code::Usage, e))
}

/// Compares what its owner reads out with what is known, and notes that they agree.
fn verify(file: &KnownPeersFile, args: &PeerVerify) -> Result<(), Failure> {
    let words = args.seen.join(" ");
    let in_words = words.split_whitespace().count() > 1;
    let seen = match given(&args.seen) {
        Ok(id) => Some(id),
        // A word that was misheard may be none of ours.
        Err(_) if words.split_whitespace().count() == WORDS => None,
        Err(failure) => return Err(failure),
    };
    let known = file.edit(|known| {
        let peer = known
            .named(&args.name)
            .ok_or_else(|| EditError::NoSuchPeer {
                name: args.name.clone(),
            })?;
        let id = peer.id;
        if seen == Some(id) {
            known.change(&args.name, |peer| peer.how = Some(Origin::Verified))?;
        }
        Ok(id)
    })?;
    if seen == Some(known) {
        say(format_args!("verified {}: {known}", args.name));
        return Ok(());
    }
    let name = exit::quoted(&args.name);
    let (Some(seen), false) = (seen, in_words) else {
        return Err(Failure::new(
            Code::Identity,
            format!(
                "the words differ: {} is {known}, in words: {}; read them again, and do not use this peer until you know why",
                args.name,
                known.words()
            ),
        ));
    };
    Err(Failure::new(
        Code::Identity,
        format!(
            "the ids differ: {} is {known}, and you gave {seen}; do not use this peer until you know why. \
             If its owner has changed the key, run: cepa peer add {name} {seen} --replace",
            args.name
        ),
    ))
}

/// More than eight statements of the largest keys take.
const MAX_STATEMENTS: u64 = 64 << 10;

/// Follows statements that came by hand. One that is forged, too old or a fork stops it.
fn follow(file: &KnownPeersFile, from: &Path) -> Result<(), Failure> {
    let mut text = String::new();
    let read = if from.as_os_str() == "-" {
        io::stdin().take(MAX_STATEMENTS).read_to_string(&mut text)
    } else {
        File::open(from).and_then(|f| f.take(MAX_STATEMENTS).read_to_string(&mut text))
    };
    read.map_err(|e| Failure::new(Code::Local, format!("{}: {e}", from.display())))?;
    let statements = rotations_from_text(&text)
        .map_err(|e| Failure::new(Code::Usage, format!("{}: {e}", from.display())))?;
    let learned = file.update(|known| {
        let steps = statements
            .iter()
            .map(|step| known.rotate(step, folder::now()));
        steps.collect::<Result<Vec<_>, _>>()
    });
    let learned: Vec<_> = learned?.into_iter().flatten().collect();
    for learned in &learned {
        say(learned);
    }
    if learned.is_empty() {
        return Err(Failure::new(
            Code::Other,
            "no known peer has one of these old keys; `cepa peer ls` lists them",
        ));
    }
    Ok(())
}

impl From<FollowError> for Failure {
    fn from(e: FollowError) -> Self {
        match e {
            FollowError::Store(e) => e.into(),
            FollowError::Rotation(e) => Self::new(Code::Identity, e.to_string()),
            e => Self::new(Code::Local, e.to_string()),
        }
    }
}
