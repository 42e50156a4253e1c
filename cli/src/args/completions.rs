//! The command line of `cepa completions`: its words and their help.

use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
#[command(after_help = "\
It completes commands, options, files and, behind `@` and at `cepa peer`, the
names of known peers. To have it in every new shell:
  bash   cepa completions bash > ~/.local/share/bash-completion/completions/cepa
  zsh    cepa completions zsh > DIR/_cepa, where DIR is in $fpath
  fish   cepa completions fish > ~/.config/fish/completions/cepa.fish
To try it in bash: source <(cepa completions bash)")]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_name = "bash|zsh|fish", hide_possible_values = true)]
    pub(crate) shell: Shell,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}
