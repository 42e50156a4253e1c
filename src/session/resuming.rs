//! A session goes on over another connection: the hello of either end, and the proofs in it.
//!
//! ```text
//!   dials                                             accepts
//!   TLS, ALPN cepa-resume/1      <------------------>
//!   binding, resume              ------------------->  the same two peers? the token's holder? a newer path?
//!                                <-------------------  binding, resumed (or refused)
//!   frames of the session        <------------------>
//! ```
//!
//! Each end is proven by its key first, in a handshake of its own, as in any session; the token alone opens nothing. What is said
//! is bound to the connection by its exporter. The end that dials stops to acknowledge until the other one has answered, so that
//! nothing is lost that still comes over a path that lives.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use cepa_transports::Rate;
use tokio::io::AsyncWriteExt as _;
use tokio::time::{timeout, timeout_at};

use crate::Side;
use crate::backend;
use crate::identity::PeerId;
use crate::mux::MuxError;
use crate::resume::{self, At, Hello, HelloError, Refusal, Ticket};
use crate::stack::{
    self, Binding, Bound, Built, ConnectError, Ends, Found, HelloFault, Lasting, PathInfo, Resumed,
    StackConfig, Wire, close_lingering,
};
use crate::tls::TlsError;

use super::error::{binding_within, tls_inside};

/// How long a hello waits for another one.
const ALONE: Duration = Duration::from_secs(3);

/// A name and a token that nobody can guess.
pub(super) fn new_ticket() -> Result<Ticket, ConnectError> {
    let mut random = zeroize::Zeroizing::new([0; Ticket::RANDOM]);
    backend::fill(&mut *random).map_err(|_| {
        ConnectError::Tls(TlsError::Misuse {
            what: "the system has no random numbers",
        })
    })?;
    Ok(Ticket::from_random(&random))
}

/// What came of a hello that could not be said or read.
pub(super) fn hello_failed(error: HelloError) -> ConnectError {
    match error {
        HelloError::Io(error) => io_failed(error),
        HelloError::Refused(why) => ConnectError::NotResumed(why),
        HelloError::Malformed(error) => ConnectError::Hello(error.into()),
        HelloError::Proof => ConnectError::Hello(HelloFault::Proof),
    }
}

pub(super) fn io_failed(error: io::Error) -> ConnectError {
    if let Some(tls) = tls_inside(&error) {
        return ConnectError::Tls(tls);
    }
    if let Some(reason) = binding_within(&error) {
        return ConnectError::Binding(reason);
    }
    if error.kind() == io::ErrorKind::UnexpectedEof {
        // The layer below was closed in order, as who gives a handshake up does.
        return ConnectError::Tls(TlsError::GivenUp);
    }
    ConnectError::Mux(MuxError::Io(error.into()))
}

/// The session goes on over a connection that this end has dialled; with `only_if_lost` only where it has none. `config` is
/// what it was dialled with.
///
/// # Cancel safety
/// Dropping the future drops the connection. Where the peer has taken it for the session's by then, it finds it lost.
pub(super) async fn go_on(
    lasting: &Arc<Lasting>,
    built: Built,
    config: &StackConfig,
    only_if_lost: bool,
) -> Result<(), ConnectError> {
    let fit = fits(lasting, &built, config);
    let facts = fit.and_then(|()| {
        let binding = Binding::of(&built.onion, Side::Client)?;
        Ok((binding, stack::tls_exporter(&built.onion)?))
    });
    let mut path = built.path(Side::Client);
    let Built {
        mut onion,
        deadline,
        line_rate,
        ..
    } = built;
    let (binding, exporter) = match facts {
        Ok(facts) => facts,
        Err(error) => {
            close_lingering(onion).await;
            return Err(error);
        }
    };
    // One whose path is stuck in the middle of it must not keep the others from theirs: the later one counts, then.
    let alone = timeout(ALONE, lasting.hello.lock()).await;
    if only_if_lost && lasting.handle.pathless_since().is_none() {
        // The peer came by itself meanwhile, or another attempt was quicker.
        drop(alone);
        close_lingering(onion).await;
        return Ok(());
    }
    onion.cork();
    onion.write_all(binding.ours()).await.map_err(io_failed)?;
    let mut wire: Wire = Box::new(Bound::new(onion, binding));
    let said = timeout_at(deadline, async {
        let proposal = lasting.handle.propose().await;
        let proposal = proposal.map_err(|_| ConnectError::Over)?;
        let at = proposal.at();
        let theirs = resume::client_resume(&mut wire, &lasting.ticket, &exporter, at).await;
        Ok::<_, ConnectError>((proposal, theirs.map_err(hello_failed)?))
    });
    let (proposal, theirs) = match said.await {
        Ok(said) => said?,
        Err(_) => {
            return Err(ConnectError::TimedOut {
                during: "the hello of the session on its new connection".into(),
            });
        }
    };
    path.generation = theirs.generation;
    let lasting = Arc::clone(lasting);
    // To its end, whoever waits for it: once it is attached it is to be known as the path.
    let attaching = tokio::spawn(async move {
        let attached = proposal.attach(wire, theirs, line_rate).await;
        path.number = attached.map_err(|error| not_attached(&error))?;
        took(&lasting, path, line_rate);
        Ok(())
    });
    attaching.await.unwrap_or(Err(ConnectError::Over))
}

