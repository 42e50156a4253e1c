//! A client whose service is opened for it: what it sends meanwhile is read up to a bound, since only a read tells that it has left, and
//! leaves with the opening, so that a question and its answer take one round trip.
//!
//! ```text
//!   client ── bytes ──▶ ahead ── sent ──▶ service, not open yet      at most AHEAD; the rest waits in the client's socket
//! ```
//!
//! What was sent so is not said again in another session: the service may have had it.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use cepa::mux::{StreamTimeouts, Substream};
use cepa::onion::Onion;
use cepa::session::{OpenError, OpenOptions};
use cepa::transports::Stream;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use crate::connection::Connected;
use crate::destination::Destination;
use crate::log::say_once_a_minute;
use crate::socks::{self, Reply};

/// How much of a client is read before its service is open.
const AHEAD: usize = 1024;

/// After so long it is told that a connection waits.
const LONG: Duration = Duration::from_secs(10);

/// What the far end answers a client that it is to connect, which is told that; `None` when the client has left. What it sends
/// meanwhile goes to `ahead`.
pub(crate) async fn connect(
    near: &mut Stream,
    far: &mut Onion<Substream>,
    ahead: &mut Ahead,
) -> Option<io::Result<Reply>> {
    let mut waiting = Waiting {
        near,
        ahead: &mut ahead.bytes,
        ended: false,
    };
    let answer = tokio::select! {
        answer = socks::answer(far) => answer,
        () = poll_fn(|cx| waiting.poll_left(cx)) => return None,
    };
    let told = socks::reply(near, *answer.as_ref().unwrap_or(&Reply::Failed)).await;
    told.ok().map(|()| answer)
}

/// What a client has sent before its service was open.
#[derive(Default)]
pub(crate) struct Ahead {
    bytes: Vec<u8>,
    /// So many have left with the opening.
    pub(crate) sent: usize,
    /// Where it is to be connected has left with the opening.
    asked: bool,
}

impl Ahead {
    pub(crate) fn unsent(&self) -> &[u8] {
        self.bytes.get(self.sent..).unwrap_or_default()
    }

    /// Whether the service has seen none of it.
    pub(crate) fn can_be_sent_again(&self, error: &OpenError) -> bool {
        error.is_safe_to_retry() || (self.sent == 0 && !self.asked)
    }
}

/// Opens the service for a client, and asks it for a destination, if there is one. Reads what the client sends meanwhile into
/// `ahead`; where it is for the service, it leaves before that is open, if it may be `early`. `None` when the client has left.
pub(crate) async fn open(
    near: &mut Stream,
    service: &str,
    connection: &Connected,
    ahead: &mut Ahead,
    to: Option<&Destination>,
    early: bool,
) -> Result<Option<Onion<Substream>>, OpenError> {
    // The client leaves when it takes too long, and the session's keepalive finds out whether the peer lives.
    let as_long_as_it_takes = OpenOptions::new()
        .timeouts(StreamTimeouts::NONE)
        .patience(Duration::MAX);
    let opening = connection
        .session
        .open_early_with(service, &as_long_as_it_takes);
    tokio::pin!(opening);
    let late = tokio::time::sleep(LONG);
    tokio::pin!(late);
    let mut waits = false;
    let (mut ended, mut far) = (false, None);
    ahead.asked = false;
    loop {
        let mut waiting = Waiting {
            near: &mut *near,
            ahead: &mut ahead.bytes,
            ended,
        };
        let sent = &mut ahead.sent;
        let step = poll_fn(|cx| {
            let left = waiting.poll_left(cx);
            if left.is_ready() {
                return Poll::Ready(Ok(Step::Left));
            }
            let Some(far) = &mut far else {
                return opening
                    .as_mut()
                    .poll(cx)
                    .map_ok(|it| Step::Opening(Box::new(it)));
            };
            poll_early(far, waiting.ahead, sent, early && to.is_none(), cx);
            far.poll_accepted(cx).map_ok(|()| Step::Open)
        });
        tokio::select! {
            step = step => match step? {
                Step::Left => return Ok(None),
                Step::Open => break,
                Step::Opening(opened) => {
                    let opened = far.insert(*opened);
                    if let Some(to) = to.filter(|_| early) {
                        // It is less than a first window, and an error is that of the answer.
                        let _ = socks::ask(opened, to).await;
                        ahead.asked = true;
                    }
                }
            },
            () = &mut late, if !waits => {
                waits = true;
                let peer = connection.session.peer().id();
                let why = if connection.session.path().is_some() {
                    "the peer has not answered; it may have reached its limit of connections"
                } else {
                    "the connection to the peer is lost"
                };
                let kind = format_args!("{service}: a connection waits: {why}");
                say_once_a_minute(peer, kind, kind);
            }
        }
        ended = waiting.ended;
    }
    if let (Some(far), Some(to), false) = (&mut far, to, ahead.asked) {
        let _ = socks::ask(far, to).await;
    }
    Ok(far)
}

/// What has come of an opening.
enum Step {
    Opening(Box<Onion<Substream>>),
    Open,
    Left,
}

/// Sends what is there, as far as there is room.
fn poll_early(
    far: &mut Onion<Substream>,
    bytes: &[u8],
    sent: &mut usize,
    early: bool,
    cx: &mut Context<'_>,
) {
    while let Some(rest @ [_, ..]) = bytes.get(*sent..).filter(|_| early) {
        match Pin::new(&mut *far).poll_write(cx, rest) {
            Poll::Ready(Ok(n)) => *sent += n,
            // An error is that of the answer.
            Poll::Ready(Err(_)) | Poll::Pending => return,
        }
    }
}

/// A client whose service is not open yet.
struct Waiting<'a> {
    near: &'a mut Stream,
    ahead: &'a mut Vec<u8>,
    /// It has said all.
    ended: bool,
}

impl Waiting<'_> {
    /// Ready once nothing of it is worth opening a service for. Reads ahead, as far as there is room.
    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut buf = [0; AHEAD];
        while !self.ended && self.ahead.len() < AHEAD {
            let room = AHEAD - self.ahead.len();
            let mut more = ReadBuf::new(buf.get_mut(..room).unwrap_or_default());
            match Pin::new(&mut *self.near).poll_read(cx, &mut more) {
                Poll::Ready(Ok(())) if more.filled().is_empty() => self.ended = true,
                Poll::Ready(Ok(())) => self.ahead.extend_from_slice(more.filled()),
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        // Nothing is read any more, which would tell of that.
        match self.near.poll_left(cx, false) {
            // What left in order has said all that it wants to have delivered, if it has said anything.
            Poll::Ready(e) if e.kind() == io::ErrorKind::BrokenPipe && !self.ahead.is_empty() => {
                Poll::Pending
            }
            left => left.map(drop),
        }
    }
}
