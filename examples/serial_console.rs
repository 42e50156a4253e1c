//! A console server: the serial console of a board, offered as a service to peers that are far from the cable.
//!
//! ```text
//! cargo run --example serial_console
//! ```
//!
//! A pty stands in for the line, with a board at its other end that asks who logs in. The line itself is plain, as a board's console is;
//! what is on the network has the session around it. One has the line at a time: the second is told so. The command for the same is
//! `cepa serve tcp:0.0.0.0:7000 --service console=serial:/dev/ttyUSB0,baud=115200 --allow …`.

use std::sync::Arc;

use cepa::identity::{Identity, KeyKind, Pinned};
use cepa::node::{Access, Call, Node, NodeConfig, PeerAddr};
use cepa::session::ServiceStream;
use cepa::transports::{Endpoint, Listener, dial, listen};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy, split};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("ttyUSB0");
    let path = path.to_str().ok_or("the temporary folder is not Unicode")?;
    let board = tokio::spawn(board(listen(&format!("pty:{path}").parse()?).await?));
    let line: Endpoint = format!("serial:{path},baud=115200").parse()?;

    let ours = Identity::generate(KeyKind::Ed25519)?;
    let theirs = Identity::generate(KeyKind::Ed25519)?;
    let trust = |who: &Identity| Arc::new(Pinned::one(who.peer_id()));
    let server = Node::new(NodeConfig::new(theirs.clone(), trust(&ours)));
    server.serve("console", Access::Anyone, move |call| {
        offer(call, line.clone())
    })?;
    let at = server.listen(&"tcp:127.0.0.1:0".parse()?).await?;
    let at: PeerAddr = format!("cepa://{}@{at}/console", theirs.peer_id()).parse()?;
    let client = Node::new(NodeConfig::new(ours, trust(&theirs)));

    let mut console = client.open(&at).await?;
    until(&mut console, "login: ").await?;
    if let Err(error) = client.open(&at).await {
        println!("a second one: {error}");
    }
    console.write_all(b"ann\r").await?;
    until(&mut console, "# ").await?;
    console.shutdown().await?;
    console.read_to_end(&mut Vec::new()).await?;
    board.await?
}

/// The line is opened for the call, and nobody else can open it until the call is over.
async fn offer(call: Call, line: Endpoint) -> Outcome<()> {
    let line = match dial(&line).await {
        Ok(line) => line,
        Err(error) => return Ok(call.refuse(&error.to_string()).await?),
    };
    let (mut caller, mut to_caller) = split(call.accept().await?);
    let (mut from_line, mut to_line) = split(line);
    // A line has no end: the call is over when the caller is done.
    tokio::select! {
        typed = copy(&mut caller, &mut to_line) => typed?,
        said = copy(&mut from_line, &mut to_caller) => said?,
    };
    Ok(to_caller.shutdown().await?)
}

/// Shows what the console says, up to and with this.
async fn until(console: &mut ServiceStream, what: &str) -> Outcome<()> {
    let mut said = Vec::new();
    while !said.ends_with(what.as_bytes()) {
        said.push(console.read_u8().await?);
    }
    for line in String::from_utf8(said)?.lines() {
        println!("console: {line}");
    }
    Ok(())
}

/// A board, which knows nothing of all this.
async fn board(mut listener: Listener) -> Outcome<()> {
    let line = listener.accept().await?.ok_or("nobody opened the line")?;
    let mut line = BufReader::new(line);
    line.write_all(b"onion 1.0 ttyS0\r\nlogin: ").await?;
    line.flush().await?;
    let mut name = Vec::new();
    line.read_until(b'\r', &mut name).await?;
    let name = String::from_utf8(name)?;
    let welcome = format!("{}\r\nwelcome\r\n# ", name.trim_end());
    line.write_all(welcome.as_bytes()).await?;
    line.flush().await?;
    let rest = line.read_to_end(&mut Vec::new()).await?;
    println!("board: {rest} bytes more, and nobody has the line");
    Ok(())
}
