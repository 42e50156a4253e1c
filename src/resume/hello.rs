//! What stands in front of the frames of each path: who begins a session, or takes one up again; without IO.
//!
//! The client of the connection's TLS speaks first.
//!
//! ```text
//! new      01 00  id 16  token 32  park u32                             no answer
//! resume   01 01  id 16  generation u32  received u64  proof 32
//! resumed  01 01  generation u32  received u64  proof 32                the answers to it
//! refused  01 02  reason u8
//! ```
//!
//! Who has the token may take the session up again, and it goes over the wire once, under the TLS of the first connection. On
//! later ones each end proves that it has it, for this very connection and for the numbers that it says:
//! `proof` = HMAC-SHA-256(token, "cepa resume 1", role of the sender in this connection's TLS (00 client, 01 server),
//! `tls-exporter` of this connection (RFC 9266), id, generation, received).

use std::fmt;
use std::time::Duration;

use cepa_transports::Side;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::error::Refusal;

const VERSION: u8 = 1;
const NEW: u8 = 0;
const RESUME: u8 = 1;
const RESUMED: u8 = 1;
const REFUSED: u8 = 2;

const DOMAIN: &[u8] = b"cepa resume 1";

/// The name of a session; no secret.
pub(crate) type Id = [u8; 16];

/// By which both ends know a session, and prove that they do.
#[derive(Clone)]
pub(crate) struct Ticket {
    pub(crate) id: Id,
    token: Zeroizing<[u8; 32]>,
}

impl Ticket {
    /// Bytes of randomness that one is made of.
    pub(crate) const RANDOM: usize = 48;

    /// Of random numbers that nobody can guess.
    pub(crate) fn from_random(random: &[u8; Self::RANDOM]) -> Self {
        let (mut id, mut token) = (Id::default(), Zeroizing::new([0; 32]));
        let (first, rest) = random.split_at(id.len());
        id.copy_from_slice(first);
        token.copy_from_slice(rest);
        Self { id, token }
    }

    /// The proof of `sender`, on the connection with this `tls-exporter`.
    pub(crate) fn proof(&self, sender: Side, exporter: &[u8; 32], at: At) -> [u8; 32] {
        let mac = self.mac(sender, exporter, at);
        mac.finalize().into_bytes().into()
    }

    /// Whether `proof` is the one of `sender`, in constant time.
    pub(crate) fn proves(
        &self,
        proof: &[u8; 32],
        sender: Side,
        exporter: &[u8; 32],
        at: At,
    ) -> bool {
        let mac = self.mac(sender, exporter, at);
        mac.verify_slice(proof).is_ok()
    }

    fn mac(&self, sender: Side, exporter: &[u8; 32], at: At) -> Hmac<Sha256> {
        let mut key = hmac::digest::generic_array::GenericArray::default();
        for (to, from) in key.iter_mut().zip(&*self.token) {
            *to = *from;
        }
        let mut mac = <Hmac<Sha256> as hmac::digest::KeyInit>::new(&key);
        mac.update(DOMAIN);
        mac.update(match sender {
            Side::Client => &[0],
            Side::Server => &[1],
        });
        mac.update(exporter);
        mac.update(&self.id);
        mac.update(&at.generation.to_be_bytes());
        mac.update(&at.received.to_be_bytes());
        mac
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").finish_non_exhaustive()
    }
}

/// Where an end stands: which path this is, and how many bytes it has received so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) generation: u32,
    pub(crate) received: u64,
}

/// What the client says first.
#[derive(Debug)]
pub(crate) enum Hello {
    New {
        ticket: Ticket,
        /// How long the client wants the session kept without a path.
        park: Duration,
    },
    Resume {
        id: Id,
        at: At,
        proof: [u8; 32],
    },
}

/// What the server answers to `resume`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Resumed { at: At, proof: [u8; 32] },
    Refused(Refusal),
}

/// Bytes of the head that both begin with, and that says how many follow.
pub(crate) const HEAD: usize = 2;

/// Bytes of the longest of them, without its head.
pub(crate) const BODY_MAX: usize = 60;

/// Why bytes are no hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HelloMalformed {
    #[error("version {0} of durable sessions instead of 1; use the same release at both ends")]
    Version(u8),
    #[error("a hello of kind {0:#04x}, which there is not")]
    Kind(u8),
    #[error("a hello that is too short")]
    Short,
}

