//! Relays of one fleet, over a store in memory that speaks as etcd does: revisions, leases, a log of changes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use cepa::identity::PeerId;
use cepa::node::{
    Access, Admission, AttemptError, Call, DialError, NodeConfig, PeerAddr, Protocol, ReachError,
};
use cepa::protocols::relay::fleet::{Batch, Change, Fleet, FleetConfig};
use cepa::protocols::relay::{RegisterError, Registration, RelayConfig, RelayError, Status, take};
use cepa::session::OpenError;
use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::circuits::{circuit_when, code};
use crate::support::{
    MeshNode, address, ask, by_hand, config, eventually, listening, node, offer_echo, soon, through,
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
            if away == reachable {
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
    /// Where it is reached: all comes through a task that can be ended at once.
    at: PeerAddr,
    power: CancellationToken,
    shell: tokio::task::AbortHandle,
}

/// A way to a relay that is gone at once when `power` is: connections are reset, and nobody listens any more. So it looks from outside when a
/// process is killed.
async fn socket(to: &PeerAddr, power: CancellationToken) -> PeerAddr {
    let place = to.hints()[0].to_string().replace("tcp:", "");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = format!(
        "cepa://{}@tcp:{}",
        to.peer(),
        listener.local_addr().unwrap()
    );
    tokio::spawn(async move {
        loop {
            let near = tokio::select! {
                near = listener.accept() => near.unwrap().0,
                () = power.cancelled() => return,
            };
            let (place, power) = (place.clone(), power.clone());
            tokio::spawn(async move {
                let mut near = near;
                let Ok(mut far) = TcpStream::connect(place).await else {
                    return;
                };
                near.set_nodelay(true).unwrap();
                far.set_nodelay(true).unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    () = power.cancelled() => {}
                }
            });
        }
    });
    address(&here)
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
        (relay.circuits, relay.circuits_a_peer) = (1000, 100);
        relay.circuits_a_host = Some(1000);
        relay.registrations_a_host = Some(1000);
        let mut fleet = FleetConfig::new(ids.iter().copied()).with_callers(Access::Anyone);
        change(&mut relay, &mut fleet);
        let fleet = Fleet::new(id, fleet);
        let node = MeshNode::with_relay(identity, relay.with_fleet(Some(fleet.clone())));
        let (_, at) = listening(&node).await;
        let power = CancellationToken::new();
        let at = socket(&at, power.clone()).await;
        fleet.set_addresses(at.hints().to_vec());
        let shell = tokio::spawn(store.clone().shell(id, fleet.clone())).abort_handle();
        Self {
            node,
            fleet,
            at,
            power,
            shell,
        }
    }

    /// As by `kill -9`; its lease runs out.
    fn kill(&self, store: &Store) {
        self.power.cancel();
        self.shell.abort();
        store.expire(self.id());
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

/// Waits until these have read and written all.
async fn others_know(all: &[Fleet], store: &Store) {
    eventually(|| {
        let revision = store.kept().revision;
        all.iter().all(|fleet| {
            let stats = fleet.stats();
            stats.waiting == 0 && stats.revision == revision
        })
    })
    .await;
}

/// The echo of a node, through a member; how the node says that one came.
async fn reach(client: &MeshNode, peer: PeerId, at: &PeerAddr) -> Result<String, ReachError> {
    let stream = soon(client.open(&through(peer, at, "echo"))).await?;
    Ok(soon(ask(stream, b"hello")).await.unwrap())
}

/// With which status the relay refused, and in which words.
fn refusal(error: &ReachError) -> (Status, String) {
    let ReachError::Dial(DialError::Failed { attempts, .. }) = error else {
        panic!("{error}");
    };
    let AttemptError::Relay(error) = &attempts[0].1 else {
        panic!("{}", attempts[0].1);
    };
    match error.downcast_ref() {
        Some(RelayError::Refused { status, reason, .. }) => (*status, reason.clone()),
        other => panic!("{other:?}"),
    }
}

fn via(member: &Member) -> String {
    format!("via relay {}", member.id())
}

/// The member at which a node is registered, other than this one.
async fn moved<'a>(node: &MeshNode, all: &'a [Member], from: PeerId) -> &'a Member {
    let at = || node.relays.registered().into_iter().find(|at| *at != from);
    eventually(|| at().is_some()).await;
    let at = at().unwrap();
    all.iter().find(|member| member.id() == at).unwrap()
}

#[tokio::test]
async fn a_dialler_goes_to_the_nearer_relay_the_next_time() {
    let store = Store::default();
    let all = fleet(3, &store).await;
    let (hidden, client) = (hidden(&all[1]).await, node());
    all_know(&all, &store).await;
    for _ in 0..3 {
        assert_eq!(
            reach(&client, hidden.id(), &all[0].at).await.unwrap(),
            via(&all[1])
        );
        client.disconnect(hidden.id()).await;
    }
    assert!(client.session_with(all[1].id()).is_some());
    // The first one alone went over two relays.
    assert_eq!(all[0].fleet.stats().outbound, 1);
    // Where it is gone, the address still leads to the peer.
    let id = hidden.id();
    all[1].kill(&store);
    moved(&hidden, &all, all[1].id()).await;
    others_know(&[&all[0], &all[2]].map(|it| it.fleet.clone()), &store).await;
    reach(&client, id, &all[0].at).await.unwrap();
}

