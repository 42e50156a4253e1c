//! Where the connection to a peer is shared: a socket and a lock for each address and identity, in a folder for this user alone.
//!
//! The name is a digest of what is dialled and of who dials, so that a command with another identity looks elsewhere. A device has one
//! place by whatever link it is named, since it carries one session, whichever of its options were written. Whatever else differs in what
//! is dialled is another place: a password, a header, a proxy, the folder that a command runs in.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use cepa::identity::{Identity, PeerId};
use cepa::node::{Hint, PeerAddr};
use cepa::transports::{Endpoint, Target};
use sha2::{Digest as _, Sha256};

use crate::args::DialTarget;
use crate::exit::{Code, Failure};
use crate::{dial, folder};

/// The longest path of a socket in bytes (sun_path of unix(7), without its end).
const LONGEST: usize = 107;

/// A place that need not be there yet.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(super) socket: PathBuf,
    pub(super) lock: PathBuf,
}

impl Place {
    /// Where who has this identity shares the connection to that; none for what is dialled once, or leads somewhere else each time.
    pub(crate) fn of(target: &DialTarget, identity: &Identity) -> Result<Option<Self>, Failure> {
        let to = match target {
            DialTarget::Place(address) => of_address(&by_proxy(address)),
            DialTarget::Peer(address) => of_peer(address),
            DialTarget::Introduced(_) | DialTarget::Ticket(_) | DialTarget::Code(_) => None,
        };
        to.map(|to| Self::in_folder(&folder()?, &name(&to, identity.peer_id())))
            .transpose()
    }

    fn in_folder(folder: &Path, name: &str) -> Result<Self, Failure> {
        let socket = folder.join(name);
        let length = socket.as_os_str().as_bytes().len();
        if length > LONGEST {
            let why = format!(
                "{}: a socket's path has at most {LONGEST} bytes, this has {length}; set XDG_RUNTIME_DIR to a shorter folder of your own, or use --no-share",
                socket.display()
            );
            return Err(Failure::new(Code::Local, why));
        }
        private(folder)?;
        Ok(Self {
            lock: folder.join(format!("{name}.lock")),
            socket,
        })
    }
}

/// As it is dialled, by the proxy of this command.
fn by_proxy(address: &Endpoint) -> Endpoint {
    dial::proxies().map_or_else(|| address.clone(), |proxies| proxies.on(address))
}

/// As [`of_address`]: the peer, and each way to it. Where the way is not said, the proxy is a part of it all the same.
fn of_peer(address: &PeerAddr) -> Option<Vec<u8>> {
    let mut all = vec![address.peer().to_string().into_bytes()];
    for hint in address.hints() {
        all.push(of_hint(hint)?);
    }
    for anywhere in ["tcp:peer.invalid:1", "wss:peer.invalid:1/"] {
        all.push(of_address(&by_proxy(&anywhere.parse().ok()?))?);
    }
    Some(all.join(&0))
}

fn of_hint(hint: &Hint) -> Option<Vec<u8>> {
    match hint {
        Hint::Direct(address) => of_address(&by_proxy(address)),
        Hint::Relay { relay, at } => {
            Some([format!("relay:{relay}@").as_bytes(), &of_hint(at)?].concat())
        }
    }
}

/// What is dialled, as bytes that are the same for the same alone, so with the secrets in it and with paths from the root; none for
/// standard input and output, which no other command has.
fn of_address(address: &Endpoint) -> Option<Vec<u8>> {
    let at = |kind: &str, path: &Path| {
        let path = rooted(path);
        let layers = format!("{:?} {kind} ", address.layers());
        Some([layers.as_bytes(), path.as_os_str().as_bytes()].concat())
    };
    match address.target() {
        Target::Stdio | Target::Fd { .. } => None,
        Target::Serial { path, .. } => at("serial", path),
        Target::Pty { path } => at("pty", path),
        Target::Unix { path, settings } => at(&format!("unix {settings:?}"), path),
        // Its words may be paths, too.
        Target::Exec { .. } => at(&address.revealed().to_string(), Path::new(".")),
        _ => Some(address.revealed().to_string().into_bytes()),
    }
}

/// From the root and without links, as far as that can be told.
fn rooted(path: &Path) -> PathBuf {
    let resolved = fs::canonicalize(path).or_else(|_| std::path::absolute(path));
    resolved.unwrap_or_else(|_| path.to_owned())
}

fn name(to: &[u8], own: PeerId) -> String {
    let mut digest = Sha256::new();
    digest.update(own.as_bytes());
    digest.update(to);
    let digest = digest.finalize();
    let hex = digest.iter().take(10).map(|byte| format!("{byte:02x}"));
    hex.collect()
}

