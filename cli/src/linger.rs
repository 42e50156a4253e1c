//! What a service may still do once its client is gone, which has sent it everything: it may be busy with that. It comes to its end in
//! [`LINGER`], whatever it says meanwhile. But whoever talks on to a client that has left would find its connection reset, and a
//! command its pipe closed: past [`UNHEARD`] bytes the service is cut as soon as all of its input has left.

use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::sleep;

use crate::limits::{LINGER, UNHEARD};

/// How much of what nobody hears is read at once.
const PIECE: usize = 16 << 10;

/// How many pieces before others have their turn.
const TURN: usize = 16;

/// Lets `far` come to its end. `poll_left` is ready once everything that was written there has left. False: it is to be cut.
pub(crate) async fn linger<F: AsyncRead + Unpin>(
    far: &mut F,
    mut poll_left: impl FnMut(&mut F, &mut Context<'_>) -> Poll<()>,
) -> bool {
    let mut limit = pin!(sleep(LINGER));
    let (mut piece, mut unheard) = (vec![0; PIECE], 0);
    poll_fn(|cx| {
        if limit.as_mut().poll(cx).is_ready() {
            return Poll::Ready(false);
        }
        for _ in 0..TURN {
            if unheard > UNHEARD && poll_left(far, cx).is_ready() {
                return Poll::Ready(false);
            }
            let mut read = ReadBuf::new(&mut piece);
            match Pin::new(&mut *far).poll_read(cx, &mut read) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if !read.filled().is_empty() => unheard += read.filled().len(),
                Poll::Ready(_) => return Poll::Ready(true),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncWriteExt as _, duplex};
    use tokio::time::Instant;

    use super::*;

    /// A service that talks until nobody listens.
    fn talking() -> tokio::io::DuplexStream {
        let (far, mut service) = duplex(4096);
        tokio::spawn(async move {
            while service.write_all(&[0; 4096]).await.is_ok() {
                // The clock stands while anything has something to do.
                sleep(Duration::from_millis(1)).await;
            }
        });
        far
    }

    #[tokio::test(start_paused = true)]
    async fn who_talks_on_is_cut_at_once_behind_the_last_of_its_input() {
        let (mut far, begun) = (talking(), Instant::now());
        assert!(!linger(&mut far, |_, _| Poll::Ready(())).await);
        assert!(begun.elapsed() < LINGER / 10);
        assert!(!linger(&mut far, |_, _| Poll::Pending).await);
        assert!(begun.elapsed() >= LINGER);
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_little_has_its_time_and_may_end_in_it() {
        for (after, ends) in [(LINGER / 2, true), (LINGER * 2, false)] {
            let (mut far, mut service) = duplex(4096);
            let service = tokio::spawn(async move {
                service.write_all(&vec![0; UNHEARD]).await.unwrap();
                sleep(after).await;
            });
            let ended = linger(&mut far, |_, _| Poll::Ready(())).await;
            assert_eq!(ended, ends, "{after:?}");
            service.await.unwrap();
        }
    }
}
