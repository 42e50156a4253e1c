//! `cepa connect`: standard input and output joined to a service of a peer.
//!
//! With `--reconnect` the service is opened anew in a new session when the session is lost. Bytes that were
//! on their way are gone then, in both directions; standard input is not read meanwhile, so what comes later
//! is whole. Once it was passed on to its end there is nothing to open the service anew for: the loss is the end. An input that
//! ended without a byte is passed on again.

use std::io::{self, IsTerminal as _};
use std::task::{Context, Poll};

use cepa::mux::{StreamError, Substream};
use cepa::onion::Onion;
use cepa::session::OpenError;
use cepa::transports::{self, ByteStream, Endpoint, Stream};

use crate::args::{self, DialTarget};
use crate::behind_ssh;
use crate::chosen;
use crate::connection::Connected;
use crate::console::framed::Framed;
use crate::console::wire;
use crate::exit::{Code, Failure, say};
use crate::id;
use crate::keep::{self, Keep};
use crate::linger::linger;
use crate::reconnect::Reconnect;
use crate::say::Line;
use crate::service_end::{self, Becomes, Ending, How, Opened, becomes};
use crate::short_code;
use crate::signal::Signals;
use crate::splice::{Join, Leaves, Step};
use crate::splice_end::Ended;

pub(crate) async fn run(args: args::Connect) -> Result<(), Failure> {
    let error_status = args.error_status;
    connect(args)
        .await
        .map_err(|failure| failure.with_error_status(error_status))
}

async fn connect(mut args: args::Connect) -> Result<(), Failure> {
    let identity = id::load(&args.dialling.identity)?;
    short_code::redeem(
        &mut args.address,
        &args.dialling.trust,
        &args.code_relay,
        &identity,
    )
    .await?;
    behind_ssh::service(&mut args.address, &mut args.service)?;
    let service = service(&args.address, &args.service)?;
    if let DialTarget::Introduced(it) = &args.address {
        if args.reconnect {
            let why = "an introduction allows a fixed number of connections; leave out --reconnect";
            return Err(Failure::new(Code::Usage, why));
        }
        if args.dialling.local_hints.allowed {
            let why = "an introduction comes from someone else, so it may lead only to network addresses; leave out --local-hints";
            return Err(Failure::new(Code::Usage, why));
        }
        if args.dialling.durable.keep(false) != Keep::Not {
            let why = "the session of an introduction ends with its connection; leave out --durable and --park";
            return Err(Failure::new(Code::Usage, why));
        }
        let (connection, far) = Connected::introduced(it, &args.dialling.trust, &identity).await?;
        let mut signals = Signals::watch();
        let signal = tokio::select! {
            ended = joined_once(&connection, Far::plain(far)) => return ended,
            signal = signals.ended_by() => signal,
        };
        return Err(connection.ended_by(signal).await);
    }
    let keep = args.dialling.durable.keep(false);
    let mut again = Reconnect::new(&args.address, &args.dialling, &identity, None).keeping(keep);
    let mut connection = again.first(args.reconnect).await?;
    if args.dialling.durable.is_asked_for() {
        keep::warn_if_not(&connection.session);
    }
    let service = chosen::service(&connection, &service).await?;
    let mut signals = Signals::watch();
    let signal = tokio::select! {
        ended = carried(&mut connection, &mut again, &args, &service) => {
            return ended.map_err(|failure| match keep {
                Keep::Not => failure.with_durable(),
                Keep::For(_) => failure,
            });
        }
        signal = signals.ended_by() => signal,
    };
    Err(connection.ended_by(signal).await)
}

/// Opens the service in the session, and again in those that are made in its place, and carries it to its end.
async fn carried(
    connection: &mut Connected,
    again: &mut Reconnect<'_>,
    args: &args::Connect,
    service: &str,
) -> Result<(), Failure> {
    if !args.reconnect {
        let far = match open(connection, args, service).await {
            Ok(far) => far,
            Err(failure) => {
                connection.close().await;
                return Err(failure);
            }
        };
        return joined_once(connection, far).await;
    }
    let mut near = None;
    loop {
        let lost = match open(connection, args, service).await {
            Ok(mut far) => {
                // Taken only now: an error before it should leave standard input to who reads it next.
                let near = match &mut near {
                    Some(near) => near,
                    none => none.insert(Near::take(true).await?),
                };
                match joined(connection, near, &mut far).await {
                    Ok(()) => {
                        drop(far);
                        return connection.finish().await;
                    }
                    Err(end) => end,
                }
            }
            Err(failure) => End {
                lost: failure.is_transient(),
                failure,
            },
        };
        if !lost.lost {
            connection.close().await;
            return Err(lost.failure);
        }
        // An input without a byte (`</dev/null`) is given again as it was.
        if near.as_ref().is_some_and(|near| near.ended && near.gave) {
            connection.close().await;
            return Err(lost
                .failure
                .while_reconnecting()
                .with("standard input cannot be read twice, so the service is not opened again"));
        }
        let failure = if let Some(near) = &mut near {
            // A person sees what is lost, and says it again.
            near.torn |= near.gave && !near.at_terminal;
            lost.failure.with("data in transit was lost")
        } else {
            lost.failure
        };
        *connection = again.after(connection, failure, |line| say(line)).await?;
    }
}

