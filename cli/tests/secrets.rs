//! What an address must hold and nobody else should read: where it is kept, shared and printed.

mod common;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;
use std::sync::{Arc, Mutex};
use std::thread;

use common::{Place, Server, text};

/// A proxy of HTTP that lets in who has this login (base64 of `user:password`), and keeps how many it has led on.
struct Proxy {
    at: String,
    led: Arc<Mutex<usize>>,
}

impl Proxy {
    fn new(login: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap().to_string();
        let led = Arc::new(Mutex::new(0));
        let count = Arc::clone(&led);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let count = Arc::clone(&count);
                thread::spawn(move || lead(stream, login, &count));
            }
        });
        Self { at, led }
    }

    fn led(&self) -> usize {
        *self.led.lock().unwrap()
    }
}

fn lead(mut client: TcpStream, login: &str, count: &Mutex<usize>) -> Option<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = text(&head);
    if !head.contains(&format!("Basic {login}")) {
        let refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n";
        return client.write_all(refusal).ok();
    }
    let to = head.split(' ').nth(1)?;
    let mut server = TcpStream::connect(to).ok()?;
    *count.lock().unwrap() += 1;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
    let (mut from, mut into) = (server.try_clone().ok()?, client.try_clone().ok()?);
    thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut into);
        let _ = into.shutdown(std::net::Shutdown::Write);
    });
    let _ = std::io::copy(&mut client, &mut server);
    server.shutdown(std::net::Shutdown::Write).ok()
}

/// base64 of `me:SECRET`.
const LOGIN: &str = "bWU6U0VDUkVU";

fn hides(output: &Output) -> String {
    let all = text(&output.stdout) + &text(&output.stderr);
    assert!(!all.contains("SECRET"), "{all}");
    all
}

/// A server that is somebody else than its place's user, whom it allows; and its id.
fn serve_as_another(place: &Place) -> (Server, String) {
    let own = place.succeeds(&["id", "show"]);
    let (key, id) = place.identity("server.pem");
    let words = [
        "tcp:127.0.0.1:0",
        "--allow",
        own.trim(),
        "--identity",
        &key,
        "--service",
        "up=echo:",
    ];
    (place.serve(&words), id)
}

#[test]
fn a_stranger_makes_no_server_log_its_owner_s_secrets() {
    let place = Place::new();
    let (server_key, _) = place.identity("server.pem");
    let mut server = Server::start(
        &place,
        &[
            "--proxy",
            "http://me:SECRET@127.0.0.1:1",
            "serve",
            "tcp:127.0.0.1:0",
            "--identity",
            &server_key,
            "--service",
            "db=tcp:127.0.0.1:1,proxy=http://me:SECRET@127.0.0.1:1",
            "--service",
            "wx=ws:127.0.0.1:1/,header=Cookie:SECRET",
        ],
    );
    let words = ["connect", &server.address(), "db", "--trust", "any"];
    assert_eq!(place.run(&words).status.code(), Some(7));
    let line = server.wait_for("to allow it, run: cepa ");
    assert!(!server.seen().join("\n").contains("SECRET"), "{line}");
    assert!(
        line.contains("--proxy 'http://me:***@127.0.0.1:1' serve"),
        "{line}"
    );
    assert!(
        line.contains("'wx=ws:127.0.0.1:1/,header=Cookie:***'"),
        "{line}"
    );
    assert!(
        line.contains("put your own secret in where *** stands"),
        "{line}"
    );
}

#[test]
fn a_stranger_who_is_dialled_makes_no_command_say_its_user_s_secrets() {
    let place = Place::new();
    let (server, id) = serve_as_another(&place);
    let proxy = Proxy::new(LOGIN);
    let address = format!("{},proxy=http://me:SECRET@{}", server.address(), proxy.at);
    for command in [&["connect"][..], &["ping"], &["services"], &["status"]] {
        let line = place.fails(&[command, &[&address]].concat(), 4);
        assert!(!line.contains("SECRET"), "{line}");
        assert!(line.contains("where *** stands"), "{line}");
    }
    // One that is known elsewhere.
    place.succeeds(&["peer", "add", "bob", &id]);
    let line = place.fails(&["connect", &address], 4);
    assert!(
        !line.contains("SECRET") && line.contains("to add this address"),
        "{line}"
    );
    assert!(line.contains("where *** stands"), "{line}");
}

