//! Opening a substream: what for, and how long that and the peer's answer may take.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use crate::observe;
use crate::onion::Onion;

use super::Session;
use super::early::Awaited;
use super::error::{OpenError, SessionEnd};
use super::options::{OpenOptions, Stage};
use super::runtime::in_runtime;
use super::substream::ServiceStream;

impl Session {
    /// Opens a substream and says what for. The answer is taken off its front when it comes.
    pub(super) async fn start(
        &self,
        awaited: Awaited,
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
        ask(opening, awaited).await
    }

    pub(super) async fn within<T>(
        &self,
        service: &str,
        patience: Option<Duration>,
        stage: &Stage,
        opening: impl Future<Output = Result<T, OpenError>>,
    ) -> Result<T, OpenError> {
        let watched = observe::opening();
        let opened = self.in_time(service, patience, stage, opening).await;
        watched.ended(&self.peer().id(), service, opened.as_ref().err());
        opened
    }

    /// The same, of which nothing is reported.
    pub(super) async fn in_time<T>(
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
        let opened = timeout(patience.unwrap_or(self.inner.open_timeout), opening).await;
        opened.unwrap_or_else(|_| {
            let service = service.to_owned();
            Err(if stage.is_opened() {
                OpenError::TimedOut { service }
            } else {
                OpenError::NoRoom { service }
            })
        })
    }
}

/// Says on a substream what it is for.
pub(super) async fn ask(
    opening: impl Future<Output = Result<ServiceStream, OpenError>>,
    awaited: Awaited,
) -> Result<ServiceStream, OpenError> {
    let request = awaited.request()?;
    let mut onion = opening.await?;
    let wire = onion.wire_mut();
    wire.set_label(awaited.service());
    wire.set_preface(Box::new(awaited));
    // It fails where the stream does, and then that is what the answer tells.
    let _ = onion.write_all(&request).await;
    Ok(onion)
}
