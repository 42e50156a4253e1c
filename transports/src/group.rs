//! A command and all that it has started, to be ended together.
//!
//! A command that runs for somebody else leads a process group of its own, or a session where it has a terminal. When the
//! stream that feeds it is cut, the whole group is killed *before* its pipes close: whatever reads there never takes
//! the cut for the end of its input. Wrappers (`timeout`, a shell with job control) put what they start into groups of their own, so
//! on Linux the command's descendants are looked up in `/proc` as well. What has left both (a daemon), or belongs to another user
//! (sudo, a container's processes), is out of reach: it sees its pipes close.
//!
//! A process number is used only while its process, or a member of its group, is known to be there.
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::limits::hang_up_is_ignored;

/// Who is signalled. Clones mean the same command.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group(Arc<Mutex<Option<Members>>>);

#[derive(Clone, Copy, Debug)]
struct Members {
    leader: Pid,
    /// The command leads a group of its own; else it alone is meant.
    own: bool,
}

impl Group {
    /// Of a command that was just started.
    pub(crate) fn new(leader: Option<u32>, own: bool) -> Self {
        let leader = leader
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        Self(Arc::new(Mutex::new(
            leader.map(|leader| Members { leader, own }),
        )))
    }

    /// Kills them all. Nothing happens once [`ended`](Self::ended) was called.
    pub(crate) fn kill(&self) {
        let Some(Members { leader, own }) = *self.lock() else {
            return;
        };
        if !own {
            let _ = kill_process(leader, Signal::KILL);
            return;
        }
        // Stopped first, so that nobody who is found has started another one meanwhile.
        let _ = kill_process_group(leader, Signal::STOP);
        let others = descendants(leader);
        let _ = kill_process_group(leader, Signal::KILL);
        // Where it makes its group itself (setsid), it may not have done so yet.
        let _ = kill_process(leader, Signal::KILL);
        for other in others {
            let _ = kill_process(other, Signal::KILL);
        }
    }

    /// Kills the command and what descends from it, where it has no group of its own.
    pub(crate) fn kill_descent(&self) {
        let Some(Members { leader, own }) = *self.lock() else {
            return;
        };
        if own {
            return;
        }
        let _ = kill_process(leader, Signal::STOP);
        for other in descendants(leader) {
            let _ = kill_process(other, Signal::KILL);
        }
        let _ = kill_process(leader, Signal::KILL);
    }

    /// The command has ended, and its status was taken: what it left behind in its group is hung up, and its number is
    /// not used again.
    pub(crate) fn ended(&self) {
        if let Some(Members { leader, own: true }) = self.lock().take() {
            // Under nohup all of them ignore that.
            let signal = if hang_up_is_ignored() {
                Signal::TERM
            } else {
                Signal::HUP
            };
            let _ = kill_process_group(leader, signal);
            let _ = kill_process_group(leader, Signal::CONT);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Members>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The processes that descend from this one, as far as their parents are alive.
#[cfg(target_os = "linux")]
fn descendants(of: Pid) -> Vec<Pid> {
    let Ok(all) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pairs: Vec<(i32, i32)> = all
        .flatten()
        .filter_map(|entry| {
            let id = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            Some((id, parent(&stat)?))
        })
        .collect();
    let mut found = vec![of.as_raw_nonzero().get()];
    let mut next = 0;
    while let Some(&of) = found.get(next) {
        next += 1;
        // No process has two parents, so nobody is found twice; the bound is for a table that changes while it is read.
        let children = pairs.iter().filter(|(_, parent)| *parent == of);
        for (child, _) in children {
            if !found.contains(child) {
                found.push(*child);
            }
        }
    }
    found
        .into_iter()
        .skip(1)
        .filter_map(Pid::from_raw)
        .collect()
}

/// The parent in a line of `/proc/PID/stat`: `pid (name) state ppid …`, where the name may hold anything (proc_pid_stat(5)).
#[cfg(target_os = "linux")]
fn parent(stat: &str) -> Option<i32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(not(target_os = "linux"))]
fn descendants(_: Pid) -> Vec<Pid> {
    Vec::new()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_hides_no_parent() {
        assert_eq!(parent("12 (a) R 3 (b) S 7 12 12"), Some(7));
        assert_eq!(parent("12 (sh) S 1 12 12"), Some(1));
        assert_eq!(parent("12"), None);
    }
}
