//! Sealed messages: `cepa send`, and what a service makes of a request.
//!
//! A request is the input of a service, opened anew for it, and the answer is its output up to the end. Both
//! are whole before anything is sent on, so a command that fails has no answer.

use std::future::pending;
use std::time::Duration;

use cepa::identity::Identity;
use cepa::node::{Access, Node, PeerAddr};
use cepa::protocols::relay::Status;
use cepa::protocols::sealed::{MAX_BODY, SealedCall, SealedError};
use cepa::transports::{self, Endpoint, Terminal};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use crate::accept::cost;
use crate::args::{self, Service, Target};
use crate::child::Watched;
use crate::exit::{Code, Failure, say};
use crate::limits::{DRAIN, HELD};
use crate::log::say_of;
use crate::mesh_node::Mesh;
use crate::{id, reach};

/// Time for a service to answer: what a carrier waits for.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn run(args: args::Send) -> Result<(), Failure> {
    let to = &args.address;
    if to.service().is_empty() {
        let why = "the address names no service; give cepa://PEERID/SERVICE";
        return Err(Failure::new(Code::Usage, why));
    }
    // Without a carrier the recipient is asked itself.
    let by = args.by.as_ref().unwrap_or(to);
    let identity = id::load(&args.identity)?;
    let mut body = Vec::new();
    tokio::io::stdin()
        .take(MAX_BODY as u64 + 1)
        .read_to_end(&mut body)
        .await
        .map_err(|e| Failure::new(Code::Other, format!("cannot read standard input: {e}")))?;
    if body.len() > MAX_BODY {
        let why =
            format!("a request may have at most {MAX_BODY} bytes; for more, use `cepa connect`");
        return Err(Failure::new(Code::Usage, why));
    }
    let mesh = Mesh::new(reach::dialling(&identity, args.local_hints.allowed))?;
    let answer = ask(&mesh, by, to, &body).await;
    mesh.node.shutdown(Duration::ZERO).await;
    let answer = answer.map_err(|e| failure(&e, &identity))?;
    let mut out = tokio::io::stdout();
    let written = async {
        out.write_all(&answer).await?;
        out.flush().await
    };
    match written.await {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            let why = format!("cannot write to standard output: {e}");
            Err(Failure::new(Code::Other, why))
        }
        _ => Ok(()),
    }
}

async fn ask(
    mesh: &Mesh,
    by: &PeerAddr,
    to: &PeerAddr,
    body: &[u8],
) -> Result<Vec<u8>, SealedError> {
    let key = mesh.sealed.key(by, to.peer()).await?;
    if key.owner() != to.peer() {
        let (old, new) = (to.peer(), key.owner());
        say(format_args!("{old} has a new key; its new id is {new}"));
    }
    mesh.sealed.ask(by, &key, to.service(), body).await
}

fn failure(error: &SealedError, identity: &Identity) -> Failure {
    let code = match error {
        SealedError::Flaw(_) => Code::Usage,
        SealedError::Dial(error) => {
            let failure = reach::dial_failure(error);
            return if reach::refused_for_our_id(error) {
                failure.asking_to_allow(identity.peer_id())
            } else {
                failure
            };
        }
        SealedError::Refused { .. }
        | SealedError::NotBrought {
            status: Status::Refused | Status::NotAllowed,
            ..
        } => Code::Refused,
        SealedError::NoCarrier { error, .. } => Failure::from(error.clone()).code,
        SealedError::TimedOut { .. } => Code::Lost,
        SealedError::NotBrought {
            status: Status::NotRegistered | Status::Unreachable,
            ..
        } => Code::Connect,
        SealedError::Altered { .. } => Code::Identity,
        _ => Code::Other,
    };
    let failure = Failure::of(code, error);
    match error {
        SealedError::NotBrought {
            status: Status::Refused,
            ..
        } => failure.asking_to_take_sealed(identity.peer_id()),
        SealedError::NoCarrier { .. } if code == Code::Refused => {
            failure.asking_to_take_sealed(identity.peer_id())
        }
        SealedError::NotBrought {
            status: Status::NotAllowed,
            ..
        } => failure.asking_to_allow(identity.peer_id()),
        _ => failure,
    }
}

