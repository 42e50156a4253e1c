//! Memory for bulk: chunks of 32 KiB that are used again.
//!
//! A session that moves bulk fills such chunks and drops them, many thousands a second. Allocators hand memory
//! that is free at the end of a heap back to the system, and it comes again a page fault at a time: an eighth of the
//! CPU time of a bulk transfer was that. So what is dropped is kept for the next one, up to [`SPARE`] chunks
//! in the whole process, whatever the number of sessions. They are never read before they are written.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

/// Bytes in a chunk: two TLS records. Larger reads were measured to be slower.
pub const CHUNK: usize = 32 << 10;

/// What has come is copied where it is shorter than this: a part that is kept as a slice keeps its whole chunk
/// in memory (and is counted as that), so four times its size at most.
pub(crate) const SHARE_MIN: usize = CHUNK / 4;

/// Chunks that are kept, 1 MiB together.
const SPARE: usize = 32;

static SPARES: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// An empty chunk with room for [`CHUNK`] bytes: memory that is used again when it was [shared](share) and nobody has a part of it any more.
pub fn take() -> Vec<u8> {
    let spare = SPARES.lock().unwrap_or_else(PoisonError::into_inner).pop();
    spare.unwrap_or_else(|| Vec::with_capacity(CHUNK))
}

/// Shares what is in a chunk; the last one to drop a part of it gives the memory back.
pub fn share(chunk: Vec<u8>) -> Bytes {
    if chunk.capacity() == CHUNK {
        Bytes::from_owner(Used(chunk))
    } else {
        chunk.into()
    }
}

/// A copy of `data`, in pieces. None of them takes more than twice its length in memory.
pub(crate) fn copy(data: &[u8]) -> impl Iterator<Item = Bytes> {
    data.chunks(CHUNK).map(|part| {
        if part.len() < CHUNK / 2 {
            return Bytes::copy_from_slice(part);
        }
        let mut chunk = take();
        chunk.extend_from_slice(part);
        share(chunk)
    })
}

/// A chunk that others hold parts of.
struct Used(Vec<u8>);

impl AsRef<[u8]> for Used {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Used {
    fn drop(&mut self) {
        let mut chunk = std::mem::take(&mut self.0);
        chunk.clear();
        let mut spares = SPARES.lock().unwrap_or_else(PoisonError::into_inner);
        if spares.len() < SPARE {
            spares.push(chunk);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_whole_and_the_spares_are_bounded() {
        for length in [
            0,
            1,
            CHUNK / 2 - 1,
            CHUNK / 2,
            CHUNK,
            CHUNK + 1,
            5 * CHUNK - 7,
        ] {
            let data: Vec<u8> = (0..=250).cycle().take(length).collect();
            let pieces: Vec<Bytes> = copy(&data).collect();
            assert_eq!(pieces.concat(), data);
        }
        let many: Vec<Bytes> = (0..3 * SPARE)
            .flat_map(|_| copy(&vec![7; CHUNK]).collect::<Vec<_>>())
            .collect();
        drop(many);
        let spares = SPARES.lock().unwrap();
        assert!((1..=SPARE).contains(&spares.len()), "{}", spares.len());
        assert!(
            spares
                .iter()
                .all(|chunk| chunk.is_empty() && chunk.capacity() == CHUNK)
        );
    }
}
