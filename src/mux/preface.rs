//! What has to come first on a stream before its bytes are the reader's: the answer to a request that its opener did not wait for.
//!
//! ```text
//!   what arrives:   [ preface ][ the reader's bytes ...
//!                    ^ eaten by who has set it, as soon as anybody reads; a writer looks as well, and never waits for it
//! ```
//!
//! The mux does not know what it is, only where it ends. If it says no, the stream is reset, which drops what is queued at either
//! end, and every call from then on gets the same error. When it is too late for it, the engine ends the stream: the clock is the session's, so that
//! it runs for who only writes as well.

use std::io;

/// What comes first, and what became of it.
pub(crate) trait Preface: Send + Sync {
    /// Looks at what has arrived, as far as it was not taken before, and takes of it what is its own.
    fn take(&mut self, bytes: &[u8]) -> Step;

    /// The stream has ended before it was whole: by an error, or by the peer's FIN.
    fn cut(&mut self, error: Option<&io::Error>);

    /// Why the stream is of no use; once there is one, the same at each call.
    fn error(&self) -> Option<io::Error>;
}

/// How far a preface has come.
pub(crate) enum Step {
    /// All of the bytes are its own, and there is more to come.
    More,
    /// So many of the bytes were its last ones; what follows is the reader's.
    Done(usize),
    /// It says no, or makes no sense.
    Failed,
}
