//! Words that a command line and the files of settings have in common: whom to expect, how to leave a console, and the
//! nearest to a word that is misspelt.

use std::str::FromStr;

use cepa::identity::PeerId;
use cepa::transports::Proxies;
use cepa::transports::endpoint::Proxy;
use clap::ValueEnum;
use strsim::osa_distance;

use crate::advice::with_advice;
use crate::exit::{Code, Failure};
use crate::folder;

/// How many an id has.
pub(crate) const WORDS: usize = 16;

/// A peer's id, or the sixteen words that `cepa id show --words` prints of it.
pub(crate) fn peer_id(text: &str) -> Result<PeerId, String> {
    let words = text.split_whitespace().count();
    if words < 2 {
        return text.trim().parse().map_err(|e| with_advice(&e));
    }
    PeerId::from_words(text).ok_or_else(|| match words {
        WORDS => "not the words of a peer id; `cepa id show --words` there prints them".to_owned(),
        n => format!("an id has {WORDS} words, but you gave {n}"),
    })
}

/// A known peer's name where its id was expected.
pub(crate) fn meant(word: &str) -> Option<String> {
    let known = folder::known_peers().ok()?.read().ok()?;
    known
        .named(word)
        .map(|_| format!("for the known peer of that name, give @{word}"))
}

/// A word of `--proxy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProxyChoice {
    None,
    /// Those of the environment.
    Env,
    One(Proxy),
}

impl FromStr for ProxyChoice {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "none" => Ok(Self::None),
            "env" => Ok(Self::Env),
            url if url.contains("://") => Proxy::from_variable(url).map(Self::One),
            _ => Err("expected env, none or a proxy, as in socks5h://127.0.0.1:1080".into()),
        }
    }
}

impl ProxyChoice {
    pub(crate) fn proxies(self) -> Result<Option<Proxies>, Failure> {
        match self {
            Self::None => Ok(None),
            Self::One(proxy) => Ok(Some(Proxies::always(proxy))),
            Self::Env => Proxies::of_environment(|name| std::env::var(name).ok())
                .map_err(|why| Failure::new(Code::Usage, format!("--proxy env: {why}"))),
        }
    }
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
        peer_id(word).map(Self::Peer).map_err(|e| {
            let or = meant(word).unwrap_or_else(|| "or @NAME for a known peer".to_owned());
            format!("{e} ({or})")
        })
    }
}

/// The word of `--trust`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TrustWord {
    Any,
}

/// The word of `--escape`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EscapeChar(Option<u8>);

impl EscapeChar {
    /// The character; without one everything typed is for the service.
    pub(crate) fn byte(self) -> Option<u8> {
        self.0
    }
}

impl FromStr for EscapeChar {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word.as_bytes() {
            _ if word == "none" => Ok(Self(None)),
            [byte] if byte.is_ascii_graphic() => Ok(Self(Some(*byte))),
            // A line end would begin a line, and not stand at its start.
            [b'^', key]
                if matches!(key.to_ascii_uppercase(), b'@'..=b'_') && !b"MmJj".contains(key) =>
            {
                Ok(Self(Some(key.to_ascii_uppercase() & 0x1f)))
            }
            _ => Err(
                "expected one printable ASCII character, a control character as in ^], or `none`"
                    .into(),
            ),
        }
    }
}

/// An escape character as it is typed: `~` or `^]`.
pub(crate) fn key(byte: u8) -> String {
    if byte < 0x20 {
        format!("^{}", char::from(byte | 0x40))
    } else {
        char::from(byte).to_string()
    }
}

/// The candidate that was meant, if one is near enough: at most two edits, fewer for short words, or a beginning of it.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // A long word is no misspelling, and the distance costs time in both lengths.
    if word.is_empty() || word.len() > 64 {
        return None;
    }
    let lower = word.to_lowercase();
    let distances = candidates.into_iter().map(|candidate| {
        let other = candidate.to_lowercase();
        let near = osa_distance(&lower, &other);
        let begins = lower.len() >= 2 && other.starts_with(&lower);
        (near, begins, candidate)
    });
    distances
        .filter(|(near, begins, candidate)| *begins || (*near <= 2 && 2 * near <= candidate.len()))
        .min_by_key(|(near, ..)| *near)
        .map(|(_, _, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_near_is_suggested_and_nothing_else() {
        let all = ["board", "ann", "bob"];
        for (word, meant) in [
            ("bord", Some("board")),
            ("Board", Some("board")),
            ("ana", Some("ann")),
            ("bo", Some("bob")),
            ("phone", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, all), meant, "{word}");
        }
    }

    #[test]
    fn an_id_is_given_by_its_characters_or_its_words() {
        let id = PeerId::from_spki(b"x");
        assert_eq!(peer_id(&id.to_string()), Ok(id));
        assert_eq!(peer_id(&id.words()), Ok(id));
        assert_eq!(id.words().parse(), Ok(Expected::Peer(id)));
        let few = peer_id("babab babab").unwrap_err();
        assert!(few.contains("16 words, but you gave 2"), "{few}");
        let wrong = peer_id(&["cepac"; 16].join(" ")).unwrap_err();
        assert!(wrong.contains("id show --words"), "{wrong}");
    }
}
