//! `cepa forward`: local listeners whose connections become substreams, all over one session.
//!
//! The listeners are bound first, so that a taken port fails before anyone is dialled, but accept
//! only while a session stands: whoever comes when there is none waits in the system's queue, which has a
//! bound. It ends with the session (exit code 6), unless that is to be made again, or with a signal (0).
//!
//! A connection whose session was lost is reset, never ended: its program must not take what it has got for
//! all there is.

use std::sync::Arc;
use std::time::Duration;

use cepa::mux::GoAwayCode;
use cepa::session::SessionEnd;
use cepa::transports::{self, Listener, Stream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::again::Again;
use crate::args::{self, Whither};
use crate::exit::{Code, Failure, say};
use crate::id;
use crate::join::{Ended, Join};
use crate::link::Link;
use crate::log::{self, say_of};
use crate::signal::Signals;

/// Pause after a failed accept; what it lacks may come back.
const PAUSE: Duration = Duration::from_millis(500);

pub(crate) async fn run(args: args::Forward) -> Result<(), Failure> {
    if let Whither::Peer(address) = &args.address
        && !address.service().is_empty()
    {
        let why = format!(
            "each -L names its service: leave /{} out of the address",
            address.service()
        );
        return Err(Failure::new(Code::Usage, why));
    }
    let identity = id::load(&args.identity)?;
    let mut listeners = Vec::new();
    for local in &args.locals {
        listeners.push((
            transports::listen(&local.listen).await?,
            local.service.clone(),
        ));
    }
    let mut again = Again::new(&args.address, &args.trust, &identity, None)
        .with_local_hints(args.local_hints.allowed);
    let mut link = Arc::new(again.first().await?);
    let (set, standing) = watch::channel(Some(Arc::clone(&link)));
    let mut signals = Signals::watch();
    let mut tasks = JoinSet::new();
    for (listener, service) in listeners {
        say(format_args!(
            "listening on {} for {service} of {}",
            listener.endpoint(),
            link.session.peer().id()
        ));
        tasks.spawn(accept(listener, service, standing.clone()));
    }
    let result = loop {
        let end = tokio::select! {
            end = link.session.closed() => end,
            () = signals.asked_to_end() => break Ok(()),
        };
        // Nothing was open in a session that was closed for that, so nothing is lost by another one.
        let idle = matches!(
            end,
            SessionEnd::GoneAway {
                code: GoAwayCode::Idle
            }
        );
        let end = Failure::from(end);
        if !args.reconnect && !idle {
            break Err(end);
        }
        set.send_replace(None);
        let fresh = tokio::select! {
            fresh = again.after(&link, &end, |line| say(line)) => fresh,
            () = signals.asked_to_end() => break Ok(()),
        };
        match fresh {
            Ok(fresh) => link = Arc::new(fresh),
            Err(failure) => break Err(failure),
        }
        set.send_replace(Some(Arc::clone(&link)));
    };
    tasks.shutdown().await;
    link.close().await;
    result
}

/// The session that connections go over; none while it is being made again.
type Standing = watch::Receiver<Option<Arc<Link>>>;

async fn accept(mut listener: Listener, service: String, mut standing: Standing) {
    let mut connections = JoinSet::new();
    loop {
        let link = standing.borrow_and_update().clone();
        tokio::select! {
            changed = standing.changed() => if changed.is_err() {
                return;
            },
            accepted = listener.accept(), if link.is_some() => match (accepted, link) {
                (Ok(Some(stream)), Some(link)) => {
                    let service = service.clone();
                    connections.spawn(async move { carry(stream, &service, &link).await });
                }
                // Out of descriptors, or a connection that was gone again: others may follow.
                (Err(e), _) => {
                    say(format_args!("{e}"));
                    tokio::time::sleep(PAUSE).await;
                }
                (Ok(_), _) => return,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection. Its errors are told and are its own.
async fn carry(mut near: Stream, service: &str, link: &Link) {
    near.cut_when_dropped(true);
    let peer = link.session.peer().id();
    let mut far = match link.session.open(service).await {
        Ok(far) => far,
        Err(e) => return say_of(peer, format_args!("{}: {e}", near.label())),
    };
    match Join::new(&mut near, &mut far).end_with_near().run().await {
        Ended::Both { .. } => near.cut_when_dropped(false),
        Ended::NearLeft(e) | Ended::Near(e) => {
            say_of(
                log::source(near.remote().into(), near.label()),
                format_args!("{}: connection lost: {e}", near.label()),
            );
        }
        Ended::Far(e) => say_of(
            peer,
            format_args!("{}: {service} ended abnormally: {e}", near.label()),
        ),
    }
}
