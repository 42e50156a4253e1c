//! README.md.

use crate::common::{noise, sha256};
use crate::document::Walk;
use crate::machines::{self, Machines, word_on};

const README: &str = "README.md";

/// Where each begins, and what is behind it.
pub(crate) const WALKS: &[(&str, &str)] = &[COMMANDS, MACHINES, SSH, BOARD, NATS];
const COMMANDS: (&str, &str) = ("## Two commands", "## ");
const MACHINES: (&str, &str) = ("## Two machines", "## ");
const SSH: (&str, &str) = ("**A protocol through", "**A board");
const BOARD: (&str, &str) = ("**A board on", "**Peers behind");
const NATS: (&str, &str) = ("**Peers behind", "## ");

fn walk((from, to): (&str, &str)) -> Walk {
    Walk::between(README, from, to)
}

#[test]
fn two_commands() {
    let Some(machines) = Machines::new(&["relay", "you", "friend"]) else {
        return;
    };
    let [relay, you, friend] = machines.each();
    let mut walk = self::walk(COMMANDS);
    let _web = you.web("127.0.0.1:8080", "it is yours");

    let mut relaying = walk.start(relay, "relaying on ");
    let address = relaying.word("cepa://");
    let id = address.strip_prefix("cepa://").unwrap();
    walk.learn("5n7w…", id.split('@').next().unwrap());
    // At a terminal the whole command for the friend is there, which is the one of the document.
    let mut sharing = you.sit_down(&walk.next(you));
    sharing.until("cepa forward ");
    walk.learn("ticket:AcmA…", &word_on(&mut sharing, "ticket:"));
    let _forwarding = walk.start(friend, "listening on ");
    assert_eq!(
        friend.run("curl -sS http://127.0.0.1:8080"),
        "it is yours\n"
    );
    sharing.type_in("\x03");
    assert_eq!(sharing.leave().0, Some(0));
    walk.end();
}

#[test]
fn two_machines() {
    let Some(machines) = Machines::new(&["home", "laptop"]) else {
        return;
    };
    let [home, laptop] = machines.each();
    let mut walk = self::walk(MACHINES);
    let _web = home.web("127.0.0.1:8080", "the one at home");

    let mut inviting = home.sit_down(&walk.next(home));
    inviting.until("cepa join ");
    walk.learn(
        "cepa-invitation:afqq…",
        &word_on(&mut inviting, "cepa-invitation:"),
    );
    walk.run(laptop);
    assert_eq!(inviting.leave().0, Some(0));

    let _serving = walk.start(home, "listening on ");
    let _forwarding = walk.start(laptop, "listening on ");
    let page = laptop.run("curl -sS http://127.0.0.1:8080");
    assert_eq!(page, "the one at home\n");
    let services = laptop.run(&walk.said("cepa services @home"));
    assert!(services.contains("web"), "{services}");
    let peers = laptop.run(&walk.said("cepa peer ls"));
    assert!(peers.contains("home"), "{peers}");
    let mut pinging = laptop.start(&walk.said("cepa ping @home"));
    pinging.line("ms");
    pinging.interrupt();
    walk.end();
}

