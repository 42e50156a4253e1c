//! Where this user's files are, and what time it is for what is written into them.
//!
//! The folder is `CEPA_CONFIG_DIR`, else the platform's own (`XDG_CONFIG_HOME` or `~/.config` on
//! Linux) with `cepa` in it: `identity.pem` and `known_peers`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use cepa::identity::{KnownPeer, KnownPeers, KnownPeersFile, PeerId, UnixTime};

use crate::exit::{Code, Failure};

/// The known peers of this user.
pub(crate) fn known_peers() -> Result<KnownPeersFile, Failure> {
    Ok(KnownPeersFile::new(path()?.join("known_peers")))
}

/// Those of the known peers that have this id; none where the list can't be read.
pub(crate) fn known_as(id: PeerId) -> Vec<KnownPeer> {
    let known = known_peers().ok().and_then(|file| file.read().ok());
    let all = known.iter().flat_map(KnownPeers::peers);
    all.filter(|peer| peer.id == id).cloned().collect()
}

/// The time, as certificates and files have it.
pub(crate) fn now() -> UnixTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    UnixTime::since_unix_epoch(since.unwrap_or_default())
}

/// The time in so long, to the second.
pub(crate) fn in_time(lasts: Duration) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(now().as_secs()) + lasts)
}

/// The configuration folder of this user, which need not exist yet.
pub(crate) fn path() -> Result<PathBuf, Failure> {
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