/// `cepa` in the folder that the system has for sockets of this user, else a folder beside the identity.
fn folder() -> Result<PathBuf, Failure> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    // With sudo it may be somebody else's, who would find our folder there.
    let own = rustix::process::geteuid().as_raw();
    let is_own = |path: &Path| fs::metadata(path).is_ok_and(|it| it.is_dir() && it.uid() == own);
    let usable = runtime.filter(|path| path.is_absolute() && is_own(path));
    match usable {
        Some(path) => Ok(path.join("cepa")),
        None => Ok(folder::path()?.join("run")),
    }
}

/// Makes the folder, or checks that nobody else can put something into it.
fn private(folder: &Path) -> Result<(), Failure> {
    let shown = folder.display();
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    let failed = |e: io::Error| Failure::new(Code::Local, format!("cannot make {shown}: {e}"));
    match made {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(failed(e)),
        _ => {}
    }
    let there = fs::symlink_metadata(folder).map_err(failed)?;
    let own = rustix::process::geteuid().as_raw();
    let for_others = there.mode() & 0o077;
    if there.is_dir() && there.uid() == own && for_others == 0 {
        return Ok(());
    }
    let why = format!(
        "{shown} has to be a folder that only you can use: run `chmod 700 {shown}`, or remove it if it is not yours"
    );
    Err(Failure::new(Code::Local, why))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use cepa::identity::KeyKind;

    use super::*;

    fn name_of(address: &str, own: u8) -> Option<String> {
        let to = of_address(&address.parse().unwrap())?;
        Some(name(&to, PeerId::from_bytes([own; 32])))
    }

    #[test]
    fn the_same_is_shared_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (device, link) = (folder.path().join("tty"), folder.path().join("by-id"));
        fs::write(&device, "").unwrap();
        std::os::unix::fs::symlink(&device, &link).unwrap();
        let at = |path: &Path, more: &str| format!("{more}serial:{}", path.display());
        let one = name_of(&at(&device, ""), 1);
        assert_eq!(one, name_of(&at(&link, ""), 1));
        assert_eq!(one, name_of(&(at(&link, "") + ",baud=9600"), 1));
        assert_ne!(one, name_of(&at(&device, ""), 2));
        assert_ne!(one, name_of(&at(&device, "mux+tls+tls+"), 1));
        let tcp = name_of("tcp:host:1", 1);
        assert_eq!(tcp, name_of("tcp:host:1", 1));
        assert_ne!(tcp, name_of("tcp:host:2", 1));
        assert_eq!(name_of("stdio:", 1), None);
        // What is hidden where it is shown differs, too.
        for (a, b) in [
            ("ws:h:1/,header=X-Tenant:A", "ws:h:1/,header=X-Tenant:B"),
            (
                "tcp:h:1,proxy=http://me:good@p:1",
                "tcp:h:1,proxy=http://me:wrong@p:1",
            ),
            ("unix:/a", "unix:/b"),
            ("unix:/a", "unix:/a,framed=yes"),
            ("exec:a", "exec:b"),
            ("pty:/a", "pty:/b"),
        ] {
            let one = name_of(a, 1);
            assert!(one.is_some() && one == name_of(a, 1), "{a}");
            assert_ne!(one, name_of(b, 1), "{a} {b}");
            let of_peer = |hint: &str| {
                let address = PeerAddr::new(PeerId::from_bytes([3; 32]));
                of_peer(&address.with_hint(hint.parse().unwrap()).unwrap()).unwrap()
            };
            assert_eq!(of_peer(a), of_peer(a));
            assert_ne!(of_peer(a), of_peer(b), "{a} {b}");
        }
    }

    #[test]
    fn a_folder_that_others_can_use_and_a_path_that_is_too_long_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("a/run");
        let place = Place::in_folder(&run, "x").unwrap();
        assert_eq!(place.socket, run.join("x"));
        assert_eq!(fs::metadata(&run).unwrap().mode() & 0o777, 0o700);
        fs::set_permissions(&run, fs::Permissions::from_mode(0o755)).unwrap();
        let error = Place::in_folder(&run, "x").unwrap_err();
        assert_eq!(error.code, Code::Local);
        assert!(error.message.contains("chmod 700"), "{error}");
        let long = folder.path().join("x".repeat(100));
        let error = Place::in_folder(&long, "x").unwrap_err();
        assert!(error.message.contains("XDG_RUNTIME_DIR"), "{error}");
        assert!(!long.exists());
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        assert!(Place::in_folder(&link, "x").is_err());
    }

    #[test]
    fn what_has_one_use_is_not_shared() {
        let identity = Identity::generate(KeyKind::Ed25519).unwrap();
        let code = DialTarget::Place("stdio:".parse().unwrap());
        assert!(Place::of(&code, &identity).unwrap().is_none());
    }
}
