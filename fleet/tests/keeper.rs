//! What keeps a fleet's part in an etcd, with a real one: read, watched, lost, compacted, away.

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cepa::identity::PeerId;
use cepa::protocols::relay::fleet::{Fleet, FleetConfig};
use cepa_fleet::etcd::{Client, Options, Write};
use cepa_fleet::testkit::Etcd;
use cepa_fleet::{FleetAddress, Keeper, StoreEvent};
use common::etcd;

const RELAY: PeerId = PeerId::from_bytes([1; 32]);
const OTHER: PeerId = PeerId::from_bytes([2; 32]);

/// A registration at the other relay, that lasts.
fn registration(n: u32) -> Write {
    let mut id = [7; 32];
    id[..4].copy_from_slice(&n.to_be_bytes());
    let peer = PeerId::from_bytes(id);
    // {0: 1, 1: 2^40}
    let mut value = vec![0xa2, 0, 1, 1, 0x1b];
    value.extend((1u64 << 40).to_be_bytes());
    Write::Put {
        key: format!("cepa/r/{peer}/{OTHER}").into_bytes(),
        value,
    }
}

async fn enter(client: &Client, lease: i64, numbers: impl Iterator<Item = u32>) {
    let all: Vec<_> = numbers.map(registration).collect();
    for some in all.chunks(100) {
        client.write(lease, some.to_vec()).await.expect("written");
    }
}

