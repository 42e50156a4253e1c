//! The options of commands that share connections.

use clap::Args;

use crate::settings_file;

/// Whether several commands use one connection.
#[derive(Debug, Args)]
pub(crate) struct Sharing {
    /// Use one connection together with your other commands that dial the same address with --share and
    /// the same identity: the first one connects, and ends last (docs/SHARING.md). For all commands,
    /// put `control = true` into `config.toml`
    #[arg(long, conflicts_with = "no_share")]
    share: bool,
    /// Make a connection of its own, whatever `config.toml` says
    #[arg(long)]
    no_share: bool,
    /// What `config.toml` says of the target.
    #[arg(skip)]
    of_target: Option<bool>,
}

impl Sharing {
    /// What `config.toml` says of what is dialled.
    pub(super) fn or(&mut self, control: Option<bool>) {
        self.of_target = control;
    }

    pub(crate) fn wanted(&self) -> bool {
        match (self.share, self.no_share, self.of_target) {
            (true, ..) => true,
            (_, true, _) => false,
            (_, _, Some(of_target)) => of_target,
            (_, _, None) => settings_file::control(),
        }
    }
}
