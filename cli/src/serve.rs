//! `cepa serve`: listeners, the sessions that come from them, and the services those open.
//!
//! TCP and Unix sockets bring many streams, each with a session in a task of its own. The other
//! transports are one line with one peer at its end: the next session begins when the last is over.
//! Whatever happens to a session is told on standard error and stays in its task.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use cepa::Side;
use cepa::gate::{Gate, Pass, Source};
use cepa::identity::{AcceptAny, Identity, PeerId, Pinned, Refusal, TrustPolicy};
use cepa::node::{Access, Call, Node};
use cepa::session::{Backoff, ConnectError, Session};
use cepa::stack::StackConfig;
use cepa::tls::{TlsConfig, TlsError};
use cepa::transports::{self, Endpoint, Listener, Stream, Target};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::args::{self, Service};
use crate::child::Watched;
use crate::exit::{self, Code, Failure, say};
use crate::id;
use crate::log;
use crate::service::Services;
use crate::signal::Signals;
use crate::stack::{self, carries_session};
use crate::{node, sealed, trust};

/// How long sessions may take to end in order once the server was asked to.
const GOODBYE: Duration = Duration::from_secs(3);
/// Pause after a failed session on a line that has only one: noise must not make us spin.
const PAUSE: Duration = Duration::from_millis(500);

/// Sessions at once. Each may use the mux's receive budget (64 MiB), whoever the peer is.
const SESSIONS: usize = 256;

pub(crate) async fn run(args: args::Serve) -> Result<(), Failure> {
    check(&args)?;
    let (identity, more) = id::load_all(&args.identities)?;
    // Before anything is begun: a relay without an address could be found, but not be told to anybody.
    let reachable = id::through(identity.peer_id(), &args.register)?;
    let introduced = Introduced::new(&args)?;
    let (trust, pins) = match &introduced {
        // Strangers may have a session; what they may open is each service's own question.
        Some(_) => (Arc::new(AcceptAny) as Arc<dyn TrustPolicy>, Vec::new()),
        None => (trust::of_server(&args.allow)?, trust::pins(&args.allow)),
    };
    let node = (introduced.is_some() || args.sealed || !args.register.is_empty())
        .then(|| Node::new(node::config(&identity, Arc::clone(&trust))));
    let mut server = Server::new((&identity, &more), trust, pins, args.services, true)?;
    if let Some(node) = &node {
        server.offer(node, introduced.as_ref());
    }
    if let (true, Some(node)) = (args.sealed, &node) {
        let senders = trust::access(&args.allow)?;
        for service in server.services.all() {
            sealed::serve(node, service, senders.clone());
        }
    }
    if introduced.is_some() || args.sealed {
        server.node.clone_from(&node);
    }
    let server = Arc::new(server);
    let mut listeners = Vec::new();
    for endpoint in &args.listen {
        listeners.push(transports::listen(endpoint).await?);
    }
    let mut signals = Signals::watch();
    for listener in &listeners {
        say(format_args!(
            "listening on {} as {}",
            listener.endpoint(),
            identity.peer_id()
        ));
        listener.remarks().iter().for_each(say);
    }
    for other in &more {
        say(format_args!(
            "also as {}, for who asks for it",
            other.peer_id()
        ));
    }
    if args.allow.is_empty() && introduced.is_none() {
        say(
            "nobody is allowed yet: give --allow PEERID, or --allow any; whoever is refused is shown here",
        );
    }
    let (stop, stopping) = watch::channel(false);
    let mut tasks = JoinSet::new();
    if let Some(node) = node {
        node::register(&node, &args.register).await?;
        node::tell(&node);
        for address in reachable {
            say(format_args!("reachable at {address}"));
        }
        let mut stopping = stopping.clone();
        tasks.spawn(async move {
            stopped(&mut stopping).await;
            node.shutdown(GOODBYE).await;
            Ok(())
        });
    }
    for listener in listeners {
        tasks.spawn(Arc::clone(&server).listen(listener, stopping.clone()));
    }
    let mut result = Ok(());
    loop {
        tokio::select! {
            // Listeners of one stream end with it, and the command with the last of them.
            ended = tasks.join_next() => match ended {
                Some(Ok(Err(failure))) => {
                    if !tasks.is_empty() {
                        say(format_args!("cepa: {failure}"));
                    }
                    result = result.and(Err(failure));
                }
                Some(_) => {}
                None => break,
            },
            () = signals.asked_to_end() => {
                let _ = stop.send(true);
                let _ = tokio::time::timeout(GOODBYE, async {
                    while tasks.join_next().await.is_some() {}
                }).await;
                result = Ok(());
                break;
            }
        }
    }
    // Peers whose services were offered here as our own.
    server.far.shutdown(GOODBYE).await;
    result
}

