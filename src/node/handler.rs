//! What the handlers of services may end with, and calls as a stream for who wants no handler.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;
use tokio::sync::mpsc;

use super::call::Call;

/// Calls that wait for who reads the stream; more wait in tasks of their own, as many as peers may have substreams.
pub(super) const WAITING: usize = 16;

/// What a handler of a service ends with: nothing, or a [`Result`]. An error is told to whoever watches the node
/// ([`Event::HandlerFailed`](super::Event::HandlerFailed)); the peer reads a reset, unless the handler had shut its stream down.
pub trait HandlerOutput: Send + sealed::Sealed {
    #[doc(hidden)]
    fn into_error(self) -> Option<String>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for () {}
    impl<E: std::fmt::Display> Sealed for Result<(), E> {}
}

impl HandlerOutput for () {
    fn into_error(self) -> Option<String> {
        None
    }
}

impl<E: fmt::Display + Send> HandlerOutput for Result<(), E> {
    fn into_error(self) -> Option<String> {
        self.err().map(|error| error.to_string())
    }
}

/// The calls of one service, one after the other: [`Node::incoming`](super::Node::incoming). Dropping it refuses those that
/// wait and all that come.
#[derive(Debug)]
pub struct Calls {
    calls: mpsc::Receiver<Call>,
}

impl Calls {
    pub(super) fn new() -> (mpsc::Sender<Call>, Self) {
        let (sender, calls) = mpsc::channel(WAITING);
        (sender, Self { calls })
    }

    /// The next; none when the service was withdrawn or replaced, or the node is shut down.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Call> {
        self.calls.recv().await
    }
}

impl Stream for Calls {
    type Item = Call;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Call>> {
        self.calls.poll_recv(cx)
    }
}
