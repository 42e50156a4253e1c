//! The owner's side: judging what is shown, and admitting to the one service that it is for.
//!
//! The substream on which an introduction was shown is the one that is admitted: behind the verdict it carries the
//! header of the service. So a use is a substream, and no permission stays behind that would have to be taken back.

use std::time::Duration;

use tokio::time::timeout;

use crate::identity::PeerId;
use crate::node::{Call, Node, PeerAddr, Refused};
use crate::wire::{fault, linger_close, receive, send};

use super::event::IntroductionEvent;
use super::flaw::Flaw;
use super::party::Party;
use super::state::State;
use super::statement::Introduction;
use super::wire::{Present, Verdict, Wish};

/// Time for a peer to show what it has.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves one substream on which an introduction is shown, to its end.
pub(super) async fn serve(state: &State, call: Call) {
    let (incoming, context) = call.into_parts();
    let node = state.node.clone();
    let who = Party::of(incoming.peer());
    let peer = who.id;
    let Ok(mut stream) = incoming.accept().await else {
        return;
    };
    let shown = match timeout(PATIENCE, receive::<Present>(&mut stream)).await {
        Ok(Ok(present)) => judge(state, &node, &who, &present).await,
        Ok(Err(error)) => match fault(&error) {
            Some(why) => Err((String::new(), Flaw::Malformed(why.to_string()))),
            None => return,
        },
        Err(_) => return,
    };
    let (verdict, admitted) = match shown {
        Ok(admitted) => (Ok(()), Some(admitted)),
        Err((service, flaw)) => {
            node.emit_refused(peer, service, Refused::Other(flaw.to_string()));
            (Err(flaw), None)
        }
    };
    let _kept = admitted.as_ref().map(|_| context.keep_session());
    let sent = timeout(PATIENCE, send(&mut stream, &Verdict::of(&verdict))).await;
    let Some(admitted) = admitted.filter(|_| matches!(sent, Ok(Ok(())))) else {
        linger_close(&mut stream, PATIENCE).await;
        return;
    };
    let (service, by) = (admitted.name, admitted.by);
    if admitted.wish == Wish::Revoke {
        node.emit(IntroductionEvent::Revoked { peer, service });
        linger_close(&mut stream, PATIENCE).await;
        return;
    }
    let Some(incoming) = context.session().accept_behind(stream).await else {
        return;
    };
    node.emit(IntroductionEvent::Introduced {
        peer,
        service: service.clone(),
        by: by.clone(),
    });
    if incoming.service() != service {
        let _ = incoming
            .refuse("the introduction is for another service")
            .await;
        return;
    }
    node.serve_introduced(context, incoming, by).await;
}

struct Admitted {
    name: String,
    by: Vec<PeerId>,
    wish: Wish,
}

/// What a peer shows, or the service that it is about and what is wrong with it.
async fn judge(
    state: &State,
    node: &Node,
    who: &Party,
    present: &Present,
) -> Result<Admitted, (String, Flaw)> {
    let nameless = |flaw| (String::new(), flaw);
    let introduction = Introduction::from_bytes(present.introduction()).map_err(nameless)?;
    let wish = present.wish().map_err(nameless)?;
    let name = introduction.address().map(|a| a.service().to_owned());
    let name = name.unwrap_or_default();
    match check(state, node, &introduction, &name, who, wish).await {
        Ok(()) => Ok(Admitted {
            name,
            by: introduction.issuers(),
            wish,
        }),
        Err(flaw) => Err((name, flaw)),
    }
}

/// The steps in their order; the last one counts the use.
async fn check(
    state: &State,
    node: &Node,
    introduction: &Introduction,
    name: &str,
    who: &Party,
    wish: Wish,
) -> Result<(), Flaw> {
    let Some(owner) = introduction.address().map(PeerAddr::peer) else {
        return Err(Flaw::Malformed("it has no links".into()));
    };
    // Also by a former id of this node, which a peer may know alone.
    if !state.is_own(&owner) {
        return Err(Flaw::WrongOwner { owner });
    }
    introduction.hangs_together()?;
    let first = introduction.links().first();
    let first = first.ok_or_else(|| Flaw::Malformed("it has no links".into()))?;
    // Who says to have issued it, before what that costs to check: anybody who has a session can show something.
    let payer = state.rank(name, first);
    let issuer = first.issuer;
    let payer = payer.ok_or(Flaw::NotPermitted { issuer })?;
    introduction.is_signed()?;
    if wish == Wish::Revoke {
        return state.revoke(introduction, who, payer).await;
    }
    if !node.offers(name) {
        return Err(Flaw::NoService);
    }
    state.wait_for(introduction).await?;
    let reading = state.reading();
    state.book().judge(introduction, who, reading)?;
    state.record(introduction).await?;
    let reading = state.reading();
    state.book().admit(introduction, who, payer, reading)
}
