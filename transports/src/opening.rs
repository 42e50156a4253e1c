//! An accepted stream before its handshake: reading and writing wait for that. It runs beside the stream, or as part of the first read
//! or write, where it is to cost nothing until somebody wants it.
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
#[cfg(feature = "ws")]
use tokio::task::JoinHandle;

use crate::joint_waker::JointWaker;
use crate::stream::Wire;

/// What a handshake comes to. Whoever closed before saying anything is an error, too.
pub(crate) type Opened = io::Result<Box<dyn Wire>>;

pub(crate) struct Opening {
    state: State,
    /// A task may read and another one write, and both wait for the handshake, which keeps the waker of its last poll only. Until it ends.
    waiting: Option<JointWaker>,
    /// See [`Wire::cut_when_dropped`]; passed on once there is something to cut.
    cut: bool,
}

enum State {
    /// Dropped early, it is ended.
    #[cfg(feature = "ws")]
    Beside(JoinHandle<Opened>),
    #[cfg(feature = "quic")]
    Within(Pin<Box<dyn Future<Output = Opened> + Send>>),
    Open(Box<dyn Wire>),
    /// Told once, as the failure of whatever was tried first.
    Failed,
}

impl Opening {
    /// With a handshake that begins at once.
    #[cfg(feature = "ws")]
    pub(crate) fn beside(handshake: impl Future<Output = Opened> + Send + 'static) -> Self {
        Self {
            state: State::Beside(tokio::spawn(handshake)),
            waiting: None,
            cut: false,
        }
    }

    /// With a handshake that begins when the stream is first read or written.
    #[cfg(feature = "quic")]
    pub(crate) fn within(handshake: impl Future<Output = Opened> + Send + 'static) -> Self {
        Self {
            state: State::Within(Box::pin(handshake)),
            waiting: None,
            cut: false,
        }
    }

    fn poll_open(
        &mut self,
        cx: &Context<'_>,
        side: fn(&mut JointWaker, &Context<'_>),
    ) -> Poll<io::Result<&mut Box<dyn Wire>>> {
        if matches!(self.state, State::Open(_) | State::Failed) {
            return Poll::Ready(self.open());
        }
        let waiting = self.waiting.get_or_insert_default();
        side(waiting, cx);
        let cx = &mut Context::from_waker(waiting.joint());
        let opened = match &mut self.state {
            #[cfg(feature = "ws")]
            State::Beside(handshake) => {
                let opened = ready!(Pin::new(handshake).poll(cx));
                Some(opened.unwrap_or_else(|ended| Err(io::Error::other(ended))))
            }
            #[cfg(feature = "quic")]
            State::Within(handshake) => Some(ready!(handshake.as_mut().poll(cx))),
            _ => None,
        };
        // Whoever did not ask just now is to ask again.
        waiting.joint().wake_by_ref();
        self.waiting = None;
        if let Some(opened) = opened {
            self.state = match opened {
                Ok(mut wire) => {
                    wire.cut_when_dropped(self.cut);
                    State::Open(wire)
                }
                Err(error) => {
                    self.state = State::Failed;
                    return Poll::Ready(Err(error));
                }
            };
        }
        Poll::Ready(self.open())
    }

    fn open(&mut self) -> io::Result<&mut Box<dyn Wire>> {
        match &mut self.state {
            State::Open(wire) => Ok(wire),
            _ => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        #[cfg(feature = "ws")]
        if let State::Beside(handshake) = &self.state {
            handshake.abort();
        }
    }
}

impl Wire for Opening {
    fn below(&mut self) -> Option<&mut dyn Wire> {
        match &mut self.state {
            State::Open(wire) => Some(wire),
            _ => None,
        }
    }

    fn cut_when_dropped(&mut self, yes: bool) {
        self.cut = yes;
        if let Some(wire) = self.below() {
            wire.cut_when_dropped(yes);
        }
    }
}

impl AsyncRead for Opening {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let wire = ready!(self.poll_open(cx, JointWaker::reader))?;
        Pin::new(wire).poll_read(cx, buf)
    }
}

impl AsyncWrite for Opening {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wire = ready!(self.poll_open(cx, JointWaker::writer))?;
        Pin::new(wire).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = ready!(self.poll_open(cx, JointWaker::writer))?;
        Pin::new(wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = ready!(self.poll_open(cx, JointWaker::writer))?;
        Pin::new(wire).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wire = ready!(self.poll_open(cx, JointWaker::writer))?;
        Pin::new(wire).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[cfg(all(test, feature = "quic"))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use tokio::sync::oneshot;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Bytes that are there, and a place for what is written.
    struct Ready;

    impl Wire for Ready {}

    impl AsyncRead for Ready {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            buf.put_slice(b"x");
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Ready {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// As the halves of a split stream do it, in either order.
    #[tokio::test]
    async fn both_tasks_are_woken_by_the_end_of_one_handshake() {
        for writer_first in [false, true] {
            for fails in [false, true] {
                let (open, opened) = oneshot::channel::<Opened>();
                let mut opening = Opening::within(async move {
                    opened
                        .await
                        .unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
                });
                let counts: [Arc<Count>; 2] = Default::default();
                let wakers = counts.clone().map(Waker::from);
                let [mut reads, mut writes] = wakers.each_ref().map(Context::from_waker);
                let mut read = |opening: &mut Opening| {
                    let mut byte = [0; 1];
                    let mut buf = ReadBuf::new(&mut byte);
                    Pin::new(opening).poll_read(&mut reads, &mut buf).is_ready()
                };
                let mut write = |opening: &mut Opening| {
                    Pin::new(opening).poll_write(&mut writes, b"x").is_ready()
                };
                if writer_first {
                    assert!(!write(&mut opening));
                    assert!(!read(&mut opening));
                } else {
                    assert!(!read(&mut opening));
                    assert!(!write(&mut opening));
                }
                let end: Opened = if fails {
                    Err(io::ErrorKind::Other.into())
                } else {
                    Ok(Box::new(Ready))
                };
                assert!(open.send(end).is_ok());
                for count in &counts {
                    assert!(count.0.load(Ordering::Relaxed) > 0, "one sleeps for ever");
                }
                assert!(read(&mut opening) && write(&mut opening));
                // No task is kept behind it.
                drop(wakers);
                assert_eq!(counts.each_ref().map(Arc::strong_count), [1, 1]);
            }
        }
    }
}
