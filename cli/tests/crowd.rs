//! A crowd at the door of `cepa serve`: whoever finds no place there is told so, and nobody is cut without a word.

mod common;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::time::Duration;

use common::Place;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// A guard against hanging; the server's own limits are 10 s and less.
const LIMIT: Duration = Duration::from_secs(120);

/// What one reads that begins a handshake and does not go on: none of them is to get in.
async fn knocks(at: &str) -> String {
    let mut stream = match TcpStream::connect(at).await {
        Ok(stream) => stream,
        Err(error) => return format!("not connected: {error}"),
    };
    // The head of a record that would be longer, and stays unread where there is no place.
    let _ = stream.write_all(&[22, 3, 1, 1, 0, 1, 0]).await;
    let mut read = Vec::new();
    let end = match timeout(LIMIT, stream.read_to_end(&mut read)).await {
        Ok(Ok(_)) => "an end".to_owned(),
        // Behind all that it was to read.
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionReset => "a reset".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "nothing in time".to_owned(),
    };
    match read.as_slice() {
        [21, 3, 3, 0, 2, 2, 90] => "busy".to_owned(),
        [] => format!("{end}, without a word"),
        [21, ..] => "another alert".to_owned(),
        other => format!("{other:?}, then {end}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_who_come_at_once_all_read_why_they_are_not_let_in() {
    cepa::transports::raise_descriptor_limit();
    let place = Place::new();
    let server = place.serve(&[
        "tcp:127.0.0.1:0",
        "--allow",
        "any",
        "--service",
        "echo=echo:",
    ]);
    let address = server.address();
    let at = address.strip_prefix("tcp:").unwrap().to_owned();
    let mut crowd = JoinSet::new();
    for _ in 0..1000 {
        let at = at.clone();
        crowd.spawn(async move { knocks(&at).await });
    }
    let mut came = BTreeMap::<String, usize>::new();
    while let Some(read) = crowd.join_next().await {
        *came.entry(read.unwrap()).or_default() += 1;
    }
    println!("{came:?}");
    let silent = came
        .keys()
        .filter(|it| it.contains("word") || it.contains("not connected"));
    assert_eq!(silent.count(), 0, "{came:?}");
    assert!(came["busy"] >= 500, "{came:?}");
}
