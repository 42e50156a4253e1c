//! Whether this process looks for direct paths to peers that are reached by a relay: a word of `--direct`, of `config.toml`, or of a
//! node's file.

use std::str::FromStr;
use std::sync::OnceLock;

/// What `--direct` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DirectChoice {
    Yes(Means),
    No,
}

/// By what means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Means {
    /// Addresses of private networks are told and tried.
    pub(crate) private: bool,
    /// Routers are asked to map a port.
    pub(crate) map: bool,
}

impl DirectChoice {
    /// All that there are.
    pub(crate) const WORDS: [&str; 5] = ["yes", "public", "unmapped", "public,unmapped", "no"];
}

impl FromStr for DirectChoice {
    type Err = &'static str;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let yes = |private, map| Ok(Self::Yes(Means { private, map }));
        match word {
            "yes" => yes(true, true),
            "public" => yes(false, true),
            "unmapped" => yes(true, false),
            "public,unmapped" => yes(false, false),
            "no" => Ok(Self::No),
            _ => Err("expected yes, public, unmapped, public,unmapped or no"),
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
        .unwrap_or(DirectChoice::Yes(Means {
            private: true,
            map: true,
        }))
}

#[cfg(test)]
mod tests {
    use super::DirectChoice::No;
    use super::*;

    #[test]
    fn what_is_nearer_counts_more() {
        let yes = |private, map| DirectChoice::Yes(Means { private, map });
        let public = yes(false, true);
        assert_eq!(decided([None, None], None), yes(true, true));
        assert_eq!(decided([None, Some(No)], None), No);
        assert_eq!(decided([None, Some(No)], Some(public)), public);
        assert_eq!(decided([Some(public), Some(No)], Some(No)), public);
        for (word, choice) in [
            ("yes", yes(true, true)),
            ("public", public),
            ("unmapped", yes(true, false)),
            ("public,unmapped", yes(false, false)),
            ("no", No),
        ] {
            assert_eq!(word.parse(), Ok(choice));
        }
        assert!("maybe".parse::<DirectChoice>().is_err());
    }
}
