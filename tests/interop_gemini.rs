//! The example `gemini`: client certificates as accounts, between its own two ends, and its client
//! against a server by jetforce, which shares no code with cepa.

mod interop;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cepa::identity::{Identity, KeyKind, RotationTimes, UnixTime};

use interop::{Ended, Running, example, ours, scratch, skip, start};

/// A folder for one test.
fn folder(name: &str) -> PathBuf {
    let folder = scratch().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn identity(folder: &Path, name: &str) -> (PathBuf, Identity) {
    let identity = Identity::generate(KeyKind::P256).unwrap();
    (saved(folder, name, &identity), identity)
}

fn saved(folder: &Path, name: &str, identity: &Identity) -> PathBuf {
    let path = folder.join(name);
    identity.save(&path).unwrap();
    path
}

/// What `LISTENING n` says.
fn port(server: &mut Running) -> u16 {
    server.hear("LISTENING ");
    let said = interop::wait_for("the port", || {
        let said = server.said();
        let line = said.split("LISTENING ").nth(1)?.to_owned();
        line.contains('\n').then_some(line)
    });
    said.lines().next().unwrap().trim().parse().unwrap()
}

struct Client<'a> {
    port: u16,
    known: &'a Path,
}

impl Client<'_> {
    fn get(&self, path: &str, identity: Option<&Path>) -> Ended {
        let mut command = Command::new(example("gemini"));
        command
            .args([
                "get",
                &format!("gemini://localhost:{}{path}", self.port),
                "--known",
            ])
            .arg(self.known);
        if let Some(identity) = identity {
            command.arg("--identity").arg(identity);
        }
        start(&mut command).ended()
    }

    /// Gets it, and checks the status; gives the page, or what was said instead.
    #[track_caller]
    fn status(&self, status: &str, path: &str, identity: Option<&Path>) -> String {
        let ended = self.get(path, identity);
        let line = ended.stderr.lines().find(|line| line.starts_with(status));
        assert!(
            line.is_some() && ended.success == status.starts_with('2'),
            "{path}: status {status}: {ended:#?}"
        );
        if ended.success {
            ended.stdout
        } else {
            ended.stderr
        }
    }
}

#[test]
fn certificates_are_accounts() {
    let folder = folder("gemini-accounts");
    let (file, _) = identity(&folder, "server.pem");
    let serve = |file: &Path| {
        let mut command = Command::new(example("gemini"));
        start(command.args(["server", "0"]).arg(file))
    };
    let mut server = serve(&file);
    let known = folder.join("known");
    let client = Client {
        port: port(&mut server),
        known: &known,
    };
    let (ann, identity_of_ann) = identity(&folder, "ann.pem");
    let (bob, _) = identity(&folder, "bob.pem");

    // No certificate, one without an account, one with.
    assert!(client.status("20", "/", None).starts_with("# Hello"));
    client.status("51", "/nowhere", None);
    client.status("60", "/account", None);
    client.status("61", "/account", Some(&ann));
    client.status("10", "/register", Some(&ann));
    client.status("20", "/register?ann", Some(&ann));
    let page = client.status("20", "/account", Some(&ann));
    let fingerprint = data_encoding::HEXLOWER.encode(&identity_of_ann.certificate_sha256());
    for part in [
        "# ann",
        &identity_of_ann.peer_id().to_string(),
        &fingerprint,
        "CN=",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    client.status("61", "/register?ann", Some(&bob));
    client.status("61", "/account", Some(&bob));
    // One whose dates don't hold.
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.not_before = rcgen::date_time_ymd(2001, 1, 1);
    params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    let certificate = params.self_signed(&key).unwrap();
    let old = Identity::from_pem_pair(&certificate.pem(), &key.serialize_pem()).unwrap();
    let old = saved(&folder, "old.pem", &old);
    client.status("62", "/account", Some(&old));
    client.status("20", "/", Some(&old));

    // Ann's next key gets her account by the old one's word; the old key has it no longer.
    let now = UnixTime::now().as_secs();
    let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let times = RotationTimes {
        issued: at(now - 60),
        expires: at(now + 3600),
        overlap: at(now),
    };
    let next = identity_of_ann.rotate(KeyKind::Ed25519, times).unwrap();
    let next = saved(&folder, "ann-next.pem", &next);
    assert!(
        client
            .status("20", "/account", Some(&next))
            .starts_with("# ann\n")
    );
    client.status("61", "/account", Some(&ann));
    // Without it, the operator's.
    let (lost, _) = identity(&folder, "lost.pem");
    client.status("61", "/claim?ann", Some(&lost));
    client.status("61", "/account", Some(&lost));
    server.hear("claims to be ann");
    server.say("approve ann\n");
    server.hear("from now on");
    assert!(
        client
            .status("20", "/account", Some(&lost))
            .starts_with("# ann\n")
    );
    client.status("61", "/account", Some(&next));

    // The server's key was learned at first use, and another one is refused.
    let line = std::fs::read_to_string(&known).unwrap();
    assert!(
        line.contains(&format!("at=gemini:localhost:{}", client.port)),
        "{line}"
    );
    drop(server);
    let (other, _) = identity(&folder, "other.pem");
    let mut other = {
        let mut command = Command::new(example("gemini"));
        start(
            command
                .args(["server", &client.port.to_string()])
                .arg(other),
        )
    };
    assert_eq!(port(&mut other), client.port);
    let refused = client.get("/", None);
    assert!(
        !refused.success && refused.stdout.is_empty() && refused.stderr.contains("has changed"),
        "{refused:#?}"
    );
}

/// A Python that has jetforce: the one that `.ci/run` makes, or the system's.
fn python() -> Option<PathBuf> {
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/ci/python/bin/python3");
    let has_jetforce = |python: &PathBuf| {
        let mut command = Command::new(python);
        command.args([
            "-c",
            "import jetforce; assert jetforce.__version__ == '1.0.0'",
        ]);
        command.output().is_ok_and(|output| output.status.success())
    };
    [made, PathBuf::from("python3")]
        .into_iter()
        .find(has_jetforce)
}

#[test]
fn a_server_by_jetforce_sees_our_certificate() {
    let Some(python) = python() else {
        skip("no python3 has jetforce 1.0.0; `.ci/run install` makes one that has it");
        return;
    };
    let folder = folder("gemini-jetforce");
    let certificates = interop::certificates();
    let mut server = start(
        Command::new(python)
            .arg(ours("jetforce_app.py"))
            .arg(certificates.join("responder-B.crt.pem"))
            .arg(certificates.join("responder-B.key.pem")),
    );
    let known = folder.join("known");
    let client = Client {
        port: port(&mut server),
        known: &known,
    };
    assert_eq!(client.status("20", "/open", None), "open to all\n");
    client.status("60", "/account", None);
    for kind in [KeyKind::Ed25519, KeyKind::P256] {
        let identity = Identity::generate(kind).unwrap();
        let file = saved(&folder, &format!("{kind}.pem"), &identity);
        let page = client.status("20", "/account", Some(&file));
        let fingerprint = data_encoding::HEXUPPER.encode(&identity.certificate_sha256());
        let name = identity.peer_id().short();
        assert_eq!(page, format!("SHA256:{fingerprint} {name}\n"));
    }
    client.status("50", "/nowhere", None);
    let line = std::fs::read_to_string(&known).unwrap();
    assert!(line.contains("how=first-use"), "{line}");
}
