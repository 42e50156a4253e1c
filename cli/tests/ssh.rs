//! `ssh:`: by a stand-in for the program, which tells what it was given, and by OpenSSH's own where that is installed.

mod common;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::thread;

use common::desk::Desk;
use common::programs::{Running, have, ports};
use common::{PATIENCE, Place, Server, asked, bin, finish, text};

/// An id that nobody has.
const STRANGER: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// A program in this place's own folder of programs.
fn program(place: &Place, name: &str, script: &str) {
    let folder = place.path("bin");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// `ssh` here, which reaches the other place: a login shell there reads the last word.
fn ssh_to(here: &Place, there: &Place) {
    let far = there.text("programs");
    fs::create_dir_all(&far).unwrap();
    std::os::unix::fs::symlink(bin(), Path::new(&far).join("cepa")).unwrap();
    let (given, config) = (here.text("given"), there.text("config"));
    let script = format!(
        "printf '%s\\n' \"$@\" > {given}\nfor word; do last=$word; done\n\
         PATH={far}:$PATH CEPA_CONFIG_DIR={config} exec sh -c \"$last\""
    );
    program(here, "ssh", &script);
}

/// `cepa` with these words and this place's programs.
fn cepa(place: &Place, words: &[&str]) -> Command {
    let mut command = place.cepa(words);
    let path = std::env::var("PATH").unwrap();
    command.env("PATH", format!("{}:{path}", place.text("bin")));
    command
}

/// A service that answers with what it got, in capitals.
fn answers(mut stream: impl std::io::Read + std::io::Write) {
    let mut got = [0; 64];
    let n = stream.read(&mut got).unwrap_or(0);
    let _ = stream.write_all(&got[..n].to_ascii_uppercase());
}

fn at_socket(path: &str) {
    let listener = UnixListener::bind(path).unwrap();
    thread::spawn(move || listener.incoming().flatten().for_each(answers));
}

fn at_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || listener.incoming().flatten().for_each(answers));
    port
}

/// The port at the end of `listening on tcp:127.0.0.1:PORT for …`.
fn port_of(line: &str) -> u16 {
    let (_, rest) = line.split_once("tcp:127.0.0.1:").unwrap();
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

#[test]
fn a_forward_names_a_place_at_the_far_end_and_asks_nobody() {
    let (here, there) = (Place::new(), Place::new());
    ssh_to(&here, &there);
    let socket = there.text("db.sock");
    at_socket(&socket);
    let port = at_port();
    let [first, second] = [
        format!("127.0.0.1:0={socket}"),
        format!("127.0.0.1:0={port}"),
    ];
    let words = ["forward", "ssh:me@server:2222", "-L", &first, "-L", &second];
    let mut forwarding = Server::of(&mut cepa(&here, &words), " for db of ");
    forwarding.wait_for(&format!(" for {port} of "));
    for line in forwarding.seen().iter().filter(|it| it.contains(" of ")) {
        assert_eq!(asked(port_of(line), "rows"), "ROWS");
    }
    let given = fs::read_to_string(here.path("given")).unwrap();
    let given: Vec<&str> = given.lines().collect();
    let command = format!("cepa serve stdio: --allow any --service=unix:{socket} --service={port}");
    assert_eq!(
        given[given.len() - 4..],
        ["-p2222", "--", "me@server", &command]
    );
    assert!(given.contains(&"-xT"), "{given:?}");
    // ssh knows who is there; nothing is written down beside that.
    assert_eq!(text(&here.run(&["peer", "ls"]).stdout), "");
}

#[test]
fn the_other_listeners_of_ssh_work_as_there() {
    let (here, there) = (Place::new(), Place::new());
    ssh_to(&here, &there);
    let own = at_port();
    let back = format!("0={own}");
    let words = ["forward", "ssh:server", "-D", "127.0.0.1:0", "-R", &back];
    let mut forwarding = Server::of(&mut cepa(&here, &words), "its connections go to");
    let listens = forwarding.seen().last().unwrap().clone();
    let line = forwarding.wait_for("(SOCKS 5)");
    let target = at_port();
    // SOCKS 5 (RFC 1928): no login, CONNECT to an address.
    let mut socks = TcpStream::connect(("127.0.0.1", port_of(&line))).unwrap();
    socks.set_read_timeout(Some(PATIENCE)).unwrap();
    socks.write_all(&[5, 1, 0]).unwrap();
    let mut answer = [0; 12];
    socks.read_exact(&mut answer[..2]).unwrap();
    let [high, low] = target.to_be_bytes();
    socks
        .write_all(&[5, 1, 0, 1, 127, 0, 0, 1, high, low])
        .unwrap();
    socks.read_exact(&mut answer[..10]).unwrap();
    assert_eq!(answer[1], 0, "connected");
    socks.write_all(b"rows").unwrap();
    let mut rows = String::new();
    socks.read_to_string(&mut rows).unwrap();
    assert_eq!(rows, "ROWS");
    let (place, _) = listens.split_once(';').unwrap();
    let digits = place
        .rsplit(|c: char| !c.is_ascii_digit())
        .find(|it| it.len() > 3);
    let port = digits.unwrap().parse().unwrap();
    assert_eq!(asked(port, "back"), "BACK");
}

#[test]
fn commands_open_what_the_far_end_has_and_end_as_it_does() {
    let (here, there) = (Place::new(), Place::new());
    ssh_to(&here, &there);
    here.succeeds(&["id", "show"]);
    let run = |words: &[&str]| finish(cepa(&here, words).spawn().unwrap());
    let output = run(&["connect", "ssh:server", "exec:sh -c 'echo far; exit 3'"]);
    assert_eq!(text(&output.stdout), "far\n", "{}", text(&output.stderr));
    assert_eq!(output.status.code(), Some(3));
    let words = [
        "connect",
        "ssh:server,service=up=exec:echo 'it is; \"up\"'",
        "up",
    ];
    let output = run(&words);
    assert_eq!(
        text(&output.stdout),
        "it is; \"up\"\n",
        "{}",
        text(&output.stderr)
    );
    let output = run(&["services", "ssh:server,service=5432,service=up=echo:"]);
    let services = text(&output.stdout);
    assert!(
        services.contains("5432") && services.contains("up"),
        "{services}"
    );
    // What is not served is no service.
    let output = run(&["connect", "ssh:server,service=up=echo:", "web"]);
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));

    // A key may be for one thing alone, as the far end's authorized_keys say: whoever has it gets that.
    let far = there.text("programs");
    let config = there.text("config");
    let forced = format!(
        "CEPA_CONFIG_DIR={config} exec {far}/cepa serve stdio: --service db=echo: --allow any"
    );
    program(&here, "ssh", &forced);
    let mut child = cepa(&here, &["connect", "ssh:server"]);
    let mut child = child.stdin(std::process::Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"only that").unwrap();
    let output = finish(child);
    assert_eq!(
        text(&output.stdout),
        "only that",
        "{}",
        text(&output.stderr)
    );
    let output = run(&["connect", "ssh:server", "exec:id"]);
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn a_console_has_its_terminal() {
    let (here, there) = (Place::new(), Place::new());
    ssh_to(&here, &there);
    let path = format!("{}:{}", here.text("bin"), std::env::var("PATH").unwrap());
    let words = ["console", "ssh:server", "exec:sh,pty=yes"];
    let mut desk = Desk::with(&here, &words, (33, 101), |command| {
        command.env("PATH", path);
    });
    desk.type_in("stty size; exit 4\r");
    desk.until("33 101");
    assert_eq!(desk.leave().0, Some(4));
}

