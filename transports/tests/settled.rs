//! A program that ends, and what it has written over QUIC. In a process of its own, all of whose streams it settles.
#![cfg(feature = "quic")]
use std::io::{self, ErrorKind};
use std::time::Duration;

use cepa_transports::{Endpoint, Stream, dial, listen, settled};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// A guard against hanging.
const LONG: Duration = Duration::from_secs(60);

async fn rest(stream: &mut Stream) -> (usize, io::Result<()>) {
    let (mut buf, mut all) = (vec![0; 40_000], 0);
    loop {
        match stream.read(&mut buf).await {
            Ok(0) => return (all, Ok(())),
            Ok(n) => all += n,
            Err(error) => return (all, Err(error)),
        }
    }
}

/// A program that ends lets what it has written be sent; and cuts what it has not ended, instead of falling silent.
#[test]
fn what_was_written_is_sent_before_a_program_ends() {
    let other = tokio::runtime::Runtime::new().unwrap();
    let mut listener = other
        .block_on(listen(&"quic:127.0.0.1:0".parse().unwrap()))
        .unwrap();
    let at: Endpoint = listener.endpoint().clone();
    let (sent, got) = std::sync::mpsc::channel();
    other.spawn(async move {
        for _ in 0..2 {
            let mut stream = listener.accept().await.unwrap().unwrap();
            let sent = sent.clone();
            tokio::spawn(async move { sent.send(rest(&mut stream).await).unwrap() });
        }
    });
    let program = tokio::runtime::Runtime::new().unwrap();
    program.block_on(async {
        let mut dropped = dial(&at).await.unwrap();
        dropped.write_all(&[7; 40_000]).await.unwrap();
        drop(dropped);
        let mut kept = dial(&at).await.unwrap();
        kept.write_all(b"x").await.unwrap();
        tokio::spawn(async move {
            std::future::pending::<()>().await;
            drop(kept);
        });
        settled(LONG).await;
    });
    program.shutdown_background();
    let mut all = [
        got.recv_timeout(LONG).unwrap(),
        got.recv_timeout(LONG).unwrap(),
    ];
    all.sort_by_key(|(n, _)| *n);
    let [(less, one), (more, other_end)] = all;
    assert!(less <= 1 && more == 40_000, "{less} {more}");
    for end in [one, other_end] {
        assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}
