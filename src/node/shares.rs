//! How much of the process one peer may hold. No IO, no clock.
//!
//! What a peer can make grow comes from a pool of the process and is counted to that peer, and to the host that it
//! comes from. Three rules decide whether it gets more:
//!
//! 1. A peer never holds more than its limit (`peer`), and all peers of one host together never more than `host`.
//! 2. A peer never holds more than a third of what would still be free, which leads to a quarter of all. Of what it may have more
//!    of it never holds more than is still free, which leads to a half. So one peer alone reaches its limit, sixteen greedy ones stay
//!    below the pool together, and whoever comes next still finds room. (It is the dynamic threshold that shared switch memory
//!    is divided by: Choudhury and Hahne, 1998.)
//! 3. A quarter of the pool is for peers that are known by name, by the node's trust or by any of its services: strangers can't take
//!    it, however many keys they make.
//! 4. What strangers hold and nobody uses at the moment (a console that nobody sits at) is as good as free to a peer that is known by
//!    name: [`Call::hold_displacing`](super::Call::hold_displacing).
//!
//! Receive memory goes by the first two rules as well, byte by byte as it arrives: see
//! [`ReceivePool`](crate::mux::ReceivePool).

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::gate::Source;
use crate::identity::PeerId;
use crate::mux::ReceivePool;

use super::access::Who;

/// What a session costs of its peer's memory beside the data of its streams: what it reads ahead, seals and has in its hands.
pub(super) const SESSION_MEMORY: usize = 256 << 10;

/// What a substream costs of its peer's memory beside its data: what is there of one that rests. What its task has in hand is small while the
/// peer's memory is used up, and comes on top, within what the process grows by beyond what is counted.
pub(super) const SUBSTREAM_MEMORY: usize = 4 << 10;

/// A session costs one descriptor.
pub(super) const SESSION: [(Resource, usize); 2] =
    [(Resource::Sessions, 1), (Resource::Descriptors, 1)];

/// What peers make a process hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Resource {
    /// Sessions.
    Sessions,
    /// Substreams that a peer has opened and that are served.
    Substreams,
    /// Subprocesses that serve a peer.
    Children,
    /// File descriptors: one for a session, one for a connection that serves a peer, four for a subprocess.
    Descriptors,
    /// Subprocesses that go on without a session of their peer, until it comes back.
    Consoles,
}

impl Resource {
    /// All there are.
    pub const ALL: [Self; 5] = [
        Self::Sessions,
        Self::Substreams,
        Self::Children,
        Self::Descriptors,
        Self::Consoles,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::Substreams => "substreams",
            Self::Children => "commands",
            Self::Descriptors => "file descriptors",
            Self::Consoles => "kept consoles",
        }
    }
}

/// The limits of one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of all peers together.
    pub all: usize,
    /// Of one peer.
    pub peer: usize,
    /// Of all peers of one host (IPv6: of one /64 network) that are not known by name.
    pub host: usize,
}

impl Limits {
    /// How much of what is free a peer may hold, so that it reaches its limit when it is alone; a half at most, so that
    /// there is always something for the next.
    fn part_of(&self, free: usize) -> usize {
        // A stranger finds three quarters of it.
        let others = (self.all - self.all / 4).saturating_sub(self.peer).max(1);
        (free.saturating_mul(self.peer) / others).min(free)
    }
}

/// The limits of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShareLimits {
    /// Default 256, 16 of one peer, 64 of one host.
    pub sessions: Limits,
    /// Default 20,480, 5,632 of one peer, 8,192 of one host. Each costs 4 KiB of memory beside its data.
    pub substreams: Limits,
    /// Default 256, 32 of one peer, 64 of one host.
    pub children: Limits,
    /// Default what the process may open, less a reserve of an eighth and at least 64; half of one peer and of one host: a
    /// peer that forwards for others needs one for each of their connections.
    pub descriptors: Limits,
    /// Default 64, 4 of one peer, 16 of one host: each is a subprocess that goes on with nobody there, for days perhaps.
    pub consoles: Limits,
    /// Memory in bytes, default 176 MiB: what has arrived and no application has read, what waits to be sent, what is kept until
    /// the peer has it (of sessions that outlive their connections; half of a peer's part at most), what handlers
    /// [hold](crate::mux::ReceivePool::hold), 256 KiB for each session and 4 KiB for each substream. The process grows by more
    /// than is counted, since its allocator has gaps: at most 256 MiB where 176 are counted.
    pub receive_memory: usize,
    /// The same of one peer; default 32 MiB, for which the process grows by at most 64.
    pub receive_memory_a_peer: usize,
}

