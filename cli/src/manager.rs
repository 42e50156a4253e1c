//! What a service manager (systemd, and others with its protocol) and a long-running command say to each other: sockets that it has
//! bound for us, by their names, and when we are ready, reload and stop.

use std::ffi::OsString;

use sd_notify::NotifyState;

/// The first descriptor that is passed on, as sd_listen_fds(3) has it.
const FIRST: u32 = 3;

/// Listens, or is registered. Nobody hears it where no manager asked.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Reads its configuration again; [`ready`] ends that.
pub(crate) fn reloading() {
    // systemd wants to know when, to tell which reload this was.
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now]);
    }
}

pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    // A manager that does not listen is none of our failures.
    let _ = sd_notify::notify(states);
}

/// An address where one listens, with the number for `fd:NAME`: the `FileDescriptorName=` of a socket unit.
pub(crate) fn numbered(word: &str) -> Result<String, String> {
    let variable = |name: &str| std::env::var_os(name);
    numbered_by(word, std::process::id(), variable)
}

fn numbered_by(
    word: &str,
    process: u32,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<String, String> {
    // Layers may stand in front: `mux+tls+fd:web`.
    let Some(at) = word
        .find("fd:")
        .filter(|at| *at == 0 || word[..*at].ends_with('+'))
    else {
        return Ok(word.to_owned());
    };
    let (layers, name) = (&word[..at], &word[at + 3..]);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Ok(word.to_owned());
    }
    let text = |key: &str| variable(key).and_then(|value| value.into_string().ok());
    let number = |key: &str| text(key).and_then(|value| value.parse::<u32>().ok());
    let names = text("LISTEN_FDNAMES").unwrap_or_default();
    let passed = match number("LISTEN_PID") {
        Some(pid) if pid == process => number("LISTEN_FDS").unwrap_or(0),
        _ => 0,
    };
    if passed == 0 {
        return Err(format!(
            "no socket was passed on to this process, so none is named {name}; start it from a systemd socket unit, or give a number, as fd:3"
        ));
    }
    let sockets: Vec<_> = (FIRST..FIRST.saturating_add(passed))
        .zip(names.split(':'))
        .collect();
    if let Some((n, _)) = sockets.iter().find(|(_, it)| *it == name) {
        return Ok(format!("{layers}fd:{n}"));
    }
    let there: Vec<_> = sockets.iter().map(|(_, it)| *it).collect();
    Err(format!(
        "no socket named {name} was passed on; there is {} (FileDescriptorName= of a systemd socket unit)",
        there.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(word: &str, pid: &str, names: &str) -> Result<String, String> {
        numbered_by(word, 7, |key| {
            let value = match key {
                "LISTEN_PID" => pid,
                "LISTEN_FDS" => "2",
                "LISTEN_FDNAMES" => names,
                _ => return None,
            };
            Some(value.into())
        })
    }

    #[test]
    fn a_name_becomes_the_number_of_its_socket() {
        assert_eq!(by("fd:web", "7", "up:web").unwrap(), "fd:4");
        assert_eq!(by("mux+tls+fd:up", "7", "up:web").unwrap(), "mux+tls+fd:3");
        for same in ["fd:5", "fd:5,6", "tcp:fd:1", "unix:/fd:a"] {
            assert_eq!(by(same, "7", "up:web").unwrap(), same);
        }
    }

    #[test]
    fn a_name_that_is_not_there_says_which_are() {
        let wrong = by("fd:wbe", "7", "up:web").unwrap_err();
        assert!(wrong.contains("there is up, web"), "{wrong}");
        // They are for another process: one that this one was started by.
        let wrong = by("fd:web", "8", "up:web").unwrap_err();
        assert!(wrong.contains("no socket was passed on"), "{wrong}");
        let wrong = numbered_by("fd:web", 7, |_| None).unwrap_err();
        assert!(wrong.contains("fd:3"), "{wrong}");
    }
}
