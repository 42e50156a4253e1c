//! The command line: its words, their help, and how a wrong one is reported.
//!
//! Addresses, peer ids and services become types here, so that no command sees a bad one. clap's
//! own errors take several lines; [`parse`] makes one of them, as for every other error.

mod plain;

use std::error::Error as _;
use std::ffi::OsString;
use std::path::PathBuf;

use cepa::identity::PeerId;
use cepa::node::{Introduction, PeerAddr};
use cepa::transports::Endpoint;
use clap::error::{ContextKind, ErrorKind};
use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::exit::{self, Code, Failure};
pub(crate) use crate::words::{
    Escape, Expected, Kind, Local, Reference, Service, Target, TrustWord, Whither, Who,
};
pub(crate) use plain::{Demo, Explain, Ports, Probe};

/// Secure channels over anything that carries bytes: TCP, Unix sockets, stdio, subprocesses and
/// serial lines
#[derive(Debug, Parser)]
#[command(name = "cepa", version, after_help = exit::HELP, disable_help_subcommand = true)]
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
A service is an address that is opened anew for each substream: exec:COMMAND gets the substream as
its standard input and output, exec:COMMAND,pty=yes gets a terminal of its own (`cepa console` passes the
size of its window on), tcp:HOST:PORT, unix:PATH and serial:PATH are connected to it, pty:PATH is a
terminal whose other end any program can open. `echo:` is built in: it sends back what it gets.

Nobody is allowed until --allow names them. A peer that is not allowed is refused, and its peer id
and the command that would allow it are printed.

Each session may open any of the services. A peer that names no service gets the only one, if there
is only one. `serve stdio:` serves the one session there is, and ends with it.")]
pub(crate) struct Serve {
    /// Where to listen: tcp:HOST:PORT (port 0 takes a free one), unix:PATH, stdio:, pty:PATH,
    /// serial:PATH
    #[arg(value_name = "ADDR", required_unless_present = "register")]
    pub(crate) listen: Vec<Endpoint>,
    /// Be reachable through this relay, cepa://RELAYID@ADDR, beside or instead of listening
    /// (repeatable)
    #[arg(long, value_name = "RELAY")]
    pub(crate) register: Vec<PeerAddr>,
    /// A service that peers can open by its name (repeatable)
    #[arg(long = "service", value_name = "NAME=ADDR")]
    pub(crate) services: Vec<Service>,
    /// Who may connect: a peer id, @NAME of a known peer, `known` for all known peers, or `any`
    /// (repeatable)
    #[arg(long, value_name = "PEERID|@NAME|known|any")]
    pub(crate) allow: Vec<Who>,
    /// Who may introduce others to the services, beside this identity itself. Strangers can have a session
    /// then, and open nothing but what they are introduced to (repeatable)
    #[arg(long = "introducer", value_name = "PEERID|@NAME|known|any")]
    pub(crate) introducers: Vec<Who>,
    /// The identity to use, a PEM file; without it the default one, which is made at first use.
    /// Repeatable: whoever connects with --expect PEERID gets that one, and whoever asks for nobody in
    /// particular the first
    #[arg(long = "identity", value_name = "FILE")]
    pub(crate) identities: Vec<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
A node registers with `cepa serve --register cepa://RELAYID@ADDR`; a peer reaches it at
cepa://NODEID@relay:RELAYID@ADDR/SERVICE. The two have TLS of their own inside, so the relay sees who
talks to whom and how much, and nothing else. Nobody is served until --allow names them.")]
pub(crate) struct Relay {
    /// Where to listen: tcp:HOST:PORT (port 0 takes a free one), unix:PATH
    #[arg(value_name = "ADDR", required_unless_present = "register")]
    pub(crate) listen: Vec<Endpoint>,
    /// Who is served: a peer id, or `any` (repeatable)
    #[arg(long, value_name = "PEERID|any")]
    pub(crate) allow: Vec<Who>,
    /// Be reachable through another relay as well (repeatable)
    #[arg(long, value_name = "RELAY")]
    pub(crate) register: Vec<PeerAddr>,
    /// Most registrations
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub(crate) registrations: usize,
    /// Most circuits
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub(crate) circuits: usize,
    /// Most circuits that one peer dials
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub(crate) circuits_a_peer: usize,
    /// Bytes a second of all circuits that one peer dialled, both ways together
    #[arg(long, value_name = "BYTES", default_value_t = 10 << 20,
          value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rate: u64,
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The file is TOML; paths in it are relative to it. SIGHUP reads it again: services, permissions, further
listeners and further relays are taken on, and sessions go on. docs/MESH.md has every key.

