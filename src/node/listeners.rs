//! Those who come through a listener.
//!
//! TCP and Unix sockets bring many streams, each with a session in a task of its own. The other transports are one line with one peer at
//! its end: the next session begins when the last is over. A listener of a stream that there is only once (`stdio:`, `fd:`, `exec:`) ends with
//! its session, and not before what was served in it is done.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use cepa_transports::{self as transports, Child, Endpoint, Listener, Stream, TransportError};
use futures::FutureExt as _;
use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;

use crate::gate::Source;
use crate::session::{Backoff, SessionEnd};
use crate::stack::{FIRST_PATH, StackConfig};

use super::core::Core;
use super::event::{Event, TurnedAway};
use super::sessions::{Accepted, accept};

/// Pause after a failed accept, and after a failed session on a line that has only one.
const PAUSE: Duration = Duration::from_millis(500);

/// How long the command of an `exec:` listener may go on when its session is over and its input has ended.
const LEAVE: Duration = Duration::from_secs(1);

/// Why a node does not listen. Each text is one line.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The address can't be listened on.
    #[error("{0}")]
    Transport(#[from] TransportError),
    /// The node is shut down.
    #[error("the node is shut down: create another one")]
    ShutDown,
    /// It was called outside a tokio runtime, which has the sockets.
    #[error("cannot listen outside a tokio runtime: call it inside one")]
    NoRuntime,
}

/// Why a listener has ended. Each text is one line.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenerEnd {
    /// The transport failed for good.
    #[error("{0}")]
    Transport(#[source] TransportError),
    /// The stream that there was only once became no session.
    #[error("{from}: {reason}")]
    TurnedAway {
        /// From where it came.
        from: String,
        /// Why.
        reason: TurnedAway,
    },
    /// The session on the stream that there was only once was not closed in order.
    #[error("{0}")]
    Session(#[source] SessionEnd),
    /// What served it has panicked: a fault of this library, or of what it was given.
    #[error("the listener at {at} panicked: report this, and listen there again")]
    Panicked {
        /// Where it listened.
        at: Endpoint,
    },
}

/// How a task has ended. One that was cancelled was not wanted any more, and that is no failure.
fn joined(
    task: Result<Result<(), ListenerEnd>, JoinError>,
    at: &Endpoint,
) -> Result<(), ListenerEnd> {
    match task {
        Ok(ended) => ended,
        Err(error) if error.is_panic() => Err(ListenerEnd::Panicked { at: at.clone() }),
        Err(_) => Ok(()),
    }
}

/// A listener of a node. It goes on when this is dropped.
#[derive(Debug)]
pub struct Listening {
    endpoint: Endpoint,
    task: JoinHandle<Result<(), ListenerEnd>>,
    /// How it has ended, once that was asked: a task gives it once.
    end: Option<Result<(), ListenerEnd>>,
}

impl Listening {
    /// The address, with its real port.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Waits until it brings no more streams: it has ended, failed, or the node shuts down.
    ///
    /// # Errors
    /// [`ListenerEnd`]; the session of a line that has one after the other is the listener's end only where no other can follow.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn ended(&mut self) -> Result<(), ListenerEnd> {
        if self.end.is_none() {
            self.end = Some(joined((&mut self.task).await, &self.endpoint));
        }
        self.end.clone().unwrap_or(Ok(()))
    }

    /// Whether it brings no more streams.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    /// Ends the listener; its address is free when this returns. Its sessions go on, and the command of an `exec:` with its own.
    pub async fn close(mut self) {
        self.task.abort();
        let _ = self.ended().await;
    }
}

/// Listens in a task of its own.
pub(super) async fn bind(core: &Arc<Core>, endpoint: &Endpoint) -> Result<Listening, ListenError> {
    if core.is_stopping() {
        return Err(ListenError::ShutDown);
    }
    if Handle::try_current().is_err() {
        return Err(ListenError::NoRuntime);
    }
    let listener = transports::listen(endpoint).await?;
    let endpoint = listener.endpoint().clone();
    core.emit(Event::Listening {
        at: endpoint.clone(),
    });
    remark(core, &listener);
    let accepting = Accepting {
        config: {
            let mut config = core.config.stack.for_endpoint(&endpoint);
            // A stream that there is only once ends with what was served there; nobody would come back to it.
            config.begins_nothing = !endpoint.accepts_many() && !endpoint.is_line();
            config
        },
        endpoint: endpoint.clone(),
        core: Arc::clone(core),
    };
    let place = core.listeners.enter(endpoint.clone());
    let task = core.tasks.spawn(async move {
        // Dropped behind the listener: its address is free then.
        let place = place;
        tokio::select! {
            ended = accepting.run(listener) => ended,
            () = place.closed() => Ok(()),
        }
    });
    Ok(Listening {
        endpoint,
        task,
        end: None,
    })
}

fn remark(core: &Core, listener: &Listener) {
    for remark in listener.remarks() {
        core.emit(Event::Remark {
            at: listener.endpoint().clone(),
            text: remark.clone(),
        });
    }
}

/// One listener at work.
struct Accepting {
    core: Arc<Core>,
    endpoint: Endpoint,
    config: StackConfig,
}

