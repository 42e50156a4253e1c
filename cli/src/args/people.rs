//! The command lines about who is who: our own identity, peers that are known, and how two come to know
//! each other.

use std::path::PathBuf;

use cepa::identity::PeerId;
use cepa::node::{Hint, PeerAddr};
use cepa::transports::Endpoint;
use clap::{Args, Subcommand};

use super::options::IdentityFile;
use crate::values::{Kind, placed_addr};

#[derive(Debug, Subcommand)]
pub(crate) enum Id {
    /// Create an identity (a key and a self-signed certificate), and print its peer id
    New(IdNew),
    /// Print the peer id
    Show(IdShow),
    /// Print an address at which others reach this identity
    Addr(IdAddr),
    /// Replace the key. The old key signs the new one, so peers follow automatically
    Rotate(IdRotate),
}

#[derive(Debug, Args)]
#[command(after_help = "\
The old identity stays in a file beside the new one. Both are valid during the
overlap, so programs that still run with the old one go on.

The new certificate contains a statement, signed with the old key, that names
the new key. A peer that knows the old key reads it at its next connection and
updates its known peers. If it does not connect before the statement expires,
give it the new id by hand. To tell peers without a connection, print the
statement with `cepa id show --statement`; they run `cepa peer follow`.")]
pub(crate) struct IdRotate {
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
    /// The kind of the new key
    #[arg(long, value_name = "KIND", value_enum, default_value_t = Kind::Ed25519)]
    pub(crate) kind: Kind,
    /// How many days the old key stays valid
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(..=36_500))]
    pub(crate) overlap: u32,
    /// How many days others can learn the new key from the statement
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub(crate) expires: u32,
}

#[derive(Debug, Args)]
pub(crate) struct IdNew {
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
    /// The kind of key
    #[arg(long, value_name = "KIND", value_enum, default_value_t = Kind::Ed25519)]
    pub(crate) kind: Kind,
    /// Encrypt the private key with a passphrase, typed at the terminal or read from the file that
    /// CEPA_PASSPHRASE_FILE names
    #[arg(long)]
    pub(crate) passphrase: bool,
}

#[derive(Debug, Args)]
pub(crate) struct IdShow {
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
    /// Print the id as sixteen words, to read aloud
    #[arg(long, group = "form")]
    pub(crate) words: bool,
    /// Also print a picture of the id. Another picture means another id; the same picture proves nothing
    #[arg(long, group = "form")]
    pub(crate) art: bool,
    /// Also print a QR code
    #[arg(long, group = "form")]
    pub(crate) qr: bool,
    /// Print the statements of the earlier keys that name this one, for `cepa peer follow`
    #[arg(long, group = "form")]
    pub(crate) statement: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The code is printed on standard output. It contains this machine's peer id, its
address, and a secret that works once. Send it to the other side in private:
whoever uses it first joins. The command ends when a peer has joined; each side
is then a known peer of the other. Until then, this address offers nothing
else.")]
pub(crate) struct Invite {
    /// Where to listen: tcp:HOST:PORT (port 0 picks a free port) or unix:PATH
    #[arg(value_name = "ADDR")]
    pub(crate) listen: Endpoint,
    /// The address to put into the code, if the other side reaches this machine at another one
    #[arg(long, value_name = "ADDR")]
    pub(crate) at: Option<Endpoint>,
    /// Remember the peer that joins under this name
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// How long to wait
    #[arg(long, value_name = "MINUTES", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1440))]
    pub(crate) minutes: u32,
    /// Show the code as a QR code too
    #[arg(long)]
    pub(crate) qr: bool,
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
}

#[derive(Debug, Args)]
pub(crate) struct Join {
    /// The code that `cepa invite` printed, or `-` to read it from standard input (other users of this
    /// machine can see a command line)
    #[arg(value_name = "CODE")]
    pub(crate) code: String,
    /// Remember the peer that invited under this name
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Connect to this address instead of the one in the code
    #[arg(long, value_name = "ADDR")]
    pub(crate) at: Option<Endpoint>,
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Peer {
    /// List the peers in the file `known_peers` of the configuration folder
    Ls,
    /// Add a peer, or more addresses of a known one
    Add(PeerAdd),
    /// Forget a peer
    Rm(PeerName),
    /// Rename a peer
    Rename(PeerRename),
    /// Compare a peer's id with the one its owner sees (`cepa id show`), and mark it as verified
    Verify(PeerVerify),
    /// Update known peers to their new keys, from the output of `cepa id show --statement`
    Follow(PeerFollow),
}

#[derive(Debug, Args)]
pub(crate) struct PeerFollow {
    /// A file with the statements, or `-` for standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct PeerAdd {
    /// The name to give it
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Its peer id
    #[arg(value_name = "PEERID")]
    pub(crate) id: PeerId,
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

#[derive(Debug, Args)]
pub(crate) struct IdAddr {
    /// Where it listens; peers try these in order
    #[arg(value_name = "ADDR")]
    pub(crate) at: Vec<Endpoint>,
    /// A relay where it is registered, cepa://RELAYID@ADDR (repeatable)
    #[arg(long = "relay", value_name = "RELAY", value_parser = placed_addr)]
    pub(crate) relays: Vec<PeerAddr>,
    /// A service to include in the address
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) service: String,
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
}
