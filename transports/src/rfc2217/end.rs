//! What the two ends of a line behind a server have in common, for the IO around them.
use bytes::BytesMut;

use crate::line_notices::{LineNotices, OutLine};

/// Why a server is none for a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It does not let bytes pass as they are.
    Binary,
    /// It has no control of the port.
    ComPort,
}

/// One of them.
pub(super) trait End: Send + Unpin + 'static {
    /// Takes what came; the line's own bytes go into `data`.
    ///
    /// # Errors
    /// Once the other end refuses what the line needs, and from then on.
    fn receive(&mut self, input: &[u8], data: &mut BytesMut) -> Result<(), Refusal>;

    /// The other end takes no data now.
    fn is_suspended(&self) -> bool;

    /// Bytes to send.
    fn out(&mut self) -> &mut BytesMut;

    /// Data for the line.
    fn send(&mut self, data: &[u8]);

    /// Begins a break, or ends it.
    fn set_break(&mut self, on: bool);

    /// Raises one of the port's modem lines, or lowers it.
    fn set_line(&mut self, line: OutLine, on: bool);

    /// What was told of the port.
    fn notices(&self) -> LineNotices;

    /// The other end says nothing more, so nothing is waited for that it would have said. Whether it stopped between its words.
    fn ended(&mut self) -> bool;

    /// Whether the end of the connection is one in order; on a line itself nothing says that the peer meant to end.
    fn closes(&self) -> bool;
}
