//! An OpenSSH server on loopback, with keys made for it.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Outcome;

/// Where Debian and others have it; a user's PATH has not.
const SSHD: &str = "/usr/sbin/sshd";

/// How long it may take to listen.
const START: Duration = Duration::from_secs(10);

pub(crate) struct Ssh {
    server: Child,
    /// Options of `ssh` and `scp` that lead to it.
    pub(crate) options: Vec<String>,
    pub(crate) port: u16,
}

impl Ssh {
    /// Nothing where OpenSSH's server is not installed, or not allowed to run.
    pub(crate) fn start(folder: &Path) -> Outcome<Option<Self>> {
        if !Path::new(SSHD).exists() {
            return Ok(None);
        }
        fs::create_dir_all(folder)?;
        // What a service manager makes before it starts sshd; not ours to make unless we are root.
        let _ = fs::create_dir("/run/sshd");
        let [host, user] = [key(folder, "host")?, key(folder, "user")?];
        fs::copy(folder.join("user.pub"), folder.join("authorized"))?;
        // A port that was ours a moment ago is nobody's.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let said = fs::File::create(folder.join("sshd.log"))?;
        let server = Command::new(SSHD)
            .args(["-D", "-e", "-f", "/dev/null", "-p", &port.to_string(), "-h"])
            .arg(&host)
            .args(["-o", "ListenAddress=127.0.0.1", "-o", "StrictModes=no"])
            .args(["-o", "PidFile=none", "-o", "Subsystem=sftp internal-sftp"])
            .arg("-o")
            .arg(format!(
                "AuthorizedKeysFile={}",
                folder.join("authorized").display()
            ))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said)
            .spawn()?;
        let mut ssh = Self {
            server,
            options: vec!["-q".to_owned(), "-i".to_owned(), user.display().to_string()],
            port,
        };
        for option in [
            "BatchMode=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
        ] {
            ssh.options.extend(["-o".to_owned(), option.to_owned()]);
        }
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if ssh.server.try_wait()?.is_some() || started.elapsed() > START {
                let why = fs::read_to_string(folder.join("sshd.log"))?;
                eprintln!("cepa-bench: sshd does not run: {}", why.trim());
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Some(ssh))
    }
}

impl Ssh {
    pub(crate) fn id(&self) -> u32 {
        self.server.id()
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn key(folder: &Path, name: &str) -> Outcome<PathBuf> {
    let path = folder.join(name);
    let status = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&path)
        .status()?;
    if status.success() {
        Ok(path)
    } else {
        Err("ssh-keygen failed".into())
    }
}
