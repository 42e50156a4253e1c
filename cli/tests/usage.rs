//! Help, wrong command lines, `id` and `explain`: what needs no peer.

mod common;

use std::process::Command;

use common::{Place, text};

#[test]
fn help_goes_to_standard_output_and_lists_commands_and_exit_codes() {
    let place = Place::new();
    let output = place.run(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = text(&output.stdout);
    for word in [
        "demo",
        "serve",
        "relay",
        "connect",
        "console",
        "forward",
        "send",
        "pipe",
        "id",
        "peer",
        "ping",
        "completions",
        "man",
        "invite",
        "join",
        "probe",
        "ports",
        "explain",
        "Exit codes:",
    ] {
        assert!(help.contains(word), "{word} is missing in {help}");
    }
    for code in 0..=8 {
        assert!(
            help.contains(&format!("\n  {code}  ")),
            "code {code} is missing in {help}"
        );
    }
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn every_command_has_help_and_says_what_its_options_are() {
    let place = Place::new();
    for (words, option) in [
        (&["serve"][..], "--allow"),
        (&["relay"], "--circuits"),
        (&["id", "addr"], "--relay"),
        (&["connect"], "--expect"),
        (&["console"], "--escape"),
        (&["forward"], "--local"),
        (&["send"], "--by"),
        (&["pipe"], "--trust"),
        (&["id", "new"], "--kind"),
        (&["id", "show"], "--identity"),
        (&["peer", "add"], "--replace"),
        (&["invite"], "--minutes"),
        (&["join"], "<CODE>"),
        (&["demo"], "--size"),
        (&["ping"], "--interval"),
        (&["completions"], "bash"),
        (&["man"], "<DIR>"),
        (&["probe"], "--answer"),
        (&["ports"], "--json"),
        (&["explain"], "<ADDR>"),
    ] {
        let output = place.run(&[words, &["--help"]].concat());
        assert_eq!(output.status.code(), Some(0), "{words:?}");
        assert!(
            text(&output.stdout).contains(option),
            "{words:?}: {}",
            text(&output.stdout)
        );
    }
}

#[test]
fn wrong_command_lines_are_one_line_and_exit_code_2() {
    let place = Place::new();
    assert!(place.run(&["id", "show"]).status.success());
    for (words, says) in [
        (&["--log-format", "text"][..], "cepa --help"),
        (&["frobnicate"], "frobnicate"),
        (&["connect"], "<ADDR>"),
        (&["connect", "tcp:127.0.0.1:1", "--frob"], "--frob"),
        (&["connect", "tcp:127.0.0.1:1", "--trust", "some"], "any"),
        (&["connect", "tcp:127.0.0.1:1", "--expect", "abc"], "52"),
        (
            &["connect", "tpc:127.0.0.1:1"],
            "did you mean \"tcp\"?; see",
        ),
        (&["connect", "nonsense"], "cepa://PEERID@ADDR/SERVICE"),
        (&["connect", "tcp:127.0.0.1"], "HOST:PORT"),
        (&["connect", "serial:/dev/ttyS0,buad=9600"], "baud"),
        (&["connect", "tsl+tcp:127.0.0.1:1"], "tls"),
        (&["serve"], "<ADDR>"),
        (&["serve", "memory:x"], "memory:"),
        (&["serve", "tls+tcp:127.0.0.1:0"], "mux+"),
        (&["connect", "mux+tcp:127.0.0.1:1"], "mux+tls+"),
        (
            &["serve", "tcp:127.0.0.1:0", "--service", "up"],
            "NAME=ADDR",
        ),
        (&["serve", "tcp:127.0.0.1:0", "--service", "=echo:"], "name"),
        (
            &["serve", "tcp:127.0.0.1:0", "--service", "up=exce:ls"],
            "exec",
        ),
        (
            &["serve", "tcp:127.0.0.1:0", "--service", "up=tls+tcp:x:1"],
            "layers",
        ),
        (&["serve", "tcp:127.0.0.1:0", "--allow", "everyone"], "any"),
        (
            &[
                "serve",
                "tcp:127.0.0.1:0",
                "--service",
                "a=echo:",
                "--service",
                "a=exec:cat",
            ],
            "named a",
        ),
        (&["forward", "tcp:127.0.0.1:1"], "--local"),
        (&["forward", "tcp:127.0.0.1:1", "-L", "stdio:=db"], "unix"),
        (&["pipe", "tcp:127.0.0.1:1"], "<ADDR>"),
        (
            &["pipe", "mux+tls+tcp:127.0.0.1:1", "stdio:"],
            "cepa connect",
        ),
        (&["demo", "--size", "0"], "--size"),
        (&["id", "new", "--kind", "rsa"], "ed25519"),
        (&["explain", "nonsense"], "tcp"),
    ] {
        let line = place.fails(words, 2);
        assert!(line.contains(says), "{words:?} should say {says:?}: {line}");
    }
}

/// What one knows from elsewhere, or has in the wrong place: the line says where it belongs.
#[test]
fn a_guess_is_made_at_what_was_meant() {
    const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    let place = Place::new();
    assert!(place.run(&["id", "show"]).status.success());
    assert!(place.run(&["peer", "add", "bee", ID]).status.success());
    let relay = format!("cepa://{ID}@tcp:h:1");
    let bare = format!("{ID}@tcp:h:1");
    let behind = format!("cepa://{ID}@{ID}@tcp:h:1");
    for (words, says) in [
        (
            &["connect", "tcp:h:1", "up", "--allow", "any"][..],
            "the option for the other end's id is --expect here",
        ),
        (
            &["serve", "tcp:h:1", "--expect", ID],
            "who may connect is --allow here",
        ),
        (
            &["relay", "tcp:h:1", "--trust-new"],
            "who may connect is --allow here",
        ),
        (
            &["connect", "tcp:h:1", "--register", "x"],
            "an option of `cepa serve`",
        ),
        (&["connect", "tcp:h:17000/up"], "tcp:h:17000 up"),
        (
            &["connect", "up", "tcp:h:1"],
            "the address comes first: tcp:h:1 up",
        ),
        (&["node", "node.toml"], "did you mean --config node.toml?"),
        (&["serve", "tcp:h:1", "--allow", "all"], "`any`"),
        (&["serve", "tcp:h:1", "--allow", "bee"], "@bee"),
        (&["connect", "tcp:h:1", "--expect", "bee"], "@bee"),
        (
            &["forward", "tcp:h:1", "-L", "*:15436=echo"],
            "0.0.0.0:15436",
        ),
        (&["serve", &relay], "--register cepa://"),
        (&["relay", &relay], "--register cepa://"),
        (&["serve", &bare], "--register cepa://"),
        (&["connect", &bare], "cepa://aaaa"),
        (&["connect", &behind], "a relay is written relay:aaaa"),
        (&["pipe", "tcp-listen:7000", "stdio:"], "`cepa forward -L`"),
        (&["pipe", &relay, "stdio:"], "`cepa connect`"),
        (
            &["serve", "tcp:h:1", "--durable"],
            "found; --durable is the default here; leave it out; see `cepa serve --help`",
        ),
        (&["node", "--durable"], "an option of `cepa connect`"),
        (
            &["connect", "tcp:h:1", "--park", "-5s"],
            "expected a time from 1s to 30d",
        ),
        (
            &["serve", "tcp:h:1", "--park", "-5s"],
            "expected a time from 1s to 30d",
        ),
        (
            &["-v", "connect", "tcp:h:1", "--park", "0"],
            "for example 90s, 10min, 8h or 2d; see `cepa connect --help`",
        ),
        (
            &["--log-format", "text", "-v", "peer", "add"],
            "see `cepa peer add --help`",
        ),
    ] {
        let line = place.fails(words, 2);
        assert!(line.contains(says), "{words:?} should say {says:?}: {line}");
        for wrong in ["tcp:cepa:", "tcp:tcp-", "-- --"] {
            assert!(!line.contains(wrong), "{words:?}: {line}");
        }
    }
    // On `connect` it is another option that decides.
    let help = text(&place.run(&["connect", "--help"]).stdout);
    let words: Vec<&str> = help.split_whitespace().collect();
    assert!(
        words.join(" ").contains("ends counts. Implies --durable"),
        "{help}"
    );
    let help = place.run(&["help", "connect"]);
    assert_eq!(help.status.code(), Some(0), "{}", text(&help.stderr));
    assert_eq!(help.stdout, place.run(&["connect", "--help"]).stdout);
}

#[test]
fn a_wrong_address_names_the_column_and_the_nearest_key() {
    let place = Place::new();
    let line = place.fails(&["connect", "serial:/dev/ttyS0,buad=9600"], 2);
    assert!(line.contains("baud"), "{line}");
    assert!(line.contains("19"), "the column of the key: {line}");
    assert!(
        line.contains("`cepa connect --help`"),
        "where to read on: {line}"
    );
}

#[test]
fn explain_lists_the_layers_and_contacts_nobody() {
    let place = Place::new();
    let output = place.run(&["explain", "tcp:127.0.0.1:9"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let reported = text(&output.stdout);
    for word in ["mux", "tls", "127.0.0.1", "9"] {
        assert!(
            reported.to_lowercase().contains(word),
            "{word} is missing in {reported}"
        );
    }
    assert_eq!(text(&output.stderr), "");
    let json = place.succeeds(&["explain", "tcp:127.0.0.1:9", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["kind"], "address");
    let last = serde_json::json!({ "word": "tcp", "meaning": "TCP to 127.0.0.1, port 9" });
    assert_eq!(json["lines"].as_array().unwrap().last(), Some(&last));
}

#[test]
fn explain_takes_what_other_commands_print() {
    let place = Place::new();
    let (_, id) = place.identity("peer.pem");
    let explained = |word: &str| {
        let output = place.run(&["explain", word]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let reported = text(&output.stdout);
        let wide = reported.lines().find(|line| line.chars().count() > 80);
        assert_eq!(wide, None);
        // As if the lines were as long as what they say.
        reported.replace("\n          ", " ")
    };
    assert!(place.run(&["peer", "add", "phone", &id]).status.success());
    let address =
        format!("cepa://{id}@tcp:host:7000;relay:{id}@tcp:r:1;exec:touch%20%2Ftmp%2Fx/up");
    let reported = explained(&address);
    for word in [
        "service   up\n",
        &format!("peer      {id}, known here as phone\n"),
        "at        TCP to host, port 7000\n",
        "at        the relay ",
        "--local-hints",
        "\"touch\" \"/tmp/x\"",
    ] {
        assert!(reported.contains(word), "{word} is missing in {reported}");
    }
    assert!(explained("cepa://@phone").contains("at        not given"));

    let (_, friend) = place.identity("friend.pem");
    let printed = place.run(&["introduce", &friend, &address]);
    let reported = explained(text(&printed.stdout).trim());
    for word in [
        "TCP to host",
        &format!("for       {friend}\n"),
        " from now\n",
        "uses      once\n",
        "further   may not be passed on\n",
    ] {
        assert!(reported.contains(word), "{word} is missing in {reported}");
    }
    let terms = ["--uses", "3", "--further", "1", "--minutes", "60"];
    assert!(place.run(&["peer", "add", "ann", &friend]).status.success());
    let printed = place.run(&[&["introduce", "@ann", &address][..], &terms].concat());
    let said = text(&printed.stderr);
    for word in ["for ann, to up, 3 times within ", "may be passed on once"] {
        assert!(said.contains(word), "{word} is missing in {said}");
    }
    let reported = explained(text(&printed.stdout).trim());
    for word in ["uses      3 times\n", "further   may be passed on once\n"] {
        assert!(reported.contains(word), "{word} is missing in {reported}");
    }
    // Of the code of an invitation (docs/TRUST.md) all but the secret.
    let mut invite = place.cepa(&["invite", "tcp:127.0.0.1:0", "--at", "tcp:host:7000"]);
    let mut child = invite.spawn().unwrap();
    let mut code = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut code).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let reported = explained(code.trim());
    assert!(reported.contains("TCP to host, port 7000"), "{reported}");
    assert!(reported.contains("min from now"), "{reported}");

    for wrong in ["cepa://x", "cepa-introduction:x", "cepa-invitation:x"] {
        place.fails(&["explain", wrong], 2);
    }
}

#[test]
fn an_address_has_no_more_layers_than_a_stack() {
    let place = Place::new();
    assert!(place.run(&["id", "show"]).status.success());
    let tls = |n: usize| "tls+".repeat(n);
    assert!(
        place
            .run(&["explain", &format!("mux+{}tcp:h:1", tls(8))])
            .status
            .success()
    );
    let nine = format!("mux+{}tcp:127.0.0.1:1", tls(9));
    for words in [
        &["explain", &nine][..],
        &["connect", &nine, "--trust", "any"],
        &["serve", &nine],
        &["pipe", "stdio:", &nine["mux+".len()..]],
    ] {
        let line = place.fails(words, 2);
        assert!(line.contains("at most 8 TLS layers"), "{line}");
    }
}

#[test]
fn id_new_makes_a_private_file_and_show_prints_the_id_alone() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    for kind in ["ed25519", "p256"] {
        let file = place.text(kind);
        let made = place.run(&["id", "new", "--identity", &file, "--kind", kind]);
        assert_eq!(made.status.code(), Some(0), "{}", text(&made.stderr));
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let shown = place.run(&["id", "show", "--identity", &file]);
        assert_eq!(shown.status.code(), Some(0), "{}", text(&shown.stderr));
        assert_eq!(text(&shown.stderr), "");
        let id = text(&shown.stdout);
        assert_eq!(id.len(), 53, "52 characters and a line end: {id:?}");
        assert!(
            id.trim_end()
                .bytes()
                .all(|b| b.is_ascii_lowercase() || (b'2'..=b'7').contains(&b))
        );
        assert_eq!(made.stdout, shown.stdout);
    }
}

#[test]
fn the_default_identity_is_made_once_and_said_so() {
    let place = Place::new();
    let first = place.run(&["id", "show"]);
    assert_eq!(first.status.code(), Some(0), "{}", text(&first.stderr));
    assert!(
        text(&first.stderr).contains("created the identity"),
        "{}",
        text(&first.stderr)
    );
    let second = place.run(&["id", "show"]);
    assert_eq!(text(&second.stderr), "");
    assert_eq!(first.stdout, second.stdout);
    assert!(place.path("config/identity.pem").exists());
}

#[test]
fn the_default_identity_follows_xdg_and_home() {
    let place = Place::new();
    for (variable, file) in [
        ("XDG_CONFIG_HOME", "xdg/cepa/identity.pem"),
        ("HOME", "home/.config/cepa/identity.pem"),
    ] {
        let folder = if variable == "HOME" { "home" } else { "xdg" };
        let mut command = place.cepa(&["id", "show"]);
        command
            .env_remove("CEPA_CONFIG_DIR")
            .env_remove("XDG_CONFIG_HOME");
        command.env(variable, place.path(folder));
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert!(place.path(file).exists(), "{variable}");
    }
}

#[test]
fn identity_files_that_will_not_do_are_exit_code_8() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let missing = place.text("missing.pem");
    let line = place.fails(&["id", "show", "--identity", &missing], 8);
    assert!(line.contains("cepa id new --identity"), "{line}");

    let (file, _) = place.identity("loose.pem");
    let line = place.fails(&["id", "new", "--identity", &file], 8);
    assert!(line.contains("exists"), "{line}");

    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    for words in [
        &["id", "show", "--identity", &file][..],
        &[
            "connect",
            "tcp:127.0.0.1:1",
            "--trust",
            "any",
            "--identity",
            &file,
        ],
        &["serve", "tcp:127.0.0.1:0", "--identity", &file],
    ] {
        let line = place.fails(words, 8);
        assert!(line.contains("chmod 600"), "{line}");
    }

    let junk = place.text("junk.pem");
    std::fs::write(&junk, "not a key\n").unwrap();
    // Not to be made private, if it is something that others read.
    std::fs::set_permissions(&junk, std::fs::Permissions::from_mode(0o644)).unwrap();
    for other in [&junk, "/etc/passwd"] {
        let line = place.fails(&["id", "show", "--identity", other], 8);
        assert!(!line.contains("chmod"), "{line}");
        assert!(line.contains("not an identity file"), "{line}");
    }
    std::fs::set_permissions(&junk, std::fs::Permissions::from_mode(0o600)).unwrap();
    place.fails(&["id", "show", "--identity", &junk], 8);
}

/// Whatever is wrong with where to listen, it is to be put right on this machine.
#[test]
fn an_address_that_can_not_be_listened_on_is_exit_code_8() {
    let place = Place::new();
    assert!(place.run(&["id", "show"]).status.success());
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("tcp:{}", holder.local_addr().unwrap());
    let no_folder = format!("unix:{}", place.text("none/s"));
    let too_long = format!("unix:{}", place.text(&"x".repeat(200)));
    for at in [&taken, "tcp:192.0.2.1:7", &no_folder, &too_long] {
        let line = place.fails(&["serve", at, "--service", "up=echo:", "--allow", "any"], 8);
        assert!(line.contains("cannot listen on"), "{line}");
        place.fails(&["relay", at, "--allow", "any"], 8);
    }
}

#[test]
fn a_certificate_of_another_key_is_exit_code_8() {
    use std::os::unix::fs::OpenOptionsExt;
    let place = Place::new();
    let (one, _) = place.identity("one.pem");
    let (other, _) = place.identity("other.pem");
    let part = |file: &str, what: &str| {
        let pem = std::fs::read_to_string(file).unwrap();
        let begin = pem.find(&format!("-----BEGIN {what}-----")).unwrap();
        let end = format!("-----END {what}-----\n");
        let stop = pem[begin..].find(&end).unwrap() + begin + end.len();
        pem[begin..stop].to_owned()
    };
    let mixed = place.text("mixed.pem");
    let text = part(&one, "PRIVATE KEY") + &part(&other, "CERTIFICATE");
    let mut file = std::fs::OpenOptions::new();
    let mut file = file
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&mixed)
        .unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    let line = place.fails(&["id", "show", "--identity", &mixed], 8);
    assert!(line.contains("certificate"), "{line}");
}

#[test]
fn a_folder_that_may_not_be_written_is_exit_code_8() {
    let place = Place::new();
    // A file where the folder should be is refused whoever runs the test, root included.
    std::fs::write(place.path("config"), "").unwrap();
    let line = place.fails(&["id", "show"], 8);
    assert!(line.contains("identity.pem"), "{line}");
}

#[test]
fn output_whose_reader_has_left_is_no_error() {
    let place = Place::new();
    let mut command = place.cepa(&["explain", "tcp:127.0.0.1:9"]);
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = common::finish(child);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn ports_are_listed_or_one_line_says_that_there_are_none() {
    let place = Place::new();
    let (table, json) = (place.run(&["ports"]), place.run(&["ports", "--json"]));
    assert_eq!(
        (table.status.code(), json.status.code()),
        (Some(0), Some(0))
    );
    let list = text(&json.stdout);
    assert!(list.starts_with('[') && list.ends_with("]\n"), "{list}");
    if list == "[]\n" {
        assert_eq!(text(&table.stdout), "");
        let reported = text(&table.stderr);
        assert!(reported.contains("found no serial ports"), "{reported}");
        assert_eq!(reported.lines().count(), 1, "{reported}");
    } else {
        assert!(text(&table.stdout).starts_with("PORT "));
        assert!(text(&table.stdout).lines().count() > 1);
    }
}

/// What is printed is pasted, also by who does not think of quotes.
#[test]
fn a_printed_address_goes_through_a_shell_as_it_is() {
    let place = Place::new();
    let words = [
        "id",
        "addr",
        "tcp:a.example:7000",
        "tcp:b.example:7000,keepalive=no",
        "--service",
        "up",
    ];
    let printed = place.succeeds(&words);
    let address = printed.trim();
    let shell = Command::new("sh")
        .args(["-c", &format!("printf '%s|' {address}")])
        .output()
        .unwrap();
    assert_eq!(text(&shell.stdout), format!("{address}|"));
    let explained = place.succeeds(&["explain", "--json", address]);
    for place in [
        "TCP to a.example, port 7000",
        "TCP to b.example, port 7000; never asks",
    ] {
        assert!(explained.contains(place), "{explained}");
    }
    // As it was printed before.
    let id = address
        .strip_prefix("cepa://")
        .unwrap()
        .split('@')
        .next()
        .unwrap();
    let old = format!("cepa://{id}@tcp:a.example:7000;tcp:b.example:7000,keepalive=no/up");
    assert_eq!(place.succeeds(&["explain", "--json", &old]), explained);
}

/// Words that are nearly right say what is missing.
#[test]
fn what_a_newcomer_types_says_what_to_type() {
    let place = Place::new();
    place.succeeds(&["id", "show"]);
    let at = "tcp:127.0.0.1:1";
    for (words, said) in [
        (
            &["connect"][..],
            "<ADDR> is missing: cepa connect <ADDR> [SERVICE]",
        ),
        (&["cp", "a"], "is missing: cepa cp <SRC>... <DST>"),
        (
            &["serve", at, "--service", "up=echo"],
            "a colon is missing; give echo:",
        ),
        (
            &["forward", at, "-L", "99999=web"],
            "99999 is no port: ports end at 65535",
        ),
        (&["forward", at, "-L", "99999"], "ports end at 65535"),
        (&["forward", at, "-D", "70000"], "ports end at 65535"),
    ] {
        let line = place.fails(words, 2);
        assert!(line.contains(said), "{words:?}: {line}");
    }
    assert_eq!(place.succeeds(&["help", "help"]), place.succeeds(&["help"]));
}

/// An option takes one value; the line has what to write for several.
#[test]
fn several_values_behind_one_option_are_each_to_have_it() {
    let place = Place::new();
    place.succeeds(&["id", "show"]);
    let at = "tcp:127.0.0.1:0";
    for (words, said) in [
        (
            &["serve", at, "--allow", "@ann", "@bob"][..],
            "--allow takes one value; repeat it: --allow @ann --allow @bob; see `cepa serve --help`",
        ),
        (
            &["serve", "--allow", "known", "@bob", at],
            "repeat it: --allow known --allow @bob;",
        ),
        (
            &["relay", at, "--allow=@ann", "@bob", "@cy"],
            "repeat it: --allow @ann --allow @bob --allow @cy;",
        ),
        (
            &["serve", "--allow", "any", "any"],
            "--allow any --allow any;",
        ),
        (
            &["serve", at, "--service", "e=echo:", "d=echo:", "-v"],
            "--service takes one value; repeat it: --service e=echo: --service d=echo:;",
        ),
        (
            &["forward", "tcp:h:1", "-L", "80", "81"],
            "-L takes one value; repeat it: -L 80 -L 81;",
        ),
        (
            &["forward", "tcp:h:1", "-L80", "81"],
            "repeat it: -L 80 -L 81;",
        ),
        (
            &[
                "serve",
                at,
                "--service",
                "a=tcp:h:1",
                "b=tcp:h:2,proxy=http://u:pass@p:1",
            ],
            "--service b=tcp:h:2,proxy=http://u:***@p:1;",
        ),
    ] {
        let line = place.fails(words, 2);
        assert!(line.contains(said), "{words:?} should say {said:?}: {line}");
        assert!(!line.contains("pass@"), "{line}");
    }
    // What would be wrong there, too, is told as before.
    for words in [
        &["serve", at, "--allow", "any", "bob"][..],
        &[
            "serve",
            "tcp:127.0.0.1:1",
            "tcp:127.0.0.1:x",
            "--allow",
            "any",
        ],
        &["connect", "tcp:h:1", "up", "much"],
        &["serve", at, "--allow", "any", "--", "@bob"],
    ] {
        let line = place.fails(words, 2);
        assert!(!line.contains("repeat"), "{words:?}: {line}");
    }
}

/// An option in front of a subcommand, or without one: the line has the command that takes it.
#[test]
fn an_option_of_a_subcommand_is_named_with_that() {
    let place = Place::new();
    place.succeeds(&["id", "show"]);
    for (words, said) in [
        (
            &["id", "--identity", "f"][..],
            "unexpected argument '--identity' found; give it behind the subcommand: `cepa id show --identity FILE`; see `cepa id --help`",
        ),
        (&["id", "--words"], "`cepa id show --words`"),
        (&["id", "--kind=x"], "`cepa id new --kind KIND`"),
        (
            &["id", "--identity", "f", "rotate"],
            "`cepa id rotate --identity FILE`",
        ),
        (&["peer", "--json"], "`cepa peer ls --json`"),
        (&["peer", "--json", "find"], "`cepa peer find --json`"),
        (
            &["mesh", "--control", "c"],
            "`cepa mesh status --control PATH`",
        ),
        (&["config", "--config", "c"], "an option of `cepa node`"),
        (
            &["--words", "id", "show"],
            "found; give it behind the subcommand: `cepa id show --words`",
        ),
        (
            &["--allow", "any", "serve", "tcp:h:1"],
            "`cepa serve --allow PEERID|@NAME|known|any`",
        ),
        (&["--allow", "any"], "an option of `cepa serve` and"),
        // It is that of another command.
        (
            &["id", "--json"],
            "an option of `cepa status` and `cepa ping`",
        ),
        (&["relay", "--json"], "an option of `cepa status`"),
        (&["serve", "--words"], "an option of `cepa id show`"),
    ] {
        let line = place.fails(words, 2);
        assert!(line.contains(said), "{words:?} should say {said:?}: {line}");
    }
}
