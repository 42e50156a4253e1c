//! Opening a substream: what for, and how long that and the peer's answer may take.

use std::time::Duration;

use tokio::time::timeout;

use crate::mux::Substream;
use crate::observe;
use crate::onion::Onion;

use super::Session;
use super::early::{Awaited, Unopened};
use super::error::{OpenError, SessionEnd};
use super::options::{OpenOptions, Stage};
use super::runtime::in_runtime;
use super::substream::ServiceStream;

impl Session {
    /// Opens a substream and says what for, unless there is no room at the moment. The answer is taken off its front when it comes.
    pub(super) fn start_now(
        &self,
        awaited: Box<Awaited>,
        options: &OpenOptions,
    ) -> Result<ServiceStream, Unopened> {
        let (service, request) = (awaited.service(), awaited.request());
        match self.inner.mux.open_now(service, request, awaited.until()) {
            Ok(Some(substream)) => Ok(begun(substream, awaited, options)),
            Ok(None) => Err(Unopened::NoRoom(awaited)),
            Err(error) => Err(Unopened::Failed(OpenError::from_mux(error))),
        }
    }

    /// The same, when there is room.
    pub(super) async fn start(
        &self,
        awaited: Box<Awaited>,
        options: &OpenOptions,
        stage: &Stage,
    ) -> Result<ServiceStream, OpenError> {
        let awaited = match self.start_now(awaited, options) {
            Ok(stream) => {
                stage.set_opened();
                return Ok(stream);
            }
            Err(Unopened::Failed(error)) => return Err(error),
            Err(Unopened::NoRoom(awaited)) => awaited,
        };
        let (service, request) = (awaited.service(), awaited.request());
        let substream = self
            .inner
            .mux
            .open_beginning(service, request, awaited.until());
        let substream = substream.await.map_err(OpenError::from_mux)?;
        stage.set_opened();
        Ok(begun(substream, awaited, options))
    }

    /// The same on a substream that is open already.
    #[cfg(feature = "mesh")]
    pub(super) async fn ask(
        &self,
        mut onion: ServiceStream,
        awaited: Box<Awaited>,
    ) -> Result<ServiceStream, OpenError> {
        use tokio::io::AsyncWriteExt as _;

        let request = awaited.request().to_owned();
        let wire = onion.wire_mut();
        wire.set_label(awaited.service());
        wire.set_preface(awaited);
        // It fails where the stream does, and then that is what the answer tells.
        let _ = onion.write_all(&request).await;
        onion.accepted().await?;
        Ok(onion)
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
        if stage.is_early() && opened.is_ok() {
            watched.goes_on();
        } else {
            watched.ended(&self.peer().id(), service, opened.as_ref().err());
        }
        opened
    }
}

/// The stream to what was asked for, whose answer is still to come.
fn begun(mut substream: Substream, awaited: Box<Awaited>, options: &OpenOptions) -> ServiceStream {
    options.apply(&mut substream);
    substream.set_preface(awaited.asked());
    Onion::new(substream)
}
