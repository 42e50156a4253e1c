//! The messages of `cepa cp`, as bytes: what docs/PROTOCOL.md says under "Files".
//!
//! A message is one byte that says which it is, and its fields. Numbers have 7 bits a byte, the low ones first (LEB128), so
//! that most of them are one to three bytes long; a text has its length in front. The bytes of a file are the one thing that
//! may be long: [`Decoder`] gives them on in the pieces in which they came, and holds nothing but the one message that is not whole yet.

use std::fmt;

use bytes::{Buf as _, Bytes};

/// What this program speaks.
pub(crate) const VERSION: u8 = 1;

/// Longest name of a file or folder, as the systems have it.
pub(crate) const NAME_MAX: usize = 255;

/// Longest path that a request may name, as Linux has it.
pub(crate) const PATH_MAX: usize = 4095;

/// Longest text for a person.
pub(crate) const TEXT_MAX: usize = 4096 + 256;

/// Most bytes of all the paths of a request.
pub(crate) const PATHS_MAX: usize = 64 * 1024;

/// Longest message, the bytes of a file left out.
const MESSAGE_MAX: usize = PATHS_MAX + 64;

/// A BLAKE3 hash.
pub(crate) type Hash = [u8; 32];

/// What a file or folder has beside its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Meta {
    /// The permissions, in 9 bits: those for setuid and the like stay where they are.
    pub(crate) mode: u16,
    /// Time of the last change, in seconds since 1970.
    pub(crate) seconds: i64,
    /// And nanoseconds.
    pub(crate) nanos: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// Send me these.
    Get { totals: bool, paths: Vec<Vec<u8>> },
    /// I send you something for there; `several`: it has to be a folder.
    Put { several: bool, to: Vec<u8> },

    /// A folder, in which all is that comes before its `Up`.
    Folder { name: Vec<u8>, meta: Meta },
    /// The end of a folder.
    Up,
    /// A file, whose bytes come when they were asked for.
    File {
        name: Vec<u8>,
        size: u64,
        meta: Meta,
    },
    /// The bytes of the next file come, from here on.
    Start { offset: u64 },
    /// So many bytes of a file stand behind this.
    Data { len: u64 },
    /// The end of a file.
    End { hash: Hash },
    /// The file broke off.
    Stop { why: String },
    /// There is so much in all.
    Total { files: u64, bytes: u64 },
    /// That was all.
    Done,

    /// Send the next file from its beginning.
    Want,
    /// So much of the next file is here already.
    Have { size: u64, hash: Hash },
    /// The next file is not wanted.
    Refused { why: String },
    /// A file is in its place.
    Stored,
    /// A file is not.
    Failed { why: String },
    /// So many bytes of files have arrived in all.
    Got { bytes: u64 },

    /// Something was left out.
    Problem { text: String, is_error: bool },
    /// The whole transfer ends here.
    Error { why: String },
}

const GET: u8 = 0x01;
const PUT: u8 = 0x02;
const FOLDER: u8 = 0x10;
const UP: u8 = 0x11;
const FILE: u8 = 0x12;
const START: u8 = 0x13;
const DATA: u8 = 0x14;
const END: u8 = 0x15;
const STOP: u8 = 0x16;
const TOTAL: u8 = 0x17;
const DONE: u8 = 0x18;
const WANT: u8 = 0x20;
const HAVE: u8 = 0x21;
const REFUSED: u8 = 0x22;
const STORED: u8 = 0x23;
const FAILED: u8 = 0x24;
const GOT: u8 = 0x25;
const WARNING: u8 = 0x30;
const PROBLEM: u8 = 0x31;
const ERROR: u8 = 0x32;

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WireError {
    /// Of another version.
    Version(u8),
    Unknown(u8),
    /// A number of more than 64 bits, or a field beyond its bound.
    TooLarge(&'static str),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(found) => write!(
                f,
                "the peer speaks version {found} of the protocol for files, and this program {VERSION}; use the same cepa at both ends"
            ),
            Self::Unknown(kind) => write!(f, "the peer sent an unknown message {kind:#04x}"),
            Self::TooLarge(what) => write!(f, "the peer sent {what} that is too long"),
        }
    }
}

