//! In place of `watched.rs` in a build without the feature `mesh`: there is no control socket, and there are no metrics.

use std::sync::Arc;

use crate::args::Watching;
use crate::control::Daemon;
use crate::exit::Failure;

pub(crate) struct Watched;

impl Watched {
    #[allow(clippy::unused_async)]
    pub(crate) async fn open(
        _watching: &Watching,
        _daemon: impl FnOnce() -> Arc<dyn Daemon>,
    ) -> Result<Self, Failure> {
        Ok(Self)
    }

    #[allow(clippy::unused_async)]
    pub(crate) async fn close(self) {}
}
