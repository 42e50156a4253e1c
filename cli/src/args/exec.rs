//! The command line of `cepa exec`: its words and their help.

use clap::Args;

use super::of_mesh::CodeRelay;
use super::options::Dialling;
use crate::values::DialTarget;

#[derive(Debug, Args)]
#[command(after_help = "\
The peer runs CMD itself, without a shell: each ARG arrives as it is, and no
character in it has a meaning. CMD is a program that the peer's owner allows,
by its name or by the path as the owner has written it:
  peer$ cepa serve ADDR --service run=command:/usr/bin/uptime,/bin/dmesg
  here$ cepa exec @peer -- dmesg --level err

Standard input and output carry the program's bytes unchanged, its standard
error appears here, and `cepa exec` exits with its exit status (128 + N if
signal N killed it), or with exit code 7 if the owner does not allow CMD. If
`cepa exec` is interrupted or its input is cut off, the program is killed with
all that it has started; one that has read the end of its input has 10 s more.
At most 256 words and 32 KiB are sent.

It is never run again by itself, so there is no --reconnect; with --durable, the
session outlives its connection, and the program runs on.")]
pub(crate) struct Exec {
    /// @NAME of a known peer or of a target in `config.toml` (`cepa config --help`), where the peer
    /// listens, its own address (cepa://PEERID@HINT,HINT/SERVICE), or a ticket or short code
    /// (`cepa share`)
    #[arg(value_name = "ADDR")]
    pub(crate) address: DialTarget,
    /// The service that allows CMD; not needed if the address names it or the peer has only one such
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<String>,
    /// The program and its arguments; `--` in front of it is needed only if it begins with `-`
    #[arg(value_name = "CMD", required = true, trailing_var_arg = true, num_args = 1..)]
    pub(crate) command: Vec<String>,
    /// Exit with this status if cepa itself fails rather than the program; ssh uses 255
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) error_status: Option<u8>,
    #[command(flatten)]
    pub(crate) code_relay: CodeRelay,
    #[command(flatten)]
    pub(crate) dialling: Dialling,
}