async fn client(etcd: &Etcd, n: usize) -> Client {
    loop {
        match Client::connect(&etcd.endpoint(n), &Options::default()).await {
            Ok(client) => return client,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

fn fleet() -> Fleet {
    Fleet::new(RELAY, FleetConfig::new([RELAY, OTHER]))
}

fn start(fleet: &Fleet, hosts: &str) -> (Keeper, Arc<Mutex<Vec<StoreEvent>>>) {
    let address: FleetAddress = format!("etcd://{hosts}/cepa").parse().unwrap();
    let said = Arc::<Mutex<Vec<StoreEvent>>>::default();
    let log = Arc::clone(&said);
    let listener = Arc::new(move |event| log.lock().unwrap().push(event));
    (
        Keeper::start(fleet.clone(), &address, Options::default(), listener),
        said,
    )
}

async fn until(what: &str, is: impl Fn() -> bool) {
    let waiting = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), waiting).await;
    assert!(waited.is_ok(), "{what}");
}

#[tokio::test]
async fn what_others_have_entered_is_read_watched_and_read_again_after_a_compaction() {
    let Some(mut etcd) = etcd(1, "http", &[]) else {
        return;
    };
    let writer = client(&etcd, 0).await;
    let lease = writer.grant(Duration::from_secs(600)).await.unwrap();
    enter(&writer, lease, 0..1200).await;
    let fleet = fleet();
    let (keeper, said) = start(&fleet, &etcd.hosts());
    assert!(keeper.ready(Duration::from_secs(60)).await);
    assert_eq!(fleet.stats().elsewhere, 1200);
    assert!(fleet.stats().reachable);
    enter(&writer, lease, 1200..1300).await;
    until("watched", || fleet.stats().elsewhere == 1300).await;
    assert_eq!(keeper.health().syncs, 1);

    // Killed, it is away; back, the watch goes on where it was.
    etcd.kill(0).unwrap();
    until("away", || !fleet.stats().reachable).await;
    assert!(keeper.health().error.is_some());
    etcd.start_again(0).unwrap();
    let writer = client(&etcd, 0).await;
    enter(&writer, lease, 1300..1310).await;
    until("back", || fleet.stats().elsewhere == 1310).await;
    assert_eq!(
        keeper.health().syncs,
        1,
        "no change is lost, so nothing is read again"
    );

    let events = said.lock().unwrap().clone();
    let ready = events
        .iter()
        .filter(|it| matches!(it, StoreEvent::Ready { .. }))
        .count();
    assert_eq!(ready, 2, "{events:?}");
}

#[tokio::test]
async fn a_compaction_while_away_has_everything_read_again() {
    let Some(etcd) = etcd(1, "http", &[]) else {
        return;
    };
    let writer = client(&etcd, 0).await;
    let lease = writer.grant(Duration::from_secs(600)).await.unwrap();
    enter(&writer, lease, 0..10).await;
    // A way to the etcd that can be cut.
    let gate = common::Gate::start(etcd.endpoint(0)).await;
    let fleet = fleet();
    let (keeper, _) = start(&fleet, &gate.place());
    until("read", || fleet.stats().elsewhere == 10).await;
    gate.cut();
    until("away", || !fleet.stats().reachable).await;
    enter(&writer, lease, 10..20).await;
    let Write::Put { key, .. } = registration(3) else {
        panic!()
    };
    let last = writer
        .write(lease, vec![Write::Delete { key }])
        .await
        .unwrap();
    etcd.ctl(["compact", &last.to_string()]).unwrap();
    gate.open();
    until("read again", || fleet.stats().elsewhere == 19).await;
    assert_eq!(keeper.health().syncs, 2);
    keeper.leave().await;
}

#[tokio::test]
async fn a_store_that_has_lost_its_memory_is_read_anew() {
    read_anew_after(0).await;
}

/// It has more revisions than the one before when it is met: then only the lease is missing there.
#[tokio::test]
async fn a_store_that_has_lost_its_memory_and_has_much_again_is_read_anew() {
    read_anew_after(100).await;
}

async fn read_anew_after(revisions: usize) {
    let Some(first) = etcd(1, "http", &[]) else {
        return;
    };
    let Some(second) = etcd(1, "http", &[]) else {
        return;
    };
    let writer = client(&first, 0).await;
    let lease = writer.grant(Duration::from_secs(600)).await.unwrap();
    for n in 0..50 {
        enter(&writer, lease, n..=n).await;
    }
    let writer = client(&second, 0).await;
    let lease = writer.grant(Duration::from_secs(600)).await.unwrap();
    enter(&writer, lease, 100..103).await;
    for _ in 0..revisions {
        enter(&writer, lease, 100..101).await;
    }
    let gate = common::Gate::start(first.endpoint(0)).await;
    let fleet = fleet();
    let (keeper, _) = start(&fleet, &gate.place());
    until("read", || fleet.stats().elsewhere == 50).await;
    gate.cut();
    until("away", || !fleet.stats().reachable).await;
    gate.lead_to(second.endpoint(0));
    until("read anew", || fleet.stats().elsewhere == 3).await;
    enter(&writer, lease, 103..104).await;
    until("watched", || fleet.stats().elsewhere == 4).await;
    keeper.leave().await;
}

#[tokio::test]
async fn three_members_lose_their_leader_and_nothing_else() {
    let Some(mut etcd) = etcd(3, "http", &[]) else {
        return;
    };
    let writer = client(&etcd, 0).await;
    let lease = writer.grant(Duration::from_secs(600)).await.unwrap();
    enter(&writer, lease, 0..10).await;
    let fleet = fleet();
    let (keeper, _) = start(&fleet, &etcd.hosts());
    until("read", || fleet.stats().elsewhere == 10).await;
    let status = etcd
        .ctl(["endpoint", "status", "--cluster", "-w", "fields"])
        .unwrap();
    let leader = common::leader(&status, &etcd);
    etcd.kill(leader).unwrap();
    let writer = client(&etcd, (leader + 1) % 3).await;
    loop {
        let Write::Put { key, value } = registration(10) else {
            panic!()
        };
        if writer
            .write(lease, vec![Write::Put { key, value }])
            .await
            .is_ok()
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    until("watched on", || {
        fleet.stats().elsewhere == 11 && fleet.stats().reachable
    })
    .await;
    assert_eq!(fleet.stats().leases_lost, 0);
    keeper.leave().await;
}

/// Whoever can write the store can write more than an answer of it may be long.
#[tokio::test]
async fn a_value_that_is_too_long_stops_nothing_once_it_is_deleted() {
    let Some(etcd) = etcd(1, "http", &["--max-request-bytes", "16777216"]) else {
        return;
    };
    let writer = client(&etcd, 0).await;
    let lease = writer.grant(Duration::from_secs(600)).await.unwrap();
    let fleet = fleet();
    let (keeper, _) = start(&fleet, &etcd.hosts());
    assert!(keeper.ready(Duration::from_secs(60)).await);
    let long = Write::Put {
        key: b"cepa/long".to_vec(),
        value: vec![7; 5 << 20],
    };
    writer.write(lease, vec![long]).await.unwrap();
    let is_told = || {
        let error = keeper.health().error;
        error.is_some_and(|it| it.contains("is longer than"))
    };
    until("the answer is too long", is_told).await;
    let key = b"cepa/long".to_vec();
    writer
        .write(lease, vec![Write::Delete { key }])
        .await
        .unwrap();
    enter(&writer, lease, 0..3).await;
    until("all is read", || fleet.stats().elsewhere == 3).await;
    until("there again", || fleet.stats().reachable).await;
}
