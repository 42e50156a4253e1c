//! Why a link ended.

use std::io;

use cepa_transports::SharedError;

/// Why a link ended before both directions had. Each text is one line and says what to do.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The other end is a new instance of itself: what was under way to the old one is gone.
    #[error("link: the other end restarted")]
    Restarted,
    /// The other end dropped the link without ending its stream.
    #[error("link: the other end closed the link before its stream had ended")]
    Reset,
    /// Nothing valid was heard for too long.
    #[error(
        "link: nothing was heard for {seconds} s; check the cable, the baud rate, and that the other end runs"
    )]
    Silent {
        /// How long.
        seconds: u64,
    },
    /// The other end speaks a later or another version of the link's protocol.
    #[error(
        "link: the other end speaks version {theirs} of the protocol, this end version {ours}; use the same release at both"
    )]
    Version {
        /// The other end's.
        theirs: u8,
        /// Ours.
        ours: u8,
    },
    /// The stream below ended, which says nothing of whether the other end was done.
    #[error("link: the stream below ended before the link was closed")]
    Truncated,
    /// The stream below failed.
    #[error("link: {0}")]
    Io(#[source] SharedError),
    /// The link's driver was dropped.
    #[error("link: its driver is gone; keep the driver polled as long as the link is used")]
    DriverGone,
}

impl LinkError {
    /// Whether another link may do better, with nothing changed here.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        !matches!(self, Self::Version { .. } | Self::DriverGone)
    }
}

impl From<LinkError> for io::Error {
    fn from(error: LinkError) -> Self {
        let kind = match &error {
            LinkError::Restarted | LinkError::Reset => io::ErrorKind::ConnectionReset,
            LinkError::Silent { .. } => io::ErrorKind::TimedOut,
            LinkError::Version { .. } => io::ErrorKind::InvalidData,
            LinkError::Truncated => io::ErrorKind::UnexpectedEof,
            LinkError::Io(error) => error.kind(),
            LinkError::DriverGone => io::ErrorKind::NotConnected,
        };
        Self::new(kind, error)
    }
}
