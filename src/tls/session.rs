//! One TLS session that is fed exactly one record at a time: the only file that names rustls's
//! connection types, so that its next API is one file's change.
//!
//! What the onion above needs and rustls does not promise by itself:
//!
//! - **Nothing behind a close_notify is swallowed.** rustls drops what it has buffered behind the
//!   peer's close_notify; so it never gets to see it. [`Session::feed`] takes one record.
//! - **Nothing leaves behind our own close_notify.** rustls still queues records then (an alert for
//!   a bad record, the answer to a KeyUpdate), and they would land in the plaintext of the layer
//!   below. [`Session::close`] notes how many bytes may still leave; the rest is discarded.
//! - **The peer's close is kept.** rustls tells it only in the state that it returns once.
//!
//! One record at a time costs a reallocation a record, because rustls shrinks its buffer whenever
//! it is empty. The five header bytes of the record behind are therefore handed over early where
//! they are at hand. They still count as unread here: should the record turn out to be the last of
//! its layer, they are where they belong.

use std::io::{self, BufRead, IoSlice, Write};

use cepa_transports::Side;
use rustls::{ClientConnection, Connection, ProtocolVersion, ServerConnection};

use super::config::TlsConfig;
use super::error::TlsError;
use super::peer::Peer;
use super::record::{self, Front};
use super::verifier::Verdict;

/// From this length of a record on, keeping rustls's buffer saves more than it costs.
const WORTH_FEEDING_AHEAD: usize = 4096;

/// One TLS session, without IO.
pub(crate) struct Session {
    conn: Connection,
    config: TlsConfig,
    /// Why the peer was refused, if it was.
    verdict: Verdict,
    /// Not a record has come yet.
    untouched: bool,
    /// How many bytes of the next record rustls has been given early.
    ahead: usize,
    /// About how many sealed bytes wait in rustls; exact after `feed` and at zero.
    queued: usize,
    /// The peer's close_notify has been read.
    peer_closed: bool,
    /// Set by our own close_notify: how many bytes, up to its end, may still leave.
    left_to_close: Option<usize>,
}

impl Session {
    /// A session before its handshake: as client it has a ClientHello to send.
    pub(crate) fn new(side: Side, config: &TlsConfig) -> Result<Self, TlsError> {
        let (conn, verdict) = match side {
            Side::Client => {
                let (client, verdict) = config.client();
                let conn = ClientConnection::new(client, config.server_name());
                (conn.map(Connection::Client), verdict)
            }
            Side::Server => {
                let (server, verdict) = config.server()?;
                (
                    ServerConnection::new(server).map(Connection::Server),
                    verdict,
                )
            }
        };
        let mut conn = conn.map_err(|error| TlsError::from_rustls(&error, &verdict, side))?;
        // The onion bounds what waits, over all its layers; a second limit here would cut records.
        conn.set_buffer_limit(None);
        Ok(Self {
            conn,
            config: config.clone(),
            verdict,
            untouched: true,
            ahead: 0,
            queued: 0,
            peer_closed: false,
            left_to_close: None,
        })
    }

    /// Our role.
    pub(crate) fn side(&self) -> Side {
        match self.conn {
            Connection::Client(_) => Side::Client,
            Connection::Server(_) => Side::Server,
        }
    }

    /// Who is at the other end, and what was agreed, once the handshake is done.
    pub(crate) fn peer(&self) -> Result<Peer, TlsError> {
        let name = match &self.conn {
            Connection::Client(_) => None,
            Connection::Server(server) => server.server_name(),
        };
        Peer::from_connection(&self.conn, name, &self.config)
    }

    /// 32 bytes that only the two ends of this connection can know (RFC 8446 section 7.5).
    pub(crate) fn export(&self, label: &[u8], context: &[u8]) -> Result<[u8; 32], TlsError> {
        self.conn
            .export_keying_material([0; 32], label, Some(context))
            .map_err(|error| TlsError::from_rustls(&error, &self.verdict, self.side()))
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.conn.is_handshaking()
    }

    /// The peer has said that it sends nothing more in this layer.
    pub(crate) fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// How many bytes a record is longer than its plaintext.
    pub(crate) fn overhead(&self) -> usize {
        // TLS 1.3: header 5, content type 1, tag 16 (RFC 8446 section 5.2). TLS 1.2: header 5, tag
        // 16, and 8 of explicit nonce with AES-GCM (RFC 5288 section 3), none with ChaCha20
        // (RFC 7905 section 2).
        let tls12 = self.conn.protocol_version() == Some(ProtocolVersion::TLSv1_2);
        let suite = self.conn.negotiated_cipher_suite().map(|s| s.suite());
        let chacha = suite
            .and_then(|s| s.as_str())
            .is_some_and(|name| name.contains("CHACHA20"));
        match (tls12, chacha) {
            (false, _) => 22,
            (true, true) => 21,
            (true, false) => 29,
        }
    }

