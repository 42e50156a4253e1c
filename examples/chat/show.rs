//! A server and three clients, each a process of its own; and the search of their memory.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::process::Stdio;

use cepa::identity::{Identity, KeyKind};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::Outcome;

/// Long enough to be found where it is, and nowhere by chance.
const BOB: &str = "bartholomew";

struct Process {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(words: &[&str]) -> Outcome<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdin = child.stdin.take().ok_or("no stdin")?;
        let stdout = child.stdout.take().ok_or("no stdout")?;
        let lines = BufReader::new(stdout).lines();
        Ok(Self {
            child,
            stdin,
            lines,
        })
    }

    async fn line(&mut self) -> Outcome<String> {
        let line = self.lines.next_line().await?;
        Ok(line.ok_or("a process has ended")?)
    }

    /// Shows its lines up to this one.
    async fn until(&mut self, end: &str) -> Outcome<()> {
        loop {
            let line = self.line().await?;
            println!("{line}");
            if line.ends_with(end) {
                return Ok(());
            }
        }
    }

    fn remembers(&self, what: &str) -> Outcome<bool> {
        searched(self.child.id().ok_or("it has ended")?, what)
    }

    async fn end(self) -> Outcome<()> {
        let Self {
            mut child,
            stdin,
            lines,
        } = self;
        drop((stdin, lines));
        let status = child.wait().await?;
        if status.success() {
            Ok(())
        } else {
            Err(status.to_string().into())
        }
    }
}

pub(crate) async fn run() -> Outcome<()> {
    let mut server = Process::start(&["server", "tcp:127.0.0.1:0"])?;
    let address = server.line().await?;
    let mut ann = Process::start(&["client", "ann", &address, "tcp:127.0.0.1:0"])?;
    ann.until("ready").await?;
    let mut bob = Process::start(&["client", BOB, &address])?;
    bob.until("ready").await?;
    let mut cat = Process::start(&["client", "cat", &address])?;
    cat.until("ready").await?;

    // Something that nobody else has ever said.
    let line = format!("psst: {}", Identity::generate(KeyKind::Ed25519)?.peer_id());
    bob.stdin.write_all(format!("{line}\n").as_bytes()).await?;
    for client in [&mut ann, &mut cat] {
        let heard = client.line().await?;
        println!("{}", heard.replace(&line, "…"));
        if !heard.ends_with(&line) {
            return Err("that is not what was said".into());
        }
    }
    println!(
        "the line is in a client's memory: {}",
        cat.remembers(&line)?
    );
    // It knows who is there, so this is no search that finds nothing.
    println!(
        "{BOB} is in the server's memory: {}",
        server.remembers(BOB)?
    );
    println!(
        "the line is in the server's memory: {}",
        server.remembers(&line)?
    );
    for process in [cat, bob, ann, server] {
        process.end().await?;
    }
    Ok(())
}

/// Whether something stands anywhere in what a process of ours may write to (proc(5); Linux).
fn searched(process: u32, what: &str) -> Outcome<bool> {
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps"))?;
    let mut memory = File::open(format!("/proc/{process}/mem"))?;
    for map in maps.lines().filter(|line| line.contains(" rw")) {
        let range = map.split(' ').next().unwrap_or_default();
        let (from, to) = range.split_once('-').ok_or("no range")?;
        let (from, to) = (u64::from_str_radix(from, 16)?, u64::from_str_radix(to, 16)?);
        memory.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        // A part that can't be read (a guard page) can't be written to either.
        let _ = (&mut memory).take(to - from).read_to_end(&mut bytes);
        if String::from_utf8_lossy(&bytes).contains(what) {
            return Ok(true);
        }
    }
    Ok(false)
}
