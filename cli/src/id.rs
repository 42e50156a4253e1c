//! `cepa id`, and where identities come from: the file that `--identity` names, or the default one
//! in the user's configuration folder, which is made at first use.
//!
//! The folder is `CEPA_CONFIG_DIR`, else the platform's own (`XDG_CONFIG_HOME` or `~/.config` on
//! Linux) with `cepa` in it; the file is `identity.pem`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cepa::identity::{
    Identity, IdentityError, KeyKind, PeerId, RotationTimes, UnixTime, rotations_to_text,
};
use cepa::node::{Hint, PeerAddr};
use zeroize::Zeroizing;

use crate::args::{Id, IdAddr, IdRotate, IdentityFile};
use crate::exit::{self, Code, Failure, say};
use crate::folder;
use crate::passphrase;
use crate::qr;
use crate::stack;

pub(crate) fn run(args: Id) -> Result<(), Failure> {
    let identity = match args {
        Id::New(args) => {
            let path = match args.identity.path {
                Some(path) => path,
                None => default_path()?,
            };
            // Before anybody types anything.
            if !is_missing(&path) {
                return Err(Failure::new(
                    Code::Local,
                    format!(
                        "{}: the file exists and is never overwritten; choose another name, or move it away",
                        path.display()
                    ),
                ));
            }
            let identity = Identity::generate(args.kind.into())?;
            if args.passphrase {
                identity.save_encrypted(&path, passphrase::new(&path)?.as_bytes())?;
            } else {
                identity.save(&path)?;
            }
            say(format_args!("created {}", path.display()));
            identity
        }
        Id::Addr(args) => return addr(&args),
        Id::Show(args) => {
            let identity = load(&args.identity)?;
            if args.statement {
                return show_statements(&identity);
            }
            let id = identity.peer_id();
            return exit::print(&if args.words {
                format!("{}\n", id.words())
            } else if args.art {
                format!("{id}\n{}", id.picture())
            } else if args.qr {
                format!("{id}\n{}", qr::of(&id.to_string())?)
            } else {
                format!("{id}\n")
            });
        }
        Id::Rotate(args) => rotate(&args)?,
    };
    exit::print(&format!("{}\n", identity.peer_id()))
}

/// An address of this identity, from where it says that it is.
fn addr(args: &IdAddr) -> Result<(), Failure> {
    let mut address = PeerAddr::new(load(&args.identity)?.peer_id())
        .with_service(&args.service)
        .map_err(Failure::from)?;
    for at in &args.at {
        address = address
            .with_hint(Hint::Direct(at.for_others()))
            .map_err(Failure::from)?;
    }
    for hint in relay_hints(&args.relays)? {
        address = address.with_hint(hint).map_err(Failure::from)?;
    }
    stack::warn_of_dead_hints(address.hints());
    exit::print(&format!("{address}\n"))
}

/// The addresses of a peer that is registered at these relays.
pub(crate) fn through(peer: PeerId, relays: &[PeerAddr]) -> Result<Vec<PeerAddr>, Failure> {
    let hints = relay_hints(relays)?;
    let one = |hint| PeerAddr::new(peer).with_hint(hint).map_err(Failure::from);
    hints.into_iter().map(one).collect()
}

/// What leads others to whoever is registered there: not by our proxy.
fn relay_hints(relays: &[PeerAddr]) -> Result<Vec<Hint>, Failure> {
    let mut hints = Vec::new();
    for relay in relays {
        if relay.hints().is_empty() {
            return Err(Failure::new(
                Code::Usage,
                format!("{relay} does not say where the relay is; give cepa://RELAYID@ADDR"),
            ));
        }
        hints.extend(relay.hints().iter().map(|at| Hint::Relay {
            relay: relay.peer(),
            at: Box::new(at.for_others()),
        }));
    }
    Ok(hints)
}

/// A new key in the place of the old one, which is kept beside it.
fn rotate(args: &IdRotate) -> Result<Identity, Failure> {
    let path = match &args.identity.path {
        Some(path) => path.clone(),
        None => default_path()?,
    };
    let (old, passphrase) = open(&path, Identity::load(&path))?;
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
    let passphrase = passphrase.as_ref().map(|text| text.as_bytes());
    new.save_over(&old, &path, &keep, passphrase)?;
    say(format_args!(
        "{} contains the new key. The old one, {}, is in {} and valid for {} days; restart the programs that use it",
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
            "this identity has not replaced another; `cepa id rotate` creates a new key",
        ));
    }
    exit::print(&format!("{}\n", rotations_to_text(&statements)))
}

