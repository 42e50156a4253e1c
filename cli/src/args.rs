//! The command line: its words, their help, and how a wrong one is reported.
//!
//! Addresses, peer ids and services become types here, so that no command sees a bad one. clap's
//! own errors take several lines; [`parse`] makes one of them, as for every other error.

mod guess;
mod options;
mod people;
mod plain;
mod reach;

use std::error::Error as _;
use std::ffi::OsString;
use std::path::PathBuf;

use cepa::node::PeerAddr;
use cepa::protocols::introduction::Introduction;
use cepa::transports::Endpoint;
use clap::error::{ContextKind, ErrorKind};
use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::exit::{self, Code, Failure};
use crate::gate::Gate;
pub(crate) use crate::values::{
    AllowArg, DialTarget, Expected, Explained, Reference, Service, Target,
};
use crate::values::{listen_addr, placed_addr, rate};
pub(crate) use options::{IdentityFile, LocalHints, Trust};
pub(crate) use people::{Id, IdAddr, IdRotate, Invite, Join, Peer, PeerAdd, PeerVerify};
pub(crate) use plain::{Demo, Explain, Ports, Probe};
pub(crate) use reach::{Connect, Console, Forward, Pipe, Send};

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
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the main job on every transport in turn, with real peers, and print a table
    Demo(Demo),
    /// Offer services to peers that connect
    Serve(Serve),
    /// Carry circuits between peers that cannot connect to each other
    Relay(Relay),
    /// Run a node by a configuration file; SIGHUP reads it again
    Node(NodeRun),
    /// Give a peer a reference to a service of another one
    Introduce(Introduce),
    /// Look at a running node
    #[command(subcommand)]
    Mesh(Mesh),
    /// Join standard input and output to a service of a peer
    Connect(Connect),
    /// Sit down at a service of a peer, with this terminal
    Console(Console),
    /// Listen locally, and carry each connection to a service of a peer
    Forward(Forward),
    /// Send standard input as one sealed request, which a third peer may carry, and print the answer
    Send(Send),
    /// Join two streams
    Pipe(Pipe),
    /// Make an identity, or show the peer id of one
    #[command(subcommand)]
    Id(Id),
    /// Make a code by which another machine and this one come to know each other, and wait for it
    Invite(Invite),
    /// Use such a code
    Join(Join),
    /// List and change the peers that are known here
    #[command(subcommand)]
    Peer(Peer),
    /// Find out what a line does to bytes: rate, errors, round trip, which bytes it eats
    Probe(Probe),
    /// List the serial ports of this machine
    Ports(Ports),
    /// Tell what an address means, layer by layer, and check it
    Explain(Explain),
}

#[derive(Debug, Args)]
#[command(after_help = "\
A service is an address that is opened anew for each substream: exec:COMMAND
gets the substream as its standard input and output, exec:COMMAND,pty=yes gets a
terminal of its own (`cepa console` passes the size of its window on),
tcp:HOST:PORT, unix:PATH and serial:PATH are connected to it, pty:PATH is a
terminal whose other end any program can open. `echo:` is built in: it sends
back what it gets. cepa://PEERID@ADDR/SERVICE is a service of another peer: its
bytes are in the clear here, and that peer sees this one, not who is behind it.

Nobody is allowed until --allow names them. A peer that is not allowed is
refused, and its peer id and the command that would allow it are printed.

