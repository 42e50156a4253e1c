//! Short codes: `cepa share --code` offers its ticket at a relay by a few words, and whoever has them fetches it there.

use cepa::identity::Identity;
use cepa::node::{Node, PeerAddr};
use cepa::protocols::code::{self, CodeError, CodeRefusal, Offer};
use cepa::protocols::ticket::Ticket;
use std::time::Duration;

use crate::args::{DialTarget, Trust};
use crate::exit::{Code, Failure};
use crate::keep::Keep;
use crate::{reach, settings};

/// In the place of a short code the ticket that it stands for, from the default relay. The code is used up by that.
pub(crate) async fn redeem(
    target: &mut DialTarget,
    trust: &Trust,
    identity: &Identity,
) -> Result<(), Failure> {
    let DialTarget::Code(code) = target else {
        return Ok(());
    };
    if trust.says_something() {
        let why = "a short code leads to a ticket, which names the peer; leave out --expect, --trust, --trust-new and --ca";
        return Err(Failure::new(Code::Usage, why));
    }
    let Some(relay) = settings::read()?.relay else {
        return Err(Failure::new(
            Code::Usage,
            "a short code needs a relay: set the one that the other end uses, relay = \"cepa://RELAYID@ADDR\", in config.toml (`cepa config path`)",
        ));
    };
    let (session, node) = reach::dial(&relay, identity, false, Keep::Not).await?;
    let fetched = code::fetch(&session, code).await;
    node.shutdown(Duration::ZERO).await;
    let text = fetched.map_err(|e| failure(&e))?;
    let ticket = std::str::from_utf8(&text).ok();
    let ticket = ticket.and_then(|text| text.parse::<Ticket>().ok());
    let Some(ticket) = ticket else {
        let why = "the code leads to no ticket: do both ends run the same version?";
        return Err(Failure::new(Code::Other, why));
    };
    *target = DialTarget::Ticket(ticket);
    Ok(())
}

/// `--code` without a relay.
pub(crate) fn no_relay() -> Failure {
    Failure::new(
        Code::Usage,
        "--code needs a relay: give --relay cepa://RELAYID@ADDR, or set a default relay in config.toml (`cepa config path`)",
    )
}

/// A code at the first of these relays with which there is a session, or can be.
pub(crate) async fn offer(
    node: &Node,
    relays: &[PeerAddr],
    lasts: Duration,
) -> Result<Offer, Failure> {
    let Some(relay) = relays.first() else {
        return Err(no_relay());
    };
    let session = node.session(relay).await;
    let session = session.map_err(|e| reach::dial_failure(&e))?;
    Offer::at(&session, lasts).await.map_err(|e| failure(&e))
}

/// Somebody comes with the code and gets the ticket; else why this command ends.
pub(crate) async fn give(offer: Offer, ticket: &str) -> Result<(), Failure> {
    let Err(error) = offer.give(ticket.as_bytes()).await else {
        return Ok(());
    };
    let again = |code, why: &str| Failure::new(code, format!("{why}; run cepa share again"));
    Err(match &error {
        CodeError::Refused(CodeRefusal::Wrong) => again(
            Code::Refused,
            "somebody tried a wrong code, so this one is used up",
        ),
        CodeError::Refused(CodeRefusal::Expired) => {
            again(Code::Lost, "the code expired, and nobody used it")
        }
        CodeError::Refused(CodeRefusal::Silent) => again(
            Code::Lost,
            "somebody came with the code's number and left, so it is used up",
        ),
        CodeError::Io(_) => again(
            Code::Lost,
            "the connection to the relay was lost, and the code with it",
        ),
        _ => failure(&error),
    })
}

fn failure(error: &CodeError) -> Failure {
    let code = match error {
        CodeError::Refused(_) => Code::Refused,
        CodeError::Open(_) | CodeError::Io(_) | CodeError::TimedOut => Code::Lost,
        _ => Code::Other,
    };
    Failure::of(code, error)
}
