//! `cepa connect`: standard input and output joined to a service of a peer.
//!
//! With `--reconnect` the service is opened anew in a new session when the session is lost. Bytes that were
//! on their way are gone then, in both directions; standard input is not read meanwhile, so what comes later
//! is whole. Once its end was passed on there is nothing to open the service anew for: the loss is the end.
//!
//! A service of the tool is opened in the form that tells how it ended (`cepa.exec.NAME`, docs/PROTOCOL.md), so that the status and the
//! standard error of a command arrive. A peer that refuses the form is asked for the service by its name alone; its command's failure is
//! a reset then.

use std::io::{self, IsTerminal as _};
use std::sync::{Arc, Mutex, PoisonError};

use cepa::mux::{StreamError, Substream};
use cepa::onion::Onion;
use cepa::session::{OpenError, ServiceName};
use cepa::transports::{self, ByteStream, Endpoint, Stream};

use crate::again::Again;
use crate::args::{self, Whither};
use crate::console::framed::Framed;
use crate::console::wire::{self, Message, Status};
use crate::exit::{Code, Failure, say};
use crate::id;
use crate::join::{Ended, Join, Step};
use crate::link::Link;

pub(crate) async fn run(args: args::Connect) -> Result<(), Failure> {
    let error_status = args.error_status;
    connect(args).await.map_err(|failure| match error_status {
        Some(status) if !failure.is_of_command() => failure.exiting(status),
        _ => failure,
    })
}

async fn connect(args: args::Connect) -> Result<(), Failure> {
    let identity = id::load(&args.identity)?;
    let service = service(&args.address, &args.service)?;
    if let Whither::Introduced(it) = &args.address {
        if args.reconnect {
            let why = "an introduction is good for so many connections, each asked for: leave --reconnect out";
            return Err(Failure::new(Code::Usage, why));
        }
        if args.local_hints.allowed {
            let why = "the hints of an introduction are somebody else's, and are followed over the network only: leave --local-hints out";
            return Err(Failure::new(Code::Usage, why));
        }
        let (link, far) = Link::introduced(it, &args.trust, &identity).await?;
        return joined_once(&link, Far::plain(far)).await;
    }
    let mut again = Again::new(&args.address, &args.trust, &identity, None)
        .with_local_hints(args.local_hints.allowed);
    let mut link = again.first().await?;
    if !args.reconnect {
        let far = match open(&link, &args, &service).await {
            Ok(far) => far,
            Err(failure) => {
                link.close().await;
                return Err(failure);
            }
        };
        return joined_once(&link, far).await;
    }
    let mut near = None;
    loop {
        let lost = match open(&link, &args, &service).await {
            Ok(mut far) => {
                // Taken only now: an error before it should leave standard input to who reads it next.
                let near = match &mut near {
                    Some(near) => near,
                    none => none.insert(Near::take().await?),
                };
                match joined(&link, near, &mut far).await {
                    Ok(()) => {
                        drop(far);
                        return link.finish().await;
                    }
                    Err(end) => end,
                }
            }
            Err(failure) => End {
                lost: failure.code == Code::Lost,
                failure,
            },
        };
        if !lost.lost {
            link.close().await;
            return Err(lost.failure);
        }
        if near.as_ref().is_some_and(|near| near.ended) {
            link.close().await;
            return Err(lost.failure.with(
                "standard input has been given away already, so the service is not opened again",
            ));
        }
        let failure = if near.is_some() {
            lost.failure.with("what was on its way is gone")
        } else {
            lost.failure
        };
        link = again.after(&link, &failure, |line| say(line)).await?;
    }
}

/// Carries the one session there is to its end.
async fn joined_once(link: &Link, mut far: Far) -> Result<(), Failure> {
    let result = match Near::take().await {
        Ok(mut near) => joined(link, &mut near, &mut far)
            .await
            .map_err(|end| end.failure),
        Err(failure) => Err(failure),
    };
    drop(far);
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

async fn open(link: &Link, args: &args::Connect, service: &str) -> Result<Far, Failure> {
    let far = Far::open(link, service, !args.no_status).await?;
    if args.trust.trust.is_some() {
        // Told once it has answered: an error would be all there is to say.
        say(format_args!(
            "peer {} (taken unchecked)",
            link.session.peer().id()
        ));
    }
    Ok(far)
}

/// Standard input and output.
struct Near {
    stream: Stream,
    at_terminal: bool,
    /// Its end was passed on.
    ended: bool,
}

impl Near {
    async fn take() -> Result<Self, Failure> {
        let stdio: Endpoint = "stdio:"
            .parse()
            .map_err(|e| Failure::new(Code::Other, format!("{e}")))?;
        // Asked now, for `stdio:` takes the descriptor away.
        let at_terminal = io::stdin().is_terminal();
        Ok(Self {
            stream: transports::dial(&stdio).await?,
            at_terminal,
            ended: false,
        })
    }
}

/// What ended a join too early.
struct End {
    failure: Failure,
    /// It was the session that is no more.
    lost: bool,
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            lost: false,
        }
    }
}

