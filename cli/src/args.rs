//! The command line: its words, their help, and how a wrong one is reported.
//!
//! Addresses, peer ids and services become types here, so that no command sees a bad one. clap's
//! own errors take several lines; [`parse`] makes one of them, as for every other error.

use std::error::Error as _;
use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use cepa::identity::{KeyKind, PeerId};
use cepa::transports::Endpoint;
use clap::error::{ContextKind, ErrorKind};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::exit::{self, Code, Failure};

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
    /// Join standard input and output to a service of a peer
    Connect(Connect),
    /// Listen locally, and carry each connection to a service of a peer
    Forward(Forward),
    /// Join two streams
    Pipe(Pipe),
    /// Make an identity, or show the peer id of one
    #[command(subcommand)]
    Id(Id),
    /// List and change the peers that are known here
    #[command(subcommand)]
    Peer(Peer),
    /// Tell what an address means, layer by layer, and check it
    Explain(Explain),
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// How much each substream carries, each way, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 2,
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) size: u32,
}

#[derive(Debug, Args)]
#[command(after_help = "\
A service is an address that is opened anew for each substream: exec:COMMAND gets the substream as
its standard input and output, tcp:HOST:PORT and unix:PATH are connected to it. `echo:` is built in:
it sends back what it gets.

Nobody is allowed until --allow names them. A peer that is not allowed is refused, and its peer id
and the command that would allow it are printed.

Each session may open any of the services. A peer that names no service gets the only one, if there
is only one. `serve stdio:` serves the one session there is, and ends with it.")]
pub(crate) struct Serve {
    /// Where to listen: tcp:HOST:PORT (port 0 takes a free one), unix:PATH, stdio:, pty:PATH,
    /// serial:PATH
    #[arg(value_name = "ADDR", required = true)]
    pub(crate) listen: Vec<Endpoint>,
    /// A service that peers can open by its name (repeatable)
    #[arg(long = "service", value_name = "NAME=ADDR")]
    pub(crate) services: Vec<Service>,
    /// Who may connect: a peer id, @NAME of a known peer, `known` for all known peers, or `any`
    /// (repeatable)
    #[arg(long, value_name = "PEERID|@NAME|known|any")]
    pub(crate) allow: Vec<Who>,
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Standard input and output carry the bytes of the service as they are. The end of standard input is
passed on, and output goes on until the service ends it; both are waited for, except at a terminal,
where the end of the service is the end of the command. When the reader of standard output leaves
first, the command ends quietly with exit code 0.")]
pub(crate) struct Connect {
    /// Where the peer listens
    #[arg(value_name = "ADDR")]
    pub(crate) address: Endpoint,
    /// The service; may be left out where the peer has only one
    #[arg(value_name = "SERVICE", default_value = "", hide_default_value = true)]
    pub(crate) service: String,
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
    /// Where the peer listens
    #[arg(value_name = "ADDR")]
    pub(crate) address: Endpoint,
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
}

#[derive(Debug, Args)]
pub(crate) struct IdShow {
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
    /// The statements by which the keys before this one name it, for `cepa peer follow`
    #[arg(long)]
    pub(crate) statement: bool,
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
pub(crate) struct Explain {
    /// The address
    #[arg(value_name = "ADDR")]
    pub(crate) address: Endpoint,
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

/// A word of `--expect`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    Peer(PeerId),
    Named(String),
}

impl FromStr for Expected {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        if let Some(name) = word.strip_prefix('@') {
            return Ok(Self::Named(name.to_owned()));
        }
        word.parse()
            .map(Self::Peer)
            .map_err(|e| format!("{e} (or @NAME for a known peer)"))
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum TrustWord {
    Any,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Kind {
    Ed25519,
    P256,
}

impl From<Kind> for KeyKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Ed25519 => Self::Ed25519,
            Kind::P256 => Self::P256,
        }
    }
}

/// A word of `--allow`.
#[derive(Clone, Debug)]
pub(crate) enum Who {
    Any,
    Known,
    Named(String),
    Peer(PeerId),
}

impl FromStr for Who {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match (word, word.strip_prefix('@')) {
            ("any", _) => Ok(Self::Any),
            ("known", _) => Ok(Self::Known),
            (_, Some(name)) => Ok(Self::Named(name.to_owned())),
            _ => word.parse().map(Self::Peer).map_err(|e| {
                format!(
                    "{e} (or @NAME for a known peer, `known` for all of them, `any` for everyone)"
                )
            }),
        }
    }
}

/// A named service of `--service`.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) target: Target,
}

/// What a service is joined to.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// An address, opened anew for each substream.
    Dial(Endpoint),
    /// Sends back what it gets.
    Echo,
    /// The far side of the demo: takes offered TLS layers on and off mid-stream.
    Demo,
}

impl FromStr for Service {
    type Err = String;

    /// `NAME=ADDR`; the name ends at the first `=`, an address may have more of them.
    fn from_str(word: &str) -> Result<Self, String> {
        let (name, address) = word
            .split_once('=')
            .ok_or("expected NAME=ADDR, as in up=exec:sha256sum")?;
        let target = match address {
            "echo:" => Target::Echo,
            "demo:" => Target::Demo,
            _ => {
                let endpoint: Endpoint = address.parse().map_err(|e| format!("{e}"))?;
                if !endpoint.layers().is_empty() {
                    return Err(
                        "a service's address takes no layers: give the plain address".into(),
                    );
                }
                Target::Dial(endpoint)
            }
        };
        Ok(Self {
            name: service_name(name)?,
            target,
        })
    }
}

/// A listener of `cepa forward`, and the service it leads to.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    pub(crate) listen: Endpoint,
    pub(crate) service: String,
}

impl FromStr for Local {
    type Err = String;

    /// `LISTEN=SERVICE`; the address ends at the last `=`, it may have options of its own.
    fn from_str(word: &str) -> Result<Self, String> {
        let (listen, service) = word
            .rsplit_once('=')
            .ok_or("expected LISTEN=SERVICE, as in tcp:127.0.0.1:5433=db")?;
        let listen: Endpoint = listen.parse().map_err(|e| format!("{e}"))?;
        if !matches!(listen.scheme(), "tcp" | "unix") {
            return Err(format!(
                "cannot listen on {}: here: use tcp: or unix:",
                listen.scheme()
            ));
        }
        if !listen.layers().is_empty() {
            return Err("a local listener takes no layers: give the plain address".into());
        }
        Ok(Self {
            listen,
            service: service_name(service)?,
        })
    }
}

/// Longest name of a service in bytes; the header of a substream must stay small.
const MAX_NAME: usize = 128;

fn service_name(name: &str) -> Result<String, String> {
    if name.is_empty() {
        return Err("the service's name is missing".into());
    }
    if name.len() > MAX_NAME || name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(format!(
            "a service's name has up to {MAX_NAME} bytes, without spaces and control characters"
        ));
    }
    Ok(name.to_owned())
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
