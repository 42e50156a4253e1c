//! A TCP proxy on loopback that harms what it carries: on command, after an exact number of bytes, or at random from a seed.
//!
//! ```text
//!   client --- near ---> [ proxy ] --- far ---> target
//!                 there -->       <-- back
//! ```
//!
//! Each connection is two pumps, one a direction, that stop where they are when the connection is harmed: so what passed is a
//! beginning of what was written, as on a real network. [`Harm`] says what the ends notice of it. New connections are
//! served all the same, unless the proxy is told to refuse them.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::pattern::Rng;

/// A direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the target.
    There,
    /// From the target.
    Back,
}

impl Way {
    fn draw(rng: &mut Rng) -> Self {
        if rng.percent(50) {
            Self::There
        } else {
            Self::Back
        }
    }
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// Both ends read a reset.
    Reset,
    /// Both ends read the end of the stream, as if the other one had closed it.
    Fin,
    /// All that comes is taken and lost, and nobody hears of that.
    Blackhole,
    /// The same of one direction; the other one goes on.
    HalfOpen(Way),
}

impl Harm {
    fn stops(self, way: Way) -> bool {
        match self {
            Self::HalfOpen(dead) => dead == way,
            Self::Reset | Self::Fin | Self::Blackhole => true,
        }
    }
}

/// Harm that comes after so many bytes of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HarmAfter {
    /// What.
    pub harm: Harm,
    /// In which direction the bytes are counted.
    pub way: Way,
    /// So many have passed, and not one more does.
    pub bytes: u64,
}

/// Harm to one connection after the other, drawn from a seed.
#[derive(Clone, Debug)]
pub struct RandomHarm {
    /// The same seed, the same harm.
    pub seed: u64,
    /// So many connections are harmed, and the later ones are not.
    pub times: u64,
    /// A connection is harmed within so many bytes of a direction.
    pub within: u64,
    /// One in four is harmed within so many bytes: what a handshake has.
    pub early: u64,
    /// One in so many is silent, blackholes and half-open ones alike; the others are reset or ended.
    pub silent: usize,
}

impl RandomHarm {
    fn draw(&self, rng: &mut Rng) -> HarmAfter {
        let way = Way::draw(rng);
        let within = match rng.between(0, 3) {
            0 => self.early,
            _ => self.within,
        };
        let bytes = rng.next_u64() % within.max(1);
        let harm = match (rng.between(1, self.silent.max(1)), rng.between(0, 1)) {
            (1, 0) => Harm::Blackhole,
            (1, _) => Harm::HalfOpen(Way::draw(rng)),
            (_, 0) => Harm::Reset,
            (_, _) => Harm::Fin,
        };
        HarmAfter { harm, way, bytes }
    }
}

/// How often what was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Harmed {
    /// Connections that were accepted.
    pub connections: u64,
    /// Of them, those that were refused.
    pub refused: u64,
    /// Resets.
    pub reset: u64,
    /// Ends.
    pub fin: u64,
    /// Blackholes.
    pub blackhole: u64,
    /// Half-open ones.
    pub half_open: u64,
}

impl Harmed {
    /// Connections that were harmed after they had been let through.
    pub fn all(&self) -> u64 {
        self.reset + self.fin + self.blackhole + self.half_open
    }
}

/// See the head of this file. It ends when it is dropped, and all its connections with it.
#[derive(Debug)]
pub struct CuttingProxy {
    at: SocketAddr,
    shared: Arc<Shared>,
    /// Aborted when it is dropped.
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Bytes that passed, both directions.
    carried: AtomicU64,
}

#[derive(Debug)]
struct State {
    to: SocketAddr,
    refuses: bool,
    next: VecDeque<HarmAfter>,
    random: Option<(RandomHarm, Rng)>,
    harmed: Harmed,
    live: Vec<Arc<Connection>>,
}

#[derive(Debug)]
struct Connection {
    harm: watch::Sender<Option<Harm>>,
    after: Option<HarmAfter>,
}

