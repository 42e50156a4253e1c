//! The command line of `cepa cp`: its words and their help.

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser as _};

use super::of_mesh::CodeRelay;
use super::options::Dialling;
use crate::sides::Side;

#[derive(Debug, Args)]
#[command(after_help = "\
One side is this machine, the other a service of a peer that the peer offers
with --service NAME=files:DIR:
  @NAME:SERVICE/PATH      for a known peer or a target in `config.toml`
  TICKET:SERVICE/PATH     for what somebody shares; also with a short code
  cepa://PEERID@HINT/SERVICE/PATH
PATH is below DIR. Without SERVICE, the only one is meant. A file here whose
name begins with @ is written ./@NAME.

As with cp -rp: a folder is copied with all that is in it, and times and
permissions are kept. If DST is a folder, everything is copied into it; if there
is nothing, DST is the new name. DST/ makes the folder. SRC/. copies what is in
SRC. A file that is there is replaced, nothing is ever deleted. Symlinks,
devices, pipes and sockets are skipped, with a warning.

A file has its name only when it is whole and its BLAKE3 hash is right. Until
then it is .NAME.cepa-part beside it. After an interruption, the same command
goes on from there, and skips what has arrived: what is there is compared by its
hash, not by its length.

If the connection is lost, the session is kept and the transfer goes on over the
next one. With --reconnect it also goes on in a new session, if the first is
lost.

A file that cannot be copied does not stop the others. It has a line on standard
error, and the exit code is 10.

Examples:
  cepa cp fw.bin @board:up/
  cepa cp @board:logs/2026 @board:logs/boot.txt ./")]
pub(crate) struct Cp {
    /// Files and folders to copy: all here, or all of one service
    #[arg(value_name = "SRC", required = true, num_args = 1..,
          value_parser = OsStringValueParser::new().try_map(Side::parse))]
    pub(crate) from: Vec<Side>,
    /// The folder to copy them into, or a new name for the only one
    #[arg(value_name = "DST",
          value_parser = OsStringValueParser::new().try_map(Side::parse))]
    pub(crate) to: Side,
    /// Does nothing: folders are always copied whole. For those who are used to `scp -r`
    #[arg(short, long)]
    recursive: bool,
    /// If the session is lost for good, make a new one and go on
    #[arg(long)]
    pub(crate) reconnect: bool,
    #[command(flatten)]
    pub(crate) code_relay: CodeRelay,
    #[command(flatten)]
    pub(crate) dialling: Dialling,
}
