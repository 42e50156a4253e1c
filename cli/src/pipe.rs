//! `cepa pipe`: two streams joined, each with the TLS layers that its address names. A command among them ends the pipe
//! when it exits, and gives it its status.

use std::future::pending;
use std::time::Duration;

use cepa::Side;
use cepa::identity::Identity;
use cepa::onion::Onion;
use cepa::stack::{self, StackConfig};
use cepa::tls::TlsError;
use cepa::transports::{self, Endpoint, Layer, Stream, Target};
use tokio::time::{Instant, sleep_until};

use crate::args::{self, Trust};
use crate::child::Watched;
use crate::connect;
use crate::console::served;
use crate::console::wire::{Message, Status};
use crate::exit::{Code, Failure, say};
use crate::id;
use crate::join::{Ended, Join, Step};
use crate::link::refused;
use crate::near::DRAIN;
use crate::stack::few_layers;
use crate::trust;

pub(crate) async fn run(args: args::Pipe) -> Result<(), Failure> {
    for address in [&args.one, &args.other] {
        few_layers(address)?;
        if address.layers().contains(&Layer::Mux) {
            return Err(Failure::new(
                Code::Usage,
                format!(
                    "{address}: a mux carries many streams, a pipe joins one; use `cepa connect`"
                ),
            ));
        }
        let above = address
            .layers()
            .split_last()
            .map_or(&[][..], |(_, above)| above);
        if above.iter().any(|layer| layer.is_link()) {
            return Err(Failure::new(
                Code::Usage,
                format!("{address}: a link is the lowest layer; write link+ next to the scheme"),
            ));
        }
    }
    let secured = [&args.one, &args.other]
        .iter()
        .any(|a| a.layers().iter().any(|l| l.is_tls()));
    let identity = if secured {
        Some(id::load(&args.identity)?)
    } else {
        None
    };
    let mut near = open(&args.one, &args.trust, identity.as_ref()).await?;
    let mut far = open(&args.other, &args.trust, identity.as_ref()).await?;
    let patience = args.patience.map(Duration::from_secs_f64);
    let ended = join(&mut near, &mut far, patience).await;
    let lost = |address: &Endpoint, e: &std::io::Error| {
        Failure::new(Code::Lost, format!("{address}: {e}"))
    };
    // Who reads our standard output may leave, and a command is told so by SIGPIPE.
    let left = match &ended {
        Ended::Both {
            near_left,
            far_left,
        } => {
            let quietly = |address, left: &Option<std::io::Error>| {
                left.as_ref().is_some_and(|e| left_quietly(address, e))
            };
            quietly(&args.one, near_left) || quietly(&args.other, far_left)
        }
        _ => false,
    };
    match ended {
        // Who stops taking what the other sends has lost it; only a reader of our standard output
        // may do that quietly. A command says with its status what that was.
        Ended::Both {
            near_left: Some(e), ..
        } if !near.is_command() && !left_quietly(&args.one, &e) => return Err(lost(&args.one, &e)),
        Ended::Both {
            far_left: Some(e), ..
        } if !far.is_command() && !left_quietly(&args.other, &e) => {
            return Err(lost(&args.other, &e));
        }
        Ended::Both { .. } => {}
        Ended::Near(e) | Ended::NearLeft(e) => return Err(lost(&args.one, &e)),
        Ended::Far(e) => return Err(lost(&args.other, &e)),
    }
    // Closed first: a command may wait for that. Its status is this one's.
    for end in [near, far] {
        let End { onion, child } = end;
        drop(onion);
        if let Some(child) = child
            && let Message::Ended(status) = served::ended(child.ended().await.exit)
            && !(left && status == Status::Killed(SIGPIPE))
        {
            connect::ended(status)?;
        }
    }
    Ok(())
}

