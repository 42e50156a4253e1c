//! `cepa console` at a pty, as a person has it, and the services that it is for.

mod common;

use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cepa::transports::testkit::LineSettings;
use common::desk::{Desk, resize};
use common::line::join;
use common::proxy::Proxy;
use common::{PATIENCE, Place, Server, text};

fn serve(place: &Place, services: &[&str]) -> Server {
    let mut words = vec!["tcp:127.0.0.1:0", "--allow", "any"];
    for service in services {
        words.extend(["--service", service]);
    }
    place.serve(&words)
}

fn console(place: &Place, server: &Server, service: &str) -> Desk {
    let address = server.address();
    let words = ["console", &address, service, "--trust", "any"];
    Desk::sit_down(place, &words, (33, 101))
}

const SHELL: &str = "sh=exec:env PS1=ready= sh -i,pty=yes";

/// What a shell leaves in the background keeps its terminal open, and nobody in the console.
#[test]
fn a_shell_that_exits_ends_the_console_whatever_runs_in_its_background() {
    let place = Place::new();
    let server = serve(&place, &[SHELL]);
    let mut desk = console(&place, &server, "sh");
    desk.until("ready=");
    desk.type_in("sleep 1000 & echo \"pid=$!;\"; echo la''st; exit 3\r");
    desk.until("\r\npid=");
    desk.until(";");
    let pid = desk.passed.rsplit("pid=").next().unwrap();
    let pid: u32 = pid.trim_end_matches(';').parse().unwrap();
    desk.until("last");
    let (status, screen) = desk.leave();
    let killed = Command::new("kill").arg(pid.to_string()).status().unwrap();
    assert!(killed.success(), "it runs on");
    assert_eq!(status, Some(3), "{screen}");
    assert!(screen.contains("exited with status 3"), "{screen}");
}

#[test]
fn a_shell_has_this_terminal_its_window_and_its_keys() {
    let place = Place::new();
    let server = serve(&place, &[SHELL]);
    let mut desk = console(&place, &server, "sh");
    desk.until("ready=");
    assert!(desk.is_raw());
    desk.type_in("echo $TERM; stty size; echo $((6*7))-\r");
    desk.until("cepa-test\r\n33 101\r\n42-");
    resize(&desk.master, (50, 132));
    // It arrives soon after, and not in step with what is typed.
    desk.type_in("while [ \"$(stty size)\" != '50 132' ]; do sleep 0.05; done; echo wi''der\r");
    desk.until("wider\r\nready=");
    // ^C is a key like any other, and a signal at the other end.
    desk.type_in("trap : INT; cat; echo aft''er\r");
    desk.until("''er\r\n");
    desk.type_in("line\r");
    desk.until("line\r\nline\r\n");
    desk.type_in("\x03");
    desk.until("after");
    desk.type_in("exit 0\r");
    let (code, seen) = desk.leave();
    assert_eq!(code, Some(0), "{seen}");
}

/// A raw terminal goes to the start of a line at a carriage return alone.
#[test]
fn no_line_of_the_tool_leaves_the_cursor_where_it_ended() {
    let place = Place::new();
    let server = serve(&place, &[SHELL]);
    for _ in 0..5 {
        let mut desk = console(&place, &server, "sh");
        desk.until(". to leave)");
        desk.until("ready=");
        desk.type_in("~?");
        desk.until("this text");
        desk.type_in("\r~.");
        let passed = desk.passed.clone();
        let (code, rest) = desk.leave();
        assert_eq!(code, Some(0), "{rest}");
        let seen = passed + &rest;
        let bare = seen.replace("\r\n", "");
        assert!(!bare.contains('\n'), "{seen:?}");
    }
}

