//! The messages that pass a membrane: how a reference is recognised in them, and exchanged for another. No IO but the
//! two functions that send and receive one.
//!
//! A stream behind a membrane carries messages, each two bytes of length and one CBOR item (RFC 8949). A reference in
//! it, at any depth, is an introduction as a byte string under the tag [`REFERENCE_TAG`]. All else is handed on as it
//! came, to the bit.
//!
//! An introduction that stands there without the tag (its text in a string, its bytes in a byte string) would pass
//! unseen, so such a message is refused; so are strings in several pieces, which could hide one. Who means to
//! smuggle one can do it all the same, in any coding that this file does not know.

use std::io;

use minicbor::data::{Tag, Type};
use minicbor::{Decoder, Encoder};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::protocols::introduction::{Flaw, Introduction};

/// The tag of a reference: `cepa` in ASCII, from the range that is free for use.
pub const REFERENCE_TAG: u64 = 0x6365_7061;
/// Longest message in bytes: what its two bytes of length can say.
pub const MAX_MESSAGE: usize = u16::MAX as usize;
/// Arrays, maps and tags inside of each other.
const MAX_DEPTH: usize = 32;
/// Begins an introduction as text.
const TEXT: &str = "cepa-introduction:";

/// What is wrong with a message. Each text is one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageFlaw {
    /// It is not one CBOR item.
    #[error("a message that is not one CBOR item ({0})")]
    Malformed(String),
    /// Arrays and maps in too many others.
    #[error("a message with arrays and maps nested more than {MAX_DEPTH} deep")]
    TooDeep,
    /// A string in several pieces.
    #[error("a message with a string of indefinite length: send strings in one piece")]
    Pieces,
    /// Longer than its length can say.
    #[error("a message of {found} bytes, at most {MAX_MESSAGE} are allowed")]
    TooLong {
        /// Bytes found.
        found: usize,
    },
    /// A reference that is not marked as one.
    #[error("a message with an introduction outside of the tag {REFERENCE_TAG}")]
    Loose,
    /// What has the tag is no introduction.
    #[error("a message with an invalid reference: {0}")]
    Reference(#[source] Flaw),
}

fn malformed(error: &impl std::fmt::Display) -> MessageFlaw {
    MessageFlaw::Malformed(error.to_string())
}

/// An introduction as an item of a message.
#[must_use]
pub fn reference(introduction: &Introduction) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new());
    let bytes = introduction.to_bytes();
    // Writing into a `Vec` can not fail.
    let written = encoder
        .tag(Tag::new(REFERENCE_TAG))
        .map(|it| it.bytes(&bytes).map(drop));
    debug_assert!(matches!(written, Ok(Ok(()))), "a vector takes all");
    encoder.into_writer()
}

/// The references in a message, in their order.
///
/// # Errors
/// [`MessageFlaw`], as a membrane would refuse it.
pub fn references(message: &[u8]) -> Result<Vec<Introduction>, MessageFlaw> {
    let mut found = Vec::new();
    exchange(message, |it| {
        found.push(it.clone());
        Ok::<_, MessageFlaw>(it)
    })?;
    Ok(found)
}

/// Puts another reference in the place of each.
pub(super) fn exchange<E: From<MessageFlaw>>(
    message: &[u8],
    other: impl FnMut(Introduction) -> Result<Introduction, E>,
) -> Result<Vec<u8>, E> {
    let mut walk = Walk {
        message,
        input: Decoder::new(message),
        done: 0,
        output: Vec::with_capacity(message.len()),
        other,
    };
    walk.item(0)?;
    if walk.input.position() != message.len() {
        return Err(malformed(&"bytes behind it").into());
    }
    walk.copy(message.len());
    let found = walk.output.len();
    if found > MAX_MESSAGE {
        return Err(MessageFlaw::TooLong { found }.into());
    }
    Ok(walk.output)
}

struct Walk<'a, F> {
    message: &'a [u8],
    input: Decoder<'a>,
    /// How much of the message is in the output already.
    done: usize,
    output: Vec<u8>,
    other: F,
}

