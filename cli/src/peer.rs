//! `cepa peer`: the known peers, listed and changed. The file is `known_peers` in the configuration
//! folder; the commands do nothing that an editor could not do as well, but lock it meanwhile.

use std::fmt::Write as _;
use std::time::SystemTime;

use cepa::identity::{
    EditError, KnownPeer, KnownPeersError, KnownPeersFile, KnownPeersProblem, Origin, UnixTime,
    place_of,
};

use crate::args::{Peer, PeerAdd, PeerVerify};
use crate::exit::{self, Code, Failure, say};
use crate::id;

pub(crate) fn run(args: Peer) -> Result<(), Failure> {
    let file = file()?;
    match args {
        Peer::Ls => list(&file),
        Peer::Add(args) => add(&file, &args),
        Peer::Rm(args) => {
            let gone = file.edit(|known| known.remove(&args.name))?;
            say(format_args!(
                "{} {} is not known any more",
                gone.name(),
                gone.id
            ));
            Ok(())
        }
        Peer::Rename(args) => Ok(file.edit(|known| known.rename(&args.name, &args.new))?),
        Peer::Verify(args) => verify(&file, &args),
    }
}

/// The file of this user.
pub(crate) fn file() -> Result<KnownPeersFile, Failure> {
    Ok(KnownPeersFile::new(id::folder()?.join("known_peers")))
}

pub(crate) fn now() -> UnixTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    UnixTime::since_unix_epoch(since.unwrap_or_default())
}

impl From<KnownPeersError> for Failure {
    fn from(e: KnownPeersError) -> Self {
        let code = match e.problem() {
            KnownPeersProblem::Edit(EditError::NoSuchPeer { .. } | EditError::Entry(_)) => {
                Code::Usage
            }
            _ => Code::Local,
        };
        Self::new(code, e.to_string())
    }
}

/// The peers as they stand in the file; lines that name none are told on standard error.
fn list(file: &KnownPeersFile) -> Result<(), Failure> {
    let known = file.read()?;
    let mut text = String::new();
    for peer in known.peers() {
        let _ = writeln!(text, "{peer}");
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
                "{}: {} {} be read; until they are mended or removed, no new peer is trusted",
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
    let mut places = Vec::new();
    for address in &args.at {
        places.push(place_of(address).ok_or_else(|| {
            Failure::new(
                Code::Usage,
                format!("{address} does not say who is there; leave it out"),
            )
        })?);
    }
    file.edit(|known| {
        if args.replace && known.named(&args.name).is_some() {
            return known.change(&args.name, |peer| {
                peer.id = args.id;
                peer.how = Some(Origin::Added);
                // What the old key has signed or was good for says nothing about this one.
                peer.previous.clear();
                for place in &places {
                    peer.add_place(place);
                }
            });
        }
        let mut peer = KnownPeer::new(&args.name, args.id)?;
        peer.first_seen = Some(now());
        peer.how = Some(Origin::Added);
        peer.places.append(&mut places);
        known.add(peer)
    })?;
    Ok(())
}

/// Compares what its owner reads out with what is known, and notes that they agree.
fn verify(file: &KnownPeersFile, args: &PeerVerify) -> Result<(), Failure> {
    let known = file.edit(|known| {
        let peer = known
            .named(&args.name)
            .ok_or_else(|| EditError::NoSuchPeer {
                name: args.name.clone(),
            })?;
        let id = peer.id;
        if id == args.id {
            known.change(&args.name, |peer| peer.how = Some(Origin::Verified))?;
        }
        Ok(id)
    })?;
    if known == args.id {
        return Ok(());
    }
    let name = exit::quoted(&args.name);
    Err(Failure::new(
        Code::Identity,
        format!(
            "the ids differ: {} is known as {known}, and this is {}; do not use it until you know why: \
             if its owner has changed the key, run: cepa peer add {name} {} --replace",
            args.name, args.id, args.id
        ),
    ))
}
