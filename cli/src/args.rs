//! The command line: its words, their help, and how a wrong one is reported.
//!
//! Each command has a file of its own in `args/`, what several of them have is in `options`.
//! Addresses, peer ids and services become types here, so that no command sees a bad one. clap's
//! own errors take several lines; [`parse`] makes one of them, as for every other error.

#[cfg(feature = "completions")]
mod completions;
#[cfg(feature = "config")]
mod config;
mod connect;
mod console;
#[cfg(feature = "files")]
mod cp;
#[cfg(feature = "tools")]
mod demo;
#[cfg(test)]
mod documented;
mod exec;
#[cfg(feature = "mesh")]
mod explain;
#[cfg(feature = "mesh")]
#[cfg_attr(not(feature = "fleet"), path = "left_out/args_fleet.rs")]
pub(crate) mod fleet;
#[cfg(feature = "forward")]
mod forward;
mod guess;
mod id;
#[cfg(feature = "mesh")]
mod introduce;
#[cfg(feature = "mesh")]
mod invite;
#[cfg(feature = "mesh")]
mod join;
#[cfg(feature = "man")]
mod man;
#[cfg(feature = "mesh")]
mod mesh;
mod named;
#[cfg(feature = "mesh")]
mod node;
#[cfg_attr(not(feature = "forward"), path = "left_out/args_of_forward.rs")]
mod of_forward;
#[cfg_attr(not(feature = "mesh"), path = "left_out/args_of_mesh.rs")]
mod of_mesh;
mod options;
mod overview;
mod peer;
#[cfg(feature = "tools")]
mod ping;
#[cfg(feature = "tools")]
mod pipe;
#[cfg(feature = "tools")]
mod ports;
#[cfg(feature = "tools")]
mod probe;
#[cfg(feature = "mesh")]
mod relay;
#[cfg(feature = "mesh")]
mod reload;
#[cfg(feature = "mesh")]
mod send;
mod serve;
#[cfg(feature = "tools")]
mod services;
#[cfg(feature = "mesh")]
mod share;
#[cfg_attr(not(feature = "mesh"), path = "left_out/args_sharing.rs")]
mod sharing;
#[cfg(feature = "mesh")]
mod status;
#[cfg_attr(not(feature = "mesh"), path = "left_out/args_watching.rs")]
mod watching;

use std::error::Error as _;
use std::ffi::OsString;

use cepa::transports::endpoint::hidden;
use cepa::transports::{self, Endpoint};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches as _, Parser, Subcommand};

#[cfg(feature = "completions")]
pub(crate) use self::completions::{Completions, Shell};
#[cfg(feature = "config")]
pub(crate) use self::config::Config;
#[cfg(feature = "files")]
pub(crate) use self::cp::Cp;
#[cfg(feature = "forward")]
pub(crate) use self::forward::Forward;
#[cfg(feature = "man")]
pub(crate) use self::man::Man;
#[cfg(feature = "mdns")]
pub(crate) use self::peer::PeerFind;
pub(crate) use self::{
    connect::Connect, console::Console, exec::Exec, id::Id, id::IdAddr, id::IdRotate,
    of_mesh::CodeRelay, of_mesh::Multicast, options::ByProxy, options::Color, options::Dialling,
    options::IdentityFile, options::LogFormat, options::Logging, options::Looking, options::Trust,
    peer::Peer, peer::PeerAdd, peer::PeerVerify, serve::Serve, watching::Watching,
};
#[cfg(feature = "tools")]
pub(crate) use self::{
    demo::Demo, demo::Transport, ping::Ping, pipe::Pipe, ports::Ports, probe::Probe,
    services::Services,
};
#[cfg(feature = "mesh")]
pub(crate) use self::{
    explain::Explain, fleet::Fleet, introduce::Introduce, invite::Invite, join::Join, mesh::Mesh,
    mesh::MeshStatus, node::NodeRun, relay::Relay, reload::Reload, send::Send, share::Share,
    status::Status,
};
use crate::exit::{self, Code, Failure};
pub(crate) use crate::values::{AllowArg, DialTarget, Expected, Service, Target};

