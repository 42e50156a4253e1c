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
use options::Parking;
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
    /// Try every transport in turn with real peers, and print a table
    Demo(Demo),
    /// Offer services to peers that connect
    Serve(Serve),
    /// Relay traffic between peers that cannot connect to each other
    Relay(Relay),
    /// Run a node from a configuration file; SIGHUP reloads it
    Node(NodeRun),
    /// Introduce one peer to a service of another
    Introduce(Introduce),
    /// Inspect a running node
    #[command(subcommand)]
    Mesh(Mesh),
    /// Connect standard input and output to a peer's service
    Connect(Connect),
    /// Open an interactive terminal on a peer's service
    Console(Console),
    /// Listen locally, and forward each connection to a peer's service
    Forward(Forward),
    /// Send standard input as one sealed request, and print the answer
    Send(Send),
    /// Connect two streams to each other
    Pipe(Pipe),
    /// Create, show or replace this machine's identity
    #[command(subcommand)]
    Id(Id),
    /// Create an invitation code, and wait for a peer to join with it
    Invite(Invite),
    /// Accept an invitation
    Join(Join),
    /// List and change the known peers
    #[command(subcommand)]
    Peer(Peer),
    /// Test a line: rate, errors, round trip, and which bytes it drops
    Probe(Probe),
    /// List the serial ports of this machine
    Ports(Ports),
    /// Explain an address layer by layer, and check it
    Explain(Explain),
}

#[derive(Debug, Args)]
#[command(after_help = "\
A service is an address. The server opens it once for each request:
  exec:COMMAND            run a command on standard input and output
  exec:COMMAND,pty=yes    run it in a terminal, for `cepa console`
  tcp:HOST:PORT, unix:PATH, serial:PATH
                          connect there
  pty:PATH                create a terminal that any program can open
  echo:                   send back what arrives
  cepa://PEERID@ADDR/SERVICE
                          connect to another peer's service. Its bytes are
                          readable on this machine, and that peer sees this
                          machine's id, not the client's

Only peers that --allow names may connect. When the server refuses a peer, it
prints the peer's id and the command that allows it.

A peer may open every service. If there is only one, it need not name it.
`serve stdio:` serves a single session, and ends with it.")]
pub(crate) struct Serve {
    /// Where to listen: tcp:HOST:PORT (port 0 picks a free port), unix:PATH, stdio:, pty:PATH or
    /// serial:PATH
    #[arg(value_name = "ADDR", required_unless_present = "register", value_parser = listen_addr)]
    pub(crate) listen: Vec<Endpoint>,
    /// Register at this relay, cepa://RELAYID@ADDR, so that peers reach the services through it. May
    /// replace ADDR (repeatable)
    #[arg(long, value_name = "RELAY", value_parser = placed_addr)]
    pub(crate) register: Vec<PeerAddr>,
    /// Offer the service ADDR under this name (repeatable)
    #[arg(long = "service", value_name = "NAME=ADDR")]
    pub(crate) services: Vec<Service>,
    /// Who may connect: a peer id, @NAME of a known peer, `known` for all known peers, or `any`
    /// (repeatable)
    #[arg(long, value_name = "PEERID|@NAME|known|any")]
    pub(crate) allow: Vec<AllowArg>,
    /// Who else may introduce peers to the services. Unknown peers can then connect, but open only the
    /// services that they are introduced to (repeatable)
    #[arg(long = "introducer", value_name = "PEERID|@NAME|known|any")]
    pub(crate) introducers: Vec<AllowArg>,
    /// Remembers across restarts which introductions were used or revoked. Without it, a used one works
    /// again if the clock was set back. The file is created if it does not exist
    #[arg(long, value_name = "FILE", requires = "introducers")]
    pub(crate) state: Option<PathBuf>,
    /// Also accept requests from `cepa send`, from the peers that --allow names: directly, or through a
    /// `--register` relay that runs with --carry
    #[arg(long)]
    pub(crate) sealed: bool,
    /// Maximum number of connections in one session; further ones wait. Default and maximum: a third of
    /// `ulimit -n`
    #[arg(long, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) connections_a_session: Option<u32>,
    /// Maximum number of sessions of one peer; default 16
    #[arg(long, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) sessions_a_peer: Option<u32>,
    /// Maximum number of commands (exec:) that run at once for one peer; default 32
    #[arg(long, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) commands_a_peer: Option<u32>,
    #[command(flatten)]
    pub(crate) parking: Parking,
    /// Limits on handshakes, as KEY=VALUE,…:
    ///   places=100             handshakes at once
    ///   per-host=8             handshakes at once from one host
    ///   waiting=256            connections that wait for a place
    ///   waiting-per-host=32    of these, from one host
    ///   wait=6s                how long one waits for a place
    ///   refused=5s             penalty for a handshake that is refused
    ///   timed-out=10s          penalty for a handshake that times out
    ///   tolerated=15s          penalty above which a host is shut out
    ///   longest=10min          longest time that a host is shut out
    ///   proven=1h              how long after a success it is not shut out
    #[arg(long, value_name = "KEY=VALUE,…", verbatim_doc_comment)]
    pub(crate) gate: Option<Gate>,
    /// Use the identity in this PEM file instead of the default one. With several, a peer that
    /// connects with --expect PEERID gets that identity; any other gets the first (repeatable)
    #[arg(long = "identity", value_name = "FILE")]
    pub(crate) identities: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) local_hints: LocalHints,
}

