//! docs/COOKBOOK.md.

use crate::common::{noise, sha256};
use crate::document::Walk;
use crate::machines::{self, Job, Machine, Machines, word_on};

const COOKBOOK: &str = "docs/COOKBOOK.md";

/// Where each begins, and what is behind it.
pub(crate) const WALKS: &[(&str, &str)] = &[
    ("## Show somebody a service", "## "),
    ("## Encrypt a serial console", "## "),
    ("## Carry a protocol", "## "),
    ("## Send files", "## "),
    ("## One port", "## "),
    ("## Let somebody run", "## "),
];

/// The id in what a relay prints, which is all that the document shortens of it.
#[track_caller]
fn relay(walk: &mut Walk, machine: &Machine) -> Job {
    let mut relaying = walk.start(machine, "relaying on ");
    let address = relaying.word("cepa://");
    let id = address.strip_prefix("cepa://").unwrap();
    walk.learn("5n7w…", id.split('@').next().unwrap());
    assert_eq!(
        address,
        walk.whole("cepa://5n7w…@tcp:relay.example:7711"),
        "as the document has it"
    );
    relaying
}

#[track_caller]
fn page(machine: &Machine, port: u16) -> String {
    machine.run(&format!("curl -sS http://127.0.0.1:{port}"))
}

fn hash(content: &[u8]) -> String {
    let line = sha256(content);
    line.split(' ').next().unwrap().to_owned()
}

#[test]
fn a_service_behind_a_nat() {
    let names = ["relay relay.example", "home", "friend"];
    let Some(machines) = Machines::new(&names) else {
        return;
    };
    let [relaying, home, friend] = machines.each();
    let mut walk = Walk::section(COOKBOOK, "## Show somebody a service");
    let _web = home.web("127.0.0.1:8080", "it is yours");
    let _relay = relay(&mut walk, relaying);

    let mut sharing = home.sit_down(&walk.next(home));
    sharing.until("cepa forward ");
    walk.learn("ticket:AQvQ…", &word_on(&mut sharing, "ticket:"));
    let forwarding = walk.start(friend, "listening on ");
    assert_eq!(page(friend, 8080), "it is yours\n");
    forwarding.interrupt();
    sharing.type_in("\x03");
    assert_eq!(sharing.leave().0, Some(0));

    walk.learn("ab2…", &friend.id());
    walk.learn("cd4…", &home.id());
    let _serving = walk.start(home, "reachable at ");
    let _forwarding = walk.start(friend, "listening on ");
    assert_eq!(page(friend, 8080), "it is yours\n");
    walk.end();
}

/// As much of systemd as the walk needs: a unit of a template is read and started, and what it says is kept.
const SYSTEMCTL: &str = r##"#!/usr/bin/env python3
import os, shlex, signal, subprocess, sys
action, now, unit = sys.argv[1:]
running = f"/run/{unit}.pid"
if action == "disable":
    if os.path.exists(running):
        os.kill(int(open(running).read()), signal.SIGTERM)
    sys.exit(0)
assert (action, now) == ("enable", "--now"), sys.argv
template, instance = unit.split("@")
def expanded(text):
    for code, value in ("%i", instance), ("%I", instance), ("%S", "/var/lib"):
        text = text.replace(code, value)
    return text
env, service = dict(os.environ), {}
for line in open(f"/etc/systemd/system/{template}@.service"):
    name, equals, value = line.strip().partition("=")
    if not equals or line.startswith("#"):
        continue
    value = expanded(value)
    if name == "Environment":
        env.update(word.split("=", 1) for word in shlex.split(value))
    elif name == "EnvironmentFile":
        for setting in open(value):
            name, _, value = setting.strip().partition("=")
            env[name] = value
    service[name] = value
words = []
for word in service["ExecStart"].split():
    # ${NAME} is one word or a part of one, $NAME is as many as there are in it.
    if word.startswith("$") and not word.startswith("${"):
        words += env[word[1:]].split()
    else:
        for name, value in env.items():
            word = word.replace("${" + name + "}", value)
        words.append(word)
log = open(f"/var/log/{unit}.log", "w")
started = subprocess.Popen(words, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
open(running, "w").write(str(started.pid))
"##;

#[test]
fn a_serial_console_is_encrypted() {
    let Some(machines) = Machines::new(&["board", "bench"]) else {
        return;
    };
    let [board, bench] = machines.each();
    let mut walk = Walk::section(COOKBOOK, "## Encrypt a serial console");
    let _line = machines::line(board, "ttyS1", bench, "ttyUSB0");
    walk.learn("ab2…", &bench.id());
    board.stand_in("sudo", "#!/bin/sh\nexec \"$@\"\n");
    board.stand_in("systemctl", SYSTEMCTL);
    let unit = "dist/systemd/cepa-getty@.service";
    let dist = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../dist/systemd/cepa-getty@.service"
    );
    board.write(&format!("/home/board/{unit}"), std::fs::read(dist).unwrap());

    for _ in 0..3 {
        walk.run(board);
    }
    let log = "/var/log/cepa-getty@ttyS1.log";
    let mut up = board.start(&format!("exec tail -n +1 -f {log}"));
    let id = up.line("listening on ");
    walk.learn("ef6…", id.split(' ').next_back().unwrap());
    let console = walk.next(bench);
    let mut login = bench.sit_down(&console);
    login.until("login:");
    login.leave_by_escape();
    board.run("systemctl disable --now cepa-getty@ttyS1");

    // Without systemd it is another identity: the default one, of whoever starts it.
    let _serving = walk.start(board, "listening on ");
    let mut login = bench.sit_down("cepa console serial:/dev/ttyUSB0,baud=115200 sh --trust any");
    login.until("login:");
    login.leave_by_escape();
    walk.end();
}

