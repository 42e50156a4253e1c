//! `cepa peer`: the known peers, listed and changed. The file is `known_peers` in the configuration
//! folder; the commands do nothing that an editor could not do as well, but lock it meanwhile.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _};
use std::path::Path;

use cepa::identity::{
    EditError, FollowError, KnownPeer, KnownPeersError, KnownPeersFile, KnownPeersProblem, Origin,
    PeerId, place_of, rotations_from_text,
};
use cepa::node::Hint;

use crate::args::{Peer, PeerAdd, PeerVerify};
use crate::columns::beside;
use crate::exit::{self, Code, Failure, say};
use crate::folder;
use crate::words::{WORDS, peer_id};

pub(crate) fn run(args: Peer) -> Result<(), Failure> {
    let file = folder::known_peers()?;
    match args {
        Peer::Ls => list(&file),
        Peer::Add(args) => add(&file, &args),
        Peer::Rm(args) => {
            let gone = file.edit(|known| known.remove(&args.name))?;
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
fn list(file: &KnownPeersFile) -> Result<(), Failure> {
    let known = file.read()?;
    let mut text = String::new();
    // As they stand in the file for a program, and in columns for a person.
    let in_columns = io::stdout().is_terminal();
    let width = known.peers().map(|peer| peer.name().len()).max();
    let width = width.unwrap_or(0);
    for peer in known.peers() {
        let line = peer.to_string();
        let begin = format!("{} {}", peer.name(), peer.id);
        match line.strip_prefix(&begin) {
            Some(rest) if in_columns => {
                let _ = writeln!(text, "{:width$}  {}", peer.name(), peer.id);
                if !rest.trim().is_empty() {
                    let _ = writeln!(text, "{}", beside(&format!("{:width$}  ", ""), rest.trim()));
                }
            }
            _ => {
                let _ = writeln!(text, "{line}");
            }
        }
    }
    exit::print(&text)?;
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

fn add(file: &KnownPeersFile, args: &PeerAdd) -> Result<(), Failure> {
    let id = given(&args.id)?;
    let mut places = Vec::new();
    for hint in &args.at {
        let place = match hint {
            Hint::Direct(address) => place_of(address),
            Hint::Relay { .. } => Some(hint.to_string()),
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
        format!("at {}", peer.places.join(", "))
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
