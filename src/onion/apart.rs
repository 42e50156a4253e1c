//! Where a handshake is gone on with while its trust policy takes its time.
//!
//! rustls asks about the peer's certificate in the middle of taking a record, and wants the answer at once. A policy
//! that may have to wait (for the lock of a file, say) would hold up every task of the thread by that. So the session
//! of such a layer takes each record of its handshake on a thread for blocking work: it is moved there together with
//! the record, and comes back with what came of it. Nothing else changes: rustls itself refuses the peer, with the
//! alert and at the place in the messages that it always has, and no byte that the peer sends is looked at before.
//!
//! The other ways to have the same were worse. To accept for the time being and ask behind the handshake: our Finished,
//! and as a client our certificate, would have left by then, and rustls sends no alert of ours for a refusal that comes
//! later. To keep what the policy needs in memory: that mends the one policy that we know of, and its note that a key
//! was proven has to be on the disk before anything is announced. `block_in_place`: it panics on a runtime of one thread.
//!
//! A push that is dropped meanwhile leaves the thread to finish, and the next push takes up what it has found. Outside
//! of a tokio runtime there are no such threads; the record is taken where we are.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use cepa_transports::ByteStream;
use tokio::runtime::Handle;

use super::Onion;
use crate::tls::{LocalFault, TlsError};

impl<T: ByteStream> Onion<T> {
    /// Takes the record that the innermost layer has to take apart from here. Pending as long as it is away.
    pub(super) fn poll_apart(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TlsError>> {
        let mut away = if let Some(away) = self.away.take() {
            away
        } else {
            let Some(mut taken) = self.engine.take_apart() else {
                return Poll::Ready(Ok(()));
            };
            let Ok(runtime) = Handle::try_current() else {
                taken.feed();
                return Poll::Ready(self.engine.put_back(taken));
            };
            runtime.spawn_blocking(move || {
                taken.feed();
                taken
            })
        };
        let Poll::Ready(back) = Pin::new(&mut away).poll(cx) else {
            self.away = Some(away);
            return Poll::Pending;
        };
        Poll::Ready(match back {
            Ok(taken) => self.engine.put_back(taken),
            // Policies that panic are caught where they are asked. So it is the runtime that ends, or a fault of ours.
            Err(error) => {
                let at = self.engine.depth().saturating_sub(1);
                let fault = LocalFault::PolicyThread(error.to_string());
                Err(self.engine.fail(at, TlsError::Local { fault }))
            }
        })
    }
}
