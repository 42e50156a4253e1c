//! How many registrations a peer has in the whole fleet: what one relay gives it counts at all of them.
//!
//! The store says how many a peer has at which other member. That is believed as long as the peer gets what it asks for; nobody is
//! refused by it alone. Before that, each member that is named is asked, and says how many it has behind which somebody answers:
//!
//! | what a member says | counts |
//! | --- | --- |
//! | a number | that number |
//! | nothing in time, or it is not reached: it was killed, or somebody else has written its name or its address | 0 |
//! | it does not take this relay for one of its fleet | what the store says |
//!
//! What nobody answers for at the other member is ended there, as one relay does it with its own. So a relay that is gone holds up none
//! of its peers until its lease has ended, and whoever can write the store fills nobody's quota. A member that lies can: it is named in
//! the refusal, so that it can be taken out of the lists. A peer whose relays do not reach each other may have as many at each. Who
//! makes this relay ask has 60 tries, and one more each second; without one, what the store says counts.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::timeout;

use crate::identity::PeerId;
use crate::mux::Substream;
use crate::node::OnSessionError;
use crate::onion::Onion;
use crate::protocols::pool::{Denied, Holder, Who};
use crate::session::OpenError;
use crate::wire::{linger_close, receive, send};

use super::error::RelayError;
use super::inner::{Inner, Joined, Reach, Refusal};
use super::message::{Held, Holds};
use super::{across, client};

/// How long the session of a registration may take to answer a ping. A process that was stopped, or a machine that sleeps, does not answer.
const ALIVE: Duration = Duration::from_secs(5);

/// Members that are asked for one registration. An honest fleet names no more than a peer may have registrations.
const MOST_ASKED: usize = 32;

/// Members that a refusal names.
const MOST_NAMED: usize = 2;

/// Whether somebody is behind a registration.
pub(super) async fn answers(reach: &Reach) -> bool {
    let answered = timeout(ALIVE, reach.session.ping()).await;
    matches!(answered, Ok(Ok(_)))
}

/// What a peer has at each other member where it has some.
pub(super) struct Elsewhere(Vec<(PeerId, usize)>);

impl Elsewhere {
    /// As the store says.
    pub(super) fn by_store(relay: &Inner, holder: &Holder) -> Self {
        let fleet = relay.fleet.as_ref();
        let held = fleet.map(|joined| joined.fleet.held_elsewhere(holder.ids()));
        Self(held.unwrap_or_default())
    }

    pub(super) fn count(&self) -> usize {
        let counts = self.0.iter().map(|(_, count)| *count);
        counts.fold(0, usize::saturating_add)
    }

    /// Asks them.
    pub(super) async fn ask(&mut self, relay: &Inner, holder: &Holder) {
        let Some(joined) = &relay.fleet else {
            return;
        };
        if !joined.fleet.may_ask(Who::of(holder), relay.now()) {
            return;
        }
        self.0.truncate(MOST_ASKED);
        let asked = Holds::new(holder.id, &holder.former);
        let asked = &asked;
        let all = self.0.iter().map(|(member, count)| async move {
            let said = timeout(relay.config.patience, ask(joined, *member, asked)).await;
            (*member, said.unwrap_or(Some(0)).unwrap_or(*count))
        });
        let said = join_all(all).await;
        self.0 = said;
        self.0.retain(|(_, count)| *count > 0);
    }

    /// A refusal that says where the others are.
    pub(super) fn refusal(&self, denied: Denied) -> Refusal {
        let mut refusal = Refusal::from(denied);
        if let (Denied::Peer(most), false) = (denied, self.0.is_empty()) {
            let named = self.0.iter().take(MOST_NAMED);
            let named = named.map(|(member, count)| {
                format!("relay {}\u{2026} says that it has {count}", member.short())
            });
            let named: Vec<_> = named.collect();
            refusal.reason = format!(
                "at most {most} of one peer in the whole fleet: {}",
                named.join(", ")
            );
        }
        refusal
    }
}

/// How many a member has; nothing, where it does not take this relay for another one.
async fn ask(joined: &Joined, member: PeerId, asked: &Holds) -> Option<usize> {
    let address = across::address(&joined.fleet, member);
    let said = joined.node.on_session(&address, |session| {
        let (session, asked) = (session.clone(), asked.clone());
        Box::pin(async move { client::holds(&session, &asked).await })
    });
    match said.await {
        Ok((_, count)) => Some(count),
        Err(OnSessionError::Open(RelayError::NoRelay {
            source: OpenError::Refused { .. },
            ..
        })) => None,
        Err(OnSessionError::Dial(error)) if error.is_refused() => None,
        Err(_) => Some(0),
    }
}

/// Answers another member.
pub(super) async fn serve(relay: &Arc<Inner>, stream: &mut Onion<Substream>) {
    let patience = relay.config.patience;
    let Ok(Ok(asked)) = timeout(patience, receive::<Holds>(stream)).await else {
        return;
    };
    let holder = Holder {
        id: asked.peer(),
        former: asked.former(),
        place: None,
        named: false,
    };
    let here = relay.registrations().held_by(&holder);
    let looks = here.iter().map(|(number, reach)| async move {
        let answers = answers(reach).await;
        if !answers {
            // Or one that answers nobody when this is asked would have more elsewhere and keep it.
            let lost = relay.registrations().give_back(*number);
            relay.end(lost.map(|reach| reach.taken_back));
        }
        answers
    });
    let count = join_all(looks).await.into_iter().filter(|it| *it).count();
    if matches!(
        timeout(patience, send(stream, &Held::new(count))).await,
        Ok(Ok(()))
    ) {
        linger_close(stream, patience).await;
    }
}
