//! A call is served with what that takes of its peer's part, or refused. The peer reads why, where that is its business.

use std::sync::OnceLock;

use cepa::mux::Substream;
use cepa::node::{Call, Exceeded, Resource, Share};
use cepa::onion::Onion;
use cepa::session::Session;
use cepa::tls::TlsConfig;
use cepa::transports::{self, Endpoint};

use crate::exit::NOT_NOW;
use crate::reach::raised_by;

/// What a peer reads where the address behind a service can't be opened: it may be there later.
pub(crate) const UNREACHABLE: &str =
    "the service is not available right now; the server's log says why";

/// What serving an address takes of the node's pools, counted to the peer that asks: for a command its process and its pipes,
/// for everything else one descriptor.
pub(crate) fn cost(to: &Endpoint) -> Cost {
    match to.target() {
        transports::Target::Exec { .. } | transports::Target::Ssh { .. } => COMMAND,
        _ => ONE,
    }
}

pub(crate) type Cost = &'static [(Resource, usize)];

pub(crate) const COMMAND: Cost = &[(Resource::Children, 1), (Resource::Descriptors, 4)];

pub(crate) const ONE: Cost = &[(Resource::Descriptors, 1)];

/// A transfer of files: a thread, and what it has open at a time.
pub(crate) const TRANSFER: Cost = &[(Resource::Children, 1), (Resource::Descriptors, 8)];

/// Why a call is not served, if it is not: asked beside who may open the service, where somebody asks.
#[derive(Default)]
pub(crate) struct Gate(OnceLock<WhyNot>);

type WhyNot = Box<dyn Fn(&Session, Asked) -> Option<String> + Send + Sync>;

/// When a gate is asked.
#[derive(Clone, Copy)]
pub(crate) enum Asked {
    /// Before anything is done for the call.
    First,
    /// Once there is what the peer wants, and only its substream is to be accepted.
    Opened,
}

impl Gate {
    pub(crate) fn set(
        &self,
        why_not: impl Fn(&Session, Asked) -> Option<String> + Send + Sync + 'static,
    ) {
        let _ = self.0.set(Box::new(why_not));
    }

    /// The call, unless it is turned away.
    pub(crate) async fn passed(&self, call: Call, asked: Asked) -> Option<Call> {
        let Some(why) = self.why_not(call.session(), asked) else {
            return Some(call);
        };
        let _ = call.refuse(&why).await;
        None
    }

    /// Why a session gets nothing more, where its substream was accepted already.
    pub(crate) fn why_not(&self, session: &Session, asked: Asked) -> Option<String> {
        self.0.get().and_then(|why_not| why_not(session, asked))
    }
}

/// Holds that for a call.
pub(crate) fn hold(call: &Call, to: &Endpoint) -> Result<Share, Exceeded> {
    call.hold(cost(to))
}

/// The call with what serving it takes; refused where that is more than the peer may have.
pub(crate) async fn held(call: Call, cost: Cost) -> Result<(Call, Share), String> {
    match call.hold(cost) {
        Ok(share) => Ok((call, share)),
        Err(exceeded) => {
            let reason = exceeded.to_string();
            refuse(call, &reason).await;
            Err(reason + raised_by(&exceeded))
        }
    }
}

/// Refuses what might be had later.
pub(crate) async fn refuse(call: Call, reason: &str) {
    let _ = call.refuse(&format!("{NOT_NOW}{reason}")).await;
}

/// The substream; with TLS of its own, where the peer asks for that.
pub(crate) async fn accept(call: Call, inner: &TlsConfig) -> Result<Onion<Substream>, String> {
    let accepted = if call.wants_inner_tls() {
        Box::pin(call.accept_secured(inner)).await
    } else {
        call.accept().await
    };
    accepted.map_err(|e| e.to_string())
}
