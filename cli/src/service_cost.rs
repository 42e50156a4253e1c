//! What serving a service takes of the node's pools, and whether there is something behind it at all.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use cepa::node::{Call, Exceeded, Resource, Share};
use cepa::transports::{self, Endpoint};

use crate::args::{Service, Target};
use crate::exit::say;
use crate::files::report::reason;

/// What serving an address takes of the node's pools, counted to the peer that asks: for a command its process and its pipes,
/// for everything else one descriptor.
pub(crate) fn cost(to: &Endpoint) -> Cost {
    match to.target() {
        transports::Target::Exec { .. } => &[(Resource::Children, 1), (Resource::Descriptors, 4)],
        _ => ONE,
    }
}

/// A transfer of files: a thread, and what it has open at a time.
pub(crate) const TRANSFER: Cost = &[(Resource::Children, 1), (Resource::Descriptors, 8)];

pub(crate) type Cost = &'static [(Resource, usize)];

pub(crate) const ONE: Cost = &[(Resource::Descriptors, 1)];

/// What to warn of where the program of an `exec:` address can't be started as things are: it may still come.
fn missing_program(to: &Endpoint) -> Option<String> {
    let transports::Target::Exec { argv, dir, .. } = to.target() else {
        return None;
    };
    let program = argv.first()?;
    let runs = |file: &Path| {
        let meta = std::fs::metadata(file);
        meta.is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    let found = if program.contains('/') {
        // Relative to where it starts.
        let dir = dir.as_deref().unwrap_or(Path::new(""));
        runs(&dir.join(program))
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|folder| runs(&folder.join(program)))
    };
    (!found).then(|| format!("cannot find a program {program} to start"))
}

fn missing_folder(folder: &Path) -> Option<String> {
    let why = match std::fs::metadata(folder) {
        Ok(meta) if meta.is_dir() => return None,
        Ok(_) => "not a folder".to_owned(),
        Err(e) => reason(&e),
    };
    Some(format!("{}: {why}", folder.display()))
}

/// Warns of a service that nobody will get.
pub(crate) fn check(service: &Service) {
    let missing = match &service.target {
        Target::Dial(to) => missing_program(to),
        Target::Files(shared) => missing_folder(&shared.folder),
        _ => None,
    };
    if let Some(why) = missing {
        let name = &service.name;
        say(format_args!("warning: service {name}: {why}"));
    }
}

/// Holds that for a call.
pub(crate) fn hold(call: &Call, to: &Endpoint) -> Result<Share, Exceeded> {
    call.hold(cost(to))
}
