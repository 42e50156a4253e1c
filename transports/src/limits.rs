//! What the system lets this process have.
//!
//! Most systems start a process with a low soft limit of descriptors (1,024), for the sake of programs that use select(2),
//! and a high hard one, up to which it may raise the soft one by itself. What it starts inherits that, so a command gets the limit back
//! that this process was started with.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Assumed where the system sets no limit: more than this process will want.
const UNLIMITED: usize = 1 << 20;

/// As high as the limit is raised: 2^16. There are not more ports to connect from, and tables in the kernel grow with it.
const PLENTY: u64 = 1 << 16;

/// The limit that this process was started with, once it has raised it.
static BEFORE: OnceLock<Rlimit> = OnceLock::new();

/// How many file descriptors this process may have open (the soft limit `RLIMIT_NOFILE`, see getrlimit(2)).
#[must_use]
pub fn descriptor_limit() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    limit.map_or(UNLIMITED, |limit| {
        usize::try_from(limit).unwrap_or(UNLIMITED).min(UNLIMITED)
    })
}

/// Raises that limit to the hard one, or to 65,536 where that is less, and gives what it is now. Commands that are started
/// as [`dial`](crate::dial) does have the old one. To be called once, at the start of a program.
pub fn raise_descriptor_limit() -> usize {
    let before = getrlimit(Resource::Nofile);
    let most = before.maximum.unwrap_or(PLENTY).min(PLENTY);
    if before.current.is_some_and(|now| now < most) {
        let raised = Rlimit {
            current: Some(most),
            maximum: before.maximum,
        };
        // Where it may not be raised it stays as it is.
        if setrlimit(Resource::Nofile, raised).is_ok() {
            let _ = BEFORE.set(before);
        }
    }
    descriptor_limit()
}

/// Gives a command that was just started the limit that this process was started with. It comes a moment late: what the
/// command opens or starts later has it.
#[cfg_attr(not(target_os = "linux"), allow(unused_variables))]
pub(crate) fn restore_for(process: Option<u32>) {
    #[cfg(target_os = "linux")]
    if let Some(before) = BEFORE.get()
        && let Some(process) = process
            .and_then(|process| i32::try_from(process).ok())
            .and_then(rustix::process::Pid::from_raw)
    {
        // Fails where it has ended already.
        let _ = rustix::process::prlimit(Some(process), Resource::Nofile, *before);
    }
}

/// Whether this process ignores SIGHUP, as one under nohup(1) does; what it starts does so too. False where the system does not tell
/// (elsewhere than on Linux).
#[must_use]
pub fn hang_up_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    // A mask in hexadecimal, whose lowest bit is signal 1 (proc_pid_status(5)).
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    #[test]
    fn there_is_a_limit_and_room_for_a_test() {
        assert!(super::descriptor_limit() >= 16);
    }

    #[test]
    fn a_limit_is_raised_and_never_lowered() {
        let before = super::descriptor_limit();
        assert!(super::raise_descriptor_limit() >= before);
        assert!(super::descriptor_limit() >= before);
    }
}
