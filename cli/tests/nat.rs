//! Direct paths through NATs: two hosts, each behind a router of its own that translates addresses as routers do, and a relay that both
//! can reach. They take root, iproute2, nftables, ethtool and python3; one of them miniupnpd, too.
//!
//! ```text
//!   hostA 192.168.1.2 -- routerA 198.51.100.2 --\
//!                                                net: the relay, at 192.0.2.1
//!   hostB 192.168.2.2 -- routerB 203.0.113.2 ---/
//! ```
//!
//! Host A has a service of host B open through the relay, and counts there and back while the session becomes direct: no number may be
//! missing. `CEPA_NAT_TABLE=FILE` writes the table of all pairs, as it stands in BENCHMARKS.md.

mod common;

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::programs::skipped;
use common::{PATIENCE, Place, Server, bin, text};

/// What a router does with what comes and goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It translates nothing, and lets everything through.
    None,
    /// One port outside for one port inside, whoever it talks to; and everybody may answer.
    FullCone,
    /// The same; only hosts that were talked to may answer, from any port.
    Restricted,
    /// The same; only ports that were talked to may answer, others hear nothing.
    PortRestricted,
    /// The same; others hear a reset.
    PortRestrictedReset,
    /// Another port outside for each connection.
    Symmetric,
    /// A router behind a router, both as `PortRestricted`.
    Double,
}

use Kind::{
    Double, FullCone, None as No, PortRestricted, PortRestrictedReset, Restricted, Symmetric,
};

impl Kind {
    fn name(self) -> &'static str {
        match self {
            No => "none",
            FullCone => "full cone",
            Restricted => "restricted",
            PortRestricted => "port-restricted",
            PortRestrictedReset => "port-restricted, RST",
            Symmetric => "symmetric",
            Double => "double",
        }
    }

    /// The rules of a router with this host behind it.
    fn rules(self, host: &str) -> String {
        // UDP knows no reset: what such a router refuses it says by ICMP.
        let refuse = if self == PortRestrictedReset {
            "meta l4proto tcp reject with tcp reset\n reject with icmp port-unreachable"
        } else {
            "drop"
        };
        let how = if self == Symmetric {
            " fully-random"
        } else {
            ""
        };
        let (dnat, forward) = match self {
            No => return String::new(),
            FullCone => (
                format!("iifname wan meta l4proto {{ tcp, udp }} dnat to {host}"),
                "accept".to_owned(),
            ),
            Restricted => (
                format!("iifname wan meta l4proto {{ tcp, udp }} dnat to {host}"),
                format!("ip saddr @known accept\n {refuse}"),
            ),
            _ => (String::new(), refuse.to_owned()),
        };
        format!(
            "table ip t {{
             chain refuse {{ {refuse}
             }}
             set known {{ type ipv4_addr; flags dynamic,timeout; timeout 5m; }}
             chain pre {{ type nat hook prerouting priority dstnat; {dnat}
             }}
             chain post {{ type nat hook postrouting priority srcnat; oifname wan masquerade{how}
             }}
             chain through {{ type filter hook forward priority 0;
             iifname \"lan*\" add @known {{ ip daddr }} accept
             ct state established,related accept
             {forward}
             }}
             chain to {{ type filter hook input priority 0; iifname lo accept
             ct state established,related accept
             iifname wan meta l4proto {{ tcp, udp }} jump refuse
             }}
             }}"
        )
    }
}

/// Passes frames on between two ports, each 15 ms later. Where the kernel has no qdisc for that, nothing else does it.
const SLOW: &str = r#"
import collections, select, socket, time
ends, waiting = [], collections.deque()
for port in ("one", "two"):
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    end.bind((port, 0))
    end.setblocking(False)
    end.setsockopt(263, 23, 1)  # SOL_PACKET, PACKET_IGNORE_OUTGOING
    ends.append(end)
print("up", flush=True)
while True:
    while waiting and waiting[0][0] <= time.monotonic():
        _, to, frame = waiting.popleft()
        try:
            to.send(frame)
        except OSError:
            pass
    left = max(0, waiting[0][0] - time.monotonic()) if waiting else None
    for end in select.select(ends, [], [], left)[0]:
        other = ends[1 - ends.index(end)]
        try:
            waiting.append((time.monotonic() + 0.015, other, end.recv(65535)))
        except OSError:
            pass
