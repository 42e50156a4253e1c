//! The gate with a clock: waiting, being put out, and giving places back.

use std::net::IpAddr;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use super::*;

fn far(host: u8) -> Source {
    Source::from(IpAddr::from([192, 0, 2, host]))
}

fn gate(change: impl FnOnce(&mut Config)) -> Gate {
    let mut config = Config::default();
    change(&mut config);
    Gate::new(config)
}

#[tokio::test(start_paused = true)]
async fn a_pass_gives_its_place_back_however_it_ends() {
    let gate = gate(|config| {
        config.all = 1;
        config.waiting = 0;
    });
    let enter = || gate.enter(far(1));
    let first = enter().await.unwrap();
    assert_eq!(enter().await.unwrap_err(), Rejected::Full);
    drop(first);
    enter().await.unwrap().probe();
    for _ in 0..4 {
        enter().await.unwrap().failed(Failure::Refused);
    }
    let left = Duration::from_secs(5);
    assert_eq!(enter().await.unwrap_err(), Rejected::Penalty { left });
    // A source apart is none the worse.
    gate.enter(far(2)).await.unwrap().let_in();
    assert!(gate.shared().standing.is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_waiting_leaves_no_trace_and_no_place() {
    let gate = gate(|config| config.all = 1);
    let held = gate.enter(far(1)).await.unwrap();
    let second = Duration::from_secs(1);
    assert!(timeout(second, gate.enter(far(2))).await.is_err());
    assert_eq!(gate.shared().standing.len(), 1);
    drop(held);
    let again = gate.enter(far(3)).await.unwrap();
    // One that is admitted in the moment in which it is dropped.
    let mut waiting = Box::pin(gate.enter(far(4)));
    assert!(futures::poll!(&mut waiting).is_pending());
    drop(again);
    drop(waiting);
    drop(gate.enter(far(5)).await.unwrap());
    assert!(gate.shared().standing.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_slow_one_is_put_out_for_somebody_who_waits() {
    let gate = gate(|config| config.all = 1);
    let mut slow = gate.enter(far(1)).await.unwrap();
    let begun = Instant::now();
    let (turned, entered) = tokio::join!(slow.evicted(), gate.enter(far(2)));
    assert_eq!(turned, Rejected::Evicted);
    assert!(entered.is_ok());
    assert_eq!(begun.elapsed().as_secs(), 4);
    // It has no place to give back.
    let next = tokio::spawn({
        let gate = gate.clone();
        async move { gate.enter(far(3)).await.map(drop) }
    });
    drop(slow);
    sleep(Duration::from_millis(10)).await;
    assert!(!next.is_finished());
    drop(entered);
    assert_eq!(next.await.unwrap(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_in_time() {
    let gate = gate(|config| {
        config.all = 1;
        config.stale = Duration::from_secs(60);
    });
    let mut held = gate.enter(far(1)).await.unwrap();
    let waited = Duration::from_secs(6);
    let (one, two) = tokio::join!(gate.enter(far(2)), async {
        sleep(Duration::from_secs(1)).await;
        gate.enter(far(3)).await
    });
    assert_eq!(one.unwrap_err(), Rejected::Waited { waited });
    assert_eq!(two.unwrap_err(), Rejected::Waited { waited });
    assert!(timeout(waited, held.evicted()).await.is_err());
}

/// Places that were taken while the time was set for later are looked at in their time.
#[tokio::test(start_paused = true)]
async fn the_time_is_set_anew_when_places_change_hands() {
    let gate = gate(|config| config.all = 2);
    let old = [
        gate.enter(far(1)).await.unwrap(),
        gate.enter(far(1)).await.unwrap(),
    ];
    sleep(Duration::from_secs(3)).await;
    // Waits until it gets one in a second, or longer.
    let waits = tokio::spawn({
        let gate = gate.clone();
        async move { gate.enter(far(1)).await.map(drop) }
    });
    sleep(Duration::from_millis(1)).await;
    drop(old);
    let [one, two] = [
        gate.enter(far(2)).await.unwrap(),
        gate.enter(far(2)).await.unwrap(),
    ];
    assert_eq!(waits.await.unwrap(), Ok(()));
    let begun = Instant::now();
    drop(gate.enter(far(3)).await.unwrap());
    assert_eq!(begun.elapsed().as_millis(), 500);
    drop((one, two));
}

/// Each with a handshake of 100 ms.
#[tokio::test(start_paused = true)]
async fn a_burst_of_honest_clients_gets_in() {
    for (source, burst) in [
        (far(1), 10),
        (far(1), 30),
        (Source::HERE, 150),
        (Source::HERE, 250),
    ] {
        let gate = Gate::default();
        let all = (0..burst).map(|_| async {
            let mut pass = gate.enter(source).await?;
            tokio::select! {
                () = sleep(Duration::from_millis(100)) => pass.let_in(),
                turned = pass.evicted() => return Err(turned),
            }
            Ok(())
        });
        let all: Result<Vec<()>, Rejected> = join_all(all).await.into_iter().collect();
        assert!(all.is_ok(), "{burst} of {source}: {all:?}");
    }
}

/// Seventeen silent circuits a second of one relay, and somebody who dials directly.
#[tokio::test(start_paused = true)]
async fn a_relay_that_brings_strangers_keeps_nobody_else_out() {
    let gate = Gate::default();
    let relay = Source::from(&cepa_transports::Remote::Circuit {
        relay: [7; 32],
        says: [1; 32],
    });
    let flood = tokio::spawn({
        let gate = gate.clone();
        async move {
            loop {
                let gate = gate.clone();
                tokio::spawn(async move {
                    let Ok(mut pass) = gate.enter(relay).await else {
                        return;
                    };
                    tokio::select! {
                        () = sleep(Duration::from_secs(10)) => pass.failed(Failure::TimedOut),
                        _ = pass.evicted() => {}
                    }
                });
                sleep(Duration::from_millis(1000 / 17)).await;
            }
        }
    });
    for second in 0..60 {
        sleep(Duration::from_secs(1)).await;
        let begun = Instant::now();
        let pass = gate.enter(far(second)).await.unwrap();
        assert_eq!(begun.elapsed(), Duration::ZERO);
        sleep(Duration::from_millis(100)).await;
        pass.let_in();
    }
    flood.abort();
}