#[test]
fn a_peer_that_is_known_there_has_to_answer() {
    let (here, there) = (Place::new(), Place::new());
    ssh_to(&here, &there);
    let id = there.succeeds(&["id", "show"]);
    here.succeeds(&["peer", "add", "server", STRANGER, "--at", "ssh:server"]);
    let words = ["connect", "ssh:server,service=echo:", "echo"];
    let run = |words: &[&str]| finish(cepa(&here, words).spawn().unwrap());
    let output = run(&["connect", "ssh:server,service=up=echo:", "up"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    here.succeeds(&["peer", "add", "server", id.trim(), "--replace"]);
    let output = run(&["connect", "ssh:server,service=up=echo:", "up"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    // A service without a name has to have one that stands in its address.
    let output = run(&words);
    assert_ne!(output.status.code(), Some(0));
}

#[test]
fn what_ssh_says_becomes_one_line_with_what_to_do() {
    let here = Place::new();
    here.succeeds(&["id", "show"]);
    for (script, why) in [
        (
            "echo 'ssh: Could not resolve hostname server: Name or service not known' >&2; exit 255",
            "ssh knows no host server; check the name",
        ),
        (
            "echo 'me@server: Permission denied (publickey).' >&2; exit 255",
            "ssh is not let in on server; first make `ssh -p 22 me@server` work",
        ),
        (
            "echo 'Host key verification failed.' >&2; exit 255",
            "first run `ssh -p 22 me@server`",
        ),
        (
            "echo 'ssh: connect to host server port 22: Connection refused' >&2; exit 255",
            "ssh does not get to server; see `ssh -p 22 me@server`",
        ),
        (
            "echo 'sh: 1: cepa: not found' >&2; exit 127",
            "there is no cepa on server",
        ),
        ("exit 126", "may not be executed"),
        ("exit 9", "the command exited with status 9"),
    ] {
        program(&here, "ssh", script);
        let output = finish(
            cepa(&here, &["connect", "ssh:me@server:22", "5432"])
                .spawn()
                .unwrap(),
        );
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(5), "{stderr}");
        assert_eq!(text(&output.stdout), "");
        let last = stderr.lines().last().unwrap();
        assert!(
            last.starts_with("cepa: cannot connect by ssh: "),
            "{stderr}"
        );
        assert!(last.contains(why), "{stderr}");
        let shown = stderr.lines().count() - 1;
        assert_eq!(shown, usize::from(script.contains("echo")), "{stderr}");
    }
    // There is none.
    let mut command = here.cepa(&["connect", "ssh:server", "5432"]);
    command.env("PATH", here.text("none"));
    let line = common::failed(&finish(command.spawn().unwrap()), 5);
    assert!(line.contains("there is no ssh on this machine"), "{line}");
    let line = here.fails(&["connect", "ssh:-oProxyCommand=x", "5432"], 2);
    assert!(line.contains("cannot begin with \"-\""), "{line}");
    let line = here.fails(&["serve", "ssh:server", "--allow", "any"], 2);
    assert!(line.contains("ssh: can only be dialled"), "{line}");
    let line = here.fails(&["connect", "me@server", "5432"], 2);
    assert!(line.contains("with a login there, ssh:me@server"), "{line}");
    let said = here.succeeds(&["explain", "ssh:me@server,service=5432"]);
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        said.contains(
            "ssh to server as me; it runs there: cepa serve stdio: --allow any --service=5432"
        ),
        "{said}"
    );
}

/// OpenSSH with a server of its own: the options are its own, and the words arrive behind its login shell.
#[test]
fn openssh_takes_it_as_it_is_given() {
    let (Some(ssh), Some(sshd), Some(keygen)) = (have("ssh"), have("sshd"), have("ssh-keygen"))
    else {
        return;
    };
    let (here, there) = (Place::new(), Place::new());
    ssh_to(&here, &there);
    let key = |name: &str| {
        let file = here.text(name);
        let made = Command::new(&keygen)
            .args(["-q", "-t", "ed25519", "-N", "", "-f", &file])
            .status();
        assert!(made.unwrap().success());
        file
    };
    let (host, own) = (key("host"), key("own"));
    let [port] = ports();
    // The login shell finds cepa by the server's PATH.
    let (far, config) = (there.text("programs"), there.text("config"));
    let path = format!("{far}:/usr/bin:/bin");
    let settings = here.text("sshd_config");
    fs::write(
        &settings,
        format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {host}\nAuthorizedKeysFile {own}.pub\nStrictModes no\nUsePAM no\n\
             PidFile none\nSetEnv PATH={path} CEPA_CONFIG_DIR={config}\n"
        ),
    )
    .unwrap();
    // Root's sshd wants this folder.
    let _ = fs::create_dir_all("/run/sshd");
    let log = here.path("log");
    let _server = Running::start(
        Command::new(&sshd).args(["-D", "-e", "-f", &settings]),
        &log,
        port,
    );
    let known = here.text("known_hosts");
    let public = fs::read_to_string(format!("{host}.pub")).unwrap();
    fs::write(&known, format!("[127.0.0.1]:{port} {public}")).unwrap();
    let options = here.text("ssh_config");
    // What a second ssh, or one with a command, would stumble over.
    fs::write(
        &options,
        format!(
            "IdentityFile {own}\nIdentitiesOnly yes\nStrictHostKeyChecking yes\nUserKnownHostsFile {known}\nGlobalKnownHostsFile none\n\
             LocalForward {port} 127.0.0.1:1\nExitOnForwardFailure yes\nRemoteCommand uptime\nRequestTTY force\n"
        ),
    )
    .unwrap();
    program(&here, "ssh", &format!("exec {ssh} -F {options} \"$@\""));
    let said = |name: &str| fs::read_to_string(here.path(name)).unwrap_or_default();
    let at = format!("ssh:127.0.0.1:{port}");
    let words = ["connect", &at, "exec:sh -c 'echo \"it is there\"; exit 3'"];
    let output = finish(cepa(&here, &words).spawn().unwrap());
    assert_eq!(
        text(&output.stdout),
        "it is there\n",
        "{}\n{}",
        text(&output.stderr),
        said("log")
    );
    assert_eq!(output.status.code(), Some(3));
    let socket = there.text("db.sock");
    at_socket(&socket);
    let local = format!("127.0.0.1:0={socket}");
    let words = ["forward", &at, "-L", &local];
    let forwarding = Server::of(&mut cepa(&here, &words), " for db of ");
    assert_eq!(
        asked(port_of(forwarding.seen().last().unwrap()), "rows"),
        "ROWS"
    );
    drop(forwarding);

    // Another host key, and a name that there is not.
    fs::write(&known, "").unwrap();
    let output = finish(cepa(&here, &["connect", &at, "5432"]).spawn().unwrap());
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{stderr}");
    assert!(
        stderr.contains("ssh does not know the key of 127.0.0.1"),
        "{stderr}"
    );
    let words = ["connect", "ssh:no-such-host.invalid", "5432"];
    let output = finish(cepa(&here, &words).spawn().unwrap());
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains("ssh knows no host no-such-host.invalid"),
        "{stderr}"
    );
}