/// A command that has no terminal looks as if it hung, and one that has one echoes what the terminal here has echoed.
#[test]
fn a_service_and_a_command_that_do_not_fit_say_what_would() {
    let place = Place::new();
    let server = serve(&place, &["cat=exec:cat", SHELL]);
    let mut desk = console(&place, &server, "cat");
    desk.until("no terminal at the other end");
    desk.type_in("\r~.");
    let (code, seen) = desk.leave();
    assert_eq!(code, Some(0), "{seen}");
    let address = server.address();
    let words = ["connect", &address, "sh", "--trust", "any"];
    let mut desk = Desk::sit_down(&place, &words, (24, 80));
    desk.until("use cepa console");
    desk.type_in("exit 0\n");
    let (code, seen) = desk.leave();
    assert_eq!(code, Some(0), "{seen}");
    // A script is told nothing.
    let output = place.run_with(&words, b"exit 0\n");
    let said = text(&output.stderr);
    assert!(!said.contains("cepa console"), "{said}");
}

/// The state of a process, as /proc has it.
fn state(pid: u32) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let behind_the_name = stat.rsplit(')').next().unwrap();
    behind_the_name.split_whitespace().next().unwrap().into()
}

/// The only child of a process whose command line has this word.
fn child_of(parent: u32, word: &str) -> u32 {
    let list = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    let mut children = list.split_whitespace().map(|pid| pid.parse().unwrap());
    let is_it = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        text(&line).contains(word)
    };
    children.find(is_it).unwrap()
}

/// A shell with jobs stands between, as a person has it: where nobody could let it go on the kernel does not stop it.
#[test]
fn a_console_is_suspended_with_the_terminal_as_it_was_and_goes_on_in_the_same_session() {
    let place = Place::new();
    let server = serve(&place, &[SHELL]);
    let mut desk = Desk::of(&place, &["env", "PS1=near=", "sh", "-i"], (33, 101), |_| {});
    desk.until("near=");
    let bin = common::bin().display();
    desk.type_in(&format!(
        "{bin} console {} sh --trust any\n",
        server.address()
    ));
    desk.until("ready=");
    assert!(desk.is_raw());
    desk.type_in("mine=kept\r");
    desk.until("ready=");
    let console = child_of(desk.child.id(), "console");
    for round in 0..2 {
        desk.type_in("~\x1a");
        desk.until("suspended; the peer keeps the session for 60 min\r\n");
        desk.until("near=");
        assert_eq!(state(console), "T");
        assert!(!desk.is_raw(), "the terminal is as it was");
        desk.type_in(&format!("echo he''re {round}\n"));
        desk.until(&format!("here {round}\r\n"));
        desk.until("near=");
        desk.type_in("fg\n");
        let start = Instant::now();
        while !desk.is_raw() {
            assert!(start.elapsed() < PATIENCE, "not raw again");
            thread::sleep(Duration::from_millis(5));
        }
        // The same shell at the other end, with what it knew.
        desk.type_in(&format!("echo $mine-{round}-\r"));
        desk.until(&format!("kept-{round}-\r\n"));
        desk.until("ready=");
    }
    desk.type_in("exit 0\r");
    desk.until("near=");
    assert!(!desk.is_raw());
    desk.type_in("exit\n");
    let (code, seen) = desk.leave();
    assert_eq!(code, Some(0), "{seen}");
}

#[test]
fn a_console_goes_on_over_another_connection_with_the_keys_typed_meanwhile() {
    let place = Place::new();
    let server = serve(&place, &[SHELL]);
    let proxy = Proxy::to(&server.address());
    let at = proxy.address();
    let words = ["console", &at, "sh", "--trust", "any"];
    let mut desk = Desk::sit_down(&place, &words, (33, 101));
    desk.until("ready=");
    desk.type_in("mine=kept\r");
    desk.until("ready=");
    proxy.down();
    desk.until("lost; reconnecting (data is kept)\r\n");
    assert!(desk.is_raw());
    desk.type_in("echo $mine-typed\r");
    proxy.up();
    // Who prints it hears of the new connection by itself: what the shell says may be quicker.
    desk.until_all(&[" is back after ", "kept-typed\r\n"]);
    // While the connection is away one can leave.
    proxy.down();
    desk.until("lost; reconnecting (data is kept)\r\n");
    desk.type_in("\r~.");
    // The shell is still there, and that is said.
    desk.until("could not be told, and keeps what runs in the session for up to 10 min\r\n");
    let (code, seen) = desk.leave();
    assert_eq!(code, Some(0), "{seen}");
}

