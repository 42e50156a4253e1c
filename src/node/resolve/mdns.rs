//! Peers that announce themselves on the local network: multicast DNS (RFC 6762) and service discovery (RFC 6763).
//!
//! ```text
//! PEERID-PORT._cepa._tcp.local.   SRV  HOST.local. PORT
//!                                 TXT  v=1  id=PEERID
//! ```
//!
//! One browser runs for as long as there is an [`Mdns`], as RFC 6762 wants it (section 5.2): it asks at the beginning,
//! then at longer and longer intervals, and hears what is announced in between. What it has heard stands in
//! [`Heard`], so an answer is there at once, or as soon as the peer has been heard.
//!
//! Everybody on the network can announce anything. So an announcement is a hint and no more: it can only name
//! TCP addresses, the peer has to prove its key to whoever follows it, and what is kept of all of them is bounded. Who
//! announces somebody else's id costs a vain attempt, and can keep the true one from being heard.
//!
//! The daemon itself (mdns-sd) keeps all that it takes for an answer, browsing or not, for as long as the answer says, and has no bound. So
//! its own counts are looked at twice a second: with too many it is ended, which frees them, and another one begins after a
//! [pause](PAUSE). Who floods a network so keeps this machine from hearing and from being heard, and gets no more than half a second of
//! memory; but the daemon reads all packets that wait before it heeds anything else, so one who sends faster than it reads has no bound while
//! that lasts. There is one such daemon then, and no second one.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use cepa_transports::Endpoint;
use futures::future::BoxFuture;
use mdns_sd::{IfKind, ResolvedService, ServiceDaemon, ServiceEvent, ServiceInfo};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::resolver::{ResolveError, Resolver};
use crate::identity::PeerId;
use crate::node::addr::{Hint, MAX_HINTS};

/// RFC 6763, section 7: the name of the service.
const TYPE: &str = "_cepa._tcp.local.";

/// Announcements that are kept: more than a network of people has, and less than a megabyte.
const MOST: usize = 1024;

/// Addresses that are kept of one announcement.
const ADDRESSES: usize = 8;

/// Records and timers of the daemon, with which it is ended: three times what [`MOST`] announcements have.
const MOST_CACHED: i64 = 32_768;

/// How often they are counted.
const COUNTED: Duration = Duration::from_millis(500);

/// How long nothing is heard or said after that: a flood costs a twentieth of its own time.
const PAUSE: Duration = Duration::from_secs(10);

/// How long a daemon may take to say what it keeps: one that is only late has time enough.
const SAYS: Duration = Duration::from_secs(5);

/// How long the daemon may take to say that an announcement is taken back.
const GOODBYE: Duration = Duration::from_secs(1);

/// How a local network is asked. Start from the [default](Default).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MdnsConfig {
    /// How long a peer is waited for that has not been heard; default 3 s, within which a browser asks twice.
    pub patience: Duration,
    /// Speak to this machine only, and not to the network; default no. (The system may tell its routers for a moment
    /// that the group was joined.)
    pub loopback_only: bool,
    /// The UDP port; default 5353, which is everybody's (RFC 6762, section 3). Another one is heard only by those
    /// that have the same.
    pub port: u16,
    /// Announce and hear nobody; default no. Whoever only announces asks for nothing that others say, so nobody can have it send
    /// questions.
    pub announce_only: bool,
}

setters!(MdnsConfig {
    with_patience => patience: Duration,
    with_loopback_only => loopback_only: bool,
    with_port => port: u16,
    with_announce_only => announce_only: bool,
});

impl Default for MdnsConfig {
    fn default() -> Self {
        Self {
            patience: Duration::from_secs(3),
            loopback_only: false,
            port: 5353,
            announce_only: false,
        }
    }
}

/// Finds peers that announce themselves on the local network, and announces. Clones are handles on the same one; the
/// last one that is dropped ends it.
#[derive(Clone, Debug)]
pub struct Mdns {
    inner: Arc<Inner>,
}

struct Inner {
    running: Mutex<Running>,
    config: MdnsConfig,
    heard: watch::Receiver<Heard>,
}

#[derive(Default)]
struct Running {
    /// None in a pause.
    daemon: Option<ServiceDaemon>,
    /// By their full names; said again after a pause.
    announced: HashMap<String, ServiceInfo>,
    /// Pauses until now.
    pauses: u32,
}

type Events = mdns_sd::Receiver<ServiceEvent>;

