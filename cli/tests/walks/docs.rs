//! docs/MIGRATING.md, and the walks of the other documents.

use crate::common::{noise, sha256};
use crate::document::Walk;
use crate::machines::{self, Job, Machine, Machines, word_on};

/// Where each begins, and what is behind it.
pub(crate) const WALKS: &[(&str, &[(&str, &str)])] = &[
    (
        "docs/MIGRATING.md",
        &[
            ("## ssh", "## "),
            ("## stunnel", "## "),
            ("## gensio", "## "),
        ],
    ),
    (
        "docs/MESH.md",
        &[
            ("## A node that nobody", "## "),
            ("## A node as a daemon", "## "),
            ("## Tickets", "## "),
            ("## Introductions", "## "),
            ("## Forwarders", "## "),
            ("## Sealed messages", "## "),
        ],
    ),
    ("docs/TRUST.md", &[("## Comparing", "## ")]),
    ("docs/FILES.md", &[("# ", "## ")]),
    (
        "docs/DURABLE.md",
        &[
            ("# ", "## "),
            ("## How long", "## "),
            ("## A console that", "## "),
        ],
    ),
];

/// A relay by the next command; its id is `5n7w…`.
#[track_caller]
fn relay(walk: &mut Walk, machine: &Machine) -> Job {
    let command = walk.next(machine);
    relay_by(walk, machine, &command)
}

#[track_caller]
fn relay_by(walk: &mut Walk, machine: &Machine, command: &str) -> Job {
    let mut relaying = machine.start(command);
    let address = relaying.word("cepa://");
    let id = address.strip_prefix("cepa://").unwrap();
    walk.learn("5n7w…", id.split('@').next().unwrap());
    relaying
}

fn hash(content: &[u8]) -> String {
    let line = sha256(content);
    line.split(' ').next().unwrap().to_owned()
}

/// Sits down at a console, and is on the machine of that name.
#[track_caller]
fn console(from: &Machine, command: &str, on: &str) {
    let mut console = from.sit_down(command);
    console.type_in("hostname\r");
    console.until(&format!("\r{on}"));
    console.leave_by_escape();
}

#[test]
fn coming_from_other_tools() {
    let Some(machines) = Machines::new(&["server", "laptop", "client"]) else {
        return;
    };
    let [server, laptop, client] = machines.each();
    let page = |machine: &Machine, port: u16| {
        machine.run(&format!("curl -sS --http0.9 http://127.0.0.1:{port}"))
    };
    let file = "docs/MIGRATING.md";
    let mut walk = Walk::section(file, "## ssh");
    walk.learn("ab2…", &laptop.id());
    walk.learn("cd4…", &server.id());
    let _web = server.web("127.0.0.1:80", "the page");
    let serving = walk.start(server, "listening on ");
    let forwarding = walk.start(laptop, "listening on ");
    assert_eq!(page(laptop, 8080), "the page\n");
    console(laptop, &walk.next(laptop), "server");
    walk.end();
    drop((serving, forwarding));

    let mut walk = Walk::section(file, "## stunnel");
    walk.learn("ab2…", &client.id());
    walk.learn("cd4…", &server.id());
    let _mail = [
        server.web("127.0.0.1:143", "letters"),
        server.web("127.0.0.1:25", "stamps"),
    ];
    let serving = walk.start(server, "listening on ");
    let _forwarding = walk.start(client, "listening on tcp:127.0.0.1:1025");
    assert_eq!(page(client, 1143), "letters\n");
    // curl has no look at what answers at the port of another protocol.
    assert_eq!(page(client, 1025), "stamps\n");
    walk.end();
    drop(serving);

    let mut walk = Walk::section(file, "## gensio");
    walk.learn("ab2…", &laptop.id());
    walk.learn("cd4…", &server.id());
    let _line = machines::line(server, "ttyUSB0", client, "far");
    let _board = client.start("exec socat /dev/far,raw,echo=0 EXEC:'echo board says hello'");
    let _serving = walk.start(server, "listening on ");
    let mut console = laptop.sit_down(&walk.next(laptop));
    console.until("connected to port1");
    console.leave_by_escape();
    walk.end();
}

#[test]
fn a_node_that_nobody_can_connect_to() {
    let Some(machines) = Machines::new(&["relay", "node", "laptop"]) else {
        return;
    };
    let [relaying, node, laptop] = machines.each();
    let mut walk = Walk::section("docs/MESH.md", "## A node that nobody");
    walk.learn("r3qp…", &laptop.id());
    walk.learn("fbz5…", &node.id());
    laptop.write("/home/laptop/firmware.bin", noise(20_000));
    let mut relay = relay(&mut walk, relaying);
    // What the document shows below the commands is what they print.
    relay.line(&walk.whole("servers register at cepa://5n7w…@tcp:relay:7711"));
    let mut serving = walk.start(node, "reachable at ");
    serving.line(&walk.whole("reachable at cepa://fbz5…@relay:5n7w…@tcp:relay:7711"));
    let sum = walk.run(laptop);
    assert!(sum.contains(&hash(&noise(20_000))), "{sum}");
    walk.end();
}

