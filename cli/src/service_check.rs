//! What is wrong with services that are to be offered, as far as that is seen at the start.

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use cepa::transports::{self, Endpoint};

use crate::args::{Service, Target};
use crate::exit::{Code, Failure, say};
use crate::files::report::reason;
use crate::programs::Programs;

fn runs(file: &Path) -> bool {
    let meta = std::fs::metadata(file);
    meta.is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn missing_listed(programs: &Programs) -> Option<String> {
    let missing = programs.iter().find(|program| !runs(Path::new(program)))?;
    Some(format!("cannot find a program {missing} to start"))
}

/// What to warn of where the program of an `exec:` address can't be started as things are: it may still come.
fn missing_program(to: &Endpoint) -> Option<String> {
    let transports::Target::Exec { argv, dir, .. } = to.target() else {
        return None;
    };
    let program = argv.first()?;
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
        Target::Command(programs) => missing_listed(programs),
        Target::Files(shared) => missing_folder(shared.folder()),
        _ => None,
    };
    if let Some(why) = missing {
        let name = &service.name;
        say(format_args!("warning: service {name}: {why}"));
    }
}

/// Whether each has a name of its own.
pub(crate) fn distinct(services: &[Service]) -> Result<(), Failure> {
    let mut names = HashSet::new();
    match services.iter().find(|service| !names.insert(&service.name)) {
        None => Ok(()),
        Some(twice) => Err(Failure::new(
            Code::Usage,
            format!(
                "two services are named {}; give each its own name",
                twice.name
            ),
        )),
    }
}
