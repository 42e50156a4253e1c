//! One peer, one line: what is known of it, as a person reads and edits it.
//!
//! ```text
//! NAME PEERID [first=TIME] [how=WORD] [at=PLACE]… [was=PEERID@TIME]… [# remark]
//! server cd4… first=2026-11-25T15:40:12Z how=verified at=tcp:host:7000 at=exec:ssh%20host%20cepa
//! ```
//!
//! A line by hand needs no more than name and id. In a place, a space, a control character, `#` and
//! `%` are written as `%XX`. `was` is a key that the peer has replaced, and until when that one was
//! good; it stays on record after that time, since only so a second successor of the same key (a
//! fork) can be told from the first.
//!
//! A field that is not known makes the line a damaged one: it might have narrowed the trust.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use rustls_pki_types::UnixTime;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use cepa_transports::Endpoint;
use cepa_transports::endpoint::{Target, hidden};
use cepa_transports::text::{is_printable, quoted};

use crate::identity::peer_id::PeerId;

/// Longest name in bytes: it stands in messages and on command lines.
const MAX_NAME: usize = 64;
/// Longest line in bytes; a command line as a place is long, but not endless.
pub(super) const MAX_LINE: usize = 8192;
/// Replaced keys that are kept of one peer; the oldest go first.
const MAX_PREVIOUS: usize = 16;

/// A peer that is known by its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownPeer {
    pub(super) name: String,
    /// Its key.
    pub id: PeerId,
    /// When it was first met, to the second.
    pub first_seen: Option<UnixTime>,
    /// How it came to be trusted; none in a line that somebody wrote by hand.
    pub how: Option<Origin>,
    /// Where it was met: addresses.
    pub places: Vec<String>,
    /// The keys that it had before, the newest last.
    pub previous: Vec<Previous>,
}

/// A key that a peer has replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Previous {
    /// The old key.
    pub id: PeerId,
    /// Until when it is still good, to the second.
    pub until: UnixTime,
}

/// How a peer came to be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// Added by its id.
    Added,
    /// At first contact, by a person who was shown the id.
    Asked,
    /// At first contact, unseen, since the program was told to trust new peers.
    FirstUse,
    /// Its id was compared with what its owner sees.
    Verified,
    /// By an invitation that carried its id.
    Invited,
}

impl Origin {
    const ALL: [Self; 5] = [
        Self::Added,
        Self::Asked,
        Self::FirstUse,
        Self::Verified,
        Self::Invited,
    ];

    /// The word that stands for it in the file.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Asked => "asked",
            Self::FirstUse => "first-use",
            Self::Verified => "verified",
            Self::Invited => "invited",
        }
    }
}

impl KnownPeer {
    /// A peer of that name and key, of which nothing else is known.
    pub fn new(name: &str, id: PeerId) -> Result<Self, EntryError> {
        check_name(name)?;
        Ok(Self {
            name: name.to_owned(),
            id,
            first_seen: None,
            how: None,
            places: Vec::new(),
            previous: Vec::new(),
        })
    }

    /// What it is called here.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether this key is the peer's: the present one, or one before it whose time has not run out.
    #[must_use]
    pub fn has_key(&self, id: PeerId, now: UnixTime) -> bool {
        self.id == id
            || self
                .previous
                .iter()
                .any(|old| old.id == id && now <= old.until)
    }

    /// Notes where it was met. Among addresses that differ by their settings alone, the last counts.
    pub fn add_place(&mut self, place: &str) {
        let same = |known: &String| bare(known) == bare(place);
        match self.places.iter_mut().find(|known| same(known)) {
            Some(known) => place.clone_into(known),
            None => self.places.push(place.to_owned()),
        }
    }

    /// Whether it was met at this place, whatever the settings of an address.
    pub(super) fn is_at(&self, place: &str) -> bool {
        let place = bare(place);
        self.places.iter().any(|known| bare(known) == place)
    }

    /// Gives it another key; the one before is good until then.
    pub fn replace_key(&mut self, id: PeerId, until: UnixTime) {
        let old = Previous { id: self.id, until };
        self.previous.retain(|previous| previous.id != old.id);
        self.previous.push(old);
        let surplus = self.previous.len().saturating_sub(MAX_PREVIOUS);
        self.previous.drain(..surplus);
        self.id = id;
    }

    /// Reads a line; the remark at its end, if there is one, is given back as it stands.
    pub(super) fn parse(line: &str) -> Result<(Self, Option<&str>), EntryError> {
        let (fields, remark) = match line.find('#') {
            Some(at) => (line.get(..at).unwrap_or(line), line.get(at..)),
            None => (line, None),
        };
        let mut words = fields.split_ascii_whitespace();
        let name = words.next().ok_or(EntryError::NoName)?;
        let id = words.next().ok_or(EntryError::NoId)?;
        let id = id.parse().map_err(EntryError::Id)?;
        let mut peer = Self::new(name, id)?;
        for word in words {
            peer.read_field(word)?;
        }
        Ok((peer, remark))
    }

