//! The options of a relay that is one of a fleet.

use std::path::PathBuf;

use cepa::identity::PeerId;
use cepa_fleet::FleetAddress;
use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct Fleet {
    /// Be one of a fleet of relays, each of which leads to the peers of all: what they share is below
    /// PREFIX in this etcd, etcd://HOST:PORT[,HOST:PORT…]/PREFIX (etcds: under TLS)
    #[arg(long = "fleet", value_name = "STORE")]
    pub(crate) store: Option<FleetAddress>,
    /// The other relays of the fleet. They are known by their ids alone, whatever the store says
    /// (repeatable)
    #[arg(long = "fleet-peer", value_name = "PEERID|@NAME", requires = "store", num_args = 1..,
        value_parser = other)]
    pub(crate) peers: Vec<FleetPeer>,
    /// The authorities of etcds: in a PEM file
    #[arg(long = "fleet-ca", value_name = "FILE", requires = "store")]
    pub(crate) ca: Option<PathBuf>,
    /// The certificate for etcd, in a PEM file
    #[arg(long = "fleet-cert", value_name = "FILE", requires_all = ["store", "key"])]
    pub(crate) cert: Option<PathBuf>,
    /// The key of that certificate, in a PEM file
    #[arg(long = "fleet-key", value_name = "FILE", requires_all = ["store", "cert"])]
    pub(crate) key: Option<PathBuf>,
    /// The user and password of etcd: a file with the line USER:PASSWORD, which only its owner can read
    #[arg(long = "fleet-login", value_name = "FILE", requires = "store")]
    pub(crate) login: Option<PathBuf>,
}

/// Another relay of the fleet.
#[derive(Clone, Debug)]
pub(crate) enum FleetPeer {
    Id(PeerId),
    Named(String),
}

/// One of the others.
fn other(word: &str) -> Result<FleetPeer, String> {
    const EXPECTED: &str = "--fleet-peer names one relay: give its peer id, or @NAME";
    match (word, word.strip_prefix('@')) {
        ("any" | "known", _) => Err(EXPECTED.to_owned()),
        (_, Some(name)) => Ok(FleetPeer::Named(name.to_owned())),
        _ => match word.parse() {
            Ok(id) => Ok(FleetPeer::Id(id)),
            Err(error) => Err(format!("{error} ({EXPECTED})")),
        },
    }
}
