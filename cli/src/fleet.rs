//! A relay's part in a fleet: what the command line says of it, the task that speaks with etcd, and what others see of both.
//!
//! What an operator has to mend (a password, an authority, a file) ends the command before it listens. An etcd that is away does not:
//! that is what a fleet has to bear at any other moment, too.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cepa::identity::PeerId;
use cepa::node::Hint;
use cepa::protocols::relay::RelayConfig;
use cepa::protocols::relay::fleet::{Fleet, FleetConfig, FleetStats};
use cepa_fleet::etcd::{BadCertificate, BadTls, EtcdError, Login, Options, Tls};
use cepa_fleet::{FleetAddress, Health, Keeper, StoreEvent, check};
use serde_json::{Value, json};
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::args::fleet::FleetPeer;
use crate::columns::count;
use crate::exit::{Code, Failure, say};
use crate::numbers::Kind;
use crate::values::AllowArg;
use crate::{args, names, trust};

/// How long a relay waits at its start for what the others have entered.
const FIRST: Duration = Duration::from_secs(2);

/// Nobody writes more into one of the files.
const MOST: u64 = 1 << 20;

/// What lookups are counted for a rate.
const COUNTED: Duration = Duration::from_secs(1);

/// This relay as one of its fleet.
pub(crate) struct Member {
    fleet: Fleet,
    address: FleetAddress,
    options: Options,
    keeper: Mutex<Option<Keeper>>,
    rate: Mutex<Rate>,
}

#[derive(Clone, Copy)]
struct Rate {
    since: Instant,
    lookups: u64,
    a_second: f64,
}

impl Member {
    /// Makes a relay one of the fleet that the command line names, if it names one. The others may use it from then on.
    pub(crate) async fn join(
        args: &args::Fleet,
        own: PeerId,
        allow: &mut Vec<AllowArg>,
        relay: &mut RelayConfig,
    ) -> Result<Option<Self>, Failure> {
        let Some(address) = &args.store else {
            return Ok(None);
        };
        let mut others = args
            .peers
            .iter()
            .map(other)
            .collect::<Result<Vec<_>, _>>()?;
        let named = !others.is_empty();
        others.retain(|id| *id != own);
        let options = options(args, address)?;
        match check(address, &options).await {
            Ok(None) => {}
            Ok(Some(away @ EtcdError::Malformed(_))) => return Err(wrong(address, &away)),
            Ok(Some(away)) => say(format_args!(
                "warning: fleet: no etcd at {address}: {away}; the relay starts without the others, and tries again"
            )),
            Err(error) => return Err(wrong(address, &error)),
        }
        let callers = trust::access(allow)?;
        allow.extend(others.iter().map(|id| AllowArg::Peer(*id)));
        if others.is_empty() {
            say(format_args!(
                "warning: fleet: no other relay is named{}: give --fleet-peer PEERID for each of them",
                if named { ", only this one" } else { "" },
            ));
        }
        let config = FleetConfig::new(others).with_callers(callers);
        let fleet = Fleet::new(own, config);
        relay.fleet = Some(fleet.clone());
        Ok(Some(Self {
            fleet,
            address: address.clone(),
            options,
            keeper: Mutex::default(),
            rate: Mutex::new(Rate {
                since: Instant::now(),
                lookups: 0,
                a_second: 0.0,
            }),
        }))
    }

    /// Begins to speak with etcd, and waits a moment for what that knows.
    pub(crate) async fn start(&self) {
        let fleet = self.fleet.clone();
        let listener = Arc::new(move |event| report(&fleet, &event));
        let options = self.options.clone();
        let keeper = Keeper::start(self.fleet.clone(), &self.address, options, listener);
        let ready = keeper.ready(FIRST);
        ready.await;
        *self.keeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(keeper);
    }

    /// Where the others, and nodes that have to go elsewhere, reach this relay.
    pub(crate) fn reached_at(&self, addresses: Vec<Hint>) {
        self.fleet.set_addresses(addresses);
    }