impl<F> Walk<'_, F> {
    fn copy(&mut self, end: usize) {
        let part = self.message.get(self.done..end);
        self.output.extend(part.unwrap_or_default());
        self.done = end;
    }

    fn item<E: From<MessageFlaw>>(&mut self, depth: usize) -> Result<(), E>
    where
        F: FnMut(Introduction) -> Result<Introduction, E>,
    {
        if depth > MAX_DEPTH {
            return Err(MessageFlaw::TooDeep.into());
        }
        let wrong = |e: minicbor::decode::Error| malformed(&e);
        match self.input.datatype().map_err(wrong)? {
            Type::Tag => {
                let begin = self.input.position();
                if self.input.tag().map_err(wrong)? != Tag::new(REFERENCE_TAG) {
                    return self.item(depth + 1);
                }
                let bytes = self.input.bytes().map_err(wrong)?;
                let it = Introduction::from_bytes(bytes).map_err(MessageFlaw::Reference)?;
                let other = (self.other)(it)?;
                self.copy(begin);
                self.output.extend(reference(&other));
                self.done = self.input.position();
            }
            Type::Array | Type::ArrayIndef => {
                let count = self.input.array().map_err(wrong)?;
                self.items(count, depth)?;
            }
            Type::Map | Type::MapIndef => {
                let count = self.input.map().map_err(wrong)?;
                // More than there can be ends where the message ends.
                self.items(count.map(|pairs| pairs.saturating_mul(2)), depth)?;
            }
            Type::Bytes => {
                let bytes = self.input.bytes().map_err(wrong)?;
                if Introduction::from_bytes(bytes).is_ok() || has_text(bytes) {
                    return Err(MessageFlaw::Loose.into());
                }
            }
            Type::String => {
                if has_text(self.input.str().map_err(wrong)?.as_bytes()) {
                    return Err(MessageFlaw::Loose.into());
                }
            }
            Type::BytesIndef | Type::StringIndef => return Err(MessageFlaw::Pieces.into()),
            Type::Break | Type::Unknown(_) => {
                return Err(malformed(&"a value that is none").into());
            }
            _ => self.input.skip().map_err(wrong)?,
        }
        Ok(())
    }

    fn items<E: From<MessageFlaw>>(&mut self, count: Option<u64>, depth: usize) -> Result<(), E>
    where
        F: FnMut(Introduction) -> Result<Introduction, E>,
    {
        if let Some(count) = count {
            for _ in 0..count {
                self.item(depth + 1)?;
            }
            return Ok(());
        }
        let wrong = |e: minicbor::decode::Error| malformed(&e);
        while self.input.datatype().map_err(wrong)? != Type::Break {
            self.item(depth + 1)?;
        }
        self.input.skip().map_err(wrong)?;
        Ok(())
    }
}

fn has_text(bytes: &[u8]) -> bool {
    bytes
        .windows(TEXT.len())
        .any(|window| window == TEXT.as_bytes())
}

/// Sends one message, a whole CBOR item.
///
/// # Errors
/// Those of the stream; [`MessageFlaw::TooLong`] inside of an [`io::Error`].
///
/// # Cancel safety
/// Not cancel safe: half of the message may have been sent.
pub async fn send_message(stream: &mut (impl AsyncWrite + Unpin), item: &[u8]) -> io::Result<()> {
    let length = u16::try_from(item.len()).map_err(|_| {
        let found = item.len();
        io::Error::new(io::ErrorKind::InvalidInput, MessageFlaw::TooLong { found })
    })?;
    stream
        .write_all(&[&length.to_be_bytes(), item].concat())
        .await?;
    stream.flush().await
}

/// Receives one message; `None` at the end of the stream. That it is one CBOR item is not looked at.
///
/// # Errors
/// Those of the stream; an end inside of a message is [`io::ErrorKind::UnexpectedEof`].
///
/// # Cancel safety
/// Not cancel safe: half of the message may have been received.
pub async fn receive_message(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 2];
    if stream.read(&mut length[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut length[1..]).await?;
    let mut item = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut item).await?;
    Ok(Some(item))
}