fn number(out: &mut Vec<u8>, mut n: u64) {
    loop {
        let low = (n & 0x7f) as u8;
        n >>= 7;
        if n == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn meta(out: &mut Vec<u8>, meta: Meta) {
    number(out, u64::from(meta.mode));
    // Times before 1970 are odd numbers, so that all others stay short.
    number(
        out,
        ((meta.seconds << 1) ^ (meta.seconds >> 63)).cast_unsigned(),
    );
    number(out, u64::from(meta.nanos));
}

/// At most so many bytes, whole characters.
fn shortened(text: &str) -> &str {
    let mut end = TEXT_MAX.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

impl Message {
    /// Appends its bytes.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let text = |out: &mut Vec<u8>, kind, why: &str| {
            out.push(kind);
            bytes(out, shortened(why).as_bytes());
        };
        match self {
            Self::Get { totals, paths } => {
                out.extend_from_slice(&[GET, VERSION, u8::from(*totals)]);
                number(out, paths.len() as u64);
                for path in paths {
                    bytes(out, path);
                }
            }
            Self::Put { several, to } => {
                out.extend_from_slice(&[PUT, VERSION, u8::from(*several)]);
                bytes(out, to);
            }
            Self::Folder { name, meta: m } => {
                out.push(FOLDER);
                bytes(out, name);
                meta(out, *m);
            }
            Self::Up => out.push(UP),
            Self::File {
                name,
                size,
                meta: m,
            } => {
                out.push(FILE);
                bytes(out, name);
                meta(out, *m);
                number(out, *size);
            }
            Self::Start { offset } => {
                out.push(START);
                number(out, *offset);
            }
            Self::Data { len } => {
                out.push(DATA);
                number(out, *len);
            }
            Self::End { hash } => {
                out.push(END);
                out.extend_from_slice(hash);
            }
            Self::Stop { why } => text(out, STOP, why),
            Self::Total { files, bytes } => {
                out.push(TOTAL);
                number(out, *files);
                number(out, *bytes);
            }
            Self::Done => out.push(DONE),
            Self::Want => out.push(WANT),
            Self::Have { size, hash } => {
                out.push(HAVE);
                number(out, *size);
                out.extend_from_slice(hash);
            }
            Self::Refused { why } => text(out, REFUSED, why),
            Self::Stored => out.push(STORED),
            Self::Failed { why } => text(out, FAILED, why),
            Self::Got { bytes } => {
                out.push(GOT);
                number(out, *bytes);
            }
            Self::Problem {
                text: why,
                is_error,
            } => {
                text(out, if *is_error { PROBLEM } else { WARNING }, why);
            }
            Self::Error { why } => text(out, ERROR, why),
        }
    }
}

/// Why there is no field: there are not enough bytes yet, or it can't become one.
enum Short {
    More,
    Wrong(WireError),
}

/// Reads the fields of one message.
struct Fields<'a> {
    left: &'a [u8],
}

impl<'a> Fields<'a> {
    fn byte(&mut self) -> Result<u8, Short> {
        let (first, rest) = self.left.split_first().ok_or(Short::More)?;
        self.left = rest;
        Ok(*first)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Short> {
        let (taken, rest) = self.left.split_at_checked(len).ok_or(Short::More)?;
        self.left = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u64, Short> {
        let mut n = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            n |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(n);
            }
        }
        Err(Short::Wrong(WireError::TooLarge("a number")))
    }

    fn small<T: TryFrom<u64>>(&mut self, what: &'static str) -> Result<T, Short> {
        let n = self.number()?;
        T::try_from(n).map_err(|_| Short::Wrong(WireError::TooLarge(what)))
    }

