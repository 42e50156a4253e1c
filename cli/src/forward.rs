//! `cepa forward`: local listeners whose connections become substreams, all over one session.
//!
//! The listeners are bound first, so that a taken port fails before anyone is dialled, but accept
//! only while a session stands: whoever comes when there is none waits in the system's queue, which has a
//! bound. It ends with the session (exit code 6), unless that is to be made again, or with a signal (0).
//!
//! There may be thousands, and each waits for room at the peer for as long as its client does: nobody is turned away for
//! coming with many others. What a client sends meanwhile is read up to a bound, since only a read tells
//! that it has left. Each takes a descriptor, so at most so many are accepted as there are.
//!
//! A connection whose session was lost is reset, never ended: its program must not take what it has got for
//! all there is.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use cepa::mux::{GoAwayCode, StreamTimeouts, Substream};
use cepa::onion::Onion;
use cepa::session::{OpenError, OpenOptions, SessionEnd};
use cepa::transports::{self, Listener, Stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::again::Again;
use crate::args::{self, Whither};
use crate::exit::{Code, Failure, say};
use crate::id;
use crate::join::{Join, linger};
use crate::link::Link;
use crate::log::{self, say_once_a_minute};
use crate::signal::Signals;
use crate::splice::{Ended, Told, verdict};
use crate::stack;

/// Pause after a failed accept; what it lacks may come back.
const PAUSE: Duration = Duration::from_millis(500);

/// How much of a client is read before its service is open.
const AHEAD: usize = 1024;

/// After so long it is told that a connection waits.
const LONG: Duration = Duration::from_secs(10);

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
    let mut link = Arc::new(again.first(args.reconnect).await?);
    let (set, standing) = watch::channel(Some(Arc::clone(&link)));
    let mut signals = Signals::watch();
    let mut tasks = JoinSet::new();
    let room = Arc::new(Semaphore::new(stack::connections()));
    for (listener, service) in listeners {
        say(format_args!(
            "listening on {} for {service} of {}",
            listener.endpoint(),
            link.session.peer().id()
        ));
        tasks.spawn(accept(
            listener,
            service,
            standing.clone(),
            Arc::clone(&room),
        ));
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
            fresh = again.after(&link, end, |line| say(line)) => fresh,
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

async fn accept(
    mut listener: Listener,
    service: String,
    mut standing: Standing,
    room: Arc<Semaphore>,
) {
    let mut connections = JoinSet::new();
    loop {
        let link = standing.borrow_and_update().clone();
        tokio::select! {
            changed = standing.changed() => if changed.is_err() {
                return;
            },
            accepted = listener.accept(), if link.is_some() => match (accepted, link) {
                (Ok(Some(stream)), Some(link)) => {
                    let (service, place) = (service.clone(), place_in(&room).await);
                    let standing = standing.clone();
                    connections.spawn(async move {
                        carry(stream, &service, link, standing).await;
                        drop(place);
                    });
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

/// A place for one connection more; while there is none, who comes waits in the system's queue.
async fn place_in(room: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    if let Ok(place) = Arc::clone(room).try_acquire_owned() {
        return Some(place);
    }
    let kind = format!(
        "{} connections are open, which is what this process may open (ulimit -n): others wait",
        stack::connections()
    );
    say_once_a_minute("forward", &kind, &kind);
    // It is never closed.
    Arc::clone(room).acquire_owned().await.ok()
}

/// The session that comes after this one; none if the command ends.
async fn next(standing: &mut Standing, gone: &Arc<Link>) -> Option<Arc<Link>> {
    loop {
        let now = standing.borrow_and_update().clone();
        if let Some(link) = now.filter(|link| !Arc::ptr_eq(link, gone)) {
            return Some(link);
        }
        standing.changed().await.ok()?;
    }
}

/// One connection. Its errors are told and are its own.
async fn carry(mut near: Stream, service: &str, mut link: Arc<Link>, mut standing: Standing) {
    near.cut_when_dropped(true);
    let peer = link.session.peer().id();
    let mut ahead = Vec::new();
    let mut far = loop {
        match open(&mut near, service, &link, &mut ahead).await {
            Ok(Some(far)) => break far,
            // Its client did not wait.
            Ok(None) => return,
            // It ended as the connection came; nothing of that was served, so the next one will do as well.
            Err(e) if e.needs_new_session() => match next(&mut standing, &link).await {
                Some(next) => link = next,
                None => return,
            },
            Err(e) => {
                let line = format_args!("{}: {e}", near.label());
                return say_once_a_minute(peer, &e, line);
            }
        }
    };
    let mut join = Join::new(&mut near, &mut far).end_with_near();
    let ended = join.run().await;
    let passed = join.near_end_passed();
    // A reset would take back what is on its way to it.
    if verdict(&ended).near != Told::Cut {
        near.cut_when_dropped(false);
    }
    match ended {
        Ended::Both { .. } => {
            drop(near);
            // What is queued still leaves, however slowly the service takes it.
            let _ = far.wire_mut().drained(None).await;
        }
        Ended::NearLeft(e) | Ended::Near(e) => {
            // Who closes a Unix socket in order has gone in both directions at once.
            if !(passed && e.kind() == io::ErrorKind::BrokenPipe) {
                let kind = format_args!("{service}: connection lost: {e}");
                say_once_a_minute(
                    log::source(near.remote().into(), near.label()),
                    kind,
                    format_args!("{}: {kind}", near.label()),
                );
            }
            drop(near);
            // One that says nothing does not hold it for ever.
            if passed && !linger(&mut far).await {
                far.wire_mut().reset(0);
            }
        }
        Ended::Far(e) => {
            let kind = format_args!("{service} ended abnormally: {e}");
            say_once_a_minute(peer, kind, format_args!("{}: {kind}", near.label()));
        }
    }
}

/// Opens the service for a client, and gives it what that has sent meanwhile, `ahead`; `None` when the client has left.
async fn open(
    near: &mut Stream,
    service: &str,
    link: &Link,
    ahead: &mut Vec<u8>,
) -> Result<Option<Onion<Substream>>, OpenError> {
    // The client leaves when it takes too long, and the session's keepalive finds out whether the peer lives.
    let as_long_as_it_takes = OpenOptions::new()
        .timeouts(StreamTimeouts::NONE)
        .patience(Duration::MAX);
    let opening = link.session.open_with(service, &as_long_as_it_takes);
    tokio::pin!(opening);
    let late = tokio::time::sleep(LONG);
    tokio::pin!(late);
    let (mut listens, mut waits) = (ahead.len() < AHEAD, false);
    let mut far = loop {
        let room = AHEAD.saturating_sub(ahead.len());
        let mut more = (&mut *near).take(room as u64);
        tokio::select! {
            far = &mut opening => break far?,
            read = more.read_buf(ahead), if listens => match read {
                Ok(0) => listens = false,
                Ok(_) => listens = ahead.len() < AHEAD,
                Err(_) => return Ok(None),
            },
            () = &mut late, if !waits => {
                waits = true;
                let peer = link.session.peer().id();
                let kind = format_args!("{service}: a connection waits: the peer has not answered, perhaps as many are open there as it takes");
                say_once_a_minute(peer, kind, kind);
            }
        }
    };
    if !ahead.is_empty() {
        // It is less than a first window, so this waits for nobody. An error is read again by who reads.
        let _ = far.write_all(ahead).await;
        let _ = far.flush().await;
    }
    Ok(Some(far))
}
