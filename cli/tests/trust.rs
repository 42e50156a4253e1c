//! First contact, known peers and changed keys, with real processes at both ends.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use common::{Place, Server, bin, failed, finish, text};

fn server(place: &Place, more: &[&str]) -> Server {
    place.serve(&[&["tcp:127.0.0.1:0", "--service", "up=echo:"], more].concat())
}

/// A port that stays, whoever is behind it: each connection goes to the next of these addresses, and the
/// last one gets all that follow. None is led on before so many have come at once.
struct Switch {
    address: String,
    behind: Arc<Mutex<Vec<String>>>,
}

impl Switch {
    fn new(at_once: usize, behind: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("tcp:{}", listener.local_addr().unwrap());
        let behind = Arc::new(Mutex::new(behind.iter().map(|s| (*s).to_owned()).collect()));
        let targets: Arc<Mutex<Vec<String>>> = Arc::clone(&behind);
        thread::spawn(move || {
            let mut waiting = Vec::new();
            for near in listener.incoming().map_while(Result::ok) {
                waiting.push(near);
                if waiting.len() < at_once {
                    continue;
                }
                for near in waiting.drain(..) {
                    let mut targets = targets.lock().unwrap();
                    let target = if targets.len() > 1 {
                        targets.remove(0)
                    } else {
                        targets[0].clone()
                    };
                    let far = TcpStream::connect(target.strip_prefix("tcp:").unwrap()).unwrap();
                    lead(near.try_clone().unwrap(), far.try_clone().unwrap());
                    lead(far, near);
                }
            }
        });
        Self { address, behind }
    }

    fn lead_to(&self, address: &str) {
        *self.behind.lock().unwrap() = vec![address.to_owned()];
    }
}

/// Carries one direction.
fn lead(mut from: TcpStream, mut to: TcpStream) {
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            if to.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
}

fn known(place: &Place) -> String {
    text(&place.run(&["peer", "ls"]).stdout)
}

#[test]
fn trust_new_remembers_and_a_changed_key_is_3_with_the_command_that_accepts_it() {
    let place = Place::new();
    let (other_file, other_id) = place.identity("other");
    let first = server(&place, &["--allow", "any"]);
    let second = server(&place, &["--allow", "any", "--identity", &other_file]);
    let switch = Switch::new(1, &[&first.address()]);
    let at = switch.address.as_str();

    // Nobody to ask, and nothing said: nothing is remembered.
    let line = place.fails_quietly(&["connect", at], 4);
    assert!(
        line.contains(&first.id()) && line.contains("--expect"),
        "{line}"
    );
    assert_eq!(known(&place), "");
    let output = place.run_with(&["connect", at, "--trust-new"], b"one");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "one");
    assert!(text(&output.stderr).contains(&first.id()), "it is told");
    assert!(
        known(&place).contains(&format!("{} first=", first.id())),
        "{}",
        known(&place)
    );
    assert!(known(&place).ends_with(&format!(" how=first-use at={at}\n")));
    // From now on nothing need be said, and nothing is.
    let output = place.run_with(&["connect", at], b"two");
    assert_eq!(
        (text(&output.stdout).as_str(), text(&output.stderr).as_str()),
        ("two", "")
    );

    // Somebody else answers.
    switch.lead_to(&second.address());
    let before = known(&place);
    for words in [&["connect", at][..], &["connect", at, "--trust-new"]] {
        let line = place.fails(words, 3);
        assert!(
            line.contains(&first.id()) && line.contains(&other_id),
            "both ids: {line}"
        );
    }
    assert_eq!(known(&place), before);
    let line = place.fails(&["connect", at], 3);
    let command = line.split("run: ").nth(1).unwrap();
    let words: Vec<&str> = command.split(' ').collect();
    assert_eq!(words[..3], ["cepa", "peer", "add"], "{line}");
    let output = place.run(&words[1..]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let output = place.run_with(&["connect", at], b"three");
    assert_eq!(text(&output.stdout), "three", "{}", text(&output.stderr));
    switch.lead_to(&first.address());
    place.fails(&["connect", at], 3);
}