/// Without its proxy an address leads around that.
#[test]
fn a_remembered_address_keeps_its_proxy_and_headers() {
    let place = Place::new();
    let (server, id) = serve_as_another(&place);
    let proxy = Proxy::new(LOGIN);
    let address = format!("{},proxy=http://me:SECRET@{}", server.address(), proxy.at);

    let all = hides(&place.run(&["peer", "add", "bob", &id, "--at", &address]));
    assert!(all.contains("me:***@"), "{all}");
    let file = place.path("config/known_peers");
    assert!(fs::read_to_string(&file).unwrap().contains("me:SECRET@"));
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let output = place.run_with(&["connect", "@bob", "up"], b"x");
    assert_eq!(text(&output.stdout), "x", "{}", text(&output.stderr));
    assert_eq!(proxy.led(), 1);
    for words in [
        &["peer", "ls"][..],
        &["peer", "ls", "--json"],
        &["explain", "@bob"],
        &["-vv", "ping", "@bob", "-c", "1"],
    ] {
        hides(&place.run(words));
    }

    // At first contact, too.
    place.succeeds(&["peer", "rm", "bob"]);
    let output = place.run_with(&["connect", &address, "up", "--trust-new"], b"x");
    assert_eq!(text(&output.stdout), "x", "{}", text(&output.stderr));
    hides(&output);
    let before = proxy.led();
    let listed = hides(&place.run(&["peer", "ls"]));
    let name = listed.split_whitespace().next().unwrap();
    let output = place.run_with(&["connect", &format!("@{name}"), "up"], b"x");
    assert_eq!(text(&output.stdout), "x", "{}", text(&output.stderr));
    assert!(proxy.led() > before);
}

#[test]
fn errors_about_addresses_hide_what_is_wrong_in_them() {
    let place = Place::new();
    for address in [
        "tcp:h:1,proxy=me:SECRET@p:1",
        "ws:h:1/,header=Authorization=SECRET",
        "ws:h:1/,Header=A:SECRET",
        "ws:h:1/,hedaer=A:SECRET",
    ] {
        let service = format!("x={address}");
        for words in [
            &["connect", address][..],
            &["serve", address],
            &["serve", "tcp:127.0.0.1:0", "--service", &service],
            &["peer", "add", "bob", "x", "--at", address],
            &["id", "show", "tcp:h:1,proxy=http://me:SECRET@p:1"],
        ] {
            hides(&place.run(words));
        }
        let config = place.path("config");
        fs::create_dir_all(&config).unwrap();
        for line in [
            format!("[targets.a]\naddress = \"{address}\"\n"),
            format!("[targets.a]\naddress = {address}\n"),
            "proxy = socks5h://me:SECRET@h:1\n".to_owned(),
            "control = \"tcp:h:1,proxy=http://me:SECRET@h:1\"\n".to_owned(),
        ] {
            fs::write(config.join("config.toml"), line).unwrap();
            hides(&place.run(&["config", "check"]));
            fs::remove_file(config.join("config.toml")).unwrap();
        }
    }
}

/// What is for others has nothing of the way that its maker takes.
#[test]
fn what_is_given_to_others_leads_there_without_the_maker_s_proxy() {
    let place = Place::new();
    let own = place.succeeds(&["id", "show"]);
    let (relay_key, relay_id) = place.identity("relay.pem");
    let relay = [
        "relay",
        "tcp:127.0.0.1:0",
        "--allow",
        "any",
        "--identity",
        &relay_key,
    ];
    let relay = Server::start_at(&place, &relay, "relaying on ");
    let line = relay.seen().join(" ");
    let line = line.split("relaying on ").nth(1).unwrap();
    let at = line
        .split_whitespace()
        .find_map(|word| word.split_once("@tcp:"));
    let at = format!("tcp:{}", at.unwrap().1);
    let proxy = Proxy::new(LOGIN);
    let mine = format!(
        "cepa://{relay_id}@{at}%2Cproxy=http:%2F%2Fme:SECRET@{}",
        proxy.at
    );
    let theirs = format!("cepa://{}@relay:{relay_id}@{at}", own.trim());

    let printed = place.succeeds(&["id", "addr", "--relay", &mine]);
    assert_eq!(printed.trim(), theirs);
    let (key, id) = place.identity("server.pem");
    let words = [
        "serve",
        "--register",
        &mine,
        "--allow",
        own.trim(),
        "--identity",
        &key,
        "--service",
        "up=echo:",
    ];
    let server = Server::start_at(&place, &words, "reachable at ");
    assert!(proxy.led() > 0, "it went by the proxy itself");
    let led = proxy.led();
    let said = server.seen().join("\n");
    assert!(!said.contains("proxy="), "{said}");
    let address = format!("cepa://{id}@relay:{relay_id}@{at}/up");
    assert!(said.contains(address.trim_end_matches("/up")), "{said}");
    let output = place.run_with(&["connect", &address], b"x");
    assert_eq!(text(&output.stdout), "x", "{}", text(&output.stderr));
    assert_eq!(proxy.led(), led, "the friend goes directly");
}
