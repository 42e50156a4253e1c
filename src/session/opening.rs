//! Opening a substream: what for, and how long that and the peer's answer may take.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::mux::Substream;
use crate::observe;
use crate::onion::Onion;

use super::Session;
use super::early::Asking;
use super::error::{OpenError, SessionEnd};
use super::options::{OpenOptions, Stage};
use super::runtime::in_runtime;
use super::substream::ServiceStream;

impl Session {
    /// Opens a substream and says what for, unless there is no room at the moment. The answer is taken off its front when it comes.
    pub(super) fn start_now(
        &self,
        now: Instant,
        asking: &mut Asking<'_>,
        options: &OpenOptions,
    ) -> Result<Option<ServiceStream>, OpenError> {
        let until = asking.until();
        let (mux, request) = (&self.inner.mux, &mut asking.request);
        let opened = mux.open_now(now.into_std(), asking.service, request, until);
        let opened = opened.map_err(OpenError::from_mux)?;
        Ok(opened.map(|opened| self.begun(opened, asking, options)))
    }

    /// The same, when there is room.
    pub(super) async fn start(
        &self,
        mut asking: Asking<'_>,
        options: &OpenOptions,
        stage: &Stage,
    ) -> Result<ServiceStream, OpenError> {
        if let Some(stream) = self.start_now(Instant::now(), &mut asking, options)? {
            stage.set_opened();
            return Ok(stream);
        }
        let request = std::mem::take(&mut asking.request);
        let mux = &self.inner.mux;
        let opened = mux.open_beginning(asking.service, request, asking.until());
        let opened = opened.await.map_err(OpenError::from_mux)?;
        stage.set_opened();
        Ok(self.begun(opened, &asking, options))
    }

    /// The stream to what was asked for, whose answer is still to come.
    fn begun(
        &self,
        (mut substream, service): (Substream, Arc<String>),
        asking: &Asking<'_>,
        options: &OpenOptions,
    ) -> ServiceStream {
        options.apply(&mut substream);
        substream.set_preface(asking.asked(self.peer().id(), service));
        Onion::new(substream)
    }

    /// The same on a substream that is open already.
    #[cfg(feature = "mesh")]
    pub(super) async fn ask(
        &self,
        mut onion: ServiceStream,
        asking: Asking<'_>,
    ) -> Result<ServiceStream, OpenError> {
        use tokio::io::AsyncWriteExt as _;

        let service = Arc::new(asking.service.to_owned());
        let wire = onion.wire_mut();
        wire.set_label(&service);
        wire.set_preface(asking.asked(self.peer().id(), service));
        // It fails where the stream does, and then that is what the answer tells.
        let _ = onion.write_all(&asking.request).await;
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