Each session may open any of the services. A peer that names no service gets the
only one, if there is only one. `serve stdio:` serves the one session there is,
and ends with it.")]
pub(crate) struct Serve {
    /// Where to listen: tcp:HOST:PORT (port 0 takes a free one), unix:PATH, stdio:, pty:PATH,
    /// serial:PATH
    #[arg(value_name = "ADDR", required_unless_present = "register", value_parser = listen_addr)]
    pub(crate) listen: Vec<Endpoint>,
    /// Be reachable through this relay, cepa://RELAYID@ADDR, beside or instead of listening
    /// (repeatable)
    #[arg(long, value_name = "RELAY", value_parser = placed_addr)]
    pub(crate) register: Vec<PeerAddr>,
    /// A service that peers can open by its name (repeatable)
    #[arg(long = "service", value_name = "NAME=ADDR")]
    pub(crate) services: Vec<Service>,
    /// Who may connect: a peer id, @NAME of a known peer, `known` for all known peers, or `any`
    /// (repeatable)
    #[arg(long, value_name = "PEERID|@NAME|known|any")]
    pub(crate) allow: Vec<AllowArg>,
    /// Who may introduce others to the services, beside this identity itself. Strangers can have a session
    /// then, and open nothing but what they are introduced to (repeatable)
    #[arg(long = "introducer", value_name = "PEERID|@NAME|known|any")]
    pub(crate) introducers: Vec<AllowArg>,
    /// A small file in which stays, across restarts, up to when introductions of others were used or taken back.
    /// Without it one that was comes back where the clock is set back over a restart. Made where there is none
    #[arg(long, value_name = "FILE", requires = "introducers")]
    pub(crate) state: Option<PathBuf>,
    /// Take requests of `cepa send` for the services as well, from whom --allow names: over a session, or by a
    /// relay of --register that carries
    #[arg(long)]
    pub(crate) sealed: bool,
    /// Connections to the services that one session may have at once; more wait for one to end. Without it a third
    /// of the files that this process may open (ulimit -n), which is also the most
    #[arg(long, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) connections_a_session: Option<u32>,
    /// Sessions that one peer may have at once; default 16
    #[arg(long, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) sessions_a_peer: Option<u32>,
    /// Commands (exec:) that may run at once for one peer; default 32
    #[arg(long, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) commands_a_peer: Option<u32>,
    /// Limits of handshakes: places=N (100) at once, per-host=N (8), waiting=N (256), waiting-per-host=N (32),
    /// wait=TIME (6s) for a place; and what failures bring upon their host: refused=TIME (5s), timed-out=TIME (10s), shut out
    /// above tolerated=TIME (15s), for longest=TIME (10min) at most, and not within proven=TIME (1h) of a success
    #[arg(long, value_name = "KEY=VALUE,…")]
    pub(crate) gate: Option<Gate>,
    /// The identity to use, a PEM file; without it the default one, which is made at first use.
    /// Repeatable: whoever connects with --expect PEERID gets that one, and whoever asks for nobody in
    /// particular the first
    #[arg(long = "identity", value_name = "FILE")]
    pub(crate) identities: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) local_hints: LocalHints,
}

#[derive(Debug, Args)]
#[command(after_help = "\
A node registers with `cepa serve --register cepa://RELAYID@ADDR`; a peer
reaches it at cepa://NODEID@relay:RELAYID@ADDR/SERVICE. The two have TLS of
their own inside, so the relay sees who talks to whom and how much, and nothing
else. Nobody is served until --allow names them.

With --carry it also takes sealed messages (`cepa send`) to nodes that have a
session with it.")]
pub(crate) struct Relay {
    /// Where to listen: tcp:HOST:PORT (port 0 takes a free one), unix:PATH
    #[arg(value_name = "ADDR", required_unless_present = "register", value_parser = listen_addr)]
    pub(crate) listen: Vec<Endpoint>,
    /// Who is served: a peer id, @NAME of a known peer, `known` for all known peers, or `any` (repeatable)
    #[arg(long, value_name = "PEERID|@NAME|known|any")]
    pub(crate) allow: Vec<AllowArg>,
    /// Be reachable through another relay as well (repeatable)
    #[arg(long, value_name = "RELAY", value_parser = placed_addr)]
    pub(crate) register: Vec<PeerAddr>,
    /// Carry sealed messages as well, which it can neither read nor alter
    #[arg(long)]
    pub(crate) carry: bool,
    /// Most registrations
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub(crate) registrations: usize,
    /// Most circuits
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub(crate) circuits: usize,
    /// Most circuits that one peer dials
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub(crate) circuits_a_peer: usize,
    /// Bytes a second of all circuits that one peer dialled, both ways together; K, M and G stand for 1024 bytes and so on
    #[arg(long, value_name = "BYTES", default_value = "10M", value_parser = rate)]
    pub(crate) rate: u64,
    /// Limits of handshakes: places=N (100) at once, per-host=N (8), waiting=N (256), waiting-per-host=N (32),
    /// wait=TIME (6s) for a place; and what failures bring upon their host: refused=TIME (5s), timed-out=TIME (10s), shut out
    /// above tolerated=TIME (15s), for longest=TIME (10min) at most, and not within proven=TIME (1h) of a success
    #[arg(long, value_name = "KEY=VALUE,…")]
    pub(crate) gate: Option<Gate>,
    #[command(flatten)]
    pub(crate) local_hints: LocalHints,
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The file is TOML; paths in it are relative to it. SIGHUP reads it again:
services, permissions, further listeners and further relays are taken on, and
sessions go on. docs/MESH.md has every key.

