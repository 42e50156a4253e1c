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
//! A server's connection comes about only when the client's hello has come whole: which of our
//! identities it shows, and in which form, depends on what the hello asks for. Until then there is
//! hardly anything in memory for a client that says nothing.
//!
//! A session whose trust policy may block takes the records of its handshake wherever its owner moves it to: see
//! [`Session::takes_apart`] and [`Session::take`]. What is left in its place meanwhile says and takes nothing.
//!
//! One record at a time costs a reallocation a record, because rustls shrinks its buffer whenever
//! it is empty. The five header bytes of the record behind are therefore handed over early where
//! they are at hand. They still count as unread here: should the record turn out to be the last of
//! its layer, they are where they belong.

use std::io::{self, BufRead, IoSlice, Write};

use cepa_transports::Side;
use rustls::server::Acceptor;
use rustls::{ClientConnection, ProtocolVersion};

use super::config::TlsConfig;
use super::error::TlsError;
use super::peer::Peer;
use super::record::{self, Front};
use super::shown::Asked;
use super::verifier::Verdict;

/// From this length of a record on, keeping rustls's buffer saves more than it costs.
const WORTH_FEEDING_AHEAD: usize = 4096;

/// One TLS session, without IO.
pub(crate) struct Connection {
    stage: Stage,
    config: TlsConfig,
    /// Why the peer was refused, if it was, and what else rustls does not keep.
    verdict: Verdict,
    /// Not a record has come yet.
    untouched: bool,
    /// Something came that is no record: nothing behind it is looked at. rustls may still wait for
    /// the rest of it.
    nonsense: bool,
    /// How many bytes of the next record rustls has been given early.
    ahead: usize,
    /// About how many sealed bytes wait in rustls; exact after `feed` and at zero.
    queued: usize,
    /// The peer's close_notify has been read.
    peer_closed: bool,
    /// Set by our own close_notify: how many bytes, up to its end, may still leave.
    left_to_close: Option<usize>,
    /// The trust policy may block.
    may_block: bool,
}

enum Stage {
    /// A server that has not seen a whole hello.
    Hello(Acceptor),
    /// A server that will not see one, or has refused it: what is left to say.
    Over(Vec<u8>),
    Live(rustls::Connection),
    /// In the place of a session of this role that was [taken](Session::take).
    Away(Side),
}

/// Alerts in the clear (RFC 8446 sections 5.1 and 6), for what is refused before there is a key.
/// A close in the clear would be passed over in a handshake: anybody on the way could have sent it.
const USER_CANCELED: [u8; 7] = [21, 3, 3, 0, 2, 2, 90];
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

impl Connection {
    /// A session before its handshake: as client it has a ClientHello to send.
    pub(crate) fn new(side: Side, config: &TlsConfig) -> Result<Self, TlsError> {
        let (stage, verdict) = match side {
            Side::Client => {
                let (client, verdict) = config.client();
                let conn = ClientConnection::new(client, config.server_name()?)
                    .map_err(|error| TlsError::from_rustls(&error, &verdict, side))?;
                (live(rustls::Connection::Client(conn)), verdict)
            }
            Side::Server => (Stage::Hello(Acceptor::default()), Verdict::default()),
        };
        Ok(Self {
            stage,
            config: config.clone(),
            verdict,
            untouched: true,
            nonsense: false,
            ahead: 0,
            queued: 0,
            peer_closed: false,
            left_to_close: None,
            may_block: config.may_block(),
        })
    }

    /// Takes the session out, to be put back; what is left in its place says and takes nothing.
    pub(crate) fn take(&mut self) -> Self {
        let left = Self {
            stage: Stage::Away(self.side()),
            config: self.config.clone(),
            verdict: self.verdict.blank(),
            untouched: self.untouched,
            nonsense: self.nonsense,
            ahead: 0,
            queued: 0,
            peer_closed: false,
            left_to_close: None,
            may_block: self.may_block,
        };
        std::mem::replace(self, left)
    }

    /// Whether the policy may be asked in any record that comes now, and may block.
    pub(crate) fn feeds_apart(&self) -> bool {
        match &self.stage {
            Stage::Hello(_) | Stage::Over(_) => false,
            Stage::Live(conn) => self.may_block && conn.is_handshaking(),
            Stage::Away(_) => true,
        }
    }

    /// Whether the record at the front of `input` is not to be taken here, or the session is not here to take it.
    pub(crate) fn takes_apart(&self, input: &[u8]) -> bool {
        let away = matches!(self.stage, Stage::Away(_));
        away || (self.feeds_apart() && matches!(record::front(input), Front::Whole(_)))
    }

