//! A parent and its child, with a session over the child's standard input and output.
//!
//! ```text
//! cargo run --example subprocess
//! ```
//!
//! The example starts itself a second time, as the child. Where the child would be reached by
//! `ssh host …` instead, nothing else changes. The two get to know each other without a file: the
//! parent's peer id is an argument of the child, the child's is its first line on standard error.
//! Then three substreams are used at once, the child's words are shown, and its exit status.

use std::path::PathBuf;
use std::sync::Arc;

use cepa::Side;
use cepa::identity::{Identity, KeyKind, PeerId, Pinned};
use cepa::session::{Incoming, Session};
use cepa::stack::StackConfig;
use cepa::transports::text::clean;
use cepa::transports::{Endpoint, Target, dial};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.as_slice() {
        [] => parent().await,
        [word, id] if word == "child" => child(id.parse()?).await,
        _ => Err("usage: subprocess".into()),
    }
}

async fn parent() -> Outcome<()> {
    let identity = Identity::generate(KeyKind::Ed25519)?;
    let address = child_command(std::env::current_exe()?, identity.peer_id())?;
    println!("parent: starts its child ({} address)", address.scheme());
    let mut stream = dial(&address).await?;
    let mut child = stream.take_child().ok_or("no child")?;

    // What the child says on standard error comes apart from the stream.
    let stderr = child.stderr();
    let first = stderr.next_line().await.ok_or("the child said nothing")?;
    let expected: PeerId = first.parse()?;
    let showing = tokio::spawn(async move {
        while let Some(line) = stderr.next_line().await {
            println!("child's stderr: {}", clean(&line, 4096));
        }
    });

    let config = StackConfig::new(identity, Arc::new(Pinned::one(expected)));
    let session = Session::handshake(stream, address.layers(), Side::Client, &config).await?;
    println!("parent: has a session with {}", session.peer().id().short());

    let (upper, reversed, count) = tokio::try_join!(
        ask(&session, "upper", b"peel by peel".to_vec()),
        ask(&session, "reverse", b"noino".to_vec()),
        ask(&session, "count", vec![0; 1 << 20]),
    )?;
    println!("parent: upper: {upper}");
    println!("parent: reverse: {reversed}");
    println!("parent: count: {count}");

    session.close().await;
    let status = child.wait().await?;
    showing.await?;
    println!("parent: the child ended with {status}");
    if status.success() {
        Ok(())
    } else {
        Err("the child failed".into())
    }
}

/// This program once more. As text the address would be `exec:PATH child PEERID`.
fn child_command(program: PathBuf, parent: PeerId) -> Outcome<Endpoint> {
    let program = program.into_os_string().into_string();
    let program = program.map_err(|_| "the program's path is not Unicode")?;
    let argv = vec![program, "child".to_owned(), parent.to_string()];
    Ok(Endpoint::new(
        &[],
        Target::Exec {
            argv,
            dir: None,
            pty: false,
        },
    )?)
}

/// Sends a whole request, ends that direction, and reads the whole answer.
async fn ask(session: &Session, service: &str, request: Vec<u8>) -> Outcome<String> {
    let (mut from, mut to) = tokio::io::split(session.open(service).await?);
    let sending = async {
        to.write_all(&request).await?;
        to.shutdown().await
    };
    let mut answer = String::new();
    tokio::try_join!(sending, from.read_to_string(&mut answer))?;
    Ok(answer)
}

/// The child's life. Standard output belongs to the session, so its words go to standard error.
async fn child(parent: PeerId) -> Outcome<()> {
    let identity = Identity::generate(KeyKind::Ed25519)?;
    eprintln!("{}", identity.peer_id());
    let config = StackConfig::new(identity, Arc::new(Pinned::one(parent)));
    let stdio = "stdio:".parse()?;
    let session = Session::accept_on(dial(&stdio).await?, &stdio, &config).await?;
    let end = loop {
        match session.accept().await {
            Ok(incoming) => tokio::spawn(answer(incoming)),
            Err(end) => break end,
        };
    };
    eprintln!("{end}");
    if end.is_clean() {
        Ok(())
    } else {
        Err(end.into())
    }
}

async fn answer(incoming: Incoming) -> Outcome<()> {
    let service = incoming.service().to_owned();
    if !["upper", "reverse", "count"].contains(&service.as_str()) {
        return Ok(incoming.refuse("the child can't do that").await?);
    }
    let mut stream = incoming.accept().await?;
    let mut request = Vec::new();
    stream.read_to_end(&mut request).await?;
    eprintln!("{service} of {} bytes", request.len());
    let answer = match service.as_str() {
        "upper" => request.to_ascii_uppercase(),
        "reverse" => request.iter().rev().copied().collect(),
        _ => request.len().to_string().into_bytes(),
    };
    stream.write_all(&answer).await?;
    Ok(stream.shutdown().await?)
}
