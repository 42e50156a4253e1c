//! What cannot be dialled or listened on says so in one line: what, why, and what to do.
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use cepa_transports::{Endpoint, TransportError, TransportErrorKind as Kind, dial, listen};

fn endpoint(text: &str) -> Endpoint {
    text.parse().unwrap_or_else(|e| panic!("{e}"))
}

/// One line that names the address and holds all the parts.
fn check(error: &TransportError, address: &str, kind: Kind, parts: &[&str]) {
    let line = error.to_string();
    assert_eq!(error.kind(), kind, "{line}");
    assert_eq!(line.lines().count(), 1, "{line}");
    assert!(line.contains(&endpoint(address).to_string()), "{line}");
    for part in parts {
        assert!(line.contains(part), "{part:?} is missing in: {line}");
    }
}

async fn dial_fails(address: &str, kind: Kind, parts: &[&str]) {
    let error = dial(&endpoint(address)).await.expect_err(address);
    check(&error, address, kind, parts);
    assert!(error.to_string().starts_with("cannot dial "), "{error}");
}

async fn listen_fails(address: &str, kind: Kind, parts: &[&str]) {
    let error = listen(&endpoint(address)).await.expect_err(address);
    check(&error, address, kind, parts);
    assert!(
        error.to_string().starts_with("cannot listen on "),
        "{error}"
    );
}

fn path(dir: &Path, name: &str) -> String {
    dir.join(name).display().to_string()
}

/// Root may do what permissions forbid.
fn root() -> bool {
    rustix::process::geteuid().is_root()
}

#[tokio::test]
async fn tcp() {
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let refused = format!("tcp:127.0.0.1:{free}");
    dial_fails(
        &refused,
        Kind::Refused,
        &["connection refused", "is anything listening"],
    )
    .await;
    // All addresses of a name are tried and told.
    let named = format!("tcp:localhost:{free}");
    dial_fails(
        &named,
        Kind::Refused,
        &[&format!("127.0.0.1:{free}: connection refused")],
    )
    .await;
    let unknown = "tcp:no-such-host.invalid:1";
    dial_fails(
        unknown,
        Kind::NotFound,
        &["no-such-host.invalid", "check the name"],
    )
    .await;

    let listener = listen(&endpoint("tcp:127.0.0.1:0")).await.unwrap();
    let taken = listener.endpoint().to_string();
    assert_ne!(taken, "tcp:127.0.0.1:0", "the real port is told");
    listen_fails(&taken, Kind::AddressInUse, &["in use", "another port"]).await;
    // An address of the documentation block, which no machine has.
    listen_fails(
        "tcp:192.0.2.1:0",
        Kind::Invalid,
        &["not one of this machine"],
    )
    .await;
    if !root() {
        listen_fails("tcp:127.0.0.1:1", Kind::PermissionDenied, &["below 1024"]).await;
    }
}

#[tokio::test]
async fn unix() {
    let dir = tempfile::tempdir().unwrap();
    let missing = format!("unix:{}", path(dir.path(), "missing"));
    dial_fails(
        &missing,
        Kind::NotFound,
        &["no such socket", "start the server"],
    )
    .await;

    let file = path(dir.path(), "file");
    std::fs::write(&file, "precious").unwrap();
    let at_file = format!("unix:{file}");
    dial_fails(&at_file, Kind::Invalid, &["is not a socket"]).await;
    listen_fails(&at_file, Kind::AddressInUse, &["other than a socket"]).await;
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");

    let stale = path(dir.path(), "stale");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    dial_fails(&format!("unix:{stale}"), Kind::Refused, &["nobody answers"]).await;

    let live = listen(&endpoint(&format!("unix:{}", path(dir.path(), "live"))))
        .await
        .unwrap();
    listen_fails(
        &live.endpoint().to_string(),
        Kind::AddressInUse,
        &["already listens there"],
    )
    .await;

    let nowhere = format!("unix:{}", path(dir.path(), "no/where"));
    listen_fails(&nowhere, Kind::NotFound, &["directory"]).await;
    let long = format!("unix:{}", path(dir.path(), &"x".repeat(200)));
    listen_fails(&long, Kind::Invalid, &["shorten"]).await;
    listen_fails(
        &format!("unix:{}/", dir.path().display()),
        Kind::Invalid,
        &["directory"],
    )
    .await;
    if !root() {
        let closed = dir.path().join("closed");
        std::fs::create_dir(&closed).unwrap();
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o000)).unwrap();
        let inside = format!("unix:{}", path(&closed, "x"));
        dial_fails(&inside, Kind::PermissionDenied, &["permission denied"]).await;
        listen_fails(&inside, Kind::PermissionDenied, &["may write to"]).await;
    }
}

#[tokio::test]
async fn ssh_is_only_dialled() {
    listen_fails("ssh:host", Kind::Invalid, &["only be dialled", "stdio:"]).await;
}

