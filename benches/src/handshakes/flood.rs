//! Strangers that say nothing, and strangers that say a byte a second, all at once; and somebody honest who dials in
//! between.
//!
//! ```text
//! cargo run --release -p cepa-bench -- handshake-flood [--each 10000]
//! ```
//!
//! Three floods, one after the other, each against a listener of its own:
//!
//! - `held`: every stranger gets a place, so that the cost of one can be seen: memory (VmRSS of the listener, above that
//!   of it idle, by the strangers that it holds), when it is cut, and what it does to others.
//! - `one-source`: against the gate, all from one host: it gets 8 places.
//! - `crowd`: against the gate, each from a host of its own: they get 100 places, most of the time, and who dials then
//!   gets in by chance. The honest dialler tries again at once after it was dropped, for a second at most; the figures
//!   are for getting in, all attempts together. There is no goal.
//!
//! How long a stranger is held is taken at the stranger, from its connection to the listener's end of it. Some may think
//! that they are connected where the listener never heard of it: where its backlog is full the kernel drops the last
//! segment of TCP's handshake, or keeps nothing at all (SYN cookies), and who stays silent never finds out. A stranger
//! that was not cut is looked up among the machine's sockets for that (proc(5); Linux).

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use cepa::Side;
use cepa::identity::{AcceptAny, Identity, KeyKind, PeerId, Pinned};
use cepa::onion::Onion;
use cepa::session::Session;
use cepa::stack::{ALPN_MUX, StackConfig};
use cepa::tls::TlsConfig;
use cepa::transports::Endpoint;
use clap::Args;
use nix::sys::resource::{Resource, getrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::listener::Doors;
use super::{judged, report};
use crate::Outcome;
use crate::measure::{number, quantile, resident_bytes_of};

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Silent strangers, and as many that say a byte a second; fewer where descriptors end
    #[arg(long, default_value_t = 10_000)]
    each: usize,
    /// Only the flood of this name
    #[arg(long)]
    only: Option<String>,
}

/// Strangers come in waves that a listener's backlog has room for, so that most are heard of at once.
const WAVE: usize = 256;
const BETWEEN_WAVES: Duration = Duration::from_millis(40);

/// Descriptors for what is no stranger.
const SPARE: usize = 400;
/// Connections that are being made at once; a listener's backlog is no longer than 1,024.
const CONNECTING: usize = 256;
/// Between two dials of the honest one.
const PAUSE: Duration = Duration::from_millis(20);
/// How long the honest one tries to get in.
const PATIENCE: Duration = Duration::from_secs(1);
/// When strangers stop waiting to be cut.
const LONGEST: Duration = Duration::from_secs(20);
/// The limit of a handshake is 10 s, and a stranger has a second to read why it was cut.
const CUT: f64 = 11.5;

/// Where the stranger of a number comes from.
type AddressOf = fn(usize) -> Ipv4Addr;