    /// The bound is held against the length, before any of it has come.
    fn bytes(&mut self, most: usize, what: &'static str) -> Result<&'a [u8], Short> {
        let len: usize = self.small(what)?;
        if len > most {
            return Err(Short::Wrong(WireError::TooLarge(what)));
        }
        self.take(len)
    }

    fn text(&mut self) -> Result<String, Short> {
        let text = self.bytes(TEXT_MAX, "a text")?;
        // What stands for bytes that are no text is longer than those.
        Ok(shortened(&String::from_utf8_lossy(text)).to_owned())
    }

    fn hash(&mut self) -> Result<Hash, Short> {
        let hash = self.take(32)?;
        hash.try_into().map_err(|_| Short::More)
    }

    fn meta(&mut self) -> Result<Meta, Short> {
        let mode: u16 = self.small("a mode")?;
        let seconds = self.number()?;
        let nanos: u32 = self.small("a time")?;
        let sign = (seconds & 1).cast_signed().wrapping_neg();
        Ok(Meta {
            mode: mode & 0o777,
            seconds: (seconds >> 1).cast_signed() ^ sign,
            nanos: nanos.min(999_999_999),
        })
    }

    fn flag(&mut self) -> Result<bool, Short> {
        let version = self.byte()?;
        if version != VERSION {
            return Err(Short::Wrong(WireError::Version(version)));
        }
        self.byte().map(|flags| flags & 1 == 1)
    }

    fn message(&mut self) -> Result<Message, Short> {
        let kind = self.byte()?;
        Ok(match kind {
            GET => {
                let totals = self.flag()?;
                let count: usize = self.small("a list")?;
                let (mut paths, mut size) = (Vec::new(), 0);
                for _ in 0..count {
                    let path = self.bytes(PATH_MAX, "a path")?;
                    // An empty path costs a byte on the wire, and more here.
                    size += path.len() + 32;
                    if size > PATHS_MAX {
                        return Err(Short::Wrong(WireError::TooLarge("a list of paths")));
                    }
                    paths.push(path.to_vec());
                }
                Message::Get { totals, paths }
            }
            PUT => Message::Put {
                several: self.flag()?,
                to: self.bytes(PATH_MAX, "a path")?.to_vec(),
            },
            FOLDER => Message::Folder {
                name: self.bytes(NAME_MAX, "a name")?.to_vec(),
                meta: self.meta()?,
            },
            UP => Message::Up,
            FILE => Message::File {
                name: self.bytes(NAME_MAX, "a name")?.to_vec(),
                meta: self.meta()?,
                size: self.number()?,
            },
            START => Message::Start {
                offset: self.number()?,
            },
            DATA => Message::Data {
                len: self.number()?,
            },
            END => Message::End { hash: self.hash()? },
            STOP => Message::Stop { why: self.text()? },
            TOTAL => Message::Total {
                files: self.number()?,
                bytes: self.number()?,
            },
            DONE => Message::Done,
            WANT => Message::Want,
            HAVE => Message::Have {
                size: self.number()?,
                hash: self.hash()?,
            },
            REFUSED => Message::Refused { why: self.text()? },
            STORED => Message::Stored,
            FAILED => Message::Failed { why: self.text()? },
            GOT => Message::Got {
                bytes: self.number()?,
            },
            WARNING | PROBLEM => Message::Problem {
                text: self.text()?,
                is_error: kind == PROBLEM,
            },
            ERROR => Message::Error { why: self.text()? },
            kind => return Err(Short::Wrong(WireError::Unknown(kind))),
        })
    }
}

/// What a decoder gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Message(Message),
    /// Bytes of a file, behind a [`Message::Data`]; never none.
    Bytes(Bytes),
}

/// Makes messages of the bytes of the other end.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    input: Bytes,
    /// The beginning of a message that is not whole.
    held: Vec<u8>,
    /// So many bytes of a file are still to come.
    data: u64,
}