impl CuttingProxy {
    /// Listens on a free port of loopback, and leads to `to`.
    ///
    /// # Errors
    /// When there is none.
    pub async fn start(to: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let at = listener.local_addr()?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                to,
                refuses: false,
                next: VecDeque::new(),
                random: None,
                harmed: Harmed::default(),
                live: Vec::new(),
            }),
            carried: AtomicU64::new(0),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self {
            at,
            shared,
            _tasks: tasks,
        })
    }

    /// Where it listens.
    pub fn at(&self) -> SocketAddr {
        self.at
    }

    /// Leads later connections elsewhere.
    pub fn lead_to(&self, to: SocketAddr) {
        self.shared.state().to = to;
    }

    /// Harms all connections that there are, and says how many; one that has been harmed already stays as it is.
    pub fn harm(&self, harm: Harm) -> usize {
        let live = self.shared.state().live.clone();
        live.iter().filter(|it| self.shared.harm(it, harm)).count()
    }

    /// Harms the next connection that has none of its own yet.
    pub fn harm_next(&self, after: HarmAfter) {
        self.shared.state().next.push_back(after);
    }

    /// Harms connections from now on at random.
    pub fn harm_at_random(&self, random: RandomHarm) {
        let rng = Rng::new(random.seed);
        self.shared.state().random = Some((random, rng));
    }

    /// From now on new connections are reset at once, or are not any more.
    pub fn refuse(&self, refuses: bool) {
        self.shared.state().refuses = refuses;
    }

    /// How often it did what.
    pub fn harmed(&self) -> Harmed {
        self.shared.state().harmed
    }

    /// Connections that there are, those in a blackhole included.
    pub fn live(&self) -> usize {
        self.shared.state().live.len()
    }

    /// Bytes that passed in both directions.
    pub fn carried(&self) -> u64 {
        self.shared.carried.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Harms it if it was not yet.
    fn harm(&self, connection: &Connection, harm: Harm) -> bool {
        let first = connection.harm.send_if_modified(|now| {
            let first = now.is_none();
            now.get_or_insert(harm);
            first
        });
        if first {
            let harmed = &mut self.state().harmed;
            *match harm {
                Harm::Reset => &mut harmed.reset,
                Harm::Fin => &mut harmed.fin,
                Harm::Blackhole => &mut harmed.blackhole,
                Harm::HalfOpen(_) => &mut harmed.half_open,
            } += 1;
        }
        first
    }

    /// A new connection; none where it is refused.
    fn enter(&self) -> Option<(SocketAddr, Arc<Connection>)> {
        let mut state = self.state();
        state.harmed.connections += 1;
        if state.refuses {
            state.harmed.refused += 1;
            return None;
        }
        let mut after = state.next.pop_front();
        if let (None, Some((random, rng))) = (after, &mut state.random)
            && random.times > 0
        {
            random.times -= 1;
            after = Some(random.draw(rng));
        }
        let connection = Arc::new(Connection {
            harm: watch::Sender::new(None),
            after,
        });
        state.live.push(Arc::clone(&connection));
        Some((state.to, connection))
    }

    fn leave(&self, connection: &Arc<Connection>) {
        let live = &mut self.state().live;
        live.retain(|it| !Arc::ptr_eq(it, connection));
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Dropped with this task, and so are the connections.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((near, _)) = listener.accept().await else {
            continue;
        };
        let Some((to, connection)) = shared.enter() else {
            let _ = near.set_zero_linger();
            continue;
        };
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            serve(near, to, &connection, &shared).await;
            shared.leave(&connection);
        });
    }
}

async fn serve(mut near: TcpStream, to: SocketAddr, connection: &Connection, shared: &Shared) {
    let Ok(mut far) = TcpStream::connect(to).await else {
        let _ = near.set_zero_linger();
        return;
    };
    // It must not delay what the ends would not.
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let mut harmed = connection.harm.subscribe();
    let reset = async {
        let _ = harmed.wait_for(|harm| *harm == Some(Harm::Reset)).await;
    };
    let is_reset = {
        let ((mut from_near, mut to_near), (mut from_far, mut to_far)) =
            (near.split(), far.split());
        let there = pump(&mut from_near, &mut to_far, Way::There, connection, shared);
        let back = pump(&mut from_far, &mut to_near, Way::Back, connection, shared);
        tokio::select! {
            biased;
            () = reset => true,
            // One that failed has been reset by its end.
            done = async { tokio::try_join!(there, back) } => done.is_err(),
        }
    };
    if is_reset {
        let _ = (near.set_zero_linger(), far.set_zero_linger());
    }
}

