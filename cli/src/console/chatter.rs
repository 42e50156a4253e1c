//! What a line says that is not of the link: boot messages, a kernel's log, a login prompt. Shown on
//! standard error, in another colour where that has colours.
//!
//! It is foreign text, so nothing in it may move the cursor: line ends and tabs stay, and all else that is not
//! printable (`transports::text`) is shown as an escape. The link's driver must not wait for a screen, so a thread does the writing, and
//! what it cannot keep up with is dropped and counted.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use cepa::link::ChatterSink;
use cepa::transports::text::is_printable;

use crate::say::has_colours;

/// Pieces that wait for the screen.
const WAITING: usize = 256;

/// Dim yellow; and back.
const COLOUR: &str = "\x1b[2;33m";
const PLAIN: &str = "\x1b[0m";

pub(crate) struct Chatter {
    to: SyncSender<Vec<u8>>,
    lost: Arc<AtomicUsize>,
    raw: Arc<AtomicBool>,
}

impl Chatter {
    pub(crate) fn start() -> Self {
        let (to, from) = sync_channel(WAITING);
        let (lost, raw) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let coloured = has_colours();
        let shown = (Arc::clone(&lost), Arc::clone(&raw));
        // It ends with the sender. Without a thread there is nobody to show anything to.
        let _ = std::thread::Builder::new()
            .name("cepa-chatter".to_owned())
            .spawn(move || show(&from, &shown.0, &shown.1, coloured));
        Self { to, lost, raw }
    }

    pub(crate) fn sink(&self) -> ChatterSink {
        let (to, lost) = (self.to.clone(), Arc::clone(&self.lost));
        Arc::new(move |bytes: &[u8]| {
            if to.try_send(bytes.to_vec()).is_err() {
                lost.fetch_add(bytes.len(), Ordering::Relaxed);
            }
        })
    }

    /// Whether the terminal is raw, where a line feed alone does not go to the start of the line. A file keeps
    /// its plain lines.
    pub(crate) fn raw(&self, yes: bool) {
        self.raw
            .store(yes && io::stderr().is_terminal(), Ordering::Relaxed);
    }
}

fn show(from: &Receiver<Vec<u8>>, lost: &AtomicUsize, raw: &AtomicBool, coloured: bool) {
    while let Ok(bytes) = from.recv() {
        let mut text = printable(&bytes, raw.load(Ordering::Relaxed));
        let missing = lost.swap(0, Ordering::Relaxed);
        if missing > 0 {
            let _ = write!(text, "[{missing} bytes more]");
        }
        if coloured {
            text = format!("{COLOUR}{text}{PLAIN}");
        }
        let _ = io::stderr().write_all(text.as_bytes());
    }
}

/// Text that can do nothing to a terminal but fill it.
fn printable(bytes: &[u8], raw: bool) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\n' if raw => out.push_str("\r\n"),
                '\n' | '\t' => out.push(c),
                // Of a line end; alone it would let text overwrite text.
                '\r' => {}
                c if is_printable(c) => out.push(c),
                c if c.is_ascii() => {
                    let _ = write!(out, "\\x{:02x}", u32::from(c));
                }
                c => out.extend(c.escape_unicode()),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_it_moves_the_cursor() {
        assert_eq!(printable(b"U-Boot\r\n\tok\n", false), "U-Boot\n\tok\n");
        assert_eq!(printable(b"a\r\nb", true), "a\r\nb");
        assert_eq!(printable(b"\x1b[2Jhi\x00", true), "\\x1b[2Jhi\\x00");
        assert_eq!(printable(b"\xff\xfez\xc3\xbc", true), "\\xff\\xfezü");
        assert_eq!(printable("a\u{202e}b".as_bytes(), true), "a\\u{202e}b");
    }
}