impl Accepting {
    async fn run(self, listener: Listener) -> Result<(), ListenerEnd> {
        let core = Arc::clone(&self.core);
        let at = self.endpoint.clone();
        // Its end is told whatever ends it.
        let accepting = AssertUnwindSafe(Arc::new(self).accept(listener)).catch_unwind();
        let panicked = |_| Err(ListenerEnd::Panicked { at: at.clone() });
        let ended = accepting.await.unwrap_or_else(panicked);
        if core.is_stopping() {
            return ended.or_else(|end| match end {
                ListenerEnd::Panicked { .. } => Err(end),
                _ => Ok(()),
            });
        }
        core.emit(match &ended {
            Err(ListenerEnd::Transport(error)) => Event::ListenerFailed {
                at,
                error: error.clone(),
                retrying: false,
            },
            _ => Event::ListenerEnded { at },
        });
        ended
    }

    async fn accept(self: Arc<Self>, mut listener: Listener) -> Result<(), ListenerEnd> {
        let many = self.endpoint.accepts_many();
        let line = self.endpoint.is_line();
        let mut absent: Option<Backoff> = None;
        let mut last = Ok(());
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.core.stopping() => return Ok(()),
                accepted = listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok(Some(stream)) => stream,
                Ok(None) => return last,
                // Out of descriptors, or a connection that was gone again: others may follow.
                Err(error) if many => {
                    self.core.emit(Event::TurnedAway {
                        at: Some(self.endpoint.clone()),
                        source: Source::HERE,
                        from: self.endpoint.to_string(),
                        reason: TurnedAway::Transport(error),
                    });
                    self.pause(PAUSE).await;
                    continue;
                }
                // An adapter that was unplugged comes back, by a path under by-id the same one.
                Err(error) if line => {
                    if absent.is_none() {
                        self.core.emit(Event::ListenerFailed {
                            at: self.endpoint.clone(),
                            error,
                            retrying: true,
                        });
                    }
                    let backoff =
                        absent.get_or_insert_with(|| Backoff::for_endpoint(&self.endpoint));
                    self.pause(backoff.pause()).await;
                    continue;
                }
                Err(error) => return Err(ListenerEnd::Transport(error)),
            };
            if absent.take().is_some() {
                self.core.emit(Event::ListenerBack {
                    at: self.endpoint.clone(),
                });
                remark(&self.core, &listener);
            }
            // In a task of its own: it goes on when the listener is closed, and takes leave when the node shuts down.
            let this = Arc::clone(&self);
            let only = !many && !line;
            let session = self
                .core
                .tasks
                .spawn(async move { this.session(stream, only).await });
            if many {
                continue;
            }
            // One line, one peer: the next begins when this one is over.
            last = joined(session.await, &self.endpoint);
            if last.is_err() && line {
                self.pause(PAUSE).await;
            }
        }
    }

    /// So long, or until the node shuts down.
    async fn pause(&self, time: Duration) {
        let _ = timeout(time, self.core.stopping()).await;
    }

    /// One stream, from its handshake to the end of its session; to the end of all that was served in it, where it is the
    /// only one.
    async fn session(self: Arc<Self>, mut stream: Stream, only: bool) -> Result<(), ListenerEnd> {
        // Of a listener of `exec:`: watched, and killed when this is dropped.
        let child = stream.take_child().map(|child| self.watch(child));
        let ended = self.serve(stream, only).await;
        if let Some(mut child) = child {
            // Its input has ended, behind our goodbye, which it has still to pass on.
            let _ = timeout(LEAVE, &mut child.0).await;
        }
        ended
    }

    async fn serve(&self, stream: Stream, only: bool) -> Result<(), ListenerEnd> {
        let from = stream.label().to_owned();
        let accepted = accept(
            &self.core,
            stream,
            self.endpoint.layers(),
            Vec::new(),
            &self.config,
            Some(&self.endpoint),
        );
        let accepted = accepted.await;
        let live = match accepted.map_err(|reason| ListenerEnd::TurnedAway { from, reason })? {
            Accepted::New(live) => live,
            Accepted::Resumed(resumed) => {
                resumed.left().await;
                return Ok(());
            }
        };
        if let (false, Some(lasting)) = (only, live.session.lasting()) {
            // Without its session the line is free for the next one, or for the same to be taken up again.
            lasting.left(FIRST_PATH).await;
            if lasting.path().is_none() && !lasting.handle.is_over() {
                return Ok(());
            }
        }
        let end = live.session.closed().await;
        if only {
            // What the peer sent before it left is still being delivered.
            live.serving.close();
            live.serving.wait().await;
        }
        if end.is_clean() {
            Ok(())
        } else {
            Err(ListenerEnd::Session(end))
        }
    }

    /// Passes on what a child writes to its standard error, until dropped; then it is killed.
    fn watch(&self, mut child: Child) -> Watched {
        let (core, at) = (Arc::clone(&self.core), self.endpoint.clone());
        Watched(tokio::spawn(async move {
            let stderr = child.stderr();
            while let Some(line) = stderr.next_line().await {
                core.emit(Event::ChildStderr {
                    at: at.clone(),
                    line,
                });
            }
            let _ = child.wait().await;
        }))
    }
}

/// Kills the child when dropped.
struct Watched(JoinHandle<()>);

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    fn listening(task: JoinHandle<Result<(), ListenerEnd>>) -> Listening {
        Listening {
            endpoint: "tcp:127.0.0.1:1".parse().unwrap(),
            task,
            end: None,
        }
    }

    #[tokio::test]
    async fn a_listener_that_panics_has_not_ended_in_order() {
        let mut panics = listening(tokio::spawn(async { panic!("as it should in this test") }));
        let end = panics.ended().await.expect_err("a clean end");
        assert!(end.to_string().contains("panicked"), "{end}");
        assert!(panics.ended().await.is_err(), "the second time");
        let mut closed = listening(tokio::spawn(pending()));
        closed.task.abort();
        closed.ended().await.unwrap();
    }
}