/// The cable is pulled out in the middle of what a command prints, and put back: each line of it comes, once and in order.
#[test]
fn a_console_over_a_cable_that_is_pulled_out_meanwhile_loses_no_line() {
    const LINES: usize = 20_000;
    const TYPED: &str = "echo $((6*7))-typed\r\n";
    let place = Place::new();
    let plug = || join(&place, &LineSettings::new(300_000.0), 1);
    let plugged = plug();
    let line = |end: &str| format!("serial:{},baud=3000000", place.text(end));
    let words = [&line("b"), "--allow", "any", "--service", SHELL];
    let _server = place.serve(&words);
    let words = ["console", &line("a"), "sh", "--trust", "any"];
    let mut desk = Desk::sit_down(&place, &words, (33, 101));
    desk.until("ready=");
    desk.type_in(&format!("seq -f line-%.0f {LINES}\r"));
    desk.until("line-100\r\n");
    plugged.shutdown_timeout(PATIENCE);
    desk.until("lost; reconnecting (data is kept)\r\n");
    desk.type_in(TYPED.trim_end_matches('\n'));
    let plugged = plug();
    desk.until_all(&[" is back after ", "42-typed\r\n"]);
    // Lines of the tool's own stand in between, and what was typed as the terminal echoed it: amid a line as well.
    let mut seen = std::mem::take(&mut desk.passed).replace(TYPED, "");
    while let Some(at) = seen.find("\r\nconnection to ") {
        let length = seen[at + 2..].find("\r\n");
        let end = length.map_or(seen.len(), |length| at + length + 4);
        seen.replace_range(at..end, "");
    }
    let numbers = seen.lines().filter_map(|line| {
        let (_, number) = line.rsplit_once("line-")?;
        number.parse::<usize>().ok()
    });
    let numbers: Vec<usize> = numbers.collect();
    let wrong = (1..=LINES).zip(&numbers).find(|(due, it)| due != *it);
    assert_eq!((numbers.len(), wrong), (LINES, None));
    desk.type_in("exit 0\r");
    let (code, seen) = desk.leave();
    assert_eq!(code, Some(0), "{seen}");
    plugged.shutdown_background();
}

/// The session of one that is suspended is kept for longer than others without a connection.
#[test]
fn a_console_is_suspended_for_longer_than_a_session_is_kept() {
    let place = Place::new();
    let words = ["tcp:127.0.0.1:0", "--allow", "any", "--park", "2s"];
    let mut server = place.serve(&[&words[..], &["--service", SHELL]].concat());
    let proxy = Proxy::to(&server.address());
    let mut desk = Desk::of(&place, &["env", "PS1=near=", "sh", "-i"], (33, 101), |_| {});
    desk.until("near=");
    desk.type_in(&format!(
        "{} console {} sh --trust any --park 2s\n",
        common::bin().display(),
        proxy.address()
    ));
    desk.until("ready=");
    desk.type_in("mine=kept\r");
    desk.until("ready=");
    desk.type_in("~\x1a");
    desk.until("suspended; the peer keeps the session for 60 min\r\n");
    desk.until("near=");
    proxy.cut();
    server.wait_for("has lost its connection");
    thread::sleep(Duration::from_secs(5));
    desk.type_in("fg\n");
    desk.until(" is back after ");
    desk.type_in("echo $mine-again\r");
    desk.until("kept-again\r\n");
    desk.type_in("exit 0\r");
    desk.until("near=");
    desk.type_in("exit\n");
    let (code, seen) = desk.leave();
    assert_eq!(code, Some(0), "{seen}");
}

