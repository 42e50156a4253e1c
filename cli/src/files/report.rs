//! What a transfer tells while it goes on, and the words for it.

use std::io;

/// Takes what happens in a transfer. At a server nobody reads it: the peer is told.
pub(crate) trait Report: Send + Sync {
    /// Something is left out, or a warning.
    fn problem(&self, is_error: bool, text: &str);
    /// A file is not in its place; of its bytes `unsent` will not come.
    fn refused(&self, label: &str, unsent: u64, why: &str);
    /// The bytes of a file come now; so many were there.
    fn begins(&self, label: &str, present: u64);
    /// So many bytes of files have arrived at the receiver in all.
    fn arrived(&self, bytes: u64);
    /// A file is in its place.
    fn stored(&self, label: &str, size: u64);
    /// There is so much in all.
    fn total(&self, files: u64, bytes: u64);
}

/// Why nothing of what is in a folder is copied: the line of the folder says it for all of it.
pub(crate) const IN_NO_FOLDER: &str = "its folder could not be made";

/// For a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Silent;

impl Report for Silent {
    fn problem(&self, _is_error: bool, _text: &str) {}
    fn refused(&self, _label: &str, _unsent: u64, _why: &str) {}
    fn begins(&self, _label: &str, _present: u64) {}
    fn arrived(&self, _bytes: u64) {}
    fn stored(&self, _label: &str, _size: u64) {}
    fn total(&self, _files: u64, _bytes: u64) {}
}

/// A name of any bytes, for a person.
pub(crate) fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// Why a file can't be had, in plain words.
pub(crate) fn reason(e: &io::Error) -> String {
    let text = e.to_string();
    let plain = match text.split_once(" (os error ") {
        Some((plain, _)) => plain,
        None => &text,
    };
    let mut chars = plain.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}
