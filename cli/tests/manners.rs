//! What a person expects of any tool: the list of commands, completions, manual pages, colours, quiet, and `cepa ping`.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use common::desk::Desk;
use common::{Place, Server, text};
use serde_json::Value;

const ANN: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const ANTON: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbba";

#[test]
fn the_commands_are_listed_in_groups_with_one_line_each() {
    let place = Place::new();
    let list = place.succeeds(&[]);
    assert_eq!(place.succeeds(&["help"]), list);
    for group in ["Connect:", "Offer:", "Peers and keys:", "Look:"] {
        assert!(list.lines().any(|line| line == group), "{list}");
        assert!(
            place
                .succeeds(&["--help"])
                .contains(&format!("\n{group}\n"))
        );
    }
    let ping = list.lines().filter(|line| line.starts_with("  ping "));
    assert_eq!(ping.count(), 1, "{list}");
    assert!(list.lines().all(|line| line.chars().count() <= 80));
    assert!(list.lines().count() < 48, "{list}");
    assert_eq!(
        place.succeeds(&["help", "peer", "add"]),
        place.succeeds(&["peer", "add", "--help"])
    );
    let line = place.fails(&["help", "frobnicate"], 2);
    assert!(line.contains("frobnicate"), "{line}");
}

/// A shell with words, and `cepa` in its path.
fn shell(place: &Place, name: &str, words: &[&str]) -> Option<String> {
    let path = std::env::var("PATH").unwrap();
    let ours = common::bin().parent().unwrap().display();
    let output = Command::new(name)
        .args(words)
        .env("PATH", format!("{ours}:{path}"))
        .env("HOME", place.dir.path())
        .env("CEPA_CONFIG_DIR", place.path("config"))
        .stdin(Stdio::null())
        .output();
    let Ok(output) = output else {
        eprintln!("SKIPPED: no {name} here");
        return None;
    };
    assert!(output.status.success(), "{name}: {}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "", "{name}");
    Some(text(&output.stdout))
}

fn with_peers() -> Place {
    let place = Place::new();
    place.succeeds(&["peer", "add", "ann", ANN]);
    place.succeeds(&["peer", "add", "anton", ANTON]);
    fs::create_dir(place.path("config/offered")).unwrap();
    let offered = place.path("config/offered").join(ANTON);
    // A peer names its services as it likes, and who asked it kept that.
    let hostile = "files u$(touch${IFS}pwn)\nfiles u`id`\nfiles u;id\nfiles u*\nfiles u\\x\nfiles u'\nfiles ../u\nfiles -u\nfiles u/../x\n";
    fs::write(offered, format!("- old\nserial uart\nfiles up\n{hostile}")).unwrap();
    let config = place.path("config/config.toml");
    fs::write(&config, "[targets.anna-target]\naddress = \"tcp:h:1\"\n").unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).unwrap();
    for name in ["bash", "zsh", "fish"] {
        let script = place.succeeds(&["completions", name]);
        fs::write(place.path(name), script).unwrap();
    }
    place
}

#[test]
fn bash_completes_commands_options_and_peers() {
    let place = with_peers();
    let complete = |line: &str, word: &str| {
        let script = format!(
            "source {0}/bash; complete -p cepa >/dev/null && cd {0}; COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}; \
             read -ra COMP_WORDS <<< \"$COMP_LINE\"; [[ $COMP_LINE == *' ' ]] && COMP_WORDS+=(''); \
             COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _cepa cepa '{word}' \"${{COMP_WORDS[COMP_CWORD-1]}}\"; echo \"${{COMPREPLY[@]}}\"",
            place.dir.path().display()
        );
        shell(&place, "bash", &["--norc", "-c", &script])
    };
    for (line, word, found) in [
        ("cepa pin", "pin", "ping"),
        ("cepa connect --exp", "--exp", "--expect"),
        ("cepa connect @an", "@an", "@ann @anna-target @anton"),
        // What is copied stands behind a colon.
        ("cepa cp fw @ant", "@ant", "@anton:"),
        ("cepa cp @ant", "ant", "anton:"),
        ("cepa connect cepa://@ant", "//@ant", "//@anton"),
        ("cepa serve --allow=@ant", "@ant", "@anton"),
        // As where bash breaks words at the character itself.
        ("cepa connect @ant", "ant", "anton"),
        ("cepa serve tcp:0:1 --allow @anto", "anto", "anton"),
        ("cepa -v cp fw @ant", "ant", "anton:"),
        // What is at the peer is no file here.
        ("cepa cp fw @ann:", "", ""),
        ("cepa cp fw @ann:ba", "ba", ""),
        // What it was known to offer is.
        ("cepa cp fw @anton:", "", "old/ up/"),
        ("cepa cp fw @anton:u", "u", "up/"),
        ("cepa cp fw @anton:u", "@anton:u", "@anton:up/"),
        ("cepa connect @anton:u", "u", ""),
        (
            "cepa connect @ann --direct p",
            "p",
            "public public,unmapped",
        ),
        ("cepa serve w", "w", "ws: wss:"),
        ("cepa connect q", "q", "quic:"),
        ("cepa explain rf", "rf", "rfc2217:"),
        ("cepa cp t", "t", ""),
        ("cepa peer t", "t", ""),
        // No dash is put in where nothing is typed.
        ("cepa connect @ann ", "", ""),
        ("cepa peer rm an", "an", "ann anton"),
        ("cepa peer rename ant", "ant", "anton"),
    ] {
        let Some(completed) = complete(line, word) else {
            return;
        };
        assert_eq!(completed.trim(), found, "{line}");
    }
    let all = complete("cepa peer rm ", "").unwrap();
    assert!(all.contains("ann anton"), "{all}");
}

