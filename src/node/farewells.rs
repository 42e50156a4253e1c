//! How many are told at once that there is no place for them.
//!
//! Who finds the gate full reads that it is, which takes a descriptor until it has left, or [`GOODBYE`] is over. A flood must not
//! hold more of those than what it asks for would cost, so there are so many farewells at once; one far host has half of
//! them at most. Who comes on top of that is cut, as everybody would be without them. Who is shut out for its failures has been told
//! why each time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cepa_transports::descriptor_limit;

use crate::gate::Source;

/// At once, where the process may open enough: a crowd of a thousand reads an answer.
const MOST: usize = 1024;

/// The part of the descriptors that farewells may have: half of what sessions leave free.
const PART: usize = 16;

/// The farewells under way, by host.
#[derive(Debug)]
pub(super) struct Farewells {
    most: usize,
    hosts: Mutex<HashMap<Source, usize>>,
}

/// A farewell, until it is dropped.
pub(super) struct Farewell {
    all: Arc<Farewells>,
    host: Source,
}

impl Default for Farewells {
    fn default() -> Self {
        Self {
            most: (descriptor_limit() / PART).min(MOST),
            hosts: Mutex::default(),
        }
    }
}

impl Farewells {
    /// Room for one more from there, if there is.
    pub(super) fn begin(self: &Arc<Self>, from: Source) -> Option<Farewell> {
        let host = from.host();
        let most = if host.is_far() {
            self.most / 2
        } else {
            self.most
        };
        let mut hosts = self.hosts();
        let all: usize = hosts.values().sum();
        let own = hosts.get(&host).copied().unwrap_or(0);
        if all >= self.most || own >= most {
            return None;
        }
        hosts.insert(host, own + 1);
        drop(hosts);
        Some(Farewell {
            all: Arc::clone(self),
            host,
        })
    }

    fn hosts(&self) -> MutexGuard<'_, HashMap<Source, usize>> {
        // Each change is whole after one statement.
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Farewell {
    fn drop(&mut self) {
        let mut hosts = self.all.hosts();
        if let Some(own) = hosts.get_mut(&self.host) {
            *own -= 1;
            if *own == 0 {
                hosts.remove(&self.host);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_so_many_and_one_far_host_has_half_of_them() {
        let all = Arc::new(Farewells {
            most: 8,
            hosts: Mutex::default(),
        });
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(|ip| {
            let ip: std::net::IpAddr = ip.parse().unwrap();
            Source::from(ip)
        });
        let begin = |from, wanted: usize| -> Vec<Farewell> {
            (0..wanted).filter_map(|_| all.begin(from)).collect()
        };
        let far = begin(one, 8);
        assert_eq!(far.len(), 4);
        let here = begin(Source::HERE, 3);
        assert_eq!(here.len(), 3);
        assert_eq!(begin(other, 2).len(), 1, "all are taken otherwise");
        drop(far);
        assert_eq!(begin(Source::HERE, 8).len(), 5);
        drop(here);
        assert!(all.hosts().is_empty());
    }
}
