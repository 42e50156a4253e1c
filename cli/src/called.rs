//! What a known peer is called where a person reads of it: its name, and enough of its id to tell two apart.

use std::collections::HashMap;
use std::fs::Metadata;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::SystemTime;

use cepa::identity::{KnownPeers, PeerId};

use crate::folder;

/// The names as they stood when the file was read last, and how it looked then.
#[derive(Default)]
struct Names {
    looked: Option<(SystemTime, u64)>,
    names: HashMap<PeerId, String>,
}

static NAMES: LazyLock<Mutex<Names>> = LazyLock::new(Mutex::default);

/// `NAME (123456789012…)`; none for whom nobody has named. A list that can't be read names nobody.
pub(crate) fn called(peer: &PeerId) -> Option<String> {
    let name = name(peer)?;
    Some(format!("{name} ({}…)", peer.short()))
}

/// The name alone.
pub(crate) fn name(peer: &PeerId) -> Option<String> {
    let file = folder::known_peers().ok()?;
    // Names are whole after every statement.
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    // Read only where it has changed, and not at all where there is none: a busy server names a peer in each line of its log.
    let look = |m: Metadata| Some((m.modified().ok()?, m.len()));
    let looks = std::fs::metadata(file.path()).ok().and_then(look);
    if looks != names.looked {
        let known = file.read().ok();
        let all = known.iter().flat_map(KnownPeers::peers);
        names.names = HashMap::new();
        for known in all {
            let named = || known.name().to_owned();
            names.names.entry(known.id).or_insert_with(named);
        }
        names.looked = looks;
    }
    names.names.get(peer).cloned()
}
