//! The mux against hashicorp/yamux in Go, in both roles, bare and over TLS: `mux_peer` of this build and
//! `tests/interop/yamux_peer.go` speak YTP/1 with each other.

mod interop;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use interop::{
    PEER_LIMIT, PortFile, both_pass, certificates, example, have, ours, scratch, skip, start,
};

/// Where Debian's package puts the library: it has no module, but a GOPATH of its own.
const DEBIAN_GOPATH: &str = "/usr/share/gocode";
const LIBRARY: &str = "src/github.com/hashicorp/yamux/session.go";

fn tools() -> bool {
    have(&["go", "openssl"])
        && (Path::new(DEBIAN_GOPATH).join(LIBRARY).is_file()
            || skip("the package golang-github-hashicorp-yamux-dev is not installed"))
}

/// The peer, built once for all tests.
fn go() -> Command {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let program = BUILT.get_or_init(|| {
        let program = scratch().join("yamux_peer");
        let built = Command::new("go")
            .args(["build", "-o"])
            .arg(&program)
            .arg(ours("yamux_peer.go"))
            .envs([
                ("GO111MODULE", "off"),
                ("GOFLAGS", ""),
                ("GOPATH", DEBIAN_GOPATH),
            ])
            // Kept between runs, and never in the home folder.
            .env(
                "GOCACHE",
                Path::new(env!("CARGO_TARGET_TMPDIR")).join("gocache"),
            )
            .output()
            .expect("go runs");
        assert!(
            built.status.success(),
            "{}",
            String::from_utf8_lossy(&built.stderr)
        );
        program
    });
    Command::new(program)
}

fn cepa() -> Command {
    Command::new(example("mux_peer"))
}

fn pair(mut server: Command, mut client: Command, options: &[&str], client_options: &[&str]) {
    let file = PortFile::new();
    server.arg("server").arg("--portfile").arg(file.path());
    let mut server = start(server.args(["--limit", PEER_LIMIT]).args(options));
    let port = file.text(&mut server);
    client.args(["client", "--port", &port, "--limit", PEER_LIMIT]);
    both_pass(start(client.args(options).args(client_options)), server);
}

/// Sizes that a debug build beside other tests carries in seconds.
const GO_CLIENT: [&str; 4] = ["--count", "1000", "--mib", "16"];
/// All but `slow`, which judges by the clock: `tests/interop/run-shared.sh` runs that in a release build.
const CEPA_CLIENT: [&str; 6] = [
    "--count",
    "1000",
    "--mib",
    "16",
    "--scenario",
    "echo,halfclose,reset,srvreset,openclose,ping,window,goaway",
];

#[test]
fn go_is_the_client() {
    if tools() {
        pair(cepa(), go(), &[], &GO_CLIENT);
    }
}

#[test]
fn go_is_the_client_over_tls() {
    if tools() {
        let certs = certificates().to_str().expect("text");
        pair(cepa(), go(), &["--tls", certs], &GO_CLIENT);
    }
}

#[test]
fn go_is_the_client_with_large_windows() {
    if tools() {
        pair(cepa(), go(), &["--window", "16777216"], &GO_CLIENT);
    }
}

#[test]
fn go_is_the_server() {
    if tools() {
        pair(go(), cepa(), &[], &CEPA_CLIENT);
    }
}

#[test]
fn go_is_the_server_over_tls() {
    if tools() {
        let certs = certificates().to_str().expect("text");
        pair(go(), cepa(), &["--tls", certs], &CEPA_CLIENT);
    }
}

#[test]
fn go_is_the_server_with_large_windows() {
    if tools() {
        pair(go(), cepa(), &["--window", "16777216"], &CEPA_CLIENT);
    }
}