#[test]
fn zsh_and_fish_load_their_scripts_and_know_the_peers() {
    let place = with_peers();
    let dir = place.dir.path().display();
    // compadd works only inside a completion, so it is put in place here.
    let script = format!(
        "autoload -U compinit; compinit -D; source {dir}/zsh; whence -w _cepa_words; \
         compadd() {{ print -r -- ${{(P)2}} }}; compset() {{ }}; \
         words=(cepa connect @an); CURRENT=3; _cepa; words=(cepa peer rm an); CURRENT=4; _cepa"
    );
    if let Some(seen) = shell(&place, "zsh", &["-f", "-c", &script]) {
        assert!(seen.contains("_cepa_words: function"), "{seen}");
        assert_eq!(seen.matches("ann anton").count(), 1, "{seen}");
        assert_eq!(seen.matches("ann anna-target anton").count(), 1, "{seen}");
    }
    let script = format!(
        "source {dir}/fish; complete -C 'cepa pin'; complete -C 'cepa connect @ant'; complete -C 'cepa peer rm ant'; complete -C 'cepa serve q'"
    );
    if let Some(seen) = shell(&place, "fish", &["-c", &script]) {
        for line in ["ping", "@anton", "anton", "quic:"] {
            let begins = |l: &str| l.split('\t').next() == Some(line);
            assert!(seen.lines().any(begins), "{line}: {seen}");
        }
    }
}

#[test]
fn every_command_has_a_page_with_its_options_and_tables() {
    let place = Place::new();
    let dir = place.text("pages/man1");
    place.succeeds(&["man", &dir]);
    for (page, has) in [
        ("cepa.1", "\\&6  connection lost"),
        ("cepa-connect.1", "\\-\\-reconnect"),
        ("cepa-peer-add.1", "\\-\\-replace"),
        ("cepa-ping.1", "\\-\\-count"),
    ] {
        let page = fs::read_to_string(place.path("pages/man1").join(page)).unwrap();
        assert!(page.contains(".TH ") && page.contains(has), "{page}");
    }
    // Where there is a formatter it has nothing to complain about.
    let all =
        format!("cd {dir} && for page in *; do man --warnings -l $page >/dev/null || exit 1; done");
    if Command::new("man").arg("--version").output().is_ok() {
        shell(&place, "bash", &["-c", &all]);
    }
    fs::write(place.path("file"), "").unwrap();
    place.fails(&["man", &place.text("file")], 8);
}

/// Something that writes to the line before there is a session.
fn board() -> String {
    format!(
        "mux+tls+link+exec:sh -c 'echo U-Boot; exec {} serve mux+tls+link+stdio: --allow any --service cat=exec:cat'",
        common::bin().display()
    )
}

#[test]
fn colours_are_had_or_not_as_somebody_says_and_always_beats_no_color() {
    let place = Place::new();
    let coloured = |words: &[&str], change: &[(&str, &str)]| {
        let board = board();
        let words = [&["console", &board, "cat", "--trust", "any"], words].concat();
        let mut desk = Desk::with(&place, &words, (24, 80), |command| {
            command.envs(change.iter().copied());
        });
        desk.until("U-Boot");
        desk.until("to leave)");
        desk.type_in("~.");
        let shown = std::mem::take(&mut desk.passed);
        let (_, seen) = desk.leave();
        (shown + &seen).contains("\x1b[2;33m")
    };
    assert!(coloured(&[], &[]));
    assert!(!coloured(&["--color", "never"], &[]));
    assert!(coloured(&["--color", "always"], &[("NO_COLOR", "1")]));
    assert!(!coloured(&[], &[("TERM", "dumb")]));
    let line = place.fails(&["explain", "tcp:a:1", "--color", "sometimes"], 2);
    assert!(line.contains("--color"), "{line}");
    // The option may stand in front of the command whose help is named.
    let line = place.fails(&["--color", "never", "connect"], 2);
    assert!(line.contains("`cepa connect --help`"), "{line}");
}

