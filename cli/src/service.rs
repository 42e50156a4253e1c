//! What a peer gets when it opens a service: the substream joined to an address that is opened anew
//! for it, to a service of another peer (a plaintext forwarder), or one of the two that are built in. Who may open it was the
//! node's question; how much of the machine it may take, `cost` and the node's shares decide.
//!
//! A service can be had on a console too, with messages beside its data (`console/`).
//!
//! A command (`exec:`) gets the substream as standard input and output, half-close included. It is served until it has
//! exited, whatever else still holds its pipes. On a terminal it may also outlive who opened it (`console/kept.rs`). How it ended goes to who asked for that (the forms `cepa.exec.NAME` and
//! `cepa.console.NAME`); for anybody else a command that failed ends with a reset, behind its output, so that the failure is not taken
//! for a whole answer. When the substream is cut, the command is killed before its pipes close: it must not take the cut
//! for the end of its input.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cepa::identity::PeerId;
use cepa::mux::{ReceivePool, Substream};
use cepa::node::{Access, Admission, Admitted, Call, Node, Protocol, Share};
use cepa::onion::Onion;
use cepa::protocols::directory;
use cepa::protocols::forward::Forwarder;
use cepa::session::Session;
use cepa::session::reserved::{
    COMMAND_PREFIX, FILES_PREFIX, HANG_UP_PREFIX, KEPT, SOCKS_PREFIX, WATCH_PREFIX,
};
use cepa::tls::TlsConfig;
use cepa::transports::{self, Endpoint, Terminal, TransportError};
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::accept::{Asked, COMMAND, Gate, ONE, TRANSFER, accept, cost, held, hold, refuse};
use crate::args::{Service, Target};
use crate::chunk::{self, Chunk};
use crate::command_served;
use crate::console::framed::{Framed, Outbox};
use crate::console::keeper::Keeper;
use crate::console::served::Served;
use crate::console::watched::{Source, Sources, What};
use crate::console::wire::{self, Message, Status};
use crate::destination::Destinations;
use crate::exit::{Code, Failure};
use crate::files;
use crate::files::served::{self, ONLY, Shared};
use crate::layer_echo;
use crate::line_holders::{Asks, Holders, Holds};
use crate::log::say_once_a_minute;
use crate::programs::{self, Programs};
use crate::reach::raised_by;
use crate::say::Line;
use crate::service_form::{Form, Offered, can_be_watched, only, plain};
use crate::service_kept::{self, NO_MEMORY, NOT_KEPT};
use crate::service_watched;
use crate::socks_served;
use crate::upstream::{Near, Wire};

/// How long a last message may take to leave.
const PARTING: Duration = Duration::from_millis(500);

/// What somebody at a console reads where the command has no terminal.
const NO_TERMINAL: &str = "no terminal at the other end: no echo, and ^C and ^D are plain bytes; the server can add pty=yes";

fn is_command(to: &Endpoint) -> bool {
    matches!(to.target(), transports::Target::Exec { .. })
}

/// What serves the services of a node.
pub(crate) struct Services {
    /// For peers that want TLS of their own inside a substream: the node's identity and trust.
    inner: TlsConfig,
    /// For services of other peers.
    forwarder: Forwarder,
    /// Those that can be had on a console.
    list: Mutex<BTreeMap<String, Offered>>,
    /// Consoles that outlive who opened them.
    keeper: Arc<Keeper>,
    /// Who has which line.
    holders: Holders,
    /// What is open and can be watched, and the services that nobody may watch.
    sources: Sources,
    unwatched: Mutex<BTreeSet<String>>,
    gate: Gate,
}

/// The forms of services that have messages beside their bytes.
struct Framing(Arc<Services>);

