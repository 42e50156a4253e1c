//! Real cuts over loopback TCP, through a proxy that harms what it carries.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cepa::session::{Session, SessionEnd};
use cepa::transports::Endpoint;
use cepa::transports::testkit::{CuttingProxy, Harm, RandomHarm};

use crate::crowd::{Peers, compare, crowd, impatient, quick, scaled, serve, serve_crowd};

const STREAMS: usize = 64;

/// A test that hangs says so; the full run takes minutes.
const LONGEST: Duration = Duration::from_secs(1500);

fn through(proxy: &CuttingProxy) -> Endpoint {
    format!("tcp:{}", proxy.at()).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_however_connections_are_cut() {
    let cuts = scaled("CEPA_CUTS", 60);
    let total = scaled("CEPA_CUT_MIB", 48) << 20;
    let seed = scaled("CEPA_CUT_SEED", 1);
    let kept = quick();
    let peers = Peers::new(&kept);
    let mut server = serve("tcp:127.0.0.1:0", &peers.server).await;
    let proxy = Arc::new(CuttingProxy::start(server.address()).await.unwrap());
    let begun = Instant::now();
    let client = Session::dial(&through(&proxy), &peers.client)
        .await
        .unwrap();
    let far = server.sessions.recv().await.unwrap();
    proxy.harm_at_random(RandomHarm {
        seed,
        times: cuts,
        within: (2 * total / cuts).clamp(1 << 16, 8 << 20),
        early: 6 << 10,
        silent: 6,
    });
    // The first connection was let through before that.
    proxy.harm(Harm::Reset);
    let impatient = impatient(&client);

    let least = total / (2 * STREAMS as u64);
    let go_on = {
        let proxy = Arc::clone(&proxy);
        move || proxy.harmed().all() < cuts
    };
    let most_held = Arc::new(AtomicU64::new(0));
    let watching = tokio::spawn({
        let (ends, most) = ([client.clone(), far.clone()], Arc::clone(&most_held));
        let proxy = Arc::clone(&proxy);
        async move {
            for tick in 1_u64.. {
                for end in &ends {
                    let held = end.path_stats().unwrap().held;
                    most.fetch_max(held, Ordering::Relaxed);
                }
                if tick % 1000 == 0 {
                    eprintln!("{:?}", proxy.harmed());
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    });
    let both = async {
        tokio::join!(
            crowd(&client, STREAMS, least, go_on.clone()),
            serve_crowd(far.clone(), STREAMS, least, go_on.clone())
        )
    };
    let done = tokio::time::timeout(LONGEST, both).await;
    let (stats, far_stats) = (client.path_stats().unwrap(), far.path_stats().unwrap());
    let (near, at_far) = done.unwrap_or_else(|_| {
        panic!(
            "it hung: {:?} {stats:?} {far_stats:?} {:?}",
            proxy.harmed(),
            client.path()
        )
    });
    let bytes = compare(&near, &at_far);
    let harmed = proxy.harmed();
    eprintln!(
        "{} MiB in {:.1} s, {harmed:?}, {stats:?}, held {} KiB at most",
        bytes >> 20,
        begun.elapsed().as_secs_f64(),
        most_held.load(Ordering::Relaxed) >> 10
    );
    assert!(harmed.all() >= cuts, "{harmed:?}");
    assert!(bytes >= total);
    // One in four comes that early.
    assert!(
        cuts < 50 || harmed.connections > stats.paths,
        "no cut came within a handshake: {harmed:?} {stats:?}"
    );
    assert!(most_held.load(Ordering::Relaxed) <= kept.replay as u64);

    watching.abort();
    client.close().await;
    impatient.abort();
    let end = client.closed().await;
    assert!(matches!(end, SessionEnd::Closed), "{end}");
    let end = tokio::time::timeout(Duration::from_secs(60), far.closed()).await;
    assert!(end.as_ref().is_ok_and(SessionEnd::is_clean), "{end:?}");
}
