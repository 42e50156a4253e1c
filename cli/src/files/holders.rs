//! Who writes which part, in this process: an upload whose client is gone gives its part up to the same peer.
//!
//! A server keeps the session of a client that was killed, for it might come back, and with it the upload and the lock on its part. The same
//! command again comes in another session, and is to go on there. So who finds the lock taken asks here: if it is an
//! upload of the same peer, and its session has no connection, or nothing has come of it for [`SILENCE`], that upload ends: a connection
//! may be gone long before that is noticed. Nobody else's upload is ever ended, and none that gets bytes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use cepa::identity::PeerId;
use cepa::session::Session;
use tokio::sync::Notify;

/// An upload that gets nothing for so long is over, if its peer sends the same file again.
const SILENCE: Duration = Duration::from_secs(5);

/// What had arrived at this machine before its client was gone, or its way, may be read for so long; it says nothing of them.
const DRAINING: Duration = Duration::from_secs(2);

/// How long its end may take then.
const ENDED: Duration = Duration::from_secs(5);

const LOOK: Duration = Duration::from_millis(20);

/// An upload.
#[derive(Debug)]
pub(crate) struct Upload {
    peer: PeerId,
    session: Session,
    over: Notify,
    /// Pieces of files that have come.
    pieces: AtomicU64,
    /// Its substream is gone.
    closed: AtomicBool,
}

/// The files that are written, by device and number.
type Holders = BTreeMap<(u64, u64), Arc<Upload>>;

static HOLDERS: Mutex<Holders> = Mutex::new(BTreeMap::new());

fn holders() -> MutexGuard<'static, Holders> {
    // Each change is whole after the one statement that makes it.
    HOLDERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An entry, for as long as its file is written.
#[derive(Debug)]
pub(crate) struct Holding {
    file: (u64, u64),
    upload: Arc<Upload>,
}

impl Drop for Holding {
    fn drop(&mut self) {
        let mut holders = holders();
        if holders
            .get(&self.file)
            .is_some_and(|other| Arc::ptr_eq(other, &self.upload))
        {
            holders.remove(&self.file);
        }
    }
}

impl Upload {
    pub(crate) fn of(session: &Session) -> Arc<Self> {
        Arc::new(Self {
            peer: session.peer().id(),
            session: session.clone(),
            over: Notify::new(),
            pieces: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        })
    }

    /// Its substream is gone: nobody waits for what its thread does.
    pub(crate) fn close(&self) {
        self.closed.store(true, Relaxed);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    /// Returns when the same peer goes on elsewhere.
    pub(crate) async fn given_up(&self) {
        self.over.notified().await;
    }

    /// Bytes of a file have come.
    pub(crate) fn got(&self) {
        self.pieces.fetch_add(1, Relaxed);
    }

    /// Says that this upload writes a file, whose lock it has.
    pub(crate) fn holds(self: &Arc<Self>, file: (u64, u64)) -> Holding {
        let upload = Arc::clone(self);
        holders().insert(file, Arc::clone(&upload));
        Holding { file, upload }
    }

    /// Somebody else has the lock on a file: whether it may be free now.
    pub(crate) fn takes_over(&self, file: (u64, u64)) -> bool {
        let Some(other) = holders().get(&file).cloned() else {
            return false;
        };
        if other.peer != self.peer {
            return false;
        }
        let (begun, mut last) = (Instant::now(), other.pieces.load(Relaxed));
        let mut silent = begun;
        while other.session.path().is_some() && silent.elapsed() < SILENCE {
            let now = other.pieces.load(Relaxed);
            if now != last {
                if begun.elapsed() > DRAINING {
                    return false;
                }
                (last, silent) = (now, Instant::now());
            }
            thread::sleep(LOOK);
        }
        other.over.notify_one();
        let begun = Instant::now();
        while holders()
            .get(&file)
            .is_some_and(|holder| Arc::ptr_eq(holder, &other))
        {
            if begun.elapsed() > ENDED {
                return false;
            }
            thread::sleep(LOOK);
        }
        true
    }
}