"#;

/// Namespaces of one world, and what runs in them. They are deleted when it is dropped.
struct World(String, Vec<Ended>);

fn ip(words: &str) -> Result<(), String> {
    let output = Command::new("ip").args(words.split(' ')).output();
    let output = output.map_err(|error| format!("no ip command ({error}); install iproute2"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {words}: {}", text(&output.stderr).trim()))
}

impl Drop for World {
    fn drop(&mut self) {
        self.1.clear();
        for host in ["hA", "rA", "sA", "dA", "net", "dB", "rB", "sB", "hB"] {
            let _ = ip(&format!("netns del {}{host}", self.0));
        }
    }
}

impl World {
    fn empty() -> Self {
        // The tests of a process run side by side.
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self(format!("cepa{}-{number}-", std::process::id()), Vec::new())
    }

    fn add(&self, host: &str) -> Result<(), String> {
        ip(&format!("netns add {}{host}", self.0))?;
        ip(&format!("-n {}{host} link set lo up", self.0))?;
        for what in ["ipv4.ip_forward=1", "ipv6.conf.all.forwarding=1"] {
            self.run(host, &["sysctl", "-qw", &format!("net.{what}")])?;
        }
        Ok(())
    }

    fn inside(&self, host: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("{}{host}", self.0)]);
        command
    }

    fn run(&self, host: &str, words: &[&str]) -> Result<(), String> {
        let output = self.inside(host).args(words).output();
        let output = output.map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("{words:?}: {}", text(&output.stderr).trim()))
    }

    /// A cable from a port of one to a port of another, with an address at each end.
    fn cable(&self, one: (&str, &str, &str), other: (&str, &str, &str)) -> Result<(), String> {
        let ((a, at, a_is), (b, bt, b_is)) = (one, other);
        let w = &self.0;
        ip(&format!(
            "link add {at} netns {w}{a} type veth peer name {bt} netns {w}{b}"
        ))?;
        for (host, port, address) in [(a, at, a_is), (b, bt, b_is)] {
            let v6 = if address.contains(':') { " nodad" } else { "" };
            if !address.is_empty() {
                ip(&format!("-n {w}{host} addr add {address} dev {port}{v6}"))?;
            }
            ip(&format!("-n {w}{host} link set {port} up"))?;
        }
        Ok(())
    }

    fn default_by(&self, host: &str, gateway: &str) -> Result<(), String> {
        ip(&format!(
            "-n {}{host} route add default via {gateway}",
            self.0
        ))
    }

    fn nft(&self, host: &str, rules: &str) -> Result<(), String> {
        let mut command = self.inside(host);
        let mut nft = command
            .args(["nft", "-f", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        nft.stdin
            .take()
            .unwrap()
            .write_all(rules.as_bytes())
            .unwrap();
        let output = nft.wait_with_output().unwrap();
        if output.status.success() {
            return Ok(());
        }
        Err(format!(
            "nft: {}; install nftables",
            text(&output.stderr).trim()
        ))
    }

    /// Each one behind its own router.
    fn new(a: Kind, b: Kind) -> Result<Self, String> {
        Self::at(a, b, "203.0.113")
    }

    /// The same, with the second one in this network.
    fn at(a: Kind, b: Kind, wan: &str) -> Result<Self, String> {
        let world = Self::empty();
        world.add("net")?;
        ip(&format!("-n {}net addr add 192.0.2.1/32 dev lo", world.0))?;
        world.side("A", a, "198.51.100", 1)?;
        world.side("B", b, wan, 2)?;
        Ok(world)
    }

    fn side(&self, side: &str, kind: Kind, wan: &str, n: u8) -> Result<(), String> {
        let (host, router) = (format!("h{side}"), format!("r{side}"));
        // Whoever is behind no NAT has an address of the whole network; RFC 2544 has these for tests.
        let lan = match kind {
            No => format!("198.18.{n}"),
            _ => format!("192.168.{n}"),
        };
        self.add(&host)?;
        self.add(&router)?;
        let at = |net: &str, n: u8| format!("{net}.{n}/24");
        let (ours, theirs) = (at(&lan, 2), at(&lan, 1));
        self.cable((&host, "eth", &ours), (&router, "lan", &theirs))?;
        self.default_by(&host, &format!("{lan}.1"))?;
        let mut outer = router.clone();
        if kind == Double {
            outer = format!("s{side}");
            self.add(&outer)?;
            let between = format!("10.{n}.0");
            let (ours, theirs) = (at(&between, 2), at(&between, 1));
            self.cable((&router, "wan", &ours), (&outer, "lan", &theirs))?;
            self.default_by(&router, &format!("{between}.1"))?;
            self.nft(&router, &PortRestricted.rules(""))?;
        }
        let (ours, theirs) = (at(wan, 2), at(wan, 1));
        self.cable((&outer, "wan", &ours), ("net", &outer, &theirs))?;
        self.default_by(&outer, &format!("{wan}.1"))?;
        if kind == No {
            ip(&format!(
                "-n {}net route add {lan}.0/24 via {wan}.2",
                self.0
            ))?;
        }
        self.nft(&outer, &kind.rules(&format!("{lan}.2")))?;
        Ok(())
    }

    /// The way between two routers takes 30 ms.
    fn far_apart(a: Kind, b: Kind) -> Result<Self, String> {
        let mut world = Self::new(a, b)?;
        for (side, wan) in [("A", "198.51.100"), ("B", "203.0.113")] {
            let (router, between) = (format!("r{side}"), format!("d{side}"));
            ip(&format!("-n {}{router} link del wan", world.0))?;
            world.add(&between)?;
            let (ours, theirs) = (format!("{wan}.2/24"), format!("{wan}.1/24"));
            world.cable((&router, "wan", &ours), (&between, "one", ""))?;
            world.cable(("net", &router, &theirs), (&between, "two", ""))?;
            world.default_by(&router, &format!("{wan}.1"))?;
            world.run(&between, &["sysctl", "-qw", "net.ipv4.ip_forward=0"])?;
            // What is passed on has to be whole: no checksum is left to a device that is none.
            world.run(&router, &["ethtool", "-K", "wan", "tx", "off"])?;
            world.run("net", &["ethtool", "-K", &router, "tx", "off"])?;
            let slow = world
                .inside(&between)
                .args(["python3", "-c", SLOW])
                .stdout(Stdio::piped())
                .spawn();
            let mut slow = Ended(slow.map_err(|error| error.to_string())?);
            let mut up = String::new();
            let _ = BufReader::new(slow.0.stdout.take().unwrap()).read_line(&mut up);
            if up != "up\n" {
                return Err("no python3; install it".into());
            }
            world.1.push(slow);
        }
        Ok(world)
    }

    /// Both behind symmetric NATs; the router of host B maps ports for who asks it, by one of two ways.
    fn with_mapper(by_upnp: bool) -> Result<Self, String> {
        // It maps none at an address of documentation (RFC 5737), and nothing leaves these namespaces.
        let mut world = Self::at(Symmetric, Symmetric, "203.0.112")?;
        let rules = "table inet t {
             chain maps {
             }
             chain maps_nat {
             }
             chain maps_out {
             }
             chain pre { type nat hook prerouting priority dstnat; jump maps_nat
             }
             chain post { type nat hook postrouting priority srcnat; jump maps_out
             oifname wan masquerade fully-random
             }
             chain through { type filter hook forward priority 0;
             iifname lan accept
             ct state established,related accept
             jump maps
             drop
             }
             chain to { type filter hook input priority 0; iifname { lo, lan } accept
             ct state established,related accept
             drop
             }
             }";
        world.run("rB", &["nft", "flush", "ruleset"])?;
        world.nft("rB", rules)?;
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let file = folder.path().join("miniupnpd.conf");
        let yes = |it| if it { "yes" } else { "no" };
        let text = format!(
            "ext_ifname=wan\nlistening_ip=lan\nport=0\nsecure_mode=yes\nsystem_uptime=no\n\
             enable_upnp={}\nenable_natpmp={}\n\
             upnp_table_name=t\nupnp_nat_table_name=t\nupnp_forward_chain=maps\n\
             upnp_nat_chain=maps_nat\nupnp_nat_postrouting_chain=maps_out\n\
             uuid=0829dc81-c328-4614-be73-b1a4e69b13fd\nallow 1024-65535 0.0.0.0/0 1024-65535\n",
            yes(by_upnp),
            yes(!by_upnp)
        );
        std::fs::write(&file, text).map_err(|error| error.to_string())?;
        let mapper = world
            .inside("rB")
            .args(["miniupnpd", "-d", "-f"])
            .arg(&file)
            .arg("-P")
            .arg(folder.path().join("pid"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut mapper = Ended(mapper.map_err(|error| error.to_string())?);
        let said = mapper.0.stderr.take().unwrap();
        let mut said = BufReader::new(said).lines().map_while(Result::ok);
        let mut lines = Vec::new();
        while !lines
            .last()
            .is_some_and(|line: &String| line.to_lowercase().contains("listening"))
        {
            match said.next() {
                Some(line) => lines.push(line),
                None => return Err(format!("no miniupnpd: {}", lines.join("; "))),
            }
        }
        thread::spawn(move || said.for_each(drop));
        world.1.push(mapper);
        Ok(world)
    }

    /// Both behind one router, in two networks of it.
    fn behind_one() -> Result<Self, String> {
        let world = Self::empty();
        world.add("net")?;
        ip(&format!("-n {}net addr add 192.0.2.1/32 dev lo", world.0))?;
        world.side("A", PortRestricted, "198.51.100", 1)?;
        world.add("hB")?;
        let (host, router) = ("192.168.2.2/24", "192.168.2.1/24");
        world.cable(("hB", "eth", host), ("rA", "lan2", router))?;
        world.default_by("hB", "192.168.2.1")?;
        Ok(world)
    }

    /// IPv6: nothing is translated, and each router lets only those in who were talked to.
    fn firewalls() -> Result<Self, String> {
        let world = Self::empty();
        world.add("net")?;
        ip(&format!(
            "-n {}net addr add 2001:db8:ffff::1/128 dev lo",
            world.0
        ))?;
        for (side, n) in [("A", 1), ("B", 2)] {
            let (host, router) = (format!("h{side}"), format!("r{side}"));
            world.add(&host)?;
            world.add(&router)?;
            let at = |net: u8, n: u8| format!("2001:db8:{net}::{n}/64");
            let (ours, theirs) = (at(n, 2), at(n, 1));
            world.cable((&host, "eth", &ours), (&router, "lan", &theirs))?;
            world.default_by(&host, &format!("2001:db8:{n}::1"))?;
            let (ours, theirs) = (at(n + 10, 2), at(n + 10, 1));
            world.cable((&router, "wan", &ours), ("net", &router, &theirs))?;
            world.default_by(&router, &format!("2001:db8:{}::1", n + 10))?;
            let outside = format!("2001:db8:{n}::/64 via 2001:db8:{}::2", n + 10);
            ip(&format!("-n {}net route add {outside}", world.0))?;
            // Neighbours are found by ICMPv6.
            let rules = "table ip6 t {
             chain through { type filter hook forward priority 0;
             iifname lan accept
             ct state established,related accept
             drop
             }
             }";
            world.nft(&router, rules)?;
        }
        Ok(world)
    }

    /// The tool at one of them.
    fn cepa(&self, place: &Place, host: &str, words: &[&str]) -> Command {
        let mut command = self.inside(host);
        command
            .arg(bin())
            .args(words)
            .env("CEPA_CONFIG_DIR", place.path(host))
            .env_remove("RUST_LOG")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

/// What of the two a host lets out to others than the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Tcp,
    Udp,
    Both,
}

impl By {
    /// Rules of a host.
    fn rules(self) -> String {
        let held = match self {
            Self::Tcp => "meta l4proto udp drop",
            Self::Udp => "ip daddr != 192.0.2.1 meta l4proto tcp drop",
            Self::Both => return String::new(),
        };
        format!(
            "table ip only {{
             chain out {{ type filter hook output priority 0; oifname lo accept
             {held}
             }}
             }}"
        )
    }
}

