//! The client against a real etcd.

mod common;

use std::time::Duration;

use cepa_fleet::etcd::{Change, Client, EtcdError, Login, Options, Tls, Write, end_of};
use cepa_fleet::testkit::Etcd;
use common::etcd;

const PREFIX: &[u8] = b"t/";

fn put(key: &str, value: &[u8]) -> Write {
    Write::Put {
        key: format!("t/{key}").into_bytes(),
        value: value.to_vec(),
    }
}

async fn client(etcd: &Etcd, n: usize) -> Client {
    Client::connect(&etcd.endpoint(n), &Options::default())
        .await
        .expect("a connection")
}

/// All pages of the first revision.
async fn read(client: &Client) -> (Vec<(String, Vec<u8>)>, u64) {
    let (mut from, end) = (PREFIX.to_vec(), end_of(PREFIX));
    let (mut all, mut at) = (Vec::new(), 0);
    loop {
        let page = client.page(&from, &end, at).await.expect("a page");
        if at == 0 {
            at = page.revision;
        }
        for entry in page.entries {
            from.clone_from(&entry.key);
            from.push(0);
            all.push((String::from_utf8(entry.key).unwrap(), entry.value));
        }
        if !page.more {
            return (all, at);
        }
    }
}

#[tokio::test]
async fn what_is_written_is_read_in_pages_and_watched() {
    let Some(etcd) = etcd(1, "http", &[]) else {
        return;
    };
    let client = client(&etcd, 0).await;
    let lease = client.grant(Duration::from_secs(10)).await.unwrap();
    client.keep_alive(lease).await.unwrap();
    for batch in 0..13 {
        let writes = (0..100)
            .map(|n| put(&format!("{batch:02}{n:02}"), b"v"))
            .collect();
        client.write(lease, writes).await.unwrap();
    }
    let (all, revision) = read(&client).await;
    assert_eq!(all.len(), 1300);
    assert_eq!(all[1299].0, "t/1299");

    let mut watch = client
        .watch(PREFIX, &end_of(PREFIX), revision + 1)
        .await
        .unwrap();
    assert_eq!(watch.resume_at(), revision + 1);
    let second = client
        .write(lease, vec![put("x", b"1"), put("y", b"2")])
        .await
        .unwrap();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.extend(watch.next().await.unwrap());
    }
    let Change::Put(entry) = &seen[0] else {
        panic!("{seen:?}")
    };
    assert_eq!(
        (&entry.key[..], &entry.value[..], entry.revision),
        (&b"t/x"[..], &b"1"[..], second)
    );
    assert_eq!(watch.resume_at(), second + 1);

    // The end of the lease is the end of all that stands under it.
    client.revoke(lease).await.unwrap();
    let mut gone = 0;
    while gone < 1302 {
        for change in watch.next().await.unwrap() {
            assert!(matches!(change, Change::Deleted { .. }), "{change:?}");
            gone += 1;
        }
    }
    assert_eq!(client.keep_alive(lease).await, Err(EtcdError::LeaseLost));
    assert_eq!(
        client.write(lease, vec![put("z", b"")]).await,
        Err(EtcdError::LeaseLost)
    );
    assert_eq!(read(&client).await.0.len(), 0);
}

#[tokio::test]
async fn values_that_are_too_large_for_one_page_come_in_smaller_ones() {
    let Some(etcd) = etcd(1, "http", &[]) else {
        return;
    };
    let client = client(&etcd, 0).await;
    let lease = client.grant(Duration::from_secs(60)).await.unwrap();
    let large = vec![7; 1 << 20];
    for n in 0..9 {
        client
            .write(lease, vec![put(&n.to_string(), &large)])
            .await
            .unwrap();
    }
    let (all, _) = read(&client).await;
    assert_eq!(all.len(), 9);
    assert!(all.iter().all(|(_, value)| *value == large));
}

#[tokio::test]
async fn a_watch_from_a_revision_that_is_gone_says_so() {
    let Some(etcd) = etcd(1, "http", &[]) else {
        return;
    };
    let client = client(&etcd, 0).await;
    let lease = client.grant(Duration::from_secs(60)).await.unwrap();
    let first = client.write(lease, vec![put("a", b"1")]).await.unwrap();
    let last = client.write(lease, vec![put("a", b"2")]).await.unwrap();
    etcd.ctl(["compact", &last.to_string()]).unwrap();
    let mut watch = client.watch(PREFIX, &end_of(PREFIX), first).await.unwrap();
    assert_eq!(watch.next().await, Err(EtcdError::Compacted));
    let page = client.page(PREFIX, &end_of(PREFIX), first).await;
    assert_eq!(page.err(), Some(EtcdError::Compacted));
}

