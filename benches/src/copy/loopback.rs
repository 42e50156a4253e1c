//! One file over loopback: `cepa cp` up and down, scp, rsync over ssh, and bytes through `cepa forward`.

use std::fs;
use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::pair::{FILE, Pair};
use crate::Outcome;
use crate::figure::COPY;
use crate::measure::{is_installed, median};
use crate::ssh::Ssh;
use crate::tool::Process;

/// Against scp and the tool's own forward.
const GOAL: f64 = 0.9;

const MIB: u64 = 1024 * 1024;

/// Seconds of each program, a value a round.
#[derive(Default)]
struct Seconds {
    up: Vec<f64>,
    down: Vec<f64>,
    forward: Vec<f64>,
    scp: Vec<f64>,
    rsync: Vec<f64>,
}

pub(super) async fn run(cepa: &Path, mib: u64, rounds: usize) -> Outcome<()> {
    let (cepa, bytes) = (cepa.to_owned(), mib * MIB);
    tokio::task::spawn_blocking(move || measure(&cepa, bytes, rounds)).await?
}

fn measure(cepa: &Path, bytes: u64, rounds: usize) -> Outcome<()> {
    let mut pair = Pair::new(cepa, bytes)?;
    let source = TcpListener::bind("127.0.0.1:0")?;
    let bulk = format!("bulk=tcp:{}", source.local_addr()?);
    let file = pair.path(FILE);
    std::thread::spawn(move || {
        for stream in source.incoming().flatten() {
            // Who leaves has seen enough.
            let _ = fs::File::open(&file).and_then(|mut it| std::io::copy(&mut it, &mut &stream));
        }
    });
    pair.serve("tcp:127.0.0.1:0", "", &[bulk])?;
    let mut forward =
        Process::start(pair.client(&["forward", "@board", "-L", "tcp:127.0.0.1:0=bulk"]))?;
    let local: SocketAddr = forward.listens()?.trim_start_matches("tcp:").parse()?;
    let ssh = Ssh::start(&pair.path("ssh"))?;
    let mut seconds = Seconds::default();
    for _ in 0..rounds {
        let started = Instant::now();
        let child = pair.begin()?;
        // Looking at it is not part of it.
        let status = wait(child)?;
        seconds.up.push(started.elapsed().as_secs_f64());
        if !status {
            return Err(fs::read_to_string(pair.path("said"))?.into());
        }
        seconds.down.push(down(&pair)?);
        pair.is_whole()?;
        seconds.forward.push(through(local, bytes)?);
        let Some(ssh) = &ssh else { continue };
        seconds.scp.push(timed(&pair, scp(&pair, ssh))?);
        if is_installed("rsync") {
            seconds.rsync.push(timed(&pair, rsync(&pair, ssh))?);
        }
    }
    report(&seconds)
}

fn report(seconds: &Seconds) -> Outcome<()> {
    let up = ratio(&seconds.forward, &seconds.up);
    COPY.at_least("up-to-forward", up, "x", GOAL)?;
    let down = ratio(&seconds.forward, &seconds.down);
    COPY.at_least("down-to-forward", down, "x", GOAL)?;
    if seconds.scp.is_empty() {
        println!("scp SKIPPED: no OpenSSH server could be started");
    } else {
        COPY.at_least("up-to-scp", ratio(&seconds.scp, &seconds.up), "x", GOAL)?;
        COPY.at_least("down-to-scp", ratio(&seconds.scp, &seconds.down), "x", GOAL)?;
    }
    if seconds.rsync.is_empty() {
        println!("rsync SKIPPED: not installed");
    } else {
        COPY.figure("up-to-rsync", ratio(&seconds.rsync, &seconds.up), "x")?;
    }
    Ok(())
}

/// How many times faster the second one is; the middle of the rounds.
fn ratio(theirs: &[f64], ours: &[f64]) -> f64 {
    let ratios: Vec<f64> = theirs.iter().zip(ours).map(|(a, b)| a / b).collect();
    median(&ratios)
}

fn wait(mut child: std::process::Child) -> Outcome<bool> {
    Ok(child.wait()?.success())
}

/// The copy comes back under another name.
fn down(pair: &Pair) -> Outcome<f64> {
    let back = pair.path("back");
    let text = back.display().to_string();
    let mut command = pair.client(&["cp", "-q", &format!("@board:up/{FILE}"), &text]);
    let started = Instant::now();
    let output = command.output()?;
    let took = started.elapsed().as_secs_f64();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let whole = fs::metadata(&back)?.len() == fs::metadata(pair.path(FILE))?.len();
    fs::remove_file(back)?;
    if whole {
        Ok(took)
    } else {
        Err("not all came back".into())
    }
}

fn through(local: SocketAddr, bytes: u64) -> Outcome<f64> {
    let started = Instant::now();
    let mut stream = TcpStream::connect(local)?;
    let (mut buffer, mut left) = (vec![0; 256 * 1024], bytes);
    while left > 0 {
        let n = stream.read(&mut buffer)?;
        if n == 0 {
            return Err("the forward ended early".into());
        }
        left = left.saturating_sub(u64::try_from(n)?);
    }
    Ok(started.elapsed().as_secs_f64())
}

fn scp(pair: &Pair, ssh: &Ssh) -> Command {
    let mut command = Command::new("scp");
    command
        .args(&ssh.options)
        .args(["-P", &ssh.port.to_string()])
        .arg(pair.path(FILE))
        .arg(format!("127.0.0.1:{}", pair.copy().display()));
    command
}

fn rsync(pair: &Pair, ssh: &Ssh) -> Command {
    let mut command = Command::new("rsync");
    let shell = format!("ssh -p {} {}", ssh.port, ssh.options.join(" "));
    command
        .args(["-W", "-e", &shell])
        .arg(pair.path(FILE))
        .arg(format!("127.0.0.1:{}", pair.copy().display()));
    command
}

/// Seconds of a copy by another program.
fn timed(pair: &Pair, mut command: Command) -> Outcome<f64> {
    let started = Instant::now();
    let output = command.stdin(Stdio::null()).output()?;
    let took = started.elapsed().as_secs_f64();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    pair.is_whole()?;
    Ok(took)
}