setters!(ShareLimits {
    with_sessions => sessions: Limits,
    with_substreams => substreams: Limits,
    with_children => children: Limits,
    with_descriptors => descriptors: Limits,
    with_consoles => consoles: Limits,
    with_receive_memory => receive_memory: usize,
    with_receive_memory_a_peer => receive_memory_a_peer: usize,
});

impl Default for ShareLimits {
    fn default() -> Self {
        let may_open = cepa_transports::descriptor_limit();
        let descriptors = may_open.saturating_sub((may_open / 8).max(64)).max(16);
        Self {
            sessions: Limits {
                all: 256,
                peer: 16,
                host: 64,
            },
            substreams: Limits {
                all: 20_480,
                peer: 5632,
                host: 8192,
            },
            children: Limits {
                all: 256,
                peer: 32,
                host: 64,
            },
            descriptors: Limits {
                all: descriptors,
                peer: descriptors / 2,
                host: descriptors / 2,
            },
            consoles: Limits {
                all: 64,
                peer: 4,
                host: 16,
            },
            receive_memory: 176 << 20,
            receive_memory_a_peer: 32 << 20,
        }
    }
}

impl ShareLimits {
    fn of(&self, resource: Resource) -> Limits {
        match resource {
            Resource::Sessions => self.sessions,
            Resource::Substreams => self.substreams,
            Resource::Children => self.children,
            Resource::Descriptors => self.descriptors,
            Resource::Consoles => self.consoles,
        }
    }
}

/// Whose limit it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scope {
    /// The peer's own.
    Peer,
    /// That of the host it comes from.
    Host,
    /// That of all peers together.
    All,
}

/// A limit that was reached. Its text is one line, fit for both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exceeded {
    /// Of what.
    pub resource: Resource,
    /// Whose limit.
    pub scope: Scope,
    /// The limit; less was allowed where the pool was nearly used up.
    pub limit: usize,
}

impl std::error::Error for Exceeded {}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (limit, what) = (self.limit, self.resource.word());
        match self.scope {
            Scope::Peer => write!(
                f,
                "too many {what} of one peer (at most {limit}): close some, or have the limit raised"
            ),
            Scope::Host => write!(
                f,
                "too many {what} from one host (at most {limit}): close some, or have the peer allowed by name"
            ),
            Scope::All => write!(
                f,
                "too many {what} in all (at most {limit}): try again later"
            ),
        }
    }
}

/// Who holds a share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    /// The id of its key, and those of keys that it has proven to have replaced. What it holds is counted to each, so that
    /// any number of heirs of one key have that key's share and no more.
    pub(super) ids: Arc<[PeerId]>,
    /// Where it comes from, if it came in.
    pub(super) host: Option<Source>,
    /// It is known by name: the node's trust policy lists it, or a service does ([`Shares::knowing`]).
    pub(super) named: bool,
}

impl Holder {
    pub(super) fn new(who: &Who, host: Option<Source>) -> Self {
        Self {
            ids: ids(who.id, &who.former),
            host,
            named: who.named,
        }
    }
}

/// A peer's present id and the former ones.
pub(super) fn ids(id: PeerId, former: &[PeerId]) -> Arc<[PeerId]> {
    std::iter::once(id).chain(former.iter().copied()).collect()
}

/// The counts of one resource.
#[derive(Debug, Default)]
struct Counts {
    all: usize,
    strangers: usize,
    peers: HashMap<PeerId, usize>,
    /// Of strangers only.
    hosts: HashMap<Source, usize>,
}

impl Counts {
    /// Whether there is room for `n` more; `spare`: what gives way to a holder that is known by name.
    fn check(
        &self,
        limits: Limits,
        holder: &Holder,
        n: usize,
        spare: usize,
    ) -> Result<(), (Scope, usize)> {
        let free = limits.all.saturating_sub(self.all);
        let free = if holder.named {
            free.saturating_add(spare)
        } else {
            let theirs = limits.all - limits.all / 4;
            free.min(theirs.saturating_sub(self.strangers))
        };
        if n > free {
            return Err((Scope::All, limits.all));
        }
        let of = |id| self.peers.get(id).copied().unwrap_or(0);
        let held = holder.ids.iter().map(of).max().unwrap_or(0);
        if held + n > limits.peer {
            return Err((Scope::Peer, limits.peer));
        }
        if let Some(host) = holder.host.filter(|_| !holder.named) {
            let here = self.hosts.get(&host).copied().unwrap_or(0);
            if here + n > limits.host {
                return Err((Scope::Host, limits.host));
            }
        }
        // The first one is always given.
        if held > 0 && held + n > free.div_ceil(3).max(limits.part_of(free)) {
            return Err((Scope::All, limits.all));
        }
        Ok(())
    }

