//! An editor and its language server on another machine: JSON-RPC with `Content-Length` in front, as the Language Server Protocol has it.
//!
//! ```text
//! cargo run --example language_server
//! ```
//!
//! The server is this program once more, by `exec:`; `exec:ssh host language_server ID` would do as well, and needs no port there. A server
//! that is there already needs no program: `cepa connect 'exec:ssh host cepa serve stdio: --service lsp=exec:rust-analyzer --allow …' lsp`.

use std::sync::Arc;

use cepa::Side;
use cepa::identity::{Identity, KeyKind, PeerId, Pinned};
use cepa::session::{ServiceStream, Session};
use cepa::stack::StackConfig;
use cepa::transports::{Endpoint, Target, dial};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    match std::env::args().nth(1) {
        None => editor().await,
        Some(id) => server(id.parse()?).await,
    }
}

async fn editor() -> Outcome<()> {
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
    let mut lsp = BufStream::new(session.open("lsp").await?);
    let file = json!({ "textDocument": { "uri": "file:///a", "text": "let peel = TODO;" } });
    let methods = ["initialize", "textDocument/didOpen", "shutdown"];
    for (id, method) in methods.iter().enumerate() {
        let params = (id == 1).then_some(&file);
        let call = json!({ "id": id, "method": method, "params": params });
        send(&mut lsp, call).await?;
    }
    lsp.shutdown().await?;
    while let Some(message) = receive(&mut lsp).await? {
        println!("editor: {message}");
    }
    session.close().await;
    println!("editor: the server ended with {}", child.wait().await?);
    Ok(())
}

/// Standard output belongs to the session: the id goes to standard error.
async fn server(editor: PeerId) -> Outcome<()> {
    let us = Identity::generate(KeyKind::Ed25519)?;
    eprintln!("{}", us.peer_id());
    let config = StackConfig::new(us, Arc::new(Pinned::one(editor)));
    let stdio = "stdio:".parse()?;
    let session = Session::accept_on(dial(&stdio).await?, &stdio, &config).await?;
    let mut lsp = BufStream::new(session.accept().await?.accept().await?);
    while let Some(call) = receive(&mut lsp).await? {
        let text = call["params"]["textDocument"]["text"].as_str();
        let message = match text.and_then(|text| text.find("TODO")) {
            Some(at) => json!({ "method": "textDocument/publishDiagnostics", "params": at }),
            None => json!({ "id": call["id"], "result": call["method"] }),
        };
        send(&mut lsp, message).await?;
    }
    lsp.shutdown().await?;
    session.closed().await;
    Ok(())
}

async fn send(to: &mut BufStream<ServiceStream>, mut message: Value) -> Outcome<()> {
    message["jsonrpc"] = json!("2.0");
    let body = message.to_string();
    let framed = format!("Content-Length: {}\r\n\r\n{body}", body.len());
    to.write_all(framed.as_bytes()).await?;
    Ok(to.flush().await?)
}

/// The next message; none at the end. Memory follows what arrives, not what the header says.
async fn receive(from: &mut BufStream<ServiceStream>) -> Outcome<Option<Value>> {
    let (mut head, mut body) = (String::new(), Vec::new());
    let mut lines = (&mut *from).take(1024); // to the empty one, of two bytes
    while lines.read_line(&mut head).await? > 2 {}
    if head.is_empty() {
        return Ok(None);
    }
    let length = head.trim_end().strip_prefix("Content-Length: ");
    let length = length.ok_or("no length")?.parse()?;
    from.take(length).read_to_end(&mut body).await?;
    Ok(Some(serde_json::from_slice(&body)?))
}