/// For the fuzz target: what nothing is exchanged in comes out as it went in.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn fuzz(bytes: &[u8]) {
    if let Ok(found) = references(bytes) {
        let same = exchange(bytes, Ok::<_, MessageFlaw>);
        // A reference may have been written otherwise than we write it.
        assert!(!found.is_empty() || same.as_deref() == Ok(bytes));
        if let Ok(same) = same {
            assert_eq!(references(&same), Ok(found));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Identity, KeyKind, PeerId, UnixTime};
    use crate::protocols::introduction::Terms;
    use proptest::prelude::*;
    use std::time::Duration;

    fn introduction(service: &str) -> Introduction {
        let issuer = Identity::generate(KeyKind::Ed25519).unwrap();
        let to = format!("cepa://{}/{service}", PeerId::from_bytes([9; 32]));
        let at = UnixTime::since_unix_epoch(Duration::from_secs(100));
        Introduction::new(&issuer, &to.parse().unwrap(), Terms::until(at), at).unwrap()
    }

    /// An array of what is given.
    fn array(items: &[&[u8]]) -> Vec<u8> {
        let mut message = vec![0x80 + u8::try_from(items.len()).unwrap()];
        message.extend(items.concat());
        message
    }

    #[test]
    fn the_wire_is_as_documented() {
        let it = introduction("up");
        let item = reference(&it);
        let length = u8::try_from(it.to_bytes().len()).unwrap();
        assert_eq!(item[..6], [0xda, 0x63, 0x65, 0x70, 0x61, 0x58]);
        assert_eq!(item[6], length);
        assert_eq!(item[7..], it.to_bytes());
    }

    #[test]
    fn references_are_exchanged_wherever_they_stand_and_all_else_stays() {
        let [one, two, other] = ["a", "b", "c"].map(introduction);
        let message = |one: &Introduction, two: &Introduction| {
            array(&[
                b"\x19\x00\x01",                                   // 1, longer than need be
                &[&[0xa1][..], &reference(one), &[0xf6]].concat(), // a key of a map
                &[
                    &[0xbf, 0x61, b'x', 0x9f][..],
                    &reference(two),
                    &[0xff, 0xff],
                ]
                .concat(),
                &[&[0xc1][..], &reference(one)].concat(), // under another tag
                b"\xfb\x3f\xf0\x00\x00\x00\x00\x00\x00",
                b"\x43abc",
            ])
        };
        let before = message(&one, &two);
        assert_eq!(
            references(&before),
            Ok(vec![one.clone(), two.clone(), one.clone()])
        );
        let exchanged = exchange(&before, |it| {
            Ok::<_, MessageFlaw>(if it == one { other.clone() } else { it })
        });
        assert_eq!(exchanged, Ok(message(&other, &two)));
        let refused = exchange(&before, |_| Err(MessageFlaw::TooDeep));
        assert_eq!(refused, Err(MessageFlaw::TooDeep));
    }

    #[test]
    fn what_would_pass_unseen_is_refused() {
        let it = introduction("up");
        let bytes = it.to_bytes();
        let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
        let loose = [&[0x59][..], &length, &bytes].concat();
        assert_eq!(references(&array(&[&loose])), Err(MessageFlaw::Loose));
        // Under another tag, as CBOR in CBOR.
        let tagged = [&[0xd8, 24][..], &loose].concat();
        assert_eq!(references(&tagged), Err(MessageFlaw::Loose));
        for head in [0x79, 0x59] {
            let text = format!("look: {it}");
            let length = u16::try_from(text.len()).unwrap().to_be_bytes();
            let text = [&[head][..], &length, text.as_bytes()].concat();
            assert_eq!(references(&text), Err(MessageFlaw::Loose));
        }
        for pieces in [&b"\x5f\x41a\xff"[..], b"\x7f\x61a\xff"] {
            assert_eq!(references(pieces), Err(MessageFlaw::Pieces));
        }
        let none = b"\xda\x63\x65\x70\x61\x41a";
        assert!(matches!(references(none), Err(MessageFlaw::Reference(_))));
        for bad in [
            &b""[..],
            b"\x01\x01",
            b"\x82\x01",
            b"\xff",
            b"\x1c",
            b"\xda\x63\x65\x70\x61\x01",
        ] {
            assert!(
                matches!(references(bad), Err(MessageFlaw::Malformed(_))),
                "{bad:?}"
            );
        }
        // A map that says that it has more pairs than numbers go.
        assert!(references(b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff\x01\x01").is_err());
        let deep = |depth: usize| [&vec![0x81; depth][..], &[1]].concat();
        assert_eq!(references(&deep(MAX_DEPTH)), Ok(vec![]));
        assert_eq!(references(&deep(MAX_DEPTH + 1)), Err(MessageFlaw::TooDeep));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            fuzz(&bytes);
        }
    }
}