#[test]
fn every_command_that_dials_names_the_command_that_accepts_a_changed_key() {
    let place = Place::new();
    let (other_file, other_id) = place.identity("other");
    let first = server(&place, &["--allow", "any"]);
    let second = server(&place, &["--allow", "any", "--identity", &other_file]);
    let switch = Switch::new(1, &[&first.address()]);
    let at = switch.address.as_str();
    let layered = format!("tls+{at}");
    let commands = [
        vec!["connect", at, "up"],
        vec!["forward", at, "-L", "tcp:127.0.0.1:0=up"],
        vec!["pipe", &layered, "exec:cat"],
    ];
    // Who has not been met is one to vouch for, by the very command that was typed.
    for words in &commands {
        let line = place.fails(words, 4);
        let run = line.split("run: ").nth(1).unwrap();
        assert!(
            run.starts_with(&format!("cepa {} ", words[0]))
                && run
                    .trim_end()
                    .ends_with(&format!("--expect {}", first.id())),
            "{line}"
        );
    }
    let output = place.run_with(&["connect", at, "--trust-new"], b"");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    switch.lead_to(&second.address());
    for words in &commands {
        let line = place.fails(words, 3);
        assert!(
            line.contains(&first.id()) && line.contains(&other_id),
            "both ids: {line}"
        );
        let run = line.split("run: ").nth(1).unwrap().trim_end();
        assert!(
            run.starts_with("cepa peer add ") && run.ends_with(&format!(" {other_id} --replace")),
            "{line}"
        );
    }
    // It is the command that mends it, for all of them.
    let line = place.fails(&commands[2], 3);
    let run = line.split("run: ").nth(1).unwrap().trim_end();
    let words: Vec<&str> = run.split(' ').skip(1).collect();
    let output = place.run(&words);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let output = place.run_with(&["connect", at], b"again");
    assert_eq!(text(&output.stdout), "again", "{}", text(&output.stderr));
}

#[test]
fn of_two_processes_at_first_contact_one_learns_and_the_other_is_refused() {
    let place = Place::new();
    let (other_file, other_id) = place.identity("other");
    let first = server(&place, &["--allow", "any"]);
    let second = server(&place, &["--allow", "any", "--identity", &other_file]);
    assert!(place.run(&["id", "show"]).status.success());
    for _ in 0..5 {
        let switch = Switch::new(2, &[&first.address(), &second.address()]);
        let words = ["connect", &switch.address, "--trust-new"];
        let both = [
            place.cepa(&words).spawn().unwrap(),
            place.cepa(&words).spawn().unwrap(),
        ];
        let outputs = both.map(finish);
        let mut codes: Vec<_> = outputs.iter().map(|o| o.status.code()).collect();
        codes.sort_unstable();
        assert_eq!(codes, [Some(0), Some(3)], "{outputs:?}");
        let met: Vec<_> = known(&place)
            .lines()
            .filter(|line| line.contains(&switch.address))
            .map(str::to_owned)
            .collect();
        assert_eq!(met.len(), 1, "{met:?}");
        assert!(met[0].contains(&first.id()) || met[0].contains(&other_id));
    }
}

#[test]
fn peers_are_named_instead_of_spelled_out() {
    let place = Place::new();
    let (file, id) = place.identity("client");
    place.fails_quietly(&["serve", "tcp:127.0.0.1:0", "--allow", "@client"], 2);
    assert!(place.run(&["peer", "add", "client", &id]).status.success());
    for allow in ["@client", "known"] {
        let server = self::server(&place, &["--allow", allow]);
        let me = place.run(&["peer", "add", "me", &server.id(), "--replace"]);
        assert!(me.status.success(), "{}", text(&me.stderr));
        let words = [
            "connect",
            &server.address(),
            "--expect",
            "@me",
            "--identity",
            &file,
        ];
        let output = place.run_with(&words, b"by name");
        assert_eq!(text(&output.stdout), "by name", "{}", text(&output.stderr));
        let (stranger, _) = place.identity(&format!("stranger-{}", allow.trim_start_matches('@')));
        let words = [
            "connect",
            &server.address(),
            "--expect",
            "@me",
            "--identity",
            &stranger,
        ];
        place.fails(&words, 7);
        place.fails(&["connect", &server.address(), "--expect", "@client"], 3);
    }
    let line = place.fails(&["connect", "tcp:127.0.0.1:1", "--expect", "@nobody"], 2);
    assert!(
        line.contains("nobody") && line.contains("cepa peer ls"),
        "{line}"
    );
}

