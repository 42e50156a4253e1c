//! TLS inside a substream, and what binds it to the service and the session that it was asked for in.
//!
//! The two ends of an inner layer know each other's keys, and yet may not mean the same: a peer in between, which has
//! a session with each of them, could join a substream that one opened for `x` to one that it opens itself for `y` at
//! the other. Both would find the key that they expect. So behind the inner handshake each side shows
//!
//! ```text
//! version  binding
//! 02       32 bytes: exporter of the inner layer (RFC 8446 section 7.5), label "EXPERIMENTAL-cepa-substream"
//!
//! context  version  role of the sender  form         service         client's id  server's id  session
//!          02       00 opener           00 here      length  name    32 bytes     32 bytes     32 bytes: tls-exporter
//!                   01 acceptor         01 through   00..ff  UTF-8                             (RFC 9266), "here" alone
//! ```
//!
//! and takes nothing else before it has seen the other's. The acceptor says its own first and then checks, so that
//! both ends find out; then it lets the opener in with one byte, which a TLS 1.3 client can't know from its own
//! handshake. The opener is always the TLS client. The ids stand there since an exporter follows from the handshake up
//! to the server's Finished, and so not from the client's certificate.
//!
//! An inner layer that is to end *beyond* the peer, on a third host, can't be bound to one session, as it passes
//! through two. Both of its ends ask for that form by a call of its own; a bit of the request says so, and what is
//! bound then is the service's name alone. Whoever did not ask for it is never given it.
//!
//! The version is 2 since the byte that lets in, 1, stood alone in this place once: an end of that time is told apart.

use cepa_transports::Side;
use subtle::ConstantTimeEq as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::error::{AcceptError, AnswerFault, OpenError, tls_inside};
use super::substream::ServiceStream;
use crate::identity::PeerId;
use crate::tls::{TlsConfig, TlsError};

const VERSION: u8 = 2;
const LABEL: &[u8] = b"EXPERIMENTAL-cepa-substream";
/// Version and exporter.
const LENGTH: usize = 33;

/// Behind the acceptor's binding: the opener was let in.
const LET_IN: u8 = 1;

/// What an inner layer is bound to.
pub(super) struct Bounds<'a> {
    /// As it stood in the request.
    pub(super) service: &'a str,
    /// The `tls-exporter` of the session; none where the layer ends beyond the peer.
    pub(super) session: Option<&'a [u8; 32]>,
}

/// What the two ends of an inner layer show each other.
struct Binding {
    ours: [u8; LENGTH],
    theirs: [u8; LENGTH],
}

/// The opener's part: the handshake, then the binding, both ways, until we were let in.
pub(super) async fn open(
    onion: &mut ServiceStream,
    inner: &TlsConfig,
    bounds: &Bounds<'_>,
) -> Result<(), OpenError> {
    let tls = |error: TlsError| OpenError::Tls(error.root().clone());
    onion.push(Side::Client, inner).await.map_err(tls)?;
    let binding = Binding::of(onion, Side::Client, bounds).map_err(tls)?;
    // Where this fails, what can be read says why: the acceptor may have refused us by now.
    let _ = async {
        onion.write_all(&binding.ours).await?;
        onion.flush().await
    }
    .await;
    let service = bounds.service;
    let lost = |error| match tls_inside(&error) {
        Some(tls) => OpenError::Tls(tls),
        None => OpenError::from_io(&error, service),
    };
    let unexpected = |got: u8, due: u8| OpenError::Protocol {
        service: service.into(),
        fault: AnswerFault::InnerTls { got, due },
    };
    let mut said = [0; LENGTH];
    let (first, rest) = said.split_at_mut(1);
    // By itself: an acceptor of another version may have no more to say.
    onion.read_exact(first).await.map_err(lost)?;
    if let [version] = first
        && *version != VERSION
    {
        return Err(unexpected(*version, VERSION));
    }
    onion.read_exact(rest).await.map_err(lost)?;
    if !binding.fits(&said) {
        return Err(OpenError::InnerBinding {
            service: service.into(),
        });
    }
    match onion.read_u8().await.map_err(lost)? {
        LET_IN => Ok(()),
        other => Err(unexpected(other, LET_IN)),
    }
}

