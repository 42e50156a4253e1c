//! What a relay, an address and a mixed-up option can not do: holes that were shown, with real processes.

mod common;

use std::path::Path;
use std::sync::Arc;

use cepa::identity::{AcceptAny, Identity, KeyKind};
use cepa::node::{Access, Node, NodeConfig};
use cepa::protocols::relay::{Relay, RelayConfig};
use cepa::protocols::sealed::Sealed;
use cepa::session::{OpenError, Session};
use cepa::stack::StackConfig;
use common::{PATIENCE, Place, Server, text};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// A service that leaves a mark where it runs.
fn marking(mark: &Path) -> String {
    format!("up=exec:touch {}", mark.display())
}

/// What the table of who may open what says of the tool's protocols, each row of it.
#[test]
fn a_node_shows_its_status_and_its_lines_by_the_table() {
    let table = include_str!("../../src/node/access_table.txt");
    let (rows, protocols) = table.split_once("\nprotocol ").unwrap();
    let protocols: Vec<_> = protocols.lines().skip(1).collect();
    let all = protocols.iter().map(|line| line.split_once("  ").unwrap());
    let of_tool: Vec<_> = all
        .map(|(name, to)| (name, to.trim()))
        .filter(|(_, to)| !to.starts_with("whom the relay"))
        .collect();
    assert_eq!(
        of_tool,
        [
            ("cepa.status", "who is known by name"),
            ("cepa.watch..SERVICE", "whom SERVICE is offered to"),
        ]
    );
    let place = Place::new();
    let [listed, other] = ["listed.pem", "other.pem"].map(|name| {
        let (file, id) = place.identity(name);
        (Identity::load(file).unwrap(), id)
    });
    let file = place.text("node.toml");
    let text = format!(
        "listen = [\"tcp:127.0.0.1:0\"]\n\
         [services.some]\nto = \"echo:\"\nallow = [\"{}\"]\n\
         [services.all]\nto = \"echo:\"\nallow = [\"any\"]\n",
        listed.1
    );
    std::fs::write(&file, text).unwrap();
    let node = Server::start(&place, &["node", "--config", &file]);
    let at = node.address().parse().unwrap();
    let runtime = runtime();
    for (who, (identity, _)) in [("one of these", &listed), ("another", &other)] {
        let config = StackConfig::new(identity.clone(), Arc::new(AcceptAny));
        let session = runtime.block_on(Session::dial(&at, &config)).unwrap();
        let is_open = |name: &str| {
            let opening = async { tokio::time::timeout(PATIENCE, session.open(name)).await };
            let opened = runtime.block_on(opening);
            match opened.unwrap() {
                Ok(_) => true,
                // It is open, and is no line.
                Err(OpenError::Refused { reason, .. }) => !reason.starts_with("no service"),
                Err(error) => panic!("{name}: {error}"),
            }
        };
        // Whom a service lists is known by name.
        assert_eq!(is_open("cepa.status"), who == "one of these", "{who}");
        for (offered_to, service) in [("these peers", "some"), ("anyone", "all")] {
            let row = format!("{offered_to:12} {who:28} {:16} ", "came in");
            let verdict = rows.lines().find_map(|line| line.strip_prefix(&row));
            let allowed = verdict.unwrap() == "allowed";
            assert_eq!(is_open(service), allowed, "{service}, {row}");
            let watch = format!("cepa.watch..{service}");
            assert_eq!(is_open(&watch), allowed, "{watch}, {row}");
        }
    }
}

/// Hole 1: the server has pinned the relay's key and dialled it itself. Nobody has allowed it anything.
#[test]
fn a_relay_opens_no_service_of_a_server_that_registers_with_it() {
    let place = Place::new();
    let mark = place.path("mark");
    let (_, friend) = place.identity("friend.pem");
    let runtime = runtime();
    let identity = Identity::generate(KeyKind::Ed25519).unwrap();
    let (relay, at) = runtime.block_on(async {
        let relay = Node::new(NodeConfig::new(identity, Arc::new(AcceptAny)));
        Relay::on(&relay, RelayConfig::new(Access::Anyone)).unwrap();
        let at = relay.listen(&"tcp:127.0.0.1:0".parse().unwrap()).await;
        (relay, at.unwrap())
    });
    let at = format!("cepa://{}@{at}", relay.id());
    let sealed = runtime.block_on(async { Sealed::on(&relay).unwrap() });
    for (allow, more) in [
        (friend.as_str(), None),
        ("any", None),
        (friend.as_str(), Some("--sealed")),
    ] {
        let (file, id) = place.identity(&format!("{}-{}.pem", &allow[..3], more.is_some()));
        let service = marking(&mark);
        let mut words = vec!["serve", "--register", &at, "--service", &service];
        words.extend(["--allow", allow, "--identity", &file]);
        words.extend(more);
        let mut server = Server::start_at(&place, &words, "reachable at ");
        runtime.block_on(async {
            let session = relay.session_with(id.parse().unwrap()).unwrap();
            for name in ["up", "", "cepa.console.up", "cepa.pair"] {
                let opened = tokio::time::timeout(PATIENCE, session.open(name)).await;
                assert!(opened.unwrap().is_err(), "{name}");
            }
            // Nor may it ask in an envelope, where it is not a sender that is allowed.
            let to = format!("cepa://{id}").parse().unwrap();
            let key = sealed.key(&to, id.parse().unwrap()).await;
            assert_eq!(key.is_ok(), more.is_some(), "whether it takes any");
            if let Ok(key) = key {
                let asked = sealed.ask(&to, &key, "up", b"").await;
                assert!(asked.is_err());
            }
        });
        assert!(!mark.exists(), "it ran");
        server.wait_for(&format!("refused {} the service \"up\"", relay.id()));
        server.signal("TERM");
        assert_eq!(server.finish().0, Some(0));
    }
}

