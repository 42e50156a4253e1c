//! The victims: one end of plain yamux over loopback TCP, in a process of its own, so that its memory is its own.
//!
//! A victim is a command that takes `hold|discard|drop PORT`, as cepa's example `mux_victim` does, and speaks as that
//! one does: `ready` and `port N` on stdout, and on stderr `stream total BYTES end=clean EOF` or
//! `stream total BYTES end=ERR reason` for each stream. Those here also say `session end=…` there, once nothing more is taken. What else comes on stderr is its log. [`Victim`] starts one
//! and watches it; [`serve`] is cepa, and the rivals that are written in Rust, as such a command.

use std::future::poll_fn;
use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use cepa::Side;
use cepa::mux::{self, StreamTimeouts};
use clap::{Args, ValueEnum};
use futures::StreamExt;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::compat::{FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};

use crate::Outcome;

/// A victim that has grown by so much is not attacked any further.
pub(super) const TOO_LARGE: u64 = 2 << 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Cepa,
    Yamux,
    TokioYamux,
}

/// What a victim does with the streams that it accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Keeps them and reads nothing until the session is over
    Hold,
    /// Reads them to their ends
    Discard,
    /// Drops them at once
    Drop,
}

impl Mode {
    fn word(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Discard => "discard",
            Self::Drop => "drop",
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct Options {
    kind: Kind,
    mode: Mode,
    /// 0: a free one
    port: u16,
}

// ---- the process, from outside ------------------------------------------------------------------

/// How one stream of a victim ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StreamEnd {
    pub(super) total: u64,
    pub(super) clean: bool,
}

/// `stream total BYTES end=…`
pub(super) fn stream_end(line: &str) -> Option<StreamEnd> {
    let (total, end) = line.strip_prefix("stream total ")?.split_once(" end=")?;
    Some(StreamEnd {
        total: total.parse().ok()?,
        clean: end == "clean EOF",
    })
}

/// What is known of an attack while it goes on.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Bytes that the attacker has sent.
    pub(super) sent: AtomicU64,
    /// The victim has grown by [`TOO_LARGE`].
    pub(super) too_large: AtomicBool,
    /// When the victim ended the session, and how much had been sent then, what lay in sockets included.
    pub(super) ended: OnceLock<(Instant, u64)>,
    /// Nobody asks any more.
    over: AtomicBool,
}

#[derive(Debug, Default)]
struct Observed {
    ends: Vec<StreamEnd>,
    logged: u64,
}

pub(super) struct Victim {
    child: Child,
    pub(super) port: u16,
    observed: Arc<Mutex<Observed>>,
    before: u64,
    pub(super) progress: Arc<Progress>,
}

impl Victim {
    pub(super) fn start(command: &[String], mode: Mode) -> Outcome<Self> {
        let (program, words) = command.split_first().ok_or("an empty command")?;
        let mut child = Command::new(program)
            .args(words)
            .args([mode.word(), "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{program}: {error}"))?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("no stdout")?).lines();
        let mut line = || lines.next().unwrap_or_else(|| Ok(String::new()));
        if line()? != "ready" {
            return Err(format!("{program} did not say `ready`").into());
        }
        let port = line()?;
        let port = port.strip_prefix("port ").unwrap_or_default().parse()?;
        let observed: Arc<Mutex<Observed>> = Arc::default();
        let stderr = child.stderr.take().ok_or("no stderr")?;
        let progress = Arc::<Progress>::default();
        let (into, of) = (Arc::clone(&observed), Arc::clone(&progress));
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut observed = lock(&into);
                match stream_end(&line) {
                    Some(end) => observed.ends.push(end),
                    None if line.starts_with("session end=") => {
                        of.ended
                            .get_or_init(|| (Instant::now(), of.sent.load(Ordering::Relaxed)));
                    }
                    None => observed.logged += 1,
                }
            }
        });
        let before = memory(child.id(), "VmHWM:")?;
        let (id, of) = (child.id(), Arc::clone(&progress));
        thread::spawn(move || {
            while !of.over.load(Ordering::Relaxed) {
                if memory(id, "VmRSS:").unwrap_or(0) > before + TOO_LARGE {
                    of.too_large.store(true, Ordering::Relaxed);
                }
                thread::sleep(Duration::from_millis(20));
            }
        });
        Ok(Self {
            child,
            port,
            observed,
            before,
            progress,
        })
    }

    /// By how many bytes its resident memory was larger than at the beginning, at the most.
    pub(super) fn grown(&self) -> Outcome<u64> {
        Ok(memory(self.child.id(), "VmHWM:")?.saturating_sub(self.before))
    }

    /// How its streams ended, once it has told of `count` of them, or was given the time.
    pub(super) fn ends(&self, count: usize, limit: Duration) -> Vec<StreamEnd> {
        let begun = Instant::now();
        loop {
            let ends = lock(&self.observed).ends.clone();
            if ends.len() >= count || begun.elapsed() > limit {
                return ends;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Lines that it has logged.
    pub(super) fn logged(&self) -> u64 {
        lock(&self.observed).logged
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.progress.over.store(true, Ordering::Relaxed);
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lock(observed: &Mutex<Observed>) -> std::sync::MutexGuard<'_, Observed> {
    observed.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A line of `/proc/PID/status`, in bytes.
fn memory(process: u32, what: &str) -> Outcome<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(what));
    let kib: u64 = line
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .ok_or("no such line in its status")?
        .trim()
        .parse()?;
    Ok(kib << 10)
}

// ---- the process, from inside -------------------------------------------------------------------

/// Is a victim until it is killed.
pub(crate) fn serve(options: &Options) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port)).await?;
        println!("ready");
        println!("port {}", listener.local_addr()?.port());
        std::io::stdout().flush()?;
        loop {
            let (connection, _) = listener.accept().await?;
            let mode = options.mode;
            match options.kind {
                Kind::Cepa => tokio::spawn(cepa(mode, connection)),
                Kind::Yamux => tokio::spawn(yamux(mode, connection)),
                Kind::TokioYamux => tokio::spawn(tokio_yamux(mode, connection)),
            };
        }
    })
}

