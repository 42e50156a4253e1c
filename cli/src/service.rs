//! What a peer gets when it opens a service: the substream joined to an address that is opened anew
//! for it, to a service of another peer (a plaintext forwarder), or one of the two that are built in.
//!
//! A service can be had on a console too, with messages beside its data (`console/`).
//!
//! A command (`exec:`) gets the substream as standard input and output, half-close included. Its
//! exit status has no place on the wire; so that a failure is not taken for a short but whole
//! output, a command that was killed, or that failed with input left untaken, ends its substream
//! with a reset instead of a clean end.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use cepa::mux::Substream;
use cepa::node::Node;
use cepa::onion::Onion;
use cepa::session::{Incoming, Session};
use cepa::tls::TlsConfig;
use cepa::transports::{self, Endpoint, Stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::args::{Service, Target};
use crate::child::Watched;
use crate::console::framed::Outbox;
use crate::console::served::{self, Served};
use crate::console::wire::{self, Message, Status};
use crate::demo;
use crate::join::{Ended, Join, Step};
use crate::log::say_of;

/// How long after the end of its output a command may take to exit, until the end is passed on
/// without knowing its status. Nearly all exit at once; one that goes on without output is rare.
const EXIT: Duration = Duration::from_secs(1);

/// A reset throws away what is queued in front of it; this lets the output so far leave first.
const PARTING: Duration = Duration::from_millis(500);

/// How long a command on a terminal may take to end once that was hung up; then it is killed.
const HANG_UP: Duration = Duration::from_secs(2);

/// The services of a server.
#[derive(Debug)]
pub(crate) struct Services {
    list: Vec<Service>,
    /// For peers that want TLS of their own inside a substream: the server's identity and trust.
    inner: TlsConfig,
    /// From which services of other peers are reached.
    node: Node,
}

impl Services {
    pub(crate) fn new(list: Vec<Service>, inner: TlsConfig, node: Node) -> Arc<Self> {
        Arc::new(Self { list, inner, node })
    }

    /// The services.
    pub(crate) fn all(&self) -> &[Service] {
        &self.list
    }

    /// What the services are called.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|service| service.name.as_str())
    }

    /// The service of that name. No name means the only one, where there is only one.
    fn find(&self, name: &str) -> Result<&Service, String> {
        match self.list.as_slice() {
            [only] if name.is_empty() => Ok(only),
            list => list
                .iter()
                .find(|service| service.name == name)
                .ok_or_else(|| {
                    let names: Vec<&str> =
                        list.iter().map(|service| service.name.as_str()).collect();
                    let there = match names.as_slice() {
                        [] => "this server offers none".to_owned(),
                        names => format!("there is {}", names.join(", ")),
                    };
                    if name.is_empty() {
                        format!("name a service: {there}")
                    } else {
                        format!("no service has this name; {there}")
                    }
                }),
        }
    }

    /// Serves one substream to its end. Errors are told here, and are nobody else's.
    pub(crate) async fn serve(self: Arc<Self>, incoming: Incoming, session: Session) {
        let plain = incoming.service().strip_prefix(wire::PREFIX);
        let on_console = plain.is_some();
        let service = match self.find(plain.unwrap_or(incoming.service())) {
            Ok(service) => service.clone(),
            Err(reason) => {
                let _ = incoming.refuse(&reason).await;
                return;
            }
        };
        let name = service.name;
        let peer = session.peer().id();
        let result = match service.target {
            Target::Demo | Target::Forward(_) if on_console => {
                let _ = incoming.refuse("this service has no console").await;
                return;
            }
            target if on_console => self.console(&name, &target, incoming, &session).await,
            Target::Echo => match self.accept(incoming).await {
                Ok(far) => echo(far).await,
                Err(e) => Err(e),
            },
            Target::Demo => match self.accept(incoming).await {
                Ok(far) => demo::peer::serve(far, &self.inner).await,
                Err(e) => Err(e),
            },
            Target::Forward(to) => {
                let done = self.node.forward_one(incoming, &to).await;
                done.map_err(|e| e.to_string())
            }
            Target::Dial(endpoint) => self.dial(&name, &endpoint, incoming, &session).await,
        };
        if let Err(e) = result {
            say_of(peer, format_args!("service {name}: {e}"));
        }
    }

    async fn accept(&self, incoming: Incoming) -> Result<Onion<Substream>, String> {
        let accepted = if incoming.wants_inner_tls() {
            incoming.accept_secured(&self.inner).await
        } else {
            incoming.accept().await
        };
        accepted.map_err(|e| e.to_string())
    }

    async fn dial(
        &self,
        name: &str,
        to: &Endpoint,
        incoming: Incoming,
        session: &Session,
    ) -> Result<(), String> {
        let mut near = match transports::dial(to).await {
            Ok(near) => near,
            Err(e) => {
                // What exactly is wrong here is for the operator, not for the peer.
                let _ = incoming
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
        let mut far = self.accept(incoming).await?;
        let mut join = Join::new(&mut near, &mut far);
        if child.is_some() {
            join = join.hold_near_end();
        }
        let ended = to_the_end(&mut join, child.as_ref(), session, None).await;
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
    async fn console(
        &self,
        name: &str,
        target: &Target,
        incoming: Incoming,
        session: &Session,
    ) -> Result<(), String> {
        let mut served = Served::new(self.accept(incoming).await?);
        let terminal = served.terminal().await.map_err(|e| e.to_string())?;
        let Target::Dial(to) = target else {
            return echo(served.far).await;
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
        let mut join = Join::new(&mut near, &mut served.far);
        if child.is_some() {
            join = join.hold_near_end();
        }
        let ended = to_the_end(&mut join, child.as_ref(), session, Some(&outbox)).await;
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
    let (mut gone, mut lost) = (false, false);
    loop {
        let step = tokio::select! {
            step = join.step() => step,
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
    let mut buffer = vec![0; 64 * 1024];
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
