//! In place of `passphrase.rs` in a build without the feature `passphrase`: nobody is asked for one.

use std::path::Path;

use zeroize::Zeroizing;

use crate::exit::{Code, Failure};

pub(crate) fn of(path: &Path) -> Result<Zeroizing<String>, Failure> {
    Err(left_out(path))
}

pub(crate) fn new(path: &Path) -> Result<Zeroizing<String>, Failure> {
    Err(left_out(path))
}

fn left_out(path: &Path) -> Failure {
    let why = format!(
        "{}: this cepa was built without keys under a passphrase (feature `passphrase`); use a key without one",
        path.display()
    );
    Failure::new(Code::Local, why)
}