#[test]
fn a_service_that_is_down_and_a_signal_have_the_statuses_of_connect() {
    let place = Place::new();
    let down = format!("down=unix:{}", place.text("nobody"));
    let server = serve(&place, &[&down, "cat=exec:cat"]);
    for service in ["down", "none"] {
        let (code, seen) = console(&place, &server, service).leave();
        assert_eq!(code, Some(7), "{service}: {seen}");
    }
    for (signal, status) in [
        (rustix::process::Signal::TERM, 143),
        (rustix::process::Signal::INT, 130),
    ] {
        let mut desk = console(&place, &server, "cat");
        desk.until("no terminal at the other end");
        desk.until("connected to cat");
        let child = rustix::process::Pid::from_child(&desk.child);
        rustix::process::kill_process(child, signal).unwrap();
        let (code, seen) = desk.leave();
        assert_eq!(code, Some(status), "{seen}");
    }
}

#[test]
fn how_the_command_ended_is_reported_and_fails() {
    let place = Place::new();
    let server = serve(
        &place,
        &[
            SHELL,
            "nine=exec:sh -c 'kill -9 $$',pty=yes",
            "none=exec:/no/such,pty=yes",
        ],
    );
    let mut desk = console(&place, &server, "sh");
    desk.until("ready=");
    desk.type_in("exit 3\r");
    let (code, seen) = desk.leave();
    assert_eq!(code, Some(3));
    assert!(seen.contains("the command exited with status 3"), "{seen}");
    for (service, says) in [
        ("nine", "the command was killed by signal 9"),
        ("none", "the service is not available"),
        (
            "other",
            "no service of this name is open to you; choose a service: nine, none, sh",
        ),
    ] {
        let (code, seen) = console(&place, &server, service).leave();
        assert!(seen.contains(says), "{seen}");
        assert!(matches!(code, Some(1 | 7 | 137)), "{code:?}");
    }
}