    fn read_field(&mut self, word: &str) -> Result<(), EntryError> {
        let bad = || EntryError::Field {
            word: shown(&hidden(word)),
        };
        let (key, value) = word.split_once('=').ok_or_else(bad)?;
        match key {
            "first" if self.first_seen.is_none() => {
                self.first_seen = Some(read_time(value).ok_or_else(bad)?);
            }
            "how" if self.how.is_none() => {
                let how = Origin::ALL.into_iter().find(|how| how.word() == value);
                self.how = Some(how.ok_or_else(bad)?);
            }
            "at" => self.places.push(unescape(value).ok_or_else(bad)?),
            "was" => {
                let (id, until) = value.split_once('@').ok_or_else(bad)?;
                self.previous.push(Previous {
                    id: id.parse().map_err(EntryError::Id)?,
                    until: read_time(until).ok_or_else(bad)?,
                });
            }
            _ => return Err(bad()),
        }
        Ok(())
    }
}

/// The line, without its end.
impl fmt::Display for KnownPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.id)?;
        if let Some(first) = self.first_seen {
            write!(f, " first={}", time_text(first))?;
        }
        if let Some(how) = self.how {
            write!(f, " how={}", how.word())?;
        }
        for place in &self.places {
            write!(f, " at={}", escape(place))?;
        }
        for old in &self.previous {
            write!(f, " was={}@{}", old.id, time_text(old.until))?;
        }
        Ok(())
    }
}

/// Why a line names no peer. Each text is one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// Nothing stands there.
    #[error("the name is missing")]
    NoName,
    /// A name that can't be one.
    #[error(
        "{} cannot be the name of a peer: use up to 64 of a-z, A-Z, 0-9, `.`, `_`, `@` and `-`, begin with a letter or digit, and avoid `any`, `known` and peer ids",
        quoted(name)
    )]
    Name {
        /// What was given.
        name: String,
    },
    /// A name alone.
    #[error("the peer id is missing after the name")]
    NoId,
    /// Something else where an id was due.
    #[error("{0}")]
    Id(crate::identity::PeerIdError),
    /// Neither first, how, at nor was; or a value that can't be read.
    #[error(
        "unknown field {}: expected first=TIME, how=WORD, at=PLACE or was=PEERID@TIME",
        quoted(word)
    )]
    Field {
        /// The beginning of it.
        word: String,
    },
    /// No text.
    #[error("it is not UTF-8")]
    NotText,
    /// More than a line can have.
    #[error("it is longer than 8192 bytes")]
    TooLong,
    /// The name was given before.
    #[error("line {first} already has the name {name}")]
    SecondOfName {
        /// The name.
        name: String,
        /// The line that has it, counted from 1.
        first: usize,
    },
}

/// Names stand on command lines beside ids, and in messages.
pub(super) fn check_name(name: &str) -> Result<(), EntryError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._@-".contains(c);
    let fine = name.len() <= MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(plain)
        && !matches!(name, "any" | "known")
        && name.parse::<PeerId>().is_err();
    if fine {
        Ok(())
    } else {
        Err(EntryError::Name { name: shown(name) })
    }
}

/// A name made of a place: what may stand in a name, and dashes for the rest.
pub(super) fn name_from(place: &str) -> String {
    let bare = bare(place);
    let place = bare.strip_prefix("tcp:").unwrap_or(&bare);
    let mut name = String::new();
    for c in place.chars() {
        if name.len() >= MAX_NAME / 2 {
            break;
        }
        if c.is_ascii_alphanumeric() || c == '.' {
            name.push(c);
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
    }
    let name = name.trim_start_matches('.').trim_end_matches(['-', '.']);
    if check_name(name).is_ok() {
        name.to_owned()
    } else {
        "peer".to_owned()
    }
}

fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

fn escape(place: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(place.len());
    for c in place.chars() {
        if c == '%' || c == '#' || c.is_whitespace() || !is_printable(c) {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                let _ = write!(out, "%{byte:02X}");
            }
        } else {
            out.push(c);
        }
    }
    out
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let (digits, after) = after.split_at_checked(2)?;
            if !digits.iter().all(u8::is_ascii_hexdigit) {
                return None;
            }
            let digits = std::str::from_utf8(digits).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = after;
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

/// RFC 3339, as the `time` crate reads it; times before 1970 are no times of ours.
fn read_time(text: &str) -> Option<UnixTime> {
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    let seconds = u64::try_from(at.unix_timestamp()).ok()?;
    Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
}

/// RFC 3339 in UTC, to the second. What lies past the year 9999 is written as its last second.
pub(super) fn time_text(time: UnixTime) -> String {
    const LAST: i64 = 253_402_300_799;
    let seconds = i64::try_from(time.as_secs()).unwrap_or(LAST).min(LAST);
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_else(|| "9999-12-31T23:59:59Z".to_owned())
}

/// The place that an address stands for: without its layers, and without the settings of its
/// transport. None where the address says nothing about who is there (`stdio:`, `fd:`, …).
#[must_use]
pub fn place_of(address: &Endpoint) -> Option<String> {
    match address.target() {
        Target::Exec { .. } => Some(address.target().to_string()),
        // A comma in the path itself is printed as %2C.
        Target::Tcp { .. }
        | Target::Ssh { .. }
        | Target::Ws { .. }
        | Target::Quic { .. }
        | Target::Unix { .. }
        | Target::Serial { .. }
        | Target::Rfc2217 { .. }
        | Target::Pty { .. } => {
            let text = address.target().to_string();
            Some(text.split(',').next().unwrap_or_default().to_owned())
        }
        _ => None,
    }
}

/// What two places are compared by: an address without its settings, any other text as it is.
fn bare(place: &str) -> Cow<'_, str> {
    let address = place.parse().ok();
    match address.as_ref().and_then(place_of) {
        Some(bare) => bare.into(),
        None => place.into(),
    }
}