#[derive(Debug, Args)]
#[command(after_help = "\
A server registers with `cepa serve --register cepa://RELAYID@ADDR`. Peers then
reach it at cepa://PEERID@relay:RELAYID@ADDR/SERVICE. Their TLS is end to end:
the relay sees who talks to whom and how much, and nothing else. Only peers that
--allow names may use the relay.

With --carry it also delivers sealed messages (`cepa send`) to peers that are
connected to it.")]
pub(crate) struct Relay {
    /// Where to listen: tcp:HOST:PORT (port 0 picks a free port) or unix:PATH
    #[arg(value_name = "ADDR", required_unless_present = "register", value_parser = listen_addr)]
    pub(crate) listen: Vec<Endpoint>,
    /// Who may use the relay: a peer id, @NAME of a known peer, `known` for all known peers, or `any` (repeatable)
    #[arg(long, value_name = "PEERID|@NAME|known|any")]
    pub(crate) allow: Vec<AllowArg>,
    /// Also register at this relay, so that peers reach this one through it (repeatable)
    #[arg(long, value_name = "RELAY", value_parser = placed_addr)]
    pub(crate) register: Vec<PeerAddr>,
    /// Also deliver sealed messages. The relay can neither read nor change them
    #[arg(long)]
    pub(crate) carry: bool,
    /// Maximum number of registrations
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub(crate) registrations: usize,
    /// Maximum number of circuits (relayed connections)
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub(crate) circuits: usize,
    /// Maximum number of circuits that one peer dials
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub(crate) circuits_a_peer: usize,
    /// Maximum bytes per second for all circuits that one peer dialled, both directions together; K, M
    /// and G are powers of 1024
    #[arg(long, value_name = "BYTES", default_value = "10M", value_parser = rate)]
    pub(crate) rate: u64,
    /// Limits on handshakes, as KEY=VALUE,…:
    ///   places=100             handshakes at once
    ///   per-host=8             handshakes at once from one host
    ///   waiting=256            connections that wait for a place
    ///   waiting-per-host=32    of these, from one host
    ///   wait=6s                how long one waits for a place
    ///   refused=5s             penalty for a handshake that is refused
    ///   timed-out=10s          penalty for a handshake that times out
    ///   tolerated=15s          penalty above which a host is shut out
    ///   longest=10min          longest time that a host is shut out
    ///   proven=1h              how long after a success it is not shut out
    #[arg(long, value_name = "KEY=VALUE,…", verbatim_doc_comment)]
    pub(crate) gate: Option<Gate>,
    #[command(flatten)]
    pub(crate) local_hints: LocalHints,
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The file is TOML. Relative paths start at the file's folder. SIGHUP reloads it:
services, permissions, new listeners and new relays take effect, and sessions go
on. docs/MESH.md describes every key.

