//! An etcd for tests and benches: started on loopback at ports that were free a moment ago, with a data folder of its own, ended with
//! its handle. Never the one that a package of the system may run.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Longest time for an etcd to answer after its start, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program, if this machine has it.
#[must_use]
pub fn program() -> Option<PathBuf> {
    let folders = ["/usr/bin", "/usr/sbin", "/usr/local/bin"];
    let found = folders.map(|folder| Path::new(folder).join("etcd"));
    found.into_iter().find(|path| path.is_file())
}

/// One or several members that run.
#[derive(Debug)]
pub struct Etcd {
    members: Vec<Member>,
    folder: tempfile::TempDir,
}

#[derive(Debug)]
struct Member {
    command: Vec<String>,
    port: u16,
    log: PathBuf,
    /// So much of the log is of former processes.
    said: usize,
    child: Option<Child>,
}

impl Etcd {
    /// One, alone.
    ///
    /// # Errors
    /// It is not installed, or does not answer.
    pub fn start() -> io::Result<Self> {
        Self::with(1, "http", &[])
    }

    /// So many as one cluster, which clients reach by this scheme, each with more options.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn with(members: usize, scheme: &str, options: &[&str]) -> io::Result<Self> {
        let program = program().ok_or(io::ErrorKind::NotFound)?;
        // The ports are others', a moment later: then another set is tried.
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..3 {
            match Self::once(&program, members, scheme, options) {
                Ok(etcd) => return Ok(etcd),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn once(program: &Path, members: usize, scheme: &str, options: &[&str]) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let bound = (0..2 * members).map(|_| TcpListener::bind("127.0.0.1:0"));
        let bound = bound.collect::<io::Result<Vec<_>>>()?;
        let ports = bound.iter().map(|it| Ok(it.local_addr()?.port()));
        let ports = ports.collect::<io::Result<Vec<_>>>()?;
        drop(bound);
        let pairs: Vec<_> = ports.chunks_exact(2).map(|it| (it[0], it[1])).collect();
        let cluster: Vec<_> = pairs
            .iter()
            .enumerate()
            .map(|(n, (_, peer))| format!("m{n}=http://127.0.0.1:{peer}"))
            .collect();
        let cluster = cluster.join(",");
        let all = pairs.iter().enumerate().map(|(n, (port, peer))| {
            let data = folder.path().join(format!("m{n}"));
            let client = format!("{scheme}://127.0.0.1:{port}");
            let peer = format!("http://127.0.0.1:{peer}");
            let mut command = vec![program.display().to_string()];
            for (option, value) in [
                ("--name", format!("m{n}")),
                ("--data-dir", data.display().to_string()),
                ("--listen-client-urls", client.clone()),
                ("--advertise-client-urls", client),
                ("--listen-peer-urls", peer.clone()),
                ("--initial-advertise-peer-urls", peer),
                ("--initial-cluster", cluster.clone()),
                ("--logger", "zap".to_owned()),
                ("--log-outputs", "stderr".to_owned()),
            ] {
                command.extend([option.to_owned(), value]);
            }
            command.extend(options.iter().map(|&it| it.to_owned()));
            Member {
                command,
                port: *port,
                log: folder.path().join(format!("m{n}.log")),
                said: 0,
                child: None,
            }
        });
        let members = all.collect();
        let mut etcd = Self { members, folder };
        for n in 0..etcd.members.len() {
            etcd.spawn(n)?;
        }
        for n in 0..etcd.members.len() {
            etcd.wait(n)?;
        }
        Ok(etcd)
    }

    fn spawn(&mut self, n: usize) -> io::Result<()> {
        let member = self.member(n)?;
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&member.log)?;
        let before = log.metadata()?.len();
        member.said = usize::try_from(before).unwrap_or(usize::MAX);
        let mut command = Command::new(&member.command[0]);
        command
            .args(&member.command[1..])
            .env_clear()
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        member.child = Some(command.spawn()?);
        Ok(())
    }

    /// Until it is one of its cluster, which has a leader: one that is killed before that may never be one again.
    fn wait(&mut self, n: usize) -> io::Result<()> {
        let member = self.member(n)?;
        let start = Instant::now();
        loop {
            let said = fs::read(&member.log).unwrap_or_default();
            let said = String::from_utf8_lossy(said.get(member.said..).unwrap_or_default());
            let listens = || TcpStream::connect(("127.0.0.1", member.port)).is_ok();
            if said.contains("published local member") && listens() {
                return Ok(());
            }
            let ended = member.child.as_mut().map(Child::try_wait).transpose()?;
            if ended.flatten().is_some() || start.elapsed() > PATIENCE {
                return Err(io::Error::other(format!("etcd does not answer: {said}")));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn member(&mut self, n: usize) -> io::Result<&mut Member> {
        self.members
            .get_mut(n)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// 127.0.0.1:PORT of each member, with commas between.
    #[must_use]
    pub fn hosts(&self) -> String {
        let all = self
            .members
            .iter()
            .map(|it| format!("127.0.0.1:{}", it.port));
        all.collect::<Vec<_>>().join(",")
    }

    /// 127.0.0.1:PORT of one.
    #[must_use]
    pub fn endpoint(&self, n: usize) -> String {
        let port = self.members.get(n).map_or(0, |it| it.port);
        format!("127.0.0.1:{port}")
    }

    /// Where its data is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self, n: usize) -> Option<u32> {
        Some(self.members.get(n)?.child.as_ref()?.id())
    }

    /// As `kill -9` does.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&mut self, n: usize) -> io::Result<()> {
        let child = self.member(n)?.child.take();
        let mut child = child.ok_or(io::ErrorKind::NotFound)?;
        child.kill()?;
        child.wait().map(|_| ())
    }

    /// With the data that it had, without waiting for it: one of several alone does not answer.
    ///
    /// # Errors
    /// It does not start.
    pub fn spawn_again(&mut self, n: usize) -> io::Result<()> {
        self.spawn(n)
    }

    /// With the data that it had.
    ///
    /// # Errors
    /// It does not answer.
    pub fn start_again(&mut self, n: usize) -> io::Result<()> {
        self.spawn(n)?;
        self.wait(n)
    }

    /// Runs etcdctl at its first member; what it printed.
    ///
    /// # Errors
    /// It is not installed, or fails.
    pub fn ctl<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> io::Result<String> {
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &self.endpoint(0)])
            .args(arguments)
            .output()?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            Ok(printed)
        } else {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            Err(io::Error::other(printed + &why))
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for child in self.members.iter_mut().filter_map(|it| it.child.as_mut()) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