/// Carries the one session there is to its end.
async fn joined_once(connection: &Connected, mut far: Far) -> Result<(), Failure> {
    let result = match Near::take(false).await {
        Ok(mut near) => joined(connection, &mut near, &mut far)
            .await
            .map_err(|end| end.failure),
        Err(failure) => Err(failure),
    };
    drop(far);
    if result.is_err() {
        connection.close().await;
        return result;
    }
    // What was written must all leave, however slowly the service takes it.
    connection.finish().await
}

/// The same for a substream whose service says how it ended, whoever has opened it.
pub(crate) async fn carried_once(
    connection: &Connected,
    far: Framed<Onion<Substream>>,
    ending: Ending,
) -> Result<(), Failure> {
    joined_once(connection, Far::framed(far, ending)).await
}

/// The service, which an address of a peer may name as well.
pub(crate) fn service(address: &DialTarget, given: &str) -> Result<String, Failure> {
    let named = match address {
        DialTarget::Peer(address) => address.service(),
        DialTarget::Introduced(it) => it.address().map_or("", |address| address.service()),
        DialTarget::Place(_) | DialTarget::Ticket(_) | DialTarget::Code(_) => "",
    };
    if !named.is_empty() && !given.is_empty() && named != given {
        return Err(Failure::new(
            Code::Usage,
            format!("the address already names the service {named}; leave out {given}"),
        ));
    }
    let service = if named.is_empty() { given } else { named };
    Ok(service.to_owned())
}

