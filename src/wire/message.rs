//! The form of a message: the codec, without IO.
//!
//! A message is two bytes of length (big endian, at most 4,096 unless it says otherwise) and so many bytes of CBOR
//! (RFC 8949): a map whose keys are small integers. Keys that are not known are skipped, so that a later version can
//! say more; a message whose version is not 1 is refused. docs/PROTOCOL.md has the tables.

use cepa_transports::text::clean;

/// The version that we speak.
pub(crate) const VERSION: u8 = 1;

/// Longest message in bytes, without its length, unless it says otherwise.
const MAX_MESSAGE: usize = 4096;

/// Longest reason in bytes; what is longer is cut.
const MAX_REASON: usize = 255;

/// Why what a peer sent is no message of the protocol that was due.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// A message of so many bytes, and how many it may have.
    #[error("a message of {0} bytes, at most {1} are allowed")]
    TooLong(usize, usize),
    /// Not the CBOR that the message has, in the words of the decoder.
    #[error("a message that is not valid CBOR ({0})")]
    Cbor(String),
    /// A message of another version.
    #[error("version {0} instead of 1: are both ends of the same version?")]
    Version(u8),
}

/// A message of this protocol.
pub(crate) trait Message: Sized {
    fn version(&self) -> u8;
    fn cbor(&self) -> Vec<u8>;
    fn from_cbor(bytes: &[u8]) -> Result<Self, String>;

    /// Longest message in bytes, without its length.
    const MAX: usize = MAX_MESSAGE;

    /// With its length in front.
    fn framed(&self) -> Vec<u8> {
        let body = self.cbor();
        // Everything of variable length in it is bounded far below.
        let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend(body);
        bytes
    }

    /// The length of a message that begins with these two bytes.
    fn length(head: [u8; 2]) -> Result<usize, MessageError> {
        let length = usize::from(u16::from_be_bytes(head));
        if length > Self::MAX {
            return Err(MessageError::TooLong(length, Self::MAX));
        }
        Ok(length)
    }

    /// From the bytes behind the length.
    fn read(body: &[u8]) -> Result<Self, MessageError> {
        let message = Self::from_cbor(body).map_err(MessageError::Cbor)?;
        match message.version() {
            VERSION => Ok(message),
            other => Err(MessageError::Version(other)),
        }
    }
}

/// A reason as it goes over the wire, and as one that came is shown.
pub(crate) fn clean_reason(text: &str) -> String {
    clean(text, MAX_REASON).into_owned()
}

/// For fuzz targets: what decodes must encode to the same message again.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz_one<M: Message + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    if let Ok(message) = M::read(bytes) {
        assert_eq!(
            M::read(&message.cbor()),
            Ok(message),
            "a print that parses differently"
        );
    }
}

/// Makes messages of types that derive their CBOR and have a `version`; the number is their `MAX`.
macro_rules! message {
    ($($type:ty $(: $max:expr)?),*) => { $(
        impl $crate::wire::Message for $type {
            $(const MAX: usize = $max;)?


            fn version(&self) -> u8 {
                self.version
            }

            fn cbor(&self) -> Vec<u8> {
                // Writing into a `Vec` can not fail.
                minicbor::to_vec(self).unwrap_or_default()
            }

            fn from_cbor(bytes: &[u8]) -> Result<Self, String> {
                let mut decoder = minicbor::Decoder::new(bytes);
                let message = decoder.decode().map_err(|e| e.to_string())?;
                if decoder.position() != bytes.len() {
                    return Err("bytes behind it".into());
                }
                Ok(message)
            }
        }
    )* };
}
pub(crate) use message;