pub(crate) fn run(options: &Options) -> Outcome<()> {
    let (descriptors, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let room = usize::try_from(descriptors)?.saturating_sub(SPARE) / 2;
    let each = options.each.min(room);
    println!("strangers 2 x {each} ({descriptors} descriptors a process)");
    let floods: [(&str, Doors, AddressOf); 3] = [
        ("held", Doors::Open, host),
        ("one-source", Doors::Gate, |_| host(0)),
        ("crowd", Doors::Gate, host),
    ];
    for (name, doors, from) in floods {
        if options.only.as_ref().is_none_or(|only| only == name) {
            flood(name, doors, from, each)?;
        }
    }
    Ok(())
}

/// Each number has an address of its own, and none is the honest one's.
fn host(number: usize) -> Ipv4Addr {
    let number = u32::try_from(number).unwrap_or(u32::MAX) % (1 << 23);
    Ipv4Addr::from((127 << 24) + (1 << 16) + number)
}

/// How a stranger fared.
#[derive(Debug, Default)]
struct Strangers {
    open: AtomicUsize,
    /// For how long those were held that the gate let in, in seconds.
    held: Mutex<Vec<f64>>,
    turned_away: AtomicUsize,
    never_cut: AtomicUsize,
    /// The listener's kernel does not know them.
    unheard: AtomicUsize,
    failed: AtomicUsize,
}

/// What the honest one saw.
#[derive(Debug, Default)]
struct Honest {
    /// Seconds until it was in.
    waited: Vec<f64>,
    attempts: usize,
    shut_out: usize,
}

fn flood(name: &str, doors: Doors, from: fn(usize) -> Ipv4Addr, each: usize) -> Outcome<()> {
    let listener = Listener::start(doors)?;
    let strangers = Arc::new(Strangers::default());
    let over = Arc::new(AtomicUsize::new(0));
    // Warm: the first session makes what all share.
    dial_for(&listener, &over, 1)?;
    let before = resident_bytes_of(listener.child.id())?;
    let runtime = tokio::runtime::Runtime::new()?;
    let (most, memory, honest) = thread::scope(|scope| -> Outcome<_> {
        let honest = scope.spawn(|| dial_for(&listener, &over, usize::MAX));
        let watched = scope.spawn(|| watch(&listener, &strangers, &over));
        let crowded = runtime.block_on(crowd(listener.port, from, each, &strangers));
        over.store(1, Ordering::Relaxed);
        let honest = honest.join().map_err(|_| "the honest dialler panicked")??;
        let (most, memory) = watched.join().map_err(|_| "the watch panicked")??;
        crowded?;
        Ok((most, memory, honest))
    })?;
    let count = |counter: &AtomicUsize| number(counter.load(Ordering::Relaxed));
    let held = strangers
        .held
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    println!("-- {name}");
    report("held-at-once", number(most), "strangers");
    report("turned-away", count(&strangers.turned_away), "strangers");
    report("not-connected", count(&strangers.failed), "strangers");
    report("unheard-of", count(&strangers.unheard), "strangers");
    if doors == Doors::Open && most > 0 {
        let one = (memory - before).max(0.0) / number(most) / 1024.0;
        judged("memory-of-one", one, "KiB", 16.0);
    }
    judged("never-cut", count(&strangers.never_cut), "strangers", 0.0);
    report("cut-first", quantile(&held, 0.0), "s");
    judged("cut-last", quantile(&held, 1.0), "s", CUT);
    report(
        "honest-dials",
        number(honest.waited.len() + honest.shut_out),
        "dials",
    );
    report("honest-attempts", number(honest.attempts), "attempts");
    report("honest-shut-out", number(honest.shut_out), "dials");
    let millis: Vec<f64> = honest.waited.iter().map(|s| s * 1000.0).collect();
    report("honest-p50", quantile(&millis, 0.5), "ms");
    match name {
        "crowd" => report("honest-p99", quantile(&millis, 0.99), "ms"),
        _ => judged("honest-p99", quantile(&millis, 0.99), "ms", 250.0),
    }
    Ok(())
}

/// The most strangers at once, and the listener's memory then.
fn watch(listener: &Listener, strangers: &Strangers, over: &AtomicUsize) -> Outcome<(usize, f64)> {
    let (mut most, mut memory) = (0, 0.0_f64);
    while over.load(Ordering::Relaxed) == 0 {
        let open = strangers.open.load(Ordering::Relaxed);
        let resident = resident_bytes_of(listener.child.id())?;
        most = most.max(open);
        memory = memory.max(resident);
        thread::sleep(Duration::from_millis(50));
    }
    Ok((most, memory))
}

/// All strangers, until the last is cut.
async fn crowd(
    port: u16,
    from: fn(usize) -> Ipv4Addr,
    each: usize,
    strangers: &Arc<Strangers>,
) -> Outcome<()> {
    let hello = Arc::new(hello().await?);
    let connecting = Arc::new(Semaphore::new(CONNECTING));
    let mut all = JoinSet::new();
    for number in 0..2 * each {
        if number % WAVE == 0 {
            tokio::time::sleep(BETWEEN_WAVES).await;
        }
        let place = Arc::clone(&connecting).acquire_owned().await?;
        let (strangers, hello) = (Arc::clone(strangers), Arc::clone(&hello));
        all.spawn(async move {
            let Ok(stream) = connect(from(number), port).await else {
                strangers.failed.fetch_add(1, Ordering::Relaxed);
                return;
            };
            drop(place);
            let bytes = if number % 2 == 0 { &[][..] } else { &hello[..] };
            stranger(stream, bytes, &strangers).await;
        });
    }
    while all.join_next().await.is_some() {}
    Ok(())
}

async fn connect(from: Ipv4Addr, port: u16) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddrV4::new(from, 0).into())?;
    socket
        .connect(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port).into())
        .await
}

