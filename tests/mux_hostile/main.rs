//! Our mux against a peer that means harm: raw yamux frames on one side, a whole session with its
//! driver on the other, and what the session holds, says and does about it.
//!
//! The bounds are asserted as they are promised, on what the process has allocated at its peak
//! ([`memory`]), the attacker included. So nothing else may run meanwhile: the tests of this program
//! take turns ([`alone`]). Time is tokio's paused clock wherever time matters; a second of it passes
//! only when nobody has anything to do, so "within 10 s" does not depend on the machine.
//!
//! - `attacker`: the frames, written by hand, so that the tests do not trust the code they test
//! - `floods`: attacks that aim at memory and slots
//! - `faults`: single frames that no peer may send
//! - `endings`: every abnormal end is told from an end of stream, and from the others
//! - `pools`: memory of unread data, of sessions, of peers, of the process
//! - `pressure`: peers that do not read, and many streams at once
//! - `futures`: futures that are dropped at any poll
//! - `use_not_abuse`: what looks like an attack and is none
//! - `victim`: the example that shows all this to testers outside
#![allow(clippy::cast_possible_truncation)] // patterns of bytes

mod attacker;
mod endings;
mod faults;
mod floods;
mod futures;
mod memory;
mod pools;
mod pressure;
mod use_not_abuse;
mod victim;

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cepa::mux::{Config, Mux, MuxError, StreamError, mux};
use cepa::{ByteStream, Side};
use tokio::task::JoinHandle;

/// No test waits longer, in whatever time it runs; only a hang reaches it.
const HANG: Duration = Duration::from_secs(3600);

type Ended = JoinHandle<Result<(), MuxError>>;

/// Lets one test run at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    // A test that failed has said so; the others are to be judged by themselves.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a test on one thread, in a time that stands still while anybody has something to do.
fn in_virtual_time<R>(test: impl Future<Output = R>) -> R {
    let _alone = alone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async { tokio::time::timeout(HANG, test).await.expect("a hang") })
}

fn start(io: impl ByteStream, side: Side, config: Config) -> (Mux, Ended) {
    let (session, driver) = mux(io, side, config);
    (session, tokio::spawn(driver))
}

/// What the mux says inside an error of reading or writing.
fn stream_error(error: &io::Error) -> &StreamError {
    error
        .get_ref()
        .and_then(|inner| inner.downcast_ref())
        .expect("a StreamError inside")
}