/// One direction: carries, until it ends or is harmed; then takes what comes until its end.
async fn pump(
    from: &mut (impl tokio::io::AsyncRead + Unpin),
    to: &mut (impl tokio::io::AsyncWrite + Unpin),
    way: Way,
    connection: &Connection,
    shared: &Shared,
) -> io::Result<()> {
    let mut harmed = connection.harm.subscribe();
    let mut buffer = vec![0; 16 << 10];
    let mut left = connection.after.filter(|after| after.way == way);
    loop {
        if let Some(after) = left.filter(|after| after.bytes == 0) {
            shared.harm(connection, after.harm);
            left = None;
        }
        let stopped = async {
            let is_stop = |harm: &Option<Harm>| harm.is_some_and(|harm| harm.stops(way));
            let _ = harmed.wait_for(is_stop).await;
        };
        let room = left.map_or(u64::MAX, |after| after.bytes);
        let room = usize::try_from(room)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let passed = async {
            let n = from
                .read(buffer.get_mut(..room).unwrap_or_default())
                .await?;
            to.write_all(buffer.get(..n).unwrap_or_default()).await?;
            Ok::<_, io::Error>(n)
        };
        tokio::select! {
            biased;
            () = stopped => break,
            n = passed => match n? {
                0 => return to.shutdown().await,
                n => {
                    shared.carried.fetch_add(n as u64, Ordering::Relaxed);
                    if let Some(after) = &mut left {
                        after.bytes = after.bytes.saturating_sub(n as u64);
                    }
                }
            },
        }
    }
    let is_fin = *harmed.borrow() == Some(Harm::Fin);
    if is_fin {
        let _ = to.shutdown().await;
    }
    // Its end goes no further: the other one hears nothing of it.
    while !matches!(from.read(&mut buffer).await, Ok(0) | Err(_)) {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// A pair of connections through a proxy.
    async fn through() -> (CuttingProxy, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = CuttingProxy::start(listener.local_addr().unwrap())
            .await
            .unwrap();
        (proxy, listener)
    }

    async fn pair(proxy: &CuttingProxy, listener: &TcpListener) -> (TcpStream, TcpStream) {
        let near = TcpStream::connect(proxy.at()).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        (near, far)
    }

    async fn passes(from: &mut TcpStream, to: &mut TcpStream) {
        from.write_all(b"hello").await.unwrap();
        let mut got = [0; 5];
        to.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"hello");
    }

    async fn is_silent(stream: &mut TcpStream) {
        let read = timeout(Duration::from_millis(100), stream.read_u8()).await;
        assert!(read.is_err(), "{read:?}");
    }

    #[tokio::test]
    async fn each_kind_of_harm_is_what_the_ends_notice() {
        let (proxy, listener) = through().await;

        let (mut near, mut far) = pair(&proxy, &listener).await;
        passes(&mut near, &mut far).await;
        passes(&mut far, &mut near).await;
        assert_eq!(proxy.harm(Harm::Reset), 1);
        for end in [&mut near, &mut far] {
            let error = end.read_u8().await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }

        let (mut near, mut far) = pair(&proxy, &listener).await;
        passes(&mut near, &mut far).await;
        proxy.harm(Harm::Fin);
        for end in [&mut near, &mut far] {
            assert_eq!(end.read(&mut [0; 8]).await.unwrap(), 0);
        }

        let (mut near, mut far) = pair(&proxy, &listener).await;
        passes(&mut near, &mut far).await;
        proxy.harm(Harm::Blackhole);
        assert_eq!(proxy.harm(Harm::Reset), 0, "it was harmed before");
        near.write_all(&vec![1; 8 << 20]).await.unwrap();
        far.write_all(b"swallowed").await.unwrap();
        is_silent(&mut near).await;
        is_silent(&mut far).await;
        // Not even an end passes.
        drop(near);
        is_silent(&mut far).await;

        let (mut near, mut far) = pair(&proxy, &listener).await;
        proxy.harm(Harm::HalfOpen(Way::Back));
        far.write_all(b"swallowed").await.unwrap();
        is_silent(&mut near).await;
        passes(&mut near, &mut far).await;
        let harmed = proxy.harmed();
        assert_eq!((harmed.connections, harmed.all()), (4, 4), "{harmed:?}");
    }

    #[tokio::test]
    async fn harm_comes_behind_an_exact_byte_and_refusal_at_once() {
        let (proxy, listener) = through().await;
        for bytes in [0, 1, 70_000] {
            let (harm, way) = (Harm::Fin, Way::There);
            proxy.harm_next(HarmAfter { harm, way, bytes });
            let (mut near, mut far) = pair(&proxy, &listener).await;
            let writer = tokio::spawn(async move {
                let _ = near.write_all(&vec![1; 1 << 20]).await;
                near
            });
            let mut got = Vec::new();
            far.read_to_end(&mut got).await.unwrap();
            assert_eq!(got.len() as u64, bytes);
            drop(writer.await.unwrap());
        }
        // What comes later is let be.
        let (mut near, mut far) = pair(&proxy, &listener).await;
        passes(&mut near, &mut far).await;
        proxy.refuse(true);
        let mut refused = TcpStream::connect(proxy.at()).await.unwrap();
        assert!(refused.read_u8().await.is_err());
        passes(&mut near, &mut far).await;
        proxy.refuse(false);
        let (mut near, mut far) = pair(&proxy, &listener).await;
        passes(&mut near, &mut far).await;
        assert_eq!(proxy.harmed().refused, 1);
    }

    #[test]
    fn a_seed_repeats_its_harm() {
        let random = RandomHarm {
            seed: 7,
            times: 100,
            within: 1 << 20,
            early: 4096,
            silent: 5,
        };
        let draw = || {
            let mut rng = Rng::new(random.seed);
            (0..100).map(|_| random.draw(&mut rng)).collect::<Vec<_>>()
        };
        let drawn = draw();
        assert_eq!(drawn, draw());
        let silent = |after: &&HarmAfter| !matches!(after.harm, Harm::Reset | Harm::Fin);
        assert!((5..50).contains(&drawn.iter().filter(silent).count()));
        assert!(drawn.iter().filter(|after| after.bytes < 4096).count() >= 10);
    }
}
