//! The outermost layer is ordinary TLS 1.3 with mutual self-signed certificates: the example `tls_echo`
//! against the `openssl` command as client and as server, each pinning the other's certificate.

mod interop;

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

use interop::{Running, certificates, example, have, start, wait_for};

/// A port of loopback that was free a moment ago; `tls_echo` and `s_server` want to be told a number.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// Waits until somebody listens there. It asks the kernel: a server that takes one connection only can not
/// be tried, and a try to bind could take the port away from it.
fn wait_until_taken(port: u16) {
    let address = format!(":{port:04X}");
    wait_for(&format!("a listener on port {port}"), || {
        let tables = ["/proc/net/tcp", "/proc/net/tcp6"]
            .map(|table| fs::read_to_string(table).unwrap_or_default());
        tables
            .iter()
            .flat_map(|table| table.lines())
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            // Columns: number, local address, remote address, state; 0A is LISTEN.
            .any(|columns| {
                columns.len() > 3 && columns[1].ends_with(&address) && columns[3] == "0A"
            })
            .then_some(())
    });
}

fn file(name: &str) -> PathBuf {
    certificates().join(name)
}

fn tls_echo(role: &str, port: u16, own: &str, peer: &str) -> Running {
    let mut command = Command::new(example("tls_echo"));
    command.arg(role).arg(port.to_string());
    command
        .arg(file(&format!("{own}.crt.pem")))
        .arg(file(&format!("{own}.key.pem")));
    start(command.arg(file(&format!("{peer}.crt.pem"))))
}

fn s_client(port: u16, own: &str, peer: &str) -> Running {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &format!("127.0.0.1:{port}")]);
    command.arg("-cert").arg(file(&format!("{own}.crt.pem")));
    command.arg("-key").arg(file(&format!("{own}.key.pem")));
    command.arg("-CAfile").arg(file(&format!("{peer}.crt.pem")));
    command.args([
        "-partial_chain",
        "-verify_return_error",
        "-tls1_3",
        "-alpn",
        "cepa/1",
    ]);
    start(command.args(["-servername", "localhost"]))
}

fn s_server(port: u16, own: &str, peer: &str) -> Running {
    let mut command = Command::new("openssl");
    command.args(["s_server", "-accept", &format!("127.0.0.1:{port}")]);
    command.arg("-cert").arg(file(&format!("{own}.crt.pem")));
    command.arg("-key").arg(file(&format!("{own}.key.pem")));
    command.arg("-CAfile").arg(file(&format!("{peer}.crt.pem")));
    command.args([
        "-Verify",
        "1",
        "-verify_return_error",
        "-partial_chain",
        "-tls1_3",
    ]);
    start(command.args(["-alpn", "cepa/1", "-rev", "-naccept", "1"]))
}

#[test]
fn s_client_is_echoed() {
    if !have(&["openssl"]) {
        return;
    }
    for profile in ["A", "B", "C", "O"] {
        let (us, them) = (format!("responder-{profile}"), format!("driver-{profile}"));
        let port = free_port();
        let server = tls_echo("server", port, &us, &them);
        wait_until_taken(port);
        let mut client = s_client(port, &them, &us);
        client.hear("Verify return code: 0 (ok)");
        client.say("one line of text\n");
        client.hear("one line of text");
        // A line that starts with K makes s_client renew its keys and ask for new ones.
        client.say("K\n");
        client.hear("KEYUPDATE");
        client.say("a line under new keys\n");
        client.hear("a line under new keys");
        client.close_input();
        let (client, server) = (client.ended(), server.ended());
        assert!(client.success && server.success, "{client:#?} {server:#?}");
        for expected in ["Verification: OK", "New, TLSv1.3", "ALPN protocol: cepa/1"] {
            assert!(
                client.stdout.contains(expected),
                "no {expected:?} in {client:#?}"
            );
        }
    }
}

#[test]
fn s_server_is_reached() {
    if !have(&["openssl"]) {
        return;
    }
    for profile in ["A", "B", "C", "O"] {
        let (us, them) = (format!("driver-{profile}"), format!("responder-{profile}"));
        let port = free_port();
        let server = s_server(port, &them, &us);
        wait_until_taken(port);
        let mut client = tls_echo("client", port, &us, &them);
        client.say("stressed\n");
        client.hear("desserts");
        client.say("drawer\n");
        client.hear("reward");
        client.close_input();
        let client = client.ended();
        assert!(client.success, "{client:#?}");
        assert_eq!(client.stdout, "desserts\nreward\n");
        let server = server.ended();
        assert!(server.success, "{server:#?}");
    }
}

#[test]
fn a_client_with_another_certificate_is_refused() {
    if !have(&["openssl"]) {
        return;
    }
    let port = free_port();
    let server = tls_echo("server", port, "responder-A", "driver-A");
    wait_until_taken(port);
    let mut client = s_client(port, "driver-O", "responder-A");
    client.say("never echoed\n");
    let (client, server) = (client.ended(), server.ended());
    assert!(!server.success, "{server:#?}");
    assert!(!client.success, "{client:#?}");
    assert!(!client.stdout.contains("never echoed"), "{client:#?}");
    assert!(
        client.stderr.contains("alert"),
        "the client is told by an alert: {client:#?}"
    );
}

#[test]
fn a_server_with_another_certificate_is_refused() {
    if !have(&["openssl"]) {
        return;
    }
    let port = free_port();
    let server = s_server(port, "responder-A", "driver-A");
    wait_until_taken(port);
    let mut client = tls_echo("client", port, "driver-A", "responder-O");
    client.say("never sent\n");
    client.close_input();
    let client = client.ended();
    assert!(!client.success, "{client:#?}");
    assert_eq!(client.stdout, "", "nothing on standard output");
    assert!(!client.stderr.is_empty(), "an error is told");
    let server = server.ended();
    assert!(!server.stdout.contains("never sent"), "{server:#?}");
}
