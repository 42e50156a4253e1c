//! Short codes: `cepa share --code` offers its ticket, and `cepa invite --code` its invitation, at a relay by a few words, and
//! whoever has them fetches it there. A code says nothing of what it leads to, so both ends of it check that.

use cepa::identity::{Identity, Invitation};
use cepa::node::{Node, PeerAddr};
use cepa::protocols::code::{self, CodeError, CodeRefusal, Offer, ShortCode};
use cepa::protocols::ticket::Ticket;
use std::convert::Infallible;
use std::time::Duration;
use zeroize::Zeroizing;

use crate::args::{CodeRelay, DialTarget, Trust};
use crate::exit::{Code, Failure, say};
use crate::keep::Keep;
use crate::{reach, redeemed, settings_file};

/// What is offered goes on for so long behind the end of its code: it is the relay that says that the code has expired.
pub(crate) const GRACE: Duration = Duration::from_secs(5);

/// How long whoever has used a code may take to be here.
const MOMENT: Duration = Duration::from_secs(10);

/// What a command for a friend says besides the code, which does not say where it was made: the relay that was named here. The default one
/// may be theirs, too.
pub(crate) fn made_at(is_short: bool, relays: &[PeerAddr]) -> String {
    match relays.first() {
        Some(relay) if is_short => format!(" --relay {}", relay.for_others()),
        _ => String::new(),
    }
}

/// In the place of a short code the ticket that it stands for. The code is used up by that, but for who runs this again.
pub(crate) async fn redeem(
    target: &mut DialTarget,
    trust: &Trust,
    relay: &CodeRelay,
    identity: &Identity,
) -> Result<(), Failure> {
    let DialTarget::Code(code) = target else {
        return relay.is_for_a_code();
    };
    if trust.says_something() {
        let why = "a short code leads to a ticket, which names the peer; leave out --expect, --trust, --trust-new and --ca";
        return Err(Failure::new(Code::Usage, why));
    }
    let text = fetch(code, relay, identity).await?;
    if let Ok(ticket) = text.parse::<Ticket>() {
        *target = DialTarget::Ticket(ticket);
        return Ok(());
    }
    Err(match text.parse::<Invitation>() {
        Ok(_) => for_another("an invitation", "`cepa join`"),
        Err(_) => unknown(),
    })
}

/// The invitation that a short code stands for. The code is used up by that, but for who runs this again.
pub(crate) async fn invitation(
    code: &ShortCode,
    relay: &CodeRelay,
    identity: &Identity,
) -> Result<Invitation, Failure> {
    let text = fetch(code, relay, identity).await?;
    text.parse().map_err(|_| match text.parse::<Ticket>() {
        Ok(_) => for_another(
            "a ticket",
            "`cepa forward`, `connect`, `console`, `exec` or `cp`",
        ),
        Err(_) => unknown(),
    })
}

fn for_another(what: &str, commands: &str) -> Failure {
    let why = format!("the code leads to {what}: give the same code here to {commands}");
    Failure::new(Code::Usage, why)
}

fn unknown() -> Failure {
    let why = "the code leads to nothing that is known here: do both ends run the same version?";
    Failure::new(Code::Other, why)
}

/// What waits for the code, at the relay that is given, else at the default one.
async fn fetch(
    code: &ShortCode,
    relay: &CodeRelay,
    identity: &Identity,
) -> Result<Zeroizing<String>, Failure> {
    let relay = match &relay.relay {
        Some(relay) => relay.clone(),
        None => settings_file::read()?.relay.ok_or_else(|| {
            Failure::new(
                Code::Usage,
                "a short code needs the relay where it was made: give --relay cepa://RELAYID@ADDR, or set relay = \"cepa://RELAYID@ADDR\" in config.toml (`cepa config path`)",
            )
        })?,
    };
    if let Some(text) = redeemed::earlier(relay.peer(), code) {
        return Ok(text);
    }
    let (session, node) = reach::dial(&relay, identity, false, Keep::Not).await?;
    let fetched = code::fetch(&session, code).await;
    node.shutdown(Duration::ZERO).await;
    let bytes = fetched.map_err(|e| failure(&e))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| unknown())?;
    if let Err(e) = redeemed::keep(relay.peer(), code, text) {
        say(format_args!(
            "warning: cannot keep what the code leads to ({e}), so no command can use it again"
        ));
    }
    Ok(Zeroizing::new(text.to_owned()))
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

/// Somebody comes with the code and gets what this command has made; else why the command ends.
pub(crate) async fn give(offer: Offer, made: &str, command: &str) -> Result<(), Failure> {
    let Err(error) = offer.give(made.as_bytes()).await else {
        return Ok(());
    };
    let again = |code, why: &str| Failure::new(code, format!("{why}; run {command} again"));
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

/// Says that the code was used, and, if nothing comes of that for a while, what the other side can do. Never ends.
pub(crate) async fn used(commands: &str, is_over: impl Fn() -> bool) -> Infallible {
    say("the code was used");
    tokio::time::sleep(MOMENT).await;
    if !is_over() {
        say(format_args!(
            "the code was used, but nothing came of it yet: was it given to another command? There, the same code goes on for {commands}"
        ));
    }
    std::future::pending().await
}

fn failure(error: &CodeError) -> Failure {
    let code = match error {
        CodeError::Refused(_) => Code::Refused,
        CodeError::Open(_) | CodeError::Io(_) | CodeError::TimedOut => Code::Lost,
        _ => Code::Other,
    };
    Failure::of(code, error)
}
