//! How long anybody is waited for whose stream is joined to another one: one table.
//!
//! | of whom | how long |
//! |---|---|
//! | what a command wrote that has exited | [`DRAIN`] |
//! | the status behind the end of a command's output | [`HELD`], where the peer may still send |
//! | a command on a terminal that was hung up | [`HANG_UP`], then it is killed |
//! | a service whose client is gone, with all of its input | [`LINGER`], or [`UNHEARD`] once its input has left, whichever is first; then it is cut |
//! | a slow reader, of what has ended in order | for as long as its session lasts: the place is its own |
//! | a slow reader, of what a reset is to come behind | [`STALLED`] without taking any |

use std::time::Duration;

/// How long the output of a command that has exited is waited for: what it left behind may hold the pipe for ever.
pub(crate) const DRAIN: Duration = Duration::from_secs(1);

/// How long the end of a command's output is held back for its status, while its peer has no other way to read that and may still
/// send: a command may close its output and go on taking input.
pub(crate) const HELD: Duration = Duration::from_secs(10);

/// How long a command on a terminal may take to end once that was hung up; then it is killed.
pub(crate) const HANG_UP: Duration = Duration::from_secs(10);

/// How long a service may still take once its client is gone: it may be carrying out what it was asked for.
pub(crate) const LINGER: Duration = Duration::from_secs(10);

/// Bytes that it may say meanwhile, which nobody hears: as many as a pipe holds.
pub(crate) const UNHEARD: usize = 64 << 10;

/// A reset waits until what is in front of it has left, as long as some of it leaves within this time: a slow reader is told of room
/// seldom.
pub(crate) const STALLED: Duration = Duration::from_secs(300);
