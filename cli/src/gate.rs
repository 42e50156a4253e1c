//! How many streams may be on their way to a session at once.
//!
//! Whoever can connect can hold a handshake open until it times out, so these are counted before
//! anything is spent on them: all together, and for TCP per source address, so that one host cannot
//! take every place. OpenSSH's `MaxStartups` is the model; the random early drop of that is not here.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Streams in a handshake, from everywhere.
const ALL: usize = 100;
/// Streams in a handshake, from one source.
const ONE_SOURCE: usize = 8;
/// Sessions at once. Each may use the mux's receive budget (64 MiB), whoever the peer is.
pub(crate) const SESSIONS: usize = 256;

/// The count of those inside.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate {
    inside: Arc<Mutex<HashMap<String, usize>>>,
}

/// A place inside, given back when dropped.
#[derive(Debug)]
pub(crate) struct Pass {
    inside: Arc<Mutex<HashMap<String, usize>>>,
    source: String,
}

impl Gate {
    /// A place for a stream with this label (`tcp 192.0.2.1:4711`), or `None` when there is none.
    pub(crate) fn enter(&self, label: &str) -> Option<Pass> {
        let source = source(label);
        let mut inside = lock(&self.inside);
        let all: usize = inside.values().sum();
        let here = inside.get(source).copied().unwrap_or(0);
        let full = is_far(source) && here >= ONE_SOURCE;
        if all >= ALL || full {
            return None;
        }
        inside.insert(source.to_owned(), here + 1);
        Some(Pass {
            inside: Arc::clone(&self.inside),
            source: source.to_owned(),
        })
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut inside = lock(&self.inside);
        if let Some(here) = inside.get_mut(&self.source) {
            *here -= 1;
            if *here == 0 {
                inside.remove(&self.source);
            }
        }
    }
}

/// Whether the count of one source means something: on this machine there is nobody to tell apart
/// (all that a tunnel or a proxy brings comes from one address), and only here could a host have
/// good reason to come many times at once.
fn is_far(source: &str) -> bool {
    let Some(host) = source.strip_prefix("tcp ") else {
        return false;
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.parse::<IpAddr>()
        .is_ok_and(|ip| !ip.to_canonical().is_loopback())
}

/// The label without the port.
fn source(label: &str) -> &str {
    label.rsplit_once(':').map_or(label, |(host, _port)| host)
}

fn lock(inside: &Mutex<HashMap<String, usize>>) -> MutexGuard<'_, HashMap<String, usize>> {
    // The map is whole after every statement that changes it.
    inside.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_cannot_take_every_place() {
        let gate = Gate::default();
        let mut passes: Vec<Pass> = (0..ONE_SOURCE)
            .map(|i| gate.enter(&format!("tcp 192.0.2.1:{i}")).unwrap())
            .collect();
        assert!(gate.enter("tcp 192.0.2.1:9999").is_none());
        assert!(gate.enter("tcp [2001:db8::1]:9999").is_some());
        let local: Vec<_> = (0..20)
            .map(|i| gate.enter(&format!("tcp 127.0.0.1:{i}")))
            .collect();
        assert!(local.iter().all(Option::is_some));
        passes.pop();
        assert!(gate.enter("tcp 192.0.2.1:9999").is_some());
    }

    #[test]
    fn all_together_are_bounded() {
        let gate = Gate::default();
        let passes: Vec<Pass> = (0..ALL)
            .map(|i| gate.enter(&format!("tcp 192.0.2.{i}:1")).unwrap())
            .collect();
        assert!(gate.enter("tcp 198.51.100.1:1").is_none());
        drop(passes);
        assert!(gate.enter("tcp 198.51.100.1:1").is_some());
    }
}