async fn open(connection: &Connected, args: &args::Connect, service: &str) -> Result<Far, Failure> {
    let far = Far::open(connection, service, !args.no_status).await?;
    if args.dialling.trust.trust.is_some() {
        // Printed once it has answered: an error would be all there is to say.
        say(format_args!(
            "peer {} (not verified)",
            connection.session.peer().id()
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
    /// It has given something.
    gave: bool,
    /// A part of what it gave was for a session that is lost, so its end is not the end of what the service has.
    torn: bool,
    /// The service is opened again when its session is lost.
    again: bool,
}

impl Near {
    async fn take(again: bool) -> Result<Self, Failure> {
        let stdio: Endpoint = "stdio:"
            .parse()
            .map_err(|e| Failure::new(Code::Other, format!("{e}")))?;
        // Asked now, for `stdio:` takes the descriptor away.
        let at_terminal = io::stdin().is_terminal();
        Ok(Self {
            stream: transports::dial(&stdio).await?,
            at_terminal,
            ended: false,
            gave: false,
            torn: false,
            again,
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

/// A substream, framed or not.
trait FarStream: ByteStream + Leaves {
    /// What it stands on.
    fn substream(&mut self) -> &mut Substream;
}

impl FarStream for Onion<Substream> {
    fn substream(&mut self) -> &mut Substream {
        self.wire_mut()
    }
}

impl FarStream for Framed<Onion<Substream>> {
    fn substream(&mut self) -> &mut Substream {
        self.inner_mut().wire_mut()
    }
}

impl crate::chunk::Pieces for Box<dyn FarStream> {}

impl Leaves for Box<dyn FarStream> {
    fn poll_left(&mut self, cx: &mut Context<'_>, reading: bool) -> Poll<io::Error> {
        (**self).poll_left(cx, reading)
    }
}

/// The service.
struct Far {
    stream: Box<dyn FarStream>,
    /// It says how it ended.
    says: bool,
    ending: Ending,
}

impl Far {
    async fn open(
        connection: &Connected,
        service: &str,
        with_status: bool,
    ) -> Result<Self, OpenError> {
        if !with_status {
            return connection.session.open(service).await.map(Self::plain);
        }
        let ending = Ending::default();
        let notify = |line: &str| say(Line::from(line).asked_for());
        let far = service_end::open(
            &connection.session,
            wire::EXEC_PREFIX,
            service,
            &ending,
            notify,
        )
        .await?;
        Ok(match far {
            Opened::Plain(far) => Self::plain(*far),
            Opened::Framed(far) => Self::framed(*far, ending),
        })
    }

    fn framed(far: Framed<Onion<Substream>>, ending: Ending) -> Self {
        Self {
            stream: Box::new(far.with_chunk(wire::BULK_MAX).splitting_the_end()),
            says: true,
            ending,
        }
    }

    fn plain(far: Onion<Substream>) -> Self {
        Self {
            stream: Box::new(far),
            says: false,
            ending: Ending::default(),
        }
    }
}

async fn joined(connection: &Connected, near: &mut Near, far: &mut Far) -> Result<(), End> {
    // Who says how it ended has no use for more input; a person at a terminal has nothing more to say then. A pipe may.
    let mut join = Join::new(&mut near.stream, &mut far.stream)
        .end_with_near()
        .end_with_reader()
        .end_with_far(near.at_terminal || far.says)
        .read_far_to_its_end(far.says)
        .stop_near_with_far(near.at_terminal)
        .hold_near_end();
    let ended = loop {
        match join.step().await {
            Step::NearEnded if near.torn => {
                let why = "a part of standard input was lost with its session, so its end is not passed on: the service is cut";
                return Err(Failure::new(Code::Lost, why).into());
            }
            Step::NearEnded => {
                near.ended = true;
                join.pass_end_on();
            }
            // It is not held.
            Step::FarEnded => join.pass_far_end_on(),
            Step::Over(ended) => break ended,
        }
    };
    let passed = join.near_end_passed();
    near.gave |= join.near_gave();
    let (how, why) = match ended {
        // The reader of standard output has what it wanted; the service may be busy with all of our input.
        Ended::NearLeft(e) if e.kind() == io::ErrorKind::BrokenPipe => {
            if passed {
                let left = |far: &mut Box<dyn FarStream>, cx: &mut Context<'_>| {
                    far.substream().poll_drained(cx).map(|_| ())
                };
                linger(&mut far.stream, left).await;
            }
            return Ok(());
        }
        Ended::NearLeft(e) => {
            let message = format!("cannot write to standard output: {e}");
            return Err(Failure::new(Code::Other, message).into());
        }
        Ended::Near(e) => {
            let message = format!("cannot read standard input: {e}");
            return Err(Failure::new(Code::Other, message).into());
        }
        // It may leave the rest of its input unread; a session that ends so has cut it.
        Ended::Both {
            far_left: Some(e), ..
        } if !reset_by_peer(&e) => (How::Lost, format!("input was cut off: {e}")),
        Ended::Both { .. } if far.says => {
            let why = "the service ended without a status, so its output may be incomplete; see the server's log";
            (How::Unsaid, why.to_owned())
        }
        // A session waits only so long for what is queued when it is closed, and the service may take its time.
        Ended::Both { .. } if passed => match far.stream.substream().drained(None).await {
            Err(e) if !reset_by_peer(&e) => (How::Lost, format!("input was cut off: {e}")),
            _ => (How::Ended, String::new()),
        },
        Ended::Both { .. } => (How::Ended, String::new()),
        Ended::Far(e) => {
            let why = format!(
                "the service ended abnormally ({e}), so its output is incomplete; \
                 the server's log tells more"
            );
            if reset_by_peer(&e) || connection.lost().await.is_none() {
                (How::Reset, why)
            } else {
                (How::Lost, why)
            }
        }
    };
    let how = far.ending.take().map_or(how, How::Said);
    match becomes(&how, near.again) {
        Becomes::Success => Ok(()),
        Becomes::Status(status) => Ok(service_end::ended(status)?),
        Becomes::Failure(Code::Lost) => {
            let lost = connection.lost().await;
            Err(lost.unwrap_or_else(|| Failure::new(Code::Lost, why)).into())
        }
        Becomes::Failure(code) => Err(Failure::new(code, why).into()),
        Becomes::Reconnect => {
            let lost = connection.lost().await;
            let cut = || Failure::new(Code::Lost, why).into();
            Err(lost.map_or_else(cut, |failure| End {
                failure,
                lost: true,
            }))
        }
    }
}

/// Whether it was this substream alone that the other end dropped; the session goes on then.
pub(crate) fn reset_by_peer(e: &io::Error) -> bool {
    let cause = e.get_ref().and_then(|e| e.downcast_ref::<StreamError>());
    matches!(cause, Some(StreamError::ResetByPeer { .. }))
}

#[cfg(test)]
mod tests {
    use crate::console::wire::Status;
    use crate::service_end::ended;

    #[test]
    fn a_failure_without_words_is_ours_to_explain_and_the_commands_is_not() {
        let failure = ended(Status::Failed(String::new())).unwrap_err();
        assert!(!failure.is_of_command());
        assert!(failure.message.contains("did not say why"));
        let failure = ended(Status::Exited(3)).unwrap_err();
        assert!(failure.is_of_command());
    }
}
