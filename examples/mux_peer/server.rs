//! The server: does with each stream what its first line says.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use cepa::Side;
use cepa::mux::{self, GoAwayCode, Mux, Substream};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::time::sleep;

use crate::{Failure, Options, hex, tail, wrap};

pub(crate) async fn run(options: &Options) -> Result<String, Failure> {
    let port = u16::try_from(options.number("port", 0))?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let port = listener.local_addr()?.port();
    println!("LISTENING {port}");
    if let Some(file) = options.text("portfile") {
        let part = format!("{file}.part");
        std::fs::write(&part, port.to_string())?;
        std::fs::rename(&part, file)?;
    }
    let (tcp, _) = listener.accept().await?;
    drop(listener);
    let io = wrap(tcp, Side::Server, options).await?;
    let (session, driver) = mux::mux(io, Side::Server, options.config());
    let driver = tokio::spawn(driver);
    let mut streams = 0;
    let end = loop {
        match session.accept().await {
            Ok(stream) => {
                streams += 1;
                let session = session.clone();
                tokio::spawn(async move {
                    if let Err(error) = serve(&session, stream).await {
                        println!("stream: {error}");
                    }
                });
            }
            Err(end) => break end,
        }
    };
    let _ = driver.await;
    Ok(format!("streams={streams} end={:?}", end.to_string()))
}

async fn serve(session: &Mux, stream: Substream) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["ECHO"] => {
            let early = Bytes::copy_from_slice(stream.buffer());
            let mut stream = stream.into_inner();
            stream.write_chunk(early).await?;
            while let Some(chunk) = stream.read_chunk().await? {
                stream.write_chunk(chunk).await?;
            }
            stream.shutdown().await
        }
        ["HASH"] => hash(stream).await,
        ["SLOW", millis] => {
            sleep(Duration::from_millis(millis.parse().unwrap_or(0))).await;
            hash(stream).await
        }
        ["RESET"] => {
            stream.get_mut().reset(0);
            Ok(())
        }
        ["PING"] => {
            let answer = match session.ping().await {
                Ok(round_trip) => format!("PONG {}\n", round_trip.as_micros()),
                Err(error) => format!("ERR {error}\n"),
            };
            stream.write_all(answer.as_bytes()).await?;
            stream.shutdown().await
        }
        ["GOAWAY"] => {
            stream.write_all(b"OK\n").await?;
            stream.shutdown().await?;
            // A go-away overtakes data, and some peers end the session when they read it.
            sleep(Duration::from_millis(100)).await;
            session.go_away(GoAwayCode::Normal).await;
            Ok(())
        }
        _ => stream.shutdown().await,
    }
}

async fn hash(stream: BufReader<Substream>) -> io::Result<()> {
    let mut hash = Sha256::new();
    hash.update(stream.buffer());
    let mut count = stream.buffer().len();
    let mut stream = stream.into_inner();
    while let Some(chunk) = stream.read_chunk().await? {
        count += chunk.len();
        hash.update(&chunk);
    }
    stream
        .write_all(format!("{} {count}\n", hex(&hash.finalize())).as_bytes())
        .await?;
    stream.write_chunk(tail()).await?;
    stream.shutdown().await
}