/// The acceptor's part.
pub(super) async fn accept(
    onion: &mut ServiceStream,
    inner: &TlsConfig,
    bounds: &Bounds<'_>,
) -> Result<(), AcceptError> {
    let tls = |error: TlsError| AcceptError::Tls(error.root().clone());
    let lost = |error| AcceptError::from_io(&error);
    onion.push(Side::Server, inner).await.map_err(tls)?;
    let binding = Binding::of(onion, Side::Server, bounds).map_err(tls)?;
    let mut said = [0; LENGTH];
    let both = async {
        onion.write_all(&binding.ours).await?;
        onion.flush().await?;
        onion.read_exact(&mut said).await
    };
    both.await.map_err(lost)?;
    if !binding.fits(&said) {
        return Err(AcceptError::InnerBinding);
    }
    let let_in = async {
        onion.write_u8(LET_IN).await?;
        onion.flush().await
    };
    let_in.await.map_err(lost)
}

impl Binding {
    /// The inner layer stands; `side` is our role in it.
    fn of(onion: &ServiceStream, side: Side, bounds: &Bounds<'_>) -> Result<Self, TlsError> {
        let Some((layer, at)) = onion.layers().last().zip(onion.depth().checked_sub(1)) else {
            return Err(TlsError::Misuse {
                what: "there is no TLS inside the substream",
            });
        };
        let (ours, theirs) = (layer.peer().local_id(), layer.peer().id());
        let [client, server] = match side {
            Side::Client => [ours, theirs],
            Side::Server => [theirs, ours],
        };
        let said_by = |sender| {
            let context = bounds.context(sender, client, server);
            let value = onion.export_keying_material(at, LABEL, &context)?;
            let mut said = [VERSION; LENGTH];
            let [_, rest @ ..] = &mut said;
            rest.copy_from_slice(&value);
            Ok::<_, TlsError>(said)
        };
        Ok(Self {
            ours: said_by(side)?,
            theirs: said_by(side.other())?,
        })
    }

    /// Whether the other end means the same, in constant time.
    fn fits(&self, said: &[u8; LENGTH]) -> bool {
        said.ct_eq(&self.theirs).into()
    }
}

impl Bounds<'_> {
    fn context(&self, sender: Side, client: PeerId, server: PeerId) -> Vec<u8> {
        // A name that was sent has one byte of length.
        let length = u8::try_from(self.service.len()).unwrap_or(u8::MAX);
        let role = u8::from(sender == Side::Server);
        let form = u8::from(self.session.is_none());
        let mut bytes = vec![VERSION, role, form, length];
        bytes.extend_from_slice(self.service.as_bytes());
        bytes.extend_from_slice(client.as_bytes());
        bytes.extend_from_slice(server.as_bytes());
        if let Some(session) = self.session {
            bytes.extend_from_slice(session);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of docs/PROTOCOL.md.
    #[test]
    fn the_documented_contexts() {
        let [client, server] = [[0x11; 32], [0x22; 32]].map(PeerId::from_bytes);
        let here = Bounds {
            service: "db",
            session: Some(&[0x33; 32]),
        };
        let through = Bounds {
            session: None,
            ..here
        };
        let bytes = |head: &[u8], session: &[u8]| {
            [head, b"\x02db", &[0x11; 32], &[0x22; 32], session].concat()
        };
        assert_eq!(
            here.context(Side::Client, client, server),
            bytes(&[2, 0, 0], &[0x33; 32])
        );
        assert_eq!(
            here.context(Side::Server, client, server),
            bytes(&[2, 1, 0], &[0x33; 32])
        );
        assert_eq!(
            through.context(Side::Client, client, server),
            bytes(&[2, 0, 1], &[])
        );
    }
}
