//! In place of `trace.rs` in a build without the feature `trace`: nothing is shown, and `-v` says so.

use cepa::transports::{Endpoint, TransportError};

use crate::exit::{Code, Failure};

pub(crate) fn start(verbose: u8, _says_events: bool) -> Result<bool, Failure> {
    if verbose == 0 {
        return Ok(false);
    }
    let why =
        "this cepa was built without `-v`; leave it out, or build cepa with the feature `trace`";
    Err(Failure::new(Code::Usage, why))
}

pub(crate) fn dialling(_address: &Endpoint) {}

pub(crate) fn dial_failed(_address: &Endpoint, _error: &TransportError) {}
