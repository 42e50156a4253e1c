//! HTTP between two peers, each request on a substream of its own.
//!
//! ```text
//! cargo run --example http_over_substream
//! ```
//!
//! A substream is a byte stream, so anything that speaks over one speaks over a session: here
//! hyper, unchanged, as server and as client. Five requests run at once over one session, and the
//! server answers by the peer's key, not by a password: it knows who asks before the first header.

use std::convert::Infallible;
use std::sync::Arc;

use cepa::identity::{Identity, KeyKind, PeerId, Pinned};
use cepa::session::{ServiceStream, Session};
use cepa::stack::StackConfig;
use cepa::transports::{Endpoint, Listener, listen};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let server_identity = Identity::generate(KeyKind::Ed25519)?;
    let client_identity = Identity::generate(KeyKind::Ed25519)?;
    let server_config = StackConfig::new(
        server_identity.clone(),
        Arc::new(Pinned::one(client_identity.peer_id())),
    );
    let client_config = StackConfig::new(
        client_identity,
        Arc::new(Pinned::one(server_identity.peer_id())),
    );
    let listener = listen(&"tcp:127.0.0.1:0".parse()?).await?;
    let address = listener.endpoint().clone();
    let serving = tokio::spawn(server(listener, server_config));
    client(&address, &client_config).await?;
    serving.await?
}

// ---- server ------------------------------------------------------------------------------------

async fn server(mut listener: Listener, config: StackConfig) -> Outcome<()> {
    let stream = listener.accept().await?.ok_or("nobody came")?;
    let session = Session::accept_on(stream, listener.endpoint(), &config).await?;
    let end = loop {
        let incoming = match session.accept().await {
            Ok(incoming) => incoming,
            Err(end) => break end,
        };
        if incoming.service() != "http" {
            incoming.refuse("only http here").await?;
            continue;
        }
        let peer = incoming.peer().id();
        tokio::spawn(async move { connection(incoming.accept().await?, peer).await });
    };
    println!("server: {end}");
    if end.is_clean() {
        Ok(())
    } else {
        Err(end.into())
    }
}

/// One HTTP connection is one substream.
async fn connection(stream: ServiceStream, peer: PeerId) -> Outcome<()> {
    let answering = service_fn(move |request| respond(request, peer));
    hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), answering)
        .await?;
    Ok(())
}

async fn respond(
    request: Request<Incoming>,
    peer: PeerId,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/") => (StatusCode::OK, format!("hello, {}", peer.short())),
        (&Method::POST, "/length") => match request.into_body().collect().await {
            Ok(body) => (StatusCode::OK, format!("{} bytes", body.to_bytes().len())),
            Err(error) => (StatusCode::BAD_REQUEST, error.to_string()),
        },
        (_, path) => (StatusCode::NOT_FOUND, format!("no {path} here")),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    Ok(response)
}

// ---- client ------------------------------------------------------------------------------------

async fn client(address: &Endpoint, config: &StackConfig) -> Outcome<()> {
    let session = Session::dial(address, config).await?;
    println!("client: {} answers", session.peer().id().short());
    let get = |path| request(&session, Method::GET, path, Vec::new());
    let post = |bytes| request(&session, Method::POST, "/length", vec![0; bytes]);
    let answers = tokio::try_join!(get("/"), get("/nothing"), post(10), post(1 << 20), get("/"))?;
    let (first, second, third, fourth, fifth) = answers;
    for answer in [first, second, third, fourth, fifth] {
        println!("client: {answer}");
    }
    session.close().await;
    Ok(())
}

/// One request and its answer, on a fresh substream.
async fn request(session: &Session, method: Method, path: &str, body: Vec<u8>) -> Outcome<String> {
    let stream = session.open("http").await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driving = tokio::spawn(connection);
    let asked = format!("{method} {path}");
    let request = Request::builder()
        .method(method)
        .uri(path)
        // The peer is known by its key; a name is only there because HTTP wants one.
        .header(hyper::header::HOST, session.peer().id().to_string())
        .body(Full::<Bytes>::from(body))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    // Without a sender the connection ends, and with it the substream.
    drop(sender);
    driving.await??;
    Ok(format!(
        "{asked}: {status}: {}",
        String::from_utf8_lossy(&body)
    ))
}
