//! Parts of an address to text: escapes for what would end them, and for what is not fit to be shown.
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::text::is_printable;

/// A path as bytes: what is valid UTF-8 is escaped as text, any other byte as `%XX`.
pub(super) fn escape_path(f: &mut fmt::Formatter<'_>, path: &Path) -> fmt::Result {
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        escape(f, chunk.valid())?;
        for byte in chunk.invalid() {
            write!(f, "%{byte:02X}")?;
        }
    }
    Ok(())
}

pub(super) fn escape(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    escape_with(f, text, &['%', ',', '?'])
}

/// With `%XX` for these, too.
pub(super) fn escape_with(f: &mut fmt::Formatter<'_>, text: &str, these: &[char]) -> fmt::Result {
    for c in text.chars() {
        if !is_printable(c) || these.contains(&c) {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                write!(f, "%{byte:02X}")?;
            }
        } else {
            write!(f, "{c}")?;
        }
    }
    Ok(())
}
