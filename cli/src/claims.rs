//! Which command of this user is registered at a relay under which identity: of two, the relay leads callers to the one that came last.
//!
//! Each has a shared lock on a file in `registered` of the configuration folder, by the identity and the relay, for as long as its process
//! lives; who asks whether there is another tries for the lock of one alone, and has it for that moment only. Whoever has no such folder claims nothing and is in nobody's way; neither is a process on another machine with a copy of the key,
//! which the relay tells of.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use cepa::identity::PeerId;
use cepa::node::PeerAddr;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::folder;

/// What this process has, to its end: one for each relay of each of its identities.
static CLAIMS: Mutex<Vec<(PathBuf, File)>> = Mutex::new(Vec::new());

/// This process is registered there from now on, whoever else is.
pub(crate) fn claim(own: PeerId, relays: &[PeerAddr]) {
    each(own, relays, |file| flock(file, FlockOperation::LockShared));
}

/// This process is registered there from now on, unless another one is, at any of them: gives whether there is none.
pub(crate) fn claim_alone(own: PeerId, relays: &[PeerAddr]) -> bool {
    let mut is_another = false;
    each(own, relays, |file| {
        let alone = flock(file, FlockOperation::NonBlockingLockExclusive);
        is_another |= alone == Err(Errno::WOULDBLOCK);
        alone?;
        flock(file, FlockOperation::LockShared)
    });
    !is_another
}

fn each(own: PeerId, relays: &[PeerAddr], mut lock: impl FnMut(&File) -> Result<(), Errno>) {
    let mut claims = CLAIMS.lock().unwrap_or_else(PoisonError::into_inner);
    for relay in relays {
        let Some(path) = place(own, relay.peer()) else {
            continue;
        };
        if claims.iter().any(|(ours, _)| *ours == path) {
            continue;
        }
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path);
        if let Ok(file) = file
            && lock(&file).is_ok()
        {
            claims.push((path, file));
        }
    }
}

/// The files stay: one that is removed while another command opens it would be two locks.
fn place(own: PeerId, relay: PeerId) -> Option<PathBuf> {
    let folder = folder::path().ok()?.join("registered");
    let made = DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder);
    made.ok()?;
    Some(folder.join(format!("{own}.{relay}")))
}
