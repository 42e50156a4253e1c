//! The places in the known-peers file. They are this user's own words, so every kind of address is followed.

use futures::future::BoxFuture;

use cepa_transports::endpoint::hidden;

use crate::identity::{KnownPeersFile, PeerId, UnixTime};

use super::resolver::{ResolveError, Resolver};
use crate::node::addr::Hint;

/// Where the peers of a known-peers file were met, or are by whoever wrote the file: addresses, and relays as
/// `relay:PEERID@ENDPOINT`.
///
/// The file is read anew each time. A peer is looked up by the key that it has, or by one that it had and may still use.
#[derive(Clone, Debug)]
pub struct KnownPlaces {
    file: KnownPeersFile,
}

impl KnownPlaces {
    /// Of that file, which need not exist yet.
    #[must_use]
    pub fn new(file: KnownPeersFile) -> Self {
        Self { file }
    }
}

impl Resolver for KnownPlaces {
    fn resolve(&self, peer: PeerId) -> BoxFuture<'_, Result<Vec<Hint>, ResolveError>> {
        let file = self.file.clone();
        Box::pin(async move {
            let looked = tokio::task::spawn_blocking(move || look(&file, peer));
            // It does not panic, and is not cancelled; a runtime that shuts down has no use for an answer.
            let lost = |e: tokio::task::JoinError| ResolveError::Other(e.into());
            looked.await.map_err(lost)?
        })
    }
}

fn look(file: &KnownPeersFile, peer: PeerId) -> Result<Vec<Hint>, ResolveError> {
    let known = file.read().map_err(ResolveError::Known)?;
    let now = UnixTime::now();
    let mut hints = Vec::new();
    let mut wrong = None;
    // A peer may stand there by several names.
    for entry in known.peers().filter(|entry| entry.has_key(peer, now)) {
        for place in &entry.places {
            match place.parse::<Hint>() {
                Ok(hint) if !hints.contains(&hint) => hints.push(hint),
                Ok(_) => {}
                Err(error) => {
                    wrong.get_or_insert(ResolveError::Place {
                        name: entry.name().to_owned(),
                        place: hidden(place),
                        reason: error.to_string(),
                    });
                }
            }
        }
    }
    // One that can't be dialled hides none that can.
    match wrong {
        Some(error) if hints.is_empty() => Err(error),
        _ => Ok(hints),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::KnownPeer;

    const PEER: PeerId = PeerId::from_bytes([1; 32]);
    const OTHER: PeerId = PeerId::from_bytes([2; 32]);

    fn file(peers: &[(&str, PeerId, &[&str])]) -> (tempfile::TempDir, KnownPlaces) {
        let folder = tempfile::tempdir().unwrap();
        let file = KnownPeersFile::new(folder.path().join("known_peers"));
        for (name, id, places) in peers {
            let mut peer = KnownPeer::new(name, *id).unwrap();
            peer.places = places.iter().map(|place| (*place).to_owned()).collect();
            file.edit(|known| known.add(peer)).unwrap();
        }
        (folder, KnownPlaces::new(file))
    }

    async fn found(places: &KnownPlaces, peer: PeerId) -> Result<Vec<String>, String> {
        let found = places.resolve(peer).await.map_err(|e| e.to_string())?;
        Ok(found.iter().map(Hint::to_string).collect())
    }

    #[tokio::test]
    async fn all_places_of_a_peer_and_no_other_s() {
        let relay = format!("relay:{OTHER}@tcp:r:1");
        let (_folder, places) = file(&[
            ("a", PEER, &["tcp:h:1", "exec:ssh host cepa serve stdio:"]),
            ("b", OTHER, &["tcp:other:1"]),
            ("a2", PEER, &["tcp:h:1", &relay]),
        ]);
        let all = found(&places, PEER).await.unwrap();
        assert_eq!(all, ["tcp:h:1", "exec:ssh host cepa serve stdio:", &relay]);
        let nobody = PeerId::from_bytes([3; 32]);
        assert_eq!(found(&places, nobody).await.unwrap(), [""; 0]);
    }

    #[tokio::test]
    async fn a_key_that_is_still_good_is_looked_up_too() {
        let (_folder, places) = file(&[("a", PEER, &["tcp:h:1"])]);
        let hour = std::time::Duration::from_secs(UnixTime::now().as_secs() + 3600);
        let until = UnixTime::since_unix_epoch(hour);
        let change = |peer: &mut KnownPeer| peer.replace_key(OTHER, until);
        places.file.edit(|known| known.change("a", change)).unwrap();
        for key in [PEER, OTHER] {
            assert_eq!(found(&places, key).await.unwrap(), ["tcp:h:1"]);
        }
    }

    #[tokio::test]
    async fn a_place_that_is_none_is_reported_only_where_it_is_the_only_one() {
        let (_folder, places) = file(&[
            ("a", PEER, &["by the lake"]),
            ("b", OTHER, &["by the lake", "tcp:h:1"]),
        ]);
        let said = found(&places, PEER).await.unwrap_err();
        assert!(said.contains("\"by the lake\", where a is"), "{said}");
        assert_eq!(found(&places, OTHER).await.unwrap(), ["tcp:h:1"]);
    }

    #[tokio::test]
    async fn no_file_knows_nobody_and_an_unreadable_one_says_so() {
        let (folder, places) = file(&[]);
        assert_eq!(found(&places, PEER).await.unwrap(), [""; 0]);
        std::fs::create_dir(folder.path().join("known_peers")).unwrap();
        let said = found(&places, PEER).await.unwrap_err();
        assert!(said.contains("folder"), "{said}");
    }
}