  identity = \"node.pem\"                     # default: this user's identity
  control = \"node.sock\"                     # for `cepa mesh status`
  state = \"node.state\"                      # see below
  listen = [\"tcp:0.0.0.0:7000\"]
  gate = \"per-host=32\"                      # like `cepa serve --gate`
  sessions_a_peer = 16                      # like --sessions-a-peer
  commands_a_peer = 32                      # like --commands-a-peer
  durable = true                            # false: like --no-durable
  park = \"10min\"                          # like --park
  register = [\"cepa://RELAYID@tcp:HOST:7711\"]
  [services.up]
  to = \"exec:sha256sum\"                     # like `cepa serve --service`
  allow = [\"PEERID\", \"@NAME\"]               # default: nobody
  introducers = [\"PEERID\"]                  # who may introduce others
  sealed = true                             # accepts `cepa send`
  [services.db]
  to = \"cepa://PEERID@tcp:HOST:7000/db\"     # another peer's service
  membrane = \"friends\"                      # wraps references that pass
  [membranes.friends]
  revoked = false                           # true revokes all that passed
  [relay]
  allow = [\"any\"]
  [carrier]                                 # delivers sealed messages
  allow = [\"any\"]

`state` remembers across restarts which introductions were used or revoked.
Without it, a used one works again if the clock was set back. The node creates
the file.")]
pub(crate) struct NodeRun {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Only check the file, and report what is wrong with it
    #[arg(long)]
    pub(crate) check: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Send the printed introduction to A, who uses it with `cepa connect
INTRODUCTION`. B must accept introductions from this identity (`cepa serve
--introducer`, or `introducers` in its node's configuration), or be this
identity itself.

`cepa introduce A INTRODUCTION` passes an introduction on. `cepa introduce
--revoke INTRODUCTION` revokes one.")]
pub(crate) struct Introduce {
    /// The peer to introduce: a peer id, @NAME of a known peer, or `@` for whoever uses it first
    #[arg(value_name = "A", required_unless_present = "revoke")]
    pub(crate) recipient: Option<Expected>,
    /// The peer that has the service: cepa://PEERID@HINT;HINT, or an introduction to pass on
    #[arg(value_name = "B", required_unless_present = "revoke")]
    pub(crate) to: Option<Reference>,
    /// B's service; not needed if B includes it
    #[arg(value_name = "SERVICE")]
    pub(crate) service: Option<String>,
    /// Number of connections that it allows; 0 for any number
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) uses: u32,
    /// How long it is valid
    #[arg(long, value_name = "MINUTES", default_value_t = 1440,
          value_parser = clap::value_parser!(u32).range(1..=5_256_000))]
    pub(crate) minutes: u32,
    /// How many times it may be passed on
    #[arg(long, value_name = "N", default_value_t = 0,
          value_parser = clap::value_parser!(u8).range(0..=3))]
    pub(crate) further: u8,
    /// Revoke this introduction, which this identity issued
    #[arg(long, value_name = "INTRODUCTION", conflicts_with_all = ["recipient", "to", "service"])]
    pub(crate) revoke: Option<Introduction>,
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Mesh {
    /// Show its listeners, services, relays and sessions
    Status(MeshStatus),
}

#[derive(Debug, Args)]
pub(crate) struct MeshStatus {
    /// The node's control socket: `control` in its configuration
    #[arg(long, value_name = "PATH")]
    pub(crate) control: PathBuf,
    /// Print JSON
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
