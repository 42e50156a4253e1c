//! Telling the peer that this end will be silent for a while, since its process or its machine is about to be stopped.
//!
//! ```text
//!   this end                                   the peer
//!   opens `cepa.pause`            ----------->
//!                                 <-----------  accepted
//!   u32: seconds that it wants    ----------->
//!                                 <-----------  u32: seconds that it is granted
//!   ... silence ...                             does not ask, and does not give up
//!   end, or reset, of the stream  ----------->  all as before
//! ```
//!
//! The stream itself is the pause: when it ends, however it does, the pause is over, and a peer that is older and does
//! not know it refuses it like any other service. What is granted is bounded by the granter alone, in its mux, and one
//! session has one pause at most: another one takes its place.

use std::fmt;
use std::io;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::stack::Parked;

use super::substream::ServiceStream;
use super::{Incoming, OpenError, OpenOptions, Session, reserved};

/// The peer bears with this end's silence as long as this lives, up to what it granted; see [`Session::pause`]. Dropping
/// it tells the peer that this end is back.
#[must_use = "dropping it ends the pause"]
pub struct Pause {
    /// Held open: its end is the end of the pause.
    _stream: ServiceStream,
    /// A session that outlives its connection is kept for at least so long without one, by the silent end and by the one that
    /// bears with it: the silence may be the end of the connection.
    _parked: Option<Parked>,
    granted: Duration,
}

impl Pause {
    /// How long the peer bears with it, in whole seconds, from when it was asked on. It may be less than was wanted, and is zero
    /// at a peer that grants nothing.
    #[must_use]
    pub fn granted(&self) -> Duration {
        self.granted
    }
}

impl fmt::Debug for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pause")
            .field("granted", &self.granted)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Tells the peer that this end will be silent for up to `time` (whole seconds, rounded up), because its process is about to
    /// be stopped or its machine to sleep, and returns when the peer has agreed. It does not end the session for that
    /// silence then, for as long as [`Pause::granted`] says: its
    /// [`Config::pause_limit`](crate::mux::Config::pause_limit) at most. Everything else goes on as usual: windows hold back
    /// what the peer sends, limits of streams run on, and what this end does not do in time for others is late.
    ///
    /// One session has one pause: another one takes the place of the one before. A session through a relay rests on that
    /// with the relay, which has to be told too: [`Node::pause`](crate::node::Node::pause) tells all. A
    /// [link](crate::link) below has a silence of its own that it bears, [`Config::give_up`](crate::link::Config::give_up),
    /// which this does not change.
    ///
    /// The peer has to [accept](Self::accept) substreams, as a node does.
    ///
    /// # Errors
    /// Those of [`open`](Self::open). A peer that does not know of pauses refuses, and ends the session when it has heard nothing
    /// for its [`keepalive_timeout`](crate::mux::Config::keepalive_timeout). Waits for
    /// [`StackConfig::open_timeout`](crate::stack::StackConfig::open_timeout) at most.
    ///
    /// # Cancel safety
    /// Dropping the future takes it back.
    pub async fn pause(&self, time: Duration) -> Result<Pause, OpenError> {
        self.pause_within(time, self.inner.open_timeout).await
    }

    /// As [`pause`](Self::pause), for who waits `patience` at most for the peer's answer.
    pub(crate) async fn pause_within(
        &self,
        time: Duration,
        patience: Duration,
    ) -> Result<Pause, OpenError> {
        let service = || reserved::PAUSE.to_owned();
        let paused = async {
            // In front of the question, so that a peer which has agreed knows for how long this end keeps the session: there may
            // be no time to say so behind the answer.
            let kept = |time| self.lasting().and_then(|it| it.keep_at_least(time));
            let wanted = kept(time);
            let options = OpenOptions::new().patience(patience);
            let mut stream = self.open_with(reserved::PAUSE, &options).await?;
            let granted = ask(&mut stream, time).await;
            let granted = granted.map_err(|error| OpenError::from_io(&error, reserved::PAUSE))?;
            let parked = kept(granted);
            drop(wanted);
            Ok(Pause {
                _parked: parked,
                _stream: stream,
                granted,
            })
        };
        let done = timeout(patience, paused).await;
        done.unwrap_or_else(|_| Err(OpenError::TimedOut { service: service() }))
    }

    /// Bears with a peer that asks for a pause. In a task of its own, which ends with the substream.
    pub(super) fn bear_with(&self, incoming: Incoming) {
        let (mux, limit) = (self.inner.mux.closer(), self.inner.open_timeout);
        let lasting = self.inner.lasting.clone();
        let task = tokio::spawn(async move {
            let Ok(mut stream) = incoming.accept().await else {
                return;
            };
            let Ok(Ok(wanted)) = timeout(limit, stream.read_u32()).await else {
                return;
            };
            let (pause, granted) = mux.peer_pauses(Duration::from_secs(wanted.into()));
            let parked = lasting.and_then(|it| it.keep_at_least(granted));
            let granted = u32::try_from(granted.as_secs()).unwrap_or(u32::MAX);
            let said = timeout(limit, say(&mut stream, granted)).await;
            if let Ok(Ok(())) = said {
                // Nothing is said behind it: whatever comes is the end of the pause.
                let _ = stream.read_u8().await;
            }
            drop((pause, parked));
        });
        // Two are never borne with at once, so a peer that asks for ever holds one task.
        let mut bearing = self
            .inner
            .bearing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = bearing.replace(task.abort_handle()) {
            before.abort();
        }
    }
}

async fn ask(stream: &mut ServiceStream, time: Duration) -> io::Result<Duration> {
    let seconds = time
        .as_secs()
        .saturating_add(u64::from(time.subsec_nanos() > 0));
    say(stream, u32::try_from(seconds).unwrap_or(u32::MAX)).await?;
    let granted = stream.read_u32().await?;
    Ok(Duration::from_secs(granted.into()))
}

async fn say(stream: &mut ServiceStream, seconds: u32) -> io::Result<()> {
    stream.write_u32(seconds).await?;
    stream.flush().await
}
