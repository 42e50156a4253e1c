//! `cepa node`: a node that runs by a configuration file, and follows its changes.
//!
//! SIGHUP reads the file again. What is wrong with it is told, and nothing changes then. Sessions and what is
//! open in them go on in any case: a permission that is gone is gone for the next substream. Services, permissions,
//! further listeners and further relays are taken on; for what else has changed the node has to be started anew, and
//! says so.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use cepa::identity::{AcceptAny, AnyOf, Identity, PeerId, Pinned, Presented, Refusal, TrustPolicy};
use cepa::node::{Access, Hint, Listening, Node, PeerAddr};
use cepa::protocols::membrane::Membrane;
use cepa::protocols::pairing::Invitations;
use cepa::protocols::relay::{Relay, RelayConfig};
use cepa::protocols::sealed::CarrierConfig;
use cepa::tls::TlsConfig;
use cepa::transports::Endpoint;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::args::{self, IdentityFile, Multicast, Service, Target};
use crate::by_mesh;
use crate::control::OfNode;
use crate::direct::{self, DirectChoice};
use crate::events::Report;
use crate::exit::{self, Code, Failure, say};
use crate::gate::Gate;
use crate::id::Unsaved;
use crate::keep::Keep;
use crate::manager;
use crate::mesh_node::Mesh;
use crate::on_network::OnNetwork;
use crate::reach::{self, Bound};
use crate::remote_served::{self, RemoteListeners};
use crate::say::Line;
use crate::service::Services;
use crate::service_check;
use crate::signal::{Asked, Signals};
use crate::stack::warn_of_dead_hints;
use crate::status_served::{self, Teller};
use crate::watched::Watched;
use crate::{folder, id, send};

mod changes;
mod config;
mod control;
mod inviter;

use config::Config;
use control::{Controlled, Listeners, Reloaded};
use inviter::Inviter;

pub(crate) async fn run(args: args::NodeRun) -> Result<(), Failure> {
    let read = || {
        let mut config = Config::read(&args.config)?;
        if let Some(path) = args.watching.control() {
            config.control = Some(path.to_owned());
        }
        if let Some(at) = args.watching.metrics() {
            config.metrics = Some(at.to_vec());
        }
        Ok::<_, Failure>(config)
    };
    let config = read()?;
    let (identity, unsaved) = id::load_unsaved(&IdentityFile {
        path: config.identity.clone(),
    })?;
    config.leads_elsewhere(&identity)?;
    if args.check {
        let file = args.config.display();
        return exit::print(&if unsaved.is_new() {
            format!("{file}: valid; the node creates its key when it starts\n")
        } else {
            format!("{file}: valid; the peer id is {}\n", identity.peer_id())
        });
    }
    // Before anybody can send a signal that would end us.
    let mut signals = Signals::watch_with_reload();
    let (ask_to_reload, mut reloads) = mpsc::channel(1);
    let mut daemon = Daemon::start(config, identity, unsaved, ask_to_reload).await?;
    manager::ready();
    loop {
        let answer = tokio::select! {
            asked = signals.next() => {
                if asked == Asked::ToEnd {
                    break;
                }
                None
            }
            Some(answer) = reloads.recv() => Some(answer),
        };
        manager::reloading();
        let reloaded = daemon.reload(&args.config, read()).await;
        if let Some(answer) = answer {
            // Whoever has asked may be gone.
            let _ = answer.send(reloaded);
        }
        manager::ready();
    }
    std::mem::take(&mut daemon.watched).close().await;
    if let Some(network) = &daemon.network {
        network.leave().await;
    }
    reach::leave(daemon.node(), &mut signals, false).await;
    daemon.services.end().await;
    Ok(())
}

