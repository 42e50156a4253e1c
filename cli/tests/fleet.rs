//! A fleet of relays, between real processes, on an etcd that the test starts.

mod common;

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cepa_fleet::testkit::{self, Etcd};
use common::programs::skipped;
use common::{PATIENCE, Place, Server, text};
use serde_json::Value;

fn etcd(members: usize) -> Option<Etcd> {
    if testkit::program().is_none() {
        skipped("etcd can not be found: install etcd-server, whose own daemon is not used");
        return None;
    }
    Some(Etcd::with(members, "http", &[]).expect("an etcd that starts"))
}

/// Relays that know each other's ids.
struct Fleet {
    place: Place,
    store: String,
    ids: Vec<String>,
    relays: Vec<Option<Server>>,
    addresses: Vec<String>,
}

impl Fleet {
    fn start(relays: usize, hosts: &str) -> Self {
        let place = Place::new();
        let made = (0..relays).map(|n| place.identity(&format!("relay{n}.pem")).1);
        let ids = made.collect();
        let mut fleet = Self {
            place,
            store: format!("etcd://{hosts}/cepa"),
            ids,
            relays: Vec::new(),
            addresses: Vec::new(),
        };
        for n in 0..relays {
            let relay = fleet.relay(n, "tcp:127.0.0.1:0");
            let address = last_word(relay.seen(), "relaying on ");
            fleet.addresses.push(address);
            fleet.relays.push(Some(relay));
        }
        fleet
    }

    fn relay(&self, n: usize, at: &str) -> Server {
        let identity = self.place.text(&format!("relay{n}.pem"));
        let control = self.place.text(&format!("relay{n}.sock"));
        let mut words = vec!["relay", at, "--identity", &identity, "--allow", "any"];
        words.extend(["--control", &control, "--fleet", &self.store]);
        words.extend(["--metrics", "0", "--fleet-peer"]);
        let others = self.ids.iter().enumerate().filter(|(other, _)| *other != n);
        words.extend(others.map(|(_, id)| id.as_str()));
        Server::start_at(&self.place, &words, "relaying on ")
    }

    /// The same relay at the same address, once more.
    fn again(&mut self, n: usize) {
        let (_, at) = self.addresses[n].split_once('@').unwrap();
        self.relays[n] = Some(self.relay(n, at));
    }

    /// One more, which knows the others; they do not know it.
    fn newcomer(&mut self) {
        let n = self.ids.len();
        self.ids
            .push(self.place.identity(&format!("relay{n}.pem")).1);
        let relay = self.relay(n, "tcp:127.0.0.1:0");
        self.addresses.push(last_word(relay.seen(), "relaying on "));
        self.relays.push(Some(relay));
    }

    fn server(&mut self, n: usize) -> &mut Server {
        self.relays[n].as_mut().expect("it runs")
    }

    /// A server without a listener, registered at these relays; the process, and its peer id.
    fn node(&self, name: &str, at: &[usize]) -> (Server, String) {
        let (identity, id) = self.place.identity(&format!("{name}.pem"));
        let mut words = vec!["serve", "--service", "up=exec:cat", "--allow", "any"];
        words.extend(["--identity", &identity]);
        for n in at {
            words.extend(["--register", &self.addresses[*n]]);
        }
        (Server::start_at(&self.place, &words, "reachable at "), id)
    }

    /// A server that says one word to who comes, by the key of this name.
    fn says(&self, word: &str, name: &str, at: usize) -> (Server, String) {
        let identity = self.place.text(&format!("{name}.pem"));
        if !self.place.path(&format!("{name}.pem")).exists() {
            self.place.identity(&format!("{name}.pem"));
        }
        let id = self
            .place
            .succeeds(&["id", "show", "--identity", &identity]);
        let service = format!("up=exec:echo {word}");
        let words = [
            "serve",
            "--service",
            &service,
            "--allow",
            "any",
            "--identity",
            &identity,
        ];
        let register = ["--register", &self.addresses[at]];
        let words = [&words[..], &register[..]].concat();
        let server = Server::start_at(&self.place, &words, "reachable at ");
        (server, id.split_whitespace().next().unwrap().to_owned())
    }