impl Decoder {
    /// More bytes, once [`next`](Self::next) has given `None`.
    pub(crate) fn feed(&mut self, input: Bytes) {
        debug_assert!(self.input.is_empty(), "what came before is taken first");
        self.input = input;
    }

    /// The next message, or bytes of a file; `None`: there is no more until more is fed.
    pub(crate) fn next(&mut self) -> Result<Option<Item>, WireError> {
        if self.input.is_empty() {
            return Ok(None);
        }
        if self.data > 0 {
            let len = usize::try_from(self.data).unwrap_or(usize::MAX);
            let piece = self.input.split_to(len.min(self.input.len()));
            self.data -= piece.len() as u64;
            return Ok(Some(Item::Bytes(piece)));
        }
        let before = self.held.len();
        let whole = if before == 0 {
            decode(&self.input)?
        } else {
            let room = MESSAGE_MAX.saturating_sub(before).min(self.input.len());
            self.held
                .extend_from_slice(self.input.get(..room).unwrap_or_default());
            decode(&self.held)?
        };
        let Some((message, len)) = whole else {
            if before == 0 {
                self.held.extend_from_slice(&self.input);
            }
            self.input.clear();
            if self.held.len() >= MESSAGE_MAX {
                return Err(WireError::TooLarge("a message"));
            }
            return Ok(None);
        };
        self.input.advance(len - before);
        self.held.clear();
        if let Message::Data { len } = message {
            self.data = len;
        }
        Ok(Some(Item::Message(message)))
    }
}

