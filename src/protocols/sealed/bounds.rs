//! How large things may be.

/// Longest body of a request or an answer in bytes. One message has to fit the two bytes of length that all messages
/// have, and a carrier holds it whole; what is larger is for a session.
pub const MAX_BODY: usize = 48 * 1024;
/// Longest statements about former keys in bytes: eight of the usual kinds, or three of the largest RSA keys.
pub(super) const MAX_FORMER: usize = 8192;
/// Longest sealed message in bytes: a body, an RSA key and its signature, statements about former keys, and what is between them.
pub const MAX_SEALED: usize = MAX_BODY + 4096 + MAX_FORMER;
/// Longest sealing key in bytes.
pub(super) const MAX_KEY: usize = 2048 + MAX_FORMER;
