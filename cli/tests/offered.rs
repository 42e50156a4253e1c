//! `cepa services`: what a peer may open at a server, and nothing of what is for others.

mod common;

use common::{Place, Server, text};
use serde_json::{Value, json};

#[test]
fn each_service_has_a_line_with_what_it_is() {
    let place = Place::new();
    let services = [
        "db=tcp:127.0.0.1:1",
        "echo=echo:",
        "line=serial:/dev/null",
        "run=exec:cat",
        "sh=exec:cat,pty=yes",
        "socks=socks:*",
        "up=files:.",
    ];
    let (own, _) = place.identity("server.pem");
    let mut words = vec!["tcp:127.0.0.1:0", "--allow", "any", "--identity", &own];
    words.extend(services.iter().flat_map(|it| ["--service", *it]));
    let server = place.cepa(&[&["serve"], &words[..]].concat());
    let server = Server::of({ server }.current_dir(place.dir.path()), "listening on ");
    let (at, id) = (server.address(), server.id());
    let table = "db     stream\necho   echo\nline   serial\nrun    command\nsh     terminal\nsocks  socks\nup     files\n";
    assert_eq!(place.succeeds(&["services", &at, "--expect", &id]), table);
    let address = format!("cepa://{id}@{at}");
    assert_eq!(place.succeeds(&["services", &address]), table);
    place.succeeds(&["peer", "add", "ann", &id, "--at", &at]);
    assert_eq!(place.succeeds(&["services", "@ann"]), table);
    let said = place.succeeds(&["services", "@ann", "--json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (&said["peer"], &said["name"], &said["complete"]),
        (&json!(id), &json!("ann"), &json!(true))
    );
    assert_eq!(
        said["services"][0],
        json!({ "name": "db", "kind": "stream" })
    );
    assert_eq!(said["services"].as_array().unwrap().len(), services.len());

    // A completion knows it without a peer: of known ones, and only what is copied from or to.
    drop(server);
    let files = |name: &str| place.succeeds(&["completions", "--files", name]);
    assert_eq!(
        (files("ann"), files("bob")),
        ("up\n".to_owned(), String::new())
    );
    let known = std::fs::read_dir(place.path("config/offered")).unwrap();
    assert_eq!(known.count(), 1, "no draft is left");
    place.succeeds(&["peer", "rm", "ann"]);
    assert_eq!(files("ann"), "");
    assert!(!place.path("config/offered").join(&id).exists());
}

#[test]
fn who_asks_is_told_of_what_is_for_it_and_of_nothing_else() {
    let place = Place::new();
    let (friend, friend_id) = place.identity("friend.pem");
    let (stranger, _) = place.identity("stranger.pem");
    let file = place.text("node.toml");
    let config = format!(
        "listen = [\"tcp:127.0.0.1:0\"]\n\
         [services.open]\nto = \"echo:\"\nallow = [\"any\"]\n\
         [services.hidden]\nto = \"echo:\"\nallow = [\"{friend_id}\"]\n"
    );
    std::fs::write(&file, config).unwrap();
    let node = Server::start(&place, &["node", "--config", &file]);
    let (at, id) = (node.address(), node.id());
    for (who, table) in [
        (&friend, "hidden  echo\nopen    echo\n"),
        (&stranger, "open  echo\n"),
    ] {
        let words = ["services", &at, "--expect", &id, "--identity", who];
        assert_eq!(place.succeeds(&words), table);
    }
    // And so a name that is for others is as absent as one that nobody has.
    for name in ["hidden", "none"] {
        let local = format!("127.0.0.1:0={name}");
        let words = [
            "forward",
            &at,
            "-L",
            &local,
            "--expect",
            &id,
            "--identity",
            &stranger,
        ];
        let line = place.fails(&words, 7);
        let said = format!("offers no service {name}; you may open: open");
        assert!(line.ends_with(&said), "{line}");
    }
}

#[test]
fn a_server_without_services_says_so() {
    let place = Place::new();
    let (own, _) = place.identity("server.pem");
    let words = ["tcp:127.0.0.1:0", "--allow", "any", "--identity", &own];
    let server = place.serve(&words);
    assert!(place.run(&["id", "show"]).status.success());
    place.succeeds(&[
        "peer",
        "add",
        "ann",
        &server.id(),
        "--at",
        &server.address(),
    ]);
    let output = place.run(&["services", "@ann"]);
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(0), String::new())
    );
    let said = text(&output.stderr);
    assert!(said.contains("ann offers you no service"), "{said}");
}