/// What clap cannot see: addresses that a server has no use for, and names given twice.
fn check(args: &args::Serve) -> Result<(), Failure> {
    let usage = |message: String| Err(Failure::new(Code::Usage, message));
    for endpoint in &args.listen {
        if matches!(endpoint.target(), Target::Memory { .. }) {
            return usage(format!(
                "{endpoint}: nobody outside this process can reach memory:"
            ));
        }
        carries_session(endpoint)?;
    }
    let mut names = HashSet::new();
    for service in &args.services {
        if !names.insert(&service.name) {
            return usage(format!(
                "two services are named {}; give each a name of its own",
                service.name
            ));
        }
    }
    Ok(())
}

/// Who may open the services in their own right, and who may introduce others to them.
struct Introduced {
    allowed: Access,
    introducers: Access,
}

impl Introduced {
    /// `None` where nobody is introduced. Names are looked up once.
    fn new(args: &args::Serve) -> Result<Option<Self>, Failure> {
        if args.introducers.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self {
            allowed: trust::access(&args.allow)?,
            introducers: trust::access(&args.introducers)?,
        }))
    }
}

/// What all listeners and sessions share.
#[derive(Debug)]
pub(crate) struct Server {
    config: StackConfig,
    services: Arc<Services>,
    /// Reaches the peers whose services are offered here as our own. Nobody can reach it.
    far: Node,
    gate: Gate,
    sessions: Arc<Semaphore>,
    /// Who decides about substreams, where strangers have sessions, or not all are for services.
    node: Option<Node>,
    /// The ids that were named, where only such are let in.
    pins: Vec<PeerId>,
    /// Sessions are told on standard error.
    tell: bool,
}

impl Server {
    pub(crate) fn new(
        (identity, more): (&Identity, &[Identity]),
        trust: Arc<dyn TrustPolicy>,
        pins: Vec<PeerId>,
        services: Vec<Service>,
        tell: bool,
    ) -> Result<Self, Failure> {
        let inner = TlsConfig::new(identity, Arc::clone(&trust))?.with_more_identities(more)?;
        let mut config = stack::of(identity, trust);
        config.more_identities = more.to_vec();
        for service in &services {
            service.leads_elsewhere(identity.peer_id())?;
        }
        let far = Node::new(node::config(identity, Arc::new(Pinned::new([]))));
        Ok(Self {
            config,
            services: Services::new(services, inner, far.clone()),
            far,
            gate: Gate::default(),
            sessions: Arc::new(Semaphore::new(SESSIONS)),
            node: None,
            pins,
            tell,
        })
    }

    /// Has the node offer the services: to whoever is introduced, and to whoever comes through relays.
    fn offer(&self, node: &Node, introduced: Option<&Introduced>) {
        let services = Arc::clone(&self.services);
        let serve = move |call: Call| {
            let session = call.session().clone();
            Arc::clone(&services).serve(call.into_incoming(), session)
        };
        // Without introductions whoever has a session is allowed; and the services tell apart what is asked for.
        let Some(introduced) = introduced else {
            return node.serve_rest(Access::Anyone, serve);
        };
        for name in self.services.names() {
            node.introducers(name, introduced.introducers.clone());
            node.serve(name, introduced.allowed.clone(), serve.clone());
        }
        node.serve_rest(introduced.allowed.clone(), serve);
    }

