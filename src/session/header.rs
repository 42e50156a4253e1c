//! The first bytes of a substream: what it is for, and the answer. The codec, without IO.
//!
//! ```text
//! request   01 flags length name       opener → acceptor, at once
//! answer    01 status length text      acceptor → opener, before anything else
//! ```
//!
//! The first byte is the version of this header. `length` is one byte and counts bytes of UTF-8
//! behind it. Of `flags` bit 0 asks for inner TLS, and bit 1, which stands beside bit 0 only, for such as
//! may end beyond the acceptor (`inner.rs`); the other bits are 0, and a request that sets one is refused,
//! so that they can get a meaning some day without being overlooked by old peers. What follows an answer of
//! status 0 belongs to the service, or, where inner TLS was asked for, to the handshake. docs/PROTOCOL.md has it with examples.

use std::sync::Arc;

use cepa_transports::text::clean;

use super::service::ServiceName;

/// The version that we speak.
const VERSION: u8 = 1;

/// Flag: the opener will start TLS, as client, right behind the answer.
const INNER_TLS: u8 = 1;

/// Flag: that TLS is not bound to this session, as it may pass through the acceptor.
const THROUGH: u8 = 2;

/// The part of fixed length, in both directions.
const HEAD: usize = 3;

/// The most bytes of a text: what one length byte can say.
const MAX_TEXT: usize = 255;

/// What a substream is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// The service; empty leaves the choice to the acceptor. Shared by all that ask for the same.
    pub(super) service: Arc<String>,
    /// TLS inside this substream.
    pub(super) inner_tls: InnerTls,
}

/// TLS inside a substream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InnerTls {
    /// There is none.
    Without,
    /// Between the two ends of the session, and bound to it.
    Here,
    /// With whoever is behind the acceptor, who may be a third.
    Through,
}

impl InnerTls {
    fn flags(self) -> u8 {
        match self {
            Self::Without => 0,
            Self::Here => INNER_TLS,
            Self::Through => INNER_TLS | THROUGH,
        }
    }

    fn from_flags(flags: u8) -> Option<Self> {
        let all = [Self::Without, Self::Here, Self::Through];
        all.into_iter().find(|one| one.flags() == flags)
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: Status,
    /// In the acceptor's words; empty when accepted.
    pub(super) text: String,
}

/// The answer of who accepts.
pub(super) const ACCEPTED: [u8; HEAD] = [VERSION, 0, 0];

/// What the acceptor says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// 0: go on.
    Accepted,
    /// 1: refused, for the reason in the text.
    Refused,
    /// 2: refused; this service is to be had with inner TLS only.
    InnerTlsRequired,
    /// 3: refused; this service has no inner TLS.
    NoInnerTls,
    /// 4: the request's version or flags are not known here.
    NotUnderstood,
    /// 5: refused on this session; the service is open to whoever dials this node itself.
    DialInstead,
    /// 6: refused; inner TLS may end beyond the acceptor where it must not, or the other way round.
    OtherInnerTls,
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HeaderError {
    #[error("header version {0} instead of 1")]
    Version(u8),
    #[error("unknown header flags {0:#04x}")]
    Flags(u8),
    #[error("unknown status {0}")]
    Status(u8),
    #[error("a name that is not UTF-8, or has control or invisible characters")]
    Name,
}

impl HeaderError {
    /// The fault inside an error of `read_header`, when it is one.
    pub(super) fn inside(error: &std::io::Error) -> Option<Self> {
        error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Self>())
            .copied()
    }
}

/// How far reading a header has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Progress<T> {
    /// It takes this many bytes in all to know more.
    Need(usize),
    /// Complete; this many bytes are the header's.
    Done(T, usize),
}

impl Request {
    #[cfg(test)]
    pub(super) fn encode(&self) -> Result<Vec<u8>, HeaderError> {
        Self::encoded(&self.service, self.inner_tls)
    }

    /// The bytes of a request.
    pub(super) fn encoded(service: &str, inner_tls: InnerTls) -> Result<Vec<u8>, HeaderError> {
        check_name(service)?;
        let length = u8::try_from(service.len()).map_err(|_| HeaderError::Name)?;
        let mut bytes = Vec::with_capacity(HEAD + service.len());
        bytes.extend_from_slice(&[VERSION, inner_tls.flags(), length]);
        bytes.extend_from_slice(service.as_bytes());
        Ok(bytes)
    }

    /// Reads a request from the front of `bytes`; a fault is told as early as it can be seen.
    pub(super) fn decode(bytes: &[u8]) -> Result<Progress<Self>, HeaderError> {
        let seen = Self::look(bytes)?;
        Ok(match seen {
            Progress::Need(needed) => Progress::Need(needed),
            Progress::Done((service, inner_tls), size) => {
                let service = Arc::new(service.to_owned());
                Progress::Done(Self { service, inner_tls }, size)
            }
        })
    }