impl Protocol for Framing {
    fn names(&self) -> &[&'static str] {
        &[
            wire::PREFIX,
            wire::EXEC_PREFIX,
            wire::ATTACH_PREFIX,
            HANG_UP_PREFIX,
            WATCH_PREFIX,
            KEPT,
            SOCKS_PREFIX,
            FILES_PREFIX,
            ONLY,
            COMMAND_PREFIX,
            programs::ONLY,
        ]
    }

    fn admission(&self, name: &str) -> Admission {
        if name == KEPT {
            // Whoever asks is told of its own consoles.
            return Admission::OwnProof;
        }
        // Only what was decided on is served, though the service may be another one by then.
        let list = self.0.list();
        let found = match plain(name) {
            // Whoever names none means the only one.
            (Form::Files, "") => only(&list, |target| matches!(target, Target::Files(_))),
            (Form::Command, "") => only(&list, |target| matches!(target, Target::Command(_))),
            (_, name) => list.get(name),
        };
        match found {
            Some((target, access)) => Admission::With(access.clone(), Admitted::to(target.clone())),
            // Of another kind, which has no such forms: whoever may open it is told that.
            None => Admission::Service(plain(name).1.to_owned()),
        }
    }

    fn serve(self: Arc<Self>, call: Call) -> BoxFuture<'static, ()> {
        Box::pin(async move { self.0.serve_framed(call).await })
    }
}

impl Services {
    /// For the services of a node, none yet; `keep_consoles`: for how long without anybody, if at all.
    pub(crate) fn on(
        node: &Node,
        inner: TlsConfig,
        forwarder: Forwarder,
        keep_consoles: Option<Duration>,
    ) -> Result<Arc<Self>, Failure> {
        let services = Arc::new(Self {
            inner,
            forwarder,
            list: Mutex::default(),
            keeper: Keeper::new(keep_consoles),
            holders: Holders::default(),
            sources: Sources::default(),
            unwatched: Mutex::default(),
            gate: Gate::default(),
        });
        node.add_protocol(Arc::new(Framing(Arc::clone(&services))))
            .map_err(|e| Failure::new(Code::Other, e.to_string()))?;
        let of = Arc::clone(&services);
        let kind = move |name: &str| of.list().get(name).map_or("", |(target, _)| target.kind());
        directory::offer(node, kind).map_err(|e| Failure::new(Code::Other, e.to_string()))?;
        Ok(services)
    }

    /// Offers a service, in place of one of that name.
    pub(crate) fn offer(
        self: &Arc<Self>,
        node: &Node,
        service: &Service,
        access: Access,
    ) -> Result<(), Failure> {
        let offered = (service.target.clone(), access.clone());
        let before = self.list().insert(service.name.clone(), offered);
        let same =
            |(target, before): &Offered| is_same(target, &service.target) && *before == access;
        if self.may_be_watched(&service.name, service.watch) || !before.as_ref().is_some_and(same) {
            self.sources.send_away(&service.name);
        }
        if let Some((target, before)) = before {
            if is_same(&target, &service.target) {
                self.keeper.restrict(&service.name, &before, &access);
            } else {
                self.keeper.withdraw(&service.name);
            }
        }
        // Whoever names none gets the only one. Shared: each substream that is served holds it.
        let (this, service) = (Arc::clone(self), Arc::new(service.clone()));
        let serve = {
            let service = Arc::clone(&service);
            move |call: Call| {
                let (this, service) = (Arc::clone(&this), Arc::clone(&service));
                async move { this.serve(call, &service.name, &service.target).await }
            }
        };
        node.serve(&service.name, access, serve)
            .map_err(|e| Failure::new(Code::Usage, e.to_string()))
    }

    /// Whether a service may be watched from now on; gives whether that was otherwise.
    fn may_be_watched(&self, name: &str, yes: bool) -> bool {
        let unwatched = self.unwatched.lock();
        // Each change is whole after the one statement that makes it.
        let mut unwatched = unwatched.unwrap_or_else(PoisonError::into_inner);
        if yes {
            unwatched.remove(name)
        } else {
            unwatched.insert(name.to_owned())
        }
    }

