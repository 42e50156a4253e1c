//! The command line of `cepa peer`: its words and their help.

use std::path::PathBuf;

use cepa::node::Hint;
use clap::{Args, Subcommand};

#[cfg(feature = "mdns")]
use super::of_mesh::Multicast;
#[cfg(feature = "mdns")]
use crate::values::seconds;

#[derive(Debug, Subcommand)]
pub(crate) enum Peer {
    /// List the peers in the file `known_peers` of the configuration folder
    Ls(PeerLs),
    /// Add a peer, or more addresses of a known one
    Add(PeerAdd),
    /// Forget a peer
    Rm(PeerName),
    /// Rename a peer
    Rename(PeerRename),
    /// Compare a peer's id with the one its owner sees (`cepa id show`), and mark it as verified
    Verify(PeerVerify),
    #[cfg(feature = "mdns")]
    /// List who announces itself on the local network (`cepa serve --mdns`), known peers first
    Find(PeerFind),
    /// Update known peers to their new keys, from the output of `cepa id show --statement`
    Follow(PeerFollow),
}

#[derive(Debug, Args)]
#[command(after_help = "\
On a terminal a peer has a few lines: its name and id, how and when it was met,
and its addresses. Anywhere else it has one line, as in the file.")]
pub(crate) struct PeerLs {
    /// Print a JSON array: each peer with `name`, `id`, `first_seen`, `how`, `addresses` and `previous`
    /// (the ids that it had before)
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PeerAdd {
    /// The name to give it
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Its peer id, or the words from `cepa id show --words`
    #[arg(value_name = "PEERID|WORDS", required = true)]
    pub(crate) id: Vec<String>,
    /// Where it listens, or the relay where it is registered. Whoever answers there must prove this id
    /// (repeatable)
    #[arg(long, value_name = "ADDR|relay:RELAYID@ADDR")]
    pub(crate) at: Vec<Hint>,
    /// If a peer of this name has another id, replace that id
    #[arg(long)]
    pub(crate) replace: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PeerName {
    /// Its name
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct PeerRename {
    /// Its name
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Its new name
    #[arg(value_name = "NEW")]
    pub(crate) new: String,
}

#[derive(Debug, Args)]
pub(crate) struct PeerVerify {
    /// Its name
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// The id that its owner sees, or the words from `cepa id show --words`
    #[arg(value_name = "PEERID|WORDS", required = true)]
    pub(crate) seen: Vec<String>,
}

#[cfg(feature = "mdns")]
#[derive(Debug, Args)]
#[command(after_help = "\
Each peer has its name, if it is known here, its id, and the addresses where it
says that it listens. None of that is proved: whoever answers there must prove
the id. To keep an address: cepa peer add NAME PEERID --at ADDR. Multicast does
not leave the local network, and seldom a container.")]
pub(crate) struct PeerFind {
    /// How long to listen
    #[arg(long = "for", value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    pub(crate) time: f64,
    /// Where to listen: `loopback` is this machine only
    #[arg(
        long,
        value_name = "network|loopback",
        default_value = "network",
        hide_default_value = true
    )]
    pub(crate) mdns: Multicast,
    /// Print a JSON array: each peer with `name` (or null), `id` and `addresses`
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PeerFollow {
    /// A file with the statements, or `-` for standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}