/// Joins them to the end of both ways. A command that exits has ended, whatever else holds its pipes.
async fn join(near: &mut End, far: &mut End, patience: Option<Duration>) -> Ended {
    let (one, other) = (near.exited(), far.exited());
    tokio::pin!(one, other);
    let mut join = Join::new(&mut near.onion, &mut far.onion).patience(patience);
    let (mut one_gone, mut other_gone) = (false, false);
    // When what they wrote must have come.
    let (mut one_until, mut other_until) = (None, None);
    let until = |until: Option<Instant>| async move {
        match until {
            Some(until) => sleep_until(until).await,
            None => pending().await,
        }
    };
    loop {
        tokio::select! {
            step = join.step() => match step {
                Step::NearEnded => join.pass_end_on(),
                Step::Over(ended) => return ended,
            },
            () = &mut one, if !one_gone => {
                one_gone = true;
                one_until = Some(Instant::now() + DRAIN);
                join.near_is_gone();
            }
            () = &mut other, if !other_gone => {
                other_gone = true;
                other_until = Some(Instant::now() + DRAIN);
                join.far_has_left();
            }
            () = until(one_until) => {
                one_until = None;
                join.near_has_ended();
            }
            () = until(other_until) => {
                other_until = None;
                join.far_has_ended();
            }
        }
    }
}

fn left_quietly(address: &Endpoint, e: &std::io::Error) -> bool {
    matches!(address.target(), Target::Stdio) && e.kind() == std::io::ErrorKind::BrokenPipe
}

/// What ends a command that writes where nobody reads (POSIX).
const SIGPIPE: u8 = 13;

/// For each layer's handshake, as in a session's stack: whoever answers must answer soon.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// An open end of the pipe; a subprocess stays with it.
struct End {
    onion: Onion<Stream>,
    child: Option<Watched>,
}

impl End {
    fn is_command(&self) -> bool {
        self.child.is_some()
    }

    /// Waits until the command has exited; for ever where there is none.
    fn exited(&self) -> impl Future<Output = ()> + use<> {
        let ended = self.child.as_ref().map(Watched::end);
        async move {
            match ended {
                Some(ended) => {
                    ended.await;
                }
                None => pending().await,
            }
        }
    }
}

/// The stream with a link on it.
fn linked(stream: Stream, address: &Endpoint) -> Stream {
    let (label, remote) = (stream.label().to_owned(), stream.remote().clone());
    let config = stack::link_config(address, &cepa::link::Config::default());
    // Both ends of a pipe dial, so both speak.
    let (link, driver) = cepa::link::link(stream, Side::Client, &config);
    tokio::spawn(driver);
    Stream::from_io(link, label).with_remote(remote)
}

async fn open(
    address: &Endpoint,
    trust: &Trust,
    identity: Option<&Identity>,
) -> Result<End, Failure> {
    let mut stream = transports::dial(address).await?;
    stream.remarks().iter().for_each(say);
    let child = stream
        .take_child()
        .map(|c| Watched::start(c, address.to_string()));
    if address.layers().iter().any(|layer| layer.is_link()) {
        stream = linked(stream, address);
    }
    let mut onion = Onion::new(stream);
    if let Some(identity) = identity {
        let policy = trust::of_dialler(trust, address)?;
        let mut config = StackConfig::new(identity.clone(), policy).tuned_to(address);
        config.ask_for = trust::asked_for(trust)?;
        // Written top of the stack first, so the last one is next to the wire and goes on first.
        for layer in address.layers().iter().rev().filter(|l| l.is_tls()) {
            let tls = config.tls(*layer)?;
            match tokio::time::timeout(HANDSHAKE, onion.push(Side::Client, &tls)).await {
                Ok(Ok(_peer)) => {}
                Ok(Err(e)) => {
                    return Err(match e.root() {
                        TlsError::Refused(refusal) => refused(refusal, address),
                        _ => e.into(),
                    });
                }
                Err(_) => return Err(TlsError::TimedOut.into()),
            }
        }
    }
    Ok(End { onion, child })
}