    fn is_watched(&self, name: &str) -> bool {
        let unwatched = self.unwatched.lock();
        let unwatched = unwatched.unwrap_or_else(PoisonError::into_inner);
        !unwatched.contains(name)
    }

    /// A serial line can be watched while a peer has it.
    fn watched(&self, name: &str, to: &Endpoint, call: &Asks) -> Option<Source> {
        let is_line = to.is_line();
        let what = What {
            service: name.to_owned(),
            kept: None,
            peer: call.peer(),
            is_named: call.is_named(),
        };
        is_line.then(|| self.sources.open(what, false))
    }

    /// Asks for each call, too, whether it is served.
    pub(crate) fn ask(
        &self,
        why_not: impl Fn(&Session, Asked) -> Option<String> + Send + Sync + 'static,
    ) {
        self.gate.set(why_not);
    }

    /// Takes a service back.
    pub(crate) fn withdraw(&self, node: &Node, name: &str) {
        self.list().remove(name);
        self.keeper.withdraw(name);
        self.sources.send_away(name);
        node.withdraw(name);
    }

    /// Ends the commands on consoles that are kept, once the node is shut down.
    pub(crate) async fn end(&self) {
        self.keeper.end().await;
    }

    fn list(&self) -> MutexGuard<'_, BTreeMap<String, Offered>> {
        // Each change is whole after the one statement that makes it.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves one substream to its end. Errors are logged here, and are nobody else's.
    async fn serve(&self, call: Call, name: &str, target: &Target) {
        let Some(call) = self.gate.passed(call, Asked::First).await else {
            return;
        };
        let peer = call.peer().id();
        // There may be thousands, so each is as large as what it does.
        let serving: BoxFuture<'_, Result<(), String>> = match target {
            Target::Echo => Box::pin(self.echo(call)),
            Target::Demo => Box::pin(self.demo(call)),
            Target::Forward(to) => Box::pin(async move {
                let Some(call) = self.gate.passed(call, Asked::Opened).await else {
                    return Ok(());
                };
                let done = self.forwarder.forward(call, to).await;
                done.map_err(|e| e.to_string())
            }),
            Target::Dial(to) => Box::pin(self.dial(name, to, call)),
            Target::Socks(_) => Box::pin(other_form(call, ONLY_SOCKS)),
            Target::Files(_) => Box::pin(other_form(call, ONLY_FILES)),
            Target::Command(_) => Box::pin(other_form(call, ONLY_PROGRAMS)),
        };
        tell(peer, name, serving.await);
    }

    async fn echo(&self, call: Call) -> Result<(), String> {
        let (mut far, memory, _share) = Box::pin(self.accept_held(call)).await?;
        echo(&mut far, |far| far.wire_mut(), memory, || ()).await
    }

    async fn demo(&self, call: Call) -> Result<(), String> {
        let (far, _memory, _share) = self.accept_held(call).await?;
        layer_echo::serve(far, &self.inner).await
    }

    /// Connected to what the opener asks for.
    async fn socks(&self, name: &str, allowed: &Destinations, call: Call) -> Result<(), String> {
        let (call, _share) = held(call, ONE).await?;
        let peer = (call.session().clone(), call.memory().clone());
        let far = self.accept(call).await?;
        socks_served::serve(name, allowed, far, &peer).await
    }

    /// Its files, sent or fetched.
    async fn files(&self, shared: &Shared, call: Call) -> Result<(), String> {
        let (call, _share) = held(call, TRANSFER).await?;
        let Some(_memory) = call.memory().hold(files::line::MEMORY) else {
            refuse(call, NO_MEMORY).await;
            return Err(NO_MEMORY.to_owned());
        };
        let session = call.session().clone();
        served::serve(shared, self.accept(call).await?, &session).await
    }

    /// A program that its opener asks for.
    async fn program(&self, name: &str, allowed: &Programs, call: Call) -> Result<(), String> {
        let (call, _share) = held(call, COMMAND).await?;
        let peer = (call.session().clone(), call.memory().clone());
        let far = self.accept(call).await?;
        command_served::serve(name, allowed, far, &peer).await
    }

    /// The same, with messages beside the bytes.
    async fn serve_framed(&self, call: Call) {
        let Some(call) = self.gate.passed(call, Asked::First).await else {
            return;
        };
        let asked = call.service().to_owned();
        if asked == KEPT {
            let peer = call.peer().id();
            let listed = service_kept::list(&self.keeper, &self.inner, call).await;
            return tell(peer, KEPT, listed);
        }
        let (form, name) = plain(&asked);
        let (peer, name) = (call.peer().id(), name.to_owned());
        let target = call.admitted::<Target>().cloned();
        let target = match (form, target) {
            (Form::Socks, Some(Target::Socks(allowed))) => {
                return tell(
                    peer,
                    &name,
                    Box::pin(self.socks(&name, &allowed, call)).await,
                );
            }
            (Form::Command, Some(Target::Command(allowed))) => {
                let served = Box::pin(self.program(&name, &allowed, call)).await;
                return tell(peer, &name, served);
            }
            (Form::Files, Some(Target::Files(shared))) => {
                return tell(peer, &name, Box::pin(self.files(&shared, call)).await);
            }
            (
                Form::Status
                | Form::Console
                | Form::Attached(_)
                | Form::HungUp(_)
                | Form::Watched(_),
                Some(target @ (Target::Echo | Target::Dial(_))),
            ) => Some(target),
            (_, Some(Target::Socks(_))) => {
                return tell(peer, &name, other_form(call, ONLY_SOCKS).await);
            }
            (_, Some(Target::Files(_))) => {
                return tell(peer, &name, other_form(call, ONLY_FILES).await);
            }
            (_, Some(Target::Command(_))) => {
                return tell(peer, &name, other_form(call, ONLY_PROGRAMS).await);
            }
            _ => None,
        };
        let shown = |target: &Target| !matches!(form, Form::Watched(_)) || can_be_watched(target);
        let Some(target) = target.filter(shown) else {
            let why = match form {
                Form::Socks => "this service leads to one address; use it with `forward -L`",
                Form::Files => {
                    "this service has no files; the server offers a folder with --service NAME=files:DIR"
                }
                Form::Command => {
                    "this service runs no programs that a peer names; the server offers some with --service NAME=command:/PROGRAM,…"
                }
                Form::Status => "this service has no exit status; open it by its name alone",
                Form::Console => "this service has no console",
                Form::Attached(_) | Form::HungUp(_) => NOT_KEPT,
                Form::Watched(_) => "only a serial line or a kept console can be watched",
            };
            let _ = call.refuse(why).await;
            return;
        };
        let served = match form {
            Form::Status => Box::pin(self.with_status(&name, &target, call)).await,
            Form::Console => Box::pin(self.console(&name, &target, call)).await,
            Form::Attached(kept) => {
                let with = (&self.keeper, &self.sources, &self.inner, &self.gate);
                Box::pin(service_kept::attach(with, kept, &name, &target, call)).await
            }
            Form::Watched(kept) => {
                let (with, allowed) = (
                    (&self.sources, &self.inner, &self.gate),
                    self.is_watched(&name),
                );
                Box::pin(service_watched::watch(with, allowed, kept, &name, call)).await
            }
            Form::HungUp(kept) => {
                let (keeper, inner) = (&self.keeper, &self.inner);
                Box::pin(service_kept::hang_up(keeper, inner, kept, &name, call)).await
            }
            Form::Socks | Form::Files | Form::Command => return,
        };
        tell(peer, &name, served);
    }

    async fn accept(&self, call: Call) -> Result<Onion<Substream>, String> {
        let passed = self.gate.passed(call, Asked::Opened).await;
        accept(passed.ok_or("it was turned away")?, &self.inner).await
    }

    /// What is built in has no descriptor, but takes as much.
    async fn accept_held(
        &self,
        call: Call,
    ) -> Result<(Onion<Substream>, ReceivePool, Share), String> {
        let (call, share) = held(call, ONE).await?;
        let memory = call.memory().clone();
        Ok((self.accept(call).await?, memory, share))
    }

    async fn dial(&self, name: &str, to: &Endpoint, call: Call) -> Result<(), String> {
        // Of what it takes to open it nothing is left while it is served.
        let opens = async {
            let (call, share) = held(call, cost(to)).await?;
            let peer = (call.session().clone(), call.memory().clone());
            let terminal = Terminal::default();
            let near = Near::open(name, to, &terminal, &peer, None).await;
            let (call, near, line) = self.opened(name, to, call, near).await?;
            let far = self.accept(call).await?;
            Ok::<_, String>((Box::new(near), Box::new(far), (share, line)))
        };
        let (near, far, _held) = Box::pin(opens).await?;
        near.serve(to, far, |far| far.wire_mut()).await
    }

    /// The call with what was opened for it; refused where it was not.
    async fn opened(
        &self,
        name: &str,
        to: &Endpoint,
        call: Call,
        near: Result<Near, TransportError>,
    ) -> Result<(Call, Near, Option<Holds>), String> {
        let asks = Asks::of(&call);
        match near {
            Ok(near) => {
                let line = self.holders.hold(to, asks);
                let near = near.watched(self.watched(name, to, &asks));
                Ok((call, near, line))
            }
            Err(e) => {
                refuse(call, &self.holders.why(to, &e, asks)).await;
                Err(e.to_string())
            }
        }
    }

    /// A service with its standard error, and a last message about how it ended.
    async fn with_status(&self, name: &str, target: &Target, call: Call) -> Result<(), String> {
        // The messages wait until there is a substream to send them on.
        let framed = |far| Framed::new(far, Box::new(|_| ())).with_chunk(wire::BULK_MAX);
        let Target::Dial(to) = target else {
            let (far, memory, _share) = Box::pin(self.accept_held(call)).await?;
            let mut far = framed(far);
            let outbox = far.outbox();
            return echo(
                &mut far,
                |far| far.inner_mut().wire_mut(),
                memory,
                || {
                    outbox.push(Message::Ended(Status::Exited(0)));
                },
            )
            .await;
        };
        let (call, _share) = Box::pin(held(call, cost(to))).await?;
        let peer = (call.session().clone(), call.memory().clone());
        let outbox = Outbox::default();
        let terminal = Terminal::default();
        let near = Box::pin(Near::open(name, to, &terminal, &peer, Some(outbox.clone()))).await;
        let (call, near, _line) = Box::pin(self.opened(name, to, call, near)).await?;
        if near.stream.control().is_some() && is_command(to) {
            // Whoever has one too is better off with a console.
            near.notify(Message::Terminal(terminal));
        }
        let far = framed(Box::pin(self.accept(call)).await?).with_outbox(outbox);
        Box::new(near)
            .serve(to, Box::new(far), |far| far.inner_mut().wire_mut())
            .await
    }

    /// A service at somebody's terminal.
    async fn console(&self, name: &str, target: &Target, call: Call) -> Result<(), String> {
        let share = match target {
            Target::Dial(to) => hold(&call, to).map(Some),
            _ => Ok(None),
        };
        let asks = Asks::of(&call);
        let peer = (call.session().clone(), call.memory().clone());
        // What it is opened for is known only behind its first message: until then it is no use of a ticket.
        let mut served = Served::new(accept(call, &self.inner).await?);
        let terminal = served.terminal().await.map_err(|e| e.to_string())?;
        let turned_away = || self.gate.why_not(&peer.0, Asked::Opened);
        let Target::Dial(to) = target else {
            let outbox = served.outbox();
            if let Some(why) = turned_away() {
                outbox.push(Message::Ended(Status::Failed(why.clone())));
                let _ = tokio::time::timeout(PARTING, served.far.shutdown()).await;
                return Err(why);
            }
            return echo(
                &mut served.far,
                |far| far.inner_mut().wire_mut(),
                peer.1,
                || {
                    outbox.push(Message::Ended(Status::Exited(0)));
                },
            )
            .await;
        };
        let outbox = served.outbox();
        let mut failed = async |why: String| {
            outbox.push(Message::Ended(Status::Failed(why)));
            let _ = tokio::time::timeout(PARTING, served.far.shutdown()).await;
        };
        let _share = match share {
            Ok(share) => share,
            Err(exceeded) => {
                failed(exceeded.to_string()).await;
                return Err(exceeded.to_string() + raised_by(&exceeded));
            }
        };
        let opened = Near::open(name, to, &terminal, &peer, Some(outbox.clone())).await;
        let near = match opened {
            Ok(near) => near.at_console().watched(self.watched(name, to, &asks)),
            Err(e) => {
                failed(self.holders.why(to, &e, asks)).await;
                return Err(e.to_string());
            }
        };
        if let Some(why) = turned_away() {
            failed(why.clone()).await;
            return Err(why);
        }
        let _line = self.holders.hold(to, asks);
        served.joined_to(&near.stream);
        near.notify(Message::Opened);
        if near.stream.control().is_none() && is_command(to) {
            near.notify(Message::Stderr(NO_TERMINAL.to_owned()));
        }
        Box::new(near)
            .serve(to, Box::new(served.far), |far| far.inner_mut().wire_mut())
            .await
    }
}