#[test]
fn a_node_as_a_daemon() {
    let Some(machines) = Machines::new(&["relay", "node", "laptop"]) else {
        return;
    };
    let [relaying, node, laptop] = machines.each();
    let mut walk = Walk::section("docs/MESH.md", "## A node as a daemon");
    let _relay = relay_by(
        &mut walk,
        relaying,
        "cepa relay tcp:0.0.0.0:7711 --allow any",
    );
    walk.learn("r3qp…", &laptop.id());
    let id = walk.run(node);
    let id = id.split_whitespace().find(|word| word.len() == 52);
    walk.learn("fbz5…", id.unwrap());
    node.write("/home/node/node.toml", walk.block("toml"));
    walk.run(node);
    let checked = walk.run(node);
    let said = walk.whole("node.toml: valid; the peer id is fbz5…");
    assert!(checked.contains(&said), "{checked}");
    let _node = walk.start(node, "registered at relay");
    let status = walk.run(node);
    assert!(status.contains("cepa node"), "{status}");
    walk.run(node);
    walk.end();
}

#[test]
fn a_ticket_for_two_services() {
    let Some(machines) = Machines::new(&["relay", "you", "friend"]) else {
        return;
    };
    let [relaying, you, friend] = machines.each();
    let mut walk = Walk::section("docs/MESH.md", "## Tickets");
    let _relay = relay_by(
        &mut walk,
        relaying,
        "cepa relay tcp:0.0.0.0:7711 --allow any",
    );
    let _web = you.web("127.0.0.1:8080", "it is yours");
    let mut sharing = you.sit_down(&walk.next(you));
    sharing.until("cepa forward ");
    walk.learn("ticket:AcmA…", &word_on(&mut sharing, "ticket:"));
    let _forwarding = walk.start(friend, "listening on ");
    assert_eq!(
        friend.run("curl -sS http://127.0.0.1:8080"),
        "it is yours\n"
    );
    console(friend, &walk.next(friend), "you");
    walk.end();
}

#[test]
fn an_introduction() {
    let Some(machines) = Machines::new(&["host", "alice", "bob"]) else {
        return;
    };
    let [owner, alice, bob] = machines.each();
    let mut walk = Walk::section("docs/MESH.md", "## Introductions");
    walk.learn("r3qp…", &bob.id());
    walk.learn("fbz5…", &owner.id());
    let serve = "cepa serve tcp:0.0.0.0:7000 --service up=exec:sha256sum --allow";
    let alice_is = alice.id();
    let mut serving = owner.start(&format!("{serve} {alice_is} --introducer {alice_is}"));
    serving.line("listening on ");
    bob.write("/home/bob/firmware.bin", noise(20_000));
    let said = walk.run(alice);
    let paper = said
        .split_whitespace()
        .find(|word| word.starts_with("cepa-introduction:"));
    walk.learn("cepa-introduction:ogAB…", paper.unwrap());
    let sum = walk.run(bob);
    assert!(sum.contains(&hash(&noise(20_000))), "{sum}");
    serving.line("gets the service \"up\", introduced by");
    walk.end();
}

#[test]
fn a_forwarder() {
    let Some(machines) = Machines::new(&["front", "inside", "laptop"]) else {
        return;
    };
    let [front, inside, laptop] = machines.each();
    let mut walk = Walk::section("docs/MESH.md", "## Forwarders");
    walk.learn("fbz5…", &inside.id());
    walk.learn("r3qp…", &laptop.id());
    let front_is = front.id();
    let serve = format!("cepa serve tcp:0.0.0.0:7000 --service db=exec:cat --allow {front_is}");
    let mut serving = inside.start(&serve);
    serving.line("listening on ");
    let _front = walk.start(front, "listening on ");
    let said = laptop.run(&format!(
        "echo rows | cepa connect cepa://{front_is}@tcp:front:7000/db"
    ));
    assert!(said.contains("rows"), "{said}");
    walk.end();
}

#[test]
fn a_sealed_message() {
    let Some(machines) = Machines::new(&["relay", "node", "laptop"]) else {
        return;
    };
    let [relaying, node, laptop] = machines.each();
    let mut walk = Walk::section("docs/MESH.md", "## Sealed messages");
    walk.learn("r3qp…", &laptop.id());
    walk.learn("fbz5…", &node.id());
    laptop.write("/home/laptop/request", "sealed");
    let _relay = relay(&mut walk, relaying);
    let _serving = walk.start(node, "reachable at ");
    walk.run(laptop);
    let answer = laptop.run("cat answer");
    assert!(answer.contains(&hash(b"sealed")), "{answer}");
    walk.end();
}

