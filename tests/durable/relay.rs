//! A session through a relay that is killed and comes back, again and again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cepa::identity::AcceptAny;
use cepa::node::{Access, Call, Node, NodeConfig, PeerAddr};
use cepa::protocols::relay::{Relay, RelayConfig, Relays};
use cepa::session::Session;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use crate::crowd::{compare, exchange, quick, scaled};
use crate::support::{Random, identity};

const STREAMS: u64 = 64;

const LONGEST: Duration = Duration::from_secs(1500);

fn config(durable: bool) -> NodeConfig {
    let mut config = NodeConfig::new(identity(), Arc::new(AcceptAny));
    config.stack = config.stack.with_resume(durable.then(quick));
    config
}

/// A relay with a runtime of its own, which is dropped with all that it does.
struct Killable {
    runtime: Option<Runtime>,
    at: SocketAddr,
}

impl Killable {
    /// At a place where one was before, or anywhere.
    async fn start(config: NodeConfig, at: Option<SocketAddr>) -> Self {
        let started = tokio::task::spawn_blocking(move || {
            let runtime = Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap();
            let at = runtime.block_on(async {
                let node = Node::new(config);
                let mut relay = RelayConfig::new(Access::Anyone);
                // Both come from here, and what is tested is not how fast it is.
                relay.circuits_a_host = Some(1000);
                relay.registrations_a_host = Some(1000);
                relay.rate = 1 << 32;
                let relay = Relay::on(&node, relay).unwrap();
                let place = at.map_or("127.0.0.1:0".into(), |at| at.to_string());
                let endpoint = format!("tcp:{place}").parse().unwrap();
                let begun = Instant::now();
                let real = loop {
                    match node.listen(&endpoint).await {
                        Ok(real) => break real,
                        // The port is ours a moment later.
                        Err(error) if begun.elapsed() > Duration::from_secs(60) => {
                            panic!("{error}")
                        }
                        Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                    }
                };
                tokio::spawn(async move {
                    let _kept = (node, relay);
                    std::future::pending::<()>().await;
                });
                let (_, address) = real
                    .to_string()
                    .rsplit_once("tcp:")
                    .map(|(a, b)| (a.to_owned(), b.to_owned()))
                    .unwrap();
                address.parse().unwrap()
            });
            (runtime, at)
        });
        let (runtime, at) = started.await.unwrap();
        Self {
            runtime: Some(runtime),
            at,
        }
    }