    /// The same, with the service's name where it stands.
    pub(super) fn look(bytes: &[u8]) -> Result<Progress<(&str, InnerTls)>, HeaderError> {
        let (head, rest) = split(bytes);
        if let Some(version) = head.first().filter(|version| **version != VERSION) {
            return Err(HeaderError::Version(*version));
        }
        let flags = head.get(1).copied().unwrap_or_default();
        let inner_tls = InnerTls::from_flags(flags).ok_or(HeaderError::Flags(flags))?;
        let text = match text(head, rest) {
            Ok(text) => text,
            Err(needed) => return Ok(Progress::Need(needed)),
        };
        let service = std::str::from_utf8(text).map_err(|_| HeaderError::Name)?;
        check_name(service)?;
        Ok(Progress::Done((service, inner_tls), HEAD + text.len()))
    }
}

impl Answer {
    #[cfg(test)]
    pub(super) fn accepted() -> Self {
        Self {
            status: Status::Accepted,
            text: String::new(),
        }
    }

    /// A refusal; of a long reason only the beginning is said.
    pub(super) fn refused(status: Status, reason: &str) -> Self {
        let text = clean(reason, MAX_TEXT).into_owned();
        Self { status, text }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let length = u8::try_from(self.text.len()).unwrap_or(u8::MAX);
        let mut bytes = vec![VERSION, self.status.code(), length];
        bytes.extend(self.text.bytes().take(MAX_TEXT));
        bytes
    }

    /// Reads an answer from the front of `bytes`. The text is for people: what is not UTF-8 or would
    /// confuse a terminal is replaced.
    pub(super) fn decode(bytes: &[u8]) -> Result<Progress<Self>, HeaderError> {
        let (head, rest) = split(bytes);
        if let Some(version) = head.first().filter(|version| **version != VERSION) {
            return Err(HeaderError::Version(*version));
        }
        let Some(status) = head.get(1) else {
            return Ok(Progress::Need(head.len() + 1));
        };
        let status = Status::from_code(*status).ok_or(HeaderError::Status(*status))?;
        let text = match text(head, rest) {
            Ok(text) => text,
            Err(needed) => return Ok(Progress::Need(needed)),
        };
        let size = HEAD + text.len();
        Ok(Progress::Done(
            Self {
                status,
                text: clean(&String::from_utf8_lossy(text), MAX_TEXT).into_owned(),
            },
            size,
        ))
    }
}

impl Status {
    fn code(self) -> u8 {
        match self {
            Self::Accepted => 0,
            Self::Refused => 1,
            Self::InnerTlsRequired => 2,
            Self::NoInnerTls => 3,
            Self::NotUnderstood => 4,
            Self::DialInstead => 5,
            Self::OtherInnerTls => 6,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Accepted,
            1 => Self::Refused,
            2 => Self::InnerTlsRequired,
            3 => Self::NoInnerTls,
            4 => Self::NotUnderstood,
            5 => Self::DialInstead,
            6 => Self::OtherInnerTls,
            _ => return None,
        })
    }
}

fn split(bytes: &[u8]) -> (&[u8], &[u8]) {
    bytes.split_at(bytes.len().min(HEAD))
}

/// The text behind a head, or how many bytes the whole header needs as far as one can tell.
fn text<'a>(head: &[u8], rest: &'a [u8]) -> Result<&'a [u8], usize> {
    // Byte by byte at first: whoever sends something else must not be waited for in vain.
    let Some(length) = head.get(2) else {
        return Err(head.len() + 1);
    };
    let length = usize::from(*length);
    rest.get(..length).ok_or(HEAD + length)
}