/// Hole 3: whatever takes the address of a peer runs no command for it, unless an option says otherwise.
#[test]
fn an_address_of_a_peer_runs_no_command() {
    let place = Place::new();
    let mark = place.path("mark");
    let (_, id) = place.identity("peer.pem");
    let (_, relay) = place.identity("relay.pem");
    // The default identity, so that making it is no line of what follows.
    place.run(&["id", "show"]);
    let runs = format!("exec:touch%20{}", mark.display()).replace('/', "%2F");
    for at in [
        format!("cepa://{id}@{runs}"),
        format!("cepa://{id}@relay:{relay}@{runs}"),
    ] {
        let service = format!("{at}/up");
        let local = "tcp:127.0.0.1:0=up";
        for words in [
            &["connect", &service][..],
            &["forward", &at, "-L", local],
            &["send", &service],
            &["send", &format!("cepa://{id}/up"), "--by", &at],
            &[
                "serve",
                "--register",
                &at,
                "--allow",
                "any",
                "--service",
                "up=echo:",
            ],
            &["relay", "--register", &at, "--allow", "any"],
        ] {
            let line = place.fails(words, 2);
            assert!(line.contains("exec:touch"), "{words:?}: {line}");
            assert!(line.contains("--local-hints"), "{words:?}: {line}");
        }
    }
    // An introduction is somebody else's word, whatever the options say.
    let to = format!("cepa://{id}@{runs}");
    let given = place.run(&["introduce", "@", &to, "up"]);
    let given = text(&given.stdout);
    let output = place.run(&["connect", given.trim()]);
    assert_ne!(output.status.code(), Some(0));
    assert!(!mark.exists(), "it ran");
    let wanted = format!("cepa://{id}@{runs}/up");
    let output = place.run(&["connect", &wanted, "--local-hints"]);
    assert_ne!(output.status.code(), Some(0));
    assert!(mark.exists(), "{}", text(&output.stderr));
}

/// Hole 17: who swaps the two ids is told so, and not that somebody is in between.
#[test]
fn ones_own_id_in_place_of_the_other_one_is_named() {
    let place = Place::new();
    let (file, id) = place.identity("server.pem");
    let (mine, my_id) = place.identity("client.pem");
    let words = ["tcp:127.0.0.1:0", "--service", "up=echo:", "--allow", &id];
    let mut server = place.serve(&[&words[..], &["--identity", &file]].concat());
    server.wait_for("own id");
    let words = ["connect", &server.address(), "--expect", &my_id];
    let line = place.fails(&[&words[..], &["--identity", &mine]].concat(), 3);
    assert!(
        line.contains("own id") && !line.contains("in between"),
        "{line}"
    );
}

/// Hole 17: the advice for a peer that a relay does not allow is the relay's own option.
#[test]
fn a_relay_says_how_to_allow_a_peer() {
    let place = Place::new();
    let (file, _) = place.identity("relay.pem");
    let words = ["relay", "tcp:127.0.0.1:0", "--identity", &file];
    let mut relay = Server::start_at(&place, &words, "relaying on ");
    let up = relay.seen().iter().find(|l| l.starts_with("relaying on "));
    let at = up.unwrap().split(' ').next_back().unwrap().to_owned();
    // It goes on, for it may come to be allowed.
    let words = ["serve", "--register", &at, "--allow", "any"];
    let _server = Server::start_at(&place, &words, "not registered at relay");
    let line = relay.wait_for("is not allowed");
    assert!(
        line.contains("run: cepa relay") && line.contains("--allow "),
        "{line}"
    );
    assert!(!line.contains("--expect"), "{line}");
}
