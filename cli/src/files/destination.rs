//! Where things go that are copied, by the rules of `cp` and `scp`: into a folder that is there, under their own names; one thing alone
//! also to a new name, in a folder that is there. A `/` at the end says that a folder is meant, and makes it.

use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use super::engine::is_name;
use super::partial::part_of;
use super::receiver::{Begun, Destination};
use super::report::{reason, shown};
use super::tree::{Folder, Found, Kind, Links, path_of};
use super::wire::NAME_MAX;

/// What stands where a file is to go that nothing can be copied to.
const SPECIAL: &str = "there is a device, pipe or socket of this name; give a file or a folder (a service is read with `cepa connect`)";

/// What paths are below of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place<'a> {
    /// This machine.
    Anywhere,
    /// A folder, and nothing outside of it.
    Below(&'a Folder),
}

impl Place<'_> {
    fn look(self, path: &[u8]) -> io::Result<Found> {
        match self {
            Self::Anywhere => Folder::look_anywhere(path_of(path)),
            Self::Below(folder) => folder.look(path, Links::Inside),
        }
    }

    fn folder(self, path: &[u8]) -> io::Result<Folder> {
        match self {
            Self::Anywhere if path.is_empty() => Folder::open(Path::new(".")),
            Self::Anywhere => Folder::open(path_of(path)),
            Self::Below(folder) => folder.folder(path, Links::Inside),
        }
    }
}

/// The path of the folder that something is in, and its name there.
fn parent(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        // The root is its own name's folder.
        Some(0) => (b"/", path.get(1..).unwrap_or_default()),
        Some(at) => (
            path.get(..at).unwrap_or_default(),
            path.get(at + 1..).unwrap_or_default(),
        ),
        None => (b"", path),
    }
}

fn trimmed(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|b| *b != b'/').map_or(0, |at| at + 1);
    match path.get(..end).unwrap_or_default() {
        [] if path.first() == Some(&b'/') => b"/",
        path => path,
    }
}

/// Finds it; `several`: what comes needs a folder.
pub(crate) fn find(place: Place<'_>, path: &[u8], several: bool) -> Result<Destination, String> {
    let whole = trimmed(path);
    let is_folder = whole.len() < path.len() || whole.is_empty();
    let why = |e: io::Error| format!("{}: {}", shown(path), reason(&e));
    let at = |folder: Folder, name| Destination {
        folder: Arc::new(folder),
        name,
        begun: None,
    };
    let found = match place.look(whole) {
        Ok(found) => Some(found),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(why(e)),
    };
    if found.is_some_and(|found| found.kind == Kind::Folder) {
        let mut inside = at(place.folder(whole).map_err(why)?, None);
        if !several && !is_folder {
            inside.begun = begun(place, whole);
        }
        return Ok(inside);
    }
    let (folder, name) = parent(whole);
    if !is_name(name) {
        return Err(format!("{}: not a folder", shown(path)));
    }
    if let Some(found) = found {
        if is_folder || several {
            return Err(format!("{}: not a folder", shown(path)));
        }
        debug_assert!(found.kind != Kind::Folder, "that was seen above");
        if matches!((place, found.kind), (Place::Anywhere, Kind::Special)) {
            return Err(format!("{}: {SPECIAL}", shown(path)));
        }
    } else if several && !is_folder {
        return Err(format!(
            "{0}: there is no such folder; give {0}/ to make it",
            shown(path)
        ));
    }
    let folder = place.folder(folder).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => format!("{}: there is no folder {}", shown(path), shown(folder)),
        _ => why(e),
    })?;
    if is_folder {
        folder.make(name).map_err(why)?;
        return Ok(at(folder.folder(name, Links::Never).map_err(why)?, None));
    }
    Ok(at(folder, Some(name.to_vec())))
}

/// What was being copied to this new name when that was interrupted: it goes on there, where a finished copy would go into the folder.
fn begun(place: Place<'_>, path: &[u8]) -> Option<Begun> {
    let (folder, name) = parent(path);
    if !is_name(name) {
        return None;
    }
    let folder = place.folder(folder).ok()?;
    let (file, found) = folder.file(&part_of(name, 0), Links::Never).ok()?;
    let mut source = Vec::new();
    let is_name = found.kind == Kind::File && found.size <= NAME_MAX as u64;
    let read = file.take(NAME_MAX as u64).read_to_end(&mut source);
    (is_name && read.is_ok()).then(|| Begun {
        folder: Arc::new(folder),
        name: name.to_vec(),
        source,
    })
}