/// Killed: its node registers at another one that it was told of, and an address that names the dead one still leads there.
#[tokio::test]
async fn the_nodes_of_a_relay_that_is_killed_are_reached_through_the_others() {
    let store = Store::default();
    let all = fleet(3, &store).await;
    let mut nodes = Vec::new();
    for _ in 0..5 {
        nodes.push(hidden(&all[0]).await);
    }
    let other = hidden(&all[1]).await;
    all_know(&all, &store).await;
    let client = node();
    reach(&client, nodes[0].id(), &all[0].at).await.unwrap();
    client.disconnect(nodes[0].id()).await;
    // One that goes through another relay loses nothing.
    let mut standing = soon(client.open(&through(other.id(), &all[1].at, "echo")))
        .await
        .unwrap();
    all[0].kill(&store);
    for node in &nodes {
        let member = moved(node, &all, all[0].id()).await;
        others_know(&[&all[1], &all[2]].map(|it| it.fleet.clone()), &store).await;
        // By the address of the dead one, of which this client has heard the others.
        assert_eq!(
            reach(&client, node.id(), &all[0].at).await.unwrap(),
            via(member)
        );
        // And by the others, for who has heard nothing.
        for at in &all[1..] {
            let path = reach(&crate::support::node(), node.id(), &at.at)
                .await
                .unwrap();
            assert_eq!(path, via(member));
        }
    }
    standing.write_all(b"still here").await.unwrap();
    standing.shutdown().await.unwrap();
    let mut back = String::new();
    soon(standing.read_to_string(&mut back)).await.unwrap();
    assert!(back.ends_with("still here"), "{back}");
}

#[tokio::test]
async fn a_relay_that_ends_sends_its_nodes_elsewhere_first() {
    let store = Store::default();
    let all = fleet(3, &store).await;
    let mut nodes = Vec::new();
    for _ in 0..4 {
        nodes.push(hidden(&all[0]).await);
    }
    all_know(&all, &store).await;
    let client = node();
    let mut standing = soon(client.open(&through(nodes[0].id(), &all[0].at, "echo")))
        .await
        .unwrap();
    soon(all[0].node.leave(Duration::from_secs(3600))).await;
    assert_eq!(all[0].node.relay_stats().unwrap().registrations, 0);
    all_know(&all, &store).await;
    for node in &nodes {
        let member = moved(node, &all, all[0].id()).await;
        // It leads there as long as it lives, and takes no registration.
        let path = reach(&crate::support::node(), node.id(), &all[0].at).await;
        assert_eq!(path.unwrap(), via(member));
    }
    let late = node();
    let error = soon(late.register(&all[0].at)).await.unwrap_err();
    assert!(error.to_string().contains("about to end"), "{error}");
    moved(&late, &all, all[0].id()).await;
    // Its circuits go on until it ends.
    standing.write_all(b"x").await.unwrap();
    standing.shutdown().await.unwrap();
    soon(standing.read_to_end(&mut Vec::new())).await.unwrap();
    // The others name it to nobody any more.
    for member in &all[1..] {
        let present = member.fleet.present();
        let about = present.iter().find(|(id, _)| *id == all[0].id()).unwrap();
        assert!(about.1.leaving);
    }
}

/// Else nobody could go before it has gone.
#[tokio::test]
async fn who_has_all_that_it_may_have_moves_before_its_relay_ends() {
    let store = Store::default();
    let all = fleet_with(2, &store, |_, relay, _| relay.registrations_a_peer = 1).await;
    let node = hidden(&all[0]).await;
    all_know(&all, &store).await;
    soon(all[0].node.leave(Duration::from_secs(3600))).await;
    moved(&node, &all, all[0].id()).await;
}

#[tokio::test]
async fn a_full_relay_names_one_that_has_room() {
    let store = Store::default();
    let all = fleet_with(2, &store, |at, relay, _| {
        relay.registrations = if at == 0 { 2 } else { 100 };
    })
    .await;
    let mut nodes = Vec::new();
    for n in 0..6 {
        let node = node();
        offer_echo(&node);
        match soon(node.register(&all[0].at)).await {
            Ok(()) => {}
            Err(RegisterError::Relay(RelayError::Refused { status, reason, .. })) => {
                assert_eq!(status, Status::Full);
                let named = format!("relay {} has room", all[1].id());
                assert!(
                    reason == named || reason.starts_with("little is left"),
                    "{reason}"
                );
                assert_eq!(moved(&node, &all, all[0].id()).await.id(), all[1].id());
            }
            Err(error) => panic!("{n}: {error}"),
        }
        nodes.push(node);
    }
    all_know(&all, &store).await;
    assert!(all[0].node.relay_stats().unwrap().registrations <= 2);
    assert!(all[1].node.relay_stats().unwrap().registrations >= 4);
    for hidden in &nodes {
        reach(&node(), hidden.id(), &all[0].at).await.unwrap();
    }
}