    /// What there is of it now.
    pub(crate) fn look(&self) -> FleetLook {
        let stats = self.fleet.stats();
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        let health = keeper.as_ref().map(Keeper::health).unwrap_or_default();
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = rate.since.elapsed();
        if passed >= COUNTED {
            #[allow(clippy::cast_precision_loss)] // below 2^53
            let new = stats.lookups.saturating_sub(rate.lookups) as f64;
            *rate = Rate {
                since: Instant::now(),
                lookups: stats.lookups,
                a_second: (new / passed.as_secs_f64() * 10.0).round() / 10.0,
            };
        }
        FleetLook {
            store: self.address.to_string(),
            lookups_s: rate.a_second,
            present: members(&self.fleet),
            stats,
            health,
        }
    }

    /// Takes back what this relay has entered.
    pub(crate) async fn leave(&self) {
        let keeper = self
            .keeper
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(keeper) = keeper {
            keeper.leave().await;
        }
    }
}

/// One of the others.
fn other(word: &FleetPeer) -> Result<PeerId, Failure> {
    match word {
        FleetPeer::Id(id) => Ok(*id),
        FleetPeer::Named(name) => names::id_of(name),
    }
}

/// What an operator has to mend.
fn wrong(address: &FleetAddress, error: &EtcdError) -> Failure {
    let (code, next) = match error {
        EtcdError::Tls { .. } if address.is_tls() => (
            Code::Identity,
            "give the authority of its certificate with --fleet-ca FILE",
        ),
        EtcdError::Certificate { why, .. } => (
            Code::Identity,
            match why {
                BadCertificate::OfAuthority => {
                    "give etcd one with CA:FALSE (openssl req -x509 -addext basicConstraints=critical,CA:FALSE), and --fleet-ca the same, or who signed it"
                }
                BadCertificate::Name => "write a host at --fleet that it names, or make a new one",
                _ => "make a new one, or set the clock of this machine",
            },
        ),
        EtcdError::NoLogin => (Code::Refused, "leave out --fleet-login"),
        EtcdError::Login(_) => (Code::Refused, "give --fleet-login FILE with USER:PASSWORD"),
        EtcdError::Denied(_) => (
            Code::Refused,
            "grant it read and write of all keys that begin with PREFIX/",
        ),
        _ => (Code::Connect, "check HOST:PORT"),
    };
    Failure::new(code, format!("fleet: {address}: {error}; {next}"))
}

fn options(args: &args::Fleet, address: &FleetAddress) -> Result<Options, Failure> {
    let usage = |why: &str| Failure::new(Code::Usage, why);
    let mut options = Options::default();
    match (&args.ca, address.is_tls()) {
        (Some(ca), true) => {
            let authorities = read("fleet-ca", ca)?;
            let paths = args.cert.as_ref().zip(args.key.as_ref());
            let client = paths.map(|(cert, key)| {
                Ok::<_, Failure>((read("fleet-cert", cert)?, read("fleet-key", key)?))
            });
            let client = client.transpose()?;
            let client = client.as_ref().map(|(cert, key)| (&cert[..], &key[..]));
            let tls = Tls::new(&authorities, client).map_err(|bad| {
                let (option, path, why) = match (bad, paths) {
                    (BadTls::Certificate(why), Some((cert, _))) => ("cert", cert, why),
                    (BadTls::Key(why), Some((_, key))) => ("key", key, why),
                    (BadTls::Authorities(why) | BadTls::Certificate(why) | BadTls::Key(why), _) => {
                        ("ca", ca, why)
                    }
                };
                let path = path.display();
                Failure::new(Code::Local, format!("--fleet-{option} {path}: {why}"))
            })?;
            options.tls = Some(tls);
        }
        (None, true) => {
            return Err(usage(
                "etcds: needs the authority of its certificate: give --fleet-ca FILE",
            ));
        }
        (_, false) if args.ca.is_some() || args.cert.is_some() => {
            return Err(usage(
                "--fleet-ca and --fleet-cert are for TLS: write etcds: in place of etcd:",
            ));
        }
        (_, false) => {}
    }
    if let Some(path) = &args.login {
        options.login = Some(login(path)?);
    }
    Ok(options)
}

