//! The configuration file of a node: TOML, read into types that nothing wrong gets into.
//!
//! Whatever is wrong is told with the line where it stands. A word that is not known is an error: a
//! permission that was misspelt must not look as if it had been given. Paths are relative to the file.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use cepa::identity::{Identity, PeerId};
use cepa::node::{Access, PeerAddr};
use cepa::transports::Endpoint;
use serde::Deserialize;
use toml::Spanned;

use crate::args::{Multicast, Service, Target};
use crate::direct::DirectChoice;
use crate::exit::{Code, Failure};
use crate::gate::Gate;
use crate::keep::{self, Keep};
use crate::manager;
use crate::remote_place::Places;
use crate::stack::carries_session;
use crate::toml_file::{explained, line_number};
use crate::trust;
use crate::values::{metrics_listener, placed_addr};

/// A file, read and judged.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) identity: Option<PathBuf>,
    pub(super) control: Option<PathBuf>,
    /// Where its numbers are to be had.
    pub(super) metrics: Option<Vec<Endpoint>>,
    /// Where it is kept which introductions are used up.
    pub(super) state: Option<PathBuf>,
    /// Where it announces itself.
    pub(super) mdns: Option<Multicast>,
    pub(super) direct: Option<DirectChoice>,
    pub(super) listen: Vec<Endpoint>,
    pub(super) gate: Gate,
    pub(super) shares: SharesOfAPeer,
    /// Whether sessions outlive their connections.
    pub(super) keep: Keep,
    /// How long a console is kept that nobody is attached to.
    pub(super) keep_consoles: Option<Duration>,
    pub(super) register: Vec<PeerAddr>,
    pub(super) services: BTreeMap<String, Offer>,
    /// Who sees all sessions.
    pub(super) allow_status: Access,
    /// Where peers may have the node listen.
    pub(super) remote: Vec<(Places, Access)>,
    pub(super) relay: Option<Relay>,
    pub(super) carrier: Option<Carrier>,
    /// By their names, whether they are revoked.
    pub(super) membranes: BTreeMap<String, bool>,
}

/// What one peer may have at once, where the file says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SharesOfAPeer {
    pub(super) sessions: Option<u32>,
    pub(super) commands: Option<u32>,
}

/// A service, and who gets it.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) service: Service,
    pub(super) access: Access,
    /// None where nobody is introduced, not even by this node itself.
    pub(super) introducers: Option<Access>,
    /// Takes sealed requests too.
    pub(super) sealed: bool,
    /// Stands behind the membrane of this name.
    pub(super) membrane: Option<String>,
}

/// What a relay carries, and for whom.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) access: Access,
    pub(super) limits: Limits,
}

/// How many sealed messages a carrier carries, and for whom.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Carrier {
    pub(super) access: Access,
    pub(super) at_once: usize,
    pub(super) at_once_a_peer: usize,
    pub(super) a_minute: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) registrations: usize,
    pub(super) circuits: usize,
    pub(super) circuits_a_peer: usize,
    pub(super) rate: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    identity: Option<PathBuf>,
    control: Option<PathBuf>,
    metrics: Option<Spanned<String>>,
    mdns: Option<Spanned<String>>,
    direct: Option<Spanned<String>>,
    state: Option<PathBuf>,
    #[serde(default)]
    listen: Vec<Spanned<String>>,
    gate: Option<Spanned<String>>,
    sessions_a_peer: Option<Spanned<u32>>,
    commands_a_peer: Option<Spanned<u32>>,
    durable: Option<bool>,
    park: Option<Spanned<String>>,
    keep_consoles: Option<Spanned<String>>,
    #[serde(default)]
    register: Vec<Spanned<String>>,
    #[serde(default)]
    services: BTreeMap<String, FileService>,
    #[serde(default)]
    remote: BTreeMap<String, FileRemote>,
    #[serde(default)]
    allow_status: Vec<Spanned<String>>,
    relay: Option<FileRelay>,
    carrier: Option<FileCarrier>,
    #[serde(default)]
    membranes: BTreeMap<Spanned<String>, FileMembrane>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileService {
    to: Spanned<String>,
    #[serde(default)]
    allow: Vec<Spanned<String>>,
    introducers: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    sealed: bool,
    membrane: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRemote {
    listen: Vec<Spanned<String>>,
    #[serde(default)]
    allow: Vec<Spanned<String>>,
}

// The defaults are those of `cepa relay`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRelay {
    #[serde(default)]
    allow: Vec<Spanned<String>>,
    registrations: Option<usize>,
    circuits: Option<usize>,
    circuits_a_peer: Option<usize>,
    rate: Option<u64>,
}

