//! The options for what other peers do for a command: relays, short codes, invitations, introductions.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use cepa::node::PeerAddr;
use clap::Args;

use crate::exit::{Code, Failure};
use crate::values::{AllowArg, placed_addr};

/// Where somebody waits who gave us a short code.
#[derive(Debug, Args)]
pub(crate) struct CodeRelay {
    /// For a short code: the relay where it was made, cepa://RELAYID@ADDR or @NAME. Default: the one in
    /// `config.toml`
    #[arg(long, value_name = "RELAY", value_parser = placed_addr)]
    pub(crate) relay: Option<PeerAddr>,
}

impl CodeRelay {
    /// It means nothing for another address.
    pub(crate) fn is_for_a_code(&self) -> Result<(), Failure> {
        if self.relay.is_none() {
            return Ok(());
        }
        Err(Failure::new(
            Code::Usage,
            "--relay says where a short code was made; for a peer behind a relay, give cepa://PEERID@relay:RELAYID@ADDR",
        ))
    }
}

/// How peers find a server, and who brings it others.
#[derive(Debug, Args)]
pub(crate) struct ServeMesh {
    /// Register at this relay, cepa://RELAYID@ADDR, so that peers reach the services through it. May
    /// replace ADDR (repeatable)
    #[arg(long, value_name = "RELAY", value_parser = placed_addr)]
    register: Vec<PeerAddr>,
    /// A name or address by which others reach what ADDR listens at, for --invite
    #[arg(long, value_name = "HOST", requires = "invite")]
    public: Option<String>,
    /// Announce the peer id and the tcp: listeners on the local network, for `cepa peer find`
    #[arg(long, value_name = "network|loopback", num_args = 0..=1, require_equals = true,
          default_missing_value = "network")]
    mdns: Option<Multicast>,
    /// Print an invitation, for `cepa join` on another machine. Who joins is remembered under this name
    /// and may open the services from then on
    #[arg(long, value_name = "NAME")]
    invite: Option<String>,
    /// Who else may introduce peers to the services. Unknown peers can then connect, but open only the
    /// services that they are introduced to (repeatable)
    #[arg(long = "introducer", value_name = "PEERID|@NAME|known|any")]
    introducers: Vec<AllowArg>,
    /// Remembers across restarts which introductions were used or revoked. Without it, a used one works
    /// again if the clock was set back. The file is created if it does not exist
    #[arg(long, value_name = "FILE", requires = "introducers")]
    state: Option<PathBuf>,
    /// Also accept requests from `cepa send`, from the peers that --allow names: directly, or through a
    /// `--register` relay that runs with --carry
    #[arg(long)]
    sealed: bool,
}

impl ServeMesh {
    pub(crate) fn register(&self) -> &[PeerAddr] {
        &self.register
    }

    pub(crate) fn public(&self) -> Option<&str> {
        self.public.as_deref()
    }

    pub(crate) fn mdns(&self) -> Option<Multicast> {
        self.mdns
    }

    pub(crate) fn invite(&self) -> Option<&str> {
        self.invite.as_deref()
    }

    pub(crate) fn introducers(&self) -> &[AllowArg] {
        &self.introducers
    }

    pub(crate) fn state(&self) -> Option<&Path> {
        self.state.as_deref()
    }

    pub(crate) fn sealed(&self) -> bool {
        self.sealed
    }
}

/// Where peers are announced and heard by multicast DNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Multicast {
    Network,
    /// This machine only, perhaps at a port of one's own.
    Loopback(Option<u16>),
}

impl FromStr for Multicast {
    type Err = &'static str;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected network, loopback or loopback:PORT";
        match word.split_once(':') {
            None if word == "network" => Ok(Self::Network),
            None if word == "loopback" => Ok(Self::Loopback(None)),
            Some(("loopback", port)) => match port.parse() {
                Ok(port @ 1..) => Ok(Self::Loopback(Some(port))),
                _ => Err(EXPECTED),
            },
            _ => Err(EXPECTED),
        }
    }
}
