//! In place of `qr.rs` in a build without the feature `mesh`.

use crate::exit::{Code, Failure};

pub(crate) fn of(_text: &str) -> Result<String, Failure> {
    let why = "this cepa was built without QR codes (feature `mesh`)";
    Err(Failure::new(Code::Usage, why))
}
