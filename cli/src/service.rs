//! What a peer gets when it opens a service: the substream joined to an address that is opened anew
//! for it, to a service of another peer (a plaintext forwarder), or one of the two that are built in. Who may open it was the
//! node's question; how much of the machine it may take, `cost` and the node's shares decide.
//!
//! A service can be had on a console too, with messages beside its data (`console/`).
//!
//! A command (`exec:`) gets the substream as standard input and output, half-close included. Its
//! exit status has no place on the wire; so that a failure is not taken for a short but whole
//! output, a command that was killed, or that failed with input left untaken, ends its substream
//! with a reset instead of a clean end.

use std::collections::BTreeMap;
use std::future::pending;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cepa::mux::Substream;
use cepa::node::{Access, Admission, Call, Exceeded, Node, Protocol, Resource, Share};
use cepa::onion::Onion;
use cepa::protocols::forward::Forwarder;
use cepa::session::Session;
use cepa::tls::TlsConfig;
use cepa::transports::{self, Endpoint, Stream};
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::args::{Service, Target};
use crate::child::Watched;
use crate::console::framed::Outbox;
use crate::console::served::{self, Served};
use crate::console::wire::{self, Message, Status};
use crate::demo;
use crate::exit::{Code, Failure, say};
use crate::join::{Ended, Join, Step};
use crate::log::say_of;

/// How long after the end of its output a command may take to exit, until the end is passed on
/// without knowing its status. Nearly all exit at once; one that goes on without output is rare.
const EXIT: Duration = Duration::from_secs(1);

/// A reset throws away what is queued in front of it; this lets the output so far leave first.
const PARTING: Duration = Duration::from_millis(500);

/// How long a command on a terminal may take to end once that was hung up; then it is killed.
const HANG_UP: Duration = Duration::from_secs(2);

/// How long a terminal has to be quiet once its command has exited, until that is the end. The system has taken the
/// terminal from whatever the command has left in the background, which may keep it open all the same, for as long as it runs.
const QUIET: Duration = Duration::from_millis(250);

/// What serves the services of a node.
#[derive(Debug)]
pub(crate) struct Services {
    /// For peers that want TLS of their own inside a substream: the node's identity and trust.
    inner: TlsConfig,
    /// For services of other peers.
    forwarder: Forwarder,
    /// Those that can be had on a console.
    list: Mutex<BTreeMap<String, Target>>,
}

/// The form of every service that has a terminal: names with [`wire::PREFIX`] in front.
struct OnConsole(Arc<Services>);

impl Protocol for OnConsole {
    fn names(&self) -> &[&'static str] {
        &[wire::PREFIX]
    }

    fn admission(&self, name: &str) -> Admission {
        Admission::Service(plain(name).to_owned())
    }

    fn serve(self: Arc<Self>, call: Call) -> BoxFuture<'static, ()> {
        Box::pin(async move { self.0.serve_on_console(call).await })
    }
}

/// The service that a name on a console stands for.
fn plain(name: &str) -> &str {
    name.strip_prefix(wire::PREFIX).unwrap_or(name)
}

impl Services {
    /// For the services of a node, none yet.
    pub(crate) fn on(
        node: &Node,
        inner: TlsConfig,
        forwarder: Forwarder,
    ) -> Result<Arc<Self>, Failure> {
        let services = Arc::new(Self {
            inner,
            forwarder,
            list: Mutex::default(),
        });
        let on_console = Arc::new(OnConsole(Arc::clone(&services)));
        node.add_protocol(on_console)
            .map_err(|e| Failure::new(Code::Other, e.to_string()))?;
        Ok(services)
    }

    /// Offers a service, in place of one of that name.
    pub(crate) fn offer(
        self: &Arc<Self>,
        node: &Node,
        service: &Service,
        access: Access,
    ) -> Result<(), Failure> {
        let (this, target) = (Arc::clone(self), service.target.clone());
        self.list().insert(service.name.clone(), target.clone());
        let serve = move |call: Call| {
            let (this, target) = (Arc::clone(&this), target.clone());
            async move { this.serve(call, target).await }
        };
        node.serve(&service.name, access, serve)
            .map_err(|e| Failure::new(Code::Usage, e.to_string()))
    }

    /// Takes a service back.
    pub(crate) fn withdraw(&self, node: &Node, name: &str) {
        self.list().remove(name);
        node.withdraw(name);
    }