/// Secure channels over anything that carries bytes: TCP, Unix sockets, stdio, subprocesses and
/// serial lines
#[derive(Debug, Parser)]
#[command(
    name = "cepa",
    version,
    after_help = exit::HELP,
    disable_help_subcommand = true,
    max_term_width = 80
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) logging: Logging,
    #[command(flatten)]
    pub(crate) proxy: ByProxy,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Try every transport in turn with real peers, and print a table
    #[cfg(feature = "tools")]
    Demo(Demo),
    /// Offer services to peers that connect
    Serve(Serve),
    /// Share services with one friend by a ticket: a line to paste
    #[cfg(feature = "mesh")]
    Share(Share),
    /// Relay traffic between peers that cannot connect to each other
    #[cfg(feature = "mesh")]
    Relay(Relay),
    /// Run a node from a configuration file; SIGHUP reloads it
    #[cfg(feature = "mesh")]
    Node(NodeRun),
    /// Introduce one peer to a service of another
    #[cfg(feature = "mesh")]
    Introduce(Introduce),
    /// Show the sessions of a running serve, relay, node or forward
    #[cfg(feature = "mesh")]
    Status(Status),
    /// Have a running node read its file again
    #[cfg(feature = "mesh")]
    Reload(Reload),
    /// Inspect a running node
    #[cfg(feature = "mesh")]
    #[command(subcommand)]
    Mesh(Mesh),
    /// Connect standard input and output to a peer's service
    Connect(Connect),
    /// Open an interactive terminal on a peer's service
    Console(Console),
    /// Run a program of a peer, with arguments
    Exec(Exec),
    /// Listen locally, and forward each connection to a peer's service
    #[cfg(feature = "forward")]
    Forward(Forward),
    /// Copy files and folders to and from a peer
    #[cfg(feature = "files")]
    Cp(Cp),
    /// Send standard input as one sealed request, and print the answer
    #[cfg(feature = "mesh")]
    Send(Send),
    /// Connect two streams to each other
    #[cfg(feature = "tools")]
    Pipe(Pipe),
    /// Create, show or replace this machine's identity
    #[command(subcommand)]
    Id(Id),
    /// Create an invitation code, and wait for a peer to join with it
    #[cfg(feature = "mesh")]
    Invite(Invite),
    /// Accept an invitation
    #[cfg(feature = "mesh")]
    Join(Join),
    /// List and change the known peers
    #[command(subcommand)]
    Peer(Peer),
    /// Find and check the file with names and their options
    #[cfg(feature = "config")]
    #[command(subcommand)]
    Config(Config),
    /// Measure the round trip to a peer
    #[cfg(feature = "tools")]
    Ping(Ping),
    /// List what you may open at a peer
    #[cfg(feature = "tools")]
    Services(Services),
    /// Test a line: rate, errors, round trip, and which bytes it drops
    #[cfg(feature = "tools")]
    Probe(Probe),
    /// List the serial ports of this machine
    #[cfg(feature = "tools")]
    Ports(Ports),
    /// Explain an address layer by layer, and check it
    #[cfg(feature = "mesh")]
    Explain(Explain),
    /// Print a script that completes cepa's commands in a shell
    #[cfg(feature = "completions")]
    Completions(Completions),
    /// Write the manual pages
    #[cfg(feature = "man")]
    Man(Man),
}

impl Command {
    /// Whether it says what happens at its node.
    pub(crate) fn says_events(&self) -> bool {
        match self {
            Self::Serve(_) => true,
            #[cfg(feature = "mesh")]
            Self::Share(_) | Self::Node(_) | Self::Relay(_) | Self::Invite(_) => true,
            _ => false,
        }
    }

    /// Whether it dials peers, and so has a use for a proxy.
    pub(crate) fn dials(&self) -> bool {
        match self {
            Self::Id(_) | Self::Peer(_) => false,
            #[cfg(feature = "config")]
            Self::Config(_) => false,
            #[cfg(feature = "mesh")]
            Self::Mesh(_) | Self::Explain(_) => false,
            #[cfg(feature = "tools")]
            Self::Demo(_) | Self::Ports(_) => false,
            #[cfg(feature = "completions")]
            Self::Completions(_) => false,
            #[cfg(feature = "man")]
            Self::Man(_) => false,
            _ => true,
        }
    }

    /// Whether it is to say nothing but warnings and errors.
    pub(crate) fn is_quiet(&self) -> bool {
        match self {
            Self::Connect(args) => args.dialling.quiet,
            Self::Console(args) => args.dialling.quiet,
            Self::Exec(args) => args.dialling.quiet,
            #[cfg(feature = "forward")]
            Self::Forward(args) => args.dialling.quiet,
            #[cfg(feature = "files")]
            Self::Cp(args) => args.dialling.quiet,
            _ => false,
        }
    }

    /// Whether somebody may look at its numbers.
    pub(crate) fn is_watched(&self) -> bool {
        match self {
            #[cfg(feature = "mesh")]
            Self::Serve(args) => args.watchers.watching.is_asked_for(),
            #[cfg(feature = "mesh")]
            Self::Share(args) => args.watching.is_asked_for(),
            #[cfg(feature = "mesh")]
            Self::Relay(args) => args.watchers.watching.is_asked_for(),
            #[cfg(all(feature = "forward", feature = "mesh"))]
            Self::Forward(args) => args.watching.is_asked_for(),
            // Its file may say so.
            #[cfg(feature = "mesh")]
            Self::Node(_) => true,
            _ => false,
        }
    }