fn read(option: &str, path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let failed = |why: String| {
        let at = path.display();
        Failure::new(Code::Local, format!("--{option} {at}: {why}"))
    };
    // By what comes: a device and a pipe have no length.
    let mut bytes = Zeroizing::new(Vec::new());
    let file = File::open(path).map_err(|e| failed(e.to_string()))?;
    let read = file.take(MOST + 1).read_to_end(&mut bytes);
    read.map_err(|e| failed(e.to_string()))?;
    if bytes.len() as u64 > MOST {
        return Err(failed("the file is too long to be that".to_owned()));
    }
    Ok(bytes)
}

/// USER:PASSWORD, the first line of a file that is its owner's alone.
fn login(path: &Path) -> Result<Login, Failure> {
    let failed = |why: &str| {
        let at = path.display();
        Failure::new(Code::Local, format!("--fleet-login {at}: {why}"))
    };
    let text = read("fleet-login", path)?;
    let mode = fs::metadata(path).map_or(0, |it| it.mode());
    if mode & 0o077 != 0 {
        return Err(failed("others can read this password: run chmod 600 on it"));
    }
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = std::str::from_utf8(line)
        .ok()
        .map(|line| line.trim_end_matches('\r'));
    match line.and_then(|line| line.split_once(':')) {
        Some((user, password)) if !user.is_empty() && !password.is_empty() => Ok(Login {
            user: user.to_owned(),
            password: Zeroizing::new(password.to_owned()),
        }),
        _ => Err(failed("expected the line USER:PASSWORD")),
    }
}

fn report(fleet: &Fleet, event: &StoreEvent) {
    let stats = fleet.stats();
    match event {
        StoreEvent::Ready { endpoint, first } => {
            let word = if *first { "" } else { " again" };
            let elsewhere = count(stats.elsewhere as u64, "registration");
            say(format_args!(
                "fleet: etcd at {endpoint} is there{word}; {} of {} other relays, with {elsewhere}",
                stats.present, stats.members
            ));
        }
        StoreEvent::Away {
            reason,
            is_configuration,
        } => {
            let next = if *is_configuration {
                "mend that at etcd, or start the relay anew with other options"
            } else {
                "what is here goes on, and it is tried again"
            };
            say(format_args!("warning: fleet: no etcd: {reason}; {next}"));
        }
        StoreEvent::LeaseLost => {
            say("fleet: the lease has ended; what is registered here is entered again");
        }
        _ => {}
    }
}

fn members(fleet: &Fleet) -> Vec<Value> {
    let mut all = fleet.present();
    all.sort_by_key(|(id, _)| *id);
    let all = all.into_iter().map(|(id, about)| {
        json!({
            "peer": id.to_string(),
            "addresses": about.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "version": about.version,
            "registrations": about.load.registrations,
            "most_registrations": about.load.most_registrations,
            "circuits": about.load.circuits,
            "most_circuits": about.load.most_circuits,
            "leaving": about.leaving,
        })
    });
    all.collect()
}

/// What others see of a relay's fleet.
pub(crate) struct FleetLook {
    store: String,
    stats: FleetStats,
    health: Health,
    lookups_s: f64,
    present: Vec<Value>,
}

