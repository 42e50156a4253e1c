//! What one peer that wants ten times its quota leaves of the others' quotas.

use std::time::{Duration, Instant};

use cepa::identity::PeerId;
use cepa::session::Session;
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;

use super::crowd::{Crowd, SINK, circuit, diallers, nodes};
use super::options::Options;
use super::relay::Running;
use crate::Outcome;
use crate::figure::MESH;
use crate::measure::number;

/// Bytes a second that each peer gets.
const RATE: u32 = 4 << 20;

/// Circuits that each peer gets.
const CIRCUITS: usize = 4;

/// Peers that keep to what they get.
const OTHERS: usize = 8;

/// From the first byte to the measurement: windows and buckets are as they will be by then.
const WARM: Duration = Duration::from_secs(2);

pub(super) async fn run(options: &Options) -> Outcome<()> {
    let relay = Running::start(CIRCUITS, RATE.into(), options.unpaced)?;
    let crowd = Crowd::new();
    // The same few nodes for all, so that they share sessions on the far side too.
    let mut ids = Vec::new();
    let registered = nodes(&relay, &crowd, 2).await?;
    ids.extend(registered.iter().map(|(node, _)| node.id));
    let all = diallers(&relay, OTHERS + 1).await?;
    let (greedy, others) = all.split_first().ok_or("nobody dials")?;
    let mut sending = JoinSet::new();
    for (i, (_, session)) in others.iter().enumerate() {
        send(&mut sending, session, ids[i % ids.len()]).await?;
    }
    let watched = Duration::from_secs(options.seconds);
    let quota = f64::from(RATE);
    let mut shares = Vec::new();
    for with_greedy in [false, true] {
        if with_greedy {
            let mut refused = 0;
            for i in 0..10 * CIRCUITS {
                let opened = send(&mut sending, &greedy.1, ids[i % ids.len()]).await;
                refused += usize::from(opened.is_err());
            }
            MESH.figure("greedy-circuits-refused", number(refused), "circuits")?;
        }
        tokio::time::sleep(WARM).await;
        let rates = rates(&crowd, watched).await;
        let of = |peer: &PeerId| {
            let rate = rates.iter().find(|(known, _)| known == peer);
            rate.map_or(0.0, |(_, rate)| *rate / quota)
        };
        let least = others
            .iter()
            .map(|(peer, _)| of(peer))
            .fold(f64::MAX, f64::min);
        shares.push((least, of(&greedy.0)));
    }
    if let [(alone, _), (beside, greedy)] = shares[..] {
        MESH.figure("others-alone", alone, "of their quota")?;
        MESH.figure("greedy-gets", greedy, "of its quota")?;
        MESH.at_least("others-beside-greedy", beside, "of their quota", 0.95)?;
    }
    Ok(())
}

/// A circuit that always has more to send.
async fn send(
    sending: &mut JoinSet<std::io::Result<()>>,
    session: &Session,
    to: PeerId,
) -> Outcome<()> {
    let mut stream = circuit(session, to, SINK).await?;
    sending.spawn(async move {
        let chunk = vec![9; 16 << 10];
        loop {
            stream.write_all(&chunk).await?;
        }
    });
    Ok(())
}

/// Bytes a second of each peer, as they come out at the nodes.
async fn rates(crowd: &Crowd, watched: Duration) -> Vec<(PeerId, f64)> {
    let (begun, before) = (Instant::now(), crowd.counted());
    tokio::time::sleep(watched).await;
    let (seconds, after) = (begun.elapsed().as_secs_f64(), crowd.counted());
    let earlier = |peer| {
        before
            .iter()
            .find(|(known, _)| *known == peer)
            .map_or(0, |it| it.1)
    };
    after
        .into_iter()
        .map(|(peer, count)| {
            let moved = usize::try_from(count - earlier(peer)).unwrap_or(usize::MAX);
            (peer, number(moved) / seconds)
        })
        .collect()
}