impl Mdns {
    /// Begins to listen, in a thread of its own and a task. Must be used inside a tokio runtime.
    ///
    /// # Errors
    /// [`ResolveError::Mdns`] when the system refuses that. Where multicast does not work at all, nobody is ever heard.
    pub fn new(config: MdnsConfig) -> Result<Self, ResolveError> {
        let (hears, heard) = watch::channel(Heard::default());
        let inner = Arc::new(Inner {
            running: Mutex::default(),
            config,
            heard,
        });
        let events = inner.start()?;
        tokio::spawn(watch_over(Arc::downgrade(&inner), hears, events));
        Ok(Self { inner })
    }

    /// Announces that `peer` listens on this machine at that TCP port, on all its addresses, until the answer is
    /// dropped.
    ///
    /// # Errors
    /// [`ResolveError::Mdns`] when nothing more can be announced.
    pub fn announce(&self, peer: PeerId, port: u16) -> Result<Announcement, ResolveError> {
        self.announce_at(peer, port, &[])
    }

    /// The same where it listens at these addresses of this machine only; none stand for all of them. One announcement
    /// names all addresses with one port: a second one for the same peer and port takes the place of the first.
    ///
    /// # Errors
    /// [`ResolveError::Mdns`] when nothing more can be announced.
    pub fn announce_at(
        &self,
        peer: PeerId,
        port: u16,
        addresses: &[IpAddr],
    ) -> Result<Announcement, ResolveError> {
        let id = peer.to_string();
        let properties = [("v", "1"), ("id", id.as_str())];
        let name = format!("{id}-{port}");
        let host = format!("cepa-{}-{port}.local.", peer.short());
        let mut here = addresses.to_vec();
        if here.is_empty() && self.inner.config.loopback_only {
            here.push(Ipv4Addr::LOCALHOST.into());
        }
        let made = ServiceInfo::new(TYPE, &name, &host, &here[..], port, &properties[..]);
        let mut service = made.map_err(ResolveError::Mdns)?;
        if here.is_empty() {
            service = service.enable_addr_auto();
        }
        // The name is the peer's id: nobody else has it by accident, so nobody has to be asked first.
        service.set_requires_probe(false);
        let name = service.get_fullname().to_owned();
        let mut running = self.inner.running();
        if let Some(daemon) = &running.daemon {
            let announced = daemon.register(service.clone());
            announced.map_err(ResolveError::Mdns)?;
        }
        running.announced.insert(name.clone(), service);
        drop(running);
        Ok(Announcement {
            mdns: Arc::clone(&self.inner),
            name,
        })
    }

    /// Who has been heard until now, by id, and where they say that they are. Nobody has proved anything.
    pub fn heard(&self) -> Vec<(PeerId, Vec<Hint>)> {
        let heard = self.inner.heard.borrow();
        let mut peers: Vec<PeerId> = heard.all.values().map(|(peer, _)| *peer).collect();
        peers.sort_unstable();
        peers.dedup();
        peers
            .into_iter()
            .map(|peer| (peer, heard.of(peer)))
            .collect()
    }
}

impl Inner {
    fn running(&self) -> MutexGuard<'_, Running> {
        // Each change is whole after the one statement that makes it.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A daemon that announces what is to be announced. Gives what it hears, where it is to hear.
    fn start(&self) -> Result<Option<Events>, ResolveError> {
        let daemon = ServiceDaemon::new_with_port(self.config.port).map_err(ResolveError::Mdns)?;
        let mut running = self.running();
        // Kept first, so that an error below ends the daemon.
        let daemon = running.daemon.insert(daemon).clone();
        if self.config.loopback_only {
            let only = daemon.disable_interface(IfKind::All);
            only.map_err(ResolveError::Mdns)?;
            let here = daemon.enable_interface(IfKind::LoopbackV4);
            here.map_err(ResolveError::Mdns)?;
        }
        for service in running.announced.values() {
            let announced = daemon.register(service.clone());
            announced.map_err(ResolveError::Mdns)?;
        }
        if self.config.announce_only {
            return Ok(None);
        }
        daemon.browse(TYPE).map(Some).map_err(ResolveError::Mdns)
    }

    /// Ends a daemon that keeps too much.
    fn pause(&self) -> Option<ServiceDaemon> {
        let mut running = self.running();
        running.pauses = running.pauses.saturating_add(1);
        running.daemon.take()
    }
}

