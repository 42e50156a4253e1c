//! What the two ends of a connection say to each other beside the bytes of its stream; docs/PROTOCOL.md has it.
use quinn::VarInt;

/// The one protocol of the connection (RFC 7301).
pub(super) const ALPN: &[u8] = b"cepa";

/// What the dialler sends first, so that the listener's end sees the stream.
pub(super) const HELLO: u8 = 0;

/// With what a connection is closed (RFC 9000, section 20.2). quinn's own, of one that nobody holds any more: nobody has read to the end.
pub(super) const FORGOTTEN: VarInt = VarInt::from_u32(0);
/// Its end was not said: something is missing.
pub(super) const CUT: VarInt = VarInt::from_u32(1);
/// What was to be said there is said, and nobody reads any more what comes from here.
pub(super) const UNREAD: VarInt = VarInt::from_u32(2);
/// Both directions had ended before. A code that is said on purpose only, since whoever wrote takes it for an acknowledgement of all.
pub(super) const END: VarInt = VarInt::from_u32(3);
