//! `cepa id`, and where identities come from: the file that `--identity` names, or the default one
//! in the user's configuration folder, which is made at first use.
//!
//! The folder is `CEPA_CONFIG_DIR`, else the platform's own (`XDG_CONFIG_HOME` or `~/.config` on
//! Linux) with `cepa` in it; the file is `identity.pem`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use cepa::identity::{Identity, KeyKind};

use crate::args::{Id, IdentityFile};
use crate::exit::{self, Code, Failure, say};

pub(crate) fn run(args: Id) -> Result<(), Failure> {
    let identity = match args {
        Id::New(args) => {
            let path = match args.identity.path {
                Some(path) => path,
                None => default_path()?,
            };
            let identity = Identity::generate(args.kind.into())?;
            identity.save(&path)?;
            say(format_args!("made {}", path.display()));
            identity
        }
        Id::Show(args) => load(&args.identity)?,
    };
    exit::print(&format!("{}\n", identity.peer_id()))
}

/// The identity that a command uses.
pub(crate) fn load(file: &IdentityFile) -> Result<Identity, Failure> {
    if let Some(path) = &file.path {
        return Identity::load(path).map_err(|e| {
            let failure = Failure::from(e);
            if is_missing(path) {
                let file = exit::quoted(&path.to_string_lossy());
                failure.with(format_args!("make it: cepa id new --identity {file}"))
            } else {
                failure
            }
        });
    }
    let path = default_path()?;
    let first = is_missing(&path);
    let identity = Identity::load_or_create(&path, KeyKind::default())?;
    if first {
        say(format_args!(
            "made the identity {} for this user: peer id {}",
            path.display(),
            identity.peer_id()
        ));
    }
    Ok(identity)
}

fn is_missing(path: &Path) -> bool {
    matches!(std::fs::symlink_metadata(path), Err(e) if e.kind() == std::io::ErrorKind::NotFound)
}

fn default_path() -> Result<PathBuf, Failure> {
    Ok(folder()?.join("identity.pem"))
}

/// The configuration folder of this user, which need not exist yet.
pub(crate) fn folder() -> Result<PathBuf, Failure> {
    let set = |name: &str| std::env::var_os(name).filter(|v: &OsString| !v.is_empty());
    match set("CEPA_CONFIG_DIR") {
        Some(folder) => Ok(PathBuf::from(folder)),
        None => directories::ProjectDirs::from("", "", "cepa")
            .map(|dirs| dirs.config_dir().to_owned())
            .ok_or_else(|| {
                Failure::new(
                    Code::Local,
                    "this user has no home folder; set CEPA_CONFIG_DIR, or name a file with --identity",
                )
            }),
    }
}
