//! Statements of a changed key come in certificates of strangers. Whatever the bytes: reading ends, and
//! what was read is written as the same bytes; a statement that nobody has signed never counts.
#![no_main]

use std::time::Duration;

use cepa::identity::{Rotation, UnixTime, rotations_from_text, rotations_to_text};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(statement) = Rotation::from_bytes(bytes) {
        assert_eq!(statement.to_bytes(), bytes);
        let now = statement.times().issued;
        assert!(statement.check(now).is_err(), "both keys have signed it");
        assert!(
            statement
                .check(UnixTime::since_unix_epoch(Duration::ZERO))
                .is_err()
        );
        let text = rotations_to_text(std::slice::from_ref(&statement));
        assert_eq!(rotations_from_text(&text), Ok(vec![statement]));
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        match rotations_from_text(text) {
            Ok(statements) => assert_eq!(rotations_to_text(&statements), text.trim()),
            Err(error) => assert!(!error.to_string().contains('\n')),
        }
    }
    // Several, as a certificate carries them: eight at most.
    let mut text = b"cepa-rotation:".to_vec();
    text.extend_from_slice(bytes);
    if let Ok(Ok(statements)) = std::str::from_utf8(&text).map(rotations_from_text) {
        assert!(statements.len() <= 8);
    }
});