/// The identities of a server, of which the first is shown to who asks for nobody in particular.
pub(crate) fn load_all(files: &[PathBuf]) -> Result<(Identity, Unsaved, Vec<Identity>), Failure> {
    let file = |path: Option<&PathBuf>| IdentityFile {
        path: path.cloned(),
    };
    let (first, unsaved) = load_unsaved(&file(files.first()))?;
    let more = files.iter().skip(1).map(|path| load(&file(Some(path))));
    Ok((first, unsaved, more.collect::<Result<_, _>>()?))
}

/// The identity that a command uses.
pub(crate) fn load(file: &IdentityFile) -> Result<Identity, Failure> {
    let (identity, unsaved) = load_unsaved(file)?;
    match unsaved.write(&identity) {
        // Another command made it at the same moment: it is this one's as well.
        Err(e) if matches!(e.problem(), IdentityError::Exists) => Ok(load_unsaved(file)?.0),
        Err(e) => Err(e.into()),
        Ok(()) => Ok(identity),
    }
}

/// Where an identity is to be kept that was made just now; nowhere, if it comes from a file. A command that fails before it has done
/// anything leaves no key behind.
#[must_use]
pub(crate) struct Unsaved(Option<PathBuf>);

impl Unsaved {
    /// Whether it was made just now.
    pub(crate) fn is_new(&self) -> bool {
        self.0.is_some()
    }

    /// For a command that has begun with it: one that another command made at the same moment comes too late.
    pub(crate) fn save(self, identity: &Identity) -> Result<(), Failure> {
        let path = self.0.clone().unwrap_or_default();
        self.write(identity).map_err(|e| match e.problem() {
            IdentityError::Exists => Failure::new(
                Code::Local,
                format!(
                    "another command has just created the identity {}; run this one again",
                    path.display()
                ),
            ),
            _ => e.into(),
        })
    }

    fn write(self, identity: &Identity) -> Result<(), IdentityError> {
        let Some(path) = self.0 else {
            return Ok(());
        };
        identity.save(&path)?;
        say(format_args!(
            "created the identity {} for this user, with peer id {}",
            path.display(),
            identity.peer_id()
        ));
        Ok(())
    }
}

/// The same, without keeping one that has to be made.
pub(crate) fn load_unsaved(file: &IdentityFile) -> Result<(Identity, Unsaved), Failure> {
    let (identity, unsaved) = find(file)?;
    // Peers that pin the key go on as before; who checks dates (an authority's trust, other programs) does not.
    if folder::now() > identity.not_after() {
        say(format_args!(
            "warning: this machine's certificate has expired; peers that know its key still accept it, others may not. Renew it with the same key to keep the id {}",
            identity.peer_id()
        ));
    }
    Ok((identity, unsaved))
}

fn find(file: &IdentityFile) -> Result<(Identity, Unsaved), Failure> {
    if let Some(path) = &file.path {
        return open(path, Identity::load(path))
            .map(|(identity, _)| (identity, Unsaved(None)))
            .map_err(|failure| {
                if is_missing(path) {
                    let file = exit::quoted(&path.to_string_lossy());
                    failure.with(format_args!(
                        "to create it, run: cepa id new --identity {file}"
                    ))
                } else {
                    failure
                }
            });
    }
    let path = default_path()?;
    if is_missing(&path) {
        let identity = Identity::generate(KeyKind::default())?;
        return Ok((identity, Unsaved(Some(path))));
    }
    let (identity, _) = open(&path, Identity::load(&path))?;
    Ok((identity, Unsaved(None)))
}

/// The identity in a file; where it is under a passphrase, that is asked for, and given back.
fn open(
    path: &Path,
    loaded: Result<Identity, IdentityError>,
) -> Result<(Identity, Option<Zeroizing<String>>), Failure> {
    match loaded {
        Err(e) if matches!(e.problem(), IdentityError::Encrypted) => {
            let passphrase = passphrase::of(path)?;
            let identity = Identity::load_encrypted(path, passphrase.as_bytes())?;
            Ok((identity, Some(passphrase)))
        }
        loaded => Ok((loaded?, None)),
    }
}

fn is_missing(path: &Path) -> bool {
    matches!(std::fs::symlink_metadata(path), Err(e) if e.kind() == std::io::ErrorKind::NotFound)
}

fn default_path() -> Result<PathBuf, Failure> {
    Ok(folder::path()?.join("identity.pem"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_second_to_make_the_identity_is_told_to_begin_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.pem");
        let [first, second] = [KeyKind::Ed25519; 2].map(|kind| Identity::generate(kind).unwrap());
        Unsaved(Some(path.clone())).save(&first).unwrap();
        let failure = Unsaved(Some(path.clone())).save(&second).unwrap_err();
        assert!(
            failure.message.ends_with("run this one again"),
            "{}",
            failure.message
        );
        assert_eq!(Identity::load(&path).unwrap().peer_id(), first.peer_id());
    }
}