    fn add(&mut self, holder: &Holder, n: usize) {
        self.all += n;
        for id in holder.ids.iter() {
            *self.peers.entry(*id).or_default() += n;
        }
        if !holder.named {
            self.strangers += n;
            if let Some(host) = holder.host {
                *self.hosts.entry(host).or_default() += n;
            }
        }
    }

    fn remove(&mut self, holder: &Holder, n: usize) {
        fn less<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K, n: usize) {
            if let Some(count) = counts.get_mut(key) {
                *count = count.saturating_sub(n);
                if *count == 0 {
                    counts.remove(key);
                }
            }
        }
        self.all = self.all.saturating_sub(n);
        for id in holder.ids.iter() {
            less(&mut self.peers, id, n);
        }
        if !holder.named {
            self.strangers = self.strangers.saturating_sub(n);
            if let Some(host) = &holder.host {
                less(&mut self.hosts, host, n);
            }
        }
    }
}

/// All counts of a node. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Shares {
    of_node: Arc<OfNode>,
}

/// Makes room among what peers of these ids hold.
type Relief = Box<dyn Fn(&[PeerId]) + Send + Sync>;

/// Whether a peer of these ids is known by name.
type Lists = Box<dyn Fn(&[PeerId]) -> bool + Send + Sync>;

struct OfNode {
    limits: ShareLimits,
    counts: Mutex<HashMap<Resource, Counts>>,
    memory: ReceivePool,
    /// The part of each peer that has a session, and in how many it is used. Kept until what is unread of the last one was
    /// read or dropped: a peer that comes again would have as much again else.
    of_peers: Mutex<HashMap<PeerId, (ReceivePool, usize)>>,
    relief: OnceLock<Relief>,
    lists: OnceLock<Lists>,
}

impl fmt::Debug for OfNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OfNode")
            .field("limits", &self.limits)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

impl Shares {
    pub(super) fn new(limits: ShareLimits) -> Self {
        let counts = Resource::ALL.map(|resource| (resource, Counts::default()));
        let of_node = OfNode {
            limits,
            counts: Mutex::new(HashMap::from(counts)),
            memory: ReceivePool::new(limits.receive_memory),
            of_peers: Mutex::default(),
            relief: OnceLock::new(),
            lists: OnceLock::new(),
        };
        Self {
            of_node: Arc::new(of_node),
        }
    }

    /// The receive memory of all sessions of a peer, by all its ids, for one session more.
    pub(super) fn memory_of(&self, ids: Arc<[PeerId]>) -> PeerMemory {
        let mut of_peers = lock(&self.of_node.of_peers);
        of_peers.retain(is_used);
        let there = ids.iter().find_map(|id| of_peers.get(id));
        let pool = there.map_or_else(
            || {
                self.of_node
                    .memory
                    .share(self.of_node.limits.receive_memory_a_peer)
            },
            |(pool, _)| pool.clone(),
        );
        for id in ids.iter() {
            let (_, sessions) = of_peers.entry(*id).or_insert_with(|| (pool.clone(), 0));
            *sessions += 1;
        }
        drop(of_peers);
        PeerMemory {
            shares: self.clone(),
            ids,
            pool,
        }
    }

    /// Bytes that have arrived and that no application has read.
    pub(super) fn memory_used(&self) -> usize {
        self.of_node.memory.used()
    }

    /// Says who makes room where a peer is at a limit of its own. What is freed comes too late for the one who asked, and in time
    /// for the next.
    pub(super) fn relieved_by(&self, relief: impl Fn(&[PeerId]) + Send + Sync + 'static) {
        let _ = self.of_node.relief.set(Box::new(relief));
    }

