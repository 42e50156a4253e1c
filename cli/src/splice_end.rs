//! What each end of a splice is told, by how the splice ended: one function, whose cases stand in `splice_table.txt`.
//!
//! A splice joins two streams of any kind (`splice.rs`); who owns it does what is said here, each kind of stream in its own way:
//! TCP is closed or reset, a command is left to end or killed, a substream is ended or reset; a Unix socket, a pipe and a
//! terminal know one end only, so that a cut is told by the exit status of whoever had them, or not at all. The table is
//! made by running splices over streams in memory (`splice_model.rs`), and `tests/splice.rs` runs every pair of kinds for real.

use std::io;

/// What ended a join before both ways did, or how both did.
#[derive(Debug)]
pub(crate) enum Ended {
    /// Each way came to its end, or its taker left: `near_left` and `far_left` say so.
    Both {
        near_left: Option<io::Error>,
        far_left: Option<io::Error>,
    },
    /// The near stream could not be read.
    Near(io::Error),
    /// The far stream could not be read.
    Far(io::Error),
    /// The near stream takes no more, and its owner wants nothing without it.
    NearLeft(io::Error),
}

/// What one end of a splice is told, behind all that was written to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closing {
    /// An end: it has got all there was.
    End,
    /// An end, and that nobody takes the rest of what it says.
    Unwanted,
    /// That something is missing: a reset, a signal, a status other than 0.
    Cut,
}

/// What both ends are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) near: Closing,
    pub(crate) far: Closing,
}

/// What the ends of a splice are told that ended so.
pub(crate) fn verdict(ended: &Ended) -> Verdict {
    let unless = |left: &Option<io::Error>| match left {
        Some(_) => Closing::Unwanted,
        None => Closing::End,
    };
    match ended {
        Ended::Both {
            near_left,
            far_left,
        } => Verdict {
            near: unless(far_left),
            far: unless(near_left),
        },
        // Whoever was cut hears nothing any more.
        Ended::Near(_) | Ended::Far(_) => Verdict {
            near: Closing::Cut,
            far: Closing::Cut,
        },
        // The owner wants nothing without the near stream, and the far one has not been heard out.
        Ended::NearLeft(_) => Verdict {
            near: Closing::Unwanted,
            far: Closing::Cut,
        },
    }
}

/// Whether the end of a stream that a read reports is one, given the error of an earlier write to it: the system tells of a reset or a loss
/// once, and after that every read finds an end, however much is missing. A substream tells its reader the truth by itself, and who
/// closes a pipe has only had enough.
pub(crate) fn is_end(write_error: Option<&io::Error>) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, TimedOut};
    write_error.is_none_or(|e| {
        e.raw_os_error().is_none()
            || !matches!(e.kind(), ConnectionAborted | ConnectionReset | TimedOut)
    })
}

/// Who reads what is written to an end of a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// A command says with its status what it was that it took no more.
    Command,
    /// The reader of standard output may leave when it has what it wanted.
    Output,
    Other,
}

impl Reader {
    fn may_leave(self, e: &io::Error) -> bool {
        match self {
            Self::Command => true,
            Self::Output => e.kind() == io::ErrorKind::BrokenPipe,
            Self::Other => false,
        }
    }
}

/// Which end of a pipe was lost, if one was; and whether that is the near one.
pub(crate) fn lost(ended: &Ended, near: Reader, far: Reader) -> Option<(bool, &io::Error)> {
    match ended {
        Ended::Near(e) | Ended::NearLeft(e) => Some((true, e)),
        Ended::Far(e) => Some((false, e)),
        Ended::Both {
            near_left,
            far_left,
        } => {
            let near_left = near_left.as_ref().filter(|e| !near.may_leave(e));
            let far_left = far_left.as_ref().filter(|e| !far.may_leave(e));
            let near_lost = near_left.map(|e| (true, e));
            near_lost.or(far_left.map(|e| (false, e)))
        }
    }
}