struct Daemon {
    mesh: Mesh,
    config: Config,
    services: Arc<Services>,
    /// Where peers may have it listen.
    remote: Arc<RemoteListeners>,
    /// Who may look at it from elsewhere.
    teller: Arc<Teller>,
    /// Who may have a session: what the last file says.
    sessions: Sessions,
    relay: Option<Relay>,
    watched: Watched,
    listeners: Listeners,
    network: Option<Arc<OnNetwork>>,
    membranes: BTreeMap<String, Membrane>,
    /// The relays that it is to be registered at, since its start.
    relays: BTreeSet<PeerId>,
    begun: Begun,
}

/// What stays as it was at the start.
struct Begun {
    identity: Option<PathBuf>,
    control: Option<PathBuf>,
    metrics: Option<Vec<Endpoint>>,
    state: Option<PathBuf>,
    relay: Option<config::Limits>,
    gate: Gate,
    shares: config::SharesOfAPeer,
    keep: Keep,
    keep_consoles: Option<Duration>,
    mdns: Option<Multicast>,
    direct: Option<DirectChoice>,
}

impl Begun {
    fn with(config: &Config) -> Self {
        Self {
            identity: config.identity.clone(),
            control: config.control.clone(),
            metrics: config.metrics.clone(),
            state: config.state.clone(),
            relay: config.relay.as_ref().map(|relay| relay.limits),
            gate: config.gate.clone(),
            shares: config.shares,
            keep: config.keep,
            keep_consoles: config.keep_consoles,
            mdns: config.mdns,
            direct: config.direct,
        }
    }
}

impl Daemon {
    async fn start(
        config: Config,
        identity: Identity,
        unsaved: Unsaved,
        reloads: mpsc::Sender<Reloaded>,
    ) -> Result<Self, Failure> {
        let since = Instant::now();
        let reachable = id::through(identity.peer_id(), &config.register)?;
        reach::check_relays(identity.peer_id(), &config.register, false)?;
        for at in &reachable {
            warn_of_dead_hints(at.hints());
        }
        let sessions = Sessions::new(&config);
        let mut settings = reach::config(&identity, Arc::new(sessions.clone()));
        reach::shares_of_a_peer(
            &mut settings,
            config.shares.sessions,
            config.shares.commands,
        );
        settings.stack.resume = config.keep.config();
        reach::room_for_services(&mut settings, None);
        config.gate.apply(&mut settings.gate);
        let carries = config.relay.as_ref().map(|relay| {
            let mut carries = RelayConfig::new(relay.access.clone());
            carries.registrations = relay.limits.registrations;
            carries.circuits = relay.limits.circuits;
            carries.circuits_a_peer = relay.limits.circuits_a_peer;
            carries.rate = relay.limits.rate;
            by_mesh::room_for_relay(&mut settings, &carries);
            carries
        });
        let network = OnNetwork::start_if(config.mdns, identity.peer_id())?;
        let direct = direct::choice(config.direct);
        settings.stack.shared_port = direct != DirectChoice::No;
        let mesh = Mesh::with_direct(settings, config.state.as_deref(), direct)?;
        let relay = carries.map(|carries| Relay::on(&mesh.node, carries));
        let relay = relay
            .transpose()
            .map_err(|e| Failure::new(Code::Other, e.to_string()))?;
        // Who a service is for is the node's question; TLS inside a substream is with the same peers.
        let inner = TlsConfig::new(&identity, Arc::new(sessions.clone()))?;
        let services = Services::on(
            &mesh.node,
            inner,
            mesh.forwarder.clone(),
            config.keep_consoles,
        )?;
        let remote = remote_served::on(&mesh.node)?;
        remote.allow(config.remote.clone());
        let teller = status_served::on(&mesh.node, "node", config.allow_status.clone())?;
        let mut daemon = Self {
            begun: Begun::with(&config),
            relays: BTreeSet::new(),
            mesh,
            config,
            services,
            remote,
            teller,
            sessions,
            relay,
            watched: Watched::default(),
            listeners: Listeners::default(),
            network,
            membranes: BTreeMap::new(),
        };
        let report = Report {
            reachable,
            ..Report::default()
        };
        report.start(daemon.node());
        daemon.grow_membranes().await?;
        daemon.mesh.sealed.carry(carrier(&daemon.config));
        let offered: Vec<String> = daemon.config.services.keys().cloned().collect();
        for name in &offered {
            daemon.offer(name, None)?;
        }
        for endpoint in daemon.config.listen.clone() {
            daemon.listen(&endpoint).await?;
        }
        unsaved.save(&identity)?;
        if matches!(daemon.config.sessions(), Access::Nobody) {
            say(
                "nobody is allowed yet; add `allow` to a service in the configuration file. Refused peers are shown here",
            );
        }
        let (control, metrics) = (&daemon.config.control, &daemon.config.metrics);
        if control.is_some() || metrics.is_some() {
            let inviter = Inviter {
                own: identity.peer_id(),
                invitations: Invitations::on(daemon.node(), folder::now)
                    .map_err(|e| Failure::new(Code::Other, e.to_string()))?,
                reachable: id::through(identity.peer_id(), &daemon.config.register)?,
                relays: daemon.config.register.clone(),
                node: daemon.node().handle(),
                strangers: Arc::clone(&daemon.sessions.strangers),
                busy: Arc::default(),
            };
            let controlled = Controlled {
                node: OfNode::new("node", since, &daemon.mesh).with_relay(daemon.relay.clone()),
                listeners: daemon.listeners.clone(),
                inviter,
                reloads,
            };
            let watched = Watched::open_at(control.as_deref(), metrics.as_deref(), || {
                Arc::new(controlled)
            });
            daemon.watched = watched.await?;
        }
        daemon.register().await?;
        Ok(daemon)
    }

