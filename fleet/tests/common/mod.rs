//! An etcd, or word that the test is left out; a way to it that can be cut.
#![allow(dead_code)] // each test uses its part

use std::io::Write as _;
use std::thread;

use cepa_fleet::testkit::{self, Etcd};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Says that a test is left out; fails where that is forbidden.
pub(crate) fn skipped(why: &str) {
    let name = thread::current().name().unwrap_or("test").to_owned();
    assert!(
        std::env::var("CEPA_REQUIRE_INTEROP").as_deref() != Ok("1"),
        "{name} would be skipped, and CEPA_REQUIRE_INTEROP=1 forbids it: {why}"
    );
    // Not eprintln: the test runner swallows that of a test that passes.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {name}: {why}");
}

/// One that runs, with these options.
pub(crate) fn etcd(members: usize, scheme: &str, options: &[&str]) -> Option<Etcd> {
    if testkit::program().is_none() {
        skipped("etcd can not be found: install etcd-server, whose own daemon is not used");
        return None;
    }
    Some(Etcd::with(members, scheme, options).expect("an etcd that starts"))
}

/// A TCP way on loopback that a test cuts, opens again, and leads elsewhere.
pub(crate) struct Gate {
    port: u16,
    first: String,
    to: watch::Sender<Option<String>>,
}

impl Gate {
    pub(crate) async fn start(to: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, receiver) = watch::channel(Some(to.clone()));
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut receiver = receiver.clone();
                tokio::spawn(async move {
                    let Some(to) = receiver.borrow_and_update().clone() else {
                        return;
                    };
                    let Ok(mut far) = TcpStream::connect(to).await else {
                        return;
                    };
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        _ = receiver.changed() => {}
                    }
                });
            }
        });
        Self {
            port,
            first: to,
            to: sender,
        }
    }

    pub(crate) fn place(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn cut(&self) {
        self.to.send_replace(None);
    }

    pub(crate) fn open(&self) {
        self.to.send_replace(Some(self.first.clone()));
    }

    pub(crate) fn lead_to(&self, to: String) {
        self.to.send_replace(Some(to));
    }
}

/// Which member is the leader, from what `etcdctl endpoint status -w fields` prints.
pub(crate) fn leader(status: &str, etcd: &Etcd) -> usize {
    let (mut member, mut leader) = ("", None);
    for line in status.lines() {
        let value = line.split(" : ").nth(1).unwrap_or_default();
        if line.starts_with("\"MemberID\"") {
            member = value;
        } else if line.starts_with("\"Leader\"") && value == member {
            leader = Some(());
        } else if line.starts_with("\"Endpoint\"") && leader.take().is_some() {
            let place = value.trim_matches('"').trim_start_matches("http://");
            let found = (0..3).find(|n| etcd.endpoint(*n) == place);
            return found.expect("one of them");
        }
    }
    panic!("no leader in {status}");
}