    /// Serves all that a listener brings; ends when it brings no more, or when asked to stop. The
    /// error is that of the last session, where the listener is a line with only one.
    pub(crate) async fn listen(
        self: Arc<Self>,
        mut listener: Listener,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), Failure> {
        let endpoint = listener.endpoint().clone();
        let many = endpoint.accepts_many();
        let mut sessions = JoinSet::new();
        let mut last = Ok(());
        let mut absent: Option<Backoff> = None;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = sessions.join_next() => continue,
                () = stopped(&mut stop) => break,
            };
            let stream = match accepted {
                Ok(Some(stream)) => stream,
                Ok(None) => break,
                // Out of descriptors, or a connection that was gone again: others may follow.
                Err(e) if many => {
                    self.say(format_args!("{e}"));
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                // An adapter that was unplugged comes back, by a path under by-id the same one.
                Err(e) if endpoint.is_line() => {
                    if absent.is_none() {
                        self.say(format_args!("{e}; waiting for it to come back"));
                    }
                    let backoff = absent.get_or_insert_with(|| Backoff::for_endpoint(&endpoint));
                    tokio::select! {
                        () = tokio::time::sleep(backoff.pause()) => continue,
                        () = stopped(&mut stop) => break,
                    }
                }
                Err(e) => return Err(e.into()),
            };
            if absent.take().is_some() {
                self.say(format_args!("{endpoint} is back"));
                for remark in listener.remarks() {
                    self.say(format_args!("{remark}"));
                }
            }
            let session = Arc::clone(&self).session(stream, endpoint.clone(), stop.clone());
            if many {
                sessions.spawn(session);
            } else {
                last = session.await;
                if last.is_err() && endpoint.is_line() {
                    tokio::select! {
                        () = tokio::time::sleep(PAUSE) => {}
                        () = stopped(&mut stop) => break,
                    }
                }
            }
        }
        while sessions.join_next().await.is_some() {}
        last
    }

    /// One stream, from its handshake to the end of its session.
    async fn session(
        self: Arc<Self>,
        mut stream: Stream,
        at: Endpoint,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), Failure> {
        let from = stream.label().to_owned();
        let source = Source::from(stream.remote());
        let turned = |why: &dyn std::fmt::Display| {
            self.say_of(
                log::source(source, &from),
                format_args!("turned {from} away: {why}"),
            );
        };
        let pass = match self.gate.enter(source) {
            Ok(pass) => pass,
            Err(why) => {
                turned(&why);
                return Ok(());
            }
        };
        let Ok(_place) = Arc::clone(&self.sessions).try_acquire_owned() else {
            turned(&"too many sessions at once");
            return Ok(());
        };
        // Of `serve exec:…`: shown, and killed with the session.
        let child = stream.take_child();
        let _child = child.map(|child| Watched::start(child, "peer".to_owned()));
        let config = self.config.tuned_to(&at);
        let handshake = Session::over(stream, at.layers(), Side::Server, &config);
        let session = tokio::select! {
            session = handshake => session,
            () = stopped(&mut stop) => return Ok(()),
        };
        note(pass, &session);
        let session = session.map_err(|e| {
            let failure = refused(e, &from);
            // The one session of `serve stdio:` is the command's own end, and told there.
            if !one_session(&at) {
                self.say_of(log::source(source, &from), format_args!("{failure}"));
            }
            failure
        })?;
        let peer = session.peer().id();
        self.say_of(peer, format_args!("session with {peer} over {from}"));
        for remark in trust::remarks(session.peer(), &self.pins) {
            self.say_of(peer, format_args!("{remark}"));
        }
        let mut substreams = JoinSet::new();
        let end = loop {
            tokio::select! {
                incoming = session.accept() => match incoming {
                    Ok(incoming) => {
                        let session = session.clone();
                        match self.node.clone() {
                            Some(node) => {
                                substreams.spawn(async move { node.take(incoming, &session).await })
                            }
                            None => substreams.spawn(Arc::clone(&self.services).serve(incoming, session)),
                        };
                    }
                    Err(end) => break end,
                },
                Some(_) = substreams.join_next() => {}
                () = stopped(&mut stop) => {
                    session.close().await;
                    self.say_of(peer, format_args!("session with {peer} over {from} closed"));
                    return Ok(());
                }
            }
        };
        self.say_of(
            peer,
            format_args!("session with {peer} over {from} ended: {end}"),
        );
        // What the peer sent before it left is still being delivered.
        if one_session(&at) {
            while substreams.join_next().await.is_some() {}
        } else {
            substreams.detach_all();
        }
        if end.is_clean() {
            Ok(())
        } else {
            Err(end.into())
        }
    }

    fn say(&self, line: std::fmt::Arguments<'_>) {
        if self.tell {
            say(line);
        }
    }

    /// [`Server::say`], for what a peer can cause: only so often.
    fn say_of(&self, peer: impl std::fmt::Display, line: std::fmt::Arguments<'_>) {
        if self.tell {
            log::say_of(peer, line);
        }
    }
}