impl FleetLook {
    /// docs/WATCHING.md names every field.
    pub(crate) fn json(&self) -> Value {
        let (stats, health) = (&self.stats, &self.health);
        let kept = health.kept.map(|at| at.elapsed().as_millis());
        #[allow(clippy::cast_precision_loss)] // some hours
        let kept = kept.map(|ms| ms as f64 / 1000.0);
        json!({
            "store": self.store,
            "reachable": stats.reachable,
            "endpoint": health.endpoint,
            "error": health.error,
            "lease_kept_s": kept.filter(|_| health.lease.is_some()),
            "leases_lost": stats.leases_lost,
            "connections": health.connections,
            "syncs": health.syncs,
            "changes": health.changes,
            "writes": health.writes,
            "waiting": stats.waiting,
            "revision": stats.revision,
            "other_relays": stats.members,
            "present": self.present,
            "registrations": stats.own,
            "registrations_elsewhere": stats.elsewhere,
            "peers_elsewhere": stats.peers_elsewhere,
            "lookups": stats.lookups,
            "lookups_s": self.lookups_s,
            "lookups_missed": stats.missed,
            "lookups_limited": stats.limited,
            "circuits_out": stats.outbound,
            "circuits_in": stats.inbound,
            "ignored_foreign": stats.ignored.foreign,
            "ignored_garbage": stats.ignored.garbage,
            "ignored_surplus": stats.ignored.surplus,
        })
    }

    /// For Prometheus: names, what they are, values.
    #[allow(clippy::cast_precision_loss)] // below 2^53
    pub(crate) fn numbers(&self) -> Vec<(&'static str, Kind, &'static str, f64)> {
        let (stats, health) = (&self.stats, &self.health);
        let gauge = |name, help, value: usize| (name, Kind::Gauge, help, value as f64);
        let counter = |name, help, value: u64| (name, Kind::Counter, help, value as f64);
        let kept = health.kept.map_or(-1.0, |at| at.elapsed().as_secs_f64());
        vec![
            gauge(
                "cepa_fleet_store_up",
                "1 while the etcd of the fleet is heard of",
                usize::from(stats.reachable),
            ),
            (
                "cepa_fleet_lease_kept_seconds",
                Kind::Gauge,
                "time since etcd has kept the lease alive; -1: never",
                kept,
            ),
            gauge(
                "cepa_fleet_other_relays",
                "other relays that belong to the fleet",
                stats.members,
            ),
            gauge(
                "cepa_fleet_present_relays",
                "those of them that are there",
                stats.present,
            ),
            gauge(
                "cepa_fleet_registrations",
                "registrations of this relay, by each id of their peers",
                stats.own,
            ),
            gauge(
                "cepa_fleet_waiting",
                "changes here that etcd does not have yet",
                stats.waiting,
            ),
            gauge(
                "cepa_fleet_registrations_elsewhere",
                "registrations at the other relays",
                stats.elsewhere,
            ),
            gauge(
                "cepa_fleet_peers_elsewhere",
                "peers that are registered at the other relays",
                stats.peers_elsewhere,
            ),
            counter(
                "cepa_fleet_lookups_total",
                "lookups of peers that are not registered here",
                stats.lookups,
            ),
            counter(
                "cepa_fleet_lookups_missed_total",
                "lookups that found nobody",
                stats.missed,
            ),
            counter(
                "cepa_fleet_lookups_limited_total",
                "lookups that were refused, since their peer had missed too often",
                stats.limited,
            ),
            counter(
                "cepa_fleet_circuits_out_total",
                "circuits that went on to another relay",
                stats.outbound,
            ),
            counter(
                "cepa_fleet_circuits_in_total",
                "circuits that another relay brought",
                stats.inbound,
            ),
            counter(
                "cepa_fleet_leases_lost_total",
                "leases that were lost",
                stats.leases_lost,
            ),
            counter(
                "cepa_fleet_store_connections_total",
                "connections with etcd that came about",
                health.connections,
            ),
            counter(
                "cepa_fleet_store_syncs_total",
                "times that all keys were read",
                health.syncs,
            ),
            counter(
                "cepa_fleet_store_changes_total",
                "keys that were read, and changes that were watched",
                health.changes,
            ),
            counter(
                "cepa_fleet_store_writes_total",
                "keys that were written or deleted",
                health.writes,
            ),
            counter(
                "cepa_fleet_ignored_total",
                "entries in etcd that are none of the fleet's",
                stats.ignored.foreign + stats.ignored.garbage + stats.ignored.surplus,
            ),
        ]
    }
}
