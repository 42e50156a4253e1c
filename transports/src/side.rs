//! Which of two roles an end plays in a protocol that is not symmetric.
use std::fmt;

/// The role of one end in TLS, in the mux, or in both; it does not depend on who dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Speaks first: sends the ClientHello, opens odd stream numbers.
    Client,
    /// Answers: sends the ServerHello, opens even stream numbers.
    Server,
}

impl Side {
    /// The role of the other end.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Server => "server",
        })
    }
}