#[test]
fn a_protocol_through_the_stdio_of_ssh() {
    let Some(machines) = Machines::new(&["laptop", "server", "wiki"]) else {
        return;
    };
    let [laptop, server, wiki] = machines.each();
    let mut walk = self::walk(SSH);
    laptop.ssh_to(server);
    let _db = server.web("/run/db.sock", "rows");

    let forwarding = walk.start(laptop, "listening on ");
    assert_eq!(laptop.run("curl -sS http://127.0.0.1:5433"), "rows\n");
    forwarding.interrupt();
    for (machine, short) in [(laptop, "ab2…"), (server, "cd4…")] {
        let said = walk.run(machine);
        let id = said.split_whitespace().find(|word| word.len() == 52);
        walk.learn(short, id.unwrap_or_else(|| panic!("{said}")));
    }

    // Only the server knows where the wiki is: at a public address, which leads nowhere but through this cable.
    let wiki_is_at = "93.184.215.14";
    wiki.run(&format!("ip addr add {wiki_is_at}/32 dev lan"));
    server.run(&format!(
        "ip route add {wiki_is_at} dev lan && echo {wiki_is_at} wiki.example.com >> /etc/hosts"
    ));
    wiki.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
         -subj /CN=wiki.example.com -addext subjectAltName=DNS:wiki.example.com \
         -keyout key.pem -out cert.pem",
    );
    let certificate = std::fs::read(wiki.path("/home/wiki/cert.pem")).unwrap();
    laptop.write("/home/laptop/cert.pem", certificate);
    laptop.write("/home/laptop/.curlrc", "cacert = /home/laptop/cert.pem\n");
    let mut wiki_serves =
        wiki.start("exec openssl s_server -accept 443 -cert cert.pem -key key.pem -www");
    wiki_serves.line("ACCEPT");
    let serving = walk.start(server, "listening on ");
    let forwarding = walk.start(laptop, "listening on ");
    let page = walk.run(laptop);
    assert!(page.contains("s_server"), "{page}");
    drop((serving, forwarding));

    let _web = laptop.web("127.0.0.1:3000", "from the laptop");
    let _serving = walk.start(server, "listening on ");
    let _forwarding = walk.start(laptop, " listens on ");
    let page = server.run("curl -sS http://127.0.0.1:8080");
    assert_eq!(page, "from the laptop\n");
    walk.end();
}

#[test]
fn a_board_on_a_serial_line() {
    let Some(machines) = Machines::new(&["board", "bench"]) else {
        return;
    };
    let [board, bench] = machines.each();
    let mut walk = self::walk(BOARD);
    let _line = machines::line(board, "ttyS1", bench, "ttyUSB0");
    walk.learn("ab2…", &bench.id());
    walk.learn("ef6…", &board.id());
    board.write("/var/log/messages", "one line of the log\n");
    bench.write("/home/bench/firmware.bin", noise(20_000));

    let serving = walk.start(board, "listening on ");
    let mut log = walk.start(bench, "one line of the log");
    log.line("one line of the log");
    drop(log);
    let sum = walk.run(bench);
    assert!(
        sum.contains(sha256(&noise(20_000)).split(' ').next().unwrap()),
        "{sum}"
    );
    drop(serving);

    let serving = walk.start(board, "listening on ");
    let mut console = bench.sit_down(&walk.next(bench));
    console.type_in("stty size; hostname\r");
    console.until("24 80");
    console.until("board");
    console.leave_by_escape();
    drop(serving);

    board.run("mkdir -p /var/spool/firmware");
    let serving = walk.start(board, "listening on ");
    walk.run(bench);
    walk.run(bench);
    let copied = std::fs::read(board.path("/var/spool/firmware/firmware.bin")).unwrap();
    assert!(copied == noise(20_000));
    // Whatever the kernel has said, the program is there and takes its option.
    walk.run(bench);
    drop(serving);

    let probe = |command: &str, device: &str| walk.said(command).replace("ADDR", device);
    let answering = probe("cepa probe --answer ADDR", "serial:/dev/ttyS1,baud=921600");
    let _answering = board.start(&answering);
    bench.run(&probe("cepa probe ADDR", "serial:/dev/ttyUSB0,baud=921600"));
    walk.end();
}

#[test]
fn peers_behind_nats() {
    let Some(machines) = Machines::new(&["relay", "node", "laptop"]) else {
        return;
    };
    let [relay, node, laptop] = machines.each();
    let mut walk = self::walk(NATS);
    walk.learn("r3qp…", &laptop.id());
    walk.learn("fbz5…", &node.id());
    laptop.write("/home/laptop/firmware.bin", noise(20_000));
    let mut relaying = walk.start(relay, "relaying on ");
    walk.learn(
        "5n7w…",
        relaying.word("cepa://").split(['/', '@']).nth(2).unwrap(),
    );
    let _serving = walk.start(node, "reachable at ");
    let sum = walk.run(laptop);
    assert!(
        sum.contains(sha256(&noise(20_000)).split(' ').next().unwrap()),
        "{sum}"
    );
    walk.end();
}
