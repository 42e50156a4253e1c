//! Whether this process looks for direct paths to peers that are reached by a relay: a word of `--direct`, of `config.toml`, or of a
//! node's file.

use std::str::FromStr;
use std::sync::OnceLock;

/// A word of `--direct`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DirectChoice {
    Yes,
    /// Without addresses of private networks.
    Public,
    No,
}

impl DirectChoice {
    /// All that there are.
    pub(crate) const WORDS: [&str; 3] = ["yes", "public", "no"];
}

impl FromStr for DirectChoice {
    type Err = &'static str;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "yes" => Ok(Self::Yes),
            "public" => Ok(Self::Public),
            "no" => Ok(Self::No),
            _ => Err("expected yes, public or no"),
        }
    }
}

/// What the command line says; and what `config.toml` does.
static SAID: OnceLock<[Option<DirectChoice>; 2]> = OnceLock::new();

/// To be called once, before a node is made.
pub(crate) fn decide(command_line: Option<DirectChoice>, settings: Option<DirectChoice>) {
    let _ = SAID.set([command_line, settings]);
}

/// What holds. A node's own file counts more than `config.toml`, and less than the command line.
pub(crate) fn choice(of_node: Option<DirectChoice>) -> DirectChoice {
    let said = SAID.get().copied().unwrap_or_default();
    decided(said, of_node)
}

fn decided(
    [command_line, settings]: [Option<DirectChoice>; 2],
    of_node: Option<DirectChoice>,
) -> DirectChoice {
    let all = [command_line, of_node, settings];
    all.into_iter()
        .flatten()
        .next()
        .unwrap_or(DirectChoice::Yes)
}

#[cfg(test)]
mod tests {
    use super::DirectChoice::{No, Public, Yes};
    use super::*;

    #[test]
    fn what_is_nearer_counts_more() {
        assert_eq!(decided([None, None], None), Yes);
        assert_eq!(decided([None, Some(No)], None), No);
        assert_eq!(decided([None, Some(No)], Some(Public)), Public);
        assert_eq!(decided([Some(Yes), Some(No)], Some(Public)), Yes);
        for (word, choice) in [("yes", Yes), ("public", Public), ("no", No)] {
            assert_eq!(word.parse(), Ok(choice));
        }
        assert!("maybe".parse::<DirectChoice>().is_err());
    }
}
