//! cepa beside its rivals: one machine, one run, peers in turn. BENCHMARKS.md says what the figures mean.
//!
//! ```text
//! cargo run --release -p cepa-bench -- ratios --out DIR      the whole table
//! cargo run --release -p cepa-bench -- link                  the link on noisy serial lines
//! cargo run --release -p cepa-bench -- w1-bulk --peer cepa   one measurement, as one line of JSON
//! ```
//!
//! A measurement is one process, so that none colours the next; `ratios` starts them in rounds, every peer once a
//! round, takes medians over the rounds, and divides. Machines are shared and noisy: only ratios inside one run
//! mean anything.
//!
//! | file | holds |
//! | --- | --- |
//! | `attacks/` | what a hostile peer can do to each |
//! | `handshakes/` | what a handshake takes, and what strangers' handshakes cost |
//! | `workloads/` | what is measured, one file for each kind |
//! | `peers/` | cepa and the rivals behind one face |
//! | `serial/` | the link on noisy lines, in virtual time |
//! | `mesh/` | one relay with many nodes and circuits |
//! | `fleet/` | three relays as one, on an etcd |
//! | `load/` | crowds of clients on the tool's own processes |
//! | `link/` | slow and far paths inside the process |
//! | `far/` | bulk over far paths through the system's TCP, in network namespaces |
//! | `carriers` | the same session over TCP, a WebSocket and QUIC |
//! | `copy/` | files: `cepa cp` beside scp and `cepa forward`, and on a noisy line |
//! | `tool` | processes of the tool |
//! | `tunnel/` | the whole tool beside ssh, socat and stunnel |
//! | `ssh` | an OpenSSH server of our own on loopback |
//! | `durable/` | what it costs that sessions outlive their connections, and how soon they go on |
//! | `ratios/` | rounds, the table with its goals, Markdown and plot |

mod attacks;
mod carriers;
mod copy;
mod durable;
mod far;
mod figure;
mod fleet;
mod handshakes;
mod link;
mod load;
mod measure;
mod mesh;
mod one_way;
mod outcome;
mod peers;
mod ratios;
mod serial;
mod ssh;
mod tool;
mod tunnel;
mod workloads;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use workloads::Workload;

pub(crate) use outcome::{Failure, Outcome};

/// No single measurement takes as long.
const LONGEST: Duration = Duration::from_secs(300);

/// cepa beside its rivals
#[derive(Parser)]
#[command(
    version,
    after_help = "`cepa-bench WORKLOAD --help` lists the peers and options of one workload."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The whole table: every workload, cepa and its rivals, against the goals
    Ratios(ratios::Options),
    /// The attacks of a hostile peer, on cepa and its rivals
    Attacks(attacks::Options),
    /// The link on simulated noisy lines, against its goals
    Link(serial::Options),
    /// What `attacks` attacks: one end of plain yamux on loopback
    #[command(hide = true)]
    Victim(attacks::victim::Options),
    /// Strangers that hold handshakes open, and an honest dialler among them
    HandshakeFlood(handshakes::flood::Options),
    /// What `handshake-flood` floods
    #[command(hide = true)]
    HandshakeListener(handshakes::listener::Options),
    /// Bytes of a mutual handshake, against the goals
    HandshakeBytes,
    /// One relay with 1,000 nodes and 2,000 circuits, against the goals
    Mesh(mesh::Options),
    /// Sessions that outlive their connections beside such that do not, against the goals
    Durable(durable::Options),
    /// The same session over TCP, a WebSocket and QUIC
    Carriers(carriers::Options),
    /// Bulk over far paths between network namespaces, beside TLS alone; as root
    Far(far::Options),
    /// Crowds of local clients on one session of the tool
    Load(load::Options),
    /// Files by the tool, beside scp and `cepa forward`, and on a noisy serial line
    Copy(copy::Options),
    /// A fleet of three relays on an etcd, with 3,000 nodes, against the goals
    Fleet(fleet::Options),
    /// The nodes of `fleet`
    #[command(hide = true)]
    FleetNodes(fleet::nodes::Options),
    /// The whole tool, `forward` and `serve`, beside ssh -L, socat and stunnel
    Tunnel(tunnel::Options),
    /// The relay of `mesh`
    #[command(hide = true)]
    MeshRelay(mesh::relay::Options),
    #[command(flatten)]
    Workload(Workload),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Ratios(options) => ratios::run(&options),
        Command::Attacks(options) => attacks::run(&options),
        Command::Link(options) => serial::run(&options),
        Command::Victim(options) => attacks::victim::serve(&options),
        Command::HandshakeFlood(options) => handshakes::flood::run(&options),
        Command::HandshakeListener(options) => handshakes::listener::serve(&options),
        Command::HandshakeBytes => handshakes::bytes::run(),
        Command::Mesh(options) => mesh::run(&options),
        Command::Durable(options) => durable::run(&options),
        Command::Carriers(options) => carriers::run(&options),
        Command::Far(options) => far::run(&options),
        Command::Load(options) => load::run(&options),
        Command::Copy(options) => copy::run(&options),
        Command::Fleet(options) => fleet::run(&options),
        Command::FleetNodes(options) => fleet::nodes::serve(&options),
        Command::Tunnel(options) => tunnel::run(&options),
        Command::MeshRelay(options) => mesh::relay::serve(&options),
        Command::Workload(workload) => one(&workload),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cepa-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One measurement. It ends in any case: a peer that hangs must not hold up the table.
fn one(workload: &Workload) -> Outcome<()> {
    std::thread::spawn(|| {
        std::thread::sleep(LONGEST);
        eprintln!(
            "cepa-bench: nothing after {} s; the peer hangs",
            LONGEST.as_secs()
        );
        std::process::exit(1);
    });
    println!("{}", serde_json::to_string(&workload.run()?)?);
    Ok(())
}