/// A member loses the store and keeps its nodes; another process with the key of one registers elsewhere.
#[tokio::test]
async fn after_a_split_the_newer_registration_counts_for_all() {
    let store = Store::default();
    let all = fleet(3, &store).await;
    let keys = config();
    let instance = || {
        let node = MeshNode::new(keys.clone());
        offer_echo(&node);
        node
    };
    let old = instance();
    soon(old.register(&all[0].at)).await.unwrap();
    all_know(&all, &store).await;
    store.cut(all[0].id(), true);
    store.expire(all[0].id());
    eventually(|| !all[0].fleet.stats().reachable).await;
    let new = instance();
    soon(new.register(&all[1].at)).await.unwrap();
    others_know(&[&all[1], &all[2]].map(|it| it.fleet.clone()), &store).await;
    // It leads to those that it has.
    assert_eq!(
        reach(&node(), old.id(), &all[0].at).await.unwrap(),
        via(&all[0])
    );
    assert_eq!(
        reach(&node(), old.id(), &all[2].at).await.unwrap(),
        via(&all[1])
    );
    store.cut(all[0].id(), false);
    all_know(&all, &store).await;
    assert_eq!(all[0].fleet.stats().leases_lost, 1);
    for member in &all {
        assert_eq!(
            reach(&node(), old.id(), &member.at).await.unwrap(),
            via(&all[1])
        );
    }
    // The older one is there when the newer one is gone.
    new.shutdown(Duration::ZERO).await;
    all_know(&all, &store).await;
    for member in &all {
        assert_eq!(
            reach(&node(), old.id(), &member.at).await.unwrap(),
            via(&all[0])
        );
    }
}

#[tokio::test]
async fn what_is_registered_while_the_store_is_away_is_entered_when_it_is_back() {
    let store = Store::default();
    let all = fleet(2, &store).await;
    let before = hidden(&all[1]).await;
    all_know(&all, &store).await;
    for member in &all {
        store.cut(member.id(), true);
    }
    eventually(|| all.iter().all(|it| !it.fleet.stats().reachable)).await;
    let during = hidden(&all[0]).await;
    // What was known is, and who is here is here.
    reach(&node(), before.id(), &all[0].at).await.unwrap();
    reach(&node(), during.id(), &all[0].at).await.unwrap();
    assert_eq!(all[0].fleet.stats().waiting, 1);
    for member in &all {
        store.expire(member.id());
        store.cut(member.id(), false);
    }
    all_know(&all, &store).await;
    for (hidden, at) in [(&during, &all[1]), (&before, &all[0])] {
        reach(&node(), hidden.id(), &at.at).await.unwrap();
    }
}

#[tokio::test]
async fn what_one_peer_may_have_it_may_have_in_the_whole_fleet() {
    let store = Store::default();
    let all = fleet_with(3, &store, |_, relay, _| relay.registrations_a_peer = 2).await;
    let keys = config();
    let mut instances = Vec::new();
    for member in &all[..2] {
        let instance = MeshNode::new(keys.clone());
        soon(instance.register(&member.at)).await.unwrap();
        all_know(&all, &store).await;
        instances.push(instance);
    }
    let third = MeshNode::new(keys.clone());
    let error = soon(third.register(&all[2].at)).await.unwrap_err();
    let RegisterError::Relay(RelayError::Refused { status, .. }) = error else {
        panic!("{error}");
    };
    assert_eq!(status, Status::Quota);
    // It gets it when another one has gone.
    instances.pop().unwrap().shutdown(Duration::ZERO).await;
    eventually(|| !third.relays.registered().is_empty()).await;
}

/// Its entries stand in the store until its lease has ended, which may be an hour where the store is away; they keep nobody from going elsewhere.
#[tokio::test]
async fn what_a_peer_had_at_a_relay_that_was_killed_counts_for_nothing() {
    let store = Store::default();
    let all = fleet_with(2, &store, |_, relay, _| relay.registrations_a_peer = 2).await;
    let keys = config();
    let mut instances = Vec::new();
    for _ in 0..2 {
        let instance = MeshNode::new(keys.clone());
        soon(instance.register(&all[0].at)).await.unwrap();
        all_know(&all, &store).await;
        instances.push(instance);
    }
    // Its lease does not end.
    all[0].power.cancel();
    all[0].shell.abort();
    for instance in &instances {
        moved(instance, &all, all[0].id()).await;
    }
    assert_eq!(all[1].fleet.stats().elsewhere, 1, "the store still has it");
    // That is all it may have.
    let error = MeshNode::new(keys).register(&all[1].at).await.unwrap_err();
    assert!(
        error.to_string().contains("at most 2 of one peer"),
        "{error}"
    );
}

