//! What it costs that a session outlives its connection, and how soon it goes on over another one, against the goals.
//!
//! ```text
//! cargo run --release -p cepa-bench -- durable [--only unharmed|memory|line|migration|stall] [--rounds 9] [--sessions 1000]
//! ```
//!
//! One line of JSON a figure, with its goal and whether it is held. "Plain" is the same stack without `resume`. Both ends are in
//! this process.
//!
//! - `unharmed`: bulk one way, and 64 bytes there and back, over loopback. A round has both kinds of sessions, in turn which is
//!   first, and the ratio of a round is one value; the middle of the rounds counts, since a busy machine spoils some.
//! - `memory`: what an idle session takes more than a plain one, that has carried a byte both ways, and 64 KiB. A process keeps
//!   memory that was given back to it, so the second is the most that it took.
//! - `line`: bulk one way over a simulated line of 115,200 baud, in virtual time: what goes back beside what goes back without
//!   it, as a share of what the line could carry in that time. Frames of the link and records of TLS are in it.
//! - `migration`: a byte a millisecond over loopback, while its session is moved to another connection by hand, again and
//!   again; beside the gaps of as long a time without that.
//! - `stall`: a path with a round trip, in virtual time, that is cut; later a new one is there. From then on, until bytes come.
//!
//! | file | holds |
//! | --- | --- |
//! | `ends` | sessions of either kind, and their peers |
//! | `options` | what the command line says |
//! | `unharmed`, `memory`, `line`, `migration`, `stall` | what is measured |

mod ends;
mod line;
mod memory;
mod migration;
mod options;
mod stall;
mod unharmed;

use crate::Outcome;

pub(crate) use options::Options;
use options::Part;

pub(crate) fn run(options: &Options) -> Outcome<()> {
    let wanted = |part| options.only.is_none_or(|only| only == part);
    let runtime = tokio::runtime::Runtime::new()?;
    // Before there is anything that it could take in place of new memory.
    if wanted(Part::Memory) {
        runtime.block_on(memory::run(options))?;
    }
    if wanted(Part::Unharmed) {
        runtime.block_on(unharmed::run(options))?;
    }
    if wanted(Part::Line) {
        line::run()?;
    }
    if wanted(Part::Migration) {
        runtime.block_on(migration::run(options))?;
    }
    if wanted(Part::Stall) {
        stall::run()?;
    }
    runtime.shutdown_background();
    Ok(())
}
