//! A push that both ends agree on first.
//!
//! The bare [`Onion::push`] begins at once; both ends must know that it does. Here one end offers a
//! layer and says what for, the other accepts or refuses with a reason, and only then does the
//! stream switch, at a byte that both know: the first one behind the answer.
//!
//! ```text
//! offer    4F 01 role length purpose          role 00: the offerer will be TLS client, 01: server
//! answer   41 01 00 00                        accepted; the next byte, both ways, is TLS
//!          41 01 01 length reason             refused; the stream goes on as it was
//! ```
//!
//! `length` is one byte and counts bytes of UTF-8. The stream must be quiet: between the offer and
//! its answer neither end sends anything else in this layer, so an offer belongs where the
//! application's own protocol expects one.

use std::io;

use cepa_transports::{ByteStream, Side};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Onion;
use crate::tls::{Peer, TlsConfig, TlsError};

const OFFER: u8 = b'O';
const ANSWER: u8 = b'A';
const VERSION: u8 = 1;

/// A layer that the other end proposes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    side: Side,
    purpose: String,
}

impl Offer {
    /// The TLS role that would be ours.
    pub fn side(&self) -> Side {
        self.side
    }

    /// What the other end says that the layer is for.
    pub fn purpose(&self) -> &str {
        &self.purpose
    }
}

/// What to say to an [`Offer`].
#[derive(Clone, Debug)]
pub enum Answer {
    /// Push the layer with this configuration.
    Accept(TlsConfig),
    /// Go on without it; the other end is told this reason (at most 255 bytes are sent).
    Refuse(String),
}

/// Why an offered layer did not come about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OfferError {
    /// The other end refused. The stream is as it was before the offer.
    #[error("the peer refused the layer: {reason}")]
    Refused {
        /// In the peer's words.
        reason: String,
    },
    /// What came is no offer or no answer. The stream can not be used further.
    #[error(
        "the peer sent something other than {expected}: do both ends offer and answer at the same point?"
    )]
    Unexpected {
        /// What was due.
        expected: &'static str,
    },
    /// The purpose is longer than 255 bytes. Nothing was sent.
    #[error("the purpose of an offered layer may have at most 255 bytes, this has {0}: shorten it")]
    TooLong(usize),
    /// The stream failed before the switch.
    #[error("the stream failed while a layer was being offered: {0}")]
    Io(#[from] io::Error),
    /// The handshake failed.
    #[error("{0}")]
    Tls(#[from] TlsError),
}

impl<T: ByteStream> Onion<T> {
    /// Offers a layer in which we would have the role `side`, waits for the answer, and pushes it.
    ///
    /// # Errors
    /// After [`OfferError::Refused`] and [`OfferError::TooLong`] the stream goes on as before;
    /// after any other error it can not be used further.
    ///
    /// # Cancel safety
    /// None: a dropped offer leaves it open what the other end has read.
    pub async fn offer(
        &mut self,
        side: Side,
        purpose: &str,
        config: &TlsConfig,
    ) -> Result<Peer, OfferError> {
        let length = u8::try_from(purpose.len()).map_err(|_| OfferError::TooLong(purpose.len()))?;
        let role = u8::from(side == Side::Server);
        let mut message = vec![OFFER, VERSION, role, length];
        message.extend_from_slice(purpose.as_bytes());
        self.write_all(&message).await?;
        self.flush().await?;
        let (verdict, reason) = self.read_message(ANSWER, "an answer to an offer").await?;
        match verdict {
            0 => Ok(self.push(side, config).await?),
            1 => Err(OfferError::Refused { reason }),
            _ => Err(OfferError::Unexpected {
                expected: "an answer to an offer",
            }),
        }
    }

    /// Waits for an offer, and answers it with what `decide` says. Returns the peer of the new
    /// layer, or nothing when the offer was refused.
    ///
    /// # Errors
    /// After an error the stream can not be used further.
    ///
    /// # Cancel safety
    /// None, as for [`offer`](Self::offer).
    pub async fn answer(
        &mut self,
        decide: impl FnOnce(&Offer) -> Answer,
    ) -> Result<Option<Peer>, OfferError> {
        let (role, purpose) = self.read_message(OFFER, "an offer of a layer").await?;
        // The offerer's role, so ours is the other.
        let side = match role {
            0 => Side::Server,
            1 => Side::Client,
            _ => {
                return Err(OfferError::Unexpected {
                    expected: "an offer of a layer",
                });
            }
        };
        let offer = Offer { side, purpose };
        match decide(&offer) {
            Answer::Accept(config) => {
                self.cork();
                self.write_all(&[ANSWER, VERSION, 0, 0]).await?;
                Ok(Some(self.push(side, &config).await?))
            }
            Answer::Refuse(reason) => {
                let reason = at_most_255(&reason);
                let length = u8::try_from(reason.len()).unwrap_or(u8::MAX);
                let mut message = vec![ANSWER, VERSION, 1, length];
                message.extend_from_slice(reason.as_bytes());
                self.write_all(&message).await?;
                self.flush().await?;
                Ok(None)
            }
        }
    }

    /// One message of this protocol: its third byte, and its text.
    async fn read_message(
        &mut self,
        kind: u8,
        expected: &'static str,
    ) -> Result<(u8, String), OfferError> {
        let mut head = [0; 4];
        self.read_exact(&mut head).await?;
        let [got, version, value, length] = head;
        if got != kind || version != VERSION {
            return Err(OfferError::Unexpected { expected });
        }
        let mut text = vec![0; usize::from(length)];
        self.read_exact(&mut text).await?;
        let text = String::from_utf8(text).map_err(|_| OfferError::Unexpected { expected })?;
        Ok((value, text))
    }
}

/// The longest prefix of at most 255 bytes that ends between two characters.
fn at_most_255(text: &str) -> &str {
    let mut end = text.len().min(255);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}
