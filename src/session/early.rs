//! Opens that do not wait: the request leaves with the first bytes behind it, and the answer is taken off the front of what comes back.
//!
//! ```text
//!              open                              open_early
//!   opener  ── request ─────────▶            ── request, bytes ──▶
//!           ◀───────── answer ──   1st         ◀── answer, bytes ──  1st round trip
//!           ── bytes ───────────▶
//!           ◀────────── bytes ──   2nd
//! ```
//!
//! The wire is the same: an acceptor reads the request and not a byte more, so what stands behind it is where the service looks. What is
//! sent before the answer is bounded by the stream's window. A refusal resets the stream, which drops what is queued, and stands in every
//! read and write from then on. [`Session::open`] is this and [`ServiceStream::accepted`] in one.
//!
//! `open` is the one that waits, since whoever calls it has been told by it whether the peer has accepted: what opens again elsewhere, or
//! tells a client that it is connected, goes by that, and would compile and be wrong if the same name said less.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::time::Instant;

use crate::identity::PeerId;
use crate::mux::{Preface, Step};
use crate::observe;

use super::error::{AnswerFault, OpenError};
use super::header::{Answer, InnerTls, Progress, Request, Status};
use super::options::{OpenOptions, Stage};
use super::{ServiceStream, Session};

impl Session {
    /// As [`open`](Self::open), without waiting for the peer: the request leaves together with what is written first, so that a question
    /// and its answer take one round trip. Waits only where as many substreams are open or unanswered as may be.
    ///
    /// Whether the peer accepts, [`ServiceStream::accepted`] tells, or the first read. If it refuses, that and every later read
    /// and write fail with an [`io::Error`] that has the [`OpenError`] inside ([`OpenError::inside`]). The peer's service may
    /// have seen none of what was written then, or the beginning: write nothing early that must not be read by somebody who refuses.
    ///
    /// ```
    /// # async fn example(session: &cepa::Session) -> std::io::Result<()> {
    /// use tokio::io::{AsyncReadExt, AsyncWriteExt};
    ///
    /// let mut stream = session.open_early("time").await?;
    /// stream.write_all(b"utc\n").await?;
    /// stream.shutdown().await?;
    /// let mut answer = String::new();
    /// stream.take(1 << 10).read_to_string(&mut answer).await?; // or that it was refused
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// What stands in the way at this end; [`OpenError::is_local`] and [`OpenError::needs_new_session`] tell what to do about it.
    ///
    /// # Cancel safety
    /// Dropping the future resets the substream, if there is one.
    pub async fn open_early(&self, service: &str) -> Result<ServiceStream, OpenError> {
        self.open_early_with(service, &OpenOptions::default()).await
    }

    /// As [`open_early`](Self::open_early), with a priority and time limits of its own. The
    /// [`patience`](OpenOptions::patience) with the peer's answer begins here.
    ///
    /// # Errors
    /// As for `open_early`.
    ///
    /// # Cancel safety
    /// As for `open_early`.
    pub async fn open_early_with(
        &self,
        service: &str,
        options: &OpenOptions,
    ) -> Result<ServiceStream, OpenError> {
        let patience = options.patience.unwrap_or(self.inner.open_timeout);
        let now = Instant::now();
        let mut asking = self.asking(service, InnerTls::Without)?;
        (asking.early, asking.until) = (true, now.checked_add(patience));
        // As a rule there is room, and nothing to wait for.
        match self.start_now(now, &mut asking, options) {
            Ok(Some(stream)) => Ok(stream),
            Ok(None) => Box::pin(self.start_later(asking, options)).await,
            Err(error) => {
                observe::opening().ended(&self.peer().id(), service, Some(&error));
                Err(error)
            }
        }
    }

    async fn start_later(
        &self,
        asking: Asking<'_>,
        options: &OpenOptions,
    ) -> Result<ServiceStream, OpenError> {
        let (stage, service) = (Stage::early(), asking.service);
        let opening = self.start(asking, options, &stage);
        self.within(service, options.patience, &stage, opening)
            .await
    }

    /// A request for which somebody waits, and keeps the time.
    pub(super) fn asking<'a>(
        &self,
        service: &'a str,
        inner_tls: InnerTls,
    ) -> Result<Asking<'a>, OpenError> {
        let request = Request::encoded(service, inner_tls).map_err(|_| OpenError::Name {
            service: service.to_owned(),
        });
        let request = request.inspect_err(|error| {
            observe::opening().ended(&self.peer().id(), service, Some(error));
        })?;
        Ok(Asking {
            service,
            inner_tls,
            request,
            early: false,
            until: None,
        })
    }
}

