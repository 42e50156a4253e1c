//! The text of a known-peers file: every line is kept as it was written, and only lines that are
//! changed are written anew.
//!
//! A person edits this file too. So comments, order, spacing and line ends stay, and a line that
//! can't be read is kept and reported with its number: dropping it would forget a peer, and the next
//! one who answers at its address would be taken for new.

use cepa_transports::text::quoted;
use rustls_pki_types::UnixTime;

use super::entry::{EntryError, KnownPeer, MAX_LINE, check_name, name_from};
use crate::identity::peer_id::PeerId;

/// The peers that are known, and the text that names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownPeers {
    lines: Vec<Line>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    /// As it was read or is to be written, its end included.
    raw: Vec<u8>,
    content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    /// Blank, or a comment.
    Nothing,
    Peer(KnownPeer),
    Damaged(EntryError),
}

/// A line that names no peer and is no comment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DamagedLine {
    /// Counted from 1.
    pub number: usize,
    /// What is wrong with it.
    pub problem: EntryError,
}

/// What can't be done to the list. Each text is one line and says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// A peer has that name.
    #[error("{name} is already the name of peer {id}: choose another name")]
    NameTaken {
        /// The name.
        name: String,
        /// Who has it.
        id: PeerId,
    },
    /// No peer has that name.
    #[error("no known peer is named {}", quoted(name))]
    NoSuchPeer {
        /// What was asked for.
        name: String,
    },
    /// The name, or another part of an entry, can't be written.
    #[error("{0}")]
    Entry(#[from] EntryError),
}

impl KnownPeers {
    /// Reads any bytes; lines that can't be understood are kept as [damaged](Self::damaged).
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let mut known = Self::default();
        for raw in text.split_inclusive(|byte| *byte == b'\n') {
            let mut content = read_line(raw);
            if let Content::Peer(peer) = &content
                && let Some(first) = known.line_of(&peer.name)
            {
                content = Content::Damaged(EntryError::SecondOfName {
                    name: peer.name.clone(),
                    first: first + 1,
                });
            }
            known.lines.push(Line {
                raw: raw.to_vec(),
                content,
            });
        }
        known
    }

    /// The text: what was parsed, with the changes that were made since.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.lines
            .iter()
            .flat_map(|line| &line.raw)
            .copied()
            .collect()
    }

    /// The peers, in the order of the file.
    pub fn peers(&self) -> impl Iterator<Item = &KnownPeer> {
        self.lines.iter().filter_map(|line| match &line.content {
            Content::Peer(peer) => Some(peer),
            _ => None,
        })
    }

    /// The lines that can't be understood.
    pub fn damaged(&self) -> impl Iterator<Item = DamagedLine> {
        let numbered = self.lines.iter().enumerate();
        numbered.filter_map(|(index, line)| match &line.content {
            Content::Damaged(problem) => Some(DamagedLine {
                number: index + 1,
                problem: problem.clone(),
            }),
            _ => None,
        })
    }

    /// The peer of that name.
    pub fn named(&self, name: &str) -> Option<&KnownPeer> {
        self.peers().find(|peer| peer.name == name)
    }

    /// The first peer that has this key now, or had it and may still use it.
    pub fn with_key(&self, id: PeerId, now: UnixTime) -> Option<&KnownPeer> {
        self.peers().find(|peer| peer.has_key(id, now))
    }

    /// The peers that were met at that place.
    pub fn at_place<'a>(&'a self, place: &'a str) -> impl Iterator<Item = &'a KnownPeer> {
        self.peers().filter(move |peer| peer.is_at(place))
    }

    /// Adds a peer at the end.
    pub fn add(&mut self, peer: KnownPeer) -> Result<(), EditError> {
        if let Some(other) = self.named(&peer.name) {
            return Err(EditError::NameTaken {
                name: peer.name,
                id: other.id,
            });
        }
        // A last line that somebody left without its end.
        if let Some(last) = self.lines.last_mut().filter(|l| !l.raw.ends_with(b"\n")) {
            last.raw.push(b'\n');
        }
        let raw = write_line(&peer, "\n", None)?;
        self.lines.push(Line {
            raw,
            content: Content::Peer(peer),
        });
        Ok(())
    }

    /// Takes a peer off the list.
    pub fn remove(&mut self, name: &str) -> Result<KnownPeer, EditError> {
        let missing = || EditError::NoSuchPeer { name: name.into() };
        let index = self.line_of(name).ok_or_else(missing)?;
        match self.lines.remove(index).content {
            Content::Peer(peer) => Ok(peer),
            _ => Err(missing()),
        }
    }

    /// Changes what is known of a peer; its line is written anew, its remark stays.
    pub fn change(
        &mut self,
        name: &str,
        change: impl FnOnce(&mut KnownPeer),
    ) -> Result<(), EditError> {
        let missing = || EditError::NoSuchPeer { name: name.into() };
        let index = self.line_of(name).ok_or_else(missing)?;
        let line = self.lines.get_mut(index).ok_or_else(missing)?;
        let Content::Peer(peer) = &line.content else {
            return Err(missing());
        };
        let mut changed = peer.clone();
        change(&mut changed);
        if changed == *peer {
            return Ok(());
        }
        let end = match line.raw.as_slice() {
            [.., b'\r', b'\n'] => "\r\n",
            [.., b'\n'] => "\n",
            _ => "",
        };
        let remark = remark(&line.raw);
        line.raw = write_line(&changed, end, remark.as_deref())?;
        line.content = Content::Peer(changed);
        Ok(())
    }

    /// Calls a peer something else.
    pub fn rename(&mut self, name: &str, new: &str) -> Result<(), EditError> {
        check_name(new)?;
        if let Some(other) = self.named(new) {
            return Err(EditError::NameTaken {
                name: new.into(),
                id: other.id,
            });
        }
        self.change(name, |peer| new.clone_into(&mut peer.name))
    }

    /// A name that nobody has yet, after the place where the peer was met.
    #[must_use]
    pub fn free_name(&self, place: &str) -> String {
        let base = name_from(place);
        if self.named(&base).is_none() {
            return base;
        }
        // One of so many and one more numbers is free.
        (2..=self.lines.len() + 2)
            .map(|number| format!("{base}-{number}"))
            .find(|name| self.named(name).is_none())
            .unwrap_or(base)
    }

    fn line_of(&self, name: &str) -> Option<usize> {
        self.lines
            .iter()
            .position(|line| matches!(&line.content, Content::Peer(peer) if peer.name == name))
    }
}

fn read_line(raw: &[u8]) -> Content {
    if raw.len() > MAX_LINE {
        return Content::Damaged(EntryError::TooLong);
    }
    let Ok(text) = std::str::from_utf8(raw) else {
        return Content::Damaged(EntryError::NotText);
    };
    let text = text.trim();
    if text.is_empty() || text.starts_with('#') {
        return Content::Nothing;
    }
    match KnownPeer::parse(text) {
        Ok((peer, _)) => Content::Peer(peer),
        Err(problem) => Content::Damaged(problem),
    }
}

/// A line that will be read as this peer again.
fn write_line(peer: &KnownPeer, end: &str, remark: Option<&str>) -> Result<Vec<u8>, EntryError> {
    let mut text = peer.to_string();
    if let Some(remark) = remark {
        text.push(' ');
        text.push_str(remark);
    }
    text.push_str(end);
    if text.len() > MAX_LINE {
        return Err(EntryError::TooLong);
    }
    Ok(text.into_bytes())
}

fn remark(raw: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(raw).ok()?.trim();
    let (_, remark) = KnownPeer::parse(text).ok()?;
    remark.map(str::to_owned)
}
