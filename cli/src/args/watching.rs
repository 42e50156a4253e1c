//! The options of commands that others look at while they run.

use std::path::{Path, PathBuf};

use cepa::transports::Endpoint;
use clap::Args;

use crate::values::AllowArg;

/// How peers and others of this machine look at a server.
#[derive(Debug, Args)]
pub(crate) struct Watchers {
    /// Who sees all sessions with `cepa status`; a peer that is allowed by name sees its own (repeatable)
    #[arg(long = "allow-status", value_name = "PEERID|@NAME|known")]
    allow_status: Vec<AllowArg>,
    #[command(flatten)]
    pub(crate) watching: Watching,
}

impl Watchers {
    pub(crate) fn allow_status(&self) -> &[AllowArg] {
        &self.allow_status
    }
}

/// How others of this machine look at a command that runs for long.
#[derive(Debug, Args)]
pub(crate) struct Watching {
    /// Create a control socket at this path (mode 0600), for `cepa status --control PATH`
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
    /// Serve metrics for Prometheus there, at /metrics: PORT of this machine alone (0 picks a free
    /// one), or HOST:PORT. They are open to everybody who can connect
    #[arg(long, value_name = "[HOST:]PORT", value_parser = metrics_listener)]
    metrics: Option<Places>,
}

impl Watching {
    pub(crate) fn is_asked_for(&self) -> bool {
        self.control.is_some() || self.metrics.is_some()
    }

    pub(crate) fn control(&self) -> Option<&Path> {
        self.control.as_deref()
    }

    pub(crate) fn metrics(&self) -> Option<&[Endpoint]> {
        self.metrics.as_ref().map(|it| &it.0[..])
    }
}

/// Where one listens: at one port.
#[derive(Clone, Debug)]
struct Places(Vec<Endpoint>);

fn metrics_listener(word: &str) -> Result<Places, String> {
    crate::values::metrics_listener(word).map(Places)
}