    /// Whether it serves until it is stopped, and so has a log. Where standard input and output are its one session, what it says
    /// is read by whoever has started it there.
    pub(crate) fn serves_for_long(&self) -> bool {
        let on_stdio = |at: &Endpoint| matches!(at.target(), transports::Target::Stdio);
        match self {
            Self::Serve(args) => {
                !args.mesh.register().is_empty() || !args.listen.iter().all(on_stdio)
            }
            #[cfg(feature = "forward")]
            Self::Forward(_) => true,
            #[cfg(feature = "mesh")]
            Self::Share(_) | Self::Relay(_) => true,
            #[cfg(feature = "mesh")]
            Self::Node(args) => !args.check,
            _ => false,
        }
    }
}

/// What a command line can be instead of a command.
#[derive(Debug)]
pub(crate) enum Early {
    /// Help or the version, for standard output.
    Text(String),
    Failed(Failure),
}

/// The options of all commands that take a value.
const LOG_FORMAT: &str = "--log-format";
const COLOR: &str = "--color";
const ERROR_STATUS: &str = "--error-status";
const PROXY: &str = "--proxy";
const DIRECT: &str = "--direct";

/// Whether lines are to be JSON, as far as words tell that can't be parsed: what is wrong with them is told in that form.
pub(crate) fn wants_json(words: &[OsString]) -> bool {
    let words = words.iter().take_while(|word| *word != "--");
    let words: Vec<&str> = words.map(|word| word.to_str().unwrap_or("")).collect();
    let apart = words.windows(2).any(|pair| pair == [LOG_FORMAT, "json"]);
    apart || words.contains(&"--log-format=json")
}

/// The status that words which can't be parsed ask for all the same: `--error-status N` of a command that has it.
pub(crate) fn error_status(words: &[OsString]) -> Option<u8> {
    let words = words.iter().take_while(|word| *word != "--");
    let words: Vec<&str> = words.map(|word| word.to_str().unwrap_or("")).collect();
    if !matches!(words.get(1), Some(&"connect" | &"exec")) {
        return None;
    }
    let apart = words.windows(2).find_map(|pair| match pair {
        [ERROR_STATUS, status] => Some(*status),
        _ => None,
    });
    let mut together = words
        .iter()
        .filter_map(|word| word.strip_prefix(ERROR_STATUS)?.strip_prefix('='));
    let status = apart.or_else(|| together.next())?;
    status.parse().ok().filter(|status| *status > 0)
}

/// All commands, with those of them in groups that `--help` shows.
pub(crate) fn command() -> clap::Command {
    let all = Cli::command();
    let list = overview::list(&all);
    all.help_template(format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{list}Options:\n{{options}}{{after-help}}"
    ))
}

/// Parses a command line.
pub(crate) fn parse(words: &[OsString]) -> Result<Cli, Early> {
    // `cepa help help` wants no more than that.
    if words.len() <= 3 && words.iter().skip(1).all(|word| word == "help") {
        return Err(Early::Text(overview::whole(&command())));
    }
    let words = &help_of(words);
    let mut all = command();
    let parsed = all
        .try_get_matches_from_mut(words)
        .and_then(|matches| Cli::from_arg_matches(&matches).map(|cli| (cli, matches)));
    let parsed = parsed.map_err(|e| e.format(&mut all));
    let (mut cli, matches) = parsed.map_err(|e| match e.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Early::Text(e.to_string()),
        _ => {
            if let Some(failure) = unreadable(&e) {
                return Early::Failed(failure);
            }
            let (name, here) = command_of(words);
            let all = Cli::command();
            let line = guess::several_values(&e, words, &all, &here).unwrap_or_else(|| {
                let guess = guess::of(&e, words, &all, (&name, &here));
                let guess = guess.map_or(String::new(), |guess| format!("; {guess}"));
                format!("{}{guess}", brief(&e))
            });
            Early::Failed(Failure::new(
                Code::Usage,
                format!("{line}; see `{name} --help`"),
            ))
        }
    })?;
    if let Some((_, matches)) = matches.subcommand() {
        let filled = match &mut cli.command {
            Command::Connect(args) => named::connect(args, matches),
            Command::Console(args) => named::console(args, matches),
            Command::Exec(args) => named::exec(args, matches),
            #[cfg(feature = "forward")]
            Command::Forward(args) => named::forward(args, matches),
            #[cfg(feature = "tools")]
            Command::Ping(args) => named::looking(&mut args.looking, matches),
            #[cfg(feature = "tools")]
            Command::Services(args) => named::looking(&mut args.looking, matches),
            #[cfg(feature = "mesh")]
            Command::Status(args) => named::looking(&mut args.looking, matches),
            #[cfg(feature = "files")]
            Command::Cp(args) => named::cp(args),
            _ => Ok(()),
        };
        filled.map_err(Early::Failed)?;
    }
    Ok(cli)
}

