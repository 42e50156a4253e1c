//! What known peers offered the last time that they told. Completions go by it, which ask nobody.
//!
//! There is a file for each peer in `offered` of the configuration folder, a service a line: its kind and its name. It says nothing of what the
//! peer offers now, and nothing else goes by it. Whoever is no known peer leaves none, so there are no more of them than those.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use cepa::identity::PeerId;
use cepa::protocols::directory::Directory;

use crate::folder;
use crate::names::{self, To};

/// Writes it down, where it is all that the peer offers; a folder that cannot be written to has none.
pub(crate) fn keep(peer: PeerId, list: &Directory) {
    if !list.is_complete || folder::known_as(peer).is_empty() {
        return;
    }
    let mut text = String::new();
    for service in &list.services {
        let kind = if service.kind.is_empty() {
            "-"
        } else {
            &service.kind
        };
        let _ = writeln!(text, "{kind} {}", service.name);
    }
    let Some(path) = place(peer) else {
        return;
    };
    if fs::read(&path).ok().as_deref() != Some(text.as_bytes()) {
        let _ = written(&path, &text);
    }
}

/// Of who is known no more, nothing is.
pub(crate) fn forget(peer: PeerId) {
    if folder::known_as(peer).is_empty()
        && let Some(path) = place(peer)
    {
        let _ = fs::remove_file(path);
    }
}

/// Whole or not at all: a shell may be reading it.
fn written(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(folder)?;
    }
    let draft = path.with_extension(format!("{}", std::process::id()));
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft);
    file?.write_all(text.as_bytes())?;
    fs::rename(&draft, path)
}

/// The services of this kind, or of none that is known, of who has this name here.
pub(crate) fn of(name: &str, kind: &str) -> Vec<String> {
    let read = |peer| fs::read_to_string(place(peer)?).ok();
    let text = peer(name).and_then(read).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    let fitting = lines.filter(|(its, _)| *its == kind || *its == "-");
    fitting.map(|(_, name)| name.to_owned()).collect()
}

/// Whom a name stands for, as far as that is known without asking.
fn peer(name: &str) -> Option<PeerId> {
    let known = folder::known_peers().ok()?.read().ok()?;
    match names::dialled(name).ok()?.to {
        To::Peer(address) => Some(address.peer()),
        To::Place(place) => {
            let named = known.named(name).map(|it| it.id);
            let place = place.revealed().to_string();
            named.or_else(|| Some(known.at_place(&place).next()?.id))
        }
    }
}

fn place(peer: PeerId) -> Option<PathBuf> {
    Some(folder::path().ok()?.join("offered").join(peer.to_string()))
}