/// What has come of a pair.
struct Found {
    direct: bool,
    /// It is a connection of QUIC.
    quic: bool,
    lines: Vec<String>,
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Host A counts at host B, until the session is direct or is not to be, and some time more. With `cut` the direct path is cut then,
/// and it counts until the session goes on by the relay.
fn count_between(world: &World, relay_at: &str, cut: bool, direct: &str) -> Found {
    count_until(world, relay_at, cut, direct, 1, &|| ())
}

/// The same, with so many attempts if they come to nothing; what is at the end is called while host B still serves.
fn count_until(
    world: &World,
    relay_at: &str,
    cut: bool,
    direct: &str,
    attempts: usize,
    at_end: &dyn Fn(),
) -> Found {
    let place = Place::new();
    let by_quic = relay_at.replacen("tcp:", "quic:", 1);
    let words = ["relay", relay_at, &by_quic, "--allow", "any"];
    let mut relay = world.cepa(&place, "net", &words);
    let relay = Server::of(&mut relay, "relaying on ");
    let relay_id = relay
        .seen()
        .iter()
        .find_map(|line| line.split("cepa://").nth(1));
    let relay_id = relay_id.unwrap().split('@').next().unwrap().to_owned();
    let at = format!("cepa://{relay_id}@{relay_at}");
    let words = [
        "serve",
        "--register",
        &at,
        "--service",
        "count=echo:",
        "--allow",
        "any",
        "-v",
        "--direct",
        direct,
    ];
    let served = Server::of(&mut world.cepa(&place, "hB", &words), "reachable at ");
    let to = served
        .seen()
        .iter()
        .find_map(|line| line.strip_prefix("reachable at "));
    let to = format!("{}/count", to.unwrap());
    let words = ["connect", "--durable", "-v", &to];
    let mut client = world.cepa(&place, "hA", &words).spawn().unwrap();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&lines);
    let stderr = client.stderr.take().unwrap();
    let reading = thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            heard.lock().unwrap().push(line);
        }
    });
    let (mut stdin, stdout) = (client.stdin.take().unwrap(), client.stdout.take().unwrap());
    let client = Ended(client);
    let counted = thread::spawn(move || {
        let lines = BufReader::new(stdout).lines();
        lines.map_while(Result::ok).collect::<Vec<_>>()
    });
    let often = |what: &str| {
        let lines = lines.lock().unwrap();
        lines.iter().filter(|line| line.contains(what)).count()
    };
    let saw = |what: &str| often(what) > 0;
    let (start, mut sent, mut more, mut cut) = (Instant::now(), 0, 200, cut);
    while more > 0 {
        writeln!(stdin, "{sent}").unwrap();
        sent += 1;
        if cut && saw("now direct to") {
            let rules = "table ip t {
             chain through { type filter hook forward priority 0; drop
             }
             }";
            world.nft("net", rules).unwrap();
            cut = false;
            more = 201;
        }
        let settled = if more > 200 {
            saw("is back after")
        } else {
            saw("now direct to") || often("not direct to") >= attempts
        };
        if more < 200 || settled {
            more = more.min(200) - 1;
        }
        assert!(start.elapsed() < PATIENCE, "{:#?}", lines.lock().unwrap());
        thread::sleep(Duration::from_millis(2));
    }
    drop(stdin);
    let counted = counted.join().unwrap();
    let expected: Vec<String> = (0..sent).map(|n| n.to_string()).collect();
    assert!(
        counted == expected,
        "{} of {sent} came back: {:#?}",
        counted.len(),
        lines.lock().unwrap()
    );
    let (direct, quic) = (saw("now direct to"), saw("(quic "));
    drop(client);
    reading.join().unwrap();
    at_end();
    let lines = std::mem::take(&mut *lines.lock().unwrap());
    Found {
        direct,
        quic,
        lines,
    }
}