  identity = \"node.pem\"                     # without it the default one
  control = \"node.sock\"                     # for `cepa mesh status`
  listen = [\"tcp:0.0.0.0:7000\"]
  register = [\"cepa://RELAYID@tcp:HOST:7711\"]
  [services.up]
  to = \"exec:sha256sum\"                     # as with `cepa serve --service`
  allow = [\"PEERID\", \"@NAME\"]              # nobody, where it is left out
  introducers = [\"PEERID\"]                  # who may introduce others; [] for this node alone
  [relay]
  allow = [\"any\"]")]
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
What is printed goes to A, who uses it with `cepa connect INTRODUCTION`. B must let this identity
introduce others (`introducers` in the configuration of its node), or be this identity itself.

`cepa introduce A INTRODUCTION` passes one on; `cepa introduce --revoke INTRODUCTION` takes one back.")]
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
    /// Show its sessions, services and relays
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

#[derive(Debug, Args)]
#[command(after_help = "\
Standard input and output carry the bytes of the service as they are. The end of standard input is
passed on, and output goes on until the service ends it; both are waited for, except at a terminal,
where the end of the service is the end of the command. When the reader of standard output leaves
first, the command ends quietly with exit code 0.")]
pub(crate) struct Connect {
    /// Where the peer listens, which peer it is (cepa://PEERID@HINT;HINT/SERVICE), or what `cepa introduce`
    /// printed
    #[arg(value_name = "ADDR")]
    pub(crate) address: Whither,
    /// The service; may be left out where the peer has only one, or the address names it
    #[arg(value_name = "SERVICE", default_value = "", hide_default_value = true)]
    pub(crate) service: String,
    #[command(flatten)]
    pub(crate) trust: Trust,
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Every key goes to the service, ^C too; the size of the window goes along, and `serve --service
NAME='exec:bash -l,pty=yes'` gives it to a shell. At the start of a line:
  ~.   leave; a command on a terminal of the other end is hung up
  ~B   send a break, where a serial line is below the service
  ~^Z  suspend this program
  ~~   the character itself
  ~?   help
What a serial line says beside the session (boot messages) is shown on standard error, in another
colour unless NO_COLOR is set. The command ends with the service: with exit code 1 if that failed.")]
pub(crate) struct Console {
    /// Where the peer listens, or which peer it is: cepa://PEERID@HINT;HINT/SERVICE
    #[arg(value_name = "ADDR")]
    pub(crate) address: Whither,
    /// The service; may be left out where the peer has only one, or the address names it
    #[arg(value_name = "SERVICE", default_value = "", hide_default_value = true)]
    pub(crate) service: String,
    /// The escape character, or `none`
    #[arg(long, value_name = "CHAR", default_value = "~")]
    pub(crate) escape: Escape,
    #[command(flatten)]
    pub(crate) trust: Trust,
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
}

#[derive(Debug, Args)]
#[command(after_help = "\
All connections share one session, which is made at start. The command ends with exit code 6 when
that session is lost.

Example:
  cepa forward 'exec:ssh host cepa serve stdio: --service db=unix:/run/db.sock --allow PEERID' \\
      -L tcp:127.0.0.1:5433=db --expect PEERID")]
pub(crate) struct Forward {
    /// Where the peer listens, or which peer it is: cepa://PEERID@HINT;HINT
    #[arg(value_name = "ADDR")]
    pub(crate) address: Whither,
    /// Listen here (tcp: or unix:), and carry each connection to that service (repeatable)
    #[arg(
        short = 'L',
        long = "local",
        value_name = "LISTEN=SERVICE",
        required = true
    )]
    pub(crate) locals: Vec<Local>,
    #[command(flatten)]
    pub(crate) trust: Trust,
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The two are joined as they are, with the TLS layers that their addresses name (tls+tcp:HOST:PORT);
the end of one stream is passed on to the other, and both directions are waited for.")]
pub(crate) struct Pipe {
    /// One stream
    #[arg(value_name = "ADDR")]
    pub(crate) one: Endpoint,
    /// The other
    #[arg(value_name = "ADDR")]
    pub(crate) other: Endpoint,
    #[command(flatten)]
    pub(crate) trust: Trust,
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Id {
    /// Make an identity (a key and a certificate of its own) and print its peer id
    New(IdNew),
    /// Print the peer id
    Show(IdShow),
    /// Print an address that others can reach this identity at
    Addr(IdAddr),
    /// Replace the key: the old one names the new one, so that peers that know it follow by themselves
    Rotate(IdRotate),
}

#[derive(Debug, Args)]
#[command(after_help = "\
The old identity is kept beside the new one, and both are good for the overlap: programs that still
run with the old one go on. A peer that knows the old key learns the new one at its next connection
(the statement stands in the certificate), and writes so into its known peers; one that is not met
before the statement expires has to be told the new id by hand. `cepa id show --statement` prints
the statement for peers that are told by other means (`cepa peer follow`).")]
pub(crate) struct IdRotate {
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
    /// What kind of key the new one is
    #[arg(long, value_name = "KIND", value_enum, default_value_t = Kind::Ed25519)]
    pub(crate) kind: Kind,
    /// How long the old key is still good, in days
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(..=36_500))]
    pub(crate) overlap: u32,
    /// How long others can learn of the new key, in days
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub(crate) expires: u32,
}

#[derive(Debug, Args)]
pub(crate) struct IdNew {
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
    /// What kind of key
    #[arg(long, value_name = "KIND", value_enum, default_value_t = Kind::Ed25519)]
    pub(crate) kind: Kind,
    /// Put the private key under a passphrase, typed at the terminal or from the file that
    /// CEPA_PASSPHRASE_FILE names
    #[arg(long)]
    pub(crate) passphrase: bool,
}

#[derive(Debug, Args)]
pub(crate) struct IdShow {
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
    /// As sixteen words, to read aloud
    #[arg(long, group = "form")]
    pub(crate) words: bool,
    /// With a picture: one that has changed shows another id, one that has not proves nothing
    #[arg(long, group = "form")]
    pub(crate) art: bool,
    /// With a QR code
    #[arg(long, group = "form")]
    pub(crate) qr: bool,
    /// The statements by which the keys before this one name it, for `cepa peer follow`
    #[arg(long, group = "form")]
    pub(crate) statement: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The code is printed on standard output: it carries this machine's peer id, the address, and a secret
that works once. Give it to the other side over a way that is private; who has it first can join in
its place. The command ends when somebody has joined, and each side is then among the other's known
peers. Whoever connects meanwhile gets nothing else.")]
pub(crate) struct Invite {
    /// Where to wait: tcp:HOST:PORT (port 0 takes a free one) or unix:PATH
    #[arg(value_name = "ADDR")]
    pub(crate) listen: Endpoint,
    /// The address for the code, where the other side reaches this machine by another one
    #[arg(long, value_name = "ADDR")]
    pub(crate) at: Option<Endpoint>,
    /// What to call the one who joins
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// How long to wait
    #[arg(long, value_name = "MINUTES", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1440))]
    pub(crate) minutes: u32,
    /// Show the code as a QR code too
    #[arg(long)]
    pub(crate) qr: bool,
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
}

#[derive(Debug, Args)]
pub(crate) struct Join {
    /// What `cepa invite` printed, or `-` to read it from standard input (a command line can be seen by
    /// other users of the machine)
    #[arg(value_name = "CODE")]
    pub(crate) code: String,
    /// Dial this in place of the code's address
    #[arg(long, value_name = "ADDR")]
    pub(crate) at: Option<Endpoint>,
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Peer {
    /// List them, as they stand in the file `known_peers` of the configuration folder
    Ls,
    /// Add one
    Add(PeerAdd),
    /// Forget one
    Rm(PeerName),
    /// Call one something else
    Rename(PeerRename),
    /// Compare a peer's id with what its owner sees (`cepa id show`), and note that they agree
    Verify(PeerVerify),
    /// Follow known peers to their new keys, by what `cepa id show --statement` prints there
    Follow(PeerFollow),
}

#[derive(Debug, Args)]
pub(crate) struct PeerFollow {
    /// The statements: a file, or `-` for standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct PeerAdd {
    /// What to call it
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Its peer id
    #[arg(value_name = "PEERID")]
    pub(crate) id: PeerId,
    /// Where it is met (repeatable): whoever answers there must prove that id
    #[arg(long, value_name = "ADDR")]
    pub(crate) at: Vec<Endpoint>,
    /// If there is a peer of that name, give it this id
    #[arg(long)]
    pub(crate) replace: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PeerName {
    /// What it is called
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct PeerRename {
    /// What it is called
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// What to call it
    #[arg(value_name = "NEW")]
    pub(crate) new: String,
}

#[derive(Debug, Args)]
pub(crate) struct PeerVerify {
    /// What it is called here
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// The id that its owner sees
    #[arg(value_name = "PEERID")]
    pub(crate) id: PeerId,
}

#[derive(Debug, Args)]
pub(crate) struct IdAddr {
    /// Where it listens, in the order in which to try
    #[arg(value_name = "ADDR")]
    pub(crate) at: Vec<Endpoint>,
    /// A relay that it is registered at, cepa://RELAYID@ADDR (repeatable)
    #[arg(long = "relay", value_name = "RELAY")]
    pub(crate) relays: Vec<PeerAddr>,
    /// The service
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) service: String,
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
}

#[derive(Debug, Args)]
pub(crate) struct IdentityFile {
    /// The identity to use, a PEM file; without it the default one, which is made at first use
    #[arg(long = "identity", value_name = "FILE")]
    pub(crate) path: Option<PathBuf>,
}

/// Whom to take the other end for. Without any of these: whoever is known at that address
/// (`cepa peer ls`).
#[derive(Debug, Args)]
#[allow(clippy::struct_field_names)] // they are the names of the options
pub(crate) struct Trust {
    /// The peer id that the other end must prove, or @NAME of a known peer
    #[arg(long, value_name = "PEERID|@NAME", conflicts_with_all = ["trust", "trust_new"])]
    pub(crate) expect: Option<Expected>,
    /// `any` takes whoever answers, and tells who it was: open to a man in the middle
    #[arg(long, value_name = "any", conflicts_with = "trust_new")]
    pub(crate) trust: Option<TrustWord>,
    /// Trust whoever answers where nobody is known yet, and remember it: open to a man in the middle
    /// the first time. Another key at that address is refused from then on
    #[arg(long)]
    pub(crate) trust_new: bool,
    /// Or whoever has a certificate for the host of ADDR from an authority in this PEM file (`system`:
    /// from an authority that the system trusts)
    #[arg(long, value_name = "FILE|system")]
    pub(crate) ca: Option<String>,
}

impl Trust {
    /// Whether any of the options was given.
    pub(crate) fn says_something(&self) -> bool {
        self.expect.is_some() || self.trust.is_some() || self.trust_new || self.ca.is_some()
    }
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
    Cli::try_parse_from(words).map_err(|e| match e.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Early::Text(e.to_string()),
        _ => Early::Failed(Failure::new(
            Code::Usage,
            format!("{}; see `{} --help`", brief(&e), command_of(words)),
        )),
    })
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
        line = format!("{line}; {tip}");
    }
    line
}

/// The command whose help is wanted, as far as the words name one: `cepa id new`.
fn command_of(words: &[OsString]) -> String {
    let mut name = "cepa".to_owned();
    let mut command = Cli::command();
    for word in words.iter().skip(1).filter_map(|word| word.to_str()) {
        let Some(next) = command.find_subcommand(word) else {
            break;
        };
        name = format!("{name} {word}");
        command = next.clone();
    }
    name
}