// The defaults are those of the library.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileCarrier {
    #[serde(default)]
    allow: Vec<Spanned<String>>,
    at_once: Option<usize>,
    at_once_a_peer: Option<usize>,
    a_minute: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileMembrane {
    #[serde(default)]
    revoked: bool,
}

/// Says what is wrong at a place.
type Wrong<'a> = &'a dyn Fn(Option<Range<usize>>, String) -> Failure;

/// A value that is written as a string. Read apart from the file, since TOML would name the line where its
/// list begins.
fn parsed<T: FromStr<Err: std::fmt::Display>>(
    word: &Spanned<String>,
    wrong: Wrong<'_>,
) -> Result<T, Failure> {
    let parsed = word.get_ref().parse();
    parsed.map_err(|e: T::Err| wrong(Some(word.span()), e.to_string()))
}

impl Config {
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| Failure::new(Code::Local, format!("{}: {e}", path.display())))?;
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, Failure> {
        let wrong = |at: Option<Range<usize>>, why: String| {
            let line = line_number(text, at.map_or(0, |at| at.start));
            Failure::new(Code::Usage, format!("{}:{line}: {why}", path.display()))
        };
        let file: File = toml::from_str(text).map_err(|e| {
            let (at, why) = explained(text, &e);
            wrong(at, why)
        })?;
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        let place = |path: PathBuf| folder.join(path);
        let mut listen = Vec::new();
        for word in file.listen {
            let span = word.span();
            let numbered = manager::numbered(word.get_ref());
            let numbered = numbered.map_err(|why| wrong(Some(span.clone()), why))?;
            let at: Endpoint = parsed(&Spanned::new(span, numbered), &wrong)?;
            carries_session(&at).map_err(|e| wrong(Some(word.span()), e.message))?;
            listen.push(at);
        }
        let gate = file.gate.map(|word| parsed(&word, &wrong));
        let gate = gate.transpose()?.unwrap_or_default();
        let share = |n: Option<Spanned<u32>>| match n {
            Some(n) if !(1..=10_000).contains(n.get_ref()) => {
                Err(wrong(Some(n.span()), "a number from 1 to 10000".into()))
            }
            n => Ok(n.map(Spanned::into_inner)),
        };
        let shares = SharesOfAPeer {
            sessions: share(file.sessions_a_peer)?,
            commands: share(file.commands_a_peer)?,
        };
        let park = file.park.map(|word| {
            let time = keep::park(word.get_ref()).map_err(|e| wrong(Some(word.span()), e))?;
            match file.durable {
                Some(false) => Err(wrong(
                    Some(word.span()),
                    "with durable = false no session is kept; leave out `park`".into(),
                )),
                _ => Ok(time),
            }
        });
        let keep = match (file.durable, park.transpose()?) {
            (Some(false), _) => Keep::Not,
            (_, time) => Keep::For(time),
        };
        let consoles = file
            .keep_consoles
            .map(|word| keep::consoles(word.get_ref()).map_err(|e| wrong(Some(word.span()), e)));
        let keep_consoles = keep.consoles(consoles.transpose()?);
        let metrics = file
            .metrics
            .map(|word| metrics_listener(word.get_ref()).map_err(|e| wrong(Some(word.span()), e)));
        let metrics = metrics.transpose()?;
        let mdns = file.mdns.map(|word| parsed(&word, &wrong)).transpose()?;
        let direct = file.direct.map(|word| parsed(&word, &wrong));
        let direct = direct.transpose()?;
        let mut register = Vec::new();
        for word in file.register {
            let relay = placed_addr(word.get_ref());
            let relay = relay.map_err(|e| wrong(Some(word.span()), e))?;
            if relay.hints().is_empty() {
                let why = "the address does not say where the relay is; give cepa://RELAYID@ADDR";
                return Err(wrong(Some(word.span()), why.into()));
            }
            register.push(relay);
        }
        let access = |words: Vec<Spanned<String>>| access(words, &wrong);
        let (mut services, mut membranes) = (BTreeMap::new(), BTreeMap::new());
        for (name, entry) in file.services {
            let at = entry.to.span();
            let service: Service = format!("{name}={}", entry.to.get_ref())
                .parse()
                .map_err(|e| wrong(Some(at), e))?;
            if let Some(membrane) = &entry.membrane {
                let wrong = |why: &str| Err(wrong(Some(membrane.span()), why.into()));
                if !matches!(service.target, Target::Forward(_)) {
                    return wrong(
                        "a membrane needs a service of another peer: to = \"cepa://PEERID@ADDR/SERVICE\"",
                    );
                }
                if entry.sealed {
                    return wrong("sealed requests cannot pass a membrane; leave out `sealed`");
                }
                membranes.insert(membrane.get_ref().clone(), false);
            }
            let offer = Offer {
                service,
                access: access(entry.allow)?,
                introducers: entry.introducers.map(access).transpose()?,
                sealed: entry.sealed,
                membrane: entry.membrane.map(Spanned::into_inner),
            };
            services.insert(name, offer);
        }
        for (name, membrane) in file.membranes {
            // What is revoked under a name that was misspelt would go on.
            let Some(revoked) = membranes.get_mut(name.get_ref()) else {
                let why = format!("no service has `membrane = {:?}`", name.get_ref());
                return Err(wrong(Some(name.span()), why));
            };
            *revoked = membrane.revoked;
        }
        let mut remote = Vec::new();
        for entry in file.remote.into_values() {
            let access = access(entry.allow)?;
            for word in entry.listen {
                remote.push((parsed(&word, &wrong)?, access.clone()));
            }
        }
        let relay = file.relay.map(|relay| {
            let limits = Limits {
                registrations: relay.registrations.unwrap_or(128),
                circuits: relay.circuits.unwrap_or(16),
                circuits_a_peer: relay.circuits_a_peer.unwrap_or(4),
                rate: relay.rate.unwrap_or(10 << 20).max(1),
            };
            let access = access(relay.allow)?;
            Ok::<_, Failure>(Relay { access, limits })
        });
        let relay = relay.transpose()?;
        let carrier = file.carrier.map(|carrier| {
            Ok::<_, Failure>(Carrier {
                access: access(carrier.allow)?,
                at_once: carrier.at_once.unwrap_or(64),
                at_once_a_peer: carrier.at_once_a_peer.unwrap_or(4),
                a_minute: carrier.a_minute.unwrap_or(600),
            })
        });
        let carrier = carrier.transpose()?;
        if listen.is_empty() && register.is_empty() {
            let why = "the node would not be reachable; give `listen` or `register`";
            return Err(wrong(None, why.into()));
        }
        Ok(Self {
            identity: file.identity.map(place),
            control: file.control.map(place),
            metrics,
            state: file.state.map(place),
            mdns,
            direct,
            listen,
            gate,
            shares,
            keep,
            keep_consoles,
            register,
            services,
            allow_status: access(file.allow_status)?,
            remote,
            relay,
            carrier,
            membranes,
        })
    }

    /// Whether every service of another peer is another one's: what can only be said when it is known who this one is.
    pub(super) fn leads_elsewhere(&self, own: &Identity) -> Result<(), Failure> {
        let mut services = self.services.values();
        services.try_for_each(|offer| offer.service.leads_elsewhere(own))
    }

    /// Who may have a session at all.
    pub(super) fn sessions(&self) -> Access {
        let mut ids = Vec::new();
        let services = self.services.values();
        if services.clone().any(|offer| offer.introducers.is_some()) {
            return Access::Anyone;
        }
        let relay = self.relay.iter().map(|relay| &relay.access);
        let carrier = self.carrier.iter().map(|carrier| &carrier.access);
        let all = services.map(|offer| &offer.access);
        let remote = self.remote.iter().map(|(_, access)| access);
        for access in all.chain(relay).chain(carrier).chain(remote) {
            match access {
                Access::Anyone => return Access::Anyone,
                Access::Peers(peers) => ids.extend(peers.iter().copied()),
                Access::Nobody => {}
            }
        }
        if ids.is_empty() {
            Access::Nobody
        } else {
            Access::peers(ids)
        }
    }

    /// Whom it names anywhere, beside whatever is for anyone.
    pub(super) fn named(&self) -> HashSet<PeerId> {
        let services = self.services.values();
        let introducers = services.clone().filter_map(|it| it.introducers.as_ref());
        let relay = self.relay.iter().map(|relay| &relay.access);
        let carrier = self.carrier.iter().map(|carrier| &carrier.access);
        let all = services.map(|offer| &offer.access).chain(introducers);
        let listed = all.chain(relay).chain(carrier).filter_map(|it| match it {
            Access::Peers(peers) => Some(peers),
            Access::Anyone | Access::Nobody => None,
        });
        listed.flatten().copied().collect()
    }
}

