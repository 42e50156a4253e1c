//! Opening a substream: what for, the peer's answer, and how long that may take.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use crate::observe;
use crate::onion::Onion;

use super::error::{AnswerFault, OpenError, SessionEnd};
use super::header::{Answer, HeaderError, InnerTls, Request, Status};
use super::options::{OpenOptions, Stage};
use super::runtime::in_runtime;
use super::substream::ServiceStream;
use super::{Session, incoming};

impl Session {
    /// Opens a substream, says what for, and reads the answer.
    pub(super) async fn start(
        &self,
        service: &str,
        inner_tls: InnerTls,
        options: &OpenOptions,
        stage: &Stage,
    ) -> Result<ServiceStream, OpenError> {
        let opening = async {
            let substream = self.inner.mux.open().await;
            let mut substream = substream.map_err(OpenError::from_mux)?;
            stage.set_opened();
            options.apply(&mut substream);
            Ok(Onion::new(substream))
        };
        self.ask(opening, service, inner_tls).await
    }

    pub(super) async fn ask(
        &self,
        opening: impl Future<Output = Result<ServiceStream, OpenError>>,
        service: &str,
        inner_tls: InnerTls,
    ) -> Result<ServiceStream, OpenError> {
        let request = Request {
            service: service.into(),
            inner_tls,
        }
        .encode()
        .map_err(|_| OpenError::Name {
            service: service.into(),
        })?;
        let mut onion = opening.await?;
        onion.wire_mut().set_label(service);
        let answer = async {
            onion.write_all(&request).await?;
            onion.flush().await?;
            incoming::read_header(&mut onion, Answer::decode).await
        };
        let answer = answer
            .await
            .map_err(|error| match HeaderError::inside(&error) {
                Some(fault) => OpenError::Protocol {
                    service: service.into(),
                    fault: fault.into(),
                },
                None => OpenError::from_io(&error, service),
            })?;
        let service = service.to_owned();
        Err(match answer.status {
            Status::Accepted => return Ok(onion),
            Status::Refused => OpenError::Refused {
                service,
                reason: answer.text,
            },
            Status::InnerTlsRequired => OpenError::InnerTlsRequired { service },
            Status::NoInnerTls => OpenError::NoInnerTls { service },
            Status::DialInstead => OpenError::DialInstead { service },
            Status::OtherInnerTls if inner_tls == InnerTls::Here => {
                OpenError::InnerTlsEndsBeyond { service }
            }
            Status::OtherInnerTls => OpenError::InnerTlsEndsHere { service },
            Status::NotUnderstood => OpenError::Protocol {
                service,
                fault: AnswerFault::NotUnderstood,
            },
        })
    }

    pub(super) async fn within<T>(
        &self,
        service: &str,
        patience: Option<Duration>,
        stage: &Stage,
        opening: impl Future<Output = Result<T, OpenError>>,
    ) -> Result<T, OpenError> {
        // A runtime that has ended would panic at the sight of a timer.
        if let Some(end) = self.inner.mux.over() {
            return Err(SessionEnd::from_mux(end).into());
        }
        if in_runtime().is_err() {
            return Err(OpenError::NoRuntime);
        }
        let watched = observe::opening();
        let opened = timeout(patience.unwrap_or(self.inner.open_timeout), opening).await;
        let opened = opened.unwrap_or_else(|_| {
            let service = service.to_owned();
            Err(if stage.is_opened() {
                OpenError::TimedOut { service }
            } else {
                OpenError::NoRoom { service }
            })
        });
        watched.ended(&self.peer().id(), service, opened.as_ref().err());
        opened
    }
}