    fn list(&self) -> MutexGuard<'_, BTreeMap<String, Target>> {
        // Each change is whole after the one statement that makes it.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves one substream to its end. Errors are logged here, and are nobody else's.
    async fn serve(&self, call: Call, target: Target) {
        let (peer, name) = (call.peer().id(), call.service().to_owned());
        let result = match target {
            Target::Echo => match self.accept(call).await {
                Ok(far) => echo(far).await,
                Err(e) => Err(e),
            },
            Target::Demo => match self.accept(call).await {
                Ok(far) => Box::pin(demo::peer::serve(far, &self.inner)).await,
                Err(e) => Err(e),
            },
            Target::Forward(to) => {
                let done = Box::pin(self.forwarder.forward(call, &to)).await;
                done.map_err(|e| e.to_string())
            }
            // Boxed, so that a task which does less is not as large.
            Target::Dial(endpoint) => Box::pin(self.dial(&name, &endpoint, call)).await,
        };
        if let Err(e) = result {
            say_of(peer, format_args!("service {name}: {e}"));
        }
    }

    /// The same, for a service at somebody's terminal.
    async fn serve_on_console(&self, call: Call) {
        let (peer, name) = (call.peer().id(), plain(call.service()).to_owned());
        let target = self.list().get(&name).cloned();
        let Some(target @ (Target::Echo | Target::Dial(_))) = target else {
            let _ = call.refuse("this service has no console").await;
            return;
        };
        if let Err(e) = self.console(&name, &target, call).await {
            say_of(peer, format_args!("service {name}: {e}"));
        }
    }

    async fn accept(&self, call: Call) -> Result<Onion<Substream>, String> {
        let accepted = if call.wants_inner_tls() {
            call.accept_secured(&self.inner).await
        } else {
            call.accept().await
        };
        accepted.map_err(|e| e.to_string())
    }

