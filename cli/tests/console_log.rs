//! What a console writes to a file, and what it shows of itself.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use cepa::transports::testkit::LineSettings;
use common::desk::Desk;
use common::line::join;
use common::proxy::Proxy;
use common::{Place, Server};

const SHELL: &str = "sh=exec:env PS1=ready= sh -i,pty=yes";

fn serve(place: &Place) -> Server {
    place.serve(&["tcp:127.0.0.1:0", "--allow", "any", "--service", SHELL])
}

fn console(place: &Place, at: &str, more: &[&str]) -> Desk {
    let words = ["console", at, "sh", "--trust", "any"];
    Desk::with(place, &[&words[..], more].concat(), (33, 101), |command| {
        command.current_dir(place.path(""));
    })
}

fn leave(mut desk: Desk) -> String {
    desk.type_in("\r~.");
    let (code, seen) = desk.leave();
    assert_eq!(code, Some(0), "{seen}");
    seen
}

#[test]
fn a_log_is_appended_for_its_user_alone_and_holds_what_the_screen_has_shown() {
    let place = Place::new();
    let server = serve(&place);
    let file = place.path("board.log");
    let log = ["--log", file.to_str().unwrap()];
    for (n, more) in [(1, &[][..]), (2, &[]), (3, &["--log-truncate"])] {
        let mut desk = console(&place, &server.address(), &[&log[..], more].concat());
        desk.until("ready=");
        desk.type_in(&format!("printf '\\033[1mbo''ld-{n}\\n'\r"));
        desk.until(&format!("\x1b[1mbold-{n}\r\n"));
        // On the screen, so in the file.
        let logged = fs::read_to_string(&file).unwrap();
        assert!(logged.ends_with(&format!("\x1b[1mbold-{n}\r\n")) || logged.ends_with("ready="));
        leave(desk);
    }
    let logged = fs::read_to_string(&file).unwrap();
    assert!(!logged.contains("\x1b[1mbold-2") && logged.contains("\x1b[1mbold-3"));
    assert!(!logged.contains("connected to"), "{logged:?}");
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    // Said at once, before anything is dialled.
    let at = server.address();
    let words = ["console", &at, "sh", "--log", "/nowhere/x.log"];
    let desk = Desk::sit_down(&place, &words, (33, 101));
    let (code, seen) = desk.leave();
    assert_eq!(code, Some(8), "{seen}");
    assert!(
        seen.contains("cannot open the log /nowhere/x.log: "),
        "{seen}"
    );
}

#[test]
fn the_log_is_switched_while_the_console_runs_and_has_times() {
    let place = Place::new();
    let server = serve(&place);
    let mut desk = console(&place, &server.address(), &["--log-timestamps"]);
    desk.until("ready=");
    desk.type_in("\r~l");
    desk.until("log on: ");
    desk.until("\r\n");
    let name = desk
        .passed
        .rsplit("log on: ")
        .next()
        .unwrap()
        .trim_end()
        .to_owned();
    assert!(name.starts_with("cepa-sh-20"), "{name}");
    desk.type_in("echo on''e; echo tw''o\r");
    desk.until("one\r\ntwo\r\n");
    desk.type_in("~l");
    desk.until(&format!("log off: {name}\r\n"));
    desk.type_in("echo thr''ee\r");
    desk.until("three\r\n");
    desk.type_in("~l");
    desk.until(&format!("log on: {name}\r\n"));
    desk.type_in("echo fo''ur\r");
    desk.until("four\r\n");
    leave(desk);
    let logged = fs::read_to_string(place.path(&name)).unwrap();
    let line = |word: &str| logged.lines().find(|line| line.ends_with(word));
    for word in ["one", "two", "four"] {
        let (time, rest) = line(word).unwrap().split_once(' ').unwrap();
        assert!(
            ["", "ready="]
                .map(|p| p.to_owned() + word)
                .contains(&rest.to_owned()),
            "{logged}"
        );
        assert!(time.starts_with("20") && time.ends_with('Z'), "{logged}");
    }
    assert_eq!(line("three"), None, "{logged}");
}

#[test]
fn a_log_that_cannot_be_written_is_said_once_and_ends_nothing() {
    let place = Place::new();
    let server = serve(&place);
    let mut desk = console(&place, &server.address(), &["--log", "/dev/full"]);
    desk.until_all(&["cannot write the log /dev/full: ", "ready="]);
    desk.type_in("echo st''ill; echo th''ere\r");
    desk.until("still\r\nthere\r\n");
    let passed = desk.passed.clone();
    let seen = passed + &leave(desk);
    assert_eq!(seen.matches("cannot write the log").count(), 1, "{seen}");
}