    async fn register(&mut self) -> Result<(), Failure> {
        let relays = &self.config.register;
        self.relays.extend(relays.iter().map(PeerAddr::peer));
        by_mesh::register(&self.mesh, relays).await
    }

    /// What runs otherwise than the configuration says, and will until the node is started anew.
    fn later(&self) -> Vec<&'static str> {
        let (begun, now) = (&self.begun, Begun::with(&self.config));
        let listens = self.listeners.asked();
        let relays = &self.config.register;
        let kept = |id: &PeerId| relays.iter().any(|relay| relay.peer() == *id);
        let parts = [
            ("identity", begun.identity != now.identity),
            ("control", begun.control != now.control),
            ("metrics", begun.metrics != now.metrics),
            ("state", begun.state != now.state),
            ("relay", begun.relay != now.relay),
            ("gate", begun.gate != now.gate),
            (
                "sessions_a_peer",
                begun.shares.sessions != now.shares.sessions,
            ),
            (
                "commands_a_peer",
                begun.shares.commands != now.shares.commands,
            ),
            ("durable and park", begun.keep != now.keep),
            ("keep_consoles", begun.keep_consoles != now.keep_consoles),
            ("mdns", begun.mdns != now.mdns),
            ("direct", begun.direct != now.direct),
            (
                "listen",
                !listens.iter().all(|at| self.config.listen.contains(at)),
            ),
            ("register", !self.relays.iter().all(kept)),
        ];
        parts
            .into_iter()
            .filter(|(_, is)| *is)
            .map(|(part, _)| part)
            .collect()
    }

    fn node(&self) -> &Node {
        &self.mesh.node
    }

    async fn listen(&self, asked: &Endpoint) -> Result<(), Failure> {
        let alone = self.config.listen.len() + self.config.register.len() == 1;
        let (node, listeners) = (self.node().clone(), self.listeners.clone());
        let network = self.network.clone();
        let id = node.id();
        let up = {
            let asked = asked.clone();
            move |listening: Listening| {
                let at = listening.endpoint();
                let line = Line::from(format_args!("listening on {at} as {id}"));
                say(line.with("address", at).bare());
                if let Some(network) = &network {
                    network.announce(at);
                }
                listeners.add(asked, listening);
            }
        };
        match reach::bind(&node, asked, alone).await? {
            Bound::Listening(listening) => up(*listening),
            Bound::Absent(coming) => {
                self.listeners.expect(asked.clone());
                tokio::spawn(async move {
                    if let Ok(listening) = coming.await {
                        up(listening);
                    }
                });
            }
        }
        Ok(())
    }

    /// Makes and revokes membranes until they are what the configuration says. One that is not named any more is revoked
    /// with its last handle.
    async fn grow_membranes(&mut self) -> Result<(), Failure> {
        let through = id::through(self.node().id(), &self.config.register)?;
        let hints: Vec<Hint> = through.iter().flat_map(|at| at.hints().to_vec()).collect();
        let wanted = &self.config.membranes;
        self.membranes
            .retain(|name, membrane| match wanted.get(name) {
                // Named again, it is another one.
                Some(revoked) => *revoked || !membrane.is_revoked(),
                None => false,
            });
        for (name, revoked) in wanted {
            let made = || Membrane::new(&self.mesh.introductions, hints.iter().cloned());
            let membrane = self.membranes.entry(name.clone()).or_insert_with(made);
            if *revoked && !membrane.is_revoked() {
                membrane.revoke().await;
                say(format_args!("revoked the membrane {name}"));
            }
        }
        Ok(())
    }

    /// Offers a service of the configuration, in place of one of that name. What it leads to may be in error: then that stays as
    /// it was `before`, for whom the configuration allows now; without a before there is no such service.
    fn offer(&mut self, name: &str, before: Option<Service>) -> Result<(), Failure> {
        let Some(offer) = self.config.services.get_mut(name) else {
            return Ok(());
        };
        let wrong = offer.service.leads_elsewhere(self.mesh.node.identity());
        match (&wrong, before) {
            (Ok(()), _) => {}
            (Err(_), Some(before)) => offer.service = before,
            (Err(_), None) => {
                self.config.services.remove(name);
                self.withdraw(name);
                return wrong;
            }
        }
        let Some(offer) = self.config.services.get(name) else {
            return wrong;
        };
        service_check::check(&offer.service);
        if offer.sealed {
            send::serve(&self.mesh, &offer.service, offer.access.clone());
        } else {
            self.mesh.sealed.withdraw(name);
        }
        let introducers = offer.introducers.clone().unwrap_or_default();
        self.mesh.introductions.introducers(name, introducers);
        let membrane = offer.membrane.as_ref();
        let membrane = membrane.and_then(|name| self.membranes.get(name));
        if let (Some(membrane), Target::Forward(to)) = (membrane, &offer.service.target) {
            // It may have been another service before, with a console: a way around.
            self.services.withdraw(self.node(), name);
            membrane
                .offer(name, offer.access.clone(), (**to).clone())
                .map_err(|e| Failure::new(Code::Usage, e.to_string()))?;
        } else {
            self.services
                .offer(self.node(), &offer.service, offer.access.clone())?;
        }
        wrong
    }

    /// Takes back a service that the configuration names no more.
    fn withdraw(&self, name: &str) {
        self.services.withdraw(self.node(), name);
        self.mesh.introductions.introducers(name, Access::Nobody);
        self.mesh.sealed.withdraw(name);
    }

    /// Takes the file over. Who may do what comes first: nothing else that is wrong keeps a permission alive that is gone. The rest
    /// is compared with what runs, and not with the file before, so that what failed is tried again.
    /// Tells what came of it, in the log and to who has asked.
    async fn reload(
        &mut self,
        path: &Path,
        config: Result<Config, Failure>,
    ) -> Result<Value, Failure> {
        let config = match config {
            Ok(config) => config,
            Err(failure) => {
                let failure = failure.with("nothing has changed");
                say(failure.to_string());
                return Err(failure);
            }
        };
        let mut failed: Vec<String> = Vec::new();
        let before = std::mem::replace(&mut self.config, config);
        let now = &self.config;
        let changed = changes::between(&before, now);
        self.sessions.set(now);
        if let Some(relay) = &self.relay {
            let access = now.relay.as_ref().map(|relay| relay.access.clone());
            relay.set_access(access.unwrap_or_default());
        }
        self.remote.allow(now.remote.clone());
        self.teller.allow(now.allow_status.clone());
        if before.carrier != now.carrier {
            self.mesh.sealed.carry(carrier(now));
        }
        for name in before.services.keys() {
            if !now.services.contains_key(name) {
                self.withdraw(name);
            }
        }
        if let Err(failure) = self.grow_membranes().await {
            failed.push(failure.to_string());
        }
        let offered: Vec<String> = self.config.services.keys().cloned().collect();
        for name in &offered {
            let before = before.services.get(name);
            if let Err(failure) = self.offer(name, before.map(|offer| offer.service.clone())) {
                failed.push(format!("the service {name}: {failure}"));
            }
        }
        let later = self.later();
        let running = self.listeners.asked();
        for at in self.config.listen.clone() {
            if !running.contains(&at)
                && let Err(failure) = self.listen(&at).await
            {
                failed.push(failure.to_string());
            }
        }
        // Where it is registered already, that is all there is to it.
        if let Err(failure) = self.register().await {
            failed.push(failure.to_string());
        }
        failed.iter().for_each(say);
        let rest = if later.is_empty() {
            String::new()
        } else {
            format!(
                "; restart the node to apply the changes in {}",
                later.join(", ")
            )
        };
        say(format_args!("reloaded {}{rest}", path.display()));
        Ok(
            json!({ "reloaded": path.display().to_string(), "changed": changed, "failed": failed, "restart_for": later }),
        )
    }
}

