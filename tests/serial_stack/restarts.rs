//! Either end of a serial line is killed and started again, at any moment: no byte of what was before gets into
//! what comes after, the end that lived on learns it soon and as an error, and a new session comes up by itself.
//!
//! An end is a "process": a port on the line, a session that is made again and again, and an application that
//! says who it is and then bytes that follow from that. Killing it closes the port: what it had given to the
//! driver still leaves, everything else of it is gone, at whatever byte. The line goes on with what is on it.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use cepa::Side;
use cepa::mux::Substream;
use cepa::onion::Onion;
use cepa::session::{Backoff, Reconnecting, Session};
use cepa::stack::StackConfig;
use cepa::transports::Stream;
use cepa::transports::testkit::{CableEnd, Noise, Rng, cable, fill, verify};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{FAST, configs, line};

/// What survives a process: its end of the cable.
type Socket = Arc<Mutex<CableEnd>>;

/// The port of one process, opened once at a time.
#[derive(Clone)]
struct Device {
    socket: Socket,
    killed: Arc<AtomicBool>,
    turn: Arc<Semaphore>,
}

impl Device {
    fn new(socket: &Socket) -> Self {
        Self {
            socket: Arc::clone(socket),
            killed: Arc::default(),
            turn: Arc::new(Semaphore::new(1)),
        }
    }

    async fn open(&self, label: &str) -> Stream {
        let turn = Arc::clone(&self.turn).acquire_owned().await.unwrap();
        let port = Port {
            device: self.clone(),
            _turn: turn,
        };
        Stream::from_io(port, label)
    }
}

struct Port {
    device: Device,
    _turn: OwnedSemaphorePermit,
}

impl Port {
    fn with<T>(
        &self,
        f: impl FnOnce(Pin<&mut CableEnd>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.device.killed.load(Ordering::Relaxed) {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        }
        f(Pin::new(&mut *self.device.socket.lock().unwrap()))
    }
}

impl AsyncRead for Port {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.with(|end| end.poll_read(cx, buf))
    }
}

impl AsyncWrite for Port {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.with(|end| end.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|end| end.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|end| end.poll_shutdown(cx))
    }
}

/// What all processes tell.
#[derive(Default)]
struct Observed {
    /// When a process was killed.
    killed: HashMap<u64, Instant>,
    /// At each end: with which process it talks now, and how many bytes of it came.
    talk: [Option<(u64, u64)>; 2],
    /// At each end: how substreams ended, and when.
    ends: [Vec<(Instant, io::Error)>; 2],
    /// Bytes that two applications let lie between two pieces; little or much is on the line.
    pause: Duration,
    numbers: u64,
}

type Log = Arc<Mutex<Observed>>;

fn lock(log: &Log) -> MutexGuard<'_, Observed> {
    log.lock().unwrap()
}

/// Talks on a substream until it breaks: who we are, which substream we mean, then bytes that follow from both.
/// The other end does the same.
async fn talk(
    log: Log,
    end: usize,
    (us, began): (u64, Instant),
    mut stream: Onion<Substream>,
    call: Option<u64>,
) {
    let result = async {
        let call = match call {
            Some(call) => {
                stream.write_u64(call).await?;
                call
            }
            None => stream.read_u64().await?,
        };
        stream.write_u64(us).await?;
        stream.flush().await?;
        let peer = stream.read_u64().await?;
        {
            let mut reported = lock(&log);
            // A session that was made after the death of a process has no byte of it.
            let dead = reported.killed.get(&peer).is_some_and(|at| *at < began);
            assert!(!dead, "{peer} was dead when the session of {us} began");
            reported.talk[end] = Some((peer, 0));
        }
        let (mut from, mut to) = tokio::io::split(&mut stream);
        let reading = async {
            let (mut at, mut piece) = (0, [0; 500]);
            loop {
                let n = from.read(&mut piece).await?;
                // Nobody ends a conversation in order here.
                assert!(n > 0, "a loss was read as an end, after {at} bytes");
                verify(call ^ (peer << 32), at, &piece[..n]).unwrap();
                at += n as u64;
                lock(&log).talk[end] = Some((peer, at));
            }
        };
        let writing = async {
            let (mut at, mut piece) = (0, [0; 200]);
            loop {
                fill(call ^ (us << 32), at, &mut piece);
                to.write_all(&piece).await?;
                to.flush().await?;
                at += piece.len() as u64;
                let pause = lock(&log).pause;
                sleep(pause).await;
            }
        };
        tokio::select! {
            result = reading => result,
            result = writing => result,
        }
    };
    let result: io::Result<()> = result.await;
    let mut reported = lock(&log);
    if let Err(error) = result
        && !reported.killed.contains_key(&us)
    {
        reported.ends[end].push((Instant::now(), error));
        reported.talk[end] = None;
    }
}

/// As `cepa serve serial:…`: one session after the other.
async fn server(log: Log, us: u64, device: Device, config: StackConfig) {
    loop {
        let stream = device.open("server").await;
        let Ok(session) = Session::handshake(stream, &[], Side::Server, &config).await else {
            sleep(Duration::from_millis(500)).await;
            continue;
        };
        let began = Instant::now();
        let mut talks = JoinSet::new();
        while let Ok(incoming) = session.accept().await {
            let Ok(stream) = incoming.accept().await else {
                continue;
            };
            talks.spawn(talk(Arc::clone(&log), 1, (us, began), stream, None));
        }
        assert!(!session.closed().await.is_clean());
        while let Some(done) = talks.join_next().await {
            // A panic there is one here.
            done.unwrap();
        }
    }
}

