//! Other programs on the way of a `ws:`: nginx in front of a listener; and what carries a TCP connection over a WebSocket, websocat beside
//! `cepa pipe`.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cepa::transports::{Endpoint, Listener, Stream, dial, listen};

use crate::Outcome;
use crate::measure::Run;
use crate::one_way;

/// How long a program may take to listen.
const START: Duration = Duration::from_secs(10);

/// A program, and the port of this machine at which it answers.
pub(super) struct Program {
    child: Child,
    pub(super) port: u16,
}

impl Program {
    fn start(mut command: Command, port: u16) -> Outcome<Self> {
        let silent = || Stdio::null();
        let child = command.stdin(silent()).stdout(silent()).stderr(silent());
        let mut it = Self {
            child: child.spawn()?,
            port,
        };
        let started = Instant::now();
        // Not by a connection, which a tunnel would carry on.
        while TcpListener::bind(("127.0.0.1", port)).is_ok() {
            if it.child.try_wait()?.is_some() || started.elapsed() > START {
                return Err(format!("{command:?} does not listen").into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(it)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // nginx ends its worker when it is told to, and not when it is killed.
        let id = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &id]).status();
        let asked = Instant::now();
        while asked.elapsed() < START {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program by its name, where it is installed; else that is said.
pub(super) fn have(name: &str, without: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    let found = folders.map(|it| it.join(name)).find(|it| it.is_file());
    if found.is_none() {
        eprintln!("cepa-bench: SKIPPED: no {name} here, so no {without}");
    }
    found
}

/// A port that was ours a moment ago is nobody's.
fn free_port() -> Outcome<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// nginx in front of a listener at a port, as docs/ADDRESSES.md has it.
pub(super) fn nginx(program: &Path, folder: &Path, behind: u16) -> Outcome<Program> {
    let (port, folder) = (free_port()?, folder.display());
    let config = format!(
        "daemon off; pid {folder}/pid; error_log stderr; worker_processes 1;\n\
         events {{ worker_connections 64; }}\n\
         http {{ access_log off; client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2;\n\
         fastcgi_temp_path {folder}/t3; uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;\n\
         server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{behind};\n\
         proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;\n\
         proxy_set_header Connection upgrade; proxy_read_timeout 1h; }} }} }}\n"
    );
    let folder = folder.to_string();
    let file = format!("{folder}/nginx.conf");
    fs::write(&file, config)?;
    let mut command = Command::new(program);
    command.args(["-p", &folder, "-c", &file]);
    Program::start(command, port)
}

/// What takes TCP connections, and carries each over a WebSocket to that port.
pub(super) fn tunnel(program: &Path, is_ours: bool, to: u16) -> Outcome<Program> {
    let port = free_port()?;
    let mut command = Command::new(program);
    if is_ours {
        let [from, to] = [
            format!("tcp:127.0.0.1:{port}"),
            format!("ws:127.0.0.1:{to}/"),
        ];
        command.args(["pipe", "--listen", &from, &to]);
    } else {
        let [from, to] = [
            format!("tcp-listen:127.0.0.1:{port}"),
            format!("ws://127.0.0.1:{to}/"),
        ];
        command.args(["--binary", "-B", "65536", &from, &to]);
    }
    Program::start(command, port)
}

/// A listener of a carrier, and its port.
pub(super) async fn listener(at: &str) -> Outcome<(Listener, u16)> {
    let at: Endpoint = at.parse()?;
    let listener = listen(&at).await?;
    let text = listener.endpoint().to_string();
    let port = text
        .split(':')
        .nth(2)
        .map(|rest| rest.split(['/', ',']).next());
    let port = port.flatten().ok_or("no port")?.parse()?;
    Ok((listener, port))
}

/// So many bytes from one address to a listener, without a session, up to the byte that says they have come.
pub(super) async fn bare(listener: &mut Listener, to: &str, bytes: u64) -> Outcome<Run> {
    let to: Endpoint = to.parse()?;
    let (out, into) = tokio::join!(dial(&to), listener.accept());
    let (out, into): (Stream, Stream) = (out?, into?.ok_or("nobody came")?);
    one_way::bulk((out, into), bytes).await
}