    /// Our role.
    pub(crate) fn side(&self) -> Side {
        match self.stage {
            Stage::Live(rustls::Connection::Client(_)) => Side::Client,
            Stage::Away(side) => side,
            _ => Side::Server,
        }
    }

    fn live(&self) -> Option<&rustls::Connection> {
        match &self.stage {
            Stage::Live(conn) => Some(conn),
            Stage::Hello(_) | Stage::Over(_) | Stage::Away(_) => None,
        }
    }

    fn live_mut(&mut self) -> Option<&mut rustls::Connection> {
        match &mut self.stage {
            Stage::Live(conn) => Some(conn),
            Stage::Hello(_) | Stage::Over(_) | Stage::Away(_) => None,
        }
    }

    /// Who is at the other end, and what was agreed, once the handshake is done.
    pub(crate) fn peer(&self) -> Result<Peer, TlsError> {
        let conn = self.live().ok_or(UNFINISHED)?;
        let name = match conn {
            rustls::Connection::Client(_) => None,
            rustls::Connection::Server(server) => server.server_name(),
        };
        let role = self.side().other();
        Peer::from_connection(conn, role, name, &self.config, &self.verdict)
    }

    /// 32 bytes that only the two ends of this connection can know (RFC 8446 section 7.5).
    pub(crate) fn export(&self, label: &[u8], context: &[u8]) -> Result<[u8; 32], TlsError> {
        let conn = self.live().ok_or(UNFINISHED)?;
        conn.export_keying_material([0; 32], label, Some(context))
            .map_err(|error| TlsError::from_rustls(&error, &self.verdict, self.side()))
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.live().is_none_or(|conn| conn.is_handshaking())
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
        let conn = self.live();
        let version = conn.and_then(|conn| conn.protocol_version());
        let tls12 = version == Some(ProtocolVersion::TLSv1_2);
        let suite = conn
            .and_then(|conn| conn.negotiated_cipher_suite())
            .map(|s| s.suite());
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
        if self.nonsense {
            return Err(TlsError::BadRecord);
        }
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
            self.nonsense = true;
            return Err(match fed {
                _ if self.untouched => TlsError::not_tls(input),
                Err(error) => error,
                Ok(_) => TlsError::BadRecord,
            });
        }
        self.untouched = false;
        Ok(Some(Fed {
            record: len,
            plaintext: fed?,
        }))
    }

    fn process(&mut self, one: &[u8], behind: &[u8]) -> Result<usize, TlsError> {
        let rest = one.get(self.ahead..).unwrap_or_default();
        self.ahead = 0;
        match &mut self.stage {
            Stage::Hello(acceptor) => match hand_over(rest, |bytes| acceptor.read_tls(bytes)) {
                Ok(()) => self.accept(),
                Err(error) => Err(self.failed(&error)),
            },
            Stage::Over(_) | Stage::Away(_) => Err(UNFINISHED),
            Stage::Live(conn) => {
                let mut handed = hand_over(rest, |bytes| conn.read_tls(bytes));
                let early = one.len() >= WORTH_FEEDING_AHEAD
                    && !conn.is_handshaking()
                    && record::front(behind) != Front::Invalid;
                if let Some(header) = behind.get(..record::HEADER).filter(|_| early) {
                    handed = handed.and_then(|()| hand_over(header, |bytes| conn.read_tls(bytes)));
                    self.ahead = record::HEADER;
                }
                match handed {
                    Ok(()) => self.process_new(),
                    Err(error) => Err(self.failed(&error)),
                }
            }
        }
    }

    /// Lets rustls look at what it was handed.
    fn process_new(&mut self) -> Result<usize, TlsError> {
        let Stage::Live(conn) = &mut self.stage else {
            return Ok(0);
        };
        // Behind the handshake nobody is judged.
        let processed = if conn.is_handshaking() {
            self.verdict.during(|| conn.process_new_packets())
        } else {
            conn.process_new_packets()
        };
        let state = match processed {
            Ok(state) => state,
            Err(error) => return Err(self.failed(&error)),
        };
        self.queued = state.tls_bytes_to_write();
        if state.peer_has_closed() {
            self.peer_closed = true;
            self.ahead = 0;
        }
        Ok(state.plaintext_bytes_to_read())
    }

    /// Makes the connection once the hello is whole.
    fn accept(&mut self) -> Result<usize, TlsError> {
        let Stage::Hello(acceptor) = &mut self.stage else {
            return Ok(0);
        };
        let accepted = match acceptor.accept() {
            Ok(Some(accepted)) => accepted,
            Ok(None) => return Ok(0),
            Err((error, mut alert)) => {
                self.stage = Stage::Over(words(|out| alert.write_all(out)));
                return Err(self.failed(&error));
            }
        };
        let (config, verdict) = match self.config.server(&Asked::of(&accepted.client_hello())) {
            Ok(chosen) => chosen,
            Err(error) => {
                self.stage = Stage::Over(UNRECOGNIZED_NAME.to_vec());
                return Err(error);
            }
        };
        self.verdict = verdict;
        match self.verdict.during(|| accepted.into_connection(config)) {
            Ok(conn) => {
                self.stage = live(rustls::Connection::Server(conn));
                self.process_new()
            }
            Err((error, mut alert)) => {
                self.stage = Stage::Over(words(|out| alert.write_all(out)));
                Err(self.failed(&error))
            }
        }
    }

    fn failed(&self, error: &rustls::Error) -> TlsError {
        TlsError::from_rustls(error, &self.verdict, self.side())
    }

    /// The plaintext at hand, the first piece of it.
    pub(crate) fn plaintext(&mut self) -> &[u8] {
        self.live_mut()
            .and_then(|conn| conn.reader().into_first_chunk().ok())
            .unwrap_or_default()
    }

    /// Marks the first `n` bytes of [`plaintext`](Self::plaintext) as read.
    pub(crate) fn consume(&mut self, n: usize) {
        if let Some(conn) = self.live_mut() {
            conn.reader().consume(n);
        }
    }

    /// Seals all of `parts`, as few records as they fit in; returns how many bytes that were.
    pub(crate) fn seal(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let conn = self.live_mut().ok_or(UNFINISHED)?;
        let n = conn.writer().write_vectored(parts)?;
        self.queued += n + n.div_ceil(record::MAX_PLAINTEXT) * self.overhead();
        Ok(n)
    }

    /// Whether sealed bytes wait to leave.
    pub(crate) fn wants_write(&self) -> bool {
        match &self.stage {
            Stage::Hello(_) | Stage::Away(_) => false,
            Stage::Over(words) => !words.is_empty(),
            Stage::Live(conn) => self.left_to_close != Some(0) && conn.wants_write(),
        }
    }

    /// About how many bytes wait to leave.
    pub(crate) fn queued(&self) -> usize {
        match &self.stage {
            Stage::Over(words) => words.len(),
            _ if self.wants_write() => self.queued,
            _ => 0,
        }
    }

    /// Writes sealed bytes to `out` with one vectored write.
    pub(crate) fn emit(&mut self, out: &mut dyn Write) -> io::Result<usize> {
        let conn = match &mut self.stage {
            Stage::Hello(_) | Stage::Away(_) => return Ok(0),
            Stage::Over(words) => {
                let n = out.write(words)?;
                words.drain(..n.min(words.len()));
                return Ok(n);
            }
            Stage::Live(conn) => conn,
        };
        let n = match &mut self.left_to_close {
            None => conn.write_tls(out)?,
            Some(left) => {
                let n = conn.write_tls(&mut UpTo { out, limit: *left })?;
                *left -= n.min(*left);
                n
            }
        };
        self.queued = self.queued.saturating_sub(n);
        if !conn.wants_write() {
            self.queued = 0;
        }
        Ok(n)
    }

    /// Queues a close_notify behind all that was sealed, once; nothing can be sealed after it.
    pub(crate) fn close(&mut self) {
        if self.left_to_close.is_some() {
            return;
        }
        match &mut self.stage {
            Stage::Hello(_) => {
                self.stage = Stage::Over(USER_CANCELED.to_vec());
                self.left_to_close = Some(USER_CANCELED.len());
            }
            Stage::Over(_) | Stage::Away(_) => {}
            Stage::Live(conn) => {
                conn.send_close_notify();
                // A session that has failed gives no state any more; its alert is its last word
                // anyway.
                if let Ok(state) = conn.process_new_packets() {
                    self.left_to_close = Some(state.tls_bytes_to_write());
                    self.queued = state.tls_bytes_to_write();
                }
            }
        }
    }
}

const UNFINISHED: TlsError = TlsError::Misuse {
    what: "the TLS handshake has not finished",
};

fn live(mut conn: rustls::Connection) -> Stage {
    // The onion bounds what waits, over all its layers; a second limit here would cut records.
    conn.set_buffer_limit(None);
    Stage::Live(conn)
}

/// Hands all bytes to rustls, which takes at most 4 KiB a call from an empty buffer.
fn hand_over(
    mut bytes: &[u8],
    mut read: impl FnMut(&mut &[u8]) -> io::Result<usize>,
) -> Result<(), rustls::Error> {
    while !bytes.is_empty() {
        match read(&mut bytes) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => return Err(rustls::Error::General(error.to_string())),
        }
    }
    Ok(())
}

/// What `write` writes; memory takes everything.
fn words(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Vec<u8> {
    let mut words = Vec::new();
    let _ = write(&mut words);
    words
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
