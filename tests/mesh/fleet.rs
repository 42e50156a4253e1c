//! Relays of one fleet, over a store in memory that speaks as etcd does: revisions, leases, a log of changes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use cepa::identity::{Identity, KeyKind, PeerId};
use cepa::node::{Access, NodeConfig, PeerAddr};
use cepa::protocols::relay::RelayConfig;
use cepa::protocols::relay::fleet::{Batch, Change, Fleet, FleetConfig};
use tokio::sync::watch;

use crate::support::{
    MeshNode, ask, config, eventually, listening, node, offer_echo, soon, through,
};

/// The keys of a fleet.
#[derive(Clone, Default)]
struct Store(Arc<Mutex<Kept>>, watch::Sender<()>);

#[derive(Default)]
struct Kept {
    revision: u64,
    /// Value, revision, and whose lease it is under.
    keys: BTreeMap<String, (Vec<u8>, u64, PeerId)>,
    log: Vec<(String, Option<Vec<u8>>, u64)>,
    /// Who is cut off.
    away: Vec<PeerId>,
}

impl Store {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap()
    }

    fn write(&self, of: PeerId, batch: &Batch) -> Option<u64> {
        let mut kept = self.kept();
        if kept.away.contains(&of) {
            return None;
        }
        kept.revision += 1;
        let revision = kept.revision;
        for write in &batch.writes {
            match &write.value {
                Some(value) => {
                    let value = (value.clone(), revision, of);
                    kept.keys.insert(write.key.clone(), value);
                }
                None => drop(kept.keys.remove(&write.key)),
            }
            kept.log
                .push((write.key.clone(), write.value.clone(), revision));
        }
        drop(kept);
        self.1.send_replace(());
        Some(revision)
    }

    /// As anybody can who may write the store.
    fn put(&self, key: &str, value: &[u8]) {
        let mut kept = self.kept();
        kept.revision += 1;
        let revision = kept.revision;
        let nobody = PeerId::from_bytes([0; 32]);
        kept.keys
            .insert(key.to_owned(), (value.to_vec(), revision, nobody));
        kept.log
            .push((key.to_owned(), Some(value.to_vec()), revision));
        drop(kept);
        self.1.send_replace(());
    }

    /// A member's lease has run out.
    fn expire(&self, of: PeerId) {
        let mut kept = self.kept();
        kept.revision += 1;
        let revision = kept.revision;
        let keys: Vec<_> = kept.keys.iter().filter(|(_, it)| it.2 == of).collect();
        let keys: Vec<_> = keys.into_iter().map(|(key, _)| key.clone()).collect();
        for key in keys {
            kept.keys.remove(&key);
            kept.log.push((key, None, revision));
        }
        drop(kept);
        self.1.send_replace(());
    }

    /// A member can't reach the store, or can again.
    fn cut(&self, of: PeerId, away: bool) {
        self.kept().away.retain(|id| *id != of);
        if away {
            self.kept().away.push(of);
        }
        self.1.send_replace(());
    }

    /// What speaks with the store for one member, until it is aborted.
    async fn shell(self, of: PeerId, fleet: Fleet) {
        let mut news = self.1.subscribe();
        let mut reachable = true;
        self.sync(&fleet);
        loop {
            let away = self.kept().away.contains(&of);
            if away != !reachable {
                reachable = !away;
                fleet.set_reachable(reachable);
                if reachable {
                    self.sync(&fleet);
                    if !self.kept().keys.values().any(|it| it.2 == of) {
                        fleet.lease_lost();
                    }
                }
            }
            if reachable {
                self.watched(&fleet);
                while let Some(batch) = fleet.next_batch(64) {
                    match self.write(of, &batch) {
                        Some(revision) => fleet.written(batch.number, revision),
                        None => fleet.failed(batch.number),
                    }
                }
            }
            tokio::select! {
                _ = news.changed() => {}
                () = fleet.changed(), if reachable => {}
            }
        }
    }

    fn watched(&self, fleet: &Fleet) {
        let since = fleet.revision();
        let log = self.kept().log.clone();
        for (key, value, revision) in log.iter().filter(|(_, _, at)| *at > since) {
            let (value, revision) = (value.as_deref(), *revision);
            fleet.apply(Change {
                key,
                value,
                revision,
            });
        }
    }

    fn sync(&self, fleet: &Fleet) {
        let kept = self.kept();
        let (keys, revision) = (kept.keys.clone(), kept.revision);
        drop(kept);
        fleet.begin_sync();
        for (key, (value, revision, _)) in &keys {
            let (value, revision) = (Some(&value[..]), *revision);
            fleet.apply(Change {
                key,
                value,
                revision,
            });
        }
        fleet.end_sync(revision);
    }
}