/// What a peer reads that opens a SOCKS service as if it led to one address.
const ONLY_SOCKS: &str = "this is a SOCKS service; use it with `cepa forward -D [ADDR:]PORT=NAME`";

/// What a peer reads that opens a folder as if it were a stream.
const ONLY_FILES: &str =
    "this service has files; use it with `cepa cp`, as @NAME:SERVICE/PATH or TICKET:SERVICE/PATH";

/// What a peer reads that opens a list of programs as if it were a stream.
const ONLY_PROGRAMS: &str = "this service runs programs; use it with `cepa exec ADDR -- CMD ARGS…`";

/// Refuses a call that wants a service as what it is not. Its owner reads what the peer was told, since whoever has called may ask.
async fn other_form(call: Call, why: &str) -> Result<(), String> {
    let _ = call.refuse(why).await;
    Err(format!(
        "it was opened as what it is not, and the peer was told: {why}"
    ))
}

/// Tells how a service has failed, if it has.
fn tell(peer: PeerId, name: &str, served: Result<(), String>) {
    if let Err(e) = served {
        let kind = format!("service {name}: {e}");
        let line = format!("service {name} for {}…: {e}", peer.short());
        say_once_a_minute(peer, &kind, Line::from(line).with("service", name));
    }
}

/// Whether a command that runs for the one may go on for the other.
fn is_same(one: &Target, other: &Target) -> bool {
    match (one, other) {
        (Target::Dial(one), Target::Dial(other)) => one == other,
        _ => false,
    }
}

/// Sends back what comes, until it ends, and waits until it was taken; `end` comes before the end of what is sent.
async fn echo<F: AsyncRead + AsyncWrite + chunk::Pieces + Unpin>(
    far: &mut F,
    wire: Wire<F>,
    memory: ReceivePool,
    end: impl Fn(),
) -> Result<(), String> {
    let echoed = chunk::echo(far, Chunk::counted(memory)).await;
    echoed.map_err(|e| e.to_string())?;
    end();
    far.shutdown().await.map_err(|e| e.to_string())?;
    let _ = wire(far).drained(None).await;
    Ok(())
}
