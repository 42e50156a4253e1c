//! A node as its control socket knows it: what there is, invitations, and its file read again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cepa::node::Listening;
use cepa::transports::{Endpoint, Stream};
use futures::future::BoxFuture;
use serde_json::Value;
use tokio::io::BufReader;
use tokio::sync::{mpsc, oneshot};

use crate::control::{self, Look, OfNode};
use crate::exit::{Code, Failure};

use super::inviter::Inviter;

/// Where the node listens: each with the address that was asked for; without a listener while its device is absent.
#[derive(Clone, Default)]
pub(super) struct Listeners(Arc<Mutex<Vec<Place>>>);

type Place = (Endpoint, Option<Listening>);

impl Listeners {
    /// A listener is waited for.
    pub(super) fn expect(&self, asked: Endpoint) {
        self.standing().push((asked, None));
    }

    pub(super) fn add(&self, asked: Endpoint, listening: Listening) {
        let mut all = self.standing();
        all.retain(|(other, listening)| *other != asked || listening.is_some());
        all.push((asked, Some(listening)));
    }

    /// The addresses that were asked for. One whose listener has ended is none any more.
    pub(super) fn asked(&self) -> Vec<Endpoint> {
        let all = self.standing();
        all.iter().map(|(asked, _)| asked.clone()).collect()
    }

    /// The addresses of those that listen.
    fn addresses(&self) -> Vec<Endpoint> {
        let all = self.standing();
        let listening = all.iter().filter_map(|(_, listening)| listening.as_ref());
        listening.map(|it| it.endpoint().clone()).collect()
    }

    fn standing(&self) -> MutexGuard<'_, Vec<Place>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(_, listening)| listening.as_ref().is_none_or(|it| !it.has_ended()));
        all
    }
}

/// What came of a reload, for who has asked for it.
pub(super) type Reloaded = oneshot::Sender<Result<Value, Failure>>;

/// See the head of this file.
pub(super) struct Controlled {
    pub(super) node: OfNode,
    pub(super) listeners: Listeners,
    pub(super) inviter: Inviter,
    /// To who reads the file.
    pub(super) reloads: mpsc::Sender<Reloaded>,
}

impl control::Daemon for Controlled {
    fn look(&self) -> Look {
        Look {
            listening: self
                .listeners
                .addresses()
                .iter()
                .map(Endpoint::to_string)
                .collect(),
            ..self.node.look()
        }
    }

    fn invite<'a>(&'a self, asked: &'a Value, stream: BufReader<Stream>) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let at = self.listeners.addresses();
            self.inviter.invite(asked, &at, stream).await;
        })
    }

    fn reload(&self) -> BoxFuture<'_, Result<Value, Failure>> {
        Box::pin(async {
            let ending = || Failure::new(Code::Refused, "the node is ending");
            let (done, reloaded) = oneshot::channel();
            self.reloads.send(done).await.map_err(|_| ending())?;
            reloaded.await.map_err(|_| ending())?
        })
    }
}
