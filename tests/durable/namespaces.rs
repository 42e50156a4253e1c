//! Two machines with two networks between them: one network is unplugged in the middle of a transfer, and the other one carries
//! on; or the only one, and the session comes back as soon as it does. The machines are network namespaces, joined by two virtual cables (veth) each; they take root and iproute2.
//!
//! ```text
//!   near                    far
//!     one  10.77.1.1 ------ 10.77.1.2
//!     two  10.77.2.1 ------ 10.77.2.2
//! ```

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cepa::identity::{AcceptAny, Identity};
use cepa::node::{Access, Call, Event, Events, Node, NodeConfig, PeerAddr};
use tokio::task::spawn_blocking;

use crate::children::{Process, saved, say};
use crate::crowd::{exchange, quick};

/// Two machines. They are deleted when it is dropped, and their cables with them.
struct Machines {
    near: String,
    far: String,
}

fn ip(words: &str) -> Result<(), String> {
    let output = Command::new("ip").args(words.split(' ')).output();
    let output = output.map_err(|error| format!("no ip command ({error}); install iproute2"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("ip {words}: {}", said.trim()))
}

impl Machines {
    fn new() -> Result<Self, String> {
        // The tests of a process run side by side.
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = |end| format!("cepa-{end}-{}-{number}", std::process::id());
        let machines = Self {
            near: name("near"),
            far: name("far"),
        };
        let Self { near, far } = &machines;
        ip(&format!("netns add {near}"))?;
        ip(&format!("netns add {far}"))?;
        for (number, cable) in [(1, "one"), (2, "two")] {
            ip(&format!(
                "link add {cable} netns {near} type veth peer name {cable} netns {far}"
            ))?;
            for (end, machine) in [(1, near), (2, far)] {
                ip(&format!(
                    "-n {machine} addr add 10.77.{number}.{end}/24 dev {cable}"
                ))?;
                ip(&format!("-n {machine} link set {cable} up"))?;
            }
        }
        Ok(machines)
    }

    fn unplug(&self, cable: &str) {
        ip(&format!("-n {} link set {cable} down", self.far)).unwrap();
    }

    fn plug_in(&self, cable: &str) {
        ip(&format!("-n {} link set {cable} up", self.far)).unwrap();
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for machine in [&self.near, &self.far] {
            // The one that failed to begin is not there.
            let _ = ip(&format!("netns del {machine}"));
        }
    }
}

/// With CI=true it has to be there (.ci/run installs iproute2), unless whoever runs it is not root.
fn machines() -> Option<Machines> {
    match Machines::new() {
        Ok(machines) => Some(machines),
        Err(why) => {
            let is_root = rustix::process::geteuid().is_root();
            let required = std::env::var_os("CEPA_REQUIRE_INTEROP").is_some() && is_root;
            assert!(!required, "two network namespaces are required here: {why}");
            eprintln!(
                "SKIPPED: sessions between network namespaces, which take root and iproute2: {why}"
            );
            None
        }
    }
}

fn config(own: &Identity) -> NodeConfig {
    let mut config = NodeConfig::new(own.clone(), Arc::new(AcceptAny));
    config.stack = config
        .stack
        .with_resume(Some(quick()))
        .with_layer_timeout(Duration::from_secs(5));
    config
}

/// A node that listens at these places and sends back what comes.
pub(crate) async fn server(own: &Identity, at: &[&str]) {
    let node = Node::new(config(own));
    let echo = |call: Call| async move {
        let (mut from, mut to) = tokio::io::split(call.accept().await.unwrap());
        let _ = tokio::io::copy(&mut from, &mut to).await;
        let _ = tokio::io::AsyncWriteExt::shutdown(&mut to).await;
    };
    node.serve("echo", Access::Anyone, echo).unwrap();
    for at in at {
        node.listen(&at.parse().unwrap()).await.unwrap();
    }
    say(&format!("listening {}", node.id()));
    std::future::pending::<()>().await;
}

/// Tells of the session's paths as long as there are events.
async fn notify(events: &mut Events) {
    while let Some(event) = events.next().await {
        match event {
            Event::SessionUp { path, .. } => say(&format!("up {path}")),
            Event::SessionPaused { why, .. } => say(&format!("paused {why}")),
            Event::SessionResumed { path, without, .. } => {
                say(&format!("resumed {path} after {without:?}"));
            }
            _ => {}
        }
    }
}

/// A node with a session in which nothing happens, and with the limits that users have.
pub(crate) async fn idle(own: &Identity, address: &str) {
    let mut config = config(own);
    config.stack.resume = Some(cepa::resume::Config::default());
    let node = Node::new(config);
    let mut events = node.events();
    let session = node.session(&address.parse().unwrap()).await.unwrap();
    say(&format!("begun {}", session.path().unwrap().label));
    notify(&mut events).await;
}

/// A node that sends for some seconds, expects it back, and tells of its paths.
pub(crate) async fn client(own: &Identity, address: &str) {
    let node = Node::new(config(own));
    let mut events = node.events();
    let address: PeerAddr = address.parse().unwrap();
    let stream = node.open(&address).await.unwrap();
    tokio::spawn(async move { notify(&mut events).await });
    // Until it is told to stop, by having been on each way and back.
    let begun = std::time::Instant::now();
    let session = node.session(&address).await.unwrap();
    let two_moves = {
        let session = session.clone();
        move || {
            session.path_stats().unwrap().paths < 3 && begun.elapsed() < Duration::from_secs(100)
        }
    };
    say(&format!("begun {}", session.path().unwrap().label));
    let exchanged = exchange(stream, 1, 1 << 20, two_moves).await;
    assert!(exchanged.sent == exchanged.got, "{exchanged:?}");
    let bytes = exchanged.sent.bytes;
    say(&format!("done {bytes} {:?}", session.path_stats().unwrap()));
    node.shutdown(Duration::from_secs(5)).await;
}

/// Two machines with a session between them: a process in each, which ends before its machine does.
struct Joined {
    client: Process,
    _server: Process,
    machines: Machines,
    _folder: tempfile::TempDir,
}

/// A node that listens at these places of the far machine, and one in the near machine that has this role towards the far one's
/// service.
fn joined(places: &[&str], role: &str, service: &str) -> Option<Joined> {
    let machines = machines()?;
    let folder = tempfile::tempdir().unwrap();
    let (far_key, far) = saved(folder.path(), "far.pem");
    let (near_key, _) = saved(folder.path(), "near.pem");
    let inside = |machine: &str| ["ip", "netns", "exec", machine].map(str::to_owned);
    let words = [&["node-server", far_key.to_str().unwrap()][..], places].concat();
    let server = Process::start_by(&inside(&machines.far), &words);
    server.hears("listening");
    let address = format!("cepa://{}@{}{service}", far.peer_id(), places.join(";"));
    let words = [role, near_key.to_str().unwrap(), &address];
    let client = Process::start_by(&inside(&machines.near), &words);
    Some(Joined {
        client,
        _server: server,
        machines,
        _folder: folder,
    })
}

#[tokio::test]
async fn a_network_that_is_unplugged_gives_way_to_the_other_one() {
    let done = spawn_blocking(|| {
        let places = ["tcp:10.77.1.2:7700", "tcp:10.77.2.2:7700"];
        let Some(joined) = joined(&places, "node-client", "/echo") else {
            return;
        };
        let Joined {
            machines, client, ..
        } = &joined;
        let at_first = client.hears("begun");
        std::thread::sleep(Duration::from_millis(300));
        // Which of the two was there first, chance decides.
        let (now, other) = if at_first.contains("10.77.1.2") {
            (("one", "10.77.1.2"), ("two", "10.77.2.2"))
        } else {
            (("two", "10.77.2.2"), ("one", "10.77.1.2"))
        };
        machines.unplug(now.0);
        let first = client.hears("resumed");
        assert!(first.contains(other.1), "{at_first}; {first}");
        machines.plug_in(now.0);
        std::thread::sleep(Duration::from_millis(300));
        machines.unplug(other.0);
        let second = client.hears("resumed");
        assert!(second.contains(now.1), "{first}; {second}");
        let reported = client.hears("done");
        eprintln!("{first}; {second}; {reported}");
    });
    done.await.unwrap();
}

/// Without the kernel's word the loss is noticed after half a minute, and the next attempt is a dozen seconds away when the network
/// is back.
#[tokio::test]
async fn a_network_that_comes_back_brings_the_session_back_at_once() {
    let done = spawn_blocking(|| {
        let Some(joined) = joined(&["tcp:10.77.1.2:7700"], "node-idle", "") else {
            return;
        };
        let (near, client) = (&joined.machines.near, &joined.client);
        client.hears("begun");
        let unplugged = Instant::now();
        ip(&format!("-n {near} addr del 10.77.1.1/24 dev one")).unwrap();
        ip(&format!("-n {near} link set one down")).unwrap();
        client.hears("paused");
        let noticed = unplugged.elapsed();
        // The pause between two attempts has grown: the next one is 12 s away or more.
        std::thread::sleep(Duration::from_secs(34));
        let plugged_in = Instant::now();
        ip(&format!("-n {near} link set one up")).unwrap();
        ip(&format!("-n {near} addr add 10.77.1.1/24 dev one")).unwrap();
        client.hears("resumed");
        let back = plugged_in.elapsed();
        eprintln!("noticed after {noticed:?}, back after {back:?}");
        assert!(noticed < Duration::from_secs(12), "{noticed:?}");
        assert!(back < Duration::from_secs(9), "{back:?}");
    });
    done.await.unwrap();
}
