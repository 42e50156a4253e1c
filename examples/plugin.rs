//! A program and its plugin, which speak JSON lines over the plugin's standard input and output.
//!
//! ```text
//! cargo run --example plugin
//! ```
//!
//! The plugin is this program once more; `exec:ssh host plugin` or `exec:docker exec -i box plugin` would do as well. Calls
//! go to the plugin on one substream, and are answered as they are done, not in their order; what the plugin has to
//! report comes on another one, which it opens itself.

use std::sync::Arc;
use std::time::Duration;

use cepa::Side;
use cepa::identity::{Identity, KeyKind, PeerId, Pinned};
use cepa::session::{ServiceStream, Session};
use cepa::stack::StackConfig;
use cepa::transports::{Endpoint, Target, dial};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    match std::env::args().nth(1) {
        None => host().await,
        Some(id) => plugin(id.parse()?).await,
    }
}

async fn host() -> Outcome<()> {
    let us = Identity::generate(KeyKind::Ed25519)?;
    let program = std::env::current_exe()?.to_string_lossy().into_owned();
    let argv = vec![program, us.peer_id().to_string()];
    let (dir, pty) = (None, false);
    let at = Endpoint::new(&[], Target::Exec { argv, dir, pty })?;
    let mut stream = dial(&at).await?;
    let mut child = stream.take_child().ok_or("no child")?;
    let them = child.stderr().next_line().await.ok_or("it is silent")?;
    let config = StackConfig::new(us, Arc::new(Pinned::one(them.parse()?)));
    let session = Session::handshake(stream, at.layers(), Side::Client, &config).await?;

    let mut reports = session.accept().await?.accept().await?;
    let (from, mut to) = tokio::io::split(session.open("calls").await?);
    for (id, text, wait) in [(1, "slow", 300), (2, "quick", 0)] {
        let call = json!({ "id": id, "upper": text, "wait": wait });
        to.write_all(format!("{call}\n").as_bytes()).await?;
    }
    to.shutdown().await?;
    let mut answers = BufReader::new(from).lines();
    while let Some(line) = answers.next_line().await? {
        let answer: Value = serde_json::from_str(&line)?;
        println!("host: call {} gives {}", answer["id"], answer["result"]);
    }
    // To its end: whoever closes before that takes the session from a plugin that still ends its stream.
    let mut report = String::new();
    reports.read_to_string(&mut report).await?;
    let report: Value = serde_json::from_str(&report)?;
    println!("host: the plugin has had {} calls", report["calls"]);
    session.close().await;
    println!("host: the plugin ended with {}", child.wait().await?);
    Ok(())
}

/// Standard output belongs to the session: what is printed goes to standard error, the id first.
async fn plugin(host: PeerId) -> Outcome<()> {
    let us = Identity::generate(KeyKind::Ed25519)?;
    eprintln!("{}", us.peer_id());
    let config = StackConfig::new(us, Arc::new(Pinned::one(host)));
    let stdio = "stdio:".parse()?;
    let session = Session::accept_on(dial(&stdio).await?, &stdio, &config).await?;
    let mut reports = session.open("reports").await?;
    let calls = answer(session.accept().await?.accept().await?).await?;
    let report = json!({ "calls": calls });
    reports.write_all(format!("{report}\n").as_bytes()).await?;
    reports.shutdown().await?;
    session.closed().await;
    Ok(())
}

/// Answers every call, each in a task of its own, and counts them.
async fn answer(stream: ServiceStream) -> Outcome<u32> {
    let (from, mut to) = tokio::io::split(stream);
    let mut lines = BufReader::new(from).lines();
    let (mut calls, mut tasks) = (0, tokio::task::JoinSet::new());
    while let Some(line) = lines.next_line().await? {
        let call: Value = serde_json::from_str(&line)?;
        calls += 1;
        tasks.spawn(async move {
            tokio::time::sleep(Duration::from_millis(call["wait"].as_u64().unwrap_or(0))).await;
            json!({ "id": call["id"], "result": call["upper"].as_str().map(str::to_uppercase) })
        });
    }
    while let Some(done) = tasks.join_next().await {
        to.write_all(format!("{}\n", done?).as_bytes()).await?;
    }
    to.shutdown().await?;
    Ok(calls)
}
