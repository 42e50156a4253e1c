//! The tool's two processes with backends behind them, and a witness on their one session.
//!
//! `cepa serve` offers four services, `cepa forward` has a listener for each, all over one session: `echo`, `bulk` (bytes
//! without end), `down` (nobody listens there), and `shut` (accepts and closes at once). The backends are
//! tasks of this process. A witness has two connections of its own: one sends eight bytes every 50 ms and waits for
//! them, one downloads at a steady pace and notes how long it had to wait for the next piece. Both stay for the whole
//! run, so a session that was lost in between is seen.
//!
//! The test of the tool (`cli/tests/load.rs`) uses this file too.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub(crate) use crate::tool::{Failure, Outcome};
use crate::tool::{Process, command, configured, identity};

/// Services, in the order of the forward's listeners.
const SERVICES: [&str; 4] = ["echo", "bulk", "down", "shut"];

/// Between two rounds of the witness.
const BEAT: Duration = Duration::from_millis(50);

/// A download takes so much, then pauses: 3 MB/s, which loads neither end.
const PIECE: usize = 64 * 1024;
const SIP: Duration = Duration::from_millis(20);

/// The same, where it may have so many descriptors at most.
fn limited(limit: usize, cepa: &Path, home: &Path, words: &[String]) -> Command {
    let mut command = Command::new("sh");
    let script = format!("ulimit -n {limit}; exec \"$0\" \"$@\"");
    command.args(["-c", &script]).arg(cepa);
    configured(&mut command, home, words);
    command
}

/// Both processes, and where each service is reached.
pub(crate) struct Rig {
    serve: Process,
    forward: Process,
    /// Of [`SERVICES`].
    locals: Vec<SocketAddr>,
    backends: Vec<JoinHandle<()>>,
    _home: tempfile::TempDir,
}

impl Rig {
    /// Starts everything; the server may have so many descriptors, if that is said, and has these words more.
    pub(crate) fn start(cepa: &Path, descriptors: Option<usize>, more: &[&str]) -> Outcome<Self> {
        let home = tempfile::tempdir()?;
        let at = home.path();
        let (server, server_id) = identity(cepa, at, "server.pem")?;
        let (client, client_id) = identity(cepa, at, "client.pem")?;
        let [echo, bulk, shut] = [listener()?, listener()?, listener()?];
        // A port that was ours a moment ago is nobody's.
        let down = listener()?.local_addr()?;
        let mut words: Vec<String> = ["serve", "tcp:127.0.0.1:0", "--identity", &server]
            .map(str::to_owned)
            .into();
        words.extend(["--allow".to_owned(), client_id]);
        for (name, address) in [
            ("echo", echo.local_addr()?),
            ("bulk", bulk.local_addr()?),
            ("shut", shut.local_addr()?),
            ("down", down),
        ] {
            words.extend(["--service".to_owned(), format!("{name}=tcp:{address}")]);
        }
        words.extend(more.iter().map(|word| (*word).to_owned()));
        let mut serve = Process::start(match descriptors {
            None => command(cepa, at, &words),
            Some(limit) => limited(limit, cepa, at, &words),
        })?;
        let address = serve.listens()?;
        let mut words: Vec<String> = ["forward", &address, "--identity", &client]
            .map(str::to_owned)
            .into();
        words.extend(["--expect".to_owned(), server_id]);
        for name in SERVICES {
            words.extend(["-L".to_owned(), format!("tcp:127.0.0.1:0={name}")]);
        }
        let mut forward = Process::start(command(cepa, at, &words))?;
        let mut locals = Vec::new();
        for _ in SERVICES {
            let local = forward.listens()?;
            locals.push(local.trim_start_matches("tcp:").parse()?);
        }
        let backends = vec![
            tokio::spawn(each(echo, |stream| drop(tokio::spawn(echoes(stream))))),
            tokio::spawn(each(bulk, |stream| drop(tokio::spawn(pours(stream))))),
            tokio::spawn(each(shut, drop)),
        ];
        Ok(Self {
            serve,
            forward,
            locals,
            backends,
            _home: home,
        })
    }

    /// Where a service is reached.
    pub(crate) fn local(&self, service: &str) -> Outcome<SocketAddr> {
        let at = SERVICES.iter().position(|name| *name == service);
        let local = at.and_then(|at| self.locals.get(at));
        Ok(*local.ok_or("no such service")?)
    }

    /// The processes: the one that serves, and the one that forwards.
    pub(crate) fn pids(&self) -> [u32; 2] {
        [self.serve.id(), self.forward.id()]
    }

    /// Whether both still run.
    pub(crate) fn is_running(&mut self) -> bool {
        [&mut self.serve, &mut self.forward]
            .into_iter()
            .all(Process::is_running)
    }

