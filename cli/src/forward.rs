//! `cepa forward`: local listeners whose connections become substreams, all over one session.
//!
//! The listeners are bound first, so that a taken port fails before anyone is dialled, but accept
//! only while a session stands: whoever comes when there is none waits in the system's queue, which has a
//! bound. It ends with the session (exit code 6), unless that is to be made again, or with a signal (0).
//!
//! Where both ends keep a session whose connection is lost, it goes on over the next one: who comes meanwhile waits for that, and
//! what is open notices a pause.
//!
//! A session may stand and take nothing more: the peer drains, or its numbers are used up. Where sessions are made again,
//! another one is made beside it then, and it ends behind its last connection.
//!
//! There may be thousands, and each waits for room at the peer for as long as its client does: nobody is turned away for
//! coming with many others. What a client sends meanwhile is read up to a bound, since only a read tells
//! that it has left. Each takes a descriptor, so at most so many are accepted as there are.
//!
//! A connection whose session was lost is reset, never ended: its program must not take what it has got for
//! all there is.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use cepa::mux::{GoAwayCode, Substream};
use cepa::onion::Onion;
use cepa::session::reserved::SOCKS_PREFIX;
use cepa::session::{OpenError, SessionEnd};
use cepa::transports::{Listener, Stream};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::args::{self, DialTarget};
use crate::behind_ssh;
use crate::called;
use crate::chosen;
use crate::client_ahead::{Ahead, connect, open};
use crate::connection::Connected;
use crate::control::{OfSessions, Sessions};
use crate::destination::Destination;
use crate::exit::{self, Code, Failure, say};
use crate::id;
use crate::keep;
use crate::linger::linger;
use crate::log::{self, say_once_a_minute};
use crate::offered;
use crate::reconnect::Reconnect;
use crate::remote;
use crate::remote_place::Remote;
use crate::say::Line;
use crate::short_code;
use crate::signal::Signals;
use crate::socks::{self, BadRequest, Reply};
use crate::splice::Join;
use crate::splice_end::{Closing, Ended, verdict};
use crate::stack;
use crate::standing::{Current, bind, next, place_in};
use crate::status_line::StatusLine;
use crate::values::Dynamic;
use crate::watched::Watched;

/// Pause after a failed accept; what it lacks may come back.
const PAUSE: Duration = Duration::from_millis(500);

/// How long a SOCKS client may take for its request, which it sends at once.
const ASKING: Duration = Duration::from_secs(30);

/// How long sessions may take to end in order behind the last.
const GOODBYE: Duration = Duration::from_secs(3);

/// What comes of the same Ctrl-C may come so much later.
const TOGETHER: Duration = Duration::from_millis(200);