/// Offers a service to sealed requests.
pub(crate) fn serve(mesh: &Mesh, service: &Service, access: Access) {
    let target = service.target.clone();
    let from = mesh.node.handle();
    let name = service.name.clone();
    mesh.sealed
        .serve(&service.name, access, move |call: SealedCall| {
            let (target, name, from) = (target.clone(), name.clone(), from.clone());
            async move {
                let sender = call.sender();
                let done = answer(&from, &target, &name, &call);
                let done = tokio::time::timeout(PATIENCE, done).await;
                let done = done.unwrap_or_else(|_| Err("it took longer than a minute".into()));
                done.map_err(|why| {
                    say_of(sender, format_args!("service {name}: {why}"));
                    // What exactly is wrong here is for the operator, not for the peer.
                    "the service failed".to_owned()
                })
            }
        });
}

async fn answer(
    node: &Node,
    target: &Target,
    name: &str,
    call: &SealedCall,
) -> Result<Vec<u8>, String> {
    match target {
        Target::Echo => Ok(call.body().to_vec()),
        Target::Demo => Err("the demo cannot answer a request".into()),
        Target::Socks(_) => Err("a SOCKS service cannot answer a request".into()),
        Target::Command(_) => Err("a service of programs cannot answer a request".into()),
        Target::Files(_) => Err("a service of files cannot answer a request".into()),
        Target::Forward(to) => {
            let stream = node.open(to).await.map_err(|e| e.to_string())?;
            let done = exchange(stream, call.body(), pending()).await;
            done.map_err(|why| format!("{to}: {why}"))
        }
        Target::Dial(to) => through(node, to, name, call).await,
    }
}

/// Gives the request to what an address leads to, and takes what comes back.
async fn through(
    node: &Node,
    to: &Endpoint,
    name: &str,
    call: &SealedCall,
) -> Result<Vec<u8>, String> {
    let held = node.hold(call.allowed_as(), cost(to));
    let _share = held.map_err(|e| e.to_string())?;
    let stream = transports::dial_for_peer(to, &Terminal::default()).await;
    let mut stream = stream.map_err(|e| e.to_string())?;
    // Dropped before the stream: it is killed before its pipes close.
    let child = stream.take_child();
    let child = child
        .map(|child| Watched::serving(child, name.to_owned(), call.sender(), Box::new(|_| None)));
    let exited = async {
        match &child {
            Some(child) => drop(child.ended().await),
            None => pending().await,
        }
    };
    let answer = exchange(&mut stream, call.body(), exited).await;
    let answer = answer.map_err(|why| format!("{to}: {why}"))?;
    if let Some(child) = child {
        // One that has closed its output and goes on has answered, and is killed.
        match timeout(HELD, child.ended()).await {
            Ok(end) if end.failed => return Err(end.to_string()),
            _ => {}
        }
    }
    Ok(answer)
}

/// Gives all of the request, and takes all of the answer: up to its end, or to what has come a moment after the command of the
/// service has `exited`, whose output may be held open by what it left behind.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite,
    request: &[u8],
    exited: impl Future<Output = ()>,
) -> Result<Vec<u8>, String> {
    let (from, mut into) = tokio::io::split(stream);
    let give = async {
        // A command may answer without having read all.
        let _ = into.write_all(request).await;
        let _ = into.shutdown().await;
    };
    let drained = async {
        exited.await;
        sleep(DRAIN).await;
    };
    tokio::pin!(give, drained);
    let (mut answer, mut given) = (Vec::new(), false);
    let mut from = from.take(MAX_BODY as u64 + 1);
    loop {
        tokio::select! {
            biased;
            read = from.read_buf(&mut answer) => if read.map_err(|e| e.to_string())? == 0 {
                break;
            },
            () = &mut give, if !given => given = true,
            () = &mut drained => break,
        }
    }
    if answer.len() > MAX_BODY {
        return Err(format!("an answer of more than {MAX_BODY} bytes"));
    }
    Ok(answer)
}
