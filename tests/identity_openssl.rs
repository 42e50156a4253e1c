//! Identities beside OpenSSL's command: it takes the certificates that we make, and we take the keys
//! and certificates that it makes, in all the formats that people have lying around.
//!
//! Without an `openssl` command these tests say loudly that they did nothing.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cepa::Side;
use cepa::identity::{Identity, IdentityError, KeyKind, Pinned};
use cepa::onion::Onion;
use cepa::tls::TlsConfig;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Runs `openssl` with these words in `folder`; its output, or none when there is no such command.
fn openssl(folder: &Path, words: &str) -> Option<Vec<u8>> {
    let output = match Command::new("openssl")
        .args(words.split(' '))
        .current_dir(folder)
        .output()
    {
        Ok(output) => output,
        Err(error) => {
            eprintln!("SKIPPED: no openssl command to test with ({error})");
            return None;
        }
    };
    assert!(
        output.status.success(),
        "openssl {words}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(output.stdout)
}

#[test]
fn openssl_takes_our_certificates_in_both_roles() {
    let folder = tempfile::tempdir().unwrap();
    for kind in [KeyKind::Ed25519, KeyKind::P256] {
        let identity = Identity::generate(kind).unwrap();
        let file = format!("{kind}.pem");
        identity.save(folder.path().join(&file)).unwrap();
        for purpose in ["sslclient", "sslserver"] {
            let words = format!(
                "verify -x509_strict -purpose {purpose} -partial_chain -CAfile {file} {file}"
            );
            let Some(said) = openssl(folder.path(), &words) else {
                return;
            };
            assert!(String::from_utf8_lossy(&said).contains("OK"));
        }
        // Its idea of the peer id's hash is ours.
        let words = format!("x509 -in {file} -noout -pubkey");
        let Some(key) = openssl(folder.path(), &words) else {
            return;
        };
        fs::write(folder.path().join("public"), key).unwrap();
        openssl(
            folder.path(),
            "pkey -pubin -in public -outform DER -out spki",
        )
        .unwrap();
        let spki = fs::read(folder.path().join("spki")).unwrap();
        assert_eq!(cepa::identity::PeerId::from_spki(&spki), identity.peer_id());
        let words = format!("x509 -in {file} -noout -enddate");
        let end = openssl(folder.path(), &words).unwrap();
        assert_eq!(
            String::from_utf8_lossy(&end).trim(),
            "notAfter=Dec 31 23:59:59 9999 GMT"
        );
    }
}

#[test]
fn keys_and_certificates_of_openssl_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let mut rsa = Vec::new();
    if cfg!(feature = "aws-lc-rs") {
        // PKCS#1, as `openssl rsa -traditional` still writes it.
        rsa.push(("rsa:2048", "rsa -traditional -in key -out other"));
    }
    let kinds = [
        ("ed25519", "pkey -in key -out other"),
        // SEC1, with the parameters in a section of their own before it.
        (
            "ec -pkeyopt ec_paramgen_curve:P-256",
            "ec -in key -out other -param_enc named_curve",
        ),
        (
            "ec -pkeyopt ec_paramgen_curve:P-384",
            "ec -in key -out other",
        ),
    ];
    for (algorithm, convert) in kinds.into_iter().chain(rsa) {
        let make = format!(
            "req -x509 -newkey {algorithm} -nodes -keyout key -out crt -days 30 -subj /CN=user"
        );
        if openssl(folder.path(), &make).is_none() {
            return;
        }
        fs::set_permissions(at("key"), fs::Permissions::from_mode(0o600)).unwrap();
        let read = Identity::load_pair(at("crt"), at("key")).unwrap();
        openssl(folder.path(), convert).unwrap();
        fs::set_permissions(at("other"), fs::Permissions::from_mode(0o600)).unwrap();
        let other = Identity::load_pair(at("crt"), at("other")).unwrap();
        assert_eq!(read.peer_id(), other.peer_id());
        assert_eq!(read.certificate(), other.certificate());
        // Under a passphrase that nobody gave it is refused.
        openssl(
            folder.path(),
            "pkcs8 -topk8 -in key -out locked -passout pass:x",
        )
        .unwrap();
        fs::set_permissions(at("locked"), fs::Permissions::from_mode(0o600)).unwrap();
        let error = Identity::load_pair(at("crt"), at("locked")).unwrap_err();
        assert!(
            matches!(error.problem(), IdentityError::Encrypted),
            "{error}"
        );
        assert!(error.to_string().contains("give its passphrase"), "{error}");
    }
}

#[test]
fn a_small_rsa_key_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let make = "req -x509 -newkey rsa:1024 -nodes -keyout key -out crt -days 30 -subj /CN=user";
    if openssl(folder.path(), make).is_none() {
        return;
    }
    let key = folder.path().join("key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let error = Identity::load_pair(folder.path().join("crt"), &key).unwrap_err();
    assert!(error.to_string().contains("1024 bits"), "{error}");
}

/// A command that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn openssl_s_server_and_we_authenticate_each_other_with_our_certificates() {
    let folder = tempfile::tempdir().unwrap();
    if openssl(folder.path(), "version").is_none() {
        return;
    }
    for kind in [KeyKind::Ed25519, KeyKind::P256] {
        let (theirs, ours) = (
            Identity::generate(kind).unwrap(),
            Identity::generate(kind).unwrap(),
        );
        let file = |name: &str| folder.path().join(format!("{kind}-{name}"));
        theirs.save(file("theirs")).unwrap();
        ours.save(file("ours")).unwrap();
        let words = format!(
            "s_server -accept 127.0.0.1:0 -cert {kind}-theirs -CAfile {kind}-ours -Verify 1 \
             -verify_return_error -partial_chain -tls1_3 -alpn cepa/1 -rev -naccept 1"
        );
        let mut server = Command::new("openssl")
            .args(words.split_whitespace())
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map(Running)
            .unwrap();
        let said = BufReader::new(server.0.stdout.take().unwrap());
        let line = said
            .lines()
            .map(Result::unwrap)
            .find(|line| line.starts_with("ACCEPT "))
            .unwrap();
        let tcp = TcpStream::connect(line.trim_start_matches("ACCEPT "))
            .await
            .unwrap();
        let trust = Arc::new(Pinned::one(theirs.peer_id()));
        let config = TlsConfig::builder(&ours, trust)
            .alpn(&["cepa/1"])
            .build()
            .unwrap();
        let mut onion = Onion::new(tcp);
        let work = async {
            onion.push(Side::Client, &config).await.unwrap();
            onion.write_all(b"onion\n").await.unwrap();
            onion.flush().await.unwrap();
            let mut back = String::new();
            onion.read_line(&mut back).await.unwrap();
            assert_eq!(back, "noino\n");
        };
        tokio::time::timeout(Duration::from_secs(60), work)
            .await
            .expect("it hung");
    }
}