#[test]
fn a_protocol_through_ssh_or_docker_exec() {
    let Some(machines) = Machines::new(&["laptop", "server", "box"]) else {
        return;
    };
    let [laptop, server, container] = machines.each();
    let mut walk = Walk::section(COOKBOOK, "## Carry a protocol");
    laptop.ssh_to(server);
    laptop.docker_exec_to(container);
    walk.learn("ab2…", &laptop.id());
    walk.learn("ef6…", &container.id());
    let _db = server.web("/run/db.sock", "rows");
    laptop.write("/home/laptop/file", noise(300_000));

    let forwarding = walk.start(laptop, "listening on ");
    assert_eq!(page(laptop, 5433), "rows\n");
    forwarding.interrupt();
    let sum = walk.run(laptop);
    assert!(sum.contains(&hash(&noise(300_000))), "{sum}");
    walk.end();
}

#[test]
fn files_are_sent() {
    let Some(machines) = Machines::new(&["board board.local", "bench"]) else {
        return;
    };
    let [board, bench] = machines.each();
    let mut walk = Walk::section(COOKBOOK, "## Send files");
    walk.learn("ab2…", &bench.id());
    walk.learn("ef6…", &board.id());
    board.run("mkdir -p /srv/up && rm -rf /var/log && mkdir /var/log");
    board.write("/var/log/nginx/access.log", "GET /");
    bench.write("/home/bench/fw.bin", noise(300_000));

    let _serving = walk.start(board, "listening on ");
    for _ in 0..3 {
        walk.run(bench);
    }
    assert!(std::fs::read(board.path("/srv/up/fw.bin")).unwrap() == noise(300_000));
    assert_eq!(bench.run("cat logs/nginx/access.log"), "GET /");
    walk.end();
}

#[test]
fn one_port_for_several_people() {
    let Some(machines) = Machines::new(&["server", "ann", "bob"]) else {
        return;
    };
    let [server, ann, bob] = machines.each();
    let mut walk = Walk::section(COOKBOOK, "## One port");
    walk.learn("ab2…", &ann.id());
    walk.learn("cd4…", &bob.id());
    server.write("/home/server/node.toml", walk.block("toml"));
    let _web = server.web("127.0.0.1:8080", "the page");
    let _db = server.web("/run/postgresql/.s.PGSQL.5432", "rows");

    walk.run(server);
    walk.run(server);
    let _node = walk.start(server, "listening on ");
    // The first time each is asked whether it is the right peer, and remembers it.
    let mut services = ann.sit_down(&walk.next(ann));
    services.until("? ");
    services.type_in("yes\r");
    services.until_all(&["web", "db", "shell"]);
    assert_eq!(services.leave().0, Some(0));
    let _ann = walk.start(ann, "listening on tcp:127.0.0.1:5432");
    assert_eq!(page(ann, 8080), "the page\n");
    assert_eq!(page(ann, 5432), "rows\n");
    let mut forwarding = bob.sit_down(&walk.next(bob));
    forwarding.until("? ");
    forwarding.type_in("yes\r");
    forwarding.until("listening on ");
    assert_eq!(page(bob, 8080), "the page\n");
    forwarding.type_in("\x03");
    assert_eq!(forwarding.leave().0, Some(0));
    walk.end();
}

#[test]
fn a_few_programs() {
    let Some(machines) = Machines::new(&["board board.local", "bench"]) else {
        return;
    };
    let [board, bench] = machines.each();
    let mut walk = Walk::section(COOKBOOK, "## Let somebody run");
    walk.learn("ab2…", &bench.id());
    let _serving = walk.start(board, "listening on ");
    let mut first = bench.sit_down(&walk.next(bench));
    first.until("? ");
    first.type_in("yes\r");
    assert_eq!(first.leave().0, Some(0));
    let mut console = bench.sit_down(&walk.next(bench));
    console.type_in("hostname\r");
    console.until("\rboard");
    console.leave_by_escape();
    let log = bench.run("cat boot.log");
    assert!(log.contains("hostname"), "{log}");
    walk.end();
}
