//! `cepa node`: a node that runs by a configuration file, and follows its changes.
//!
//! SIGHUP reads the file again. What is wrong with it is told, and nothing changes then. Sessions and what is
//! open in them go on in any case: a permission that is gone is gone for the next substream. Services, permissions,
//! further listeners and further relays are taken on; for what else has changed the node has to be started anew, and
//! says so.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use cepa::identity::{Identity, Presented, Refusal, TrustPolicy};
use cepa::node::membrane::Membrane;
use cepa::node::sealed::CarrierConfig;
use cepa::node::{Access, Call, Hint, Node};
use cepa::relay::RelayConfig;
use cepa::tls::TlsConfig;

use crate::args::{self, IdentityFile, Target};
use crate::console::wire::PREFIX as CONSOLE;
use crate::exit::{self, Failure, say};
use crate::service::Services;
use crate::signal::{Asked, Signals};
use crate::{id, node, sealed};

mod config;
mod control;

use config::{Config, Relay};
use control::Control;

/// How long sessions may take to end in order once the node was asked to.
const GOODBYE: Duration = Duration::from_secs(3);

pub(crate) async fn run(args: args::NodeRun) -> Result<(), Failure> {
    let config = Config::read(&args.config)?;
    let identity = id::load(&IdentityFile {
        path: config.identity.clone(),
    })?;
    if args.check {
        return exit::print(&format!(
            "{}: good, for peer {}\n",
            args.config.display(),
            identity.peer_id()
        ));
    }
    // Before anybody can send a signal that would end us.
    let mut signals = Signals::watch_with_reload();
    let mut daemon = Daemon::start(config, identity).await?;
    while signals.next().await != Asked::ToEnd {
        daemon.reload(&args.config).await;
    }
    if let Some(control) = daemon.control.take() {
        control.close().await;
    }
    daemon.node.shutdown(GOODBYE).await;
    Ok(())
}

struct Daemon {
    node: Node,
    identity: Identity,
    config: Config,
    /// Who may have a session, and whom the relay serves: what the last file said.
    sessions: Shared,
    relay: Shared,
    control: Option<Control>,
    membranes: BTreeMap<String, Membrane>,
}

impl Daemon {
    async fn start(config: Config, identity: Identity) -> Result<Self, Failure> {
        let sessions = Shared::new(config.sessions());
        let relay = Shared::new(relay_access(&config));
        let mut settings = node::config(&identity, Arc::new(sessions.clone()));
        let node = match &config.relay {
            None => Node::new(settings),
            Some(Relay { limits, .. }) => {
                let served = relay.clone();
                let mut carries = RelayConfig::for_peers(move |peer| served.allows(peer));
                carries.registrations = limits.registrations;
                carries.circuits = limits.circuits;
                carries.circuits_a_peer = limits.circuits_a_peer;
                carries.rate = limits.rate;
                node::room_for_relay(&mut settings, &carries);
                Node::with_relay(settings, carries)
            }
        };
        let mut daemon = Self {
            node,
            identity,
            config,
            sessions,
            relay,
            control: None,
            membranes: BTreeMap::new(),
        };
        daemon.grow_membranes().await?;
        daemon.node.carry(carrier(&daemon.config));
        let offered: Vec<String> = daemon.config.services.keys().cloned().collect();
        for name in &offered {
            daemon.offer(name)?;
        }
        for endpoint in daemon.config.listen.clone() {
            let at = daemon.node.listen(&endpoint).await?;
            say(format_args!("listening on {at} as {}", daemon.node.id()));
        }
        if let Some(path) = &daemon.config.control {
            daemon.control = Some(Control::open(path, &daemon.node).await?);
        }
        node::tell(&daemon.node);
        let register = daemon.config.register.clone();
        node::register(&daemon.node, &register).await?;
        for address in id::through(daemon.node.id(), &register)? {
            say(format_args!("reachable at {address}"));
        }
        Ok(daemon)
    }

    /// Makes and revokes membranes until they are what the configuration says. One that is not named any more is revoked
    /// with its last handle.
    async fn grow_membranes(&mut self) -> Result<(), Failure> {
        let through = id::through(self.node.id(), &self.config.register)?;
        let hints: Vec<Hint> = through.iter().flat_map(|at| at.hints().to_vec()).collect();
        let wanted = &self.config.membranes;
        self.membranes
            .retain(|name, membrane| match wanted.get(name) {
                // Named again, it is another one.
                Some(revoked) => *revoked || !membrane.is_revoked(),
                None => false,
            });
        for (name, revoked) in wanted {
            let made = || self.node.membrane(hints.iter().cloned());
            let membrane = self.membranes.entry(name.clone()).or_insert_with(made);
            if *revoked && !membrane.is_revoked() {
                membrane.revoke().await;
                say(format_args!("the membrane {name} is revoked"));
            }
        }
        Ok(())
    }