/// The message that these bytes begin with, and how long it is; `None`: it is not whole.
fn decode(input: &[u8]) -> Result<Option<(Message, usize)>, WireError> {
    let mut fields = Fields { left: input };
    match fields.message() {
        Ok(message) => Ok(Some((message, input.len() - fields.left.len()))),
        Err(Short::More) => Ok(None),
        Err(Short::Wrong(e)) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..=NAME_MAX)
    }

    fn meta() -> impl Strategy<Value = Meta> {
        (0..=0o777u16, any::<i64>(), 0..1_000_000_000u32).prop_map(|(mode, seconds, nanos)| Meta {
            mode,
            seconds,
            nanos,
        })
    }

    fn message() -> impl Strategy<Value = Message> {
        prop_oneof![
            (any::<bool>(), prop::collection::vec(name(), 0..5))
                .prop_map(|(totals, paths)| Message::Get { totals, paths }),
            (any::<bool>(), name()).prop_map(|(several, to)| Message::Put { several, to }),
            (name(), meta()).prop_map(|(name, meta)| Message::Folder { name, meta }),
            Just(Message::Up),
            (name(), any::<u64>(), meta()).prop_map(|(name, size, meta)| Message::File {
                name,
                size,
                meta
            }),
            any::<u64>().prop_map(|offset| Message::Start { offset }),
            any::<[u8; 32]>().prop_map(|hash| Message::End { hash }),
            "\\PC{0,40}".prop_map(|why| Message::Stop { why }),
            any::<(u64, u64)>().prop_map(|(files, bytes)| Message::Total { files, bytes }),
            Just(Message::Done),
            Just(Message::Want),
            any::<(u64, [u8; 32])>().prop_map(|(size, hash)| Message::Have { size, hash }),
            "\\PC{0,40}".prop_map(|why| Message::Refused { why }),
            Just(Message::Stored),
            "\\PC{0,40}".prop_map(|why| Message::Failed { why }),
            any::<u64>().prop_map(|bytes| Message::Got { bytes }),
            ("\\PC{0,40}", any::<bool>())
                .prop_map(|(text, is_error)| Message::Problem { text, is_error }),
            "\\PC{0,40}".prop_map(|why| Message::Error { why }),
        ]
    }

    /// Messages, and now and then the bytes of a file.
    fn items() -> impl Strategy<Value = Vec<Result<Message, Vec<u8>>>> {
        let data = prop::collection::vec(any::<u8>(), 0..300);
        let item = prop_oneof![4 => message().prop_map(Ok), 1 => data.prop_map(Err)];
        prop::collection::vec(item, 0..12)
    }

    /// What a decoder makes of pieces, the bytes of one file as one.
    fn decoded(pieces: &[&[u8]]) -> Result<Vec<Result<Message, Vec<u8>>>, WireError> {
        let (mut decoder, mut all) = (Decoder::default(), Vec::new());
        for piece in pieces {
            decoder.feed(Bytes::copy_from_slice(piece));
            while let Some(item) = decoder.next()? {
                match (item, all.last_mut()) {
                    (Item::Message(Message::Data { .. }), _) => all.push(Err(Vec::new())),
                    (Item::Message(message), _) => all.push(Ok(message)),
                    (Item::Bytes(more), Some(Err(data))) => data.extend_from_slice(&more),
                    (Item::Bytes(_), _) => panic!("bytes of no file"),
                }
            }
            assert!(decoder.held.len() < MESSAGE_MAX);
        }
        Ok(all)
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_wherever_it_is_cut(items in items(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8)) {
            let mut wire = Vec::new();
            for item in &items {
                match item {
                    Ok(message) => message.encode(&mut wire),
                    Err(data) => {
                        Message::Data { len: data.len() as u64 }.encode(&mut wire);
                        wire.extend_from_slice(data);
                    }
                }
            }
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(wire.len() + 1)).collect();
            at.extend([0, wire.len()]);
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|at| &wire[at[0]..at[1]]).collect();
            prop_assert_eq!(decoded(&pieces).unwrap(), items);
        }

        #[test]
        fn any_bytes_are_messages_or_an_error_and_little_is_held(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let _ = decoded(&[&bytes]);
            let pieces: Vec<&[u8]> = bytes.chunks(3).collect();
            let _ = decoded(&pieces);
        }
    }

    #[test]
    fn a_length_beyond_its_bound_is_refused_before_its_bytes_have_come() {
        for bytes in [
            &[FILE, 0x80, 0x02][..],
            &[PUT, VERSION, 0, 0x80, 0x20],
            &[ERROR, 0x80, 0x80, 0x01],
            &[
                GOT, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02,
            ],
        ] {
            assert!(
                matches!(decode(bytes), Err(WireError::TooLarge(_))),
                "{bytes:?}"
            );
        }
        // Many empty paths.
        let mut list = vec![GET, VERSION, 0, 0x80, 0x80, 0x04];
        list.resize(10_000, 0);
        assert!(matches!(decode(&list), Err(WireError::TooLarge(_))));
        assert_eq!(decode(&[PUT, 2, 0, 0]), Err(WireError::Version(2)));
        assert_eq!(decode(&[0x7f]), Err(WireError::Unknown(0x7f)));
    }

    #[test]
    fn the_example_of_the_protocols_document_is_what_is_sent() {
        let meta = Meta {
            mode: 0o644,
            seconds: 1_700_000_000,
            nanos: 0,
        };
        let hash = *blake3::hash(b"hello").as_bytes();
        let sent = [
            Message::Put {
                several: false,
                to: b"up/".to_vec(),
            },
            Message::File {
                name: b"fw.bin".to_vec(),
                size: 5,
                meta,
            },
            Message::Start { offset: 0 },
            Message::Data { len: 5 },
            Message::End { hash },
        ];
        let document = include_str!("../../../docs/PROTOCOL.md");
        let flat: String = document.split_whitespace().collect();
        for message in sent {
            let mut wire = Vec::new();
            message.encode(&mut wire);
            let hex = wire
                .iter()
                .fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
            assert!(flat.contains(&hex), "{message:?}: {hex}");
        }
    }
}
