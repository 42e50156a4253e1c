//! Files by `cepa cp`: how fast over loopback beside scp, rsync and the tool's own forward, and how much of a noisy serial line.
//!
//! ```text
//! cargo build --release -p cepa-cli -p cepa-bench
//! target/release/cepa-bench copy [--only loopback|line] [--mib 1024] [--rounds 3] [--line-bytes 3000000] [--cepa PATH]
//! ```
//!
//! One line of JSON a figure, with its goal and whether it is held. Times are those of whole commands, with their start, their
//! handshake and their check at the end.
//!
//! - `loopback`: one file, each program in turn in every round; the ratio of a round is one value, and the middle of the rounds
//!   counts. The files lie in memory (`/dev/shm`) where there is one, so that no disk is measured. A program that is not
//!   installed is reported as skipped.
//! - `line`: a simulated line of 115,200 baud, in real time. First 100 kB without errors; then, where one bit in 100,000 is wrong, both
//!   ways, once a copy that nobody disturbs, once one whose client is killed (SIGKILL) when half of the file is there, and started again. What is counted is
//!   the file's bytes against what the line could have carried in all that time.
//!
//! | file | holds |
//! | --- | --- |
//! | `line` | the serial line |
//! | `loopback` | the programs side by side |
//! | `pair` | a server of files and its client |

mod line;
mod loopback;
mod pair;

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::Outcome;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    Loopback,
    Line,
}

#[derive(Args)]
pub(crate) struct Options {
    /// Only this part
    #[arg(long)]
    only: Option<Part>,
    /// MiB of the file in `loopback`
    #[arg(long, default_value_t = 1024)]
    mib: u64,
    /// Rounds of `loopback`
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Bytes of the file in `line`
    #[arg(long, default_value_t = 3_000_000)]
    line_bytes: u64,
    /// The tool; beside this program, unless given
    #[arg(long)]
    cepa: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> Outcome<()> {
    let cepa = match &options.cepa {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("cepa"),
    };
    let wanted = |part| options.only.is_none_or(|only| only == part);
    let runtime = tokio::runtime::Runtime::new()?;
    if wanted(Part::Loopback) {
        runtime.block_on(loopback::run(&cepa, options.mib, options.rounds))?;
    }
    if wanted(Part::Line) {
        runtime.block_on(line::run(&cepa, options.line_bytes))?;
    }
    runtime.shutdown_background();
    Ok(())
}