/// As `cepa forward --reconnect` with somebody who opens a connection whenever there is none.
async fn client(log: Log, us: u64, device: Device, config: StackConfig) {
    let connect = move || {
        let (device, config) = (device.clone(), config.clone());
        async move {
            let stream = device.open("client").await;
            Session::handshake(stream, &[], Side::Client, &config).await
        }
    };
    let backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(2));
    let sessions = loop {
        match Reconnecting::with(backoff.clone(), connect.clone()).await {
            Ok(sessions) => break sessions,
            // As whoever starts the command again.
            Err(error) => assert!(error.is_transient(), "{error}"),
        }
        sleep(Duration::from_millis(250)).await;
    };
    loop {
        let session = sessions.session().await.unwrap();
        let began = Instant::now() - session.handshake_time();
        let Ok(stream) = session.open("talk").await else {
            continue;
        };
        let call = {
            let mut reported = lock(&log);
            reported.numbers += 1;
            reported.numbers
        };
        talk(Arc::clone(&log), 0, (us, began), stream, Some(call)).await;
    }
}

struct Process {
    number: u64,
    device: Device,
    tasks: JoinSet<()>,
}

struct World {
    log: Log,
    sockets: [Socket; 2],
    configs: (StackConfig, StackConfig),
    processes: Vec<Process>,
    rng: Rng,
}

impl World {
    fn new(noise: Noise, seed: u64) -> Self {
        let settings = line(FAST.1, 4096, noise);
        let (near, far) = cable(&settings, &settings, seed);
        let mut world = Self {
            log: Log::default(),
            sockets: [near, far].map(|end| Arc::new(Mutex::new(end))),
            configs: configs(FAST.0),
            processes: Vec::new(),
            rng: Rng::new(seed),
        };
        for end in [0, 1] {
            let process = world.start(end);
            world.processes.push(process);
        }
        world
    }

    fn start(&mut self, end: usize) -> Process {
        let log = Arc::clone(&self.log);
        let number = {
            let mut reported = lock(&log);
            reported.numbers += 1;
            reported.numbers
        };
        let device = Device::new(&self.sockets[end]);
        let mut tasks = JoinSet::new();
        if end == 0 {
            tasks.spawn(client(log, number, device.clone(), self.configs.0.clone()));
        } else {
            tasks.spawn(server(log, number, device.clone(), self.configs.1.clone()));
        }
        Process {
            number,
            device,
            tasks,
        }
    }

    /// A panic in a process is the test's.
    fn look(&mut self) {
        for process in &mut self.processes {
            if let Some(Err(error)) = process.tasks.try_join_next() {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }

    /// Lets time pass until it is so.
    async fn until(&mut self, what: &str, most: Duration, is_so: impl Fn(&Observed) -> bool) {
        let began = Instant::now();
        while !is_so(&lock(&self.log)) {
            assert!(began.elapsed() < most, "{what}: not within {most:?}");
            sleep(Duration::from_millis(5)).await;
            self.look();
        }
    }

    /// Kills one end and starts it anew.
    async fn restart(&mut self, end: usize) {
        let down = Duration::from_millis([0, 0, 1, 40, 700][self.rng.between(0, 4)]);
        let other = self.processes[1 - end].number;
        let killed = &mut self.processes[end];
        killed.device.killed.store(true, Ordering::Relaxed);
        killed.tasks.abort_all();
        let number = killed.number;
        let talked = {
            let mut reported = lock(&self.log);
            reported.killed.insert(number, Instant::now());
            reported.talk[end] = None;
            reported.ends[1 - end].clear();
            reported.talk[1 - end].is_some_and(|(peer, _)| peer == number)
        };
        sleep(down).await;
        self.processes[end] = self.start(end);
        if talked {
            let what = format!("{other} learns of the death of {number}");
            self.until(&what, Duration::from_secs(3), |reported| {
                !reported.ends[1 - end].is_empty()
            })
            .await;
        }
    }

    /// Both ends talk with each other as they are now.
    async fn is_well(&mut self) {
        let [near, far] = [0, 1].map(|end: usize| self.processes[end].number);
        // Two pauses of the longest, a handshake and what the last one left; a guard, and in virtual time.
        self.until("a new session", Duration::from_secs(10), move |reported| {
            let with = |end: usize, peer| {
                reported.talk[end].is_some_and(|(p, bytes)| p == peer && bytes >= 64)
            };
            with(0, far) && with(1, near)
        })
        .await;
    }
}

async fn restarts(noise: Noise, times: usize, seed: u64) {
    let mut world = World::new(noise, seed);
    world.is_well().await;
    for _ in 0..times {
        for end in [0, 1] {
            let pause = world.rng.between(0, 300) as u64;
            lock(&world.log).pause =
                Duration::from_millis([1, 30, 3_600_000][world.rng.between(0, 2)]);
            // In a handshake, at the start of a session, and in the middle of one.
            if world.rng.percent(70) {
                world.is_well().await;
            }
            sleep(Duration::from_millis(pause)).await;
            world.restart(end).await;
        }
    }
    lock(&world.log).pause = Duration::from_millis(1);
    world.is_well().await;
}

#[tokio::test(start_paused = true)]
async fn two_hundred_restarts_of_each_end() {
    restarts(Noise::default(), 200, 1).await;
}

#[tokio::test(start_paused = true)]
async fn restarts_on_a_noisy_line() {
    let noise = Noise {
        bit_errors: 1e-5,
        drops: 1e-5,
        ..Noise::default()
    };
    restarts(noise, 20, 2).await;
}