const AT: &str = "tcp:192.0.2.1:7711";

/// What comes of it; nothing where this machine can't have such a world.
fn found(world: Result<World, String>, relay_at: &str, cut: bool) -> Option<Found> {
    match world {
        Ok(world) => Some(count_between(&world, relay_at, cut, "yes")),
        Err(why) => {
            skipped(&format!(
                "routers take root, iproute2, nftables, ethtool and python3: {why}"
            ));
            None
        }
    }
}

fn pair(a: Kind, b: Kind, by: By) -> Option<Found> {
    let world = World::new(a, b).and_then(|world| {
        for host in ["hA", "hB"] {
            world.nft(host, &by.rules())?;
        }
        Ok(world)
    });
    found(world, AT, false)
}

/// Each one's SYN has left before the other one's arrives, or both are refused.
#[test]
fn two_nats_that_reset_what_they_do_not_know_become_direct() {
    let world = World::far_apart(PortRestrictedReset, PortRestrictedReset);
    if let Some(found) = found(world, AT, false) {
        assert!(found.direct, "{:#?}", found.lines);
    }
}

#[test]
fn two_behind_one_router_and_two_behind_firewalls_become_direct() {
    let at_v6 = "tcp:[2001:db8:ffff::1]:7711";
    let worlds = [(World::behind_one(), AT), (World::firewalls(), at_v6)];
    for (world, relay_at) in worlds {
        if let Some(found) = found(world, relay_at, false) {
            assert!(found.direct, "{:#?}", found.lines);
        }
    }
}