/// Tells the gate what became of a handshake.
fn note(pass: Pass, session: &Result<Session, ConnectError>) {
    match session {
        Ok(_) => pass.let_in(),
        Err(error) => {
            if let Some(failing) = error.failing() {
                pass.failed(failing);
            }
        }
    }
}

/// An address whose one session is all there will be; the command ends with it.
fn one_session(at: &Endpoint) -> bool {
    at.has_one_stream()
}

/// Waits until the server is asked to stop, or is gone.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // What it gives holds a lock, and must not live on in the caller's task.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// A handshake that failed, with what the operator can do about it.
fn refused(e: ConnectError, from: &str) -> Failure {
    let tls = exit::tls(&e);
    if let Some(TlsError::Refused(
        Refusal::Unknown { presented }
        | Refusal::WrongPeer { presented, .. }
        | Refusal::Changed {
            presented,
            note: None,
            ..
        },
    )) = tls
    {
        let run = exit::command_with("--allow", &presented.to_string());
        return Failure::new(
            Code::UnknownPeer,
            format!("refused {from}: peer {presented} is not allowed; to allow it, run: {run}"),
        );
    }
    let failure = Failure::from(e);
    Failure::new(failure.code, format!("{from}: {}", failure.message))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

    use cepa::gate;
    use cepa::identity::{KeyKind, Pinned};
    use cepa::transports::Remote;
    use tokio::io::{AsyncWriteExt as _, DuplexStream};

    use super::*;

    /// Only who comes from afar is told apart.
    const FAR: Remote = Remote::Tcp(SocketAddr::V4(SocketAddrV4::new(
        Ipv4Addr::new(192, 0, 2, 7),
        4711,
    )));
    const HOUR: Duration = Duration::from_secs(3600);

    /// A server whose gate tolerates three failures, in hours, so that it makes no difference how long the test takes.
    fn strict() -> (Arc<Server>, PeerId) {
        let identity = Identity::generate(KeyKind::Ed25519).unwrap();
        let trust = Arc::new(AcceptAny);
        let server = Server::new((&identity, &[]), trust, Vec::new(), Vec::new(), false);
        let mut server = server.unwrap();
        let mut rules = gate::Config::default();
        rules.penalty_refused = HOUR;
        rules.tolerated = 3 * HOUR;
        rules.most = 100 * HOUR;
        server.gate = Gate::new(rules);
        (Arc::new(server), identity.peer_id())
    }

    /// Comes from afar and does something; gives how the session ended.
    async fn knock<F: Future>(
        server: &Arc<Server>,
        does: impl FnOnce(DuplexStream) -> F,
    ) -> Result<(), Failure> {
        let (near, far) = tokio::io::duplex(1 << 16);
        let (_stop, stopping) = watch::channel(false);
        let at = "tcp:192.0.2.1:7000".parse().unwrap();
        let stream = Stream::from_io(near, "far").with_remote(FAR);
        let (ended, _) = tokio::join!(Arc::clone(server).session(stream, at, stopping), does(far));
        ended
    }

    async fn nonsense(mut far: DuplexStream) {
        far.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    }

    async fn friend(server: PeerId, far: DuplexStream) {
        let identity = Identity::generate(KeyKind::Ed25519).unwrap();
        let config = StackConfig::new(identity, Arc::new(Pinned::one(server)));
        let stream = Stream::from_io(far, "test");
        let session = Session::over(stream, &[], Side::Client, &config).await;
        session.unwrap().close().await;
    }

    fn shut_out(server: &Server) -> Option<String> {
        let entered = server.gate.enter(Source::from(&FAR));
        entered.err().map(|why| why.to_string())
    }

    #[tokio::test]
    async fn who_fails_again_and_again_is_shut_out() {
        let (server, _) = strict();
        for _ in 0..4 {
            assert_eq!(shut_out(&server), None);
            knock(&server, nonsense).await.unwrap_err();
        }
        let why = shut_out(&server).expect("it would be let in");
        assert!(why.starts_with("too many failures from there"), "{why}");
    }

    #[tokio::test]
    async fn who_gets_in_is_forgiven() {
        let (server, id) = strict();
        // Six failures would be too many without what lies between them.
        for _ in 0..2 {
            for _ in 0..3 {
                knock(&server, nonsense).await.unwrap_err();
            }
            knock(&server, |far| friend(id, far)).await.unwrap();
        }
    }
}
