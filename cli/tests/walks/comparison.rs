//! docs/COMPARISON.md: cepa's side of each job.

use crate::common::noise;
use crate::document::Walk;
use crate::machines::{self, Machine, Machines, word_on};

const COMPARISON: &str = "docs/COMPARISON.md";

/// From the heading of the job to the rival's.
fn job(heading: &str) -> Walk {
    Walk::between(COMPARISON, heading, "### [")
}

/// A relay, and it as the default one of these.
#[track_caller]
fn relay(relay: &Machine, of: &[&Machine]) -> machines::Job {
    let mut relaying =
        relay.start("cepa relay tcp:0.0.0.0:7711 --allow any --public relay.example");
    let address = relaying.word("cepa://");
    for machine in of {
        let file = format!("/home/{}/.config/cepa/config.toml", machine.name);
        machine.write(&file, format!("relay = \"{address}\"\n"));
        machine.run(&format!("chmod 600 {file}"));
    }
    relaying
}

#[test]
fn a_service_and_a_file_through_a_relay() {
    let Some(machines) = Machines::new(&["relay relay.example", "home", "friend"]) else {
        return;
    };
    let [relaying, home, friend] = machines.each();
    let _relay = relay(relaying, &[home]);
    let _web = home.web("127.0.0.1:8080", "it is yours");
    let mut walk = job("## 1. ");
    let mut sharing = home.sit_down(&walk.next(home));
    sharing.until("cepa forward ");
    let ticket = word_on(&mut sharing, "ticket:");
    let table = std::fs::read_to_string(format!("{}/../{COMPARISON}", env!("CARGO_MANIFEST_DIR")));
    let row = format!("| {} |", ticket.len());
    let table = table.unwrap();
    let counted = table.lines().find(|line| line.starts_with("| `ticket:…`"));
    assert!(counted.unwrap().ends_with(&row), "{counted:?}: {row}");
    walk.learn("ticket:…", &ticket);
    let _forwarding = walk.start(friend, "listening on ");
    assert_eq!(
        friend.run("curl -sS http://127.0.0.1:8080"),
        "it is yours\n"
    );
    walk.end();

    // The code is another one each time, of the same form.
    let mut walk = job("## 5. ");
    friend.write(
        "/home/friend/.config/cepa/config.toml",
        std::fs::read(home.path("/home/home/.config/cepa/config.toml")).unwrap(),
    );
    friend.run("chmod 600 .config/cepa/config.toml");
    home.write("/home/home/fw.bin", noise(20_000));
    let mut sharing = home.sit_down(&walk.next(home));
    sharing.until("cepa cp ");
    sharing.until(":");
    let (_, code) = sharing.passed.rsplit_once("cepa cp ").unwrap();
    let code = code.trim_end_matches(':');
    let command = walk.next(friend).replace("7-lusab-badaf", code);
    friend.run(&command);
    assert!(std::fs::read(friend.path("/home/friend/fw.bin")).unwrap() == noise(20_000));
    walk.end();
}

#[test]
fn a_serial_console() {
    let Some(machines) = Machines::new(&["board", "bench"]) else {
        return;
    };
    let [board, bench] = machines.each();
    let _line = machines::line(board, "ttyS1", bench, "ttyUSB0");
    let mut walk = job("## 2. ");
    let _serving = walk.start(board, "listening on ");
    let mut console = bench.sit_down(&walk.next(bench));
    console.until("? ");
    console.type_in("yes\r");
    console.until("login:");
    console.leave_by_escape();
    walk.end();
}

#[test]
fn a_protocol_through_ssh_and_docker_exec() {
    let Some(machines) = Machines::new(&["laptop", "server", "box"]) else {
        return;
    };
    let [laptop, server, container] = machines.each();
    laptop.ssh_to(server);
    laptop.docker_exec_to(container);
    for (machine, heading, asks) in [(server, "## 3. ", false), (container, "## 4. ", true)] {
        let _db = machine.web("/run/db.sock", "rows");
        let mut walk = job(heading);
        let mut forwarding = laptop.sit_down(&walk.next(laptop));
        if asks {
            forwarding.until("? ");
            forwarding.type_in("yes\r");
        }
        forwarding.until("listening on ");
        assert_eq!(laptop.run("curl -sS http://127.0.0.1:5433"), "rows\n");
        forwarding.type_in("\x03");
        assert_eq!(forwarding.leave().0, Some(0));
        walk.end();
    }
}

#[test]
fn one_port_for_several_people() {
    let Some(machines) = Machines::new(&["server", "ann", "bob"]) else {
        return;
    };
    let [server, ann, bob] = machines.each();
    let mut walk = job("## 6. ");
    walk.learn("ab2…", &ann.id());
    walk.learn("cd4…", &bob.id());
    server.write("/home/server/node.toml", walk.block("toml"));
    let _web = server.web("127.0.0.1:8080", "the page");
    let _db = server.web("127.0.0.1:5432", "rows");
    let _node = walk.start(server, "listening on ");
    for (machine, ports) in [
        (ann, &[(8080, "the page\n"), (5432, "rows\n")][..]),
        (bob, &[(8080, "the page\n")]),
    ] {
        let mut forwarding = machine.sit_down(&walk.next(machine));
        forwarding.until("? ");
        forwarding.type_in("yes\r");
        forwarding.until("listening on ");
        for (port, said) in ports {
            let page = machine.run(&format!(
                "curl -sS --retry 9 --retry-connrefused http://127.0.0.1:{port}"
            ));
            assert_eq!(page, *said);
        }
        forwarding.type_in("\x03");
        assert_eq!(forwarding.leave().0, Some(0));
    }
    walk.end();
}
