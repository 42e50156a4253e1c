//! What `cepa relay --fleet` says of its options, and of an etcd that it cannot use.

mod common;

use cepa_fleet::testkit::{self, Etcd};
use common::programs::skipped;
use common::{Place, Server};

fn etcd() -> Option<Etcd> {
    if testkit::program().is_none() {
        skipped("etcd can not be found: install etcd-server, whose own daemon is not used");
        return None;
    }
    Some(Etcd::start().expect("an etcd that starts"))
}

/// The others of its fleet are let in, and are no peers that it serves.
#[test]
fn a_relay_of_a_fleet_that_allows_nobody_says_so() {
    let place = Place::new();
    let (file, _) = place.identity("relay.pem");
    let (_, other) = place.identity("other.pem");
    let words = ["relay", "tcp:127.0.0.1:0", "--identity", &file];
    let fleet = ["--fleet", "etcd://127.0.0.1:1/x", "--fleet-peer", &other];
    let mut relay = Server::start_at(&place, &[&words[..], &fleet].concat(), "relaying on ");
    relay.wait_for("nobody is allowed yet");
}

#[test]
fn what_is_wrong_is_said_in_one_line_before_it_listens() {
    let place = Place::new();
    let (file, id) = place.identity("relay.pem");
    let login = place.text("login");
    std::fs::write(&login, "me:secret\n").unwrap();
    let (tls, ca) = ("etcds://127.0.0.1:1/x", place.text("ca.pem"));
    let own = rcgen::generate_simple_self_signed(["etcd".to_owned()]).unwrap();
    std::fs::write(&ca, own.cert.pem()).unwrap();
    let relay = |more: &[&str], code: i32| {
        let base = [
            "relay",
            "tcp:127.0.0.1:0",
            "--identity",
            &file,
            "--allow",
            "any",
        ];
        place.fails(&[&base[..], more].concat(), code)
    };
    for (words, code, why) in [
        (&["--fleet", "127.0.0.1:2379/x"][..], 2, "expected etcd://"),
        (
            &["--fleet", "etcd://127.0.0.1:2379"],
            2,
            "a prefix of the keys is missing",
        ),
        (
            &["--fleet", "etcd://me:secret@127.0.0.1:2379/x"],
            2,
            "--fleet-login",
        ),
        (&["--fleet-peer", &id], 2, "--fleet"),
        (
            &["--fleet", "etcd://127.0.0.1:1/x", "--fleet-peer", "any"],
            2,
            "--fleet-peer names one relay",
        ),
        (
            &["--fleet", "etcd://127.0.0.1:1/x", "--fleet-peer", "zzz"],
            2,
            "--fleet-peer",
        ),
        (&["--fleet", "etcds://127.0.0.1:1/x"], 2, "--fleet-ca"),
        (
            &["--fleet", "etcd://127.0.0.1:1/x", "--fleet-ca", &login],
            2,
            "write etcds:",
        ),
        (
            &["--fleet", "etcds://127.0.0.1:1/x", "--fleet-ca", &login],
            8,
            "no certificate",
        ),
        (
            &["--fleet", "etcds://127.0.0.1:1/x", "--fleet-ca", "/nowhere"],
            8,
            "/nowhere",
        ),
        (
            &["--fleet", tls, "--fleet-ca", "/dev/zero"],
            8,
            "/dev/zero: the file is too long",
        ),
        (
            &["--fleet", "etcd://127.0.0.1:1/x", "--fleet-login", &login],
            8,
            "chmod 600",
        ),
        (
            &["--fleet-cert", &login, "--fleet-key", &login],
            2,
            "--fleet <STORE>",
        ),
        (
            &[
                "--fleet",
                tls,
                "--fleet-ca",
                &ca,
                "--fleet-cert",
                &login,
                "--fleet-key",
                &login,
            ],
            8,
            &format!("--fleet-cert {login}: no certificate"),
        ),
        (
            &[
                "--fleet",
                tls,
                "--fleet-ca",
                &ca,
                "--fleet-cert",
                &ca,
                "--fleet-key",
                &login,
            ],
            8,
            &format!("--fleet-key {login}: no private key"),
        ),
    ] {
        let line = relay(words, code);
        assert!(line.contains(why), "{line}");
        assert!(!line.contains("secret"), "{line}");
    }
    std::fs::set_permissions(&login, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let Some(etcd) = etcd() else { return };
    let store = format!("etcd://{}/x", etcd.hosts());
    let line = relay(&["--fleet", &store, "--fleet-login", &login], 7);
    assert!(line.contains("leave out --fleet-login"), "{line}");
    for line in [
        "user add root:deep",
        "user grant-role root root",
        "auth enable",
    ] {
        etcd.ctl(line.split(' ')).unwrap();
    }
    let line = relay(&["--fleet", &store], 7);
    assert!(line.contains("--fleet-login FILE"), "{line}");
    let line = relay(&["--fleet", &store, "--fleet-login", &login], 7);
    assert!(line.contains("the user or password is refused"), "{line}");
}