#[test]
fn quiet_leaves_out_what_only_informs() {
    let place = Place::new();
    let server = place.serve(&["tcp:127.0.0.1:0", "--allow", "any", "--service", "e=echo:"]);
    let address = server.address();
    let connect = |words: &[&str]| {
        let all = [&["connect", &address, "e", "--trust", "any"], words].concat();
        let output = place.run(&all);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    assert!(connect(&[]).contains("(not verified)"));
    assert_eq!(connect(&["-q"]), "");
    let line = place.fails(&["connect", "-q", &address, "x", "--trust", "any"], 7);
    assert!(line.contains('x'), "an error is always said: {line}");
    let line = place.fails(&["connect", "-q", "-v", &address], 2);
    assert!(line.contains("--quiet"), "{line}");
}

#[test]
fn a_ping_has_a_line_each_and_a_summary() {
    let place = Place::new();
    let (file, _) = place.identity("server.pem");
    let words = ["tcp:127.0.0.1:0", "--allow", "any", "--service", "e=echo:"];
    let server = place.serve(&[&words[..], &["--identity", &file]].concat());
    let (address, id) = (server.address(), server.id());
    let ping = |words: &[&str]| {
        let all = [&["ping", &address, "--expect", &id, "-i", "0.05"], words].concat();
        place.succeeds(&all)
    };
    let seen = ping(&["-c", "3"]);
    let lines: Vec<&str> = seen.lines().collect();
    assert!(
        lines[0].starts_with("cepa ping ") && lines[0].contains(&id),
        "{seen}"
    );
    for (line, seq) in lines[1..].iter().zip(1..=3) {
        assert!(line.starts_with(&format!("seq={seq} time=")), "{seen}");
        assert!(line.ends_with(" ms"), "{seen}");
    }
    assert!(lines[6].starts_with("3 sent, 3 answered, time "), "{seen}");
    assert!(
        lines[7].starts_with("round trip min/avg/max/mdev = "),
        "{seen}"
    );
    assert_eq!(lines.len(), 8, "{seen}");

    let seen = ping(&["-c", "2", "--json"]);
    let all: Vec<Value> = seen
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!((&all[1]["seq"], all.len()), (&2.into(), 3), "{seen}");
    assert!(all[0]["ms"].as_f64().unwrap() > 0.0, "{seen}");
    assert_eq!(all[2]["answered"], 2);
    assert!(
        all[2]["min_ms"].as_f64() <= all[2]["max_ms"].as_f64(),
        "{seen}"
    );

    // Of a known peer, by its name.
    place.succeeds(&["peer", "add", "board", &id, "--at", &address]);
    let seen = place.succeeds(&["ping", "cepa://@board", "-c", "1"]);
    assert!(
        seen.starts_with(&format!("cepa ping board ({id})\n")),
        "{seen}"
    );

    // Whoever reads it may stop, as in `cepa ping … | head -1`.
    let mut child = place
        .cepa(&["ping", &address, "--expect", &id, "-i", "0.01"])
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(common::finish(child).status.code(), Some(0));
}

#[test]
fn a_ping_says_by_its_exit_code_what_went_wrong() {
    let place = Place::new();
    let (file, _) = place.identity("other.pem");
    let words = ["tcp:127.0.0.1:0", "--allow", "any", "--service", "e=echo:"];
    let server = place.serve(&words);
    let (address, id) = (server.address(), server.id());
    for (words, code) in [(&["-i", "0"][..], 2), (&["-i", "x"], 2), (&["-c", "0"], 2)] {
        place.fails(&[&["ping", &address], words].concat(), code);
    }
    place.fails(&["ping", "tcp:127.0.0.1:1", "--expect", &id], 5);
    let strict = place.serve(&["tcp:127.0.0.1:0", "--allow", &id, "--service", "e=echo:"]);
    let words = [
        "ping",
        &strict.address(),
        "--expect",
        &id,
        "--identity",
        &file,
    ];
    place.fails(&words, 7);

    // Lost while it runs: the summary still comes.
    let mut child = place
        .cepa(&["ping", &address, "--expect", &id, "-i", "0.05", "--json"])
        .spawn()
        .unwrap();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    assert!(line.contains("\"seq\":1"), "{line}");
    server.signal("KILL");
    let rest = std::io::read_to_string(out).unwrap();
    let output = common::finish(child);
    assert_eq!(output.status.code(), Some(6), "{}", text(&output.stderr));
    let last: Value = serde_json::from_str(rest.lines().last().unwrap()).unwrap();
    assert!(last["answered"].as_u64() >= Some(1), "{rest}");

    // Ctrl-C is how it is meant to end.
    let server = Server::start(
        &place,
        &[
            "serve",
            "tcp:127.0.0.1:0",
            "--allow",
            "any",
            "--service",
            "e=echo:",
        ],
    );
    let mut child = place
        .cepa(&["ping", &server.address(), "--expect", &id])
        .spawn()
        .unwrap();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    for _ in 0..2 {
        std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    }
    assert!(common::signal(&child.id().to_string(), "INT"));
    let rest = std::io::read_to_string(out).unwrap();
    assert!(rest.contains(" answered, time "), "{rest}");
    assert_eq!(common::finish(child).status.code(), Some(0));
}
