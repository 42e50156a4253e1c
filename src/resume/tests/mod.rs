//! Two durable streams on paths inside the process, which are cut.

mod beliefs;
mod cuts;
mod faulty;
mod hellos;
mod life;
mod reads;
mod scripts;
mod table;

use std::time::Duration;

use cepa_transports::Side;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;

/// Puts two streams on a new path, with the client's dialling.
async fn meet(client: &Handle<DuplexStream>, server: &Handle<DuplexStream>) {
    let (near, far) = duplex(1 << 16);
    let proposal = client.propose().await.unwrap();
    let claim = server.claim(proposal.at()).await.unwrap();
    let answer = claim.at();
    claim.attach(far, None).await.unwrap();
    proposal.attach(near, answer, None).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stream_outlives_its_path() {
    let (near, far) = duplex(1 << 16);
    let config = Config::default();
    let (client, at_client) = durable(near, Side::Client, &config);
    let (server, at_server) = durable(far, Side::Server, &config);
    at_client.endure();
    at_server.endure();
    let data: Vec<u8> = (0..=250).cycle().take(3 << 20).collect();
    let (want, sent) = (data.clone(), data.clone());
    let client = tokio::spawn(async move {
        let (mut from, mut to) = tokio::io::split(client);
        let write = async {
            to.write_all(&sent).await.unwrap();
            to.shutdown().await.unwrap();
        };
        let mut got = Vec::new();
        let (read, ()) = tokio::join!(from.read_to_end(&mut got), write);
        read.unwrap();
        got
    });
    let server = tokio::spawn(async move {
        let (mut from, mut to) = tokio::io::split(server);
        let write = async {
            to.write_all(&data).await.unwrap();
            to.shutdown().await.unwrap();
        };
        let mut got = Vec::new();
        let (read, ()) = tokio::join!(from.read_to_end(&mut got), write);
        read.unwrap();
        got
    });
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        if at_client.is_over() {
            break;
        }
        meet(&at_client, &at_server).await;
    }
    let (at_end, at_other) = (client.await.unwrap(), server.await.unwrap());
    assert!(at_end == want && at_other == want);
    assert!(at_client.over().await.is_ok() && at_server.over().await.is_ok());
    assert!(at_client.stats().paths >= 1);
}