/// Says these bytes, one a second, and waits for the end.
async fn stranger(mut stream: TcpStream, bytes: &[u8], strangers: &Strangers) {
    let begun = Instant::now();
    strangers.open.fetch_add(1, Ordering::Relaxed);
    let (mut reader, mut writer) = stream.split();
    let ended = async {
        let mut some = [0; 64];
        while let Ok(1..) = reader.read(&mut some).await {}
    };
    let talks = async {
        for byte in bytes {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if writer.write_all(&[*byte]).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let cut = tokio::select! {
        () = ended => true,
        () = talks => true,
        () = tokio::time::sleep(LONGEST) => false,
    };
    strangers.open.fetch_sub(1, Ordering::Relaxed);
    let took = begun.elapsed().as_secs_f64();
    if !cut && !is_known(&stream).unwrap_or(true) {
        strangers.unheard.fetch_add(1, Ordering::Relaxed);
    } else if !cut {
        strangers.never_cut.fetch_add(1, Ordering::Relaxed);
    } else if took < 5.0 {
        strangers.turned_away.fetch_add(1, Ordering::Relaxed);
    } else {
        let mut held = strangers
            .held
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        held.push(took);
    }
}

/// Whether there is a socket at the other end, of the listener's own.
fn is_known(stream: &TcpStream) -> Outcome<bool> {
    let as_listed = |address: SocketAddr| match address {
        SocketAddr::V4(v4) => {
            let host = u32::from_ne_bytes(v4.ip().octets());
            Ok(format!("{host:08X}:{:04X}", v4.port()))
        }
        SocketAddr::V6(_) => Err("strangers are IPv4"),
    };
    let (theirs, ours) = (stream.peer_addr()?, stream.local_addr()?);
    // Established, at the listener's side (local address, remote address, state).
    let socket = format!(" {} {} 01 ", as_listed(theirs)?, as_listed(ours)?);
    Ok(std::fs::read_to_string("/proc/net/tcp")?.contains(&socket))
}

/// A hello as it goes over the wire.
async fn hello() -> Outcome<Vec<u8>> {
    let identity = Identity::generate(KeyKind::Ed25519)?;
    let config = TlsConfig::builder(&identity, Arc::new(AcceptAny))
        .alpn(&[ALPN_MUX])
        .build()?;
    let (near, mut far) = tokio::io::duplex(1 << 14);
    let mut client = Onion::new(near);
    let mut hello = vec![0; 600];
    tokio::select! {
        pushed = client.push(Side::Client, &config) => {
            pushed?;
        }
        read = far.read_exact(&mut hello) => {
            read?;
        }
    }
    Ok(hello)
}

/// Dials, again and again, until it is over or was done so often.
fn dial_for(listener: &Listener, over: &AtomicUsize, most: usize) -> Outcome<Honest> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let identity = Identity::generate(KeyKind::Ed25519)?;
    let config = StackConfig::new(identity, Arc::new(Pinned::one(listener.id)));
    let at: Endpoint = format!("tcp:127.0.0.1:{}", listener.port).parse()?;
    let mut honest = Honest::default();
    runtime.block_on(async {
        while over.load(Ordering::Relaxed) == 0 && honest.waited.len() < most {
            let begun = Instant::now();
            loop {
                honest.attempts += 1;
                if let Ok(session) = Session::dial(&at, &config).await {
                    honest.waited.push(begun.elapsed().as_secs_f64());
                    session.close().await;
                    break;
                }
                if begun.elapsed() > PATIENCE {
                    honest.shut_out += 1;
                    break;
                }
                tokio::time::sleep(PAUSE).await;
            }
            tokio::time::sleep(PAUSE).await;
        }
    });
    Ok(honest)
}

/// The process that is attacked; killed when this is dropped.
struct Listener {
    child: Child,
    port: u16,
    id: PeerId,
}

impl Listener {
    fn start(doors: Doors) -> Outcome<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["handshake-listener", doors.word()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().ok_or("no output")?;
        let mut line = String::new();
        let read = BufReader::new(out).read_line(&mut line);
        let parsed = read.map_err(crate::Failure::from).and_then(|_| {
            let (port, id) = line.trim().split_once(' ').ok_or("no port was told")?;
            Ok((port.parse()?, id.parse()?))
        });
        match parsed {
            Ok((port, id)) => Ok(Self { child, port, id }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
