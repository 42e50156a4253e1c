//! `memory:`: listeners inside this process, found by name.
//!
//! The registry is process-wide, as ports are machine-wide: a library and the program around it can
//! meet at a name without sharing an object. Each connection is a pair of bounded pipes.
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::duplex;
use tokio::sync::mpsc;

use crate::endpoint::Endpoint;
use crate::error::{Action, TransportError, TransportErrorKind as Kind};
use crate::remote::Remote;
use crate::stream::Stream;

/// Bytes that each direction holds before the writer waits: what a Linux pipe holds.
const PIPE: usize = 64 * 1024;
/// Connections that wait to be accepted; a dialler waits when they are as many (a socket's backlog).
const BACKLOG: usize = 128;
/// How long a dialler waits for room in the backlog.
const PATIENCE: Duration = Duration::from_secs(10);

static LISTENERS: LazyLock<Mutex<HashMap<String, mpsc::Sender<Stream>>>> =
    LazyLock::new(Mutex::default);

fn listeners() -> MutexGuard<'static, HashMap<String, mpsc::Sender<Stream>>> {
    LISTENERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Two connected streams in memory, each direction holding 64 KiB before its writer waits.
pub fn pair() -> (Stream, Stream) {
    labelled("memory")
}

fn labelled(label: &str) -> (Stream, Stream) {
    let (a, b) = duplex(PIPE);
    let end = |io| Stream::from_io(io, label).with_remote(Remote::Memory);
    (end(a), end(b))
}

pub(crate) async fn dial(endpoint: &Endpoint, name: &str) -> Result<Stream, TransportError> {
    let fail = |kind, reason: &str, advice: &str| {
        TransportError::new(Action::Dial, endpoint, kind, reason, advice)
    };
    let sender = listeners().get(name).cloned();
    let nobody = "nothing in this process listens there";
    let Some(sender) = sender else {
        return Err(fail(
            Kind::Refused,
            nobody,
            "listen before dialling, with the same name",
        ));
    };
    let (near, far) = labelled(&format!("memory {name}"));
    match tokio::time::timeout(PATIENCE, sender.send(far)).await {
        Ok(Ok(())) => Ok(near),
        Ok(Err(_)) => Err(fail(Kind::Refused, nobody, "the listener was just dropped")),
        Err(_) => Err(fail(
            Kind::TimedOut,
            "its queue of connections stayed full for 10 s",
            "the listener has to accept",
        )),
    }
}

/// The listening end; the name is free again when it is dropped.
#[derive(Debug)]
pub(crate) struct MemoryListener {
    name: String,
    queue: mpsc::Receiver<Stream>,
}

impl MemoryListener {
    pub(crate) fn bind(endpoint: &Endpoint, name: &str) -> Result<Self, TransportError> {
        let (sender, queue) = mpsc::channel(BACKLOG);
        let mut listeners = listeners();
        if listeners.contains_key(name) {
            return Err(TransportError::new(
                Action::Listen,
                endpoint,
                Kind::AddressInUse,
                "something in this process already listens there",
                "choose another name",
            ));
        }
        listeners.insert(name.to_owned(), sender);
        Ok(Self {
            name: name.to_owned(),
            queue,
        })
    }

    /// The next connection. Never ends: the registry holds a sender as long as the listener lives.
    pub(crate) async fn accept(&mut self) -> Option<Stream> {
        self.queue.recv().await
    }
}

impl Drop for MemoryListener {
    fn drop(&mut self) {
        listeners().remove(&self.name);
    }
}
