//! `cepa connect`: standard input and output joined to a service of a peer.

use std::io::{self, IsTerminal as _};

use cepa::mux::{StreamError, Substream};
use cepa::onion::Onion;
use cepa::transports::{self, Endpoint};

use crate::args::{self, Whither};
use crate::exit::{Code, Failure, say};
use crate::id;
use crate::join::{Ended, Join};
use crate::link::Link;

pub(crate) async fn run(args: args::Connect) -> Result<(), Failure> {
    let identity = id::load(&args.identity)?;
    let service = service(&args.address, &args.service)?;
    let (link, far) = match &args.address {
        Whither::Introduced(it) => {
            let (link, far) = Link::introduced(it, &args.trust, &identity).await?;
            (link, Some(far))
        }
        whither => (Link::to(whither, &args.trust, &identity).await?, None),
    };
    let result = joined(&link, &args, &service, far).await;
    if result.is_err() {
        link.close().await;
        return result;
    }
    // What was written must all leave, however slowly the service takes it.
    link.finish().await
}

/// The service, which an address of a peer may name as well.
pub(crate) fn service(address: &Whither, given: &str) -> Result<String, Failure> {
    let named = match address {
        Whither::Peer(address) => address.service(),
        Whither::Introduced(it) => it.address().map_or("", |address| address.service()),
        Whither::Place(_) => "",
    };
    if !named.is_empty() && !given.is_empty() && named != given {
        return Err(Failure::new(
            Code::Usage,
            format!("the address names the service {named} already: leave {given} out"),
        ));
    }
    let service = if named.is_empty() { given } else { named };
    Ok(service.to_owned())
}

async fn joined(
    link: &Link,
    args: &args::Connect,
    service: &str,
    opened: Option<Onion<Substream>>,
) -> Result<(), Failure> {
    let mut far = match opened {
        Some(far) => far,
        None => link.session.open(service).await?,
    };
    if args.trust.trust.is_some() {
        // Told once it has answered: an error would be all there is to say.
        say(format_args!(
            "peer {} (taken unchecked)",
            link.session.peer().id()
        ));
    }
    let stdio: Endpoint = "stdio:"
        .parse()
        .map_err(|e| Failure::new(Code::Other, format!("{e}")))?;
    // A person at a terminal has nothing more to say once the service has ended; a pipe may. Asked
    // now, for `stdio:` takes the descriptor away.
    let at_terminal = io::stdin().is_terminal();
    let mut near = transports::dial(&stdio).await?;
    let join = Join::new(&mut near, &mut far)
        .end_with_near()
        .end_with_far(at_terminal);
    match join.run().await {
        // A service may end and leave the rest of its input unread; a session that ends so has cut it.
        Ended::Both {
            far_left: Some(e), ..
        } if !reset_by_peer(&e) => Err(link
            .lost()
            .await
            .unwrap_or_else(|| Failure::new(Code::Lost, format!("input was cut off: {e}")))),
        Ended::Both { .. } => Ok(()),
        // The reader of standard output has what it wanted.
        Ended::NearLeft(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Ended::NearLeft(e) => Err(Failure::new(
            Code::Other,
            format!("cannot write to standard output: {e}"),
        )),
        Ended::Near(e) => Err(Failure::new(
            Code::Other,
            format!("cannot read standard input: {e}"),
        )),
        Ended::Far(e) => {
            let lost = if reset_by_peer(&e) {
                None
            } else {
                link.lost().await
            };
            Err(lost.unwrap_or_else(|| {
                Failure::new(
                    Code::Other,
                    format!(
                        "the service ended abnormally ({e}), so its output is incomplete; \
                         the server's log tells more"
                    ),
                )
            }))
        }
    }
}

/// Whether it was this substream alone that the other end dropped; the session goes on then.
pub(crate) fn reset_by_peer(e: &io::Error) -> bool {
    let cause = e.get_ref().and_then(|e| e.downcast_ref::<StreamError>());
    matches!(cause, Some(StreamError::ResetByPeer { .. }))
}
