//! The directory: a peer asks which services it may open.
//!
//! The answer is made for whoever asks: what is offered to somebody else is not in it, and so it says nothing that opening each
//! name would not. It is bounded in bytes, needs no request, and ends with its stream, so that a stranger who asks costs
//! little and holds nothing. What a service is (`kind`) is a word of the program that offers it; where it leads is not told.
//!
//! | who | sends |
//! | --- | --- |
//! | opener | nothing: the service header asks for [`DIRECTORY`](crate::session::reserved::DIRECTORY) |
//! | acceptor | version 01, flags (bit 0: there is more than is listed), then a name and a kind a service, each behind its length of one byte |
//!
//! A peer that does not know the protocol refuses, as it does for any name that it does not know.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use cepa_transports::text::is_printable;
use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::node::{Admission, Call, Node, Open, Protocol, ProtocolError};
use crate::session::{OpenError, OpenOptions, ServiceName, Session, reserved};

/// Longest list in bytes. Names of a usual length are about a thousand; it passes a window at once, so who does not read holds
/// up nobody.
pub const MAX_LEN: usize = 16 * 1024;

/// Longest kind in bytes.
pub const MAX_KIND: usize = 32;

const VERSION: u8 = 1;
const MORE: u8 = 1;

/// How long a peer may take to fetch its list.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a peer may open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    /// In the order of their names.
    pub services: Vec<Entry>,
    /// Whether these are all: not where there were too many, and where the peer serves names that it does not list.
    pub is_complete: bool,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is opened by.
    pub name: ServiceName,
    /// What it is, in a word of the program that offers it; empty where that does not say. ASCII without spaces.
    pub kind: String,
}

impl Directory {
    /// The service of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Entry> {
        self.services.iter().find(|it| it.name.as_str() == name)
    }

    /// As it goes over the wire: as many as there is room for.
    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION, if self.is_complete { 0 } else { MORE }];
        for Entry { name, kind } in &self.services {
            let kind = if is_kind(kind) { kind } else { "" };
            let before = bytes.len();
            for text in [name.as_str(), kind] {
                // Both are checked to be shorter.
                bytes.push(u8::try_from(text.len()).unwrap_or_default());
                bytes.extend(text.as_bytes());
            }
            if bytes.len() > MAX_LEN {
                bytes.truncate(before);
                if let Some(flags) = bytes.get_mut(1) {
                    *flags |= MORE;
                }
                break;
            }
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        if bytes.len() > MAX_LEN {
            return Err("it is too long");
        }
        let [version, flags, rest @ ..] = bytes else {
            return Err("it is cut off");
        };
        if *version != VERSION {
            return Err("it is of another version");
        }
        let mut rest = rest;
        let mut services = Vec::new();
        while !rest.is_empty() {
            let name = text(&mut rest)?;
            let name = ServiceName::unreserved(name).map_err(|_| "a name in it is none")?;
            let kind = text(&mut rest)?.to_owned();
            if !is_kind(&kind) {
                return Err("a kind in it is none");
            }
            services.push(Entry { name, kind });
        }
        Ok(Self {
            services,
            is_complete: flags & MORE == 0,
        })
    }
}

/// The text behind its length.
fn text<'a>(rest: &mut &'a [u8]) -> Result<&'a str, &'static str> {
    let cut = "it is cut off";
    let (length, behind) = rest.split_first().ok_or(cut)?;
    let (text, behind) = behind.split_at_checked(usize::from(*length)).ok_or(cut)?;
    *rest = behind;
    std::str::from_utf8(text).map_err(|_| "a text in it is not UTF-8")
}

fn is_kind(kind: &str) -> bool {
    let plain = |c: char| c.is_ascii() && c != ' ' && is_printable(c);
    kind.len() <= MAX_KIND && kind.chars().all(plain)
}

/// Lets peers of a node ask which services they may open. `kind` says what a service is: a word of at most 32 bytes of ASCII
/// without spaces, or nothing.
///
/// # Errors
/// The node does so already.
pub fn offer<K>(node: &Node, kind: K) -> Result<(), ProtocolError>
where
    K: Fn(&str) -> &'static str + Send + Sync + 'static,
{
    let owner = node.handle();
    node.add_protocol(Arc::new(Clerk { node: owner, kind }))
}

struct Clerk<K> {
    node: Node,
    kind: K,
}

impl<K> Protocol for Clerk<K>
where
    K: Fn(&str) -> &'static str + Send + Sync + 'static,
{
    fn names(&self) -> &[&'static str] {
        &[reserved::DIRECTORY]
    }

    // Each name in it is asked about by itself.
    fn admission(&self, _name: &str) -> Admission {
        Admission::OwnProof
    }

    // Whoever only asks is in nobody's way.
    fn keeps_session(&self) -> bool {
        false
    }

    fn delays_shutdown(&self) -> bool {
        false
    }

    fn serve(self: Arc<Self>, call: Call) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let Open { names, serves_rest } = self.node.open_to(&call.context());
            let names = names.into_iter();
            let known = names.filter_map(|name| {
                let kind = (self.kind)(&name).to_owned();
                let name = ServiceName::unreserved(&name).ok()?;
                Some(Entry { name, kind })
            });
            let list = Directory {
                services: known.collect(),
                is_complete: !serves_rest,
            };
            let bytes = list.encode();
            let told = async {
                let mut stream = call.accept().await.map_err(io::Error::from)?;
                stream.write_all(&bytes).await?;
                stream.shutdown().await?;
                // Dropped before all has left, it would be reset.
                stream.wire_mut().drained(None).await
            };
            let _ = timeout(PATIENCE, told).await;
        })
    }
}