fn took(lasting: &Lasting, mut path: PathInfo, line_rate: Option<Rate>) {
    path.since = tokio::time::Instant::now().into_std();
    lasting.attached(path, line_rate);
}

fn not_attached(error: &resume::AttachError) -> ConnectError {
    match error {
        resume::AttachError::Stale => ConnectError::NotResumed(Refusal::Stale),
        resume::AttachError::Over => ConnectError::Over,
        resume::AttachError::Violation(violation) => {
            ConnectError::Hello(HelloFault::Violation(*violation))
        }
    }
}

/// Whether a connection can carry the session at all.
fn fits(lasting: &Lasting, built: &Built, config: &StackConfig) -> Result<(), ConnectError> {
    let layers = built.onion.layers();
    let Some(layer) = layers.last() else {
        return Err(ConnectError::NotKept);
    };
    let own = (&config.identity, &*config.more_identities);
    if !lasting.ends.are(layers, own) {
        return Err(ConnectError::OtherPeer(layer.peer().id()));
    }
    if !built.is_lasting() {
        // The right peer, which has no such sessions: it was started anew.
        return Err(ConnectError::NotResumed(Refusal::Unknown));
    }
    Ok(())
}

/// What a server knows of a connection whose client has said a hello.
pub(super) struct Arrived<'a> {
    pub(super) wire: Wire,
    pub(super) peer: PeerId,
    pub(super) exporter: &'a [u8; 32],
    pub(super) path: PathInfo,
    pub(super) line_rate: Option<Rate>,
}

/// The client of a connection that came takes a session up: the answer, and what to tell whoever has accepted it.
pub(super) async fn taken_up(
    arrived: Arrived<'_>,
    (id, at, proof): (resume::Id, At, [u8; 32]),
    config: &StackConfig,
) -> ConnectError {
    let Arrived {
        mut wire,
        peer,
        exporter,
        mut path,
        line_rate,
    } = arrived;
    let own = (&config.identity, &*config.more_identities);
    let may = |ends: &Ends, ticket: &Ticket| {
        ends.are(&path.layers, own) && ticket.proves(&proof, Side::Client, exporter, at)
    };
    let found = match config.registry.find(&id) {
        None => Err(Refusal::Unknown),
        Some(Found::Here(lasting)) if may(&lasting.ends, &lasting.ticket) => Ok(lasting),
        Some(Found::Ended(ended)) if may(&ended.ends, &ended.ticket) => Err(ended.why),
        Some(_) => Err(Refusal::NotYours),
    };
    let claimed = match found {
        Ok(lasting) => lasting.handle.claim(at).await.map(|claim| (lasting, claim)),
        Err(refused) => Err(refused),
    };
    let (lasting, claim) = match claimed {
        Ok(claimed) => claimed,
        Err(refused) => {
            if resume::answer_refused(&mut wire, refused).await.is_ok() {
                let _ = wire.shutdown().await;
            }
            return ConnectError::NotTakenUp { peer, why: refused };
        }
    };
    path.generation = claim.at().generation;
    let reported = async {
        resume::answer_resumed(&mut wire, &lasting.ticket, exporter, claim.at()).await?;
        wire.flush().await
    };
    if let Err(error) = reported.await {
        return io_failed(error);
    }
    let attaching = tokio::spawn(async move {
        path.number = match claim.attach(wire, line_rate).await {
            Ok(number) => number,
            Err(error) => return not_attached(&error),
        };
        took(&lasting, path.clone(), line_rate);
        ConnectError::Resumed(Resumed::new(lasting, path))
    });
    attaching.await.unwrap_or(ConnectError::Over)
}

/// The hello of a client, as this end needs it.
pub(super) async fn heard(wire: &mut Wire) -> Result<Hello, ConnectError> {
    resume::read_hello(wire).await.map_err(hello_failed)
}