    /// Says who is known by name beside those whom the trust policy lists.
    pub(super) fn listed_by(&self, lists: impl Fn(&[PeerId]) -> bool + Send + Sync + 'static) {
        let _ = self.of_node.lists.set(Box::new(lists));
    }

    /// Whether a peer of these ids is known by name, though the trust policy may not list it.
    pub(super) fn knows(&self, ids: &[PeerId]) -> bool {
        self.of_node.lists.get().is_some_and(|lists| lists(ids))
    }

    /// A holder as it is counted: whoever the owner has named anywhere is no stranger.
    pub(super) fn knowing(&self, mut holder: Holder) -> Holder {
        holder.named = holder.named || self.knows(&holder.ids);
        holder
    }

    /// So many more for this holder, all or none.
    pub(super) fn take(
        &self,
        holder: Holder,
        wanted: &[(Resource, usize)],
    ) -> Result<Share, Exceeded> {
        let ids = Arc::clone(&holder.ids);
        let taken = self.take_now(holder, wanted);
        if let Err(exceeded) = &taken
            && exceeded.scope == Scope::Peer
            && exceeded.resource != Resource::Sessions
            && let Some(relief) = self.of_node.relief.get()
        {
            relief(&ids);
        }
        taken
    }

    /// The same, without making room.
    pub(super) fn take_now(
        &self,
        holder: Holder,
        wanted: &[(Resource, usize)],
    ) -> Result<Share, Exceeded> {
        let holder = self.knowing(holder);
        self.take_at_once(holder, wanted, 0).map(|(share, _)| share)
    }

    /// The same, where so many of what strangers hold give way to a holder that is known by name; and how many have to go now.
    pub(super) fn take_displacing(
        &self,
        holder: Holder,
        (resource, n): (Resource, usize),
        spare: usize,
    ) -> Result<(Share, usize), Exceeded> {
        let holder = self.knowing(holder);
        self.take_at_once(holder, &[(resource, n)], spare)
    }

    fn take_at_once(
        &self,
        holder: Holder,
        wanted: &[(Resource, usize)],
        spare: usize,
    ) -> Result<(Share, usize), Exceeded> {
        let mut counts = self.counts();
        for (resource, _) in wanted {
            let limits = self.of_node.limits.of(*resource);
            let checked = counts.entry(*resource).or_default();
            // Of a resource that is named twice the sum counts.
            let n = sum(wanted, *resource);
            checked
                .check(limits, &holder, n, spare)
                .map_err(|(scope, limit)| Exceeded {
                    resource: *resource,
                    scope,
                    limit,
                })?;
        }
        let mut over = 0;
        for (resource, n) in wanted {
            let limit = self.of_node.limits.of(*resource).all;
            let taken = counts.entry(*resource).or_default();
            taken.add(&holder, *n);
            over += taken.all.saturating_sub(limit);
        }
        drop(counts);
        let share = Share {
            shares: self.clone(),
            holder,
            held: wanted.to_vec(),
        };
        Ok((share, over))
    }