/// Hears what there is, and has the daemon keep no more than it may. Ends with whom it is for.
async fn watch_over(whom: Weak<Inner>, hears: watch::Sender<Heard>, mut events: Option<Events>) {
    let mut counted = interval(COUNTED);
    counted.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = hear_next(&mut events, &hears) => {}
            _ = counted.tick() => {
                let Some(daemon) = whom.upgrade().map(|inner| inner.running().daemon.clone()) else {
                    return;
                };
                let keeps = match daemon {
                    Some(daemon) => {
                        let mut counting = pin!(kept(&daemon));
                        // What it hears meanwhile is taken, or it would have no bound.
                        loop {
                            tokio::select! {
                                keeps = &mut counting => break keeps,
                                () = hear_next(&mut events, &hears) => {}
                            }
                        }
                    }
                    // It could not begin.
                    None => i64::MAX,
                };
                if keeps <= MOST_CACHED {
                    continue;
                }
                let Some(daemon) = whom.upgrade().map(|inner| inner.pause()) else {
                    return;
                };
                let ended = daemon.map(|daemon| daemon.shutdown());
                // Nobody says when they leave.
                drop(events.take());
                hears.send_replace(Heard::default());
                sleep(PAUSE).await;
                // Packets that come faster than it reads keep it from ending: no second one is there until it has.
                if let Some(Ok(ended)) = ended {
                    let _ = ended.recv_async().await;
                }
                let Some(inner) = whom.upgrade() else {
                    return;
                };
                events = inner.start().unwrap_or_else(|_| {
                    // Its thread does not end by itself.
                    if let Some(daemon) = inner.running().daemon.take() {
                        let _ = daemon.shutdown();
                    }
                    None
                });
            }
        }
    }
}

/// Takes the next thing that a daemon has heard; never ready where nothing is heard.
async fn hear_next(events: &mut Option<Events>, hears: &watch::Sender<Heard>) {
    let Some(from) = events else {
        return std::future::pending().await;
    };
    match from.recv_async().await {
        Ok(event) => {
            hears.send_if_modified(|heard| heard.hear(event));
        }
        // The daemon has ended.
        Err(_) => *events = None,
    }
}

/// Records and timers that a daemon keeps. One that does not come to say so has too many: it answers between packets only.
async fn kept(daemon: &ServiceDaemon) -> i64 {
    let Ok(counts) = daemon.get_metrics() else {
        return i64::MAX;
    };
    let Ok(Ok(counts)) = timeout(SAYS, counts.recv_async()).await else {
        return i64::MAX;
    };
    let counts = counts.iter();
    let counts = counts.filter(|(what, _)| what.starts_with("cached-") || *what == "timer");
    counts.map(|(_, n)| *n).sum()
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Says goodbye for what is announced. Where it does not take the word it is ending already.
        if let Some(daemon) = &self.running().daemon {
            let _ = daemon.shutdown();
        }
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner")
            .field("config", &self.config)
            .field("pauses", &self.running().pauses)
            .field("heard", &self.heard.borrow().all.len())
            .finish_non_exhaustive()
    }
}

impl Resolver for Mdns {
    fn resolve(&self, peer: PeerId) -> BoxFuture<'_, Result<Vec<Hint>, ResolveError>> {
        Box::pin(async move {
            let mut heard = self.inner.heard.clone();
            let known = heard.wait_for(|heard| !heard.of(peer).is_empty());
            match timeout(self.inner.config.patience, known).await {
                Ok(Ok(heard)) => Ok(heard.of(peer)),
                // Not heard in time; or nothing is heard any more.
                Ok(Err(_)) | Err(_) => Ok(Vec::new()),
            }
        })
    }
}

/// What is announced; taken back when dropped.
#[derive(Debug)]
#[must_use = "dropped, it is taken back"]
pub struct Announcement {
    mdns: Arc<Inner>,
    name: String,
}

impl Announcement {
    /// Takes it back, and waits until that was said: for who ends right after. Dropped instead, it is said a moment later.
    pub async fn withdraw(self) {
        if let Some(said) = self.take_back() {
            let _ = timeout(GOODBYE, said.recv_async()).await;
        }
    }

    fn take_back(&self) -> Option<mdns_sd::Receiver<mdns_sd::UnregisterStatus>> {
        let mut running = self.mdns.running();
        running.announced.remove(&self.name)?;
        running.daemon.as_ref()?.unregister(&self.name).ok()
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        // It runs out by itself, where the daemon does not take the word.
        let _ = self.take_back();
    }
}

/// What has been heard, by the full name of the announcement.
#[derive(Debug, Default)]
struct Heard {
    all: HashMap<String, (PeerId, Vec<Hint>)>,
}

impl Heard {
    /// Whether that changed something.
    fn hear(&mut self, event: ServiceEvent) -> bool {
        match event {
            ServiceEvent::ServiceResolved(service) => {
                let Some(announced) = read(&service) else {
                    return false;
                };
                if self.all.len() >= MOST && !self.all.contains_key(&service.fullname) {
                    return false;
                }
                self.all.insert(service.fullname, announced);
                true
            }
            ServiceEvent::ServiceRemoved(_, name) => self.all.remove(&name).is_some(),
            _ => false,
        }
    }

