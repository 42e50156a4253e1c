//! `stdio:`: standard input and output of this process, taken over for good.
//!
//! Once open, descriptors 0 and 1 refer to `/dev/null`, and the stream alone holds the real ones. So a
//! stray `println!` anywhere in the program cannot end up between two frames; closing the writing half
//! really closes standard output, and the peer sees the end; and the flags of what is shared with a
//! shell are never touched (see `descriptor`).
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::descriptor::Descriptors;
use crate::endpoint::Endpoint;
use crate::error::{Action, TransportError, TransportErrorKind as Kind};
use crate::remote::Remote;
use crate::stream::Stream;

static TAKEN: AtomicBool = AtomicBool::new(false);

pub(crate) fn open(action: Action, endpoint: &Endpoint) -> Result<Stream, TransportError> {
    if TAKEN.swap(true, Ordering::AcqRel) {
        let reason = "standard input and output are in use by another stream of this process";
        let advice = "stdio: can be given once";
        return Err(TransportError::new(
            action,
            endpoint,
            Kind::AddressInUse,
            reason,
            advice,
        ));
    }
    take().map_err(|error| {
        TAKEN.store(false, Ordering::Release);
        let advice = "check how this process was started (redirections)";
        TransportError::io(action, endpoint, error, advice)
    })
}

fn take() -> io::Result<Stream> {
    let read = io::stdin().as_fd().try_clone_to_owned()?;
    let write = io::stdout().as_fd().try_clone_to_owned()?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let streams = Descriptors::new(read, write)?;
    // What the program printed before still belongs before the stream's bytes.
    let _ = io::stdout().flush();
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(Stream::from_wire(streams, "stdio").with_remote(Remote::Stdio))
}