#[test]
fn a_list_that_can_not_be_read_trusts_nobody() {
    let place = Place::new();
    let server = server(&place, &["--allow", "any"]);
    let words = ["connect", &server.address(), "--trust-new"];
    assert_eq!(place.run_with(&words, b"").status.code(), Some(0));
    let file = place.path("config/known_peers");
    let good = fs::read(&file).unwrap();
    fs::write(&file, b"damaged\n").unwrap();
    let line = place.fails(&words, 3);
    assert!(line.contains("line 1"), "{line}");
    assert_eq!(fs::read(&file).unwrap(), b"damaged\n");
    fs::write(&file, good).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        let line = place.fails(&words, 3);
        assert!(line.contains("chmod 600"), "{line}");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(place.run_with(&words, b"").status.code(), Some(0));
    }
}

#[test]
fn stdio_says_nothing_about_who_is_there() {
    let place = Place::new();
    let address = format!("exec:{} serve stdio: --allow any", bin().display());
    place.fails_quietly(&["pipe", "tls+stdio:", "tcp:127.0.0.1:1", "--trust-new"], 2);
    let output = place.run_with(&["connect", &address, "--trust-new"], b"");
    assert_eq!(
        output.status.code(),
        Some(7),
        "it has no services: {}",
        text(&output.stderr)
    );
    assert!(
        known(&place).contains("at=exec:"),
        "a command line is a place"
    );
}

/// Runs it at a terminal of its own, where somebody writes this.
fn at_terminal(place: &Place, words: &[&str], typed: &str) -> (Option<i32>, String) {
    let line: Vec<String> = words.iter().map(|w| format!("'{w}'")).collect();
    let line = format!("{} {} < /dev/null", bin().display(), line.join(" "));
    let mut child = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .env("CEPA_CONFIG_DIR", place.path("config"))
        .env_remove("RUST_BACKTRACE")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(typed.as_bytes()).unwrap();
    let output = finish(child);
    drop(stdin);
    (output.status.code(), text(&output.stdout))
}

#[test]
fn a_person_at_a_terminal_is_asked() {
    if Command::new("script").arg("--version").output().is_err() {
        eprintln!("SKIPPED: no `script` here to make a terminal with");
        return;
    }
    let place = Place::new();
    let server = server(&place, &["--allow", "any"]);
    let address = server.address();
    assert!(place.run(&["id", "show"]).status.success());
    let (code, shown) = at_terminal(&place, &["connect", &address], "perhaps\nno\n");
    assert_eq!(code, Some(4), "{shown}");
    assert!(
        shown.contains(&server.id()) && shown.contains("yes or no"),
        "{shown}"
    );
    assert_eq!(known(&place), "");
    let (code, shown) = at_terminal(&place, &["connect", &address], "yes\n");
    assert_eq!(code, Some(0), "{shown}");
    assert!(known(&place).contains(" how=asked "), "{}", known(&place));
    let (code, shown) = at_terminal(&place, &["connect", &address], "");
    assert_eq!(
        (code, shown.contains("yes/no")),
        (Some(0), false),
        "{shown}"
    );
    // Who was told whom to expect is not asked.
    let wrong = "a".repeat(52);
    let (code, shown) = at_terminal(&place, &["connect", &address, "--expect", &wrong], "yes\n");
    assert_eq!(
        (code, shown.contains("yes/no")),
        (Some(3), false),
        "{shown}"
    );
}