#[tokio::test]
async fn exec() {
    let dir = tempfile::tempdir().unwrap();
    let unknown = "exec:no-such-command-of-cepa a b";
    dial_fails(
        unknown,
        Kind::NotFound,
        &["command not found: no-such-command", "install it"],
    )
    .await;
    let missing = format!("exec:{}", path(dir.path(), "missing"));
    dial_fails(&missing, Kind::NotFound, &["there is no file"]).await;
    let file = path(dir.path(), "file");
    std::fs::write(&file, "no program").unwrap();
    dial_fails(
        &format!("exec:{file}"),
        Kind::PermissionDenied,
        &["executed", "chmod"],
    )
    .await;
    dial_fails(
        "exec:cat,dir=/no/such/directory",
        Kind::NotFound,
        &["/no/such/directory"],
    )
    .await;
    dial_fails(
        &format!("exec:cat,dir={file}"),
        Kind::Invalid,
        &["not a directory"],
    )
    .await;
    let lines = "exec:no-such-command-of-cepa 'two\nlines'";
    let line = dial(&endpoint(lines)).await.unwrap_err().to_string();
    assert_eq!(line.lines().count(), 1, "{line}");
    listen_fails(unknown, Kind::NotFound, &["command not found"]).await;
}

#[tokio::test]
async fn memory() {
    dial_fails(
        "memory:nobody",
        Kind::Refused,
        &["nothing in this process listens"],
    )
    .await;
    let listener = listen(&endpoint("memory:once")).await.unwrap();
    listen_fails("memory:once", Kind::AddressInUse, &["another name"]).await;
    drop(listener);
    dial_fails(
        "memory:once",
        Kind::Refused,
        &["nothing in this process listens"],
    )
    .await;
    listen(&endpoint("memory:once")).await.unwrap();
}

#[tokio::test]
async fn fd() {
    dial_fails("fd:987", Kind::NotFound, &["descriptor 987 is not open"]).await;
    dial_fails(
        "fd:987,988",
        Kind::NotFound,
        &["descriptor 987 is not open"],
    )
    .await;
    // What this program opened itself is not given away.
    let own = std::fs::File::open("/dev/null").unwrap();
    let address = format!("fd:{}", own.as_raw_fd());
    dial_fails(&address, Kind::Invalid, &["not inherited"]).await;
}

#[cfg(feature = "serial")]
#[tokio::test]
async fn serial() {
    let dir = tempfile::tempdir().unwrap();
    let missing = "serial:/dev/ttyCEPA-missing";
    dial_fails(missing, Kind::NotFound, &["no such device", "plugged in"]).await;
    listen_fails(missing, Kind::NotFound, &["no such device", "plugged in"]).await;
    let file = path(dir.path(), "file");
    std::fs::write(&file, "").unwrap();
    dial_fails(
        &format!("serial:{file}"),
        Kind::Invalid,
        &["not a serial device"],
    )
    .await;
    dial_fails("serial:/dev/null", Kind::Invalid, &["not a serial device"]).await;

    // Two at once: the second is refused while the first is there.
    let pty = listen(&endpoint(&format!("pty:{}", path(dir.path(), "line"))))
        .await
        .unwrap();
    let line = format!("serial:{}", path(dir.path(), "line"));
    let first = dial(&endpoint(&line)).await.unwrap();
    dial_fails(
        &line,
        Kind::AddressInUse,
        &["another program holds it", "fuser"],
    )
    .await;
    drop(first);
    let settings = format!("{line},baud=1200,data=7,parity=even,stop=2,flow=hw");
    // A child that another test is just starting has the lock, too, until it runs its program.
    let start = std::time::Instant::now();
    let held = |e: &TransportError| e.kind() == Kind::AddressInUse;
    loop {
        match dial(&endpoint(&settings)).await {
            Err(e) if held(&e) && start.elapsed().as_secs() < 60 => {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            dialled => break drop(dialled.expect("a pty ignores what it cannot have")),
        }
    }
    drop(pty);
    dial_fails(&line, Kind::NotFound, &["no such device"]).await;
}

#[cfg(not(feature = "serial"))]
#[tokio::test]
async fn serial_is_not_built_in() {
    dial_fails("serial:/dev/null", Kind::Unsupported, &["feature `serial`"]).await;
    listen_fails("serial:/dev/null", Kind::Unsupported, &["feature `serial`"]).await;
}

#[tokio::test]
async fn pty() {
    let dir = tempfile::tempdir().unwrap();
    let file = path(dir.path(), "file");
    std::fs::write(&file, "precious").unwrap();
    dial_fails(
        &format!("pty:{file}"),
        Kind::AddressInUse,
        &["already there"],
    )
    .await;
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    let link = path(dir.path(), "link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    listen_fails(
        &format!("pty:{link}"),
        Kind::AddressInUse,
        &["already there"],
    )
    .await;
    let nowhere = format!("pty:{}", path(dir.path(), "no/where"));
    listen_fails(&nowhere, Kind::NotFound, &["directory"]).await;
}

/// A listener whose queue is full lets a connection attempt hang. The clock is virtual and jumps as
/// soon as nothing else can happen.
#[tokio::test(start_paused = true)]
async fn tcp_gives_up_in_time() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let address = listener.local_addr().unwrap();
    let patience = std::time::Duration::from_millis(300);
    let mut queued = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, patience) {
        queued.push(stream);
        assert!(queued.len() < 100, "the queue never fills up");
    }
    let text = format!("tcp:{address}");
    let start = tokio::time::Instant::now();
    dial_fails(&text, Kind::TimedOut, &["no answer in time", "firewalls"]).await;
    assert_eq!(start.elapsed().as_secs(), 10);
}