    async fn dial(&self, name: &str, to: &Endpoint, call: Call) -> Result<(), String> {
        let _share = match hold(&call, to) {
            Ok(share) => share,
            Err(exceeded) => {
                let reason = exceeded.to_string();
                let _ = call.refuse(&reason).await;
                return Err(reason);
            }
        };
        let session = &call.session().clone();
        let mut near = match transports::dial(to).await {
            Ok(near) => near,
            Err(e) => {
                // What exactly is wrong here is for the operator, not for the peer.
                let _ = call
                    .refuse("the service cannot be reached at the moment")
                    .await;
                return Err(e.to_string());
            }
        };
        for remark in near.remarks() {
            say_of(
                session.peer().id(),
                format_args!("service {name}: {remark}"),
            );
        }
        let child = near
            .take_child()
            .map(|child| Watched::serving(child, name.to_owned(), session.peer().id()));
        // A TCP service must not take what has come of a lost substream for all there is.
        near.cut_when_dropped(true);
        let on_terminal = near.control().is_some();
        let mut far = self.accept(call).await?;
        let mut join = Join::new(&mut near, &mut far);
        if child.is_some() {
            join = join.hold_near_end();
        }
        let ended = to_the_end(&mut join, child.as_ref(), on_terminal, session, None).await;
        match ended {
            Ok(Ended::Both { far_left: None, .. }) => {
                near.cut_when_dropped(false);
                // What is queued still leaves; input that goes on coming is answered by a reset.
                drop(far);
                // Dropped, a command is killed. One whose input and output have ended in order may
                // finish what it does; any other has nobody left whom it could serve.
                if let Some(child) = child {
                    child.ended().await;
                }
                Ok(())
            }
            Ok(Ended::Near(e)) => Err(format!("{to}: {e}")),
            // The peer has reset its substream or is gone; its session tells of that.
            Ok(_) => {
                if on_terminal {
                    hang_up(near, child).await;
                }
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    /// A service at somebody's terminal.
    async fn console(&self, name: &str, target: &Target, call: Call) -> Result<(), String> {
        let share = match target {
            Target::Dial(to) => hold(&call, to).map(Some),
            _ => Ok(None),
        };
        let session = &call.session().clone();
        let mut served = Served::new(self.accept(call).await?);
        let terminal = served.terminal().await.map_err(|e| e.to_string())?;
        let Target::Dial(to) = target else {
            return echo(served.far).await;
        };
        let _share = match share {
            Ok(share) => share,
            Err(exceeded) => {
                let why = exceeded.to_string();
                served
                    .outbox()
                    .push(Message::Ended(Status::Failed(why.clone())));
                let _ = tokio::time::timeout(PARTING, served.far.shutdown()).await;
                return Err(why);
            }
        };
        let mut near = match transports::dial_for(to, &terminal).await {
            Ok(near) => near,
            Err(e) => {
                // What exactly is wrong here is for the operator, not for the peer.
                let why = "the service cannot be reached at the moment".to_owned();
                served.outbox().push(Message::Ended(Status::Failed(why)));
                let _ = tokio::time::timeout(PARTING, served.far.shutdown()).await;
                return Err(e.to_string());
            }
        };
        served.joined_to(&near);
        for remark in near.remarks() {
            say_of(
                session.peer().id(),
                format_args!("service {name}: {remark}"),
            );
        }
        let child = near
            .take_child()
            .map(|child| Watched::serving(child, name.to_owned(), session.peer().id()));
        let outbox = served.outbox();
        let on_terminal = near.control().is_some();
        let mut join = Join::new(&mut near, &mut served.far);
        if child.is_some() {
            join = join.hold_near_end();
        }
        let console = Some(&outbox);
        let ended = to_the_end(&mut join, child.as_ref(), on_terminal, session, console).await;
        if let Ok(Ended::Near(e)) = &ended {
            let why = "the service broke off".to_owned();
            outbox.push(Message::Ended(Status::Failed(why)));
            let _ = tokio::time::timeout(PARTING, served.far.shutdown()).await;
            return Err(format!("{to}: {e}"));
        }
        // Whoever sat there has left: nothing that belongs to the terminal may stay.
        hang_up(near, child).await;
        ended.map(|_| ())
    }
}

/// What serving an address takes of the node's pools, counted to the peer that asks: for a command its process and its pipes,
/// for everything else one descriptor.
pub(crate) fn cost(to: &Endpoint) -> &'static [(Resource, usize)] {
    match to.target() {
        transports::Target::Exec { .. } => &[(Resource::Children, 1), (Resource::Descriptors, 4)],
        _ => &[(Resource::Descriptors, 1)],
    }
}

/// What to warn of where the program of an `exec:` address can't be started as things are: it may still come.
fn missing_program(to: &Endpoint) -> Option<String> {
    let transports::Target::Exec { argv, dir, .. } = to.target() else {
        return None;
    };
    let program = argv.first()?;
    let runs = |file: &Path| {
        let meta = std::fs::metadata(file);
        meta.is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    let found = if program.contains('/') {
        // Relative to where it starts.
        let dir = dir.as_deref().unwrap_or(Path::new(""));
        runs(&dir.join(program))
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|folder| runs(&folder.join(program)))
    };
    (!found).then(|| format!("there is no program {program} here that could be started"))
}

/// Warns of a service that nobody will get.
pub(crate) fn check(service: &Service) {
    if let Target::Dial(to) = &service.target
        && let Some(why) = missing_program(to)
    {
        let name = &service.name;
        say(format_args!("warning: service {name}: {why}"));
    }
}

fn hold(call: &Call, to: &Endpoint) -> Result<Share, Exceeded> {
    call.hold(cost(to))
}

/// Closes a terminal, and gives the command that had it a moment to go by itself.
async fn hang_up(near: Stream, child: Option<Watched>) {
    drop(near);
    if let Some(child) = child {
        let _ = tokio::time::timeout(HANG_UP, child.ended()).await;
    }
}

/// Carries a join to its end, and minds what the streams do not tell: that the command on the near
/// side has exited, and that the session under the far side is lost.
async fn to_the_end<N, F>(
    join: &mut Join<'_, N, F>,
    child: Option<&Watched>,
    on_terminal: bool,
    session: &Session,
    console: Option<&Outbox>,
) -> Result<Ended, String>
where
    N: AsyncRead + AsyncWrite + Unpin,
    F: AsyncRead + AsyncWrite + Unpin,
{
    let exited = async {
        match child {
            Some(child) => child.ended().await,
            None => pending().await,
        }
    };
    tokio::pin!(exited);
    let (mut gone, mut lost, mut carried) = (false, false, 0);
    loop {
        let quiet = gone && on_terminal && join.waits_for_near();
        let step = tokio::select! {
            step = join.step() => step,
            () = tokio::time::sleep(QUIET), if gone && on_terminal => {
                let now = join.carried_from_near();
                if quiet && join.waits_for_near() && now == carried {
                    join.near_has_ended();
                }
                carried = now;
                continue;
            }
            _ = &mut exited, if !gone => {
                gone = true;
                join.near_is_gone();
                continue;
            }
            _ = session.closed(), if !lost => {
                lost = true;
                join.far_is_gone();
                continue;
            }
        };
        match (step, child) {
            (Step::Over(ended), _) => return Ok(ended),
            (Step::NearEnded, Some(child)) => {
                if let Some(console) = console {
                    let end = tokio::time::timeout(EXIT, child.ended()).await;
                    console.push(served::ended(end.ok().and_then(|end| end.exit)));
                } else if let Ok(end) = tokio::time::timeout(EXIT, child.ended()).await
                    && (end.killed || (end.failed && join.near_left_bytes()))
                {
                    tokio::time::sleep(PARTING).await;
                    return Err(end.to_string());
                }
                join.pass_end_on();
            }
            (Step::NearEnded, None) => join.pass_end_on(),
        }
    }
}

/// Sends back what comes, until it ends.
async fn echo(mut far: impl AsyncRead + AsyncWrite + Unpin) -> Result<(), String> {
    let mut buffer = vec![0; 16 * 1024];
    let copied = async {
        loop {
            let n = far.read(&mut buffer).await?;
            if n == 0 {
                return far.shutdown().await;
            }
            far.write_all(buffer.get(..n).unwrap_or_default()).await?;
            far.flush().await?;
        }
    };
    copied.await.map_err(|e| e.to_string())
}