/// A relay of a fleet.
struct Member {
    node: MeshNode,
    fleet: Fleet,
    at: PeerAddr,
    shell: tokio::task::AbortHandle,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.shell.abort();
    }
}

impl Member {
    async fn new(
        identity: NodeConfig,
        ids: &[PeerId],
        store: &Store,
        change: impl FnOnce(&mut RelayConfig, &mut FleetConfig),
    ) -> Self {
        let id = identity.stack.identity.peer_id();
        let mut relay = RelayConfig::new(Access::Anyone);
        relay.circuits_a_host = Some(1000);
        relay.registrations_a_host = Some(1000);
        let mut fleet = FleetConfig::new(ids.iter().copied()).with_callers(Access::Anyone);
        change(&mut relay, &mut fleet);
        let fleet = Fleet::new(id, fleet);
        let node = MeshNode::with_relay(identity, relay.with_fleet(Some(fleet.clone())));
        let (_, at) = listening(&node).await;
        fleet.set_addresses(at.hints().to_vec());
        let shell = tokio::spawn(store.clone().shell(id, fleet.clone())).abort_handle();
        Self {
            node,
            fleet,
            at,
            shell,
        }
    }

    fn id(&self) -> PeerId {
        self.node.id()
    }
}

/// So many that belong together, and know of each other.
async fn fleet_with(
    size: usize,
    store: &Store,
    change: impl Fn(usize, &mut RelayConfig, &mut FleetConfig),
) -> Vec<Member> {
    let configs: Vec<_> = (0..size).map(|_| config()).collect();
    let ids: Vec<_> = configs
        .iter()
        .map(|it| it.stack.identity.peer_id())
        .collect();
    let mut all = Vec::new();
    for (at, config) in configs.into_iter().enumerate() {
        let changed = |relay: &mut RelayConfig, fleet: &mut FleetConfig| change(at, relay, fleet);
        all.push(Member::new(config, &ids, store, changed).await);
    }
    all_know(&all, store).await;
    all
}

async fn fleet(size: usize, store: &Store) -> Vec<Member> {
    fleet_with(size, store, |_, _, _| {}).await
}

/// Waits until every member has read and written all.
async fn all_know(all: &[Member], store: &Store) {
    eventually(|| {
        let revision = store.kept().revision;
        all.iter().all(|member| {
            let stats = member.fleet.stats();
            stats.waiting == 0 && stats.revision == revision && stats.present == all.len() - 1
        })
    })
    .await;
}

/// A node that is registered at a relay, and nowhere else.
async fn hidden(at: &Member) -> MeshNode {
    let hidden = node();
    offer_echo(&hidden);
    soon(hidden.register(&at.at)).await.unwrap();
    hidden
}

#[tokio::test]
async fn a_node_is_reached_through_every_member_of_its_relays_fleet() {
    let store = Store::default();
    let all = fleet(3, &store).await;
    let nodes = [
        hidden(&all[0]).await,
        hidden(&all[1]).await,
        hidden(&all[2]).await,
    ];
    all_know(&all, &store).await;
    for (home, hidden) in nodes.iter().enumerate() {
        for (at, member) in all.iter().enumerate() {
            let client = node();
            let to = through(hidden.id(), &member.at, "echo");
            let stream = soon(client.open(&to)).await.unwrap();
            let path = soon(ask(stream, &vec![3; 300_000])).await.unwrap();
            // The node has it from its own relay, whichever that was asked at.
            assert_eq!(path, format!("via relay {}", all[home].id()), "{home} {at}");
        }
    }
    for member in &all {
        let stats = member.fleet.stats();
        assert_eq!((stats.outbound, stats.inbound), (2, 2), "{stats:?}");
        // One session with each other member, whoever has dialled it.
        for other in all.iter().filter(|other| other.id() != member.id()) {
            assert!(member.node.session_with(other.id()).is_some());
        }
    }
    // What is gone is found nowhere.
    let gone = nodes[0].id();
    nodes[0].shutdown(Duration::ZERO).await;
    all_know(&all, &store).await;
    let error = soon(node().open(&through(gone, &all[1].at, "echo"))).await;
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("does not know that peer")
    );
}
