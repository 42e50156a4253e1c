//! Several programs of one user on one session: the program that has it lends it to others, by a socket of this machine.
//!
//! ```text
//! borrower ── mux+tls, by the socket ── lender ── its session ── peer
//! ```
//!
//! A serial line carries one session, and a second one to the same peer costs a handshake in any case. So a borrower makes a session with
//! the *lender*, each substream of which the lender opens at the peer under the same name and joins, as a forwarder does (`copy.rs`): ends stay
//! ends, resets stay resets with their codes, and refusals have the peer's words. To the peer all of it is the lender.
//!
//! Who may borrow is a question of the socket (its mode, its directory, whose process is at its other end), which the program asks that
//! has the socket. Beyond that both ends have to show the same identity: TLS between them, each trusting its own id alone, proves that. So
//! nobody who borrows becomes somebody else to the peer, and what is lent stays with those who could have dialled themselves.
//!
//! ```text
//! lender    01 a session is lent here         02 none: too many borrow it already
//! borrower  opens cepa.lent.peer: the peer's certificates or its id, which the borrower judges by its own policy
//! borrower  opens cepa.lent.ping: accepted when the peer has answered a ping
//! ```
//!
//! The borrower's session ends with the lender's, and says the same: closed by the peer, gone away with a code. Where the lender's is
//! lost, the socket is cut, and nothing is reset before: a reset would say that the service failed.

use std::any::Any;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use cepa_transports::throttle::{Grant, Policy};
use cepa_transports::{Side, Stream};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use crate::identity::{Identity, PeerId, Pinned};
use crate::mux::StreamTimeouts;
use crate::session::{
    ConnectError, Incoming, OpenError, OpenOptions, ServiceStream, Session, SessionEnd, reserved,
};
use crate::stack::StackConfig;
use crate::tls::Peer;

use super::copy::{End, copy};

/// A session is lent.
const READY: u8 = 1;
/// None is.
const FULL: u8 = 2;

/// What the lender says of its peer is of one form.
const CERTIFICATES: u8 = 1;
const KEY: u8 = 2;

/// Substreams that one borrower may have open at once: each is one at the peer as well. So many would exhaust what a peer gives one session.
const STREAMS: usize = 256;

/// The longest that is said of a peer, in bytes: chains of certificates have some KiB.
const MOST_SAID: u64 = 64 << 10;

/// How long the peer may take to accept a service: whoever asked has a limit of its own, and is gone by then.
const PATIENCE: Duration = Duration::from_secs(600);

/// How long a word of the protocol may take between two programs of one machine, while neither waits for the network.
const AT_ONCE: Duration = Duration::from_secs(10);

/// Why a session was not borrowed. Each text is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BorrowError {
    /// As many borrow it as may.
    #[error("too many programs share that connection already: end one of them")]
    Full,
    /// Whoever listens there has none, and did not come to have one: another attempt finds another lender, or none.
    #[error("the program that was to share its connection is gone ({0})")]
    Gone(#[source] io::Error),
    /// The handshake with the lender failed: it has another identity, or is none.
    #[error("the program that shares its connection: {0}")]
    Connect(#[from] ConnectError),
    /// It speaks another language.
    #[error(
        "the program that shares its connection gave no valid answer: do both run the same version?"
    )]
    Protocol,
}

/// Lends a session to who has connected, until one of the two is over: the borrower's end here, or the session.
///
/// Each substream that the borrower opens is opened in the session, at most 256 at once. When this returns after the
/// borrower's end, what it had left to say has been said to the peer.
///
/// # Errors
/// The handshake with the borrower: it has another identity, or is none.
///
/// # Cancel safety
/// Dropping the future cuts the borrower off.
pub async fn lend(
    session: &Session,
    stream: impl Into<Stream>,
    identity: &Identity,
) -> Result<(), ConnectError> {
    let mut stream = stream.into();
    let label = stream.label().to_owned();
    // A borrower that is gone shows in the handshake.
    let _ = timeout(AT_ONCE, stream.write_all(&[READY])).await;
    let (cut, cuts) = oneshot::channel();
    let stream = Cuttable {
        stream,
        cuts,
        is_cut: false,
    };
    let stream = Stream::from_io(stream, label);
    let local = Session::handshake(stream, &[], Side::Server, &config(identity)).await?;
    let mut lent = Lent {
        session,
        local,
        running: FuturesUnordered::new(),
        kept: Vec::new(),
    };
    let Some(end) = lent.until_over().await else {
        return Ok(());
    };
    // What has come still goes to the borrower.
    while let Some(kept) = lent.running.next().await {
        lent.kept.extend(kept);
    }
    match end {
        SessionEnd::ClosedByPeer => lent.local.close().await,
        SessionEnd::GoneAway { code } => lent.local.close_with(code).await,
        _ => drop(cut),
    }
    lent.local.closed().await;
    Ok(())
}