/// As ssh has it: the key is known, only the place is new.
#[test]
fn a_known_peer_at_another_place_is_named_and_the_place_can_be_added() {
    let place = Place::new();
    let server = server(&place, &["--allow", "any"]);
    let (id, known_at) = (server.id(), server.address());
    let port = known_at.rsplit(':').next().unwrap();
    let address = format!("tcp:localhost:{port}");
    let added = place.run(&["peer", "add", "bee", &id, "--at", &known_at]);
    assert!(added.status.success());
    let line = place.fails_quietly(&["connect", &address, "up"], 4);
    for part in ["your known peer bee", &known_at, "peer add bee"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    let command: Vec<&str> = line
        .split("run: cepa ")
        .nth(1)
        .unwrap()
        .split(' ')
        .collect();
    let bare = place.text("config/known_peers");
    let before = fs::read_to_string(&bare).unwrap();
    assert!(place.run(&command).status.success(), "{line}");
    let output = place.run_with(&["connect", &address, "up"], b"hello");
    assert_eq!(text(&output.stdout), "hello", "{}", text(&output.stderr));
    fs::write(&bare, before).unwrap();
    if Command::new("script").arg("--version").output().is_err() {
        eprintln!("SKIPPED: no `script` here to make a terminal with");
        return;
    }
    let (code, shown) = at_terminal(&place, &["connect", &address], "yes\n");
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("your known peer bee"), "{shown}");
    assert!(shown.contains("Add this address to it?"), "{shown}");
    let known = fs::read_to_string(&bare).unwrap();
    assert!(
        known.contains(&address) && known.contains(&known_at),
        "{known}"
    );
}

#[test]
fn another_known_peer_and_oneself_are_no_changed_key() {
    let place = Place::new();
    let (bee_file, bee) = place.identity("bee");
    let (_, ann) = place.identity("ann");
    place.succeeds(&["id", "show"]);
    let own = server(&place, &["--allow", "any"]);
    let other = server(&place, &["--allow", "any", "--identity", &bee_file]);
    place.succeeds(&["peer", "add", "bee", &bee, "--at", "tcp:127.0.0.1:1"]);
    for (at, whose) in [
        (other.address(), "your known peer bee answered"),
        (own.address(), "this machine answered with your own key"),
    ] {
        place.succeeds(&["peer", "add", "ann", &ann, "--at", &at]);
        for words in [
            &["connect", &at, "up"][..],
            &["connect", "@ann", "up"],
            &["pipe", &format!("tls+{at}"), "exec:cat"],
            &["forward", &at, "-L", "0=up"],
            &["connect", &at, "up", "--expect", &ann],
        ] {
            let line = place.fails(words, 3);
            assert!(line.contains(whose) && line.contains("ann "), "{line}");
            assert!(
                !line.contains("--replace") && !line.contains("its owner changed"),
                "{line}"
            );
        }
        place.succeeds(&["peer", "rm", "ann"]);
    }
}

