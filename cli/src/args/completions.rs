//! The command line of `cepa completions`: its words and their help.

use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
#[command(after_help = "\
It completes commands, options, files, the schemes of addresses and, behind `@`,
the names of known peers and of the targets in `config.toml`; at `cepa peer`,
those of known peers. In
`cepa cp`, behind `@NAME:`, it offers the services with files that the peer had
when it was last asked (`cepa services`): a completion asks nobody. To have it
in every new shell:
  bash   cepa completions bash > ~/.local/share/bash-completion/completions/cepa
  zsh    cepa completions zsh > DIR/_cepa, where DIR is in $fpath
  fish   cepa completions fish > ~/.config/fish/completions/cepa.fish
To try it in bash: source <(cepa completions bash)")]
pub(crate) struct Completions {
    /// The shell
    #[arg(
        value_name = "bash|zsh|fish",
        hide_possible_values = true,
        required_unless_present_any = ["names", "files"]
    )]
    pub(crate) shell: Option<Shell>,
    /// Print the names that may stand behind an `@`, one a line: what the scripts ask for
    #[arg(long, hide = true, conflicts_with = "shell")]
    names: bool,
    /// Print the services with files that this peer offered the last time, one a line: what the scripts ask for behind `@NAME:`
    #[arg(long, hide = true, value_name = "NAME", conflicts_with_all = ["shell", "names"])]
    pub(crate) files: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}