    /// How many of a resource are held, in all and by one peer.
    pub(super) fn held(&self, resource: Resource, peer: Option<PeerId>) -> usize {
        let counts = self.counts();
        let of = counts.get(&resource);
        match peer {
            None => of.map_or(0, |counts| counts.all),
            Some(peer) => of
                .and_then(|counts| counts.peers.get(&peer))
                .copied()
                .unwrap_or(0),
        }
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<Resource, Counts>> {
        lock(&self.of_node.counts)
    }
}

fn sum(wanted: &[(Resource, usize)], of: Resource) -> usize {
    let each = wanted.iter().filter(|(resource, _)| *resource == of);
    each.fold(0, |sum, (_, n)| sum.saturating_add(*n))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is whole before anything can panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The receive memory of a peer, held by one of its sessions.
#[derive(Debug)]
pub(super) struct PeerMemory {
    shares: Shares,
    ids: Arc<[PeerId]>,
    pub(super) pool: ReceivePool,
}

impl Drop for PeerMemory {
    fn drop(&mut self) {
        let mut of_peers = lock(&self.shares.of_node.of_peers);
        for id in self.ids.iter() {
            if let Some((_, sessions)) = of_peers.get_mut(id) {
                *sessions = sessions.saturating_sub(1);
            }
        }
        of_peers.retain(is_used);
    }
}

/// By a session, or by what it left unread.
fn is_used(_: &PeerId, (pool, sessions): &mut (ReceivePool, usize)) -> bool {
    *sessions > 0 || pool.used() > 0
}

/// A part of the pools, given back when this is dropped.
#[derive(Debug)]
#[must_use = "what it stands for is given back when it is dropped"]
pub struct Share {
    shares: Shares,
    holder: Holder,
    held: Vec<(Resource, usize)>,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut counts = self.shares.counts();
        for (resource, n) in &self.held {
            if let Some(counts) = counts.get_mut(resource) {
                counts.remove(&self.holder, *n);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Side;
    use crate::mux;

    fn peer(n: u16) -> PeerId {
        let [a, b] = n.to_be_bytes();
        let mut bytes = [0; 32];
        (bytes[0], bytes[1]) = (a, b);
        PeerId::from_bytes(bytes)
    }

    fn stranger(n: u16) -> Holder {
        Holder {
            ids: Arc::new([peer(n)]),
            host: None,
            named: false,
        }
    }

    fn named(n: u16) -> Holder {
        Holder {
            named: true,
            ..stranger(n)
        }
    }

    const ONE: [(Resource, usize); 1] = [(Resource::Sessions, 1)];

    /// As many as it gets.
    fn greedy(shares: &Shares, holder: &Holder) -> (Vec<Share>, Exceeded) {
        let mut held = Vec::new();
        loop {
            match shares.take(holder.clone(), &ONE) {
                Ok(share) => held.push(share),
                Err(exceeded) => return (held, exceeded),
            }
        }
    }

    #[test]
    fn one_peer_has_its_limit_and_no_more() {
        let shares = Shares::new(ShareLimits::default());
        for holder in [stranger(1), named(2)] {
            let (held, exceeded) = greedy(&shares, &holder);
            assert_eq!((held.len(), exceeded.scope), (16, Scope::Peer));
            assert!(exceeded.to_string().contains("at most 16"), "{exceeded}");
        }
        assert_eq!(shares.held(Resource::Sessions, None), 0, "given back");
    }

    #[test]
    fn the_heirs_of_one_key_have_its_share_together() {
        let shares = Shares::new(ShareLimits::default());
        // Each names a key of its own before the one that all have replaced.
        let heir = |n: u16| Holder {
            ids: ids(peer(1000 + n), &[peer(2000 + n), peer(1)]),
            ..named(0)
        };
        let all: Vec<_> = (0..40)
            .filter_map(|n| shares.take(heir(n), &ONE).ok())
            .collect();
        assert_eq!(all.len(), 16);
        let refused = shares.take(named(1), &ONE).unwrap_err();
        assert_eq!(refused.scope, Scope::Peer, "nor has the old key one more");
        let _ = shares.take(named(2), &ONE).unwrap();
        let memory: Vec<_> = (0..40).map(|n| shares.memory_of(heir(n).ids)).collect();
        let most = shares.of_node.limits.receive_memory_a_peer;
        assert_eq!(memory.first().unwrap().pool.limit(), most);
        assert_eq!(
            lock(&shares.of_node.of_peers).get(&peer(1)).unwrap().1,
            40,
            "in one pool"
        );
        drop((all, memory));
        assert!(lock(&shares.of_node.of_peers).is_empty());
        assert_eq!(shares.held(Resource::Sessions, Some(peer(1))), 0);
    }

    /// A session is over, and what it brought is still held by somebody here who does not read it.
    #[tokio::test]
    async fn what_is_unread_of_a_session_that_is_over_counts_to_its_peer() {
        use tokio::io::AsyncWriteExt as _;

        const UNREAD: usize = 200 << 10;
        let shares = Shares::new(ShareLimits::default());
        let all_of = |n| shares.memory_of(ids(peer(n), &[peer(1)]));
        let memory = all_of(2);
        let config = mux::Config {
            receive_pool: Some(memory.pool.clone()),
            ..mux::Config::default()
        };
        let (near, far) = tokio::io::duplex(1 << 16);
        let (near, driver) = mux::mux(near, Side::Server, config);
        let driver = tokio::spawn(driver);
        let (far, driving) = mux::mux(far, Side::Client, mux::Config::default());
        tokio::spawn(driving);
        let (sent, unread) = tokio::join!(
            async {
                let mut stream = far.open().await.unwrap();
                stream.write_all(&vec![0; UNREAD]).await.unwrap();
                stream.shutdown().await.unwrap();
                stream
            },
            async { near.accept().await.unwrap() }
        );
        // What came before the answer to a ping has arrived.
        far.ping().await.unwrap();
        // Whoever sent it leaves in order: it is there to be read.
        far.close().await;
        let _ = driver.await.unwrap();
        drop((memory, sent));
        let held = all_of(3).pool.used();
        assert!(held > UNREAD / 2, "{held}");
        drop(unread);
        assert_eq!(all_of(1).pool.used(), 0);
        assert!(lock(&shares.of_node.of_peers).is_empty());
    }

    #[test]
    fn whoever_comes_next_finds_room() {
        let shares = Shares::new(ShareLimits::default());
        let mut all = Vec::new();
        for n in 0..16 {
            all.extend(greedy(&shares, &stranger(n)).0);
        }
        // All sixteen again, in turn, until none gets any more.
        loop {
            let before = all.len();
            for n in 0..16 {
                all.extend(shares.take(stranger(n), &ONE).ok());
            }
            if all.len() == before {
                break;
            }
        }
        let (honest, _) = greedy(&shares, &stranger(99));
        assert!(honest.len() >= 2, "{} of {}", honest.len(), all.len());
        let (friend, _) = greedy(&shares, &named(100));
        assert!(friend.len() >= 16, "{}", friend.len());
    }

    #[test]
    fn strangers_with_any_number_of_keys_leave_a_quarter_to_those_who_are_named() {
        let shares = Shares::new(ShareLimits::default());
        let all: Vec<_> = (0..1000)
            .filter_map(|n| shares.take(stranger(n), &ONE).ok())
            .collect();
        assert_eq!(all.len(), 192);
        let (friend, _) = greedy(&shares, &named(2000));
        assert!(friend.len() >= 16, "{}", friend.len());
    }

    #[test]
    fn one_host_has_a_limit_for_all_its_strangers() {
        let shares = Shares::new(ShareLimits::default());
        let host = Source::from(std::net::IpAddr::from([192, 0, 2, 1]));
        let from_there = |n| Holder {
            host: Some(host),
            ..stranger(n)
        };
        let all: Vec<_> = (0..200)
            .filter_map(|n| shares.take(from_there(n), &ONE).ok())
            .collect();
        assert_eq!(all.len(), 64);
        let refused = shares.take(from_there(300), &ONE).unwrap_err();
        assert_eq!(refused.scope, Scope::Host);
        let friend = Holder {
            named: true,
            ..from_there(301)
        };
        let _ = shares.take(friend, &ONE).unwrap();
    }

    #[test]
    fn strangers_leave_consoles_to_those_who_are_named_and_one_host_leaves_some_to_others() {
        const CONSOLE: [(Resource, usize); 1] = [(Resource::Consoles, 1)];
        let shares = Shares::new(ShareLimits::default());
        let (held, refused) = {
            let take = |_| shares.take(named(1), &CONSOLE);
            let (held, refused): (Vec<_>, Vec<_>) = (0..5).map(take).partition(Result::is_ok);
            (held, refused)
        };
        assert_eq!(held.len(), 4);
        let refused = refused.into_iter().next().unwrap().unwrap_err();
        assert_eq!((refused.scope, refused.limit), (Scope::Peer, 4));
        drop(held);
        let at = |host, n| Holder {
            host: Some(Source::from(std::net::IpAddr::from([192, 0, 2, host]))),
            ..stranger(n)
        };
        let of_host: Vec<_> = (0..100)
            .filter_map(|n| shares.take(at(1, n), &CONSOLE).ok())
            .collect();
        assert_eq!(of_host.len(), 16);
        let refused = shares.take(at(1, 200), &CONSOLE).unwrap_err();
        assert_eq!((refused.scope, refused.limit), (Scope::Host, 16));
        let others: Vec<_> = (0..100)
            .filter_map(|n| shares.take(at(2 + (n % 8) as u8, 300 + n), &CONSOLE).ok())
            .collect();
        assert_eq!(of_host.len() + others.len(), 48);
        let refused = shares.take(at(100, 500), &CONSOLE).unwrap_err();
        assert_eq!((refused.scope, refused.limit), (Scope::All, 64));
        let _ = shares.take(named(600), &CONSOLE).unwrap();
    }

    #[test]
    fn what_strangers_would_give_up_is_free_to_a_named_peer_and_to_nobody_else() {
        let wanted = (Resource::Consoles, 1);
        let shares = Shares::new(ShareLimits::default());
        let strangers: Vec<_> = (0..100)
            .filter_map(|n| shares.take(stranger(n), &[wanted]).ok())
            .collect();
        let friends: Vec<_> = (200..300)
            .filter_map(|n| shares.take(named(n), &[wanted]).ok())
            .collect();
        assert_eq!((strangers.len(), friends.len()), (48, 16), "it is full");
        let take = |holder, spare| shares.take_displacing(holder, wanted, spare);
        assert_eq!(take(named(400), 0).unwrap_err().scope, Scope::All);
        assert_eq!(take(stranger(400), 48).unwrap_err().scope, Scope::All);
        let (one, over) = take(named(400), 1).unwrap();
        assert_eq!(over, 1);
        drop((one, strangers));
        // Where there is room nobody has to go.
        assert_eq!(take(named(400), 30).unwrap().1, 0);
    }

    /// Whoever a service is for by name is no stranger anywhere at the node.
    #[test]
    fn a_peer_that_is_listed_anywhere_has_the_places_of_those_who_are_named() {
        let shares = Shares::new(ShareLimits::default());
        shares.listed_by(|ids| ids.contains(&peer(2000)));
        let strangers: Vec<_> = (0..1000)
            .filter_map(|n| shares.take(stranger(n), &ONE).ok())
            .collect();
        assert_eq!(strangers.len(), 192);
        let _ = shares.take(stranger(2001), &ONE).unwrap_err();
        let listed = shares.take(stranger(2000), &ONE).unwrap();
        let heir = Holder {
            ids: ids(peer(2002), &[peer(2000)]),
            ..stranger(0)
        };
        let heir = shares.take(heir, &ONE).unwrap();
        assert_eq!(shares.counts()[&Resource::Sessions].strangers, 192);
        drop((listed, heir));
    }

    #[test]
    fn the_documented_limits_are_those_of_each_resource() {
        let page = include_str!("../../docs/HOSTILE.md");
        let limits = ShareLimits::default();
        let thousands = |n: usize| match n {
            1000.. => format!("{},{:03}", n / 1000, n % 1000),
            _ => n.to_string(),
        };
        for resource in Resource::ALL {
            let name = match resource {
                Resource::Sessions => "sessions",
                Resource::Substreams => "substreams",
                Resource::Children => "commands (`exec:`)",
                Resource::Descriptors => "file descriptors",
                Resource::Consoles => "kept consoles (`console --attach`)",
            };
            let it = limits.of(resource);
            let row = if resource == Resource::Descriptors {
                // By what the process may open.
                "| file descriptors | what the process may open, less an eighth and at least 64 | a half | a half |".to_owned()
            } else {
                let [all, one, host] = [it.all, it.peer, it.host].map(thousands);
                format!("| {name} | {all} | {one} | {host} |")
            };
            assert!(page.contains(&row), "docs/HOSTILE.md lacks: {row}");
        }
        let consoles = limits.consoles;
        let page_of_nodes = include_str!("../../docs/MESH.md");
        let row = format!("| {} | `Resource::Consoles` |", consoles.all);
        let begins = format!("\n| {} consoles that are kept", consoles.peer);
        assert!(page_of_nodes.contains(&row) && page_of_nodes.contains(&begins));
        let memory = [limits.receive_memory, limits.receive_memory_a_peer].map(|n| n >> 20);
        let row = format!("substream | {} MiB | {} MiB | - |", memory[0], memory[1]);
        assert!(page.contains(&row), "docs/HOSTILE.md lacks: {row}");
    }

    #[test]
    fn what_is_wanted_together_is_given_together_or_not_at_all() {
        let shares = Shares::new(ShareLimits {
            descriptors: Limits {
                all: 100,
                peer: 6,
                host: 100,
            },
            ..ShareLimits::default()
        });
        let command = [(Resource::Children, 1), (Resource::Descriptors, 4)];
        let held = shares.take(named(1), &command).unwrap();
        let refused = shares.take(named(1), &command).unwrap_err();
        assert_eq!(refused.resource, Resource::Descriptors);
        assert_eq!(shares.held(Resource::Children, Some(peer(1))), 1);
        drop(held);
        let counts = shares.counts();
        assert!(
            counts
                .values()
                .all(|c| c.all == 0 && c.strangers == 0 && c.peers.is_empty())
        );
    }
}
