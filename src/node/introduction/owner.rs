//! The owner's side: judging what is shown, and admitting to the one service that it is for.
//!
//! The substream on which an introduction was shown is the one that is admitted: behind the verdict it carries the
//! header of the service. So a use is a substream, and no permission stays behind that would have to be taken back.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::identity::{PeerId, UnixTime};
use crate::node::call::{Call, Path};
use crate::node::core::{Core, Service};
use crate::node::event::Event;
use crate::relay::{fault, receive, send};
use crate::session::{Incoming, Session};

use super::flaw::Flaw;
use super::statement::Introduction;
use super::wire::{Present, Verdict, Wish};

/// Time for a peer to show what it has.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves one substream on which an introduction is shown, to its end.
pub(in crate::node) async fn serve(
    core: &Arc<Core>,
    incoming: Incoming,
    session: Session,
    path: Path,
) {
    let peer = incoming.peer().id();
    let Ok(mut stream) = incoming.accept().await else {
        return;
    };
    let shown = match timeout(PATIENCE, receive::<Present>(&mut stream)).await {
        Ok(Ok(present)) => judge(core, peer, &present),
        Ok(Err(error)) => match fault(&error) {
            Some(why) => Err((String::new(), Flaw::Malformed(why))),
            None => return,
        },
        Err(_) => return,
    };
    let (verdict, admitted) = match shown {
        Ok(admitted) => (Ok(()), Some(admitted)),
        Err((service, flaw)) => {
            core.tell(Event::Refused(peer, service, flaw.to_string()));
            (Err(flaw), None)
        }
    };
    let said = timeout(PATIENCE, send(&mut stream, &Verdict::of(&verdict))).await;
    let Some(admitted) = admitted.filter(|_| matches!(said, Ok(Ok(())))) else {
        part(stream).await;
        return;
    };
    let (name, by) = (admitted.name, admitted.by);
    let Some(service) = admitted.service else {
        core.tell(Event::Revoked(peer, name));
        part(stream).await;
        return;
    };
    let Some(incoming) = session.accept_on(stream).await else {
        return;
    };
    core.tell(Event::Introduced(peer, name.clone(), by.clone()));
    if incoming.service() != name {
        let _ = incoming
            .refuse("the introduction is for another service")
            .await;
        return;
    }
    (service.handler)(Call::new(incoming, session, path).introduced(by)).await;
}

/// Ends our direction, and leaves it to the peer to read why: a reset could overtake the answer.
async fn part(mut stream: crate::onion::Onion<crate::mux::Substream>) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let _ = timeout(PATIENCE, async {
        stream.shutdown().await?;
        let mut scratch = [0; 256];
        while stream.read(&mut scratch).await? > 0 {}
        std::io::Result::Ok(())
    })
    .await;
}

struct Admitted {
    name: String,
    by: Vec<PeerId>,
    /// None where something was taken back.
    service: Option<Service>,
}

/// What a peer shows, or the service that it is about and what is wrong with it.
fn judge(core: &Core, peer: PeerId, present: &Present) -> Result<Admitted, (String, Flaw)> {
    let nameless = |flaw| (String::new(), flaw);
    let introduction = Introduction::from_bytes(present.introduction()).map_err(nameless)?;
    let wish = present.wish().map_err(nameless)?;
    let name = introduction.address().map(|a| a.service().to_owned());
    let name = name.unwrap_or_default();
    let service = check(core, &introduction, &name, peer, wish);
    match service {
        Ok(service) => Ok(Admitted {
            name,
            by: introduction.issuers(),
            service,
        }),
        Err(flaw) => Err((name, flaw)),
    }
}

/// The steps in their order; the last one counts the use.
fn check(
    core: &Core,
    introduction: &Introduction,
    name: &str,
    peer: PeerId,
    wish: Wish,
) -> Result<Option<Service>, Flaw> {
    let Some(owner) = introduction
        .address()
        .map(crate::node::addr::PeerAddr::peer)
    else {
        return Err(Flaw::Malformed("it has no links".into()));
    };
    if owner != core.id {
        return Err(Flaw::WrongOwner { owner });
    }
    introduction.hangs_together()?;
    introduction.is_signed()?;
    let first = introduction.issuers().first().copied();
    let issuer = first.filter(|first| *first != core.id);
    if let Some(issuer) = issuer.filter(|issuer| !core.may_introduce(name, issuer)) {
        return Err(Flaw::NotPermitted { issuer });
    }
    let now = UnixTime::now();
    if wish == Wish::Revoke {
        core.book().revoke(introduction, peer, now)?;
        return Ok(None);
    }
    let service = core.service(name).ok_or(Flaw::NoService)?;
    core.book().admit(introduction, peer, now)?;
    Ok(Some(service))
}
