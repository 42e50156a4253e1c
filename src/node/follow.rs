//! Which hints of an address are followed. An address comes from anywhere, so it runs no command and opens no device here, and a way
//! through relays leads neither through its own end, nor through here, nor through one relay twice.

use crate::identity::PeerId;

use super::addr::Hint;
use super::core::Core;
use super::error::DialError;

/// The hints that may be followed, relays last. The order among themselves is the address's own.
pub(super) fn usable(
    core: &Core,
    peer: PeerId,
    mut hints: Vec<Hint>,
) -> Result<Vec<Hint>, DialError> {
    for hint in &hints {
        check(core, peer, hint)?;
    }
    if let (false, Some(hint)) = (hints.iter().any(|it| may_follow(core, it)), hints.first()) {
        let hint = hint.clone();
        return Err(DialError::LocalHint {
            peer,
            hint: Box::new(hint),
        });
    }
    // The sort is stable.
    hints.sort_by_key(Hint::is_relay);
    Ok(hints)
}

/// Whether a hint is followed. An address comes from anywhere, and must not run a command or open a device here.
pub(super) fn may_follow(core: &Core, hint: &Hint) -> bool {
    core.config.local_hints || hint.is_network()
}

/// A way must not lead through its own end, nor through here, nor through one relay twice.
fn check(core: &Core, peer: PeerId, hint: &Hint) -> Result<(), DialError> {
    let mut passed = vec![peer];
    let mut at = hint;
    while let Hint::Relay { relay, at: before } = at {
        if passed.contains(relay) || core.is_own(relay) {
            let relay = *relay;
            return Err(DialError::Loop { peer, relay });
        }
        passed.push(*relay);
        at = before;
    }
    Ok(())
}