fn carrier(config: &Config) -> Option<CarrierConfig> {
    let it = config.carrier.as_ref()?;
    let mut carrier = CarrierConfig::new(it.access.clone());
    carrier.at_once = it.at_once;
    carrier.at_once_a_peer = it.at_once_a_peer;
    carrier.a_minute = it.a_minute;
    Some(carrier)
}

/// Who may have a session, as the last file says.
#[derive(Clone, Debug)]
struct Sessions {
    listed: Arc<RwLock<Arc<dyn TrustPolicy>>>,
    /// Somebody is invited, whom nobody knows yet.
    strangers: Arc<AtomicBool>,
}

impl Sessions {
    fn new(config: &Config) -> Self {
        Self {
            listed: Arc::new(RwLock::new(policy(config))),
            strangers: Arc::default(),
        }
    }

    fn set(&self, config: &Config) {
        *self.listed.write().unwrap_or_else(PoisonError::into_inner) = policy(config);
    }

    fn now(&self) -> Arc<dyn TrustPolicy> {
        let listed = Arc::clone(&self.listed.read().unwrap_or_else(PoisonError::into_inner));
        if self.strangers.load(Ordering::Relaxed) {
            Arc::new(AnyOf::new([listed, Arc::new(AcceptAny)]))
        } else {
            listed
        }
    }
}

/// Whoever is named somewhere is so though anyone else comes in as well.
fn policy(config: &Config) -> Arc<dyn TrustPolicy> {
    let pinned = |ids: HashSet<PeerId>| Arc::new(Pinned::new(ids));
    match config.sessions() {
        Access::Anyone => Arc::new(AnyOf::new([
            pinned(config.named()) as Arc<dyn TrustPolicy>,
            Arc::new(AcceptAny),
        ])),
        Access::Peers(peers) => pinned(peers),
        Access::Nobody => pinned(HashSet::new()),
    }
}

impl TrustPolicy for Sessions {
    fn decide(&self, peer: &Presented<'_>) -> Result<(), Refusal> {
        self.now().decide(peer)
    }

    fn proven(&self, peer: &Presented<'_>) -> Result<(), Refusal> {
        self.now().proven(peer)
    }

    fn names(&self, peer: &Presented<'_>) -> bool {
        self.now().names(peer)
    }

    fn overlooks_dates(&self, peer: &Presented<'_>) -> bool {
        self.now().overlooks_dates(peer)
    }
}
