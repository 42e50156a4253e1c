//! Entry point for the fuzz target of the record splitter, also run on random input by a test. Not part
//! of the API.
//!
//! What has to hold, whatever a stranger sends: an answer never reaches past the buffer; more bytes never
//! change an answer that was already given; and a stream falls into the same records however it is cut.
#![allow(clippy::indexing_slicing, clippy::panic)]

use super::record::{Front, HEADER, MAX_RECORD, front};

/// Splits `data` (its first byte says how it is cut) and checks the splitter's promises.
pub fn fuzz_records(data: &[u8]) {
    let Some((cut, wire)) = data.split_first() else {
        return;
    };
    let whole = records(wire, wire.len().max(1));
    let cut = records(wire, usize::from(*cut).max(1));
    assert_eq!(whole, cut, "the records depend on how the bytes were cut");
}

/// The lengths of the records at the front of `wire`, which arrives in pieces, and what stopped the splitting.
fn records(wire: &[u8], piece: usize) -> (Vec<usize>, Front) {
    let (mut found, mut start, mut arrived) = (Vec::new(), 0, 0);
    loop {
        let buffer = &wire[start..arrived];
        match front(buffer) {
            Front::Whole(length) => {
                assert!(
                    (HEADER..=MAX_RECORD).contains(&length),
                    "no record has {length} bytes"
                );
                assert!(
                    length <= buffer.len(),
                    "a record of {length} bytes in {}",
                    buffer.len()
                );
                assert_eq!(
                    front(&buffer[..length]),
                    Front::Whole(length),
                    "what follows is looked at"
                );
                assert_eq!(
                    front(&buffer[..length - 1]),
                    Front::Partial,
                    "whole before its end"
                );
                found.push(length);
                start += length;
            }
            Front::Partial if arrived == wire.len() => return (found, Front::Partial),
            Front::Partial => {
                assert!(
                    buffer.len() < MAX_RECORD,
                    "waits for more than any record has"
                );
                arrived = wire.len().min(arrived + piece);
            }
            Front::Invalid => {
                // What is no record at its beginning does not become one.
                assert_eq!(
                    front(&wire[start..]),
                    Front::Invalid,
                    "an answer that did not last"
                );
                return (found, Front::Invalid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_promises_hold(
            cut: u8,
            kinds in prop::collection::vec((18u8..26, 0u16..600), 0..8),
            tail in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let mut data = vec![cut];
            for (kind, length) in kinds {
                data.extend([kind, 3, 3]);
                data.extend(length.to_be_bytes());
                data.extend(vec![kind; usize::from(length)]);
            }
            data.extend(tail);
            fuzz_records(&data);
        }
    }

    #[test]
    fn records_are_counted() {
        let wire = [23, 3, 3, 0, 1, 9, 21, 3, 3, 0, 0, 23, 3];
        assert_eq!(records(&wire, 1), (vec![6, 5], Front::Partial));
        assert_eq!(records(b"SSH-2.0", 3), (vec![], Front::Invalid));
    }
}