    fn of(&self, peer: PeerId) -> Vec<Hint> {
        let named = self.all.values().filter(|(known, _)| *known == peer);
        let mut hints: Vec<Hint> = Vec::new();
        for hint in named.flat_map(|(_, hints)| hints) {
            if hints.len() < MAX_HINTS && !hints.contains(hint) {
                hints.push(hint.clone());
            }
        }
        hints
    }
}

/// Whom an announcement is for, and where; `None` where it makes no sense.
fn read(service: &ResolvedService) -> Option<(PeerId, Vec<Hint>)> {
    let id = service.get_property_val_str("id")?.parse().ok()?;
    if service.port == 0 {
        return None;
    }
    let addresses = service.get_addresses().iter().map(ToString::to_string);
    let mut addresses: Vec<String> = addresses.filter(|it| is_one_machine(it)).collect();
    // A set has no order, and an answer should be the same each time.
    addresses.sort();
    let hints = addresses.iter().take(ADDRESSES).filter_map(|address| {
        let at = if address.contains(':') {
            format!("tcp:[{address}]:{}", service.port)
        } else {
            format!("tcp:{address}:{}", service.port)
        };
        at.parse::<Endpoint>().ok().map(Hint::Direct)
    });
    let hints: Vec<Hint> = hints.collect();
    (!hints.is_empty()).then_some((id, hints))
}