/// An empty one leaves the choice to the acceptor.
fn check_name(name: &str) -> Result<(), HeaderError> {
    if name.is_empty() {
        return Ok(());
    }
    ServiceName::check(name).map_err(|_| HeaderError::Name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cepa_transports::text::{HOSTILE, is_printable};
    use proptest::prelude::*;

    fn name(service: &str) -> Arc<String> {
        Arc::new(service.to_owned())
    }

    /// The examples of docs/PROTOCOL.md.
    #[test]
    fn the_documented_examples() {
        let request = Request {
            service: name("db"),
            inner_tls: InnerTls::Without,
        };
        assert_eq!(request.encode().unwrap(), b"\x01\x00\x02db");
        let request = Request {
            service: name("db"),
            inner_tls: InnerTls::Here,
        };
        assert_eq!(request.encode().unwrap(), b"\x01\x01\x02db");
        let request = Request {
            service: name("db"),
            inner_tls: InnerTls::Through,
        };
        assert_eq!(request.encode().unwrap(), b"\x01\x03\x02db");
        assert_eq!(Answer::accepted().encode(), ACCEPTED);
        assert_eq!(ACCEPTED, *b"\x01\x00\x00");
        let answer = Answer::refused(Status::Refused, "no such service");
        assert_eq!(answer.encode(), b"\x01\x01\x0fno such service");
        let answer = Answer::refused(Status::DialInstead, "");
        assert_eq!(answer.encode(), b"\x01\x05\x00");
    }

    #[test]
    fn what_is_no_request_is_refused_as_early_as_it_shows() {
        assert_eq!(Request::decode(b"\x02"), Err(HeaderError::Version(2)));
        assert_eq!(Request::decode(b"\x01\x02"), Err(HeaderError::Flags(2)));
        assert_eq!(
            Request::decode(b"\x01\x81\x00"),
            Err(HeaderError::Flags(0x81))
        );
        assert_eq!(Request::decode(b"\x01\x00\x01\xff"), Err(HeaderError::Name));
        assert_eq!(Request::decode(b"\x01\x00\x01\n"), Err(HeaderError::Name));
        // A right-to-left override.
        assert_eq!(
            Request::decode("\x01\x00\x05a\u{202e}b".as_bytes()),
            Err(HeaderError::Name)
        );
        assert_eq!(Answer::decode(b"\x00"), Err(HeaderError::Version(0)));
        assert_eq!(Answer::decode(b"\x01\x07"), Err(HeaderError::Status(7)));
        assert_eq!(
            Request {
                service: name(&"x".repeat(256)),
                inner_tls: InnerTls::Without
            }
            .encode(),
            Err(HeaderError::Name)
        );
        assert_eq!(
            Request {
                service: name("a\nb"),
                inner_tls: InnerTls::Without
            }
            .encode(),
            Err(HeaderError::Name)
        );
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let answer = Answer::refused(Status::Refused, &"ü".repeat(200));
        assert_eq!(answer.text, "ü".repeat(126) + "…");
        let size = answer.encode().len();
        assert_eq!(
            Answer::decode(&answer.encode()),
            Ok(Progress::Done(answer, size))
        );
    }

    #[test]
    fn a_reason_can_not_reach_into_a_terminal() {
        let Ok(Progress::Done(answer, 9)) = Answer::decode(b"\x01\x01\x06a\x1b[2J\xff") else {
            panic!("not an answer");
        };
        assert_eq!(answer.text, "a\\u{1b}[2J\u{fffd}");
        for (name, c) in HOSTILE {
            // As a peer may send it, and as we would.
            let text = format!("a{c}b");
            let mut bytes = vec![VERSION, 1, u8::try_from(text.len()).unwrap()];
            bytes.extend(text.as_bytes());
            let Ok(Progress::Done(answer, _)) = Answer::decode(&bytes) else {
                panic!("not an answer");
            };
            assert!(answer.text.chars().all(is_printable), "{name}");
            assert_eq!(Answer::refused(Status::Refused, &text), answer, "{name}");
        }
    }

    fn request() -> impl Strategy<Value = Request> {
        // Printable, as proptest has it, are some that a name does not have.
        let inner_tls = [InnerTls::Without, InnerTls::Here, InnerTls::Through];
        ("\\PC{0,60}", prop::sample::select(inner_tls.to_vec()))
            .prop_filter("a name", |(service, _)| check_name(service).is_ok())
            .prop_map(|(service, inner_tls)| Request {
                service: name(&service),
                inner_tls,
            })
    }

    fn answer() -> impl Strategy<Value = Answer> {
        let status = prop::sample::select(vec![
            Status::Accepted,
            Status::Refused,
            Status::InnerTlsRequired,
            Status::NoInnerTls,
            Status::NotUnderstood,
            Status::DialInstead,
            Status::OtherInnerTls,
        ]);
        (status, "\\PC{0,60}").prop_map(|(status, text)| Answer::refused(status, &text))
    }

    /// Every cut of `bytes` asks for more, and what it asks for is never too much.
    fn cuts<T: PartialEq + std::fmt::Debug>(
        bytes: &[u8],
        decode: impl Fn(&[u8]) -> Result<Progress<T>, HeaderError>,
    ) {
        for cut in 0..bytes.len() {
            match decode(&bytes[..cut]).unwrap() {
                Progress::Need(needed) => assert!(cut < needed && needed <= bytes.len()),
                Progress::Done(..) => panic!("done at {cut} of {}", bytes.len()),
            }
        }
    }

    proptest! {
        #[test]
        fn requests_survive(request in request(), behind: Vec<u8>) {
            let bytes = request.encode().unwrap();
            cuts(&bytes, Request::decode);
            // What stands behind is not touched.
            let glued = [bytes.as_slice(), &behind].concat();
            prop_assert_eq!(Request::decode(&glued), Ok(Progress::Done(request, bytes.len())));
        }

        #[test]
        fn answers_survive(answer in answer(), behind: Vec<u8>) {
            let bytes = answer.encode();
            cuts(&bytes, Answer::decode);
            let glued = [bytes.as_slice(), &behind].concat();
            prop_assert_eq!(Answer::decode(&glued), Ok(Progress::Done(answer, bytes.len())));
        }

        #[test]
        fn any_bytes_are_decoded_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(Progress::Done(request, size)) = Request::decode(&bytes) {
                prop_assert_eq!(request.encode().unwrap(), &bytes[..size]);
            }
            let _ = Answer::decode(&bytes);
        }
    }
}
