//! `cepa pipe`: two streams joined, each with the TLS layers that its address names. A command among them ends the pipe
//! when it exits, and gives it its status.
//!
//! With `--listen` the first of them is waited for, again and again (`piped.rs`).

use std::future::pending;
use std::time::Duration;

use cepa::Side;
use cepa::identity::Identity;
use cepa::onion::Onion;
use cepa::stack::{self, StackConfig};
use cepa::tls::TlsError;
use cepa::transports::{Endpoint, Layer, Stream, Target};

use crate::args::{self, Trust};
use crate::child::{self, Watched};
use crate::console::served;
use crate::console::wire::Status;
use crate::dial_failure::refused;
use crate::exit::{Code, Failure, say};
use crate::held::{Held, Passes};
use crate::id;
use crate::service_end::ended;
use crate::signal::Signals;
use crate::splice::{Join, Step, leave_before_cut};
use crate::splice_end::{Closing, Ended, Reader, lost, verdict};
use crate::stack::few_layers;
use crate::{dial, trust};

pub(crate) async fn run(args: args::Pipe) -> Result<(), Failure> {
    let identity = checked(&args)?;
    let mut signals = Signals::watch();
    // What is dropped here kills its commands, then closes their pipes.
    tokio::select! {
        result = piped(&args, identity.as_ref()) => result,
        signal = signals.ended_by() => Err(Failure::by_signal(signal)),
    }
}

async fn piped(args: &args::Pipe, identity: Option<&Identity>) -> Result<(), Failure> {
    let near = open(&args.one, &args.trust, identity).await?;
    let far = open(&args.other, &args.trust, identity).await?;
    carry(args, near, far).await
}

