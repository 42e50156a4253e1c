//! One relay with many nodes and circuits, against the goals of the peer mesh.
//!
//! ```text
//! cargo run --release -p cepa-bench -- mesh [--only memory|copying|fairness|one-peer|busy] [--nodes 1000] [--circuits 2000]
//! ```
//!
//! One line of JSON a measurement, with its goal and whether it is held. The relay is a process of its own with two
//! workers, so memory (VmRSS) and CPU (proc(5), stat) are the relay's alone; all the nodes and diallers are in this
//! process. They speak to the relay as `cepa::node` does, with sessions and `protocols::relay`'s own functions, but put no
//! TLS of their own into a circuit: to the relay that is the same, and it leaves the machine to the relay.
//!
//! - `memory`: nodes register and stay idle; diallers come; circuits are opened, carry 1 KiB there and back and stay
//!   idle. With all of that there, how long a registration takes: over a session that there is, and from nothing,
//!   handshakes included. Then both ends of 64 circuits write until nothing more is taken, and nobody reads.
//! - `copying`: bulk through circuits and through a service that forwards one substream to another, in turn. CPU of the
//!   relay's process, the ratio of each round, and the middle of the rounds.
//! - `fairness`: peers that send as fast as their quota lets them, beside one that has ten times as many circuits and
//!   bytes to offer as it gets. What the least of the others gets, in shares of its quota.
//! - `one-peer`: a relay with its default limits, and one stranger that makes it hold as much as it can, of one kind after the
//!   other: requests that it never finishes, circuits that both ends fill and nobody reads, and circuits that have ended and that
//!   nobody reads.
//! - `busy`: all circuits write at once, which is more than the machine can do, with pacing and without it in turn. What comes out at
//!   the nodes, and how long the diallers' frames are.
//!
//! Latencies are wall time on whatever else the machine does; the others are not.
//!
//! | file | holds |
//! | --- | --- |
//! | `relay` | the relay's process |
//! | `crowd` | nodes and diallers |
//! | `memory`, `copying`, `fairness`, `one_peer`, `busy` | what is measured |
//! | `options` | what it is asked |

mod busy;
pub(crate) mod copying;
mod crowd;
mod fairness;
mod memory;
mod one_peer;
mod options;
pub(crate) mod relay;

use crate::Outcome;
use options::Part;

pub(crate) use options::Options;

pub(crate) fn run(options: &Options) -> Outcome<()> {
    let wanted = |part| options.only.is_none_or(|only| only == part);
    let runtime = tokio::runtime::Runtime::new()?;
    if wanted(Part::Memory) {
        runtime.block_on(memory::run(options))?;
    }
    if wanted(Part::Copying) {
        runtime.block_on(copying::run(options))?;
    }
    if wanted(Part::Fairness) {
        runtime.block_on(fairness::run(options))?;
    }
    if wanted(Part::OnePeer) {
        runtime.block_on(one_peer::run(options))?;
    }
    if wanted(Part::Busy) {
        runtime.block_on(busy::run(options))?;
    }
    // The crowd's tasks would go on for ever.
    runtime.shutdown_background();
    Ok(())
}