fn access(words: Vec<Spanned<String>>, wrong: Wrong<'_>) -> Result<Access, Failure> {
    let mut all = Vec::new();
    for word in words {
        let one = trust::access(&[parsed(&word, wrong)?]);
        // What is wrong with the file of known peers is not wrong here.
        all.push(one.map_err(|e| match e.code {
            Code::Usage => wrong(Some(word.span()), e.message),
            _ => e,
        })?);
    }
    Ok(trust::joined(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "mfzwi3dbonzgc3tlmvzwi3dbonzgc3tlmvzwi3dbonzgc3tlmvza";

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("/etc/n.toml")).map_err(|e| e.message)
    }

    #[test]
    fn what_was_meant_is_reported_where_quotes_or_brackets_are_missing() {
        for (line, meant) in [
            (
                "listen = tcp:127.0.0.1:1",
                r#"listen = ["tcp:127.0.0.1:1"]"#,
            ),
            ("listen = \"tcp:h:1\"", r#"listen = ["tcp:h:1"]"#),
            ("control = node.sock", r#"control = "node.sock""#),
            ("[services.up]\nto = exec:cat", r#"to = "exec:cat""#),
            (
                "[services.up]\nto = \"echo:\"\nallow = \"any\" # all",
                r#"allow = ["any"]"#,
            ),
            ("[relay]\nallow = @ann", r#"allow = ["@ann"]"#),
        ] {
            let why = parse(line).unwrap_err();
            assert!(why.contains(&format!("write {meant}")), "{line}: {why}");
            assert!(!why.contains('\n'), "{why}");
        }
        let why = parse("listen = [tcp:1]").unwrap_err();
        assert!(!why.contains("write"), "{why}");
    }

    #[test]
    fn a_whole_file() {
        let text = format!(
            r#"
identity = "me.pem"
control = "/run/c.sock"
listen = ["tcp:127.0.0.1:7000"]
park = "2d"
register = ["cepa://{ID}@tcp:r:7711"]
[services.up]
to = "exec:sha256sum"
allow = ["{ID}"]
introducers = []
[services.all]
to = "echo:"
allow = ["any"]
sealed = true
[relay]
allow = ["any"]
circuits = 5
[services.far]
to = "cepa://{ID}@tcp:h:1/db"
membrane = "m"
[membranes.m]
revoked = true
[carrier]
allow = ["{ID}"]
a_minute = 7
"#
        );
        let config = parse(&text).unwrap();
        assert_eq!(config.identity.as_deref(), Some(Path::new("/etc/me.pem")));
        assert_eq!(config.control.as_deref(), Some(Path::new("/run/c.sock")));
        let two_days = std::time::Duration::from_secs(172_800);
        assert_eq!(config.keep, Keep::For(Some(two_days)));
        assert_eq!(config.services["up"].introducers, Some(Access::Nobody));
        assert_eq!(config.services["all"].access, Access::Anyone);
        assert_eq!(config.services["all"].introducers, None);
        let relay = config.relay.as_ref().unwrap();
        assert_eq!(
            (relay.limits.circuits, relay.limits.circuits_a_peer),
            (5, 4)
        );
        assert_eq!(config.sessions(), Access::Anyone);
        // Whoever may come in, who is listed anywhere is known by name.
        assert_eq!(config.named(), [ID.parse().unwrap()].into());
        assert_eq!(config.membranes, [("m".to_owned(), true)].into());
        assert_eq!(config.services["far"].membrane.as_deref(), Some("m"));
        assert!(config.services["all"].sealed && !config.services["up"].sealed);
        let carrier = config.carrier.as_ref().unwrap();
        assert_eq!((carrier.at_once, carrier.a_minute), (64, 7));
        let one = Access::peers([ID.parse().unwrap()]);
        assert_eq!(carrier.access, one);
        let carries = format!("listen = [\"tcp:h:1\"]\n[carrier]\nallow = [\"{ID}\"]");
        assert_eq!(parse(&carries).unwrap().sessions(), one);
        let few =
            format!("listen = [\"tcp:h:1\"]\n[services.up]\nto = \"echo:\"\nallow = [\"{ID}\"]");
        let few = parse(&few).unwrap();
        assert_eq!(few.keep, Keep::For(None));
        let not = parse("listen = [\"tcp:h:1\"]\ndurable = false").unwrap();
        assert_eq!(not.keep, Keep::Not);
        assert_eq!(few.sessions(), Access::peers([ID.parse().unwrap()]));
    }

    #[test]
    fn what_is_wrong_is_reported_with_its_line() {
        let up = "listen = [\"tcp:h:1\"]\n[services.up]\nto = \"echo:\"\n";
        for (text, line, what) in [
            ("", 1, "reachable"),
            ("listen = [\n\"tcp:h:1\",\n\"nothing\"\n]", 3, "nothing"),
            ("listen = [\"tcp:h:1\"]\nlisten = []", 2, "duplicate"),
            ("\n\nx = 1", 3, "unknown field"),
            ("listen = [\"tcp:h:1\"]\npark = \"5\"", 2, "a time from 1s"),
            ("park = \"5s\"\ndurable = false", 1, "leave out `park`"),
            ("listen = [\n\"bare+tcp:h:1\"]", 2, ""),
            ("register = [\n\"cepa://x\"]", 2, "52 characters"),
            (
                &format!("register = [\n\"cepa://{ID}\"]"),
                2,
                "where the relay is",
            ),
            (&format!("{up}alow = []"), 4, "did you mean `allow`?"),
            (
                &format!("{up}allow = [\n\"any\",\n\"a\"]"),
                6,
                "52 characters",
            ),
            (
                &format!("{up}[services.\"a b\"]\nto = \"echo:\""),
                5,
                "name",
            ),
            (&format!("{up}[services.x]\nto = \"exec\""), 5, ""),
            (&format!("{up}[relay]\ncircuits = -1"), 5, ""),
            (&format!("{up}sealed = 1"), 4, ""),
            (&format!("{up}membrane = \"m\""), 4, "another peer"),
            (
                &format!("{up}[membranes.m]\nrevoked = true"),
                4,
                "no service has",
            ),
            (
                &format!(
                    "listen = [\"tcp:h:1\"]\n[services.x]\nto = \"cepa://{ID}@tcp:h:1/y\"\n\
                     sealed = true\nmembrane = \"m\""
                ),
                5,
                "cannot pass a membrane",
            ),
            (&format!("{up}[carrier]\nallow = [\"x\"]"), 5, "52"),
            (
                &format!("{up}[remote.a]\nlisten = [\"80\",\n\"host:80\"]"),
                6,
                "no IP address",
            ),
        ] {
            let error = parse(text).expect_err(text);
            let begin = format!("/etc/n.toml:{line}: ");
            assert!(error.starts_with(&begin), "{text:?}: {error}");
            assert!(error.contains(what), "{text:?}: {error}");
        }
    }
}
