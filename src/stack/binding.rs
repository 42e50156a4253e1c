//! Binds a session to the connection that it runs on, and to who both ends believe to be there.
//!
//! TLS proves that the other end holds a key. It does not prove that both ends mean the same: that
//! the peer, too, takes *our* key for the one at the other end of *this* connection, with the same
//! layers around it. Where they differ, an attacker who never breaks a key can still have one peer's
//! words taken for another's (unknown key share), send us our own words back (reflection), or join
//! inner and outer layers that never belonged together (misbinding).
//!
//! So each side sends, as the first bytes inside the innermost layer,
//!
//! ```text
//! version  binding
//! 01       32 bytes: the exporter of the innermost layer (RFC 8446 section 7.5), label
//!          "EXPERIMENTAL-cepa-session", context as below
//!
//! context  version  role of the sender  layers  then for each layer, the outermost first:
//!          01       00 client           01..08    length  ALPN, and the client's and the server's
//!                   01 server                     01..ff  id, 32 bytes each
//!          and then for each layer but the innermost its own exporter, 32 bytes: label
//!          "EXPERIMENTAL-cepa-layer", no context
//! ```
//!
//! and takes no other byte before the peer's has come and is the expected one. The ids stand in the
//! context because a TLS 1.3 exporter follows from the handshake up to the server's Finished: the
//! client's certificate comes behind that.

use cepa_transports::{ByteStream, Side};
use subtle::ConstantTimeEq;

use crate::identity::PeerId;
use crate::onion::{LayerInfo, Onion};
use crate::tls::TlsError;

/// The first byte. A mux that comes without a binding begins with 0, its own version.
const VERSION: u8 = 1;

const SESSION_LABEL: &[u8] = b"EXPERIMENTAL-cepa-session";
const LAYER_LABEL: &[u8] = b"EXPERIMENTAL-cepa-layer";

/// RFC 9266: the channel binding `tls-exporter`.
const TLS_EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

/// What the two ends of a session say to each other before all else.
#[derive(Clone, Copy)]
pub struct Binding {
    ours: [u8; Binding::LENGTH],
    theirs: [u8; Binding::LENGTH],
}

/// Why a session is not bound to this connection. Each text is one line and says what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BindingError {
    /// The peer means another connection, another peer or other layers than we do.
    #[error(
        "the peer sees another connection, other keys or other layers than this end: something in between may read or change the data; do not trust this path"
    )]
    Mismatch,
    /// The peer begins a session in a way that is not ours.
    #[error(
        "the peer did not bind its session to TLS (its first byte is {first:#04x}): do both ends run the same version?"
    )]
    Unknown {
        /// The first byte that it sent.
        first: u8,
    },
}

impl Binding {
    /// Bytes of one on the wire.
    pub const LENGTH: usize = 33;

    /// The binding of a session on this stack of layers, all of which stand; `side` is our role in
    /// the innermost one.
    ///
    /// # Errors
    /// [`TlsError::Misuse`] where there is no layer.
    pub fn of<T: ByteStream>(onion: &Onion<T>, side: Side) -> Result<Self, TlsError> {
        let layers = onion.layers();
        let Some(innermost) = layers.len().checked_sub(1) else {
            return Err(TlsError::Misuse {
                what: "a session needs a TLS layer",
            });
        };
        let mut outer = Vec::with_capacity(innermost);
        for layer in 0..innermost {
            outer.push(onion.export_keying_material(layer, LAYER_LABEL, &[])?);
        }
        let said_by = |sender: Side| {
            let context = context(layers, &outer, sender);
            let value = onion.export_keying_material(innermost, SESSION_LABEL, &context)?;
            let mut said = [VERSION; Binding::LENGTH];
            let [_, rest @ ..] = &mut said;
            rest.copy_from_slice(&value);
            Ok::<_, TlsError>(said)
        };
        Ok(Self {
            ours: said_by(side)?,
            theirs: said_by(side.other())?,
        })
    }

    /// What we send first.
    pub fn ours(&self) -> &[u8; Self::LENGTH] {
        &self.ours
    }

    /// Checks what the peer has sent first, in constant time.
    pub fn check(&self, said: &[u8; Self::LENGTH]) -> Result<(), BindingError> {
        match said {
            [VERSION, ..] if bool::from(said.ct_eq(&self.theirs)) => Ok(()),
            [VERSION, ..] => Err(BindingError::Mismatch),
            [first, ..] => Err(BindingError::Unknown { first: *first }),
        }
    }
}

impl std::fmt::Debug for Binding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Binding").finish_non_exhaustive()
    }
}

/// The channel binding of RFC 9266, of the innermost layer.
pub(crate) fn tls_exporter<T: ByteStream>(onion: &Onion<T>) -> Result<[u8; 32], TlsError> {
    let innermost = onion.depth().saturating_sub(1);
    onion.export_keying_material(innermost, TLS_EXPORTER_LABEL, &[])
}

fn context(layers: &[LayerInfo], outer: &[[u8; 32]], sender: Side) -> Vec<u8> {
    let role = match sender {
        Side::Client => 0,
        Side::Server => 1,
    };
    // Eight layers at most, and ALPN names of 255 bytes at most: both fit their byte.
    let mut bytes = vec![VERSION, role, u8::try_from(layers.len()).unwrap_or(u8::MAX)];
    for layer in layers {
        let alpn = layer.peer().alpn().unwrap_or_default();
        let (client, server) = ids(layer);
        bytes.push(u8::try_from(alpn.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(alpn);
        bytes.extend_from_slice(client.as_bytes());
        bytes.extend_from_slice(server.as_bytes());
    }
    for exported in outer {
        bytes.extend_from_slice(exported);
    }
    bytes
}

/// Who is the client of a layer, and who the server.
fn ids(layer: &LayerInfo) -> (PeerId, PeerId) {
    let (ours, theirs) = (layer.peer().local_id(), layer.peer().id());
    match layer.side() {
        Side::Client => (ours, theirs),
        Side::Server => (theirs, ours),
    }
}
