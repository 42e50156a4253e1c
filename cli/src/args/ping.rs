//! The command line of `cepa ping`: its words and their help.

use std::time::Duration;

use clap::Args;

use super::options::Looking;
use crate::values::DialTarget;

#[derive(Debug, Args)]
#[command(after_help = "\
It makes a session, as `cepa connect` does, and asks the peer again and again to
answer inside it; no service is needed. The time is that of the whole path:
relays, TLS and a serial line's link are in it.

Without -c it goes on until Ctrl-C. Then, or after N answers, a summary says how
many were answered, with the shortest, mean and longest time and the standard
deviation. Exit codes:
  0  at least one was answered, and the session was not lost
  6  the session was lost, or nothing was answered before Ctrl-C
  otherwise as in `cepa --help`, if there was no session")]
pub(crate) struct Ping {
    /// @NAME of a known peer or of a target in `config.toml` (`cepa config --help`), where the peer
    /// listens, or its own address (cepa://PEERID@HINT,HINT)
    #[arg(value_name = "ADDR")]
    pub(crate) address: DialTarget,
    /// Stop after N answers
    #[arg(short = 'c', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Time between two, such as 0.2; from 0.01 to 3600 seconds
    #[arg(short = 'i', long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    pub(crate) interval: Duration,
    /// Print a JSON object a line, the last one with the summary
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) looking: Looking,
}

/// More often would be a load and no measurement; more seldom is what nobody waits for.
const SHORTEST: f64 = 0.01;
const LONGEST: f64 = 3600.0;

fn interval(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (SHORTEST..=LONGEST).contains(&seconds) => {
            Ok(Duration::from_secs_f64(seconds))
        }
        _ => Err(format!(
            "\"{text}\" is not a number of seconds from {SHORTEST} to {LONGEST}"
        )),
    }
}
