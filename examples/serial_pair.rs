//! A session over a serial line, without hardware: a pty stands in for the cable.
//!
//! ```text
//! cargo run --example serial_pair
//! ```
//!
//! Needs the feature `serial`, which is on by default; without it cargo says so. One end listens on
//! `pty:`, which makes a pseudo terminal and links its other end at a path; the other end opens that
//! path as `serial:`, exactly as it would open /dev/ttyUSB0. Between two real ports both ends say
//! `serial:`. Over the line run TLS, the mux, and two substreams at once: a sensor that reports line
//! by line, and a bulk transfer beside it.

use std::path::Path;
use std::sync::Arc;

use cepa::identity::{Identity, KeyKind, Pinned};
use cepa::session::{Incoming, Session};
use cepa::stack::StackConfig;
use cepa::transports::{Endpoint, listen};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Bytes of the bulk transfer.
const BULK: usize = 256 * 1024;

#[tokio::main]
async fn main() -> Outcome<()> {
    let board = Identity::generate(KeyKind::Ed25519)?;
    let host = Identity::generate(KeyKind::Ed25519)?;
    let board_config = StackConfig::new(board.clone(), Arc::new(Pinned::one(host.peer_id())));
    let host_config = StackConfig::new(host, Arc::new(Pinned::one(board.peer_id())));

    let folder = tempfile::tempdir()?;
    let (pty, serial) = line_in(folder.path())?;
    // The link must be there before somebody opens it.
    let mut listener = listen(&pty).await?;

    // On a line nobody dials: who is the client is agreed upon. Here the host is.
    let connected = tokio::try_join!(
        async {
            let stream = listener.accept().await?.ok_or("nobody opened the line")?;
            // A line's speed decides how long a handshake may take, and which key exchange it gets.
            Outcome::Ok(Session::accept_on(stream, &serial, &board_config).await?)
        },
        async { Outcome::Ok(Session::dial(&serial, &host_config).await?) },
    );
    let (board, host) = connected?;
    println!("host: {} is at the other end", host.peer().id().short());

    let serving = tokio::spawn(serve(board));
    let (readings, bulk) = tokio::try_join!(sensor(&host), bulk(&host))?;
    println!("host: {readings} readings while {bulk} bytes came back");
    let line = host.meter();
    println!(
        "host: {} bytes in and {} bytes out on the line",
        line.bytes_in(),
        line.bytes_out()
    );
    host.close().await;
    serving.await?
}

/// The two addresses of one line: what makes it, and what opens it.
fn line_in(folder: &Path) -> Outcome<(Endpoint, Endpoint)> {
    let path = folder.join("line");
    let path = path.to_str().ok_or("the temporary folder is not Unicode")?;
    let pty: Endpoint = format!("pty:{path}").parse()?;
    let serial: Endpoint = format!("serial:{path},baud=921600").parse()?;
    println!("line: {serial}");
    Ok((pty, serial))
}

/// Reads three lines that the board sends by itself.
async fn sensor(host: &Session) -> Outcome<usize> {
    let mut lines = host.open("sensor").await?.lines();
    let mut readings = 0;
    while let Some(line) = lines.next_line().await? {
        println!("host: sensor says {line}");
        readings += 1;
    }
    Ok(readings)
}

/// Sends bytes there and back.
async fn bulk(host: &Session) -> Outcome<usize> {
    let sent: Vec<u8> = (0..=255).cycle().take(BULK).collect();
    let (mut from, mut to) = tokio::io::split(host.open("bulk").await?);
    let mut back = Vec::new();
    tokio::try_join!(
        async {
            to.write_all(&sent).await?;
            to.shutdown().await
        },
        from.read_to_end(&mut back),
    )?;
    if back != sent {
        return Err("the bulk transfer came back changed".into());
    }
    Ok(back.len())
}

/// The board: serves until the host closes the session.
async fn serve(board: Session) -> Outcome<()> {
    let end = loop {
        match board.accept().await {
            Ok(incoming) => tokio::spawn(answer(incoming)),
            Err(end) => break end,
        };
    };
    println!("board: {end}");
    if end.is_clean() {
        Ok(())
    } else {
        Err(end.into())
    }
}

async fn answer(incoming: Incoming) -> Outcome<()> {
    match incoming.service() {
        "sensor" => {
            let mut to = incoming.accept().await?;
            for celsius in ["20.5", "20.7", "20.6"] {
                to.write_all(format!("{celsius} °C\n").as_bytes()).await?;
                to.flush().await?;
            }
            Ok(to.shutdown().await?)
        }
        "bulk" => {
            let (mut from, mut to) = tokio::io::split(incoming.accept().await?);
            tokio::io::copy(&mut from, &mut to).await?;
            Ok(to.shutdown().await?)
        }
        _ => Ok(incoming.refuse("the board has a sensor and bulk").await?),
    }
}