pub(crate) async fn run(mut args: args::Forward) -> Result<(), Failure> {
    if let DialTarget::Peer(address) = &args.address
        && !address.service().is_empty()
    {
        let why = format!(
            "each -L names its service; leave /{} out of the address",
            address.service()
        );
        return Err(Failure::new(Code::Usage, why));
    }
    behind_ssh::forwarded(
        &mut args.address,
        &mut args.locals,
        &args.dynamics,
        &args.remotes,
    )?;
    let since = Instant::now();
    let identity = id::load(&args.dialling.identity)?;
    let mut listeners = Vec::new();
    let dynamics = args.dynamics.iter().map(|Dynamic(local)| (local, true));
    for (local, socks) in args.locals.iter().map(|it| (it, false)).chain(dynamics) {
        for listener in bind(&local.listen).await? {
            let service = local.service.clone();
            listeners.push((listener, Wanted { service, socks }));
        }
    }
    // The ports first: a code has one use.
    short_code::redeem(
        &mut args.address,
        &args.dialling.trust,
        &args.code_relay,
        &identity,
    )
    .await?;
    let mut again = Reconnect::new(&args.address, &args.dialling, &identity, None)
        .keeping(args.dialling.durable.keep(true));
    let mut connection = Arc::new(again.first(args.reconnect).await?);
    let sessions = Sessions::default();
    sessions.add(&connection);
    if args.dialling.durable.is_asked_for() {
        keep::warn_if_not(&connection.session);
    }
    for (_, wanted) in &mut listeners {
        wanted.service = chosen::service(&connection, &wanted.service).await?;
        if wanted.service.is_empty() {
            connection.close().await;
            let why = "the peer does not offer you one service alone, so -L needs its name: LISTEN=SERVICE, for example 5433=db; `cepa services ADDR` lists them";
            return Err(Failure::new(Code::Usage, why));
        }
    }
    let mut signals = Signals::watch();
    let wanted: Vec<_> = listeners.iter().map(|(_, it)| it.wanted()).collect();
    let checked = tokio::select! {
        checked = offered::check(&connection.session, &wanted) => checked,
        () = signals.asked_to_end() => {
            connection.close().await;
            return Ok(());
        }
    };
    let mut asked = Vec::new();
    let checked = match checked {
        Ok(()) => tokio::select! {
            checked = ask(&connection, &args.remotes, &mut asked) => checked,
            () = signals.asked_to_end() => {
                connection.close().await;
                return Ok(());
            }
        },
        failed => failed,
    };
    if let Err(failure) = checked {
        connection.close().await;
        return Err(failure.about(connection.session.peer().id()));
    }
    let (set, standing) = watch::channel(Some(Arc::clone(&connection)));
    let watched = Watched::open(&args.watching, || {
        let at = listeners.iter().map(|(it, _)| it.endpoint().to_string());
        Arc::new(OfSessions::new(
            "forward",
            since,
            identity.peer_id(),
            at.collect(),
            &sessions,
        ))
    });
    let watched = match watched.await {
        Ok(watched) => watched,
        Err(failure) => {
            connection.close().await;
            return Err(failure);
        }
    };
    let mut tasks = JoinSet::new();
    let room = Arc::new(Semaphore::new(stack::connections()));
    for (listener, wanted) in listeners {
        let (at, peer) = (listener.endpoint(), connection.session.peer().id());
        let service = &wanted.service;
        let kind = if wanted.socks { " (SOCKS 5)" } else { "" };
        let whom = called::called(&peer).unwrap_or_else(|| peer.to_string());
        let text = format_args!("listening on {at} for {service}{kind} of {whom}");
        let line = Line::from(text)
            .with("address", at)
            .with("service", service);
        say(line.with("peer", peer).bare());
        let carrying = Carrying {
            wanted,
            standing: standing.clone(),
            again: args.reconnect,
        };
        tasks.spawn(accept(listener, carrying, Arc::clone(&room)));
    }
    let mut remotes = JoinSet::new();
    for (remote, listening) in asked {
        let (connection, room) = (Arc::clone(&connection), Arc::clone(&room));
        remotes.spawn(remote::carry(
            remote,
            listening,
            connection,
            standing.clone(),
            room,
        ));
    }
    let status = StatusLine::show(standing.clone(), Arc::clone(&room));
    let peer = connection.session.peer().id();
    let notify = |line: &str| say(Line::from(line).with("peer", peer));
    // Sessions that take nothing more, each until it is over.
    let mut old = JoinSet::new();
    let result = loop {
        let end = tokio::select! {
            end = over(&connection, args.reconnect) => end,
            Some(_) = old.join_next() => continue,
            Some(failed) = remotes.join_next() => {
                let failed = exit::joined(failed.map(Err)).and_then(|failed| failed);
                break failed.map_err(|failure| failure.about(peer));
            }
            () = signals.asked_to_end() => break Ok(()),
        };
        let Some(end) = end else {
            set.send_replace(None);
            let spent = Arc::clone(&connection);
            old.spawn(async move {
                spent.session.closed().await;
                spent.close().await;
            });
            let fresh = tokio::select! {
                fresh = again.beside(notify) => fresh,
                () = signals.asked_to_end() => break Ok(()),
            };
            match fresh {
                Ok(fresh) => connection = Arc::new(fresh),
                Err(failure) => break Err(failure),
            }
            sessions.add(&connection);
            set.send_replace(Some(Arc::clone(&connection)));
            continue;
        };
        // Nothing was open in a session that was closed for that, so nothing is lost by another one.
        let idle = matches!(
            end,
            SessionEnd::GoneAway {
                code: GoAwayCode::Idle
            }
        );
        // Ctrl-C is for the command that leads to the peer, too, and that may be quicker.
        if timeout(TOGETHER, signals.asked_to_end()).await.is_ok() {
            break Ok(());
        }
        let end = Failure::from(end).about(peer);
        if !args.reconnect && !idle {
            break Err(end.with_reconnect());
        }
        set.send_replace(None);
        let fresh = tokio::select! {
            fresh = again.after(&connection, end, notify) => fresh,
            () = signals.asked_to_end() => break Ok(()),
        };
        match fresh {
            Ok(fresh) => connection = Arc::new(fresh),
            Err(failure) => break Err(failure),
        }
        sessions.add(&connection);
        set.send_replace(Some(Arc::clone(&connection)));
    };
    drop(status);
    watched.close().await;
    tasks.shutdown().await;
    remotes.shutdown().await;
    connection.close().await;
    // Nothing is open in them any more.
    while let Ok(Some(_)) = timeout(GOODBYE, old.join_next()).await {}
    result
}

