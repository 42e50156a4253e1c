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
        awaited: Box<Awaited>,
        options: &OpenOptions,
        stage: &Stage,
    ) -> Result<ServiceStream, OpenError> {
        let request = awaited.request()?;
        let substream = self.inner.mux.open().await;
        let mut substream = substream.map_err(OpenError::from_mux)?;
        stage.set_opened();
        options.apply(&mut substream);
        let mut onion = Onion::new(substream);
        ask_on(&mut onion, &request, awaited).await;
        Ok(onion)
    }

    /// The same on a substream that is open already.
    #[cfg(feature = "mesh")]
    pub(super) async fn ask(
        &self,
        mut onion: ServiceStream,
        awaited: Box<Awaited>,
    ) -> Result<ServiceStream, OpenError> {
        let request = awaited.request()?;
        ask_on(&mut onion, &request, awaited).await;
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
        // What does not wait reports its answer itself.
        if !stage.is_early() || opened.is_err() {
            watched.ended(&self.peer().id(), service, opened.as_ref().err());
        }
        opened
    }
}

async fn ask_on(onion: &mut ServiceStream, request: &[u8], awaited: Box<Awaited>) {
    let wire = onion.wire_mut();
    wire.set_label(awaited.service());
    wire.set_preface(awaited);
    // It fails where the stream does, and then that is what the answer tells.
    let _ = onion.write_all(request).await;
}
