//! What one stranger makes a relay hold that has its default limits.

use std::time::Duration;

use cepa::session::Session;
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;

use super::crowd::{Crowd, LEAVE, Node, STUFF, circuit, identity};
use super::options::Options;
use super::relay::Running;
use crate::Outcome;
use crate::figure::MESH;
use crate::measure::number;

/// More than it gets of anything.
const TRIES: usize = 40;

/// Requests that it tries to begin in each session.
const REQUESTS: usize = 300;

/// For how long requests are begun: less than a relay waits for the rest of one.
const AT_MOST: Duration = Duration::from_secs(4);

/// Circuits that it tries to begin and end, one after the other.
const ENDED: usize = 200;

/// More than the window, so that the rest stays where it is; and no more than a relay takes on.
const LEFT: usize = (256 << 10) + 100_000;

pub(super) async fn run(options: &Options) -> Outcome<()> {
    requests(options).await?;
    full(options).await?;
    ended(options).await
}

/// As many sessions as it gets, and in each as many requests without their message as it gets.
async fn requests(options: &Options) -> Outcome<()> {
    let relay = Running::default_one(options.unpaced)?;
    let (config, at) = identity(&relay)?;
    // What the first one costs alone is in none.
    let mut sessions = vec![Session::dial(&at, &config).await?];
    let before = relay.memory().await?;
    for _ in 0..TRIES {
        sessions.extend(Session::dial(&at, &config).await.ok());
    }
    MESH.figure("one-peer-sessions", number(sessions.len()), "sessions")?;
    let mut opening = JoinSet::new();
    for session in &sessions {
        for _ in 0..REQUESTS {
            let session = session.clone();
            opening.spawn(async move { session.open("cepa.relay.dial").await });
        }
    }
    let mut held = Vec::new();
    let _ = tokio::time::timeout(AT_MOST, async {
        while let Some(opened) = opening.join_next().await {
            held.extend(opened.into_iter().flatten());
        }
    })
    .await;
    let after = relay.memory().await?;
    MESH.figure("one-peer-requests", number(held.len()), "requests")?;
    MESH.at_most("one-peer-requests-memory", mib(before, after), "MiB", 64.0)
}

/// As many circuits as it gets, with both ends full.
async fn full(options: &Options) -> Outcome<()> {
    let relay = Running::default_one(options.unpaced)?;
    let (node, _) = Node::come(&relay, &Crowd::new()).await?;
    let (config, at) = identity(&relay)?;
    let session = Session::dial(&at, &config).await?;
    let before = relay.memory().await?;
    let mut stuffing = JoinSet::new();
    for _ in 0..TRIES {
        if let Ok(mut stream) = circuit(&session, node.id, STUFF).await {
            stuffing.spawn(async move {
                let chunk = vec![1; 16 << 10];
                while stream.write_all(&chunk).await.is_ok() {}
            });
        }
    }
    MESH.figure("one-peer-circuits", number(stuffing.len()), "circuits")?;
    tokio::time::sleep(AT_MOST).await;
    let after = relay.memory().await?;
    MESH.at_most("one-peer-circuits-memory", mib(before, after), "MiB", 8.0)
}

/// Circuits that both ends have ended, and whose rest nobody takes.
async fn ended(options: &Options) -> Outcome<()> {
    let relay = Running::default_one(options.unpaced)?;
    let (node, _) = Node::come(&relay, &Crowd::new()).await?;
    let (config, at) = identity(&relay)?;
    let session = Session::dial(&at, &config).await?;
    let before = relay.memory().await?;
    let mut held = Vec::new();
    for _ in 0..ENDED {
        let Ok(mut stream) = circuit(&session, node.id, LEAVE).await else {
            continue;
        };
        stream.write_all(&vec![3; LEFT]).await?;
        stream.shutdown().await?;
        held.push(stream);
    }
    MESH.figure("one-peer-ended-circuits", number(held.len()), "circuits")?;
    let after = relay.memory().await?;
    MESH.at_most("one-peer-ended-memory", mib(before, after), "MiB", 8.0)
}

fn mib(before: f64, after: f64) -> f64 {
    (after - before) / f64::from(1 << 20)
}
