//! Invitations of a running node, asked for at its control socket: one at a time, open as long as who asked for it stays.
//!
//! While one is open, strangers may have a session; what they may open is each service's question, and that is nothing.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cepa::identity::PeerId;
use cepa::node::{Node, PeerAddr};
use cepa::protocols::code::Offer;
use cepa::protocols::pairing::Invitations;
use cepa::transports::{Endpoint, Stream};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::time::timeout;

use crate::exit::{Failure, say};
use crate::keep::INVITE_MINUTES;
use crate::{inviting, settings_file, short_code};

/// Invites to a node.
#[derive(Clone)]
pub(super) struct Inviter {
    pub(super) own: PeerId,
    pub(super) invitations: Invitations,
    /// At the node's relays.
    pub(super) reachable: Vec<PeerAddr>,
    /// Where short codes are made.
    pub(super) relays: Vec<PeerAddr>,
    pub(super) node: Node,
    /// Whether strangers may have a session.
    pub(super) strangers: Arc<AtomicBool>,
    /// Somebody invites.
    pub(super) busy: Arc<AtomicBool>,
}

/// Is over when dropped.
struct Open<'a>(&'a Inviter);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.invitations.close();
        self.0.strangers.store(false, Ordering::Relaxed);
        self.0.busy.store(false, Ordering::Relaxed);
    }
}

impl Inviter {
    /// Answers who asks for an invitation.
    pub(super) async fn invite(
        &self,
        asked: &Value,
        at: &[Endpoint],
        mut stream: BufReader<Stream>,
    ) {
        let ended = match self.invited(asked, at, &mut stream).await {
            Ok(ended) => ended,
            Err(failure) => json!({ "error": failure.to_string(), "code": failure.status() }),
        };
        let _ = stream.write_all(format!("{ended}\n").as_bytes()).await;
        let _ = stream.shutdown().await;
    }

    async fn invited(
        &self,
        asked: &Value,
        at: &[Endpoint],
        stream: &mut BufReader<Stream>,
    ) -> Result<Value, Failure> {
        use crate::exit::Code::Refused;
        let name = asked["name"].as_str();
        if let Some(name) = name {
            inviting::is_free(name, None)?;
        }
        let minutes = asked["minutes"]
            .as_u64()
            .and_then(|n| u32::try_from(n).ok());
        let minutes = minutes.unwrap_or(INVITE_MINUTES).clamp(1, 1440);
        let places = inviting::network_places(at.iter(), None);
        let places = inviting::hints(places, &self.reachable);
        if places.is_empty() {
            let why = "the node listens at no tcp: address, and is registered at no relay";
            return Err(Failure::new(Refused, why));
        }
        if self.busy.swap(true, Ordering::Relaxed) {
            let why = "the node invites somebody already; end that `cepa invite` first";
            return Err(Failure::new(Refused, why));
        }
        let _open = Open(self);
        let made = inviting::make(self.own, &places, minutes)?;
        let joining = self.invitations.open(made.open);
        self.strangers.store(true, Ordering::Relaxed);
        say("inviting, by the control socket");
        let offer = if asked["short"] == Value::Bool(true) {
            Some(self.offer(made.lasts).await?)
        } else {
            None
        };
        let code = match &offer {
            Some(offer) => json!({ "code": *offer.code().text(), "short": true }),
            None => json!({ "code": *made.code }),
        };
        let grace = if offer.is_some() {
            short_code::GRACE
        } else {
            Duration::ZERO
        };
        let given = async {
            if let Some(offer) = offer {
                short_code::give(offer, &made.code, "cepa invite").await?;
                short_code::used("cepa join", || false).await;
            }
            pending::<Result<Value, Failure>>().await
        };
        let left = async {
            if stream
                .write_all(format!("{code}\n").as_bytes())
                .await
                .is_ok()
            {
                // There is nothing more to say; an end is somebody who leaves.
                while matches!(stream.read(&mut [0; 64]).await, Ok(n) if n > 0) {}
            }
        };
        let joined = tokio::select! {
            joined = timeout(made.lasts + grace, joining.joined()) => joined,
            ended = given => return ended,
            () = left => Ok(None),
        };
        match joined {
            Err(_) | Ok(None) => Ok(json!({ "expired": true })),
            Ok(Some(joiner)) => {
                let wanted = name;
                let name = inviting::remember(wanted, joiner)?;
                let before = inviting::named_before(&name, wanted);
                say(format_args!(
                    "{joiner} has joined; remembered as {name}{before}"
                ));
                Ok(json!({ "joined": joiner.to_string(), "name": name }))
            }
        }
    }

    /// A short code at one of the node's relays, or else at the default one.
    async fn offer(&self, lasts: Duration) -> Result<Offer, Failure> {
        let relays = if self.relays.is_empty() {
            vec![
                settings_file::read()?
                    .relay
                    .ok_or_else(short_code::no_relay)?,
            ]
        } else {
            self.relays.clone()
        };
        short_code::offer(&self.node, &relays, lasts).await
    }
}