/// Why there is no list. Each text is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// The peer does not tell, or the session is no more.
    #[error("{0}")]
    Open(#[from] OpenError),
    /// The list broke off.
    #[error("the list of services was lost: {0}")]
    Io(#[from] io::Error),
    /// The list did not come in time.
    #[error("the peer did not list its services in time")]
    TimedOut,
    /// What came is no list.
    #[error("the peer's list of services is not valid: {0}; are both ends of the same version?")]
    Protocol(&'static str),
}

impl DirectoryError {
    /// Whether the peer does not know the protocol, as far as it says.
    #[must_use]
    pub fn is_unknown_to_peer(&self) -> bool {
        matches!(self, Self::Open(OpenError::Refused { .. }))
    }
}

/// Asks the peer of a session which services this end may open there, on this session.
///
/// # Errors
/// [`DirectoryError`]; [`is_unknown_to_peer`](DirectoryError::is_unknown_to_peer) tells a peer without the protocol.
///
/// # Cancel safety
/// Dropping the future gives the question up, and nothing else.
pub async fn ask(session: &Session, patience: Duration) -> Result<Directory, DirectoryError> {
    let asked = async {
        let options = OpenOptions::new().patience(patience);
        let mut stream = session.open_with(reserved::DIRECTORY, &options).await?;
        stream.shutdown().await?;
        let mut bytes = Vec::new();
        let most = MAX_LEN as u64 + 1;
        (&mut stream).take(most).read_to_end(&mut bytes).await?;
        Directory::decode(&bytes).map_err(DirectoryError::Protocol)
    };
    let asked = timeout(patience, asked).await;
    asked.unwrap_or(Err(DirectoryError::TimedOut))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, kind: &str) -> Entry {
        Entry {
            name: name.parse().unwrap(),
            kind: kind.to_owned(),
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_documentation() {
        let list = Directory {
            services: vec![entry("db", "stream"), entry("up", "")],
            is_complete: true,
        };
        let bytes = b"\x01\x00\x02db\x06stream\x02up\x00";
        assert_eq!(list.encode(), bytes);
        assert_eq!(Directory::decode(bytes), Ok(list));
        let nothing = Directory::decode(&[1, 0]).unwrap();
        assert!(nothing.is_complete && nothing.services.is_empty());
        assert!(!Directory::decode(&[1, 1]).unwrap().is_complete);
        // Flags of a later version.
        assert!(Directory::decode(&[1, 0xfe]).unwrap().is_complete);
    }

    #[test]
    fn what_is_no_list_is_none() {
        for (bytes, why) in [
            (&b""[..], "it is cut off"),
            (b"\x01", "it is cut off"),
            (b"\x02\x00", "it is of another version"),
            (b"\x01\x00\x02db", "it is cut off"),
            (b"\x01\x00\x03db", "it is cut off"),
            (b"\x01\x00\x02db\x02s", "it is cut off"),
            (b"\x01\x00\x00\x00", "a name in it is none"),
            (b"\x01\x00\x02d\x1b\x00", "a name in it is none"),
            (b"\x01\x00\x06cepa.x\x00", "a name in it is none"),
            (b"\x01\x00\x02d\xff\x00", "a text in it is not UTF-8"),
            (b"\x01\x00\x02db\x02\x1b[", "a kind in it is none"),
            (b"\x01\x00\x02db\x03a b", "a kind in it is none"),
            (&vec![1; MAX_LEN + 1], "it is too long"),
        ] {
            assert_eq!(Directory::decode(bytes), Err(why), "{bytes:?}");
        }
        let long = [&b"\x01\x00\x02db\x21"[..], &[b'k'; 33]].concat();
        assert_eq!(Directory::decode(&long), Err("a kind in it is none"));
    }

    #[test]
    fn a_list_that_is_too_long_is_cut_between_services_and_says_so() {
        let name = |n: usize| entry(&format!("{n:0>200}"), "stream");
        let services: Vec<Entry> = (0..100).map(name).collect();
        let list = Directory {
            services: services.clone(),
            is_complete: true,
        };
        let bytes = list.encode();
        assert!(bytes.len() <= MAX_LEN && bytes.len() > MAX_LEN - 208);
        let read = Directory::decode(&bytes).unwrap();
        assert!(!read.is_complete);
        assert_eq!(read.services, services[..read.services.len()]);
    }
}