#[test]
fn leaving_hangs_up_and_restores_the_terminal() {
    let place = Place::new();
    let note = place.text("note");
    let command = format!(
        "sh=exec:sh -c 'trap \"echo hung up > {note}; exit\" HUP; echo up; while :; do sleep 0.05; done',pty=yes"
    );
    let mut server = serve(&place, &[&command]);
    for way in ["~.", "~?", "signal"] {
        let _ = std::fs::remove_file(&note);
        let mut desk = console(&place, &server, "sh");
        desk.until("up\r\n");
        assert!(desk.is_raw());
        match way {
            "~." => desk.type_in("\r~."),
            "~?" => {
                desk.type_in("~?");
                desk.until("send a break, if");
                desk.type_in("~.");
            }
            _ => {
                let session = desk.child.id().to_string();
                let mut kill = Command::new("pkill");
                // The tool is the only child of setsid there.
                let kill = kill.args(["-TERM", "-P", &session]).stdout(Stdio::null());
                if !kill.status().unwrap().success() {
                    let kill = Command::new("kill").args(["-TERM", &session]).status();
                    assert!(kill.unwrap().success());
                }
            }
        }
        let (code, seen) = desk.leave();
        let status = if way.starts_with('~') { 0 } else { 143 };
        assert_eq!(code, Some(status), "{way}: {seen}");
        server.wait_for("ended");
        let start = Instant::now();
        while !std::fs::read_to_string(&note).is_ok_and(|note| note == "hung up\n") {
            assert!(start.elapsed() < PATIENCE, "{way}: not hung up");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn a_lost_session_is_an_error_and_the_terminal_is_restored() {
    let place = Place::new();
    let server = serve(&place, &[SHELL]);
    let at = server.address();
    let words = ["console", &at, "sh", "--trust", "any", "--no-durable"];
    let mut desk = Desk::sit_down(&place, &words, (33, 101));
    desk.until("ready=");
    server.signal("KILL");
    let (code, seen) = desk.leave();
    assert_eq!(code, Some(6), "{seen}");
    // Not behind the prompt.
    assert!(seen.contains("\r\ncepa: "), "{seen}");
}

/// Two messages stand in the screen of a program that fills it, until that draws it anew.
#[test]
fn a_program_draws_its_screen_anew_when_the_connection_is_back() {
    let place = Place::new();
    let server = serve(&place, &[SHELL]);
    let proxy = Proxy::to(&server.address());
    let at = proxy.address();
    let words = ["console", &at, "sh", "--trust", "any"];
    let mut desk = Desk::sit_down(&place, &words, (33, 101));
    desk.until("ready=");
    let script = place.text("script");
    let words = "trap 'echo drawn; stty size' WINCH; printf '\\033[?1049h'; echo set; \
        while sleep 0.05; do :; done";
    std::fs::write(&script, words).unwrap();
    desk.type_in(&format!("sh {script}\r"));
    desk.until("set\r\n");
    proxy.down();
    desk.until("lost; reconnecting");
    proxy.up();
    desk.until(" is back after ");
    desk.until("drawn\r\n");
    desk.until("33 101\r\n");
    desk.type_in("\r~.");
    assert_eq!(desk.leave().0, Some(0));
}

#[test]
fn a_console_comes_back_and_what_is_typed_meanwhile_is_for_nobody() {
    let place = Place::new();
    let socket = format!("unix:{}", place.text("socket"));
    let serve = || place.serve(&[&socket, "--allow", "any", "--service", SHELL]);
    let words = ["console", &socket, "sh", "--trust", "any"];
    let words = [&words[..], &["--reconnect", "--no-durable"]].concat();
    let server = serve();
    let mut desk = Desk::sit_down(&place, &words, (33, 101));
    desk.until("ready=");
    desk.type_in("echo hi''story\r");
    desk.until("history\r\n");
    server.signal("KILL");
    desk.until("; reconnecting\r\n");
    assert!(desk.is_raw());
    desk.type_in(&format!("touch {}\r", place.text("typed")));
    desk.until("; trying again\r\n");
    let server = serve();
    desk.until("reconnected to ");
    desk.until("sh was opened again\r\n");
    desk.until("ready=");
    // Another shell, on a terminal that knows this window.
    desk.type_in("stty size; echo still''born\r");
    desk.until("33 101\r\n");
    desk.until("stillborn\r\n");
    assert!(!place.path("typed").exists());
    server.signal("KILL");
    desk.until("; reconnecting\r\n");
    desk.type_in("~?");
    desk.until("send a break, if");
    desk.type_in("~.");
    let (code, seen) = desk.leave();
    assert_eq!(code, Some(0), "{seen}");
    // The shell's own end is the end, as ever.
    let _server = serve();
    let mut desk = Desk::sit_down(&place, &words, (33, 101));
    desk.until("ready=");
    desk.type_in("exit 3\r");
    let (code, seen) = desk.leave();
    assert_eq!(code, Some(3), "{seen}");
}

#[test]
fn other_services_can_be_had_on_a_console_too() {
    let place = Place::new();
    let server = serve(&place, &["echo=echo:", "cat=exec:cat", "demo=demo:"]);
    for service in ["echo", "cat"] {
        let mut desk = console(&place, &server, service);
        desk.until("to leave)");
        desk.type_in("hello\r");
        desk.until("hello\r");
        desk.type_in("~.");
        let (code, seen) = desk.leave();
        assert_eq!(code, Some(0), "{seen}");
    }
}

/// A board that says something before it serves, and clears the screen.
fn board() -> String {
    format!(
        "mux+tls+link+exec:sh -c 'printf \"U-Boot 2026\\n\\033[2Jgo\\n\"; sleep 0.2; \
         exec {} serve mux+tls+link+stdio: --allow any --service \"{SHELL}\"'",
        common::bin().display()
    )
}

#[test]
fn boot_messages_are_shown_in_colour_and_harmless() {
    let place = Place::new();
    // An empty NO_COLOR counts as none (no-color.org).
    let words = ["console", &board(), "--trust", "any"];
    for set in [false, true] {
        let mut desk = Desk::with(&place, &words, (24, 80), |command| {
            if set {
                command.env("NO_COLOR", "");
            }
        });
        desk.until("\x1b[2;33mU-Boot 2026");
        desk.until("\\x1b[2Jgo");
        desk.until("\x1b[0m");
        desk.until("ready=");
        desk.type_in("exit\r");
        let (code, seen) = desk.leave();
        assert_eq!(code, Some(0), "{seen}");
    }
}

#[test]
fn a_board_that_restarts_is_seen_booting_and_is_back() {
    let place = Place::new();
    let words = ["console", &board(), "sh", "--trust", "any", "--reconnect"];
    let mut desk = Desk::sit_down(&place, &words, (24, 80));
    desk.until("\x1b[2;33mU-Boot 2026");
    desk.until("ready=");
    for _ in 0..3 {
        // The server is the shell's parent.
        desk.type_in("kill -9 $PPID\r");
        desk.until("; reconnecting\r\n");
        desk.until("\x1b[2;33mU-Boot 2026");
        desk.until("sh was opened again\r\n");
        desk.until("ready=");
    }
    desk.type_in("exit\r");
    let (code, seen) = desk.leave();
    assert_eq!(code, Some(0), "{seen}");
}

#[test]
fn boot_messages_have_no_colour_where_none_is_wanted() {
    let place = Place::new();
    let words = ["console", &board(), "--trust", "any"];
    let mut desk = Desk::with(&place, &words, (24, 80), |command| {
        command.env("NO_COLOR", "1");
    });
    desk.until("U-Boot 2026");
    let before = desk.seen.clone();
    desk.until("\\x1b[2Jgo");
    desk.until("ready=");
    desk.type_in("exit\r");
    let (code, seen) = desk.leave();
    assert_eq!(code, Some(0), "{seen}");
    let all = before + &seen;
    assert!(
        !all.contains("\x1b[2;33m") && !all.contains("\x1b[0m"),
        "{all:?}"
    );
}

#[test]
fn a_log_of_boot_messages_has_plain_lines() {
    let place = Place::new();
    let log = place.path("log");
    let words = ["console", &board(), "--trust", "any"];
    let file = std::fs::File::create(&log).unwrap();
    let mut desk = Desk::with(&place, &words, (24, 80), |command| {
        command.stderr(file);
    });
    desk.until("ready=");
    desk.type_in("~?");
    desk.type_in("\rexit\r");
    let (code, seen) = desk.leave();
    assert_eq!(code, Some(0), "{seen}");
    let log = std::fs::read_to_string(&log).unwrap();
    assert!(log.contains("U-Boot 2026\n\\x1b[2Jgo\n"), "{log:?}");
    assert!(log.contains("send a break, if"), "{log:?}");
    assert!(log.chars().all(|c| c == '\n' || !c.is_control()), "{log:?}");
    assert!(!seen.contains("U-Boot"), "{seen:?}");
}

#[test]
fn without_a_terminal_it_says_what_to_use() {
    let place = Place::new();
    let line = place.fails_quietly(&["console", "tcp:127.0.0.1:1"], 2);
    assert!(line.contains("cepa connect"), "{line}");
    let line = place.fails(&["console", "tcp:127.0.0.1:1", "--escape", "ab"], 2);
    assert!(line.contains("one printable"), "{line}");
}

/// Behind a relay, and at a node that runs by a file.
#[test]
fn a_console_reaches_a_peer_by_its_address() {
    let place = Place::new();
    let (relay_key, relay_id) = place.identity("relay.pem");
    let words = ["relay", "tcp:127.0.0.1:0", "--identity", &relay_key];
    let words = [&words[..], &["--allow", "any"]].concat();
    let relay = Server::start_at(&place, &words, "relaying on ");
    let at = relay.seen()[0].rsplit('@').next().unwrap().to_owned();
    let (key, id) = place.identity("server.pem");
    let register = format!("cepa://{relay_id}@{at}");
    let words = ["serve", "--register", &register, "--service", SHELL];
    let words = [&words[..], &["--allow", "any", "--identity", &key]].concat();
    let _server = Server::start_at(&place, &words, "reachable at ");
    let behind = format!("cepa://{id}@relay:{relay_id}@{at}");

    let (_, node_id) = place.identity("node.pem");
    let file = place.text("node.toml");
    let config = "identity = \"node.pem\"\nlisten = [\"tcp:127.0.0.1:0\"]\n\
        [services.sh]\nto = \"exec:env PS1=ready= sh -i,pty=yes\"\nallow = [\"any\"]\n\
        [services.no]\nto = \"echo:\"\n";
    std::fs::write(&file, config).unwrap();
    let node = Server::start(&place, &["node", "--config", &file]);
    let direct = format!("cepa://{node_id}@{}", node.address());

    for address in [&behind, &direct] {
        let mut desk = Desk::sit_down(&place, &["console", address, "sh"], (33, 101));
        desk.until("ready=");
        desk.type_in("stty size; exit 0\r");
        desk.until("33 101\r\n");
        let (code, seen) = desk.leave();
        assert_eq!(code, Some(0), "{seen}");
    }
    // What is not for us is not for our console either; and the only one that is needs no name.
    let (code, seen) = Desk::sit_down(&place, &["console", &direct, "no"], (33, 101)).leave();
    assert!(
        code == Some(7) && seen.contains("open to you"),
        "{code:?}: {seen}"
    );
    let output = place.run_with(&["connect", &direct], b"exit 0\n");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

/// The two columns of `src/service_end_table.txt` that are a console's.
#[test]
fn what_an_end_becomes_at_a_console_is_as_the_table_says() {
    let place = Place::new();
    let socket = format!("unix:{}", place.text("socket"));
    let reset = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closing = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address =
        |listener: &std::net::TcpListener| format!("tcp:{}", listener.local_addr().unwrap());
    let services = [
        "zero=exec:sh -c 'echo ready; exit 0'".to_owned(),
        "three=exec:sh -c 'echo ready; exit 3'".to_owned(),
        "killed=exec:sh -c 'echo ready; kill -9 $$'".to_owned(),
        "long=exec:sh -c 'echo ready; sleep 1000'".to_owned(),
        format!("ends={}", address(&closing)),
        format!("reset={}", address(&reset)),
    ];
    for (listener, cut) in [(reset, true), (closing, false)] {
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                stream.write_all(b"ready\n").unwrap();
                if cut {
                    thread::sleep(Duration::from_millis(300));
                    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
                }
            }
        });
    }
    let start = || {
        let mut words = vec![socket.as_str(), "--allow", "any"];
        for service in &services {
            words.extend(["--service", service]);
        }
        place.serve(&words)
    };
    let table = include_str!("../src/service_end_table.txt");
    let rows = table
        .lines()
        .skip_while(|line| !line.starts_with("what ends"));
    for row in rows.skip(1) {
        let (name, cells) = row.split_at(23);
        let cells: Vec<&str> = cells.split_whitespace().collect();
        let (service, signal) = match name.trim() {
            "command exits with 0" => ("zero", None),
            "command exits with 3" => ("three", None),
            "command is killed by 9" => ("killed", None),
            "socket ends" => ("ends", None),
            "socket is reset" => ("reset", None),
            "session is cut" => ("long", Some("KILL")),
            "server is stopped" => ("long", Some("TERM")),
            // `attach.rs` has the last two.
            "substream is reset" | "ends without a status" | "another one attaches" => continue,
            other => panic!("{other}"),
        };
        for (options, expected) in [(&[][..], cells[4]), (&["--reconnect"], cells[5])] {
            let server = start();
            let words = ["console", &socket, service, "--trust", "any"];
            let mut words = [&words[..], options].concat();
            if signal == Some("KILL") {
                // It would be waited for.
                words.push("--no-durable");
            }
            let mut desk = Desk::sit_down(&place, &words, (24, 80));
            desk.until("ready");
            if let Some(signal) = signal {
                server.signal(signal);
            }
            if expected == "again" {
                server.finish();
                let _server = start();
                // A line of the tool's own may come behind the output.
                desk.until_all(&["was opened again", "ready"]);
                desk.type_in("\r~.");
                assert_eq!(desk.leave().0, Some(0), "{row}");
                continue;
            }
            let (code, seen) = desk.leave();
            assert_eq!(
                code.unwrap().to_string(),
                expected,
                "{row} {options:?}: {seen}"
            );
        }
    }
}
