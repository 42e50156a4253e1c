//! Why nothing comes of a dial, of a listener, or of a handshake.
use std::io;

use quinn::{ConnectionError, TransportErrorCode};

use super::stream;
use crate::endpoint::{Endpoint, QuicSettings};
use crate::error::{Action, TransportError, TransportErrorKind as Kind};
use crate::text::clean;

/// UDP goes by no proxy of ours, and what all others go by is not to be passed by unasked.
pub(super) fn by_no_proxy(
    action: Action,
    endpoint: &Endpoint,
    settings: &QuicSettings,
) -> Result<(), TransportError> {
    let Some(proxy) = &settings.proxy else {
        return Ok(());
    };
    Err(TransportError::new(
        action,
        endpoint,
        Kind::Invalid,
        format!("QUIC goes by no proxy, and {proxy} is asked for"),
        "dial tcp: or wss: by it; or leave the proxy out, by NO_PROXY or --proxy none where the address does not name it",
    ))
}

/// Only a mistake of this crate's: the settings have been looked at before.
pub(super) fn unusable(action: Action, endpoint: &Endpoint, why: &str) -> TransportError {
    let advice = "please report this";
    TransportError::new(action, endpoint, Kind::Other, why, advice)
}

/// Why a handshake came to nothing.
pub(super) fn not_connected(error: &ConnectionError) -> io::Error {
    let no_protocol = TransportErrorCode::crypto(rustls_alert::NO_APPLICATION_PROTOCOL);
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    match error {
        ConnectionError::ConnectionClosed(close) if close.error_code == no_protocol => {
            wrong("a QUIC server answers, and knows nothing of the protocol \"cepa\"")
        }
        ConnectionError::TransportError(error) if error.code == no_protocol => {
            wrong("a QUIC server answers, and did not choose the protocol \"cepa\"")
        }
        ConnectionError::ConnectionClosed(close)
            if close.error_code == TransportErrorCode::CONNECTION_REFUSED =>
        {
            let what = "it takes no connection now";
            io::Error::new(io::ErrorKind::ConnectionRefused, what)
        }
        ConnectionError::VersionMismatch => {
            wrong("a QUIC server answers, in other versions of QUIC than this one")
        }
        ConnectionError::ConnectionClosed(close) => {
            let why = clean(&close.to_string(), 200).into_owned();
            wrong(&format!("the other end gave up the handshake: {why}"))
        }
        ConnectionError::TransportError(error) => {
            let why = clean(&error.to_string(), 200).into_owned();
            wrong(&format!("the handshake failed: {why}"))
        }
        ConnectionError::TimedOut => io::Error::new(io::ErrorKind::TimedOut, "no answer in time"),
        other => stream::of_connection(other),
    }
}

/// Numbers of TLS alerts (RFC 8446, section 6).
mod rustls_alert {
    pub(super) const NO_APPLICATION_PROTOCOL: u8 = 120;
}