    /// Until who is reached through a relay says this.
    #[track_caller]
    fn answers(&self, n: usize, id: &str, word: &str) {
        let start = Instant::now();
        loop {
            let output = self.place.run(&["connect", &self.through(n, id)]);
            let said = text(&output.stdout);
            if said.trim() == word {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{said}{}", text(&output.stderr));
            thread::sleep(Duration::from_millis(200));
        }
    }

    fn through(&self, n: usize, id: &str) -> String {
        let relay = self.addresses[n].strip_prefix("cepa://").unwrap();
        format!("cepa://{id}@relay:{relay}/up")
    }

    /// Whether a peer is reached through a relay, now.
    fn reaches(&self, n: usize, id: &str) -> Result<(), String> {
        let words = ["connect", &self.through(n, id)];
        let output = self.place.run_with(&words, b"x\n");
        if text(&output.stdout) == "x\n" {
            return Ok(());
        }
        Err(text(&output.stderr))
    }

    /// Until it is.
    #[track_caller]
    fn reaches_in_time(&self, n: usize, id: &str) {
        let start = Instant::now();
        let mut last = String::new();
        while start.elapsed() < PATIENCE {
            match self.reaches(n, id) {
                Ok(()) => return,
                Err(why) => last = why,
            }
            thread::sleep(Duration::from_millis(200));
        }
        let all: Vec<_> = (0..self.relays.len()).map(|n| self.status(n)).collect();
        panic!("not reached: {last}\n{all:#?}");
    }

    fn status(&self, n: usize) -> Value {
        if self.relays[n].is_none() {
            return Value::Null;
        }
        let control = self.place.text(&format!("relay{n}.sock"));
        let printed = self
            .place
            .succeeds(&["status", "--json", "--control", &control]);
        serde_json::from_str::<Value>(&printed).unwrap()["fleet"].take()
    }

    #[track_caller]
    fn until(&self, n: usize, what: &str, is: impl Fn(&Value) -> bool) {
        let start = Instant::now();
        loop {
            let fleet = self.status(n);
            if is(&fleet) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{what}: {fleet}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// All of them see each other.
    #[track_caller]
    fn whole(&self) {
        let others = self.ids.len() - 1;
        for n in 0..self.ids.len() {
            self.until(n, "the others", |it| count(&it["present"]) == others);
        }
    }
}

fn count(list: &Value) -> usize {
    list.as_array().map_or(0, Vec::len)
}

fn last_word(lines: &[String], begin: &str) -> String {
    let line = lines.iter().find(|line| line.starts_with(begin)).unwrap();
    line.split(' ').next_back().unwrap().to_owned()
}

/// A connection that stays.
struct Open {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Open {
    fn new(fleet: &Fleet, n: usize, id: &str) -> Self {
        let words = ["connect", &fleet.through(n, id)];
        let mut child = fleet
            .place
            .cepa(&words)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let from = BufReader::new(from);
        let mut open = Self { child, to, from };
        open.echoes("first");
        open
    }

    #[track_caller]
    fn echoes(&mut self, word: &str) {
        writeln!(self.to, "{word}").unwrap();
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        assert_eq!(line, format!("{word}\n"));
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_peer_registered_at_one_relay_is_reached_through_each() {
    let Some(etcd) = etcd(1) else { return };
    let mut fleet = Fleet::start(3, &etcd.hosts());
    fleet.whole();
    let (_one, one) = fleet.node("one", &[0]);
    let (_two, two) = fleet.node("two", &[1]);
    for n in 0..3 {
        fleet.reaches_in_time(n, &one);
        fleet.reaches_in_time(n, &two);
    }
    // What there is to see of it.
    let seen = fleet.status(2);
    assert_eq!(seen["registrations_elsewhere"], 2, "{seen}");
    assert_eq!(seen["reachable"], true);
    assert!(seen["lookups"].as_u64().unwrap() >= 2);
    assert!(seen["circuits_out"].as_u64().unwrap() >= 2);
    assert!(fleet.status(0)["circuits_in"].as_u64().unwrap() >= 1);
    let control = fleet.place.text("relay2.sock");
    let table = fleet.place.succeeds(&["status", "--control", &control]);
    assert!(
        table.contains("2 of 2 others, with 2 registrations; 0 here"),
        "{table}"
    );
    assert!(
        table.lines().all(|line| line.chars().count() <= 80),
        "{table}"
    );
    let metrics = fleet
        .server(2)
        .seen()
        .iter()
        .find(|line| line.starts_with("metrics at "));
    let metrics = metrics.expect("said before it relays").clone();
    let place = metrics
        .split("http://")
        .nth(1)
        .unwrap()
        .split('/')
        .next()
        .unwrap();
    let page = scrape(place);
    assert!(page.contains("\ncepa_fleet_present_relays 2\n"), "{page}");
    assert!(
        page.contains("\ncepa_fleet_registrations_elsewhere 2\n"),
        "{page}"
    );

    // Who is nowhere is nowhere.
    let (_, nobody) = fleet.place.identity("nobody.pem");
    let line = fleet
        .place
        .fails(&["connect", &fleet.through(1, &nobody)], 5);
    assert!(line.contains("not registered there"), "{line}");

    // One that ends takes back what it has entered, at once.
    fleet.server(0).signal("TERM");
    assert_eq!(fleet.relays[0].take().unwrap().finish().0, Some(0));
    let keys = etcd
        .ctl(["get", "--prefix", "--keys-only", "cepa/"])
        .unwrap();
    let gone = &fleet.ids[0];
    assert!(!keys.lines().any(|key| key.ends_with(&**gone)), "{keys}");
    fleet.until(2, "one of them is gone", |it| count(&it["present"]) == 1);
}

/// The likeliest mistake: a new relay is told of the others, and they are not told of it.
#[test]
fn a_relay_that_the_others_do_not_list_is_named_at_both_ends() {
    let Some(etcd) = etcd(1) else { return };
    let mut fleet = Fleet::start(2, &etcd.hosts());
    fleet.newcomer();
    let (_node, id) = fleet.node("one", &[0]);
    fleet.until(2, "the registration", |it| {
        it["registrations_elsewhere"] == 1
    });
    let newcomer = fleet.ids[2].clone();
    let line = fleet
        .place
        .fails_quietly(&["connect", &fleet.through(2, &id)], 5);
    let next = format!("--fleet-peer {newcomer}");
    assert!(line.contains(&next), "{line}");
    fleet.server(2).wait_for(&next);
    let lists = format!("not in this one's --fleet-peer: give {newcomer}");
    fleet.server(0).wait_for(&lists);
    fleet.until(0, "what is ignored", |it| it["ignored_foreign"] != 0);
    let control = fleet.place.text("relay0.sock");
    let table = fleet.place.succeeds(&["status", "--control", &control]);
    assert!(
        table.contains("of relays that are not in --fleet-peer"),
        "{table}"
    );
}

fn scrape(place: &str) -> String {
    let mut stream = TcpStream::connect(place).unwrap();
    let request = format!("GET /metrics HTTP/1.1\r\nhost: {place}\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    page
}

#[test]
fn a_relay_that_is_killed_is_no_loss_for_who_is_registered_at_two() {
    let Some(etcd) = etcd(1) else { return };
    let mut fleet = Fleet::start(3, &etcd.hosts());
    let (_node, node) = fleet.node("both", &[0, 1]);
    fleet.reaches_in_time(2, &node);
    fleet.server(0).signal("KILL");
    fleet.relays[0] = None;
    fleet.reaches_in_time(2, &node);
    fleet.reaches_in_time(1, &node);
    fleet.until(2, "its lease has ended", |it| count(&it["present"]) == 1);
    fleet.reaches_in_time(2, &node);
    // Back, it is one of them again.
    fleet.again(0);
    fleet.whole();
    fleet.reaches_in_time(0, &node);
}

#[test]
fn nodes_move_when_their_relay_is_killed_or_ends() {
    let Some(etcd) = etcd(1) else { return };
    let mut fleet = Fleet::start(3, &etcd.hosts());
    fleet.whole();
    let (mut node, id) = fleet.node("moves", &[0]);
    fleet.reaches_in_time(2, &id);
    fleet.server(0).signal("KILL");
    fleet.relays[0] = None;
    // Through each of the others, wherever it has gone.
    fleet.reaches_in_time(1, &id);
    fleet.reaches_in_time(2, &id);
    fleet.again(0);
    fleet.whole();
    // The one that it is at ends in order: it goes to another one.
    let at = (1..3).find(|n| fleet.status(*n)["registrations"] != 0);
    let at = at.unwrap_or_default();
    fleet.server(at).signal("TERM");
    assert_eq!(fleet.relays[at].take().unwrap().finish().0, Some(0));
    let left = (0..3).find(|n| *n != at).unwrap();
    fleet.reaches_in_time(left, &id);
    assert!(node.is_running());
}

#[test]
fn an_etcd_that_is_killed_and_comes_back_costs_no_circuit_and_no_registration() {
    let Some(mut etcd) = etcd(1) else { return };
    let mut fleet = Fleet::start(2, &etcd.hosts());
    let (_one, one) = fleet.node("one", &[0]);
    fleet.reaches_in_time(1, &one);
    let (mut near, mut far) = (Open::new(&fleet, 0, &one), Open::new(&fleet, 1, &one));
    etcd.kill(0).unwrap();
    fleet.server(0).wait_for("fleet: no etcd: ");
    fleet.until(1, "away", |it| it["reachable"] == false);
    near.echoes("without");
    far.echoes("without");
    // Who is registered is reached as before, and who comes meanwhile through its own relay.
    fleet.reaches(0, &one).unwrap();
    fleet.reaches(1, &one).unwrap();
    let (_two, two) = fleet.node("two", &[0]);
    fleet.reaches_in_time(0, &two);
    assert!(fleet.reaches(1, &two).is_err());
    etcd.start_again(0).unwrap();
    fleet.server(0).wait_for("is there again");
    fleet.reaches_in_time(1, &two);
    fleet.reaches_in_time(1, &one);
    near.echoes("again");
    far.echoes("again");
    for n in 0..2 {
        assert!(fleet.server(n).is_running());
    }
}

#[test]
fn an_etcd_that_forgets_a_lease_is_told_everything_again() {
    let Some(etcd) = etcd(1) else { return };
    let mut fleet = Fleet::start(2, &etcd.hosts());
    let (_one, one) = fleet.node("one", &[0]);
    fleet.reaches_in_time(1, &one);
    let leases = etcd.ctl(["lease", "list"]).unwrap();
    for lease in leases.lines().filter(|line| line.len() == 16) {
        etcd.ctl(["lease", "revoke", lease]).unwrap();
    }
    fleet.server(0).wait_for("the lease has ended");
    fleet.reaches_in_time(1, &one);
    // What somebody else deletes is entered again.
    etcd.ctl(["del", "--prefix", "cepa/r/"]).unwrap();
    fleet.reaches_in_time(1, &one);
}

/// One relay that reaches etcd no more still has its nodes. Of two processes with one key the one that registered last is the peer, and
/// stays that when the other's relay is back and enters what it has had all the time.
#[test]
fn of_two_registrations_on_two_sides_of_a_split_the_newer_one_counts() {
    let Some(etcd) = etcd(1) else { return };
    let gate = Gate::start(etcd.endpoint(0));
    let mut fleet = Fleet::start(3, &etcd.hosts());
    // The first relay alone has another way to etcd.
    fleet.server(0).signal("TERM");
    assert_eq!(fleet.relays[0].take().unwrap().finish().0, Some(0));
    let store = std::mem::replace(&mut fleet.store, format!("etcd://{}/cepa", gate.place()));
    fleet.again(0);
    fleet.store = store;
    fleet.whole();
    let (_old, id) = fleet.says("old", "twice", 0);
    fleet.answers(2, &id, "old");
    gate.cut();
    fleet.server(0).wait_for("fleet: no etcd: ");
    let (_new, same) = fleet.says("new", "twice", 1);
    assert_eq!(id, same);
    fleet.answers(2, &id, "new");
    // Cut off, the relay leads to what it has: it cannot know better.
    fleet.answers(0, &id, "old");
    fleet.until(2, "the lease of the one is over", |it| {
        count(&it["present"]) == 1
    });
    fleet.answers(2, &id, "new");
    gate.open();
    fleet.server(0).wait_for("is there again");
    fleet.until(0, "all is entered again", |it| {
        it["waiting"] == 0 && it["reachable"] == true
    });
    fleet.whole();
    for n in [1, 2, 0] {
        fleet.answers(n, &id, "new");
    }
}

/// A TCP way on loopback that a test cuts and opens again.
struct Gate {
    port: u16,
    open: Arc<AtomicBool>,
}

impl Gate {
    fn start(to: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let open = Arc::new(AtomicBool::new(true));
        let is_open = Arc::clone(&open);
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                if !is_open.load(Ordering::Relaxed) {
                    continue;
                }
                let Ok(far) = TcpStream::connect(&to) else {
                    continue;
                };
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let is_open = Arc::clone(&is_open);
                    thread::spawn(move || {
                        let mut buffer = [0; 16 << 10];
                        let _ = from.set_read_timeout(Some(Duration::from_millis(50)));
                        while is_open.load(Ordering::Relaxed) {
                            match from.read(&mut buffer) {
                                Ok(0) => break,
                                Ok(n) if to.write_all(&buffer[..n]).is_err() => break,
                                Err(e) if e.kind() != ErrorKind::WouldBlock => break,
                                _ => {}
                            }
                        }
                        let _ = from.shutdown(Shutdown::Both);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        Self { port, open }
    }

    fn place(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn cut(&self) {
        self.open.store(false, Ordering::Relaxed);
    }

    fn open(&self) {
        self.open.store(true, Ordering::Relaxed);
    }
}

#[test]
fn relays_start_without_etcd_and_find_each_other_when_it_comes() {
    let Some(mut etcd) = etcd(1) else { return };
    etcd.kill(0).unwrap();
    let fleet = Fleet::start(2, &etcd.hosts());
    let warned = fleet.relays[0].as_ref().unwrap().seen();
    let warning = warned
        .iter()
        .find(|line| line.contains("the relay starts without"));
    assert!(warning.is_some(), "{warned:?}");
    let (_one, one) = fleet.node("one", &[0]);
    fleet.reaches_in_time(0, &one);
    etcd.start_again(0).unwrap();
    fleet.reaches_in_time(1, &one);
}

/// An image of a machine that was copied with its key.
#[test]
fn two_relays_with_one_identity_both_warn() {
    let Some(etcd) = etcd(1) else { return };
    let mut fleet = Fleet::start(2, &etcd.hosts());
    fleet.whole();
    let identity = fleet.place.text("relay0.pem");
    let mut words = vec!["relay", "tcp:127.0.0.1:0", "--identity", &identity];
    let store = fleet.store.clone();
    words.extend(["--allow", "any", "--fleet", &store, "--fleet-peer"]);
    let other = fleet.ids[1].clone();
    words.push(&other);
    let mut image = Server::start_at(&fleet.place, &words, "relaying on ");
    let warning = format!(
        "warning: another relay uses this identity in the fleet ({})",
        fleet.ids[0]
    );
    image.wait_for(&warning);
    fleet.server(0).wait_for(&warning);
}

/// When it ends, a relay gives circuits 3 s, though it is known to nobody any more.
#[test]
fn a_relay_that_ends_waits_for_its_circuits_and_no_longer() {
    let Some(etcd) = etcd(1) else { return };
    let mut fleet = Fleet::start(2, &etcd.hosts());
    // Registered elsewhere: there is nobody who has to move first.
    let (_node, id) = fleet.node("one", &[1]);
    fleet.reaches_in_time(0, &id);
    let mut standing = Open::new(&fleet, 0, &id);
    let key = format!("cepa/m/{}", fleet.ids[0]);
    let is_entered = || {
        !etcd
            .ctl(["get", "--keys-only", &key])
            .unwrap()
            .trim()
            .is_empty()
    };
    assert!(is_entered());
    fleet.server(0).signal("TERM");
    let mut entered = Instant::now();
    loop {
        let look = Instant::now();
        if !is_entered() {
            break;
        }
        entered = look;
    }
    // It was entered at that time, so that its 3 s have begun later.
    assert_eq!(fleet.relays[0].take().unwrap().finish().0, Some(0));
    let waited = entered.elapsed();
    assert!(waited >= Duration::from_secs(3), "{waited:?}");
    // By then the circuit is gone.
    let mut rest = String::new();
    standing.from.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
}
