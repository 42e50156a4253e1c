//! `cepa id`, and where identities come from: the file that `--identity` names, or the default one
//! in the user's configuration folder, which is made at first use.
//!
//! The folder is `CEPA_CONFIG_DIR`, else the platform's own (`XDG_CONFIG_HOME` or `~/.config` on
//! Linux) with `cepa` in it; the file is `identity.pem`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cepa::identity::{Identity, KeyKind, RotationTimes, UnixTime, rotations_to_text};

use crate::args::{Id, IdRotate, IdentityFile};
use crate::exit::{self, Code, Failure, say};
use crate::folder;

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
        Id::Show(args) => {
            let identity = load(&args.identity)?;
            if args.statement {
                return show_statements(&identity);
            }
            identity
        }
        Id::Rotate(args) => rotate(&args)?,
    };
    exit::print(&format!("{}\n", identity.peer_id()))
}

/// A new key in the place of the old one, which is kept beside it.
fn rotate(args: &IdRotate) -> Result<Identity, Failure> {
    let path = match &args.identity.path {
        Some(path) => path.clone(),
        None => default_path()?,
    };
    let old = Identity::load(&path)?;
    let issued = folder::now();
    let after = |days: u32| {
        UnixTime::since_unix_epoch(Duration::from_secs(
            issued.as_secs() + u64::from(days) * 24 * 60 * 60,
        ))
    };
    let times = RotationTimes {
        issued,
        expires: after(args.expires),
        overlap: after(args.overlap),
    };
    let new = old.rotate(args.kind.into(), times)?;
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!(".old-{}.pem", old.peer_id().short()));
    let keep = path.with_file_name(name);
    new.save_over(&old, &path, &keep)?;
    say(format_args!(
        "{} holds the new key; the old one, {}, is in {} and is good for {} days; start what runs with it anew",
        path.display(),
        old.peer_id(),
        keep.display(),
        args.overlap
    ));
    Ok(new)
}

fn show_statements(identity: &Identity) -> Result<(), Failure> {
    let statements = identity.rotations();
    if statements.is_empty() {
        return Err(Failure::new(
            Code::Other,
            "this identity has replaced no other one; `cepa id rotate` makes a new key",
        ));
    }
    exit::print(&format!("{}\n", rotations_to_text(&statements)))
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
    Ok(folder::path()?.join("identity.pem"))
}