#[test]
fn an_authority_vouches_for_the_host() {
    let place = Place::new();
    let root_key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut root = rcgen::CertificateParams::default();
    root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root_pem = root.self_signed(&root_key).unwrap().pem();
    fs::write(place.path("ca.pem"), root_pem).unwrap();
    let issuer = rcgen::Issuer::new(root, root_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut leaf = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    leaf.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = leaf.signed_by(&key, &issuer).unwrap();
    // By `cepa id`, so that the file is private.
    let (file, _) = place.identity("server");
    fs::write(&file, key.serialize_pem() + &certificate.pem()).unwrap();
    let server = server(&place, &["--allow", "any", "--identity", &file]);
    let (address, ca) = (server.address(), place.text("ca.pem"));
    place.fails_quietly(&["connect", &address], 4);
    let output = place.run_with(&["connect", &address, "--ca", &ca], b"vouched");
    assert_eq!(text(&output.stdout), "vouched", "{}", text(&output.stderr));
    let wrong = "a".repeat(52);
    let words = ["connect", &address, "--ca", &ca, "--expect", &wrong];
    assert_eq!(place.run_with(&words, b"either").status.code(), Some(0));
    // The same key, without the authority's word.
    let by_name = address.replace("127.0.0.1", "localhost");
    let line = place.fails(&["connect", &by_name, "--ca", &ca], 3);
    assert!(line.contains("authority"), "{line}");
    // The platform's authorities, which this variable names on every Unix but macOS.
    if cfg!(target_os = "linux") {
        let by_system = |roots: &str| {
            let mut command = place.cepa(&["connect", &address, "--ca", "system"]);
            finish(command.env("SSL_CERT_FILE", roots).spawn().unwrap())
        };
        let output = by_system(&ca);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        // An authority, but not that one.
        let other = rcgen::KeyPair::generate().unwrap();
        let mut root = rcgen::CertificateParams::default();
        root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root = root.self_signed(&other).unwrap().pem();
        fs::write(place.path("other.pem"), root).unwrap();
        let output = by_system(&place.text("other.pem"));
        let line = failed(&output, 3);
        assert!(line.contains("authority"), "{line}");
    }
    place.fails(&["connect", &address, "--ca", &place.text("none.pem")], 8);
    place.fails(&["connect", "unix:/run/none", "--ca", &ca], 2);
}

#[test]
fn a_certificate_that_has_run_out_is_warned_of_at_both_ends() {
    let place = Place::new();
    let id_in = |file: &str| {
        let output = place.run(&["id", "show", "--identity", file]);
        text(&output.stdout).trim().to_owned()
    };
    let of_server = place.expired_identity("server");
    let of_client = place.expired_identity("client");
    let (server_id, client_id) = (id_in(&of_server), id_in(&of_client));
    let mut server = server(&place, &["--allow", &client_id, "--identity", &of_server]);
    let address = server.address();
    let words = ["connect", &address, "--expect", &server_id];
    let output = place.run_with(
        &[&words[..], &["--identity", &of_client]].concat(),
        b"still let in",
    );
    let said = text(&output.stderr);
    assert_eq!(text(&output.stdout), "still let in", "{said}");
    assert!(
        said.contains("this machine's certificate has expired"),
        "{said}"
    );
    let of_peer = |id: &str| format!("the certificate of peer {id} has expired");
    assert!(said.contains(&of_peer(&server_id)), "{said}");
    server.wait_for(&of_peer(&client_id));
    let said = server.seen().join("\n");
    assert!(
        said.contains("this machine's certificate has expired"),
        "{said}"
    );
}

#[test]
fn a_peer_that_is_named_is_asked_for_by_its_id() {
    let place = Place::new();
    let (first, _) = place.identity("first");
    let (second, second_id) = place.identity("second");
    let words = [
        "--allow",
        "any",
        "--identity",
        &first,
        "--identity",
        &second,
    ];
    let server = server(&place, &words);
    assert!(
        place
            .run(&["peer", "add", "other", &second_id])
            .status
            .success()
    );
    let words = ["connect", &server.address(), "--expect", "@other"];
    let output = place.run_with(&words, b"asked");
    assert_eq!(text(&output.stdout), "asked", "{}", text(&output.stderr));
}

/// Who dials says what is wrong there; the server says what it knows, and gives no advice that is for who dials.
#[test]
fn a_dialler_that_expected_another_one_is_reported_as_that() {
    let place = Place::new();
    let mut server = place.serve(&["tcp:127.0.0.1:0", "--service", "up=echo:", "--allow", "any"]);
    let (_, other) = place.identity("other.pem");
    let at = server.address();
    place.fails_quietly(&["connect", &at, "up", "--expect", &other], 3);
    let line = server.wait_for("the peer refused this server's identity");
    assert!(line.contains("it expects another id"), "{line}");
    assert!(
        !line.contains("alert") && !line.contains("ask its owner"),
        "{line}"
    );
}