    /// Offers a service of the configuration, in place of one of that name.
    fn offer(&self, name: &str) -> Result<(), Failure> {
        let Some(offer) = self.config.services.get(name) else {
            return Ok(());
        };
        offer.service.leads_elsewhere(self.node.id())?;
        if offer.sealed {
            sealed::serve(&self.node, &offer.service, offer.access.clone());
        } else {
            self.node.withdraw_sealed(name);
        }
        let membrane = offer.membrane.as_ref();
        let membrane = membrane.and_then(|name| self.membranes.get(name));
        if let (Some(membrane), Target::Forward(to)) = (membrane, &offer.service.target) {
            let introducers = offer.introducers.clone().unwrap_or_default();
            self.node.introducers(name, introducers);
            // It may have been another service before, with a console: a way around.
            self.node.withdraw(&format!("{CONSOLE}{name}"));
            membrane.offer(name, offer.access.clone(), (**to).clone());
            return Ok(());
        }
        // Who it is for is the node's question; TLS inside a substream is with the same peer.
        let inner = TlsConfig::new(&self.identity, Arc::new(self.sessions.clone()))?;
        let services = Services::new(vec![offer.service.clone()], inner, self.node.clone());
        let introducers = offer.introducers.clone().unwrap_or_default();
        self.node.introducers(name, introducers);
        let serve = move |call: Call| {
            let session = call.session().clone();
            Arc::clone(&services).serve(call.into_incoming(), session)
        };
        let on_console = format!("{CONSOLE}{name}");
        self.node
            .serve(&on_console, offer.access.clone(), serve.clone());
        self.node.serve(name, offer.access.clone(), serve);
        Ok(())
    }

    async fn reload(&mut self, path: &Path) {
        let config = match Config::read(path) {
            Ok(config) => config,
            Err(failure) => {
                return say(format_args!("{failure}; nothing has changed"));
            }
        };
        let limits = |config: &Config| config.relay.as_ref().map(|relay| relay.limits);
        let before = std::mem::replace(&mut self.config, config);
        let now = &self.config;
        let mut later = Vec::new();
        if before.identity != now.identity {
            later.push("identity");
        }
        if before.control != now.control {
            later.push("control");
        }
        if limits(&before) != limits(now) {
            later.push("relay");
        }
        if before.listen.iter().any(|at| !now.listen.contains(at)) {
            later.push("listen");
        }
        if before.register.iter().any(|at| !now.register.contains(at)) {
            later.push("register");
        }
        self.sessions.set(now.sessions());
        self.relay.set(relay_access(now));
        if let Err(failure) = self.grow_membranes().await {
            say(failure);
        }
        let now = &self.config;
        for name in before.services.keys() {
            if !now.services.contains_key(name) {
                self.node.withdraw(name);
                self.node.withdraw(&format!("{CONSOLE}{name}"));
                self.node.withdraw_sealed(name);
            }
        }
        if before.carrier != now.carrier {
            self.node.carry(carrier(now));
        }
        let offered: Vec<String> = now.services.keys().cloned().collect();
        for name in &offered {
            if let Err(failure) = self.offer(name) {
                say(format_args!("the service {name}: {failure}"));
            }
        }
        let (old_listen, old_register) = (before.listen, before.register);
        for at in self.config.listen.clone() {
            if !old_listen.contains(&at) {
                match self.node.listen(&at).await {
                    Ok(at) => say(format_args!("listening on {at} as {}", self.node.id())),
                    Err(e) => say(e),
                }
            }
        }
        for relay in self.config.register.clone() {
            if !old_register.contains(&relay)
                && let Err(failure) = node::register(&self.node, &[relay]).await
            {
                say(failure);
            }
        }
        let rest = if later.is_empty() {
            String::new()
        } else {
            format!(
                "; start the node anew for what changed in {}",
                later.join(", ")
            )
        };
        say(format_args!("read {} again{rest}", path.display()));
    }
}

fn carrier(config: &Config) -> Option<CarrierConfig> {
    let it = config.carrier.as_ref()?;
    let access = it.access.clone();
    let mut carrier = CarrierConfig::for_peers(move |peer| access.allows(peer));
    carrier.at_once = it.at_once;
    carrier.at_once_a_peer = it.at_once_a_peer;
    carrier.a_minute = it.a_minute;
    Some(carrier)
}

fn relay_access(config: &Config) -> Access {
    let relay = config.relay.as_ref();
    relay.map(|relay| relay.access.clone()).unwrap_or_default()
}

/// Who may, as the last file said it.
#[derive(Clone, Debug)]
struct Shared(Arc<RwLock<Access>>);

impl Shared {
    fn new(access: Access) -> Self {
        Self(Arc::new(RwLock::new(access)))
    }

    fn set(&self, access: Access) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = access;
    }

    fn allows(&self, peer: &cepa::identity::PeerId) -> bool {
        let access = self.0.read().unwrap_or_else(PoisonError::into_inner);
        access.allows(peer)
    }
}

impl TrustPolicy for Shared {
    fn decide(&self, peer: &Presented<'_>) -> Result<(), Refusal> {
        let presented = peer.id;
        if self.allows(&presented) {
            Ok(())
        } else {
            Err(Refusal::Unknown { presented })
        }
    }

    fn overlooks_dates(&self, peer: &Presented<'_>) -> bool {
        let access = self.0.read().unwrap_or_else(PoisonError::into_inner);
        matches!(&*access, Access::Peers(peers) if peers.contains(&peer.id))
    }
}