    fn kill(mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Killable {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_through_a_relay_that_is_killed() {
    let kills = scaled("CEPA_RELAY_KILLS", 20);
    // A relay whose own sessions are durable forgets them when it is killed.
    let done = async {
        through(kills.div_ceil(2), false).await;
        through(kills / 2, true).await;
    };
    tokio::time::timeout(LONGEST, done).await.expect("it hung");
}

async fn through(kills: u64, relay_is_durable: bool) {
    let of_relay = config(relay_is_durable);
    let mut relay = Killable::start(of_relay.clone(), None).await;
    let at = relay.at;
    let relay_id = of_relay.stack.identity.peer_id();
    let way = format!("{relay_id}@tcp:{at}");

    let hidden = Node::new(config(true));
    let relays = Relays::on(&hidden).unwrap();
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let going_on = Arc::new(AtomicBool::new(true));
    let go_on = {
        let going_on = Arc::clone(&going_on);
        move || going_on.load(Ordering::Relaxed)
    };
    let handler = {
        let go_on = go_on.clone();
        move |call: Call| async move {
            let mut stream = call.accept().await.unwrap();
            let number = stream.read_u64().await.unwrap();
            let exchanged = exchange(stream, 2 * number + 1, 1 << 16, go_on).await;
            let _ = sender.send((number, exchanged));
        }
    };
    hidden.serve("both", Access::Anyone, handler).unwrap();
    let at_relay: PeerAddr = format!("cepa://{way}").parse().unwrap();
    relays.register(&at_relay).await.unwrap();

    let client = Node::new(config(true));
    let _relays = Relays::on(&client).unwrap();
    let address: PeerAddr = format!("cepa://{}@relay:{way}/both", hidden.id())
        .parse()
        .unwrap();
    let session = client.session(&address).await.unwrap();
    assert!(session.outlives_connections());
    let mut streams = JoinSet::new();
    for number in 0..STREAMS {
        let mut stream = session.open("both").await.unwrap();
        stream.write_u64(number).await.unwrap();
        let go_on = go_on.clone();
        streams.spawn(async move { (number, exchange(stream, 2 * number, 1 << 16, go_on).await) });
    }

    let mut random = Random::new(scaled("CEPA_CUT_SEED", 1));
    let begun = Instant::now();
    for kill in 0..kills {
        let pause = random.below(300) as u64;
        tokio::time::sleep(Duration::from_millis(pause)).await;
        relay.kill();
        // At times both ends have noticed before it is back.
        let pause = random.below(4) as u64 * 20;
        tokio::time::sleep(Duration::from_millis(pause)).await;
        relay = Killable::start(of_relay.clone(), Some(at)).await;
        // Now and then it is killed before anybody is back.
        if random.below(5) > 0 {
            come_back(&relays, &at_relay, &session, kill).await;
        }
    }
    come_back(&relays, &at_relay, &session, kills).await;
    going_on.store(false, Ordering::Relaxed);
    let mut near = streams.join_all().await;
    near.sort_by_key(|(number, _)| *number);
    let mut far = Vec::new();
    while far.len() < near.len() {
        far.push(receiver.recv().await.unwrap());
    }
    far.sort_by_key(|(number, _)| *number);
    let only = |all: Vec<(u64, _)>| all.into_iter().map(|(_, it)| it).collect::<Vec<_>>();
    let bytes = compare(&only(near), &only(far));
    let stats = session.path_stats().unwrap();
    eprintln!(
        "{kills} kills of a relay (durable itself: {relay_is_durable}) in {:.1} s, {} MiB, {stats:?}",
        begun.elapsed().as_secs_f64(),
        bytes >> 20
    );
    // Where it was killed before anybody was back, or before anybody had noticed, two kills cost one path.
    assert!(stats.paths > kills / 4, "{stats:?}");
    client.shutdown(Duration::from_secs(5)).await;
    hidden.shutdown(Duration::from_secs(5)).await;
}

/// Until the session has a path again, without the patience of a user: who loses the same relay again and again within seconds
/// waits longer and longer before it asks it again.
async fn come_back(relays: &Relays, at: &PeerAddr, session: &Session, kill: u64) {
    let begun = Instant::now();
    let mut since = None;
    let mut asked: Option<Instant> = None;
    loop {
        if session.path().is_some() {
            // It may not have noticed yet that the path is a dead one.
            let since: Instant = *since.get_or_insert_with(Instant::now);
            if since.elapsed() > Duration::from_millis(50) {
                return;
            }
        } else {
            since = None;
            if asked.is_none_or(|asked| asked.elapsed() > Duration::from_secs(2)) {
                relays.unregister(at.peer());
                let _ = relays.register(at).await;
                session.reconnect_now();
                asked = Some(Instant::now());
            }
        }
        assert!(
            begun.elapsed() < Duration::from_secs(120),
            "kill {kill}: no path comes: {:?}",
            session.path_stats()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What a relay carries takes leave before the session with the relay does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_shuts_down_behind_a_relay_tells_its_peers() {
    let done = async {
        for durable in [true, false] {
            let of_relay = config(false);
            let relay = Killable::start(of_relay.clone(), None).await;
            let way = format!("{}@tcp:{}", of_relay.stack.identity.peer_id(), relay.at);
            let hidden = Node::new(config(durable));
            let relays = Relays::on(&hidden).unwrap();
            let at_relay: PeerAddr = format!("cepa://{way}").parse().unwrap();
            relays.register(&at_relay).await.unwrap();
            let mut sessions = Vec::new();
            let mut clients = Vec::new();
            for _ in 0..4 {
                let client = Node::new(config(durable));
                let of_client = Relays::on(&client).unwrap();
                let address: PeerAddr = format!("cepa://{}@relay:{way}", hidden.id())
                    .parse()
                    .unwrap();
                sessions.push(client.session(&address).await.unwrap());
                clients.push((client, of_client));
            }
            hidden.shutdown(Duration::ZERO).await;
            for session in sessions {
                let end = session.closed().await;
                assert!(end.is_clean(), "durable {durable}: {end}");
            }
        }
    };
    tokio::time::timeout(LONGEST, done).await.expect("it hung");
}