/// What has come of each of these, a few at a time.
fn all(pairs: &[(Kind, Kind, By)]) -> Vec<(Kind, Kind, By, Found)> {
    let waiting = Mutex::new(pairs.iter().copied());
    let found = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().unwrap().next();
                    let Some((a, b, by)) = next else { return };
                    let Some(it) = pair(a, b, by) else { return };
                    found.lock().unwrap().push((a, b, by, it));
                }
            });
        }
    });
    found.into_inner().unwrap()
}

#[test]
fn who_does_not_want_to_stays_behind_the_relay() {
    match World::new(No, No) {
        Ok(world) => {
            let found = count_between(&world, AT, false, "no");
            assert!(!found.direct, "{:#?}", found.lines);
        }
        Err(why) => skipped(&why),
    }
}

#[test]
fn what_is_no_choice_is_said() {
    let place = Place::new();
    let wrong = "expected yes, public, unmapped, public,unmapped or no";
    let line = place.fails(&["--direct", "maybe", "serve", "tcp:127.0.0.1:0"], 2);
    assert!(line.contains(wrong), "{line}");
    let file = place.text("node.toml");
    let node = "listen = [\"tcp:127.0.0.1:0\"]\ndirect = \"maybe\"\n";
    std::fs::write(&file, node).unwrap();
    let line = place.fails(&["node", "--config", &file, "--check"], 2);
    assert!(line.contains(&format!("node.toml:2: {wrong}")), "{line}");
    std::fs::create_dir_all(place.path("config")).unwrap();
    let settings = place.path("config").join("config.toml");
    std::fs::write(&settings, "direct = \"maybe\"\n").unwrap();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&settings, private).unwrap();
    let line = place.fails(&["serve", "tcp:127.0.0.1:0", "--allow", "any"], 2);
    assert!(
        line.contains("config.toml:1: ") && line.contains(wrong),
        "{line}"
    );
}

