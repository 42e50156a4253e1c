//! The command line of `cepa id`: its words and their help.

use cepa::node::PeerAddr;
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
