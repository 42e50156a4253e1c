//! A program that ends, and what it has written over QUIC. In a process of its own, all of whose streams it settles.
#![cfg(feature = "quic")]
use std::io::{self, ErrorKind};
use std::time::Duration;

use cepa_transports::{Endpoint, Stream, dial, listen, settled};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

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

/// Where the other end is, for the program.
const AT: &str = "CEPA_TEST_SETTLED_AT";

/// The program; by itself nothing.
#[tokio::test]
async fn program() {
    let Ok(at) = std::env::var(AT) else {
        return;
    };
    let at: Endpoint = at.parse().unwrap();
    let mut dropped = dial(&at).await.unwrap();
    dropped.write_all(&vec![7; 40_000]).await.unwrap();
    drop(dropped);
    let mut kept = dial(&at).await.unwrap();
    kept.write_all(b"x").await.unwrap();
    settled(LONG).await;
    // Nothing is dropped, nothing runs any more.
    std::process::exit(0);
}

/// It lets what it has written be sent; and cuts what it has not ended, instead of falling silent.
#[tokio::test]
async fn what_was_written_is_sent_before_a_program_ends() {
    let mut listener = listen(&"quic:127.0.0.1:0".parse().unwrap()).await.unwrap();
    let mut program = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "program"])
        .env(AT, listener.endpoint().to_string())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut all = Vec::new();
    for _ in 0..2 {
        let accepted = timeout(LONG, listener.accept()).await.unwrap();
        let mut stream = accepted.unwrap().unwrap();
        all.push(tokio::spawn(async move {
            timeout(LONG, rest(&mut stream)).await.unwrap()
        }));
    }
    assert!(
        timeout(LONG, program.wait())
            .await
            .unwrap()
            .unwrap()
            .success()
    );
    let mut lengths = Vec::new();
    for one in all {
        let (n, end) = one.await.unwrap();
        let error = end.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
        lengths.push(n);
    }
    lengths.sort_unstable();
    assert!(lengths[0] <= 1 && lengths[1] == 40_000, "{lengths:?}");
}