impl ServiceStream {
    /// Waits until the peer has accepted this stream, which was opened with [`Session::open_early`]. Of any other it is true at once.
    ///
    /// # Errors
    /// Why not, as [`Session::open`] tells it; the same again at each call.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn accepted(&mut self) -> Result<(), OpenError> {
        poll_fn(|cx| self.poll_accepted(cx)).await
    }

    /// [`accepted`](Self::accepted) for those who poll. It and reading keep one waker between them.
    pub fn poll_accepted(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), OpenError>> {
        let accepted = ready!(self.wire_mut().poll_preface(cx));
        Poll::Ready(accepted.map_err(|error| Self::refusal_in(&error)))
    }

    /// Why the peer did not accept it, once that is known.
    pub(super) fn refusal(&self) -> Option<OpenError> {
        let error = self.wire().preface_error()?;
        Some(Self::refusal_in(&error))
    }

    fn refusal_in(error: &io::Error) -> OpenError {
        let inside = OpenError::inside(error).cloned();
        inside.unwrap_or_else(|| OpenError::from_io(error, ""))
    }
}

/// What is to be asked for.
pub(super) struct Asking<'a> {
    pub(super) service: &'a str,
    inner_tls: InnerTls,
    /// What asks for it.
    pub(super) request: Vec<u8>,
    /// Nobody waits for the answer.
    early: bool,
    /// By when the answer is to come then. The engine ends the stream if it has not.
    until: Option<Instant>,
}

impl Asking<'_> {
    pub(super) fn until(&self) -> Option<std::time::Instant> {
        self.until.map(Instant::into_std)
    }

    /// It was asked for, and `service` is its name in memory that others share.
    pub(super) fn asked(&self, peer: PeerId, service: Arc<String>) -> Box<Awaited> {
        Box::new(Awaited {
            peer,
            service,
            inner_tls: self.inner_tls,
            begun: Vec::new(),
            watched: self.early.then(observe::opening),
            failed: None,
        })
    }
}

/// The answer to a request, as long as it has not come.
pub(super) struct Awaited {
    peer: PeerId,
    service: Arc<String>,
    inner_tls: InnerTls,
    /// What has come of it.
    begun: Vec<u8>,
    /// Where nobody waits for it, and what came of it is reported here.
    watched: Option<observe::Opening>,
    failed: Option<OpenError>,
}

impl Awaited {
    fn service(&self) -> &str {
        &self.service
    }

    fn ended(&mut self, failed: Option<OpenError>) -> Step {
        if let Some(watched) = self.watched.take() {
            watched.ended(&self.peer, &self.service, failed.as_ref());
        }
        self.failed = failed;
        Step::Failed
    }

    fn refused(&self, answer: Answer) -> Option<OpenError> {
        if answer.status == Status::Accepted {
            return None;
        }
        let service = self.service().to_owned();
        Some(match answer.status {
            Status::Accepted => return None,
            Status::Refused => OpenError::Refused {
                service,
                reason: answer.text,
            },
            Status::InnerTlsRequired => OpenError::InnerTlsRequired { service },
            Status::NoInnerTls => OpenError::NoInnerTls { service },
            Status::DialInstead => OpenError::DialInstead { service },
            Status::OtherInnerTls if self.inner_tls == InnerTls::Here => {
                OpenError::InnerTlsEndsBeyond { service }
            }
            Status::OtherInnerTls => OpenError::InnerTlsEndsHere { service },
            Status::NotUnderstood => OpenError::Protocol {
                service,
                fault: AnswerFault::NotUnderstood,
            },
        })
    }
}

impl Preface for Awaited {
    fn take(&mut self, bytes: &[u8]) -> Step {
        // As a rule it comes whole. Else its beginning is kept: 258 bytes at most, since its length is one byte.
        let before = self.begun.len();
        let decoded = if before == 0 {
            Answer::decode(bytes)
        } else {
            self.begun.extend_from_slice(bytes);
            Answer::decode(&self.begun)
        };
        match decoded {
            Ok(Progress::Need(_)) => {
                if before == 0 {
                    self.begun.extend_from_slice(bytes);
                }
                Step::More
            }
            Ok(Progress::Done(answer, size)) => match self.refused(answer) {
                None => {
                    self.ended(None);
                    Step::Done(size - before)
                }
                refused => self.ended(refused),
            },
            Err(fault) => {
                let service = self.service().to_owned();
                let fault = fault.into();
                self.ended(Some(OpenError::Protocol { service, fault }))
            }
        }
    }

    fn cut(&mut self, error: Option<&io::Error>) {
        let service = self.service();
        let failed = match error {
            Some(error) => OpenError::from_io(error, service),
            None => OpenError::Dropped {
                service: service.to_owned(),
            },
        };
        self.ended(Some(failed));
    }

    fn error(&self) -> Option<io::Error> {
        self.failed.clone().map(Into::into)
    }
}
