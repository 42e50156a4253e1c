//! Where the engine lets a session write its records to: into the layer below, or onto the wire behind what waits for it.
//! Both hand on what they are given in as few pieces as it can be, and keep nothing.

use std::io::{self, IoSlice, Write};

use bytes::{Buf, BytesMut};

use super::info::Counters;
use crate::tls::connection::Connection;

/// Takes one layer's records as the plaintext of the layer below, without a copy between.
pub(super) struct Sealer<'a> {
    pub(super) session: &'a mut Connection,
    pub(super) counters: &'a Counters,
    /// Bytes of the application that share the first record.
    pub(super) first: &'a mut BytesMut,
}

impl Write for Sealer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let n: usize = parts.iter().map(|part| part.len()).sum();
        if self.first.is_empty() {
            self.session.seal(parts)?;
        } else {
            let first = self.first.split();
            let mut all = vec![IoSlice::new(&first)];
            all.extend_from_slice(parts);
            self.session.seal(&all)?;
            self.counters.outward_plain(first.len());
        }
        self.counters.outward_plain(n);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes `raw` and what follows it in one vectored write.
pub(super) struct BelowWriter<'a> {
    pub(super) raw: &'a mut BytesMut,
    pub(super) wire: &'a mut dyn Write,
}

impl Write for BelowWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let written = {
            let mut all = Vec::with_capacity(parts.len() + 1);
            all.push(IoSlice::new(self.raw));
            all.extend_from_slice(parts);
            self.wire.write_vectored(&all)?
        };
        let raw = written.min(self.raw.len());
        self.raw.advance(raw);
        Ok(written - raw)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.wire.flush()
    }
}
