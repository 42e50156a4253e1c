//! Where one TLS record ends and the next begins.
//!
//! rustls throws away whatever it holds behind a close_notify, but those bytes belong to the layer
//! below (or to the application, once the last layer is gone). So rustls is never handed more than
//! one record at a time, and this file tells how long that record is.
//!
//! A record is a header of five bytes (content type, version, length) and a body (RFC 8446 section
//! 5.1, RFC 5246 section 6.2.1). Nothing here waits for a length that cannot be right: a header
//! that no TLS peer would send is reported at the first byte that shows it.

/// Content type, two bytes of version, two bytes of length.
pub(crate) const HEADER: usize = 5;

/// The longest body of a record: 2^14 bytes of plaintext and what TLS 1.2 allows a cipher to add
/// (RFC 5246 section 6.2.3; TLS 1.3 allows 256, and rustls judges that).
pub(crate) const MAX_BODY: usize = 16_384 + 2_048;

/// The longest record, header included.
pub(crate) const MAX_RECORD: usize = HEADER + MAX_BODY;

/// The longest plaintext of one record (RFC 8446 section 5.1).
pub(crate) const MAX_PLAINTEXT: usize = 16_384;

/// What the front of a buffer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Front {
    /// A whole record of so many bytes, header included.
    Whole(usize),
    /// The beginning of a record; nothing can be done before more bytes have come.
    Partial,
    /// Not TLS: no record begins like this.
    Invalid,
}

/// Looks at the front of `bytes` for one record.
pub(crate) fn front(bytes: &[u8]) -> Front {
    // change_cipher_spec 20, alert 21, handshake 22, application_data 23, heartbeat 24.
    if bytes.first().is_some_and(|kind| !(20..=24).contains(kind)) {
        return Front::Invalid;
    }
    if bytes.get(1).is_some_and(|major| *major != 3) {
        return Front::Invalid;
    }
    let Some(header) = bytes.first_chunk::<HEADER>() else {
        return Front::Partial;
    };
    let body = usize::from(u16::from_be_bytes([header[3], header[4]]));
    if body > MAX_BODY {
        return Front::Invalid;
    }
    if bytes.len() < HEADER + body {
        return Front::Partial;
    }
    Front::Whole(HEADER + body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![kind, 3, 3];
        out.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        out.extend(body);
        out
    }

    #[test]
    fn a_record_is_found_with_what_follows_it_left_alone() {
        let mut bytes = record(23, b"hello");
        bytes.extend(b"belongs to the layer below");
        assert_eq!(front(&bytes), Front::Whole(10));
    }

    #[test]
    fn every_prefix_of_a_record_is_partial() {
        let bytes = record(22, &[7; 300]);
        for n in 0..bytes.len() {
            assert_eq!(front(&bytes[..n]), Front::Partial, "{n} bytes");
        }
        assert_eq!(front(&bytes), Front::Whole(305));
    }

    #[test]
    fn a_body_of_the_longest_length_is_a_record_and_one_more_byte_is_not() {
        assert_eq!(
            front(&record(23, &vec![0; MAX_BODY])),
            Front::Whole(MAX_RECORD)
        );
        assert_eq!(front(&[23, 3, 3, 0x48, 0x01]), Front::Invalid);
    }

    #[test]
    fn a_banner_is_recognised_at_its_first_byte() {
        assert_eq!(front(b"S"), Front::Invalid);
        assert_eq!(front(b"\x16H"), Front::Invalid);
        assert_eq!(front(b"\x80\x2e\x01"), Front::Invalid, "an SSL 2 hello");
    }

    proptest! {
        #[test]
        fn records_are_split_as_they_were_joined(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..600), 0..20),
            kind in 20u8..=24,
        ) {
            let mut wire: Vec<u8> = bodies.iter().flat_map(|b| record(kind, b)).collect();
            for body in &bodies {
                prop_assert_eq!(front(&wire), Front::Whole(HEADER + body.len()));
                wire.drain(..HEADER + body.len());
            }
            prop_assert_eq!(front(&wire), Front::Partial);
        }

        #[test]
        fn no_answer_reaches_past_the_buffer(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Front::Whole(n) = front(&bytes) {
                prop_assert!(n <= bytes.len() && n >= HEADER);
            }
        }
    }
}