/// A way to a relay that nothing passes any more once `stop` is, as by a process that was stopped: nobody hears that it is over.
async fn stopped_by(to: &PeerAddr, stop: CancellationToken) -> PeerAddr {
    let place = to.hints()[0].to_string().replace("tcp:", "");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let mut near = listener.accept().await.unwrap().0;
            let mut far = TcpStream::connect(&place).await.unwrap();
            let stop = stop.clone();
            tokio::spawn(async move {
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    () = stop.cancelled() => std::future::pending().await,
                }
            });
        }
    });
    address(&format!("cepa://{}@tcp:{here}", to.peer()))
}

/// As at one relay alone: a process that was stopped keeps its peer from nothing, and does not keep what it had.
#[tokio::test]
async fn what_nobody_answers_for_at_another_member_counts_for_nothing_and_is_ended() {
    let store = Store::default();
    let all = fleet_with(2, &store, |_, relay, _| relay.registrations_a_peer = 2).await;
    let (keys, stop) = (config(), CancellationToken::new());
    let at = stopped_by(&all[0].at, stop.clone()).await;
    let mut instances = Vec::new();
    for _ in 0..2 {
        let instance = MeshNode::new(keys.clone());
        soon(instance.register(&at)).await.unwrap();
        instances.push(instance);
    }
    all_know(&all, &store).await;
    let early = MeshNode::new(keys.clone());
    soon(early.register(&all[1].at)).await.unwrap_err();
    early.shutdown(Duration::ZERO).await;
    let held = || all[0].node.relay_stats().unwrap().registrations;
    assert_eq!(held(), 2, "all of them answer");
    stop.cancel();
    let next = MeshNode::new(keys);
    soon(next.register(&all[1].at)).await.unwrap();
    assert_eq!(held(), 0);
}

/// What a registration of a peer looks like in the store, with the number of them.
fn registered(count: u8) -> Vec<u8> {
    vec![0xa3, 0, 1, 1, 0x1b, 0, 0, 0, 1, 0, 0, 0, 0, 4, count]
}

/// Whoever can write the store says that a peer has all that it may have at a member that does not have it.
#[tokio::test]
async fn what_is_forged_in_the_name_of_a_member_fills_nobodys_quota() {
    let store = Store::default();
    let all = fleet(2, &store).await;
    let node = node();
    // That member does not see it, and so does not put it right.
    store.cut(all[1].id(), true);
    store.put(&format!("r/{}/{}", node.id(), all[1].id()), &registered(4));
    eventually(|| all[0].fleet.stats().elsewhere == 1).await;
    soon(node.register(&all[0].at)).await.unwrap();
    assert_eq!(all[0].fleet.stats().elsewhere, 1);
}

/// A member that has turned bad: says of each peer that it has so many registrations there.
struct Liar(u8);

impl Protocol for Liar {
    fn names(&self) -> &[&'static str] {
        &["cepa.relay.holds"]
    }

    fn admission(&self, _name: &str) -> Admission {
        Admission::Access(Access::Anyone)
    }

    fn serve(self: Arc<Self>, call: Call) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let mut stream = call.accept().await.unwrap();
            let mut asked = [0; 40];
            stream.read_exact(&mut asked).await.unwrap();
            assert_eq!(asked[..8], [0, 38, 0xa2, 0, 1, 1, 0x58, 32]);
            let answer = [0, 5, 0xa2, 0, 1, 1, self.0];
            stream.write_all(&answer).await.unwrap();
            let _ = stream.read_u8().await;
        })
    }
}

/// It can keep a peer out, and is named then, so that it can be taken out of the lists. So is one that does not take this relay for one of
/// its fleet: of that the store is believed.
#[tokio::test]
async fn a_member_that_says_it_has_a_peer_is_believed_and_named() {
    for says in [Some(4), Some(3), None] {
        let store = Store::default();
        let (own, other) = (config(), config());
        let ids = [&own, &other].map(|it| it.stack.identity.peer_id());
        let member = Member::new(own, &ids, &store, |_, _| {}).await;
        let other = MeshNode::new(other);
        if let Some(count) = says {
            other.add_protocol(Arc::new(Liar(count))).unwrap();
        }
        let (_, at) = listening(&other).await;
        let node = node();
        let about = about(&at.hints()[0].to_string());
        store.put(&format!("m/{}", other.id()), &about);
        store.put(&format!("r/{}/{}", node.id(), other.id()), &registered(5));
        others_know(std::slice::from_ref(&member.fleet), &store).await;
        let answer = soon(node.register(&member.at)).await;
        if says == Some(3) {
            answer.unwrap();
            continue;
        }
        let Err(RegisterError::Relay(RelayError::Refused { status, reason, .. })) = answer else {
            panic!("{answer:?}");
        };
        assert_eq!(status, Status::Quota);
        let (short, has) = (other.id().short(), says.unwrap_or(5));
        assert_eq!(
            reason,
            format!(
                "at most 4 of one peer in the whole fleet: relay {short}… says that it has {has}"
            )
        );
    }
}