/// The streams of one session.
struct Streams<S> {
    mode: Mode,
    held: Vec<S>,
    reading: JoinSet<()>,
}

impl<S: AsyncRead + Unpin + Send + 'static> Streams<S> {
    fn new(mode: Mode) -> Self {
        Self {
            mode,
            held: Vec::new(),
            reading: JoinSet::new(),
        }
    }

    fn add(&mut self, stream: S) {
        match self.mode {
            Mode::Hold => self.held.push(stream),
            Mode::Discard => {
                self.reading.spawn(read(stream));
            }
            Mode::Drop => eprintln!("stream total 0 end=ERR dropped here"),
        }
        while self.reading.try_join_next().is_some() {}
    }

    /// The session is over.
    async fn over(self, end: Result<(), String>) {
        match end {
            Ok(()) => eprintln!("session end=clean"),
            Err(reason) => eprintln!("session end=ERR {reason}"),
        }
        for stream in self.held {
            read(stream).await;
        }
        self.reading.join_all().await;
    }
}

async fn read(mut stream: impl AsyncRead + Unpin) {
    let (mut total, mut block) = (0, vec![0; 16 << 10]);
    loop {
        match stream.read(&mut block).await {
            Ok(0) => break eprintln!("stream total {total} end=clean EOF"),
            Ok(n) => total += n,
            Err(error) => break eprintln!("stream total {total} end=ERR {error}"),
        }
    }
}

async fn cepa(mode: Mode, connection: TcpStream) {
    let mut config = mux::Config::default();
    // What ends a stream here shall be the attack.
    config.stream_timeouts = StreamTimeouts::NONE;
    let (session, driver) = mux::mux(connection, Side::Server, config);
    tokio::spawn(driver);
    let mut streams = Streams::new(mode);
    let end = loop {
        match session.accept().await {
            Ok(stream) => streams.add(stream),
            Err(end) if end.is_clean() => break Ok(()),
            Err(end) => break Err(end.to_string()),
        }
    };
    streams.over(end).await;
}

async fn yamux(mode: Mode, connection: TcpStream) {
    let (connection, config) = (connection.compat(), yamux::Config::default());
    let mut session = yamux::Connection::new(connection, config, yamux::Mode::Server);
    let mut streams = Streams::new(mode);
    let end = loop {
        match poll_fn(|cx| session.poll_next_inbound(cx)).await {
            Some(Ok(stream)) => streams.add(stream.compat()),
            Some(Err(error)) => break Err(error.to_string()),
            None => break Ok(()),
        }
    };
    // As a program would: what is over is let go.
    drop(session);
    streams.over(end).await;
}

async fn tokio_yamux(mode: Mode, connection: TcpStream) {
    let config = tokio_yamux::Config::default();
    let mut session = Box::pin(tokio_yamux::Session::new_server(connection, config));
    let mut streams = Streams::new(mode);
    let end = loop {
        match session.next().await {
            Some(Ok(stream)) => streams.add(stream),
            Some(Err(error)) => break Err(error.to_string()),
            None => break Ok(()),
        }
    };
    drop(session);
    streams.over(end).await;
}
