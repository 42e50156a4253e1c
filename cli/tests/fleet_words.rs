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

/// A certificate of 127.0.0.1 that has signed itself, and its key, in files.
fn self_signed(
    place: &Place,
    change: impl FnOnce(&mut rcgen::CertificateParams),
) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    change(&mut params);
    let (cert_file, key_file) = (place.text("etcd.pem"), place.text("etcd-key.pem"));
    std::fs::write(&cert_file, params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    (cert_file, key_file)
}

fn etcd_with(place: &Place, change: impl FnOnce(&mut rcgen::CertificateParams)) -> Option<Etcd> {
    if testkit::program().is_none() {
        skipped("etcd can not be found: install etcd-server, whose own daemon is not used");
        return None;
    }
    let (cert, key) = self_signed(place, change);
    let options = ["--cert-file", &cert, "--key-file", &key];
    Some(Etcd::with(1, "https", &options).expect("an etcd that starts"))
}

/// What `openssl req -x509` makes is an authority of its own, and the first that anybody tries.
#[test]
fn a_certificate_that_etcd_may_not_show_is_said_in_one_plain_line() {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, SanType};
    type Change = fn(&mut CertificateParams);
    let cases: [(Change, &str, &str); 3] = [
        (
            |it| it.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
            "is an authority's own (CA:TRUE), which no server may show",
            "basicConstraints=critical,CA:FALSE",
        ),
        (
            |it| it.subject_alt_names = vec![SanType::DnsName("etcd.example".try_into().unwrap())],
            "is for another name or address",
            "write a host at --fleet that it names",
        ),
        (
            |it| it.not_after = rcgen::date_time_ymd(2020, 1, 1),
            "has expired",
            "make a new one",
        ),
    ];
    for (change, why, next) in cases {
        let place = Place::new();
        let Some(etcd) = etcd_with(&place, change) else {
            return;
        };
        let words = trusting(&place, &etcd);
        let line = place.fails(&words.each_ref().map(String::as_str), 3);
        assert!(line.contains(why) && line.contains(next), "{line}");
        for raw in ["invalid peer", "Other", "EndEntity", "InvalidCertificate"] {
            assert!(!line.contains(raw), "{line}");
        }
    }
}

/// A relay of the fleet in that etcd, which is given the etcd's own certificate as authority.
fn trusting(place: &Place, etcd: &Etcd) -> [String; 10] {
    let (file, _) = place.identity("relay.pem");
    let (store, ca) = (
        format!("etcds://{}/x", etcd.hosts()),
        place.text("etcd.pem"),
    );
    let words = [
        "relay",
        "tcp:127.0.0.1:0",
        "--identity",
        &file,
        "--allow",
        "any",
        "--fleet",
        &store,
        "--fleet-ca",
        &ca,
    ];
    words.map(str::to_owned)
}

/// What the line says helps.
#[test]
fn a_certificate_that_has_signed_itself_and_is_no_authority_is_one_for_etcd() {
    let place = Place::new();
    let Some(etcd) = etcd_with(&place, |_| ()) else {
        return;
    };
    let words = trusting(&place, &etcd);
    let words = words.each_ref().map(String::as_str);
    let mut relay = Server::start_at(&place, &words, "relaying on ");
    let is_there = |line: &String| line.contains("fleet: etcd at ");
    if !relay.seen().iter().any(is_there) {
        relay.wait_for("fleet: etcd at ");
    }
    let warned = relay.seen().iter().any(|line| line.contains("no etcd"));
    assert!(!warned, "{:?}", relay.seen());
}