/// The second attempt has a port that the router maps; which is removed when the session is over.
#[test]
fn two_symmetric_nats_become_direct_where_a_router_maps_a_port() {
    for by_upnp in [false, true] {
        let world = match World::with_mapper(by_upnp) {
            Ok(world) => world,
            Err(why) => {
                skipped(&format!(
                    "a router that maps takes root, iproute2, nftables and miniupnpd: {why}"
                ));
                continue;
            }
        };
        let mapped = || {
            let mut nft = world.inside("rB");
            let rules = nft.args(["nft", "list", "chain", "inet", "t", "maps_nat"]);
            let rules = rules.output().unwrap();
            assert!(rules.status.success(), "{}", text(&rules.stderr));
            text(&rules.stdout).contains("dnat ip to 192.168.2.2:")
        };
        let was_mapped = std::cell::Cell::new(false);
        let found = count_until(&world, AT, false, "yes", 2, &|| {
            was_mapped.set(mapped());
            let start = Instant::now();
            while mapped() {
                assert!(start.elapsed() < PATIENCE, "the port is still mapped");
                thread::sleep(Duration::from_millis(100));
            }
        });
        let what = format!("by UPnP: {by_upnp}: {:#?}", found.lines);
        assert!(found.direct && !found.quic, "{what}");
        assert!(was_mapped.get(), "{what}");
    }
}