/// Takes `N` bytes from the front.
fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], HelloMalformed> {
    let (first, rest) = bytes.split_first_chunk().ok_or(HelloMalformed::Short)?;
    *bytes = rest;
    Ok(*first)
}

fn take_at(bytes: &mut &[u8]) -> Result<At, HelloMalformed> {
    Ok(At {
        generation: u32::from_be_bytes(take(bytes)?),
        received: u64::from_be_bytes(take(bytes)?),
    })
}

fn put_at(bytes: &mut Vec<u8>, at: At) {
    bytes.extend_from_slice(&at.generation.to_be_bytes());
    bytes.extend_from_slice(&at.received.to_be_bytes());
}

fn kind(head: [u8; HEAD]) -> Result<u8, HelloMalformed> {
    match head {
        [VERSION, kind] => Ok(kind),
        [other, _] => Err(HelloMalformed::Version(other)),
    }
}

impl Hello {
    /// Bytes behind a head.
    pub(crate) fn length(head: [u8; HEAD]) -> Result<usize, HelloMalformed> {
        match kind(head)? {
            NEW => Ok(16 + 32 + 4),
            RESUME => Ok(16 + 4 + 8 + 32),
            other => Err(HelloMalformed::Kind(other)),
        }
    }

    pub(crate) fn decode(head: [u8; HEAD], mut body: &[u8]) -> Result<Self, HelloMalformed> {
        let bytes = &mut body;
        match kind(head)? {
            NEW => {
                let (id, token) = (take(bytes)?, Zeroizing::new(take(bytes)?));
                let seconds = u32::from_be_bytes(take(bytes)?);
                Ok(Self::New {
                    ticket: Ticket { id, token },
                    park: Duration::from_secs(seconds.into()),
                })
            }
            RESUME => Ok(Self::Resume {
                id: take(bytes)?,
                at: take_at(bytes)?,
                proof: take(bytes)?,
            }),
            other => Err(HelloMalformed::Kind(other)),
        }
    }

    pub(crate) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(HEAD + BODY_MAX));
        match self {
            Self::New { ticket, park } => {
                bytes.extend_from_slice(&[VERSION, NEW]);
                bytes.extend_from_slice(&ticket.id);
                bytes.extend_from_slice(&*ticket.token);
                bytes.extend_from_slice(&seconds(*park).to_be_bytes());
            }
            Self::Resume { id, at, proof } => {
                bytes.extend_from_slice(&[VERSION, RESUME]);
                bytes.extend_from_slice(id);
                put_at(&mut bytes, *at);
                bytes.extend_from_slice(proof);
            }
        }
        bytes
    }
}

impl Answer {
    /// Bytes behind a head.
    pub(crate) fn length(head: [u8; HEAD]) -> Result<usize, HelloMalformed> {
        match kind(head)? {
            RESUMED => Ok(4 + 8 + 32),
            REFUSED => Ok(1),
            other => Err(HelloMalformed::Kind(other)),
        }
    }

    pub(crate) fn decode(head: [u8; HEAD], mut body: &[u8]) -> Result<Self, HelloMalformed> {
        let bytes = &mut body;
        match kind(head)? {
            RESUMED => Ok(Self::Resumed {
                at: take_at(bytes)?,
                proof: take(bytes)?,
            }),
            REFUSED => {
                let [reason] = take(bytes)?;
                Ok(Self::Refused(Refusal::from_code(reason)))
            }
            other => Err(HelloMalformed::Kind(other)),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD + BODY_MAX);
        match self {
            Self::Resumed { at, proof } => {
                bytes.extend_from_slice(&[VERSION, RESUMED]);
                put_at(&mut bytes, *at);
                bytes.extend_from_slice(proof);
            }
            Self::Refused(reason) => {
                bytes.extend_from_slice(&[VERSION, REFUSED, reason.code()]);
            }
        }
        bytes
    }
}

/// Whole seconds as the wire has them, none of them dropped.
pub(crate) fn seconds(time: Duration) -> u32 {
    let up = u64::from(time.subsec_nanos() > 0);
    u32::try_from(time.as_secs().saturating_add(up)).unwrap_or(u32::MAX)
}
