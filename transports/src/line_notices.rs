//! What is known of a serial line beside its bytes.

/// What a serial server has told of its port (RFC 2217, section 3). Counts are those of its notices: what happens twice between two of
/// them counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LineNotices {
    /// The modem lines as they are now; none where it has not told of them.
    pub modem: Option<ModemLines>,
    /// Bytes that came faster than they were taken.
    pub overruns: u64,
    /// Characters with a wrong parity bit.
    pub parity_errors: u64,
    /// Characters without a stop bit in its place: most often another rate.
    pub framing_errors: u64,
    /// Breaks that came in.
    pub breaks: u64,
}

/// The lines that the device at the other end of the cable drives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModemLines {
    /// Clear to send.
    pub cts: bool,
    /// Data set ready.
    pub dsr: bool,
    /// Ring indicator.
    pub ring: bool,
    /// Carrier detect.
    pub carrier: bool,
}

/// A modem line that this end drives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutLine {
    /// Data terminal ready.
    Dtr,
    /// Request to send. Hardware flow control and RS-485 have it for themselves.
    Rts,
}
