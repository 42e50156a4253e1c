//! `ssh:`: the stdio of the user's own `ssh`, with `cepa serve stdio:` at the far end.
//!
//! It is `exec:` with a command line that nobody has to remember. ssh is given the far command as one text, which the login shell there
//! reads; so each word is quoted for it, in single quotes, which sh, bash, zsh, ksh, dash, fish and csh read alike. The far end lets
//! anyone in (`--allow any`): its session is this ssh alone, and who has that could run the same command. What it serves stands in the address.
//!
//! The options are those of scp: no terminal, no command of `ssh_config`'s own, and none of the forwards that a second ssh to the same host would
//! find taken. All else is as the user's configuration says: keys, agents, jumps, masters, host keys. A password is asked for at the terminal.
use crate::endpoint::{Endpoint, SshSettings, Target};
use crate::error::{Action, TransportError, TransportErrorKind};
use crate::exec;
use crate::stream::Stream;

/// The program that is started.
pub(crate) const PROGRAM: &str = "ssh";

const OPTIONS: [&str; 6] = [
    "-xT",
    "-oClearAllForwardings=yes",
    "-oForwardAgent=no",
    "-oPermitLocalCommand=no",
    "-oRemoteCommand=none",
    "-oRequestTTY=no",
];

pub(crate) fn dial(endpoint: &Endpoint, for_peer: bool) -> Result<Stream, TransportError> {
    let argv = endpoint.target().ssh_command().unwrap_or_default();
    let command = exec::Command {
        argv: &argv,
        dir: None,
        terminal: None,
        for_peer,
    };
    exec::start(Action::Dial, endpoint, &command)
}

/// Nothing comes from there by itself.
pub(crate) fn not_listened(endpoint: &Endpoint) -> TransportError {
    TransportError::new(
        Action::Listen,
        endpoint,
        TransportErrorKind::Invalid,
        "ssh: can only be dialled",
        "listen at stdio: on the other machine, and dial ssh: from here",
    )
}

impl Target {
    /// What `ssh:` starts: the program and its arguments, of which the last is what the far end runs. None for all other addresses.
    #[must_use]
    pub fn ssh_command(&self) -> Option<Vec<String>> {
        let Target::Ssh {
            user,
            host,
            port,
            settings,
        } = self
        else {
            return None;
        };
        let mut argv = vec![PROGRAM.to_owned()];
        argv.extend(OPTIONS.map(str::to_owned));
        if let Some(port) = port {
            argv.push(format!("-p{port}"));
        }
        argv.push("--".to_owned());
        argv.push(match user {
            Some(user) => format!("{user}@{host}"),
            None => host.clone(),
        });
        argv.push(far_command(settings));
        Some(argv)
    }
}

fn far_command(settings: &SshSettings) -> String {
    let mut words = "cepa serve stdio: --allow any".to_owned();
    let services = settings.services.iter().map(|it| ("--service", it));
    let remote = settings
        .allow_remote
        .iter()
        .map(|it| ("--allow-remote", it));
    for (option, value) in services.chain(remote) {
        words.push(' ');
        words.push_str(&quoted(&format!("{option}={value}")));
    }
    words
}

/// A word for the login shell of the far end.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@=+,".contains(c);
    if word.chars().all(plain) {
        return word.to_owned();
    }
    // Between two quoted parts, each of these stands behind a backslash: csh expands ! within quotes, too, and fish knows backslashes there.
    let mut quoted = String::from("'");
    for c in word.chars() {
        if matches!(c, '\'' | '\\' | '!') {
            quoted.push_str(r"'\");
            quoted.push(c);
            quoted.push('\'');
        } else {
            quoted.push(c);
        }
    }
    quoted.push('\'');
    quoted
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn command(address: &str) -> Vec<String> {
        let endpoint: Endpoint = address.parse().unwrap();
        endpoint.target().ssh_command().unwrap()
    }

    #[test]
    fn it_is_a_command_line_of_ssh() {
        let own = |argv: Vec<String>| argv.into_iter().skip(1 + OPTIONS.len()).collect::<Vec<_>>();
        assert_eq!(
            own(command("ssh:server")),
            ["--", "server", "cepa serve stdio: --allow any"]
        );
        assert_eq!(
            own(command(
                "ssh:me@server:2222,service=5432,service=db=unix:/run/db.sock"
            )),
            [
                "-p2222",
                "--",
                "me@server",
                "cepa serve stdio: --allow any --service=5432 --service=db=unix:/run/db.sock"
            ]
        );
        assert_eq!(own(command("ssh:me@[::1]:22"))[2], "me@::1");
        let remote = own(command("ssh:h,allow-remote=8080"));
        assert_eq!(
            remote[2],
            "cepa serve stdio: --allow any --allow-remote=8080"
        );
        let other: Endpoint = "tcp:h:1".parse().unwrap();
        assert_eq!(other.target().ssh_command(), None);
    }

    #[test]
    fn what_the_far_shell_reads_is_what_was_written() {
        for hostile in [
            "up=exec:sh -c 'echo $HOME; rm x' && y | z > a",
            "a'b\"c\\d`e`$(f)\u{e9}!g!h #*?[x]{1,2}~;&<>()",
            "'; touch /tmp/owned; '",
        ] {
            let words = quoted(&format!("--service={hostile}"));
            // What a login shell does with the text that ssh hands over.
            for shell in ["sh", "bash", "zsh", "fish", "csh"] {
                let echo = format!("printf %s {words}");
                let Ok(output) = Command::new(shell).args(["-c", &echo]).output() else {
                    assert_ne!(shell, "sh", "there is a sh");
                    continue;
                };
                let said = String::from_utf8(output.stdout).unwrap();
                assert_eq!(said, format!("--service={hostile}"), "{shell}: {words}");
            }
        }
    }
}