#[test]
fn no_router_is_asked_where_the_owner_does_not_want_it() {
    match World::with_mapper(false) {
        Ok(world) => {
            let found = count_until(&world, AT, false, "unmapped", 2, &|| ());
            assert!(!found.direct, "{:#?}", found.lines);
        }
        Err(why) => skipped(&why),
    }
}

/// What was on its way is sent again, over the relay.
#[test]
fn a_direct_path_that_is_cut_is_followed_by_the_relay() {
    let world = World::new(PortRestricted, FullCone);
    if let Some(found) = found(world, AT, true) {
        let back = |line: &String| line.contains("is back after");
        assert!(found.lines.iter().any(back), "{:#?}", found.lines);
    }
}

/// The pairs that differ in what has to happen; all of them are in the table.
#[test]
fn pairs_become_direct_where_their_nats_let_them_and_none_loses_a_byte() {
    let pairs = [
        (PortRestricted, PortRestricted),
        (PortRestricted, PortRestrictedReset),
        (No, Symmetric),
        (Symmetric, FullCone),
        (Restricted, PortRestricted),
        (Double, PortRestricted),
        (Symmetric, Symmetric),
    ];
    let all = all(&pairs.map(|(a, b)| (a, b, By::Both)));
    for (a, b, _, found) in all {
        let expected = (a, b) != (Symmetric, Symmetric);
        let what = format!("{} and {}: {:#?}", a.name(), b.name(), found.lines);
        assert_eq!(found.direct, expected, "{what}");
        assert!(!found.quic, "{what}");
    }
}

/// Where TCP leads nowhere, or its SYNs miss each other.
#[test]
fn pairs_become_direct_by_quic_and_none_loses_a_byte() {
    let pairs = [
        (PortRestricted, PortRestricted, By::Udp),
        (FullCone, Symmetric, By::Udp),
        (Double, Restricted, By::Udp),
        (Symmetric, Restricted, By::Udp),
        (PortRestrictedReset, PortRestrictedReset, By::Both),
    ];
    for (a, b, by, found) in all(&pairs) {
        let what = format!("{} and {}, {by:?}: {:#?}", a.name(), b.name(), found.lines);
        assert!(found.direct && found.quic, "{what}");
    }
}

#[test]
fn the_table_of_all_pairs() {
    let Some(file) = std::env::var_os("CEPA_NAT_TABLE") else {
        return;
    };
    let kinds = [
        No,
        FullCone,
        Restricted,
        PortRestricted,
        PortRestrictedReset,
        Symmetric,
        Double,
    ];
    let ways = [By::Tcp, By::Udp];
    let pairs = kinds.iter().flat_map(|a| kinds.iter().map(|b| (*a, *b)));
    let pairs: Vec<_> = pairs.flat_map(|(a, b)| ways.map(|by| (a, b, by))).collect();
    let found = all(&pairs);
    let names = kinds.map(Kind::name).join(" | ");
    let mut table = format!(
        "| dials \\ registered | {names} |\n|---|{}\n",
        "---|".repeat(7)
    );
    for a in kinds {
        let _ = write!(table, "| {} |", a.name());
        for b in kinds {
            let by = |by| {
                let is_it = |it: &&(Kind, Kind, By, Found)| (it.0, it.1, it.2) == (a, b, by);
                found.iter().find(is_it).is_some_and(|it| it.3.direct)
            };
            let said = match ways.map(by) {
                [true, true] => "both",
                [true, false] => "TCP",
                [false, true] => "QUIC",
                [false, false] => "relay",
            };
            let _ = write!(table, " {said} |");
        }
        table.push('\n');
    }
    std::fs::write(file, table).unwrap();
}