/// `cepa help connect` as other programs have it, in the one form that is known here.
fn help_of(words: &[OsString]) -> Vec<OsString> {
    match words {
        [program, help, of @ ..] if help == "help" => {
            let of = of.iter().cloned();
            [program.clone()]
                .into_iter()
                .chain(of)
                .chain(["--help".into()])
                .collect()
        }
        _ => words.to_vec(),
    }
}

/// Why nobody can say what a name stands for: it is not the word that is wrong.
fn unreadable(e: &clap::Error) -> Option<Failure> {
    let Some(ContextValue::String(word)) = e.get(ContextKind::InvalidValue) else {
        return None;
    };
    (e.kind() == ErrorKind::ValueValidation && word.contains('@'))
        .then(crate::names::unreadable)
        .flatten()
}

/// One line of clap's error: what is wrong, and its tip.
fn brief(e: &clap::Error) -> String {
    match (e.kind(), e.get(ContextKind::InvalidArg), e.source()) {
        // Our own parsers quote the value themselves.
        (ErrorKind::ValueValidation, Some(argument), Some(why)) => {
            return format!("{argument}: {why}");
        }
        (ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand, ..) => {
            return "a command is missing".to_owned();
        }
        (ErrorKind::MissingRequiredArgument, ..) => {
            if let Some(missing) = missing(e) {
                return missing;
            }
        }
        _ => {}
    }
    // A word that is in the wrong place may be an address with a password.
    let text = hidden(&e.to_string());
    let mut parts = text.split("\n\n").map(|part| {
        part.lines()
            .map(str::trim)
            .filter(|l| !l.is_empty())
            .collect::<Vec<_>>()
            .join(" ")
    });
    let first = parts.next().unwrap_or_default();
    let mut line = first.strip_prefix("error: ").unwrap_or(&first).to_owned();
    for tip in parts.filter_map(|part| part.strip_prefix("tip: ").map(str::to_owned)) {
        // Nothing begins with two dashes that anybody would give as a value, and who wants a thing does not want it off.
        // Where an option belongs is said below.
        let elsewhere = tip.starts_with('\'') && tip.contains(" --");
        if tip.starts_with("to pass ") || tip.contains("'--no-") || elsewhere {
            continue;
        }
        line = format!("{line}; {tip}");
    }
    line
}

/// What is missing, and where it stands among the other words.
fn missing(e: &clap::Error) -> Option<String> {
    let Some(ContextValue::Strings(missing)) = e.get(ContextKind::InvalidArg) else {
        return None;
    };
    let Some(ContextValue::StyledStr(usage)) = e.get(ContextKind::Usage) else {
        return None;
    };
    let usage = usage.to_string();
    let usage = usage.split_once("cepa ").map_or(&*usage, |(_, rest)| rest);
    let (all, are) = (
        missing.join(" and "),
        if missing.len() > 1 { "are" } else { "is" },
    );
    Some(format!("{all} {are} missing: cepa {}", usage.trim()))
}

/// The command whose help is wanted, as far as the words name one, and what it is called: `cepa id new`.
fn command_of(words: &[OsString]) -> (String, clap::Command) {
    let mut name = "cepa".to_owned();
    let mut command = Cli::command();
    let mut words = words.iter().skip(1).filter_map(|word| word.to_str());
    while let Some(word) = words.next() {
        // An option of all commands may stand in front of the command.
        if word.starts_with('-') {
            if [LOG_FORMAT, COLOR, PROXY, DIRECT].contains(&word) {
                words.next();
            }
            continue;
        }
        let Some(next) = command.find_subcommand(word) else {
            break;
        };
        name = format!("{name} {word}");
        command = next.clone();
    }
    (name, command)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The commands below this one, and itself.
    fn all(command: &clap::Command) -> Vec<clap::Command> {
        let below = command.get_subcommands().flat_map(all);
        below.chain([command.clone()]).collect()
    }

    /// clap wraps lines that are too long, also those of an example, which are wrong then.
    #[test]
    fn help_fits_a_terminal_of_80_columns() {
        let mut root = command();
        // The options of all commands come down to each.
        root.build();
        let commands = all(&root);
        assert!(commands.len() > 25, "{}", commands.len());
        for command in commands {
            let written = command.get_after_help().map(ToString::to_string);
            let shown = command.clone().max_term_width(80).render_long_help();
            let texts = [written.unwrap_or_default(), shown.to_string()];
            for line in texts.iter().flat_map(|text| text.lines()) {
                let name = command.get_name();
                assert!(line.chars().count() <= 80, "{name}: {line}");
            }
        }
    }
}
