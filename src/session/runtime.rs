//! Whether there is a tokio runtime, which sessions need.

use crate::stack::ConnectError;

/// Timers, sockets and tasks are tokio's: without its runtime they panic.
pub(super) fn in_runtime() -> Result<(), ConnectError> {
    // A task runs in a runtime, which is cheaper to see than to be given its handle.
    if tokio::task::try_id().is_some() {
        return Ok(());
    }
    match tokio::runtime::Handle::try_current() {
        Ok(_) => Ok(()),
        Err(_) => Err(ConnectError::NoRuntime),
    }
}