/// The rule is the same at every relay: the newest registration is asked first, wherever it is, and the next one where that does not answer.
#[tokio::test]
async fn a_newer_registration_elsewhere_comes_before_an_older_one_here() {
    let store = Store::default();
    let all = fleet(2, &store).await;
    let keys = config();
    let mut instances = Vec::new();
    for member in &all {
        let instance = MeshNode::new(keys.clone());
        offer_echo(&instance);
        soon(instance.register(&member.at)).await.unwrap();
        all_know(&all, &store).await;
        instances.push(instance);
    }
    let id = instances[0].id();
    for member in &all {
        let path = reach(&node(), id, &member.at).await.unwrap();
        assert_eq!(path, via(&all[1]));
    }
    // Killed, and the store still has it.
    all[1].power.cancel();
    all[1].shell.abort();
    let path = reach(&node(), id, &all[0].at).await.unwrap();
    assert_eq!(path, via(&all[0]));
    assert_eq!(all[0].fleet.stats().elsewhere, 1);
}

/// All circuits between two relays are in one session, and what waits of them has the memory of one peer.
#[tokio::test]
async fn circuits_that_nobody_reads_do_not_hold_up_the_others_of_two_relays() {
    let store = Store::default();
    let configs: Vec<_> = (0..2)
        .map(|_| {
            let mut config = config();
            // Half of it is eight first windows of 64 KiB.
            config.shares.receive_memory_a_peer = 1 << 20;
            config
        })
        .collect();
    let ids: Vec<_> = (configs.iter())
        .map(|it| it.stack.identity.peer_id())
        .collect();
    let mut all = Vec::new();
    for config in configs {
        let change = |relay: &mut RelayConfig, _: &mut FleetConfig| relay.rate = 1 << 30;
        all.push(Member::new(config, &ids, &store, change).await);
    }
    let hidden = hidden(&all[1]).await;
    // A peer that says much as soon as it may, to who does not listen.
    let (registered, target) = by_hand(&all[1].at).await;
    let hour = Duration::from_secs(3600);
    let _registration = Registration::at(&registered, hour).await.unwrap();
    let (go, may) = watch::channel(false);
    let flood = tokio::spawn(async move {
        while let Ok(incoming) = registered.accept().await {
            let mut may = may.clone();
            tokio::spawn(async move {
                let (mut stream, _) = take(incoming).await.unwrap();
                may.wait_for(|may| *may).await.unwrap();
                while stream.write_all(&[7; 16 << 10]).await.is_ok() {}
            });
        }
    });
    all_know(&all, &store).await;
    let client = node();
    let to = through(hidden.id(), &all[0].at, "echo");
    let standing = soon(client.open(&to)).await.unwrap();
    let (dialler, _) = by_hand(&all[0].at).await;
    let mut unread = Vec::new();
    for _ in 0..32 {
        let circuit = soon(cepa::protocols::relay::dial(&dialler, target)).await;
        unread.push(circuit.unwrap());
    }
    go.send_replace(true);
    let stats = || all[0].node.relay_stats().unwrap();
    eventually(|| stats().unread > 0).await;
    let path = soon(ask(standing, b"hello")).await.unwrap();
    assert_eq!(path, via(&all[1]));
    // Half of that memory is theirs all the same.
    assert!(stats().circuits > 4, "{:?}", stats());
    drop(unread);
    flood.abort();
}

/// Who can write the store leads nobody through a relay that is no member, and can't pass for a peer.
#[tokio::test]
async fn forged_entries_lead_nobody_through_a_stranger() {
    let store = Store::default();
    let all = fleet(3, &store).await;
    let hidden = hidden(&all[2]).await;
    all_know(&all, &store).await;
    // A relay of somebody else, which says that the peer is with it; and it is.
    let stranger = crate::support::relay(|_| {});
    let (_, at) = listening(&stranger).await;
    let victim = node();
    offer_echo(&victim);
    victim.register(&at).await.unwrap();
    let about = about(&at.hints()[0].to_string());
    store.put(&format!("m/{}", stranger.id()), &about);
    let end = [0xa2, 0, 1, 1, 0x1b, 0, 0, 0, 1, 0, 0, 0, 0];
    for peer in [victim.id(), hidden.id()] {
        store.put(&format!("r/{peer}/{}", stranger.id()), &end);
        // And a member that does not have it.
        store.put(&format!("r/{peer}/{}", all[1].id()), &end);
    }
    for (key, value) in [("r/x", &[0; 5000][..]), ("m/", b""), ("\u{1b}", b"")] {
        store.put(key, value);
    }
    all_know(&all, &store).await;
    let error = reach(&node(), victim.id(), &all[0].at).await.unwrap_err();
    assert_eq!(refusal(&error).0, Status::NotRegistered);
    assert!(all[0].node.session_with(stranger.id()).is_none());
    // The true one is found behind the forged one.
    assert_eq!(
        reach(&node(), hidden.id(), &all[0].at).await.unwrap(),
        via(&all[2])
    );
    let ignored = all[0].fleet.stats().ignored;
    assert_eq!((ignored.foreign, ignored.garbage), (3, 3));
    // A member's address is forged, and who is there is not the member.
    let member = all[2].id();
    store.put(&format!("m/{member}"), &about);
    eventually(|| all[1].fleet.stats().revision == store.kept().revision).await;
    let error = reach(&node(), hidden.id(), &all[1].at).await.unwrap_err();
    assert_eq!(refusal(&error).0, Status::Unreachable);
    assert!(all[1].node.session_with(member).is_none());
}