    /// What both have said so far.
    pub(crate) fn said(&mut self) -> [&[String]; 2] {
        [self.serve.said(), self.forward.said()]
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for backend in &self.backends {
            backend.abort();
        }
    }
}

/// With a queue as long as the system allows: here a crowd comes at once.
fn listener() -> Outcome<TcpListener> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind("127.0.0.1:0".parse()?)?;
    Ok(socket.listen(4096)?)
}

async fn each(listener: TcpListener, serve: impl Fn(TcpStream)) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => serve(stream),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn echoes(mut stream: TcpStream) {
    let mut buffer = [0; 1024];
    while let Ok(n @ 1..) = stream.read(&mut buffer).await {
        let Some(read) = buffer.get(..n) else { return };
        if stream.write_all(read).await.is_err() {
            return;
        }
    }
}

async fn pours(mut stream: TcpStream) {
    let zeros = vec![0; PIECE];
    while stream.write_all(&zeros).await.is_ok() {}
}

/// What a witness has seen since it was last asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// How long each echo took, in milliseconds.
    pub(crate) echoes: Vec<f64>,
    /// Bytes of the download.
    pub(crate) bytes: usize,
    /// The longest wait for the next piece of it, in milliseconds.
    pub(crate) longest_wait: f64,
    /// What failed; it does not go on after that.
    pub(crate) failures: Vec<String>,
    /// The most resident memory of both processes, in bytes.
    pub(crate) memory: [f64; 2],
}

/// Two connections that stay.
pub(crate) struct Witness {
    seen: Arc<Mutex<Seen>>,
    since: Instant,
    tasks: Vec<JoinHandle<()>>,
    pids: [u32; 2],
}

impl Witness {
    pub(crate) async fn start(rig: &Rig) -> Outcome<Self> {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let echo = TcpStream::connect(rig.local("echo")?).await?;
        let bulk = TcpStream::connect(rig.local("bulk")?).await?;
        let pids = rig.pids();
        let tasks = vec![
            tokio::spawn(beat(echo, Arc::clone(&seen))),
            tokio::spawn(sip(bulk, Arc::clone(&seen))),
            tokio::spawn(weigh(pids, Arc::clone(&seen))),
        ];
        Ok(Self {
            seen,
            since: Instant::now(),
            tasks,
            pids,
        })
    }

    /// What was seen since the last time, and for how long.
    pub(crate) fn take(&mut self) -> (Seen, Duration) {
        let seen = std::mem::take(&mut *lock(&self.seen));
        weigh_once(self.pids, &self.seen);
        let since = std::mem::replace(&mut self.since, Instant::now());
        (seen, since.elapsed())
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn beat(mut stream: TcpStream, seen: Arc<Mutex<Seen>>) {
    let mut count = 0_u64;
    loop {
        tokio::time::sleep(BEAT).await;
        count += 1;
        let since = Instant::now();
        let round = round(&mut stream, count).await;
        let took = since.elapsed().as_secs_f64() * 1e3;
        let mut seen = lock(&seen);
        match round {
            Ok(()) => seen.echoes.push(took),
            Err(e) => {
                seen.failures.push(format!("echo of the witness: {e}"));
                return;
            }
        }
    }
}

/// Eight bytes there and back.
pub(crate) async fn round(stream: &mut TcpStream, count: u64) -> Outcome<()> {
    let mut back = [0; 8];
    stream.write_all(&count.to_be_bytes()).await?;
    stream.read_exact(&mut back).await?;
    if back != count.to_be_bytes() {
        return Err("other bytes came back".into());
    }
    Ok(())
}

async fn sip(mut stream: TcpStream, seen: Arc<Mutex<Seen>>) {
    let mut piece = vec![0; PIECE];
    loop {
        tokio::time::sleep(SIP).await;
        let since = Instant::now();
        let read = stream.read_exact(&mut piece).await;
        let took = since.elapsed().as_secs_f64() * 1e3;
        let mut seen = lock(&seen);
        match read {
            Ok(n) => {
                seen.bytes += n;
                seen.longest_wait = seen.longest_wait.max(took);
            }
            Err(e) => {
                seen.failures.push(format!("download of the witness: {e}"));
                return;
            }
        }
    }
}

async fn weigh(pids: [u32; 2], seen: Arc<Mutex<Seen>>) {
    loop {
        weigh_once(pids, &seen);
        tokio::time::sleep(2 * BEAT).await;
    }
}

fn weigh_once(pids: [u32; 2], seen: &Mutex<Seen>) {
    let memory = pids.map(|pid| resident(pid).unwrap_or(f64::NAN));
    let mut seen = lock(seen);
    for (most, now) in seen.memory.iter_mut().zip(memory) {
        *most = most.max(now);
    }
}

/// VmRSS of proc(5), in bytes.
fn resident(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib = line.trim().strip_suffix("kB")?.trim();
    Some(kib.parse::<f64>().ok()? * 1024.0)
}