#[tokio::test]
async fn users_and_their_passwords() {
    let Some(etcd) = etcd(1, "http", &[]) else {
        return;
    };
    for line in [
        "user add root:deep",
        "user add fleet:secret",
        "role add fleet",
        "role grant-permission fleet readwrite t/ t0",
        "user grant-role fleet fleet",
        "user grant-role root root",
        "auth enable",
    ] {
        etcd.ctl(line.split(' ')).unwrap();
    }
    let with = |user: &str, password: &str| Options {
        login: Some(Login {
            user: user.to_owned(),
            password: password.to_owned().into(),
        }),
        ..Options::default()
    };
    let at = etcd.endpoint(0);
    let client = Client::connect(&at, &with("fleet", "secret"))
        .await
        .unwrap();
    let lease = client.grant(Duration::from_secs(60)).await.unwrap();
    client.write(lease, vec![put("a", b"1")]).await.unwrap();
    client.keep_alive(lease).await.unwrap();
    client.watch(PREFIX, &end_of(PREFIX), 1).await.unwrap();
    let elsewhere = client.page(b"u", b"v", 0).await.unwrap_err();
    assert!(matches!(elsewhere, EtcdError::Denied(_)), "{elsewhere}");
    let elsewhere = client.watch(b"u", b"v", 1).await.err().unwrap();
    assert!(matches!(elsewhere, EtcdError::Denied(_)), "{elsewhere}");

    for options in [
        with("fleet", "wrong"),
        with("nobody", "secret"),
        Options::default(),
    ] {
        let error = match Client::connect(&at, &options).await {
            Err(error) => error,
            Ok(client) => client.page(PREFIX, b"t0", 0).await.unwrap_err(),
        };
        assert!(matches!(error, EtcdError::Login(_)), "{error}");
        assert!(error.is_configuration());
    }
}

#[tokio::test]
async fn tls_with_a_client_certificate() {
    let place = tempfile::tempdir().unwrap();
    let files = Authority::new("ours");
    let paths = files.write(place.path());
    let options: Vec<&str> = [
        "--cert-file",
        &paths[1],
        "--key-file",
        &paths[2],
        "--trusted-ca-file",
        &paths[0],
        "--client-cert-auth",
    ]
    .to_vec();
    let Some(etcd) = etcd(1, "https", &options) else {
        return;
    };
    let at = etcd.endpoint(0);
    let client = Some((files.certificate.as_bytes(), files.key.as_bytes()));
    let tls = |authority: &Authority, client| Options {
        tls: Some(Tls::new(authority.ca.as_bytes(), client).unwrap()),
        ..Options::default()
    };
    let connected = Client::connect(&at, &tls(&files, client)).await.unwrap();
    connected.grant(Duration::from_secs(10)).await.unwrap();

    let other = Authority::new("another");
    let error = Client::connect(&at, &tls(&other, client))
        .await
        .err()
        .unwrap();
    assert!(matches!(error, EtcdError::Tls { .. }), "{error}");
    // In TLS 1.3 the server says so after we think that all is well.
    let error = Client::connect(&at, &tls(&files, None))
        .await
        .err()
        .unwrap();
    assert!(!matches!(error, EtcdError::Slow(_)), "{error}");
    let error = Client::connect(&at, &Options::default())
        .await
        .err()
        .unwrap();
    assert!(!matches!(error, EtcdError::Slow(_)), "{error}");
    assert!(Tls::new(b"nothing", None).is_err());
    assert!(Tls::new(files.ca.as_bytes(), Some((b"", b""))).is_err());
}

#[tokio::test]
async fn what_is_away_is_away_at_once() {
    let error = Client::connect("127.0.0.1:1", &Options::default())
        .await
        .err()
        .unwrap();
    assert!(matches!(error, EtcdError::Unreachable { .. }), "{error}");
    assert!(!error.is_configuration());
}

/// An authority, and one certificate for servers and clients on loopback; PEM.
struct Authority {
    ca: String,
    certificate: String,
    key: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        use rcgen::{
            BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
        };
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name.push(rcgen::DnType::CommonName, name);
        let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
        let issuer = Issuer::new(ca, ca_key);
        let key = KeyPair::generate().unwrap();
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let mut leaf = CertificateParams::new(names).unwrap();
        leaf.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let leaf = leaf.signed_by(&key, &issuer).unwrap();
        Self {
            ca: ca_pem,
            certificate: leaf.pem(),
            key: key.serialize_pem(),
        }
    }

    fn write(&self, folder: &std::path::Path) -> [String; 3] {
        [
            ("ca.pem", &self.ca),
            ("cert.pem", &self.certificate),
            ("key.pem", &self.key),
        ]
        .map(|(name, text)| {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        })
    }
}
