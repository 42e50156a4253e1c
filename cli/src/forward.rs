//! `cepa forward`: local listeners whose connections become substreams, all over one session.
//!
//! The listeners are bound first, so that a taken port fails before anyone is dialled, but accept
//! only once the session stands. It ends with the session (exit code 6) or with a signal (0).

use std::sync::Arc;
use std::time::Duration;

use cepa::transports::{self, Listener, Stream};
use tokio::task::JoinSet;

use crate::args;
use crate::exit::{Failure, say};
use crate::id;
use crate::join::{Ended, Join};
use crate::link::Link;
use crate::log::{self, say_of};
use crate::signal::Signals;

/// Pause after a failed accept; what it lacks may come back.
const PAUSE: Duration = Duration::from_millis(500);

pub(crate) async fn run(args: args::Forward) -> Result<(), Failure> {
    let identity = id::load(&args.identity)?;
    let mut listeners = Vec::new();
    for local in &args.locals {
        listeners.push((
            transports::listen(&local.listen).await?,
            local.service.clone(),
        ));
    }
    let link = Arc::new(Link::to(&args.address, &args.trust, &identity).await?);
    let mut signals = Signals::watch();
    let mut tasks = JoinSet::new();
    for (listener, service) in listeners {
        say(format_args!(
            "listening on {} for {service} of {}",
            listener.endpoint(),
            link.session.peer().id()
        ));
        tasks.spawn(accept(listener, service, Arc::clone(&link)));
    }
    let result = tokio::select! {
        end = link.session.closed() => Err(Failure::from(end)),
        () = signals.asked_to_end() => Ok(()),
    };
    tasks.shutdown().await;
    link.close().await;
    result
}

async fn accept(mut listener: Listener, service: String, link: Arc<Link>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(Some(stream)) => {
                    let (service, link) = (service.clone(), Arc::clone(&link));
                    connections.spawn(async move { carry(stream, &service, &link).await });
                }
                Ok(None) => return,
                // Out of descriptors, or a connection that was gone again: others may follow.
                Err(e) => {
                    say(format_args!("{e}"));
                    tokio::time::sleep(PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection. Its errors are told and are its own.
async fn carry(mut near: Stream, service: &str, link: &Link) {
    let peer = link.session.peer().id();
    let mut far = match link.session.open(service).await {
        Ok(far) => far,
        Err(e) => return say_of(peer, format_args!("{}: {e}", near.label())),
    };
    match Join::new(&mut near, &mut far).end_with_near().run().await {
        Ended::Both { .. } => {}
        Ended::NearLeft(e) | Ended::Near(e) => {
            say_of(
                log::source(near.label()),
                format_args!("{}: connection lost: {e}", near.label()),
            );
        }
        Ended::Far(e) => say_of(
            peer,
            format_args!("{}: {service} ended abnormally: {e}", near.label()),
        ),
    }
}