/// Tells who has connected that no more may borrow.
pub async fn refuse(stream: impl Into<Stream>) {
    let mut stream = stream.into();
    let _ = timeout(AT_ONCE, async {
        stream.write_all(&[FULL]).await?;
        stream.shutdown().await
    })
    .await;
}

/// Borrows the session of whoever listens at the other end of a stream, once it has one: this waits as long as that takes.
///
/// The session's [`peer`](Session::peer) is the one that the lender has met; [`Peer::judged_by`] asks whether this program would have
/// trusted it, too.
///
/// # Errors
/// Why not. [`BorrowError::Gone`] where the lender went away without one.
///
/// # Cancel safety
/// Dropping the future gives the attempt up.
pub async fn borrow(
    stream: impl Into<Stream>,
    identity: &Identity,
) -> Result<Session, BorrowError> {
    let mut stream = stream.into();
    match stream.read_u8().await {
        Ok(READY) => {}
        Ok(FULL) => return Err(BorrowError::Full),
        Ok(_) => return Err(BorrowError::Protocol),
        Err(error) => return Err(BorrowError::Gone(error)),
    }
    let local = Session::handshake(stream, &[], Side::Client, &config(identity)).await?;
    let gone = |error: OpenError| BorrowError::Gone(error.into());
    let mut told = local.open(reserved::LENT_PEER).await.map_err(gone)?;
    let mut said = Vec::new();
    let mut telling = (&mut told).take(MOST_SAID);
    match timeout(AT_ONCE, telling.read_to_end(&mut said)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return Err(BorrowError::Gone(error)),
        Err(_) => return Err(BorrowError::Protocol),
    }
    let _ = told.shutdown().await;
    let peer = heard(&said, local.peer()).ok_or(BorrowError::Protocol)?;
    local.standing_for(peer).ok_or(BorrowError::Protocol)
}

/// Of the session between lender and borrower: each takes its own id alone. A program may be stopped for any time, and its end shows by the
/// socket, so nothing is measured by silence.
fn config(identity: &Identity) -> StackConfig {
    let trust = Arc::new(Pinned::one(identity.peer_id()));
    let mut config = StackConfig::new(identity.clone(), trust);
    config.mux.keepalive_interval = None;
    (
        config.mux.max_inbound_streams,
        config.mux.max_outbound_streams,
    ) = (STREAMS, STREAMS);
    config
}

/// Not dropped before the borrower's session has ended: that would be a reset.
type Kept = Box<dyn Any + Send>;

struct Lent<'a> {
    session: &'a Session,
    local: Session,
    running: FuturesUnordered<BoxFuture<'a, Option<Kept>>>,
    kept: Vec<Kept>,
}

impl Lent<'_> {
    /// How the session ended; none where the borrower did, and all it said has left.
    async fn until_over(&mut self) -> Option<SessionEnd> {
        let session = self.session;
        let (mut over, mut spent) = (pin!(session.closed()), pin!(session.spent()));
        let (mut is_spent, mut is_left) = (false, false);
        while !is_left || !self.running.is_empty() {
            tokio::select! {
                biased;
                end = &mut over => return Some(end),
                () = &mut spent, if !is_spent => {
                    is_spent = true;
                    let local = self.local.clone();
                    self.running.push(Box::pin(async move {
                        local.go_away().await;
                        None
                    }));
                }
                Some(kept) = self.running.next(), if !self.running.is_empty() => {
                    self.kept.extend(kept);
                }
                incoming = self.local.accept(), if !is_left => match incoming {
                    Ok(incoming) => self.running.push(Box::pin(serve(session, incoming))),
                    Err(_) => is_left = true,
                },
            }
        }
        None
    }
}

