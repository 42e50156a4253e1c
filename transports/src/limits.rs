//! What the system lets this process have.

use rustix::process::{Resource, getrlimit};

/// Assumed where the system sets no limit: more than this process will want.
const UNLIMITED: usize = 1 << 20;

/// How many file descriptors this process may have open (the soft limit `RLIMIT_NOFILE`, see getrlimit(2)).
#[must_use]
pub fn descriptor_limit() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    limit.map_or(UNLIMITED, |limit| {
        usize::try_from(limit).unwrap_or(UNLIMITED).min(UNLIMITED)
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn there_is_a_limit_and_room_for_a_test() {
        assert!(super::descriptor_limit() >= 16);
    }
}