/// The log of a target in `config.toml` lies beside that, and who only looks does not open it.
#[test]
fn a_target_has_its_log() {
    let place = Place::new();
    let server = serve(&place);
    let folder = place.path("config");
    fs::create_dir_all(&folder).unwrap();
    let config = folder.join("config.toml");
    let at = server.address();
    let text = format!(
        "[targets.board]\naddress = \"{at}\"\ntrust = \"any\"\nservice = \"sh\"\nlog = \"b.log\"\nescape = \"^]\"\n"
    );
    fs::write(&config, text).unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).unwrap();
    let output = place.run(&["console", "@board", "--attached"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(!folder.join("b.log").exists());
    let mut desk = Desk::sit_down(&place, &["console", "@board"], (33, 101));
    desk.until("(Enter, then ^]. to leave)");
    desk.until("ready=");
    desk.type_in("echo ki''nd\r");
    desk.until("kind\r\n");
    desk.type_in("\r\x1d.");
    assert_eq!(desk.leave().0, Some(0));
    let logged = fs::read_to_string(folder.join("b.log")).unwrap();
    assert!(logged.contains("\r\nkind\r\n"), "{logged:?}");
    let output = place.run(&["explain", "@board"]);
    let shown = common::text(&output.stdout);
    assert!(shown.contains("b.log") && shown.contains("^]"), "{shown}");
}

#[test]
fn the_help_lists_every_escape_and_each_is_there() {
    let place = Place::new();
    let server = serve(&place);
    let proxy = Proxy::to(&server.address());
    let mut desk = console(&place, &proxy.address(), &["--escape", "%"]);
    desk.until("ready=");
    desk.type_in("\r%?");
    for row in ["%.", "%B", "%^Z", "%l", "%s", "%R", "%%", "%?"] {
        desk.until(&format!("\r\n  {row} "));
    }
    desk.until("show this text\r\n");
    desk.type_in("%s");
    desk.until("the service has sent ");
    desk.until("\r\npath: tcp 127.0.0.1:");
    desk.until("round trip ");
    desk.until(" ms\r\nwire: ");
    desk.until(" bytes out\r\n");
    desk.type_in("%R");
    desk.until("the connection stands; there is nothing to dial\r\n");
    proxy.down();
    desk.until("lost; reconnecting");
    desk.type_in("%s");
    desk.until("path: none; the connection is lost");
    desk.type_in("%R");
    desk.until("dialling again now\r\n");
    proxy.up();
    desk.type_in("%R");
    desk.until(" is back after ");
    desk.type_in("\r%.");
    let (code, seen) = desk.leave();
    assert_eq!(code, Some(0), "{seen}");
}

/// The lines of one answer stay together, whatever the service says meanwhile.
#[test]
fn nothing_of_the_service_comes_between_the_lines_of_an_answer() {
    let place = Place::new();
    let server = serve(&place);
    let mut desk = console(&place, &server.address(), &[]);
    desk.until("ready=");
    desk.type_in("while :; do echo tick; done\r");
    desk.until("tick\r\ntick\r\n");
    for _ in 0..20 {
        desk.type_in("\r~?");
        desk.until("\r\n  ~. ");
        let from = desk.passed.len();
        desk.until("show this text\r\n");
        assert!(!desk.passed[from..].contains("tick"), "{}", desk.passed);
        desk.type_in("\r~s");
        desk.until("the service has sent ");
        let from = desk.passed.len();
        desk.until(" bytes out\r\n");
        assert!(!desk.passed[from..].contains("tick"), "{}", desk.passed);
    }
    leave(desk);
}

/// Without a session to go on, nothing is dialled.
#[test]
fn a_session_that_ends_with_its_connection_is_not_dialled_again() {
    let place = Place::new();
    let server = serve(&place);
    let mut desk = console(&place, &server.address(), &["--no-durable"]);
    desk.until("ready=");
    desk.type_in("\r~R");
    desk.until("this session ends with its connection; there is nothing to dial\r\n");
    leave(desk);
}

#[test]
fn a_serial_line_has_its_losses_in_the_statistics() {
    let place = Place::new();
    let _plugged = join(&place, &LineSettings::new(300_000.0), 1);
    let line = |end: &str| format!("serial:{},baud=3000000", place.text(end));
    let words = [&line("b"), "--allow", "any", "--service", SHELL];
    let _server = place.serve(&words);
    let words = ["console", &line("a"), "sh", "--trust", "any"];
    let mut desk = Desk::sit_down(&place, &words, (33, 101));
    desk.until("ready=");
    desk.type_in("\r~s");
    desk.until("\r\nline: ");
    desk.until(" of them lost; ");
    desk.until(" damaged or not of the link\r\n");
    leave(desk);
}
