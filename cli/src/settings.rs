//! What `config.toml` says (`settings_file.rs`): names for what is dialled, with the options that go with them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use cepa::node::{Hint, PeerAddr};

use crate::direct::DirectChoice;
use crate::words::{EscapeChar, Expected, ProxyChoice};

/// The file, read and judged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// Where a peer is looked for that has no address.
    pub(crate) relay: Option<PeerAddr>,
    /// Like `--proxy`.
    pub(crate) proxy: Option<ProxyChoice>,
    /// Like `--direct`.
    pub(crate) direct: Option<DirectChoice>,
    /// Like `--share`, for whatever is dialled.
    pub(crate) control: bool,
    pub(crate) targets: BTreeMap<String, Target>,
}

/// What a name stands for.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The line where it begins.
    pub(crate) line: usize,
    pub(crate) address: Address,
    pub(crate) service: Option<String>,
    pub(crate) options: Options,
}

/// Where it is.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    /// Where the known peer of this name is.
    Known,
    Hints(Vec<Hint>),
    Peer(PeerAddr),
}

/// What the command line would say otherwise.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) expect: Option<Expected>,
    pub(crate) trust: Option<Trusting>,
    pub(crate) ca: Option<String>,
    pub(crate) durable: Option<bool>,
    pub(crate) park: Option<Duration>,
    pub(crate) reconnect: bool,
    pub(crate) control: Option<bool>,
    pub(crate) local_hints: bool,
    pub(crate) identity: Option<PathBuf>,
    pub(crate) escape: Option<EscapeChar>,
    pub(crate) log: Option<PathBuf>,
}

/// `trust = …`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trusting {
    Any,
    New,
}

impl FromStr for Trusting {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "any" => Ok(Self::Any),
            "new" => Ok(Self::New),
            _ => Err("expected \"any\" (like --trust any) or \"new\" (like --trust-new)".into()),
        }
    }
}

/// Whether a line of the file begins with this key, whatever else there is: of a file that is wrong, or that this build does not read.
pub(crate) fn speaks_of(key: &str, text: &[u8]) -> bool {
    let mut lines = text.split(|byte| *byte == b'\n');
    lines.any(|line| {
        let line = line.trim_ascii_start();
        let bare = line.strip_prefix(b"\"").or(line.strip_prefix(b"'"));
        bare.unwrap_or(line).starts_with(key.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_matters_only_if_it_may_speak_of_that() {
        for (text, speaks) in [
            ("", false),
            (
                "relay = \"cepa://x\"\n[targets.board]\naddress = \"tcp:h:1\"\n",
                false,
            ),
            ("# proxy\n", false),
            ("relay = 1\n  proxy = \"env\"\n", true),
            ("\"proxy\" = 1", true),
            ("'proxy' = 1", true),
        ] {
            assert_eq!(speaks_of("proxy", text.as_bytes()), speaks, "{text:?}");
        }
    }
}