/// The service.
struct Far {
    stream: Box<dyn ByteStream>,
    /// How it ended, where it says so, once it has.
    status: Option<Arc<Mutex<Option<Status>>>>,
}

impl Far {
    async fn open(link: &Link, service: &str, with_status: bool) -> Result<Self, OpenError> {
        let name = format!("{}{service}", wire::EXEC_PREFIX);
        if with_status && ServiceName::check(&name).is_ok() {
            match link.session.open(&name).await {
                Ok(far) => return Ok(Self::with_status(far, io::stdin().is_terminal())),
                Err(OpenError::Refused { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        link.session.open(service).await.map(Self::plain)
    }

    fn plain(far: Onion<Substream>) -> Self {
        Self {
            stream: Box::new(far),
            status: None,
        }
    }

    fn with_status(far: Onion<Substream>, at_terminal: bool) -> Self {
        let status = Arc::<Mutex<_>>::default();
        let ended = Arc::clone(&status);
        let hear = move |message| match message {
            Message::Ended(status) => {
                *ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
            }
            Message::Stderr(line) => say(line),
            Message::Terminal(_) if at_terminal => {
                say("the service has a terminal of its own, which echoes too: use `cepa console`");
            }
            Message::Terminal(_) | Message::Break | Message::OutputEnded => {}
        };
        Self {
            stream: Box::new(
                Framed::new(far, Box::new(hear))
                    .with_chunk(wire::BULK_MAX)
                    .splitting_the_end(),
            ),
            status: Some(status),
        }
    }

    /// Whether it has said how it ended.
    fn has_ended(&self) -> bool {
        let status = self.status.as_ref();
        status.is_some_and(|s| s.lock().unwrap_or_else(PoisonError::into_inner).is_some())
    }

    /// What a service's end means that was none of an error: its status, where that was to come.
    fn ended(&self) -> Result<(), Failure> {
        let Some(status) = &self.status else {
            return Ok(());
        };
        let status = status.lock().unwrap_or_else(PoisonError::into_inner).take();
        let cut = || {
            let why = "the service ended without saying how, so its output may be incomplete; the server's log tells more";
            Err(Failure::new(Code::Other, why))
        };
        status.map_or_else(cut, ended)
    }
}

/// What the end of a service's command is for this process.
pub(crate) fn ended(status: Status) -> Result<(), Failure> {
    match status {
        Status::Exited(0) => Ok(()),
        Status::Exited(status) => Err(Failure::of_command(status)),
        Status::Killed(signal) => {
            say(&status);
            Err(Failure::of_command(128_u8.saturating_add(signal)))
        }
        Status::Failed(why) => Err(Failure::new(Code::Other, why)),
    }
}

async fn joined(link: &Link, near: &mut Near, far: &mut Far) -> Result<(), End> {
    // Who says how it ended has no use for more input; a person at a terminal has nothing more to say then. A pipe may.
    let mut join = Join::new(&mut near.stream, &mut far.stream)
        .end_with_near()
        .end_with_far(near.at_terminal || far.status.is_some())
        .read_far_to_its_end(far.status.is_some())
        .hold_near_end();
    let ended = loop {
        match join.step().await {
            Step::NearEnded => {
                near.ended = true;
                join.pass_end_on();
            }
            Step::Over(ended) => break ended,
        }
    };
    let lost = async |e: &io::Error| {
        if reset_by_peer(e) {
            return None;
        }
        let failure = link.lost().await?;
        Some(End {
            failure,
            lost: true,
        })
    };
    match ended {
        // A service may end and leave the rest of its input unread; a session that ends so has cut it.
        Ended::Both {
            far_left: Some(e), ..
        } if !reset_by_peer(&e) && !far.has_ended() => Err(lost(&e)
            .await
            .unwrap_or_else(|| Failure::new(Code::Lost, format!("input was cut off: {e}")).into())),
        Ended::Both { .. } => Ok(far.ended()?),
        // The reader of standard output has what it wanted.
        Ended::NearLeft(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Ended::NearLeft(e) => {
            let message = format!("cannot write to standard output: {e}");
            Err(Failure::new(Code::Other, message).into())
        }
        Ended::Near(e) => {
            let message = format!("cannot read standard input: {e}");
            Err(Failure::new(Code::Other, message).into())
        }
        Ended::Far(e) => Err(lost(&e).await.unwrap_or_else(|| {
            let message = format!(
                "the service ended abnormally ({e}), so its output is incomplete; \
                 the server's log tells more"
            );
            Failure::new(Code::Other, message).into()
        })),
    }
}

/// Whether it was this substream alone that the other end dropped; the session goes on then.
pub(crate) fn reset_by_peer(e: &io::Error) -> bool {
    let cause = e.get_ref().and_then(|e| e.downcast_ref::<StreamError>());
    matches!(cause, Some(StreamError::ResetByPeer { .. }))
}
