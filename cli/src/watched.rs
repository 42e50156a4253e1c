//! What others look at of a command that runs for long: its control socket, and its numbers for Prometheus.

use std::path::Path;
use std::sync::Arc;

use cepa::transports::Endpoint;

use crate::args::Watching;
use crate::control::{Control, Daemon};
use crate::exit::Failure;
use crate::metrics::Metrics;

/// What was asked for of both; until this is closed or dropped.
#[derive(Default)]
pub(crate) struct Watched {
    control: Option<Control>,
    metrics: Option<Metrics>,
}

impl Watched {
    /// What the command line asks for.
    pub(crate) async fn open(
        asked: &Watching,
        daemon: impl FnOnce() -> Arc<dyn Daemon>,
    ) -> Result<Self, Failure> {
        Self::open_at(asked.control(), asked.metrics(), daemon).await
    }

    /// The control socket at this path, and the numbers at these addresses.
    pub(crate) async fn open_at(
        control: Option<&Path>,
        metrics: Option<&[Endpoint]>,
        daemon: impl FnOnce() -> Arc<dyn Daemon>,
    ) -> Result<Self, Failure> {
        if control.is_none() && metrics.is_none() {
            return Ok(Self::default());
        }
        let daemon = daemon();
        let control = match control {
            Some(path) => Some(Control::open(path, Arc::clone(&daemon)).await?),
            None => None,
        };
        let metrics = match metrics {
            Some(at) => Some(Metrics::open(at, daemon).await?),
            None => None,
        };
        Ok(Self { control, metrics })
    }

    /// The socket's file is gone and the address is free when this returns.
    pub(crate) async fn close(self) {
        if let Some(control) = self.control {
            control.close().await;
        }
        if let Some(metrics) = self.metrics {
            metrics.close().await;
        }
    }
}