#[test]
fn an_invitation() {
    let Some(machines) = Machines::new(&["ann ann.example", "bob"]) else {
        return;
    };
    let [ann, bob] = machines.each();
    let mut walk = Walk::section("docs/TRUST.md", "## Comparing and exchanging ids");
    let mut inviting = ann.sit_down(&walk.next(ann));
    inviting.until("cepa join ");
    walk.learn(
        "cepa-invitation:…",
        &word_on(&mut inviting, "cepa-invitation:"),
    );
    walk.run(bob);
    assert_eq!(inviting.leave().0, Some(0));
    assert!(ann.run("cepa peer ls").contains("bob"));
    assert!(bob.run("cepa peer ls").contains("ann"));
    walk.end();
}

#[test]
fn files_are_copied_both_ways() {
    let Some(machines) = Machines::new(&["board", "laptop"]) else {
        return;
    };
    let [board, laptop] = machines.each();
    let mut walk = Walk::between("docs/FILES.md", "# ", "## ");
    walk.learn("ab2…", &laptop.id());
    board.run("mkdir -p /srv/up && rm -rf /var/log && mkdir /var/log");
    board.write("/var/log/syslog", "one line");
    board.write("/var/log/nginx/access.log", "GET /");
    laptop.write("/home/laptop/firmware.bin", noise(20_000));
    // The document begins with a board that is known.
    laptop.run(&format!(
        "cepa peer add board {} --at tcp:board:7000",
        board.id()
    ));
    let _serving = walk.start(board, "listening on ");
    walk.run(laptop);
    walk.run(laptop);
    assert!(std::fs::read(board.path("/srv/up/firmware.bin")).unwrap() == noise(20_000));
    assert_eq!(laptop.run("cat syslog nginx/access.log"), "one lineGET /");
    walk.end();
}

#[test]
fn a_console_that_outlives_its_client() {
    let Some(machines) = Machines::new(&["board", "bench"]) else {
        return;
    };
    let [board, bench] = machines.each();
    let mut walk = Walk::section("docs/DURABLE.md", "## A console that outlives");
    walk.learn("ab2…", &bench.id());
    walk.learn("ef6…", &board.id());
    let _serving = walk.start(board, "listening on ");
    let mut console = bench.sit_down(&walk.next(bench));
    console.until("a new console, kept for 24 h after you leave; the same command attaches again");
    console.type_in("kept=$(hostname)\r");
    console.until("$(hostname)");
    console.leave_by_escape();
    let mut console = bench.sit_down(&walk.next(bench));
    console.until("attached again");
    console.type_in("echo on $kept\r");
    console.until("\ron board");
    console.leave_by_escape();
    walk.end();
}

/// The cable is pulled until that is noticed, and what the document shows is what is said.
#[test]
fn a_session_that_outlives_its_connection() {
    let Some(machines) = Machines::new(&["server", "laptop"]) else {
        return;
    };
    let [server, laptop] = machines.each();
    let mut walk = Walk::between("docs/DURABLE.md", "# ", "## ");
    let _web = server.web("127.0.0.1:80", "the page");
    walk.learn("ab2…", &laptop.id());
    walk.learn("cd4…", &server.id());
    let _serving = walk.start(server, "listening on ");
    let mut forwarding = walk.start(laptop, "listening on ");
    assert_eq!(laptop.run("curl -sS http://127.0.0.1:8080"), "the page\n");
    server.run("ip link set lan down");
    let mut asking = laptop.start("curl -sS http://127.0.0.1:8080");
    for said in ["lost; reconnecting (data is kept)", "is back after"] {
        assert!(walk.section.contains(said));
        let line = forwarding.line(said);
        assert!(line.starts_with("connection to "), "{line}");
        server.run("ip link set lan up");
    }
    asking.line("the page");
    walk.end();
}

#[test]
fn a_session_that_is_kept_for_long() {
    let names = ["server", "laptop", "board", "bench"];
    let Some(machines) = Machines::new(&names) else {
        return;
    };
    let [server, laptop, board, bench] = machines.each();
    let mut walk = Walk::section("docs/DURABLE.md", "## How long");
    let _web = server.web("127.0.0.1:80", "the page");
    walk.learn("ab2…", &laptop.id());
    walk.learn("cd4…", &server.id());
    let _serving = walk.start(server, "listening on ");
    let _forwarding = walk.start(laptop, "listening on ");
    assert_eq!(laptop.run("curl -sS http://127.0.0.1:8080"), "the page\n");

    walk.learn("ab2…", &bench.id());
    walk.learn("ef6…", &board.id());
    let _line = machines::line(board, "ttyS1", bench, "ttyUSB0");
    let _serving = walk.start(board, "listening on ");
    console(bench, &walk.next(bench), "board");
    walk.end();
}