  identity = \"node.pem\"                     # without it the default one
  control = \"node.sock\"                     # for `cepa mesh status`
  state = \"node.state\"                      # what was introduced; see below
  listen = [\"tcp:0.0.0.0:7000\"]
  gate = \"per-host=32\"                      # as with `cepa serve --gate`
  sessions_a_peer = 16                      # and --sessions-a-peer
  commands_a_peer = 32                      # and --commands-a-peer
  register = [\"cepa://RELAYID@tcp:HOST:7711\"]
  [services.up]
  to = \"exec:sha256sum\"                     # as with `cepa serve --service`
  allow = [\"PEERID\", \"@NAME\"]               # nobody, where it is left out
  introducers = [\"PEERID\"]                  # who may introduce others
  sealed = true                             # takes what `cepa send` sends
  [services.db]
  to = \"cepa://PEERID@tcp:HOST:7000/db\"     # of another peer
  membrane = \"friends\"                      # wraps the references that pass
  [membranes.friends]
  revoked = false                           # true takes away all that passed
  [relay]
  allow = [\"any\"]
  [carrier]                                 # of sealed messages
  allow = [\"any\"]

Without `state`, an introduction of others that was used up or taken back comes
back where the clock is set back over a restart. The file is made by the node.")]
pub(crate) struct NodeRun {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Only read the file, and say what is wrong with it
    #[arg(long)]
    pub(crate) check: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
What is printed goes to A, who uses it with `cepa connect INTRODUCTION`. B must
let this identity introduce others (`introducers` in the configuration of its
node, `cepa serve --introducer`), or be this identity itself.

`cepa introduce A INTRODUCTION` passes one on; `cepa introduce --revoke
INTRODUCTION` takes one back.")]
pub(crate) struct Introduce {
    /// Whom to introduce: a peer id, @NAME of a known peer, or `@` for whoever uses it first
    #[arg(value_name = "A", required_unless_present = "revoke")]
    pub(crate) recipient: Option<Expected>,
    /// To whom: cepa://PEERID@HINT;HINT, or an introduction that may be passed on
    #[arg(value_name = "B", required_unless_present = "revoke")]
    pub(crate) to: Option<Reference>,
    /// The service of B; may be left out where B names it
    #[arg(value_name = "SERVICE")]
    pub(crate) service: Option<String>,
    /// How many connections it is for; 0 for any number
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) uses: u32,
    /// How long it is good
    #[arg(long, value_name = "MINUTES", default_value_t = 1440,
          value_parser = clap::value_parser!(u32).range(1..=5_256_000))]
    pub(crate) minutes: u32,
    /// How many times it may be passed on
    #[arg(long, value_name = "N", default_value_t = 0,
          value_parser = clap::value_parser!(u8).range(0..=3))]
    pub(crate) further: u8,
    /// Take this introduction back, which this identity has issued
    #[arg(long, value_name = "INTRODUCTION", conflicts_with_all = ["recipient", "to", "service"])]
    pub(crate) revoke: Option<Introduction>,
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Mesh {
    /// Show where it listens, its services, relays and sessions
    Status(MeshStatus),
}

#[derive(Debug, Args)]
pub(crate) struct MeshStatus {
    /// The control socket of the node, `control` in its configuration file
    #[arg(long, value_name = "PATH")]
    pub(crate) control: PathBuf,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What a command line can be instead of a command.
#[derive(Debug)]
pub(crate) enum Early {
    /// Help or the version, for standard output.
    Text(String),
    Failed(Failure),
}

/// Parses a command line.
pub(crate) fn parse(words: &[OsString]) -> Result<Cli, Early> {
    let words = &help_of(words);
    Cli::try_parse_from(words).map_err(|e| match e.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Early::Text(e.to_string()),
        _ => {
            let (name, here) = command_of(words);
            let guess = guess::of(&e, words, &Cli::command(), &here);
            let guess = guess.map_or(String::new(), |guess| format!("; {guess}"));
            Early::Failed(Failure::new(
                Code::Usage,
                format!("{}{guess}; see `{name} --help`", brief(&e)),
            ))
        }
    })
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
        _ => {}
    }
    let text = e.to_string();
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
        // Nothing begins with two dashes that anybody would give as a value.
        if tip.starts_with("to pass ") {
            continue;
        }
        line = format!("{line}; {tip}");
    }
    line
}

/// The command whose help is wanted, as far as the words name one, and what it is called: `cepa id new`.
fn command_of(words: &[OsString]) -> (String, clap::Command) {
    let mut name = "cepa".to_owned();
    let mut command = Cli::command();
    for word in words.iter().skip(1).filter_map(|word| word.to_str()) {
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
        let commands = all(&Cli::command());
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
