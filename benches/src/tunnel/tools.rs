//! The tunnels: each is two processes of ours on loopback, and a port here that leads to the server behind them.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::measure::is_installed;
use crate::ssh::Ssh;
use crate::tool::{self, Process};

/// How long a tunnel may take to stand.
const START: Duration = Duration::from_secs(20);

/// A tunnel that stands.
pub(super) struct Tunnel {
    pub(super) name: &'static str,
    /// Its port here.
    pub(super) local: SocketAddr,
    /// Its processes, whose descendants count as well.
    pub(super) processes: Vec<u32>,
    _ends: Ends,
}

/// Ended when they are dropped.
enum Ends {
    Tool { _ends: [Process; 2] },
    Ssh { _server: Box<Ssh>, _client: Ended },
    Others { _ends: [Ended; 2] },
}

/// A child that ends with this.
struct Ended(Child);

impl Ended {
    fn start(mut command: Command) -> Outcome<Self> {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null());
        Ok(Self(command.stderr(Stdio::null()).spawn()?))
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// All that can be had here; what is missing is said.
pub(super) fn all(cepa: &Path, folder: &Path, backend: SocketAddr) -> Outcome<Vec<Tunnel>> {
    let mut tunnels = vec![of_cepa(cepa, folder, backend)?];
    match of_ssh(folder, backend)? {
        Some(tunnel) => tunnels.push(tunnel),
        None => skipped("ssh", "openssh-server"),
    }
    let certificate = folder.join("tls.pem");
    fs::write(&certificate, certificate_and_key()?)?;
    if is_installed("socat") {
        tunnels.push(of_socat(&certificate, backend)?);
    } else {
        skipped("socat", "socat");
    }
    if is_installed("stunnel") {
        tunnels.push(of_stunnel(&certificate, folder, backend)?);
    } else {
        skipped("stunnel", "stunnel4");
    }
    for tunnel in &tunnels {
        wait_for(tunnel)?;
    }
    Ok(tunnels)
}

fn skipped(name: &str, package: &str) {
    eprintln!("cepa-bench: {name} SKIPPED: not installed (Debian: {package})");
}

fn wait_for(tunnel: &Tunnel) -> Outcome<()> {
    let begun = Instant::now();
    while TcpStream::connect(tunnel.local).is_err() {
        if begun.elapsed() > START {
            return Err(format!("{} does not listen", tunnel.name).into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A port that was ours a moment ago is nobody's.
fn free() -> Outcome<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn certificate_and_key() -> Outcome<String> {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])?;
    Ok(made.signing_key.serialize_pem() + &made.cert.pem())
}

fn of_cepa(cepa: &Path, folder: &Path, backend: SocketAddr) -> Outcome<Tunnel> {
    let (near, far) = (folder.join("near"), folder.join("far"));
    for home in [&near, &far] {
        fs::create_dir_all(home)?;
    }
    let (near_key, near_id) = tool::identity(cepa, &near, "key.pem")?;
    let (far_key, far_id) = tool::identity(cepa, &far, "key.pem")?;
    let service = format!("b=tcp:{backend}");
    let words = [
        "serve",
        "tcp:127.0.0.1:0",
        "--identity",
        &far_key,
        "--allow",
        &near_id,
        "--service",
        &service,
    ];
    let mut server = Process::start(tool::command(cepa, &far, &words.map(str::to_owned)))?;
    let at = server.listens()?;
    let words = [
        "forward",
        &at,
        "--identity",
        &near_key,
        "--expect",
        &far_id,
        "-L",
        "tcp:127.0.0.1:0=b",
    ];
    let mut client = Process::start(tool::command(cepa, &near, &words.map(str::to_owned)))?;
    let local = client.listens()?.trim_start_matches("tcp:").parse()?;
    Ok(Tunnel {
        name: "cepa",
        local,
        processes: vec![server.id(), client.id()],
        _ends: Ends::Tool {
            _ends: [server, client],
        },
    })
}

fn of_ssh(folder: &Path, backend: SocketAddr) -> Outcome<Option<Tunnel>> {
    let Some(server) = Ssh::start(&folder.join("ssh"))? else {
        return Ok(None);
    };
    let local = free()?;
    let mut command = Command::new("ssh");
    command
        .args(&server.options)
        .args(["-N", "-L", &format!("{local}:{backend}")])
        .args(["-p", &server.port.to_string(), "127.0.0.1"]);
    let client = Ended::start(command)?;
    Ok(Some(Tunnel {
        name: "ssh",
        local,
        processes: vec![server.id(), client.0.id()],
        _ends: Ends::Ssh {
            _server: Box::new(server),
            _client: client,
        },
    }))
}

/// With pieces as large as those of the others: its own 8 KiB are slower.
fn of_socat(certificate: &Path, backend: SocketAddr) -> Outcome<Tunnel> {
    let (between, local) = (free()?, free()?);
    let socat = |from: String, to: String| {
        let mut command = Command::new("socat");
        command.args(["-b", "65536", &from, &to]);
        Ended::start(command)
    };
    let listening = |at: SocketAddr| format!("{},bind=127.0.0.1,fork,reuseaddr,nodelay", at.port());
    let certificate = certificate.display();
    let server = socat(
        format!(
            "OPENSSL-LISTEN:{},cert={certificate},verify=0",
            listening(between)
        ),
        format!("TCP:{backend},nodelay"),
    )?;
    let client = socat(
        format!("TCP-LISTEN:{}", listening(local)),
        format!("OPENSSL:{between},verify=0,nodelay"),
    )?;
    Ok(of_two("socat", local, server, client))
}

fn of_stunnel(certificate: &Path, folder: &Path, backend: SocketAddr) -> Outcome<Tunnel> {
    let (between, local) = (free()?, free()?);
    let stunnel = |name: &str, client: &str, from: SocketAddr, to: SocketAddr| {
        let path = folder.join(name);
        let certificate = certificate.display();
        let text = format!(
            "foreground = yes\npid =\nsyslog = no\ndebug = 3\nsocket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1\n\
             [t]\nclient = {client}\naccept = {from}\nconnect = {to}\ncert = {certificate}\n"
        );
        fs::write(&path, text)?;
        let mut command = Command::new("stunnel");
        command.arg(path);
        Ended::start(command)
    };
    let server = stunnel("server.conf", "no", between, backend)?;
    let client = stunnel("client.conf", "yes", local, between)?;
    Ok(of_two("stunnel", local, server, client))
}

fn of_two(name: &'static str, local: SocketAddr, server: Ended, client: Ended) -> Tunnel {
    Tunnel {
        name,
        local,
        processes: vec![server.0.id(), client.0.id()],
        _ends: Ends::Others {
            _ends: [server, client],
        },
    }
}
