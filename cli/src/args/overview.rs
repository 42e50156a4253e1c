//! The commands as `cepa`, `cepa help` and `cepa --help` list them: in groups by what somebody wants, one line each.
//!
//! The lines are the commands' own first lines of help. A command that a small build leaves out is not listed; one that is
//! in no group stands at the end, and fails a test.

use std::fmt::Write as _;

/// Each group and its commands, in the order in which they are shown.
const GROUPS: &[(&str, &[&str])] = &[
    (
        "Connect",
        &[
            "connect", "console", "exec", "forward", "cp", "send", "pipe",
        ],
    ),
    (
        "Offer",
        &["share", "serve", "node", "reload", "relay", "introduce"],
    ),
    (
        "Peers and keys",
        &["id", "peer", "invite", "join", "config"],
    ),
    (
        "Look",
        &[
            "ping", "services", "status", "mesh", "explain", "ports", "probe", "demo",
        ],
    ),
    ("This program", &["help", "completions", "man"]),
];

/// No command of clap's: `args::help_of` reads it.
const HELP: &str = "help";

/// The list alone.
pub(super) fn list(all: &clap::Command) -> String {
    let mut out = String::new();
    for (group, names) in GROUPS {
        let _ = writeln!(out, "{group}:");
        for name in *names {
            match all.find_subcommand(name) {
                Some(command) => line(&mut out, command),
                None if *name == HELP => {
                    let _ = writeln!(out, "  {HELP:13}Show this list, or the help of one command");
                }
                None => {}
            }
        }
        out.push('\n');
    }
    let rest = rest(all);
    if !rest.is_empty() {
        out.push_str("More:\n");
        for command in rest {
            line(&mut out, command);
        }
        out.push('\n');
    }
    out
}

/// What `cepa` alone shows.
pub(super) fn whole(all: &clap::Command) -> String {
    let mut out = String::from("Usage: cepa COMMAND …\n\n");
    out.push_str(&list(all));
    out.push_str(
        "`cepa help COMMAND` explains one; `cepa --help` adds the options of all commands\n\
         and the exit codes.\n",
    );
    out
}

/// Whether a word is a command that this build is without.
pub(super) fn is_left_out(word: &str, all: &clap::Command) -> bool {
    let mut names = GROUPS.iter().flat_map(|(_, names)| *names);
    word != HELP && names.any(|name| *name == word) && all.find_subcommand(word).is_none()
}

fn line(out: &mut String, command: &clap::Command) {
    let about = command.get_about().map(ToString::to_string);
    let about = about.unwrap_or_default();
    let about = about.lines().next().unwrap_or_default();
    let _ = writeln!(out, "  {:13}{about}", command.get_name());
}

/// The commands that are in no group.
fn rest(all: &clap::Command) -> Vec<&clap::Command> {
    let grouped = |name: &str| GROUPS.iter().any(|(_, names)| names.contains(&name));
    let commands = all.get_subcommands();
    commands
        .filter(|command| !grouped(command.get_name()))
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::args::Cli;

    #[test]
    fn a_command_that_a_build_is_without_is_known_by_its_name() {
        let small = clap::Command::new("cepa").subcommand(clap::Command::new("serve"));
        assert!(is_left_out("relay", &small));
        for word in ["serve", "help", "nosuch"] {
            assert!(!is_left_out(word, &small), "{word}");
        }
    }

    #[test]
    fn every_command_is_in_one_group_and_has_one_line() {
        let all = Cli::command();
        let left: Vec<_> = rest(&all).iter().map(|c| c.get_name().to_owned()).collect();
        assert!(left.is_empty(), "in no group of args/overview.rs: {left:?}");
        let text = whole(&all);
        for command in all.get_subcommands() {
            let begin = format!("  {} ", command.get_name());
            let lines = text.lines().filter(|line| line.starts_with(&begin));
            assert_eq!(lines.count(), 1, "{begin}");
        }
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}