/// Who has moved leaves the circuits where they are: they are waited for.
#[tokio::test]
async fn a_relay_that_leaves_waits_for_its_circuits() {
    let store = Store::default();
    let all = fleet(1, &store).await;
    let hidden = hidden(&all[0]).await;
    let dialler = node();
    reach(&dialler, hidden.id(), &all[0].at).await.unwrap();
    let relay = all[0].node.relay.clone().unwrap();
    assert_eq!(relay.stats().circuits, 1);
    let mut waits = std::pin::pin!(relay.carried_out(Duration::from_secs(3600)));
    // It waits as long as there is one,
    assert!(futures::poll!(&mut waits).is_pending());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(futures::poll!(&mut waits).is_pending());
    relay.carried_out(Duration::from_millis(1)).await;
    assert_eq!(relay.stats().circuits, 1, "no longer than that");
    // and no longer.
    soon(dialler.shutdown(Duration::ZERO)).await;
    soon(waits).await;
    assert_eq!(relay.stats().circuits, 0);
}

/// The value of a member that is reached there.
fn about(at: &str) -> Vec<u8> {
    let length = u8::try_from(at.len()).unwrap();
    let mut value = vec![0xa7, 0, 1, 1, 0x81, 0x78, length];
    value.extend(at.bytes());
    value.extend([2, 0x60, 3, 0, 4, 10, 5, 0, 6, 10]);
    value
}

/// A circuit asked for as members do, and the status of the answer.
async fn ask_as_member(
    session: &cepa::session::Session,
    target: PeerId,
    from: PeerId,
) -> Result<u8, OpenError> {
    let asked = ask_as_member_on(session, target, from).await;
    asked.map(|(_, status)| status)
}

/// The same, with the substream.
async fn ask_as_member_on(
    session: &cepa::session::Session,
    target: PeerId,
    from: PeerId,
) -> Result<(impl Sized, u8), OpenError> {
    let mut stream = soon(session.open("cepa.relay.member")).await?;
    let mut message = vec![0, 73, 0xa3, 0, 1, 1, 0x58, 32];
    message.extend(target.as_bytes());
    message.extend([2, 0x58, 32]);
    message.extend(from.as_bytes());
    message[1] = u8::try_from(message.len() - 2).unwrap();
    stream.write_all(&message).await.unwrap();
    let mut answer = [0; 7];
    soon(stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer[3..6], [0, 1, 1]);
    Ok((stream, answer[6]))
}

#[tokio::test]
async fn what_a_member_asks_for_goes_no_further_and_strangers_ask_nothing() {
    let store = Store::default();
    // The third is in nobody's hands but the test's.
    let (configs, third) = ([(); 2].map(|()| config()), config());
    let ids: Vec<_> = (configs.iter().chain([&third]))
        .map(|it| it.stack.identity.peer_id())
        .collect();
    let mut all = Vec::new();
    let listed = node();
    for config in configs {
        let change = |_: &mut RelayConfig, fleet: &mut FleetConfig| {
            fleet.callers = Access::peers([listed.id()]);
        };
        all.push(Member::new(config, &ids, &store, change).await);
    }
    others_know(
        &all.iter().map(|it| it.fleet.clone()).collect::<Vec<_>>(),
        &store,
    )
    .await;
    let (here, there) = (hidden(&all[0]).await, hidden(&all[1]).await);
    eventually(|| all[0].fleet.stats().elsewhere == 1).await;
    let third = MeshNode::new(third);
    let session = soon(third.session(&all[0].at)).await.unwrap();
    let (listed, other) = (listed.id(), node().id());
    let ask = |target, from| ask_as_member(&session, target, from);
    assert_eq!(ask(here.id(), listed).await.unwrap(), 0);
    // One hop more and no more.
    assert_eq!(ask(there.id(), listed).await.unwrap(), 5);
    assert_eq!(all[1].fleet.stats().inbound, 0);
    // A caller whom this relay does not serve, and ways that lead back.
    assert_eq!(ask(here.id(), other).await.unwrap(), 2);
    assert_eq!(ask(listed, listed).await.unwrap(), 8);
    assert_eq!(ask(all[0].id(), listed).await.unwrap(), 8);
    // Who is no member asks for nothing in anybody's name, as the table has it.
    let table = include_str!("../../src/node/access_table.txt");
    assert!(table.contains("\ncepa.relay.member    whom the relay's fleet has\n"));
    let (session, _) = by_hand(&all[0].at).await;
    let refused = ask_as_member(&session, here.id(), listed).await;
    assert!(
        matches!(refused, Err(OpenError::Refused { .. })),
        "{refused:?}"
    );
}