/// One substream of the borrower, to its end.
async fn serve(session: &Session, incoming: Incoming) -> Option<Kept> {
    match incoming.service() {
        reserved::LENT_PEER => {
            let mut stream = incoming.accept().await.ok()?;
            stream.write_all(&said(session.peer())).await.ok()?;
            stream.shutdown().await.ok()?;
            None
        }
        reserved::LENT_PING => match session.ping().await {
            Ok(_) => {
                let _ = incoming.accept().await.ok()?.shutdown().await;
                None
            }
            Err(_) => Some(Box::new(incoming)),
        },
        _ => pass_on(session, incoming).await,
    }
}

async fn pass_on(session: &Session, incoming: Incoming) -> Option<Kept> {
    if incoming.wants_inner_tls() {
        // Refuses, and says that there is none: it would be bound to a session that the peer does not know.
        let _ = incoming.accept().await;
        return None;
    }
    let options = OpenOptions::new()
        .timeouts(StreamTimeouts::NONE)
        .patience(PATIENCE);
    let far = session.open_with(incoming.service(), &options).await;
    let refused = match far {
        Ok(far) => return join(incoming.accept().await.ok()?, far).await,
        Err(OpenError::Session(_)) => return Some(Box::new(incoming)),
        Err(OpenError::Refused { reason, .. }) => incoming.refuse(&reason).await,
        Err(OpenError::DialInstead { .. }) => incoming.refuse_dial_instead().await,
        Err(error) => incoming.refuse(&error.to_string()).await,
    };
    // It was not there to hear that.
    let _ = refused;
    None
}

async fn join(near: ServiceStream, far: ServiceStream) -> Option<Kept> {
    // Nothing was ever pushed onto them.
    let (Ok(mut near), Ok(far)) = (near.into_wire(), far.into_wire()) else {
        return None;
    };
    near.0.set_timeouts(StreamTimeouts::NONE);
    let (near, far) = (End::new(near), End::new(far).ending_with_its_session());
    let over = std::future::pending();
    let kept = copy(near, far, Arc::new(Unlimited), over, |_| ()).await;
    kept.map(|both| Box::new(both) as Kept)
}

/// No rate but that of the two ends.
struct Unlimited;

impl Policy for Unlimited {
    fn reserve(&self, want: usize, now: Instant) -> Grant {
        Grant {
            bytes: want,
            at: now,
        }
    }
}

/// What the lender says of its peer.
fn said(peer: &Peer) -> Vec<u8> {
    if peer.chain().is_empty() {
        return [&[KEY][..], peer.id().as_bytes()].concat();
    }
    let mut said = vec![CERTIFICATES];
    for certificate in peer.chain() {
        // One that is longer came in no handshake.
        let Ok(length) = u16::try_from(certificate.len()) else {
            break;
        };
        said.extend(length.to_be_bytes());
        said.extend_from_slice(certificate);
    }
    said
}

/// The peer, of whom the lender said this.
fn heard(said: &[u8], lender: &Peer) -> Option<Peer> {
    let (form, mut rest) = said.split_first()?;
    match *form {
        KEY => {
            let id: [u8; 32] = rest.try_into().ok()?;
            Some(lender.vouching_for_key(PeerId::from_bytes(id)))
        }
        CERTIFICATES => {
            let mut chain = Vec::new();
            while let Some((length, more)) = rest.split_first_chunk::<2>() {
                let (certificate, more) =
                    more.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
                chain.push(CertificateDer::from(certificate).into_owned());
                rest = more;
            }
            lender.vouching_for(chain).filter(|_| rest.is_empty())
        }
        _ => None,
    }
}

/// A stream that can be cut while it is in somebody else's hands: by a word, or by dropping who could say it.
struct Cuttable {
    stream: Stream,
    cuts: oneshot::Receiver<()>,
    is_cut: bool,
}

impl Cuttable {
    /// Reads and writes are polled by one task, so that it hears of the cut whichever waits.
    fn or_cut(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.is_cut = self.is_cut || Pin::new(&mut self.cuts).poll(cx).is_ready();
        if self.is_cut {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }
}

impl AsyncRead for Cuttable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.or_cut(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Cuttable {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.or_cut(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
