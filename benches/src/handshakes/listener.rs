//! What the flood attacks: a listener with `cepa::gate` before it and a session behind, as `cepa serve` has, in a process of its
//! own, so that its memory is its own.
//!
//! All clients are on this machine, which the gate does not tell apart; so each address of 127/8 stands for a host
//! elsewhere here (10/8).

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use cepa::Side;
use cepa::gate::{self, Gate, Source};
use cepa::identity::{AcceptAny, Identity, KeyKind};
use cepa::session::Session;
use cepa::stack::StackConfig;
use cepa::transports::{self, Endpoint, Remote};
use clap::{Args, ValueEnum};

use crate::Outcome;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Doors {
    /// The gate with its defaults
    Gate,
    /// Everybody gets a place
    Open,
}

impl Doors {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Gate => "gate",
            Self::Open => "open",
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct Options {
    doors: Doors,
}

/// Says `PORT PEERID` and listens until it is killed.
pub(crate) fn serve(options: &Options) -> Outcome<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(listen(options.doors))
}

async fn listen(doors: Doors) -> Outcome<()> {
    let identity = Identity::generate(KeyKind::Ed25519)?;
    let at: Endpoint = "tcp:127.0.0.1:0".parse()?;
    let mut listener = transports::listen(&at).await?;
    let port = listener.endpoint().to_string();
    let port = port.rsplit(':').next().unwrap_or_default();
    writeln!(std::io::stdout(), "{port} {}", identity.peer_id())?;
    let mut rules = gate::Config::default();
    if doors == Doors::Open {
        rules.all = usize::MAX;
        rules.one_source = usize::MAX;
        rules.tolerated = rules.most;
    }
    let gate = Gate::new(rules);
    let config = Arc::new(StackConfig::new(identity, Arc::new(AcceptAny)));
    while let Some(stream) = listener.accept().await? {
        let (config, gate) = (Arc::clone(&config), gate.clone());
        tokio::spawn(async move {
            let Ok(mut pass) = gate.enter(source(stream.remote())).await else {
                return;
            };
            let session = tokio::select! {
                session = Session::handshake(stream, &[], Side::Server, &config) => session,
                _ = pass.evicted() => return,
            };
            match session {
                Ok(session) => {
                    pass.let_in();
                    session.closed().await;
                }
                Err(error) if error.is_probe() => drop(pass.probe()),
                Err(error) => {
                    if let Some(failing) = error.failing() {
                        pass.failed(failing);
                    }
                }
            }
        });
    }
    Ok(())
}

/// The host that an address stands for.
fn source(remote: &Remote) -> Source {
    match remote {
        Remote::Tcp(SocketAddr::V4(address)) => {
            let [_, a, b, c] = address.ip().octets();
            Source::from(IpAddr::from([10, a, b, c]))
        }
        other => Source::from(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_of_this_machine_stands_for_a_host() {
        let of = |address: &str| source(&Remote::Tcp(address.parse().unwrap()));
        assert!(of("127.3.2.1:9").is_far());
        assert_eq!(of("127.3.2.1:9"), of("127.3.2.1:10"));
        assert_ne!(of("127.3.2.1:9"), of("127.3.2.2:9"));
    }
}