/// Whether these two can be joined, and the identity where one is needed.
pub(crate) fn checked(args: &args::Pipe) -> Result<Option<Identity>, Failure> {
    for address in [&args.one, &args.other] {
        few_layers(address)?;
        if address.layers().contains(&Layer::Mux) {
            return Err(Failure::new(
                Code::Usage,
                format!(
                    "{address}: mux carries many streams, and a pipe only one; use `cepa connect`"
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
    if secured {
        id::load(&args.identity).map(Some)
    } else {
        Ok(None)
    }
}

/// Joins two open ends until both have ended, and ends them as they did. A command's status is the failure.
pub(crate) async fn carry(args: &args::Pipe, mut near: End, mut far: End) -> Result<(), Failure> {
    let patience = args.patience.map(Duration::from_secs_f64);
    let over = match join(&mut near, &mut far, patience).await {
        Ok(over) => over,
        // The other end is cut: what it got is not all, whatever it looks like. All that the command said comes to it first.
        Err(status) => {
            tokio::join!(
                leave_before_cut(&mut near.onion),
                leave_before_cut(&mut far.onion)
            );
            return ended(status);
        }
    };
    let closing = verdict(&over);
    for (end, closing) in [(&mut near, closing.near), (&mut far, closing.far)] {
        // A reset would take back what is on its way.
        end.onion
            .wire_mut()
            .cut_when_dropped(closing == Closing::Cut);
    }
    if let Some((is_near, e)) = lost(&over, near.reader(&args.one), far.reader(&args.other)) {
        let address = if is_near { &args.one } else { &args.other };
        // Of this process's own files, as `cepa connect` has it.
        let code = match address.target() {
            Target::Stdio => Code::Other,
            _ => Code::Lost,
        };
        return Err(Failure::new(code, format!("{address}: {e}")));
    }
    // Who reads our standard output may leave, and a command is told so by SIGPIPE.
    let left = match &over {
        Ended::Both {
            near_left,
            far_left,
        } => near_left.is_some() || far_left.is_some(),
        _ => false,
    };
    // Closed first: a command may wait for that. Its status is this one's.
    for end in [near, far] {
        let End { onion, child } = end;
        drop(onion);
        if let Some(child) = child {
            let status = served::ended(child.ended().await.exit);
            if !(left && status == Status::Killed(SIGPIPE)) {
                ended(status)?;
            }
        }
    }
    Ok(())
}

/// Whether the end of a command's output is to be passed on: `Err` with its status where it has failed.
fn passes(held: &mut Held, other_may_send: bool) -> Result<bool, Status> {
    match held.passes(other_may_send) {
        Passes::No => Ok(false),
        Passes::Early => Ok(true),
        Passes::Exited(end) => match served::ended(end.exit) {
            // Whoever read what it wrote has left; that is for the other end to tell.
            Status::Killed(SIGPIPE) | Status::Exited(0) => Ok(true),
            status => Err(status),
        },
    }
}

/// Joins them to the end of both ways. A command that exits has ended, whatever else holds its pipes. `Err`: it has failed, and
/// its output was not all.
async fn join(near: &mut End, far: &mut End, patience: Option<Duration>) -> Result<Ended, Status> {
    let (one, other) = (near.exited(), far.exited());
    tokio::pin!(one, other);
    let mut join = Join::new(&mut near.onion, &mut far.onion).patience(patience);
    if near.child.is_some() {
        join = join.hold_near_end();
    }
    if far.child.is_some() {
        join = join.hold_far_end();
    }
    let (mut here, mut there) = (Held::default(), Held::default());
    loop {
        tokio::select! {
            step = join.step() => match step {
                Step::NearEnded => here.ended(),
                Step::FarEnded => there.ended(),
                Step::Over(ended) => return Ok(ended),
            },
            end = &mut one, if !here.has_exited() => {
                here.exited(end);
                join.near_is_gone();
            }
            end = &mut other, if !there.has_exited() => {
                there.exited(end);
                join.far_has_left();
            }
            () = here.due() => if here.is_drained() {
                join.near_has_ended();
            },
            () = there.due() => if there.is_drained() {
                join.far_has_ended();
            },
        }
        if passes(&mut here, join.far_may_send())? {
            join.pass_end_on();
        }
        if passes(&mut there, join.near_may_send())? {
            join.pass_far_end_on();
        }
    }
}

/// What ends a command that writes where nobody reads (POSIX).
const SIGPIPE: u8 = 13;

/// For each layer's handshake, as in a session's stack: whoever answers must answer soon.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// An open end of the pipe; a subprocess stays with it.
pub(crate) struct End {
    // Dropped first: a command is killed before its pipes close, and takes a cut for no end.
    child: Option<Watched>,
    onion: Onion<Stream>,
}

impl End {
    /// One that somebody has connected.
    pub(crate) fn accepted(mut stream: Stream) -> Self {
        stream.cut_when_dropped(true);
        Self {
            child: None,
            onion: Onion::new(stream),
        }
    }

    fn reader(&self, address: &Endpoint) -> Reader {
        match address.target() {
            _ if self.child.is_some() => Reader::Command,
            Target::Stdio => Reader::Output,
            _ => Reader::Other,
        }
    }

    /// Waits until the command has exited; for ever where there is none.
    fn exited(&self) -> impl Future<Output = child::End> + use<> {
        let ended = self.child.as_ref().map(Watched::end);
        async move {
            match ended {
                Some(ended) => ended.await,
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
    let stream = dial::dial(address).await?;
    dressed(stream, address, trust, identity).await
}

/// A dialled stream with the layers of its address.
pub(crate) async fn dressed(
    mut stream: Stream,
    address: &Endpoint,
    trust: &Trust,
    identity: Option<&Identity>,
) -> Result<End, Failure> {
    stream.remarks().iter().for_each(say);
    let child = stream
        .take_child()
        .map(|c| Watched::start(c, address.to_string()).whole());
    if address.layers().iter().any(|layer| layer.is_link()) {
        stream = linked(stream, address);
    }
    let mut onion = Onion::new(stream);
    if let Some(identity) = identity {
        let policy = trust::of_dialler(trust, address)?;
        let mut config = StackConfig::new(identity.clone(), policy).for_endpoint(address);
        config.ask_for = trust::asked_for(trust)?;
        // Written top of the stack first, so the last one is next to the wire and goes on first.
        for layer in address.layers().iter().rev().filter(|l| l.is_tls()) {
            let tls = config.tls(*layer)?;
            match tokio::time::timeout(HANDSHAKE, onion.push(Side::Client, &tls)).await {
                Ok(Ok(_peer)) => {}
                Ok(Err(e)) => {
                    return Err(match e.root() {
                        TlsError::Refused(refusal) => {
                            refused(refusal, address, Some(identity.peer_id()))
                        }
                        _ => e.into(),
                    });
                }
                Err(_) => return Err(TlsError::TimedOut.into()),
            }
        }
    }
    // Whoever is there must not take what has come of a stream that broke for all there is.
    onion.wire_mut().cut_when_dropped(true);
    Ok(End { child, onion })
}