/// A member that has turned bad names a new peer each time.
#[tokio::test]
async fn one_member_does_not_take_all_circuits_whatever_peers_it_names() {
    let store = Store::default();
    let (bad, own) = (config(), config());
    let ids = [&bad, &own].map(|it| it.stack.identity.peer_id());
    let member = Member::new(own, &ids, &store, |relay, _| relay.circuits = 8).await;
    let hidden = hidden(&member).await;
    let bad = MeshNode::new(bad);
    let session = soon(bad.session(&member.at)).await.unwrap();
    let mut streams = Vec::new();
    let mut got = 0;
    for n in 0..20 {
        let name = PeerId::from_bytes([n; 32]);
        let (stream, status) = ask_as_member_on(&session, hidden.id(), name).await.unwrap();
        streams.push(stream);
        got += usize::from(status == 0);
    }
    assert_eq!(got, 6);
    // They are its own again when they have ended.
    drop(streams);
    eventually(|| member.node.relay_stats().unwrap().circuits == 0).await;
    let name = PeerId::from_bytes([99; 32]);
    assert_eq!(ask_as_member(&session, hidden.id(), name).await.unwrap(), 0);
}

/// What the ends of a circuit are told is the same through two relays as through one.
#[tokio::test]
async fn two_relays_pass_on_what_one_does() {
    let store = Store::default();
    let all = fleet(2, &store).await;
    let circuit = || async {
        let known = all_know(&all, &store);
        circuit_when(&all[1].at, &all[0].at, known).await
    };
    // More than there is room for anywhere on the way.
    let mut there = circuit().await;
    let sent = vec![7; 3 << 20];
    let mut back = Vec::new();
    let send = async {
        there.near.write_all(&sent).await.unwrap();
        there.near.shutdown().await.unwrap();
    };
    let ((), read) = soon(async { tokio::join!(send, there.far.read_to_end(&mut back)) }).await;
    read.unwrap();
    assert!(back == sent);
    there.far.write_all(b"and the answer").await.unwrap();
    there.far.shutdown().await.unwrap();
    back.clear();
    soon(there.near.read_to_end(&mut back)).await.unwrap();
    assert_eq!(back, b"and the answer");
    drop(there);
    let mut there = circuit().await;
    there.near.wire_mut().reset(4711);
    assert_eq!(code(&mut there.far).await, 4711);
    let mut there = circuit().await;
    there.far.wire_mut().reset(815);
    assert_eq!(code(&mut there.near).await, 815);
    // The farther end's session with its relay, and the two relays' with each other.
    let mut there = circuit().await;
    there.registered.close().await;
    assert_eq!(code(&mut there.near).await, 7);
    let mut there = circuit().await;
    all[1].power.cancel();
    assert_eq!(code(&mut there.near).await, 7);
    eventually(|| {
        all.iter()
            .all(|it| it.node.relay_stats().unwrap().circuits == 0)
    })
    .await;
}

/// A node with a session that outlives its connections.
fn lasting() -> MeshNode {
    let mut config = config();
    config.stack = config
        .stack
        .with_resume(Some(cepa::resume::Config::default()));
    MeshNode::new(config)
}

/// What is under way when a relay dies goes on through another one, and nothing of it is lost.
#[tokio::test]
async fn a_durable_session_goes_on_through_another_member() {
    let store = Store::default();
    let all = fleet(3, &store).await;
    let (hidden, client) = (lasting(), lasting());
    offer_echo(&hidden);
    soon(hidden.register(&all[0].at)).await.unwrap();
    all_know(&all, &store).await;
    let to = through(hidden.id(), &all[0].at, "echo");
    let stream = soon(client.open(&to)).await.unwrap();
    let (mut from, mut into) = tokio::io::split(stream);
    let mut line = [0; 1];
    while line != *b"\n" {
        soon(from.read_exact(&mut line)).await.unwrap();
    }
    for round in 0..3_u8 {
        let sent = vec![round; 100_000];
        let mut back = vec![0xff; sent.len()];
        let both = async { tokio::join!(into.write_all(&sent), from.read_exact(&mut back)) };
        let (written, read) = soon(both).await;
        written.unwrap();
        read.unwrap();
        assert_eq!(back, sent);
        if round == 0 {
            all[0].kill(&store);
        }
    }
    assert_ne!(hidden.relays.registered(), [all[0].id()]);
}