/// Whether an address, perhaps with a zone, is one that a machine has to itself.
fn is_one_machine(address: &str) -> bool {
    let (address, _) = address.split_once('%').unwrap_or((address, ""));
    address.parse().is_ok_and(|ip: IpAddr| {
        let ip = ip.to_canonical();
        !(ip.is_unspecified() || ip.is_multicast() || ip == Ipv4Addr::BROADCAST)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Speaks to this machine alone, and at a port where nobody else does.
    fn local(port: u16) -> MdnsConfig {
        MdnsConfig {
            loopback_only: true,
            port,
            patience: Duration::from_secs(60),
            announce_only: false,
        }
    }

    /// A port that is free now.
    fn free() -> u16 {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap().port()
    }

    fn texts(hints: &[Hint]) -> Vec<String> {
        hints.iter().map(Hint::to_string).collect()
    }

    #[tokio::test]
    async fn who_announces_itself_is_found_and_who_leaves_is_forgotten() {
        let [peer, other] = [1, 2].map(|n| PeerId::from_bytes([n; 32]));
        let port = free();
        let [asks, answers] = [(); 2].map(|()| Mdns::new(local(port)).unwrap());
        // Asked before it is there, and after.
        let waiting = tokio::spawn({
            let asks = asks.clone();
            async move { asks.resolve(peer).await.unwrap() }
        });
        let announced = answers.announce(peer, 7000).unwrap();
        assert_eq!(texts(&waiting.await.unwrap()), ["tcp:127.0.0.1:7000"]);
        let _other = answers.announce(other, 7001).unwrap();
        let found = asks.resolve(other).await.unwrap();
        assert_eq!(texts(&found), ["tcp:127.0.0.1:7001"]);
        let found = asks.resolve(peer).await.unwrap();
        assert_eq!(texts(&found), ["tcp:127.0.0.1:7000"]);
        let mut all: Vec<_> = asks
            .heard()
            .into_iter()
            .map(|(peer, hints)| (peer, texts(&hints)))
            .collect();
        all.sort();
        let expected = [
            (peer, vec!["tcp:127.0.0.1:7000".to_owned()]),
            (other, vec!["tcp:127.0.0.1:7001".to_owned()]),
        ];
        assert_eq!(all, expected);
        drop(announced);
        let mut heard = asks.inner.heard.clone();
        let gone = heard.wait_for(|heard| heard.of(peer).is_empty());
        tokio::time::timeout(Duration::from_secs(60), gone)
            .await
            .expect("it is still known")
            .unwrap();
        let found = asks.resolve(other).await.unwrap();
        assert_eq!(texts(&found), ["tcp:127.0.0.1:7001"]);
    }

    /// An announcement as it is heard.
    fn heard(name: &str, id: &str, addresses: &[&str]) -> ServiceEvent {
        let properties = [("id", id)];
        let service = ServiceInfo::new(TYPE, name, "h.local.", addresses, 7000, &properties[..]);
        ServiceEvent::ServiceResolved(Box::new(service.unwrap().as_resolved_service()))
    }

    #[test]
    fn nonsense_is_not_kept_and_the_rest_is_bounded() {
        let [peer, other] = [1, 2].map(|n| PeerId::from_bytes([n; 32]));
        let id = peer.to_string();
        let mut all = Heard::default();
        assert!(!all.hear(heard("a", "nobody", &["192.0.2.1"])));
        assert!(!all.hear(heard("a", &id, &[])));
        for nowhere in ["0.0.0.0", "255.255.255.255", "224.0.0.1", "::", "ff02::1"] {
            assert!(!all.hear(heard("a", &id, &[nowhere])), "{nowhere}");
        }
        assert!(all.all.is_empty());
        // Two that say they are the same: both are tried.
        assert!(all.hear(heard("a", &id, &["192.0.2.1"])));
        assert!(all.hear(heard("b", &id, &["2001:db8::1", "192.0.2.1"])));
        let mut hints = texts(&all.of(peer));
        hints.sort();
        assert_eq!(hints, ["tcp:192.0.2.1:7000", "tcp:[2001:db8::1]:7000"]);
        assert!(all.of(peer).iter().all(Hint::is_network));
        assert!(all.of(other).is_empty());
        // Many addresses, many announcements.
        let many: Vec<String> = (0..100).map(|n| format!("192.0.2.{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        for n in 0..2 * MOST {
            all.hear(heard(&format!("n{n}"), &id, &many));
        }
        assert_eq!(all.all.len(), MOST);
        assert!(all.all.values().all(|(_, hints)| hints.len() <= ADDRESSES));
        assert_eq!(all.of(peer).len(), MAX_HINTS.min(ADDRESSES + 1));
        // What is kept can still change, and makes room when it is gone.
        assert!(all.hear(heard("a", &other.to_string(), &["192.0.2.9"])));
        assert_eq!(texts(&all.of(other)), ["tcp:192.0.2.9:7000"]);
        let names: Vec<String> = all.all.keys().cloned().collect();
        for name in names {
            assert!(all.hear(ServiceEvent::ServiceRemoved(TYPE.into(), name)));
        }
        assert!(all.all.is_empty());
    }

    /// An answer with this many addresses of as many names, for an hour.
    fn answer(from: u32, names: u16) -> Vec<u8> {
        let mut packet = vec![0, 0, 0x84, 0, 0, 0];
        packet.extend(names.to_be_bytes());
        packet.extend([0; 4]);
        for n in 0..u32::from(names) {
            packet.push(10);
            packet.extend(format!("n{:09}", from + n).bytes());
            packet.extend(*b"\x05local\0\0\x01\0\x01\0\0\x0e\x10\0\x04\x7f\0\0\x01");
        }
        packet
    }

    /// Whoever floods the network is heard no longer than until it is noticed, and what was announced before is there again after it.
    #[tokio::test]
    async fn a_flood_of_answers_is_not_kept() {
        let peer = PeerId::from_bytes([4; 32]);
        let config = local(free());
        let at = (Ipv4Addr::LOCALHOST, config.port);
        let mdns = Mdns::new(config.clone().with_announce_only(true)).unwrap();
        let _announced = mdns.announce(peer, 7000).unwrap();
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (mut from, mut most) = (0, 0);
        while mdns.inner.running().pauses == 0 {
            for _ in 0..20 {
                socket.send_to(&answer(from, 40), at).unwrap();
                from += 40;
            }
            let daemon = mdns.inner.running().daemon.clone();
            if let Some(daemon) = daemon {
                most = kept(&daemon).await.max(most);
            }
            sleep(Duration::from_millis(5)).await;
        }
        assert!(
            most > 0 && i64::from(from) * 3 > MOST_CACHED,
            "{most} {from}"
        );
        let again = async {
            loop {
                let daemon = mdns.inner.running().daemon.clone();
                if let Some(daemon) = daemon {
                    return kept(&daemon).await;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        let keeps = timeout(Duration::from_secs(120), again).await.unwrap();
        assert!(keeps < MOST_CACHED / 8, "{keeps}");
        let asks = Mdns::new(config).unwrap();
        assert_eq!(
            texts(&asks.resolve(peer).await.unwrap()),
            ["tcp:127.0.0.1:7000"]
        );
        // Who only announces hears nobody.
        assert!(mdns.heard().is_empty());
    }

    #[tokio::test]
    async fn who_is_not_heard_is_not_known() {
        let mut config = local(free());
        config.patience = Duration::from_millis(10);
        let mdns = Mdns::new(config).unwrap();
        let peer = PeerId::from_bytes([3; 32]);
        assert!(mdns.resolve(peer).await.unwrap().is_empty());
    }
}
