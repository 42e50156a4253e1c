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
    /// Make an identity (a key and a certificate of its own) and print its peer id
    New(IdNew),
    /// Print the peer id
    Show(IdShow),
    /// Print an address that others can reach this identity at
    Addr(IdAddr),
    /// Replace the key: the old one names the new one, so that peers that know it follow by themselves
    Rotate(IdRotate),
}

#[derive(Debug, Args)]
#[command(after_help = "\
The old identity is kept beside the new one, and both are good for the overlap:
programs that still run with the old one go on. A peer that knows the old key
learns the new one at its next connection (the statement stands in the
certificate), and writes so into its known peers; one that is not met before the
statement expires has to be told the new id by hand. `cepa id show --statement`
prints the statement for peers that are told by other means (`cepa peer
follow`).")]
pub(crate) struct IdRotate {
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
    /// What kind of key the new one is
    #[arg(long, value_name = "KIND", value_enum, default_value_t = Kind::Ed25519)]
    pub(crate) kind: Kind,
    /// How long the old key is still good, in days
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(..=36_500))]
    pub(crate) overlap: u32,
    /// How long others can learn of the new key, in days
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub(crate) expires: u32,
}

#[derive(Debug, Args)]
pub(crate) struct IdNew {
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
    /// What kind of key
    #[arg(long, value_name = "KIND", value_enum, default_value_t = Kind::Ed25519)]
    pub(crate) kind: Kind,
    /// Put the private key under a passphrase, typed at the terminal or from the file that
    /// CEPA_PASSPHRASE_FILE names
    #[arg(long)]
    pub(crate) passphrase: bool,
}

#[derive(Debug, Args)]
pub(crate) struct IdShow {
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
    /// As sixteen words, to read aloud
    #[arg(long, group = "form")]
    pub(crate) words: bool,
    /// With a picture: one that has changed shows another id, one that has not proves nothing
    #[arg(long, group = "form")]
    pub(crate) art: bool,
    /// With a QR code
    #[arg(long, group = "form")]
    pub(crate) qr: bool,
    /// The statements by which the keys before this one name it, for `cepa peer follow`
    #[arg(long, group = "form")]
    pub(crate) statement: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The code is printed on standard output: it carries this machine's peer id, the
address, and a secret that works once. Give it to the other side over a way that
is private; who has it first can join in its place. The command ends when
somebody has joined, and each side is then among the other's known peers.
Whoever connects meanwhile gets nothing else.")]
pub(crate) struct Invite {
    /// Where to wait: tcp:HOST:PORT (port 0 takes a free one) or unix:PATH
    #[arg(value_name = "ADDR")]
    pub(crate) listen: Endpoint,
    /// The address for the code, where the other side reaches this machine by another one
    #[arg(long, value_name = "ADDR")]
    pub(crate) at: Option<Endpoint>,
    /// What to call the one who joins
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
    /// What `cepa invite` printed, or `-` to read it from standard input (a command line can be seen by
    /// other users of the machine)
    #[arg(value_name = "CODE")]
    pub(crate) code: String,
    /// What to call the one who invited
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Dial this in place of the code's address
    #[arg(long, value_name = "ADDR")]
    pub(crate) at: Option<Endpoint>,
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Peer {
    /// List them, as they stand in the file `known_peers` of the configuration folder
    Ls,
    /// Add one, or more places of one that is there
    Add(PeerAdd),
    /// Forget one
    Rm(PeerName),
    /// Call one something else
    Rename(PeerRename),
    /// Compare a peer's id with what its owner sees (`cepa id show`), and note that they agree
    Verify(PeerVerify),
    /// Follow known peers to their new keys, by what `cepa id show --statement` prints there
    Follow(PeerFollow),
}

#[derive(Debug, Args)]
pub(crate) struct PeerFollow {
    /// The statements: a file, or `-` for standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct PeerAdd {
    /// What to call it
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Its peer id
    #[arg(value_name = "PEERID")]
    pub(crate) id: PeerId,
    /// Where it is met, or the relay where it is registered (repeatable): whoever answers there must prove
    /// that id
    #[arg(long, value_name = "ADDR|relay:RELAYID@ADDR")]
    pub(crate) at: Vec<Hint>,
    /// If there is a peer of that name with another id, give it this one
    #[arg(long)]
    pub(crate) replace: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PeerName {
    /// What it is called
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct PeerRename {
    /// What it is called
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// What to call it
    #[arg(value_name = "NEW")]
    pub(crate) new: String,
}

#[derive(Debug, Args)]
pub(crate) struct PeerVerify {
    /// What it is called here
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// The id that its owner sees, or the words of `cepa id show --words`
    #[arg(value_name = "PEERID|WORDS", required = true)]
    pub(crate) seen: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct IdAddr {
    /// Where it listens, in the order in which to try
    #[arg(value_name = "ADDR")]
    pub(crate) at: Vec<Endpoint>,
    /// A relay that it is registered at, cepa://RELAYID@ADDR (repeatable)
    #[arg(long = "relay", value_name = "RELAY", value_parser = placed_addr)]
    pub(crate) relays: Vec<PeerAddr>,
    /// The service
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