    /// Takes the one record at the front of `input` and returns its length and how many bytes of
    /// plaintext it brought, or `None` while it is not whole. The caller keeps what stands behind
    /// it, and has read all plaintext of the record before.
    pub(crate) fn feed(&mut self, input: &[u8]) -> Result<Option<Fed>, TlsError> {
        let front = record::front(input);
        let len = match front {
            Front::Whole(len) => len,
            Front::Partial => return Ok(None),
            // rustls words the alert; it needs the header for that, and no more than the header.
            Front::Invalid => input.len().min(record::HEADER),
        };
        let (one, behind) = input.split_at_checked(len).unwrap_or((input, &[]));
        let fed = self.process(one, behind);
        if front == Front::Invalid {
            return Err(match fed {
                _ if self.untouched => TlsError::not_tls(input),
                Err(error) => TlsError::from_rustls(&error, &self.verdict, self.side()),
                Ok(_) => TlsError::BadRecord,
            });
        }
        self.untouched = false;
        let plaintext =
            fed.map_err(|error| TlsError::from_rustls(&error, &self.verdict, self.side()))?;
        Ok(Some(Fed {
            record: len,
            plaintext,
        }))
    }

    fn process(&mut self, one: &[u8], behind: &[u8]) -> Result<usize, rustls::Error> {
        self.hand_over(one.get(self.ahead..).unwrap_or_default())?;
        self.ahead = 0;
        if one.len() >= WORTH_FEEDING_AHEAD && !self.conn.is_handshaking() {
            let header = behind.get(..record::HEADER);
            if let (Some(header), false) = (header, record::front(behind) == Front::Invalid) {
                self.hand_over(header)?;
                self.ahead = record::HEADER;
            }
        }
        let state = self.conn.process_new_packets()?;
        self.queued = state.tls_bytes_to_write();
        if state.peer_has_closed() {
            self.peer_closed = true;
            self.ahead = 0;
        }
        Ok(state.plaintext_bytes_to_read())
    }

    fn hand_over(&mut self, mut bytes: &[u8]) -> Result<(), rustls::Error> {
        // rustls takes at most 4 KiB a call from an empty buffer.
        while !bytes.is_empty() {
            match self.conn.read_tls(&mut bytes) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => return Err(rustls::Error::General(error.to_string())),
            }
        }
        Ok(())
    }

    /// The plaintext at hand, the first piece of it.
    pub(crate) fn plaintext(&mut self) -> &[u8] {
        self.conn.reader().into_first_chunk().unwrap_or_default()
    }

    /// Marks the first `n` bytes of [`plaintext`](Self::plaintext) as read.
    pub(crate) fn consume(&mut self, n: usize) {
        self.conn.reader().consume(n);
    }

    /// Seals all of `parts`, as few records as they fit in; returns how many bytes that were.
    pub(crate) fn seal(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let n = self.conn.writer().write_vectored(parts)?;
        self.queued += n + n.div_ceil(record::MAX_PLAINTEXT) * self.overhead();
        Ok(n)
    }

    /// Whether sealed bytes wait to leave.
    pub(crate) fn wants_write(&self) -> bool {
        self.left_to_close != Some(0) && self.conn.wants_write()
    }

    /// About how many bytes wait to leave.
    pub(crate) fn queued(&self) -> usize {
        if self.wants_write() { self.queued } else { 0 }
    }

    /// Writes sealed bytes to `out` with one vectored write.
    pub(crate) fn emit(&mut self, out: &mut dyn Write) -> io::Result<usize> {
        let n = match &mut self.left_to_close {
            None => self.conn.write_tls(out)?,
            Some(left) => {
                let n = self.conn.write_tls(&mut UpTo { out, limit: *left })?;
                *left -= n.min(*left);
                n
            }
        };
        self.queued = self.queued.saturating_sub(n);
        if !self.conn.wants_write() {
            self.queued = 0;
        }
        Ok(n)
    }

    /// Queues a close_notify behind all that was sealed, once; nothing can be sealed after it.
    pub(crate) fn close(&mut self) {
        if self.left_to_close.is_some() {
            return;
        }
        self.conn.send_close_notify();
        // A session that has failed gives no state any more; its alert is its last word anyway.
        if let Ok(state) = self.conn.process_new_packets() {
            self.left_to_close = Some(state.tls_bytes_to_write());
            self.queued = state.tls_bytes_to_write();
        }
    }
}

/// What one record came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fed {
    /// Its length, header included.
    pub(crate) record: usize,
    /// The plaintext that it held.
    pub(crate) plaintext: usize,
}

/// Lets only the first `limit` bytes through.
struct UpTo<'a> {
    out: &'a mut dyn Write,
    limit: usize,
}

impl Write for UpTo<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(self.limit);
        self.out.write(bytes.get(..n).unwrap_or_default())
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut left = self.limit;
        let mut kept = Vec::with_capacity(parts.len());
        for part in parts {
            let n = part.len().min(left);
            left -= n;
            kept.push(IoSlice::new(part.get(..n).unwrap_or_default()));
        }
        self.out.write_vectored(&kept)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