/// Has the peer listen.
async fn ask(
    connection: &Connected,
    remotes: &[Remote],
    asked: &mut Vec<(Remote, remote::Listening)>,
) -> Result<(), Failure> {
    for remote in remotes {
        let listening = remote::ask(&connection.session, remote).await?;
        asked.push((remote.clone(), listening));
    }
    Ok(())
}

/// How the session ended; `None` where it takes nothing more, and what is open in it goes on. Asked for that only where
/// another one can be made.
async fn over(connection: &Connected, again: bool) -> Option<SessionEnd> {
    if !again {
        return Some(connection.session.closed().await);
    }
    connection.session.spent().await;
    connection.session.retire().await
}

/// What the connections of one listener are for.
#[derive(Clone)]
struct Wanted {
    service: String,
    /// Each says itself where it wants to be connected, and the service does that.
    socks: bool,
}

impl Wanted {
    fn wanted(&self) -> offered::Wanted<'_> {
        offered::Wanted {
            name: &self.service,
            socks: self.socks,
        }
    }
}

/// What is common to the connections of one listener.
#[derive(Clone)]
struct Carrying {
    wanted: Wanted,
    standing: Current,
    /// Whether a session that takes nothing more is followed by another one.
    again: bool,
}

async fn accept(mut listener: Listener, carrying: Carrying, room: Arc<Semaphore>) {
    let mut standing = carrying.standing.clone();
    let mut connections = JoinSet::new();
    loop {
        let connection = standing.borrow_and_update().clone();
        tokio::select! {
            changed = standing.changed() => if changed.is_err() {
                return;
            },
            accepted = listener.accept(), if connection.is_some() => match (accepted, connection) {
                (Ok(Some(stream)), Some(connection)) => {
                    let (carrying, place) = (carrying.clone(), place_in(&room).await);
                    connections.spawn(async move {
                        carry(stream, connection, carrying).await;
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

/// One connection. Its errors are told and are its own.
async fn carry(mut near: Stream, mut connection: Arc<Connected>, carrying: Carrying) {
    let Carrying {
        wanted,
        mut standing,
        again,
    } = carrying;
    let tell_own = |near: &Stream, kind: fmt::Arguments<'_>| {
        let from = log::source(near.remote().into(), near.label());
        say_once_a_minute(from, kind, format_args!("{}: {kind}", near.label()));
    };
    near.cut_when_dropped(true);
    let destination = match ask_for_destination(&mut near, wanted.socks).await {
        Ok(destination) => destination,
        Err(e) => {
            // What it was answered is still to be read.
            near.cut_when_dropped(false);
            return tell_own(&near, format_args!("a SOCKS client: {e}"));
        }
    };
    let service = match &destination {
        Some(_) => format!("{SOCKS_PREFIX}{}", wanted.service),
        None => wanted.service.clone(),
    };
    let peer = connection.session.peer().id();
    let mut ahead = Ahead::default();
    let mut far = loop {
        // Where the next session would do as well, it may not when this one has been told what for.
        let early = !again || connection.session.outlives_connections();
        let to = destination.as_ref();
        match open(&mut near, &service, &connection, &mut ahead, to, early).await {
            Ok(Some(far)) => break far,
            // Its client did not wait.
            Ok(None) => return,
            // It ended as the connection came, or takes nothing more; nothing of this was served, so the next one will do as
            // well.
            Err(e)
                if (matches!(e, OpenError::Session(_)) || (again && e.needs_new_session()))
                    && ahead.can_be_sent_again(&e) =>
            {
                ahead.sent = 0;
                match next(&mut standing, &connection).await {
                    Some(next) => connection = next,
                    None => return,
                }
            }
            Err(e) => {
                if destination.is_some() && socks::reply(&mut near, Reply::Failed).await.is_ok() {
                    near.cut_when_dropped(false);
                }
                let kind = Failure::from(e).message;
                let line = format_args!("{}: {kind}", near.label());
                return say_once_a_minute(peer, &kind, line);
            }
        }
    };
    if let Some(to) = &destination {
        match connect(&mut near, &mut far, &mut ahead).await {
            Some(Ok(Reply::Connected)) => {}
            Some(Ok(reply)) => {
                near.cut_when_dropped(false);
                let kind = format_args!("{}: {to}: {reply}", wanted.service);
                return say_once_a_minute(peer, kind, format_args!("{}: {kind}", near.label()));
            }
            Some(Err(e)) => {
                let kind = format_args!("{}: {to}: the peer did not answer: {e}", wanted.service);
                return say_once_a_minute(peer, kind, format_args!("{}: {kind}", near.label()));
            }
            // Its client did not wait.
            None => return,
        }
    }
    let service = wanted.service.as_str();
    // It is less than a first window, so this waits for nobody. An error is read again by who reads.
    let _ = far.write_all(ahead.unsent()).await;
    let _ = far.flush().await;
    let mut join = Join::new(&mut near, &mut far).end_with_near();
    let ended = join.run().await;
    let passed = join.near_end_passed();
    // A reset would take back what is on its way to it.
    if verdict(&ended).near != Closing::Cut {
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
                tell_own(&near, format_args!("{service}: connection lost: {e}"));
            }
            drop(near);
            // Neither one that says nothing nor one that says too much holds it for ever.
            let left = |far: &mut Onion<Substream>, cx: &mut Context<'_>| {
                far.wire_mut().poll_drained(cx).map(|_| ())
            };
            if passed && !linger(&mut far, left).await {
                far.wire_mut().reset(0);
            }
        }
        Ended::Far(e) => {
            let kind = format_args!("{service} ended abnormally: {e}");
            say_once_a_minute(peer, kind, format_args!("{}: {kind}", near.label()));
        }
    }
}

/// What a SOCKS client wants; nothing of another one is read.
async fn ask_for_destination(
    near: &mut Stream,
    socks: bool,
) -> Result<Option<Destination>, BadRequest> {
    if !socks {
        return Ok(None);
    }
    let late = |_| BadRequest::Not("it has not said in time where it wants to be connected");
    let asked = timeout(ASKING, socks::request(near)).await;
    asked.map_err(late)?.map(Some)
}