/// Registered twice, and one relay dies: it is at two again.
#[tokio::test]
async fn who_asked_for_two_relays_has_two() {
    let store = Store::default();
    let all = fleet(3, &store).await;
    let hidden = hidden(&all[0]).await;
    soon(hidden.register(&all[1].at)).await.unwrap();
    all_know(&all, &store).await;
    assert_eq!(hidden.relays.registered().len(), 2);
    all[0].kill(&store);
    let mut wanted = [all[1].id(), all[2].id()];
    wanted.sort_unstable();
    eventually(|| hidden.relays.registered() == wanted).await;
}

/// Also where both relays die at the same time, and each registration looks for another one.
#[tokio::test]
async fn two_registrations_that_move_at_once_go_to_two_relays() {
    let store = Store::default();
    let all = fleet(4, &store).await;
    let mut nodes = Vec::new();
    for _ in 0..6 {
        let node = hidden(&all[0]).await;
        soon(node.register(&all[1].at)).await.unwrap();
        nodes.push(node);
    }
    all_know(&all, &store).await;
    for gone in &all[..2] {
        gone.kill(&store);
    }
    let mut left = [all[2].id(), all[3].id()];
    left.sort_unstable();
    for node in &nodes {
        eventually(|| node.relays.registered() == left).await;
    }
}

/// A registration that its own relay had no room for is at another one; who asks for that one as well has a third one for it.
#[tokio::test]
async fn who_asks_for_the_relay_that_its_other_registration_has_gone_to_is_at_two() {
    let store = Store::default();
    let all = fleet_with(3, &store, |at, relay, _| {
        relay.registrations = if at == 0 { 1 } else { 100 };
    })
    .await;
    let _occupant = hidden(&all[0]).await;
    let node = node();
    soon(node.register(&all[0].at)).await.unwrap_err();
    let there = moved(&node, &all, all[0].id()).await;
    soon(node.register(&there.at)).await.unwrap();
    let mut wanted = [all[1].id(), all[2].id()];
    wanted.sort_unstable();
    eventually(|| node.relays.registered() == wanted).await;
}

/// With one relay left it is there once, and what waits for a second one is told so.
#[tokio::test]
async fn two_registrations_are_no_two_at_one_relay() {
    let store = Store::default();
    let all = fleet(2, &store).await;
    let node = hidden(&all[0]).await;
    all_know(&all, &store).await;
    all[0].kill(&store);
    let there = moved(&node, &all, all[0].id()).await;
    soon(node.register(&there.at)).await.unwrap();
    let stats = || there.node.relay_stats().unwrap();
    assert_eq!(stats().registrations, 1);
    assert_eq!(node.relays.registered(), [there.id()]);
    // The one that waits is there as soon as the other one is taken back.
    assert!(node.relays.unregister(all[0].id()));
    eventually(|| stats().registrations == 0 || stats().registrations == 1).await;
    eventually(|| node.relays.registered() == [there.id()]).await;
    assert_eq!(stats().registrations, 1);
}

/// Whom the farther relay does not serve does not get there through the nearer one.
#[tokio::test]
async fn the_farther_relay_decides_whom_it_serves() {
    let store = Store::default();
    let (friend, other) = (node(), node());
    let all = fleet_with(2, &store, |at, _, fleet| {
        if at == 1 {
            fleet.callers = Access::peers([friend.id()]);
        }
    })
    .await;
    let hidden = hidden(&all[1]).await;
    all_know(&all, &store).await;
    assert_eq!(
        reach(&friend, hidden.id(), &all[0].at).await.unwrap(),
        via(&all[1])
    );
    let error = reach(&other, hidden.id(), &all[0].at).await.unwrap_err();
    let (status, reason) = refusal(&error);
    assert_eq!(status, Status::NotAllowed);
    let short = all[1].id().short();
    assert_eq!(reason, format!("the peer's relay {short}… does not"));
}

#[tokio::test]
async fn who_asks_for_many_that_are_not_there_has_to_wait() {
    let store = Store::default();
    let all = fleet(2, &store).await;
    let hidden = hidden(&all[1]).await;
    all_know(&all, &store).await;
    let client = node();
    let session = soon(client.session(&all[0].at)).await.unwrap();
    let mut last = None;
    for n in 0..200 {
        let nobody = PeerId::from_bytes([n; 32]);
        let dialled = soon(cepa::protocols::relay::dial(&session, nobody)).await;
        let Err(RelayError::Refused { status, .. }) = dialled else {
            panic!("{dialled:?}");
        };
        last = Some(status);
        if status == Status::Quota {
            break;
        }
        assert_eq!(status, Status::NotRegistered);
    }
    assert_eq!(last, Some(Status::Quota));
    let stats = all[0].fleet.stats();
    assert!(stats.missed >= 60 && stats.limited >= 1, "{stats:?}");
    // Who has a peer here is served as ever; and so is everybody at another relay.
    let dialled = soon(cepa::protocols::relay::dial(&session, hidden.id())).await;
    assert!(dialled.is_err());
    let session = soon(client.session(&all[1].at)).await.unwrap();
    soon(cepa::protocols::relay::dial(&session, hidden.id()))
        .await
        .unwrap();
}
